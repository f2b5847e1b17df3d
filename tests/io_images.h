/* Small datasets of images, made with plain HDF5 calls so that io/ is not its own witness.
 *
 *     struct io_images images = {.rows = 20, .height = 40, .width = 48, .checksum = true, .paths = true};
 *     io_images_write(&images, path);
 *     io_images_drawing(&images, 7, &drawing);                          what row 7 shows
 *     io_images_record(path, 7, &offset, &length);                      where its bytes lie in the file
 *
 * Encoded images are JPEG, every fourth a PNG, each of another size: height + row % 4, width + 2 * (row % 3).  Pixels
 * are the drawings themselves, all height x width.  Row i has the label i % 101, split 0 0 0 1 2 0 0 0 1 2 ..., path
 * "folder/i.jpg".  A failing call prints a sentence and aborts: tests and MPI programs use this alike. */
#ifndef CONR_TESTS_IO_IMAGES_H
#define CONR_TESTS_IO_IMAGES_H

#include "io/loader.h"
#include "tests/draw_images.h"

#include <stdint.h>

struct io_images {
  int64_t rows;
  int height, width;
  bool pixels;  /* else encoded                       */
  bool chunked; /* pixels: in chunks, compressed      */
  bool checksum, paths;
  bool lossless; /* encoded: PNG only                  */
  bool guarded;  /* HDF5's newer format, whose structures have checksums */
  bool varied;   /* encoded: of every kind and orientation           */
  bool blocks;   /* encoded: DRAW_BLOCKS, JPEG only, sides rounded to multiples of 8 */
};

void io_images_write(const struct io_images *images, const char *path);

void io_images_drawing(const struct io_images *images, int64_t row, struct drawing *drawing);

/* Of an encoded dataset: the bytes of a row in the file. */
void io_images_record(const char *path, int64_t row, int64_t *offset, int64_t *length);

/* Change bytes of any file. */
void io_images_poke(const char *path, int64_t offset, const void *bytes, size_t count);

/* A loader's options for images of size x size: crop pads 3, crop and strong mirror half of them. */
struct loader_options io_images_options(enum transform_set set, int size, int views, int workers);

#endif
