/* Batches on their way to the device, one ahead of the step.
 *
 *     TRY(upload_create(device, &sizes, &upload));
 *     each step:
 *       TRY(upload_take(upload, batch, &there));         `there` has the batch's arrays in the device's memory
 *       ... work on it is queued on the main stream ...
 *       TRY(upload_release(upload));                     the batch's memory in the host may change now
 *       TRY(upload_ahead(upload, next));                 the next batch begins to travel, beside that work
 *       ... the host waits for the step ...
 *     upload_destroy(&upload);
 *
 * Two slots, filled in turn on a stream of their own.  The host must have waited for a step before the batch after the
 * next one is sent: then nothing reads the slot any more.  Records (loader_options.records) become pixels on that same
 * stream, so that the decoding of a batch, too, goes on beside the step before it.  On the host a batch is where it has to be.  All functions
 * are local. */
#ifndef CONR_LAUNCH_UPLOAD_H
#define CONR_LAUNCH_UPLOAD_H

#include "io/device_images.h"

struct upload;

/* Of the largest batch of this rank. */
struct upload_sizes {
  int64_t rows;                                   /* of all views */
  size_t input_bytes, target_bytes, weight_bytes; /* of a row */
  /* Where batches may come as records: JPEGs are decoded on the device.  Else all 0. */
  struct device_images_options images;
};

enum status upload_create(struct device *device, const struct upload_sizes *sizes, struct upload **out);
void upload_destroy(struct upload **upload); /* NULL is fine */

/* Send a batch of the loader, if there is one (NULL = none).  Its memory must stay as it is until upload_release() in
 * the step that takes it. */
enum status upload_ahead(struct upload *upload, const struct batch *batch);

/* The batch, sent ahead or now; work queued on the main stream from now on sees it.  *there is valid until the next but
 * one. */
enum status upload_take(struct upload *upload, const struct batch *batch, struct batch *there);

/* Samples that came as records, and those of them that the host decoded; 0 where batches are pixels. */
struct device_images_counts upload_images(const struct upload *upload);

/* Wait until the batch last taken has left the host's memory: the host does not wait long, since it was sent a step
 * ago. */
enum status upload_release(struct upload *upload);

#endif
