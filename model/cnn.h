/* A small convolutional network for quick work: four 3x3 convolutions with batch norm and relu, widths 32, 64, 128,
 * 256, the last three (all four for images of 64 and more) of stride 2, then the average over height and width (256
 * features) and a linear head.  Parameters: conv1.weight, bn1.weight, bn1.bias, ..., fc.weight, fc.bias; they start as
 * those of resnet.h.  A probabilistic one has "variance.weight" beside conv4. */
#ifndef CONR_MODEL_CNN_H
#define CONR_MODEL_CNN_H

#include "model/image_net.h"

/* Build the net for at most capacity_rows images in a pass.  ERR_ARGUMENT names the value that is out of range;
 * ERR_MEMORY.  Local. */
enum status cnn_create(const struct ops *ops, const struct image_spec *spec, int64_t capacity_rows, struct net **out);

#endif
