/* Balanced MSE: the definition in plain loops, derivatives, shares of rows, labels that repeat, edges. */
#include "loss/balanced.h"

#include "dist/memory.h"
#include "dist/random.h"
#include "tests/balanced_cases.h"
#include "tests/gradient_check.h"
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())

#define ROWS BALANCED_ROWS
#define MOST BALANCED_MOST

/* ---- the definition -------------------------------------------------------------------------- */

/* BMC as it stands in the header, over all pairs. */
static double plain_bmc(const struct balanced_batch *batch, double sigma) {
  double v = sigma * sigma, sum = 0;
  for (int i = 0; i < ROWS; i++) {
    double own = 0, total = 0;
    for (int j = 0; j < ROWS; j++) {
      double square = 0;
      for (int d = 0; d < batch->targets; d++)
        square += pow(batch->pred[i * batch->targets + d] - batch->label[j * batch->targets + d], 2);
      total += exp(-square / (2 * v));
      own = i == j ? square : own;
    }
    sum += own / (2 * v) + log(total);
  }
  return 2 * v * sum / ROWS;
}

Test(balanced, bmc_is_the_softmax_over_all_labels) {
  for (int kind = 0; kind < BALANCED_BNI; kind++) {
    struct balanced_batch batch = balanced_batch_of(kind);
    struct balanced *balanced = balanced_of(kind, F64, &batch);
    double loss, grad_sigma, expected = plain_bmc(&batch, 0.8);
    balanced_loss(balanced, 0.8, ROWS, batch.pred, batch.label, ROWS, NULL, &loss, &grad_sigma);
    cr_expect(le(dbl, fabs(loss - expected), 1e-13 * fabs(expected)), "%s: %.17g, %.17g", balanced_kind_names[kind],
              loss, expected);
    balanced_destroy(&balanced);
  }
}

/* A mixture of one component is a normal distribution: the loss in closed form, D = 1. */
Test(balanced, gai_of_one_component_is_a_difference_of_squares) {
  struct mixture mixture = {.components = 1, .dimensions = 1};
  struct balanced *balanced;
  double p[] = {2.5, -1}, y[] = {2, 1}, sigma = 0.7, v = sigma * sigma, expected = 0, loss, grad_sigma;
  mixture_set(&mixture, 0, 1, (double[]){0.3}, (double[]){1.9});
  for (int i = 0; i < 2; i++)
    expected += v * (pow(p[i] - y[i], 2) / (2 * v) + log(v / (1.9 + v)) / 2 - pow(p[i] - 0.3, 2) / (2 * (1.9 + v)));
  OK(balanced_create_gai(F64, &mixture, &balanced));
  balanced_loss(balanced, sigma, 2, p, y, 2, NULL, &loss, &grad_sigma);
  cr_expect(le(dbl, fabs(loss - expected), 1e-14), "%.17g, %.17g", loss, expected);
  balanced_destroy(&balanced);
}

/* ---- derivatives ----------------------------------------------------------------------------- */

struct point {
  const struct balanced *balanced;
  const struct balanced_batch *batch;
  double sigma, factor; /* 2 v of the point itself: a constant */
};

static double by_predictions(void *context, const double *pred) {
  struct point *point = context;
  double loss, grad_sigma;
  balanced_loss(point->balanced, point->sigma, ROWS, pred, point->batch->label, ROWS, NULL, &loss, &grad_sigma);
  return loss;
}

static double by_sigma(void *context, const double *sigma) {
  struct point *point = context;
  double loss, grad_sigma;
  balanced_loss(point->balanced, *sigma, ROWS, point->batch->pred, point->batch->label, ROWS, NULL, &loss, &grad_sigma);
  return loss / (2 * *sigma * *sigma) * point->factor;
}

Test(balanced, gradients_equal_finite_differences, .timeout = 120) {
  static const double sigmas[] = {0.8, 2.5, -1.3};
  for (int kind = 0; kind < BALANCED_KINDS; kind++)
    for (int s = 0; s < 3; s++) {
      struct balanced_batch batch = balanced_batch_of(kind);
      double sigma = sigmas[s], grad[ROWS * MOST], loss, grad_sigma;
      struct point point = {balanced_of(kind, F64, &batch), &batch, sigma, 2 * sigma * sigma};
      balanced_loss(point.balanced, sigma, ROWS, batch.pred, batch.label, ROWS, grad, &loss, &grad_sigma);
      double x[ROWS * MOST];
      memcpy(x, batch.pred, sizeof x);
      struct gradient_check check = gradient_check(by_predictions, &point, x, 24, grad, 1e-3);
      /* The loss is a mean of 300 terms of order 1 to 10: rounding is 1e-15 / h = 1e-12, a gradient about 1e-2. */
      cr_expect(le(dbl, check.error, 1e-8), "%s, sigma %g: %s", balanced_kind_names[kind], sigma,
                gradient_check_text(&check));
      check = gradient_check(by_sigma, &point, &sigma, 1, &grad_sigma, 1e-3);
      cr_expect(le(dbl, check.error, 1e-8), "%s, sigma %g: %s", balanced_kind_names[kind], sigma,
                gradient_check_text(&check));
      balanced_destroy((struct balanced **)&point.balanced);
    }
}

/* ---- shares ---------------------------------------------------------------------------------- */

/* Each row's gradient has the same bits in any piece; the parts of all pieces add up. */
Test(balanced, pieces_add_up_to_the_whole_batch) {
  static const int first[] = {0, 1, 1, 150, ROWS};
  for (int kind = 0; kind < BALANCED_KINDS; kind++) {
    struct balanced_batch batch = balanced_batch_of(kind);
    struct balanced *balanced = balanced_of(kind, F64, &batch);
    double whole[ROWS * MOST] = {0}, parts[ROWS * MOST] = {0}, loss, grad_sigma, loss_sum = 0, sigma_sum = 0;
    balanced_loss(balanced, 1.1, ROWS, batch.pred, batch.label, ROWS, whole, &loss, &grad_sigma);
    for (int piece = 0; piece < 4; piece++) {
      int at = first[piece] * batch.targets;
      double part, slope;
      balanced_loss(balanced, 1.1, first[piece + 1] - first[piece], batch.pred + at, batch.label + at, ROWS, parts + at,
                    &part, &slope);
      loss_sum += part;
      sigma_sum += slope;
    }
    cr_expect(le(dbl, fabs(loss_sum - loss), 1e-13 * fabs(loss)), "%s", balanced_kind_names[kind]);
    cr_expect(le(dbl, fabs(sigma_sum - grad_sigma), 1e-12 * fabs(grad_sigma)), "%s", balanced_kind_names[kind]);
    cr_expect(eq(int, memcmp(whole, parts, sizeof whole), 0), "%s", balanced_kind_names[kind]);
    balanced_destroy(&balanced);
  }
}

Test(balanced, threads_do_not_change_a_bit) {
  for (int kind = 0; kind < BALANCED_KINDS; kind++) {
    struct balanced_batch batch = balanced_batch_of(kind);
    struct balanced *balanced = balanced_of(kind, F64, &batch);
    double one[ROWS * MOST + 2] = {0}, three[ROWS * MOST + 2] = {0};
    omp_set_num_threads(1);
    balanced_loss(balanced, 1.1, ROWS, batch.pred, batch.label, ROWS, one + 2, &one[0], &one[1]);
    omp_set_num_threads(3);
    balanced_loss(balanced, 1.1, ROWS, batch.pred, batch.label, ROWS, three + 2, &three[0], &three[1]);
    cr_expect(eq(int, memcmp(one, three, sizeof one), 0), "%s", balanced_kind_names[kind]);
    balanced_destroy(&balanced);
  }
}

/* Two views: every row stands twice in the batch, and so does its label in the softmax. */
Test(balanced, views_are_rows_of_the_batch) {
  struct balanced_batch batch = balanced_batch_of(BALANCED_BMC);
  double twice_pred[2 * ROWS], twice_label[2 * ROWS], grad[2][2 * ROWS], loss[2], grad_sigma[2];
  struct balanced *balanced;
  for (int i = 0; i < 2 * ROWS; i++) {
    twice_label[i] = batch.label[i % ROWS];
    twice_pred[i] = batch.pred[i % ROWS] + (i < ROWS ? 0 : 0.1);
  }
  OK(balanced_create_bmc(F64, 1, &balanced));
  OK(balanced_set_labels(balanced, ROWS, batch.label, 2));
  balanced_loss(balanced, 1.1, 2 * ROWS, twice_pred, twice_label, 2 * ROWS, grad[0], &loss[0], &grad_sigma[0]);
  OK(balanced_set_labels(balanced, 2 * ROWS, twice_label, 1));
  balanced_loss(balanced, 1.1, 2 * ROWS, twice_pred, twice_label, 2 * ROWS, grad[1], &loss[1], &grad_sigma[1]);
  cr_expect(eq(dbl, loss[0], loss[1]));
  cr_expect(eq(dbl, grad_sigma[0], grad_sigma[1]));
  cr_expect(eq(int, memcmp(grad[0], grad[1], sizeof grad[0]), 0));
  balanced_destroy(&balanced);
}

Test(balanced, n_ranks_equal_one_rank) {
  for (int ranks = 1; ranks <= 4; ranks++) {
    struct run_result run;
    cr_assert(eq(int, run_ranks(ranks, "rank_balanced", NULL, &run), 0), "%d ranks:\n%s", ranks, run.output);
    run_result_free(&run);
  }
}

/* ---- edges ----------------------------------------------------------------------------------- */

Test(balanced, one_row_and_no_rows_have_no_gradient) {
  struct balanced *balanced;
  double p[] = {3.7}, y[] = {2.1}, grad[1] = {7}, loss = 7, grad_sigma = 7;
  OK(balanced_create_bmc(F64, 1, &balanced));
  OK(balanced_set_labels(balanced, 1, y, 1));
  balanced_loss(balanced, 0.3, 1, p, y, 1, grad, &loss, &grad_sigma);
  cr_expect(loss == 0 && grad[0] == 0 && grad_sigma == 0, "%g %g %g", loss, grad[0], grad_sigma);
  loss = grad_sigma = 7;
  balanced_loss(balanced, 0.3, 0, NULL, NULL, 5, NULL, &loss, &grad_sigma);
  cr_expect(loss == 0 && grad_sigma == 0);
  balanced_destroy(&balanced);
}

/* Where exponents are far out of range: the nearest label takes the whole softmax, or all share it. */
Test(balanced, very_small_and_very_large_scales_stay_finite) {
  struct balanced_batch batch = balanced_batch_of(BALANCED_BMC);
  struct balanced *balanced = balanced_of(BALANCED_BMC, F64, &batch);
  double grad[ROWS], loss, grad_sigma, mean = 0;
  balanced_loss(balanced, 1e-9, ROWS, batch.pred, batch.label, ROWS, grad, &loss, &grad_sigma);
  for (int i = 0; i < ROWS; i++) {
    double nearest = INFINITY, chosen = 0;
    for (int j = 0; j < ROWS; j++)
      if (fabs(batch.pred[i] - batch.label[j]) < nearest) {
        nearest = fabs(batch.pred[i] - batch.label[j]);
        chosen = batch.label[j];
      }
    cr_expect(le(dbl, fabs(grad[i] - 2 * (chosen - batch.label[i]) / ROWS), 1e-14));
    mean += batch.label[i] / ROWS;
  }
  cr_expect(isfinite(loss) && isfinite(grad_sigma));
  balanced_loss(balanced, 1e9, ROWS, batch.pred, batch.label, ROWS, grad, &loss, &grad_sigma);
  for (int i = 0; i < ROWS; i++)
    cr_expect(le(dbl, fabs(grad[i] - 2 * (mean - batch.label[i]) / ROWS), 1e-14));
  cr_expect(isfinite(loss) && isfinite(grad_sigma));
  balanced_destroy(&balanced);
}

Test(balanced, what_is_not_finite_shows_in_the_loss) {
  static const double bad[] = {NAN, INFINITY, -INFINITY};
  for (int kind = 0; kind < BALANCED_KINDS; kind++)
    for (int b = 0; b < 3; b++) {
      struct balanced_batch batch = balanced_batch_of(kind);
      struct balanced *balanced = balanced_of(kind, F64, &batch);
      double loss, grad_sigma;
      batch.pred[7] = bad[b];
      balanced_loss(balanced, 1, ROWS, batch.pred, batch.label, ROWS, NULL, &loss, &grad_sigma);
      cr_expect(not(isfinite(loss)), "%s, %g: %g", balanced_kind_names[kind], bad[b], loss);
      balanced_destroy(&balanced);
    }
}

/* Nothing of the size rows x rows: 20,000 different labels, and 100 bytes for each. */
Test(balanced, memory_grows_with_the_labels_alone) {
  enum { MANY = 20000 };
  struct balanced *balanced;
  double *labels = malloc(MANY * sizeof *labels), *grad = malloc(MANY * sizeof *grad), loss, grad_sigma;
  for (int i = 0; i < MANY; i++)
    labels[i] = random_uniform(random_key(1, RANDOM_TEST, 0), (uint64_t)i, 0);
  memory_peak_reset();
  OK(balanced_create_bmc(F64, 1, &balanced));
  OK(balanced_set_labels(balanced, MANY, labels, 1));
  balanced_loss(balanced, 1, 100, labels, labels, MANY, grad, &loss, &grad_sigma);
  cr_expect(le(sz, memory_peak(), (size_t)(100 * MANY)));
  balanced_destroy(&balanced);
  cr_expect(eq(sz, memory_in_use(), 0));
  free(labels);
  free(grad);
}

Test(balanced, labels_of_too_many_components_are_refused) {
  struct balanced *balanced;
  cr_expect(eq(int, balanced_create_bmc(F32, 65, &balanced), ERR_ARGUMENT));
  cr_expect(eq(str, (char *)status_message(), "Balanced MSE takes labels of 1 to 64 components, not 65"));
  cr_expect(eq(ptr, balanced, NULL));
  balanced_destroy(&balanced);
}
