/* Bins of labels: what is counted when samples are weighted by how rare their labels are.
 *
 *     struct label_bins bins;
 *     TRY(label_bins_cover(rows, labels, 1, &bins));                or {0, 1, 121}: the published bins of ages
 *     TRY(label_bins_check(&bins));
 *     int64_t b = label_bins_index(&bins, label);                   -1: below the first bin
 *
 * All functions are local and pure. */
#ifndef CONR_LOSS_LABEL_BINS_H
#define CONR_LOSS_LABEL_BINS_H

#include "dist/status.h"

#include <stdint.h>

#define LABEL_BINS_MOST 10000000

struct label_bins {
  double low, width; /* label units: bin b begins at low + b * width        */
  int64_t count;     /* the last bin also holds every label above it        */
};

/* trunc(label / width), towards zero.  A quotient within float32 rounding of an integer counts as that integer: 0.7 / 0.1
 * is bin 7, although the floating-point quotient is below it. */
double label_bin(double label, double width);

/* Bins of `width` that hold all labels [n], from 0 or, where labels are negative, from the multiple of the width below
 * the lowest.  ERR_ARGUMENT: they would be more than LABEL_BINS_MOST, or a label is not finite. */
enum status label_bins_cover(int64_t n, const double *labels, double width, struct label_bins *bins);

/* ERR_ARGUMENT for bins without meaning. */
enum status label_bins_check(const struct label_bins *bins);

/* The bin of a label: label_bin(label - low, width), at most count - 1, or -1 when it is below 0.  As published,
 * truncation lets the first bin begin one width below `low`. */
int64_t label_bins_index(const struct label_bins *bins, double label);

#endif
