/* Images over several ranks: one file, places and cache once a host, the same pixels for any number of ranks, one
 * sentence when any rank fails.  Argument: a folder to write in. */
#include "dist/comm.h"
#include "dist/memory.h"
#include "io/loader.h"
#include "tests/io_images.h"
#include "tests/io_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS 40
#define TRAIN_ROWS 24
#define SIZE 16
#define BYTES ((int64_t)SIZE * SIZE * 3)

#define CHECK(condition)                                                                                       \
  do {                                                                                                         \
    if (!(condition)) {                                                                                        \
      fprintf(stderr, "rank %d, line %d: %s (%s)\n", comm_rank(comm), __LINE__, #condition, status_message()); \
      MPI_Abort(MPI_COMM_WORLD, 1);                                                                            \
    }                                                                                                          \
  } while (0)

static const char *folder;

static const char *file_path(const char *name) {
  static char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

/* Rank 0 writes; all wait. */
static void write_images(struct comm *comm, const struct io_images *images) {
  CHECK(comm_barrier(comm) == STATUS_OK);
  if (comm_rank(comm) == 0)
    io_images_write(images, file_path("images.h5"));
  CHECK(comm_barrier(comm) == STATUS_OK);
}

static struct loader_options options_of(enum transform_set set, int workers) {
  return (struct loader_options){.views = 2,
                                 .workers = workers,
                                 .transform = {.height = SIZE,
                                               .width = SIZE,
                                               .set = set,
                                               .padding = set == TRANSFORM_CROP ? 3 : 0,
                                               .flip = set == TRANSFORM_PLAIN ? 0 : 0.5,
                                               .scale_low = set == TRANSFORM_STRONG ? 0.3 : 0,
                                               .seed = 5}};
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
  CHECK(loader_create(dataset, SPLIT_TRAIN, &sampler, options, &loader) == STATUS_OK);
  CHECK(loader_start(loader, epoch, 0) == STATUS_OK);
  for (int64_t step = 0; step < sampler_steps(&sampler); step++) {
    int64_t rows_of_rank[8];
    uint8_t own[7 * 2 * SIZE * SIZE * 3];
    CHECK(loader_next(loader, &batch, NULL) == STATUS_OK);
    for (int64_t i = 0; i < 2 * batch->rows; i++) /* view-major -> sample-major */
      memcpy(own + (i % batch->rows * 2 + i / batch->rows) * BYTES, (uint8_t *)batch->inputs + i * BYTES,
             (size_t)BYTES);
    for (int rank = 0; rank < size; rank++)
      rows_of_rank[rank] = sampler_shard_of(&sampler, step, rank).rows;
    uint8_t *place = out + sampler_shard_of(&sampler, step, 0).first * 2 * BYTES;
    if (size == 1)
      memcpy(place, own, (size_t)(batch->rows * 2 * BYTES));
    else
      CHECK(comm_gather_rows(comm, own, rows_of_rank, (size_t)(2 * BYTES), place) == STATUS_OK);
  }
  loader_destroy(&loader);
}

static void all_ranks_make_the_batches_of_one(const struct io_images *images) {
  struct comm *comm = NULL;
  struct dataset *dataset;
  static uint8_t one[TRAIN_ROWS * 2 * BYTES], many[sizeof one];
  if (comm_create(MPI_COMM_WORLD, &comm) != STATUS_OK)
    MPI_Abort(MPI_COMM_WORLD, 1);
  write_images(comm, images);
  size_t before = memory_in_use();
  CHECK(dataset_open(file_path("images.h5"), comm, F32, &dataset) == STATUS_OK);
  CHECK(images->pixels || strcmp(dataset_image_name(dataset, 39), "folder/39.jpg") == 0);
  for (int set = TRANSFORM_PLAIN; set <= TRANSFORM_STRONG; set++) {
    struct loader_options options = options_of(set, 1 + (comm_rank(comm) + 2) % 3), kept = options;
    epoch_of(comm, dataset, 1, &options, 3, one);
    epoch_of(comm, dataset, comm_size(comm), &options, 3, many);
    CHECK(memcmp(one, many, sizeof one) == 0);
    CHECK(image_cache_create(dataset, comm, &options.transform, false, IMAGE_CACHE_AUTO, &kept.cache) == STATUS_OK);
    CHECK((kept.cache != NULL) == (set != TRANSFORM_STRONG && !images->pixels));
    for (int again = 0; again < 2 && kept.cache != NULL; again++) {
      epoch_of(comm, dataset, comm_size(comm), &kept, 3, many);
      CHECK(memcmp(one, many, sizeof one) == 0);
      CHECK(comm_barrier(comm) == STATUS_OK);
      CHECK(image_cache_ready(kept.cache) == TRAIN_ROWS); /* the host's, not this rank's share */
    }
    image_cache_destroy(&kept.cache);
  }
  dataset_close(&dataset);
  CHECK(memory_in_use() == before);
  comm_destroy(&comm);
}

/* What only the reading rank of a host sees is everybody's. */
static void a_wrong_place_is_everybodys(void) {
  struct comm *comm = NULL;
  struct dataset *dataset;
  struct io_images images = {.rows = ROWS, .height = 10, .width = 10};
  char wanted[5000];
  if (comm_create(MPI_COMM_WORLD, &comm) != STATUS_OK)
    MPI_Abort(MPI_COMM_WORLD, 1);
  write_images(comm, &images);
  if (comm_rank(comm) == 0)
    io_table_put(file_path("images.h5"), "image_length", 30, -4);
  CHECK(comm_barrier(comm) == STATUS_OK);
  CHECK(dataset_open(file_path("images.h5"), comm, F32, &dataset) == ERR_FORMAT);
  snprintf(wanted, sizeof wanted, "\"image_length\" in %s is -4 at row 30; an image has 1 to 1073741824 bytes",
           file_path("images.h5"));
  CHECK(strcmp(status_message(), wanted) == 0);
  comm_destroy(&comm);
}

/* Ranks that see different files, as hosts with stale copies would. */
static void different_files_are_noticed(void) {
  struct comm *comm = NULL;
  struct dataset *dataset;
  struct io_images images = {.rows = ROWS, .height = 10, .width = 10, .pixels = true};
  if (comm_create(MPI_COMM_WORLD, &comm) != STATUS_OK)
    MPI_Abort(MPI_COMM_WORLD, 1);
  write_images(comm, &images);
  images.width++;
  if (comm_rank(comm) == 0)
    io_images_write(&images, file_path("other.h5"));
  CHECK(comm_barrier(comm) == STATUS_OK);
  bool last = comm_size(comm) > 1 && comm_rank(comm) == comm_size(comm) - 1;
  enum status status = dataset_open(file_path(last ? "other.h5" : "images.h5"), comm, F32, &dataset);
  if (comm_size(comm) > 1) {
    CHECK(status == ERR_FORMAT);
    CHECK(strstr(status_message(), " is not the same file on all hosts; copy it again or use a shared folder"));
  } else
    dataset_close(&dataset);
  comm_destroy(&comm);
}

int main(int argc, char **argv) {
  struct io_images encoded = {.rows = ROWS, .height = 37, .width = 45, .checksum = true, .paths = true};
  struct io_images pixels = {.rows = ROWS, .height = SIZE, .width = SIZE, .pixels = true};
  struct io_images chunked = {.rows = ROWS, .height = SIZE, .width = SIZE, .pixels = true, .chunked = true};
  MPI_Init(&argc, &argv);
  if (argc < 2)
    MPI_Abort(MPI_COMM_WORLD, 1);
  folder = argv[1];
  all_ranks_make_the_batches_of_one(&encoded);
  all_ranks_make_the_batches_of_one(&pixels);
  all_ranks_make_the_batches_of_one(&chunked);
  a_wrong_place_is_everybodys();
  different_files_are_noticed();
  MPI_Finalize();
  return 0;
}
