/* A small convolutional network for quick work: four 3x3 convolutions with batch norm and relu, widths 32, 64, 128, 256,
 * the last three (all four for images of 64 and more) of stride 2, then the average over height and width (256
 * features) and a linear head.  Parameters: conv1.weight, bn1.weight, bn1.bias, ..., fc.weight, fc.bias; they start as
 * those of resnet.h. */
#ifndef CONR_MODEL_CNN_H
#define CONR_MODEL_CNN_H

#include "model/net.h"

struct cnn_spec {
  int64_t height, width; /* of the images, three channels                                         */
  bool pixels;           /* inputs are 8-bit pixels, scaled by (x / 255 - mean) / std; else numbers as they are */
  double mean[3], std[3];
  double dropout;  /* share of the features dropped, 0 <= dropout < 1 */
  int64_t outputs; /* numbers in a label                              */
};

/* As resnet_create(). */
enum status cnn_create(const struct ops *ops, const struct cnn_spec *spec, int64_t capacity_rows, struct net **out);

#endif
