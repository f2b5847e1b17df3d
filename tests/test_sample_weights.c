/* Sample weights: what holds for any labels, and what is refused. */
#include "loss/sample_weights.h"

#include "dist/memory.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 500 };

static void must(enum status status) {
  cr_assert(eq(int, status, STATUS_OK), "%s", status_message());
}

static void refuses(enum status status, const char *sentence) {
  cr_expect(eq(int, status, ERR_ARGUMENT));
  cr_expect(eq(str, (char *)status_message(), (char *)sentence));
}

/* Skewed labels: many small, few large. */
static void draw(double labels[ROWS]) {
  srand48(3);
  for (int i = 0; i < ROWS; i++)
    labels[i] = -8 * log(1 - drand48());
}

static struct reweighting smoothed(double exponent) {
  struct reweighting rule = reweighting_default(exponent);
  rule.lds = true;
  must(label_window_make(LABEL_GAUSSIAN, 5, 2, WINDOW_BY_MAXIMUM, &rule.window));
  return rule;
}

static double mean(const double weights[ROWS]) {
  double sum = 0;
  for (int i = 0; i < ROWS; i++)
    sum += weights[i];
  return sum / ROWS;
}

/* Weights of all kinds, number `kind` of KINDS. */
enum { KINDS = 6 };
static void weigh(int kind, const double *labels, double *weights) {
  struct reweighting rules[] = {reweighting_default(1), reweighting_default(0.5), smoothed(1), smoothed(0.5)};
  struct label_bins bins;
  must(label_bins_cover(ROWS, labels, 1, &bins));
  if (kind < 4)
    must(reweighting_of_labels(&rules[kind], &bins, ROWS, 1, labels, weights));
  else if (kind == 4)
    must(dense_weights(ROWS, labels, 1, weights));
  else
    must(density_power_weights(ROWS, labels, 2, 1, weights));
}

Test(sample_weights, average_to_one_and_grow_with_rarity) {
  double labels[ROWS], weights[ROWS];
  draw(labels);
  for (int kind = 0; kind < KINDS; kind++) {
    weigh(kind, labels, weights);
    int common = 0, rare = 0;
    for (int i = 0; i < ROWS; i++) {
      cr_expect(weights[i] > 0 && isfinite(weights[i]));
      rare = labels[i] > labels[rare] ? i : rare;
      common = fabs(labels[i] - 3) < fabs(labels[common] - 3) ? i : common;
    }
    cr_expect(epsilon_eq(dbl, mean(weights), 1, 1e-12), "kind %d", kind);
    cr_expect(weights[rare] > 1.5 * weights[common], "kind %d: %g and %g", kind, weights[rare], weights[common]);
  }
  cr_expect(eq(sz, memory_in_use(), 0));
}

Test(sample_weights, belong_to_the_sample_wherever_it_stands) {
  double labels[ROWS], weights[ROWS], turned[ROWS], again[ROWS];
  draw(labels);
  for (int i = 0; i < ROWS; i++)
    turned[i] = labels[(i * 7 + 11) % ROWS];
  for (int kind = 0; kind < KINDS; kind++) {
    weigh(kind, labels, weights);
    weigh(kind, turned, again);
    for (int i = 0; i < ROWS; i++) {
      /* 1 - rho loses leading digits where labels are dense, so that the error is one of rho, not of the weight */
      cr_expect(epsilon_eq(dbl, again[i], weights[(i * 7 + 11) % ROWS], 1e-12 * fmax(1, again[i])), "kind %d, row %d",
                kind, i);
    }
  }
}

Test(sample_weights, inverse_is_by_counts_clipped_between_two_bounds) {
  double labels[100], weights[100];
  struct label_bins bins = {0, 1, 10};
  struct reweighting rule = reweighting_default(1);
  for (int i = 0; i < 100; i++) /* 2 of label 0, 8 of 1, 90 of 2 */
    labels[i] = (i >= 2) + (i >= 10);
  rule.clip_high = 50;
  must(reweighting_of_labels(&rule, &bins, 100, 1, labels, weights));
  cr_expect(epsilon_eq(dbl, weights[0] / weights[2], 8.0 / 5, 1e-6)); /* inverses are of float32 */
  cr_expect(epsilon_eq(dbl, weights[2] / weights[10], 50.0 / 8, 1e-6));
  rule.clip_low = 0;
  rule.clip_high = INFINITY;
  must(reweighting_of_labels(&rule, &bins, 100, 1, labels, weights));
  cr_expect(epsilon_eq(dbl, weights[0] / weights[10], 90.0 / 2, 1e-5));
  rule = reweighting_default(0.5);
  must(reweighting_of_labels(&rule, &bins, 100, 1, labels, weights));
  cr_expect(epsilon_eq(dbl, weights[0] / weights[10], sqrt(45), 1e-5));
}

Test(sample_weights, of_vectors_are_by_joint_bins) {
  double labels[ROWS][2], joint[ROWS], weights[ROWS], expected[ROWS];
  struct label_bins bins = {-4, 2, 6}, single = {0, 1, 36};
  srand48(5);
  for (int i = 0; i < ROWS; i++) {
    int first = (int)(6 * drand48() * drand48()), second = (int)(6 * drand48() * drand48());
    labels[i][0] = -4 + 2 * first + 0.5;
    labels[i][1] = -4 + 2 * second + 1.5;
    joint[i] = 6 * first + second;
  }
  for (double exponent = 0.5; exponent <= 1; exponent += 0.5) {
    struct reweighting rule = reweighting_default(exponent);
    must(reweighting_of_labels(&rule, &bins, ROWS, 2, labels[0], weights));
    must(reweighting_of_labels(&rule, &single, ROWS, 1, joint, expected));
    for (int i = 0; i < ROWS; i++)
      cr_expect(epsilon_eq(dbl, weights[i] / expected[i], 1, 1e-13), "exponent %g, row %d", exponent, i);
  }
  cr_expect(eq(sz, memory_in_use(), 0));
}

Test(sample_weights, dense_with_alpha_0_are_one) {
  double labels[ROWS], weights[ROWS];
  draw(labels);
  must(dense_weights(ROWS, labels, 0, weights));
  for (int i = 0; i < ROWS; i++)
    cr_expect(epsilon_eq(dbl, weights[i], 1, 1e-14));
}

/* Far apart, or so wide that a kernel's density is below any border's. */
Test(sample_weights, dense_do_not_mind_the_unit_of_the_labels) {
  double labels[ROWS], scaled[ROWS], weights[ROWS], expected[ROWS];
  draw(labels);
  must(dense_weights(ROWS, labels, 1, expected));
  for (double unit = 1e-6; unit <= 1e9; unit *= 1e5) {
    for (int i = 0; i < ROWS; i++)
      scaled[i] = labels[i] * unit;
    must(dense_weights(ROWS, scaled, 1, weights));
    for (int i = 0; i < ROWS; i++) /* the border of the grid depends on it: a point more or less */
      cr_expect(epsilon_eq(dbl, weights[i], expected[i], 0.05), "unit %g, row %d", unit, i);
  }
}

Test(sample_weights, refuse_rules_without_meaning) {
  struct label_bins bins = {0, 1, 4};
  double labels[3] = {0, 1, 2}, weights[3];
  struct reweighting rule = reweighting_default(-1);
  refuses(reweighting_of_labels(&rule, &bins, 3, 1, labels, weights),
          "counts to the power of -1 are no density; use 0 or more");
  rule = reweighting_default(1);
  rule.clip_low = 2000;
  refuses(reweighting_of_labels(&rule, &bins, 3, 1, labels, weights),
          "counts cannot be clipped to 2000 .. 1000; give 0 or more, then as much or more, and at least 1");
  rule = smoothed(1);
  refuses(reweighting_of_labels(&rule, &bins, 3, 1, labels, weights),
          "a kernel of 5 bins is wider than the 4 bins of the labels; use a smaller one, or narrower bins");
  bins.count = 10;
  refuses(reweighting_of_labels(&rule, &bins, 1, 3, labels, weights),
          "label distribution smoothing is defined along one label, these have 3 components; reweight without it");
  int64_t none[10] = {0};
  double density[10], of_bins[10];
  refuses(reweighting_of_counts(&rule, 10, none, density, of_bins),
          "none of 10 bins holds a sample; give bins that hold the labels");
}

Test(sample_weights, refuse_labels_that_the_method_cannot_tell_apart) {
  struct label_bins bins = {1, 1, 4};
  double labels[3] = {1, 0, 2}, same[3] = {2, 2, 2}, weights[3];
  struct reweighting rule = reweighting_default(0.5);
  refuses(reweighting_of_labels(&rule, &bins, 3, 1, labels, weights),
          "label 0 of a training sample lies outside the bins, which begin at 1; let them begin lower");
  refuses(reweighting_of_labels(&rule, &bins, 3, 1, same, weights),
          "all 3 training samples lie in one bin of width 1 from 2 on, so their weights do not differ; give narrower "
          "bins");
  refuses(reweighting_of_labels(&rule, &bins, 1, 3, same, weights),
          "all 1 training samples lie in one bin of width 1 from 2 on, so their weights do not differ; give narrower "
          "bins");
  refuses(dense_weights(3, same, 1, weights),
          "DenseWeight needs labels that differ, and the label of all 3 training samples is 2");
  refuses(dense_weights(1, same, 1, weights),
          "DenseWeight needs labels that differ, and the label of all 1 training samples is 2");
  refuses(dense_weights(3, labels, -1, weights), "DenseWeight's alpha is -1; use 0 or more");
  refuses(dense_weights(3, labels, NAN, weights), "DenseWeight's alpha is nan; use 0 or more");
  refuses(density_power_weights(3, labels, 0, 1, weights), "a bandwidth of 0 makes no density; give one above 0");
  cr_expect(eq(sz, memory_in_use(), 0));
}
