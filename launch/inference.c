/* A sharded pass over a split. */
#include "launch/inference.h"

#include "dist/memory.h"

#include <math.h>
#include <string.h>

enum status inference_create(struct comm *comm, struct dataset *dataset, enum split split, struct net *net,
                             int64_t batch, const struct loader_options *options, struct inference **out) {
  *out = NULL;
  struct inference *inference = NULL;
  enum status status;
  TRY_GOTO(memory_alloc_zero(sizeof *inference, (void **)&inference), failed);
  inference->comm = comm;
  inference->dataset = dataset;
  inference->net = net;
  inference->split = split;
  inference->rows = dataset_split_rows(dataset, split);
  inference->targets = dataset_targets(dataset);
  inference->sampler =
      (struct sampler){.rows = inference->rows, .batch = batch, .rank = comm_rank(comm), .size = comm_size(comm)};
  size_t values = (size_t)inference->rows * (size_t)inference->targets;
  TRY_GOTO(memory_alloc(values * sizeof(double), (void **)&inference->predictions), failed);
  TRY_GOTO(memory_alloc(values * sizeof(double), (void **)&inference->labels), failed);
  TRY_GOTO(memory_alloc((size_t)comm_size(comm) * sizeof(int64_t), (void **)&inference->rows_of_rank), failed);
  TRY_GOTO(loader_create(dataset, split, &inference->sampler, options, &inference->loader), failed);
  const int64_t *ids = dataset_split_ids(dataset, split);
  for (int64_t i = 0; i < inference->rows; i++)
    memcpy(inference->labels + i * inference->targets, dataset_target(dataset) + ids[i] * inference->targets,
           (size_t)inference->targets * sizeof(double));
failed:
  status = comm_agree(comm, status);
  if (status != STATUS_OK)
    inference_destroy(&inference);
  *out = inference;
  return status;
}

void inference_destroy(struct inference **inference) {
  if (*inference == NULL)
    return;
  loader_destroy(&(*inference)->loader);
  memory_free((void **)&(*inference)->rows_of_rank);
  memory_free((void **)&(*inference)->labels);
  memory_free((void **)&(*inference)->predictions);
  memory_free((void **)inference);
}

/* One pass over this rank's part of a step; its predictions go to their place. */
static enum status infer_batch(struct inference *inference, const struct batch *batch) {
  struct pass pass = {.training = false, .views = 1};
  TRY(net_forward(inference->net, batch->inputs, batch->rows, &pass));
  int64_t first = sampler_shard(&inference->sampler, batch->step).first * inference->targets;
  const void *predictions = net_predictions(inference->net);
  bool single = net_ops(inference->net)->dtype == F32;
  for (int64_t i = 0; i < batch->rows * inference->targets; i++)
    inference->predictions[first + i] =
        single ? (double)((const float *)predictions)[i] : ((const double *)predictions)[i];
  return STATUS_OK;
}

enum status inference_run(struct inference *inference) {
  int size = inference->sampler.size;
  TRY(loader_start(inference->loader, 0, 0));
  for (int64_t step = 0; step < sampler_steps(&inference->sampler); step++) {
    struct batch *batch;
    TRY(loader_next(inference->loader, &batch, NULL));
    TRY(infer_batch(inference, batch));
    for (int rank = 0; rank < size; rank++)
      inference->rows_of_rank[rank] = sampler_shard_of(&inference->sampler, step, rank).rows;
    int64_t first = sampler_shard_of(&inference->sampler, step, 0).first;
    TRY(comm_gather_rows(inference->comm, NULL, inference->rows_of_rank, (size_t)inference->targets * sizeof(double),
                         inference->predictions + first * inference->targets));
  }
  loader_stop(inference->loader);
  return STATUS_OK;
}

void inference_errors(const struct inference *inference, double *mae, double *mse) {
  int64_t count = inference->rows * inference->targets;
  double absolute = 0, squared = 0;
  for (int64_t i = 0; i < count; i++) {
    double error = inference->predictions[i] - inference->labels[i];
    absolute += fabs(error);
    squared += error * error;
  }
  *mae = absolute / (double)count;
  *mse = squared / (double)count;
}
