/* Sample weights against golden vectors: windows, LDS, DenseWeight, UVOTE's experts with their weights,
 * losses and votes. */
#include "loss/kernel_density.h"
#include "loss/sample_weights.h"
#include "tests/golden_experts.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_BINS 512

/* The reference adds up float32 inverses in float32. */
#define LDS_TOLERANCE 2e-7

static void must(enum status status, const char *name) {
  cr_assert(eq(int, status, STATUS_OK), "%s: %s", name, status_message());
}

static void expect_array(const char *name, const char *what, int64_t count, const double *got, const double *expected,
                         double tolerance) {
  double error = golden_array_error(F64, count, got, expected);
  cr_expect(le(dbl, error, tolerance), "%s, %s: error %g above %g", name, what, error, tolerance);
}

static void expect_dataset(const struct golden_file *file, const char *name, const char *dataset, const double *got,
                           double tolerance) {
  struct golden_array expected = golden_read(file, name, dataset);
  expect_array(name, dataset, expected.count, got, expected.data, tolerance);
  golden_free(&expected);
}

/* Weights of bins that hold samples, each by itself: the golden ones are NaN elsewhere. */
static void expect_weights(const char *name, int64_t bins, const int64_t *counts, const double *got,
                           const double *expected, double tolerance) {
  int64_t compared = 0;
  for (int64_t b = 0; b < bins; b++) {
    cr_assert(eq(int, counts[b] > 0, !isnan(expected[b])), "%s: bin %lld", name, (long long)b);
    if (counts[b] == 0)
      continue;
    compared++;
    cr_expect(le(dbl, golden_scalar_error(got[b], expected[b]), tolerance), "%s, bin %lld: got %.17g, expected %.17g",
              name, (long long)b, got[b], expected[b]);
  }
  cr_assert(compared > 0, "%s: no bin has a sample", name);
}

static int64_t read_counts(const struct golden_file *file, const char *name, const char *dataset, int64_t *counts) {
  struct golden_array array = golden_read(file, name, dataset);
  int64_t bins = array.count;
  cr_assert(le(i64, bins, MOST_BINS), "%s", name);
  for (int64_t b = 0; b < bins; b++)
    counts[b] = (int64_t)array.data[b];
  golden_free(&array);
  return bins;
}

static struct label_window window_of(const struct golden_file *file, const char *name, enum window_scale scale) {
  char text[32];
  enum label_kernel kernel;
  struct label_window window;
  must(label_kernel_by_name(golden_text(file, name, "kernel", "?", text, sizeof text), &kernel), name);
  must(label_window_make(kernel, (int)golden_number(file, name, "ks", 0), golden_number(file, name, "sigma", 0), scale,
                         &window),
       name);
  return window;
}

static struct reweighting rule_of(const struct golden_file *file, const char *name, double exponent) {
  struct reweighting rule = reweighting_default(exponent);
  rule.lds = golden_number(file, name, "lds", 0) != 0;
  if (rule.lds)
    rule.window = window_of(file, name, WINDOW_BY_MAXIMUM);
  return rule;
}

static double named_exponent(const struct golden_file *file, const char *name) {
  char text[32];
  golden_text(file, name, "reweight", "?", text, sizeof text);
  cr_assert(strcmp(text, "inverse") == 0 || strcmp(text, "sqrt_inv") == 0, "%s: %s", name, text);
  return strcmp(text, "inverse") == 0 ? 1 : 0.5;
}

/* ---- LDS ---- */

static void check_windows(const struct golden_file *file, const char *name) {
  struct label_window lds = window_of(file, name, WINDOW_BY_MAXIMUM), fds = window_of(file, name, WINDOW_BY_SUM);
  expect_dataset(file, name, "lds_window_max_normalised", lds.value, 1e-14);
  expect_dataset(file, name, "fds_window_sum_normalised", fds.value, FLT_EPSILON); /* its own rounding to float32 */
}

/* The samples that the counts stand for: labels from 0 on in steps of 1. */
static double *labels_of_counts(int64_t bins, const int64_t *counts, int64_t *rows) {
  int64_t n = 0;
  for (int64_t b = 0; b < bins; b++)
    n += counts[b];
  double *labels = calloc((size_t)n, sizeof *labels);
  *rows = 0;
  for (int64_t b = 0; b < bins; b++)
    for (int64_t i = 0; i < counts[b]; i++)
      labels[(*rows)++] = (double)b;
  return labels;
}

/* The way from labels gives each sample the weight of its bin, bit for bit. */
static void check_labels(const char *name, const struct reweighting *rule, int64_t bins, const int64_t *counts,
                         const double *weight) {
  struct label_bins places = {0, 1, bins};
  int64_t rows, wrong = 0;
  double *labels = labels_of_counts(bins, counts, &rows), *got = malloc((size_t)rows * sizeof *got);
  must(reweighting_of_labels(rule, &places, rows, 1, labels, got), name);
  for (int64_t i = 0; i < rows; i++)
    wrong += got[i] != weight[(int64_t)labels[i]];
  cr_expect(eq(i64, wrong, 0), "%s: weights of samples", name);
  free(got);
  free(labels);
}

static void check_ages(const struct golden_file *file, const char *name) {
  int64_t counts[MOST_BINS], bins = read_counts(file, name, "counts", counts);
  double density[MOST_BINS], weights[MOST_BINS];
  struct reweighting rule = rule_of(file, name, named_exponent(file, name));
  bool plain = !golden_has(file, name, "smoothed");
  must(reweighting_of_counts(&rule, bins, counts, density, weights), name);
  expect_dataset(file, name, plain ? "density" : "smoothed_untruncated", density, 1e-13);
  rule.lds_truncate = golden_number(file, name, "smoothed_truncated_to_integer", 0) != 0;
  must(reweighting_of_counts(&rule, bins, counts, density, weights), name);
  if (!plain)
    expect_dataset(file, name, "smoothed", density, rule.lds_truncate ? 0 : 1e-13);
  struct golden_array expected = golden_read(file, name, "weight_per_age");
  expect_weights(name, bins, counts, weights, expected.data, LDS_TOLERANCE);
  golden_free(&expected);
  check_labels(name, &rule, bins, counts, weights);
}

static void check_similarity(const struct golden_file *file, const char *name) {
  int64_t counts[MOST_BINS], bins = read_counts(file, name, "counts", counts);
  double density[MOST_BINS], weights[MOST_BINS];
  struct reweighting rule = rule_of(file, name, named_exponent(file, name));
  rule.clip_low = 0;
  rule.clip_high = INFINITY;
  rule.lds_truncate = true;
  must(reweighting_of_counts(&rule, bins, counts, density, weights), name);
  struct golden_array expected = golden_read(file, name, "weight_per_bin");
  expect_weights(name, bins, counts, weights, expected.data, LDS_TOLERANCE);
  golden_free(&expected);
  check_labels(name, &rule, bins, counts, weights);
}

/* Pixels of depth maps; the prior of the balanced loss is the smoothed density, scaled to sum 1. */
static void check_depth(const struct golden_file *file, const char *name) {
  int64_t counts[MOST_BINS], bins = read_counts(file, name, "train_bucket_num", counts);
  double density[MOST_BINS], weights[MOST_BINS], sum = 0;
  struct reweighting rule = rule_of(file, name, named_exponent(file, name));
  rule.clip_low = 0;
  rule.clip_high = INFINITY;
  rule.padding = PADDING_REFLECT;
  rule.first = (int64_t)golden_number(file, name, "bucket_start", 0);
  rule.lds_truncate = true;
  must(reweighting_of_counts(&rule, bins, counts, density, weights), name);
  expect_dataset(file, name, "bucket_weights", weights, LDS_TOLERANCE);
  for (int64_t b = 0; b < bins; b++)
    sum += density[b];
  for (int64_t b = 0; b < bins; b++)
    density[b] /= sum;
  expect_dataset(file, name, "bni_weights", density, LDS_TOLERANCE);
}

Test(golden_weights, reweighting_and_lds_equal_the_published_weights) {
  struct golden_file *file = golden_open("lds_agedb.h5");
  for (int i = 0; i < golden_case_count(file); i++) {
    const char *name = golden_case_name(file, i);
    if (golden_has(file, name, "lds_window_max_normalised"))
      check_windows(file, name);
    else if (golden_has(file, name, "weight_per_age"))
      check_ages(file, name);
    else if (golden_has(file, name, "weight_per_bin"))
      check_similarity(file, name);
    else
      check_depth(file, name);
    golden_ran(file);
  }
  golden_report(file);
  golden_close(&file);
}

/* ---- DenseWeight ---- */

/* weight_alpha_1p5 is that of alpha = 1.5. */
static void check_alpha(const struct golden_file *file, const char *name, double alpha, int64_t rows,
                        const double *labels, const struct golden_array *targets, const struct golden_array *counts) {
  char dataset[64];
  snprintf(dataset, sizeof dataset, "weight_alpha_%.1f", alpha);
  *strchr(dataset, '.') = 'p';
  double *weights = malloc((size_t)rows * sizeof *weights), *distinct = malloc((size_t)targets->count * sizeof(double));
  must(dense_weights(rows, labels, alpha, weights), name);
  int64_t row = 0;
  for (int64_t i = 0; i < targets->count; i++) {
    distinct[i] = weights[row];
    row += (int64_t)counts->data[i];
  }
  expect_dataset(file, name, dataset, distinct, 1e-9);
  free(distinct);
  free(weights);
}

Test(golden_weights, dense_weights_equal_those_of_plain_sums) {
  struct golden_file *file = golden_open("denseweight.h5");
  for (int i = 0; i < golden_case_count(file); i++) {
    const char *name = golden_case_name(file, i);
    struct golden_array targets = golden_read(file, name, "targets_unique");
    struct golden_array counts = golden_read(file, name, "target_counts");
    struct golden_array alphas = golden_numbers(file, name, "alphas");
    int64_t rows = 0, row = 0;
    for (int64_t t = 0; t < counts.count; t++)
      rows += (int64_t)counts.data[t];
    double *labels = malloc((size_t)rows * sizeof *labels);
    for (int64_t t = 0; t < targets.count; t++)
      for (int64_t j = 0; j < (int64_t)counts.data[t]; j++)
        labels[row++] = targets.data[t];
    for (int64_t a = 0; a < alphas.count; a++)
      check_alpha(file, name, alphas.data[a], rows, labels, &targets, &counts);
    free(labels);
    golden_free(&alphas);
    golden_free(&counts);
    golden_free(&targets);
    golden_ran(file);
  }
  golden_report(file);
  golden_close(&file);
}

/* ---- UVOTE ---- */

static void check_experts(const struct golden_file *file, const char *name) {
  int64_t counts[MOST_BINS], bins = read_counts(file, name, "counts", counts);
  int experts = (int)golden_number(file, name, "experts", 0);
  struct golden_array exponents = golden_read(file, name, "exponents"), smoothed = golden_read(file, name, "smoothed");
  struct golden_array expected = golden_read(file, name, "weight_per_age");
  for (int e = 0; e < experts; e++) {
    double density[MOST_BINS], weights[MOST_BINS], exponent = reweighting_exponent(e, experts);
    cr_expect(eq(dbl, exponent, exponents.data[e]), "%s: exponent of expert %d", name, e);
    struct reweighting rule = rule_of(file, name, exponent);
    rule.clip_low = golden_number(file, name, "clip_low", 5);
    rule.clip_high = golden_number(file, name, "clip_high", 1000);
    must(reweighting_of_counts(&rule, bins, counts, density, weights), name);
    expect_array(name, "smoothed", bins, density, smoothed.data + e * bins, 1e-13);
    expect_weights(name, bins, counts, weights, expected.data + e * bins, LDS_TOLERANCE);
  }
  golden_free(&expected);
  golden_free(&smoothed);
  golden_free(&exponents);
}

/* Labels, density, and weights for one exponent, each label's by itself. */
static void check_density(const struct golden_file *file, const char *name, int64_t labels, const double *label,
                          const int64_t *counts, double exponent, const char *densities, const double *expected) {
  double bandwidth = golden_number(file, name, "bandwidth", 0), *rows, *weights, *weight;
  struct golden_array density = golden_read(file, name, densities);
  int64_t n = 0, row = 0;
  for (int64_t i = 0; i < labels; i++)
    n += counts[i];
  rows = malloc((size_t)n * sizeof *rows);
  weights = malloc((size_t)n * sizeof *weights);
  weight = calloc((size_t)labels, sizeof *weight);
  for (int64_t i = 0; i < labels; i++)
    for (int64_t j = 0; j < counts[i]; j++)
      rows[row++] = label[i];
  must(density_power_weights(n, rows, bandwidth, exponent, weights), name);
  row = 0;
  for (int64_t i = 0; i < labels; i++) {
    weight[i] = counts[i] > 0 ? weights[row] : 0;
    row += counts[i];
  }
  expect_weights(name, labels, counts, weight, expected, 1e-9);
  struct kernel_density *kernels;
  must(kernel_density_create(n, rows, bandwidth, &kernels), name);
  for (int64_t i = 0; i < labels; i++)
    weight[i] = kernel_density_at(kernels, label[i]);
  expect_array(name, densities, labels, weight, density.data, 1e-9);
  kernel_density_destroy(&kernels);
  golden_free(&density);
  free(weight);
  free(weights);
  free(rows);
}

static void check_kernel_ages(const struct golden_file *file, const char *name) {
  int64_t counts[MOST_BINS], bins = read_counts(file, name, "counts", counts);
  double ages[MOST_BINS];
  struct golden_array exponents = golden_read(file, name, "exponents");
  struct golden_array expected = golden_read(file, name, "weight_per_age");
  for (int64_t b = 0; b < bins; b++)
    ages[b] = (double)b;
  for (int64_t e = 0; e < exponents.count; e++)
    check_density(file, name, bins, ages, counts, exponents.data[e], "density_at_age", expected.data + e * bins);
  golden_free(&expected);
  golden_free(&exponents);
}

static void check_kernel_similarity(const struct golden_file *file, const char *name) {
  static const struct {
    const char *dataset;
    double exponent;
  } sets[] = {{"weight_inverse", 1}, {"weight_sqrt_inv", 0.5}};
  int64_t counts[MOST_BINS];
  read_counts(file, name, "counts", counts);
  struct golden_array scores = golden_read(file, name, "scores_unique");
  for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
    struct golden_array expected = golden_read(file, name, sets[i].dataset);
    check_density(file, name, scores.count, scores.data, counts, sets[i].exponent, "density_at_score", expected.data);
    golden_free(&expected);
  }
  golden_free(&scores);
}

Test(golden_weights, experts_weigh_learn_and_vote_as_published) {
  struct golden_file *file = golden_open("uvote.h5");
  for (int i = 0; i < golden_case_count(file); i++) {
    const char *name = golden_case_name(file, i);
    char kind[32];
    golden_text(file, name, "kind", "?", kind, sizeof kind);
    if (strcmp(kind, "weights") == 0)
      check_experts(file, name);
    else if (strcmp(kind, "kde_weights") == 0)
      check_kernel_ages(file, name);
    else if (strcmp(kind, "kde_weights_stsb") == 0)
      check_kernel_similarity(file, name);
    else
      cr_assert(golden_experts_check(file, name, kind), "%s: nothing tests the kind %s", name, kind);
    golden_ran(file);
  }
  golden_report(file);
  golden_close(&file);
}
