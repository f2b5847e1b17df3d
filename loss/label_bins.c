/* Bins of labels. */
#include "loss/label_bins.h"

#include <float.h>
#include <math.h>

double label_bin(double label, double width) {
  double quotient = label / width, nearest = rint(quotient);
  if (fabs(quotient - nearest) <= fmin(1e-3, 4 * FLT_EPSILON * fabs(quotient)))
    quotient = nearest;         /* decimal labels that float32 rounded to just below an edge */
  return trunc(quotient) + 0.0; /* bin -0 is bin 0 */
}

enum status label_bins_cover(int64_t n, const double *labels, double width, struct label_bins *bins) {
  double low = 0, high = 0;
  for (int64_t i = 0; i < n; i++) {
    REQUIRE(isfinite(labels[i]), ERR_ARGUMENT, "label %g has no bin; labels must be finite", labels[i]);
    low = fmin(low, labels[i]);
    high = fmax(high, labels[i]);
  }
  low = width * floor(low / width);
  double count = label_bin(high - low, width) + 1;
  REQUIRE(count <= LABEL_BINS_MOST, ERR_ARGUMENT,
          "labels from %g to %g would fill %.0f bins of width %g, more than %d; give wider bins", low, high, count,
          width, LABEL_BINS_MOST);
  *bins = (struct label_bins){low, width, (int64_t)count};
  return STATUS_OK;
}

enum status label_bins_check(const struct label_bins *bins) {
  REQUIRE(isfinite(bins->low), ERR_ARGUMENT, "bins cannot begin at %g; give a label", bins->low);
  REQUIRE(isfinite(bins->width) && bins->width > 0, ERR_ARGUMENT, "bins of width %g hold nothing; give one above 0",
          bins->width);
  REQUIRE(bins->count >= 1 && bins->count <= LABEL_BINS_MOST, ERR_ARGUMENT, "%lld bins cannot be had; use 1 to %d",
          (long long)bins->count, LABEL_BINS_MOST);
  return STATUS_OK;
}

int64_t label_bins_index(const struct label_bins *bins, double label) {
  double bin = label_bin(label - bins->low, bins->width);
  return !(bin >= 0) ? -1 /* NaN too */ : bin < (double)bins->count ? (int64_t)bin : bins->count - 1;
}
