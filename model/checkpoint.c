/* Parameters, optimiser and progress in one durable file. */
#include "model/checkpoint.h"

#include "dist/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Element i of a numeric array, as double. */
static double element(const struct array *array, int64_t i) {
  switch (array->type) {
  case ARRAY_U8:
    return ((const uint8_t *)array->data)[i];
  case ARRAY_I32:
    return ((const int32_t *)array->data)[i];
  case ARRAY_I64:
    return (double)((const int64_t *)array->data)[i];
  case ARRAY_F32:
    return (double)((const float *)array->data)[i];
  case ARRAY_F64:
    break;
  }
  return ((const double *)array->data)[i];
}

static void copy_elements(const struct array *array, enum dtype dtype, void *out) {
  for (int64_t i = 0; i < array_count(array); i++)
    if (dtype == F32)
      ((float *)out)[i] = (float)element(array, i);
    else
      ((double *)out)[i] = element(array, i);
}

/* ---- writing ------------------------------------------------------------------------------ */

struct arrays {
  struct array *list;
  size_t count;
};

static enum status add_parameters(struct arrays *arrays, const char *prefix, const struct parameters *parameters,
                                  void *data, enum dtype dtype) {
  for (int i = 0; i < parameters->count; i++) {
    const struct parameter *one = &parameters->list[i];
    char name[ARRAY_NAME_BYTES];
    REQUIRE(snprintf(name, sizeof name, "%s%s", prefix, one->name) < (int)sizeof name, ERR_BUG, "name %s is too long",
            one->name);
    TRY(array_borrow(name, array_type_of(dtype), one->rank, one->shape, (char *)data + one->offset * dtype_size(dtype),
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
    TRY(add_parameters(arrays, prefix, &checkpoint->parameters, states[i].data, dtype));
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
      attribute_text("model", "mlp"),
      attribute_integer("model_inputs", model->inputs),
      attribute_integer("model_outputs", model->outputs),
      attribute_text("model_hidden", model->hidden),
      attribute_text("model_activation", model->activation),
      attribute_text("precision", model->precision),
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
  size_t most = (size_t)checkpoint->parameters.count * (1 + OPTIM_MAX_ARRAYS) + 2;
  enum status status;
  TRY(memory_alloc(most * sizeof *arrays.list, (void **)&arrays.list));
  TRY_GOTO(add_parameters(&arrays, "", &checkpoint->parameters, checkpoint->parameters.data, dtype), out);
  TRY_GOTO(add_optimiser(&arrays, checkpoint, dtype), out);
  TRY_GOTO(add_standardisation(&arrays, checkpoint), out);
  status = array_file_write(path, arrays.list, arrays.count, attributes, sizeof attributes / sizeof *attributes);
out:
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

static enum status read_description(const struct array_file *file, struct opened_checkpoint *out) {
  const char *hash;
  TRY(array_file_integer(file, "model_inputs", &out->model.inputs));
  TRY(array_file_integer(file, "model_outputs", &out->model.outputs));
  TRY(array_file_text(file, "model_hidden", &out->model.hidden));
  TRY(array_file_text(file, "model_activation", &out->model.activation));
  TRY(array_file_text(file, "precision", &out->model.precision));
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
  REQUIRE_GOTO(version == CHECKPOINT_VERSION, failed, ERR_FORMAT,
               "%s is a checkpoint of format version %lld; this program reads version %d", path, (long long)version,
               CHECKPOINT_VERSION);
  TRY_GOTO(read_progress(out->file, &out->progress), failed);
  TRY_GOTO(read_description(out->file, out), failed);
  return STATUS_OK;
failed:
  checkpoint_close(out);
  return status;
}

void checkpoint_close(struct opened_checkpoint *checkpoint) {
  array_file_destroy(&checkpoint->file);
}

/* "[64, 10]" */
static const char *shape_text(int rank, const int64_t *shape, char *buffer, size_t bytes) {
  size_t used = (size_t)snprintf(buffer, bytes, "[");
  for (int i = 0; i < rank && used < bytes; i++)
    used += (size_t)snprintf(buffer + used, bytes - used, "%s%lld", i ? ", " : "", (long long)shape[i]);
  if (used < bytes)
    snprintf(buffer + used, bytes - used, "]");
  return buffer;
}

/* Copy the named arrays into a flat buffer laid out like the parameters. */
static enum status load_flat(const struct array_file *file, const char *prefix, const struct parameters *parameters,
                             void *data, enum dtype dtype) {
  for (int i = 0; i < parameters->count; i++) {
    const struct parameter *one = &parameters->list[i];
    char name[ARRAY_NAME_BYTES * 2], wanted[128], found[128];
    snprintf(name, sizeof name, "%s%s", prefix, one->name);
    const struct array *array = array_file_find(file, name);
    REQUIRE(array != NULL, ERR_FORMAT, "%s has no \"%s\"; the model has it with shape %s", file->path, name,
            shape_text(one->rank, one->shape, wanted, sizeof wanted));
    bool same =
        array->rank == one->rank && memcmp(array->shape, one->shape, (size_t)one->rank * sizeof *one->shape) == 0;
    REQUIRE(same, ERR_FORMAT, "\"%s\" is %s in %s but %s in the model; give the same --hidden as then", name,
            shape_text(array->rank, array->shape, found, sizeof found), file->path,
            shape_text(one->rank, one->shape, wanted, sizeof wanted));
    copy_elements(array, dtype, (char *)data + one->offset * dtype_size(dtype));
  }
  return STATUS_OK;
}

enum status checkpoint_restore(const struct opened_checkpoint *checkpoint, struct parameters parameters,
                               struct optim *optim, enum dtype dtype) {
  TRY(load_flat(checkpoint->file, "", &parameters, parameters.data, dtype));
  if (optim == NULL)
    return STATUS_OK;
  struct optim_array states[OPTIM_MAX_ARRAYS];
  int count = optim_state_arrays(optim, states);
  int64_t steps;
  for (int i = 0; i < count; i++) {
    char prefix[64];
    snprintf(prefix, sizeof prefix, "optimiser/%s/", states[i].name);
    TRY(load_flat(checkpoint->file, prefix, &parameters, states[i].data, dtype));
  }
  TRY(array_file_integer(checkpoint->file, "optimiser_steps", &steps));
  optim_set_steps(optim, steps);
  return STATUS_OK;
}

/* A checkpoint also serves: its other arrays are known by their folders. */
static bool belongs_to_checkpoint(const char *name) {
  return strncmp(name, "optimiser/", 10) == 0 || strncmp(name, "standardise/", 12) == 0;
}

enum status parameters_load(const char *path, struct parameters parameters, enum dtype dtype) {
  struct array_file *file;
  enum status status;
  TRY(array_file_read(path, false, &file));
  TRY_GOTO(load_flat(file, "", &parameters, parameters.data, dtype), out);
  for (size_t i = 0; i < file->array_count; i++) {
    bool known = belongs_to_checkpoint(file->arrays[i].name);
    for (int k = 0; k < parameters.count && !known; k++)
      known = strcmp(file->arrays[i].name, parameters.list[k].name) == 0;
    REQUIRE_GOTO(known, out, ERR_FORMAT, "%s has \"%s\", which the model does not have; give the same --hidden as then",
                 path, file->arrays[i].name);
  }
out:
  array_file_destroy(&file);
  return status;
}
