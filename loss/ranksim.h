/* RankSim: rows whose labels are close shall be close in feature space, by rank (Gong, Mori, Tung, 2022).
 *
 * Of the n distinct labels of the global batch one row each takes part.  For each of them, the others are ranked by
 * similarity of features and by distance of labels:
 *     X_ij  = q_i . q_j,  q = z / max(|z|, 1e-12)
 *     rk(v) = 1/n for the largest entry of v ... 1 for the smallest; of equal ones the later has the smaller rank
 *     value = sum_i 1/n sum_j ( rk(X_i)_j - rk(-|y_i - y|)_j )^2
 * Ranks are piecewise constant, so the gradient is that of an interpolation: with G_i = coefficient dvalue/drk(X_i),
 *     dX_i := - ( rk(X_i) - rk(X_i + lambda G_i) ) / (lambda + 1e-8)
 * and then onwards to z.  It is NOT linear in the coefficient: give the true one, and do not scale the result.
 *
 * Rows are in the order of (view, sample) if all labels are distinct; otherwise a row of each label is drawn, by the
 * generator keyed by (seed, step, label), and they are in the order of labels.  Both do not depend on how samples are
 * shared out.  Labels of several components (the published method has one) are as far apart as their Euclidean
 * distance, and distinct where any component differs.
 *
 * The n x n problem is shared by rows: ranks of a panel of rows at a time, then one sum of [n, features] over ranks.
 *
 *     struct ranksim *ranksim;
 *     TRY(ranksim_create(&(struct ranksim_options){.lambda = 2}, features, targets, F32, &ranksim));
 *     each step:  TRY(ranksim_loss(ranksim, &gathered, gamma, grad_own, &value));
 *     ranksim_destroy(&ranksim); */
#ifndef CONR_LOSS_RANKSIM_H
#define CONR_LOSS_RANKSIM_H

#include "loss/gathered.h"

struct ranksim;

struct ranksim_options {
  double lambda; /* > 0: how far the interpolation reaches */
};

/* ERR_ARGUMENT says what is wrong with the options.  Local. */
enum status ranksim_create(const struct ranksim_options *options, int features, int targets, enum dtype dtype,
                           struct ranksim **out);
void ranksim_destroy(struct ranksim **ranksim);

/* The value over the rows of all ranks, and this rank's gradient.
 * grad_own  [own, features] of dtype: += the gradient of coefficient x value, as above
 * value     without the coefficient; the same on all ranks
 * Memory grows with the largest batch and stays.  Collective; failures are those of all ranks. */
enum status ranksim_loss(struct ranksim *ranksim, const struct gathered *gathered, double coefficient, void *grad_own,
                         double *value);

/* Bytes of workspace: about (2 n features + 48 or more rows of n) numbers, and 64 bytes a row and thread.  Local. */
size_t ranksim_bytes(const struct ranksim *ranksim);

#endif
