/* Several hosts, and a Slurm on them: those that tests/cluster makes of one machine. */
#include "io_files.h"
#include "support_cli.h"

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

/* Skips the test, with the script's reason, where this machine cannot. */
static void wants(const char *script) {
  if (strcmp(script, "slurm") == 0 && getenv("CONR_TEST_SLURM") == NULL)
    cr_skip("minutes on a real Slurm: make test-cluster runs them");
  struct run_result run = shell(cli_text("tests/cluster/%s --check", script));
  if (run.exit_status == 77) {
    run.output[strcspn(run.output, "\n")] = '\0';
    cr_skip("%s", run.output);
  }
  cr_assert(eq(int, run.exit_status, 0), "%s", run.output);
  run_result_free(&run);
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
  free(output_of(0, "shellcheck tests/cluster/* launch/slurm/job launch/supervise launch/install-deps tests/run"));
}

/* ---- hosts ----------------------------------------------------------------------------------- */

Test(cluster, hosts_have_names_and_addresses_and_share_no_memory) {
  wants("hosts");
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
  wants("hosts");
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
  wants("hosts");
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
  wants("hosts");
  free(output_of(0, "tests/cluster/hosts 2 sleep 1 & first=$!; tests/cluster/hosts 3 true && wait $first"));
}

/* 124: no answer; 1: the host says that nobody listens there. */
Test(cluster, a_host_can_be_cut_off_and_crashed_and_comes_back) {
  wants("hosts");
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
  wants("hosts");
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

/* ---- Slurm ----------------------------------------------------------------------------------- */

/* What is done in a Slurm of two nodes: lines of bash, which have
 *
 *     submit OPTION OF SBATCH...     sets $job, and $log to the file that the job writes
 *     await_steps                    until the run in $run has made some; tells what there is when none come
 *     await_all                      until Slurm has no more to do
 *     await_end                      the same; shows $job and its log
 *
 * A line that fails ends them; the output is free()d. */
static char *in_slurm(const char *run, const char *lines) {
  static const char functions[] =
      "set -eu\n"
      "submit() {\n"
      "  log=$run.log\n"
      "  job=$(sbatch --parsable --output=\"$log\" \"$@\")\n"
      "}\n"
      "await_steps() {\n"
      "  local tries=0\n"
      "  until [ -e \"$run/metrics.jsonl\" ] && [ \"$(wc -l <\"$run/metrics.jsonl\")\" -ge 12 ]; do\n"
      "    if ! (((tries += 1) < 600)); then\n"
      "      scontrol show job \"$job\"; sinfo; cat \"$log\" /run/cluster/slurm/log/*; exit 1\n"
      "    fi\n"
      "    sleep 0.05\n"
      "  done\n"
      "}\n"
      "await_all() {\n"
      "  local left\n"
      "  until left=$(squeue --noheader) && [ -z \"$left\" ]; do sleep 0.3; done\n"
      "}\n"
      "await_end() {\n"
      "  await_all\n"
      "  cat \"$log\"\n"
      "  scontrol show job \"$job\"\n"
      "}\n";
  const char *path = io_file("lines");
  io_write_text(path, cli_text("%srun=%s\n%s", functions, run, lines));
  return output_of(0, cli_text("timeout -k 3 200 tests/cluster/slurm 2 bash %s", path));
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

/* A training on two nodes is stopped by something, requeues and ends with the bits of one that was left alone.  Of two
 * addends the sum has the same bits, whoever adds. */
static void job_requeues_and_goes_on(const char *slurm_options, const char *stop, const char *word, const char *who) {
  enum { EPOCHS = 250 };
  const char *data = cli_data("t.h5", 120), *run = io_file("run"), *whole = io_file("whole");
  const char *line =
      cli_text("--batch 9 --epochs %d --hidden 16,16 --conr --dropout 0.2 --lr 0.01 --clip 5 --log-steps 1", EPOCHS);
  char *script = cli_output(0, cli_text("slurm --nodes 2 %s train %s -o %s %s", slurm_options, data, run, line));
  io_write_text(io_file("job.sh"), script);
  free(script);
  char *output = in_slurm(run, cli_text("submit %s\nawait_steps\n%s\nawait_end\n", io_file("job.sh"), stop));
  expect_in_order(output, (const char *[]){"job: start 1 on host[1-2]: ", word, "stopped by a signal after step ", who,
                                           "job: start 2 on host[1-2]: ", "resuming at epoch ",
                                           cli_text("done after %d epochs", EPOCHS), "job: done", "JobState=COMPLETED",
                                           "Restarts=1", NULL});
  free(output);
  cli_accepted(2, cli_text("train %s -o %s %s --quiet", data, whole, line));
  cli_same_runs(whole, run);
}

/* The ranks are held until Slurm says so, in place of a training of a minute. */
Test(cluster, a_job_signalled_ahead_of_its_limit_requeues_and_ends_with_the_same_bits, .timeout = 300) {
  wants("slurm");
  job_requeues_and_goes_on("--time 1 --ahead 30",
                           "kill -STOP $(pidof conr)\n"
                           "until grep -q 'asking conr to stop' \"$log\"; do sleep 0.2; done\n"
                           "kill -CONT $(pidof conr)",
                           "the time limit is near", "job: stopped: requeueing");
}

Test(cluster, a_job_below_mpirun_requeues_and_ends_with_the_same_bits, .timeout = 300) {
  wants("slurm");
  job_requeues_and_goes_on("--time 30 --launcher mpirun", "scancel --batch --signal=USR1 \"$job\"",
                           "asking conr to stop", "job: stopped: requeueing");
}

static const char urgent[] = "sbatch --partition=urgent --nodes=2 --exclusive --output=/dev/null --wrap='sleep 1'\n";

/* Slurm asks the ranks themselves, the script hears nothing of it. */
Test(cluster, a_job_that_makes_way_for_another_requeues_and_ends_with_the_same_bits, .timeout = 300) {
  wants("slurm");
  job_requeues_and_goes_on("--time 30", urgent, "", "job: stopped: requeueing");
}

/* Slurm tells everybody, srun too, and requeues the job itself. */
Test(cluster, a_job_that_is_moved_aside_at_once_saves_what_it_has_and_ends_with_the_same_bits, .timeout = 300) {
  wants("slurm");
  setenv("CLUSTER_GRACE", "0", 1);
  job_requeues_and_goes_on("--time 30", urgent, "", "Slurm ends this job itself");
}

/* The first start is gone with the signal, as conr is before its main, and as mpirun's daemons always are. */
Test(cluster, jobs_that_make_way_before_conr_listens_requeue, .timeout = 300) {
  wants("slurm");
  const char *run = io_file("run");
  char *output = in_slurm(
      run, cli_text("cat >\"$run.conr\" <<'END'\n"
                    "#!/bin/sh\n"
                    "[ -z \"${SLURM_RESTART_COUNT-}\" ] || exit 0\n"
                    "echo rank >>\"$0.ranks\"\n"
                    "exec sleep 300\n"
                    "END\n"
                    "chmod +x \"$run.conr\"\n"
                    "export CONR=$run.conr CONR_LAUNCHER\n"
                    "for CONR_LAUNCHER in srun mpirun; do\n"
                    "  sbatch --nodes=2 --ntasks-per-node=1 --output=\"$run.$CONR_LAUNCHER\" launch/slurm/job train\n"
                    "done\n"
                    "until [ \"$(cat \"$CONR.ranks\" | wc -l)\" = 4 ]; do sleep 0.1; done\n"
                    "%s"
                    "await_all\n"
                    "cat \"$run.srun\" \"$run.mpirun\"\n"
                    "scontrol show jobs\n",
                    urgent));
  static const char *const events[] = {
      "job: start 1 on",          "job: stopped: requeueing", "job: start 2 on", "job: done", "job: start 1 on",
      "job: stopped: requeueing", "job: start 2 on",          "job: done",       NULL};
  expect_in_order(output, events);
  cr_expect(eq(int, cli_count(output, "Restarts=1 "), 2), "%s", output);
  cr_expect(eq(int, cli_count(output, "JobState=COMPLETED "), 3), "%s", output);
  free(output);
}

Test(cluster, a_cancelled_job_is_not_brought_back, .timeout = 300) {
  wants("slurm");
  const char *data = cli_data("t.h5", 120), *run = io_file("run");
  char *output =
      in_slurm(run, cli_text("export CONR=%s\n"
                             "submit --nodes=2 launch/slurm/job train %s -o %s --epochs 100000 --log-steps 1\n"
                             "await_steps\nscancel \"$job\"\nawait_end\n",
                             conr(), data, run));
  expect_in_order(output, (const char *[]){"job: start 1 on host[1-2]: ", "JobState=CANCELLED", "Restarts=0", NULL});
  cr_assert(strstr(output, "requeueing") == NULL, "%s", output);
  free(output);
}

Test(cluster, a_wrong_option_does_not_requeue, .timeout = 300) {
  wants("slurm");
  const char *data = cli_data("t.h5", 120), *run = io_file("run");
  char *output =
      in_slurm(run, cli_text("export CONR=%s\n"
                             "submit --nodes=2 launch/slurm/job train %s -o %s --learning-rate 1\nawait_end\n",
                             conr(), data, run));
  expect_in_order(output,
                  (const char *[]){"conr: conr train has no option --learning-rate", "job: wrong usage: not requeued",
                                   "JobState=FAILED", "Restarts=0", "ExitCode=2:0", NULL});
  cr_assert(not(io_exists(run)));
  free(output);
}

/* Each job of the array does its own runs and no other, with the bits of a comparison in one go. */
Test(cluster, an_array_shares_the_runs_of_a_comparison, .timeout = 300) {
  static const char *const methods[] = {"l1", "huber"};
  wants("slurm");
  const char *data = cli_data("t.h5", 120), *study = io_file("study"), *whole = io_file("whole");
  const char *line = "--methods l1,huber --seeds 2 --epochs 2 --hidden 8";
  char *script = cli_output(0, cli_text("slurm --jobs 3 compare %s -o %s %s", data, study, line));
  io_write_text(io_file("job.sh"), script);
  free(script);
  char *output = in_slurm(study, cli_text("submit %s\nawait_end\n", io_file("job.sh")));
  for (int k = 1; k <= 3; k++)
    cr_expect(eq(int, cli_count(output, cli_text("--share %d/3", k)), 1), "%s", output);
  for (int k = 1; k <= 4; k++)
    cr_expect(eq(int, cli_count(output, cli_text("run %d of 4: ", k)), 1), "%s", output);
  free(output);
  cli_accepted(0, cli_text("compare %s -o %s %s --quiet", data, whole, line));
  for (int m = 0; m < 2; m++)
    for (int seed = 0; seed < 2; seed++)
      cli_same_runs(cli_text("%s/%s/seed%d", whole, methods[m], seed),
                    cli_text("%s/%s/seed%d", study, methods[m], seed));
}
