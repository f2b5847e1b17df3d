/* Rows of a study, their text and files. */
#include "launch/scale_table.h"

#include "dist/memory.h"
#include "launch/json_output.h"
#include "launch/plot.h"
#include "version.h"

#include <csv.h>
#include <errno.h>
#include <math.h>
#include <string.h>

/* A point as a member of a series. */
struct row {
  bool weak;
  int64_t series; /* the batch of the list: of a rank, or of all */
  const struct scale_point *point;
  struct cost cost; /* by the fitted model */
  double efficiency, efficiency_least, efficiency_most, predicted_efficiency;
};

struct scale_study {
  const struct scale_point *points; /* borrowed */
  int count;
  struct cost_fit fit;
  struct row *rows;
  int row_count;
};

int64_t scale_batch(bool weak, int64_t batch, int64_t ranks) {
  return weak ? batch * ranks : batch;
}

struct cost_sample scale_sample(const struct scale_point *point) {
  bool conr = point->rows > 0;
  double gather = conr ? point->phase[SCALE_GATHER] : 0;
  return (struct cost_sample){
      .ranks = point->ranks,
      .nodes = point->hosts,
      .samples = point->batch / point->ranks,
      .compute = fmax(point->seconds - point->phase[SCALE_PANELS] - gather - point->phase[SCALE_REDUCE], 0),
      .panels = point->phase[SCALE_PANELS],
      .flops = point->flops,
      .gather = point->gather_least,
      .gather_bytes = conr ? point->gather_bytes : 0,
      .reduce = point->reduce_least,
      .gradient_bytes = point->gradient_bytes,
      .messages = point->messages,
      .spread = (point->seconds_most - point->seconds_least) / 2};
}

/* --- rows ----------------------------------------------------------------------------------------------------- */

static const struct scale_point *find(const struct scale_study *study, int64_t ranks, int64_t batch) {
  for (int i = 0; i < study->count; i++)
    if (study->points[i].ranks == (double)ranks && study->points[i].batch == (double)batch)
      return &study->points[i];
  return NULL;
}

/* first: the series' point of the fewest ranks. */
static void measure_against(const struct row *first, struct row *row) {
  double ranks = row->weak ? 1 : first->point->ranks / row->point->ranks;
  row->efficiency = ranks * first->point->seconds / row->point->seconds;
  row->efficiency_least = row->efficiency_most = row->efficiency; /* of the first, 1 by definition */
  if (row != first) {
    row->efficiency_least = ranks * first->point->seconds / row->point->seconds_most;
    row->efficiency_most = ranks * first->point->seconds / row->point->seconds_least;
  }
  row->predicted_efficiency = ranks * first->cost.step / row->cost.step;
}

static enum status add_series(struct scale_study *study, const struct scale_lists *lists, bool weak, int64_t batch) {
  const struct row *first = &study->rows[study->row_count];
  for (int i = 0; i < lists->rank_count; i++) {
    struct row *row = &study->rows[study->row_count];
    const struct scale_point *point = find(study, lists->ranks[i], scale_batch(weak, batch, lists->ranks[i]));
    REQUIRE(point != NULL, ERR_BUG, "the study lacks a point of %lld ranks", (long long)lists->ranks[i]);
    struct cost_sample sample = scale_sample(point);
    *row = (struct row){.weak = weak, .series = batch, .point = point, .cost = cost_of_sample(&study->fit, &sample)};
    measure_against(first, row);
    study->row_count++;
  }
  return STATUS_OK;
}

static enum status add_rows(struct scale_study *study, const struct scale_lists *lists) {
  for (int weak = 1; weak >= 0; weak--)
    for (int b = 0; b < lists->batch_count && (weak ? lists->weak : lists->strong); b++)
      TRY(add_series(study, lists, weak, lists->batches[b]));
  return STATUS_OK;
}

static enum status fit(struct scale_study *study) {
  struct cost_sample *samples;
  TRY(memory_alloc((size_t)study->count * sizeof *samples, (void **)&samples));
  for (int i = 0; i < study->count; i++)
    samples[i] = scale_sample(&study->points[i]);
  cost_fit(samples, study->count, &study->fit);
  memory_free((void **)&samples);
  return STATUS_OK;
}

enum status scale_study_create(const struct scale_point *points, int count, const struct scale_lists *lists,
                               struct scale_study **out) {
  struct scale_study *study;
  enum status status;
  *out = NULL;
  TRY(memory_alloc_zero(sizeof *study, (void **)&study));
  study->points = points;
  study->count = count;
  size_t rows = 2 * (size_t)lists->rank_count * (size_t)lists->batch_count;
  TRY_GOTO(memory_alloc_zero(rows * sizeof *study->rows, (void **)&study->rows), failed);
  TRY_GOTO(fit(study), failed);
  TRY_GOTO(add_rows(study, lists), failed);
  *out = study;
  return STATUS_OK;
failed:
  scale_study_destroy(&study);
  return status;
}

void scale_study_destroy(struct scale_study **study) {
  if (*study == NULL)
    return;
  memory_free((void **)&(*study)->rows);
  memory_free((void **)study);
}

static const char *mode_name(const struct row *row) {
  return row->weak ? "weak" : "strong";
}

static double residual_of(const struct row *row) {
  return row->point->seconds / row->cost.step - 1;
}

/* --- text ----------------------------------------------------------------------------------------------------- */

static bool begins_series(const struct scale_study *study, int i) {
  const struct row *row = &study->rows[i];
  return i > 0 && (row[-1].weak != row->weak || row[-1].series != row->series);
}

static void print_times(const struct scale_study *study, FILE *out) {
  fprintf(out, "%-6s %6s %6s %6s %8s  %10s %8s %10s  %10s %7s  %7s %7s\n", "mode", "batch", "ranks", "hosts", "samples",
          "ms a step", "+-", "samples/s", "model, ms", "off", "effi-", "model");
  fprintf(out, "%-6s %6s %6s %6s %8s  %10s %8s %10s  %10s %7s  %7s %7s\n", "", "", "", "", "in all", "", "", "", "", "",
          "ciency", "");
  for (int i = 0; i < study->row_count; i++) {
    const struct row *row = &study->rows[i];
    const struct scale_point *point = row->point;
    double spread = (point->seconds_most - point->seconds_least) / 2;
    fprintf(out, "%s%-6s %6lld %6.0f %6.0f %8.0f  %10.3f %8.3f %10.0f  %10.3f %+6.0f%%  %7.3f %7.3f\n",
            begins_series(study, i) ? "\n" : "", mode_name(row), (long long)row->series, point->ranks, point->hosts,
            point->batch, 1e3 * point->seconds, 1e3 * spread, point->samples_per_second, 1e3 * row->cost.step,
            100 * residual_of(row), row->efficiency, row->predicted_efficiency);
  }
}

static void print_splits(const struct scale_study *study, FILE *out) {
  fprintf(out, "\nTime of a step, in %% (communication: gather and reduce)\n\n%-6s %6s %6s ", "mode", "batch", "ranks");
  for (int i = 0; i < SCALE_PHASES; i++)
    fprintf(out, " %8s", scale_phase_name((enum scale_phase)i));
  fprintf(out, "  %13s\n", "communication");
  for (int i = 0; i < study->row_count; i++) {
    const struct row *row = &study->rows[i];
    const struct scale_point *point = row->point;
    fprintf(out, "%s%-6s %6lld %6.0f ", begins_series(study, i) ? "\n" : "", mode_name(row), (long long)row->series,
            point->ranks);
    for (int phase = 0; phase < SCALE_PHASES; phase++)
      fprintf(out, " %8.1f", 100 * point->phase[phase] / point->seconds);
    fprintf(out, "  %13.1f\n", 100 * (point->phase[SCALE_GATHER] + point->phase[SCALE_REDUCE]) / point->seconds);
  }
}

/* Ranks that share cores are not slowed down by messages. */
static void print_sharing(const struct scale_study *study, FILE *out) {
  for (int i = 0; i < study->count; i++) {
    const struct scale_point *point = &study->points[i];
    if (point->ranks_per_host * point->threads <= point->cores)
      continue;
    fprintf(out,
            "\nPoints of %.0f ranks or more of a host have more threads (%.0f a rank) than it has cores (%.0f): their "
            "times say how these are shared,\nnot how training scales.\n",
            point->ranks_per_host, point->threads, point->cores);
    return;
  }
}

/* A parameter as people know it: unit and factor. */
static const struct {
  const char *unit;
  double factor;
  bool inverse;
} units[] = {[COST_FIXED] = {"ms", 1e3, false},           [COST_SAMPLE] = {"us", 1e6, false},
             [COST_PANELS_FIXED] = {"ms", 1e3, false},    [COST_FLOP] = {"GFLOP/s", 1e-9, true},
             [COST_LATENCY_INSIDE] = {"us", 1e6, false},  [COST_BYTE_INSIDE] = {"GB/s", 1e-9, true},
             [COST_LATENCY_BETWEEN] = {"us", 1e6, false}, [COST_BYTE_BETWEEN] = {"GB/s", 1e-9, true}};

static void print_parameter(const struct cost_fit *fit, enum cost_parameter which, FILE *out) {
  const struct coefficient *found = &fit->parameter[which];
  const char *name = cost_parameter_name(which);
  double relative = found->error / found->value;
  double value = units[which].inverse ? units[which].factor / found->value : units[which].factor * found->value;
  switch (found->state) {
  case COEFFICIENT_UNDETERMINED:
    fprintf(out, "  %-25s not determined: it %s\n", name, cost_parameter_needs(which));
    break;
  case COEFFICIENT_ZERO:
    fprintf(out, "  %-25s too small to be told from 0 by these points\n", name);
    break;
  default:
    if (isfinite(relative))
      fprintf(out, "  %-25s %.4g %s, +- %.0f %%\n", name, value, units[which].unit, 100 * relative);
    else
      fprintf(out, "  %-25s %.4g %s, from no more points than parameters\n", name, value, units[which].unit);
  }
}

static void print_residual(const char *name, double residual, FILE *out) {
  if (isfinite(residual))
    fprintf(out, "  %-25s %.1f %%\n", name, 100 * residual);
}

static void print_fit(const struct scale_study *study, FILE *out) {
  const struct cost_fit *own = &study->fit;
  double squares = 0;
  fprintf(out, "\nModel of a step's cost, fitted to the points (messages: to the rank that waited least)\n\n");
  for (int i = 0; i < COST_PARAMETERS; i++)
    print_parameter(own, (enum cost_parameter)i, out);
  for (int i = 0; i < study->row_count; i++)
    squares += pow(residual_of(&study->rows[i]), 2) / study->row_count;
  fprintf(out, "\nWhat it leaves, root mean square\n\n");
  print_residual("computation", own->compute_residual, out);
  print_residual("panels", own->panels_residual, out);
  print_residual("messages", own->network_residual, out);
  print_residual("whole steps", sqrt(squares), out);
}

void scale_study_print(const struct scale_study *study, FILE *out) {
  print_times(study, out);
  print_splits(study, out);
  print_sharing(study, out);
  print_fit(study, out);
}

/* --- files ---------------------------------------------------------------------------------------------------- */

/* What a row says of its point beside the point's own fields. */
struct own_field {
  const char *name;
  double value;
};
#define OWN_FIELDS 10

static void own_fields(const struct row *row, struct own_field out[OWN_FIELDS]) {
  const struct own_field fields[OWN_FIELDS] = {{"series_batch", (double)row->series},
                                               {"efficiency", row->efficiency},
                                               {"efficiency_least", row->efficiency_least},
                                               {"efficiency_most", row->efficiency_most},
                                               {"predicted_efficiency", row->predicted_efficiency},
                                               {"predicted_seconds", row->cost.step},
                                               {"predicted_compute", row->cost.compute},
                                               {"predicted_panels", row->cost.panels},
                                               {"predicted_gather", row->cost.gather},
                                               {"predicted_reduce", row->cost.reduce}};
  memcpy(out, fields, sizeof fields);
}

static void csv_heading(const struct scale_study *study, FILE *file) {
  struct own_field fields[OWN_FIELDS];
  struct scale_field field;
  fprintf(file, "mode");
  own_fields(study->rows, fields);
  for (int i = 0; i < OWN_FIELDS; i++)
    fprintf(file, ",%s", fields[i].name);
  for (int i = 0; scale_point_field(study->rows->point, i, &field); i++)
    fprintf(file, ",%s", field.name);
  fputc('\n', file);
}

static void csv_row(const struct row *row, FILE *file) {
  struct own_field fields[OWN_FIELDS];
  struct scale_field field;
  fputs(mode_name(row), file);
  own_fields(row, fields);
  for (int i = 0; i < OWN_FIELDS; i++)
    fprintf(file, ",%.17g", fields[i].value);
  for (int i = 0; scale_point_field(row->point, i, &field); i++) {
    fputc(',', file);
    if (field.text != NULL)
      csv_fwrite(file, field.text, strlen(field.text));
    else
      fprintf(file, "%.17g", field.number);
  }
  fputc('\n', file);
}

enum status scale_study_csv(const struct scale_study *study, const char *path) {
  FILE *file = fopen(path, "we");
  REQUIRE(file != NULL, ERR_FILE, "cannot write %s: %s", path, strerror(errno));
  csv_heading(study, file);
  for (int i = 0; i < study->row_count; i++)
    csv_row(&study->rows[i], file);
  bool failed = ferror(file) != 0;
  failed = fclose(file) != 0 || failed;
  REQUIRE(!failed, ERR_FILE, "cannot write %s: the disk may be full", path);
  return STATUS_OK;
}

static int add_row_json(const struct row *row, json_t *rows) {
  struct own_field fields[OWN_FIELDS];
  json_t *object = scale_point_json(row->point);
  if (object == NULL)
    return -1;
  int failed = json_object_set_new(object, "mode", json_string(mode_name(row)));
  own_fields(row, fields);
  for (int i = 0; i < OWN_FIELDS; i++)
    failed |= json_object_set_new(object, fields[i].name, json_output_number(fields[i].value));
  return json_array_append_new(rows, object) | failed;
}

static int add_parameter_json(const struct cost_fit *fit, enum cost_parameter which, json_t *list) {
  static const char *const states[] = {
      [COEFFICIENT_FITTED] = "fitted", [COEFFICIENT_ZERO] = "zero", [COEFFICIENT_UNDETERMINED] = "undetermined"};
  const struct coefficient *found = &fit->parameter[which];
  bool known = found->state != COEFFICIENT_UNDETERMINED;
  json_t *object = json_pack("{s:s, s:s, s:o, s:o}", "name", cost_parameter_name(which), "state", states[found->state],
                             "value", json_output_number(known ? found->value : NAN), "error",
                             json_output_number(known ? found->error : NAN));
  return json_array_append_new(list, object);
}

enum status scale_study_json(const struct scale_study *study, json_t **out) {
  json_t *object = json_object(), *rows = json_array(), *fitted = json_array();
  int failed = object == NULL || rows == NULL || fitted == NULL;
  for (int i = 0; i < study->row_count; i++)
    failed |= add_row_json(&study->rows[i], rows);
  for (int i = 0; i < COST_PARAMETERS; i++)
    failed |= add_parameter_json(&study->fit, (enum cost_parameter)i, fitted);
  failed |= json_object_set_new(object, "made_by", json_string("conr " CONR_VERSION " " CONR_COMMIT));
  failed |= json_object_set_new(object, "rows", rows);
  failed |= json_object_set_new(object, "fit", fitted);
  failed |= json_object_set_new(object, "residuals",
                                json_pack("{s:o, s:o, s:o}", "compute", json_output_number(study->fit.compute_residual),
                                          "panels", json_output_number(study->fit.panels_residual), "network",
                                          json_output_number(study->fit.network_residual)));
  *out = object;
  if (!failed)
    return STATUS_OK;
  json_decref(object);
  *out = NULL;
  return fail(ERR_MEMORY, "out of memory for the study as JSON (or a name in it is not UTF-8)");
}

/* --- pictures ------------------------------------------------------------------------------------------------- */

#define MOST_TICKS 64

/* Rows of one series, from `first` on. */
static int length_of(const struct scale_study *study, int first) {
  int end = first;
  while (end < study->row_count && study->rows[end].weak == study->rows[first].weak &&
         study->rows[end].series == study->rows[first].series)
    end++;
  return end - first < MOST_TICKS ? end - first : MOST_TICKS;
}

struct ticks {
  int count;
  double ranks[MOST_TICKS], place[MOST_TICKS]; /* place: 0, 1, 2 ... */
  char text[MOST_TICKS][24];
  const char *texts[MOST_TICKS];
};

static void ticks_of(const struct scale_study *study, int first, struct ticks *out) {
  out->count = length_of(study, first);
  for (int i = 0; i < out->count; i++) {
    out->ranks[i] = study->rows[first + i].point->ranks;
    out->place[i] = i;
    snprintf(out->text[i], sizeof out->text[i], "%.0f", out->ranks[i]);
    out->texts[i] = out->text[i];
  }
}

static enum status draw_efficiencies(const struct scale_study *study, int first, int colour, struct plot *plot) {
  const struct row *rows = &study->rows[first];
  double y[MOST_TICKS], low[MOST_TICKS], high[MOST_TICKS], model[MOST_TICKS];
  struct ticks ticks;
  char title[64], told[80];
  ticks_of(study, first, &ticks);
  for (int i = 0; i < ticks.count; i++) {
    y[i] = rows[i].efficiency;
    low[i] = rows[i].efficiency_least;
    high[i] = rows[i].efficiency_most;
    model[i] = rows[i].predicted_efficiency;
  }
  snprintf(title, sizeof title, "batch %lld", (long long)rows->series);
  snprintf(told, sizeof told, "%s, model", title);
  struct plot_series series = {
      .style = PLOT_LINES, .title = told, .colour = colour, .dashed = true, .count = ticks.count, .x = ticks.ranks};
  series.y = model;
  TRY(plot_series(plot, &series));
  series = (struct plot_series){
      .style = PLOT_POINTS, .title = title, .colour = colour, .count = ticks.count, .x = ticks.ranks, .y = y};
  series.low = low;
  series.high = high;
  return plot_series(plot, &series);
}

/* A panel for each mode. */
static enum status draw_efficiency(const struct scale_study *study, struct plot *plot) {
  double highest = 1;
  for (int i = 0; i < study->row_count; i++)
    highest = fmax(highest, fmax(study->rows[i].efficiency_most, study->rows[i].predicted_efficiency));
  for (int first = 0, colour = 0; first < study->row_count; first += length_of(study, first)) {
    const struct row *row = &study->rows[first];
    struct ticks ticks;
    ticks_of(study, first, &ticks);
    if (first == 0 || row[-1].weak != row->weak) {
      double ends[] = {ticks.ranks[0] / 1.2, ticks.ranks[ticks.count - 1] * 1.2};
      TRY(plot_panel(plot, &(struct plot_panel){.title = row->weak ? "weak scaling: batch of a rank"
                                                                   : "strong scaling: batch of all",
                                                .x = {.title = "ranks",
                                                      .low = ends[0],
                                                      .high = ends[1],
                                                      .log_base = 2,
                                                      .ticks = ticks.count,
                                                      .tick = ticks.ranks,
                                                      .tick_text = ticks.texts},
                                                .y = {.title = "efficiency", .low = 0, .high = 1.08 * highest}}));
      TRY(plot_series(plot, &(struct plot_series){.style = PLOT_LINES,
                                                  .colour = PLOT_GREY,
                                                  .dashed = true,
                                                  .count = 2,
                                                  .x = ends,
                                                  .y = (const double[]){1, 1}}));
      colour = 0;
    }
    TRY(draw_efficiencies(study, first, colour++, plot));
  }
  return STATUS_OK;
}

/* Bars of a step's milliseconds, one for each number of ranks, and the model's. */
static enum status draw_split(const struct scale_study *study, int first, struct plot *plot) {
  const struct row *rows = &study->rows[first];
  double y[MOST_TICKS];
  struct ticks ticks;
  char named[96];
  ticks_of(study, first, &ticks);
  snprintf(named, sizeof named, "%s, batch %lld%s", mode_name(rows), (long long)rows->series,
           rows->weak ? " a rank" : "");
  TRY(plot_panel(plot, &(struct plot_panel){.title = named,
                                            .stacked = true,
                                            .x = {.title = "ranks",
                                                  .low = -0.6,
                                                  .high = ticks.count - 0.4,
                                                  .ticks = ticks.count,
                                                  .tick = ticks.place,
                                                  .tick_text = ticks.texts},
                                            .y = {.title = "ms a step", .low = 0, .high = NAN}}));
  for (int phase = 0; phase < SCALE_PHASES; phase++) {
    double sum = 0;
    for (int i = 0; i < ticks.count; i++)
      sum += y[i] = 1e3 * rows[i].point->phase[phase];
    if (sum == 0)
      continue;
    TRY(plot_series(plot, &(struct plot_series){.style = PLOT_BARS,
                                                .title = scale_phase_name((enum scale_phase)phase),
                                                .colour = phase == SCALE_REST ? PLOT_GREY : phase,
                                                .count = ticks.count,
                                                .x = ticks.place,
                                                .y = y,
                                                .width = 0.6}));
  }
  for (int i = 0; i < ticks.count; i++)
    y[i] = 1e3 * rows[i].cost.step;
  return plot_series(plot, &(struct plot_series){.style = PLOT_POINTS,
                                                 .title = "model",
                                                 .colour = PLOT_BLACK,
                                                 .count = ticks.count,
                                                 .x = ticks.place,
                                                 .y = y});
}

static enum status draw_splits(const struct scale_study *study, struct plot *plot) {
  for (int first = 0; first < study->row_count; first += length_of(study, first))
    TRY(draw_split(study, first, plot));
  return STATUS_OK;
}

static enum status draw(const struct scale_study *study, const struct plotter *plotter, const char *folder,
                        const char *name, int columns,
                        enum status (*fill)(const struct scale_study *study, struct plot *plot)) {
  char stem[PATH_MAX];
  struct plot *plot;
  snprintf(stem, sizeof stem, "%s/%s", folder, name);
  TRY(plot_create(&(struct plot_layout){.columns = columns}, &plot));
  enum status status = fill(study, plot);
  if (status == STATUS_OK)
    status = plot_draw(plot, plotter, stem);
  plot_destroy(&plot);
  return status;
}

enum status scale_study_draw(const struct scale_study *study, const char *folder, char *note, size_t bytes) {
  struct plotter plotter;
  int series = 0;
  note[0] = '\0';
  if (!plotter_find(&plotter))
    snprintf(note, bytes, "%s", plotter.why);
  for (int first = 0; first < study->row_count; first += length_of(study, first))
    series += !study->rows[first].weak == !study->rows[0].weak;
  TRY(draw(study, &plotter, folder, "efficiency", 2, draw_efficiency));
  return draw(study, &plotter, folder, "time-split", series < 3 ? series : 3, draw_splits);
}
