/* The triangle filter in integers.  Rows are filtered 32 at a time, turned so that neighbours in memory are neighbours in
 * a column: then both directions are sums of whole vectors. */
#include "io/resize.h"

#include "dist/memory.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTORISED
#endif

#define WEIGHT_BITS 22
#define BAND 32 /* rows that are filtered together */

/* One direction: result i is the sum of weights[i * most + k] * source[first[i] + k] over k < count[i]. */
struct axis {
  int from, to; /* pixels; from = 0: not computed yet */
  int most;     /* weights of a result, at most       */
  int *first;   /* [to]                               */
  int *count;   /* [to]                               */
  int32_t *weights;
  size_t room; /* of weights */
};

struct resizer {
  struct axis down, right;
  uint8_t *turned_in;  /* [longest source row, 3, BAND]       */
  uint8_t *turned_out; /* [width, 3, BAND]                    */
  uint8_t *narrow;     /* [source height, width, 3]           */
  size_t turned_room, narrow_room;
};

/* ---------------------------------------------------------------- weights */

static enum status axis_create(int to, struct axis *axis) {
  axis->to = to;
  TRY(memory_alloc((size_t)to * sizeof *axis->first, (void **)&axis->first));
  return memory_alloc((size_t)to * sizeof *axis->count, (void **)&axis->count);
}

static void axis_destroy(struct axis *axis) {
  memory_free((void **)&axis->weights);
  memory_free((void **)&axis->count);
  memory_free((void **)&axis->first);
}

/* Grows *block, forgetting what is in it. */
static enum status make_room(void **block, size_t *room, size_t bytes) {
  if (*room >= bytes)
    return STATUS_OK;
  memory_free(block);
  *room = 0;
  TRY(memory_alloc(bytes, block));
  *room = bytes;
  return STATUS_OK;
}

/* The weights of one result around `center`; each is rounded on its own. */
static void weigh(double center, double half_width, int first, int count, int32_t *weights) {
  double sum = 0;
  for (int k = 0; k < count; k++)
    sum += fmax(0, 1 - fabs(first + k - center + 0.5) / half_width);
  for (int k = 0; k < count; k++) {
    double weight = fmax(0, 1 - fabs(first + k - center + 0.5) / half_width) / sum;
    weights[k] = (int32_t)(0.5 + weight * (1 << WEIGHT_BITS));
  }
}

static enum status axis_weigh(struct axis *axis, int from) {
  double scale = (double)from / axis->to, half_width = fmax(scale, 1);
  if (axis->from == from)
    return STATUS_OK;
  axis->from = 0;
  axis->most = 2 * (int)ceil(half_width) + 1;
  TRY(make_room((void **)&axis->weights, &axis->room, (size_t)axis->to * (size_t)axis->most * sizeof *axis->weights));
  for (int i = 0; i < axis->to; i++) {
    double center = (i + 0.5) * scale;
    int first = (int)fmax(0, center - half_width + 0.5), last = (int)fmin(from, center + half_width + 0.5);
    axis->first[i] = first;
    axis->count[i] = last - first;
    weigh(center, half_width, first, last - first, axis->weights + (size_t)i * (size_t)axis->most);
  }
  axis->from = from;
  return STATUS_OK;
}

/* ---------------------------------------------------------------- sums */

/* out[j] = rounded sum over k of weights[k] * in[k * stride + j], j < length.  A length that is a constant where this is
 * called, and a multiple of 32, becomes sums in registers. */
#define SUM_BLOCK 64
static inline __attribute__((always_inline)) void sum_rows(const uint8_t *restrict in, size_t stride,
                                                           const int32_t *restrict weights, int count, size_t length,
                                                           uint8_t *restrict out) {
  int32_t sum[SUM_BLOCK];
  for (size_t j = 0; j < length; j++)
    sum[j] = 1 << (WEIGHT_BITS - 1);
  for (int k = 0; k < count; k++)
    for (size_t j = 0; j < length; j++)
      sum[j] += weights[k] * in[(size_t)k * stride + j];
  for (size_t j = 0; j < length; j++) { /* the rounded weights may sum to a little more than 1: 256 becomes 255 */
    int32_t rounded = sum[j] >> WEIGHT_BITS;
    out[j] = (uint8_t)(rounded - (rounded >> 8));
  }
}

/* All results of the columns: in [axis->from, bytes], out [axis->to, bytes]. */
VECTORISED static void filter_down(const struct axis *axis, const uint8_t *in, size_t bytes, uint8_t *out) {
  for (int i = 0; i < axis->to; i++, out += bytes) {
    const uint8_t *rows = in + (size_t)axis->first[i] * bytes;
    const int32_t *weights = axis->weights + (size_t)i * (size_t)axis->most;
    size_t j = 0;
    for (; j + SUM_BLOCK <= bytes; j += SUM_BLOCK)
      sum_rows(rows + j, bytes, weights, axis->count[i], SUM_BLOCK, out + j);
    if (j < bytes)
      sum_rows(rows + j, bytes, weights, axis->count[i], bytes - j, out + j);
  }
}

/* All results of the rows of a turned band: in [axis->from, 3, BAND], out [axis->to, 3, BAND]. */
VECTORISED static void filter_right(const struct axis *axis, const uint8_t *in, uint8_t *out) {
  for (int i = 0; i < axis->to; i++) {
    const uint8_t *pixels = in + (size_t)axis->first[i] * 3 * BAND;
    const int32_t *weights = axis->weights + (size_t)i * (size_t)axis->most;
    for (int channel = 0; channel < 3; channel++, pixels += BAND, out += BAND)
      sum_rows(pixels, 3 * BAND, weights, axis->count[i], BAND, out);
  }
}

/* ---------------------------------------------------------------- turning */

typedef uint8_t bytes16 __attribute__((vector_size(16)));

/* 16 x 16 bytes: to[i][j] = from[j][i].  Four rounds, each of which merges row i with row i + 8, byte by byte. */
static inline __attribute__((always_inline)) void turn_square(const uint8_t *from, size_t from_stride, uint8_t *to,
                                                              size_t to_stride) {
  const bytes16 low = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
  const bytes16 high = {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  bytes16 rows[16], merged[16];
  for (int i = 0; i < 16; i++)
    memcpy(&rows[i], from + (size_t)i * from_stride, 16);
#pragma GCC unroll 4
  for (int round = 0; round < 4; round++) {
    for (int i = 0; i < 8; i++) {
      merged[2 * i] = __builtin_shuffle(rows[i], rows[i + 8], low);
      merged[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + 8], high);
    }
    memcpy(rows, merged, sizeof rows);
  }
  for (int i = 0; i < 16; i++)
    memcpy(to + (size_t)i * to_stride, &rows[i], 16);
}

/* to [columns, rows] = transpose of from [rows, columns]; strides in bytes. */
static void turn(const uint8_t *from, size_t from_stride, int rows, int columns, uint8_t *to, size_t to_stride) {
  int whole_rows = rows / 16 * 16, whole_columns = columns / 16 * 16;
  for (int i = 0; i < whole_rows; i += 16)
    for (int j = 0; j < whole_columns; j += 16)
      turn_square(from + (size_t)i * from_stride + (size_t)j, from_stride, to + (size_t)j * to_stride + (size_t)i,
                  to_stride);
  for (int i = 0; i < rows; i++)
    for (int j = i < whole_rows ? whole_columns : 0; j < columns; j++)
      to[(size_t)j * to_stride + (size_t)i] = from[(size_t)i * from_stride + (size_t)j];
}

/* ---------------------------------------------------------------- the whole */

enum status resizer_create(int height, int width, struct resizer **out) {
  enum status status;
  struct resizer *resizer;
  TRY(memory_alloc_zero(sizeof *resizer, (void **)&resizer));
  TRY_GOTO(axis_create(height, &resizer->down), failed);
  TRY_GOTO(axis_create(width, &resizer->right), failed);
  TRY_GOTO(memory_alloc_zero((size_t)width * 3 * BAND, (void **)&resizer->turned_out), failed);
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
  memory_free((void **)&old->narrow);
  memory_free((void **)&old->turned_out);
  memory_free((void **)&old->turned_in);
  axis_destroy(&old->right);
  axis_destroy(&old->down);
  memory_free((void **)resizer);
}

/* Rows to their new length: out [height, right.to, 3]. */
static enum status resize_rows(struct resizer *resizer, const uint8_t *pixels, int height, size_t stride,
                               uint8_t *out) {
  const struct axis *axis = &resizer->right;
  size_t band_bytes = (size_t)axis->from * 3 * BAND, out_stride = (size_t)axis->to * 3;
  if (resizer->turned_room < band_bytes) {
    TRY(make_room((void **)&resizer->turned_in, &resizer->turned_room, band_bytes));
    memset(resizer->turned_in, 0, band_bytes); /* a band of fewer rows leaves lanes that are summed but not used */
  }
  for (int y = 0; y < height; y += BAND) {
    int rows = height - y < BAND ? height - y : BAND;
    turn(pixels + (size_t)y * stride, stride, rows, axis->from * 3, resizer->turned_in, BAND);
    filter_right(axis, resizer->turned_in, resizer->turned_out);
    turn(resizer->turned_out, BAND, axis->to * 3, rows, out + (size_t)y * out_stride, out_stride);
  }
  return STATUS_OK;
}

enum status resizer_apply(struct resizer *resizer, const uint8_t *pixels, int height, int width, size_t stride,
                          uint8_t *out) {
  size_t row_bytes = (size_t)resizer->right.to * 3;
  bool rows_change = width != resizer->right.to, columns_change = height != resizer->down.to;
  uint8_t *narrow = out;
  TRY(axis_weigh(&resizer->right, width));
  TRY(axis_weigh(&resizer->down, height));
  if (!columns_change && !rows_change) {
    for (int y = 0; y < height; y++)
      memcpy(out + (size_t)y * row_bytes, pixels + (size_t)y * stride, row_bytes);
    return STATUS_OK;
  }
  if (columns_change) {
    TRY(make_room((void **)&resizer->narrow, &resizer->narrow_room, (size_t)height * row_bytes));
    narrow = resizer->narrow;
  }
  if (rows_change) {
    TRY(resize_rows(resizer, pixels, height, stride, narrow));
  } else {
    for (int y = 0; y < height; y++)
      memcpy(narrow + (size_t)y * row_bytes, pixels + (size_t)y * stride, row_bytes);
  }
  if (columns_change)
    filter_down(&resizer->down, narrow, row_bytes, out);
  return STATUS_OK;
}
