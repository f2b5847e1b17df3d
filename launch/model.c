/* From descriptions to networks. */
#include "launch/model.h"

#include "dist/comm_device.h"
#include "launch/config.h"
#include "model/cnn.h"
#include "model/mlp.h"
#include "model/resnet.h"

#include <string.h>

/* What pixels in 0 to 1 are normalised by; imagenet: the figures everybody uses for that set. */
static const struct scaling {
  const char *name;
  double mean[3], std[3];
} scalings[] = {{"half", {0.5, 0.5, 0.5}, {0.5, 0.5, 0.5}},
                {"imagenet", {0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}},
                {"none", {0, 0, 0}, {1, 1, 1}}};

bool model_is_for_images(const struct model_description *description) {
  return strcmp(description->name, "mlp") != 0;
}

enum status model_share(struct comm *data, const struct net *net) {
  struct parameters own = net_parameters(net), buffers = net_buffers(net);
  size_t element = dtype_size(net_ops(net)->parameter_dtype);
  TRY(comm_broadcast(comm_for(data, "broadcast of the parameters"), own.data, own.elements * element, 0));
  TRY(comm_broadcast(data, buffers.data, buffers.elements * element, 0));
  return comm_device_wait(data);
}

const char *model_precision(const struct device *device, const char *trained_in) {
  bool of_device = strcmp(trained_in, "tf32") == 0 || strcmp(trained_in, "bf16") == 0;
  return device == NULL && of_device ? "f32" : trained_in;
}

static enum status build_mlp(const struct model_description *description, double dropout, int64_t capacity,
                             const struct ops *ops, struct net **out) {
  int64_t hidden[MOST_LAYERS];
  struct mlp_spec spec = {.inputs = description->inputs,
                          .hidden = hidden,
                          .dropout = dropout,
                          .outputs = description->outputs,
                          .probabilistic = description->probabilistic};
  TRY(config_integers("hidden", description->hidden, 1, 1 << 20, MOST_LAYERS, hidden, &spec.hidden_count));
  TRY(activation_parse(description->activation, &spec.activation));
  return mlp_create(ops, &spec, capacity, out);
}

static enum status find_scaling(const char *name, const struct scaling **out) {
  for (size_t i = 0; i < sizeof scalings / sizeof *scalings; i++) {
    *out = &scalings[i];
    if (strcmp(scalings[i].name, name) == 0)
      return STATUS_OK;
  }
  return fail(ERR_ARGUMENT, "pixels cannot be normalised by \"%s\"; use half, imagenet or none", name);
}

static enum status build_image_net(const struct model_description *description, double dropout, int64_t capacity,
                                   const struct ops *ops, struct net **out) {
  const struct scaling *scaling;
  TRY(find_scaling(description->normalise, &scaling));
  struct image_spec spec = {.height = description->height,
                            .width = description->width,
                            .pixels = true,
                            .dropout = dropout,
                            .probabilistic = description->probabilistic,
                            .reconstructs = description->reconstructs,
                            .outputs = description->outputs};
  memcpy(spec.mean, scaling->mean, sizeof spec.mean);
  memcpy(spec.std, scaling->std, sizeof spec.std);
  if (strcmp(description->name, "cnn") == 0)
    return cnn_create(ops, &spec, capacity, out);
  return resnet_create(ops, strcmp(description->name, "resnet18") == 0 ? 18 : 50, &spec, capacity, out);
}

enum status model_build(struct device *device, const struct model_description *description, double dropout,
                        int64_t capacity, const struct ops **ops, struct net **out) {
  const char *name = description->name;
  enum precision precision;
  *out = NULL;
  TRY(precision_parse(description->precision, &precision));
  TRY(ops_open(device, precision, ops));
  REQUIRE(precision != PRECISION_BF16 || model_is_for_images(description), ERR_ARGUMENT,
          "--precision bf16 is for networks of images; give --precision f32 or tf32 for a table");
  if (strcmp(name, "mlp") == 0)
    return build_mlp(description, dropout, capacity, *ops, out);
  if (strcmp(name, "cnn") == 0 || strcmp(name, "resnet18") == 0 || strcmp(name, "resnet50") == 0)
    return build_image_net(description, dropout, capacity, *ops, out);
  return fail(ERR_ARGUMENT, "there is no model \"%s\"; use mlp, cnn, resnet18 or resnet50", name);
}
