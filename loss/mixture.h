/* Mixtures of normal distributions: the distribution of labels that Balanced MSE takes for its prior (GAI).
 *
 *     struct mixture mixture;
 *     TRY(mixture_fit(rows, targets, labels, 8, seed, &mixture));                 the training labels
 *     struct mixture_density density;
 *     mixture_density_at(&mixture, sigma * sigma, &density);                      of label + noise
 *     double log_density = mixture_density_log(&density, k, x, scaled);            of mixture_density.h
 *
 * A component is held by the principal axes of its covariance: adding v I then adds v to the variances along them.
 * Both structs are plain numbers, to be copied as bytes (41 KB).  All functions are local. */
#ifndef CONR_LOSS_MIXTURE_H
#define CONR_LOSS_MIXTURE_H

#include "dist/status.h"

#include <stdint.h>

#define MIXTURE_MOST_COMPONENTS 64
#define MIXTURE_MOST_DIMENSIONS 8
#define MIXTURE_FLOOR 1e-6 /* added to every variance that is fitted, in squared label units */

struct mixture {
  int components, dimensions;
  double weight[MIXTURE_MOST_COMPONENTS]; /* they add up to 1 */
  double mean[MIXTURE_MOST_COMPONENTS][MIXTURE_MOST_DIMENSIONS];
  double axes[MIXTURE_MOST_COMPONENTS][MIXTURE_MOST_DIMENSIONS][MIXTURE_MOST_DIMENSIONS]; /* orthonormal, one a row */
  double variance[MIXTURE_MOST_COMPONENTS][MIXTURE_MOST_DIMENSIONS];                      /* along these            */
};

/* Give component k its numbers.  covariance  [dimensions, dimensions], symmetric. */
void mixture_set(struct mixture *mixture, int k, double weight, const double *mean, const double *covariance);

/* Fit by expectation maximisation with full covariances: the best of several starts by k-means, whose first centres are
 * drawn from `seed` alone.  The result has the same bits for any number of threads and any order of the samples.
 * samples  [count, dimensions]
 * *mean_log_likelihood  of a sample; may be NULL
 * ERR_ARGUMENT: components out of 1 .. 64, dimensions out of 1 .. 8, or fewer distinct samples than components. */
enum status mixture_fit(int64_t count, int dimensions, const double *samples, int components, uint64_t seed,
                        struct mixture *out, double *mean_log_likelihood);

/* The mixture whose covariances C_k have become C_k + added I. */
struct mixture_density {
  const struct mixture *mixture;            /* borrowed: must outlive this                    */
  double constant[MIXTURE_MOST_COMPONENTS]; /* log weight - log det(C + added I) / 2          */
  double trace[MIXTURE_MOST_COMPONENTS];    /* of the inverse of C + added I                  */
  double precision[MIXTURE_MOST_COMPONENTS][MIXTURE_MOST_DIMENSIONS]; /* 1 / (variance + added) */
};

void mixture_density_at(const struct mixture *mixture, double added, struct mixture_density *out);

#endif
