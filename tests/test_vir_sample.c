/* Sampled encodings: derivatives, noise by sample and not by row, the edges of variances. */
#include "loss/vir_sample.h"

#include "tests/buffers.h"
#include "tests/gradient_check.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>

enum { ROWS = 5, FEATURES = 3, NUMBERS = ROWS * FEATURES };

struct batch {
  double encoding[2 * NUMBERS], noise[NUMBERS], slope[NUMBERS];
};

static struct batch make_batch(void) {
  struct batch batch;
  for (int i = 0; i < 2 * NUMBERS; i++)
    batch.encoding[i] = i % (2 * FEATURES) < FEATURES ? buffer_number(1, i) : 0.5 + fabs(buffer_number(1, i));
  for (int i = 0; i < NUMBERS; i++) {
    batch.noise[i] = buffer_number(2, i);
    batch.slope[i] = buffer_number(3, i);
  }
  return batch;
}

static double value_of(void *context, const double *encoding) {
  const struct batch *batch = context;
  double z[NUMBERS], sum = 0;
  vir_sample(F64, ROWS, FEATURES, encoding, batch->noise, z);
  for (int i = 0; i < NUMBERS; i++)
    sum += batch->slope[i] * z[i];
  return sum;
}

Test(vir_sample, gradient_equals_finite_differences) {
  struct batch batch = make_batch();
  double grad[2 * NUMBERS];
  vir_sample_backward(F64, ROWS, FEATURES, batch.encoding, batch.noise, batch.slope, grad);
  struct gradient_check check = gradient_check(value_of, &batch, batch.encoding, 2 * NUMBERS, grad, 1e-3);
  cr_assert(le(dbl, check.error, 1e-9), "%s", gradient_check_text(&check));
}

/* Rows in another order, in shares, in another precision. */
Test(vir_sample, noise_belongs_to_sample_view_and_epoch) {
  const int64_t sample[] = {7, 1000000007, 3, 7}, turned[] = {3, 7, 7, 1000000007};
  const int32_t view[] = {0, 0, 0, 1}, turned_view[] = {0, 1, 0, 0};
  const int place[] = {2, 3, 0, 1}; /* of the turned rows */
  double noise[4 * FEATURES], other[4 * FEATURES];
  float single[4 * FEATURES];
  vir_noise(F64, 5, 2, 4, FEATURES, sample, view, noise);
  vir_noise(F64, 5, 2, 1, FEATURES, turned, turned_view, other);
  vir_noise(F64, 5, 2, 3, FEATURES, turned + 1, turned_view + 1, other + FEATURES);
  vir_noise(F32, 5, 2, 4, FEATURES, sample, view, single);
  for (int i = 0; i < 4 * FEATURES; i++) {
    cr_expect(eq(dbl, other[i], noise[place[i / FEATURES] * FEATURES + i % FEATURES]), "number %d", i);
    cr_expect(eq(flt, single[i], (float)noise[i]), "number %d", i);
    for (int k = 0; k < i; k++)
      cr_expect(ne(dbl, noise[i], noise[k]), "numbers %d and %d", i, k);
  }
  vir_noise(F64, 5, 3, 4, FEATURES, sample, NULL, other);
  for (int i = 0; i < 4 * FEATURES; i++)
    cr_expect(ne(dbl, other[i], noise[i]), "number %d of another epoch", i);
}

Test(vir_sample, noise_is_standard_normal) {
  enum { MANY = 40000 };
  static double noise[MANY];
  static int64_t sample[MANY / 100];
  double sum = 0, squares = 0;
  for (int i = 0; i < MANY / 100; i++)
    sample[i] = i;
  vir_noise(F64, 1, 0, MANY / 100, 100, sample, NULL, noise);
  for (int i = 0; i < MANY; i++) {
    sum += noise[i];
    squares += noise[i] * noise[i];
  }
  /* Standard errors are 0.005 and 0.007: five of them. */
  cr_assert(lt(dbl, fabs(sum / MANY), 0.025));
  cr_assert(lt(dbl, fabs(squares / MANY - 1), 0.036));
}

Test(vir_sample, variances_without_slope_or_root_show) {
  const double encoding[] = {1, 0}, below[] = {1, -1}, noise = 2, slope = 1;
  double z, grad[2];
  vir_sample(F64, 1, 1, encoding, &noise, &z);
  cr_assert(eq(dbl, z, 1));
  vir_sample_backward(F64, 1, 1, encoding, &noise, &slope, grad);
  cr_assert(eq(dbl, grad[0], 1));
  cr_assert(eq(dbl, grad[1], INFINITY));
  vir_sample(F64, 1, 1, below, &noise, &z);
  cr_assert(eq(int, isnan(z) != 0, 1));
}
