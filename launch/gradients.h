/* From a batch to the gradients of the objective, summed over ranks: the inner part of a training step.
 *
 *     struct gradients *gradients;
 *     TRY(gradients_create(&parts, &gradients));
 *     each step:
 *       TRY(gradients_begin(gradients, batch));                the batch is taken; what is queued from now on can read it
 *       TRY(gradients_compute(gradients));                     queued: net_learned().gradients hold the sum over ranks
 *       TRY(gradients_clip(gradients, norm, &factor));         likewise: what to scale them by
 *       ... an optimiser's update is queued ...
 *       TRY(gradients_end(gradients));                         likewise: the step's numbers go to the host
 *       TRY(gradients_release(gradients));                     the batch's memory in the host may change now
 *       TRY(gradients_ahead(gradients, next_batch));           the next batch begins to travel to the device
 *       TRY(gradients_finish(gradients, &value));              the host waits for the step, and learns its numbers
 *     gradients_destroy(&gradients);
 *
 * What is queued between gradients_begin() and gradients_release() can be kept and launched as graphs (dist/replay.h),
 * for steps of the same gradients_key().
 *
 * Passes.  With one or two views, all of them go through the network in one joint pass.  Three views are the published
 * recipe of ConR: the first two in one pass, for ConR, then the third in another, for the regression loss; batch norm
 * sees them apart, and its running statistics take a step for each, in this order.
 *
 * Smoothed features (smoother.h) are what the head reads in the pass that the regression loss is of.  ConR sees the
 * features themselves, and the predictions of its pass: with three views un-smoothed ones, as published.  Regularisers
 * beside ConR see what their side says (loss/regularisers.h): contrastive ones as ConR does, the others what the head
 * reads, where smoothing is in place.  As long as they see the rows that ConR sees, ConR's gather is the only one.
 *
 * Of features that are distributions (net.h) all these terms see the means, and the smoothed means.
 *
 * Virtual shards (dist/sampler.h) are pieces, too, whose number and rows do not depend on the ranks: a rank takes those
 * that it owns one after the other, in the two rounds below, and nothing that the network or a term adds up reaches
 * across them.  Gradients, sums and the running statistics of batch norm are then added up by shards.h, behind the last shard,
 * and all bits of the step are the same for any number of ranks, on one thread each.  Batch norm normalises each shard
 * by itself.  With as many ranks as shards there is one round.
 *
 * Micro-batches.  A rank's samples of a step may be more than its memory holds.  Then a pass goes through the network
 * in pieces.  Without terms on features each piece is run forward and backward at once.  With ConR or other
 * regularisers, which are between all rows of all ranks, there are two rounds: forward for all pieces, keeping features
 * alone, while ConR's rows of the pieces before travel to the other ranks; the loss; then forward again with the same
 * random state, and backward from the stored gradient.  The price is the second forward pass.  Every rank makes equally
 * many pieces, empty ones included.
 * Without batch norm the gradients are those of the undivided batch; batch norm normalises each piece (of all ranks,
 * when synchronised) by itself, and its running statistics take one step for the whole pass, the same as if the pieces
 * had been one. */
#ifndef CONR_LAUNCH_GRADIENTS_H
#define CONR_LAUNCH_GRADIENTS_H

#include "dist/bucket.h"
#include "io/device_images.h"
#include "launch/smoother.h"
#include "launch/step_clock.h"
#include "loss/objective.h"
#include "model/net.h"

struct gradients;

/* All borrowed: they must outlive the object. */
struct gradients_parts {
  struct comm *comm; /* of the host                                                           */
  struct comm *data; /* of the memory of the net (comm_device.h); on the host the same as comm */
  struct net *net;   /* its capacity: gradients_capacity() at least */
  struct objective *objective;
  struct buckets *buckets;       /* not used, and NULL, where ... */
  const struct sampler *sampler; /* ... it cuts batches into virtual shards */
  struct smoother *smoother;     /* NULL = features stay as they are */
  int views;
  int64_t micro_batch; /* most samples of a rank in a piece; 0 = all of them */
  uint64_t seed;
  double reconstruct;                  /* coefficient of the error of reconstructed inputs; 0 = the net makes none */
  bool table;                          /* the batch's inputs are numbers of the net's dtype */
  struct device_images_options images; /* where batches may come as records; else all 0 */
};

struct gradients_value {
  double regression;                 /* this rank's part; the sum over ranks is the loss  */
  double noise_gradient;             /* likewise: its derivative by the noise scale       */
  double reconstruction;             /* likewise: of the mean squared error of the inputs, without its coefficient */
  bool of_all_ranks;                 /* these three are the sums already: the batch is cut into virtual shards */
  double conr;                       /* global, without its coefficient; 0 when off       */
  double regularisers[REGULARISERS]; /* likewise                                */
  double regularisers_total;         /* sum of them times their coefficients     */
  double squares;                    /* sum of the squared gradients of all ranks         */
  bool bad;                          /* some value of this rank was not finite            */
  /* The first of them: "an input", "a feature", "a prediction"; NULL = not known (on a device). */
  const char *nonfinite;
  int64_t sample; /* whose it is */
};

/* Rows of the largest pass of a rank. */
int64_t gradients_capacity(const struct sampler *sampler, int views, int64_t micro_batch);

/* Buckets of about `bytes` over the gradients of a net, a slice for each parameter that learns (bucket.h).  Local. */
enum status gradients_buckets(struct comm *data, const struct net *net, size_t bytes, struct buckets **out);

/* Local. */
enum status gradients_create(const struct gradients_parts *parts, struct gradients **out);
void gradients_destroy(struct gradients **gradients);

/* batch: the loader's, in host memory; it must stay as it is until gradients_release().
 * Local. */
enum status gradients_begin(struct gradients *gradients, const struct batch *batch);

/* What the work of a step depends on, beside the numbers in its memory: equal keys, equal work.  All ranks see the same
 * steps as equal. */
struct gradients_key {
  const void *inputs; /* where the batch at hand lies   */
  int64_t rows;       /* of the global batch            */
  int64_t smooths;    /* 1: features are smoothed       */
};
struct gradients_key gradients_key(const struct gradients *gradients);

/* Collective.  ERR_NUMERIC on all ranks alike when ConR meets a value that is not finite, here or in
 * gradients_finish(), which names this rank's in either case. */
enum status gradients_compute(struct gradients *gradients);

/* *factor, in the memory of the net: what clipping multiplies the gradients by; NULL when clip_norm is 0 (off).  To be
 * called once a step, also when clipping is off: it finds the norm of the gradients.  Local. */
enum status gradients_clip(struct gradients *gradients, double clip_norm, const double **factor);

/* To be called last of what is queued.  Local. */
enum status gradients_end(struct gradients *gradients);

/* Wait until the batch has left the host's memory, which is all that is waited for.  Local. */
enum status gradients_release(struct gradients *gradients);

/* Send the batch of the next step ahead (NULL = there is none).  Local. */
enum status gradients_ahead(struct gradients *gradients, const struct batch *next);

/* Bytes that virtual shards take beside what a step needs without them; 0 without such.  Local. */
size_t gradients_shard_bytes(const struct gradients *gradients);

/* Of the batches so far: upload_images().  Local. */
struct device_images_counts gradients_images(const struct gradients *gradients);

/* Wait for the step.  Local; ERR_NUMERIC as above, with *value filled; ERR_COMM when another rank is lost. */
enum status gradients_finish(struct gradients *gradients, struct gradients_value *value);

/* Pieces in which the gradients travel to their sum: buckets, or those of virtual shards.  Local. */
size_t gradients_pieces(const struct gradients *gradients);

/* Where the time of the steps went on this rank, since the last call with `reset`.  Local. */
struct gradients_seconds {
  double phase[STEP_PHASES]; /* PHASE_CONR is told with PHASE_LOSS, and 0 */
  /* Parts of PHASE_LOSS, which may overlap: waiting for exchanges of rows, regularisers beside ConR that are
   * computed on the host (regularisers_seconds()), and PHASE_CONR. */
  double gather, regularisers, conr;
  double again; /* part of PHASE_FORWARD: second passes of virtual shards */
};
struct gradients_seconds gradients_seconds(struct gradients *gradients, bool reset);

#endif
