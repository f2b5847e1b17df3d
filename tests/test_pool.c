/* Pooling of every backend table against its definition. */
#include "model/ops.h"

#include "tests/buffers.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <float.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())

static const struct {
  int64_t rows;
  struct pool_shape shape;
} cases[] = {{1, {1, 1, 1, 1, 1, 1, 0}},   {2, {9, 8, 3, 3, 3, 2, 1}},      {3, {7, 7, 17, 7, 7, 1, 0}},
             {2, {12, 5, 64, 2, 2, 2, 0}}, {1, {6, 11, 70, 2, 3, 1, 1}},    {4, {5, 5, 16, 2, 2, 3, 0}},
             {0, {4, 4, 8, 3, 3, 2, 1}},   {2, {16, 16, 130, 16, 16, 1, 0}}};
#define CASES (sizeof cases / sizeof *cases)

struct trial {
  const struct ops *ops;
  struct pool_shape shape;
  int64_t rows, out_height, out_width, x_count, y_count;
  void *x, *y, *grad_y, *grad_x;
  uint8_t *chosen;
};

/* Values on a coarse grid: ties are frequent. */
static struct trial trial_create(enum dtype dtype, const struct pool_shape *s, int64_t rows) {
  struct trial t = {.ops = ops_host(dtype), .shape = *s, .rows = rows};
  t.out_height = spatial_out(s->height, s->kernel_height, s->stride, s->padding);
  t.out_width = spatial_out(s->width, s->kernel_width, s->stride, s->padding);
  t.x_count = rows * s->height * s->width * s->channels;
  t.y_count = rows * t.out_height * t.out_width * s->channels;
  t.x = buffer_create(dtype, t.x_count, 1);
  for (int64_t i = 0; i < t.x_count; i++)
    buffer_set(dtype, t.x, i, floor(4 * buffer_number(1, i)) / 4 - 1); /* below 0: padding must not win */
  t.y = buffer_create(dtype, t.y_count, 2);
  t.grad_y = buffer_create(dtype, t.y_count, 3);
  t.grad_x = buffer_create(dtype, t.x_count, 4);
  t.chosen = malloc((size_t)t.y_count + 1);
  memset(t.chosen, 255, (size_t)t.y_count + 1);
  return t;
}

static void trial_free(struct trial *t) {
  void *all[] = {t->x, t->y, t->grad_y, t->grad_x, t->chosen};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    free(all[i]);
}

/* Element `place` of x that element `element` of the window at output index `i` is; -1 in the padding. */
static int64_t place_of(const struct trial *t, int64_t i, int64_t element) {
  const struct pool_shape *s = &t->shape;
  int64_t c = i % s->channels, ox = i / s->channels % t->out_width, oy = i / s->channels / t->out_width % t->out_height;
  int64_t row = i / s->channels / t->out_width / t->out_height;
  int64_t y = oy * s->stride - s->padding + element / s->kernel_width;
  int64_t x = ox * s->stride - s->padding + element % s->kernel_width;
  bool inside = y >= 0 && y < s->height && x >= 0 && x < s->width;
  return inside ? ((row * s->height + y) * s->width + x) * s->channels + c : -1;
}

static int64_t area(const struct trial *t) {
  return (int64_t)t->shape.kernel_height * t->shape.kernel_width;
}

static const char *name(const struct trial *t) {
  static char text[200];
  const struct pool_shape *s = &t->shape;
  snprintf(text, sizeof text, "%s %lld x [%lld, %lld, %lld], kernel %d x %d, stride %d, padding %d",
           dtype_name(t->ops->dtype), (long long)t->rows, (long long)s->height, (long long)s->width,
           (long long)s->channels, s->kernel_height, s->kernel_width, s->stride, s->padding);
  return text;
}

/* --- maximum ------------------------------------------------------------------------------------------------ */

static void check_max(const struct trial *t) {
  enum dtype dtype = t->ops->dtype;
  double *grad = calloc((size_t)t->x_count + 1, sizeof *grad);
  for (int64_t i = 0; i < t->y_count; i++) {
    int64_t best = -1;
    for (int64_t element = 0; element < area(t); element++) {
      int64_t place = place_of(t, i, element), so_far = best < 0 ? -1 : place_of(t, i, best);
      double value = place < 0 ? 0 : buffer_get(dtype, t->x, place),
             top = best < 0 ? 0 : buffer_get(dtype, t->x, so_far);
      if (place >= 0 && (best < 0 || value > top || (isnan(value) && !isnan(top))))
        best = element;
    }
    cr_assert(eq(int, t->chosen[i], (int)best), "%s: output %lld", name(t), (long long)i);
    double expected = buffer_get(dtype, t->x, place_of(t, i, best)), got = buffer_get(dtype, t->y, i);
    cr_assert(got == expected || (isnan(got) && isnan(expected)), "%s: output %lld is %g, expected %g", name(t),
              (long long)i, got, expected);
    grad[place_of(t, i, best)] += buffer_get(dtype, t->grad_y, i);
  }
  for (int64_t i = 0; i < t->x_count; i++) { /* at most 9 overlapping windows, added in some order */
    double bound = 9 * (dtype == F32 ? FLT_EPSILON : DBL_EPSILON) * 9;
    cr_assert(le(dbl, fabs(buffer_get(dtype, t->grad_x, i) - grad[i]), bound), "%s: gradient %lld is %g, expected %g",
              name(t), (long long)i, buffer_get(dtype, t->grad_x, i), grad[i]);
  }
  free(grad);
}

static void run_max(struct trial *t) {
  OK(t->ops->max_pool_forward(&t->shape, t->rows, t->x, t->y, t->chosen));
  OK(t->ops->max_pool_backward(&t->shape, t->rows, t->grad_y, t->chosen, t->grad_x));
}

Test(pool, maximum_is_the_first_largest_element_of_each_window) {
  for (enum dtype dtype = F32; dtype <= F64; dtype++)
    for (size_t i = 0; i < CASES; i++) {
      struct trial t = trial_create(dtype, &cases[i].shape, cases[i].rows);
      run_max(&t);
      check_max(&t);
      trial_free(&t);
    }
}

Test(pool, nan_and_infinities_are_chosen_by_the_same_rule) {
  for (enum dtype dtype = F32; dtype <= F64; dtype++)
    for (size_t i = 0; i < CASES; i++) {
      struct trial t = trial_create(dtype, &cases[i].shape, cases[i].rows);
      for (int64_t k = 0; k < t.x_count; k++)
        if (k % 5 < 3) /* windows with one, with several, with nothing else */
          buffer_set(dtype, t.x, k, k % 5 == 0 ? NAN : k % 5 == 1 ? -INFINITY : INFINITY);
      run_max(&t);
      check_max(&t);
      trial_free(&t);
    }
}

Test(pool, gradient_that_is_nan_goes_to_the_chosen_element_only) {
  static const struct pool_shape shape = {4, 4, 3, 3, 3, 2, 1};
  for (enum dtype dtype = F32; dtype <= F64; dtype++) {
    struct trial t = trial_create(dtype, &shape, 1);
    buffer_set(dtype, t.grad_y, 0, NAN);
    run_max(&t);
    int64_t place = place_of(&t, 0, t.chosen[0]);
    for (int64_t i = 0; i < t.x_count; i++)
      cr_assert(eq(int, isnan(buffer_get(dtype, t.grad_x, i)) != 0, i == place), "element %lld", (long long)i);
    trial_free(&t);
  }
}

/* --- average ------------------------------------------------------------------------------------------------ */

static void check_average(const struct trial *t) {
  enum dtype dtype = t->ops->dtype;
  double eps = dtype == F32 ? FLT_EPSILON : DBL_EPSILON;
  long double *grad = calloc((size_t)t->x_count + 1, sizeof *grad);
  for (int64_t i = 0; i < t->y_count; i++) {
    long double sum = 0;
    for (int64_t element = 0; element < area(t); element++) {
      int64_t place = place_of(t, i, element);
      sum += place < 0 ? 0 : (long double)buffer_get(dtype, t->x, place);
      if (place >= 0)
        grad[place] += (long double)buffer_get(dtype, t->grad_y, i) / area(t);
    }
    double expected = (double)(sum / area(t)), got = buffer_get(dtype, t->y, i);
    double bound = eps + 2 * DBL_EPSILON * (double)area(t); /* values up to 2, one rounding, sums in double */
    cr_assert(le(dbl, fabs(got - expected), bound), "%s: output %lld is %.17g, expected %.17g", name(t), (long long)i,
              got, expected);
  }
  for (int64_t i = 0; i < t->x_count; i++) {
    double got = buffer_get(dtype, t->grad_x, i), bound = 9 * eps * 9; /* nine windows meet at most */
    cr_assert(le(dbl, fabs(got - (double)grad[i]), bound), "%s: gradient %lld is %.17g, expected %.17Lg", name(t),
              (long long)i, got, grad[i]);
  }
  free(grad);
}

static void run_average(struct trial *t) {
  OK(t->ops->average_pool_forward(&t->shape, t->rows, t->x, t->y));
  OK(t->ops->average_pool_backward(&t->shape, t->rows, t->grad_y, t->grad_x));
}

Test(pool, average_is_the_mean_of_each_window) {
  for (enum dtype dtype = F32; dtype <= F64; dtype++)
    for (size_t i = 0; i < CASES; i++) {
      struct pool_shape shape = cases[i].shape;
      shape.padding = 0; /* averages take none */
      struct trial t = trial_create(dtype, &shape, cases[i].rows);
      run_average(&t);
      check_average(&t);
      trial_free(&t);
    }
}

/* --- threads ------------------------------------------------------------------------------------------------ */

static void expect_same(const struct trial *a, const struct trial *b, const char *what) {
  size_t size = dtype_size(a->ops->dtype);
  cr_assert(zero(int, memcmp(a->y, b->y, (size_t)a->y_count * size)), "%s: y of %s", name(a), what);
  cr_assert(zero(int, memcmp(a->grad_x, b->grad_x, (size_t)a->x_count * size)), "%s: gradient of %s", name(a), what);
  cr_assert(zero(int, memcmp(a->chosen, b->chosen, (size_t)a->y_count)), "%s: choice of %s", name(a), what);
}

Test(pool, results_do_not_depend_on_the_number_of_threads) {
  static const struct pool_shape shape = {13, 14, 70, 3, 3, 2, 0};
  for (enum dtype dtype = F32; dtype <= F64; dtype++)
    for (int threads = 2; threads <= 3; threads++) {
      struct trial one = trial_create(dtype, &shape, 5), several = trial_create(dtype, &shape, 5);
      omp_set_num_threads(1);
      run_max(&one);
      omp_set_num_threads(threads);
      run_max(&several);
      expect_same(&one, &several, "the maximum");
      omp_set_num_threads(1);
      run_average(&one);
      omp_set_num_threads(threads);
      run_average(&several);
      expect_same(&one, &several, "the average");
      trial_free(&one);
      trial_free(&several);
    }
}
