/* The arithmetic of one element of UVOTE (uvote.h has the formulas), shared by the host and CUDA. */
#ifndef CONR_LOSS_UVOTE_ELEMENT_H
#define CONR_LOSS_UVOTE_ELEMENT_H

#include "loss/pair.h" /* CONR_PAIR_INLINE */
#include "loss/uvote.h"

#include <math.h>

#define UVOTE_SCALE_FLOOR 1e-10 /* added to b, as published */

struct laplace {
  double value, by_location, by_log_scale;
};

/* The negative log likelihood at distance d = location - label, and its slopes. */
CONR_PAIR_INLINE struct laplace laplace_of(double low, double high, double d, double log_scale) {
  /* Comparisons that a NaN fails leave it as it is. */
  double held = log_scale < low ? low : log_scale > high ? high : log_scale;
  double grown = exp(held), b = grown + UVOTE_SCALE_FLOOR, sign = (double)((d > 0) - (d < 0));
  struct laplace laplace = {log(2 * b) + fabs(d) / b, d == d ? sign / b : d, 0};
  if (held == log_scale || held != held)
    laplace.by_log_scale = grown / b * (1 - fabs(d) / b);
  return laplace;
}

/* What an expert, or several together, say. */
struct uvote_said {
  double location, log_scale;
};

/* Means over experts with weights exp(-sharpness s): 0 for equal ones.  Shifted, so that none overflows. */
CONR_PAIR_INLINE struct uvote_said uvote_mean(int experts, const struct uvote_said *expert, double sharpness) {
  struct uvote_said mean = {0, 0};
  double sum = 0, least = INFINITY;
  for (int e = 0; e < experts; e++)
    least = fmin(least, expert[e].log_scale);
  for (int e = 0; e < experts; e++) {
    double share = exp(-sharpness * (expert[e].log_scale - least));
    sum += share;
    mean.location += share * expert[e].location;
    mean.log_scale += share * expert[e].log_scale;
  }
  mean.location /= sum;
  mean.log_scale /= sum;
  return mean;
}

CONR_PAIR_INLINE struct uvote_said uvote_voted(enum uvote_vote vote, int experts, const struct uvote_said *expert,
                                               double label) {
  int best = 0;
  if (vote == UVOTE_AVG || vote == UVOTE_AVGVAR)
    return uvote_mean(experts, expert, vote == UVOTE_AVG ? 0 : 1);
  for (int e = 1; e < experts && vote != UVOTE_FIRST; e++)
    if (vote == UVOTE_MINVAR ? expert[e].log_scale < expert[best].log_scale
                             : fabs(expert[e].location - label) < fabs(expert[best].location - label))
      best = e;
  return expert[best];
}

#endif
