/* Everything a training run is made of, built from the options: data, network, objective, optimiser, buckets.
 *
 *     TRY(trainer_create(session, config, &trainer));
 *     ... train.c runs the loop ...
 *     trainer_destroy(&trainer);
 *
 * The struct is open: it is the workbench of train.c. */
#ifndef CONR_LAUNCH_TRAINER_H
#define CONR_LAUNCH_TRAINER_H

#include "dist/sampler.h"
#include "io/image_cache.h"
#include "io/metrics_log.h"
#include "launch/collection.h"
#include "launch/config.h"
#include "launch/gradients.h"
#include "launch/inference.h"
#include "launch/model.h"
#include "launch/regularising.h"
#include "launch/session.h"
#include "launch/step_graphs.h"
#include "launch/weighting.h"
#include "loss/objective.h"
#include "model/checkpoint.h"
#include "model/schedule.h"

#define MOST_MILESTONES 64
#define MOST_STATES 16

struct trainer {
  struct session *session; /* borrowed: must outlive this */
  struct config config;    /* resolved: no option is left open; its texts are borrowed */
  int64_t milestones[MOST_MILESTONES];
  char hidden[512]; /* "64,64", as the checkpoint stores it */
  struct regularising_texts regularising_texts;
  struct smoother_texts fds_texts;
  struct model_description model; /* texts are the config's, or `hidden`  */
  struct head head;               /* what its outputs mean                */
  enum uvote_vote vote;           /* of experts, in validation            */

  struct comm *shared; /* owned: what ranks of a host share of the data lives as long as it */
  struct dataset *dataset;
  double *weights;                  /* [training rows, head_weights()]; NULL = the file's, or none */
  char weight_bins[WEIGHTING_TEXT]; /* the config's, where it did not name them     */
  struct sampler sampler;
  struct image_cache *cache; /* NULL = none */
  struct loader *loader;
  const struct ops *ops;
  struct net *net;
  struct balanced *balanced; /* NULL unless the loss is Balanced MSE */
  struct objective *objective;
  struct optim *optim;
  struct schedule schedule;
  struct buckets *buckets;       /* NULL with --reproducible */
  struct smoother *smoother;     /* NULL without --fds, and ... */
  struct collection *collection; /* ... likewise                */
  struct gradients *gradients;
  struct step_graphs *graphs;
  struct inference *validation; /* NULL when the data have no validation rows */
  struct metrics *metrics;      /* of validation: errors over all rows, no shot classes; likewise */

  struct regulariser_options regularisers;
  struct progress progress;
  double regulariser_sums[REGULARISERS];  /* of the epoch under way: sum of value x rows */
  double reconstruction_sum;              /* likewise                                    */
  struct state_array states[MOST_STATES]; /* of the parts above, borrowed: what checkpoints keep beside the network */
  size_t state_count;
  char *feature_names, *target_names; /* newline-separated, for the checkpoint */
  char *options_text;                 /* config_write's lines, likewise        */
};

/* Collective; equal options on all ranks.  All ranks fail together, with one sentence. */
enum status trainer_create(struct session *session, const struct config *config, struct trainer **out);

/* Collective; NULL is fine. */
void trainer_destroy(struct trainer **trainer);

/* Names joined by newlines, in memory of memory_alloc: what checkpoints store and compare. */
enum status joined_names(const struct dataset *dataset, bool features, char **out);

#endif
