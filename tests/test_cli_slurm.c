/* conr slurm prints a job script; the script decides well what becomes of the job.
 *
 * These tests see the script without a Slurm: srun and scontrol are ours, one starts what it is given, the other tells a
 * state and notes what it is asked for.  What a Slurm makes of it is for test_cluster. */
#include "io_files.h"
#include "support_cli.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void write_program(const char *name, const char *text) {
  io_write_text(io_file(name), cli_text("#!/bin/sh\n%s\n", text));
  cr_assert(eq(int, chmod(io_file(name), 0755), 0));
}

static void begin(void) {
  cli_begin();
  write_program("srun", cli_text("echo \"fence $SLURM_PMIX_FENCE $*\" >%s\nwhile case $1 in -*) ;; *) false ;; esac; "
                                 "do shift; done\nexec \"$@\"",
                                 io_file("srun.words")));
  write_program("scontrol", cli_text("case $1 in show) echo \"JobId=7 JobState=${TEST_STATE:-RUNNING} Reason=None\"; "
                                     "echo \"   PreemptEligibleTime=2026-01-01T00:00:00 "
                                     "PreemptTime=${TEST_PREEMPTED:-None}\" ;; "
                                     "*) echo \"$*\" >>%s ;; esac",
                                     io_file("scontrol.words")));
  setenv("PATH", cli_text("%s:%s", io_file(""), getenv("PATH")), 1);
  setenv("SLURM_JOB_ID", "7", 1);
  for (const char *const *name =
           (const char *const[]){"SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT",
                                 "SLURM_CPUS_PER_TASK", "SLURM_NTASKS", "SLURM_JOB_NUM_NODES", "SLURM_PMIX_FENCE",
                                 "CONR", "CONR_LAUNCHER", NULL};
       *name != NULL; name++)
    unsetenv(*name);
}

TestSuite(cli_slurm, .init = begin, .fini = cli_end, .timeout = 120);

/* What conr slurm prints, in a file. */
static const char *script_of(const char *line) {
  char *text = cli_output(0, cli_text("slurm %s", line));
  const char *path = io_file("job.sh");
  io_write_text(path, text);
  free(text);
  return path;
}

static struct run_result run_script(const char *path) {
  struct run_result run;
  char *const command[] = {"bash", (char *)path, NULL};
  run_command(command, 60, &run);
  return run;
}

/* It ends with this status, says this, and asks scontrol for this ("" for nothing). */
static void expect_end(const char *path, int exit_status, const char *sentence, const char *asked) {
  struct run_result run = run_script(path);
  cr_expect(eq(int, run.exit_status, exit_status), "%s", run.output);
  cr_expect(strstr(run.output, sentence) != NULL, "not \"%s\":\n%s", sentence, run.output);
  char *words = io_exists(io_file("scontrol.words")) ? io_read(io_file("scontrol.words"), NULL) : strdup("");
  cr_expect(eq(str, words, (char *)asked), "%s", run.output);
  free(words);
  run_result_free(&run);
}

/* ---- what is printed ------------------------------------------------------------------------ */

/* The lines of the script that begin with #SBATCH, without that. */
static char *directives_of(const char *path) {
  struct run_result run;
  char *const command[] = {"sed", "-n", "s/^#SBATCH --//p", (char *)path, NULL};
  cr_assert(eq(int, run_command(command, 10, &run), 0));
  return run.output;
}

Test(cli_slurm, options_become_directives) {
  static const struct {
    const char *options, *directives;
  } cases[] = {
      {"", "job-name=conr\nnodes=1\nntasks-per-node=1\n"},
      {"--nodes 4 --gpus-per-node 8 --time 2-12:00:00 --account it --partition big --job-name night",
       "job-name=night\naccount=it\npartition=big\nnodes=4\nntasks-per-node=8\ngpus-per-node=8\ntime=2-12:00:00\n"},
      {"--ranks-per-node 2 --cores-per-rank 16 --time 90",
       "job-name=conr\nnodes=1\nntasks-per-node=2\ncpus-per-task=16\ntime=90\n"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char *found = directives_of(script_of(cli_text("%s train d.h5 -o run", cases[i].options)));
    cr_expect(
        eq(str, found, (char *)cli_text("%ssignal=B:USR1@120\nrequeue\nopen-mode=append\n", cases[i].directives)));
    free(found);
  }
  char *found = directives_of(script_of("--ahead 600 --jobs 8 compare d.h5 -o study"));
  cr_expect(eq(str, found,
               "job-name=conr\nnodes=1\nntasks-per-node=1\narray=1-8\nsignal=B:USR1@600\nrequeue\n"
               "open-mode=append\n"));
  free(found);
}

Test(cli_slurm, scripts_are_clean) {
  struct run_result run;
  char *const look[] = {"sh", "-c", "command -v shellcheck", NULL};
  if (run_command(look, 10, &run) != 0)
    cr_skip("shellcheck is not installed");
  run_result_free(&run);
  char *const command[] = {"shellcheck", "launch/slurm/job",
                           (char *)script_of("--jobs 3 --launcher mpirun compare 'a b.h5' -o study"), NULL};
  cr_expect(eq(int, run_command(command, 60, &run), 0), "%s", run.output);
  run_result_free(&run);
}

Test(cli_slurm, mistakes_are_told_before_the_job_waits) {
  static const struct {
    const char *line, *sentence;
  } cases[] = {
      {"", "conr slurm wants COMMAND ...; see conr slurm --help"},
      {"--time 1h train d.h5", "--time wants a limit such as 90 (minutes), 8:00:00 or 2-12:00:00, not \"1h\""},
      {"--time 0:00 train d.h5", "--time wants a limit such as 90 (minutes), 8:00:00 or 2-12:00:00, not \"0:00\""},
      {"--account 'a b' train d.h5", "--account wants a name without blanks and quotes, not \"a b\""},
      {"trein d.h5",
       "conr has no command \"trein\"; did you mean \"train\"? (in what the job is to do: options of conr "
       "slurm stand before \"trein\")"},
      {"train d.h5 --nodes 4", "conr train has no option --nodes; see conr train --help (in what the job is to do: "
                               "options of conr slurm stand before \"train\")"},
      {"train d.h5 --lr much",
       "--lr wants a number, not \"much\" (in what the job is to do: options of conr slurm stand "
       "before \"train\")"},
      {"train d.h5", "conr train wants a run folder: give -o RUN"},
      {"train d.h5 -o run --experts 3", "--experts has no effect without --loss uvote; drop one or add the other"},
      {"slurm train d.h5", "a job of conr slurm cannot be conr slurm itself"},
      {"train d.h5 -o run --force",
       "--force would make each start of the job begin again; remove what is there before you submit"},
      {"--jobs 4 train d.h5 -o run",
       "--jobs 4 is for conr compare and conr scale, whose runs and points an array can share; conr train is one job"},
      {"scale d.h5", "conr scale wants a folder for the study: give -o FOLDER"},
      {"scale --predict --machine h200-ndr400", "conr scale --predict takes no job: it computes a table at once"},
      {"--jobs 4 compare d.h5 -o study --share 1/4",
       "--share 1/4 beside --jobs 4: each job of the array gives its own; leave --share out"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    cli_refused(0, 2, cases[i].sentence, cli_text("slurm %s", cases[i].line));
}

/* ---- what the script does ------------------------------------------------------------------- */

/* A program in place of conr that prints its words, one a line, and ends with a status. */
static void use_program(int exit_status) {
  write_program("words", cli_text("printf '<%%s>\\n' \"$@\"\nexit %d", exit_status));
  setenv("CONR", io_file("words"), 1);
}

Test(cli_slurm, words_reach_conr_as_they_were) {
  use_program(0);
  expect_end(script_of("train \"it's \\$HOME; rm\" -o '' --hidden 8,8 --init '*'"), 0,
             "<train>\n<--resume>\n<it's $HOME; rm>\n<-o>\n<>\n<--hidden>\n<8,8>\n<--init>\n<*>\n", "");
}

Test(cli_slurm, the_script_takes_arguments_of_its_own) {
  use_program(0);
  struct run_result run;
  char *const command[] = {"launch/slurm/job", "eval", "run", "d.h5", NULL};
  cr_expect(eq(int, run_command(command, 20, &run), 0));
  cr_expect(strstr(run.output, "<eval>\n<run>\n<d.h5>\n") != NULL, "%s", run.output);
  run_result_free(&run);
}

Test(cli_slurm, srun_is_told_what_it_does_not_know) {
  use_program(0);
  setenv("SLURM_CPUS_PER_TASK", "6", 1);
  expect_end(script_of("train d.h5 -o run"), 0, "done", "");
  char *words = io_read(io_file("srun.words"), NULL);
  cr_expect(eq(str, words,
               (char *)cli_text("fence tree --mpi=pmix --kill-on-bad-exit=1 --cpus-per-task=6 %s train --resume "
                                "d.h5 -o run\n",
                                io_file("words"))));
  free(words);
  setenv("SLURM_PMIX_FENCE", "ring", 1);
  expect_end(io_file("job.sh"), 0, "done", "");
  words = io_read(io_file("srun.words"), NULL);
  cr_expect(strstr(words, "fence ring ") == words, "%s", words);
  free(words);
}

Test(cli_slurm, what_becomes_of_a_job_follows_from_its_exit_status) {
  use_program(2);
  expect_end(script_of("train d.h5 -o run"), 2, "wrong usage: not requeued", "");
  use_program(1);
  expect_end(io_file("job.sh"), 1, "failed with status 1: not requeued", "");
  use_program(139);
  expect_end(io_file("job.sh"), 139, "failed with status 139: not requeued", "");
  use_program(75);
  setenv("TEST_STATE", "CANCELLED", 1);
  expect_end(io_file("job.sh"), 75, "Slurm ends this job itself (CANCELLED)", "");
  setenv("TEST_STATE", "SIGNALING", 1); /* its signal is still on its way */
  expect_end(io_file("job.sh"), 75, "job: stopped: requeueing", "requeue 7\n");
  unlink(io_file("scontrol.words"));
  unsetenv("TEST_STATE");
  setenv("SLURM_RESTART_COUNT", "100", 1);
  expect_end(io_file("job.sh"), 75, "not requeued: this was start 101", "");
  setenv("SLURM_RESTART_COUNT", "99", 1);
  expect_end(io_file("job.sh"), 75, "job: stopped: requeueing", "requeue 7\n");
}

/* Slurm ends the job, its script and what that has started, as soon as it is asked to requeue it. */
Test(cli_slurm, what_slurm_ends_when_it_requeues_has_asked_for_it) {
  use_program(75);
  write_program("scontrol", cli_text("case $1 in show) echo JobState=RUNNING ;; "
                                     "*) kill -TERM $PPID $$; echo \"$*\" >>%s ;; esac",
                                     io_file("scontrol.words")));
  expect_end(script_of("train d.h5 -o run"), 75, "job: stopped: requeueing", "requeue 7\n");
}

/* Slurm told the ranks, who did not listen yet, or mpirun's daemons, and not the script. */
Test(cli_slurm, a_job_that_makes_way_requeues_whatever_it_ended_with) {
  setenv("TEST_PREEMPTED", "2026-01-02T03:04:05", 1);
  use_program(205);
  expect_end(script_of("eval run d.h5"), 75, "job: stopped: requeueing", "requeue 7\n");
  use_program(2);
  expect_end(io_file("job.sh"), 2, "wrong usage: not requeued", "requeue 7\n");
}

Test(cli_slurm, jobs_of_an_array_share_a_comparison_or_a_scaling_study) {
  const char *path = script_of("--jobs 8 compare d.h5 -o study");
  use_program(75);
  setenv("SLURM_ARRAY_JOB_ID", "7", 1);
  setenv("SLURM_ARRAY_TASK_ID", "3", 1);
  setenv("SLURM_ARRAY_TASK_COUNT", "1", 1); /* the third alone is submitted once more */
  expect_end(path, 75, "<compare>\n<--share>\n<3/8>\n<d.h5>\n<-o>\n<study>\n", "requeue 7_3\n");
  expect_end(script_of("--jobs 4 scale d.h5 -o study --mode weak"), 75,
             "<scale>\n<--share>\n<3/4>\n<d.h5>\n<-o>\n<study>\n<--mode>\n<weak>\n", "requeue 7_3\nrequeue 7_3\n");
  path = script_of("--jobs 8 compare d.h5 -o study");
  setenv("SLURM_ARRAY_TASK_ID", "9", 1);
  expect_end(path, 2, "job 9 of an array of 8: number them from 1", "requeue 7_3\nrequeue 7_3\n");
  expect_end(script_of("train d.h5 -o run"), 2, "an array shares the runs of conr compare",
             "requeue 7_3\nrequeue 7_3\n");
}

Test(cli_slurm, it_is_for_slurm) {
  unsetenv("SLURM_JOB_ID");
  expect_end(script_of("train d.h5 -o run"), 2, "this is not a Slurm job", "");
}

/* ---- stopped and started again -------------------------------------------------------------- */

static const char options[] = "--hidden 16,16 --batch 9 --conr --dropout 0.2 --noise 0.1 --mask 0.1 --lr 0.01 "
                              "--clip 5 --log-steps 1";

/* The job told to stop after some steps, as Slurm tells it, then started again as often as it requeues.  launcher: what
 * starts its two ranks. */
static void stopped_job_goes_on(const char *signal_name, const char *launcher) {
  enum { STEPS = 8, LONG = 100000 };
  const char *data = cli_data("t.h5", 120), *run = io_file("run"), *whole = io_file("whole");
  setenv("SLURM_NTASKS_PER_NODE", "2", 1);
  const char *path =
      script_of(cli_text("--launcher %s train %s -o %s --epochs %d %s", launcher, data, run, LONG, options));
  struct run_result result;
  char *const command[] = {
      "sh", "-c",
      (char *)cli_text("bash %s & pid=$!; "
                       "until [ -e %s ] && [ \"$(wc -l <%s)\" -ge 12 ]; do sleep 0.02; done; kill -%s $pid; wait $pid",
                       path, cli_metrics(run), cli_metrics(run), signal_name),
      NULL};
  cr_expect(eq(int, run_command(command, 60, &result), 75), "%s", result.output);
  /* In this order. */
  const char *const events[] = {"job: start 1 on", "asking conr to stop", "stopped by a signal after step ",
                                "job: stopped: requeueing"};
  const char *at = result.output;
  for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
    at = strstr(at, events[i]);
    cr_assert(at != NULL, "no \"%s\", or not in its place:\n%s", events[i], result.output);
  }
  const char *step = strstr(result.output, "after step ");
  int epochs = atoi(step + strlen("after step ")) / STEPS + 2;
  run_result_free(&result);
  /* The same job, but for its end. */
  setenv("SLURM_RESTART_COUNT", "1", 1);
  expect_end(script_of(cli_text("--launcher %s train %s -o %s --epochs %d %s", launcher, data, run, epochs, options)),
             0, "resuming at epoch", "requeue 7\n");
  cli_accepted(strcmp(launcher, "srun") == 0 ? 0 : 2,
               cli_text("train %s -o %s --epochs %d %s --quiet", data, whole, epochs, options));
  cli_same_runs(whole, run);
}

/* Our srun becomes the only rank, which is asked as ranks below a real one are. */
Test(cli_slurm, a_job_near_its_limit_requeues_and_goes_on_with_the_same_bits) {
  stopped_job_goes_on("USR1", "srun");
}

Test(cli_slurm, a_job_that_has_to_make_way_stops_with_a_checkpoint) {
  stopped_job_goes_on("TERM", "srun");
}

Test(cli_slurm, mpirun_hands_on_what_it_is_told) {
  stopped_job_goes_on("USR1", "mpirun");
}

/* The ranks are gone before they could listen: there was nothing to lose. */
Test(cli_slurm, a_job_that_is_told_before_conr_listens_requeues) {
  write_program("words", "kill -USR1 $PPID; sleep 10");
  setenv("CONR", io_file("words"), 1);
  expect_end(script_of("train d.h5 -o run"), 75, "job: stopped: requeueing", "requeue 7\n");
}

/* It would begin again, and reach the limit again. */
Test(cli_slurm, a_command_that_saves_nothing_does_not_requeue_at_its_limit) {
  write_program("words", "kill -USR1 $PPID; sleep 10");
  setenv("CONR", io_file("words"), 1);
  expect_end(script_of("eval run d.h5"), 128 + SIGUSR1, "failed with status", "");
}
