/* Evaluation metrics of imbalanced regression: overall, and over labels that were many, median or few in training.
 *
 *     struct metrics *metrics;
 *     struct metrics_options options = metrics_options_default();
 *     TRY(metrics_create(&options, F32, train_rows, targets, train_labels, &metrics));
 *     TRY(metrics_compute(metrics, F32, rows, labels, predictions, &table));
 *     printf("few-shot MAE %g\n", table.row[METRICS_FEW].mae);
 *     metrics_destroy(&metrics);
 *
 * Labels and predictions are those of the whole evaluated split, gathered beforehand: ranks and correlations need them
 * together.  All functions are local; ranks that pass equal arguments get equal results.  The order of the rows
 * changes results by rounding only.
 *
 * Bins.  The bin of a label is trunc(label / bin_width), towards zero, for training and evaluated labels alike.  With
 * width 1 and integer labels this is the published rule (the training count of that exact integer).  The published
 * code looks an evaluated label such as 25.5 up as it stands and never finds it; here it belongs to bin 25, so that
 * real labels have shot classes at all.  Since truncation goes towards zero, bin 0 reaches from -width to width.  A
 * quotient within float32 rounding of an integer counts as that integer: 0.7 / 0.1 is bin 7, although the
 * floating-point quotient is below it.  Explicit edges (below) are compared exactly.
 * A row of K components belongs to the joint bin, the tuple of its components' bins: what is rare for a vector is the
 * combination, and for K = 1 nothing changes.
 *
 * Shot classes, from the number n of training rows in the bin: many if n > many_over, few if n < few_under (also n = 0:
 * a label never seen in training), median otherwise; or given per bin by shot_of_bin.
 *
 * Values, with d = prediction - label:
 *
 *     mae, mse     mean over rows of the row's error: the mean over its components of |d|, of d^2
 *     rmse         sqrt(mse)
 *     gmean        geometric mean over rows of the Euclidean norm of d (|d| for K = 1): exp(mean(log))
 *     bmae, bmse   mean over the occupied bins of the bin's mean error: each label counts alike ("balanced")
 *     pearson      correlation of predictions and labels, mean over components
 *     spearman     the same of their ranks, ties sharing the average rank
 *
 * So mae and mse are the L1 and MSE losses.  The geometric mean needs one error per row: were it taken over
 * components, one component that is exact by chance would decide for the whole row.  As published, a single row
 * without error makes gmean 0; gmean_eps adds 1e-10 to every error.  A correlation is NaN with fewer than two rows or
 * if labels or predictions of a component are constant.  An empty group has count 0 and NaN (see empty_is_zero). */
#ifndef CONR_LOSS_METRICS_H
#define CONR_LOSS_METRICS_H

#include "dist/dtype.h"
#include "dist/status.h"

#include <stdbool.h>
#include <stdint.h>

/* A group of rows; also the shot class of a bin, where METRICS_ALL means "in no group but all". */
enum metrics_group { METRICS_ALL, METRICS_MANY, METRICS_MEDIAN, METRICS_FEW, METRICS_GROUPS };

enum gmean_rule {
  GMEAN_PLAIN,       /* as published for ages                                     */
  GMEAN_ADD_EPS,     /* 1e-10 added to every error                                */
  GMEAN_REPLACE_ZERO /* 1e-10 in place of errors that are exactly 0: sentence similarity */
};

struct metrics_options {
  double bin_width;           /* label units                                                    */
  int64_t many_over;          /* many: more than this many training rows                         */
  int64_t few_under;          /* few: fewer                                                      */
  enum gmean_rule gmean_rule; /* for `gmean`; `gmean_eps` is always there                        */
  bool empty_is_zero;         /* empty groups, and correlations of fewer than two rows, are 0    */

  /* Explicit bins instead of bin_width, for one component: bin b holds edges[b] <= label < edges[b + 1], the last one
   * its upper edge too, the outer ones whatever lies beyond.  All copied by metrics_create(). */
  int bins;                              /* 0: use bin_width                    */
  const double *bin_edges;               /* [bins + 1], ascending               */
  const enum metrics_group *shot_of_bin; /* [bins], or NULL: by training counts */
};

struct metrics_row {
  int64_t count; /* rows */
  double mae, mse, rmse, gmean, gmean_eps, bmae, bmse, pearson, spearman;
};

struct metrics_table {
  struct metrics_row row[METRICS_GROUPS];
};

struct metrics;

/* bin_width 1, many over 100, few under 20, GMEAN_PLAIN, NaN for empty groups, no explicit bins. */
struct metrics_options metrics_options_default(void);

/* "all", "many", "median", "few". */
const char *metrics_group_name(enum metrics_group group);

/* Learn the bins of the training labels.  Local.
 * train_labels  [rows, targets]; rows may be 0 (then every label is few, unless shot_of_bin is given)
 * ERR_ARGUMENT: options without meaning; ERR_NUMERIC: a label is not finite. */
enum status metrics_create(const struct metrics_options *options, enum dtype dtype, int64_t rows, int targets,
                           const void *train_labels, struct metrics **out);
void metrics_destroy(struct metrics **metrics);

/* Shot class of one label [targets], and how many training rows share its bin.  Local. */
enum metrics_group metrics_shot(const struct metrics *metrics, enum dtype dtype, const void *label);
int64_t metrics_training_count(const struct metrics *metrics, enum dtype dtype, const void *label);

/* All metrics of all groups.  Local.
 * labels, predictions  [rows, targets]; rows may be 0
 * ERR_NUMERIC: a label or prediction is not finite (the sentence names the row). */
enum status metrics_compute(const struct metrics *metrics, enum dtype dtype, int64_t rows, const void *labels,
                            const void *predictions, struct metrics_table *table);

#endif
