/* Writing safetensors: a header made by jansson, then the values, aside and renamed. */
#include "io/safetensors.h"

#include "dist/memory.h"
#include "io/durable.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define METADATA "__metadata__"

/* The header's length is a multiple of this, so that the values begin aligned. */
#define ALIGNMENT 8

static const char *stored_name(enum array_type type) {
  static const char *const names[] = {
      [ARRAY_U8] = "U8", [ARRAY_I32] = "I32", [ARRAY_I64] = "I64", [ARRAY_F32] = "F32", [ARRAY_F64] = "F64"};
  return names[type];
}

/* Wide elements first: then each tensor begins at a multiple of its element's size, which readers that map the file
 * rely on. */
static int by_width_and_name(const void *a, const void *b) {
  const struct array *one = *(const struct array *const *)a, *other = *(const struct array *const *)b;
  size_t width = array_type_bytes(one->type), other_width = array_type_bytes(other->type);
  return width != other_width ? (width < other_width ? 1 : -1) : strcmp(one->name, other->name);
}

/* Add `value`, which is taken over, under `name`; false when one of them could not be made. */
static bool add(json_t *object, const char *name, json_t *value) {
  return json_object_set_new(object, name, value) == 0;
}

static json_t *describe_array(const struct array *array, uint64_t begin) {
  json_t *entry = json_object(), *shape = json_array();
  uint64_t end = begin + array_bytes(array);
  bool made = entry != NULL && shape != NULL;
  for (int i = 0; i < array->rank; i++)
    made = made && json_array_append_new(shape, json_integer(array->shape[i])) == 0;
  made = made && add(entry, "dtype", json_string(stored_name(array->type)));
  made = made && add(entry, "shape", json_incref(shape));
  made = made && add(entry, "data_offsets", json_pack("[I, I]", (json_int_t)begin, (json_int_t)end));
  json_decref(shape);
  if (!made) {
    json_decref(entry);
    return NULL;
  }
  return entry;
}

static enum status describe_all(const char *path, const struct array *const *sorted, size_t count,
                                const struct safetensors_text *metadata, size_t metadata_count, json_t *header) {
  uint64_t place = 0;
  json_t *texts = json_object();
  bool made = add(header, METADATA, texts); /* borrowed from now on */
  for (size_t i = 0; i < metadata_count && made; i++)
    made = add(texts, metadata[i].name, json_string(metadata[i].value));
  REQUIRE(made, ERR_ARGUMENT, "the metadata for %s are not UTF-8, or memory is short", path);
  for (size_t i = 0; i < count; i++) {
    const char *name = sorted[i]->name;
    REQUIRE(json_object_get(header, name) == NULL, ERR_ARGUMENT, "two arrays for %s are named \"%s\"", path, name);
    REQUIRE(add(header, name, describe_array(sorted[i], place)), ERR_ARGUMENT,
            "the array name \"%s\" for %s is not UTF-8, or memory is short", name, path);
    place += array_bytes(sorted[i]);
  }
  return STATUS_OK;
}

/* The header's text, padded with blanks. */
static enum status make_header(const char *path, const struct array *const *sorted, size_t count,
                               const struct safetensors_text *metadata, size_t metadata_count, char **out,
                               uint64_t *bytes) {
  enum status status;
  json_t *header = json_object();
  char *text = NULL;
  REQUIRE(header != NULL, ERR_MEMORY, "out of memory for the header of %s", path);
  TRY_GOTO(describe_all(path, sorted, count, metadata, metadata_count, header), out);
  text = json_dumps(header, JSON_COMPACT);
  REQUIRE_GOTO(text != NULL, out, ERR_MEMORY, "out of memory for the header of %s", path);
  size_t length = strlen(text), padded = (length + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  REQUIRE_GOTO(padded <= SAFETENSORS_MOST_HEADER_BYTES, out, ERR_ARGUMENT,
               "the header of %s would have %zu bytes; the format allows %llu", path, padded,
               (unsigned long long)SAFETENSORS_MOST_HEADER_BYTES);
  TRY_GOTO(memory_alloc(padded, (void **)out), out);
  memset(*out, ' ', padded);
  memcpy(*out, text, length);
  *bytes = padded;
out:
  free(text);
  json_decref(header);
  return status;
}

static enum status write_values(const struct durable *durable, const char *header, uint64_t header_bytes,
                                const struct array *const *sorted, size_t count) {
  FILE *stream = fopen(durable->temporary, "wbe");
  if (stream == NULL)
    return durable_write_failed(durable->path, errno);
  bool written = fwrite(&header_bytes, sizeof header_bytes, 1, stream) == 1 &&
                 fwrite(header, 1, header_bytes, stream) == header_bytes;
  for (size_t i = 0; i < count && written; i++) {
    size_t bytes = array_bytes(sorted[i]);
    written = bytes == 0 || fwrite(sorted[i]->data, 1, bytes, stream) == bytes;
  }
  int error = written ? 0 : errno;
  if (fclose(stream) != 0 && error == 0)
    error = errno;
  return error == 0 ? STATUS_OK : durable_write_failed(durable->path, error);
}

static enum status write_file(const char *path, const char *header, uint64_t header_bytes,
                              const struct array *const *sorted, size_t count) {
  struct durable durable;
  TRY(durable_begin(path, &durable));
  enum status status = write_values(&durable, header, header_bytes, sorted, count);
  if (status == STATUS_OK)
    status = durable_commit(&durable);
  if (status != STATUS_OK)
    durable_abandon(&durable);
  return status;
}

enum status safetensors_write(const char *path, const struct array *arrays, size_t count,
                              const struct safetensors_text *metadata, size_t metadata_count) {
  const struct array **sorted = NULL;
  char *header = NULL;
  uint64_t header_bytes = 0;
  enum status status;
  TRY(memory_alloc(count * sizeof *sorted, (void **)&sorted));
  for (size_t i = 0; i < count; i++)
    sorted[i] = &arrays[i];
  qsort(sorted, count, sizeof *sorted, by_width_and_name);
  TRY_GOTO(make_header(path, sorted, count, metadata, metadata_count, &header, &header_bytes), out);
  status = write_file(path, header, header_bytes, sorted, count);
out:
  memory_free((void **)&header);
  memory_free((void **)&sorted);
  return status;
}
