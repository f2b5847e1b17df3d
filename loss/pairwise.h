/* Sums over pairs, panel by panel: a few own rows against a range of columns.
 *
 * A panel's similarities are one matrix product; masks, exponentials and row sums are taken while
 * it is in cache.  The forward sweep gives each row its sums; the backward sweep, once every row's
 * scalars are known, computes the similarities again and multiplies the pair coefficients H with the features.
 * Local and allocation-free; one call per thread at a time, each with its own workspace.  Both sweeps fail only when
 * the matrix product does (ERR_MEMORY). */
#ifndef CONR_LOSS_PAIRWISE_H
#define CONR_LOSS_PAIRWISE_H

#include "dist/dtype.h"
#include "dist/status.h"
#include "loss/pair.h"

#include <stddef.h>

/* Own rows in a panel, and columns that are in flight at once: the tile of similarities (288 KB in
 * float32) stays in a core's second-level cache beside what the matrix product reads. */
#define PANEL_ROWS 144
#define PANEL_COLUMNS 512

/* Similarities are amplified by 1/t inside exponentials, so they must not depend on how rows are shared out.  A matrix
 * product rounds an element alike wherever it stands if shapes are kind: a fixed number of rows that is a multiple of
 * 48 (AVX2 kernels treat a rest of 2 rows in 6 differently), and blocks of columns that are not narrow and begin and
 * end at multiples of 16 (seen with oneDNN 2.6's kernels for SSE4.1, AVX2, AVX-512). */
#define COLUMN_STEP 16
#define LEAST_COLUMNS 256

/* All rows of the global batch in their present order.  REAL = float or double, by dtype. */
struct pair_columns {
  int64_t rows;
  int features, targets;
  int64_t stride;          /* REALs from one record to the next                           */
  const void *records;     /* q_i is the first `features` REALs of record i               */
  const void *labels;      /* [targets, rows]                                             */
  const void *predictions; /* [targets, rows]                                             */
  /* Backward only, [rows].  Shifted, REAL: u - x, weight u, v and unused.  Wide, double: log u, log(weight u), v, log x
   * (a logarithm rounded to float32 would be a relative error of the gradient). */
  const void *scale_positive, *scale_negative, *subtract, *scale_mean;
};

/* Bytes of workspace one thread needs. */
size_t pairwise_workspace(enum dtype dtype, int features);

/* Add the pairs (rows[0..count-1]) x [first, last) of a class to sums[0..count-1].
 * rows: record indices, count <= rule->product_rows. */
enum status pairwise_forward(enum dtype dtype, const struct pair_rule *rule, const struct pair_columns *columns,
                             const int32_t *rows, int count, int64_t first, int64_t last, enum pair_class pairs,
                             void *workspace, struct pair_sums *sums);

/* For the same pairs: (1/t) sum_j H_ij q_j.
 * *grad  [count, features] REAL inside the workspace, valid until its next use. */
enum status pairwise_backward(enum dtype dtype, const struct pair_rule *rule, const struct pair_columns *columns,
                              const int32_t *rows, int count, int64_t first, int64_t last, enum pair_class pairs,
                              void *workspace, const void **grad);

/* ---- rows of features, element by element ---- */

/* q = f / max(|f|, 1e-12); returns 1 / |f|, or 0 when |f| <= 1e-12; NaN or 0 when f is not finite: *finite says so. */
double row_normalise(enum dtype dtype, int features, const void *f, void *q, bool *finite);

/* sum += row */
void row_add(enum dtype dtype, int features, const void *row, void *sum);

/* From the gradient of q to that of f, in place: (g - (g . q) q) / |f|, with q = f inverse. */
void row_through_norm(enum dtype dtype, int features, const void *f, double inverse, void *grad);

#endif
