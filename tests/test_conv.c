/* Convolutions of every backend table: their definition, their memory, their row counts. */
#include "dist/memory.h"
#include "model/ops.h"

#include "tests/buffers.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())

/* Odd and even channels, one and many, images that are not square, windows that overlap, touch, or skip. */
static const struct {
  int64_t rows;
  struct conv_shape shape;
} cases[] = {
    {1, {1, 1, 1, 1, 1, 1, 0, true}},      {2, {5, 4, 1, 3, 3, 1, 1, true}},     {3, {9, 7, 3, 17, 3, 2, 1, false}},
    {2, {11, 11, 3, 16, 7, 2, 3, false}},  {2, {6, 5, 17, 1, 1, 1, 0, true}},    {2, {8, 8, 32, 16, 1, 2, 0, false}},
    {3, {7, 6, 16, 32, 3, 1, 1, true}},    {1, {6, 6, 16, 16, 3, 2, 1, false}},  {4, {3, 5, 5, 7, 3, 1, 0, false}},
    {2, {4, 4, 2, 2, 2, 2, 0, false}},     {1, {9, 4, 2, 3, 3, 4, 2, true}},     {2, {2, 2, 4, 4, 5, 1, 2, false}},
    {5, {14, 14, 64, 48, 3, 1, 1, false}}, {2, {10, 3, 20, 130, 1, 1, 0, true}}, {3, {2, 2, 130, 128, 3, 1, 1, false}},
    {2, {4, 3, 128, 144, 3, 2, 1, false}},
};
#define CASES (sizeof cases / sizeof *cases)

struct trial {
  const struct ops *ops;
  struct conv_shape shape;
  int64_t rows, out_height, out_width;
  int64_t x_count, y_count, weight_count;
  struct conv *conv;
  struct workspace workspace;
  void *x, *weight, *bias, *y, *grad_y, *grad_x, *grad_weight, *grad_bias;
};

/* Results hold numbers before, to show that they are overwritten. */
static struct trial trial_create(const struct ops *ops, const struct conv_shape *s, int64_t rows) {
  struct trial t = {.ops = ops, .shape = *s, .rows = rows};
  t.out_height = spatial_out(s->height, s->kernel, s->stride, s->padding);
  t.out_width = spatial_out(s->width, s->kernel, s->stride, s->padding);
  t.x_count = rows * s->height * s->width * s->in;
  t.y_count = rows * t.out_height * t.out_width * s->out;
  t.weight_count = s->out * s->in * s->kernel * s->kernel;
  t.x = buffer_create(ops->dtype, t.x_count, 1);
  t.weight = buffer_create(ops->dtype, t.weight_count, 2);
  t.bias = buffer_create(ops->dtype, s->out, 3);
  t.y = buffer_create(ops->dtype, t.y_count, 4);
  t.grad_y = buffer_create(ops->dtype, t.y_count, 5);
  t.grad_x = buffer_create(ops->dtype, t.x_count, 6);
  t.grad_weight = buffer_create(ops->dtype, t.weight_count, 7);
  t.grad_bias = buffer_create(ops->dtype, s->out, 8);
  OK(ops->conv_create(s, &t.conv));
  return t;
}

static void trial_free(struct trial *t) {
  void *all[] = {t->x, t->weight, t->bias, t->y, t->grad_y, t->grad_x, t->grad_weight, t->grad_bias};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    free(all[i]);
  t->ops->conv_destroy(&t->conv);
  workspace_free(&t->workspace);
}

/* The first `rows` of the trial's images. */
static void trial_run(struct trial *t, int64_t rows) {
  const void *bias = t->shape.bias ? t->bias : NULL;
  void *grad_bias = t->shape.bias ? t->grad_bias : NULL;
  OK(t->ops->conv_forward(t->conv, &t->workspace, rows, t->x, t->weight, bias, t->y));
  OK(t->ops->conv_backward_data(t->conv, &t->workspace, rows, t->grad_y, t->weight, t->grad_x));
  OK(t->ops->conv_backward_weights(t->conv, &t->workspace, rows, t->x, t->grad_y, t->grad_weight, grad_bias));
}

/* What the definition says, and how many products each element is a sum of. */
struct expected {
  long double *y, *grad_x, *grad_weight, *grad_bias;
};

static struct expected expected_create(const struct trial *t) {
  struct expected e = {calloc((size_t)t->y_count + 1, sizeof *e.y), calloc((size_t)t->x_count + 1, sizeof *e.y),
                       calloc((size_t)t->weight_count, sizeof *e.y), calloc((size_t)t->shape.out, sizeof *e.y)};
  return e;
}

static void expected_free(struct expected *e) {
  free(e->y);
  free(e->grad_x);
  free(e->grad_weight);
  free(e->grad_bias);
}

/* All that one place of the output has to do with: y, and its share of the gradients. */
static void expect_place(const struct trial *t, int64_t row, int64_t oy, int64_t ox, int64_t o, struct expected *e) {
  const struct conv_shape *s = &t->shape;
  enum dtype dtype = t->ops->dtype;
  int64_t at = ((row * t->out_height + oy) * t->out_width + ox) * s->out + o;
  long double g = buffer_get(dtype, t->grad_y, at), sum = s->bias ? buffer_get(dtype, t->bias, o) : 0;
  for (int64_t ky = 0; ky < s->kernel; ky++)
    for (int64_t kx = 0; kx < s->kernel; kx++) {
      int64_t iy = oy * s->stride - s->padding + ky, ix = ox * s->stride - s->padding + kx;
      if (iy < 0 || iy >= s->height || ix < 0 || ix >= s->width)
        continue;
      for (int64_t i = 0; i < s->in; i++) {
        int64_t from = ((row * s->height + iy) * s->width + ix) * s->in + i;
        int64_t by = ((o * s->in + i) * s->kernel + ky) * s->kernel + kx;
        sum += (long double)buffer_get(dtype, t->x, from) * buffer_get(dtype, t->weight, by);
        e->grad_x[from] += g * buffer_get(dtype, t->weight, by);
        e->grad_weight[by] += g * buffer_get(dtype, t->x, from);
      }
    }
  e->y[at] = sum;
  e->grad_bias[o] += g;
}

static struct expected expect_all(const struct trial *t, int64_t rows) {
  struct expected e = expected_create(t);
  for (int64_t row = 0; row < rows; row++)
    for (int64_t oy = 0; oy < t->out_height; oy++)
      for (int64_t ox = 0; ox < t->out_width; ox++)
        for (int64_t o = 0; o < t->shape.out; o++)
          expect_place(t, row, oy, ox, o, &e);
  return e;
}

/* Factors are at most 1: a sum of n products, in any order, errs by at most n eps n / 2. */
static void compare(const struct trial *t, const char *what, int64_t count, const void *got,
                    const long double *expected, int64_t terms) {
  enum dtype dtype = t->ops->dtype;
  const struct conv_shape *s = &t->shape;
  double bound = (dtype == F32 ? 0x1p-23 : 0x1p-52) * (double)terms * ((double)terms / 2 + 1);
  for (int64_t i = 0; i < count; i++) {
    double error = fabs((double)((long double)buffer_get(dtype, got, i) - expected[i]));
    cr_assert(le(dbl, error, bound),
              "%s %s[%lld]: got %.17g, expected %.17Lg (%lld rows, %lld x %lld, %lld -> %lld, kernel %d, stride %d, "
              "padding %d)",
              dtype_name(dtype), what, (long long)i, buffer_get(dtype, got, i), expected[i], (long long)t->rows,
              (long long)s->height, (long long)s->width, (long long)s->in, (long long)s->out, s->kernel, s->stride,
              s->padding);
  }
}

static void trial_check(const struct trial *t, int64_t rows) {
  const struct conv_shape *s = &t->shape;
  struct expected e = expect_all(t, rows);
  int64_t area = (int64_t)s->kernel * s->kernel, places = rows * t->out_height * t->out_width;
  compare(t, "y", places * s->out, t->y, e.y, s->in * area + 1);
  compare(t, "grad_x", rows * s->height * s->width * s->in, t->grad_x, e.grad_x, s->out * area);
  compare(t, "grad_weight", t->weight_count, t->grad_weight, e.grad_weight, places);
  if (s->bias)
    compare(t, "grad_bias", s->out, t->grad_bias, e.grad_bias, places);
  expected_free(&e);
}

Test(conv, convolution_is_its_definition_for_odd_and_even_shapes) {
  for (enum dtype dtype = F32; dtype <= F64; dtype++)
    for (size_t i = 0; i < CASES; i++) {
      struct trial t = trial_create(ops_host(dtype), &cases[i].shape, cases[i].rows);
      trial_run(&t, t.rows);
      trial_check(&t, t.rows);
      trial_free(&t);
    }
}

Test(conv, no_rows_give_zero_gradients_of_weights) {
  static const struct conv_shape shape = {6, 5, 3, 4, 3, 1, 1, true};
  for (enum dtype dtype = F32; dtype <= F64; dtype++) {
    struct trial t = trial_create(ops_host(dtype), &shape, 2);
    trial_run(&t, 0);
    for (int64_t i = 0; i < t.weight_count; i++)
      cr_assert(eq(dbl, buffer_get(dtype, t.grad_weight, i), 0), "weight %lld", (long long)i);
    for (int64_t i = 0; i < shape.out; i++)
      cr_assert(eq(dbl, buffer_get(dtype, t.grad_bias, i), 0), "bias %lld", (long long)i);
    for (int64_t i = 0; i < t.y_count; i++) /* not even the rows that are there */
      cr_assert(eq(dbl, buffer_get(dtype, t.y, i), buffer_number(4, i)), "y %lld", (long long)i);
    trial_free(&t);
  }
}

Test(conv, many_numbers_of_rows_take_turns) {
  static const struct conv_shape shape = {5, 6, 16, 16, 3, 2, 1, true};
  for (enum dtype dtype = F32; dtype <= F64; dtype++) {
    struct trial t = trial_create(ops_host(dtype), &shape, 12);
    for (int turn = 0; turn < 2; turn++)
      for (int64_t rows = 12; rows >= 1; rows--) { /* more than are kept, and each one twice */
        trial_run(&t, rows);
        trial_check(&t, rows);
        trial_run(&t, 7);
        trial_check(&t, 7);
      }
    trial_free(&t);
  }
}

Test(conv, memory_is_taken_in_the_first_step_only_and_given_back) {
  static const struct conv_shape shape = {8, 8, 16, 24, 3, 1, 1, false};
  size_t before = memory_in_use();
  for (enum dtype dtype = F32; dtype <= F64; dtype++) {
    struct trial t = trial_create(ops_host(dtype), &shape, 4);
    trial_run(&t, 4);
    size_t first = memory_in_use();
    trial_run(&t, 4);
    trial_run(&t, 4);
    cr_assert(eq(sz, memory_in_use(), first), "%s", dtype_name(dtype));
    trial_free(&t);
    cr_assert(eq(sz, memory_in_use(), before), "%s", dtype_name(dtype));
    cr_assert(eq(ptr, t.conv, NULL));
    t.ops->conv_destroy(&t.conv); /* nothing */
  }
}

Test(conv, workspace_grows_and_never_shrinks) {
  struct workspace workspace = {0};
  OK(workspace_reserve(&workspace, 0));
  OK(workspace_reserve(&workspace, 1000));
  memset(workspace.data, 1, 1000);
  void *data = workspace.data;
  OK(workspace_reserve(&workspace, 10));
  cr_assert(eq(ptr, workspace.data, data));
  cr_assert(eq(sz, workspace.bytes, 1000));
  cr_assert(eq(int, workspace_reserve(&workspace, SIZE_MAX / 2), ERR_MEMORY));
  cr_assert(eq(sz, workspace.bytes, 0), "what is not there has no size");
  workspace_free(&workspace);
  workspace_free(&workspace);
}

Test(conv, window_that_never_fits_is_refused_with_the_shape) {
  static const struct conv_shape shape = {3, 3, 1, 1, 7, 1, 0, false};
  struct trial t = trial_create(ops_host(F32), &shape, 2);
  cr_assert(eq(int, t.ops->conv_forward(t.conv, &t.workspace, 2, t.x, t.weight, NULL, t.y), ERR_BUG));
  cr_assert(ne(ptr, strstr(status_message(), "2 images 3 x 3"), NULL), "%s", status_message());
  trial_free(&t);
}

Test(conv, nan_goes_through_all_three_products) {
  static const struct conv_shape shape = {4, 4, 16, 16, 3, 1, 1, false};
  for (enum dtype dtype = F32; dtype <= F64; dtype++) {
    struct trial t = trial_create(ops_host(dtype), &shape, 2);
    buffer_set(dtype, t.x, 0, NAN);
    buffer_set(dtype, t.grad_y, 0, NAN);
    trial_run(&t, 2);
    cr_assert(isnan(buffer_get(dtype, t.y, 0)));
    cr_assert(isfinite(buffer_get(dtype, t.y, t.y_count - 1)), "the other image has none");
    cr_assert(isnan(buffer_get(dtype, t.grad_x, 0)));
    cr_assert(isnan(buffer_get(dtype, t.grad_weight, 4)), "the middle of the kernel sees the corner");
    trial_free(&t);
  }
}

/* --- the same bits ------------------------------------------------------------------------------------------ */

static void expect_same_bits(const struct trial *a, const struct trial *b, const char *when) {
  size_t size = dtype_size(a->ops->dtype);
  cr_assert(zero(int, memcmp(a->y, b->y, (size_t)a->y_count * size)), "y, %s", when);
  cr_assert(zero(int, memcmp(a->grad_x, b->grad_x, (size_t)a->x_count * size)), "grad_x, %s", when);
  cr_assert(zero(int, memcmp(a->grad_weight, b->grad_weight, (size_t)a->weight_count * size)), "grad_weight, %s", when);
  cr_assert(zero(int, memcmp(a->grad_bias, b->grad_bias, (size_t)a->shape.out * size)), "grad_bias, %s", when);
}

static const struct conv_shape shared_shape = {14, 13, 32, 48, 3, 1, 1, true};

Test(conv, float64_does_not_depend_on_the_number_of_threads) {
  omp_set_num_threads(1);
  struct trial one = trial_create(ops_host(F64), &shared_shape, 5);
  trial_run(&one, 5);
  for (int threads = 2; threads <= 3; threads++) {
    omp_set_num_threads(threads);
    struct trial several = trial_create(ops_host(F64), &shared_shape, 5);
    trial_run(&several, 5);
    expect_same_bits(&one, &several, "other threads");
    trial_free(&several);
  }
  trial_free(&one);
}

Test(conv, float64_row_does_not_depend_on_the_other_rows) {
  struct trial all = trial_create(ops_host(F64), &shared_shape, 5);
  trial_run(&all, 5);
  int64_t x_row = all.x_count / 5, y_row = all.y_count / 5;
  struct trial one = trial_create(ops_host(F64), &shared_shape, 1);
  memcpy(one.x, (double *)all.x + 3 * x_row, (size_t)x_row * sizeof(double));
  memcpy(one.grad_y, (double *)all.grad_y + 3 * y_row, (size_t)y_row * sizeof(double));
  trial_run(&one, 1);
  cr_assert(zero(int, memcmp(one.y, (double *)all.y + 3 * y_row, (size_t)y_row * sizeof(double))));
  cr_assert(zero(int, memcmp(one.grad_x, (double *)all.grad_x + 3 * x_row, (size_t)x_row * sizeof(double))));
  trial_free(&one);
  trial_free(&all);
}

Test(conv, same_shape_and_threads_give_the_same_bits) {
  for (enum dtype dtype = F32; dtype <= F64; dtype++) {
    struct trial first = trial_create(ops_host(dtype), &shared_shape, 5);
    trial_run(&first, 5);
    for (int again = 0; again < 3; again++) {
      struct trial second = trial_create(ops_host(dtype), &shared_shape, 5);
      trial_run(&second, again); /* other row counts before leave no trace */
      trial_run(&second, 5);
      expect_same_bits(&first, &second, dtype_name(dtype));
      trial_free(&second);
    }
    trial_free(&first);
  }
}
