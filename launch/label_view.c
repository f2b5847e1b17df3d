/* Labels and errors in bins. */
#include "launch/label_view.h"

#include "dist/memory.h"

#include <math.h>

static enum status allocate(struct label_view *view, const struct label_view_parts *parts) {
  size_t bins = (size_t)view->axis.count, points = (size_t)view->points;
  TRY(memory_alloc_zero(bins * sizeof *view->train, (void **)&view->train));
  TRY(memory_alloc_zero(bins * sizeof *view->rows, (void **)&view->rows));
  TRY(memory_alloc_zero(bins * sizeof *view->mae, (void **)&view->mae));
  if (parts->targets == 1)
    TRY(memory_alloc_zero(bins * sizeof *view->group, (void **)&view->group));
  if (view->points == parts->rows) {
    TRY(memory_alloc(points * sizeof *view->label, (void **)&view->label));
    return memory_alloc(points * sizeof *view->prediction, (void **)&view->prediction);
  }
  return memory_alloc_zero((size_t)LABEL_VIEW_CELLS * LABEL_VIEW_CELLS * sizeof *view->cells, (void **)&view->cells);
}

/* Labels of both parts, in one array for the axis. */
static enum status find_axis(const struct label_view_parts *parts, int component, struct label_axis *axis) {
  int64_t count = parts->train_rows + parts->rows;
  double *all;
  TRY(memory_alloc((size_t)count * sizeof *all, (void **)&all));
  for (int64_t i = 0; i < parts->train_rows; i++)
    all[i] = parts->train[i * parts->targets + component];
  for (int64_t i = 0; i < parts->rows; i++)
    all[parts->train_rows + i] = parts->labels[i * parts->targets + component];
  enum status status = label_axis_cover(parts->bin_width, LABEL_VIEW_BINS, count, all, 1, axis);
  memory_free((void **)&all);
  return status;
}

static void count_training(struct label_view *view, const struct label_view_parts *parts, int component) {
  for (int64_t i = 0; i < parts->train_rows; i++) {
    int b = label_axis_index(&view->axis, parts->train[i * parts->targets + component]);
    view->train[b < 0 ? 0 : b] += b >= 0;
  }
}

static void measure_errors(struct label_view *view, const struct label_view_parts *parts, int component) {
  for (int64_t i = 0; i < parts->rows; i++) {
    double label = parts->labels[i * parts->targets + component];
    int b = label_axis_index(&view->axis, label);
    if (b < 0)
      continue;
    view->rows[b]++;
    view->mae[b] += fabs(parts->predictions[i * parts->targets + component] - label);
  }
  for (int b = 0; b < view->axis.count; b++)
    view->mae[b] = view->rows[b] > 0 ? view->mae[b] / (double)view->rows[b] : NAN;
}

/* The class of a label in the middle of the bin: all of it has the same, where bins are not merged. */
static enum metrics_group group_of_middle(const struct label_view *view, const struct metrics *metrics, int b) {
  double low, high;
  label_axis_ends(&view->axis, b, &low, &high);
  double middle = (low + high) / 2;
  return metrics_shot(metrics, F64, &middle);
}

static enum status find_groups(struct label_view *view, const struct label_view_parts *parts) {
  int64_t(*tally)[METRICS_GROUPS];
  int bins = view->axis.count;
  TRY(memory_alloc_zero((size_t)bins * sizeof *tally, (void **)&tally));
  for (int64_t i = 0; i < parts->train_rows && view->axis.merged; i++) {
    int b = label_axis_index(&view->axis, parts->train[i]);
    if (b >= 0)
      tally[b][metrics_shot(parts->metrics, F64, &parts->train[i])]++;
  }
  for (int b = 0; b < bins; b++) {
    int most = METRICS_MANY;
    for (int group = METRICS_MANY; group < METRICS_GROUPS; group++)
      most = tally[b][group] > tally[b][most] ? group : most;
    bool known = view->axis.merged && tally[b][most] > 0;
    view->group[b] = known ? (enum metrics_group)most : group_of_middle(view, parts->metrics, b);
  }
  memory_free((void **)&tally);
  return STATUS_OK;
}

static void find_range(struct label_view *view, const struct label_view_parts *parts, int component) {
  view->low = INFINITY;
  view->high = -INFINITY;
  for (int64_t i = 0; i < parts->rows; i++) {
    double label = parts->labels[i * parts->targets + component];
    double prediction = parts->predictions[i * parts->targets + component];
    view->low = fmin(view->low, fmin(label, prediction));
    view->high = fmax(view->high, fmax(label, prediction));
  }
  if (!(view->low < view->high)) { /* one value, or none: an axis has a length */
    double middle = isfinite(view->low) ? view->low : 0;
    view->low = middle - 0.5;
    view->high = middle + 0.5;
  }
}

static int cell_of(const struct label_view *view, double value) {
  int cell = (int)floor((value - view->low) / (view->high - view->low) * LABEL_VIEW_CELLS);
  return cell < 0 ? 0 : cell < LABEL_VIEW_CELLS ? cell : LABEL_VIEW_CELLS - 1;
}

static void take_predictions(struct label_view *view, const struct label_view_parts *parts, int component) {
  for (int64_t i = 0; i < parts->rows; i++) {
    double label = parts->labels[i * parts->targets + component];
    double prediction = parts->predictions[i * parts->targets + component];
    if (view->cells != NULL) {
      view->cells[cell_of(view, prediction) * LABEL_VIEW_CELLS + cell_of(view, label)]++;
    } else {
      view->label[i] = label;
      view->prediction[i] = prediction;
    }
  }
}

double label_view_edge(const struct label_view *view, int e) {
  return view->low + (view->high - view->low) * e / LABEL_VIEW_CELLS;
}

enum status label_view_create(const struct label_view_parts *parts, int component, struct label_view **out) {
  struct label_view *view;
  enum status status;
  *out = NULL;
  TRY(memory_alloc_zero(sizeof *view, (void **)&view));
  TRY_GOTO(find_axis(parts, component, &view->axis), out);
  view->points = parts->rows <= LABEL_VIEW_POINTS ? parts->rows : 0;
  TRY_GOTO(allocate(view, parts), out);
  count_training(view, parts, component);
  measure_errors(view, parts, component);
  if (view->group != NULL)
    TRY_GOTO(find_groups(view, parts), out);
  find_range(view, parts, component);
  take_predictions(view, parts, component);
  *out = view;
out:
  if (status != STATUS_OK)
    label_view_destroy(&view);
  return status;
}

void label_view_destroy(struct label_view **view) {
  if (*view == NULL)
    return;
  void **const arrays[] = {(void **)&(*view)->train, (void **)&(*view)->rows,  (void **)&(*view)->mae,
                           (void **)&(*view)->group, (void **)&(*view)->label, (void **)&(*view)->prediction,
                           (void **)&(*view)->cells};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
    memory_free(arrays[i]);
  memory_free((void **)view);
}
