/* A run that was killed, stopped or finished goes on with the same bits as one that was never disturbed. */
#include "dist/memory.h"
#include "io/array_file.h"
#include "io_files.h"
#include "support_cli.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

TestSuite(resume, .init = cli_begin, .fini = cli_end, .timeout = 150);

/* All that draws numbers or keeps state: dropout, augmentation, ConR and its memory, shuffling, momentum; checkpoints
 * within epochs.
 * 72 training samples, 8 steps an epoch. */
#define ROWS 120
#define STEPS 8
static const char options[] =
    "--hidden 16,16 --batch 9 --conr --conr-memory 40 --dropout 0.2 --noise 0.1 --mask 0.1 --lr 0.01 "
    "--clip 5 --log-steps 1 --checkpoint-steps 3 --quiet";

static const char *command_for(const char *run, int epochs) {
  return cli_text("train %s -o %s --epochs %d %s", io_file("t.h5"), run, epochs, options);
}

/* The run that nobody disturbs. */
static const char *undisturbed(int ranks, int epochs) {
  const char *run = io_file("undisturbed");
  cli_data("t.h5", ROWS);
  cli_accepted(ranks, command_for(run, epochs));
  cr_assert(eq(int, cli_lines(cli_metrics(run)), epochs *(STEPS + 1)));
  return run;
}

static void sleep_seconds(double seconds) {
  struct timespec time = {(time_t)seconds, (long)(1e9 * (seconds - (double)(time_t)seconds))};
  nanosleep(&time, NULL);
}

/* Whole files only: what a kill leaves under the checkpoint's name can be read. */
static void checkpoint_is_whole(const char *run) {
  if (io_exists(cli_last(run)))
    cli_same_arrays(cli_last(run), cli_last(run), 0);
  else
    cr_assert(not(io_exists(cli_metrics(run)) && io_exists(cli_text("%s/checkpoint-previous.h5", run)) == false &&
                  cli_lines(cli_metrics(run)) > 6),
              "no checkpoint after %d lines", cli_lines(cli_metrics(run)));
}

Test(resume, killed_at_ten_random_moments_it_ends_with_the_same_bits) {
  enum { KILLS = 10, EPOCHS = 60 };
  const char *run = io_file("killed"), *whole = undisturbed(2, EPOCHS);
  const char *line = cli_text("%s --resume", command_for(run, EPOCHS));
  unsigned seed = (unsigned)time(NULL);
  int killed = 0;
  for (int i = 0; i < KILLS; i++) {
    struct cli_job job;
    int before = cli_lines(cli_metrics(run));
    cli_start(&job, 2, line);
    /* After a random number of steps, and some more of the time that a step and a checkpoint take. */
    cli_await_lines(cli_metrics(run), before + 1 + rand_r(&seed) % 30);
    sleep_seconds(rand_r(&seed) % 1000 * 1e-5);
    cli_kill_all(&job);
    killed += cli_wait(&job) == 128 + SIGKILL;
    cli_job_free(&job);
    checkpoint_is_whole(run);
  }
  cr_assert(eq(int, killed, KILLS), "seed %u: a run ended before it was killed", seed);
  cr_assert(lt(int, cli_lines(cli_metrics(run)), EPOCHS *(STEPS + 1)), "nothing is left to resume");
  cli_accepted(2, line);
  cli_same_runs(whole, run);
}

/* Between the best checkpoint of the first epoch and the last one: the best one is as good. */
Test(resume, killed_in_the_middle_of_the_first_save_it_goes_on_from_the_best) {
  const char *run = io_file("cut"), *whole = undisturbed(2, 4);
  cli_accepted(2, command_for(run, 1));
  cr_assert(eq(int, remove(cli_last(run)), 0));
  remove(cli_text("%s/checkpoint-previous.h5", run));
  struct run_result result = cli_run(2, cli_text("%s --resume", command_for(run, 4)));
  cr_assert(eq(int, result.exit_status, 0), "%s", result.output);
  cr_assert(eq(int, cli_count(result.output, "there is no last checkpoint; going on from the best one, epoch 2"), 1),
            "%s", result.output);
  run_result_free(&result);
  cli_same_runs(whole, run);
}

/* Before the first checkpoint there is nothing to go on with, and --resume begins. */
Test(resume, killed_before_the_first_checkpoint_it_begins_again) {
  const char *run = io_file("killed"), *whole = undisturbed(2, 2);
  struct cli_job job;
  const char *line = cli_text("%s --resume", command_for(run, 2));
  cli_start(&job, 2, line);
  cli_rank_pid(&job, 1);
  cli_kill_all(&job);
  cli_wait(&job);
  cli_job_free(&job);
  cli_accepted(2, line);
  cli_same_runs(whole, run);
}

/* Sums are rounded in another order, nothing else. */
Test(resume, on_another_number_of_ranks_it_is_equal_to_rounding) {
  const char *whole = undisturbed(2, 4);
  for (int ranks = 1; ranks <= 3; ranks += 2) {
    const char *run = io_file(cli_text("on%d", ranks));
    cli_accepted(2, command_for(run, 2));
    cli_accepted(ranks, cli_text("%s --resume", command_for(run, 4)));
    cli_same_arrays(cli_last(whole), cli_last(run), 1e-5);
    cr_assert(eq(int, cli_lines(cli_metrics(run)), cli_lines(cli_metrics(whole))));
  }
}

/* ---- signals -------------------------------------------------------------------------------- */

/* A run that would take too long, stopped: the sentence, the status, a checkpoint, and the same end. */
static void stopped_run_goes_on(int ranks, int signal_number, bool by_launcher) {
  enum { LONG = 100000 };
  struct cli_job job;
  const char *run = io_file("stopped"), *whole = io_file("whole");
  cli_data("t.h5", ROWS);
  if (by_launcher) /* mpirun waits so many seconds, always all of them, between its two signals; 1 by itself */
    setenv("OMPI_MCA_odls_base_sigkill_timeout", "3", 1);
  char *loud = strdup(command_for(run, LONG));
  *strstr(loud, "--quiet") = '\0';
  cli_start(&job, ranks, loud);
  cli_await_lines(cli_metrics(run), 20);
  /* To the last rank alone, so that the ranks have something to agree on; or to the launcher, as Ctrl-C does. */
  kill(by_launcher ? cli_launcher_pid(&job) : cli_rank_pid(&job, ranks > 0 ? ranks - 1 : 0), signal_number);
  int exit_status = cli_wait(&job);
  cr_assert(eq(int, cli_count(job.result.output, "; --resume goes on from it\n"), 1), "%s", job.result.output);
  const char *found = strstr(job.result.output, "stopped by a signal after step ");
  cr_assert(found != NULL, "%s", job.result.output);
  /* mpirun has a status of its own when it is the one that is told to stop; SIGUSR1 it only hands on. */
  if (by_launcher && signal_number != SIGUSR1)
    cr_assert(ne(int, exit_status, 0));
  else
    cr_assert(eq(int, exit_status, 75), "%s", job.result.output);
  int steps = atoi(found + strlen("stopped by a signal after step "));
  cr_assert(ge(int, steps, 18));
  cli_job_free(&job);
  free(loud);
  int epochs = steps / STEPS + 2;
  cli_accepted(ranks, cli_text("%s --resume", command_for(run, epochs)));
  cli_accepted(ranks, command_for(whole, epochs));
  cli_same_runs(whole, run);
}

Test(resume, sigterm_to_one_rank_stops_all_with_75) {
  stopped_run_goes_on(3, SIGTERM, false);
}

Test(resume, sigint_to_one_rank_stops_all_with_75) {
  stopped_run_goes_on(2, SIGINT, false);
}

Test(resume, sigterm_to_the_launcher_stops_all_with_a_checkpoint) {
  stopped_run_goes_on(2, SIGTERM, true);
}

Test(resume, sigint_to_the_launcher_stops_all_with_a_checkpoint) {
  stopped_run_goes_on(2, SIGINT, true);
}

Test(resume, sigusr1_to_the_launcher_stops_all_with_75) {
  stopped_run_goes_on(3, SIGUSR1, true);
}

Test(resume, sigterm_without_a_launcher) {
  stopped_run_goes_on(0, SIGTERM, false);
}

Test(resume, sigint_without_a_launcher) {
  stopped_run_goes_on(0, SIGINT, false);
}

/* Told to stop as soon as it has started, while it waits for what it is to read from a pipe.  text: that, or NULL, where
 * it is to end without. */
static void stopped_at_once(const char *command, const char *pipe, const char *text, int expected) {
  struct cli_job job;
  int end, exit_status;
  cr_assert(eq(int, mkfifo(pipe, 0600), 0));
  cli_start(&job, 0, command);
  cr_assert(ge(int, end = open(pipe, O_WRONLY | O_CLOEXEC), 0));
  kill(cli_rank_pid(&job, 0), SIGTERM);
  if (text != NULL) {
    sleep_seconds(0.1);
    cr_expect(eq(int, (int)write(end, text, strlen(text)), (int)strlen(text)));
    close(end);
    exit_status = cli_wait(&job);
  } else {
    exit_status = cli_wait(&job);
    close(end);
  }
  cr_expect(eq(int, exit_status, expected), "%s", job.result.output);
  cli_job_free(&job);
}

Test(resume, sigterm_before_all_else_stops_with_75) {
  const char *options_file = io_file("options");
  cli_data("t.h5", ROWS);
  stopped_at_once(cli_text("%s --config %s", command_for(io_file("run"), 2), options_file), options_file,
                  "patience = 0\n", 75);
}

Test(resume, a_command_that_saves_nothing_ends_at_once) {
  const char *table = io_file("table.csv");
  stopped_at_once(cli_text("import %s --target y -o %s", table, io_file("t.h5")), table, NULL, 128 + SIGTERM);
}

/* ---- what may change, and what may not ------------------------------------------------------ */

Test(resume, more_epochs_go_on_from_a_finished_run) {
  const char *run = io_file("run"), *whole = undisturbed(2, 5);
  cli_accepted(2, command_for(run, 3));
  cli_accepted(2, cli_text("%s --resume", command_for(run, 5)));
  cli_same_runs(whole, run);
}

Test(resume, a_finished_run_has_nothing_left_to_do) {
  const char *whole = undisturbed(2, 3), *copy = io_file("copy.h5");
  size_t bytes;
  char *before = io_read(cli_last(whole), &bytes);
  io_write(copy, before, bytes);
  free(before);
  cli_accepted(2, cli_text("%s --resume", command_for(whole, 3)));
  cli_accepted(2, cli_text("%s --resume", command_for(whole, 2)));
  cli_same_arrays(copy, cli_last(whole), 0);
  cr_assert(eq(int, cli_lines(cli_metrics(whole)), 3 * (STEPS + 1)));
}

Test(resume, changed_options_are_refused_by_name) {
  static const struct {
    const char *options, *sentence;
  } cases[] = {
      {"--lr 0.5", "--resume with --lr 0.5, but the run was begun with 0.01; give the same, or start a new run"},
      {"--batch 8", "--resume with --batch 8, but the run was begun with 9; give the same, or start a new run"},
      {"--seed 3", "--resume with --seed 3, but the run was begun with 0; give the same, or start a new run"},
      {"--hidden 8", "--resume with --hidden 8, but the run was begun with 16,16; give the same, or start a new run"},
      {"--noise 0.2", "--resume with --noise 0.2, but the run was begun with 0.1; give "
                      "the same, or start a new run"},
      {"--conr-w 2", "--resume with --conr-w 2, but the run was begun with 1; give the same, or start a new run"},
      {"--loss mse --select mae",
       "--resume with --loss mse, but the run was begun with l1; give the same, or start a new run"},
  };
  const char *run = undisturbed(0, 1);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    cli_refused(i == 0 ? 3 : 0, 2, cases[i].sentence,
                cli_text("%s --resume %s", command_for(run, 2), cases[i].options));
  cli_accepted(0, cli_text("%s --resume --log-steps 2 --checkpoint-steps 0 --threads 2", command_for(run, 2)));
}

/* As earlier programs wrote them: 17 digits, whatever they are. */
Test(resume, numbers_that_were_written_otherwise_are_the_same) {
  const char *run = undisturbed(0, 1);
  struct array_file *file;
  cr_assert(eq(int, (int)array_file_read(cli_last(run), true, &file), 0));
  for (size_t i = 0; i < file->attribute_count; i++) {
    struct attribute *one = &file->attributes[i];
    char *number = strcmp(one->name, "options") == 0 ? strstr(one->text, "\nnoise = 0.1\n") : NULL;
    if (number == NULL)
      continue;
    const char *text = cli_text("%.*s\nnoise = 0.10000000000000001\n%s", (int)(number - one->text), one->text,
                                number + strlen("\nnoise = 0.1\n"));
    memory_free((void **)&one->text);
    cr_assert(eq(int, (int)memory_alloc(strlen(text) + 1, (void **)&one->text), 0));
    strcpy((char *)one->text, text);
  }
  cr_assert(
      eq(int,
         (int)array_file_write(cli_last(run), file->arrays, file->array_count, file->attributes, file->attribute_count),
         0));
  array_file_destroy(&file);
  cli_accepted(0, cli_text("%s --resume", command_for(run, 2)));
}

/* The rate of a cosine depends on where it ends. */
Test(resume, epochs_of_a_cosine_cannot_change) {
  const char *run = io_file("run");
  cli_data("t.h5", ROWS);
  cli_accepted(0, cli_text("%s --schedule cosine", command_for(run, 2)));
  cli_refused(0, 2, "--resume with --epochs 3, but the run was begun with 2; give the same, or start a new run",
              cli_text("%s --schedule cosine --resume", command_for(run, 3)));
}

Test(resume, a_linear_model_can_be_resumed) {
  const char *run = io_file("run"), *whole = io_file("whole"), *data = cli_data("t.h5", ROWS);
  const char *line = cli_text("train %s --hidden '' --log-steps 1", data);
  cli_accepted(0, cli_text("%s -o %s --epochs 2", line, whole));
  cli_accepted(0, cli_text("%s -o %s --epochs 1", line, run));
  cli_accepted(0, cli_text("%s -o %s --epochs 2 --resume", line, run));
  cli_same_runs(whole, run);
  cli_refused(0, 2, "--resume with --hidden 8, but the run was begun with \"\"; give the same, or start a new run",
              cli_text("train %s -o %s --hidden 8 --epochs 3 --resume", data, run));
}

Test(resume, other_data_are_refused) {
  const char *run = undisturbed(0, 1), *other = cli_data("other.h5", ROWS + 10);
  cli_refused(3, 2, cli_text("--resume with other data: %s is not what the run in %s was trained on", other, run),
              cli_text("train %s -o %s --epochs 2 %s --resume", other, run, options));
}

/* ---- early stopping ------------------------------------------------------------------------- */

/* A rate so large that the first epochs are the best ones. */
static const char early[] = "--hidden 8 --batch 9 --lr 0.1 --patience 3 --log-steps 1 --quiet";

static int epochs_of(const char *run) {
  char *text = io_read(cli_metrics(run), NULL);
  int epochs = cli_count(text, "\"event\":\"epoch\"");
  free(text);
  return epochs;
}

Test(resume, early_stopping_stops_and_stays_stopped) {
  const char *run = io_file("run"), *data = cli_data("t.h5", ROWS);
  const char *line = cli_text("train %s -o %s --epochs 500 %s", data, run, early);
  cli_accepted(2, line);
  int epochs = epochs_of(run);
  cr_assert(ge(int, epochs, 4));
  cr_assert(lt(int, epochs, 500), "it did not stop early");
  cli_accepted(2, cli_text("%s --resume", line));
  cr_assert(eq(int, epochs_of(run), epochs));
  /* More patience is more epochs. */
  cli_accepted(2, cli_text("%s --resume --patience 4", line));
  cr_assert(ge(int, epochs_of(run), epochs + 1));
}

Test(resume, early_stopping_counts_across_a_resume) {
  const char *run = io_file("run"), *whole = io_file("whole"), *data = cli_data("t.h5", ROWS);
  cli_accepted(2, cli_text("train %s -o %s --epochs 500 %s", data, whole, early));
  int epochs = epochs_of(whole);
  /* Two epochs before its end it has been waiting for one already. */
  cli_accepted(2, cli_text("train %s -o %s --epochs %d %s", data, run, epochs - 2, early));
  cr_assert(eq(int, epochs_of(run), epochs - 2));
  cli_accepted(2, cli_text("train %s -o %s --epochs 500 %s --resume", data, run, early));
  cli_same_runs(whole, run);
}
