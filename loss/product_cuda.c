/* The matrix products of losses by cuBLASLt, which sees row-major arrays as transposed, column by column. */
#include "dist/cuda.h"
#include "dist/memory.h"
#include "loss/product.h"

#include <cublasLt.h>

#define SCRATCH_BYTES ((size_t)32 << 20) /* as NVIDIA recommends for Hopper           */
#define ALIGNMENT 16                     /* bytes, of all arrays                       */
#define SETS 256                         /* a power of 2; banded panels have many shapes */
#define WAYS 4                           /* plans of shapes that fall on the same set    */

enum kind { SIMILARITIES, GRADIENTS, COLUMNS, KINDS };

/* One shape: x [m, k] times y [k, n] (as cuBLASLt sees them; one is perhaps transposed). */
struct plan {
  enum kind kind;
  int64_t m, n, k;
  cublasLtMatrixLayout_t x, y, out; /* NULL: the place is free */
  cublasLtMatmulAlgo_t algorithm;
  uint64_t last_use;
};

struct product {
  struct device *device; /* borrowed: must outlive this */
  cublasLtHandle_t handle;
  cublasLtMatmulDesc_t operation[KINDS];
  cublasLtMatmulPreference_t preference;
  cudaDataType_t values;
  void *scratch; /* [SCRATCH_BYTES] */
  struct plan plans[SETS][WAYS];
  uint64_t uses;
};

static enum status check(cublasStatus_t code, const char *call) {
  return code == CUBLAS_STATUS_SUCCESS ? STATUS_OK
                                       : fail(ERR_DEVICE, "%s failed: %s", call, cublasLtGetStatusName(code));
}
#define LT(call) TRY(check((call), #call))

/* --- create and destroy ------------------------------------------------------------------------------------- */

static enum status set_up(struct product *product, enum precision precision) {
  static const cublasOperation_t transpose = CUBLAS_OP_T;
  static const uint32_t alignment = ALIGNMENT;
  static const size_t scratch = SCRATCH_BYTES;
  static const int aligned[] = {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                                CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
  cublasComputeType_t compute = precision == PRECISION_TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  product->values = precision == PRECISION_BF16 ? CUDA_R_16BF : CUDA_R_32F;
  LT(cublasLtCreate(&product->handle));
  for (int kind = 0; kind < KINDS; kind++)
    LT(cublasLtMatmulDescCreate(&product->operation[kind], compute, CUDA_R_32F));
  LT(cublasLtMatmulDescSetAttribute(product->operation[SIMILARITIES], CUBLASLT_MATMUL_DESC_TRANSA, &transpose,
                                    sizeof transpose));
  LT(cublasLtMatmulDescSetAttribute(product->operation[COLUMNS], CUBLASLT_MATMUL_DESC_TRANSB, &transpose,
                                    sizeof transpose));
  LT(cublasLtMatmulPreferenceCreate(&product->preference));
  LT(cublasLtMatmulPreferenceSetAttribute(product->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &scratch,
                                          sizeof scratch));
  for (size_t i = 0; i < sizeof aligned / sizeof *aligned; i++)
    LT(cublasLtMatmulPreferenceSetAttribute(product->preference, (cublasLtMatmulPreferenceAttributes_t)aligned[i],
                                            &alignment, sizeof alignment));
  return device_alloc(product->device, SCRATCH_BYTES, &product->scratch);
}

enum status product_create(struct device *device, enum precision precision, struct product **out) {
  *out = NULL;
  TRY(memory_alloc_zero(sizeof **out, (void **)out));
  (*out)->device = device;
  enum status status = set_up(*out, precision);
  if (status != STATUS_OK)
    product_destroy(out);
  return status;
}

static void clear_plan(struct plan *plan) {
  cublasLtMatrixLayout_t *layouts[] = {&plan->x, &plan->y, &plan->out};
  for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
    if (*layouts[i] != NULL)
      cublasLtMatrixLayoutDestroy(*layouts[i]);
    *layouts[i] = NULL;
  }
}

void product_destroy(struct product **product) {
  struct product *own = *product;
  if (own == NULL)
    return;
  for (int set = 0; set < SETS; set++)
    for (int way = 0; way < WAYS; way++)
      clear_plan(&own->plans[set][way]);
  device_free(own->device, &own->scratch);
  if (own->preference != NULL)
    cublasLtMatmulPreferenceDestroy(own->preference);
  for (int kind = 0; kind < KINDS; kind++)
    if (own->operation[kind] != NULL)
      cublasLtMatmulDescDestroy(own->operation[kind]);
  if (own->handle != NULL)
    cublasLtDestroy(own->handle);
  memory_free((void **)product);
}

size_t product_bytes(const struct product *product) {
  return product == NULL ? 0 : SCRATCH_BYTES;
}

/* --- plans -------------------------------------------------------------------------------------------------- */

static struct plan *plan_set(struct product *product, enum kind kind, int64_t m, int64_t n, int64_t k) {
  uint64_t mixed = ((uint64_t)m * 0x9E3779B97F4A7C15u ^ (uint64_t)n) * 0xBF58476D1CE4E5B9u ^ (uint64_t)k;
  mixed = (mixed * 2 + (uint64_t)kind) * 0x94D049BB133111EBu;
  return product->plans[mixed >> 54 & (SETS - 1)];
}

static bool is_for(const struct plan *plan, enum kind kind, int64_t m, int64_t n, int64_t k) {
  return plan->out != NULL && plan->kind == kind && plan->m == m && plan->n == n && plan->k == k;
}

/* Of a set the plan for a shape, else a free place, else the one that was not used for longest. */
static struct plan *plan_place(struct plan *set, enum kind kind, int64_t m, int64_t n, int64_t k) {
  struct plan *oldest = &set[0];
  for (int way = 0; way < WAYS; way++) {
    if (is_for(&set[way], kind, m, n, k))
      return &set[way];
    if (set[way].last_use < oldest->last_use)
      oldest = &set[way];
  }
  return oldest;
}

/* Layouts and algorithm for a shape; what had the place gives way. */
static enum status make_plan(struct product *product, struct plan *plan, enum kind kind, int64_t m, int64_t n,
                             int64_t k) {
  bool transposed = kind == SIMILARITIES, transposed_y = kind == COLUMNS;
  cublasLtMatmulHeuristicResult_t best;
  int found = 0;
  clear_plan(plan);
  LT(cublasLtMatrixLayoutCreate(&plan->x, product->values, (uint64_t)(transposed ? k : m),
                                (uint64_t)(transposed ? m : k), transposed ? k : m));
  LT(cublasLtMatrixLayoutCreate(&plan->y, product->values, (uint64_t)(transposed_y ? n : k),
                                (uint64_t)(transposed_y ? k : n), transposed_y ? n : k));
  LT(cublasLtMatrixLayoutCreate(&plan->out, CUDA_R_32F, (uint64_t)m, (uint64_t)n, m));
  LT(cublasLtMatmulAlgoGetHeuristic(product->handle, product->operation[kind], plan->x, plan->y, plan->out, plan->out,
                                    product->preference, 1, &best, &found));
  REQUIRE(found == 1, ERR_DEVICE, "cuBLASLt knows no way to multiply matrices of %lld x %lld and %lld x %lld",
          (long long)m, (long long)k, (long long)k, (long long)n);
  plan->algorithm = best.algo;
  plan->kind = kind;
  plan->m = m;
  plan->n = n;
  plan->k = k;
  return STATUS_OK;
}

static enum status find_plan(struct product *product, enum kind kind, int64_t m, int64_t n, int64_t k,
                             struct plan **out) {
  struct plan *plan = plan_place(plan_set(product, kind, m, n, k), kind, m, n, k);
  enum status status = is_for(plan, kind, m, n, k) ? STATUS_OK : make_plan(product, plan, kind, m, n, k);
  if (status != STATUS_OK)
    clear_plan(plan);
  plan->last_use = status == STATUS_OK ? ++product->uses : 0;
  *out = plan;
  return status;
}

/* --- products ----------------------------------------------------------------------------------------------- */

/* out [m, n] = alpha x y + beta out */
static enum status multiply(struct product *product, enum kind kind, int64_t m, int64_t n, int64_t k, double alpha,
                            const void *x, const void *y, double beta, float *out) {
  struct plan *plan;
  float scale = (float)alpha, keep = (float)beta;
  if (m == 0 || n == 0)
    return STATUS_OK;
  TRY(find_plan(product, kind, m, n, k, &plan));
  return check(cublasLtMatmul(product->handle, product->operation[kind], &scale, x, plan->x, y, plan->y, &keep, out,
                              plan->out, out, plan->out, &plan->algorithm, product->scratch, SCRATCH_BYTES,
                              cuda_stream(device_main(product->device))),
               "a matrix product of a loss");
}

enum status product_similarities(struct product *product, int64_t rows, int64_t columns, int64_t stride, double alpha,
                                 const void *own, const void *all, float *s) {
  return multiply(product, SIMILARITIES, columns, rows, stride, alpha, all, own, 0, s);
}

enum status product_gradients(struct product *product, int64_t rows, int64_t columns, int64_t stride, const void *h,
                              const void *all, float *grad) {
  return multiply(product, GRADIENTS, stride, rows, columns, 1, all, h, 0, grad);
}

enum status product_add_gradients(struct product *product, int64_t rows, int64_t columns, int64_t stride, const void *h,
                                  const void *all, float *grad) {
  return multiply(product, GRADIENTS, stride, rows, columns, 1, all, h, 1, grad);
}

enum status product_add_columns(struct product *product, int64_t rows, int64_t columns, int64_t stride, const void *h,
                                const void *own, float *grad) {
  return multiply(product, COLUMNS, stride, columns, rows, 1, own, h, 1, grad);
}
