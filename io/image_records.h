/* The images of a dataset: where each row's record lies, and reading one.  Behind dataset.h; layout: io/README.md.
 *
 * Encoded records (JPEG, PNG) and pixels that lie in the file in one piece are read by pread; pixels stored in chunks
 * are read once into memory of the host.  What is kept of an encoded record is 24 bytes, once a host, and one byte,
 * once a process.  Opening checks every place and length, so that reading needs no check but the record's own. */
#ifndef CONR_IO_IMAGE_RECORDS_H
#define CONR_IO_IMAGE_RECORDS_H

#include "io/dataset.h"
#include "io/dataset_layout.h"
#include "io/host_share.h"

#include <stddef.h>

/* A record longer than this is no image. */
#define IMAGE_MOST_BYTES ((int64_t)1 << 30)

struct image_place {
  int64_t offset, length; /* inside image_bytes */
  int64_t checksum;       /* CRC-32; 0 when the file has none */
};

struct image_records {
  const char *path;                                   /* borrowed, for sentences                               */
  struct h5_dataset stored, offset, length, checksum; /* closed once all is read; stored: the bytes or pixels  */
  enum image_layout layout;
  int64_t rows;
  int height, width; /* of pixels; 0 when encoded                                                      */
  bool has_checksum;
  int file;                   /* descriptor; -1 when the pixels are in memory                                   */
  int64_t first_byte;         /* of the bytes or pixels in the file                                             */
  struct image_place *places; /* [rows]; NULL for pixels                                                        */
  uint8_t *verified;          /* [rows] 1 = this process has seen the record whole; NULL without checksums      */
  uint8_t *pixels;            /* [rows, height, width, 3]; NULL when they are read from the file                */
  struct h5_texts names;      /* of the reading rank, until they are shared                                     */
  int64_t names_bytes;        /* of all texts with their NULs; 0 = the file names nothing                       */
  int64_t *name_place;        /* [rows], then the texts                                                         */
};

/* As for a table: table_inputs.h. */
enum status image_records_open(const struct dataset_layout *layout, const char *path, const struct host_share *share,
                               struct image_records *out);
size_t image_records_shared_bytes(const struct image_records *images);
enum status image_records_allocate(struct image_records *images, const struct host_share *share);
enum status image_records_fill(struct image_records *images);
void image_records_release_file(struct image_records *images);
void image_records_close(struct image_records *images, const struct host_share *share);

/* CRC-32 of all that is known of the records without reading them. */
uint32_t image_records_hash(const struct image_records *images, uint32_t hash);

/* Where a row's image came from; "" when the file does not say. */
const char *image_records_name(const struct image_records *images, int64_t row);

/* A failure of a row, worded with its name and the file: the last sentence is completed. */
enum status image_records_fail(const struct image_records *images, int64_t row, enum status status);

/* The record as stored, unchecked; *bytes lies in memory of the host or in the buffer, which grows as needed. */
struct image_buffer {
  uint8_t *bytes; /* owned */
  size_t capacity;
};
enum status image_records_read(const struct image_records *images, int64_t row, struct image_buffer *buffer,
                               const uint8_t **bytes, size_t *count);

/* An encoded record straight to `out`, which has room for its bytes, and verified. */
enum status image_records_fetch(const struct image_records *images, int64_t row, uint8_t *out);

/* Stored pixels straight to `out`: bytes first to end - 1 of the row's. */
enum status image_records_copy(const struct image_records *images, int64_t row, int64_t first, int64_t end,
                               uint8_t *out);

/* ERR_FORMAT unless these are the bytes that were imported.  A record is checked when this process reads it first:
 * after that it comes from the same file, and a training run reads each of them once an epoch. */
enum status image_records_verify(const struct image_records *images, int64_t row, const uint8_t *bytes, size_t count);

#endif
