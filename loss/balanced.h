/* Balanced MSE: the negative log-likelihood of a label under noise of scale sigma, where training labels are rare and
 * frequent, and the labels one cares about are not.
 *
 *     struct balanced *balanced;
 *     TRY(balanced_create_bmc(F32, targets, &balanced));
 *     each step:
 *       TRY(balanced_begin(balanced, comm, samples_of_rank, labels, views));            BMC: the labels of all ranks
 *       balanced_loss(balanced, sigma, rows, pred, target, rows_global, grad, &loss, &grad_sigma);
 *       ... loss and grad_sigma are summed over ranks ...
 *     balanced_destroy(&balanced);
 *
 * With v = sigma^2 and D components in a label, the loss of the global batch of N rows is
 *
 *     L = 2 v / N  sum_i [ |p_i - y_i|^2 / (2 v) + log sum_k a_k q_k(p_i) ]      2 v counts as a constant in gradients
 *
 *     BMC   k: the rows of the batch      a_k = 1             q_k(p) = exp(-|p - y_k|^2 / (2 v))
 *     BNI   k: buckets of labels, D = 1   a_k = probability   q_k(p) = exp(-(p - centre_k)^2 / (2 v))
 *     GAI   k: components of a mixture    a_k = weight        q_k(p) = v^(D/2) N(p; mean_k, C_k + v I)
 *
 * (N without its factor (2 pi)^(-D/2)).  It may be negative.  Divided by the number of rows, not by the components; there
 * are no sample weights: the prior does what they are for.
 *
 * The softmax of BMC runs over the labels of the global batch, which are known before any prediction: a batch that comes
 * in pieces gives the same numbers.  Equal labels are evaluated once.  Memory: the labels of the batch, four times in
 * double; nothing of the size rows x rows.  All is computed in double; a gradient is rounded once. */
#ifndef CONR_LOSS_BALANCED_H
#define CONR_LOSS_BALANCED_H

#include "dist/comm.h"
#include "loss/mixture.h"

#include <stdbool.h>

#define BALANCED_MOST_TARGETS 64 /* components of a label */

struct balanced;

/* ERR_ARGUMENT: labels of more than 64 components.  Local. */
enum status balanced_create_bmc(enum dtype dtype, int targets, struct balanced **out);

/* The mixture is copied.  Local. */
enum status balanced_create_gai(enum dtype dtype, const struct mixture *mixture, struct balanced **out);

/* Labels of one component.  centres, probabilities [count]: copied; probabilities greater than 0.  Local. */
enum status balanced_create_bni(enum dtype dtype, int64_t count, const double *centres, const double *probabilities,
                                struct balanced **out);

void balanced_destroy(struct balanced **balanced); /* NULL is fine */

/* What a backend of devices has to know of it; arrays are borrowed from it. */
struct balanced_prior {
  int targets;
  bool of_batch;                       /* BMC: the labels of the batch; else      */
  const struct mixture *mixture;       /* GAI; or                                 */
  int64_t count;                       /* BNI: so many buckets                    */
  const double *centres, *log_weights; /* [count]                                 */
};
struct balanced_prior balanced_prior(const struct balanced *balanced);

/* What a step begins with.  BMC learns the labels of all ranks; the others do nothing.
 * samples_of_rank  [ranks]
 * labels           [samples of this rank, targets] of dtype, host
 * views            rows of each sample in the batch
 * Collective.  Memory grows with the largest batch; a rank that cannot have it fails alone. */
enum status balanced_begin(struct balanced *balanced, struct comm *comm, const int64_t *samples_of_rank,
                           const void *labels, int views);

/* The same from labels that are all here already.  labels  [samples, targets].  Local. */
enum status balanced_set_labels(struct balanced *balanced, int64_t samples, const void *labels, int views);

/* The part of some rows, of this rank or of a piece of it; all parts add up to the loss.
 * pred, target  [rows, targets] of dtype, host; BMC: targets are among the labels that were set
 * sigma         not 0; its sign does not matter to the loss
 * rows_global   of the global batch, all views
 * grad          [rows, targets], overwritten; may be NULL
 * loss, grad_sigma  overwritten: L, and its derivative by sigma
 * Local.  Values that are not finite give such results. */
void balanced_loss(const struct balanced *balanced, double sigma, int64_t rows, const void *pred, const void *target,
                   int64_t rows_global, void *grad, double *loss, double *grad_sigma);

#endif
