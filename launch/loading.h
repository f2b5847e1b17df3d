/* How the options say that samples are loaded.
 *
 *     struct loader_options options = loading_options(config, session->threads, height, width, true);
 *
 * All functions are local. */
#ifndef CONR_LAUNCH_LOADING_H
#define CONR_LAUNCH_LOADING_H

#include "io/device_images.h"
#include "launch/config.h"

/* training: with the views, augmentations and decoder asked for; else one view from the host's decoder, as for
 * evaluation.
 * height, width: what the network sees; not read for tables. */
struct loader_options loading_options(const struct config *config, int threads, int64_t height, int64_t width,
                                      bool training);

/* How the device makes a loader's records into pixels; all 0 where there are none. */
struct device_images_options loading_images(const struct loader *loader, const struct loader_options *options,
                                            const struct sampler *sampler);

/* --pad, or its default for images of this size: 16 at 224, as published. */
int64_t loading_padding(const struct config *config, int64_t height, int64_t width);

#endif
