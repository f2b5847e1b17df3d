/* Convolution with a square kernel: parameters NAME.weight [out, in, kernel, kernel] and, when asked for, NAME.bias.
 * The transposed one is its way back: it makes what a convolution of that shape would have read, out of what that one
 * would have made; NAME.weight is [in, out, kernel, kernel]. */
#include "model/layer.h"

#include <math.h>

static enum status forward(struct net *net, struct operation *conv, const struct pass *pass) {
  (void)pass;
  return net->ops->conv_forward(conv->conv, &net->workspace, net->rows, conv->input, net_parameter_data(net, conv, 0),
                                conv->bias ? net_parameter_data(net, conv, 1) : NULL, conv->output);
}

static enum status backward_parameters(struct net *net, struct operation *conv, const void *grad_output) {
  return net->ops->conv_backward_weights(conv->conv, &net->workspace, net->rows, conv->input, grad_output,
                                         net_parameter_gradient(net, conv, 0),
                                         conv->bias ? net_parameter_gradient(net, conv, 1) : NULL);
}

static enum status backward_data(struct net *net, struct operation *conv, const void *grad_output, void *grad_input) {
  return net->ops->conv_backward_data(conv->conv, &net->workspace, net->rows, grad_output,
                                      net_parameter_data(net, conv, 0), grad_input);
}

static const struct operation_kind conv_kind = {.name = "convolution",
                                                .forward = forward,
                                                .backward_parameters = backward_parameters,
                                                .backward_data = backward_data};

enum status net_add_conv(struct net *net, const char *name, int64_t out, int kernel, int stride, int padding,
                         bool bias) {
  const struct value *read = net_last_value(net);
  struct conv_shape shape = {.height = read->height,
                             .width = read->width,
                             .in = read->channels,
                             .out = out,
                             .kernel = kernel,
                             .stride = stride,
                             .padding = padding,
                             .bias = bias};
  int64_t height = spatial_out(shape.height, kernel, stride, padding);
  int64_t width = spatial_out(shape.width, kernel, stride, padding);
  struct operation *conv;
  TRY(net_add(net, &conv_kind, height, width, out, &conv));
  TRY(net->ops->conv_create(&shape, &conv->conv));
  conv->bias = bias;
  double taps = (double)kernel * kernel;
  conv->flops = 2.0 * (double)(height * width) * (double)shape.in * (double)out * taps;
  TRY(net_add_parameter(net, name, "weight", 4, (const int64_t[]){out, shape.in, kernel, kernel}, INITIAL_NORMAL,
                        sqrt(2 / (taps * (double)out))));
  return bias ? net_add_parameter(net, name, "bias", 1, &out, INITIAL_CONSTANT, 0) : STATUS_OK;
}

/* --- transposed ---------------------------------------------------------------------------------------------- */

static enum status transposed_forward(struct net *net, struct operation *conv, const struct pass *pass) {
  (void)pass;
  return net->ops->conv_backward_data(conv->conv, &net->workspace, net->rows, conv->input,
                                      net_parameter_data(net, conv, 0), conv->output);
}

static enum status transposed_backward_parameters(struct net *net, struct operation *conv, const void *grad_output) {
  return net->ops->conv_backward_weights(conv->conv, &net->workspace, net->rows, grad_output, conv->input,
                                         net_parameter_gradient(net, conv, 0), NULL);
}

static enum status transposed_backward_data(struct net *net, struct operation *conv, const void *grad_output,
                                            void *grad_input) {
  return net->ops->conv_forward(conv->conv, &net->workspace, net->rows, grad_output, net_parameter_data(net, conv, 0),
                                NULL, grad_input);
}

static const struct operation_kind transposed_kind = {.name = "transposed convolution",
                                                      .forward = transposed_forward,
                                                      .backward_parameters = transposed_backward_parameters,
                                                      .backward_data = transposed_backward_data};

enum status net_add_transposed_conv(struct net *net, const char *name, int64_t out, int kernel, int stride,
                                    int padding) {
  const struct value *read = net_last_value(net);
  struct conv_shape shape = {.height = (read->height - 1) * stride + kernel - 2 * (int64_t)padding,
                             .width = (read->width - 1) * stride + kernel - 2 * (int64_t)padding,
                             .in = out,
                             .out = read->channels,
                             .kernel = kernel,
                             .stride = stride,
                             .padding = padding};
  int64_t places = read->height * read->width;
  double taps = (double)kernel * kernel, bound = 1 / sqrt(taps * (double)out);
  struct operation *conv;
  TRY(net_add(net, &transposed_kind, shape.height, shape.width, out, &conv));
  TRY(net->ops->conv_create(&shape, &conv->conv));
  conv->flops = 2.0 * (double)places * (double)shape.out * (double)out * taps;
  return net_add_parameter(net, name, "weight", 4, (const int64_t[]){shape.out, out, kernel, kernel}, INITIAL_UNIFORM,
                           bound);
}
