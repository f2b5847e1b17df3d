/* conr import: from options to io/import.h. */
#include "io/import.h"
#include "dist/log.h"
#include "dist/memory.h"
#include "launch/commands.h"

#include <stdlib.h>
#include <string.h>

#define MOST_NAMES 4096

/* Split "a,b,c" in place; names [MOST_NAMES] point into `text`. */
static enum status split_names(const char *option, char *text, const char **names, size_t *count) {
  *count = 0;
  for (char *next = text; next != NULL;) {
    char *comma = strchr(next, ',');
    if (comma != NULL)
      *comma = '\0';
    REQUIRE(*next != '\0', ERR_ARGUMENT, "--%s has an empty name; give names separated by commas", option);
    REQUIRE(*count < MOST_NAMES, ERR_ARGUMENT, "--%s takes at most %d names", option, MOST_NAMES);
    names[(*count)++] = next;
    next = comma ? comma + 1 : NULL;
  }
  return STATUS_OK;
}

static enum status parse_fractions(const char *text, double fractions[3]) {
  char rest;
  int count = sscanf(text, "%lf,%lf,%lf%c", &fractions[0], &fractions[1], &fractions[2], &rest);
  REQUIRE(count == 3, ERR_ARGUMENT, "--split wants three shares such as 0.7,0.15,0.15, not \"%s\"", text);
  return STATUS_OK;
}

static void show_progress(void *context, double fraction, int64_t rows, double rows_per_second) {
  log_progress(context, false, "importing: %.0f %%, %lld rows, %.0f rows/s", 100 * fraction, (long long)rows,
               rows_per_second);
}

static enum missing_policy policy_of(const char *name) {
  return strcmp(name, "drop-row") == 0 ? MISSING_DROP_ROW : strcmp(name, "mean") == 0 ? MISSING_MEAN : MISSING_ERROR;
}

static enum status import_with(const struct config *config, char *targets, char *drops, const char **names) {
  struct log log = log_create(0, 1, config->quiet);
  struct import_csv_options options = {.csv_path = config->word[0],
                                       .output_path = config->output,
                                       .targets = names,
                                       .weight = config->weight_column,
                                       .split = config->split_column,
                                       .seed = (uint64_t)config->seed,
                                       .drops = names + MOST_NAMES,
                                       .missing = policy_of(config->missing),
                                       .force = config->force,
                                       .progress = show_progress,
                                       .progress_context = &log};
  struct import_report *report = NULL;
  TRY(split_names("target", targets, names, &options.target_count));
  if (drops != NULL)
    TRY(split_names("drop", drops, names + MOST_NAMES, &options.drop_count));
  TRY(parse_fractions(config->split, options.fractions));
  enum status status = import_csv(&options, &report);
  if (log.live)
    log_progress(&log, true, status == STATUS_OK ? "importing: done" : "importing: failed");
  TRY(status);
  if (!config->quiet)
    import_report_print(report, stdout);
  import_report_destroy(&report);
  return STATUS_OK;
}

enum status command_import(const struct config *config) {
  REQUIRE(config->target != NULL, ERR_ARGUMENT, "conr import wants the label column: give --target NAME");
  REQUIRE(config->output != NULL, ERR_ARGUMENT, "conr import wants a file to write: give -o DATA.h5");
  REQUIRE(config->split_column == NULL || !config_given(config, "split"), ERR_ARGUMENT,
          "--split-column and --split contradict each other; give one");
  char *targets = strdup(config->target), *drops = config->drop ? strdup(config->drop) : NULL;
  const char **names = calloc(2 * MOST_NAMES, sizeof *names);
  enum status status = fail(ERR_MEMORY, "out of memory for the column names");
  if (targets != NULL && names != NULL && (config->drop == NULL || drops != NULL))
    status = import_with(config, targets, drops, names);
  free(names);
  free(drops);
  free(targets);
  return status;
}
