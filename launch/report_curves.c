/* Pictures of what metrics.jsonl says: curves over the epochs, and where the time went. */
#include "launch/report_pictures.h"

#include "dist/memory.h"

#include <math.h>
#include <string.h>

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

/* Lowest and highest value of a column; false: it has none. */
static bool extent_of_run(const struct run_record *record, enum curve curve, double extent[2]) {
  extent[0] = INFINITY;
  extent[1] = -INFINITY;
  for (int64_t e = 0; e < record->epochs; e++) {
    extent[0] = fmin(extent[0], record->epoch[e][curve]); /* of a NaN the other */
    extent[1] = fmax(extent[1], record->epoch[e][curve]);
  }
  return extent[0] <= extent[1];
}

/* Over all runs. */
static bool extent_of(const struct report *report, enum curve curve, double extent[2]) {
  extent[0] = INFINITY;
  extent[1] = -INFINITY;
  for (int r = 0; r < report->runs; r++) {
    double own[2];
    extent_of_run(report->run[r].record, curve, own);
    extent[0] = fmin(extent[0], own[0]);
    extent[1] = fmax(extent[1], own[1]);
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
                                                     .title = picture_key(report, r),
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
  struct plot_layout layout = picture_layout(panels);
  TRY_GOTO(plot_create(&layout, &plot), out);
  for (int p = 0; p < CURVE_PANELS; p++)
    if (is_worth_a_panel(report, curve_panels[p].curve))
      TRY_GOTO(draw_curve_panel(plot, report, &curve_panels[p]), out);
  status = picture_finish(
      report, plot, "curves", "Training curves",
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
      numbers_text(&numbers, report->run[r].name);
      numbers_row(&numbers, report->run[r].record->epoch[e], CURVES);
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

/* Lying bars at `place`, the first run's on top. */
static enum status begin_times(struct plot *plot, const struct report *report, const char *title, bool stacked,
                               double place[REPORT_RUNS]) {
  const char *names[REPORT_RUNS];
  for (int r = 0; r < report->runs; r++) {
    place[r] = report->runs - 1 - r;
    names[r] = report->runs > 1 ? report->run[r].name : "";
  }
  return plot_panel(
      plot,
      &(struct plot_panel){
          .title = title,
          .x = {.low = -0.6, .high = report->runs - 0.4, .ticks = report->runs, .tick = place, .tick_text = names},
          .y = {.title = "seconds of an epoch", .low = 0, .high = NAN},
          .stacked = stacked,
          .sideways = true});
}

static enum status draw_times(struct plot *plot, const struct report *report, const char *title) {
  double seconds[REPORT_RUNS][TIMES], place[REPORT_RUNS], values[REPORT_RUNS];
  for (int r = 0; r < report->runs; r++)
    split_time(report->run[r].record, seconds[r]);
  TRY(begin_times(plot, report, title, true, place));
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

/* What the ranks' time went into; each has its columns of the least, the median and the most behind one another. */
static const struct rank_time {
  const char *name;
  enum curve least;
  int colour;
} rank_times[] = {{"waiting for data", CURVE_RANK_DATA_MIN, 4},
                  {"computing", CURVE_RANK_COMPUTE_MIN, 0},
                  {"waiting for ranks", CURVE_RANK_WAIT_MIN, 2}};
#define RANK_TIMES ((int)(sizeof rank_times / sizeof *rank_times))

/* Of runs on several ranks that tell them apart; of others there is nothing to compare. */
static bool have_several_ranks(const struct report *report) {
  for (int r = 0; r < report->runs; r++)
    for (int i = 0; i < RANK_TIMES; i++)
      if (mean_of(report->run[r].record, rank_times[i].least) < mean_of(report->run[r].record, rank_times[i].least + 2))
        return true;
  return false;
}

static enum status draw_rank_times(struct plot *plot, const struct report *report) {
  double place[REPORT_RUNS], seconds[3][REPORT_RUNS];
  TRY(begin_times(plot, report, "over the ranks: median, from the least to the most", false, place));
  for (int r = 0; r < report->runs; r++)
    place[r] += 0.25;
  for (int i = 0; i < RANK_TIMES; i++) {
    for (int r = 0; r < report->runs; r++) {
      for (int k = 0; k < 3; k++)
        seconds[k][r] = mean_of(report->run[r].record, rank_times[i].least + (enum curve)k);
      place[r] -= i > 0 ? 0.25 : 0;
    }
    TRY(plot_series(plot, &(struct plot_series){.style = PLOT_BARS,
                                                .title = rank_times[i].name,
                                                .colour = rank_times[i].colour,
                                                .count = report->runs,
                                                .x = place,
                                                .y = seconds[1],
                                                .low = seconds[0],
                                                .high = seconds[2],
                                                .width = 0.22}));
  }
  return STATUS_OK;
}

static enum status picture_times(struct report *report) {
  struct plot *plot = NULL;
  double extent[2];
  bool several = have_several_ranks(report);
  enum status status;
  if (!extent_of(report, CURVE_SECONDS, extent))
    return report_note(report, "no time split: metrics.jsonl has no epochs");
  struct plot_layout layout = {.columns = 1, .width = 640, .height = 40 + 46 * report->runs};
  TRY_GOTO(plot_create(&layout, &plot), out);
  TRY_GOTO(draw_times(plot, report, several ? "rank 0" : NULL), out);
  if (several)
    TRY_GOTO(draw_rank_times(plot, report), out);
  status = picture_finish(
      report, plot, "time", "Where the time went",
      several ? "Mean over epochs. On rank 0, by the device's clock on a GPU; other: validation, and whatever is in no "
                "column of metrics.jsonl. Over the ranks, without validation: a rank that computes or waits for data "
                "longer than the rest keeps them waiting."
              : "Mean over epochs, on rank 0: by the device's clock on a GPU. Other: validation, and whatever is in no "
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
      numbers_text(&numbers, report->run[r].name);
      numbers_text(&numbers, time_names[i]);
      NUMBERS(&numbers, seconds[i]);
    }
  }
  return numbers_close(&numbers);
}

/* Runs of a program that did not tell ranks apart are left out. */
static enum status write_rank_times(const struct report *report) {
  struct numbers numbers;
  TRY(numbers_open(report, "time_ranks.csv", "run,phase,least,median,most", &numbers));
  for (int r = 0; r < report->runs; r++)
    for (int i = 0; i < RANK_TIMES; i++) {
      const struct run_record *record = report->run[r].record;
      double extent[2];
      if (!extent_of_run(record, rank_times[i].least, extent))
        continue;
      numbers_text(&numbers, report->run[r].name);
      numbers_text(&numbers, rank_times[i].name);
      NUMBERS(&numbers, mean_of(record, rank_times[i].least), mean_of(record, rank_times[i].least + 1),
              mean_of(record, rank_times[i].least + 2));
    }
  return numbers_close(&numbers);
}

enum status pictures_of_curves(struct report *report) {
  TRY(write_curves(report));
  TRY(write_times(report));
  TRY(write_rank_times(report));
  TRY(picture_curves(report));
  return picture_times(report);
}
