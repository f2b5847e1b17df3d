/* Kernels of the ConR loss on a GPU, as C sees them: one launcher each, queued on a stream.
 *
 * All arrays lie in the device's memory.  N rows of the batch; `pitch` is N rounded up to a multiple of CONR_ALIGN, and
 * arrays of columns are filled up to it with what no pair can be made of, so that every load is of 16 bytes and no
 * kernel looks for the end.  q rows are `stride` elements long, features rounded up likewise, zeros beyond.
 * Counts may be 0.  Every sum has a fixed order; no atomics. */
#ifndef CONR_LOSS_CONR_KERNELS_H
#define CONR_LOSS_CONR_KERNELS_H

#include "loss/pair.h"

#ifdef __cplusplus
extern "C" {
#endif

#include "dist/device.h"
#include "dist/dtype.h"

#define CONR_ALIGN 8 /* elements: 16 bytes of bfloat16 */

/* Sums over rows, in the order of struct conr_found. */
enum conr_total { TOTAL_LOSS, TOTAL_ACTIVE, TOTAL_POSITIVES, TOTAL_NEGATIVES, TOTAL_ZERO_ROWS, CONR_TOTALS };

/* What the device finds out about a batch; the host copies it at the end. */
struct conr_found {
  double totals[CONR_TOTALS]; /* of the own rows, then of all ranks'                                     */
  double bad;                 /* index in [N, 2 targets + 1] of the first scalar that cannot be, or INFINITY */
  double bad_value;
  double diameter; /* of all labels                                               */
  double shift;    /* of the rule; every rank finds the same, from gathered labels */
  int32_t wide;
};

/* Columns in one order. */
struct conr_columns {
  int64_t rows, pitch;
  int targets;
  float *labels, *predictions; /* [targets, pitch]; infinity beyond rows                                    */
  float *weights;              /* [pitch]                                                               */
  void *scales;                /* shifted: float [3, pitch]; wide: double [4, pitch]; see pair_scales   */
};

/* Some own rows against a range of columns. */
struct conr_panel {
  int rows;
  int64_t first, columns;         /* multiples of CONR_ALIGN; first + columns <= pitch                 */
  int64_t first_place, first_own; /* where the next two are NULL: the row's number in the panel is added */
  const int32_t *places;          /* [rows] the column that each row is itself                         */
  const int32_t *own;             /* [rows] own rows                                                   */
  float *similarity;              /* [rows, columns]                                                   */
};

/* A panel's range of columns, in places. */
struct conr_range {
  int32_t first, last;
};

/* --- rows (conr_rows.cu) -------------------------------------------------------------------------------------- */

/* q = f / max(|f|, 1e-12); scalars = label, prediction, weight, which is NaN where f is not finite;
 * inverse = 1 / |f|, or 0 where |f| <= 1e-12: no gradient.  f [rows, features] and q [rows, stride] of dtype F32 or
 * BF16; labels, predictions [rows, targets]; weights [rows] or NULL; scalars [rows, 2 targets + 1]; inverse [rows], or
 * NULL: q = f and the weight as it is, to be normalised by the next launcher. */
enum status conr_pack_launch(enum dtype dtype, int64_t rows, int features, int stride, int targets, const void *f,
                             const float *labels, const float *predictions, const float *weights, void *q,
                             float *scalars, float *inverse, struct stream *stream);

/* to [rows, stride] = f [rows, features], zeros beyond. */
enum status conr_pad_launch(enum dtype dtype, int64_t rows, int features, int stride, const void *f, void *to,
                            struct stream *stream);

/* The same of packed rows: q from z, both [rows, stride], NaN for the weight of a row that is not finite, and the
 * inverses of own_rows rows from own_first on. */
enum status conr_normalise_launch(enum dtype dtype, int64_t rows, int features, int stride, int targets, const void *z,
                                  int64_t own_first, int64_t own_rows, void *q, float *scalars, float *inverse,
                                  struct stream *stream);

/* Look at all scalars [rows, 2 targets + 1]: what cannot be, the labels' diameter, the rule's form; totals become 0.
 * partial  conr_inspect_bytes(targets) */
size_t conr_inspect_bytes(int targets);
enum status conr_inspect_launch(const struct pair_rule *rule, int64_t rows, int targets, const float *scalars,
                                double *partial, struct conr_found *found, struct stream *stream);

/* Labels, predictions and weights from scalars [N, 2 targets + 1], in an order: [N], or NULL for the batch's. */
enum status conr_columns_launch(const struct conr_columns *columns, const int32_t *order, const float *scalars,
                                struct stream *stream);

/* Sums of rows to scalars and totals.  weights, inverse [rows] of the own rows; exchange [rows, 2].
 * partial  conr_rows_bytes(rows) */
size_t conr_rows_bytes(int64_t rows);
enum status conr_rows_launch(const struct pair_rule *rule, int64_t rows, int64_t rows_global,
                             const struct pair_sums *sums, const float *weights, const float *inverse, double *exchange,
                             double *partial, struct conr_found *found, struct stream *stream);

/* columns->scales from exchange [N, 2] and columns->weights. */
enum status conr_scales_launch(const struct pair_rule *rule, const struct conr_found *found,
                               const struct conr_columns *columns, const int32_t *order, const double *exchange,
                               struct stream *stream);

/* to[i] = from[index[i] + offset] in rows of row_bytes, a multiple of 16. */
enum status conr_take_rows_launch(int64_t rows, size_t row_bytes, const int32_t *index, int64_t offset,
                                  const void *from, void *to, struct stream *stream);

/* sum[own[i]] += tile[i], rows of stride floats. */
enum status conr_add_rows_launch(int rows, int stride, const int32_t *own, const float *tile, float *sum,
                                 struct stream *stream);

/* From sum_j H_ij q_j = tile [rows, stride] to the gradient of f: with g = factor tile, (g - (g . q) q) / |f|, which is
 * added to grad or overwrites it.
 * f, grad [rows, features] of dtype; inverse [rows]. */
enum status conr_finish_launch(enum dtype dtype, int64_t rows, int features, int stride, double factor,
                               const float *tile, const void *f, const float *inverse, bool add, void *grad,
                               struct stream *stream);

/* --- bands (conr_rows.cu, sort.cu) ---------------------------------------------------------------------------- */

/* order[k] = the index of the k-th smallest key, equal keys by index; sorted[k] = that key.
 * numbers  [count] 0, 1, 2, ...: conr_numbers_launch()
 * scratch  sort_bytes(count) */
size_t sort_bytes(int64_t count);
enum status sort_launch(int64_t count, const float *keys, const int32_t *numbers, float *sorted, int32_t *order,
                        void *scratch, size_t bytes, struct stream *stream);

/* numbers[i] = i */
enum status conr_numbers_launch(int64_t count, int32_t *numbers, struct stream *stream);

/* place_of[order[k]] = k */
enum status conr_invert_launch(int64_t rows, const int32_t *order, int32_t *place_of, struct stream *stream);

/* Of each panel of panel_rows own rows in their order: the places within w of one of them.
 * sorted [rows] all keys; places [own_rows], written: place_of[own_first + own[i]]; ranges [panels] */
enum status conr_ranges_launch(double w, int64_t rows, const float *sorted, const int32_t *place_of, int64_t own_first,
                               int64_t own_rows, int panel_rows, const int32_t *own, int32_t *places,
                               struct conr_range *ranges, struct stream *stream);

/* --- pairs (conr_pairs.cu) ------------------------------------------------------------------------------------ */

enum status conr_sums_begin_launch(int64_t rows, struct pair_sums *sums, struct stream *stream);

/* sums[own row] += the panel's pairs of a class. */
enum status conr_sums_launch(const struct pair_rule *rule, const struct conr_found *found,
                             const struct conr_columns *columns, const struct conr_panel *panel, enum pair_class pairs,
                             struct pair_sums *sums, struct stream *stream);

/* Similarities become H: in place for F32 (out is panel->similarity), else out [rows, columns] of dtype. */
enum status conr_coefficients_launch(const struct pair_rule *rule, const struct conr_found *found,
                                     const struct conr_columns *columns, const struct conr_panel *panel,
                                     enum pair_class pairs, enum dtype dtype, void *out, struct stream *stream);

#ifdef __cplusplus
}
#endif

#endif
