/* Options of conr train that only make sense together. */
#include "launch/options.h"

#include "launch/combinations.h"
#include "launch/heads.h"
#include "launch/loading.h"
#include "launch/prior.h"
#include "launch/regularising.h"

#include <string.h>

/* Error when an option was given that nothing will read. */
static enum status refuse_unread(const struct config *config, bool read, const char *option, const char *needs) {
  REQUIRE(read || config->one_of_many || !config_given(config, option), ERR_ARGUMENT,
          "--%s has no effect without %s; drop one or add the other", option, needs);
  return STATUS_OK;
}

static enum status check_heads(const struct config *config) {
  static const char *const expert_options[] = {"experts",          "expert-powers",   "expert-density",
                                               "expert-bandwidth", "expert-schedule", "expert-static",
                                               "expert-bounds",    "expert-lr",       "vote"};
  bool experts = heads_are_experts(config);
  double powers[UVOTE_MOST_EXPERTS];
  for (size_t i = 0; i < sizeof expert_options / sizeof *expert_options; i++)
    TRY(refuse_unread(config, experts, expert_options[i], "--loss uvote"));
  TRY(refuse_unread(config, strcmp(config->expert_density, "kernel") == 0, "expert-bandwidth",
                    "--expert-density kernel"));
  TRY(refuse_unread(config, heads_are_evidential(config), "evidential-lambda", "--loss evidential"));
  return experts ? heads_powers(config, powers) : STATUS_OK;
}

static enum status check_loss(const struct config *config) {
  static const char *const focal_options[] = {"focal-beta", "focal-gamma", "focal-activation"};
  bool balanced = prior_is_wanted(config), focal = strncmp(config->loss, "focal", 5) == 0;
  TRY(refuse_unread(config, strcmp(config->loss, "huber") == 0, "huber-beta", "--loss huber"));
  for (size_t i = 0; i < sizeof focal_options / sizeof *focal_options; i++)
    TRY(refuse_unread(config, focal, focal_options[i], "--loss focal_l1 or focal_mse"));
  TRY(refuse_unread(config, balanced, "noise-scale", "--loss bmc, gai or bni"));
  TRY(refuse_unread(config, balanced, "noise-lr", "--loss bmc, gai or bni"));
  TRY(refuse_unread(config, strcmp(config->loss, "gai") == 0, "gmm", "--loss gai"));
  return STATUS_OK;
}

static enum status check_weighting(const struct config *config) {
  const char *counts = heads_are_experts(config) ? "--expert-density counts"
                                                 : "--weights inverse or sqrt-inverse, or --loss bni or uvote";
  static const char *const kernel_options[] = {"lds-size", "lds-sigma", "lds-padding", "lds-truncate"};
  bool inverse = strcmp(config->weights, "inverse") == 0, by_bins = strstr(config->weights, "inverse") != NULL;
  bool lds = strcmp(config->lds, "none") != 0, bni = strcmp(config->loss, "bni") == 0;
  bool experts = heads_are_experts(config) && strcmp(config->expert_density, "counts") == 0;
  REQUIRE(by_bins || bni || experts || !lds, ERR_ARGUMENT, "--lds %s smooths counts of labels: add %s", config->lds,
          counts);
  for (size_t i = 0; i < sizeof kernel_options / sizeof *kernel_options; i++)
    TRY(refuse_unread(config, lds, kernel_options[i], "--lds"));
  TRY(refuse_unread(config, strcmp(config->lds, "triang") != 0, "lds-sigma", "--lds gaussian or laplace"));
  TRY(refuse_unread(config, inverse || bni, "lds-truncate", "--weights inverse or --loss bni"));
  TRY(refuse_unread(config, inverse || experts, "weight-clip",
                    heads_are_experts(config) ? counts : "--weights inverse or --loss uvote"));
  TRY(refuse_unread(config, by_bins || bni || experts, "weight-bins", counts));
  return refuse_unread(config, strcmp(config->weights, "dense") == 0, "dense-alpha", "--weights dense");
}

static enum status check_fds(const struct config *config) {
  static const char *const names[] = {"fds-task",        "fds-buckets", "fds-kernel",        "fds-size",
                                      "fds-sigma",       "fds-clip",    "fds-start-update",  "fds-start-smooth",
                                      "fds-momentum",    "fds-storage", "fds-zero-variance", "fds-collect",
                                      "fds-bucket-width"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    TRY(refuse_unread(config, config->fds, names[i], "--fds"));
  TRY(refuse_unread(config, strcmp(config->fds_kernel, "triang") != 0, "fds-sigma",
                    "--fds-kernel gaussian or laplace"));
  REQUIRE(!config->fds || !config->probabilistic || strcmp(config->fds_task, "ages") == 0, ERR_ARGUMENT,
          "--fds-task %s has no rules for features that are distributions, as those of --probabilistic are; give "
          "--fds-task ages or drop --probabilistic",
          config->fds_task);
  REQUIRE(!config->fds || config->fds_start_smooth >= config->fds_start_update, ERR_ARGUMENT,
          "--fds-start-smooth %lld lies before --fds-start-update %lld, when there is nothing to smooth by; give the "
          "same epoch or a later one",
          (long long)config->fds_start_smooth, (long long)config->fds_start_update);
  return STATUS_OK;
}

/* What adds up over the rows of a rank, or of all, in an order that depends on their number. */
static enum status check_reproducible(const struct config *config) {
  bool on = config->reproducible;
  TRY(refuse_unread(config, on, "virtual-shards", "--reproducible"));
  TRY(refuse_unread(config, !on, "bucket-mb", "buckets of gradients, which --reproducible sends in another way"));
  REQUIRE(
      !on || config->threads <= 1, ERR_ARGUMENT,
      "--threads %lld does not go with --reproducible, which computes on one thread a rank, so that libraries add up "
      "in one order; drop it, and start a rank for each core",
      (long long)config->threads);
  REQUIRE(!on || config->micro_batch == 0, ERR_ARGUMENT,
          "--micro-batch %lld does not go with --reproducible, whose virtual shards are the pieces; drop it, and give "
          "--virtual-shards more",
          (long long)config->micro_batch);
  REQUIRE(!on || !config_given(config, "batch-norm") || strcmp(config->batch_norm, "shard") == 0, ERR_ARGUMENT,
          "--batch-norm %s does not go with --reproducible: shards go through the network one after another, so that "
          "statistics are of each by itself; give --batch-norm shard or drop it",
          config->batch_norm);
  REQUIRE(on || strcmp(config->batch_norm, "shard") != 0, ERR_ARGUMENT,
          "--batch-norm shard is of the virtual shards of --reproducible; add that, or give sync or rank");
  return STATUS_OK;
}

enum status options_check(const struct config *config) {
  static const char *const conr_options[] = {"conr-beta",          "conr-w",        "conr-t",         "conr-e",
                                             "conr-variant",       "conr-distance", "conr-aggregate", "conr-path",
                                             "conr-outer-weights", "conr-memory",   "conr-constant"};
  for (size_t i = 0; i < sizeof conr_options / sizeof *conr_options; i++)
    TRY(refuse_unread(config, config->conr, conr_options[i], "--conr"));
  TRY(check_fds(config));
  TRY(check_reproducible(config));
  bool sgd = strcmp(config->optimiser, "sgd") == 0, constant = strcmp(config->schedule, "constant") == 0;
  bool step = strcmp(config->schedule, "step") == 0;
  bool adam = !sgd || (prior_is_wanted(config) && config->noise_lr > 0); /* the noise scale is moved by Adam */
  TRY(check_heads(config));
  TRY(check_loss(config));
  TRY(check_weighting(config));
  TRY(refuse_unread(config, sgd, "momentum", "--optimiser sgd"));
  TRY(refuse_unread(config, adam, "beta1", "--optimiser adam or adamw"));
  TRY(refuse_unread(config, adam, "beta2", "--optimiser adam or adamw"));
  TRY(refuse_unread(config, adam, "epsilon", "--optimiser adam or adamw"));
  TRY(refuse_unread(config, step, "milestones", "--schedule step"));
  TRY(refuse_unread(config, !constant, "lr-factor", "--schedule step or cosine"));
  bool paper = strcmp(config->conr_variant, "paper") == 0;
  REQUIRE(!paper || config->conr_constant == 0, ERR_ARGUMENT,
          "--conr-constant belongs to --conr-variant reference or depth (paper has no constant)");
  REQUIRE(paper || !config->conr_outer_weights, ERR_ARGUMENT,
          "--conr-outer-weights belongs to --conr-variant paper (reference always has them, depth never)");
  REQUIRE(paper || strcmp(config->conr_aggregate, "mean_of_log") == 0, ERR_ARGUMENT,
          "--conr-aggregate log_of_mean belongs to --conr-variant paper");
  REQUIRE(!config->conr_outer_weights || strcmp(config->weights, "none") != 0, ERR_ARGUMENT,
          "--conr-outer-weights has no effect with --weights none; drop one");
  return STATUS_OK;
}

const char *options_feature_term(const struct config *config) {
  return config->conr      ? "conr"
         : config->ranksim ? "ranksim"
         : config->rnc     ? "rnc"
         : config->accon   ? "accon"
         : config->srl     ? "srl"
                           : NULL;
}

static enum status check_freeze(const struct config *config) {
  bool probe = strcmp(config->freeze, "probe") == 0;
  REQUIRE(config->stage2 == NULL || config->init == NULL, ERR_ARGUMENT,
          "--stage2 %s and --init %s both say what to begin with; give one of them", config->stage2, config->init);
  TRY(refuse_unread(config, !probe, "dropout", "--freeze none or encoder"));
  return refuse_unread(config, !probe, "batch-norm", "--freeze none or encoder");
}

/* What the network itself can know is refused there: the size of the images. */
static enum status check_reconstruct(const struct config *config, bool images) {
  if (config->reconstruct == 0)
    return STATUS_OK;
  REQUIRE(images && strcmp(config->model, "resnet50") == 0, ERR_ARGUMENT,
          "--reconstruct has a decoder for --model resnet50 alone, and this is %s; give it or drop --reconstruct",
          config->model);
  REQUIRE(config->probabilistic, ERR_ARGUMENT,
          "--reconstruct decodes what is drawn from features that are distributions; add --probabilistic");
  return STATUS_OK;
}

enum status options_check_resolved(const struct config *config, bool images) {
  TRY(check_freeze(config));
  TRY(check_reconstruct(config, images));
  TRY(combinations_check(config));
  return regularising_check(config, images);
}

enum status options_check_kind(const struct config *config, bool images) {
  static const char *const table_options[] = {"hidden", "activation"};
  static const char *const image_options[] = {"size",        "normalise", "batch-norm", "augment", "flip",
                                              "full-decode", "cache",     "workers",    "decode"};
  for (size_t i = 0; i < sizeof table_options / sizeof *table_options; i++)
    TRY(refuse_unread(config, !images, table_options[i], "a table as data"));
  for (size_t i = 0; i < sizeof image_options / sizeof *image_options; i++)
    TRY(refuse_unread(config, images, image_options[i], "images as data"));
  TRY(refuse_unread(config, !images || config->noise == 0, "noise", "a table as data"));
  TRY(refuse_unread(config, !images || config->mask == 0, "mask", "a table as data"));
  TRY(refuse_unread(config, images || config->pad == 0, "pad", "images as data"));
  bool mlp = strcmp(config->model, "mlp") == 0, any = strcmp(config->model, "auto") == 0;
  REQUIRE(any || mlp != images, ERR_ARGUMENT, "--model %s cannot learn from %s, which holds %s; use %s", config->model,
          config->word[0], images ? "images" : "a table", images ? "cnn, resnet18 or resnet50" : "mlp");
  bool crop = strcmp(config->augment, "crop") == 0, none = strcmp(config->augment, "none") == 0;
  TRY(refuse_unread(config, crop || config->pad == 0, "pad", "--augment crop"));
  TRY(refuse_unread(config, !none, "flip", "--augment crop or strong"));
  REQUIRE(strcmp(config->decode, "host") == 0 || strcmp(config->cache, "on") != 0, ERR_ARGUMENT,
          "--cache on keeps images that the host has decoded, and with --decode %s it decodes none; drop one",
          config->decode);
  if (!images && config->hidden[0] == '\0') {
    REQUIRE(!config->probabilistic, ERR_ARGUMENT,
            "--probabilistic gives features variances: give --hidden at least one layer");
    TRY(refuse_unread(config, false, "dropout", "a hidden layer"));
    TRY(refuse_unread(config, false, "activation", "a hidden layer"));
  }
  return STATUS_OK;
}

enum status options_resolve(struct config *config, bool images) {
  int64_t height, width;
  if (config->views == 0)
    config->views = regularising_contrasts(config) ? 2 : 1;
  double augmentation = config->views > 1 && !images ? 0.05 : 0;
  if (!config_given(config, "noise"))
    config->noise = augmentation;
  if (!config_given(config, "mask"))
    config->mask = augmentation;
  if (strcmp(config->freeze, "auto") == 0)
    config->freeze = config->stage2 != NULL ? "encoder" : "none";
  if (strcmp(config->select, "auto") == 0)
    config->select = strcmp(config->loss, "mse") == 0 ? "mse" : "mae";
  if (strcmp(config->model, "auto") == 0)
    config->model = images ? "resnet18" : "mlp";
  if (images && config->reproducible)
    config->batch_norm = "shard";
  if (strcmp(config->decode, "host") != 0) {
    config->full_decode = true; /* as nvJPEG does: validation is to see no other pixels */
    config->cache = "off";
  }
  TRY(config_size(config->size, &height, &width));
  if (images && strcmp(config->augment, "crop") == 0)
    config->pad = loading_padding(config, height, width);
  return STATUS_OK;
}
