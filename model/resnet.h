/* Residual networks (He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016) as the benchmarks of
 * imbalanced regression use them: 18 layers of basic blocks or 50 of bottlenecks, the stride on the 3x3 convolution,
 * trained from scratch.
 *
 *     struct image_spec spec = {.height = 224, .width = 224, .pixels = true,
 *                               .mean = {.5, .5, .5}, .std = {.5, .5, .5}, .outputs = 1};
 *     TRY(resnet_create(ops, 50, &spec, capacity_rows, &net));
 *
 * Stem: 7x7 convolution of stride 2, batch norm, relu, 3x3 max pool of stride 2; four stages of blocks; average over
 * all of what is left of height and width (7x7 for 224); these are the features, 512 or 2048 of them; the head is
 * linear.  Convolutions have no bias and start normal with deviation sqrt(2 / (kernel^2 out)), batch norms with 1 and
 * 0, the head uniform in +-1/sqrt(features).  Parameters and buffers carry torchvision's names: conv1.weight,
 * bn1.weight, layer1.0.conv1.weight, layer1.0.downsample.0.weight, ..., fc.weight, fc.bias; their order is that of the
 * operations.  One output and depth 50 make 23,510,081 parameters.
 *
 * Probabilistic ones (image_net.h) have layer4's last convolution twice, the second as "layer4.2.variance.weight"
 * (depth 18: "layer4.1.variance.weight"), and twice as many features, of which the head draws.  The published code of
 * VIR, for depth 50, has one convolution of 4096 outputs in the place of both: its rows 0 to 2047 are our conv3.weight,
 * the others the variance's (each of ours starts as a convolution of 2048 outputs does).  Basic blocks are our reading:
 * there it is the 3x3 convolution.  The encoder of depth 50 has 24,556,608 parameters then.  Depth 50 may reconstruct
 * images of height and width 32 k: its decoder (reconstruction.h) has 224,545,920 parameters more for 224, and
 * 205,520,896 of them are in its first convolution, whose number grows with k^2. */
#ifndef CONR_MODEL_RESNET_H
#define CONR_MODEL_RESNET_H

#include "model/image_net.h"

/* depth: 18 or 50.  Build the net for at most capacity_rows images in a pass.  ERR_ARGUMENT names the value that is out
 * of range; ERR_MEMORY.  Local. */
enum status resnet_create(const struct ops *ops, int depth, const struct image_spec *spec, int64_t capacity_rows,
                          struct net **out);

/* For builders (layer.h): a block of stride 1 with parameters "PREFIX.conv1.weight", ...; channels: of its 3x3
 * convolution.  variance: NULL, or becomes image_net_add_variance()'s beside the block's means, which are made last. */
enum status resnet_add_last_block(struct net *net, const char *prefix, bool bottleneck, int64_t channels,
                                  int *variance);

#endif
