/* The sweeps of the ConR loss: own rows against columns, panel by panel, over all pairs or within bands. */
#include "loss/conr_internal.h"

#include <math.h>
#include <omp.h>

/* ---- sweeps: dense or banded --------------------------------------------------------------- */

/* Small batches get smaller panels, so that every thread has some.  By the global rows, not by the own ones:
 * the shape of the matrix products must not depend on how the rows are shared out. */
static void choose_panel_rows(struct conr *conr) {
  conr->panel_rows = conr->rows >= 4096 ? PANEL_ROWS : conr->rows >= 512 ? 2 * SMALLEST_PANEL : SMALLEST_PANEL;
  conr->rule.product_rows = conr->panel_rows;
}

/* Panels of full height, and one lower one at the end of a shard. */
static void cut_panels(struct conr *conr) {
  const struct conr_cuts *cuts = &conr->cuts;
  int rank = comm_rank(conr->comm);
  int64_t begin = cuts->first_row[cuts->planned];
  conr->panel_count = conr->own_panel = 0;
  for (int shard = cuts->planned; shard < cuts->planned_end; shard++) {
    if (shard == cuts->first_shard[rank])
      conr->own_panel = conr->panel_count;
    int64_t end = cuts->first_row[shard + 1];
    for (int64_t first = cuts->first_row[shard]; first < end; first += conr->panel_rows) {
      int64_t count = end - first < conr->panel_rows ? end - first : conr->panel_rows;
      conr->panel[conr->panel_count++] = (struct panel){.first = first - begin, .count = (int)count};
    }
    if (shard + 1 == cuts->first_shard[rank + 1])
      conr->own_panel_end = conr->panel_count;
  }
}

static int64_t planned_rows(const struct conr *conr) {
  return conr->cuts.first_row[conr->cuts.planned_end] - conr->cuts.first_row[conr->cuts.planned];
}

/* The shard of a batch row. */
static int shard_of(const struct conr_cuts *cuts, int64_t row) {
  int low = 0, high = cuts->shards;
  while (high - low > 1) {
    int middle = low + (high - low) / 2;
    if (cuts->first_row[middle] <= row)
      low = middle;
    else
      high = middle;
  }
  return low;
}

/* Columns as the matrix products want them: see COLUMN_STEP.  What is added is masked like everything else. */
static struct band_range widen(struct band_range range, int64_t columns) {
  int64_t missing = LEAST_COLUMNS - (range.last - range.first);
  if (missing > 0) {
    range.first -= missing / 2;
    range.last = range.first + LEAST_COLUMNS;
  }
  if (range.last > columns) {
    range.first -= range.last - columns;
    range.last = columns;
  }
  range.first = range.first > 0 ? range.first / COLUMN_STEP * COLUMN_STEP : 0;
  range.last = (range.last + COLUMN_STEP - 1) / COLUMN_STEP * COLUMN_STEP;
  return (struct band_range){range.first, range.last < columns ? range.last : columns};
}

/* The dense sweep is planned in the tables of the first band. */
static void plan_dense(struct conr *conr) {
  struct sweep *sweep = &conr->by_label;
  sweep->pairs = PAIRS_BOTH;
  sweep->batch_order = true;
  for (int64_t i = 0; i < planned_rows(conr); i++)
    sweep->own[i] = (int32_t)(conr->cuts.first_row[conr->cuts.planned] + i);
  for (int64_t p = 0; p < conr->panel_count; p++)
    sweep->range[p] = (struct band_range){0, conr->columns};
}

/* Places of the planned rows, ascending within each shard. */
static void place_planned(struct conr *conr, struct sweep *sweep) {
  struct conr_cuts *cuts = &conr->cuts;
  int64_t begin = cuts->first_row[cuts->planned], end = cuts->first_row[cuts->planned_end];
  for (int shard = cuts->planned; shard < cuts->planned_end; shard++)
    cuts->next[shard] = cuts->first_row[shard] - begin;
  for (int64_t place = 0; place < conr->columns; place++) {
    int64_t row = sweep->order[place];
    if (row >= begin && row < end)
      sweep->own[cuts->next[shard_of(cuts, row)]++] = (int32_t)place;
  }
}

/* Sort by one coordinate and find each panel's columns.  Returns the pairs to evaluate. */
static int64_t plan_band(struct conr *conr, const void *values, struct sweep *sweep) {
  int64_t pairs = 0;
  sweep->batch_order = false;
  band_sort(conr->dtype, values, (int32_t)conr->columns, conr->keys, sweep->order);
  place_planned(conr, sweep);
  for (int64_t p = 0; p < conr->panel_count; p++) {
    const int32_t *places = sweep->own + conr->panel[p].first;
    int count = conr->panel[p].count;
    struct band_range within = band_range(conr->dtype, values, sweep->order, conr->columns, conr->rule.w,
                                          dtype_get(conr->dtype, values, sweep->order[places[0]]),
                                          dtype_get(conr->dtype, values, sweep->order[places[count - 1]]));
    sweep->range[p] = widen(within, conr->columns);
    pairs += count * (sweep->range[p].last - sweep->range[p].first);
  }
  return pairs;
}

/* Of several components, the one whose sorted order leaves the fewest pairs. */
static int64_t plan_best_band(struct conr *conr, const void *values, struct sweep *sweep) {
  int best = 0;
  int64_t fewest = INT64_MAX, pairs = 0;
  for (int k = 0; k < conr->targets; k++) {
    pairs = plan_band(conr, (const char *)values + (size_t)(k * conr->columns) * dtype_size(conr->dtype), sweep);
    if (pairs < fewest) {
      fewest = pairs;
      best = k;
    }
  }
  if (best != conr->targets - 1)
    pairs = plan_band(conr, (const char *)values + (size_t)(best * conr->columns) * dtype_size(conr->dtype), sweep);
  return pairs;
}

/* Choose the path, by the planned rows.  Each rank may choose for itself: both paths take part in the same
 * collectives. */
enum conr_path plan_sweeps(struct conr *conr, double *computed_share) {
  double all = (double)planned_rows(conr) * (double)conr->columns;
  choose_panel_rows(conr);
  cut_panels(conr);
  *computed_share = 1;
  if (conr->options.path != CONR_DENSE && planned_rows(conr) > 0) {
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
  memset(conr->placed, 0, (size_t)conr->columns);
  for (int64_t start = 0; start < conr->columns; start++) {
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
  for (int64_t slot = 0; slot < conr->columns; slot++)
    conr->slot_of[order[slot]] = (int32_t)slot;
  spread_records(conr);
}

/* ---- forward: sums of every own row -------------------------------------------------------- */

static void *scale_of(const struct conr *conr, enum scale scale) {
  return conr->scales + (size_t)scale * (size_t)conr->columns * dtype_size(scalar_dtype(conr));
}

static struct pair_columns columns_of(const struct conr *conr) {
  return (struct pair_columns){.rows = conr->columns,
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
  int64_t panels = conr->own_panel_end - conr->own_panel, widest = conr->columns / (2 * LEAST_COLUMNS);
  int64_t wanted = panels > 0 ? (conr->threads + panels - 1) / panels : 1;
  wanted = wanted < widest ? wanted : widest;
  return wanted > 1 ? (int)wanted : 1;
}

static struct slice slice_at(const struct conr *conr, const struct sweep *sweep, int64_t item, int slices) {
  int64_t panel = conr->own_panel + item / slices, part = item % slices;
  struct band_range range = sweep->range[panel];
  int64_t steps = (range.last - range.first) / COLUMN_STEP; /* a rest goes to the last slice */
  struct slice slice;
  slice.places = sweep->own + conr->panel[panel].first;
  slice.count = conr->panel[panel].count;
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

/* All slices of a sweep.  Slices of one panel are added in their order, so that a result does not depend on which
 * thread was faster. */
static enum status run_sweep(const struct conr *conr, const struct sweep *sweep, struct work work, void *grad) {
  int slices = slices_of_panel(conr), failures = 0;
  int64_t items = (conr->own_panel_end - conr->own_panel) * slices;
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
    pair_sums_begin(&slice->sums[i]);
  return pairwise_forward(conr->dtype, &conr->rule, &columns, slice->places, slice->count, slice->first, slice->last,
                          sweep->pairs, thread_panel(conr), slice->sums);
}

static void add_sums(const struct conr *conr, const struct sweep *sweep, const struct slice *slice, void *grad) {
  (void)grad;
  for (int i = 0; i < slice->count; i++)
    pair_sums_join(conr->rule.wide, &conr->sums[own_row_at(conr, sweep, slice->places[i])], &slice->sums[i]);
}

static enum status forward_sweep(struct conr *conr, const struct sweep *sweep) {
  return run_sweep(conr, sweep, (struct work){compute_sums, add_sums}, NULL);
}

enum status forward_sweeps(struct conr *conr, enum conr_path path) {
  for (int64_t i = 0; i < conr->own_rows; i++)
    pair_sums_begin(&conr->sums[i]);
  if (path == CONR_DENSE)
    return forward_sweep(conr, &conr->by_label);
  reorder_records(conr, conr->by_label.order);
  TRY(forward_sweep(conr, &conr->by_label));
  reorder_records(conr, conr->by_prediction.order);
  return forward_sweep(conr, &conr->by_prediction);
}

/* ---- backward: complete gradients of the own rows ------------------------------------------ */

static void put_scales(struct conr *conr, int64_t slot, struct pair_scales scales) {
  enum dtype dtype = scalar_dtype(conr);
  dtype_put(dtype, scale_of(conr, SCALE_POSITIVE), slot, scales.positive);
  dtype_put(dtype, scale_of(conr, SCALE_NEGATIVE), slot, scales.negative);
  dtype_put(dtype, scale_of(conr, SUBTRACT), slot, scales.subtract);
  if (conr->rule.wide)
    dtype_put(dtype, scale_of(conr, SCALE_MEAN), slot, scales.mean);
}

/* The row scalars as the pair arithmetic wants them, in the order of the storage.  What is remembered is no anchor: its
 * scalars are those of a row without pairs. */
static void spread_scalars(struct conr *conr) {
  enum dtype dtype = scalar_dtype(conr);
  struct pair_sums none;
  pair_sums_begin(&none);
  struct pair_row idle = pair_row_of(&conr->rule, conr->rows, conr->columns, &none, 0);
  for (int64_t row = 0; row < conr->columns; row++) {
    bool anchor = row < conr->rows;
    int64_t slot = conr->slot_of[row];
    double u = anchor ? dtype_get(dtype, conr->exchange, 2 * row) : idle.u;
    double second = anchor ? dtype_get(dtype, conr->exchange, 2 * row + 1) : idle.second;
    put_scales(conr, slot, pair_scales_of(&conr->rule, u, second, weight_at(conr, slot)));
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
                     dtype_get(conr->dtype, conr->inverse, i), at(conr->dtype, grad, i * conr->features));
}

enum status backward_sweeps(struct conr *conr, enum conr_path path, const void *features, void *grad) {
  memset(grad, 0, (size_t)conr->own_rows * (size_t)conr->features * dtype_size(conr->dtype));
  if (path == CONR_BANDED) { /* begin in the order the forward sweeps left */
    TRY(backward_sweep(conr, &conr->by_prediction, grad));
    reorder_records(conr, conr->by_label.order);
  }
  TRY(backward_sweep(conr, &conr->by_label, grad));
  through_norm(conr, features, grad);
  return STATUS_OK;
}
