/* Two slots of device memory, and a stream that fills them. */
#include "launch/upload.h"

#include "dist/memory.h"

#define SLOTS 2

struct slot {
  struct batch batch; /* arrays in the device's memory                     */
  struct event *sent; /* behind the copies                                 */
  bool ahead;         /* holds the step below, which nobody has taken yet  */
  int64_t epoch, step;
};

struct upload {
  struct device *device; /* borrowed: must outlive this */
  struct upload_sizes sizes;
  struct stream *stream;
  struct device_images *images; /* NULL: batches are pixels or numbers */
  struct slot slots[SLOTS];
  int next; /* the slot that is taken, or filled, next */
};

static enum status make_slot(struct upload *upload, struct slot *slot) {
  const struct upload_sizes *sizes = &upload->sizes;
  size_t rows = (size_t)sizes->rows;
  TRY(device_alloc(upload->device, rows * sizes->input_bytes, &slot->batch.inputs));
  TRY(device_alloc(upload->device, rows * sizes->target_bytes, &slot->batch.targets));
  TRY(device_alloc(upload->device, rows * sizes->weight_bytes, &slot->batch.weights));
  TRY(device_alloc(upload->device, rows * sizeof *slot->batch.samples, (void **)&slot->batch.samples));
  return event_create(upload->device, &slot->sent);
}

enum status upload_create(struct device *device, const struct upload_sizes *sizes, struct upload **out) {
  struct upload *upload;
  enum status status;
  *out = NULL;
  TRY(memory_alloc_zero(sizeof *upload, (void **)&upload));
  upload->device = device;
  upload->sizes = *sizes;
  TRY_GOTO(stream_create(device, &upload->stream), failed);
  for (int i = 0; i < SLOTS && device != NULL; i++)
    TRY_GOTO(make_slot(upload, &upload->slots[i]), failed);
  if (sizes->images.samples > 0)
    TRY_GOTO(device_images_create(device, &sizes->images, &upload->images), failed);
  *out = upload;
  return STATUS_OK;
failed:
  upload_destroy(&upload);
  return status;
}

void upload_destroy(struct upload **upload) {
  struct upload *own = *upload;
  if (own == NULL)
    return;
  stream_wait(own->stream);
  for (int i = 0; i < SLOTS; i++) {
    struct batch *batch = &own->slots[i].batch;
    event_destroy(&own->slots[i].sent);
    device_free(own->device, (void **)&batch->samples);
    device_free(own->device, &batch->weights);
    device_free(own->device, &batch->targets);
    device_free(own->device, &batch->inputs);
  }
  device_images_destroy(&own->images);
  stream_destroy(&own->stream);
  memory_free((void **)upload);
}

static enum status send_inputs(struct upload *upload, const struct batch *batch, struct slot *slot) {
  REQUIRE(batch->records == NULL || upload->images != NULL, ERR_BUG, "a batch of records was not expected");
  if (batch->records != NULL)
    return device_images_make(upload->images, upload->stream, batch, slot->batch.inputs);
  return stream_copy(upload->stream, slot->batch.inputs, batch->inputs,
                     (size_t)(batch->rows * batch->views) * upload->sizes.input_bytes);
}

static enum status send(struct upload *upload, const struct batch *batch, struct slot *slot) {
  const struct upload_sizes *sizes = &upload->sizes;
  size_t rows = (size_t)(batch->rows * batch->views);
  REQUIRE((int64_t)rows <= sizes->rows, ERR_BUG, "a batch of %zu rows does not fit the %lld that were expected", rows,
          (long long)sizes->rows);
  TRY(send_inputs(upload, batch, slot));
  TRY(stream_copy(upload->stream, slot->batch.targets, batch->targets, rows * sizes->target_bytes));
  TRY(stream_copy(upload->stream, slot->batch.weights, batch->weights, rows * sizes->weight_bytes));
  TRY(stream_copy(upload->stream, slot->batch.samples, batch->samples, rows * sizeof *batch->samples));
  return event_record(slot->sent, upload->stream);
}

enum status upload_ahead(struct upload *upload, const struct batch *batch) {
  if (upload->device == NULL || batch == NULL)
    return STATUS_OK;
  struct slot *slot = &upload->slots[upload->next];
  slot->ahead = true;
  slot->epoch = batch->epoch;
  slot->step = batch->step;
  return send(upload, batch, slot);
}

enum status upload_take(struct upload *upload, const struct batch *batch, struct batch *there) {
  *there = *batch;
  if (upload->device == NULL)
    return STATUS_OK;
  struct slot *slot = &upload->slots[upload->next];
  if (!slot->ahead || slot->epoch != batch->epoch || slot->step != batch->step)
    TRY(send(upload, batch, slot));
  slot->ahead = false;
  upload->next = (upload->next + 1) % SLOTS;
  /* The main stream waits for the copies, the host does not. */
  TRY(stream_wait_event(device_main(upload->device), slot->sent));
  there->inputs = slot->batch.inputs;
  there->targets = slot->batch.targets;
  there->weights = slot->batch.weights;
  there->samples = slot->batch.samples;
  return STATUS_OK;
}

enum status upload_release(struct upload *upload) {
  if (upload->device == NULL)
    return STATUS_OK;
  return event_wait(upload->slots[(upload->next + SLOTS - 1) % SLOTS].sent);
}

struct device_images_counts upload_images(const struct upload *upload) {
  return upload->images != NULL ? device_images_counts(upload->images) : (struct device_images_counts){0};
}
