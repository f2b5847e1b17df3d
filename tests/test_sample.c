/* Draws from features that are means and variances: derivatives, noise by sample and not by row, the edges of
 * variances. */
#include "model/ops.h"

#include "tests/buffers.h"
#include "tests/gradient_check.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdlib.h>

#define OK(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())

enum { ROWS = 5, FEATURES = 3, NUMBERS = ROWS * FEATURES };

struct batch {
  double x[2 * NUMBERS], noise[NUMBERS], slope[NUMBERS];
};

static struct batch make_batch(void) {
  struct batch batch;
  for (int i = 0; i < 2 * NUMBERS; i++)
    batch.x[i] = i % (2 * FEATURES) < FEATURES ? buffer_number(1, i) : 0.5 + fabs(buffer_number(1, i));
  for (int i = 0; i < NUMBERS; i++) {
    batch.noise[i] = buffer_number(2, i);
    batch.slope[i] = buffer_number(3, i);
  }
  return batch;
}

static double value_of(void *context, const double *x) {
  const struct batch *batch = context;
  double z[NUMBERS], sum = 0;
  OK(ops_host(F64)->sample_forward(ROWS, FEATURES, x, batch->noise, z));
  for (int i = 0; i < NUMBERS; i++)
    sum += batch->slope[i] * z[i];
  return sum;
}

Test(sample, gradient_equals_finite_differences) {
  struct batch batch = make_batch();
  double grad[2 * NUMBERS];
  OK(ops_host(F64)->sample_backward(ROWS, FEATURES, batch.x, batch.noise, batch.slope, grad));
  struct gradient_check check = gradient_check(value_of, &batch, batch.x, 2 * NUMBERS, grad, 1e-3);
  cr_assert(le(dbl, check.error, 1e-9), "%s", gradient_check_text(&check));
}

Test(sample, without_noise_it_is_the_means) {
  struct batch batch = make_batch();
  double z[NUMBERS], grad[2 * NUMBERS];
  OK(ops_host(F64)->sample_forward(ROWS, FEATURES, batch.x, NULL, z));
  OK(ops_host(F64)->sample_backward(ROWS, FEATURES, NULL, NULL, batch.slope, grad));
  for (int i = 0; i < NUMBERS; i++) {
    int place = i / FEATURES * 2 * FEATURES + i % FEATURES;
    cr_assert(eq(dbl, z[i], batch.x[place]));
    cr_assert(eq(dbl, grad[place], batch.slope[i]));
    cr_assert(eq(dbl, grad[place + FEATURES], 0));
  }
}

/* Rows in another order, in shares, in another precision. */
Test(sample, noise_belongs_to_sample_view_and_epoch) {
  static const int64_t samples[] = {7, 1000000007}, turned[] = {1000000007, 7}, epochs[] = {2, 3};
  struct unit_draw draw = {.seed = 5, .epoch = &epochs[0], .samples = samples, .samples_count = 2};
  double noise[4 * FEATURES], other[4 * FEATURES];
  float single[4 * FEATURES];
  OK(ops_host(F64)->noise(4, FEATURES, &draw, noise)); /* two views */
  OK(ops_host(F32)->noise(4, FEATURES, &draw, single));
  draw.samples = turned;
  OK(ops_host(F64)->noise(2, FEATURES, &draw, other));
  draw.samples_count = draw.first_view = 1;
  OK(ops_host(F64)->noise(1, FEATURES, &draw, other + 2 * FEATURES));
  draw.samples = turned + 1;
  OK(ops_host(F64)->noise(1, FEATURES, &draw, other + 3 * FEATURES));
  static const int place[] = {1, 0, 3, 2}; /* of the turned rows */
  for (int i = 0; i < 4 * FEATURES; i++) {
    cr_expect(eq(dbl, other[i], noise[place[i / FEATURES] * FEATURES + i % FEATURES]), "number %d", i);
    cr_expect(eq(flt, single[i], (float)noise[i]), "number %d", i);
    for (int k = 0; k < i; k++)
      cr_expect(ne(dbl, noise[i], noise[k]), "numbers %d and %d", i, k);
  }
  struct unit_draw again = {.seed = 5, .epoch = &epochs[1], .samples = samples, .samples_count = 2};
  OK(ops_host(F64)->noise(4, FEATURES, &again, other));
  for (int i = 0; i < 4 * FEATURES; i++)
    cr_expect(ne(dbl, other[i], noise[i]), "number %d of another epoch", i);
}

Test(sample, noise_is_standard_normal) {
  enum { MANY = 400, WIDTH = 100 };
  static double noise[MANY * WIDTH];
  static int64_t samples[MANY];
  const int64_t epoch = 0;
  double sum = 0, squares = 0;
  for (int i = 0; i < MANY; i++)
    samples[i] = i;
  struct unit_draw draw = {.seed = 1, .epoch = &epoch, .samples = samples, .samples_count = MANY};
  OK(ops_host(F64)->noise(MANY, WIDTH, &draw, noise));
  for (int i = 0; i < MANY * WIDTH; i++) {
    sum += noise[i];
    squares += noise[i] * noise[i];
  }
  /* Standard errors are 0.005 and 0.007: five of them. */
  cr_assert(lt(dbl, fabs(sum / (MANY * WIDTH)), 0.025));
  cr_assert(lt(dbl, fabs(squares / (MANY * WIDTH) - 1), 0.036));
}

Test(sample, variances_without_slope_or_root_show) {
  const double x[] = {1, 0}, below[] = {1, -1}, noise = 2, slope = 1;
  double z, grad[2];
  OK(ops_host(F64)->sample_forward(1, 1, x, &noise, &z));
  cr_assert(eq(dbl, z, 1));
  OK(ops_host(F64)->sample_backward(1, 1, x, &noise, &slope, grad));
  cr_assert(eq(dbl, grad[0], 1));
  cr_assert(eq(dbl, grad[1], INFINITY));
  OK(ops_host(F64)->sample_forward(1, 1, below, &noise, &z));
  cr_assert(eq(int, isnan(z) != 0, 1));
}
