/* conr bench loader DATA.h5: images a second through the loader, as training uses it, beside the same number of threads
 * that do nothing but read and decode (encoded), or read into two batches (pixels).
 *
 * Both go through the same rows, by turns, --repeat times; the best of each counts, since other work on the machine
 * only takes away.  The share of waiting is measured with a caller that spends on each batch what the bare loop took
 * for it, without using a core, as a step on a GPU does: what it still waits for is what the loader costs it.
 *
 * With --decode nvjpeg each batch is made into pixels on the GPU and waited for: the bare loop is what threads of the host
 * would do instead, decoding alone. */
#include "dist/memory.h"
#include "launch/bench.h"
#include "launch/loading.h"
#include "launch/staging.h"
#include "launch/upload.h"

#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

/* A round is to last about this long. */
#define ROUND_SECONDS 1.5

struct bench {
  struct session *session;
  const struct config *config;
  struct dataset *dataset;
  struct sampler sampler;
  struct loader_options options;
  struct loader *loader;
  struct upload *upload; /* of --decode nvjpeg, else NULL              */
  int64_t first_step;    /* a round goes from here to the end of an epoch */
  int64_t *rows;         /* this rank's rows of a round, in order         */
  int64_t row_count, row_count_global;
};

/* Seconds of one round, and of its parts. */
struct measurement {
  double loader_seconds, bare_seconds, wait_share;
};

/* ---- setting up ---------------------------------------------------------------------------- */

static enum status create_upload(struct bench *bench) {
  const struct loader_options *options = &bench->options;
  const struct transform *transform = &options->transform;
  int64_t samples = sampler_most_rows(&bench->sampler);
  struct upload_sizes sizes = {.rows = samples * options->views,
                               .input_bytes = (size_t)transform->height * (size_t)transform->width * 3,
                               .target_bytes = (size_t)dataset_targets(bench->dataset) * sizeof(float),
                               .weight_bytes = sizeof(float),
                               .images = loading_images(bench->loader, options, &bench->sampler)};
  return upload_create(bench->session->device, &sizes, &bench->upload);
}

/* Local, once the data are open. */
static enum status prepare(struct bench *bench) {
  const struct config *config = bench->config;
  struct comm *comm = bench->session->comm;
  int64_t height, width;
  REQUIRE(dataset_kind(bench->dataset) == DATASET_IMAGES, ERR_ARGUMENT,
          "%s holds a table, which needs no decoding; conr bench loader wants images", config->word[1]);
  TRY(dataset_require_split(bench->dataset, SPLIT_TRAIN, "conr bench loader"));
  TRY(config_size(config->size, &height, &width));
  bench->options = loading_options(config, bench->session->threads, height, width, true);
  bench->options.device = bench->session->device;
  bench->sampler = (struct sampler){.rows = dataset_split_rows(bench->dataset, SPLIT_TRAIN),
                                    .batch = config->batch,
                                    .seed = (uint64_t)config->seed,
                                    .shuffle = true,
                                    .rank = comm_rank(comm),
                                    .size = comm_size(comm)};
  TRY(memory_alloc((size_t)bench->sampler.rows * sizeof *bench->rows, (void **)&bench->rows));
  TRY(loader_create(bench->dataset, SPLIT_TRAIN, &bench->sampler, &bench->options, &bench->loader));
  return bench->options.records ? create_upload(bench) : STATUS_OK;
}

static enum status open_device(const struct bench *bench) {
  bool on_device = strcmp(bench->config->decode, "host") != 0;
  if (on_device)
    return session_open_device(bench->session, bench->config);
  REQUIRE(!config_given(bench->config, "device"), ERR_ARGUMENT,
          "--device has no effect on conr bench loader without --decode nvjpeg; drop one or add the other");
  return STATUS_OK;
}

static enum status open_data(struct bench *bench) {
  struct comm *comm = bench->session->comm;
  TRY(comm_agree(comm, open_device(bench)));
  TRY(dataset_open(staging_path(bench->session, bench->config->word[1]), comm, F32, &bench->dataset));
  return comm_agree(comm, prepare(bench));
}

/* The rows of a round that begins at this step. */
static void choose_rows(struct bench *bench, int64_t first_step) {
  const int64_t *ids = dataset_split_ids(bench->dataset, SPLIT_TRAIN);
  bench->first_step = first_step;
  bench->row_count = bench->row_count_global = 0;
  for (int64_t step = first_step; step < sampler_steps(&bench->sampler); step++) {
    struct shard shard = sampler_shard(&bench->sampler, step);
    for (int64_t i = 0; i < shard.rows; i++)
      bench->rows[bench->row_count++] = ids[sampler_sample(&bench->sampler, 0, shard.first + i)];
    bench->row_count_global += sampler_batch_rows(&bench->sampler, step);
  }
}

/* ---- the bare loop ------------------------------------------------------------------------- */

struct bare {
  const struct bench *bench;
  int64_t next;    /* atomic: the first row that nobody has taken                              */
  uint8_t *pixels; /* two batches of stored pixels, as the loader's; NULL for encoded images   */
  int64_t pixel_rows;
};

struct bare_thread {
  struct bare *bare;
  pthread_t thread;
  struct image_reader *reader;
  struct image_decoder *decoder;
  enum status status;
  char sentence[1024];
};

static size_t stored_bytes(const struct dataset *dataset) {
  return (size_t)dataset_image_height(dataset) * (size_t)dataset_image_width(dataset) * 3;
}

/* The i-th row of a round. */
static enum status bare_row(struct bare_thread *own, int64_t i) {
  const struct bare *bare = own->bare;
  const struct bench *bench = bare->bench;
  int64_t row = bench->rows[i];
  const struct loader_options *options = &bench->options;
  bool whole = options->no_decode_scaling || options->transform.set == TRANSFORM_STRONG;
  const uint8_t *bytes;
  size_t count;
  struct image image;
  if (bare->pixels != NULL)
    return dataset_image_copy(bench->dataset, row, 0, (int64_t)stored_bytes(bench->dataset),
                              bare->pixels + (size_t)(i % bare->pixel_rows) * stored_bytes(bench->dataset));
  TRY(dataset_image_bytes(bench->dataset, own->reader, row, &bytes, &count));
  return image_decode(own->decoder, bytes, count, whole ? 0 : options->transform.height,
                      whole ? 0 : options->transform.width, &image);
}

static void *bare_work(void *argument) {
  struct bare_thread *own = argument;
  const struct bench *bench = own->bare->bench;
  int64_t i;
  while (own->status == STATUS_OK && (i = __atomic_fetch_add(&own->bare->next, 1, __ATOMIC_RELAXED)) < bench->row_count)
    own->status = bare_row(own, i);
  if (own->status != STATUS_OK)
    snprintf(own->sentence, sizeof own->sentence, "%s", status_message());
  return NULL;
}

static enum status bare_prepare(struct bare *bare, struct bare_thread *threads) {
  const struct bench *bench = bare->bench;
  if (dataset_image_layout(bench->dataset) == IMAGE_LAYOUT_PIXELS) {
    bare->pixel_rows = 2 * sampler_most_rows(&bench->sampler);
    TRY(memory_alloc_zero((size_t)bare->pixel_rows * stored_bytes(bench->dataset), (void **)&bare->pixels));
  }
  for (int i = 0; i < bench->options.workers; i++) {
    threads[i].bare = bare;
    TRY(image_reader_create(&threads[i].reader));
    TRY(image_decoder_create(&threads[i].decoder));
  }
  return STATUS_OK;
}

/* Local: seconds from the first thread's start to the last one's end. */
static enum status run_bare(const struct bench *bench, double *seconds) {
  int count = bench->options.workers, started = 0;
  struct bare bare = {.bench = bench};
  struct bare_thread *threads = NULL;
  enum status status;
  TRY(memory_alloc_zero((size_t)count * sizeof *threads, (void **)&threads));
  TRY_GOTO(bare_prepare(&bare, threads), out);
  double began = log_seconds();
  while (started < count && pthread_create(&threads[started].thread, NULL, bare_work, &threads[started]) == 0)
    started++;
  for (int i = 0; i < started; i++)
    pthread_join(threads[i].thread, NULL);
  *seconds = log_seconds() - began;
  REQUIRE_GOTO(started == count, out, ERR_MEMORY, "cannot start %d threads", count);
  for (int i = 0; i < count && status == STATUS_OK; i++)
    if (threads[i].status != STATUS_OK)
      status = fail(threads[i].status, "%s", threads[i].sentence);
out:
  for (int i = 0; i < count; i++) {
    image_decoder_destroy(&threads[i].decoder);
    image_reader_destroy(&threads[i].reader);
  }
  memory_free((void **)&bare.pixels);
  memory_free((void **)&threads);
  return status;
}

/* ---- the loader ---------------------------------------------------------------------------- */

static void sleep_for(double seconds) {
  struct timespec left = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - floor(seconds)) * 1e9)};
  while (nanosleep(&left, &left) != 0) {
  }
}

/* Until the batch is where a network would want it; *waited grows by the time that takes. */
static enum status send(struct bench *bench, const struct batch *batch, double *waited) {
  struct batch there;
  double began = log_seconds();
  if (bench->upload == NULL)
    return STATUS_OK;
  TRY(upload_take(bench->upload, batch, &there));
  TRY(upload_release(bench->upload));
  *waited += log_seconds() - began;
  return STATUS_OK;
}

/* Local: a round whose caller spends `pause` seconds on each row.  *waited leaves out the first batch, for which every
 * caller waits. */
static enum status run_loader(struct bench *bench, double pause, double *seconds, double *waited) {
  double began = log_seconds(), one;
  struct batch *batch;
  *waited = 0;
  TRY(loader_start(bench->loader, 0, bench->first_step));
  for (;;) {
    TRY(loader_next(bench->loader, &batch, &one));
    if (batch == NULL)
      break;
    TRY(send(bench, batch, &one));
    *waited += batch->step > bench->first_step ? one : 0;
    if (pause > 0)
      sleep_for(pause * (double)batch->rows);
  }
  *seconds = log_seconds() - began;
  loader_stop(bench->loader);
  return STATUS_OK;
}

/* Collective: the time of the slowest rank. */
static enum status slowest(struct bench *bench, enum status status, double *seconds) {
  TRY(comm_agree(bench->session->comm, status));
  return comm_max_f64(bench->session->comm, seconds, 1);
}

/* As many steps as take about a round, and files in the page cache. */
static enum status choose_round(struct bench *bench) {
  int64_t steps = sampler_steps(&bench->sampler), tried = steps < 4 ? steps : 4;
  double seconds = 0;
  choose_rows(bench, steps - tried);
  TRY(slowest(bench, run_bare(bench, &seconds), &seconds));
  double wanted = ceil(ROUND_SECONDS / fmax(seconds, 1e-6) * (double)tried);
  choose_rows(bench, wanted < (double)steps ? steps - (int64_t)wanted : 0);
  return slowest(bench, run_bare(bench, &seconds), &seconds);
}

static enum status measure(struct bench *bench, struct measurement *out) {
  struct comm *comm = bench->session->comm;
  double seconds, waited;
  *out = (struct measurement){INFINITY, INFINITY, INFINITY};
  TRY(choose_round(bench));
  for (int64_t repeat = 0; repeat < bench->config->repeat; repeat++) {
    TRY(comm_barrier(comm));
    TRY(slowest(bench, run_bare(bench, &seconds), &seconds));
    out->bare_seconds = fmin(out->bare_seconds, seconds);
    TRY(comm_barrier(comm));
    TRY(slowest(bench, run_loader(bench, 0, &seconds, &waited), &seconds));
    out->loader_seconds = fmin(out->loader_seconds, seconds);
  }
  for (int64_t repeat = 0; repeat < bench->config->repeat; repeat++) {
    double pause = bench->row_count > 0 ? out->bare_seconds / (double)bench->row_count : 0;
    TRY(comm_barrier(comm));
    TRY(comm_agree(comm, run_loader(bench, pause, &seconds, &waited)));
    double share = waited / seconds;
    TRY(comm_max_f64(comm, &share, 1));
    out->wait_share = fmin(out->wait_share, share);
  }
  return STATUS_OK;
}

/* ---- results ------------------------------------------------------------------------------- */

static void print(const struct bench *bench, const struct measurement *m) {
  const char *layout = dataset_image_layout(bench->dataset) == IMAGE_LAYOUT_ENCODED ? "encoded" : "pixels";
  double rows = (double)bench->row_count_global, loader = rows / m->loader_seconds, bare = rows / m->bare_seconds;
  int threads = bench->options.workers, ranks = comm_size(bench->session->comm);
  if (!bench->config->json) {
    printf("images a second from %s to %d x %d, augmentation %s, decoded by %s, %lld images a round; bare: %s alone\n",
           bench->config->word[1], bench->options.transform.height, bench->options.transform.width,
           bench->config->augment, strcmp(bench->config->decode, "host") == 0 ? "the host" : bench->config->decode,
           (long long)bench->row_count_global, strcmp(layout, "encoded") == 0 ? "read and decode" : "read");
    printf("%8s %8s %6s %12s %12s %6s %6s\n", "layout", "threads", "ranks", "images/s", "bare", "ratio", "wait");
    printf("%8s %8d %6d %12.1f %12.1f %6.2f %5.1f%%\n", layout, threads, ranks, loader, bare, loader / bare,
           100 * m->wait_share);
    return;
  }
  json_t *object = json_pack("{s:s, s:s, s:i, s:i, s:f, s:f, s:f}", "layout", layout, "decode", bench->config->decode,
                             "threads", threads, "ranks", ranks, "images_per_second", loader, "bare_images_per_second",
                             bare, "wait_share", m->wait_share);
  json_dumpf(object, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
  putchar('\n');
  json_decref(object);
}

enum status bench_loader(struct session *session, const struct config *config) {
  struct bench bench = {.session = session, .config = config};
  struct measurement measurement;
  enum status status = open_data(&bench);
  if (status == STATUS_OK)
    status = measure(&bench, &measurement);
  if (status == STATUS_OK && comm_rank(session->comm) == 0)
    print(&bench, &measurement);
  upload_destroy(&bench.upload);
  loader_destroy(&bench.loader);
  memory_free((void **)&bench.rows);
  dataset_close(&bench.dataset);
  return status;
}
