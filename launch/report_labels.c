/* Pictures by label: how many train on it, how large errors are, what is predicted. */
#include "launch/report_pictures.h"

#include "dist/memory.h"

#include <math.h>
#include <string.h>

/* Has a run before this one the same data?  Then its labels are shown already. */
static bool is_shown_already(const struct report *report, int r) {
  for (int before = 0; before < r; before++)
    if (report->run[before].components > 0 && report->run[before].hash == report->run[r].hash)
      return true;
  return false;
}

/* Then panels need the name of the run whose data they show. */
static bool have_several_data(const struct report *report) {
  for (int r = 0; r < report->runs; r++)
    if (report->run[r].components > 0 && report->run[r].hash != report_first_shown(report)->hash)
      return true;
  return false;
}

/* Panels of labels: each data file once, with each component. */
static int panels_of_data(const struct report *report) {
  int panels = 0;
  for (int r = 0; r < report->runs; r++)
    panels += is_shown_already(report, r) ? 0 : report->run[r].components;
  return panels;
}

/* ---- distribution --------------------------------------------------------------------------------- */

static int colour_of_group(enum metrics_group group) {
  return group == METRICS_MANY ? 0 : group == METRICS_MEDIAN ? 4 : 1;
}

/* Neighbours of one class are one strip. */
static enum status shade_groups(struct plot *plot, const struct label_view *view) {
  bool titled[METRICS_GROUPS] = {false};
  for (int b = 0, end; b < view->axis.count && view->group != NULL; b = end) {
    double low, high, unused;
    enum metrics_group group = view->group[b];
    for (end = b; end < view->axis.count && view->group[end] == group; end++)
      continue;
    label_axis_ends(&view->axis, b, &low, &unused);
    label_axis_ends(&view->axis, end - 1, &unused, &high);
    TRY(plot_shade(plot, low, high, colour_of_group(group), titled[group] ? NULL : metrics_group_name(group)));
    titled[group] = true;
  }
  return STATUS_OK;
}

/* Where the bins' bars and points stand. */
struct bins {
  double *middle, *value;
};

static enum status bins_create(const struct label_axis *axis, struct bins *bins) {
  *bins = (struct bins){0};
  TRY(memory_alloc((size_t)axis->count * sizeof(double), (void **)&bins->middle));
  enum status status = memory_alloc((size_t)axis->count * sizeof(double), (void **)&bins->value);
  for (int b = 0; b < axis->count && status == STATUS_OK; b++) {
    double low, high;
    label_axis_ends(axis, b, &low, &high);
    bins->middle[b] = (low + high) / 2;
  }
  return status;
}

static void bins_destroy(struct bins *bins) {
  memory_free((void **)&bins->middle);
  memory_free((void **)&bins->value);
}

static struct plot_axis label_range(const struct label_view *view, const char *title) {
  struct plot_axis axis = {.title = title};
  double unused;
  label_axis_ends(&view->axis, 0, &axis.low, &unused);
  label_axis_ends(&view->axis, view->axis.count - 1, &unused, &axis.high);
  return axis;
}

static enum status draw_distribution(struct plot *plot, const struct report *report, int r, int component) {
  const struct report_run *run = &report->run[r];
  const struct label_view *view = run->view[component];
  struct bins bins;
  char title[512];
  enum status status;
  TRY_GOTO(bins_create(&view->axis, &bins), out);
  for (int b = 0; b < view->axis.count; b++)
    bins.value[b] = (double)view->train[b];
  TRY_GOTO(plot_panel(plot, &(struct plot_panel){.title = picture_title(run, component, have_several_data(report),
                                                                        title, sizeof title),
                                                 .x = label_range(view, run->target[component]),
                                                 .y = {.title = "training samples", .low = 0, .high = NAN}}),
           out);
  TRY_GOTO(shade_groups(plot, view), out);
  status = plot_series(plot, &(struct plot_series){.style = PLOT_BARS,
                                                   .colour = PLOT_GREY,
                                                   .count = view->axis.count,
                                                   .x = bins.middle,
                                                   .y = bins.value,
                                                   .width = view->axis.width});
out:
  bins_destroy(&bins);
  return status;
}

static enum status write_labels(const struct report *report) {
  struct numbers numbers;
  TRY(numbers_open(report, "labels.csv", "run,component,group,low,high,training_samples,samples,mae", &numbers));
  for (int r = 0; r < report->runs; r++)
    for (int k = 0; k < report->run[r].components; k++) {
      const struct label_view *view = report->run[r].view[k];
      for (int b = 0; b < view->axis.count; b++) {
        double low, high;
        label_axis_ends(&view->axis, b, &low, &high);
        numbers_text(&numbers, report->run[r].name);
        numbers_text(&numbers, report->run[r].target[k]);
        numbers_text(&numbers, view->group != NULL ? metrics_group_name(view->group[b]) : "");
        NUMBERS(&numbers, low, high, (double)view->train[b], (double)view->rows[b], view->mae[b]);
      }
    }
  return numbers_close(&numbers);
}

/* What bins and classes mean in this report. */
static void describe_bins(const struct report *report, char *text, size_t bytes) {
  const struct config *config = report->config;
  const struct report_run *run = report_first_shown(report);
  size_t used = (size_t)snprintf(text, bytes,
                                 "Shaded: labels whose bin of width %g holds more than %lld training samples (many), "
                                 "fewer than %lld (few), or neither (median).",
                                 config->bin_width, (long long)config->many, (long long)config->few);
  if (run->components > 1)
    used = (size_t)snprintf(text, bytes,
                            "Classes of labels of several components are those of all components together, and are not "
                            "shaded.");
  if (run->view[0]->axis.width != config->bin_width && used < bytes)
    snprintf(text + used, bytes - used, " Bins shown: of width %g%s.", run->view[0]->axis.width,
             run->view[0]->axis.merged && run->components == 1
                 ? ", of the class that most of their training samples have"
                 : "");
}

static enum status picture_labels(struct report *report) {
  struct plot *plot = NULL;
  char caption[1024], bins[512];
  int panels = panels_of_data(report);
  enum status status;
  struct plot_layout layout = picture_layout(panels);
  TRY_GOTO(plot_create(&layout, &plot), out);
  for (int r = 0; r < report->runs; r++)
    for (int k = 0; k < report->run[r].components && !is_shown_already(report, r); k++)
      TRY_GOTO(draw_distribution(plot, report, r, k), out);
  describe_bins(report, bins, sizeof bins);
  snprintf(caption, sizeof caption, "How many training samples have a label. %s", bins);
  status = picture_finish(report, plot, "labels", "Label distribution of the training split", caption);
out:
  plot_destroy(&plot);
  return status;
}

/* ---- errors by label ------------------------------------------------------------------------ */

static enum status draw_errors_of(struct plot *plot, const struct report *report, int r, int component) {
  const struct label_view *view = report->run[r].view[component];
  struct bins bins;
  enum status status;
  TRY_GOTO(bins_create(&view->axis, &bins), out);
  memcpy(bins.value, view->mae, (size_t)view->axis.count * sizeof(double));
  status = plot_series(plot, &(struct plot_series){.style = PLOT_LINES_POINTS,
                                                   .title = picture_key(report, r),
                                                   .colour = r,
                                                   .count = view->axis.count,
                                                   .x = bins.middle,
                                                   .y = bins.value});
out:
  bins_destroy(&bins);
  return status;
}

/* Runs on the same data share a panel. */
static enum status draw_errors(struct plot *plot, const struct report *report, int first, int component) {
  const struct report_run *run = &report->run[first];
  char title[512], y[512];
  picture_axis("mean absolute error", run->target[component], y, sizeof y);
  TRY(plot_panel(
      plot, &(struct plot_panel){.title = picture_title(run, component, have_several_data(report), title, sizeof title),
                                 .x = label_range(run->view[component], run->target[component]),
                                 .y = {.title = y, .low = 0, .high = NAN}}));
  TRY(shade_groups(plot, run->view[component]));
  for (int r = first; r < report->runs; r++)
    if (report->run[r].components > component && report->run[r].hash == run->hash)
      TRY(draw_errors_of(plot, report, r, component));
  return STATUS_OK;
}

static enum status picture_errors(struct report *report) {
  struct plot *plot = NULL;
  char caption[1400], bins[512];
  int panels = panels_of_data(report);
  enum status status;
  struct plot_layout layout = picture_layout(panels);
  layout.width = panels == 1 ? 640 : layout.width;
  layout.height = panels == 1 ? 320 : layout.height;
  TRY_GOTO(plot_create(&layout, &plot), out);
  for (int r = 0; r < report->runs; r++)
    for (int k = 0; k < report->run[r].components && !is_shown_already(report, r); k++)
      TRY_GOTO(draw_errors(plot, report, r, k), out);
  describe_bins(report, bins, sizeof bins);
  snprintf(caption, sizeof caption,
           "Mean absolute error of the samples of a bin in the %s split, by their label. Labels without samples are "
           "gaps. %s",
           report->config->part, bins);
  status = picture_finish(report, plot, "errors", "Error by label", caption);
out:
  plot_destroy(&plot);
  return status;
}

/* ---- predictions ---------------------------------------------------------------------------- */

/* Runs on the same data have the same axes. */
static void common_range(const struct report *report, uint64_t hash, int component, double *low, double *high) {
  *low = INFINITY;
  *high = -INFINITY;
  for (int r = 0; r < report->runs; r++)
    if (report->run[r].components > component && report->run[r].hash == hash) {
      *low = fmin(*low, report->run[r].view[component]->low);
      *high = fmax(*high, report->run[r].view[component]->high);
    }
  double room = 0.02 * (*high - *low);
  *low -= room;
  *high += room;
}

/* The fullest cell of all runs: their colours are to mean the same. */
static double most_in_a_cell(const struct report *report) {
  double most = 1;
  for (int r = 0; r < report->runs; r++)
    for (int k = 0; k < report->run[r].components; k++) {
      const double *cells = report->run[r].view[k]->cells;
      for (int c = 0; cells != NULL && c < LABEL_VIEW_CELLS * LABEL_VIEW_CELLS; c++)
        most = fmax(most, cells[c]);
    }
  return most;
}

static enum status draw_cells(struct plot *plot, const struct report *report, const struct label_view *view) {
  double edges[LABEL_VIEW_CELLS + 1];
  for (int e = 0; e <= LABEL_VIEW_CELLS; e++)
    edges[e] = label_view_edge(view, e);
  return plot_map(plot, &(struct plot_map){.columns = LABEL_VIEW_CELLS,
                                           .rows = LABEL_VIEW_CELLS,
                                           .x_edges = edges,
                                           .y_edges = edges,
                                           .values = view->cells,
                                           .title = "samples",
                                           .low = 1,
                                           .high = fmax(2, most_in_a_cell(report)),
                                           .logarithmic = true});
}

static enum status draw_predictions(struct plot *plot, const struct report *report, int r, int component) {
  const struct report_run *run = &report->run[r];
  const struct label_view *view = run->view[component];
  char title[512], x[512], y[512], note[64];
  double ends[2];
  common_range(report, run->hash, component, &ends[0], &ends[1]);
  TRY(plot_panel(
      plot,
      &(struct plot_panel){
          .title = picture_title(run, component, report->runs > 1, title, sizeof title),
          .x = {.title = picture_axis("label", run->target[component], x, sizeof x), .low = ends[0], .high = ends[1]},
          .y = {.title = picture_axis("prediction", run->target[component], y, sizeof y),
                .low = ends[0],
                .high = ends[1]},
          .key = PLOT_KEY_NONE}));
  if (view->cells != NULL)
    TRY(draw_cells(plot, report, view));
  else
    TRY(plot_series(
        plot, &(struct plot_series){
                  .style = PLOT_DOTS, .colour = r, .count = view->points, .x = view->label, .y = view->prediction}));
  TRY(plot_series(plot,
                  &(struct plot_series){
                      .style = PLOT_LINES, .colour = PLOT_BLACK, .dashed = true, .count = 2, .x = ends, .y = ends}));
  if (run->components > 1)
    return STATUS_OK;
  snprintf(note, sizeof note, "MAE %.4g, r %.3f", run->table.row[METRICS_ALL].mae, run->table.row[METRICS_ALL].pearson);
  return plot_note(plot, note);
}

/* Points, or cells, whichever the run has. */
static void put_predictions(const struct numbers *numbers, const struct report_run *run, int component, bool points) {
  const struct label_view *view = run->view[component];
  for (int64_t i = 0; i < view->points && points; i++) {
    numbers_text(numbers, run->name);
    numbers_text(numbers, run->target[component]);
    NUMBERS(numbers, view->label[i], view->prediction[i]);
  }
  for (int c = 0; c < LABEL_VIEW_CELLS * LABEL_VIEW_CELLS && !points && view->cells != NULL; c++) {
    int column = c % LABEL_VIEW_CELLS, row = c / LABEL_VIEW_CELLS;
    if (view->cells[c] == 0)
      continue;
    numbers_text(numbers, run->name);
    numbers_text(numbers, run->target[component]);
    NUMBERS(numbers, label_view_edge(view, column), label_view_edge(view, column + 1), label_view_edge(view, row),
            label_view_edge(view, row + 1), view->cells[c]);
  }
}

static enum status write_predictions(const struct report *report) {
  struct numbers points, cells;
  TRY(numbers_open(report, "predictions.csv", "run,component,label,prediction", &points));
  enum status status =
      numbers_open(report, "predictions_cells.csv",
                   "run,component,label_low,label_high,prediction_low,prediction_high,samples", &cells);
  if (status != STATUS_OK) {
    numbers_close(&points);
    return status;
  }
  for (int r = 0; r < report->runs; r++)
    for (int k = 0; k < report->run[r].components; k++) {
      put_predictions(&points, &report->run[r], k, true);
      put_predictions(&cells, &report->run[r], k, false);
    }
  status = numbers_close(&points);
  enum status other = numbers_close(&cells);
  return status != STATUS_OK ? status : other;
}

static enum status picture_predictions(struct report *report) {
  struct plot *plot = NULL;
  char caption[1024];
  enum status status;
  struct plot_layout layout = picture_layout(picture_panels(report));
  layout.width = layout.height = layout.width > 400 ? 360 : layout.width; /* squares: both axes are labels */
  TRY_GOTO(plot_create(&layout, &plot), out);
  for (int r = 0; r < report->runs; r++)
    for (int k = 0; k < report->run[r].components; k++)
      TRY_GOTO(draw_predictions(plot, report, r, k), out);
  snprintf(caption, sizeof caption,
           "Each sample of the %s split: what the run's %s checkpoint predicts, against the label. Dashed: no error. "
           "More than %d samples are counted in %d by %d cells.",
           report->config->part, report->config->checkpoint, LABEL_VIEW_POINTS, LABEL_VIEW_CELLS, LABEL_VIEW_CELLS);
  status = picture_finish(report, plot, "predictions", "Predicted against true", caption);
out:
  plot_destroy(&plot);
  return status;
}

enum status pictures_of_labels(struct report *report) {
  TRY(write_labels(report));
  TRY(write_predictions(report));
  if (report_first_shown(report) == NULL)
    return STATUS_OK;
  TRY(picture_labels(report));
  TRY(picture_errors(report));
  return picture_predictions(report);
}
