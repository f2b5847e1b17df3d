/* The arithmetic of metrics (metrics.h has the definitions), shared by the host and CUDA: the errors of a row, their
 * sums over a bin and over a group, ranks and correlations. */
#ifndef CONR_LOSS_METRICS_ELEMENT_H
#define CONR_LOSS_METRICS_ELEMENT_H

#include "loss/metrics.h"
#include "loss/pair.h" /* CONR_PAIR_INLINE */

#include <math.h>

#define METRICS_GMEAN_EPS 1e-10

/* The errors of one row, or their sums over rows. */
struct metrics_errors {
  double absolute, square, log, log_eps;
};

CONR_PAIR_INLINE double metrics_log(enum gmean_rule rule, double error) {
  if (rule == GMEAN_ADD_EPS)
    return log(error + METRICS_GMEAN_EPS);
  /* log 0 = -inf makes the mean 0 */
  return log(rule == GMEAN_REPLACE_ZERO && error == 0 ? METRICS_GMEAN_EPS : error);
}

/* Of a row, from the sums of |d| and d^2 over its components. */
CONR_PAIR_INLINE struct metrics_errors metrics_errors_of(enum gmean_rule rule, int targets, double absolute,
                                                         double square) {
  double norm = targets == 1 ? absolute : sqrt(square);
  struct metrics_errors errors = {absolute / targets, square / targets, metrics_log(rule, norm),
                                  metrics_log(GMEAN_ADD_EPS, norm)};
  return errors;
}

CONR_PAIR_INLINE void metrics_errors_join(struct metrics_errors *errors, const struct metrics_errors *more) {
  errors->absolute += more->absolute;
  errors->square += more->square;
  errors->log += more->log;
  errors->log_eps += more->log_eps;
}

/* Of a group: over its rows, and over its bins of the bins' mean errors. */
struct metrics_sums {
  struct metrics_errors rows;
  double bin_absolute, bin_square;
};

/* bin  sums over the bin's rows, of which it has some */
CONR_PAIR_INLINE void metrics_sums_add(struct metrics_sums *sums, const struct metrics_errors *bin, int64_t rows) {
  metrics_errors_join(&sums->rows, bin);
  sums->bin_absolute += bin->absolute / (double)rows;
  sums->bin_square += bin->square / (double)rows;
}

CONR_PAIR_INLINE void metrics_sums_join(struct metrics_sums *sums, const struct metrics_sums *more) {
  metrics_errors_join(&sums->rows, &more->rows);
  sums->bin_absolute += more->bin_absolute;
  sums->bin_square += more->bin_square;
}

/* The rank of equal values at places first .. next - 1 of an ascending order: the mean of theirs, counted from 1. */
CONR_PAIR_INLINE double metrics_rank(int64_t first, int64_t next) {
  return 0.5 * (double)(first + 1 + next);
}

/* From sums of squares and products of what was centred before, in a pass of its own: labels far from 0 would otherwise
 * lose all digits.  NaN where undefined. */
CONR_PAIR_INLINE double metrics_correlation(double xx, double yy, double xy) {
  double norms = sqrt(xx) * sqrt(yy);
  return norms > 0 ? fmax(-1.0, fmin(1.0, xy / norms)) : NAN;
}

#endif
