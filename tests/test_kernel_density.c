/* Gaussian kernel density against plain sums. */
#include "loss/kernel_density.h"

#include "dist/log.h"
#include "dist/memory.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static struct kernel_density *density_of(int64_t n, const double *labels, double bandwidth) {
  struct kernel_density *density;
  cr_assert(eq(int, kernel_density_create(n, labels, bandwidth, &density), STATUS_OK), "%s", status_message());
  return density;
}

static double plain(int64_t n, const double *labels, double bandwidth, double x) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++)
    sum += exp(-0.5 * (x - labels[i]) * (x - labels[i]) / (bandwidth * bandwidth));
  return sum / ((double)n * bandwidth * sqrt(2 * M_PI));
}

/* Skewed, with a few far away. */
static void draw(int64_t n, double *labels) {
  srand48(7);
  for (int64_t i = 0; i < n; i++)
    labels[i] = -20 * log(1 - drand48()) + (i % 97 == 0 ? 1000 : 0);
}

Test(kernel_density, equals_the_plain_sum_wherever_it_is_asked) {
  enum { LABELS = 2000 };
  static const double bandwidths[] = {0.01, 0.5, 3, 500};
  double labels[LABELS];
  draw(LABELS, labels);
  for (size_t b = 0; b < sizeof bandwidths / sizeof *bandwidths; b++) {
    double h = bandwidths[b];
    struct kernel_density *density = density_of(LABELS, labels, h);
    for (int i = 0; i < LABELS; i++) { /* at labels, and up to 7 bandwidths from them */
      double x = labels[i] + h * (i % 8) * (i % 2 ? 1 : -1), expected = plain(LABELS, labels, h, x);
      /* |t u| <= 2.5: terms of alternating sign lose exp(5) of 26 roundings. */
      cr_expect(epsilon_eq(dbl, kernel_density_at(density, x) / expected, 1, 1e-12), "h = %g, x = %g", h, x);
    }
    kernel_density_destroy(&density);
  }
  cr_expect(eq(sz, memory_in_use(), 0));
}

Test(kernel_density, of_one_label_is_its_kernel) {
  struct kernel_density *density = density_of(1, &(double){3}, 2);
  cr_expect(epsilon_eq(dbl, kernel_density_at(density, 3), 1 / (2 * sqrt(2 * M_PI)), 1e-16));
  cr_expect(epsilon_eq(dbl, kernel_density_at(density, 7), exp(-2) / (2 * sqrt(2 * M_PI)), 1e-16));
  cr_expect(eq(dbl, kernel_density_at(density, 1000), 0));
  kernel_density_destroy(&density);
}

/* A plain sum over as many takes minutes. */
Test(kernel_density, takes_seconds_at_most_for_200000_labels_and_values) {
  enum { LABELS = 200000 };
  double *labels = malloc(LABELS * sizeof *labels), began = log_seconds(), sum = 0;
  draw(LABELS, labels);
  struct kernel_density *density = density_of(LABELS, labels, 1.8);
  for (int64_t i = 0; i < LABELS; i++)
    sum += kernel_density_at(density, labels[i]);
  double seconds = log_seconds() - began;
  cr_expect(lt(dbl, seconds, 20), "%.2f s", seconds);
  cr_expect(epsilon_eq(dbl, kernel_density_at(density, 11) / plain(LABELS, labels, 1.8, 11), 1, 1e-11));
  cr_expect(sum > 0);
  printf("200000 labels and values: %.2f s\n", seconds);
  kernel_density_destroy(&density);
  free(labels);
}

Test(kernel_density, refuses_what_has_none) {
  static const double labels[2] = {1, NAN};
  struct kernel_density *density;
  cr_expect(eq(int, kernel_density_create(0, labels, 1, &density), ERR_ARGUMENT));
  cr_expect(eq(int, kernel_density_create(1, labels, 0, &density), ERR_ARGUMENT));
  cr_expect(eq(int, kernel_density_create(2, labels, 1, &density), ERR_ARGUMENT));
  cr_expect(eq(str, (char *)status_message(), "label 1 is nan; a density is of finite labels"));
  cr_expect(eq(ptr, density, NULL));
}
