/* launch/supervise: what becomes of a run whose ranks and hosts fail.
 *
 * What it decides is seen with an mpirun and an agent of ours; that a run goes on with the same bits, and that nothing is
 * left of it, with real ones. */
#include "io_files.h"
#include "support_cli.h"
#include "support_hosts.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void write_program(const char *name, const char *text) {
  io_write_text(io_file(name), cli_text("#!/bin/sh\n%s\n", text));
  cr_assert(eq(int, chmod(io_file(name), 0755), 0));
}

/* A rank is conr, once it has noted its process number. */
static void begin(void) {
  char conr[RUN_PATH_BYTES];
  cli_begin();
  setenv("PATH", cli_text("%s:%s", io_file(""), getenv("PATH")), 1);
  write_program("rank", cli_text("echo $$ >>%s; exec %s \"$@\"", io_file("pids"), run_build_path("conr", conr)));
  setenv("CONR", io_file("rank"), 1);
  unsetenv("OMPI_MCA_plm_rsh_agent");
  unsetenv("CONR_LAUNCHER_OPTIONS");
}

TestSuite(supervise, .init = begin, .fini = cli_end, .timeout = 150);

/* An mpirun that is one rank of the program that it is given; `before` and `after` are lines of its own. */
static void stand_in_for_mpirun(const char *before, const char *after) {
  write_program("mpirun", cli_text("echo \"$*\" >>%s\n"
                                   "while [ \"$1\" != env ]; do [ \"$1\" != --hostfile ] || cat \"$2\"; shift; done\n"
                                   "%s\n\"$@\"\nstatus=$?\n%s\nexit $status",
                                   io_file("starts"), before, after));
}

static struct run_result supervise(const char *words) {
  struct run_result run;
  char *const command[] = {"sh", "-c", (char *)cli_text("exec launch/supervise --wait 0 %s", words), NULL};
  run_command(command, 60, &run);
  return run;
}

/* It ends with this status, after so many starts, and says this. */
static void expect_end(const char *words, int exit_status, int starts, const char *sentence) {
  remove(io_file("starts"));
  struct run_result run = supervise(words);
  cr_expect(eq(int, run.exit_status, exit_status), "%s", run.output);
  cr_expect(eq(int, cli_lines(io_file("starts")), starts), "%s", run.output);
  cr_expect(strstr(run.output, sentence) != NULL, "not \"%s\":\n%s", sentence, run.output);
  run_result_free(&run);
}

/* Processes that it marked and that are there still, of this test. */
static int ranks_left(void) {
  struct run_result run;
  const char *line = cli_text("grep -lsaF CONR_SUPERVISED= /proc/[0-9]*/environ | xargs -r grep -lsaF CONR=%s | wc -l",
                              io_file("rank"));
  char *const command[] = {"sh", "-c", (char *)line, NULL};
  cr_assert(eq(int, run_command(command, 20, &run), 0), "%s", run.output);
  int count = atoi(run.output);
  run_result_free(&run);
  return count;
}

/* ---- what it decides ------------------------------------------------------------------------- */

Test(supervise, what_cannot_go_on_is_refused) {
  stand_in_for_mpirun("", "");
  io_write_text(io_file("hosts"), "node1 slots=2\n\nnode2 # slots=4\n");
  static const struct {
    const char *words, *sentence;
  } cases[] = {
      {"train d.h5 -o run", "there is no option \"train\"; what conr is to do stands behind --"},
      {"--", "nothing to do; give the arguments of conr behind --"},
      {"--restarts some -- train d.h5 -o run", "--restarts wants a number of at least 0, not \"some\""},
      {"--min-ranks 0 -- train d.h5 -o run", "--min-ranks wants a number of at least 1, not \"0\""},
      {"-- train d.h5", "conr train wants a folder: give -o FOLDER"},
      {"-- train d.h5 -o run --force", "with --force every start would begin again"},
      {"-- eval run d.h5", "conr eval has no checkpoint to start again from; conr train and conr compare have"},
      {"--hostfile none -- train d.h5 -o run", "cannot read the hostfile \"none\""},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    expect_end(cases[i].words, 2, 0, cases[i].sentence);
  expect_end(cli_text("--hostfile %s -- train d.h5 -o run", io_file("hosts")), 2, 0,
             "does not say how many ranks node2 takes: write \"node2 slots=N\", or give --ranks-per-host");
}

Test(supervise, what_ends_by_itself_is_not_started_again) {
  static const struct {
    int exit_status;
    const char *sentence;
  } cases[] = {{0, "supervise: done"},
               {2, "wrong usage: not started again"},
               {75, "stopped with a checkpoint; the same command goes on"}};
  stand_in_for_mpirun("", "");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    write_program("rank", cli_text("exit %d", cases[i].exit_status));
    expect_end("-- train d.h5 -o run", cases[i].exit_status, 1, cases[i].sentence);
  }
}

Test(supervise, it_gives_up_with_a_reason_and_says_what_goes_on) {
  const char *run = io_file("run"), *words = cli_text("--restarts 3 -- train 'd e.h5' -o %s", run);
  stand_in_for_mpirun("", "");
  write_program("rank", "exit 1");
  expect_end(
      words, 1, 2,
      cli_text("giving up: two starts in a row ended without a new checkpoint, the last with status 1; when that "
               "is mended this goes on: launch/supervise --wait 0 --restarts 3 -- train d\\ e.h5 -o %s\n",
               run));
  /* Each gets further, and none to the end. */
  write_program("rank", cli_text("mkdir -p %s; echo >%s.new; mv %s.new %s; kill -9 $$", run, run, run, cli_last(run)));
  expect_end(words, 1, 4, "giving up: failed with status 137 after 3 restarts; when");
}

/* It is told to stop once it has said `when`; it ends with 75, and says this. */
static void expect_stop(const char *words, const char *when, const char *sentence) {
  struct run_result run;
  const char *log = io_file("log");
  const char *line = cli_text("launch/supervise %s -- train d.h5 -o run >%s 2>&1 & pid=$!\n"
                              "until grep -q '%s' %s; do sleep 0.05; done\n"
                              "kill -TERM $pid; wait $pid; echo \"[exit $?]\"; cat %s",
                              words, log, when, log, log);
  char *const command[] = {"bash", "-c", (char *)line, NULL};
  run_command(command, 60, &run);
  cr_expect(strstr(run.output, "[exit 75]") != NULL, "%s", run.output);
  cr_expect(strstr(run.output, sentence) != NULL, "%s", run.output);
  run_result_free(&run);
}

Test(supervise, it_stops_while_it_waits_and_where_ranks_do_not) {
  stand_in_for_mpirun("", "");
  write_program("rank", "exit 1");
  expect_stop("--wait 100", "starting again in 100 s", "stopped between two starts; the same command goes on");
  stand_in_for_mpirun("trap '' USR1", "");
  write_program("rank", "echo here; sleep 1000");
  expect_stop("--grace 1", "here", "conr has not stopped within 1 s: ending it");
  cr_expect(eq(int, ranks_left(), 0));
}

/* Hosts are asked before each start.  node2 is gone, then back. */
Test(supervise, ranks_are_started_where_hosts_answer) {
  stand_in_for_mpirun("", "");
  write_program("agent", cli_text("[ \"$1\" != node2 ] || [ -e %s ]", io_file("back")));
  write_program("rank", cli_text("[ -e %s ] && exit; touch %s; exit 1", io_file("back"), io_file("back")));
  setenv("OMPI_MCA_plm_rsh_agent", io_file("agent"), 1);
  io_write_text(io_file("hosts"), "node1 slots=1 # the first\nnode2 slots = 4 max_slots=4\n#node3\nnode1 slots=1\n");
  struct run_result run = supervise(cli_text("--hostfile %s -- train d.h5 -o run", io_file("hosts")));
  cr_expect(eq(int, run.exit_status, 0), "%s", run.output);
  static const char *const events[] = {"supervise: node2 does not answer",
                                       "supervise: start 1, 2 ranks on node1: ",
                                       "\nnode1 slots=2\n",
                                       "supervise: failed with status 1: starting again in 0 s",
                                       "supervise: start 2, 6 ranks on node1,node2: ",
                                       "\nnode1 slots=2\nnode2 slots=4\n",
                                       "supervise: done"};
  const char *at = run.output;
  for (size_t i = 0; i < sizeof events / sizeof *events && at != NULL; i++) {
    at = strstr(at, events[i]);
    cr_expect(at != NULL, "no \"%s\", or not in its place:\n%s", events[i], run.output);
  }
  run_result_free(&run);
  char *starts = io_read(io_file("starts"), NULL);
  cr_expect(strstr(starts, " -n 2 env ") != NULL && strstr(starts, " -n 6 env ") != NULL, "%s", starts);
  cr_expect(eq(int, cli_count(starts, "/rank train --resume d.h5 -o run\n"), 2), "%s", starts);
  free(starts);
  remove(io_file("back"));
  expect_end(cli_text("--hostfile %s --min-ranks 3 -- train d.h5 -o run", io_file("hosts")), 1, 0,
             "giving up: 2 ranks are left, and --min-ranks is 3");
}

/* The first start loses its launcher, while the rank goes on; the second its rank, while the launcher does. */
Test(supervise, launchers_that_hang_and_ranks_that_stay_are_killed) {
  const char *again = io_file("again");
  stand_in_for_mpirun(cli_text("trap '' TERM USR1; [ -e %s ] || { setsid \"$@\" & sleep 0.5; kill -9 $$; }", again),
                      "[ $status = 0 ] || sleep 1000");
  write_program("rank", cli_text("echo $$ >>%s\n"
                                 "case $(wc -l <%s) in 1) touch %s; exec sleep 1000 ;; 2) sleep 3; exit 1 ;; esac",
                                 io_file("pids"), io_file("pids"), again));
  struct run_result run = supervise("--grace 1 --restarts 1 -- train d.h5 -o run");
  cr_expect(eq(int, run.exit_status, 1), "%s", run.output);
  cr_expect(eq(int, cli_lines(io_file("starts")), 2), "%s", run.output);
  const char *events[] = {"failed with status 137: starting again",
                          "no rank has been there for 1 s, but mpirun goes on", "giving up: two starts in a row"};
  for (size_t i = 0; i < sizeof events / sizeof *events; i++)
    cr_expect(eq(int, cli_count(run.output, events[i]), 1), "%s", run.output);
  run_result_free(&run);
  cr_expect(eq(int, ranks_left(), 0));
}

/* ---- what it keeps going --------------------------------------------------------------------- */

#define EPOCHS 60
static const char options[] = "--hidden 16,16 --batch 9 --conr --dropout 0.2 --clip 5 --log-steps 1";

static const char *command_for(const char *run) {
  return cli_text("train %s -o %s --epochs %d %s", io_file("t.h5"), run, EPOCHS, options);
}

/* All of these stand in the output, in this order. */
static void expect_in_order(const char *output, const char *const *events) {
  const char *at = output;
  for (; *events != NULL; events++) {
    const char *found = strstr(at, *events);
    cr_assert(found != NULL, "no \"%s\", or not in its place:\n%s", *events, output);
    at = found + strlen(*events);
  }
}

static struct run_result shell(const char *line) {
  struct run_result run;
  char *const command[] = {"bash", "-c", (char *)line, NULL};
  run_command(command, 100, &run);
  return run;
}

/* A rank is killed, then the whole process group is told to stop, then it goes on by the same command. */
Test(supervise, killed_and_stopped_it_ends_with_the_same_bits) {
  const char *run = io_file("run"), *whole = io_file("whole"), *pids = io_file("pids");
  cli_data("t.h5", 120);
  const char *line = cli_text("launch/supervise --wait 0 --ranks-per-host 2 -- %s", command_for(run));
  struct run_result result =
      shell(cli_text("lines() { [ -e \"$1\" ] && wc -l <\"$1\" || echo 0; }\n"
                     "setsid %s & pid=$!\n"
                     "until [ $(lines %s) -ge 20 ]; do sleep 0.01; done\n"
                     "kill -9 $(tail -n 1 %s)\n"
                     "until [ $(lines %s) = 4 ]; do sleep 0.01; done\n"
                     "before=$(lines %s); until [ $(lines %s) -gt $((before + 20)) ]; do sleep 0.01; done\n"
                     "kill -TERM -$pid; wait $pid; echo \"[exit $?]\"\n"
                     "%s; echo \"[exit $?]\"",
                     line, cli_metrics(run), pids, pids, cli_metrics(run), cli_metrics(run), line));
  expect_in_order(result.output,
                  (const char *[]){"start 1, 2 ranks on localhost", "failed with status 137", "start 2, 2 ranks",
                                   "resuming at epoch", "SIGTERM: asking conr to stop",
                                   "stopped by a signal after step", "[exit 75]", "start 1, 2 ranks",
                                   "resuming at epoch", "supervise: done", "[exit 0]", NULL});
  run_result_free(&result);
  cr_expect(eq(int, ranks_left(), 0));
  cli_accepted(2, cli_text("%s --quiet", command_for(whole)));
  cli_same_runs(whole, run);
}

Test(supervise, a_wrong_option_is_told_once) {
  struct run_result run = supervise(cli_text("--ranks-per-host 2 -- train d.h5 -o %s --hiden 3", io_file("run")));
  cr_expect(eq(int, run.exit_status, 2), "%s", run.output);
  cr_expect(eq(int, cli_count(run.output, "conr: conr train has no option --hiden"), 1), "%s", run.output);
  run_result_free(&run);
}

/* One of three hosts loses its power for good, while the others train. */
Test(supervise, without_a_host_it_goes_on_with_fewer_ranks) {
  hosts_wanted();
  const char *run = io_file("run"), *whole = io_file("whole");
  cli_data("t.h5", 120);
  io_write_text(
      io_file("lines"),
      cli_text("launch/supervise --hostfile $CLUSTER_HOSTFILE --wait 0 -- %s & pid=$!\n"
               "until [ -e %s ] && [ $(wc -l <%s) -ge 20 ]; do sleep 0.05; done\n"
               "tests/cluster/fault cut host3; tests/cluster/fault crash host3; kill -9 $(cat /run/cluster/host3/pid)\n"
               "wait $pid; echo \"[exit $?]\"\n"
               "sleep 1; pgrep -c rank; pgrep -c orted; :\n",
               command_for(run), cli_metrics(run), cli_metrics(run)));
  unsetenv("OMPI_MCA_btl");
  struct run_result result = shell(cli_text("timeout -k 3 90 tests/cluster/hosts 3 bash %s", io_file("lines")));
  expect_in_order(result.output, (const char *[]){"start 1, 3 ranks on host1,host2,host3: ", "failed with status ",
                                                  "host3 does not answer", "start 2, 2 ranks on host1,host2: ",
                                                  "resuming at epoch", "supervise: done", "[exit 0]\n0\n0\n", NULL});
  run_result_free(&result);
  cli_accepted(3, cli_text("%s --quiet", command_for(whole)));
  cli_same_arrays(cli_last(whole), cli_last(run), 1e-5);
  cr_expect(eq(int, cli_lines(cli_metrics(whole)), cli_lines(cli_metrics(run))));
}
