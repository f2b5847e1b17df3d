/* Whole ResNets against stored outputs and gradients (tests/golden/resnet.h5), whatever cases the file holds.  Weights
 * and inputs follow from a hash of their names, which the golden set defines; arrays there are channels-first. */
#include "dist/memory.h"
#include "model/layer.h"
#include "model/resnet.h"

#include "tests/golden.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())
#define PROBE_SALT 0x5bd1e995u

struct run {
  const struct golden_file *file;
  const char *name;
  enum dtype dtype;
  struct net *net;
  uint32_t salt;
  int64_t batch;
};

/* --- the golden set's hash ---------------------------------------------------------------------------------- */

static uint32_t hash_name(const char *name) {
  uint32_t h = 2166136261u;
  for (; *name != '\0'; name++)
    h = (h ^ (uint8_t)*name) * 16777619u;
  return h;
}

/* v(name, i), given hash(name) xor salt. */
static double hash_value(uint32_t base, int64_t i) {
  uint32_t x = base + (uint32_t)i * 0x9E3779B9u;
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  x ^= x >> 16;
  return ((double)(x >> 16) - 32768) / 32768;
}

static bool ends_with(const char *text, const char *end) {
  size_t length = strlen(text), tail = strlen(end);
  return length >= tail && strcmp(text + length - tail, end) == 0;
}

/* The last batch norm of a residual branch has a smaller weight. */
static bool is_last_norm(const char *name, int depth) {
  return strncmp(name, "layer", 5) == 0 && ends_with(name, depth == 50 ? "bn3.weight" : "bn2.weight");
}

/* offset + factor v is the value of an array. */
static void formula(const struct parameter *parameter, int depth, double *offset, double *factor) {
  int64_t fan_in = 1;
  *offset = 0;
  *factor = 1;
  for (int i = 1; i < parameter->rank; i++)
    fan_in *= parameter->shape[i];
  if (parameter->rank > 1) {
    for (int64_t reach = 1; 6 * reach < fan_in; reach *= 4)
      *factor /= 2;
  } else if (is_last_norm(parameter->name, depth)) {
    *offset = 0.25;
    *factor = 1.0 / 16;
  } else if (ends_with(parameter->name, "running_var")) {
    *offset = 1;
    *factor = 0.5;
  } else if (strcmp(parameter->name, "fc.bias") != 0) {
    *offset = ends_with(parameter->name, "weight") ? 1 : 0;
    *factor = ends_with(parameter->name, "weight") ? 0.25 : 0.125;
  }
}

static double number(const struct run *run, const void *data, int64_t i) {
  return run->dtype == F32 ? (double)((const float *)data)[i] : ((const double *)data)[i];
}

static void set_number(const struct run *run, void *data, int64_t i, double value) {
  if (run->dtype == F32)
    ((float *)data)[i] = (float)value;
  else
    ((double *)data)[i] = value;
}

static void *element(const struct run *run, void *data, size_t offset) {
  return (char *)data + offset * dtype_size(run->dtype);
}

static void fill(const struct run *run, struct parameters arrays, int depth) {
  for (int p = 0; p < arrays.count; p++) {
    double offset, factor;
    uint32_t base = hash_name(arrays.list[p].name) ^ run->salt;
    formula(&arrays.list[p], depth, &offset, &factor);
    for (size_t i = 0; i < arrays.list[p].count; i++)
      set_number(run, element(run, arrays.data, arrays.list[p].offset), (int64_t)i,
                 offset + factor * hash_value(base, (int64_t)i));
  }
}

/* The input [batch, 3, height, width] as [batch, height, width, 3]; free() it. */
static void *make_input(const struct run *run, int64_t height, int64_t width) {
  uint32_t base = hash_name("input") ^ run->salt;
  void *input = malloc((size_t)(run->batch * 3 * height * width) * sizeof(double));
  for (int64_t i = 0; i < run->batch * 3 * height * width; i++) {
    int64_t x = i % width, y = i / width % height, c = i / width / height % 3, n = i / width / height / 3;
    set_number(run, input, ((n * height + y) * width + x) * 3 + c, hash_value(base, i));
  }
  return input;
}

/* --- comparing ---------------------------------------------------------------------------------------------- */

static double tolerance(const struct run *run, const char *quantity) {
  char attribute[64];
  snprintf(attribute, sizeof attribute, "f32_tolerance_%s", quantity);
  double value = golden_number(run->file, run->name, attribute, NAN);
  cr_assert(eq(int, isnan(value) != 0, 0), "%s has no attribute %s", run->name, attribute);
  return run->dtype == F64 ? 1e-11 : value;
}

static void within(const struct run *run, const char *what, const char *which, double error, double bound) {
  cr_assert(le(dbl, error, bound), "%s in %s: %s of %s is off by %g, more than %g", run->name, dtype_name(run->dtype),
            what, which, error, bound);
}

/* A whole array: largest difference over the largest value. */
static void compare_array(const struct run *run, const char *path, const char *quantity, const void *got) {
  struct golden_array expected = golden_read(run->file, run->name, path);
  within(run, path, "the network", golden_array_error(run->dtype, expected.count, got, expected.data),
         tolerance(run, quantity));
  golden_free(&expected);
}

/* What is stored of an array too large to store. */
struct digest {
  double norm, probe, first8[8];
};

static struct digest digest(const struct run *run, const char *name, const void *data, int64_t count) {
  struct digest digest = {0};
  uint32_t base = hash_name(name) ^ run->salt ^ PROBE_SALT;
  for (int64_t i = 0; i < count; i++) {
    double value = number(run, data, i);
    digest.norm += value * value;
    digest.probe += value * hash_value(base, i);
    if (i < 8)
      digest.first8[i] = value;
  }
  digest.norm = sqrt(digest.norm);
  return digest;
}

/* Stored digests, one row per name; kind is "grad" or "buffer", tail "" or "_after". */
struct digests {
  struct golden_names names;
  struct golden_array norm, probe, first8;
};

static struct digests read_digests(const struct run *run, const char *names, const char *kind, const char *tail) {
  struct digests stored = {.names = golden_read_names(run->file, run->name, names)};
  char path[64];
  snprintf(path, sizeof path, "%s_norm%s", kind, tail);
  stored.norm = golden_read(run->file, run->name, path);
  snprintf(path, sizeof path, "%s_probe%s", kind, tail);
  stored.probe = golden_read(run->file, run->name, path);
  snprintf(path, sizeof path, "%s_first8%s", kind, tail);
  stored.first8 = golden_read(run->file, run->name, path);
  return stored;
}

static void free_digests(struct digests *stored) {
  golden_free_names(&stored->names);
  golden_free(&stored->norm);
  golden_free(&stored->probe);
  golden_free(&stored->first8);
}

static int find(const struct golden_names *names, const char *name) {
  for (int i = 0; i < names->count; i++)
    if (strcmp(names->name[i], name) == 0)
      return i;
  cr_assert(eq(int, 0, 1), "the golden file knows no %s", name);
  return -1;
}

static double optional_tolerance(const struct run *run, const char *quantity) {
  char attribute[64];
  snprintf(attribute, sizeof attribute, "f32_tolerance_%s", quantity);
  return run->dtype == F64 ? 1e-11 : golden_number(run->file, run->name, attribute, 1e-5);
}

/* All arrays of a list against their digests; values: where they lie. */
static void compare_list(const struct run *run, struct parameters arrays, void *values, const char *names,
                         const char *kind, const char *tail) {
  struct digests stored = read_digests(run, names, kind, tail);
  char quantity[3][32];
  snprintf(quantity[0], sizeof quantity[0], "%s_norm", kind);
  snprintf(quantity[1], sizeof quantity[1], "%s_probe", kind);
  snprintf(quantity[2], sizeof quantity[2], "%s_first8", kind);
  cr_assert(eq(int, arrays.count, stored.names.count));
  for (int p = 0; p < arrays.count; p++) {
    const struct parameter *own = &arrays.list[p];
    int row = find(&stored.names, own->name);
    struct digest got = digest(run, own->name, element(run, values, own->offset), (int64_t)own->count);
    double norm = stored.norm.data[row], root = norm / sqrt((double)own->count);
    if (norm == 0) { /* residuals of opposite sign cancel in fc.bias: exactly 0 */
      within(run, kind, own->name, got.norm, 1e-12);
      continue;
    }
    within(run, quantity[0], own->name, fabs(got.norm - norm) / norm, optional_tolerance(run, quantity[0]));
    within(run, quantity[1], own->name, fabs(got.probe - stored.probe.data[row]) / norm,
           optional_tolerance(run, quantity[1]));
    for (int i = 0; i < 8; i++)
      within(run, quantity[2], own->name, fabs(got.first8[i] - stored.first8.data[row * 8 + i]) / root,
             optional_tolerance(run, quantity[2]));
  }
  free_digests(&stored);
}

/* The value a stage makes: the max pool's, or that of the last operation of layerN. */
static const struct value *stage_value(const struct net *net, const char *stage) {
  int found = -1;
  for (int i = 0; i < net->operation_count; i++) {
    const struct operation *operation = &net->operations[i];
    bool pool = strcmp(operation->kind->name, "max pool") == 0;
    const char *name = operation->parameter_count > 0 ? net->parameters.list[operation->first_parameter].name : "";
    if (strcmp(stage, "maxpool") == 0 ? pool : strncmp(name, stage, strlen(stage)) == 0)
      found = i + 1;
  }
  cr_assert(found > 0, "the network has no stage %s", stage);
  return &net->value[found];
}

static void compare_stages(const struct run *run) {
  struct golden_names names = golden_read_names(run->file, run->name, "stage_names");
  struct golden_array norms = golden_read(run->file, run->name, "stage_norm");
  struct golden_array probes = golden_read(run->file, run->name, "stage_probe");
  for (int s = 0; s < names.count; s++) {
    const struct value *value = stage_value(run->net, names.name[s]);
    int64_t h = value->height, w = value->width, c = value->channels, count = run->batch * h * w * c;
    double *first = malloc((size_t)count * sizeof *first);
    for (int64_t i = 0; i < count; i++)
      set_number(run, first, ((i / (h * w * c) * c + i % c) * h + i / (w * c) % h) * w + i / c % w,
                 number(run, value->data, i));
    struct digest got = digest(run, names.name[s], first, count);
    within(run, "norm", names.name[s], fabs(got.norm - norms.data[s]) / norms.data[s], tolerance(run, "stages"));
    within(run, "probe", names.name[s], fabs(got.probe - probes.data[s]) / norms.data[s],
           tolerance(run, "stage_probe"));
    free(first);
  }
  golden_free_names(&names);
  golden_free(&norms);
  golden_free(&probes);
}

/* --- one case ----------------------------------------------------------------------------------------------- */

/* Loss = mean |output - label|, and its gradient. */
static void compare_loss(const struct run *run, void *gradient) {
  struct golden_array labels = golden_read(run->file, run->name, "labels");
  double loss = 0, expected = golden_scalar(run->file, run->name, "loss");
  for (int64_t i = 0; i < run->batch; i++) {
    double residual = number(run, net_predictions(run->net), i) - labels.data[i];
    loss += fabs(residual) / (double)run->batch;
    set_number(run, gradient, i, (residual > 0 ? 1 : -1) / (double)run->batch);
  }
  within(run, "loss", "the network", golden_scalar_error(loss, expected), tolerance(run, "loss"));
  golden_free(&labels);
}

static void check_case(struct run *run) {
  int depth = (int)golden_number(run->file, run->name, "depth", 0);
  struct image_spec spec = {.height = (int64_t)golden_number(run->file, run->name, "height", 0),
                            .width = (int64_t)golden_number(run->file, run->name, "width", 0),
                            .outputs = 1};
  bool training = golden_number(run->file, run->name, "training", 0) != 0;
  struct pass pass = {.training = training};
  double gradient[64];
  run->batch = (int64_t)golden_number(run->file, run->name, "batch", 0);
  run->salt = (uint32_t)golden_number(run->file, run->name, "hash_salt", 0);
  cr_assert(le(i64, run->batch, 64));
  OK(resnet_create(ops_host(run->dtype), depth, &spec, run->batch, &run->net));
  struct parameters own = net_parameters(run->net), buffers = net_buffers(run->net);
  cr_assert(eq(i64, (int64_t)own.elements, (int64_t)golden_number(run->file, run->name, "param_count", 0)));
  fill(run, own, depth);
  fill(run, buffers, depth);
  void *input = make_input(run, spec.height, spec.width);
  OK(net_forward(run->net, input, run->batch, &pass));
  compare_array(run, "output", "output", net_predictions(run->net));
  compare_array(run, "features", "features", net_features(run->net));
  compare_stages(run);
  compare_loss(run, gradient);
  OK(net_backward_head(run->net, gradient, NULL));
  compare_array(run, "grad_features", "grad_features", net_feature_gradient(run->net));
  OK(net_backward_encoder(run->net, NULL, NULL));
  compare_list(run, own, own.gradients, "param_names", "grad", "");
  if (training) {
    OK(net_update_statistics(run->net, NULL));
    compare_list(run, buffers, buffers.data, "buffer_names", "buffer", "_after");
  }
  free(input);
  net_destroy(&run->net);
}

Test(golden_resnet, stored_networks_are_reproduced_in_both_precisions) {
  struct golden_file *file = golden_open("resnet.h5");
  for (int i = 0; i < golden_case_count(file); i++) {
    for (enum dtype dtype = F32; dtype <= F64; dtype++) {
      struct run run = {.file = file, .name = golden_case_name(file, i), .dtype = dtype};
      check_case(&run);
    }
    golden_ran(file);
  }
  golden_report(file);
  golden_close(&file);
  cr_assert(eq(sz, memory_in_use(), 0));
}
