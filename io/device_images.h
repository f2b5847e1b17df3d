/* Batches of encoded images (loader_options.records) made into pixels where a network is: JPEGs are decoded by the
 * device's own decoder, nvJPEG, once a sample, and cut, resized, mirrored and coloured by kernels, as planned.
 *
 *     TRY(device_images_create(device, &options, &images));
 *     TRY(device_images_make(images, stream, batch, inputs));       inputs, device: [views * rows, height, width, 3] uint8
 *     device_images_destroy(&images);
 *
 * The pixels are those of the host (transform.h) up to what the JPEG decoders differ, a few levels: resizing and colours
 * have the same weights and roundings.  What is no plain JPEG (image.h), or is refused, comes from the host's decoder.
 * nvJPEG may not notice damage within the data of a picture: checksums (io/README.md) do.
 *
 * All functions are local. */
#ifndef CONR_IO_DEVICE_IMAGES_H
#define CONR_IO_DEVICE_IMAGES_H

#include "dist/device.h"
#include "io/loader.h"

struct device_images;

struct device_images_options {
  int height, width; /* of the results                                     */
  int views;         /* of a batch                                         */
  int threads;       /* of the host, that may help the decoder             */
  int64_t samples;   /* of the largest batch                               */
  size_t room;       /* bytes for decoded pictures; a larger one is the host's */
};

/* ERR_DEVICE: the host has none, or nvJPEG is not on this machine.  ERR_MEMORY.  All memory is allocated here but for
 * nvJPEG's own, which grows with the largest picture. */
enum status device_images_create(struct device *device, const struct device_images_options *options,
                                 struct device_images **out);
void device_images_destroy(struct device_images **images); /* NULL is fine */

/* Queue the work on a stream of the device.  The batch's memory must stay as it is until the stream has done it.  Errors
 * as of dataset_image_read, for the batch's first sample that nobody can decode; ERR_MEMORY, ERR_DEVICE. */
enum status device_images_make(struct device_images *images, struct stream *stream, const struct batch *batch,
                               void *inputs);

/* Samples so far, and how many of them the host decoded. */
struct device_images_counts {
  int64_t samples, host;
};
struct device_images_counts device_images_counts(const struct device_images *images);

#endif
