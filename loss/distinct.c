/* Rows and their counts. */
#define _GNU_SOURCE /* qsort_r */
#include "loss/distinct.h"

#include <stdlib.h>
#include <string.h>

static int compare(const void *left, const void *right, void *width) {
  const double *a = left, *b = right;
  for (int i = 0; i < *(int *)width; i++)
    if (a[i] != b[i])
      return a[i] < b[i] ? -1 : 1;
  return 0;
}

int64_t distinct_rows(int64_t count, int width, double *rows, double *copies) {
  size_t row_bytes = (size_t)width * sizeof *rows;
  int64_t kept = 0;
  qsort_r(rows, (size_t)count, row_bytes, compare, &width);
  for (int64_t i = 0; i < count; i++) {
    const double *row = rows + i * width;
    if (kept == 0 || compare(rows + (kept - 1) * width, row, &width) != 0) {
      memmove(rows + kept * width, row, row_bytes);
      copies[kept++] = 0;
    }
    copies[kept - 1]++;
  }
  return kept;
}
