/* The ConR loss over a global batch: the call, its workspace, and the rule of a batch.
 *
 * A row of the global batch travels as one record: q [features], label [targets], prediction [targets],
 * weight.  The gathered records are the only copy of the features; banded evaluation sorts them in place,
 * by label for the pairs of close labels and by prediction for the pairs of close predictions. */
#include "loss/conr_internal.h"

#include "dist/memory.h"

#include <math.h>
#include <omp.h>

/* Largest e times label distance, and largest label distance.  Beyond these limits squares, or exponents, leave the
 * range of their type. */
#define LARGEST_PUSH 1e6
#define LARGEST_SPAN_F32 1e18
#define LARGEST_SPAN_F64 1e150

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

_Static_assert((int)CONR_EUCLIDEAN == PAIR_EUCLIDEAN && (int)CONR_MANHATTAN == PAIR_MANHATTAN &&
                   (int)CONR_CHEBYSHEV == PAIR_CHEBYSHEV,
               "pair.h names the distances anew");

enum status check_conr_options(int features, int targets, const struct conr_options *options) {
  REQUIRE(features >= 1, ERR_ARGUMENT, "features is %d; give at least 1", features);
  REQUIRE(targets >= 1, ERR_ARGUMENT, "targets is %d; give at least 1", targets);
  REQUIRE(options->w >= 0 && isfinite(options->w), ERR_ARGUMENT, "w is %g; give a finite window >= 0", options->w);
  REQUIRE(options->t > 0 && isfinite(options->t), ERR_ARGUMENT, "t is %g; give a finite temperature > 0", options->t);
  REQUIRE(options->e >= 0 && isfinite(options->e), ERR_ARGUMENT, "e is %g; give a finite strength >= 0", options->e);
  REQUIRE(options->variant >= CONR_PAPER && options->variant <= CONR_DEPTH, ERR_ARGUMENT, "variant %d does not exist",
          (int)options->variant);
  REQUIRE(options->variant == CONR_PAPER || options->aggregate == CONR_MEAN_OF_LOG, ERR_ARGUMENT,
          "the logarithm of the mean belongs to the paper variant only");
  REQUIRE(options->variant == CONR_PAPER || !options->outer_weights, ERR_ARGUMENT,
          "outer weights are a choice of the paper variant only (reference always has them, depth never)");
  REQUIRE(options->memory_rows >= 0 && options->memory_rows < INT32_MAX, ERR_ARGUMENT,
          "a memory of %lld rows cannot be; give 0 to %d", (long long)options->memory_rows, INT32_MAX - 1);
  REQUIRE(options->constant_rows >= 0 && isfinite(options->constant_rows), ERR_ARGUMENT,
          "the constant of %g rows cannot be; give a finite number >= 0", options->constant_rows);
  REQUIRE(options->variant != CONR_PAPER || options->constant_rows == 0, ERR_ARGUMENT,
          "the paper variant has no constant whose rows could be %g; give 0", options->constant_rows);
  return STATUS_OK;
}

static enum status allocate_cuts(struct conr *conr, int shards) {
  struct conr_cuts *cuts = &conr->cuts;
  size_t size = (size_t)comm_size(conr->comm), count = (size_t)shards;
  cuts->shards = shards;
  TRY(memory_alloc((count + 1) * sizeof *cuts->first_row, (void **)&cuts->first_row));
  TRY(memory_alloc((size + 1) * sizeof *cuts->first_shard, (void **)&cuts->first_shard));
  return memory_alloc(count * sizeof *cuts->next, (void **)&cuts->next);
}

int conr_create(MPI_Comm comm, int features, int targets, enum conr_precision precision,
                const struct conr_options *options, struct conr **out) {
  *out = NULL;
  REQUIRE(precision == CONR_F32 || precision == CONR_F64, ERR_ARGUMENT, "precision %d is neither CONR_F32 nor CONR_F64",
          (int)precision);
  TRY(check_conr_options(features, targets, options));
  struct conr *conr = NULL;
  TRY(memory_alloc_zero(sizeof *conr, (void **)&conr));
  conr->options = *options;
  conr->dtype = precision == CONR_F32 ? F32 : F64;
  conr->features = features;
  conr->targets = targets;
  conr->threads = omp_get_max_threads();
  conr->stride = features + 2 * targets + 1;
  conr->capacity_rows = conr->capacity_columns = conr->capacity_own = -1;
  enum status status;
  TRY_GOTO(comm_create(comm, &conr->comm), failed);
  TRY_GOTO(comm_agree(conr->comm, memory_of_options(options, conr->stride, &conr->memory)), failed);
  TRY_GOTO(memory_alloc((size_t)comm_size(conr->comm) * sizeof(int64_t), (void **)&conr->rows_of_rank), failed);
  TRY_GOTO(conr_blocks_create(NULL, conr->comm, &conr->blocks), failed);
  TRY_GOTO(allocate_cuts(conr, comm_size(conr->comm)), failed);
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
                     &conr->z,
                     &conr->lent_labels,
                     (void **)&conr->by_label.order,
                     (void **)&conr->by_label.own,
                     (void **)&conr->by_label.range,
                     (void **)&conr->by_prediction.order,
                     (void **)&conr->by_prediction.own,
                     (void **)&conr->by_prediction.range,
                     (void **)&conr->panel,
                     &conr->phase,
                     &conr->exchange,
                     &conr->inverse,
                     &conr->panels};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
    memory_free(blocks[i]);
  conr->capacity_rows = conr->capacity_columns = conr->capacity_own = -1;
  conr->capacity_lent = false;
}

static void free_cuts(struct conr_cuts *cuts) {
  memory_free((void **)&cuts->first_row);
  memory_free((void **)&cuts->first_shard);
  memory_free((void **)&cuts->next);
}

void conr_destroy(struct conr **conr) {
  if (*conr == NULL)
    return;
  /* MPI may still write to what would be freed; and other ranks would not come to free a communicator. */
  if (conr_blocks_in_flight(&(*conr)->blocks)) {
    *conr = NULL;
    return;
  }
  free_workspace(*conr);
  conr_blocks_destroy(&(*conr)->blocks);
  memory_free((void **)&(*conr)->memory.state);
  free_cuts(&(*conr)->cuts);
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

static enum status allocate_sweep(struct conr *conr, int64_t planned, size_t panels, struct sweep *sweep) {
  TRY(allocate(conr, (size_t)planned * sizeof *sweep->own, (void **)&sweep->own));
  return allocate(conr, panels * sizeof *sweep->range, (void **)&sweep->range);
}

/* Each shard may end with a panel that is not full. */
static enum status allocate_panels(struct conr *conr, int64_t rows, int64_t own) {
  int64_t planned = conr->cuts.cut ? rows : own;
  size_t panels = (size_t)planned / SMALLEST_PANEL + (size_t)(conr->cuts.cut ? conr->cuts.shards : 1);
  TRY(allocate(conr, panels * sizeof *conr->panel, (void **)&conr->panel));
  TRY(allocate_sweep(conr, planned, panels, &conr->by_label));
  return allocate_sweep(conr, planned, panels, &conr->by_prediction);
}

static size_t larger(size_t a, size_t b) {
  return a > b ? a : b;
}

/* Bytes of what depends on the type of the row scalars. */
static size_t exchange_bytes(const struct conr *conr, int64_t rows, enum dtype scalars) {
  return (size_t)rows * 2 * dtype_size(scalars) + (size_t)conr->cuts.shards * sizeof(struct trailer);
}

static size_t phase_bytes(int64_t columns, int64_t own, enum dtype scalars) {
  size_t forward = larger((size_t)columns * sizeof(struct band_key), (size_t)own * sizeof(struct pair_sums));
  return larger(forward, SCALES * (size_t)columns * dtype_size(scalars));
}

static enum status allocate_lent(struct conr *conr, size_t rows) {
  size_t real = dtype_size(conr->dtype);
  TRY(allocate(conr, rows * (size_t)conr->features * real, &conr->z));
  return allocate(conr, rows * (size_t)conr->targets * real, &conr->lent_labels);
}

static enum status allocate_workspace(struct conr *conr, int64_t rows, int64_t columns, int64_t own, bool lends) {
  size_t n = (size_t)columns, real = dtype_size(conr->dtype);
  conr->workspace_bytes = conr->memory.count * sizeof *conr->memory.state;
  if (lends)
    TRY(allocate_lent(conr, (size_t)rows));
  TRY(allocate(conr, n * (size_t)conr->stride * real, &conr->records));
  TRY(allocate(conr, (size_t)conr->stride * real, &conr->temporary));
  TRY(allocate(conr, n * (size_t)conr->targets * real, &conr->labels));
  TRY(allocate(conr, n * (size_t)conr->targets * real, &conr->predictions));
  TRY(allocate(conr, n * sizeof(int32_t), (void **)&conr->slot_of));
  TRY(allocate(conr, n, (void **)&conr->placed));
  TRY(allocate(conr, n * sizeof(int32_t), (void **)&conr->by_label.order));
  TRY(allocate(conr, n * sizeof(int32_t), (void **)&conr->by_prediction.order));
  TRY(allocate_panels(conr, rows, own));
  TRY(allocate(conr, phase_bytes(columns, own, conr->dtype), &conr->phase));
  TRY(allocate(conr, exchange_bytes(conr, rows, conr->dtype), &conr->exchange));
  TRY(allocate(conr, (size_t)own * real, &conr->inverse));
  return allocate(conr, (size_t)conr->threads * pairwise_workspace(conr->dtype, conr->features), &conr->panels);
}

/* Make room.  The decision depends on counts every rank knows, so all ranks come here together. */
static enum status grow_workspace(struct conr *conr, int64_t rows, int64_t columns, int64_t most_own) {
  bool lends = conr->lends || conr->capacity_lent;
  if (rows <= conr->capacity_rows && columns <= conr->capacity_columns && most_own <= conr->capacity_own &&
      lends == conr->capacity_lent)
    return STATUS_OK;
  int64_t rows_wanted = rows > conr->capacity_rows ? rows : conr->capacity_rows;
  int64_t columns_wanted = columns > conr->capacity_columns ? columns : conr->capacity_columns;
  int64_t own_wanted = most_own > conr->capacity_own ? most_own : conr->capacity_own;
  free_workspace(conr);
  enum status status = allocate_workspace(conr, rows_wanted, columns_wanted, own_wanted, lends);
  if (status != STATUS_OK)
    free_workspace(conr);
  TRY(comm_agree(conr->comm, status));
  conr->capacity_rows = rows_wanted;
  conr->capacity_columns = columns_wanted;
  conr->capacity_own = own_wanted;
  conr->capacity_wide = false;
  conr->capacity_lent = lends;
  return STATUS_OK;
}

/* Room for row scalars in double, the first time a batch is wide.  All ranks see the same labels and come here
 * together. */
static enum status grow_for_wide(struct conr *conr) {
  if (!conr->rule.wide || conr->dtype == F64 || conr->capacity_wide)
    return STATUS_OK;
  memory_free(&conr->phase);
  memory_free(&conr->exchange);
  enum status status = allocate(conr, phase_bytes(conr->capacity_columns, conr->capacity_own, F64), &conr->phase);
  if (status == STATUS_OK)
    status = allocate(conr, exchange_bytes(conr, conr->capacity_rows, F64), &conr->exchange);
  if (status != STATUS_OK)
    free_workspace(conr);
  TRY(comm_agree(conr->comm, status));
  conr->capacity_wide = true;
  return STATUS_OK;
}

/* Each rank is one shard. */
static void cut_by_rank(struct conr *conr) {
  struct conr_cuts *cuts = &conr->cuts;
  int size = comm_size(conr->comm), rank = comm_rank(conr->comm);
  cuts->first_row[0] = 0;
  for (int r = 0; r <= size; r++) {
    cuts->first_shard[r] = r;
    if (r < size)
      cuts->first_row[r + 1] = cuts->first_row[r] + conr->rows_of_rank[r];
  }
  cuts->planned = rank;
  cuts->planned_end = rank + 1;
}

enum status conr_cut(struct conr *conr, const int64_t *rows_of_shard, const int *shards_of_rank) {
  struct conr_cuts *cuts = &conr->cuts;
  int size = comm_size(conr->comm), shards = 0;
  for (int r = 0; r < size; r++)
    shards += shards_of_rank[r];
  if (!cuts->cut || shards != cuts->shards) {
    free_workspace(conr); /* its size follows from the shards */
    free_cuts(cuts);
    TRY(allocate_cuts(conr, shards));
  }
  cuts->cut = true;
  cuts->first_row[0] = cuts->first_shard[0] = 0;
  for (int r = 0; r < size; r++)
    cuts->first_shard[r + 1] = cuts->first_shard[r] + shards_of_rank[r];
  for (int s = 0; s < shards; s++)
    cuts->first_row[s + 1] = cuts->first_row[s] + rows_of_shard[s];
  cuts->planned = 0;
  cuts->planned_end = shards;
  return STATUS_OK;
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
  conr->views = batch->views > 1 ? batch->views : 1;
  conr->rows = conr->own_first = 0;
  for (int r = 0; r < size; r++) {
    int64_t rows = conr->rows_of_rank[r];
    if (rows < 0)
      return agreed(fail(ERR_ARGUMENT, "rank %d gives %lld rows; 0 is the least", r, (long long)rows));
    if (rows % conr->views != 0)
      return agreed(fail(ERR_ARGUMENT, "rank %d gives %lld rows, which are not %d views of its samples", r,
                         (long long)rows, conr->views));
    conr->own_first += r < rank ? rows : 0;
    most_own = rows > most_own ? rows : most_own;
    conr->rows += rows;
  }
  if (conr->rows + conr->memory.rows >= INT32_MAX)
    return agreed(fail(ERR_ARGUMENT, "a global batch of %lld rows, and %lld remembered, is too large; the limit is %d",
                       (long long)conr->rows, (long long)conr->memory.rows, INT32_MAX - 1));
  conr->own_rows = conr->rows_of_rank[rank];
  TRY(check_memory(&conr->memory));
  conr->columns = conr->rows + remembered_rows(&conr->memory);
  if (!conr->cuts.cut)
    cut_by_rank(conr);
  return grow_workspace(conr, conr->rows, conr->rows + conr->memory.rows, most_own);
}

/* ---- the rule of this batch --------------------------------------------------------------- */

static double label_diameter(const struct conr *conr) {
  double diameter = 0;
  for (int k = 0; k < conr->targets; k++) {
    double low = INFINITY, high = -INFINITY;
    for (int64_t i = 0; i < conr->columns; i++) {
      double label = dtype_get(conr->dtype, conr->labels, k * conr->columns + i);
      low = label < low ? label : low;
      high = label > high ? label : high;
    }
    diameter = pair_diameter_add(conr->rule.distance, diameter, conr->columns > 0 ? high - low : 0);
  }
  return diameter;
}

struct pair_rule rule_of_options(const struct conr_options *options) {
  bool depth = options->variant == CONR_DEPTH, paper = options->variant == CONR_PAPER;
  return (struct pair_rule){.distance = (enum pair_distance)options->distance,
                            .w = options->w,
                            .temperature = options->t,
                            .push_constant = depth ? 0 : 1,
                            .push_slope = depth ? options->e : 0,
                            .push_rate = depth ? 0 : options->e,
                            .count_masked = !paper,
                            .constant_rows = options->constant_rows,
                            .count_self = depth,
                            .outer_weights = options->variant == CONR_REFERENCE || (paper && options->outer_weights),
                            .log_of_mean = options->aggregate == CONR_LOG_OF_MEAN};
}

enum status check_label_span(const struct pair_rule *rule, enum dtype dtype, double diameter) {
  if (rule->push_rate * diameter > LARGEST_PUSH)
    return agreed(fail(ERR_NUMERIC,
                       "labels span %g and e is %g, so the push exp(e d) has no meaning; lower e, or rescale "
                       "the labels",
                       diameter, rule->push_rate));
  if (diameter > (dtype == F32 ? LARGEST_SPAN_F32 : LARGEST_SPAN_F64))
    return agreed(fail(ERR_NUMERIC, "labels span %g, too much for their precision; rescale the labels", diameter));
  return STATUS_OK;
}

/* All ranks see the same labels and make the same rule. */
static enum status make_rule(struct conr *conr) {
  conr->rule = rule_of_options(&conr->options);
  double diameter = label_diameter(conr);
  TRY(check_label_span(&conr->rule, conr->dtype, diameter));
  pair_rule_span(&conr->rule, diameter, conr->dtype == F32 ? PAIR_EXPONENTS_F32 : PAIR_EXPONENTS_F64);
  return STATUS_OK;
}

/* ---- the call, and its parts ------------------------------------------------------------------------------ */

/* Multiply-adds of one sweep's matrix products, as operations; the backward sweep has two products. */
static double sweep_flops(const struct conr *conr, double computed_share, bool gradient) {
  return (gradient ? 6.0 : 2.0) * computed_share * (double)conr->own_rows * (double)conr->columns * conr->features;
}

enum status conr_begin(struct conr *conr, const struct conr_batch *batch, int blocks, bool lend) {
  TRY(conr_blocks_begin(&conr->blocks, blocks));
  conr->lends = lend;
  conr->before = comm_traffic(conr->comm);
  TRY(size_batch(conr, batch));
  conr->fault = batch->rows != conr->own_rows ? FAULT_BATCH : FAULT_NONE;
  return STATUS_OK;
}

enum status conr_add(struct conr *conr, const struct conr_batch *block, const int64_t *first_of_rank) {
  bool missing = block->rows > 0 && (!block->features || !block->labels || !block->predictions);
  if (missing || block->rows != block->rows_of_rank[comm_rank(conr->comm)])
    conr->fault = FAULT_BATCH;
  return send_records(conr, block, first_of_rank);
}

enum status conr_progress(struct conr *conr) {
  return conr_blocks_progress(&conr->blocks);
}

enum status conr_finish(struct conr *conr, const void *features, void *grad_features, struct conr_result *result) {
  struct trailer total;
  double computed_share;
  TRY(receive_records(conr));
  TRY(make_rule(conr));
  TRY(grow_for_wide(conr));
  enum conr_path path = plan_sweeps(conr, &computed_share);
  if (forward_sweeps(conr, path) != STATUS_OK && conr->fault == FAULT_NONE)
    conr->fault = FAULT_PRODUCT;
  TRY(exchange_scalars(conr, &total));
  if (grad_features != NULL)
    TRY(backward_sweeps(conr, path, features, grad_features));
  if (grad_features != NULL)
    remember_records(conr);
  struct comm_traffic now = comm_traffic(conr->comm);
  *result = (struct conr_result){.loss = total.loss,
                                 .rows = conr->rows,
                                 .active_anchors = (int64_t)total.active,
                                 .positive_pairs = (int64_t)total.positives,
                                 .negative_pairs = (int64_t)total.negatives,
                                 .zero_rows = (int64_t)total.zero_rows,
                                 .path = path,
                                 .computed_share = computed_share,
                                 .gemm_flops = sweep_flops(conr, computed_share, grad_features != NULL),
                                 .bytes_received = now.gather_bytes - conr->before.gather_bytes,
                                 .workspace_bytes = conr->workspace_bytes,
                                 .gather_seconds = now.gather_seconds - conr->before.gather_seconds};
  return STATUS_OK;
}

struct lent_rows conr_lent(const struct conr *conr) {
  return (struct lent_rows){.there = conr->lends,
                            .stride = conr->features,
                            .label_stride = conr->targets,
                            .z = conr->z,
                            .labels = conr->lent_labels};
}

int conr_loss(struct conr *conr, const struct conr_batch *batch, void *grad_features, struct conr_result *result) {
  struct conr_batch block = *batch;
  TRY(conr_begin(conr, batch, 1, false));
  block.rows_of_rank = conr->rows_of_rank;
  TRY(conr_add(conr, &block, NULL));
  return conr_finish(conr, batch->features, grad_features, result);
}
