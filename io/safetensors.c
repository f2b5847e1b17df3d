/* Reading safetensors: a header nobody should trust, then one tensor at a time. */
#include "io/safetensors.h"

#include "dist/memory.h"
#include "io/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values are copied as they stand in the file");

#define METADATA "__metadata__"

/* The element types of the format, and what becomes of them. */
struct element_type {
  const char *name;
  int bits;
  bool readable;
  enum array_type nearest;
};

static const struct element_type element_types[] = {
    {"F32", 32, true, ARRAY_F32},    {"F64", 64, true, ARRAY_F64},    {"F16", 16, true, ARRAY_F32},
    {"BF16", 16, true, ARRAY_F32},   {"I64", 64, true, ARRAY_I64},    {"I32", 32, true, ARRAY_I32},
    {"I16", 16, true, ARRAY_I32},    {"I8", 8, true, ARRAY_I32},      {"U8", 8, true, ARRAY_U8},
    {"U16", 16, true, ARRAY_I32},    {"U32", 32, true, ARRAY_I64},    {"BOOL", 8, true, ARRAY_U8},
    {"U64", 64, false, ARRAY_U8},    {"C64", 64, false, ARRAY_U8},    {"F8_E5M2", 8, false, ARRAY_U8},
    {"F8_E4M3", 8, false, ARRAY_U8}, {"F8_E8M0", 8, false, ARRAY_U8}, {"F6_E2M3", 6, false, ARRAY_U8},
    {"F6_E3M2", 6, false, ARRAY_U8}, {"F4", 4, false, ARRAY_U8}};

static const struct element_type *element_type_of(const char *name) {
  for (size_t i = 0; i < sizeof element_types / sizeof *element_types; i++)
    if (strcmp(element_types[i].name, name) == 0)
      return &element_types[i];
  return NULL;
}

/* ---- recognising -------------------------------------------------------------------------- */

bool safetensors_is(const char *path) {
  static const unsigned char hdf5[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
  unsigned char first[9];
  uint64_t length;
  size_t path_length = strlen(path), tail = strlen(".safetensors");
  int descriptor = storage_open(path, O_RDONLY | O_NONBLOCK);
  if (descriptor < 0)
    return false;
  ssize_t got = storage_read(descriptor, first, sizeof first, 0);
  close(descriptor);
  if (got == (ssize_t)sizeof first) {
    memcpy(&length, first, sizeof length);
    if (memcmp(first, hdf5, sizeof hdf5) == 0)
      return false;
    if (first[8] == '{' && length <= SAFETENSORS_MOST_HEADER_BYTES)
      return true;
  }
  return path_length > tail && strcasecmp(path + path_length - tail, ".safetensors") == 0;
}

/* ---- the header --------------------------------------------------------------------------- */

/* Read exactly `bytes` at `offset`. */
static enum status read_bytes(const struct safetensors *file, uint64_t offset, void *out, size_t bytes) {
  ssize_t got = storage_read(file->descriptor, out, bytes, (int64_t)offset);
  REQUIRE(got >= 0, ERR_FILE, "cannot read %s: %s", file->path, strerror(errno));
  REQUIRE((size_t)got == bytes, ERR_FILE, "%s has become shorter while it was read; copy it again", file->path);
  return STATUS_OK;
}

/* Open it and find out where header and values lie. */
static enum status locate(struct safetensors *file, uint64_t *header_bytes, uint64_t *value_bytes) {
  struct stat entry;
  file->descriptor = storage_open(file->path, O_RDONLY | O_NONBLOCK);
  REQUIRE(file->descriptor >= 0, ERR_FILE, "cannot open %s: %s", file->path, strerror(errno));
  REQUIRE(fstat(file->descriptor, &entry) == 0 && S_ISREG(entry.st_mode), ERR_FILE,
          "cannot open %s: it is not a regular file", file->path);
  REQUIRE(entry.st_size >= 10, ERR_FORMAT, "%s has %lld bytes, which is too short for a safetensors file", file->path,
          (long long)entry.st_size);
  TRY(read_bytes(file, 0, header_bytes, sizeof *header_bytes));
  uint64_t rest = (uint64_t)entry.st_size - sizeof *header_bytes;
  REQUIRE(*header_bytes <= SAFETENSORS_MOST_HEADER_BYTES && *header_bytes <= rest, ERR_FORMAT,
          "%s is not a safetensors file, or is cut short: its header would have %llu bytes, the file has %llu more",
          file->path, (unsigned long long)*header_bytes, (unsigned long long)rest);
  file->values = sizeof *header_bytes + *header_bytes;
  *value_bytes = rest - *header_bytes;
  return STATUS_OK;
}

/* JSON takes many times the memory of its text, so its values are counted before it is parsed. */
static enum status check_number_of_values(const struct safetensors *file, const char *text, size_t bytes) {
  const size_t most = (size_t)SAFETENSORS_MOST_TENSORS * (SAFETENSORS_MOST_DIMENSIONS + 6);
  size_t values = 0;
  for (size_t i = 0; i < bytes; i++)
    values += text[i] == ',' || text[i] == '{' || text[i] == '[';
  REQUIRE(values <= most, ERR_FORMAT, "the header of %s lists about %zu values; the most this program reads is %zu",
          file->path, values, most);
  return STATUS_OK;
}

static enum status parse_header(const struct safetensors *file, uint64_t bytes, json_t **out) {
  char *text = NULL;
  enum status status;
  json_error_t error;
  TRY(memory_alloc(bytes, (void **)&text));
  TRY_GOTO(read_bytes(file, sizeof bytes, text, bytes), out);
  TRY_GOTO(check_number_of_values(file, text, bytes), out);
  *out = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
  REQUIRE_GOTO(*out != NULL, out, ERR_FORMAT, "%s is not a safetensors file, or damaged: byte %d of its header: %s",
               file->path, error.position, error.text);
  REQUIRE_GOTO(json_is_object(*out), out, ERR_FORMAT, "%s is not a safetensors file: its header is no JSON object",
               file->path);
out:
  memory_free((void **)&text);
  return status;
}

/* A number of the header that counts something. */
static bool is_count(const json_t *value) {
  return json_is_integer(value) && json_integer_value(value) >= 0;
}

static enum status parse_shape(const struct safetensors *file, const json_t *shape, struct safetensors_tensor *tensor,
                               uint64_t *elements) {
  REQUIRE(json_is_array(shape), ERR_FORMAT, "%s: tensor \"%.100s\" has no list of numbers as shape", file->path,
          tensor->name);
  REQUIRE(json_array_size(shape) <= SAFETENSORS_MOST_DIMENSIONS, ERR_FORMAT,
          "%s: tensor \"%.100s\" has %zu dimensions; the most this program reads is %d", file->path, tensor->name,
          json_array_size(shape), SAFETENSORS_MOST_DIMENSIONS);
  tensor->rank = (int)json_array_size(shape);
  *elements = 1;
  bool fits = true;
  for (int i = 0; i < tensor->rank; i++) {
    const json_t *extent = json_array_get(shape, (size_t)i);
    REQUIRE(is_count(extent), ERR_FORMAT, "%s: dimension %d of tensor \"%.100s\" is no whole number", file->path, i,
            tensor->name);
    tensor->shape[i] = json_integer_value(extent);
    fits = fits && !__builtin_mul_overflow(*elements, (uint64_t)tensor->shape[i], elements);
  }
  REQUIRE(fits, ERR_FORMAT, "%s: the shape of tensor \"%.100s\" is impossible", file->path, tensor->name);
  return STATUS_OK;
}

static enum status parse_offsets(const struct safetensors *file, const json_t *offsets, uint64_t value_bytes,
                                 struct safetensors_tensor *tensor) {
  const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
  REQUIRE(json_array_size(offsets) == 2 && is_count(begin) && is_count(end), ERR_FORMAT,
          "%s: tensor \"%.100s\" has no two whole numbers as data_offsets", file->path, tensor->name);
  tensor->begin = (uint64_t)json_integer_value(begin);
  tensor->end = (uint64_t)json_integer_value(end);
  REQUIRE(tensor->begin <= tensor->end && tensor->end <= value_bytes, ERR_FORMAT,
          "%s is damaged or cut short: tensor \"%.100s\" is said to lie at bytes %llu to %llu of %llu", file->path,
          tensor->name, (unsigned long long)tensor->begin, (unsigned long long)tensor->end,
          (unsigned long long)value_bytes);
  return STATUS_OK;
}

static enum status parse_tensor(const struct safetensors *file, const char *name, const json_t *entry,
                                uint64_t value_bytes, struct safetensors_tensor *tensor) {
  uint64_t elements = 0, bits = 0;
  TRY(memory_alloc(strlen(name) + 1, (void **)&tensor->name));
  strcpy(tensor->name, name);
  const char *dtype = json_string_value(json_object_get(entry, "dtype"));
  REQUIRE(dtype != NULL, ERR_FORMAT, "%s: tensor \"%.100s\" has no dtype", file->path, name);
  const struct element_type *type = element_type_of(dtype);
  REQUIRE(type != NULL, ERR_FORMAT, "%s: tensor \"%.100s\" has the unknown dtype \"%.20s\"", file->path, name, dtype);
  tensor->dtype = type->name;
  TRY(parse_shape(file, json_object_get(entry, "shape"), tensor, &elements));
  TRY(parse_offsets(file, json_object_get(entry, "data_offsets"), value_bytes, tensor));
  bool fits = !__builtin_mul_overflow(elements, (uint64_t)type->bits, &bits);
  REQUIRE(fits && bits % 8 == 0 && bits / 8 == tensor->end - tensor->begin, ERR_FORMAT,
          "%s is damaged: tensor \"%.100s\" has %llu bytes, which its shape of %llu elements of %s does not fill",
          file->path, name, (unsigned long long)(tensor->end - tensor->begin), (unsigned long long)elements, dtype);
  return STATUS_OK;
}

static enum status check_metadata(const struct safetensors *file, const json_t *metadata) {
  const char *name;
  json_t *value;
  REQUIRE(json_is_object(metadata), ERR_FORMAT, "%s: " METADATA " is no JSON object", file->path);
  json_object_foreach((json_t *)metadata, name, value)
      REQUIRE(json_is_string(value), ERR_FORMAT, "%s: \"%.100s\" in " METADATA " is no text", file->path, name);
  return STATUS_OK;
}

static int by_place(const void *a, const void *b) {
  const struct safetensors_tensor *one = a, *other = b;
  if (one->begin != other->begin)
    return one->begin < other->begin ? -1 : 1;
  return (one->end > other->end) - (one->end < other->end);
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const struct safetensors_tensor *)a)->name, ((const struct safetensors_tensor *)b)->name);
}

/* The format wants every byte to belong to one tensor. */
static enum status check_places(struct safetensors *file, uint64_t value_bytes) {
  uint64_t place = 0;
  qsort(file->tensors, file->count, sizeof *file->tensors, by_place);
  for (size_t i = 0; i < file->count; i++) {
    const struct safetensors_tensor *tensor = &file->tensors[i];
    REQUIRE(tensor->begin == place, ERR_FORMAT, "%s is damaged: tensor \"%.100s\" begins at byte %llu, not %llu",
            file->path, tensor->name, (unsigned long long)tensor->begin, (unsigned long long)place);
    place = tensor->end;
  }
  REQUIRE(place == value_bytes, ERR_FORMAT, "%s is damaged: its tensors fill %llu of %llu bytes", file->path,
          (unsigned long long)place, (unsigned long long)value_bytes);
  qsort(file->tensors, file->count, sizeof *file->tensors, by_name);
  return STATUS_OK;
}

static enum status parse_all(struct safetensors *file) {
  uint64_t header_bytes = 0, value_bytes = 0;
  json_t *header = NULL, *entry;
  const char *name;
  enum status status;
  TRY(locate(file, &header_bytes, &value_bytes));
  TRY_GOTO(parse_header(file, header_bytes, &header), out);
  TRY_GOTO(memory_alloc_zero(json_object_size(header) * sizeof *file->tensors, (void **)&file->tensors), out);
  json_object_foreach(header, name, entry) {
    if (strcmp(name, METADATA) == 0)
      TRY_GOTO(check_metadata(file, entry), out);
    else
      TRY_GOTO(parse_tensor(file, name, entry, value_bytes, &file->tensors[file->count++]), out);
  }
  status = check_places(file, value_bytes);
out:
  json_decref(header);
  return status;
}

enum status safetensors_open(const char *path, struct safetensors **out) {
  struct safetensors *file = NULL;
  enum status status;
  *out = NULL;
  TRY(memory_alloc_zero(sizeof *file, (void **)&file));
  file->descriptor = -1;
  TRY_GOTO(memory_alloc(strlen(path) + 1, (void **)&file->path), failed);
  strcpy(file->path, path);
  TRY_GOTO(parse_all(file), failed);
  *out = file;
  return STATUS_OK;
failed:
  safetensors_close(&file);
  return status;
}

void safetensors_close(struct safetensors **file_pointer) {
  struct safetensors *file = *file_pointer;
  if (file == NULL)
    return;
  for (size_t i = 0; i < file->count; i++)
    memory_free((void **)&file->tensors[i].name);
  if (file->descriptor >= 0)
    close(file->descriptor);
  memory_free((void **)&file->tensors);
  memory_free((void **)&file->path);
  memory_free((void **)file_pointer);
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name) {
  struct safetensors_tensor wanted = {.name = (char *)name};
  return file->count == 0 ? NULL : bsearch(&wanted, file->tensors, file->count, sizeof *file->tensors, by_name);
}

/* ---- values ------------------------------------------------------------------------------- */

/* The float of these bits. */
static float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* IEEE half precision: 1 sign, 5 exponent and 10 fraction bits; every value is a float. */
static float half_value(uint16_t half) {
  uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 0x3ff;
  if (exponent == 31)
    return float_of(sign | 0x7f800000 | fraction << 13);
  if (exponent > 0)
    return float_of(sign | (exponent + 127 - 15) << 23 | fraction << 13);
  return (sign != 0 ? -1.0f : 1.0f) * (float)fraction * 0x1p-24f;
}

/* Element by element from `in`, which lies at the end of the memory of `out`: the wider results, written from the
 * front, never reach an element that is still to be read. */
#define WIDEN(from, to, value)                                        \
  for (int64_t i = 0; i < count; i++) {                               \
    from element;                                                     \
    memcpy(&element, in + i * (int64_t)sizeof(from), sizeof element); \
    to wide = (value);                                                \
    memcpy(out + i * (int64_t)sizeof(to), &wide, sizeof wide);        \
  }                                                                   \
  break

static void widen(const char *dtype, int64_t count, const char *in, char *out) {
  enum { HALF, BRAIN, I16, I8, U16, U32 };
  static const char *const names[] = {
      [HALF] = "F16", [BRAIN] = "BF16", [I16] = "I16", [I8] = "I8", [U16] = "U16", [U32] = "U32"};
  int kind = 0;
  while (strcmp(names[kind], dtype) != 0)
    kind++;
  switch (kind) {
  case HALF:
    WIDEN(uint16_t, float, half_value(element));
  case BRAIN:
    WIDEN(uint16_t, float, float_of((uint32_t)element << 16));
  case I16:
    WIDEN(int16_t, int32_t, element);
  case I8:
    WIDEN(uint8_t, int32_t, (element ^ 0x80) - 0x80); /* two's complement */
  case U16:
    WIDEN(uint16_t, int32_t, element);
  case U32:
    WIDEN(uint32_t, int64_t, element);
  }
}

enum status safetensors_read(const struct safetensors *file, const struct safetensors_tensor *tensor,
                             struct array *out) {
  const struct element_type *type = element_type_of(tensor->dtype);
  size_t stored = (size_t)(tensor->end - tensor->begin);
  *out = (struct array){0};
  REQUIRE(type->readable, ERR_FORMAT, "%s: tensor \"%.100s\" is %s; store it as F32, F16 or BF16", file->path,
          tensor->name, tensor->dtype);
  if (array_create(tensor->name, type->nearest, tensor->rank, tensor->shape, out) != STATUS_OK) {
    char sentence[512];
    snprintf(sentence, sizeof sentence, "%s", status_message());
    return fail(ERR_FORMAT, "%s: %s", file->path, sentence);
  }
  char *data = out->data, *end = data + (array_bytes(out) - stored);
  enum status status = read_bytes(file, file->values + tensor->begin, end, stored);
  if (status != STATUS_OK)
    array_destroy(out);
  else if (end != data)
    widen(tensor->dtype, array_count(out), end, data);
  return status;
}
