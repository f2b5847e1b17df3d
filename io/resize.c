/* Rows are filtered a few at a time into a ring that stays in the first cache, and columns from there: a row of the
 * result is made as soon as the last row that it needs is there. */
#include "io/resize.h"

#include "dist/memory.h"
#include "io/triangle.h"

#include <stdlib.h>
#include <string.h>

struct resizer {
  const struct triangle_filters *filters;
  struct triangle down, right;
  int16_t *ring; /* [slots, slot_values]: rows 2p and 2p + 1 of the source, filtered, lie in slot p % slots */
  int slots;
  size_t slot_values;
  const int16_t **rows; /* [slots]: those that a result is made of         */
  uint8_t *last_rows;   /* a source's last rows, with slack                */
  size_t ring_room, rows_room, last_room;
};

/* One run: the columns of the result that are to be seen. */
struct strip {
  const uint8_t *pixels;
  int height, filtered; /* rows of the source; the next to be filtered */
  size_t stride;
  int first, step, count; /* results, in order                         */
};

enum status resizer_create(int height, int width, struct resizer **out) {
  enum status status;
  struct resizer *resizer;
  TRY(memory_alloc_zero(sizeof *resizer, (void **)&resizer));
  resizer->filters = triangle_filters();
  resizer->slot_values = (6 * (size_t)width + TRIANGLE_PAIR_SLACK / 2 + 31) / 32 * 32; /* whole cache lines */
  TRY_GOTO(triangle_create(height, 2, &resizer->down), failed);
  TRY_GOTO(triangle_create(width, 1, &resizer->right), failed);
  *out = resizer;
  return STATUS_OK;
failed:
  resizer_destroy(&resizer);
  return status;
}

void resizer_destroy(struct resizer **resizer) {
  struct resizer *old = *resizer;
  if (old == NULL)
    return;
  memory_free((void **)&old->last_rows);
  memory_free((void **)&old->rows);
  memory_free((void **)&old->ring);
  triangle_destroy(&old->right);
  triangle_destroy(&old->down);
  memory_free((void **)resizer);
}

/* Grows *block, forgetting what is in it; it holds zeros. */
static enum status make_room(void **block, size_t *room, size_t bytes) {
  if (*room >= bytes)
    return STATUS_OK;
  memory_free(block);
  *room = 0;
  TRY(memory_alloc_zero(bytes, block));
  *room = bytes;
  return STATUS_OK;
}

static enum status prepare(struct resizer *resizer, int height, int width) {
  TRY(triangle_weigh(&resizer->right, width));
  TRY(triangle_weigh(&resizer->down, height));
  resizer->slots = resizer->down.most_pairs + TRIANGLE_ROWS / 2;
  TRY(make_room((void **)&resizer->ring, &resizer->ring_room,
                (size_t)resizer->slots * resizer->slot_values * sizeof *resizer->ring));
  TRY(make_room((void **)&resizer->rows, &resizer->rows_room, (size_t)resizer->slots * sizeof *resizer->rows));
  return make_room((void **)&resizer->last_rows, &resizer->last_room,
                   TRIANGLE_ROWS * (3 * (size_t)width + TRIANGLE_SLACK));
}

static int16_t *slot(const struct resizer *resizer, int pair) {
  return resizer->ring + (size_t)(pair % resizer->slots) * resizer->slot_values;
}

/* Row y, or the last one: a copy, if so near the end of the image that it has no slack. */
static const uint8_t *source_row(const struct resizer *resizer, const struct strip *strip, int y) {
  int present = y < strip->height ? y : strip->height - 1;
  const uint8_t *row = strip->pixels + (size_t)present * strip->stride;
  if ((size_t)(strip->height - 1 - present) * strip->stride >= TRIANGLE_SLACK)
    return row;
  size_t bytes = 3 * (size_t)resizer->right.from;
  uint8_t *copy = resizer->last_rows + (size_t)(y % TRIANGLE_ROWS) * (bytes + TRIANGLE_SLACK);
  return memcpy(copy, row, bytes);
}

/* The decoder wrote more than the nearer caches hold. */
static void prefetch_rows(const struct strip *strip, int y) {
  const uint8_t *rows = strip->pixels + (size_t)y * strip->stride;
  for (size_t at = 0; y + TRIANGLE_ROWS <= strip->height && at < TRIANGLE_ROWS * strip->stride; at += 64)
    __builtin_prefetch(rows + at);
}

/* Filters rows until those before `end` are in the ring. */
static void filter_rows(const struct resizer *resizer, struct strip *strip, int end) {
  for (; strip->filtered < end; strip->filtered += TRIANGLE_ROWS) {
    const uint8_t *rows[TRIANGLE_ROWS];
    int16_t *const out[] = {slot(resizer, strip->filtered / 2), slot(resizer, strip->filtered / 2 + 1)};
    for (int k = 0; k < TRIANGLE_ROWS; k++)
      rows[k] = source_row(resizer, strip, strip->filtered + k);
    prefetch_rows(strip, strip->filtered + TRIANGLE_ROWS);
    resizer->filters->right(&resizer->right, strip->first, strip->step, strip->count, rows, out);
  }
}

/* Row i of the resized image, as much of it as is seen. */
static void make_row(const struct resizer *resizer, struct strip *strip, int i, uint8_t *out) {
  const struct triangle *down = &resizer->down;
  int first = down->first[i], pairs = down->pairs[i], end = first + 2 * pairs;
  if (strip->filtered < first)
    strip->filtered = first;
  filter_rows(resizer, strip, end < strip->height ? end : strip->height);
  for (int k = 0; k < pairs; k++)
    resizer->rows[k] = slot(resizer, first / 2 + k);
  resizer->filters->down(down, i, resizer->rows, 3 * (size_t)strip->count, out);
}

enum status resizer_apply(struct resizer *resizer, const uint8_t *pixels, int height, int width, size_t stride,
                          const struct resize_window *window, uint8_t *out) {
  int to_height = resizer->down.to, to_width = resizer->right.to, right = window->right;
  int black = abs(right), seen = to_width - black;
  size_t row_bytes = 3 * (size_t)to_width;
  bool black_left = (right < 0) != window->mirrored;
  struct strip strip = {.pixels = pixels, .height = height, .stride = stride, .step = 1, .count = seen};
  strip.first = right > 0 ? right : 0;
  if (window->mirrored) {
    strip.step = -1;
    strip.first += seen - 1;
  }
  TRY(prepare(resizer, height, width));
  for (int y = 0; y < to_height; y++, out += row_bytes) {
    int i = y + window->down;
    if (i < 0 || i >= to_height || seen <= 0) {
      memset(out, 0, row_bytes);
      continue;
    }
    memset(black_left ? out : out + 3 * (size_t)seen, 0, 3 * (size_t)black);
    make_row(resizer, &strip, i, black_left ? out + 3 * (size_t)black : out);
  }
  return STATUS_OK;
}
