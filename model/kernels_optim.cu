/* Kernels of the optimisers: one pass over all parameters, bound by memory (Adam moves 28 bytes for each). */
#include "model/kernels.cuh"

/* *scale, or 1 when there is none: what was computed on the device stays there. */
static __device__ __forceinline__ float scale_of(const double *scale) {
  return scale != NULL ? (float)*scale : 1.0f;
}

/* The step and the scale are read by each thread, from a cache. */
struct adam_update {
  const struct adam_step *step;
  const double *gradient_scale;
  float *p;
  const float *gradients;
  float *m, *v;
  template <int N> __device__ void apply(size_t at) const {
    float parameter[N], g[N], first[N], second[N], scale = scale_of(gradient_scale);
    float size = (float)step->step_size, root = (float)step->root_correction, epsilon = (float)step->epsilon;
    float beta1 = (float)step->beta1, rest1 = (float)(1.0 - step->beta1);
    float beta2 = (float)step->beta2, rest2 = (float)(1.0 - step->beta2);
    float decay = (float)step->coupled_decay, keep = (float)step->keep;
    load(p + at, parameter);
    load(gradients + at, g);
    load(m + at, first);
    load(v + at, second);
    UNROLL
    for (int k = 0; k < N; k++) {
      parameter[k] *= keep;
      g[k] = scale * g[k] + decay * parameter[k];
      first[k] = beta1 * first[k] + rest1 * g[k];
      second[k] = beta2 * second[k] + rest2 * (g[k] * g[k]);
      parameter[k] -= size * first[k] / (sqrtf(second[k]) / root + epsilon);
    }
    store(parameter, p + at);
    store(first, m + at);
    store(second, v + at);
  }
};

extern "C" enum status adam_launch(struct stream *stream, size_t count, const struct adam_step *step,
                                   const double *gradient_scale, float *parameters, const float *gradients,
                                   float *moment1, float *moment2) {
  bool vectors = on_16_bytes(parameters) && on_16_bytes(gradients) && on_16_bytes(moment1) && on_16_bytes(moment2);
  struct adam_update update;
  update.step = step;
  update.gradient_scale = gradient_scale;
  update.p = parameters;
  update.gradients = gradients;
  update.m = moment1;
  update.v = moment2;
  return each(stream, "adam", count, vectors, update);
}

/* velocity NULL = plain. */
struct sgd_update {
  const struct sgd_step *step;
  const double *gradient_scale;
  float *p;
  const float *gradients;
  float *velocity;
  template <int N> __device__ void apply(size_t at) const {
    float parameter[N], g[N], speed[N], scale = scale_of(gradient_scale);
    float lr = (float)step->lr, momentum = (float)step->momentum, decay = (float)step->coupled_decay;
    load(p + at, parameter);
    load(gradients + at, g);
    if (velocity != NULL)
      load(velocity + at, speed);
    UNROLL
    for (int k = 0; k < N; k++) {
      g[k] = scale * g[k] + decay * parameter[k];
      speed[k] = velocity != NULL ? momentum * speed[k] + g[k] : g[k];
      parameter[k] -= lr * speed[k];
    }
    store(parameter, p + at);
    if (velocity != NULL)
      store(speed, velocity + at);
  }
};

extern "C" enum status sgd_launch(struct stream *stream, size_t count, const struct sgd_step *step,
                                  const double *gradient_scale, float *parameters, const float *gradients,
                                  float *velocity) {
  bool vectors = on_16_bytes(parameters) && on_16_bytes(gradients) && on_16_bytes(velocity);
  struct sgd_update update;
  update.step = step;
  update.gradient_scale = gradient_scale;
  update.p = parameters;
  update.gradients = gradients;
  update.velocity = velocity;
  return each(stream, "sgd", count, vectors, update);
}

/* One thread: a number from a number, so that the host need not wait for it. */
static __global__ void clip_factor_kernel(double clip_norm, const double *squares, double *factor) {
  double wanted = clip_norm / (sqrt(*squares) + 1e-6);
  *factor = wanted > 1 ? 1 : wanted;
}

extern "C" enum status clip_factor_launch(struct stream *stream, double clip_norm, const double *squares,
                                          double *factor) {
  LAUNCH(clip_factor_kernel, 1, 1, cuda_stream(stream), clip_norm, squares, factor);
  return cuda_launched("clipping factor");
}
