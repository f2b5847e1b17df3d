/* Linear layer: y = x W^T + b, parameters NAME.weight [out, in] and NAME.bias [out], which start uniform in
 * +-1/sqrt(in). */
#include "model/layer.h"

#include <math.h>

static struct linear_shape shape_of(const struct operation *linear) {
  return (struct linear_shape){.in = linear->width_in, .out = linear->width_out, .wide = linear->wide};
}

static enum status forward(struct net *net, struct operation *linear, const struct pass *pass) {
  (void)pass;
  struct linear_shape shape = shape_of(linear);
  return net->ops->linear_forward(net->rows, &shape, linear->input, net_parameter_data(net, linear, 0),
                                  net_parameter_data(net, linear, 1), linear->output);
}

static enum status backward_parameters(struct net *net, struct operation *linear, const void *grad_output) {
  struct linear_shape shape = shape_of(linear);
  return net->ops->linear_backward_weights(net->rows, &shape, linear->input, grad_output,
                                           net_parameter_gradient(net, linear, 0),
                                           net_parameter_gradient(net, linear, 1));
}

static enum status backward_data(struct net *net, struct operation *linear, const void *grad_output, void *grad_input) {
  struct linear_shape shape = shape_of(linear);
  return net->ops->linear_backward_data(net->rows, &shape, grad_output, net_parameter_data(net, linear, 0), grad_input);
}

static const struct operation_kind linear_kind = {.name = "linear",
                                                  .forward = forward,
                                                  .backward_parameters = backward_parameters,
                                                  .backward_data = backward_data,
                                                  .can_be_wide = true};

enum status net_add_linear(struct net *net, const char *name, int64_t units) {
  const struct value *read = net_last_value(net);
  int64_t in = read->channels;
  struct operation *linear;
  REQUIRE(read->height == 1 && read->width == 1, ERR_BUG, "%s cannot read an image; pool it first", name);
  TRY(net_add(net, &linear_kind, 1, 1, units, &linear));
  linear->flops = 2.0 * (double)in * (double)units;
  double bound = 1 / sqrt((double)in);
  TRY(net_add_parameter(net, name, "weight", 2, (const int64_t[]){units, in}, INITIAL_UNIFORM, bound));
  return net_add_parameter(net, name, "bias", 1, &units, INITIAL_UNIFORM, bound);
}
