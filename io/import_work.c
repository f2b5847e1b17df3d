/* One image at a time: read, decode, resize, encode. */
#include "io/import_work.h"

#include "dist/memory.h"
#include "io/image.h"
#include "io/import_internal.h"
#include "io/transform.h"

#include <zlib.h>

struct import_worker {
  const struct import_images_options *options; /* borrowed */
  struct image_decoder *decoder;
  struct transform_worker *transform; /* NULL unless pixels are made */
  struct import_blob blob;
  uint8_t *resized; /* [height, width, 3], NULL unless pixels are made */
};

static enum status create_transform(struct import_worker *worker) {
  struct transform transform = {
      .height = worker->options->height, .width = worker->options->width, .set = TRANSFORM_PLAIN};
  TRY(transform_check(&transform));
  TRY(transform_create(&transform, &worker->transform));
  return memory_alloc((size_t)transform.height * (size_t)transform.width * 3, (void **)&worker->resized);
}

enum status import_worker_create(const struct import_images_options *options, struct import_worker **out) {
  struct import_worker *worker = NULL;
  *out = NULL;
  TRY(memory_alloc_zero(sizeof *worker, (void **)&worker));
  worker->options = options;
  enum status status = image_decoder_create(&worker->decoder);
  if (status == STATUS_OK && options->layout == IMPORT_PIXELS)
    status = create_transform(worker);
  if (status == STATUS_OK)
    *out = worker;
  else
    import_worker_destroy(&worker);
  return status;
}

void import_worker_destroy(struct import_worker **worker) {
  if (*worker == NULL)
    return;
  memory_free((void **)&(*worker)->resized);
  import_blob_free(&(*worker)->blob);
  transform_destroy(&(*worker)->transform);
  image_decoder_destroy(&(*worker)->decoder);
  memory_free((void **)worker);
}

/* The pixels of the blob, at full size. */
static enum status decode(struct import_worker *worker, const struct import_source *source, struct image *image) {
  if (source->kind != SOURCE_PIXELS)
    return image_decode(worker->decoder, worker->blob.bytes, worker->blob.count, 0, 0, image);
  *image = (struct image){.height = source->height, .width = source->width, .pixels = worker->blob.bytes};
  return STATUS_OK;
}

/* Pixels become a JPEG. */
static enum status encode(struct import_worker *worker, const struct import_source *source, const uint8_t **bytes,
                          size_t *count) {
  struct image image;
  int quality = worker->options->quality > 0 ? worker->options->quality : IMPORT_DEFAULT_QUALITY;
  TRY(decode(worker, source, &image));
  return image_encode_jpeg(worker->decoder, &image, quality, bytes, count);
}

static uint32_t checksum(const uint8_t *bytes, size_t count) {
  return (uint32_t)crc32_z(0, bytes, count);
}

/* What will be written, as long as it can be said now. */
static enum status measure(struct import_worker *worker, const struct import_source *source,
                           struct import_record *record) {
  const struct import_images_options *options = worker->options;
  record->length = record->bytes;
  record->crc = record->source_crc;
  if (options->layout == IMPORT_PIXELS) {
    record->length = (int64_t)options->height * options->width * 3;
    record->crc = 0;
  } else if (source->kind == SOURCE_PIXELS) {
    const uint8_t *bytes;
    size_t count;
    TRY(encode(worker, source, &bytes, &count));
    record->length = (int64_t)count;
    record->crc = checksum(bytes, count);
  }
  return STATUS_OK;
}

enum status import_worker_check(struct import_worker *worker, const struct import_source *source,
                                const struct import_rows *rows, int64_t row, struct import_record *record) {
  struct image_info info;
  struct image image;
  *record = (struct import_record){.format = -1, .state = RECORD_BROKEN};
  TRY(import_source_read(source, rows, row, &worker->blob));
  record->bytes = (int64_t)worker->blob.count;
  record->modified = worker->blob.modified;
  record->source_crc = checksum(worker->blob.bytes, worker->blob.count);
  if (source->kind != SOURCE_PIXELS) {
    TRY(image_inspect(worker->decoder, worker->blob.bytes, worker->blob.count, &info));
    record->format = (int32_t)info.format;
  }
  TRY(decode(worker, source, &image));
  record->height = image.height;
  record->width = image.width;
  TRY(measure(worker, source, record));
  record->state = RECORD_SOUND;
  return STATUS_OK;
}

static enum status changed(const struct import_rows *rows, int64_t row) {
  if (rows->path != NULL)
    return fail(ERR_FORMAT, "image %.300s changed while it was imported; import again", rows->path[row]);
  return fail(ERR_FORMAT, "the image of row %lld changed while it was imported; import again",
              (long long)rows->number[row]);
}

enum status import_worker_make(struct import_worker *worker, const struct import_source *source,
                               const struct import_rows *rows, int64_t row, const struct import_record *record,
                               const uint8_t **bytes) {
  struct image image;
  size_t count = 0;
  enum status status = import_source_read(source, rows, row, &worker->blob);
  if (status == ERR_FORMAT)
    return changed(rows, row);
  TRY(status);
  *bytes = worker->blob.bytes;
  if ((int64_t)worker->blob.count != record->bytes || checksum(*bytes, worker->blob.count) != record->source_crc)
    return changed(rows, row);
  if (worker->options->layout == IMPORT_PIXELS) {
    TRY(decode(worker, source, &image));
    TRY(transform_resize(worker->transform, &image, worker->resized));
    *bytes = worker->resized;
  } else if (source->kind == SOURCE_PIXELS) {
    TRY(encode(worker, source, bytes, &count));
    REQUIRE((int64_t)count == record->length && checksum(*bytes, count) == record->crc, ERR_BUG,
            "the JPEG of row %lld became another one", (long long)rows->number[row]);
  }
  return STATUS_OK;
}
