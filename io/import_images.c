/* Importing images: look at all of them, then write all of them, with a journal of what is done. */
#include "io/import_images.h"

#include "dist/memory.h"
#include "io/import_internal.h"
#include "io/import_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

static enum status check_options(const struct import_images_options *options) {
  struct stat source, output;
  struct durable names;
  bool exists = stat(options->output_path, &output) == 0;
  if (exists && stat(options->source_path, &source) == 0)
    REQUIRE(source.st_dev != output.st_dev || source.st_ino != output.st_ino, ERR_ARGUMENT,
            "input and output are both %s; give another name for the output", options->source_path);
  REQUIRE(!exists || options->force || S_ISDIR(output.st_mode), ERR_ARGUMENT,
          "%s exists already; use --force to replace it", options->output_path);
  TRY(durable_name(options->output_path, &names));
  const double *f = options->fractions;
  REQUIRE(options->images_folder != NULL || options->protocol.kind == PROTOCOL_NONE, ERR_ARGUMENT,
          "a protocol draws the rows of a CSV file; %s keeps its own splits", options->source_path);
  if (options->images_folder == NULL || options->split != NULL || options->protocol.kind != PROTOCOL_NONE)
    return STATUS_OK;
  for (int i = 0; i < SPLIT_COUNT; i++)
    REQUIRE(isfinite(f[i]) && f[i] >= 0, ERR_ARGUMENT, "the %s fraction %g must be at least 0", split_name(i), f[i]);
  REQUIRE(fabs(f[0] + f[1] + f[2] - 1) <= 1e-6, ERR_ARGUMENT,
          "the split fractions %g, %g and %g sum to %g; they must sum to 1", f[0], f[1], f[2], f[0] + f[1] + f[2]);
  return STATUS_OK;
}

static enum status create_report(struct import *import) {
  const struct import_images_options *options = import->options;
  struct import_images_report *report;
  TRY(memory_alloc_zero(sizeof *report, (void **)&import->report));
  report = import->report;
  report->is_csv = options->images_folder != NULL;
  report->layout = options->layout;
  report->height = options->height;
  report->width = options->width;
  if (import->source->kind == SOURCE_PIXELS && options->layout == IMPORT_ENCODED)
    report->quality = options->quality > 0 ? options->quality : IMPORT_DEFAULT_QUALITY;
  if (import->rows->unused != NULL)
    TRY(import_report_set_text(&report->unused, import->rows->unused));
  return import_report_create(options->output_path, &report->labels);
}

/* Local: every rank reads the table. */
static enum status prepare(struct import *import) {
  const struct import_images_options *options = import->options;
  TRY(check_options(options));
  TRY(import_source_open(options, &import->source));
  TRY(options->images_folder != NULL ? import_rows_read_csv(options, &import->rows)
                                     : import_rows_read_h5(options->source_path, &import->rows));
  REQUIRE(options->images_folder != NULL || import->rows->count == import->source->rows, ERR_FORMAT,
          "%s has %lld images and %lld labels", options->source_path, (long long)import->source->rows,
          (long long)import->rows->count);
  TRY(import_rows_settle(import->rows, options)); /* early: what cannot be trained is not worth looking at */
  TRY(create_report(import));
  TRY(memory_alloc_zero((size_t)import->rows->count * sizeof *import->records, (void **)&import->records));
  TRY(memory_alloc(IMPORT_ROUND_ROWS * sizeof *import->verdicts, (void **)&import->verdicts));
  TRY(memory_alloc_zero((size_t)import->threads * sizeof *import->workers, (void **)&import->workers));
  for (int i = 0; i < import->threads; i++)
    TRY(import_worker_create(options, &import->workers[i]));
  return STATUS_OK;
}

/* Everything that the checks and the file depend on, as a number: names may hold any byte. */
static enum status identify(const struct import *import, char *out, size_t bytes) {
  const struct import_images_options *options = import->options;
  char *text = NULL;
  size_t length = 0;
  FILE *stream = open_memstream(&text, &length);
  REQUIRE(stream != NULL, ERR_MEMORY, "out of memory for the journal");
  fprintf(stream, "%s\n%s\n%d %d %d %d\n", options->source_path,
          options->images_folder != NULL ? options->images_folder : "", (int)options->layout, options->height,
          options->width, options->quality);
  for (size_t i = 0; i < options->target_count; i++)
    fprintf(stream, "%s\n", options->targets[i]);
  fprintf(stream, "%d %.17g %llu\n", (int)options->protocol.kind, options->protocol.bin_width,
          (unsigned long long)options->protocol.seed);
  fprintf(stream, "%s\n%s\n%s\n%d %.17g %.17g %.17g %llu\n", options->path != NULL ? options->path : "",
          options->weight != NULL ? options->weight : "", options->split != NULL ? options->split : "",
          options->draw_split, options->fractions[0], options->fractions[1], options->fractions[2],
          (unsigned long long)options->seed);
  bool written = fclose(stream) == 0;
  if (written)
    snprintf(out, bytes, "table %08x, options %08lx", import->rows->checksum,
             crc32(0, (const unsigned char *)text, (uInt)length));
  free(text);
  REQUIRE(written, ERR_MEMORY, "out of memory for the journal");
  return STATUS_OK;
}

/* Collective: what an earlier attempt left, from rank 0 to all. */
static enum status begin(struct import *import) {
  char identity[64];
  enum status status = STATUS_OK;
  if (import->rank == 0) {
    status = identify(import, identity, sizeof identity);
    if (status == STATUS_OK)
      status = import_journal_open(import->options->output_path, identity, import->rows->count, import->records,
                                   &import->journal);
    if (status == STATUS_OK)
      import->progress = import_journal_progress(import->journal);
  }
  TRY(import_agree(import, status));
  TRY(import_broadcast(import, &import->progress, sizeof import->progress));
  TRY(import_broadcast(import, import->records, (size_t)import->rows->count * sizeof *import->records));
  if (import->progress.replaced)
    import_say(import, "an interrupted import to %s had another table or other options; starting afresh",
               import->options->output_path);
  if (import->progress.checked > 0)
    import_say(import, "going on with an interrupted import: %lld of %lld images were checked, %lld written",
               (long long)import->progress.checked, (long long)import->rows->count,
               (long long)import->progress.written);
  return STATUS_OK;
}

/* What trying again cannot mend leaves nothing behind; the rest leaves what was done. */
static void clean_up(struct import *import, enum status status) {
  bool can_go_on = status == ERR_FILE || status == ERR_MEMORY || status == ERR_COMM || import->stopped;
  if (import->journal != NULL && status != STATUS_OK && !can_go_on &&
      durable_name(import->options->output_path, &import->output.durable) == STATUS_OK)
    durable_abandon(&import->output.durable);
  import_journal_close(&import->journal, !can_go_on);
}

static void free_import(struct import *import) {
  for (int i = 0; import->workers != NULL && i < import->threads; i++)
    import_worker_destroy(&import->workers[i]);
  memory_free((void **)&import->workers);
  memory_free((void **)&import->verdicts);
  memory_free((void **)&import->offset);
  memory_free((void **)&import->records);
  import_rows_destroy(&import->rows);
  import_source_close(&import->source);
}

enum status import_images(const struct import_images_options *options, struct import_images_report **out) {
  struct import import = {.options = options,
                          .rank = options->comm != NULL ? comm_rank(options->comm) : 0,
                          .size = options->comm != NULL ? comm_size(options->comm) : 1,
                          .threads = options->threads > 1 ? options->threads : 1,
                          .output = {.file = -1}};
  enum status status;
  *out = NULL;
  enum status prepared = prepare(&import);
  TRY_GOTO(import_agree(&import, prepared), out);
  TRY_GOTO(prepared, out); /* never: all have agreed; for analysers, which do not know that */
  TRY_GOTO(begin(&import), out);
  TRY_GOTO(import_check_all(&import), out);
  if (!import.stopped)
    TRY_GOTO(import_write_all(&import), out);
  import.report->stopped = import.stopped;
  *out = import.report;
  import.report = NULL;
out:
  clean_up(&import, status);
  import_images_report_destroy(&import.report);
  free_import(&import);
  return status;
}
