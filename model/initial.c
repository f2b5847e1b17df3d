/* Initial parameters from safetensors or HDF5. */
#include "model/initial.h"

#include "dist/host_copy.h"
#include "dist/memory.h"
#include "io/array_file.h"
#include "io/safetensors.h"
#include "model/checkpoint.h"

#include <stdio.h>
#include <string.h>

/* Training on several devices leaves this before the names. */
#define MODULE "module."

/* Either kind of file. */
struct source {
  const char *path;
  struct safetensors *safetensors; /* NULL: the other */
  struct array_file *hdf5;
  const char *prefix; /* that all names have */
};

/* What a file says of one tensor. */
struct found {
  const struct safetensors_tensor *tensor;
  const struct array *array;
  int rank;
  const int64_t *shape;
};

/* ---- the two kinds of file ------------------------------------------------------------------ */

static size_t source_count(const struct source *source) {
  return source->safetensors != NULL ? source->safetensors->count : source->hdf5->array_count;
}

static const char *source_name(const struct source *source, size_t i) {
  return source->safetensors != NULL ? source->safetensors->tensors[i].name : source->hdf5->arrays[i].name;
}

/* PyTorch's own files are zip archives of pickles. */
static bool is_pickle(const char *path) {
  char first[4] = "";
  FILE *stream = fopen(path, "rbe");
  bool zip = stream != NULL && fread(first, 1, 4, stream) == 4 && memcmp(first, "PK\3\4", 4) == 0;
  if (stream != NULL)
    fclose(stream);
  return zip;
}

static enum status source_open(const char *path, struct source *out) {
  *out = (struct source){.path = path, .prefix = MODULE};
  REQUIRE(!is_pickle(path), ERR_FORMAT,
          "%s is a pickle of PyTorch, which runs code when it is read; convert it with "
          "safetensors.torch.save_file(torch.load(...), \"FILE.safetensors\")",
          path);
  if (safetensors_is(path))
    TRY(safetensors_open(path, &out->safetensors));
  else
    TRY(array_file_read(path, false, &out->hdf5));
  for (size_t i = 0; i < source_count(out); i++)
    if (strncmp(source_name(out, i), MODULE, strlen(MODULE)) != 0)
      out->prefix = "";
  return STATUS_OK;
}

static void source_close(struct source *source) {
  safetensors_close(&source->safetensors);
  array_file_destroy(&source->hdf5);
}

static bool find_exactly(const struct source *source, const char *folder, const char *name, struct found *out) {
  char full[ARRAY_NAME_BYTES + PARAMETER_NAME_BYTES];
  snprintf(full, sizeof full, "%s%s%s", source->prefix, folder, name);
  *out = (struct found){0};
  if (source->safetensors != NULL) {
    out->tensor = safetensors_find(source->safetensors, full);
    if (out->tensor != NULL)
      *out = (struct found){.tensor = out->tensor, .rank = out->tensor->rank, .shape = out->tensor->shape};
    return out->tensor != NULL;
  }
  out->array = array_file_find(source->hdf5, full);
  if (out->array != NULL)
    *out = (struct found){.array = out->array, .rank = out->array->rank, .shape = out->array->shape};
  return out->array != NULL;
}

/* Buffers of a checkpoint lie in a folder of their own. */
static bool find(const struct source *source, const char *name, struct found *out) {
  return find_exactly(source, "", name, out) || find_exactly(source, CHECKPOINT_BUFFERS, name, out);
}

static enum status copy(const struct source *source, const struct found *found, enum dtype dtype, void *out) {
  if (found->array != NULL) {
    array_convert(found->array, dtype, out);
    return STATUS_OK;
  }
  struct array array;
  TRY(safetensors_read(source->safetensors, found->tensor, &array));
  array_convert(&array, dtype, out);
  array_destroy(&array);
  return STATUS_OK;
}

/* ---- checks --------------------------------------------------------------------------------- */

static bool fits(const struct found *found, const struct parameter *one) {
  return found->rank == one->rank && memcmp(found->shape, one->shape, (size_t)one->rank * sizeof *one->shape) == 0;
}

/* Must the layer of the outputs start afresh?  Then `note` says why. */
static bool is_other_head(const struct source *source, const struct parameters *parameters, char *note, size_t bytes) {
  char wanted[128], other[128];
  struct found found;
  if (parameters->head == 0) /* all there is to load */
    return false;
  for (int i = parameters->output; i < parameters->count; i++) {
    const struct parameter *one = &parameters->list[i];
    if (!find(source, one->name, &found)) {
      snprintf(note, bytes, "%s has no %s: the head starts afresh", source->path, one->name);
      return true;
    }
    if (!fits(&found, one)) {
      snprintf(note, bytes, "%s of %s has shape %s, not %s: the head starts afresh", one->name, source->path,
               array_shape_text(found.rank, found.shape, other, sizeof other),
               array_shape_text(one->rank, one->shape, wanted, sizeof wanted));
      return true;
    }
  }
  return false;
}

/* What is taken along beside the encoder. */
struct choice {
  bool decoder, output;
};

static bool is_wanted(const struct parameters *parameters, int i, struct choice choice) {
  return i < parameters->head || (i < parameters->output ? choice.decoder : choice.output);
}

/* Is the whole decoder there?  Files of other programs, and of runs without one, have none. */
static bool has_decoder(const struct source *source, const struct parameters *parameters) {
  struct found found;
  for (int i = parameters->head; i < parameters->output; i++)
    if (!find(source, parameters->list[i].name, &found) || !fits(&found, &parameters->list[i]))
      return false;
  return true;
}

/* What is wanted must be there. */
static enum status check_all(const struct source *source, const struct parameters *parameters, struct choice choice) {
  char wanted[128], other[128];
  struct found found;
  for (int i = 0; i < parameters->count; i++) {
    const struct parameter *one = &parameters->list[i];
    if (!is_wanted(parameters, i, choice))
      continue;
    array_shape_text(one->rank, one->shape, wanted, sizeof wanted);
    REQUIRE(find(source, one->name, &found), ERR_FORMAT, "%s has no \"%s\"; the model has it with shape %s",
            source->path, one->name, wanted);
    REQUIRE(fits(&found, one), ERR_FORMAT,
            "\"%s\" is %s in %s but %s in the model; give the same --model and --hidden as then", one->name,
            array_shape_text(found.rank, found.shape, other, sizeof other), source->path, wanted);
  }
  return STATUS_OK;
}

static bool is_among(const char *name, const struct parameters *parameters) {
  for (int i = 0; i < parameters->count; i++)
    if (strcmp(name, parameters->list[i].name) == 0)
      return true;
  return false;
}

/* A counter of PyTorch. */
static bool is_ignored(const char *name) {
  static const char ending[] = ".num_batches_tracked";
  size_t length = strlen(name), tail = strlen(ending);
  return !checkpoint_names_parameter(name) || (length > tail && strcmp(name + length - tail, ending) == 0);
}

/* Decoders are for training alone, and no loss to a model that has none. */
static bool is_of_decoder(const char *name) {
  static const char decoder[] = "decoder.";
  return strncmp(name, decoder, strlen(decoder)) == 0;
}

/* Is the name a parameter or buffer of the model? */
static bool is_known(const char *name, const struct parameters *parameters, const struct parameters *buffers) {
  if (strncmp(name, CHECKPOINT_BUFFERS, strlen(CHECKPOINT_BUFFERS)) == 0) {
    name += strlen(CHECKPOINT_BUFFERS);
    return is_of_decoder(name) || is_among(name, buffers);
  }
  return is_ignored(name) || is_of_decoder(name) || is_among(name, parameters) || is_among(name, buffers);
}

/* Nothing else may be there: it would be another network's. */
static enum status check_no_others(const struct source *source, const struct parameters *parameters,
                                   const struct parameters *buffers) {
  const char *first = NULL;
  int others = 0;
  for (size_t i = 0; i < source_count(source); i++) {
    const char *name = source_name(source, i) + strlen(source->prefix);
    if (!is_known(name, parameters, buffers) && others++ == 0)
      first = name;
  }
  REQUIRE(others < 2, ERR_FORMAT,
          "%s has \"%.100s\" and %d more that the model does not have; give the same --model, --hidden and "
          "--probabilistic as then",
          source->path, first, others - 1);
  REQUIRE(
      others == 0, ERR_FORMAT,
      "%s has \"%.100s\", which the model does not have; give the same --model, --hidden and --probabilistic as then",
      source->path, first);
  return STATUS_OK;
}

/* ---- loading -------------------------------------------------------------------------------- */

static enum status fill(const struct source *source, const struct parameters *parameters, struct choice choice,
                        enum dtype dtype, char *data) {
  struct found found;
  for (int i = 0; i < parameters->count; i++) {
    const struct parameter *one = &parameters->list[i];
    if (!is_wanted(parameters, i, choice))
      continue;
    REQUIRE(find(source, one->name, &found), ERR_BUG, "\"%s\" was there and is gone", one->name);
    TRY(copy(source, &found, dtype, data + one->offset * dtype_size(dtype)));
  }
  return STATUS_OK;
}

/* What is wanted; the others keep what they hold. */
static enum status copy_all(const struct source *source, const struct parameters *parameters, struct choice choice,
                            enum dtype dtype) {
  struct host_copy here;
  enum status status;
  TRY(host_copy_create(parameters->device, parameters->data, parameters->elements * dtype_size(dtype), &here));
  TRY_GOTO(host_copy_fetch(&here), out);
  TRY_GOTO(fill(source, parameters, choice, dtype, here.data), out);
  TRY_GOTO(host_copy_store(&here), out);
out:
  host_copy_destroy(&here);
  return status;
}

enum status parameters_load(const char *path, struct parameters parameters, struct parameters buffers, enum dtype dtype,
                            char *note, size_t bytes) {
  struct source source;
  enum status status;
  note[0] = '\0';
  TRY_GOTO(source_open(path, &source), out);
  struct choice choice = {.output = !is_other_head(&source, &parameters, note, bytes),
                          .decoder = has_decoder(&source, &parameters)};
  if (!choice.decoder && note[0] == '\0')
    snprintf(note, bytes, "%s has no decoder that fits: it starts afresh", path);
  TRY_GOTO(check_all(&source, &parameters, choice), out);
  TRY_GOTO(check_all(&source, &buffers, choice), out);
  TRY_GOTO(check_no_others(&source, &parameters, &buffers), out);
  TRY_GOTO(copy_all(&source, &parameters, choice, dtype), out);
  status = copy_all(&source, &buffers, choice, dtype);
out:
  source_close(&source);
  return status;
}
