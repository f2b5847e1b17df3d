/* For implementers of device_images.h: the table that a device's backend fills. */
#ifndef CONR_IO_DEVICE_IMAGES_OPS_H
#define CONR_IO_DEVICE_IMAGES_OPS_H

#include "io/device_images.h"

struct jpeg_device; /* the backend's */

struct device_images_ops {
  enum status (*create)(struct device *device, const struct device_images_options *options, struct jpeg_device **out);
  void (*destroy)(struct jpeg_device **jpegs);
  /* Queue the pixels of all records of the batch that are not decoded.  refused: [rows], becomes true for those that
   * could not be. */
  enum status (*make)(struct jpeg_device *jpegs, struct stream *stream, const struct batch *batch, void *inputs,
                      bool *refused);
};

/* The name of the table in a backend's library. */
#define DEVICE_IMAGES_OPS_SYMBOL "conr_cuda_device_images_ops"

#endif
