/* Sorting rows by one coordinate, and finding what lies within a window. */
#include "loss/band.h"

#include <stdbool.h>
#include <stdlib.h>

static int compare_keys(const void *left, const void *right) {
  const struct band_key *a = left, *b = right;
  if (a->value != b->value)
    return a->value < b->value ? -1 : 1;
  return (a->row > b->row) - (a->row < b->row);
}

void band_sort(enum dtype dtype, const void *values, int32_t rows, struct band_key *keys, int32_t *order) {
  for (int32_t i = 0; i < rows; i++)
    keys[i] = (struct band_key){dtype_get(dtype, values, i), i};
  qsort(keys, (size_t)rows, sizeof *keys, compare_keys);
  for (int32_t i = 0; i < rows; i++)
    order[i] = keys[i].row;
}

/* high - low > w, as the masks compute it. */
static bool apart(enum dtype dtype, double high, double low, double w) {
  return dtype == F32 ? (float)high - (float)low > (float)w : high - low > w;
}

struct band_range band_range(enum dtype dtype, const void *values, const int32_t *order, int64_t rows, double w,
                             double lowest, double highest) {
  struct band_range range = {0, rows};
  for (int64_t high = rows; range.first < high;) { /* first place not too far below */
    int64_t middle = range.first + (high - range.first) / 2;
    if (apart(dtype, lowest, dtype_get(dtype, values, order[middle]), w))
      range.first = middle + 1;
    else
      high = middle;
  }
  for (int64_t low = range.first; low < range.last;) { /* first place too far above */
    int64_t middle = low + (range.last - low) / 2;
    if (apart(dtype, dtype_get(dtype, values, order[middle]), highest, w))
      range.last = middle;
    else
      low = middle + 1;
  }
  return range;
}
