/* Kernels that take one element after the other: activations, scaling, adding.  All are bound by memory: at least four
 * bytes are moved for each handful of instructions. */
#include "model/kernels.cuh"

/* --- activations --------------------------------------------------------------------------------------------- */

/* Written so that NaN is neither <= 0 nor replaced. */
template <typename T> struct relu_forward {
  const T *x;
  T *y;
  template <int N> __device__ void apply(size_t at) const {
    float v[N];
    load(x + at, v);
    UNROLL
    for (int k = 0; k < N; k++)
      v[k] = v[k] <= 0 ? 0 : v[k];
    store(v, y + at);
  }
};

template <typename T> struct relu_backward {
  const T *y, *grad_y;
  T *grad_x;
  template <int N> __device__ void apply(size_t at) const {
    float v[N], g[N];
    load(y + at, v);
    load(grad_y + at, g);
    UNROLL
    for (int k = 0; k < N; k++)
      g[k] = v[k] <= 0 ? 0 : g[k];
    store(g, grad_x + at);
  }
};

template <typename T> struct tanh_forward {
  const T *x;
  T *y;
  template <int N> __device__ void apply(size_t at) const {
    float v[N];
    load(x + at, v);
    UNROLL
    for (int k = 0; k < N; k++)
      v[k] = tanhf(v[k]);
    store(v, y + at);
  }
};

template <typename T> struct tanh_backward {
  const T *y, *grad_y;
  T *grad_x;
  template <int N> __device__ void apply(size_t at) const {
    float v[N], g[N];
    load(y + at, v);
    load(grad_y + at, g);
    UNROLL
    for (int k = 0; k < N; k++)
      g[k] = g[k] * (1 - v[k] * v[k]);
    store(g, grad_x + at);
  }
};

/* Phi(x), the share of a standard normal below x.  erfc on the left keeps its digits where erf is near -1. */
static __device__ __forceinline__ float normal_below(float x) {
  float z = x * 0.707106781186547524f;
  return x < 0 ? 0.5f * erfcf(-z) : 0.5f * (1 + erff(z));
}

template <typename T> struct gelu_forward {
  const T *x;
  T *y;
  template <int N> __device__ void apply(size_t at) const {
    float v[N];
    load(x + at, v);
    UNROLL
    for (int k = 0; k < N; k++)
      v[k] = v[k] * normal_below(v[k]);
    store(v, y + at);
  }
};

template <typename T> struct gelu_backward {
  const T *x, *grad_y;
  T *grad_x;
  template <int N> __device__ void apply(size_t at) const {
    const float density_at_0 = 0.398942280401432678f; /* 1 / sqrt(2 pi) */
    float v[N], g[N];
    load(x + at, v);
    load(grad_y + at, g);
    UNROLL
    for (int k = 0; k < N; k++)
      g[k] = g[k] * (normal_below(v[k]) + v[k] * density_at_0 * expf(-0.5f * v[k] * v[k]));
    store(g, grad_x + at);
  }
};

/* Of variances: ops.h. */
template <typename T> struct softplus_forward {
  const T *x;
  T *y;
  template <int N> __device__ void apply(size_t at) const {
    float v[N];
    load(x + at, v);
    UNROLL
    for (int k = 0; k < N; k++)
      v[k] = (v[k] > SOFTPLUS_LINEAR ? v[k] : log1pf(expf(v[k]))) + 1e-6f;
    store(v, y + at);
  }
};

template <typename T> struct softplus_backward {
  const T *x, *grad_y;
  T *grad_x;
  template <int N> __device__ void apply(size_t at) const {
    float v[N], g[N];
    load(x + at, v);
    load(grad_y + at, g);
    UNROLL
    for (int k = 0; k < N; k++)
      g[k] = v[k] > SOFTPLUS_LINEAR ? g[k] : g[k] / (1 + expf(-v[k]));
    store(g, grad_x + at);
  }
};

template <typename T>
static enum status activate(struct stream *stream, enum activation activation, size_t count, const void *x_in,
                            void *y_out) {
  const T *x = (const T *)x_in;
  T *y = (T *)y_out;
  bool vectors = on_16_bytes(x) && on_16_bytes(y);
  switch (activation) {
  case ACTIVATION_RELU:
    return each(stream, "relu", count, vectors, relu_forward<T>{x, y});
  case ACTIVATION_TANH:
    return each(stream, "tanh", count, vectors, tanh_forward<T>{x, y});
  case ACTIVATION_GELU:
    return each(stream, "gelu", count, vectors, gelu_forward<T>{x, y});
  case ACTIVATION_SOFTPLUS:
    return each(stream, "softplus", count, vectors, softplus_forward<T>{x, y});
  }
  return fail(ERR_BUG, "activation %d is not in the CUDA backend", (int)activation);
}

extern "C" enum status activation_forward_launch(struct stream *stream, enum dtype dtype, enum activation activation,
                                                 size_t count, const void *x, void *y) {
  return dtype == BF16 ? activate<bf16>(stream, activation, count, x, y)
                       : activate<float>(stream, activation, count, x, y);
}

template <typename T>
static enum status activate_back(struct stream *stream, enum activation activation, size_t count, const void *x_in,
                                 const void *y_in, const void *grad_y_in, void *grad_x_out) {
  bool by_x = activation == ACTIVATION_GELU || activation == ACTIVATION_SOFTPLUS;
  const T *grad_y = (const T *)grad_y_in, *read = (const T *)(by_x ? x_in : y_in);
  T *grad_x = (T *)grad_x_out;
  bool vectors = on_16_bytes(read) && on_16_bytes(grad_y) && on_16_bytes(grad_x);
  switch (activation) {
  case ACTIVATION_RELU:
    return each(stream, "relu backward", count, vectors, relu_backward<T>{read, grad_y, grad_x});
  case ACTIVATION_TANH:
    return each(stream, "tanh backward", count, vectors, tanh_backward<T>{read, grad_y, grad_x});
  case ACTIVATION_GELU:
    return each(stream, "gelu backward", count, vectors, gelu_backward<T>{read, grad_y, grad_x});
  case ACTIVATION_SOFTPLUS:
    return each(stream, "softplus backward", count, vectors, softplus_backward<T>{read, grad_y, grad_x});
  }
  return fail(ERR_BUG, "activation %d is not in the CUDA backend", (int)activation);
}

extern "C" enum status activation_backward_launch(struct stream *stream, enum dtype dtype, enum activation activation,
                                                  size_t count, const void *x, const void *y, const void *grad_y,
                                                  void *grad_x) {
  return dtype == BF16 ? activate_back<bf16>(stream, activation, count, x, y, grad_y, grad_x)
                       : activate_back<float>(stream, activation, count, x, y, grad_y, grad_x);
}

/* --- vectors ------------------------------------------------------------------------------------------------- */

template <typename T> struct scale_by {
  float a;
  T *x;
  template <int N> __device__ void apply(size_t at) const {
    float v[N];
    load(x + at, v);
    UNROLL
    for (int k = 0; k < N; k++)
      v[k] *= a;
    store(v, x + at);
  }
};

template <typename T> struct add_times {
  float a;
  const T *x;
  T *y;
  template <int N> __device__ void apply(size_t at) const {
    float v[N], sum[N];
    load(x + at, v);
    load(y + at, sum);
    UNROLL
    for (int k = 0; k < N; k++)
      sum[k] += a * v[k];
    store(sum, y + at);
  }
};

extern "C" enum status scale_launch(struct stream *stream, enum dtype dtype, size_t count, double a, void *x) {
  if (dtype == BF16)
    return each(stream, "scale", count, on_16_bytes(x), scale_by<bf16>{(float)a, (bf16 *)x});
  return each(stream, "scale", count, on_16_bytes(x), scale_by<float>{(float)a, (float *)x});
}

extern "C" enum status add_launch(struct stream *stream, enum dtype dtype, size_t count, double a, const void *x,
                                  void *y) {
  bool vectors = on_16_bytes(x) && on_16_bytes(y);
  if (dtype == BF16)
    return each(stream, "add", count, vectors, add_times<bf16>{(float)a, (const bf16 *)x, (bf16 *)y});
  return each(stream, "add", count, vectors, add_times<float>{(float)a, (const float *)x, (float *)y});
}

/* --- rows by buckets ----------------------------------------------------------------------------------------- */

/* Elements that are taken together lie in one row.  The tables of the buckets that occur stay in the cache. */
template <typename T> struct move_row {
  int64_t width;
  const int32_t *bucket;
  const float *scale, *shift;
  const T *x;
  T *y;
  template <int N> __device__ void apply(size_t at) const {
    float v[N], a[N], b[N];
    int64_t row = (int64_t)at / width, place = (int64_t)bucket[row] * width + ((int64_t)at - row * width);
    load(x + at, v);
    if (bucket[row] >= 0) {
      load(scale + place, a);
      if (shift != NULL)
        load(shift + place, b);
      UNROLL
      for (int k = 0; k < N; k++)
        v[k] = shift != NULL ? v[k] * a[k] + b[k] : v[k] * a[k];
    }
    store(v, y + at);
  }
};

extern "C" enum status move_rows_launch(struct stream *stream, enum dtype dtype, int64_t rows, int64_t width,
                                        const int32_t *bucket, const float *scale, const float *shift, const void *x,
                                        void *y) {
  bool vectors = width % VECTOR == 0 && on_16_bytes(x) && on_16_bytes(y) && on_16_bytes(scale) && on_16_bytes(shift);
  size_t count = (size_t)(rows * width);
  if (dtype == BF16)
    return each(stream, "rows by buckets", count, vectors,
                move_row<bf16>{width, bucket, scale, shift, (const bf16 *)x, (bf16 *)y});
  return each(stream, "rows by buckets", count, vectors,
              move_row<float>{width, bucket, scale, shift, (const float *)x, (float *)y});
}

/* --- biases -------------------------------------------------------------------------------------------------- */

/* A thread keeps the biases of its columns and walks down the rows. */
template <typename T, int N>
static __global__ void __launch_bounds__(THREADS) bias_kernel(struct sweep sweep, const float *bias, T *y) {
  struct sweep_place place = sweep_place(sweep, (int)blockIdx.x);
  if (place.group >= sweep.groups)
    return;
  float own[N];
  UNROLL
  for (int k = 0; k < N; k++)
    own[k] = bias[place.group * N + k];
  for (int64_t row = place.first; row < place.end; row += place.step) {
    float v[N];
    T *here = y + row * sweep.channels + place.group * N;
    load(here, v);
    UNROLL
    for (int k = 0; k < N; k++)
      v[k] += own[k];
    store(v, here);
  }
}

template <typename T, int N>
static enum status add_bias(struct stream *stream, int64_t rows, int64_t columns, const float *bias, T *y) {
  struct sweep sweep = sweep_cut(rows, columns, N, BLOCKS_FULL, 4, 65535);
  auto kernel = bias_kernel<T, N>;
  LAUNCH(kernel, dim3(sweep.blocks, sweep.parts), THREADS, cuda_stream(stream), sweep, bias, y);
  return cuda_launched("bias");
}

extern "C" enum status bias_launch(struct stream *stream, enum dtype dtype, int64_t rows, int64_t columns,
                                   const float *bias, void *y) {
  bool vectors = columns % VECTOR == 0 && on_16_bytes(y);
  if (rows == 0)
    return STATUS_OK;
  if (dtype == BF16)
    return vectors ? add_bias<bf16, VECTOR>(stream, rows, columns, bias, (bf16 *)y)
                   : add_bias<bf16, 1>(stream, rows, columns, bias, (bf16 *)y);
  return vectors ? add_bias<float, VECTOR>(stream, rows, columns, bias, (float *)y)
                 : add_bias<float, 1>(stream, rows, columns, bias, (float *)y);
}
