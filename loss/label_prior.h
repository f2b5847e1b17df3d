/* The distribution of labels over bins: the prior of Balanced MSE in its form BNI.
 *
 *     struct label_prior prior;
 *     TRY(label_bins_cover(rows, labels, 1, &bins));
 *     TRY(label_prior_create(rows, labels, &bins, NULL, &prior));                 the training labels
 *     TRY(balanced_create_bni(F32, prior.count, prior.centres, prior.probabilities, &balanced));
 *     label_prior_destroy(&prior);
 *
 * A bin without probability is left out.  All centres lie as far from where their bins begin as labels do on average
 * (those above all bins, which the last one takes, apart): labels that are whole numbers are the centres of bins of width
 * 1, and labels of any value have theirs in the middle.  All functions are local. */
#ifndef CONR_LOSS_LABEL_PRIOR_H
#define CONR_LOSS_LABEL_PRIOR_H

#include "loss/label_bins.h"
#include "loss/label_window.h"

#include <stdbool.h>

struct label_prior {
  int64_t count;                   /* bins                         */
  double *centres, *probabilities; /* [count]; they add up to 1    */
};

/* LDS: counts are smoothed along the bins before empty ones are left out. */
struct label_smoothing {
  struct label_window window;
  enum label_padding padding;
  bool truncate; /* cut smoothed counts to integers, as published code does */
};

/* labels     [rows], of one component
 * smoothing  NULL = none
 * ERR_ARGUMENT: senseless bins, a label below them, or all labels in one of them; a window wider than all bins. */
enum status label_prior_create(int64_t rows, const double *labels, const struct label_bins *bins,
                               const struct label_smoothing *smoothing, struct label_prior *out);
void label_prior_destroy(struct label_prior *prior); /* zeroed is fine */

#endif
