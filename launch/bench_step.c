/* conr bench step: time of a whole training step, beside the machine's own matrix-product rate.
 *
 * What is measured is what training does (gradients.h, optim.h): forward, L1 loss, backward with the sums over ranks,
 * update by SGD with momentum, on drawn pixels and labels; loading is left out (see conr bench loader).  The product is
 * measured in the same run, before and after; the best of --repeat steps counts, as does the best product.
 *
 * With --reproducible the same batch is taken twice: in the fast mode, on the one thread that the other has, too, and
 * in virtual shards; the quotient is the price of a step without terms on features. */
#include "dist/memory.h"
#include "dist/random.h"
#include "launch/bench.h"
#include "launch/gradients.h"
#include "launch/model.h"
#include "launch/step_graphs.h"
#include "model/draw.h"
#include "model/optim.h"

#include <jansson.h>
#include <math.h>
#include <string.h>
#include <sys/resource.h>

struct bench {
  struct session *session;
  const struct config *config;
  int shards; /* virtual ones; 0: the fast mode */
  struct model_description model;
  struct sampler sampler;
  const struct ops *ops;
  struct net *net;
  struct objective *objective;
  struct optim *optim;
  struct buckets *buckets;
  struct gradients *gradients;
  struct step_graphs *graphs;
  struct batch batch;
};

struct measurement {
  double seconds, gflops, gemm_gflops;
};

/* --- parts -------------------------------------------------------------------------------------------------- */

static enum status describe(struct bench *bench) {
  const struct config *config = bench->config;
  bool any = strcmp(config->model, "auto") == 0;
  TRY(bench_ops(bench->session, config, &bench->ops));
  const char *precision = precision_name(bench->ops->precision);
  bench->model = (struct model_description){
      .name = any ? "resnet18" : config->model, .outputs = 1, .precision = precision, .normalise = "half"};
  REQUIRE(model_is_for_images(&bench->model), ERR_ARGUMENT,
          "conr bench step measures networks for images: give --model cnn, resnet18 or resnet50");
  bench->sampler = (struct sampler){.rows = config->batch,
                                    .batch = config->batch,
                                    .rank = comm_rank(bench->session->comm),
                                    .size = comm_size(bench->session->comm),
                                    .shards = bench->shards};
  return config_size(config->size, &bench->model.height, &bench->model.width);
}

/* Drawn pixels and labels. */
static enum status fill_batch(struct bench *bench) {
  struct batch *batch = &bench->batch;
  int64_t rows = sampler_most_rows(&bench->sampler), pixels = rows * net_input_width(bench->net);
  struct random_key key = random_key((uint64_t)bench->config->seed, RANDOM_TEST, 0);
  size_t real = dtype_size(bench->ops->parameter_dtype);
  *batch =
      (struct batch){.rows = sampler_shard(&bench->sampler, 0).rows, .rows_global = bench->config->batch, .views = 1};
  TRY(memory_alloc((size_t)pixels, &batch->inputs));
  TRY(memory_alloc((size_t)rows * real, &batch->targets));
  TRY(memory_alloc((size_t)rows * real, &batch->weights));
  TRY(memory_alloc_zero((size_t)rows * sizeof *batch->samples, (void **)&batch->samples));
  for (int64_t i = 0; i < pixels; i += 16) {
    uint32_t bits[4];
    random_bits(key, (uint64_t)i, (uint64_t)bench->sampler.rank, bits);
    memcpy((char *)batch->inputs + i, bits, pixels - i < 16 ? (size_t)(pixels - i) : 16);
  }
  draw_uniform(bench->ops->parameter_dtype, (size_t)rows, key, 10, batch->targets);
  draw_constant(bench->ops->parameter_dtype, (size_t)rows, 1, batch->weights);
  return STATUS_OK;
}

static enum status build(struct bench *bench) {
  struct optim_spec spec = optim_defaults(OPTIM_SGD);
  TRY(describe(bench));
  TRY(model_build(bench->session->device, &bench->model, 0, gradients_capacity(&bench->sampler, 1, 0), &bench->ops,
                  &bench->net));
  struct parameters own = net_parameters(bench->net);
  if (comm_size(bench->session->comm) > 1 && bench->shards == 0)
    net_synchronise(bench->net, bench->session->data);
  TRY(net_initialise(bench->net, (uint64_t)bench->config->seed));
  spec.momentum = 0.9;
  TRY(optim_create(bench->ops, &spec, own.elements, &bench->optim));
  if (bench->shards == 0)
    TRY(gradients_buckets(bench->session->data, bench->net, (size_t)4 << 20, &bench->buckets));
  return fill_batch(bench);
}

static enum status build_objective(struct bench *bench) {
  struct objective_options options = {.regression = regression_default(REGRESSION_L1)};
  struct gradients_parts parts = {.comm = bench->session->comm,
                                  .data = bench->session->data,
                                  .net = bench->net,
                                  .sampler = &bench->sampler,
                                  .views = 1};
  TRY(objective_create(bench->session->mpi, bench->session->data, bench->ops, &options,
                       (int)net_feature_width(bench->net), 1, &bench->objective));
  parts.objective = bench->objective;
  parts.buckets = bench->buckets;
  TRY(comm_agree(bench->session->comm, gradients_create(&parts, &bench->gradients)));
  return step_graphs_create(bench->session, graphs_mode_of(bench->config->graphs), bench->config->batch,
                            &bench->graphs);
}

static void release(struct bench *bench) {
  step_graphs_destroy(&bench->graphs);
  gradients_destroy(&bench->gradients);
  buckets_destroy(&bench->buckets);
  optim_destroy(&bench->optim);
  objective_destroy(&bench->objective);
  net_destroy(&bench->net);
  memory_free((void **)&bench->batch.samples);
  memory_free(&bench->batch.weights);
  memory_free(&bench->batch.targets);
  memory_free(&bench->batch.inputs);
}

/* --- measuring ---------------------------------------------------------------------------------------------- */

static enum status queue_work(void *context) {
  struct bench *bench = context;
  struct parameters own = net_parameters(bench->net);
  TRY(gradients_compute(bench->gradients));
  TRY(optim_update(bench->optim, own.data, own.gradients, NULL));
  return gradients_end(bench->gradients);
}

static enum status step(struct bench *bench) {
  struct gradients_value value;
  TRY(gradients_begin(bench->gradients, &bench->batch));
  TRY(optim_begin(bench->optim, 1e-3));
  TRY(step_graphs_run(bench->graphs, gradients_key(bench->gradients), queue_work, bench));
  TRY(gradients_finish(bench->gradients, &value));
  return step_graphs_finish(bench->graphs);
}

static enum status measure(struct bench *bench, struct measurement *out) {
  struct comm *comm = bench->session->comm;
  double gemm;
  TRY(comm_agree(comm, bench_gemm(bench->ops, &out->gemm_gflops)));
  do
    TRY(step(bench)); /* makes primitives, takes scratch memory, chooses between graphs and none */
  while (!step_graphs_settled(bench->graphs));
  out->seconds = INFINITY;
  for (int64_t repeat = 0; repeat < bench->config->repeat; repeat++) {
    TRY(comm_barrier(comm));
    double began = log_seconds();
    TRY(step(bench));
    double seconds = log_seconds() - began;
    TRY(comm_max_f64(comm, &seconds, 1)); /* the slowest rank is the time */
    out->seconds = fmin(out->seconds, seconds);
  }
  TRY(comm_agree(comm, bench_gemm(bench->ops, &gemm)));
  out->gemm_gflops = fmax(out->gemm_gflops, gemm);
  out->gflops = net_flops_per_row(bench->net, true) * (double)bench->batch.rows / out->seconds / 1e9;
  return STATUS_OK;
}

/* The most memory this process ever held, libraries and all; on a GPU, what it holds there. */
static double peak_bytes(const struct bench *bench) {
  struct rusage usage = {0};
  if (bench->session->device != NULL)
    return (double)device_bytes(bench->session->device);
  getrusage(RUSAGE_SELF, &usage);
  return (double)usage.ru_maxrss * 1024;
}

/* fast: seconds of a step of the fast mode; 0 = this is one. */
static void print(const struct bench *bench, const struct measurement *m, double fast) {
  const struct config *config = bench->config;
  double images = (double)config->batch / m->seconds;
  if (!config->json) {
    printf("%s, %s x %d images, %d rank%s x %d thread%s, %s, %s: forward, backward, update in %.4f s, %.2f images/s\n",
           bench->model.name, config->size, (int)config->batch, comm_size(bench->session->comm),
           comm_size(bench->session->comm) > 1 ? "s" : "", bench->session->threads,
           bench->session->threads > 1 ? "s" : "", device_facts(bench->session->device)->name, bench->model.precision,
           m->seconds, images);
    printf("  %.1f GFLOP/s of a rank = %.0f %% of a plain product (%.1f); peak memory of a rank %.0f MB\n", m->gflops,
           100 * m->gflops / m->gemm_gflops, m->gemm_gflops, peak_bytes(bench) / 1e6);
    if (fast > 0)
      printf(
          "  --reproducible, %d virtual shards: %.2f times the %.4f s of the fast mode on as many ranks and threads\n",
          bench->shards, m->seconds / fast, fast);
    return;
  }
  json_t *object =
      json_pack("{s:s, s:s, s:I, s:i, s:i, s:s, s:s, s:f, s:f, s:f, s:f, s:I}", "model", bench->model.name, "size",
                config->size, "batch", (json_int_t)config->batch, "threads", bench->session->threads, "ranks",
                comm_size(bench->session->comm), "device", device_facts(bench->session->device)->name, "precision",
                bench->model.precision, "seconds", m->seconds, "images_per_second", images, "gflops", m->gflops,
                "gemm_gflops", m->gemm_gflops, "peak_bytes", (json_int_t)peak_bytes(bench));
  if (fast > 0) {
    json_object_set_new(object, "virtual_shards", json_integer(bench->shards));
    json_object_set_new(object, "fast_seconds", json_real(fast));
    json_object_set_new(object, "price", json_real(m->seconds / fast));
  }
  json_dumpf(object, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
  putchar('\n');
  json_decref(object);
}

/* fast: as print() has it. */
static enum status run(struct session *session, const struct config *config, int shards, double fast, bool printed,
                       double *seconds) {
  struct bench bench = {.session = session, .config = config, .shards = shards};
  struct measurement measurement = {0};
  enum status status;
  TRY_GOTO(comm_agree(session->comm, build(&bench)), out);
  TRY_GOTO(build_objective(&bench), out);
  TRY_GOTO(measure(&bench, &measurement), out);
  *seconds = measurement.seconds;
  if (printed && comm_rank(session->comm) == 0)
    print(&bench, &measurement, fast);
out:
  if (status == STATUS_OK || status_agreed() || comm_size(session->comm) == 1)
    release(&bench);
  return status;
}

enum status bench_step(struct session *session, const struct config *config) {
  double fast = 0, seconds;
  int shards = config->reproducible ? (int)config->virtual_shards : 0, size = comm_size(session->comm);
  if (shards > 0 && shards < size)
    return comm_agree(session->comm,
                      fail(ERR_ARGUMENT, "--virtual-shards %d are too few for %d ranks; give more", shards, size));
  if (shards > 0)
    TRY(run(session, config, 0, 0, false, &fast));
  return run(session, config, shards, fast, true, &seconds);
}
