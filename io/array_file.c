/* Arrays and attributes in one durable, checksummed HDF5 file. */
#include "io/array_file.h"

#include "dist/memory.h"
#include "io/h5.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define CHECKSUM "checksum_crc32"

static int by_array_name(const void *a, const void *b) {
  return strcmp((*(const struct array *const *)a)->name, (*(const struct array *const *)b)->name);
}

static int by_attribute_name(const void *a, const void *b) {
  return strcmp((*(const struct attribute *const *)a)->name, (*(const struct attribute *const *)b)->name);
}

static uLong add(uLong sum, const void *data, size_t bytes) {
  return crc32_z(sum, data, bytes);
}

static uLong add_array(uLong sum, const struct array *array) {
  int32_t head[2] = {(int32_t)array->type, array->rank};
  sum = add(sum, array->name, strlen(array->name) + 1);
  sum = add(sum, head, sizeof head);
  sum = add(sum, array->shape, (size_t)array->rank * sizeof array->shape[0]);
  return array_bytes(array) > 0 ? add(sum, array->data, array_bytes(array)) : sum;
}

static uLong add_attribute(uLong sum, const struct attribute *attribute) {
  int32_t kind = (int32_t)attribute->kind;
  sum = add(sum, attribute->name, strlen(attribute->name) + 1);
  sum = add(sum, &kind, sizeof kind);
  if (attribute->kind == ATTRIBUTE_TEXT)
    return add(sum, attribute->text, strlen(attribute->text) + 1);
  return attribute->kind == ATTRIBUTE_INTEGER ? add(sum, &attribute->integer, sizeof attribute->integer)
                                              : add(sum, &attribute->real, sizeof attribute->real);
}

/* The checksum of the whole set; refuses two of one name, which a file cannot hold. */
static enum status checksum(const char *path, const struct array *arrays, size_t array_count,
                            const struct attribute *attributes, size_t attribute_count, int64_t *out) {
  const void **sorted = NULL;
  enum status status;
  size_t most = array_count > attribute_count ? array_count : attribute_count;
  TRY(memory_alloc(most * sizeof *sorted, (void **)&sorted));
  uLong sum = crc32_z(0, NULL, 0);
  for (size_t i = 0; i < array_count; i++)
    sorted[i] = &arrays[i];
  qsort(sorted, array_count, sizeof *sorted, by_array_name);
  for (size_t i = 0; i < array_count; i++) {
    REQUIRE_GOTO(i == 0 || by_array_name(&sorted[i - 1], &sorted[i]) != 0, out, ERR_ARGUMENT,
                 "two arrays for %s are named \"%s\"", path, ((const struct array *)sorted[i])->name);
    sum = add_array(sum, sorted[i]);
  }
  for (size_t i = 0; i < attribute_count; i++)
    sorted[i] = &attributes[i];
  qsort(sorted, attribute_count, sizeof *sorted, by_attribute_name);
  for (size_t i = 0; i < attribute_count; i++) {
    REQUIRE_GOTO(i == 0 || by_attribute_name(&sorted[i - 1], &sorted[i]) != 0, out, ERR_ARGUMENT,
                 "two attributes for %s are named \"%s\"", path, ((const struct attribute *)sorted[i])->name);
    sum = add_attribute(sum, sorted[i]);
  }
  *out = (int64_t)sum;
  status = STATUS_OK;
out:
  memory_free((void **)&sorted);
  return status;
}

static enum status write_array(struct h5_file *file, const struct array *array) {
  struct h5_dataset dataset;
  TRY(h5_dataset_create(file, array->name, array->type, array->rank, array->shape, &dataset));
  enum status status = h5_dataset_write(&dataset, 0, array->rank == 0 ? 1 : array->shape[0], array->type, array->data);
  h5_dataset_close(&dataset);
  return status;
}

static enum status write_attribute(struct h5_file *file, const struct attribute *attribute) {
  switch (attribute->kind) {
  case ATTRIBUTE_TEXT:
    return h5_write_text(file, attribute->name, attribute->text);
  case ATTRIBUTE_INTEGER:
    return h5_write_integer(file, attribute->name, attribute->integer);
  case ATTRIBUTE_REAL:
    return h5_write_real(file, attribute->name, attribute->real);
  }
  return fail(ERR_BUG, "attribute \"%s\" has no kind", attribute->name);
}

static enum status write_all(const struct durable *durable, const struct array *arrays, size_t array_count,
                             const struct attribute *attributes, size_t attribute_count, int64_t sum) {
  struct h5_file *file;
  enum status status = STATUS_OK;
  TRY(h5_create(durable, &file));
  for (size_t i = 0; status == STATUS_OK && i < array_count; i++)
    status = write_array(file, &arrays[i]);
  for (size_t i = 0; status == STATUS_OK && i < attribute_count; i++)
    status = write_attribute(file, &attributes[i]);
  if (status == STATUS_OK)
    status = h5_write_integer(file, CHECKSUM, sum);
  enum status closed = h5_close(&file);
  return status != STATUS_OK ? status : closed;
}

enum status array_file_write(const char *path, const struct array *arrays, size_t array_count,
                             const struct attribute *attributes, size_t attribute_count) {
  struct durable durable;
  int64_t sum;
  TRY(checksum(path, arrays, array_count, attributes, attribute_count, &sum));
  TRY(durable_begin(path, &durable));
  enum status status = write_all(&durable, arrays, array_count, attributes, attribute_count, sum);
  if (status == STATUS_OK)
    status = durable_commit(&durable);
  if (status != STATUS_OK)
    durable_abandon(&durable);
  return status;
}

/* A file being read. */
struct reading {
  struct h5_file *h5;
  struct array_file *file;
  size_t array_room, attribute_room; /* entries that fit */
  int64_t checksum;
  bool has_checksum;
};

/* Room for one more element of `bytes` in *block. */
static enum status grow(void **block, size_t count, size_t *room, size_t bytes) {
  if (count < *room)
    return STATUS_OK;
  size_t wanted = *room > 0 ? 2 * *room : 16;
  void *larger = NULL;
  TRY(memory_alloc_zero(wanted * bytes, &larger));
  if (count > 0)
    memcpy(larger, *block, count * bytes);
  memory_free(block);
  *block = larger;
  *room = wanted;
  return STATUS_OK;
}

static enum status read_array(void *context, const char *name) {
  struct reading *reading = context;
  struct array_file *file = reading->file;
  struct h5_dataset dataset;
  enum status status;
  TRY(grow((void **)&file->arrays, file->array_count, &reading->array_room, sizeof *file->arrays));
  TRY_GOTO(h5_dataset_open(reading->h5, name, &dataset), out);
  struct array *array = &file->arrays[file->array_count];
  TRY_GOTO(array_create(name, dataset.nearest, dataset.rank, dataset.shape, array), out);
  file->array_count++;
  status = h5_dataset_read(&dataset, 0, dataset.rank == 0 ? 1 : dataset.shape[0], array->type, array->data);
out:
  h5_dataset_close(&dataset);
  return status;
}

static enum status copy_text(const char *text, char **out) {
  TRY(memory_alloc(strlen(text) + 1, (void **)out));
  strcpy(*out, text);
  return STATUS_OK;
}

static enum status read_attribute(void *context, const char *name, enum h5_content content) {
  struct reading *reading = context;
  struct array_file *file = reading->file;
  bool found = false;
  if (strcmp(name, CHECKSUM) == 0)
    return h5_read_integer(reading->h5, name, &reading->checksum, &reading->has_checksum);
  if (content == H5_OTHER)
    return STATUS_OK;
  TRY(grow((void **)&file->attributes, file->attribute_count, &reading->attribute_room, sizeof *file->attributes));
  struct attribute *attribute = &file->attributes[file->attribute_count];
  char *copy = NULL;
  TRY(copy_text(name, &copy));
  attribute->name = copy;
  file->attribute_count++;
  if (content == H5_TEXT) {
    char *text = NULL;
    attribute->kind = ATTRIBUTE_TEXT;
    TRY(h5_read_text(reading->h5, name, &text, &found));
    attribute->text = text;
  } else if (content == H5_INTEGERS) {
    attribute->kind = ATTRIBUTE_INTEGER;
    TRY(h5_read_integer(reading->h5, name, &attribute->integer, &found));
  } else {
    attribute->kind = ATTRIBUTE_REAL;
    TRY(h5_read_real(reading->h5, name, &attribute->real, &found));
  }
  REQUIRE(found, ERR_FORMAT, "attribute \"%s\" of %s is damaged", name, file->path);
  return STATUS_OK;
}

static enum status verify(const struct reading *reading, bool require_checksum) {
  const struct array_file *file = reading->file;
  REQUIRE(reading->has_checksum || !require_checksum, ERR_FORMAT,
          "%s has no checksum, so it was not written by conr, or it is damaged; use another file", file->path);
  if (!reading->has_checksum)
    return STATUS_OK;
  int64_t sum;
  TRY(checksum(file->path, file->arrays, file->array_count, file->attributes, file->attribute_count, &sum));
  REQUIRE(sum == reading->checksum, ERR_FORMAT,
          "%s is damaged: its content has checksum %08llx, not %08llx as written; use an earlier copy", file->path,
          (unsigned long long)sum, (unsigned long long)reading->checksum);
  return STATUS_OK;
}

static enum status read_all(const char *path, bool require_checksum, struct reading *reading) {
  TRY(copy_text(path, &reading->file->path));
  TRY(h5_open(path, &reading->h5));
  TRY(h5_each_dataset(reading->h5, read_array, reading));
  TRY(h5_each_attribute(reading->h5, read_attribute, reading));
  return verify(reading, require_checksum);
}

enum status array_file_read(const char *path, bool require_checksum, struct array_file **out) {
  struct reading reading = {0};
  *out = NULL;
  TRY(memory_alloc_zero(sizeof *reading.file, (void **)&reading.file));
  enum status status = read_all(path, require_checksum, &reading);
  h5_close(&reading.h5);
  if (status == STATUS_OK)
    *out = reading.file;
  else
    array_file_destroy(&reading.file);
  return status;
}

void array_file_destroy(struct array_file **file_pointer) {
  struct array_file *file = *file_pointer;
  if (file == NULL)
    return;
  for (size_t i = 0; i < file->attribute_count; i++) {
    void *text = (void *)file->attributes[i].text, *name = (void *)file->attributes[i].name;
    memory_free(&text);
    memory_free(&name);
  }
  for (size_t i = 0; i < file->array_count; i++)
    array_destroy(&file->arrays[i]);
  memory_free((void **)&file->attributes);
  memory_free((void **)&file->arrays);
  memory_free((void **)&file->path);
  memory_free((void **)file_pointer);
}

const struct array *array_file_find(const struct array_file *file, const char *name) {
  for (size_t i = 0; i < file->array_count; i++)
    if (strcmp(file->arrays[i].name, name) == 0)
      return &file->arrays[i];
  return NULL;
}

static enum status find_attribute(const struct array_file *file, const char *name, enum attribute_kind kind,
                                  const struct attribute **out) {
  static const char *const kinds[] = {"text", "integer", "real number"};
  for (size_t i = 0; i < file->attribute_count; i++) {
    *out = &file->attributes[i];
    if (strcmp((*out)->name, name) == 0 && (*out)->kind == kind)
      return STATUS_OK;
  }
  return fail(ERR_FORMAT, "%s has no %s attribute \"%s\"; it was made for something else, or by another version",
              file->path, kinds[kind], name);
}

enum status array_file_text(const struct array_file *file, const char *name, const char **out) {
  const struct attribute *attribute = NULL;
  TRY(find_attribute(file, name, ATTRIBUTE_TEXT, &attribute));
  *out = attribute->text;
  return STATUS_OK;
}

enum status array_file_integer(const struct array_file *file, const char *name, int64_t *out) {
  const struct attribute *attribute = NULL;
  TRY(find_attribute(file, name, ATTRIBUTE_INTEGER, &attribute));
  *out = attribute->integer;
  return STATUS_OK;
}

enum status array_file_real(const struct array_file *file, const char *name, double *out) {
  const struct attribute *attribute = NULL;
  TRY(find_attribute(file, name, ATTRIBUTE_REAL, &attribute));
  *out = attribute->real;
  return STATUS_OK;
}
