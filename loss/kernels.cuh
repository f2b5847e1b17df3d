/* What the kernels of the losses share beside those of networks: four values at once, and sums over the threads of a
 * block. */
#ifndef CONR_LOSS_KERNELS_CUH
#define CONR_LOSS_KERNELS_CUH

#include "model/kernels.cuh"

static inline unsigned blocks_of(int64_t items, int64_t each) {
  return (unsigned)((items + each - 1) / each);
}

/* The number of this thread among all. */
static __device__ __forceinline__ int64_t thread_number() {
  return (int64_t)blockIdx.x * THREADS + threadIdx.x;
}

/* --- values -------------------------------------------------------------------------------------------------- */

/* Four neighbours at once: 16 bytes. */
static __device__ __forceinline__ void load4(const float *from, float (&to)[4]) {
  float4 four = *(const float4 *)from;
  to[0] = four.x;
  to[1] = four.y;
  to[2] = four.z;
  to[3] = four.w;
}

/* The same for what is read once: it should not push out what is read by all. */
static __device__ __forceinline__ void stream4(const float *from, float (&to)[4]) {
  float4 four = __ldcs((const float4 *)from);
  to[0] = four.x;
  to[1] = four.y;
  to[2] = four.z;
  to[3] = four.w;
}

static __device__ __forceinline__ void store4(const float (&from)[4], float *to) {
  *(float4 *)to = make_float4(from[0], from[1], from[2], from[3]);
}

static __device__ __forceinline__ void store4(const float (&from)[4], __nv_bfloat16 *to) {
  union {
    __nv_bfloat162_raw pair[2];
    uint2 bits;
  } four;
  four.pair[0] = __floats2bfloat162_rn(from[0], from[1]);
  four.pair[1] = __floats2bfloat162_rn(from[2], from[3]);
  *(uint2 *)to = four.bits;
}

/* --- sums over a block --------------------------------------------------------------------------------------- */

/* The block's own values joined in a fixed order; thread 0 has the result.  T::join(const T &) adds to *this.
 * tree  shared; all threads come here, and may not touch it before they meet again */
template <typename T> static __device__ __forceinline__ void join_block(T (&tree)[THREADS], T &own) {
  tree[threadIdx.x] = own;
  for (int step = THREADS / 2; step > 0; step /= 2) {
    __syncthreads();
    if ((int)threadIdx.x < step) {
      own.join(tree[threadIdx.x + step]);
      tree[threadIdx.x] = own;
    }
  }
}

struct sum_of_double {
  double sum;
  __device__ void join(const sum_of_double &more) {
    sum += more.sum;
  }
};

/* The same for one sum, which all threads get. */
static __device__ __forceinline__ double sum_block(sum_of_double (&tree)[THREADS], double own) {
  sum_of_double sum = {own};
  join_block(tree, sum);
  __syncthreads();
  double all = tree[0].sum;
  __syncthreads();
  return all;
}

#endif
