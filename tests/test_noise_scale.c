/* The learned noise scale: Adam written out, what keeps it fixed, what is refused. */
#include "loss/noise_scale.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>

static const struct noise_scale_options options = {
    .initial = 2, .lr = 0.01, .beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-8};

/* The first step of Adam is as long as the rate, against the gradient's sign; the second from the averages, by hand. */
Test(noise_scale, moves_as_adam_does) {
  struct noise_scale scale;
  cr_assert(eq(int, noise_scale_begin(&options, &scale), STATUS_OK));
  noise_scale_update(&scale, -4);
  cr_expect(le(dbl, fabs(scale.now.sigma - (2 + 0.01 * 4 / (4 + 1e-8))), 1e-15), "%.17g", scale.now.sigma);
  noise_scale_update(&scale, 1);
  double m = (0.9 * 0.1 * -4 + 0.1) / (1 - 0.81), v = (0.99 * 0.01 * 16 + 0.01) / (1 - 0.9801);
  double expected = 2 + 0.01 * 4 / (4 + 1e-8) - 0.01 * m / (sqrt(v) + 1e-8);
  cr_expect(le(dbl, fabs(scale.now.sigma - expected), 1e-15), "%.17g, %.17g", scale.now.sigma, expected);
}

Test(noise_scale, stays_when_its_rate_is_0) {
  struct noise_scale_options fixed = options;
  struct noise_scale scale;
  fixed.lr = 0;
  cr_assert(eq(int, noise_scale_begin(&fixed, &scale), STATUS_OK));
  noise_scale_update(&scale, 5);
  cr_expect(scale.now.sigma == 2 && scale.now.steps == 0);
}

/* What a checkpoint holds is all there is: restored, it goes on with the same bits. */
Test(noise_scale, goes_on_from_its_state) {
  struct noise_scale one, other;
  noise_scale_begin(&options, &one);
  noise_scale_begin(&options, &other);
  noise_scale_update(&one, 3);
  struct state_array from = noise_scale_state(&one), to = noise_scale_state(&other);
  cr_assert(eq(sz, from.count, 4));
  for (size_t i = 0; i < from.count; i++)
    to.values[i] = from.values[i];
  noise_scale_update(&one, -1);
  noise_scale_update(&other, -1);
  cr_expect(eq(dbl, one.now.sigma, other.now.sigma));
}

Test(noise_scale, senseless_options_are_refused) {
  static const double bad[] = {0, -1, NAN, INFINITY};
  struct noise_scale scale;
  for (int i = 0; i < 4; i++) {
    struct noise_scale_options wrong = options;
    wrong.initial = bad[i];
    cr_expect(eq(int, noise_scale_begin(&wrong, &scale), ERR_ARGUMENT), "initial %g", bad[i]);
    wrong = options;
    wrong.lr = bad[i];
    cr_expect(eq(int, noise_scale_begin(&wrong, &scale), bad[i] == 0 ? STATUS_OK : ERR_ARGUMENT), "rate %g", bad[i]);
  }
}
