/* ConR with a memory of earlier rows, on any number of ranks.
 *
 *   rank_conr_memory [case]   all cases, or one; ends non-zero and says what was wrong
 *
 * Batches of changing size, in two views of each sample, are given to an object with a memory.  What it is to hold by
 * then is kept here as plain arrays, in the order of samples, which no sharing out changes. */
#include "dist/dtype.h"
#include "dist/memory.h"
#include "loss/conr.h"
#include "tests/conr_cases.h"
#include "tests/rank_record.h"
#include "tests/ref_conr.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FEATURES 11
#define VIEWS 2
#define MEMORY 50
#define STEPS 7

/* Some fit, some do not, some are empty; the memory is never, just, and more than filled. */
static const int64_t samples_of_step[STEPS] = {9, 12, 0, 15, 40, 1, 20};

/* ---------------------------------------------------------------- rows of all ranks */

/* Columns for ref_conr(): the rows of a batch, sample by sample, and those remembered behind them. */
struct columns {
  int64_t rows, remembered;
  int targets;
  double *feature, *label, *prediction, *weight;
};

static struct columns columns_of(int64_t rows, int targets) {
  size_t most = (size_t)(rows + MEMORY);
  struct columns columns = {.rows = rows, .targets = targets};
  columns.feature = malloc(most * FEATURES * sizeof(double));
  columns.label = malloc(most * (size_t)targets * sizeof(double));
  columns.prediction = malloc(most * (size_t)targets * sizeof(double));
  columns.weight = malloc(most * sizeof(double));
  return columns;
}

static void free_columns(struct columns *columns) {
  free(columns->feature);
  free(columns->label);
  free(columns->prediction);
  free(columns->weight);
}

static void copy_rows(struct columns *to, int64_t at, const struct columns *from, int64_t first, int64_t rows) {
  size_t n = (size_t)rows * sizeof(double), targets = (size_t)to->targets;
  memcpy(to->feature + at * FEATURES, from->feature + first * FEATURES, n * FEATURES);
  memcpy(to->label + at * to->targets, from->label + first * to->targets, n * targets);
  memcpy(to->prediction + at * to->targets, from->prediction + first * to->targets, n * targets);
  memcpy(to->weight + at, from->weight + first, n);
}

/* The batch of a step, from a random case. */
static struct columns batch_of_step(int step, int targets) {
  struct conr_case made = conr_case_random(VIEWS * samples_of_step[step], FEATURES, targets, 5, 60 + (uint64_t)step);
  struct columns batch = columns_of(made.rows, targets);
  struct columns from = {.feature = made.feature.data,
                         .label = made.label.data,
                         .prediction = made.prediction.data,
                         .weight = made.weight.data};
  copy_rows(&batch, 0, &from, 0, made.rows);
  conr_case_free(&made);
  return batch;
}

/* The newest rows of `memory` and then `batch`, as the new memory. */
static void remember(struct columns *memory, const struct columns *batch) {
  int64_t all = memory->remembered + batch->rows, kept = all < MEMORY ? all : MEMORY;
  int64_t from_batch = batch->rows < kept ? batch->rows : kept, old = kept - from_batch;
  struct columns next = columns_of(0, memory->targets);
  copy_rows(&next, 0, memory, memory->remembered - old, old);
  copy_rows(&next, old, batch, batch->rows - from_batch, from_batch);
  next.remembered = kept;
  free_columns(memory);
  *memory = next;
}

static double reference(const struct conr_options *options, struct columns *batch, const struct columns *memory,
                        double *grad) {
  copy_rows(batch, batch->rows, memory, 0, memory->remembered);
  struct ref_batch ref = {.rows = batch->rows,
                          .remembered = memory->remembered,
                          .features = FEATURES,
                          .targets = batch->targets,
                          .feature = batch->feature,
                          .label = batch->label,
                          .prediction = batch->prediction,
                          .weight = batch->weight};
  return ref_conr(options, &ref, 0, grad);
}

/* ---------------------------------------------------------------- a rank's share of them */

struct own_rows {
  int64_t first, samples; /* of the batch                                     */
  int64_t rows_of_rank[64];
  char *feature, *label, *prediction, *weight;
  void *grad;
};

/* Row v * samples + i of a rank is row (first + i) * VIEWS + v of the batch. */
static int64_t row_of(const struct own_rows *own, int64_t row) {
  return (own->first + row % own->samples) * VIEWS + row / own->samples;
}

static char *as_real(enum dtype dtype, const struct own_rows *own, const double *values, int64_t width) {
  int64_t rows = VIEWS * own->samples;
  char *out = malloc((size_t)(rows * width) * sizeof(double) + 1);
  for (int64_t row = 0; row < rows; row++)
    for (int64_t k = 0; k < width; k++)
      dtype_put(dtype, out, row * width + k, values[row_of(own, row) * width + k]);
  return out;
}

static struct own_rows share_of(const struct columns *batch, enum dtype dtype, enum share how) {
  struct own_rows own = {0};
  own.first = conr_share(how, batch->rows / VIEWS, record.rank, record.size, own.rows_of_rank);
  own.samples = own.rows_of_rank[record.rank];
  for (int rank = 0; rank < record.size; rank++)
    own.rows_of_rank[rank] *= VIEWS;
  own.feature = as_real(dtype, &own, batch->feature, FEATURES);
  own.label = as_real(dtype, &own, batch->label, batch->targets);
  own.prediction = as_real(dtype, &own, batch->prediction, batch->targets);
  own.weight = as_real(dtype, &own, batch->weight, 1);
  own.grad = calloc((size_t)(VIEWS * own.samples * FEATURES) + 1, sizeof(double));
  return own;
}

static void free_share(struct own_rows *own) {
  free(own->feature);
  free(own->label);
  free(own->prediction);
  free(own->weight);
  free(own->grad);
}

static struct conr_result loss_of(struct conr *conr, const struct own_rows *own, bool gradient) {
  struct conr_result result = {0};
  struct conr_batch batch = {.rows = VIEWS * own->samples,
                             .features = own->feature,
                             .labels = own->label,
                             .predictions = own->prediction,
                             .weights = own->weight,
                             .rows_of_rank = own->rows_of_rank,
                             .views = VIEWS};
  EXPECT_OK((enum status)conr_loss(conr, &batch, gradient ? own->grad : NULL, &result));
  return result;
}

static size_t gradient_bytes(const struct own_rows *own, enum dtype dtype) {
  return (size_t)(VIEWS * own->samples * FEATURES) * dtype_size(dtype);
}

static struct conr *create(const struct conr_options *options, int targets, enum dtype dtype) {
  struct conr *conr;
  MUST_HOLD(conr_create(MPI_COMM_WORLD, FEATURES, targets, dtype == F32 ? CONR_F32 : CONR_F64, options, &conr) == 0);
  return conr;
}

/* Largest error of the own rows' gradient, over the largest value of all. */
static double grad_error(const struct own_rows *own, enum dtype dtype, const double *whole, int64_t rows) {
  double largest = 0, error = 0;
  for (int64_t i = 0; i < rows * FEATURES; i++)
    largest = fmax(largest, fabs(whole[i]));
  for (int64_t row = 0; row < VIEWS * own->samples; row++)
    for (int64_t k = 0; k < FEATURES; k++) {
      double difference =
          fabs(dtype_get(dtype, own->grad, row * FEATURES + k) - whole[row_of(own, row) * FEATURES + k]);
      error = difference > error || isnan(difference) ? difference : error;
    }
  return largest > 0 ? error / largest : error;
}

/* ---------------------------------------------------------------- cases */

struct form {
  const char *name;
  struct conr_options options;
  int targets;
};

#define FORMS 7
static void make_forms(struct form forms[FORMS]) {
  static const char *const names[FORMS] = {"paper",
                                           "log of mean",
                                           "reference",
                                           "constant of 18 rows",
                                           "depth, 2 parts",
                                           "temperature 0.005, wide",
                                           "log of mean, wide"};
  for (int i = 0; i < FORMS; i++) {
    struct conr_options *options = &forms[i].options;
    forms[i].name = names[i];
    forms[i].targets = i == 4 ? 2 : 1;
    conr_options_default(options);
    options->memory_rows = MEMORY;
    options->w = 3;
    options->variant = i == 2 || i == 3 ? CONR_REFERENCE : i == 4 ? CONR_DEPTH : CONR_PAPER;
    options->constant_rows = i == 3 ? 18 : 0;
    options->aggregate = i == 1 || i == 6 ? CONR_LOG_OF_MEAN : CONR_MEAN_OF_LOG;
    options->t = i == 5 || i == 6 ? 0.005 : 0.07;
  }
}

/* Each step on its own share of the samples: even, then uneven, then all on the last rank, ... */
static void check_stream(const struct form *form, enum conr_path path, enum dtype dtype) {
  struct conr_options options = form->options;
  struct columns memory = columns_of(0, form->targets);
  double limit = dtype == F64 ? 1e-11 : 1e-4 * 0.07 / options.t;
  options.path = path;
  struct conr *conr = create(&options, form->targets, dtype);
  for (int step = 0; step < STEPS; step++) {
    struct columns batch = batch_of_step(step, form->targets);
    struct own_rows own = share_of(&batch, dtype, (enum share)(step % SHARES));
    double *whole = calloc((size_t)(batch.rows * FEATURES) + 1, sizeof(double));
    double loss = reference(&options, &batch, &memory, whole);
    struct conr_result result = loss_of(conr, &own, true);
    double error = fabs(result.loss - loss) / fmax(fabs(loss), 1e-12);
    EXPECT(error <= limit, "%s, path %d, step %d: loss %.17g, plain loops %.17g", form->name, (int)path, step,
           result.loss, loss);
    error = grad_error(&own, dtype, whole, batch.rows);
    EXPECT(error <= limit, "%s, path %d, step %d: gradient error %g, limit %g", form->name, (int)path, step, error,
           limit);
    remember(&memory, &batch);
    free(whole);
    free_share(&own);
    free_columns(&batch);
  }
  conr_destroy(&conr);
  free_columns(&memory);
}

static void rows_are_held_against_those_of_earlier_batches(void) {
  struct form forms[FORMS];
  make_forms(forms);
  for (int i = 0; i < FORMS; i++)
    for (enum conr_path path = CONR_DENSE; path <= CONR_BANDED; path++) {
      check_stream(&forms[i], path, F64);
      check_stream(&forms[i], path, F32);
    }
}

/* An object whose memory holds what the steps before `step` brought. */
static struct conr *after_steps(const struct conr_options *options, enum dtype dtype, int step) {
  struct conr *conr = create(options, 1, dtype);
  for (int i = 0; i < step; i++) {
    struct columns batch = batch_of_step(i, 1);
    struct own_rows own = share_of(&batch, dtype, SHARE_EVEN);
    loss_of(conr, &own, true);
    free_share(&own);
    free_columns(&batch);
  }
  return conr;
}

/* No plain loops are asked; and a call for the loss alone leaves the memory as it is. */
static void gradient_agrees_with_finite_differences(void) {
  struct conr_options options;
  conr_options_default(&options);
  options.w = 3;
  options.t = 0.3;
  options.memory_rows = MEMORY;
  struct conr *conr = after_steps(&options, F64, 3);
  struct columns batch = batch_of_step(3, 1);
  struct own_rows own = share_of(&batch, F64, SHARE_EVEN);
  double *state, *before;
  size_t count;
  conr_memory(conr, &state, &count);
  before = malloc(count * sizeof *before);
  memcpy(before, state, count * sizeof *before);
  double slope[20] = {0}, step = 1e-5;
  for (int probe = 0; probe < 20; probe++) {
    int64_t at = (probe * 7919) % (batch.rows * FEATURES);
    for (int side = -1; side <= 1; side += 2) {
      double kept = batch.feature[at];
      batch.feature[at] = kept + side * step;
      struct own_rows moved = share_of(&batch, F64, SHARE_EVEN);
      slope[probe] += side * loss_of(conr, &moved, false).loss / (2 * step);
      free_share(&moved);
      batch.feature[at] = kept;
    }
  }
  EXPECT(memcmp(before, state, count * sizeof *before) == 0, "losses without gradient change the memory");
  loss_of(conr, &own, true);
  EXPECT(memcmp(before, state, count * sizeof *before) != 0, "a batch does not enter the memory");
  for (int64_t row = 0; row < VIEWS * own.samples; row++)
    for (int probe = 0; probe < 20; probe++) {
      int64_t at = (probe * 7919) % (batch.rows * FEATURES);
      double got = ((double *)own.grad)[row * FEATURES + at % FEATURES];
      EXPECT(at / FEATURES != row_of(&own, row) || fabs(got - slope[probe]) <= 1e-7 * (1 + fabs(got)),
             "coordinate %lld: %.12g, by differences %.12g", (long long)at, got, slope[probe]);
    }
  free(before);
  free_share(&own);
  free_columns(&batch);
  conr_destroy(&conr);
}

static void an_empty_memory_leaves_the_bits(void) {
  for (enum dtype dtype = F32; dtype <= F64; dtype++)
    for (enum conr_path path = CONR_DENSE; path <= CONR_BANDED; path++) {
      struct conr_options options;
      conr_options_default(&options);
      options.w = 3;
      options.path = path;
      struct conr *without = create(&options, 1, dtype);
      options.memory_rows = MEMORY;
      struct conr *with = create(&options, 1, dtype);
      struct columns batch = batch_of_step(4, 1);
      struct own_rows own = share_of(&batch, dtype, SHARE_UNEVEN), other = share_of(&batch, dtype, SHARE_UNEVEN);
      double loss = loss_of(without, &own, true).loss, remembering = loss_of(with, &other, true).loss;
      EXPECT(loss == remembering && memcmp(own.grad, other.grad, gradient_bytes(&own, dtype)) == 0,
             "path %d, type %d: loss %.17g without a memory, %.17g with an empty one, or other gradients", (int)path,
             (int)dtype, loss, remembering);
      free_share(&own);
      free_share(&other);
      free_columns(&batch);
      conr_destroy(&without);
      conr_destroy(&with);
    }
}

/* What conr_memory() gives, in an object that has seen nothing; and a state that cannot be is refused. */
static void a_state_that_is_put_back_goes_on_with_the_same_bits(void) {
  struct conr_options options;
  conr_options_default(&options);
  options.w = 3;
  options.memory_rows = MEMORY;
  struct conr *whole = after_steps(&options, F32, 5), *resumed = create(&options, 1, F32);
  double *from, *to;
  size_t count, room;
  conr_memory(whole, &from, &count);
  conr_memory(resumed, &to, &room);
  MUST_HOLD(count == room && count == 2 + MEMORY * (FEATURES + 3));
  memcpy(to, from, count * sizeof *to);
  for (int step = 5; step < STEPS; step++) {
    struct columns batch = batch_of_step(step, 1);
    struct own_rows own = share_of(&batch, F32, SHARE_EVEN), other = share_of(&batch, F32, SHARE_EVEN);
    double loss = loss_of(whole, &own, true).loss, again = loss_of(resumed, &other, true).loss;
    EXPECT(loss == again && memcmp(own.grad, other.grad, gradient_bytes(&own, F32)) == 0,
           "step %d: loss %.17g, %.17g where it was put back, or other gradients", step, loss, again);
    free_share(&own);
    free_share(&other);
    free_columns(&batch);
  }
  EXPECT(memcmp(from, to, count * sizeof *to) == 0, "the memories differ afterwards");
  to[0] = MEMORY + 1;
  struct conr_result result;
  struct conr_batch nothing = {.rows = 0};
  EXPECT(conr_loss(resumed, &nothing, NULL, &result) != 0 && strstr(conr_error(), "not kept by this program") != NULL,
         "a state that cannot be: %s", conr_error());
  conr_destroy(&whole);
  conr_destroy(&resumed);
}

static void it_takes_no_memory_after_the_first_batch(void) {
  struct conr_options options;
  conr_options_default(&options);
  options.memory_rows = MEMORY;
  size_t at_first = memory_in_use(), before = 0;
  struct conr *conr = create(&options, 1, F32);
  for (int i = 0; i < 5; i++) { /* the same one again: it is the memory that grows */
    struct columns batch = batch_of_step(1, 1);
    struct own_rows own = share_of(&batch, F32, SHARE_EVEN);
    loss_of(conr, &own, true);
    before = i == 0 ? memory_in_use() : before;
    EXPECT(memory_in_use() == before, "batch %d takes %zu bytes more", i, memory_in_use() - before);
    free_share(&own);
    free_columns(&batch);
  }
  conr_destroy(&conr);
  EXPECT(memory_in_use() == at_first, "%zu bytes are left behind", memory_in_use() - at_first);
}

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    void (*run)(void);
  } cases[] = {
      {"rows_are_held_against_those_of_earlier_batches", rows_are_held_against_those_of_earlier_batches},
      {"gradient_agrees_with_finite_differences", gradient_agrees_with_finite_differences},
      {"an_empty_memory_leaves_the_bits", an_empty_memory_leaves_the_bits},
      {"a_state_that_is_put_back_goes_on_with_the_same_bits", a_state_that_is_put_back_goes_on_with_the_same_bits},
      {"it_takes_no_memory_after_the_first_batch", it_takes_no_memory_after_the_first_batch}};
  rank_record_begin(&argc, &argv);
  int found = 0;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    if (argc < 2 || strcmp(argv[1], cases[i].name) == 0) {
      record.name = cases[i].name;
      cases[i].run();
      found++;
    }
  EXPECT(found > 0, "there is no case %s", argc > 1 ? argv[1] : "");
  return rank_record_end();
}
