/* For implementers of devices: the table that each fills, and what a device is made of. */
#ifndef CONR_DIST_DEVICE_OPS_H
#define CONR_DIST_DEVICE_OPS_H

#include "dist/device.h"

/* The library that holds a backend says for which build it was made; device.c compares. */
#define DEVICE_LIBRARY_VERSION 2

/* Every entry is filled; meanings as in device.h. */
struct device_ops {
  int version; /* DEVICE_LIBRARY_VERSION */
  const char *name;
  enum status (*count)(int *count);
  /* Fill device->facts, device->context and device->main. */
  enum status (*open)(struct device *device, int index);
  void (*close)(struct device *device);
  enum status (*alloc)(struct device *device, size_t bytes, void **out);
  void (*free)(struct device *device, void *block);
  enum status (*alloc_pinned)(struct device *device, size_t bytes, void **out);
  void (*free_pinned)(struct device *device, void *block);
  enum status (*stream_create)(struct device *device, struct stream **out);
  void (*stream_destroy)(struct stream *stream);
  enum status (*stream_copy)(struct stream *stream, void *to, const void *from, size_t bytes);
  enum status (*stream_zero)(struct stream *stream, void *to, size_t bytes);
  enum status (*stream_wait)(struct stream *stream);
  enum status (*event_create)(struct device *device, struct event **out);
  void (*event_destroy)(struct event *event);
  enum status (*event_record)(struct event *event, struct stream *stream);
  enum status (*event_mark)(struct event *event, struct stream *stream);
  enum status (*stream_wait_event)(struct stream *stream, struct event *event);
  enum status (*event_reached)(struct event *event, bool *reached);
  enum status (*event_wait)(struct event *event);
  enum status (*event_seconds)(struct event *from, struct event *to, double *seconds);
  enum status (*graph_begin)(struct stream *stream);
  enum status (*graph_end)(struct stream *stream, struct graph **out);
  enum status (*graph_launch)(struct graph *graph, struct stream *stream);
  void (*graph_destroy)(struct graph *graph);
  void (*range_begin)(const char *name);
  void (*range_end)(void);
};

/* The name of the table in a backend's library. */
#define DEVICE_OPS_SYMBOL "conr_cuda_device_ops"

#define DEVICE_MOST_ATTACHED 16

struct device {
  const struct device_ops *ops;
  struct device_facts facts;
  struct stream *main;      /* owned by the backend */
  void *context;            /* owned by the backend */
  size_t bytes;             /* of memory in use     */
  int64_t frees;            /* device_frees()       */
  struct replay *recording; /* replay.c: what is queued now is kept in it; NULL = nothing */
  struct {
    void *object;
    void (*destroy)(void *object);
  } attached[DEVICE_MOST_ATTACHED];
  int attached_count;
};

/* The backends define these two; `handle` is what its own library calls a stream or an event. */
struct stream {
  struct device *device;
  void *handle;
};

/* Of a device, or of the host: then `seconds` is when it was recorded. */
struct event {
  struct device *device; /* NULL = the host */
  void *handle;
  bool recorded;
  double seconds;
};

struct graph {
  struct device *device;
  void *handle;
};

#endif
