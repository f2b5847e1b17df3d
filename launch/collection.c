/* The training samples once more, for the statistics of their features. */
#include "launch/collection.h"

#include "dist/comm_device.h"
#include "dist/memory.h"
#include "launch/gradients.h"
#include "launch/signals.h"
#include "launch/upload.h"

#include <string.h>

/* Added to the number of an epoch, so that its samples are drawn anew; epochs of training lie below. */
#define SECOND_DRAW ((int64_t)1 << 39)

struct collection {
  struct collection_parts parts;
  struct device *device; /* of the net */
  struct loader *loader;
  struct upload *upload;
  int64_t piece_rows;   /* most samples of a rank in a pass                         */
  size_t input_bytes;   /* of a row                                                 */
  size_t feature_bytes; /* likewise                                                 */
  void *features;       /* [piece_rows, features], pinned; NULL on the host         */
  int64_t *epoch;       /* of the draws, in the memory of the net                   */
  void *buffers;        /* the net's running statistics before the pass             */
  size_t buffers_bytes;
  /* Of virtual shards, on the host; else NULL. */
  void *shard_inputs; /* [piece_rows, ...]: where rows lie must not decide how they are computed          */
  void *all_features,
      *all_labels;    /* [rows of a global batch, features], [..]                                         */
  double *statistics; /* [shards, net_statistics()]                                                        */
  int64_t *of_rank;   /* [ranks] rows, then shards, of a batch                                             */
  struct comm *alone; /* owned: of this rank                                                               */
};

/* --- life --------------------------------------------------------------------------------------------------- */

static enum status make_shards(struct collection *own) {
  const struct sampler *sampler = own->parts.sampler;
  size_t rows = (size_t)sampler_batch_rows(sampler, 0), statistics = net_statistics(own->parts.net);
  if (sampler->shards == 0)
    return STATUS_OK;
  TRY(memory_alloc((size_t)own->piece_rows * own->input_bytes, &own->shard_inputs));
  TRY(memory_alloc(rows * own->feature_bytes, &own->all_features));
  TRY(memory_alloc(rows * dtype_size(net_ops(own->parts.net)->parameter_dtype), &own->all_labels));
  TRY(memory_alloc((size_t)sampler->shards * statistics * sizeof(double), (void **)&own->statistics));
  TRY(memory_alloc(2 * (size_t)sampler->size * sizeof *own->of_rank, (void **)&own->of_rank));
  return comm_create(MPI_COMM_SELF, &own->alone);
}

static enum status make_all(struct collection *own) {
  const struct collection_parts *parts = &own->parts;
  const struct ops *ops = net_ops(parts->net);
  struct loader_options options = *parts->loader;
  size_t parameter = dtype_size(ops->parameter_dtype);
  struct upload_sizes sizes = {.rows = sampler_most_rows(parts->sampler),
                               .input_bytes = own->input_bytes,
                               .target_bytes = parameter,
                               .weight_bytes = parameter};
  options.views = 1;
  options.records = false; /* the host decodes */
  TRY(loader_create(parts->dataset, SPLIT_TRAIN, parts->sampler, &options, &own->loader));
  TRY(upload_create(own->device, &sizes, &own->upload));
  TRY(make_shards(own));
  TRY(device_alloc(own->device, own->buffers_bytes, &own->buffers));
  TRY(device_alloc(own->device, sizeof *own->epoch, (void **)&own->epoch));
  if (own->device == NULL)
    return STATUS_OK;
  return device_alloc_pinned(own->device, (size_t)own->piece_rows * own->feature_bytes, &own->features);
}

enum status collection_create(const struct collection_parts *parts, struct collection **out) {
  const struct ops *ops = net_ops(parts->net);
  struct collection *own;
  enum status status;
  *out = NULL;
  TRY(memory_alloc_zero(sizeof *own, (void **)&own));
  own->parts = *parts;
  own->device = ops->device;
  own->piece_rows = gradients_capacity(parts->sampler, 1, parts->micro_batch);
  own->input_bytes = (size_t)net_input_width(parts->net) * (net_input(parts->net).pixels ? 1 : dtype_size(ops->dtype));
  own->feature_bytes = (size_t)net_feature_width(parts->net) * dtype_size(ops->dtype);
  own->buffers_bytes = net_buffers(parts->net).elements * dtype_size(ops->parameter_dtype);
  TRY_GOTO(make_all(own), failed);
  *out = own;
  return STATUS_OK;
failed:
  collection_destroy(&own);
  return status;
}

void collection_destroy(struct collection **collection) {
  struct collection *own = *collection;
  if (own == NULL)
    return;
  comm_destroy(&own->alone);
  memory_free((void **)&own->of_rank);
  memory_free((void **)&own->statistics);
  memory_free(&own->all_labels);
  memory_free(&own->all_features);
  memory_free(&own->shard_inputs);
  device_free_pinned(own->device, &own->features);
  device_free(own->device, (void **)&own->epoch);
  device_free(own->device, &own->buffers);
  upload_destroy(&own->upload);
  loader_destroy(&own->loader);
  memory_free((void **)collection);
}

/* --- a batch ------------------------------------------------------------------------------------------------ */

/* The same on all ranks: batch norm meets in every pass. */
static int64_t count_pieces(const struct collection *own, const struct batch *batch) {
  int64_t most = 1;
  for (int rank = 0; rank < own->parts.sampler->size; rank++) {
    int64_t rows = sampler_shard_of(own->parts.sampler, batch->step, rank).rows;
    most = rows > most ? rows : most;
  }
  return own->piece_rows > 0 ? (most + own->piece_rows - 1) / own->piece_rows : 1;
}

/* The features of the pass before, in host memory: smoothed where the published code leaves them so. */
static enum status fetch(const struct collection *own, int64_t rows, const void **out) {
  bool in_place = fds_options_of(smoother_fds(own->parts.smoother))->in_place;
  const void *features = in_place ? net_smoothed_features(own->parts.net) : net_features(own->parts.net);
  *out = own->device != NULL ? own->features : features;
  if (own->device == NULL)
    return STATUS_OK;
  TRY(device_copy(own->device, own->features, features, (size_t)rows * own->feature_bytes));
  return comm_device_wait(own->parts.session->data); /* they are counted here */
}

/* The rows' inputs, of a shard in memory of its own. */
static const void *inputs_of(struct collection *own, const struct batch *there, int64_t first, int64_t rows) {
  const char *inputs = (const char *)there->inputs + (size_t)first * own->input_bytes;
  if (own->shard_inputs == NULL)
    return inputs;
  memcpy(own->shard_inputs, inputs, (size_t)rows * own->input_bytes);
  return own->shard_inputs;
}

/* there: the batch in the memory of the net; rows first .. first + rows - 1 of this rank go forward. */
static enum status pass_rows(struct collection *own, const struct batch *there, int64_t first, int64_t rows,
                             const void **features) {
  const struct smoothing *whole = own->parts.evaluation ? NULL : smoother_rows(own->parts.smoother);
  struct smoothing own_rows = whole != NULL ? *whole : (struct smoothing){0};
  struct pass pass = {.training = !own->parts.evaluation,
                      .seed = own->parts.seed,
                      .epoch = own->epoch,
                      .samples = there->samples + first,
                      .views = 1,
                      .smoothing = whole != NULL ? &own_rows : NULL};
  if (whole != NULL)
    own_rows.bucket += first;
  TRY(net_forward(own->parts.net, inputs_of(own, there, first, rows), rows, &pass));
  return fetch(own, rows, features);
}

static enum status count_rows(struct collection *own, int64_t rows, const void *features, const void *labels) {
  const struct ops *ops = net_ops(own->parts.net);
  return fds_collect(smoother_fds(own->parts.smoother), ops->dtype, rows, features, ops->parameter_dtype, labels);
}

/* Each rank counts its own rows. */
static enum status collect_pieces(struct collection *own, const struct batch *batch, const struct batch *there) {
  size_t label_bytes = dtype_size(net_ops(own->parts.net)->parameter_dtype);
  int64_t pieces = count_pieces(own, batch);
  for (int64_t i = 0; i < pieces; i++) {
    int64_t first = batch->rows * i / pieces, end = batch->rows * (i + 1) / pieces;
    const void *features;
    TRY(pass_rows(own, there, first, end - first, &features));
    TRY(count_rows(own, end - first, features, (const char *)batch->targets + (size_t)first * label_bytes));
  }
  return own->parts.evaluation ? STATUS_OK : net_update_statistics(own->parts.net, own->parts.session->data);
}

/* --- virtual shards ----------------------------------------------------------------------------------------- */

/* All ranks take the step of the sum over shards, in their order. */
static enum status step_statistics(struct collection *own) {
  const struct sampler *sampler = own->parts.sampler;
  size_t width = net_statistics(own->parts.net);
  if (own->parts.evaluation || width == 0)
    return STATUS_OK;
  for (int rank = 0; rank < sampler->size; rank++)
    own->of_rank[rank] = sampler_first_shard(sampler, rank + 1) - sampler_first_shard(sampler, rank);
  TRY(comm_gather_rows(own->parts.session->comm, NULL, own->of_rank, width * sizeof(double), own->statistics));
  for (size_t shard = 1; shard < (size_t)sampler->shards; shard++)
    for (size_t i = 0; i < width; i++)
      own->statistics[i] += own->statistics[shard * width + i];
  return net_step_statistics(own->parts.net, own->statistics);
}

/* The rows of all ranks, in the order of the batch, are counted by every rank. */
static enum status count_all(struct collection *own, const struct batch *batch, int64_t before) {
  const struct sampler *sampler = own->parts.sampler;
  struct comm *comm = own->parts.session->comm;
  size_t label_bytes = dtype_size(net_ops(own->parts.net)->parameter_dtype);
  for (int rank = 0; rank < sampler->size; rank++)
    own->of_rank[rank] = sampler_shard_of(sampler, batch->step, rank).rows;
  memcpy((char *)own->all_labels + (size_t)before * label_bytes, batch->targets, (size_t)batch->rows * label_bytes);
  TRY(comm_gather_rows(comm, NULL, own->of_rank, label_bytes, own->all_labels));
  TRY(comm_gather_rows(comm, NULL, own->of_rank, own->feature_bytes, own->all_features));
  return count_rows(own, batch->rows_global, own->all_features, own->all_labels);
}

static enum status collect_shards(struct collection *own, const struct batch *batch, const struct batch *there) {
  const struct sampler *sampler = own->parts.sampler;
  int64_t begin = sampler_shard(sampler, batch->step).first,
          before = begin - sampler_shard_of(sampler, batch->step, 0).first;
  for (int i = sampler_first_shard(sampler, sampler->rank); i < sampler_first_shard(sampler, sampler->rank + 1); i++) {
    struct shard shard = sampler_virtual_shard(sampler, batch->step, i);
    int64_t first = shard.first - begin;
    const void *features;
    TRY(pass_rows(own, there, first, shard.rows, &features));
    memcpy((char *)own->all_features + (size_t)(before + first) * own->feature_bytes, features,
           (size_t)shard.rows * own->feature_bytes);
    if (!own->parts.evaluation)
      TRY(net_take_statistics(own->parts.net, own->statistics + (size_t)i * net_statistics(own->parts.net)));
  }
  TRY(step_statistics(own));
  return count_all(own, batch, before);
}

/* --- a batch of either kind --------------------------------------------------------------------------------- */

static enum status collect_batch(struct collection *own, int64_t epoch, const struct batch *batch) {
  struct batch there;
  TRY(device_copy(own->device, own->epoch, &batch->epoch, sizeof batch->epoch)); /* read before the call returns */
  TRY(upload_take(own->upload, batch, &there));
  TRY(smoother_begin(own->parts.smoother, epoch, batch));
  TRY(own->parts.sampler->shards > 0 ? collect_shards(own, batch, &there) : collect_pieces(own, batch, &there));
  return upload_release(own->upload);
}

/* --- an epoch ----------------------------------------------------------------------------------------------- */

/* Has any rank been asked? */
static enum status ask_to_stop(struct collection *own, bool *stopped) {
  double asked = signals_stop_asked();
  TRY(comm_sum(own->parts.session->comm, F64, &asked, 1));
  *stopped = asked > 0;
  return STATUS_OK;
}

static enum status collect_batches(struct collection *own, int64_t epoch, int64_t epochs, bool *stopped) {
  int64_t steps = sampler_steps(own->parts.sampler);
  struct batch *batch;
  TRY(loader_next(own->loader, &batch, NULL));
  while (batch != NULL) {
    TRY(ask_to_stop(own, stopped));
    if (*stopped)
      return STATUS_OK;
    TRY(collect_batch(own, epoch, batch));
    log_progress(&own->parts.session->log, false, "epoch %lld/%lld  collecting features: batch %lld/%lld",
                 (long long)epoch + 1, (long long)epochs, (long long)batch->step + 1, (long long)steps);
    TRY(loader_next(own->loader, &batch, NULL));
  }
  return STATUS_OK;
}

enum status collection_run(struct collection *own, int64_t epoch, int64_t epochs, bool *stopped) {
  struct fds *fds = smoother_fds(own->parts.smoother);
  void *running = net_buffers(own->parts.net).data;
  *stopped = false;
  TRY(device_copy(own->device, own->buffers, running, own->buffers_bytes));
  fds_restart(fds);
  TRY(loader_start(own->loader, epoch + SECOND_DRAW, 0));
  TRY(collect_batches(own, epoch, epochs, stopped));
  loader_stop(own->loader);
  if (*stopped)
    return device_copy(own->device, running, own->buffers, own->buffers_bytes);
  return fds_update(fds, own->alone != NULL ? own->alone : own->parts.session->comm, epoch);
}
