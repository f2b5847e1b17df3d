/* The choice of a backend, and the names of precisions and activations. */
#include "model/ops.h"

#include "model/ops_cpu.h"

#include <string.h>

static const char *const precision_names[] = {
    [PRECISION_F64] = "f64", [PRECISION_F32] = "f32", [PRECISION_TF32] = "tf32", [PRECISION_BF16] = "bf16"};

#define PRECISIONS (sizeof precision_names / sizeof *precision_names)

enum status precision_parse(const char *name, enum precision *out) {
  for (size_t i = 0; i < PRECISIONS; i++) {
    if (strcmp(name, precision_names[i]) == 0) {
      *out = (enum precision)i;
      return STATUS_OK;
    }
  }
  return fail(ERR_ARGUMENT, "precision \"%s\" is unknown; choose one of: f64, f32, tf32, bf16", name);
}

const char *precision_name(enum precision precision) {
  return precision_names[precision];
}

const struct ops *ops_host(enum dtype dtype) {
  return dtype == F64 ? &ops_cpu_f64 : &ops_cpu_f32;
}

enum status ops_open(struct device *device, enum precision precision, const struct ops **out) {
  *out = NULL;
  if (device == NULL) {
    REQUIRE(precision == PRECISION_F32 || precision == PRECISION_F64, ERR_ARGUMENT,
            "precision %s takes a GPU; on the host there are f32 and f64", precision_name(precision));
    *out = ops_host(precision == PRECISION_F64 ? F64 : F32);
    return STATUS_OK;
  }
  REQUIRE(precision != PRECISION_F64, ERR_ARGUMENT,
          "precision f64 is the host's alone: use --device cpu, or one of f32, tf32, bf16");
  void *open;
  TRY(device_symbol(device, OPS_OPEN_SYMBOL, &open));
  return ((ops_open_function *)open)(device, precision, out);
}

static const char *const activation_names[] = {[ACTIVATION_RELU] = "relu",
                                               [ACTIVATION_TANH] = "tanh",
                                               [ACTIVATION_GELU] = "gelu",
                                               [ACTIVATION_SOFTPLUS] = "softplus"};

#define ACTIVATIONS (sizeof activation_names / sizeof *activation_names)

enum status activation_parse(const char *name, enum activation *out) {
  for (size_t i = 0; i < ACTIVATIONS; i++) {
    if (strcmp(name, activation_names[i]) == 0) {
      *out = (enum activation)i;
      return STATUS_OK;
    }
  }
  return fail(ERR_ARGUMENT, "activation \"%s\" is unknown; choose one of: relu, tanh, gelu, softplus", name);
}

const char *activation_name(enum activation activation) {
  return activation_names[activation];
}
