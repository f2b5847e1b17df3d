/* The arithmetic of one element of the evidential loss (evidential.h has the formulas), shared by the host and CUDA. */
#ifndef CONR_LOSS_EVIDENTIAL_ELEMENT_H
#define CONR_LOSS_EVIDENTIAL_ELEMENT_H

#include "loss/evidential.h"
#include "loss/pair.h" /* CONR_PAIR_INLINE */

#include <math.h>

#define EVIDENTIAL_SOFTNESS 10.0 /* label units over which sp bends                    */
#define EVIDENTIAL_LINEAR 200.0  /* above, as published, sp is the identity            */
#define EVIDENTIAL_LEAST 2.0     /* pseudo-count of an output far below 0, unweighted  */

/* --- functions of one number -------------------------------------------------------------------------------- */

CONR_PAIR_INLINE double evidential_sp(double x) {
  return x > EVIDENTIAL_LINEAR ? x : EVIDENTIAL_SOFTNESS * log1p(exp(x / EVIDENTIAL_SOFTNESS));
}

CONR_PAIR_INLINE double evidential_sp_slope(double x) {
  return x > EVIDENTIAL_LINEAR ? 1 : 1 / (1 + exp(-x / EVIDENTIAL_SOFTNESS));
}

/* f(x) = lgamma(x) - lgamma(x + 1/2) and its slope, x > 0: raised to x of 16 or more by f(x) = f(x + 1) + log(1 + 1/(2x)),
 * there by the series for large x, whose first term left out is below 1e-15. */
CONR_PAIR_INLINE void evidential_gamma_ratio(double x, double *value, double *slope) {
  *value = *slope = 0;
  while (x < 16) {
    *value += log1p(0.5 / x);
    *slope -= 0.5 / (x * (x + 0.5));
    x += 1;
  }
  double r = 1 / x, q = r * r;
  *value += -0.5 * log(x) + r * (1.0 / 8 - q * (1.0 / 192 - q * (1.0 / 640 - q * (17.0 / 14336 - q * 31.0 / 18432))));
  *slope += r * (-0.5 - r * (1.0 / 8 - q * (1.0 / 64 - q * (1.0 / 128 - q * (17.0 / 2048 - q * 31.0 / 2048)))));
}

/* --- distributions ------------------------------------------------------------------------------------------ */

/* As evidential_nig(), nig_nll(), nig_reg(), nig_variance(). */
CONR_PAIR_INLINE struct nig nig_of(const struct evidential *evidential, double a, double c, double d, double weight) {
  double n = (weight > 0 ? weight : NAN) * (evidential_sp(c) + EVIDENTIAL_LEAST);
  struct nig nig = {a, evidential->prior_v + n, evidential->prior_alpha + n / 2, evidential_sp(d)};
  return nig;
}

/* Slopes with W = 2 beta (1 + v) and Q = W + v e^2 put in, so that no large terms cancel. */
CONR_PAIR_INLINE struct nig_term nig_nll_of(const struct nig *nig, double label) {
  double e = nig->gamma - label, v = nig->v, alpha = nig->alpha, beta = nig->beta, ratio, ratio_slope;
  double w = 2 * beta * (1 + v), q = w + v * e * e, beyond = log1p(v * e * e / w);
  evidential_gamma_ratio(alpha, &ratio, &ratio_slope);
  struct nig_term term = {(log(acos(-1.0) / v) + log(q)) / 2 + alpha * beyond + ratio,
                          {(alpha + 0.5) * 2 * v * e / q, ((alpha + 0.5) * e * e / q - 0.5 / v) / (1 + v),
                           beyond + ratio_slope, (w / 2 - alpha * v * e * e) / (q * beta)}};
  return term;
}

CONR_PAIR_INLINE struct nig_term nig_reg_of(const struct nig *nig, double label) {
  double e = nig->gamma - label, evidence = 2 * nig->v + nig->alpha;
  struct nig_term term = {fabs(e) * evidence, {(double)((e > 0) - (e < 0)) * evidence, 2 * fabs(e), fabs(e), 0}};
  return term;
}

CONR_PAIR_INLINE double nig_variance_of(const struct nig *nig) {
  return nig->alpha <= 1 ? INFINITY : nig->beta / ((nig->alpha - 1) * nig->v);
}

/* --- outputs ------------------------------------------------------------------------------------------------ */

struct evidential_outputs {
  double a, c, d;
};

/* NLL + lambda REG of an element, and its slopes along the outputs. */
CONR_PAIR_INLINE double evidential_element(const struct evidential *evidential, struct evidential_outputs at,
                                           double label, double weight, struct evidential_outputs *slope) {
  double lambda = evidential->lambda;
  struct nig nig = nig_of(evidential, at.a, at.c, at.d, weight);
  struct nig_term nll = nig_nll_of(&nig, label), reg = nig_reg_of(&nig, label);
  double by_v = nll.slope.v + lambda * reg.slope.v, by_alpha = nll.slope.alpha + lambda * reg.slope.alpha;
  slope->a = nll.slope.gamma + lambda * reg.slope.gamma;
  slope->c = evidential_sp_slope(at.c) * weight * (by_v + by_alpha / 2);
  slope->d = evidential_sp_slope(at.d) * (nll.slope.beta + lambda * reg.slope.beta);
  return nll.value + lambda * reg.value;
}

#endif
