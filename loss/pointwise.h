/* Kernels of the pointwise losses on a GPU, as C sees them. */
#ifndef CONR_LOSS_POINTWISE_H
#define CONR_LOSS_POINTWISE_H

#ifdef __cplusplus
extern "C" {
#endif

#include "dist/device.h"
#include "loss/regression.h"

#ifdef __cplusplus
}
#endif

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Parts of a sum at most: a constant, since the order of a sum is not to depend on the GPU. */
#define POINTWISE_PARTS 256

/* *sum += partial[0] + partial[1] + ..., in an order that depends on their number alone. */
enum status add_parts_launch(int parts, const double *partial, double *sum, struct stream *stream);

/* Bytes of scratch for either of the two. */
size_t pointwise_bytes(void);

/* As regression() of loss_ops.h; partial is pointwise_bytes() of the device's memory. */
enum status regression_launch(const struct regression *loss, int64_t rows, int targets, const float *pred,
                              const float *target, const float *weight, int64_t rows_global, float *grad,
                              double *partial, double *sum, struct stream *stream);

/* As count_nonfinite() of loss_ops.h. */
enum status count_nonfinite_launch(enum dtype dtype, int64_t count, const void *x, double *partial, double *found,
                                   struct stream *stream);

#ifdef __cplusplus
}
#endif

#endif
