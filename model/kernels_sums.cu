/* Sums over rows in two levels: parts of the rows by blocks, then the parts.  How rows are cut depends on the shape
 * alone, and nothing is added by atomics: equal shapes give equal bits.  The first level is bound by memory, the second
 * by its launch. */
#include "model/kernels.cuh"

/* --- the second level ---------------------------------------------------------------------------------------- */

/* A block sums COLUMNS columns; the parts of each are spread over LANES threads. */
enum { COLUMNS = 8, LANES = THREADS / COLUMNS };

static __global__ void __launch_bounds__(THREADS)
    finish_kernel(int parts, int64_t columns, const double *partials, float *sums) {
  __shared__ double shared[THREADS];
  int lane = (int)threadIdx.x / COLUMNS;
  int64_t column = (int64_t)blockIdx.x * COLUMNS + threadIdx.x % COLUMNS;
  double sum = 0;
  for (int part = lane; part < parts && column < columns; part += LANES)
    sum += partials[part * columns + column];
  shared[threadIdx.x] = sum;
  for (int half = LANES / 2; half > 0; half /= 2) {
    __syncthreads();
    if (lane < half)
      shared[threadIdx.x] += shared[threadIdx.x + half * COLUMNS];
  }
  if (lane == 0 && column < columns)
    sums[column] = (float)shared[threadIdx.x];
}

/* One part or two, or none: nothing to spread. */
static __global__ void __launch_bounds__(THREADS)
    finish_few_kernel(int parts, int64_t columns, const double *partials, float *sums) {
  int64_t step = (int64_t)gridDim.x * THREADS;
  for (int64_t column = (int64_t)blockIdx.x * THREADS + threadIdx.x; column < columns; column += step) {
    double sum = 0;
    for (int part = 0; part < parts; part++)
      sum += partials[part * columns + column];
    sums[column] = (float)sum;
  }
}

extern "C" enum status finish_sums_launch(struct stream *stream, int parts, int64_t columns, const double *partials,
                                          float *sums) {
  if (parts <= 2) {
    LAUNCH(finish_few_kernel, blocks_for((size_t)columns), THREADS, cuda_stream(stream), parts, columns, partials,
           sums);
    return cuda_launched("sums of parts");
  }
  LAUNCH_BLOCKS(finish_kernel, (int)((columns + COLUMNS - 1) / COLUMNS), THREADS, cuda_stream(stream), parts, columns,
                partials, sums);
  return cuda_launched("sums of parts");
}

/* --- columns ------------------------------------------------------------------------------------------------- */

enum { CHUNK = 64 }; /* rows that a thread sums in float before it goes on in double */

template <typename T, int N>
static __global__ void __launch_bounds__(THREADS) column_sums_kernel(struct sweep sweep, const T *a, double *partials) {
  __shared__ double shared[N][THREADS];
  struct sweep_place place = sweep_place(sweep, (int)blockIdx.x);
  bool works = place.group < sweep.groups;
  double total[N] = {0};
  for (int64_t row = place.first; works && row < place.end;) {
    float sum[N] = {0}, v[N];
    UNROLL_BY(4)
    for (int i = 0; i < CHUNK && row < place.end; i++, row += place.step) {
      load(a + row * sweep.channels + (int64_t)place.group * N, v);
      UNROLL
      for (int k = 0; k < N; k++)
        sum[k] += v[k];
    }
    UNROLL
    for (int k = 0; k < N; k++)
      total[k] += (double)sum[k];
  }
  UNROLL
  for (int k = 0; k < N; k++)
    shared[k][threadIdx.x] = total[k];
  for (int half = (int)place.step / 2; half > 0; half /= 2) {
    __syncthreads();
    if (place.down < half)
      for (int k = 0; k < N; k++)
        shared[k][threadIdx.x] += shared[k][threadIdx.x + half * sweep.across];
  }
  if (place.down == 0 && works)
    for (int k = 0; k < N; k++)
      partials[(int64_t)blockIdx.y * sweep.channels + (int64_t)place.group * N + k] = shared[k][threadIdx.x];
}

template <typename T, int N>
static enum status column_sums(struct stream *stream, int64_t rows, int64_t columns, const T *a, double *partials,
                               float *sums) {
  struct sweep sweep = sweep_cut(rows, columns, N, BLOCKS_SUMS, 8, PARTIALS / columns);
  auto kernel = column_sums_kernel<T, N>;
  if (sweep.parts > 0) {
    LAUNCH_BLOCKS(kernel, dim3(sweep.blocks, sweep.parts), THREADS, cuda_stream(stream), sweep, a, partials);
    TRY(cuda_launched("column sums"));
  }
  return finish_sums_launch(stream, sweep.parts, columns, partials, sums);
}

extern "C" enum status column_sums_launch(struct stream *stream, enum dtype dtype, int64_t rows, int64_t columns,
                                          const void *a, double *partials, float *sums) {
  bool vectors = columns % VECTOR == 0 && on_16_bytes(a);
  REQUIRE(columns <= PARTIALS, ERR_BUG, "%lld columns are too many to sum", (long long)columns);
  if (dtype == BF16)
    return vectors ? column_sums<bf16, VECTOR>(stream, rows, columns, (const bf16 *)a, partials, sums)
                   : column_sums<bf16, 1>(stream, rows, columns, (const bf16 *)a, partials, sums);
  return vectors ? column_sums<float, VECTOR>(stream, rows, columns, (const float *)a, partials, sums)
                 : column_sums<float, 1>(stream, rows, columns, (const float *)a, partials, sums);
}

/* --- squares ------------------------------------------------------------------------------------------------- */

/* Blocks, and so the order of all additions, depend on count alone; so it does not matter whether x lies on 16
 * bytes. */
enum { SQUARES_AT_ONCE = 4, SQUARES_BLOCKS = 1024 };

/* The sum over the threads of a block, for thread 0. */
static __device__ __forceinline__ double block_sum(double own) {
  __shared__ double shared[THREADS];
  shared[threadIdx.x] = own;
  for (int half = THREADS / 2; half > 0; half /= 2) {
    __syncthreads();
    if ((int)threadIdx.x < half)
      shared[threadIdx.x] += shared[threadIdx.x + half];
  }
  return threadIdx.x == 0 ? shared[0] : 0;
}

static __global__ void __launch_bounds__(THREADS)
    squares_kernel(size_t count, bool vectors, const float *x, double *partials) {
  size_t step = (size_t)gridDim.x * blockDim.x * SQUARES_AT_ONCE;
  double sum = 0;
  for (size_t at = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * SQUARES_AT_ONCE; at < count; at += step) {
    float v[SQUARES_AT_ONCE] = {0};
    if (vectors && at + SQUARES_AT_ONCE <= count) {
      float4 four = *(const float4 *)(x + at);
      memcpy(v, &four, sizeof four);
    } else {
      for (int k = 0; k < SQUARES_AT_ONCE && at + k < count; k++)
        v[k] = x[at + k];
    }
    UNROLL
    for (int k = 0; k < SQUARES_AT_ONCE; k++)
      sum += (double)v[k] * (double)v[k];
  }
  double total = block_sum(sum);
  if (threadIdx.x == 0)
    partials[blockIdx.x] = total;
}

/* The sum of the parts, beside what is in *result or instead. */
static __global__ void __launch_bounds__(THREADS)
    squares_finish_kernel(int parts, const double *partials, bool add, double *result) {
  double sum = 0;
  for (int part = (int)threadIdx.x; part < parts; part += THREADS)
    sum += partials[part];
  double total = block_sum(sum);
  if (threadIdx.x == 0)
    *result = add ? *result + total : total;
}

extern "C" enum status sum_squares_launch(struct stream *stream, size_t count, const float *x, double *partials,
                                          double *result) {
  size_t wanted = (count + THREADS * SQUARES_AT_ONCE - 1) / (THREADS * SQUARES_AT_ONCE);
  int parts = wanted < SQUARES_BLOCKS ? (int)wanted : SQUARES_BLOCKS;
  if (parts > 0) {
    LAUNCH_BLOCKS(squares_kernel, parts, THREADS, cuda_stream(stream), count, on_16_bytes(x), x, partials);
    TRY(cuda_launched("sum of squares"));
  }
  LAUNCH_BLOCKS(squares_finish_kernel, 1, THREADS, cuda_stream(stream), parts, (const double *)partials, false, result);
  return cuda_launched("sum of squares");
}

/* Threads go through elements as squares_kernel's do; a difference is stored over x after it was read. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    squared_error_kernel(size_t count, float factor, const T *x, const T *y, T *grad, double *partials) {
  size_t step = (size_t)gridDim.x * blockDim.x;
  double sum = 0;
  for (size_t at = (size_t)blockIdx.x * blockDim.x + threadIdx.x; at < count; at += step) {
    float difference = to_float(x[at]) - to_float(y[at]);
    from_float(factor * difference, grad + at);
    sum += (double)difference * (double)difference;
  }
  double total = block_sum(sum);
  if (threadIdx.x == 0)
    partials[blockIdx.x] = total;
}

extern "C" enum status squared_error_launch(struct stream *stream, enum dtype dtype, size_t count, double factor,
                                            const void *x, const void *y, void *grad, double *partials, double *sum) {
  size_t wanted = (count + THREADS * SQUARES_AT_ONCE - 1) / (THREADS * SQUARES_AT_ONCE);
  int parts = wanted < SQUARES_BLOCKS ? (int)wanted : SQUARES_BLOCKS;
  if (parts == 0)
    return STATUS_OK;
  if (dtype == BF16)
    LAUNCH_BLOCKS(squared_error_kernel<bf16>, parts, THREADS, cuda_stream(stream), count, (float)factor,
                  (const bf16 *)x, (const bf16 *)y, (bf16 *)grad, partials);
  else
    LAUNCH_BLOCKS(squared_error_kernel<float>, parts, THREADS, cuda_stream(stream), count, (float)factor,
                  (const float *)x, (const float *)y, (float *)grad, partials);
  TRY(cuda_launched("squared error"));
  if (sum == NULL)
    return STATUS_OK;
  LAUNCH_BLOCKS(squares_finish_kernel, 1, THREADS, cuda_stream(stream), parts, (const double *)partials, true, sum);
  return cuda_launched("squared error");
}
