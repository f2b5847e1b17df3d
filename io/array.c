/* Named typed arrays. */
#include "io/array.h"

#include "dist/memory.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* No file of ours comes near: a larger extent is a damaged file or a slip, and products below cannot overflow. */
#define MOST_ELEMENTS ((int64_t)1 << 46)

size_t array_type_bytes(enum array_type type) {
  static const size_t bytes[] = {[ARRAY_U8] = 1, [ARRAY_I32] = 4, [ARRAY_I64] = 8, [ARRAY_F32] = 4, [ARRAY_F64] = 8};
  return bytes[type];
}

const char *array_type_name(enum array_type type) {
  static const char *const names[] = {
      [ARRAY_U8] = "u8", [ARRAY_I32] = "i32", [ARRAY_I64] = "i64", [ARRAY_F32] = "f32", [ARRAY_F64] = "f64"};
  return names[type];
}

enum array_type array_type_of(enum dtype dtype) {
  return dtype == F32 ? ARRAY_F32 : ARRAY_F64;
}

enum status array_borrow(const char *name, enum array_type type, int rank, const int64_t *shape, void *data,
                         struct array *out) {
  memset(out, 0, sizeof *out);
  size_t length = strlen(name);
  bool fits = length > 0 && length < ARRAY_NAME_BYTES;
  REQUIRE(fits, ERR_ARGUMENT, "the array name \"%.40s\" has %zu characters; it must have 1 to %d", name, length,
          ARRAY_NAME_BYTES - 1);
  REQUIRE(name[0] != '/' && name[length - 1] != '/' && strstr(name, "//") == NULL, ERR_ARGUMENT,
          "the array name \"%s\" has an empty part; write \"group/name\"", name);
  REQUIRE(rank >= 0 && rank <= ARRAY_MOST_DIMENSIONS, ERR_ARGUMENT, "array \"%s\" has %d dimensions; the most is %d",
          name, rank, ARRAY_MOST_DIMENSIONS);
  int64_t count = 1;
  for (int i = 0; i < rank; i++) {
    REQUIRE(shape[i] >= 0 && (shape[i] == 0 || count <= MOST_ELEMENTS / shape[i]), ERR_ARGUMENT,
            "dimension %d of array \"%s\" is %lld, which is impossible", i, name, (long long)shape[i]);
    count *= shape[i];
    out->shape[i] = shape[i];
  }
  memcpy(out->name, name, length + 1);
  out->type = type;
  out->rank = rank;
  out->data = data;
  return STATUS_OK;
}

enum status array_create(const char *name, enum array_type type, int rank, const int64_t *shape, struct array *out) {
  TRY(array_borrow(name, type, rank, shape, NULL, out));
  return memory_alloc_zero(array_bytes(out), &out->data);
}

void array_destroy(struct array *array) {
  memory_free(&array->data);
  memset(array, 0, sizeof *array);
}

int64_t array_count(const struct array *array) {
  int64_t count = 1;
  for (int i = 0; i < array->rank; i++)
    count *= array->shape[i];
  return count;
}

size_t array_bytes(const struct array *array) {
  return (size_t)array_count(array) * array_type_bytes(array->type);
}

/* Element i of a numeric array, as double. */
static double element(const struct array *array, int64_t i) {
  switch (array->type) {
  case ARRAY_U8:
    return ((const uint8_t *)array->data)[i];
  case ARRAY_I32:
    return ((const int32_t *)array->data)[i];
  case ARRAY_I64:
    return (double)((const int64_t *)array->data)[i];
  case ARRAY_F32:
    return (double)((const float *)array->data)[i];
  case ARRAY_F64:
    break;
  }
  return ((const double *)array->data)[i];
}

void array_convert(const struct array *array, enum dtype dtype, void *out) {
  int64_t count = array_count(array);
  if (array->type == array_type_of(dtype) && count > 0) {
    memcpy(out, array->data, array_bytes(array));
    return;
  }
  for (int64_t i = 0; i < count; i++)
    if (dtype == F32)
      ((float *)out)[i] = (float)element(array, i);
    else
      ((double *)out)[i] = element(array, i);
}

const char *array_shape_text(int rank, const int64_t *shape, char *buffer, size_t bytes) {
  size_t used = (size_t)snprintf(buffer, bytes, "[");
  for (int i = 0; i < rank && used < bytes; i++)
    used += (size_t)snprintf(buffer + used, bytes - used, "%s%lld", i ? ", " : "", (long long)shape[i]);
  if (used < bytes)
    snprintf(buffer + used, bytes - used, "]");
  return buffer;
}
