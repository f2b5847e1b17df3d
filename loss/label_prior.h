/* The distribution of labels over bins: the prior of Balanced MSE in its form BNI.
 *
 *     struct label_prior prior;
 *     TRY(label_prior_create(rows, labels, 1, NULL, &prior));                     the training labels
 *     TRY(balanced_create_bni(F32, prior.count, prior.centres, prior.probabilities, &balanced));
 *     label_prior_destroy(&prior);
 *
 * Bins are those of label_bins_cover(); one without probability is left out.  All centres lie as far from where their
 * bins begin as labels do on average: labels that are whole numbers are the centres of bins of width 1, and labels of
 * any value have theirs in the middle.  All functions are local. */
#ifndef CONR_LOSS_LABEL_PRIOR_H
#define CONR_LOSS_LABEL_PRIOR_H

#include "loss/label_bins.h"
#include "loss/label_window.h"

struct label_prior {
  int64_t count;                   /* bins                         */
  double *centres, *probabilities; /* [count]; they add up to 1    */
};

/* labels  [rows], of one component
 * width   of a bin, in label units
 * window  NULL, or LDS: counts are smoothed along the bins, nothing beyond them, before empty ones are left out
 * ERR_ARGUMENT: bins too many, or all labels in one of them; a window wider than all bins. */
enum status label_prior_create(int64_t rows, const double *labels, double width, const struct label_window *window,
                               struct label_prior *out);
void label_prior_destroy(struct label_prior *prior); /* zeroed is fine */

#endif
