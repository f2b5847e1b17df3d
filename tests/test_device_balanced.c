/* Balanced MSE of a GPU against that of the host, on 1 to 4 ranks.  Without a GPU over the emulation. */
#include "dist/device.h"
#include "tests/balanced_cases.h"
#include "tests/device_support.h"
#include "tests/emulated.h"
#include "tests/run_ranks.h"

#include <math.h>
#include <stdlib.h>

static struct balanced_bench bench;

static void begin(void) {
  if (!gpu_use())
    cr_skip("there is no emulated CUDA library");
  balanced_bench_open(&bench);
}

static void end(void) {
  if (bench.device != NULL)
    balanced_bench_close(&bench);
}

TestSuite(device_balanced, .init = begin, .fini = end, .timeout = 300);

struct outcome {
  float grad[BALANCED_ROWS * BALANCED_MOST];
  double sums[2];
};

/* Some rows of a batch. */
static struct outcome run_there(struct balanced_device *balanced, const struct balanced_batch *batch, double sigma,
                                int64_t first, int64_t rows) {
  struct outcome outcome = {0};
  int targets = batch->targets;
  float *pred = balanced_floats(batch->pred + first * targets, rows * targets);
  float *label = balanced_floats(batch->label + first * targets, rows * targets);
  balanced_there(&bench, balanced, sigma, rows, targets, pred, label, BALANCED_ROWS, outcome.grad, outcome.sums);
  free(pred);
  free(label);
  return outcome;
}

static struct balanced_device *create_there(const struct balanced *balanced, const struct balanced_batch *batch) {
  struct balanced_device *there;
  float *labels = balanced_floats(batch->label, BALANCED_ROWS * batch->targets);
  MUST(bench.losses->balanced_create(bench.device, bench.data, balanced, &there));
  balanced_labels_there(&bench, there, BALANCED_ROWS, batch->targets, labels, 1);
  free(labels);
  return there;
}

/* Both compute in double, in another order: what differs is a rounding of sums, and then of the gradient to float32. */
static void expect_same(const char *what, const struct balanced_batch *batch, double sigma, const struct outcome *got,
                        const struct outcome *wanted) {
  double largest = 0;
  int count = BALANCED_ROWS * batch->targets;
  for (int i = 0; i < 2; i++)
    cr_expect(fabs(got->sums[i] - wanted->sums[i]) <= 1e-11 * fabs(wanted->sums[i]), "%s, sigma %g: %.17g, host %.17g",
              what, sigma, got->sums[i], wanted->sums[i]);
  for (int i = 0; i < count; i++)
    largest = fmax(largest, fabs((double)wanted->grad[i]));
  for (int i = 0; i < count; i++) {
    double error = fabs((double)got->grad[i] - (double)wanted->grad[i]);
    cr_expect(error <= 0x1p-23 * fabs((double)wanted->grad[i]) + 1e-12 * largest,
              "%s, sigma %g: gradient %d is %g, host %g", what, sigma, i, (double)got->grad[i],
              (double)wanted->grad[i]);
  }
  cr_expect(largest > 0, "%s: no gradient", what);
}

Test(device_balanced, losses_and_gradients_are_those_of_the_host) {
  static const double sigmas[] = {0.8, 2.5, -1.3, 1e-3, 1e3};
  for (int kind = 0; kind < BALANCED_KINDS; kind++) {
    struct balanced_batch batch = balanced_batch_of(kind);
    struct balanced *balanced = balanced_of(kind, F32, &batch);
    struct balanced_device *there = create_there(balanced, &batch);
    float *pred = balanced_floats(batch.pred, BALANCED_ROWS * batch.targets);
    float *label = balanced_floats(batch.label, BALANCED_ROWS * batch.targets);
    for (size_t i = 0; i < sizeof sigmas / sizeof *sigmas; i++) {
      struct outcome wanted, got = run_there(there, &batch, sigmas[i], 0, BALANCED_ROWS);
      balanced_loss(balanced, sigmas[i], BALANCED_ROWS, pred, label, BALANCED_ROWS, wanted.grad, &wanted.sums[0],
                    &wanted.sums[1]);
      expect_same(balanced_kind_names[kind], &batch, sigmas[i], &got, &wanted);
    }
    free(pred);
    free(label);
    bench.losses->balanced_destroy(&there);
    balanced_destroy(&balanced);
  }
}

Test(device_balanced, pieces_add_up_to_the_whole_batch) {
  static const int first[] = {0, 1, 1, 150, BALANCED_ROWS};
  for (int kind = 0; kind < BALANCED_KINDS; kind++) {
    struct balanced_batch batch = balanced_batch_of(kind);
    struct balanced *balanced = balanced_of(kind, F32, &batch);
    struct balanced_device *there = create_there(balanced, &batch);
    struct outcome whole = run_there(there, &batch, 1.1, 0, BALANCED_ROWS);
    double sums[2] = {0};
    for (int piece = 0; piece < 4; piece++) {
      int rows = first[piece + 1] - first[piece];
      struct outcome part = run_there(there, &batch, 1.1, first[piece], rows);
      cr_expect(memcmp(part.grad, whole.grad + first[piece] * batch.targets,
                       (size_t)(rows * batch.targets) * sizeof *part.grad) == 0,
                "%s: gradients of piece %d", balanced_kind_names[kind], piece);
      sums[0] += part.sums[0];
      sums[1] += part.sums[1];
    }
    for (int i = 0; i < 2; i++)
      cr_expect(fabs(sums[i] - whole.sums[i]) <= 1e-12 * fabs(whole.sums[i]), "%s: %.17g, whole %.17g",
                balanced_kind_names[kind], sums[i], whole.sums[i]);
    bench.losses->balanced_destroy(&there);
    balanced_destroy(&balanced);
  }
}

/* Labels of two views count twice; batches change in size. */
Test(device_balanced, labels_are_those_of_the_last_batch) {
  static const int64_t samples[] = {40, 0, 150, 7};
  struct balanced_batch batch = balanced_batch_of(BALANCED_BMC_3);
  struct balanced *balanced = balanced_of(BALANCED_BMC_3, F32, &batch);
  struct balanced_device *there;
  MUST(bench.losses->balanced_create(bench.device, bench.data, balanced, &there));
  float *pred = balanced_floats(batch.pred, BALANCED_ROWS * 3),
        *label = balanced_floats(batch.label, BALANCED_ROWS * 3);
  for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
    struct outcome wanted = {0}, got = {0};
    int64_t rows = samples[i];
    MUST(balanced_set_labels(balanced, rows, label, 2));
    balanced_labels_there(&bench, there, rows, 3, label, 2);
    balanced_loss(balanced, 0.9, rows, pred, label, 2 * rows, wanted.grad, &wanted.sums[0], &wanted.sums[1]);
    balanced_there(&bench, there, 0.9, rows, 3, pred, label, 2 * rows, got.grad, got.sums);
    if (rows > 0)
      expect_same("two views", &batch, 0.9, &got, &wanted);
    else
      cr_expect(got.sums[0] == 0 && got.sums[1] == 0);
  }
  free(pred);
  free(label);
  bench.losses->balanced_destroy(&there);
  balanced_destroy(&balanced);
}

Test(device_balanced, what_is_not_finite_shows_in_the_loss) {
  static const double bad[] = {NAN, INFINITY, -INFINITY};
  for (int kind = 0; kind < BALANCED_KINDS; kind++) {
    struct balanced_batch batch = balanced_batch_of(kind);
    struct balanced *balanced = balanced_of(kind, F32, &batch);
    struct balanced_device *there = create_there(balanced, &batch);
    for (int b = 0; b < 3; b++) {
      batch.pred[7] = bad[b];
      struct outcome got = run_there(there, &batch, 1, 0, BALANCED_ROWS);
      cr_expect(not(isfinite(got.sums[0])), "%s, %g: %g", balanced_kind_names[kind], bad[b], got.sums[0]);
    }
    bench.losses->balanced_destroy(&there);
    balanced_destroy(&balanced);
  }
}

Test(device_balanced, memory_of_a_size_seen_before_is_kept) {
  struct balanced_batch batch = balanced_batch_of(BALANCED_BMC);
  struct balanced *balanced = balanced_of(BALANCED_BMC, F32, &batch);
  struct balanced_device *there = create_there(balanced, &batch);
  struct outcome first = run_there(there, &batch, 1, 0, BALANCED_ROWS);
  size_t bytes = device_bytes(bench.device);
  float *label = balanced_floats(batch.label, BALANCED_ROWS);
  balanced_labels_there(&bench, there, BALANCED_ROWS, 1, label, 1);
  struct outcome again = run_there(there, &batch, 1, 0, BALANCED_ROWS);
  cr_expect(eq(sz, device_bytes(bench.device), bytes));
  cr_expect(memcmp(&first, &again, sizeof first) == 0, "a second call has other bits");
  free(label);
  bench.losses->balanced_destroy(&there);
  balanced_destroy(&balanced);
}

TestSuite(device_balanced_ranks, .timeout = 600);

Test(device_balanced_ranks, n_ranks_equal_one_rank) {
  const char *const arguments[] = {"cuda", NULL};
  if (!gpu_use())
    cr_skip("there is no emulated CUDA library");
  for (int ranks = 1; ranks <= 4; ranks++) {
    struct run_result run;
    cr_assert(eq(int, run_ranks_within(120, ranks, "rank_balanced", arguments, &run), 0), "%d ranks:\n%s", ranks,
              run.output);
    run_result_free(&run);
  }
}
