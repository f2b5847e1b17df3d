/* The evaluation table as aligned text and as JSON. */
#include "launch/evaluate_table.h"

#include "launch/json_output.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

/* The columns after the count, in the order of both forms. */
static const struct column {
  const char *title, *key;
  size_t offset; /* of a double in struct metrics_row */
} columns[] = {
    {"MAE", "mae", offsetof(struct metrics_row, mae)},    {"MSE", "mse", offsetof(struct metrics_row, mse)},
    {"RMSE", "rmse", offsetof(struct metrics_row, rmse)}, {"G-Mean", "gmean", offsetof(struct metrics_row, gmean)},
    {"bMAE", "bmae", offsetof(struct metrics_row, bmae)}, {"Pearson", "pearson", offsetof(struct metrics_row, pearson)},
};
#define COLUMNS ((int)(sizeof columns / sizeof columns[0]))

static double value_of(const struct metrics_row *row, const struct column *column) {
  double value;
  memcpy(&value, (const char *)row + column->offset, sizeof value);
  return value;
}

static void print_row(const struct metrics_row *row, enum metrics_group group, FILE *out) {
  fprintf(out, "%-6s %9lld", metrics_group_name(group), (long long)row->count);
  for (int c = 0; c < COLUMNS; c++) {
    double value = value_of(row, &columns[c]);
    if (isfinite(value))
      fprintf(out, "%#11.5g", value);
    else
      fprintf(out, "%11s", "-");
  }
  fprintf(out, "\n");
}

void evaluate_table_print(const struct metrics_table *table, FILE *out) {
  fprintf(out, "%-6s %9s", "group", "count");
  for (int c = 0; c < COLUMNS; c++)
    fprintf(out, "%11s", columns[c].title);
  fprintf(out, "\n");
  for (int group = METRICS_ALL; group < METRICS_GROUPS; group++)
    print_row(&table->row[group], (enum metrics_group)group, out);
}

/* NULL when out of memory; jansson's setters accept a NULL value and then fail, so one check at the end suffices. */
static json_t *row_json(const struct metrics_row *row) {
  json_t *object = json_object();
  int failed = json_object_set_new(object, "count", json_integer(row->count));
  for (int c = 0; c < COLUMNS; c++) {
    double value = value_of(row, &columns[c]);
    failed |= json_object_set_new(object, columns[c].key, json_output_number(value));
  }
  if (!failed)
    return object;
  json_decref(object);
  return NULL;
}

enum status evaluate_table_json(const struct metrics_table *table, json_t **out) {
  json_t *object = json_object();
  int failed = 0;
  for (int group = METRICS_ALL; group < METRICS_GROUPS; group++)
    failed |= json_object_set_new(object, metrics_group_name((enum metrics_group)group), row_json(&table->row[group]));
  *out = NULL;
  if (failed) {
    json_decref(object);
    return fail(ERR_MEMORY, "out of memory while writing the evaluation table as JSON; free some and evaluate again");
  }
  *out = object;
  return STATUS_OK;
}
