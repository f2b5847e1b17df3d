/* Batches ahead of the step: one worker thread reads, converts and augments the next batch while this one is used.
 *
 *     struct loader *loader;
 *     TRY(loader_create(dataset, SPLIT_TRAIN, &sampler, 2, &augment, &loader));
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
 * Two buffers: at most one batch is ready ahead.  A run of batches ends with its epoch.  From loader_start to
 * loader_stop only the worker may call dataset_read.  All functions are local, called by one thread. */
#ifndef CONR_IO_LOADER_H
#define CONR_IO_LOADER_H

#include "dist/sampler.h"
#include "io/augment.h"
#include "io/dataset.h"

struct loader;

/* This rank's part of one step, view-major: all first views, then all second ones. */
struct batch {
  int64_t epoch, step;
  int64_t rows;        /* own samples; may be 0                         */
  int64_t rows_global; /* samples of all ranks                          */
  int views;
  void *inputs;     /* [views * rows, features], dtype of the dataset   */
  void *targets;    /* [views * rows, K], dtype                         */
  void *weights;    /* [views * rows], dtype; 1 when the file has none  */
  int64_t *samples; /* [views * rows] row ids in the file               */
};

/* dataset  borrowed: must outlive the loader.   sampler  copied; its rows are the split's.
 * augment  copied; NULL = the stored rows (evaluation).  All views are equal then. */
enum status loader_create(struct dataset *dataset, enum split split, const struct sampler *sampler, int views,
                          const struct augment *augment, struct loader **out);

/* Stop the worker if need be and free everything; NULL is fine. */
void loader_destroy(struct loader **loader);

/* Begin an epoch at a step (0 .. steps; at `steps` nothing is left).  A running epoch is stopped first. */
enum status loader_start(struct loader *loader, int64_t epoch, int64_t first_step);

/* The next batch, NULL after the last of the epoch.  waited_seconds (may be NULL): how long the caller stood still.
 * A failure of the worker comes out here, with its sentence, and again on each later call. */
enum status loader_next(struct loader *loader, struct batch **batch, double *waited_seconds);

/* Stop at any time; the batch last given is no longer valid.  Does nothing when stopped. */
void loader_stop(struct loader *loader);

#endif
