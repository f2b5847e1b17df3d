/* conr report. */
#define _GNU_SOURCE /* asprintf, open_memstream */
#include "launch/report.h"

#include "dist/memory.h"
#include "launch/commands.h"
#include "launch/evaluate.h"
#include "launch/run_folder.h"
#include "version.h"

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

const char *report_path(const struct report *report, const char *name, char path[PATH_MAX]) {
  snprintf(path, PATH_MAX, "%s/%s", report->folder, name);
  return path;
}

enum status report_note(struct report *report, const char *format, ...) {
  va_list arguments;
  char(*more)[1280] = realloc(report->note, ((size_t)report->notes + 1) * sizeof *more);
  REQUIRE(more != NULL, ERR_MEMORY, "out of memory for a report");
  report->note = more;
  va_start(arguments, format);
  vsnprintf(more[report->notes], sizeof *more, format, arguments);
  va_end(arguments);
  log_warning(&report->session->log, "%s", more[report->notes]);
  report->notes++;
  return STATUS_OK;
}

bool report_best_epoch(const struct run_record *record, double *epoch, double *mae) {
  int64_t best = -1;
  for (int64_t e = 0; e < record->epochs; e++)
    if (!isnan(record->epoch[e][CURVE_VAL_MAE]) &&
        (best < 0 || record->epoch[e][CURVE_VAL_MAE] < record->epoch[best][CURVE_VAL_MAE]))
      best = e;
  *epoch = best < 0 ? NAN : record->epoch[best][CURVE_EPOCH];
  *mae = best < 0 ? NAN : record->epoch[best][CURVE_VAL_MAE];
  return best >= 0;
}

/* ---- options that differ -------------------------------------------------------------------- */

static bool is_same_text(const char *a, const char *b) {
  return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* A run whose config.used is lost has no part in it. */
static bool differs(const struct report *report, const char *name) {
  const struct run_record *first = NULL;
  for (int r = 0; r < report->runs; r++) {
    const struct run_record *record = report->run[r].record;
    if (record->options == 0)
      continue;
    first = first == NULL ? record : first;
    if (!is_same_text(run_record_option(first, name), run_record_option(record, name)))
      return strcmp(name, "output") != 0; /* all have a folder of their own */
  }
  return false;
}

const char *report_difference(const struct report *report, int n) {
  for (int r = 0; r < report->runs; r++)
    for (int i = 0; i < report->run[r].record->options; i++) {
      const char *name = report->run[r].record->option[i].name;
      bool seen = false;
      for (int before = 0; before < r && !seen; before++)
        seen = run_record_option(report->run[before].record, name) != NULL;
      if (!seen && differs(report, name) && n-- == 0)
        return name;
    }
  return NULL;
}

/* ---- names ---------------------------------------------------------------------------------- */

/* The last `parts` parts of a path, without slashes at its end; "." and ".." by themselves tell nothing. */
static void end_of_path(const char *path, int parts, char name[REPORT_NAME]) {
  int length = (int)strlen(path);
  while (length > 1 && path[length - 1] == '/')
    length--;
  int first = length;
  for (int part = 0; part < parts && first > 0; part++) {
    first -= first < length; /* the slash before the last part */
    while (first > 0 && path[first - 1] != '/')
      first--;
  }
  if (length - first >= REPORT_NAME)
    first = length - REPORT_NAME + 1;
  snprintf(name, REPORT_NAME, "%.*s", length - first, path + first);
}

static bool names_differ(const struct report *report) {
  for (int r = 0; r < report->runs; r++)
    for (int other = 0; other < r; other++)
      if (strcmp(report->run[r].name, report->run[other].name) == 0)
        return false;
  return true;
}

static enum status name_runs(struct report *report) {
  char *const *words = report->config->rest;
  for (int parts = 1; parts < 64; parts++) {
    for (int r = 0; r < report->runs; r++)
      end_of_path(words[r], parts, report->run[r].name);
    if (names_differ(report))
      return STATUS_OK;
  }
  for (int r = 0; r < report->runs; r++)
    for (int other = 0; other < r; other++)
      REQUIRE(strcmp(report->run[r].name, report->run[other].name) != 0, ERR_ARGUMENT, "%s is named twice", words[r]);
  return STATUS_OK;
}

/* ---- what is asked for ---------------------------------------------------------------------- */

/* A word as a shell takes it. */
static void write_word(FILE *out, const char *word) {
  if (word[0] != '\0' &&
      word[strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=.,/:@")] == '\0') {
    fprintf(out, " %s", word);
    return;
  }
  fputs(" '", out);
  for (const char *at = word; *at != '\0'; at++)
    fprintf(out, *at == '\'' ? "'\\''" : "%c", *at);
  fputc('\'', out);
}

/* The options that were given, from the lines of all of them. */
static void write_options(FILE *out, const struct config *config, char *lines) {
  for (char *line = lines, *end; line != NULL && *line != '\0'; line = end) {
    end = strchr(line, '\n');
    if (end != NULL)
      *end++ = '\0';
    char *value = strstr(line, " = ");
    if (value == NULL)
      continue;
    *value = '\0';
    value += 3;
    if (!config_given(config, line) || strcmp(value, "false") == 0)
      continue;
    fprintf(out, " --%s", line);
    if (strcmp(value, "true") != 0)
      write_word(out, value);
  }
}

/* The command line, in one order whatever it was written in. */
static enum status write_command(struct report *report) {
  const struct config *config = report->config;
  char *lines = NULL;
  size_t bytes = 0, line_bytes = 0;
  FILE *all = open_memstream(&lines, &line_bytes), *out = open_memstream(&report->command, &bytes);
  if (all != NULL) {
    config_write(config, all);
    fclose(all);
  }
  if (out != NULL) {
    fputs("conr report", out);
    for (int r = 0; r < report->runs; r++)
      write_word(out, config->rest[r]);
    if (lines != NULL)
      write_options(out, config, lines);
    fclose(out);
  }
  free(lines);
  REQUIRE(report->command != NULL && lines != NULL, ERR_MEMORY, "out of memory for a report");
  return STATUS_OK;
}

/* Does the folder hold an earlier report, by its own words? */
static bool is_report(const struct report *report) {
  char path[PATH_MAX];
  json_t *object = json_load_file(report_path(report, "report.json", path), 0, NULL);
  const char *command = json_string_value(json_object_get(object, "command"));
  bool own = command != NULL && strncmp(command, "conr report ", 12) == 0;
  json_decref(object);
  return own;
}

/* Nobody's labels.csv becomes a report's. */
static enum status make_folder(const struct report *report) {
  char name[64];
  TRY(run_folder_make(report->folder));
  REQUIRE(report->config->force || is_report(report) || report_find_file(report, name) == NULL, ERR_ARGUMENT,
          "%s holds a file %s that is none of conr report; give another folder by -o, or --force", report->folder,
          name);
  return STATUS_OK;
}

/* Rank 0: what can be told without the network. */
static enum status plan(struct report *report) {
  TRY(evaluate_check(report->config));
  TRY(name_runs(report));
  for (int r = 0; r < report->runs; r++) {
    struct report_run *run = &report->run[r];
    TRY(run_record_read(report->config->rest[r], &run->record));
    if (run->record->damaged > 0)
      TRY(report_note(report, "%s: %lld line%s of metrics.jsonl cannot be read and %s left out", run->name,
                      (long long)run->record->damaged, run->record->damaged > 1 ? "s" : "",
                      run->record->damaged > 1 ? "are" : "is"));
    if (run->record->torn)
      TRY(report_note(report, "%s: the last line of metrics.jsonl was cut short and is left out", run->name));
  }
  TRY(write_command(report));
  return make_folder(report);
}

/* ---- the order of things -------------------------------------------------------------------- */

/* --data that is of no run is a mistake. */
static enum status check_data(const struct report *report) {
  for (int r = 0; r < report->runs; r++)
    if (report->run[r].measured)
      return STATUS_OK;
  REQUIRE(report->config->data == NULL, ERR_ARGUMENT, "--data %s is of no use: %s: %s", report->config->data,
          report->run[0].name, report->run[0].left_out);
  return STATUS_OK;
}

/* Rank 0. */
static enum status note_what_is_missing(struct report *report) {
  for (int r = 0; r < report->runs; r++) {
    const struct report_run *run = &report->run[r];
    if (run->left_out[0] != '\0')
      TRY(report_note(report, "%s: no errors, predictions and features: %s", run->name, run->left_out));
    else if (run->components == 0)
      TRY(report_note(report,
                      "%s: its labels have %d components; pictures of labels and features are drawn for up to %d",
                      run->name, run->targets, REPORT_COMPONENTS));
    else if (run->similarity[0]->without > 0)
      TRY(report_note(report, "%s: the features of %.0f of %lld samples are all 0, or not finite: they are in no pair",
                      run->name, run->similarity[0]->without, (long long)run->rows));
  }
  return STATUS_OK;
}

static enum status measure_all(struct report *report) {
  for (int r = 0; r < report->runs; r++)
    TRY(report_measure(report, &report->run[r]));
  return comm_agree(report->session->comm, check_data(report));
}

/* Rank 0. */
static enum status write_all(struct report *report) {
  char path[PATH_MAX];
  TRY(note_what_is_missing(report));
  if (!plotter_find(&report->plotter))
    TRY(report_note(report, "no pictures are drawn: %s", report->plotter.why));
  TRY(report_pictures(report));
  TRY(report_json(report));
  TRY(report_page(report));
  log_line(&report->session->log, "%d run%s, %d picture%s%s: %s", report->runs, report->runs > 1 ? "s" : "",
           report->pictures, report->pictures == 1 ? "" : "s",
           report->plotter.path[0] == '\0' && report->pictures > 0 ? " not drawn" : "",
           report_path(report, "index.html", path));
  return STATUS_OK;
}

static void free_report(struct report *report) {
  for (int r = 0; r < report->runs; r++) {
    run_record_destroy(&report->run[r].record);
    for (int k = 0; k < REPORT_COMPONENTS; k++) {
      label_view_destroy(&report->run[r].view[k]);
      similarity_destroy(&report->run[r].similarity[k]);
    }
  }
  free(report->note);
  free(report->command);
  memory_free((void **)&report);
}

enum status command_report(struct session *session, const struct config *config) {
  struct report *report;
  bool root = comm_rank(session->comm) == 0;
  enum status status;
  TRY(comm_agree(session->comm, memory_alloc_zero(sizeof *report, (void **)&report)));
  report->session = session;
  report->config = config;
  report->folder = config->output != NULL ? config->output : "report";
  report->runs = config->words;
  TRY_GOTO(comm_agree(session->comm, root ? plan(report) : STATUS_OK), out);
  TRY_GOTO(measure_all(report), out);
  status = comm_agree(session->comm, root ? write_all(report) : STATUS_OK);
out:
  free_report(report);
  return status;
}
