/* Activations, element by element: relu, tanh, gelu, softplus. */
#include "model/layer.h"

static size_t elements(const struct net *net, const struct operation *operation) {
  return (size_t)net->rows * (size_t)operation->width_out;
}

static enum status forward(struct net *net, struct operation *operation, const struct pass *pass) {
  (void)pass;
  return net->ops->activation_forward(operation->activation, elements(net, operation), operation->input,
                                      operation->output);
}

static enum status backward_data(struct net *net, struct operation *operation, const void *grad_output,
                                 void *grad_input) {
  return net->ops->activation_backward(operation->activation, elements(net, operation), operation->input,
                                       operation->output, grad_output, grad_input);
}

static const struct operation_kind activation_kind = {
    .name = "activation", .forward = forward, .backward_data = backward_data, .gradient_over_output = true};

enum status net_add_activation(struct net *net, enum activation activation) {
  const struct value *read = net_last_value(net);
  struct operation *operation;
  TRY(net_add(net, &activation_kind, read->height, read->width, read->channels, &operation));
  operation->activation = activation;
  bool by_output = activation == ACTIVATION_RELU || activation == ACTIVATION_TANH; /* the way back: see ops.h */
  operation->reads_output = operation->overwrites = by_output;
  return STATUS_OK;
}
