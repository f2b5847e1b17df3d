/* From labels to bins with probabilities. */
#include "loss/label_prior.h"

#include "dist/memory.h"

#include <string.h>

/* How many labels are in each bin, and how far they lie from its beginning, on average. */
static double count_labels(const struct label_bins *bins, int64_t rows, const double *labels, double *counts) {
  double offset = 0;
  memset(counts, 0, (size_t)bins->count * sizeof *counts);
  for (int64_t i = 0; i < rows; i++) {
    int64_t bin = label_bins_index(bins, labels[i]);
    counts[bin]++;
    offset += labels[i] - bins->low - (double)bin * bins->width;
  }
  return offset / (double)rows;
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

static enum status create(const struct label_bins *bins, int64_t rows, const double *labels,
                          const struct label_window *window, double *counts, double *smoothed,
                          struct label_prior *out) {
  double offset = count_labels(bins, rows, labels, counts);
  int64_t filled = 0;
  for (int64_t bin = 0; bin < bins->count; bin++)
    filled += counts[bin] > 0;
  REQUIRE(filled > 1, ERR_ARGUMENT, "bins of width %g put all labels into one; give narrower ones", bins->width);
  if (window != NULL) {
    TRY(label_window_check(window, bins->count));
    label_window_convolve(window, PADDING_ZERO, bins->count, 1, counts, smoothed);
  }
  fill(bins, offset, window != NULL ? smoothed : counts, out);
  return STATUS_OK;
}

enum status label_prior_create(int64_t rows, const double *labels, double width, const struct label_window *window,
                               struct label_prior *out) {
  struct label_bins bins;
  double *counts = NULL, *smoothed = NULL;
  enum status status;
  *out = (struct label_prior){0};
  TRY(label_bins_cover(rows, labels, width, &bins));
  size_t bytes = (size_t)bins.count * sizeof(double);
  TRY_GOTO(memory_alloc(bytes, (void **)&counts), out);
  TRY_GOTO(memory_alloc(bytes, (void **)&smoothed), out);
  TRY_GOTO(memory_alloc(bytes, (void **)&out->centres), out);
  TRY_GOTO(memory_alloc(bytes, (void **)&out->probabilities), out);
  status = create(&bins, rows, labels, window, counts, smoothed, out);
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
