/* The network over a whole split, the rows shared by the ranks, the predictions gathered.
 *
 *     TRY(inference_create(comm, data, dataset, SPLIT_VAL, net, batch, &options, &inference));
 *     TRY(inference_measure(inference, metrics));
 *     TRY(inference_run(inference));                 every rank now has every row's prediction, where the network is
 *     TRY(inference_table(inference, &table));       computed there
 *     TRY(inference_fetch(inference));               for files: inference->predictions now holds every row, on the host
 *     inference_destroy(&inference);
 *
 * The pass is one of evaluation: no augmentation, no dropout. */
#ifndef CONR_LAUNCH_INFERENCE_H
#define CONR_LAUNCH_INFERENCE_H

#include "dist/comm_device.h"
#include "io/loader.h"
#include "launch/upload.h"
#include "loss/loss_ops.h"
#include "model/net.h"

struct inference {
  struct comm *comm;       /* borrowed: all of these must outlive this */
  struct comm *data;       /* borrowed: of the memory where the net is */
  struct dataset *dataset; /* borrowed */
  struct net *net;         /* borrowed */
  struct loader *loader;
  struct upload *upload;
  struct sampler sampler;
  enum split split;
  int64_t rows; /* of the split                               */
  int targets;
  double *predictions; /* [rows, targets], in the order of the split; of a GPU: NULL before inference_fetch() */
  double *labels;      /* [rows, targets]                            */
  int64_t *rows_of_rank;
  const struct metrics *metrics; /* borrowed; NULL before inference_measure() */
  /* Of a GPU, NULL on the host: */
  const struct loss_ops *losses;
  void *there;                          /* [rows, targets] predictions in the net's type of parameters */
  struct metrics_device *metrics_there; /* NULL before inference_measure()                             */
};

/* data: a communicator of the memory of the net's device (comm_device.h), of the same ranks as comm.
 * batch: rows of one pass over all ranks; a rank's part must fit the net's capacity.
 * options: how samples are loaded; one view.
 * Collective; equal arguments on all ranks.  A failure of one rank becomes that of all. */
enum status inference_create(struct comm *comm, struct comm *data, struct dataset *dataset, enum split split,
                             struct net *net, int64_t batch, const struct loader_options *options,
                             struct inference **out);
void inference_destroy(struct inference **inference);

/* What tables and errors are to follow.  Once, before them.
 * metrics  borrowed: must outlive this
 * Local. */
enum status inference_measure(struct inference *inference, const struct metrics *metrics);

/* Collective. */
enum status inference_run(struct inference *inference);

/* All metrics of the last run; the same bits on every rank.
 * Collective.  ERR_NUMERIC on all ranks alike: a prediction is not finite (the sentence names its row). */
enum status inference_table(struct inference *inference, struct metrics_table *table);

/* Mean absolute and mean squared error over rows and components alone; the same bits on every rank.
 * Collective.  ERR_NUMERIC on all ranks alike: a prediction is not finite. */
enum status inference_errors(struct inference *inference, double *mae, double *mse);

/* Bring the last run's predictions to the host.  Local. */
enum status inference_fetch(struct inference *inference);

#endif
