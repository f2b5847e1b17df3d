/* Calibration, likelihood and sparsification: by hand, and what is refused. */
#include "loss/uncertainty.h"

#include "dist/memory.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>

static const double zeros[8] = {0};

/* Deviations 0, 1 and 10: the first bin, the second from its lower edge on, and the last, closed one. */
Test(uncertainty, calibration_compares_errors_and_deviations_bin_by_bin) {
  const double pred[] = {1, -3, 0.5, 4, 2}, deviation[] = {0, 0, 1, 10, 10};
  double expected = (fabs(2.0 - 0) * 2 + fabs(0.5 - 1) + fabs(3.0 - 10) * 2) / 5;
  cr_assert(epsilon_eq(dbl, uncertainty_calibration(F64, 5, pred, zeros, F64, deviation), expected, 1e-14));
}

Test(uncertainty, calibration_of_equal_huge_or_missing_deviations) {
  const double pred[] = {1, -3}, equal[] = {4, 4}, huge[] = {INFINITY, 1e9}, wrong[] = {1, NAN};
  cr_assert(epsilon_eq(dbl, uncertainty_calibration(F64, 2, pred, zeros, F64, equal), 2, 1e-15));
  cr_assert(epsilon_eq(dbl, uncertainty_calibration(F64, 2, pred, zeros, F64, huge), exp(10) - 2, 1e-9));
  cr_assert(isnan(uncertainty_calibration(F64, 2, pred, zeros, F64, wrong)));
  cr_assert(isnan(uncertainty_calibration(F64, 0, pred, zeros, F64, equal)));
}

Test(uncertainty, gaussian_nll_is_minus_the_log_of_the_density) {
  const float pred[] = {1.5f, -1};
  const float target[] = {1, 1};
  const double variance[] = {0.25, 9};
  double expected = 0, pi = acos(-1);
  for (int i = 0; i < 2; i++) {
    double e = (double)pred[i] - (double)target[i];
    expected -= log(exp(-e * e / (2 * variance[i])) / sqrt(2 * pi * variance[i])) / 2;
  }
  cr_assert(epsilon_eq(dbl, uncertainty_gaussian_nll(F32, 2, pred, target, F64, variance), expected, 1e-14));
}

Test(uncertainty, sparsification_takes_the_least_certain_away_first) {
  const double pred[] = {1, -4, 2, 3}, variance[] = {9, 1, 2, 3};
  double by_variance[3], by_error[3], ause;
  cr_assert(
      eq(int, uncertainty_sparsification(F64, 4, pred, zeros, F64, variance, by_variance, by_error, &ause), STATUS_OK));
  const double expected_variance[] = {3, 3, 4}, expected_error[] = {2, 1.5, 1};
  for (int i = 0; i < 3; i++) {
    cr_expect(eq(dbl, by_variance[i], expected_variance[i]), "point %d", i);
    cr_expect(eq(dbl, by_error[i], expected_error[i]), "point %d", i);
  }
  cr_assert(epsilon_eq(dbl, ause, (1.0 / 3 / 2 + 1.5 / 3 + 1.0 / 2) / 2, 1e-15));
  cr_assert(eq(sz, memory_in_use(), 0));
}

Test(uncertainty, sparsification_in_the_order_of_errors_has_no_area) {
  const double pred[] = {1, -4, 2, 3}, variance[] = {10, 40, 20, 30}, wrong[] = {1, NAN, 2, 3};
  double ause;
  cr_assert(eq(int, uncertainty_sparsification(F64, 4, pred, zeros, F64, variance, NULL, NULL, &ause), STATUS_OK));
  cr_assert(eq(dbl, ause, 0));
  for (int count = 0; count < 3; count++) {
    cr_assert(
        eq(int, uncertainty_sparsification(F64, count, pred, zeros, F64, variance, NULL, NULL, &ause), STATUS_OK));
    cr_assert(isnan(ause));
  }
  cr_assert(eq(int, uncertainty_sparsification(F64, 4, pred, zeros, F64, wrong, NULL, NULL, &ause), ERR_NUMERIC));
  cr_assert(eq(sz, memory_in_use(), 0));
}
