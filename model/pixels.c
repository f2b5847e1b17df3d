/* The first operation of networks for images: 8-bit pixels become numbers, (x / 255 - mean) / std per channel. */
#include "model/layer.h"

#include <math.h>
#include <string.h>

static enum status forward(struct net *net, struct operation *pixels, const struct pass *pass) {
  (void)pass;
  int64_t channels = net->input.channels;
  size_t count = (size_t)(net->rows * net->input.height * net->input.width);
  return net->ops->pixels(count, channels, pixels->input, pixels->mean, pixels->std, pixels->output);
}

static const struct operation_kind pixels_kind = {.name = "scaling of pixels", .forward = forward};

enum status net_add_pixels(struct net *net, const double *mean, const double *std) {
  struct net_input input = net->input;
  struct operation *pixels;
  REQUIRE(net->operation_count == 0 && input.pixels && input.channels <= 4, ERR_BUG,
          "pixels of up to 4 channels are scaled first of all");
  for (int64_t c = 0; c < input.channels; c++)
    REQUIRE(isfinite(mean[c]) && isfinite(std[c]) && std[c] > 0, ERR_ARGUMENT,
            "pixels cannot be normalised by mean %g and deviation %g; the deviation must be above 0", mean[c], std[c]);
  TRY(net_add(net, &pixels_kind, input.height, input.width, input.channels, &pixels));
  memcpy(pixels->mean, mean, (size_t)input.channels * sizeof *mean);
  memcpy(pixels->std, std, (size_t)input.channels * sizeof *std);
  return STATUS_OK;
}
