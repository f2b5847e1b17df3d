/* The whole arithmetic interface: one table of functions per backend and element type.
 *
 *     const struct ops *ops;
 *     TRY(ops_open(device, PRECISION_F32, &ops));
 *     TRY(ops->linear_forward(rows, &shape, x, weight, bias, y));
 *     TRY(ops->activation_forward(ACTIVATION_RELU, rows * out, y, y));
 *
 * Callers never ask which backend they are on.  Rules for every entry:
 *
 *   Pointers     dense, row-major buffers in the memory of ops->device.  Work is queued on its main stream; on the host an
 *                entry is done when it returns.
 *   Types        values (x, y and their gradients) are of ops->dtype; parameters (weights, biases, gamma, beta), their
 *                gradients and the states of optimisers of ops->parameter_dtype.  The two differ where values have 16
 *                bits.  What is double is double everywhere.
 *   Sizes        rows and count may be 0 (what is documented as overwritten still is); in, out and width are >= 1.
 *   Aliasing     arguments must not overlap, except where "may be" says that two may be the same pointer.
 *   Errors       ERR_BUG for what the backend does not know, ERR_MEMORY where it needs memory of its own, ERR_DEVICE where
 *                a device fails; sizes and values are the caller's to check.
 *   NaN          goes through (relu(NaN) is NaN): a fault upstream stays visible.
 *   Determinism  Exact    = same bits for any number of threads.
 *                Repeated = same bits when shapes and the number of threads are the same.
 *
 * All entries are local, do not make the host wait, and may be called from one thread at a time.  They allocate
 * nothing, but for convolutions and products of matrices: when they meet a shape for the first time, and after many
 * others. */
#ifndef CONR_MODEL_OPS_H
#define CONR_MODEL_OPS_H

#include "dist/device.h"
#include "dist/dtype.h"
#include "dist/random.h"
#include "dist/status.h"
#include "model/norm_channel.h"
#include "model/spatial.h"

#include <stddef.h>
#include <stdint.h>

enum activation { ACTIVATION_RELU, ACTIVATION_TANH, ACTIVATION_GELU, ACTIVATION_SOFTPLUS };

#define SOFTPLUS_LINEAR 20 /* above it softplus is its argument */

/* Whose draws these are.  That of an element depends on (seed, epoch, sample, view, layer, unit) and on nothing else:
 * not on its row, on the rank that holds it, or on the rows beside it.
 * Rows are stacked by view: row r is view first_view + r / samples_count of sample samples[r % samples_count]. */
struct unit_draw {
  uint64_t seed;
  const int64_t *epoch;   /* < 2^40; borrowed, in the memory of ops->device */
  int layer;              /* which of its kind in the network, < 2^16     */
  const int64_t *samples; /* [samples_count] ids, borrowed, in the memory of ops->device */
  int64_t samples_count;  /* divides the number of rows; at most 2^8 views */
  int first_view;         /* of the rows; 0 <= first_view + views <= 2^8  */
};

/* One update by Adam (its decay joins the gradient) or AdamW (its decay shrinks the parameter first). */
struct adam_step {
  double step_size;       /* lr / (1 - beta1^t)                           */
  double root_correction; /* sqrt(1 - beta2^t)                            */
  double beta1, beta2, epsilon;
  double coupled_decay; /* Adam:  g += coupled_decay * p                */
  double keep;          /* AdamW: p *= keep, before the update; Adam: 1 */
};

/* One update by SGD. */
struct sgd_step {
  double lr;
  double momentum; /* of the velocity, which is 0 before the first step */
  double coupled_decay;
};

/* A linear layer.  `wide`: y and grad_y are of the parameters' type, as those of a network's last layer are. */
struct linear_shape {
  int64_t in, out;
  bool wide;
};

/* How numbers are kept and multiplied.
 *   F64, F32  as the names say.  F64 is the host's alone.
 *   TF32      float32; products of matrices and convolutions on a GPU's tensor cores, which read 10 bits of mantissa
 *   BF16      values of 16 bits, parameters and sums in float32; a GPU's alone */
enum precision { PRECISION_F64, PRECISION_F32, PRECISION_TF32, PRECISION_BF16 };

struct ops {
  const char *backend;
  struct device *device; /* NULL = the host */
  enum precision precision;
  enum dtype dtype, parameter_dtype;

  /* Linear layer, y = x W^T + b.  x [rows, in], weight [out, in], bias [out] or NULL = no bias, y [rows, out].
   * f64: Exact, and a row's result does not depend on the other rows.  f32 on the cpu (oneDNN), and all on a GPU:
   * Repeated; rounding may depend on the number of rows. */
  enum status (*linear_forward)(int64_t rows, const struct linear_shape *shape, const void *x, const void *weight,
                                const void *bias, void *y);
  /* grad_x = grad_y W, overwritten.  Determinism as linear_forward. */
  enum status (*linear_backward_data)(int64_t rows, const struct linear_shape *shape, const void *grad_y,
                                      const void *weight, void *grad_x);
  /* grad_weight = grad_y^T x and grad_bias = column sums of grad_y, overwritten (zeros when rows is 0); grad_bias
   * NULL = no bias.  grad_weight as linear_forward; grad_bias is Exact: rows in order, in double (on a GPU in parts,
   * the cut depends on the shape alone). */
  enum status (*linear_backward_weights)(int64_t rows, const struct linear_shape *shape, const void *x,
                                         const void *grad_y, void *grad_weight, void *grad_bias);

  /* y = f(x); y may be x.  Exact.  gelu is the exact one, x Phi(x) with the error function; softplus is log(1 + exp(x))
   * + 1e-6, and x + 1e-6 above 20: what a variance may be, as published for VIR. */
  enum status (*activation_forward)(enum activation activation, size_t count, const void *x, void *y);
  /* grad_x = grad_y f'(x); grad_x may be grad_y.  x alone is read for gelu and softplus, y alone for the others (x may
   * have been overwritten by y).  relu'(0) = 0.  Exact. */
  enum status (*activation_backward)(enum activation activation, size_t count, const void *x, const void *y,
                                     const void *grad_y, void *grad_x);

  /* mask [rows, width]: 1 keeps the element, 0 drops it, with probability share (0 <= share < 1) by `draw`.
   * Exact, and the same bits for every dtype and backend (integer arithmetic only). */
  enum status (*dropout_mask)(int64_t rows, int64_t width, double share, const struct unit_draw *draw, uint8_t *mask);
  /* y = x / (1 - share) where the mask is 1, 0 elsewhere; forward and backward alike; y may be x.  Exact. */
  enum status (*dropout_apply)(size_t count, double share, const uint8_t *mask, const void *x, void *y);

  /* Two values side by side: a row of y is that of a, then scale times that of b.  a, b [rows, width], y [rows, 2
   * width].  Backward: grad_a, grad_b are the parts of grad_y, the second times scale; either may be NULL.  Exact. */
  enum status (*join_forward)(int64_t rows, int64_t width, double scale, const void *a, const void *b, void *y);
  enum status (*join_backward)(int64_t rows, int64_t width, double scale, const void *grad_y, void *grad_a,
                               void *grad_b);

  /* Standard normal numbers [rows, width] by `draw`, of the parameters' type: Box and Muller's in double, then rounded;
   * on all backends alike but for the last bits of double.  Exact. */
  enum status (*noise)(int64_t rows, int64_t width, const struct unit_draw *draw, void *noise);
  /* Draws from distributions: z = mu + sqrt(var) noise, where a row of x [rows, 2 width] is means mu, then variances
   * var; noise [rows, width] of the parameters' type, z [rows, width].  noise NULL: z = mu.  A variance below 0 makes
   * NaN.  Exact. */
  enum status (*sample_forward)(int64_t rows, int64_t width, const void *x, const void *noise, void *z);
  /* grad_mu = grad_z, grad_var = grad_z noise / (2 sqrt(var)), in grad_x [rows, 2 width]; noise NULL: grad_var = 0, and
   * x is not read.  At a variance of 0 grad_var is infinite, or NaN where the noise is 0.  Exact. */
  enum status (*sample_backward)(int64_t rows, int64_t width, const void *x, const void *noise, const void *grad_z,
                                 void *grad_x);

  /* Convolution, channels-last (spatial.h); x [rows, height, width, in], y [rows, out height, out width, out], weight
   * [out, in, kernel, kernel], bias [out] or NULL when the shape has none.  Create takes what the backend keeps for one
   * layer; destroy accepts NULL.  The others take primitives for each new number of rows once, and scratch memory from
   * the workspace, which is of ops->device.  f64: Exact.  Others: Repeated.  Gradients are overwritten; zeros for
   * weights when rows is 0. */
  enum status (*conv_create)(const struct conv_shape *shape, struct conv **out);
  void (*conv_destroy)(struct conv **conv);
  enum status (*conv_forward)(struct conv *conv, struct workspace *workspace, int64_t rows, const void *x,
                              const void *weight, const void *bias, void *y);
  enum status (*conv_backward_data)(struct conv *conv, struct workspace *workspace, int64_t rows, const void *grad_y,
                                    const void *weight, void *grad_x);
  enum status (*conv_backward_weights)(struct conv *conv, struct workspace *workspace, int64_t rows, const void *x,
                                       const void *grad_y, void *grad_weight, void *grad_bias);

  /* Batch normalisation in parts, so that statistics may be merged over ranks between them.  count values per channel
   * (rows x height x width; may be 0), x [count, channels].  All Exact (on a GPU: Repeated).
   *
   * mean[c] = mean of x, square[c] = sum of (x - mean)^2, both in double and without cancellation; 0 when count is
   * 0. */
  enum status (*norm_statistics)(size_t count, int64_t channels, const void *x, double *mean, double *square);
  /* y = (x - mean) inverse gamma + beta (+ residual) (then relu).  mean, inverse [channels] double, inverse = 1 /
   * sqrt(variance + epsilon); gamma, beta [channels]; residual [count, channels] or NULL; y may be x or residual. */
  enum status (*norm_forward)(size_t count, int64_t channels, const void *x, const double *mean, const double *inverse,
                              const void *gamma, const void *beta, const void *residual, bool relu, void *y);
  /* First half of the way back.  g = grad (+ more), and 0 where y <= 0 when y is given (relu);
   * sums[c] = sum of g, sums[channels + c] = sum of g (x - mean) inverse, in double.
   * grad, more [count, channels], more may be NULL; y NULL = no relu; masked receives g and may be grad or more;
   * masked may be NULL when there is neither more nor y. */
  enum status (*norm_backward_sums)(size_t count, int64_t channels, const void *grad, const void *more, const void *x,
                                    const void *y, const double *mean, const double *inverse, void *masked,
                                    double *sums);
  /* Second half: grad_x = gamma inverse (g - mean_g - (x - mean) inverse mean_gx), grad_x may be x or g.
   * mean_g, mean_gx [channels]: the sums over all rows that shared the statistics, divided by their count; both NULL =
   * statistics that do not depend on x (evaluation). */
  enum status (*norm_backward_data)(size_t count, int64_t channels, const void *g, const void *x, const double *mean,
                                    const double *inverse, const void *gamma, const double *mean_g,
                                    const double *mean_gx, void *grad_x);
  /* One stage of what is done for each channel between those passes: norm_channel.h. */
  enum status (*norm_channels)(enum norm_stage stage, const struct norm_channels *channels);

  /* Pooling.  x [rows, height, width, channels], y [rows, out height, out width, channels], kernel area at most 256.
   * chosen, of y's shape: which element of the window (row-major) was the largest, the first of equals; a NaN counts as
   * larger than numbers.  Padding never wins.  The gradient goes to the chosen one.  Averages divide by the kernel's
   * area and take no padding.  Exact. */
  enum status (*max_pool_forward)(const struct pool_shape *shape, int64_t rows, const void *x, void *y,
                                  uint8_t *chosen);
  enum status (*max_pool_backward)(const struct pool_shape *shape, int64_t rows, const void *grad_y,
                                   const uint8_t *chosen, void *grad_x);
  enum status (*average_pool_forward)(const struct pool_shape *shape, int64_t rows, const void *x, void *y);
  enum status (*average_pool_backward)(const struct pool_shape *shape, int64_t rows, const void *grad_y, void *grad_x);

  /* y = (x / 255 - mean[c]) / std[c]: 8-bit pixels [count, channels] to numbers.  mean, std [channels] lie in host
   * memory and are read before the call returns.  Exact. */
  enum status (*pixels)(size_t count, int64_t channels, const uint8_t *x, const double *mean, const double *std,
                        void *y);

  /* Rows of a table move the rows of x: y = x * scale[b] + shift[b] where b = bucket[row] >= 0, y = x elsewhere.
   * x, y [rows, width], y may be x; bucket [rows]; scale, shift [buckets, width], of the parameters' type; shift NULL =
   * zeros.  Exact. */
  enum status (*move_rows)(int64_t rows, int64_t width, const int32_t *bucket, const void *scale, const void *shift,
                           const void *x, void *y);

  /* Of values:  x = 0;   y = x;   x *= a;   y += a x.  Exact. */
  enum status (*zero)(size_t count, void *x);
  enum status (*copy)(size_t count, const void *x, void *y);
  enum status (*scale)(size_t count, double a, void *x);
  enum status (*add)(size_t count, double a, const void *x, void *y);

  /* Of values:  grad = factor (x - y), which may be x, and *sum += the sum of (x - y)^2, in double, in an order that
   * depends on count alone; sum in the backend's memory, NULL = not wanted.  Exact. */
  enum status (*squared_error)(size_t count, double factor, const void *x, const void *y, void *grad, double *sum);

  /* Of parameters:  y += x.  Exact. */
  enum status (*accumulate)(size_t count, const void *x, void *y);

  /* *result = sum of x[i]^2 of parameters, in double, in an order that depends on count alone.  result in the backend's
   * memory.  Exact. */
  enum status (*sum_squares)(size_t count, const void *x, double *result);

  /* *factor = min(1, clip_norm / (sqrt(*squares) + 1e-6)), NaN when *squares is: what a gradient is clipped by.  Both
   * in the backend's memory.  Exact. */
  enum status (*clip_factor)(double clip_norm, const double *squares, double *factor);

  /* Updates.  *step lies in the backend's memory, so that it can change between launches of the same graph; so does
   * *gradient_scale, the clipping factor; NULL = 1.
   *
   * p = p * keep;  g = gradient_scale * gradient + coupled_decay * p;
   * m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
   * p -= step_size * m / (sqrt(v) / root_correction + epsilon).
   * parameters, moment1, moment2 [count], in place; gradients [count], read only.  Exact. */
  enum status (*adam)(size_t count, const struct adam_step *step, const double *gradient_scale, void *parameters,
                      const void *gradients, void *moment1, void *moment2);
  /* g = gradient_scale * gradient + coupled_decay * p;  velocity = momentum * velocity + g;  p -= lr * velocity.
   * velocity NULL = plain SGD, whatever the momentum.  Exact. */
  enum status (*sgd)(size_t count, const struct sgd_step *step, const double *gradient_scale, void *parameters,
                     const void *gradients, void *velocity);
};

/* f64 | f32 | tf32 | bf16.  ERR_ARGUMENT lists the names. */
enum status precision_parse(const char *name, enum precision *out);
const char *precision_name(enum precision precision);

/* The table for a device (NULL = the host), which lives as long as the device does.  ERR_ARGUMENT for a precision that
 * the device does not have; ERR_DEVICE. */
enum status ops_open(struct device *device, enum precision precision, const struct ops **out);

/* The host's table of an element type (F32, F64); never freed. */
const struct ops *ops_host(enum dtype dtype);

/* The name by which a backend's library gives its function of the form of ops_open(). */
#define OPS_OPEN_SYMBOL "conr_cuda_ops_open"
typedef enum status ops_open_function(struct device *device, enum precision precision, const struct ops **out);

/* relu | tanh | gelu | softplus.  ERR_ARGUMENT lists the names. */
enum status activation_parse(const char *name, enum activation *out);
const char *activation_name(enum activation activation);

#endif
