/* Where an image import takes its images from: files of a folder, or one of the layouts in an HDF5 file.  Behind
 * import_images.h.
 *
 *     struct import_source *source;
 *     struct import_blob blob = {0};                                      one per thread
 *     TRY(import_source_open(options, &source));
 *     status = import_source_read(source, rows, row, &blob);              ERR_FORMAT: this image is broken, go on
 *     import_blob_free(&blob);
 *     import_source_close(&source);
 *
 * All functions are local.  Any number of threads may read at once; HDF5 is entered by one of them at a time. */
#ifndef CONR_IO_IMPORT_SOURCE_H
#define CONR_IO_IMPORT_SOURCE_H

#include "io/h5.h"
#include "io/import_rows.h"

enum import_source_kind { SOURCE_FOLDER, SOURCE_ENCODED, SOURCE_PIXELS };

struct import_source {
  enum import_source_kind kind;
  int height, width; /* SOURCE_PIXELS */
  /* SOURCE_FOLDER */
  char *folder; /* owned */
  /* SOURCE_ENCODED, SOURCE_PIXELS */
  struct h5_file *file;
  struct h5_dataset images;                      /* "image_bytes" or "images" */
  int64_t rows, *offset, *length, *expected_crc; /* [rows], owned; expected_crc NULL = the file has none */
};

/* The bytes of one image: a file's own, or pixels [height, width, 3]. */
struct import_blob {
  uint8_t *bytes;
  size_t count, capacity;
  int64_t modified; /* SOURCE_FOLDER: nanoseconds since 1970 */
};

/* The reason of a path that leads nowhere. */
#define IMPORT_NO_SUCH_FILE "there is no such file"

/* An image file larger than this is refused. */
#define IMPORT_MOST_FILE_BYTES ((int64_t)1 << 30)

enum status import_source_open(const struct import_images_options *options, struct import_source **out);
void import_source_close(struct import_source **source);

/* Read the image of a row into the blob, which grows as needed.
 * ERR_FORMAT: this image is missing, empty, too large or damaged; the sentence does not name it. */
enum status import_source_read(const struct import_source *source, const struct import_rows *rows, int64_t row,
                               struct import_blob *blob);
void import_blob_free(struct import_blob *blob);

/* Is the file of a row still the one of so many bytes, changed then?  Always so within an HDF5 file. */
bool import_source_is_same(const struct import_source *source, const struct import_rows *rows, int64_t row,
                           int64_t bytes, int64_t modified);

/* Path of an image's file; PATH_MAX bytes.  ERR_FORMAT: too long. */
enum status import_source_path(const struct import_source *source, const char *path, char *out);

#endif
