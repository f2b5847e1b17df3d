/* ConR on a GPU: the call, its memory, its two gathers and its results. */
#include "loss/conr_cuda.h"

#include "dist/memory.h"
#include "dist/replay.h"

#include <float.h>
#include <math.h>

#define PANEL_BYTES ((int64_t)256 << 20) /* of similarities, about                                         */
#define PANEL_STEP 128                   /* rows: a tile of cuBLASLt's kernels                             */
#define PANEL_MOST 2048                  /* rows: beyond it products gain nothing, and the tile costs much */

/* --- create and destroy ------------------------------------------------------------------------------------- */

static enum status set_up(struct conr_device *conr, enum precision precision) {
  TRY(memory_alloc((size_t)comm_size(conr->comm) * sizeof(int64_t), (void **)&conr->rows_of_rank));
  TRY(memory_alloc_zero(2 * (size_t)conr->targets * sizeof(struct conr_order), (void **)&conr->bands.orders));
  TRY(conr_blocks_create(conr->device, conr->comm, &conr->blocks));
  for (int i = 0; i < WAITS; i++) {
    TRY(event_create(conr->device, &conr->waits[i]));
    TRY(event_create(conr->device, &conr->goes[i]));
  }
  TRY(device_alloc_pinned(conr->device, sizeof *conr->report, (void **)&conr->report));
  TRY(device_alloc(conr->device, sizeof *conr->found, (void **)&conr->found));
  TRY(device_alloc(conr->device, conr_inspect_bytes(conr->targets), (void **)&conr->partial_inspect));
  return product_create(conr->device, precision, &conr->product);
}

/* Local; destroy what it leaves, also where it fails. */
static enum status create(struct device *device, struct comm *comm, enum precision precision, int features, int targets,
                          const struct conr_options *options, struct conr_device **out) {
  TRY(memory_alloc_zero(sizeof **out, (void **)out));
  struct conr_device *conr = *out;
  conr->device = device;
  conr->stream = device_main(device);
  conr->comm = comm;
  conr->options = *options;
  conr->rule = rule_of_options(options);
  conr->dtype = precision == PRECISION_BF16 ? BF16 : F32;
  conr->features = features;
  conr->targets = targets;
  conr->stride = (int)conr_rounded(features, CONR_ALIGN);
  conr->capacity_rows = conr->capacity_own = -1;
  return set_up(conr, precision);
}

enum status conr_device_create(struct device *device, struct comm *comm, enum precision precision, int features,
                               int targets, const struct conr_options *options, struct conr_device **out) {
  *out = NULL;
  TRY(check_conr_options(features, targets, options));
  REQUIRE(options->memory_rows == 0, ERR_ARGUMENT,
          "ConR on a GPU has no memory of earlier rows, and %lld are asked for; give 0, or compute on the host",
          (long long)options->memory_rows);
  REQUIRE(precision != PRECISION_F64, ERR_ARGUMENT, "ConR on a GPU computes in f32, tf32 or bf16, not in f64");
  /* Else columns that only fill up, infinitely far away, would lie within it. */
  REQUIRE(options->w <= FLT_MAX, ERR_ARGUMENT, "w is %g, and labels on a GPU are float32; give at most %g", options->w,
          (double)FLT_MAX);
  enum status status = comm_agree(comm, create(device, comm, precision, features, targets, options, out));
  if (status != STATUS_OK)
    conr_device_destroy(out);
  return status;
}

/* --- memory that grows --------------------------------------------------------------------------------------- */

struct block {
  void **place;
  size_t bytes;
};

#define MOST_BLOCKS 32

static int64_t padded(int64_t rows) {
  return conr_rounded(rows, CONR_ALIGN);
}

int64_t conr_most_panel_rows(int64_t own_rows) {
  int64_t rows = conr_rounded(own_rows > 0 ? own_rows : 1, PANEL_STEP);
  return rows < PANEL_MOST ? rows : PANEL_MOST;
}

/* Rows that the largest panel really has: products take no more. */
static size_t most_product_rows(int64_t own_rows) {
  int64_t rows = conr_most_panel_rows(own_rows);
  return (size_t)(own_rows < rows ? own_rows : rows);
}

int conr_panel_rows(int64_t capacity, int64_t pitch, int64_t own_rows) {
  int64_t fit = capacity / (pitch > 0 ? pitch : 1) / PANEL_STEP * PANEL_STEP;
  int64_t rows = conr_most_panel_rows(own_rows);
  rows = rows < fit ? rows : fit;
  return (int)(rows > PANEL_STEP ? rows : PANEL_STEP);
}

int64_t conr_panel_capacity(int64_t rows, int64_t own) {
  int64_t pitch = padded(rows) > 0 ? padded(rows) : CONR_ALIGN, most = conr_most_panel_rows(own);
  int64_t fit = PANEL_BYTES / (int64_t)sizeof(float) / pitch / PANEL_STEP * PANEL_STEP;
  int64_t rows_fit = most < fit ? most : fit;
  return (rows_fit > PANEL_STEP ? rows_fit : PANEL_STEP) * pitch;
}

static int columns_blocks(struct conr_columns *columns, int targets, int64_t rows, struct block *out) {
  size_t pitch = (size_t)padded(rows), values = pitch * (size_t)targets * sizeof(float);
  out[0] = (struct block){(void **)&columns->labels, values};
  out[1] = (struct block){(void **)&columns->predictions, values};
  out[2] = (struct block){(void **)&columns->weights, pitch * sizeof(float)};
  out[3] = (struct block){&columns->scales, pitch * 4 * sizeof(double)};
  return 4;
}

/* What a batch takes, in a list; returns its length. */
static int dense_blocks(struct conr_device *conr, int64_t rows, int64_t own, bool lends, struct block *out) {
  size_t row = (size_t)conr->stride * dtype_size(conr->dtype), panel = (size_t)conr_panel_capacity(rows, own);
  size_t tile_rows = most_product_rows(own);
  const struct block blocks[] = {
      {&conr->q, (size_t)padded(rows) * row},
      {&conr->z, lends ? (size_t)padded(rows) * row : 0},
      {(void **)&conr->scalars, (size_t)rows * (size_t)(2 * conr->targets + 1) * sizeof(float)},
      {(void **)&conr->sums, (size_t)own * sizeof *conr->sums},
      {(void **)&conr->exchange, (size_t)rows * 2 * sizeof(double)},
      {(void **)&conr->inverse, (size_t)own * sizeof(float)},
      {(void **)&conr->partial_rows, conr_rows_bytes(own)},
      {(void **)&conr->similarity, panel * sizeof(float)},
      {&conr->coefficients, conr->dtype == BF16 ? panel * dtype_size(BF16) : 0},
      {(void **)&conr->tile, tile_rows * (size_t)conr->stride * sizeof(float)}};
  int count = (int)(sizeof blocks / sizeof *blocks);
  memcpy(out, blocks, sizeof blocks);
  return count + columns_blocks(&conr->columns, conr->targets, rows, out + count);
}

static int bands_blocks(struct conr_device *conr, int64_t rows, int64_t own, struct block *out) {
  struct conr_bands *bands = &conr->bands;
  size_t n = (size_t)rows, row = (size_t)conr->stride * dtype_size(conr->dtype), keys = 2 * (size_t)conr->targets;
  size_t tile_rows = most_product_rows(own);
  bands->scratch_bytes = sort_bytes(rows);
  const struct block blocks[] = {
      {(void **)&bands->indices, keys * (n + 2 * (size_t)own) * sizeof(int32_t)},
      {(void **)&bands->numbers, n * sizeof(int32_t)},
      {(void **)&bands->place_of, n * sizeof(int32_t)},
      {(void **)&bands->sorted, n * sizeof(float)},
      {&bands->scratch, bands->scratch_bytes},
      {(void **)&bands->ranges, keys * (size_t)conr_most_panels(own) * sizeof(struct conr_range)},
      {&bands->q, (size_t)padded(rows) * row},
      {&bands->q_own, tile_rows * row},
      {(void **)&bands->grad, (size_t)own * (size_t)conr->stride * sizeof(float)}};
  int count = (int)(sizeof blocks / sizeof *blocks);
  memcpy(out, blocks, sizeof blocks);
  return count + columns_blocks(&bands->columns, conr->targets, rows, out + count);
}

/* All that grows: bands are freed with the rest, whether they are there or not. */
static void free_batch_memory(struct conr_device *conr) {
  struct block blocks[MOST_BLOCKS];
  int count = dense_blocks(conr, 0, 0, false, blocks);
  count += bands_blocks(conr, 0, 0, blocks + count);
  for (int i = 0; i < count; i++)
    device_free(conr->device, blocks[i].place);
  device_free_pinned(conr->device, (void **)&conr->bands.ranges_host);
  conr->capacity_rows = conr->capacity_own = -1;
  conr->capacity_panel = 0;
  conr->capacity_bands = conr->capacity_lent = false;
  conr->bytes = 0;
}

static enum status allocate(struct conr_device *conr, int64_t rows, int64_t own, bool lends, bool bands) {
  struct block blocks[MOST_BLOCKS];
  int count = dense_blocks(conr, rows, own, lends, blocks);
  if (bands)
    count += bands_blocks(conr, rows, own, blocks + count);
  for (int i = 0; i < count; i++) {
    TRY(device_alloc(conr->device, blocks[i].bytes > 0 ? blocks[i].bytes : 1, blocks[i].place));
    conr->bytes += blocks[i].bytes;
  }
  if (!bands)
    return STATUS_OK;
  TRY(device_alloc_pinned(conr->device,
                          2 * (size_t)conr->targets * (size_t)conr_most_panels(own) * sizeof(struct conr_range),
                          (void **)&conr->bands.ranges_host));
  return conr_numbers_launch(rows, conr->bands.numbers, conr->stream);
}

/* Make room.  The decision depends on counts every rank knows, so all ranks come here together. */
static enum status grow(struct conr_device *conr, int64_t rows, int64_t most_own) {
  bool bands = conr->capacity_bands || conr_wants_bands(conr, rows);
  bool lends = conr->capacity_lent || conr->lends;
  if (rows <= conr->capacity_rows && most_own <= conr->capacity_own && bands == conr->capacity_bands &&
      lends == conr->capacity_lent)
    return STATUS_OK;
  rows = rows > conr->capacity_rows ? rows : conr->capacity_rows;
  most_own = most_own > conr->capacity_own ? most_own : conr->capacity_own;
  free_batch_memory(conr);
  enum status status = comm_agree(conr->comm, allocate(conr, rows, most_own, lends, bands));
  if (status != STATUS_OK) {
    free_batch_memory(conr);
    return status;
  }
  conr->capacity_rows = rows;
  conr->capacity_own = most_own;
  conr->capacity_panel = conr_panel_capacity(rows, most_own);
  conr->capacity_bands = bands;
  conr->capacity_lent = lends;
  return STATUS_OK;
}

void conr_device_destroy(struct conr_device **out) {
  struct conr_device *conr = *out;
  if (conr == NULL)
    return;
  if (conr_blocks_in_flight(&conr->blocks)) {
    *out = NULL; /* they may still write to what would be freed */
    return;
  }
  free_batch_memory(conr);
  conr_blocks_destroy(&conr->blocks);
  for (int i = 0; i < WAITS; i++) {
    event_destroy(&conr->waits[i]);
    event_destroy(&conr->goes[i]);
  }
  product_destroy(&conr->product);
  device_free(conr->device, (void **)&conr->partial_inspect);
  device_free(conr->device, (void **)&conr->found);
  device_free_pinned(conr->device, (void **)&conr->report);
  memory_free((void **)&conr->bands.orders);
  memory_free((void **)&conr->rows_of_rank);
  memory_free((void **)out);
}

/* --- the batch ------------------------------------------------------------------------------------------------ */

/* What only this rank can see of its batch, or of a block of it. */
static enum status check_rows(const struct conr_device *conr, const struct conr_batch *batch, bool there) {
  int64_t own = batch->rows_of_rank[comm_rank(conr->comm)];
  REQUIRE(batch->rows == own && there, ERR_ARGUMENT,
          "rank %d brought NULL arrays, or other rows (%lld) than rows_of_rank gives it (%lld)", comm_rank(conr->comm),
          (long long)batch->rows, (long long)own);
  return STATUS_OK;
}

struct begin_note {
  struct conr_device *conr;
  const int64_t *rows_of_rank; /* borrowed */
};

/* What every rank is told of all, and what was sent before. */
static enum status note_begin(const void *arguments) {
  const struct begin_note *note = arguments;
  struct conr_device *conr = note->conr;
  conr->bytes_before = comm_traffic(conr->comm).gather_bytes;
  conr->most_own = conr->rows = conr->own_first = 0;
  for (int r = 0; r < comm_size(conr->comm); r++) {
    int64_t rows = conr->rows_of_rank[r] = note->rows_of_rank[r];
    if (rows < 0)
      return agreed(fail(ERR_ARGUMENT, "rank %d gives %lld rows; 0 is the least", r, (long long)rows));
    conr->own_first += r < comm_rank(conr->comm) ? rows : 0;
    conr->most_own = rows > conr->most_own ? rows : conr->most_own;
    conr->rows += rows;
  }
  if (conr->rows >= INT32_MAX - CONR_ALIGN)
    return agreed(fail(ERR_ARGUMENT, "a global batch of %lld rows is too large; the limit is %d", (long long)conr->rows,
                       INT32_MAX - CONR_ALIGN - 1));
  return STATUS_OK;
}

static void set_columns(const struct conr_device *conr, struct conr_columns *columns) {
  columns->rows = conr->rows;
  columns->pitch = conr->pitch;
  columns->targets = conr->targets;
}

/* Where each order lies among the indices of this batch. */
static void set_orders(struct conr_device *conr) {
  int32_t *next = conr->bands.indices;
  for (int i = 0; i < 2 * conr->targets; i++) {
    struct conr_order *order = &conr->bands.orders[i];
    order->order = next;
    order->own = order->order + conr->rows;
    order->places = order->own + conr->own_rows;
    next = order->places + conr->own_rows;
  }
}

/* What follows from that, once there is room. */
static enum status note_shapes(const void *arguments) {
  struct conr_device *conr = *(struct conr_device *const *)arguments;
  conr->own_rows = conr->rows_of_rank[comm_rank(conr->comm)];
  conr->pitch = padded(conr->rows);
  set_columns(conr, &conr->columns);
  set_columns(conr, &conr->bands.columns);
  set_orders(conr);
  return STATUS_OK;
}

static enum status size_batch(struct conr_device *conr, const struct conr_batch *batch) {
  struct begin_note note = {conr, batch->rows_of_rank};
  REQUIRE(batch->rows_of_rank != NULL, ERR_BUG, "ConR on a GPU is to be told the rows of every rank");
  TRY(replay_note(conr->device, note_begin, &note, sizeof note));
  TRY(check_rows(conr, batch, true));
  TRY(grow(conr, conr->rows, conr->most_own));
  return replay_note(conr->device, note_shapes, &conr, sizeof conr);
}

/* --- the call, and its parts ---------------------------------------------------------------------------------- */

static size_t row_bytes(const struct conr_device *conr) {
  return (size_t)conr->stride * dtype_size(conr->dtype);
}

static size_t scalars_of_row(const struct conr_device *conr) {
  return 2 * (size_t)conr->targets + 1;
}

enum status conr_device_begin(struct conr_device *conr, const struct conr_batch *batch, int blocks, bool lend) {
  TRY(conr_blocks_begin(&conr->blocks, 2 * blocks));
  conr->lends = lend;
  return size_batch(conr, batch);
}

/* The first exchange, begun: features, normalised unless they are lent, and scalars of a block.  Their gathers wait for
 * the kernel that packs them. */
enum status conr_device_add(struct conr_device *conr, const struct conr_batch *block, const int64_t *first_of_rank) {
  TRY(check_rows(conr, block, block->rows == 0 || (block->features && block->labels && block->predictions)));
  TRY(conr_blocks_place(&conr->blocks, conr->rows_of_rank, block->rows_of_rank, first_of_rank));
  size_t own = (size_t)conr->blocks.own;
  void *rows = conr->lends ? conr->z : conr->q;
  float *inverse = conr->lends ? NULL : conr->inverse + (conr->blocks.own - conr->own_first);
  TRY(conr_pack_launch(conr->dtype, block->rows, conr->features, conr->stride, conr->targets, block->features,
                       block->labels, block->predictions, block->weights, (char *)rows + own * row_bytes(conr),
                       conr->scalars + own * scalars_of_row(conr), inverse, conr->stream));
  TRY(conr_blocks_gather(&conr->blocks, block->rows_of_rank, row_bytes(conr), rows));
  return conr_blocks_gather(&conr->blocks, block->rows_of_rank, scalars_of_row(conr) * sizeof(float), conr->scalars);
}

enum status conr_device_progress(struct conr_device *conr) {
  return conr_blocks_progress(&conr->blocks);
}

/* Products take more rows than there are. */
static enum status clear_beyond(const struct conr_device *conr, void *rows) {
  return device_zero(conr->device, (char *)rows + (size_t)conr->rows * row_bytes(conr),
                     (size_t)(conr->pitch - conr->rows) * row_bytes(conr));
}

/* The first exchange, ended: here the main stream waits for the rows of the other ranks. */
static enum status receive_rows(struct conr_device *conr) {
  TRY(event_mark(conr->waits[WAIT_ROWS], conr->stream));
  TRY(conr_blocks_finish(&conr->blocks, conr->rows));
  TRY(event_mark(conr->goes[WAIT_ROWS], conr->stream));
  if (conr->lends)
    TRY(conr_normalise_launch(conr->dtype, conr->rows, conr->features, conr->stride, conr->targets, conr->z,
                              conr->own_first, conr->own_rows, conr->q, conr->scalars, conr->inverse, conr->stream));
  TRY(clear_beyond(conr, conr->q));
  if (conr->lends)
    TRY(clear_beyond(conr, conr->z));
  TRY(conr_inspect_launch(&conr->rule, conr->rows, conr->targets, conr->scalars, conr->partial_inspect, conr->found,
                          conr->stream));
  return conr_columns_launch(&conr->columns, NULL, conr->scalars, conr->stream);
}

/* The second exchange: two doubles a row, which can be logarithms (16 bytes a row: the host does not know the form),
 * and the sums over ranks. */
static enum status exchange_row_scalars(struct conr_device *conr) {
  TRY(conr_rows_launch(&conr->rule, conr->own_rows, conr->rows, conr->sums, conr->columns.weights + conr->own_first,
                       conr->inverse, conr->exchange + 2 * conr->own_first, conr->partial_rows, conr->found,
                       conr->stream));
  TRY(event_mark(conr->waits[WAIT_SCALARS], conr->stream));
  TRY(comm_gather_rows(conr->comm, NULL, conr->rows_of_rank, 2 * sizeof(double), conr->exchange));
  TRY(event_mark(conr->goes[WAIT_SCALARS], conr->stream));
  return comm_sum(conr->comm, F64, conr->found->totals, CONR_TOTALS);
}

struct result_note {
  struct conr_device *conr;
  struct conr_result result;
};

/* As far as the host knows it: what the device finds out is not known yet. */
static enum status note_result(const void *arguments) {
  const struct result_note *note = arguments;
  struct conr_device *conr = note->conr;
  conr->result = note->result;
  conr->result.bytes_received = comm_traffic(conr->comm).gather_bytes - conr->bytes_before;
  return STATUS_OK;
}

/* What conr_device_finish() was asked for. */
struct finish_call {
  struct conr_device *conr;
  double coefficient;
  const void *features;
  void *grad_features;
};

/* All rows are there. */
static enum status queue_loss(const void *arguments) {
  const struct finish_call *call = arguments;
  struct conr_device *conr = call->conr;
  struct conr_device_sweep sweeps[2];
  struct result_note note = {.conr = conr};
  int count;
  double computed_share;
  conr->multiplied = 0;
  TRY(conr_plan_device(conr, sweeps, &count, &computed_share));
  TRY(conr_forward_device(conr, sweeps, count));
  TRY(exchange_row_scalars(conr));
  if (call->grad_features != NULL)
    TRY(conr_backward_device(conr, sweeps, count, call->coefficient, call->features, call->grad_features));
  note.result = (struct conr_result){.rows = conr->rows,
                                     .path = count == 1 ? CONR_DENSE : CONR_BANDED,
                                     .computed_share = computed_share,
                                     .gemm_flops = 2.0 * conr->multiplied * conr->features,
                                     .workspace_bytes = conr->bytes + product_bytes(conr->product)};
  TRY(replay_note(conr->device, note_result, &note, sizeof note));
  return device_copy(conr->device, conr->report, conr->found, sizeof *conr->report);
}

enum status conr_device_finish(struct conr_device *conr, double coefficient, const void *features,
                               void *grad_features) {
  struct finish_call call = {conr, coefficient, features, grad_features};
  TRY(receive_rows(conr));
  if (!conr_wants_bands(conr, conr->rows))
    return queue_loss(&call);
  /* The host waits for the orders, and the shapes of what follows depend on them. */
  return replay_call(conr->device, queue_loss, &call, sizeof call);
}

enum status conr_device_loss(struct conr_device *conr, const struct conr_batch *batch, double coefficient,
                             void *grad_features) {
  TRY(conr_device_begin(conr, batch, 1, false));
  TRY(conr_device_add(conr, batch, NULL));
  return conr_device_finish(conr, coefficient, batch->features, grad_features);
}

struct lent_rows conr_device_lent(const struct conr_device *conr) {
  return (struct lent_rows){.there = conr->lends,
                            .stride = conr->stride,
                            .label_stride = (int64_t)scalars_of_row(conr),
                            .z = conr->z,
                            .labels = conr->scalars};
}

/* How long the main stream waited; it has come to the end. */
static enum status wait_seconds(const struct conr_device *conr, double *sum) {
  *sum = 0;
  for (int i = 0; i < WAITS; i++) {
    double seconds;
    TRY(event_seconds(conr->waits[i], conr->goes[i], &seconds));
    *sum += seconds;
  }
  return STATUS_OK;
}

enum status conr_device_result(struct conr_device *conr, struct conr_result *result) {
  const struct conr_found *found = conr->report;
  TRY(comm_device_wait(conr->comm));
  if (found->bad < INFINITY) {
    int64_t index = (int64_t)found->bad, width = 2 * conr->targets + 1;
    return name_bad_scalar(conr->rows_of_rank, conr->targets, index / width, (int)(index % width), found->bad_value);
  }
  TRY(check_label_span(&conr->rule, F32, found->diameter));
  *result = conr->result;
  result->loss = found->totals[TOTAL_LOSS];
  TRY(wait_seconds(conr, &result->gather_seconds));
  result->active_anchors = (int64_t)found->totals[TOTAL_ACTIVE];
  result->positive_pairs = (int64_t)found->totals[TOTAL_POSITIVES];
  result->negative_pairs = (int64_t)found->totals[TOTAL_NEGATIVES];
  result->zero_rows = (int64_t)found->totals[TOTAL_ZERO_ROWS];
  return STATUS_OK;
}
