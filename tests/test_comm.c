/* Communicators and buckets on several ranks: tests/ranks/rank_comm.c and rank_bucket.c hold the cases. */
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

enum { MOST_RANKS = 4 };

/* Run the program within the seconds and expect it to find no fault; what it said is shown when it did. */
static void expect_no_fault(double seconds, int ranks, const char *program, const char *const *words) {
  struct run_result run;
  int exit_status = run_ranks_within(seconds, ranks, program, words, &run);
  cr_expect(eq(int, exit_status, 0), "%d ranks%s:\n%s", ranks, run.timed_out ? ", ended at the time limit" : "",
            run.output);
  run_result_free(&run);
}

static void expect_promises_kept(int ranks) {
  expect_no_fault(60, ranks, "rank_comm", (const char *const[]){"list", "mpi", NULL});
}

Test(comm, mpi_keeps_every_promise_on_one_rank, .timeout = 300) {
  expect_promises_kept(1);
}

Test(comm, mpi_keeps_every_promise_on_two_ranks, .timeout = 300) {
  expect_promises_kept(2);
}

Test(comm, mpi_keeps_every_promise_on_three_ranks, .timeout = 300) {
  expect_promises_kept(3);
}

Test(comm, mpi_keeps_every_promise_on_four_ranks, .timeout = 300) {
  expect_promises_kept(4);
}

/* The list itself is tested: a transport that is wrong in one entry of its table must not pass. */
Test(comm, a_transport_that_is_wrong_in_one_place_is_noticed, .timeout = 300) {
  expect_no_fault(60, 3, "rank_comm", (const char *const[]){"faults", "mpi", NULL});
}

Test(comm, a_case_that_is_not_in_the_list_is_a_fault, .timeout = 300) {
  struct run_result run;
  const char *const words[] = {"list", "mpi", "no_such_case", NULL};
  cr_expect(ne(int, run_ranks(2, "rank_comm", words, &run), 0));
  cr_expect(ne(ptr, strstr(run.output, "no_such_case"), NULL), "%s", run.output);
  run_result_free(&run);
}

Test(comm, parts_of_the_ranks_work_apart_and_in_their_own_order, .timeout = 300) {
  for (int ranks = 1; ranks <= MOST_RANKS; ranks++)
    expect_no_fault(60, ranks, "rank_comm", (const char *const[]){"parts", NULL});
}

Test(comm, what_mpi_cannot_do_is_an_error_on_every_rank, .timeout = 300) {
  for (int ranks = 1; ranks <= 3; ranks += 2)
    expect_no_fault(60, ranks, "rank_comm", (const char *const[]){"limits", NULL});
}

/* A pebibyte, beyond any /dev/shm, more than an address holds, and a size that a header would make small. */
Test(comm, host_memory_beyond_the_machine_is_an_error_on_every_rank, .timeout = 300) {
  static const char *const bytes[] = {"0x4000000000000", "0x1000000000000000", "0xffffffffffffffff"};
  for (int i = 0; i < 3; i++)
    for (int ranks = 1; ranks <= 3; ranks += 2)
      expect_no_fault(10, ranks, "rank_comm", (const char *const[]){"beyond", bytes[i], NULL});
}

static void expect_buckets_right(int ranks) {
  expect_no_fault(60, ranks, "rank_bucket", NULL);
}

Test(buckets, are_right_on_one_rank, .timeout = 300) {
  expect_buckets_right(1);
}

Test(buckets, are_right_on_two_ranks, .timeout = 300) {
  expect_buckets_right(2);
}

Test(buckets, are_right_on_three_ranks, .timeout = 300) {
  expect_buckets_right(3);
}

Test(buckets, are_right_on_four_ranks, .timeout = 300) {
  expect_buckets_right(4);
}
