/* Kernels of ACCon on a GPU, as C sees them: see accon.c for what they compute. */
#ifndef CONR_LOSS_ACCON_KERNELS_H
#define CONR_LOSS_ACCON_KERNELS_H

#include "loss/accon_element.h"

#ifdef __cplusplus
extern "C" {
#endif

#include "dist/device.h"
#include "dist/dtype.h"

/* All rows of the batch, on the device; `pitch` is their number as products want it (conr_kernels.h). */
struct accon_columns {
  int64_t rows, pitch;
  float *inverse, *label, *cosine, *sine; /* [rows] 1 / |z|; y; of the angle pi y / R */
  float *pull, *push, *subtract;          /* [rows] see accon.c                      */
};

/* Some own rows: numbers first .. first + rows - 1 of all. */
struct accon_panel {
  int rows;
  int64_t first;
  float *products; /* [rows, pitch] z_i . z_j */
};

/* Norms and angles.  z [rows, stride] of dtype F32 or BF16; labels [rows] every `label_stride` numbers. */
enum status accon_measure_launch(const struct accon_rule *rule, enum dtype dtype, int features, int64_t stride,
                                 const void *z, const float *labels, int64_t label_stride,
                                 const struct accon_columns *columns, struct stream *stream);

/* scalars [all rows, 2]: the panel's numbers of positives and log Z; values [panel's rows]: their parts of the
 * value. */
enum status accon_sums_launch(const struct accon_rule *rule, const struct accon_columns *columns,
                              const struct accon_panel *panel, double *scalars, double *values, struct stream *stream);

/* pull, push and subtract of the columns from scalars. */
enum status accon_scales_launch(const struct accon_rule *rule, const struct accon_columns *columns,
                                const double *scalars, struct stream *stream);

/* Products become H_ij / |z_j|, 0 for the row itself and beyond all rows: in place for F32 (out is panel->products),
 * else out [rows, pitch] of dtype. */
enum status accon_coefficients_launch(const struct accon_rule *rule, const struct accon_columns *columns,
                                      const struct accon_panel *panel, enum dtype dtype, void *out,
                                      struct stream *stream);

#ifdef __cplusplus
}
#endif

#endif
