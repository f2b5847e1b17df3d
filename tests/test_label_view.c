/* Bins along the labels, and what is counted and measured in them, against plain counting. */
#include "launch/label_view.h"

#include "dist/memory.h"
#include "dist/random.h"
#include "io_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>

TestSuite(label_view, .init = io_files_begin, .fini = io_files_end, .timeout = 30);

static struct label_axis cover(double bin_width, int most, int64_t rows, const double *labels) {
  struct label_axis axis;
  cr_assert(eq(int, label_axis_cover(bin_width, most, rows, labels, 1, &axis), STATUS_OK), "%s", status_message());
  return axis;
}

static void ends_are(const struct label_axis *axis, int b, double low, double high) {
  double got_low, got_high;
  label_axis_ends(axis, b, &got_low, &got_high);
  cr_assert(fabs(got_low - low) < 1e-12 && fabs(got_high - high) < 1e-12, "bin %d: %.17g to %.17g, not %g to %g", b,
            got_low, got_high, low, high);
}

FILE_TEST(label_view, whole_labels_have_bins_of_their_own_around_them) {
  const double ages[] = {3, 17, 4, 4};
  struct label_axis axis = cover(1, 100, 4, ages);
  cr_expect(eq(int, axis.count, 15));
  cr_expect(eq(int, label_axis_index(&axis, 3), 0));
  cr_expect(eq(int, label_axis_index(&axis, 17), 14));
  cr_expect(eq(int, label_axis_index(&axis, 18), -1));
  cr_expect(eq(int, label_axis_index(&axis, NAN), -1));
  ends_are(&axis, 1, 3.5, 4.5);
}

FILE_TEST(label_view, real_labels_have_the_evaluations_bins_with_a_wide_one_at_zero) {
  const double labels[] = {-12.5, 0.25, 12.75};
  struct label_axis axis = cover(1, 100, 3, labels);
  cr_expect(eq(int, axis.count, 25));
  cr_expect(eq(dbl, axis.width, 1));
  ends_are(&axis, 0, -13, -12);
  ends_are(&axis, 12, -1, 1); /* trunc() goes towards zero */
  ends_are(&axis, 24, 12, 13);
  cr_expect(eq(int, label_axis_index(&axis, -0.9), 12));
}

FILE_TEST(label_view, too_many_bins_are_merged_and_too_few_divided) {
  const double wide[] = {0, 1234}, narrow[] = {0.05, 1.95, 0.5};
  struct label_axis axis = cover(1, 100, 2, wide);
  cr_expect(eq(dbl, axis.width, 20), "1235 bins are 62 of 20");
  cr_expect(eq(int, axis.count, 62));
  cr_expect(axis.merged);
  axis = cover(1, 100, 3, narrow);
  cr_expect(eq(dbl, axis.width, 0.1));
  cr_expect(eq(int, axis.count, 20));
  cr_expect(not(axis.merged));
  axis = cover(1, 100, 0, NULL);
  cr_expect(eq(int, axis.count, 1));
  const double bad[] = {1, INFINITY};
  cr_expect(eq(int, label_axis_cover(1, 100, 2, bad, 1, &axis), ERR_NUMERIC));
  const double huge[] = {1, 1e300};
  cr_expect(eq(int, label_axis_cover(1e-12, 100, 2, huge, 1, &axis), ERR_ARGUMENT));
  cr_expect(eq(int, label_axis_cover(1, 100, 2, huge, 1, &axis), STATUS_OK));
  cr_expect(axis.count > 1 && axis.count <= 100);
}

/* ---- what is in the bins -------------------------------------------------------------------- */

enum { TRAIN = 3000, ROWS = 2500 }; /* more rows than are shown as points */

struct example {
  double train[TRAIN], labels[ROWS], predictions[ROWS];
  struct metrics *metrics;
  struct label_view_parts parts;
};

/* Labels thin out upwards: many shots below and few above.  None is next to an edge, where bins round. */
static void make_example(struct example *example, int64_t rows, double scale, double bin_width) {
  struct random_key key = random_key(5, RANDOM_TEST, 0);
  for (uint64_t i = 0; i < TRAIN; i++)
    example->train[i] = scale * pow(0.05 + 0.95 * random_uniform(key, i, 0), 3) - 0.1 * scale + 0.137;
  for (uint64_t i = 0; i < ROWS; i++) {
    example->labels[i] = scale * random_uniform(key, i, 1);
    example->predictions[i] = example->labels[i] + random_normal(key, i, 2);
  }
  struct metrics_options options = metrics_options_default();
  options.bin_width = bin_width;
  cr_assert(eq(int, metrics_create(&options, F64, TRAIN, 1, example->train, &example->metrics), STATUS_OK));
  example->parts = (struct label_view_parts){.train_rows = TRAIN,
                                             .rows = rows,
                                             .targets = 1,
                                             .train = example->train,
                                             .labels = example->labels,
                                             .predictions = example->predictions,
                                             .bin_width = bin_width,
                                             .metrics = example->metrics};
}

static struct label_view *view_of(const struct example *example) {
  struct label_view *view;
  cr_assert(eq(int, label_view_create(&example->parts, 0, &view), STATUS_OK), "%s", status_message());
  return view;
}

/* Each bin by looking at all samples between its ends. */
static void check_bins(const struct example *example, const struct label_view *view) {
  int64_t counted = 0;
  for (int b = 0; b < view->axis.count; b++) {
    double low, high, sum = 0;
    int64_t train = 0, rows = 0;
    label_axis_ends(&view->axis, b, &low, &high);
    for (int64_t i = 0; i < TRAIN; i++)
      train += example->train[i] >= low && example->train[i] < high;
    for (int64_t i = 0; i < example->parts.rows; i++)
      if (example->labels[i] >= low && example->labels[i] < high) {
        rows++;
        sum += fabs(example->predictions[i] - example->labels[i]);
      }
    cr_assert(eq(i64, view->train[b], train), "bin %d", b);
    cr_assert(eq(i64, view->rows[b], rows), "bin %d", b);
    cr_assert(rows == 0 ? isnan(view->mae[b]) : fabs(view->mae[b] - sum / (double)rows) < 1e-12, "bin %d: %g, not %g",
              b, view->mae[b], sum / (double)rows);
    counted += rows;
  }
  cr_assert(eq(i64, counted, example->parts.rows));
}

FILE_TEST(label_view, bins_count_and_measure_what_is_in_them) {
  static struct example example;
  make_example(&example, 700, 50, 1);
  struct label_view *view = view_of(&example);
  cr_assert(eq(dbl, view->axis.width, 1));
  check_bins(&example, view);
  bool seen[METRICS_GROUPS] = {false};
  for (int64_t i = 0; i < TRAIN; i++) { /* the class of a sample's bin is the sample's own */
    enum metrics_group group = view->group[label_axis_index(&view->axis, example.train[i])];
    cr_assert(eq(int, (int)group, (int)metrics_shot(example.metrics, F64, &example.train[i])), "label %g",
              example.train[i]);
    seen[group] = true;
  }
  cr_assert(seen[METRICS_MANY] && seen[METRICS_MEDIAN] && seen[METRICS_FEW]);
  cr_assert(eq(i64, view->points, 700));
  for (int64_t i = 0; i < view->points; i++)
    cr_assert(view->label[i] == example.labels[i] && view->prediction[i] == example.predictions[i]);
  label_view_destroy(&view);
  metrics_destroy(&example.metrics);
}

FILE_TEST(label_view, merged_bins_have_the_class_of_most_of_their_samples) {
  static struct example example;
  make_example(&example, 700, 400, 1);
  struct label_view *view = view_of(&example);
  cr_assert(view->axis.merged && view->axis.width > 1);
  check_bins(&example, view);
  for (int b = 0; b < view->axis.count; b++) {
    int64_t tally[METRICS_GROUPS] = {0};
    for (int64_t i = 0; i < TRAIN; i++)
      if (label_axis_index(&view->axis, example.train[i]) == b)
        tally[metrics_shot(example.metrics, F64, &example.train[i])]++;
    for (int group = METRICS_MANY; group < METRICS_GROUPS && view->train[b] > 0; group++)
      cr_assert(tally[group] <= tally[view->group[b]], "bin %d", b);
    if (view->train[b] == 0)
      cr_assert(eq(int, (int)view->group[b], (int)METRICS_FEW));
  }
  label_view_destroy(&view);
  metrics_destroy(&example.metrics);
}

FILE_TEST(label_view, more_samples_than_points_are_counted_in_cells) {
  static struct example example;
  make_example(&example, ROWS, 50, 1);
  struct label_view *view = view_of(&example);
  cr_assert(view->points == 0 && view->cells != NULL);
  double counted = 0;
  for (int c = 0; c < LABEL_VIEW_CELLS * LABEL_VIEW_CELLS; c++) {
    int column = c % LABEL_VIEW_CELLS, row = c / LABEL_VIEW_CELLS, count = 0;
    bool right = column == LABEL_VIEW_CELLS - 1, top = row == LABEL_VIEW_CELLS - 1; /* the last ones are closed */
    for (int64_t i = 0; i < ROWS; i++) {
      double x = example.labels[i], y = example.predictions[i];
      count += x >= label_view_edge(view, column) && (right || x < label_view_edge(view, column + 1)) &&
               y >= label_view_edge(view, row) && (top || y < label_view_edge(view, row + 1));
    }
    cr_assert(fabs(view->cells[c] - count) < 0.5, "cell %d, %d: %g, not %d", column, row, view->cells[c], count);
    counted += view->cells[c];
  }
  cr_assert(eq(dbl, counted, ROWS));
  label_view_destroy(&view);
  metrics_destroy(&example.metrics);
}
