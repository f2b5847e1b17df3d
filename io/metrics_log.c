/* JSON lines through jansson. */
#define _GNU_SOURCE
#include "io/metrics_log.h"

#include "dist/memory.h"
#include "dist/pulse.h"
#include "io/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct metrics_log {
  int file;
  char path[]; /* for sentences */
};

enum status metrics_log_open(const char *path, struct metrics_log **out) {
  *out = NULL;
  int file = storage_open(path, O_WRONLY | O_CREAT | O_APPEND);
  REQUIRE(file >= 0, ERR_FILE, "cannot open %s for writing: %s", path, strerror(errno));
  struct metrics_log *log = NULL;
  enum status status = memory_alloc(sizeof *log + strlen(path) + 1, (void **)&log);
  if (status != STATUS_OK) {
    close(file);
    return status;
  }
  log->file = file;
  strcpy(log->path, path);
  *out = log;
  return STATUS_OK;
}

void metrics_log_close(struct metrics_log **log) {
  if (*log == NULL)
    return;
  close((*log)->file);
  memory_free((void **)log);
}

static json_t *value_of(const struct metric *metric) {
  switch (metric->kind) {
  case METRIC_TEXT:
    return metric->text == NULL ? json_null() : json_string(metric->text);
  case METRIC_INTEGER:
    return json_integer(metric->integer);
  case METRIC_REAL:
    return isfinite(metric->real) ? json_real(metric->real) : json_null();
  case METRIC_BOOLEAN:
    return json_boolean(metric->boolean);
  }
  return NULL;
}

/* The whole of `line` in one write, so that a reader never sees half of it and a crash tears at most the last. */
static enum status append(const struct metrics_log *log, const char *line, size_t bytes) {
  int error = storage_write(log->file, line, bytes, STORAGE_APPEND);
  REQUIRE(error == 0, ERR_FILE, "cannot write %s: %s; free some space and resume the run", log->path, strerror(error));
  return STATUS_OK;
}

enum status metrics_log_write_all(struct metrics_log *log, const struct metric *metrics, size_t count) {
  if (log == NULL)
    return STATUS_OK;
  json_t *object = json_object();
  for (size_t i = 0; i < count; i++) {
    if (json_object_set_new(object, metrics[i].key, value_of(&metrics[i])) != 0) {
      json_decref(object);
      return fail(ERR_ARGUMENT, "the value of \"%s\" for %s is not UTF-8 text", metrics[i].key, log->path);
    }
  }
  char *text = json_dumps(object, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(17));
  json_decref(object);
  char *line = NULL;
  int bytes = text == NULL ? -1 : asprintf(&line, "%s\n", text);
  free(text);
  REQUIRE(bytes >= 0, ERR_MEMORY, "cannot allocate a line for %s", log->path);
  const char *before = pulse_doing("writes metrics.jsonl"); /* the disk may stall */
  enum status status = append(log, line, (size_t)bytes);
  pulse_doing(before);
  free(line);
  return status;
}

/* The "step" of a line; false when it has none. */
static bool step_of(const char *line, size_t bytes, int64_t *step) {
  json_t *object = json_loadb(line, bytes, 0, NULL);
  json_t *value = json_object_get(object, "step"); /* NULL-safe */
  bool found = json_is_integer(value);
  if (found)
    *step = json_integer_value(value);
  json_decref(object);
  return found;
}

static ssize_t next_line(char **line, size_t *room, FILE *stream) {
  pulse_storage_asked();
  ssize_t bytes = getline(line, room, stream);
  pulse_storage_answered();
  return bytes;
}

/* The length to keep. */
static off_t length_to_keep(FILE *stream, int64_t last_step) {
  char *line = NULL;
  size_t room = 0;
  off_t keep = 0, end = 0;
  bool steps_began = false;
  ssize_t bytes;
  while ((bytes = next_line(&line, &room, stream)) > 0 && line[bytes - 1] == '\n') {
    int64_t step;
    bool has_step = step_of(line, (size_t)bytes, &step);
    end += bytes;
    if (has_step ? step <= last_step : !steps_began)
      keep = end;
    steps_began = steps_began || has_step;
  }
  free(line);
  return keep;
}

enum status metrics_log_resume(const char *path, int64_t step) {
  pulse_storage_asked();
  FILE *stream = fopen(path, "re");
  pulse_storage_answered();
  if (stream == NULL && errno == ENOENT)
    return STATUS_OK;
  REQUIRE(stream != NULL, ERR_FILE, "cannot open %s: %s", path, strerror(errno));
  off_t keep = length_to_keep(stream, step);
  bool failed = ferror(stream) != 0;
  fclose(stream);
  REQUIRE(!failed, ERR_FILE, "cannot read %s: %s", path, strerror(errno));
  pulse_storage_asked();
  bool shortened = truncate(path, keep) == 0;
  pulse_storage_answered();
  REQUIRE(shortened, ERR_FILE, "cannot shorten %s: %s", path, strerror(errno));
  return STATUS_OK;
}
