/* From options and checkpoints to heads. */
#include "launch/heads.h"

#include "loss/sample_weights.h"

#include <string.h>

bool heads_are_experts(const struct config *config) {
  return strcmp(config->loss, "uvote") == 0;
}

bool heads_are_evidential(const struct config *config) {
  return strcmp(config->loss, "evidential") == 0;
}

static enum status read_experts(const struct config *config, struct uvote *uvote) {
  double bounds[2];
  *uvote = uvote_default((int)config->experts);
  TRY(config_numbers("expert-bounds", config->expert_bounds, 2, bounds));
  uvote->low = bounds[0];
  uvote->high = bounds[1];
  uvote->dynamic = !config->expert_static;
  TRY(uvote_schedule_by_name(config->expert_schedule, &uvote->schedule));
  return uvote_check(uvote);
}

enum status heads_of_options(const struct config *config, int targets, struct head *out) {
  *out = (struct head){.kind = heads_are_experts(config)      ? HEAD_EXPERTS
                               : heads_are_evidential(config) ? HEAD_EVIDENTIAL
                                                              : HEAD_VALUES,
                       .targets = targets};
  if (out->kind == HEAD_EXPERTS)
    return read_experts(config, &out->uvote);
  out->evidential = evidential_default();
  out->evidential.lambda = config->evidential_lambda;
  return evidential_check(&out->evidential);
}

enum status heads_of_description(const struct model_description *description, struct head *out) {
  int64_t targets = description->targets, each = description->outputs / targets;
  *out = (struct head){.targets = (int)targets, .evidential = evidential_default()};
  TRY(head_by_name(description->head, &out->kind));
  if (out->kind == HEAD_EXPERTS && each / 2 >= 1 && each / 2 <= UVOTE_MOST_EXPERTS)
    out->uvote = uvote_default((int)(each / 2));
  REQUIRE(head_outputs(out) == description->outputs, ERR_FORMAT,
          "the model has %lld outputs for labels of %lld components, which its head, %s, does not explain; use another "
          "checkpoint",
          (long long)description->outputs, (long long)targets, description->head);
  return STATUS_OK;
}

enum status heads_vote(const struct config *config, enum uvote_vote otherwise, enum uvote_vote *out) {
  *out = otherwise;
  return strcmp(config->vote, "auto") == 0 ? STATUS_OK : uvote_vote_by_name(config->vote, out);
}

enum status heads_powers(const struct config *config, double *powers) {
  int experts = (int)config->experts;
  if (strcmp(config->expert_powers, "auto") != 0) {
    TRY(config_numbers("expert-powers", config->expert_powers, experts, powers));
    for (int e = 0; e < experts; e++)
      REQUIRE(powers[e] >= 0, ERR_ARGUMENT, "--expert-powers %s: %g would make common labels heavy; give 0 or more",
              config->expert_powers, powers[e]);
    return STATUS_OK;
  }
  for (int e = 0; e < experts; e++)
    powers[e] = reweighting_exponent(e, experts);
  return STATUS_OK;
}

/* Outputs are all locations, then all log scales: the second half of the weights' rows, and of the biases. */
enum status heads_set_rates(const struct config *config, const struct net *net, struct optim *optim) {
  struct parameters all = net_parameters(net);
  size_t begin = net_learned(net).list->offset;
  for (int i = all.output; i < all.count && heads_are_experts(config); i++) {
    size_t half = all.list[i].count / 2;
    TRY(optim_set_rate(optim, all.list[i].offset - begin + half, half, config->expert_lr));
  }
  return STATUS_OK;
}
