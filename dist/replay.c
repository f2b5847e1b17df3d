/* Work that was kept: a list of graphs, and of calls in the order in which they came. */
#include "dist/replay.h"

#include "dist/device_ops.h"
#include "dist/memory.h"

#include <stdio.h>
#include <string.h>

/* A graph begins here, or a call is made; a graph that turned out empty is neither. */
struct entry {
  struct graph *graph;       /* owned */
  replay_function *function; /* NULL for a graph */
  void *arguments;           /* owned */
};

#define MOST_KEPT 64

struct replay {
  void *key; /* owned [key_bytes] */
  size_t key_bytes;
  bool seen, whole;
  int64_t frees;         /* of the device when it was kept            */
  struct entry *entries; /* owned [room] */
  int count, room;
  int open; /* the entry whose graph has begun and not ended; -1 = none */
};

struct replays {
  struct device *device; /* borrowed: must outlive this */
  struct replay kept[MOST_KEPT];
  int count;
  int64_t launches;
};

enum status replays_create(struct device *device, struct replays **out) {
  TRY(memory_alloc_zero(sizeof **out, (void **)out));
  (*out)->device = device;
  return STATUS_OK;
}

static void forget(struct replay *replay) {
  for (int i = 0; i < replay->count; i++) {
    graph_destroy(&replay->entries[i].graph);
    memory_free(&replay->entries[i].arguments);
  }
  memory_free((void **)&replay->entries);
  replay->count = replay->room = 0;
  replay->open = -1;
  replay->whole = false;
}

void replays_destroy(struct replays **replays) {
  if (*replays == NULL)
    return;
  for (int i = 0; i < (*replays)->count; i++) {
    forget(&(*replays)->kept[i]);
    memory_free(&(*replays)->kept[i].key);
  }
  memory_free((void **)replays);
}

int64_t replays_launches(const struct replays *replays) {
  return replays != NULL ? replays->launches : 0;
}

/* --- keeping -------------------------------------------------------------------------------------------------- */

bool replay_records(const struct device *device) {
  return device != NULL && device->recording != NULL;
}

static enum status append(struct replay *replay, struct entry entry) {
  if (replay->count == replay->room) {
    int room = replay->room > 0 ? 2 * replay->room : 32;
    struct entry *entries;
    TRY(memory_alloc((size_t)room * sizeof *entries, (void **)&entries));
    if (replay->count > 0)
      memcpy(entries, replay->entries, (size_t)replay->count * sizeof *entries);
    memory_free((void **)&replay->entries);
    replay->entries = entries;
    replay->room = room;
  }
  replay->entries[replay->count++] = entry;
  return STATUS_OK;
}

static enum status append_call(struct replay *replay, replay_function *function, const void *arguments, size_t bytes) {
  struct entry entry = {.function = function};
  TRY(memory_alloc(bytes, &entry.arguments));
  memcpy(entry.arguments, arguments, bytes);
  enum status status = append(replay, entry);
  if (status != STATUS_OK)
    memory_free(&entry.arguments);
  return status;
}

/* The place of a graph in the list is where it begins: notes that are made meanwhile follow. */
static enum status begin_graph(struct device *device, struct replay *replay) {
  TRY(append(replay, (struct entry){0}));
  TRY(graph_begin(device->main));
  replay->open = replay->count - 1;
  return STATUS_OK;
}

static enum status end_graph(struct device *device, struct replay *replay) {
  struct entry *entry = &replay->entries[replay->open];
  replay->open = -1;
  return graph_end(device->main, &entry->graph);
}

enum status replay_call(struct device *device, replay_function *function, const void *arguments, size_t bytes) {
  if (!replay_records(device))
    return function(arguments);
  TRY(end_graph(device, device->recording));
  TRY(append_call(device->recording, function, arguments, bytes));
  return begin_graph(device, device->recording);
}

enum status replay_note(struct device *device, replay_function *function, const void *arguments, size_t bytes) {
  TRY(function(arguments));
  return replay_records(device) ? append_call(device->recording, function, arguments, bytes) : STATUS_OK;
}

/* The stream is to be free again, and the sentence to be told is that of the operation. */
static enum status give_up(struct device *device, struct replay *replay, enum status status) {
  char sentence[1024];
  snprintf(sentence, sizeof sentence, "%s", status_message());
  if (replay->open >= 0 && end_graph(device, replay) != STATUS_OK)
    fail(status, "%s", sentence);
  forget(replay);
  return status;
}

static enum status record(struct device *device, struct replay *replay, replay_work *work, void *context) {
  device->recording = replay;
  enum status status = begin_graph(device, replay);
  if (status == STATUS_OK)
    status = work(context);
  device->recording = NULL;
  if (status == STATUS_OK)
    status = end_graph(device, replay);
  if (status != STATUS_OK)
    return give_up(device, replay, status);
  replay->whole = true;
  replay->frees = device->frees;
  return STATUS_OK;
}

/* --- running -------------------------------------------------------------------------------------------------- */

static struct replay *find(const struct replays *replays, const void *key, size_t bytes) {
  for (int i = 0; replays != NULL && i < replays->count; i++) {
    const struct replay *replay = &replays->kept[i];
    if (replay->key_bytes == bytes && memcmp(replay->key, key, bytes) == 0)
      return (struct replay *)replay;
  }
  return NULL;
}

static enum status add(struct replays *replays, const void *key, size_t bytes, struct replay **out) {
  struct replay *replay = &replays->kept[replays->count];
  *out = NULL;
  if (replays->count == MOST_KEPT)
    return STATUS_OK;
  TRY(memory_alloc(bytes, &replay->key));
  memcpy(replay->key, key, bytes);
  replay->key_bytes = bytes;
  replay->open = -1;
  replays->count++;
  *out = replay;
  return STATUS_OK;
}

static enum status launch(struct replays *replays, const struct replay *replay) {
  for (int i = 0; i < replay->count; i++) {
    const struct entry *entry = &replay->entries[i];
    if (entry->function != NULL)
      TRY(entry->function(entry->arguments));
    if (entry->graph == NULL)
      continue;
    replays->launches++;
    TRY(graph_launch(entry->graph, replays->device->main));
  }
  return STATUS_OK;
}

bool replay_is_kept(const struct replays *replays, const void *key, size_t bytes) {
  const struct replay *replay = find(replays, key, bytes);
  return replay != NULL && replay->whole && replay->frees == replays->device->frees;
}

/* What was kept may be of memory that is gone. */
static void forget_if_stale(const struct replays *replays, struct replay *replay) {
  if (!replay->whole || replay->frees == replays->device->frees)
    return;
  forget(replay);
  replay->seen = false;
}

enum status replay_keep(struct replays *replays, const void *key, size_t bytes, replay_work *work, void *context) {
  struct replay *replay = find(replays, key, bytes);
  if (replay == NULL || replay_records(replays->device))
    return STATUS_OK;
  forget_if_stale(replays, replay);
  return replay->seen && !replay->whole ? record(replays->device, replay, work, context) : STATUS_OK;
}

enum status replay_run(struct replays *replays, const void *key, size_t bytes, replay_work *work, void *context) {
  if (replays == NULL || replay_records(replays->device))
    return work(context);
  struct replay *replay = find(replays, key, bytes);
  if (replay == NULL)
    TRY(add(replays, key, bytes, &replay));
  if (replay == NULL)
    return work(context);
  TRY(replay_keep(replays, key, bytes, work, context));
  if (replay->whole)
    return launch(replays, replay);
  TRY(work(context)); /* one that failed has made no room yet */
  replay->seen = true;
  return STATUS_OK;
}
