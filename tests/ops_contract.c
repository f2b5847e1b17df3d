/* What every table of operations must do. */
#include "tests/ops_contract.h"

#include "tests/buffers.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())
#define LENGTH(array) (sizeof(array) / sizeof *(array))

enum { MOST_ARRAYS = 64, NAME_BYTES = 160 };

/* --- arrays on both sides ------------------------------------------------------------------------------------ */

/* The same numbers for the table under test and, as double, for the host's. */
struct array {
  enum dtype dtype;
  int64_t count;
  double *exact;
  void *data; /* in the memory of the table; GUARDS elements follow, which no one may touch */
};

enum { GUARDS = 3 };
#define GUARD_VALUE 7.0

/* One case: what it allocates lives until its end. */
struct run {
  const struct ops_contract *contract;
  const struct ops *ops, *exact;
  int offset; /* of all arrays, in elements: 0 = on a good address */
  char name[NAME_BYTES];
  struct array arrays[MOST_ARRAYS];
  void *blocks[MOST_ARRAYS];
  int count;
};

static struct run run_begin(const struct ops_contract *contract, int offset) {
  return (struct run){.contract = contract, .ops = contract->ops, .exact = ops_host(F64), .offset = offset};
}

static void upload(struct run *run, struct array *array) {
  size_t size = dtype_size(array->dtype);
  void *staged = malloc((size_t)(array->count + GUARDS) * size);
  for (int64_t i = 0; i < array->count + GUARDS; i++)
    buffer_set(array->dtype, staged, i, i < array->count ? array->exact[i] : GUARD_VALUE);
  for (int64_t i = 0; i < array->count; i++) /* what is not a number of that type is rounded on both sides */
    array->exact[i] = buffer_get(array->dtype, staged, i);
  OK(device_copy(run->ops->device, array->data, staged, (size_t)(array->count + GUARDS) * size));
  OK(device_wait(run->ops->device));
  free(staged);
}

static struct array *array_of(struct run *run, enum dtype dtype, int64_t count) {
  cr_assert(lt(int, run->count, MOST_ARRAYS));
  struct array *array = &run->arrays[run->count];
  size_t size = dtype_size(dtype), offset = dtype == F64 ? 0 : (size_t)run->offset * size;
  OK(device_alloc(run->ops->device, offset + (size_t)(count + GUARDS) * size, &run->blocks[run->count]));
  *array = (struct array){dtype, count, malloc((size_t)count * sizeof(double) + 1),
                          (char *)run->blocks[run->count] + offset};
  run->count++;
  return array;
}

/* Numbers in [shift - 1, shift + 1). */
static struct array *numbers(struct run *run, enum dtype dtype, int64_t count, uint64_t stream, double shift) {
  struct array *array = array_of(run, dtype, count);
  for (int64_t i = 0; i < count; i++)
    array->exact[i] = buffer_number(stream, i) + shift;
  upload(run, array);
  return array;
}

static struct array *values(struct run *run, int64_t count, uint64_t stream) {
  return numbers(run, run->ops->dtype, count, stream, 0);
}

static struct array *parameters(struct run *run, int64_t count, uint64_t stream) {
  return numbers(run, run->ops->parameter_dtype, count, stream, 0);
}

static struct array *same(struct run *run, enum dtype dtype, int64_t count, double value) {
  struct array *array = array_of(run, dtype, count);
  for (int64_t i = 0; i < count; i++)
    array->exact[i] = value;
  upload(run, array);
  return array;
}

/* For a result: filled with what is certainly wrong. */
static struct array *room(struct run *run, enum dtype dtype, int64_t count) {
  return same(run, dtype, count, 1e30);
}

static void *data_of(const struct array *array) {
  return array == NULL ? NULL : array->data;
}

static double *exact_of(const struct array *array) {
  return array == NULL ? NULL : array->exact;
}

static void run_end(struct run *run) {
  for (int i = 0; i < run->count; i++) {
    free(run->arrays[i].exact);
    device_free(run->ops->device, &run->blocks[i]);
  }
  run->count = 0;
}

/* --- comparing ----------------------------------------------------------------------------------------------- */

/* Half a unit in the last place of a type, relative. */
static double rounding(enum dtype dtype) {
  return dtype == BF16 ? 0x1p-9 : dtype == F32 ? 0x1p-24 : 0x1p-53;
}

/* Of the arithmetic between loads and stores: float32 for bfloat16 too. */
static double arithmetic(const struct run *run) {
  return run->ops->dtype == F64 ? 0x1p-53 : 0x1p-24;
}

/* What lies in `array` against `expected`: the result of exact arithmetic may be `error` away before it is rounded to
 * the array's type, and one more half unit for when that falls on the other side. */
static void expect_near(struct run *run, const struct array *array, const char *what, const double *expected,
                        double error) {
  size_t size = dtype_size(array->dtype);
  void *got = malloc((size_t)(array->count + GUARDS) * size);
  OK(device_copy(run->ops->device, got, array->data, (size_t)(array->count + GUARDS) * size));
  OK(device_wait(run->ops->device));
  for (int64_t i = 0; i < array->count; i++) {
    double value = buffer_get(array->dtype, got, i), wanted = expected[i];
    double bound = error + (error > 0 ? 2 : 1) * rounding(array->dtype) * fabs(wanted);
    cr_assert(isnan(wanted) ? isnan(value) : value == wanted || fabs(value - wanted) <= bound,
              "%s, %s: %s[%lld of %lld] is %.9g, not %.9g +- %.2g", run->contract->name, run->name, what, (long long)i,
              (long long)array->count, value, wanted, bound);
  }
  for (int64_t i = array->count; i < array->count + GUARDS; i++)
    cr_assert(eq(dbl, buffer_get(array->dtype, got, i), GUARD_VALUE), "%s, %s: %s was written %lld elements too far",
              run->contract->name, run->name, what, (long long)(i - array->count + 1));
  free(got);
}

/* Against the result of the host's table, which lies in the same array. */
static void expect(struct run *run, const struct array *array, const char *what, double error) {
  expect_near(run, array, what, array->exact, error);
}

/* Bytes in the memory of the table, and back. */
static uint8_t *bytes_to(struct run *run, const uint8_t *bytes, int64_t count) {
  cr_assert(lt(int, run->count, MOST_ARRAYS));
  void **block = &run->blocks[run->count];
  OK(device_alloc(run->ops->device, (size_t)(count + run->offset), block));
  run->arrays[run->count++] = (struct array){.count = count, .exact = malloc(1)};
  OK(device_copy(run->ops->device, (char *)*block + run->offset, bytes, (size_t)count));
  OK(device_wait(run->ops->device));
  return (uint8_t *)*block + run->offset;
}

static void expect_bytes(struct run *run, const uint8_t *data, const uint8_t *expected, int64_t count,
                         const char *what) {
  uint8_t *got = malloc((size_t)count + 1);
  OK(device_copy(run->ops->device, got, data, (size_t)count));
  OK(device_wait(run->ops->device));
  for (int64_t i = 0; i < count; i++)
    cr_assert(eq(u8, got[i], expected[i]), "%s, %s: %s[%lld]", run->contract->name, run->name, what, (long long)i);
  free(got);
}

/* --- linear -------------------------------------------------------------------------------------------------- */

/* A sum of `terms` products of numbers in [-1, 1): each rounding of a factor moves one product by that share of at most
 * 1, independently of the others, so three standard deviations are 3 sqrt(terms) / sqrt(3) of it, and twice that is
 * allowed; sums in float32 grow like sqrt(terms) and are rounded `terms` times at most. */
static double product_error(const struct run *run, double factor_rounding, int64_t terms) {
  double root = sqrt((double)terms) + 1;
  return 4 * factor_rounding * root + arithmetic(run) * (double)terms * root;
}

static void check_linear(const struct ops_contract *contract, int64_t rows, const struct linear_shape *shape,
                         bool biased, int offset) {
  struct run run = run_begin(contract, offset);
  const struct ops *ops = run.ops, *exact = run.exact;
  int64_t in = shape->in, out = shape->out;
  enum dtype wide = shape->wide ? ops->parameter_dtype : ops->dtype;
  snprintf(run.name, sizeof run.name, "linear %lld x %lld -> %lld%s%s, offset %d", (long long)rows, (long long)in,
           (long long)out, shape->wide ? " wide" : "", biased ? " with bias" : "", offset);
  struct array *x = values(&run, rows * in, 1), *weight = parameters(&run, out * in, 2);
  struct array *bias = biased ? parameters(&run, out, 3) : NULL, *grad_y = numbers(&run, wide, rows * out, 4, 0);
  struct array *y = room(&run, wide, rows * out), *grad_x = room(&run, ops->dtype, rows * in);
  struct array *grad_weight = room(&run, ops->parameter_dtype, out * in);
  struct array *grad_bias = biased ? room(&run, ops->parameter_dtype, out) : NULL;
  OK(ops->linear_forward(rows, shape, x->data, weight->data, data_of(bias), y->data));
  OK(exact->linear_forward(rows, shape, x->exact, weight->exact, exact_of(bias), y->exact));
  double own = contract->factor_rounding;
  expect(&run, y, "y", product_error(&run, own, in) + own);
  OK(ops->linear_backward_data(rows, shape, grad_y->data, weight->data, grad_x->data));
  OK(exact->linear_backward_data(rows, shape, grad_y->exact, weight->exact, grad_x->exact));
  expect(&run, grad_x, "grad_x", product_error(&run, 2 * own, out));
  OK(ops->linear_backward_weights(rows, shape, x->data, grad_y->data, grad_weight->data, data_of(grad_bias)));
  OK(exact->linear_backward_weights(rows, shape, x->exact, grad_y->exact, grad_weight->exact, exact_of(grad_bias)));
  expect(&run, grad_weight, "grad_weight", product_error(&run, own, rows));
  if (biased)
    expect(&run, grad_bias, "grad_bias", product_error(&run, 0, rows < 64 ? rows : 64));
  run_end(&run);
}

void ops_contract_linear(const struct ops_contract *contract) {
  static const int64_t rows[] = {0, 1, 3, 130};
  static const int64_t widths[][2] = {{1, 1}, {3, 2}, {13, 5}, {64, 8}, {264, 1}, {72, 40}, {130, 4}, {48, 19}};
  static const struct {
    bool wide, biased;
    int offset;
  } forms[] = {{false, true, 0}, {true, false, 1}, {true, true, 0}, {false, true, 1}};
  for (size_t r = 0; r < LENGTH(rows); r++)
    for (size_t w = 0; w < LENGTH(widths); w++)
      for (size_t f = 0; f < LENGTH(forms); f++)
        check_linear(contract, rows[r], &(struct linear_shape){widths[w][0], widths[w][1], forms[f].wide},
                     forms[f].biased, forms[f].offset);
  check_linear(contract, 2000, &(struct linear_shape){256, 96, false}, true, 0);
  check_linear(contract, 3000, &(struct linear_shape){264, 1, true}, true, 0);
  check_linear(contract, 2, &(struct linear_shape){524296, 4, true}, false, 0); /* more weights than sums are kept of */
  if (contract->ops->device != NULL && contract->ops->precision == PRECISION_F32) /* it takes seconds */
    check_linear(contract, 2, &(struct linear_shape){2097160, 1, true}, false, 0);
}

/* --- activations --------------------------------------------------------------------------------------------- */

static const int64_t counts[] = {0, 1, 7, 8, 4097, 70001};

/* f(x) by functions of the C library or of CUDA that are right to a few units. */
static void check_activation(const struct ops_contract *contract, enum activation activation, int64_t n, int offset,
                             bool in_place) {
  struct run run = run_begin(contract, offset);
  const struct ops *ops = run.ops;
  snprintf(run.name, sizeof run.name, "%s of %lld%s, offset %d", activation_name(activation), (long long)n,
           in_place ? " in place" : "", offset);
  struct array *x = values(&run, n, 1), *grad_y = values(&run, n, 2), *taken = values(&run, n, 3);
  double reach = activation == ACTIVATION_SOFTPLUS ? 60 : 4; /* beyond where it is linear, and where exp(x) is 0 */
  for (int64_t i = 0; i < n; i++) {
    x->exact[i] = i % 97 == 5 ? NAN : i % 89 == 6 ? 0 : reach * x->exact[i];
    taken->exact[i] *= activation == ACTIVATION_SOFTPLUS ? reach : 1;
  }
  upload(&run, x);
  upload(&run, taken);
  struct array *y = in_place ? x : room(&run, ops->dtype, n), *grad_x = in_place ? grad_y : room(&run, ops->dtype, n);
  double error = activation == ACTIVATION_RELU ? 0 : 32 * arithmetic(&run);
  OK(run.exact->activation_backward(activation, (size_t)n, taken->exact, taken->exact, grad_y->exact, grad_x->exact));
  OK(ops->activation_backward(activation, (size_t)n, taken->data, taken->data, grad_y->data, grad_x->data));
  expect(&run, grad_x, "grad_x", error);
  OK(run.exact->activation_forward(activation, (size_t)n, x->exact, y->exact));
  OK(ops->activation_forward(activation, (size_t)n, x->data, y->data));
  expect(&run, y, "y", error);
  run_end(&run);
}

void ops_contract_activations(const struct ops_contract *contract) {
  for (enum activation activation = ACTIVATION_RELU; activation <= ACTIVATION_SOFTPLUS; activation++)
    for (size_t i = 0; i < LENGTH(counts); i++)
      for (int form = 0; form < 4; form++)
        check_activation(contract, activation, counts[i], form & 1, form & 2);
  struct run run = run_begin(contract, 0);
  struct array *x = values(&run, 1, 1);
  cr_assert(eq(int, contract->ops->activation_forward((enum activation)99, 1, x->data, x->data), ERR_BUG));
  run_end(&run);
}

/* --- dropout ------------------------------------------------------------------------------------------------- */

/* Samples, views and an epoch in the memory of the table; the host's come first. */
struct draws {
  struct unit_draw here, there;
  int64_t epoch, *ids;
  void *own_ids, *own_epoch;
};

static void draws_begin(const struct run *run, int64_t samples, struct draws *draws) {
  size_t bytes = (size_t)samples * sizeof *draws->ids;
  draws->ids = malloc(bytes + 1);
  draws->epoch = 1234567;
  for (int64_t i = 0; i < samples; i++)
    draws->ids[i] = 3 * i + ((int64_t)1 << 40);
  draws->here = draws->there = (struct unit_draw){
      .seed = 99, .epoch = &draws->epoch, .layer = 3, .samples = draws->ids, .samples_count = samples, .first_view = 5};
  OK(device_alloc(run->ops->device, bytes, &draws->own_ids));
  OK(device_copy(run->ops->device, draws->own_ids, draws->ids, bytes));
  OK(device_alloc(run->ops->device, sizeof draws->epoch, &draws->own_epoch));
  OK(device_copy(run->ops->device, draws->own_epoch, &draws->epoch, sizeof draws->epoch));
  draws->there.samples = draws->own_ids;
  draws->there.epoch = draws->own_epoch;
}

/* From now on the host's are wrong. */
static void draws_spoil(struct draws *draws) {
  memset(draws->ids, 0, (size_t)draws->here.samples_count * sizeof *draws->ids);
  draws->epoch = 0;
}

static void draws_end(const struct run *run, struct draws *draws) {
  device_free(run->ops->device, &draws->own_epoch);
  device_free(run->ops->device, &draws->own_ids);
  free(draws->ids);
}

static void check_mask(const struct ops_contract *contract, int64_t samples, int views, int64_t width, double share,
                       int offset) {
  struct run run = run_begin(contract, offset);
  int64_t rows = samples * views;
  uint8_t *expected = malloc((size_t)(rows * width) + 1);
  struct draws draws;
  snprintf(run.name, sizeof run.name, "mask of %lld x %d x %lld, share %g, offset %d", (long long)samples, views,
           (long long)width, share, offset);
  draws_begin(&run, samples, &draws);
  OK(run.exact->dropout_mask(rows, width, share, &draws.here, expected));
  draws_spoil(&draws);
  uint8_t *before = memset(malloc((size_t)(rows * width) + 1), 9, (size_t)(rows * width));
  uint8_t *mask = bytes_to(&run, before, rows * width);
  OK(run.ops->dropout_mask(rows, width, share, &draws.there, mask));
  expect_bytes(&run, mask, expected, rows * width, "mask");
  draws_end(&run, &draws);
  free(before);
  free(expected);
  run_end(&run);
}

static void check_dropout(const struct ops_contract *contract, int64_t n, int offset, bool in_place) {
  struct run run = run_begin(contract, offset);
  uint8_t *mask = malloc((size_t)n + 1);
  snprintf(run.name, sizeof run.name, "dropout of %lld%s, offset %d", (long long)n, in_place ? " in place" : "",
           offset);
  for (int64_t i = 0; i < n; i++)
    mask[i] = buffer_number(9, i) > 0;
  struct array *x = values(&run, n, 1), *y = in_place ? x : room(&run, run.ops->dtype, n);
  uint8_t *own = bytes_to(&run, mask, n);
  OK(run.ops->dropout_apply((size_t)n, 0.3, own, x->data, y->data));
  OK(run.exact->dropout_apply((size_t)n, 0.3, mask, x->exact, y->exact));
  expect(&run, y, "y", 4 * arithmetic(&run));
  free(mask);
  run_end(&run);
}

void ops_contract_dropout(const struct ops_contract *contract) {
  static const int64_t widths[] = {1, 3, 16, 37, 64};
  for (size_t w = 0; w < LENGTH(widths); w++)
    for (int offset = 0; offset < 2; offset++) {
      check_mask(contract, 1, 1, widths[w], 0.5, offset);
      check_mask(contract, 29, 3, widths[w], 0.3, offset);
      check_mask(contract, 7, 2, widths[w], 0, offset);
    }
  check_mask(contract, 700, 2, 48, 0.2, 0);
  for (size_t i = 0; i < LENGTH(counts); i++)
    for (int form = 0; form < 4; form++)
      check_dropout(contract, counts[i], form & 1, form & 2);
}

/* --- distributions ------------------------------------------------------------------------------------------- */

static void check_join(const struct ops_contract *contract, int64_t rows, int64_t width, int form) {
  struct run run = run_begin(contract, form & 1);
  const struct ops *ops = run.ops, *exact = run.exact;
  bool first = !(form & 2), second = !(form & 4);
  snprintf(run.name, sizeof run.name, "join of 2 x %lld x %lld, form %d", (long long)rows, (long long)width, form);
  struct array *a = values(&run, rows * width, 1), *b = values(&run, rows * width, 2);
  struct array *y = room(&run, ops->dtype, 2 * rows * width), *grad_y = values(&run, 2 * rows * width, 3);
  struct array *grad_a = first ? room(&run, ops->dtype, rows * width) : NULL;
  struct array *grad_b = second ? room(&run, ops->dtype, rows * width) : NULL;
  OK(exact->join_forward(rows, width, 1.0 / 49, a->exact, b->exact, y->exact));
  OK(ops->join_forward(rows, width, 1.0 / 49, a->data, b->data, y->data));
  expect(&run, y, "y", 4 * arithmetic(&run) / 49);
  OK(exact->join_backward(rows, width, 1.0 / 49, grad_y->exact, exact_of(grad_a), exact_of(grad_b)));
  OK(ops->join_backward(rows, width, 1.0 / 49, grad_y->data, data_of(grad_a), data_of(grad_b)));
  if (first)
    expect(&run, grad_a, "grad_a", 0);
  if (second)
    expect(&run, grad_b, "grad_b", 4 * arithmetic(&run) / 49);
  run_end(&run);
}

static void check_noise(const struct ops_contract *contract, int64_t samples, int views, int64_t width, int offset) {
  struct run run = run_begin(contract, offset);
  struct draws draws;
  int64_t rows = samples * views;
  snprintf(run.name, sizeof run.name, "noise of %lld x %d x %lld, offset %d", (long long)samples, views,
           (long long)width, offset);
  struct array *noise = room(&run, run.ops->parameter_dtype, rows * width);
  draws_begin(&run, samples, &draws);
  OK(run.exact->noise(rows, width, &draws.here, noise->exact));
  draws_spoil(&draws);
  OK(run.ops->noise(rows, width, &draws.there, noise->data));
  expect(&run, noise, "noise", 0x1p-50);
  draws_end(&run, &draws);
  run_end(&run);
}

/* Variances from small ones, as a mean of many has, to large ones. */
static struct array *distributions(struct run *run, int64_t rows, int64_t width) {
  struct array *x = values(run, 2 * rows * width, 1);
  for (int64_t i = 0; i < x->count; i++)
    if (i % (2 * width) >= width)
      x->exact[i] = i % 11 == 3 ? 1e-6 / 49 : fabs(x->exact[i]) + (i % 7 == 2 ? 50 : 0.01);
  upload(run, x);
  return x;
}

static void check_sample(const struct ops_contract *contract, int64_t rows, int64_t width, int form) {
  struct run run = run_begin(contract, form & 1);
  const struct ops *ops = run.ops, *exact = run.exact;
  snprintf(run.name, sizeof run.name, "sample of %lld x %lld, form %d", (long long)rows, (long long)width, form);
  struct array *x = distributions(&run, rows, width), *z = room(&run, ops->dtype, rows * width);
  struct array *noise = form & 2 ? NULL : parameters(&run, rows * width, 2);
  struct array *grad_z = values(&run, rows * width, 3), *grad_x = room(&run, ops->dtype, 2 * rows * width);
  double steepest = 1 / (2 * sqrt(1e-6 / 49)); /* slope of a root: what errors are relative to */
  OK(exact->sample_forward(rows, width, x->exact, exact_of(noise), z->exact));
  OK(ops->sample_forward(rows, width, x->data, data_of(noise), z->data));
  expect(&run, z, "z", noise != NULL ? 4 * 8 * arithmetic(&run) : 0);
  OK(exact->sample_backward(rows, width, x->exact, exact_of(noise), grad_z->exact, grad_x->exact));
  OK(ops->sample_backward(rows, width, noise != NULL ? x->data : NULL, data_of(noise), grad_z->data, grad_x->data));
  expect(&run, grad_x, "grad_x", noise != NULL ? 4 * steepest * arithmetic(&run) : 0);
  run_end(&run);
}

void ops_contract_distributions(const struct ops_contract *contract) {
  static const int64_t rows[] = {0, 1, 3, 70}, widths[] = {1, 7, 8, 64, 200};
  for (size_t r = 0; r < LENGTH(rows); r++)
    for (size_t w = 0; w < LENGTH(widths); w++) {
      for (int form = 0; form < 8; form++)
        check_join(contract, rows[r], widths[w], form);
      for (int form = 0; form < 4; form++)
        check_sample(contract, rows[r], widths[w], form);
      for (int offset = 0; offset < 2; offset++)
        check_noise(contract, rows[r], 3, widths[w], offset);
    }
  check_join(contract, 3000, 201, 1); /* more than a grid has threads */
  check_sample(contract, 3000, 201, 1);
  check_noise(contract, 1500, 2, 201, 1);
}

/* --- convolutions -------------------------------------------------------------------------------------------- */

static void check_conv(const struct ops_contract *contract, struct conv *const convs[2], const struct conv_shape *s,
                       struct workspace workspaces[2], int64_t rows) {
  struct run run = run_begin(contract, 0);
  const struct ops *ops = run.ops, *exact = run.exact;
  int64_t height = spatial_out(s->height, s->kernel, s->stride, s->padding), area = (int64_t)s->kernel * s->kernel;
  int64_t width = spatial_out(s->width, s->kernel, s->stride, s->padding), places = rows * height * width;
  snprintf(run.name, sizeof run.name,
           "convolution of %lld images %lld x %lld x %lld -> %lld by %d, stride %d, padding %d", (long long)rows,
           (long long)s->height, (long long)s->width, (long long)s->in, (long long)s->out, s->kernel, s->stride,
           s->padding);
  struct array *x = values(&run, rows * s->height * s->width * s->in, 1), *grad_y = values(&run, places * s->out, 2);
  struct array *weight = parameters(&run, s->out * s->in * area, 3),
               *bias = s->bias ? parameters(&run, s->out, 4) : NULL;
  struct array *y = room(&run, ops->dtype, grad_y->count), *grad_x = room(&run, ops->dtype, x->count);
  struct array *grad_weight = room(&run, ops->parameter_dtype, weight->count);
  struct array *grad_bias = s->bias ? room(&run, ops->parameter_dtype, s->out) : NULL;
  double own = contract->factor_rounding, least = run.ops->dtype == BF16 ? rounding(BF16) : 0;
  OK(ops->conv_forward(convs[0], &workspaces[0], rows, x->data, weight->data, data_of(bias), y->data));
  OK(exact->conv_forward(convs[1], &workspaces[1], rows, x->exact, weight->exact, exact_of(bias), y->exact));
  /* the bias joins what was rounded to the values' type already */
  expect(&run, y, "y", product_error(&run, own, area * s->in) + (s->bias ? least * sqrt((double)(area * s->in)) : 0));
  OK(ops->conv_backward_data(convs[0], &workspaces[0], rows, grad_y->data, weight->data, grad_x->data));
  OK(exact->conv_backward_data(convs[1], &workspaces[1], rows, grad_y->exact, weight->exact, grad_x->exact));
  expect(&run, grad_x, "grad_x", product_error(&run, own, area * s->out));
  OK(ops->conv_backward_weights(convs[0], &workspaces[0], rows, x->data, grad_y->data, grad_weight->data,
                                data_of(grad_bias)));
  OK(exact->conv_backward_weights(convs[1], &workspaces[1], rows, x->exact, grad_y->exact, grad_weight->exact,
                                  exact_of(grad_bias)));
  /* gradients of weights may be rounded to the values' type; they are at most 3 standard deviations of their sums */
  expect(&run, grad_weight, "grad_weight", product_error(&run, own, places) + least * sqrt((double)places) * 2);
  if (s->bias)
    expect(&run, grad_bias, "grad_bias", product_error(&run, 0, places < 64 ? places : 64));
  run_end(&run);
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
static double sum_error(const struct run *run, int64_t count, double size) {
  return 64 * arithmetic(run) * size * ((double)count / 8 + 1);
}

static void check_statistics(struct run *run, int64_t count, int64_t channels, double shift) {
  struct array *x = numbers(run, run->ops->dtype, count * channels, 1, shift);
  for (int64_t i = 0; i < count; i++) /* the last channel is constant */
    x->exact[i * channels + channels - 1] = shift;
  upload(run, x);
  struct array *mean = room(run, F64, channels), *square = room(run, F64, channels);
  OK(run->ops->norm_statistics((size_t)count, channels, x->data, mean->data, square->data));
  OK(run->exact->norm_statistics((size_t)count, channels, x->exact, mean->exact, square->exact));
  /* deviations from the mean are at most 2, and from one of the values, about which sums are taken, 4: squares of 16 */
  expect(run, mean, "mean", 32 * arithmetic(run));
  expect(run, square, "square", sum_error(run, count, 16) / 4);
  struct array constant = {F64, 1, NULL, (double *)square->data + channels - 1};
  double got;
  OK(device_copy(run->ops->device, &got, constant.data, sizeof got));
  OK(device_wait(run->ops->device));
  cr_assert(eq(dbl, got, 0), "%s, %s: equal values have deviations", run->contract->name, run->name);
}

/* What both halves of the way back and the forward pass read. */
struct norm_case {
  int64_t count, channels;
  struct array *x, *mean, *inverse, *gamma, *beta, *other, *y;
};

/* Values lie far from 0, and float32 does not hold their means: neither may cost digits. */
#define FAR 1000.0

static struct norm_case norm_case(struct run *run, int64_t count, int64_t channels) {
  struct norm_case c = {.count = count, .channels = channels};
  c.x = numbers(run, run->ops->dtype, count * channels, 1, FAR);
  c.mean = numbers(run, F64, channels, 2, FAR);
  for (int64_t i = 0; i < channels; i++)
    c.mean->exact[i] += 2e-5;
  upload(run, c.mean);
  c.inverse = numbers(run, F64, channels, 3, 2);
  c.gamma = parameters(run, channels, 4);
  c.beta = parameters(run, channels, 5);
  c.other = values(run, count * channels, 6);
  c.y = values(run, count * channels, 7);
  for (int64_t i = 0; i < c.y->count; i++) /* relu's output has zeros, and a fault may have passed */
    c.y->exact[i] = i % 101 == 7 ? NAN : c.y->exact[i] < 0 ? 0 : c.y->exact[i];
  upload(run, c.y);
  return c;
}

enum place { APART, OVER_X, OVER_OTHER };

/* Values are at most 4 x 3 x 1 + 1 + 1 in size (x was rounded by up to 2 in bfloat16), with four roundings. */
static void check_norm_forward(struct run *run, int64_t count, int64_t channels, bool add, bool relu,
                               enum place place) {
  struct norm_case c = norm_case(run, count, channels);
  if (c.x->count > 3) {
    c.x->exact[3] = NAN;
    upload(run, c.x);
  }
  struct array *residual = add ? c.other : NULL, *y = place == OVER_X ? c.x : c.other;
  if (place == APART)
    y = room(run, run->ops->dtype, count * channels);
  OK(run->ops->norm_forward((size_t)count, channels, c.x->data, c.mean->data, c.inverse->data, c.gamma->data,
                            c.beta->data, data_of(residual), relu, y->data));
  OK(run->exact->norm_forward((size_t)count, channels, c.x->exact, c.mean->exact, c.inverse->exact, c.gamma->exact,
                              c.beta->exact, exact_of(residual), relu, y->exact));
  expect(run, y, "y", 64 * arithmetic(run));
}

/* masked: 0 = NULL, 1 = apart, 2 = grad, 3 = more. */
static void check_norm_sums(struct run *run, int64_t count, int64_t channels, bool add, bool relu, int masked) {
  struct norm_case c = norm_case(run, count, channels);
  struct array *grad = values(run, count * channels, 8), *more = add ? c.other : NULL;
  struct array *sums = room(run, F64, 2 * channels);
  struct array *left = masked == 0 ? NULL : masked == 2 ? grad : masked == 3 ? c.other : NULL;
  if (masked == 1)
    left = room(run, run->ops->dtype, count * channels);
  OK(run->ops->norm_backward_sums((size_t)count, channels, grad->data, data_of(more), c.x->data,
                                  relu ? c.y->data : NULL, c.mean->data, c.inverse->data, data_of(left), sums->data));
  OK(run->exact->norm_backward_sums((size_t)count, channels, grad->exact, exact_of(more), c.x->exact,
                                    relu ? c.y->exact : NULL, c.mean->exact, c.inverse->exact, exact_of(left),
                                    sums->exact));
  /* where two gradients are added, the sum is rounded before it is summed up: by half a unit of at most 2, times 6 */
  double rounded = add ? 6 * 3 * 2 * rounding(run->ops->dtype) * (sqrt((double)count) + 1) : 0;
  expect(run, sums, "sums", sum_error(run, count, 12) / 4 + rounded);
  if (left != NULL)
    expect(run, left, "masked", add ? 4 * arithmetic(run) : 0);
}

static void check_norm_data(struct run *run, int64_t count, int64_t channels, bool fixed, enum place place) {
  struct norm_case c = norm_case(run, count, channels);
  struct array *mean_g = fixed ? NULL : numbers(run, F64, channels, 8, 0);
  struct array *mean_gx = fixed ? NULL : numbers(run, F64, channels, 9, 0);
  struct array *grad_x = place == OVER_X ? c.x : c.other;
  if (place == APART)
    grad_x = room(run, run->ops->dtype, count * channels);
  OK(run->ops->norm_backward_data((size_t)count, channels, c.other->data, c.x->data, c.mean->data, c.inverse->data,
                                  c.gamma->data, data_of(mean_g), data_of(mean_gx), grad_x->data));
  OK(run->exact->norm_backward_data((size_t)count, channels, c.other->exact, c.x->exact, c.mean->exact,
                                    c.inverse->exact, c.gamma->exact, exact_of(mean_g), exact_of(mean_gx),
                                    grad_x->exact));
  expect(run, grad_x, "grad_x", 256 * arithmetic(run));
}

static void check_norm(const struct ops_contract *contract, int64_t count, int64_t channels, int offset) {
  struct run run = run_begin(contract, offset);
  snprintf(run.name, sizeof run.name, "norm of %lld x %lld, offset %d", (long long)count, (long long)channels, offset);
  check_statistics(&run, count, channels, 0);
  run_end(&run);
  check_statistics(&run, count, channels, 96); /* a mean far away: exact in 8 bits */
  run_end(&run);
  for (int form = 0; form < 4; form++)
    for (enum place place = APART; place <= (form & 1 ? OVER_OTHER : OVER_X); place++) {
      check_norm_forward(&run, count, channels, form & 1, form & 2, place);
      run_end(&run);
    }
  for (int form = 0; form < 4; form++)
    for (int masked = form == 0 ? 0 : 1; masked <= (form & 1 ? 3 : 2); masked++) {
      check_norm_sums(&run, count, channels, form & 1, form & 2, masked);
      run_end(&run);
    }
  for (enum place place = APART; place <= OVER_OTHER; place++) {
    check_norm_data(&run, count, channels, false, place);
    run_end(&run);
    check_norm_data(&run, count, channels, true, place);
    run_end(&run);
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

static void norm_channels_of(struct array *const arrays[NORM_ARRAYS], bool exact, struct norm_channels *out) {
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
  struct run run = run_begin(contract, 0);
  struct array *arrays[NORM_ARRAYS];
  struct norm_channels own = {.channels = channels, .own_count = 5, .shared = shared, .keep = true}, exact = own;
  snprintf(run.name, sizeof run.name, "stage %d of norm, %lld channels%s", (int)stage, (long long)channels,
           shared ? ", shared" : "");
  for (int i = 0; i < NORM_ARRAYS; i++) {
    int64_t count = i == 6 ? 2 * channels + 1 : i == 7 ? channels + 1 : channels;
    arrays[i] = numbers(&run, i < 8 ? F64 : run.ops->parameter_dtype, count, (uint64_t)i + 1, i % 2 == 0 ? 2.5 : 4);
  }
  norm_channels_of(arrays, false, &own);
  norm_channels_of(arrays, true, &exact);
  OK(run.ops->norm_channels(stage, &own));
  OK(run.exact->norm_channels(stage, &exact));
  for (int i = 0; i < NORM_ARRAYS; i++)
    expect(&run, arrays[i], names[i], 0x1p-46); /* a dozen operations on numbers below 50 in double */
  run_end(&run);
}

void ops_contract_norm_channels(const struct ops_contract *contract) {
  for (enum norm_stage stage = NORM_SHARE; stage <= NORM_UPDATE_KEPT; stage++)
    for (int form = 0; form < 4; form++)
      check_stage(contract, stage, form & 1 ? 1 : 300, form & 2);
}

/* --- pooling ------------------------------------------------------------------------------------------------- */

static void check_pool(const struct ops_contract *contract, const struct pool_shape *s, int64_t rows, int offset) {
  struct run run = run_begin(contract, offset);
  const struct ops *ops = run.ops, *exact = run.exact;
  int64_t height = spatial_out(s->height, s->kernel_height, s->stride, s->padding);
  int64_t width = spatial_out(s->width, s->kernel_width, s->stride, s->padding);
  int64_t before = rows * s->height * s->width * s->channels, after = rows * height * width * s->channels;
  snprintf(run.name, sizeof run.name, "pool of %lld x %lld x %lld x %lld by %d x %d, stride %d, padding %d, offset %d",
           (long long)rows, (long long)s->height, (long long)s->width, (long long)s->channels, s->kernel_height,
           s->kernel_width, s->stride, s->padding, offset);
  struct array *x = values(&run, before, 1), *grad_y = values(&run, after, 2), *y = room(&run, ops->dtype, after);
  struct array *grad_x = room(&run, ops->dtype, before);
  uint8_t *chosen = calloc((size_t)after + 1, 1), *own = bytes_to(&run, chosen, after);
  for (int64_t i = 0; i < before; i++) /* ties and faults */
    x->exact[i] = i % 67 == 3 ? NAN : rint(4 * x->exact[i]) / 4;
  upload(&run, x);
  OK(ops->max_pool_forward(s, rows, x->data, y->data, own));
  OK(exact->max_pool_forward(s, rows, x->exact, y->exact, chosen));
  expect(&run, y, "largest", 0);
  expect_bytes(&run, own, chosen, after, "chosen");
  OK(ops->max_pool_backward(s, rows, grad_y->data, own, grad_x->data));
  OK(exact->max_pool_backward(s, rows, grad_y->exact, chosen, grad_x->exact));
  double terms = (double)s->kernel_height * s->kernel_width; /* each at most 1 */
  expect(&run, grad_x, "gradient of the largest", terms * terms * arithmetic(&run));
  OK(ops->average_pool_forward(s, rows, x->data, y->data));
  OK(exact->average_pool_forward(s, rows, x->exact, y->exact));
  expect(&run, y, "average", terms * arithmetic(&run));
  OK(ops->average_pool_backward(s, rows, grad_y->data, grad_x->data));
  OK(exact->average_pool_backward(s, rows, grad_y->exact, grad_x->exact));
  expect(&run, grad_x, "gradient of the average", terms * arithmetic(&run));
  free(chosen);
  run_end(&run);
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
  struct run run = run_begin(contract, offset);
  double mean[40], std[40];
  uint8_t *pixels = malloc((size_t)(count * channels) + 1);
  snprintf(run.name, sizeof run.name, "pixels %lld x %lld, offset %d", (long long)count, (long long)channels, offset);
  for (int c = 0; c < 40; c++) {
    mean[c] = 0.5 + 0.01 * c;
    std[c] = 0.2 + 0.02 * c;
  }
  for (int64_t i = 0; i < count * channels; i++)
    pixels[i] = (uint8_t)(i / channels + 3 * (i % channels));
  const uint8_t *own = bytes_to(&run, pixels, count * channels);
  struct array *y = room(&run, run.ops->dtype, count * channels);
  OK(run.ops->pixels((size_t)count, channels, own, mean, std, y->data));
  OK(run.exact->pixels((size_t)count, channels, pixels, mean, std, y->exact));
  memset(mean, 0, sizeof mean); /* they were read before the call returned */
  expect(&run, y, "y", run.ops->dtype == BF16 ? arithmetic(&run) : 0);
  free(pixels);
  run_end(&run);
}

void ops_contract_pixels(const struct ops_contract *contract) {
  static const int64_t count[] = {0, 1, 8, 4099, 20000}, channels[] = {1, 3, 4, 8, 17, 40};
  for (size_t i = 0; i < LENGTH(count); i++)
    for (size_t c = 0; c < LENGTH(channels); c++)
      for (int offset = 0; offset < 2; offset++)
        check_pixels(contract, count[i], channels[c], offset);
  check_pixels(contract, 50000, 3, 1); /* more than a grid has threads */
}

/* --- rows by buckets ----------------------------------------------------------------------------------------- */

static void check_rows(const struct ops_contract *contract, int64_t rows, int64_t width, int form) {
  enum { BUCKETS = 7 };
  struct run run = run_begin(contract, form & 1);
  bool in_place = form & 2, shifted = form & 4;
  int32_t *bucket = malloc((size_t)rows * sizeof *bucket + 1);
  void *own;
  snprintf(run.name, sizeof run.name, "rows by buckets, %lld x %lld, form %d", (long long)rows, (long long)width, form);
  for (int64_t row = 0; row < rows; row++)
    bucket[row] = (int32_t)(row * 5 % (BUCKETS + 1)) - 1;
  struct array *x = values(&run, rows * width, 1), *y = in_place ? x : room(&run, run.ops->dtype, rows * width);
  struct array *scale = parameters(&run, BUCKETS * width, 2);
  struct array *shift = shifted ? parameters(&run, BUCKETS * width, 3) : NULL;
  OK(device_alloc(run.ops->device, (size_t)rows * sizeof *bucket, &own));
  OK(device_copy(run.ops->device, own, bucket, (size_t)rows * sizeof *bucket));
  OK(run.ops->move_rows(rows, width, own, scale->data, data_of(shift), x->data, y->data));
  OK(run.exact->move_rows(rows, width, bucket, scale->exact, exact_of(shift), x->exact, y->exact));
  expect(&run, y, "y", 4 * arithmetic(&run));
  device_free(run.ops->device, &own);
  free(bucket);
  run_end(&run);
}

void ops_contract_rows(const struct ops_contract *contract) {
  static const int64_t rows[] = {0, 1, 3, 70}, widths[] = {1, 7, 8, 64, 200};
  for (int form = 0; form < 8; form++)
    for (size_t r = 0; r < LENGTH(rows); r++)
      for (size_t w = 0; w < LENGTH(widths); w++)
        check_rows(contract, rows[r], widths[w], form);
  check_rows(contract, 3000, 201, 5); /* more than a grid has threads */
}

/* --- vectors ------------------------------------------------------------------------------------------------- */

static void check_vectors(const struct ops_contract *contract, int64_t n, int offset) {
  struct run run = run_begin(contract, offset);
  const struct ops *ops = run.ops, *exact = run.exact;
  snprintf(run.name, sizeof run.name, "%lld elements, offset %d", (long long)n, offset);
  struct array *x = values(&run, n, 1), *y = values(&run, n, 2), *z = room(&run, ops->dtype, n);
  struct array *p = parameters(&run, n, 3), *q = parameters(&run, n, 4), *squares = room(&run, F64, 1);
  OK(ops->copy((size_t)n, x->data, z->data));
  expect_near(&run, z, "copy", x->exact, 0);
  OK(ops->scale((size_t)n, 0.7, x->data));
  OK(exact->scale((size_t)n, 0.7, x->exact));
  expect(&run, x, "scale", 2 * arithmetic(&run));
  OK(ops->add((size_t)n, -0.3, z->data, y->data));
  for (int64_t i = 0; i < n; i++) /* of what copy left */
    y->exact[i] += -0.3 * (x->exact[i] / 0.7);
  expect(&run, y, "add", 4 * arithmetic(&run) + rounding(ops->dtype) * 0x1p-10);
  OK(ops->zero((size_t)n, z->data));
  OK(exact->zero((size_t)n, z->exact));
  expect(&run, z, "zero", 0);
  OK(ops->sum_squares((size_t)n, p->data, squares->data));
  OK(exact->sum_squares((size_t)n, p->exact, squares->exact));
  expect(&run, squares, "squares", 0x1p-52 * 600 * squares->exact[0]); /* about as many additions in a row */
  OK(ops->accumulate((size_t)n, p->data, q->data));
  OK(exact->accumulate((size_t)n, p->exact, q->exact));
  expect(&run, q, "accumulate", 0);
  run_end(&run);
}

/* The order of summation depends on count alone: not on where the numbers lie. */
static void check_squared_error(const struct ops_contract *contract, int64_t n, int form) {
  struct run run = run_begin(contract, form & 1);
  const struct ops *ops = run.ops;
  bool in_place = form & 2, counted = !(form & 4);
  snprintf(run.name, sizeof run.name, "squared error of %lld elements, form %d", (long long)n, form);
  struct array *x = values(&run, n, 1), *y = values(&run, n, 2), *sum = same(&run, F64, 1, 3);
  struct array *grad = in_place ? x : room(&run, ops->dtype, n);
  OK(ops->squared_error((size_t)n, 0.3, x->data, y->data, grad->data, counted ? sum->data : NULL));
  OK(run.exact->squared_error((size_t)n, 0.3, x->exact, y->exact, grad->exact, counted ? sum->exact : NULL));
  expect(&run, grad, "grad", 4 * arithmetic(&run));
  expect(&run, sum, "sum", counted ? 16 * arithmetic(&run) * (double)n : 0);
  run_end(&run);
}

static void check_squares_order(const struct ops_contract *contract, int64_t n) {
  double sums[2];
  for (int offset = 0; offset < 2; offset++) {
    struct run run = run_begin(contract, offset);
    struct array *p = parameters(&run, n, 3), *squares = room(&run, F64, 1);
    OK(run.ops->sum_squares((size_t)n, p->data, squares->data));
    OK(device_copy(run.ops->device, &sums[offset], squares->data, sizeof(double)));
    OK(device_wait(run.ops->device));
    run_end(&run);
  }
  cr_assert(eq(dbl, sums[0], sums[1]), "%s: squares of %lld", contract->name, (long long)n);
}

void ops_contract_vectors(const struct ops_contract *contract) {
  for (size_t i = 0; i < LENGTH(counts); i++)
    for (int form = 0; form < 8; form++)
      check_squared_error(contract, counts[i], form);
  for (size_t i = 0; i < LENGTH(counts); i++)
    for (int offset = 0; offset < 2; offset++)
      check_vectors(contract, counts[i], offset);
  check_vectors(contract, 600001, 1); /* more than a grid has threads */
  check_squares_order(contract, 70001);
  static const double squares[] = {0, 0.25, 1, 100, NAN, INFINITY};
  for (size_t i = 0; i < LENGTH(squares); i++) {
    struct run run = run_begin(contract, 0);
    struct array *given = same(&run, F64, 1, squares[i]), *factor = room(&run, F64, 1);
    snprintf(run.name, sizeof run.name, "clipping of %g", squares[i]);
    OK(run.ops->clip_factor(0.75, given->data, factor->data));
    OK(run.exact->clip_factor(0.75, given->exact, factor->exact));
    expect(&run, factor, "factor", 0x1p-52);
    run_end(&run);
  }
}

/* --- optimisers ---------------------------------------------------------------------------------------------- */

/* A step where the run's table reads it. */
static void *step_to(const struct run *run, const void *step, size_t bytes) {
  void *own;
  OK(device_alloc(run->ops->device, bytes, &own));
  OK(device_copy(run->ops->device, own, step, bytes));
  return own;
}

static void check_adam(const struct ops_contract *contract, int64_t n, int offset, bool scaled) {
  struct run run = run_begin(contract, offset);
  snprintf(run.name, sizeof run.name, "adam of %lld, offset %d", (long long)n, offset);
  struct array *p = parameters(&run, n, 1), *g = parameters(&run, n, 2), *m = parameters(&run, n, 3);
  struct array *v = numbers(&run, run.ops->parameter_dtype, n, 4, 1.25), *scale = same(&run, F64, 1, 0.4);
  const struct adam_step step = {0.01, 0.5, 0.9, 0.99, 1e-8, 0.1, 0.999};
  void *own = step_to(&run, &step, sizeof step);
  OK(run.ops->adam((size_t)n, own, scaled ? scale->data : NULL, p->data, g->data, m->data, v->data));
  OK(run.exact->adam((size_t)n, &step, scaled ? scale->exact : NULL, p->exact, g->exact, m->exact, v->exact));
  expect(&run, m, "first moments", 8 * arithmetic(&run));
  expect(&run, v, "second moments", 16 * arithmetic(&run));
  expect(&run, p, "parameters", 8 * arithmetic(&run));
  expect(&run, g, "gradients", 0);
  device_free(run.ops->device, &own);
  run_end(&run);
}

static void check_sgd(const struct ops_contract *contract, int64_t n, int offset, bool plain) {
  struct run run = run_begin(contract, offset);
  snprintf(run.name, sizeof run.name, "sgd of %lld%s, offset %d", (long long)n, plain ? " without velocity" : "",
           offset);
  struct array *p = parameters(&run, n, 1), *g = parameters(&run, n, 2), *velocity = parameters(&run, n, 3);
  struct array *scale = same(&run, F64, 1, 0.4);
  const struct sgd_step step = {0.1, 0.9, 0.1};
  void *own = step_to(&run, &step, sizeof step);
  OK(run.ops->sgd((size_t)n, own, plain ? NULL : scale->data, p->data, g->data, plain ? NULL : velocity->data));
  OK(run.exact->sgd((size_t)n, &step, plain ? NULL : scale->exact, p->exact, g->exact, plain ? NULL : velocity->exact));
  expect(&run, p, "parameters", 8 * arithmetic(&run));
  expect(&run, velocity, "velocity", plain ? 0 : 8 * arithmetic(&run));
  device_free(run.ops->device, &own);
  run_end(&run);
}

void ops_contract_optimisers(const struct ops_contract *contract) {
  for (size_t i = 0; i < LENGTH(counts); i++)
    for (int form = 0; form < 4; form++) {
      check_adam(contract, counts[i], form & 1, form & 2);
      check_sgd(contract, counts[i], form & 1, form & 2);
    }
}
