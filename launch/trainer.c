/* From options to the parts of a training run. */
#include "launch/trainer.h"

#include "dist/memory.h"
#include "launch/heads.h"
#include "launch/loading.h"
#include "launch/options.h"
#include "launch/prior.h"
#include "launch/run_folder.h"
#include "launch/staging.h"

#include <stdlib.h>
#include <string.h>

static enum status check_options(struct trainer *trainer) {
  const struct config *config = &trainer->config;
  int size = comm_size(trainer->session->comm);
  REQUIRE(config->output != NULL || config->command == COMMAND_CHECK, ERR_ARGUMENT,
          "conr train wants a run folder: give -o RUN");
  TRY(options_check(config));
  REQUIRE(config->batch >= size, ERR_ARGUMENT,
          "--batch %lld is smaller than the %d ranks; give at least one sample to each", (long long)config->batch,
          size);
  REQUIRE(!config->conr || config->conr_memory == 0 || trainer->session->device == NULL, ERR_ARGUMENT,
          "--conr-memory %lld is computed on the host alone; give --device cpu, or drop it",
          (long long)config->conr_memory);
  REQUIRE(!config->reproducible || config->virtual_shards >= size, ERR_ARGUMENT,
          "--virtual-shards %lld are too few for %d ranks, each of which takes at least one; start at most %lld ranks, "
          "or begin a run with more shards, whose bits are others",
          (long long)config->virtual_shards, size, (long long)config->virtual_shards);
  return STATUS_OK;
}

/* ---- parts -------------------------------------------------------------------------------- */

static enum conr_variant variant_of(const char *name) {
  return strcmp(name, "paper") == 0 ? CONR_PAPER : strcmp(name, "depth") == 0 ? CONR_DEPTH : CONR_REFERENCE;
}

static struct conr_options conr_options_of(const struct config *config) {
  struct conr_options options;
  conr_options_default(&options);
  options.variant = variant_of(config->conr_variant);
  options.aggregate = strcmp(config->conr_aggregate, "log_of_mean") ? CONR_MEAN_OF_LOG : CONR_LOG_OF_MEAN;
  options.distance = strcmp(config->conr_distance, "manhattan") == 0   ? CONR_MANHATTAN
                     : strcmp(config->conr_distance, "chebyshev") == 0 ? CONR_CHEBYSHEV
                                                                       : CONR_EUCLIDEAN;
  options.path = strcmp(config->conr_path, "dense") == 0    ? CONR_DENSE
                 : strcmp(config->conr_path, "banded") == 0 ? CONR_BANDED
                                                            : CONR_AUTO;
  options.w = config->conr_w;
  options.t = config->conr_t;
  options.e = config->conr_e;
  options.outer_weights = config->conr_outer_weights;
  options.memory_rows = config->conr ? config->conr_memory : 0;
  options.constant_rows = (double)config->conr_constant;
  return options;
}

static struct loader_options loader_options_of(const struct trainer *trainer, bool training) {
  struct loader_options options = loading_options(&trainer->config, trainer->session->threads, trainer->model.height,
                                                  trainer->model.width, training);
  options.transform.padding = (int)trainer->config.pad; /* resolved */
  options.cache = trainer->cache;
  options.device = trainer->session->device;
  options.weights = training ? trainer->weights : NULL;
  options.weights_of_row = training ? head_weights(&trainer->head) : 1;
  return options;
}

static enum status describe_model(struct trainer *trainer) {
  const struct config *config = &trainer->config;
  bool images = dataset_kind(trainer->dataset) == DATASET_IMAGES;
  snprintf(trainer->hidden, sizeof trainer->hidden, "%s", config->hidden);
  trainer->model = (struct model_description){.name = config->model,
                                              .inputs = dataset_features(trainer->dataset),
                                              .outputs = head_outputs(&trainer->head),
                                              .targets = trainer->head.targets,
                                              .head = head_name(trainer->head.kind),
                                              .hidden = trainer->hidden,
                                              .activation = config->activation,
                                              .precision = config->precision,
                                              .normalise = config->normalise,
                                              .probabilistic = config->probabilistic,
                                              .reconstructs = config->reconstruct > 0};
  return images ? config_size(config->size, &trainer->model.height, &trainer->model.width) : STATUS_OK;
}

static enum status open_data(struct trainer *trainer) {
  struct config *config = &trainer->config;
  enum dtype dtype = strcmp(config->precision, "f64") == 0 ? F64 : F32;
  TRY(dataset_open(staging_path(trainer->session, config->word[0]), trainer->shared, dtype, &trainer->dataset));
  TRY(dataset_require_split(trainer->dataset, SPLIT_TRAIN, "training"));
  TRY(dataset_require_varied_targets(trainer->dataset));
  bool images = dataset_kind(trainer->dataset) == DATASET_IMAGES;
  TRY(options_check_kind(config, images));
  if (images && dataset_image_layout(trainer->dataset) == IMAGE_LAYOUT_PIXELS && strcmp(config->decode, "host") != 0) {
    log_line(&trainer->session->log, "%s holds pixels: there is nothing for --decode %s to do", config->word[0],
             config->decode);
    config->decode = "host";
  }
  TRY(options_resolve(config, images));
  TRY(options_check_resolved(config, images));
  TRY(regularising_resolve(config, trainer->dataset, &trainer->regularising_texts));
  TRY(smoother_resolve(config, trainer->dataset, &trainer->fds_texts));
  if (strcmp(config->precision, "auto") == 0)
    config->precision = images && trainer->session->device != NULL ? "bf16" : "f32";
  TRY(heads_of_options(config, dataset_targets(trainer->dataset), &trainer->head));
  TRY(heads_vote(config, UVOTE_FIRST, &trainer->vote));
  TRY(describe_model(trainer));
  TRY(weighting_create(config, trainer->dataset, trainer->weight_bins, &trainer->weights));
  trainer->sampler = (struct sampler){.rows = dataset_split_rows(trainer->dataset, SPLIT_TRAIN),
                                      .batch = config->batch,
                                      .seed = (uint64_t)config->seed,
                                      .shuffle = strcmp(config->shuffle, "random") == 0,
                                      .rank = comm_rank(trainer->session->comm),
                                      .size = comm_size(trainer->session->comm),
                                      .shards = config->reproducible ? (int)config->virtual_shards : 0};
  TRY(joined_names(trainer->dataset, true, &trainer->feature_names));
  return joined_names(trainer->dataset, false, &trainer->target_names);
}

/* Collective; what fails, fails on all ranks alike. */
static enum status build_cache(struct trainer *trainer) {
  const char *wanted = trainer->config.cache;
  enum image_cache_mode mode = strcmp(wanted, "auto") == 0 ? IMAGE_CACHE_AUTO
                               : strcmp(wanted, "on") == 0 ? IMAGE_CACHE_ON
                                                           : IMAGE_CACHE_OFF;
  struct loader_options options = loader_options_of(trainer, true);
  if (dataset_kind(trainer->dataset) != DATASET_IMAGES)
    return STATUS_OK;
  return image_cache_create(trainer->dataset, trainer->shared, &options.transform, trainer->config.full_decode, mode,
                            &trainer->cache);
}

static enum status build_loader(struct trainer *trainer) {
  struct loader_options options = loader_options_of(trainer, true);
  return loader_create(trainer->dataset, SPLIT_TRAIN, &trainer->sampler, &options, &trainer->loader);
}

/* It is most of the network, and of its memory: told before the optimiser takes its share. */
static void tell_decoder(const struct trainer *trainer) {
  struct parameters own = net_parameters(trainer->net);
  size_t decoder = 0, arrays = strcmp(trainer->config.optimiser, "sgd") == 0 ? 1 : 2; /* of the optimiser, at most */
  for (int i = own.head; i < own.count; i++)
    decoder += strncmp(own.list[i].name, "decoder.", strlen("decoder.")) == 0 ? own.list[i].count : 0;
  log_line(&trainer->session->log,
           "--reconstruct: the decoder has %zu of %zu parameters; with gradients and the optimiser's states they take "
           "%.2f GB of every rank's memory",
           decoder, own.elements,
           (double)(own.elements * dtype_size(trainer->ops->parameter_dtype) * (2 + arrays)) / 1e9);
}

static enum status build_model(struct trainer *trainer) {
  const struct config *config = &trainer->config;
  int64_t rows = gradients_capacity(&trainer->sampler, (int)config->views, config->micro_batch);
  TRY(model_build(trainer->session->device, &trainer->model, config->dropout, rows, &trainer->ops, &trainer->net));
  if (config->reconstruct > 0)
    tell_decoder(trainer);
  const char *on_features = options_feature_term(config);
  REQUIRE(on_features == NULL || net_parameters(trainer->net).count > 2, ERR_ARGUMENT,
          "--%s needs features to shape: give --hidden at least one layer", on_features);
  bool frozen = strcmp(config->freeze, "none") != 0;
  REQUIRE((config->stage2 == NULL && !frozen) || net_parameters(trainer->net).head > 0, ERR_ARGUMENT,
          "--%s is for networks with an encoder: give --hidden at least one layer",
          config->stage2 != NULL ? "stage2" : "freeze");
  if (frozen)
    net_freeze_encoder(trainer->net, strcmp(config->freeze, "probe") == 0);
  if (strcmp(config->batch_norm, "sync") == 0 && comm_size(trainer->session->comm) > 1)
    net_synchronise(trainer->net, trainer->session->data);
  if (config->head_std > 0)
    net_start_head(trainer->net, config->head_std);
  return net_initialise(trainer->net, (uint64_t)config->seed);
}

static enum status regression_of(const struct config *config, struct regression *loss) {
  enum regression_kind kind;
  TRY(regression_by_name(config->loss, &kind));
  *loss = regression_default(kind);
  loss->beta = kind == REGRESSION_HUBER ? config->huber_beta : config->focal_beta;
  loss->gamma = config->focal_gamma;
  return focal_activation_by_name(config->focal_activation, &loss->activation);
}

static enum status build_objective(struct trainer *trainer) {
  const struct config *config = &trainer->config;
  struct objective_options options = {.head = trainer->head,
                                      .epochs = config->epochs,
                                      .balanced = trainer->balanced,
                                      .noise_scale = {.initial = config->noise_scale,
                                                      .lr = config->noise_lr,
                                                      .beta1 = config->beta1,
                                                      .beta2 = config->beta2,
                                                      .epsilon = config->epsilon},
                                      .weights = strcmp(config->weights, "none") != 0 && trainer->balanced == NULL &&
                                                 trainer->head.kind != HEAD_EXPERTS,
                                      .conr = config->conr,
                                      .conr_beta = config->conr_beta,
                                      .conr_options = conr_options_of(config)};
  if (trainer->balanced == NULL && trainer->head.kind == HEAD_VALUES)
    TRY(regression_of(config, &options.regression));
  TRY(regularising_options(config, &options.regularisers));
  TRY(objective_create(trainer->session->mpi, trainer->session->data, trainer->ops, &options,
                       (int)net_mean_width(trainer->net), dataset_targets(trainer->dataset), &trainer->objective));
  trainer->regularisers = options.regularisers;
  trainer->state_count += objective_states(trainer->objective, trainer->states + trainer->state_count);
  if (objective_has_regularisers(trainer->objective, SIDE_BOTH))
    trainer->states[trainer->state_count++] =
        (struct state_array){"regulariser_sums", trainer->regulariser_sums, REGULARISERS};
  if (config->reconstruct > 0)
    trainer->states[trainer->state_count++] =
        (struct state_array){"reconstruction_sum", &trainer->reconstruction_sum, 1};
  return STATUS_OK;
}

static enum status build_schedule(struct trainer *trainer) {
  const struct config *config = &trainer->config;
  struct schedule *schedule = &trainer->schedule;
  int64_t steps = sampler_steps(&trainer->sampler);
  TRY(schedule_parse(config->schedule, &schedule->kind));
  TRY(config_integers("milestones", config->milestones, 0, INT64_MAX, MOST_MILESTONES, trainer->milestones,
                      &schedule->milestone_count));
  schedule->lr = config->lr;
  schedule->factor = schedule->final_factor = config->lr_factor;
  schedule->milestones = trainer->milestones;
  schedule->steps_per_epoch = steps;
  schedule->total_steps = steps * config->epochs;
  schedule->warmup_steps = config->warmup;
  return schedule_check(schedule);
}

static enum status build_optimiser(struct trainer *trainer) {
  const struct config *config = &trainer->config;
  struct optim_spec spec = {.beta1 = config->beta1,
                            .beta2 = config->beta2,
                            .epsilon = config->epsilon,
                            .momentum = config->momentum,
                            .weight_decay = config->weight_decay};
  struct parameters own = net_learned(trainer->net);
  TRY(optim_parse(config->optimiser, &spec.kind));
  TRY(optim_create(trainer->ops, &spec, own.elements, &trainer->optim));
  TRY(heads_set_rates(config, trainer->net, trainer->optim));
  if (config->reproducible)
    return STATUS_OK;
  return gradients_buckets(trainer->session->data, trainer->net, (size_t)(config->bucket_mb * 1048576),
                           &trainer->buckets);
}

/* The options as text, for the checkpoint. */
static enum status write_options(struct trainer *trainer) {
  char *text = NULL;
  size_t bytes = 0;
  FILE *stream = open_memstream(&text, &bytes);
  REQUIRE(stream != NULL, ERR_MEMORY, "out of memory for the options");
  config_write(&trainer->config, stream);
  fclose(stream);
  enum status status = memory_alloc(bytes + 1, (void **)&trainer->options_text);
  if (status == STATUS_OK)
    memcpy(trainer->options_text, text, bytes + 1);
  free(text);
  return status;
}

static enum status build_smoothing(struct trainer *trainer) {
  const struct config *config = &trainer->config;
  struct loader_options loader = loader_options_of(trainer, true);
  struct collection_parts parts = {.session = trainer->session,
                                   .net = trainer->net,
                                   .dataset = trainer->dataset,
                                   .sampler = &trainer->sampler,
                                   .loader = &loader,
                                   .micro_batch = config->micro_batch,
                                   .seed = (uint64_t)config->seed,
                                   .evaluation = strcmp(config->fds_collect, "eval") == 0};
  if (!config->fds)
    return STATUS_OK;
  TRY(smoother_create(config, trainer->dataset, &trainer->sampler, trainer->net, (int)config->views,
                      &trainer->smoother));
  parts.smoother = trainer->smoother;
  trainer->state_count += fds_states(smoother_fds(trainer->smoother), trainer->states + trainer->state_count);
  return collection_create(&parts, &trainer->collection);
}

/* All that one rank can do by itself. */
static enum status build(struct trainer *trainer) {
  TRY(build_loader(trainer));
  TRY(build_model(trainer));
  TRY(build_schedule(trainer));
  TRY(build_optimiser(trainer));
  TRY(write_options(trainer));
  TRY(build_smoothing(trainer));
  trainer->progress = (struct progress){.best_epoch = -1};
  return STATUS_OK;
}

static enum status build_gradients(struct trainer *trainer) {
  struct loader_options options = loader_options_of(trainer, true);
  struct gradients_parts parts = {.comm = trainer->session->comm,
                                  .data = trainer->session->data,
                                  .net = trainer->net,
                                  .objective = trainer->objective,
                                  .buckets = trainer->buckets,
                                  .sampler = &trainer->sampler,
                                  .smoother = trainer->smoother,
                                  .views = (int)trainer->config.views,
                                  .micro_batch = trainer->config.micro_batch,
                                  .seed = (uint64_t)trainer->config.seed,
                                  .reconstruct = trainer->config.reconstruct,
                                  .table = dataset_kind(trainer->dataset) == DATASET_TABLE,
                                  .images = loading_images(trainer->loader, &options, &trainer->sampler)};
  TRY(gradients_create(&parts, &trainer->gradients));
  return step_graphs_create(trainer->session, graphs_mode_of(trainer->config.graphs),
                            sampler_batch_rows(&trainer->sampler, 0), &trainer->graphs);
}

static enum status measure_validation(struct trainer *trainer) {
  struct metrics_options options = metrics_options_default();
  TRY(metrics_create(&options, F64, 0, dataset_targets(trainer->dataset), NULL, &trainer->metrics));
  return inference_measure(trainer->validation, trainer->metrics);
}

/* As large passes as the training step's memory allows. */
static enum status build_validation(struct trainer *trainer) {
  struct session *session = trainer->session;
  struct inference_parts parts = {.comm = session->comm,
                                  .data = session->data,
                                  .dataset = trainer->dataset,
                                  .split = SPLIT_VAL,
                                  .net = trainer->net,
                                  .head = trainer->head,
                                  .vote = trainer->vote,
                                  .batch = net_capacity(trainer->net) * sampler_shards(&trainer->sampler),
                                  .shards = trainer->sampler.shards,
                                  .options = loader_options_of(trainer, false)};
  TRY(inference_create(&parts, &trainer->validation));
  return comm_agree(session->comm, measure_validation(trainer));
}

enum status trainer_create(struct session *session, const struct config *config, struct trainer **out) {
  *out = NULL;
  struct trainer *trainer = NULL;
  enum status status;
  TRY(comm_agree(session->comm, memory_alloc_zero(sizeof *trainer, (void **)&trainer)));
  trainer->session = session;
  trainer->config = *config;
  TRY_GOTO(comm_agree(session->comm, check_options(trainer)), failed);
  TRY_GOTO(comm_create(session->mpi, &trainer->shared), failed);
  TRY_GOTO(comm_agree(session->comm, open_data(trainer)), failed);
  TRY_GOTO(comm_agree(session->comm, build_cache(trainer)), failed);
  TRY_GOTO(comm_agree(session->comm, build(trainer)), failed);
  TRY_GOTO(prior_create(session, &trainer->config, trainer->dataset, trainer->ops->parameter_dtype, &trainer->balanced),
           failed);
  TRY_GOTO(comm_agree(session->comm, build_objective(trainer)), failed);
  TRY_GOTO(comm_agree(session->comm, build_gradients(trainer)), failed);
  if (dataset_split_rows(trainer->dataset, SPLIT_VAL) > 0)
    TRY_GOTO(build_validation(trainer), failed);
  REQUIRE_GOTO(trainer->validation != NULL || config->patience == 0, no_validation, ERR_ARGUMENT,
               "--patience needs validation samples, and %s has none", config->word[0]);
  *out = trainer;
  return STATUS_OK;
no_validation:
  status = comm_agree(session->comm, status);
failed:
  trainer_destroy(&trainer);
  return status;
}

void trainer_destroy(struct trainer **trainer) {
  if (*trainer == NULL)
    return;
  struct trainer *own = *trainer;
  inference_destroy(&own->validation);
  metrics_destroy(&own->metrics);
  step_graphs_destroy(&own->graphs);
  gradients_destroy(&own->gradients);
  collection_destroy(&own->collection);
  smoother_destroy(&own->smoother);
  buckets_destroy(&own->buckets);
  optim_destroy(&own->optim);
  objective_destroy(&own->objective);
  balanced_destroy(&own->balanced);
  net_destroy(&own->net);
  loader_destroy(&own->loader);
  image_cache_destroy(&own->cache);
  memory_free((void **)&own->weights);
  dataset_close(&own->dataset);
  comm_destroy(&own->shared);
  memory_free((void **)&own->feature_names);
  memory_free((void **)&own->target_names);
  memory_free((void **)&own->options_text);
  memory_free((void **)trainer);
}

enum status joined_names(const struct dataset *dataset, bool features, char **out) {
  int count = features ? dataset_features(dataset) : dataset_targets(dataset);
  size_t bytes = 1;
  for (int i = 0; i < count; i++)
    bytes += 1 + strlen(features ? dataset_feature_name(dataset, i) : dataset_target_name(dataset, i));
  TRY(memory_alloc(bytes, (void **)out));
  char *next = *out;
  *next = '\0';
  for (int i = 0; i < count; i++)
    next += sprintf(next, "%s%s", i ? "\n" : "",
                    features ? dataset_feature_name(dataset, i) : dataset_target_name(dataset, i));
  return STATUS_OK;
}
