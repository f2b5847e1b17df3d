/* Products of a linear layer with few outputs (the head of a network), and any that cuBLASLt does not take.  With
 * OUTPUTS outputs or fewer they are bound by memory: x, or its gradient, is moved once. */
#include "model/kernels.cuh"

enum { OUTPUTS = FEW_OUTPUTS, WARP = 32 };

/* --- y = x W^T + b ------------------------------------------------------------------------------------------- */

/* A warp makes OUTPUTS outputs of one row; its lanes walk along the inputs. */
template <typename X, typename Y, int N>
static __global__ void __launch_bounds__(THREADS)
    forward_kernel(int64_t rows, int64_t in, int64_t out, const X *x, const float *weight, const float *bias, Y *y) {
  int64_t pieces = (out + OUTPUTS - 1) / OUTPUTS, warps = (int64_t)gridDim.x * (THREADS / WARP);
  int lane = (int)threadIdx.x % WARP;
  for (int64_t at = (int64_t)blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP; at < rows * pieces; at += warps) {
    int64_t row = at / pieces, first = at % pieces * OUTPUTS;
    float sum[OUTPUTS] = {0}, v[N], w[N];
    for (int64_t i = (int64_t)lane * N; i < in; i += WARP * N) {
      load(x + row * in + i, v);
      UNROLL
      for (int o = 0; o < OUTPUTS; o++) {
        if (first + o >= out)
          continue;
        load(weight + (first + o) * in + i, w);
        UNROLL
        for (int k = 0; k < N; k++)
          sum[o] += v[k] * w[k];
      }
    }
    UNROLL
    for (int o = 0; o < OUTPUTS; o++) {
      for (int half = WARP / 2; half > 0; half /= 2)
        sum[o] += __shfl_xor_sync(0xffffffffu, sum[o], half);
      if (lane == o && first + o < out)
        from_float(sum[o] + (bias != NULL ? bias[first + o] : 0), y + row * out + first + o);
    }
  }
}

template <typename X, typename Y>
static enum status forward(struct stream *stream, int64_t rows, int64_t in, int64_t out, const void *x,
                           const float *weight, const float *bias, void *y) {
  bool vectors = in % VECTOR == 0 && on_16_bytes(x) && on_16_bytes(weight);
  size_t warps = (size_t)(rows * ((out + OUTPUTS - 1) / OUTPUTS));
  auto kernel = vectors ? forward_kernel<X, Y, VECTOR> : forward_kernel<X, Y, 1>;
  LAUNCH_BLOCKS(kernel, blocks_for(warps * WARP), THREADS, cuda_stream(stream), rows, in, out, (const X *)x, weight,
                bias, (Y *)y);
  return cuda_launched("linear");
}

extern "C" enum status linear_forward_launch(struct stream *stream, enum dtype dtype, enum dtype dtype_y, int64_t rows,
                                             int64_t in, int64_t out, const void *x, const float *weight,
                                             const float *bias, void *y) {
  if (rows == 0)
    return STATUS_OK;
  if (dtype == F32)
    return forward<float, float>(stream, rows, in, out, x, weight, bias, y);
  return dtype_y == F32 ? forward<bf16, float>(stream, rows, in, out, x, weight, bias, y)
                        : forward<bf16, bf16>(stream, rows, in, out, x, weight, bias, y);
}

/* --- grad_x = grad_y W --------------------------------------------------------------------------------------- */

/* A thread makes N inputs of one row. */
template <typename X, typename Y> struct backward_data {
  int64_t in, out;
  const Y *grad_y;
  const float *weight;
  X *grad_x;
  template <int N> __device__ void apply(size_t at) const {
    int64_t row = (int64_t)at / in, i = (int64_t)at - row * in;
    float sum[N] = {0}, w[N];
    for (int64_t o = 0; o < out; o++) {
      float g = to_float(grad_y[row * out + o]);
      load(weight + o * in + i, w);
      UNROLL
      for (int k = 0; k < N; k++)
        sum[k] += g * w[k];
    }
    store(sum, grad_x + at);
  }
};

template <typename X, typename Y>
static enum status backward(struct stream *stream, int64_t rows, int64_t in, int64_t out, const void *grad_y,
                            const float *weight, void *grad_x) {
  bool vectors = in % VECTOR == 0 && on_16_bytes(weight) && on_16_bytes(grad_x);
  return each(stream, "linear backward", (size_t)(rows * in), vectors,
              backward_data<X, Y>{in, out, (const Y *)grad_y, weight, (X *)grad_x});
}

extern "C" enum status linear_backward_data_launch(struct stream *stream, enum dtype dtype, enum dtype dtype_y,
                                                   int64_t rows, int64_t in, int64_t out, const void *grad_y,
                                                   const float *weight, void *grad_x) {
  if (dtype == F32)
    return backward<float, float>(stream, rows, in, out, grad_y, weight, grad_x);
  return dtype_y == F32 ? backward<bf16, float>(stream, rows, in, out, grad_y, weight, grad_x)
                        : backward<bf16, bf16>(stream, rows, in, out, grad_y, weight, grad_x);
}

/* --- grad_weight = grad_y^T x -------------------------------------------------------------------------------- */

/* Rows that a thread sums in float; their sums are added in double.  LEAST_DOWN threads of a block at least are
 * rows. */
enum { CHUNK = 64, LEAST_DOWN = THREADS / 32 };

/* A part of the weights that is summed at once: `outputs` rows of them from `output` on, and as many inputs as the
 * sweep has channels, from `input` on.  Weights are [out, in]. */
struct slice {
  int64_t in, out, input, output, outputs;
};

/* Sums over rows as those of kernels_sums.cu, for OUTPUTS outputs at a time: block b of the grid's x is block b %
 * sweep.blocks of the columns, and outputs of the slice from b / sweep.blocks * OUTPUTS on.
 * partials [parts, outputs, channels of the sweep] */
template <typename X, typename Y, int N>
static __global__ void __launch_bounds__(THREADS)
    weights_kernel(struct sweep sweep, struct slice slice, const X *x, const Y *grad_y, double *partials) {
  __shared__ double shared[N][THREADS];
  struct sweep_place place = sweep_place(sweep, (int)blockIdx.x % sweep.blocks);
  int64_t first = (int64_t)((int)blockIdx.x / sweep.blocks) * OUTPUTS, column = (int64_t)place.group * N;
  bool works = place.group < sweep.groups;
  float sum[OUTPUTS][N] = {}, v[N];
  for (int64_t row = place.first; works && row < place.end; row += place.step) {
    load(x + row * slice.in + slice.input + column, v);
    UNROLL
    for (int o = 0; o < OUTPUTS; o++) {
      float g = first + o < slice.outputs ? to_float(grad_y[row * slice.out + slice.output + first + o]) : 0;
      UNROLL
      for (int k = 0; k < N; k++)
        sum[o][k] += g * v[k];
    }
  }
  UNROLL
  for (int o = 0; o < OUTPUTS; o++) {
    UNROLL
    for (int k = 0; k < N; k++)
      shared[k][threadIdx.x] = (double)sum[o][k];
    for (int half = (int)place.step / 2; half > 0; half /= 2) {
      __syncthreads();
      for (int k = 0; k < N && place.down < half; k++)
        shared[k][threadIdx.x] += shared[k][threadIdx.x + half * sweep.across];
    }
    if (place.down == 0 && works && first + o < slice.outputs)
      for (int k = 0; k < N; k++)
        partials[((int64_t)blockIdx.y * slice.outputs + first + o) * sweep.channels + column + k] =
            shared[k][threadIdx.x];
    __syncthreads(); /* before the next output's sums take their place */
  }
}

/* parts: so many at least. */
template <typename X, typename Y, int N>
static enum status weights_slice(struct stream *stream, int64_t rows, int64_t parts, int64_t inputs,
                                 const struct slice &slice, const X *x, const Y *grad_y, double *partials,
                                 float *grad_weight) {
  int pieces = (int)((slice.outputs + OUTPUTS - 1) / OUTPUTS);
  int64_t least = parts * ((inputs / N + 31) / 32), most = BLOCKS_SUMS / pieces > least ? BLOCKS_SUMS / pieces : least;
  struct sweep sweep = sweep_cut(rows, inputs, N, most, 8, PARTIALS / (inputs * slice.outputs));
  auto kernel = weights_kernel<X, Y, N>;
  if (sweep.parts > 0) {
    LAUNCH_BLOCKS(kernel, dim3((unsigned)(sweep.blocks * pieces), (unsigned)sweep.parts), THREADS, cuda_stream(stream),
                  sweep, slice, x, grad_y, partials);
    TRY(cuda_launched("linear backward for weights"));
  }
  return finish_sums_launch(stream, sweep.parts, inputs * slice.outputs, partials,
                            grad_weight + slice.output * slice.in + slice.input);
}

/* In slices that `partials` has room for, in as many parts as keep a thread's rows below CHUNK: slices of whole rows of
 * the weights, or else of one row.  Nearly always there is one. */
template <typename X, typename Y, int N>
static enum status weights(struct stream *stream, int64_t rows, int64_t in, int64_t out, const X *x, const Y *grad_y,
                           double *partials, float *grad_weight) {
  int64_t parts = rows > 0 ? (rows + LEAST_DOWN * CHUNK - 1) / (LEAST_DOWN * CHUNK) : 1;
  REQUIRE(parts <= UINT16_MAX, ERR_BUG, "%lld rows are too many to sum", (long long)rows); /* of a grid */
  int64_t most_inputs = PARTIALS / parts / VECTOR * VECTOR;
  int64_t inputs = in < most_inputs ? in : most_inputs, most_outputs = PARTIALS / parts / inputs;
  int64_t outputs = most_outputs < out ? most_outputs : out;
  for (int64_t o = 0; o < out; o += outputs)
    for (int64_t i = 0; i < in; i += inputs) {
      struct slice slice = {in, out, i, o, outputs < out - o ? outputs : out - o};
      TRY((weights_slice<X, Y, N>(stream, rows, parts, inputs < in - i ? inputs : in - i, slice, x, grad_y, partials,
                                  grad_weight)));
    }
  return STATUS_OK;
}

template <typename X, typename Y>
static enum status weights_of(struct stream *stream, int64_t rows, int64_t in, int64_t out, const void *x,
                              const void *grad_y, double *partials, float *grad_weight) {
  bool vectors = in % VECTOR == 0 && on_16_bytes(x);
  return vectors ? weights<X, Y, VECTOR>(stream, rows, in, out, (const X *)x, (const Y *)grad_y, partials, grad_weight)
                 : weights<X, Y, 1>(stream, rows, in, out, (const X *)x, (const Y *)grad_y, partials, grad_weight);
}

extern "C" enum status linear_backward_weights_launch(struct stream *stream, enum dtype dtype, enum dtype dtype_y,
                                                      int64_t rows, int64_t in, int64_t out, const void *x,
                                                      const void *grad_y, double *partials, float *grad_weight) {
  if (dtype == F32)
    return weights_of<float, float>(stream, rows, in, out, x, grad_y, partials, grad_weight);
  return dtype_y == F32 ? weights_of<bf16, float>(stream, rows, in, out, x, grad_y, partials, grad_weight)
                        : weights_of<bf16, bf16>(stream, rows, in, out, x, grad_y, partials, grad_weight);
}
