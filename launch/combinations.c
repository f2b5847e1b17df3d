/* Senseless pairs of methods. */
#include "launch/combinations.h"

#include "launch/heads.h"
#include "launch/prior.h"

#include <string.h>

/* --- methods ------------------------------------------------------------------------------------------------ */

static bool has_weights(const struct config *config) {
  return strcmp(config->weights, "auto") != 0 && strcmp(config->weights, "none") != 0;
}

static bool has_outer_weights(const struct config *config) {
  return config->conr_outer_weights;
}

static bool is_frozen(const struct config *config) {
  return strcmp(config->freeze, "none") != 0;
}

static bool is_probe(const struct config *config) {
  return strcmp(config->freeze, "probe") == 0;
}

static bool has_fds(const struct config *config) {
  return config->fds;
}

static bool has_conr(const struct config *config) {
  return config->conr;
}

static bool has_ranksim(const struct config *config) {
  return config->ranksim;
}

static bool has_rnc(const struct config *config) {
  return config->rnc;
}

static bool has_accon(const struct config *config) {
  return config->accon;
}

static bool has_srl(const struct config *config) {
  return config->srl;
}

static bool has_reconstruction(const struct config *config) {
  return config->reconstruct > 0;
}

enum method {
  BALANCED,
  EXPERTS,
  WEIGHTS,
  OUTER_WEIGHTS,
  FROZEN,
  PROBE,
  FDS,
  CONR,
  RANKSIM,
  RNC,
  ACCON,
  SRL,
  RECONSTRUCTION
};

/* How each is asked for. */
static const struct {
  const char *option;
  bool (*on)(const struct config *config);
} methods[] = {[BALANCED] = {"loss", prior_is_wanted},
               [EXPERTS] = {"loss", heads_are_experts},
               [WEIGHTS] = {"weights", has_weights},
               [OUTER_WEIGHTS] = {"conr-outer-weights", has_outer_weights},
               [FROZEN] = {"freeze", is_frozen},
               [PROBE] = {"freeze", is_probe},
               [FDS] = {"fds", has_fds},
               [CONR] = {"conr", has_conr},
               [RANKSIM] = {"ranksim", has_ranksim},
               [RNC] = {"rnc", has_rnc},
               [ACCON] = {"accon", has_accon},
               [SRL] = {"srl", has_srl},
               [RECONSTRUCTION] = {"reconstruct", has_reconstruction}};

/* --- pairs -------------------------------------------------------------------------------------------------- */

#define STAYS \
  "it shapes features, which a frozen encoder leaves as they are: train with it before, and give that run to --stage2"

static const struct {
  enum method one, other;
  const char *reason;
} senseless[] = {
    {BALANCED, WEIGHTS, "Balanced MSE takes no sample weights, its softmax over the labels is the balance"},
    {BALANCED, OUTER_WEIGHTS, "Balanced MSE takes no sample weights, its softmax over the labels is the balance"},
    {EXPERTS, WEIGHTS, "each expert weighs its samples by itself (--expert-powers)"},
    {EXPERTS, OUTER_WEIGHTS, "the weights are the experts', each has its own"},
    {CONR, FROZEN, STAYS},
    {RANKSIM, FROZEN, STAYS},
    {RNC, FROZEN, STAYS},
    {ACCON, FROZEN, STAYS},
    {SRL, FROZEN, STAYS},
    {RECONSTRUCTION, FROZEN, STAYS},
    {FDS, PROBE, "it smooths the features of training passes, and the encoder of a probe makes none"},
};

/* "--loss bmc", "--conr" */
static const char *text_of(const struct config *config, enum method method, char *text, size_t bytes) {
  char value[256];
  const char *option = methods[method].option;
  bool flag = strcmp(config_value(config, option, value, sizeof value), "true") == 0;
  snprintf(text, bytes, "--%s%s%s", option, flag ? "" : " ", flag ? "" : value);
  return text;
}

enum status combinations_check(const struct config *config) {
  char one[320], other[320];
  for (size_t i = 0; i < sizeof senseless / sizeof *senseless; i++)
    REQUIRE(!methods[senseless[i].one].on(config) || !methods[senseless[i].other].on(config), ERR_ARGUMENT,
            "%s and %s do not go together: %s; drop one", text_of(config, senseless[i].one, one, sizeof one),
            text_of(config, senseless[i].other, other, sizeof other), senseless[i].reason);
  return STATUS_OK;
}
