/* conr eval and conr predict as a user meets them: the same table on any number of ranks, as text and as JSON, and
 * models and data that do not fit each other. */
#include "io/array_file.h"
#include "io_files.h"
#include "io_table.h"
#include "support_cli.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

TestSuite(cli_eval, .init = cli_begin, .fini = cli_end, .timeout = 120);

static const char *trained(const char *name, const char *data, const char *options) {
  const char *run = io_file(name);
  cli_accepted(0, cli_text("train %s -o %s --epochs 2 --quiet %s", data, run, options));
  return run;
}

/* ---- the table ------------------------------------------------------------------------------ */

/* In float64, so that the order of sums shows in no printed digit. */
Test(cli_eval, the_table_does_not_depend_on_the_ranks) {
  const char *data = cli_data("t.h5", 100), *run = trained("run", data, "--precision f64");
  const char *line = cli_text("eval %s %s --part train --many 3 --few 2", run, data);
  char *alone = cli_output(0, line);
  cr_assert(eq(int, cli_count(alone, "\n"), 5), "%s", alone);
  for (int ranks = 1; ranks <= 4; ranks++) {
    char *table = cli_output(ranks, line);
    cr_assert(eq(str, table, alone), "on %d ranks", ranks);
    free(table);
  }
  /* A batch that leaves some ranks without a row. */
  char *small = cli_output(3, cli_text("%s --batch 2", line));
  cr_assert(eq(str, small, alone));
  free(small);
  free(alone);
}

static void has_exactly(json_t *object, const char *const *keys, size_t count) {
  cr_assert(eq(int, json_typeof(object), JSON_OBJECT));
  cr_assert(eq(sz, json_object_size(object), count));
  for (size_t i = 0; i < count; i++)
    cr_assert(json_object_get(object, keys[i]) != NULL, "no key \"%s\"", keys[i]);
}

Test(cli_eval, json_has_the_documented_keys_and_no_others) {
  static const char *const groups[] = {"all", "many", "median", "few"};
  static const char *const figures[] = {"count", "mae", "mse", "rmse", "gmean", "bmae", "pearson"};
  const char *data = cli_data("t.h5", 100), *run = trained("run", data, "");
  char *text = cli_output(3, cli_text("eval %s %s --json", run, data));
  json_error_t error;
  json_t *table = json_loads(text, 0, &error);
  cr_assert(table != NULL, "%s in %s", error.text, text);
  has_exactly(table, groups, 4);
  for (int i = 0; i < 4; i++)
    has_exactly(json_object_get(table, groups[i]), figures, 7);
  json_t *all = json_object_get(table, "all"), *many = json_object_get(table, "many");
  cr_assert(eq(i64, json_integer_value(json_object_get(all, "count")), 20));
  double mse = json_real_value(json_object_get(all, "mse")), rmse = json_real_value(json_object_get(all, "rmse"));
  cr_assert(le(dbl, fabs(rmse * rmse - mse), 1e-12 * mse));
  /* No label has more than 100 training rows: the group is empty, its figures do not exist. */
  cr_assert(eq(i64, json_integer_value(json_object_get(many, "count")), 0));
  cr_assert(eq(int, json_typeof(json_object_get(many, "mae")), JSON_NULL));
  json_decref(table);
  free(text);
}

/* The figure of the table, from the predictions. */
static double error_of(const char *csv, int *rows) {
  FILE *stream = fopen(csv, "r");
  char header[256];
  double label, value, sum = 0;
  long long row;
  cr_assert(stream != NULL && fgets(header, sizeof header, stream) != NULL);
  cr_assert(eq(str, header, "row,label_y,prediction_y\n"));
  for (*rows = 0; fscanf(stream, "%lld,%lf,%lf", &row, &label, &value) == 3; ++*rows)
    sum += fabs(value - label);
  fclose(stream);
  return sum / *rows;
}

Test(cli_eval, table_and_predictions_agree) {
  const char *data = cli_data("t.h5", 100), *run = trained("run", data, ""), *csv = io_file("p.csv");
  cli_accepted(3, cli_text("predict %s %s -o %s --part val", run, data, csv));
  char *text = cli_output(3, cli_text("eval %s %s --part val --json", run, data));
  json_t *table = json_loads(text, 0, NULL);
  int rows;
  double mae = json_real_value(json_object_get(json_object_get(table, "all"), "mae")), from_csv = error_of(csv, &rows);
  cr_assert(eq(int, rows, 20));
  cr_assert(le(dbl, fabs(mae - from_csv), 1e-12 * mae), "%.17g and %.17g", mae, from_csv);
  json_decref(table);
  free(text);
}

/* The validation figure of the log is the one of the checkpoint it belongs to. */
Test(cli_eval, best_and_last_are_those_of_the_log) {
  static const char *const which[] = {"best", "last"};
  const char *data = cli_data("t.h5", 100);
  const char *run = trained("run", data, "--epochs 200 --lr 0.1 --patience 2");
  double figure[2] = {INFINITY, 0};
  FILE *stream = fopen(cli_metrics(run), "r");
  char line[1024];
  while (fgets(line, sizeof line, stream) != NULL) {
    json_t *event = json_loads(line, 0, NULL);
    figure[1] = json_real_value(json_object_get(event, "val_mae"));
    figure[0] = fmin(figure[0], figure[1]);
    json_decref(event);
  }
  fclose(stream);
  cr_assert(ne(dbl, figure[0], figure[1]), "this run cannot tell the best from the last");
  for (int i = 0; i < 2; i++) {
    char *text = cli_output(2, cli_text("eval %s %s --part val --json --checkpoint %s", run, data, which[i]));
    json_t *table = json_loads(text, 0, NULL);
    double mae = json_real_value(json_object_get(json_object_get(table, "all"), "mae"));
    /* One forward pass in float32, whose sums depend on the size of a pass. */
    cr_assert(le(dbl, fabs(mae - figure[i]), 1e-5 * figure[i]), "%s: %.9g and %.9g", which[i], mae, figure[i]);
    json_decref(table);
    free(text);
  }
}

/* ---- predictions ---------------------------------------------------------------------------- */

Test(cli_eval, csv_and_hdf5_hold_the_same_predictions) {
  const char *data = cli_data("t.h5", 60), *run = trained("run", data, "--conr");
  const char *csv = io_file("p.csv"), *h5 = io_file("p.h5");
  cli_accepted(0, cli_text("predict %s %s -o %s", run, data, csv));
  cli_accepted(3, cli_text("predict %s %s -o %s", run, data, h5));
  struct array_file *file;
  cr_assert(array_file_read(h5, true, &file) == STATUS_OK, "%s", status_message());
  const int64_t *ids = array_file_find(file, "row")->data;
  const double *labels = array_file_find(file, "labels")->data, *values = array_file_find(file, "predictions")->data;
  FILE *stream = fopen(csv, "r");
  char header[256];
  cr_assert(fgets(header, sizeof header, stream) != NULL);
  for (int i = 0; i < 12; i++) {
    long long row;
    double label, value;
    cr_assert(eq(int, fscanf(stream, "%lld,%lf,%lf", &row, &label, &value), 3));
    cr_assert(eq(i64, row, 5 * i + 4), "every fifth row is for testing");
    cr_assert(eq(i64, row, ids[i]));
    cr_assert(eq(dbl, label, labels[i]));
    cr_assert(le(dbl, fabs(value - values[i]), 1e-5 * fmax(1, fabs(value))), "row %lld", row);
  }
  cr_assert(eq(i64, array_count(array_file_find(file, "row")), 12));
  cr_assert(eq(int, fgetc(stream), '\n'));
  cr_assert(eq(int, fgetc(stream), EOF));
  fclose(stream);
  array_file_destroy(&file);
}

/* The same rows with another split have another mean and deviation: the model's own must count. */
Test(cli_eval, a_new_table_is_standardised_as_the_model_was) {
  const char *data = cli_data("t.h5", 100), *run = trained("run", data, ""), *other = io_file("other.h5");
  const char *mine = io_file("mine.h5"), *theirs = io_file("theirs.h5");
  cli_accepted(0, cli_text("import %s --target y --drop split --split 0.2,0.2,0.6 --seed 9 -o %s --quiet",
                           io_file("cli_data.csv"), other));
  cli_accepted(0, cli_text("predict %s %s --part test -o %s", run, data, mine));
  cli_accepted(0, cli_text("predict %s %s --part test -o %s", run, other, theirs));
  struct array_file *a, *b;
  cr_assert(array_file_read(mine, true, &a) == STATUS_OK);
  cr_assert(array_file_read(theirs, true, &b) == STATUS_OK);
  const struct array *rows_a = array_file_find(a, "row"), *rows_b = array_file_find(b, "row");
  const double *of_a = array_file_find(a, "predictions")->data, *of_b = array_file_find(b, "predictions")->data;
  int both = 0;
  for (int64_t i = 0; i < array_count(rows_a); i++) {
    for (int64_t j = 0; j < array_count(rows_b); j++) {
      if (((int64_t *)rows_a->data)[i] != ((int64_t *)rows_b->data)[j])
        continue;
      both++;
      cr_assert(le(dbl, fabs(of_a[i] - of_b[j]), 1e-5 * fmax(1, fabs(of_a[i]))), "row %lld: %g and %g",
                (long long)((int64_t *)rows_a->data)[i], of_a[i], of_b[j]);
    }
  }
  cr_assert(ge(int, both, 5), "too few common rows to be a test");
  array_file_destroy(&b);
  array_file_destroy(&a);
}

Test(cli_eval, predictions_that_exist_are_kept_without_force) {
  const char *data = cli_data("t.h5", 20), *run = trained("run", data, ""), *csv = io_file("p.csv");
  const char *line = cli_text("predict %s %s -o %s", run, data, csv);
  io_write_text(csv, "mine");
  cli_refused(3, 2, cli_text("%s exists already; use --force to replace it", csv), line);
  char *kept = io_read(csv, NULL);
  cr_assert(eq(str, kept, "mine"));
  free(kept);
  cli_accepted(3, cli_text("%s --force", line));
  cr_assert(eq(int, cli_lines(csv), 5));
}

Test(cli_eval, predictions_need_a_place_that_can_be_written) {
  const char *data = cli_data("t.h5", 20), *run = trained("run", data, "");
  cli_refused(3, 2, "conr predict wants a file to write: give -o FILE.csv or FILE.h5",
              cli_text("predict %s %s", run, data));
  cli_refused(
      3, 2, "cannot tell how to write predictions to p.txt: its name must end in .h5 or .hdf5 (HDF5) or in .csv (CSV)",
      cli_text("predict %s %s -o p.txt", run, data));
  const char *below = cli_text("%s/p.csv", data);
  cli_refused(3, 1, cli_text("cannot write %s: Not a directory; choose a folder you may write to", below),
              cli_text("predict %s %s -o %s", run, data, below));
}

/* ---- what does not fit ---------------------------------------------------------------------- */

Test(cli_eval, other_columns_are_refused) {
  const char *data = cli_data("t.h5", 60), *run = trained("run", data, ""), *other = io_file("other.h5");
  const char *csv = io_file("cli_data.csv");
  cli_accepted(0, cli_text("import %s --target y --split-column split --drop c -o %s", csv, other));
  cli_refused(3, 1, cli_text("%s has 5 features, but the model was trained on 6", other),
              cli_text("eval %s %s", run, other));
  /* As many columns, of other names. */
  char *text = io_read(csv, NULL);
  text[2] = 'd'; /* a,d,c,... */
  io_write_text(io_file("named.csv"), text);
  free(text);
  cli_accepted(0, cli_text("import %s --target y --split-column split -o %s --force", io_file("named.csv"), other));
  cli_refused(3, 2,
              cli_text("%s has other feature columns, or in another order, than the model was trained on; import it "
                       "with the same columns",
                       other),
              cli_text("eval %s %s", run, other));
}

Test(cli_eval, other_targets_are_refused) {
  const char *data = cli_data("t.h5", 60), *run = trained("run", data, ""), *other = io_file("other.h5");
  const char *csv = io_file("cli_data.csv");
  cli_accepted(0, cli_text("import %s --target c --drop y --split-column split -o %s", csv, other));
  cli_refused(3, 1, cli_text("%s has 5 features, but the model was trained on 6", other),
              cli_text("predict %s %s -o %s", run, other, io_file("p.csv")));
  char *text = io_read(csv, NULL), *name = strstr(text, ",y,");
  name[1] = 'z';
  io_write_text(io_file("named.csv"), text);
  free(text);
  cli_accepted(0, cli_text("import %s --target z --split-column split -o %s --force", io_file("named.csv"), other));
  cli_refused(
      3, 2,
      cli_text("%s has other target columns than the model was trained on; import it with the same --target", other),
      cli_text("eval %s %s", run, other));
}

Test(cli_eval, a_split_without_rows_is_refused) {
  struct io_table table = io_table_plain(30, 3);
  const char *path = io_file("plain.h5");
  io_table_write(&table, path);
  const char *run = trained("run", path, "");
  for (int row = 0; row < 30; row++)
    io_table_put(path, "split", row, 0);
  cli_refused(3, 1, cli_text("%s has no test rows, needed for evaluation; set \"split\" to 2 for some", path),
              cli_text("eval %s %s", run, path));
}

Test(cli_eval, a_row_that_is_not_finite_is_named) {
  struct io_table table = io_table_plain(30, 3);
  const char *path = io_file("plain.h5");
  io_table_write(&table, path);
  const char *run = trained("run", path, "");
  io_table_put(path, "inputs", 9 * 3 + 1, NAN); /* the second test row */
  const char *sentence =
      cli_text("\"inputs\" in %s is nan at row 9, feature \"feature1\"; mend or remove the row", path);
  cli_refused(0, 1, sentence, cli_text("eval %s %s", run, path));
  cli_aborted(3, 0, sentence, cli_text("eval %s %s", run, path));
}

Test(cli_eval, runs_that_are_none) {
  const char *data = cli_data("t.h5", 20);
  cli_refused(3, 1, cli_text("cannot open %s: No such file or directory", io_file("none")),
              cli_text("eval %s %s", io_file("none"), data));
  cli_refused(3, 1, cli_text("%s holds no checkpoint; give the folder that conr train -o wrote", io_file("")),
              cli_text("eval %s %s", io_file(""), data));
  cli_refused(3, 1,
              cli_text("%s has no checksum, so it was not written by conr, or it is damaged; use another file", data),
              cli_text("eval %s %s", data, data));
  io_write_text(io_file("x.h5"), "this is no checkpoint");
  cli_refused(3, 1, cli_text("%s is not an HDF5 file, or it is damaged or cut short; make it again", io_file("x.h5")),
              cli_text("eval %s %s", io_file("x.h5"), data));
}

Test(cli_eval, predictions_are_no_checkpoint) {
  const char *data = cli_data("t.h5", 20), *run = trained("run", data, ""), *path = io_file("p.h5");
  cli_accepted(0, cli_text("predict %s %s -o %s", run, data, path));
  cli_refused(3, 1, cli_text("%s is a conr predictions file, not a checkpoint", path),
              cli_text("eval %s %s", path, data));
}

/* ---- options -------------------------------------------------------------------------------- */

Test(cli_eval, groups_that_overlap_are_refused) {
  const char *data = cli_data("t.h5", 20), *run = trained("run", data, "");
  cli_refused(3, 2, "--few 300 is above --many 100; a label would be both",
              cli_text("eval %s %s --few 300", run, data));
}

Test(cli_eval, unknown_options_and_missing_files) {
  cli_refused(3, 2, "conr eval has no option --jsno; did you mean --json?", "eval run t.h5 --jsno");
  cli_refused(3, 2, "conr eval wants RUN DATA.h5; see conr eval --help", "eval run");
  cli_refused(3, 2, "--part \"all\" is not one of train|val|test", "eval run t.h5 --part all");
}

Test(cli_eval, a_table_that_cannot_be_written_is_a_failure) {
  const char *data = cli_data("t.h5", 20), *run = trained("run", data, "");
  cli_refused(0, 1, "cannot write standard output: No space left on device",
              cli_text("eval %s %s >/dev/full", run, data));
  cli_refused(0, 1, "cannot write standard output: No space left on device",
              cli_text("eval %s %s --json >/dev/full", run, data));
}

Test(cli_eval, a_batch_larger_than_the_table_needs_no_more_memory) {
  const char *data = cli_data("t.h5", 20), *run = trained("run", data, "");
  cli_accepted(0, cli_text("eval %s %s --batch 1073741824", run, data));
}
