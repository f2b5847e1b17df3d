/* UVOTE: derivatives, shares of ranks, components, bounds, votes, what is not a number. */
#include "loss/uvote.h"

#include "tests/buffers.h"
#include "tests/gradient_check.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <string.h>

#define ROWS 11
#define EXPERTS 3
#define TARGETS 2
#define HALF (EXPERTS * TARGETS)
#define WIDTH (2 * HALF)

struct batch {
  double output[ROWS * WIDTH], target[ROWS * TARGETS], weight[ROWS * EXPERTS];
};

static const double coefficients[EXPERTS] = {0.9, 0.3, 1.2};

/* Residuals stay 0.2 away from 0, log scales from the bounds. */
static struct batch make_batch(void) {
  struct batch batch;
  for (int i = 0; i < ROWS * TARGETS; i++)
    batch.target[i] = buffer_number(1, i);
  for (int i = 0; i < ROWS * WIDTH; i++) {
    int row = i / WIDTH, place = i % WIDTH;
    double number = buffer_number(2, i);
    batch.output[i] = place < HALF ? batch.target[row * TARGETS + place % TARGETS] + copysign(0.2, number) + number
                      : i % 7 == 0 ? copysign(6, number)
                                   : fmax(-3, fmin(3, number));
  }
  for (int i = 0; i < ROWS * EXPERTS; i++)
    batch.weight[i] = 0.1 + fabs(buffer_number(3, i));
  return batch;
}

static double value_of(void *context, const double *output) {
  struct uvote uvote = uvote_default(EXPERTS);
  const struct batch *batch = context;
  double value;
  uvote_loss(&uvote, F64, ROWS, TARGETS, output, batch->target, batch->weight, coefficients, ROWS, NULL, &value);
  return value;
}

Test(uvote, gradient_equals_finite_differences) {
  struct batch batch = make_batch();
  struct uvote uvote = uvote_default(EXPERTS);
  double grad[ROWS * WIDTH], value;
  uvote_loss(&uvote, F64, ROWS, TARGETS, batch.output, batch.target, batch.weight, coefficients, ROWS, grad, &value);
  struct gradient_check check = gradient_check(value_of, &batch, batch.output, ROWS * WIDTH, grad, 1e-3);
  cr_assert(le(dbl, check.error, 1e-9), "%s", gradient_check_text(&check));
}

/* The definition, expert by expert, from the documented layout. */
Test(uvote, value_is_the_weighted_sum_over_experts_of_means_over_rows_and_components) {
  struct batch batch = make_batch();
  double expected = 0;
  for (int e = 0; e < EXPERTS; e++)
    for (int row = 0; row < ROWS; row++)
      for (int k = 0; k < TARGETS; k++) {
        double mu = batch.output[row * WIDTH + e * TARGETS + k];
        double b = exp(fmax(-5, fmin(5, batch.output[row * WIDTH + HALF + e * TARGETS + k]))) + 1e-10;
        expected += coefficients[e] * batch.weight[row * EXPERTS + e] *
                    (log(2 * b) + fabs(mu - batch.target[row * TARGETS + k]) / b) / (ROWS * TARGETS);
      }
  cr_assert(epsilon_eq(dbl, value_of(&batch, batch.output), expected, 1e-13 * fabs(expected)));
}

Test(uvote, uneven_and_empty_shares_of_ranks_add_up_to_the_joint_batch) {
  struct batch batch = make_batch();
  struct uvote uvote = uvote_default(EXPERTS);
  const int first[] = {0, 5, 5, 6, ROWS}; /* ranks with 5, 0, 1 and 5 rows */
  double joint[ROWS * WIDTH], shared[ROWS * WIDTH], value, sum = 0;
  uvote_loss(&uvote, F64, ROWS, TARGETS, batch.output, batch.target, batch.weight, coefficients, ROWS, joint, &value);
  for (int rank = 0; rank < 4; rank++) {
    int at = first[rank];
    double part;
    uvote_loss(&uvote, F64, first[rank + 1] - at, TARGETS, batch.output + at * WIDTH, batch.target + at * TARGETS,
               batch.weight + at * EXPERTS, coefficients, ROWS, shared + at * WIDTH, &part);
    sum += part;
  }
  cr_assert(le(dbl, fabs(sum - value), 1e-14 * fabs(value)));
  cr_assert(eq(int, memcmp(joint, shared, sizeof joint), 0));
  uvote_loss(&uvote, F64, 0, TARGETS, NULL, NULL, NULL, coefficients, 0, NULL, &value);
  cr_assert(eq(dbl, value, 0));
}

Test(uvote, experts_without_a_coefficient_learn_nothing) {
  struct batch batch = make_batch();
  struct uvote uvote = uvote_default(EXPERTS);
  double grad[ROWS * WIDTH], coefficient[EXPERTS], value;
  uvote_coefficients(&uvote, 0, 90, coefficient);
  uvote_loss(&uvote, F64, ROWS, TARGETS, batch.output, batch.target, batch.weight, coefficient, ROWS, grad, &value);
  for (int i = 0; i < ROWS * WIDTH; i++)
    if (i % HALF < TARGETS)
      cr_assert(i % WIDTH >= HALF || grad[i] != 0, "element %d", i);
    else
      cr_assert(eq(dbl, grad[i], 0), "element %d", i);
}

Test(uvote, coefficients_follow_the_published_rules_and_stay_after_the_last_epoch) {
  struct uvote uvote = uvote_default(2);
  double coefficient[2];
  static const struct {
    enum uvote_schedule schedule;
    bool dynamic;
    double first, other;
  } rules[] = {{UVOTE_AGEDB, true, 1, 0.25}, {UVOTE_AGEDB, false, 1, 1},     {UVOTE_IMDB, true, 0.75, 0.25},
               {UVOTE_IMDB, false, 0.75, 1}, {UVOTE_WIND, true, 0.75, 0.25}, {UVOTE_WIND, false, 1, 1}};
  for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
    uvote.schedule = rules[i].schedule;
    uvote.dynamic = rules[i].dynamic;
    uvote_coefficients(&uvote, 45, 90, coefficient);
    cr_expect(eq(dbl, coefficient[0], rules[i].first), "rule %zu", i);
    cr_expect(eq(dbl, coefficient[1], rules[i].other), "rule %zu", i);
  }
  uvote = uvote_default(2);
  uvote.schedule = UVOTE_IMDB;
  uvote_coefficients(&uvote, 500, 90, coefficient);
  cr_assert(eq(dbl, coefficient[0], 0));
  cr_assert(eq(dbl, coefficient[1], 1));
}

Test(uvote, bounds_pass_gradient_and_what_is_beyond_does_not) {
  struct uvote uvote = uvote_default(1);
  const double coefficient = 1, target = 0, log_scales[] = {-5, 5, -5.001, 5.001, INFINITY, -INFINITY};
  for (int i = 0; i < 6; i++) {
    double output[] = {1, log_scales[i]}, grad[2], value;
    uvote_loss(&uvote, F64, 1, 1, output, &target, NULL, &coefficient, 1, grad, &value);
    cr_expect(isfinite(value) && grad[0] > 0, "log scale %g", log_scales[i]);
    cr_expect(eq(int, grad[1] != 0, i < 2), "log scale %g", log_scales[i]);
  }
}

Test(uvote, what_is_no_number_or_weight_shows_in_loss_and_gradient) {
  struct uvote uvote = uvote_default(1);
  const double coefficient = 1, target = 0, outputs[][3] = {{NAN, 0, 1}, {0.5, NAN, 1}, {0.5, 0, NAN}, {0.5, 0, -1}};
  for (int i = 0; i < 4; i++) {
    double grad[2], value;
    uvote_loss(&uvote, F64, 1, 1, outputs[i], &target, &outputs[i][2], &coefficient, 1, grad, &value);
    cr_expect(isnan(value) && isnan(grad[0]) && isnan(grad[1]), "case %d: %g %g %g", i, value, grad[0], grad[1]);
  }
  double output[] = {INFINITY, 0}, value;
  uvote_loss(&uvote, F64, 1, 1, output, &target, NULL, &coefficient, 1, NULL, &value);
  cr_assert(isinf(value));
}

Test(uvote, experts_and_bounds_that_cannot_be_are_refused) {
  static const struct uvote wrong[] = {{.experts = 0, .low = -5, .high = 5},
                                       {.experts = UVOTE_MOST_EXPERTS + 1, .low = -5, .high = 5},
                                       {.experts = 2, .low = 5, .high = 5},
                                       {.experts = 2, .low = -5, .high = 1000},
                                       {.experts = 2, .low = NAN, .high = 5}};
  struct uvote good = uvote_default(1);
  cr_assert(eq(int, uvote_check(&good), STATUS_OK));
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
    cr_expect(eq(int, uvote_check(&wrong[i]), ERR_ARGUMENT), "case %zu", i);
  enum uvote_vote vote;
  enum uvote_schedule schedule;
  cr_assert(eq(int, uvote_vote_by_name("median", &vote), ERR_ARGUMENT));
  cr_assert(strstr(status_message(), "minvar") != NULL);
  cr_assert(eq(int, uvote_schedule_by_name("nyud2", &schedule), ERR_ARGUMENT));
  cr_assert(strstr(status_message(), "wind") != NULL);
}

/* Two components whose best experts differ; scales so far apart that exp(-s) by itself would overflow. */
Test(uvote, each_component_votes_for_itself) {
  struct uvote uvote = uvote_default(2);
  const double output[] = {1, 10, 3, 30, -800, 900, 800, -900}, target[] = {2.5, 11};
  static const double expected[][4] = {{2, 20, 0, 0}, {1, 30, -800, -900}, {1, 30, -800, -900}, {3, 10, 800, 900}};
  for (enum uvote_vote vote = UVOTE_AVG; vote <= UVOTE_ORACLE; vote++) {
    double got[4];
    uvote_answer(&uvote, vote, F64, 1, 2, output, target, got, got + 2);
    for (int i = 0; i < 4; i++)
      cr_expect(eq(dbl, got[i], expected[vote][i]), "vote %d, number %d: %g", (int)vote, i, got[i]);
  }
}

Test(uvote, equal_scales_choose_the_first_expert_and_average_alike) {
  struct uvote uvote = uvote_default(3);
  const double output[] = {1, 2, 6, 0.5, 0.5, 0.5};
  double pred, log_scale;
  uvote_answer(&uvote, UVOTE_MINVAR, F64, 1, 1, output, NULL, &pred, &log_scale);
  cr_assert(eq(dbl, pred, 1));
  uvote_answer(&uvote, UVOTE_AVGVAR, F64, 1, 1, output, NULL, &pred, &log_scale);
  cr_assert(epsilon_eq(dbl, pred, 3, 1e-15));
  cr_assert(epsilon_eq(dbl, uvote_deviation(log_scale), 1.4142135623730951 * exp(0.5), 1e-15));
  cr_assert(isinf(uvote_deviation(800)));
}
