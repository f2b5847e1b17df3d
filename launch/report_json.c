/* report.json: what the tables of a report say, for programs. */
#include "launch/report.h"

#include "io/durable.h"
#include "launch/evaluate_table.h"
#include "launch/json_output.h"
#include "launch/readable.h"
#include "version.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A text of others: JSON is UTF-8. */
static json_t *text_json(const char *text) {
  size_t bytes = strlen(text) + 1; /* what cannot be shown is not longer than it was */
  char *shown = malloc(bytes);
  json_t *string = shown != NULL ? json_string(readable_text(text, INT_MAX, shown, bytes)) : NULL;
  free(shown);
  return string;
}

/* Setters of jansson take what could not be allocated as an error of their own. */
static int options_json(json_t *object, const struct run_record *record) {
  json_t *options = json_object();
  int failed = json_object_set_new(object, "options", options);
  for (int i = 0; i < record->options && !failed; i++) {
    char name[256];
    readable_text(record->option[i].name, 200, name, sizeof name);
    failed |= json_object_set_new(options, name, text_json(record->option[i].value));
  }
  return failed;
}

static int measured_json(json_t *object, const struct report_run *run) {
  json_t *targets = json_array(), *errors;
  char hash[32];
  snprintf(hash, sizeof hash, "%016" PRIx64, run->hash);
  if (evaluate_table_json(&run->table, &errors) != STATUS_OK)
    errors = NULL;
  int failed = json_object_set_new(object, "targets", targets);
  for (int k = 0; k < run->components; k++)
    failed |= json_array_append_new(targets, text_json(run->target[k]));
  failed |= json_object_set_new(object, "data_hash", json_string(hash));
  failed |= json_object_set_new(object, "samples", json_integer(run->rows));
  failed |= json_object_set_new(object, "training_samples", json_integer(run->train_rows));
  failed |= json_object_set_new(object, "features", json_integer(run->width));
  return failed | json_object_set_new(object, "errors", errors);
}

static json_t *run_json(const struct report_run *run) {
  const struct run_record *record = run->record;
  double epoch, mae;
  json_t *object = json_object();
  bool some = report_best_epoch(record, &epoch, &mae);
  int failed = json_object_set_new(object, "name", text_json(run->name));
  failed |= json_object_set_new(object, "folder", text_json(record->folder));
  failed |= json_object_set_new(object, "data", text_json(run->data[0] != '\0' ? run->data : record->data));
  failed |= json_object_set_new(object, "made_by", text_json(record->made_by));
  failed |= json_object_set_new(object, "ranks", text_json(record->ranks));
  failed |= json_object_set_new(object, "epochs", json_integer(record->epochs));
  failed |= json_object_set_new(object, "best_epoch", some ? json_integer((json_int_t)epoch) : json_null());
  failed |= json_object_set_new(object, "best_val_mae", json_output_number(mae));
  failed |= json_object_set_new(object, "damaged_lines", json_integer(record->damaged));
  failed |= json_object_set_new(object, "torn_line", json_boolean(record->torn));
  failed |= json_object_set_new(object, "left_out", run->left_out[0] != '\0' ? text_json(run->left_out) : json_null());
  failed |= run->measured ? measured_json(object, run) : 0;
  failed |= options_json(object, record);
  if (!failed)
    return object;
  json_decref(object);
  return NULL;
}

static int lists_json(json_t *object, const struct report *report) {
  json_t *runs = json_array(), *pictures = json_array(), *notes = json_array(), *differences = json_array();
  int failed = json_object_set_new(object, "runs", runs);
  failed |= json_object_set_new(object, "options_that_differ", differences);
  failed |= json_object_set_new(object, "pictures", pictures);
  failed |= json_object_set_new(object, "left_out", notes);
  for (int r = 0; r < report->runs; r++)
    failed |= json_array_append_new(runs, run_json(&report->run[r]));
  for (int i = 0; report_difference(report, i) != NULL; i++)
    failed |= json_array_append_new(differences, text_json(report_difference(report, i)));
  for (int i = 0; i < report->notes; i++)
    failed |= json_array_append_new(notes, text_json(report->note[i]));
  for (int i = 0; i < report->pictures; i++)
    failed |= json_array_append_new(pictures, json_pack("{s:s, s:s, s:b}", "name", report->picture[i].stem, "title",
                                                        report->picture[i].title, "drawn", report->picture[i].drawn));
  return failed;
}

static json_t *whole_json(const struct report *report) {
  const struct config *config = report->config;
  json_t *object = json_object();
  int failed = json_object_set_new(object, "made_by", json_string("conr " CONR_VERSION " " CONR_COMMIT));
  failed |= json_object_set_new(object, "command", text_json(report->command));
  failed |= json_object_set_new(object, "part", json_string(config->part));
  failed |= json_object_set_new(object, "checkpoint", json_string(config->checkpoint));
  failed |= json_object_set_new(object, "many", json_integer(config->many));
  failed |= json_object_set_new(object, "few", json_integer(config->few));
  failed |= json_object_set_new(object, "bin_width", json_real(config->bin_width));
  failed |= lists_json(object, report);
  if (!failed)
    return object;
  json_decref(object);
  return NULL;
}

static enum status print_json(void *context, FILE *out) {
  json_t *object = whole_json(context);
  REQUIRE(object != NULL, ERR_MEMORY, "out of memory for report.json");
  int failed = json_dumpf(object, out, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
  json_decref(object);
  REQUIRE(failed == 0 || ferror(out), ERR_MEMORY, "out of memory for report.json"); /* durable_print() asks `out` */
  return STATUS_OK;
}

enum status report_json(const struct report *report) {
  char path[PATH_MAX];
  return durable_print(report_path(report, "report.json", path), print_json, (void *)report);
}
