/* Buffers of either element type for the tests of arithmetic. */
#include "tests/buffers.h"

#include "dist/random.h"

#include <math.h>
#include <stdlib.h>

double buffer_number(uint64_t stream, int64_t i) {
  return ldexp(floor(ldexp(random_uniform(random_key(1, RANDOM_TEST, stream), (uint64_t)i, 0), 20)), -19) - 1;
}

double buffer_get(enum dtype dtype, const void *data, int64_t i) {
  return dtype == F32 ? ((const float *)data)[i] : ((const double *)data)[i];
}

void buffer_set(enum dtype dtype, void *data, int64_t i, double value) {
  if (dtype == F32)
    ((float *)data)[i] = (float)value;
  else
    ((double *)data)[i] = value;
}

void *buffer_create(enum dtype dtype, int64_t count, uint64_t stream) {
  void *data = malloc((size_t)count * dtype_size(dtype) + 1);
  for (int64_t i = 0; i < count; i++)
    buffer_set(dtype, data, i, buffer_number(stream, i));
  return data;
}

void *buffer_filled(enum dtype dtype, int64_t count, double value) {
  void *data = malloc((size_t)count * dtype_size(dtype) + 1);
  for (int64_t i = 0; i < count; i++)
    buffer_set(dtype, data, i, value);
  return data;
}
