/* What every table of operations must do: products, elements, draws, vectors, optimisers. */
#include "tests/ops_run.h"

#include "tests/buffers.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- linear -------------------------------------------------------------------------------------------------- */

static void check_linear(const struct ops_contract *contract, int64_t rows, const struct linear_shape *shape,
                         bool biased, int offset) {
  struct ops_run run = ops_run_begin(contract, offset);
  const struct ops *ops = run.ops, *exact = run.exact;
  int64_t in = shape->in, out = shape->out;
  enum dtype wide = shape->wide ? ops->parameter_dtype : ops->dtype;
  snprintf(run.name, sizeof run.name, "linear %lld x %lld -> %lld%s%s, offset %d", (long long)rows, (long long)in,
           (long long)out, shape->wide ? " wide" : "", biased ? " with bias" : "", offset);
  struct ops_array *x = ops_values(&run, rows * in, 1), *weight = ops_parameters(&run, out * in, 2);
  struct ops_array *bias = biased ? ops_parameters(&run, out, 3) : NULL,
                   *grad_y = ops_numbers(&run, wide, rows * out, 4, 0);
  struct ops_array *y = ops_room(&run, wide, rows * out), *grad_x = ops_room(&run, ops->dtype, rows * in);
  struct ops_array *grad_weight = ops_room(&run, ops->parameter_dtype, out * in);
  struct ops_array *grad_bias = biased ? ops_room(&run, ops->parameter_dtype, out) : NULL;
  OK(ops->linear_forward(rows, shape, x->data, weight->data, ops_data(bias), y->data));
  OK(exact->linear_forward(rows, shape, x->exact, weight->exact, ops_exact(bias), y->exact));
  double own = contract->factor_rounding;
  ops_expect(&run, y, "y", ops_product_error(&run, own, in) + own);
  OK(ops->linear_backward_data(rows, shape, grad_y->data, weight->data, grad_x->data));
  OK(exact->linear_backward_data(rows, shape, grad_y->exact, weight->exact, grad_x->exact));
  ops_expect(&run, grad_x, "grad_x", ops_product_error(&run, 2 * own, out));
  OK(ops->linear_backward_weights(rows, shape, x->data, grad_y->data, grad_weight->data, ops_data(grad_bias)));
  OK(exact->linear_backward_weights(rows, shape, x->exact, grad_y->exact, grad_weight->exact, ops_exact(grad_bias)));
  ops_expect(&run, grad_weight, "grad_weight", ops_product_error(&run, own, rows));
  if (biased)
    ops_expect(&run, grad_bias, "grad_bias", ops_product_error(&run, 0, rows < 64 ? rows : 64));
  ops_run_end(&run);
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
  struct ops_run run = ops_run_begin(contract, offset);
  const struct ops *ops = run.ops;
  snprintf(run.name, sizeof run.name, "%s of %lld%s, offset %d", activation_name(activation), (long long)n,
           in_place ? " in place" : "", offset);
  struct ops_array *x = ops_values(&run, n, 1), *grad_y = ops_values(&run, n, 2), *taken = ops_values(&run, n, 3);
  double reach = activation == ACTIVATION_SOFTPLUS ? 60 : 4; /* beyond where it is linear, and where exp(x) is 0 */
  for (int64_t i = 0; i < n; i++) {
    x->exact[i] = i % 97 == 5 ? NAN : i % 89 == 6 ? 0 : reach * x->exact[i];
    taken->exact[i] *= activation == ACTIVATION_SOFTPLUS ? reach : 1;
  }
  ops_upload(&run, x);
  ops_upload(&run, taken);
  struct ops_array *y = in_place ? x : ops_room(&run, ops->dtype, n),
                   *grad_x = in_place ? grad_y : ops_room(&run, ops->dtype, n);
  double error = activation == ACTIVATION_RELU ? 0 : 32 * ops_arithmetic(&run);
  OK(run.exact->activation_backward(activation, (size_t)n, taken->exact, taken->exact, grad_y->exact, grad_x->exact));
  OK(ops->activation_backward(activation, (size_t)n, taken->data, taken->data, grad_y->data, grad_x->data));
  ops_expect(&run, grad_x, "grad_x", error);
  OK(run.exact->activation_forward(activation, (size_t)n, x->exact, y->exact));
  OK(ops->activation_forward(activation, (size_t)n, x->data, y->data));
  ops_expect(&run, y, "y", error);
  ops_run_end(&run);
}

void ops_contract_activations(const struct ops_contract *contract) {
  for (enum activation activation = ACTIVATION_RELU; activation <= ACTIVATION_SOFTPLUS; activation++)
    for (size_t i = 0; i < LENGTH(counts); i++)
      for (int form = 0; form < 4; form++)
        check_activation(contract, activation, counts[i], form & 1, form & 2);
  struct ops_run run = ops_run_begin(contract, 0);
  struct ops_array *x = ops_values(&run, 1, 1);
  cr_assert(eq(int, contract->ops->activation_forward((enum activation)99, 1, x->data, x->data), ERR_BUG));
  ops_run_end(&run);
}

/* --- dropout ------------------------------------------------------------------------------------------------- */

/* Samples, views and an epoch in the memory of the table; the host's come first. */
struct draws {
  struct unit_draw here, there;
  int64_t epoch, *ids;
  void *own_ids, *own_epoch;
};

static void draws_begin(const struct ops_run *run, int64_t samples, struct draws *draws) {
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

static void draws_end(const struct ops_run *run, struct draws *draws) {
  device_free(run->ops->device, &draws->own_epoch);
  device_free(run->ops->device, &draws->own_ids);
  free(draws->ids);
}

static void check_mask(const struct ops_contract *contract, int64_t samples, int views, int64_t width, double share,
                       int offset) {
  struct ops_run run = ops_run_begin(contract, offset);
  int64_t rows = samples * views;
  uint8_t *expected = malloc((size_t)(rows * width) + 1);
  struct draws draws;
  snprintf(run.name, sizeof run.name, "mask of %lld x %d x %lld, share %g, offset %d", (long long)samples, views,
           (long long)width, share, offset);
  draws_begin(&run, samples, &draws);
  OK(run.exact->dropout_mask(rows, width, share, &draws.here, expected));
  draws_spoil(&draws);
  uint8_t *before = memset(malloc((size_t)(rows * width) + 1), 9, (size_t)(rows * width));
  uint8_t *mask = ops_bytes(&run, before, rows * width);
  OK(run.ops->dropout_mask(rows, width, share, &draws.there, mask));
  ops_expect_bytes(&run, mask, expected, rows * width, "mask");
  draws_end(&run, &draws);
  free(before);
  free(expected);
  ops_run_end(&run);
}

static void check_dropout(const struct ops_contract *contract, int64_t n, int offset, bool in_place) {
  struct ops_run run = ops_run_begin(contract, offset);
  uint8_t *mask = malloc((size_t)n + 1);
  snprintf(run.name, sizeof run.name, "dropout of %lld%s, offset %d", (long long)n, in_place ? " in place" : "",
           offset);
  for (int64_t i = 0; i < n; i++)
    mask[i] = buffer_number(9, i) > 0;
  struct ops_array *x = ops_values(&run, n, 1), *y = in_place ? x : ops_room(&run, run.ops->dtype, n);
  uint8_t *own = ops_bytes(&run, mask, n);
  OK(run.ops->dropout_apply((size_t)n, 0.3, own, x->data, y->data));
  OK(run.exact->dropout_apply((size_t)n, 0.3, mask, x->exact, y->exact));
  ops_expect(&run, y, "y", 4 * ops_arithmetic(&run));
  free(mask);
  ops_run_end(&run);
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
  struct ops_run run = ops_run_begin(contract, form & 1);
  const struct ops *ops = run.ops, *exact = run.exact;
  bool first = !(form & 2), second = !(form & 4);
  snprintf(run.name, sizeof run.name, "join of 2 x %lld x %lld, form %d", (long long)rows, (long long)width, form);
  struct ops_array *a = ops_values(&run, rows * width, 1), *b = ops_values(&run, rows * width, 2);
  struct ops_array *y = ops_room(&run, ops->dtype, 2 * rows * width), *grad_y = ops_values(&run, 2 * rows * width, 3);
  struct ops_array *grad_a = first ? ops_room(&run, ops->dtype, rows * width) : NULL;
  struct ops_array *grad_b = second ? ops_room(&run, ops->dtype, rows * width) : NULL;
  OK(exact->join_forward(rows, width, 1.0 / 49, a->exact, b->exact, y->exact));
  OK(ops->join_forward(rows, width, 1.0 / 49, a->data, b->data, y->data));
  ops_expect(&run, y, "y", 4 * ops_arithmetic(&run) / 49);
  OK(exact->join_backward(rows, width, 1.0 / 49, grad_y->exact, ops_exact(grad_a), ops_exact(grad_b)));
  OK(ops->join_backward(rows, width, 1.0 / 49, grad_y->data, ops_data(grad_a), ops_data(grad_b)));
  if (first)
    ops_expect(&run, grad_a, "grad_a", 0);
  if (second)
    ops_expect(&run, grad_b, "grad_b", 4 * ops_arithmetic(&run) / 49);
  ops_run_end(&run);
}

static void check_noise(const struct ops_contract *contract, int64_t samples, int views, int64_t width, int offset) {
  struct ops_run run = ops_run_begin(contract, offset);
  struct draws draws;
  int64_t rows = samples * views;
  snprintf(run.name, sizeof run.name, "noise of %lld x %d x %lld, offset %d", (long long)samples, views,
           (long long)width, offset);
  struct ops_array *noise = ops_room(&run, run.ops->parameter_dtype, rows * width);
  draws_begin(&run, samples, &draws);
  OK(run.exact->noise(rows, width, &draws.here, noise->exact));
  draws_spoil(&draws);
  OK(run.ops->noise(rows, width, &draws.there, noise->data));
  ops_expect(&run, noise, "noise", 0x1p-50);
  draws_end(&run, &draws);
  ops_run_end(&run);
}

/* Variances from small ones, as a mean of many has, to large ones. */
static struct ops_array *distributions(struct ops_run *run, int64_t rows, int64_t width) {
  struct ops_array *x = ops_values(run, 2 * rows * width, 1);
  for (int64_t i = 0; i < x->count; i++)
    if (i % (2 * width) >= width)
      x->exact[i] = i % 11 == 3 ? 1e-6 / 49 : fabs(x->exact[i]) + (i % 7 == 2 ? 50 : 0.01);
  ops_upload(run, x);
  return x;
}

static void check_sample(const struct ops_contract *contract, int64_t rows, int64_t width, int form) {
  struct ops_run run = ops_run_begin(contract, form & 1);
  const struct ops *ops = run.ops, *exact = run.exact;
  snprintf(run.name, sizeof run.name, "sample of %lld x %lld, form %d", (long long)rows, (long long)width, form);
  struct ops_array *x = distributions(&run, rows, width), *z = ops_room(&run, ops->dtype, rows * width);
  struct ops_array *noise = form & 2 ? NULL : ops_parameters(&run, rows * width, 2);
  struct ops_array *grad_z = ops_values(&run, rows * width, 3), *grad_x = ops_room(&run, ops->dtype, 2 * rows * width);
  double steepest = 1 / (2 * sqrt(1e-6 / 49)); /* slope of a root: what errors are relative to */
  OK(exact->sample_forward(rows, width, x->exact, ops_exact(noise), z->exact));
  OK(ops->sample_forward(rows, width, x->data, ops_data(noise), z->data));
  ops_expect(&run, z, "z", noise != NULL ? 4 * 8 * ops_arithmetic(&run) : 0);
  OK(exact->sample_backward(rows, width, x->exact, ops_exact(noise), grad_z->exact, grad_x->exact));
  OK(ops->sample_backward(rows, width, noise != NULL ? x->data : NULL, ops_data(noise), grad_z->data, grad_x->data));
  ops_expect(&run, grad_x, "grad_x", noise != NULL ? 4 * steepest * ops_arithmetic(&run) : 0);
  ops_run_end(&run);
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

/* --- rows by buckets ----------------------------------------------------------------------------------------- */

static void check_rows(const struct ops_contract *contract, int64_t rows, int64_t width, int form) {
  enum { BUCKETS = 7 };
  struct ops_run run = ops_run_begin(contract, form & 1);
  bool in_place = form & 2, shifted = form & 4;
  int32_t *bucket = malloc((size_t)rows * sizeof *bucket + 1);
  void *own;
  snprintf(run.name, sizeof run.name, "rows by buckets, %lld x %lld, form %d", (long long)rows, (long long)width, form);
  for (int64_t row = 0; row < rows; row++)
    bucket[row] = (int32_t)(row * 5 % (BUCKETS + 1)) - 1;
  struct ops_array *x = ops_values(&run, rows * width, 1),
                   *y = in_place ? x : ops_room(&run, run.ops->dtype, rows * width);
  struct ops_array *scale = ops_parameters(&run, BUCKETS * width, 2);
  struct ops_array *shift = shifted ? ops_parameters(&run, BUCKETS * width, 3) : NULL;
  OK(device_alloc(run.ops->device, (size_t)rows * sizeof *bucket, &own));
  OK(device_copy(run.ops->device, own, bucket, (size_t)rows * sizeof *bucket));
  OK(run.ops->move_rows(rows, width, own, scale->data, ops_data(shift), x->data, y->data));
  OK(run.exact->move_rows(rows, width, bucket, scale->exact, ops_exact(shift), x->exact, y->exact));
  ops_expect(&run, y, "y", 4 * ops_arithmetic(&run));
  device_free(run.ops->device, &own);
  free(bucket);
  ops_run_end(&run);
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
  struct ops_run run = ops_run_begin(contract, offset);
  const struct ops *ops = run.ops, *exact = run.exact;
  snprintf(run.name, sizeof run.name, "%lld elements, offset %d", (long long)n, offset);
  struct ops_array *x = ops_values(&run, n, 1), *y = ops_values(&run, n, 2), *z = ops_room(&run, ops->dtype, n);
  struct ops_array *p = ops_parameters(&run, n, 3), *q = ops_parameters(&run, n, 4), *squares = ops_room(&run, F64, 1);
  OK(ops->copy((size_t)n, x->data, z->data));
  ops_expect_near(&run, z, "copy", x->exact, 0);
  OK(ops->scale((size_t)n, 0.7, x->data));
  OK(exact->scale((size_t)n, 0.7, x->exact));
  ops_expect(&run, x, "scale", 2 * ops_arithmetic(&run));
  OK(ops->add((size_t)n, -0.3, z->data, y->data));
  for (int64_t i = 0; i < n; i++) /* of what copy left */
    y->exact[i] += -0.3 * (x->exact[i] / 0.7);
  ops_expect(&run, y, "add", 4 * ops_arithmetic(&run) + ops_rounding(ops->dtype) * 0x1p-10);
  OK(ops->zero((size_t)n, z->data));
  OK(exact->zero((size_t)n, z->exact));
  ops_expect(&run, z, "zero", 0);
  OK(ops->sum_squares((size_t)n, p->data, squares->data));
  OK(exact->sum_squares((size_t)n, p->exact, squares->exact));
  ops_expect(&run, squares, "squares", 0x1p-52 * 600 * squares->exact[0]); /* about as many additions in a row */
  OK(ops->accumulate((size_t)n, p->data, q->data));
  OK(exact->accumulate((size_t)n, p->exact, q->exact));
  ops_expect(&run, q, "accumulate", 0);
  ops_run_end(&run);
}

/* The order of summation depends on count alone: not on where the numbers lie. */
static void check_squared_error(const struct ops_contract *contract, int64_t n, int form) {
  struct ops_run run = ops_run_begin(contract, form & 1);
  const struct ops *ops = run.ops;
  bool in_place = form & 2, counted = !(form & 4);
  snprintf(run.name, sizeof run.name, "squared error of %lld elements, form %d", (long long)n, form);
  struct ops_array *x = ops_values(&run, n, 1), *y = ops_values(&run, n, 2), *sum = ops_same(&run, F64, 1, 3);
  struct ops_array *grad = in_place ? x : ops_room(&run, ops->dtype, n);
  OK(ops->squared_error((size_t)n, 0.3, x->data, y->data, grad->data, counted ? sum->data : NULL));
  OK(run.exact->squared_error((size_t)n, 0.3, x->exact, y->exact, grad->exact, counted ? sum->exact : NULL));
  ops_expect(&run, grad, "grad", 4 * ops_arithmetic(&run));
  ops_expect(&run, sum, "sum", counted ? 16 * ops_arithmetic(&run) * (double)n : 0);
  ops_run_end(&run);
}

static void check_squares_order(const struct ops_contract *contract, int64_t n) {
  double sums[2];
  for (int offset = 0; offset < 2; offset++) {
    struct ops_run run = ops_run_begin(contract, offset);
    struct ops_array *p = ops_parameters(&run, n, 3), *squares = ops_room(&run, F64, 1);
    OK(run.ops->sum_squares((size_t)n, p->data, squares->data));
    OK(device_copy(run.ops->device, &sums[offset], squares->data, sizeof(double)));
    OK(device_wait(run.ops->device));
    ops_run_end(&run);
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
    struct ops_run run = ops_run_begin(contract, 0);
    struct ops_array *given = ops_same(&run, F64, 1, squares[i]), *factor = ops_room(&run, F64, 1);
    snprintf(run.name, sizeof run.name, "clipping of %g", squares[i]);
    OK(run.ops->clip_factor(0.75, given->data, factor->data));
    OK(run.exact->clip_factor(0.75, given->exact, factor->exact));
    ops_expect(&run, factor, "factor", 0x1p-52);
    ops_run_end(&run);
  }
}

/* --- optimisers ---------------------------------------------------------------------------------------------- */

/* A step where the run's table reads it. */
static void *step_to(const struct ops_run *run, const void *step, size_t bytes) {
  void *own;
  OK(device_alloc(run->ops->device, bytes, &own));
  OK(device_copy(run->ops->device, own, step, bytes));
  return own;
}

static void check_adam(const struct ops_contract *contract, int64_t n, int offset, bool scaled) {
  struct ops_run run = ops_run_begin(contract, offset);
  snprintf(run.name, sizeof run.name, "adam of %lld, offset %d", (long long)n, offset);
  struct ops_array *p = ops_parameters(&run, n, 1), *g = ops_parameters(&run, n, 2), *m = ops_parameters(&run, n, 3);
  struct ops_array *v = ops_numbers(&run, run.ops->parameter_dtype, n, 4, 1.25), *scale = ops_same(&run, F64, 1, 0.4);
  const struct adam_step step = {0.01, 0.5, 0.9, 0.99, 1e-8, 0.1, 0.999};
  void *own = step_to(&run, &step, sizeof step);
  OK(run.ops->adam((size_t)n, own, scaled ? scale->data : NULL, p->data, g->data, m->data, v->data));
  OK(run.exact->adam((size_t)n, &step, scaled ? scale->exact : NULL, p->exact, g->exact, m->exact, v->exact));
  ops_expect(&run, m, "first moments", 8 * ops_arithmetic(&run));
  ops_expect(&run, v, "second moments", 16 * ops_arithmetic(&run));
  ops_expect(&run, p, "parameters", 8 * ops_arithmetic(&run));
  ops_expect(&run, g, "gradients", 0);
  device_free(run.ops->device, &own);
  ops_run_end(&run);
}

static void check_sgd(const struct ops_contract *contract, int64_t n, int offset, bool plain) {
  struct ops_run run = ops_run_begin(contract, offset);
  snprintf(run.name, sizeof run.name, "sgd of %lld%s, offset %d", (long long)n, plain ? " without velocity" : "",
           offset);
  struct ops_array *p = ops_parameters(&run, n, 1), *g = ops_parameters(&run, n, 2),
                   *velocity = ops_parameters(&run, n, 3);
  struct ops_array *scale = ops_same(&run, F64, 1, 0.4);
  const struct sgd_step step = {0.1, 0.9, 0.1};
  void *own = step_to(&run, &step, sizeof step);
  OK(run.ops->sgd((size_t)n, own, plain ? NULL : scale->data, p->data, g->data, plain ? NULL : velocity->data));
  OK(run.exact->sgd((size_t)n, &step, plain ? NULL : scale->exact, p->exact, g->exact, plain ? NULL : velocity->exact));
  ops_expect(&run, p, "parameters", 8 * ops_arithmetic(&run));
  ops_expect(&run, velocity, "velocity", plain ? 0 : 8 * ops_arithmetic(&run));
  device_free(run.ops->device, &own);
  ops_run_end(&run);
}

void ops_contract_optimisers(const struct ops_contract *contract) {
  for (size_t i = 0; i < LENGTH(counts); i++)
    for (int form = 0; form < 4; form++) {
      check_adam(contract, counts[i], form & 1, form & 2);
      check_sgd(contract, counts[i], form & 1, form & 2);
    }
}
