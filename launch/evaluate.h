/* A run's network over a split of a data file, and the errors it makes there. */
#ifndef CONR_LAUNCH_EVALUATE_H
#define CONR_LAUNCH_EVALUATE_H

#include "launch/config.h"
#include "launch/inference.h"
#include "launch/session.h"
#include "loss/metrics.h"

/* A model that was loaded, and the data it is to see. */
struct evaluation {
  struct session *session; /* borrowed */
  struct comm *shared;     /* what ranks of a host share of the data lives as long as it */
  struct dataset *dataset;
  const struct ops *ops;
  struct net *net;
  struct head head;     /* what its outputs mean   */
  enum uvote_vote vote; /* by which experts answer */
  struct inference *inference;
  struct metrics *metrics; /* NULL before evaluation_measure() */
  /* What every rank must know of the checkpoint, which rank 0 alone has read. */
  struct {
    int64_t inputs, outputs, targets, height, width, probabilistic, standardised, full_decode, feature_bytes,
        target_bytes;
    uint64_t data_hash;
    char name[32], hidden[512], activation[32], precision[8], normalise[32], head[32];
  } header;
  double *standardise; /* [2, inputs]: mean, then std; NULL when inputs are used as they are */
  char *feature_names, *target_names;
};

/* Load the checkpoint and the data that config->word names, and prepare a pass over config->part: after inference_run()
 * its predictions are there.  On failure nothing is left open.
 * Collective; failures are agreed, but for those that leave ranks apart (session_fail). */
enum status evaluation_open(struct session *session, const struct config *config, struct evaluation *evaluation);
void evaluation_close(struct evaluation *evaluation);

/* Prepare tables with the options' groups of labels, for inference_table().  Local. */
enum status evaluation_measure(struct evaluation *evaluation, const struct config *config);

/* Options of the groups that contradict each other.  Local. */
enum status evaluate_check(const struct config *config);

/* What `conr eval` does, without printing: config->word are the run or checkpoint, and the data.
 * Collective; failures are agreed, but for those that leave ranks apart (session_fail). */
enum status evaluate(struct session *session, const struct config *config, struct metrics_table *table);

#endif
