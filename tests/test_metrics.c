/* Evaluation metrics: shot classes, bins, balanced means, correlations, empty groups, several components. */
#include "loss/metrics.h"

#include "dist/memory.h"
#include "dist/random.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct metrics *create(const struct metrics_options *options, int64_t rows, int targets, const double *labels) {
  struct metrics *metrics;
  cr_assert(eq(int, metrics_create(options, F64, rows, targets, labels, &metrics), STATUS_OK), "%s", status_message());
  return metrics;
}

static struct metrics_table compute(const struct metrics *metrics, int64_t rows, const double *labels,
                                    const double *predictions) {
  struct metrics_table table;
  cr_assert(eq(int, metrics_compute(metrics, F64, rows, labels, predictions, &table), STATUS_OK), "%s",
            status_message());
  return table;
}

static struct metrics_table compute_untrained(int64_t rows, int targets, const double *labels,
                                              const double *predictions) {
  struct metrics_options options = metrics_options_default();
  struct metrics *metrics = create(&options, 0, targets, NULL);
  struct metrics_table table = compute(metrics, rows, labels, predictions);
  metrics_destroy(&metrics);
  return table;
}

static enum metrics_group shot(const struct metrics *metrics, double label) {
  return metrics_shot(metrics, F64, &label);
}

static int64_t trained(const struct metrics *metrics, double label) {
  return metrics_training_count(metrics, F64, &label);
}

static bool near(double got, double expected) {
  return fabs(got - expected) <= 1e-14 * fmax(1, fabs(expected));
}

/* ---- shot classes and bins ---- */

Test(metrics, exactly_20_and_exactly_100_training_rows_are_median) {
  static const int counts[] = {19, 20, 100, 101}; /* of labels 0, 1, 2, 3 */
  double labels[240];
  int rows = 0;
  for (int label = 0; label < 4; label++)
    for (int i = 0; i < counts[label]; i++)
      labels[rows++] = label;
  struct metrics_options options = metrics_options_default();
  struct metrics *metrics = create(&options, rows, 1, labels);
  cr_assert(eq(int, shot(metrics, 0), METRICS_FEW));
  cr_assert(eq(int, shot(metrics, 1), METRICS_MEDIAN));
  cr_assert(eq(int, shot(metrics, 2), METRICS_MEDIAN));
  cr_assert(eq(int, shot(metrics, 3), METRICS_MANY));
  metrics_destroy(&metrics);
}

Test(metrics, label_never_seen_in_training_is_few) {
  double labels[] = {5, 5, 5};
  struct metrics_options options = metrics_options_default();
  options.few_under = 1;
  options.many_over = 2;
  struct metrics *metrics = create(&options, 3, 1, labels);
  cr_assert(eq(int, shot(metrics, 5), METRICS_MANY));
  cr_assert(eq(int, shot(metrics, 4), METRICS_FEW));
  cr_assert(eq(int, shot(metrics, 1e300), METRICS_FEW));
  cr_assert(eq(i64, trained(metrics, -5), 0));
  metrics_destroy(&metrics);
}

Test(metrics, labels_are_truncated_towards_zero_in_training_and_evaluation) {
  double labels[] = {25, 25.5, 25.9, 26, -0.5, 0.5, -0.0, -1};
  struct metrics_options options = metrics_options_default();
  struct metrics *metrics = create(&options, 8, 1, labels);
  cr_assert(eq(i64, trained(metrics, 25.2), 3));
  cr_assert(eq(i64, trained(metrics, 26.7), 1));
  cr_assert(eq(i64, trained(metrics, 0), 3));
  cr_assert(eq(i64, trained(metrics, -1.5), 1));
  metrics_destroy(&metrics);
}

/* The quotients 0.3 / 0.1 and 0.7 / 0.1 are below 3 and 7 in floating point, and float32 labels lie on either side of
 * the decimal they stand for; every tenth must nevertheless get a bin of its own, the same in both precisions. */
Test(metrics, decimal_labels_get_their_own_bin_in_both_precisions) {
  double labels[200];
  for (int i = 0; i < 200; i++)
    labels[i] = 0.1 * i;
  struct metrics_options options = metrics_options_default();
  options.bin_width = 0.1;
  struct metrics *metrics = create(&options, 200, 1, labels);
  for (int i = 0; i < 200; i++) {
    float single = (float)i / 10;
    cr_assert(eq(i64, trained(metrics, i / 10.0), 1), "label %g", i / 10.0);
    cr_assert(eq(i64, metrics_training_count(metrics, F32, &single), 1), "float32 label %g", (double)single);
    cr_assert(eq(i64, trained(metrics, i / 10.0 + 0.05), 1), "label %g", i / 10.0 + 0.05);
  }
  metrics_destroy(&metrics);
}

Test(metrics, explicit_edges_own_their_lower_end_and_outer_bins_catch_the_rest) {
  double edges[] = {0, 1, 2.5, 3}, labels[] = {-7, 0, 0.9, 1, 2.4, 2.5, 3, 99};
  struct metrics_options options = metrics_options_default();
  options.bins = 3;
  options.bin_edges = edges;
  struct metrics *metrics = create(&options, 8, 1, labels);
  memset(edges, 0, sizeof edges); /* the edges were copied */
  cr_assert(eq(i64, trained(metrics, 0.5), 3));
  cr_assert(eq(i64, trained(metrics, 1), 2));
  cr_assert(eq(i64, trained(metrics, 2.5), 3));
  cr_assert(eq(i64, trained(metrics, -100), 3));
  metrics_destroy(&metrics);
}

Test(metrics, listed_shots_decide_instead_of_counts_and_may_leave_a_bin_out) {
  double edges[] = {0, 1, 2, 3, 4};
  enum metrics_group shots[] = {METRICS_ALL, METRICS_FEW, METRICS_MANY, METRICS_MEDIAN};
  double labels[] = {0.5, 1.5, 2.5, 3.5}, predictions[] = {1.5, 3.5, 5.5, 7.5};
  struct metrics_options options = metrics_options_default();
  options.bins = 4;
  options.bin_edges = edges;
  options.shot_of_bin = shots;
  struct metrics *metrics = create(&options, 4, 1, labels);
  struct metrics_table table = compute(metrics, 4, labels, predictions);
  cr_assert(eq(i64, table.row[METRICS_ALL].count, 4));
  cr_assert(eq(dbl, table.row[METRICS_ALL].mae, 2.5));
  cr_assert(eq(dbl, table.row[METRICS_FEW].mae, 2));
  cr_assert(eq(dbl, table.row[METRICS_MANY].mae, 3));
  cr_assert(eq(dbl, table.row[METRICS_MEDIAN].mae, 4));
  metrics_destroy(&metrics);
}

/* ---- values, against numbers worked out by hand ---- */

/* Labels 10 (errors 1, 3, 2) and 50 (error 8). */
static const double hand_labels[] = {10, 50, 10, 10}, hand_predictions[] = {11, 42, 7, 12};

Test(metrics, means_are_over_rows_and_balanced_means_over_labels) {
  struct metrics_row all = compute_untrained(4, 1, hand_labels, hand_predictions).row[METRICS_ALL];
  cr_assert(eq(i64, all.count, 4));
  cr_assert(near(all.mae, 3.5));
  cr_assert(near(all.mse, (1 + 9 + 4 + 64) / 4.0));
  cr_assert(near(all.rmse, sqrt(78 / 4.0)));
  cr_assert(near(all.gmean, pow(1 * 3 * 2 * 8, 0.25)));
  cr_assert(near(all.bmae, (2 + 8) / 2.0));
  cr_assert(near(all.bmse, (14 / 3.0 + 64) / 2));
}

Test(metrics, groups_contain_the_rows_of_their_shot_class_only) {
  double trained_labels[] = {10, 10, 10, 50};
  struct metrics_options options = metrics_options_default();
  options.many_over = 2;
  options.few_under = 2;
  struct metrics *metrics = create(&options, 4, 1, trained_labels);
  struct metrics_table table = compute(metrics, 4, hand_labels, hand_predictions);
  cr_assert(eq(i64, table.row[METRICS_MANY].count, 3));
  cr_assert(near(table.row[METRICS_MANY].mae, 2));
  cr_assert(near(table.row[METRICS_MANY].bmse, 14 / 3.0));
  cr_assert(eq(i64, table.row[METRICS_FEW].count, 1));
  cr_assert(near(table.row[METRICS_FEW].gmean, 8));
  cr_assert(eq(i64, table.row[METRICS_MEDIAN].count, 0));
  metrics_destroy(&metrics);
}

Test(metrics, one_exact_hit_makes_the_plain_geometric_mean_zero) {
  double labels[] = {1, 2}, predictions[] = {1, 6};
  struct metrics_row all = compute_untrained(2, 1, labels, predictions).row[METRICS_ALL];
  cr_assert(eq(dbl, all.gmean, 0));
  cr_assert(near(all.gmean_eps, sqrt(1e-10 * (4 + 1e-10))));
}

Test(metrics, geometric_mean_rules_treat_exact_hits_as_named) {
  double labels[] = {1, 2}, predictions[] = {1, 6};
  struct metrics_options options = metrics_options_default();
  options.gmean_rule = GMEAN_REPLACE_ZERO;
  struct metrics *metrics = create(&options, 0, 1, NULL);
  cr_assert(lt(dbl, fabs(compute(metrics, 2, labels, predictions).row[METRICS_ALL].gmean / 2e-5 - 1), 1e-14));
  metrics_destroy(&metrics);
  options.gmean_rule = GMEAN_ADD_EPS;
  metrics = create(&options, 0, 1, NULL);
  struct metrics_row all = compute(metrics, 2, labels, predictions).row[METRICS_ALL];
  cr_assert(eq(dbl, all.gmean, all.gmean_eps));
  metrics_destroy(&metrics);
}

/* Row errors of d = (3, -4) and (0, 1): MAE 3.5 and 0.5, MSE 12.5 and 0.5, norms 5 and 1. */
Test(metrics, components_are_averaged_and_joined_into_one_norm) {
  double labels[] = {1, 2, 1, 3}, predictions[] = {4, -2, 1, 4};
  struct metrics_row all = compute_untrained(2, 2, labels, predictions).row[METRICS_ALL];
  cr_assert(near(all.mae, 2));
  cr_assert(near(all.mse, 6.5));
  cr_assert(near(all.gmean, sqrt(5)));
  cr_assert(near(all.bmae, 2));
}

Test(metrics, shot_class_of_a_vector_is_that_of_the_combination) {
  double labels[] = {1, 1, 1, 2, 1, 2, 2, 1}; /* (1,1) once, (1,2) twice, (2,1) once */
  struct metrics_options options = metrics_options_default();
  options.many_over = 1;
  options.few_under = 1;
  struct metrics *metrics = create(&options, 4, 2, labels);
  cr_assert(eq(int, metrics_shot(metrics, F64, (double[]){1, 2}), METRICS_MANY));
  cr_assert(eq(int, metrics_shot(metrics, F64, (double[]){2, 1}), METRICS_MEDIAN));
  cr_assert(eq(int, metrics_shot(metrics, F64, (double[]){2, 2}), METRICS_FEW));
  cr_assert(eq(i64, metrics_training_count(metrics, F64, (double[]){1.9, 2.1}), 2));
  metrics_destroy(&metrics);
}

/* ---- correlations ---- */

Test(metrics, correlations_are_one_for_an_increasing_line_and_minus_one_for_a_falling_one) {
  double labels[] = {1e9 + 1, 1e9 + 2, 1e9 + 4, 1e9 + 8}, rising[4], falling[4];
  for (int i = 0; i < 4; i++) {
    rising[i] = 3 * (labels[i] - 1e9);
    falling[i] = -labels[i];
  }
  struct metrics_row up = compute_untrained(4, 1, labels, rising).row[METRICS_ALL];
  struct metrics_row down = compute_untrained(4, 1, labels, falling).row[METRICS_ALL];
  cr_assert(near(up.pearson, 1));
  cr_assert(near(up.spearman, 1));
  cr_assert(near(down.pearson, -1));
  cr_assert(near(down.spearman, -1));
}

/* Ranks of the predictions: 1, 2.5, 2.5, 4, against 1, 2, 3, 4: r = 4.5 / sqrt(4.5 * 5). */
Test(metrics, tied_values_share_their_average_rank) {
  double labels[] = {1, 2, 3, 100}, predictions[] = {-1, 0, 0, 7};
  struct metrics_row all = compute_untrained(4, 1, labels, predictions).row[METRICS_ALL];
  cr_assert(near(all.spearman, 4.5 / sqrt(22.5)));
}

Test(metrics, correlation_of_vectors_is_the_mean_over_components) {
  double labels[] = {1, 1, 2, 2, 3, 3}, predictions[] = {5, 9, 6, 8, 7, 7};
  struct metrics_row all = compute_untrained(3, 2, labels, predictions).row[METRICS_ALL];
  cr_assert(lt(dbl, fabs(all.pearson), 1e-14));
  cr_assert(lt(dbl, fabs(all.spearman), 1e-14));
}

Test(metrics, correlation_with_a_constant_does_not_exist) {
  double labels[] = {1, 2, 3}, predictions[] = {0.1, 0.1, 0.1};
  struct metrics_row all = compute_untrained(3, 1, labels, predictions).row[METRICS_ALL];
  cr_assert(isnan(all.pearson));
  cr_assert(isnan(all.spearman));
  cr_assert(isfinite(all.mae));
}

/* ---- edges ---- */

static bool all_equal(const struct metrics_row *row, bool (*test)(double)) {
  return test(row->mae) && test(row->mse) && test(row->rmse) && test(row->gmean) && test(row->gmean_eps) &&
         test(row->bmae) && test(row->bmse) && test(row->pearson) && test(row->spearman);
}

static bool is_nan(double value) {
  return isnan(value);
}

static bool is_zero(double value) {
  return value == 0;
}

Test(metrics, empty_groups_are_nan_or_zero_as_asked) {
  struct metrics_options options = metrics_options_default();
  for (int zero = 0; zero < 2; zero++) {
    options.empty_is_zero = zero;
    struct metrics *metrics = create(&options, 0, 1, NULL);
    struct metrics_table table = compute(metrics, 0, NULL, NULL);
    for (int g = 0; g < METRICS_GROUPS; g++) {
      cr_assert(eq(i64, table.row[g].count, 0));
      cr_assert(all_equal(&table.row[g], zero ? is_zero : is_nan), "group %s", metrics_group_name(g));
    }
    metrics_destroy(&metrics);
  }
}

Test(metrics, single_row_has_errors_but_no_correlation) {
  double label = 3, prediction = 5;
  struct metrics_options options = metrics_options_default();
  for (int zero = 0; zero < 2; zero++) {
    options.empty_is_zero = zero;
    struct metrics *metrics = create(&options, 0, 1, NULL);
    struct metrics_row few = compute(metrics, 1, &label, &prediction).row[METRICS_FEW];
    cr_assert(near(few.mae, 2) && near(few.bmse, 4) && near(few.gmean, 2));
    cr_assert(zero ? few.pearson == 0 && few.spearman == 0 : isnan(few.pearson) && isnan(few.spearman));
    metrics_destroy(&metrics);
  }
}

/* Sums of 500 terms in another order: 500 roundings of 1e-16. */
Test(metrics, order_of_rows_changes_rounding_only) {
  enum { ROWS = 500 };
  double labels[ROWS], predictions[ROWS], labels_back[ROWS], predictions_back[ROWS];
  struct random_key key = random_key(3, RANDOM_TEST, 0);
  for (int i = 0; i < ROWS; i++) {
    labels[i] = floor(30 * random_uniform(key, 0, (uint64_t)i));
    predictions[i] = labels[i] + 4 * random_normal(key, 1, (uint64_t)i);
    labels_back[ROWS - 1 - i] = labels[i];
    predictions_back[ROWS - 1 - i] = predictions[i];
  }
  struct metrics_options options = metrics_options_default();
  options.few_under = 15;
  options.many_over = 18;
  struct metrics *metrics = create(&options, ROWS, 1, labels);
  struct metrics_table forth = compute(metrics, ROWS, labels, predictions);
  struct metrics_table back = compute(metrics, ROWS, labels_back, predictions_back);
  for (int g = 0; g < METRICS_GROUPS; g++) {
    const double *a = &forth.row[g].mae, *b = &back.row[g].mae;
    cr_assert(forth.row[g].count > 20, "a group too small to be a test");
    cr_assert(eq(i64, forth.row[g].count, back.row[g].count));
    for (int i = 0; i < 9; i++)
      cr_assert(lt(dbl, fabs(a[i] - b[i]), 1e-13 * fabs(a[i])), "group %d, value %d", g, i);
  }
  metrics_destroy(&metrics);
}

Test(metrics, nothing_stays_allocated) {
  double edges[] = {0, 1, 2};
  enum metrics_group shots[] = {METRICS_FEW, METRICS_MANY};
  struct metrics_options options = metrics_options_default();
  options.bins = 2;
  options.bin_edges = edges;
  options.shot_of_bin = shots;
  struct metrics *metrics = create(&options, 4, 1, hand_labels);
  compute(metrics, 4, hand_labels, hand_predictions);
  metrics_destroy(&metrics);
  metrics_destroy(&metrics);
  cr_assert(eq(sz, memory_in_use(), 0));
}

Test(metrics, value_that_is_not_finite_is_named_with_its_row) {
  double labels[] = {1, 2, 3, 4}, predictions[] = {1, 2, NAN, 4};
  struct metrics_options options = metrics_options_default();
  struct metrics *metrics = create(&options, 4, 1, labels);
  struct metrics_table table;
  cr_assert(eq(int, metrics_compute(metrics, F64, 4, labels, predictions, &table), ERR_NUMERIC));
  cr_assert(ne(ptr, strstr(status_message(), "prediction of row 2 is nan"), NULL), "%s", status_message());
  cr_assert(eq(int, metrics_compute(metrics, F64, 4, predictions, labels, &table), ERR_NUMERIC));
  metrics_destroy(&metrics);
  labels[3] = INFINITY;
  cr_assert(eq(int, metrics_create(&options, F64, 2, 2, labels, &metrics), ERR_NUMERIC));
  cr_assert(ne(ptr, strstr(status_message(), "training label of row 1 is inf (component 1)"), NULL));
  cr_assert(eq(ptr, metrics, NULL));
  cr_assert(eq(sz, memory_in_use(), 0));
}

static void expect_refused(const struct metrics_options *options, int targets, const char *sentence) {
  struct metrics *metrics;
  cr_expect(eq(int, metrics_create(options, F64, 0, targets, NULL, &metrics), ERR_ARGUMENT), "%s", sentence);
  cr_expect(ne(ptr, strstr(status_message(), sentence), NULL), "\"%s\" is not in \"%s\"", sentence, status_message());
}

Test(metrics, options_without_meaning_are_refused_with_the_value) {
  double edges[] = {0, 2, 1};
  enum metrics_group shots[] = {METRICS_FEW, (enum metrics_group)9};
  struct metrics_options options = metrics_options_default();
  options.bin_width = 0;
  expect_refused(&options, 1, "bin width 0");
  options = metrics_options_default();
  options.few_under = 102;
  expect_refused(&options, 1, "under 102");
  options = metrics_options_default();
  options.shot_of_bin = shots;
  expect_refused(&options, 1, "need bin edges");
  options.bins = 2;
  expect_refused(&options, 1, "2 bins without edges");
  options.bin_edges = edges;
  expect_refused(&options, 1, "bin edges 2 and 1");
  expect_refused(&options, 3, "these have 3");
  edges[2] = 3;
  expect_refused(&options, 1, "unknown shot class 9");
}
