/* Layers against stored inputs, outputs and gradients (tests/golden/layers.h5), whatever cases the file holds. */
#include "model/ops.h"

#include "tests/golden.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())

struct run {
  const struct ops *ops;
  enum dtype dtype;
  const struct golden_file *file;
  const char *name;
};

/* A stored array in the precision under test; free() it. */
static void *load(const struct run *run, const char *path, int64_t *count) {
  struct golden_array array = golden_read(run->file, run->name, path);
  void *data = golden_buffer(&array, run->dtype);
  if (count != NULL)
    *count = array.count;
  golden_free(&array);
  return data;
}

/* Compare and free: float64 to 1e-12, float32 to 1e-5 of the largest value. */
static void expect(const struct run *run, const char *path, void *got) {
  struct golden_array expected = golden_read(run->file, run->name, path);
  double error = golden_array_error(run->dtype, expected.count, got, expected.data);
  double tolerance = run->dtype == F64 ? 1e-12 : 1e-5;
  cr_assert(le(dbl, error, tolerance), "%s/%s in %s differs by %g", run->name, path, dtype_name(run->dtype), error);
  golden_free(&expected);
  free(got);
}

/* Room for a result of the size of a stored array, filled with what is certainly wrong. */
static void *room(const struct run *run, const char *path) {
  struct golden_array array = golden_read(run->file, run->name, path);
  for (int64_t i = 0; i < array.count; i++)
    array.data[i] = 1e30;
  void *data = golden_buffer(&array, run->dtype);
  golden_free(&array);
  return data;
}

static void run_linear(const struct run *run) {
  struct golden_array shape = golden_read(run->file, run->name, "weight");
  int64_t out = shape.shape[0], in = shape.shape[1], inputs;
  bool biased = golden_has(run->file, run->name, "bias");
  golden_free(&shape);
  void *x = load(run, "input", &inputs), *weight = load(run, "weight", NULL);
  void *bias = biased ? load(run, "bias", NULL) : NULL, *grad_y = load(run, "grad_output", NULL);
  void *y = room(run, "output"), *grad_x = room(run, "grad_input"), *grad_weight = room(run, "grad_weight");
  void *grad_bias = biased ? room(run, "grad_bias") : NULL;
  int64_t rows = inputs / in;
  OK(run->ops->linear_forward(rows, in, out, x, weight, bias, y));
  OK(run->ops->linear_backward_data(rows, in, out, grad_y, weight, grad_x));
  OK(run->ops->linear_backward_weights(rows, in, out, x, grad_y, grad_weight, grad_bias));
  expect(run, "output", y);
  expect(run, "grad_input", grad_x);
  expect(run, "grad_weight", grad_weight);
  if (biased)
    expect(run, "grad_bias", grad_bias);
  free(x);
  free(weight);
  free(bias);
  free(grad_y);
}

static void run_relu(const struct run *run) {
  int64_t count;
  void *x = load(run, "input", &count), *grad_y = load(run, "grad_output", NULL);
  void *y = room(run, "output"), *grad_x = room(run, "grad_input");
  OK(run->ops->activation_forward(ACTIVATION_RELU, (size_t)count, x, y));
  OK(run->ops->activation_backward(ACTIVATION_RELU, (size_t)count, x, y, grad_y, grad_x));
  expect(run, "output", y);
  expect(run, "grad_input", grad_x);
  free(x);
  free(grad_y);
}

static void run_dropout(const struct run *run) {
  int64_t count;
  double share = golden_number(run->file, run->name, "p", -1);
  struct golden_array stored = golden_read(run->file, run->name, "mask");
  uint8_t *mask = malloc((size_t)stored.count);
  for (int64_t i = 0; i < stored.count; i++)
    mask[i] = stored.data[i] != 0;
  void *x = load(run, "input", &count), *grad_y = load(run, "grad_output", NULL);
  void *y = room(run, "output"), *grad_x = room(run, "grad_input");
  OK(run->ops->dropout_apply((size_t)count, share, mask, x, y));
  OK(run->ops->dropout_apply((size_t)count, share, mask, grad_y, grad_x));
  expect(run, "output", y);
  expect(run, "grad_input", grad_x);
  golden_free(&stored);
  free(mask);
  free(x);
  free(grad_y);
}

static const struct {
  const char *op;
  void (*check)(const struct run *run);
} layers[] = {{"linear", run_linear}, {"relu", run_relu}, {"dropout", run_dropout}};

/* False when the layer is not there yet. */
static bool check_case(const struct golden_file *file, const char *name, const char *op) {
  for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
    if (strcmp(op, layers[i].op) != 0)
      continue;
    for (enum dtype dtype = F32; dtype <= F64; dtype++)
      layers[i].check(&(struct run){ops_get("cpu", dtype), dtype, file, name});
    return true;
  }
  return false;
}

Test(golden_layers, stored_layers_are_reproduced_in_both_precisions) {
  struct golden_file *file = golden_open("layers.h5");
  for (int i = 0; i < golden_case_count(file); i++) {
    const char *name = golden_case_name(file, i);
    char op[64], reason[128];
    golden_text(file, name, "op", "", op, sizeof op);
    snprintf(reason, sizeof reason, "%s comes with the image engine", op);
    if (check_case(file, name, op))
      golden_ran(file);
    else
      golden_skip(file, reason);
  }
  golden_report(file);
  golden_close(&file);
}
