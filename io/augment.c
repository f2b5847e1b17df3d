/* Noise and masks on table rows. */
#include "io/augment.h"

#include "dist/random.h"

#include <math.h>

enum status augment_check(const struct augment *augment) {
  REQUIRE(isfinite(augment->noise_std) && augment->noise_std >= 0, ERR_ARGUMENT,
          "the augmentation noise %g must be a finite number, 0 or more", augment->noise_std);
  REQUIRE(augment->mask_probability >= 0 && augment->mask_probability < 1, ERR_ARGUMENT,
          "the mask probability %g must be at least 0 and below 1", augment->mask_probability);
  return STATUS_OK;
}

/* Two counters a feature: the even one draws the mask, the odd one the noise, so that neither changes the other. */
static double augmented(const struct augment *augment, struct random_key key, uint64_t sample, uint64_t place,
                        double value) {
  if (augment->mask_probability > 0 && random_uniform(key, sample, 2 * place) < augment->mask_probability)
    return 0;
  return augment->noise_std > 0 ? value + augment->noise_std * random_normal(key, sample, 2 * place + 1) : value;
}

void augment_rows(const struct augment *augment, int64_t epoch, int view, const int64_t *samples, int64_t rows,
                  int features, enum dtype dtype, void *inputs) {
  struct random_key key = random_key(augment->seed, RANDOM_AUGMENT, (uint64_t)epoch);
  if (augment->noise_std == 0 && augment->mask_probability == 0)
    return;
  for (int64_t row = 0; row < rows; row++) {
    for (int feature = 0; feature < features; feature++) {
      uint64_t place = (uint64_t)view * (uint64_t)features + (uint64_t)feature;
      int64_t i = row * features + feature;
      double value = dtype == F32 ? (double)((float *)inputs)[i] : ((double *)inputs)[i];
      value = augmented(augment, key, (uint64_t)samples[row], place, value);
      if (dtype == F32)
        ((float *)inputs)[i] = (float)value;
      else
        ((double *)inputs)[i] = value;
    }
  }
}
