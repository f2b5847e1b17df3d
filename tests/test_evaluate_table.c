/* The evaluation table as text and as JSON. */
#include "launch/evaluate_table.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Distinct values in every field, an empty group, and a correlation that does not exist. */
static struct metrics_table example(void) {
  struct metrics_table table;
  for (int g = 0; g < METRICS_GROUPS; g++) {
    double v = 10 * g;
    table.row[g] = (struct metrics_row){100 + g, v + 1, v + 2, v + 3, v + 4, v + 5, v + 6, v + 7, v + 8, v + 9};
  }
  table.row[METRICS_MEDIAN].pearson = NAN;
  table.row[METRICS_FEW] = (struct metrics_row){0, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN};
  return table;
}

static char *printed(const struct metrics_table *table) {
  char *text = NULL;
  size_t bytes = 0;
  FILE *out = open_memstream(&text, &bytes);
  evaluate_table_print(table, out);
  fclose(out);
  return text;
}

Test(evaluate_table, text_has_one_aligned_row_per_group_and_dashes_for_missing_values) {
  struct metrics_table table = example();
  char *text = printed(&table);
  cr_assert(eq(str, text,
               (char *)"group      count        MAE        MSE       RMSE     G-Mean       bMAE    Pearson\n"
                       "all          100     1.0000     2.0000     3.0000     4.0000     6.0000     8.0000\n"
                       "many         101     11.000     12.000     13.000     14.000     16.000     18.000\n"
                       "median       102     21.000     22.000     23.000     24.000     26.000          -\n"
                       "few            0          -          -          -          -          -          -\n"));
  free(text);
}

Test(evaluate_table, text_stays_aligned_for_huge_and_tiny_values) {
  struct metrics_table table = example();
  table.row[METRICS_ALL] = (struct metrics_row){999999999, 1e300, 1e-300, 123456, 1e-5, 0, 0, 0, -1, 0};
  char *text = printed(&table);
  size_t width = strcspn(text, "\n");
  for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1)
    cr_assert(eq(sz, strcspn(line, "\n"), width), "%s", text);
  cr_assert(strstr(text, "999999999") != NULL);
  cr_assert(strstr(text, "1.0000e+300") != NULL);
  free(text);
}

static void expect_number(const json_t *row, const char *key, double expected) {
  cr_expect(eq(dbl, json_real_value(json_object_get(row, key)), expected), "%s", key);
}

Test(evaluate_table, json_has_the_same_values_under_stable_names) {
  struct metrics_table table = example();
  json_t *json;
  cr_assert(eq(int, evaluate_table_json(&table, &json), STATUS_OK));
  cr_assert(eq(sz, json_object_size(json), 4));
  const json_t *many = json_object_get(json, "many");
  cr_assert(eq(sz, json_object_size(many), 7));
  cr_assert(eq(i64, json_integer_value(json_object_get(many, "count")), 101));
  expect_number(many, "mae", 11);
  expect_number(many, "mse", 12);
  expect_number(many, "rmse", 13);
  expect_number(many, "gmean", 14);
  expect_number(many, "bmae", 16);
  expect_number(many, "pearson", 18);
  json_decref(json);
}

/* NaN and infinity are no JSON: a reader would refuse the whole line. */
Test(evaluate_table, json_text_with_missing_values_can_be_read_back) {
  struct metrics_table table = example();
  table.row[METRICS_ALL].mse = INFINITY;
  json_t *json;
  cr_assert(eq(int, evaluate_table_json(&table, &json), STATUS_OK));
  char *text = json_dumps(json, JSON_COMPACT);
  json_t *back = json_loads(text, 0, NULL);
  cr_assert(ne(ptr, back, NULL), "%s", text);
  cr_expect(eq(int, json_typeof(json_object_get(json_object_get(back, "all"), "mse")), JSON_NULL));
  cr_expect(eq(int, json_typeof(json_object_get(json_object_get(back, "median"), "pearson")), JSON_NULL));
  cr_expect(eq(int, json_typeof(json_object_get(json_object_get(back, "few"), "mae")), JSON_NULL));
  cr_expect(eq(i64, json_integer_value(json_object_get(json_object_get(back, "few"), "count")), 0));
  json_decref(back);
  free(text);
  json_decref(json);
}
