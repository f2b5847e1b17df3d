/* Multi-layer perceptron. */
#include "model/mlp.h"

#include "model/layer.h"

#include <stdio.h>

static enum status add_hidden(struct net *net, const struct mlp_spec *spec, int layer) {
  char name[32];
  snprintf(name, sizeof name, "layer%d", layer);
  TRY(net_add_linear(net, name, spec->hidden[layer]));
  TRY(net_add_activation(net, spec->activation));
  return net_add_dropout(net, spec->dropout);
}

static enum status add_head(struct net *net, const struct mlp_spec *spec) {
  char name[32];
  snprintf(name, sizeof name, "layer%d", spec->hidden_count);
  TRY(net_begin_head(net));
  return net_add_linear(net, name, spec->outputs);
}

enum status mlp_create(const struct ops *ops, const struct mlp_spec *spec, int64_t capacity_rows, struct net **out) {
  enum status status;
  struct net *net;
  struct net_input input = {.height = 1, .width = 1, .channels = spec->inputs};
  *out = NULL;
  TRY(net_begin(ops, &input, capacity_rows, &net));
  for (int layer = 0; layer < spec->hidden_count; layer++)
    TRY_GOTO(add_hidden(net, spec, layer), failed);
  TRY_GOTO(add_head(net, spec), failed);
  TRY_GOTO(net_plan(net), failed);
  *out = net;
  return STATUS_OK;
failed:
  net_destroy(&net);
  return status;
}
