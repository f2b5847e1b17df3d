/* Windows along bins of labels. */
#include "loss/label_window.h"

#include <math.h>
#include <string.h>

enum status label_kernel_by_name(const char *name, enum label_kernel *kernel) {
  static const char *const names[] = {"gaussian", "triang", "laplace"};
  for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
    if (strcmp(name, names[i]) == 0) {
      *kernel = (enum label_kernel)i;
      return STATUS_OK;
    }
  return fail(ERR_ARGUMENT, "there is no kernel \"%s\"; use gaussian, triang or laplace", name);
}

/* value [size], the middle at h. */
static void fold_gaussian(int size, double sigma, double *value) {
  int half = (size - 1) / 2, reach = (int)(4 * sigma + 0.5);
  memset(value, 0, (size_t)size * sizeof *value);
  for (int o = -reach; o <= reach; o++)
    value[((o + half) % size + size) % size] += exp(-0.5 * o * o / (sigma * sigma));
}

/* Folding adds up both sides in different orders: make them equal to the last bit. */
static void make_symmetric(int size, double *value) {
  for (int i = 0; i < size / 2; i++)
    value[size - 1 - i] = value[i];
}

static void normalise(enum window_scale scale, int size, double *value) {
  double sum = 0, maximum = value[size / 2];
  for (int i = 0; i < size; i++) {
    sum += value[i];
    maximum = fmax(maximum, value[i]);
  }
  for (int i = 0; i < size; i++)
    value[i] = scale == WINDOW_BY_SUM ? (double)(float)(value[i] / sum) : value[i] / maximum;
}

enum status label_window_make(enum label_kernel kernel, int size, double sigma, enum window_scale scale,
                              struct label_window *window) {
  REQUIRE(size >= 1 && size <= LABEL_WINDOW_MOST && size % 2 == 1, ERR_ARGUMENT,
          "a kernel of %d bins cannot be had: its size must be odd, so that it has a middle, and at most %d", size,
          LABEL_WINDOW_MOST);
  REQUIRE(sigma > 0 && sigma <= 1e6, ERR_ARGUMENT,
          "a kernel's sigma of %g bins makes no sense; use 2, or another "
          "value above 0 and at most 1e6",
          sigma);
  int half = (size - 1) / 2;
  double *value = window->value;
  window->size = size;
  if (kernel == LABEL_GAUSSIAN)
    fold_gaussian(size, sigma, value);
  for (int i = 0; kernel != LABEL_GAUSSIAN && i < size; i++) {
    int distance = i < half ? half - i : i - half;
    value[i] = kernel == LABEL_TRIANG ? (double)(half + 1 - distance) / (half + 1) : exp(-distance / sigma);
  }
  make_symmetric(size, value);
  normalise(scale, size, value);
  return STATUS_OK;
}

enum status label_window_check(const struct label_window *window, int64_t bins) {
  REQUIRE(window->size <= bins, ERR_ARGUMENT,
          "a kernel of %d bins is wider than the %lld bins of the labels; use a smaller one, or narrower bins",
          window->size, (long long)bins);
  return STATUS_OK;
}

/* Row `bin` of x [bins, columns], which may lie up to `bins` rows outside; NULL = zeros. */
static const double *padded_row(enum label_padding padding, int64_t bins, int64_t columns, const double *x,
                                int64_t bin) {
  int64_t edge = padding == PADDING_REFLECT; /* is the row at the edge repeated? */
  bool inside = bin >= 0 && bin < bins;
  if (!inside && padding == PADDING_ZERO)
    return NULL;
  if (!inside)
    bin = bin < 0 ? -bin - edge : 2 * (bins - 1) + edge - bin;
  return x + bin * columns;
}

void label_window_convolve(const struct label_window *window, enum label_padding padding, int64_t bins, int64_t columns,
                           const double *x, double *y) {
  int half = window->size / 2;
  for (int64_t bin = 0; bin < bins; bin++) {
    double *out = y + bin * columns;
    for (int64_t c = 0; c < columns; c++)
      out[c] = window->value[half] * x[bin * columns + c];
    for (int o = half; o >= 1; o--) {
      const double *below = padded_row(padding, bins, columns, x, bin - o);
      const double *above = padded_row(padding, bins, columns, x, bin + o);
      for (int64_t c = 0; c < columns; c++)
        out[c] += window->value[half - o] * ((below != NULL ? below[c] : 0) + (above != NULL ? above[c] : 0));
    }
  }
}
