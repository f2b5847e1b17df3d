/* Roles, categories and conversion of CSV columns. */
#include "io/import_columns.h"

#include "dist/memory.h"
#include "io/csv_fields.h"

#include <limits.h>
#include <math.h>
#include <string.h>

/* The category of a missing value under MISSING_MEAN. */
#define MISSING_CATEGORY "missing"

static struct column *find_column(const struct columns *columns, const char *name) {
  for (size_t i = 0; i < columns->count; i++)
    if (strcmp(columns->column[i].name, name) == 0)
      return &columns->column[i];
  return NULL;
}

static enum status set_role(struct columns *columns, const struct csv_row *header, const char *name,
                            enum column_role role, int index) {
  static const char *const roles[] = {"input", "input", "target", "weight", "split", "dropped"};
  struct column *column = find_column(columns, name);
  if (column == NULL)
    return csv_header_unknown(columns->options->csv_path, header, name);
  REQUIRE(column->role == COLUMN_NUMERIC, ERR_ARGUMENT,
          "column \"%s\" of %s is named twice, as %s and as %s; it can be one of them", name,
          columns->options->csv_path, roles[column->role], roles[role]);
  column->role = role;
  column->first = index;
  return STATUS_OK;
}

static enum status set_roles(struct columns *columns, const struct csv_row *header) {
  const struct import_csv_options *options = columns->options;
  for (size_t i = 0; i < options->target_count; i++)
    TRY(set_role(columns, header, options->targets[i], COLUMN_TARGET, (int)i));
  if (options->weight != NULL)
    TRY(set_role(columns, header, options->weight, COLUMN_WEIGHT, 0));
  if (options->split != NULL)
    TRY(set_role(columns, header, options->split, COLUMN_SPLIT, 0));
  for (size_t i = 0; i < options->drop_count; i++)
    TRY(set_role(columns, header, options->drops[i], COLUMN_DROPPED, 0));
  for (size_t i = 0; i < columns->count; i++)
    if (columns->column[i].role == COLUMN_NUMERIC)
      return STATUS_OK;
  return fail(ERR_ARGUMENT, "no input columns are left in %s; drop fewer, or check that commas separate its columns",
              options->csv_path);
}

enum status columns_create(const struct import_csv_options *options, const struct csv_row *header,
                           struct columns **out) {
  struct columns *columns = NULL;
  enum status status;
  *out = NULL;
  TRY(csv_header_check(options->csv_path, header));
  TRY(memory_alloc_zero(sizeof *columns, (void **)&columns));
  columns->options = options;
  TRY_GOTO(memory_alloc_zero(header->count * sizeof *columns->column, (void **)&columns->column), failed);
  columns->count = header->count;
  for (size_t i = 0; i < header->count; i++) {
    TRY_GOTO(memory_alloc(strlen(header->field[i]) + 1, (void **)&columns->column[i].name), failed);
    strcpy(columns->column[i].name, header->field[i]);
    columns->column[i].fill = NAN;
  }
  TRY_GOTO(set_roles(columns, header), failed);
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
  TRY(csv_row_check(options->csv_path, row, columns->count));
  *kept = true;
  for (size_t i = 0; i < columns->count; i++) {
    const struct column *column = &columns->column[i];
    if (column->role == COLUMN_DROPPED || !csv_field_is_missing(row->field[i]))
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
  bool is_number = csv_field_number(text, out);
  REQUIRE(is_number, ERR_FORMAT, "%s \"%s\" is \"%.*s\" in line %lld of %s; it must be a number",
          column->role == COLUMN_TARGET ? "target" : "weight", column->name, CSV_SHOWN, text, (long long)row->line,
          columns->options->csv_path);
  REQUIRE(isfinite(*out), ERR_FORMAT, "%s \"%s\" is \"%.*s\" in line %lld of %s; it must be finite",
          column->role == COLUMN_TARGET ? "target" : "weight", column->name, CSV_SHOWN, text, (long long)row->line,
          columns->options->csv_path);
  REQUIRE(column->role == COLUMN_TARGET || *out >= 0, ERR_FORMAT,
          "weight \"%s\" is %g in line %lld of %s; a weight must not be negative", column->name, *out,
          (long long)row->line, columns->options->csv_path);
  return STATUS_OK;
}

static enum status split_of(const struct columns *columns, const struct column *column, const struct csv_row *row,
                            int *out) {
  return csv_field_split(columns->options->csv_path, column->name, row, row->field[column - columns->column], out);
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
  if (csv_field_is_missing(text)) {
    column->missing++;
    return STATUS_OK;
  }
  if (!csv_field_number(text, &number)) {
    if (column->text_line == 0) {
      column->text_line = row->line;
      snprintf(column->text_value, sizeof column->text_value, "%.*s", CSV_SHOWN, text);
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
    int64_t category = value_set_find(&column->values, csv_field_is_missing(text) ? MISSING_CATEGORY : text);
    if (category < 0)
      return changed(columns);
    memset(features + column->first, 0, column->values.count * sizeof *features);
    features[column->first + category] = 1;
    return STATUS_OK;
  }
  if (csv_field_is_missing(text)) {
    features[column->first] = (float)column->fill;
    return STATUS_OK;
  }
  if (!csv_field_number(text, &number))
    return changed(columns);
  features[column->first] = (float)number;
  REQUIRE(isfinite(features[column->first]), ERR_FORMAT,
          "column \"%s\" is \"%.*s\" in line %lld of %s; an input must be a finite float32 number", column->name,
          CSV_SHOWN, text, (long long)row->line, columns->options->csv_path);
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
