/* Small datasets of images. */
#include "tests/io_images.h"

#include <fcntl.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#define CHECK(call) check((int64_t)(call), #call, __LINE__)

static int64_t check(int64_t code, const char *call, int line) {
  if (code < 0) {
    fprintf(stderr, "io_images.c:%d: %s failed\n", line, call);
    abort();
  }
  return code;
}

static void write_set(hid_t file, const char *name, hid_t type, int rank, const hsize_t *shape, hid_t creation,
                      hid_t memory_type, const void *values) {
  hid_t space = CHECK(H5Screate_simple(rank, shape, NULL));
  hid_t set = CHECK(H5Dcreate2(file, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT));
  CHECK(H5Dwrite(set, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values));
  H5Dclose(set);
  H5Sclose(space);
}

static void write_row_numbers(hid_t file, const char *name, int64_t rows, const int64_t *values) {
  hsize_t shape = (hsize_t)rows;
  write_set(file, name, H5T_STD_I64LE, 1, &shape, H5P_DEFAULT, H5T_NATIVE_INT64, values);
}

/* Rows that are PNG keep to colours. */
static void vary(int64_t row, struct drawing *drawing) {
  static const enum drawing_kind kinds[] = {DRAW_COLOUR, DRAW_GREY, DRAW_COLOUR, DRAW_COLOUR, DRAW_CMYK, DRAW_YCCK};
  drawing->orientation = (int)(row % 9);
  if (row % 4 == 3)
    return;
  drawing->kind = kinds[row % 6];
  drawing->progressive = row % 5 == 1;
  drawing->arithmetic = row % 11 == 6;
  drawing->subsampling = 1 + (int)(row / 2 % 2);
}

void io_images_drawing(const struct io_images *images, int64_t row, struct drawing *drawing) {
  *drawing = (struct drawing){.height = images->height, .width = images->width, .label = (double)(row % 101)};
  if (images->pixels)
    return;
  drawing->height += (int)(row % 4);
  drawing->width += 2 * (int)(row % 3);
  if (images->varied)
    vary(row, drawing);
  if (!images->blocks)
    return;
  drawing->kind = DRAW_BLOCKS;
  drawing->quality = 100;
  drawing->height = drawing->height / 8 * 8;
  drawing->width = drawing->width / 8 * 8;
}

static void write_encoded(const struct io_images *images, hid_t file) {
  int64_t *offset = calloc((size_t)images->rows, sizeof *offset),
          *length = calloc((size_t)images->rows, sizeof *length);
  int64_t *checksum = calloc((size_t)images->rows, sizeof *checksum), end = 0;
  uint8_t *all = NULL;
  for (int64_t row = 0; row < images->rows; row++) {
    struct drawing drawing;
    uint8_t *bytes;
    size_t count;
    io_images_drawing(images, row, &drawing);
    (images->lossless || (row % 4 == 3 && !images->blocks) ? draw_png_bytes : draw_jpeg_bytes)(&drawing, &bytes,
                                                                                               &count);
    all = realloc(all, (size_t)end + count);
    memcpy(all + end, bytes, count);
    offset[row] = end;
    length[row] = (int64_t)count;
    checksum[row] = (int64_t)crc32_z(0, bytes, count);
    end += (int64_t)count;
    free(bytes);
  }
  hsize_t shape = (hsize_t)end;
  write_set(file, "image_bytes", H5T_STD_U8LE, 1, &shape, H5P_DEFAULT, H5T_NATIVE_UINT8, all);
  write_row_numbers(file, "image_offset", images->rows, offset);
  write_row_numbers(file, "image_length", images->rows, length);
  if (images->checksum)
    write_row_numbers(file, "image_checksum", images->rows, checksum);
  free(all);
  free(checksum);
  free(length);
  free(offset);
}

static void write_pixels(const struct io_images *images, hid_t file) {
  hsize_t shape[4] = {(hsize_t)images->rows, (hsize_t)images->height, (hsize_t)images->width, 3};
  hsize_t chunk[4] = {shape[0] > 3 ? 3 : shape[0], (shape[1] + 1) / 2, shape[2], 3};
  size_t bytes = (size_t)images->height * (size_t)images->width * 3;
  uint8_t *all = malloc((size_t)images->rows * bytes);
  for (int64_t row = 0; row < images->rows; row++) {
    struct drawing drawing;
    io_images_drawing(images, row, &drawing);
    draw_pixels(&drawing, all + (size_t)row * bytes);
  }
  hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
  if (images->chunked) {
    CHECK(H5Pset_chunk(creation, 4, chunk));
    CHECK(H5Pset_deflate(creation, 1));
  }
  write_set(file, "images", H5T_STD_U8LE, 4, shape, creation, H5T_NATIVE_UINT8, all);
  H5Pclose(creation);
  free(all);
}

static void write_labels(const struct io_images *images, hid_t file) {
  hsize_t shape = (hsize_t)images->rows;
  double *values = malloc((size_t)images->rows * sizeof *values);
  for (int64_t i = 0; i < images->rows; i++)
    values[i] = (double)(i % 101);
  write_set(file, "targets", H5T_IEEE_F64LE, 1, &shape, H5P_DEFAULT, H5T_NATIVE_DOUBLE, values);
  for (int64_t i = 0; i < images->rows; i++)
    values[i] = i % 5 < 3 ? 0 : (double)(i % 5 - 2);
  write_set(file, "split", H5T_STD_U8LE, 1, &shape, H5P_DEFAULT, H5T_NATIVE_DOUBLE, values);
  free(values);
}

static void write_paths(const struct io_images *images, hid_t file) {
  hsize_t shape = (hsize_t)images->rows;
  char(*paths)[32] = calloc((size_t)images->rows, sizeof *paths);
  hid_t type = H5Tcopy(H5T_C_S1);
  CHECK(H5Tset_size(type, 32));
  for (int64_t i = 0; i < images->rows; i++)
    snprintf(paths[i], sizeof paths[i], "folder/%lld.jpg", (long long)i);
  write_set(file, "paths", type, 1, &shape, H5P_DEFAULT, type, paths);
  H5Tclose(type);
  free(paths);
}

void io_images_write(const struct io_images *images, const char *path) {
  H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
  hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  if (images->guarded)
    CHECK(H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18));
  hid_t file = CHECK(H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access));
  H5Pclose(access);
  images->pixels ? write_pixels(images, file) : write_encoded(images, file);
  write_labels(images, file);
  if (images->paths)
    write_paths(images, file);
  CHECK(H5Fclose(file));
}

static int64_t read_one(hid_t file, const char *name, int64_t row) {
  hid_t set = CHECK(H5Dopen2(file, name, H5P_DEFAULT)), space = H5Dget_space(set);
  int64_t *values = malloc((size_t)H5Sget_simple_extent_npoints(space) * sizeof *values);
  CHECK(H5Dread(set, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values));
  int64_t value = values[row];
  free(values);
  H5Sclose(space);
  H5Dclose(set);
  return value;
}

void io_images_record(const char *path, int64_t row, int64_t *offset, int64_t *length) {
  hid_t file = CHECK(H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT));
  hid_t set = CHECK(H5Dopen2(file, "image_bytes", H5P_DEFAULT));
  *offset = (int64_t)H5Dget_offset(set) + read_one(file, "image_offset", row);
  *length = read_one(file, "image_length", row);
  H5Dclose(set);
  CHECK(H5Fclose(file));
}

void io_images_poke(const char *path, int64_t offset, const void *bytes, size_t count) {
  int file = open(path, O_WRONLY);
  CHECK(file);
  CHECK(pwrite(file, bytes, count, (off_t)offset) == (ssize_t)count ? 0 : -1);
  close(file);
}

struct loader_options io_images_options(enum transform_set set, int size, int views, int workers) {
  return (struct loader_options){.views = views,
                                 .workers = workers,
                                 .transform = {.height = size,
                                               .width = size,
                                               .set = set,
                                               .padding = set == TRANSFORM_CROP ? 3 : 0,
                                               .flip = set == TRANSFORM_PLAIN ? 0 : 0.5,
                                               .scale_low = set == TRANSFORM_STRONG ? 0.3 : 0,
                                               .seed = 5}};
}
