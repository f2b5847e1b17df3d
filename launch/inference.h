/* The network over a whole split, the rows shared by the ranks, the predictions gathered.
 *
 *     struct inference_parts parts = {comm, data, dataset, SPLIT_VAL, net, head, UVOTE_FIRST, batch, options};
 *     TRY(inference_create(&parts, &inference));
 *     TRY(inference_measure(inference, metrics));
 *     TRY(inference_run(inference));                 every rank now has every row's prediction, where the network is
 *     TRY(inference_table(inference, &table));       computed there
 *     TRY(inference_fetch(inference));               for files: inference->predictions now holds every row, on the host
 *     TRY(inference_vote(inference, UVOTE_AVG));     of experts: other answers from the same outputs
 *     inference_destroy(&inference);
 *
 * The pass is one of evaluation: no augmentation, no dropout. */
#ifndef CONR_LAUNCH_INFERENCE_H
#define CONR_LAUNCH_INFERENCE_H

#include "dist/comm_device.h"
#include "io/loader.h"
#include "launch/upload.h"
#include "loss/head.h"
#include "model/net.h"

struct inference_parts {
  struct comm *comm;       /* borrowed: all of these must outlive the inference                             */
  struct comm *data;       /* borrowed: of the memory of the net's device (comm_device.h), of the same ranks */
  struct dataset *dataset; /* borrowed */
  enum split split;
  struct net *net;      /* borrowed */
  struct head head;     /* what its outputs mean; its targets are the dataset's                 */
  enum uvote_vote vote; /* of experts, in the first answers                                     */
  int64_t batch;        /* rows of one step over all ranks; a rank's part, or a shard, must fit the net's capacity */
  int shards;           /* virtual shards of a step, each in a pass of its own (dist/sampler.h); 0: one for each rank */
  struct loader_options options; /* how samples are loaded; one view                                     */
};

/* Who wants the features of a pass, too: called on each rank after each of its passes, with rows first to
 * first + rows - 1 of the split.  features [rows, net_feature_width()] of the net's ops->dtype, in host memory, valid
 * during the call. */
struct inference_watcher {
  void *context; /* borrowed: must outlive the inference */
  enum status (*features)(void *context, int64_t first, int64_t rows, const void *features);
};

struct inference {
  struct comm *comm; /* as above */
  struct comm *data;
  struct dataset *dataset;
  struct net *net;
  struct head head;
  enum uvote_vote vote;
  struct loader *loader;
  struct upload *upload;
  struct sampler sampler;
  enum split split;
  int64_t rows; /* of the split                               */
  int targets;
  double *predictions; /* [rows, targets], in the order of the split; of a GPU: NULL before inference_fetch() */
  double *spread;      /* likewise, for head_deviation(); NULL where the head has none                       */
  double *outputs;     /* [rows, head_outputs()]; on the host, where they are not the predictions, else NULL  */
  double *labels;      /* [rows, targets]                            */
  int64_t *rows_of_rank;
  size_t input_bytes;               /* of a row */
  void *shard_inputs;               /* on the host: those of a virtual shard; NULL without such */
  const struct metrics *metrics;    /* borrowed; NULL before inference_measure() */
  struct inference_watcher watcher; /* of later runs */
  /* Of a GPU, NULL on the host: */
  const struct loss_ops *losses;
  /* As above, in the net's type of parameters; labels once an oracle looks at them. */
  void *there, *spread_there, *outputs_there, *labels_there;
  struct metrics_device *metrics_there; /* NULL before inference_measure()                             */
};

/* Collective; equal arguments on all ranks.  A failure of one rank becomes that of all. */
enum status inference_create(const struct inference_parts *parts, struct inference **out);
void inference_destroy(struct inference **inference);

/* What tables and errors are to follow.  Once, before them.
 * metrics  borrowed: must outlive this
 * Local. */
enum status inference_measure(struct inference *inference, const struct metrics *metrics);

/* Show the features of later runs to a watcher.  Of a GPU they come to the host for it, which then waits for each step.
 * Local. */
void inference_watch(struct inference *inference, const struct inference_watcher *watcher);

/* Collective. */
enum status inference_run(struct inference *inference);

/* Answer anew from the outputs of the last run: figures and predictions are then those of this vote, and so are those
 * of later runs.  Local; heads without experts have one answer. */
enum status inference_vote(struct inference *inference, enum uvote_vote vote);

/* All metrics of the last run; the same bits on every rank.
 * Collective.  ERR_NUMERIC on all ranks alike: a prediction is not finite (the sentence names its row). */
enum status inference_table(struct inference *inference, struct metrics_table *table);

/* Mean absolute and mean squared error over rows and components alone; the same bits on every rank.
 * Collective.  ERR_NUMERIC on all ranks alike: a prediction is not finite. */
enum status inference_errors(struct inference *inference, double *mae, double *mse);

/* Bring the last run's predictions, and their spread, to the host.  Local. */
enum status inference_fetch(struct inference *inference);

#endif
