/* A named typed array: what io/ reads from files and writes to them.  Checkpoints, initial parameters
 * and predictions are sets of these, so io/ never needs to know what a model is.
 *
 *     struct array weight;
 *     TRY(array_create("layer0.weight", ARRAY_F32, 2, (int64_t[]){64, 10}, &weight));   owns its data
 *     float *values = weight.data;                                                      [64, 10]
 *     array_destroy(&weight);
 *
 *     struct array view;                                                                borrows its data:
 *     TRY(array_borrow("steps", ARRAY_I64, 0, NULL, &step, &view));                     never destroyed
 *
 * All functions are local. */
#ifndef CONR_IO_ARRAY_H
#define CONR_IO_ARRAY_H

#include "dist/dtype.h"
#include "dist/status.h"

#include <stddef.h>
#include <stdint.h>

#define ARRAY_NAME_BYTES 128
#define ARRAY_MOST_DIMENSIONS 4

enum array_type { ARRAY_U8, ARRAY_I32, ARRAY_I64, ARRAY_F32, ARRAY_F64 };

struct array {
  char name[ARRAY_NAME_BYTES]; /* '/' separates groups of the file; no leading '/'            */
  enum array_type type;
  int rank;                             /* 0 (one number) to ARRAY_MOST_DIMENSIONS            */
  int64_t shape[ARRAY_MOST_DIMENSIONS]; /* [rank]; row-major; an extent may be 0              */
  void *data;                           /* owned, or borrowed when made by array_borrow       */
};

/* Bytes of one element; name such as "f32". */
size_t array_type_bytes(enum array_type type);
const char *array_type_name(enum array_type type);

/* The array type of a computing buffer. */
enum array_type array_type_of(enum dtype dtype);

/* An array of zeros.  shape [rank] may be NULL when rank is 0.
 * ERR_ARGUMENT: a name that is empty, too long or begins or ends with '/', or an impossible shape. */
enum status array_create(const char *name, enum array_type type, int rank, const int64_t *shape, struct array *out);

/* The same around memory of the caller's, which must outlive the array. */
enum status array_borrow(const char *name, enum array_type type, int rank, const int64_t *shape, void *data,
                         struct array *out);

/* Free the data of an array made by array_create; a zeroed or destroyed one is fine. */
void array_destroy(struct array *array);

/* Elements (1 when rank is 0), and bytes of the data. */
int64_t array_count(const struct array *array);
size_t array_bytes(const struct array *array);

/* The elements as numbers of a computing buffer, rounded to the nearest where they do not fit exactly.
 * out  [array_count()] of dtype */
void array_convert(const struct array *array, enum dtype dtype, void *out);

/* "[64, 10]"; `buffer` is returned. */
const char *array_shape_text(int rank, const int64_t *shape, char *buffer, size_t bytes);

#endif
