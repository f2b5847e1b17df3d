/* Draws from encodings of means and variances. */
#include "loss/vir_sample.h"

#include "dist/random.h"

#include <math.h>
#include <stddef.h>

void vir_noise(enum dtype dtype, uint64_t seed, int64_t epoch, int64_t rows, int64_t features, const int64_t *sample,
               const int32_t *view, void *noise) {
  struct random_key key = random_key(seed, RANDOM_ENCODING, (uint64_t)epoch);
  for (int64_t i = 0; i < rows * features; i++) {
    int64_t row = i / features, own_view = view == NULL ? 0 : view[row];
    uint64_t place = (uint64_t)(own_view * features + i % features);
    dtype_put(dtype, noise, i, random_normal(key, (uint64_t)sample[row], place));
  }
}

/* Where the mean of element i of z lies; the variance is `features` behind it. */
static int64_t place_of(int64_t i, int64_t features) {
  return i / features * 2 * features + i % features;
}

void vir_sample(enum dtype dtype, int64_t rows, int64_t features, const void *encoding, const void *noise, void *z) {
  for (int64_t i = 0; i < rows * features; i++) {
    int64_t place = place_of(i, features);
    double deviation = sqrt(dtype_get(dtype, encoding, place + features));
    dtype_put(dtype, z, i, dtype_get(dtype, encoding, place) + deviation * dtype_get(dtype, noise, i));
  }
}

void vir_sample_backward(enum dtype dtype, int64_t rows, int64_t features, const void *encoding, const void *noise,
                         const void *grad_z, void *grad_encoding) {
  for (int64_t i = 0; i < rows * features; i++) {
    int64_t place = place_of(i, features);
    double deviation = sqrt(dtype_get(dtype, encoding, place + features)), slope = dtype_get(dtype, grad_z, i);
    dtype_put(dtype, grad_encoding, place, slope);
    dtype_put(dtype, grad_encoding, place + features, slope * dtype_get(dtype, noise, i) / (2 * deviation));
  }
}
