/* Read, decode, resize once; augment once a view. */
#include "io/image_worker.h"

#include "dist/memory.h"

#include <string.h>

struct image_worker {
  const struct dataset *dataset; /* borrowed: must outlive this            */
  struct image_cache *cache;     /* borrowed: must outlive this; or NULL   */
  struct transform transform;
  int least_height, least_width; /* of a decoded image; 0 = full size      */
  bool ready_made;               /* pixels are stored at the size wanted   */
  size_t bytes;                  /* of one result                          */
  struct image_reader *reader;
  struct image_decoder *decoder; /* of headers */
  struct transform_worker *transformer;
  uint8_t *resized; /* [height, width, 3] */
};

enum status image_worker_create(const struct dataset *dataset, const struct transform *transform,
                                struct image_cache *cache, bool no_decode_scaling, struct image_worker **out) {
  struct image_worker *worker = NULL;
  enum status status;
  *out = NULL;
  TRY(memory_alloc_zero(sizeof *worker, (void **)&worker));
  bool whole = no_decode_scaling || transform->set == TRANSFORM_STRONG;
  worker->dataset = dataset;
  worker->cache = cache;
  worker->transform = *transform;
  worker->least_height = whole ? 0 : transform->height;
  worker->least_width = whole ? 0 : transform->width;
  worker->ready_made = transform->set != TRANSFORM_STRONG && dataset_image_layout(dataset) == IMAGE_LAYOUT_PIXELS &&
                       dataset_image_height(dataset) == transform->height &&
                       dataset_image_width(dataset) == transform->width;
  worker->bytes = (size_t)transform->height * (size_t)transform->width * 3;
  TRY_GOTO(image_reader_create(&worker->reader), out);
  TRY_GOTO(image_decoder_create(&worker->decoder), out);
  TRY_GOTO(transform_create(transform, &worker->transformer), out);
  TRY_GOTO(memory_alloc(worker->bytes, (void **)&worker->resized), out);
  *out = worker;
  worker = NULL;
out:
  image_worker_destroy(&worker);
  return status;
}

void image_worker_destroy(struct image_worker **worker) {
  if (*worker == NULL)
    return;
  memory_free((void **)&(*worker)->resized);
  transform_destroy(&(*worker)->transformer);
  image_decoder_destroy(&(*worker)->decoder);
  image_reader_destroy(&(*worker)->reader);
  memory_free((void **)worker);
}

size_t image_worker_bytes(const struct image_worker *worker) {
  return worker->bytes;
}

/* The row at the size wanted, in `out`. */
static enum status resize_into(struct image_worker *worker, int64_t row, uint8_t *out) {
  struct image image;
  if (worker->ready_made)
    return dataset_image_copy(worker->dataset, row, 0, (int64_t)worker->bytes, out);
  TRY(dataset_image_read(worker->dataset, worker->reader, row, worker->least_height, worker->least_width, &image));
  return transform_resize(worker->transformer, &image, out);
}

/* The same from the cache, or into it; *resized is borrowed from there. */
static enum status resize_cached(struct image_worker *worker, int64_t row, const uint8_t **resized) {
  *resized = image_cache_find(worker->cache, row);
  if (*resized != NULL)
    return STATUS_OK;
  uint8_t *place = image_cache_claim(worker->cache, row);
  uint8_t *out = place != NULL ? place : worker->resized;
  enum status status = resize_into(worker, row, out);
  if (place != NULL && status == STATUS_OK)
    image_cache_publish(worker->cache, row);
  else if (place != NULL)
    image_cache_abandon(worker->cache, row);
  *resized = out;
  return status;
}

/* Views that are made from the decoded image itself. */
static enum status decoded_views(struct image_worker *worker, int64_t epoch, int64_t row, int views, size_t stride,
                                 uint8_t *out) {
  struct image image;
  TRY(dataset_image_read(worker->dataset, worker->reader, row, worker->least_height, worker->least_width, &image));
  for (int view = 0; view < views; view++) {
    struct transform_draw draw = {.epoch = epoch, .sample = row, .view = view};
    TRY(transform_apply(worker->transformer, &image, &draw, out + (size_t)view * stride));
  }
  return STATUS_OK;
}

/* Pixels of the right size, read to where the window wants them: a copy less than by way of `resized`. */
static enum status crop_stored(struct image_worker *worker, const struct transform_draw *draw, uint8_t *out) {
  struct resize_window window;
  transform_window_draw(&worker->transform, draw, &window);
  int64_t bytes = (int64_t)worker->bytes, shift = transform_window_shift(&worker->transform, &window);
  int64_t first = shift > 0 ? shift : 0, end = shift > 0 ? bytes : bytes + shift;
  TRY(dataset_image_copy(worker->dataset, draw->sample, first, end, out + first - shift));
  transform_window_finish(&worker->transform, &window, out);
  return STATUS_OK;
}

enum status image_worker_views(struct image_worker *worker, int64_t epoch, int64_t row, int views, size_t stride,
                               uint8_t *out) {
  bool plain = worker->transform.set == TRANSFORM_PLAIN;
  bool for_one = worker->cache == NULL && views == 1; /* nobody else needs the resized image */
  const uint8_t *resized = plain ? out : worker->resized;
  struct transform_draw draw = {.epoch = epoch, .sample = row};
  if (worker->ready_made && !plain && views == 1)
    return crop_stored(worker, &draw, out);
  if (worker->transform.set == TRANSFORM_STRONG || (!worker->ready_made && for_one))
    return decoded_views(worker, epoch, row, views, stride, out);
  if (worker->cache != NULL)
    TRY(resize_cached(worker, row, &resized));
  else
    TRY(resize_into(worker, row, plain ? out : worker->resized));
  for (int view = 0; view < views; view++) {
    uint8_t *place = out + (size_t)view * stride;
    draw.view = view;
    if (!plain)
      transform_augment(&worker->transform, &draw, resized, place);
    else if (place != resized)
      memcpy(place, resized, worker->bytes);
  }
  return STATUS_OK;
}

enum status image_worker_record(struct image_worker *worker, int64_t epoch, int64_t row, int views,
                                struct image_record *record, size_t plan_stride, struct transform_plan *plans,
                                size_t stride, uint8_t *out) {
  record->count = (size_t)dataset_image_length(worker->dataset, row);
  TRY(dataset_image_record(worker->dataset, row, record->bytes));
  record->decoded = !image_is_plain_jpeg(worker->decoder, record->bytes, record->count, &record->jpeg);
  if (record->decoded)
    return image_worker_views(worker, epoch, row, views, stride, out);
  for (int view = 0; view < views; view++) {
    struct transform_draw draw = {.epoch = epoch, .sample = row, .view = view};
    transform_draw_plan(&worker->transform, &draw, record->jpeg.walk.height, record->jpeg.walk.width,
                        plans + (size_t)view * plan_stride);
  }
  return STATUS_OK;
}
