/* The CUDA backend's table for one precision: included by ops_f32_cuda.c and its kin, which define
 *
 *     PRECISION   of enum precision
 *     TABLE       the name of the table
 *
 * Entries know the precision and find the rest in ops_cuda_context(). */
#include "model/kernels.h"
#include "model/ops_cuda.h"

#define DTYPE precision_dtype(PRECISION)

static struct stream *stream(void) {
  return ops_cuda_context()->stream;
}

/* --- linear -------------------------------------------------------------------------------------------------- */

static enum status linear_forward(int64_t rows, const struct linear_shape *shape, const void *x, const void *weight,
                                  const void *bias, void *y) {
  return linear_cuda_forward(ops_cuda_context(), PRECISION, rows, shape, x, weight, bias, y);
}

static enum status linear_backward_data(int64_t rows, const struct linear_shape *shape, const void *grad_y,
                                        const void *weight, void *grad_x) {
  return linear_cuda_backward_data(ops_cuda_context(), PRECISION, rows, shape, grad_y, weight, grad_x);
}

static enum status linear_backward_weights(int64_t rows, const struct linear_shape *shape, const void *x,
                                           const void *grad_y, void *grad_weight, void *grad_bias) {
  return linear_cuda_backward_weights(ops_cuda_context(), PRECISION, rows, shape, x, grad_y, grad_weight, grad_bias);
}

/* --- activations, dropout ------------------------------------------------------------------------------------ */

static enum status activation_forward(enum activation activation, size_t count, const void *x, void *y) {
  return activation_forward_launch(stream(), DTYPE, activation, count, x, y);
}

static enum status activation_backward(enum activation activation, size_t count, const void *x, const void *y,
                                       const void *grad_y, void *grad_x) {
  return activation_backward_launch(stream(), DTYPE, activation, count, x, y, grad_y, grad_x);
}

static enum status dropout_mask(int64_t rows, int64_t width, double share, const struct unit_draw *draw,
                                uint8_t *mask) {
  return dropout_mask_launch(stream(), rows, width, share, draw, mask);
}

static enum status dropout_apply(size_t count, double share, const uint8_t *mask, const void *x, void *y) {
  return dropout_apply_launch(stream(), DTYPE, count, share, mask, x, y);
}

/* --- distributions ------------------------------------------------------------------------------------------- */

static enum status join_forward(int64_t rows, int64_t width, double scale, const void *a, const void *b, void *y) {
  return join_forward_launch(stream(), DTYPE, rows, width, scale, a, b, y);
}

static enum status join_backward(int64_t rows, int64_t width, double scale, const void *grad_y, void *grad_a,
                                 void *grad_b) {
  return join_backward_launch(stream(), DTYPE, rows, width, scale, grad_y, grad_a, grad_b);
}

static enum status noise(int64_t rows, int64_t width, const struct unit_draw *draw, void *noise_out) {
  return noise_launch(stream(), rows, width, draw, noise_out);
}

static enum status sample_forward(int64_t rows, int64_t width, const void *x, const void *drawn, void *z) {
  return sample_forward_launch(stream(), DTYPE, rows, width, x, drawn, z);
}

static enum status sample_backward(int64_t rows, int64_t width, const void *x, const void *drawn, const void *grad_z,
                                   void *grad_x) {
  return sample_backward_launch(stream(), DTYPE, rows, width, x, drawn, grad_z, grad_x);
}

/* --- height and width ---------------------------------------------------------------------------------------- */

static enum status conv_create(const struct conv_shape *shape, struct conv **out) {
  return conv_cuda_create(ops_cuda_context(), PRECISION, shape, out);
}

static enum status norm_statistics(size_t count, int64_t channels, const void *x, double *mean, double *square) {
  return norm_statistics_launch(stream(), DTYPE, (int64_t)count, channels, x, ops_cuda_context()->partials, mean,
                                square);
}

static enum status norm_forward(size_t count, int64_t channels, const void *x, const double *mean,
                                const double *inverse, const void *gamma, const void *beta, const void *residual,
                                bool relu, void *y) {
  return norm_forward_launch(stream(), DTYPE, (int64_t)count, channels, x, mean, inverse, gamma, beta, residual, relu,
                             y);
}

static enum status norm_backward_sums(size_t count, int64_t channels, const void *grad, const void *more, const void *x,
                                      const void *y, const double *mean, const double *inverse, void *masked,
                                      double *sums) {
  return norm_backward_sums_launch(stream(), DTYPE, (int64_t)count, channels, grad, more, x, y, mean, inverse, masked,
                                   ops_cuda_context()->partials, sums);
}

static enum status norm_backward_data(size_t count, int64_t channels, const void *g, const void *x, const double *mean,
                                      const double *inverse, const void *gamma, const double *mean_g,
                                      const double *mean_gx, void *grad_x) {
  return norm_backward_data_launch(stream(), DTYPE, (int64_t)count, channels, g, x, mean, inverse, gamma, mean_g,
                                   mean_gx, grad_x);
}

static enum status norm_channels(enum norm_stage stage, const struct norm_channels *channels) {
  return norm_channels_launch(stream(), stage, channels);
}

static enum status max_pool_forward(const struct pool_shape *shape, int64_t rows, const void *x, void *y,
                                    uint8_t *chosen) {
  return max_pool_forward_launch(stream(), DTYPE, shape, rows, x, y, chosen);
}

static enum status max_pool_backward(const struct pool_shape *shape, int64_t rows, const void *grad_y,
                                     const uint8_t *chosen, void *grad_x) {
  return max_pool_backward_launch(stream(), DTYPE, shape, rows, grad_y, chosen, grad_x);
}

static enum status average_pool_forward(const struct pool_shape *shape, int64_t rows, const void *x, void *y) {
  return average_pool_forward_launch(stream(), DTYPE, shape, rows, x, y);
}

static enum status average_pool_backward(const struct pool_shape *shape, int64_t rows, const void *grad_y,
                                         void *grad_x) {
  return average_pool_backward_launch(stream(), DTYPE, shape, rows, grad_y, grad_x);
}

static enum status pixels(size_t count, int64_t channels, const uint8_t *x, const double *mean, const double *std,
                          void *y) {
  return pixels_launch(stream(), DTYPE, count, channels, x, mean, std, y);
}

/* --- vectors ------------------------------------------------------------------------------------------------- */

static enum status move_rows(int64_t rows, int64_t width, const int32_t *bucket, const void *scale, const void *shift,
                             const void *x, void *y) {
  return move_rows_launch(stream(), DTYPE, rows, width, bucket, scale, shift, x, y);
}

static enum status zero(size_t count, void *x) {
  return stream_zero(stream(), x, count * dtype_size(DTYPE));
}

static enum status copy(size_t count, const void *x, void *y) {
  return stream_copy(stream(), y, x, count * dtype_size(DTYPE));
}

static enum status scale(size_t count, double a, void *x) {
  return scale_launch(stream(), DTYPE, count, a, x);
}

static enum status add(size_t count, double a, const void *x, void *y) {
  return add_launch(stream(), DTYPE, count, a, x, y);
}

static enum status squared_error(size_t count, double factor, const void *x, const void *y, void *grad, double *sum) {
  return squared_error_launch(stream(), DTYPE, count, factor, x, y, grad, ops_cuda_context()->partials, sum);
}

/* Parameters are float in every precision. */
static enum status accumulate(size_t count, const void *x, void *y) {
  return add_launch(stream(), F32, count, 1, x, y);
}

static enum status sum_squares(size_t count, const void *x, double *result) {
  return sum_squares_launch(stream(), count, x, ops_cuda_context()->partials, result);
}

static enum status clip_factor(double clip_norm, const double *squares, double *factor) {
  return clip_factor_launch(stream(), clip_norm, squares, factor);
}

static enum status adam(size_t count, const struct adam_step *step, const double *gradient_scale, void *parameters,
                        const void *gradients, void *moment1, void *moment2) {
  return adam_launch(stream(), count, step, gradient_scale, parameters, gradients, moment1, moment2);
}

static enum status sgd(size_t count, const struct sgd_step *step, const double *gradient_scale, void *parameters,
                       const void *gradients, void *velocity) {
  return sgd_launch(stream(), count, step, gradient_scale, parameters, gradients, velocity);
}

const struct ops TABLE = {
    .backend = "cuda",
    .dtype = PRECISION == PRECISION_BF16 ? BF16 : F32,
    .parameter_dtype = F32,
    .precision = PRECISION,
    .linear_forward = linear_forward,
    .linear_backward_data = linear_backward_data,
    .linear_backward_weights = linear_backward_weights,
    .activation_forward = activation_forward,
    .activation_backward = activation_backward,
    .dropout_mask = dropout_mask,
    .dropout_apply = dropout_apply,
    .join_forward = join_forward,
    .join_backward = join_backward,
    .noise = noise,
    .sample_forward = sample_forward,
    .sample_backward = sample_backward,
    .conv_create = conv_create,
    .conv_destroy = conv_cuda_destroy,
    .conv_forward = conv_cuda_forward,
    .conv_backward_data = conv_cuda_backward_data,
    .conv_backward_weights = conv_cuda_backward_weights,
    .norm_statistics = norm_statistics,
    .norm_forward = norm_forward,
    .norm_backward_sums = norm_backward_sums,
    .norm_backward_data = norm_backward_data,
    .norm_channels = norm_channels,
    .max_pool_forward = max_pool_forward,
    .max_pool_backward = max_pool_backward,
    .average_pool_forward = average_pool_forward,
    .average_pool_backward = average_pool_backward,
    .pixels = pixels,
    .move_rows = move_rows,
    .zero = zero,
    .copy = copy,
    .scale = scale,
    .add = add,
    .squared_error = squared_error,
    .accumulate = accumulate,
    .sum_squares = sum_squares,
    .clip_factor = clip_factor,
    .adam = adam,
    .sgd = sgd,
};
