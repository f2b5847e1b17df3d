/* What every table of operations must do on images: convolutions, batch normalisation, pools, pixels. */
#include "tests/ops_run.h"

#include "tests/buffers.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- convolutions -------------------------------------------------------------------------------------------- */

static void check_conv(const struct ops_contract *contract, struct conv *const convs[2], const struct conv_shape *s,
                       struct workspace workspaces[2], int64_t rows) {
  struct ops_run run = ops_run_begin(contract, 0);
  const struct ops *ops = run.ops, *exact = run.exact;
  int64_t height = spatial_out(s->height, s->kernel, s->stride, s->padding), area = (int64_t)s->kernel * s->kernel;
  int64_t width = spatial_out(s->width, s->kernel, s->stride, s->padding), places = rows * height * width;
  snprintf(run.name, sizeof run.name,
           "convolution of %lld images %lld x %lld x %lld -> %lld by %d, stride %d, padding %d", (long long)rows,
           (long long)s->height, (long long)s->width, (long long)s->in, (long long)s->out, s->kernel, s->stride,
           s->padding);
  struct ops_array *x = ops_values(&run, rows * s->height * s->width * s->in, 1),
                   *grad_y = ops_values(&run, places * s->out, 2);
  struct ops_array *weight = ops_parameters(&run, s->out * s->in * area, 3),
                   *bias = s->bias ? ops_parameters(&run, s->out, 4) : NULL;
  struct ops_array *y = ops_room(&run, ops->dtype, grad_y->count), *grad_x = ops_room(&run, ops->dtype, x->count);
  struct ops_array *grad_weight = ops_room(&run, ops->parameter_dtype, weight->count);
  struct ops_array *grad_bias = s->bias ? ops_room(&run, ops->parameter_dtype, s->out) : NULL;
  double own = contract->factor_rounding, least = run.ops->dtype == BF16 ? ops_rounding(BF16) : 0;
  OK(ops->conv_forward(convs[0], &workspaces[0], rows, x->data, weight->data, ops_data(bias), y->data));
  OK(exact->conv_forward(convs[1], &workspaces[1], rows, x->exact, weight->exact, ops_exact(bias), y->exact));
  /* the bias joins what was rounded to the values' type already */
  ops_expect(&run, y, "y",
             ops_product_error(&run, own, area * s->in) + (s->bias ? least * sqrt((double)(area * s->in)) : 0));
  OK(ops->conv_backward_data(convs[0], &workspaces[0], rows, grad_y->data, weight->data, grad_x->data));
  OK(exact->conv_backward_data(convs[1], &workspaces[1], rows, grad_y->exact, weight->exact, grad_x->exact));
  ops_expect(&run, grad_x, "grad_x", ops_product_error(&run, own, area * s->out));
  OK(ops->conv_backward_weights(convs[0], &workspaces[0], rows, x->data, grad_y->data, grad_weight->data,
                                ops_data(grad_bias)));
  OK(exact->conv_backward_weights(convs[1], &workspaces[1], rows, x->exact, grad_y->exact, grad_weight->exact,
                                  ops_exact(grad_bias)));
  /* gradients of weights may be rounded to the values' type; they are at most 3 standard deviations of their sums */
  ops_expect(&run, grad_weight, "grad_weight", ops_product_error(&run, own, places) + least * sqrt((double)places) * 2);
  if (s->bias)
    ops_expect(&run, grad_bias, "grad_bias", ops_product_error(&run, 0, places < 64 ? places : 64));
  ops_run_end(&run);
}

void ops_contract_convolutions(const struct ops_contract *contract) {
  static const struct conv_shape shapes[] = {{1, 1, 1, 1, 1, 1, 0, false},  {5, 7, 3, 4, 3, 1, 1, true},
                                             {9, 8, 3, 16, 7, 2, 3, false}, {6, 6, 16, 24, 1, 1, 0, true},
                                             {6, 5, 16, 8, 1, 2, 0, true},  {4, 4, 32, 32, 3, 2, 1, false},
                                             {2, 2, 8, 8, 3, 1, 1, false}};
  static const int64_t rows[] = {0, 1, 5, 2, 5};
  struct workspace workspaces[2] = {{.device = contract->ops->device}};
  for (size_t i = 0; i < LENGTH(shapes); i++) {
    struct conv *convs[2];
    OK(contract->ops->conv_create(&shapes[i], &convs[0]));
    OK(ops_host(F64)->conv_create(&shapes[i], &convs[1]));
    for (size_t r = 0; r < LENGTH(rows); r++)
      check_conv(contract, convs, &shapes[i], workspaces, rows[r]);
    contract->ops->conv_destroy(&convs[0]);
    ops_host(F64)->conv_destroy(&convs[1]);
    cr_assert(eq(ptr, convs[0], NULL));
    contract->ops->conv_destroy(&convs[0]);
  }
  OK(device_wait(contract->ops->device));
  workspace_free(&workspaces[0]);
  workspace_free(&workspaces[1]);
}

/* --- batch normalisation ------------------------------------------------------------------------------------- */

/* Sums over some values of a channel: float32 over at most 64 values of size `size`, double beyond. */
static double sum_error(const struct ops_run *run, int64_t count, double size) {
  return 64 * ops_arithmetic(run) * size * ((double)count / 8 + 1);
}

static void check_statistics(struct ops_run *run, int64_t count, int64_t channels, double shift) {
  struct ops_array *x = ops_numbers(run, run->ops->dtype, count * channels, 1, shift);
  for (int64_t i = 0; i < count; i++) /* the last channel is constant */
    x->exact[i * channels + channels - 1] = shift;
  ops_upload(run, x);
  struct ops_array *mean = ops_room(run, F64, channels), *square = ops_room(run, F64, channels);
  OK(run->ops->norm_statistics((size_t)count, channels, x->data, mean->data, square->data));
  OK(run->exact->norm_statistics((size_t)count, channels, x->exact, mean->exact, square->exact));
  /* deviations from the mean are at most 2, and from one of the values, about which sums are taken, 4: squares of 16 */
  ops_expect(run, mean, "mean", 32 * ops_arithmetic(run));
  ops_expect(run, square, "square", sum_error(run, count, 16) / 4);
  struct ops_array constant = {F64, 1, NULL, (double *)square->data + channels - 1};
  double got;
  OK(device_copy(run->ops->device, &got, constant.data, sizeof got));
  OK(device_wait(run->ops->device));
  cr_assert(eq(dbl, got, 0), "%s, %s: equal values have deviations", run->contract->name, run->name);
}

/* What both halves of the way back and the forward pass read. */
struct norm_case {
  int64_t count, channels;
  struct ops_array *x, *mean, *inverse, *gamma, *beta, *other, *y;
};

/* Values lie far from 0, and float32 does not hold their means: neither may cost digits. */
#define FAR 1000.0

static struct norm_case norm_case(struct ops_run *run, int64_t count, int64_t channels) {
  struct norm_case c = {.count = count, .channels = channels};
  c.x = ops_numbers(run, run->ops->dtype, count * channels, 1, FAR);
  c.mean = ops_numbers(run, F64, channels, 2, FAR);
  for (int64_t i = 0; i < channels; i++)
    c.mean->exact[i] += 2e-5;
  ops_upload(run, c.mean);
  c.inverse = ops_numbers(run, F64, channels, 3, 2);
  c.gamma = ops_parameters(run, channels, 4);
  c.beta = ops_parameters(run, channels, 5);
  c.other = ops_values(run, count * channels, 6);
  c.y = ops_values(run, count * channels, 7);
  for (int64_t i = 0; i < c.y->count; i++) /* relu's output has zeros, and a fault may have passed */
    c.y->exact[i] = i % 101 == 7 ? NAN : c.y->exact[i] < 0 ? 0 : c.y->exact[i];
  ops_upload(run, c.y);
  return c;
}

enum place { APART, OVER_X, OVER_OTHER };

/* Values are at most 4 x 3 x 1 + 1 + 1 in size (x was rounded by up to 2 in bfloat16), with four roundings. */
static void check_norm_forward(struct ops_run *run, int64_t count, int64_t channels, bool add, bool relu,
                               enum place place) {
  struct norm_case c = norm_case(run, count, channels);
  if (c.x->count > 3) {
    c.x->exact[3] = NAN;
    ops_upload(run, c.x);
  }
  struct ops_array *residual = add ? c.other : NULL, *y = place == OVER_X ? c.x : c.other;
  if (place == APART)
    y = ops_room(run, run->ops->dtype, count * channels);
  OK(run->ops->norm_forward((size_t)count, channels, c.x->data, c.mean->data, c.inverse->data, c.gamma->data,
                            c.beta->data, ops_data(residual), relu, y->data));
  OK(run->exact->norm_forward((size_t)count, channels, c.x->exact, c.mean->exact, c.inverse->exact, c.gamma->exact,
                              c.beta->exact, ops_exact(residual), relu, y->exact));
  ops_expect(run, y, "y", 64 * ops_arithmetic(run));
}

/* masked: 0 = NULL, 1 = apart, 2 = grad, 3 = more. */
static void check_norm_sums(struct ops_run *run, int64_t count, int64_t channels, bool add, bool relu, int masked) {
  struct norm_case c = norm_case(run, count, channels);
  struct ops_array *grad = ops_values(run, count * channels, 8), *more = add ? c.other : NULL;
  struct ops_array *sums = ops_room(run, F64, 2 * channels);
  struct ops_array *left = masked == 0 ? NULL : masked == 2 ? grad : masked == 3 ? c.other : NULL;
  if (masked == 1)
    left = ops_room(run, run->ops->dtype, count * channels);
  OK(run->ops->norm_backward_sums((size_t)count, channels, grad->data, ops_data(more), c.x->data,
                                  relu ? c.y->data : NULL, c.mean->data, c.inverse->data, ops_data(left), sums->data));
  OK(run->exact->norm_backward_sums((size_t)count, channels, grad->exact, ops_exact(more), c.x->exact,
                                    relu ? c.y->exact : NULL, c.mean->exact, c.inverse->exact, ops_exact(left),
                                    sums->exact));
  /* where two gradients are added, the sum is rounded before it is summed up: by half a unit of at most 2, times 6 */
  double rounded = add ? 6 * 3 * 2 * ops_rounding(run->ops->dtype) * (sqrt((double)count) + 1) : 0;
  ops_expect(run, sums, "sums", sum_error(run, count, 12) / 4 + rounded);
  if (left != NULL)
    ops_expect(run, left, "masked", add ? 4 * ops_arithmetic(run) : 0);
}

static void check_norm_data(struct ops_run *run, int64_t count, int64_t channels, bool fixed, enum place place) {
  struct norm_case c = norm_case(run, count, channels);
  struct ops_array *mean_g = fixed ? NULL : ops_numbers(run, F64, channels, 8, 0);
  struct ops_array *mean_gx = fixed ? NULL : ops_numbers(run, F64, channels, 9, 0);
  struct ops_array *grad_x = place == OVER_X ? c.x : c.other;
  if (place == APART)
    grad_x = ops_room(run, run->ops->dtype, count * channels);
  OK(run->ops->norm_backward_data((size_t)count, channels, c.other->data, c.x->data, c.mean->data, c.inverse->data,
                                  c.gamma->data, ops_data(mean_g), ops_data(mean_gx), grad_x->data));
  OK(run->exact->norm_backward_data((size_t)count, channels, c.other->exact, c.x->exact, c.mean->exact,
                                    c.inverse->exact, c.gamma->exact, ops_exact(mean_g), ops_exact(mean_gx),
                                    grad_x->exact));
  ops_expect(run, grad_x, "grad_x", 256 * ops_arithmetic(run));
}

static void check_norm(const struct ops_contract *contract, int64_t count, int64_t channels, int offset) {
  struct ops_run run = ops_run_begin(contract, offset);
  snprintf(run.name, sizeof run.name, "norm of %lld x %lld, offset %d", (long long)count, (long long)channels, offset);
  check_statistics(&run, count, channels, 0);
  ops_run_end(&run);
  check_statistics(&run, count, channels, 96); /* a mean far away: exact in 8 bits */
  ops_run_end(&run);
  for (int form = 0; form < 4; form++)
    for (enum place place = APART; place <= (form & 1 ? OVER_OTHER : OVER_X); place++) {
      check_norm_forward(&run, count, channels, form & 1, form & 2, place);
      ops_run_end(&run);
    }
  for (int form = 0; form < 4; form++)
    for (int masked = form == 0 ? 0 : 1; masked <= (form & 1 ? 3 : 2); masked++) {
      check_norm_sums(&run, count, channels, form & 1, form & 2, masked);
      ops_run_end(&run);
    }
  for (enum place place = APART; place <= OVER_OTHER; place++) {
    check_norm_data(&run, count, channels, false, place);
    ops_run_end(&run);
    check_norm_data(&run, count, channels, true, place);
    ops_run_end(&run);
  }
}

void ops_contract_norm(const struct ops_contract *contract) {
  static const int64_t shapes[][2] = {{0, 8},   {0, 3},    {1, 8},    {1, 1},   {5, 3},
                                      {64, 16}, {777, 33}, {40, 264}, {6000, 8}};
  for (size_t i = 0; i < LENGTH(shapes); i++)
    for (int offset = 0; offset < 2; offset++)
      check_norm(contract, shapes[i][0], shapes[i][1], offset);
}

/* All the numbers of one batch norm, in an order of their own. */
enum { NORM_ARRAYS = 12 };

static void norm_channels_of(struct ops_array *const arrays[NORM_ARRAYS], bool exact, struct norm_channels *out) {
  void *p[NORM_ARRAYS];
  for (int i = 0; i < NORM_ARRAYS; i++)
    p[i] = exact ? arrays[i]->exact : arrays[i]->data;
  out->dtype = exact ? F64 : arrays[8]->dtype;
  out->mean = p[0];
  out->inverse = p[1];
  out->count = p[2];
  out->kept_count = p[3];
  out->kept_mean = p[4];
  out->kept_square = p[5];
  out->sums = p[6];
  out->joint = p[7];
  out->running_mean = p[8];
  out->running_var = p[9];
  out->grad_gamma = p[10];
  out->grad_beta = p[11];
}

/* A stage on numbers above 1 (counts and squares are), then all that it may have written. */
static void check_stage(const struct ops_contract *contract, enum norm_stage stage, int64_t channels, bool shared) {
  static const char *const names[NORM_ARRAYS] = {"mean",         "inverse",     "count",      "kept count",
                                                 "kept mean",    "kept square", "sums",       "joint",
                                                 "running mean", "running var", "grad gamma", "grad beta"};
  struct ops_run run = ops_run_begin(contract, 0);
  struct ops_array *arrays[NORM_ARRAYS];
  struct norm_channels own = {.channels = channels, .own_count = 5, .shared = shared, .keep = true}, exact = own;
  snprintf(run.name, sizeof run.name, "stage %d of norm, %lld channels%s", (int)stage, (long long)channels,
           shared ? ", shared" : "");
  for (int i = 0; i < NORM_ARRAYS; i++) {
    int64_t count = i == 6 ? 2 * channels + 1 : i == 7 ? channels + 1 : channels;
    arrays[i] = ops_numbers(&run, i < 8 ? F64 : run.ops->parameter_dtype, count, (uint64_t)i + 1, i % 2 == 0 ? 2.5 : 4);
  }
  norm_channels_of(arrays, false, &own);
  norm_channels_of(arrays, true, &exact);
  OK(run.ops->norm_channels(stage, &own));
  OK(run.exact->norm_channels(stage, &exact));
  for (int i = 0; i < NORM_ARRAYS; i++)
    ops_expect(&run, arrays[i], names[i], 0x1p-46); /* a dozen operations on numbers below 50 in double */
  ops_run_end(&run);
}

void ops_contract_norm_channels(const struct ops_contract *contract) {
  for (enum norm_stage stage = NORM_SHARE; stage <= NORM_UPDATE_KEPT; stage++)
    for (int form = 0; form < 4; form++)
      check_stage(contract, stage, form & 1 ? 1 : 300, form & 2);
}

/* --- pooling ------------------------------------------------------------------------------------------------- */

static void check_pool(const struct ops_contract *contract, const struct pool_shape *s, int64_t rows, int offset) {
  struct ops_run run = ops_run_begin(contract, offset);
  const struct ops *ops = run.ops, *exact = run.exact;
  int64_t height = spatial_out(s->height, s->kernel_height, s->stride, s->padding);
  int64_t width = spatial_out(s->width, s->kernel_width, s->stride, s->padding);
  int64_t before = rows * s->height * s->width * s->channels, after = rows * height * width * s->channels;
  snprintf(run.name, sizeof run.name, "pool of %lld x %lld x %lld x %lld by %d x %d, stride %d, padding %d, offset %d",
           (long long)rows, (long long)s->height, (long long)s->width, (long long)s->channels, s->kernel_height,
           s->kernel_width, s->stride, s->padding, offset);
  struct ops_array *x = ops_values(&run, before, 1), *grad_y = ops_values(&run, after, 2),
                   *y = ops_room(&run, ops->dtype, after);
  struct ops_array *grad_x = ops_room(&run, ops->dtype, before);
  uint8_t *chosen = calloc((size_t)after + 1, 1), *own = ops_bytes(&run, chosen, after);
  for (int64_t i = 0; i < before; i++) /* ties and faults */
    x->exact[i] = i % 67 == 3 ? NAN : rint(4 * x->exact[i]) / 4;
  ops_upload(&run, x);
  OK(ops->max_pool_forward(s, rows, x->data, y->data, own));
  OK(exact->max_pool_forward(s, rows, x->exact, y->exact, chosen));
  ops_expect(&run, y, "largest", 0);
  ops_expect_bytes(&run, own, chosen, after, "chosen");
  OK(ops->max_pool_backward(s, rows, grad_y->data, own, grad_x->data));
  OK(exact->max_pool_backward(s, rows, grad_y->exact, chosen, grad_x->exact));
  double terms = (double)s->kernel_height * s->kernel_width; /* each at most 1 */
  ops_expect(&run, grad_x, "gradient of the largest", terms * terms * ops_arithmetic(&run));
  OK(ops->average_pool_forward(s, rows, x->data, y->data));
  OK(exact->average_pool_forward(s, rows, x->exact, y->exact));
  ops_expect(&run, y, "average", terms * ops_arithmetic(&run));
  OK(ops->average_pool_backward(s, rows, grad_y->data, grad_x->data));
  OK(exact->average_pool_backward(s, rows, grad_y->exact, grad_x->exact));
  ops_expect(&run, grad_x, "gradient of the average", terms * ops_arithmetic(&run));
  free(chosen);
  ops_run_end(&run);
}

void ops_contract_pools(const struct ops_contract *contract) {
  static const struct pool_shape shapes[] = {{1, 1, 1, 1, 1, 1, 0},   {7, 5, 3, 3, 3, 2, 1},  {8, 8, 16, 3, 3, 2, 1},
                                             {6, 6, 8, 2, 2, 2, 0},   {4, 3, 40, 4, 3, 1, 0}, {5, 5, 8, 3, 2, 1, 1},
                                             {16, 16, 24, 3, 3, 2, 1}};
  static const int64_t rows[] = {0, 1, 3, 17};
  for (size_t i = 0; i < LENGTH(shapes); i++)
    for (size_t r = 0; r < LENGTH(rows); r++)
      for (int offset = 0; offset < 2; offset++)
        check_pool(contract, &shapes[i], rows[r], offset);
  check_pool(contract, &shapes[0], 9000, 0); /* more images than a grid has lines */
}

static void check_pixels(const struct ops_contract *contract, int64_t count, int64_t channels, int offset) {
  struct ops_run run = ops_run_begin(contract, offset);
  double mean[40], std[40];
  uint8_t *pixels = malloc((size_t)(count * channels) + 1);
  snprintf(run.name, sizeof run.name, "pixels %lld x %lld, offset %d", (long long)count, (long long)channels, offset);
  for (int c = 0; c < 40; c++) {
    mean[c] = 0.5 + 0.01 * c;
    std[c] = 0.2 + 0.02 * c;
  }
  for (int64_t i = 0; i < count * channels; i++)
    pixels[i] = (uint8_t)(i / channels + 3 * (i % channels));
  const uint8_t *own = ops_bytes(&run, pixels, count * channels);
  struct ops_array *y = ops_room(&run, run.ops->dtype, count * channels);
  OK(run.ops->pixels((size_t)count, channels, own, mean, std, y->data));
  OK(run.exact->pixels((size_t)count, channels, pixels, mean, std, y->exact));
  memset(mean, 0, sizeof mean); /* they were read before the call returned */
  ops_expect(&run, y, "y", run.ops->dtype == BF16 ? ops_arithmetic(&run) : 0);
  free(pixels);
  ops_run_end(&run);
}

void ops_contract_pixels(const struct ops_contract *contract) {
  static const int64_t count[] = {0, 1, 8, 4099, 20000}, channels[] = {1, 3, 4, 8, 17, 40};
  for (size_t i = 0; i < LENGTH(count); i++)
    for (size_t c = 0; c < LENGTH(channels); c++)
      for (int offset = 0; offset < 2; offset++)
        check_pixels(contract, count[i], channels[c], offset);
  check_pixels(contract, 50000, 3, 1); /* more than a grid has threads */
}
