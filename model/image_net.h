/* What all networks for images have in common: what they read, and how they end.
 *
 * Probabilistic ones are those of VIR (Wang and Wang 2023, "Variational imbalanced regression"): beside the last
 * convolution, another one of its shape reads the same value and makes variances, without batch norm or shortcut. */
#ifndef CONR_MODEL_IMAGE_NET_H
#define CONR_MODEL_IMAGE_NET_H

#include "model/reconstruction.h"

struct image_spec {
  int64_t height, width; /* of the images, three channels                                         */
  bool pixels;           /* inputs are 8-bit pixels, scaled by (x / 255 - mean) / std; else numbers as they are */
  double mean[3], std[3];
  double dropout;     /* share of the features dropped, 0 <= dropout < 1     */
  bool probabilistic; /* features are distributions (net.h); dropped is what is drawn from them */
  bool reconstructs;  /* what is drawn is decoded again (reconstruction.h); ResNet-50 alone, of square images */
  int64_t outputs;    /* numbers in a label                                  */
};

/* For builders (layer.h).  A net that has its pixels scaled; then, after what the builder adds, the average over height
 * and width, dropout, and the linear head "fc"; and the memory.
 * variance  NO_VALUE, or of a probabilistic net: a value made by image_net_add_variance(), beside that made last
 * mirror    of a net that reconstructs; NULL = this network has none, and spec must not ask for one */
enum status image_net_begin(const struct ops *ops, const struct image_spec *spec, int64_t capacity_rows,
                            struct net **out);
enum status image_net_end(struct net *net, const struct image_spec *spec, int variance, const struct mirror *mirror);

/* The map of variances beside the net's last map of means: convolution "PREFIXvariance" without bias of the value
 * `input`, which the last convolution before the means reads too, and softplus.  The means stay what was last. */
enum status image_net_add_variance(struct net *net, const char *prefix, int input, int kernel, int stride,
                                   int *variance);

/* The features, and the beginning of the head: averages of the means over height and width; with variances, also those
 * of the averages, as of independent terms: the average variance over their number, and a draw from both.  dropout: of
 * features that are no distributions. */
enum status image_net_add_features(struct net *net, double dropout, int variance);

#endif
