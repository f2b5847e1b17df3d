/* Layers over height and width: what struct ops (ops.h) needs to know of convolutions and pooling.
 *
 * Tensors are dense and channels-last, [rows, height, width, channels]; with height = width = 1 they are the [rows,
 * width] of the other entries.  Weights of convolutions are [out, in, kernel, kernel], the field's usual order: what a
 * backend prefers is its own affair, inside its struct conv. */
#ifndef CONR_MODEL_SPATIAL_H
#define CONR_MODEL_SPATIAL_H

#include "dist/device.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conv_shape {
  int64_t height, width, in; /* of the input                               */
  int64_t out;               /* channels                                   */
  int kernel, stride, padding;
  bool bias;
};

struct pool_shape {
  int64_t height, width, channels; /* of the input */
  int kernel_height, kernel_width, stride, padding;
};

/* Places a window takes along one side: (size + 2 padding - kernel) / stride + 1; 0 when it does not fit once. */
static inline int64_t spatial_out(int64_t size, int kernel, int stride, int padding) {
  int64_t room = size + 2 * (int64_t)padding - kernel;
  return room < 0 ? 0 : room / stride + 1;
}

/* A backend's compiled convolution of one shape: its primitives for the row counts it has met, made on first use. */
struct conv;

/* Scratch memory that the layers of a net share, one after the other.  It only grows, so that after the first step of
 * each row count nothing is allocated.  Earlier blocks of a device are kept until the end, since graphs may have been
 * recorded with them.  Zeroed = empty, of the host. */
struct workspace {
  struct device *device; /* borrowed: whose memory it is */
  void *data;
  size_t bytes;
  struct workspace *earlier; /* what it was before it grew */
};

enum status workspace_reserve(struct workspace *workspace, size_t bytes); /* contents are lost */
void workspace_free(struct workspace *workspace);

/* Of all its blocks. */
size_t workspace_bytes(const struct workspace *workspace);

#endif
