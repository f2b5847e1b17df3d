/* The one matrix product of the CPU backend, row-major:  C = alpha op(A) op(B) + beta C.
 *
 * float32 goes to oneDNN's sgemm.  oneDNN has no float64 product; that path is a plain loop whose
 * rows do not depend on how many rows there are: it serves exactness, not speed.
 *
 * op(A) is [m, k], op(B) is [k, n], C is [m, n]; lda, ldb, ldc are the row strides of the stored matrices in
 * elements.  C overlaps neither input.  m or n = 0 is fine, k >= 1.  Inside an OpenMP parallel region it runs on
 * the calling thread alone, else on all threads.  Local.  ERR_MEMORY: oneDNN could not have the memory it packs
 * into. */
#ifndef CONR_MODEL_GEMM_H
#define CONR_MODEL_GEMM_H

#include "dist/dtype.h"
#include "dist/status.h"

#include <stdint.h>

enum gemm_op { GEMM_PLAIN, GEMM_TRANSPOSED };

enum status gemm(enum dtype dtype, enum gemm_op op_a, enum gemm_op op_b, int64_t m, int64_t n, int64_t k, double alpha,
                 const void *a, int64_t lda, const void *b, int64_t ldb, double beta, void *c, int64_t ldc);

#endif
