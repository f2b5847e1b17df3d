/* Batches of images: the pixels that decoding and transforming one by one gives, for any number of workers and ranks,
 * with and without the cache. */
#include "io/loader.h"

#include "dist/memory.h"
#include "io/host_memory.h"
#include "tests/io_files.h"
#include "tests/io_images.h"
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(image_loader, .init = io_files_begin, .fini = io_files_end, .timeout = 120);
TestSuite(image_cache, .init = io_files_begin, .fini = io_files_end, .timeout = 60);
TestSuite(host_memory, .init = io_files_begin, .fini = io_files_end, .timeout = 60);

#define ROWS 40 /* of which 24 are for training */
#define TRAIN_ROWS 24
#define SIZE 16
#define BYTES ((size_t)SIZE * SIZE * 3)
#define BATCH 7

static const struct io_images encoded = {.rows = ROWS, .height = 37, .width = 45, .checksum = true, .paths = true};

static struct dataset *open_images(const struct io_images *images) {
  struct dataset *dataset;
  io_images_write(images, io_file("images.h5"));
  cr_assert(eq(int, (int)dataset_open(io_file("images.h5"), NULL, F32, &dataset), 0), "%s", status_message());
  return dataset;
}

static struct sampler sampler_of(int rank, int size) {
  return (struct sampler){.rows = TRAIN_ROWS, .batch = BATCH, .seed = 7, .shuffle = true, .rank = rank, .size = size};
}

static struct loader *create(struct dataset *dataset, const struct sampler *sampler,
                             const struct loader_options *options) {
  struct loader *loader;
  cr_assert(eq(int, (int)loader_create(dataset, SPLIT_TRAIN, sampler, options, &loader), 0), "%s", status_message());
  return loader;
}

static struct batch *next(struct loader *loader) {
  struct batch *batch;
  cr_assert(eq(int, (int)loader_next(loader, &batch, NULL), 0), "%s", status_message());
  return batch;
}

/* The pixels of a whole epoch, [views, TRAIN_ROWS] images in order of position; free() them. */
static uint8_t *epoch_of(struct dataset *dataset, int ranks, const struct loader_options *options, int64_t epoch) {
  uint8_t *out = malloc((size_t)options->views * TRAIN_ROWS * BYTES);
  for (int rank = 0; rank < ranks; rank++) {
    struct sampler sampler = sampler_of(rank, ranks);
    struct loader *loader = create(dataset, &sampler, options);
    struct batch *batch;
    cr_assert(eq(int, (int)loader_start(loader, epoch, 0), 0));
    while ((batch = next(loader)) != NULL) {
      size_t first = (size_t)sampler_shard(&sampler, batch->step).first;
      for (int view = 0; view < batch->views; view++)
        memcpy(out + ((size_t)view * TRAIN_ROWS + first) * BYTES,
               (uint8_t *)batch->inputs + (size_t)(view * batch->rows) * BYTES, (size_t)batch->rows * BYTES);
    }
    loader_destroy(&loader);
  }
  return out;
}

/* Each sample by itself, from a decoder and a transform of its own. */
static void expect_one_by_one(const struct io_images *images, enum transform_set set, int views, bool full) {
  struct dataset *dataset = open_images(images);
  struct loader_options options = io_images_options(set, SIZE, views, 2);
  struct image_reader *reader;
  struct transform_worker *transformer;
  struct sampler sampler = sampler_of(0, 1);
  uint8_t wanted[BYTES];
  options.no_decode_scaling = full;
  uint8_t *got = epoch_of(dataset, 1, &options, 3);
  cr_assert(eq(int, (int)image_reader_create(&reader), 0));
  cr_assert(eq(int, (int)transform_create(&options.transform, &transformer), 0));
  int least = full || set == TRANSFORM_STRONG ? 0 : SIZE;
  for (int64_t i = 0; i < TRAIN_ROWS; i++) {
    int64_t row = dataset_split_ids(dataset, SPLIT_TRAIN)[sampler_sample(&sampler, 3, i)];
    for (int view = 0; view < views; view++) {
      struct image image;
      struct transform_draw draw = {.epoch = 3, .sample = row, .view = view};
      cr_assert(eq(int, (int)dataset_image_read(dataset, reader, row, least, least, &image), 0));
      cr_assert(eq(int, (int)transform_apply(transformer, &image, &draw, wanted), 0));
      cr_expect(memcmp(wanted, got + ((size_t)view * TRAIN_ROWS + (size_t)i) * BYTES, BYTES) == 0,
                "row %ld, view %d, set %d, pixels %d, full %d", (long)row, view, (int)set, images->pixels, full);
    }
  }
  free(got);
  transform_destroy(&transformer);
  image_reader_destroy(&reader);
  dataset_close(&dataset);
}

FILE_TEST(image_loader, views_are_what_one_decode_and_one_transform_give) {
  struct io_images fitting = {.rows = ROWS, .height = SIZE, .width = SIZE, .pixels = true};
  struct io_images larger = {.rows = ROWS, .height = 20, .width = 31, .pixels = true};
  for (int set = TRANSFORM_PLAIN; set <= TRANSFORM_STRONG; set++) {
    for (int chunked = 0; chunked < 2; chunked++) {
      fitting.chunked = larger.chunked = chunked;
      expect_one_by_one(&fitting, set, 2, false);
      expect_one_by_one(&fitting, set, 1, false);
      expect_one_by_one(&larger, set, 1 + set, false);
    }
    expect_one_by_one(&encoded, set, 2, false);
    expect_one_by_one(&encoded, set, 1, true);
  }
}

FILE_TEST(image_loader, views_of_a_sample_differ_by_their_draws) {
  struct dataset *dataset = open_images(&encoded);
  struct loader_options options = io_images_options(TRANSFORM_CROP, SIZE, 2, 1);
  uint8_t *epoch = epoch_of(dataset, 1, &options, 0), *other = epoch_of(dataset, 1, &options, 1);
  int differ = 0;
  for (size_t i = 0; i < TRAIN_ROWS; i++)
    differ += memcmp(epoch + i * BYTES, epoch + (TRAIN_ROWS + i) * BYTES, BYTES) != 0;
  cr_expect(gt(int, differ, TRAIN_ROWS / 2));
  cr_expect(memcmp(epoch, other, TRAIN_ROWS * BYTES) != 0, "epochs differ");
  free(other);
  free(epoch);
  dataset_close(&dataset);
}

FILE_TEST(image_loader, any_number_of_workers_and_ranks_gives_the_same_pixels) {
  struct dataset *dataset = open_images(&encoded);
  for (int set = TRANSFORM_PLAIN; set <= TRANSFORM_STRONG; set++) {
    struct loader_options options = io_images_options(set, SIZE, 2, 1);
    uint8_t *wanted = epoch_of(dataset, 1, &options, 4);
    for (int workers = 1; workers <= 9; workers += workers < 3 ? 1 : 6)
      for (int ranks = 1; ranks <= 9; ranks += ranks < 4 ? 1 : 5) { /* beyond 7 ranks some have no rows */
        options.workers = workers;
        uint8_t *got = epoch_of(dataset, ranks, &options, 4);
        cr_expect(memcmp(got, wanted, 2 * TRAIN_ROWS * BYTES) == 0, "set %d, %d workers, %d ranks", set, workers,
                  ranks);
        free(got);
      }
    free(wanted);
  }
  dataset_close(&dataset);
}

FILE_TEST(image_loader, labels_weights_and_ids_stand_beside_every_view) {
  struct dataset *dataset = open_images(&encoded);
  struct sampler sampler = sampler_of(0, 1);
  struct loader_options options = io_images_options(TRANSFORM_CROP, SIZE, 3, 2);
  struct loader *loader = create(dataset, &sampler, &options);
  struct batch *batch;
  cr_assert(eq(int, (int)loader_start(loader, 1, 2), 0));
  int64_t step = 2;
  while ((batch = next(loader)) != NULL) {
    cr_expect(eq(i64, batch->step, step));
    cr_expect(eq(i64, batch->rows, step == 3 ? 3 : BATCH));
    for (int64_t i = 0; i < 3 * batch->rows; i++) {
      int64_t position = step * BATCH + i % batch->rows;
      int64_t row = dataset_split_ids(dataset, SPLIT_TRAIN)[sampler_sample(&sampler, 1, position)];
      cr_expect(eq(i64, batch->samples[i], row));
      cr_expect(eq(flt, ((float *)batch->targets)[i], (float)row));
      cr_expect(eq(flt, ((float *)batch->weights)[i], 1.0f));
    }
    step++;
  }
  cr_expect(eq(i64, step, 4));
  loader_destroy(&loader);
  dataset_close(&dataset);
}

FILE_TEST(image_loader, a_batch_stays_untouched_while_it_is_used) {
  struct dataset *dataset = open_images(&encoded);
  struct sampler sampler = sampler_of(0, 1);
  struct loader_options options = io_images_options(TRANSFORM_PLAIN, SIZE, 1, 4);
  struct loader *loader = create(dataset, &sampler, &options);
  struct batch *batch;
  static uint8_t before[BATCH * BYTES];
  cr_assert(eq(int, (int)loader_start(loader, 1, 0), 0));
  while ((batch = next(loader)) != NULL) {
    memcpy(before, batch->inputs, (size_t)batch->rows * BYTES);
    usleep(20000); /* time for workers that run too far ahead */
    cr_expect(memcmp(before, batch->inputs, (size_t)batch->rows * BYTES) == 0, "step %ld", (long)batch->step);
  }
  loader_destroy(&loader);
  dataset_close(&dataset);
}

FILE_TEST(image_loader, it_stops_at_any_time_and_starts_again) {
  struct dataset *dataset = open_images(&encoded);
  struct sampler sampler = sampler_of(0, 1);
  struct loader_options options = io_images_options(TRANSFORM_CROP, SIZE, 2, 3);
  struct loader *loader = create(dataset, &sampler, &options);
  for (int round = 0; round < 100; round++) {
    cr_assert(eq(int, (int)loader_start(loader, round, 0), 0));
    for (int step = 0; step < round % 4; step++)
      cr_assert(eq(i64, next(loader)->epoch, round));
    if (round % 2 == 0)
      loader_stop(loader);
  }
  loader_destroy(&loader);
  dataset_close(&dataset);
}

/* Break the image of a row; returns the position of the row in the epoch. */
static int64_t break_image(struct dataset *dataset, const struct sampler *sampler, int64_t epoch, int64_t row) {
  int64_t offset, length;
  io_images_record(io_file("images.h5"), row, &offset, &length);
  io_images_poke(io_file("images.h5"), offset + 3, "broken", 6);
  for (int64_t i = 0; i < TRAIN_ROWS; i++)
    if (dataset_split_ids(dataset, SPLIT_TRAIN)[sampler_sample(sampler, epoch, i)] == row)
      return i;
  cr_fatal("row %ld is not for training", (long)row);
}

FILE_TEST(image_loader, the_first_broken_image_of_an_epoch_is_the_one_that_is_named) {
  struct dataset *dataset = open_images(&encoded);
  struct sampler sampler = sampler_of(0, 1);
  const int64_t broken[] = {2, 11, 20, 31};
  int64_t first = TRAIN_ROWS, row = -1;
  for (int i = 0; i < 4; i++) {
    int64_t position = break_image(dataset, &sampler, 0, broken[i]);
    row = position < first ? broken[i] : row;
    first = position < first ? position : first;
  }
  char begin[400];
  snprintf(begin, sizeof begin, "the image of row %d (folder/%d.jpg) in %s cannot be used: its checksum is ", (int)row,
           (int)row, io_file("images.h5"));
  for (int round = 0; round < 40; round++) {
    struct loader_options options = io_images_options(TRANSFORM_CROP, SIZE, 2, 1 + round % 4);
    struct loader *loader = create(dataset, &sampler, &options);
    struct batch *batch;
    cr_assert(eq(int, (int)loader_start(loader, 0, 0), 0));
    for (int64_t step = 0; step < first / BATCH; step++)
      cr_expect(eq(i64, next(loader)->step, step), "the batches before it are whole");
    for (int again = 0; again < 2; again++) {
      cr_expect(eq(int, (int)loader_next(loader, &batch, NULL), ERR_FORMAT));
      cr_expect(batch == NULL);
      cr_expect(strncmp(status_message(), begin, strlen(begin)) == 0, "%d workers: %s", 1 + round % 4,
                status_message());
    }
    loader_destroy(&loader);
  }
  dataset_close(&dataset);
}

FILE_TEST(image_loader, requests_without_sense_are_refused) {
  struct dataset *dataset = open_images(&encoded);
  struct sampler sampler = sampler_of(0, 1);
  struct loader_options options = io_images_options(TRANSFORM_CROP, SIZE, 1, 1);
  struct image_cache *cache;
  struct loader *loader;
  options.transform.flip = 2;
  cr_expect(eq(int, (int)loader_create(dataset, SPLIT_TRAIN, &sampler, &options, &loader), ERR_ARGUMENT));
  options = io_images_options(TRANSFORM_CROP, SIZE, 1, 1);
  cr_assert(eq(int, (int)image_cache_create(dataset, NULL, &options.transform, false, IMAGE_CACHE_ON, &cache), 0));
  options.cache = cache;
  options.transform.height++;
  cr_expect(eq(int, (int)loader_create(dataset, SPLIT_TRAIN, &sampler, &options, &loader), ERR_BUG));
  cr_expect(loader == NULL);
  image_cache_destroy(&cache);
  dataset_close(&dataset);
}

FILE_TEST(image_loader, ranks_share_files_and_cache_and_give_the_same_pixels) {
  for (int ranks = 1; ranks <= 4; ranks++) {
    struct run_result run;
    const char *const arguments[] = {io_file(""), NULL};
    cr_assert(eq(int, run_ranks(ranks, "rank_image_loader", arguments, &run), 0), "%d ranks: %s", ranks, run.output);
    run_result_free(&run);
  }
}

/* ---- the cache ----------------------------------------------------------------------------- */

FILE_TEST(image_cache, gives_the_same_pixels_and_is_filled_once) {
  struct dataset *dataset = open_images(&encoded);
  for (int set = TRANSFORM_PLAIN; set <= TRANSFORM_CROP; set++) {
    struct loader_options options = io_images_options(set, SIZE, 2, 3), kept = options;
    struct image_cache *cache;
    cr_assert(eq(int, (int)image_cache_create(dataset, NULL, &options.transform, false, IMAGE_CACHE_AUTO, &cache), 0));
    cr_assert(cache != NULL, "40 small images fit");
    cr_expect(eq(i64, image_cache_bytes(cache), (int64_t)(ROWS * BYTES)));
    cr_expect(eq(i64, image_cache_ready(cache), 0));
    kept.cache = cache;
    for (int64_t epoch = 0; epoch < 3; epoch++) {
      uint8_t *wanted = epoch_of(dataset, 1, &options, epoch), *got = epoch_of(dataset, 2, &kept, epoch);
      cr_expect(memcmp(got, wanted, 2 * TRAIN_ROWS * BYTES) == 0, "set %d, epoch %d", set, (int)epoch);
      cr_expect(eq(i64, image_cache_ready(cache), TRAIN_ROWS));
      free(got);
      free(wanted);
    }
    image_cache_destroy(&cache);
    image_cache_destroy(&cache);
  }
  dataset_close(&dataset);
}

FILE_TEST(image_cache, is_what_is_read_once_it_is_filled) {
  struct dataset *dataset = open_images(&encoded);
  struct loader_options options = io_images_options(TRANSFORM_CROP, SIZE, 1, 2);
  struct sampler sampler = sampler_of(0, 1);
  cr_assert(
      eq(int, (int)image_cache_create(dataset, NULL, &options.transform, false, IMAGE_CACHE_ON, &options.cache), 0));
  uint8_t *first = epoch_of(dataset, 1, &options, 2);
  for (int64_t row = 0; row < ROWS; row++)
    if (row % 5 < 3)
      break_image(dataset, &sampler, 2, row);
  uint8_t *again = epoch_of(dataset, 1, &options, 2);
  cr_expect(memcmp(first, again, TRAIN_ROWS * BYTES) == 0, "the file was read again");
  free(again);
  free(first);
  image_cache_destroy(&options.cache);
  dataset_close(&dataset);
}

FILE_TEST(image_cache, a_row_that_somebody_never_finishes_stops_nobody) {
  struct dataset *dataset = open_images(&encoded);
  struct loader_options options = io_images_options(TRANSFORM_CROP, SIZE, 2, 2), kept = options;
  cr_assert(eq(int, (int)image_cache_create(dataset, NULL, &options.transform, false, IMAGE_CACHE_ON, &kept.cache), 0));
  cr_assert(image_cache_claim(kept.cache, 5) != NULL);
  cr_expect(image_cache_claim(kept.cache, 5) == NULL, "claimed twice");
  cr_expect(image_cache_find(kept.cache, 5) == NULL);
  uint8_t *wanted = epoch_of(dataset, 1, &options, 0), *got = epoch_of(dataset, 1, &kept, 0);
  cr_expect(memcmp(got, wanted, 2 * TRAIN_ROWS * BYTES) == 0);
  cr_expect(eq(i64, image_cache_ready(kept.cache), TRAIN_ROWS - 1));
  free(got);
  free(wanted);
  image_cache_destroy(&kept.cache);
  dataset_close(&dataset);
}

FILE_TEST(image_cache, a_broken_image_is_not_kept) {
  struct dataset *dataset = open_images(&encoded);
  struct loader_options options = io_images_options(TRANSFORM_CROP, SIZE, 1, 2);
  struct sampler sampler = sampler_of(0, 1);
  struct batch *batch = NULL;
  break_image(dataset, &sampler, 0, 10);
  cr_assert(
      eq(int, (int)image_cache_create(dataset, NULL, &options.transform, false, IMAGE_CACHE_ON, &options.cache), 0));
  for (int again = 0; again < 2; again++) {
    struct loader *loader = create(dataset, &sampler, &options);
    enum status status = loader_start(loader, 0, 0);
    while (status == STATUS_OK && (status = loader_next(loader, &batch, NULL)) == STATUS_OK && batch != NULL) {
    }
    cr_expect(eq(int, (int)status, ERR_FORMAT));
    cr_expect(strstr(status_message(), "folder/10.jpg") != NULL, "%s", status_message());
    cr_expect(image_cache_find(options.cache, 10) == NULL);
    loader_destroy(&loader);
  }
  image_cache_destroy(&options.cache);
  dataset_close(&dataset);
}

FILE_TEST(image_cache, is_made_only_where_it_is_of_use) {
  struct io_images stored = {.rows = 5, .height = SIZE, .width = SIZE, .pixels = true};
  struct loader_options crop = io_images_options(TRANSFORM_CROP, SIZE, 1, 1),
                        strong = io_images_options(TRANSFORM_STRONG, SIZE, 1, 1);
  struct dataset *dataset = open_images(&encoded);
  struct image_cache *cache;
  cr_expect(eq(int, (int)image_cache_create(dataset, NULL, &crop.transform, false, IMAGE_CACHE_OFF, &cache), 0));
  cr_expect(cache == NULL);
  cr_expect(eq(int, (int)image_cache_create(dataset, NULL, &strong.transform, false, IMAGE_CACHE_AUTO, &cache), 0));
  cr_expect(cache == NULL);
  cr_expect(
      eq(int, (int)image_cache_create(dataset, NULL, &strong.transform, false, IMAGE_CACHE_ON, &cache), ERR_ARGUMENT));
  cr_expect(cache == NULL);
  crop.transform.height = crop.transform.width = 65536; /* 515 GB */
  cr_expect(eq(int, (int)image_cache_create(dataset, NULL, &crop.transform, false, IMAGE_CACHE_AUTO, &cache), 0));
  cr_expect(cache == NULL);
  cr_expect(
      eq(int, (int)image_cache_create(dataset, NULL, &crop.transform, false, IMAGE_CACHE_ON, &cache), ERR_ARGUMENT));
  cr_expect(strstr(status_message(), "needs 515.4 GB a host, but ") != NULL, "%s", status_message());
  dataset_close(&dataset);
  crop = io_images_options(TRANSFORM_CROP, SIZE, 1, 1);
  dataset = open_images(&stored);
  cr_expect(eq(int, (int)image_cache_create(dataset, NULL, &crop.transform, false, IMAGE_CACHE_ON, &cache), 0));
  cr_expect(cache == NULL, "the file has these pixels");
  dataset_close(&dataset);
}

/* ---- records ------------------------------------------------------------------------------- */

static bool same_plan(const struct transform_plan *a, const struct transform_plan *b) {
  bool same = a->top == b->top && a->left == b->left && a->height == b->height && a->width == b->width &&
              a->window.down == b->window.down && a->window.right == b->window.right &&
              a->window.mirrored == b->window.mirrored && a->changes == b->changes && a->grey == b->grey;
  for (int i = 0; i < a->changes; i++)
    same = same && a->change[i] == b->change[i] && a->amount[i] == b->amount[i];
  return same;
}

/* Each row comes as its bytes and the plans of its views, or as pixels if it is a PNG; and as pixels when asked again. */
Test(image_loader, records_are_the_bytes_of_the_file_and_can_be_decoded_after_all) {
  struct dataset *dataset = open_images(&encoded);
  struct loader_options options = io_images_options(TRANSFORM_STRONG, SIZE, 2, 3);
  struct sampler sampler = sampler_of(0, 1);
  struct image_reader *reader;
  struct batch *batch, *wanted;
  struct loader *pixels = create(dataset, &sampler, &options);
  options.records = true;
  struct loader *records = create(dataset, &sampler, &options);
  cr_assert(eq(int, (int)image_reader_create(&reader), 0));
  cr_assert(eq(int, (int)loader_start(pixels, 3, 0), 0));
  cr_assert(eq(int, (int)loader_start(records, 3, 0), 0));
  while ((wanted = next(pixels)) != NULL) {
    batch = next(records);
    for (int64_t row = 0; row < batch->rows; row++) {
      const struct image_record *record = &batch->records[row];
      int64_t sample = batch->samples[row];
      struct transform_draw draw = {.epoch = 3, .sample = sample, .view = 1};
      struct transform_plan plan;
      const uint8_t *bytes;
      size_t count;
      cr_assert(eq(i64, sample, wanted->samples[row]));
      cr_assert(eq(int, (int)dataset_image_bytes(dataset, reader, sample, &bytes, &count), 0));
      cr_assert(eq(sz, record->count, count));
      cr_expect(memcmp(record->bytes, bytes, count) == 0, "row %ld", (long)sample);
      cr_expect(eq(int, record->decoded, sample % 4 == 3), "row %ld", (long)sample);
      if (!record->decoded) {
        transform_draw_plan(&options.transform, &draw, record->jpeg.height, record->jpeg.width, &plan);
        cr_expect(same_plan(&plan, &batch->plans[batch->rows + row]), "row %ld", (long)sample);
        cr_assert(eq(int, (int)batch_decode(batch, row), 0));
      }
    }
    cr_expect(memcmp(batch->inputs, wanted->inputs, 2 * (size_t)batch->rows * BYTES) == 0);
  }
  image_reader_destroy(&reader);
  loader_destroy(&records);
  loader_destroy(&pixels);
  dataset_close(&dataset);
  cr_expect(eq(sz, memory_in_use(), 0));
}

/* ---- how much memory there is -------------------------------------------------------------- */

/* A file below the test's folder, with the folders on the way. */
static void make_file(const char *name, const char *text) {
  char path[4096];
  snprintf(path, sizeof path, "%s", io_file(name));
  for (char *slash = path + strlen(io_file("")) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
    *slash = '\0';
    mkdir(path, 0700);
    *slash = '/';
  }
  io_write_text(path, text);
}

FILE_TEST(host_memory, the_least_limit_of_the_groups_above_counts) {
  const char *root = io_file("");
  cr_expect(eq(i64, host_memory_of_kernel(root), INT64_MAX), "nothing is known");
  cr_expect(eq(i64, host_memory_of_group(root), INT64_MAX));
  make_file("proc/meminfo", "MemTotal:  99999 kB\nMemAvailable:    5000 kB\n");
  cr_expect(eq(i64, host_memory_of_kernel(root), 5000 * 1024));
  make_file("proc/self/cgroup", "0::/job/step\n");
  make_file("sys/fs/cgroup/job/step/memory.max", "max\n");
  make_file("sys/fs/cgroup/job/step/memory.current", "10\n");
  cr_expect(eq(i64, host_memory_of_group(root), INT64_MAX), "no limit");
  make_file("sys/fs/cgroup/job/memory.max", "1000000\n");
  make_file("sys/fs/cgroup/job/memory.current", "400000\n");
  make_file("sys/fs/cgroup/job/memory.stat", "anon 5\ninactive_file 100000\n");
  cr_expect(eq(i64, host_memory_of_group(root), 700000), "the limit of the group above");
  make_file("sys/fs/cgroup/job/step/memory.max", "10\n");
  cr_expect(eq(i64, host_memory_of_group(root), 0), "all is used");
  make_file("proc/self/cgroup", "5:cpu,cpuacct:/job\n4:memory:/batch\n");
  make_file("sys/fs/cgroup/memory/batch/memory.limit_in_bytes", "3000\n");
  make_file("sys/fs/cgroup/memory/batch/memory.usage_in_bytes", "1000\n");
  cr_expect(eq(i64, host_memory_of_group(root), 2000), "control groups of the first version");
  cr_expect(gt(i64, host_memory_available(), 1 << 20), "this host has some");
}
