/* Batches ahead of the step: worker threads read, decode, augment and convert the next batch while this one is used.
 *
 *     struct loader_options options = {.views = 2, .augment = {...}, .workers = 1};
 *     struct loader *loader;
 *     TRY(loader_create(dataset, SPLIT_TRAIN, &sampler, &options, &loader));
 *     TRY(loader_start(loader, epoch, first_step));
 *     for (;;) {
 *       struct batch *batch;
 *       TRY(loader_next(loader, &batch, &waited_seconds));
 *       if (batch == NULL)
 *         break;                                        the epoch is over
 *       ... batch is valid until the next loader_next ...
 *     }
 *     loader_destroy(&loader);
 *
 * Two buffers: while one is used the other is filled, its samples shared by the workers.  A run of batches ends with
 * its epoch.  What a batch holds does not depend on the number of workers.  HDF5 is not called: rows and records are
 * read by pread, or lie in memory.  Several loaders may use one dataset.  All functions are local, called by one
 * thread. */
#ifndef CONR_IO_LOADER_H
#define CONR_IO_LOADER_H

#include "dist/device.h"
#include "dist/sampler.h"
#include "io/augment.h"
#include "io/dataset.h"
#include "io/image_worker.h"

struct loader;

#define LOADER_MOST_WORKERS 1024

struct loader_options {
  int views;                  /* 1 or more                                                            */
  struct augment augment;     /* of a table's rows; all zero = the stored rows                         */
  struct transform transform; /* of images: size and set; not read for tables                          */
  struct image_cache *cache;  /* of images: borrowed, must outlive the loader; NULL = none             */
  int workers;                /* threads for images; 0 counts as 1; a table has one                    */
  struct device *device;  /* borrowed: what the batches go to: they lie in memory that it can read by itself (pinned) */
  bool no_decode_scaling; /* decode JPEGs at full size always, as the published Python loaders do   */
  const double *weights;  /* [rows of the split, weights_of_row], in the order of its ids: instead of the file's;
                             borrowed: must outlive the loader; NULL = the file's */
  int weights_of_row;     /* 0 counts as 1; without `weights` they are all the same                    */
  bool records;           /* of images: JPEGs are left to where the batches go, and decoded whole: struct batch */
};

/* This rank's part of one step, view-major: all first views, then all second ones. */
struct batch {
  int64_t epoch, step;
  int64_t rows;        /* own samples; may be 0                         */
  int64_t rows_global; /* samples of all ranks                          */
  int views;
  void *inputs;     /* a table: [views * rows, features], dtype of the dataset;
                       images: [views * rows, height, width, 3] uint8, of the transform's size */
  void *targets;    /* [views * rows, K], dtype                         */
  void *weights;    /* [views * rows, weights_of_row], dtype; 1 when there are none */
  int64_t *samples; /* [views * rows] row ids in the file               */
  /* With loader_options.records, where images are encoded, else NULL: records[i] of sample i and its views' plans, for
   * who decodes them (device_images.h); inputs has the pixels of those that are decoded already, and of no others. */
  struct image_record *records; /* [rows], bytes in memory as of options.device */
  struct transform_plan *plans; /* [views * rows]                               */
  struct image_worker *host;    /* for batch_decode()                           */
};

/* dataset  borrowed: must outlive the loader.   sampler, options  copied; the sampler's rows are the split's. */
enum status loader_create(struct dataset *dataset, enum split split, const struct sampler *sampler,
                          const struct loader_options *options, struct loader **out);

/* Stop the workers if need be and free everything; NULL is fine. */
void loader_destroy(struct loader **loader);

/* Bytes of the largest batch of records; 0 where batches are pixels, or a table's. */
size_t loader_record_bytes(const struct loader *loader);

/* Begin an epoch at a step (0 .. steps; at `steps` nothing is left).  A running epoch is stopped first. */
enum status loader_start(struct loader *loader, int64_t epoch, int64_t first_step);

/* The next batch, NULL after the last of the epoch.  waited_seconds (may be NULL): how long the caller stood still.
 * A failure of a worker comes out here, with its sentence (that of the batch's first failing sample), and again on
 * each later call. */
enum status loader_next(struct loader *loader, struct batch **batch, double *waited_seconds);

/* The pixels of all views of a sample into batch->inputs after all: its record was refused elsewhere.  By the thread that
 * calls the loader.  Errors as of dataset_image_read. */
enum status batch_decode(const struct batch *batch, int64_t row);

/* Stop at any time; the batch last given is no longer valid.  Does nothing when stopped. */
void loader_stop(struct loader *loader);

#endif
