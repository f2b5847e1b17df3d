/* Scripts on hosts made of namespaces. */
#define _GNU_SOURCE
#include "support_hosts.h"

#include "io_files.h"
#include "run_ranks.h"
#include "support_cli.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char functions[] =
    "on() { tests/cluster/remote \"$1\" -- \"${@:2}\"; }\n"
    "ranks() {\n"
    "  timeout -k 3 60 mpirun --hostfile \"$CLUSTER_HOSTFILE\" -n \"$COUNT\" bash -c "
    "'eval \"${RANK_SETUP-}\"; \"$@\"; echo \"[exit $? $HOSTNAME]\"' rank \"$CONR\" \"$@\"\n"
    "}\n";

/* Skips the test, with the script's reason, where this machine cannot. */
static void wanted(const char *script) {
  struct run_result run;
  char *const command[] = {(char *)script, "--check", NULL};
  run_command(command, 30, &run);
  if (run.exit_status == 77) {
    run.output[strcspn(run.output, "\n")] = '\0';
    cr_skip("%s", run.output);
  }
  cr_assert(eq(int, run.exit_status, 0), "%s", run.output);
  run_result_free(&run);
}

void hosts_wanted(void) {
  wanted("tests/cluster/hosts");
}

void slurm_wanted(void) {
  const char *leave_out = getenv("CONR_TEST_SLURM");
  if (leave_out != NULL && strcmp(leave_out, "0") == 0)
    cr_skip("CONR_TEST_SLURM is 0, which leaves out what takes a real Slurm");
  wanted("tests/cluster/slurm");
}

char *hosts_run(int count, const char *format, ...) {
  char conr[RUN_PATH_BYTES], *script;
  const char *path = io_file("script");
  va_list arguments;
  struct run_result run;
  va_start(arguments, format);
  cr_assert(vasprintf(&script, format, arguments) >= 0);
  va_end(arguments);
  io_write_text(path,
                cli_text("set -eu\nCONR=%s COUNT=%d\n%s%s\n", run_build_path("conr", conr), count, functions, script));
  free(script);
  char *const command[] = {"tests/cluster/hosts", (char *)cli_text("%d", count), "bash", (char *)path, NULL};
  run_command(command, 140, &run);
  cr_assert(eq(int, run.exit_status, 0), "%s", run.output);
  return run.output;
}
