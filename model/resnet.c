/* Residual networks of 18 and 50 layers. */
#include "model/resnet.h"

#include "model/layer.h"

#include <stdio.h>

#define STAGES 4

struct plan {
  int blocks[STAGES];
  bool bottleneck;
};

struct block {
  char prefix[32]; /* "layer1.0" */
  bool bottleneck;
  int64_t channels; /* of the 3x3 convolution */
  int stride;
  int *variance; /* becomes the value of the variances beside the block's means; NULL = it makes none */
};

static const char *in_block(const struct block *block, const char *layer, char name[PARAMETER_NAME_BYTES]) {
  snprintf(name, PARAMETER_NAME_BYTES, "%s.%s", block->prefix, layer);
  return name;
}

/* Convolution number `index` of a block with its batch norm. */
static enum status add_conv(struct net *net, const struct block *block, int index, int64_t out, int kernel,
                            int stride) {
  char layer[16], name[PARAMETER_NAME_BYTES];
  snprintf(layer, sizeof layer, "conv%d", index);
  return net_add_conv(net, in_block(block, layer, name), out, kernel, stride, kernel / 2, false);
}

static enum status add_norm(struct net *net, const struct block *block, int index, int shortcut) {
  char layer[16], name[PARAMETER_NAME_BYTES];
  snprintf(layer, sizeof layer, "bn%d", index);
  return net_add_norm(net, in_block(block, layer, name), shortcut, true);
}

/* The shortcut of a block that reads `input` and makes [height, width, out]: itself, or a projection where the shape
 * changes. */
static enum status add_shortcut(struct net *net, const struct block *block, int input, int64_t out, int *shortcut) {
  char name[PARAMETER_NAME_BYTES];
  int last = net_last(net);
  net_continue_from(net, input);
  *shortcut = input;
  if (block->stride != 1 || net_last_value(net)->channels != out) {
    TRY(net_add_conv(net, in_block(block, "downsample.0", name), out, 1, block->stride, 0, false));
    TRY(net_add_norm(net, in_block(block, "downsample.1", name), NO_VALUE, false));
    *shortcut = net_last(net);
  }
  net_continue_from(net, last);
  return STATUS_OK;
}

/* *before: what the last convolution reads. */
static enum status add_basic_block(struct net *net, const struct block *block, int *before) {
  int input = net_last(net), shortcut;
  TRY(add_conv(net, block, 1, block->channels, 3, block->stride));
  TRY(add_norm(net, block, 1, NO_VALUE));
  *before = net_last(net);
  TRY(add_conv(net, block, 2, block->channels, 3, 1));
  TRY(add_shortcut(net, block, input, block->channels, &shortcut));
  return add_norm(net, block, 2, shortcut);
}

static enum status add_bottleneck(struct net *net, const struct block *block, int *before) {
  int input = net_last(net), shortcut;
  TRY(add_conv(net, block, 1, block->channels, 1, 1));
  TRY(add_norm(net, block, 1, NO_VALUE));
  TRY(add_conv(net, block, 2, block->channels, 3, block->stride));
  TRY(add_norm(net, block, 2, NO_VALUE));
  *before = net_last(net);
  TRY(add_conv(net, block, 3, 4 * block->channels, 1, 1));
  TRY(add_shortcut(net, block, input, 4 * block->channels, &shortcut));
  return add_norm(net, block, 3, shortcut);
}

static enum status add_block(struct net *net, const struct block *block) {
  char prefix[PARAMETER_NAME_BYTES];
  int before;
  TRY(block->bottleneck ? add_bottleneck(net, block, &before) : add_basic_block(net, block, &before));
  if (block->variance == NULL)
    return STATUS_OK;
  return image_net_add_variance(net, in_block(block, "", prefix), before, block->bottleneck ? 1 : 3, 1,
                                block->variance);
}

enum status resnet_add_last_block(struct net *net, const char *prefix, bool bottleneck, int64_t channels,
                                  int *variance) {
  struct block block = {.bottleneck = bottleneck, .channels = channels, .stride = 1, .variance = variance};
  snprintf(block.prefix, sizeof block.prefix, "%s", prefix);
  return add_block(net, &block);
}

/* variance: as resnet_add_last_block() takes it, for the last block of this stage. */
static enum status add_stage(struct net *net, const struct plan *plan, int stage, int *variance) {
  for (int i = 0; i < plan->blocks[stage]; i++) {
    struct block block = {.bottleneck = plan->bottleneck,
                          .channels = (int64_t)64 << stage,
                          .stride = i == 0 && stage > 0 ? 2 : 1,
                          .variance = i == plan->blocks[stage] - 1 ? variance : NULL};
    snprintf(block.prefix, sizeof block.prefix, "layer%d.%d", stage + 1, i);
    TRY(add_block(net, &block));
  }
  return STATUS_OK;
}

static enum status add_all(struct net *net, const struct image_spec *spec, const struct plan *plan) {
  TRY(net_add_conv(net, "conv1", 64, 7, 2, 3, false));
  TRY(net_add_norm(net, "bn1", NO_VALUE, true));
  TRY(net_add_max_pool(net, 3, 2, 1));
  int variance = NO_VALUE;
  for (int stage = 0; stage < STAGES; stage++)
    TRY(add_stage(net, plan, stage, stage == STAGES - 1 && spec->probabilistic ? &variance : NULL));
  struct mirror mirror = {.stages = STAGES, .planes = 512, .side = net_last_value(net)->height};
  for (int stage = 0; stage < STAGES; stage++)
    mirror.blocks[stage] = plan->blocks[STAGES - 1 - stage];
  return image_net_end(net, spec, variance, plan->bottleneck ? &mirror : NULL);
}

enum status resnet_create(const struct ops *ops, int depth, const struct image_spec *spec, int64_t capacity_rows,
                          struct net **out) {
  static const struct plan small = {.blocks = {2, 2, 2, 2}}, large = {.blocks = {3, 4, 6, 3}, .bottleneck = true};
  *out = NULL;
  REQUIRE(depth == 18 || depth == 50, ERR_ARGUMENT, "there is no ResNet-%d here; use 18 or 50", depth);
  TRY(image_net_begin(ops, spec, capacity_rows, out));
  enum status status = add_all(*out, spec, depth == 18 ? &small : &large);
  if (status != STATUS_OK)
    net_destroy(out);
  return status;
}
