/* Decoders, and what their results are compared with. */
#include "model/reconstruction.h"

#include "model/layer.h"

#include <stdio.h>

/* --- the error ---------------------------------------------------------------------------------------------- */

/* It makes nothing: its way back begins the decoder's. */
static enum status forward(struct net *net, struct operation *error, const struct pass *pass) {
  (void)net;
  (void)error;
  (void)pass;
  return STATUS_OK;
}

static enum status backward_data(struct net *net, struct operation *error, const void *grad_output, void *grad_input) {
  (void)grad_output;
  const struct reconstruction *wanted = &net->reconstruction;
  const void *target = error->also_reads == 0 ? net->inputs : error->shortcut;
  return net->ops->squared_error((size_t)net->rows * (size_t)error->width_in, wanted->factor, error->input, target,
                                 grad_input, wanted->squares);
}

static const struct operation_kind error_kind = {
    .name = "reconstruction error", .forward = forward, .backward_data = backward_data, .gradient_over_input = true};

static enum status add_error(struct net *net, int target) {
  const struct value *made = net_last_value(net), *wanted = &net->value[target];
  struct operation *error;
  REQUIRE(
      made->height == wanted->height && made->width == wanted->width && made->channels == wanted->channels,
      ERR_ARGUMENT,
      "an image of %lld x %lld cannot be reconstructed: the mirror of this network makes %lld x %lld; use images as "
      "wide as high, of a multiple of 32",
      (long long)wanted->height, (long long)wanted->width, (long long)made->height, (long long)made->width);
  TRY(net_add(net, &error_kind, 1, 1, 1, &error));
  error->also_reads = target;
  return STATUS_OK;
}

/* --- layers ------------------------------------------------------------------------------------------------- */

static enum status add_activated_norm(struct net *net, const char *name) {
  TRY(net_add_activation(net, ACTIVATION_RELU));
  return net_add_norm(net, name, NO_VALUE, false);
}

/* Number `index` of a block, "decoder.layer1.0": relu, batch norm, convolution. */
static enum status add_conv(struct net *net, const char *block, int index, int64_t out, int kernel, bool doubles) {
  char name[PARAMETER_NAME_BYTES];
  snprintf(name, sizeof name, "%s.bn%d", block, index);
  TRY(add_activated_norm(net, name));
  snprintf(name, sizeof name, "%s.conv%d", block, index);
  if (doubles)
    return net_add_transposed_conv(net, name, out, 2, 2, 0);
  return net_add_conv(net, name, out, kernel, 1, kernel / 2, false);
}

static enum status add_stage(struct net *net, const struct mirror *mirror, int stage) {
  int64_t planes = mirror->planes >> stage;
  bool last_stage = stage == mirror->stages - 1;
  for (int i = 0; i < mirror->blocks[stage]; i++) {
    bool last = i == mirror->blocks[stage] - 1;
    char block[32];
    snprintf(block, sizeof block, "decoder.layer%d.%d", stage + 1, i);
    TRY(add_conv(net, block, 1, planes, 1, false));
    TRY(add_conv(net, block, 2, planes, 3, last && !last_stage));
    TRY(add_conv(net, block, 3, !last ? 4 * planes : last_stage ? planes : 2 * planes, 1, false));
  }
  return STATUS_OK;
}

static enum status add_decoder(struct net *net, const struct mirror *mirror) {
  int64_t last_planes = mirror->planes >> (mirror->stages - 1);
  TRY(net_add_transposed_conv(net, "decoder.first", 4 * mirror->planes, (int)mirror->side, (int)mirror->side, 0));
  for (int stage = 0; stage < mirror->stages; stage++)
    TRY(add_stage(net, mirror, stage));
  TRY(net_add_transposed_conv(net, "decoder.up", last_planes, 2, 2, 0));
  TRY(add_activated_norm(net, "decoder.bn"));
  return net_add_transposed_conv(net, "decoder.last", 3, 6, 2, 2);
}

int64_t mirror_size(const struct mirror *mirror) {
  return mirror->side << (mirror->stages + 1);
}

enum status reconstruction_add(struct net *net, const struct mirror *mirror, int target) {
  int sample = net_last(net);
  net->decoder = net->operation_count;
  TRY(add_decoder(net, mirror));
  TRY(add_error(net, target));
  net->decoder_end = net->operation_count;
  net->output_parameter = net->parameters.count;
  net_continue_from(net, sample);
  return STATUS_OK;
}
