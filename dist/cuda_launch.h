/* How kernels are launched: for .cu files.
 *
 *     LAUNCH(scale_kernel, blocks_for(count), 256, stream, count, a, x);
 *     LAUNCH_BLOCKS(sum_kernel, parts, 256, stream, count, x, partial);
 *     TRY(cuda_launched("scale"));
 *
 * LAUNCH is for kernels whose threads do not know of one another; LAUNCH_BLOCKS for those whose threads meet, by
 * __syncthreads() or warp shuffles.  To nvcc both are the same.  Tests build the same files with a C++ compiler and an
 * emulation of CUDA in which they differ (tests/emulate).  So that both can read them, kernels keep to: blocks and
 * grids of one dimension, or (x, y) grids by dim3; __shared__ arrays of fixed size; full-warp shuffles; no inline
 * assembly outside #ifdef __CUDA_ARCH__. */
#ifndef CONR_DIST_CUDA_LAUNCH_H
#define CONR_DIST_CUDA_LAUNCH_H

#include "dist/cuda.h"

#ifdef __CUDACC__
#define LAUNCH(kernel, blocks, threads, stream, ...) kernel<<<(blocks), (threads), 0, (stream)>>>(__VA_ARGS__)
#define LAUNCH_BLOCKS LAUNCH
#else
#include <emulated_launch.h> /* of tests/emulate: LAUNCH, LAUNCH_BLOCKS, threadIdx, __syncthreads, ... */
#endif

/* The last launch's fate as a status. */
#define cuda_launched(what) cuda_check(cudaGetLastError(), what)

#endif
