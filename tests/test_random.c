/* Known answers of Philox, moments, and permutations. */
#include "dist/random.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static struct random_key test_key(uint64_t index) {
  return random_key(20240607, RANDOM_TEST, index);
}

/* The vectors of Random123 (kat_vectors, "philox4x32 10"): counter words 0..3, key words 0..1, result words 0..3.
 * Words are in the publication's order; a holds counter words 0 and 1, b words 2 and 3, the lower word first. */
Test(random, bits_are_the_published_philox_4x32_10) {
  static const struct {
    uint32_t counter[4], key[2], expected[4];
  } vectors[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
    const uint32_t *counter = vectors[i].counter;
    struct random_key key = {{vectors[i].key[0], vectors[i].key[1]}};
    uint32_t bits[4];
    random_bits(key, (uint64_t)counter[1] << 32 | counter[0], (uint64_t)counter[3] << 32 | counter[2], bits);
    for (int word = 0; word < 4; word++)
      cr_expect(eq(u32, bits[word], vectors[i].expected[word]), "vector %zu word %d", i, word);
  }
}

/* Checkpoints and reruns rest on these: a change of how keys or draws are made changes every old run. */
Test(random, uniform_is_the_top_53_bits_of_the_first_two_words) {
  uint32_t bits[4];
  for (uint64_t a = 0; a < 100; a++) {
    random_bits(test_key(1), a, 7, bits);
    double expected = ldexp((double)bits[0], -32) + ldexp((double)(bits[1] >> 11), -53);
    cr_assert(eq(dbl, random_uniform(test_key(1), a, 7), expected), "position %d", (int)a);
  }
}

/* The same arithmetic in long double: what differs is a few roundings of values below 9. */
Test(random, normal_is_box_muller_of_one_draw) {
  uint32_t bits[4];
  for (uint64_t a = 0; a < 1000; a++) {
    random_bits(test_key(1), a, 7, bits);
    long double u = ldexpl((long double)(((uint64_t)bits[0] << 32 | bits[1]) >> 11), -53);
    long double v = ldexpl((long double)(((uint64_t)bits[2] << 32 | bits[3]) >> 11), -53);
    long double expected = sqrtl(-2 * log1pl(-u)) * cosl(2 * acosl(-1) * v);
    cr_assert(le(dbl, fabs((double)(random_normal(test_key(1), a, 7) - expected)), 1e-14), "position %d", (int)a);
  }
}

Test(random, draws_do_not_depend_on_the_order_they_are_asked_in) {
  enum { DRAWS = 200 };
  double uniform[DRAWS], normal[DRAWS];
  for (uint64_t i = 0; i < DRAWS; i++) {
    uniform[i] = random_uniform(test_key(2), i, i * i);
    normal[i] = random_normal(test_key(2), i, 3);
  }
  for (uint64_t i = DRAWS; i-- > 0;) {
    cr_assert(eq(dbl, random_normal(test_key(2), i, 3), normal[i]));
    random_permute(test_key(2), 1000, i);
    cr_assert(eq(dbl, random_uniform(test_key(2), i, i * i), uniform[i]));
  }
}

static int compare_u64(const void *left, const void *right) {
  uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
  return (a > b) - (a < b);
}

static size_t equal_neighbours(uint64_t *values, size_t count) {
  size_t equal = 0;
  qsort(values, count, sizeof *values, compare_u64);
  for (size_t i = 1; i < count; i++)
    equal += values[i] == values[i - 1];
  return equal;
}

/* 64-bit keys: among these 2058, chance makes two equal with probability 1e-13. */
Test(random, seeds_purposes_and_indices_give_different_keys) {
  enum { PURPOSES = 6, SEEDS = 7, INDICES = 49 };
  static uint64_t keys[PURPOSES * SEEDS * INDICES];
  static const uint64_t seeds[SEEDS] = {0, 1, 2, 1000, 0xffffffff, (uint64_t)1 << 32, UINT64_MAX};
  size_t count = 0;
  for (int purpose = RANDOM_SHUFFLE; purpose <= RANDOM_TEST; purpose++)
    for (int seed = 0; seed < SEEDS; seed++)
      for (uint64_t i = 0; i < INDICES; i++) {
        /* Low, and differing only above bit 31. */
        uint64_t index = i % 2 == 0 ? i : i << 32;
        struct random_key key = random_key(seeds[seed], (enum random_purpose)purpose, index);
        keys[count++] = (uint64_t)key.word[1] << 32 | key.word[0];
      }
  cr_assert(eq(sz, count, PURPOSES * SEEDS * INDICES));
  cr_assert(eq(sz, equal_neighbours(keys, count), 0));
}

/* All the draws below are fixed by the key: a bound of 5 standard deviations of the mean holds or fails for ever. */
enum { DRAWS = 1000000 };

static void expect_mean(const char *what, double sum, double mean, double variance) {
  double deviation = fabs(sum / DRAWS - mean), bound = 5 * sqrt(variance / DRAWS);
  cr_expect(le(dbl, deviation, bound), "%s: mean %.6f, expected %.6f", what, sum / DRAWS, mean);
}

/* Moments of U(0,1): E u = 1/2, E u^2 = 1/3, E u^3 = 1/4, E u^4 = 1/5; var u^k = 1/(2k+1) - 1/(k+1)^2. */
Test(random, uniform_has_the_moments_of_the_uniform_distribution) {
  double sum[5] = {0}, lag = 0, below = 0, previous = 0.5;
  for (uint64_t i = 0; i < DRAWS; i++) {
    double u = random_uniform(test_key(3), i % 1000, i / 1000);
    cr_assert(u >= 0 && u < 1, "draw %d is %.17g", (int)i, u);
    double power = 1;
    for (int k = 1; k <= 4; k++)
      sum[k] += power *= u;
    lag += (u - 0.5) * (previous - 0.5);
    below += u < 0.1;
    previous = u;
  }
  for (int k = 1; k <= 4; k++)
    expect_mean("power", sum[k], 1.0 / (k + 1), 1.0 / (2 * k + 1) - 1.0 / ((k + 1) * (k + 1)));
  expect_mean("product of neighbours", lag, 0, 1.0 / 144);
  expect_mean("share below 0.1", below, 0.1, 0.1 * 0.9);
}

/* Moments of N(0,1): 0, 1, 0, 3 with variances 1, 2, 15, 96; 4.55003 % lie beyond two deviations. */
Test(random, normal_has_the_moments_of_the_normal_distribution) {
  static const double mean[5] = {0, 0, 1, 0, 3}, variance[5] = {0, 1, 2, 15, 96};
  double sum[5] = {0}, beyond = 0, lag = 0, previous = 0;
  for (uint64_t i = 0; i < DRAWS; i++) {
    double z = random_normal(test_key(4), i / 1000, i % 1000);
    cr_assert(isfinite(z), "draw %d", (int)i);
    double power = 1;
    for (int k = 1; k <= 4; k++)
      sum[k] += power *= z;
    lag += z * previous;
    beyond += fabs(z) > 2;
    previous = z;
  }
  for (int k = 1; k <= 4; k++)
    expect_mean("power", sum[k], mean[k], variance[k]);
  expect_mean("product of neighbours", lag, 0, 1);
  expect_mean("share beyond 2", beyond, 0.0455003, 0.0455003 * 0.9544997);
}

Test(random, streams_of_two_purposes_are_uncorrelated) {
  struct random_key one = random_key(1, RANDOM_DROPOUT, 0), other = random_key(1, RANDOM_AUGMENT, 0);
  double product = 0;
  for (uint64_t i = 0; i < DRAWS; i++)
    product += (random_uniform(one, i, 0) - 0.5) * (random_uniform(other, i, 0) - 0.5);
  expect_mean("product", product, 0, 1.0 / 144);
}

/* ---- permutations ---- */

/* The whole table of one permutation; false, with the fault printed, when it is none. */
static bool is_permutation(struct random_key key, uint64_t n) {
  bool *seen = calloc(n, sizeof *seen), right = true;
  cr_assert(ne(ptr, seen, NULL));
  for (uint64_t position = 0; right && position < n; position++) {
    uint64_t value = random_permute(key, n, position);
    right = value < n && !seen[value];
    if (right)
      seen[value] = true;
    else
      cr_log_error("n %d: position %d gives %.0f, %s", (int)n, (int)position, (double)value,
                   value < n ? "a second time" : "beyond n");
  }
  free(seen);
  return right;
}

Test(random, permute_is_a_permutation_of_every_small_size) {
  for (uint64_t n = 1; n <= 300; n++)
    for (uint64_t index = 0; index < 3; index++)
      cr_assert(is_permutation(test_key(index), n), "n %d key %d", (int)n, (int)index);
}

/* Around powers of four the domain of the network grows by a factor of four. */
Test(random, permute_is_a_permutation_around_the_borders_of_its_domain) {
  static const uint64_t sizes[] = {1023, 1024, 1025, 4095, 4096, 4097, 65535, 65536, 65537, 262144, 262145, 1000003};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    cr_assert(is_permutation(test_key(5), sizes[i]), "n %d", (int)sizes[i]);
}

/* A map that loses information above 32 bits would make about ten of 300000 values equal.  One that leaves the upper
 * bits alone would keep neighbours together: the mean of value / n is 1/2, here too within 5 standard deviations. */
Test(random, permute_of_a_large_range_is_injective_and_spreads) {
  enum { SAMPLES = 300000 };
  static const uint64_t sizes[] = {((uint64_t)1 << 26) + 1, ((uint64_t)1 << 32) - 1, ((uint64_t)1 << 32) + 1,
                                   (uint64_t)1 << 62,       ((uint64_t)1 << 62) + 1, UINT64_MAX};
  uint64_t *values = malloc(SAMPLES * sizeof *values);
  cr_assert(ne(ptr, values, NULL));
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    double mean = 0;
    uint64_t stride = i % 2 == 0 ? 1 : sizes[i] / SAMPLES; /* the front, or spread over all */
    for (uint64_t sample = 0; sample < SAMPLES; sample++) {
      values[sample] = random_permute(test_key(6), sizes[i], sample * stride);
      cr_assert(values[sample] < sizes[i], "size %zu sample %d", i, (int)sample);
      mean += (double)values[sample] / (double)sizes[i] / SAMPLES;
    }
    cr_expect(le(dbl, fabs(mean - 0.5), 5 * sqrt(1.0 / 12 / SAMPLES)), "size %zu: mean %g n", i, mean);
    cr_assert(eq(sz, equal_neighbours(values, SAMPLES), 0), "size %zu", i);
  }
  free(values);
}

/* Two unrelated permutations agree at Poisson(1) places: more than 12 has probability 6e-11. */
Test(random, permute_differs_by_key_and_from_the_identity) {
  enum { N = 1000 };
  for (uint64_t index = 0; index < 50; index++) {
    int agree = 0, in_place = 0;
    for (uint64_t position = 0; position < N; position++) {
      uint64_t value = random_permute(test_key(index), N, position);
      agree += value == random_permute(test_key(index + 1), N, position);
      in_place += value == position;
    }
    cr_assert(le(int, agree, 12), "keys %d and %d", (int)index, (int)index + 1);
    cr_assert(le(int, in_place, 12), "key %d", (int)index);
  }
}

/* Each count is binomial(KEYS, 1/n); 5 standard deviations, and the keys are fixed. */
Test(random, permute_puts_every_element_everywhere_equally_often) {
  enum { KEYS = 20000, MOST = 20 };
  static const uint64_t sizes[] = {2, 3, 4, 5, 10, 16, 20};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    uint64_t n = sizes[i];
    int count[MOST][MOST] = {{0}};
    for (uint64_t index = 0; index < KEYS; index++)
      for (uint64_t position = 0; position < n; position++)
        count[position][random_permute(test_key(index), n, position)]++;
    double share = 1.0 / (double)n, bound = 5 * sqrt(KEYS * share * (1 - share));
    for (uint64_t position = 0; position < n; position++)
      for (uint64_t value = 0; value < n; value++)
        cr_expect(le(dbl, fabs(count[position][value] - KEYS * share), bound), "n %d: %d at %d in %d of %d keys",
                  (int)n, (int)value, (int)position, count[position][value], KEYS);
  }
}
