/* libcsv fed line by line, so that each row knows where it began. */
#include "io/csv_reader.h"

#include "dist/memory.h"

#include <csv.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFER_BYTES ((size_t)1 << 18)

/* A row longer than this is an unclosed quote, not data. */
#define MOST_ROW_BYTES ((size_t)64 << 20)

struct csv_reader {
  struct csv_parser parser;
  int file;
  int64_t size, position; /* bytes of the file; of those, given to the parser */
  char *buffer;           /* [BUFFER_BYTES] */
  size_t begin, end;      /* what of it is still to be parsed */
  int64_t line;           /* the line being parsed          */
  bool after_cr;          /* a following LF is the same line end */
  bool in_row;            /* a row has begun on an earlier piece */
  bool row_done, at_end;
  int64_t row_line;
  char *text; /* the fields of the row, each with its NUL */
  size_t text_bytes, text_room;
  size_t *offsets; /* [field_room] where each field begins in `text` */
  size_t field_count, field_room;
  char **fields; /* [pointer_room] what the caller sees */
  size_t pointer_room;
  enum status failure; /* of a callback, which cannot return one */
  char path[];
};

static enum status check_readable(const char *path, int64_t *size) {
  struct stat entry;
  REQUIRE(stat(path, &entry) == 0, ERR_FILE, "cannot open %s: %s; check the path", path, strerror(errno));
  REQUIRE(!S_ISDIR(entry.st_mode), ERR_FILE, "cannot open %s: it is a directory; give a CSV file", path);
  REQUIRE(S_ISREG(entry.st_mode), ERR_FILE, "cannot open %s: it is not a regular file, and it must be read twice",
          path);
  REQUIRE(entry.st_size > 0, ERR_FORMAT, "%s is empty (0 bytes); a table needs a header line and rows", path);
  *size = (int64_t)entry.st_size;
  return STATUS_OK;
}

enum status csv_reader_open(const char *path, struct csv_reader **out) {
  struct csv_reader *reader = NULL;
  int64_t size = 0;
  enum status status;
  *out = NULL;
  TRY(check_readable(path, &size));
  TRY(memory_alloc_zero(sizeof *reader + strlen(path) + 1, (void **)&reader));
  strcpy(reader->path, path);
  reader->size = size;
  reader->line = 1;
  csv_init(&reader->parser, CSV_STRICT | CSV_STRICT_FINI | CSV_APPEND_NULL);
  reader->file = open(path, O_RDONLY | O_CLOEXEC);
  REQUIRE_GOTO(reader->file >= 0, failed, ERR_FILE, "cannot open %s: %s", path, strerror(errno));
  TRY_GOTO(memory_alloc(BUFFER_BYTES, (void **)&reader->buffer), failed);
  *out = reader;
  return STATUS_OK;
failed:
  csv_reader_close(&reader);
  return status;
}

void csv_reader_close(struct csv_reader **reader_pointer) {
  struct csv_reader *reader = *reader_pointer;
  if (reader == NULL)
    return;
  csv_free(&reader->parser);
  if (reader->file >= 0)
    close(reader->file);
  memory_free((void **)&reader->fields);
  memory_free((void **)&reader->offsets);
  memory_free((void **)&reader->text);
  memory_free((void **)&reader->buffer);
  memory_free((void **)reader_pointer);
}

/* Make room for `wanted` elements of `bytes`, keeping the first `used`. */
static enum status grow(void **block, size_t used, size_t wanted, size_t *room, size_t bytes) {
  if (wanted <= *room)
    return STATUS_OK;
  size_t larger_room = wanted + wanted / 2 + 16;
  void *larger = NULL;
  TRY(memory_alloc(larger_room * bytes, &larger));
  if (used > 0)
    memcpy(larger, *block, used * bytes);
  memory_free(block);
  *block = larger;
  *room = larger_room;
  return STATUS_OK;
}

static enum status keep_field(struct csv_reader *reader, const void *text, size_t bytes) {
  size_t count = reader->field_count;
  TRY(grow((void **)&reader->text, reader->text_bytes, reader->text_bytes + bytes + 1, &reader->text_room, 1));
  TRY(grow((void **)&reader->offsets, count, count + 1, &reader->field_room, sizeof *reader->offsets));
  reader->offsets[count] = reader->text_bytes;
  memcpy(reader->text + reader->text_bytes, text, bytes);
  reader->text[reader->text_bytes + bytes] = '\0';
  reader->text_bytes += bytes + 1;
  reader->field_count++;
  return STATUS_OK;
}

static void field_done(void *text, size_t bytes, void *context) {
  struct csv_reader *reader = context;
  if (reader->failure == STATUS_OK)
    reader->failure = keep_field(reader, text, bytes);
}

static void row_done(int terminator, void *context) {
  (void)terminator;
  ((struct csv_reader *)context)->row_done = true;
}

static enum status fill_buffer(struct csv_reader *reader) {
  ssize_t got;
  do
    got = read(reader->file, reader->buffer, BUFFER_BYTES);
  while (got < 0 && errno == EINTR);
  REQUIRE(got >= 0, ERR_FILE, "cannot read %s: %s", reader->path, strerror(errno));
  reader->begin = 0;
  reader->end = (size_t)got;
  reader->at_end = got == 0;
  if (reader->position == 0 && got >= 3 && memcmp(reader->buffer, "\xEF\xBB\xBF", 3) == 0)
    reader->begin = 3;
  reader->position += got;
  return STATUS_OK;
}

/* The piece of the buffer up to and with its first line end; refuses bytes that text does not hold. */
static enum status next_piece(const struct csv_reader *reader, size_t *bytes, bool *blank) {
  *blank = true;
  for (size_t i = reader->begin; i < reader->end; i++) {
    unsigned char c = (unsigned char)reader->buffer[i];
    REQUIRE(c >= 0x20 || c == '\t' || c == '\n' || c == '\r', ERR_FORMAT,
            "%s is not a CSV text file: line %lld holds the byte 0x%02x; save it as UTF-8 text", reader->path,
            (long long)reader->line, c);
    if (c == '\n' || c == '\r') {
      *bytes = i + 1 - reader->begin;
      return STATUS_OK;
    }
    *blank = *blank && (c == ' ' || c == '\t');
  }
  *bytes = reader->end - reader->begin;
  return STATUS_OK;
}

static enum status bad_quote(const struct csv_reader *reader) {
  return fail(ERR_FORMAT,
              "%s has a quote out of place in line %lld; a field with quotes is written \"...\", with \"\" for each of "
              "them",
              reader->path, (long long)reader->line);
}

/* Give one piece to the parser and count its line end. */
static enum status parse_piece(struct csv_reader *reader) {
  size_t bytes = 0;
  bool blank;
  TRY(next_piece(reader, &bytes, &blank));
  const char *piece = reader->buffer + reader->begin;
  char last = piece[bytes - 1];
  /* In LF after CR no line begins, and none ends. */
  bool line_ends = (last == '\n' || last == '\r') && !(reader->after_cr && last == '\n' && bytes == 1);
  if (!reader->in_row && !blank) {
    reader->in_row = true;
    reader->row_line = reader->line;
  }
  size_t taken = csv_parse(&reader->parser, piece, bytes, field_done, row_done, reader);
  TRY(reader->failure);
  REQUIRE(csv_error(&reader->parser) != CSV_ENOMEM, ERR_MEMORY, "cannot allocate a row of %s", reader->path);
  if (taken != bytes)
    return bad_quote(reader);
  reader->begin += bytes;
  reader->after_cr = last == '\r';
  reader->line += line_ends ? 1 : 0;
  REQUIRE(reader->text_bytes + reader->parser.entry_pos <= MOST_ROW_BYTES, ERR_FORMAT,
          "%s has a row of more than %zu MiB that begins in line %lld; is a quote not closed?", reader->path,
          MOST_ROW_BYTES >> 20, (long long)reader->row_line);
  return STATUS_OK;
}

/* The last row may lack its line end. */
static enum status finish(struct csv_reader *reader) {
  int error = csv_fini(&reader->parser, field_done, row_done, reader);
  TRY(reader->failure);
  REQUIRE(error == 0, ERR_FORMAT, "%s ends inside a quoted field; the row begins in line %lld", reader->path,
          (long long)reader->row_line);
  return STATUS_OK;
}

enum status csv_reader_next(struct csv_reader *reader, struct csv_row *row) {
  reader->text_bytes = reader->field_count = 0;
  reader->row_done = reader->in_row = false;
  *row = (struct csv_row){0};
  while (!reader->row_done && !reader->at_end) {
    if (reader->begin == reader->end)
      TRY(fill_buffer(reader));
    if (reader->at_end)
      TRY(finish(reader));
    else
      TRY(parse_piece(reader));
  }
  if (!reader->row_done)
    return STATUS_OK;
  TRY(grow((void **)&reader->fields, 0, reader->field_count, &reader->pointer_room, sizeof *reader->fields));
  for (size_t i = 0; i < reader->field_count; i++)
    reader->fields[i] = reader->text + reader->offsets[i];
  row->line = reader->row_line;
  row->count = reader->field_count;
  row->field = reader->fields;
  return STATUS_OK;
}

int64_t csv_reader_position(const struct csv_reader *reader) {
  return reader->position - (int64_t)(reader->end - reader->begin);
}

int64_t csv_reader_size(const struct csv_reader *reader) {
  return reader->size;
}
