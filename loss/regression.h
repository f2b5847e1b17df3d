/* Pointwise regression losses: value and gradient of one rank's share of the global mean.
 *
 *     struct regression loss;
 *     TRY(regression_by_name("huber", &loss.kind));
 *     loss = regression_default(loss.kind);
 *     loss.beta = 0.5;
 *     TRY(regression_check(&loss));
 *     regression_loss(&loss, F32, rows, targets, pred, target, weight, rows_global, grad, &own);
 *     TRY(comm_sum(comm, F64, &own, 1));                 the loss of the global batch, on all ranks
 *
 * With d = prediction - label and x = |d|, per element:
 *
 *     l1         x
 *     mse        d^2
 *     huber      d^2 / (2 beta)  if x < beta,  else  x - beta / 2
 *     focal_l1   x   a(x)^gamma        a(x) = 2 sigmoid(beta x) - 1  (activation sigmoid)
 *     focal_mse  d^2 a(x)^gamma               tanh(beta x)           (activation tanh)
 *
 * The loss is the mean over rows x components, as PyTorch's mean is: a row of K components contributes the
 * sum of its K elements, and everything is divided by K times the number of rows of the *global* batch.  A row's weight
 * multiplies all its components; the divisor stays the count, never the sum of the weights.  So the
 * parts of the ranks add up to the loss of the joint batch however its rows are shared out.
 *
 * Derivatives at d = 0 are 0, and at the knee of Huber that of the outer branch (the two are equal).
 * Elements are evaluated and summed in double for both precisions; only the gradient is rounded. */
#ifndef CONR_LOSS_REGRESSION_H
#define CONR_LOSS_REGRESSION_H

#include "dist/dtype.h"
#include "dist/status.h"

#include <stdint.h>

enum regression_kind { REGRESSION_L1, REGRESSION_MSE, REGRESSION_HUBER, REGRESSION_FOCAL_L1, REGRESSION_FOCAL_MSE };
enum focal_activation { FOCAL_SIGMOID, FOCAL_TANH };

struct regression {
  enum regression_kind kind;
  double beta;                      /* huber: the knee, label units; focal: slope of the activation, 1 / label unit */
  double gamma;                     /* focal: exponent of the activation */
  enum focal_activation activation; /* focal                                                                          */
};

/* "l1", "mse", "huber", "focal_l1", "focal_mse".  An unknown name is ERR_ARGUMENT and lists them.  Local. */
enum status regression_by_name(const char *name, enum regression_kind *kind);
const char *regression_name(enum regression_kind kind);

/* "sigmoid", "tanh"; likewise. */
enum status focal_activation_by_name(const char *name, enum focal_activation *activation);

/* The published constants for labels such as ages: huber beta 1; focal beta 0.2, gamma 1, sigmoid. */
struct regression regression_default(enum regression_kind kind);

/* ERR_ARGUMENT for constants without meaning: beta must be positive, gamma not negative, where they apply.  Local. */
enum status regression_check(const struct regression *loss);

/* One rank's part of the loss and of its gradient.
 *
 * Local.  `loss` must have passed regression_check().
 * rows         rows of this rank, may be 0
 * targets      components per row, K
 * pred, target [rows, targets]
 * weight       [rows], or NULL for ones
 * rows_global  rows of all ranks together, so at least `rows`; 0 (nobody has any) gives 0
 * grad         [rows, targets], overwritten with d loss / d pred; may be NULL, or `pred` itself
 * loss_local   the part: sum over own elements / (rows_global * targets)
 *
 * The buffers are of type `dtype`.  Non-finite input gives a non-finite result: look for it with the next function. */
void regression_loss(const struct regression *loss, enum dtype dtype, int64_t rows, int targets, const void *pred,
                     const void *target, const void *weight, int64_t rows_global, void *grad, double *loss_local);

/* Index of the first element of pred [count] that is NaN or infinite, or -1.  Local. */
int64_t regression_first_nonfinite(enum dtype dtype, int64_t count, const void *pred);

#endif
