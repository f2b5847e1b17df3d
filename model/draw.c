/* Numbers drawn by their places, shared by the threads. */
#include "model/draw.h"

#include <stdint.h>

#define LEAST_THREADED 16384 /* numbers: below, a parallel region costs more than it saves */

static void put(enum dtype dtype, void *x, size_t i, double value) {
  if (dtype == F32)
    ((float *)x)[i] = (float)value;
  else
    ((double *)x)[i] = value;
}

void draw_uniform(enum dtype dtype, size_t count, struct random_key key, double bound, void *x) {
#pragma omp parallel for schedule(static) if (count > LEAST_THREADED)
  for (size_t i = 0; i < count; i++)
    put(dtype, x, i, bound * (2.0 * random_uniform(key, i, 0) - 1.0));
}

void draw_normal(enum dtype dtype, size_t count, struct random_key key, double deviation, void *x) {
#pragma omp parallel for schedule(static) if (count > LEAST_THREADED)
  for (size_t i = 0; i < count; i++)
    put(dtype, x, i, deviation * random_normal(key, i, 0));
}

void draw_constant(enum dtype dtype, size_t count, double value, void *x) {
  for (size_t i = 0; i < count; i++)
    put(dtype, x, i, value);
}
