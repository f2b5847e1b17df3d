/* Normal-inverse-gamma likelihood of an evidential head. */
#include "loss/evidential.h"

#include <math.h>
#include <stddef.h>

#define SOFTNESS 10.0         /* label units over which sp bends                    */
#define SOFTPLUS_LINEAR 200.0 /* above, as published, sp is the identity            */
#define LEAST_COUNT 2.0       /* pseudo-count of an output far below 0, unweighted  */

struct evidential evidential_default(void) {
  return (struct evidential){.lambda = 0.01, .prior_v = 0, .prior_alpha = 0.3};
}

enum status evidential_check(const struct evidential *evidential) {
  REQUIRE(isfinite(evidential->lambda) && evidential->lambda >= 0, ERR_ARGUMENT,
          "lambda %g of the evidential loss must be 0 or greater", evidential->lambda);
  REQUIRE(isfinite(evidential->prior_v) && evidential->prior_v >= 0, ERR_ARGUMENT,
          "a prior pseudo-count v of %g makes no distribution; give 0 or more", evidential->prior_v);
  REQUIRE(isfinite(evidential->prior_alpha) && evidential->prior_alpha > 0, ERR_ARGUMENT,
          "a prior alpha of %g makes no distribution; give a number above 0", evidential->prior_alpha);
  return STATUS_OK;
}

/* --- functions of one number -------------------------------------------------------------------------------- */

static double softplus(double x) {
  return x > SOFTPLUS_LINEAR ? x : SOFTNESS * log1p(exp(x / SOFTNESS));
}

static double softplus_slope(double x) {
  return x > SOFTPLUS_LINEAR ? 1 : 1 / (1 + exp(-x / SOFTNESS));
}

/* f(x) = lgamma(x) - lgamma(x + 1/2) and its slope, x > 0: raised to x of 16 or more by f(x) = f(x + 1) + log(1 + 1/(2x)),
 * there by the series for large x, whose first term left out is below 1e-15. */
static void gamma_ratio(double x, double *value, double *slope) {
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

/* --- one element -------------------------------------------------------------------------------------------- */

struct nig evidential_nig(const struct evidential *evidential, double a, double c, double d, double weight) {
  double n = (weight > 0 ? weight : NAN) * (softplus(c) + LEAST_COUNT);
  return (struct nig){a, evidential->prior_v + n, evidential->prior_alpha + n / 2, softplus(d)};
}

/* Slopes with W = 2 beta (1 + v) and Q = W + v e^2 put in, so that no large terms cancel. */
struct nig_term nig_nll(const struct nig *nig, double label) {
  double e = nig->gamma - label, v = nig->v, alpha = nig->alpha, beta = nig->beta, ratio, ratio_slope;
  double w = 2 * beta * (1 + v), q = w + v * e * e, beyond = log1p(v * e * e / w);
  gamma_ratio(alpha, &ratio, &ratio_slope);
  return (struct nig_term){
      .value = (log(acos(-1) / v) + log(q)) / 2 + alpha * beyond + ratio,
      .slope = {.gamma = (alpha + 0.5) * 2 * v * e / q,
                .v = ((alpha + 0.5) * e * e / q - 0.5 / v) / (1 + v),
                .alpha = beyond + ratio_slope,
                .beta = (w / 2 - alpha * v * e * e) / (q * beta)},
  };
}

struct nig_term nig_reg(const struct nig *nig, double label) {
  double e = nig->gamma - label, evidence = 2 * nig->v + nig->alpha;
  return (struct nig_term){.value = fabs(e) * evidence,
                           .slope = {(double)((e > 0) - (e < 0)) * evidence, 2 * fabs(e), fabs(e), 0}};
}

double nig_variance(const struct nig *nig) {
  return nig->alpha <= 1 ? INFINITY : nig->beta / ((nig->alpha - 1) * nig->v);
}

/* --- rows --------------------------------------------------------------------------------------------------- */

struct outputs {
  double a, c, d;
};

/* Where component i = row * targets + k of all rows has its first output. */
static int64_t place_of(int64_t i, int targets) {
  return i / targets * 3 * targets + i % targets;
}

static struct outputs read_outputs(enum dtype dtype, const void *output, int64_t place, int targets) {
  return (struct outputs){dtype_get(dtype, output, place), dtype_get(dtype, output, place + targets),
                          dtype_get(dtype, output, place + 2 * (int64_t)targets)};
}

/* Slopes of NLL + lambda REG along the outputs. */
static struct outputs slope_of(const struct outputs *at, double lambda, double weight, const struct nig *nll,
                               const struct nig *reg) {
  double by_v = nll->v + lambda * reg->v, by_alpha = nll->alpha + lambda * reg->alpha;
  return (struct outputs){nll->gamma + lambda * reg->gamma, softplus_slope(at->c) * weight * (by_v + by_alpha / 2),
                          softplus_slope(at->d) * (nll->beta + lambda * reg->beta)};
}

void evidential_loss(const struct evidential *evidential, enum dtype dtype, int64_t rows, int targets,
                     const void *output, const void *target, const void *weight, int64_t rows_global, void *grad,
                     double *loss_local) {
  double sum = 0, count = (double)rows_global * targets, lambda = evidential->lambda;
  for (int64_t i = 0; i < rows * targets; i++) {
    int64_t place = place_of(i, targets);
    double of_row = weight == NULL ? 1 : dtype_get(dtype, weight, i / targets), label = dtype_get(dtype, target, i);
    struct outputs at = read_outputs(dtype, output, place, targets);
    struct nig nig = evidential_nig(evidential, at.a, at.c, at.d, of_row);
    struct nig_term nll = nig_nll(&nig, label), reg = nig_reg(&nig, label);
    sum += nll.value + lambda * reg.value;
    if (grad == NULL)
      continue;
    struct outputs slope = slope_of(&at, lambda, of_row, &nll.slope, &reg.slope);
    dtype_put(dtype, grad, place, slope.a / count);
    dtype_put(dtype, grad, place + targets, slope.c / count);
    dtype_put(dtype, grad, place + 2 * (int64_t)targets, slope.d / count);
  }
  *loss_local = count > 0 ? sum / count : 0;
}

void evidential_answer(const struct evidential *evidential, enum dtype dtype, int64_t rows, int targets,
                       const void *output, void *pred, void *variance) {
  for (int64_t i = 0; i < rows * targets; i++) {
    struct outputs at = read_outputs(dtype, output, place_of(i, targets), targets);
    struct nig nig = evidential_nig(evidential, at.a, at.c, at.d, 1);
    dtype_put(dtype, pred, i, nig.gamma);
    if (variance != NULL)
      dtype_put(dtype, variance, i, nig_variance(&nig));
  }
}
