/* The file an image import writes: rank 0 makes its frame, with labels and room for the images; then all ranks and
 * threads write images into their places.  Behind import_images.h.
 *
 *     struct import_output output = {.file = -1};
 *     TRY(import_output_create(options, source, rows, records, &output));     rank 0
 *     TRY(import_output_open(options->output_path, &output));                 every rank; data_offset is rank 0's
 *     TRY(import_output_write(&output, row_offset, bytes, count));            any thread
 *     TRY(import_output_close(&output));                                      on disk now
 *     TRY(durable_commit(&output.durable));                                   rank 0, after all have closed
 *
 * All functions are local.  ERR_FILE: the disk is full, or what else the system says. */
#ifndef CONR_IO_IMPORT_OUTPUT_H
#define CONR_IO_IMPORT_OUTPUT_H

#include "io/durable.h"
#include "io/import_journal.h"
#include "io/import_source.h"

struct import_output {
  struct durable durable;
  int64_t bytes;       /* of the whole file */
  int64_t data_offset; /* where the first image begins */
  int file;            /* -1 = closed */
};

/* Write everything but the images, and take the room on the disk. */
enum status import_output_create(const struct import_images_options *options, const struct import_rows *rows,
                                 const struct import_record *records, struct import_output *output);

/* Is the file aside still there, of `bytes`?  Sets output->durable. */
bool import_output_is_there(const char *path, int64_t bytes, struct import_output *output);

enum status import_output_open(const char *path, struct import_output *output);

/* offset counts from the first image. */
enum status import_output_write(const struct import_output *output, int64_t offset, const uint8_t *bytes, size_t count);

/* What was written is on the disk when this returns. */
enum status import_output_sync(const struct import_output *output);
enum status import_output_close(struct import_output *output);

#endif
