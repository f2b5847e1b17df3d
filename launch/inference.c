/* A sharded pass over a split. */
#include "launch/inference.h"

#include "dist/memory.h"

#include <math.h>
#include <string.h>

/* What batches need to go through the network and back. */
static enum status prepare_passes(struct inference *inference) {
  const struct ops *ops = net_ops(inference->net);
  struct net_input input = net_input(inference->net);
  size_t element = dtype_size(ops->parameter_dtype);
  struct upload_sizes sizes = {.rows = sampler_most_rows(&inference->sampler),
                               .input_bytes = (size_t)net_input_width(inference->net) * (input.pixels ? 1 : element),
                               .target_bytes = (size_t)inference->targets * element,
                               .weight_bytes = element};
  TRY(upload_create(ops->device, &sizes, &inference->upload));
  return device_alloc_pinned(ops->device, (size_t)sizes.rows * sizes.target_bytes, &inference->batch_predictions);
}

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
  TRY_GOTO(prepare_passes(inference), failed);
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
  device_free_pinned(net_ops((*inference)->net)->device, &(*inference)->batch_predictions);
  upload_destroy(&(*inference)->upload);
  loader_destroy(&(*inference)->loader);
  memory_free((void **)&(*inference)->rows_of_rank);
  memory_free((void **)&(*inference)->labels);
  memory_free((void **)&(*inference)->predictions);
  memory_free((void **)inference);
}

/* One pass over this rank's part of a step; its predictions go to their place. */
static enum status infer_batch(struct inference *inference, const struct batch *batch) {
  const struct ops *ops = net_ops(inference->net);
  struct pass pass = {.training = false, .views = 1};
  struct batch there;
  int64_t first = sampler_shard(&inference->sampler, batch->step).first * inference->targets;
  int64_t count = batch->rows * inference->targets;
  TRY(upload_take(inference->upload, batch, &there));
  TRY(net_forward(inference->net, there.inputs, batch->rows, &pass));
  TRY(device_copy(ops->device, inference->batch_predictions, net_predictions(inference->net),
                  (size_t)count * dtype_size(ops->parameter_dtype)));
  TRY(device_wait(ops->device)); /* the predictions are wanted */
  for (int64_t i = 0; i < count; i++)
    inference->predictions[first + i] = ops->parameter_dtype == F32
                                            ? (double)((const float *)inference->batch_predictions)[i]
                                            : ((const double *)inference->batch_predictions)[i];
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
