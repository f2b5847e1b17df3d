/* The evidential head of VIR (Wang and Wang 2023, "Variational imbalanced regression"): a prediction with its pseudo-count
 * and scale becomes a normal-inverse-gamma (NIG) distribution, and is trained on its marginal likelihood.
 *
 *     struct evidential evidential = evidential_default();
 *     TRY(evidential_check(&evidential));
 *     evidential_loss(&evidential, F32, rows, targets, output, target, weight, rows_global, grad, &own);
 *     TRY(comm_sum(comm, F64, &own, 1));                 the loss of the global batch, on all ranks
 *     evidential_answer(&evidential, F32, rows, targets, output, pred, variance);          evaluation
 *
 * Outputs (a, c, d) of a row are [3, targets].  With sp(x) = 10 log(1 + exp(x / 10)), x itself above 200, and the
 * sample's weight w (1 in evaluation), which scales the pseudo-count n and nothing else:
 *
 *     gamma = a     n = w (sp(c) + 2)     v = prior_v + n     alpha = prior_alpha + n / 2     beta = omega = sp(d)
 *
 *     W = 2 beta (1 + v)     Q = v (y - gamma)^2 + W
 *     NLL = log(pi / v) / 2 - alpha log W + (alpha + 1/2) log Q + lgamma(alpha) - lgamma(alpha + 1/2)
 *     REG = |y - gamma| (2 v + alpha)
 *     L = mean of NLL + lambda REG
 *
 * The mean is over rows x components: all is divided by K times the rows of the *global* batch.  Rows are
 * independent of each other: the parts of the ranks add up however rows are shared out.  REG's slope is 0 at an exact
 * hit.
 *
 * Arithmetic and sums are in double for both precisions, and in forms that do not cancel: log(Q / W) as log1p, the two
 * lgamma as one series.  What is written is rounded.  An output that is NaN makes the loss NaN; so does a weight that is
 * not above 0, which is no pseudo-count: whoever takes weights refuses those.  beta vanishes below d = -7000: the loss is then infinite or NaN.
 * regression_first_nonfinite() tells where.  All functions are local. */
#ifndef CONR_LOSS_EVIDENTIAL_H
#define CONR_LOSS_EVIDENTIAL_H

#include "dist/dtype.h"
#include "dist/status.h"

#include <stdint.h>

struct evidential {
  double lambda;               /* of REG, 0 or more: 0.01   */
  double prior_v, prior_alpha; /* 0 or more: 0; above 0: 0.3 */
};

struct nig {
  double gamma, v, alpha, beta;
};

/* A function of a distribution, and its slopes. */
struct nig_term {
  double value;
  struct nig slope;
};

/* The published constants. */
struct evidential evidential_default(void);

/* ERR_ARGUMENT: constants without meaning. */
enum status evidential_check(const struct evidential *evidential);

/* One rank's part of the loss and of its gradient.
 * rows         of this rank, may be 0
 * targets      components per row, K
 * output       [rows, 3, targets]
 * target       [rows, targets]
 * weight       [rows], or NULL for ones
 * rows_global  rows of all ranks; 0 (nobody has any) gives 0
 * grad         as output, overwritten; may be NULL, or `output` itself
 * loss_local   the part */
void evidential_loss(const struct evidential *evidential, enum dtype dtype, int64_t rows, int targets,
                     const void *output, const void *target, const void *weight, int64_t rows_global, void *grad,
                     double *loss_local);

/* gamma and the predictive variance of each row, with weight 1.
 * pred, variance  [rows, targets], overwritten; variance may be NULL */
void evidential_answer(const struct evidential *evidential, enum dtype dtype, int64_t rows, int targets,
                       const void *output, void *pred, void *variance);

/* --- of one element ----------------------------------------------------------------------------------------- */

struct nig evidential_nig(const struct evidential *evidential, double a, double c, double d, double weight);
struct nig_term nig_nll(const struct nig *nig, double label);
struct nig_term nig_reg(const struct nig *nig, double label);

/* beta / ((alpha - 1) v); infinite for alpha up to 1. */
double nig_variance(const struct nig *nig);

#endif
