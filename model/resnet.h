/* Residual networks (He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016) as the benchmarks of
 * imbalanced regression use them: 18 layers of basic blocks or 50 of bottlenecks, the stride on the 3x3 convolution,
 * trained from scratch.
 *
 *     struct resnet_spec spec = {.depth = 50, .height = 224, .width = 224, .pixels = true,
 *                                .mean = {.5, .5, .5}, .std = {.5, .5, .5}, .outputs = 1};
 *     TRY(resnet_create(ops, &spec, capacity_rows, &net));
 *
 * Stem: 7x7 convolution of stride 2, batch norm, relu, 3x3 max pool of stride 2; four stages of blocks; average over all
 * of what is left of height and width (7x7 for 224); these are the features, 512 or 2048 of them; the head is linear.
 * Convolutions have no bias and start normal with deviation sqrt(2 / (kernel^2 out)), batch norms with 1 and 0, the head
 * uniform in +-1/sqrt(features).  Parameters and buffers carry torchvision's names: conv1.weight, bn1.weight,
 * layer1.0.conv1.weight, layer1.0.downsample.0.weight, ..., fc.weight, fc.bias; their order is that of the operations.
 * One output and depth 50 make 23,510,081 parameters. */
#ifndef CONR_MODEL_RESNET_H
#define CONR_MODEL_RESNET_H

#include "model/net.h"

struct resnet_spec {
  int depth;             /* 18 or 50                                                              */
  int64_t height, width; /* of the images, three channels                                         */
  bool pixels;           /* inputs are 8-bit pixels, scaled by (x / 255 - mean) / std; else numbers as they are */
  double mean[3], std[3];
  double dropout;  /* share of the features dropped, 0 <= dropout < 1 */
  int64_t outputs; /* numbers in a label                              */
};

/* Build the net for at most capacity_rows images in a pass.  ERR_ARGUMENT names the value that is out of range;
 * ERR_MEMORY.  Local. */
enum status resnet_create(const struct ops *ops, const struct resnet_spec *spec, int64_t capacity_rows,
                          struct net **out);

#endif
