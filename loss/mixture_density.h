/* Densities of a mixture of normal distributions (mixture.h), shared by the host and CUDA. */
#ifndef CONR_LOSS_MIXTURE_DENSITY_H
#define CONR_LOSS_MIXTURE_DENSITY_H

#include "loss/mixture.h"
#include "loss/pair.h" /* CONR_PAIR_INLINE */

/* Component k of mixture_density_at(). */
CONR_PAIR_INLINE void mixture_density_component(const struct mixture *mixture, int k, double added,
                                                struct mixture_density *out) {
  out->constant[k] = log(mixture->weight[k]);
  out->trace[k] = 0;
  for (int i = 0; i < mixture->dimensions; i++) {
    double variance = mixture->variance[k][i] + added;
    out->precision[k][i] = 1 / variance;
    out->constant[k] -= log(variance) / 2;
    out->trace[k] += 1 / variance;
  }
}

/* The logarithm of weight x density of component k at x, without the factor (2 pi)^(-dimensions / 2).
 * scaled  [dimensions], overwritten with (C_k + added I)^-1 (x - mean) */
CONR_PAIR_INLINE double mixture_density_log(const struct mixture_density *density, int k, const double *x,
                                            double *scaled) {
  const struct mixture *mixture = density->mixture;
  int n = mixture->dimensions;
  double sum = 0;
  for (int i = 0; i < n; i++)
    scaled[i] = 0;
  for (int axis = 0; axis < n; axis++) {
    const double *direction = mixture->axes[k][axis];
    double along = 0;
    for (int i = 0; i < n; i++)
      along += direction[i] * (x[i] - mixture->mean[k][i]);
    double pull = along * density->precision[k][axis];
    sum += along * pull;
    for (int i = 0; i < n; i++)
      scaled[i] += direction[i] * pull;
  }
  return density->constant[k] - sum / 2;
}

#endif
