/* What the kernels share: loads and stores of 16 bytes, loops over elements, and how rows and channels are cut. */
#ifndef CONR_MODEL_KERNELS_CUH
#define CONR_MODEL_KERNELS_CUH

#include "model/kernels.h"

#include <cuda_bf16.h>
#include <string.h>

#include "dist/cuda_launch.h"

#ifdef __CUDACC__
#define UNROLL _Pragma("unroll")
#define UNROLL_BY(n) UNROLL_PRAGMA(unroll n)
#define UNROLL_PRAGMA(text) _Pragma(#text)
#else
#define UNROLL
#define UNROLL_BY(n)
#endif

typedef __nv_bfloat16 bf16;

enum {
  THREADS = 256,      /* of every block                                                                   */
  VECTOR = 8,         /* elements a thread takes at a time: 16 bytes of bfloat16, twice 16 of float        */
  BLOCKS_FULL = 2112, /* 16 blocks for each of 132 processors: more would only wait; a constant, so that   */
  BLOCKS_SUMS = 528   /* (4 for each) the order of sums depends on shapes alone and not on the GPU         */
};

/* --- values -------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ float to_float(float x) {
  return x;
}

static __device__ __forceinline__ float to_float(bf16 x) {
  return __bfloat162float(x);
}

static __device__ __forceinline__ void from_float(float x, float *to) {
  *to = x;
}

static __device__ __forceinline__ void from_float(float x, bf16 *to) {
  *to = __float2bfloat16_rn(x);
}

/* x as T would hold it. */
template <typename T> static __device__ __forceinline__ float rounded(float x) {
  T held;
  from_float(x, &held);
  return to_float(held);
}

/* N elements from or to memory: one, or VECTOR that lie on 16 bytes. */
template <typename T> static __device__ __forceinline__ void load(const T *from, float (&to)[1]) {
  to[0] = to_float(*from);
}

static __device__ __forceinline__ void load(const float *from, float (&to)[VECTOR]) {
  float4 low = ((const float4 *)from)[0], high = ((const float4 *)from)[1];
  memcpy(to, &low, sizeof low);
  memcpy(to + 4, &high, sizeof high);
}

static __device__ __forceinline__ void load(const bf16 *from, float (&to)[VECTOR]) {
  uint4 bits = *(const uint4 *)from;
  bf16 values[VECTOR];
  memcpy((void *)values, &bits, sizeof bits);
  UNROLL
  for (int k = 0; k < VECTOR; k++)
    to[k] = __bfloat162float(values[k]);
}

template <typename T> static __device__ __forceinline__ void store(const float (&from)[1], T *to) {
  from_float(from[0], to);
}

static __device__ __forceinline__ void store(const float (&from)[VECTOR], float *to) {
  float4 low, high;
  memcpy(&low, from, sizeof low);
  memcpy(&high, from + 4, sizeof high);
  ((float4 *)to)[0] = low;
  ((float4 *)to)[1] = high;
}

static __device__ __forceinline__ void store(const float (&from)[VECTOR], bf16 *to) {
  uint4 bits;
  bf16 values[VECTOR];
  UNROLL
  for (int k = 0; k < VECTOR; k++)
    values[k] = __float2bfloat16_rn(from[k]);
  memcpy(&bits, (const void *)values, sizeof bits);
  *(uint4 *)to = bits;
}

/* Bytes: masks and choices; VECTOR of them lie on 8. */
static __device__ __forceinline__ void load_bytes(const uint8_t *from, uint8_t (&to)[1]) {
  to[0] = *from;
}

static __device__ __forceinline__ void load_bytes(const uint8_t *from, uint8_t (&to)[VECTOR]) {
  uint2 bits = *(const uint2 *)from;
  memcpy(to, &bits, sizeof bits);
}

static __device__ __forceinline__ void store_bytes(const uint8_t (&from)[1], uint8_t *to) {
  *to = from[0];
}

static __device__ __forceinline__ void store_bytes(const uint8_t (&from)[VECTOR], uint8_t *to) {
  uint2 bits;
  memcpy(&bits, from, sizeof bits);
  *(uint2 *)to = bits;
}

/* NULL lies on everything. */
static inline bool on_16_bytes(const void *data) {
  return (uintptr_t)data % 16 == 0;
}

static inline bool on_8_bytes(const void *data) {
  return (uintptr_t)data % 8 == 0;
}

/* --- loops over elements ------------------------------------------------------------------------------------- */

static inline int blocks_for(size_t items) {
  size_t blocks = (items + THREADS - 1) / THREADS;
  return blocks < BLOCKS_FULL ? (int)blocks : BLOCKS_FULL;
}

/* f.apply<N>(at) for all elements, N at a time: by vectors when `vectors` says that all arrays lie right, and the rest
 * one by one.  A thread reads its elements before it writes them, so results may lie over arguments.  Bound by memory
 * for all that is made of it, but for the masks of dropout. */
template <typename F> static __global__ void __launch_bounds__(THREADS) each_kernel(size_t count, bool vectors, F f) {
  size_t thread = (size_t)blockIdx.x * blockDim.x + threadIdx.x, step = (size_t)gridDim.x * blockDim.x;
  size_t whole = vectors ? count / VECTOR : 0;
  for (size_t i = thread; i < whole; i += step)
    f.template apply<VECTOR>(i * VECTOR);
  for (size_t i = whole * VECTOR + thread; i < count; i += step)
    f.template apply<1>(i);
}

template <typename F>
static enum status each(struct stream *stream, const char *what, size_t count, bool vectors, const F &f) {
  if (count == 0)
    return STATUS_OK;
  LAUNCH(each_kernel<F>, blocks_for(vectors ? count / VECTOR + 1 : count), THREADS, cuda_stream(stream), count, vectors,
         f);
  return cuda_launched(what);
}

/* --- rows by channels ---------------------------------------------------------------------------------------- */

/* How [rows, channels] is cut: a block is `across` groups of channels (a group is what a thread takes at a time) by
 * THREADS / across rows; the grid is blocks of channels by parts of the rows. */
struct sweep {
  int64_t rows, channels;
  int64_t part_rows; /* of each part but the last */
  int across;        /* a power of two, at most 32: neighbouring threads read neighbouring memory */
  int groups, blocks, parts;
};

/* Where a thread of a sweep is.  group >= groups: it has nothing to do. */
struct sweep_place {
  int group, down;
  int64_t first, step, end; /* rows first, first + step, ... below end */
};

static __device__ __forceinline__ struct sweep_place sweep_place(const struct sweep &sweep, int block) {
  struct sweep_place place;
  place.group = block * sweep.across + (int)threadIdx.x % sweep.across;
  place.down = (int)threadIdx.x / sweep.across;
  place.step = THREADS / sweep.across;
  place.first = (int64_t)blockIdx.y * sweep.part_rows + place.down;
  int64_t end = ((int64_t)blockIdx.y + 1) * sweep.part_rows;
  place.end = end < sweep.rows ? end : sweep.rows;
  return place;
}

/* Parts: as many as keep most_blocks busy, with at least least_rows for each thread, and at most most_parts. */
static inline struct sweep sweep_cut(int64_t rows, int64_t channels, int width, int64_t most_blocks, int64_t least_rows,
                                     int64_t most_parts) {
  struct sweep sweep;
  sweep.rows = rows;
  sweep.channels = channels;
  sweep.groups = (int)(channels / width);
  sweep.across = 1;
  while (sweep.across < 32 && sweep.across < sweep.groups)
    sweep.across *= 2;
  sweep.blocks = (sweep.groups + sweep.across - 1) / sweep.across;
  int64_t down = THREADS / sweep.across, parts = (rows + down * least_rows - 1) / (down * least_rows);
  int64_t most = most_blocks / sweep.blocks < most_parts ? most_blocks / sweep.blocks : most_parts;
  parts = parts < most ? parts : most;
  parts = parts > 1 ? parts : 1;
  sweep.part_rows = ((rows + parts - 1) / parts + down - 1) / down * down;
  sweep.parts = sweep.part_rows == 0 ? 0 : (int)((rows + sweep.part_rows - 1) / sweep.part_rows);
  return sweep;
}

#endif
