/* More rows for ConR at a fixed batch: plan, runs, table and picture. */
#include "launch/scale_question.h"

#include "launch/json_output.h"
#include "launch/plot.h"
#include "launch/run_folder.h"
#include "launch/run_record.h"
#include "launch/study.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#define MOST_ROWS 64
#define PAST_MEMORY_ROWS (1 << 30)

enum kind { KIND_PAPER, KIND_REFERENCE, KIND_HELD, KINDS };
static const char *const kind_names[KINDS] = {"paper", "reference", "held"};

struct line {
  enum kind kind;
  int64_t rows;               /* N                                                                         */
  double step_seconds, share; /* of a step, and the losses' share of it; means over the seeds, NaN: no run */
};

struct question {
  struct config config; /* texts are borrowed */
  struct study study;
  int64_t batch_rows; /* of a batch that ConR sees */
  int64_t rows[MOST_ROWS];
  int row_count;
  struct line line[KINDS * MOST_ROWS];
};

/* --- the plan ------------------------------------------------------------------------------------------------- */

static enum status refuse_unread(const struct config *config) {
  static const char *const options[] = {"ranks",   "mode",  "batches",     "steps",         "repeat",      "predict",
                                        "machine", "study", "conr-memory", "conr-constant", "conr-variant"};
  for (size_t i = 0; i < sizeof options / sizeof *options; i++)
    REQUIRE(!config_given(config, options[i]), ERR_ARGUMENT, "--%s has no effect with --question %s; drop one",
            options[i], config->question);
  REQUIRE(strcmp(config->device, "cuda") != 0, ERR_ARGUMENT,
          "--question %s remembers rows of earlier steps, which the host alone does; give --device cpu, or drop "
          "--device",
          config->question);
  return STATUS_OK;
}

static enum status read_rows(struct question *own) {
  const char *text = own->config.rows != NULL ? own->config.rows : "128,256,512,1024,2048,4096,8192,16384";
  return config_rising("rows", text, 1, PAST_MEMORY_ROWS, MOST_ROWS, own->rows, &own->row_count);
}

static void adjust(const void *context, int number, struct config *run) {
  const struct question *own = context;
  const struct line *line = &own->line[number];
  run->conr = true;
  run->conr_variant = line->kind == KIND_PAPER ? "paper" : "reference";
  run->conr_memory = line->rows - own->batch_rows;
  run->conr_constant = line->kind == KIND_HELD ? own->rows[0] : 0;
}

static enum status add_line(struct question *own, enum kind kind, int64_t rows, int against) {
  char name[64];
  own->line[own->study.result.methods] = (struct line){.kind = kind, .rows = rows, .step_seconds = NAN, .share = NAN};
  snprintf(name, sizeof name, "%s-%lld", kind_names[kind], (long long)rows);
  return study_add(&own->study, name, against);
}

/* Held at the smallest N, the constant is that of reference: one run is enough. */
static enum status add_lines(struct question *own) {
  for (enum kind kind = KIND_PAPER; kind < KINDS; kind++) {
    int first = kind == KIND_HELD ? own->row_count : (int)kind * own->row_count;
    for (int i = kind == KIND_HELD; i < own->row_count; i++)
      TRY(add_line(own, kind, own->rows[i], i == 0 ? -1 : first));
  }
  return STATUS_OK;
}

/* Views of a sample that ConR sees: what a run makes of options and recipe. */
static enum status count_batch_rows(struct question *own) {
  char recipe[512];
  struct config run = {0};
  snprintf(recipe, sizeof recipe, "%s/%s", own->study.benchmark, own->study.methods);
  enum status status = config_for_run(&own->config, recipe, &run);
  int64_t views = run.views == 0 || run.views == 3 ? 2 : run.views;
  own->batch_rows = views * run.batch;
  config_destroy(&run);
  TRY(status);
  REQUIRE(own->rows[0] >= own->batch_rows, ERR_ARGUMENT,
          "--rows %lld: a batch of %lld samples in %lld views has %lld rows already; give that or more, or a smaller "
          "--batch",
          (long long)own->rows[0], (long long)(own->batch_rows / views), (long long)views, (long long)own->batch_rows);
  return STATUS_OK;
}

static enum status plan(struct session *session, const struct config *config, struct question *own) {
  *own = (struct question){.config = *config};
  own->config.device = "cpu";
  REQUIRE(config->words == 1, ERR_ARGUMENT, "conr scale --question %s wants a data file", config->question);
  TRY(study_begin(session, &own->config, &own->study));
  TRY(refuse_unread(config));
  REQUIRE(strchr(own->study.benchmark, '/') == NULL, ERR_ARGUMENT,
          "--recipe %s: --question wants the benchmark alone; the methods are its own", config->recipe);
  own->study.methods = "conr";
  own->study.adjust = adjust;
  own->study.context = own;
  TRY(read_rows(own));
  TRY(count_batch_rows(own));
  TRY(add_lines(own));
  return study_check(&own->study);
}

/* --- what it cost --------------------------------------------------------------------------------------------- */

/* Of one run: seconds of rank 0 in its steps, those in the losses, and steps.  What cannot be read counts as nothing: the
 * errors are what was asked for. */
static void add_run_cost(const char *folder, double *seconds, double *loss_seconds, int64_t *steps) {
  static const enum curve phases[] = {CURVE_FORWARD, CURVE_LOSS, CURVE_BACKWARD, CURVE_REDUCE, CURVE_UPDATE};
  struct run_record *record;
  if (run_record_read(folder, &record) != STATUS_OK)
    return;
  for (int64_t e = 0; e < record->epochs; e++) {
    const double *epoch = record->epoch[e];
    for (size_t i = 0; i < sizeof phases / sizeof *phases; i++)
      *seconds += isfinite(epoch[phases[i]]) ? epoch[phases[i]] : 0;
    *loss_seconds += isfinite(epoch[CURVE_LOSS]) ? epoch[CURVE_LOSS] : 0;
  }
  if (record->epochs > 0 && isfinite(record->epoch[record->epochs - 1][CURVE_STEP]))
    *steps += (int64_t)record->epoch[record->epochs - 1][CURVE_STEP] + 1;
  run_record_destroy(&record);
}

static enum status read_costs(struct question *own) {
  for (int m = 0; m < own->study.result.methods; m++) {
    double seconds = 0, loss_seconds = 0;
    int64_t steps = 0;
    for (int seed = 0; seed < own->study.result.seeds; seed++) {
      char folder[PATH_MAX];
      TRY(study_folder(&own->study, m, seed, folder));
      if (own->study.result.method[m].done[seed])
        add_run_cost(folder, &seconds, &loss_seconds, &steps);
    }
    own->line[m].step_seconds = steps > 0 ? seconds / (double)steps : NAN;
    own->line[m].share = seconds > 0 ? loss_seconds / seconds : NAN;
  }
  return STATUS_OK;
}

/* --- telling -------------------------------------------------------------------------------------------------- */

static void print_costs(const struct question *own, FILE *out) {
  fprintf(out,
          "\nN rows: %lld of the batch, and the rest of earlier steps as they were then.  paper has no constant; "
          "reference's grows with N;\nheld is reference with that of %lld rows.  Time of a step, and the share of the "
          "losses, which is ConR's but for the regression:\n\n%-16s  %8s  %10s  %6s\n",
          (long long)own->batch_rows, (long long)own->rows[0], "line", "memory", "ms a step", "losses");
  for (int m = 0; m < own->study.result.methods; m++) {
    const struct line *line = &own->line[m];
    if (isfinite(line->step_seconds))
      fprintf(out, "%-16s  %8lld  %10.3f  %5.0f%%\n", own->study.result.method[m].name,
              (long long)(line->rows - own->batch_rows), 1e3 * line->step_seconds, 100 * line->share);
  }
}

/* line,variant,rows,memory,seconds_per_step,loss_share */
static enum status write_costs(const struct question *own, const char *path) {
  FILE *file = fopen(path, "we");
  REQUIRE(file != NULL, ERR_FILE, "cannot write %s: %s", path, strerror(errno));
  fprintf(file, "line,variant,rows,memory,seconds_per_step,loss_share\n");
  for (int m = 0; m < own->study.result.methods; m++) {
    const struct line *line = &own->line[m];
    if (isfinite(line->step_seconds))
      fprintf(file, "%s,%s,%lld,%lld,%.6g,%.4g\n", own->study.result.method[m].name, kind_names[line->kind],
              (long long)line->rows, (long long)(line->rows - own->batch_rows), line->step_seconds, line->share);
  }
  bool failed = ferror(file) != 0;
  failed = fclose(file) != 0 || failed;
  REQUIRE(!failed, ERR_FILE, "cannot write %s: the disk may be full", path);
  return STATUS_OK;
}

/* The object of a comparison, whose lines have "variant", "rows", "memory", "seconds_per_step" and "loss_share" more. */
static enum status make_json(const struct question *own, json_t **out) {
  TRY(compare_table_json(&own->study.result, out));
  json_t *methods = json_object_get(*out, "methods"), *line;
  size_t m;
  json_object_set_new(*out, "batch_rows", json_integer(own->batch_rows));
  json_array_foreach(methods, m, line) {
    const struct line *own_line = &own->line[m];
    json_object_set_new(line, "variant", json_string(kind_names[own_line->kind]));
    json_object_set_new(line, "rows", json_integer(own_line->rows));
    json_object_set_new(line, "memory", json_integer(own_line->rows - own->batch_rows));
    if (!isfinite(own_line->step_seconds))
      continue;
    json_object_set_new(line, "seconds_per_step", json_real(own_line->step_seconds));
    json_object_set_new(line, "loss_share", json_real(own_line->share));
  }
  return STATUS_OK;
}

/* --- the picture ---------------------------------------------------------------------------------------------- */

/* Errors of a kind against N in one group, with their spread.  Reference's smallest N is held's too. */
static enum status draw_kind(const struct question *own, struct plot *plot, enum kind kind, int group) {
  double x[MOST_ROWS], y[MOST_ROWS], low[MOST_ROWS], high[MOST_ROWS];
  int64_t count = 0;
  for (int m = 0; m < own->study.result.methods; m++) {
    const struct line *line = &own->line[m];
    bool first_held = kind == KIND_HELD && line->kind == KIND_REFERENCE && line->rows == own->rows[0];
    double mean, spread;
    if ((line->kind != kind && !first_held) ||
        compare_table_mean(&own->study.result, &own->study.result.method[m], group, &mean, &spread) == 0)
      continue;
    spread = isfinite(spread) ? spread : 0;
    x[count] = (double)line->rows;
    y[count] = mean;
    low[count] = mean - spread;
    high[count++] = mean + spread;
  }
  return plot_series(plot, &(struct plot_series){.style = PLOT_LINES_POINTS,
                                                 .title = group == 0 ? kind_names[kind] : NULL,
                                                 .colour = (int)kind,
                                                 .count = count,
                                                 .x = x,
                                                 .y = y,
                                                 .low = low,
                                                 .high = high});
}

static enum status draw_group(const struct question *own, struct plot *plot, int group) {
  const char *name = metrics_group_name((enum metrics_group)group);
  TRY(plot_panel(plot, &(struct plot_panel){.title = name,
                                            .x = {.title = "rows that a row is contrasted with", .log_base = 2},
                                            .y = {.title = "test MAE, mean and deviation"},
                                            .key = group == 0 ? PLOT_KEY_BELOW : PLOT_KEY_NONE}));
  for (enum kind kind = KIND_PAPER; kind < KINDS; kind++)
    TRY(draw_kind(own, plot, kind, group));
  return STATUS_OK;
}

static enum status draw(const struct question *own, const char *stem) {
  struct plotter plotter;
  struct plot *plot;
  if (!plotter_find(&plotter))
    log_warning(&own->study.session->log, "%s", plotter.why);
  TRY(plot_create(&(struct plot_layout){.columns = 2}, &plot));
  enum status status = STATUS_OK;
  for (int group = 0; group < METRICS_GROUPS && status == STATUS_OK; group++)
    status = draw_group(own, plot, group);
  if (status == STATUS_OK)
    status = plot_draw(plot, &plotter, stem);
  plot_destroy(&plot);
  return status;
}

/* --- the answer ----------------------------------------------------------------------------------------------- */

/* Rank 0. */
static enum status tell(struct question *own) {
  const char *folder = own->config.output;
  char path[PATH_MAX + 32];
  json_t *object;
  TRY(run_folder_make(folder));
  TRY(read_costs(own));
  snprintf(path, sizeof path, "%s/question.csv", folder);
  TRY(compare_table_csv(&own->study.result, path));
  snprintf(path, sizeof path, "%s/question-cost.csv", folder);
  TRY(write_costs(own, path));
  TRY(make_json(own, &object));
  if (own->config.json) {
    json_output_print(object);
  } else {
    compare_table_print(&own->study.result, stdout);
    print_costs(own, stdout);
  }
  fflush(stdout);
  snprintf(path, sizeof path, "%s/question.json", folder);
  enum status status = json_output_write(object, path);
  json_decref(object);
  TRY(status);
  snprintf(path, sizeof path, "%s/question", folder);
  return draw(own, path);
}

enum status scale_question(struct session *session, const struct config *config, bool *stopped) {
  struct question question;
  bool root = comm_rank(session->comm) == 0;
  enum status status;
  TRY_GOTO(comm_agree(session->comm, plan(session, config, &question)), out);
  TRY_GOTO(session_open_device(session, &question.config), out);
  TRY_GOTO(study_run(&question.study), out);
  *stopped = question.study.stopped;
  if (study_is_complete(&question.study))
    status = comm_agree(session->comm, root ? tell(&question) : STATUS_OK);
out:
  study_end(&question.study);
  return status;
}
