/* Dropout: in training a share of the elements becomes 0 and the rest grows by 1 / (1 - share); else the identity.
 * The mask is drawn by sample and unit (ops.h: struct unit_draw) and kept, one byte per element, for backward. */
#include "model/layer.h"

static size_t elements(const struct net *net, const struct operation *dropout) {
  return (size_t)net->rows * (size_t)dropout->width_out;
}

static enum status draw_mask(struct net *net, struct operation *dropout, const struct pass *pass) {
  struct unit_draw draw = net_draw(net, pass, dropout->dropout_layer);
  return net->ops->dropout_mask(net->rows, dropout->width_in, dropout->share, &draw, dropout->mask);
}

static enum status forward(struct net *net, struct operation *dropout, const struct pass *pass) {
  dropout->dropped = pass->training;
  if (dropout->dropped) {
    TRY(draw_mask(net, dropout, pass));
    return net->ops->dropout_apply(elements(net, dropout), dropout->share, dropout->mask, dropout->input,
                                   dropout->output);
  }
  if (dropout->in_place)
    return STATUS_OK;
  return net->ops->copy(elements(net, dropout), dropout->input, dropout->output);
}

static enum status backward_data(struct net *net, struct operation *dropout, const void *grad_output,
                                 void *grad_input) {
  if (dropout->dropped)
    return net->ops->dropout_apply(elements(net, dropout), dropout->share, dropout->mask, grad_output, grad_input);
  return grad_input == grad_output ? STATUS_OK : net->ops->copy(elements(net, dropout), grad_output, grad_input);
}

static const struct operation_kind dropout_kind = {
    .name = "dropout", .forward = forward, .backward_data = backward_data, .gradient_over_output = true};

enum status net_add_dropout(struct net *net, double share) {
  REQUIRE(share >= 0 && share < 1, ERR_ARGUMENT, "dropout %g is not a share to drop; give 0 <= dropout < 1", share);
  if (share == 0)
    return STATUS_OK;
  struct operation *dropout;
  const struct value *read = net_last_value(net);
  TRY(net_add(net, &dropout_kind, read->height, read->width, read->channels, &dropout));
  dropout->mask_width = (size_t)dropout->width_in;
  dropout->share = share;
  dropout->dropout_layer = net->dropout_count++;
  net->draws = true;
  dropout->overwrites = true;
  return STATUS_OK;
}
