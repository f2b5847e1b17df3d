/* From labels to bins with probabilities. */
#include "loss/label_prior.h"

#include "dist/memory.h"

#include <math.h>
#include <string.h>

/* How many labels are in each bin, and how far they lie from its beginning, on average. */
static enum status count_labels(const struct label_bins *bins, int64_t rows, const double *labels, double *counts,
                                double *offset) {
  double sum = 0, inside = 0;
  memset(counts, 0, (size_t)bins->count * sizeof *counts);
  for (int64_t i = 0; i < rows; i++) {
    int64_t bin = label_bins_index(bins, labels[i]);
    REQUIRE(bin >= 0, ERR_ARGUMENT, "label %g lies below the first bin, which begins at %g; begin lower", labels[i],
            bins->low);
    counts[bin]++;
    double above = labels[i] - bins->low - (double)bin * bins->width;
    if (above <= bins->width) { /* no label above all bins */
      sum += above;
      inside++;
    }
  }
  *offset = inside > 0 ? sum / inside : bins->width / 2;
  return STATUS_OK;
}

/* Keep the bins that have any; their share of the whole. */
static void fill(const struct label_bins *bins, double offset, const double *counts, struct label_prior *prior) {
  double total = 0;
  for (int64_t bin = 0; bin < bins->count; bin++)
    total += counts[bin];
  for (int64_t bin = 0; bin < bins->count; bin++)
    if (counts[bin] > 0) {
      prior->centres[prior->count] = bins->low + (double)bin * bins->width + offset;
      prior->probabilities[prior->count++] = counts[bin] / total;
    }
}

static enum status smooth(const struct label_bins *bins, const struct label_smoothing *smoothing, const double *counts,
                          double *smoothed) {
  memcpy(smoothed, counts, (size_t)bins->count * sizeof *counts);
  if (smoothing == NULL)
    return STATUS_OK;
  TRY(label_window_check(&smoothing->window, bins->count));
  label_window_convolve(&smoothing->window, smoothing->padding, bins->count, 1, counts, smoothed);
  for (int64_t bin = 0; smoothing->truncate && bin < bins->count; bin++)
    smoothed[bin] = trunc(smoothed[bin]);
  return STATUS_OK;
}

static enum status create(const struct label_bins *bins, int64_t rows, const double *labels,
                          const struct label_smoothing *smoothing, double *counts, double *smoothed,
                          struct label_prior *out) {
  double offset = 0;
  int64_t filled = 0;
  TRY(count_labels(bins, rows, labels, counts, &offset));
  for (int64_t bin = 0; bin < bins->count; bin++)
    filled += counts[bin] > 0;
  REQUIRE(filled > 1, ERR_ARGUMENT, "bins of width %g put all labels into one; give narrower ones", bins->width);
  TRY(smooth(bins, smoothing, counts, smoothed));
  fill(bins, offset, smoothed, out);
  return STATUS_OK;
}

enum status label_prior_create(int64_t rows, const double *labels, const struct label_bins *bins,
                               const struct label_smoothing *smoothing, struct label_prior *out) {
  double *counts = NULL, *smoothed = NULL;
  enum status status;
  *out = (struct label_prior){0};
  TRY(label_bins_check(bins));
  size_t bytes = (size_t)bins->count * sizeof(double);
  TRY_GOTO(memory_alloc(bytes, (void **)&counts), out);
  TRY_GOTO(memory_alloc(bytes, (void **)&smoothed), out);
  TRY_GOTO(memory_alloc(bytes, (void **)&out->centres), out);
  TRY_GOTO(memory_alloc(bytes, (void **)&out->probabilities), out);
  status = create(bins, rows, labels, smoothing, counts, smoothed, out);
out:
  memory_free((void **)&counts);
  memory_free((void **)&smoothed);
  if (status != STATUS_OK)
    label_prior_destroy(out);
  return status;
}

void label_prior_destroy(struct label_prior *prior) {
  memory_free((void **)&prior->centres);
  memory_free((void **)&prior->probabilities);
  prior->count = 0;
}
