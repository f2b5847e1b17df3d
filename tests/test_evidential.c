/* The evidential loss: derivatives, large arguments, shares of ranks, components, what is not a number. */
#include "loss/evidential.h"

#include "tests/buffers.h"
#include "tests/gradient_check.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <string.h>

#define ROWS 11
#define TARGETS 2
#define WIDTH (3 * TARGETS)

struct batch {
  double output[ROWS * WIDTH], target[ROWS * TARGETS], weight[ROWS];
};

/* Residuals stay 0.5 away from 0; pre-activations on both sides of the bend of sp. */
static struct batch make_batch(void) {
  struct batch batch;
  for (int i = 0; i < ROWS * TARGETS; i++)
    batch.target[i] = 3 * buffer_number(1, i);
  for (int i = 0; i < ROWS * WIDTH; i++) {
    double number = buffer_number(2, i);
    batch.output[i] = i % WIDTH < TARGETS
                          ? batch.target[i / WIDTH * TARGETS + i % WIDTH] + copysign(0.5, number) + number
                          : 20 * number;
  }
  for (int i = 0; i < ROWS; i++)
    batch.weight[i] = 0.3 + fabs(buffer_number(3, i));
  return batch;
}

static double value_of(void *context, const double *output) {
  struct evidential evidential = evidential_default();
  const struct batch *batch = context;
  double value;
  evidential_loss(&evidential, F64, ROWS, TARGETS, output, batch->target, batch->weight, ROWS, NULL, &value);
  return value;
}

Test(evidential, gradient_equals_finite_differences) {
  struct batch batch = make_batch();
  struct evidential evidential = evidential_default();
  double grad[ROWS * WIDTH], value;
  evidential_loss(&evidential, F64, ROWS, TARGETS, batch.output, batch.target, batch.weight, ROWS, grad, &value);
  struct gradient_check check = gradient_check(value_of, &batch, batch.output, ROWS * WIDTH, grad, 1e-3);
  cr_assert(le(dbl, check.error, 1e-9), "%s", gradient_check_text(&check));
}

/* As the formulas stand, with the C library's lgamma. */
Test(evidential, value_is_the_mean_of_likelihood_and_regulariser) {
  struct batch batch = make_batch();
  double expected = 0;
  for (int row = 0; row < ROWS; row++)
    for (int k = 0; k < TARGETS; k++) {
      const double *out = batch.output + row * WIDTH;
      double n = batch.weight[row] * (10 * log(1 + exp(out[TARGETS + k] / 10)) + 2), alpha = 0.3 + n / 2;
      double beta = 10 * log(1 + exp(out[2 * TARGETS + k] / 10)), e = out[k] - batch.target[row * TARGETS + k];
      double w = 2 * beta * (1 + n), q = n * e * e + w;
      double nll =
          0.5 * log(acos(-1) / n) - alpha * log(w) + (alpha + 0.5) * log(q) + lgamma(alpha) - lgamma(alpha + 0.5);
      expected += (nll + 0.01 * fabs(e) * (2 * n + alpha)) / (ROWS * TARGETS);
    }
  cr_assert(epsilon_eq(dbl, value_of(&batch, batch.output), expected, 1e-12 * fabs(expected)));
}

/* At the true mean the density is Gamma(alpha + 1/2) / Gamma(alpha) sqrt(v / (pi W)): for large alpha nearly
 * sqrt(alpha) (1 - 1 / (8 alpha)), which differences of two lgamma of 1e13 would have lost. */
Test(evidential, likelihood_and_slopes_hold_their_digits_at_large_counts) {
  for (int power = 6; power <= 12; power += 3) {
    double alpha = pow(10, power);
    struct nig nig = {0, 2 * alpha, alpha, alpha};
    struct nig_term nll = nig_nll(&nig, 0);
    double w = 2 * alpha * (1 + 2 * alpha);
    double expected = 0.5 * log(acos(-1) * w / (2 * alpha)) - 0.5 * log(alpha) + 1 / (8 * alpha);
    cr_expect(epsilon_eq(dbl, nll.value, expected, 1e-14 * fabs(expected)), "alpha %g: %.17g", alpha, nll.value);
    cr_expect(epsilon_eq(dbl, nll.slope.alpha * alpha, -0.5 - 1 / (8 * alpha), 1e-15), "alpha %g", alpha);
    cr_expect(epsilon_eq(dbl, nll.slope.v * 4 * alpha * (1 + 2 * alpha), -1, 1e-14), "alpha %g", alpha);
  }
}

Test(evidential, small_alpha_meets_the_library_of_lgamma) {
  for (int step = 0; step < 87; step++) {
    double alpha = 0.01 * pow(1.1, step);
    struct nig nig = {1, 1.5, alpha, 2}, above = nig, below = nig;
    double w = 10, q = 1.5 + w, h = 1e-4 * alpha;
    above.alpha += h;
    below.alpha -= h;
    double expected =
        0.5 * log(acos(-1) / 1.5) - alpha * log(w) + (alpha + 0.5) * log(q) + lgamma(alpha) - lgamma(alpha + 0.5);
    struct nig_term nll = nig_nll(&nig, 0);
    double slope = (nig_nll(&above, 0).value - nig_nll(&below, 0).value) / (2 * h);
    cr_expect(epsilon_eq(dbl, nll.value, expected, 1e-13 * (1 + fabs(lgamma(alpha)))), "alpha %g", alpha);
    cr_expect(epsilon_eq(dbl, nll.slope.alpha, slope, 1e-7 * fabs(slope) + 1e-9), "alpha %g", alpha);
  }
}

Test(evidential, uneven_and_empty_shares_of_ranks_add_up_to_the_joint_batch) {
  struct batch batch = make_batch();
  struct evidential evidential = evidential_default();
  const int first[] = {0, 5, 5, 6, ROWS}; /* ranks with 5, 0, 1 and 5 rows */
  double joint[ROWS * WIDTH], shared[ROWS * WIDTH], value, sum = 0;
  evidential_loss(&evidential, F64, ROWS, TARGETS, batch.output, batch.target, batch.weight, ROWS, joint, &value);
  for (int rank = 0; rank < 4; rank++) {
    int at = first[rank];
    double part;
    evidential_loss(&evidential, F64, first[rank + 1] - at, TARGETS, batch.output + at * WIDTH,
                    batch.target + at * TARGETS, batch.weight + at, ROWS, shared + at * WIDTH, &part);
    sum += part;
  }
  cr_assert(le(dbl, fabs(sum - value), 1e-14 * fabs(value)));
  cr_assert(eq(int, memcmp(joint, shared, sizeof joint), 0));
  evidential_loss(&evidential, F64, 0, TARGETS, NULL, NULL, NULL, 0, NULL, &value);
  cr_assert(eq(dbl, value, 0));
}

Test(evidential, gradient_may_replace_the_output_in_both_precisions) {
  struct batch batch = make_batch();
  struct evidential evidential = evidential_default();
  double grad[ROWS * WIDTH], value, again;
  float output[ROWS * WIDTH], target[ROWS * TARGETS], weight[ROWS];
  for (int i = 0; i < ROWS * WIDTH; i++)
    output[i] = (float)batch.output[i];
  for (int i = 0; i < ROWS * TARGETS; i++)
    target[i] = (float)batch.target[i];
  for (int i = 0; i < ROWS; i++)
    weight[i] = (float)batch.weight[i];
  evidential_loss(&evidential, F64, ROWS, TARGETS, batch.output, batch.target, batch.weight, ROWS, grad, &value);
  evidential_loss(&evidential, F64, ROWS, TARGETS, batch.output, batch.target, batch.weight, ROWS, batch.output,
                  &again);
  cr_assert(eq(dbl, value, again));
  cr_assert(eq(int, memcmp(grad, batch.output, sizeof grad), 0));
  evidential_loss(&evidential, F32, ROWS, TARGETS, output, target, weight, ROWS, output, &again);
  cr_assert(epsilon_eq(dbl, again, value, 1e-6 * fabs(value)));
  for (int i = 0; i < ROWS * WIDTH; i++)
    cr_expect(epsilon_eq(dbl, (double)output[i], grad[i], 1e-5 * fabs(grad[i])), "element %d", i);
}

Test(evidential, answers_are_the_mean_and_variance_without_weights) {
  struct evidential evidential = evidential_default();
  const double output[] = {5, -4, 0, 250, 30, 0};
  double pred[2], variance[2];
  evidential_answer(&evidential, F64, 1, 2, output, pred, variance);
  cr_assert(eq(dbl, pred[0], 5));
  cr_assert(eq(dbl, pred[1], -4));
  double n = 10 * log(2) + 2, omega = 10 * log(1 + exp(3));
  cr_assert(epsilon_eq(dbl, variance[0], omega / ((n / 2 - 0.7) * n), 1e-14));
  cr_assert(epsilon_eq(dbl, variance[1], 10 * log(2) / ((252 / 2.0 - 0.7) * 252), 1e-14));
  struct nig flat = {0, 1, 1, 1};
  cr_assert(isinf(nig_variance(&flat)));
}

Test(evidential, what_is_no_number_or_weight_shows_in_the_loss) {
  struct evidential evidential = evidential_default();
  const double target = 0, inputs[][4] = {{NAN, 0, 0, 1}, {1, NAN, 0, 1},  {1, 0, NAN, 1},
                                          {1, 0, 0, NAN}, {1, 0, 0, -0.5}, {1, 0, 0, 0}};
  for (int i = 0; i < 6; i++) {
    double grad[3], value;
    evidential_loss(&evidential, F64, 1, 1, inputs[i], &target, &inputs[i][3], 1, grad, &value);
    cr_expect(isnan(value) && isnan(grad[0]), "case %d: %g %g", i, value, grad[0]);
  }
  const double vanished[] = {1, 0, -8000}, far[] = {1e200, 0, 0};
  double value;
  evidential_loss(&evidential, F64, 1, 1, vanished, &target, NULL, 1, NULL, &value);
  cr_expect(eq(int, isfinite(value) != 0, 0), "%g", value);
  evidential_loss(&evidential, F64, 1, 1, far, &target, NULL, 1, NULL, &value);
  cr_expect(eq(int, isfinite(value) != 0, 0), "%g", value);
}

Test(evidential, constants_that_make_no_distribution_are_refused) {
  static const struct evidential wrong[] = {{-1, 0, 0.3}, {NAN, 0, 0.3}, {0.01, -1, 0.3}, {0.01, 0, 0}};
  struct evidential good = evidential_default();
  cr_assert(eq(int, evidential_check(&good), STATUS_OK));
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
    cr_expect(eq(int, evidential_check(&wrong[i]), ERR_ARGUMENT), "case %zu", i);
}
