/* What a run's checkpoint predicts, and what its features are like. */
#include "launch/report.h"

#include "dist/memory.h"
#include "launch/evaluate.h"
#include "launch/readable.h"
#include "launch/weighting.h"

#include <string.h>
#include <unistd.h>

/* ---- the data file -------------------------------------------------------------------------- */

/* What rank 0 knows of a run before it is opened. */
struct source {
  char data[PATH_MAX], left_out[1024];
};

static void find_data(const struct report *report, const struct report_run *run, struct source *source) {
  const char *named = report->config->data;
  const char *path = named != NULL ? named : run->record->data;
  if (path[0] == '\0' || strlen(path) >= sizeof source->data)
    snprintf(source->left_out, sizeof source->left_out, "its config.used does not name a data file; give --data FILE");
  else if (access(path, R_OK) != 0)
    snprintf(source->left_out, sizeof source->left_out, "its data file %.*s cannot be read; name it by --data FILE",
             900, path);
  else
    strcpy(source->data, path);
}

/* All ranks learn what rank 0 has found. */
static enum status share_source(const struct report *report, struct report_run *run) {
  struct source source = {.data = ""};
  if (comm_rank(report->session->comm) == 0)
    find_data(report, run, &source);
  TRY(comm_broadcast(report->session->comm, &source, sizeof source, 0));
  memcpy(run->data, source.data, sizeof run->data);
  memcpy(run->left_out, source.left_out, sizeof run->left_out);
  return STATUS_OK;
}

/* ---- features ------------------------------------------------------------------------------- */

struct watching {
  struct report_run *run;
  const struct evaluation *evaluation;
};

static enum status watch(void *context, int64_t first, int64_t rows, const void *features) {
  struct watching *watching = context;
  struct report_run *run = watching->run;
  enum dtype dtype = net_ops(watching->evaluation->net)->dtype;
  size_t bytes = (size_t)net_feature_width(watching->evaluation->net) * dtype_size(dtype);
  const double *labels = watching->evaluation->inference->labels;
  for (int k = 0; k < run->components; k++)
    for (int64_t i = 0; i < rows; i++)
      similarity_add(run->similarity[k], labels[(first + i) * run->targets + k], dtype,
                     (const char *)features + (size_t)i * bytes);
  return STATUS_OK;
}

/* Of distributions the means count. */
static enum status prepare_similarities(const struct report *report, struct report_run *run,
                                        const struct evaluation *evaluation) {
  const struct inference *inference = evaluation->inference;
  run->width = net_mean_width(evaluation->net);
  for (int k = 0; k < run->components; k++) {
    struct label_axis axis;
    TRY(label_axis_cover(report->config->bin_width, SIMILARITY_BINS, inference->rows, inference->labels + k,
                         run->targets, &axis));
    TRY(similarity_create(&axis, run->width, &run->similarity[k]));
  }
  return STATUS_OK;
}

/* ---- labels --------------------------------------------------------------------------------- */

static void describe(struct report_run *run, const struct evaluation *evaluation) {
  const struct dataset *dataset = evaluation->dataset;
  run->hash = dataset_hash(dataset);
  run->rows = evaluation->inference->rows;
  run->train_rows = dataset_split_rows(dataset, SPLIT_TRAIN);
  run->targets = dataset_targets(dataset);
  run->components = run->targets <= REPORT_COMPONENTS ? run->targets : 0;
  for (int k = 0; k < run->components; k++)
    readable_text(dataset_target_name(dataset, k), 40, run->target[k], sizeof run->target[k]);
}

/* Rank 0. */
static enum status view_labels(const struct report *report, struct report_run *run,
                               const struct evaluation *evaluation) {
  double *train = NULL;
  enum status status;
  TRY_GOTO(inference_fetch(evaluation->inference), out);
  TRY_GOTO(weighting_labels(evaluation->dataset, &train), out);
  struct label_view_parts parts = {.train_rows = run->train_rows,
                                   .rows = run->rows,
                                   .targets = run->targets,
                                   .train = train,
                                   .labels = evaluation->inference->labels,
                                   .predictions = evaluation->inference->predictions,
                                   .bin_width = report->config->bin_width,
                                   .metrics = evaluation->metrics};
  for (int k = 0; k < run->components; k++)
    TRY_GOTO(label_view_create(&parts, k, &run->view[k]), out);
out:
  memory_free((void **)&train);
  return status;
}

/* ---- a run ---------------------------------------------------------------------------------- */

/* A run is described by its own data, not by others that have the same columns. */
static enum status check_hash(const struct report_run *run, const struct evaluation *evaluation) {
  REQUIRE(dataset_hash(evaluation->dataset) == evaluation->header.data_hash, ERR_ARGUMENT,
          "%s is not the data it was trained on; name that file by --data FILE", run->data);
  return STATUS_OK;
}

static enum status run_all(const struct report *report, struct report_run *run, struct evaluation *evaluation) {
  struct comm *comm = report->session->comm;
  struct watching watching = {run, evaluation};
  struct inference_watcher watcher = {&watching, watch};
  TRY(comm_agree(comm, check_hash(run, evaluation)));
  describe(run, evaluation);
  TRY(comm_agree(comm, prepare_similarities(report, run, evaluation)));
  inference_watch(evaluation->inference, &watcher);
  TRY(inference_run(evaluation->inference));
  TRY(comm_agree(comm, evaluation_measure(evaluation, report->config)));
  TRY(inference_table(evaluation->inference, &run->table));
  for (int k = 0; k < run->components; k++)
    TRY(similarity_reduce(run->similarity[k], comm));
  return comm_agree(comm, comm_rank(comm) == 0 ? view_labels(report, run, evaluation) : STATUS_OK);
}

/* What the run, its data or its options are to blame for, as all ranks see it: the others are shown. */
static bool is_told(const struct report *report, enum status status) {
  bool together = status_agreed() || comm_size(report->session->comm) == 1;
  return together && (status == ERR_ARGUMENT || status == ERR_FILE || status == ERR_FORMAT || status == ERR_NUMERIC);
}

static enum status measure(const struct report *report, struct report_run *run) {
  struct config config = *report->config;
  struct evaluation evaluation;
  config.word[0] = report->config->rest[run - report->run];
  config.word[1] = run->data;
  TRY(evaluation_open(report->session, &config, &evaluation));
  enum status status = run_all(report, run, &evaluation);
  if (status == STATUS_OK || status_agreed() || comm_size(report->session->comm) == 1)
    evaluation_close(&evaluation);
  return status;
}

enum status report_measure(struct report *report, struct report_run *run) {
  TRY(share_source(report, run));
  if (run->left_out[0] != '\0')
    return STATUS_OK;
  enum status status = measure(report, run);
  run->measured = status == STATUS_OK;
  if (status == STATUS_OK || !is_told(report, status))
    return status;
  snprintf(run->left_out, sizeof run->left_out, "%s", status_message());
  run->components = 0;
  return STATUS_OK;
}
