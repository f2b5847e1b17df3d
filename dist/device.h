/* Where work runs and its data lie: the host, or one GPU.
 *
 *     struct device *device;
 *     TRY(device_open(0, &device));                            the GPU number 0, or leave it NULL: the host
 *     TRY(device_alloc(device, bytes, &block));
 *     TRY(device_copy(device, block, host, bytes));            queued; `host` must stay as it is until device_wait()
 *     ... ops (model/ops.h) queue work on it ...
 *     TRY(device_copy(device, host, block, bytes));
 *     TRY(device_wait(device));                                 now `host` holds the result
 *     device_free(device, &block);
 *     device_close(&device);
 *
 * NULL, as a device or as one of its streams, is the host: its memory is memory_alloc()'s, and whatever is asked of it
 * is done when the call returns.  So one code serves both.
 *
 * Streams are queues of a device: each runs its work in order, and they run side by side unless an event says which
 * waits for which.  Each device has a main stream, on which ops work; device_copy() and its kin mean that one.
 *
 * Whatever needs CUDA lies in a library of its own, libconr-cuda.so, which is opened by the first call that asks for a
 * GPU: a machine without one does not pay for it.  It is looked for beside the program, in ../lib, and where the system
 * looks; the environment variable CONR_CUDA_LIBRARY names another file.
 *
 * All functions are local and may be used by one thread at a time for each device. */
#ifndef CONR_DIST_DEVICE_H
#define CONR_DIST_DEVICE_H

#include "dist/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct device;
struct stream;
struct event;
struct graph;

/* What a device is, for people. */
struct device_facts {
  int index;           /* among the visible ones, in PCI order                      */
  char name[128];      /* "NVIDIA H200"; "cpu" for NULL                              */
  char bus[32];        /* PCI address, "0000:1b:00.0"                                */
  char uuid[33];       /* its own in the whole world, 32 hexadecimal digits; "" for NULL */
  int numa_node;       /* of the host memory nearest to it; -1 = not known           */
  int capability;      /* 90 = Hopper                                                */
  size_t memory_bytes; /* in all                                                     */
  char libraries[256]; /* "CUDA 13.0, driver 13.0, cuBLASLt 13.1, cuDNN 9.19, NCCL 2.28.9" */
};

/* --- finding and opening ------------------------------------------------------------------------------------ */

/* GPUs that can be used: opens the library.  ERR_DEVICE: none, and why (no library, no driver, a driver that is too
 * old, no device). */
enum status device_count(int *count);

/* ERR_ARGUMENT for an index that is out of range; ERR_DEVICE. */
enum status device_open(int index, struct device **out);

/* Waits for all its work; what was allocated must have been freed.  NULL is fine. */
void device_close(struct device **device);

const struct device_facts *device_facts(const struct device *device);

/* A function or table of the device's library by name, for ops and losses of the same backend.  ERR_DEVICE. */
enum status device_symbol(const struct device *device, const char *name, void **out);

/* Destroy `object` when the device is closed, before anything that was attached earlier. */
enum status device_attach(struct device *device, void *object, void (*destroy)(void *object));

/* --- memory ------------------------------------------------------------------------------------------------- */

/* Not zeroed, or zeroed (queued).  Aligned to 256 bytes on a GPU, 64 on the host.  ERR_MEMORY says how much was asked
 * for, how much is free, and what to reduce. */
enum status device_alloc(struct device *device, size_t bytes, void **out);
enum status device_alloc_zero(struct device *device, size_t bytes, void **out);
void device_free(struct device *device, void **block); /* waits for the device; NULL block is fine */

/* Host memory that the device can read and write by itself: copies from and to it run beside other work. */
enum status device_alloc_pinned(struct device *device, size_t bytes, void **out);
void device_free_pinned(struct device *device, void **block);

/* Bytes of device memory in use; tests end by asserting 0. */
size_t device_bytes(const struct device *device);

/* Blocks of its memory and of pinned memory that were freed so far: graphs kept before may hold their addresses. */
int64_t device_frees(const struct device *device);

/* --- the main stream ---------------------------------------------------------------------------------------- */

/* Queued: bytes from anywhere to anywhere, host or device.  Host memory that is not pinned is read before the call
 * returns, and written once the host has waited. */
enum status device_copy(struct device *device, void *to, const void *from, size_t bytes);
enum status device_zero(struct device *device, void *to, size_t bytes);

/* The host waits for all work on the main stream.  ERR_DEVICE: some of it failed. */
enum status device_wait(struct device *device);

/* NULL for the host. */
struct stream *device_main(struct device *device);

/* --- streams and events ------------------------------------------------------------------------------------- */

enum status stream_create(struct device *device, struct stream **out); /* of the host: NULL */
void stream_destroy(struct stream **stream);                           /* NULL is fine      */
enum status stream_copy(struct stream *stream, void *to, const void *from, size_t bytes);
enum status stream_zero(struct stream *stream, void *to, size_t bytes);
enum status stream_wait(struct stream *stream); /* host wait */

/* A place in a stream.  An event that was never recorded counts as reached. */
enum status event_create(struct device *device, struct event **out);
void event_destroy(struct event **event); /* NULL is fine */
enum status event_record(struct event *event, struct stream *stream);
/* The same for the host to look at, also within a graph, each launch of which then comes by the event anew.  (What
 * event_record() records there is a place for other streams of the graph to wait for.) */
enum status event_mark(struct event *event, struct stream *stream);
enum status stream_wait_event(struct stream *stream, struct event *event); /* work queued on `stream` from now on */
enum status event_reached(struct event *event, bool *reached);
enum status event_wait(struct event *event); /* host wait */
/* Between two places that were reached. */
enum status event_seconds(struct event *from, struct event *to, double *seconds);

/* --- a stream's work as one graph --------------------------------------------------------------------------- */

/* What is queued between begin and end is not done but kept, to be launched as one; *out is NULL when that is nothing.
 * On the host: ERR_ARGUMENT.  Whoever repeats work uses replay.h. */
enum status graph_begin(struct stream *stream);
enum status graph_end(struct stream *stream, struct graph **out);
enum status graph_launch(struct graph *graph, struct stream *stream);
void graph_destroy(struct graph **graph); /* NULL is fine */

/* --- for profilers ------------------------------------------------------------------------------------------ */

/* A named range of this thread's time, as NVTX shows it; they nest.  Nothing on the host. */
void device_range_begin(struct device *device, const char *name);
void device_range_end(struct device *device);

#endif
