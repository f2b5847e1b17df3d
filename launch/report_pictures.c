/* The pictures of a report, and the numbers in them. */
#include "launch/report.h"

#include "dist/memory.h"
#include "io/durable.h"

#include <csv.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- CSV ------------------------------------------------------------------------------------ */

/* A file of numbers: the first row names the columns. */
struct numbers {
  struct durable durable;
  FILE *file;
};

static enum status numbers_open(const struct report *report, const char *name, const char *columns,
                                struct numbers *numbers) {
  char path[PATH_MAX];
  TRY(durable_begin(report_path(report, name, path), &numbers->durable));
  numbers->file = fopen(numbers->durable.temporary, "we");
  if (numbers->file == NULL) {
    durable_abandon(&numbers->durable);
    return durable_write_failed(path, errno);
  }
  fprintf(numbers->file, "%s\n", columns);
  return STATUS_OK;
}

static enum status numbers_close(struct numbers *numbers) {
  bool failed = ferror(numbers->file) != 0;
  failed = fclose(numbers->file) != 0 || failed;
  enum status status = failed ? durable_write_failed(numbers->durable.path, errno) : durable_commit(&numbers->durable);
  if (status != STATUS_OK)
    durable_abandon(&numbers->durable);
  return status;
}

/* Fields of a row are followed by commas, the last by the end of the line. */
static void put_text(const struct numbers *numbers, const char *text) {
  csv_fwrite(numbers->file, text, strlen(text));
  fputc(',', numbers->file);
}

/* 17 digits come back with the same bits; what is no number is empty. */
static void put_numbers(const struct numbers *numbers, const double *values, int count) {
  for (int i = 0; i < count; i++) {
    if (isfinite(values[i]))
      fprintf(numbers->file, "%.17g", values[i]);
    fputc(i < count - 1 ? ',' : '\n', numbers->file);
  }
}
#define PUT(numbers, ...) \
  put_numbers((numbers), (const double[]){__VA_ARGS__}, (int)(sizeof((const double[]){__VA_ARGS__}) / sizeof(double)))

/* ---- common --------------------------------------------------------------------------------- */

/* Draw it, and remember it for the page. */
static enum status finish(struct report *report, struct plot *plot, const char *stem, const char *title,
                          const char *caption) {
  char path[PATH_MAX];
  struct report_picture *picture = &report->picture[report->pictures];
  REQUIRE(report->pictures < REPORT_PICTURES, ERR_BUG, "more than %d pictures", REPORT_PICTURES);
  *picture = (struct report_picture){.stem = stem, .title = title};
  snprintf(picture->caption, sizeof picture->caption, "%s", caption);
  TRY(plot_draw(plot, &report->plotter, report_path(report, stem, path)));
  picture->drawn = report->plotter.path[0] != '\0';
  report->pictures++;
  return STATUS_OK;
}

/* Panels beside each other, as many as a page's width takes. */
static struct plot_layout layout_for(int panels) {
  return (struct plot_layout){.columns = panels == 4  ? 2
                                         : panels < 3 ? panels
                                                      : 3,
                              .width = panels == 1                  ? 560
                                       : panels == 2 || panels == 4 ? 400
                                                                    : 300,
                              .height = panels == 1                  ? 300
                                        : panels == 2 || panels == 4 ? 270
                                                                     : 240};
}

static const struct report_run *first_shown(const struct report *report) {
  for (int r = 0; r < report->runs; r++)
    if (report->run[r].components > 0)
      return &report->run[r];
  return NULL;
}

/* The run that has this data, these targets and component, before this one: its labels are shown already. */
static bool is_shown_already(const struct report *report, int r) {
  for (int before = 0; before < r; before++)
    if (report->run[before].components > 0 && report->run[before].hash == report->run[r].hash)
      return true;
  return false;
}

/* The name of a component, where the components are several, or a text without it. */
static const char *title_of(const struct report_run *run, int component, bool named, char *text, size_t bytes) {
  if (run->components > 1)
    snprintf(text, bytes, "%s%s%s", named ? run->name : "", named ? ": " : "", run->target[component]);
  else
    snprintf(text, bytes, "%s", named ? run->name : "");
  return text;
}

static const char *axis_title(const char *before, const char *target, char *text, size_t bytes) {
  snprintf(text, bytes, "%s%s%s", before, before[0] ? " " : "", target);
  return text;
}

/* "runs a<b and c<d" differ by which? In pictures of one run nothing needs its name. */
static const char *key_of(const struct report *report, int r) {
  return report->runs > 1 ? report->run[r].name : NULL;
}

/* ---- labels --------------------------------------------------------------------------------- */

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
  TRY_GOTO(plot_panel(plot, &(struct plot_panel){.title = title_of(run, component,
                                                                   !report->run[0].measured ||
                                                                       run->hash != report->run[0].hash,
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
        put_text(&numbers, report->run[r].name);
        put_text(&numbers, report->run[r].target[k]);
        put_text(&numbers, view->group != NULL ? metrics_group_name(view->group[b]) : "");
        PUT(&numbers, low, high, (double)view->train[b], (double)view->rows[b], view->mae[b]);
      }
    }
  return numbers_close(&numbers);
}

/* What bins and classes mean in this report. */
static void describe_bins(const struct report *report, char *text, size_t bytes) {
  const struct config *config = report->config;
  const struct report_run *run = first_shown(report);
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
  int panels = 0;
  enum status status;
  for (int r = 0; r < report->runs; r++)
    panels += is_shown_already(report, r) ? 0 : report->run[r].components;
  struct plot_layout layout = layout_for(panels);
  TRY_GOTO(plot_create(&layout, &plot), out);
  for (int r = 0; r < report->runs; r++)
    for (int k = 0; k < report->run[r].components && !is_shown_already(report, r); k++)
      TRY_GOTO(draw_distribution(plot, report, r, k), out);
  describe_bins(report, bins, sizeof bins);
  snprintf(caption, sizeof caption, "How many training samples have a label. %s", bins);
  status = finish(report, plot, "labels", "Label distribution of the training split", caption);
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
                                                   .title = key_of(report, r),
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
  axis_title("mean absolute error,", run->target[component], y, sizeof y);
  TRY(plot_panel(plot,
                 &(struct plot_panel){.title = title_of(run, component,
                                                        !report->run[0].measured || run->hash != report->run[0].hash,
                                                        title, sizeof title),
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
  int panels = 0;
  enum status status;
  for (int r = 0; r < report->runs; r++)
    panels += is_shown_already(report, r) ? 0 : report->run[r].components;
  struct plot_layout layout = layout_for(panels);
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
  status = finish(report, plot, "errors", "Error by label", caption);
out:
  plot_destroy(&plot);
  return status;
}

/* ---- predictions ---------------------------------------------------------------------------- */

/* Runs side by side have the same axes. */
static void common_range(const struct report *report, int component, double *low, double *high) {
  *low = INFINITY;
  *high = -INFINITY;
  for (int r = 0; r < report->runs; r++)
    if (report->run[r].components > component) {
      *low = fmin(*low, report->run[r].view[component]->low);
      *high = fmax(*high, report->run[r].view[component]->high);
    }
  double room = 0.02 * (*high - *low);
  *low -= room;
  *high += room;
}

static enum status draw_cells(struct plot *plot, const struct label_view *view) {
  double edges[LABEL_VIEW_CELLS + 1];
  for (int e = 0; e <= LABEL_VIEW_CELLS; e++)
    edges[e] = label_view_edge(view, e);
  return plot_map(plot, &(struct plot_map){.columns = LABEL_VIEW_CELLS,
                                           .rows = LABEL_VIEW_CELLS,
                                           .x_edges = edges,
                                           .y_edges = edges,
                                           .values = view->cells,
                                           .title = "samples",
                                           .logarithmic = true});
}

static enum status draw_predictions(struct plot *plot, const struct report *report, int r, int component) {
  const struct report_run *run = &report->run[r];
  const struct label_view *view = run->view[component];
  char title[512], x[512], y[512], note[64];
  double ends[2];
  common_range(report, component, &ends[0], &ends[1]);
  TRY(plot_panel(
      plot,
      &(struct plot_panel){
          .title = title_of(run, component, report->runs > 1, title, sizeof title),
          .x = {.title = axis_title("true", run->target[component], x, sizeof x), .low = ends[0], .high = ends[1]},
          .y = {.title = axis_title("predicted", run->target[component], y, sizeof y), .low = ends[0], .high = ends[1]},
          .key = PLOT_KEY_NONE}));
  if (view->cells != NULL)
    TRY(draw_cells(plot, view));
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
    put_text(numbers, run->name);
    put_text(numbers, run->target[component]);
    PUT(numbers, view->label[i], view->prediction[i]);
  }
  for (int c = 0; c < LABEL_VIEW_CELLS * LABEL_VIEW_CELLS && !points && view->cells != NULL; c++) {
    int column = c % LABEL_VIEW_CELLS, row = c / LABEL_VIEW_CELLS;
    if (view->cells[c] == 0)
      continue;
    put_text(numbers, run->name);
    put_text(numbers, run->target[component]);
    PUT(numbers, label_view_edge(view, column), label_view_edge(view, column + 1), label_view_edge(view, row),
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

/* How many panels there are when each run has one for each component. */
static int panels_of_runs(const struct report *report) {
  int panels = 0;
  for (int r = 0; r < report->runs; r++)
    panels += report->run[r].components;
  return panels;
}

static enum status picture_predictions(struct report *report) {
  struct plot *plot = NULL;
  char caption[1024];
  enum status status;
  struct plot_layout layout = layout_for(panels_of_runs(report));
  layout.width = layout.height = layout.width > 400 ? 360 : layout.width; /* squares: both axes are labels */
  TRY_GOTO(plot_create(&layout, &plot), out);
  for (int r = 0; r < report->runs; r++)
    for (int k = 0; k < report->run[r].components; k++)
      TRY_GOTO(draw_predictions(plot, report, r, k), out);
  snprintf(caption, sizeof caption,
           "Each sample of the %s split: what the run's %s checkpoint predicts, against the label. Dashed: no error. "
           "More than %d samples are counted in %d by %d cells.",
           report->config->part, report->config->checkpoint, LABEL_VIEW_POINTS, LABEL_VIEW_CELLS, LABEL_VIEW_CELLS);
  status = finish(report, plot, "predictions", "Predicted against true", caption);
out:
  plot_destroy(&plot);
  return status;
}

/* ---- similarity of features ----------------------------------------------------------------- */

/* The map of one run and component, and the same by distance of labels. */
struct alike {
  double *values, *pairs, *by_distance, *pairs_at, *edges, *distance;
};

static enum status alike_create(const struct similarity *similarity, struct alike *alike) {
  size_t bins = (size_t)similarity->axis.count;
  double **const arrays[] = {&alike->values,   &alike->pairs, &alike->by_distance,
                             &alike->pairs_at, &alike->edges, &alike->distance};
  const size_t sizes[] = {bins * bins, bins * bins, bins, bins, bins + 1, bins};
  *alike = (struct alike){0};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
    TRY(memory_alloc(sizes[i] * sizeof(double), (void **)arrays[i]));
  for (int b = 0; b < similarity->axis.count; b++) {
    label_axis_ends(&similarity->axis, b, &alike->edges[b], &alike->edges[b + 1]);
    alike->distance[b] = b * similarity->axis.width;
  }
  similarity_map(similarity, alike->values, alike->pairs);
  similarity_by_distance(similarity, alike->by_distance, alike->pairs_at);
  return STATUS_OK;
}

static void alike_destroy(struct alike *alike) {
  double **const arrays[] = {&alike->values,   &alike->pairs, &alike->by_distance,
                             &alike->pairs_at, &alike->edges, &alike->distance};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
    memory_free((void **)arrays[i]);
}

/* Calls `each` with the map of every run and component. */
typedef enum status (*alike_each)(void *context, const struct report *report, int r, int component,
                                  const struct alike *alike);

static enum status for_each_alike(const struct report *report, alike_each each, void *context) {
  for (int r = 0; r < report->runs; r++)
    for (int k = 0; k < report->run[r].components; k++) {
      struct alike alike;
      enum status status = alike_create(report->run[r].similarity[k], &alike);
      if (status == STATUS_OK)
        status = each(context, report, r, k, &alike);
      alike_destroy(&alike);
      TRY(status);
    }
  return STATUS_OK;
}

/* Maps side by side have one scale: from the least similar pair of bins to the most similar. */
struct maps {
  struct plot *plot;
  double low, high;
};

static enum status widen_scale(void *context, const struct report *report, int r, int component,
                               const struct alike *alike) {
  struct maps *maps = context;
  int bins = report->run[r].similarity[component]->axis.count;
  for (int i = 0; i < bins * bins; i++)
    if (!isnan(alike->values[i])) {
      maps->low = fmin(maps->low, alike->values[i]);
      maps->high = fmax(maps->high, alike->values[i]);
    }
  return STATUS_OK;
}

static enum status draw_map(void *context, const struct report *report, int r, int component,
                            const struct alike *alike) {
  struct maps *maps = context;
  const struct report_run *run = &report->run[r];
  const struct similarity *similarity = run->similarity[component];
  int bins = similarity->axis.count;
  bool scaled = maps->low < maps->high;
  char title[512];
  struct plot_axis axis = {.title = run->target[component], .low = alike->edges[0], .high = alike->edges[bins]};
  TRY(plot_panel(maps->plot,
                 &(struct plot_panel){
                     .title = title_of(run, component, report->runs > 1, title, sizeof title), .x = axis, .y = axis}));
  return plot_map(maps->plot, &(struct plot_map){.columns = bins,
                                                 .rows = bins,
                                                 .x_edges = alike->edges,
                                                 .y_edges = alike->edges,
                                                 .values = alike->values,
                                                 .title = "mean cosine similarity",
                                                 .low = scaled ? maps->low : 0,
                                                 .high = scaled ? maps->high : 0});
}

static enum status picture_similarity(struct report *report) {
  struct maps maps = {.low = INFINITY, .high = -INFINITY};
  char caption[1024];
  enum status status;
  struct plot_layout layout = layout_for(panels_of_runs(report));
  layout.width = layout.height = layout.width > 400 ? 360 : layout.width;
  TRY_GOTO(plot_create(&layout, &maps.plot), out);
  TRY_GOTO(for_each_alike(report, widen_scale, &maps), out);
  TRY_GOTO(for_each_alike(report, draw_map, &maps), out);
  snprintf(caption, sizeof caption,
           "Mean cosine similarity of the features of all pairs of samples of the %s split whose labels fall into two "
           "bins (of width %g here). Features that follow the labels are alike along the diagonal and less so away "
           "from it. All maps have one colour scale; white: no pairs.",
           report->config->part, first_shown(report)->similarity[0]->axis.width);
  status = finish(report, maps.plot, "similarity", "Feature similarity by label", caption);
out:
  plot_destroy(&maps.plot);
  return status;
}

struct distances {
  struct plot *plot;
  int component;
};

static enum status draw_distances(void *context, const struct report *report, int r, int component,
                                  const struct alike *alike) {
  struct distances *distances = context;
  if (component != distances->component)
    return STATUS_OK;
  return plot_series(distances->plot, &(struct plot_series){.style = PLOT_LINES_POINTS,
                                                            .title = key_of(report, r),
                                                            .colour = r,
                                                            .count = report->run[r].similarity[component]->axis.count,
                                                            .x = alike->distance,
                                                            .y = alike->by_distance});
}

static enum status picture_distances(struct report *report) {
  const struct report_run *run = first_shown(report);
  struct distances distances = {0};
  char caption[1024], x[512], title[512];
  enum status status;
  struct plot_layout layout = layout_for(run->components);
  TRY_GOTO(plot_create(&layout, &distances.plot), out);
  for (; distances.component < run->components; distances.component++) {
    axis_title("distance of labels,", run->target[distances.component], x, sizeof x);
    TRY_GOTO(plot_panel(distances.plot,
                        &(struct plot_panel){.title = title_of(run, distances.component, false, title, sizeof title),
                                             .x = {.title = x, .low = 0, .high = NAN},
                                             .y = {.title = "mean cosine similarity"}}),
             out);
    TRY_GOTO(for_each_alike(report, draw_distances, &distances), out);
  }
  snprintf(caption, sizeof caption,
           "The same pairs by the distance of their labels, in steps of one bin (at 0: pairs within a bin).");
  status = finish(report, distances.plot, "similarity_distance", "Feature similarity by distance of labels", caption);
out:
  plot_destroy(&distances.plot);
  return status;
}

static enum status put_map(void *context, const struct report *report, int r, int component,
                           const struct alike *alike) {
  const struct numbers *numbers = context;
  int bins = report->run[r].similarity[component]->axis.count;
  for (int a = 0; a < bins; a++)
    for (int b = a; b < bins; b++) {
      if (alike->pairs[a * bins + b] == 0)
        continue;
      put_text(numbers, report->run[r].name);
      put_text(numbers, report->run[r].target[component]);
      PUT(numbers, alike->edges[a], alike->edges[a + 1], alike->edges[b], alike->edges[b + 1],
          alike->pairs[a * bins + b], alike->values[a * bins + b]);
    }
  return STATUS_OK;
}

static enum status put_distances(void *context, const struct report *report, int r, int component,
                                 const struct alike *alike) {
  const struct numbers *numbers = context;
  for (int b = 0; b < report->run[r].similarity[component]->axis.count; b++) {
    put_text(numbers, report->run[r].name);
    put_text(numbers, report->run[r].target[component]);
    PUT(numbers, alike->distance[b], alike->pairs_at[b], alike->by_distance[b]);
  }
  return STATUS_OK;
}

static enum status write_similarity(const struct report *report) {
  struct numbers numbers;
  TRY(numbers_open(report, "similarity.csv", "run,component,low_i,high_i,low_j,high_j,pairs,similarity", &numbers));
  enum status status = for_each_alike(report, put_map, &numbers);
  enum status closed = numbers_close(&numbers);
  TRY(status);
  TRY(closed);
  TRY(numbers_open(report, "similarity_distance.csv", "run,component,distance,pairs,similarity", &numbers));
  status = for_each_alike(report, put_distances, &numbers);
  closed = numbers_close(&numbers);
  return status != STATUS_OK ? status : closed;
}

/* ---- curves --------------------------------------------------------------------------------- */

static const struct panel_of_curve {
  enum curve curve;
  const char *title, *y;
} curve_panels[] = {
    {CURVE_TRAIN_LOSS, "training loss, with all terms", "loss"},
    {CURVE_VAL_MAE, "validation MAE", "mean absolute error"},
    {CURVE_VAL_MSE, "validation MSE", "mean squared error"},
    {CURVE_CONR, "ConR, without its coefficient", "loss"},
    {CURVE_RANKSIM, "RankSim, without its coefficient", "loss"},
    {CURVE_RNC, "RnC, without its coefficient", "loss"},
    {CURVE_ACCON, "ACCon, without its coefficient", "loss"},
    {CURVE_SRL, "SRL, without its coefficient", "loss"},
    {CURVE_RECONSTRUCTION, "reconstruction, without its coefficient", "mean squared error"},
    {CURVE_NOISE_SCALE, "noise scale of Balanced MSE", "sigma"},
    {CURVE_LR, "learning rate", "learning rate"},
};
#define CURVE_PANELS ((int)(sizeof curve_panels / sizeof *curve_panels))

/* Lowest and highest value of a column over all runs; false: it has none. */
static bool extent_of(const struct report *report, enum curve curve, double extent[2]) {
  extent[0] = INFINITY;
  extent[1] = -INFINITY;
  for (int r = 0; r < report->runs; r++)
    for (int64_t e = 0; e < report->run[r].record->epochs; e++) {
      extent[0] = fmin(extent[0], report->run[r].record->epoch[e][curve]); /* of a NaN the other */
      extent[1] = fmax(extent[1], report->run[r].record->epoch[e][curve]);
    }
  return extent[0] <= extent[1];
}

static bool selects_by_mse(const struct report *report) {
  for (int r = 0; r < report->runs; r++) {
    const char *select = run_record_option(report->run[r].record, "select");
    if (select != NULL && strcmp(select, "mse") == 0)
      return true;
  }
  return false;
}

/* A term that is off is 0 or not there; a rate that never changes says nothing. */
static bool is_worth_a_panel(const struct report *report, enum curve curve) {
  double extent[2];
  bool some = extent_of(report, curve, extent);
  if (curve == CURVE_VAL_MSE)
    return some && selects_by_mse(report);
  if (curve == CURVE_LR)
    return some && extent[0] < extent[1];
  return some && (extent[0] != 0 || extent[1] != 0);
}

static enum status draw_curve(struct plot *plot, const struct report *report, int r, enum curve curve) {
  const struct run_record *record = report->run[r].record;
  double *values, epoch, mae;
  bool some = false;
  TRY(memory_alloc((size_t)record->epochs * 2 * sizeof *values, (void **)&values));
  for (int64_t e = 0; e < record->epochs; e++) {
    values[e] = record->epoch[e][CURVE_EPOCH];
    values[record->epochs + e] = record->epoch[e][curve];
    some |= isfinite(record->epoch[e][curve]) && record->epoch[e][curve] != 0; /* 0: a term that is off */
  }
  enum status status = STATUS_OK;
  if (some)
    status = plot_series(plot, &(struct plot_series){.style = record->epochs <= 12 ? PLOT_LINES_POINTS : PLOT_LINES,
                                                     .title = key_of(report, r),
                                                     .colour = r,
                                                     .count = record->epochs,
                                                     .x = values,
                                                     .y = values + record->epochs});
  if (status == STATUS_OK && curve == CURVE_VAL_MAE && report_best_epoch(record, &epoch, &mae))
    status =
        plot_series(plot, &(struct plot_series){.style = PLOT_POINTS, .colour = r, .count = 1, .x = &epoch, .y = &mae});
  memory_free((void **)&values);
  return status;
}

static enum status draw_curve_panel(struct plot *plot, const struct report *report,
                                    const struct panel_of_curve *panel) {
  double extent[2];
  bool wide = extent_of(report, panel->curve, extent) && extent[0] > 0 && extent[1] > 50 * extent[0];
  TRY(plot_panel(plot, &(struct plot_panel){.title = panel->title,
                                            .x = {.title = "epoch"},
                                            .y = {.title = panel->y, .log_base = wide ? 10 : 0}}));
  for (int r = 0; r < report->runs; r++)
    TRY(draw_curve(plot, report, r, panel->curve));
  return STATUS_OK;
}

static enum status picture_curves(struct report *report) {
  struct plot *plot = NULL;
  int panels = 0;
  enum status status;
  for (int p = 0; p < CURVE_PANELS; p++)
    panels += is_worth_a_panel(report, curve_panels[p].curve);
  if (panels == 0)
    return report_note(report, "no training curves: metrics.jsonl has no epochs");
  struct plot_layout layout = layout_for(panels);
  TRY_GOTO(plot_create(&layout, &plot), out);
  for (int p = 0; p < CURVE_PANELS; p++)
    if (is_worth_a_panel(report, curve_panels[p].curve))
      TRY_GOTO(draw_curve_panel(plot, report, &curve_panels[p]), out);
  status =
      finish(report, plot, "curves", "Training curves",
             "By epoch; a mark on a curve of the validation MAE stands at its lowest value. Terms that are off are "
             "not shown.");
out:
  plot_destroy(&plot);
  return status;
}

static enum status write_curves(const struct report *report) {
  struct numbers numbers;
  char columns[1024] = "run";
  for (int c = 0; c < CURVES; c++)
    snprintf(columns + strlen(columns), sizeof columns - strlen(columns), ",%s", curve_key((enum curve)c));
  TRY(numbers_open(report, "curves.csv", columns, &numbers));
  for (int r = 0; r < report->runs; r++)
    for (int64_t e = 0; e < report->run[r].record->epochs; e++) {
      put_text(&numbers, report->run[r].name);
      put_numbers(&numbers, report->run[r].record->epoch[e], CURVES);
    }
  return numbers_close(&numbers);
}

/* ---- time ----------------------------------------------------------------------------------- */

enum {
  TIME_DATA,
  TIME_FORWARD,
  TIME_LOSS,
  TIME_GATHER,
  TIME_REGULARISERS,
  TIME_BACKWARD,
  TIME_REDUCE,
  TIME_UPDATE,
  TIME_OTHER,
  TIMES
};
static const char *const time_names[TIMES] = {"waiting for data", "forward",      "loss",
                                              "ConR gather",      "regularisers", "backward",
                                              "sums over ranks",  "update",       "other"};
static const int time_colours[TIMES] = {4, 5, 6, 1, 3, 0, 2, 7, PLOT_GREY};

/* Means over epochs of a column; what is not there counts as nothing. */
static double mean_of(const struct run_record *record, enum curve curve) {
  double sum = 0;
  for (int64_t e = 0; e < record->epochs; e++)
    sum += isfinite(record->epoch[e][curve]) ? record->epoch[e][curve] : 0;
  return record->epochs > 0 ? sum / (double)record->epochs : 0;
}

/* time_gather and time_regularisers are parts of time_loss; what no column says is "other". */
static void split_time(const struct run_record *record, double seconds[TIMES]) {
  static const enum curve columns[] = {CURVE_DATA_WAIT,    CURVE_FORWARD,  CURVE_LOSS,   CURVE_GATHER,
                                       CURVE_REGULARISERS, CURVE_BACKWARD, CURVE_REDUCE, CURVE_UPDATE};
  double all = 0;
  for (int i = 0; i < TIME_OTHER; i++)
    seconds[i] = mean_of(record, columns[i]);
  seconds[TIME_LOSS] = fmax(0, seconds[TIME_LOSS] - seconds[TIME_GATHER] - seconds[TIME_REGULARISERS]);
  for (int i = 0; i < TIME_OTHER; i++)
    all += seconds[i];
  seconds[TIME_OTHER] = fmax(0, mean_of(record, CURVE_SECONDS) - all);
}

static enum status draw_times(struct plot *plot, const struct report *report) {
  double seconds[REPORT_RUNS][TIMES], place[REPORT_RUNS], values[REPORT_RUNS];
  const char *names[REPORT_RUNS];
  for (int r = 0; r < report->runs; r++) {
    place[r] = report->runs - 1 - r; /* the first run on top */
    names[r] = report->runs > 1 ? report->run[r].name : "";
    split_time(report->run[r].record, seconds[r]);
  }
  TRY(plot_panel(
      plot,
      &(struct plot_panel){
          .x = {.low = -0.6, .high = report->runs - 0.4, .ticks = report->runs, .tick = place, .tick_text = names},
          .y = {.title = "seconds of an epoch", .low = 0, .high = NAN},
          .stacked = true,
          .sideways = true}));
  for (int i = 0; i < TIMES; i++) {
    bool some = false;
    for (int r = 0; r < report->runs; r++) {
      values[r] = seconds[r][i];
      some |= values[r] > 0;
    }
    if (some)
      TRY(plot_series(plot, &(struct plot_series){.style = PLOT_BARS,
                                                  .title = time_names[i],
                                                  .colour = time_colours[i],
                                                  .count = report->runs,
                                                  .x = place,
                                                  .y = values,
                                                  .width = 0.7}));
  }
  return STATUS_OK;
}

static enum status picture_times(struct report *report) {
  struct plot *plot = NULL;
  double extent[2];
  enum status status;
  if (!extent_of(report, CURVE_SECONDS, extent))
    return report_note(report, "no time split: metrics.jsonl has no epochs");
  struct plot_layout layout = {.columns = 1, .width = 640, .height = 40 + 46 * report->runs};
  TRY_GOTO(plot_create(&layout, &plot), out);
  TRY_GOTO(draw_times(plot, report), out);
  status =
      finish(report, plot, "time", "Where the time went",
             "Mean over epochs, on rank 0: by the device's clock on a GPU. Other: validation, and whatever is in no "
             "column of metrics.jsonl.");
out:
  plot_destroy(&plot);
  return status;
}

static enum status write_times(const struct report *report) {
  struct numbers numbers;
  TRY(numbers_open(report, "time.csv", "run,phase,seconds", &numbers));
  for (int r = 0; r < report->runs; r++) {
    double seconds[TIMES];
    split_time(report->run[r].record, seconds);
    for (int i = 0; i < TIMES; i++) {
      put_text(&numbers, report->run[r].name);
      put_text(&numbers, time_names[i]);
      PUT(&numbers, seconds[i]);
    }
  }
  return numbers_close(&numbers);
}

/* ---- all of them ---------------------------------------------------------------------------- */

enum status report_pictures(struct report *report) {
  TRY(write_curves(report));
  TRY(write_times(report));
  TRY(write_labels(report));
  TRY(write_predictions(report));
  TRY(write_similarity(report));
  if (first_shown(report) != NULL) {
    TRY(picture_labels(report));
    TRY(picture_errors(report));
    TRY(picture_predictions(report));
    TRY(picture_similarity(report));
    TRY(picture_distances(report));
  }
  TRY(picture_curves(report));
  return picture_times(report);
}
