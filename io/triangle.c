/* Weights in double, rounded once; sums in plain C and with AVX2. */
#include "io/triangle.h"

#include "dist/memory.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define HAVE_AVX2
#endif

#define WEIGHT_BITS 22
#define LOW_BITS 11
#define HALF (1 << (WEIGHT_BITS - 1))

/* ---------------------------------------------------------------- weights */

enum status triangle_create(int to, struct triangle *out) {
  *out = (struct triangle){.to = to};
  TRY(memory_alloc((size_t)to * sizeof *out->first, (void **)&out->first));
  return memory_alloc((size_t)to * sizeof *out->pairs, (void **)&out->pairs);
}

void triangle_destroy(struct triangle *triangle) {
  memory_free((void **)&triangle->weights);
  memory_free((void **)&triangle->pairs);
  memory_free((void **)&triangle->first);
}

static double height_at(int pixel, double center, double half_width) {
  return fmax(0, 1 - fabs(pixel - center + 0.5) / half_width);
}

/* Result i from the pixels first to last - 1; each weight is rounded on its own.  What has no weight at either end is
 * left out. */
static void weigh_result(struct triangle *triangle, int i, double center, double half_width, int first, int last) {
  double sum = 0;
  for (int pixel = first; pixel < last; pixel++)
    sum += height_at(pixel, center, half_width);
#define WEIGHT(pixel) ((int32_t)(0.5 + height_at(pixel, center, half_width) / sum * (1 << WEIGHT_BITS)))
  while (first + 1 < last && WEIGHT(first) == 0)
    first++;
  while (first + 1 < last && WEIGHT(last - 1) == 0)
    last--;
  struct triangle_pair *weights = triangle->weights + (size_t)i * (size_t)triangle->most_pairs;
  triangle->first[i] = first;
  triangle->pairs[i] = (last - first + 1) / 2;
  memset(weights, 0, (size_t)triangle->pairs[i] * sizeof *weights);
  for (int pixel = first; pixel < last; pixel++) {
    int k = pixel - first;
    int32_t weight = WEIGHT(pixel);
    weights[k / 2].high[k % 2] = (int16_t)(weight >> LOW_BITS);
    weights[k / 2].low[k % 2] = (int16_t)(weight & ((1 << LOW_BITS) - 1));
  }
#undef WEIGHT
}

static enum status make_room(struct triangle *triangle) {
  size_t bytes = (size_t)triangle->to * (size_t)triangle->most_pairs * sizeof *triangle->weights;
  if (triangle->room >= bytes)
    return STATUS_OK;
  memory_free((void **)&triangle->weights);
  triangle->room = 0;
  TRY(memory_alloc(bytes, (void **)&triangle->weights));
  triangle->room = bytes;
  return STATUS_OK;
}

enum status triangle_weigh(struct triangle *triangle, int from) {
  double scale = (double)from / triangle->to, half_width = fmax(scale, 1);
  if (triangle->from == from)
    return STATUS_OK;
  triangle->from = 0;
  triangle->most_pairs = (int)ceil(half_width) + 1;
  if (triangle->most_pairs > (from + 1) / 2)
    triangle->most_pairs = (from + 1) / 2;
  TRY(make_room(triangle));
  for (int i = 0; i < triangle->to; i++) {
    double center = (i + 0.5) * scale;
    int first = (int)fmax(0, center - half_width + 0.5), last = (int)fmin(from, center + half_width + 0.5);
    weigh_result(triangle, i, center, half_width, first, last);
  }
  triangle->from = from;
  return STATUS_OK;
}

/* ---------------------------------------------------------------- sums, plain */

static int32_t weight_of(const struct triangle_pair *weights, int k) {
  return weights[k / 2].high[k % 2] * (1 << LOW_BITS) + weights[k / 2].low[k % 2];
}

/* The rounded weights may sum to a little more than 1: 256 becomes 255. */
static uint8_t round_sum(int32_t sum) {
  int32_t rounded = (sum + HALF) >> WEIGHT_BITS;
  return (uint8_t)(rounded - (rounded >> 8));
}

static void right_plain(const struct triangle *triangle, int first, int step, int count,
                        const uint8_t *const rows[TRIANGLE_ROWS], uint8_t *const out[TRIANGLE_ROWS]) {
  for (int x = 0, i = first; x < count; x++, i += step) {
    const struct triangle_pair *weights = triangle->weights + (size_t)i * (size_t)triangle->most_pairs;
    int32_t sum[TRIANGLE_ROWS][3] = {{0}};
    ptrdiff_t at = 3 * (ptrdiff_t)triangle->first[i];
    for (int k = 0; k < 2 * triangle->pairs[i]; k++, at += 3)
      for (int row = 0; row < TRIANGLE_ROWS; row++)
        for (int channel = 0; channel < 3; channel++)
          sum[row][channel] += weight_of(weights, k) * rows[row][at + channel];
    for (int row = 0; row < TRIANGLE_ROWS; row++)
      for (int channel = 0; channel < 3; channel++)
        out[row][3 * x + channel] = round_sum(sum[row][channel]);
  }
}

#define BLOCK 64 /* sums that are kept in registers */
static inline __attribute__((always_inline)) void sum_block(const struct triangle_pair *weights, int count,
                                                            const uint8_t *const *rows, size_t from, size_t length,
                                                            uint8_t *restrict out) {
  int32_t sum[BLOCK] = {0};
  for (int k = 0; k < count; k++) {
    const uint8_t *restrict row = rows[k] + from;
    int32_t weight = weight_of(weights, k);
    for (size_t j = 0; j < length; j++)
      sum[j] += weight * row[j];
  }
  for (size_t j = 0; j < length; j++)
    out[from + j] = round_sum(sum[j]);
}

static void down_plain(const struct triangle_pair *weights, int pairs, const uint8_t *const *rows, size_t bytes,
                       uint8_t *out) {
  size_t j = 0;
  for (; j + BLOCK <= bytes; j += BLOCK)
    sum_block(weights, 2 * pairs, rows, j, BLOCK, out);
  if (j < bytes)
    sum_block(weights, 2 * pairs, rows, j, bytes - j, out);
}

const struct triangle_filters triangle_filters_plain = {right_plain, down_plain};

/* ---------------------------------------------------------------- sums, AVX2 */

#ifdef HAVE_AVX2
#define AVX2 __attribute__((target("avx2")))
#define AVX2_INLINE static inline __attribute__((always_inline, target("avx2")))

/* Eight sums of products with high and with low halves of weights. */
struct sums {
  __m256i high, low;
};

AVX2_INLINE void add_products(struct sums *sums, __m256i pixels, __m256i high, __m256i low) {
  sums->high = _mm256_add_epi32(sums->high, _mm256_madd_epi16(pixels, high));
  sums->low = _mm256_add_epi32(sums->low, _mm256_madd_epi16(pixels, low));
}

AVX2_INLINE struct sums no_sums(void) {
  return (struct sums){_mm256_setzero_si256(), _mm256_set1_epi32(HALF)};
}

/* Rounded: 0 to 256. */
AVX2_INLINE __m256i total(const struct sums *sums) {
  return _mm256_srai_epi32(_mm256_add_epi32(_mm256_slli_epi32(sums->high, LOW_BITS), sums->low), WEIGHT_BITS);
}

/* Two neighbours' weights in all lanes. */
AVX2_INLINE __m256i spread(const int16_t weights[2]) {
  int32_t both;
  memcpy(&both, weights, sizeof both);
  return _mm256_set1_epi32(both);
}

/* Four numbers a lane become bytes; 256 becomes 255. */
AVX2_INLINE __m256i narrow(const __m256i wide[4]) {
  return _mm256_packus_epi16(_mm256_packs_epi32(wide[0], wide[1]), _mm256_packs_epi32(wide[2], wide[3]));
}

/* Five pixels of two rows, one row in each half. */
AVX2_INLINE __m256i load_two(const uint8_t *upper, const uint8_t *lower) {
  __m256i pixels = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)upper));
  return _mm256_inserti128_si256(pixels, _mm_loadu_si128((const __m128i *)lower), 1);
}

/* The first two pixels of each half, or the next two, side by side: red, green, blue, nothing. */
AVX2_INLINE __m256i neighbours(__m256i pixels, bool next) {
  const __m128i first = _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
  const __m128i second = _mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
  return _mm256_shuffle_epi8(pixels, _mm256_broadcastsi128_si256(next ? second : first));
}

/* Four pixels of each row leave their gaps. */
AVX2_INLINE void store_pixels(const __m256i wide[4], uint8_t *upper, uint8_t *lower) {
  const __m128i dense = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
  __m256i bytes = _mm256_shuffle_epi8(narrow(wide), _mm256_broadcastsi128_si256(dense));
  _mm_storeu_si128((__m128i *)upper, _mm256_castsi256_si128(bytes));
  _mm_storeu_si128((__m128i *)lower, _mm256_extracti128_si256(bytes, 1));
}

/* The pair of weights at `pair`, for pixels of four rows. */
AVX2_INLINE void add_pair(struct sums sums[2], const __m256i pixels[2], const struct triangle_pair *pair, bool next) {
  __m256i high = spread(pair->high), low = spread(pair->low);
  add_products(&sums[0], neighbours(pixels[0], next), high, low);
  add_products(&sums[1], neighbours(pixels[1], next), high, low);
}

/* Result i of four rows.  One load of each row serves four weights; a moderate reduction has not more. */
AVX2_INLINE void sum_neighbours(const struct triangle *triangle, int i, const uint8_t *const rows[TRIANGLE_ROWS],
                                __m256i *upper, __m256i *lower) {
  const struct triangle_pair *weights = triangle->weights + (ptrdiff_t)i * triangle->most_pairs;
  ptrdiff_t at = 3 * (ptrdiff_t)triangle->first[i];
  int pairs = triangle->pairs[i];
  struct sums sums[2] = {no_sums(), no_sums()};
  __m256i pixels[2] = {load_two(rows[0] + at, rows[1] + at), load_two(rows[2] + at, rows[3] + at)};
  add_pair(sums, pixels, &weights[0], false);
  if (pairs > 1)
    add_pair(sums, pixels, &weights[1], true);
  for (int pair = 2; pair < pairs; pair++) {
    ptrdiff_t from = at + 6 * (ptrdiff_t)pair;
    pixels[0] = load_two(rows[0] + from, rows[1] + from);
    pixels[1] = load_two(rows[2] + from, rows[3] + from);
    add_pair(sums, pixels, &weights[pair], false);
  }
  *upper = total(&sums[0]);
  *lower = total(&sums[1]);
}

AVX2 static void right_avx2(const struct triangle *triangle, int first, int step, int count,
                            const uint8_t *const rows[TRIANGLE_ROWS], uint8_t *const out[TRIANGLE_ROWS]) {
  const struct triangle own = *triangle; /* copies, which no store through a byte pointer can change */
  const uint8_t *const from[TRIANGLE_ROWS] = {rows[0], rows[1], rows[2], rows[3]};
  uint8_t *const to[TRIANGLE_ROWS] = {out[0], out[1], out[2], out[3]};
  if (count < 4) {
    right_plain(triangle, first, step, count, rows, out);
    return;
  }
  for (int next = 0; next < count; next += 4) {
    int x = next + 4 <= count ? next : count - 4;
    ptrdiff_t place = 3 * (ptrdiff_t)x;
    __m256i upper[4], lower[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++)
      sum_neighbours(&own, first + step * (x + k), from, &upper[k], &lower[k]);
    store_pixels(upper, to[0] + place, to[1] + place);
    store_pixels(lower, to[2] + place, to[3] + place);
  }
}

AVX2_INLINE __m256i sum_columns(const struct triangle_pair *weights, int pairs, const uint8_t *const *rows, size_t j) {
  struct sums sums[4] = {no_sums(), no_sums(), no_sums(), no_sums()};
  const __m256i zero = _mm256_setzero_si256();
  for (int pair = 0; pair < pairs; pair++) {
    __m256i high = spread(weights[pair].high), low = spread(weights[pair].low);
    __m256i upper = _mm256_loadu_si256((const __m256i *)(rows[2 * pair] + j));
    __m256i lower = _mm256_loadu_si256((const __m256i *)(rows[2 * pair + 1] + j));
    __m256i first = _mm256_unpacklo_epi8(upper, lower), last = _mm256_unpackhi_epi8(upper, lower);
    add_products(&sums[0], _mm256_unpacklo_epi8(first, zero), high, low);
    add_products(&sums[1], _mm256_unpackhi_epi8(first, zero), high, low);
    add_products(&sums[2], _mm256_unpacklo_epi8(last, zero), high, low);
    add_products(&sums[3], _mm256_unpackhi_epi8(last, zero), high, low);
  }
  return narrow((__m256i[]){total(&sums[0]), total(&sums[1]), total(&sums[2]), total(&sums[3])});
}

AVX2 static void down_avx2(const struct triangle_pair *weights, int pairs, const uint8_t *const *rows, size_t bytes,
                           uint8_t *out) {
  size_t j = 0;
  for (; j + 32 <= bytes; j += 32)
    _mm256_storeu_si256((__m256i *)(out + j), sum_columns(weights, pairs, rows, j));
  if (j < bytes) {
    __m256i last = sum_columns(weights, pairs, rows, j);
    memcpy(out + j, &last, bytes - j);
  }
}

static const struct triangle_filters filters_avx2 = {right_avx2, down_avx2};
#endif

const struct triangle_filters *triangle_filters(void) {
#ifdef HAVE_AVX2
  if (__builtin_cpu_supports("avx2"))
    return &filters_avx2;
#endif
  return &triangle_filters_plain;
}
