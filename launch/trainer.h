/* Everything a training run is made of, built from the options: data, network, objective, optimiser, buckets.
 *
 *     TRY(trainer_create(session, config, &trainer));
 *     ... train.c runs the loop ...
 *     trainer_destroy(&trainer);
 *
 * The struct is open: it is the workbench of train.c. */
#ifndef CONR_LAUNCH_TRAINER_H
#define CONR_LAUNCH_TRAINER_H

#include "dist/bucket.h"
#include "dist/sampler.h"
#include "io/loader.h"
#include "io/metrics_log.h"
#include "launch/config.h"
#include "launch/inference.h"
#include "launch/session.h"
#include "loss/objective.h"
#include "model/checkpoint.h"
#include "model/schedule.h"

#define MOST_LAYERS 64
#define MOST_MILESTONES 64

struct trainer {
  struct session *session; /* borrowed: must outlive this */
  struct config config;    /* resolved: no option is left open; its texts are borrowed */
  int64_t milestones[MOST_MILESTONES];
  char hidden[512]; /* "64,64", as the checkpoint stores it */

  struct dataset *dataset;
  struct sampler sampler;
  struct loader *loader;
  const struct ops *ops;
  struct net *net;
  struct objective *objective;
  struct optim *optim;
  struct schedule schedule;
  struct buckets *buckets;
  struct inference *validation; /* NULL when the data have no validation rows */

  int64_t *samples_of_rank; /* [ranks] of the step at hand                */
  void *grad_predictions;   /* [views * rows, targets], sized by the largest shard */
  void *grad_features;      /* [views * rows, features]; NULL when no term needs it */

  struct progress progress;
  char *feature_names, *target_names; /* newline-separated, for the checkpoint */
  char *options_text;                 /* config_write's lines, likewise        */
};

/* Collective; equal options on all ranks.  All ranks fail together, with one sentence. */
enum status trainer_create(struct session *session, const struct config *config, struct trainer **out);

/* Collective; NULL is fine. */
void trainer_destroy(struct trainer **trainer);

/* Names joined by newlines, in memory of memory_alloc: what checkpoints store and compare. */
enum status joined_names(const struct dataset *dataset, bool features, char **out);

/* A network by the texts of its description.  capacity: rows of one pass on this rank. */
enum status model_build(const struct model_description *description, double dropout, int64_t capacity,
                        const struct ops **ops, struct net **out);

#endif
