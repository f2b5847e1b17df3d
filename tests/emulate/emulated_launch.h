/* CUDA's language for a C++ compiler: what .cu files use of it (dist/cuda_launch.h says what they keep to).
 *
 * LAUNCH runs the threads of a kernel in a loop; LAUNCH_BLOCKS gives each thread of a block a stack of its own, so that
 * they can wait for one another.  A kernel that meets in a LAUNCH ends the program with a word about it. */
#ifndef CONR_TESTS_EMULATED_LAUNCH_H
#define CONR_TESTS_EMULATED_LAUNCH_H

#include "emulated_cuda.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <math.h>
#include <tuple>
#include <type_traits>
#include <utility>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __launch_bounds__
#undef __forceinline__
#define __global__
#define __device__
#define __host__
#define __shared__ static /* one block runs at a time */
#define __constant__ static
#define __launch_bounds__(...)
#define __forceinline__ inline

#define threadIdx (emulated::here.thread)
#define blockIdx (emulated::here.block)
#define blockDim (emulated::here.threads)
#define gridDim (emulated::here.blocks)
#define warpSize 32

namespace emulated {

/* The arguments are copied now; types are matched when the kernel is called, as in kernel<<<...>>>(arguments). */
template <class Kernel, class... Arguments>
void launch_with(bool meet, dim3 blocks, dim3 threads, cudaStream_t stream, Kernel kernel, Arguments... arguments) {
  launch(meet, blocks, threads, stream,
         [kernel, kept = std::tuple<Arguments...>(arguments...)] { std::apply(kernel, kept); });
}

/* Sizes of any integer type, as nvcc takes them. */
inline dim3 extent(dim3 size) {
  return size;
}
template <class Integer> inline std::enable_if_t<std::is_integral_v<Integer>, dim3> extent(Integer size) {
  return dim3(static_cast<unsigned>(size));
}

} // namespace emulated

#define EMULATED_KERNEL(kernel) [=](const auto &...arguments) { kernel(arguments...); }
#define LAUNCH(kernel, blocks, threads, stream, ...)                                                                 \
  emulated::launch_with(false, emulated::extent(blocks), emulated::extent(threads), stream, EMULATED_KERNEL(kernel), \
                        ##__VA_ARGS__)
#define LAUNCH_BLOCKS(kernel, blocks, threads, stream, ...)                                                         \
  emulated::launch_with(true, emulated::extent(blocks), emulated::extent(threads), stream, EMULATED_KERNEL(kernel), \
                        ##__VA_ARGS__)

/* --- threads that meet ---------------------------------------------------------------------------------------- */

inline void __syncthreads() {
  emulated::meet_block();
}
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  if (mask != 0xffffffffu)
    emulated::undefined("__syncwarp() of a part of a warp is not emulated");
  emulated::meet_warp();
}
inline void __threadfence() {
}
inline void __threadfence_block() {
}

namespace emulated {

inline void whole_warp(unsigned mask) {
  if (mask != 0xffffffffu)
    undefined("shuffles of a part of a warp are not emulated");
}

/* `from` out of this lane's segment of `width` lanes: its own value. */
template <class Value> inline Value shuffle(unsigned mask, Value own, int from, bool inside) {
  static_assert(sizeof(Value) <= 8 && std::is_trivially_copyable_v<Value>, "shuffles are of 4 or 8 bytes");
  whole_warp(mask);
  Value other;
  exchange(&own, sizeof own, inside ? from : lane(), &other);
  return other;
}

} // namespace emulated

template <class Value> inline Value __shfl_sync(unsigned mask, Value own, int from, int width = 32) {
  int first = emulated::lane() / width * width;
  return emulated::shuffle(mask, own, first + (from & (width - 1)), true);
}
template <class Value> inline Value __shfl_xor_sync(unsigned mask, Value own, int bits, int width = 32) {
  int from = emulated::lane() ^ bits;
  return emulated::shuffle(mask, own, from, from < emulated::lane() / width * width + width);
}
template <class Value> inline Value __shfl_down_sync(unsigned mask, Value own, unsigned by, int width = 32) {
  int from = emulated::lane() + static_cast<int>(by);
  return emulated::shuffle(mask, own, from, from < emulated::lane() / width * width + width);
}
template <class Value> inline Value __shfl_up_sync(unsigned mask, Value own, unsigned by, int width = 32) {
  int from = emulated::lane() - static_cast<int>(by);
  return emulated::shuffle(mask, own, from, from >= emulated::lane() / width * width);
}
inline unsigned __ballot_sync(unsigned mask, int own) {
  emulated::whole_warp(mask);
  return emulated::ballot(own != 0);
}
inline int __any_sync(unsigned mask, int own) {
  return __ballot_sync(mask, own) != 0;
}
inline int __all_sync(unsigned mask, int own) {
  return __ballot_sync(mask, own == 0) == 0;
}
inline int __syncthreads_or(int own) {
  static int any; /* one block runs at a time */
  emulated::meet_block();
  any = 0;
  emulated::meet_block();
  any |= own != 0;
  emulated::meet_block();
  return any;
}
inline unsigned __activemask() {
  return 0xffffffffu;
}

/* --- atomics: no two threads run at once ---------------------------------------------------------------------- */

namespace emulated {
template <class Value> struct same { using type = Value; };
template <class Value> using as = typename same<Value>::type;
} // namespace emulated

#define EMULATED_ATOMIC(name, expression)                                             \
  template <class Value> inline Value name(Value *address, emulated::as<Value> own) { \
    Value old = *address;                                                             \
    *address = expression;                                                            \
    return old;                                                                       \
  }
EMULATED_ATOMIC(atomicAdd, old + own)
EMULATED_ATOMIC(atomicSub, old - own)
EMULATED_ATOMIC(atomicMax, old < own ? own : old)
EMULATED_ATOMIC(atomicMin, own < old ? own : old)
EMULATED_ATOMIC(atomicExch, own)
EMULATED_ATOMIC(atomicOr, old | own)
EMULATED_ATOMIC(atomicAnd, old &own)
template <class Value> inline Value atomicCAS(Value *address, emulated::as<Value> compare, emulated::as<Value> own) {
  Value old = *address;
  if (old == compare)
    *address = own;
  return old;
}

/* --- loads and stores, bits ----------------------------------------------------------------------------------- */

template <class Value> inline Value __ldg(const Value *address) {
  return *address;
}
template <class Value> inline Value __ldcs(const Value *address) {
  return *address;
}
template <class Value> inline Value __ldcg(const Value *address) {
  return *address;
}
template <class Value> inline void __stcs(Value *address, emulated::as<Value> value) {
  *address = value;
}

namespace emulated {
template <class To, class From> inline To bits_of(From from) {
  static_assert(sizeof(To) == sizeof(From), "bits are as many on both sides");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}
} // namespace emulated

inline int __float_as_int(float x) {
  return emulated::bits_of<int>(x);
}
inline unsigned __float_as_uint(float x) {
  return emulated::bits_of<unsigned>(x);
}
inline float __int_as_float(int x) {
  return emulated::bits_of<float>(x);
}
inline float __uint_as_float(unsigned x) {
  return emulated::bits_of<float>(x);
}
inline long long __double_as_longlong(double x) {
  return emulated::bits_of<long long>(x);
}
inline double __longlong_as_double(long long x) {
  return emulated::bits_of<double>(x);
}
inline int __popc(unsigned x) {
  return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x) {
  return __builtin_popcountll(x);
}
inline int __clz(int x) {
  return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x));
}
inline int __clzll(long long x) {
  return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x));
}
inline int __ffs(int x) {
  return __builtin_ffs(x);
}
inline unsigned __umulhi(unsigned x, unsigned y) {
  return static_cast<unsigned>(static_cast<unsigned long long>(x) * y >> 32);
}
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(x) * y >> 64);
}

/* --- arithmetic ----------------------------------------------------------------------------------------------- */

/* Of any two types, as CUDA's are of many; a NaN loses. */
template <class X, class Y> inline std::common_type_t<X, Y> min(X x, Y y) {
  using both = std::common_type_t<X, Y>;
  if constexpr (std::is_floating_point_v<both>)
    return std::fmin(static_cast<both>(x), static_cast<both>(y));
  else
    return static_cast<both>(y) < static_cast<both>(x) ? static_cast<both>(y) : static_cast<both>(x);
}
template <class X, class Y> inline std::common_type_t<X, Y> max(X x, Y y) {
  using both = std::common_type_t<X, Y>;
  if constexpr (std::is_floating_point_v<both>)
    return std::fmax(static_cast<both>(x), static_cast<both>(y));
  else
    return static_cast<both>(x) < static_cast<both>(y) ? static_cast<both>(y) : static_cast<both>(x);
}

inline float rsqrtf(float x) {
  return 1.0f / sqrtf(x);
}
inline double rsqrt(double x) {
  return 1.0 / sqrt(x);
}
inline float __expf(float x) {
  return expf(x);
}
inline float __logf(float x) {
  return logf(x);
}
inline float __powf(float x, float y) {
  return powf(x, y);
}
inline float __fdividef(float x, float y) {
  return x / y;
}
inline float __frcp_rn(float x) {
  return 1.0f / x;
}
inline float __fsqrt_rn(float x) {
  return sqrtf(x);
}
inline float __fadd_rn(float x, float y) {
  return x + y;
}
inline float __fsub_rn(float x, float y) {
  return x - y;
}
inline float __fmul_rn(float x, float y) {
  return x * y;
}
inline float __fdiv_rn(float x, float y) {
  return x / y;
}
inline float __fmaf_rn(float x, float y, float z) {
  return fmaf(x, y, z);
}
inline double __dadd_rn(double x, double y) {
  return x + y;
}
inline double __dsub_rn(double x, double y) {
  return x - y;
}
inline double __dmul_rn(double x, double y) {
  return x * y;
}
inline double __ddiv_rn(double x, double y) {
  return x / y;
}
inline double __dsqrt_rn(double x) {
  return sqrt(x);
}
inline double __fma_rn(double x, double y, double z) {
  return fma(x, y, z);
}
inline float normcdff(float x) {
  return 0.5f * erfcf(-x * 0.70710678118654752440f);
}
inline double normcdf(double x) {
  return 0.5 * erfc(-x * 0.70710678118654752440);
}

#endif
