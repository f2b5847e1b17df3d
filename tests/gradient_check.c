/* Finite differences. */
#include "tests/gradient_check.h"

#include <math.h>
#include <stdio.h>

static double at(gradient_check_function *function, void *context, double *x, size_t i, double shift) {
  double kept = x[i];
  x[i] = kept + shift;
  double value = function(context, x);
  x[i] = kept;
  return value;
}

static double difference_quotient(gradient_check_function *function, void *context, double *x, size_t i, double h) {
  double near = at(function, context, x, i, h) - at(function, context, x, i, -h);
  double far = at(function, context, x, i, 2 * h) - at(function, context, x, i, -2 * h);
  return (8 * near - far) / (12 * h);
}

struct gradient_check gradient_check(gradient_check_function *function, void *context, double *x, size_t count,
                                     const double *gradient, double h) {
  struct gradient_check check = {0};
  double largest = 0;
  for (size_t i = 0; i < count; i++) {
    double quotient = difference_quotient(function, context, x, i, h);
    double error = fabs(quotient - gradient[i]);
    largest = fmax(largest, fabs(quotient));
    if (isnan(error))
      error = INFINITY;
    if (error > check.error)
      check = (struct gradient_check){error, i, quotient, gradient[i]};
  }
  if (largest > 0)
    check.error /= largest;
  return check;
}

const char *gradient_check_text(const struct gradient_check *check) {
  static char text[160];
  snprintf(text, sizeof text, "relative error %.3g at entry %zu: gradient %.17g, finite differences %.17g",
           check->error, check->index, check->gradient, check->quotient);
  return text;
}
