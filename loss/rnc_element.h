/* The arithmetic of a pair of rows in RnC (rnc.h has the formulas), shared by the host and CUDA. */
#ifndef CONR_LOSS_RNC_ELEMENT_H
#define CONR_LOSS_RNC_ELEMENT_H

#include "loss/pair.h"

/* Squared distances below this share of the squared norms: a product about the mean has lost three digits or more, and
 * the gradient's product, which takes differences of features times 1/distance, loses half as many.  Such pairs are
 * taken from the differences themselves. */
#define RNC_NEAR 1e-3
/* Rows that are no farther apart coincide: their direction means nothing. */
#define RNC_COINCIDE 1e-30
/* Largest exponents side by side: exp of it, times a number of rows, is a number of its type. */
#define RNC_SPREAD_F32 60.0
#define RNC_SPREAD_F64 600.0

#define REAL float
#define NAME(name) name##_f32
#include "loss/rnc_element_real.h"
#undef REAL
#undef NAME

#define REAL double
#define NAME(name) name##_f64
#include "loss/rnc_element_real.h"
#undef REAL
#undef NAME

/* log(exp(a) + exp(b)); unlike pair_log_add() it hands NaN on. */
CONR_PAIR_INLINE double rnc_add_logarithms(double a, double b) {
  double high = a > b ? a : b, low = a > b ? b : a;
  return low == -INFINITY ? high : high + log1p(exp(low - high));
}

/* The row's sum of -s + log Z from those of distances and of logarithms; the nearest row's exponential is 1 in Z. */
CONR_PAIR_INLINE double rnc_value_of(double inverse_t, int64_t rows, double distances, double logarithms,
                                     double nearest) {
  return distances * inverse_t + logarithms - (double)(rows - 1) * nearest * inverse_t;
}

#endif
