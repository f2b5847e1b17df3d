/* A small convolutional network. */
#include "model/cnn.h"

#include "model/layer.h"

#include <stdio.h>

#define CONVOLUTIONS 4
#define FIRST_CHANNELS 32
#define LARGE 64 /* pixels of height and width from which the first convolution has stride 2 too */

static enum status add_layer(struct net *net, int index, int stride) {
  char name[16];
  snprintf(name, sizeof name, "conv%d", index + 1);
  TRY(net_add_conv(net, name, (int64_t)FIRST_CHANNELS << index, 3, stride, 1, false));
  snprintf(name, sizeof name, "bn%d", index + 1);
  return net_add_norm(net, name, NO_VALUE, true);
}

static enum status add_all(struct net *net, const struct cnn_spec *spec) {
  bool large = spec->height >= LARGE && spec->width >= LARGE;
  if (spec->pixels)
    TRY(net_add_pixels(net, spec->mean, spec->std));
  for (int i = 0; i < CONVOLUTIONS; i++)
    TRY(add_layer(net, i, i > 0 || large ? 2 : 1));
  TRY(net_add_average_pool(net));
  TRY(net_add_dropout(net, spec->dropout));
  TRY(net_begin_head(net));
  TRY(net_add_linear(net, "fc", spec->outputs));
  return net_plan(net);
}

enum status cnn_create(const struct ops *ops, const struct cnn_spec *spec, int64_t capacity_rows, struct net **out) {
  struct net_input input = {.pixels = spec->pixels, .height = spec->height, .width = spec->width, .channels = 3};
  struct net *net;
  *out = NULL;
  TRY(net_begin(ops, &input, capacity_rows, &net));
  enum status status = add_all(net, spec);
  if (status != STATUS_OK)
    net_destroy(&net);
  *out = net;
  return status;
}
