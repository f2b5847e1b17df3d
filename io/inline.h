/* Arithmetic that the host and CUDA share, to the bit: functions of the headers that include this.  Files that use it
 * are compiled without contraction of products and sums (Makefile), since a fused one rounds once and not twice. */
#ifndef CONR_IO_INLINE_H
#define CONR_IO_INLINE_H

#ifdef __CUDACC__
#define IO_INLINE static __host__ __device__ inline
#else
#define IO_INLINE static inline
#endif

#endif
