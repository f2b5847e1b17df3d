/* Kernels that turn parameters into what products read, and products' gradients into parameters'.  Weights are small
 * beside values: these are bound by the launch or, for large layers, by memory. */
#include "model/kernels.cuh"

struct cast {
  const float *x;
  bf16 *y;
  template <int N> __device__ void apply(size_t at) const {
    float v[N];
    load(x + at, v);
    store(v, y + at);
  }
};

extern "C" enum status cast_launch(struct stream *stream, size_t count, const float *x, void *y) {
  return each(stream, "cast", count, on_16_bytes(x) && on_16_bytes(y), cast{x, (bf16 *)y});
}

/* filters[o][k][i] = weights[o][i][k], [out, area, in] from [out, in, area].  Writes are coalesced, and reads lie close
 * by: a warp's 32 channels are 32 area floats in a row, which the cache keeps for the next elements of the kernel. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    filters_kernel(int64_t count, int64_t in, int64_t area, const float *weights, T *filters) {
  int64_t step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; at < count; at += step) {
    int64_t i = at % in, k = at / in % area, o = at / in / area;
    from_float(weights[(o * in + i) * area + k], filters + at);
  }
}

/* The way back; reads are coalesced here. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    filter_gradients_kernel(int64_t count, int64_t in, int64_t area, const T *filters, float *weights) {
  int64_t step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; at < count; at += step) {
    int64_t i = at % in, k = at / in % area, o = at / in / area;
    weights[(o * in + i) * area + k] = to_float(filters[at]);
  }
}

extern "C" enum status filters_launch(struct stream *stream, enum dtype dtype, int64_t out, int64_t in, int64_t area,
                                      const float *weights, void *filters) {
  int64_t count = out * in * area;
  if (dtype == BF16)
    LAUNCH(filters_kernel<bf16>, blocks_for((size_t)count), THREADS, cuda_stream(stream), count, in, area, weights,
           (bf16 *)filters);
  else
    LAUNCH(filters_kernel<float>, blocks_for((size_t)count), THREADS, cuda_stream(stream), count, in, area, weights,
           (float *)filters);
  return cuda_launched("filters");
}

extern "C" enum status filter_gradients_launch(struct stream *stream, enum dtype dtype, int64_t out, int64_t in,
                                               int64_t area, const void *filters, float *weights) {
  int64_t count = out * in * area;
  if (dtype == BF16)
    LAUNCH(filter_gradients_kernel<bf16>, blocks_for((size_t)count), THREADS, cuda_stream(stream), count, in, area,
           (const bf16 *)filters, weights);
  else
    LAUNCH(filter_gradients_kernel<float>, blocks_for((size_t)count), THREADS, cuda_stream(stream), count, in, area,
           (const float *)filters, weights);
  return cuda_launched("gradients of filters");
}

/* --- what this library was built for ------------------------------------------------------------------------- */

#ifndef __CUDA_ARCH_LIST__ /* nvcc's; else the emulation */
#define __CUDA_ARCH_LIST__ 800, 900
#endif

extern "C" const int *cuda_archs(int *count) {
  static const int archs[] = {__CUDA_ARCH_LIST__};
  *count = (int)(sizeof archs / sizeof *archs);
  return archs;
}
