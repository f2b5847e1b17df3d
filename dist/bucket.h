/* Gradients summed over ranks while backward still computes.
 *
 * One flat gradient buffer is cut into buckets along slice (parameter) borders, from the end to the
 * front: backward completes the last parameters first.  A bucket is sent as soon as its last slice is ready.
 * Gradients are SUMMED, never averaged: every local gradient is already a derivative of the global loss.
 *
 *     TRY(buckets_create(comm, F32, gradients, offsets, slices, elements, 4 << 20, &buckets));
 *     each step:
 *       TRY(buckets_begin(buckets));
 *       backward calls  buckets_ready(buckets, slice)  for slice = slices-1 .. 0,
 *                       buckets_progress(buckets)      between operations, or nothing overlaps
 *       TRY(buckets_wait(buckets));                    now the buffer holds the sum, on all ranks
 *
 * Collective in the sense that all ranks must make the same calls to buckets_ready() and buckets_wait() in the
 * same order; buckets_progress() is local. */
#ifndef CONR_DIST_BUCKET_H
#define CONR_DIST_BUCKET_H

#include "dist/comm.h"

struct buckets;

/* comm       borrowed, must outlive this
 * gradients  [elements], borrowed
 * offsets    [slices] ascending, offsets[0] = 0: where each slice begins
 * bytes      a bucket is closed once it holds at least this many; a slice is never cut */
enum status buckets_create(struct comm *comm, enum dtype dtype, void *gradients, const size_t *offsets, size_t slices,
                           size_t elements, size_t bytes, struct buckets **out);
void buckets_destroy(struct buckets **buckets);

/* A step begins, also after one that failed before anything was sent; ERR_BUG while sums are in flight.  Local. */
enum status buckets_begin(struct buckets *buckets);

/* The gradient of one slice is complete.  Each slice once per step, from the last to the first. */
enum status buckets_ready(struct buckets *buckets, size_t slice);

/* Push what is in flight.  Local. */
enum status buckets_progress(struct buckets *buckets);

/* Wait for all buckets; they may then be used for the next step.
 * Host wait: the update needs every gradient. */
enum status buckets_wait(struct buckets *buckets);

size_t buckets_count(const struct buckets *buckets);

#endif
