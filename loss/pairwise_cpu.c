/* Pair sums on the CPU: one source for float32 and float64, with the hot rows compiled for
 * several vector widths and chosen at run time. */
#include "loss/pairwise.h"

#include "loss/vectorised.h"
#include "model/gemm.h"

#include <math.h>
#include <string.h>

#define SMALLEST_NORM 1e-12

/* Columns of the block that begins at `first`: as many as a tile holds, but never a narrow rest. */
static int64_t block_columns(int64_t first, int64_t last) {
  int64_t left = last - first;
  if (left <= PANEL_COLUMNS)
    return left;
  return left >= PANEL_COLUMNS + LEAST_COLUMNS ? PANEL_COLUMNS : left / 2 / COLUMN_STEP * COLUMN_STEP;
}

#define REAL float
#define NAME(name) name##_f32
#define DTYPE F32
#include "loss/pairwise_cpu_real.h"
#undef REAL
#undef NAME
#undef DTYPE

#define REAL double
#define NAME(name) name##_f64
#define DTYPE F64
#include "loss/pairwise_cpu_real.h"

size_t pairwise_workspace(enum dtype dtype, int features) {
  return dtype == F32 ? sizeof(struct panel_f32) + panel_reals_f32(features) * sizeof(float)
                      : sizeof(struct panel_f64) + panel_reals_f64(features) * sizeof(double);
}

enum status pairwise_forward(enum dtype dtype, const struct pair_rule *rule, const struct pair_columns *columns,
                             const int32_t *rows, int count, int64_t first, int64_t last, enum pair_class pairs,
                             void *workspace, struct pair_sums *sums) {
  return dtype == F32 ? forward_f32(rule, columns, rows, count, first, last, pairs, workspace, sums)
                      : forward_f64(rule, columns, rows, count, first, last, pairs, workspace, sums);
}

enum status pairwise_backward(enum dtype dtype, const struct pair_rule *rule, const struct pair_columns *columns,
                              const int32_t *rows, int count, int64_t first, int64_t last, enum pair_class pairs,
                              void *workspace, const void **grad) {
  return dtype == F32 ? backward_f32(rule, columns, rows, count, first, last, pairs, workspace, grad)
                      : backward_f64(rule, columns, rows, count, first, last, pairs, workspace, grad);
}

double row_normalise(enum dtype dtype, int features, const void *f, void *q, bool *finite) {
  return dtype == F32 ? row_normalise_f32(features, f, q, finite) : row_normalise_f64(features, f, q, finite);
}

void row_add(enum dtype dtype, int features, const void *row, void *sum) {
  if (dtype == F32)
    row_add_f32(features, row, sum);
  else
    row_add_f64(features, row, sum);
}

void row_through_norm(enum dtype dtype, int features, const void *f, double inverse, void *grad) {
  if (dtype == F32)
    row_through_norm_f32(features, f, inverse, grad);
  else
    row_through_norm_f64(features, f, inverse, grad);
}
