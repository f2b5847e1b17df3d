/* Beginning and end of networks for images. */
#include "model/image_net.h"

#include "model/layer.h"

#include <stdio.h>

enum status image_net_begin(const struct ops *ops, const struct image_spec *spec, int64_t capacity_rows,
                            struct net **out) {
  struct net_input input = {.pixels = spec->pixels, .height = spec->height, .width = spec->width, .channels = 3};
  TRY(net_begin(ops, &input, capacity_rows, out));
  enum status status = spec->pixels ? net_add_pixels(*out, spec->mean, spec->std) : STATUS_OK;
  if (status != STATUS_OK)
    net_destroy(out);
  return status;
}

enum status image_net_add_variance(struct net *net, const char *prefix, int input, int kernel, int stride,
                                   int *variance) {
  char name[PARAMETER_NAME_BYTES];
  int means = net_last(net);
  int64_t channels = net_last_value(net)->channels;
  snprintf(name, sizeof name, "%svariance", prefix);
  net_continue_from(net, input);
  TRY(net_add_conv(net, name, channels, kernel, stride, kernel / 2, false));
  TRY(net_add_activation(net, ACTIVATION_SOFTPLUS));
  *variance = net_last(net);
  net_continue_from(net, means);
  return STATUS_OK;
}

/* The pooled variances beside the pooled means, which were made last. */
static enum status join_variance(struct net *net, int variance, int64_t places) {
  int means = net_last(net);
  net_continue_from(net, variance);
  TRY(net_add_average_pool(net));
  int pooled = net_last(net);
  net_continue_from(net, means);
  return net_add_join(net, pooled, 1 / (double)places);
}

enum status image_net_add_features(struct net *net, double dropout, int variance) {
  int64_t places = net_last_value(net)->height * net_last_value(net)->width;
  TRY(net_add_average_pool(net));
  if (variance == NO_VALUE) {
    TRY(net_add_dropout(net, dropout));
    return net_begin_head(net);
  }
  TRY(join_variance(net, variance, places));
  TRY(net_begin_head(net));
  return net_add_sample(net);
}

enum status image_net_end(struct net *net, const struct image_spec *spec, int variance, const struct mirror *mirror) {
  REQUIRE(!spec->reconstructs || (mirror != NULL && variance != NO_VALUE), ERR_ARGUMENT,
          "inputs are reconstructed from features that are distributions, of ResNet-50; use both");
  TRY(image_net_add_features(net, spec->dropout, variance));
  if (spec->reconstructs)
    TRY(reconstruction_add(net, mirror, spec->pixels)); /* value 0 is the input, 1 the scaled pixels */
  if (variance != NO_VALUE)
    TRY(net_add_dropout(net, spec->dropout));
  TRY(net_add_linear(net, "fc", spec->outputs));
  return net_plan(net);
}
