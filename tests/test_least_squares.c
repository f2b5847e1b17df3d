/* Coefficients that cannot be negative, against conditions that define them. */
#include "launch/least_squares.h"

#include "dist/random.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>

#define POINTS 30

/* The conditions of Karush, Kuhn and Tucker: at the minimum the gradient is 0 along a positive coefficient and not
 * negative along one that is 0. */
Test(least_squares, the_minimum_is_the_one_with_no_negative_coefficient) {
  int zeros = 0;
  for (uint64_t problem = 0; problem < 200; problem++) {
    struct random_key key = random_key(problem, RANDOM_TEST, 1);
    double x[POINTS * 4], y[POINTS], sigma[POINTS], largest = 0;
    struct coefficient c[4];
    for (int i = 0; i < POINTS; i++) {
      for (int k = 0; k < 4; k++)
        x[i * 4 + k] = random_uniform(key, (uint64_t)i, (uint64_t)k);
      y[i] = random_normal(key, (uint64_t)i, 4) + x[i * 4];
      sigma[i] = 0.5 + random_uniform(key, (uint64_t)i, 5);
    }
    least_squares(POINTS, 4, x, y, sigma, c);
    for (int k = 0; k < 4; k++) {
      double gradient = 0;
      for (int i = 0; i < POINTS; i++) {
        double told = 0;
        for (int l = 0; l < 4; l++)
          told += x[i * 4 + l] * c[l].value;
        gradient += x[i * 4 + k] * (told - y[i]) / pow(sigma[i], 2);
        largest = fmax(largest, fabs(y[i]));
      }
      zeros += c[k].value == 0;
      cr_expect(ge(dbl, c[k].value, 0));
      cr_expect(c[k].value > 0 ? fabs(gradient) < 1e-9 * POINTS * largest : gradient > -1e-9 * POINTS * largest,
                "problem %d, coefficient %d = %g, gradient %g", (int)problem, k, c[k].value, gradient);
    }
  }
  cr_expect(gt(int, zeros, 100), "the problems are to have some at 0");
}

Test(least_squares, columns_of_zeros_and_sums_of_others_are_undetermined) {
  double x[POINTS * 4], y[POINTS], sigma[POINTS];
  struct coefficient c[4];
  for (int i = 0; i < POINTS; i++) {
    x[i * 4] = 1e6 * (1 + i);
    x[i * 4 + 1] = 0;
    x[i * 4 + 2] = 1e-9 * (i % 7);
    x[i * 4 + 3] = x[i * 4] + 1e15 * x[i * 4 + 2];
    y[i] = 3e-6 * x[i * 4] + 1;
    sigma[i] = 1;
  }
  double residual = least_squares(POINTS, 4, x, y, sigma, c);
  for (int k = 0; k < 4; k++)
    cr_expect(eq(int, c[k].state, COEFFICIENT_UNDETERMINED), "column %d", k);
  cr_expect(eq(dbl, c[1].value, 0));
  cr_expect(lt(dbl, residual, 0.2));
}

/* A known line: standard errors of its two coefficients, by the textbook. */
Test(least_squares, errors_are_the_standard_ones) {
  double x[POINTS * 2], y[POINTS], sigma[POINTS], mean = 0, spread = 0, squares = 0;
  struct coefficient c[2];
  for (int i = 0; i < POINTS; i++) {
    x[2 * i] = 1;
    x[2 * i + 1] = i;
    y[i] = 5 + 0.7 * i + (i % 2 ? 0.3 : -0.3);
    sigma[i] = 2;
    mean += (double)i / POINTS;
  }
  double residual = least_squares(POINTS, 2, x, y, sigma, c), relative = 0;
  for (int i = 0; i < POINTS; i++) {
    double left = y[i] - c[0].value - c[1].value * i;
    spread += pow(i - mean, 2);
    squares += pow(left, 2);
    relative += pow(y[i], 2);
  }
  cr_expect(epsilon_eq(dbl, c[1].error, sqrt(squares / (POINTS - 2) / spread), 1e-9));
  cr_expect(epsilon_eq(dbl, c[0].error, sqrt(squares / (POINTS - 2) * (1.0 / POINTS + mean * mean / spread)), 1e-9));
  cr_expect(epsilon_eq(dbl, residual, sqrt(squares / relative), 1e-9));
  cr_expect(eq(int, c[0].state, COEFFICIENT_FITTED));
}
