/* A set of named arrays and attributes in one HDF5 file, written whole or not at all and guarded by a checksum.
 *
 *     struct array arrays[2];                      filled by array_borrow or array_create
 *     struct attribute attributes[] = {attribute_text("method", "conr"), attribute_integer("step", 1200)};
 *     TRY(array_file_write("run/last.h5", arrays, 2, attributes, 2));
 *
 *     struct array_file *file;
 *     TRY(array_file_read("run/last.h5", true, &file));
 *     TRY(array_file_integer(file, "step", &step));
 *     const struct array *weight = array_file_find(file, "layer0.weight");
 *     array_file_destroy(&file);
 *
 * The checksum (crc32 over names, types, shapes, values and attributes, whatever their order in the file) is the
 * attribute "checksum_crc32".  Files that others made, with h5py for example, have none and are read with
 * require_checksum false; a checksum that is there is always verified.  All functions are local. */
#ifndef CONR_IO_ARRAY_FILE_H
#define CONR_IO_ARRAY_FILE_H

#include "io/array.h"

#include <stdbool.h>

enum attribute_kind { ATTRIBUTE_TEXT, ATTRIBUTE_INTEGER, ATTRIBUTE_REAL };

struct attribute {
  const char *name;
  enum attribute_kind kind;
  const char *text; /* borrowed; owned by the array_file after reading */
  int64_t integer;
  double real;
};

static inline struct attribute attribute_text(const char *name, const char *text) {
  return (struct attribute){.name = name, .kind = ATTRIBUTE_TEXT, .text = text};
}

static inline struct attribute attribute_integer(const char *name, int64_t value) {
  return (struct attribute){.name = name, .kind = ATTRIBUTE_INTEGER, .integer = value};
}

static inline struct attribute attribute_real(const char *name, double value) {
  return (struct attribute){.name = name, .kind = ATTRIBUTE_REAL, .real = value};
}

/* Write path.tmp, sync it, rename it to path, sync the folder.
 * ERR_FILE: it cannot be written (a full disk included); an older file of that name is then untouched and nothing
 * is left aside.  ERR_ARGUMENT: two arrays or two attributes of one name. */
enum status array_file_write(const char *path, const struct array *arrays, size_t array_count,
                             const struct attribute *attributes, size_t attribute_count);

/* What was read; all of it is owned. */
struct array_file {
  char *path;
  struct array *arrays; /* in order of name */
  size_t array_count;
  struct attribute *attributes; /* in order of name, the checksum not among them; other kinds are left out */
  size_t attribute_count;
};

/* Read every array and every attribute that is one text or one number.  Numbers of other types are widened to the
 * nearest array type.  ERR_FORMAT: not HDF5, damaged, holds something that is no numbers, or no checksum when one
 * is required. */
enum status array_file_read(const char *path, bool require_checksum, struct array_file **out);
void array_file_destroy(struct array_file **file);

/* The array of that name, borrowed, or NULL. */
const struct array *array_file_find(const struct array_file *file, const char *name);

/* An attribute's value; the text is borrowed.  ERR_FORMAT names the file when it is not there or of another kind. */
enum status array_file_text(const struct array_file *file, const char *name, const char **out);
enum status array_file_integer(const struct array_file *file, const char *name, int64_t *out);
enum status array_file_real(const struct array_file *file, const char *name, double *out);

#endif
