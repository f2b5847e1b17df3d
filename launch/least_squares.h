/* Least squares with coefficients that cannot be negative, of few columns; and which of them the points determine.
 *
 *     struct coefficient coefficient[3];
 *     double residual = least_squares(points, 3, x, y, sigma, coefficient);
 *
 * Local; no state. */
#ifndef CONR_LAUNCH_LEAST_SQUARES_H
#define CONR_LAUNCH_LEAST_SQUARES_H

#define LEAST_SQUARES_COLUMNS 4

enum coefficient_state {
  COEFFICIENT_FITTED,
  COEFFICIENT_ZERO,        /* the points would have it negative, or do not tell it from 0 */
  COEFFICIENT_UNDETERMINED /* its column is 0, or a sum of others: the points cannot tell it from theirs */
};

struct coefficient {
  double value; /* 0 unless fitted; an undetermined one may share what it has in common with others */
  double error; /* standard error, from the residuals; NaN without points to spare                  */
  enum coefficient_state state;
};

/* Minimises the sum of ((y - x c) / sigma)^2 over c >= 0, exactly: by trying which coefficients are 0.
 * x      [points, columns], at most LEAST_SQUARES_COLUMNS of them
 * sigma  [points] > 0
 * Returns the root mean square of y - x c, in proportion to that of y; NaN when all y are 0, or there are none. */
double least_squares(int points, int columns, const double *x, const double *y, const double *sigma,
                     struct coefficient *out);

#endif
