/* Calibration, likelihood and sparsification of predicted uncertainties. */
#include "loss/uncertainty.h"

#include "dist/memory.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>

static double error_of(enum dtype dtype, const void *pred, const void *target, int64_t i) {
  return dtype_get(dtype, pred, i) - dtype_get(dtype, target, i);
}

/* --- calibration -------------------------------------------------------------------------------------------- */

enum { BINS = 10 };

static double deviation_of(enum dtype dtype, const void *deviation, int64_t i) {
  double value = dtype_get(dtype, deviation, i), most = exp(10);
  return value > most ? most : value;
}

double uncertainty_calibration(enum dtype dtype, int64_t count, const void *pred, const void *target,
                               enum dtype deviation_dtype, const void *deviation) {
  double low = INFINITY, high = -INFINITY, errors[BINS] = {0}, deviations[BINS] = {0}, sum = 0;
  for (int64_t i = 0; i < count; i++) {
    double value = deviation_of(deviation_dtype, deviation, i);
    if (value != value)
      return NAN;
    low = fmin(low, value);
    high = fmax(high, value);
  }
  for (int64_t i = 0; i < count; i++) {
    double value = deviation_of(deviation_dtype, deviation, i);
    int bin = BINS - 1;
    while (bin > 0 && value < low + (high - low) * bin / BINS)
      bin--;
    errors[bin] += fabs(error_of(dtype, pred, target, i));
    deviations[bin] += value;
  }
  for (int bin = 0; bin < BINS; bin++)
    sum += fabs(errors[bin] - deviations[bin]); /* the bin's count cancels */
  return sum / (double)count;
}

double uncertainty_gaussian_nll(enum dtype dtype, int64_t count, const void *pred, const void *target,
                                enum dtype variance_dtype, const void *variance) {
  double sum = 0;
  for (int64_t i = 0; i < count; i++) {
    double error = error_of(dtype, pred, target, i), value = dtype_get(variance_dtype, variance, i);
    sum += log(value) + error * error / value;
  }
  return sum / (double)count / 2 + log(2 * acos(-1)) / 2;
}

/* --- sparsification ----------------------------------------------------------------------------------------- */

struct element {
  double key, error;
  int64_t place;
};

static int compare(const void *left, const void *right) {
  const struct element *a = left, *b = right;
  if (a->key != b->key)
    return a->key > b->key ? -1 : 1;
  return a->place < b->place ? -1 : 1;
}

/* curve[i]: mean of the errors from element i + 1 on, which are added up from the last. */
static void make_curve(int64_t count, struct element *elements, double *curve) {
  double sum = 0;
  qsort(elements, (size_t)count, sizeof *elements, compare);
  for (int64_t i = count - 1; i > 0; i--) {
    sum += elements[i].error;
    curve[i - 1] = sum / (double)(count - i);
  }
}

/* Trapezoids over [0, 1]; 3 elements at least. */
static double area_between(int64_t points, const double *a, const double *b) {
  double sum = 0, most = 0;
  for (int64_t i = 0; i < points; i++) {
    double apart = fabs(a[i] - b[i]);
    most = fmax(most, apart);
    sum += i == 0 || i == points - 1 ? apart / 2 : apart;
  }
  return most > 0 ? sum / most / (double)(points - 1) : 0;
}

enum status uncertainty_sparsification(enum dtype dtype, int64_t count, const void *pred, const void *target,
                                       enum dtype variance_dtype, const void *variance, double *by_variance,
                                       double *by_error, double *ause) {
  struct element *elements = NULL;
  double *curves = NULL;
  enum status status;
  size_t points = count > 0 ? (size_t)count - 1 : 0;
  TRY_GOTO(memory_alloc((size_t)count * sizeof *elements, (void **)&elements), out);
  TRY_GOTO(memory_alloc(2 * points * sizeof *curves, (void **)&curves), out);
  for (int pass = 0; pass < 2; pass++) {
    double *own = pass == 0 ? by_variance : by_error, *curve = curves + (size_t)pass * points;
    for (int64_t i = 0; i < count; i++) {
      double error = fabs(error_of(dtype, pred, target, i)), value = dtype_get(variance_dtype, variance, i);
      REQUIRE_GOTO(error == error && value == value, out, ERR_NUMERIC,
                   "element %lld has the error %g and the variance %g, and no place in an order; look at predictions "
                   "and labels",
                   (long long)i, error, value);
      elements[i] = (struct element){pass == 0 ? value : error, error, i};
    }
    make_curve(count, elements, curve);
    for (size_t i = 0; own != NULL && i < points; i++)
      own[i] = curve[i];
  }
  *ause = count < 3 ? NAN : area_between((int64_t)points, curves, curves + points);
out:
  memory_free((void **)&curves);
  memory_free((void **)&elements);
  return status;
}
