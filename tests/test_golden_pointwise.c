/* Pointwise losses against golden vectors of the published functions. */
#include "loss/regression.h"
#include "tests/golden.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>

struct tolerance {
  double loss, grad;
};

/* The golden set's own suggestion; the float32 column allows for float32 accumulation, which we do not use. */
static const struct tolerance tolerances[] = {[F32] = {2e-5, 1e-4}, [F64] = {1e-12, 1e-11}};

static struct regression read_options(const struct golden_file *file, const char *name) {
  char text[32];
  struct regression loss;
  golden_text(file, name, "loss_name", "?", text, sizeof text);
  cr_assert(eq(int, regression_by_name(text, &loss.kind), STATUS_OK), "%s: %s", name, status_message());
  loss = regression_default(loss.kind);
  loss.beta = golden_number(file, name, "beta", loss.beta);
  loss.gamma = golden_number(file, name, "gamma", loss.gamma);
  golden_text(file, name, "activate", "sigmoid", text, sizeof text);
  enum status status = focal_activation_by_name(text, &loss.activation);
  cr_assert(eq(int, status, STATUS_OK), "%s: %s", name, status_message());
  cr_assert(eq(int, regression_check(&loss), STATUS_OK), "%s: %s", name, status_message());
  return loss;
}

static void check_case(const struct golden_file *file, const char *name, enum dtype dtype) {
  struct regression loss = read_options(file, name);
  struct golden_array pred = golden_read(file, name, "pred"), target = golden_read(file, name, "target");
  struct golden_array weights = golden_read(file, name, "weights"), expected = golden_read(file, name, "grad_pred");
  void *p = golden_buffer(&pred, dtype), *y = golden_buffer(&target, dtype);
  void *w = golden_number(file, name, "weights_given", 0) != 0 ? golden_buffer(&weights, dtype) : NULL;
  int64_t rows = pred.shape[0];
  int targets = (int)pred.shape[1];
  void *grad = malloc((size_t)pred.count * dtype_size(dtype));
  double value;
  regression_loss(&loss, dtype, rows, targets, p, y, w, rows, grad, &value);

  double loss_error = golden_scalar_error(value, golden_scalar(file, name, "loss"));
  double grad_error = golden_array_error(dtype, pred.count, grad, expected.data);
  cr_expect(le(dbl, loss_error, tolerances[dtype].loss), "%s in %s: loss %.17g, expected %.17g", name,
            dtype_name(dtype), value, golden_scalar(file, name, "loss"));
  cr_expect(le(dbl, grad_error, tolerances[dtype].grad), "%s in %s: gradient off by %g", name, dtype_name(dtype),
            grad_error);
  free(grad);
  free(w);
  free(y);
  free(p);
  golden_free(&expected);
  golden_free(&weights);
  golden_free(&target);
  golden_free(&pred);
}

Test(golden_pointwise, losses_and_gradients_equal_the_published_ones_in_both_precisions) {
  struct golden_file *file = golden_open("pointwise_losses.h5");
  for (int i = 0; i < golden_case_count(file); i++) {
    check_case(file, golden_case_name(file, i), F64);
    check_case(file, golden_case_name(file, i), F32);
    golden_ran(file);
  }
  golden_report(file);
  golden_close(&file);
}
