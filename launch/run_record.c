/* Reading what a run wrote of itself. */
#include "launch/run_record.h"

#include "dist/memory.h"
#include "launch/run_folder.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define OVER_RANKS(curve, name) \
  [curve##_MIN] = "rank_" name "_min", [curve##_MEDIAN] = "rank_" name "_median", [curve##_MAX] = "rank_" name "_max"

static const char *const keys[CURVES] = {[CURVE_EPOCH] = "epoch",
                                         [CURVE_STEP] = "step",
                                         [CURVE_TRAIN_LOSS] = "train_loss",
                                         [CURVE_VAL_MAE] = "val_mae",
                                         [CURVE_VAL_MSE] = "val_mse",
                                         [CURVE_CONR] = "loss_conr",
                                         [CURVE_RANKSIM] = "loss_ranksim",
                                         [CURVE_RNC] = "loss_rnc",
                                         [CURVE_ACCON] = "loss_accon",
                                         [CURVE_SRL] = "loss_srl",
                                         [CURVE_RECONSTRUCTION] = "loss_reconstruction",
                                         [CURVE_NOISE_SCALE] = "noise_scale",
                                         [CURVE_LR] = "lr",
                                         [CURVE_SECONDS] = "seconds",
                                         [CURVE_DATA_WAIT] = "data_wait",
                                         [CURVE_FORWARD] = "time_forward",
                                         [CURVE_LOSS] = "time_loss",
                                         [CURVE_GATHER] = "time_gather",
                                         [CURVE_REGULARISERS] = "time_regularisers",
                                         [CURVE_BACKWARD] = "time_backward",
                                         [CURVE_REDUCE] = "time_reduce",
                                         [CURVE_UPDATE] = "time_update",
                                         [CURVE_SAMPLES] = "samples_per_second",
                                         OVER_RANKS(CURVE_RANK_DATA, "data"),
                                         OVER_RANKS(CURVE_RANK_COMPUTE, "compute"),
                                         OVER_RANKS(CURVE_RANK_WAIT, "wait")};

const char *curve_key(enum curve curve) {
  return keys[curve];
}

/* ---- config.used ---------------------------------------------------------------------------- */

/* "# data FILE, hash 0123": the file's name may have commas of its own. */
static void take_data(struct run_record *record, const char *text) {
  const char *comma = NULL;
  for (const char *at = text; (at = strstr(at, ", hash ")) != NULL; at++)
    comma = at;
  if (comma == NULL || (size_t)(comma - text) >= sizeof record->data)
    return;
  snprintf(record->data, sizeof record->data, "%.*s", (int)(comma - text), text);
  snprintf(record->hash, sizeof record->hash, "%s", comma + strlen(", hash "));
}

static void take_comment(struct run_record *record, const char *text) {
  if (strncmp(text, "data ", 5) == 0)
    take_data(record, text + 5);
  else if (strncmp(text, "conr ", 5) == 0)
    snprintf(record->made_by, sizeof record->made_by, "%s", text);
  else if (strstr(text, " ranks on ") != NULL)
    snprintf(record->ranks, sizeof record->ranks, "%s", text);
}

static enum status take_option(struct run_record *record, char *line) {
  char *middle = strstr(line, " = ");
  if (middle == NULL)
    return STATUS_OK;
  *middle = '\0';
  struct run_option *more = realloc(record->option, ((size_t)record->options + 1) * sizeof *more);
  REQUIRE(more != NULL, ERR_MEMORY, "out of memory for the options of %s", record->folder);
  record->option = more;
  record->option[record->options++] = (struct run_option){line, middle + 3};
  return STATUS_OK;
}

static enum status read_config(struct run_record *record) {
  char path[PATH_MAX];
  size_t bytes = 0;
  FILE *file = fopen(run_path(record->folder, RUN_CONFIG, path), "re");
  if (file == NULL)
    return STATUS_OK;
  ssize_t length = getdelim(&record->text, &bytes, '\0', file); /* all of it */
  fclose(file);
  if (length <= 0)
    return STATUS_OK;
  for (char *line = record->text, *end; line != NULL; line = end) {
    end = strchr(line, '\n');
    if (end != NULL)
      *end++ = '\0';
    if (line[0] == '#')
      take_comment(record, line + strspn(line, "# "));
    else
      TRY(take_option(record, line));
  }
  return STATUS_OK;
}

const char *run_record_option(const struct run_record *record, const char *name) {
  for (int i = 0; i < record->options; i++)
    if (strcmp(record->option[i].name, name) == 0)
      return record->option[i].value;
  return NULL;
}

/* ---- metrics.jsonl -------------------------------------------------------------------------- */

/* An epoch that comes again was begun again from a checkpoint: what was told from there on is told anew. */
static enum status take_epoch(struct run_record *record, const json_t *line, int64_t *room) {
  double values[CURVES];
  for (int c = 0; c < CURVES; c++) {
    const json_t *value = json_object_get(line, keys[c]);
    values[c] = json_is_number(value) ? json_number_value(value) : NAN;
  }
  values[CURVE_EPOCH] += 1;
  while (record->epochs > 0 && record->epoch[record->epochs - 1][CURVE_EPOCH] >= values[CURVE_EPOCH])
    record->epochs--;
  if (record->epochs == *room) {
    *room = *room > 0 ? 2 * *room : 64;
    double(*more)[CURVES] = realloc(record->epoch, (size_t)*room * sizeof *more);
    REQUIRE(more != NULL, ERR_MEMORY, "out of memory for the epochs of %s", record->folder);
    record->epoch = more;
  }
  memcpy(record->epoch[record->epochs++], values, sizeof values);
  return STATUS_OK;
}

/* An epoch's line has its number; others are of no use here, if they can be read. */
static enum status take_line(struct run_record *record, const char *text, size_t length, int64_t *room) {
  json_t *line = json_loadb(text, length, 0, NULL);
  const char *event = json_string_value(json_object_get(line, "event"));
  bool is_epoch = event != NULL && strcmp(event, "epoch") == 0;
  enum status status = STATUS_OK;
  if (event == NULL || (is_epoch && !json_is_integer(json_object_get(line, "epoch"))))
    record->damaged++;
  else if (is_epoch)
    status = take_epoch(record, line, room);
  json_decref(line);
  return status;
}

static enum status read_metrics(struct run_record *record) {
  char path[PATH_MAX], *text = NULL;
  size_t bytes = 0;
  int64_t room = 0;
  enum status status = STATUS_OK;
  FILE *file = fopen(run_path(record->folder, RUN_METRICS, path), "re");
  if (file == NULL)
    return STATUS_OK;
  for (ssize_t length; status == STATUS_OK && (length = getline(&text, &bytes, file)) > 0;) {
    record->torn = text[length - 1] != '\n';
    if (!record->torn)
      status = take_line(record, text, (size_t)length, &room);
  }
  free(text);
  fclose(file);
  return status;
}

/* ---- both ----------------------------------------------------------------------------------- */

static bool has(const char *folder, enum run_file file) {
  char path[PATH_MAX];
  return access(run_path(folder, file, path), R_OK) == 0;
}

static enum status check_folder(const char *folder) {
  struct stat info;
  REQUIRE(strlen(folder) + 64 < PATH_MAX, ERR_ARGUMENT, "the run folder's name is too long (%zu characters)",
          strlen(folder));
  REQUIRE(stat(folder, &info) == 0, ERR_ARGUMENT, "cannot open run folder %s: %s", folder, strerror(errno));
  REQUIRE(S_ISDIR(info.st_mode), ERR_ARGUMENT, "%s is no run folder; give the folder that conr train -o wrote", folder);
  REQUIRE(has(folder, RUN_METRICS) || run_folder_has_checkpoint(folder), ERR_ARGUMENT,
          "%s holds no run; give the folder that conr train -o wrote", folder);
  return STATUS_OK;
}

enum status run_record_read(const char *folder, struct run_record **out) {
  struct run_record *record;
  *out = NULL;
  TRY(check_folder(folder));
  TRY(memory_alloc_zero(sizeof *record, (void **)&record));
  snprintf(record->folder, sizeof record->folder, "%s", folder);
  enum status status = read_config(record);
  if (status == STATUS_OK)
    status = read_metrics(record);
  if (status == STATUS_OK)
    *out = record;
  else
    run_record_destroy(&record);
  return status;
}

void run_record_destroy(struct run_record **record) {
  if (*record == NULL)
    return;
  free((*record)->option);
  free((*record)->text);
  free((*record)->epoch);
  memory_free((void **)record);
}
