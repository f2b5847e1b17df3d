/* The safetensors format: named tensors in a file that PyTorch and others read and write without running code.
 *
 *     struct safetensors *file;
 *     TRY(safetensors_open("resnet50.safetensors", &file));              the header alone is read, and checked
 *     const struct safetensors_tensor *tensor = safetensors_find(file, "fc.weight");
 *     TRY(safetensors_read(file, tensor, &array));                       one tensor at a time
 *     array_destroy(&array);
 *     safetensors_close(&file);
 *
 *     struct safetensors_text metadata[] = {{"format", "pt"}};           what torch's own writer says
 *     TRY(safetensors_write("model.safetensors", arrays, count, metadata, 1));
 *
 * A file is 8 bytes that hold the header's length, a JSON header that gives each name its dtype, shape and
 * data_offsets, and the values, little-endian and without gaps.  All functions are local. */
#ifndef CONR_IO_SAFETENSORS_H
#define CONR_IO_SAFETENSORS_H

#include "io/array.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SAFETENSORS_MOST_DIMENSIONS 8

/* The format's own limit on the header, and ours on what it may list: a forged file gets no absurd memory. */
#define SAFETENSORS_MOST_HEADER_BYTES ((uint64_t)100000000)
#define SAFETENSORS_MOST_TENSORS 262144

/* What the header says of one tensor. */
struct safetensors_tensor {
  char *name;        /* owned by the file; of any length */
  const char *dtype; /* "F32", ...: as in the file       */
  int rank;
  int64_t shape[SAFETENSORS_MOST_DIMENSIONS]; /* [rank]; row-major; an extent may be 0 */
  uint64_t begin, end;                        /* bytes from the start of the values    */
};

struct safetensors {
  char *path;
  int descriptor;
  uint64_t values; /* where the values begin in the file */
  struct safetensors_tensor *tensors;
  size_t count; /* of tensors, in order of name */
};

struct safetensors_text {
  const char *name, *value;
};

/* Is it meant to be such a file?  Its first bytes decide; where they cannot, its name does.  A file that cannot be
 * opened is not. */
bool safetensors_is(const char *path);

/* Read and check the header: afterwards every tensor lies within the file and has as many bytes as its shape needs.
 * ERR_FILE: it cannot be read.  ERR_FORMAT: it is not safetensors, or damaged; the sentence names file and tensor. */
enum status safetensors_open(const char *path, struct safetensors **out);
void safetensors_close(struct safetensors **file);

/* The tensor of that name, borrowed, or NULL. */
const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name);

/* One tensor's values.  F32, F64, I32, I64 and U8 come as they are, BOOL as u8; F16 and BF16 are widened to f32, I8,
 * I16 and U16 to i32, U32 to i64.  array_destroy() the result.
 * ERR_FORMAT: another dtype, more than ARRAY_MOST_DIMENSIONS dimensions, or a name that is none for an array.
 * ERR_FILE: the file cannot be read, or has become shorter. */
enum status safetensors_read(const struct safetensors *file, const struct safetensors_tensor *tensor,
                             struct array *out);

/* Write path.tmp, sync it, rename it to path (durable.h).  Tensors are stored in order of name, wide elements first, so
 * that each is aligned.  metadata [metadata_count] goes under "__metadata__".
 * ERR_FILE as durable_begin() and durable_commit() say; an older file of that name is then untouched.
 * ERR_ARGUMENT: two arrays of one name, a name that is not UTF-8. */
enum status safetensors_write(const char *path, const struct array *arrays, size_t count,
                              const struct safetensors_text *metadata, size_t metadata_count);

#endif
