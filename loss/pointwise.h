/* Kernels of the pointwise losses on a GPU, as C sees them. */
#ifndef CONR_LOSS_POINTWISE_H
#define CONR_LOSS_POINTWISE_H

#ifdef __cplusplus
extern "C" {
#endif

#include "dist/device.h"
#include "loss/evidential.h"
#include "loss/regression.h"
#include "loss/uvote.h"

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

/* Bytes of scratch for any of them that has `partial`. */
size_t pointwise_bytes(void);

/* As regression() of loss_ops.h; partial is pointwise_bytes() of the device's memory. */
enum status regression_launch(const struct regression *loss, int64_t rows, int targets, const float *pred,
                              const float *target, const float *weight, int64_t rows_global, float *grad,
                              double *partial, double *sum, struct stream *stream);

/* As uvote(), uvote_answer(), evidential(), evidential_answer() of loss_ops.h; likewise. */
enum status uvote_launch(const struct uvote *uvote, int64_t rows, int targets, const float *output, const float *target,
                         const float *weight, const double *coefficient, int64_t rows_global, float *grad,
                         double *partial, double *sum, struct stream *stream);
enum status uvote_answer_launch(const struct uvote *uvote, enum uvote_vote vote, int64_t rows, int targets,
                                const float *output, const float *target, float *pred, float *log_scale,
                                struct stream *stream);
enum status evidential_launch(const struct evidential *evidential, int64_t rows, int targets, const float *output,
                              const float *target, const float *weight, int64_t rows_global, float *grad,
                              double *partial, double *sum, struct stream *stream);
enum status evidential_answer_launch(const struct evidential *evidential, int64_t rows, int targets,
                                     const float *output, float *pred, float *variance, struct stream *stream);

/* As count_nonfinite() of loss_ops.h. */
enum status count_nonfinite_launch(enum dtype dtype, int64_t count, const void *x, double *partial, double *found,
                                   struct stream *stream);

#ifdef __cplusplus
}
#endif

#endif
