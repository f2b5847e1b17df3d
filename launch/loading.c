/* From options to a loader's. */
#include "launch/loading.h"

#include <string.h>

#define LEAST_WINDOW 0.2 /* --augment strong: share of the area, as published */

static enum transform_set set_of(const char *name) {
  return strcmp(name, "none") == 0 ? TRANSFORM_PLAIN : strcmp(name, "crop") == 0 ? TRANSFORM_CROP : TRANSFORM_STRONG;
}

int64_t loading_padding(const struct config *config, int64_t height, int64_t width) {
  int64_t shorter = height < width ? height : width;
  return config_given(config, "pad") ? config->pad : (shorter + 7) / 14;
}

struct loader_options loading_options(const struct config *config, int threads, int64_t height, int64_t width,
                                      bool training) {
  uint64_t seed = (uint64_t)config->seed;
  struct loader_options options = {
      .views = 1,
      .workers = config->workers > 0 ? (int)config->workers : threads,
      .no_decode_scaling = config->full_decode,
      .transform = {.height = (int)height, .width = (int)width, .set = TRANSFORM_PLAIN, .seed = seed}};
  if (!training)
    return options;
  options.views = config->views > 0 ? (int)config->views : 1;
  options.augment = (struct augment){.noise_std = config->noise, .mask_probability = config->mask, .seed = seed};
  options.transform.set = set_of(config->augment);
  options.transform.padding = (int)loading_padding(config, height, width);
  options.transform.flip = config->flip;
  options.transform.scale_low = LEAST_WINDOW;
  options.records = strcmp(config->decode, "nvjpeg") == 0;
  return options;
}

/* Room for a batch whose pictures are 64 times their files, and for 5 million pixels at least; larger batches are decoded
 * in parts. */
struct device_images_options loading_images(const struct loader *loader, const struct loader_options *options,
                                            const struct sampler *sampler) {
  const size_t least = (size_t)16 << 20, most = (size_t)256 << 20;
  size_t bytes = loader_record_bytes(loader), room = bytes < most / 64 ? 64 * bytes : most;
  if (bytes == 0)
    return (struct device_images_options){0};
  return (struct device_images_options){.height = options->transform.height,
                                        .width = options->transform.width,
                                        .views = options->views,
                                        .threads = options->workers,
                                        .samples = sampler_most_rows(sampler),
                                        .room = room > least ? room : least};
}
