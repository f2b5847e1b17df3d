/* The training samples once more, for the statistics of their features. */
#include "launch/collection.h"

#include "dist/comm_device.h"
#include "dist/memory.h"
#include "launch/gradients.h"
#include "launch/signals.h"
#include "launch/upload.h"

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
};

/* --- life --------------------------------------------------------------------------------------------------- */

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

/* there: the batch in the memory of the net; rows first .. first + rows - 1 of this rank. */
static enum status collect_piece(struct collection *own, const struct batch *batch, const struct batch *there,
                                 int64_t first, int64_t rows) {
  const struct ops *ops = net_ops(own->parts.net);
  const struct smoothing *whole = own->parts.evaluation ? NULL : smoother_rows(own->parts.smoother);
  struct smoothing own_rows = whole != NULL ? *whole : (struct smoothing){0};
  struct pass pass = {.training = !own->parts.evaluation,
                      .seed = own->parts.seed,
                      .epoch = own->epoch,
                      .samples = there->samples + first,
                      .views = 1,
                      .smoothing = whole != NULL ? &own_rows : NULL};
  size_t label_bytes = dtype_size(ops->parameter_dtype);
  const void *features;
  if (whole != NULL)
    own_rows.bucket += first;
  TRY(net_forward(own->parts.net, (const char *)there->inputs + (size_t)first * own->input_bytes, rows, &pass));
  TRY(fetch(own, rows, &features));
  return fds_collect(smoother_fds(own->parts.smoother), ops->dtype, rows, features, ops->parameter_dtype,
                     (const char *)batch->targets + (size_t)first * label_bytes);
}

static enum status collect_batch(struct collection *own, int64_t epoch, const struct batch *batch) {
  struct batch there;
  int64_t pieces = count_pieces(own, batch);
  TRY(device_copy(own->device, own->epoch, &batch->epoch, sizeof batch->epoch)); /* read before the call returns */
  TRY(upload_take(own->upload, batch, &there));
  TRY(smoother_begin(own->parts.smoother, epoch, batch));
  for (int64_t i = 0; i < pieces; i++) {
    int64_t first = batch->rows * i / pieces, end = batch->rows * (i + 1) / pieces;
    TRY(collect_piece(own, batch, &there, first, end - first));
  }
  if (!own->parts.evaluation)
    TRY(net_update_statistics(own->parts.net, own->parts.session->data));
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
  return fds_update(fds, own->parts.session->comm, epoch);
}
