/* Where the steps of an epoch went over the ranks, and which of them is slow. */
#include "io_files.h"
#include "launch/rank_times.h"
#include "support_cli.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

TestSuite(rank_times, .init = cli_begin, .fini = cli_end, .timeout = 60);

static const struct rank_times even[] = {
    {1, 8, 1, "host1"}, {1, 8.2, 0.8, "host1"}, {2, 7, 1, "host2"}, {1.5, 7.4, 1.1, "host2"}};

Test(rank_times, each_has_a_least_a_median_and_a_most) {
  struct rank_summary summary = rank_times_summary(even, 4);
  char words[200];
  cr_expect(eq(dbl, summary.data.min, 1));
  cr_expect(eq(dbl, summary.data.median, 1));
  cr_expect(eq(dbl, summary.data.max, 2));
  cr_expect(eq(dbl, summary.compute.min, 7));
  cr_expect(eq(dbl, summary.compute.median, 7.4));
  cr_expect(eq(dbl, summary.compute.max, 8.2));
  cr_expect(eq(dbl, summary.wait.max, 1.1));
  cr_expect(eq(int, summary.slow_rank, 1));                                        /* somebody always is, ... */
  cr_expect(eq(str, (char *)rank_times_words(&summary, words, sizeof words), "")); /* ... but by little */
  summary = rank_times_summary(even, 1);
  cr_expect(eq(dbl, summary.compute.median, 8));
  cr_expect(summary.stands_out == false);
}

Test(rank_times, a_rank_that_stands_out_is_named_whatever_holds_it_up) {
  struct rank_times times[4];
  char words[200];
  memcpy(times, even, sizeof times);
  for (int rank = 0; rank < 3; rank++)
    times[rank].wait += 5;
  times[3].data += 4;
  times[3].compute += 1;
  struct rank_summary summary = rank_times_summary(times, 4);
  cr_expect(eq(str, (char *)rank_times_words(&summary, words, sizeof words),
               ", rank 3 (host2) is slow: 13.9 s for data and compute, median 9.0 s"));
  for (int rank = 0; rank < 4; rank++) { /* the same in tenths of milliseconds: noise */
    times[rank].data *= 1e-4;
    times[rank].compute *= 1e-4;
    times[rank].wait *= 1e-4;
  }
  summary = rank_times_summary(times, 4);
  cr_expect(eq(int, summary.slow_rank, 3));
  cr_expect(summary.stands_out == false);
}

static double metric(const char *run, const char *kind, const char *which) {
  return cli_last_metric(run, cli_text("rank_%s_%s", kind, which));
}

Test(rank_times, the_file_and_the_log_tell_of_a_rank_that_is_slow) {
  enum { STEPS = 40, MILLISECONDS = 50 };
  static const char *const kinds[] = {"data", "compute", "wait"};
  const char *data = cli_data("t.h5", 40 * STEPS / 8), *run = io_file("run"); /* three fifths are for training */
  const char *const words[] = {"1", cli_text("%d", MILLISECONDS), data, "-o", run, "--epochs", "1", "--batch", "3",
                               NULL};
  struct run_result result;
  cr_assert(eq(int, run_ranks(3, "rank_slow", words, &result), 0), "%s", result.output);
  double sum = 0, slept = STEPS * MILLISECONDS * 1e-3;
  for (int i = 0; i < 3; i++) {
    double least = metric(run, kinds[i], "min"), median = metric(run, kinds[i], "median");
    cr_expect(0 <= least && least <= median && median <= metric(run, kinds[i], "max"), "%s", kinds[i]);
    sum += median;
  }
  cr_expect(sum <= cli_last_metric(run, "seconds") * 1.5, "%g s in all", sum); /* medians of different ranks */
  cr_expect(metric(run, "compute", "max") >= slept, "%g s", metric(run, "compute", "max"));
  cr_expect(metric(run, "wait", "median") >= 0.5 * slept, "%g s", metric(run, "wait", "median"));
  cr_expect(eq(dbl, cli_last_metric(run, "slow_rank"), 1));
  cr_expect(strstr(result.output, ", rank 1 (") != NULL && strstr(result.output, ") is slow: ") != NULL, "%s",
            result.output);
  run_result_free(&result);
}
