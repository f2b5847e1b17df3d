/* The journal of an image import: JSON lines through jansson. */
#define _GNU_SOURCE
#include "io/import_journal.h"

#include "dist/memory.h"
#include "io/durable.h"
#include "io/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define FORMAT 1

struct import_journal {
  int file;
  struct import_progress progress;
  char *output_path; /* for sentences */
  char path[];
};

/* ---- reading ------------------------------------------------------------------------------- */

/* [bytes, modified, length, source_crc, crc, height, width, format]; null = broken, to be looked at again. */
static bool read_record(const json_t *value, struct import_record *record) {
  json_int_t number[8];
  if (json_is_null(value))
    return true;
  if (json_array_size(value) != 8)
    return false;
  for (size_t i = 0; i < 8; i++)
    number[i] = json_integer_value(json_array_get(value, i));
  *record = (struct import_record){.bytes = number[0],
                                   .modified = number[1],
                                   .length = number[2],
                                   .source_crc = (uint32_t)number[3],
                                   .crc = (uint32_t)number[4],
                                   .height = (int32_t)number[5],
                                   .width = (int32_t)number[6],
                                   .format = (int32_t)number[7],
                                   .state = RECORD_SOUND};
  return record->bytes > 0 && record->length > 0 && record->height > 0 && record->width > 0;
}

static bool read_records(const json_t *line, int64_t rows, struct import_record *records) {
  const json_t *list = json_object_get(line, "records");
  int64_t first = json_integer_value(json_object_get(line, "first")), count = (int64_t)json_array_size(list);
  if (first < 0 || count > rows || first > rows - count)
    return false;
  for (int64_t i = 0; i < count; i++) {
    records[first + i].state = RECORD_UNKNOWN;
    if (!read_record(json_array_get(list, (size_t)i), &records[first + i]))
      return false;
  }
  return true;
}

/* One line after the first; false when it makes no sense. */
static bool read_line(struct import_journal *journal, const char *text, int64_t rows, struct import_record *records) {
  struct import_progress *progress = &journal->progress;
  json_t *line = json_loads(text, 0, NULL);
  bool good = line != NULL;
  if (json_object_get(line, "records") != NULL) {
    good = read_records(line, rows, records);
  } else if (json_object_get(line, "plan") != NULL) {
    progress->plan = (uint32_t)json_integer_value(json_object_get(line, "plan"));
    progress->bytes = json_integer_value(json_object_get(line, "bytes"));
    progress->data_offset = json_integer_value(json_object_get(line, "data_offset"));
    progress->written = 0;
  } else if (good) {
    progress->written = json_integer_value(json_object_get(line, "written"));
  }
  json_decref(line);
  return good;
}

/* Is the first line that of this import? */
static bool is_ours(const char *text, const char *identity, int64_t rows) {
  json_t *line = json_loads(text, 0, NULL);
  const char *found = json_string_value(json_object_get(line, "identity"));
  bool ours = found != NULL && strcmp(found, identity) == 0 &&
              json_integer_value(json_object_get(line, "conr_import")) == FORMAT &&
              json_integer_value(json_object_get(line, "rows")) == rows;
  json_decref(line);
  return ours;
}

/* Take in what is sound; *end = the bytes of it. */
static enum status read_lines(struct import_journal *journal, const char *identity, int64_t rows,
                              struct import_record *records, int64_t *end) {
  char *text = NULL;
  size_t room = 0;
  ssize_t bytes;
  bool first = true;
  *end = 0;
  FILE *stream = fopen(journal->path, "re");
  REQUIRE(stream != NULL, ERR_FILE, "cannot read %s: %s", journal->path, strerror(errno));
  while ((bytes = getline(&text, &room, stream)) > 0 && text[bytes - 1] == '\n') {
    bool good = first ? is_ours(text, identity, rows) : read_line(journal, text, rows, records);
    if (!good)
      break;
    *end += bytes;
    first = false;
  }
  journal->progress.replaced = bytes > 0 && first;
  free(text);
  fclose(stream);
  for (int64_t i = 0; i < rows; i++)
    journal->progress.checked += records[i].state == RECORD_SOUND;
  return STATUS_OK;
}

/* ---- writing ------------------------------------------------------------------------------- */

/* Takes `line` over. */
static enum status append(struct import_journal *journal, json_t *line) {
  char *text = line == NULL ? NULL : json_dumps(line, JSON_COMPACT);
  json_decref(line);
  REQUIRE(text != NULL, ERR_MEMORY, "out of memory for a line of %s", journal->path);
  size_t bytes = strlen(text);
  text[bytes++] = '\n'; /* in place of the NUL: one write a line */
  int error = storage_write(journal->file, text, bytes, STORAGE_APPEND);
  free(text);
  return error == 0 ? STATUS_OK : durable_write_failed(journal->output_path, error);
}

static enum status begin(struct import_journal *journal, const char *identity, int64_t rows) {
  return append(journal,
                json_pack("{s:i, s:s, s:I}", "conr_import", FORMAT, "identity", identity, "rows", (json_int_t)rows));
}

static enum status lock(struct import_journal *journal) {
  bool locked = flock(journal->file, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  REQUIRE(!locked, ERR_FILE, "another import is writing %s; wait for it, or give another name", journal->output_path);
  return STATUS_OK;
}

static enum status open_file(struct import_journal *journal, const char *identity, int64_t rows,
                             struct import_record *records) {
  int64_t end;
  journal->file = open(journal->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  REQUIRE(journal->file >= 0, ERR_FILE, "cannot write %s: %s; choose a folder you may write to", journal->output_path,
          strerror(errno));
  TRY(lock(journal));
  TRY(read_lines(journal, identity, rows, records, &end));
  if (ftruncate(journal->file, (off_t)end) != 0)
    return durable_write_failed(journal->output_path, errno);
  return end == 0 ? begin(journal, identity, rows) : STATUS_OK;
}

enum status import_journal_open(const char *output_path, const char *identity, int64_t rows,
                                struct import_record *records, struct import_journal **out) {
  struct import_journal *journal = NULL;
  size_t bytes = strlen(output_path) + 1;
  *out = NULL;
  TRY(memory_alloc_zero(sizeof *journal + 2 * bytes + sizeof ".journal", (void **)&journal));
  journal->file = -1;
  sprintf(journal->path, "%s.journal", output_path);
  journal->output_path = strcpy(journal->path + strlen(journal->path) + 1, output_path);
  enum status status = open_file(journal, identity, rows, records);
  if (status == STATUS_OK)
    *out = journal;
  else
    import_journal_close(&journal, false);
  return status;
}

void import_journal_close(struct import_journal **journal, bool remove) {
  if (*journal == NULL)
    return;
  if (remove)
    unlink((*journal)->path);
  if ((*journal)->file >= 0)
    close((*journal)->file);
  memory_free((void **)journal);
}

struct import_progress import_journal_progress(const struct import_journal *journal) {
  return journal->progress;
}

static json_t *pack_record(const struct import_record *record) {
  if (record->state != RECORD_SOUND)
    return json_null();
  return json_pack("[I, I, I, I, I, i, i, i]", (json_int_t)record->bytes, (json_int_t)record->modified,
                   (json_int_t)record->length, (json_int_t)record->source_crc, (json_int_t)record->crc, record->height,
                   record->width, record->format);
}

enum status import_journal_checked(struct import_journal *journal, int64_t first, int64_t count,
                                   const struct import_record *records) {
  json_t *list = json_array();
  for (int64_t i = 0; i < count; i++)
    json_array_append_new(list, pack_record(&records[i]));
  return append(journal, json_pack("{s:I, s:o}", "first", (json_int_t)first, "records", list));
}

enum status import_journal_created(struct import_journal *journal, uint32_t plan, int64_t bytes, int64_t data_offset) {
  return append(journal, json_pack("{s:I, s:I, s:I}", "plan", (json_int_t)plan, "bytes", (json_int_t)bytes,
                                   "data_offset", (json_int_t)data_offset));
}

enum status import_journal_written(struct import_journal *journal, int64_t rows) {
  return append(journal, json_pack("{s:I}", "written", (json_int_t)rows));
}
