/* One thread's way from a row of an image dataset to the pixels of all its views.
 *
 *     struct image_worker *worker;
 *     TRY(image_worker_create(dataset, &transform, cache, no_decode_scaling, &worker));
 *     TRY(image_worker_views(worker, epoch, row, views, stride, out));    view v goes to out + v * stride
 *     image_worker_destroy(&worker);
 *
 * A row is read, decoded and (unless the transform is strong) resized once for all views.  The pixels are a function of
 * the file, the transform, epoch, row and view alone.  All functions are local. */
#ifndef CONR_IO_IMAGE_WORKER_H
#define CONR_IO_IMAGE_WORKER_H

#include "io/image_cache.h"

struct image_worker;

/* dataset and cache are borrowed and must outlive the worker; cache may be NULL. */
enum status image_worker_create(const struct dataset *dataset, const struct transform *transform,
                                struct image_cache *cache, bool no_decode_scaling, struct image_worker **out);
void image_worker_destroy(struct image_worker **worker); /* NULL is fine */

/* Of a view. */
size_t image_worker_bytes(const struct image_worker *worker);

/* out  views x [height, width, 3], `stride` bytes apart.  Errors as of dataset_image_read. */
enum status image_worker_views(struct image_worker *worker, int64_t epoch, int64_t row, int views, size_t stride,
                               uint8_t *out);

/* A row as the bytes of its file, for a decoder elsewhere, with the plans of its views (`plan_stride` apart); or, where
 * these are no plain JPEG, all as image_worker_views. */
struct image_record {
  uint8_t *bytes; /* room for dataset_image_length(), filled */
  size_t count;
  struct image_jpeg jpeg;
  bool decoded; /* `out` has the pixels of all views; else plans have been made */
};
enum status image_worker_record(struct image_worker *worker, int64_t epoch, int64_t row, int views,
                                struct image_record *record, size_t plan_stride, struct transform_plan *plans,
                                size_t stride, uint8_t *out);

#endif
