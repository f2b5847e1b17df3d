/* Launchers of the CUDA backend's kernels: for the files that fill its tables (ops_cuda.c and its kin).
 *
 * Each queues its work on `stream`, asks CUDA about the launch, and returns.  What they compute, and what may be the
 * same pointer, is written at the entry of struct ops (ops.h) of the same name; dtype is that of values, F32 or BF16.
 * Parameters, their gradients and the states of optimisers are float.  Counts may be 0. */
#ifndef CONR_MODEL_KERNELS_H
#define CONR_MODEL_KERNELS_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "model/ops.h"

/* --- kernels_elementwise.cu --------------------------------------------------------------------------------- */

enum status activation_forward_launch(struct stream *stream, enum dtype dtype, enum activation activation, size_t count,
                                      const void *x, void *y);
enum status activation_backward_launch(struct stream *stream, enum dtype dtype, enum activation activation,
                                       size_t count, const void *x, const void *y, const void *grad_y, void *grad_x);
enum status scale_launch(struct stream *stream, enum dtype dtype, size_t count, double a, void *x);
enum status add_launch(struct stream *stream, enum dtype dtype, size_t count, double a, const void *x, void *y);
/* y [rows, columns] += bias [columns], float. */
enum status bias_launch(struct stream *stream, enum dtype dtype, int64_t rows, int64_t columns, const float *bias,
                        void *y);
/* As ops.h says; scale and shift are float. */
enum status move_rows_launch(struct stream *stream, enum dtype dtype, int64_t rows, int64_t width,
                             const int32_t *bucket, const float *scale, const float *shift, const void *x, void *y);

/* --- kernels_dropout.cu ------------------------------------------------------------------------------------- */

enum status dropout_mask_launch(struct stream *stream, int64_t rows, int64_t width, double share,
                                const struct unit_draw *draw, uint8_t *mask);
enum status dropout_apply_launch(struct stream *stream, enum dtype dtype, size_t count, double share,
                                 const uint8_t *mask, const void *x, void *y);

/* --- kernels_distributions.cu -------------------------------------------------------------------------------- */

enum status join_forward_launch(struct stream *stream, enum dtype dtype, int64_t rows, int64_t width, double scale,
                                const void *a, const void *b, void *y);
enum status join_backward_launch(struct stream *stream, enum dtype dtype, int64_t rows, int64_t width, double scale,
                                 const void *grad_y, void *grad_a, void *grad_b);
enum status noise_launch(struct stream *stream, int64_t rows, int64_t width, const struct unit_draw *draw,
                         float *noise);
enum status sample_forward_launch(struct stream *stream, enum dtype dtype, int64_t rows, int64_t width, const void *x,
                                  const float *noise, void *z);
enum status sample_backward_launch(struct stream *stream, enum dtype dtype, int64_t rows, int64_t width, const void *x,
                                   const float *noise, const void *grad_z, void *grad_x);

/* --- kernels_cast.cu ---------------------------------------------------------------------------------------- */

/* y [count] bfloat16, rounded to the nearest, ties to even. */
enum status cast_launch(struct stream *stream, size_t count, const float *x, void *y);
/* Weights [out, in, area], float, as filters [out, area, in] of dtype, and the way back for gradients. */
enum status filters_launch(struct stream *stream, enum dtype dtype, int64_t out, int64_t in, int64_t area,
                           const float *weights, void *filters);
enum status filter_gradients_launch(struct stream *stream, enum dtype dtype, int64_t out, int64_t in, int64_t area,
                                    const void *filters, float *weights);

/* Ten times the compute capabilities that kernels were compiled for, ascending; the last also for those that come
 * after. */
const int *cuda_archs(int *count);

/* --- kernels_sums.cu: sums over rows, in two levels ---------------------------------------------------------- */

/* Doubles in the scratch memory `partials` of these and of the norm's sums. */
#define PARTIALS ((int64_t)1 << 21)

/* sums[c] = sum over rows of a [rows, columns], float; in double from one thread's few rows on. */
enum status column_sums_launch(struct stream *stream, enum dtype dtype, int64_t rows, int64_t columns, const void *a,
                               double *partials, float *sums);
/* sums[c] = sum over parts of partials [parts, columns]: the second level. */
enum status finish_sums_launch(struct stream *stream, int parts, int64_t columns, const double *partials, float *sums);
/* *result = sum of x[i]^2 */
enum status sum_squares_launch(struct stream *stream, size_t count, const float *x, double *partials, double *result);

/* grad = factor (x - y), *sum += sum of (x[i] - y[i])^2; sum may be NULL */
enum status squared_error_launch(struct stream *stream, enum dtype dtype, size_t count, double factor, const void *x,
                                 const void *y, void *grad, double *partials, double *sum);

/* --- kernels_linear.cu: products with few outputs, and those that cuBLASLt does not take ---------------------- */

/* Up to this many outputs they move x once and no more could be had; more are made so many at a time. */
enum { FEW_OUTPUTS = 4 };

/* dtype_y is that of y and grad_y.  Weights are float and are not rounded first. */
enum status linear_forward_launch(struct stream *stream, enum dtype dtype, enum dtype dtype_y, int64_t rows, int64_t in,
                                  int64_t out, const void *x, const float *weight, const float *bias, void *y);
enum status linear_backward_data_launch(struct stream *stream, enum dtype dtype, enum dtype dtype_y, int64_t rows,
                                        int64_t in, int64_t out, const void *grad_y, const float *weight, void *grad_x);
enum status linear_backward_weights_launch(struct stream *stream, enum dtype dtype, enum dtype dtype_y, int64_t rows,
                                           int64_t in, int64_t out, const void *x, const void *grad_y, double *partials,
                                           float *grad_weight);

/* --- kernels_norm.cu ---------------------------------------------------------------------------------------- */

enum status norm_statistics_launch(struct stream *stream, enum dtype dtype, int64_t count, int64_t channels,
                                   const void *x, double *partials, double *mean, double *square);
enum status norm_forward_launch(struct stream *stream, enum dtype dtype, int64_t count, int64_t channels, const void *x,
                                const double *mean, const double *inverse, const float *gamma, const float *beta,
                                const void *residual, bool relu, void *y);
enum status norm_backward_sums_launch(struct stream *stream, enum dtype dtype, int64_t count, int64_t channels,
                                      const void *grad, const void *more, const void *x, const void *y,
                                      const double *mean, const double *inverse, void *masked, double *partials,
                                      double *sums);
enum status norm_backward_data_launch(struct stream *stream, enum dtype dtype, int64_t count, int64_t channels,
                                      const void *g, const void *x, const double *mean, const double *inverse,
                                      const float *gamma, const double *mean_g, const double *mean_gx, void *grad_x);
enum status norm_channels_launch(struct stream *stream, enum norm_stage stage, const struct norm_channels *channels);

/* --- kernels_pool.cu ---------------------------------------------------------------------------------------- */

enum status max_pool_forward_launch(struct stream *stream, enum dtype dtype, const struct pool_shape *shape,
                                    int64_t rows, const void *x, void *y, uint8_t *chosen);
enum status max_pool_backward_launch(struct stream *stream, enum dtype dtype, const struct pool_shape *shape,
                                     int64_t rows, const void *grad_y, const uint8_t *chosen, void *grad_x);
enum status average_pool_forward_launch(struct stream *stream, enum dtype dtype, const struct pool_shape *shape,
                                        int64_t rows, const void *x, void *y);
enum status average_pool_backward_launch(struct stream *stream, enum dtype dtype, const struct pool_shape *shape,
                                         int64_t rows, const void *grad_y, void *grad_x);
/* mean, std: host */
enum status pixels_launch(struct stream *stream, enum dtype dtype, size_t count, int64_t channels, const uint8_t *x,
                          const double *mean, const double *std, void *y);

/* --- kernels_optim.cu --------------------------------------------------------------------------------------- */

enum status clip_factor_launch(struct stream *stream, double clip_norm, const double *squares, double *factor);
enum status adam_launch(struct stream *stream, size_t count, const struct adam_step *step, const double *gradient_scale,
                        float *parameters, const float *gradients, float *moment1, float *moment2);
enum status sgd_launch(struct stream *stream, size_t count, const struct sgd_step *step, const double *gradient_scale,
                       float *parameters, const float *gradients, float *velocity);

#ifdef __cplusplus
}
#endif

#endif
