/* The rows of an image import: where each image is, and its label.  Behind import_images.h.
 *
 *     struct import_rows *rows;
 *     TRY(import_rows_read_csv(options, &rows));          or import_rows_read_h5
 *     import_rows_keep(rows, kept);                       without the rows whose image is broken
 *     TRY(import_rows_settle(rows, options));             draws splits, checks that something can be learned
 *     import_rows_destroy(&rows);
 *
 * All functions are local. */
#ifndef CONR_IO_IMPORT_ROWS_H
#define CONR_IO_IMPORT_ROWS_H

#include "io/import_images.h"

struct import_rows {
  int64_t count;
  int target_count;
  char **target_names; /* [target_count] */
  double *targets;     /* [count, target_count] */
  double *weights;     /* [count], NULL = none  */
  uint8_t *split;      /* [count] */
  bool draw_split;     /* `split` is still to be drawn */
  char **path;         /* [count]; NULL when the HDF5 file names none */
  void *path_texts;    /* what they point into, when it is not the same block */
  int64_t *number;     /* [count] the line of the CSV file, or the row of the HDF5 file */
  char *unused;        /* columns without a purpose; NULL = none */
  char *source;        /* what the labels were made from */
  uint32_t checksum;   /* of the CSV file's bytes, or of the HDF5 file's size and time */
};

/* ERR_FILE, ERR_FORMAT, ERR_ARGUMENT: a sentence with the line and the column. */
enum status import_rows_read_csv(const struct import_images_options *options, struct import_rows **out);
enum status import_rows_read_h5(const char *path, struct import_rows **out);
void import_rows_destroy(struct import_rows **rows);

/* Leave out the rows that are not kept; kept [count]. */
void import_rows_keep(struct import_rows *rows, const bool *kept);

/* Draw the splits of the rows there are, when they are to be drawn.  ERR_FORMAT: no row is for training, or a target
 * has one value in all of them. */
enum status import_rows_settle(struct import_rows *rows, const struct import_images_options *options);

#endif
