/* conr scale --predict: the cost of a step on a machine that a file describes, before node-hours are spent. */
#include "launch/commands.h"
#include "launch/json_output.h"
#include "launch/machine_file.h"
#include "launch/plot.h"
#include "launch/run_folder.h"
#include "launch/scale_table.h"
#include "version.h"

#include "dist/memory.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST_RANKS 64
#define MOST_POINTS 4096
#define FIRST_RANKS 8
#define LAST_RANKS 4096

struct prediction {
  const struct config *config;
  struct machine_file file;
  int64_t ranks[MOST_RANKS];
  int count;
  bool weak, strong;
  char from[PATH_MAX + 256]; /* of the study, or "" */
};

/* --- what is known -------------------------------------------------------------------------------------------- */

static int is_point(const struct dirent *entry) {
  size_t length = strlen(entry->d_name);
  return length > 5 && strcmp(entry->d_name + length - 5, ".json") == 0;
}

/* Samples of the points in a study's folder. */
static enum status read_samples(const char *folder, struct cost_sample *samples, int *count) {
  char path[PATH_MAX];
  struct dirent **names;
  enum status status = STATUS_OK;
  snprintf(path, sizeof path, "%s/points", folder);
  int found = scandir(path, &names, is_point, alphasort);
  *count = 0;
  REQUIRE(found >= 0, ERR_FILE, "cannot read the study %s: %s: %s", folder, path, strerror(errno));
  for (int i = 0; i < found; i++) {
    struct scale_point point;
    char file[PATH_MAX + 256];
    bool there;
    snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
    if (status == STATUS_OK && *count < MOST_POINTS) {
      status = scale_point_read(file, &point, &there);
      samples[*count] = status == STATUS_OK ? scale_sample(&point) : samples[*count];
      *count += status == STATUS_OK;
      scale_point_free(&point);
    }
    free(names[i]);
  }
  free(names);
  return status;
}

/* What a study of the same model on one such GPU says: the time of a step's own computation, and the panels' rate. */
static enum status take_study(struct prediction *own) {
  struct cost_sample *samples;
  struct cost_fit fit;
  int count;
  const char *folder = own->config->study;
  TRY(memory_alloc_zero(MOST_POINTS * sizeof *samples, (void **)&samples));
  enum status status = read_samples(folder, samples, &count);
  if (status == STATUS_OK)
    cost_fit(samples, count, &fit);
  memory_free((void **)&samples);
  TRY(status);
  const struct coefficient *row = &fit.parameter[COST_SAMPLE], *flop = &fit.parameter[COST_FLOP];
  REQUIRE(row->state == COEFFICIENT_FITTED, ERR_ARGUMENT,
          "the %d points in %s do not say what a sample costs: it %s; measure more, or drop --study", count, folder,
          cost_parameter_needs(COST_SAMPLE));
  /* A machine's rows are those of ConR, a study's samples have as many views as they have. */
  own->file.work.fixed = fit.parameter[COST_FIXED].value;
  own->file.work.per_row = row->value;
  int used = snprintf(own->from, sizeof own->from, "of %s: %.4g ms and %.4g us a row", folder,
                      1e3 * own->file.work.fixed, 1e6 * row->value);
  if (flop->state != COEFFICIENT_FITTED)
    return STATUS_OK;
  own->file.machine.flops = 1 / flop->value;
  snprintf(own->from + used, sizeof own->from - (size_t)used, "; panels at %.4g GFLOP/s", 1e-9 / flop->value);
  return STATUS_OK;
}

static enum status read_ranks(struct prediction *own) {
  const struct config *config = own->config;
  for (int64_t ranks = FIRST_RANKS; ranks <= LAST_RANKS; ranks *= 2)
    own->ranks[own->count++] = ranks;
  if (config->ranks != NULL)
    TRY(config_rising("ranks", config->ranks, 1, INT32_MAX, MOST_RANKS, own->ranks, &own->count));
  own->weak = strcmp(config->mode, "strong") != 0;
  own->strong = strcmp(config->mode, "weak") != 0 && own->file.fixed_rows > 0;
  REQUIRE(own->weak || own->strong, ERR_ARGUMENT, "--mode strong wants fixed_rows in [step] of %s", config->machine);
  return STATUS_OK;
}

/* --- tables --------------------------------------------------------------------------------------------------- */

static double rows_of(const struct prediction *own, bool weak, int64_t ranks) {
  return weak ? own->file.rows_per_gpu : own->file.fixed_rows / (double)ranks;
}

struct predicted {
  double ranks, rows, efficiency;
  struct cost cost;
};

/* Efficiency is measured against one GPU, which exchanges nothing. */
static struct predicted predict(const struct prediction *own, bool weak, int64_t ranks) {
  const struct machine_file *file = &own->file;
  double rows = rows_of(own, weak, ranks);
  struct cost cost = cost_of_step(&file->machine, &file->work, (double)ranks, rows);
  struct cost one = cost_of_step(&file->machine, &file->work, 1, rows_of(own, weak, 1));
  return (struct predicted){.ranks = (double)ranks,
                            .rows = rows * (double)ranks,
                            .efficiency = one.step / cost.step / (weak ? 1 : (double)ranks),
                            .cost = cost};
}

static void print_table(const struct prediction *own, bool weak, FILE *out) {
  if (weak)
    fprintf(out, "\nWeak: %.0f rows a GPU\n\n", own->file.rows_per_gpu);
  else
    fprintf(out, "\nStrong: %.0f rows in all\n\n", own->file.fixed_rows);
  fprintf(out, "%6s %9s %11s  %9s %9s %9s %9s %9s %9s %9s  %8s %8s  %6s\n", "GPUs", "rows N", "gathered", "gather",
          "by ring", "u, v", "panels", "gradients", "own work", "step", "gather", "panels", "effi-");
  fprintf(out, "%6s %9s %11s  %9s %9s %9s %9s %9s %9s %9s  %8s %8s  %6s\n", "", "", "MB", "ms", "ms", "us", "ms", "ms",
          "ms", "ms", "% of it", "% of it", "ciency");
  for (int i = 0; i < own->count; i++) {
    struct predicted row = predict(own, weak, own->ranks[i]);
    const struct cost *cost = &row.cost;
    fprintf(out, "%6.0f %9.0f %11.1f  %9.3f %9.3f %9.1f %9.3f %9.3f %9.3f %9.3f  %8.2f %8.2f  %6.3f\n", row.ranks,
            row.rows, cost->gathered_bytes / 1e6, 1e3 * cost->gather, 1e3 * cost->gather_ring, 1e6 * cost->statistics,
            1e3 * cost->panels, 1e3 * cost->reduce, 1e3 * cost->compute, 1e3 * cost->step, 100 * cost->share_gather,
            100 * cost->share_panels, row.efficiency);
  }
}

static void print(const struct prediction *own, FILE *out) {
  fprintf(out, "Predicted by the cost model from %s: no measurement; nothing is overlapped\n", own->config->machine);
  if (own->from[0] != '\0')
    fprintf(out, "own work by the points %s\n", own->from);
  if (own->weak)
    print_table(own, true, out);
  if (own->strong)
    print_table(own, false, out);
}

/* --- files ---------------------------------------------------------------------------------------------------- */

#define FIELDS 14

static const char *const field_names[FIELDS] = {"ranks",
                                                "rows",
                                                "gathered_bytes",
                                                "seconds_gather",
                                                "seconds_gather_ring",
                                                "seconds_statistics",
                                                "seconds_panels",
                                                "seconds_reduce",
                                                "seconds_compute",
                                                "seconds",
                                                "share_gather",
                                                "share_panels",
                                                "share_conr",
                                                "efficiency"};

static void fields_of(const struct predicted *row, double out[FIELDS]) {
  const struct cost *cost = &row->cost;
  const double values[FIELDS] = {row->ranks,
                                 row->rows,
                                 cost->gathered_bytes,
                                 cost->gather,
                                 cost->gather_ring,
                                 cost->statistics,
                                 cost->panels,
                                 cost->reduce,
                                 cost->compute,
                                 cost->step,
                                 cost->share_gather,
                                 cost->share_panels,
                                 cost->share_gather + cost->share_panels,
                                 row->efficiency};
  memcpy(out, values, sizeof values);
}

static enum status write_csv(const struct prediction *own, const char *path) {
  FILE *file = fopen(path, "we");
  REQUIRE(file != NULL, ERR_FILE, "cannot write %s: %s", path, strerror(errno));
  fprintf(file, "mode");
  for (int i = 0; i < FIELDS; i++)
    fprintf(file, ",%s", field_names[i]);
  fputc('\n', file);
  for (int weak = 1; weak >= 0; weak--)
    for (int i = 0; i < own->count && (weak ? own->weak : own->strong); i++) {
      struct predicted row = predict(own, weak, own->ranks[i]);
      double values[FIELDS];
      fields_of(&row, values);
      fputs(weak ? "weak" : "strong", file);
      for (int v = 0; v < FIELDS; v++)
        fprintf(file, ",%.17g", values[v]);
      fputc('\n', file);
    }
  bool failed = ferror(file) != 0;
  failed = fclose(file) != 0 || failed;
  REQUIRE(!failed, ERR_FILE, "cannot write %s: the disk may be full", path);
  return STATUS_OK;
}

static enum status make_json(const struct prediction *own, json_t **out) {
  json_t *rows = json_array(), *object = json_object();
  int failed = rows == NULL || object == NULL;
  for (int weak = 1; weak >= 0; weak--)
    for (int i = 0; i < own->count && (weak ? own->weak : own->strong); i++) {
      struct predicted row = predict(own, weak, own->ranks[i]);
      json_t *one = json_pack("{s:s}", "mode", weak ? "weak" : "strong");
      double values[FIELDS];
      fields_of(&row, values);
      for (int v = 0; v < FIELDS; v++)
        failed |= json_object_set_new(one, field_names[v], json_real(values[v]));
      failed |= json_array_append_new(rows, one);
    }
  failed |= json_object_set_new(object, "made_by", json_string("conr " CONR_VERSION " " CONR_COMMIT));
  failed |= json_object_set_new(object, "machine", json_string(own->config->machine));
  failed |= json_object_set_new(object, "study", own->from[0] ? json_string(own->from) : json_null());
  failed |= json_object_set_new(object, "rows", rows);
  *out = object;
  if (!failed)
    return STATUS_OK;
  json_decref(object);
  return fail(ERR_MEMORY, "out of memory for the prediction as JSON (or a name in it is not UTF-8)");
}

struct curves {
  double ranks[MOST_RANKS], efficiency[MOST_RANKS];
  double gather[MOST_RANKS], panels[MOST_RANKS], gradients[MOST_RANKS]; /* % of a step */
};

/* Efficiency, and beside it the shares, from less than a thousandth on. */
static enum status draw_panels(const struct curves *curves, const char *title, int count, struct plot *plot) {
  const struct {
    const char *name;
    const double *y;
  } shares[] = {
      {"gathers of ConR", curves->gather}, {"panels of ConR", curves->panels}, {"sum of gradients", curves->gradients}};
  struct plot_series series = {
      .style = PLOT_LINES_POINTS, .title = "efficiency", .colour = PLOT_BLACK, .count = count, .x = curves->ranks};
  struct plot_axis axis = {.title = "GPUs", .log_base = 2};
  series.y = curves->efficiency;
  TRY(plot_panel(plot, &(struct plot_panel){.title = title,
                                            .x = axis,
                                            .y = {.title = "efficiency, predicted", .low = 0, .high = 1.08}}));
  TRY(plot_series(plot, &series));
  TRY(plot_panel(plot, &(struct plot_panel){.title = title,
                                            .x = axis,
                                            .y = {.title = "% of a step", .log_base = 10, .low = 0.01, .high = 100}}));
  for (int i = 0; i < 3; i++) {
    series.title = shares[i].name;
    series.colour = i;
    series.y = shares[i].y;
    TRY(plot_series(plot, &series));
  }
  return STATUS_OK;
}

static enum status draw_mode(const struct prediction *own, bool weak, struct plot *plot) {
  struct curves curves;
  char title[96];
  for (int i = 0; i < own->count; i++) {
    struct predicted row = predict(own, weak, own->ranks[i]);
    curves.ranks[i] = row.ranks;
    curves.efficiency[i] = row.efficiency;
    curves.gather[i] = 100 * row.cost.share_gather;
    curves.panels[i] = 100 * row.cost.share_panels;
    curves.gradients[i] = 100 * row.cost.reduce / row.cost.step;
  }
  snprintf(title, sizeof title, "%s: %.0f rows %s", weak ? "weak" : "strong",
           weak ? own->file.rows_per_gpu : own->file.fixed_rows, weak ? "a GPU" : "in all");
  return draw_panels(&curves, title, own->count, plot);
}

static enum status draw(const struct prediction *own) {
  struct plotter plotter;
  struct plot *plot;
  char stem[PATH_MAX];
  enum status status;
  if (!plotter_find(&plotter))
    fprintf(stderr, "conr: no pictures: %s\n", plotter.why);
  snprintf(stem, sizeof stem, "%s/predicted", own->config->output);
  TRY(plot_create(&(struct plot_layout){.columns = 2}, &plot));
  if (own->weak)
    TRY_GOTO(draw_mode(own, true, plot), out);
  if (own->strong)
    TRY_GOTO(draw_mode(own, false, plot), out);
  status = plot_draw(plot, &plotter, stem);
out:
  plot_destroy(&plot);
  return status;
}

static enum status write_files(const struct prediction *own, const json_t *object) {
  char path[PATH_MAX];
  TRY(run_folder_make(own->config->output));
  snprintf(path, sizeof path, "%s/predicted.csv", own->config->output);
  TRY(write_csv(own, path));
  snprintf(path, sizeof path, "%s/predicted.json", own->config->output);
  TRY(json_output_write(object, path));
  return draw(own);
}

static enum status check_options(const struct config *config) {
  static const char *const read[] = {"predict", "machine", "study", "ranks", "mode",
                                     "output",  "config",  "json",  "quiet", NULL};
  const char *unread = config_given_beside(config, read);
  REQUIRE(unread == NULL, ERR_ARGUMENT,
          "--%s has no effect with --predict, which knows what the machine file says; drop it", unread);
  REQUIRE(config->words == 0, ERR_ARGUMENT, "--predict takes no data, and \"%s\" was given; drop it", config->word[0]);
  REQUIRE(config->machine != NULL, ERR_ARGUMENT,
          "--predict wants to know the machine: give --machine FILE (launch/machines has one)");
  REQUIRE(config->output == NULL || strlen(config->output) < PATH_MAX - 64, ERR_ARGUMENT,
          "the path --output %.40s... is too long", config->output);
  return STATUS_OK;
}

enum status command_predict_scale(const struct config *config) {
  struct prediction own = {.config = config};
  json_t *object;
  TRY(check_options(config));
  TRY(machine_file_read(config->machine, &own.file));
  TRY(read_ranks(&own));
  if (config->study != NULL)
    TRY(take_study(&own));
  TRY(make_json(&own, &object));
  enum status status = config->output != NULL ? write_files(&own, object) : STATUS_OK;
  if (status == STATUS_OK && config->json)
    json_output_print(object);
  else if (status == STATUS_OK)
    print(&own, stdout);
  json_decref(object);
  return status;
}
