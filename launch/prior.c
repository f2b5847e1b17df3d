/* From training labels to the prior of Balanced MSE. */
#include "launch/prior.h"

#include "dist/memory.h"
#include "launch/weighting.h"
#include "loss/label_prior.h"

#include <string.h>

bool prior_is_wanted(const struct config *config) {
  return strcmp(config->loss, "bmc") == 0 || strcmp(config->loss, "gai") == 0 || strcmp(config->loss, "bni") == 0;
}

/* Rank 0. */
static enum status fit(const struct config *config, const struct dataset *dataset, struct log *log,
                       struct mixture *mixture) {
  double *labels = NULL, value;
  TRY(weighting_labels(dataset, &labels));
  enum status status = mixture_fit(dataset_split_rows(dataset, SPLIT_TRAIN), dataset_targets(dataset), labels,
                                   (int)config->gmm, (uint64_t)config->seed, mixture, &value);
  if (status == STATUS_OK)
    log_line(log, "mixture of %d components fitted to the training labels: mean log-likelihood %.5f",
             mixture->components, value);
  memory_free((void **)&labels);
  return status;
}

static enum status create_gai(struct session *session, const struct config *config, const struct dataset *dataset,
                              enum dtype dtype, struct balanced **out) {
  struct mixture mixture = {0};
  struct comm *comm = session->comm;
  TRY(comm_agree(comm, comm_rank(comm) == 0 ? fit(config, dataset, &session->log, &mixture) : STATUS_OK));
  TRY(comm_broadcast(comm, &mixture, sizeof mixture, 0));
  return comm_agree(comm, balanced_create_gai(dtype, &mixture, out));
}

/* The histogram of training labels. */
static enum status make_prior(const struct config *config, int64_t rows, const double *labels,
                              struct label_prior *prior) {
  bool lds = strcmp(config->lds, "none") != 0;
  struct label_smoothing smoothing = {.padding = weighting_padding(config), .truncate = config->lds_truncate};
  struct label_bins bins;
  TRY(weighting_bins(config, rows, labels, &bins));
  if (lds)
    TRY(weighting_window(config, &smoothing.window));
  return label_prior_create(rows, labels, &bins, lds ? &smoothing : NULL, prior);
}

/* Local: every rank counts all labels. */
static enum status create_bni(const struct config *config, const struct dataset *dataset, enum dtype dtype,
                              struct balanced **out) {
  struct label_prior prior = {0};
  double *labels = NULL;
  enum status status;
  REQUIRE(dataset_targets(dataset) == 1, ERR_ARGUMENT,
          "--loss bni takes labels of one component, and %s has %d; use --loss bmc or gai", dataset_path(dataset),
          dataset_targets(dataset));
  TRY(weighting_labels(dataset, &labels));
  TRY_GOTO(make_prior(config, dataset_split_rows(dataset, SPLIT_TRAIN), labels, &prior), out);
  status = balanced_create_bni(dtype, prior.count, prior.centres, prior.probabilities, out);
out:
  label_prior_destroy(&prior);
  memory_free((void **)&labels);
  return status;
}

enum status prior_create(struct session *session, const struct config *config, const struct dataset *dataset,
                         enum dtype dtype, struct balanced **out) {
  *out = NULL;
  if (strcmp(config->loss, "bmc") == 0)
    return comm_agree(session->comm, balanced_create_bmc(dtype, dataset_targets(dataset), out));
  if (strcmp(config->loss, "gai") == 0)
    return create_gai(session, config, dataset, dtype, out);
  if (strcmp(config->loss, "bni") == 0)
    return comm_agree(session->comm, create_bni(config, dataset, dtype, out));
  return STATUS_OK;
}
