/* Kernels of RnC on a GPU, as C sees them: see rnc_cuda.c for their order. */
#ifndef CONR_LOSS_RNC_KERNELS_H
#define CONR_LOSS_RNC_KERNELS_H

#include "loss/rnc_element.h"

#ifdef __cplusplus
extern "C" {
#endif

#include "dist/device.h"
#include "dist/dtype.h"

/* Columns that share a word of marks. */
#define RNC_WORD 32

/* All rows as they were gathered: z [rows, stride] of dtype F32 or BF16. */
struct rnc_rows {
  enum dtype dtype;
  int features;
  int64_t stride;
  const void *z;
};

/* The same rows as columns, on the device; `pitch` is their number as products want it (conr_kernels.h). */
struct rnc_columns {
  int64_t rows, pitch, stride;
  float *mean;            /* [features] of all rows                            */
  float *centred;         /* [pitch, stride] z - mean, zeros beyond rows and features */
  float *square, *length; /* [pitch] |z - mean|^2, |z - mean|                  */
  float *label;           /* [rows]                                            */
  float *sorted;          /* [rows] labels ascending                           */
  int32_t *order;         /* [rows] the row at each place of sorted            */
  double *sums;           /* [pitch] of the coefficients of a row's pairs      */
  float *gradient;        /* [pitch, stride]                                   */
};

/* Some own rows: numbers first .. first + rows - 1 of all. */
struct rnc_panel {
  int rows;
  int64_t first;
  float *pairs;   /* [rows, pitch] products, then coefficients                    */
  uint32_t *near; /* [rows, words of a pitch] a bit for each pair that is near    */
  double *values; /* [rows] their parts of the value                              */
};

/* What a call asks for. */
struct rnc_scale {
  double inverse_t;
  double norm;        /* of the value: 1 / (rows (rows - 1)) */
  double coefficient; /* of pairs: norm times that of the loss over t */
};

CONR_PAIR_INLINE int64_t rnc_words(int64_t pitch) {
  return (pitch + RNC_WORD - 1) / RNC_WORD;
}

/* Scratch of rnc_pairs_launch() for no more rows than these: two numbers for each row and block, 64 MiB at most where one
 * block's fit in them. */
size_t rnc_scratch_bytes(int64_t rows, int64_t panel_rows);

/* columns->mean, centred, square, length and label; numbers [rows], 0 .. rows - 1, for a sort.  labels [rows] every
 * `label_stride` numbers. */
enum status rnc_measure_launch(const struct rnc_rows *rows, const struct rnc_columns *columns, const float *labels,
                               int64_t label_stride, int32_t *numbers, struct stream *stream);

/* Products (z - mean) . (z - mean) of a panel become coefficients; near pairs are marked, and give their rows all of
 * theirs.  columns->gradient and sums are added to.  scratch: rnc_scratch_bytes() */
enum status rnc_pairs_launch(const struct rnc_scale *scale, const struct rnc_rows *rows,
                             const struct rnc_columns *columns, const struct rnc_panel *panel, double *scratch,
                             struct stream *stream);

/* Sums of the panel's columns, to columns->sums; near pairs give all of theirs to columns->gradient and become 0. */
enum status rnc_columns_launch(const struct rnc_rows *rows, const struct rnc_columns *columns,
                               const struct rnc_panel *panel, struct stream *stream);

/* gradient -= sums x centred, of all rows. */
enum status rnc_close_launch(const struct rnc_columns *columns, struct stream *stream);

/* grad [count, features] of dtype += the gradient of rows first .. first + count - 1. */
enum status rnc_add_launch(const struct rnc_columns *columns, enum dtype dtype, int features, int64_t first,
                           int64_t count, void *grad, struct stream *stream);

#ifdef __cplusplus
}
#endif

#endif
