/* conr import: from options to io/import.h and io/import_images.h. */
#include "dist/log.h"
#include "dist/memory.h"
#include "io/import_images.h"
#include "launch/commands.h"
#include "launch/signals.h"

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

static enum status parse_protocol(const struct config *config, struct protocol_options *out) {
  *out = (struct protocol_options){.bin_width = config->protocol_bin, .seed = (uint64_t)config->seed};
  return protocol_by_name(config->protocol, &out->kind);
}

static bool has_protocol(const struct config *config) {
  return strcmp(config->protocol, "none") != 0;
}

static enum missing_policy policy_of(const char *name) {
  return strcmp(name, "drop-row") == 0 ? MISSING_DROP_ROW : strcmp(name, "mean") == 0 ? MISSING_MEAN : MISSING_ERROR;
}

/* ---- what kind of import it is ---------------------------------------------------------------- */

/* HDF5 files begin with these bytes. */
static bool is_hdf5(const char *path) {
  static const char signature[8] = "\x89HDF\r\n\x1a\n";
  char begin[sizeof signature] = "";
  FILE *stream = fopen(path, "re");
  if (stream == NULL)
    return false;
  size_t got = fread(begin, 1, sizeof begin, stream);
  fclose(stream);
  return got == sizeof begin && memcmp(begin, signature, sizeof begin) == 0;
}

bool import_is_of_images(const struct config *config) {
  return config->images != NULL || is_hdf5(config->word[0]);
}

/* None of these options may be given. */
static enum status refuse_options(const struct config *config, const char *const *names, size_t count,
                                  const char *reason) {
  for (size_t i = 0; i < count; i++)
    REQUIRE(!config_given(config, names[i]), ERR_ARGUMENT, "--%s %s", names[i], reason);
  return STATUS_OK;
}

#define REFUSE(config, reason, ...)                                                                                \
  refuse_options(config, (const char *const[]){__VA_ARGS__}, sizeof(const char *[]){__VA_ARGS__} / sizeof(char *), \
                 reason)

static enum status check_common(const struct config *config) {
  REQUIRE(config->output != NULL, ERR_ARGUMENT, "conr import wants a file to write: give -o DATA.h5");
  REQUIRE(config->split_column == NULL || !config_given(config, "split"), ERR_ARGUMENT,
          "--split-column and --split contradict each other; give one");
  REQUIRE(!has_protocol(config) || !config_given(config, "split"), ERR_ARGUMENT,
          "--split and --protocol contradict each other; give one");
  REQUIRE(has_protocol(config) || !config_given(config, "protocol-bin"), ERR_ARGUMENT,
          "--protocol-bin has no effect without --protocol; drop one or add the other");
  return STATUS_OK;
}

/* The names of --target and --drop, split; owned. */
struct name_lists {
  char *target_text, *drop_text;
  const char **targets, **drops; /* [MOST_NAMES] each, one block */
  size_t target_count, drop_count;
};

static void name_lists_free(struct name_lists *lists) {
  free(lists->targets);
  free(lists->drop_text);
  free(lists->target_text);
}

static enum status name_lists_read(const struct config *config, struct name_lists *lists) {
  *lists = (struct name_lists){.target_text = config->target ? strdup(config->target) : NULL,
                               .drop_text = config->drop ? strdup(config->drop) : NULL,
                               .targets = calloc(2 * MOST_NAMES, sizeof *lists->targets)};
  REQUIRE(lists->targets != NULL && (config->target == NULL || lists->target_text != NULL) &&
              (config->drop == NULL || lists->drop_text != NULL),
          ERR_MEMORY, "out of memory for the column names");
  lists->drops = lists->targets + MOST_NAMES;
  if (lists->target_text != NULL)
    TRY(split_names("target", lists->target_text, lists->targets, &lists->target_count));
  if (lists->drop_text != NULL)
    TRY(split_names("drop", lists->drop_text, lists->drops, &lists->drop_count));
  return STATUS_OK;
}

/* ---- a table ---------------------------------------------------------------------------------- */

static enum status import_table(const struct config *config, const struct name_lists *lists) {
  struct log log = log_create(0, 1, config->quiet);
  struct import_csv_options options = {.csv_path = config->word[0],
                                       .output_path = config->output,
                                       .targets = lists->targets,
                                       .target_count = lists->target_count,
                                       .weight = config->weight_column,
                                       .split = config->split_column,
                                       .seed = (uint64_t)config->seed,
                                       .drops = lists->drops,
                                       .drop_count = lists->drop_count,
                                       .missing = policy_of(config->missing),
                                       .force = config->force,
                                       .progress = show_progress,
                                       .progress_context = &log};
  struct import_report *report = NULL;
  TRY(parse_fractions(config->split, options.fractions));
  TRY(parse_protocol(config, &options.protocol));
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
  struct name_lists lists;
  REQUIRE(config->target != NULL, ERR_ARGUMENT, "conr import wants the label column: give --target NAME");
  TRY(check_common(config));
  TRY(REFUSE(config, "is for images; give --images DIR too, or leave it out", "path-column", "layout", "size",
             "quality", "on-error", "threads"));
  enum status status = name_lists_read(config, &lists);
  if (status == STATUS_OK)
    status = import_table(config, &lists);
  name_lists_free(&lists);
  return status;
}

/* ---- images ----------------------------------------------------------------------------------- */

static bool stop_asked(void *context) {
  (void)context;
  return signals_stop_asked();
}

static enum status check_images(const struct config *config) {
  bool pixels = strcmp(config->layout, "pixels") == 0;
  TRY(check_common(config));
  REQUIRE(pixels || !config_given(config, "size"), ERR_ARGUMENT,
          "--size is for --layout pixels; encoded images keep their own size");
  REQUIRE(!pixels || !config_given(config, "quality"), ERR_ARGUMENT, "--quality is for --layout encoded");
  if (config->images == NULL) {
    REQUIRE(config_given(config, "layout"), ERR_ARGUMENT,
            "%s is an HDF5 file: give --layout encoded or --layout pixels to convert its images", config->word[0]);
    return REFUSE(config, "is for CSV files; an HDF5 file keeps its labels and splits", "target", "weight-column",
                  "split-column", "split", "protocol", "protocol-bin", "path-column", "drop", "missing", "seed");
  }
  REQUIRE(!is_hdf5(config->word[0]), ERR_ARGUMENT, "--images goes with a CSV file; %s is an HDF5 file",
          config->word[0]);
  TRY(REFUSE(config, "is for converting an HDF5 file of pixels; files keep their own bytes", "quality"));
  return REFUSE(config, "is for tables; with --images, columns without a purpose are left out and none may be empty",
                "drop", "missing");
}

static enum status import_folder(struct session *session, const struct config *config, const struct name_lists *lists,
                                 bool *stopped) {
  int64_t height, width;
  struct import_images_options options = {.source_path = config->word[0],
                                          .images_folder = config->images,
                                          .output_path = config->output,
                                          .layout =
                                              strcmp(config->layout, "pixels") == 0 ? IMPORT_PIXELS : IMPORT_ENCODED,
                                          .quality = (int)config->quality,
                                          .on_error = strcmp(config->on_error, "skip") == 0 ? IMPORT_SKIP : IMPORT_STOP,
                                          .targets = lists->targets,
                                          .target_count = lists->target_count,
                                          .path = config->path_column,
                                          .weight = config->weight_column,
                                          .split = config->split_column,
                                          .draw_split = config_given(config, "split") || has_protocol(config),
                                          .seed = (uint64_t)config->seed,
                                          .force = config->force,
                                          .threads = session->threads,
                                          .comm = session->comm,
                                          .log = &session->log,
                                          .stop_asked = stop_asked};
  struct import_images_report *report = NULL;
  TRY(config_size(config->size, &height, &width));
  TRY(parse_fractions(config->split, options.fractions));
  TRY(parse_protocol(config, &options.protocol));
  options.height = (int)height;
  options.width = (int)width;
  TRY(import_images(&options, &report));
  *stopped = report->stopped;
  if (!report->stopped && !config->quiet && comm_rank(session->comm) == 0)
    import_images_print(report, stdout);
  import_images_report_destroy(&report);
  return STATUS_OK;
}

enum status command_import_images(struct session *session, const struct config *config, bool *stopped) {
  struct name_lists lists = {0};
  enum status status = check_images(config);
  if (status == STATUS_OK)
    status = name_lists_read(config, &lists);
  status = comm_agree(session->comm, status);
  if (status == STATUS_OK)
    status = import_folder(session, config, &lists, stopped);
  name_lists_free(&lists);
  return status;
}
