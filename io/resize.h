/* Resizing 8-bit RGB pixels with the antialiased triangle filter of the field's image libraries.
 *
 *     struct resizer *resizer;
 *     struct resize_window whole = {0};
 *     TRY(resizer_create(224, 224, &resizer));                                  one per thread: its scratch
 *     TRY(resizer_apply(resizer, pixels, height, width, stride, &whole, out));  out [224, 224, 3]
 *     resizer_destroy(&resizer);
 *
 * Each result is a weighted mean of the pixels under a triangle whose half width is one pixel of the larger of the two
 * grids.  Rows first, rounded to 8 bits, then columns.  Weights are integers of 16 bits (triangle.h), so that all
 * machines agree, and Pillow but for one level in some values (fewer than one in 200 and a dozen: test_transform.c).
 * They are computed anew only when the size of the source changes.  A window of the result is made as such: what lies
 * outside of it is not computed. */
#ifndef CONR_IO_RESIZE_H
#define CONR_IO_RESIZE_H

#include "dist/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The resized image as seen through a window of its own size that begins at row `down` and column `right` of it, each
 * possibly negative: black where there is no image, and mirrored left-right after that. */
struct resize_window {
  int down, right;
  bool mirrored;
};

struct resizer;

enum status resizer_create(int height, int width, struct resizer **out);
void resizer_destroy(struct resizer **resizer); /* NULL is fine */

/* pixels  [height, width, 3], rows `stride` bytes apart: a part of a larger image is as good
 * out     [the resizer's height, width, 3], does not overlap pixels.  ERR_MEMORY. */
enum status resizer_apply(struct resizer *resizer, const uint8_t *pixels, int height, int width, size_t stride,
                          const struct resize_window *window, uint8_t *out);

#endif
