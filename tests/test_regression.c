/* Pointwise losses: derivatives, shares of ranks, components, weights, edges. */
#include "loss/regression.h"

#include "dist/random.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

#define ROWS 13
#define TARGETS 3
#define COUNT (ROWS * TARGETS)

/* Every kind, with constants that put random residuals on both sides of a knee. */
static const struct regression losses[] = {
    {.kind = REGRESSION_L1},
    {.kind = REGRESSION_MSE},
    {.kind = REGRESSION_HUBER, .beta = 0.7},
    {.kind = REGRESSION_FOCAL_L1, .beta = 0.2, .gamma = 1, .activation = FOCAL_SIGMOID},
    {.kind = REGRESSION_FOCAL_L1, .beta = 1.5, .gamma = 2.5, .activation = FOCAL_TANH},
    {.kind = REGRESSION_FOCAL_L1, .beta = 1, .gamma = 0.5, .activation = FOCAL_TANH},
    {.kind = REGRESSION_FOCAL_MSE, .beta = 0.2, .gamma = 1, .activation = FOCAL_TANH},
    {.kind = REGRESSION_FOCAL_MSE, .beta = 20, .gamma = 2, .activation = FOCAL_SIGMOID},
    {.kind = REGRESSION_FOCAL_MSE, .beta = 0.5, .gamma = 0, .activation = FOCAL_SIGMOID},
};
#define LOSSES ((int)(sizeof losses / sizeof losses[0]))

struct batch {
  double pred[COUNT], target[COUNT], weight[ROWS];
};

static struct batch random_batch(void) {
  struct batch batch;
  struct random_key key = random_key(11, RANDOM_TEST, 0);
  for (int i = 0; i < COUNT; i++) {
    batch.target[i] = 3 * random_normal(key, 0, (uint64_t)i);
    batch.pred[i] = batch.target[i] + random_normal(key, 1, (uint64_t)i);
  }
  for (int i = 0; i < ROWS; i++)
    batch.weight[i] = 0.1 + 2 * random_uniform(key, 2, (uint64_t)i);
  return batch;
}

static double value_of(const struct regression *loss, const struct batch *batch, const double *weight) {
  double value;
  regression_loss(loss, F64, ROWS, TARGETS, batch->pred, batch->target, weight, ROWS, NULL, &value);
  return value;
}

/* Central differences with step h err by h^2 f''' / 6 and by rounding, eps |f| / h: with h = 1e-5 and values of order 1
 * (beta 20 makes f''' of order 1e3) about 1e-8.  No residual of this batch is within h of 0 or of the knee. */
Test(regression, gradient_equals_finite_differences) {
  struct batch batch = random_batch();
  const double h = 1e-5;
  for (int k = 0; k < LOSSES; k++) {
    double grad[COUNT], value;
    regression_loss(&losses[k], F64, ROWS, TARGETS, batch.pred, batch.target, batch.weight, ROWS, grad, &value);
    for (int i = 0; i < COUNT; i++) {
      double centre = batch.pred[i], residual = fabs(centre - batch.target[i]);
      cr_assert(residual > 2 * h);
      cr_assert(fabs(residual - 0.7) > 2 * h);
      batch.pred[i] = centre + h;
      double above = value_of(&losses[k], &batch, batch.weight);
      batch.pred[i] = centre - h;
      double below = value_of(&losses[k], &batch, batch.weight);
      batch.pred[i] = centre;
      cr_expect(lt(dbl, fabs((above - below) / (2 * h) - grad[i]), 1e-8), "%s (loss %d), element %d: %.12g, %.12g",
                regression_name(losses[k].kind), k, i, grad[i], (above - below) / (2 * h));
    }
  }
}

/* The definition, written as a plain loop over all elements. */
Test(regression, several_components_are_averaged_like_rows) {
  struct batch batch = random_batch();
  double expected = 0, value = value_of(&losses[1], &batch, NULL);
  for (int i = 0; i < COUNT; i++)
    expected += (batch.pred[i] - batch.target[i]) * (batch.pred[i] - batch.target[i]) / COUNT;
  cr_assert(lt(dbl, fabs(value - expected), 1e-14 * expected));

  double flat;
  regression_loss(&losses[1], F64, COUNT, 1, batch.pred, batch.target, NULL, COUNT, NULL, &flat);
  cr_assert(eq(dbl, value, flat));
}

Test(regression, weight_scales_all_components_of_its_row_and_not_the_divisor) {
  struct batch batch = random_batch();
  for (int k = 0; k < LOSSES; k++) {
    double plain[COUNT], weighted[COUNT], ignored, expected = 0;
    regression_loss(&losses[k], F64, ROWS, TARGETS, batch.pred, batch.target, NULL, ROWS, plain, &ignored);
    regression_loss(&losses[k], F64, ROWS, TARGETS, batch.pred, batch.target, batch.weight, ROWS, weighted, &ignored);
    for (int i = 0; i < COUNT; i++)
      cr_assert(le(dbl, fabs(weighted[i] - batch.weight[i / TARGETS] * plain[i]), 1e-15), "loss %d, element %d", k, i);
    for (int row = 0; row < ROWS; row++) {
      double own;
      regression_loss(&losses[k], F64, 1, TARGETS, batch.pred + row * TARGETS, batch.target + row * TARGETS, NULL, ROWS,
                      NULL, &own);
      expected += batch.weight[row] * own;
    }
    cr_assert(le(dbl, fabs(value_of(&losses[k], &batch, batch.weight) - expected), 1e-14 * expected), "loss %d", k);
  }
}

Test(regression, uneven_and_empty_shares_of_ranks_add_up_to_the_joint_batch) {
  struct batch batch = random_batch();
  const int first[] = {0, 5, 5, 6, ROWS}; /* ranks with 5, 0, 1 and 7 rows */
  for (int k = 0; k < LOSSES; k++) {
    double joint[COUNT], shared[COUNT], value, sum = 0;
    regression_loss(&losses[k], F64, ROWS, TARGETS, batch.pred, batch.target, batch.weight, ROWS, joint, &value);
    for (int rank = 0; rank < 4; rank++) {
      int at = first[rank] * TARGETS;
      double part;
      regression_loss(&losses[k], F64, first[rank + 1] - first[rank], TARGETS, batch.pred + at, batch.target + at,
                      batch.weight + first[rank], ROWS, shared + at, &part);
      sum += part;
    }
    cr_assert(le(dbl, fabs(sum - value), 1e-14 * value), "loss %d: %.17g, joint %.17g", k, sum, value);
    cr_assert(eq(int, memcmp(joint, shared, sizeof joint), 0), "loss %d: gradients differ", k);
  }
}

Test(regression, exact_predictions_have_no_loss_and_no_gradient) {
  double pred[] = {2, -1, 0}, grad[3], value;
  for (int k = 0; k < LOSSES; k++) {
    regression_loss(&losses[k], F64, 3, 1, pred, pred, NULL, 3, grad, &value);
    cr_assert(eq(dbl, value, 0), "loss %d", k);
    for (int i = 0; i < 3; i++)
      cr_assert(eq(dbl, grad[i], 0), "loss %d, element %d", k, i);
  }
}

Test(regression, huber_is_quadratic_below_the_knee_and_linear_from_it_on) {
  struct regression loss = {.kind = REGRESSION_HUBER, .beta = 0.5};
  const double pred[] = {0.25, 0.496, 0.5, 0.504, -2}, values[] = {0.0625, 0.496 * 0.496, 0.25, 0.254, 1.75};
  const double slopes[] = {0.5, 0.992, 1, 1, -1}, target = 0;
  for (int i = 0; i < 5; i++) {
    double grad, value;
    regression_loss(&loss, F64, 1, 1, &pred[i], &target, NULL, 1, &grad, &value);
    cr_expect(epsilon_eq(dbl, value, values[i], 1e-15), "residual %g", pred[i]);
    cr_expect(epsilon_eq(dbl, grad, slopes[i], 1e-15), "residual %g", pred[i]);
  }
}

/* The activations as they are written in the papers, not by way of one another. */
Test(regression, focal_factor_is_the_named_activation_to_the_power_gamma) {
  const double x = 0.8, beta = 1.3, target = 2, pred = 2 - x;
  double sigmoid = 2 / (1 + exp(-beta * x)) - 1, tangent = (exp(2 * beta * x) - 1) / (exp(2 * beta * x) + 1);
  struct regression loss = {.kind = REGRESSION_FOCAL_L1, .beta = beta, .gamma = 3, .activation = FOCAL_SIGMOID};
  double value;
  regression_loss(&loss, F64, 1, 1, &pred, &target, NULL, 1, NULL, &value);
  cr_assert(epsilon_eq(dbl, value, x * sigmoid * sigmoid * sigmoid, 1e-14));
  loss.activation = FOCAL_TANH;
  regression_loss(&loss, F64, 1, 1, &pred, &target, NULL, 1, NULL, &value);
  cr_assert(epsilon_eq(dbl, value, x * tangent * tangent * tangent, 1e-14));
  loss.kind = REGRESSION_FOCAL_MSE;
  regression_loss(&loss, F64, 1, 1, &pred, &target, NULL, 1, NULL, &value);
  cr_assert(epsilon_eq(dbl, value, x * x * tangent * tangent * tangent, 1e-14));
}

Test(regression, no_rows_give_zero_whoever_has_the_others) {
  double value = 7;
  regression_loss(&losses[0], F64, 0, TARGETS, NULL, NULL, NULL, 12, NULL, &value);
  cr_assert(eq(dbl, value, 0));
  value = 7;
  regression_loss(&losses[0], F64, 0, TARGETS, NULL, NULL, NULL, 0, NULL, &value);
  cr_assert(eq(dbl, value, 0));
}

/* A million float32 residuals of 0.1: a float32 sum would be off by 1e-2 of the mean, a sum in double by 1e-13. */
Test(regression, float32_values_are_summed_in_double) {
  enum { MANY = 1000000 };
  static float pred[MANY], target[MANY];
  for (int i = 0; i < MANY; i++)
    pred[i] = 0.1f;
  double value;
  regression_loss(&losses[0], F32, MANY, 1, pred, target, NULL, MANY, NULL, &value);
  cr_assert(lt(dbl, fabs(value - (double)0.1f), 1e-11));
}

Test(regression, gradient_may_replace_the_prediction) {
  struct batch batch = random_batch();
  double grad[COUNT], value, again;
  regression_loss(&losses[3], F64, ROWS, TARGETS, batch.pred, batch.target, batch.weight, ROWS, grad, &value);
  regression_loss(&losses[3], F64, ROWS, TARGETS, batch.pred, batch.target, batch.weight, ROWS, batch.pred, &again);
  cr_assert(eq(dbl, value, again));
  cr_assert(eq(int, memcmp(grad, batch.pred, sizeof grad), 0));
}

Test(regression, first_nonfinite_prediction_is_found) {
  float single[] = {1, -FLT_MAX, NAN, INFINITY};
  double wide[] = {1, -INFINITY, 2};
  cr_assert(eq(i64, regression_first_nonfinite(F32, 4, single), 2));
  cr_assert(eq(i64, regression_first_nonfinite(F32, 2, single), -1));
  cr_assert(eq(i64, regression_first_nonfinite(F64, 3, wide), 1));
  cr_assert(eq(i64, regression_first_nonfinite(F64, 0, NULL), -1));
}

Test(regression, a_nan_prediction_shows_in_loss_and_gradient) {
  double pred[] = {1, NAN}, target[] = {0, 0}, grad[2], value;
  for (int k = 0; k < LOSSES; k++) {
    regression_loss(&losses[k], F64, 2, 1, pred, target, NULL, 2, grad, &value);
    cr_assert(isnan(value), "loss %d", k);
    cr_assert(isnan(grad[1]), "loss %d", k);
    cr_assert(isfinite(grad[0]), "loss %d", k);
  }
}

Test(regression, unknown_names_are_answered_with_the_known_ones) {
  enum regression_kind kind;
  cr_assert(eq(int, regression_by_name("l2", &kind), ERR_ARGUMENT));
  cr_assert(ne(ptr, strstr(status_message(), "\"l2\""), NULL));
  cr_assert(ne(ptr, strstr(status_message(), "focal_mse"), NULL));
  enum focal_activation activation;
  cr_assert(eq(int, focal_activation_by_name("relu", &activation), ERR_ARGUMENT));
  cr_assert(ne(ptr, strstr(status_message(), "sigmoid or tanh"), NULL));
}

Test(regression, names_lead_back_to_their_kind) {
  for (int k = REGRESSION_L1; k <= REGRESSION_FOCAL_MSE; k++) {
    enum regression_kind kind;
    cr_assert(eq(int, regression_by_name(regression_name((enum regression_kind)k), &kind), STATUS_OK));
    cr_assert(eq(int, kind, k));
    struct regression standard = regression_default(kind);
    cr_assert(eq(int, regression_check(&standard), STATUS_OK));
  }
}

Test(regression, constants_without_meaning_are_refused) {
  struct regression knee = {.kind = REGRESSION_HUBER, .beta = 0};
  cr_assert(eq(int, regression_check(&knee), ERR_ARGUMENT));
  cr_assert(ne(ptr, strstr(status_message(), "beta 0 of the huber loss"), NULL));
  struct regression exponent = {.kind = REGRESSION_FOCAL_L1, .beta = 1, .gamma = -1};
  cr_assert(eq(int, regression_check(&exponent), ERR_ARGUMENT));
  cr_assert(ne(ptr, strstr(status_message(), "gamma -1"), NULL));
  struct regression unused = {.kind = REGRESSION_L1, .beta = -3, .gamma = NAN};
  cr_assert(eq(int, regression_check(&unused), STATUS_OK));
}
