/* What the two element types of the CPU backend share: the tables, and how a loop is cut into blocks.
 *
 * An elementwise operation is a kernel (a plain loop over one block, compiled for several vector widths and chosen
 * when the program is loaded) and a loop over blocks, which is shared by the threads.  Blocks have a fixed length, so
 * that an element is always computed by the same code, however many threads there are. */
#ifndef CONR_MODEL_OPS_CPU_H
#define CONR_MODEL_OPS_CPU_H

#include "model/ops.h"

extern const struct ops ops_cpu_f32, ops_cpu_f64;

/* Vector code without -march=native: a login node is not a compute node. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define VECTOR_KERNEL __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTOR_KERNEL
#endif

enum {
  BLOCK = 4096,       /* elements: three arrays of doubles stay in the second-level cache   */
  BLOCKS_THREADED = 5 /* below this a parallel region costs more than it saves (about 16 k) */
};

/* Run `call` for each block; in it, `first` is the block's first element and `n` its length.  (The formatter takes
 * the pragma and the loop for one line.) */
/* clang-format off */
#define FOR_EACH_BLOCK(count, call)                                              \
  do {                                                                           \
    int64_t blocks_ = (int64_t)(((count) + BLOCK - 1) / BLOCK);                  \
    _Pragma("omp parallel for schedule(static) if (blocks_ >= BLOCKS_THREADED)") \
    for (int64_t block_ = 0; block_ < blocks_; block_++) {                       \
      size_t first = (size_t)block_ * BLOCK;                                     \
      size_t n = (count) - first < BLOCK ? (count) - first : BLOCK;              \
      call;                                                                      \
    }                                                                            \
  } while (0)
/* clang-format on */

#endif
