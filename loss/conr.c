/* The ConR loss over a global batch: gather, sweeps over panels, one exchange of row scalars.
 *
 * A row of the global batch travels as one record: q [features], label [targets], prediction [targets],
 * weight.  The gathered records are the only copy of the features; banded evaluation sorts them in place,
 * by label for the pairs of close labels and by prediction for the pairs of close predictions. */
#include "loss/conr.h"

#include "dist/comm.h"
#include "dist/memory.h"
#include "loss/band.h"
#include "loss/pairwise.h"

#include <float.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#define SMALLEST_PANEL 32

/* Largest e times label distance, and largest label distance: see make_rule. */
#define LARGEST_PUSH 1e6
#define LARGEST_SPAN_F32 1e18
#define LARGEST_SPAN_F64 1e150

/* The scales of struct pair_columns, in the order they are stored. */
enum scale { SCALE_POSITIVE, SCALE_NEGATIVE, SUBTRACT, SCALE_MEAN, SCALES };

/* What a rank adds to the exchange of row scalars, after its rows: sums for everybody. */
struct trailer {
  double loss, active, positives, negatives, zero_rows;
  double fault; /* enum fault of this rank */
};
#define TRAILER_UNITS (sizeof(struct trailer) / 8)

/* What can befall one rank between the two exchanges; the second one tells the others. */
enum fault { FAULT_NONE, FAULT_PRODUCT, FAULT_BATCH };

/* One sweep's panels: own rows in the order of the storage, and the columns each panel needs. */
struct sweep {
  enum pair_class pairs;
  bool batch_order;         /* the storage is in batch order; `order` is not used           */
  int32_t *order;           /* [rows] order of the storage: the batch row at each place     */
  int32_t *own;             /* [own rows] places of own rows in that order, ascending       */
  struct band_range *range; /* [panels] columns of each panel                               */
};

struct conr {
  struct comm *comm;
  struct conr_options options;
  enum dtype dtype;
  int features, targets, threads;
  int64_t stride; /* REALs in a record */

  /* Sized by the largest batch seen. */
  int64_t capacity_rows, capacity_own;
  bool capacity_wide;         /* row scalars in double fit */
  void *records;              /* [rows, stride]           */
  void *labels, *predictions; /* [targets, rows]          */
  int32_t *slot_of;           /* [rows] batch row -> slot */
  unsigned char *placed;      /* [rows] scratch           */
  void *temporary;            /* one record               */
  struct sweep by_label, by_prediction;
  union { /* one block, used for one thing after the other */
    void *phase;
    struct band_key *keys;  /* [rows] while sorting                                      */
    struct pair_sums *sums; /* [own rows] from the forward sweeps to the exchange        */
    char *scales;           /* [4, rows] REAL in the backward sweeps: see pairwise.h     */
  };
  void *exchange; /* row scalars of all ranks                 */
  void *inverse;  /* [own rows] 1 / norm, 0 for zero rows     */
  void *panels;   /* one workspace a thread                   */
  int64_t *rows_of_rank;
  size_t workspace_bytes;

  /* The batch at hand. */
  int64_t rows, own_first, own_rows;
  enum fault fault; /* of this rank */
  int panel_rows;
  struct pair_rule rule;
};

/* ---- REAL arrays of either type ---------------------------------------------------------- */

static void put(enum dtype dtype, void *array, int64_t i, double value) {
  if (dtype == F32)
    ((float *)array)[i] = (float)value;
  else
    ((double *)array)[i] = value;
}

static double get(enum dtype dtype, const void *array, int64_t i) {
  return band_value(dtype, array, i);
}

static void *at(enum dtype dtype, void *array, int64_t i) {
  return (char *)array + (size_t)i * dtype_size(dtype);
}

static const void *element(enum dtype dtype, const void *array, int64_t i) {
  return (const char *)array + (size_t)i * dtype_size(dtype);
}

/* Row scalars are logarithms when wide: doubles then. */
static enum dtype scalar_dtype(const struct conr *conr) {
  return conr->rule.wide ? F64 : conr->dtype;
}

/* ---- create and destroy ------------------------------------------------------------------- */

void conr_options_default(struct conr_options *options) {
  *options = (struct conr_options){.variant = CONR_PAPER,
                                   .aggregate = CONR_MEAN_OF_LOG,
                                   .distance = CONR_EUCLIDEAN,
                                   .path = CONR_AUTO,
                                   .w = 1,
                                   .t = 0.07,
                                   .e = 0.01};
}

static enum status check_options(int features, int targets, enum conr_precision precision,
                                 const struct conr_options *options) {
  REQUIRE(features >= 1, ERR_ARGUMENT, "features is %d; give at least 1", features);
  REQUIRE(targets >= 1, ERR_ARGUMENT, "targets is %d; give at least 1", targets);
  REQUIRE(precision == CONR_F32 || precision == CONR_F64, ERR_ARGUMENT, "precision %d is neither CONR_F32 nor CONR_F64",
          (int)precision);
  REQUIRE(options->w >= 0 && isfinite(options->w), ERR_ARGUMENT, "w is %g; give a finite window >= 0", options->w);
  REQUIRE(options->t > 0 && isfinite(options->t), ERR_ARGUMENT, "t is %g; give a finite temperature > 0", options->t);
  REQUIRE(options->e >= 0 && isfinite(options->e), ERR_ARGUMENT, "e is %g; give a finite strength >= 0", options->e);
  REQUIRE(options->variant >= CONR_PAPER && options->variant <= CONR_DEPTH, ERR_ARGUMENT, "variant %d does not exist",
          (int)options->variant);
  REQUIRE(options->variant == CONR_PAPER || options->aggregate == CONR_MEAN_OF_LOG, ERR_ARGUMENT,
          "the logarithm of the mean belongs to the paper variant only");
  REQUIRE(options->variant == CONR_PAPER || !options->outer_weights, ERR_ARGUMENT,
          "outer weights are a choice of the paper variant only (reference always has them, depth never)");
  return STATUS_OK;
}

int conr_create(MPI_Comm comm, int features, int targets, enum conr_precision precision,
                const struct conr_options *options, struct conr **out) {
  *out = NULL;
  TRY(check_options(features, targets, precision, options));
  struct conr *conr = NULL;
  TRY(memory_alloc_zero(sizeof *conr, (void **)&conr));
  conr->options = *options;
  conr->dtype = precision == CONR_F32 ? F32 : F64;
  conr->features = features;
  conr->targets = targets;
  conr->threads = omp_get_max_threads();
  conr->stride = features + 2 * targets + 1;
  conr->capacity_rows = conr->capacity_own = -1;
  enum status status;
  TRY_GOTO(comm_create(comm, &conr->comm), failed);
  TRY_GOTO(memory_alloc((size_t)comm_size(conr->comm) * sizeof(int64_t), (void **)&conr->rows_of_rank), failed);
  *out = conr;
  return STATUS_OK;
failed:
  conr_destroy(&conr);
  return (int)status;
}

int conr_create_fortran(MPI_Fint comm, int features, int targets, int precision, const struct conr_options *options,
                        struct conr **out) {
  return conr_create(MPI_Comm_f2c(comm), features, targets, (enum conr_precision)precision, options, out);
}

static void free_workspace(struct conr *conr) {
  void **blocks[] = {&conr->records,
                     &conr->labels,
                     &conr->predictions,
                     (void **)&conr->slot_of,
                     (void **)&conr->placed,
                     &conr->temporary,
                     (void **)&conr->by_label.order,
                     (void **)&conr->by_label.own,
                     (void **)&conr->by_label.range,
                     (void **)&conr->by_prediction.order,
                     (void **)&conr->by_prediction.own,
                     (void **)&conr->by_prediction.range,
                     &conr->phase,
                     &conr->exchange,
                     &conr->inverse,
                     &conr->panels};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
    memory_free(blocks[i]);
  conr->capacity_rows = conr->capacity_own = -1;
}

void conr_destroy(struct conr **conr) {
  if (*conr == NULL)
    return;
  free_workspace(*conr);
  memory_free((void **)&(*conr)->rows_of_rank);
  comm_destroy(&(*conr)->comm);
  memory_free((void **)conr);
}

const char *conr_error(void) {
  return status_message();
}

const char *conr_version(void) {
  return CONR_VERSION;
}

/* ---- workspace ---------------------------------------------------------------------------- */

static enum status allocate(struct conr *conr, size_t bytes, void **out) {
  conr->workspace_bytes += bytes;
  return memory_alloc(bytes, out);
}

static enum status allocate_sweep(struct conr *conr, int64_t own, struct sweep *sweep) {
  TRY(allocate(conr, (size_t)own * sizeof *sweep->own, (void **)&sweep->own));
  return allocate(conr, ((size_t)own / SMALLEST_PANEL + 1) * sizeof *sweep->range, (void **)&sweep->range);
}

static size_t larger(size_t a, size_t b) {
  return a > b ? a : b;
}

/* Bytes of what depends on the type of the row scalars. */
static size_t exchange_bytes(const struct conr *conr, int64_t rows, enum dtype scalars) {
  return (size_t)rows * 2 * dtype_size(scalars) + (size_t)comm_size(conr->comm) * sizeof(struct trailer);
}

static size_t phase_bytes(int64_t rows, int64_t own, enum dtype scalars) {
  size_t forward = larger((size_t)rows * sizeof(struct band_key), (size_t)own * sizeof(struct pair_sums));
  return larger(forward, SCALES * (size_t)rows * dtype_size(scalars));
}

static enum status allocate_workspace(struct conr *conr, int64_t rows, int64_t own) {
  size_t n = (size_t)rows, real = dtype_size(conr->dtype);
  conr->workspace_bytes = 0;
  TRY(allocate(conr, n * (size_t)conr->stride * real, &conr->records));
  TRY(allocate(conr, (size_t)conr->stride * real, &conr->temporary));
  TRY(allocate(conr, n * (size_t)conr->targets * real, &conr->labels));
  TRY(allocate(conr, n * (size_t)conr->targets * real, &conr->predictions));
  TRY(allocate(conr, n * sizeof(int32_t), (void **)&conr->slot_of));
  TRY(allocate(conr, n, (void **)&conr->placed));
  TRY(allocate(conr, n * sizeof(int32_t), (void **)&conr->by_label.order));
  TRY(allocate(conr, n * sizeof(int32_t), (void **)&conr->by_prediction.order));
  TRY(allocate_sweep(conr, own, &conr->by_label));
  TRY(allocate_sweep(conr, own, &conr->by_prediction));
  TRY(allocate(conr, phase_bytes(rows, own, conr->dtype), &conr->phase));
  TRY(allocate(conr, exchange_bytes(conr, rows, conr->dtype), &conr->exchange));
  TRY(allocate(conr, (size_t)own * real, &conr->inverse));
  return allocate(conr, (size_t)conr->threads * pairwise_workspace(conr->dtype, conr->features), &conr->panels);
}

/* Make room.  The decision depends on counts every rank knows, so all ranks come here together. */
static enum status grow_workspace(struct conr *conr, int64_t rows, int64_t most_own) {
  if (rows <= conr->capacity_rows && most_own <= conr->capacity_own)
    return STATUS_OK;
  int64_t rows_wanted = rows > conr->capacity_rows ? rows : conr->capacity_rows;
  int64_t own_wanted = most_own > conr->capacity_own ? most_own : conr->capacity_own;
  free_workspace(conr);
  enum status status = allocate_workspace(conr, rows_wanted, own_wanted);
  if (status != STATUS_OK)
    free_workspace(conr);
  TRY(comm_agree(conr->comm, status));
  conr->capacity_rows = rows_wanted;
  conr->capacity_own = own_wanted;
  conr->capacity_wide = false;
  return STATUS_OK;
}

/* Room for row scalars in double, the first time a batch is wide.  All ranks see the same labels and come here together. */
static enum status grow_for_wide(struct conr *conr) {
  if (!conr->rule.wide || conr->dtype == F64 || conr->capacity_wide)
    return STATUS_OK;
  memory_free(&conr->phase);
  memory_free(&conr->exchange);
  enum status status = allocate(conr, phase_bytes(conr->capacity_rows, conr->capacity_own, F64), &conr->phase);
  if (status == STATUS_OK)
    status = allocate(conr, exchange_bytes(conr, conr->capacity_rows, F64), &conr->exchange);
  if (status != STATUS_OK)
    free_workspace(conr);
  TRY(comm_agree(conr->comm, status));
  conr->capacity_wide = true;
  return STATUS_OK;
}

/* A failure that every rank finds in what it has received: all return it, none waits. */
static enum status agreed(enum status status) {
  status_set_agreed();
  return status;
}

/* Learn every rank's rows, and make room for them. */
static enum status size_batch(struct conr *conr, const struct conr_batch *batch) {
  int size = comm_size(conr->comm), rank = comm_rank(conr->comm);
  if (batch->rows_of_rank != NULL) {
    memcpy(conr->rows_of_rank, batch->rows_of_rank, (size_t)size * sizeof(int64_t));
  } else {
    int64_t one[size];
    for (int r = 0; r < size; r++)
      one[r] = 1;
    TRY(comm_gather_rows(conr->comm, &batch->rows, one, sizeof batch->rows, conr->rows_of_rank));
  }
  int64_t most_own = 0;
  conr->rows = conr->own_first = 0;
  for (int r = 0; r < size; r++) {
    int64_t rows = conr->rows_of_rank[r];
    if (rows < 0)
      return agreed(fail(ERR_ARGUMENT, "rank %d gives %lld rows; 0 is the least", r, (long long)rows));
    conr->own_first += r < rank ? rows : 0;
    most_own = rows > most_own ? rows : most_own;
    conr->rows += rows;
  }
  if (conr->rows >= INT32_MAX)
    return agreed(fail(ERR_ARGUMENT, "a global batch of %lld rows is too large; the limit is %d", (long long)conr->rows,
                       INT32_MAX - 1));
  conr->own_rows = conr->rows_of_rank[rank];
  return grow_workspace(conr, conr->rows, most_own);
}

/* ---- the first exchange: records ---------------------------------------------------------- */

/* Normalise and pack the own rows into their place among the records.  A row that holds a value
 * that is not finite is sent with weight NaN, so that every rank sees the fault and none waits. */
static void pack_records(struct conr *conr, const struct conr_batch *batch) {
  enum dtype dtype = conr->dtype;
  if (conr->fault != FAULT_NONE) { /* nothing can be read: empty records, and the second exchange tells */
    memset(at(dtype, conr->records, conr->own_first * conr->stride), 0,
           (size_t)(conr->own_rows * conr->stride) * dtype_size(dtype));
    memset(conr->inverse, 0, (size_t)conr->own_rows * dtype_size(dtype));
    return;
  }
  int features = conr->features, targets = conr->targets;
#pragma omp parallel for schedule(static) if (conr->own_rows * features > 16384)
  for (int64_t i = 0; i < conr->own_rows; i++) {
    void *record = at(dtype, conr->records, (conr->own_first + i) * conr->stride);
    double weight = batch->weights ? get(dtype, batch->weights, i) : 1.0;
    bool finite;
    put(dtype, conr->inverse, i,
        row_normalise(dtype, features, element(dtype, batch->features, i * features), record, &finite));
    for (int k = 0; k < targets; k++) {
      put(dtype, record, features + k, get(dtype, batch->labels, i * targets + k));
      put(dtype, record, features + targets + k, get(dtype, batch->predictions, i * targets + k));
    }
    put(dtype, record, features + 2 * targets, finite ? weight : NAN);
  }
}

/* The rank that owns a batch row, and its row there. */
static int owner_of(const struct conr *conr, int64_t row, int64_t *own) {
  int rank = 0;
  for (*own = row; *own >= conr->rows_of_rank[rank]; rank++)
    *own -= conr->rows_of_rank[rank];
  return rank;
}

/* Every rank looks at every row's scalars, so all come to the same verdict. */
static enum status check_records(const struct conr *conr) {
  static const char *const names[] = {"label", "prediction", "weight (or feature)"};
  int scalars = 2 * conr->targets + 1;
  for (int64_t row = 0; row < conr->rows; row++) {
    for (int k = 0; k < scalars; k++) {
      double value = get(conr->dtype, conr->records, row * conr->stride + conr->features + k);
      if (isfinite(value) && (k < scalars - 1 || value >= 0))
        continue;
      int64_t own;
      int rank = owner_of(conr, row, &own);
      const char *name = k < conr->targets ? names[0] : k < scalars - 1 ? names[1] : names[2];
      if (value < 0 && isfinite(value))
        return agreed(fail(ERR_NUMERIC, "the weight of row %lld on rank %d is %g; weights are finite and >= 0",
                           (long long)own, rank, value));
      return agreed(fail(ERR_NUMERIC,
                         "a %s of row %lld on rank %d is not finite; lower the learning rate or check the data", name,
                         (long long)own, rank));
    }
  }
  return STATUS_OK;
}

/* Copy labels and predictions out of the records, [targets, rows], in the order of the storage. */
static void spread_records(struct conr *conr) {
  for (int64_t slot = 0; slot < conr->rows; slot++)
    for (int k = 0; k < conr->targets; k++) {
      const char *tail = at(conr->dtype, conr->records, slot * conr->stride + conr->features);
      put(conr->dtype, conr->labels, k * conr->rows + slot, get(conr->dtype, tail, k));
      put(conr->dtype, conr->predictions, k * conr->rows + slot, get(conr->dtype, tail, conr->targets + k));
    }
}

static enum status gather_records(struct conr *conr, const struct conr_batch *batch) {
  pack_records(conr, batch);
  TRY(comm_gather_rows(conr->comm, NULL, conr->rows_of_rank, (size_t)conr->stride * dtype_size(conr->dtype),
                       conr->records));
  TRY(check_records(conr));
  for (int64_t row = 0; row < conr->rows; row++)
    conr->slot_of[row] = (int32_t)row;
  spread_records(conr);
  return STATUS_OK;
}

/* ---- the rule of this batch --------------------------------------------------------------- */

/* The largest distance any two labels can have: that of the corners of their bounding box. */
static double label_diameter(const struct conr *conr) {
  double diameter = 0;
  for (int k = 0; k < conr->targets; k++) {
    double low = INFINITY, high = -INFINITY;
    for (int64_t i = 0; i < conr->rows; i++) {
      double label = get(conr->dtype, conr->labels, k * conr->rows + i);
      low = label < low ? label : low;
      high = label > high ? label : high;
    }
    double side = conr->rows > 0 ? high - low : 0;
    if (conr->options.distance == CONR_EUCLIDEAN)
      diameter = hypot(diameter, side);
    else
      diameter = conr->options.distance == CONR_MANHATTAN ? diameter + side : fmax(diameter, side);
  }
  return diameter;
}

static enum status make_rule(struct conr *conr) {
  const struct conr_options *options = &conr->options;
  bool linear = options->variant == CONR_DEPTH;
  struct pair_rule *rule = &conr->rule;
  *rule = (struct pair_rule){.distance = options->distance,
                             .w = options->w,
                             .temperature = options->t,
                             .push_constant = linear ? 0 : 1,
                             .push_slope = linear ? options->e : 0,
                             .push_rate = linear ? 0 : options->e};
  double diameter = label_diameter(conr), largest_push = rule->push_rate * diameter;
  /* All ranks see the same labels.  Beyond these limits squares, or exponents, leave the range of their type. */
  if (largest_push > LARGEST_PUSH)
    return agreed(fail(ERR_NUMERIC,
                       "labels span %g and e is %g, so the push exp(e d) has no meaning; lower e, or rescale "
                       "the labels",
                       diameter, options->e));
  if (diameter > (conr->dtype == F32 ? LARGEST_SPAN_F32 : LARGEST_SPAN_F64))
    return agreed(fail(ERR_NUMERIC, "labels span %g, too much for their precision; rescale the labels", diameter));
  /* The smallest exponential is exp(-2/t - largest push); keep a margin to the smallest normal number. */
  rule->wide = 2 / options->t + largest_push > (conr->dtype == F32 ? 80 : 680);
  rule->shift = rule->wide ? 0 : 1 / options->t + largest_push;
  return STATUS_OK;
}

/* ---- sweeps: dense or banded --------------------------------------------------------------- */

static int64_t panel_count(const struct conr *conr) {
  return (conr->own_rows + conr->panel_rows - 1) / conr->panel_rows;
}

/* Rows of panel p: places sweep->own[first .. first + count - 1]. */
static int panel_size(const struct conr *conr, int64_t panel) {
  int64_t left = conr->own_rows - panel * conr->panel_rows;
  return (int)(left < conr->panel_rows ? left : conr->panel_rows);
}

/* Small batches get smaller panels, so that every thread has some.  By the global rows, not by the own ones:
 * the shape of the matrix products must not depend on how the rows are shared out. */
static void choose_panel_rows(struct conr *conr) {
  conr->panel_rows = conr->rows >= 4096 ? PANEL_ROWS : conr->rows >= 512 ? PANEL_ROWS / 2 : SMALLEST_PANEL;
  conr->rule.product_rows = conr->panel_rows;
}

/* Columns as the matrix products want them: see COLUMN_STEP.  What is added is masked like everything else. */
static struct band_range widen(struct band_range range, int64_t rows) {
  int64_t missing = LEAST_COLUMNS - (range.last - range.first);
  if (missing > 0) {
    range.first -= missing / 2;
    range.last = range.first + LEAST_COLUMNS;
  }
  if (range.last > rows) {
    range.first -= range.last - rows;
    range.last = rows;
  }
  range.first = range.first > 0 ? range.first / COLUMN_STEP * COLUMN_STEP : 0;
  range.last = (range.last + COLUMN_STEP - 1) / COLUMN_STEP * COLUMN_STEP;
  return (struct band_range){range.first, range.last < rows ? range.last : rows};
}

/* The dense sweep is planned in the tables of the first band. */
static void plan_dense(struct conr *conr) {
  struct sweep *sweep = &conr->by_label;
  sweep->pairs = PAIRS_BOTH;
  sweep->batch_order = true;
  for (int64_t i = 0; i < conr->own_rows; i++)
    sweep->own[i] = (int32_t)(conr->own_first + i);
  for (int64_t p = 0; p < panel_count(conr); p++)
    sweep->range[p] = (struct band_range){0, conr->rows};
}

/* Sort by one coordinate and find each panel's columns.  Returns the pairs to evaluate. */
static int64_t plan_band(struct conr *conr, const void *values, struct sweep *sweep) {
  int64_t own = 0, pairs = 0;
  sweep->batch_order = false;
  band_sort(conr->dtype, values, (int32_t)conr->rows, conr->keys, sweep->order);
  for (int64_t place = 0; place < conr->rows; place++) {
    int64_t row = sweep->order[place];
    if (row >= conr->own_first && row < conr->own_first + conr->own_rows)
      sweep->own[own++] = (int32_t)place;
  }
  for (int64_t p = 0; p < panel_count(conr); p++) {
    const int32_t *places = sweep->own + p * conr->panel_rows;
    int count = panel_size(conr, p);
    struct band_range within = band_range(conr->dtype, values, sweep->order, conr->rows, conr->rule.w,
                                          get(conr->dtype, values, sweep->order[places[0]]),
                                          get(conr->dtype, values, sweep->order[places[count - 1]]));
    sweep->range[p] = widen(within, conr->rows);
    pairs += count * (sweep->range[p].last - sweep->range[p].first);
  }
  return pairs;
}

/* Of several components, the one whose sorted order leaves the fewest pairs. */
static int64_t plan_best_band(struct conr *conr, const void *values, struct sweep *sweep) {
  int best = 0;
  int64_t fewest = INT64_MAX, pairs = 0;
  for (int k = 0; k < conr->targets; k++) {
    pairs = plan_band(conr, (const char *)values + (size_t)(k * conr->rows) * dtype_size(conr->dtype), sweep);
    if (pairs < fewest) {
      fewest = pairs;
      best = k;
    }
  }
  if (best != conr->targets - 1)
    pairs = plan_band(conr, (const char *)values + (size_t)(best * conr->rows) * dtype_size(conr->dtype), sweep);
  return pairs;
}

/* Choose the path.  Each rank may choose for itself: both paths take part in the same collectives. */
static enum conr_path plan_sweeps(struct conr *conr, double *computed_share) {
  double all = (double)conr->own_rows * (double)conr->rows;
  choose_panel_rows(conr);
  *computed_share = 1;
  if (conr->options.path != CONR_DENSE && conr->own_rows > 0) {
    conr->by_label.pairs = PAIRS_POSITIVE;
    conr->by_prediction.pairs = PAIRS_NEGATIVE;
    int64_t pairs = plan_best_band(conr, conr->labels, &conr->by_label);
    pairs += plan_best_band(conr, conr->predictions, &conr->by_prediction);
    if (conr->options.path == CONR_BANDED || (double)pairs < 0.9 * all) {
      *computed_share = (double)pairs / all;
      return CONR_BANDED;
    }
  }
  plan_dense(conr);
  return CONR_DENSE;
}

/* Bring the records into an order, in place, one cycle of the permutation after the other. */
static void reorder_records(struct conr *conr, const int32_t *order) {
  size_t bytes = (size_t)conr->stride * dtype_size(conr->dtype);
  char *records = conr->records;
  memset(conr->placed, 0, (size_t)conr->rows);
  for (int64_t start = 0; start < conr->rows; start++) {
    if (conr->placed[start])
      continue;
    memcpy(conr->temporary, records + (size_t)start * bytes, bytes);
    int64_t slot = start;
    for (;;) {
      int64_t source = conr->slot_of[order[slot]];
      conr->placed[slot] = 1;
      if (source == start)
        break;
      memcpy(records + (size_t)slot * bytes, records + (size_t)source * bytes, bytes);
      slot = source;
    }
    memcpy(records + (size_t)slot * bytes, conr->temporary, bytes);
  }
  for (int64_t slot = 0; slot < conr->rows; slot++)
    conr->slot_of[order[slot]] = (int32_t)slot;
  spread_records(conr);
}

/* ---- forward: sums of every own row -------------------------------------------------------- */

static void *scale_of(const struct conr *conr, enum scale scale) {
  return conr->scales + (size_t)scale * (size_t)conr->rows * dtype_size(scalar_dtype(conr));
}

static struct pair_columns columns_of(const struct conr *conr) {
  return (struct pair_columns){.rows = conr->rows,
                               .features = conr->features,
                               .targets = conr->targets,
                               .stride = conr->stride,
                               .records = conr->records,
                               .labels = conr->labels,
                               .predictions = conr->predictions,
                               .scale_positive = scale_of(conr, SCALE_POSITIVE),
                               .scale_negative = scale_of(conr, SCALE_NEGATIVE),
                               .subtract = scale_of(conr, SUBTRACT),
                               .scale_mean = scale_of(conr, SCALE_MEAN)};
}

static void *thread_panel(const struct conr *conr) {
  return (char *)conr->panels + (size_t)omp_get_thread_num() * pairwise_workspace(conr->dtype, conr->features);
}

/* The own row (0 .. own_rows-1) at a place of a sweep. */
static int64_t own_row_at(const struct conr *conr, const struct sweep *sweep, int32_t place) {
  return (sweep->batch_order ? place : sweep->order[place]) - conr->own_first;
}

/* A piece of a sweep: one panel, or, where a rank has fewer panels than threads, some of its columns. */
struct slice {
  const int32_t *places; /* [count] own rows in the order of the storage */
  int count;
  int64_t first, last;               /* columns                                       */
  struct pair_sums sums[PANEL_ROWS]; /* forward                                      */
  const void *grad;                  /* backward: [count, features] in the workspace */
};

/* Slices a panel is cut into: enough for all threads, none narrower than a product likes. */
static int slices_of_panel(const struct conr *conr) {
  int64_t panels = panel_count(conr), widest = conr->rows / (2 * LEAST_COLUMNS);
  int64_t wanted = panels > 0 ? (conr->threads + panels - 1) / panels : 1;
  wanted = wanted < widest ? wanted : widest;
  return wanted > 1 ? (int)wanted : 1;
}

static struct slice slice_at(const struct conr *conr, const struct sweep *sweep, int64_t item, int slices) {
  int64_t panel = item / slices, part = item % slices;
  struct band_range range = sweep->range[panel];
  int64_t steps = (range.last - range.first) / COLUMN_STEP; /* a rest goes to the last slice */
  struct slice slice;
  slice.places = sweep->own + panel * conr->panel_rows;
  slice.count = panel_size(conr, panel);
  slice.first = range.first + steps * part / slices * COLUMN_STEP;
  slice.last = part + 1 == slices ? range.last : range.first + steps * (part + 1) / slices * COLUMN_STEP;
  slice.grad = NULL;
  return slice;
}

/* What is done with a slice: computed by any thread at any time, then added to the result. */
struct work {
  enum status (*compute)(const struct conr *conr, const struct sweep *sweep, struct slice *slice);
  void (*add)(const struct conr *conr, const struct sweep *sweep, const struct slice *slice, void *grad);
};

/* All slices of a sweep.  Slices of one panel are added in their order, so that a result does not depend on which thread
 * was faster. */
static enum status run_sweep(const struct conr *conr, const struct sweep *sweep, struct work work, void *grad) {
  int slices = slices_of_panel(conr), failures = 0;
  int64_t items = panel_count(conr) * slices;
  if (slices == 1) {
#pragma omp parallel for schedule(dynamic) num_threads(conr->threads) reduction(+ : failures)
    for (int64_t item = 0; item < items; item++) {
      struct slice slice = slice_at(conr, sweep, item, slices);
      failures += work.compute(conr, sweep, &slice) != STATUS_OK;
      work.add(conr, sweep, &slice, grad);
    }
  } else {
#pragma omp parallel for ordered schedule(dynamic) num_threads(conr->threads) reduction(+ : failures)
    for (int64_t item = 0; item < items; item++) {
      struct slice slice = slice_at(conr, sweep, item, slices);
      failures += work.compute(conr, sweep, &slice) != STATUS_OK;
#pragma omp ordered
      work.add(conr, sweep, &slice, grad);
    }
  }
  /* Sentences are kept by thread: say it again for the caller's. */
  REQUIRE(failures == 0, ERR_MEMORY, "a matrix product of the ConR loss failed: the memory may be full");
  return STATUS_OK;
}

static enum status compute_sums(const struct conr *conr, const struct sweep *sweep, struct slice *slice) {
  struct pair_columns columns = columns_of(conr);
  for (int i = 0; i < slice->count; i++)
    pair_sums_clear(&slice->sums[i]);
  return pairwise_forward(conr->dtype, &conr->rule, &columns, slice->places, slice->count, slice->first, slice->last,
                          sweep->pairs, thread_panel(conr), slice->sums);
}

static void add_sums(const struct conr *conr, const struct sweep *sweep, const struct slice *slice, void *grad) {
  (void)grad;
  for (int i = 0; i < slice->count; i++)
    pair_sums_add(&conr->rule, &conr->sums[own_row_at(conr, sweep, slice->places[i])], &slice->sums[i]);
}

static enum status forward_sweep(struct conr *conr, const struct sweep *sweep) {
  return run_sweep(conr, sweep, (struct work){compute_sums, add_sums}, NULL);
}

static enum status forward_sweeps(struct conr *conr, enum conr_path path) {
  for (int64_t i = 0; i < conr->own_rows; i++)
    pair_sums_clear(&conr->sums[i]);
  if (path == CONR_DENSE)
    return forward_sweep(conr, &conr->by_label);
  reorder_records(conr, conr->by_label.order);
  TRY(forward_sweep(conr, &conr->by_label));
  reorder_records(conr, conr->by_prediction.order);
  return forward_sweep(conr, &conr->by_prediction);
}

/* ---- the second exchange: two scalars a row ------------------------------------------------ */

/* log(exp(a) + exp(b)) */
static double log_add(double a, double b) {
  double high = fmax(a, b), low = fmin(a, b);
  return isinf(low) && low < 0 ? high : high + log1p(exp(low - high));
}

/* log D_i of one row; *log_mean = log sum_P exp(s). */
static double log_denominator(const struct conr *conr, const struct pair_sums *sums, double weight, double *log_mean) {
  double positive_max = conr->rule.wide ? (double)sums->positive_max : conr->rule.shift;
  double negative_max = conr->rule.wide ? (double)sums->negative_max : conr->rule.shift;
  double masked = conr->options.variant == CONR_PAPER ? 0 : (double)(conr->rows - sums->positives);
  *log_mean = sums->positives > 0 ? positive_max + log(sums->positive) : -INFINITY;
  double negative = sums->negatives > 0 && weight > 0 ? negative_max + log(weight) + log(sums->negative) : -INFINITY;
  return log_add(log_add(*log_mean, negative), log(masked));
}

/* A row's two scalars, u and (v or x), and its term of the loss.  Wide: log u and (v or log x). */
static void row_scalars(const struct conr *conr, const struct pair_sums *sums, double weight, double scalars[2],
                        struct trailer *trailer) {
  const struct conr_options *options = &conr->options;
  bool logarithms = conr->rule.wide, of_mean = options->aggregate == CONR_LOG_OF_MEAN;
  double nothing = logarithms ? -INFINITY : 0;
  scalars[0] = nothing;
  scalars[1] = of_mean ? nothing : 0;
  trailer->positives += sums->positives;
  trailer->negatives += sums->negatives;
  if (sums->positives == 0 || sums->negatives == 0)
    return;
  trailer->active++;
  double positives = sums->positives;
  double divisor = options->variant == CONR_DEPTH ? positives + 1 : positives;
  bool outer = options->variant == CONR_REFERENCE || (options->variant == CONR_PAPER && options->outer_weights);
  double a = (outer ? weight : 1.0) / (double)conr->rows;
  double log_mean, log_d = log_denominator(conr, sums, weight, &log_mean);
  double pull = of_mean ? log_mean - log(positives) : sums->similarity / divisor;
  trailer->loss += a * (positives / divisor * log_d - pull);
  double log_u = log(a * positives / divisor) - log_d, log_x = log(a) - log_mean;
  scalars[0] = logarithms ? log_u : exp(log_u + conr->rule.shift);
  if (of_mean)
    scalars[1] = logarithms ? log_x : exp(log_x + conr->rule.shift);
  else
    scalars[1] = a / divisor;
}

/* Own weight of an own row, from its record. */
static double weight_at(const struct conr *conr, int64_t slot) {
  return get(conr->dtype, conr->records, slot * conr->stride + conr->features + 2 * conr->targets);
}

/* The sentence for what befell a rank; all ranks say it. */
static enum status name_fault(enum fault fault, int rank) {
  if (fault == FAULT_BATCH)
    return agreed(fail(ERR_ARGUMENT, "rank %d brought NULL arrays, or other rows than rows_of_rank gives it", rank));
  if (fault == FAULT_PRODUCT)
    return agreed(
        fail(ERR_MEMORY, "a matrix product of the ConR loss failed on rank %d: its memory may be full", rank));
  return STATUS_OK;
}

/* Gather [u, second] of all rows; afterwards the exchange buffer holds them in batch order.
 * Each rank's rows are followed by its trailer; all ranks add the trailers in the same order. */
static enum status exchange_scalars(struct conr *conr, struct trailer *total) {
  int size = comm_size(conr->comm), rank = comm_rank(conr->comm), faulty = -1;
  enum dtype dtype = scalar_dtype(conr);
  int64_t units_per_row = 2 * (int64_t)dtype_size(dtype) / 8, units[size];
  char *next = conr->exchange;
  for (int r = 0; r < size; r++) {
    units[r] = conr->rows_of_rank[r] * units_per_row + (int64_t)TRAILER_UNITS;
    next += r < rank ? units[r] * 8 : 0;
  }
  struct trailer trailer = {.fault = conr->fault};
  for (int64_t i = 0; i < conr->own_rows; i++) {
    double scalars[2];
    row_scalars(conr, &conr->sums[i], weight_at(conr, conr->slot_of[conr->own_first + i]), scalars, &trailer);
    trailer.zero_rows += get(conr->dtype, conr->inverse, i) == 0;
    put(dtype, next, 2 * i, scalars[0]);
    put(dtype, next, 2 * i + 1, scalars[1]);
  }
  memcpy(next + conr->own_rows * units_per_row * 8, &trailer, sizeof trailer);
  TRY(comm_gather_rows(conr->comm, NULL, units, 8, conr->exchange));
  char *from = conr->exchange, *to = conr->exchange;
  *total = (struct trailer){0};
  for (int r = 0; r < size; r++) {
    size_t bytes = (size_t)(conr->rows_of_rank[r] * units_per_row) * 8;
    memcpy(&trailer, from + bytes, sizeof trailer);
    memmove(to, from, bytes);
    from += bytes + sizeof trailer;
    to += bytes;
    total->loss += trailer.loss;
    total->active += trailer.active;
    total->positives += trailer.positives;
    total->negatives += trailer.negatives;
    total->zero_rows += trailer.zero_rows;
    if (trailer.fault != FAULT_NONE && faulty < 0) {
      total->fault = trailer.fault;
      faulty = r;
    }
  }
  return name_fault((enum fault)total->fault, faulty);
}

/* ---- backward: complete gradients of the own rows ------------------------------------------ */

/* The row scalars as the pair arithmetic wants them, in the order of the storage. */
static void spread_scalars(struct conr *conr) {
  bool of_mean = conr->options.aggregate == CONR_LOG_OF_MEAN, wide = conr->rule.wide;
  enum dtype dtype = scalar_dtype(conr);
  for (int64_t row = 0; row < conr->rows; row++) {
    int64_t slot = conr->slot_of[row];
    double u = get(dtype, conr->exchange, 2 * row), second = get(dtype, conr->exchange, 2 * row + 1);
    double weight = weight_at(conr, slot);
    put(dtype, scale_of(conr, SCALE_POSITIVE), slot, of_mean && !wide ? u - second : u);
    put(dtype, scale_of(conr, SCALE_NEGATIVE), slot, wide ? u + log(weight) : u * weight);
    put(dtype, scale_of(conr, SUBTRACT), slot, of_mean ? 0 : second);
    if (wide)
      put(dtype, scale_of(conr, SCALE_MEAN), slot, of_mean ? second : -INFINITY);
  }
}

static enum status compute_gradient(const struct conr *conr, const struct sweep *sweep, struct slice *slice) {
  struct pair_columns columns = columns_of(conr);
  return pairwise_backward(conr->dtype, &conr->rule, &columns, slice->places, slice->count, slice->first, slice->last,
                           sweep->pairs, thread_panel(conr), &slice->grad);
}

/* grad[own row] += the slice's part of sum_j H_ij q_j / t. */
static void add_gradient(const struct conr *conr, const struct sweep *sweep, const struct slice *slice, void *grad) {
  for (int i = 0; i < slice->count && slice->grad != NULL; i++)
    row_add(conr->dtype, conr->features, element(conr->dtype, slice->grad, (int64_t)i * conr->features),
            at(conr->dtype, grad, own_row_at(conr, sweep, slice->places[i]) * conr->features));
}

static enum status backward_sweep(struct conr *conr, const struct sweep *sweep, void *grad) {
  spread_scalars(conr);
  return run_sweep(conr, sweep, (struct work){compute_gradient, add_gradient}, grad);
}

/* From the gradient of q to that of the features, for all own rows. */
static void through_norm(const struct conr *conr, const void *features, void *grad) {
#pragma omp parallel for schedule(static) if (conr->own_rows * conr->features > 16384)
  for (int64_t i = 0; i < conr->own_rows; i++)
    row_through_norm(conr->dtype, conr->features, element(conr->dtype, features, i * conr->features),
                     get(conr->dtype, conr->inverse, i), at(conr->dtype, grad, i * conr->features));
}

static enum status backward_sweeps(struct conr *conr, enum conr_path path, const void *features, void *grad) {
  memset(grad, 0, (size_t)conr->own_rows * (size_t)conr->features * dtype_size(conr->dtype));
  if (path == CONR_BANDED) { /* begin in the order the forward sweeps left */
    TRY(backward_sweep(conr, &conr->by_prediction, grad));
    reorder_records(conr, conr->by_label.order);
  }
  TRY(backward_sweep(conr, &conr->by_label, grad));
  through_norm(conr, features, grad);
  return STATUS_OK;
}

/* ---- the call ------------------------------------------------------------------------------ */

/* Multiply-adds of one sweep's matrix products, as operations; the backward sweep has two products. */
static double sweep_flops(const struct conr *conr, double computed_share, bool gradient) {
  return (gradient ? 6.0 : 2.0) * computed_share * (double)conr->own_rows * (double)conr->rows * conr->features;
}

/* What only this rank can see of its batch. */
static enum fault find_fault(const struct conr *conr, const struct conr_batch *batch) {
  bool missing = batch->rows > 0 && (!batch->features || !batch->labels || !batch->predictions);
  return missing || batch->rows != conr->own_rows ? FAULT_BATCH : FAULT_NONE;
}

int conr_loss(struct conr *conr, const struct conr_batch *batch, void *grad_features, struct conr_result *result) {
  struct trailer total;
  double computed_share;
  int64_t received = comm_traffic(conr->comm).gather_bytes;
  TRY(size_batch(conr, batch));
  conr->fault = find_fault(conr, batch);
  TRY(gather_records(conr, batch));
  TRY(make_rule(conr));
  TRY(grow_for_wide(conr));
  enum conr_path path = plan_sweeps(conr, &computed_share);
  if (forward_sweeps(conr, path) != STATUS_OK && conr->fault == FAULT_NONE)
    conr->fault = FAULT_PRODUCT;
  TRY(exchange_scalars(conr, &total));
  if (grad_features != NULL)
    TRY(backward_sweeps(conr, path, batch->features, grad_features));
  *result = (struct conr_result){.loss = total.loss,
                                 .rows = conr->rows,
                                 .active_anchors = (int64_t)total.active,
                                 .positive_pairs = (int64_t)total.positives,
                                 .negative_pairs = (int64_t)total.negatives,
                                 .zero_rows = (int64_t)total.zero_rows,
                                 .path = path,
                                 .computed_share = computed_share,
                                 .gemm_flops = sweep_flops(conr, computed_share, grad_features != NULL),
                                 .bytes_received = comm_traffic(conr->comm).gather_bytes - received,
                                 .workspace_bytes = conr->workspace_bytes};
  return STATUS_OK;
}
