/* Images over several ranks: one file, places and cache once a host, the same pixels for any number of ranks, one
 * sentence when any rank fails.  Argument: a folder to write in. */
#include "dist/comm.h"
#include "dist/memory.h"
#include "io/loader.h"
#include "tests/io_images.h"
#include "tests/io_table.h"
#include "tests/rank_record.h"

#include <stdio.h>
#include <string.h>

#define ROWS 40
#define TRAIN_ROWS 24
#define SIZE 16
#define BYTES ((int64_t)SIZE * SIZE * 3)

static const char *folder;

static const char *file_path(const char *name) {
  static char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

/* Rank 0 writes; all wait. */
static void write_images(struct comm *comm, const struct io_images *images) {
  MUST(comm_barrier(comm));
  if (comm_rank(comm) == 0)
    io_images_write(images, file_path("images.h5"));
  MUST(comm_barrier(comm));
}

/* The pixels of an epoch, [TRAIN_ROWS, 2] images in order of position, gathered over `size` ranks. */
static void epoch_of(struct comm *comm, struct dataset *dataset, int size, const struct loader_options *options,
                     int64_t epoch, uint8_t *out) {
  struct sampler sampler = {.rows = TRAIN_ROWS,
                            .batch = 7,
                            .seed = 7,
                            .shuffle = true,
                            .rank = size == 1 ? 0 : comm_rank(comm),
                            .size = size};
  struct loader *loader;
  struct batch *batch;
  MUST(loader_create(dataset, SPLIT_TRAIN, &sampler, options, &loader));
  MUST(loader_start(loader, epoch, 0));
  for (int64_t step = 0; step < sampler_steps(&sampler); step++) {
    int64_t rows_of_rank[8];
    uint8_t own[7 * 2 * SIZE * SIZE * 3];
    MUST(loader_next(loader, &batch, NULL));
    for (int64_t i = 0; i < 2 * batch->rows; i++) /* view-major -> sample-major */
      memcpy(own + (i % batch->rows * 2 + i / batch->rows) * BYTES, (uint8_t *)batch->inputs + i * BYTES,
             (size_t)BYTES);
    for (int rank = 0; rank < size; rank++)
      rows_of_rank[rank] = sampler_shard_of(&sampler, step, rank).rows;
    uint8_t *place = out + sampler_shard_of(&sampler, step, 0).first * 2 * BYTES;
    if (size == 1)
      memcpy(place, own, (size_t)(batch->rows * 2 * BYTES));
    else
      MUST(comm_gather_rows(comm, own, rows_of_rank, (size_t)(2 * BYTES), place));
  }
  loader_destroy(&loader);
}

static void all_ranks_make_the_batches_of_one(const struct io_images *images) {
  struct comm *comm = NULL;
  struct dataset *dataset;
  static uint8_t one[TRAIN_ROWS * 2 * BYTES], many[sizeof one];
  MUST(comm_create(MPI_COMM_WORLD, &comm));
  write_images(comm, images);
  size_t before = memory_in_use();
  MUST(dataset_open(file_path("images.h5"), comm, F32, &dataset));
  MUST_HOLD(images->pixels || strcmp(dataset_image_name(dataset, 39), "folder/39.jpg") == 0);
  for (int set = TRANSFORM_PLAIN; set <= TRANSFORM_STRONG; set++) {
    struct loader_options options = io_images_options(set, SIZE, 2, 1 + (comm_rank(comm) + 2) % 3), kept = options;
    epoch_of(comm, dataset, 1, &options, 3, one);
    epoch_of(comm, dataset, comm_size(comm), &options, 3, many);
    MUST_HOLD(memcmp(one, many, sizeof one) == 0);
    MUST(image_cache_create(dataset, comm, &options.transform, false, IMAGE_CACHE_AUTO, &kept.cache));
    MUST_HOLD((kept.cache != NULL) == (set != TRANSFORM_STRONG && !images->pixels));
    for (int again = 0; again < 2 && kept.cache != NULL; again++) {
      epoch_of(comm, dataset, comm_size(comm), &kept, 3, many);
      MUST_HOLD(memcmp(one, many, sizeof one) == 0);
      MUST(comm_barrier(comm));
      MUST_HOLD(image_cache_ready(kept.cache) == TRAIN_ROWS); /* the host's, not this rank's share */
    }
    image_cache_destroy(&kept.cache);
  }
  dataset_close(&dataset);
  MUST_HOLD(memory_in_use() == before);
  comm_destroy(&comm);
}

/* What only the reading rank of a host sees is everybody's. */
static void a_wrong_place_is_everybodys(void) {
  struct comm *comm = NULL;
  struct dataset *dataset;
  struct io_images images = {.rows = ROWS, .height = 10, .width = 10};
  char wanted[5000];
  MUST(comm_create(MPI_COMM_WORLD, &comm));
  write_images(comm, &images);
  if (comm_rank(comm) == 0)
    io_table_put(file_path("images.h5"), "image_length", 30, -4);
  MUST(comm_barrier(comm));
  MUST_HOLD(dataset_open(file_path("images.h5"), comm, F32, &dataset) == ERR_FORMAT);
  snprintf(wanted, sizeof wanted, "\"image_length\" in %s is -4 at row 30; an image has 1 to 1073741824 bytes",
           file_path("images.h5"));
  MUST_HOLD(strcmp(status_message(), wanted) == 0);
  comm_destroy(&comm);
}

/* Ranks that see different files, as hosts with stale copies would. */
static void different_files_are_noticed(void) {
  struct comm *comm = NULL;
  struct dataset *dataset;
  struct io_images images = {.rows = ROWS, .height = 10, .width = 10, .pixels = true};
  MUST(comm_create(MPI_COMM_WORLD, &comm));
  write_images(comm, &images);
  images.width++;
  if (comm_rank(comm) == 0)
    io_images_write(&images, file_path("other.h5"));
  MUST(comm_barrier(comm));
  bool last = comm_size(comm) > 1 && comm_rank(comm) == comm_size(comm) - 1;
  enum status status = dataset_open(file_path(last ? "other.h5" : "images.h5"), comm, F32, &dataset);
  if (comm_size(comm) > 1) {
    MUST_HOLD(status == ERR_FORMAT);
    MUST_HOLD(strstr(status_message(), " is not the same file on all hosts; copy it again or use a shared folder"));
  } else
    dataset_close(&dataset);
  comm_destroy(&comm);
}

int main(int argc, char **argv) {
  struct io_images encoded = {.rows = ROWS, .height = 37, .width = 45, .checksum = true, .paths = true};
  struct io_images pixels = {.rows = ROWS, .height = SIZE, .width = SIZE, .pixels = true};
  struct io_images chunked = {.rows = ROWS, .height = SIZE, .width = SIZE, .pixels = true, .chunked = true};
  rank_record_begin(&argc, &argv);
  MUST_HOLD(argc == 2);
  folder = argv[1];
  all_ranks_make_the_batches_of_one(&encoded);
  all_ranks_make_the_batches_of_one(&pixels);
  all_ranks_make_the_batches_of_one(&chunked);
  a_wrong_place_is_everybodys();
  different_files_are_noticed();
  return rank_record_end();
}
