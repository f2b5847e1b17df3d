/* Products of matrices as cuBLASLt is asked for them, by oneDNN on the host: float32 and bfloat16, sums in float32.
 * With FAST_TF32 float32 is read as TF32, with 10 bits of mantissa.
 *
 * What the real one refuses is refused here too: other types, layouts that do not fit, memory that is not the device's.
 * So is a request for an algorithm before the bias is set, whose address the real one reads then.  An attribute that
 * this file does not know ends the program. */
#include "emulated_cuda.h"

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <oneapi/dnnl/dnnl.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

namespace {

struct layout {
  cudaDataType type;
  int32_t order;
  uint64_t rows, columns;
  int64_t ld;
};

struct product {
  cublasComputeType_t compute;
  cudaDataType scale;
  int32_t pointer_mode, transpose_a, transpose_b;
  uint32_t epilogue;
  const void *bias;
  int32_t bias_type; /* -1 = that of D */
};

/* Bytes on which operands lie, as the caller says; 0 = it did not. */
struct preference {
  uint32_t alignment_a, alignment_b;
};

static_assert(sizeof(layout) <= sizeof(cublasLtMatrixLayoutOpaque_t), "fits where callers keep it");
static_assert(sizeof(product) <= sizeof(cublasLtMatmulDescOpaque_t), "fits where callers keep it");

preference *in(cublasLtMatmulPreference_t opaque) {
  return reinterpret_cast<preference *>(opaque);
}

layout *in(cublasLtMatrixLayout_t opaque) {
  return reinterpret_cast<layout *>(opaque);
}

product *in(cublasLtMatmulDesc_t opaque) {
  return reinterpret_cast<product *>(opaque);
}

template <class Value> cublasStatus_t set(Value *field, const void *buffer, size_t bytes) {
  if (buffer == nullptr || bytes != sizeof *field)
    return CUBLAS_STATUS_INVALID_VALUE;
  memcpy(field, buffer, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

size_t bytes_of(const layout &own) {
  uint64_t outer = own.order == CUBLASLT_ORDER_ROW ? own.rows : own.columns,
           inner = own.order == CUBLASLT_ORDER_ROW ? own.columns : own.rows;
  size_t item = own.type == CUDA_R_16BF ? 2 : 4;
  return outer == 0 ? 0 : item * (static_cast<uint64_t>(own.ld) * (outer - 1) + inner);
}

bool well_formed(const layout &own) {
  uint64_t inner = own.order == CUBLASLT_ORDER_ROW ? own.columns : own.rows;
  return own.rows > 0 && own.columns > 0 && own.ld > 0 && static_cast<uint64_t>(own.ld) >= inner;
}

/* Does cuBLASLt know this product at all? */
cublasStatus_t check(const product &wanted, const layout &a, const layout &b, const layout &c, const layout &d) {
  for (const layout *own : {&a, &b, &c, &d}) {
    if (!well_formed(*own))
      return CUBLAS_STATUS_INVALID_VALUE;
    if ((own->type != CUDA_R_32F && own->type != CUDA_R_16BF) ||
        (own->order != CUBLASLT_ORDER_ROW && own->order != CUBLASLT_ORDER_COL))
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  bool at = wanted.transpose_a == CUBLAS_OP_T, bt = wanted.transpose_b == CUBLAS_OP_T;
  if ((at ? a.columns : a.rows) != d.rows || (bt ? b.rows : b.columns) != d.columns ||
      (at ? a.rows : a.columns) != (bt ? b.columns : b.rows) || c.rows != d.rows || c.columns != d.columns)
    return CUBLAS_STATUS_INVALID_VALUE;
  bool plain = wanted.compute == CUBLAS_COMPUTE_32F,
       tf32 = wanted.compute == CUBLAS_COMPUTE_32F_FAST_TF32 && a.type == CUDA_R_32F;
  bool types = a.type == b.type && c.type == d.type && (a.type == CUDA_R_16BF || d.type == CUDA_R_32F);
  bool epilogue = wanted.epilogue == CUBLASLT_EPILOGUE_DEFAULT || wanted.epilogue == CUBLASLT_EPILOGUE_BIAS;
  bool bias = wanted.epilogue != CUBLASLT_EPILOGUE_BIAS || wanted.bias_type == -1 || wanted.bias_type == d.type;
  if (!(plain || tf32) || !types || !epilogue || !bias || wanted.scale != CUDA_R_32F ||
      wanted.pointer_mode != CUBLASLT_POINTER_MODE_HOST)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  return CUBLAS_STATUS_SUCCESS;
}

/* A GPU may have no algorithm for bfloat16 that does not lie on 16 bytes, from line to line: here it has none, for
 * callers who say where their operands lie. */
bool lies_well(const layout &own, uint32_t alignment) {
  return own.type != CUDA_R_16BF || alignment == 0 || (alignment % 16 == 0 && own.ld % 8 == 0);
}

/* --- numbers -------------------------------------------------------------------------------------------------- */

float number(const void *data, cudaDataType type, size_t i) {
  return type == CUDA_R_16BF ? __bfloat162float(static_cast<const __nv_bfloat16 *>(data)[i])
                             : static_cast<const float *>(data)[i];
}

/* As tensor cores read float32: to the nearest of 10 bits, ties to even; NaN stays. */
float tf32(float value) {
  uint32_t bits;
  if (value != value)
    return value;
  memcpy(&bits, &value, sizeof bits);
  bits += 0xfffu + (bits >> 13 & 1);
  bits &= ~0x1fffu;
  memcpy(&value, &bits, sizeof bits);
  return value;
}

/* A matrix as float32, in place or copied; `by_rows` after transposition. */
struct operand {
  const float *data;
  std::vector<float> copied;
  bool by_rows;
  int64_t ld;

  operand(const void *from, const layout &own, bool transposed, cublasComputeType_t compute)
      : data(static_cast<const float *>(from)), by_rows((own.order == CUBLASLT_ORDER_ROW) != transposed), ld(own.ld) {
    bool shortened = compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    if (own.type == CUDA_R_32F && !shortened)
      return;
    size_t count = bytes_of(own) / (own.type == CUDA_R_16BF ? 2 : 4);
    copied.resize(count);
#pragma omp parallel for
    for (size_t i = 0; i < count; i++) {
      float value = number(from, own.type, i);
      copied[i] = shortened ? tf32(value) : value;
    }
    data = copied.data();
  }
};

size_t place(const layout &own, uint64_t row, uint64_t column) {
  return own.order == CUBLASLT_ORDER_ROW ? row * static_cast<uint64_t>(own.ld) + column
                                         : column * static_cast<uint64_t>(own.ld) + row;
}

/* sums [rows, columns] = op(A) op(B), dense by rows. */
void multiply(const operand &a, const operand &b, uint64_t rows, uint64_t columns, uint64_t inner, float *sums) {
  if (dnnl_sgemm(a.by_rows ? 'N' : 'T', b.by_rows ? 'N' : 'T', static_cast<dnnl_dim_t>(rows),
                 static_cast<dnnl_dim_t>(columns), static_cast<dnnl_dim_t>(inner), 1, a.data, a.ld, b.data, b.ld, 0,
                 sums, static_cast<dnnl_dim_t>(columns)) != dnnl_success)
    emulated::undefined("oneDNN refuses a product of matrices");
}

struct matrices {
  product wanted;
  layout a_layout, b_layout, c_layout, d_layout;
  float alpha, beta;
  const void *a, *b, *c;
  void *d;
};

void run(const matrices &own) {
  const layout &d_layout = own.d_layout;
  bool at = own.wanted.transpose_a == CUBLAS_OP_T, bt = own.wanted.transpose_b == CUBLAS_OP_T;
  uint64_t rows = d_layout.rows, columns = d_layout.columns, inner = at ? own.a_layout.rows : own.a_layout.columns;
  operand a(own.a, own.a_layout, at, own.wanted.compute), b(own.b, own.b_layout, bt, own.wanted.compute);
  std::unique_ptr<float[]> sums(new float[rows * columns]);
  multiply(a, b, rows, columns, inner, sums.get());
  bool biased = own.wanted.epilogue == CUBLASLT_EPILOGUE_BIAS;
#pragma omp parallel for
  for (uint64_t row = 0; row < rows; row++) {
    float bias = biased ? number(own.wanted.bias, d_layout.type, row) : 0;
    for (uint64_t column = 0; column < columns; column++) {
      float value = own.alpha * sums[row * columns + column];
      if (own.beta != 0)
        value += own.beta * number(own.c, own.c_layout.type, place(own.c_layout, row, column));
      if (biased)
        value += bias;
      size_t at_place = place(d_layout, row, column);
      if (d_layout.type == CUDA_R_16BF)
        static_cast<__nv_bfloat16 *>(own.d)[at_place] = __float2bfloat16_rn(value);
      else
        static_cast<float *>(own.d)[at_place] = value;
    }
  }
}

bool in_device_memory(const matrices &own) {
  size_t bias_bytes = own.d_layout.rows * (own.d_layout.type == CUDA_R_16BF ? 2 : 4);
  return emulated::on_device(own.a, bytes_of(own.a_layout)) && emulated::on_device(own.b, bytes_of(own.b_layout)) &&
         (own.beta == 0 || emulated::on_device(own.c, bytes_of(own.c_layout))) &&
         emulated::on_device(own.d, bytes_of(own.d_layout)) &&
         (own.wanted.epilogue != CUBLASLT_EPILOGUE_BIAS || emulated::on_device(own.wanted.bias, bias_bytes));
}

} // namespace

extern "C" {

size_t cublasLtGetVersion() {
  return 130100;
}

const char *cublasLtGetStatusName(cublasStatus_t status) {
  switch (status) {
  case CUBLAS_STATUS_SUCCESS:
    return "CUBLAS_STATUS_SUCCESS";
  case CUBLAS_STATUS_INVALID_VALUE:
    return "CUBLAS_STATUS_INVALID_VALUE";
  case CUBLAS_STATUS_NOT_SUPPORTED:
    return "CUBLAS_STATUS_NOT_SUPPORTED";
  case CUBLAS_STATUS_EXECUTION_FAILED:
    return "CUBLAS_STATUS_EXECUTION_FAILED";
  default:
    return "CUBLAS_STATUS";
  }
}

const char *cublasLtGetStatusString(cublasStatus_t status) {
  switch (status) {
  case CUBLAS_STATUS_SUCCESS:
    return "success";
  case CUBLAS_STATUS_INVALID_VALUE:
    return "an unsupported value or parameter was passed to the function";
  case CUBLAS_STATUS_NOT_SUPPORTED:
    return "the requested functionality is not supported";
  case CUBLAS_STATUS_EXECUTION_FAILED:
    return "the GPU program failed to execute";
  default:
    return "an error of cuBLASLt";
  }
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *out) {
  *out = reinterpret_cast<cublasLtHandle_t>(new int(0));
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete reinterpret_cast<int *>(handle);
  return CUBLAS_STATUS_SUCCESS;
}

/* --- layouts -------------------------------------------------------------------------------------------------- */

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t out, size_t bytes, cudaDataType type,
                                                 uint64_t rows, uint64_t columns, int64_t ld) {
  if (bytes < sizeof(layout))
    return CUBLAS_STATUS_INVALID_VALUE;
  *in(out) = layout{type, CUBLASLT_ORDER_COL, rows, columns, ld};
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t ld) {
  *out = new cublasLtMatrixLayoutOpaque_t;
  return cublasLtMatrixLayoutInit_internal(*out, sizeof **out, type, rows, columns, ld);
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t own) {
  delete own;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t own, cublasLtMatrixLayoutAttribute_t attribute,
                                                const void *buffer, size_t bytes) {
  switch (attribute) {
  case CUBLASLT_MATRIX_LAYOUT_ORDER:
    return set(&in(own)->order, buffer, bytes);
  case CUBLASLT_MATRIX_LAYOUT_TYPE:
    return set(&in(own)->type, buffer, bytes);
  case CUBLASLT_MATRIX_LAYOUT_ROWS:
    return set(&in(own)->rows, buffer, bytes);
  case CUBLASLT_MATRIX_LAYOUT_COLS:
    return set(&in(own)->columns, buffer, bytes);
  case CUBLASLT_MATRIX_LAYOUT_LD:
    return set(&in(own)->ld, buffer, bytes);
  default:
    emulated::undefined("batches of matrices are not emulated");
  }
}

/* --- products ------------------------------------------------------------------------------------------------- */

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t out, size_t bytes, cublasComputeType_t compute,
                                               cudaDataType_t scale) {
  if (bytes < sizeof(product))
    return CUBLAS_STATUS_INVALID_VALUE;
  *in(out) = product{compute, scale, CUBLASLT_POINTER_MODE_HOST, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT,
                     nullptr, -1};
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t compute, cudaDataType_t scale) {
  *out = new cublasLtMatmulDescOpaque_t;
  return cublasLtMatmulDescInit_internal(*out, sizeof **out, compute, scale);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t own) {
  delete own;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t own, cublasLtMatmulDescAttributes_t attribute,
                                              const void *buffer, size_t bytes) {
  switch (attribute) {
  case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE:
    return set(&in(own)->compute, buffer, bytes);
  case CUBLASLT_MATMUL_DESC_SCALE_TYPE:
    return set(&in(own)->scale, buffer, bytes);
  case CUBLASLT_MATMUL_DESC_POINTER_MODE:
    return set(&in(own)->pointer_mode, buffer, bytes);
  case CUBLASLT_MATMUL_DESC_TRANSA:
    return set(&in(own)->transpose_a, buffer, bytes);
  case CUBLASLT_MATMUL_DESC_TRANSB:
    return set(&in(own)->transpose_b, buffer, bytes);
  case CUBLASLT_MATMUL_DESC_EPILOGUE:
    return set(&in(own)->epilogue, buffer, bytes);
  case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
    return set(&in(own)->bias, buffer, bytes);
  case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
    return set(&in(own)->bias_type, buffer, bytes);
  default:
    emulated::undefined("cublasLtMatmulDescSetAttribute() knows only a few attributes");
  }
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t own, size_t) {
  *in(own) = preference{0, 0};
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out) {
  *out = new cublasLtMatmulPreferenceOpaque_t;
  return cublasLtMatmulPreferenceInit_internal(*out, sizeof **out);
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t own) {
  delete own;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t own,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void *buffer,
                                                    size_t bytes) {
  switch (attribute) {
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    return set(&in(own)->alignment_a, buffer, bytes);
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    return set(&in(own)->alignment_b, buffer, bytes);
  default:
    return CUBLAS_STATUS_SUCCESS;
  }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t wanted, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t own, int asked,
                                              cublasLtMatmulHeuristicResult_t results[], int *found) {
  *found = 0;
  cublasStatus_t status = check(*in(wanted), *in(a), *in(b), *in(c), *in(d));
  if (status != CUBLAS_STATUS_SUCCESS)
    return status;
  if (asked < 1 || (in(wanted)->epilogue == CUBLASLT_EPILOGUE_BIAS && in(wanted)->bias == nullptr))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (!lies_well(*in(a), in(own)->alignment_a) || !lies_well(*in(b), in(own)->alignment_b))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  memset(&results[0], 0, sizeof results[0]);
  results[0].state = CUBLAS_STATUS_SUCCESS;
  results[0].wavesCount = 1;
  *found = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t wanted, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  cublasStatus_t status = check(*in(wanted), *in(a_layout), *in(b_layout), *in(c_layout), *in(d_layout));
  if (status != CUBLAS_STATUS_SUCCESS)
    return status;
  matrices own = {*in(wanted),
                  *in(a_layout),
                  *in(b_layout),
                  *in(c_layout),
                  *in(d_layout),
                  *static_cast<const float *>(alpha),
                  *static_cast<const float *>(beta),
                  a,
                  b,
                  c,
                  d};
  if (!in_device_memory(own) || (workspace_bytes > 0 && !emulated::on_device(workspace, workspace_bytes)))
    return CUBLAS_STATUS_INVALID_VALUE;
  return emulated::enqueue(stream, [own] { run(own); }) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                                       : CUBLAS_STATUS_EXECUTION_FAILED;
}

} // extern "C"
