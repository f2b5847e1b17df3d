/* The first pass of an image import: every image is read and decoded once. */
#include "dist/memory.h"
#include "io/import_folder.h"
#include "io/import_internal.h"
#include "io/import_report.h"

#include <stdio.h>
#include <string.h>

static enum status check_row(struct import *import, struct import_worker *worker, int64_t first, int64_t row) {
  struct import_verdict *verdict = &import->verdicts[row - first];
  const struct import_record *known = &import->records[row];
  verdict->reason[0] = '\0';
  verdict->record = *known;
  if (known->state == RECORD_SOUND &&
      import_source_is_same(import->source, import->rows, row, known->bytes, known->modified))
    return STATUS_OK;
  enum status status = import_worker_check(worker, import->source, import->rows, row, &verdict->record);
  if (status != ERR_FORMAT)
    return status;
  verdict->record.state = RECORD_BROKEN;
  snprintf(verdict->reason, sizeof verdict->reason, "%s", status_message());
  return STATUS_OK;
}

static enum status note_broken(struct import *import, int64_t row, const char *reason) {
  struct import_images_report *report = import->report;
  report->broken_count++;
  if (report->listed == IMPORT_MOST_SHOWN)
    return STATUS_OK;
  struct import_broken *broken = &report->broken[report->listed++];
  broken->row = import->rows->number[row];
  if (import->rows->path != NULL)
    TRY(import_report_set_text(&broken->path, import->rows->path[row]));
  return import_report_set_text(&broken->reason, reason);
}

/* Every rank's verdicts to every rank. */
static enum status gather(struct import *import, int64_t count) {
  int64_t *rows_of_rank = NULL;
  if (import->options->comm == NULL)
    return STATUS_OK;
  TRY(import_agree(import, memory_alloc((size_t)import->size * sizeof *rows_of_rank, (void **)&rows_of_rank)));
  for (int rank = 0; rank < import->size; rank++)
    rows_of_rank[rank] = import_share(count, rank + 1, import->size) - import_share(count, rank, import->size);
  enum status status =
      comm_gather_rows(import->options->comm, NULL, rows_of_rank, sizeof *import->verdicts, import->verdicts);
  memory_free((void **)&rows_of_rank);
  return status;
}

static enum status take_verdicts(struct import *import, int64_t first, int64_t count, int64_t *news) {
  *news = 0;
  for (int64_t i = 0; i < count; i++) {
    const struct import_verdict *verdict = &import->verdicts[i];
    *news += memcmp(&import->records[first + i], &verdict->record, sizeof verdict->record) != 0;
    import->records[first + i] = verdict->record;
    if (verdict->record.state == RECORD_BROKEN)
      TRY(note_broken(import, first + i, verdict->reason));
  }
  return STATUS_OK;
}

static enum status after_check(struct import *import, struct import_pass *pass, int64_t first, int64_t count) {
  int64_t news;
  TRY(gather(import, count));
  enum status status = take_verdicts(import, first, count, &news);
  if (status == STATUS_OK && news > 0 && import->journal != NULL)
    status = import_journal_checked(import->journal, first, count, import->records + first);
  if (news == 0) { /* all known before: no measure of what is to come */
    pass->began = log_seconds();
    pass->began_at = first + count;
  }
  return import_agree(import, status);
}

static void list_broken(const struct import *import) {
  const struct import_images_report *report = import->report;
  for (int i = 0; i < report->listed; i++) {
    const struct import_broken *broken = &report->broken[i];
    import_say(import, "  %s %lld%s%s: %s", report->is_csv ? "line" : "row", (long long)broken->row,
               broken->path != NULL ? ", " : "", broken->path != NULL ? broken->path : "", broken->reason);
  }
  if (report->broken_count > report->listed)
    import_say(import, "  and %lld more", (long long)(report->broken_count - report->listed));
}

/* Broken images end the import, or their rows go. */
static enum status judge(struct import *import) {
  const struct import_images_options *options = import->options;
  const struct import_images_report *report = import->report;
  const struct import_broken *first = &report->broken[0];
  long long rows = (long long)import->rows->count, broken = (long long)report->broken_count;
  char name[400] = "";
  if (broken == 0)
    return STATUS_OK;
  snprintf(name, sizeof name, "%s %lld%s%.300s", report->is_csv ? "line" : "row", (long long)first->row,
           first->path != NULL ? ", " : "", first->path != NULL ? first->path : "");
  bool lost = report->is_csv && strcmp(first->reason, IMPORT_NO_SUCH_FILE) == 0;
  if (broken == rows)
    return fail(ERR_FORMAT, "none of the %lld images of %s can be used; the first, %s: %s%s%s", rows,
                options->source_path, name, first->reason,
                lost ? "; give --images the folder that the paths start from, not " : "",
                lost ? options->images_folder : "");
  if (options->on_error == IMPORT_SKIP)
    return STATUS_OK;
  list_broken(import);
  return fail(ERR_FORMAT,
              "%lld of the %lld images of %s cannot be used; the first, %s: %s; mend them, or leave them out with "
              "--on-error skip",
              broken, rows, options->source_path, name, first->reason);
}

static enum status leave_out_broken(struct import *import) {
  int64_t to = 0;
  bool *kept = NULL;
  if (import->report->broken_count == 0)
    return STATUS_OK;
  TRY(memory_alloc((size_t)import->rows->count, (void **)&kept));
  for (int64_t i = 0; i < import->rows->count; i++) {
    kept[i] = import->records[i].state == RECORD_SOUND;
    if (kept[i])
      import->records[to++] = import->records[i];
  }
  import_rows_keep(import->rows, kept);
  memory_free((void **)&kept);
  return STATUS_OK;
}

enum status import_check_all(struct import *import) {
  struct import_pass pass = {.name = "checking", .row = check_row, .after = after_check, .total = import->rows->count};
  TRY(import_run_pass(import, &pass));
  if (import->stopped) {
    import_say(import, "stopped by a signal: %lld of %lld images checked; the same command goes on from there",
               (long long)pass.done, (long long)pass.total);
    return STATUS_OK;
  }
  TRY(import_agree(import, judge(import)));
  enum status status = STATUS_OK;
  if (import->rank == 0 && import->options->images_folder != NULL)
    status = import_find_unlabelled(import->options->images_folder, import->rows, import->report);
  if (status == STATUS_OK)
    status = leave_out_broken(import);
  if (status == STATUS_OK)
    status = import_apply_protocol(import);
  if (status == STATUS_OK)
    status = import_rows_settle(import->rows, import->options);
  return import_agree(import, status);
}
