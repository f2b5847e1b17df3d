/* The losses of a device against stored cases and against the host's.
 *
 *   rank_device_conr golden FILE.h5   every case, dense and banded, in f32, bf16 and (one rank) tf32; prints "golden ..."
 *   rank_device_conr equal            random batches: all variants, distances and forms against the host
 *   rank_device_conr edges            no rows, one row, rows of norm 0, weights of 0, calls of changing size
 *   rank_device_conr nonfinite        a bad value on one rank is one sentence on all
 *   rank_device_conr refused          rows that no batch can have, and a window that float32 does not hold
 *   rank_device_conr memory           N x D and one panel; a call of a size seen before takes nothing
 *   rank_device_conr paths            which path is taken, and what it evaluates
 *   rank_device_conr pieces           rows that come in pieces give the bits of the undivided batch, also as graphs
 *   rank_device_conr pointwise        regression losses and counts of values that are not finite; one rank is enough
 *
 * Without GPUs CONR_CUDA_LIBRARY names the emulation.  Ranks work on GPU number rank, modulo their number; gathers and
 * sums go by MPI, which lets them share one.  CONR_TEST_TRANSPORT=nccl takes NCCL. */
#include "dist/comm_device.h"
#include "dist/device_ops.h"
#include "dist/memory.h"
#include "dist/random.h"
#include "dist/replay.h"
#include "loss/loss_ops.h"
#include "tests/conr_cases.h"
#include "tests/rank_device.h"
#include "tests/rank_record.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct comm *host, *data;
static struct device *device;
static const struct loss_ops *losses;
static const char *const path_names[] = {"auto", "dense", "banded"};

/* ---- values of either type ----------------------------------------------------------------------------------- */

static uint16_t bf16_of(double value) {
  float single = (float)value;
  uint32_t bits;
  memcpy(&bits, &single, sizeof bits);
  if (isnan(single))
    return 0x7fc0;
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static double double_of(uint16_t value) {
  uint32_t bits = (uint32_t)value << 16;
  float single;
  memcpy(&single, &bits, sizeof single);
  return (double)single;
}

/* [count] of dtype on the device, copied from doubles. */
static void *to_device(enum dtype dtype, const double *values, int64_t count) {
  void *block, *staged;
  size_t bytes = (size_t)count * dtype_size(dtype);
  MUST(memory_alloc(bytes + 1, &staged));
  for (int64_t i = 0; i < count; i++)
    if (dtype == BF16)
      ((uint16_t *)staged)[i] = bf16_of(values[i]);
    else if (dtype == F32)
      ((float *)staged)[i] = (float)values[i];
    else
      ((double *)staged)[i] = values[i];
  MUST(device_alloc(device, bytes + 1, &block));
  MUST(device_copy(device, block, staged, bytes));
  MUST(device_wait(device));
  memory_free(&staged);
  return block;
}

static double *from_device(enum dtype dtype, const void *block, int64_t count) {
  void *staged;
  double *values = malloc((size_t)count * sizeof(double) + 1);
  size_t bytes = (size_t)count * dtype_size(dtype);
  MUST(memory_alloc(bytes + 1, &staged));
  MUST(device_copy(device, staged, block, bytes));
  MUST(device_wait(device));
  for (int64_t i = 0; i < count; i++)
    values[i] = dtype == BF16  ? double_of(((uint16_t *)staged)[i])
                : dtype == F32 ? (double)((float *)staged)[i]
                               : ((double *)staged)[i];
  memory_free(&staged);
  return values;
}

/* ---- one loss ------------------------------------------------------------------------------------------------- */

struct outcome {
  enum status status;
  struct conr_result result;
  double *grad; /* [own rows, features] */
};

/* Rows first .. of a case as this rank's share, on the device. */
static struct outcome run_device(struct conr_device *conr, enum precision precision, const struct conr_case *given,
                                 const int64_t *rows_of_rank, int64_t first, bool weighted, double coefficient) {
  struct outcome outcome = {0};
  enum dtype dtype = precision == PRECISION_BF16 ? BF16 : F32;
  int64_t rows = rows_of_rank[record.rank], features = given->features, targets = given->targets;
  void *f = to_device(dtype, given->feature.data + first * features, rows * features);
  void *y = to_device(F32, given->label.data + first * targets, rows * targets);
  void *p = to_device(F32, given->prediction.data + first * targets, rows * targets);
  void *w = to_device(F32, given->weight.data + first, rows), *grad;
  MUST(device_alloc(device, (size_t)(rows * features) * dtype_size(dtype) + 1, &grad));
  struct conr_batch batch = {.rows = rows,
                             .features = f,
                             .labels = y,
                             .predictions = p,
                             .weights = weighted ? w : NULL,
                             .rows_of_rank = rows_of_rank};
  MUST(losses->conr_loss(conr, &batch, coefficient, grad));
  outcome.status = losses->conr_result(conr, &outcome.result);
  outcome.grad = from_device(dtype, grad, rows * features);
  void *blocks[] = {f, y, p, w, grad};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
    device_free(device, &blocks[i]);
  return outcome;
}

/* A loss of its own for one batch. */
static struct outcome run_once(enum precision precision, const struct conr_case *given, enum conr_path path,
                               const int64_t *rows_of_rank, int64_t first, bool weighted, double coefficient) {
  struct conr_options options = given->options;
  struct conr_device *conr;
  options.path = path;
  MUST(losses->conr_create(device, data, precision, given->features, given->targets, &options, &conr));
  struct outcome outcome = run_device(conr, precision, given, rows_of_rank, first, weighted, coefficient);
  losses->conr_destroy(&conr);
  return outcome;
}

/* Largest difference over the largest gradient of the whole batch. */
static double grad_error(const double *own, const double *whole, double factor, int64_t from, int64_t count,
                         int64_t all) {
  double largest = 0, error = 0;
  for (int64_t i = 0; i < all; i++)
    largest = fmax(largest, fabs(factor * whole[i]));
  for (int64_t i = 0; i < count; i++) {
    double difference = fabs(own[i] - factor * whole[from + i]);
    error = difference > error || isnan(difference) ? difference : error;
  }
  return largest > 0 ? error / largest : error;
}

/* ---- stored cases --------------------------------------------------------------------------------------------- */

static void check_stored(const struct conr_case *stored, const char *name, enum precision precision,
                         enum conr_path path, enum share share) {
  int64_t rows_of_rank[64], first = conr_share(share, stored->rows, record.rank, record.size, rows_of_rank);
  bool exact = precision == PRECISION_F32;
  double loss_limit = exact ? 2e-5 : 2e-2, grad_limit = exact ? 1e-4 : 5e-2;
  struct outcome outcome = run_once(precision, stored, path, rows_of_rank, first, true, 1);
  EXPECT_OK(outcome.status);
  double loss_error = golden_scalar_error(outcome.result.loss, stored->loss);
  double error = grad_error(outcome.grad, stored->grad.data, 1, first * stored->features,
                            rows_of_rank[record.rank] * stored->features, stored->grad.count);
  EXPECT(loss_error <= loss_limit && error <= grad_limit,
         "%s %s %s, %s: loss error %g (limit %g), gradient error %g (limit %g)", name, precision_name(precision),
         path_names[path], share_names[share], loss_error, loss_limit, error, grad_limit);
  EXPECT(outcome.result.path == path || rows_of_rank[record.rank] == 0, "%s: path %d", name, (int)outcome.result.path);
  free(outcome.grad);
}

static void golden(const char *name) {
  static const enum precision precisions[] = {PRECISION_F32, PRECISION_BF16, PRECISION_TF32};
  struct golden_file *file = golden_open(name);
  for (int i = 0; i < golden_case_count(file); i++) {
    struct conr_case stored = conr_case_load(file, golden_case_name(file, i));
    for (int p = 0; p < (record.size == 1 ? 3 : 2); p++)
      for (enum conr_path path = CONR_DENSE; path <= CONR_BANDED; path++)
        for (enum share share = SHARE_EVEN; share < (record.size > 1 ? SHARES : SHARE_UNEVEN); share++)
          check_stored(&stored, golden_case_name(file, i), precisions[p], path, share);
    conr_case_free(&stored);
    golden_ran(file);
  }
  if (record.rank == 0)
    golden_report(file);
  golden_close(&file);
}

/* ---- against the host ----------------------------------------------------------------------------------------- */

/* The whole batch by the host in float64, on every rank. */
static double host_loss(const struct conr_case *given, bool weighted, struct conr_result *result, double *grad) {
  struct conr *conr;
  struct conr_batch batch = {.rows = given->rows,
                             .features = given->feature.data,
                             .labels = given->label.data,
                             .predictions = given->prediction.data,
                             .weights = weighted ? given->weight.data : NULL};
  MUST_HOLD(conr_create(MPI_COMM_SELF, given->features, given->targets, CONR_F64, &given->options, &conr) == 0);
  MUST_HOLD(conr_loss(conr, &batch, grad, result) == 0);
  conr_destroy(&conr);
  return result->loss;
}

static void check_against_host(const struct conr_case *given, const char *what, bool weighted, double limit) {
  int64_t rows_of_rank[64], count = given->rows * given->features;
  double *whole = malloc((size_t)count * sizeof(double) + 1), factor = 0.375;
  struct conr_result wanted;
  host_loss(given, weighted, &wanted, whole);
  for (enum conr_path path = CONR_DENSE; path <= CONR_BANDED; path++) {
    enum share share = path == CONR_DENSE ? SHARE_EVEN : SHARE_UNEVEN;
    int64_t first = conr_share(share, given->rows, record.rank, record.size, rows_of_rank);
    struct outcome outcome = run_once(PRECISION_F32, given, path, rows_of_rank, first, weighted, factor);
    EXPECT_OK(outcome.status);
    double loss_error = golden_scalar_error(outcome.result.loss, wanted.loss);
    double error = grad_error(outcome.grad, whole, factor, first * given->features,
                              rows_of_rank[record.rank] * given->features, count);
    EXPECT(loss_error <= limit && error <= limit, "%s, %s: loss error %g, gradient error %g (limit %g)", what,
           path_names[path], loss_error, error, limit);
    EXPECT(outcome.result.positive_pairs == wanted.positive_pairs &&
               outcome.result.negative_pairs == wanted.negative_pairs &&
               outcome.result.active_anchors == wanted.active_anchors && outcome.result.rows == wanted.rows &&
               outcome.result.zero_rows == wanted.zero_rows,
           "%s, %s: %lld positive pairs, %lld negative, %lld active, %lld zero; wanted %lld, %lld, %lld, %lld", what,
           path_names[path], (long long)outcome.result.positive_pairs, (long long)outcome.result.negative_pairs,
           (long long)outcome.result.active_anchors, (long long)outcome.result.zero_rows,
           (long long)wanted.positive_pairs, (long long)wanted.negative_pairs, (long long)wanted.active_anchors,
           (long long)wanted.zero_rows);
    free(outcome.grad);
  }
  free(whole);
}

/* Float32 similarities have an error of about 6e-8 / t, which the exponential multiplies. */
static double limit_at(double t) {
  return 2e-5 * fmax(1, 0.07 / t);
}

static void equal(void) {
  for (int targets = 1; targets <= 3; targets += 2) {
    struct conr_case given = conr_case_random(101, 21, targets, 5, 3 + (uint64_t)targets);
    for (int variant = CONR_PAPER; variant <= CONR_DEPTH; variant++)
      for (int distance = CONR_EUCLIDEAN; distance <= (targets == 1 ? CONR_EUCLIDEAN : CONR_CHEBYSHEV); distance++)
        for (int form = 0; form < 3; form++) { /* shifted, wide, and wide by the labels' span */
          char what[96];
          if (targets > 1 && form != (variant + distance) % 3)
            continue;
          snprintf(what, sizeof what, "variant %d, distance %d, form %d, %d targets", variant, distance, form, targets);
          given.options.variant = (enum conr_variant)variant;
          given.options.distance = (enum conr_distance)distance;
          given.options.w = targets == 1 ? 2 : 3;
          given.options.t = form == 1 ? 0.01 : 0.07;
          given.options.e = form == 2 ? 2 : 0.0625;
          given.options.aggregate = variant == CONR_PAPER && form != 1 ? CONR_LOG_OF_MEAN : CONR_MEAN_OF_LOG;
          given.options.outer_weights = variant == CONR_PAPER && form != 0;
          check_against_host(&given, what, variant != CONR_REFERENCE || form != 0, limit_at(given.options.t));
        }
    conr_case_free(&given);
  }
  struct conr_case large = conr_case_random(500, 40, 1, 4, 77); /* several panels of a band */
  check_against_host(&large, "500 rows", true, limit_at(0.07));
  conr_case_free(&large);
  struct conr_case wide = conr_case_random(1100, 4, 1, 4, 78); /* more than a wide kernel's grid takes at once */
  wide.options.t = 0.01;
  check_against_host(&wide, "1100 rows, wide", true, limit_at(0.01));
  conr_case_free(&wide);
}

/* One loss for all: what an earlier call left in its memory is no part of a later one's result. */
static void changing_sizes(enum conr_path path) {
  static const int64_t sizes[] = {40, 0, 130, 1, 2, 200, 199};
  struct conr_device *conr;
  struct conr_options options;
  conr_options_default(&options);
  options.w = 2;
  options.path = path;
  MUST(losses->conr_create(device, data, PRECISION_F32, 8, 1, &options, &conr));
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    struct conr_case given = conr_case_random(sizes[i], 8, 1, 5, 20 + i);
    struct conr_result wanted;
    int64_t rows_of_rank[64], first = conr_share(SHARE_EVEN, sizes[i], record.rank, record.size, rows_of_rank);
    double *whole = malloc((size_t)(sizes[i] * 8) * sizeof(double) + 1);
    given.options.w = 2;
    host_loss(&given, true, &wanted, whole);
    struct outcome outcome = run_device(conr, PRECISION_F32, &given, rows_of_rank, first, true, 1);
    double error = grad_error(outcome.grad, whole, 1, first * 8, rows_of_rank[record.rank] * 8, sizes[i] * 8);
    EXPECT_OK(outcome.status);
    EXPECT(golden_scalar_error(outcome.result.loss, wanted.loss) <= 2e-5 && error <= 1e-4,
           "%lld rows, %s: loss %g, wanted %g; gradient error %g", (long long)sizes[i], path_names[path],
           outcome.result.loss, wanted.loss, error);
    free(outcome.grad);
    free(whole);
    conr_case_free(&given);
  }
  losses->conr_destroy(&conr);
}

static void edges(void) {
  changing_sizes(CONR_DENSE);
  changing_sizes(CONR_BANDED);
  struct conr_case given = conr_case_random(80, 6, 1, 5, 2);
  given.options.w = 2;
  for (int k = 0; k < 6; k++)
    given.feature.data[3 * 6 + k] = given.feature.data[40 * 6 + k] = 0;
  given.options.variant = CONR_REFERENCE;
  check_against_host(&given, "two rows of norm 0", true, 2e-5);
  given.weight.data[5] = given.weight.data[6] = 0;
  check_against_host(&given, "weights of 0", true, 2e-5);
  given.options.t = 0.01;
  check_against_host(&given, "weights of 0, wide", true, limit_at(0.01));
  given.options.w = 100;
  check_against_host(&given, "all rows positive: no anchor", true, 2e-5);
  conr_case_free(&given);
}

/* ---- a bad value on one rank ----------------------------------------------------------------------------------- */

static void expect_sentence(const struct conr_case *given, enum precision precision, enum conr_path path,
                            const char *part) {
  int64_t rows_of_rank[64], first = conr_share(SHARE_EVEN, given->rows, record.rank, record.size, rows_of_rank);
  struct outcome outcome = run_once(precision, given, path, rows_of_rank, first, true, 1);
  EXPECT(outcome.status == ERR_NUMERIC && strstr(status_message(), part) != NULL && status_agreed(),
         "wanted \"%s\", status %d: %s", part, (int)outcome.status, status_message());
  free(outcome.grad);
}

static void nonfinite(void) {
  struct conr_case given = conr_case_random(40, 6, 1, 5, 9);
  int64_t rows_of_rank[64], first = conr_share(SHARE_EVEN, 40, record.size - 1, record.size, rows_of_rank);
  char where[64];
  snprintf(where, sizeof where, "row 2 on rank %d", record.size - 1);
  double *values[] = {&given.feature.data[(first + 2) * 6 + 1], &given.label.data[first + 2],
                      &given.prediction.data[first + 2], &given.weight.data[first + 2]};
  static const double bad[] = {NAN, INFINITY, -INFINITY};
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
    double kept = *values[i];
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
      *values[i] = bad[k];
      expect_sentence(&given, PRECISION_F32, CONR_DENSE, where);
      expect_sentence(&given, PRECISION_BF16, CONR_BANDED, where);
    }
    *values[i] = kept;
  }
  given.weight.data[first + 2] = -0.5;
  expect_sentence(&given, PRECISION_F32, CONR_DENSE, "-0.5");
  given.weight.data[first + 2] = 1;
  given.options.e = 1e9;
  expect_sentence(&given, PRECISION_F32, CONR_DENSE, "lower e");
  conr_case_free(&given);
}

/* Rows that no batch can have are the same sentence on all ranks; a window beyond float32 is refused before. */
static void refused(void) {
  static const int64_t counts[] = {-1, INT32_MAX};
  static const char *const parts[] = {"gives -1 rows", "too large"};
  struct conr_options options;
  struct conr_device *conr;
  conr_options_default(&options);
  MUST(losses->conr_create(device, data, PRECISION_F32, 8, 1, &options, &conr));
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    int64_t rows_of_rank[64] = {0};
    rows_of_rank[record.size - 1] = counts[i];
    struct conr_batch batch = {.rows = rows_of_rank[record.rank], .rows_of_rank = rows_of_rank};
    enum status status = losses->conr_loss(conr, &batch, 1, NULL);
    EXPECT(status == ERR_ARGUMENT && strstr(status_message(), parts[i]) != NULL && status_agreed(),
           "wanted \"%s\", status %d: %s", parts[i], (int)status, status_message());
  }
  losses->conr_destroy(&conr);
  options.w = 1e39;
  enum status status = losses->conr_create(device, data, PRECISION_F32, 8, 1, &options, &conr);
  EXPECT(status == ERR_ARGUMENT && strstr(status_message(), "w is 1e+39") != NULL && conr == NULL, "status %d: %s",
         (int)status, status_message());
}

/* ---- memory and paths ------------------------------------------------------------------------------------------ */

static void memory(void) {
  const int64_t rows = 1024;
  const int features = 384;
  for (enum precision precision = PRECISION_F32; precision <= PRECISION_BF16; precision += 2)
    for (enum conr_path path = CONR_DENSE; path <= CONR_BANDED; path++) {
      struct conr_case given = conr_case_random(rows, features, 1, 3, 8);
      int64_t rows_of_rank[64], first = conr_share(SHARE_EVEN, rows, record.rank, record.size, rows_of_rank);
      struct conr_device *conr;
      given.options.path = path;
      size_t before = device_bytes(device), element = precision == PRECISION_BF16 ? 2 : 4;
      MUST(losses->conr_create(device, data, precision, features, 1, &given.options, &conr));
      size_t products = device_bytes(device) - before;
      struct outcome outcome = run_device(conr, precision, &given, rows_of_rank, first, true, 1);
      EXPECT_OK(outcome.status);
      size_t used = device_bytes(device) - before - products, own = (size_t)rows_of_rank[record.rank];
      size_t most_own = ((size_t)rows + (size_t)record.size - 1) / (size_t)record.size;
      size_t panel_rows = (most_own + 127) / 128 * 128;
      size_t matrix = (size_t)rows * (size_t)features * element, row = (size_t)features * 4;
      size_t panel = panel_rows * (size_t)rows * (element == 2 ? 6 : 4) + most_own * row;
      size_t limit = matrix + panel + 128 * (size_t)rows;
      if (path == CONR_BANDED) /* sorted rows, the rows of a panel, float32 sums of the own gradient; orders */
        limit += matrix + most_own * (size_t)features * element + most_own * row + 128 * (size_t)rows + 65536;
      EXPECT(used <= limit, "%s: %zu bytes beside a limit of %zu", path_names[path], used, limit);
      double product = 2.0 * (double)own * (double)(rows * features); /* the gradient finds its similarities there */
      EXPECT(path == CONR_BANDED || outcome.result.gemm_flops == 2 * product, "%g operations, wanted %g",
             outcome.result.gemm_flops, 2 * product);
      EXPECT(outcome.result.gather_seconds > 0 && outcome.result.gather_seconds < 60, "%g s in gathers",
             outcome.result.gather_seconds);
      EXPECT(outcome.result.workspace_bytes <= used + products, "it says %zu of %zu bytes",
             outcome.result.workspace_bytes, used + products);
      free(outcome.grad);
      size_t kept = device_bytes(device), kept_host = memory_in_use();
      outcome = run_device(conr, precision, &given, rows_of_rank, first, true, 1);
      EXPECT(device_bytes(device) == kept && memory_in_use() == kept_host, "a second call took memory");
      free(outcome.grad);
      losses->conr_destroy(&conr);
      EXPECT(conr == NULL && device_bytes(device) == before, "%zu bytes are left", device_bytes(device) - before);
      conr_case_free(&given);
    }
}

/* A batch that is large enough to plan, once with narrow bands and once with predictions that are all the same. */
static void paths(void) {
  for (int collapsed = 0; collapsed < 2; collapsed++) {
    struct conr_case given = conr_case_random(4096, 4, 1, 1, 31);
    struct conr_result wanted;
    int64_t rows_of_rank[64], first = conr_share(SHARE_EVEN, given.rows, record.rank, record.size, rows_of_rank);
    for (int64_t i = 0; collapsed && i < given.rows; i++)
      given.prediction.data[i] = 50;
    double *whole = malloc((size_t)(given.rows * given.features) * sizeof(double));
    host_loss(&given, true, &wanted, whole);
    struct outcome outcome = run_once(PRECISION_F32, &given, CONR_AUTO, rows_of_rank, first, true, 1);
    EXPECT_OK(outcome.status);
    double error = grad_error(outcome.grad, whole, 1, first * given.features,
                              rows_of_rank[record.rank] * given.features, given.rows * given.features);
    EXPECT(golden_scalar_error(outcome.result.loss, wanted.loss) <= 2e-5 && error <= 1e-4, "gradient error %g", error);
    enum conr_path path = collapsed ? CONR_DENSE : CONR_BANDED;
    EXPECT(outcome.result.path == path &&
               (collapsed ? outcome.result.computed_share == 1 : outcome.result.computed_share < 0.6),
           "the path is %s and evaluates %g of the pairs", path_names[outcome.result.path],
           outcome.result.computed_share);
    int64_t others = given.rows - rows_of_rank[record.rank];
    EXPECT(outcome.result.bytes_received == others * (8 * 4 + 3 * 4 + 16), "%lld bytes received",
           (long long)outcome.result.bytes_received);
    free(outcome.grad);
    free(whole);
    conr_case_free(&given);
  }
}

/* ---- pieces ---------------------------------------------------------------------------------------------------- */

/* One batch, whose rows are `views` views of samples, each in `pieces` pieces. */
struct cut {
  struct conr_device *conr;
  struct conr_batch batch;
  const int64_t *samples_of_rank;
  size_t row_bytes; /* of features */
  int views, pieces;
  bool lends;
  void *room, *grad; /* [rows, features] */
};

/* What lies in the arrays of a piece is overwritten as soon as it is added, as by the network's next pass. */
static enum status add_piece(const struct cut *cut, int piece, int view) {
  const struct conr_batch *batch = &cut->batch;
  int64_t block_of_rank[64], first_of_rank[64];
  for (int rank = 0; rank < record.size; rank++) {
    int64_t samples = cut->samples_of_rank[rank], begin = samples * piece / cut->pieces;
    first_of_rank[rank] = view * samples + begin;
    block_of_rank[rank] = samples * (piece + 1) / cut->pieces - begin;
  }
  int64_t first = first_of_rank[record.rank];
  struct conr_batch block = {.rows = block_of_rank[record.rank],
                             .features = cut->room,
                             .labels = (const float *)batch->labels + first,
                             .predictions = (const float *)batch->predictions + first,
                             .weights = (const float *)batch->weights + first,
                             .rows_of_rank = block_of_rank};
  TRY(device_copy(device, cut->room, (const char *)batch->features + (size_t)first * cut->row_bytes,
                  (size_t)block.rows * cut->row_bytes));
  TRY(losses->conr_add(cut->conr, &block, first_of_rank));
  memset(block_of_rank, -1, sizeof block_of_rank);
  memset(first_of_rank, -1, sizeof first_of_rank);
  TRY(device_zero(device, cut->room, (size_t)batch->rows * cut->row_bytes));
  for (int i = 0; i < record.rank; i++)
    TRY(losses->conr_progress(cut->conr));
  return STATUS_OK;
}

static enum status queue_pieces(void *context) {
  const struct cut *cut = context;
  TRY(losses->conr_begin(cut->conr, &cut->batch, cut->pieces * cut->views, cut->lends));
  for (int piece = 0; piece < cut->pieces; piece++)
    for (int view = 0; view < cut->views; view++)
      TRY(add_piece(cut, piece, view));
  return losses->conr_finish(cut->conr, 0.5, cut->batch.features, cut->grad);
}

/* Those who borrow get the rows of all ranks as they were added. */
static void check_lent(const struct cut *cut, const struct conr_case *given, enum dtype dtype, const char *what) {
  struct lent_rows lent = losses->conr_lent(cut->conr);
  EXPECT(lent.there == cut->lends, "%s: rows are lent: %d", what, lent.there);
  if (!cut->lends)
    return;
  double *z = from_device(dtype, lent.z, given->rows * lent.stride);
  double *labels = from_device(F32, lent.labels, given->rows * lent.label_stride);
  for (int64_t row = 0; row < given->rows; row++) {
    EXPECT(labels[row * lent.label_stride] == (double)(float)given->label.data[row], "%s: the label of row %lld is %g",
           what, (long long)row, labels[row * lent.label_stride]);
    for (int k = 0; k < given->features; k++) {
      double wanted = given->feature.data[row * given->features + k], got = z[row * lent.stride + k];
      EXPECT(got == (dtype == BF16 ? double_of(bf16_of(wanted)) : (double)(float)wanted),
             "%s: feature %d of row %lld is %g, and %g was added", what, k, (long long)row, got, wanted);
    }
  }
  free(z);
  free(labels);
}

/* In one piece and in four, lent and not, by turns: each is called, kept, and launched, and makes what was kept before
 * stale where it takes memory. */
static void check_cuts(struct cut *cut, const char *what, const struct conr_result *whole,
                       const struct conr_case *given, enum dtype dtype, int64_t count) {
  static const struct {
    int pieces, lends;
  } ways[] = {{1, 0}, {1, 0}, {4, 0}, {4, 0}, {4, 1}, {4, 1}, {1, 1}, {1, 1}, {1, 0}, {1, 0}};
  enum { TIMES = sizeof ways / sizeof *ways, LAUNCHED = 5 };
  double *wanted = from_device(dtype, cut->grad, count);
  struct conr_result result;
  struct replays *replays;
  MUST(replays_create(device, &replays));
  for (int time = 0; time < TIMES; time++) {
    MUST(device_zero(device, cut->grad, (size_t)count * dtype_size(dtype)));
    cut->pieces = ways[time].pieces;
    cut->lends = ways[time].lends;
    EXPECT_OK(replay_run(replays, &ways[time], sizeof *ways, queue_pieces, cut));
    EXPECT_OK(losses->conr_result(cut->conr, &result));
    double *got = from_device(dtype, cut->grad, count);
    EXPECT(result.loss == whole->loss && memcmp(got, wanted, (size_t)count * sizeof *got) == 0,
           "%s, %d views in %d pieces, time %d: loss %.17g, undivided %.17g, or other gradients", what, cut->views,
           cut->pieces, time, result.loss, whole->loss);
    EXPECT(result.bytes_received == whole->bytes_received, "%lld bytes, undivided %lld",
           (long long)result.bytes_received, (long long)whole->bytes_received);
    EXPECT(result.gather_seconds >= 0 && result.gather_seconds < 60, "%g s in gathers", result.gather_seconds);
    check_lent(cut, given, dtype, what);
    free(got);
  }
  EXPECT(replays_launches(replays) >= LAUNCHED, "%lld graphs", (long long)replays_launches(replays));
  replays_destroy(&replays);
  free(wanted);
}

static void check_in_pieces(const struct conr_case *given, enum precision precision, enum conr_path path,
                            enum share share, int views) {
  int64_t samples_of_rank[64], rows_of_rank[64];
  int64_t first = views * conr_share(share, given->rows / views, record.rank, record.size, samples_of_rank);
  int64_t rows = views * samples_of_rank[record.rank], count = rows * given->features;
  enum dtype dtype = precision == PRECISION_BF16 ? BF16 : F32;
  struct conr_options options = given->options;
  struct conr_result whole;
  struct conr_device *conr;
  char what[64];
  for (int rank = 0; rank < record.size; rank++)
    rows_of_rank[rank] = views * samples_of_rank[rank];
  options.path = path;
  MUST(losses->conr_create(device, data, precision, given->features, 1, &options, &conr));
  void *blocks[] = {to_device(dtype, given->feature.data + first * given->features, count),
                    to_device(F32, given->label.data + first, rows),
                    to_device(F32, given->prediction.data + first, rows),
                    to_device(F32, given->weight.data + first, rows),
                    to_device(dtype, given->feature.data, count),
                    to_device(dtype, given->feature.data, count)};
  struct conr_batch batch = {.rows = rows,
                             .features = blocks[0],
                             .labels = blocks[1],
                             .predictions = blocks[2],
                             .weights = blocks[3],
                             .rows_of_rank = rows_of_rank};
  EXPECT_OK(losses->conr_loss(conr, &batch, 0.5, blocks[4]));
  EXPECT_OK(losses->conr_result(conr, &whole));
  struct cut cut = {.conr = conr,
                    .batch = batch,
                    .samples_of_rank = samples_of_rank,
                    .row_bytes = (size_t)given->features * dtype_size(dtype),
                    .views = views,
                    .room = blocks[5],
                    .grad = blocks[4]};
  snprintf(what, sizeof what, "%s %s, %s", precision_name(precision), path_names[path], share_names[share]);
  check_cuts(&cut, what, &whole, given, dtype, count);
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
    device_free(device, &blocks[i]);
  losses->conr_destroy(&conr);
}

static void pieces(void) {
  struct conr_case given = conr_case_random(96, 21, 1, 5, 51);
  given.options.w = 2;
  for (enum precision precision = PRECISION_F32; precision <= PRECISION_BF16; precision += 2)
    for (enum conr_path path = CONR_DENSE; path <= CONR_BANDED; path++)
      for (enum share share = SHARE_EVEN; share < SHARES; share++)
        check_in_pieces(&given, precision, path, share, 1 + (int)(share + path) % 3);
  conr_case_free(&given);
}

/* ---- pointwise ------------------------------------------------------------------------------------------------- */

static void check_regression(const struct regression *loss, int64_t rows, int targets, bool weighted) {
  struct random_key key = random_key(5, RANDOM_TEST, (uint64_t)rows);
  int64_t count = rows * targets;
  float *pred = malloc((size_t)count * 4 + 1), *target = malloc((size_t)count * 4 + 1);
  float *weight = malloc((size_t)rows * 4 + 1), *wanted = malloc((size_t)count * 4 + 1);
  double value, start = 0.5;
  for (int64_t i = 0; i < count; i++) {
    target[i] = (float)(3 * random_normal(key, 0, (uint64_t)i));
    pred[i] = i % 11 == 0 ? target[i] : target[i] + (float)random_normal(key, 1, (uint64_t)i);
  }
  for (int64_t i = 0; i < rows; i++)
    weight[i] = (float)(0.1 + 2 * random_uniform(key, 2, (uint64_t)i));
  regression_loss(loss, F32, rows, targets, pred, target, weighted ? weight : NULL, rows + 5, wanted, &value);
  void *blocks[5];
  const void *sources[] = {pred, target, weight, NULL, &start};
  const int64_t sizes[] = {count * 4, count * 4, rows * 4, count * 4, 8};
  for (int i = 0; i < 5; i++) {
    MUST(device_alloc(device, (size_t)sizes[i] + 1, &blocks[i]));
    if (sources[i] != NULL)
      MUST(device_copy(device, blocks[i], sources[i], (size_t)sizes[i]));
  }
  MUST(losses->regression(loss, rows, targets, blocks[0], blocks[1], weighted ? blocks[2] : NULL, rows + 5, blocks[3],
                          blocks[4]));
  double *grad = from_device(F32, blocks[3], count), *sum = from_device(F64, blocks[4], 1);
  EXPECT(fabs(sum[0] - start - value) <= 1e-13 * fmax(1, value), "%s: %.17g, wanted %.17g", regression_name(loss->kind),
         sum[0] - start, value);
  for (int64_t i = 0; i < count; i++)
    EXPECT(fabs(grad[i] - (double)wanted[i]) <= 2e-7 * fabs((double)wanted[i]), "%s: gradient %lld is %g, wanted %g",
           regression_name(loss->kind), (long long)i, grad[i], (double)wanted[i]);
  for (int i = 0; i < 5; i++)
    device_free(device, &blocks[i]);
  free(pred);
  free(target);
  free(weight);
  free(wanted);
  free(grad);
  free(sum);
}

static void check_count(enum dtype dtype, int64_t count) {
  double *values = malloc((size_t)count * 8 + 1), start = 3;
  for (int64_t i = 0; i < count; i++)
    values[i] = i % 97 == 3 ? NAN : i % 89 == 5 ? (i % 2 ? INFINITY : -INFINITY) : i % 7 == 0 ? 3e38 : (double)i;
  double wanted = start;
  for (int64_t i = 0; i < count; i++)
    wanted += !isfinite(values[i]);
  void *x = to_device(dtype, values, count), *found = to_device(F64, &start, 1);
  MUST(losses->count_nonfinite(dtype, count, x, found));
  double *got = from_device(F64, found, 1);
  EXPECT(got[0] == wanted, "%s: %g of %lld, wanted %g", dtype_name(dtype), got[0], (long long)count, wanted);
  device_free(device, &x);
  device_free(device, &found);
  free(values);
  free(got);
}

static void pointwise(void) {
  static const struct regression kinds[] = {
      {.kind = REGRESSION_L1},
      {.kind = REGRESSION_MSE},
      {.kind = REGRESSION_HUBER, .beta = 0.7},
      {.kind = REGRESSION_FOCAL_L1, .beta = 0.2, .gamma = 1, .activation = FOCAL_SIGMOID},
      {.kind = REGRESSION_FOCAL_L1, .beta = 1, .gamma = 0.5, .activation = FOCAL_TANH},
      {.kind = REGRESSION_FOCAL_MSE, .beta = 0.2, .gamma = 2, .activation = FOCAL_TANH}};
  static const int64_t rows[] = {0, 1, 300, 70000};
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
    for (size_t i = 0; i < sizeof rows / sizeof *rows - (k > 0); i++)
      for (int targets = 1; targets <= 3; targets += 2)
        check_regression(&kinds[k], rows[i], targets, targets == 3 || k % 2 == 0);
  for (enum dtype dtype = F32; dtype <= BF16; dtype += BF16)
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
      check_count(dtype, rows[i]);
}

/* ---------------------------------------------------------------------------------------------------------------- */

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    void (*run)(void);
  } properties[] = {{"equal", equal},   {"edges", edges}, {"nonfinite", nonfinite}, {"refused", refused},
                    {"memory", memory}, {"paths", paths}, {"pieces", pieces},       {"pointwise", pointwise}};
  const char *what = argc > 1 ? argv[1] : "";
  bool found = argc > 2 && strcmp(what, "golden") == 0;
  rank_record_begin(&argc, &argv);
  record.name = what;
  rank_device_begin(&host, &device, &data, &losses);
  if (found)
    golden(argv[2]);
  for (size_t i = 0; i < sizeof properties / sizeof *properties; i++)
    if (strcmp(what, properties[i].name) == 0) {
      found = true;
      properties[i].run();
    }
  EXPECT(found, "no sub-command is named \"%s\"", what);
  rank_device_end(&host, &device, &data);
  return rank_record_end();
}
