/* Bins for pictures. */
#include "launch/label_axis.h"

#include "loss/label_bins.h"

#include <math.h>

#define ENOUGH 20

/* How many bins of a width hold them all. */
static double span(double width, const double extent[2]) {
  return label_bin(extent[1], width) - label_bin(extent[0], width) + 1;
}

/* 1, 2, 5, 10, 20, 50 ... */
static double nice(int step) {
  static const double digits[] = {1, 2, 5};
  int tens = step / 3;
  return digits[step % 3] * pow(10, tens); /* exact: small powers of 10 */
}

static bool are_multiples(double width, int64_t rows, const double *labels, int stride) {
  for (int64_t i = 0; i < rows; i++)
    if (fabs(labels[i * stride] - width * label_bin(labels[i * stride], width)) > 1e-6 * width)
      return false;
  return true;
}

enum status label_axis_cover(double bin_width, int most, int64_t rows, const double *labels, int stride,
                             struct label_axis *out) {
  double extent[2] = {rows > 0 ? labels[0] : 0, rows > 0 ? labels[0] : 0}, width = bin_width;
  for (int64_t i = 0; i < rows; i++) {
    double label = labels[i * stride];
    REQUIRE(isfinite(label), ERR_NUMERIC, "label %lld is not finite", (long long)i);
    extent[0] = fmin(extent[0], label);
    extent[1] = fmax(extent[1], label);
  }
  REQUIRE(isfinite(label_bin(extent[0], width)) && isfinite(label_bin(extent[1], width)), ERR_ARGUMENT,
          "labels from %g to %g are too large for bins of width %g; give a larger --bin-width", extent[0], extent[1],
          bin_width);
  int step = 0;
  while (span(width, extent) > most)
    width = bin_width * nice(++step);
  bool merged = step > 0;
  bool centred = !merged && are_multiples(width, rows, labels, stride);
  if (span(width, extent) < ENOUGH && !merged && !centred && extent[0] < extent[1])
    for (step = 1; span(width, extent) < ENOUGH && span(bin_width / nice(step), extent) <= most; step++)
      width = bin_width / nice(step);
  *out = (struct label_axis){.width = width,
                             .first = label_bin(extent[0], width),
                             .count = (int)span(width, extent),
                             .merged = merged,
                             .centred = centred,
                             .negative = extent[0] < 0};
  return STATUS_OK;
}

int label_axis_index(const struct label_axis *axis, double label) {
  double b = isfinite(label) ? label_bin(label, axis->width) - axis->first : -1;
  return b >= 0 && b < axis->count ? (int)b : -1;
}

void label_axis_ends(const struct label_axis *axis, int b, double *low, double *high) {
  double bin = axis->first + b;
  if (axis->centred) {
    *low = (bin - 0.5) * axis->width;
    *high = (bin + 0.5) * axis->width;
    return;
  }
  *low = bin > 0 || (bin == 0 && !axis->negative) ? bin * axis->width : (bin - 1) * axis->width;
  *high = bin >= 0 ? (bin + 1) * axis->width : bin * axis->width;
}
