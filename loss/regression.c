/* Pointwise regression losses. */
#include "loss/regression_element.h"

#include <stddef.h>
#include <string.h>

static const char *const kind_names[] = {"l1", "mse", "huber", "focal_l1", "focal_mse"};
static const char *const activation_names[] = {"sigmoid", "tanh"};

enum status regression_by_name(const char *name, enum regression_kind *kind) {
  for (int i = REGRESSION_L1; i <= REGRESSION_FOCAL_MSE; i++)
    if (strcmp(name, kind_names[i]) == 0) {
      *kind = (enum regression_kind)i;
      return STATUS_OK;
    }
  return fail(ERR_ARGUMENT, "unknown regression loss \"%s\"; choose l1, mse, huber, focal_l1 or focal_mse", name);
}

const char *regression_name(enum regression_kind kind) {
  return kind_names[kind];
}

enum status focal_activation_by_name(const char *name, enum focal_activation *activation) {
  for (int i = FOCAL_SIGMOID; i <= FOCAL_TANH; i++)
    if (strcmp(name, activation_names[i]) == 0) {
      *activation = (enum focal_activation)i;
      return STATUS_OK;
    }
  return fail(ERR_ARGUMENT, "unknown focal activation \"%s\"; choose sigmoid or tanh", name);
}

struct regression regression_default(enum regression_kind kind) {
  double beta = kind == REGRESSION_HUBER ? 1 : 0.2;
  return (struct regression){.kind = kind, .beta = beta, .gamma = 1, .activation = FOCAL_SIGMOID};
}

static int is_focal(const struct regression *loss) {
  return loss->kind == REGRESSION_FOCAL_L1 || loss->kind == REGRESSION_FOCAL_MSE;
}

enum status regression_check(const struct regression *loss) {
  if (loss->kind == REGRESSION_HUBER || is_focal(loss))
    REQUIRE(isfinite(loss->beta) && loss->beta > 0, ERR_ARGUMENT, "beta %g of the %s loss must be greater than 0",
            loss->beta, regression_name(loss->kind));
  if (is_focal(loss))
    REQUIRE(isfinite(loss->gamma) && loss->gamma >= 0, ERR_ARGUMENT, "gamma %g of the %s loss must be 0 or greater",
            loss->gamma, regression_name(loss->kind));
  return STATUS_OK;
}

void regression_loss(const struct regression *loss, enum dtype dtype, int64_t rows, int targets, const void *pred,
                     const void *target, const void *weight, int64_t rows_global, void *grad, double *loss_local) {
  double sum = 0, count = (double)rows_global * targets;
  for (int64_t row = 0; row < rows; row++) {
    double row_weight = weight == NULL ? 1 : dtype_get(dtype, weight, row);
    for (int64_t i = row * targets; i < (row + 1) * targets; i++) {
      struct element element = element_of(loss, dtype_get(dtype, pred, i) - dtype_get(dtype, target, i));
      sum += row_weight * element.value;
      if (grad != NULL)
        dtype_put(dtype, grad, i, row_weight * element.slope / count);
    }
  }
  *loss_local = count > 0 ? sum / count : 0;
}

int64_t regression_first_nonfinite(enum dtype dtype, int64_t count, const void *pred) {
  for (int64_t i = 0; i < count; i++)
    if (!isfinite(dtype_get(dtype, pred, i)))
      return i;
  return -1;
}
