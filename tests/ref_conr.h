/* ConR in plain double loops, as the definitions stand in loss/conr.h: the judge of the fast code.
 * Local; rows [rows, features] etc. are those of the whole global batch. */
#ifndef CONR_TESTS_REF_CONR_H
#define CONR_TESTS_REF_CONR_H

#include "loss/conr.h"

struct ref_batch {
  int64_t rows;
  int64_t remembered; /* rows behind them in all arrays that are no anchors and get no gradient */
  int features, targets;
  const double *feature, *label, *prediction; /* row-major */
  const double *weight;                       /* or NULL   */
};

/* Loss; grad [rows, features] overwritten unless NULL.
 * rows_only != 0 leaves out what a row receives as a column of other anchors: the classic mistake of gathering features
 * without their gradient. */
double ref_conr(const struct conr_options *options, const struct ref_batch *batch, int rows_only, double *grad);

#endif
