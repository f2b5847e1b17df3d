/* Sample weights from the labels of the training split: the rarer a label, the heavier its samples.
 *
 *     struct reweighting rule = reweighting_default(0.5);                        square-root inverse
 *     rule.lds = true;                                                           with LDS, gaussian 5 / 2
 *     TRY(label_window_make(LABEL_GAUSSIAN, 5, 2, WINDOW_BY_MAXIMUM, &rule.window));
 *     TRY(reweighting_of_labels(&rule, &bins, rows, 1, labels, weights));        mean 1 over the rows
 *
 * Reweighting, with n_b labels in bin b:
 *
 *     v_b = n_b^r; if r >= 1 (inverse), clipped to [clip_low, clip_high], empty bins too
 *     with LDS: v = v convolved with the window along the bins
 *     u_b = 1 / v_b in float32; weight of a sample = u_b * N / sum over samples of u
 *
 * r = 1 is the published inverse, 1/2 the square-root inverse; UVOTE's expert e of E has r = e / (E - 1) and no LDS
 * unless it is asked for.  Published numbers are met to 2e-7: the published sum is in float32 in the order of the
 * file, this one in double.
 *
 * DenseWeight (rho: the kernel density of the labels, scaled to [0, 1]):
 *
 *     weight = max(1 - alpha rho(y), 1e-6) / its mean over samples
 *
 * Weights belong to the whole training split: labels are those of all its rows, whatever rank trains on them.  All
 * functions are local; ranks that pass equal arguments get equal bits. */
#ifndef CONR_LOSS_SAMPLE_WEIGHTS_H
#define CONR_LOSS_SAMPLE_WEIGHTS_H

#include "dist/status.h"
#include "loss/label_bins.h"
#include "loss/label_window.h"

#include <stdbool.h>
#include <stdint.h>

struct reweighting {
  double exponent;            /* r: 0 or more */
  double clip_low, clip_high; /* counts; 0 <= low <= high, high >= 1; infinity = no upper limit */
  bool lds;
  bool lds_truncate; /* with r >= 1, cut smoothed counts to integers, as published code does without meaning to */
  enum label_padding padding; /* beyond the bins: zero, as published for ages; depth has reflect */
  struct label_window window; /* by maximum */
  int64_t first;              /* bins below this take the density of bin `first` and are not smoothed; depth has 7 */
};

/* Clipped to 5 .. 1000, no LDS. */
struct reweighting reweighting_default(double exponent);

/* r of UVOTE's expert e of E: e / (E - 1); 0 for a single one. */
double reweighting_exponent(int expert, int experts);

/* Densities and weights of bins from their counts.
 * counts   [bins]; at least one above 0
 * density  [bins], v above
 * weights  [bins]; of an empty bin what a sample there would weigh, infinity where the density is 0
 * ERR_ARGUMENT for a rule without meaning, or a window wider than the bins. */
enum status reweighting_of_counts(const struct reweighting *rule, int64_t bins, const int64_t *counts, double *density,
                                  double *weights);

/* Weights of samples.  Labels of several components are counted in joint bins, the tuples of their components' bins;
 * LDS is not defined for them.
 * labels   [rows, targets]
 * weights  [rows]
 * ERR_ARGUMENT: the rule; bins that a label lies below, or that all labels fall into one of; LDS for several
 * components. */
enum status reweighting_of_labels(const struct reweighting *rule, const struct label_bins *bins, int64_t rows,
                                  int targets, const double *labels, double *weights);

/* DenseWeight: the density by Gaussian kernels of bandwidth 1.06 std(y) n^(-1/5), on 4096 equidistant points; that of
 * the point just below a label counts.
 * labels  [rows], of one component
 * alpha   0 (all weights 1) or more
 * ERR_ARGUMENT: alpha; labels that are all equal, which have no bandwidth. */
enum status dense_weights(int64_t rows, const double *labels, double alpha, double *weights);

/* UVOTE's other form: weights in proportion to the density's power, p(y)^-exponent, with mean 1; p by Gaussian kernels
 * of a given bandwidth. */
enum status density_power_weights(int64_t rows, const double *labels, double bandwidth, double exponent,
                                  double *weights);

#endif
