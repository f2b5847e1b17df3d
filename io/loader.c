/* Two buffers, filled in pieces by worker threads: a lock, and a condition variable for each side. */
#include "io/loader.h"

#include "dist/log.h"
#include "dist/memory.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 2

/* Rows of images that a worker takes at once, at most. */
#define MOST_PIECE_ROWS 8

/* Records begin at multiples of this. */
#define RECORD_ALIGNMENT 64

/* A batch on its way: its rows are handed out in order to whichever worker is free. */
struct slot {
  struct batch batch;
  uint8_t *bytes;      /* of all records */
  int64_t taken, done; /* rows */
};

/* Some rows of the batch in a slot. */
struct piece {
  struct slot *slot;
  int64_t first, rows;
};

struct worker {
  struct loader *loader;       /* borrowed: the loader it belongs to */
  struct image_worker *images; /* NULL for a table                   */
  pthread_t thread;
};

struct loader {
  struct dataset *dataset; /* borrowed: must outlive this */
  enum split split;
  struct sampler sampler;
  struct loader_options options;
  bool has_images;
  size_t input_bytes;        /* of one row of a batch */
  size_t record_bytes;       /* of the largest batch of records; 0 = batches of pixels */
  struct image_worker *host; /* NULL without records */
  struct slot slots[SLOTS];  /* step s lies in slot s % SLOTS */
  struct worker *workers;    /* [options.workers] */
  int running;               /* workers to be joined; the first so many */
  bool started;
  int64_t epoch, last_step; /* one past the last step                 */
  pthread_mutex_t lock;     /* guards what follows, and what is counted in slots     */
  pthread_cond_t ready;     /* for the caller: a batch is filled, or nothing will be */
  pthread_cond_t free;      /* for workers: a slot may be overwritten                */
  int64_t opened;           /* steps below this have been handed out, at least in part */
  int64_t filled;           /* steps below this are ready             */
  int64_t released;         /* steps below this may be overwritten    */
  int64_t wanted;           /* the step the caller gets next          */
  int busy;                 /* workers with a piece in hand           */
  bool stop;
  enum status failure; /* a worker's, with step, row of the batch and sentence */
  int64_t failed_step, failed_row;
  char sentence[1024];
};

/* ---- creating and destroying --------------------------------------------------------------- */

static void slot_free(struct device *device, struct slot *slot) {
  struct batch *batch = &slot->batch;
  memory_free((void **)&batch->plans);
  memory_free((void **)&batch->records);
  device_free_pinned(device, (void **)&slot->bytes);
  device_free_pinned(device, (void **)&batch->samples);
  device_free_pinned(device, &batch->weights);
  device_free_pinned(device, &batch->targets);
  device_free_pinned(device, &batch->inputs);
}

static int weights_of_row(const struct loader *loader) {
  return loader->options.weights_of_row > 1 ? loader->options.weights_of_row : 1;
}

static enum status slot_alloc(const struct loader *loader, struct slot *slot) {
  struct device *device = loader->options.device;
  struct batch *batch = &slot->batch;
  size_t samples = (size_t)sampler_most_rows(&loader->sampler), rows = samples * (size_t)loader->options.views;
  size_t bytes = dtype_size(dataset_dtype(loader->dataset));
  TRY(device_alloc_pinned(device, rows * loader->input_bytes, &batch->inputs));
  TRY(device_alloc_pinned(device, rows * (size_t)dataset_targets(loader->dataset) * bytes, &batch->targets));
  TRY(device_alloc_pinned(device, rows * (size_t)weights_of_row(loader) * bytes, &batch->weights));
  TRY(device_alloc_pinned(device, rows * sizeof *batch->samples, (void **)&batch->samples));
  if (loader->record_bytes == 0)
    return STATUS_OK;
  batch->host = loader->host;
  TRY(device_alloc_pinned(device, loader->record_bytes, (void **)&slot->bytes));
  TRY(memory_alloc_zero(samples * sizeof *batch->records, (void **)&batch->records));
  return memory_alloc_zero(rows * sizeof *batch->plans, (void **)&batch->plans);
}

static size_t room_of_record(const struct loader *loader, int64_t sample) {
  size_t bytes = (size_t)dataset_image_length(loader->dataset, sample);
  return (bytes + RECORD_ALIGNMENT - 1) / RECORD_ALIGNMENT * RECORD_ALIGNMENT;
}

static int larger_first(const void *a, const void *b) {
  size_t x = *(const size_t *)a, y = *(const size_t *)b;
  return (x < y) - (x > y);
}

/* Room for the worst of all batches: the largest records of the split together. */
static enum status measure_records(struct loader *loader) {
  const int64_t *ids = dataset_split_ids(loader->dataset, loader->split);
  int64_t rows = loader->sampler.rows, most = sampler_most_rows(&loader->sampler);
  size_t *sizes;
  TRY(memory_alloc((size_t)rows * sizeof *sizes, (void **)&sizes));
  for (int64_t i = 0; i < rows; i++)
    sizes[i] = room_of_record(loader, ids[i]);
  qsort(sizes, (size_t)rows, sizeof *sizes, larger_first);
  for (int64_t i = 0; i < rows && i < most; i++)
    loader->record_bytes += sizes[i];
  memory_free((void **)&sizes);
  return STATUS_OK;
}

static enum status check_request(const struct dataset *dataset, enum split split, const struct sampler *sampler,
                                 const struct loader_options *options) {
  REQUIRE(options->views >= 1, ERR_ARGUMENT, "%d views make no batch; use 1 or more", options->views);
  REQUIRE(options->workers >= 0 && options->workers <= LOADER_MOST_WORKERS, ERR_ARGUMENT,
          "%d loader threads are asked for; use 1 to %d", options->workers, LOADER_MOST_WORKERS);
  REQUIRE(sampler->rows == dataset_split_rows(dataset, split), ERR_BUG,
          "the sampler counts %lld rows but the %s split has %lld", (long long)sampler->rows, split_name(split),
          (long long)dataset_split_rows(dataset, split));
  if (dataset_kind(dataset) == DATASET_TABLE)
    return augment_check(&options->augment);
  TRY(transform_check(&options->transform));
  REQUIRE(options->cache == NULL ||
              image_cache_fits(options->cache, dataset, &options->transform, options->no_decode_scaling),
          ERR_BUG, "the cache was made for other images than the loader's");
  REQUIRE(options->cache == NULL || !options->records, ERR_BUG, "records are not decoded here, so no cache is filled");
  return STATUS_OK;
}

/* What the workers work with.  A table is read a batch at a time, by one. */
static enum status create_workers(struct loader *loader) {
  struct loader_options *options = &loader->options;
  if (!loader->has_images || options->workers == 0)
    options->workers = 1;
  options->no_decode_scaling = options->no_decode_scaling || options->records; /* as the others will be */
  TRY(memory_alloc_zero((size_t)options->workers * sizeof *loader->workers, (void **)&loader->workers));
  for (int i = 0; i < options->workers; i++) {
    loader->workers[i].loader = loader;
    if (loader->has_images)
      TRY(image_worker_create(loader->dataset, &options->transform, options->cache, options->no_decode_scaling,
                              &loader->workers[i].images));
  }
  if (!loader->has_images || !options->records || dataset_image_layout(loader->dataset) != IMAGE_LAYOUT_ENCODED)
    return STATUS_OK;
  TRY(measure_records(loader));
  return image_worker_create(loader->dataset, &options->transform, NULL, options->no_decode_scaling, &loader->host);
}

enum status loader_create(struct dataset *dataset, enum split split, const struct sampler *sampler,
                          const struct loader_options *options, struct loader **out) {
  *out = NULL;
  TRY(check_request(dataset, split, sampler, options));
  struct loader *loader = NULL;
  enum status status;
  TRY(memory_alloc_zero(sizeof *loader, (void **)&loader));
  loader->dataset = dataset;
  loader->split = split;
  loader->sampler = *sampler;
  loader->options = *options;
  loader->has_images = dataset_kind(dataset) == DATASET_IMAGES;
  loader->input_bytes = loader->has_images ? (size_t)options->transform.height * (size_t)options->transform.width * 3
                                           : (size_t)dataset_features(dataset) * dtype_size(dataset_dtype(dataset));
  pthread_mutex_init(&loader->lock, NULL);
  pthread_cond_init(&loader->ready, NULL);
  pthread_cond_init(&loader->free, NULL);
  TRY_GOTO(create_workers(loader), failed);
  for (int i = 0; i < SLOTS; i++)
    TRY_GOTO(slot_alloc(loader, &loader->slots[i]), failed);
  *out = loader;
  return STATUS_OK;
failed:
  loader_destroy(&loader);
  return status;
}

size_t loader_record_bytes(const struct loader *loader) {
  return loader->record_bytes;
}

void loader_destroy(struct loader **loader_pointer) {
  struct loader *loader = *loader_pointer;
  if (loader == NULL)
    return;
  loader_stop(loader);
  for (int i = SLOTS - 1; i >= 0; i--)
    slot_free(loader->options.device, &loader->slots[i]);
  for (int i = 0; loader->workers != NULL && i < loader->options.workers; i++)
    image_worker_destroy(&loader->workers[i].images);
  memory_free((void **)&loader->workers);
  image_worker_destroy(&loader->host);
  pthread_cond_destroy(&loader->free);
  pthread_cond_destroy(&loader->ready);
  pthread_mutex_destroy(&loader->lock);
  memory_free((void **)loader_pointer);
}

/* ---- filling a piece ----------------------------------------------------------------------- */

/* Element i of a buffer of the dataset's dtype. */
static void put(enum dtype dtype, void *data, int64_t i, double value) {
  if (dtype == F32)
    ((float *)data)[i] = (float)value;
  else
    ((double *)data)[i] = value;
}

/* Which row of its split a row of the batch is. */
static int64_t index_of(const struct loader *loader, const struct batch *batch, int64_t row) {
  int64_t position = sampler_shard(&loader->sampler, batch->step).first + row;
  return sampler_sample(&loader->sampler, batch->epoch, position);
}

static int64_t sample_of(const struct loader *loader, const struct batch *batch, int64_t row) {
  return dataset_split_ids(loader->dataset, loader->split)[index_of(loader, batch, row)];
}

/* Weight number `which` of a sample, which is number `index` of its split. */
static double weight_of(const struct loader *loader, int64_t index, int64_t sample, int which) {
  const double *own = loader->options.weights, *of_file = dataset_weight(loader->dataset);
  return own != NULL ? own[index * weights_of_row(loader) + which] : of_file != NULL ? of_file[sample] : 1;
}

/* Sample ids, targets and weights of a row of the batch, in all views. */
static void fill_labels(const struct loader *loader, struct batch *batch, int64_t row) {
  enum dtype dtype = dataset_dtype(loader->dataset);
  int targets = dataset_targets(loader->dataset), weights = weights_of_row(loader);
  const double *target = dataset_target(loader->dataset);
  int64_t index = index_of(loader, batch, row);
  int64_t sample = dataset_split_ids(loader->dataset, loader->split)[index];
  for (int64_t i = row; i < batch->views * batch->rows; i += batch->rows) {
    batch->samples[i] = sample;
    for (int k = 0; k < targets; k++)
      put(dtype, batch->targets, i * targets + k, target[sample * targets + k]);
    for (int w = 0; w < weights; w++)
      put(dtype, batch->weights, i * weights + w, weight_of(loader, index, sample, w));
  }
}

/* All rows of a table.  Every view starts as a copy of the first, which was read; the first is augmented last. */
static enum status fill_table(const struct loader *loader, struct batch *batch) {
  size_t bytes = (size_t)batch->rows * loader->input_bytes;
  TRY(dataset_read(loader->dataset, batch->samples, batch->rows, batch->inputs));
  for (int view = batch->views - 1; view >= 0; view--) {
    char *inputs = (char *)batch->inputs + (size_t)view * bytes;
    if (view > 0)
      memcpy(inputs, batch->inputs, bytes);
    augment_rows(&loader->options.augment, batch->epoch, view, batch->samples, batch->rows,
                 dataset_features(loader->dataset), dataset_dtype(loader->dataset), inputs);
  }
  return STATUS_OK;
}

static enum status fill_image(const struct worker *worker, struct batch *batch, int64_t row) {
  const struct loader *loader = worker->loader;
  size_t stride = (size_t)batch->rows * loader->input_bytes;
  int64_t sample = batch->samples[row];
  uint8_t *out = (uint8_t *)batch->inputs + (size_t)row * loader->input_bytes;
  if (batch->records == NULL)
    return image_worker_views(worker->images, batch->epoch, sample, batch->views, stride, out);
  return image_worker_record(worker->images, batch->epoch, sample, batch->views, &batch->records[row],
                             (size_t)batch->rows, batch->plans + row, stride, out);
}

/* *failed_row: which row of the batch it was. */
static enum status fill_piece(const struct worker *worker, const struct piece *piece, int64_t *failed_row) {
  const struct loader *loader = worker->loader;
  struct batch *batch = &piece->slot->batch;
  *failed_row = piece->first;
  for (int64_t row = piece->first; row < piece->first + piece->rows; row++)
    fill_labels(loader, batch, row);
  if (!loader->has_images)
    return fill_table(loader, batch);
  for (int64_t row = piece->first; row < piece->first + piece->rows; row++) {
    *failed_row = row;
    TRY(fill_image(worker, batch, row));
  }
  return STATUS_OK;
}

/* ---- the workers; these functions hold the lock -------------------------------------------- */

/* Batches come out in order, each once all its rows are done. */
static void publish(struct loader *loader) {
  int64_t before = loader->filled;
  while (loader->filled < loader->opened) {
    struct slot *slot = &loader->slots[loader->filled % SLOTS];
    if (slot->done < slot->batch.rows)
      break;
    loader->filled++;
  }
  if (loader->filled > before)
    pthread_cond_signal(&loader->ready);
}

/* Where the records of a batch go: one after the other. */
static void place_records(const struct loader *loader, struct slot *slot) {
  uint8_t *next = slot->bytes;
  for (int64_t row = 0; row < slot->batch.rows; row++) {
    slot->batch.records[row].bytes = next;
    next += room_of_record(loader, sample_of(loader, &slot->batch, row));
  }
}

static void open_step(struct loader *loader) {
  int64_t step = loader->opened++;
  struct slot *slot = &loader->slots[step % SLOTS];
  slot->taken = slot->done = 0;
  slot->batch.epoch = loader->epoch;
  slot->batch.step = step;
  slot->batch.rows = sampler_shard(&loader->sampler, step).rows;
  slot->batch.rows_global = sampler_batch_rows(&loader->sampler, step);
  slot->batch.views = loader->options.views;
  if (loader->record_bytes > 0)
    place_records(loader, slot);
  publish(loader); /* this rank may have no row of it */
}

/* The next rows of the lowest step that has some left; false = none now. */
static bool take(struct loader *loader, struct piece *piece) {
  for (int64_t step = loader->filled; step < loader->opened; step++) {
    struct slot *slot = &loader->slots[step % SLOTS];
    int64_t rows = slot->batch.rows, most = rows / (8 * loader->options.workers);
    if (slot->taken == rows)
      continue;
    if (loader->has_images && most > MOST_PIECE_ROWS)
      most = MOST_PIECE_ROWS;
    else if (!loader->has_images)
      most = rows;
    *piece = (struct piece){slot, slot->taken, most > 1 ? most : 1};
    if (piece->rows > rows - slot->taken)
      piece->rows = rows - slot->taken;
    slot->taken += piece->rows;
    loader->busy++;
    return true;
  }
  return false;
}

/* Wait for something to do; false = there will be nothing. */
static bool wait_for_piece(struct loader *loader, struct piece *piece) {
  while (!loader->stop && loader->failure == STATUS_OK) {
    if (take(loader, piece))
      return true;
    if (loader->opened == loader->last_step)
      return false;
    if (loader->opened < loader->released + SLOTS)
      open_step(loader);
    else
      pthread_cond_wait(&loader->free, &loader->lock);
  }
  return false;
}

/* Rows are handed out in order, so all that come before a failing one are in somebody's hands: once nobody is busy, the
 * failure kept is that of the first failing row, whatever the number of workers. */
static void finish(struct loader *loader, const struct piece *piece, enum status status, int64_t row) {
  const struct batch *batch = &piece->slot->batch;
  bool first = loader->failure == STATUS_OK || batch->step < loader->failed_step ||
               (batch->step == loader->failed_step && row < loader->failed_row);
  loader->busy--;
  if (status == STATUS_OK) {
    piece->slot->done += piece->rows;
    publish(loader);
  } else if (first) { /* the sentence is this thread's: carry it over */
    loader->failure = status;
    loader->failed_step = batch->step;
    loader->failed_row = row;
    snprintf(loader->sentence, sizeof loader->sentence, "%s", status_message());
  }
  if (loader->failure != STATUS_OK) {
    pthread_cond_signal(&loader->ready);
    pthread_cond_broadcast(&loader->free);
  }
}

static void *work(void *argument) {
  struct worker *worker = argument;
  struct loader *loader = worker->loader;
  struct piece piece;
  pthread_mutex_lock(&loader->lock);
  while (wait_for_piece(loader, &piece)) {
    int64_t row;
    pthread_mutex_unlock(&loader->lock);
    enum status status = fill_piece(worker, &piece, &row);
    pthread_mutex_lock(&loader->lock);
    finish(loader, &piece, status, row);
  }
  pthread_mutex_unlock(&loader->lock);
  return NULL;
}

/* ---- the caller ---------------------------------------------------------------------------- */

enum status loader_start(struct loader *loader, int64_t epoch, int64_t first_step) {
  loader_stop(loader);
  int64_t steps = sampler_steps(&loader->sampler);
  REQUIRE(first_step >= 0 && first_step <= steps, ERR_BUG, "step %lld is not in an epoch of %lld",
          (long long)first_step, (long long)steps);
  loader->epoch = epoch;
  loader->last_step = steps;
  loader->opened = loader->filled = loader->released = loader->wanted = first_step;
  loader->stop = false;
  loader->failure = STATUS_OK;
  loader->started = true;
  /* Signals are the main thread's business. */
  sigset_t all, before;
  int error = 0;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (error == 0 && loader->running < loader->options.workers) {
    struct worker *worker = &loader->workers[loader->running];
    error = pthread_create(&worker->thread, NULL, work, worker);
    loader->running += error == 0;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (error == 0)
    return STATUS_OK;
  loader_stop(loader);
  return fail(ERR_MEMORY, "cannot start the loader's thread: %s", strerror(error));
}

enum status loader_next(struct loader *loader, struct batch **batch, double *waited_seconds) {
  *batch = NULL;
  REQUIRE(loader->started, ERR_BUG, "loader_next was called before loader_start");
  double begin = log_seconds();
  pthread_mutex_lock(&loader->lock);
  int64_t step = loader->wanted;
  bool over = step >= loader->last_step;
  loader->released = step; /* all before the one asked for now */
  pthread_cond_broadcast(&loader->free);
  while (!over && loader->filled <= step && (loader->failure == STATUS_OK || loader->busy > 0))
    pthread_cond_wait(&loader->ready, &loader->lock);
  bool is_ready = !over && loader->filled > step;
  enum status failure = loader->failure;
  pthread_mutex_unlock(&loader->lock);
  if (waited_seconds != NULL)
    *waited_seconds = log_seconds() - begin;
  if (is_ready) {
    *batch = &loader->slots[step % SLOTS].batch;
    loader->wanted++;
    return STATUS_OK;
  }
  return over ? STATUS_OK : fail(failure, "%s", loader->sentence);
}

enum status batch_decode(const struct batch *batch, int64_t row) {
  size_t bytes = image_worker_bytes(batch->host);
  return image_worker_views(batch->host, batch->epoch, batch->samples[row], batch->views, (size_t)batch->rows * bytes,
                            (uint8_t *)batch->inputs + (size_t)row * bytes);
}

void loader_stop(struct loader *loader) {
  pthread_mutex_lock(&loader->lock);
  loader->stop = true;
  pthread_cond_broadcast(&loader->free);
  pthread_mutex_unlock(&loader->lock);
  while (loader->running > 0)
    pthread_join(loader->workers[--loader->running].thread, NULL);
  loader->started = false;
}
