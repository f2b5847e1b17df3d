/* What the device decodes, and what the host does instead. */
#include "io/device_images.h"

#include "dist/memory.h"
#include "io/device_images_ops.h"

#include <string.h>

struct device_images {
  const struct device_images_ops *ops;
  struct jpeg_device *jpegs;
  size_t view_bytes;
  bool *refused; /* [samples] of a batch */
  struct device_images_counts counts;
};

enum status device_images_create(struct device *device, const struct device_images_options *options,
                                 struct device_images **out) {
  struct device_images *images;
  enum status status;
  *out = NULL;
  REQUIRE(device != NULL, ERR_DEVICE, "the host decodes by itself: nvJPEG takes a GPU");
  TRY(memory_alloc_zero(sizeof *images, (void **)&images));
  images->view_bytes = (size_t)options->height * (size_t)options->width * 3;
  TRY_GOTO(device_symbol(device, DEVICE_IMAGES_OPS_SYMBOL, (void **)&images->ops), failed);
  TRY_GOTO(memory_alloc((size_t)options->samples * sizeof *images->refused, (void **)&images->refused), failed);
  TRY_GOTO(images->ops->create(device, options, &images->jpegs), failed);
  *out = images;
  return STATUS_OK;
failed:
  device_images_destroy(&images);
  return status;
}

void device_images_destroy(struct device_images **images) {
  struct device_images *own = *images;
  if (own == NULL)
    return;
  if (own->jpegs != NULL)
    own->ops->destroy(&own->jpegs);
  memory_free((void **)&own->refused);
  memory_free((void **)images);
}

/* The pixels of samples first to end - 1, which the host has made, to the device. */
static enum status copy_samples(const struct device_images *images, struct stream *stream, const struct batch *batch,
                                int64_t first, int64_t end, void *inputs) {
  for (int64_t view = 0; view < batch->views; view++) {
    size_t place = (size_t)(view * batch->rows + first) * images->view_bytes;
    TRY(stream_copy(stream, (char *)inputs + place, (const char *)batch->inputs + place,
                    (size_t)(end - first) * images->view_bytes));
  }
  return STATUS_OK;
}

/* Those that the loader has decoded, in runs. */
static enum status copy_decoded(struct device_images *images, struct stream *stream, const struct batch *batch,
                                void *inputs) {
  for (int64_t row = 0; row < batch->rows; row++) {
    int64_t first = row;
    while (row < batch->rows && batch->records[row].decoded)
      row++;
    if (row > first)
      TRY(copy_samples(images, stream, batch, first, row, inputs));
    images->counts.host += row - first;
  }
  return STATUS_OK;
}

enum status device_images_make(struct device_images *images, struct stream *stream, const struct batch *batch,
                               void *inputs) {
  memset(images->refused, 0, (size_t)batch->rows * sizeof *images->refused);
  TRY(copy_decoded(images, stream, batch, inputs));
  TRY(images->ops->make(images->jpegs, stream, batch, inputs, images->refused));
  for (int64_t row = 0; row < batch->rows; row++) {
    if (!images->refused[row])
      continue;
    TRY(batch_decode(batch, row));
    TRY(copy_samples(images, stream, batch, row, row + 1, inputs));
    images->counts.host++;
  }
  images->counts.samples += batch->rows;
  return STATUS_OK;
}

struct device_images_counts device_images_counts(const struct device_images *images) {
  return images->counts;
}
