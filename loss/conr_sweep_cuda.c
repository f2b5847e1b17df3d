/* The sweeps of ConR on a GPU: own rows against columns, panel by panel, over all pairs or within bands. */
#include "loss/conr_cuda.h"

#include <math.h>

#define BAND_PANELS 32   /* panels that a rank's rows are cut into where bands are wanted: more make narrower bands, */
#define BAND_LEAST 128   /* but products of fewer rows waste the tensor cores                                     */
#define WIDTH_SHARE 256  /* widths of bands are multiples of rows / this, so that few shapes of products occur    */
#define WIDTH_MOST 256   /* columns; the multiple is at most this                                                 */
#define DENSE_ENOUGH 0.9 /* share of pairs beyond which one dense sweep is quicker than two banded ones           */

/* --- plans -------------------------------------------------------------------------------------------------- */

static int64_t band_rows(int64_t own_rows) {
  int64_t rows = conr_rounded((own_rows + BAND_PANELS - 1) / BAND_PANELS, BAND_LEAST);
  return rows < BAND_LEAST ? BAND_LEAST : rows;
}

int64_t conr_most_panels(int64_t own_rows) {
  return own_rows / BAND_LEAST + 1;
}

static int64_t panel_count(const struct conr_device *conr, int panel_rows) {
  return (conr->own_rows + panel_rows - 1) / panel_rows;
}

static int panel_size(const struct conr_device *conr, int panel_rows, int64_t panel) {
  int64_t left = conr->own_rows - panel * panel_rows;
  return (int)(left < panel_rows ? left : panel_rows);
}

/* Columns as products want them; what is added is masked like everything else. */
static struct conr_range widen(struct conr_range range, int64_t pitch) {
  int64_t step = conr_rounded(pitch / WIDTH_SHARE, CONR_ALIGN);
  step = step < CONR_ALIGN ? CONR_ALIGN : step < WIDTH_MOST ? step : WIDTH_MOST;
  int64_t first = range.first / CONR_ALIGN * CONR_ALIGN;
  int64_t width = conr_rounded(range.last > first ? range.last - first : 1, step);
  width = width < pitch ? width : pitch;
  first = first + width <= pitch ? first : pitch - width;
  return (struct conr_range){(int32_t)first, (int32_t)(first + width)};
}

/* Sort by one component, all rows and the own ones, and find each panel's columns.  keys [rows] */
static enum status queue_order(struct conr_device *conr, const float *keys, const struct conr_order *order,
                               int panel_rows, struct conr_range *ranges) {
  struct conr_bands *bands = &conr->bands;
  /* The own keys first: the sorted keys of all rows are needed afterwards. */
  TRY(sort_launch(conr->own_rows, keys + conr->own_first, bands->numbers, bands->sorted, order->own, bands->scratch,
                  bands->scratch_bytes, conr->stream));
  TRY(sort_launch(conr->rows, keys, bands->numbers, bands->sorted, order->order, bands->scratch, bands->scratch_bytes,
                  conr->stream));
  TRY(conr_invert_launch(conr->rows, order->order, bands->place_of, conr->stream));
  return conr_ranges_launch(conr->rule.w, conr->rows, bands->sorted, bands->place_of, conr->own_first, conr->own_rows,
                            panel_rows, order->own, order->places, ranges, conr->stream);
}

/* All orders, and their ranges on the host: what is waited for. */
static enum status sort_rows(struct conr_device *conr, int panel_rows) {
  struct conr_bands *bands = &conr->bands;
  int64_t panels = panel_count(conr, panel_rows);
  for (int i = 0; i < 2 * conr->targets; i++) {
    const float *values = i < conr->targets ? conr->columns.labels : conr->columns.predictions;
    TRY(queue_order(conr, values + i % conr->targets * conr->pitch, &bands->orders[i], panel_rows,
                    bands->ranges + i * panels));
  }
  TRY(device_copy(conr->device, bands->ranges_host, bands->ranges,
                  2 * (size_t)conr->targets * (size_t)panels * sizeof *bands->ranges));
  return comm_device_wait(conr->comm);
}

/* Widen the ranges of one order; returns the pairs to evaluate. */
static int64_t widen_ranges(const struct conr_device *conr, int panel_rows, struct conr_range *ranges) {
  int64_t pairs = 0;
  for (int64_t p = 0; p < panel_count(conr, panel_rows); p++) {
    ranges[p] = widen(ranges[p], conr->pitch);
    pairs += (int64_t)panel_size(conr, panel_rows, p) * (ranges[p].last - ranges[p].first);
  }
  return pairs;
}

/* Of the orders first .. first + targets - 1 the one that leaves the fewest pairs, which are added to *pairs. */
static struct conr_device_sweep best_band(struct conr_device *conr, int first, enum pair_class pairs, int panel_rows,
                                          int64_t *all) {
  int64_t fewest = INT64_MAX, panels = panel_count(conr, panel_rows);
  struct conr_device_sweep best = {.pairs = pairs, .panel_rows = panel_rows};
  for (int i = first; i < first + conr->targets; i++) {
    struct conr_range *ranges = conr->bands.ranges_host + i * panels;
    int64_t count = widen_ranges(conr, panel_rows, ranges);
    if (count < fewest) {
      fewest = count;
      best.order = &conr->bands.orders[i];
      best.ranges = ranges;
    }
  }
  *all += fewest;
  return best;
}

enum status conr_plan_device(struct conr_device *conr, struct conr_device_sweep sweeps[2], int *count,
                             double *computed_share) {
  double all = (double)conr->own_rows * (double)conr->rows;
  int dense_rows = conr_panel_rows(conr->capacity_panel, conr->pitch, conr->own_rows);
  if (conr->own_rows > 0 && conr_wants_bands(conr, conr->rows)) {
    int64_t wanted = band_rows(conr->own_rows), pairs = 0;
    int panel_rows = (int)(wanted < dense_rows ? wanted : dense_rows);
    TRY(sort_rows(conr, panel_rows));
    sweeps[0] = best_band(conr, 0, PAIRS_POSITIVE, panel_rows, &pairs);
    sweeps[1] = best_band(conr, conr->targets, PAIRS_NEGATIVE, panel_rows, &pairs);
    *computed_share = (double)pairs / all;
    *count = 2;
    if (conr->options.path == CONR_BANDED || *computed_share < DENSE_ENOUGH)
      return STATUS_OK;
  }
  sweeps[0] = (struct conr_device_sweep){.pairs = PAIRS_BOTH, .panel_rows = dense_rows};
  *computed_share = 1;
  *count = 1;
  return STATUS_OK;
}

/* --- panels ------------------------------------------------------------------------------------------------- */

static size_t row_bytes(const struct conr_device *conr) {
  return (size_t)conr->stride * dtype_size(conr->dtype);
}

static const struct conr_columns *columns_of(const struct conr_device *conr, const struct conr_device_sweep *sweep) {
  return sweep->order == NULL ? &conr->columns : &conr->bands.columns;
}

/* q of a panel's columns. */
static const void *q_of(const struct conr_device *conr, const struct conr_device_sweep *sweep,
                        const struct conr_panel *panel) {
  const char *q = sweep->order == NULL ? conr->q : conr->bands.q;
  return q + (size_t)panel->first * row_bytes(conr);
}

static struct conr_panel panel_at(const struct conr_device *conr, const struct conr_device_sweep *sweep,
                                  int64_t index) {
  int64_t begin = index * sweep->panel_rows;
  struct conr_panel panel = {.rows = panel_size(conr, sweep->panel_rows, index),
                             .columns = conr->pitch,
                             .first_place = conr->own_first + begin,
                             .first_own = begin,
                             .similarity = conr->similarity};
  if (sweep->order != NULL) {
    panel.first = sweep->ranges[index].first;
    panel.columns = sweep->ranges[index].last - panel.first;
    panel.places = sweep->order->places + begin;
    panel.own = sweep->order->own + begin;
  }
  return panel;
}

/* The panel's similarities.  In batch order its rows lie side by side; in another they are brought together first. */
static enum status similarities(struct conr_device *conr, const struct conr_device_sweep *sweep,
                                const struct conr_panel *panel) {
  const void *own = (const char *)conr->q + (size_t)panel->first_place * row_bytes(conr);
  if (panel->own != NULL) {
    TRY(conr_take_rows_launch(panel->rows, row_bytes(conr), panel->own, conr->own_first, conr->q, conr->bands.q_own,
                              conr->stream));
    own = conr->bands.q_own;
  }
  conr->multiplied += (double)panel->rows * (double)panel->columns;
  return product_similarities(conr->product, panel->rows, panel->columns, conr->stride, 1 / conr->options.t, own,
                              q_of(conr, sweep, panel), panel->similarity);
}

/* Bring the columns into the sweep's order; with the scales of the backward sweeps, when there are such. */
static enum status order_columns(struct conr_device *conr, const struct conr_device_sweep *sweep) {
  struct conr_bands *bands = &conr->bands;
  if (sweep->order == NULL)
    return STATUS_OK;
  TRY(conr_columns_launch(&bands->columns, sweep->order->order, conr->scalars, conr->stream));
  TRY(conr_take_rows_launch(conr->rows, row_bytes(conr), sweep->order->order, 0, conr->q, bands->q, conr->stream));
  return device_zero(conr->device, (char *)bands->q + (size_t)conr->rows * row_bytes(conr),
                     (size_t)(conr->pitch - conr->rows) * row_bytes(conr));
}

/* --- forward ------------------------------------------------------------------------------------------------ */

static enum status forward_sweep(struct conr_device *conr, const struct conr_device_sweep *sweep) {
  TRY(order_columns(conr, sweep));
  for (int64_t p = 0; p < panel_count(conr, sweep->panel_rows); p++) {
    struct conr_panel panel = panel_at(conr, sweep, p);
    TRY(similarities(conr, sweep, &panel));
    TRY(conr_sums_launch(&conr->rule, conr->found, columns_of(conr, sweep), &panel, sweep->pairs, conr->sums,
                         conr->stream));
  }
  return STATUS_OK;
}

enum status conr_forward_device(struct conr_device *conr, const struct conr_device_sweep *sweeps, int count) {
  TRY(conr_sums_begin_launch(conr->own_rows, conr->sums, conr->stream));
  for (int i = 0; i < count && conr->own_rows > 0; i++)
    TRY(forward_sweep(conr, &sweeps[i]));
  return STATUS_OK;
}

/* --- backward ----------------------------------------------------------------------------------------------- */

/* tile [panel rows, stride] = sum_j H_ij q_j over the panel's columns.  kept: its similarities are still there. */
static enum status panel_gradient(struct conr_device *conr, const struct conr_device_sweep *sweep,
                                  const struct conr_panel *panel, bool kept) {
  void *h = conr->dtype == BF16 ? conr->coefficients : panel->similarity;
  if (!kept)
    TRY(similarities(conr, sweep, panel));
  TRY(conr_coefficients_launch(&conr->rule, conr->found, columns_of(conr, sweep), panel, sweep->pairs, conr->dtype, h,
                               conr->stream));
  conr->multiplied += (double)panel->rows * (double)panel->columns;
  return product_gradients(conr->product, panel->rows, panel->columns, conr->stride, h, q_of(conr, sweep, panel),
                           conr->tile);
}

/* Where bands are swept one after the other a row's gradient has two parts, which are added before it is finished.
 * kept: the last panel's similarities are there, as its own forward sweep left them; so that panel is the first. */
static enum status backward_sweep(struct conr_device *conr, const struct conr_device_sweep *sweep, bool kept,
                                  double factor, const void *features, void *grad) {
  size_t row = (size_t)conr->features * dtype_size(conr->dtype);
  int64_t last = panel_count(conr, sweep->panel_rows) - 1;
  TRY(conr_scales_launch(&conr->rule, conr->found, columns_of(conr, sweep),
                         sweep->order == NULL ? NULL : sweep->order->order, conr->exchange, conr->stream));
  for (int64_t p = last; p >= 0; p--) {
    struct conr_panel panel = panel_at(conr, sweep, p);
    size_t from = (size_t)panel.first_own * row;
    TRY(panel_gradient(conr, sweep, &panel, kept && p == last));
    if (panel.own != NULL)
      TRY(conr_add_rows_launch(panel.rows, conr->stride, panel.own, conr->tile, conr->bands.grad, conr->stream));
    else
      TRY(conr_finish_launch(conr->dtype, panel.rows, conr->features, conr->stride, factor, conr->tile,
                             (const char *)features + from, conr->inverse + panel.first_own, false, (char *)grad + from,
                             conr->stream));
  }
  return STATUS_OK;
}

enum status conr_backward_device(struct conr_device *conr, const struct conr_device_sweep *sweeps, int count,
                                 double coefficient, const void *features, void *grad) {
  double factor = coefficient / conr->options.t;
  if (conr->own_rows == 0)
    return STATUS_OK;
  if (count == 1)
    return backward_sweep(conr, &sweeps[0], true, factor, features, grad);
  /* Begin in the order that the forward sweeps left. */
  TRY(device_zero(conr->device, conr->bands.grad, (size_t)conr->own_rows * (size_t)conr->stride * sizeof(float)));
  TRY(backward_sweep(conr, &sweeps[1], true, factor, features, grad));
  TRY(order_columns(conr, &sweeps[0]));
  TRY(backward_sweep(conr, &sweeps[0], false, factor, features, grad));
  return conr_finish_launch(conr->dtype, conr->own_rows, conr->features, conr->stride, factor, conr->bands.grad,
                            features, conr->inverse, false, grad, conr->stream);
}
