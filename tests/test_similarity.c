/* Mean similarities of features in bins of labels, against the plain mean over all pairs. */
#include "launch/similarity.h"

#include "dist/memory.h"
#include "dist/random.h"
#include "io_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>

TestSuite(similarity, .init = io_files_begin, .fini = io_files_end, .timeout = 30);

enum { ROWS = 90, WIDTH = 7, MOST = 12 };

struct example {
  double labels[ROWS];
  float features[ROWS][WIDTH];
  struct label_axis axis;
};

/* One bin with a single sample, one without any, and a row that has no direction. */
static void make_example(struct example *example) {
  struct random_key key = random_key(9, RANDOM_TEST, 0);
  for (uint64_t i = 0; i < ROWS; i++) {
    example->labels[i] =
        floor(8 * pow(random_uniform(key, i, 0), 2)) + (i == 0 ? 11 - floor(8 * pow(random_uniform(key, 0, 0), 2)) : 0);
    for (uint64_t f = 0; f < WIDTH; f++)
      example->features[i][f] = i == 40 ? 0 : (float)random_normal(key, i, 1 + f);
  }
  cr_assert(eq(int, label_axis_cover(1, MOST, ROWS, example->labels, 1, &example->axis), STATUS_OK));
}

static double cosine(const struct example *example, int i, int j) {
  double product = 0, one = 0, other = 0;
  for (int f = 0; f < WIDTH; f++) {
    double a = example->features[i][f], b = example->features[j][f];
    product += a * b;
    one += a * a;
    other += b * b;
  }
  return product / sqrt(one * other);
}

/* The mean over pairs i < j of rows with a direction whose bins are a and b, in either order; or whose bins are `a`
 * apart, when b is -1. */
static double plain_mean(const struct example *example, int a, int b, double *pairs) {
  double sum = 0;
  *pairs = 0;
  for (int i = 0; i < ROWS; i++)
    for (int j = i + 1; j < ROWS; j++) {
      int one = label_axis_index(&example->axis, example->labels[i]);
      int other = label_axis_index(&example->axis, example->labels[j]);
      bool counts = b < 0 ? abs(one - other) == a : (one == a && other == b) || (one == b && other == a);
      if (!counts || i == 40 || j == 40)
        continue;
      sum += cosine(example, i, j);
      ++*pairs;
    }
  return sum / *pairs;
}

static void same(double got, double pairs, double expected, double expected_pairs, int a, int b) {
  cr_assert(eq(dbl, pairs, expected_pairs), "pairs of %d, %d", a, b);
  /* float64 sums of fewer than 100 unit rows: 100 x 2^-53, with room */
  cr_assert(expected_pairs == 0 ? isnan(got) : fabs(got - expected) < 1e-13, "%d, %d: %.17g, not %.17g", a, b, got,
            expected);
}

FILE_TEST(similarity, is_the_mean_over_all_pairs_of_two_bins) {
  struct example example;
  struct similarity *similarity;
  double values[MOST * MOST], pairs[MOST * MOST], by_distance[MOST], pairs_at[MOST], expected_pairs;
  make_example(&example);
  int bins = example.axis.count;
  cr_assert(eq(int, similarity_create(&example.axis, WIDTH, &similarity), STATUS_OK));
  for (int i = 0; i < ROWS; i++)
    similarity_add(similarity, example.labels[i], F32, example.features[i]);
  cr_assert(eq(dbl, similarity->without, 1));
  similarity_map(similarity, values, pairs);
  similarity_by_distance(similarity, by_distance, pairs_at);
  bool single = false, none = false;
  for (int a = 0; a < bins; a++)
    for (int b = 0; b < bins; b++) {
      double expected = plain_mean(&example, a, b, &expected_pairs);
      same(values[a * bins + b], pairs[a * bins + b], expected, expected_pairs, a, b);
      single |= a == b && expected_pairs == 0;
      none |= expected_pairs == 0 && a != b;
    }
  cr_assert(single && none, "the example lacks the empty cases");
  for (int distance = 0; distance < bins; distance++) {
    double expected = plain_mean(&example, distance, -1, &expected_pairs);
    same(by_distance[distance], pairs_at[distance], expected, expected_pairs, distance, -1);
  }
  similarity_destroy(&similarity);
}
