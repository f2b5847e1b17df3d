/* Kernels of features that are means and variances: side by side, noise, draws from them. */
#include "model/draws.cuh"

#include <math.h>

/* Where element `at` of [rows, width] lies in [rows, 2 width]; its partner lies `width` behind. */
static __device__ __forceinline__ size_t in_pairs(size_t at, int64_t width) {
  return at + at / (size_t)width * (size_t)width;
}

/* Elements that are taken together lie in one row. */
static bool by_vectors(int64_t width, const void *pairs, const void *a, const void *b) {
  return width % VECTOR == 0 && on_16_bytes(pairs) && on_16_bytes(a) && on_16_bytes(b);
}

/* --- side by side -------------------------------------------------------------------------------------------- */

template <typename T> struct join {
  int64_t width;
  float scale;
  const T *a, *b;
  T *y;
  template <int N> __device__ void apply(size_t at) const {
    float first[N], second[N];
    size_t place = in_pairs(at, width);
    load(a + at, first);
    load(b + at, second);
    UNROLL
    for (int k = 0; k < N; k++)
      second[k] *= scale;
    store(first, y + place);
    store(second, y + place + width);
  }
};

template <typename T> struct part {
  int64_t width;
  float scale;
  const T *grad_y;
  T *grad_a, *grad_b;
  template <int N> __device__ void apply(size_t at) const {
    float g[N];
    size_t place = in_pairs(at, width);
    if (grad_a != NULL) {
      load(grad_y + place, g);
      store(g, grad_a + at);
    }
    if (grad_b == NULL)
      return;
    load(grad_y + place + width, g);
    UNROLL
    for (int k = 0; k < N; k++)
      g[k] *= scale;
    store(g, grad_b + at);
  }
};

extern "C" enum status join_forward_launch(struct stream *stream, enum dtype dtype, int64_t rows, int64_t width,
                                           double scale, const void *a, const void *b, void *y) {
  bool vectors = by_vectors(width, y, a, b);
  size_t count = (size_t)(rows * width);
  if (dtype == BF16)
    return each(stream, "join", count, vectors,
                join<bf16>{width, (float)scale, (const bf16 *)a, (const bf16 *)b, (bf16 *)y});
  return each(stream, "join", count, vectors,
              join<float>{width, (float)scale, (const float *)a, (const float *)b, (float *)y});
}

extern "C" enum status join_backward_launch(struct stream *stream, enum dtype dtype, int64_t rows, int64_t width,
                                            double scale, const void *grad_y, void *grad_a, void *grad_b) {
  bool vectors = by_vectors(width, grad_y, grad_a, grad_b);
  size_t count = (size_t)(rows * width);
  if (dtype == BF16)
    return each(stream, "join backward", count, vectors,
                part<bf16>{width, (float)scale, (const bf16 *)grad_y, (bf16 *)grad_a, (bf16 *)grad_b});
  return each(stream, "join backward", count, vectors,
              part<float>{width, (float)scale, (const float *)grad_y, (float *)grad_a, (float *)grad_b});
}

/* --- noise --------------------------------------------------------------------------------------------------- */

/* A draw of 128 bits and two functions in double for each number: few beside what the network computes. */
static __global__ void __launch_bounds__(THREADS)
    noise_kernel(int64_t rows, int64_t width, struct unit_draw draw, float *noise) {
  int64_t step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < rows * width; i += step) {
    uint64_t sample;
    struct random_key key = key_of_row(draw, RANDOM_ENCODING, i / width, &sample);
    noise[i] = (float)philox_normal(key, sample, (uint64_t)(i % width));
  }
}

extern "C" enum status noise_launch(struct stream *stream, int64_t rows, int64_t width, const struct unit_draw *draw,
                                    float *noise) {
  if (rows == 0)
    return STATUS_OK;
  LAUNCH(noise_kernel, blocks_for((size_t)(rows * width)), THREADS, cuda_stream(stream), rows, width, *draw, noise);
  return cuda_launched("noise");
}

/* --- draws --------------------------------------------------------------------------------------------------- */

template <typename T> struct sample {
  int64_t width;
  const T *x;
  const float *noise;
  T *z;
  template <int N> __device__ void apply(size_t at) const {
    float mean[N], variance[N], drawn[N];
    size_t place = in_pairs(at, width);
    load(x + place, mean);
    if (noise != NULL) {
      load(x + place + width, variance);
      load(noise + at, drawn);
      UNROLL
      for (int k = 0; k < N; k++)
        mean[k] += sqrtf(variance[k]) * drawn[k];
    }
    store(mean, z + at);
  }
};

template <typename T> struct sample_back {
  int64_t width;
  const T *x;
  const float *noise;
  const T *grad_z;
  T *grad_x;
  template <int N> __device__ void apply(size_t at) const {
    float g[N], variance[N], drawn[N];
    size_t place = in_pairs(at, width);
    load(grad_z + at, g);
    store(g, grad_x + place);
    if (noise != NULL) {
      load(x + place + width, variance);
      load(noise + at, drawn);
    }
    UNROLL
    for (int k = 0; k < N; k++)
      g[k] = noise != NULL ? g[k] * drawn[k] / (2 * sqrtf(variance[k])) : 0;
    store(g, grad_x + place + width);
  }
};

extern "C" enum status sample_forward_launch(struct stream *stream, enum dtype dtype, int64_t rows, int64_t width,
                                             const void *x, const float *noise, void *z) {
  bool vectors = by_vectors(width, x, noise, z);
  size_t count = (size_t)(rows * width);
  if (dtype == BF16)
    return each(stream, "sample", count, vectors, sample<bf16>{width, (const bf16 *)x, noise, (bf16 *)z});
  return each(stream, "sample", count, vectors, sample<float>{width, (const float *)x, noise, (float *)z});
}

extern "C" enum status sample_backward_launch(struct stream *stream, enum dtype dtype, int64_t rows, int64_t width,
                                              const void *x, const float *noise, const void *grad_z, void *grad_x) {
  bool vectors = by_vectors(width, grad_x, noise, grad_z) && on_16_bytes(x);
  size_t count = (size_t)(rows * width);
  if (dtype == BF16)
    return each(stream, "sample backward", count, vectors,
                sample_back<bf16>{width, (const bf16 *)x, noise, (const bf16 *)grad_z, (bf16 *)grad_x});
  return each(stream, "sample backward", count, vectors,
              sample_back<float>{width, (const float *)x, noise, (const float *)grad_z, (float *)grad_x});
}
