/* Multi-layer perceptron. */
#include "model/mlp.h"

#include "model/layer.h"

#include <stdio.h>

static enum status add_activated(struct net *net, const struct mlp_spec *spec, int layer) {
  char name[32];
  snprintf(name, sizeof name, "layer%d", layer);
  TRY(net_add_linear(net, name, spec->hidden[layer]));
  return net_add_activation(net, spec->activation);
}

static enum status add_hidden(struct net *net, const struct mlp_spec *spec, int layer) {
  TRY(add_activated(net, spec, layer));
  return net_add_dropout(net, spec->dropout);
}

/* The last hidden layer as means, and beside it the variances. */
static enum status add_distributions(struct net *net, const struct mlp_spec *spec) {
  int input = net_last(net), means, layer = spec->hidden_count - 1;
  TRY(add_activated(net, spec, layer));
  means = net_last(net);
  net_continue_from(net, input);
  TRY(net_add_linear(net, "variance", spec->hidden[layer]));
  TRY(net_add_activation(net, ACTIVATION_SOFTPLUS));
  int variance = net_last(net);
  net_continue_from(net, means);
  return net_add_join(net, variance, 1);
}

static enum status add_head(struct net *net, const struct mlp_spec *spec) {
  char name[32];
  snprintf(name, sizeof name, "layer%d", spec->hidden_count);
  TRY(net_begin_head(net));
  if (spec->probabilistic) {
    TRY(net_add_sample(net));
    TRY(net_add_dropout(net, spec->dropout));
  }
  return net_add_linear(net, name, spec->outputs);
}

enum status mlp_create(const struct ops *ops, const struct mlp_spec *spec, int64_t capacity_rows, struct net **out) {
  enum status status;
  struct net *net;
  struct net_input input = {.height = 1, .width = 1, .channels = spec->inputs};
  int ordinary = spec->hidden_count - spec->probabilistic;
  *out = NULL;
  REQUIRE(ordinary >= 0, ERR_ARGUMENT,
          "features with variances are those of a hidden layer, and this network has none; give at least one");
  TRY(net_begin(ops, &input, capacity_rows, &net));
  for (int layer = 0; layer < ordinary; layer++)
    TRY_GOTO(add_hidden(net, spec, layer), failed);
  if (spec->probabilistic)
    TRY_GOTO(add_distributions(net, spec), failed);
  TRY_GOTO(add_head(net, spec), failed);
  TRY_GOTO(net_plan(net), failed);
  *out = net;
  return STATUS_OK;
failed:
  net_destroy(&net);
  return status;
}
