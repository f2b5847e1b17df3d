/* Finite differences: is a gradient the derivative of its function?
 *
 *     static double loss_of(void *context, const double *x) { ... evaluate at x ... }
 *     struct gradient_check check = gradient_check(loss_of, &context, x, count, gradient, 1e-4);
 *     cr_assert(le(dbl, check.error, 1e-8), "%s", gradient_check_text(&check));
 *
 * Central differences of fourth order, (8 (f(+h) - f(-h)) - (f(+2h) - f(-2h))) / 12h: with h = 1e-4 and values near 1
 * the truncation is h^4 and the rounding eps / h, so 1e-10 is a fair demand of a smooth function.  A kink within 2h
 * of x spoils it: choose inputs that keep away. */
#ifndef CONR_TESTS_GRADIENT_CHECK_H
#define CONR_TESTS_GRADIENT_CHECK_H

#include <stddef.h>

typedef double gradient_check_function(void *context, const double *x);

struct gradient_check {
  double error;    /* largest |difference quotient - gradient| over the largest |difference quotient| (undivided
                      when they are all 0); infinite when something is NaN */
  size_t index;    /* where */
  double quotient; /* the difference quotient there */
  double gradient; /* what was claimed there */
};

/* Compare all `count` entries.  x is changed during the call and restored; h is in units of x. */
struct gradient_check gradient_check(gradient_check_function *function, void *context, double *x, size_t count,
                                     const double *gradient, double h);

/* The finding in words, for an assertion's message; valid until the next call. */
const char *gradient_check_text(const struct gradient_check *check);

#endif
