/* The pass that collects features for their statistics (loss/fds.h): after an epoch the network sees the training
 * samples once more.
 *
 *     struct collection *collection;
 *     TRY(collection_create(&parts, &collection));
 *     after each epoch that fds_collects():
 *       TRY(collection_run(collection, epoch, epochs, &stopped));
 *     collection_destroy(&collection);
 *
 * As published it is a training pass without gradients: samples are drawn and augmented anew, dropout is on, batch norm
 * uses the statistics of the batch and its running ones take steps, and features are smoothed as in that epoch.  With
 * --fds-collect eval it is a pass of evaluation: augmented samples, nothing smoothed, nothing changed.
 * What is drawn from distributions does not enter: they are collected themselves.
 * Features are counted as they come: an epoch is never in memory.
 *
 * Of virtual shards (dist/sampler.h) each goes forward by itself, and every rank counts the rows of all ranks in the
 * order of the batch, so that the statistics have the same bits for any number of ranks: the features of each global
 * batch are gathered for it. */
#ifndef CONR_LAUNCH_COLLECTION_H
#define CONR_LAUNCH_COLLECTION_H

#include "io/loader.h"
#include "launch/session.h"
#include "launch/smoother.h"
#include "model/net.h"

struct collection;

/* All borrowed: they must outlive the object. */
struct collection_parts {
  struct session *session;
  struct net *net;
  struct smoother *smoother;
  struct dataset *dataset;
  const struct sampler *sampler;
  const struct loader_options *loader; /* of training, copied; the number of views is not read */
  int64_t micro_batch;                 /* most samples of a rank in a pass; 0 = all of them    */
  uint64_t seed;
  bool evaluation;
};

/* Local. */
enum status collection_create(const struct collection_parts *parts, struct collection **out);
void collection_destroy(struct collection **collection); /* NULL is fine */

/* Collect, and update the statistics.  A rank that is asked to stop (signals.h) ends the pass on all ranks: *stopped,
 * with statistics and network as before.  epochs: of the run, for the line of progress.
 * Collective.  ERR_NUMERIC on all ranks alike when a feature is not finite. */
enum status collection_run(struct collection *collection, int64_t epoch, int64_t epochs, bool *stopped);

#endif
