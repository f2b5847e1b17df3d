/* Windows along bins of labels. */
#include "loss/label_window.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct label_window window_of(enum label_kernel kernel, int size, double sigma, enum window_scale scale) {
  struct label_window window;
  cr_assert(eq(int, label_window_make(kernel, size, sigma, scale, &window), STATUS_OK), "%s", status_message());
  return window;
}

Test(label_window, has_its_maximum_or_its_sum_at_one) {
  static const int sizes[] = {1, 3, 5, 9, 31, LABEL_WINDOW_MOST};
  static const double sigmas[] = {0.1, 0.5, 2, 300};
  for (int kernel = LABEL_GAUSSIAN; kernel <= LABEL_LAPLACE; kernel++)
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
      for (size_t j = 0; j < sizeof sigmas / sizeof *sigmas; j++) {
        struct label_window most = window_of((enum label_kernel)kernel, sizes[i], sigmas[j], WINDOW_BY_MAXIMUM);
        struct label_window sum = window_of((enum label_kernel)kernel, sizes[i], sigmas[j], WINDOW_BY_SUM);
        double maximum = 0, total = 0;
        for (int b = 0; b < sizes[i]; b++) {
          maximum = fmax(maximum, most.value[b]);
          total += sum.value[b];
          cr_expect(eq(dbl, most.value[b], most.value[sizes[i] - 1 - b]), "kernel %d, size %d, sigma %g: bin %d",
                    kernel, sizes[i], sigmas[j], b);
        }
        cr_expect(eq(dbl, maximum, 1));
        /* Each value is rounded to float32 by half a unit, 2^-24 of itself at most. */
        cr_expect(epsilon_eq(dbl, total, 1, 1.0 / (1 << 24)), "kernel %d, size %d, sigma %g: %.17g", kernel, sizes[i],
                  sigmas[j], total);
      }
}

Test(label_window, folds_a_gaussian_that_is_wider_than_it) {
  struct label_window window = window_of(LABEL_GAUSSIAN, 5, 2, WINDOW_BY_MAXIMUM);
  double folded[5] = {0};
  for (int o = -2; o <= 2; o++)
    for (int n = -4; n <= 4; n++)
      if (abs(o + 5 * n) <= 8)
        folded[o + 2] += exp(-(o + 5 * n) * (o + 5 * n) / 8.0);
  for (int i = 0; i < 5; i++)
    cr_expect(epsilon_eq(dbl, window.value[i], folded[i] / folded[2], 1e-15));
}

Test(label_window, pads_as_it_is_told) {
  struct label_window window = {.size = 5, .value = {100, 10, 1, 10, 100}};
  static const double x[4] = {1, 2, 3, 4}, expected[3][4] = {{1 + 20 + 300, 2 + 10 + 30 + 400, 3 + 20 + 40 + 100, 234},
                                                             {1 + 10 + 20 + 200 + 300, 2 + 10 + 30 + 100 + 400,
                                                              3 + 20 + 40 + 100 + 400, 4 + 30 + 40 + 200 + 300},
                                                             {1 + 20 + 20 + 300 + 300, 2 + 10 + 30 + 200 + 400,
                                                              3 + 20 + 40 + 100 + 300, 4 + 30 + 30 + 200 + 200}};
  for (int padding = PADDING_ZERO; padding <= PADDING_MIRROR; padding++) {
    double y[4];
    label_window_convolve(&window, (enum label_padding)padding, 4, 1, x, y);
    for (int i = 0; i < 4; i++)
      cr_expect(eq(dbl, y[i], expected[padding][i]), "padding %d, bin %d: got %g, expected %g", padding, i, y[i],
                expected[padding][i]);
  }
}

Test(label_window, takes_every_column_by_itself) {
  struct label_window window = window_of(LABEL_LAPLACE, 5, 1, WINDOW_BY_SUM);
  double x[7 * 3], y[7 * 3], column[7], alone[7];
  for (int i = 0; i < 21; i++)
    x[i] = sin(i);
  for (int padding = PADDING_ZERO; padding <= PADDING_MIRROR; padding++) {
    label_window_convolve(&window, (enum label_padding)padding, 7, 3, x, y);
    for (int c = 0; c < 3; c++) {
      for (int b = 0; b < 7; b++)
        column[b] = x[b * 3 + c];
      label_window_convolve(&window, (enum label_padding)padding, 7, 1, column, alone);
      for (int b = 0; b < 7; b++)
        cr_expect(eq(dbl, y[b * 3 + c], alone[b]), "padding %d, column %d, bin %d", padding, c, b);
    }
  }
}

static void refuses(enum status status, const char *word) {
  cr_expect(eq(int, status, ERR_ARGUMENT));
  cr_expect(ne(ptr, strstr(status_message(), word), NULL), "\"%s\" lacks \"%s\"", status_message(), word);
}

Test(label_window, refuses_what_has_no_middle_or_no_width) {
  struct label_window window;
  enum label_kernel kernel;
  refuses(label_window_make(LABEL_TRIANG, 4, 2, WINDOW_BY_SUM, &window), "4 bins");
  refuses(label_window_make(LABEL_TRIANG, 0, 2, WINDOW_BY_SUM, &window), "0 bins");
  refuses(label_window_make(LABEL_TRIANG, LABEL_WINDOW_MOST + 2, 2, WINDOW_BY_SUM, &window), "1025 bins");
  refuses(label_window_make(LABEL_GAUSSIAN, 5, 0, WINDOW_BY_SUM, &window), "sigma of 0");
  refuses(label_window_make(LABEL_GAUSSIAN, 5, NAN, WINDOW_BY_SUM, &window), "nan");
  refuses(label_window_make(LABEL_GAUSSIAN, 5, INFINITY, WINDOW_BY_SUM, &window), "inf");
  refuses(label_kernel_by_name("box", &kernel), "\"box\"");
  window = window_of(LABEL_TRIANG, 5, 2, WINDOW_BY_SUM);
  cr_expect(eq(int, label_window_check(&window, 5), STATUS_OK));
  refuses(label_window_check(&window, 4), "4 bins");
}
