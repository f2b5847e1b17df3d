/* Element types of computing buffers: float32 for work, float64 for exactness, bfloat16 for values on their way through
 * a network on a GPU. */
#ifndef CONR_DIST_DTYPE_H
#define CONR_DIST_DTYPE_H

#include <stddef.h>

enum dtype { F32, F64, BF16 };

static inline size_t dtype_size(enum dtype dtype) {
  return dtype == BF16 ? 2 : dtype == F32 ? 4 : 8;
}

static inline const char *dtype_name(enum dtype dtype) {
  return dtype == BF16 ? "bf16" : dtype == F32 ? "f32" : "f64";
}

#endif
