/* The mirror of an encoder: a decoder that makes an image out of what is drawn from its features, as VIR has it for
 * ResNet-50 (Wang and Wang 2023, "Variational imbalanced regression"; the shapes of its published code).  For builders
 * (layer.h).
 *
 *     struct mirror mirror = {.stages = 4, .blocks = {3, 6, 4, 3}, .planes = 512, .side = 7};      ResNet-50 at 224
 *     TRY(net_add_sample(net));
 *     TRY(reconstruction_add(net, &mirror, target));          what was made last stays the sample
 *
 * A transposed convolution makes [side, side] places of the 4 planes numbers that were made last.  A block is relu,
 * batch norm and a 1x1 convolution to p channels, the same with a 3x3 one, the same with a 1x1 one to 4 p; p halves from
 * stage to stage.  The last block of a stage makes 2 p channels, which the next one reads, with a transposed 2x2
 * convolution of stride 2 in the place of the 3x3; that of the last stage makes p channels of equal height and width.  A
 * transposed 2x2 convolution of stride 2, relu, batch norm and a transposed 6x6 one of stride 2 end in three channels of
 * side * 2^(stages + 1) places.  Nothing has a bias.  Parameters are "decoder.first.weight",
 * "decoder.layer1.0.bn1.weight", "decoder.layer1.0.conv1.weight", ..., "decoder.up.weight", "decoder.bn.weight",
 * "decoder.last.weight"; transposed ones are [in, out, kernel, kernel], and start uniform in 1 / sqrt(kernel^2 out). */
#ifndef CONR_MODEL_RECONSTRUCTION_H
#define CONR_MODEL_RECONSTRUCTION_H

#include "model/net.h"

#define MIRROR_MOST_STAGES 4

struct mirror {
  int stages, blocks[MIRROR_MOST_STAGES];
  int64_t planes; /* p of the first stage; a power of two, at least 2^(stages - 1)     */
  int64_t side;   /* height and width of the encoder's last map                        */
};

/* Height and width of the image. */
int64_t mirror_size(const struct mirror *mirror);

/* target  the value that is to be met, [rows, size, size, 3]
 * ERR_ARGUMENT when it has another height or width. */
enum status reconstruction_add(struct net *net, const struct mirror *mirror, int target);

#endif
