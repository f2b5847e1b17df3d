/* Sample weights from the labels of the training split. */
#include "loss/sample_weights.h"

#include "dist/memory.h"
#include "loss/kernel_density.h"
#include "loss/metrics.h"

#include <math.h>
#include <string.h>

/* ---- bins ---------------------------------------------------------------------------------- */

struct reweighting reweighting_default(double exponent) {
  return (struct reweighting){.exponent = exponent, .clip_low = 5, .clip_high = 1000, .padding = PADDING_ZERO};
}

double reweighting_exponent(int expert, int experts) {
  return experts > 1 ? (double)expert / (experts - 1) : 0;
}

static enum status check_rule(const struct reweighting *rule, int64_t bins) {
  REQUIRE(isfinite(rule->exponent) && rule->exponent >= 0, ERR_ARGUMENT,
          "counts to the power of %g are no density; use 0 or more", rule->exponent);
  REQUIRE(rule->clip_low >= 0 && rule->clip_low <= rule->clip_high && rule->clip_high >= 1, ERR_ARGUMENT,
          "counts cannot be clipped to %g .. %g; give 0 or more, then as much or more, and at least 1", rule->clip_low,
          rule->clip_high);
  REQUIRE(rule->first >= 0 && rule->first < bins, ERR_ARGUMENT, "the first bin that counts is %lld of %lld; use less",
          (long long)rule->first, (long long)bins);
  return rule->lds ? label_window_check(&rule->window, bins - rule->first) : STATUS_OK;
}

static double power(const struct reweighting *rule, int64_t count) {
  double value = rule->exponent == 0.5 ? sqrt((double)count) : pow((double)count, rule->exponent);
  return rule->exponent >= 1 ? fmin(fmax(value, rule->clip_low), rule->clip_high) : value;
}

/* In float32, as published. */
static double inverse(double density) {
  return (double)(float)(1 / density);
}

static void smooth(const struct reweighting *rule, int64_t bins, const double *plain, double *density) {
  label_window_convolve(&rule->window, rule->padding, bins, 1, plain, density);
  for (int64_t b = 0; rule->lds_truncate && rule->exponent >= 1 && b < bins; b++)
    density[b] = trunc(density[b]);
}

enum status reweighting_of_counts(const struct reweighting *rule, int64_t bins, const int64_t *counts, double *density,
                                  double *weights) {
  double *plain = rule->lds ? weights : density, samples = 0, sum = 0;
  TRY(check_rule(rule, bins));
  for (int64_t b = rule->first; b < bins; b++)
    plain[b] = power(rule, counts[b]);
  if (rule->lds)
    smooth(rule, bins - rule->first, plain + rule->first, density + rule->first);
  for (int64_t b = 0; b < rule->first; b++)
    density[b] = density[rule->first];
  for (int64_t b = 0; b < bins; b++)
    if (counts[b] > 0) {
      samples += (double)counts[b];
      sum += (double)counts[b] * inverse(density[b]);
    }
  REQUIRE(samples > 0, ERR_ARGUMENT, "none of %lld bins holds a sample; give bins that hold the labels",
          (long long)bins);
  REQUIRE(isfinite(sum), ERR_ARGUMENT,
          "bin %lld holds no sample, and those below it take their density from it; let another bin be the first, or "
          "smooth the counts",
          (long long)rule->first);
  for (int64_t b = 0; b < bins; b++)
    weights[b] = samples / sum * inverse(density[b]);
  return STATUS_OK;
}

/* ---- samples by bins ----------------------------------------------------------------------- */

/* Bins of labels [n]. */
static enum status find_bins(const struct label_bins *bins, int64_t n, const double *labels, int64_t *bin) {
  for (int64_t i = 0; i < n; i++) {
    bin[i] = isfinite(labels[i]) ? label_bins_index(bins, labels[i]) : -1;
    REQUIRE(bin[i] >= 0, ERR_ARGUMENT,
            "label %g of a training sample lies outside the bins, which begin at %g; let them begin lower", labels[i],
            bins->low);
  }
  return STATUS_OK;
}

/* Weights that do not differ are no reweighting: the bins do not fit the labels.
 * most  samples in the fullest bin;  bin  of any sample */
static enum status check_spread(const struct label_bins *bins, int64_t rows, int64_t most, int64_t bin) {
  REQUIRE(most < rows, ERR_ARGUMENT,
          "all %lld training samples lie in one bin of width %g from %g on, so their weights do not differ; give "
          "narrower bins",
          (long long)rows, bins->width, bins->low + (double)bin * bins->width);
  return STATUS_OK;
}

static enum status weigh_bins(const struct reweighting *rule, const struct label_bins *bins, int64_t rows,
                              const int64_t *bin, double *weights) {
  int64_t *counts = NULL, most = 0;
  double *density = NULL, *weight;
  size_t count = (size_t)bins->count;
  enum status status;
  TRY_GOTO(memory_alloc_zero(count * sizeof *counts, (void **)&counts), out);
  TRY_GOTO(memory_alloc(2 * count * sizeof *density, (void **)&density), out);
  weight = density + count;
  for (int64_t i = 0; i < rows; i++)
    if (++counts[bin[i]] > most)
      most = counts[bin[i]];
  TRY_GOTO(check_spread(bins, rows, most, bin[0]), out);
  TRY_GOTO(reweighting_of_counts(rule, bins->count, counts, density, weight), out);
  for (int64_t i = 0; i < rows; i++)
    weights[i] = weight[bin[i]];
out:
  memory_free((void **)&density);
  memory_free((void **)&counts);
  return status;
}

/* Scale [rows] to mean 1. */
static void scale(int64_t rows, double *weights) {
  double sum = 0;
  for (int64_t i = 0; i < rows; i++)
    sum += weights[i];
  for (int64_t i = 0; i < rows; i++)
    weights[i] *= (double)rows / sum;
}

/* bin [rows, targets]; the metrics count joint bins. */
static enum status weigh_joint_bins(const struct reweighting *rule, const struct label_bins *bins, int64_t rows,
                                    int targets, const int64_t *bin, double *weights) {
  struct metrics_options options = metrics_options_default();
  struct metrics *counted = NULL;
  double *key = NULL;
  int64_t most = 0;
  enum status status;
  TRY(memory_alloc((size_t)rows * (size_t)targets * sizeof *key, (void **)&key));
  for (int64_t i = 0; i < rows * targets; i++)
    key[i] = (double)bin[i];
  TRY_GOTO(metrics_create(&options, F64, rows, targets, key, &counted), out);
  for (int64_t i = 0; i < rows; i++) {
    int64_t count = metrics_training_count(counted, F64, key + i * targets);
    most = count > most ? count : most;
    weights[i] = inverse(power(rule, count));
  }
  TRY_GOTO(check_spread(bins, rows, most, bin[0]), out);
  scale(rows, weights);
out:
  metrics_destroy(&counted);
  memory_free((void **)&key);
  return status;
}

enum status reweighting_of_labels(const struct reweighting *rule, const struct label_bins *bins, int64_t rows,
                                  int targets, const double *labels, double *weights) {
  int64_t *bin = NULL;
  enum status status;
  REQUIRE(targets == 1 || !rule->lds, ERR_ARGUMENT,
          "label distribution smoothing is defined along one label, these have %d components; reweight without it",
          targets);
  REQUIRE(targets == 1 || rule->first == 0, ERR_ARGUMENT,
          "a first bin is defined along one label, these have %d components; reweight without it", targets);
  REQUIRE(rows > 0, ERR_ARGUMENT, "there are no training samples to weigh");
  TRY(label_bins_check(bins));
  TRY(check_rule(rule, bins->count));
  TRY(memory_alloc((size_t)rows * (size_t)targets * sizeof *bin, (void **)&bin));
  TRY_GOTO(find_bins(bins, rows * targets, labels, bin), out);
  status = targets == 1 ? weigh_bins(rule, bins, rows, bin, weights)
                        : weigh_joint_bins(rule, bins, rows, targets, bin, weights);
out:
  memory_free((void **)&bin);
  return status;
}

/* ---- densities ----------------------------------------------------------------------------- */

#define GRID_POINTS 4096
#define LEAST_DENSE_WEIGHT 1e-6
#define SUPPORT_DENSITY 1e-4 /* where a kernel ends for the grid's sake */

struct grid {
  double low, step;
  double rho[GRID_POINTS]; /* the density, scaled to [0, 1] */
};

/* Mean, population standard deviation, least and most of labels [rows]. */
struct spread {
  double mean, std, low, high;
};

static struct spread spread_of(int64_t rows, const double *labels) {
  struct spread spread = {0, 0, INFINITY, -INFINITY};
  for (int64_t i = 0; i < rows; i++) {
    spread.mean += labels[i] / (double)rows;
    spread.low = fmin(spread.low, labels[i]);
    spread.high = fmax(spread.high, labels[i]);
  }
  for (int64_t i = 0; i < rows; i++)
    spread.std += (labels[i] - spread.mean) * (labels[i] - spread.mean);
  spread.std = sqrt(spread.std / (double)rows);
  return spread;
}

/* From a border below the lowest label to one above the highest: a 20th of the range, or as far as a kernel's density is
 * above SUPPORT_DENSITY. */
static void place_grid(const struct spread *spread, double bandwidth, struct grid *grid) {
  double peak = 1 / (bandwidth * sqrt(2 * M_PI));
  double support = peak > SUPPORT_DENSITY ? bandwidth * sqrt(2 * log(peak / SUPPORT_DENSITY)) : 0;
  double border = fmax(0.05 * (spread->high - spread->low), support);
  grid->low = spread->low - border;
  grid->step = (spread->high + border - grid->low) / (GRID_POINTS - 1);
}

static void fill_grid(const struct kernel_density *density, struct grid *grid) {
  double low = INFINITY, high = -INFINITY;
  for (int i = 0; i < GRID_POINTS; i++) {
    grid->rho[i] = kernel_density_at(density, grid->low + i * grid->step);
    low = fmin(low, grid->rho[i]);
    high = fmax(high, grid->rho[i]);
  }
  for (int i = 0; i < GRID_POINTS; i++)
    grid->rho[i] = (grid->rho[i] - low) / (high - low);
}

/* At the last point that is not above the label: the quotient may round past it, either way. */
static double grid_below(const struct grid *grid, double label) {
  int i = (int)((label - grid->low) / grid->step);
  while (i > 0 && grid->low + i * grid->step > label)
    i--;
  while (i < GRID_POINTS - 1 && grid->low + (i + 1) * grid->step <= label)
    i++;
  return grid->rho[i];
}

static enum status make_grid(int64_t rows, const double *labels, const struct spread *spread, struct grid *grid) {
  double bandwidth = 1.06 * spread->std * pow((double)rows, -0.2);
  struct kernel_density *density = NULL;
  TRY(kernel_density_create(rows, labels, bandwidth, &density));
  place_grid(spread, bandwidth, grid);
  fill_grid(density, grid);
  kernel_density_destroy(&density);
  return STATUS_OK;
}

enum status dense_weights(int64_t rows, const double *labels, double alpha, double *weights) {
  struct grid *grid = NULL;
  struct spread spread = spread_of(rows, labels);
  REQUIRE(isfinite(alpha) && alpha >= 0, ERR_ARGUMENT, "DenseWeight's alpha is %g; use 0 or more", alpha);
  REQUIRE(spread.low<spread.high, ERR_ARGUMENT,
                     "DenseWeight needs labels that differ, and the label of all %lld training samples is %g",
                     (long long)rows, rows> 0
              ? labels[0]
              : NAN);
  enum status status;
  TRY(memory_alloc(sizeof *grid, (void **)&grid));
  TRY_GOTO(make_grid(rows, labels, &spread, grid), out);
  for (int64_t i = 0; i < rows; i++)
    weights[i] = fmax(1 - alpha * grid_below(grid, labels[i]), LEAST_DENSE_WEIGHT);
  scale(rows, weights);
out:
  memory_free((void **)&grid);
  return status;
}

enum status density_power_weights(int64_t rows, const double *labels, double bandwidth, double exponent,
                                  double *weights) {
  struct kernel_density *density = NULL;
  REQUIRE(isfinite(exponent) && exponent >= 0, ERR_ARGUMENT,
          "a density to the power of -%g is no weight; use 0 or more", exponent);
  TRY(kernel_density_create(rows, labels, bandwidth, &density));
  for (int64_t i = 0; i < rows; i++)
    weights[i] = pow(kernel_density_at(density, labels[i]), -exponent);
  scale(rows, weights);
  kernel_density_destroy(&density);
  return STATUS_OK;
}
