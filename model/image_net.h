/* What all networks for images have in common: what they read, and how they end. */
#ifndef CONR_MODEL_IMAGE_NET_H
#define CONR_MODEL_IMAGE_NET_H

#include "model/net.h"

struct image_spec {
  int64_t height, width; /* of the images, three channels                                         */
  bool pixels;           /* inputs are 8-bit pixels, scaled by (x / 255 - mean) / std; else numbers as they are */
  double mean[3], std[3];
  double dropout;  /* share of the features dropped, 0 <= dropout < 1 */
  int64_t outputs; /* numbers in a label                              */
};

/* For builders (layer.h).  A net that has its pixels scaled; then, after what the builder adds, the average over height
 * and width, dropout, and the linear head "fc"; and the memory. */
enum status image_net_begin(const struct ops *ops, const struct image_spec *spec, int64_t capacity_rows,
                            struct net **out);
enum status image_net_end(struct net *net, const struct image_spec *spec);

#endif
