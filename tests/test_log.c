/* What is said on standard error, by whom, and how often. */
#include "dist/log.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What is written to a descriptor between capture() and captured() goes to a file. */
static int watched, kept;
static FILE *file;
static char text[20000];

static void capture_of(int descriptor) {
  fflush(NULL);
  file = tmpfile();
  watched = descriptor;
  kept = dup(descriptor);
  cr_assert(file != NULL && kept >= 0);
  cr_assert(ge(int, dup2(fileno(file), descriptor), 0));
}

static void capture(void) {
  capture_of(STDERR_FILENO);
}

static char *captured(void) {
  fflush(stdout);
  fflush(stderr);
  dup2(kept, watched);
  close(kept);
  rewind(file);
  text[fread(text, 1, sizeof text - 1, file)] = '\0';
  fclose(file);
  return text;
}

static struct log create(int rank, int size, bool quiet) {
  struct log log = log_create(rank, size, quiet);
  log.terminal = false;
  return log;
}

Test(log, a_file_is_not_a_terminal) {
  capture();
  struct log log = log_create(2, 3, true);
  captured();
  cr_assert(eq(int, log.terminal, 0));
  cr_assert(eq(int, log.rank, 2));
  cr_assert(eq(int, log.size, 3));
  cr_assert(eq(int, log.quiet, 1));
}

Test(log, rank_0_speaks_and_the_others_do_not) {
  struct log root = create(0, 3, false), other = create(1, 3, false);
  capture();
  log_line(&root, "read %d rows of %s", 12, "a.h5");
  log_line(&other, "read %d rows of %s", 13, "b.h5");
  log_progress(&root, true, "epoch %d", 1);
  log_progress(&other, true, "epoch %d", 2);
  cr_assert(eq(str, captured(), "read 12 rows of a.h5\nepoch 1\n"));
}

Test(log, quiet_silences_lines_and_progress) {
  struct log log = create(0, 1, true);
  capture();
  log_line(&log, "a line");
  log_progress(&log, false, "progress");
  log_progress(&log, true, "final progress");
  cr_assert(eq(str, captured(), ""));
}

Test(log, standard_output_stays_empty) {
  struct log log = create(0, 2, false);
  capture_of(STDOUT_FILENO);
  log_line(&log, "a line");
  log_progress(&log, true, "progress");
  log_warning(&log, "a warning");
  printf("only this");
  cr_assert(eq(str, captured(), "only this"));
}

/* 1000 calls take far less than the 10 s after which a second line would be due. */
Test(log, progress_into_a_file_is_rare_and_the_final_one_always_comes) {
  struct log log = create(0, 1, false);
  capture();
  for (int step = 0; step < 1000; step++)
    log_progress(&log, false, "step %d", step);
  log_progress(&log, true, "step %d of %d", 1000, 1000);
  cr_assert(eq(str, captured(), "step 0\nstep 1000 of 1000\n"));
}

Test(log, progress_into_a_file_comes_again_after_ten_seconds) {
  struct log log = create(0, 1, false);
  capture();
  log_progress(&log, false, "first");
  log.last_progress_seconds -= 9; /* as if 9 s, then 11 s had passed */
  log_progress(&log, false, "too early");
  log.last_progress_seconds -= 2;
  log_progress(&log, false, "second");
  log_progress(&log, false, "too early again");
  cr_assert(eq(str, captured(), "first\nsecond\n"));
}

/* "\r\033[K" goes to the first column and clears the line. */
Test(log, progress_on_a_terminal_replaces_itself_and_ends_with_the_final_one) {
  struct log log = create(0, 1, false);
  log.terminal = true;
  capture();
  log_progress(&log, false, "one");
  cr_expect(eq(int, log.live, 1));
  log.last_progress_seconds -= 1;
  log_progress(&log, false, "two");
  log_progress(&log, true, "end");
  cr_expect(eq(int, log.live, 0));
  log_line(&log, "after");
  cr_assert(eq(str, captured(), "\r\033[Kone\r\033[Ktwo\r\033[Kend\nafter\n"));
}

Test(log, a_line_or_a_warning_first_ends_the_live_line) {
  struct log log = create(0, 1, false);
  log.terminal = true;
  capture();
  log_progress(&log, false, "live");
  log_line(&log, "a line");
  log_line(&log, "another");
  log.last_progress_seconds -= 1;
  log_progress(&log, false, "live");
  log_warning(&log, "careful");
  cr_assert(eq(str, captured(), "\r\033[Klive\na line\nanother\n\r\033[Klive\nconr: warning: careful\n"));
}

Test(log, a_warning_of_one_process_has_no_rank) {
  struct log log = create(0, 1, false);
  capture();
  log_warning(&log, "%d of %d values are not finite", 3, 10);
  cr_assert(eq(str, captured(), "conr: warning: 3 of 10 values are not finite\n"));
}

Test(log, a_warning_of_any_rank_names_rank_and_host) {
  char host[256] = "", expected[600];
  struct log log = create(2, 4, false);
  gethostname(host, sizeof host - 1);
  capture();
  log_warning(&log, "disk nearly full");
  snprintf(expected, sizeof expected, "conr: warning: [rank 2/4 %s] disk nearly full\n", host);
  cr_assert(eq(str, captured(), expected));
}

Test(log, a_warning_longer_than_its_room_is_cut_and_still_one_line) {
  char long_text[5000];
  memset(long_text, 'x', sizeof long_text - 1);
  long_text[sizeof long_text - 1] = '\0';
  struct log log = create(0, 1, false);
  capture();
  log_warning(&log, "%s", long_text);
  log_warning(&log, "next");
  char *lines = captured();
  cr_assert(eq(int, strncmp(lines, "conr: warning: xxxx", 19), 0));
  cr_assert(eq(str, strchr(lines, '\n'), "\nconr: warning: next\n"));
}

Test(log, seconds_go_forward_at_the_pace_of_a_clock) {
  double begin = log_seconds();
  usleep(50000);
  double passed = log_seconds() - begin;
  cr_assert(ge(dbl, passed, 0.05)); /* never less than what was slept; a loaded machine may take longer */
  cr_assert(lt(dbl, passed, 30.0));
}
