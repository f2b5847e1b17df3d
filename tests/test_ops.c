/* The arithmetic table: every backend and element type keeps the same contract. */
#include "model/draw.h"
#include "model/ops.h"

#include "tests/buffers.h"
#include "tests/gradient_check.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())

static const enum dtype dtypes[] = {F32, F64};

/* --- choice ------------------------------------------------------------------------------------------------- */

Test(ops, a_precision_that_the_host_does_not_have_is_refused) {
  const struct ops *ops;
  enum precision precision;
  cr_assert(eq(int, ops_open(NULL, PRECISION_BF16, &ops), ERR_ARGUMENT));
  cr_assert(ne(ptr, strstr(status_message(), "bf16 takes a GPU"), NULL), "%s", status_message());
  cr_assert(eq(int, precision_parse("f16", &precision), ERR_ARGUMENT));
  cr_assert(ne(ptr, strstr(status_message(), "f64, f32, tf32, bf16"), NULL), "%s", status_message());
  for (enum precision p = PRECISION_F64; p <= PRECISION_BF16; p++) {
    OK(precision_parse(precision_name(p), &precision));
    cr_assert(eq(int, precision, p));
  }
  OK(ops_open(NULL, PRECISION_F64, &ops));
  cr_assert(eq(ptr, (void *)ops, (void *)ops_host(F64)));
}

Test(ops, every_entry_of_every_table_is_filled) {
  for (int d = 0; d < 2; d++) {
    const struct ops *ops = ops_host(dtypes[d]);
    cr_assert(eq(int, ops->dtype, dtypes[d]));
    const char *entry = (const char *)ops + offsetof(struct ops, linear_forward);
    for (; entry < (const char *)(ops + 1); entry += sizeof(void (*)(void))) {
      void (*function)(void);
      memcpy(&function, entry, sizeof function);
      cr_assert(function != NULL, "entry at byte %td is empty", entry - (const char *)ops);
    }
  }
}

Test(ops, activation_names_are_parsed_and_a_wrong_one_is_refused) {
  enum activation activation = ACTIVATION_RELU;
  OK(activation_parse("gelu", &activation));
  cr_assert(eq(int, activation, ACTIVATION_GELU));
  cr_assert(eq(str, (char *)activation_name(ACTIVATION_TANH), "tanh"));
  cr_assert(eq(int, activation_parse("swish", &activation), ERR_ARGUMENT));
  cr_assert(ne(ptr, strstr(status_message(), "\"swish\""), NULL));
}

/* --- linear ------------------------------------------------------------------------------------------------- */

/* The products written as in the definition; largest |error| over the rounding bound of the longest sum. */
struct linear {
  int64_t rows, in, out;
  void *x, *weight, *bias, *y, *grad_y, *grad_x, *grad_weight, *grad_bias;
};

static struct linear linear_setup(enum dtype dtype, int64_t rows, int64_t in, int64_t out) {
  return (struct linear){.rows = rows,
                         .in = in,
                         .out = out,
                         .x = buffer_create(dtype, rows * in, 1),
                         .weight = buffer_create(dtype, out * in, 2),
                         .bias = buffer_create(dtype, out, 3),
                         .y = buffer_create(dtype, rows * out, 4),
                         .grad_y = buffer_create(dtype, rows * out, 5),
                         .grad_x = buffer_create(dtype, rows * in, 6),
                         .grad_weight = buffer_create(dtype, out * in, 7),
                         .grad_bias = buffer_create(dtype, out, 8)};
}

static void linear_free(struct linear *l) {
  void *all[] = {l->x, l->weight, l->bias, l->y, l->grad_y, l->grad_x, l->grad_weight, l->grad_bias};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    free(all[i]);
}

static void linear_run(const struct ops *ops, struct linear *l) {
  struct linear_shape shape = {.in = l->in, .out = l->out};
  OK(ops->linear_forward(l->rows, &shape, l->x, l->weight, l->bias, l->y));
  OK(ops->linear_backward_data(l->rows, &shape, l->grad_y, l->weight, l->grad_x));
  OK(ops->linear_backward_weights(l->rows, &shape, l->x, l->grad_y, l->grad_weight, l->grad_bias));
}

/* Inputs are at most 1: a sum of n products, in any order, errs by at most n eps n / 2. */
static void expect_sum(enum dtype dtype, const char *what, const struct linear *l, const void *got, int64_t i,
                       long double expected, int64_t terms) {
  double eps = dtype == F32 ? 0x1p-23 : 0x1p-52;
  double bound = eps * (double)terms * ((double)terms / 2 + 1);
  double error = (double)fabsl((long double)buffer_get(dtype, got, i) - expected);
  cr_assert(le(dbl, error, bound), "%s %s[%lld] of %lld rows, %lld -> %lld: got %.17g, expected %.17Lg",
            dtype_name(dtype), what, (long long)i, (long long)l->rows, (long long)l->in, (long long)l->out,
            buffer_get(dtype, got, i), expected);
}

static void linear_check(enum dtype dtype, const struct linear *l) {
  for (int64_t r = 0; r < l->rows; r++)
    for (int64_t o = 0; o < l->out; o++) {
      long double sum = buffer_get(dtype, l->bias, o);
      for (int64_t i = 0; i < l->in; i++)
        sum += (long double)buffer_get(dtype, l->x, r * l->in + i) * buffer_get(dtype, l->weight, o * l->in + i);
      expect_sum(dtype, "y", l, l->y, r * l->out + o, sum, l->in + 1);
    }
  for (int64_t r = 0; r < l->rows; r++)
    for (int64_t i = 0; i < l->in; i++) {
      long double sum = 0;
      for (int64_t o = 0; o < l->out; o++)
        sum += (long double)buffer_get(dtype, l->grad_y, r * l->out + o) * buffer_get(dtype, l->weight, o * l->in + i);
      expect_sum(dtype, "grad_x", l, l->grad_x, r * l->in + i, sum, l->out);
    }
  for (int64_t o = 0; o < l->out; o++) {
    long double bias = 0;
    for (int64_t r = 0; r < l->rows; r++)
      bias += buffer_get(dtype, l->grad_y, r * l->out + o);
    expect_sum(dtype, "grad_bias", l, l->grad_bias, o, bias, l->rows);
    for (int64_t i = 0; i < l->in; i++) {
      long double sum = 0;
      for (int64_t r = 0; r < l->rows; r++)
        sum += (long double)buffer_get(dtype, l->grad_y, r * l->out + o) * buffer_get(dtype, l->x, r * l->in + i);
      expect_sum(dtype, "grad_weight", l, l->grad_weight, o * l->in + i, sum, l->rows);
    }
  }
}

Test(ops, linear_is_its_definition_for_odd_and_even_shapes) {
  static const int64_t shapes[][3] = {{1, 1, 1},   {1, 17, 5},   {3, 8, 130}, {64, 33, 16},
                                      {65, 16, 1}, {70, 65, 67}, {0, 9, 4},   {300, 3, 2}};
  for (int d = 0; d < 2; d++)
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
      struct linear l = linear_setup(dtypes[d], shapes[s][0], shapes[s][1], shapes[s][2]);
      linear_run(ops_host(dtypes[d]), &l);
      linear_check(dtypes[d], &l);
      linear_free(&l);
    }
}

Test(ops, linear_without_bias_adds_nothing) {
  for (int d = 0; d < 2; d++) {
    const struct ops *ops = ops_host(dtypes[d]);
    struct linear l = linear_setup(dtypes[d], 5, 7, 3);
    struct linear_shape shape = {.in = 7, .out = 3};
    OK(ops->linear_forward(5, &shape, l.x, l.weight, NULL, l.y)); /* y held numbers before */
    memset(l.bias, 0, 3 * dtype_size(dtypes[d]));
    OK(ops->linear_backward_data(5, &shape, l.grad_y, l.weight, l.grad_x));
    OK(ops->linear_backward_weights(5, &shape, l.x, l.grad_y, l.grad_weight, NULL));
    double untouched = buffer_get(dtypes[d], l.grad_bias, 1);
    cr_assert(eq(dbl, untouched, buffer_number(8, 1)));
    OK(ops->linear_backward_weights(5, &shape, l.x, l.grad_y, l.grad_weight, l.grad_bias));
    linear_check(dtypes[d], &l);
    linear_free(&l);
  }
}

Test(ops, float64_row_of_linear_does_not_depend_on_the_other_rows) {
  const struct ops *ops = ops_host(F64);
  enum { ROWS = 70, IN = 65, OUT = 67 };
  struct linear all = linear_setup(F64, ROWS, IN, OUT);
  linear_run(ops, &all);
  for (int64_t r = 0; r < ROWS; r += 23) {
    double y[OUT], grad_x[IN];
    OK(ops->linear_forward(1, &(struct linear_shape){.in = IN, .out = OUT}, (double *)all.x + r * IN, all.weight,
                           all.bias, y));
    OK(ops->linear_backward_data(1, &(struct linear_shape){.in = IN, .out = OUT}, (double *)all.grad_y + r * OUT,
                                 all.weight, grad_x));
    cr_assert(zero(int, memcmp(y, (double *)all.y + r * OUT, sizeof y)), "row %lld", (long long)r);
    cr_assert(zero(int, memcmp(grad_x, (double *)all.grad_x + r * IN, sizeof grad_x)), "row %lld", (long long)r);
  }
  linear_free(&all);
}

/* --- activations -------------------------------------------------------------------------------------------- */

Test(ops, activations_have_their_known_values) {
  static const struct {
    enum activation activation;
    double x, y; /* gelu and softplus by 50-digit arithmetic */
  } known[] = {{ACTIVATION_RELU, 2, 2},
               {ACTIVATION_RELU, -2, 0},
               {ACTIVATION_RELU, 0, 0},
               {ACTIVATION_TANH, 1, 0.76159415595576489},
               {ACTIVATION_TANH, -40, -1},
               {ACTIVATION_GELU, 0, 0},
               {ACTIVATION_GELU, 1, 0.84134474606854295},
               {ACTIVATION_GELU, -1, -0.15865525393145705},
               {ACTIVATION_GELU, -5, -1.4332578593959665e-6},
               {ACTIVATION_GELU, 30, 30},
               {ACTIVATION_SOFTPLUS, 0, 0.6931481805599453},
               {ACTIVATION_SOFTPLUS, -20, 1.0020611536203144e-6},
               {ACTIVATION_SOFTPLUS, 20, 20.000001002061154},
               {ACTIVATION_SOFTPLUS, 21, 21.000001},
               {ACTIVATION_SOFTPLUS, -200, 1e-6}};
  for (int d = 0; d < 2; d++)
    for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
      double x[1], y[1];
      buffer_set(dtypes[d], x, 0, known[k].x);
      OK(ops_host(dtypes[d])->activation_forward(known[k].activation, 1, x, y));
      double tolerance = (dtypes[d] == F32 ? 0x1p-20 : 0x1p-49) * fabs(known[k].y); /* 8 ulp of the C library */
      cr_assert(epsilon_eq(dbl, buffer_get(dtypes[d], y, 0), known[k].y, tolerance), "%s %s(%g) = %.17g",
                dtype_name(dtypes[d]), activation_name(known[k].activation), known[k].x, buffer_get(dtypes[d], y, 0));
    }
}

Test(ops, relu_has_no_slope_at_zero_and_lets_nan_through) {
  for (int d = 0; d < 2; d++) {
    const struct ops *ops = ops_host(dtypes[d]);
    double x[4], y[4], grad[4];
    const double values[4] = {0.0, -0.0, NAN, 1};
    for (int i = 0; i < 4; i++) {
      buffer_set(dtypes[d], x, i, values[i]);
      buffer_set(dtypes[d], grad, i, 3);
    }
    OK(ops->activation_forward(ACTIVATION_RELU, 4, x, y));
    cr_assert(isnan(buffer_get(dtypes[d], y, 2)));
    OK(ops->activation_backward(ACTIVATION_RELU, 4, x, y, grad, grad));
    cr_assert(eq(dbl, buffer_get(dtypes[d], grad, 0), 0));
    cr_assert(eq(dbl, buffer_get(dtypes[d], grad, 1), 0));
    cr_assert(eq(dbl, buffer_get(dtypes[d], grad, 3), 3));
  }
}

static double activation_sum(void *context, const double *x) {
  double y[9], sum = 0;
  ops_host(F64)->activation_forward(*(enum activation *)context, 9, x, y);
  for (int i = 0; i < 9; i++)
    sum += (i + 1) * y[i];
  return sum;
}

Test(ops, activation_gradients_are_derivatives_also_in_place) {
  const struct ops *ops = ops_host(F64);
  for (enum activation activation = ACTIVATION_RELU; activation <= ACTIVATION_SOFTPLUS; activation++) {
    double x[9] = {-4, -1.5, -0.6, -0.02, 0.01, 0.3, 0.9, 2.2, 5}, y[9], grad[9];
    for (int i = 0; i < 9; i++)
      grad[i] = i + 1;
    memcpy(y, x, sizeof y);
    OK(ops->activation_forward(activation, 9, y, y));
    bool by_x = activation == ACTIVATION_GELU || activation == ACTIVATION_SOFTPLUS;
    const double *kept = by_x ? x : y; /* the others must not need x any more */
    OK(ops->activation_backward(activation, 9, kept, y, grad, grad));
    struct gradient_check check = gradient_check(activation_sum, &activation, x, 9, grad, 1e-3);
    cr_assert(le(dbl, check.error, 1e-10), "%s: %s", activation_name(activation), gradient_check_text(&check));
  }
}

Test(ops, softplus_has_slope_one_from_where_it_is_linear) {
  for (int d = 0; d < 2; d++) {
    double x[3], grad[3];
    const double values[3] = {20.5, 1000, -1000}, slopes[3] = {3, 3, 0};
    for (int i = 0; i < 3; i++) {
      buffer_set(dtypes[d], x, i, values[i]);
      buffer_set(dtypes[d], grad, i, 3);
    }
    OK(ops_host(dtypes[d])->activation_backward(ACTIVATION_SOFTPLUS, 3, x, NULL, grad, grad));
    for (int i = 0; i < 3; i++)
      cr_assert(eq(dbl, buffer_get(dtypes[d], grad, i), slopes[i]), "at %g", values[i]);
  }
}

/* --- dropout ------------------------------------------------------------------------------------------------ */

enum { WIDTH = 37, SAMPLES = 24 };

static void draw_mask(const struct unit_draw *draw, int64_t rows, double share, uint8_t *mask) {
  OK(ops_host(F32)->dropout_mask(rows, WIDTH, share, draw, mask));
}

static const int64_t epochs[] = {0, 1, 2, 3, 4};

Test(ops, dropout_mask_follows_the_sample_and_the_view_not_the_row) {
  int64_t samples[SAMPLES], moved[SAMPLES / 2];
  uint8_t all[2 * SAMPLES * WIDTH], half[SAMPLES * WIDTH];
  for (int64_t i = 0; i < SAMPLES; i++)
    samples[i] = 1000 + 7 * i;
  for (int64_t i = 0; i < SAMPLES / 2; i++) /* every other sample, backwards: what another rank might hold */
    moved[i] = samples[SAMPLES - 1 - 2 * i];
  struct unit_draw draw = {.seed = 5, .epoch = &epochs[3], .layer = 1, .samples = samples, .samples_count = SAMPLES};
  draw_mask(&draw, 2 * SAMPLES, 0.3, all);
  draw.samples = moved;
  draw.samples_count = SAMPLES / 2;
  draw_mask(&draw, SAMPLES, 0.3, half);
  for (int view = 0; view < 2; view++)
    for (int64_t i = 0; i < SAMPLES / 2; i++) {
      const uint8_t *here = half + (view * SAMPLES / 2 + i) * WIDTH;
      const uint8_t *there = all + (view * SAMPLES + SAMPLES - 1 - 2 * i) * WIDTH;
      cr_assert(zero(int, memcmp(here, there, WIDTH)), "view %d, sample %lld", view, (long long)moved[i]);
    }
}

Test(ops, dropout_masks_differ_by_seed_epoch_layer_view_and_sample) {
  static const int64_t one[] = {11}, other[] = {12}, twice[] = {11, 11};
  struct unit_draw base = {.seed = 5, .epoch = &epochs[3], .layer = 1, .samples = one, .samples_count = 1};
  struct unit_draw draws[4] = {base, base, base, base};
  draws[0].seed = 6;
  draws[1].epoch = &epochs[4];
  draws[2].layer = 2;
  draws[3].samples = other;
  uint8_t masks[2][WIDTH], mask[2 * WIDTH];
  draw_mask(&base, 1, 0.5, masks[0]);
  for (int i = 0; i < 4; i++) {
    draw_mask(&draws[i], 1, 0.5, masks[1]);
    cr_assert(memcmp(masks[0], masks[1], WIDTH) != 0, "draw %d repeats the mask", i);
  }
  draw_mask(&base, 2, 0.5, mask); /* two rows of one sample are two views */
  cr_assert(memcmp(mask, mask + WIDTH, WIDTH) != 0);
  base.samples = twice; /* two rows of one view and sample are the same */
  base.samples_count = 2;
  draw_mask(&base, 2, 0.5, mask);
  cr_assert(zero(int, memcmp(mask, mask + WIDTH, WIDTH)));
}

Test(ops, dropout_drops_its_share_in_every_unit_position) {
  enum { MANY = 20000 };
  int64_t *samples = malloc(MANY * sizeof *samples);
  uint8_t *mask = malloc((size_t)MANY * WIDTH);
  for (int64_t i = 0; i < MANY; i++)
    samples[i] = i;
  struct unit_draw draw = {.seed = 1, .epoch = epochs, .samples = samples, .samples_count = MANY};
  draw_mask(&draw, MANY, 0.2, mask);
  for (int unit = 0; unit < WIDTH; unit++) {
    double dropped = 0;
    for (int64_t i = 0; i < MANY; i++)
      dropped += mask[i * WIDTH + unit] == 0;
    double deviation = (dropped - 0.2 * MANY) / sqrt(MANY * 0.2 * 0.8); /* standard normal */
    cr_assert(le(dbl, fabs(deviation), 5), "unit %d: %g standard deviations", unit, deviation);
  }
  draw_mask(&draw, MANY, 0, mask);
  cr_assert(eq(ptr, memchr(mask, 0, (size_t)MANY * WIDTH), NULL), "share 0 drops nothing");
  free(samples);
  free(mask);
}

Test(ops, dropout_mask_is_the_same_for_every_dtype) {
  static const int64_t samples[] = {3, 1, 4, 1 + ((int64_t)1 << 40)};
  struct unit_draw draw = {.seed = 9, .epoch = &epochs[2], .samples = samples, .samples_count = 4};
  uint8_t masks[2][4 * WIDTH];
  for (int d = 0; d < 2; d++)
    OK(ops_host(dtypes[d])->dropout_mask(4, WIDTH, 0.4, &draw, masks[d]));
  cr_assert(zero(int, memcmp(masks[0], masks[1], sizeof masks[0])));
}

/* --- vectors ------------------------------------------------------------------------------------------------ */

static const size_t counts[] = {0, 1, 7, 8, 4095, 4097, 50003};
#define COUNTS (sizeof counts / sizeof *counts)

Test(ops, vector_entries_do_what_they_say_for_every_length) {
  for (int d = 0; d < 2; d++)
    for (size_t c = 0; c < COUNTS; c++) {
      const struct ops *ops = ops_host(dtypes[d]);
      int64_t n = (int64_t)counts[c];
      void *x = buffer_create(dtypes[d], n, 1), *y = buffer_create(dtypes[d], n, 2),
           *z = buffer_create(dtypes[d], n, 3);
      OK(ops->copy(counts[c], y, z));
      OK(ops->scale(counts[c], 0.5, z));
      OK(ops->add(counts[c], -2, x, y));
      for (int64_t i = 0; i < n; i++) { /* all exact: 20-bit numbers and powers of two */
        cr_assert(eq(dbl, buffer_get(dtypes[d], z, i), 0.5 * buffer_number(2, i)), "scale, element %lld", (long long)i);
        cr_assert(eq(dbl, buffer_get(dtypes[d], y, i), buffer_number(2, i) - 2 * buffer_number(1, i)),
                  "add, element %lld", (long long)i);
      }
      OK(ops->zero(counts[c], x));
      for (int64_t i = 0; i < n; i++)
        cr_assert(eq(dbl, buffer_get(dtypes[d], x, i), 0));
      free(x);
      free(y);
      free(z);
    }
}

Test(ops, sum_squares_is_the_sum_in_double) {
  for (int d = 0; d < 2; d++)
    for (size_t c = 0; c < COUNTS; c++) {
      void *x = buffer_create(dtypes[d], (int64_t)counts[c], 1);
      long double expected = 0;
      for (int64_t i = 0; i < (int64_t)counts[c]; i++)
        expected += (long double)buffer_number(1, i) * buffer_number(1, i);
      double got = -1;
      OK(ops_host(dtypes[d])->sum_squares(counts[c], x, &got));
      double bound = 0x1p-52 * 600 * (double)expected; /* at most 512 + 64 + 13 additions in a row */
      cr_assert(epsilon_eq(dbl, got, (double)expected, bound), "%s, %zu elements", dtype_name(dtypes[d]), counts[c]);
      free(x);
    }
}

Test(ops, uniform_float32_is_the_rounded_float64_and_fills_its_range) {
  enum { N = 30000 };
  struct random_key key = random_key(3, RANDOM_INIT, 4);
  float *single = malloc(N * sizeof *single);
  double *exact = malloc(N * sizeof *exact), sum = 0, squares = 0;
  draw_uniform(F32, N, key, 0.25, single);
  draw_uniform(F64, N, key, 0.25, exact);
  for (int i = 0; i < N; i++) {
    cr_assert(eq(flt, single[i], (float)exact[i]), "element %d", i);
    cr_assert(exact[i] >= -0.25 && exact[i] < 0.25, "element %d is %g", i, exact[i]);
    sum += exact[i];
    squares += exact[i] * exact[i];
  }
  double deviation = 0.25 / sqrt(3); /* five standard errors for mean and variance */
  cr_assert(le(dbl, fabs(sum / N), 5 * deviation / sqrt(N)));
  cr_assert(epsilon_eq(dbl, squares / N / (deviation * deviation), 1, 5 * sqrt(0.8 / N)));
  free(single);
  free(exact);
}

Test(ops, normal_float32_is_the_rounded_float64_and_has_its_deviation) {
  enum { N = 30000 };
  struct random_key key = random_key(3, RANDOM_INIT, 4);
  float *single = malloc(N * sizeof *single);
  double *exact = malloc(N * sizeof *exact), sum = 0, squares = 0, fourth = 0;
  draw_normal(F32, N, key, 0.25, single);
  draw_normal(F64, N, key, 0.25, exact);
  for (int i = 0; i < N; i++) {
    cr_assert(eq(flt, single[i], (float)exact[i]), "element %d", i);
    double z = exact[i] / 0.25;
    sum += z;
    squares += z * z;
    fourth += z * z * z * z;
  }
  double error = 5 / sqrt(N); /* five standard errors; z^2 has variance 2, z^4 has 96 */
  cr_assert(le(dbl, fabs(sum / N), error), "mean %g", sum / N);
  cr_assert(le(dbl, fabs(squares / N - 1), error * sqrt(2)), "variance %g", squares / N);
  cr_assert(le(dbl, fabs(fourth / N - 3), error * sqrt(96)), "fourth moment %g", fourth / N);
  free(single);
  free(exact);
}

Test(ops, fill_sets_every_element_and_none_beyond) {
  for (int d = 0; d < 2; d++)
    for (size_t c = 0; c < COUNTS; c++) {
      int64_t n = (int64_t)counts[c];
      void *x = buffer_create(dtypes[d], n + 1, 1);
      draw_constant(dtypes[d], counts[c], -0.75, x);
      for (int64_t i = 0; i < n; i++)
        cr_assert(eq(dbl, buffer_get(dtypes[d], x, i), -0.75), "element %lld", (long long)i);
      cr_assert(eq(dbl, buffer_get(dtypes[d], x, n), buffer_number(1, n)), "the element after the last");
      free(x);
    }
}

Test(ops, pixels_are_their_formula_for_every_value_and_number_of_channels) {
  static const int64_t channels[] = {1, 3, 17, 40};
  enum { COUNT = 5000 };
  double mean[40], std[40];
  for (int c = 0; c < 40; c++) {
    mean[c] = 0.5 + 0.01 * c;
    std[c] = 0.2 + 0.02 * c;
  }
  for (int d = 0; d < 2; d++)
    for (size_t k = 0; k < sizeof channels / sizeof *channels; k++) {
      int64_t n = COUNT * channels[k];
      uint8_t *x = malloc((size_t)n);
      void *y = buffer_create(dtypes[d], n + 1, 1);
      for (int64_t i = 0; i < n; i++)
        x[i] = (uint8_t)(i / channels[k] + i % channels[k]);
      OK(ops_host(dtypes[d])->pixels(COUNT, channels[k], x, mean, std, y));
      for (int64_t i = 0; i < n; i++) {
        double expected = (x[i] / 255.0 - mean[i % channels[k]]) / std[i % channels[k]];
        expected = dtypes[d] == F32 ? (double)(float)expected : expected;
        cr_assert(eq(dbl, buffer_get(dtypes[d], y, i), expected), "value %d, channel %lld of %lld", x[i],
                  (long long)(i % channels[k]), (long long)channels[k]);
      }
      cr_assert(eq(dbl, buffer_get(dtypes[d], y, n), buffer_number(1, n)), "the element after the last");
      free(x);
      free(y);
    }
}

/* --- threads ------------------------------------------------------------------------------------------------ */

/* Everything documented as Exact, on sizes that several threads share; returns its output bytes. */
static char *exact_results(const struct ops *ops, size_t *bytes) {
  enum { N = 100003, ROWS = 301, COLUMNS = 97 };
  enum dtype dtype = ops->dtype;
  size_t size = dtype_size(dtype), used = 0;
  char *out = calloc(32 * N, size);
  void *x = buffer_create(dtype, N, 1), *p = buffer_create(dtype, N, 2), *m = buffer_create(dtype, N, 3),
       *v = buffer_create(dtype, N, 4);
  struct linear l = linear_setup(dtype, ROWS, COLUMNS, COLUMNS);
  int64_t samples[ROWS];
  uint8_t *mask = malloc(ROWS * COLUMNS);
#define KEEP(data, length) (memcpy(out + used, data, length), used += (length))
  for (enum activation a = ACTIVATION_RELU; a <= ACTIVATION_SOFTPLUS; a++) {
    OK(ops->activation_forward(a, N, x, m));
    KEEP(m, N * size);
    OK(ops->activation_backward(a, N, x, m, p, v));
    KEEP(v, N * size);
  }
  OK(ops->activation_forward(ACTIVATION_RELU, N, v, v)); /* second moments are not negative */
  const double scale = 0.7;
  struct adam_step adam = {0.01, 0.5, 0.9, 0.99, 1e-8, 0.1, 0.999};
  OK(ops->adam(N, &adam, &scale, p, x, m, v));
  struct sgd_step sgd = {0.01, 0.9, 0.1};
  OK(ops->sgd(N, &sgd, &scale, p, x, m));
  OK(ops->add(N, 0.3, x, p));
  KEEP(p, N * size);
  draw_uniform(dtype, N, random_key(1, RANDOM_INIT, 0), 1, p);
  KEEP(p, N * size);
  draw_normal(dtype, N, random_key(1, RANDOM_INIT, 0), 1, p);
  KEEP(p, N * size);
  double squares;
  OK(ops->sum_squares(N, x, &squares));
  KEEP(&squares, sizeof squares);
  for (int64_t i = 0; i < ROWS; i++)
    samples[i] = i;
  struct unit_draw draw = {.epoch = epochs, .samples = samples, .samples_count = ROWS};
  OK(ops->dropout_mask(ROWS, COLUMNS, 0.5, &draw, mask));
  KEEP(mask, (size_t)ROWS * COLUMNS);
  OK(ops->dropout_apply(ROWS * COLUMNS, 0.5, mask, x, m));
  KEEP(m, ROWS * COLUMNS * size);
  enum { HALF = COLUMNS / 2 };
  OK(ops->noise(ROWS, HALF, &draw, m));
  KEEP(m, (size_t)ROWS * HALF * size);
  OK(ops->activation_forward(ACTIVATION_SOFTPLUS, N, x, p)); /* variances are not negative */
  OK(ops->sample_forward(ROWS, HALF, p, m, v));
  KEEP(v, (size_t)ROWS * HALF * size);
  OK(ops->sample_backward(ROWS, HALF, p, m, v, x));
  KEEP(x, (size_t)2 * ROWS * HALF * size);
  OK(ops->join_forward(ROWS, HALF, 0.3, m, v, x));
  KEEP(x, (size_t)2 * ROWS * HALF * size);
  OK(ops->join_backward(ROWS, HALF, 0.3, x, p, v));
  KEEP(v, (size_t)ROWS * HALF * size);
  double error = 1;
  OK(ops->squared_error(N, 0.3, x, m, v, &error));
  KEEP(v, N * size);
  KEEP(&error, sizeof error);
  linear_run(ops, &l);
  KEEP(l.grad_bias, COLUMNS * size);
  if (dtype == F64) {
    KEEP(l.y, ROWS * COLUMNS * size);
    KEEP(l.grad_x, ROWS * COLUMNS * size);
    KEEP(l.grad_weight, COLUMNS * COLUMNS * size);
  }
#undef KEEP
  linear_free(&l);
  free(x);
  free(p);
  free(m);
  free(v);
  free(mask);
  *bytes = used;
  return out;
}

Test(ops, what_is_called_exact_does_not_depend_on_the_number_of_threads) {
  for (int d = 0; d < 2; d++) {
    const struct ops *ops = ops_host(dtypes[d]);
    size_t bytes[2];
    omp_set_num_threads(1);
    char *one = exact_results(ops, &bytes[0]);
    for (int threads = 2; threads <= 3; threads++) {
      omp_set_num_threads(threads);
      char *several = exact_results(ops, &bytes[1]);
      cr_assert(eq(sz, bytes[0], bytes[1]));
      cr_assert(zero(int, memcmp(one, several, bytes[0])), "%s, %d threads", dtype_name(dtypes[d]), threads);
      free(several);
    }
    free(one);
  }
}
