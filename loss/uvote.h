/* UVOTE (Jiang et al.; "uncertainty voting ensemble"): several experts on one encoding, each trained with its own sample
 * weights on the likelihood of a Laplace distribution, and the ways to one answer.
 *
 *     struct uvote uvote = uvote_default(experts);
 *     TRY(uvote_check(&uvote));
 *     each step:
 *       uvote_coefficients(&uvote, epoch, epochs, coefficient);
 *       uvote_loss(&uvote, F32, rows, targets, output, target, weight, coefficient, rows_global, grad, &own);
 *       TRY(comm_sum(comm, F64, &own, 1));               the loss of the global batch, on all ranks
 *     evaluation:
 *       uvote_answer(&uvote, UVOTE_MINVAR, F32, rows, targets, output, NULL, pred, log_scale);
 *
 * Outputs of a row are [2, experts, targets]: all locations, then all log scales, expert by expert.  So the log scales
 * are the second half of the head's rows, one range of its weights and one of its biases: they learn at 0.1 of the
 * rate of all else.  Weights of a row are [experts]: reweighting_exponent(), density_power_weights() make them.
 *
 * Of expert e, with location mu and log scale s (it is the logarithm of a Laplace distribution's b, not of a variance):
 *
 *     b = exp(clamp(s, low, high)) + 1e-10
 *     l = log(2 b) + |y - mu| / b,    L_e = mean of w_e l,    L = sum over e of coefficient_e L_e
 *
 * The mean is over rows x components: all is divided by K times the rows of the *global* batch, never by the sum of the
 * weights.  Rows are independent of each other: the parts of the ranks add up however rows are shared out.  The slope
 * is 0 at an exact hit, and for log scales beyond the bounds; on them the gradient passes.
 *
 * Arithmetic and sums are in double for both precisions; what is written is rounded.  An output that is NaN makes loss
 * and gradient NaN, an infinite location the loss; a weight that is negative or NaN likewise: regression_first_nonfinite()
 * tells where.  All functions are local. */
#ifndef CONR_LOSS_UVOTE_H
#define CONR_LOSS_UVOTE_H

#include "dist/dtype.h"
#include "dist/status.h"

#include <stdbool.h>
#include <stdint.h>

#define UVOTE_MOST_EXPERTS 64

/* Whose published coefficients: with alpha = max(0, 1 - (epoch / epochs)^2),
 *
 *               expert 0                     the others
 *     agedb     1                            1 - alpha (1 if not dynamic)
 *     imdb      alpha, dynamic or not        the same
 *     wind      alpha (1 if not dynamic)     the same                       texts (STS-B) too */
enum uvote_schedule { UVOTE_AGEDB, UVOTE_IMDB, UVOTE_WIND };

struct uvote {
  int experts;      /* 1 .. UVOTE_MOST_EXPERTS */
  double low, high; /* bounds of log scales in training, within +-80: beyond, b is no float32; published: -5, 5 (faces
                       of IMDB-WIKI: 10) */
  enum uvote_schedule schedule;
  bool dynamic;
};

/* How experts answer together, each component of a label for itself; log scales are used as they are, unclamped.
 *
 *     avg     the means of mu and of s
 *     avgvar  the means weighted by 1 / b = exp(-s)
 *     minvar  the expert of least s, the first of equals: the uncertainty vote
 *     oracle  the expert of least |mu - y|: looks at the label, a bound on what voting can reach
 *     first   expert 0, whose weights are all 1: what published validation looks at */
enum uvote_vote { UVOTE_AVG, UVOTE_AVGVAR, UVOTE_MINVAR, UVOTE_ORACLE, UVOTE_FIRST };

/* "agedb", "imdb", "wind"; "avg", "avgvar", "minvar", "oracle", "first".  An unknown name is ERR_ARGUMENT and lists them. */
enum status uvote_schedule_by_name(const char *name, enum uvote_schedule *schedule);
enum status uvote_vote_by_name(const char *name, enum uvote_vote *vote);
const char *uvote_vote_name(enum uvote_vote vote);

/* Bounds -5 and 5, coefficients of AgeDB, dynamic. */
struct uvote uvote_default(int experts);

/* ERR_ARGUMENT: a number of experts or bounds that cannot be. */
enum status uvote_check(const struct uvote *uvote);

/* coefficient [experts] in an epoch, 0 .. epochs - 1; later ones are as the last that could be, with alpha 0.  Same value:
 * all ranks are in the same epoch. */
void uvote_coefficients(const struct uvote *uvote, int64_t epoch, int64_t epochs, double *coefficient);

/* One rank's part of the loss and of its gradient.
 * rows         of this rank, may be 0
 * targets      components per row, K
 * output       [rows, 2, experts, targets]
 * target       [rows, targets]
 * weight       [rows, experts], or NULL for ones
 * coefficient  [experts]
 * rows_global  rows of all ranks; 0 (nobody has any) gives 0
 * grad         as output, overwritten; may be NULL, or `output` itself
 * loss_local   the part */
void uvote_loss(const struct uvote *uvote, enum dtype dtype, int64_t rows, int targets, const void *output,
                const void *target, const void *weight, const double *coefficient, int64_t rows_global, void *grad,
                double *loss_local);

/* The answer to each row.  Outputs must be finite.
 * target           [rows, targets]; read by UVOTE_ORACLE alone
 * pred, log_scale  [rows, targets], overwritten; log_scale may be NULL */
void uvote_answer(const struct uvote *uvote, enum uvote_vote vote, enum dtype dtype, int64_t rows, int targets,
                  const void *output, const void *target, void *pred, void *log_scale);

/* The standard deviation that a log scale predicts: sqrt(2) b; infinite where exp overflows. */
double uvote_deviation(double log_scale);

#endif
