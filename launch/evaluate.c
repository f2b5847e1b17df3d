/* conr eval and conr predict: a checkpoint's network over a split of a data file. */
#include "launch/evaluate.h"
#include "dist/memory.h"
#include "io/predictions.h"
#include "launch/commands.h"
#include "launch/evaluate_spread.h"
#include "launch/evaluate_table.h"
#include "launch/heads.h"
#include "launch/json_output.h"
#include "launch/loading.h"
#include "launch/run_folder.h"
#include "launch/staging.h"
#include "launch/trainer.h"
#include "launch/weighting.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

static enum split split_of(const char *part) {
  return strcmp(part, "train") == 0 ? SPLIT_TRAIN : strcmp(part, "val") == 0 ? SPLIT_VAL : SPLIT_TEST;
}

/* ---- the checkpoint, from rank 0 to all ---------------------------------------------------- */

/* The sizes that memory is made for must be those of the arrays. */
static enum status check_sizes(const struct opened_checkpoint *opened) {
  const struct array *const arrays[] = {opened->mean, opened->std};
  int64_t inputs = opened->model.inputs;
  REQUIRE(inputs >= (model_is_for_images(&opened->model) ? 0 : 1) && inputs <= INT_MAX / 8, ERR_FORMAT,
          "%s says the model has %lld inputs; use another checkpoint", opened->file->path, (long long)inputs);
  for (int i = 0; i < 2; i++)
    REQUIRE(arrays[i] == NULL ||
                (arrays[i]->type == ARRAY_F64 && arrays[i]->rank == 1 && arrays[i]->shape[0] == inputs),
            ERR_FORMAT, "\"%s\" in %s must be %lld float64 numbers, one for each input; use another checkpoint",
            arrays[i]->name, opened->file->path, (long long)inputs);
  return STATUS_OK;
}

static enum status open_checkpoint(struct evaluation *evaluation, const struct config *config,
                                   struct opened_checkpoint *opened) {
  char path[PATH_MAX];
  TRY(run_checkpoint_path(config->word[0], config->checkpoint, path));
  TRY(checkpoint_open(path, opened));
  TRY(check_sizes(opened));
  evaluation->header.data_hash = opened->data_hash;
  evaluation->header.inputs = opened->model.inputs;
  evaluation->header.outputs = opened->model.outputs;
  evaluation->header.targets = opened->model.targets;
  evaluation->header.full_decode = strstr(opened->options, "\nfull-decode = true\n") != NULL;
  evaluation->header.standardised = opened->mean != NULL && opened->std != NULL;
  evaluation->header.feature_bytes = (int64_t)strlen(opened->feature_names) + 1;
  evaluation->header.target_bytes = (int64_t)strlen(opened->target_names) + 1;
  evaluation->header.height = opened->model.height;
  evaluation->header.width = opened->model.width;
  evaluation->header.probabilistic = opened->model.probabilistic;
  snprintf(evaluation->header.name, sizeof evaluation->header.name, "%s", opened->model.name);
  snprintf(evaluation->header.normalise, sizeof evaluation->header.normalise, "%s", opened->model.normalise);
  snprintf(evaluation->header.hidden, sizeof evaluation->header.hidden, "%s", opened->model.hidden);
  snprintf(evaluation->header.activation, sizeof evaluation->header.activation, "%s", opened->model.activation);
  snprintf(evaluation->header.precision, sizeof evaluation->header.precision, "%s", opened->model.precision);
  snprintf(evaluation->header.head, sizeof evaluation->header.head, "%s", opened->model.head);
  return STATUS_OK;
}

/* Room for what follows the header; the same sizes on all ranks. */
static enum status allocate_tables(struct evaluation *evaluation) {
  TRY(memory_alloc((size_t)evaluation->header.feature_bytes, (void **)&evaluation->feature_names));
  TRY(memory_alloc((size_t)evaluation->header.target_bytes, (void **)&evaluation->target_names));
  if (!evaluation->header.standardised)
    return STATUS_OK;
  return memory_alloc((size_t)evaluation->header.inputs * 2 * sizeof(double), (void **)&evaluation->standardise);
}

static void fill_tables(struct evaluation *evaluation, const struct opened_checkpoint *opened) {
  size_t bytes = (size_t)evaluation->header.inputs * sizeof(double);
  memcpy(evaluation->feature_names, opened->feature_names, (size_t)evaluation->header.feature_bytes);
  memcpy(evaluation->target_names, opened->target_names, (size_t)evaluation->header.target_bytes);
  if (!evaluation->header.standardised)
    return;
  memcpy(evaluation->standardise, opened->mean->data, bytes);
  memcpy(evaluation->standardise + evaluation->header.inputs, opened->std->data, bytes);
}

static enum status share_header(struct evaluation *evaluation, const struct opened_checkpoint *opened) {
  struct comm *comm = evaluation->session->comm;
  TRY(comm_broadcast(comm, &evaluation->header, sizeof evaluation->header, 0));
  TRY(comm_agree(comm, allocate_tables(evaluation)));
  if (opened->feature_names != NULL && opened->target_names != NULL) /* rank 0 has read them */
    fill_tables(evaluation, opened);
  TRY(comm_broadcast(comm, evaluation->feature_names, (size_t)evaluation->header.feature_bytes, 0));
  TRY(comm_broadcast(comm, evaluation->target_names, (size_t)evaluation->header.target_bytes, 0));
  if (evaluation->header.standardised)
    TRY(comm_broadcast(comm, evaluation->standardise, (size_t)evaluation->header.inputs * 2 * sizeof(double), 0));
  return STATUS_OK;
}

/* ---- model and data ------------------------------------------------------------------------ */

/* The data must have the columns the model was trained on, in that order. */
static enum status check_columns(struct evaluation *evaluation, const char *path) {
  char *features = NULL, *targets = NULL;
  enum status status;
  REQUIRE(dataset_targets(evaluation->dataset) == evaluation->header.targets, ERR_ARGUMENT,
          "%s has labels of %d components, but the model predicts %lld", path, dataset_targets(evaluation->dataset),
          (long long)evaluation->header.targets);
  TRY_GOTO(joined_names(evaluation->dataset, true, &features), out);
  TRY_GOTO(joined_names(evaluation->dataset, false, &targets), out);
  REQUIRE_GOTO(
      strcmp(features, evaluation->feature_names) == 0, out, ERR_ARGUMENT,
      "%s has other feature columns, or in another order, than the model was trained on; import it with the same "
      "columns",
      path);
  REQUIRE_GOTO(strcmp(targets, evaluation->target_names) == 0, out, ERR_ARGUMENT,
               "%s has other target columns than the model was trained on; import it with the same --target", path);
out:
  memory_free((void **)&features);
  memory_free((void **)&targets);
  return status;
}

static enum status open_model_and_data(struct evaluation *evaluation, const struct config *config) {
  struct model_description description = {
      .name = evaluation->header.name,
      .height = evaluation->header.height,
      .width = evaluation->header.width,
      .probabilistic = evaluation->header.probabilistic,
      .normalise = evaluation->header.normalise,
      .inputs = evaluation->header.inputs,
      .outputs = evaluation->header.outputs,
      .targets = evaluation->header.targets,
      .head = evaluation->header.head,
      .hidden = evaluation->header.hidden,
      .activation = evaluation->header.activation,
      .precision = model_precision(evaluation->session->device, evaluation->header.precision)};
  TRY(heads_of_description(&description, &evaluation->head));
  TRY(heads_vote(config, UVOTE_MINVAR, &evaluation->vote));
  REQUIRE(evaluation->head.kind == HEAD_EXPERTS || !config_given(config, "vote"), ERR_ARGUMENT,
          "--vote %s is for models of --loss uvote, and that of %s has no experts; drop it", config->vote,
          config->word[0]);
  enum dtype dtype = strcmp(evaluation->header.precision, "f64") == 0 ? F64 : F32;
  struct standardisation as = {.features = (int)evaluation->header.inputs,
                               .mean = evaluation->standardise,
                               .std = evaluation->standardise ? evaluation->standardise + evaluation->header.inputs
                                                              : NULL};
  bool images = model_is_for_images(&description);
  TRY(dataset_open_as(staging_path(evaluation->session, config->word[1]), evaluation->shared, dtype,
                      images ? NULL : &as, &evaluation->dataset));
  REQUIRE((dataset_kind(evaluation->dataset) == DATASET_IMAGES) == images, ERR_ARGUMENT,
          "the model was trained on %s, but %s holds %s", images ? "images" : "a table", config->word[1],
          images ? "a table" : "images");
  TRY(check_columns(evaluation, config->word[1]));
  TRY(dataset_require_split(evaluation->dataset, split_of(config->part), "evaluation"));
  struct sampler sampler = {.rows = dataset_split_rows(evaluation->dataset, split_of(config->part)),
                            .batch = config->batch,
                            .size = comm_size(evaluation->session->comm)};
  return model_build(evaluation->session->device, &description, 0, sampler_most_rows(&sampler), &evaluation->ops,
                     &evaluation->net);
}

void evaluation_close(struct evaluation *evaluation) {
  inference_destroy(&evaluation->inference);
  metrics_destroy(&evaluation->metrics);
  net_destroy(&evaluation->net);
  dataset_close(&evaluation->dataset);
  comm_destroy(&evaluation->shared);
  memory_free((void **)&evaluation->standardise);
  memory_free((void **)&evaluation->feature_names);
  memory_free((void **)&evaluation->target_names);
}

enum status evaluation_open(struct session *session, const struct config *config, struct evaluation *evaluation) {
  struct comm *comm = session->comm;
  struct opened_checkpoint opened = {0};
  bool root = comm_rank(comm) == 0;
  *evaluation = (struct evaluation){.session = session};
  enum status status;
  TRY_GOTO(comm_agree(comm, root ? open_checkpoint(evaluation, config, &opened) : STATUS_OK), out);
  TRY_GOTO(share_header(evaluation, &opened), out);
  TRY_GOTO(comm_create(session->mpi, &evaluation->shared), out);
  TRY_GOTO(comm_agree(comm, open_model_and_data(evaluation, config)), out);
  struct parameters own = net_parameters(evaluation->net), buffers = net_buffers(evaluation->net);
  status = root ? checkpoint_restore(&opened, own, buffers, NULL, evaluation->ops->parameter_dtype) : STATUS_OK;
  TRY_GOTO(comm_agree(comm, status), out);
  TRY_GOTO(model_share(session->data, evaluation->net), out);
  struct config decoding = *config; /* the pixels that validation has seen */
  decoding.full_decode = config->full_decode || evaluation->header.full_decode;
  struct inference_parts parts = {.comm = comm,
                                  .data = session->data,
                                  .dataset = evaluation->dataset,
                                  .split = split_of(config->part),
                                  .net = evaluation->net,
                                  .head = evaluation->head,
                                  .vote = evaluation->vote,
                                  .batch = config->batch,
                                  .options = loading_options(&decoding, session->threads, evaluation->header.height,
                                                             evaluation->header.width, false)};
  status = inference_create(&parts, &evaluation->inference);
out:
  checkpoint_close(&opened);
  if (status != STATUS_OK && (status_agreed() || comm_size(comm) == 1))
    evaluation_close(evaluation);
  return status;
}

/* Load, run, gather.  On failure nothing is left open. */
static enum status run_evaluation(struct session *session, const struct config *config, struct evaluation *evaluation) {
  TRY(evaluation_open(session, config, evaluation));
  enum status status = inference_run(evaluation->inference);
  if (status != STATUS_OK && (status_agreed() || comm_size(session->comm) == 1))
    evaluation_close(evaluation);
  return status;
}

/* ---- conr eval ----------------------------------------------------------------------------- */

enum status evaluation_measure(struct evaluation *evaluation, const struct config *config) {
  struct metrics_options options = metrics_options_default();
  double *labels = NULL;
  enum status status;
  options.bin_width = config->bin_width;
  options.many_over = config->many;
  options.few_under = config->few;
  TRY_GOTO(weighting_labels(evaluation->dataset, &labels), out);
  TRY_GOTO(metrics_create(&options, F64, dataset_split_rows(evaluation->dataset, SPLIT_TRAIN),
                          dataset_targets(evaluation->dataset), labels, &evaluation->metrics),
           out);
  status = inference_measure(evaluation->inference, evaluation->metrics);
out:
  memory_free((void **)&labels);
  return status;
}

/* spread: NULL where the model says nothing of its errors. */
static enum status print_tables(const struct metrics_table *table, const struct spread_table *spread, bool json) {
  if (!json) {
    evaluate_table_print(table, stdout);
    if (spread != NULL)
      spread_table_print(spread, stdout);
    return STATUS_OK;
  }
  json_t *object;
  TRY(evaluate_table_json(table, &object));
  enum status status = spread != NULL ? spread_table_json(spread, object) : STATUS_OK;
  if (status == STATUS_OK)
    json_output_print(object);
  json_decref(object);
  return status;
}

enum status evaluate_check(const struct config *config) {
  REQUIRE(config->few <= config->many + 1, ERR_ARGUMENT, "--few %lld is above --many %lld; a label would be both",
          (long long)config->few, (long long)config->many);
  return STATUS_OK;
}

/* Open, run, measure.  On failure nothing is left open. */
static enum status measure(struct session *session, const struct config *config, struct evaluation *evaluation,
                           struct metrics_table *table) {
  TRY(comm_agree(session->comm, evaluate_check(config)));
  TRY(run_evaluation(session, config, evaluation));
  enum status status = comm_agree(session->comm, evaluation_measure(evaluation, config));
  if (status == STATUS_OK)
    status = inference_table(evaluation->inference, table);
  if (status != STATUS_OK)
    evaluation_close(evaluation);
  return status;
}

enum status evaluate(struct session *session, const struct config *config, struct metrics_table *table) {
  struct evaluation evaluation;
  TRY(measure(session, config, &evaluation, table));
  evaluation_close(&evaluation);
  return STATUS_OK;
}

enum status command_eval(struct session *session, const struct config *config) {
  struct evaluation evaluation;
  struct metrics_table table;
  struct spread_table spread;
  enum status status = STATUS_OK;
  TRY(measure(session, config, &evaluation, &table));
  bool spreads = head_spreads(&evaluation.head);
  if (spreads)
    status = spread_table_fill(evaluation.inference, evaluation.metrics, &spread);
  if (status == STATUS_OK)
    status = comm_agree(session->comm, comm_rank(session->comm) == 0
                                           ? print_tables(&table, spreads ? &spread : NULL, config->json)
                                           : STATUS_OK);
  evaluation_close(&evaluation);
  return status;
}

/* ---- conr predict -------------------------------------------------------------------------- */

static enum status write_predictions(const struct evaluation *evaluation, const struct config *config) {
  const struct dataset *dataset = evaluation->dataset;
  int targets = dataset_targets(dataset);
  const char **names;
  struct inference *inference = evaluation->inference;
  TRY(inference_fetch(inference));
  for (int64_t i = 0; i < inference->rows * targets && inference->spread != NULL; i++)
    inference->spread[i] = head_deviation(&evaluation->head, inference->spread[i]);
  TRY(memory_alloc((size_t)targets * sizeof *names, (void **)&names));
  for (int k = 0; k < targets; k++)
    names[k] = dataset_target_name(dataset, k);
  struct predictions predictions = {.rows = inference->rows,
                                    .targets = targets,
                                    .ids = dataset_split_ids(dataset, inference->split),
                                    .labels = inference->labels,
                                    .values = inference->predictions,
                                    .deviations = inference->spread,
                                    .target_names = names};
  enum status status = predictions_write(config->output, &predictions);
  memory_free((void **)&names);
  return status;
}

static enum status check_output(const struct config *config) {
  REQUIRE(config->output != NULL, ERR_ARGUMENT, "conr predict wants a file to write: give -o FILE.csv or FILE.h5");
  TRY(predictions_check_path(config->output));
  REQUIRE(config->force || access(config->output, F_OK) != 0, ERR_ARGUMENT,
          "%s exists already; use --force to replace it", config->output);
  return STATUS_OK;
}

enum status command_predict(struct session *session, const struct config *config) {
  struct evaluation evaluation;
  TRY(comm_agree(session->comm, comm_rank(session->comm) == 0 ? check_output(config) : STATUS_OK));
  TRY(run_evaluation(session, config, &evaluation));
  enum status status = STATUS_OK;
  if (comm_rank(session->comm) == 0)
    status = write_predictions(&evaluation, config);
  status = comm_agree(session->comm, status);
  if (status == STATUS_OK)
    log_line(&session->log, "%lld predictions written to %s", (long long)evaluation.inference->rows, config->output);
  evaluation_close(&evaluation);
  return status;
}
