/* Parameters, optimiser and progress in one durable file. */
#include "model/checkpoint.h"

#include "dist/host_copy.h"
#include "dist/memory.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Along one side of an image. */
#define MODEL_MOST_PIXELS 65536

bool checkpoint_names_parameter(const char *name) {
  static const char *const others[] = {CHECKPOINT_BUFFERS, CHECKPOINT_STATES, "optimiser/", "standardise/"};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++)
    if (strncmp(name, others[i], strlen(others[i])) == 0)
      return false;
  return true;
}

/* ---- writing ------------------------------------------------------------------------------ */

#define MOST_COPIES (2 + OPTIM_MAX_ARRAYS)

struct arrays {
  struct array *list;
  size_t count;
  struct host_copy copies[MOST_COPIES]; /* what the arrays borrow from, where it lies on a device */
  int copy_count;
};

/* Those that an optimiser's state of `count` elements belongs to: the last ones, when only a head learns. */
static struct parameters last_parameters(struct parameters parameters, size_t count) {
  while (parameters.count > 0 && parameters.elements > count) {
    parameters.elements -= parameters.list->count;
    parameters.list++;
    parameters.count--;
  }
  return parameters;
}

/* An array for each parameter, of a block laid out like them. */
static enum status add_parameters(struct arrays *arrays, const char *prefix, const struct parameters *parameters,
                                  void *block, enum dtype dtype) {
  struct host_copy *copy = &arrays->copies[arrays->copy_count];
  TRY(host_copy_create(parameters->device, block, parameters->elements * dtype_size(dtype), copy));
  arrays->copy_count++;
  TRY(host_copy_fetch(copy));
  char *data = copy->data;
  for (int i = 0; i < parameters->count; i++) {
    const struct parameter *one = &parameters->list[i];
    char name[ARRAY_NAME_BYTES];
    REQUIRE(snprintf(name, sizeof name, "%s%s", prefix, one->name) < (int)sizeof name, ERR_BUG, "name %s is too long",
            one->name);
    TRY(array_borrow(name, array_type_of(dtype), one->rank, one->shape,
                     data + (one->offset - parameters->list->offset) * dtype_size(dtype),
                     &arrays->list[arrays->count++]));
  }
  return STATUS_OK;
}

static enum status add_optimiser(struct arrays *arrays, const struct checkpoint *checkpoint, enum dtype dtype) {
  struct optim_array states[OPTIM_MAX_ARRAYS];
  int count = optim_state_arrays(checkpoint->optim, states);
  for (int i = 0; i < count; i++) {
    char prefix[64];
    snprintf(prefix, sizeof prefix, "optimiser/%s/", states[i].name);
    struct parameters own = last_parameters(checkpoint->parameters, states[i].count);
    TRY(add_parameters(arrays, prefix, &own, states[i].data, dtype));
  }
  return STATUS_OK;
}

static enum status add_states(struct arrays *arrays, const struct checkpoint *checkpoint) {
  for (size_t i = 0; i < checkpoint->state_count; i++) {
    const struct state_array *state = &checkpoint->states[i];
    char name[ARRAY_NAME_BYTES];
    REQUIRE(snprintf(name, sizeof name, CHECKPOINT_STATES "%s", state->name) < (int)sizeof name, ERR_BUG,
            "name %s is too long", state->name);
    TRY(array_borrow(name, ARRAY_F64, 1, (int64_t[]){(int64_t)state->count}, state->values,
                     &arrays->list[arrays->count++]));
  }
  return STATUS_OK;
}

static enum status add_standardisation(struct arrays *arrays, const struct checkpoint *checkpoint) {
  int64_t shape[1] = {checkpoint->input_features};
  if (checkpoint->mean == NULL)
    return STATUS_OK;
  TRY(array_borrow("standardise/mean", ARRAY_F64, 1, shape, (void *)checkpoint->mean, &arrays->list[arrays->count++]));
  return array_borrow("standardise/std", ARRAY_F64, 1, shape, (void *)checkpoint->std, &arrays->list[arrays->count++]);
}

enum status checkpoint_write(const char *path, const struct checkpoint *checkpoint) {
  const struct progress *progress = &checkpoint->progress;
  const struct model_description *model = &checkpoint->model;
  enum dtype dtype = strcmp(model->precision, "f64") == 0 ? F64 : F32;
  char hash[32];
  snprintf(hash, sizeof hash, "%016" PRIx64, checkpoint->data_hash);
  const struct attribute attributes[] = {
      attribute_text("conr_format", "checkpoint"),
      attribute_integer("conr_version", CHECKPOINT_VERSION),
      attribute_text("made_by", checkpoint->made_by),
      attribute_text("model", model->name),
      attribute_integer("model_inputs", model->inputs),
      attribute_integer("model_outputs", model->outputs),
      attribute_integer("model_targets", model->targets != 0 ? model->targets : model->outputs),
      attribute_text("model_head", model->head != NULL ? model->head : "values"),
      attribute_text("model_hidden", model->hidden),
      attribute_text("model_activation", model->activation),
      attribute_text("precision", model->precision),
      attribute_integer("model_height", model->height),
      attribute_integer("model_width", model->width),
      attribute_text("model_normalise", model->normalise),
      attribute_integer("model_probabilistic", model->probabilistic),
      attribute_text("feature_names", checkpoint->feature_names),
      attribute_text("target_names", checkpoint->target_names),
      attribute_text("data_hash", hash),
      attribute_text("options", checkpoint->options),
      attribute_integer("optimiser_steps", optim_steps(checkpoint->optim)),
      attribute_integer("epoch", progress->epoch),
      attribute_integer("step", progress->step),
      attribute_integer("epoch_step", progress->epoch_step),
      attribute_integer("best_epoch", progress->best_epoch),
      attribute_integer("stale_epochs", progress->stale_epochs),
      attribute_real("best_value", progress->best_value),
      attribute_real("loss_sum", progress->loss_sum),
      attribute_real("conr_sum", progress->conr_sum),
      attribute_integer("rows_sum", progress->rows_sum),
      attribute_integer("finished", progress->finished),
  };
  struct arrays arrays = {0};
  size_t most = (size_t)checkpoint->parameters.count * (1 + OPTIM_MAX_ARRAYS) + (size_t)checkpoint->buffers.count +
                checkpoint->state_count + 2;
  enum status status;
  TRY(memory_alloc(most * sizeof *arrays.list, (void **)&arrays.list));
  TRY_GOTO(add_parameters(&arrays, "", &checkpoint->parameters, checkpoint->parameters.data, dtype), out);
  TRY_GOTO(add_parameters(&arrays, CHECKPOINT_BUFFERS, &checkpoint->buffers, checkpoint->buffers.data, dtype), out);
  TRY_GOTO(add_optimiser(&arrays, checkpoint, dtype), out);
  TRY_GOTO(add_states(&arrays, checkpoint), out);
  TRY_GOTO(add_standardisation(&arrays, checkpoint), out);
  status = array_file_write(path, arrays.list, arrays.count, attributes, sizeof attributes / sizeof *attributes);
out:
  for (int i = 0; i < arrays.copy_count; i++)
    host_copy_destroy(&arrays.copies[i]);
  memory_free((void **)&arrays.list);
  return status;
}

/* ---- reading ------------------------------------------------------------------------------ */

static enum status read_progress(const struct array_file *file, struct progress *progress) {
  TRY(array_file_integer(file, "epoch", &progress->epoch));
  TRY(array_file_integer(file, "step", &progress->step));
  TRY(array_file_integer(file, "epoch_step", &progress->epoch_step));
  TRY(array_file_integer(file, "best_epoch", &progress->best_epoch));
  TRY(array_file_integer(file, "stale_epochs", &progress->stale_epochs));
  TRY(array_file_real(file, "best_value", &progress->best_value));
  TRY(array_file_real(file, "loss_sum", &progress->loss_sum));
  TRY(array_file_real(file, "conr_sum", &progress->conr_sum));
  TRY(array_file_integer(file, "rows_sum", &progress->rows_sum));
  return array_file_integer(file, "finished", &progress->finished);
}

/* Numbers of the parameters themselves in the file. */
static int64_t stored_elements(const struct array_file *file) {
  int64_t elements = 0;
  for (size_t i = 0; i < file->array_count; i++)
    if (checkpoint_names_parameter(file->arrays[i].name))
      elements += array_count(&file->arrays[i]);
  return elements;
}

/* Parameters of an mlp of these widths, or -1 when there are absurdly many or `hidden` is no list. */
static double mlp_elements(const struct model_description *model) {
  double elements = 0, before = (double)model->inputs;
  for (const char *next = model->hidden; *next != '\0';) {
    char *end;
    double width = (double)strtoll(next, &end, 10);
    if (end == next || width < 1 || (*end != ',' && *end != '\0'))
      return -1;
    elements += (before + 1) * width;
    before = width;
    next = *end == ',' ? end + 1 : end;
  }
  return elements + (before + 1) * (double)model->outputs;
}

/* A damaged or forged description must not make a network of absurd size: it would have at most about as many
 * parameters as the file holds.  (Their exact shapes are checked when they are restored.) */
static enum status check_size(const struct array_file *file, const struct model_description *model) {
  bool images = strcmp(model->name, "mlp") != 0;
  REQUIRE(model->inputs >= !images && model->inputs <= INT_MAX / 8, ERR_FORMAT,
          "%s says the model has %lld inputs; use another checkpoint", file->path, (long long)model->inputs);
  REQUIRE(model->outputs >= 1 && model->outputs <= INT_MAX / 8, ERR_FORMAT,
          "%s says the model has %lld outputs; use another checkpoint", file->path, (long long)model->outputs);
  REQUIRE(model->targets >= 1 && model->targets <= model->outputs, ERR_FORMAT,
          "%s says the model has %lld outputs for labels of %lld components; use another checkpoint", file->path,
          (long long)model->outputs, (long long)model->targets);
  int64_t least = images ? 1 : 0, most = images ? MODEL_MOST_PIXELS : 0;
  REQUIRE(model->height >= least && model->height <= most && model->width >= least && model->width <= most, ERR_FORMAT,
          "%s says the model %s sees images of %lld x %lld; use another checkpoint", file->path, model->name,
          (long long)model->height, (long long)model->width);
  double stored = (double)stored_elements(file), needed = images ? (double)model->outputs : mlp_elements(model);
  REQUIRE(needed >= 0 && needed <= 2 * stored, ERR_FORMAT,
          "%s describes a model of %lld inputs, hidden layers \"%.100s\" and %lld outputs, but holds %lld parameters; "
          "use another checkpoint",
          file->path, (long long)model->inputs, model->hidden, (long long)model->outputs,
          (long long)stored_elements(file));
  return STATUS_OK;
}

static enum status check_word(const struct array_file *file, const char *what, const char *word,
                              const char *const *known) {
  for (int i = 0; known[i] != NULL; i++)
    if (strcmp(word, known[i]) == 0)
      return STATUS_OK;
  return fail(ERR_FORMAT, "%s says its %s is \"%.40s\", which this program does not have", file->path, what, word);
}

static enum status read_model(const struct array_file *file, int64_t version, struct model_description *model) {
  static const char *const names[] = {"mlp", "cnn", "resnet18", "resnet50", NULL};
  static const char *const precisions[] = {"f32", "f64", "tf32", "bf16", NULL};
  static const char *const heads[] = {"values", "experts", "evidential", NULL};
  static const char *const scalings[] = {"half", "imagenet", "none", NULL};
  TRY(array_file_text(file, "model", &model->name));
  TRY(array_file_integer(file, "model_inputs", &model->inputs));
  TRY(array_file_integer(file, "model_outputs", &model->outputs));
  TRY(array_file_text(file, "model_hidden", &model->hidden));
  TRY(array_file_text(file, "model_activation", &model->activation));
  TRY(array_file_text(file, "precision", &model->precision));
  model->normalise = "none"; /* before version 2 there were tables alone */
  if (version > 1) {
    TRY(array_file_integer(file, "model_height", &model->height));
    TRY(array_file_integer(file, "model_width", &model->width));
    TRY(array_file_text(file, "model_normalise", &model->normalise));
  }
  model->targets = model->outputs; /* before version 3 outputs were predictions */
  model->head = "values";
  if (version > 2) {
    TRY(array_file_integer(file, "model_targets", &model->targets));
    TRY(array_file_text(file, "model_head", &model->head));
    TRY(array_file_integer(file, "model_probabilistic", &model->probabilistic));
  }
  REQUIRE(model->probabilistic == 0 || model->probabilistic == 1, ERR_FORMAT,
          "%s says the model is probabilistic %lld times; use another checkpoint", file->path,
          (long long)model->probabilistic);
  TRY(check_word(file, "model", model->name, names));
  TRY(check_word(file, "precision", model->precision, precisions));
  TRY(check_word(file, "head", model->head, heads));
  TRY(check_word(file, "normalisation", model->normalise, scalings));
  return check_size(file, model);
}

static enum status read_description(const struct array_file *file, struct opened_checkpoint *out) {
  const char *hash;
  TRY(array_file_text(file, "feature_names", &out->feature_names));
  TRY(array_file_text(file, "target_names", &out->target_names));
  TRY(array_file_text(file, "options", &out->options));
  TRY(array_file_text(file, "data_hash", &hash));
  out->data_hash = strtoull(hash, NULL, 16);
  out->mean = array_file_find(file, "standardise/mean");
  out->std = array_file_find(file, "standardise/std");
  return STATUS_OK;
}

enum status checkpoint_open(const char *path, struct opened_checkpoint *out) {
  *out = (struct opened_checkpoint){0};
  const char *format;
  int64_t version;
  enum status status;
  TRY(array_file_read(path, true, &out->file));
  TRY_GOTO(array_file_text(out->file, "conr_format", &format), failed);
  REQUIRE_GOTO(strcmp(format, "checkpoint") == 0, failed, ERR_FORMAT, "%s is a conr %s file, not a checkpoint", path,
               format);
  TRY_GOTO(array_file_integer(out->file, "conr_version", &version), failed);
  REQUIRE_GOTO(version >= 1 && version <= CHECKPOINT_VERSION, failed, ERR_FORMAT,
               "%s is a checkpoint of format version %lld; this program reads versions 1 to %d", path,
               (long long)version, CHECKPOINT_VERSION);
  TRY_GOTO(read_progress(out->file, &out->progress), failed);
  TRY_GOTO(read_model(out->file, version, &out->model), failed);
  TRY_GOTO(read_description(out->file, out), failed);
  return STATUS_OK;
failed:
  checkpoint_close(out);
  return status;
}

void checkpoint_close(struct opened_checkpoint *checkpoint) {
  array_file_destroy(&checkpoint->file);
}

/* Copy the named arrays into a flat host buffer laid out like the parameters. */
static enum status fill_flat(const struct array_file *file, const char *prefix, const struct parameters *parameters,
                             char *data, enum dtype dtype) {
  for (int i = 0; i < parameters->count; i++) {
    const struct parameter *one = &parameters->list[i];
    char name[ARRAY_NAME_BYTES * 2], wanted[128], found[128];
    snprintf(name, sizeof name, "%s%s", prefix, one->name);
    const struct array *array = array_file_find(file, name);
    REQUIRE(array != NULL, ERR_FORMAT, "%s has no \"%s\"; the model has it with shape %s", file->path, name,
            array_shape_text(one->rank, one->shape, wanted, sizeof wanted));
    bool same =
        array->rank == one->rank && memcmp(array->shape, one->shape, (size_t)one->rank * sizeof *one->shape) == 0;
    REQUIRE(same, ERR_FORMAT, "\"%s\" is %s in %s but %s in the model; give the same --model and --hidden as then",
            name, array_shape_text(array->rank, array->shape, found, sizeof found), file->path,
            array_shape_text(one->rank, one->shape, wanted, sizeof wanted));
    array_convert(array, dtype, data + (one->offset - parameters->list->offset) * dtype_size(dtype));
  }
  return STATUS_OK;
}

static enum status load_flat(const struct array_file *file, const char *prefix, const struct parameters *parameters,
                             void *block, enum dtype dtype) {
  struct host_copy copy;
  TRY(host_copy_create(parameters->device, block, parameters->elements * dtype_size(dtype), &copy));
  enum status status = fill_flat(file, prefix, parameters, copy.data, dtype);
  if (status == STATUS_OK)
    status = host_copy_store(&copy);
  host_copy_destroy(&copy);
  return status;
}

enum status checkpoint_restore(const struct opened_checkpoint *checkpoint, struct parameters parameters,
                               struct parameters buffers, struct optim *optim, enum dtype dtype) {
  TRY(load_flat(checkpoint->file, "", &parameters, parameters.data, dtype));
  TRY(load_flat(checkpoint->file, CHECKPOINT_BUFFERS, &buffers, buffers.data, dtype));
  if (optim == NULL)
    return STATUS_OK;
  struct optim_array states[OPTIM_MAX_ARRAYS];
  int count = optim_state_arrays(optim, states);
  int64_t steps;
  for (int i = 0; i < count; i++) {
    char prefix[64];
    snprintf(prefix, sizeof prefix, "optimiser/%s/", states[i].name);
    struct parameters own = last_parameters(parameters, states[i].count);
    TRY(load_flat(checkpoint->file, prefix, &own, states[i].data, dtype));
  }
  TRY(array_file_integer(checkpoint->file, "optimiser_steps", &steps));
  optim_set_steps(optim, steps);
  return STATUS_OK;
}

enum status checkpoint_restore_states(const struct opened_checkpoint *checkpoint, const struct state_array *states,
                                      size_t count) {
  const char *path = checkpoint->file->path;
  for (size_t i = 0; i < count; i++) {
    const struct state_array *state = &states[i];
    char name[ARRAY_NAME_BYTES * 2], shape[128];
    snprintf(name, sizeof name, CHECKPOINT_STATES "%s", state->name);
    const struct array *array = array_file_find(checkpoint->file, name);
    REQUIRE(array != NULL, ERR_FORMAT, "%s has no \"%s\", which a run with these options has; start a new run", path,
            name);
    REQUIRE(array->rank == 1 && (size_t)array->shape[0] == state->count, ERR_FORMAT,
            "\"%s\" is %s in %s but [%zu] in this run; give the same options as then, or start a new run", name,
            array_shape_text(array->rank, array->shape, shape, sizeof shape), path, state->count);
    array_convert(array, F64, state->values);
  }
  return STATUS_OK;
}
