/* Batches whose JPEGs the device decodes: the pixels that the host makes, on the emulated CUDA backend and its nvJPEG
 * (tests/emulate) to the bit, since both decode alike; what nvJPEG refuses, and what goes wrong.  With
 * CONR_TEST_DEVICE=cuda some run on a GPU. */
#include "io/device_images.h"

#include "dist/memory.h"
#include "tests/device_support.h"
#include "tests/emulated.h"
#include "tests/io_files.h"
#include "tests/io_images.h"
#include "tests/run_ranks.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#define ROWS 60 /* of which 36 are for training */
#define TRAIN_ROWS 36
#define BATCH 10
#define EPOCH 3
#define LARGE ((size_t)256 << 20)
#define ROOM ((size_t)1 << 20) /* for pictures */

static const struct io_images varied = {
    .rows = ROWS, .height = 37, .width = 45, .checksum = true, .paths = true, .varied = true};
static const struct io_images blocks = {.rows = ROWS, .height = 40, .width = 64, .blocks = true};

static bool on_gpu(void) {
  return !emulated_nvjpeg_use();
}

static void begin(void) {
  io_files_begin();
  if (!gpu_use() || (getenv("CONR_TEST_DEVICE") == NULL && on_gpu()))
    cr_skip("there is no emulated CUDA library");
  if (on_gpu() && dlopen("libnvjpeg.so.13", RTLD_LAZY) == NULL && dlopen("libnvjpeg.so.12", RTLD_LAZY) == NULL)
    cr_skip("this machine has no nvJPEG");
}

TestSuite(device_images, .init = begin, .fini = io_files_end, .timeout = 300);

/* Both loaders over one file, and the device's part. */
struct sides {
  struct dataset *dataset;
  struct loader *host, *records;
  struct device *device;
  struct device_images *images;
  struct stream *stream;
  struct device_images_options made;
  size_t bytes; /* of the largest batch of pixels */
  void *inputs;
};

static struct sides open_sides(const struct io_images *images, const struct loader_options *options, size_t room) {
  struct sides sides = {0};
  struct loader_options own = *options;
  struct sampler sampler = {.rows = TRAIN_ROWS, .batch = BATCH, .seed = 7, .shuffle = true, .size = 1};
  io_images_write(images, io_file("images.h5"));
  MUST(dataset_open(io_file("images.h5"), NULL, F32, &sides.dataset));
  MUST(device_open(0, &sides.device));
  own.no_decode_scaling = true;
  MUST(loader_create(sides.dataset, SPLIT_TRAIN, &sampler, &own, &sides.host));
  own.no_decode_scaling = false;
  own.device = sides.device;
  own.records = true;
  MUST(loader_create(sides.dataset, SPLIT_TRAIN, &sampler, &own, &sides.records));
  sides.made = (struct device_images_options){.height = options->transform.height,
                                              .width = options->transform.width,
                                              .views = options->views,
                                              .threads = 1,
                                              .samples = BATCH,
                                              .room = room};
  sides.bytes = (size_t)BATCH * (size_t)options->views * (size_t)sides.made.height * (size_t)sides.made.width * 3;
  MUST(device_alloc(sides.device, sides.bytes, &sides.inputs));
  MUST(stream_create(sides.device, &sides.stream));
  return sides;
}

static void close_sides(struct sides *sides) {
  device_images_destroy(&sides->images);
  stream_destroy(&sides->stream);
  device_free(sides->device, &sides->inputs);
  loader_destroy(&sides->records);
  loader_destroy(&sides->host);
  dataset_close(&sides->dataset);
  device_close_empty(&sides->device);
}

static struct batch *next(struct loader *loader) {
  struct batch *batch;
  MUST(loader_next(loader, &batch, NULL));
  return batch;
}

/* The largest difference of any value of an epoch, made by the device and by the host. */
static int largest_difference(struct sides *sides) {
  uint8_t *got = malloc(sides->bytes);
  struct batch *wanted;
  int largest = 0;
  MUST(loader_start(sides->host, EPOCH, 0));
  MUST(loader_start(sides->records, EPOCH, 0));
  while ((wanted = next(sides->host)) != NULL) {
    struct batch *batch = next(sides->records);
    size_t bytes = (size_t)(wanted->rows * wanted->views) * sides->bytes / (size_t)(BATCH * wanted->views);
    cr_assert(batch->records != NULL && batch->rows == wanted->rows && batch->samples[0] == wanted->samples[0]);
    MUST(device_images_make(sides->images, sides->stream, batch, sides->inputs));
    MUST(stream_copy(sides->stream, got, sides->inputs, bytes));
    MUST(stream_wait(sides->stream));
    for (size_t i = 0; i < bytes; i++) {
      int apart = abs(got[i] - ((uint8_t *)wanted->inputs)[i]);
      largest = apart > largest ? apart : largest;
    }
  }
  free(got);
  return largest;
}

static int difference_of(const struct io_images *images, const struct loader_options *options, size_t room,
                         struct device_images_counts *counts) {
  struct sides sides = open_sides(images, options, room);
  MUST(device_images_create(sides.device, &sides.made, &sides.images));
  int largest = largest_difference(&sides);
  if (counts != NULL)
    *counts = device_images_counts(sides.images);
  close_sides(&sides);
  return largest;
}

/* --- pixels --------------------------------------------------------------------------------------------------- */

/* A GPU's decoder rounds otherwise: Y, Cb and Cr by 1, which makes 1 + 1.772 + 1/2 of blue, and 1 more where it is rounded
 * in the two directions of a resize.  It may also blow up chroma in another way, so that pictures are not subsampled
 * there; and colour changes would enlarge it. */
#define GPU_LEVELS 4

Test(device_images, each_set_and_number_of_views_has_the_pixels_of_the_host) {
  static const enum transform_set sets[] = {TRANSFORM_PLAIN, TRANSFORM_CROP, TRANSFORM_STRONG};
  struct io_images images = varied;
  images.varied = !on_gpu();
  for (size_t set = 0; set < (on_gpu() ? 2 : 3); set++)
    for (int size = 16; size <= 96; size += 40)
      for (int views = 1; views <= 3; views++) {
        struct loader_options options = io_images_options(sets[set], size, views, 2);
        int apart = difference_of(&images, &options, ROOM, NULL);
        cr_expect(apart <= (on_gpu() ? GPU_LEVELS : 0), "set %zu, size %d, views %d: apart by %d", set, size, views,
                  apart);
      }
}

/* Where no decoder rounds, all the rest is the same to the bit on a GPU, too. */
Test(device_images, pictures_that_decode_alike_everywhere_have_the_very_pixels) {
  static const enum transform_set sets[] = {TRANSFORM_PLAIN, TRANSFORM_CROP, TRANSFORM_STRONG};
  for (size_t set = 0; set < 3; set++)
    for (int size = 20; size <= 100; size += 80) {
      struct loader_options options = io_images_options(sets[set], size, 2, 2);
      options.transform.width = size / 2 + 7;
      cr_expect(eq(int, difference_of(&blocks, &options, ROOM, NULL), 0), "set %zu, size %d", set, size);
    }
}

/* Windows that leave the picture altogether, on all sides. */
Test(device_images, padding_larger_than_the_picture_is_black_as_on_the_host) {
  struct loader_options options = io_images_options(TRANSFORM_CROP, 12, 3, 1);
  options.transform.padding = 20;
  cr_expect(eq(int, difference_of(&blocks, &options, ROOM, NULL), 0));
}

Test(device_images, a_sample_is_decoded_once_for_all_views) {
  struct loader_options options = io_images_options(TRANSFORM_STRONG, 16, 3, 1);
  struct device_images_counts counts;
  if (on_gpu())
    cr_skip("a GPU's decoder does not count");
  cr_assert(eq(int, difference_of(&blocks, &options, ROOM, &counts), 0));
  void *library = dlopen(getenv("CONR_NVJPEG_LIBRARY"), RTLD_NOW | RTLD_NOLOAD);
  int *pictures = library != NULL ? dlsym(library, "emulated_nvjpeg_pictures") : NULL;
  cr_assert(ne(ptr, pictures, NULL));
  cr_expect(eq(int, *pictures, TRAIN_ROWS));
  cr_expect(eq(i64, counts.samples, TRAIN_ROWS));
  cr_expect(eq(i64, counts.host, 0));
  dlclose(library);
}

/* A few pictures at a time, and one at a time; and larger ones than there is room for are the host's. */
Test(device_images, pictures_give_way_to_the_next_ones) {
  static const size_t rooms[] = {60000, 30000, 4000};
  struct loader_options options = io_images_options(TRANSFORM_STRONG, 16, 2, 2);
  for (int i = 0; i < 3; i++) {
    struct device_images_counts counts;
    cr_expect(eq(int, difference_of(&blocks, &options, rooms[i], &counts), 0), "room of %zu bytes", rooms[i]);
    cr_expect(eq(i64, counts.host, rooms[i] == 4000 ? TRAIN_ROWS : 0));
  }
}

/* --- what nvJPEG does not take -------------------------------------------------------------------------------- */

/* PNG, CMYK and arithmetic codes are never given to it. */
static int64_t others(void) {
  int64_t count = 0;
  for (int64_t row = 0; row < ROWS; row++) {
    struct drawing drawing;
    io_images_drawing(&varied, row, &drawing);
    bool jpeg = row % 4 != 3 && drawing.kind != DRAW_CMYK && drawing.kind != DRAW_YCCK && !drawing.arithmetic;
    count += row % 5 < 3 && !jpeg;
  }
  return count;
}

/* Whether its header or its data are refused: the others of its batch are decoded by the device, and all are right. */
Test(device_images, what_is_refused_comes_from_the_host) {
  static const char *const variables[] = {"EMULATED_NVJPEG_REFUSE", "EMULATED_NVJPEG_BLIND"};
  struct loader_options options = io_images_options(TRANSFORM_CROP, 16, 2, 2);
  struct device_images_counts counts;
  if (on_gpu())
    cr_skip("a GPU's decoder does not refuse at will");
  cr_assert(eq(int, difference_of(&varied, &options, ROOM, &counts), 0));
  cr_expect(eq(i64, counts.samples, TRAIN_ROWS));
  cr_expect(eq(i64, counts.host, others()));
  for (int i = 0; i < 2; i++) {
    setenv(variables[i], "39", 1);
    cr_assert(eq(int, difference_of(&varied, &options, ROOM, &counts), 0), "%s", variables[i]);
    cr_expect(gt(i64, counts.host, others()), "%s", variables[i]);
    cr_expect(lt(i64, counts.host, TRAIN_ROWS), "%s", variables[i]);
    unsetenv(variables[i]);
  }
}

Test(device_images, stored_pixels_are_left_as_they_are) {
  struct io_images images = {.rows = ROWS, .height = 20, .width = 20, .pixels = true};
  struct loader_options options = io_images_options(TRANSFORM_CROP, 20, 2, 1);
  struct sides sides = open_sides(&images, &options, ROOM);
  MUST(loader_start(sides.records, EPOCH, 0));
  cr_expect(next(sides.records)->records == NULL);
  close_sides(&sides);
}

/* --- what goes wrong ------------------------------------------------------------------------------------------ */

/* The first failure of the epoch, by the loader or the device. */
static enum status first_failure(struct sides *sides) {
  MUST(loader_start(sides->records, EPOCH, 0));
  for (;;) {
    struct batch *batch;
    TRY(loader_next(sides->records, &batch, NULL));
    if (batch == NULL)
      return STATUS_OK;
    TRY(device_images_make(sides->images, sides->stream, batch, sides->inputs));
    TRY(stream_wait(sides->stream));
  }
}

/* Of which the checksum says nothing: then nvJPEG's word is not the last one. */
Test(device_images, a_damaged_picture_is_told_as_by_the_host) {
  struct io_images images = varied;
  struct loader_options options = io_images_options(TRANSFORM_CROP, 16, 1, 1);
  int64_t offset, length;
  char wanted[1024];
  if (on_gpu())
    cr_skip("a GPU's decoder may not notice");
  images.varied = images.checksum = false;
  struct sides sides = open_sides(&images, &options, ROOM);
  MUST(device_images_create(sides.device, &sides.made, &sides.images));
  io_images_record(io_file("images.h5"), 0, &offset, &length);
  io_images_poke(io_file("images.h5"), offset + length * 3 / 4, "\xff\xd9\xff\xd9\xff\xd9\xff\xd9", 8);
  MUST(loader_start(sides.host, EPOCH, 0));
  struct batch *batch;
  enum status host;
  while ((host = loader_next(sides.host, &batch, NULL)) == STATUS_OK && batch != NULL) {
  }
  cr_assert(eq(int, host, ERR_FORMAT));
  snprintf(wanted, sizeof wanted, "%s", status_message());
  cr_assert(ne(ptr, strstr(wanted, "the image of row 0 (folder/0.jpg) in "), NULL), "%s", wanted);
  REFUSED(first_failure(&sides), ERR_FORMAT, wanted);
  close_sides(&sides);
}

Test(device_images, a_record_that_is_not_what_was_imported_is_told_by_the_loader) {
  struct loader_options options = io_images_options(TRANSFORM_CROP, 16, 1, 1);
  int64_t offset, length;
  struct sides sides = open_sides(&varied, &options, ROOM);
  MUST(device_images_create(sides.device, &sides.made, &sides.images));
  io_images_record(io_file("images.h5"), 2, &offset, &length);
  io_images_poke(io_file("images.h5"), offset + length - 20, "\x55", 1);
  REFUSED(first_failure(&sides), ERR_FORMAT, "the image of row 2 (folder/2.jpg) in ");
  cr_expect(ne(ptr, strstr(status_message(), "its checksum is"), NULL), "%s", status_message());
  close_sides(&sides);
}

/* A library that fails at creation leaves no memory behind. */
static void expect_no_start(enum status code, const char *sentence) {
  struct loader_options options = io_images_options(TRANSFORM_CROP, 16, 1, 1);
  struct sides sides = open_sides(&blocks, &options, LARGE);
  REFUSED(device_images_create(sides.device, &sides.made, &sides.images), code, sentence);
  cr_expect(eq(ptr, sides.images, NULL));
  close_sides(&sides);
}

Test(device_images, a_machine_without_nvjpeg_is_told_what_to_do) {
  if (on_gpu())
    cr_skip("a GPU's machine has it");
  unsetenv("CONR_NVJPEG_LIBRARY");
  if (dlopen("libnvjpeg.so.13", RTLD_LAZY) != NULL || dlopen("libnvjpeg.so.12", RTLD_LAZY) != NULL)
    cr_skip("this machine has nvJPEG");
  expect_no_start(ERR_DEVICE, "nvJPEG is not on this machine (libnvjpeg.so.13, .12 or libnvjpeg.so; ");
  cr_expect(ne(ptr, strstr(status_message(), "install it, or use --decode host"), NULL));
}

Test(device_images, another_library_is_not_taken_for_nvjpeg) {
  char path[RUN_PATH_BYTES];
  setenv("CONR_NVJPEG_LIBRARY", run_build_path("libconr.so", path), 1);
  expect_no_start(ERR_DEVICE, "libconr.so has no function nvjpegCreateEx; ");
  setenv("CONR_NVJPEG_LIBRARY", io_file("none.so"), 1);
  expect_no_start(ERR_DEVICE, "the nvJPEG that CONR_NVJPEG_LIBRARY names cannot be opened: ");
}

Test(device_images, the_host_has_no_nvjpeg) {
  struct device_images *images;
  struct device_images_options options = {.height = 4, .width = 4, .views = 1, .threads = 1, .samples = 1};
  REFUSED(device_images_create(NULL, &options, &images), ERR_DEVICE, "nvJPEG takes a GPU");
}

Test(device_images, a_device_without_memory_says_so) {
  if (on_gpu())
    cr_skip("a GPU's memory is not to be filled");
  setenv("EMULATED_CUDA_MEMORY", "100000000", 1); /* less than there is to be room for pictures */
  expect_no_start(ERR_MEMORY, "has no room for 268435456 bytes more");
}

Test(device_images, nvjpeg_without_memory_says_so) {
  struct loader_options options = io_images_options(TRANSFORM_CROP, 16, 1, 1);
  if (on_gpu())
    cr_skip("a GPU's memory is not to be filled");
  setenv("EMULATED_NVJPEG_ALLOC", "0", 1);
  expect_no_start(ERR_MEMORY, "nvJPEG has no memory for its start: ");
  setenv("EMULATED_NVJPEG_ALLOC", "2", 1);
  struct sides sides = open_sides(&blocks, &options, ROOM);
  MUST(device_images_create(sides.device, &sides.made, &sides.images));
  REFUSED(first_failure(&sides), ERR_MEMORY, "nvJPEG has no memory for decoding a batch: ");
  close_sides(&sides);
}

Test(device_images, a_fault_of_the_gpu_is_not_taken_for_one_of_a_picture) {
  struct loader_options options = io_images_options(TRANSFORM_CROP, 16, 1, 1);
  if (on_gpu())
    cr_skip("a GPU does not fail at will");
  setenv("EMULATED_NVJPEG_FAIL", "3", 1);
  struct sides sides = open_sides(&blocks, &options, ROOM);
  MUST(device_images_create(sides.device, &sides.made, &sides.images));
  REFUSED(first_failure(&sides), ERR_DEVICE, "nvJPEG fails at decoding a batch: work on the GPU failed");
  close_sides(&sides);
}
