/* Metrics of a GPU against those of the host: all groups, rules and edges.  Without a GPU over the emulation. */
#include "dist/memory.h"
#include "dist/random.h"
#include "loss/loss_ops.h"
#include "tests/device_support.h"
#include "tests/emulated.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static struct device *device;
static const struct loss_ops *losses;

static void begin(void) {
  device_losses_begin(&device, &losses);
}

static void end(void) {
  device_losses_end(&device);
}

TestSuite(device_metrics, .init = begin, .fini = end, .timeout = 120);

/* An evaluated split; `predictions` has the type that the device gets. */
struct split {
  int64_t rows;
  int targets;
  enum dtype dtype;
  double *labels;
  void *predictions;
  const struct metrics *metrics;
};

static void *predictions_there(const struct split *split) {
  size_t bytes = (size_t)(split->rows * split->targets) * dtype_size(split->dtype);
  void *block;
  MUST(device_alloc(device, bytes + 1, &block));
  MUST(device_copy(device, block, split->predictions, bytes));
  return block;
}

/* The host's table of predictions of any type, with labels in double. */
static enum status table_of_host(const struct split *split, struct metrics_table *table) {
  int64_t count = split->rows * split->targets;
  double *values = malloc((size_t)count * sizeof *values + 1);
  for (int64_t i = 0; i < count; i++)
    values[i] = split->dtype == F32 ? (double)((float *)split->predictions)[i] : ((double *)split->predictions)[i];
  enum status status = metrics_compute(split->metrics, F64, split->rows, split->labels, values, table);
  free(values);
  return status;
}

static void expect_same_row(const char *what, enum metrics_group group, const struct metrics_row *got,
                            const struct metrics_row *wanted) {
  const double *a = &got->mae, *b = &wanted->mae; /* mae .. bmse, then the correlations, whose largest value is 1 */
  cr_expect(eq(i64, got->count, wanted->count), "%s, %s", what, metrics_group_name(group));
  for (int i = 0; i < 9; i++) {
    double limit = 1e-12 * (i < 7 ? fabs(b[i]) : 1);
    bool same = isnan(b[i]) ? isnan(a[i]) : fabs(a[i] - b[i]) <= limit;
    cr_expect(same, "%s, %s, figure %d: %.17g, wanted %.17g", what, metrics_group_name(group), i, a[i], b[i]);
  }
}

/* Sums of some thousand doubles in another order: 1e-12.  Twice: a second evaluation has the bits of the first. */
static void expect_same(const char *what, const struct split *split) {
  struct metrics_table wanted, got[2];
  struct metrics_device *there;
  MUST(table_of_host(split, &wanted));
  memset(got, 0, sizeof got);
  void *predictions = predictions_there(split);
  MUST(losses->metrics_create(device, split->metrics, split->rows, split->labels, &there));
  for (int i = 0; i < 2; i++)
    MUST(losses->metrics_compute(there, split->dtype, predictions, &got[i]));
  for (int group = METRICS_ALL; group < METRICS_GROUPS; group++)
    expect_same_row(what, (enum metrics_group)group, &got[0].row[group], &wanted.row[group]);
  cr_expect(memcmp(&got[0], &got[1], sizeof got[0]) == 0, "%s: another evaluation, other bits", what);
  losses->metrics_destroy(&there);
  cr_assert(eq(ptr, there, NULL));
  device_free(device, &predictions);
}

/* Labels are skewed towards 0, some predictions tie, and every 17th row is exact. */
static struct split random_split(int64_t rows, int targets, enum dtype dtype) {
  struct random_key key = random_key(11, RANDOM_TEST, (uint64_t)(rows + targets));
  struct split split = {.rows = rows, .targets = targets, .dtype = dtype};
  int64_t count = rows * targets;
  split.labels = malloc((size_t)count * sizeof(double) + 1);
  split.predictions = malloc((size_t)count * dtype_size(dtype) + 1);
  for (int64_t i = 0; i < count; i++) {
    double uniform = random_uniform(key, 0, (uint64_t)i), noise = random_normal(key, 1, (uint64_t)i);
    bool exact = i / targets % 17 == 3;
    split.labels[i] = floor(40 * uniform * uniform * uniform) / 4 - 2;
    double prediction = split.labels[i] + (exact ? 0 : i % 3 == 0 ? rint(2 * noise) : noise);
    if (dtype == F32)
      ((float *)split.predictions)[i] = (float)prediction;
    else
      ((double *)split.predictions)[i] = prediction;
  }
  return split;
}

static void free_split(struct split *split) {
  free(split->labels);
  free(split->predictions);
}

/* Trained on the labels of the split itself, so that there are bins of all classes. */
static struct metrics *metrics_of(const struct split *split, const struct metrics_options *options) {
  struct metrics *metrics;
  MUST(metrics_create(options, F64, split->rows, split->targets, split->labels, &metrics));
  return metrics;
}

static void expect_random_same(const char *what, int64_t rows, int targets, enum dtype dtype,
                               const struct metrics_options *options) {
  struct split split = random_split(rows, targets, dtype);
  struct metrics *metrics = metrics_of(&split, options);
  split.metrics = metrics;
  expect_same(what, &split);
  metrics_destroy(&metrics);
  free_split(&split);
}

Test(device_metrics, figures_of_all_groups_are_those_of_the_host) {
  struct metrics_options options = metrics_options_default();
  options.bin_width = 0.5;
  options.many_over = 60;
  options.few_under = 30;
  static const int64_t rows[] = {1, 2, 255, 256, 257, 1500};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    for (int targets = 1; targets <= 3; targets++)
      for (enum dtype dtype = F32; dtype <= F64; dtype++) {
        char what[80];
        snprintf(what, sizeof what, "%lld rows of %d, %s", (long long)rows[i], targets, dtype_name(dtype));
        expect_random_same(what, rows[i], targets, dtype, &options);
      }
}

/* The test above would say little if these groups were empty. */
Test(device_metrics, the_compared_splits_have_rows_in_all_groups) {
  struct split split = random_split(1500, 1, F64);
  struct metrics_options options = metrics_options_default();
  struct metrics_table table;
  options.bin_width = 0.5;
  options.many_over = 60;
  options.few_under = 30;
  struct metrics *metrics = metrics_of(&split, &options);
  split.metrics = metrics;
  MUST(table_of_host(&split, &table));
  for (int group = METRICS_ALL; group < METRICS_GROUPS; group++)
    cr_assert(table.row[group].count > 10, "%s", metrics_group_name((enum metrics_group)group));
  metrics_destroy(&metrics);
  free_split(&split);
}

Test(device_metrics, geometric_means_follow_their_rules) {
  struct metrics_options options = metrics_options_default();
  for (enum gmean_rule rule = GMEAN_PLAIN; rule <= GMEAN_REPLACE_ZERO; rule++) {
    options.gmean_rule = rule;
    for (int targets = 1; targets <= 2; targets++)
      expect_random_same("a rule of the geometric mean", 300, targets, F32, &options);
  }
}

Test(device_metrics, explicit_edges_and_listed_shots_are_those_of_the_host) {
  static const double edges[] = {-1, 0, 0.3, 2, 5};
  static const enum metrics_group shots[] = {METRICS_MANY, METRICS_ALL, METRICS_FEW, METRICS_MEDIAN};
  struct metrics_options options = metrics_options_default();
  options.bins = 4;
  options.bin_edges = edges;
  expect_random_same("explicit edges", 400, 1, F64, &options);
  options.shot_of_bin = shots;
  expect_random_same("listed shots, one bin in no group", 400, 1, F64, &options);
}

Test(device_metrics, a_split_without_rows_is_that_of_the_host) {
  struct metrics_options options = metrics_options_default();
  for (int zero = 0; zero < 2; zero++) {
    options.empty_is_zero = zero != 0;
    expect_random_same("no rows", 0, 2, F32, &options);
    expect_random_same("one row", 1, 2, F32, &options);
  }
}

/* 0: labels, 1: predictions, 2: both. */
static void expect_constants_same(int64_t rows, int which) {
  struct split split = random_split(rows, 1, F64);
  struct metrics_options options = metrics_options_default();
  for (int64_t i = 0; i < rows; i++) {
    if (which != 1)
      split.labels[i] = 0.1;
    if (which != 0)
      ((double *)split.predictions)[i] = 0.7;
  }
  struct metrics *metrics = metrics_of(&split, &options);
  split.metrics = metrics;
  expect_same("constants", &split);
  metrics_destroy(&metrics);
  free_split(&split);
}

/* Of some of these numbers of rows the mean is not the constant, to rounding. */
Test(device_metrics, constants_have_no_correlation) {
  static const int64_t rows[] = {3, 300, 777, 1001};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    for (int which = 0; which < 3; which++)
      expect_constants_same(rows[i], which);
}

/* -0 and 0 are one value, which ranks share. */
Test(device_metrics, zeros_of_both_signs_tie) {
  double labels[] = {1, 2, 3, 4, 5}, predictions[] = {0.0, -0.0, 0.0, -1, 2};
  struct metrics_options options = metrics_options_default();
  struct split split = {.rows = 5, .targets = 1, .dtype = F64, .labels = labels, .predictions = predictions};
  struct metrics *metrics = metrics_of(&split, &options);
  split.metrics = metrics;
  expect_same("zeros", &split);
  metrics_destroy(&metrics);
}

/* The host's sentence, which names the first row that is wrong; and the next evaluation knows nothing of it. */
Test(device_metrics, a_value_that_is_not_finite_is_the_sentence_of_the_host) {
  static const double bad[] = {NAN, INFINITY, -INFINITY};
  struct metrics_options options = metrics_options_default();
  struct split split = random_split(300, 2, F32);
  float *predictions = split.predictions;
  struct metrics *metrics = metrics_of(&split, &options);
  struct metrics_device *there;
  struct metrics_table table;
  split.metrics = metrics;
  MUST(losses->metrics_create(device, metrics, split.rows, split.labels, &there));
  for (int i = 0; i < 3; i++) {
    char wanted[512];
    float kept[] = {predictions[400], predictions[401], predictions[499]};
    predictions[400] = (float)bad[i];
    predictions[401] = predictions[499] = NAN;
    cr_assert(eq(int, table_of_host(&split, &table), ERR_NUMERIC));
    snprintf(wanted, sizeof wanted, "%s", status_message());
    cr_assert(ne(ptr, strstr(wanted, "prediction of row 200 is "), NULL), "%s", wanted);
    void *block = predictions_there(&split);
    cr_assert(eq(int, losses->metrics_compute(there, F32, block, &table), ERR_NUMERIC));
    cr_assert(eq(str, (char *)status_message(), wanted));
    device_free(device, &block);
    predictions[400] = kept[0];
    predictions[401] = kept[1];
    predictions[499] = kept[2];
  }
  void *block = predictions_there(&split);
  MUST(losses->metrics_compute(there, F32, block, &table));
  device_free(device, &block);
  losses->metrics_destroy(&there);
  split.labels[5] = NAN;
  REFUSED(losses->metrics_create(device, metrics, split.rows, split.labels, &there), ERR_NUMERIC,
          "the label of row 2 is nan (component 1)");
  cr_assert(eq(ptr, there, NULL));
  metrics_destroy(&metrics);
  free_split(&split);
}
