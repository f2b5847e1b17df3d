/* Buffers of each element type for the tests of arithmetic. */
#include "tests/buffers.h"

#include "dist/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double buffer_number(uint64_t stream, int64_t i) {
  return ldexp(floor(ldexp(random_uniform(random_key(1, RANDOM_TEST, stream), (uint64_t)i, 0), 20)), -19) - 1;
}

/* The upper half of a float32. */
static double bf16_get(const uint16_t *data) {
  uint32_t bits = (uint32_t)*data << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* To the nearest, ties to even. */
static void bf16_set(uint16_t *data, double value) {
  float single = (float)value;
  uint32_t bits;
  memcpy(&bits, &single, sizeof bits);
  *data = isnan(value) ? 0x7fc0 : (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

double buffer_get(enum dtype dtype, const void *data, int64_t i) {
  if (dtype == BF16)
    return bf16_get((const uint16_t *)data + i);
  return dtype == F32 ? ((const float *)data)[i] : ((const double *)data)[i];
}

void buffer_set(enum dtype dtype, void *data, int64_t i, double value) {
  if (dtype == BF16)
    bf16_set((uint16_t *)data + i, value);
  else if (dtype == F32)
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
