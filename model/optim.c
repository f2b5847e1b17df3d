/* Optimisers: what is per step, here in double; what is per element, in ops. */
#include "model/optim.h"

#include "dist/memory.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* Of the update at hand. */
union step {
  struct adam_step adam;
  struct sgd_step sgd;
};

/* Elements that learn at one rate, up to where the next ones begin. */
struct segment {
  size_t first;
  double factor; /* times the learning rate */
};

#define MOST_SEGMENTS (2 * OPTIM_MOST_RATES + 1)

struct optim {
  const struct ops *ops; /* borrowed: lives for ever */
  struct optim_spec spec;
  size_t count;
  int64_t steps;
  int segments;
  struct segment segment[MOST_SEGMENTS];
  union step *step; /* [MOST_SEGMENTS] in the memory of the ops: of each segment */
  int arrays;
  void *state[OPTIM_MAX_ARRAYS]; /* [arrays], each [count]: moments, or the velocity */
};

static const char *const kind_names[] = {[OPTIM_ADAM] = "adam", [OPTIM_ADAMW] = "adamw", [OPTIM_SGD] = "sgd"};

enum status optim_parse(const char *name, enum optim_kind *out) {
  for (size_t i = 0; i < sizeof kind_names / sizeof *kind_names; i++) {
    if (strcmp(name, kind_names[i]) == 0) {
      *out = (enum optim_kind)i;
      return STATUS_OK;
    }
  }
  return fail(ERR_ARGUMENT, "optimiser \"%s\" is unknown; choose one of: adam, adamw, sgd", name);
}

struct optim_spec optim_defaults(enum optim_kind kind) {
  return (struct optim_spec){
      .kind = kind, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = kind == OPTIM_ADAMW ? 0.01 : 0};
}

/* Comparisons are worded so that NaN fails them. */
static enum status check(const struct optim_spec *spec) {
  REQUIRE(spec->kind == OPTIM_ADAM || spec->kind == OPTIM_ADAMW || spec->kind == OPTIM_SGD, ERR_BUG,
          "optimiser number %d does not exist", (int)spec->kind);
  REQUIRE(spec->weight_decay >= 0 && isfinite(spec->weight_decay), ERR_ARGUMENT,
          "weight decay %g would make parameters grow; give 0 or more", spec->weight_decay);
  if (spec->kind == OPTIM_SGD) {
    REQUIRE(spec->momentum >= 0 && spec->momentum < 1, ERR_ARGUMENT,
            "momentum %g is out of range; give 0 <= momentum < 1", spec->momentum);
    return STATUS_OK;
  }
  REQUIRE(spec->beta1 >= 0 && spec->beta1 < 1, ERR_ARGUMENT, "beta1 %g is out of range; give 0 <= beta1 < 1",
          spec->beta1);
  REQUIRE(spec->beta2 >= 0 && spec->beta2 < 1, ERR_ARGUMENT, "beta2 %g is out of range; give 0 <= beta2 < 1",
          spec->beta2);
  REQUIRE(spec->epsilon >= 0 && isfinite(spec->epsilon), ERR_ARGUMENT, "epsilon %g is out of range; give 0 or more",
          spec->epsilon);
  return STATUS_OK;
}

static int arrays_needed(const struct optim_spec *spec) {
  if (spec->kind == OPTIM_SGD)
    return spec->momentum > 0 ? 1 : 0;
  return 2;
}

enum status optim_create(const struct ops *ops, const struct optim_spec *spec, size_t count, struct optim **out) {
  enum status status;
  struct optim *optim;
  *out = NULL;
  TRY(check(spec));
  TRY(memory_alloc_zero(sizeof *optim, (void **)&optim));
  optim->ops = ops;
  optim->spec = *spec;
  optim->count = count;
  optim->arrays = arrays_needed(spec);
  optim->segment[optim->segments++] = (struct segment){.factor = 1};
  TRY_GOTO(device_alloc(ops->device, MOST_SEGMENTS * sizeof *optim->step, (void **)&optim->step), failed);
  for (int i = 0; i < optim->arrays; i++)
    TRY_GOTO(device_alloc_zero(ops->device, count * dtype_size(ops->parameter_dtype), &optim->state[i]), failed);
  *out = optim;
  return STATUS_OK;
failed:
  optim_destroy(&optim);
  return status;
}

void optim_destroy(struct optim **optim) {
  if (*optim == NULL)
    return;
  for (int i = OPTIM_MAX_ARRAYS - 1; i >= 0; i--)
    device_free((*optim)->ops->device, &(*optim)->state[i]);
  device_free((*optim)->ops->device, (void **)&(*optim)->step);
  memory_free((void **)optim);
}

/* The last segment reaches to the end: the range cuts its beginning off, and its end. */
enum status optim_set_rate(struct optim *optim, size_t first, size_t count, double factor) {
  struct segment last = optim->segment[optim->segments - 1];
  REQUIRE(first >= last.first && first + count <= optim->count && optim->segments + 2 <= MOST_SEGMENTS, ERR_BUG,
          "elements %zu to %zu of %zu cannot have a learning rate of their own", first, first + count, optim->count);
  optim->segments -= first == last.first;
  optim->segment[optim->segments++] = (struct segment){first, factor};
  if (first + count < optim->count)
    optim->segment[optim->segments++] = (struct segment){first + count, 1};
  return STATUS_OK;
}

static struct adam_step adam_step(const struct optim *optim, double lr) {
  const struct optim_spec *spec = &optim->spec;
  bool decoupled = spec->kind == OPTIM_ADAMW;
  return (struct adam_step){.step_size = lr / (1 - pow(spec->beta1, (double)optim->steps)),
                            .root_correction = sqrt(1 - pow(spec->beta2, (double)optim->steps)),
                            .beta1 = spec->beta1,
                            .beta2 = spec->beta2,
                            .epsilon = spec->epsilon,
                            .coupled_decay = decoupled ? 0 : spec->weight_decay,
                            .keep = decoupled ? 1 - lr * spec->weight_decay : 1};
}

/* From memory that is not pinned, so it is read before the call returns. */
enum status optim_begin(struct optim *optim, double lr) {
  union step step[MOST_SEGMENTS];
  const struct optim_spec *spec = &optim->spec;
  optim->steps++;
  for (int i = 0; i < optim->segments; i++) {
    double rate = optim->segment[i].factor * lr;
    if (spec->kind == OPTIM_SGD)
      step[i].sgd = (struct sgd_step){.lr = rate, .momentum = spec->momentum, .coupled_decay = spec->weight_decay};
    else
      step[i].adam = adam_step(optim, rate);
  }
  return device_copy(optim->ops->device, optim->step, step, (size_t)optim->segments * sizeof *step);
}

/* An array from element `first` on; NULL stays NULL. */
static void *from(const struct optim *optim, void *array, size_t first) {
  return array == NULL ? NULL : (char *)array + first * dtype_size(optim->ops->parameter_dtype);
}

enum status optim_update(struct optim *optim, void *parameters, const void *gradients, const double *gradient_scale) {
  for (int i = 0; i < optim->segments; i++) {
    size_t first = optim->segment[i].first;
    size_t end = i + 1 < optim->segments ? optim->segment[i + 1].first : optim->count;
    void *own = from(optim, parameters, first), *state = from(optim, optim->state[0], first);
    const void *slope = from(optim, (void *)gradients, first);
    if (optim->spec.kind == OPTIM_SGD)
      TRY(optim->ops->sgd(end - first, &optim->step[i].sgd, gradient_scale, own, slope, state));
    else
      TRY(optim->ops->adam(end - first, &optim->step[i].adam, gradient_scale, own, slope, state,
                           from(optim, optim->state[1], first)));
  }
  return STATUS_OK;
}

enum status optim_step(struct optim *optim, void *parameters, const void *gradients, double lr,
                       const double *gradient_scale) {
  TRY(optim_begin(optim, lr));
  return optim_update(optim, parameters, gradients, gradient_scale);
}

int optim_state_arrays(struct optim *optim, struct optim_array arrays[OPTIM_MAX_ARRAYS]) {
  static const char *const moments[] = {"moment1", "moment2"};
  for (int i = 0; i < optim->arrays; i++)
    arrays[i] = (struct optim_array){.name = optim->spec.kind == OPTIM_SGD ? "velocity" : moments[i],
                                     .data = optim->state[i],
                                     .count = optim->count};
  return optim->arrays;
}

int64_t optim_steps(const struct optim *optim) {
  return optim->steps;
}

void optim_set_steps(struct optim *optim, int64_t steps) {
  optim->steps = steps;
}
