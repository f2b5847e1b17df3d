/* Weights in double, rounded once; sums in vectors of any machine and with AVX2. */
#include "io/triangle.h"

#include "dist/memory.h"
#include "io/triangle_weights.h"

#include <string.h>

#ifdef __SSE2__ /* all of x86-64 */
#include <immintrin.h>
#endif

/* ---------------------------------------------------------------- weights */

enum status triangle_create(int to, int grid, struct triangle *out) {
  *out = (struct triangle){.to = to, .grid = grid};
  TRY(memory_alloc((size_t)to * sizeof *out->first, (void **)&out->first));
  return memory_alloc((size_t)to * sizeof *out->pairs, (void **)&out->pairs);
}

void triangle_destroy(struct triangle *triangle) {
  memory_free((void **)&triangle->shares);
  memory_free((void **)&triangle->weights);
  memory_free((void **)&triangle->pairs);
  memory_free((void **)&triangle->first);
}

static struct triangle_lengths lengths_of(const struct triangle *triangle, int from) {
  return (struct triangle_lengths){from, triangle->to, triangle->grid};
}

static void place_results(struct triangle *triangle, int from) {
  triangle->most_pairs = 2;
  for (int i = 0; i < triangle->to; i++) {
    triangle_place(lengths_of(triangle, from), i, &triangle->first[i], &triangle->pairs[i]);
    if (triangle->pairs[i] > triangle->most_pairs)
      triangle->most_pairs = triangle->pairs[i];
  }
}

static enum status make_room(struct triangle *triangle) {
  size_t pairs = (size_t)triangle->to * (size_t)triangle->most_pairs;
  if (triangle->room >= pairs)
    return STATUS_OK;
  memory_free((void **)&triangle->weights);
  memory_free((void **)&triangle->shares);
  triangle->room = 0;
  TRY(memory_alloc(pairs * sizeof *triangle->weights, (void **)&triangle->weights));
  TRY(memory_alloc(pairs * 2 * sizeof *triangle->shares, (void **)&triangle->shares));
  triangle->room = pairs;
  return STATUS_OK;
}

static double weigh_results(struct triangle *triangle, int from) {
  double largest = 0;
  int count = 2 * triangle->most_pairs;
  for (int i = 0; i < triangle->to; i++) {
    double most = triangle_shares(lengths_of(triangle, from), i, triangle->first[i], triangle->pairs[i], count,
                                  triangle->shares + (ptrdiff_t)i * count);
    largest = most > largest ? most : largest;
  }
  return largest;
}

static bool round_results(const struct triangle *triangle, int bits) {
  int count = 2 * triangle->most_pairs;
  for (int i = 0; i < triangle->to; i++)
    if (!triangle_round(triangle->shares + (ptrdiff_t)i * count, count, bits,
                        triangle->weights[(ptrdiff_t)i * triangle->most_pairs].weight))
      return false;
  return true;
}

enum status triangle_weigh(struct triangle *triangle, int from) {
  if (triangle->from == from)
    return STATUS_OK;
  triangle->from = 0;
  place_results(triangle, from);
  TRY(make_room(triangle));
  double largest = weigh_results(triangle, from);
  triangle->bits = TRIANGLE_MOST_BITS;
  while (!triangle_bits_fit(largest, triangle->bits) || !round_results(triangle, triangle->bits))
    triangle->bits--;
  triangle->from = from;
  return STATUS_OK;
}

/* ---------------------------------------------------------------- sums, on any machine */

#define INLINE static inline __attribute__((always_inline))

/* Where the machine's own instructions are not named, a pair of words is taken for one number, the first of them lowest
 * (little-endian). */
typedef uint8_t bytes4 __attribute__((vector_size(4)));
typedef int16_t words __attribute__((vector_size(16)));
typedef int32_t sums __attribute__((vector_size(16)));

/* Both weights of a pair, four times. */
INLINE words spread(const struct triangle_pair *pair) {
  int32_t both;
  memcpy(&both, pair, sizeof both);
  return (words)(sums){both, both, both, both};
}

/* Red, green, blue of a pixel and of the next one, side by side; then two words of no use.  Reads 11 bytes at most. */
INLINE words neighbours(const uint8_t *pixel) {
#ifdef __SSE2__
  __m128i left = _mm_loadl_epi64((const __m128i *)pixel), right = _mm_loadl_epi64((const __m128i *)(pixel + 3));
  return (words)_mm_unpacklo_epi8(_mm_unpacklo_epi8(left, right), _mm_setzero_si128());
#else
  bytes4 left, right;
  memcpy(&left, pixel, sizeof left);
  memcpy(&right, pixel + 3, sizeof right);
  return (words)(__builtin_convertvector(left, sums) | __builtin_convertvector(right, sums) << 16);
#endif
}

/* Of each pair: the sum of its two products.  No number is negative. */
INLINE sums multiply_pairs(words a, words b) {
#ifdef __SSE2__
  return (sums)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
  sums first = ((sums)a & 0xffff) * ((sums)b & 0xffff);
  return first + ((sums)a >> 16) * ((sums)b >> 16);
#endif
}

/* Sixteen sums as bytes. */
INLINE void store_sums(const sums sum[4], int bits, uint8_t *out) {
#ifdef __SSE2__
  __m128i low = _mm_packs_epi32((__m128i)(sum[0] >> bits), (__m128i)(sum[1] >> bits));
  __m128i high = _mm_packs_epi32((__m128i)(sum[2] >> bits), (__m128i)(sum[3] >> bits));
  _mm_storeu_si128((__m128i *)out, _mm_packus_epi16(low, high));
#else
  for (int k = 0; k < 4; k++) {
    bytes4 bytes = __builtin_convertvector(sum[k] >> bits, bytes4);
    memcpy(out + 4 * k, &bytes, sizeof bytes);
  }
#endif
}

INLINE sums half_of(int bits) {
  int32_t half = 1 << (bits - 1);
  return (sums){half, half, half, half};
}

/* One result of one row: with a half, to be shifted. */
INLINE sums sum_neighbours(const struct triangle_pair *weights, int pairs, int bits, const uint8_t *pixel) {
  sums sum = half_of(bits);
  for (int pair = 0; pair < pairs; pair++)
    sum += multiply_pairs(neighbours(pixel + 6 * (ptrdiff_t)pair), spread(&weights[pair]));
  return sum;
}

static void right_plain(const struct triangle *triangle, int first, int step, int count,
                        const uint8_t *const rows[TRIANGLE_ROWS], int16_t *const out[TRIANGLE_ROWS / 2]) {
  int bits = triangle->bits;
  for (int x = 0, i = first; x < count; x++, i += step) {
    const struct triangle_pair *weights = triangle->weights + (ptrdiff_t)i * triangle->most_pairs;
    ptrdiff_t at = 3 * (ptrdiff_t)triangle->first[i];
    int pairs = triangle->pairs[i];
    for (int k = 0; k < TRIANGLE_ROWS / 2; k++) {
      sums upper = sum_neighbours(weights, pairs, bits, rows[2 * k] + at) >> bits;
      sums lower = sum_neighbours(weights, pairs, bits, rows[2 * k + 1] + at) >> bits;
      sums both = upper | lower << 16;
      memcpy(out[k] + 6 * (ptrdiff_t)x, &both, sizeof both);
    }
  }
}

/* Sixteen columns from `j` on. */
INLINE void sum_columns(const struct triangle_pair *weights, int pairs, int bits, const int16_t *const *rows, size_t j,
                        uint8_t *out) {
  sums sum[4] = {half_of(bits), half_of(bits), half_of(bits), half_of(bits)};
  for (int pair = 0; pair < pairs; pair++) {
    words weight = spread(&weights[pair]), values[4];
    memcpy(values, rows[pair] + 2 * j, sizeof values);
    for (int k = 0; k < 4; k++)
      sum[k] += multiply_pairs(values[k], weight);
  }
  store_sums(sum, bits, out);
}

static void down_plain(const struct triangle *triangle, int i, const int16_t *const *rows, size_t values,
                       uint8_t *out) {
  const struct triangle_pair *weights = triangle->weights + (ptrdiff_t)i * triangle->most_pairs;
  int pairs = triangle->pairs[i], bits = triangle->bits;
  uint8_t last[16];
  size_t j = 0;
  for (; j + sizeof last <= values; j += sizeof last)
    sum_columns(weights, pairs, bits, rows, j, out + j);
  if (j < values) {
    sum_columns(weights, pairs, bits, rows, j, last);
    memcpy(out + j, last, values - j);
  }
}

const struct triangle_filters triangle_filters_plain = {right_plain, down_plain};

/* ---------------------------------------------------------------- sums, AVX2 */

#ifdef __SSE2__
#define AVX2 __attribute__((target("avx2")))
#define AVX2_INLINE static inline __attribute__((always_inline, target("avx2")))

/* A sum is cut to FRACTION bits behind the point, which makes it a number of 15 bits; the instruction that multiplies
 * such numbers by 2^-FRACTION rounds.  Halves go up, as in the plain sums: what was cut off does not matter. */
#define FRACTION 7
AVX2_INLINE __m256i rounded(__m256i numbers) {
  return _mm256_mulhrs_epi16(numbers, _mm256_set1_epi16(1 << (15 - FRACTION)));
}

/* Two neighbours' weights in all lanes. */
AVX2_INLINE __m256i spread_wide(const struct triangle_pair *pair) {
  int32_t both;
  memcpy(&both, pair, sizeof both);
  return _mm256_set1_epi32(both);
}

/* Five pixels of two rows, one row in each half. */
AVX2_INLINE __m256i load_two(const uint8_t *upper, const uint8_t *lower) {
  __m256i pixels = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)upper));
  return _mm256_inserti128_si256(pixels, _mm_loadu_si128((const __m128i *)lower), 1);
}

/* The first two pixels of each half, or the next two, side by side: red, green, blue, nothing. */
AVX2_INLINE __m256i pair_pixels(__m256i pixels, bool next) {
  const __m128i first = _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
  const __m128i second = _mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
  return _mm256_shuffle_epi8(pixels, _mm256_broadcastsi128_si256(next ? second : first));
}

/* A result of rows 0 and 2, and of rows 1 and 3. */
struct four_sums {
  __m256i even, odd;
};

/* Two pairs of weights, which one load of each row serves. */
AVX2_INLINE struct four_sums sum_two_pairs(const struct triangle_pair *weights,
                                           const uint8_t *const rows[TRIANGLE_ROWS], ptrdiff_t at) {
  __m256i even = load_two(rows[0] + at, rows[2] + at), odd = load_two(rows[1] + at, rows[3] + at);
  __m256i first = spread_wide(&weights[0]), second = spread_wide(&weights[1]);
  return (struct four_sums){_mm256_add_epi32(_mm256_madd_epi16(pair_pixels(even, false), first),
                                             _mm256_madd_epi16(pair_pixels(even, true), second)),
                            _mm256_add_epi32(_mm256_madd_epi16(pair_pixels(odd, false), first),
                                             _mm256_madd_epi16(pair_pixels(odd, true), second))};
}

/* All pairs of weights; the last may be alone. */
AVX2_INLINE struct four_sums sum_pairs(const struct triangle_pair *weights, int pairs,
                                       const uint8_t *const rows[TRIANGLE_ROWS], ptrdiff_t at) {
  struct four_sums sum = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  int pair = 0;
  for (; pair + 2 <= pairs; pair += 2, at += 12) {
    struct four_sums two = sum_two_pairs(&weights[pair], rows, at);
    sum.even = _mm256_add_epi32(sum.even, two.even);
    sum.odd = _mm256_add_epi32(sum.odd, two.odd);
  }
  if (pair < pairs) {
    __m256i weight = spread_wide(&weights[pair]);
    __m256i even = pair_pixels(load_two(rows[0] + at, rows[2] + at), false);
    __m256i odd = pair_pixels(load_two(rows[1] + at, rows[3] + at), false);
    sum.even = _mm256_add_epi32(sum.even, _mm256_madd_epi16(even, weight));
    sum.odd = _mm256_add_epi32(sum.odd, _mm256_madd_epi16(odd, weight));
  }
  return sum;
}

/* Even and odd rows beside each other. */
AVX2_INLINE void store_pixel(struct four_sums sum, int bits, int16_t *upper, int16_t *lower) {
  __m256i even = _mm256_srl_epi32(sum.even, _mm_cvtsi32_si128(bits - FRACTION));
  __m256i odd = _mm256_sll_epi32(sum.odd, _mm_cvtsi32_si128(16 + FRACTION - bits));
  __m256i both = rounded(_mm256_blend_epi16(even, odd, 0xaa));
  _mm_storeu_si128((__m128i *)upper, _mm256_castsi256_si128(both));
  _mm_storeu_si128((__m128i *)lower, _mm256_extracti128_si256(both, 1));
}

/* So many pairs of each result, of which the last may weigh nothing; 0 = as many as it has. */
AVX2_INLINE void filter_right(const struct triangle *triangle, int pairs, int first, int step, int count,
                              const uint8_t *const rows[TRIANGLE_ROWS], int16_t *upper, int16_t *lower) {
  for (int x = 0, i = first; x < count; x++, i += step, upper += 6, lower += 6) {
    const struct triangle_pair *weights = triangle->weights + (ptrdiff_t)i * triangle->most_pairs;
    int own_pairs = pairs > 0 ? pairs : triangle->pairs[i];
    struct four_sums sum = sum_pairs(weights, own_pairs, rows, 3 * (ptrdiff_t)triangle->first[i]);
    store_pixel(sum, triangle->bits, upper, lower);
  }
}

AVX2 static void right_avx2(const struct triangle *triangle, int first, int step, int count,
                            const uint8_t *const rows[TRIANGLE_ROWS], int16_t *const out[TRIANGLE_ROWS / 2]) {
  const struct triangle own = *triangle; /* copies, which no store can change */
  const uint8_t *const from[TRIANGLE_ROWS] = {rows[0], rows[1], rows[2], rows[3]};
  if (own.most_pairs == 2) /* known numbers: no loop */
    filter_right(&own, 2, first, step, count, from, out[0], out[1]);
  else if (own.most_pairs == 3)
    filter_right(&own, 3, first, step, count, from, out[0], out[1]);
  else
    filter_right(&own, 0, first, step, count, from, out[0], out[1]);
}

/* 32 columns from `j` on. */
AVX2_INLINE __m256i sum_columns_wide(const struct triangle_pair *weights, int pairs, int bits,
                                     const int16_t *const *rows, size_t j) {
  __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
  for (int pair = 0; pair < pairs; pair++) {
    __m256i weight = spread_wide(&weights[pair]);
    const __m256i *values = (const __m256i *)(rows[pair] + 2 * j);
    for (int k = 0; k < 4; k++)
      sum[k] = _mm256_add_epi32(sum[k], _mm256_madd_epi16(_mm256_loadu_si256(values + k), weight));
  }
  for (int k = 0; k < 4; k++)
    sum[k] = _mm256_srl_epi32(sum[k], _mm_cvtsi32_si128(bits - FRACTION));
  __m256i bytes =
      _mm256_packus_epi16(rounded(_mm256_packs_epi32(sum[0], sum[1])), rounded(_mm256_packs_epi32(sum[2], sum[3])));
  return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)); /* packed in halves */
}

AVX2_INLINE void filter_down(const struct triangle_pair *weights, int pairs, int bits, const int16_t *const *rows,
                             size_t values, uint8_t *out) {
  size_t j = 0;
  for (; j + 32 <= values; j += 32)
    _mm256_storeu_si256((__m256i *)(out + j), sum_columns_wide(weights, pairs, bits, rows, j));
  if (j < values) {
    __m256i last = sum_columns_wide(weights, pairs, bits, rows, j);
    memcpy(out + j, &last, values - j);
  }
}

AVX2 static void down_avx2(const struct triangle *triangle, int i, const int16_t *const *rows, size_t values,
                           uint8_t *out) {
  const struct triangle_pair *weights = triangle->weights + (ptrdiff_t)i * triangle->most_pairs;
  int pairs = triangle->pairs[i], bits = triangle->bits;
  if (pairs == 2) { /* a moderate change: known numbers stay in registers */
    const struct triangle_pair two[] = {weights[0], weights[1]};
    const int16_t *const both[] = {rows[0], rows[1]};
    filter_down(two, 2, bits, both, values, out);
  } else {
    filter_down(weights, pairs, bits, rows, values, out);
  }
}

static const struct triangle_filters filters_avx2 = {right_avx2, down_avx2};
#endif

const struct triangle_filters *triangle_filters(void) {
#ifdef __SSE2__
  if (__builtin_cpu_supports("avx2"))
    return &filters_avx2;
#endif
  return &triangle_filters_plain;
}
