/* The triangle filter's sums against the same in double, within a bound that follows from the weights' bits; the
 * machine's sums against the plain ones, to the bit; and weights against their definition. */
#include "dist/memory.h"
#include "io/triangle.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())

/* One pair of weights, two, three, many; enlarged; the same; odd; a single pixel. */
static const int lengths[][2] = {{256, 224}, {512, 224}, {128, 224}, {31, 31}, {53, 20}, {700, 9},
                                 {10, 33},   {1, 5},     {5, 1},     {1, 1},   {2, 3},   {3, 2},
                                 {9000, 2},  {4001, 3},  {64, 16},   {63, 64}};
#define LENGTHS (sizeof lengths / sizeof *lengths)

static struct triangle make_triangle(const int length[2], int grid) {
  struct triangle triangle;
  OK(triangle_create(length[1], grid, &triangle));
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

/* The filter's definition: result i of `to` from `from` values that lie `step` apart. */
static double filter_exactly(const uint8_t *in, int step, int from, int to, int i) {
  double scale = (double)from / to, half_width = scale > 1 ? scale : 1, sum = 0, weights = 0;
  for (int k = 0; k < from; k++) {
    double weight = 1 - fabs(k + 0.5 - (i + 0.5) * scale) / half_width;
    sum += weight > 0 ? weight * in[(ptrdiff_t)k * step] : 0;
    weights += weight > 0 ? weight : 0;
  }
  return sum / weights;
}

/* Half a level, and what weights that are each off by half a unit, and their remainder, can add: see triangle.h. */
static double tolerance(const struct triangle *triangle, int i) {
  return 0.5 + ldexp(255.0 * 2 * triangle->pairs[i], -triangle->bits - 1) + 1e-9;
}

static int16_t weight_of(const struct triangle *triangle, int i, int k) {
  return triangle->weights[i * triangle->most_pairs + k / 2].weight[k % 2];
}

/* --- weights ------------------------------------------------------------------------------------------------ */

static void check_weights(const struct triangle *triangle, int i, int16_t *largest) {
  int sum = 0;
  for (int k = 0; k < 2 * triangle->most_pairs; k++) {
    int16_t weight = weight_of(triangle, i, k);
    sum += weight;
    *largest = weight > *largest ? weight : *largest;
    cr_assert(weight >= 0);
    cr_assert(weight == 0 || (k < 2 * triangle->pairs[i] && triangle->first[i] + k < triangle->from),
              "%d to %d: a weight of %d lies outside", triangle->from, triangle->to, i);
  }
  cr_assert(eq(int, sum, 1 << triangle->bits), "%d to %d: result %d", triangle->from, triangle->to, i);
  cr_assert(triangle->first[i] >= 0 && triangle->first[i] % triangle->grid == 0);
  cr_assert(triangle->first[i] + 2 * triangle->pairs[i] - 1 <= triangle->from, "%d to %d: %d begins at %d",
            triangle->from, triangle->to, i, triangle->first[i]);
  cr_assert(triangle->pairs[i] >= 1 && triangle->pairs[i] <= triangle->most_pairs);
}

Test(triangle, weights_of_a_result_sum_to_one_and_lie_in_the_source) {
  for (size_t s = 0; s < LENGTHS; s++)
    for (int grid = 1; grid <= 2; grid++) {
      struct triangle triangle = make_triangle(lengths[s], grid);
      int16_t largest = 0;
      for (int i = 0; i < triangle.to; i++)
        check_weights(&triangle, i, &largest);
      /* With one bit more the largest would not fit, but for the remainder that it may hold. */
      cr_assert(triangle.bits == 23 || 2 * largest + triangle.most_pairs > INT16_MAX, "%d to %d: %d of %d bits",
                lengths[s][0], lengths[s][1], largest, triangle.bits);
      cr_assert(triangle.bits >= 14 && triangle.bits <= 23);
      triangle_destroy(&triangle);
    }
  cr_assert(eq(sz, memory_in_use(), 0));
}

/* Half a unit off; the largest of a result takes the remainder of the others. */
Test(triangle, weights_are_the_triangles_rounded) {
  for (size_t s = 0; s < LENGTHS; s++) {
    if (lengths[s][0] > 1000) /* the sums' bound is enough there: this looks at all pixels for each pixel */
      continue;
    struct triangle triangle = make_triangle(lengths[s], 1);
    uint8_t *one = calloc((size_t)triangle.from, 1);
    for (int i = 0; i < triangle.to; i++)
      for (int pixel = 0, remainders = 0; pixel < triangle.from; pixel++) {
        int k = pixel - triangle.first[i];
        double weight = k < 0 || k >= 2 * triangle.pairs[i] ? 0 : weight_of(&triangle, i, k);
        one[pixel] = 1;
        double off = fabs(weight - ldexp(filter_exactly(one, 1, triangle.from, triangle.to, i), triangle.bits));
        one[pixel] = 0;
        remainders += off > 0.5 + 1e-6;
        cr_assert(le(int, remainders, 1), "%d to %d: result %d", lengths[s][0], lengths[s][1], i);
        cr_assert(le(dbl, off, 0.5 + triangle.pairs[i]), "%d to %d: result %d, pixel %d", lengths[s][0], lengths[s][1],
                  i, pixel);
      }
    free(one);
    triangle_destroy(&triangle);
  }
}

/* --- rows --------------------------------------------------------------------------------------------------- */

/* Four rows, and room for them filtered. */
struct rows {
  size_t in_bytes, out_values;
  uint8_t *in;
  int16_t *out;
};

static struct rows make_rows(const struct triangle *triangle) {
  struct rows rows = {.in_bytes = 3 * (size_t)triangle->from + TRIANGLE_SLACK,
                      .out_values = 6 * (size_t)triangle->to + TRIANGLE_PAIR_SLACK / 2};
  rows.in = make_bytes(TRIANGLE_ROWS * rows.in_bytes);
  rows.out = calloc(TRIANGLE_ROWS / 2 * rows.out_values, sizeof *rows.out);
  return rows;
}

static void free_rows(struct rows *rows) {
  free(rows->out);
  free(rows->in);
}

static void filter_rows(const struct triangle_filters *filters, const struct triangle *triangle, int first, int step,
                        int count, struct rows *rows) {
  const uint8_t *in[TRIANGLE_ROWS];
  int16_t *out[] = {rows->out, rows->out + rows->out_values};
  for (size_t k = 0; k < TRIANGLE_ROWS; k++)
    in[k] = rows->in + k * rows->in_bytes;
  filters->right(triangle, first, step, count, in, out);
}

/* Value j of a row. */
static int filtered(const struct rows *rows, int row, int j) {
  return rows->out[(size_t)(row / 2) * rows->out_values + 2 * (size_t)j + (size_t)(row % 2)];
}

Test(triangle, rows_are_the_filter_within_the_bound_of_its_weights) {
  for (size_t s = 0; s < LENGTHS; s++) {
    struct triangle triangle = make_triangle(lengths[s], 1);
    struct rows rows = make_rows(&triangle);
    filter_rows(triangle_filters(), &triangle, 0, 1, triangle.to, &rows);
    for (int row = 0; row < TRIANGLE_ROWS; row++)
      for (int j = 0; j < 3 * triangle.to; j++) {
        const uint8_t *in = rows.in + (size_t)row * rows.in_bytes + j % 3;
        double exact = filter_exactly(in, 3, triangle.from, triangle.to, j / 3);
        cr_assert(le(dbl, fabs(filtered(&rows, row, j) - exact), tolerance(&triangle, j / 3)),
                  "%d to %d, row %d: value %d is %d, not %g", lengths[s][0], lengths[s][1], row, j,
                  filtered(&rows, row, j), exact);
      }
    free_rows(&rows);
    triangle_destroy(&triangle);
  }
}

/* All results, or all but the first and last, from either end. */
Test(triangle, rows_are_filtered_alike_on_all_machines) {
  for (size_t s = 0; s < LENGTHS; s++)
    for (int variant = 0; variant < 4; variant++) {
      struct triangle triangle = make_triangle(lengths[s], 1);
      int cut = variant / 2, count = triangle.to - 2 * cut, step = variant % 2 == 0 ? 1 : -1;
      struct rows expected = make_rows(&triangle), got = make_rows(&triangle);
      int first = step == 1 ? cut : triangle.to - 1 - cut;
      if (count > 0) {
        filter_rows(&triangle_filters_plain, &triangle, first, step, count, &expected);
        filter_rows(triangle_filters(), &triangle, first, step, count, &got);
      }
      for (int row = 0; row < TRIANGLE_ROWS; row++)
        for (int j = 0; j < 3 * count; j++)
          cr_assert(eq(int, filtered(&got, row, j), filtered(&expected, row, j)), "%d to %d, row %d, value %d, step %d",
                    lengths[s][0], lengths[s][1], row, j, step);
      free_rows(&got);
      free_rows(&expected);
      triangle_destroy(&triangle);
    }
}

/* --- columns ------------------------------------------------------------------------------------------------ */

/* As many rows as a length has, two and two beside each other, and a spare one that weighs nothing. */
struct columns {
  size_t values, stride;
  int16_t *in;
  const int16_t **pairs;
};

static struct columns make_columns(int from, size_t values) {
  size_t pairs = ((size_t)from + 1) / 2, stride = 2 * values + TRIANGLE_PAIR_SLACK / 2;
  struct columns columns = {values, stride, calloc(pairs * stride, sizeof *columns.in),
                            malloc(pairs * sizeof *columns.pairs)};
  uint8_t *bytes = make_bytes(2 * pairs * values);
  for (size_t pair = 0; pair < pairs; pair++) {
    columns.pairs[pair] = columns.in + pair * stride;
    for (size_t j = 0; j < 2 * values; j++)
      columns.in[pair * stride + j] = bytes[2 * pair * values + j];
  }
  free(bytes);
  return columns;
}

static void free_columns(struct columns *columns) {
  free(columns->pairs);
  free(columns->in);
}

/* Column j, densely. */
static uint8_t *column_of(const struct columns *columns, int from, size_t j) {
  uint8_t *column = malloc((size_t)from);
  for (int y = 0; y < from; y++)
    column[y] = (uint8_t)columns->pairs[y / 2][2 * j + (size_t)(y % 2)];
  return column;
}

Test(triangle, columns_are_the_filter_within_the_bound_of_its_weights) {
  enum { VALUES = 5 };
  for (size_t s = 0; s < LENGTHS; s++) {
    struct triangle triangle = make_triangle(lengths[s], 2);
    struct columns columns = make_columns(triangle.from, VALUES);
    for (size_t j = 0; j < VALUES; j++) {
      uint8_t *column = column_of(&columns, triangle.from, j), got[VALUES];
      for (int i = 0; i < triangle.to; i++) {
        double exact = filter_exactly(column, 1, triangle.from, triangle.to, i);
        triangle_filters()->down(&triangle, i, columns.pairs + triangle.first[i] / 2, VALUES, got);
        cr_assert(le(dbl, fabs(got[j] - exact), tolerance(&triangle, i)),
                  "%d to %d: result %d of column %zu is %d, not %g", lengths[s][0], lengths[s][1], i, j, got[j], exact);
      }
      free(column);
    }
    free_columns(&columns);
    triangle_destroy(&triangle);
  }
}

Test(triangle, columns_are_filtered_alike_on_all_machines) {
  static const size_t widths[] = {3, 15, 16, 31, 32, 33, 64, 95, 672};
  for (size_t s = 0; s < LENGTHS; s++)
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
      struct triangle triangle = make_triangle(lengths[s], 2);
      struct columns columns = make_columns(triangle.from, widths[w]);
      uint8_t *expected = malloc(widths[w]), *got = malloc(widths[w]); /* its end is the memory's end */
      for (int i = 0; i < triangle.to; i++) {
        const int16_t **pairs = columns.pairs + triangle.first[i] / 2;
        triangle_filters_plain.down(&triangle, i, pairs, widths[w], expected);
        triangle_filters()->down(&triangle, i, pairs, widths[w], got);
        cr_assert(zero(int, memcmp(got, expected, widths[w])), "%d to %d, result %d, %zu values", lengths[s][0],
                  lengths[s][1], i, widths[w]);
      }
      free(got);
      free(expected);
      free_columns(&columns);
      triangle_destroy(&triangle);
    }
}

/* Every level stays what it is, in both directions. */
Test(triangle, one_colour_stays_that_colour) {
  for (size_t s = 0; s < LENGTHS; s++)
    for (int level = 0; level <= 255; level += lengths[s][0] > 1000 ? 51 : 1) {
      struct triangle right = make_triangle(lengths[s], 1), down = make_triangle(lengths[s], 2);
      struct rows rows = make_rows(&right);
      memset(rows.in, level, TRIANGLE_ROWS * rows.in_bytes);
      filter_rows(triangle_filters(), &right, 0, 1, right.to, &rows);
      for (int j = 0; j < 3 * right.to; j++)
        cr_assert(eq(int, filtered(&rows, 3, j), level), "%d to %d: value %d", right.from, right.to, j);
      const int16_t **pairs = malloc((size_t)down.most_pairs * sizeof *pairs);
      for (int k = 0; k < down.most_pairs; k++)
        pairs[k] = rows.out;
      for (int i = 0; i < down.to; i++) {
        uint8_t got;
        triangle_filters()->down(&down, i, pairs, 1, &got);
        cr_assert(eq(int, got, level), "%d to %d: row %d", down.from, down.to, i);
      }
      free(pairs);
      free_rows(&rows);
      triangle_destroy(&down);
      triangle_destroy(&right);
    }
}
