/* Resize, crop, mirror and colour; every draw comes from a counter. */
#include "io/transform.h"

#include "dist/memory.h"
#include "dist/random.h"
#include "io/colour.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTORISED
#endif

#define MOST_SIDE 8192
#define WINDOW_TRIES 10

struct transform_worker {
  struct transform transform;
  struct resizer *resizer;
};

/* The counters of one view: draws that are not needed stay unused, so that none changes another. */
enum {
  DRAW_TOP,
  DRAW_LEFT,
  DRAW_FLIP,
  DRAW_COLOUR,
  DRAW_BRIGHTNESS, /* from here on as enum colour_change */
  DRAW_CONTRAST,
  DRAW_SATURATION,
  DRAW_HUE,
  DRAW_ORDER,
  DRAW_GREY,
  DRAW_WINDOW, /* area and shape of each try */
  DRAWS = DRAW_WINDOW + 2 * WINDOW_TRIES
};

static double draw_number(const struct transform *transform, const struct transform_draw *draw, int which) {
  struct random_key key = random_key(transform->seed, RANDOM_AUGMENT, (uint64_t)draw->epoch);
  return random_uniform(key, (uint64_t)draw->sample, (uint64_t)draw->view * DRAWS + (uint64_t)which);
}

/* A whole number in 0 to most, all alike. */
static int draw_up_to(const struct transform *transform, const struct transform_draw *draw, int which, int most) {
  return (int)(draw_number(transform, draw, which) * (most + 1.0));
}

enum status transform_check(const struct transform *transform) {
  REQUIRE(transform->height >= 1 && transform->height <= MOST_SIDE && transform->width >= 1 &&
              transform->width <= MOST_SIDE,
          ERR_ARGUMENT, "images of %d x %d pixels cannot be made: each side has 1 to %d", transform->height,
          transform->width, MOST_SIDE);
  REQUIRE(transform->set == TRANSFORM_PLAIN || transform->set == TRANSFORM_CROP || transform->set == TRANSFORM_STRONG,
          ERR_ARGUMENT, "there is no set of transforms number %d", (int)transform->set);
  REQUIRE(transform->padding >= 0 && transform->padding <= MOST_SIDE, ERR_ARGUMENT,
          "the padding of %d pixels must be 0 to %d", transform->padding, MOST_SIDE);
  REQUIRE(transform->flip >= 0 && transform->flip <= 1, ERR_ARGUMENT,
          "the probability %g of mirroring must be between 0 and 1", transform->flip);
  REQUIRE(transform->set != TRANSFORM_STRONG || (transform->scale_low > 0 && transform->scale_low <= 1), ERR_ARGUMENT,
          "the least share %g of the area that is cut out must be above 0 and at most 1", transform->scale_low);
  return STATUS_OK;
}

enum status transform_create(const struct transform *transform, struct transform_worker **out) {
  struct transform_worker *worker;
  TRY(transform_check(transform));
  TRY(memory_alloc_zero(sizeof *worker, (void **)&worker));
  worker->transform = *transform;
  enum status status = resizer_create(transform->height, transform->width, &worker->resizer);
  if (status == STATUS_OK)
    *out = worker;
  else
    transform_destroy(&worker);
  return status;
}

void transform_destroy(struct transform_worker **worker) {
  if (*worker == NULL)
    return;
  resizer_destroy(&(*worker)->resizer);
  memory_free((void **)worker);
}

/* ---------------------------------------------------------------- crop and mirror */

/* Sixteen pixels: three vectors of bytes. */
#define BLOCK 16
typedef uint8_t bytes16 __attribute__((vector_size(16)));
struct block {
  bytes16 first, second, third;
};

static inline __attribute__((always_inline)) struct block load_block(const uint8_t *from) {
  struct block block;
  memcpy(&block.first, from, 16);
  memcpy(&block.second, from + 16, 16);
  memcpy(&block.third, from + 32, 16);
  return block;
}

/* The pixels of a block, last first. */
static inline __attribute__((always_inline)) void store_mirrored(struct block block, uint8_t *to) {
#ifdef __clang__ /* has no __builtin_shuffle */
  const uint8_t *bytes = (const uint8_t *)&block;
  for (int x = 0; x < BLOCK; x++)
    memcpy(to + 3 * x, bytes + 3 * (BLOCK - 1 - x), 3);
#else
  const bytes16 end = {29, 30, 31, 26, 27, 28, 23, 24, 25, 20, 21, 22, 17, 18, 19, 14};
  const bytes16 middle = {15, 16, 11, 12, 13, 8, 9, 10, 5, 6, 7, 2, 3, 4, 0, 0};
  const bytes16 but_one = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 31, 15};
  const bytes16 start = {17, 12, 13, 14, 9, 10, 11, 6, 7, 8, 3, 4, 5, 0, 1, 2};
  bytes16 first = __builtin_shuffle(block.second, block.third, end);
  bytes16 second = __builtin_shuffle(__builtin_shuffle(block.second, block.third, middle), block.first, but_one);
  bytes16 third = __builtin_shuffle(block.first, block.second, start);
  memcpy(to, &first, 16);
  memcpy(to + 16, &second, 16);
  memcpy(to + 32, &third, 16);
#endif
}

/* to = the `width` pixels of `from`, last first. */
VECTORISED static void mirror_row(const uint8_t *from, int width, uint8_t *to) {
  int x = 0;
  for (; x + BLOCK <= width; x += BLOCK)
    store_mirrored(load_block(from + 3 * (ptrdiff_t)x), to + 3 * (ptrdiff_t)(width - x - BLOCK));
  for (; x < width; x++)
    memcpy(to + 3 * (ptrdiff_t)(width - x - 1), from + 3 * (ptrdiff_t)x, 3);
}

/* The same in place, from both ends. */
VECTORISED static void mirror_in_place(uint8_t *row, int width) {
  uint8_t *left = row, *right = row + 3 * (ptrdiff_t)width;
  for (; right - left >= 6 * BLOCK; left += 3 * BLOCK, right -= 3 * BLOCK) {
    struct block first = load_block(left), last = load_block(right - 3 * BLOCK);
    store_mirrored(first, right - 3 * BLOCK);
    store_mirrored(last, left);
  }
  for (; right - left >= 6; left += 3, right -= 3) {
    uint8_t first[3];
    memcpy(first, left, 3);
    memcpy(left, right - 3, 3);
    memcpy(right - 3, first, 3);
  }
}

/* One row of the window: `from` [width, 3] moved left by `shift` pixels (right, if negative), black where it has
 * none. */
static void crop_row(const uint8_t *from, int width, int shift, bool mirrored, uint8_t *to) {
  int seen = width - abs(shift), black = width - seen;
  const uint8_t *first = from + 3 * (ptrdiff_t)(shift > 0 ? shift : 0);
  bool black_left = (shift < 0) != mirrored;
  uint8_t *start = to + 3 * (ptrdiff_t)(black_left ? black : 0);
  memset(black_left ? to : to + 3 * (ptrdiff_t)seen, 0, 3 * (size_t)black);
  if (mirrored)
    mirror_row(first, seen, start);
  else
    memcpy(start, first, 3 * (size_t)seen);
}

void transform_window_draw(const struct transform *transform, const struct transform_draw *draw,
                           struct resize_window *out) {
  int padding = transform->padding;
  out->down = draw_up_to(transform, draw, DRAW_TOP, 2 * padding) - padding;
  out->right = draw_up_to(transform, draw, DRAW_LEFT, 2 * padding) - padding;
  out->mirrored = draw_number(transform, draw, DRAW_FLIP) < transform->flip;
}

void transform_augment(const struct transform *transform, const struct transform_draw *draw, const uint8_t *resized,
                       uint8_t *out) {
  int height = transform->height, width = transform->width;
  size_t row_bytes = 3 * (size_t)width;
  if (transform->set != TRANSFORM_CROP) {
    if (out != resized)
      memcpy(out, resized, (size_t)height * row_bytes);
    return;
  }
  struct resize_window window;
  transform_window_draw(transform, draw, &window);
  for (int y = 0; y < height; y++, out += row_bytes) {
    int from = y + window.down;
    if (from < 0 || from >= height || abs(window.right) >= width)
      memset(out, 0, row_bytes);
    else
      crop_row(resized + (size_t)from * row_bytes, width, window.right, window.mirrored, out);
  }
}

/* A row whose pixels were laid down where the window wants them: the rest is black. */
static void finish_row(const struct resize_window *window, int width, uint8_t *row) {
  size_t black = 3 * (size_t)abs(window->right), bytes = 3 * (size_t)width;
  memset(window->right < 0 ? row : row + bytes - black, 0, black);
  if (window->mirrored)
    mirror_in_place(row, width);
}

int64_t transform_window_shift(const struct transform *transform, const struct resize_window *window) {
  return 3 * ((int64_t)window->down * transform->width + window->right);
}

void transform_window_finish(const struct transform *transform, const struct resize_window *window, uint8_t *out) {
  int height = transform->height, width = transform->width;
  for (int y = 0; y < height; y++, out += 3 * (size_t)width) {
    int from = y + window->down;
    if (from < 0 || from >= height || abs(window->right) >= width)
      memset(out, 0, 3 * (size_t)width);
    else
      finish_row(window, width, out);
  }
}

/* ---------------------------------------------------------------- strong */

/* The largest window in the middle whose shape is allowed, for pictures that no try fits into. */
static void middle_window(int height, int width, struct transform_plan *plan) {
  plan->height = height;
  plan->width = width;
  if (3 * (int64_t)height > 4 * (int64_t)width)
    plan->height = (int)lround(width * 4 / 3.0);
  else if (3 * (int64_t)width > 4 * (int64_t)height)
    plan->width = (int)lround(height * 4 / 3.0);
  plan->top = (height - plan->height) / 2;
  plan->left = (width - plan->width) / 2;
}

static void draw_window(const struct transform *transform, const struct transform_draw *draw, int height, int width,
                        struct transform_plan *plan) {
  double area = (double)height * width;
  for (int try = 0; try < WINDOW_TRIES; try++) {
    double share = draw_number(transform, draw, DRAW_WINDOW + 2 * try);
    double shape = draw_number(transform, draw, DRAW_WINDOW + 2 * try + 1);
    double target = area * (transform->scale_low + (1 - transform->scale_low) * share);
    double aspect = exp((2 * shape - 1) * log(4 / 3.0)); /* width / height, as likely 3/4 as 4/3 */
    plan->height = (int)lround(sqrt(target / aspect));
    plan->width = (int)lround(sqrt(target * aspect));
    if (plan->height >= 1 && plan->height <= height && plan->width >= 1 && plan->width <= width) {
      plan->top = draw_up_to(transform, draw, DRAW_TOP, height - plan->height);
      plan->left = draw_up_to(transform, draw, DRAW_LEFT, width - plan->width);
      return;
    }
  }
  middle_window(height, width, plan);
}

/* Brightness, contrast, saturation and hue, in one of their 24 orders. */
static void draw_colours(const struct transform *transform, const struct transform_draw *draw,
                         struct transform_plan *plan) {
  enum colour_change left[] = {COLOUR_BRIGHTNESS, COLOUR_CONTRAST, COLOUR_SATURATION, COLOUR_HUE};
  int order = draw_up_to(transform, draw, DRAW_ORDER, 23);
  for (int remaining = 4; remaining > 0; order /= remaining--) {
    int chosen = order % remaining;
    enum colour_change change = left[chosen];
    double number = 2 * draw_number(transform, draw, DRAW_BRIGHTNESS + (int)change) - 1;
    left[chosen] = left[remaining - 1];
    plan->change[plan->changes] = change;
    plan->amount[plan->changes++] = change == COLOUR_HUE ? 0.1 * number : 1 + 0.4 * number;
  }
}

static void draw_strong(const struct transform *transform, const struct transform_draw *draw, int height, int width,
                        struct transform_plan *plan) {
  draw_window(transform, draw, height, width, plan);
  plan->window.mirrored = draw_number(transform, draw, DRAW_FLIP) < transform->flip;
  if (draw_number(transform, draw, DRAW_COLOUR) < 0.8)
    draw_colours(transform, draw, plan);
  plan->grey = draw_number(transform, draw, DRAW_GREY) < 0.2;
}

static void change_colours(const struct transform_plan *plan, size_t count, uint8_t *pixels) {
  for (int i = 0; i < plan->changes; i++) {
    double amount = plan->amount[i];
    if (plan->change[i] == COLOUR_BRIGHTNESS)
      colour_brightness(pixels, count, amount);
    else if (plan->change[i] == COLOUR_CONTRAST)
      colour_contrast(pixels, count, amount);
    else if (plan->change[i] == COLOUR_SATURATION)
      colour_saturation(pixels, count, amount);
    else
      colour_hue(pixels, count, amount);
  }
  if (plan->grey)
    colour_grey(pixels, count);
}

static enum status apply_strong(struct transform_worker *worker, const struct image *image,
                                const struct transform_draw *draw, uint8_t *out) {
  const struct transform *transform = &worker->transform;
  struct transform_plan plan = {0};
  draw_strong(transform, draw, image->height, image->width, &plan);
  size_t stride = 3 * (size_t)image->width;
  TRY(resizer_apply(worker->resizer, image->pixels + (size_t)plan.top * stride + 3 * (size_t)plan.left, plan.height,
                    plan.width, stride, &plan.window, out));
  change_colours(&plan, (size_t)transform->height * (size_t)transform->width, out);
  return STATUS_OK;
}

/* ---------------------------------------------------------------- the whole */

void transform_draw_plan(const struct transform *transform, const struct transform_draw *draw, int height, int width,
                         struct transform_plan *out) {
  *out = (struct transform_plan){.height = height, .width = width};
  if (transform->set == TRANSFORM_CROP)
    transform_window_draw(transform, draw, &out->window);
  else if (transform->set == TRANSFORM_STRONG)
    draw_strong(transform, draw, height, width, out);
}

enum status transform_resize(struct transform_worker *worker, const struct image *image, uint8_t *resized) {
  const struct transform *transform = &worker->transform;
  size_t stride = 3 * (size_t)image->width;
  if (image->height != transform->height || image->width != transform->width)
    return resizer_apply(worker->resizer, image->pixels, image->height, image->width, stride,
                         &(struct resize_window){0}, resized);
  memcpy(resized, image->pixels, (size_t)image->height * stride);
  return STATUS_OK;
}

/* Only what the window shows is computed. */
static enum status apply_crop(struct transform_worker *worker, const struct image *image,
                              const struct transform_draw *draw, uint8_t *out) {
  const struct transform *transform = &worker->transform;
  struct resize_window window;
  if (image->height == transform->height && image->width == transform->width) {
    transform_augment(transform, draw, image->pixels, out);
    return STATUS_OK;
  }
  transform_window_draw(transform, draw, &window);
  return resizer_apply(worker->resizer, image->pixels, image->height, image->width, 3 * (size_t)image->width, &window,
                       out);
}

enum status transform_apply(struct transform_worker *worker, const struct image *image,
                            const struct transform_draw *draw, uint8_t *out) {
  REQUIRE(image->height >= 1 && image->width >= 1, ERR_ARGUMENT, "an image of %d x %d pixels has nothing to show",
          image->height, image->width);
  if (worker->transform.set == TRANSFORM_STRONG)
    return apply_strong(worker, image, draw, out);
  if (worker->transform.set == TRANSFORM_CROP)
    return apply_crop(worker, image, draw, out);
  return transform_resize(worker, image, out);
}
