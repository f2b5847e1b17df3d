/* Normal equations of every set of columns: there are at most 2^4, of at most 4 unknowns. */
#include "launch/least_squares.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#define MOST LEAST_SQUARES_COLUMNS
#define ALIKE 1e-9 /* of a column's square: what is left of it once others are taken out is rounding */

/* Products of the weighted columns, each scaled to length 1, so that one tolerance fits all. */
struct products {
  int columns;
  double xx[MOST][MOST], xy[MOST], yy, length[MOST];
};

static struct products products_of(int points, int columns, const double *x, const double *y, const double *sigma) {
  struct products own = {.columns = columns};
  for (int i = 0; i < points; i++)
    for (int a = 0; a < columns; a++)
      own.length[a] += pow(x[i * columns + a] / sigma[i], 2);
  for (int a = 0; a < columns; a++)
    own.length[a] = sqrt(own.length[a]);
  for (int i = 0; i < points; i++) {
    own.yy += pow(y[i] / sigma[i], 2);
    for (int a = 0; a < columns && own.length[a] >= 0; a++) {
      double left = own.length[a] > 0 ? x[i * columns + a] / sigma[i] / own.length[a] : 0;
      own.xy[a] += left * y[i] / sigma[i];
      for (int b = 0; b < columns; b++)
        own.xx[a][b] += own.length[b] > 0 ? left * x[i * columns + b] / sigma[i] / own.length[b] : 0;
    }
  }
  return own;
}

/* Inverse of the products of the columns in `set`, by Gauss and Jordan, without pivoting: they are positive definite.
 * False when a column is a sum of others. */
static bool invert(const struct products *own, unsigned set, double inverse[MOST][MOST]) {
  double left[MOST][MOST];
  memcpy(left, own->xx, sizeof left);
  memset(inverse, 0, MOST * sizeof *inverse);
  for (int k = 0; k < own->columns; k++)
    inverse[k][k] = set >> k & 1;
  for (int k = 0; k < own->columns; k++) {
    if (!(set >> k & 1))
      continue;
    double pivot = left[k][k];
    if (!(pivot > ALIKE))
      return false;
    for (int b = 0; b < own->columns; b++) {
      left[k][b] /= pivot;
      inverse[k][b] /= pivot;
    }
    for (int a = 0; a < own->columns; a++) {
      double factor = left[a][k];
      if (a == k || !(set >> a & 1))
        continue;
      for (int b = 0; b < own->columns; b++) {
        left[a][b] -= factor * left[k][b];
        inverse[a][b] -= factor * inverse[k][b];
      }
    }
  }
  return true;
}

struct solution {
  unsigned set;
  double c[MOST], squares;
  double inverse[MOST][MOST];
};

/* Of the columns in `set` alone; false when it is none, or one of a negative coefficient. */
static bool solve(const struct products *own, unsigned set, struct solution *out) {
  *out = (struct solution){.set = set, .squares = own->yy};
  if (!invert(own, set, out->inverse))
    return false;
  for (int a = 0; a < own->columns; a++)
    for (int b = 0; b < own->columns && (set >> a & 1); b++)
      out->c[a] += set >> b & 1 ? out->inverse[a][b] * own->xy[b] : 0;
  for (int a = 0; a < own->columns; a++) {
    if ((set >> a & 1) && !(out->c[a] >= 0))
      return false;
    out->squares -= out->c[a] * own->xy[a];
  }
  return true;
}

/* Is the column no sum of others? */
static bool is_determined(const struct products *own, int column) {
  double inverse[MOST][MOST];
  unsigned others = 0;
  if (own->length[column] == 0)
    return false;
  for (int k = 0; k < own->columns; k++) { /* as many others as are independent of each other */
    unsigned more = others | 1u << k;
    if (k != column && own->length[k] > 0 && invert(own, more, inverse))
      others = more;
  }
  return invert(own, others | 1u << column, inverse);
}

static double residual_of(int points, int columns, const double *x, const double *y, const struct coefficient *c) {
  double left = 0, all = 0;
  for (int i = 0; i < points; i++) {
    double told = 0;
    for (int a = 0; a < columns; a++)
      told += x[i * columns + a] * c[a].value;
    left += pow(y[i] - told, 2);
    all += pow(y[i], 2);
  }
  return all > 0 ? sqrt(left / all) : NAN;
}

double least_squares(int points, int columns, const double *x, const double *y, const double *sigma,
                     struct coefficient *out) {
  struct products own = products_of(points, columns, x, y, sigma);
  struct solution best = {.squares = own.yy}, tried;
  int used = 0;
  for (unsigned set = 1; set < 1u << columns; set++)
    /* Of sets that are as good as each other to rounding, the first: it has fewer columns or earlier ones. */
    if (solve(&own, set, &tried) && tried.squares < best.squares - 1e-12 * own.yy)
      best = tried;
  for (int a = 0; a < columns; a++)
    used += best.set >> a & 1;
  double left = points > used ? fmax(best.squares, 0) / (points - used) : NAN;
  for (int a = 0; a < columns; a++) {
    bool in = best.set >> a & 1;
    out[a] = (struct coefficient){.value = in ? best.c[a] / own.length[a] : 0,
                                  .error = in ? sqrt(left * best.inverse[a][a]) / own.length[a] : NAN,
                                  .state = in ? COEFFICIENT_FITTED : COEFFICIENT_ZERO};
    if (!is_determined(&own, a))
      out[a].state = COEFFICIENT_UNDETERMINED;
    else if (in && out[a].error >= out[a].value)
      out[a].state = COEFFICIENT_ZERO; /* its value stays, as a part of the sum */
  }
  return residual_of(points, columns, x, y, out);
}
