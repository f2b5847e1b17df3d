/* Rows of an image import from a CSV file: two readings, one to see what the columns hold, one to take it. */
#include "io/import_rows.h"

#include "dist/memory.h"
#include "dist/random.h"
#include "io/csv_fields.h"
#include "io/import_report.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

enum role { ROLE_NONE, ROLE_TARGET, ROLE_PATH, ROLE_WEIGHT, ROLE_SPLIT, ROLE_IGNORED };

/* What a column holds, and is for. */
struct seen {
  char *name;
  enum role role;
  int index;         /* which target               */
  size_t bytes;      /* of all its fields          */
  int64_t text_line; /* first field that is no number, 0 = none */
  char text[CSV_SHOWN + 1];
};

struct reading {
  const struct import_images_options *options; /* borrowed */
  struct seen *column;                         /* [columns], owned */
  size_t columns;
  char *names; /* block of the names */
  struct import_rows *rows;
  int64_t capacity;           /* rows of the first reading */
  char *next_path, *path_end; /* what is left of the block of the paths */
};

/* ---- first reading ------------------------------------------------------------------------- */

/* The names outlive the row: the header is gone when the next one is read. */
static enum status keep_header(struct reading *reading, const struct csv_row *header) {
  size_t bytes = 0;
  for (size_t i = 0; i < header->count; i++)
    bytes += strlen(header->field[i]) + 1;
  TRY(csv_header_check(reading->options->source_path, header));
  TRY(memory_alloc_zero(header->count * sizeof *reading->column, (void **)&reading->column));
  TRY(memory_alloc(bytes, (void **)&reading->names));
  reading->columns = header->count;
  char *next = reading->names;
  for (size_t i = 0; i < header->count; i++) {
    reading->column[i].name = next;
    next = stpcpy(next, header->field[i]) + 1;
  }
  return STATUS_OK;
}

/* Give a named column its role. */
static enum status take_column(struct reading *reading, const struct csv_row *header, const char *name, enum role role,
                               int index) {
  static const char *const roles[] = {"", "label", "path", "weight", "split"};
  int found = csv_header_find(header, name);
  if (found < 0)
    return csv_header_unknown(reading->options->source_path, header, name);
  struct seen *column = &reading->column[found];
  REQUIRE(column->role == ROLE_NONE, ERR_ARGUMENT,
          "column \"%s\" of %s is named twice, as %s and as %s; it can be one of them", name,
          reading->options->source_path, roles[column->role], roles[role]);
  column->role = role;
  column->index = index;
  return STATUS_OK;
}

static enum status take_named(struct reading *reading, const struct csv_row *header) {
  const struct import_images_options *options = reading->options;
  for (size_t i = 0; i < options->target_count; i++)
    TRY(take_column(reading, header, options->targets[i], ROLE_TARGET, (int)i));
  if (options->path != NULL)
    TRY(take_column(reading, header, options->path, ROLE_PATH, 0));
  if (options->weight != NULL)
    TRY(take_column(reading, header, options->weight, ROLE_WEIGHT, 0));
  if (options->split != NULL)
    return take_column(reading, header, options->split, ROLE_SPLIT, 0);
  int called_split = csv_header_find(header, "split");
  if (called_split >= 0 && reading->column[called_split].role == ROLE_NONE)
    reading->column[called_split].role = options->draw_split ? ROLE_IGNORED : ROLE_SPLIT;
  return STATUS_OK;
}

static void look_at(struct reading *reading, const struct csv_row *row) {
  double number;
  for (size_t i = 0; i < reading->columns; i++) {
    struct seen *column = &reading->column[i];
    const char *text = row->field[i];
    column->bytes += strlen(text) + 1;
    if (column->text_line > 0 || csv_field_is_missing(text) || csv_field_number(text, &number))
      continue;
    column->text_line = row->line;
    snprintf(column->text, sizeof column->text, "%.*s", CSV_SHOWN, text);
  }
}

/* Read the header, then give each row to `function`. */
static enum status each_row(struct reading *reading, enum status (*header)(struct reading *, const struct csv_row *),
                            enum status (*function)(struct reading *, const struct csv_row *)) {
  const char *path = reading->options->source_path;
  struct csv_reader *reader;
  struct csv_row row;
  enum status status;
  TRY(csv_reader_open(path, &reader));
  TRY_GOTO(csv_reader_next(reader, &row), out);
  REQUIRE_GOTO(row.count > 0, out, ERR_FORMAT, "%s holds no header line", path);
  TRY_GOTO(header(reading, &row), out);
  for (;;) {
    TRY_GOTO(csv_reader_next(reader, &row), out);
    if (row.count == 0)
      break;
    TRY_GOTO(csv_row_check(path, &row, reading->columns), out);
    TRY_GOTO(function(reading, &row), out);
  }
out:
  csv_reader_close(&reader);
  return status;
}

static enum status first_header(struct reading *reading, const struct csv_row *header) {
  TRY(keep_header(reading, header));
  return take_named(reading, header);
}

static enum status first_row(struct reading *reading, const struct csv_row *row) {
  look_at(reading, row);
  reading->rows->count++;
  return STATUS_OK;
}

/* ---- roles by content ---------------------------------------------------------------------- */

/* Columns without a role that hold text, or numbers: how many, the last of them, and their names. */
static int candidates(const struct reading *reading, bool text, struct seen **last, char *list, size_t bytes) {
  int count = 0;
  size_t used = 0;
  list[0] = '\0';
  for (size_t i = 0; i < reading->columns; i++) {
    struct seen *column = &reading->column[i];
    if (column->role != ROLE_NONE || (column->text_line > 0) != text)
      continue;
    *last = column;
    if (used + strlen(column->name) + CSV_SHOWN + 48 < bytes)
      used += text ? (size_t)sprintf(list + used, "%s\"%s\" (\"%s\" in line %lld)", count > 0 ? ", " : "", column->name,
                                     column->text, (long long)column->text_line)
                   : (size_t)sprintf(list + used, "%s\"%s\"", count > 0 ? ", " : "", column->name);
    count++;
  }
  return count;
}

static bool has_role(const struct reading *reading, enum role role) {
  for (size_t i = 0; i < reading->columns; i++)
    if (reading->column[i].role == role)
      return true;
  return false;
}

static enum status find_roles(struct reading *reading) {
  const char *path = reading->options->source_path;
  struct seen *found = NULL;
  char list[600];
  if (!has_role(reading, ROLE_PATH)) {
    int count = candidates(reading, true, &found, list, sizeof list);
    REQUIRE(count > 0, ERR_FORMAT,
            "%s has no column of paths: all its columns are numbers; name the paths with --path-column", path);
    REQUIRE(count == 1, ERR_FORMAT,
            "%s has %d columns that are not all numbers: %s; name the one of the paths with --path-column", path, count,
            list);
    found->role = ROLE_PATH;
  }
  if (!has_role(reading, ROLE_TARGET)) {
    int count = candidates(reading, false, &found, list, sizeof list);
    REQUIRE(count > 0, ERR_FORMAT, "%s has no column of numbers left to be the label; name it with --target", path);
    REQUIRE(count == 1, ERR_FORMAT, "%s has %d columns of numbers: %s; name the label with --target", path, count,
            list);
    found->role = ROLE_TARGET;
  }
  return STATUS_OK;
}

/* ---- second reading ------------------------------------------------------------------------ */

static struct seen *column_of(const struct reading *reading, enum role role, int index) {
  for (size_t i = 0; i < reading->columns; i++)
    if (reading->column[i].role == role && reading->column[i].index == index)
      return &reading->column[i];
  return NULL;
}

/* The names of the targets, one block with its pointers. */
static enum status name_targets(struct reading *reading) {
  struct import_rows *rows = reading->rows;
  size_t bytes = 0;
  rows->target_count = reading->options->target_count > 0 ? (int)reading->options->target_count : 1;
  for (int k = 0; k < rows->target_count; k++)
    bytes += sizeof(char *) + strlen(column_of(reading, ROLE_TARGET, k)->name) + 1;
  TRY(memory_alloc(bytes, (void **)&rows->target_names));
  char *next = (char *)(rows->target_names + rows->target_count);
  for (int k = 0; k < rows->target_count; k++) {
    rows->target_names[k] = next;
    next = stpcpy(next, column_of(reading, ROLE_TARGET, k)->name) + 1;
  }
  return STATUS_OK;
}

static enum status name_unused(struct reading *reading) {
  size_t bytes = 0;
  char *next;
  for (size_t i = 0; i < reading->columns; i++)
    if (reading->column[i].role == ROLE_NONE || reading->column[i].role == ROLE_IGNORED)
      bytes += strlen(reading->column[i].name) + 2;
  if (bytes == 0)
    return STATUS_OK;
  TRY(memory_alloc(bytes + 1, (void **)&reading->rows->unused));
  next = reading->rows->unused;
  for (size_t i = 0; i < reading->columns; i++)
    if (reading->column[i].role == ROLE_NONE || reading->column[i].role == ROLE_IGNORED)
      next += sprintf(next, "%s%s", next > reading->rows->unused ? ", " : "", reading->column[i].name);
  return STATUS_OK;
}

static enum status alloc_rows(struct reading *reading) {
  struct import_rows *rows = reading->rows;
  size_t count = (size_t)rows->count, paths = column_of(reading, ROLE_PATH, 0)->bytes;
  TRY(name_targets(reading));
  TRY(name_unused(reading));
  TRY(memory_alloc(count * (size_t)rows->target_count * sizeof *rows->targets, (void **)&rows->targets));
  if (has_role(reading, ROLE_WEIGHT))
    TRY(memory_alloc(count * sizeof *rows->weights, (void **)&rows->weights));
  rows->draw_split = !has_role(reading, ROLE_SPLIT);
  TRY(memory_alloc_zero(count, (void **)&rows->split));
  TRY(memory_alloc(count * sizeof *rows->number, (void **)&rows->number));
  TRY(memory_alloc(count * sizeof *rows->path + paths, (void **)&rows->path));
  reading->next_path = (char *)(rows->path + count);
  reading->path_end = reading->next_path + paths;
  reading->capacity = rows->count;
  rows->count = 0; /* counts again what is filled */
  return STATUS_OK;
}

/* "./a//b" and "a/b" are one file: equal files should be equal texts.  ".." stays: behind a link it is not lexical. */
static char *copy_path(char *out, const char *path) {
  const char *next = path;
  while (next[0] == '.' && next[1] == '/')
    next += strspn(next + 1, "/") + 1;
  while (*next != '\0') {
    if (next[0] == '/' && next[1] == '/')
      next++;
    else if (next[0] == '/' && next[1] == '.' && next[2] == '/')
      next += 2;
    else
      *out++ = *next++;
  }
  *out++ = '\0';
  return out;
}

static enum status number_of(const struct reading *reading, const struct csv_row *row, const struct seen *column,
                             double *out) {
  const char *text = row->field[column - reading->column], *path = reading->options->source_path;
  const char *role = column->role == ROLE_TARGET ? "label" : "weight";
  REQUIRE(!csv_field_is_missing(text), ERR_FORMAT,
          "%s \"%s\" has no value in line %lld of %s; fill it or leave the row out", role, column->name,
          (long long)row->line, path);
  REQUIRE(csv_field_number(text, out), ERR_FORMAT, "%s \"%s\" is \"%.*s\" in line %lld of %s; it must be a number",
          role, column->name, CSV_SHOWN, text, (long long)row->line, path);
  REQUIRE(isfinite(*out), ERR_FORMAT, "%s \"%s\" is \"%.*s\" in line %lld of %s; it must be finite", role, column->name,
          CSV_SHOWN, text, (long long)row->line, path);
  REQUIRE(column->role == ROLE_TARGET || *out >= 0, ERR_FORMAT,
          "weight \"%s\" is %g in line %lld of %s; a weight must not be negative", column->name, *out,
          (long long)row->line, path);
  return STATUS_OK;
}

static enum status changed(const struct reading *reading) {
  return fail(ERR_FILE, "%s changed while it was being read; import it again", reading->options->source_path);
}

static enum status take_path(struct reading *reading, const struct csv_row *row, const struct seen *column) {
  struct import_rows *rows = reading->rows;
  const char *text = row->field[column - reading->column];
  REQUIRE(!csv_field_is_missing(text), ERR_FORMAT, "path \"%s\" has no value in line %lld of %s; leave the row out",
          column->name, (long long)row->line, reading->options->source_path);
  if (strlen(text) >= (size_t)(reading->path_end - reading->next_path))
    return changed(reading);
  rows->path[rows->count] = reading->next_path;
  reading->next_path = copy_path(reading->next_path, text);
  return STATUS_OK;
}

static enum status second_header(struct reading *reading, const struct csv_row *header) {
  return header->count == reading->columns ? STATUS_OK : changed(reading);
}

static enum status second_row(struct reading *reading, const struct csv_row *row) {
  struct import_rows *rows = reading->rows;
  int64_t at = rows->count;
  if (at == reading->capacity)
    return changed(reading);
  for (size_t i = 0; i < reading->columns; i++) {
    const struct seen *column = &reading->column[i];
    int split;
    if (column->role == ROLE_TARGET) {
      TRY(number_of(reading, row, column, &rows->targets[at * rows->target_count + column->index]));
    } else if (column->role == ROLE_WEIGHT) {
      TRY(number_of(reading, row, column, &rows->weights[at]));
    } else if (column->role == ROLE_PATH) {
      TRY(take_path(reading, row, column));
    } else if (column->role == ROLE_SPLIT) {
      TRY(csv_field_split(reading->options->source_path, column->name, row, row->field[i], &split));
      rows->split[at] = (uint8_t)split;
    }
  }
  rows->number[at] = row->line;
  rows->count++;
  return STATUS_OK;
}

/* ---- the whole ----------------------------------------------------------------------------- */

struct named_row {
  const char *path;
  int64_t number;
};

static int by_path(const void *a, const void *b) {
  const struct named_row *left = a, *right = b;
  int order = strcmp(left->path, right->path);
  return order != 0 ? order : left->number < right->number ? -1 : 1;
}

/* Of several, the pair that stands first in the file. */
static enum status check_distinct(const struct import_rows *rows, const char *path) {
  struct named_row *sorted = NULL;
  int64_t first = -1;
  TRY(memory_alloc((size_t)rows->count * sizeof *sorted, (void **)&sorted));
  for (int64_t i = 0; i < rows->count; i++)
    sorted[i] = (struct named_row){rows->path[i], rows->number[i]};
  qsort(sorted, (size_t)rows->count, sizeof *sorted, by_path);
  for (int64_t i = 1; i < rows->count; i++)
    if (strcmp(sorted[i - 1].path, sorted[i].path) == 0 && (first < 0 || sorted[i].number < sorted[first].number))
      first = i;
  enum status status = STATUS_OK;
  if (first >= 0)
    status = fail(ERR_FORMAT, "lines %lld and %lld of %s both name %.300s; an image can have one label",
                  (long long)sorted[first - 1].number, (long long)sorted[first].number, path, sorted[first].path);
  memory_free((void **)&sorted);
  return status;
}

static enum status checksum_file(const char *path, uint32_t *out) {
  unsigned char block[1 << 14];
  ssize_t got;
  uLong sum = crc32(0, NULL, 0);
  int file = open(path, O_RDONLY | O_CLOEXEC);
  REQUIRE(file >= 0, ERR_FILE, "cannot open %s: %s", path, strerror(errno));
  while ((got = read(file, block, sizeof block)) > 0)
    sum = crc32(sum, block, (uInt)got);
  close(file);
  REQUIRE(got == 0, ERR_FILE, "cannot read %s: %s", path, strerror(errno));
  *out = (uint32_t)sum;
  return STATUS_OK;
}

static enum status read_csv(struct reading *reading) {
  const char *path = reading->options->source_path;
  TRY(each_row(reading, first_header, first_row));
  REQUIRE(reading->rows->count > 0, ERR_FORMAT, "%s has a header line and no rows", path);
  TRY(find_roles(reading));
  TRY(alloc_rows(reading));
  TRY(each_row(reading, second_header, second_row));
  if (reading->rows->count != reading->capacity)
    return changed(reading);
  TRY(check_distinct(reading->rows, path));
  const char *slash = strrchr(path, '/');
  TRY(import_report_set_text(&reading->rows->source, slash != NULL ? slash + 1 : path));
  return checksum_file(path, &reading->rows->checksum);
}

enum status import_rows_read_csv(const struct import_images_options *options, struct import_rows **out) {
  struct reading reading = {.options = options};
  *out = NULL;
  TRY(memory_alloc_zero(sizeof *reading.rows, (void **)&reading.rows));
  enum status status = read_csv(&reading);
  memory_free((void **)&reading.names);
  memory_free((void **)&reading.column);
  if (status == STATUS_OK)
    *out = reading.rows;
  else
    import_rows_destroy(&reading.rows);
  return status;
}

void import_rows_destroy(struct import_rows **rows_pointer) {
  struct import_rows *rows = *rows_pointer;
  if (rows == NULL)
    return;
  memory_free((void **)&rows->source);
  memory_free((void **)&rows->unused);
  memory_free((void **)&rows->number);
  memory_free((void **)&rows->path);
  memory_free(&rows->path_texts);
  memory_free((void **)&rows->split);
  memory_free((void **)&rows->weights);
  memory_free((void **)&rows->targets);
  memory_free((void **)&rows->target_names);
  memory_free((void **)rows_pointer);
}

void import_rows_keep(struct import_rows *rows, const bool *kept) {
  int64_t to = 0;
  for (int64_t from = 0; from < rows->count; from++) {
    if (!kept[from])
      continue;
    for (int k = 0; k < rows->target_count; k++)
      rows->targets[to * rows->target_count + k] = rows->targets[from * rows->target_count + k];
    if (rows->weights != NULL)
      rows->weights[to] = rows->weights[from];
    if (rows->path != NULL)
      rows->path[to] = rows->path[from];
    rows->split[to] = rows->split[from];
    rows->number[to++] = rows->number[from];
  }
  rows->count = to;
}

/* A function of (seed, row) with exact counts, as in a table. */
static void draw_splits(struct import_rows *rows, const struct import_images_options *options) {
  const double *f = options->fractions;
  struct random_key key = random_key(options->seed, RANDOM_SPLIT, 0);
  int64_t train = llround((double)rows->count * f[0]), val = llround((double)rows->count * (f[0] + f[1]));
  for (int64_t i = 0; i < rows->count; i++) {
    int64_t position = (int64_t)random_permute(key, (uint64_t)rows->count, (uint64_t)i);
    rows->split[i] = position < train ? SPLIT_TRAIN : position < val ? SPLIT_VAL : SPLIT_TEST;
  }
}

/* Does the target differ between two training rows?  The first label goes to *value. */
static bool varies(const struct import_rows *rows, int target, double *value) {
  bool any = false;
  for (int64_t i = 0; i < rows->count; i++) {
    double label = rows->targets[i * rows->target_count + target];
    if (rows->split[i] != SPLIT_TRAIN)
      continue;
    if (any && label != *value)
      return true;
    *value = label;
    any = true;
  }
  return false;
}

enum status import_rows_settle(struct import_rows *rows, const struct import_images_options *options) {
  int64_t train = 0;
  double value = 0;
  if (rows->draw_split)
    draw_splits(rows, options);
  for (int64_t i = 0; i < rows->count; i++)
    train += rows->split[i] == SPLIT_TRAIN;
  REQUIRE(train > 0, ERR_FORMAT, "none of the %lld rows of %s is for training; check the split", (long long)rows->count,
          options->source_path);
  for (int k = 0; k < rows->target_count; k++)
    REQUIRE(varies(rows, k, &value), ERR_FORMAT,
            "target \"%s\" is %g in all %lld training rows of %s; there is nothing to learn from a constant target",
            rows->target_names[k], value, (long long)train, options->source_path);
  return STATUS_OK;
}
