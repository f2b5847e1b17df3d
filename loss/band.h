/* Orders and ranges for banded evaluation: pairs within w of each other are neighbours once the
 * rows are sorted by one coordinate (any coordinate: |difference of one| <= distance).
 *
 *     band_sort(values, rows, order);                        order[k] = the row at place k
 *     range = band_range(dtype, values, order, rows, w, lowest, highest);
 * All local and pure. */
#ifndef CONR_LOSS_BAND_H
#define CONR_LOSS_BAND_H

#include "dist/dtype.h"

#include <stddef.h>
#include <stdint.h>

/* A value and the row it belongs to; the scratch of band_sort. */
struct band_key {
  double value;
  int32_t row;
};

/* order[0..rows-1]: the rows by ascending value, equal values by row number.
 * values [rows] dtype; keys [rows] scratch. */
void band_sort(enum dtype dtype, const void *values, int32_t rows, struct band_key *keys, int32_t *order);

/* Places [first, last) of the order that hold every row within w of some value in [lowest, highest].
 * Uses the very expression of the masks (the difference rounded to dtype, then compared), so no pair at the
 * limit is lost: rounding is monotonic. */
struct band_range {
  int64_t first, last;
};
struct band_range band_range(enum dtype dtype, const void *values, const int32_t *order, int64_t rows, double w,
                             double lowest, double highest);

#endif
