/* The network over a whole split, the rows shared by the ranks, the predictions gathered.
 *
 *     TRY(inference_create(comm, dataset, SPLIT_VAL, net, &inference));
 *     TRY(inference_run(inference));                 inference->predictions now holds every row, on every rank
 *     inference_destroy(&inference);
 *
 * The pass is one of evaluation: no augmentation, no dropout. */
#ifndef CONR_LAUNCH_INFERENCE_H
#define CONR_LAUNCH_INFERENCE_H

#include "dist/comm.h"
#include "io/loader.h"
#include "launch/upload.h"
#include "model/net.h"

struct inference {
  struct comm *comm;       /* borrowed: all of these must outlive this */
  struct dataset *dataset; /* borrowed */
  struct net *net;         /* borrowed */
  struct loader *loader;
  struct upload *upload;
  struct sampler sampler;
  enum split split;
  int64_t rows; /* of the split                               */
  int targets;
  double *predictions; /* [rows, targets], in the order of the split */
  double *labels;      /* [rows, targets]                            */
  int64_t *rows_of_rank;
  void *batch_predictions; /* of one pass, in host memory that the net's device can write */
};

/* batch: rows of one pass over all ranks; a rank's part must fit the net's capacity.
 * options: how samples are loaded; one view.
 * Collective; equal arguments on all ranks.  A failure of one rank becomes that of all. */
enum status inference_create(struct comm *comm, struct dataset *dataset, enum split split, struct net *net,
                             int64_t batch, const struct loader_options *options, struct inference **out);
void inference_destroy(struct inference **inference);

/* Collective. */
enum status inference_run(struct inference *inference);

/* Mean absolute and mean squared error over rows and components; the same bits on every rank.  Local. */
void inference_errors(const struct inference *inference, double *mae, double *mse);

#endif
