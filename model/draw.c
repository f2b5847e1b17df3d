/* Numbers drawn by their places, shared by the threads. */
#include "model/draw.h"

#include <stdint.h>

#define LEAST_THREADED 16384 /* numbers: below, a parallel region costs more than it saves */

void draw_uniform(enum dtype dtype, size_t count, struct random_key key, double bound, void *x) {
#pragma omp parallel for schedule(static) if (count > LEAST_THREADED)
  for (size_t i = 0; i < count; i++)
    dtype_put(dtype, x, (int64_t)i, bound * (2.0 * random_uniform(key, i, 0) - 1.0));
}

void draw_normal(enum dtype dtype, size_t count, struct random_key key, double deviation, void *x) {
#pragma omp parallel for schedule(static) if (count > LEAST_THREADED)
  for (size_t i = 0; i < count; i++)
    dtype_put(dtype, x, (int64_t)i, deviation * random_normal(key, i, 0));
}

void draw_constant(enum dtype dtype, size_t count, double value, void *x) {
  for (size_t i = 0; i < count; i++)
    dtype_put(dtype, x, (int64_t)i, value);
}
