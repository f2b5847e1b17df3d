/* Opening the backend's library, and the host as a device. */
#define _GNU_SOURCE /* dladdr */
#include "dist/device_ops.h"
#include "dist/log.h"
#include "dist/memory.h"
#include "dist/program.h"

#include <dlfcn.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIBRARY_NAME "libconr-cuda.so"
#define LIBRARY_VARIABLE "CONR_CUDA_LIBRARY"

/* --- the library -------------------------------------------------------------------------------------------- */

/* dlopen gives the same handle again for a library that is open: there is nothing to keep here.  It stays open until
 * the program ends: CUDA's libraries cannot be unloaded. */
static enum status open_library(void **library) {
  static const char *const places[] = {"", "/../lib"};
  const char *wanted = getenv(LIBRARY_VARIABLE);
  char program[PATH_MAX], path[PATH_MAX + 64];
  *library = NULL;
  if (wanted != NULL) {
    *library = dlopen(wanted, RTLD_NOW | RTLD_LOCAL);
    REQUIRE(*library != NULL, ERR_DEVICE, "the CUDA backend that " LIBRARY_VARIABLE " names cannot be opened: %s",
            dlerror());
    return STATUS_OK;
  }
  program_path(program);
  const char *folder = dirname(program);
  for (size_t i = 0; i < sizeof places / sizeof *places && *library == NULL; i++) {
    snprintf(path, sizeof path, "%s%s/" LIBRARY_NAME, folder, places[i]);
    if (access(path, R_OK) != 0)
      continue;
    *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    REQUIRE(*library != NULL, ERR_DEVICE, "the CUDA backend cannot be opened: %s; are CUDA, cuDNN and NCCL installed?",
            dlerror());
  }
  if (*library == NULL)
    *library = dlopen(LIBRARY_NAME, RTLD_NOW | RTLD_LOCAL);
  REQUIRE(*library != NULL, ERR_DEVICE,
          "there is no CUDA backend (" LIBRARY_NAME ") beside the program: build it where nvcc is found, or name it in "
          "the environment variable " LIBRARY_VARIABLE " (%s)",
          dlerror());
  return STATUS_OK;
}

static enum status find(const char *name, void **out) {
  void *library;
  TRY(open_library(&library));
  *out = dlsym(library, name);
  REQUIRE(*out != NULL, ERR_DEVICE, "the CUDA backend has no \"%s\": it is of another version; build both together",
          name);
  return STATUS_OK;
}

static enum status find_ops(const struct device_ops **ops) {
  void *found;
  TRY(find(DEVICE_OPS_SYMBOL, &found));
  *ops = found;
  REQUIRE((*ops)->version == DEVICE_LIBRARY_VERSION, ERR_DEVICE,
          "the CUDA backend is of version %d, and this program needs %d; build both together", (*ops)->version,
          DEVICE_LIBRARY_VERSION);
  return STATUS_OK;
}

/* --- opening ------------------------------------------------------------------------------------------------ */

enum status device_count(int *count) {
  const struct device_ops *ops;
  *count = 0;
  TRY(find_ops(&ops));
  return ops->count(count);
}

enum status device_open(int index, struct device **out) {
  const struct device_ops *ops;
  struct device *device;
  int count;
  *out = NULL;
  TRY(device_count(&count));
  REQUIRE(index >= 0 && index < count, ERR_ARGUMENT, "GPU %d is asked for, but %d can be seen: give 0 to %d", index,
          count, count - 1);
  TRY(find_ops(&ops));
  TRY(memory_alloc_zero(sizeof *device, (void **)&device));
  device->ops = ops;
  enum status status = ops->open(device, index);
  if (status != STATUS_OK)
    memory_free((void **)&device);
  *out = device;
  return status;
}

void device_close(struct device **device) {
  struct device *own = *device;
  if (own == NULL)
    return;
  device_wait(own);
  while (own->attached_count > 0) {
    own->attached_count--;
    own->attached[own->attached_count].destroy(own->attached[own->attached_count].object);
  }
  own->ops->close(own);
  memory_free((void **)device);
}

const struct device_facts *device_facts(const struct device *device) {
  static const struct device_facts host = {.index = -1, .name = "cpu", .numa_node = -1};
  return device == NULL ? &host : &device->facts;
}

enum status device_symbol(const struct device *device, const char *name, void **out) {
  REQUIRE(device != NULL, ERR_BUG, "the host has no library to find \"%s\" in", name);
  return find(name, out);
}

enum status device_attach(struct device *device, void *object, void (*destroy)(void *object)) {
  REQUIRE(device->attached_count < DEVICE_MOST_ATTACHED, ERR_BUG, "more than %d objects are attached to a device",
          DEVICE_MOST_ATTACHED);
  device->attached[device->attached_count].object = object;
  device->attached[device->attached_count++].destroy = destroy;
  return STATUS_OK;
}

/* --- memory ------------------------------------------------------------------------------------------------- */

enum status device_alloc(struct device *device, size_t bytes, void **out) {
  if (device == NULL)
    return memory_alloc(bytes, out);
  return device->ops->alloc(device, bytes, out);
}

enum status device_alloc_zero(struct device *device, size_t bytes, void **out) {
  if (device == NULL)
    return memory_alloc_zero(bytes, out);
  TRY(device->ops->alloc(device, bytes, out));
  return device_zero(device, *out, bytes);
}

void device_free(struct device *device, void **block) {
  if (device == NULL || *block == NULL) {
    memory_free(block);
    return;
  }
  device->frees++;
  device->ops->free(device, *block);
  *block = NULL;
}

enum status device_alloc_pinned(struct device *device, size_t bytes, void **out) {
  if (device == NULL)
    return memory_alloc(bytes, out);
  return device->ops->alloc_pinned(device, bytes, out);
}

void device_free_pinned(struct device *device, void **block) {
  if (device == NULL || *block == NULL) {
    memory_free(block);
    return;
  }
  device->frees++;
  device->ops->free_pinned(device, *block);
  *block = NULL;
}

size_t device_bytes(const struct device *device) {
  return device == NULL ? memory_in_use() : device->bytes;
}

int64_t device_frees(const struct device *device) {
  return device == NULL ? 0 : device->frees;
}

/* --- streams ------------------------------------------------------------------------------------------------ */

enum status stream_create(struct device *device, struct stream **out) {
  *out = NULL;
  return device == NULL ? STATUS_OK : device->ops->stream_create(device, out);
}

void stream_destroy(struct stream **stream) {
  if (*stream != NULL)
    (*stream)->device->ops->stream_destroy(*stream);
  *stream = NULL;
}

enum status stream_copy(struct stream *stream, void *to, const void *from, size_t bytes) {
  if (bytes == 0 || to == from)
    return STATUS_OK;
  if (stream != NULL)
    return stream->device->ops->stream_copy(stream, to, from, bytes);
  memmove(to, from, bytes);
  return STATUS_OK;
}

enum status stream_zero(struct stream *stream, void *to, size_t bytes) {
  if (bytes == 0)
    return STATUS_OK;
  if (stream != NULL)
    return stream->device->ops->stream_zero(stream, to, bytes);
  memset(to, 0, bytes);
  return STATUS_OK;
}

enum status stream_wait(struct stream *stream) {
  return stream == NULL ? STATUS_OK : stream->device->ops->stream_wait(stream);
}

struct stream *device_main(struct device *device) {
  return device == NULL ? NULL : device->main;
}

enum status device_copy(struct device *device, void *to, const void *from, size_t bytes) {
  return stream_copy(device_main(device), to, from, bytes);
}

enum status device_zero(struct device *device, void *to, size_t bytes) {
  return stream_zero(device_main(device), to, bytes);
}

enum status device_wait(struct device *device) {
  return stream_wait(device_main(device));
}

/* --- events ------------------------------------------------------------------------------------------------- */

enum status event_create(struct device *device, struct event **out) {
  if (device != NULL)
    return device->ops->event_create(device, out);
  return memory_alloc_zero(sizeof **out, (void **)out);
}

void event_destroy(struct event **event) {
  if (*event != NULL && (*event)->device != NULL)
    (*event)->device->ops->event_destroy(*event);
  else
    memory_free((void **)event);
  *event = NULL;
}

enum status event_record(struct event *event, struct stream *stream) {
  event->recorded = true;
  if (event->device != NULL)
    return event->device->ops->event_record(event, stream);
  event->seconds = log_seconds();
  return STATUS_OK;
}

enum status event_mark(struct event *event, struct stream *stream) {
  if (event->device == NULL)
    return event_record(event, stream);
  event->recorded = true;
  return event->device->ops->event_mark(event, stream);
}

enum status stream_wait_event(struct stream *stream, struct event *event) {
  if (stream == NULL || event->device == NULL || !event->recorded)
    return STATUS_OK;
  return stream->device->ops->stream_wait_event(stream, event);
}

enum status event_reached(struct event *event, bool *reached) {
  *reached = true;
  return event->device == NULL || !event->recorded ? STATUS_OK : event->device->ops->event_reached(event, reached);
}

enum status event_wait(struct event *event) {
  return event->device == NULL || !event->recorded ? STATUS_OK : event->device->ops->event_wait(event);
}

enum status event_seconds(struct event *from, struct event *to, double *seconds) {
  if (from->device != NULL)
    return from->device->ops->event_seconds(from, to, seconds);
  *seconds = to->seconds - from->seconds;
  return STATUS_OK;
}

/* --- graphs, ranges ----------------------------------------------------------------------------------------- */

enum status graph_begin(struct stream *stream) {
  REQUIRE(stream != NULL, ERR_ARGUMENT, "the host's work cannot be kept as a graph; that takes a GPU");
  return stream->device->ops->graph_begin(stream);
}

enum status graph_end(struct stream *stream, struct graph **out) {
  *out = NULL;
  REQUIRE(stream != NULL, ERR_ARGUMENT, "the host's work cannot be kept as a graph; that takes a GPU");
  return stream->device->ops->graph_end(stream, out);
}

enum status graph_launch(struct graph *graph, struct stream *stream) {
  return graph->device->ops->graph_launch(graph, stream);
}

void graph_destroy(struct graph **graph) {
  if (*graph != NULL)
    (*graph)->device->ops->graph_destroy(*graph);
  *graph = NULL;
}

void device_range_begin(struct device *device, const char *name) {
  if (device != NULL)
    device->ops->range_begin(name);
}

void device_range_end(struct device *device) {
  if (device != NULL)
    device->ops->range_end();
}
