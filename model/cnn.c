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

static enum status add_all(struct net *net, const struct image_spec *spec) {
  bool large = spec->height >= LARGE && spec->width >= LARGE;
  int before = net_last(net), variance = NO_VALUE;
  for (int i = 0; i < CONVOLUTIONS; i++) {
    before = net_last(net);
    TRY(add_layer(net, i, i > 0 || large ? 2 : 1));
  }
  if (spec->probabilistic)
    TRY(image_net_add_variance(net, "", before, 3, 2, &variance));
  return image_net_end(net, spec, variance, NULL);
}

enum status cnn_create(const struct ops *ops, const struct image_spec *spec, int64_t capacity_rows, struct net **out) {
  TRY(image_net_begin(ops, spec, capacity_rows, out));
  enum status status = add_all(*out, spec);
  if (status != STATUS_OK)
    net_destroy(out);
  return status;
}
