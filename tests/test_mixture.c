/* Mixtures: principal axes, densities, fits that find what samples were drawn from. */
#include "loss/mixture_density.h"

#include "dist/memory.h"
#include "dist/random.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())

/* A symmetric matrix with positive variances: A A^T + I / 4. */
static void random_covariance(uint64_t seed, int n, double *covariance) {
  double a[64];
  for (int i = 0; i < n * n; i++)
    a[i] = random_normal(random_key(seed, RANDOM_TEST, 0), (uint64_t)i, 0);
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++) {
      covariance[i * n + j] = i == j ? 0.25 : 0;
      for (int k = 0; k < n; k++)
        covariance[i * n + j] += a[i * n + k] * a[j * n + k];
    }
}

Test(mixture, axes_and_variances_are_those_of_the_covariance) {
  for (int n = 1; n <= MIXTURE_MOST_DIMENSIONS; n++) {
    struct mixture mixture = {.components = 1, .dimensions = n};
    double covariance[64], mean[8] = {0};
    random_covariance((uint64_t)n, n, covariance);
    mixture_set(&mixture, 0, 1, mean, covariance);
    for (int i = 0; i < n; i++)
      for (int j = 0; j < n; j++) {
        double back = 0, dot = 0;
        for (int axis = 0; axis < n; axis++) {
          back += mixture.axes[0][axis][i] * mixture.variance[0][axis] * mixture.axes[0][axis][j];
          dot += mixture.axes[0][i][axis] * mixture.axes[0][j][axis];
        }
        cr_expect(le(dbl, fabs(back - covariance[i * n + j]), 1e-13), "%d dimensions", n);
        cr_expect(le(dbl, fabs(dot - (i == j)), 1e-14), "%d dimensions", n);
      }
  }
}

/* Of two dimensions, by the formulas for a 2 x 2 matrix. */
Test(mixture, densities_are_normal_ones_with_the_noise_added) {
  struct mixture mixture = {.components = 2, .dimensions = 2};
  struct mixture_density density;
  const double covariance[] = {2, 0.6, 0.6, 0.5}, mean[] = {1, -2}, x[] = {0.3, 1.1}, added = 0.7;
  mixture_set(&mixture, 0, 0.25, (double[]){0, 0}, (double[]){1, 0, 0, 1});
  mixture_set(&mixture, 1, 0.75, mean, covariance);
  mixture_density_at(&mixture, added, &density);
  double a = 2.7, b = 0.6, d = 1.2, det = a * d - b * b, u = x[0] - mean[0], w = x[1] - mean[1], scaled[2];
  double expected = log(0.75) - log(det) / 2 - (d * u * u - 2 * b * u * w + a * w * w) / det / 2;
  cr_expect(le(dbl, fabs(mixture_density_log(&density, 1, x, scaled) - expected), 1e-14));
  cr_expect(le(dbl, fabs(scaled[0] - (d * u - b * w) / det), 1e-14));
  cr_expect(le(dbl, fabs(scaled[1] - (a * w - b * u) / det), 1e-14));
  cr_expect(le(dbl, fabs(density.trace[1] - (a + d) / det), 1e-14));
}

/* ---- fits ------------------------------------------------------------------------------------ */

#define SAMPLES 4000

/* Two clouds in three dimensions: a third around (5, 0, -2), the others around 0 and longer in the first direction. */
static double *draw_clouds(void) {
  double *x = malloc(SAMPLES * 3 * sizeof *x);
  struct random_key key = random_key(8, RANDOM_TEST, 1);
  for (int i = 0; i < SAMPLES; i++) {
    const double *mean = i % 3 == 0 ? (const double[]){5, 0, -2} : (const double[]){0, 0, 0};
    double first = random_normal(key, (uint64_t)i, 0);
    x[3 * i] = mean[0] + (i % 3 == 0 ? 0.5 : 1.5) * first;
    x[3 * i + 1] = mean[1] + 0.5 * random_normal(key, (uint64_t)i, 1) + (i % 3 == 0 ? 0 : 0.8 * first);
    x[3 * i + 2] = mean[2] + 0.5 * random_normal(key, (uint64_t)i, 2);
  }
  return x;
}

Test(mixture, a_fit_finds_the_clouds_that_samples_were_drawn_from, .timeout = 60) {
  double *x = draw_clouds(), value;
  struct mixture mixture;
  OK(mixture_fit(SAMPLES, 3, x, 2, 1, &mixture, &value));
  int small = mixture.weight[0] < mixture.weight[1] ? 0 : 1, large = 1 - small;
  /* Standard errors: 0.5 / sqrt(1300) = 0.014 and 1.5 / sqrt(2700) = 0.03 of a mean, twice that of a variance. */
  cr_expect(le(dbl, fabs(mixture.weight[small] - 1.0 / 3), 0.01));
  cr_expect(le(dbl, fabs(mixture.mean[small][0] - 5), 0.06));
  cr_expect(le(dbl, fabs(mixture.mean[small][2] + 2), 0.06));
  cr_expect(le(dbl, fabs(mixture.mean[large][0]), 0.12));
  double covariance = 0;
  for (int axis = 0; axis < 3; axis++)
    covariance += mixture.axes[large][axis][0] * mixture.axes[large][axis][1] * mixture.variance[large][axis];
  cr_expect(le(dbl, fabs(covariance - 1.5 * 0.8), 0.15), "%g", covariance);
  free(x);
}

/* Threads, and the order of the samples, do not change a bit; another seed may. */
Test(mixture, a_fit_is_a_function_of_samples_and_seed, .timeout = 60) {
  double *x = draw_clouds(), value[3];
  struct mixture *mixture = malloc(3 * sizeof *mixture);
  memset(mixture, 0, 3 * sizeof *mixture);
  omp_set_num_threads(1);
  OK(mixture_fit(SAMPLES, 3, x, 5, 1, &mixture[0], &value[0]));
  omp_set_num_threads(3);
  OK(mixture_fit(SAMPLES, 3, x, 5, 1, &mixture[1], &value[1]));
  for (int i = 0; i < SAMPLES / 2; i++)
    for (int d = 0; d < 3; d++) {
      double kept = x[3 * i + d];
      x[3 * i + d] = x[3 * (SAMPLES - 1 - i) + d];
      x[3 * (SAMPLES - 1 - i) + d] = kept;
    }
  OK(mixture_fit(SAMPLES, 3, x, 5, 1, &mixture[2], &value[2]));
  for (int i = 1; i < 3; i++) {
    cr_expect(eq(int, memcmp(&mixture[0], &mixture[i], sizeof *mixture), 0));
    cr_expect(eq(dbl, value[0], value[i]));
  }
  free(mixture);
  free(x);
}

/* As many components as distinct samples: each has one, and the floor keeps its variance. */
Test(mixture, components_of_one_sample_keep_the_floor) {
  const double x[] = {1, 5, 1, 9, 5, 1};
  struct mixture mixture;
  OK(mixture_fit(6, 1, x, 3, 4, &mixture, NULL));
  for (int k = 0; k < 3; k++) {
    cr_expect(mixture.mean[k][0] == 1 || mixture.mean[k][0] == 5 || mixture.mean[k][0] == 9);
    cr_expect(le(dbl,
                 fabs(mixture.weight[k] - (mixture.mean[k][0] == 1   ? 3
                                           : mixture.mean[k][0] == 5 ? 2
                                                                     : 1) /
                                              6.0),
                 1e-15));
    cr_expect(le(dbl, fabs(mixture.variance[k][0] - MIXTURE_FLOOR), 1e-20));
  }
}

static void refused(int count, int dimensions, int components, const char *sentence) {
  static const double x[100];
  struct mixture mixture;
  cr_expect(eq(int, mixture_fit(count, dimensions, x, components, 0, &mixture, NULL), ERR_ARGUMENT));
  cr_expect(eq(str, (char *)status_message(), (char *)sentence));
}

Test(mixture, what_cannot_be_fitted_is_refused) {
  refused(10, 1, 0, "a mixture has 1 to 64 components, not 0");
  refused(100, 1, 65, "a mixture has 1 to 64 components, not 65");
  refused(10, 9, 2, "a mixture is fitted to labels of 1 to 8 components, not 9");
  refused(10, 1, 2,
          "a mixture of 2 components needs as many distinct labels, and there are 1; ask for fewer components");
  refused(0, 1, 1,
          "a mixture of 1 components needs as many distinct labels, and there are 0; ask for fewer components");
  cr_expect(eq(sz, memory_in_use(), 0));
}
