/* A sharded pass over a split. */
#include "launch/inference.h"

#include "dist/host_copy.h"
#include "dist/memory.h"

#include <math.h>
#include <string.h>

#define PREDICTIONS "gather of predictions"

static struct device *device_of(const struct inference *inference) {
  return net_ops(inference->net)->device;
}

static enum dtype dtype_of(const struct inference *inference) {
  return net_ops(inference->net)->parameter_dtype;
}

static bool has_answers(const struct inference *inference) {
  return inference->head.kind != HEAD_VALUES;
}

/* The bytes of a row of predictions, and of one of outputs. */
static size_t row_bytes(const struct inference *inference) {
  return (size_t)inference->targets * dtype_size(dtype_of(inference));
}

static size_t output_bytes(const struct inference *inference) {
  return (size_t)head_outputs(&inference->head) * dtype_size(dtype_of(inference));
}

static enum status allocate_predictions(struct inference *inference) {
  size_t count = (size_t)(inference->rows * inference->targets);
  TRY(memory_alloc(count * sizeof(double), (void **)&inference->predictions));
  return head_spreads(&inference->head) ? memory_alloc(count * sizeof(double), (void **)&inference->spread) : STATUS_OK;
}

static enum status allocate_there(struct inference *inference) {
  struct device *device = device_of(inference);
  size_t rows = (size_t)inference->rows;
  TRY(loss_ops_open(device, &inference->losses));
  TRY(device_alloc(device, rows * row_bytes(inference) + 1, &inference->there));
  if (!has_answers(inference))
    return STATUS_OK;
  TRY(device_alloc(device, rows * output_bytes(inference) + 1, &inference->outputs_there));
  return device_alloc(device, rows * row_bytes(inference) + 1, &inference->spread_there);
}

/* What batches need to go through the network, and where the predictions are gathered. */
static enum status prepare_passes(struct inference *inference) {
  const struct ops *ops = net_ops(inference->net);
  struct net_input input = net_input(inference->net);
  size_t size = dtype_size(ops->parameter_dtype);
  struct upload_sizes sizes = {.rows = sampler_most_rows(&inference->sampler),
                               .input_bytes = (size_t)net_input_width(inference->net) * (input.pixels ? 1 : size),
                               .target_bytes = (size_t)inference->targets * size,
                               .weight_bytes = size};
  inference->input_bytes = sizes.input_bytes;
  TRY(upload_create(ops->device, &sizes, &inference->upload));
  if (inference->sampler.shards > 0)
    TRY(memory_alloc((size_t)sampler_most_shard_rows(&inference->sampler) * sizes.input_bytes,
                     &inference->shard_inputs));
  if (ops->device != NULL)
    return allocate_there(inference);
  if (has_answers(inference))
    TRY(memory_alloc((size_t)inference->rows * (size_t)head_outputs(&inference->head) * sizeof(double),
                     (void **)&inference->outputs));
  return allocate_predictions(inference);
}

enum status inference_create(const struct inference_parts *parts, struct inference **out) {
  struct dataset *dataset = parts->dataset;
  struct comm *comm = parts->comm;
  enum split split = parts->split;
  *out = NULL;
  struct inference *inference = NULL;
  enum status status;
  TRY_GOTO(memory_alloc_zero(sizeof *inference, (void **)&inference), failed);
  inference->comm = comm;
  inference->data = parts->data;
  inference->dataset = dataset;
  inference->net = parts->net;
  inference->head = parts->head;
  inference->vote = parts->vote;
  inference->split = split;
  inference->rows = dataset_split_rows(dataset, split);
  inference->targets = inference->head.targets = dataset_targets(dataset);
  inference->sampler = (struct sampler){.rows = inference->rows,
                                        .batch = parts->batch,
                                        .rank = comm_rank(comm),
                                        .size = comm_size(comm),
                                        .shards = parts->shards};
  size_t values = (size_t)inference->rows * (size_t)inference->targets;
  TRY_GOTO(memory_alloc(values * sizeof(double), (void **)&inference->labels), failed);
  TRY_GOTO(memory_alloc((size_t)comm_size(comm) * sizeof(int64_t), (void **)&inference->rows_of_rank), failed);
  TRY_GOTO(loader_create(dataset, split, &inference->sampler, &parts->options, &inference->loader), failed);
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
  struct inference *own = *inference;
  if (own == NULL)
    return;
  if (own->metrics_there != NULL)
    own->losses->metrics_destroy(&own->metrics_there);
  void **const there[] = {&own->there, &own->spread_there, &own->outputs_there, &own->labels_there};
  for (size_t i = 0; i < sizeof there / sizeof *there; i++)
    device_free(device_of(own), there[i]);
  upload_destroy(&own->upload);
  loader_destroy(&own->loader);
  memory_free(&own->shard_inputs);
  memory_free((void **)&own->rows_of_rank);
  memory_free((void **)&own->labels);
  memory_free((void **)&own->outputs);
  memory_free((void **)&own->spread);
  memory_free((void **)&own->predictions);
  memory_free((void **)inference);
}

enum status inference_measure(struct inference *inference, const struct metrics *metrics) {
  REQUIRE(inference->metrics == NULL, ERR_BUG, "an inference is to be measured in two ways");
  if (inference->losses != NULL)
    TRY(inference->losses->metrics_create(device_of(inference), metrics, inference->rows, inference->labels,
                                          &inference->metrics_there));
  inference->metrics = metrics;
  return STATUS_OK;
}

/* ---- passes -------------------------------------------------------------------------------- */

/* Where the outputs of row `first` have their place: those of all rows, on the host in double. */
static void *place_of(const struct inference *inference, int64_t first) {
  if (inference->there != NULL) {
    void *all = has_answers(inference) ? inference->outputs_there : inference->there;
    return (char *)all + (size_t)first * output_bytes(inference);
  }
  double *all = has_answers(inference) ? inference->outputs : inference->predictions;
  return all + first * head_outputs(&inference->head);
}

/* Outputs of the last pass go there. */
static enum status place_outputs(struct inference *inference, int64_t first, int64_t rows) {
  const void *from = net_predictions(inference->net);
  double *to = place_of(inference, first);
  if (inference->there != NULL)
    return device_copy(device_of(inference), to, from, (size_t)rows * output_bytes(inference));
  for (int64_t i = 0; i < rows * head_outputs(&inference->head); i++)
    to[i] = dtype_get(dtype_of(inference), from, i);
  return STATUS_OK;
}

/* Those of all ranks, which lie side by side. */
static enum status gather_step(struct inference *inference, int64_t step) {
  for (int rank = 0; rank < inference->sampler.size; rank++)
    inference->rows_of_rank[rank] = sampler_shard_of(&inference->sampler, step, rank).rows;
  void *to = place_of(inference, sampler_shard_of(&inference->sampler, step, 0).first);
  if (inference->there != NULL)
    return comm_gather_rows(comm_for(inference->data, PREDICTIONS), NULL, inference->rows_of_rank,
                            output_bytes(inference), to);
  return comm_gather_rows(comm_for(inference->comm, PREDICTIONS), NULL, inference->rows_of_rank,
                          (size_t)head_outputs(&inference->head) * sizeof(double), to);
}

static enum status show_features(struct inference *inference, int64_t first, int64_t rows) {
  struct host_copy copy = {0};
  enum status status;
  size_t bytes = (size_t)(rows * net_feature_width(inference->net)) * dtype_size(net_ops(inference->net)->dtype);
  if (inference->watcher.features == NULL || rows == 0)
    return STATUS_OK;
  TRY_GOTO(host_copy_create(device_of(inference), (void *)net_features(inference->net), bytes, &copy), out);
  TRY_GOTO(host_copy_fetch(&copy), out);
  status = inference->watcher.features(inference->watcher.context, first, rows, copy.data);
out:
  host_copy_destroy(&copy);
  return status;
}

/* Row `row` of a batch's inputs, of a shard in memory of its own: where they lie beside others must not decide how
 * they are computed. */
static const void *inputs_of(struct inference *inference, const struct batch *there, int64_t row, int64_t rows) {
  size_t bytes = inference->input_bytes;
  const char *from = (const char *)there->inputs + (size_t)row * bytes;
  if (inference->shard_inputs == NULL)
    return from;
  memcpy(inference->shard_inputs, from, (size_t)rows * bytes);
  return inference->shard_inputs;
}

/* This rank's part of a step, a pass for each shard: queued, on a GPU. */
static enum status infer_batch(struct inference *inference, const struct batch *batch) {
  const struct sampler *sampler = &inference->sampler;
  struct pass pass = {.training = false, .views = 1};
  int64_t begin = sampler_shard(sampler, batch->step).first;
  struct batch there;
  TRY(upload_take(inference->upload, batch, &there));
  for (int i = sampler_first_shard(sampler, sampler->rank); i < sampler_first_shard(sampler, sampler->rank + 1); i++) {
    struct shard shard = sampler_virtual_shard(sampler, batch->step, i);
    const void *inputs = inputs_of(inference, &there, shard.first - begin, shard.rows);
    TRY(net_forward(inference->net, inputs, shard.rows, &pass));
    TRY(place_outputs(inference, shard.first, shard.rows));
    TRY(show_features(inference, shard.first, shard.rows));
  }
  return gather_step(inference, batch->step);
}

/* *batch becomes the next one, NULL after the last: it is read, and sent ahead, while the device works on this one. */
static enum status run_step(struct inference *inference, struct batch **batch) {
  TRY(infer_batch(inference, *batch));
  TRY(upload_release(inference->upload)); /* before the loader fills its memory with another batch */
  TRY(loader_next(inference->loader, batch, NULL));
  TRY(upload_ahead(inference->upload, *batch));
  return comm_device_wait(inference->data); /* then the batch after that one may be sent */
}

/* ---- answers ------------------------------------------------------------------------------- */

static enum status send_labels(struct inference *inference) {
  struct host_copy copy = {0};
  size_t bytes = (size_t)inference->rows * row_bytes(inference);
  enum status status;
  TRY(device_alloc(device_of(inference), bytes + 1, &inference->labels_there));
  TRY_GOTO(host_copy_create(device_of(inference), inference->labels_there, bytes, &copy), out);
  for (int64_t i = 0; i < inference->rows * inference->targets; i++)
    dtype_put(dtype_of(inference), copy.data, i, inference->labels[i]);
  status = host_copy_store(&copy);
out:
  host_copy_destroy(&copy);
  return status;
}

/* To the outputs of all rows, on every rank. */
static enum status answer(struct inference *inference) {
  if (!has_answers(inference))
    return STATUS_OK;
  if (inference->there == NULL)
    return head_answer(&inference->head, NULL, inference->vote, F64, inference->rows, inference->outputs,
                       inference->labels, inference->predictions, inference->spread);
  if (inference->vote == UVOTE_ORACLE && inference->labels_there == NULL)
    TRY(send_labels(inference));
  return head_answer(&inference->head, inference->losses, inference->vote, dtype_of(inference), inference->rows,
                     inference->outputs_there, inference->labels_there, inference->there, inference->spread_there);
}

void inference_watch(struct inference *inference, const struct inference_watcher *watcher) {
  inference->watcher = *watcher;
}

enum status inference_vote(struct inference *inference, enum uvote_vote vote) {
  inference->vote = vote;
  return answer(inference);
}

enum status inference_run(struct inference *inference) {
  struct batch *batch;
  TRY(loader_start(inference->loader, 0, 0));
  TRY(loader_next(inference->loader, &batch, NULL));
  while (batch != NULL)
    TRY(run_step(inference, &batch));
  loader_stop(inference->loader);
  return answer(inference);
}

/* ---- figures ------------------------------------------------------------------------------- */

static enum status compute_table(struct inference *inference, struct metrics_table *table) {
  REQUIRE(inference->metrics != NULL, ERR_BUG, "nobody said how an inference is to be measured");
  if (inference->losses != NULL)
    return inference->losses->metrics_compute(inference->metrics_there, dtype_of(inference), inference->there, table);
  return metrics_compute(inference->metrics, F64, inference->rows, inference->labels, inference->predictions, table);
}

enum status inference_table(struct inference *inference, struct metrics_table *table) {
  TRY(comm_agree(inference->comm, compute_table(inference, table)));
  /* Ranks may have GPUs of several kinds, whose logarithms differ in the last place. */
  return comm_broadcast(inference->comm, table, sizeof *table, 0);
}

/* On the host: its table takes sorting that nobody asked for here. */
static enum status errors_on_host(const struct inference *inference, double *mae, double *mse) {
  int64_t count = inference->rows * inference->targets;
  double absolute = 0, squared = 0;
  for (int64_t i = 0; i < count; i++) {
    double error = inference->predictions[i] - inference->labels[i];
    absolute += fabs(error);
    squared += error * error;
  }
  *mae = absolute / (double)count;
  *mse = squared / (double)count;
  REQUIRE(isfinite(*mae) && isfinite(*mse), ERR_NUMERIC, "a prediction is not finite");
  return STATUS_OK;
}

enum status inference_errors(struct inference *inference, double *mae, double *mse) {
  struct metrics_table table;
  if (inference->losses == NULL) /* the predictions are gathered: all ranks see the same */
    return errors_on_host(inference, mae, mse);
  TRY(inference_table(inference, &table));
  *mae = table.row[METRICS_ALL].mae;
  *mse = table.row[METRICS_ALL].mse;
  return STATUS_OK;
}

/* All rows of an array of the device, as doubles. */
static enum status fetch_rows(struct inference *inference, void *there, double *values) {
  struct host_copy copy = {0};
  enum status status;
  TRY_GOTO(host_copy_create(device_of(inference), there, (size_t)inference->rows * row_bytes(inference), &copy), out);
  TRY_GOTO(host_copy_fetch(&copy), out);
  for (int64_t i = 0; i < inference->rows * inference->targets; i++)
    values[i] = dtype_get(dtype_of(inference), copy.data, i);
out:
  host_copy_destroy(&copy);
  return status;
}

enum status inference_fetch(struct inference *inference) {
  if (inference->there == NULL)
    return STATUS_OK;
  if (inference->predictions == NULL)
    TRY(allocate_predictions(inference));
  TRY(fetch_rows(inference, inference->there, inference->predictions));
  return has_answers(inference) ? fetch_rows(inference, inference->spread_there, inference->spread) : STATUS_OK;
}
