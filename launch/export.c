/* conr export: a checkpoint's parameters as safetensors, under the names that PyTorch's modules have. */
#include "dist/memory.h"
#include "io/safetensors.h"
#include "launch/commands.h"
#include "launch/run_folder.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define MOST_TEXTS 16

/* What the file says of itself, beside its tensors. */
struct texts {
  struct safetensors_text list[MOST_TEXTS];
  size_t count;
  char numbers[4][32];
  char *mean, *std; /* of jansson */
};

/* ---- output --------------------------------------------------------------------------------- */

static enum status check_output(const struct config *config, const char *checkpoint) {
  static const char ending[] = ".safetensors";
  struct stat now, source;
  const char *output = config->output;
  REQUIRE(output != NULL, ERR_ARGUMENT, "conr export wants a file to write: give -o FILE.safetensors");
  size_t length = strlen(output), tail = strlen(ending);
  REQUIRE(length > tail && strcasecmp(output + length - tail, ending) == 0, ERR_ARGUMENT,
          "cannot tell how to write %s: its name must end in %s", output, ending);
  if (stat(output, &now) != 0)
    return STATUS_OK;
  REQUIRE(config->force, ERR_ARGUMENT, "%s exists already; use --force to replace it", output);
  REQUIRE(stat(checkpoint, &source) != 0 || source.st_dev != now.st_dev || source.st_ino != now.st_ino, ERR_ARGUMENT,
          "%s is the checkpoint itself; choose another name", output);
  return STATUS_OK;
}

/* ---- tensors -------------------------------------------------------------------------------- */

/* Parameters and buffers, the latter without their folder; the data stay the checkpoint's. */
static enum status list_tensors(const struct array_file *file, struct array **out, size_t *count) {
  size_t folder = strlen(CHECKPOINT_BUFFERS);
  *count = 0;
  TRY(memory_alloc(file->array_count * sizeof **out, (void **)out));
  for (size_t i = 0; i < file->array_count; i++) {
    const struct array *array = &file->arrays[i];
    bool buffer = strncmp(array->name, CHECKPOINT_BUFFERS, folder) == 0;
    if (!buffer && !checkpoint_names_parameter(array->name))
      continue;
    TRY(array_borrow(array->name + (buffer ? folder : 0), array->type, array->rank, array->shape, array->data,
                     &(*out)[(*count)++]));
  }
  return STATUS_OK;
}

/* ---- metadata ------------------------------------------------------------------------------- */

static void add_text(struct texts *texts, const char *name, const char *value) {
  texts->list[texts->count++] = (struct safetensors_text){name, value};
}

static void add_number(struct texts *texts, int which, const char *name, int64_t value) {
  snprintf(texts->numbers[which], sizeof texts->numbers[which], "%lld", (long long)value);
  add_text(texts, name, texts->numbers[which]);
}

/* "[0.5,1.25]": metadata are texts. */
static enum status numbers_as_json(const struct array *array, char **out) {
  json_t *list = json_array();
  bool made = list != NULL;
  for (int64_t i = 0; i < array_count(array) && made; i++)
    made = json_array_append_new(list, json_real(((const double *)array->data)[i])) == 0;
  if (made)
    *out = json_dumps(list, JSON_COMPACT | JSON_REAL_PRECISION(17));
  json_decref(list);
  REQUIRE(*out != NULL, ERR_FORMAT, "\"%s\" of the checkpoint holds a number that is not finite", array->name);
  return STATUS_OK;
}

/* How a table's columns are standardised before the network sees them. */
static enum status add_standardisation(struct texts *texts, const struct opened_checkpoint *checkpoint) {
  if (checkpoint->mean == NULL || checkpoint->std == NULL)
    return STATUS_OK;
  REQUIRE(checkpoint->mean->type == ARRAY_F64 && checkpoint->std->type == ARRAY_F64, ERR_FORMAT,
          "the standardisation in %s is not of float64 numbers; use another checkpoint", checkpoint->file->path);
  TRY(numbers_as_json(checkpoint->mean, &texts->mean));
  TRY(numbers_as_json(checkpoint->std, &texts->std));
  add_text(texts, "standardise_mean", texts->mean);
  add_text(texts, "standardise_std", texts->std);
  return STATUS_OK;
}

static enum status describe(struct texts *texts, const struct opened_checkpoint *checkpoint) {
  const struct model_description *model = &checkpoint->model;
  const char *made_by;
  TRY(array_file_text(checkpoint->file, "made_by", &made_by));
  add_text(texts, "format", "pt");
  add_text(texts, "made_by", made_by);
  add_text(texts, "model", model->name);
  add_text(texts, "feature_names", checkpoint->feature_names);
  add_text(texts, "target_names", checkpoint->target_names);
  add_number(texts, 0, "outputs", model->outputs);
  add_text(texts, "head", model->head);
  if (model->probabilistic)
    add_text(texts, "features", "distributions");
  if (strcmp(model->name, "mlp") == 0) {
    add_number(texts, 1, "inputs", model->inputs);
    add_text(texts, "hidden", model->hidden);
    add_text(texts, "activation", model->activation);
    return add_standardisation(texts, checkpoint);
  }
  add_number(texts, 2, "height", model->height);
  add_number(texts, 3, "width", model->width);
  add_text(texts, "normalise", model->normalise);
  return STATUS_OK;
}

/* ---- the command ---------------------------------------------------------------------------- */

static enum status export_checkpoint(const struct opened_checkpoint *checkpoint, const struct config *config) {
  struct texts texts = {.count = 0};
  struct array *tensors = NULL;
  size_t count = 0;
  int64_t numbers = 0;
  enum status status;
  TRY_GOTO(list_tensors(checkpoint->file, &tensors, &count), out);
  TRY_GOTO(describe(&texts, checkpoint), out);
  TRY_GOTO(safetensors_write(config->output, tensors, count, texts.list, texts.count), out);
  for (size_t i = 0; i < count; i++)
    numbers += array_count(&tensors[i]);
  if (!config->quiet)
    printf("%s: %s after %lld epochs, %zu tensors, %lld numbers\n", config->output, checkpoint->model.name,
           (long long)checkpoint->progress.epoch, count, (long long)numbers);
out:
  free(texts.mean);
  free(texts.std);
  memory_free((void **)&tensors);
  return status;
}

enum status command_export(const struct config *config) {
  struct opened_checkpoint checkpoint;
  char path[PATH_MAX];
  TRY(run_checkpoint_path(config->word[0], config->checkpoint, path));
  TRY(check_output(config, path));
  TRY(checkpoint_open(path, &checkpoint));
  enum status status = export_checkpoint(&checkpoint, config);
  checkpoint_close(&checkpoint);
  return status;
}
