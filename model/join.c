/* Two values side by side, the second scaled: means and variances of features. */
#include "model/layer.h"

static enum status forward(struct net *net, struct operation *join, const struct pass *pass) {
  (void)pass;
  return net->ops->join_forward(net->rows, join->width_in, join->scale, join->input, join->shortcut, join->output);
}

static enum status backward_data(struct net *net, struct operation *join, const void *grad_output, void *grad_input) {
  return net->ops->join_backward(net->rows, join->width_in, join->scale, grad_output, grad_input, join->grad_shortcut);
}

static const struct operation_kind join_kind = {
    .name = "join", .forward = forward, .backward_data = backward_data, .gradient_of_shortcut = true};

enum status net_add_join(struct net *net, int second, double scale) {
  const struct value *first = net_last_value(net), *other = &net->value[second];
  struct operation *join;
  REQUIRE(first->height == 1 && first->width == 1 && value_width(other) == first->channels, ERR_BUG,
          "%lld and %lld numbers cannot be joined: pool both, and make them equally many",
          (long long)value_width(first), (long long)value_width(other));
  TRY(net_add(net, &join_kind, 1, 1, 2 * first->channels, &join));
  join->also_reads = second;
  join->scale = scale;
  return STATUS_OK;
}
