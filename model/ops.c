/* The choice of a backend, and the names of the activations. */
#include "model/ops.h"

#include "model/ops_cpu.h"

#include <string.h>

const char *ops_backends(void) {
  return "cpu";
}

const struct ops *ops_get(const char *backend, enum dtype dtype) {
  if (strcmp(backend, "cpu") == 0)
    return dtype == F32 ? &ops_cpu_f32 : &ops_cpu_f64;
  fail(ERR_ARGUMENT, "backend \"%s\" is not in this build; choose one of: %s", backend, ops_backends());
  return NULL;
}

static const char *const activation_names[] = {
    [ACTIVATION_RELU] = "relu", [ACTIVATION_TANH] = "tanh", [ACTIVATION_GELU] = "gelu"};

#define ACTIVATIONS (sizeof activation_names / sizeof *activation_names)

enum status activation_parse(const char *name, enum activation *out) {
  for (size_t i = 0; i < ACTIVATIONS; i++) {
    if (strcmp(name, activation_names[i]) == 0) {
      *out = (enum activation)i;
      return STATUS_OK;
    }
  }
  return fail(ERR_ARGUMENT, "activation \"%s\" is unknown; choose one of: relu, tanh, gelu", name);
}

const char *activation_name(enum activation activation) {
  return activation_names[activation];
}
