/* From options to regularisers. */
#include "launch/regularising.h"

#include <math.h>
#include <string.h>

#define MOST_BINS 100000

bool regularising_contrasts(const struct config *config) {
  return config->conr || config->rnc || config->accon;
}

/* --- checks ------------------------------------------------------------------------------------------------- */

static enum status refuse_unread(const struct config *config) {
  static const struct {
    const char *option, *method;
    size_t flag;
  } rows[] = {{"ranksim-gamma", "ranksim", offsetof(struct config, ranksim)},
              {"ranksim-lambda", "ranksim", offsetof(struct config, ranksim)},
              {"rnc-weight", "rnc", offsetof(struct config, rnc)},
              {"rnc-t", "rnc", offsetof(struct config, rnc)},
              {"accon-weight", "accon", offsetof(struct config, accon)},
              {"accon-t", "accon", offsetof(struct config, accon)},
              {"accon-range", "accon", offsetof(struct config, accon)},
              {"accon-shift", "accon", offsetof(struct config, accon)},
              {"srl-contrastive", "srl", offsetof(struct config, srl)},
              {"srl-enveloping", "srl", offsetof(struct config, srl)},
              {"srl-homogeneity", "srl", offsetof(struct config, srl)},
              {"srl-form", "srl", offsetof(struct config, srl)},
              {"srl-t", "srl", offsetof(struct config, srl)},
              {"srl-bins", "srl", offsetof(struct config, srl)},
              {"srl-points", "srl", offsetof(struct config, srl)},
              {"srl-momentum", "srl", offsetof(struct config, srl)}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    bool on;
    memcpy(&on, (const char *)config + rows[i].flag, sizeof on);
    REQUIRE(on || config->one_of_many || !config_given(config, rows[i].option), ERR_ARGUMENT,
            "--%s has no effect without --%s; drop one or add the other", rows[i].option, rows[i].method);
  }
  return STATUS_OK;
}

/* Of RnC and ACCon; ConR makes do with one view. */
static enum status check_views(const struct config *config, bool images) {
  const char *method = config->rnc ? "rnc" : "accon";
  bool augmented = images ? strcmp(config->augment, "none") != 0 : config->noise > 0 || config->mask > 0;
  if (!config->rnc && !config->accon)
    return STATUS_OK;
  REQUIRE(config->views > 1, ERR_ARGUMENT, "--%s contrasts two views of each sample; give --views 2 or 3, not 1",
          method);
  REQUIRE(augmented, ERR_ARGUMENT,
          "--%s contrasts two views of each sample, and without augmentation they are equal; give %s", method,
          images ? "--augment crop or strong" : "--noise or --mask a value above 0");
  return STATUS_OK;
}

enum status regularising_check(const struct config *config, bool images) {
  TRY(refuse_unread(config));
  REQUIRE(config->views < 3 || regularising_contrasts(config), ERR_ARGUMENT,
          "--views 3 gives contrastive terms a pass of their own: add --conr, --rnc or --accon");
  return check_views(config, images);
}

/* --- what depends on the labels ----------------------------------------------------------------------------- */

static void range_of(const struct dataset *dataset, double *low, double *high) {
  const int64_t *ids = dataset_split_ids(dataset, SPLIT_TRAIN);
  int64_t rows = dataset_split_rows(dataset, SPLIT_TRAIN), targets = dataset_targets(dataset);
  *low = INFINITY;
  *high = -INFINITY;
  for (int64_t i = 0; i < rows; i++) {
    double label = dataset_target(dataset)[ids[i] * targets];
    *low = fmin(*low, label);
    *high = fmax(*high, label);
  }
}

enum status regularising_resolve(struct config *config, const struct dataset *dataset,
                                 struct regularising_texts *texts) {
  double low, high;
  if (!config->accon && !config->srl)
    return STATUS_OK;
  REQUIRE(dataset_targets(dataset) == 1, ERR_ARGUMENT, "--%s takes labels of one component, and %s has %d; drop it",
          config->accon ? "accon" : "srl", config->word[0], dataset_targets(dataset));
  range_of(dataset, &low, &high);
  if (config->accon && config->accon_range == 0)
    config->accon_range = high - low;
  if (!config->srl || strcmp(config->srl_bins, "auto") != 0)
    return STATUS_OK;
  double count = floor(high) - floor(low) + 1;
  REQUIRE(count >= 2 && count <= MOST_BINS, ERR_ARGUMENT,
          "--srl: the training labels of %s range from %g to %g, which are %g bins of width 1; give --srl-bins 2 to %d",
          config->word[0], low, high, count, MOST_BINS);
  snprintf(texts->bins, sizeof texts->bins, "%.17g,1,%.0f", floor(low), count + (high > floor(high)));
  config->srl_bins = texts->bins;
  return STATUS_OK;
}

static enum status srl_of(const struct config *config, struct srl_options *srl) {
  double bins[3];
  TRY(config_numbers("srl-bins", config->srl_bins, 3, bins));
  REQUIRE(bins[1] > 0 && bins[2] >= 2 && bins[2] <= MOST_BINS && bins[2] == floor(bins[2]), ERR_ARGUMENT,
          "--srl-bins %s: give the first label, a width above 0 and 2 to %d bins", config->srl_bins, MOST_BINS);
  srl->temperature = config->srl_t;
  srl->weight_contrastive = config->srl_contrastive;
  srl->weight_enveloping = config->srl_enveloping;
  srl->weight_homogeneity = config->srl_homogeneity;
  srl->homogeneity = strcmp(config->srl_form, "attract") == 0 ? SRL_ATTRACT
                     : strcmp(config->srl_form, "repel") == 0 ? SRL_REPEL
                                                              : SRL_PAPER;
  srl->first_bin = bins[0];
  srl->bin_width = bins[1];
  srl->bins = (int)bins[2];
  srl->points = (int)config->srl_points;
  srl->momentum = config->srl_momentum;
  srl->seed = (uint64_t)config->seed;
  return STATUS_OK;
}

enum status regularising_options(const struct config *config, struct regulariser_options *out) {
  *out = (struct regulariser_options){.on = {[REGULARISER_RANKSIM] = config->ranksim,
                                             [REGULARISER_RNC] = config->rnc,
                                             [REGULARISER_ACCON] = config->accon,
                                             [REGULARISER_SRL] = config->srl},
                                      .coefficient = {[REGULARISER_RANKSIM] = config->ranksim_gamma,
                                                      [REGULARISER_RNC] = config->rnc_weight,
                                                      [REGULARISER_ACCON] = config->accon_weight,
                                                      [REGULARISER_SRL] = 1},
                                      .ranksim = {.lambda = config->ranksim_lambda},
                                      .rnc = {.temperature = config->rnc_t},
                                      .seed = (uint64_t)config->seed};
  accon_options_default(&out->accon);
  out->accon.temperature = out->accon.base_temperature = config->accon_t;
  out->accon.range = config->accon_range;
  out->accon.consistent = strcmp(config->accon_shift, "consistent") == 0;
  srl_options_default(&out->srl);
  return config->srl ? srl_of(config, &out->srl) : STATUS_OK;
}
