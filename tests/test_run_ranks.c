/* The starter of programs that all tests of ranks rely on. */
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const *words(const char *first, const char *second) {
  static const char *list[3];
  list[0] = first;
  list[1] = second;
  return list;
}

Test(run_ranks, one_to_four_ranks_take_part, .timeout = 120) {
  for (int ranks = 1; ranks <= 4; ranks++) {
    struct run_result run;
    char expected[64];
    snprintf(expected, sizeof expected, "size %d sum %d\n", ranks, ranks * (ranks - 1) / 2);
    cr_expect(eq(int, run_ranks(ranks, "rank_smoke", words("sum", NULL), &run), 0), "%d ranks: %s", ranks, run.output);
    cr_expect(eq(str, run.output, expected));
    cr_expect(eq(int, run.timed_out, 0));
    run_result_free(&run);
  }
}

Test(run_ranks, a_rank_that_aborts_fails_the_run_at_once, .timeout = 60) {
  struct run_result run;
  cr_assert(eq(int, run_ranks(3, "rank_smoke", words("fail", NULL), &run), 7), "%s", run.output);
  cr_assert(lt(dbl, run.seconds, 30.0));
  run_result_free(&run);
}

Test(run_ranks, a_rank_that_returns_non_zero_fails_the_run, .timeout = 60) {
  struct run_result run;
  cr_assert(eq(int, run_ranks(3, "rank_smoke", words("return", NULL), &run), 5), "%s", run.output);
  run_result_free(&run);
}

/* Wait up to 10 s for a process to be gone: a killed rank is a zombie until its parent has looked. */
static int is_gone(long pid) {
  for (int i = 0; i < 100; i++) {
    if (kill((pid_t)pid, 0) != 0 && errno == ESRCH)
      return 1;
    usleep(100000);
  }
  return 0;
}

Test(run_ranks, ranks_that_hang_are_ended_at_the_limit_and_none_is_left, .timeout = 120) {
  struct run_result run;
  int pids = 0;
  cr_assert(eq(int, run_ranks_within(3, 2, "rank_smoke", words("hang", NULL), &run), RUN_TIMED_OUT), "%s", run.output);
  cr_assert(eq(int, run.timed_out, 1));
  cr_assert(ge(dbl, run.seconds, 3.0));
  for (char *line = strstr(run.output, "pid "); line != NULL; line = strstr(line + 1, "pid ")) {
    cr_assert(is_gone(strtol(line + 4, NULL, 10)), "still there: %.20s", line);
    pids++;
  }
  cr_assert(eq(int, pids, 2), "%s", run.output);
  run_result_free(&run);
}

Test(run_ranks, output_larger_than_a_pipe_is_captured_whole, .timeout = 60) {
  struct run_result run;
  cr_assert(eq(int, run_ranks(2, "rank_smoke", words("much", NULL), &run), 0));
  cr_assert(eq(sz, run.output_bytes, 20000 * strlen("line 00000 of what one pipe cannot hold at once\n")));
  cr_assert(ne(ptr, strstr(run.output, "line 19999 of"), NULL));
  run_result_free(&run);
}

Test(run_ranks, arguments_arrive_stderr_is_captured_and_stdin_is_empty, .timeout = 60) {
  struct run_result run;
  cr_assert(eq(int, run_ranks(1, "rank_smoke", words("stderr", "two words"), &run), 0), "%s", run.output);
  cr_assert(eq(str, run.output, "rank 0 has \"two words\" and stdin empty\n"));
  run_result_free(&run);
}

Test(run_ranks, work_from_a_test_that_is_an_MPI_program_itself, .timeout = 60) {
  struct run_result run;
  int provided;
  MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &provided);
  cr_expect(eq(int, run_ranks(2, "rank_smoke", words("sum", NULL), &run), 0), "%s", run.output);
  run_result_free(&run);
  MPI_Finalize();
}

Test(run_ranks, a_missing_program_is_a_failure_that_names_it, .timeout = 60) {
  struct run_result run;
  cr_assert(ne(int, run_ranks(2, "rank_that_is_not_there", NULL, &run), 0));
  cr_assert(ne(ptr, strstr(run.output, "rank_that_is_not_there"), NULL), "%s", run.output);
  run_result_free(&run);
}

Test(run_command, status_and_output_come_back) {
  struct run_result run;
  char *const command[] = {"sh", "-c", "echo out; echo err >&2; exit 9", NULL};
  cr_assert(eq(int, run_command(command, 10, &run), 9));
  cr_assert(eq(str, run.output, "out\nerr\n"));
  cr_assert(eq(sz, run.output_bytes, 8));
  run_result_free(&run);
  cr_assert(eq(ptr, run.output, NULL));
}

Test(run_command, a_signal_is_128_and_its_number) {
  char *const command[] = {"sh", "-c", "kill -KILL $$", NULL};
  struct run_result run;
  cr_assert(eq(int, run_command(command, 10, &run), 128 + SIGKILL));
  run_result_free(&run);
}

Test(run_command, what_cannot_be_started_says_so) {
  char *const command[] = {"/nowhere/conr", NULL};
  struct run_result run;
  cr_assert(eq(int, run_command(command, 10, &run), RUN_NOT_STARTED));
  cr_assert(eq(str, run.output, "cannot start /nowhere/conr: No such file or directory\n"));
  run_result_free(&run);
}

/* The children of the command hold the pipe open: neither they nor it may be waited for. */
Test(run_command, the_limit_holds_for_a_command_with_children_that_ignores_signals, .timeout = 60) {
  char *const command[] = {"sh", "-c", "trap '' TERM; sleep 50 & sleep 50", NULL};
  struct run_result run;
  cr_assert(eq(int, run_command(command, 1, &run), RUN_TIMED_OUT));
  cr_assert(lt(dbl, run.seconds, 45.0));
  run_result_free(&run);
}

Test(run_command, criterions_own_variable_is_not_handed_down) {
  char *const command[] = {"sh", "-c", "echo ${BXFI_MAP-unset} ${OMPI_ALLOW_RUN_AS_ROOT-unset} ${MINE-unset}", NULL};
  struct run_result run;
  setenv("BXFI_MAP", "x", 1);
  setenv("OMPI_ALLOW_RUN_AS_ROOT", "0", 1);
  setenv("MINE", "kept", 1);
  cr_assert(eq(int, run_command(command, 10, &run), 0));
  cr_assert(eq(str, run.output, "unset 0 kept\n"));
  run_result_free(&run);
}

Test(run_build_path, is_beside_the_tests_unless_the_environment_names_a_build) {
  char path[RUN_PATH_BYTES];
  unsetenv("CONR_BUILD");
  cr_assert(eq(int, access(run_build_path("tests/rank_smoke", path), X_OK), 0), "%s", path);
  setenv("CONR_BUILD", "/elsewhere", 1);
  cr_assert(eq(str, run_build_path("conr", path), "/elsewhere/conr"));
}
