/* Tests the emulated products of matrices against three loops: tests/test_device.c. */
#include "dist/cuda.h"
#include "emulated_state.h"

#include <cmath>
#include <cublasLt.h>
#include <cuda_bf16.h>

extern "C" enum status emulated_test_products(struct stream *stream, int *cases, double *worst);

namespace {

/* A matrix [rows, columns] in device memory, and its numbers. */
struct numbers {
  uint64_t rows, columns;
  cudaDataType type;
  int32_t order;
  int64_t ld;
  void *data = nullptr;
  cublasLtMatrixLayout_t layout = nullptr;

  numbers(uint64_t rows_, uint64_t columns_, bool bf16, bool by_rows)
      : rows(rows_), columns(columns_), type(bf16 ? CUDA_R_16BF : CUDA_R_32F),
        order(by_rows ? CUBLASLT_ORDER_ROW : CUBLASLT_ORDER_COL),
        ld(static_cast<int64_t>(by_rows ? columns : rows) + 3) {
    cudaMalloc(&data, bytes());
    cublasLtMatrixLayoutCreate(&layout, type, rows, columns, ld);
    cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_ORDER, &order, sizeof order);
  }
  numbers(const numbers &) = delete;
  ~numbers() {
    cublasLtMatrixLayoutDestroy(layout);
    cudaFree(data);
  }
  size_t bytes() const {
    return static_cast<size_t>(ld) * (order == CUBLASLT_ORDER_ROW ? rows : columns) * (type == CUDA_R_16BF ? 2 : 4);
  }
  size_t place(uint64_t row, uint64_t column) const {
    return order == CUBLASLT_ORDER_ROW ? row * static_cast<uint64_t>(ld) + column
                                       : column * static_cast<uint64_t>(ld) + row;
  }
  float get(uint64_t row, uint64_t column) const {
    size_t i = place(row, column);
    return type == CUDA_R_16BF ? __bfloat162float(static_cast<__nv_bfloat16 *>(data)[i])
                               : static_cast<float *>(data)[i];
  }
  void fill(int seed) {
    for (uint64_t row = 0; row < rows; row++)
      for (uint64_t column = 0; column < columns; column++) {
        float value =
            static_cast<float>(static_cast<int>((row * 7 + column * 3 + static_cast<uint64_t>(seed)) % 5) - 2);
        if (type == CUDA_R_16BF)
          static_cast<__nv_bfloat16 *>(data)[place(row, column)] = __float2bfloat16_rn(value);
        else
          static_cast<float *>(data)[place(row, column)] = value;
      }
  }
};

double product_error(cublasLtHandle_t handle, cudaStream_t stream, bool in16, bool out16, unsigned shape, bool biased,
                     float beta) {
  const uint64_t rows = 5, columns = 7, inner = 11;
  cublasOperation_t at = shape & 1 ? CUBLAS_OP_T : CUBLAS_OP_N, bt = shape & 2 ? CUBLAS_OP_T : CUBLAS_OP_N;
  numbers a(shape & 1 ? inner : rows, shape & 1 ? rows : inner, in16, shape & 4),
      b(shape & 2 ? columns : inner, shape & 2 ? inner : columns, in16, shape & 8), d(rows, columns, out16, shape & 16),
      before(rows, columns, out16, shape & 16), bias(rows, 1, out16, false);
  const float alpha = 2;
  uint32_t epilogue = biased ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  cublasLtMatmulDesc_t wanted;
  cublasLtMatmulPreference_t preference;
  a.fill(1);
  b.fill(2);
  bias.fill(3);
  if (beta != 0) {
    d.fill(4); /* in place; else what nobody wrote */
    before.fill(4);
  }
  cublasLtMatmulPreferenceCreate(&preference);
  cublasLtMatmulDescCreate(&wanted, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  cublasLtMatmulDescSetAttribute(wanted, CUBLASLT_MATMUL_DESC_TRANSA, &at, sizeof at);
  cublasLtMatmulDescSetAttribute(wanted, CUBLASLT_MATMUL_DESC_TRANSB, &bt, sizeof bt);
  cublasLtMatmulDescSetAttribute(wanted, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
  cublasLtMatmulDescSetAttribute(wanted, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias.data, sizeof bias.data);
  cublasLtMatmulHeuristicResult_t found[1];
  int count = 0;
  bool good = cublasLtMatmulAlgoGetHeuristic(handle, wanted, a.layout, b.layout, d.layout, d.layout, preference, 1,
                                             found, &count) == CUBLAS_STATUS_SUCCESS &&
              count == 1 &&
              cublasLtMatmul(handle, wanted, &alpha, a.data, a.layout, b.data, b.layout, &beta, d.data, d.layout,
                             d.data, d.layout, &found[0].algo, nullptr, 0, stream) == CUBLAS_STATUS_SUCCESS &&
              cudaStreamSynchronize(stream) == cudaSuccess;
  cublasLtMatmulDescDestroy(wanted);
  cublasLtMatmulPreferenceDestroy(preference);
  double worst = good ? 0 : 1;
  for (uint64_t i = 0; good && i < rows; i++)
    for (uint64_t j = 0; j < columns; j++) {
      float sum = 0;
      for (uint64_t k = 0; k < inner; k++)
        sum += (shape & 1 ? a.get(k, i) : a.get(i, k)) * (shape & 2 ? b.get(j, k) : b.get(k, j));
      sum = alpha * sum + (beta != 0 ? beta * before.get(i, j) : 0) + (biased ? bias.get(i, 0) : 0);
      if (out16)
        sum = __bfloat162float(__float2bfloat16_rn(sum));
      double error = std::fabs(static_cast<double>(d.get(i, j)) - static_cast<double>(sum));
      worst = error <= worst ? worst : error; /* a NaN is the worst */
    }
  return worst;
}

} // namespace

extern "C" enum status emulated_test_products(struct stream *stream, int *cases, double *worst) {
  static const bool types[3][2] = {{false, false}, {true, false}, {true, true}};
  cublasLtHandle_t handle;
  *cases = 0;
  *worst = 0;
  emulated::guard lock(emulated::the().lock);
  emulated::access open; /* to fill and to read matrices from here */
  cublasLtCreate(&handle);
  for (const bool *type : types)
    for (unsigned shape = 0; shape < 32; shape++)
      for (int biased = 0; biased < 2; biased++)
        for (float beta : {0.0f, 3.0f}) {
          double error = product_error(handle, cuda_stream(stream), type[0], type[1], shape, biased != 0, beta);
          *worst = error <= *worst ? *worst : error;
          ++*cases;
        }
  cublasLtDestroy(handle);
  return STATUS_OK;
}
