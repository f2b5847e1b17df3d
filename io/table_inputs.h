/* The inputs of a table: standardised rows by id, from the file or from memory of the host.  Behind dataset.h.
 *
 * Inputs that lie in the file as plain float32 or float64 stay there and are read by pread: the page cache is shared by
 * the ranks of a host.  Others (chunked, compressed, integers) are read once into memory that they share.  Both give
 * the same bits. */
#ifndef CONR_IO_TABLE_INPUTS_H
#define CONR_IO_TABLE_INPUTS_H

#include "dist/dtype.h"
#include "io/dataset.h"
#include "io/dataset_layout.h"
#include "io/host_share.h"

#include <pthread.h>

struct table_inputs {
  const char *path; /* borrowed, for sentences */
  enum dtype dtype;
  struct h5_dataset stored; /* closed once all is read */
  int64_t rows;
  int features;
  double *mean, *std;            /* [features], owned; NULL = inputs are used as they are                 */
  struct h5_texts feature_names; /* owned                                                                 */
  void *values;                  /* [rows, features] dtype, standardised; NULL when read from the file    */
  int file;                      /* plain inputs: descriptor, -1 otherwise                                */
  int64_t offset;                /* plain inputs: first byte in the file                                  */
  pthread_mutex_t lock;          /* guards the scratch                                                    */
  char *scratch;                 /* one run of stored rows                                                */
  int64_t scratch_rows;
};

/* Open and check; the file's standardisation is replaced by `as` unless that is NULL.  path is borrowed.  Local.  On
 * failure of this or a later function table_inputs_close is still due. */
enum status table_inputs_open(const struct dataset_layout *layout, const char *path, enum dtype dtype,
                              const struct standardisation *as, struct table_inputs *out);

/* How much that is below.  Local. */
size_t table_inputs_shared_bytes(const struct table_inputs *table);

/* Reserve what the ranks of a host share.  Collective, as share says. */
enum status table_inputs_allocate(struct table_inputs *table, const struct host_share *share);

/* Fill it: for the rank that reads for its host.  Local. */
enum status table_inputs_fill(struct table_inputs *table);

/* The HDF5 file is about to be closed.  Local. */
void table_inputs_release_file(struct table_inputs *table);

/* Local. */
void table_inputs_close(struct table_inputs *table, const struct host_share *share);

/* dataset_read; any number of threads. */
enum status table_inputs_read(struct table_inputs *table, const int64_t *ids, int64_t n, void *out);

#endif
