/* What kernels share that draw by sample and unit (struct unit_draw of ops.h). */
#ifndef CONR_MODEL_DRAWS_CUH
#define CONR_MODEL_DRAWS_CUH

#include "model/kernels.cuh"

#include "dist/philox.h"

/* The stream of a row's draws, and the sample that is their first place in it. */
static __device__ __forceinline__ struct random_key
key_of_row(const struct unit_draw &draw, enum random_purpose purpose, int64_t row, uint64_t *sample) {
  uint64_t view = (uint64_t)draw.first_view + (uint64_t)(row / draw.samples_count);
  *sample = (uint64_t)draw.samples[row % draw.samples_count];
  return philox_key(draw.seed, purpose, (uint64_t)*draw.epoch << 24 | view << 16 | (uint64_t)draw.layer);
}

#endif
