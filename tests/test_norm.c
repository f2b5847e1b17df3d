/* Batch normalisation of every backend table, part by part, against its formulas in long double. */
#include "model/ops.h"

#include "tests/buffers.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <float.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())

/* Around every cut: no row, one row, chunks of rows, tasks, parts; channels that fill vectors and that do not. */
static const struct {
  size_t count;
  int64_t channels;
} shapes[] = {{0, 3},     {1, 17},   {2, 1},    {63, 64},  {64, 5},    {65, 3},    {129, 512},
              {200, 513}, {49, 700}, {1000, 3}, {9000, 1}, {700, 600}, {8321, 17}, {3, 20000}};
#define SHAPES (sizeof shapes / sizeof *shapes)

static double eps(enum dtype dtype) {
  return dtype == F32 ? FLT_EPSILON : DBL_EPSILON;
}

/* --- statistics --------------------------------------------------------------------------------------------- */

struct moments {
  double mean, square; /* by two passes in long double */
};

static struct moments moments(enum dtype dtype, size_t count, int64_t channels, int64_t channel, const void *x) {
  long double mean = 0, square = 0;
  for (size_t i = 0; i < count; i++)
    mean += (long double)buffer_get(dtype, x, (int64_t)i * channels + channel);
  mean = count == 0 ? 0 : mean / (long double)count;
  for (size_t i = 0; i < count; i++) {
    long double difference = (long double)buffer_get(dtype, x, (int64_t)i * channels + channel) - mean;
    square += difference * difference;
  }
  return (struct moments){(double)mean, (double)square};
}

/* A mean errs by at most 64 additions of numbers up to `spread`; a sum of squares by 65 (what cancels) times 66
 * roundings, in REAL, and by the additions of a few hundred parts in double. */
static void check_statistics(enum dtype dtype, size_t count, int64_t channels, const void *x, double spread) {
  double *mean = malloc((size_t)channels * sizeof *mean), *square = malloc((size_t)channels * sizeof *square);
  for (int64_t c = 0; c < channels; c++)
    mean[c] = square[c] = NAN;
  OK(ops_host(dtype)->norm_statistics(count, channels, x, mean, square));
  for (int64_t c = 0; c < channels; c++) {
    struct moments expected = moments(dtype, count, channels, c, x);
    double mean_bound = 64 * eps(dtype) * spread + 4 * DBL_EPSILON * fabs(expected.mean);
    double bound = (65 * 66 * eps(dtype) + 300 * DBL_EPSILON) * expected.square;
    cr_assert(le(dbl, fabs(mean[c] - expected.mean), mean_bound), "%s [%zu, %lld] mean[%lld] = %.17g, expected %.17g",
              dtype_name(dtype), count, (long long)channels, (long long)c, mean[c], expected.mean);
    cr_assert(le(dbl, fabs(square[c] - expected.square), bound), "%s [%zu, %lld] square[%lld] = %.17g, expected %.17g",
              dtype_name(dtype), count, (long long)channels, (long long)c, square[c], expected.square);
  }
  free(mean);
  free(square);
}

Test(norm, statistics_are_mean_and_squares_about_it_for_every_shape) {
  for (enum dtype dtype = F32; dtype <= F64; dtype++)
    for (size_t i = 0; i < SHAPES; i++) {
      void *x = buffer_create(dtype, (int64_t)shapes[i].count * shapes[i].channels, 1);
      check_statistics(dtype, shapes[i].count, shapes[i].channels, x, 2);
      free(x);
    }
}

Test(norm, large_mean_costs_no_digits_of_the_variance) {
  enum { COUNT = 5000 };
  for (enum dtype dtype = F32; dtype <= F64; dtype++) {
    void *x = buffer_create(dtype, 2 * COUNT, 1);
    for (int64_t i = 0; i < COUNT; i++) /* 1000 and multiples of 1/4096 up to 1/16: exact in float32 */
      buffer_set(dtype, x, 2 * i, 1000 + round(256 * buffer_number(1, i)) / 4096);
    double mean[2], square[2];
    OK(ops_host(dtype)->norm_statistics(COUNT, 2, x, mean, square));
    struct moments expected = moments(dtype, COUNT, 2, 0, x);
    double mean_error = fabs(mean[0] / expected.mean - 1), square_error = fabs(square[0] / expected.square - 1);
    cr_assert(le(dbl, mean_error, 1e-9), "%s mean: %g", dtype_name(dtype), mean_error);
    cr_assert(le(dbl, square_error, 1e-5), "%s square: %g", dtype_name(dtype), square_error);
    free(x);
  }
}

Test(norm, equal_values_have_exactly_no_variance) {
  static const double values[] = {0.1, -3e7, 1e-30, 0};
  enum { COUNT = 1000 };
  for (enum dtype dtype = F32; dtype <= F64; dtype++) {
    void *x = buffer_create(dtype, 4 * COUNT, 1);
    for (int64_t i = 0; i < 4 * COUNT; i++)
      buffer_set(dtype, x, i, values[i % 4]);
    double mean[4], square[4];
    OK(ops_host(dtype)->norm_statistics(COUNT, 4, x, mean, square));
    for (int c = 0; c < 4; c++) {
      cr_assert(eq(dbl, mean[c], buffer_get(dtype, x, c)), "%s, %g", dtype_name(dtype), values[c]);
      cr_assert(eq(dbl, square[c], 0), "%s, %g", dtype_name(dtype), values[c]);
    }
    free(x);
  }
}

Test(norm, first_value_far_from_all_others_does_no_harm) {
  enum { COUNT = 300 };
  for (enum dtype dtype = F32; dtype <= F64; dtype++)
    for (int64_t at = 0; at <= 128; at += 64) { /* the first row of a chunk of rows */
      void *x = buffer_create(dtype, COUNT, 1);
      buffer_set(dtype, x, at, 3000);
      check_statistics(dtype, COUNT, 1, x, 3002);
      free(x);
    }
}

/* --- forward ------------------------------------------------------------------------------------------------ */

/* One layer with made-up statistics: means that float32 cannot hold, some of them large. */
struct layer {
  const struct ops *ops;
  size_t count;
  int64_t channels, size;
  void *x, *residual, *gamma, *beta, *grad, *more, *y;
  double *mean, *inverse, *mean_g, *mean_gx;
};

static double layer_mean(int64_t channel) {
  return channel % 3 == 2 ? 1000.0 + buffer_number(11, channel) / 3 : buffer_number(11, channel) / 3;
}

static double *doubles(int64_t count, uint64_t stream) {
  return buffer_create(F64, count, stream);
}

static struct layer layer_create(enum dtype dtype, size_t count, int64_t channels) {
  struct layer l = {.ops = ops_host(dtype), .count = count, .channels = channels};
  l.size = (int64_t)count * channels;
  l.x = buffer_create(dtype, l.size, 1);
  l.residual = buffer_create(dtype, l.size, 2);
  l.gamma = buffer_create(dtype, channels, 3);
  l.beta = buffer_create(dtype, channels, 4);
  l.grad = buffer_create(dtype, l.size, 5);
  l.more = buffer_create(dtype, l.size, 6);
  l.y = buffer_create(dtype, l.size, 7);
  l.mean = doubles(channels, 11);
  l.inverse = doubles(channels, 12);
  l.mean_g = doubles(channels, 13);
  l.mean_gx = doubles(channels, 14);
  for (int64_t c = 0; c < channels; c++) {
    l.mean[c] = layer_mean(c);
    l.inverse[c] = 1.5 + l.inverse[c] / 3;
    for (size_t i = 0; c % 3 == 2 && i < count; i++)
      buffer_set(dtype, l.x, (int64_t)i * channels + c, 1000 + buffer_number(1, (int64_t)i * channels + c) / 16);
  }
  return l;
}

static void layer_free(struct layer *l) {
  void *all[] = {l->x, l->residual, l->gamma,   l->beta,   l->grad,   l->more,
                 l->y, l->mean,     l->inverse, l->mean_g, l->mean_gx};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    free(all[i]);
}

static double at(const struct layer *l, const void *data, int64_t i) {
  return buffer_get(l->ops->dtype, data, i);
}

/* (x - mean) inverse */
static double normalised(const struct layer *l, const void *x, int64_t i) {
  int64_t c = i % l->channels;
  return (double)(((long double)at(l, x, i) - (long double)l->mean[c]) * (long double)l->inverse[c]);
}

static void *copy_of(const struct layer *l, const void *data) {
  size_t bytes = (size_t)l->size * dtype_size(l->ops->dtype);
  return memcpy(malloc(bytes + 1), data, bytes);
}

/* Each term is rounded four times at most. */
static void check_forward(const struct layer *l, bool add, bool relu, const void *y, const char *where) {
  for (int64_t i = 0; i < l->size; i++) {
    double scaled = normalised(l, l->x, i) * at(l, l->gamma, i % l->channels), shift = at(l, l->beta, i % l->channels);
    double residual = add ? at(l, l->residual, i) : 0, expected = scaled + shift + residual;
    double bound = 4 * eps(l->ops->dtype) * (fabs(scaled) + fabs(shift) + fabs(residual)) + DBL_MIN;
    expected = relu && expected < 0 ? 0 : expected;
    cr_assert(le(dbl, fabs(at(l, y, i) - expected), bound),
              "%s [%zu, %lld] y[%lld] = %.17g, expected %.17g (residual %d, relu %d, %s)", dtype_name(l->ops->dtype),
              l->count, (long long)l->channels, (long long)i, at(l, y, i), expected, add, relu, where);
  }
}

static void run_forward(const struct layer *l, bool add, bool relu) {
  void *in_place = copy_of(l, l->x), *on_residual = copy_of(l, l->residual);
  OK(l->ops->norm_forward(l->count, l->channels, l->x, l->mean, l->inverse, l->gamma, l->beta, add ? l->residual : NULL,
                          relu, l->y));
  check_forward(l, add, relu, l->y, "apart");
  OK(l->ops->norm_forward(l->count, l->channels, in_place, l->mean, l->inverse, l->gamma, l->beta,
                          add ? l->residual : NULL, relu, in_place));
  check_forward(l, add, relu, in_place, "y is x");
  if (add) {
    OK(l->ops->norm_forward(l->count, l->channels, l->x, l->mean, l->inverse, l->gamma, l->beta, on_residual, relu,
                            on_residual));
    check_forward(l, add, relu, on_residual, "y is the residual");
  }
  free(in_place);
  free(on_residual);
}

Test(norm, forward_is_its_formula_with_and_without_residual_and_relu) {
  for (enum dtype dtype = F32; dtype <= F64; dtype++)
    for (size_t i = 0; i < SHAPES; i++) {
      struct layer l = layer_create(dtype, shapes[i].count, shapes[i].channels);
      for (int choice = 0; choice < 4; choice++)
        run_forward(&l, choice & 1, choice & 2);
      layer_free(&l);
    }
}

/* --- backward ----------------------------------------------------------------------------------------------- */

static double masked_gradient(const struct layer *l, bool add, bool relu, int64_t i) {
  double g = at(l, l->grad, i) + (add ? at(l, l->more, i) : 0);
  g = l->ops->dtype == F32 ? (double)(float)g : g;
  return relu && at(l, l->y, i) <= 0 ? 0 : g;
}

/* Sums of 64 terms in REAL, of the rest in double; a term is rounded three times before. */
static void check_sums(const struct layer *l, bool add, bool relu, const double *sums) {
  double factor = 67 * eps(l->ops->dtype) + ((double)l->count / 64 + 128) * DBL_EPSILON;
  for (int64_t c = 0; c < l->channels; c++) {
    long double sum = 0, product = 0, size = 0, product_size = 0;
    for (size_t row = 0; row < l->count; row++) {
      int64_t i = (int64_t)row * l->channels + c;
      long double g = masked_gradient(l, add, relu, i), term = g * (long double)normalised(l, l->x, i);
      sum += g;
      product += term;
      size += fabsl(g);
      product_size += fabsl(term);
    }
    product_size += size * (long double)(fabs(l->mean[c]) * l->inverse[c] * eps(l->ops->dtype)); /* the mean's rest */
    cr_assert(le(dbl, fabs(sums[c] - (double)sum), factor * (double)size),
              "%s [%zu, %lld] sum[%lld] = %.17g, expected %.17Lg (more %d, relu %d)", dtype_name(l->ops->dtype),
              l->count, (long long)l->channels, (long long)c, sums[c], sum, add, relu);
    cr_assert(le(dbl, fabs(sums[l->channels + c] - (double)product), factor * (double)product_size),
              "%s [%zu, %lld] product[%lld] = %.17g, expected %.17Lg (more %d, relu %d)", dtype_name(l->ops->dtype),
              l->count, (long long)l->channels, (long long)c, sums[l->channels + c], product, add, relu);
  }
}

static void check_masked(const struct layer *l, bool add, bool relu, const void *masked, const char *where) {
  for (int64_t i = 0; i < l->size; i++)
    cr_assert(eq(dbl, at(l, masked, i), masked_gradient(l, add, relu, i)), "%s [%zu, %lld] element %lld, %s",
              dtype_name(l->ops->dtype), l->count, (long long)l->channels, (long long)i, where);
}

/* `grad`, `more`, `masked`: copies, so that one may be another. */
static void run_sums(const struct layer *l, bool add, bool relu, const void *grad, const void *more, void *masked,
                     const char *where) {
  double *sums = doubles(2 * l->channels, 9);
  OK(l->ops->norm_backward_sums(l->count, l->channels, grad, add ? more : NULL, l->x, relu ? l->y : NULL, l->mean,
                                l->inverse, masked, sums));
  check_sums(l, add, relu, sums);
  if (masked != NULL)
    check_masked(l, add, relu, masked, where);
  free(sums);
}

Test(norm, backward_sums_are_their_formulas_wherever_the_masked_gradient_goes) {
  for (enum dtype dtype = F32; dtype <= F64; dtype++)
    for (size_t s = 0; s < SHAPES; s++) {
      struct layer l = layer_create(dtype, shapes[s].count, shapes[s].channels);
      for (int choice = 0; choice < 4; choice++) {
        bool add = choice & 1, relu = choice & 2;
        void *grad = copy_of(&l, l.grad), *more = copy_of(&l, l.more), *apart = copy_of(&l, l.x);
        run_sums(&l, add, relu, grad, more, apart, "apart");
        if (choice == 0)
          run_sums(&l, add, relu, grad, more, NULL, "not wanted");
        if (add)
          run_sums(&l, add, relu, grad, more, more, "into more");
        run_sums(&l, add, relu, grad, l.more, grad, "into grad");
        free(grad);
        free(more);
        free(apart);
      }
      layer_free(&l);
    }
}

static void check_data(const struct layer *l, bool fixed, const void *grad_x, const char *where) {
  for (int64_t i = 0; i < l->size; i++) {
    int64_t c = i % l->channels;
    double scale = at(l, l->gamma, c) * l->inverse[c], direct = scale * at(l, l->grad, i);
    double by_mean = fixed ? 0 : scale * l->mean_g[c];
    double by_slope = fixed ? 0 : scale * l->mean_gx[c] * normalised(l, l->x, i);
    double bound = 6 * eps(l->ops->dtype) * (fabs(direct) + fabs(by_mean) + fabs(by_slope)) + DBL_MIN;
    cr_assert(le(dbl, fabs(at(l, grad_x, i) - (direct - by_mean - by_slope)), bound),
              "%s [%zu, %lld] grad_x[%lld] = %.17g, expected %.17g (%s)", dtype_name(l->ops->dtype), l->count,
              (long long)l->channels, (long long)i, at(l, grad_x, i), direct - by_mean - by_slope, where);
  }
}

Test(norm, backward_data_is_its_formula_also_over_its_inputs) {
  for (enum dtype dtype = F32; dtype <= F64; dtype++)
    for (size_t s = 0; s < SHAPES; s++) {
      struct layer l = layer_create(dtype, shapes[s].count, shapes[s].channels);
      for (int fixed = 0; fixed < 2; fixed++) {
        const double *mean_g = fixed ? NULL : l.mean_g, *mean_gx = fixed ? NULL : l.mean_gx;
        void *on_g = copy_of(&l, l.grad), *on_x = copy_of(&l, l.x);
        OK(l.ops->norm_backward_data(l.count, l.channels, l.grad, l.x, l.mean, l.inverse, l.gamma, mean_g, mean_gx,
                                     l.y));
        check_data(&l, fixed, l.y, "apart");
        OK(l.ops->norm_backward_data(l.count, l.channels, on_g, l.x, l.mean, l.inverse, l.gamma, mean_g, mean_gx,
                                     on_g));
        check_data(&l, fixed, on_g, "over g");
        OK(l.ops->norm_backward_data(l.count, l.channels, l.grad, on_x, l.mean, l.inverse, l.gamma, mean_g, mean_gx,
                                     on_x));
        check_data(&l, fixed, on_x, "over x");
        free(on_g);
        free(on_x);
      }
      layer_free(&l);
    }
}

/* --- NaN, threads ------------------------------------------------------------------------------------------- */

Test(norm, nan_goes_through_every_part_and_stays_in_its_channel) {
  enum { COUNT = 200, CHANNELS = 20 };
  for (enum dtype dtype = F32; dtype <= F64; dtype++) {
    struct layer l = layer_create(dtype, COUNT, CHANNELS);
    double mean[CHANNELS], square[CHANNELS], sums[2 * CHANNELS];
    buffer_set(dtype, l.x, 70 * CHANNELS + 6, NAN);
    OK(l.ops->norm_statistics(COUNT, CHANNELS, l.x, mean, square));
    OK(l.ops->norm_forward(COUNT, CHANNELS, l.x, l.mean, l.inverse, l.gamma, l.beta, NULL, true, l.y));
    OK(l.ops->norm_backward_sums(COUNT, CHANNELS, l.grad, NULL, l.x, l.y, l.mean, l.inverse, l.grad, sums));
    for (int c = 0; c < CHANNELS; c++) {
      cr_assert(eq(int, isnan(mean[c]) != 0, c == 6), "mean %d is %g", c, mean[c]);
      cr_assert(eq(int, isnan(square[c]) != 0, c == 6), "square %d is %g", c, square[c]);
      cr_assert(isfinite(sums[c]), "sum %d is %g", c, sums[c]);
      cr_assert(eq(int, isnan(sums[CHANNELS + c]) != 0, c == 6), "product %d is %g", c, sums[CHANNELS + c]);
    }
    cr_assert(isnan(at(&l, l.y, 70 * CHANNELS + 6)), "relu of NaN is NaN");
    cr_assert(eq(dbl, at(&l, l.grad, 70 * CHANNELS + 6), buffer_number(5, 70 * CHANNELS + 6)),
              "and keeps its gradient");
    layer_free(&l);
  }
}

/* Every result, one after the other; free() it. */
static char *all_results(const struct layer *l, size_t *bytes) {
  size_t array = (size_t)l->size * dtype_size(l->ops->dtype), vector = (size_t)l->channels * sizeof(double);
  char *out = malloc(3 * array + 4 * vector), *y = out, *masked = y + array, *grad_x = masked + array;
  double *mean = (double *)(grad_x + array), *square = mean + l->channels, *sums = square + l->channels;
  OK(l->ops->norm_statistics(l->count, l->channels, l->x, mean, square));
  OK(l->ops->norm_forward(l->count, l->channels, l->x, l->mean, l->inverse, l->gamma, l->beta, l->residual, true, y));
  OK(l->ops->norm_backward_sums(l->count, l->channels, l->grad, l->more, l->x, y, l->mean, l->inverse, masked, sums));
  OK(l->ops->norm_backward_data(l->count, l->channels, masked, l->x, l->mean, l->inverse, l->gamma, l->mean_g,
                                l->mean_gx, grad_x));
  *bytes = 3 * array + 4 * vector;
  return out;
}

Test(norm, results_do_not_depend_on_the_number_of_threads) {
  for (enum dtype dtype = F32; dtype <= F64; dtype++)
    for (size_t s = 0; s < SHAPES; s++) {
      struct layer l =
          layer_create(dtype, shapes[s].count, 2 * shapes[s].channels); /* vectors of doubles stay aligned */
      size_t bytes;
      omp_set_num_threads(1);
      char *one = all_results(&l, &bytes);
      for (int threads = 2; threads <= 3; threads++) {
        omp_set_num_threads(threads);
        char *several = all_results(&l, &bytes);
        cr_assert(zero(int, memcmp(one, several, bytes)), "%s [%zu, %lld], %d threads", dtype_name(dtype), l.count,
                  (long long)l.channels, threads);
        free(several);
      }
      free(one);
      layer_free(&l);
    }
}
