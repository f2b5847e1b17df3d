/* Beginning and end of networks for images. */
#include "model/image_net.h"

#include "model/layer.h"

enum status image_net_begin(const struct ops *ops, const struct image_spec *spec, int64_t capacity_rows,
                            struct net **out) {
  struct net_input input = {.pixels = spec->pixels, .height = spec->height, .width = spec->width, .channels = 3};
  TRY(net_begin(ops, &input, capacity_rows, out));
  enum status status = spec->pixels ? net_add_pixels(*out, spec->mean, spec->std) : STATUS_OK;
  if (status != STATUS_OK)
    net_destroy(out);
  return status;
}

enum status image_net_end(struct net *net, const struct image_spec *spec) {
  TRY(net_add_average_pool(net));
  TRY(net_add_dropout(net, spec->dropout));
  TRY(net_begin_head(net));
  TRY(net_add_linear(net, "fc", spec->outputs));
  return net_plan(net);
}
