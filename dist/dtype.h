/* Element types of computing buffers: float32 for work, float64 for exactness, bfloat16 for values on their way through
 * a network on a GPU. */
#ifndef CONR_DIST_DTYPE_H
#define CONR_DIST_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum dtype { F32, F64, BF16 };

static inline size_t dtype_size(enum dtype dtype) {
  return dtype == BF16 ? 2 : dtype == F32 ? 4 : 8;
}

static inline const char *dtype_name(enum dtype dtype) {
  return dtype == BF16 ? "bf16" : dtype == F32 ? "f32" : "f64";
}

/* bf16 is the upper half of a float32. */
static inline float bf16_widen(uint16_t brain) {
  uint32_t bits = (uint32_t)brain << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* To the nearest, ties to even; what is not a number stays so. */
static inline uint16_t bf16_round(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  if (value != value)
    return (uint16_t)(bits >> 16 | 0x40);
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Element i of an array. */
static inline double dtype_get(enum dtype dtype, const void *array, int64_t i) {
  if (dtype == BF16)
    return (double)bf16_widen(((const uint16_t *)array)[i]);
  return dtype == F32 ? (double)((const float *)array)[i] : ((const double *)array)[i];
}

static inline void dtype_put(enum dtype dtype, void *array, int64_t i, double value) {
  if (dtype == BF16)
    ((uint16_t *)array)[i] = bf16_round((float)value);
  else if (dtype == F32)
    ((float *)array)[i] = (float)value;
  else
    ((double *)array)[i] = value;
}

#endif
