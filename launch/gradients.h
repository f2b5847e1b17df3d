/* From a batch to the gradients of the objective, summed over ranks: the inner part of a training step.
 *
 *     struct gradients *gradients;
 *     TRY(gradients_create(&parts, &gradients));
 *     each step:
 *       TRY(gradients_compute(gradients, batch, &value));      net_parameters().gradients hold the sum over ranks
 *     gradients_destroy(&gradients);
 *
 * Passes.  With one or two views, all of them go through the network in one joint pass.  Three views are the published
 * recipe of ConR: the first two in one pass, for ConR, then the third in another, for the regression loss; batch norm
 * sees them apart, and its running statistics take a step for each, in this order.
 *
 * Micro-batches.  A rank's samples of a step may be more than its memory holds.  Then a pass goes through the network in
 * pieces.  Without ConR each piece is run forward and backward at once.  With ConR, whose terms are between all rows of
 * all ranks, there are two rounds: forward for all pieces, keeping features and predictions alone; one gather and the
 * loss; then forward again with the same random state, and backward from the stored gradient.  The price is the second
 * forward pass.  Every rank makes equally many pieces, empty ones included.  Without batch norm the gradients are those
 * of the undivided batch; batch norm normalises each piece (of all ranks, when synchronised) by itself, and its running
 * statistics take one step for the whole pass, the same as if the pieces had been one. */
#ifndef CONR_LAUNCH_GRADIENTS_H
#define CONR_LAUNCH_GRADIENTS_H

#include "dist/bucket.h"
#include "io/loader.h"
#include "loss/objective.h"
#include "model/net.h"

struct gradients;

/* All borrowed: they must outlive the object. */
struct gradients_parts {
  struct comm *comm;
  struct net *net; /* its capacity: gradients_capacity() at least */
  struct objective *objective;
  struct buckets *buckets;
  const struct sampler *sampler;
  int views;
  int64_t micro_batch; /* most samples of a rank in a piece; 0 = all of them */
  uint64_t seed;
  bool table; /* the batch's inputs are numbers of the net's dtype */
};

struct gradients_value {
  double regression_local; /* this rank's part; the sum over ranks is the loss  */
  double conr;             /* global, without its coefficient; 0 when off       */
  /* The first value of this rank that is not finite: "an input", "a feature", "a prediction"; NULL = none. */
  const char *nonfinite;
  int64_t sample; /* whose it is */
};

/* Rows of the largest pass of a rank. */
int64_t gradients_capacity(const struct sampler *sampler, int views, int64_t micro_batch);

/* Buckets of about `bytes` over the gradients of a net, a slice for each parameter (bucket.h).  Local. */
enum status gradients_buckets(struct comm *comm, const struct net *net, size_t bytes, struct buckets **out);

/* Local. */
enum status gradients_create(const struct gradients_parts *parts, struct gradients **out);
void gradients_destroy(struct gradients **gradients);

/* Collective.  ERR_NUMERIC on all ranks alike when ConR meets a value that is not finite; `value` names this rank's. */
enum status gradients_compute(struct gradients *gradients, const struct batch *batch, struct gradients_value *value);

#endif
