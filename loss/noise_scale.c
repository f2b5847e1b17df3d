/* Adam on one number. */
#include "loss/noise_scale.h"

#include <math.h>

enum status noise_scale_begin(const struct noise_scale_options *options, struct noise_scale *out) {
  REQUIRE(isfinite(options->initial) && options->initial > 0, ERR_ARGUMENT,
          "the noise scale %g of Balanced MSE must be greater than 0", options->initial);
  REQUIRE(isfinite(options->lr) && options->lr >= 0, ERR_ARGUMENT,
          "the learning rate %g of the noise scale must be 0 or greater", options->lr);
  *out = (struct noise_scale){.options = *options, .now = {.sigma = options->initial}};
  return STATUS_OK;
}

void noise_scale_update(struct noise_scale *scale, double gradient) {
  const struct noise_scale_options *options = &scale->options;
  struct noise_scale_numbers *now = &scale->now;
  if (options->lr == 0)
    return;
  now->steps++;
  now->m = options->beta1 * now->m + (1 - options->beta1) * gradient;
  now->v = options->beta2 * now->v + (1 - options->beta2) * gradient * gradient;
  double rate = options->lr / (1 - pow(options->beta1, now->steps));
  double root = sqrt(now->v) / sqrt(1 - pow(options->beta2, now->steps));
  now->sigma -= rate * now->m / (root + options->epsilon);
}

struct state_array noise_scale_state(struct noise_scale *scale) {
  return (struct state_array){"loss/noise_scale", &scale->now.sigma, sizeof scale->now / sizeof(double)};
}
