/* The watch over ranks: what the judge makes of what it knows, and what becomes of ranks to which something happens. */
#include "dist/watch_judge.h"
#include "io_files.h"
#include "support_cli.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the judge ------------------------------------------------------------------------------- */

enum { RANKS = 4 };

#define NOW 10000.0

static const struct watch_limits limits = {.silence_seconds = 20, .storage_seconds = 25, .deadline_seconds = 300};

/* Ranks 0 and 1 on host1, 2 and 3 on host2; all well, and in the middle of a step. */
static void all_is_well(struct watch_rank ranks[RANKS]) {
  for (int rank = 0; rank < RANKS; rank++) {
    ranks[rank] = (struct watch_rank){.host = rank < 2 ? "host1" : "host2",
                                      .known = true,
                                      .steady = true,
                                      .heard = NOW - 1,
                                      .entered = 50,
                                      .since = NOW - 2};
    strcpy(ranks[rank].doing, "computes a step");
  }
}

static void stands_in(struct watch_rank *rank, uint64_t number, const char *collective, double seconds) {
  rank->entered = rank->waits_for = number;
  strcpy(rank->collective, collective);
  rank->since = NOW - seconds;
}

/* All but rank 2, which does something else for so long. */
static void others_wait(struct watch_rank ranks[RANKS], const char *doing, double seconds) {
  for (int rank = 0; rank < RANKS; rank++)
    if (rank != 2)
      stands_in(&ranks[rank], 51, "sum of gradients", seconds);
  strcpy(ranks[2].doing, doing);
  ranks[2].since = NOW - seconds - 1;
}

static void expect_finding(const struct watch_rank ranks[RANKS], enum watch_finding expected, const char *words,
                           int line) {
  char sentence[WATCH_SENTENCE] = "";
  enum watch_finding finding = watch_judge(ranks, RANKS, NOW, &limits, sentence);
  cr_expect(eq(int, (int)finding, (int)expected), "line %d: \"%s\"", line, sentence);
  cr_expect(strstr(sentence, words) != NULL, "line %d: no \"%s\" in \"%s\"", line, words, sentence);
}

#define EXPECT_FINDING(finding, words) expect_finding(ranks, finding, words, __LINE__)

Test(watch, ranks_that_report_are_left_alone) {
  struct watch_rank ranks[RANKS];
  all_is_well(ranks);
  EXPECT_FINDING(WATCH_FINE, "");
  ranks[3].heard = NOW - 19.9;
  EXPECT_FINDING(WATCH_FINE, "");
  all_is_well(ranks);
  others_wait(ranks, "writes the checkpoint", 299);
  EXPECT_FINDING(WATCH_FINE, "");
}

/* A rank that has said good-bye, one that never came, and one that somebody looks at in a debugger. */
Test(watch, ranks_of_which_nothing_can_be_said_are_left_alone) {
  struct watch_rank ranks[RANKS];
  all_is_well(ranks);
  ranks[1].left = true;
  ranks[2].known = false;
  ranks[3].traced = true;
  ranks[1].heard = ranks[2].heard = ranks[3].heard = NOW - 5000;
  EXPECT_FINDING(WATCH_FINE, "");
  stands_in(&ranks[0], 51, "barrier", 5000);
  EXPECT_FINDING(WATCH_FINE, "");
  ranks[3].traced = false;
  ranks[3].heard = NOW;
  EXPECT_FINDING(WATCH_LATE, "for rank 3 (host2: computes a step");
}

Test(watch, the_dead_are_named) {
  struct watch_rank ranks[RANKS];
  all_is_well(ranks);
  ranks[2].closed = true;
  ranks[2].heard = NOW - 0.1;
  EXPECT_FINDING(WATCH_FINE, ""); /* others may be about to show */
  ranks[2].heard = NOW - 1;
  EXPECT_FINDING(WATCH_DIED, "rank 2 (host2) has died; its last word was that it computes a step; look on host2");
  stands_in(&ranks[2], 51, "sum of gradients", 1);
  EXPECT_FINDING(WATCH_DIED, "rank 2 (host2) has died in collective 51 (sum of gradients)");
  ranks[3].closed = true;
  ranks[3].heard = NOW;
  EXPECT_FINDING(WATCH_DIED, "ranks 2-3 (host2) have died; look on host2");
}

Test(watch, the_silent_are_named) {
  struct watch_rank ranks[RANKS];
  all_is_well(ranks);
  ranks[3].heard = NOW - 21;
  EXPECT_FINDING(
      WATCH_SILENT,
      "nothing has been heard for 21 s of rank 3 (host2), while other ranks of the host answer: it is stopped");
  ranks[2].heard = NOW - 20; /* cut off at the same time, but it had spoken last */
  EXPECT_FINDING(WATCH_SILENT, "for 21 s of ranks 2-3 (host2): the host is down or cut off");
}

Test(watch, a_collective_that_waits_names_itself_and_who_does_not_come) {
  struct watch_rank ranks[RANKS];
  all_is_well(ranks);
  others_wait(ranks, "waits for data", 303);
  EXPECT_FINDING(WATCH_LATE,
                 "collective 51 (sum of gradients) has waited 303 s for rank 2 (host2: waits for data for 304 s); look "
                 "there for what holds it up; CONR_COMM_TIMEOUT allows more than 300 s");
  stands_in(&ranks[0], 60, "barrier", 400); /* in a later one: that waits for the same */
  EXPECT_FINDING(WATCH_LATE, "collective 51 (sum of gradients) has waited 303 s for rank 2 ");
  stands_in(&ranks[2], 49, "broadcast", 500); /* what it stands in others have left long ago */
  ranks[2].since = NOW - 299;
  EXPECT_FINDING(WATCH_LATE, "for rank 2 (host2: in collective 49, broadcast, for 299 s)");
}

/* Ranks 1 and 3 work in a communicator of their own: they are as late, or stuck, as if they were all. */
Test(watch, ranks_aside_are_not_waited_for) {
  struct watch_rank ranks[RANKS];
  all_is_well(ranks);
  for (int rank = 0; rank < RANKS; rank += 2) {
    ranks[rank].aside = true;
    ranks[rank].steady = false; /* nor is their first step */
    ranks[rank].entered = 7;
  }
  stands_in(&ranks[1], 51, "sum of gradients", 303);
  ranks[3].since = NOW - 304;
  EXPECT_FINDING(WATCH_LATE, "has waited 303 s for rank 3 (host2: computes a step for 304 s); look there");
  stands_in(&ranks[3], 51, "sum of gradients", 303);
  EXPECT_FINDING(WATCH_STUCK, "all ranks have come to collective 51");
  ranks[1] = ranks[3] = ranks[0];
  EXPECT_FINDING(WATCH_FINE, "");
  ranks[2].closed = true;
  EXPECT_FINDING(WATCH_DIED, "rank 2 (host2) has died");
}

Test(watch, before_the_first_step_collectives_may_take_longer) {
  struct watch_rank ranks[RANKS];
  all_is_well(ranks);
  ranks[1].steady = false;
  others_wait(ranks, "opens its data", 1790);
  EXPECT_FINDING(WATCH_FINE, "");
  others_wait(ranks, "opens its data", 1803);
  EXPECT_FINDING(WATCH_LATE, "CONR_COMM_TIMEOUT allows more than 1800 s");
}

Test(watch, storage_that_does_not_answer_is_named) {
  struct watch_rank ranks[RANKS];
  all_is_well(ranks);
  others_wait(ranks, "writes the checkpoint", 30);
  ranks[2].unanswered = 24.9;
  EXPECT_FINDING(WATCH_FINE, "");
  ranks[2].unanswered = 26;
  ranks[2].unhurried = true; /* the size of a file is no excuse: the requests are small */
  EXPECT_FINDING(WATCH_STALLED, "storage has not answered for 26 s, which is asked by rank 2 (host2: writes the "
                                "checkpoint for 31 s); look there whether the disk or the file server works");
  ranks[3].unanswered = 25; /* the same server's */
  EXPECT_FINDING(WATCH_STALLED, "asked by rank 2 (host2: writes the checkpoint for 31 s), rank 3 (host2: in ");
  ranks[2].traced = ranks[3].traced = true;
  EXPECT_FINDING(WATCH_FINE, "");
}

/* A rank that came to the collective, and was stopped there: what it said last is old. */
Test(watch, a_rank_whose_word_is_old_may_be_what_is_waited_for) {
  struct watch_rank ranks[RANKS];
  all_is_well(ranks);
  for (int rank = 0; rank < RANKS; rank++)
    stands_in(&ranks[rank], 51, "sum of gradients", 303);
  ranks[2].heard = NOW - 15;
  EXPECT_FINDING(WATCH_LATE, "has waited 303 s for rank 2 (host2: in collective 51, sum of gradients, for 303 s, and "
                             "nothing was heard of it for 15); look there");
}

Test(watch, what_takes_as_long_as_it_takes_is_waited_for) {
  struct watch_rank ranks[RANKS];
  all_is_well(ranks);
  others_wait(ranks, "imports images", 5000);
  ranks[2].unhurried = true;
  EXPECT_FINDING(WATCH_FINE, "");
  ranks[2].heard = NOW - 21;
  EXPECT_FINDING(WATCH_SILENT, "rank 2 (host2)");
}

Test(watch, ranks_that_all_stand_still_are_found) {
  struct watch_rank ranks[RANKS];
  all_is_well(ranks);
  for (int rank = 0; rank < RANKS; rank++)
    stands_in(&ranks[rank], 51, "sum of gradients", 303 + rank);
  EXPECT_FINDING(WATCH_STUCK, "all ranks have come to collective 51 (sum of gradients), which is not over after 303 s: "
                              "look at the network");
  stands_in(&ranks[3], 51, "barrier", 303);
  EXPECT_FINDING(WATCH_STUCK, "but rank 3 (host2) stands in collective 51 (barrier)");
  ranks[3].since = NOW - 3; /* it moves */
  EXPECT_FINDING(WATCH_FINE, "");
}

Test(watch, time_in_which_the_judge_slept_does_not_count) {
  struct watch_rank ranks[RANKS];
  all_is_well(ranks);
  ranks[2].heard = NOW - 610;
  watch_forgive(ranks, RANKS, 600, NOW);
  EXPECT_FINDING(WATCH_FINE, "");
  cr_expect(eq(dbl, ranks[2].heard, NOW - 10));
  cr_expect(eq(dbl, ranks[3].heard, NOW), "heard in the time to come");
}

Test(watch, long_lists_are_shortened) {
  enum { MANY = 12 };
  struct watch_rank ranks[MANY] = {{0}};
  bool which[MANY] = {false};
  char text[200];
  for (int rank = 0; rank < MANY; rank++) {
    ranks[rank].host = rank < 6 ? "host1" : "host2";
    which[rank] = rank != 2 && rank != 4 && rank != 8;
  }
  watch_list(ranks, MANY, which, text, sizeof text);
  cr_expect(eq(str, (char *)text, "ranks 0-1 (host1), 3 (host1), 5 (host1), 6-7 (host2) and 3 more"));
}

/* ---- ranks ----------------------------------------------------------------------------------- */

TestSuite(watched, .init = cli_begin, .fini = cli_end, .timeout = 90);

enum { THREE = 3 };
static int ranks_of_run = THREE;

/* Has each process of the run ended by the time the run has? */
static void expect_no_process(const char *folder) {
  for (int rank = 0; rank < ranks_of_run; rank++) {
    char *text = io_read(cli_text("%s/pid%d", folder, rank), NULL);
    char line[300] = "";
    FILE *stream = fopen(cli_text("/proc/%d/cmdline", atoi(text)), "r");
    if (stream != NULL && fgets(line, sizeof line, stream) != NULL)
      cr_expect(strstr(line, "rank_watch") == NULL, "rank %d is still there", rank);
    if (stream != NULL)
      fclose(stream);
    free(text);
  }
}

/* Below a launcher that takes no notice of what becomes of its ranks: "[exit S]" is what each ended with. */
static struct run_result watched(const char *what, int rank) {
  char program[RUN_PATH_BYTES];
  struct run_result run;
  const char *script = cli_text("OMPI_MCA_orte_enable_recovery=1 exec ${MPIEXEC:-mpirun} -n %d sh -c "
                                "'%s %s %d %s; echo \"[exit $?]\"'",
                                ranks_of_run, run_build_path("tests/rank_watch", program), what, rank, io_file(""));
  char *const command[] = {"sh", "-c", (char *)script, NULL};
  if (getenv("CONR_WATCH_SECONDS") == NULL)
    setenv("CONR_WATCH_SECONDS", "3", 1);
  run_command(command, 60, &run);
  cr_assert(run.timed_out == false, "%s", run.output);
  expect_no_process(io_file(""));
  return run;
}

/* One sentence, by one rank; the others end with 1, and the one to which it happened with `exit_status`. */
static void expect_end(const char *what, int rank, int exit_status, const char *sentence) {
  struct run_result run = watched(what, rank);
  bool alike = exit_status == 1;
  cr_expect(eq(int, cli_count(run.output, "conr: "), 1), "%s", run.output);
  cr_expect(eq(int, cli_count(run.output, sentence), 1), "no \"%s\":\n%s", sentence, run.output);
  cr_expect(eq(int, cli_count(run.output, "[exit 1]"), alike ? ranks_of_run : ranks_of_run - 1), "%s", run.output);
  cr_expect(eq(int, cli_count(run.output, cli_text("[exit %d]", exit_status)), alike ? ranks_of_run : 1), "%s",
            run.output);
  run_result_free(&run);
}

static void expect_to_go_on(const char *what, int rank, const char *sentence) {
  struct run_result run = watched(what, rank);
  cr_expect(eq(int, cli_count(run.output, "conr: "), sentence[0] != '\0'), "%s", run.output);
  cr_expect(strstr(run.output, sentence) != NULL, "no \"%s\":\n%s", sentence, run.output);
  cr_expect(eq(int, cli_count(run.output, "[exit 0]"), ranks_of_run), "%s", run.output);
  run_result_free(&run);
}

Test(watched, a_killed_rank_ends_the_others) {
  expect_end("killed", 2, 137, "conr: [rank 0/3 ");
}

Test(watched, so_does_rank_0) {
  expect_end("killed", 0, 137, "] rank 0 (");
}

Test(watched, a_stopped_rank_ends_the_others_and_itself_when_it_goes_on) {
  expect_end("stopped", 1, 1, "] nothing has been heard for ");
}

Test(watched, so_does_rank_0_that_was_stopped) {
  expect_end("stopped", 0, 1, "which runs on this host: it is stopped");
}

Test(watched, a_rank_that_does_not_come_to_a_collective_is_named_with_what_it_does) {
  setenv("CONR_COMM_TIMEOUT", "1", 1);
  expect_end("absent", 1, 1, ": counts sheep for ");
}

Test(watched, so_it_is_after_collectives_of_some_ranks_alone) {
  setenv("CONR_COMM_TIMEOUT", "1", 1);
  expect_end("apart", 1, 1, ": counts sheep for ");
}

Test(watched, a_rank_that_is_slow_but_alive_is_waited_for) {
  setenv("CONR_COMM_TIMEOUT", "2", 1);
  expect_to_go_on("slow", 1, "");
}

Test(watched, storage_that_does_not_answer_ends_the_run) {
  setenv("CONR_STORAGE_TIMEOUT", "3", 1);
  expect_end("stalled", 1, 1, ": reads wool for ");
}

Test(watched, so_it_does_a_run_of_one_rank) {
  setenv("CONR_STORAGE_TIMEOUT", "3", 1);
  ranks_of_run = 1;
  expect_end("stalled", 0, 1, "] storage has not answered for ");
}

Test(watched, storage_that_is_slow_is_waited_for) {
  setenv("CONR_STORAGE_TIMEOUT", "3", 1);
  expect_to_go_on("trickles", 1, "");
}

Test(watched, a_rank_that_writes_to_a_dead_one_is_not_ended_by_that) {
  expect_to_go_on("broken", 0, "");
}

Test(watched, a_job_that_was_suspended_as_a_whole_goes_on) {
  expect_to_go_on("suspended", 0, "");
}

Test(watched, where_no_connection_comes_about_the_run_goes_on_and_says_so_once) {
  expect_to_go_on("unreachable", 2, "conr: warning: [rank 0/3 ");
}

Test(watched, strangers_do_no_harm) {
  setenv("CONR_WATCH_PORT", cli_text("%d", cli_free_port()), 1);
  expect_end("strangers", 2, 137, "] rank 2 (");
}

/* Each of its points is one of a part of the ranks. */
Test(watched, a_scaling_study_has_one_watch) {
  setenv("CONR_WATCH_PORT", cli_text("%d", cli_free_port()), 1);
  const char *line = cli_text("scale %s -o %s --hidden 8 --batches 12 --ranks 1,2 --mode weak --steps 2 --repeat 1 "
                              "--quiet",
                              cli_data("t.h5", 60), io_file("study"));
  struct run_result run = cli_run(2, line);
  cr_expect(eq(int, run.exit_status, 0), "%s", run.output);
  cr_expect(eq(int, cli_count(run.output, "warning: "), 0), "%s", run.output);
  run_result_free(&run);
}

Test(watched, variables_that_make_no_sense_are_refused) {
  cli_data("t.h5", 20);
  const char *line = cli_text("train %s -o %s", io_file("t.h5"), io_file("run"));
  setenv("CONR_WATCH", "of", 1);
  cli_refused(2, 2, "CONR_WATCH is \"of\"; give on or off", line);
  setenv("CONR_WATCH", "on", 1);
  setenv("CONR_WATCH_SECONDS", "2", 1);
  cli_refused(2, 2, "CONR_WATCH_SECONDS is \"2\"; give seconds, 3 or more", line);
  unsetenv("CONR_WATCH_SECONDS");
  setenv("CONR_STORAGE_TIMEOUT", "never", 1);
  cli_refused(2, 2, "CONR_STORAGE_TIMEOUT is \"never\"; give seconds, 3 or more", line);
  unsetenv("CONR_STORAGE_TIMEOUT");
  setenv("CONR_WATCH_PORT", "0", 1);
  cli_refused(2, 2, "CONR_WATCH_PORT is \"0\"; give a port, from 1 to 65535", line);
}
