/* Images in HDF5: what is read in both layouts, and each way a file can be wrong. */
#include "io/dataset.h"

#include "tests/io_files.h"
#include "tests/io_images.h"
#include "tests/io_table.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

TestSuite(image_dataset, .init = io_files_begin, .fini = io_files_end, .timeout = 120);

#define ROWS 12
#define HEIGHT 20
#define WIDTH 24

static const struct io_images encoded = {
    .rows = ROWS, .height = HEIGHT, .width = WIDTH, .checksum = true, .paths = true};
static const struct io_images pixels = {.rows = ROWS, .height = HEIGHT, .width = WIDTH, .pixels = true};

static const char *fresh(const struct io_images *images) {
  io_images_write(images, io_file("images.h5"));
  return io_file("images.h5");
}

static struct dataset *open_images(const char *path) {
  struct dataset *dataset = NULL;
  cr_assert(eq(int, (int)dataset_open(path, NULL, F32, &dataset), 0), "%s", status_message());
  return dataset;
}

/* dataset_open fails with this sentence; %s in it stands for the path. */
static void expect_refused(enum status wanted, const char *format) {
  struct dataset *dataset;
  char sentence[1000];
  const char *place = strstr(format, "%s"), *path = io_file("images.h5");
  snprintf(sentence, sizeof sentence, "%.*s%s%s", (int)(place - format), format, path, place + 2);
  cr_expect(eq(int, (int)dataset_open(path, NULL, F32, &dataset), (int)wanted));
  cr_expect(eq(str, (char *)status_message(), sentence));
  cr_expect(dataset == NULL);
}

/* Does the image show what was drawn for the row?  Exactly, or (JPEG) in the mean of what differs. */
static void expect_drawn(const struct io_images *images, int64_t row, const struct image *image, double most) {
  struct drawing drawing;
  io_images_drawing(images, row, &drawing);
  cr_assert(eq(int, image->height, drawing.height), "row %ld", (long)row);
  cr_assert(eq(int, image->width, drawing.width), "row %ld", (long)row);
  int count = drawing.height * drawing.width * 3;
  uint8_t *wanted = malloc((size_t)count);
  double sum = 0;
  draw_pixels(&drawing, wanted);
  for (int i = 0; i < count; i++)
    sum += abs(wanted[i] - image->pixels[i]);
  cr_expect(le(dbl, sum / count, most), "row %ld differs by %g in the mean", (long)row, sum / count);
  free(wanted);
}

FILE_TEST(image_dataset, encoded_images_come_back_with_labels_and_names) {
  struct dataset *dataset = open_images(fresh(&encoded));
  struct image_reader *reader;
  struct image image;
  cr_assert(eq(int, (int)image_reader_create(&reader), 0));
  cr_expect(eq(int, (int)dataset_kind(dataset), (int)DATASET_IMAGES));
  cr_expect(eq(int, (int)dataset_image_layout(dataset), (int)IMAGE_LAYOUT_ENCODED));
  cr_expect(eq(int, dataset_features(dataset), 0));
  cr_expect(eq(int, dataset_image_height(dataset), 0));
  cr_expect(eq(i64, dataset_rows(dataset), ROWS));
  cr_expect(eq(i64, dataset_split_rows(dataset, SPLIT_TRAIN), 8));
  cr_expect(eq(str, (char *)dataset_image_name(dataset, 7), "folder/7.jpg"));
  cr_expect(dataset_mean(dataset) == NULL);
  for (int64_t row = ROWS - 1; row >= 0; row--) {
    cr_assert(eq(int, (int)dataset_image_read(dataset, reader, row, 0, 0, &image), 0), "%s", status_message());
    expect_drawn(&encoded, row, &image, row % 4 == 3 ? 0 : 4);
    cr_expect(eq(dbl, dataset_target(dataset)[row], (double)row));
  }
  cr_expect(eq(int, (int)dataset_image_read(dataset, reader, ROWS, 0, 0, &image), ERR_BUG));
  cr_expect(eq(int, (int)dataset_image_read(dataset, reader, -1, 0, 0, &image), ERR_BUG));
  cr_expect(eq(int, (int)dataset_read(dataset, NULL, 0, NULL), ERR_BUG), "it is no table");
  image_reader_destroy(&reader);
  image_reader_destroy(&reader);
  dataset_close(&dataset);
}

FILE_TEST(image_dataset, pixels_read_alike_in_one_piece_and_in_compressed_chunks) {
  struct io_images images = pixels;
  for (int chunked = 0; chunked < 2; chunked++) {
    images.chunked = chunked;
    struct dataset *dataset = open_images(fresh(&images));
    struct image_reader *reader;
    struct image image;
    uint8_t copy[HEIGHT * WIDTH * 3];
    cr_assert(eq(int, (int)image_reader_create(&reader), 0));
    cr_expect(eq(int, (int)dataset_image_layout(dataset), (int)IMAGE_LAYOUT_PIXELS));
    cr_expect(eq(int, dataset_image_height(dataset), HEIGHT));
    cr_expect(eq(int, dataset_image_width(dataset), WIDTH));
    cr_expect(eq(str, (char *)dataset_image_name(dataset, 7), ""));
    for (int64_t row = 0; row < ROWS; row++) {
      cr_assert(eq(int, (int)dataset_image_read(dataset, reader, row, 0, 0, &image), 0), "%s", status_message());
      expect_drawn(&images, row, &image, 0);
      cr_assert(eq(int, (int)dataset_image_copy(dataset, row, 0, sizeof copy, copy), 0));
      cr_expect(memcmp(copy, image.pixels, sizeof copy) == 0, "row %ld", (long)row);
    }
    cr_expect(eq(int, (int)dataset_image_copy(dataset, ROWS, 0, 1, copy), ERR_BUG));
    cr_expect(eq(int, (int)dataset_image_copy(dataset, 0, 0, sizeof copy + 1, copy), ERR_BUG));
    cr_expect(eq(int, (int)dataset_image_copy(dataset, 0, -1, 1, copy), ERR_BUG));
    uint8_t part[7];
    cr_assert(eq(int, (int)dataset_image_copy(dataset, ROWS - 1, 30, 37, part), 0));
    cr_expect(memcmp(part, copy + 30, sizeof part) == 0, "a part of the last row");
    image_reader_destroy(&reader);
    dataset_close(&dataset);
  }
}

FILE_TEST(image_dataset, a_table_is_no_image_dataset) {
  struct io_table table = io_table_plain(5, 2);
  struct image_reader *reader;
  struct image image;
  uint8_t out[4];
  io_table_write(&table, io_file("table.h5"));
  struct dataset *dataset = open_images(io_file("table.h5"));
  cr_assert(eq(int, (int)image_reader_create(&reader), 0));
  cr_expect(eq(int, (int)dataset_kind(dataset), (int)DATASET_TABLE));
  cr_expect(eq(int, (int)dataset_image_read(dataset, reader, 0, 0, 0, &image), ERR_BUG));
  cr_expect(eq(int, (int)dataset_image_copy(dataset, 0, 0, 1, out), ERR_BUG));
  image_reader_destroy(&reader);
  dataset_close(&dataset);
}

FILE_TEST(image_dataset, a_file_says_which_kind_it_is_or_shows_it) {
  struct dataset *dataset;
  io_table_attribute(fresh(&encoded), "conr_format", "images");
  dataset = open_images(io_file("images.h5"));
  dataset_close(&dataset);
  io_table_attribute(fresh(&encoded), "conr_format", "table");
  expect_refused(ERR_FORMAT, "%s has no dataset \"inputs\"; a table needs \"inputs\", \"targets\" and \"split\"");
}

FILE_TEST(image_dataset, rows_may_share_their_bytes) {
  const char *path = fresh(&encoded);
  struct image_reader *reader;
  struct image image;
  int64_t offset, length;
  struct dataset *dataset;
  io_images_record(path, 3, &offset, &length);
  int64_t first, ignored;
  io_images_record(path, 0, &first, &ignored);
  io_table_put(path, "image_offset", 8, (double)(offset - first));
  io_table_put(path, "image_length", 8, (double)length);
  io_table_remove(path, "image_checksum");
  dataset = open_images(path);
  cr_assert(eq(int, (int)image_reader_create(&reader), 0));
  cr_assert(eq(int, (int)dataset_image_read(dataset, reader, 8, 0, 0, &image), 0), "%s", status_message());
  expect_drawn(&encoded, 3, &image, 0);
  image_reader_destroy(&reader);
  dataset_close(&dataset);
}

FILE_TEST(image_dataset, each_dataset_must_be_there_with_its_shape) {
  static const char *const needed[] = {"image_offset", "image_length", "targets", "split"};
  hsize_t eleven = 11, ten = 10, none = 0, flat[4] = {ROWS, HEIGHT, WIDTH, 4}, empty[4] = {ROWS, 0, WIDTH, 3};
  for (int i = 0; i < 4; i++) {
    char format[300];
    io_table_remove(fresh(&encoded), needed[i]);
    snprintf(format, sizeof format,
             "%%s has no dataset \"%s\"; images need \"targets\", \"split\", and \"images\" or else \"image_bytes\", "
             "\"image_offset\" and \"image_length\"",
             needed[i]);
    expect_refused(ERR_FORMAT, format);
  }
  io_table_replace(fresh(&encoded), "image_length", H5T_STD_I64LE, 1, &eleven);
  expect_refused(ERR_FORMAT,
                 "\"image_length\" has 11 rows but \"image_offset\" has 12 in %s; each sample needs one row in both");
  io_table_replace(fresh(&encoded), "image_checksum", H5T_STD_I64LE, 1, &eleven);
  expect_refused(ERR_FORMAT,
                 "\"image_checksum\" has 11 rows but \"image_offset\" has 12 in %s; each sample needs one row in both");
  io_table_replace(fresh(&encoded), "targets", H5T_IEEE_F64LE, 1, &eleven);
  expect_refused(ERR_FORMAT,
                 "\"targets\" has 11 rows but \"image_offset\" has 12 in %s; each sample needs one row in both");
  io_table_replace(fresh(&pixels), "split", H5T_STD_U8LE, 1, &eleven);
  expect_refused(ERR_FORMAT, "\"split\" has 11 rows but \"images\" has 12 in %s; each sample needs one row in both");
  io_table_replace(fresh(&encoded), "image_bytes", H5T_STD_I8LE, 1, &ten);
  expect_refused(ERR_FORMAT, "\"image_bytes\" in %s must be [bytes] of unsigned bytes");
  io_table_replace(fresh(&encoded), "image_bytes", H5T_STD_U8LE, 1, &none);
  expect_refused(ERR_FORMAT, "\"image_bytes\" in %s is empty, compressed or stored in chunks; store it contiguous");
  io_table_replace(fresh(&encoded), "image_offset", H5T_IEEE_F64LE, 1, &eleven);
  expect_refused(ERR_FORMAT, "\"image_offset\" in %s must be [rows] of integers");
  io_table_replace(fresh(&pixels), "images", H5T_STD_U8LE, 4, flat);
  expect_refused(ERR_FORMAT, "\"images\" in %s must be [rows, height, width, 3] of unsigned bytes");
  io_table_replace(fresh(&pixels), "images", H5T_STD_U8LE, 4, empty);
  expect_refused(ERR_FORMAT, "\"images\" in %s are 0 x 24 pixels; an image has 1 to 268435456");
}

FILE_TEST(image_dataset, a_list_of_paths_has_one_for_each_row) {
  struct io_images other = encoded;
  other.rows = ROWS - 1;
  io_images_write(&other, io_file("other.h5"));
  io_table_remove(fresh(&encoded), "paths");
  hid_t from = H5Fopen(io_file("other.h5"), H5F_ACC_RDONLY, H5P_DEFAULT);
  hid_t to = H5Fopen(io_file("images.h5"), H5F_ACC_RDWR, H5P_DEFAULT);
  cr_assert(H5Ocopy(from, "paths", to, "paths", H5P_DEFAULT, H5P_DEFAULT) >= 0);
  H5Fclose(to);
  H5Fclose(from);
  expect_refused(ERR_FORMAT, "\"paths\" in %s has 11 texts, not 12");
}

static int64_t bytes_in_all(void) {
  hid_t file = H5Fopen(fresh(&encoded), H5F_ACC_RDONLY, H5P_DEFAULT), set = H5Dopen2(file, "image_bytes", H5P_DEFAULT);
  int64_t bytes = (int64_t)H5Dget_storage_size(set);
  H5Dclose(set);
  H5Fclose(file);
  return bytes;
}

/* One wrong number; the numbers of the sentence are filled in. */
static void expect_place_refused(const char *name, int64_t value, const char *format) {
  char sentence[400];
  hid_t file = H5Fopen(fresh(&encoded), H5F_ACC_RDWR, H5P_DEFAULT), set = H5Dopen2(file, name, H5P_DEFAULT);
  int64_t values[ROWS];
  H5Dread(set, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
  values[5] = value;
  H5Dwrite(set, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
  H5Dclose(set);
  H5Fclose(file);
  snprintf(sentence, sizeof sentence, format, "%s", (long long)value);
  expect_refused(ERR_FORMAT, sentence);
}

FILE_TEST(image_dataset, places_outside_the_bytes_are_refused_when_the_file_is_opened) {
  int64_t bytes = bytes_in_all(), offset, length, first, ignored;
  char outside[400];
  io_images_record(io_file("images.h5"), 0, &first, &ignored);
  io_images_record(io_file("images.h5"), 5, &offset, &length);
  int64_t lengths[] = {0, -1, ((int64_t)1 << 30) + 1, INT64_MAX, INT64_MIN};
  for (int i = 0; i < 5; i++)
    expect_place_refused("image_length", lengths[i],
                         "\"image_length\" in %s is %lld at row 5; an image has 1 to 1073741824 bytes");
  snprintf(outside, sizeof outside,
           "\"image_offset\" in %%s is %%lld at row 5, so that its %lld bytes do not lie inside the %lld of "
           "\"image_bytes\"",
           (long long)length, (long long)bytes);
  int64_t offsets[] = {-1, bytes - length + 1, bytes, INT64_MAX, INT64_MAX - length + 1, INT64_MIN};
  for (int i = 0; i < 6; i++)
    expect_place_refused("image_offset", offsets[i], outside);
  expect_place_refused("image_checksum", -1, "\"image_checksum\" in %s is %lld at row 5; a CRC-32 is 0 to 4294967295");
  expect_place_refused("image_checksum", (int64_t)1 << 32,
                       "\"image_checksum\" in %s is %lld at row 5; a CRC-32 is 0 to 4294967295");
}

FILE_TEST(image_dataset, changed_bytes_are_noticed_and_named) {
  const char *path = fresh(&encoded);
  struct image_reader *reader;
  struct image image;
  int64_t offset, length;
  char begin[400];
  io_images_record(path, 6, &offset, &length);
  io_images_poke(path, offset + length / 2, "changed", 7);
  struct dataset *dataset = open_images(path);
  cr_assert(eq(int, (int)image_reader_create(&reader), 0));
  cr_expect(eq(int, (int)dataset_image_read(dataset, reader, 6, 0, 0, &image), ERR_FORMAT));
  snprintf(begin, sizeof begin, "the image of row 6 (folder/6.jpg) in %s cannot be used: its checksum is ", path);
  cr_expect(strncmp(status_message(), begin, strlen(begin)) == 0, "%s", status_message());
  cr_expect(eq(int, (int)dataset_image_read(dataset, reader, 5, 0, 0, &image), 0), "the others are whole");
  image_reader_destroy(&reader);
  dataset_close(&dataset);
}

FILE_TEST(image_dataset, a_broken_image_is_named_with_what_is_wrong) {
  struct io_images images = encoded;
  struct image_reader *reader;
  struct image image;
  int64_t offset, length;
  char begin[400];
  images.checksum = images.paths = false;
  const char *path = fresh(&images);
  io_images_record(path, 6, &offset, &length);
  io_images_poke(path, offset, "no JPEG", 7);
  struct dataset *dataset = open_images(path);
  cr_assert(eq(int, (int)image_reader_create(&reader), 0));
  cr_expect(eq(int, (int)dataset_image_read(dataset, reader, 6, 0, 0, &image), ERR_FORMAT));
  snprintf(begin, sizeof begin, "the image of row 6 in %s cannot be used: ", path);
  cr_expect(strncmp(status_message(), begin, strlen(begin)) == 0, "%s", status_message());
  cr_expect(gt(int, (int)strlen(status_message()), (int)strlen(begin) + 10), "%s", status_message());
  image_reader_destroy(&reader);
  dataset_close(&dataset);
}

FILE_TEST(image_dataset, a_file_cut_while_in_use_is_an_error_not_a_crash) {
  const struct io_images *kinds[] = {&encoded, &pixels};
  for (int i = 0; i < 2; i++) {
    const char *path = fresh(kinds[i]);
    struct image_reader *reader;
    struct image image;
    struct dataset *dataset = open_images(path);
    cr_assert(eq(int, (int)image_reader_create(&reader), 0));
    cr_assert(truncate(path, 3000) == 0);
    cr_expect(eq(int, (int)dataset_image_read(dataset, reader, ROWS - 1, 0, 0, &image), ERR_FILE));
    cr_expect(strstr(status_message(), "was cut short while it was in use: byte ") != NULL, "%s", status_message());
    image_reader_destroy(&reader);
    dataset_close(&dataset);
  }
}

static uint64_t hash_of(const char *path) {
  struct dataset *dataset = open_images(path);
  uint64_t hash = dataset_hash(dataset);
  dataset_close(&dataset);
  return hash;
}

FILE_TEST(image_dataset, hash_changes_with_labels_splits_places_checksums_and_shapes) {
  const char *path = fresh(&encoded);
  uint64_t hash = hash_of(path), other;
  cr_expect(hash_of(path) == hash);
  static const struct {
    const char *name;
    int row, value;
  } changes[] = {
      {"targets", 3, 50}, {"split", 3, 0}, {"image_offset", 1, 1}, {"image_length", 1, 5}, {"image_checksum", 1, 7}};
  for (int i = 0; i < 5; i++) {
    io_table_put(path, changes[i].name, changes[i].row, changes[i].value);
    other = hash_of(path);
    cr_expect(other != hash, "a change of %s was not seen", changes[i].name);
    hash = other;
  }
  io_table_remove(path, "image_checksum");
  cr_expect(hash_of(path) != hash, "checksums taken away");
  struct io_images images = pixels, turned = pixels;
  turned.height = WIDTH, turned.width = HEIGHT;
  hash = hash_of(fresh(&images));
  cr_expect(hash_of(fresh(&turned)) != hash, "pixels of another shape");
  images.chunked = true;
  cr_expect(hash_of(fresh(&images)) == hash, "how pixels are stored does not matter");
}

FILE_TEST(image_dataset, an_absurd_claim_is_refused_before_memory_is_asked_for) {
  hsize_t shape[4] = {1u << 20, 1u << 12, 1u << 12, 3}, chunk[4] = {1, 64, 64, 3};
  hid_t file = H5Fopen(fresh(&pixels), H5F_ACC_RDWR, H5P_DEFAULT);
  hid_t space = H5Screate_simple(4, shape, NULL), creation = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_chunk(creation, 4, chunk);
  H5Ldelete(file, "images", H5P_DEFAULT);
  H5Dclose(H5Dcreate2(file, "images", H5T_STD_U8LE, space, H5P_DEFAULT, creation, H5P_DEFAULT));
  H5Pclose(creation);
  H5Sclose(space);
  H5Fclose(file);
  expect_refused(ERR_FORMAT,
                 "\"images\" in %s claims 52776558133248 bytes but stores 0; it is damaged or was never filled");
}

FILE_TEST(image_dataset, images_made_with_h5py_are_read) {
  for (int64_t row = 0; row < 6; row++) {
    struct drawing drawing;
    char name[16];
    io_images_drawing(&encoded, row, &drawing);
    snprintf(name, sizeof name, "%d.img", (int)row);
    row % 4 == 3 ? draw_png(io_file(name), &drawing) : draw_jpeg(io_file(name), &drawing);
  }
  io_python("import h5py, numpy as np, sys, zlib\n"
            "files = [open('%s/%d.img' % (sys.argv[1], i), 'rb').read() for i in range(6)]\n"
            "length = np.array([len(x) for x in files])\n"
            "with h5py.File(sys.argv[1] + '/images.h5', 'w') as f:\n"
            "  f['image_bytes'] = np.frombuffer(b''.join(files), 'u1')\n"
            "  f['image_length'] = length\n"
            "  f['image_offset'] = np.cumsum(length) - length\n"
            "  f['image_checksum'] = np.array([zlib.crc32(x) for x in files])\n"
            "  f['targets'] = np.arange(6, dtype='f4')\n"
            "  f['split'] = np.arange(6) % 3\n"
            "  f['paths'] = ['%d.img' % i for i in range(6)]\n"
            "  f.attrs['conr_format'] = 'images'\n"
            "  f.attrs['conr_version'] = 1\n",
            io_file(""));
  struct dataset *dataset = open_images(io_file("images.h5"));
  struct image_reader *reader;
  struct image image;
  cr_assert(eq(int, (int)image_reader_create(&reader), 0));
  for (int64_t row = 0; row < 6; row++) {
    cr_assert(eq(int, (int)dataset_image_read(dataset, reader, row, 0, 0, &image), 0), "%s", status_message());
    expect_drawn(&encoded, row, &image, row % 4 == 3 ? 0 : 4);
  }
  cr_expect(eq(str, (char *)dataset_image_name(dataset, 4), "4.img"));
  image_reader_destroy(&reader);
  dataset_close(&dataset);
}
