/* Names, numbers, gaps and splits of CSV files. */
#include "io/csv_fields.h"

#include "dist/memory.h"
#include "dist/nearest.h"
#include "io/dataset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

bool csv_field_is_missing(const char *text) {
  static const char *const spellings[] = {"", "?", "NA", "N/A", "NaN", "null"};
  for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++)
    if (strcasecmp(text, spellings[i]) == 0)
      return true;
  return false;
}

/* strtod alone would also take hexadecimal. */
bool csv_field_number(const char *text, double *out) {
  char *end;
  if (text[0] == '\0' || strpbrk(text, "xX") != NULL)
    return false;
  *out = strtod(text, &end);
  end += strspn(end, " \t");
  return *end == '\0' && end != text;
}

enum status csv_field_split(const char *path, const char *column, const struct csv_row *row, const char *text,
                            int *out) {
  static const struct {
    const char *name;
    enum split split;
  } spellings[] = {{"train", SPLIT_TRAIN}, {"val", SPLIT_VAL}, {"validation", SPLIT_VAL},
                   {"valid", SPLIT_VAL},   {"dev", SPLIT_VAL}, {"test", SPLIT_TEST},
                   {"0", SPLIT_TRAIN},     {"1", SPLIT_VAL},   {"2", SPLIT_TEST}};
  for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
    if (strcasecmp(text, spellings[i].name) == 0) {
      *out = (int)spellings[i].split;
      return STATUS_OK;
    }
  }
  return fail(ERR_FORMAT,
              "split \"%s\" is \"%.*s\" in line %lld of %s; it must be train, val, validation, valid, dev or test, or "
              "0, 1, 2",
              column, CSV_SHOWN, text, (long long)row->line, path);
}

/* The usual slip: a file with another separator is one column of commas' making. */
static enum status check_separator(const char *path, const struct csv_row *header) {
  if (header->count != 1)
    return STATUS_OK;
  const char *found = strpbrk(header->field[0], ";\t|");
  REQUIRE(found == NULL, ERR_FORMAT, "%s seems to separate its columns by %s; save it with commas", path,
          *found == ';'   ? "semicolons"
          : *found == '|' ? "bars"
                          : "tabs");
  return STATUS_OK;
}

/* Equal names in the order of the file. */
static int by_name(const void *a, const void *b) {
  char *const *left = *(char *const *const *)a, *const *right = *(char *const *const *)b;
  int order = strcmp(*left, *right);
  return order != 0 ? order : (left < right ? -1 : 1);
}

enum status csv_header_check(const char *path, const struct csv_row *header) {
  char *const **sorted = NULL;
  TRY(check_separator(path, header));
  for (size_t i = 0; i < header->count; i++)
    REQUIRE(header->field[i][0] != '\0', ERR_FORMAT,
            "column %zu of %s has no name in the header line; name it (a row index had better be left out)", i + 1,
            path);
  TRY(memory_alloc(header->count * sizeof *sorted, (void **)&sorted));
  for (size_t i = 0; i < header->count; i++)
    sorted[i] = &header->field[i];
  qsort(sorted, header->count, sizeof *sorted, by_name);
  enum status status = STATUS_OK;
  for (size_t i = 1; status == STATUS_OK && i < header->count; i++)
    if (strcmp(*sorted[i - 1], *sorted[i]) == 0)
      status = fail(ERR_FORMAT, "%s has two columns named \"%.*s\", the %zu. and the %zu.; rename one", path, CSV_SHOWN,
                    *sorted[i], (size_t)(sorted[i - 1] - header->field) + 1, (size_t)(sorted[i] - header->field) + 1);
  memory_free((void **)&sorted);
  return status;
}

int csv_header_find(const struct csv_row *header, const char *name) {
  for (size_t i = 0; i < header->count; i++)
    if (strcmp(header->field[i], name) == 0)
      return (int)i;
  return -1;
}

enum status csv_header_unknown(const char *path, const struct csv_row *header, const char *name) {
  char list[256] = "";
  const char **names = NULL;
  TRY(memory_alloc(header->count * sizeof *names, (void **)&names));
  for (size_t i = 0, used = 0; i < header->count; i++) {
    names[i] = header->field[i];
    if (used + strlen(names[i]) + 8 < sizeof list)
      used += (size_t)sprintf(list + used, "%s%s", i > 0 ? ", " : "", names[i]);
    else if (used < sizeof list - 6) {
      strcpy(list + used, ", ...");
      used = sizeof list;
    }
  }
  const char *near = nearest_name(name, names, header->count);
  enum status status =
      near != NULL ? fail(ERR_ARGUMENT, "%s has no column \"%.*s\"; did you mean \"%s\"?", path, CSV_SHOWN, name, near)
                   : fail(ERR_ARGUMENT, "%s has no column \"%.*s\"; its columns are %s", path, CSV_SHOWN, name, list);
  memory_free((void **)&names);
  return status;
}

enum status csv_row_check(const char *path, const struct csv_row *row, size_t columns) {
  REQUIRE(row->count == columns, ERR_FORMAT, "line %lld of %s has %zu fields, the header line has %zu",
          (long long)row->line, path, row->count, columns);
  return STATUS_OK;
}
