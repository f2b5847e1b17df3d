/* The second pass of an image import: the file's frame by rank 0, every image into its place by all. */
#include "dist/memory.h"
#include "io/image.h"
#include "io/import_internal.h"
#include "io/import_report.h"

#include <zlib.h>

/* Written rows are synced and noted about this often. */
#define SYNC_SECONDS 5.0

/* What the file will be made of: an earlier attempt's file aside is of use if this has not changed. */
static uint32_t plan_of(const struct import *import) {
  uLong sum = crc32(0, NULL, 0);
  for (int64_t i = 0; i < import->rows->count; i++) {
    const struct import_record *record = &import->records[i];
    uint64_t facts[] = {(uint64_t)import->rows->number[i], (uint64_t)record->length, record->source_crc, record->crc};
    sum = crc32(sum, (const unsigned char *)facts, sizeof facts);
  }
  return sum != 0 ? (uint32_t)sum : 1; /* 0 says that there is none */
}

/* Rank 0: go on with the file aside, or begin one. */
static enum status prepare_file(struct import *import) {
  struct import_progress *progress = &import->progress;
  uint32_t plan = plan_of(import);
  if (progress->plan == plan && progress->written >= 0 && progress->written <= import->rows->count &&
      import_output_is_there(import->options->output_path, progress->bytes, &import->output)) {
    import->output.data_offset = progress->data_offset;
    import->output.bytes = progress->bytes;
    return STATUS_OK;
  }
  progress->plan = 0;
  progress->written = 0;
  TRY(import_output_create(import->options, import->rows, import->records, &import->output));
  return import_journal_created(import->journal, plan, import->output.bytes, import->output.data_offset);
}

static enum status place_images(struct import *import) {
  int64_t offset = 0;
  TRY(memory_alloc((size_t)import->rows->count * sizeof *import->offset, (void **)&import->offset));
  for (int64_t i = 0; i < import->rows->count; i++) {
    import->offset[i] = offset;
    offset += import->records[i].length;
  }
  import->report->bytes = offset;
  return STATUS_OK;
}

static enum status write_row(struct import *import, struct import_worker *worker, int64_t first, int64_t row) {
  const struct import_record *record = &import->records[row];
  const uint8_t *bytes;
  (void)first;
  TRY(import_worker_make(worker, import->source, import->rows, row, record, &bytes));
  return import_output_write(&import->output, import->offset[row], bytes, (size_t)record->length);
}

/* Note what is safely on the disk, now and then and before stopping. */
static enum status after_write(struct import *import, struct import_pass *pass, int64_t first, int64_t count) {
  double since = log_seconds() - pass->synced;
  TRY(import_broadcast(import, &since, sizeof since));
  if (since < SYNC_SECONDS && !import->stopped)
    return STATUS_OK;
  TRY(import_agree(import, import_output_sync(&import->output)));
  pass->synced = log_seconds();
  return import_agree(import,
                      import->journal != NULL ? import_journal_written(import->journal, first + count) : STATUS_OK);
}

static enum status open_file(struct import *import) {
  struct import_pass pass = {.name = "writing", .row = write_row, .after = after_write, .total = import->rows->count};
  int64_t places[3];
  TRY(import_agree(import, import->rank == 0 ? prepare_file(import) : STATUS_OK));
  places[0] = import->output.data_offset;
  places[1] = import->output.bytes;
  places[2] = import->progress.written;
  TRY(import_broadcast(import, places, sizeof places));
  import->output.data_offset = places[0];
  import->output.bytes = places[1];
  pass.done = places[2];
  enum status status = place_images(import);
  if (status == STATUS_OK)
    status = import_output_open(import->options->output_path, &import->output);
  TRY(import_agree(import, status));
  TRY(import_run_pass(import, &pass));
  if (import->stopped)
    import_say(import, "stopped by a signal: %lld of %lld images written; the same command goes on from there",
               (long long)pass.done, (long long)pass.total);
  return STATUS_OK;
}

static enum status count_labels(struct import *import) {
  struct import_report *labels = import->report->labels;
  labels->rows = import->rows->count;
  for (int64_t i = 0; i < import->rows->count; i++)
    labels->split_rows[import->rows->split[i]]++;
  return import_report_count_targets(labels, import->output.durable.temporary,
                                     (const char *const *)import->rows->target_names, import->rows->target_count);
}

static void count_images(struct import *import) {
  struct import_images_report *report = import->report;
  int64_t least = INT64_MAX, most = 0;
  for (int64_t i = 0; i < import->rows->count; i++) {
    const struct import_record *record = &import->records[i];
    int64_t pixels = (int64_t)record->height * record->width;
    report->jpegs += record->format == IMAGE_JPEG;
    report->pngs += record->format == IMAGE_PNG;
    if (pixels < least)
      report->least[0] = record->height, report->least[1] = record->width;
    if (pixels > most)
      report->most[0] = record->height, report->most[1] = record->width;
    least = pixels < least ? pixels : least;
    most = pixels > most ? pixels : most;
  }
}

enum status import_write_all(struct import *import) {
  enum status status = open_file(import);
  enum status closed = import_output_close(&import->output);
  TRY(status);
  TRY(import_agree(import, closed));
  if (import->stopped)
    return STATUS_OK;
  if (import->rank == 0) {
    count_images(import);
    status = count_labels(import);
    if (status == STATUS_OK)
      status = durable_commit(&import->output.durable);
  }
  return import_agree(import, status);
}
