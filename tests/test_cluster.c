/* Several hosts: those that tests/cluster/hosts makes of one machine. */
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
  run_command(command, 120, &run);
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
  free(output_of(0, "shellcheck tests/cluster/*"));
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
