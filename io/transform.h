/* From a decoded image to the pixels that a network sees: resize, and in training random crop, flip and colour.
 *
 *     struct transform transform = {.height = 224, .width = 224, .set = TRANSFORM_CROP, .padding = 16, .flip = 0.5,
 *                                   .seed = 7};
 *     TRY(transform_check(&transform));
 *     TRY(transform_create(&transform, &worker));                        one per thread: its scratch
 *     TRY(transform_apply(worker, &image, &draw, out));                  out [height, width, 3] uint8
 *     transform_destroy(&worker);
 *
 * Pixels stay 8 bits; scaling to [0, 1] and normalising are the network's first operation, so that buffers are small
 * and the same bytes go to a CPU and to a GPU.
 *
 *     TRANSFORM_PLAIN    resize to height x width (the aspect ratio is not kept): evaluation
 *     TRANSFORM_CROP     resize, pad all sides with `padding` black pixels, cut a random height x width window, mirror
 *                        left-right with probability `flip`: the published recipe for ages
 *     TRANSFORM_STRONG   cut a random window of `scale_low` to 1 of the area and aspect ratio 3/4 to 4/3, resize it, mirror,
 *                        with probability 0.8 change brightness, contrast, saturation (factors in 0.6 to 1.4) and hue
 *                        (+-0.1 of the circle) in random order, with probability 0.2 turn grey: RnC's
 *
 * Resizing is the antialiased bilinear (triangle) filter that the field's image library applies: the support grows with
 * the reduction; horizontally first, rounded to 8 bits, then vertically.  An image that has the size already is
 * untouched.
 *
 * Every draw is a function of (seed, epoch, sample, view) alone.  All functions are local. */
#ifndef CONR_IO_TRANSFORM_H
#define CONR_IO_TRANSFORM_H

#include "dist/status.h"
#include "io/image.h"
#include "io/resize.h"

#include <stdbool.h>
#include <stdint.h>

enum transform_set { TRANSFORM_PLAIN, TRANSFORM_CROP, TRANSFORM_STRONG };

struct transform {
  int height, width; /* of the result                                          */
  enum transform_set set;
  int padding;      /* TRANSFORM_CROP                                         */
  double flip;      /* TRANSFORM_CROP, TRANSFORM_STRONG: probability          */
  double scale_low; /* TRANSFORM_STRONG: least share of the area, 0 < s <= 1  */
  uint64_t seed;
};

/* Whose draws. */
struct transform_draw {
  int64_t epoch, sample;
  int view;
};

struct transform_worker;

/* What becomes of one view of an image: the draws, in the units of the image. */
enum colour_change { COLOUR_BRIGHTNESS, COLOUR_CONTRAST, COLOUR_SATURATION, COLOUR_HUE };

struct transform_plan {
  int top, left, height, width; /* the part of the image that is resized                 */
  struct resize_window window;  /* of the result                                         */
  int changes;                  /* 0 or 4, in this order, after all that                 */
  enum colour_change change[4];
  double amount[4]; /* a factor, or for the hue a turn                       */
  bool grey;        /* last of all                                           */
};

/* ERR_ARGUMENT for a value out of range. */
enum status transform_check(const struct transform *transform);

enum status transform_create(const struct transform *transform, struct transform_worker **out);
void transform_destroy(struct transform_worker **worker); /* NULL is fine */

/* The whole way.  out [height, width, 3].  ERR_MEMORY. */
enum status transform_apply(struct transform_worker *worker, const struct image *image,
                            const struct transform_draw *draw, uint8_t *out);

/* For whoever carries it out elsewhere: transform_apply does just this to an image of height x width. */
void transform_draw_plan(const struct transform *transform, const struct transform_draw *draw, int height, int width,
                         struct transform_plan *out);

/* Its two halves, for whoever keeps resized images: PLAIN and CROP only.  resized [height, width, 3] in and out; out
 * may be resized itself for PLAIN. */
enum status transform_resize(struct transform_worker *worker, const struct image *image, uint8_t *resized);
void transform_augment(const struct transform *transform, const struct transform_draw *draw, const uint8_t *resized,
                       uint8_t *out);

/* CROP for whoever can lay pixels down where they are wanted, such as from a file: byte i of the result is byte
 * i + transform_window_shift of the resized image, where there is one.  transform_window_finish blackens what lies
 * outside of it and mirrors, in place; then `out` is what transform_augment gives. */
void transform_window_draw(const struct transform *transform, const struct transform_draw *draw,
                           struct resize_window *out);
int64_t transform_window_shift(const struct transform *transform, const struct resize_window *window);
void transform_window_finish(const struct transform *transform, const struct resize_window *window, uint8_t *out);

#endif
