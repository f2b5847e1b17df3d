/* HDF5 calls with a status and a sentence.  One thread at a time may be in here (the library is not
 * thread-safe); the serial driver is used, so no call is collective.
 *
 *     struct h5_file *file;
 *     struct h5_dataset inputs;
 *     TRY(h5_open("table.h5", &file));
 *     status = h5_dataset_open(file, "inputs", &inputs);
 *     if (status == STATUS_OK)
 *       status = h5_dataset_read(&inputs, 0, inputs.shape[0], ARRAY_F64, values);   any numeric type -> float64
 *     h5_dataset_close(&inputs);
 *     h5_close(&file);
 *
 * Writing goes through a driver that survives a full disk (h5_sink.h): the failure is the one sentence that
 * h5_close, or the next write, returns.  All functions are local.
 * ERR_FILE: cannot be opened, read or written.  ERR_FORMAT: not HDF5, damaged, or not what was asked for. */
#ifndef CONR_IO_H5_H
#define CONR_IO_H5_H

#include "io/array.h"
#include "io/durable.h"

#include <hdf5.h>
#include <stdbool.h>

struct h5_file;

/* Open an existing file for reading.  Any number of processes may do so at once. */
enum status h5_open(const char *path, struct h5_file **out);

/* Create the file aside of `durable` (durable_begin was called); sentences name durable->path. */
enum status h5_create(const struct durable *durable, struct h5_file **out);

/* Close, *file becomes NULL; NULL is fine.  After h5_create: ERR_FILE if any write failed, also an earlier one. */
enum status h5_close(struct h5_file **file);

/* The name for sentences, and HDF5's own handle. */
const char *h5_path(const struct h5_file *file);

/* What a dataset holds. */
enum h5_content { H5_INTEGERS, H5_FLOATS, H5_TEXT, H5_OTHER };

struct h5_dataset {
  struct h5_file *file; /* borrowed: must outlive this */
  char name[ARRAY_NAME_BYTES];
  hid_t id;
  enum h5_content content;
  enum array_type nearest; /* the array type that holds its numbers best; float64 for what is wider */
  int rank;
  int64_t shape[ARRAY_MOST_DIMENSIONS];
};

/* Is there anything of this name ("group/name") in the file? */
bool h5_exists(const struct h5_file *file, const char *name);

/* Open a dataset; checks that its extents are believable for the bytes stored and that its filters are known.
 * On failure *out may still be given to h5_dataset_close. */
enum status h5_dataset_open(struct h5_file *file, const char *name, struct h5_dataset *out);
void h5_dataset_close(struct h5_dataset *dataset);

/* Elements of one row (index of the first dimension): the product of the other extents. */
int64_t h5_dataset_row_count(const struct h5_dataset *dataset);

/* Rows to read at once: about `bytes` of float64, and whole chunks, so that none is decompressed twice. */
int64_t h5_dataset_block_rows(const struct h5_dataset *dataset, size_t bytes);

/* Read rows first .. first + rows - 1 as `type`; out [rows, ...].  For rank 0: first 0, rows 1. */
enum status h5_dataset_read(const struct h5_dataset *dataset, int64_t first, int64_t rows, enum array_type type,
                            void *out);

/* True when the numbers lie in the file as a plain block of this machine's float32 or float64 (`nearest` says
 * which), to be read by pread at *offset without HDF5. */
bool h5_dataset_is_plain(const struct h5_dataset *dataset, int64_t *offset);

/* Where in the file the values of a contiguous dataset begin; -1 when they do not lie there in one piece.  Also of one
 * just created: its room is there at once. */
int64_t h5_dataset_offset(const struct h5_dataset *dataset);

/* Create a contiguous dataset (and the groups in its name), then write rows of it. */
enum status h5_dataset_create(struct h5_file *file, const char *name, enum array_type type, int rank,
                              const int64_t *shape, struct h5_dataset *out);
enum status h5_dataset_write(const struct h5_dataset *dataset, int64_t first, int64_t rows, enum array_type type,
                             const void *data);

/* Call `visit` for every dataset of the file, names as in "group/name"; stops at the first failure. */
enum status h5_each_dataset(struct h5_file *file, enum status (*visit)(void *context, const char *name), void *context);

/* Attributes of the root group.  The readers set *found and leave *out alone when there is none of that name and
 * kind. */
enum status h5_write_text(struct h5_file *file, const char *name, const char *text);
enum status h5_write_integer(struct h5_file *file, const char *name, int64_t value);
enum status h5_write_real(struct h5_file *file, const char *name, double value);
enum status h5_read_text(struct h5_file *file, const char *name, char **out /* memory_free */, bool *found);
enum status h5_read_integer(struct h5_file *file, const char *name, int64_t *out, bool *found);
enum status h5_read_real(struct h5_file *file, const char *name, double *out, bool *found);

/* The names of the attributes of the root group: visit(context, name, content), in order of name. */
enum status h5_each_attribute(struct h5_file *file,
                              enum status (*visit)(void *context, const char *name, enum h5_content content),
                              void *context);

/* A list of texts: one block, freed by memory_free((void **)&texts->text). */
struct h5_texts {
  size_t count;
  char **text;
};

/* Write a one-dimensional string attribute, or a dataset for long lists; read either (fixed-length or variable-length
 * strings).  count 0 when there is none. */
enum status h5_write_texts(struct h5_file *file, const char *name, const char *const *texts, size_t count);
enum status h5_write_text_dataset(struct h5_file *file, const char *name, const char *const *texts, size_t count);
enum status h5_read_texts(struct h5_file *file, const char *name, struct h5_texts *out);

#endif
