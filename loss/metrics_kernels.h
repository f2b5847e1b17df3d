/* Kernels of metrics on a GPU, as C sees them.  Arrays lie in the device's memory; a column is one component of labels,
 * predictions or ranks, [rows] doubles by place (metrics_places.h). */
#ifndef CONR_LOSS_METRICS_KERNELS_H
#define CONR_LOSS_METRICS_KERNELS_H

#ifdef __cplusplus
extern "C" {
#endif

#include "dist/device.h"
#include "loss/metrics.h"

#ifdef __cplusplus
}
#endif

#include "loss/metrics_places.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What the kernels must know of the places. */
struct metrics_shape {
  int64_t rows, bins;
  int targets;
  enum gmean_rule rule;
  struct metrics_range bins_of[METRICS_GROUPS], places_of[METRICS_GROUPS];
};

/* Of a bin, and of a group.  bad: the first element of [rows, targets] whose prediction is not finite; INFINITY =
 * none. */
struct metrics_bin {
  struct metrics_errors errors;
  double bad;
};

struct metrics_found {
  struct metrics_sums sums;
  double bad;
};

/* columns [targets, rows] from predictions [rows, targets], dtype F32 or F64; row [rows]: the row at each place. */
enum status metrics_columns_launch(enum dtype dtype, const struct metrics_shape *shape, const int32_t *row,
                                   const void *predictions, double *columns, struct stream *stream);

/* first [bins + 1]: of each bin; predictions, labels [targets, rows]; bins [bins] scratch; found [METRICS_GROUPS]. */
enum status metrics_errors_launch(const struct metrics_shape *shape, const int32_t *row, const int32_t *first,
                                  const double *predictions, const double *labels, struct metrics_bin *bins,
                                  struct metrics_found *found, struct stream *stream);

/* The ranks of values [count] among themselves, ties sharing the mean of theirs.
 * sorted [count] scratch; scratch of metrics_sort_bytes(count) */
enum status metrics_ranks_launch(int64_t count, const double *values, double *sorted, void *scratch, size_t bytes,
                                 double *ranks, struct stream *stream);

/* correlations [METRICS_GROUPS, targets, 2]: of columns and of ranks; ranks [2, targets, rows]: among all rows, among
 * those of the shot class. */
enum status metrics_correlations_launch(const struct metrics_shape *shape, const double *predictions,
                                        const double *labels, const double *prediction_ranks, const double *label_ranks,
                                        double *correlations, struct stream *stream);

/* Ascending, and -0 equals 0 (sort.cu). */
size_t metrics_sort_bytes(int64_t count);
enum status metrics_sort_launch(int64_t count, const double *values, double *sorted, void *scratch, size_t bytes,
                                struct stream *stream);

#ifdef __cplusplus
}
#endif

#endif
