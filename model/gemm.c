/* Matrix product on the CPU: oneDNN for float32, plain loops for float64. */
#include "model/gemm.h"

#include <oneapi/dnnl/dnnl.h>
#include <stddef.h>

/* Work below which a parallel region costs more than it saves. */
#define PARALLEL_WORK 100000

/* One row of C.  Both forms add up k in ascending order, whatever m and the thread count. */
static void row_f64(enum gemm_op op_a, enum gemm_op op_b, int64_t i, int64_t n, int64_t k, double alpha,
                    const double *a, int64_t lda, const double *b, int64_t ldb, double beta, double *c) {
  for (int64_t j = 0; j < n; j++)
    c[j] = beta == 0 ? 0 : beta * c[j];
  if (op_b == GEMM_PLAIN) {
    for (int64_t l = 0; l < k; l++) {
      double scaled = alpha * (op_a == GEMM_PLAIN ? a[i * lda + l] : a[l * lda + i]);
      const double *row = b + l * ldb;
      for (int64_t j = 0; j < n; j++)
        c[j] += scaled * row[j];
    }
    return;
  }
  for (int64_t j = 0; j < n; j++) {
    const double *row = b + j * ldb;
    double sum = 0;
    for (int64_t l = 0; l < k; l++)
      sum += (op_a == GEMM_PLAIN ? a[i * lda + l] : a[l * lda + i]) * row[l];
    c[j] += alpha * sum;
  }
}

static void gemm_f64(enum gemm_op op_a, enum gemm_op op_b, int64_t m, int64_t n, int64_t k, double alpha,
                     const double *a, int64_t lda, const double *b, int64_t ldb, double beta, double *c, int64_t ldc) {
#pragma omp parallel for schedule(static) if (m * n * k > PARALLEL_WORK)
  for (int64_t i = 0; i < m; i++)
    row_f64(op_a, op_b, i, n, k, alpha, a, lda, b, ldb, beta, c + i * ldc);
}

enum status gemm(enum dtype dtype, enum gemm_op op_a, enum gemm_op op_b, int64_t m, int64_t n, int64_t k, double alpha,
                 const void *a, int64_t lda, const void *b, int64_t ldb, double beta, void *c, int64_t ldc) {
  if (m == 0 || n == 0)
    return STATUS_OK;
  if (dtype == F64) {
    gemm_f64(op_a, op_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    return STATUS_OK;
  }
  dnnl_status_t code = dnnl_sgemm(op_a == GEMM_PLAIN ? 'N' : 'T', op_b == GEMM_PLAIN ? 'N' : 'T', m, n, k, (float)alpha,
                                  a, lda, b, ldb, (float)beta, c, ldc);
  REQUIRE(code == dnnl_success, ERR_MEMORY,
          "oneDNN cannot multiply [%lld, %lld] by [%lld, %lld] (status %d): the memory may be full", (long long)m,
          (long long)k, (long long)k, (long long)n, (int)code);
  return STATUS_OK;
}
