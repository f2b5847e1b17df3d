/* The arithmetic of one row of Balanced MSE (balanced.h has the formulas), shared by the host and CUDA. */
#ifndef CONR_LOSS_BALANCED_ELEMENT_H
#define CONR_LOSS_BALANCED_ELEMENT_H

#include "loss/mixture_density.h"

/* What a row adds, before the factor 1 / N. */
struct balanced_row {
  double loss, grad_sigma;
};

/* --- BMC and BNI ---------------------------------------------------------------------------------------------- */

/* Of a point whose squared distance from the prediction is `square`. */
CONR_PAIR_INLINE double balanced_exponent(double log_weight, double square, double half_precision) {
  return log_weight - square * half_precision;
}

/* From sums over the points of w = exp(exponent - largest): of w, of w times the squared distance.
 * own  |p - y|^2 */
CONR_PAIR_INLINE struct balanced_row balanced_points_row(double sigma, double own, double largest, double sum,
                                                         double squares) {
  double v = sigma * sigma, half_precision = 1 / (2 * v);
  struct balanced_row row = {2 * v * (own * half_precision + largest + log(sum)), 2 / sigma * (squares / sum - own)};
  return row;
}

/* The derivative by a component of the prediction, likewise before 1 / N.  pull: the sum of w (point - p). */
CONR_PAIR_INLINE double balanced_points_slope(double error, double pull, double sum) {
  return 2 * (error + pull / sum);
}

/* --- GAI ------------------------------------------------------------------------------------------------------ */

/* density  of noise of sigma
 * error    [dimensions]: p - y; replaced by the derivative by p */
CONR_PAIR_INLINE struct balanced_row balanced_mixture_row(const struct mixture_density *density, double sigma,
                                                          const double *p, double *error) {
  int components = density->mixture->components, n = density->mixture->dimensions;
  double scaled[MIXTURE_MOST_DIMENSIONS], pull[MIXTURE_MOST_DIMENSIONS];
  double v = sigma * sigma, largest = -INFINITY, sum = 0, own = 0, slope = 0;
  for (int k = 0; k < components; k++) {
    double log_density = mixture_density_log(density, k, p, scaled);
    largest = log_density > largest ? log_density : largest;
  }
  for (int d = 0; d < n; d++)
    pull[d] = 0;
  for (int k = 0; k < components; k++) {
    double share = exp(mixture_density_log(density, k, p, scaled) - largest), square = 0;
    sum += share;
    for (int d = 0; d < n; d++) {
      square += scaled[d] * scaled[d];
      pull[d] += share * scaled[d];
    }
    slope += share * (square - density->trace[k]) / 2;
  }
  for (int d = 0; d < n; d++) {
    own += error[d] * error[d];
    error[d] = 2 * (error[d] - v * pull[d] / sum);
  }
  struct balanced_row row = {2 * v * (own / (2 * v) + n * log(v) / 2 + largest + log(sum)),
                             4 * v * sigma * (slope / sum + (n - own / v) / (2 * v))};
  return row;
}

#endif
