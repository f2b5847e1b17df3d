/* What kernels of terms on gathered rows share. */
#include "loss/rows_kernels.h"

#include "loss/kernels.cuh"

static __global__ void __launch_bounds__(THREADS) value_kernel(int64_t rows, const double *values, double *value) {
  __shared__ sum_of_double tree[THREADS];
  double sum = 0;
  for (int64_t row = threadIdx.x; row < rows; row += THREADS)
    sum += values[row];
  sum = sum_block(tree, sum);
  if (threadIdx.x == 0)
    *value = sum;
}

extern "C" enum status rows_value_launch(int64_t rows, const double *values, double *value, struct stream *stream) {
  LAUNCH_BLOCKS(value_kernel, 1, THREADS, cuda_stream(stream), rows, values, value);
  return cuda_launched("adding up the values of rows");
}
