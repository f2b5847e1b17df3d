/* Roles, categories and conversion of CSV columns. */
#include "io/import_columns.h"

#include "dist/memory.h"
#include "dist/nearest.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The category of a missing value under MISSING_MEAN. */
#define MISSING_CATEGORY "missing"

/* Fields shown in sentences are cut here. */
#define SHOWN 40

static bool is_missing(const char *text) {
  static const char *const spellings[] = {"", "?", "NA", "N/A", "NaN", "null"};
  for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++)
    if (strcasecmp(text, spellings[i]) == 0)
      return true;
  return false;
}

/* A decimal number and nothing else; strtod alone would also take hexadecimal. */
static bool parse_number(const char *text, double *out) {
  char *end;
  if (text[0] == '\0' || strpbrk(text, "xX") != NULL)
    return false;
  *out = strtod(text, &end);
  end += strspn(end, " \t");
  return *end == '\0' && end != text;
}

static struct column *find_column(const struct columns *columns, const char *name) {
  for (size_t i = 0; i < columns->count; i++)
    if (strcmp(columns->column[i].name, name) == 0)
      return &columns->column[i];
  return NULL;
}

/* A column asked for that is not there: the nearest name, or the first few. */
static enum status unknown_column(const struct columns *columns, const char *name) {
  const char *path = columns->options->csv_path;
  char list[256] = "";
  const char **names = NULL;
  TRY(memory_alloc(columns->count * sizeof *names, (void **)&names));
  for (size_t i = 0, used = 0; i < columns->count; i++) {
    names[i] = columns->column[i].name;
    if (used + strlen(names[i]) + 8 < sizeof list)
      used += (size_t)sprintf(list + used, "%s%s", i > 0 ? ", " : "", names[i]);
    else if (used < sizeof list - 6) {
      strcpy(list + used, ", ...");
      used = sizeof list;
    }
  }
  const char *near = nearest_name(name, names, columns->count);
  enum status status =
      near != NULL ? fail(ERR_ARGUMENT, "%s has no column \"%.*s\"; did you mean \"%s\"?", path, SHOWN, name, near)
                   : fail(ERR_ARGUMENT, "%s has no column \"%.*s\"; its columns are %s", path, SHOWN, name, list);
  memory_free((void **)&names);
  return status;
}

static enum status set_role(struct columns *columns, const char *name, enum column_role role, int index) {
  static const char *const roles[] = {"input", "input", "target", "weight", "split", "dropped"};
  struct column *column = find_column(columns, name);
  if (column == NULL)
    return unknown_column(columns, name);
  REQUIRE(column->role == COLUMN_NUMERIC, ERR_ARGUMENT,
          "column \"%s\" of %s is named twice, as %s and as %s; it can be one of them", name,
          columns->options->csv_path, roles[column->role], roles[role]);
  column->role = role;
  column->first = index;
  return STATUS_OK;
}

static enum status set_roles(struct columns *columns) {
  const struct import_csv_options *options = columns->options;
  for (size_t i = 0; i < options->target_count; i++)
    TRY(set_role(columns, options->targets[i], COLUMN_TARGET, (int)i));
  if (options->weight != NULL)
    TRY(set_role(columns, options->weight, COLUMN_WEIGHT, 0));
  if (options->split != NULL)
    TRY(set_role(columns, options->split, COLUMN_SPLIT, 0));
  for (size_t i = 0; i < options->drop_count; i++)
    TRY(set_role(columns, options->drops[i], COLUMN_DROPPED, 0));
  for (size_t i = 0; i < columns->count; i++)
    if (columns->column[i].role == COLUMN_NUMERIC)
      return STATUS_OK;
  return fail(ERR_ARGUMENT, "no input columns are left in %s; drop fewer, or check that commas separate its columns",
              options->csv_path);
}

static int by_name(const void *a, const void *b) {
  int order = strcmp((*(struct column *const *)a)->name, (*(struct column *const *)b)->name);
  return order != 0 ? order : (*(struct column *const *)a < *(struct column *const *)b ? -1 : 1);
}

/* Names must be there and differ. */
static enum status check_names(const struct columns *columns) {
  const char *path = columns->options->csv_path;
  struct column **sorted = NULL;
  for (size_t i = 0; i < columns->count; i++)
    REQUIRE(columns->column[i].name[0] != '\0', ERR_FORMAT,
            "column %zu of %s has no name in the header line; name it (a row index had better be left out)", i + 1,
            path);
  TRY(memory_alloc(columns->count * sizeof *sorted, (void **)&sorted));
  for (size_t i = 0; i < columns->count; i++)
    sorted[i] = &columns->column[i];
  qsort(sorted, columns->count, sizeof *sorted, by_name);
  enum status status = STATUS_OK;
  for (size_t i = 1; status == STATUS_OK && i < columns->count; i++)
    if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0)
      status = fail(ERR_FORMAT, "%s has two columns named \"%.*s\", the %zu. and the %zu.; rename one", path, SHOWN,
                    sorted[i]->name, (size_t)(sorted[i - 1] - columns->column) + 1,
                    (size_t)(sorted[i] - columns->column) + 1);
  memory_free((void **)&sorted);
  return status;
}

/* The usual slip: a file with another separator is one column of commas' making. */
static enum status check_separator(const struct import_csv_options *options, const struct csv_row *header) {
  if (header->count != 1)
    return STATUS_OK;
  const char *found = strpbrk(header->field[0], ";\t|");
  REQUIRE(found == NULL, ERR_FORMAT, "%s seems to separate its columns by %s; save it with commas", options->csv_path,
          *found == ';'   ? "semicolons"
          : *found == '|' ? "bars"
                          : "tabs");
  return STATUS_OK;
}

enum status columns_create(const struct import_csv_options *options, const struct csv_row *header,
                           struct columns **out) {
  struct columns *columns = NULL;
  enum status status;
  *out = NULL;
  TRY(check_separator(options, header));
  TRY(memory_alloc_zero(sizeof *columns, (void **)&columns));
  columns->options = options;
  TRY_GOTO(memory_alloc_zero(header->count * sizeof *columns->column, (void **)&columns->column), failed);
  columns->count = header->count;
  for (size_t i = 0; i < header->count; i++) {
    TRY_GOTO(memory_alloc(strlen(header->field[i]) + 1, (void **)&columns->column[i].name), failed);
    strcpy(columns->column[i].name, header->field[i]);
    columns->column[i].fill = NAN;
  }
  TRY_GOTO(check_names(columns), failed);
  TRY_GOTO(set_roles(columns), failed);
  *out = columns;
  return STATUS_OK;
failed:
  columns_destroy(&columns);
  return status;
}

void columns_destroy(struct columns **columns_pointer) {
  struct columns *columns = *columns_pointer;
  if (columns == NULL)
    return;
  for (size_t i = 0; i < columns->count; i++) {
    value_set_free(&columns->column[i].values);
    memory_free((void **)&columns->column[i].name);
  }
  memory_free((void **)&columns->column);
  memory_free((void **)columns_pointer);
}

static bool is_input(const struct column *column) {
  return column->role == COLUMN_NUMERIC || column->role == COLUMN_NOMINAL;
}

/* Count of fields, and what is missing: decides whether the row is kept. */
static enum status check_row(const struct columns *columns, const struct csv_row *row, bool *kept) {
  const struct import_csv_options *options = columns->options;
  REQUIRE(row->count == columns->count, ERR_FORMAT, "line %lld of %s has %zu fields, the header line has %zu",
          (long long)row->line, options->csv_path, row->count, columns->count);
  *kept = true;
  for (size_t i = 0; i < columns->count; i++) {
    const struct column *column = &columns->column[i];
    if (column->role == COLUMN_DROPPED || !is_missing(row->field[i]))
      continue;
    if (options->missing == MISSING_DROP_ROW) {
      *kept = false;
      return STATUS_OK;
    }
    REQUIRE(options->missing != MISSING_MEAN || is_input(column), ERR_FORMAT,
            "column \"%s\" has no value in line %lld of %s; targets, weights and splits cannot be filled, "
            "use --missing drop-row",
            column->name, (long long)row->line, options->csv_path);
    REQUIRE(options->missing == MISSING_MEAN, ERR_FORMAT,
            "column \"%s\" has no value in line %lld of %s; use --missing mean or --missing drop-row, or --drop the "
            "column",
            column->name, (long long)row->line, options->csv_path);
  }
  return STATUS_OK;
}

/* The number of a target or weight, which must be one and finite. */
static enum status number_of(const struct columns *columns, const struct column *column, const struct csv_row *row,
                             double *out) {
  const char *text = row->field[column - columns->column];
  bool is_number = parse_number(text, out);
  REQUIRE(is_number, ERR_FORMAT, "%s \"%s\" is \"%.*s\" in line %lld of %s; it must be a number",
          column->role == COLUMN_TARGET ? "target" : "weight", column->name, SHOWN, text, (long long)row->line,
          columns->options->csv_path);
  REQUIRE(isfinite(*out), ERR_FORMAT, "%s \"%s\" is \"%.*s\" in line %lld of %s; it must be finite",
          column->role == COLUMN_TARGET ? "target" : "weight", column->name, SHOWN, text, (long long)row->line,
          columns->options->csv_path);
  REQUIRE(column->role == COLUMN_TARGET || *out >= 0, ERR_FORMAT,
          "weight \"%s\" is %g in line %lld of %s; a weight must not be negative", column->name, *out,
          (long long)row->line, columns->options->csv_path);
  return STATUS_OK;
}

static enum status split_of(const struct columns *columns, const struct column *column, const struct csv_row *row,
                            int *out) {
  static const struct {
    const char *name;
    enum split split;
  } spellings[] = {{"train", SPLIT_TRAIN}, {"val", SPLIT_VAL}, {"validation", SPLIT_VAL},
                   {"valid", SPLIT_VAL},   {"dev", SPLIT_VAL}, {"test", SPLIT_TEST},
                   {"0", SPLIT_TRAIN},     {"1", SPLIT_VAL},   {"2", SPLIT_TEST}};
  const char *text = row->field[column - columns->column];
  for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
    if (strcasecmp(text, spellings[i].name) == 0) {
      *out = (int)spellings[i].split;
      return STATUS_OK;
    }
  }
  return fail(ERR_FORMAT,
              "split \"%s\" is \"%.*s\" in line %lld of %s; it must be train, val, validation, valid, dev or test, or "
              "0, 1, 2",
              column->name, SHOWN, text, (long long)row->line, columns->options->csv_path);
}

/* Can the column still be an input?  Text in one with too many values to be categories cannot. */
static enum status check_categories(const struct columns *columns, const struct column *column) {
  REQUIRE(
      !(column->values.full && column->text_line > 0), ERR_FORMAT,
      "column \"%s\" of %s is not numeric (\"%s\" in line %lld) and has more than %d different values, or very long "
      "ones; use --drop \"%s\"",
      column->name, columns->options->csv_path, column->text_value, (long long)column->text_line, VALUE_SET_MOST,
      column->name);
  return STATUS_OK;
}

static enum status scan_input(struct columns *columns, struct column *column, const struct csv_row *row) {
  const char *text = row->field[column - columns->column];
  double number;
  if (is_missing(text)) {
    column->missing++;
    return STATUS_OK;
  }
  if (!parse_number(text, &number)) {
    if (column->text_line == 0) {
      column->text_line = row->line;
      snprintf(column->text_value, sizeof column->text_value, "%.*s", SHOWN, text);
    }
  }
  TRY(value_set_add(&column->values, text));
  return check_categories(columns, column);
}

enum status columns_scan(struct columns *columns, const struct csv_row *row, bool *kept) {
  double number;
  int split;
  TRY(check_row(columns, row, kept));
  for (size_t i = 0; *kept && i < columns->count; i++) {
    struct column *column = &columns->column[i];
    if (is_input(column))
      TRY(scan_input(columns, column, row));
    else if (column->role == COLUMN_SPLIT)
      TRY(split_of(columns, column, row, &split));
    else if (column->role != COLUMN_DROPPED)
      TRY(number_of(columns, column, row, &number));
  }
  return STATUS_OK;
}

/* An input with text becomes nominal; its gaps become a category. */
static enum status settle_column(struct column *column) {
  column->role = column->text_line > 0 ? COLUMN_NOMINAL : COLUMN_NUMERIC;
  if (column->role == COLUMN_NUMERIC)
    value_set_free(&column->values);
  else if (column->missing > 0)
    TRY(value_set_add(&column->values, MISSING_CATEGORY));
  value_set_sort(&column->values);
  return STATUS_OK;
}

enum status columns_settle(struct columns *columns) {
  int64_t features = 0;
  for (size_t i = 0; i < columns->count; i++) {
    struct column *column = &columns->column[i];
    if (!is_input(column))
      continue;
    TRY(settle_column(column));
    TRY(check_categories(columns, column));
    column->first = (int)features;
    features += column->role == COLUMN_NOMINAL ? (int64_t)column->values.count : 1;
    REQUIRE(features <= INT_MAX / 8, ERR_FORMAT, "%s makes more than %d features; --drop some columns",
            columns->options->csv_path, INT_MAX / 8);
  }
  columns->features = (int)features;
  return STATUS_OK;
}

static enum status changed(const struct columns *columns) {
  return fail(ERR_FILE, "%s changed while it was being read; import it again", columns->options->csv_path);
}

static enum status encode_input(const struct columns *columns, const struct column *column, const struct csv_row *row,
                                float *features) {
  const char *text = row->field[column - columns->column];
  double number;
  if (column->role == COLUMN_NOMINAL) {
    int64_t category = value_set_find(&column->values, is_missing(text) ? MISSING_CATEGORY : text);
    if (category < 0)
      return changed(columns);
    memset(features + column->first, 0, column->values.count * sizeof *features);
    features[column->first + category] = 1;
    return STATUS_OK;
  }
  if (is_missing(text)) {
    features[column->first] = (float)column->fill;
    return STATUS_OK;
  }
  if (!parse_number(text, &number))
    return changed(columns);
  features[column->first] = (float)number;
  REQUIRE(isfinite(features[column->first]), ERR_FORMAT,
          "column \"%s\" is \"%.*s\" in line %lld of %s; an input must be a finite float32 number", column->name, SHOWN,
          text, (long long)row->line, columns->options->csv_path);
  return STATUS_OK;
}

enum status columns_encode(const struct columns *columns, const struct csv_row *row, struct sample *sample,
                           bool *kept) {
  sample->weight = 1;
  sample->split = -1;
  TRY(check_row(columns, row, kept));
  for (size_t i = 0; *kept && i < columns->count; i++) {
    const struct column *column = &columns->column[i];
    if (is_input(column))
      TRY(encode_input(columns, column, row, sample->features));
    else if (column->role == COLUMN_TARGET)
      TRY(number_of(columns, column, row, &sample->targets[column->first]));
    else if (column->role == COLUMN_WEIGHT)
      TRY(number_of(columns, column, row, &sample->weight));
    else if (column->role == COLUMN_SPLIT)
      TRY(split_of(columns, column, row, &sample->split));
  }
  return STATUS_OK;
}

/* The input column a feature belongs to. */
static const struct column *column_of(const struct columns *columns, int feature) {
  const struct column *found = NULL;
  for (size_t i = 0; i < columns->count; i++)
    if (is_input(&columns->column[i]) && columns->column[i].first <= feature)
      found = &columns->column[i];
  return found;
}

bool columns_is_one_hot(const struct columns *columns, int feature) {
  return column_of(columns, feature)->role == COLUMN_NOMINAL;
}

void columns_feature_name(const struct columns *columns, int feature, char *name, size_t bytes) {
  const struct column *column = column_of(columns, feature);
  if (column->role == COLUMN_NOMINAL)
    snprintf(name, bytes, "%s=%s", column->name, column->values.value[feature - column->first]);
  else
    snprintf(name, bytes, "%s", column->name);
}

bool columns_need_means(const struct columns *columns) {
  for (size_t i = 0; i < columns->count; i++)
    if (columns->column[i].role == COLUMN_NUMERIC && columns->column[i].missing > 0)
      return true;
  return false;
}
