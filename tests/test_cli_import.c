/* conr import as a user meets it: every bad table is one sentence with its line, and leaves no file behind. */
#include "io/array_file.h"
#include "io_files.h"
#include "support_cli.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>
#include <string.h>

TestSuite(cli_import, .init = cli_begin, .fini = cli_end, .timeout = 60);

/* What `conr import` says of a table with this text; y is the target. */
static void table_refused(int exit_status, const char *text, const char *options, const char *sentence) {
  const char *csv = io_file("t.csv"), *out = io_file("t.h5");
  io_write_text(csv, text);
  cli_refused(0, exit_status, sentence, cli_text("import %s --target y -o %s %s", csv, out, options));
  cr_assert(not(io_exists(out)), "a file was left behind");
  cr_assert(not(io_exists(io_file("t.h5.tmp"))), "a temporary file was left behind");
}

/* What it writes for one that is right, as "rows features" and the split counts of its report. */
static void table_accepted(const char *text, const char *options, const char *report) {
  const char *csv = io_file("t.csv"), *out = io_file("t.h5");
  io_write_text(csv, text);
  char *output = cli_output(0, cli_text("import %s --target y -o %s %s", csv, out, options));
  cr_assert(strstr(output, report) != NULL, "%s is not in:\n%s", report, output);
  free(output);
  cr_assert(io_exists(out));
}

#define GOOD "a,y\n1,2\n2,3\n3,5\n4,6\n5,8\n6,9\n7,1\n8,2\n9,3\n10,4\n"

/* ---- files ---------------------------------------------------------------------------------- */

Test(cli_import, missing_file_is_named) {
  const char *csv = io_file("none.csv");
  cli_refused(0, 1, cli_text("cannot open %s: No such file or directory; check the path", csv),
              cli_text("import %s --target y -o %s", csv, io_file("t.h5")));
}

Test(cli_import, directory_is_no_table) {
  cli_refused(0, 1, cli_text("cannot open %s: it is a directory; give a CSV file", io_file("")),
              cli_text("import %s --target y -o %s", io_file(""), io_file("t.h5")));
}

Test(cli_import, empty_file) {
  table_refused(1, "", "", cli_text("%s is empty (0 bytes); a table needs a header line and rows", io_file("t.csv")));
}

Test(cli_import, header_without_rows) {
  table_refused(1, "a,y\n", "", cli_text("%s has a header line and no rows", io_file("t.csv")));
}

Test(cli_import, random_bytes) {
  unsigned char bytes[4096];
  uint32_t state = 7;
  for (size_t i = 0; i < sizeof bytes; i++)
    bytes[i] = (unsigned char)((state = state * 1664525u + 1013904223u) >> 24);
  io_write(io_file("t.csv"), bytes, sizeof bytes);
  struct run_result run = cli_run(0, cli_text("import %s --target y -o %s", io_file("t.csv"), io_file("t.h5")));
  cr_assert(eq(int, run.exit_status, 1), "%s", run.output);
  cr_assert(eq(int, cli_count(run.output, "conr: "), 1), "%s", run.output);
  cr_assert(strstr(run.output, cli_text("%s is not a CSV text file: line 1 holds the byte 0x", io_file("t.csv"))) !=
                NULL,
            "%s", run.output);
  run_result_free(&run);
  cr_assert(not(io_exists(io_file("t.h5"))));
}

Test(cli_import, an_hdf5_file_is_not_csv) {
  const char *data = cli_data("data.h5", 20);
  cli_refused(0, 2,
              cli_text("%s is an HDF5 file: give --layout encoded or --layout pixels to convert its images", data),
              cli_text("import %s --target y -o %s", data, io_file("t.h5")));
}

Test(cli_import, truncated_inside_a_row_names_the_line) {
  table_refused(1, "a,b,y\n1,2,3\n4,5", "",
                cli_text("line 3 of %s has 2 fields, the header line has 3", io_file("t.csv")));
}

Test(cli_import, truncated_inside_quotes_names_the_line) {
  table_refused(1, "a,y\n1,2\n\"3,4\n5,6\n", "",
                cli_text("%s ends inside a quoted field; the row begins in line 3", io_file("t.csv")));
}

Test(cli_import, output_folder_that_does_not_exist) {
  io_write_text(io_file("t.csv"), GOOD);
  const char *out = io_file("none/t.h5");
  cli_refused(0, 1, cli_text("cannot write %s: its folder %s does not exist; create it first", out, io_file("none")),
              cli_text("import %s --target y -o %s", io_file("t.csv"), out));
}

Test(cli_import, output_below_a_file_cannot_be_written) {
  io_write_text(io_file("t.csv"), GOOD);
  const char *out = cli_text("%s/t.h5", io_file("t.csv"));
  cli_refused(0, 1, cli_text("cannot write %s: Not a directory; choose a folder you may write to", out),
              cli_text("import %s --target y -o %s", io_file("t.csv"), out));
}

Test(cli_import, output_that_exists_is_kept_without_force) {
  const char *csv = io_file("t.csv"), *out = io_file("t.h5");
  io_write_text(csv, GOOD);
  io_write_text(out, "mine");
  cli_refused(0, 2, cli_text("%s exists already; use --force to replace it", out),
              cli_text("import %s --target y -o %s", csv, out));
  char *kept = io_read(out, NULL);
  cr_assert(eq(str, kept, "mine"));
  free(kept);
  cli_accepted(0, cli_text("import %s --target y -o %s --force", csv, out));
}

Test(cli_import, input_and_output_cannot_be_one_file) {
  const char *csv = io_file("t.csv");
  io_write_text(csv, GOOD);
  cli_refused(0, 2, cli_text("input and output are both %s; give another name for the output", csv),
              cli_text("import %s --target y -o %s --force", csv, csv));
}

Test(cli_import, file_size_limit_leaves_nothing_behind) {
  const char *csv = io_file("t.csv"), *out = io_file("t.h5");
  char conr[RUN_PATH_BYTES];
  cli_write_csv(csv, 2000);
  /* One block of 512 bytes; the signal that would come with it is ignored, as by `trap`. */
  const char *script = cli_text("trap '' XFSZ; ulimit -f 1; exec %s import %s --target y -o %s --quiet",
                                run_build_path("conr", conr), csv, out);
  char *const command[] = {"sh", "-c", (char *)script, NULL};
  struct run_result run;
  cr_assert(eq(int, run_command(command, 30, &run), 1), "%s", run.output);
  cr_assert(eq(str, run.output,
               (char *)cli_text("conr: cannot write %s: File too large; free some space or choose another folder (no "
                                "file was changed)\n",
                                out)));
  run_result_free(&run);
  cr_assert(not(io_exists(out)));
  cr_assert(not(io_exists(io_file("t.h5.tmp"))));
}

/* ---- values --------------------------------------------------------------------------------- */

Test(cli_import, ragged_row_names_the_line) {
  table_refused(1, "a,y\n1,2\n3,4\n5,6,7\n", "",
                cli_text("line 4 of %s has 3 fields, the header line has 2", io_file("t.csv")));
}

Test(cli_import, label_that_is_no_number) {
  table_refused(1, "a,y\n1,2\n3,many\n", "",
                cli_text("target \"y\" is \"many\" in line 3 of %s; it must be a number", io_file("t.csv")));
}

Test(cli_import, label_that_is_infinite) {
  table_refused(1, "a,y\n1,2\n3,-inf\n", "",
                cli_text("target \"y\" is \"-inf\" in line 3 of %s; it must be finite", io_file("t.csv")));
}

Test(cli_import, label_that_is_nan_is_missing) {
  table_refused(1, "a,y\n1,2\n3,nan\n", "",
                cli_text("column \"y\" has no value in line 3 of %s; use --missing mean or --missing drop-row, or "
                         "--drop the column",
                         io_file("t.csv")));
}

Test(cli_import, feature_that_is_infinite) {
  table_refused(
      1, "a,y\n1,2\n1e39,4\n", "--split 1,0,0",
      cli_text("column \"a\" is \"1e39\" in line 3 of %s; an input must be a finite float32 number", io_file("t.csv")));
}

Test(cli_import, missing_feature_is_refused_by_default) {
  table_refused(1, "a,y\n1,2\n,4\n", "",
                cli_text("column \"a\" has no value in line 3 of %s; use --missing mean or --missing drop-row, or "
                         "--drop the column",
                         io_file("t.csv")));
}

Test(cli_import, missing_label_cannot_be_filled) {
  table_refused(1, "a,y\n1,2\n3,\n", "--missing mean",
                cli_text("column \"y\" has no value in line 3 of %s; targets, weights and splits cannot be filled, use "
                         "--missing drop-row",
                         io_file("t.csv")));
}

Test(cli_import, missing_values_can_drop_their_rows) {
  table_accepted("a,y\n1,2\n,4\n3,?\n4,6\n5,7\n", "--missing drop-row --split 1,0,0", "3 rows, 1 feature");
}

Test(cli_import, missing_values_can_become_means) {
  table_accepted("a,y\n1,2\nNA,4\n3,5\n", "--missing mean --split 1,0,0", "3 rows, 1 feature");
}

Test(cli_import, text_column_becomes_one_hot) {
  table_accepted("a,s,y\n1,u,2\n2,v,4\n3,u,5\n", "--split 1,0,0", "3 rows, 3 features");
}

Test(cli_import, constant_target) {
  table_refused(1, "a,y\n1,2\n3,2\n4,2\n", "--split 1,0,0",
                cli_text("target \"y\" is 2 in all 3 training rows of %s; there is nothing to learn from a constant "
                         "target",
                         io_file("t.csv")));
}

Test(cli_import, negative_weight) {
  table_refused(1, "a,w,y\n1,1,2\n3,-1,4\n", "--weight-column w",
                cli_text("weight \"w\" is -1 in line 3 of %s; a weight must not be negative", io_file("t.csv")));
}

Test(cli_import, unknown_split) {
  table_refused(1, "a,s,y\n1,train,2\n3,trian,4\n", "--split-column s",
                cli_text("split \"s\" is \"trian\" in line 3 of %s; it must be train, val, validation, valid, dev or "
                         "test, or 0, 1, 2",
                         io_file("t.csv")));
}

Test(cli_import, split_without_training_rows) {
  table_refused(1, "a,s,y\n1,val,2\n3,test,4\n", "--split-column s",
                cli_text("none of the 2 rows of %s is for training; check the split", io_file("t.csv")));
}

/* ---- columns and options -------------------------------------------------------------------- */

Test(cli_import, duplicate_column) {
  table_refused(1, "a,a,y\n1,2,3\n", "",
                cli_text("%s has two columns named \"a\", the 1. and the 2.; rename one", io_file("t.csv")));
}

Test(cli_import, unknown_target_offers_the_nearest) {
  io_write_text(io_file("t.csv"), "size,rings\n1,2\n");
  cli_refused(0, 2, cli_text("%s has no column \"ring\"; did you mean \"rings\"?", io_file("t.csv")),
              cli_text("import %s --target ring -o %s", io_file("t.csv"), io_file("t.h5")));
}

Test(cli_import, unknown_dropped_column_offers_the_nearest) {
  table_refused(2, "size,rings,y\n1,2,3\n", "--drop siez",
                cli_text("%s has no column \"siez\"; did you mean \"size\"?", io_file("t.csv")));
}

Test(cli_import, a_column_has_one_role) {
  table_refused(
      2, "a,y\n1,2\n", "--drop y",
      cli_text("column \"y\" of %s is named twice, as target and as dropped; it can be one of them", io_file("t.csv")));
}

Test(cli_import, no_inputs_left) {
  table_refused(2, "a,y\n1,2\n", "--drop a",
                cli_text("no input columns are left in %s; drop fewer, or check that commas separate its columns",
                         io_file("t.csv")));
}

Test(cli_import, semicolons_are_recognised) {
  table_refused(1, "a;y\n1;2\n", "",
                cli_text("%s seems to separate its columns by semicolons; save it with commas", io_file("t.csv")));
}

Test(cli_import, split_column_and_split_contradict) {
  table_refused(2, GOOD, "--split-column a --split 0.8,0.1,0.1",
                "--split-column and --split contradict each other; give one");
}

Test(cli_import, shares_that_do_not_sum_to_one) {
  table_refused(2, GOOD, "--split 0.8,0.1,0.2", "the split fractions 0.8, 0.1 and 0.2 sum to 1.1; they must sum to 1");
}

Test(cli_import, shares_that_are_no_numbers) {
  table_refused(2, GOOD, "--split most", "--split wants three shares such as 0.7,0.15,0.15, not \"most\"");
}

Test(cli_import, negative_share) {
  table_refused(2, GOOD, "--split 1.2,-0.1,-0.1", "the validation fraction -0.1 must be at least 0");
}

Test(cli_import, target_and_output_are_required) {
  io_write_text(io_file("t.csv"), GOOD);
  cli_refused(0, 2, "conr import wants the label column: give --target NAME",
              cli_text("import %s -o %s", io_file("t.csv"), io_file("t.h5")));
  cli_refused(0, 2, "conr import wants a file to write: give -o DATA.h5",
              cli_text("import %s --target y", io_file("t.csv")));
}

Test(cli_import, empty_target_name) {
  io_write_text(io_file("t.csv"), GOOD);
  cli_refused(0, 2, "--target has an empty name; give names separated by commas",
              cli_text("import %s --target y, -o %s", io_file("t.csv"), io_file("t.h5")));
}

/* The files themselves hold the time at which HDF5 made them. */
static bool same_content(const char *path_a, const char *path_b) {
  struct array_file *a, *b;
  cr_assert(array_file_read(path_a, false, &a) == STATUS_OK, "%s", status_message());
  cr_assert(array_file_read(path_b, false, &b) == STATUS_OK, "%s", status_message());
  bool same = a->array_count == b->array_count && a->array_count == 5;
  for (size_t i = 0; same && i < a->array_count; i++)
    same = strcmp(a->arrays[i].name, b->arrays[i].name) == 0 &&
           array_bytes(&a->arrays[i]) == array_bytes(&b->arrays[i]) &&
           memcmp(a->arrays[i].data, b->arrays[i].data, array_bytes(&a->arrays[i])) == 0;
  array_file_destroy(&b);
  array_file_destroy(&a);
  return same;
}

Test(cli_import, splits_depend_on_the_seed_and_on_nothing_else) {
  const char *csv = io_file("t.csv");
  cli_write_csv(csv, 50);
  const char *a = io_file("a.h5"), *b = io_file("b.h5"), *c = io_file("c.h5");
  cli_accepted(0, cli_text("import %s --target y --drop split --seed 3 -o %s", csv, a));
  cli_accepted(0, cli_text("import %s --target y --drop split --seed 3 -o %s", csv, b));
  cli_accepted(0, cli_text("import %s --target y --drop split --seed 4 -o %s", csv, c));
  cr_assert(same_content(a, b) == true, "equal imports differ");
  cr_assert(same_content(a, c) == false, "the seed does nothing");
}

Test(cli_import, one_rank_of_a_job_imports) {
  const char *csv = io_file("t.csv"), *out = io_file("t.h5");
  io_write_text(csv, GOOD);
  struct run_result run = cli_run(3, cli_text("import %s --target y -o %s", csv, out));
  cr_assert(eq(int, run.exit_status, 0), "%s", run.output);
  cr_assert(eq(int, cli_count(run.output, "h5: 10 rows"), 1), "%s", run.output);
  run_result_free(&run);
}
