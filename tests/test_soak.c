/* A run whose ranks, launcher or both are killed with -9 at random moments, again and again, ends with the bits of one that
 * was left alone.  `make test` kills a few times, `make soak` a hundred times.  SOAK_KILLS says how often; SOAK_SEED
 * gives the victims and moments of an earlier run, as far as those are numbers of steps. */
#include "io/array_file.h"
#include "io_files.h"
#include "support_cli.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

TestSuite(soak, .init = cli_begin, .fini = cli_end, .timeout = 3600);

/* A checkpoint after every step takes most of the time, so that most kills come while one is written. */
enum { RANKS = 3, ALL = RANKS, LAUNCHER, VICTIMS, FEW = 5, LONG = 100000 };
static const char *const victims[VICTIMS] = {"rank 0", "rank 1", "rank 2", "all ranks and mpirun", "mpirun"};
static const char options[] = "--hidden 16,16 --batch 9 --conr --dropout 0.2 --lr 0.001 --clip 5 --log-steps 1 --quiet";

static const char *command_for(const char *run, int epochs) {
  return cli_text("train %s -o %s --epochs %d %s", io_file("t.h5"), run, epochs, options);
}

static long number_of(const char *variable, long otherwise) {
  const char *text = getenv(variable);
  return text != NULL ? strtol(text, NULL, 10) : otherwise;
}

/* Files that a run has; else those that it leaves when it is killed while it writes, or what must not be there. */
static int files_begun(const char *run) {
  static const char *const finished[] = {"checkpoint-last.h5", "checkpoint-previous.h5", "checkpoint-best.h5",
                                         "metrics.jsonl", "config.used"};
  static const char *const begun[] = {"checkpoint-best.h5.tmp", "checkpoint-last.h5.new.tmp", "checkpoint-last.h5.new"};
  int count = 0;
  DIR *folder = opendir(run);
  for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
    bool known = entry->d_name[0] == '.';
    for (size_t i = 0; i < sizeof finished / sizeof *finished; i++)
      known = known || strcmp(entry->d_name, finished[i]) == 0;
    for (size_t i = 0; i < sizeof begun / sizeof *begun; i++)
      if (strcmp(entry->d_name, begun[i]) == 0) {
        known = true;
        count++;
      }
    cr_expect(known, "there is a file %s in the run folder", entry->d_name);
  }
  if (folder != NULL)
    closedir(folder);
  return count;
}

/* The step of the newest checkpoint that can be read whole, of those that --resume takes; -1 without one. */
static long long step_of_checkpoint(const char *run) {
  static const char *const names[] = {"last", "previous", "best"};
  bool any = false;
  for (int i = 0; i < 3; i++) {
    struct array_file *file;
    const char *path = cli_text("%s/checkpoint-%s.h5", run, names[i]);
    if (!io_exists(path))
      continue;
    any = true;
    enum status status = array_file_read(path, true, &file);
    cr_expect(status == STATUS_OK, "%s", status_message());
    if (status != STATUS_OK)
      continue;
    long long step = -1;
    for (size_t a = 0; a < file->attribute_count; a++)
      if (strcmp(file->attributes[a].name, "step") == 0)
        step = (long long)file->attributes[a].integer;
    array_file_destroy(&file);
    cr_assert(step >= 0, "%s has no step", path);
    return step;
  }
  cr_assert(not(any), "no checkpoint in %s is whole", run);
  return -1;
}

static void sleep_seconds(double seconds) {
  nanosleep(&(struct timespec){.tv_sec = (time_t)seconds, .tv_nsec = (long)(1e9 * fmod(seconds, 1))}, NULL);
}

/* One start, killed while it begins or after a few steps.  Returns whether it was writing a checkpoint. */
static bool kill_once(const char *run, int number, int kills, unsigned *seed) {
  struct cli_job job;
  pid_t ranks[RANKS];
  int victim = rand_r(seed) % VICTIMS, steps = rand_r(seed) % 4 == 0 ? 0 : 1 + rand_r(seed) % 20;
  double pause = rand_r(seed) % 1000 * (steps == 0 ? 5e-4 : 2e-5);
  int before = cli_lines(cli_metrics(run));
  cli_start(&job, RANKS, cli_text("%s --checkpoint-steps 1 --resume", command_for(run, LONG)));
  for (int rank = 0; rank < RANKS; rank++)
    ranks[rank] = cli_rank_pid(&job, rank);
  if (steps > 0)
    cli_await_lines(cli_metrics(run), before + steps);
  sleep_seconds(pause);
  double began = cli_seconds();
  if (victim == ALL)
    cli_kill_all(&job);
  else
    kill(victim == LAUNCHER ? cli_launcher_pid(&job) : ranks[victim], SIGKILL);
  int exit_status = cli_wait(&job);
  for (int rank = 0; rank < RANKS; rank++)
    cr_assert(cli_is_gone(ranks[rank], 30), "kill %d, of %s: rank %d is still there:\n%s", number, victims[victim],
              rank, job.result.output);
  double took = cli_seconds() - began;
  cr_assert(exit_status != 0 && exit_status != RUN_TIMED_OUT, "kill %d, of %s: ended with %d after %g s:\n%s", number,
            victims[victim], exit_status, took, job.result.output);
  bool writing = files_begun(run) > 0;
  printf("soak: kill %d of %d, %s, %s: gone after %.1f s, checkpoint of step %lld is whole%s\n", number, kills,
         victims[victim], steps == 0 ? "while it began" : cli_text("after %d steps", steps), took,
         step_of_checkpoint(run), writing ? "; another was being written" : "");
  fflush(stdout);
  cli_job_free(&job);
  return writing;
}

static int epochs_in(const char *run) {
  char *log = io_read(cli_metrics(run), NULL);
  int count = cli_count(log, "\"event\":\"epoch\"");
  free(log);
  return count;
}

Test(soak, killed_at_random_it_ends_with_the_same_bits) {
  const char *run = io_file("killed"), *whole = io_file("undisturbed");
  int kills = (int)number_of("SOAK_KILLS", FEW), writing = 0;
  unsigned first = (unsigned)number_of("SOAK_SEED", (long)time(NULL) % 1000000), seed = first;
  double began = cli_seconds();
  printf("soak: %d kills, SOAK_SEED=%u\n", kills, first);
  cli_data("t.h5", 120);
  for (int i = 1; i <= kills; i++)
    writing += kill_once(run, i, kills, &seed);
  int epochs = epochs_in(run) + 2;
  cli_accepted(RANKS, cli_text("%s --resume", command_for(run, epochs)));
  cli_accepted(RANKS, command_for(whole, epochs));
  cr_expect(eq(int, files_begun(run), 0), "what was begun is left behind");
  cli_same_runs(whole, run);
  printf(
      "soak: %d kills, %d while a checkpoint was written; %d epochs, the same bits as without; SOAK_SEED=%u, %.0f s\n",
      kills, writing, epochs, first, cli_seconds() - began);
}
