/* Properties of the ConR loss on any number of ranks.
 *
 *   rank_conr equal       the joint batch's loss and gradient, whatever the shares, options and path
 *   rank_conr mutants     the two classic mistakes are told from the real thing
 *   rank_conr finite      finite differences
 *   rank_conr edges       no rows, one row, equal labels, zero rows, tiny temperature, strong push
 *   rank_conr nonfinite   a bad value on one rank is one sentence on all
 *   rank_conr traffic     bytes received are those of the plan
 *   rank_conr memory      workspace within N x D + a panel a thread + 5 %
 *   rank_conr faults      a rank with NULL arrays or wrong counts is a sentence on all
 *   rank_conr wide        labels that span millions keep float32 gradients exact to rounding
 *   rank_conr threads     more threads than panels change nothing but rounding
 *   rank_conr reuse       calls of changing size, and nothing left afterwards
 *
 * Prints "MISFIT ..." and exits non-zero when something is wrong on any rank. */
#include "dist/memory.h"
#include "dist/random.h"
#include "loss/conr.h"
#include "loss/pairwise.h"
#include "tests/ref_conr.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int world_rank, world_size, misfits;

static void expect(int good, const char *what, double got, double limit) {
  if (good)
    return;
  printf("MISFIT %s: %g (limit %g), rank %d of %d\n", what, got, limit, world_rank, world_size);
  misfits++;
}

/* ---- a global batch, the same on every rank --------------------------------------------------- */

struct batch {
  int64_t rows;
  int features, targets;
  double *feature, *label, *prediction, *weight;
};

/* Labels like ages for one component, otherwise real; predictions are labels with errors; values are exact in
 * float32. */
static struct batch make_batch(int64_t rows, int features, int targets, uint64_t seed) {
  struct random_key key = random_key(seed, RANDOM_TEST, 1);
  struct batch batch = {.rows = rows, .features = features, .targets = targets};
  batch.feature = malloc((size_t)(rows * features) * sizeof(double) + 1);
  batch.label = malloc((size_t)(rows * targets) * sizeof(double) + 1);
  batch.prediction = malloc((size_t)(rows * targets) * sizeof(double) + 1);
  batch.weight = malloc((size_t)rows * sizeof(double) + 1);
  for (int64_t i = 0; i < rows; i++) {
    uint64_t row = (uint64_t)i;
    for (int k = 0; k < targets; k++) {
      double age = floor(20 + 60 * random_uniform(key, row, 100000 + (uint64_t)k));
      double label = targets == 1 ? age : age / 8;
      batch.label[i * targets + k] = (double)(float)label;
      batch.prediction[i * targets + k] = (double)(float)(label + 5 * random_normal(key, row, 200000 + (uint64_t)k));
    }
    for (int k = 0; k < features; k++)
      batch.feature[i * features + k] =
          (double)(float)(random_normal(key, row, (uint64_t)k) + 0.02 * batch.label[i * targets] * (k % 3));
    batch.weight[i] = (double)(float)(0.25 + 2 * random_uniform(key, row, 300000));
  }
  return batch;
}

static void free_batch(struct batch *batch) {
  free(batch->feature);
  free(batch->label);
  free(batch->prediction);
  free(batch->weight);
}

enum share { SHARE_EVEN, SHARE_UNEVEN, SHARE_LAST, SHARES };

static int64_t first_row(enum share share, int64_t rows, int rank, int size) {
  if (share == SHARE_EVEN || size == 1)
    return rows * rank / size;
  if (share == SHARE_UNEVEN) /* one row, nothing, ..., nothing, the rest */
    return rank == 0 ? 0 : rank == size ? rows : (rows > 0);
  return rank == size ? rows : 0;
}

/* ---- running one share of it ------------------------------------------------------------------ */

static void *as_real(const double *values, int64_t first, int64_t count, enum conr_precision precision) {
  void *array = malloc((size_t)count * sizeof(double) + 1);
  for (int64_t i = 0; i < count; i++)
    if (precision == CONR_F32)
      ((float *)array)[i] = (float)values[first + i];
    else
      ((double *)array)[i] = values[first + i];
  return array;
}

struct outcome {
  int failed;
  struct conr_result result;
  double *grad; /* [own rows, features] */
};

/* Rows first .. last-1 of the batch as this rank's share of a loss on `comm`. */
static struct outcome run_share(MPI_Comm comm, const struct batch *batch, const struct conr_options *options,
                                enum conr_precision precision, int64_t first, int64_t last, int weighted) {
  struct outcome outcome = {0};
  struct conr *conr;
  int64_t rows = last - first, features = batch->features, targets = batch->targets;
  void *feature = as_real(batch->feature, first * features, rows * features, precision);
  void *label = as_real(batch->label, first * targets, rows * targets, precision);
  void *prediction = as_real(batch->prediction, first * targets, rows * targets, precision);
  void *weight = as_real(batch->weight, first, rows, precision);
  void *grad = calloc((size_t)(rows * features) + 1, sizeof(double));
  struct conr_batch share = {.rows = rows,
                             .features = feature,
                             .labels = label,
                             .predictions = prediction,
                             .weights = weighted ? weight : NULL};
  outcome.failed = conr_create(comm, batch->features, batch->targets, precision, options, &conr);
  outcome.failed = outcome.failed || conr_loss(conr, &share, grad, &outcome.result);
  conr_destroy(&conr);
  outcome.grad = malloc((size_t)(rows * features) * sizeof(double) + 1);
  for (int64_t i = 0; i < rows * features; i++)
    outcome.grad[i] = precision == CONR_F32 ? (double)((float *)grad)[i] : ((double *)grad)[i];
  free(feature);
  free(label);
  free(prediction);
  free(weight);
  free(grad);
  return outcome;
}

static struct ref_batch as_ref(const struct batch *batch, int weighted) {
  return (struct ref_batch){.rows = batch->rows,
                            .features = batch->features,
                            .targets = batch->targets,
                            .feature = batch->feature,
                            .label = batch->label,
                            .prediction = batch->prediction,
                            .weight = weighted ? batch->weight : NULL};
}

/* Largest difference of rows first.. against a whole gradient, over its largest value. */
static double grad_error(const double *own, const double *whole, int64_t first, int64_t last, int64_t rows,
                         int64_t features) {
  double largest = 0, error = 0;
  for (int64_t i = 0; i < rows * features; i++)
    largest = fmax(largest, fabs(whole[i]));
  for (int64_t i = 0; i < (last - first) * features; i++) {
    double difference = fabs(own[i] - whole[first * features + i]);
    error = difference > error || isnan(difference) ? difference : error;
  }
  return largest > 0 ? error / largest : error;
}

static double loss_error(double got, double wanted) {
  return fabs(got - wanted) / fmax(fabs(wanted), 1e-12);
}

/* ---- equal ------------------------------------------------------------------------------------ */

/* One set of options: against the plain loops in float64, against one rank in float32. */
static void check_equal(const struct batch *batch, struct conr_options options, int weighted) {
  double *whole = malloc((size_t)(batch->rows * batch->features) * sizeof(double) + 1);
  struct ref_batch ref = as_ref(batch, weighted);
  double loss = ref_conr(&options, &ref, 0, whole);
  for (enum conr_path path = CONR_AUTO; path <= CONR_BANDED; path++) {
    options.path = path;
    struct outcome one = run_share(MPI_COMM_SELF, batch, &options, CONR_F32, 0, batch->rows, weighted);
    for (enum share share = SHARE_EVEN; share < SHARES; share++) {
      int64_t first = first_row(share, batch->rows, world_rank, world_size);
      int64_t last = first_row(share, batch->rows, world_rank + 1, world_size);
      struct outcome exact = run_share(MPI_COMM_WORLD, batch, &options, CONR_F64, first, last, weighted);
      struct outcome single = run_share(MPI_COMM_WORLD, batch, &options, CONR_F32, first, last, weighted);
      double error = loss_error(exact.result.loss, loss);
      expect(!exact.failed && error <= 1e-12, "float64 loss against plain loops", error, 1e-12);
      error = grad_error(exact.grad, whole, first, last, batch->rows, batch->features);
      expect(error <= 1e-11, "float64 gradient against plain loops", error, 1e-11);
      error = loss_error(single.result.loss, one.result.loss);
      expect(!single.failed && error <= 1e-6, "float32 loss against one rank", error, 1e-6);
      error = grad_error(single.grad, one.grad, first, last, batch->rows, batch->features);
      expect(error <= 1e-6, "float32 gradient against one rank", error, 1e-6);
      error = loss_error(single.result.loss, loss);
      expect(error <= 2e-5, "float32 loss against plain loops", error, 2e-5);
      error = grad_error(single.grad, whole, first, last, batch->rows, batch->features);
      expect(error <= 1e-4, "float32 gradient against plain loops", error, 1e-4);
      free(exact.grad);
      free(single.grad);
    }
    free(one.grad);
  }
  free(whole);
}

static void equal(void) {
  struct conr_options options;
  for (int targets = 1; targets <= 3; targets += 2) {
    struct batch batch = make_batch(targets == 1 ? 230 : 141, 19, targets, 7);
    for (enum conr_variant variant = CONR_PAPER; variant <= CONR_DEPTH; variant++)
      for (enum conr_distance distance = CONR_EUCLIDEAN; distance <= (targets > 1 ? CONR_CHEBYSHEV : CONR_EUCLIDEAN);
           distance++) {
        conr_options_default(&options);
        options.variant = variant;
        options.distance = distance;
        options.w = targets == 1 ? 2 : 1.6;
        options.t = variant == CONR_PAPER ? 0.07 : 0.2;
        check_equal(&batch, options, 1);
      }
    conr_options_default(&options);
    options.w = 2;
    options.aggregate = CONR_LOG_OF_MEAN;
    check_equal(&batch, options, 1);
    options.aggregate = CONR_MEAN_OF_LOG;
    options.outer_weights = 1;
    check_equal(&batch, options, 1);
    check_equal(&batch, options, 0);
    free_batch(&batch);
  }
}

/* ---- mutants ---------------------------------------------------------------------------------- */

/* A way to compute the own rows' loss and gradient of a shared batch. */
typedef double (*candidate)(const struct batch *batch, const struct conr_options *options, int64_t first, int64_t last,
                            double *grad);

static double candidate_conr(const struct batch *batch, const struct conr_options *options, int64_t first, int64_t last,
                             double *grad) {
  struct outcome outcome = run_share(MPI_COMM_WORLD, batch, options, CONR_F64, first, last, 1);
  memcpy(grad, outcome.grad, (size_t)((last - first) * batch->features) * sizeof *grad);
  free(outcome.grad);
  return outcome.result.loss;
}

/* Mistake 1: each rank contrasts its own rows only, and the losses are averaged. */
static double candidate_own_rank(const struct batch *batch, const struct conr_options *options, int64_t first,
                                 int64_t last, double *grad) {
  struct outcome outcome = run_share(MPI_COMM_SELF, batch, options, CONR_F64, first, last, 1);
  double loss = outcome.result.loss / world_size;
  for (int64_t i = 0; i < (last - first) * batch->features; i++)
    grad[i] = outcome.grad[i] / world_size;
  free(outcome.grad);
  MPI_Allreduce(MPI_IN_PLACE, &loss, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  return loss;
}

/* Mistake 2: features are gathered without gradient, so a row gets nothing as a column of others. */
static double candidate_rows_only(const struct batch *batch, const struct conr_options *options, int64_t first,
                                  int64_t last, double *grad) {
  struct ref_batch ref = as_ref(batch, 1);
  double *whole = malloc((size_t)(batch->rows * batch->features) * sizeof(double) + 1);
  double loss = ref_conr(options, &ref, 1, whole);
  memcpy(grad, whole + first * batch->features, (size_t)((last - first) * batch->features) * sizeof *grad);
  free(whole);
  return loss;
}

/* The judgement every candidate gets: 1 = accepted on all ranks. */
static int accepted(candidate compute, const struct batch *batch, const struct conr_options *options) {
  int64_t first = first_row(SHARE_EVEN, batch->rows, world_rank, world_size);
  int64_t last = first_row(SHARE_EVEN, batch->rows, world_rank + 1, world_size);
  double *whole = malloc((size_t)(batch->rows * batch->features) * sizeof(double) + 1);
  double *grad = calloc((size_t)((last - first) * batch->features) + 1, sizeof *grad);
  struct ref_batch ref = as_ref(batch, 1);
  double loss = ref_conr(options, &ref, 0, whole);
  double got = compute(batch, options, first, last, grad);
  int good =
      loss_error(got, loss) <= 1e-12 && grad_error(grad, whole, first, last, batch->rows, batch->features) <= 1e-11;
  free(whole);
  free(grad);
  MPI_Allreduce(MPI_IN_PLACE, &good, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
  return good;
}

static void mutants(void) {
  struct conr_options options;
  struct batch batch = make_batch(90, 12, 1, 11);
  for (enum conr_variant variant = CONR_PAPER; variant <= CONR_DEPTH; variant++) {
    conr_options_default(&options);
    options.variant = variant;
    options.w = 2;
    expect(accepted(candidate_conr, &batch, &options), "the real loss is accepted", 0, 1);
    expect(!accepted(candidate_rows_only, &batch, &options), "gather without the column part is rejected", 1, 0);
    if (world_size > 1)
      expect(!accepted(candidate_own_rank, &batch, &options), "own-rank negatives are rejected", 1, 0);
  }
  free_batch(&batch);
}

/* ---- finite differences ----------------------------------------------------------------------- */

static void differences(void) {
  struct conr_options options;
  struct batch batch = make_batch(70, 9, 1, 3);
  struct random_key key = random_key(5, RANDOM_TEST, 2);
  for (int form = 0; form < 4; form++) {
    conr_options_default(&options);
    options.w = 3;
    options.t = 0.3;
    options.variant = form == 1 ? CONR_REFERENCE : form == 2 ? CONR_DEPTH : CONR_PAPER;
    options.aggregate = form == 3 ? CONR_LOG_OF_MEAN : CONR_MEAN_OF_LOG;
    int64_t first = first_row(SHARE_EVEN, batch.rows, world_rank, world_size);
    int64_t last = first_row(SHARE_EVEN, batch.rows, world_rank + 1, world_size);
    struct outcome exact = run_share(MPI_COMM_WORLD, &batch, &options, CONR_F64, first, last, 1);
    for (uint64_t probe = 0; probe < 20; probe++) {
      int64_t at = (int64_t)(random_uniform(key, probe, 0) * (double)(batch.rows * batch.features));
      double kept = batch.feature[at], step = 1e-5, side[2];
      for (int i = 0; i < 2; i++) {
        batch.feature[at] = kept + (i ? step : -step);
        struct outcome moved = run_share(MPI_COMM_WORLD, &batch, &options, CONR_F64, first, last, 1);
        side[i] = moved.result.loss;
        free(moved.grad);
      }
      batch.feature[at] = kept;
      if (at < first * batch.features || at >= last * batch.features)
        continue;
      double slope = (side[1] - side[0]) / (2 * step), error = fabs(slope - exact.grad[at - first * batch.features]);
      expect(error <= 1e-8, "finite difference", error, 1e-8);
    }
    free(exact.grad);
  }
  free_batch(&batch);
}

/* ---- edges ------------------------------------------------------------------------------------- */

static void check_edge(const char *what, const struct batch *batch, const struct conr_options *options, int expect_zero,
                       double limit_f32) {
  struct ref_batch ref = as_ref(batch, 1);
  double *whole = malloc((size_t)(batch->rows * batch->features) * sizeof(double) + 1);
  double loss = ref_conr(options, &ref, 0, whole);
  int64_t first = first_row(SHARE_UNEVEN, batch->rows, world_rank, world_size);
  int64_t last = first_row(SHARE_UNEVEN, batch->rows, world_rank + 1, world_size);
  for (enum conr_precision precision = CONR_F32; precision <= CONR_F64; precision++) {
    struct outcome outcome = run_share(MPI_COMM_WORLD, batch, options, precision, first, last, 1);
    double limit = precision == CONR_F64 ? 1e-11 : limit_f32;
    double error = loss_error(outcome.result.loss, loss);
    expect(!outcome.failed, what, 1, 0);
    expect(error <= limit, what, error, limit);
    error = grad_error(outcome.grad, whole, first, last, batch->rows, batch->features);
    expect(error <= limit, what, error, limit);
    for (int64_t i = 0; expect_zero && i < (last - first) * batch->features; i++)
      expect(outcome.grad[i] == 0, what, outcome.grad[i], 0);
    expect(!expect_zero || outcome.result.loss == 0, what, outcome.result.loss, 0);
    free(outcome.grad);
  }
  free(whole);
}

static void edges(void) {
  struct conr_options options;
  conr_options_default(&options);
  for (int64_t rows = 0; rows <= 2; rows++) {
    struct batch tiny = make_batch(rows, 5, 1, 1);
    check_edge("0, 1 or 2 rows", &tiny, &options, 1, 0);
    free_batch(&tiny);
  }
  struct batch batch = make_batch(80, 6, 1, 2);
  options.w = 100;
  check_edge("all rows positive: no anchor", &batch, &options, 1, 0);
  options.w = 2;
  for (int k = 0; k < 6; k++)
    batch.feature[3 * 6 + k] = batch.feature[40 * 6 + k] = 0;
  check_edge("two rows of norm 0", &batch, &options, 0, 1e-4);
  batch.weight[5] = batch.weight[6] = 0;
  options.variant = CONR_REFERENCE;
  check_edge("weights of 0", &batch, &options, 0, 1e-4);
  free_batch(&batch);
  /* The wide form: exponents that float32 cannot shift by a constant.  At t = 0.005 similarities reach 200, where a
   * float32 rounding of the product is 1e-5 already. */
  batch = make_batch(120, 8, 1, 4);
  for (int variant = CONR_PAPER; variant <= CONR_DEPTH; variant++) {
    conr_options_default(&options);
    options.w = 2;
    options.variant = (enum conr_variant)variant;
    options.t = 0.005;
    check_edge("temperature 0.005", &batch, &options, 0, 1e-3);
    options.t = 0.002; /* float64 needs the wide form too */
    options.variant = CONR_PAPER;
    options.aggregate = variant == CONR_PAPER ? CONR_LOG_OF_MEAN : CONR_MEAN_OF_LOG;
    check_edge("temperature 0.002", &batch, &options, 0, 5e-3);
  }
  conr_options_default(&options);
  options.w = 2;
  options.e = 3; /* exp(3 * 60) is beyond float32 */
  check_edge("strong push", &batch, &options, 0, 1e-3);
  free_batch(&batch);
}

/* ---- a bad value on one rank ------------------------------------------------------------------- */

static void expect_sentence(const struct batch *batch, const struct conr_options *options, const char *part) {
  int64_t first = first_row(SHARE_EVEN, batch->rows, world_rank, world_size);
  int64_t last = first_row(SHARE_EVEN, batch->rows, world_rank + 1, world_size);
  struct outcome outcome = run_share(MPI_COMM_WORLD, batch, options, CONR_F32, first, last, 1);
  expect(outcome.failed && strstr(conr_error(), part) != NULL, part, 0, 0);
  if (!outcome.failed || strstr(conr_error(), part) == NULL)
    printf("  said: %s\n", conr_error());
  free(outcome.grad);
}

static void nonfinite(void) {
  struct conr_options options;
  char where[64];
  conr_options_default(&options);
  struct batch batch = make_batch(40, 6, 1, 9);
  int64_t first = first_row(SHARE_EVEN, 40, world_size - 1, world_size);
  snprintf(where, sizeof where, "row 2 on rank %d", world_size - 1);
  double *values[] = {&batch.feature[(first + 2) * 6 + 1], &batch.label[first + 2], &batch.prediction[first + 2],
                      &batch.weight[first + 2]};
  const double bad[] = {NAN, INFINITY, -INFINITY};
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
    double kept = *values[i];
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
      *values[i] = bad[k];
      expect_sentence(&batch, &options, where);
    }
    *values[i] = kept;
  }
  batch.weight[first + 2] = -0.5;
  expect_sentence(&batch, &options, "-0.5");
  free_batch(&batch);
}

/* ---- a batch that cannot be ---------------------------------------------------------------------- */

static void expect_fault(const char *what, const struct conr_batch *share, const char *part) {
  struct conr_options options;
  struct conr *conr;
  struct conr_result result;
  float grad[64];
  conr_options_default(&options);
  int failed = conr_create(MPI_COMM_WORLD, 2, 1, CONR_F32, &options, &conr);
  failed = failed || conr_loss(conr, share, grad, &result);
  expect(failed && strstr(conr_error(), part) != NULL, what, failed, 1);
  if (!failed || strstr(conr_error(), part) == NULL)
    printf("  said: %s\n", conr_error());
  conr_destroy(&conr);
}

static void faults(void) {
  float values[64] = {1, 2, 3, 4};
  int64_t rows_of_rank[64];
  int last = world_size - 1;
  char where[64];
  struct conr_batch share = {.rows = 3, .features = values, .labels = values, .predictions = values};
  snprintf(where, sizeof where, "rank %d brought NULL arrays", last);
  if (world_rank == last)
    share.features = NULL;
  expect_fault("features are NULL on the last rank", &share, where);
  share.features = values;
  for (int r = 0; r < world_size; r++)
    rows_of_rank[r] = r == last ? 4 : 3; /* the last rank brings 3 */
  share.rows_of_rank = rows_of_rank;
  expect_fault("rows_of_rank is wrong for the last rank", &share, where);
  rows_of_rank[last] = 0;
  expect_fault("rows_of_rank forgets the last rank", &share, where);
  share.rows_of_rank = NULL;
  share.rows = world_rank == last ? -1 : 3;
  expect_fault("a negative number of rows", &share, "-1 rows");
}

/* ---- wide label ranges, and many threads --------------------------------------------------------- */

/* Float32 against float64 on the same batch. */
static double single_error(const struct batch *batch, const struct conr_options *options) {
  int64_t first = first_row(SHARE_EVEN, batch->rows, world_rank, world_size);
  int64_t last = first_row(SHARE_EVEN, batch->rows, world_rank + 1, world_size);
  struct outcome exact = run_share(MPI_COMM_SELF, batch, options, CONR_F64, 0, batch->rows, 1);
  struct outcome single = run_share(MPI_COMM_WORLD, batch, options, CONR_F32, first, last, 1);
  double error = exact.failed || single.failed
                     ? INFINITY
                     : grad_error(single.grad, exact.grad, first, last, batch->rows, batch->features);
  free(exact.grad);
  free(single.grad);
  return error;
}

static void wide(void) {
  struct conr_options options;
  conr_options_default(&options);
  static const double spans[] = {1e4, 1e7};
  for (size_t s = 0; s < sizeof spans / sizeof *spans; s++) {
    double span = spans[s];
    struct batch batch = make_batch(200, 16, 1, 31);
    for (int64_t i = 0; i < batch.rows; i++) {
      batch.label[i] = floor(batch.label[i] / 80 * span);
      batch.prediction[i] = floor(batch.prediction[i] / 80 * span);
    }
    options.w = span / 40;
    options.e = 0.0078125; /* exact in float32 */
    double error = single_error(&batch, &options);
    expect(error <= 2e-6, "float32 gradient with a wide label range", error, 2e-6);
    options.e = 0.9 * 1e9; /* the push has no meaning any more */
    struct outcome refused = run_share(MPI_COMM_SELF, &batch, &options, CONR_F32, 0, batch.rows, 1);
    expect(refused.failed && strstr(conr_error(), "lower e") != NULL, "a push beyond all numbers", 0, 0);
    free(refused.grad);
    free_batch(&batch);
  }
}

static void threads(void) {
  struct conr_options options;
  conr_options_default(&options);
  options.w = 2;
  struct batch batch = make_batch(1400, 16, 1, 41);
  int64_t first = first_row(SHARE_UNEVEN, batch.rows, world_rank, world_size);
  int64_t last = first_row(SHARE_UNEVEN, batch.rows, world_rank + 1, world_size);
  for (int path = CONR_DENSE; path <= CONR_BANDED; path++)
    for (int tiny = 0; tiny < 2; tiny++) {
      struct outcome outcome[3];
      options.path = (enum conr_path)path;
      options.t = tiny ? 0.02 : 0.07; /* 0.02: the wide form in float32 */
      static const int counts[] = {1, 32, 32};
      for (int i = 0; i < 3; i++) {
        omp_set_num_threads(counts[i]);
        outcome[i] = run_share(MPI_COMM_WORLD, &batch, &options, CONR_F32, first, last, 1);
      }
      double error = grad_error(outcome[1].grad, outcome[0].grad, 0, last - first, last - first, batch.features);
      /* Sums are taken in pieces; their rounding passes through a cancellation that grows with 1/t. */
      double limit = 1e-6 * 0.07 / options.t;
      expect(error <= limit, "32 threads against 1", error, limit);
      size_t bytes = (size_t)((last - first) * batch.features) * sizeof(double);
      expect(memcmp(outcome[1].grad, outcome[2].grad, bytes) == 0, "32 threads twice: the same bits", 0, 0);
      for (int i = 0; i < 3; i++)
        free(outcome[i].grad);
    }
  free_batch(&batch);
}

/* ---- traffic and memory ------------------------------------------------------------------------ */

static void traffic(void) {
  struct conr_options options;
  conr_options_default(&options);
  for (int targets = 1; targets <= 2; targets++) {
    struct batch batch = make_batch(101, 13, targets, 9);
    int64_t first = first_row(SHARE_EVEN, 101, world_rank, world_size);
    int64_t last = first_row(SHARE_EVEN, 101, world_rank + 1, world_size);
    struct outcome outcome = run_share(MPI_COMM_WORLD, &batch, &options, CONR_F32, first, last, 1);
    int64_t others = 101 - (last - first), ranks = world_size - 1;
    /* Row counts (8 a rank); q, label, prediction, weight of the others' rows; two scalars of each, and six sums a
     * rank.  No feature gradient. */
    int64_t wanted = 8 * ranks + others * (13 + 2 * targets + 1) * 4 + others * 8 + ranks * 48;
    expect(outcome.result.bytes_received == wanted, "bytes received", (double)outcome.result.bytes_received,
           (double)wanted);
    free(outcome.grad);
    free_batch(&batch);
  }
}

/* Peak resident memory of this process, in bytes. */
static double peak_resident(void) {
  char line[256];
  double kilobytes = 0;
  FILE *file = fopen("/proc/self/status", "r");
  while (file && fgets(line, sizeof line, file))
    sscanf(line, "VmHWM: %lf", &kilobytes);
  if (file)
    fclose(file);
  return kilobytes * 1024;
}

static void memory(void) {
  struct conr_options options;
  conr_options_default(&options);
  const struct {
    int64_t rows;
    int features;
    int large; /* the 5 % hold where N x D dwarfs the row scalars */
  } sizes[] = {{4096, 512, 1}, {65536 / world_size, 128, 0}};
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
    int64_t rows = sizes[s].rows, own = rows / world_size;
    int features = sizes[s].features;
    float *feature = malloc((size_t)(own * features) * 4), *grad = malloc((size_t)(own * features) * 4);
    float *label = malloc((size_t)own * 4), *prediction = malloc((size_t)own * 4);
    struct random_key key = random_key(1, RANDOM_TEST, (uint64_t)world_rank);
    for (int64_t i = 0; i < own; i++) {
      label[i] = (float)floor(1000 * random_uniform(key, (uint64_t)i, 0)); /* narrow bands: quick */
      prediction[i] = label[i] + (float)random_normal(key, (uint64_t)i, 1) * 20;
      for (int k = 0; k < features; k++)
        feature[i * features + k] = (float)((i * 31 + k * 17) % 101) - 50;
    }
    for (int path = CONR_DENSE; path <= CONR_BANDED; path++) {
      struct conr *conr;
      struct conr_result result;
      if (path == CONR_DENSE && !sizes[s].large)
        continue;
      options.path = (enum conr_path)path;
      memory_peak_reset();
      size_t before = memory_in_use();
      struct conr_batch batch = {.rows = own, .features = feature, .labels = label, .predictions = prediction};
      int failed = conr_create(MPI_COMM_WORLD, features, 1, CONR_F32, &options, &conr);
      failed = failed || conr_loss(conr, &batch, grad, &result);
      double used = (double)(memory_peak() - before), matrix = (double)(own * world_size) * features * 4;
      double panel = (double)omp_get_max_threads() * (double)pairwise_workspace(F32, features);
      expect(!failed, "the loss runs", 1, 0);
      if (sizes[s].large)
        expect(used <= 1.05 * matrix + panel, "workspace beside N x D + panels + 5 %", used, 1.05 * matrix + panel);
      conr_destroy(&conr);
    }
    free(feature);
    free(grad);
    free(label);
    free(prediction);
  }
  expect(peak_resident() < 1e9, "resident memory with N = 65,536 and D = 128", peak_resident(), 1e9);
}

static void reuse(void) {
  struct conr_options options;
  conr_options_default(&options);
  options.w = 2;
  static const int64_t sizes[] = {40, 0, 120, 7, 200, 199};
  size_t before = memory_in_use();
  struct conr *conr;
  expect(conr_create(MPI_COMM_WORLD, 8, 1, CONR_F64, &options, &conr) == 0, "create", 0, 0);
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    struct batch batch = make_batch(sizes[i], 8, 1, 20 + i);
    struct ref_batch ref = as_ref(&batch, 0);
    int64_t first = first_row(SHARE_EVEN, batch.rows, world_rank, world_size);
    int64_t last = first_row(SHARE_EVEN, batch.rows, world_rank + 1, world_size);
    struct conr_batch share = {.rows = last - first,
                               .features = batch.feature + first * 8,
                               .labels = batch.label + first,
                               .predictions = batch.prediction + first};
    struct conr_result result;
    double loss = ref_conr(&options, &ref, 0, NULL);
    int failed = conr_loss(conr, &share, NULL, &result); /* the loss alone */
    expect(!failed && loss_error(result.loss, loss) <= 1e-12, "loss without gradient", result.loss, loss);
    free_batch(&batch);
  }
  conr_destroy(&conr);
  expect(memory_in_use() == before, "memory left", (double)memory_in_use(), (double)before);
}

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    void (*run)(void);
  } properties[] = {{"equal", equal},         {"mutants", mutants}, {"finite", differences}, {"edges", edges},
                    {"nonfinite", nonfinite}, {"traffic", traffic}, {"memory", memory},      {"reuse", reuse},
                    {"faults", faults},       {"wide", wide},       {"threads", threads}};
  int any, found = 0;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &world_rank);
  MPI_Comm_size(MPI_COMM_WORLD, &world_size);
  for (size_t i = 0; i < sizeof properties / sizeof *properties; i++)
    if (argc == 2 && strcmp(argv[1], properties[i].name) == 0) {
      found = 1;
      properties[i].run();
    }
  if (!found)
    fprintf(stderr, "usage: rank_conr equal|mutants|finite|edges|nonfinite|faults|wide|threads|traffic|memory|reuse\n");
  any = misfits + !found;
  MPI_Allreduce(MPI_IN_PLACE, &any, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return any != 0;
}
