/* The CPU backend for one element type: included by ops_cpu_f32.c and ops_cpu_f64.c, which define
 *
 *     REAL                          float or double
 *     DTYPE                         the same as an enum dtype
 *     OPS                           the name of the table
 *     CONV(name)                    the type's function of conv_cpu.h
 *     INDEX                         an integer as wide as REAL
 *     EXP, ERF, ERFC, TANH, LOG1P, SQRT  the C library's functions of that type
 *
 * A kernel takes one block (at most BLOCK elements); the entry of the same name cuts the whole into blocks. */
#include "dist/random.h"
#include "model/conv_cpu.h"
#include "model/gemm.h"
#include "model/ops_cpu.h"

#include <math.h>
#include <string.h>

/* --- linear ------------------------------------------------------------------------------------------------- */

static enum status linear_forward(int64_t rows, const struct linear_shape *shape, const void *x, const void *weight,
                                  const void *bias, void *y) {
  int64_t in = shape->in, out = shape->out;
  if (rows == 0)
    return STATUS_OK;
  if (bias != NULL)
    for (int64_t row = 0; row < rows; row++)
      memcpy((REAL *)y + row * out, bias, (size_t)out * sizeof(REAL));
  return gemm(DTYPE, GEMM_PLAIN, GEMM_TRANSPOSED, rows, out, in, 1, x, in, weight, in, bias != NULL, y, out);
}

static enum status linear_backward_data(int64_t rows, const struct linear_shape *shape, const void *grad_y,
                                        const void *weight, void *grad_x) {
  int64_t in = shape->in, out = shape->out;
  if (rows == 0)
    return STATUS_OK;
  return gemm(DTYPE, GEMM_PLAIN, GEMM_PLAIN, rows, in, out, 1, grad_y, out, weight, in, 0, grad_x, in);
}

/* Columns summed at a time: the partial sums fill one page at most, and a row's piece is a few cache lines. */
enum { SUM_COLUMNS = 64 };

/* sum[c] = a[0][c] + a[1][c] + ..., rows in order; columns <= SUM_COLUMNS, rows are `stride` apart. */
VECTOR_KERNEL static void column_sum_kernel(int64_t rows, int64_t columns, int64_t stride, const REAL *a, REAL *sum) {
  double total[SUM_COLUMNS] = {0};
  for (int64_t row = 0; row < rows; row++) {
#pragma omp simd
    for (int64_t c = 0; c < columns; c++)
      total[c] += (double)a[row * stride + c];
  }
  for (int64_t c = 0; c < columns; c++)
    sum[c] = (REAL)total[c];
}

static void column_sums(int64_t rows, int64_t columns, const REAL *a, REAL *sums) {
  int64_t pieces = (columns + SUM_COLUMNS - 1) / SUM_COLUMNS;
#pragma omp parallel for schedule(static) if (rows * columns > BLOCK * BLOCKS_THREADED)
  for (int64_t piece = 0; piece < pieces; piece++) {
    int64_t first = piece * SUM_COLUMNS;
    int64_t width = columns - first < SUM_COLUMNS ? columns - first : SUM_COLUMNS;
    column_sum_kernel(rows, width, columns, a + first, sums + first);
  }
}

static enum status linear_backward_weights(int64_t rows, const struct linear_shape *shape, const void *x,
                                           const void *grad_y, void *grad_weight, void *grad_bias) {
  int64_t in = shape->in, out = shape->out;
  if (rows == 0) {
    memset(grad_weight, 0, (size_t)(in * out) * sizeof(REAL));
    if (grad_bias != NULL)
      memset(grad_bias, 0, (size_t)out * sizeof(REAL));
    return STATUS_OK;
  }
  if (grad_bias != NULL)
    column_sums(rows, out, grad_y, grad_bias);
  return gemm(DTYPE, GEMM_TRANSPOSED, GEMM_PLAIN, out, in, rows, 1, grad_y, out, x, in, 0, grad_weight, in);
}

/* --- activations -------------------------------------------------------------------------------------------- */

/* Written so that NaN is neither <= 0 nor replaced. */
VECTOR_KERNEL static void relu_forward_kernel(size_t n, const REAL *x, REAL *y) {
#pragma omp simd
  for (size_t i = 0; i < n; i++)
    y[i] = x[i] <= 0 ? 0 : x[i];
}

VECTOR_KERNEL static void relu_backward_kernel(size_t n, const REAL *y, const REAL *grad_y, REAL *grad_x) {
#pragma omp simd
  for (size_t i = 0; i < n; i++)
    grad_x[i] = y[i] <= 0 ? 0 : grad_y[i];
}

static void tanh_forward_kernel(size_t n, const REAL *x, REAL *y) {
  for (size_t i = 0; i < n; i++)
    y[i] = TANH(x[i]);
}

VECTOR_KERNEL static void tanh_backward_kernel(size_t n, const REAL *y, const REAL *grad_y, REAL *grad_x) {
#pragma omp simd
  for (size_t i = 0; i < n; i++)
    grad_x[i] = grad_y[i] * (1 - y[i] * y[i]);
}

/* Phi(x), the share of a standard normal below x.  erfc on the left keeps its digits where erf is near -1. */
static REAL normal_below(REAL x) {
  REAL z = x * (REAL)M_SQRT1_2;
  return x < 0 ? (REAL)0.5 * ERFC(-z) : (REAL)0.5 * (1 + ERF(z));
}

static void gelu_forward_kernel(size_t n, const REAL *x, REAL *y) {
  for (size_t i = 0; i < n; i++)
    y[i] = x[i] * normal_below(x[i]);
}

static void gelu_backward_kernel(size_t n, const REAL *x, const REAL *grad_y, REAL *grad_x) {
  const REAL density_at_0 = (REAL)(M_2_SQRTPI * M_SQRT1_2 / 2); /* 1 / sqrt(2 pi) */
  for (size_t i = 0; i < n; i++)
    grad_x[i] = grad_y[i] * (normal_below(x[i]) + x[i] * density_at_0 * EXP((REAL)-0.5 * x[i] * x[i]));
}

static const REAL least_variance = (REAL)1e-6;

static void softplus_forward_kernel(size_t n, const REAL *x, REAL *y) {
  for (size_t i = 0; i < n; i++)
    y[i] = (x[i] > SOFTPLUS_LINEAR ? x[i] : LOG1P(EXP(x[i]))) + least_variance;
}

static void softplus_backward_kernel(size_t n, const REAL *x, const REAL *grad_y, REAL *grad_x) {
  for (size_t i = 0; i < n; i++)
    grad_x[i] = x[i] > SOFTPLUS_LINEAR ? grad_y[i] : grad_y[i] / (1 + EXP(-x[i]));
}

static enum status activation_forward(enum activation activation, size_t count, const void *x_in, void *y_out) {
  const REAL *x = x_in;
  REAL *y = y_out;
  switch (activation) {
  case ACTIVATION_RELU:
    FOR_EACH_BLOCK(count, relu_forward_kernel(n, x + first, y + first));
    return STATUS_OK;
  case ACTIVATION_TANH:
    FOR_EACH_BLOCK(count, tanh_forward_kernel(n, x + first, y + first));
    return STATUS_OK;
  case ACTIVATION_GELU:
    FOR_EACH_BLOCK(count, gelu_forward_kernel(n, x + first, y + first));
    return STATUS_OK;
  case ACTIVATION_SOFTPLUS:
    FOR_EACH_BLOCK(count, softplus_forward_kernel(n, x + first, y + first));
    return STATUS_OK;
  }
  return fail(ERR_BUG, "activation %d is not in the cpu backend", (int)activation);
}

static enum status activation_backward(enum activation activation, size_t count, const void *x_in, const void *y_in,
                                       const void *grad_y_in, void *grad_x_out) {
  const REAL *x = x_in, *y = y_in, *grad_y = grad_y_in;
  REAL *grad_x = grad_x_out;
  switch (activation) {
  case ACTIVATION_RELU:
    FOR_EACH_BLOCK(count, relu_backward_kernel(n, y + first, grad_y + first, grad_x + first));
    return STATUS_OK;
  case ACTIVATION_TANH:
    FOR_EACH_BLOCK(count, tanh_backward_kernel(n, y + first, grad_y + first, grad_x + first));
    return STATUS_OK;
  case ACTIVATION_GELU:
    FOR_EACH_BLOCK(count, gelu_backward_kernel(n, x + first, grad_y + first, grad_x + first));
    return STATUS_OK;
  case ACTIVATION_SOFTPLUS:
    FOR_EACH_BLOCK(count, softplus_backward_kernel(n, x + first, grad_y + first, grad_x + first));
    return STATUS_OK;
  }
  return fail(ERR_BUG, "activation %d is not in the cpu backend", (int)activation);
}

/* --- dropout ------------------------------------------------------------------------------------------------ */

/* The stream of a row's draws, and the sample that is their first place in it. */
static struct random_key key_of_row(const struct unit_draw *draw, enum random_purpose purpose, int64_t row,
                                    uint64_t *sample) {
  uint64_t view = (uint64_t)draw->first_view + (uint64_t)(row / draw->samples_count);
  *sample = (uint64_t)draw->samples[row % draw->samples_count];
  return random_key(draw->seed, purpose, (uint64_t)*draw->epoch << 24 | view << 16 | (uint64_t)draw->layer);
}

/* One row: each draw of 128 bits decides four neighbouring units. */
static void dropout_mask_row(int64_t width, uint64_t threshold, struct random_key key, uint64_t sample, uint8_t *mask) {
  for (int64_t unit = 0; unit < width; unit += 4) {
    uint32_t bits[4];
    random_bits(key, sample, (uint64_t)unit / 4, bits);
    for (int64_t i = 0; i < 4 && unit + i < width; i++)
      mask[unit + i] = bits[i] >= threshold;
  }
}

static enum status dropout_mask(int64_t rows, int64_t width, double share, const struct unit_draw *draw,
                                uint8_t *mask) {
  uint64_t threshold = (uint64_t)(share * 0x1p32);
#pragma omp parallel for schedule(static) if (rows * width > BLOCK)
  for (int64_t row = 0; row < rows; row++) {
    uint64_t sample;
    struct random_key key = key_of_row(draw, RANDOM_DROPOUT, row, &sample);
    dropout_mask_row(width, threshold, key, sample, mask + row * width);
  }
  return STATUS_OK;
}

VECTOR_KERNEL static void dropout_kernel(size_t n, REAL factor, const uint8_t *mask, const REAL *x, REAL *y) {
#pragma omp simd
  for (size_t i = 0; i < n; i++)
    y[i] = mask[i] ? x[i] * factor : 0;
}

static enum status dropout_apply(size_t count, double share, const uint8_t *mask, const void *x_in, void *y_out) {
  const REAL *x = x_in;
  REAL *y = y_out, factor = (REAL)(1.0 / (1.0 - share));
  FOR_EACH_BLOCK(count, dropout_kernel(n, factor, mask + first, x + first, y + first));
  return STATUS_OK;
}

/* --- distributions ------------------------------------------------------------------------------------------ */

static enum status join_forward(int64_t rows, int64_t width, double scale, const void *a_in, const void *b_in,
                                void *y_out) {
#pragma omp parallel for schedule(static) if (rows * width > BLOCK * BLOCKS_THREADED)
  for (int64_t row = 0; row < rows; row++) {
    const REAL *b = (const REAL *)b_in + row * width;
    REAL *y = (REAL *)y_out + 2 * row * width, factor = (REAL)scale;
    memcpy(y, (const REAL *)a_in + row * width, (size_t)width * sizeof *y);
    for (int64_t i = 0; i < width; i++)
      y[width + i] = factor * b[i];
  }
  return STATUS_OK;
}

static enum status join_backward(int64_t rows, int64_t width, double scale, const void *grad_y, void *grad_a,
                                 void *grad_b) {
#pragma omp parallel for schedule(static) if (rows * width > BLOCK * BLOCKS_THREADED)
  for (int64_t row = 0; row < rows; row++) {
    const REAL *slope = (const REAL *)grad_y + 2 * row * width;
    REAL factor = (REAL)scale;
    if (grad_a != NULL)
      memcpy((REAL *)grad_a + row * width, slope, (size_t)width * sizeof *slope);
    for (int64_t i = 0; grad_b != NULL && i < width; i++)
      ((REAL *)grad_b)[row * width + i] = factor * slope[width + i];
  }
  return STATUS_OK;
}

static enum status noise(int64_t rows, int64_t width, const struct unit_draw *draw, void *noise_out) {
#pragma omp parallel for schedule(static) if (rows * width > BLOCK)
  for (int64_t row = 0; row < rows; row++) {
    uint64_t sample;
    struct random_key key = key_of_row(draw, RANDOM_ENCODING, row, &sample);
    for (int64_t unit = 0; unit < width; unit++)
      ((REAL *)noise_out)[row * width + unit] = (REAL)random_normal(key, sample, (uint64_t)unit);
  }
  return STATUS_OK;
}

VECTOR_KERNEL static void sample_row_kernel(int64_t width, const REAL *x, const REAL *drawn, REAL *z) {
#pragma omp simd
  for (int64_t i = 0; i < width; i++)
    z[i] = x[i] + SQRT(x[width + i]) * drawn[i];
}

static enum status sample_forward(int64_t rows, int64_t width, const void *x_in, const void *drawn, void *z_out) {
#pragma omp parallel for schedule(static) if (rows * width > BLOCK * BLOCKS_THREADED)
  for (int64_t row = 0; row < rows; row++) {
    const REAL *x = (const REAL *)x_in + 2 * row * width;
    REAL *z = (REAL *)z_out + row * width;
    if (drawn != NULL)
      sample_row_kernel(width, x, (const REAL *)drawn + row * width, z);
    else
      memcpy(z, x, (size_t)width * sizeof *z);
  }
  return STATUS_OK;
}

VECTOR_KERNEL static void sample_back_kernel(int64_t width, const REAL *x, const REAL *drawn, const REAL *slope,
                                             REAL *grad_x) {
#pragma omp simd
  for (int64_t i = 0; i < width; i++)
    grad_x[width + i] = slope[i] * drawn[i] / (2 * SQRT(x[width + i]));
}

static enum status sample_backward(int64_t rows, int64_t width, const void *x_in, const void *drawn, const void *grad_z,
                                   void *grad_x_out) {
#pragma omp parallel for schedule(static) if (rows * width > BLOCK * BLOCKS_THREADED)
  for (int64_t row = 0; row < rows; row++) {
    const REAL *x = (const REAL *)x_in + 2 * row * width, *slope = (const REAL *)grad_z + row * width;
    REAL *grad_x = (REAL *)grad_x_out + 2 * row * width;
    memcpy(grad_x, slope, (size_t)width * sizeof *slope);
    if (drawn != NULL)
      sample_back_kernel(width, x, (const REAL *)drawn + row * width, slope, grad_x);
    else
      memset(grad_x + width, 0, (size_t)width * sizeof *grad_x);
  }
  return STATUS_OK;
}

/* --- height and width --------------------------------------------------------------------------------------- */

#include "model/norm_cpu_real.h"
#include "model/pool_cpu_real.h"

/* --- rows by buckets ---------------------------------------------------------------------------------------- */

VECTOR_KERNEL static void move_row_kernel(int64_t width, const REAL *scale, const REAL *shift, const REAL *x, REAL *y) {
  if (shift != NULL) {
#pragma omp simd
    for (int64_t i = 0; i < width; i++)
      y[i] = x[i] * scale[i] + shift[i];
  } else {
#pragma omp simd
    for (int64_t i = 0; i < width; i++)
      y[i] = x[i] * scale[i];
  }
}

static enum status move_rows(int64_t rows, int64_t width, const int32_t *bucket, const void *scale, const void *shift,
                             const void *x_in, void *y_out) {
  const REAL *scales = scale, *shifts = shift;
#pragma omp parallel for schedule(static) if (rows * width > BLOCK * BLOCKS_THREADED)
  for (int64_t row = 0; row < rows; row++) {
    const REAL *x = (const REAL *)x_in + row * width;
    REAL *y = (REAL *)y_out + row * width;
    int64_t first = bucket[row] * width;
    if (bucket[row] >= 0)
      move_row_kernel(width, scales + first, shifts != NULL ? shifts + first : NULL, x, y);
    else if (y != x)
      memcpy(y, x, (size_t)width * sizeof *y);
  }
  return STATUS_OK;
}

/* --- vectors ------------------------------------------------------------------------------------------------ */

static enum status zero(size_t count, void *x_out) {
  REAL *x = x_out;
  FOR_EACH_BLOCK(count, memset(x + first, 0, n * sizeof *x));
  return STATUS_OK;
}

static enum status copy(size_t count, const void *x_in, void *y_out) {
  const REAL *x = x_in;
  REAL *y = y_out;
  FOR_EACH_BLOCK(count, memcpy(y + first, x + first, n * sizeof *x));
  return STATUS_OK;
}

VECTOR_KERNEL static void scale_kernel(size_t n, REAL a, REAL *x) {
#pragma omp simd
  for (size_t i = 0; i < n; i++)
    x[i] *= a;
}

static enum status scale(size_t count, double a, void *x_out) {
  REAL *x = x_out;
  FOR_EACH_BLOCK(count, scale_kernel(n, (REAL)a, x + first));
  return STATUS_OK;
}

VECTOR_KERNEL static void add_kernel(size_t n, REAL a, const REAL *x, REAL *y) {
#pragma omp simd
  for (size_t i = 0; i < n; i++)
    y[i] += a * x[i];
}

static enum status add(size_t count, double a, const void *x_in, void *y_out) {
  const REAL *x = x_in;
  REAL *y = y_out;
  FOR_EACH_BLOCK(count, add_kernel(n, (REAL)a, x + first, y + first));
  return STATUS_OK;
}

static enum status accumulate(size_t count, const void *x, void *y) {
  return add(count, 1, x, y);
}

/* Eight running sums (vector lanes), each over every eighth element; added in a fixed order. */
VECTOR_KERNEL static double sum_squares_kernel(size_t n, const REAL *x) {
  double lane[8] = {0};
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
#pragma omp simd
    for (int l = 0; l < 8; l++)
      lane[l] += (double)x[i + (size_t)l] * (double)x[i + (size_t)l];
  }
  for (; i < n; i++)
    lane[i % 8] += (double)x[i] * (double)x[i];
  return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
}

enum { SUM_RUNS = 64 }; /* pieces the threads share: a constant, so the order of summation is one too */

/* The sum over a run of blocks, in order. */
static double sum_squares_run(size_t count, const REAL *x) {
  double total = 0;
  for (size_t first = 0; first < count; first += BLOCK)
    total += sum_squares_kernel(count - first < BLOCK ? count - first : BLOCK, x + first);
  return total;
}

static enum status sum_squares(size_t count, const void *x_in, double *result) {
  const REAL *x = x_in;
  double partial[SUM_RUNS];
  size_t run = (count / BLOCK / SUM_RUNS + 1) * BLOCK;
#pragma omp parallel for schedule(static) if (count > BLOCK * BLOCKS_THREADED)
  for (int i = 0; i < SUM_RUNS; i++) {
    size_t first = (size_t)i * run < count ? (size_t)i * run : count;
    partial[i] = sum_squares_run(count - first < run ? count - first : run, x + first);
  }
  *result = 0;
  for (int i = 0; i < SUM_RUNS; i++)
    *result += partial[i];
  return STATUS_OK;
}

VECTOR_KERNEL static double squared_error_kernel(size_t n, REAL factor, const REAL *x, const REAL *y, REAL *grad) {
  double lane[8] = {0};
  for (size_t i = 0; i < n; i++) {
    REAL difference = x[i] - y[i];
    lane[i % 8] += (double)difference * (double)difference;
    grad[i] = factor * difference;
  }
  return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
}

/* Over a run of blocks, in order. */
static double squared_error_run(size_t count, REAL factor, const REAL *x, const REAL *y, REAL *grad) {
  double total = 0;
  for (size_t first = 0; first < count; first += BLOCK) {
    size_t n = count - first < BLOCK ? count - first : BLOCK;
    total += squared_error_kernel(n, factor, x + first, y + first, grad + first);
  }
  return total;
}

static enum status squared_error(size_t count, double factor, const void *x_in, const void *y_in, void *grad_out,
                                 double *sum) {
  const REAL *x = x_in, *y = y_in;
  REAL *grad = grad_out;
  double partial[SUM_RUNS], total = 0;
  size_t run = (count / BLOCK / SUM_RUNS + 1) * BLOCK;
#pragma omp parallel for schedule(static) if (count > BLOCK * BLOCKS_THREADED)
  for (int i = 0; i < SUM_RUNS; i++) {
    size_t first = (size_t)i * run < count ? (size_t)i * run : count;
    size_t n = count - first < run ? count - first : run;
    partial[i] = squared_error_run(n, (REAL)factor, x + first, y + first, grad + first);
  }
  for (int i = 0; i < SUM_RUNS; i++)
    total += partial[i];
  if (sum != NULL)
    *sum += total;
  return STATUS_OK;
}

static enum status clip_factor(double clip_norm, const double *squares, double *factor) {
  double wanted = clip_norm / (sqrt(*squares) + 1e-6);
  *factor = wanted > 1 ? 1 : wanted;
  return STATUS_OK;
}

/* --- optimisers --------------------------------------------------------------------------------------------- */

#define SCALE_OF(scale) ((scale) != NULL ? *(scale) : 1.0)

VECTOR_KERNEL static void adam_kernel(size_t n, const struct adam_step *step, const double *scale, REAL *p,
                                      const REAL *gradient, REAL *m, REAL *v) {
  REAL size = (REAL)step->step_size, root = (REAL)step->root_correction, epsilon = (REAL)step->epsilon;
  REAL beta1 = (REAL)step->beta1, rest1 = (REAL)(1.0 - step->beta1);
  REAL beta2 = (REAL)step->beta2, rest2 = (REAL)(1.0 - step->beta2);
  REAL gradient_scale = (REAL)SCALE_OF(scale), decay = (REAL)step->coupled_decay, keep = (REAL)step->keep;
#pragma omp simd
  for (size_t i = 0; i < n; i++) {
    REAL parameter = p[i] * keep;
    REAL g = gradient_scale * gradient[i] + decay * parameter;
    m[i] = beta1 * m[i] + rest1 * g;
    v[i] = beta2 * v[i] + rest2 * (g * g);
    p[i] = parameter - size * m[i] / (SQRT(v[i]) / root + epsilon);
  }
}

static enum status adam(size_t count, const struct adam_step *step, const double *gradient_scale, void *parameters,
                        const void *gradients, void *moment1, void *moment2) {
  REAL *p = parameters, *m = moment1, *v = moment2;
  const REAL *g = gradients;
  FOR_EACH_BLOCK(count, adam_kernel(n, step, gradient_scale, p + first, g + first, m + first, v + first));
  return STATUS_OK;
}

VECTOR_KERNEL static void sgd_kernel(size_t n, const struct sgd_step *step, const double *scale, REAL *p,
                                     const REAL *gradient) {
  REAL lr = (REAL)step->lr, gradient_scale = (REAL)SCALE_OF(scale), decay = (REAL)step->coupled_decay;
#pragma omp simd
  for (size_t i = 0; i < n; i++)
    p[i] -= lr * (gradient_scale * gradient[i] + decay * p[i]);
}

VECTOR_KERNEL static void momentum_kernel(size_t n, const struct sgd_step *step, const double *scale, REAL *p,
                                          const REAL *gradient, REAL *velocity) {
  REAL lr = (REAL)step->lr, gradient_scale = (REAL)SCALE_OF(scale), decay = (REAL)step->coupled_decay;
  REAL momentum = (REAL)step->momentum;
#pragma omp simd
  for (size_t i = 0; i < n; i++) {
    REAL g = gradient_scale * gradient[i] + decay * p[i];
    velocity[i] = momentum * velocity[i] + g;
    p[i] -= lr * velocity[i];
  }
}

static enum status sgd(size_t count, const struct sgd_step *step, const double *gradient_scale, void *parameters,
                       const void *gradients, void *velocity) {
  REAL *p = parameters, *b = velocity;
  const REAL *g = gradients;
  if (b == NULL)
    FOR_EACH_BLOCK(count, sgd_kernel(n, step, gradient_scale, p + first, g + first));
  else
    FOR_EACH_BLOCK(count, momentum_kernel(n, step, gradient_scale, p + first, g + first, b + first));
  return STATUS_OK;
}

const struct ops OPS = {
    .backend = "cpu",
    .precision = DTYPE == F64 ? PRECISION_F64 : PRECISION_F32,
    .dtype = DTYPE,
    .parameter_dtype = DTYPE,
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
    .conv_create = CONV(create),
    .conv_destroy = CONV(destroy),
    .conv_forward = CONV(forward),
    .conv_backward_data = CONV(backward_data),
    .conv_backward_weights = CONV(backward_weights),
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
