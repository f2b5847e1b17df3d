/* Kernels of the pointwise losses: one pass over the elements, bound by memory; sums in a fixed order. */
#include "loss/pointwise.h"

#include "loss/kernels.cuh"
#include "loss/regression_element.h"

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
