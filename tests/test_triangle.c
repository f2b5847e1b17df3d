/* The machine's sums of the triangle filter against the plain ones, to the bit, and weights against their definition. */
#include "dist/memory.h"
#include "io/triangle.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())

/* One pair of weights, two, three, many; enlarged; the same; odd; a single pixel. */
static const int lengths[][2] = {{256, 224}, {512, 224}, {128, 224}, {31, 31}, {53, 20}, {700, 9},
                                 {10, 33},   {1, 5},     {5, 1},     {1, 1},   {2, 3},   {9000, 2}};

static struct triangle make_triangle(const int length[2]) {
  struct triangle triangle;
  OK(triangle_create(length[1], &triangle));
  OK(triangle_weigh(&triangle, length[0]));
  return triangle;
}

/* Extremes are frequent: they show a sum that does not fit. */
static uint8_t *make_bytes(size_t count) {
  uint8_t *bytes = malloc(count);
  for (size_t i = 0; i < count; i++) {
    uint32_t random = (uint32_t)(i + 1) * 2654435761u >> 13;
    bytes[i] = random % 4 == 0 ? 255 : random % 4 == 1 ? 0 : (uint8_t)(random >> 3);
  }
  return bytes;
}

Test(triangle, weights_of_a_result_sum_to_one_and_lie_in_the_source) {
  for (size_t s = 0; s < sizeof lengths / sizeof *lengths; s++) {
    struct triangle triangle = make_triangle(lengths[s]);
    for (int i = 0; i < triangle.to; i++) {
      int sum = 0;
      for (int k = 0; k < triangle.pairs[i]; k++) {
        const struct triangle_pair *pair = &triangle.weights[i * triangle.most_pairs + k];
        sum += (pair->high[0] + pair->high[1]) * 2048 + pair->low[0] + pair->low[1];
      }
      /* Each weight is rounded by half a unit at most. */
      cr_assert(le(int, abs(sum - (1 << 22)), triangle.pairs[i]), "%d to %d: weights of %d sum to %d", lengths[s][0],
                lengths[s][1], i, sum);
      cr_assert(triangle.first[i] >= 0 && triangle.first[i] + 2 * triangle.pairs[i] - 1 <= lengths[s][0],
                "%d to %d: %d begins at %d", lengths[s][0], lengths[s][1], i, triangle.first[i]);
      cr_assert(triangle.pairs[i] >= 1 && triangle.pairs[i] <= triangle.most_pairs);
    }
    triangle_destroy(&triangle);
  }
  cr_assert(eq(sz, memory_in_use(), 0));
}

/* All results, or all but the first and last, from either end. */
Test(triangle, rows_are_filtered_alike_on_all_machines) {
  for (size_t s = 0; s < sizeof lengths / sizeof *lengths; s++)
    for (int variant = 0; variant < 4; variant++) {
      struct triangle triangle = make_triangle(lengths[s]);
      int cut = variant / 2, count = triangle.to - 2 * cut, step = variant % 2 == 0 ? 1 : -1;
      if (count < 1) {
        triangle_destroy(&triangle);
        continue;
      }
      size_t in_bytes = 3 * (size_t)triangle.from + TRIANGLE_SLACK, out_bytes = 3 * (size_t)count + TRIANGLE_SLACK;
      uint8_t *in = make_bytes(TRIANGLE_ROWS * in_bytes);
      uint8_t *expected = malloc(TRIANGLE_ROWS * out_bytes), *got = malloc(TRIANGLE_ROWS * out_bytes);
      const uint8_t *rows[TRIANGLE_ROWS];
      uint8_t *to[TRIANGLE_ROWS], *wanted[TRIANGLE_ROWS];
      for (size_t k = 0; k < TRIANGLE_ROWS; k++) {
        rows[k] = in + k * in_bytes;
        to[k] = got + k * out_bytes;
        wanted[k] = expected + k * out_bytes;
      }
      int first = step == 1 ? cut : triangle.to - 1 - cut;
      triangle_filters_plain.right(&triangle, first, step, count, rows, wanted);
      triangle_filters()->right(&triangle, first, step, count, rows, to);
      for (int k = 0; k < TRIANGLE_ROWS; k++)
        cr_assert(zero(int, memcmp(to[k], wanted[k], 3 * (size_t)count)), "%d to %d, row %d, step %d", lengths[s][0],
                  lengths[s][1], k, step);
      free(got);
      free(expected);
      free(in);
      triangle_destroy(&triangle);
    }
}

Test(triangle, columns_are_filtered_alike_on_all_machines) {
  static const size_t widths[] = {3, 31, 32, 33, 64, 95, 672};
  for (size_t s = 0; s < sizeof lengths / sizeof *lengths; s++)
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
      struct triangle triangle = make_triangle(lengths[s]);
      size_t bytes = widths[w], stride = bytes + TRIANGLE_SLACK, count = (size_t)triangle.from + 1;
      uint8_t *in = make_bytes(count * stride), *expected = malloc(bytes), *got = malloc(bytes);
      const uint8_t **rows = malloc(count * sizeof *rows);
      for (size_t k = 0; k < count; k++)
        rows[k] = in + k * stride;
      for (int i = 0; i < triangle.to; i++) {
        const struct triangle_pair *weights = triangle.weights + i * triangle.most_pairs;
        triangle_filters_plain.down(weights, triangle.pairs[i], rows + triangle.first[i], bytes, expected);
        triangle_filters()->down(weights, triangle.pairs[i], rows + triangle.first[i], bytes, got);
        cr_assert(zero(int, memcmp(got, expected, bytes)), "%d to %d, result %d, %zu bytes", lengths[s][0],
                  lengths[s][1], i, bytes);
      }
      free(rows);
      free(got);
      free(expected);
      free(in);
      triangle_destroy(&triangle);
    }
}
