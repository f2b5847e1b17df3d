/* One worker thread, two buffers, one condition variable. */
#include "io/loader.h"

#include "dist/log.h"
#include "dist/memory.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define SLOTS 2

struct loader {
  struct dataset *dataset; /* borrowed: must outlive this */
  enum split split;
  struct sampler sampler;
  struct augment augment;
  bool has_augment;
  int views;
  struct batch slots[SLOTS]; /* step s lies in slot s % SLOTS */
  int64_t epoch, last_step;  /* one past the last step        */
  pthread_t worker;
  bool running;         /* the worker is to be joined          */
  pthread_mutex_t lock; /* guards what follows                */
  pthread_cond_t changed;
  int64_t filled;   /* steps below this are ready             */
  int64_t released; /* steps below this may be overwritten    */
  int64_t wanted;   /* the step the caller gets next          */
  bool stop;
  enum status failure; /* the worker's, with its sentence     */
  char sentence[1024];
};

static void batch_free(struct batch *batch) {
  memory_free((void **)&batch->samples);
  memory_free(&batch->weights);
  memory_free(&batch->targets);
  memory_free(&batch->inputs);
}

static enum status batch_alloc(const struct loader *loader, struct batch *batch) {
  size_t rows = (size_t)sampler_most_rows(&loader->sampler) * (size_t)loader->views;
  size_t bytes = dtype_size(dataset_dtype(loader->dataset));
  TRY(memory_alloc(rows * (size_t)dataset_features(loader->dataset) * bytes, &batch->inputs));
  TRY(memory_alloc(rows * (size_t)dataset_targets(loader->dataset) * bytes, &batch->targets));
  TRY(memory_alloc(rows * bytes, &batch->weights));
  return memory_alloc(rows * sizeof *batch->samples, (void **)&batch->samples);
}

enum status loader_create(struct dataset *dataset, enum split split, const struct sampler *sampler, int views,
                          const struct augment *augment, struct loader **out) {
  *out = NULL;
  REQUIRE(views >= 1, ERR_ARGUMENT, "%d views make no batch; use 1 or more", views);
  REQUIRE(sampler->rows == dataset_split_rows(dataset, split), ERR_BUG,
          "the sampler counts %lld rows but the %s split has %lld", (long long)sampler->rows, split_name(split),
          (long long)dataset_split_rows(dataset, split));
  if (augment != NULL)
    TRY(augment_check(augment));
  struct loader *loader = NULL;
  TRY(memory_alloc_zero(sizeof *loader, (void **)&loader));
  loader->dataset = dataset;
  loader->split = split;
  loader->sampler = *sampler;
  loader->has_augment = augment != NULL;
  if (augment != NULL)
    loader->augment = *augment;
  loader->views = views;
  pthread_mutex_init(&loader->lock, NULL);
  pthread_cond_init(&loader->changed, NULL);
  for (int i = 0; i < SLOTS; i++) {
    enum status status = batch_alloc(loader, &loader->slots[i]);
    if (status != STATUS_OK) {
      loader_destroy(&loader);
      return status;
    }
  }
  *out = loader;
  return STATUS_OK;
}

void loader_destroy(struct loader **loader_pointer) {
  struct loader *loader = *loader_pointer;
  if (loader == NULL)
    return;
  loader_stop(loader);
  for (int i = SLOTS - 1; i >= 0; i--)
    batch_free(&loader->slots[i]);
  pthread_cond_destroy(&loader->changed);
  pthread_mutex_destroy(&loader->lock);
  memory_free((void **)loader_pointer);
}

/* Element i of a buffer of the dataset's dtype. */
static void put(enum dtype dtype, void *data, int64_t i, double value) {
  if (dtype == F32)
    ((float *)data)[i] = (float)value;
  else
    ((double *)data)[i] = value;
}

static void fill_labels(const struct loader *loader, struct batch *batch) {
  enum dtype dtype = dataset_dtype(loader->dataset);
  int targets = dataset_targets(loader->dataset);
  const double *target = dataset_target(loader->dataset), *weight = dataset_weight(loader->dataset);
  for (int64_t row = 0; row < batch->rows * batch->views; row++) {
    int64_t sample = batch->samples[row];
    for (int k = 0; k < targets; k++)
      put(dtype, batch->targets, row * targets + k, target[sample * targets + k]);
    put(dtype, batch->weights, row, weight != NULL ? weight[sample] : 1.0);
  }
}

/* Every view starts as a copy of the first, which was read from the file; the first is augmented last. */
static void fill_views(const struct loader *loader, struct batch *batch) {
  int features = dataset_features(loader->dataset);
  enum dtype dtype = dataset_dtype(loader->dataset);
  size_t bytes = (size_t)batch->rows * (size_t)features * dtype_size(dtype);
  for (int view = batch->views - 1; view >= 0 && batch->rows > 0; view--) {
    char *inputs = (char *)batch->inputs + (size_t)view * bytes;
    int64_t *samples = batch->samples + view * batch->rows;
    if (view > 0) {
      memcpy(inputs, batch->inputs, bytes);
      memcpy(samples, batch->samples, (size_t)batch->rows * sizeof *samples);
    }
    if (loader->has_augment)
      augment_rows(&loader->augment, batch->epoch, view, samples, batch->rows, features, dtype, inputs);
  }
}

static enum status fill(const struct loader *loader, int64_t step, struct batch *batch) {
  struct shard shard = sampler_shard(&loader->sampler, step);
  const int64_t *ids = dataset_split_ids(loader->dataset, loader->split);
  batch->epoch = loader->epoch;
  batch->step = step;
  batch->rows = shard.rows;
  batch->rows_global = sampler_batch_rows(&loader->sampler, step);
  batch->views = loader->views;
  for (int64_t i = 0; i < shard.rows; i++)
    batch->samples[i] = ids[sampler_sample(&loader->sampler, loader->epoch, shard.first + i)];
  TRY(dataset_read(loader->dataset, batch->samples, shard.rows, batch->inputs));
  fill_views(loader, batch);
  fill_labels(loader, batch);
  return STATUS_OK;
}

/* Wait until the slot of `step` is free; false = stop. */
static bool wait_for_slot(struct loader *loader, int64_t step) {
  pthread_mutex_lock(&loader->lock);
  while (!loader->stop && step >= loader->released + SLOTS)
    pthread_cond_wait(&loader->changed, &loader->lock);
  bool go_on = !loader->stop;
  pthread_mutex_unlock(&loader->lock);
  return go_on;
}

static void *work(void *argument) {
  struct loader *loader = argument;
  enum status status = STATUS_OK;
  for (int64_t step = loader->filled; status == STATUS_OK && step < loader->last_step; step++) {
    if (!wait_for_slot(loader, step))
      break;
    status = fill(loader, step, &loader->slots[step % SLOTS]);
    pthread_mutex_lock(&loader->lock);
    loader->failure = status;
    if (status == STATUS_OK)
      loader->filled = step + 1;
    else /* the sentence is this thread's: carry it over */
      snprintf(loader->sentence, sizeof loader->sentence, "%s", status_message());
    pthread_cond_broadcast(&loader->changed);
    pthread_mutex_unlock(&loader->lock);
  }
  return NULL;
}

enum status loader_start(struct loader *loader, int64_t epoch, int64_t first_step) {
  loader_stop(loader);
  int64_t steps = sampler_steps(&loader->sampler);
  REQUIRE(first_step >= 0 && first_step <= steps, ERR_BUG, "step %lld is not in an epoch of %lld",
          (long long)first_step, (long long)steps);
  loader->epoch = epoch;
  loader->last_step = steps;
  loader->filled = loader->released = loader->wanted = first_step;
  loader->stop = false;
  loader->failure = STATUS_OK;
  /* Signals are the main thread's business. */
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int error = pthread_create(&loader->worker, NULL, work, loader);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  REQUIRE(error == 0, ERR_MEMORY, "cannot start the loader's thread: %s", strerror(error));
  loader->running = true;
  return STATUS_OK;
}

enum status loader_next(struct loader *loader, struct batch **batch, double *waited_seconds) {
  *batch = NULL;
  REQUIRE(loader->running, ERR_BUG, "loader_next was called before loader_start");
  double begin = log_seconds();
  pthread_mutex_lock(&loader->lock);
  int64_t step = loader->wanted;
  bool over = step >= loader->last_step;
  loader->released = step; /* all before the one asked for now */
  pthread_cond_broadcast(&loader->changed);
  while (!over && loader->filled <= step && loader->failure == STATUS_OK)
    pthread_cond_wait(&loader->changed, &loader->lock);
  bool ready = !over && loader->filled > step;
  enum status failure = loader->failure;
  pthread_mutex_unlock(&loader->lock);
  if (waited_seconds != NULL)
    *waited_seconds = log_seconds() - begin;
  if (ready) {
    *batch = &loader->slots[step % SLOTS];
    loader->wanted++;
    return STATUS_OK;
  }
  return over ? STATUS_OK : fail(failure, "%s", loader->sentence);
}

void loader_stop(struct loader *loader) {
  if (!loader->running)
    return;
  pthread_mutex_lock(&loader->lock);
  loader->stop = true;
  pthread_cond_broadcast(&loader->changed);
  pthread_mutex_unlock(&loader->lock);
  pthread_join(loader->worker, NULL);
  loader->running = false;
}
