/* Kernels that test the emulation itself: tests/test_device.c. */
#include "dist/cuda_launch.h"

#include <cuda_bf16.h>

extern "C" {
enum status emulated_test_sums(struct stream *stream, int blocks, int threads, const float *x, float *sums);
enum status emulated_test_add(struct stream *stream, int count, float a, const float *x, float *y);
enum status emulated_test_language(struct stream *stream, float *out);
enum status emulated_test_stuck(struct stream *stream, float *out);
enum status emulated_test_plain_barrier(struct stream *stream, float *out);
enum status emulated_test_no_barrier(struct stream *stream, float *out);
}

/* sums[b] = sum of the block's x, by shuffles within warps and shared memory between them. */
static __global__ void sums_kernel(const float *x, float *sums) {
  __shared__ float of_warp[32];
  int i = static_cast<int>(threadIdx.x), lane = i % 32, warp = i / 32, warps = static_cast<int>(blockDim.x + 31) / 32;
  float sum = x[blockIdx.x * blockDim.x + threadIdx.x];
  for (int apart = 16; apart > 0; apart /= 2)
    sum += __shfl_xor_sync(0xffffffffu, sum, apart);
  if (lane == 0)
    of_warp[warp] = sum;
  __syncthreads();
  if (i == 0) {
    sum = 0;
    for (int w = 0; w < warps; w++)
      sum += of_warp[w];
    sums[blockIdx.x] = sum;
  }
  __syncthreads(); /* of_warp is the next block's */
}

/* y += a x */
static __global__ void add_kernel(int count, float a, const float *x, float *y) {
  int stride = static_cast<int>(gridDim.x * blockDim.x);
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < count; i += stride)
    y[i] = fmaf(a, x[i], y[i]);
}

enum status emulated_test_sums(struct stream *stream, int blocks, int threads, const float *x, float *sums) {
  LAUNCH_BLOCKS(sums_kernel, blocks, threads, cuda_stream(stream), x, sums);
  return cuda_launched("sums");
}

enum status emulated_test_add(struct stream *stream, int count, float a, const float *x, float *y) {
  LAUNCH(add_kernel, 3, 64, cuda_stream(stream), count, a, x, y);
  return cuda_launched("add");
}

/* --- the language --------------------------------------------------------------------------------------------- */

/* claims[i] = 1 where what stands there is true for all threads. */
static __global__ void language_kernel(float *claims) {
  __shared__ int right[16], counter, largest;
  __shared__ double total;
  unsigned thread = threadIdx.y * blockDim.x + threadIdx.x, lane = thread % 32;
  if (thread < 16)
    right[thread] = 0;
  if (thread == 0) {
    counter = largest = 0;
    total = 0;
  }
  __syncthreads();
  const unsigned all = 0xffffffffu;
  double wide = 0.5 + lane;
  int claim[16] = {
      __shfl_sync(all, static_cast<int>(lane), 5) == 5,
      __shfl_sync(all, static_cast<int>(lane), 3, 8) == static_cast<int>(lane / 8 * 8 + 3),
      __shfl_down_sync(all, wide, 4) == (lane < 28 ? wide + 4 : wide),
      __shfl_up_sync(all, wide, 1) == (lane > 0 ? wide - 1 : wide),
      __shfl_xor_sync(all, static_cast<unsigned long long>(lane) << 40, 9) ==
          (static_cast<unsigned long long>(lane ^ 9) << 40),
      __ballot_sync(all, lane % 2 == 0) == 0x55555555u,
      __any_sync(all, lane == 31) != 0,
      __all_sync(all, lane < 31) == 0,
      __syncthreads_or(thread == 63) == 1,
      __syncthreads_or(0) == 0,
      blockDim.x == 32 && blockDim.y == 2 && gridDim.x == 2 && gridDim.y == 3,
      __float_as_int(1.0f) == 0x3f800000 && __popc(0xf0u) == 4 && __clz(1) == 31 && __umulhi(0x80000000u, 4u) == 2,
      min(3, 2) == 2 && max(1.0f, 2.0f) == 2.0f && rsqrtf(4.0f) == 0.5f,
      __bfloat162float(__float2bfloat16_rn(1.00390625f)) == 1.0f,
  };
  atomicAdd(&counter, 1);
  atomicAdd(&total, 0.5);
  atomicMax(&largest, static_cast<int>(thread));
  __syncthreads();
  claim[14] = counter == 64 && total == 32;
  claim[15] = largest == 63;
  for (int i = 0; i < 16; i++)
    atomicAdd(&right[i], claim[i]);
  __syncthreads();
  if (thread < 16)
    atomicAdd(&claims[thread], right[thread] == 64 ? 1.0f / 6 : 0.0f); /* six blocks */
  __syncthreads();
}

static __global__ void round_kernel(float *claims) {
  claims[threadIdx.x] = fabsf(claims[threadIdx.x] - 1) < 1e-6f ? 1.0f : 0.0f;
}

enum status emulated_test_language(struct stream *stream, float *out) {
  LAUNCH_BLOCKS(language_kernel, dim3(2, 3), dim3(32, 2), cuda_stream(stream), out);
  LAUNCH(round_kernel, 1, 16, cuda_stream(stream), out);
  return cuda_launched("language");
}

/* --- faults --------------------------------------------------------------------------------------------------- */

static __global__ void stuck_kernel(float *out) {
  if (threadIdx.x == 0)
    __syncwarp();
  __syncthreads();
  out[threadIdx.x] = 1;
}

enum status emulated_test_stuck(struct stream *stream, float *out) {
  LAUNCH_BLOCKS(stuck_kernel, 1, 64, cuda_stream(stream), out);
  return cuda_launched("stuck");
}

enum status emulated_test_plain_barrier(struct stream *stream, float *out) {
  LAUNCH(stuck_kernel, 1, 64, cuda_stream(stream), out);
  return cuda_launched("plain barrier");
}

static __global__ void no_barrier_kernel(float *out) {
  __shared__ float count[64];
  count[threadIdx.x] = 1;
  if (threadIdx.x == 0) {
    float sum = 0;
    for (int i = 0; i < 64; i++)
      sum += count[i];
    out[0] = sum;
  }
}

enum status emulated_test_no_barrier(struct stream *stream, float *out) {
  LAUNCH_BLOCKS(no_barrier_kernel, 1, 64, cuda_stream(stream), out);
  return cuda_launched("no barrier");
}
