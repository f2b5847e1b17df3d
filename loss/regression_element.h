/* The arithmetic of one element of the pointwise losses (regression.h has the formulas), shared by the host and
 * CUDA. */
#ifndef CONR_LOSS_REGRESSION_ELEMENT_H
#define CONR_LOSS_REGRESSION_ELEMENT_H

#include "loss/pair.h" /* CONR_PAIR_INLINE */
#include "loss/regression.h"

#include <math.h>

/* Value of one element and its derivative with respect to the prediction. */
struct element {
  double value, slope;
};

CONR_PAIR_INLINE double element_sign(double d) {
  return (double)((d > 0) - (d < 0));
}

CONR_PAIR_INLINE struct element element_l1(double d) {
  struct element element = {fabs(d), d == d ? element_sign(d) : d};
  return element;
}

CONR_PAIR_INLINE struct element element_mse(double d) {
  struct element element = {d * d, 2 * d};
  return element;
}

CONR_PAIR_INLINE struct element element_huber(double d, double beta) {
  struct element inner = {d * d / (2 * beta), d / beta}, outer = element_l1(d);
  outer.value -= beta / 2;
  return fabs(d) < beta ? inner : outer;
}

/* base * a(x)^gamma, with base = x or d^2 given as a function of d with its own slope. */
CONR_PAIR_INLINE struct element element_focal(const struct regression *loss, double d, struct element base) {
  double scale = loss->activation == FOCAL_SIGMOID ? loss->beta / 2 : loss->beta; /* 2 sigmoid(z) - 1 = tanh(z / 2) */
  double a = tanh(scale * fabs(d)), a_slope = scale * (1 - a * a);
  double factor = pow(a, loss->gamma);
  /* At a = 0 with gamma < 1 the power is infinite, but base vanishes faster: the product's limit is 0. */
  double factor_slope = a > 0 ? loss->gamma * pow(a, loss->gamma - 1) * a_slope * element_sign(d) : 0;
  struct element element = {base.value * factor, base.slope * factor + base.value * factor_slope};
  return element;
}

/* d = prediction - label. */
CONR_PAIR_INLINE struct element element_of(const struct regression *loss, double d) {
  struct element none = {NAN, NAN};
  switch (loss->kind) {
  case REGRESSION_L1:
    return element_l1(d);
  case REGRESSION_MSE:
    return element_mse(d);
  case REGRESSION_HUBER:
    return element_huber(d, loss->beta);
  case REGRESSION_FOCAL_L1:
    return element_focal(loss, d, element_l1(d));
  case REGRESSION_FOCAL_MSE:
    return element_focal(loss, d, element_mse(d));
  }
  return none;
}

#endif
