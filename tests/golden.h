/* Golden vectors: numeric input / output pairs in HDF5 files, one group per case.
 *
 *     struct golden_file *file = golden_open("pointwise_losses.h5");
 *     for (int i = 0; i < golden_case_count(file); i++) {
 *       const char *name = golden_case_name(file, i);
 *       if (golden_has(file, name, "depth")) {
 *         golden_skip(file, "depth maps");
 *         continue;
 *       }
 *       struct golden_array pred = golden_read(file, name, "pred");
 *       double beta = golden_number(file, name, "beta", 1);
 *       ... compute, compare ...
 *       golden_free(&pred);
 *       golden_ran(file);
 *     }
 *     golden_report(file);
 *     golden_close(&file);
 *
 * Tests iterate over whatever cases a file holds, never over a list of names: files of the same layout with
 * other seeds and shapes are put in their place.  The folder is $GOLDEN_DIR, else tests/golden below the
 * working directory, else the first tests/golden found going up from the executable.
 *
 * A missing file, case, dataset or conversion prints a sentence to standard error and aborts, so Criterion tests
 * and plain MPI programs can use this alike.  All calls are local; several ranks may read the same file.
 * A `path` is a dataset or group below the case ("f64/params_last/layer0.weight"); an `attribute` may be preceded
 * by the path of the object that carries it ("epoch1/fds_epoch_counter"), else it is the case's own. */
#ifndef CONR_TESTS_GOLDEN_H
#define CONR_TESTS_GOLDEN_H

#include "dist/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GOLDEN_MAX_RANK 8

struct golden_file;

/* Any dataset (or numeric attribute) as doubles, row-major.  Integers above 2^53 would be rounded: none are stored. */
struct golden_array {
  int rank;                       /* 0 for a scalar                                     */
  int64_t shape[GOLDEN_MAX_RANK]; /* beyond `rank`: 1, so shape[1] of a vector is 1      */
  int64_t count;                  /* product of the shape; 1 for a scalar               */
  double *data;                   /* [count]                                            */
  bool float32;                   /* the file holds float32 (the reference worked in it) */
};

struct golden_names {
  int count;
  char **name; /* [count] */
};

/* Open a file by its name in the golden folder.  A file without any case aborts: it could not fail a test. */
struct golden_file *golden_open(const char *name);
void golden_close(struct golden_file **file);

/* The cases, in alphabetical order.  Names are borrowed until golden_close(). */
int golden_case_count(const struct golden_file *file);
const char *golden_case_name(const struct golden_file *file, int index);

/* Does a dataset or group exist?  Does an attribute? */
bool golden_has(const struct golden_file *file, const char *name, const char *path);
bool golden_has_attribute(const struct golden_file *file, const char *name, const char *attribute);

/* Members of the group at `path` ("" is the case itself), alphabetical. */
struct golden_names golden_members(const struct golden_file *file, const char *name, const char *path);

struct golden_array golden_read(const struct golden_file *file, const char *name, const char *path);
double golden_scalar(const struct golden_file *file, const char *name, const char *path); /* of one element */

/* A one-dimensional dataset of texts ("param_names"). */
struct golden_names golden_read_names(const struct golden_file *file, const char *name, const char *path);

void golden_free(struct golden_array *array);
void golden_free_names(struct golden_names *names);

/* A numeric attribute of any type (integer, real, boolean); `absent` when there is none. */
double golden_number(const struct golden_file *file, const char *name, const char *attribute, double absent);

/* A numeric attribute of several values; it must exist. */
struct golden_array golden_numbers(const struct golden_file *file, const char *name, const char *attribute);

/* A text attribute, copied into `buffer` (cut texts abort); `absent` when there is none.  The files write an empty
 * text as "-": it is returned as "".  Returns `buffer`. */
const char *golden_text(const struct golden_file *file, const char *name, const char *attribute, const char *absent,
                        char *buffer, size_t bytes);

/* A copy of an array as a buffer of the precision under test; free() it. */
void *golden_buffer(const struct golden_array *array, enum dtype dtype);

/* |got - expected| / |expected|; differences up to 1e-12 count as 0, two NaNs or equal infinities too, one NaN as
 * infinity.  Compare with `<= tolerance`. */
double golden_scalar_error(double got, double expected);

/* Largest |got - expected| over the largest |expected| (undivided when everything expected is 0), with the same rule
 * for NaN and infinities, which do not enter the largest value.  count 0 gives 0. */
double golden_array_error(enum dtype dtype, int64_t count, const void *got, const double *expected);

/* What became of a case.  The reason says what is missing, such as "depth maps come later". */
void golden_ran(struct golden_file *file);
void golden_skip(struct golden_file *file, const char *reason);

/* One line on standard output: "golden FILE: N cases run, M skipped (reasons)"; without any, "(none)".
 * Aborts unless every case of the file was counted exactly once. */
void golden_report(const struct golden_file *file);

#endif
