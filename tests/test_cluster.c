/* Several hosts, and a Slurm on them: those that tests/cluster makes of one machine. */
#include "io_files.h"
#include "support_cli.h"
#include "support_hosts.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

TestSuite(cluster, .init = cli_begin, .fini = cli_end, .timeout = 150);

/* ---- what a shell says ----------------------------------------------------------------------- */

/* A line of shell with a time limit of its own. */
static struct run_result shell(const char *line) {
  struct run_result run;
  char *const command[] = {"sh", "-c", (char *)line, NULL};
  run_command(command, 210, &run);
  return run;
}

/* The same, which must end with this status; free() what it wrote. */
static char *output_of(int exit_status, const char *line) {
  struct run_result run = shell(line);
  cr_assert(eq(int, run.exit_status, exit_status), "%s:\n%s", line, run.output);
  return run.output;
}

static const char *conr(void) {
  static char path[RUN_PATH_BYTES];
  return run_build_path("conr", path);
}

Test(cluster, shellcheck_finds_nothing) {
  struct run_result run = shell("command -v shellcheck");
  if (run.exit_status != 0)
    cr_skip("shellcheck is not installed");
  run_result_free(&run);
  free(output_of(
      0,
      "shellcheck tests/cluster/* tests/witness/stop launch/slurm/job launch/supervise launch/install-deps tests/run"));
}

/* ---- hosts ----------------------------------------------------------------------------------- */

Test(cluster, hosts_have_names_and_addresses_and_share_no_memory) {
  hosts_wanted();
  char *output =
      output_of(0, "tests/cluster/hosts 3 sh -c '"
                   "for host in $CLUSTER_HOSTS; do "
                   "  tests/cluster/remote $host \"hostname; ip -4 -o address show eth0; touch /dev/shm/\\$HOSTNAME; "
                   "    ls -x /dev/shm; readlink /proc/self/ns/ipc\"; "
                   "done'");
  char *line, *rest = output, ipc[3][64];
  for (int host = 0; host < 3; host++) {
    const char *name = cli_text("host%d", host + 1), *address = cli_text(" 10.99.0.%d/24 ", host + 1);
    line = strsep(&rest, "\n");
    cr_assert(eq(str, line, (char *)name));
    line = strsep(&rest, "\n");
    cr_assert(strstr(line, address) != NULL, "%s", line);
    line = strsep(&rest, "\n");
    cr_assert(eq(str, line, (char *)name), "its /dev/shm holds %s", line);
    snprintf(ipc[host], sizeof ipc[host], "%s", strsep(&rest, "\n"));
    for (int before = 0; before < host; before++)
      cr_assert(ne(str, (char *)ipc[before], (char *)ipc[host]));
  }
  cr_assert(eq(str, rest, ""));
  free(output);
}

Test(cluster, the_commands_exit_status_and_output_come_back) {
  hosts_wanted();
  char *output = output_of(7, "echo words | tests/cluster/hosts 2 sh -c 'cat; exit 7'");
  cr_assert(eq(str, output, "words\n"));
  free(output);
  free(output_of(2, "tests/cluster/hosts 0 true"));
  free(output_of(2, "tests/cluster/hosts 2"));
  output = output_of(255, "tests/cluster/hosts 2 tests/cluster/remote host3 hostname");
  cr_assert(eq(str, output, "remote: no host \"host3\" here; there are: host1 host2\n"));
  free(output);
}

/* Processes that have the word in their environment, as all on the hosts have. */
static int processes_with(const char *word) {
  char *output = output_of(0, cli_text("grep -lsF %s /proc/[0-9]*/environ | wc -l", word));
  int count = atoi(output);
  free(output);
  return count;
}

/* Names of networks, and mounts and what lies in /run, as this process sees them. */
static char *traces(void) {
  return output_of(0, "cat /proc/self/mounts; ls /run /var/run/netns 2>/dev/null; ip -o link | cut -d: -f2; :");
}

/* Killed at once, as it comes up, or when it is there: the script alone, by a signal that it can answer or not. */
Test(cluster, nothing_is_left_of_hosts_however_they_end) {
  static const int signals[] = {SIGKILL, SIGTERM, SIGHUP, SIGKILL, SIGKILL};
  static const double seconds[] = {1.5, 1.5, 1.5, 0.1, 0.4};
  hosts_wanted();
  const char *word = cli_text("cluster_test_%d", getpid());
  char *before = traces();
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
    free(output_of(0, cli_text("CLUSTER_TEST=%s setsid tests/cluster/hosts 3 sleep 1000 >/dev/null 2>&1 & pid=$!; "
                               "sleep %g; kill -%d $pid; wait $pid; sleep 1",
                               word, seconds[i], signals[i])));
    cr_expect(eq(int, processes_with(word), 0), "after signal %d at %g s", signals[i], seconds[i]);
  }
  free(output_of(1, "tests/cluster/hosts 2 false"));
  char *after = traces();
  cr_expect(eq(str, before, after));
  free(after);
  free(before);
}

Test(cluster, clusters_stand_side_by_side) {
  hosts_wanted();
  free(output_of(0, "tests/cluster/hosts 2 sleep 1 & first=$!; tests/cluster/hosts 3 true && wait $first"));
}

/* 124: no answer; 1: the host says that nobody listens there. */
Test(cluster, a_host_can_be_cut_off_and_crashed_and_comes_back) {
  hosts_wanted();
  io_write_text(io_file("harm.sh"),
                "reach() {\n"
                "  timeout 0.5 bash -c '</dev/tcp/host2/9' 2>/dev/null; echo $?\n"
                "}\n"
                "reach; tests/cluster/fault cut host2; reach; tests/cluster/fault mend host2; reach\n"
                "tests/cluster/fault slow host2 10mbit; reach; tests/cluster/fault mend host2\n"
                "setsid --fork tests/cluster/remote host2 sleep 1000; sleep 0.3\n"
                "tests/cluster/fault list host2 | grep -c sleep\n"
                "tests/cluster/fault crash host2; tests/cluster/fault list host2\n"
                "tests/cluster/remote host2 hostname\n");
  char *output = output_of(0, cli_text("tests/cluster/hosts 2 bash %s", io_file("harm.sh")));
  cr_assert(eq(str, output, "1\n124\n1\n1\n1\nhost2\n"));
  free(output);
}

static const char options[] = "--hidden 16,16 --batch 10 --epochs 4 --conr --dropout 0.2 --clip 5 --log-steps 1";

Test(cluster, a_training_on_three_hosts_equals_that_on_one) {
  hosts_wanted();
  const char *data = cli_data("t.h5", 120), *run = io_file("hosts");
  char *output =
      output_of(0, cli_text("tests/cluster/hosts 3 sh -c 'timeout -k 3 60 mpirun --hostfile $CLUSTER_HOSTFILE "
                            "-n 3 %s train %s -o %s %s'",
                            conr(), data, run, options));
  cr_assert(strstr(output, ": 3 ranks x ") != NULL && strstr(output, " on host1,host2,host3, seed 0") != NULL, "%s",
            output);
  free(output);
  for (int ranks = 1; ranks <= 3; ranks += 2) {
    const char *one = io_file(cli_text("one%d", ranks));
    cli_accepted(ranks, cli_text("train %s -o %s %s --quiet", data, one, options));
    cli_same_arrays(cli_last(one), cli_last(run), 1e-5);
    cr_assert(eq(int, cli_lines(cli_metrics(one)), cli_lines(cli_metrics(run))));
  }
}

/* ---- harm ------------------------------------------------------------------------------------ */

static const char *training_of(const char *run, int epochs) {
  return cli_text("train %s -o %s --epochs %d --hidden 16,16 --batch 9 --conr --dropout 0.2 --lr 0.01 --clip 5 "
                  "--log-steps 1 --quiet",
                  io_file("t.h5"), run, epochs);
}

/* A training on two hosts, started with these parameters of mpirun, to which lines of bash do something; they have
 *
 *     await_none SECONDS   until no rank is left on any host; fails when there is one after so long
 *     rank_on HOST         the process of its rank
 *     $said.HOST           what that rank has said, and "[exit S]"
 *     $job                 mpirun's process
 *
 * Returns their output; free() it. */
static char *harmed(const char *run, int epochs, const char *parameters, const char *lines) {
  static const char functions[] =
      "await_none() {\n"
      "  local tries=0\n"
      "  while pgrep -x conr >/dev/null; do\n"
      "    if ! (((tries += 1) < 10 * $1)); then echo 'still there:'; pgrep -ax conr; exit 1; fi\n"
      "    sleep 0.1\n"
      "  done\n"
      "}\n"
      "rank_on() {\n"
      "  tests/cluster/fault list \"$1\" | sed -n 's/ conr$//p'\n"
      "}\n"
      "timeout -k 3 100 mpirun $parameters --hostfile $CLUSTER_HOSTFILE -n 2 sh -c '{ \"$@\"; echo \"[exit $?]\" >&2; "
      "} "
      "2>>'$said'.$(hostname)' sh "
      "$command &\n"
      "job=$! tries=0\n"
      "until [ -e $run/metrics.jsonl ] && [ $(wc -l <$run/metrics.jsonl) -ge 25 ]; do\n"
      "  if ! (((tries += 1) < 400)); then cat $said.*; exit 1; fi\n"
      "  sleep 0.05\n"
      "done\n";
  const char *path = io_file("lines");
  cli_data("t.h5", 120);
  io_write_text(path, cli_text("set -eu\nrun=%s said=%s.said command='%s %s' parameters='%s'\n%s%s", run, run, conr(),
                               training_of(run, epochs), parameters, functions, lines));
  return output_of(0, cli_text("timeout -k 3 120 tests/cluster/hosts 2 bash %s", path));
}

enum { FOR_EVER = 100000 };

Test(cluster, a_killed_rank_ends_the_job_with_a_sentence_that_names_it) {
  hosts_wanted();
  const char *run = io_file("run");
  char *output = harmed(run, FOR_EVER, "",
                        "ignored=$(sed -n 's/^SigIgn:.*\\(....\\)$/\\1/p' /proc/$(rank_on host1)/status)\n"
                        "((0x$ignored & 1 << 12)) || echo 'SIGPIPE would end rank 0'\n"
                        "kill -KILL $(rank_on host2)\n"
                        "await_none 10\n"
                        "wait $job || echo \"[mpirun ended, not with 0]\"\n"
                        "cat $said.*\n");
  cr_expect(strstr(output, "SIGPIPE") == NULL, "%s", output);
  cr_expect(eq(int, cli_count(output, "conr: "), 1), "%s", output);
  cr_expect(strstr(output, "conr: [rank 0/2 host1] rank 1 (host2) has died") != NULL, "%s", output);
  cr_expect(strstr(output, "[mpirun ended, not with 0]") != NULL, "%s", output);
  free(output);
  cli_goes_on(2, run, training_of);
}

/* By the watch alone: MPI's own daemons are told to wait for longer, as they do where nobody tells them otherwise.  Then
 * mpirun waits, too, for its daemon beyond the cut; it is ended with the hosts. */
Test(cluster, a_cut_link_ends_the_ranks_on_both_sides) {
  hosts_wanted();
  const char *run = io_file("run");
  char *output = harmed(run, FOR_EVER, "--mca oob_tcp_keepalive_time 300",
                        "tests/cluster/fault cut host2\n"
                        "await_none 30\n"
                        "sleep 0.5; cat $said.*\n");
  cr_expect(eq(int, cli_count(output, "conr: "), 2), "%s", output);
  cr_expect(strstr(output, "conr: [rank 0/2 host1] nothing has been heard for 2") != NULL, "%s", output);
  cr_expect(strstr(output, " of rank 1 (host2): the host is down or cut off") != NULL, "%s", output);
  cr_expect(strstr(output, "conr: [rank 1/2 host2] nothing has been heard of rank 0 (host1) for 2") != NULL, "%s",
            output);
  cr_expect(eq(int, cli_count(output, "[exit 1]"), 2), "%s", output);
  free(output);
  cli_goes_on(2, run, training_of);
}

Test(cluster, a_link_that_comes_back_and_a_slow_one_change_nothing) {
  enum { EPOCHS = 60 };
  hosts_wanted();
  const char *run = io_file("run"), *whole = io_file("whole");
  char *output = harmed(run, EPOCHS, "--mca oob_tcp_keepalive_time 300",
                        "lines() { wc -l <$run/metrics.jsonl; }\n"
                        "tests/cluster/fault cut host2; sleep 0.3\n"
                        "before=$(lines); sleep 2; [ $(lines) = $before ] && echo '[stood still]'\n"
                        "tests/cluster/fault mend host2\n"
                        "tests/cluster/fault slow host2 5mbit; sleep 1\n"
                        "tests/cluster/fault mend host2\n"
                        "wait $job && echo '[ended well]'\n"
                        "cat $said.*\n");
  cr_expect(eq(str, output, "[stood still]\n[ended well]\n[exit 0]\n[exit 0]\n"));
  free(output);
  cli_accepted(2, training_of(whole, EPOCHS));
  cli_same_runs(whole, run);
}

/* ---- Slurm ----------------------------------------------------------------------------------- */

/* All of these stand in the file NAME.log, in this order. */
static void expect_log(const char *name, const char *const *events) {
  char *log = io_read(io_file(cli_text("%s.log", name)), NULL);
  for (const char *at = log; *events != NULL && at != NULL; events++) {
    at = strstr(at, *events);
    cr_expect(at != NULL, "%s: no \"%s\", or not in its place:\n%s", name, *events, log);
    at += at != NULL ? strlen(*events) : 0;
  }
  free(log);
}

/* It was stopped, requeued itself, or was requeued by Slurm, and went on to the end with the bits of a run that was left
 * alone.  Of two addends the sum has the same bits, whoever adds. */
static void expect_requeued(const char *name, const char *nodes, const char *told, const char *who) {
  const char *run = io_file(name);
  expect_log(name, (const char *[]){cli_text("job: start 1 on %s: ", nodes), told, "stopped by a signal after step ",
                                    who, cli_text("job: start 2 on %s: ", nodes), "resuming at epoch ", "done after ",
                                    "job: done", "JobState=COMPLETED", "Restarts=1", NULL});
  cli_same_runs(io_file("whole"), run);
}

/* Each job of the array does its own runs and no other, with the bits of a comparison in one go. */
static void expect_shared(const char *data) {
  static const char *const methods[] = {"l1", "huber"};
  const char *whole = io_file("compared");
  char *log = io_read(io_file("array.log"), NULL);
  for (int k = 1; k <= 3; k++)
    cr_expect(eq(int, cli_count(log, cli_text("--share %d/3", k)), 1), "%s", log);
  for (int k = 1; k <= 4; k++)
    cr_expect(eq(int, cli_count(log, cli_text("run %d of 4: ", k)), 1), "%s", log);
  free(log);
  cli_accepted(0, cli_text("compare %s -o %s --methods l1,huber --seeds 2 --epochs 2 --hidden 8 --quiet", data, whole));
  for (int m = 0; m < 2; m++)
    for (int seed = 0; seed < 2; seed++)
      cli_same_runs(cli_text("%s/%s/seed%d", whole, methods[m], seed),
                    cli_text("%s/%s/seed%d", io_file("array"), methods[m], seed));
}

/* Each job of the array measures its own point and no other; the same command alone makes the tables of them. */
static void expect_scaled(const char *data) {
  const char *study = io_file("scaling");
  char *log = io_read(io_file("scaling.log"), NULL);
  for (int k = 1; k <= 2; k++) {
    cr_expect(eq(int, cli_count(log, cli_text("--share %d/2", k)), 1), "%s", log);
    cr_expect(eq(int, cli_count(log, cli_text("point %d of 2: %d rank", k, k)), 1), "%s", log);
  }
  free(log);
  cr_expect(not(io_exists(cli_text("%s/scale.csv", study))));
  struct run_result run =
      cli_run(2, cli_text("scale %s -o %s --hidden 8 --batches 12 --ranks 1,2 --mode weak --steps 2 "
                          "--repeat 1",
                          data, study));
  cr_expect(eq(int, run.exit_status, 0), "%s", run.output);
  cr_expect(eq(int, cli_count(run.output, "point "), 0), "%s", run.output);
  run_result_free(&run);
  char *table = io_read(cli_text("%s/scale.csv", study), NULL);
  cr_expect(eq(int, cli_count(table, "\n"), 3), "%s", table);
  cr_expect(strstr(table, "host1") != NULL, "%s", table);
  free(table);
}

/* All in one Slurm and at once, as limits are looked at every 30 seconds only.  What each job is: tests/cluster/jobs. */
Test(cluster, jobs_of_a_slurm_requeue_or_end_as_they_should, .timeout = 300) {
  slurm_wanted();
  const char *data = cli_data("t.h5", 120);
  const char *line = "--batch 9 --epochs 120 --hidden 16,16 --conr --dropout 0.2 --lr 0.01 --clip 5 --log-steps 1";
  free(output_of(0, cli_text("timeout -k 3 200 tests/cluster/slurm 4 tests/cluster/jobs %s %s %s %s", conr(), data,
                             io_file(""), line)));
  cli_accepted(2, cli_text("train %s -o %s %s --quiet", data, io_file("whole"), line));
  expect_requeued("limit", "host[1-2]", "the time limit is near", "job: stopped: requeueing");
  expect_requeued("mpirun", "host[1-2]", "asking conr to stop", "job: stopped: requeueing");
  /* Slurm asks the ranks themselves, the script hears nothing of it. */
  expect_requeued("grace", "host[3-4]", "", "job: stopped: requeueing");
  /* Slurm tells everybody, srun too, and requeues the job itself. */
  expect_requeued("abrupt", "host[3-4]", "", "Slurm ends this job itself");
  /* The first start is gone with the signal, as conr is before its main, and as mpirun's daemons always are. */
  static const char *const early[] = {"job: start 1 on",
                                      "job: stopped: requeueing",
                                      "job: start 2 on",
                                      "job: done",
                                      "JobState=COMPLETED",
                                      "Restarts=1",
                                      NULL};
  expect_log("early-srun", early);
  expect_log("early-mpirun", early);
  expect_log("cancelled", (const char *[]){"job: start 1 on host[1-2]: ", "JobState=CANCELLED", "Restarts=0", NULL});
  expect_log("wrong",
             (const char *[]){"conr: conr train has no option --learning-rate", "job: wrong usage: not requeued",
                              "JobState=FAILED", "Restarts=0", "ExitCode=2:0", NULL});
  cr_expect(not(io_exists(io_file("wrong"))));
  expect_shared(data);
  expect_scaled(data);
}
