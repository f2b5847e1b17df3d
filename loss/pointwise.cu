/* Kernels of the pointwise losses: one pass over the elements, bound by memory; sums in a fixed order. */
#include "loss/pointwise.h"

#include "loss/evidential_element.h"
#include "loss/kernels.cuh"
#include "loss/regression_element.h"
#include "loss/uvote_element.h"

extern "C" size_t pointwise_bytes(void) {
  return POINTWISE_PARTS * sizeof(double);
}

/* *sum += the blocks' parts.  One block. */
static __global__ void __launch_bounds__(THREADS) add_parts_kernel(int parts, const double *partial, double *sum) {
  __shared__ sum_of_double tree[THREADS];
  double all = sum_block(tree, (int)threadIdx.x < parts ? partial[threadIdx.x] : 0.0);
  if (threadIdx.x == 0)
    *sum += all;
}

static void add_parts(int parts, const double *partial, double *sum, struct stream *stream) {
  LAUNCH_BLOCKS(add_parts_kernel, 1, THREADS, cuda_stream(stream), parts, partial, sum);
}

extern "C" enum status add_parts_launch(int parts, const double *partial, double *sum, struct stream *stream) {
  add_parts(parts, partial, sum, stream);
  return cuda_launched("adding up the parts of a sum");
}

static int parts_of(int64_t count) {
  return (int)(count < (int64_t)POINTWISE_PARTS * THREADS ? blocks_of(count, THREADS) : POINTWISE_PARTS);
}

/* Elements in double, as the host: only the gradient is rounded. */
static __global__ void __launch_bounds__(THREADS)
    regression_kernel(struct regression loss, int64_t count, int targets, const float *pred, const float *target,
                      const float *weight, double divisor, float *grad, double *partial) {
  __shared__ sum_of_double tree[THREADS];
  double sum = 0;
  for (int64_t i = thread_number(); i < count; i += (int64_t)gridDim.x * THREADS) {
    double row_weight = weight == nullptr ? 1 : (double)weight[i / targets];
    struct element element = element_of(&loss, (double)pred[i] - (double)target[i]);
    sum += row_weight * element.value;
    grad[i] = (float)(row_weight * element.slope / divisor);
  }
  sum = sum_block(tree, sum);
  if (threadIdx.x == 0)
    partial[blockIdx.x] = sum / divisor;
}

extern "C" enum status regression_launch(const struct regression *loss, int64_t rows, int targets, const float *pred,
                                         const float *target, const float *weight, int64_t rows_global, float *grad,
                                         double *partial, double *sum, struct stream *stream) {
  int64_t count = rows * targets;
  if (count == 0)
    return STATUS_OK;
  int parts = parts_of(count);
  LAUNCH_BLOCKS(regression_kernel, parts, THREADS, cuda_stream(stream), *loss, count, targets, pred, target, weight,
                (double)rows_global * targets, grad, partial);
  add_parts(parts, partial, sum, stream);
  return cuda_launched("a regression loss");
}

/* --- outputs that are distributions ------------------------------------------------------------------------- */

/* Element i: component i % targets of expert i / targets % experts of a row. */
static __global__ void __launch_bounds__(THREADS)
    uvote_kernel(struct uvote uvote, int64_t count, int targets, const float *output, const float *target,
                 const float *weight, const double *coefficient, double divisor, float *grad, double *partial) {
  __shared__ sum_of_double tree[THREADS];
  int64_t half = (int64_t)uvote.experts * targets;
  double sum = 0;
  for (int64_t i = thread_number(); i < count; i += (int64_t)gridDim.x * THREADS) {
    int64_t row = i / half, within = i % half, expert = within / targets, location = row * 2 * half + within;
    double d = (double)output[location] - (double)target[row * targets + within % targets];
    struct laplace laplace = laplace_of(uvote.low, uvote.high, d, (double)output[location + half]);
    double of_row = weight == nullptr ? 1 : (double)weight[row * uvote.experts + expert];
    double factor = coefficient[expert] * (of_row >= 0 ? of_row : NAN);
    sum += factor * laplace.value;
    grad[location] = (float)(factor * laplace.by_location / divisor);
    grad[location + half] = (float)(factor * laplace.by_log_scale / divisor);
  }
  sum = sum_block(tree, sum);
  if (threadIdx.x == 0)
    partial[blockIdx.x] = sum / divisor;
}

extern "C" enum status uvote_launch(const struct uvote *uvote, int64_t rows, int targets, const float *output,
                                    const float *target, const float *weight, const double *coefficient,
                                    int64_t rows_global, float *grad, double *partial, double *sum,
                                    struct stream *stream) {
  int64_t count = rows * targets * uvote->experts;
  if (count == 0)
    return STATUS_OK;
  int parts = parts_of(count);
  LAUNCH_BLOCKS(uvote_kernel, parts, THREADS, cuda_stream(stream), *uvote, count, targets, output, target, weight,
                coefficient, (double)rows_global * targets, grad, partial);
  LAUNCH_BLOCKS(add_parts_kernel, 1, THREADS, cuda_stream(stream), parts, (const double *)partial, sum);
  return cuda_launched("the loss of experts");
}

static __global__ void __launch_bounds__(THREADS)
    uvote_answer_kernel(struct uvote uvote, enum uvote_vote vote, int64_t count, int targets, const float *output,
                        const float *target, float *pred, float *log_scale) {
  int64_t i = thread_number(), half = (int64_t)uvote.experts * targets, first = i / targets * 2 * half + i % targets;
  struct uvote_said expert[UVOTE_MOST_EXPERTS];
  if (i >= count)
    return;
  for (int e = 0; e < uvote.experts; e++) {
    expert[e].location = (double)output[first + (int64_t)e * targets];
    expert[e].log_scale = (double)output[first + half + (int64_t)e * targets];
  }
  struct uvote_said said = uvote_voted(vote, uvote.experts, expert, vote == UVOTE_ORACLE ? (double)target[i] : 0.0);
  pred[i] = (float)said.location;
  if (log_scale != nullptr)
    log_scale[i] = (float)said.log_scale;
}

extern "C" enum status uvote_answer_launch(const struct uvote *uvote, enum uvote_vote vote, int64_t rows, int targets,
                                           const float *output, const float *target, float *pred, float *log_scale,
                                           struct stream *stream) {
  int64_t count = rows * targets;
  if (count == 0)
    return STATUS_OK;
  LAUNCH_BLOCKS(uvote_answer_kernel, blocks_of(count, THREADS), THREADS, cuda_stream(stream), *uvote, vote, count,
                targets, output, target, pred, log_scale);
  return cuda_launched("answers of experts");
}

static __device__ __forceinline__ struct evidential_outputs outputs_at(const float *output, int64_t i, int targets,
                                                                       int64_t *place) {
  *place = i / targets * 3 * targets + i % targets;
  struct evidential_outputs at = {(double)output[*place], (double)output[*place + targets],
                                  (double)output[*place + 2 * (int64_t)targets]};
  return at;
}

static __global__ void __launch_bounds__(THREADS)
    evidential_kernel(struct evidential evidential, int64_t count, int targets, const float *output,
                      const float *target, const float *weight, double divisor, float *grad, double *partial) {
  __shared__ sum_of_double tree[THREADS];
  double sum = 0;
  for (int64_t i = thread_number(); i < count; i += (int64_t)gridDim.x * THREADS) {
    int64_t place;
    struct evidential_outputs at = outputs_at(output, i, targets, &place), slope;
    double of_row = weight == nullptr ? 1 : (double)weight[i / targets];
    sum += evidential_element(&evidential, at, (double)target[i], of_row, &slope);
    grad[place] = (float)(slope.a / divisor);
    grad[place + targets] = (float)(slope.c / divisor);
    grad[place + 2 * (int64_t)targets] = (float)(slope.d / divisor);
  }
  sum = sum_block(tree, sum);
  if (threadIdx.x == 0)
    partial[blockIdx.x] = sum / divisor;
}

extern "C" enum status evidential_launch(const struct evidential *evidential, int64_t rows, int targets,
                                         const float *output, const float *target, const float *weight,
                                         int64_t rows_global, float *grad, double *partial, double *sum,
                                         struct stream *stream) {
  int64_t count = rows * targets;
  if (count == 0)
    return STATUS_OK;
  int parts = parts_of(count);
  LAUNCH_BLOCKS(evidential_kernel, parts, THREADS, cuda_stream(stream), *evidential, count, targets, output, target,
                weight, (double)rows_global * targets, grad, partial);
  LAUNCH_BLOCKS(add_parts_kernel, 1, THREADS, cuda_stream(stream), parts, (const double *)partial, sum);
  return cuda_launched("the evidential loss");
}

static __global__ void __launch_bounds__(THREADS)
    evidential_answer_kernel(struct evidential evidential, int64_t count, int targets, const float *output, float *pred,
                             float *variance) {
  int64_t i = thread_number(), place;
  if (i >= count)
    return;
  struct evidential_outputs at = outputs_at(output, i, targets, &place);
  struct nig nig = nig_of(&evidential, at.a, at.c, at.d, 1);
  pred[i] = (float)nig.gamma;
  if (variance != nullptr)
    variance[i] = (float)nig_variance_of(&nig);
}

extern "C" enum status evidential_answer_launch(const struct evidential *evidential, int64_t rows, int targets,
                                                const float *output, float *pred, float *variance,
                                                struct stream *stream) {
  int64_t count = rows * targets;
  if (count == 0)
    return STATUS_OK;
  LAUNCH_BLOCKS(evidential_answer_kernel, blocks_of(count, THREADS), THREADS, cuda_stream(stream), *evidential, count,
                targets, output, pred, variance);
  return cuda_launched("answers of an evidential head");
}

/* --- values that are not finite ----------------------------------------------------------------------------- */

template <typename T>
static __global__ void __launch_bounds__(THREADS) nonfinite_kernel(int64_t count, const T *x, double *partial) {
  __shared__ sum_of_double tree[THREADS];
  int64_t found = 0;
  for (int64_t i = thread_number(); i < count; i += (int64_t)gridDim.x * THREADS) {
    float value = to_float(x[i]);
    found += !(value - value == 0);
  }
  double sum = sum_block(tree, (double)found);
  if (threadIdx.x == 0)
    partial[blockIdx.x] = sum;
}

extern "C" enum status count_nonfinite_launch(enum dtype dtype, int64_t count, const void *x, double *partial,
                                              double *found, struct stream *stream) {
  if (count == 0)
    return STATUS_OK;
  int parts = parts_of(count);
  if (dtype == BF16)
    LAUNCH_BLOCKS(nonfinite_kernel<__nv_bfloat16>, parts, THREADS, cuda_stream(stream), count, (const __nv_bfloat16 *)x,
                  partial);
  else
    LAUNCH_BLOCKS(nonfinite_kernel<float>, parts, THREADS, cuda_stream(stream), count, (const float *)x, partial);
  add_parts(parts, partial, found, stream);
  return cuda_launched("counting values that are not finite");
}
