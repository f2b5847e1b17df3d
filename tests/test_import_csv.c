/* CSV files into tables: what is written, and a sentence for each way a file can be wrong. */
#define _GNU_SOURCE
#include "dist/memory.h"
#include "io/import.h"
#include "tests/io_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(import_csv, .init = io_files_begin, .fini = io_files_end, .timeout = 120);

static const char *const only_y[] = {"y"};

/* Import table.csv to table.h5 with target y and split column split. */
static struct import_csv_options options_for_y(void) {
  return (struct import_csv_options){.csv_path = io_file("table.csv"),
                                     .output_path = io_file("table.h5"),
                                     .targets = only_y,
                                     .target_count = 1,
                                     .split = "split",
                                     .force = true};
}

static struct dataset *import_and_open(const struct import_csv_options *options, struct import_report **report) {
  struct dataset *dataset;
  struct import_report *own = NULL;
  cr_assert(eq(int, (int)import_csv(options, report != NULL ? report : &own), 0), "%s", status_message());
  import_report_destroy(&own);
  cr_assert(eq(int, (int)dataset_open(options->output_path, NULL, F64, &dataset), 0), "%s", status_message());
  cr_assert(not(io_exists(io_file("table.h5.tmp"))));
  return dataset;
}

static struct dataset *import_text(const char *csv) {
  struct import_csv_options options = options_for_y();
  io_write_text(options.csv_path, csv);
  return import_and_open(&options, NULL);
}

/* Import fails with this sentence, in which FILE stands for the CSV file's path, and leaves nothing behind. */
static void expect_refused_by(const struct import_csv_options *options, enum status wanted, const char *pattern) {
  struct import_report *report;
  char sentence[1200] = "";
  const char *rest = pattern, *place;
  unlink(io_file("table.h5"));
  while ((place = strstr(rest, "FILE")) != NULL) {
    sprintf(sentence + strlen(sentence), "%.*s%s", (int)(place - rest), rest, options->csv_path);
    rest = place + 4;
  }
  strcat(sentence, rest);
  cr_expect(eq(int, (int)import_csv(options, &report), (int)wanted));
  cr_expect(eq(str, (char *)status_message(), sentence));
  cr_expect(report == NULL);
  cr_expect(not(io_exists(io_file("table.h5"))));
  cr_expect(not(io_exists(io_file("table.h5.tmp"))));
}

static void expect_refused(const char *csv, const char *pattern) {
  struct import_csv_options options = options_for_y();
  io_write_text(options.csv_path, csv);
  expect_refused_by(&options, ERR_FORMAT, pattern);
}

/* A row as stored, standardisation undone. */
static double stored(struct dataset *dataset, int64_t row, int feature) {
  double values[64];
  cr_assert(eq(int, (int)dataset_read(dataset, &row, 1, values), 0), "%s", status_message());
  return values[feature] * dataset_std(dataset)[feature] + dataset_mean(dataset)[feature];
}

#define SMALL                   \
  "a,y,colour,split,b\n"        \
  "1,10,red,train,0\n"          \
  "2,20.5,blue,Train,1\n"       \
  "4,-3e1,red,val,0\n"          \
  "6,40,\"dark, red\",TEST,1\n" \
  "6,50,green,0,1\n"

FILE_TEST(import_csv, columns_become_inputs_targets_and_splits) {
  struct dataset *dataset = import_text(SMALL);
  const char *const names[] = {"a", "colour=blue", "colour=dark, red", "colour=green", "colour=red", "b"};
  double y[] = {10, 20.5, -30, 40, 50}, a[] = {1, 2, 4, 6, 6};
  int colour[] = {4, 1, 4, 2, 3};
  cr_assert(eq(int, dataset_features(dataset), 6));
  for (int j = 0; j < 6; j++)
    cr_expect(eq(str, (char *)dataset_feature_name(dataset, j), (char *)names[j]));
  for (int i = 0; i < 5; i++) {
    cr_expect(eq(dbl, dataset_target(dataset)[i], y[i]));
    cr_expect(ieee_ulp_eq(dbl, stored(dataset, i, 0), a[i], 4));
    for (int j = 1; j < 5; j++)
      cr_expect(eq(dbl, stored(dataset, i, j), colour[i] == j ? 1 : 0), "row %d, %s", i, names[j]);
  }
  cr_expect(eq(str, (char *)dataset_target_name(dataset, 0), "y"));
  cr_expect(eq(str, (char *)dataset_source(dataset), "table.csv"));
  cr_expect(eq(i64, dataset_split_rows(dataset, SPLIT_TRAIN), 3));
  cr_expect(eq(i64, dataset_split_ids(dataset, SPLIT_VAL)[0], 2));
  cr_expect(eq(i64, dataset_split_ids(dataset, SPLIT_TEST)[0], 3));
  cr_expect(dataset_weight(dataset) == NULL);
  dataset_close(&dataset);
}

FILE_TEST(import_csv, statistics_are_those_of_the_training_rows) {
  struct dataset *dataset = import_text(SMALL);
  /* a is 1, 2, 6 in training: mean 3, variance (4 + 1 + 9) / 3; b is 0, 1, 1; one-hot columns are left alone. */
  cr_expect(ieee_ulp_eq(dbl, dataset_mean(dataset)[0], 3.0, 4));
  cr_expect(ieee_ulp_eq(dbl, dataset_std(dataset)[0], sqrt(14.0 / 3), 4));
  cr_expect(ieee_ulp_eq(dbl, dataset_mean(dataset)[5], 2.0 / 3, 4));
  cr_expect(ieee_ulp_eq(dbl, dataset_std(dataset)[5], sqrt(2.0 / 9), 4));
  for (int j = 1; j < 5; j++) {
    cr_expect(eq(dbl, dataset_mean(dataset)[j], 0.0));
    cr_expect(eq(dbl, dataset_std(dataset)[j], 1.0));
  }
  dataset_close(&dataset);
}

FILE_TEST(import_csv, line_ends_blank_lines_quotes_and_byte_order_mark_do_not_matter) {
  const char *const variants[] = {
      "a,split,y\r\n1,train,1\r\n2,train,2\r\n",           "a,split,y\r1,train,1\r2,train,2\r",
      "\xEF\xBB\xBF\"a\",split,y\n1,train,1\n2,train,2\n", "\n\na,split,y\n\n1,train,1\n\n  \n2,train,2\n\n\n",
      "a , split, y\n\"1\",\"train\", 1\n2,train,\"2\"",   "a,split,y\n1,train,1\n2,train,2\r\n\r\n",
  };
  for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
    struct dataset *dataset = import_text(variants[i]);
    cr_expect(eq(i64, dataset_rows(dataset), 2), "variant %zu", i);
    cr_expect(eq(str, (char *)dataset_feature_name(dataset, 0), "a"), "variant %zu", i);
    cr_expect(eq(dbl, stored(dataset, 1, 0), 2.0), "variant %zu", i);
    cr_expect(eq(dbl, dataset_target(dataset)[1], 2.0), "variant %zu", i);
    dataset_close(&dataset);
  }
}

FILE_TEST(import_csv, quoted_fields_may_hold_commas_quotes_and_line_ends) {
  struct dataset *dataset =
      import_text("kind,split,y\n\"a, \"\"b\"\"\n c\",train,1\nx,train,2\n\"a, \"\"b\"\"\n c\",test,3\n");
  cr_assert(eq(int, dataset_features(dataset), 2));
  cr_expect(eq(str, (char *)dataset_feature_name(dataset, 0), "kind=a, \"b\"\n c"));
  cr_expect(eq(dbl, stored(dataset, 2, 0), 1.0));
  dataset_close(&dataset);
  expect_refused("kind,split,y\n\"a\nb\nc\",train,1\nx,train,2\ny,train\n",
                 "line 6 of FILE has 2 fields, the header line has 3");
}

FILE_TEST(import_csv, several_targets_a_weight_and_dropped_columns) {
  struct import_csv_options options = options_for_y();
  options.targets = (const char *[]){"z", "y"};
  options.target_count = 2;
  options.weight = "w";
  options.drops = (const char *[]){"name"};
  options.drop_count = 1;
  io_write_text(options.csv_path, "name,w,y,x,z,split\nann,0.5,1,7,10,train\nbob,0,2,8,20,train\n,2,3,9,30,test\n");
  struct dataset *dataset = import_and_open(&options, NULL);
  cr_expect(eq(int, dataset_targets(dataset), 2));
  cr_expect(eq(int, dataset_features(dataset), 1));
  cr_expect(eq(str, (char *)dataset_target_name(dataset, 0), "z"));
  for (int i = 0; i < 3; i++) {
    cr_expect(eq(dbl, dataset_target(dataset)[2 * i], 10 * (i + 1)));
    cr_expect(eq(dbl, dataset_target(dataset)[2 * i + 1], i + 1));
  }
  cr_expect(eq(dbl, dataset_weight(dataset)[0], 0.5));
  cr_expect(eq(dbl, dataset_weight(dataset)[1], 0.0));
  dataset_close(&dataset);
}

static void write_numbers(const char *path, int rows) {
  FILE *stream = fopen(path, "w");
  fprintf(stream, "x,y\n");
  for (int i = 0; i < rows; i++)
    fprintf(stream, "%d,%g\n", i, i * 0.25);
  fclose(stream);
}

FILE_TEST(import_csv, drawn_splits_have_exact_counts_and_follow_the_seed) {
  struct import_csv_options options = options_for_y();
  int first[101];
  options.split = NULL;
  options.fractions[0] = 0.6;
  options.fractions[1] = options.fractions[2] = 0.2;
  write_numbers(options.csv_path, 101);
  for (uint64_t seed = 1; seed <= 2; seed++) {
    for (int again = 0; again < 2; again++) {
      options.seed = seed;
      struct dataset *dataset = import_and_open(&options, NULL);
      int differ = 0;
      cr_expect(eq(i64, dataset_split_rows(dataset, SPLIT_TRAIN), 61)); /* 60.6, 80.8 and 101 rounded */
      cr_expect(eq(i64, dataset_split_rows(dataset, SPLIT_VAL), 20));
      cr_expect(eq(i64, dataset_split_rows(dataset, SPLIT_TEST), 20));
      for (int split = 0; split < 3; split++) {
        for (int64_t i = 0; i < dataset_split_rows(dataset, split); i++) {
          int64_t row = dataset_split_ids(dataset, split)[i];
          differ += first[row] != split;
          if (seed == 1 && again == 0)
            first[row] = split;
        }
      }
      if (seed == 1 && again == 1)
        cr_expect(eq(int, differ, 0), "the same seed must give the same splits");
      if (seed == 2)
        cr_expect(differ > 20, "another seed must give other splits");
      dataset_close(&dataset);
    }
  }
}

FILE_TEST(import_csv, fractions_that_make_no_sense_are_named) {
  struct import_csv_options options = options_for_y();
  write_numbers(options.csv_path, 10);
  options.split = NULL;
  memcpy(options.fractions, (double[]){0.8, 0.2, 0.1}, sizeof options.fractions);
  expect_refused_by(&options, ERR_ARGUMENT, "the split fractions 0.8, 0.2 and 0.1 sum to 1.1; they must sum to 1");
  memcpy(options.fractions, (double[]){1.2, -0.2, 0}, sizeof options.fractions);
  expect_refused_by(&options, ERR_ARGUMENT, "the validation fraction -0.2 must be at least 0");
  memcpy(options.fractions, (double[]){0, 0.5, 0.5}, sizeof options.fractions);
  expect_refused_by(&options, ERR_FORMAT, "none of the 10 rows of FILE is for training; check the split");
}

#define GAPS         \
  "a,kind,y,split\n" \
  "1,u,1,train\n"    \
  "NA,v,2,train\n"   \
  "4,,3,train\n"     \
  "?,nan,4,test\n"   \
  "7,u,5,val\n"      \
  "2.5,u,6,train\n"

FILE_TEST(import_csv, a_missing_value_is_an_error_unless_said_otherwise) {
  expect_refused(GAPS,
                 "column \"a\" has no value in line 3 of FILE; use --missing mean or --missing drop-row, or --drop "
                 "the column");
}

FILE_TEST(import_csv, rows_with_missing_values_can_be_dropped_and_are_counted) {
  struct import_csv_options options = options_for_y();
  struct import_report *report;
  io_write_text(options.csv_path, GAPS);
  options.missing = MISSING_DROP_ROW;
  struct dataset *dataset = import_and_open(&options, &report);
  cr_expect(eq(i64, report->rows, 3));
  cr_expect(eq(i64, report->rows_dropped, 3));
  cr_expect(eq(i64, report->split_rows[SPLIT_VAL], 1));
  cr_expect(eq(dbl, dataset_target(dataset)[1], 5.0));
  cr_expect(eq(int, dataset_features(dataset), 2), "a category seen only in dropped rows makes no column");
  dataset_close(&dataset);
  import_report_destroy(&report);
}

FILE_TEST(import_csv, missing_inputs_can_become_the_training_mean_or_a_category) {
  struct import_csv_options options = options_for_y();
  struct import_report *report;
  io_write_text(options.csv_path, GAPS);
  options.missing = MISSING_MEAN;
  struct dataset *dataset = import_and_open(&options, &report);
  cr_assert(eq(int, dataset_features(dataset), 4));
  cr_expect(eq(str, (char *)dataset_feature_name(dataset, 1), "kind=missing"));
  cr_expect(ieee_ulp_eq(dbl, stored(dataset, 1, 0), 2.5, 4), "the mean of 1, 4 and 2.5");
  cr_expect(ieee_ulp_eq(dbl, stored(dataset, 3, 0), 2.5, 4), "the training mean also for a test row");
  cr_expect(eq(dbl, stored(dataset, 2, 1), 1.0));
  cr_expect(eq(dbl, stored(dataset, 3, 1), 1.0));
  cr_expect(eq(dbl, stored(dataset, 0, 1), 0.0));
  cr_expect(ieee_ulp_eq(dbl, dataset_std(dataset)[0], sqrt(1.125), 4), "of 1, 2.5, 4, 2.5: with the gap filled");
  cr_expect(eq(i64, report->values_filled, 4));
  dataset_close(&dataset);
  import_report_destroy(&report);
}

FILE_TEST(import_csv, what_cannot_be_filled_is_refused) {
  struct import_csv_options options = options_for_y();
  options.missing = MISSING_MEAN;
  io_write_text(options.csv_path, "a,y,split\n1,2,train\n1,,train\n");
  expect_refused_by(&options, ERR_FORMAT,
                    "column \"y\" has no value in line 3 of FILE; targets, weights and splits cannot be filled, use "
                    "--missing drop-row");
  io_write_text(options.csv_path, "a,y,split\n,2,train\n,3,train\n5,4,test\n");
  expect_refused_by(&options, ERR_FORMAT,
                    "column \"a\" of FILE has no value in any training row, so it has no mean; use --drop \"a\"");
  options.missing = MISSING_DROP_ROW;
  io_write_text(options.csv_path, "a,y,split\n,2,train\n,3,train\n");
  expect_refused_by(&options, ERR_FORMAT,
                    "all 2 rows of FILE miss a value, so all were dropped; --drop a column instead");
}

FILE_TEST(import_csv, values_that_are_no_numbers_are_named_with_line_and_column) {
  expect_refused("a,y,split\n1,2,train\n1,tall,train\n",
                 "target \"y\" is \"tall\" in line 3 of FILE; it must be a number");
  expect_refused("a,y,split\n1,2,train\n1,inf,train\n", "target \"y\" is \"inf\" in line 3 of FILE; it must be finite");
  expect_refused("a,y,split\n1,2,train\n1,1e999,train\n",
                 "target \"y\" is \"1e999\" in line 3 of FILE; it must be finite");
  expect_refused("a,y,split\n1,2,train\n1,0x10,train\n",
                 "target \"y\" is \"0x10\" in line 3 of FILE; it must be a number");
  expect_refused("a,y,split\n1,2,train\n1,nan,train\n",
                 "column \"y\" has no value in line 3 of FILE; use --missing mean or --missing drop-row, or --drop the "
                 "column");
  expect_refused("a,y,split\n1,2,train\n1e39,3,train\n",
                 "column \"a\" is \"1e39\" in line 3 of FILE; an input must be a finite float32 number");
  expect_refused(
      "a,y,split\n1,2,train\n1,3,holdout\n",
      "split \"split\" is \"holdout\" in line 3 of FILE; it must be train, val, validation, valid, dev or test, "
      "or 0, 1, 2");
  struct import_csv_options options = options_for_y();
  options.weight = "w";
  io_write_text(options.csv_path, "a,w,y,split\n1,1,2,train\n1,-1,3,train\n");
  expect_refused_by(&options, ERR_FORMAT, "weight \"w\" is -1 in line 3 of FILE; a weight must not be negative");
  io_write_text(options.csv_path, "a,w,y,split\n1,1,2,train\n1,heavy,3,train\n");
  expect_refused_by(&options, ERR_FORMAT, "weight \"w\" is \"heavy\" in line 3 of FILE; it must be a number");
}

FILE_TEST(import_csv, ragged_rows_and_stray_quotes_name_their_line) {
  expect_refused("a,y,split\n1,2,train\n\n1,2\n", "line 4 of FILE has 2 fields, the header line has 3");
  expect_refused("a,y,split\r\n1,2,train\r\n1,2,train,9\r\n", "line 3 of FILE has 4 fields, the header line has 3");
  expect_refused(
      "a,y,split\n1,2,train\n5\"x,2,train\n",
      "FILE has a quote out of place in line 3; a field with quotes is written \"...\", with \"\" for each of "
      "them");
  expect_refused("a,y,split\n1,2,train\n\"1,2,train\n1,2,train\n",
                 "FILE ends inside a quoted field; the row begins in line 3");
}

FILE_TEST(import_csv, headers_must_name_each_column_once) {
  expect_refused("a,y,split,a\n1,2,train,3\n", "FILE has two columns named \"a\", the 1. and the 4.; rename one");
  expect_refused(",y,split,a\n0,2,train,3\n",
                 "column 1 of FILE has no name in the header line; name it (a row index had better be left out)");
  expect_refused("a;y;split\n1;2;train\n", "FILE seems to separate its columns by semicolons; save it with commas");
  expect_refused("a\ty\tsplit\n1\t2\ttrain\n", "FILE seems to separate its columns by tabs; save it with commas");
}

FILE_TEST(import_csv, unknown_and_doubly_used_columns_are_named) {
  struct import_csv_options options = options_for_y();
  io_write_text(options.csv_path, "Length,Rings,split,y\n1,2,train,3\n");
  options.targets = (const char *[]){"Ring"};
  expect_refused_by(&options, ERR_ARGUMENT, "FILE has no column \"Ring\"; did you mean \"Rings\"?");
  options.targets = (const char *[]){"temperature"};
  expect_refused_by(&options, ERR_ARGUMENT,
                    "FILE has no column \"temperature\"; its columns are Length, Rings, split, y");
  options = options_for_y();
  options.weight = "y";
  expect_refused_by(&options, ERR_ARGUMENT,
                    "column \"y\" of FILE is named twice, as target and as weight; it can be one of "
                    "them");
  options = options_for_y();
  options.drops = (const char *[]){"Length", "Rings"};
  options.drop_count = 2;
  expect_refused_by(&options, ERR_ARGUMENT,
                    "no input columns are left in FILE; drop fewer, or check that commas separate its columns");
  options.target_count = 0;
  expect_refused_by(&options, ERR_ARGUMENT, "no target column is named for FILE; use --target NAME");
}

FILE_TEST(import_csv, a_column_of_prose_is_refused_with_its_name) {
  struct import_csv_options options = options_for_y();
  FILE *stream = fopen(options.csv_path, "w");
  fprintf(stream, "path,y,split\n");
  for (int i = 0; i < 1001; i++)
    fprintf(stream, "img%d.jpg,%d,train\n", i, i);
  fclose(stream);
  const char *sentence =
      "column \"path\" of FILE is not numeric (\"img0.jpg\" in line 2) and has more than 1000 different "
      "values, or very long ones; use --drop \"path\"";
  expect_refused_by(&options, ERR_FORMAT, sentence);
  stream = fopen(options.csv_path, "w"); /* numbers for long, and then a word */
  fprintf(stream, "path,y,split\n");
  for (int i = 0; i < 3000; i++)
    fprintf(stream, "%d,%d,train\n", i, i);
  fprintf(stream, "img0.jpg,5,train\n");
  fclose(stream);
  expect_refused_by(
      &options, ERR_FORMAT,
      "column \"path\" of FILE is not numeric (\"img0.jpg\" in line 3002) and has more than 1000 different "
      "values, or very long ones; use --drop \"path\"");
}

FILE_TEST(import_csv, exactly_1000_categories_are_accepted) {
  struct import_csv_options options = options_for_y();
  FILE *stream = fopen(options.csv_path, "w");
  fprintf(stream, "kind,y,split\n");
  for (int i = 0; i < 3000; i++)
    fprintf(stream, "k%03d,%d,train\n", i * 7 % 1000, i);
  fclose(stream);
  struct dataset *dataset = import_and_open(&options, NULL);
  cr_expect(eq(int, dataset_features(dataset), 1000));
  cr_expect(eq(str, (char *)dataset_feature_name(dataset, 7), "kind=k007"), "sorted by bytes");
  dataset_close(&dataset);
}

FILE_TEST(import_csv, files_that_are_no_csv_are_told_apart) {
  struct import_csv_options options = options_for_y();
  expect_refused_by(&options, ERR_FILE, "cannot open FILE: No such file or directory; check the path");
  io_write_text(options.csv_path, "");
  expect_refused_by(&options, ERR_FORMAT, "FILE is empty (0 bytes); a table needs a header line and rows");
  expect_refused("\n\n \n", "FILE holds no header line");
  expect_refused("a,y,split\n", "FILE has a header line and no rows");
  io_write(options.csv_path, "a,y,split\n1,\0,train\n", 21);
  expect_refused_by(&options, ERR_FORMAT,
                    "FILE is not a CSV text file: line 2 holds the byte 0x00; save it as UTF-8 text");
  expect_refused("\x1f\x8b\x08junk", "FILE is not a CSV text file: line 1 holds the byte 0x1f; save it as UTF-8 text");
  options.csv_path = io_file("");
  expect_refused_by(&options, ERR_FILE, "cannot open FILE: it is a directory; give a CSV file");
}

FILE_TEST(import_csv, random_bytes_never_crash_it) {
  struct import_csv_options options = options_for_y();
  static const char letters[] = "a,y\"\n\r 1.-es?x;\t";
  static char text[400];
  uint32_t state = 1;
  for (int round = 0; round < 2000; round++) {
    struct import_report *report;
    strcpy(text, "a,y,split\n1,2,train\n");
    for (size_t i = round % 2 == 0 ? 0 : 20; i < sizeof text; i++) {
      state = state * 1664525u + 1013904223u;
      text[i] = letters[(state >> 24) % (sizeof letters - 1)];
    }
    io_write(options.csv_path, text, sizeof text);
    if (import_csv(&options, &report) != STATUS_OK)
      cr_assert(strlen(status_message()) > 10);
    import_report_destroy(&report);
  }
}

FILE_TEST(import_csv, a_constant_target_is_refused) {
  expect_refused("a,y,split\n1,2,train\n3,2,train\n4,5,test\n",
                 "target \"y\" is 2 in all 2 training rows of FILE; there is nothing to learn from a constant target");
}

FILE_TEST(import_csv, constant_features_get_std_1_and_a_word) {
  struct import_csv_options options = options_for_y();
  struct import_report *report;
  io_write_text(options.csv_path, "a,b,y,split\n0.1,1,1,train\n0.1,2,2,train\n0.1,3,3,train\n9,4,4,test\n");
  struct dataset *dataset = import_and_open(&options, &report);
  cr_expect(eq(dbl, dataset_std(dataset)[0], 1.0));
  cr_expect(eq(int, report->constant_features, 1));
  cr_expect(eq(str, report->constant_name, "a"));
  dataset_close(&dataset);
  import_report_destroy(&report);
}

FILE_TEST(import_csv, the_output_is_replaced_only_when_forced) {
  struct import_csv_options options = options_for_y();
  struct import_report *report;
  char sentence[400];
  size_t bytes;
  io_write_text(options.csv_path, SMALL);
  io_write_text(options.output_path, "precious");
  options.force = false;
  snprintf(sentence, sizeof sentence, "%s exists already; use --force to replace it", options.output_path);
  cr_expect(eq(int, (int)import_csv(&options, &report), ERR_ARGUMENT));
  cr_expect(eq(str, (char *)status_message(), sentence));
  options.force = true;
  options.targets = (const char *[]){"colour"}; /* fails later: the old file must stay */
  cr_expect(eq(int, (int)import_csv(&options, &report), ERR_FORMAT));
  char *old = io_read(options.output_path, &bytes);
  cr_expect(eq(str, old, "precious"));
  free(old);
  options.targets = only_y;
  cr_expect(eq(int, (int)import_csv(&options, &report), 0));
  import_report_destroy(&report);
}

FILE_TEST(import_csv, an_output_that_cannot_be_written_is_explained_before_reading) {
  struct import_csv_options options = options_for_y();
  struct import_report *report;
  char sentence[600];
  io_write_text(options.csv_path, SMALL);
  options.output_path = io_file("no/table.h5");
  snprintf(sentence, sizeof sentence, "cannot write %s: its folder %s does not exist; create it first",
           options.output_path, io_file("no"));
  cr_expect(eq(int, (int)import_csv(&options, &report), ERR_FILE));
  cr_expect(eq(str, (char *)status_message(), sentence));
  options.output_path = options.csv_path;
  snprintf(sentence, sizeof sentence, "input and output are both %s; give another name for the output",
           options.csv_path);
  cr_expect(eq(int, (int)import_csv(&options, &report), ERR_ARGUMENT));
  cr_expect(eq(str, (char *)status_message(), sentence));
  if (geteuid() == 0)
    return; /* root may write anywhere */
  cr_assert(mkdir(io_file("closed"), 0500) == 0);
  options.output_path = io_file("closed/table.h5");
  snprintf(sentence, sizeof sentence, "cannot write %s: Permission denied; choose a folder you may write to",
           options.output_path);
  cr_expect(eq(int, (int)import_csv(&options, &report), ERR_FILE));
  cr_expect(eq(str, (char *)status_message(), sentence));
}

FILE_TEST(import_csv, a_full_disk_is_one_sentence) {
  struct import_csv_options options = options_for_y();
  struct import_report *report;
  char sentence[400];
  options.split = NULL;
  options.fractions[0] = 1;
  write_numbers(options.csv_path, 30000);
  snprintf(sentence, sizeof sentence,
           "cannot write %s: File too large; free some space or choose another folder (no file was changed)",
           options.output_path);
  const size_t limits[] = {0, 100, 3000, 100000, 389000};
  for (int i = 0; i < 5; i++) {
    io_fill_disk(limits[i]);
    enum status status = import_csv(&options, &report);
    io_empty_disk();
    cr_expect(eq(int, (int)status, ERR_FILE), "%zu bytes", limits[i]);
    cr_expect(eq(str, (char *)status_message(), sentence));
    cr_expect(not(io_exists(options.output_path)));
    cr_expect(not(io_exists(io_file("table.h5.tmp"))));
  }
}

FILE_TEST(import_csv, memory_does_not_grow_with_the_rows) {
  struct import_csv_options options = options_for_y();
  struct import_report *report;
  size_t peak[2];
  options.split = NULL;
  options.fractions[0] = 1;
  for (int i = 0; i < 2; i++) { /* 100 columns: a block of 4 MiB holds 10485 rows */
    size_t before = memory_in_use();
    FILE *stream = fopen(options.csv_path, "w");
    fprintf(stream, "y");
    for (int j = 0; j < 100; j++)
      fprintf(stream, ",x%d", j);
    for (int row = 0; row < 12000 * (1 + 2 * i); row++) {
      fprintf(stream, "\n%d", row);
      for (int j = 0; j < 100; j++)
        fputs(j % 2 == 0 ? ",1" : ",2", stream);
    }
    fclose(stream);
    memory_peak_reset();
    cr_assert(eq(int, (int)import_csv(&options, &report), 0), "%s", status_message());
    peak[i] = memory_peak() - before;
    import_report_destroy(&report);
  }
  cr_expect(eq(sz, peak[0], peak[1]));
}

FILE_TEST(import_csv, a_wrong_byte_in_the_table_never_crashes_its_reader) {
  struct import_csv_options options = options_for_y();
  size_t size;
  io_write_text(options.csv_path, SMALL);
  struct dataset *dataset = import_and_open(&options, NULL);
  dataset_close(&dataset);
  char *data = io_read(options.output_path, &size);
  int refused = 0;
  for (size_t i = 0; i < size; i++) {
    int64_t ids[] = {0, 1, 2, 3, 4};
    double out[5 * 6];
    data[i] = (char)(data[i] ^ (1 << (i % 8)));
    io_write(io_file("broken.h5"), data, size);
    data[i] = (char)(data[i] ^ (1 << (i % 8)));
    refused += dataset_open(io_file("broken.h5"), NULL, F64, &dataset) != STATUS_OK;
    if (dataset != NULL) { /* the structure is guarded by HDF5's checksums, so the shape cannot be wrong */
      cr_assert(eq(i64, dataset_rows(dataset), 5));
      cr_assert(eq(int, dataset_features(dataset), 6));
      (void)dataset_read(dataset, ids, 5, out);
    }
    dataset_close(&dataset);
  }
  cr_expect(refused > (int)size / 4, "%d of %zu wrong bytes were seen", refused, size);
  free(data);
}

static double last_fraction;
static int calls;

static void note_progress(void *context, double fraction, int64_t rows, double rows_per_second) {
  cr_expect(context == &calls);
  cr_expect(fraction >= last_fraction && fraction <= 1, "%g after %g", fraction, last_fraction);
  cr_expect(rows >= 0 && rows_per_second >= 0);
  last_fraction = fraction;
  calls++;
}

FILE_TEST(import_csv, progress_goes_from_0_to_1) {
  for (int missing = 0; missing < 3; missing++) {
    struct import_csv_options options = options_for_y();
    struct import_report *report;
    options.split = NULL;
    options.fractions[0] = 1;
    options.missing = missing;
    options.progress = note_progress;
    options.progress_context = &calls;
    last_fraction = calls = 0;
    write_numbers(options.csv_path, 20000);
    cr_assert(eq(int, (int)import_csv(&options, &report), 0));
    cr_expect(eq(dbl, last_fraction, 1.0));
    cr_expect(calls >= 8);
    import_report_destroy(&report);
  }
}

FILE_TEST(import_csv, histogram_counts_every_training_label_once) {
  struct import_csv_options options = options_for_y();
  struct import_report *report;
  FILE *stream = fopen(options.csv_path, "w");
  fprintf(stream, "x,y,z,split\n");
  for (int i = 0; i < 1000; i++) /* y: whole numbers 1..29, skewed; z: real numbers; the test row must not count */
    fprintf(stream, "%d,%d,%.17g,%s\n", i, i < 971 ? 1 + i % 10 : 1 + i - 971, i < 999 ? i / 7.0 : 1e6,
            i < 999 ? "train" : "test");
  fclose(stream);
  options.targets = (const char *[]){"y", "z"};
  options.target_count = 2;
  cr_assert(eq(int, (int)import_csv(&options, &report), 0), "%s", status_message());
  const struct import_histogram *y = &report->targets[0], *z = &report->targets[1];
  cr_expect(eq(dbl, y->minimum, 1.0));
  cr_expect(eq(dbl, y->maximum, 28.0));
  cr_expect(y->whole && y->width == 2 && y->bins == 14, "whole numbers get bins of equally many numbers");
  cr_expect(eq(i64, y->count[0], 98 + 97 + 2), "1 and 2");
  cr_expect(eq(i64, y->count[13], 2), "27 and 28");
  cr_expect(not(z->whole));
  cr_expect(eq(int, z->bins, 20));
  cr_expect(eq(dbl, z->maximum, 998 / 7.0));
  int64_t sum_y = 0, sum_z = 0;
  for (int bin = 0; bin < IMPORT_MOST_BINS; bin++) {
    sum_y += y->count[bin];
    sum_z += z->count[bin];
  }
  cr_expect(eq(i64, sum_y, 999));
  cr_expect(eq(i64, sum_z, 999));
  import_report_destroy(&report);
}

FILE_TEST(import_csv, the_report_is_printed_with_counts_and_bars) {
  struct import_csv_options options = options_for_y();
  struct import_report *report;
  io_write_text(options.csv_path,
                "a,c,y,split\n1,u,1,train\n1,v,1,train\n1,u,1,train\n1,u,1,train\n1,u,3,train\n2,u,9,val\n");
  cr_assert(eq(int, (int)import_csv(&options, &report), 0), "%s", status_message());
  FILE *stream = fopen(io_file("report"), "w");
  import_report_print(report, stream);
  fclose(stream);
  import_report_destroy(&report);
  char wanted[1000], *text = io_read(io_file("report"), NULL);
  snprintf(wanted, sizeof wanted,
           "%s: 6 rows, 3 features (1 numeric columns, 1 nominal), 1 target\n"
           "  training 5, validation 1, test 0\n"
           "  constant in training: \"a\"\n"
           "\n"
           "target \"y\": 5 training labels, 1 to 3, mean 1.4\n"
           "                    1         4  80.0%%  ##################################################\n"
           "                    2         0   0.0%%  \n"
           "                    3         1  20.0%%  ############\n",
           options.output_path);
  cr_expect(eq(str, text, wanted));
  free(text);
}

FILE_TEST(import_csv, the_abalone_table_of_the_demo_comes_in_whole) {
  struct import_csv_options options = options_for_y();
  struct import_report *report;
  options.csv_path = "tests/data/abalone.csv";
  options.targets = (const char *[]){"Rings"};
  struct dataset *dataset = import_and_open(&options, &report);
  cr_expect(eq(i64, report->rows, 4177));
  cr_expect(eq(i64, report->split_rows[SPLIT_TRAIN], 2506));
  cr_expect(eq(i64, report->split_rows[SPLIT_VAL], 835));
  cr_expect(eq(i64, report->split_rows[SPLIT_TEST], 836));
  cr_expect(eq(int, report->features, 10));
  cr_expect(eq(dbl, dataset_target(dataset)[0], 17.0));
  cr_expect(eq(flt, (float)stored(dataset, 0, 3), 1.347f));
  dataset_close(&dataset);
  import_report_destroy(&report);
}

FILE_TEST(import_csv, thousands_of_long_column_names_are_kept) {
  struct import_csv_options options = options_for_y();
  FILE *stream = fopen(options.csv_path, "w");
  fprintf(stream, "y,split");
  for (int i = 0; i < 3000; i++)
    fprintf(stream, ",a rather long name of a measurement with number %d", i);
  for (int row = 0; row < 3; row++) {
    fprintf(stream, "\n%d,train", row);
    for (int i = 0; i < 3000; i++)
      fprintf(stream, ",%d", row * i);
  }
  fclose(stream);
  struct dataset *dataset = import_and_open(&options, NULL);
  cr_expect(eq(int, dataset_features(dataset), 3000));
  cr_expect(
      eq(str, (char *)dataset_feature_name(dataset, 2999), "a rather long name of a measurement with number 2999"));
  dataset_close(&dataset);
}

FILE_TEST(import_csv, h5py_and_numpy_see_the_same_table) {
  struct import_csv_options options = options_for_y();
  options.csv_path = "tests/data/abalone.csv";
  options.targets = (const char *[]){"Rings"};
  struct dataset *dataset = import_and_open(&options, NULL);
  dataset_close(&dataset);
  io_python("import csv, h5py, numpy as np, sys\n"
            "rows = list(csv.DictReader(open('tests/data/abalone.csv')))\n"
            "with h5py.File(sys.argv[1]) as f:\n"
            "  names = [n.decode() for n in f.attrs['feature_names']]\n"
            "  assert names == [n for n in rows[0] if n not in ('Rings', 'split')]\n"
            "  x = np.array([[float(r[n]) for n in names] for r in rows])\n"
            "  assert f['inputs'].dtype == 'f4' and (f['inputs'][:] == x.astype('f4')).all()\n"
            "  assert (f['targets'][:] == [float(r['Rings']) for r in rows]).all()\n"
            "  s = [{'train': 0, 'val': 1, 'test': 2}[r['split']] for r in rows]\n"
            "  assert (f['split'][:] == s).all()\n"
            "  train = f['inputs'][:][f['split'][:] == 0].astype('f8')\n"
            "  np.testing.assert_allclose(f['standardise/mean'][:], train.mean(0), rtol=1e-13)\n"
            "  np.testing.assert_allclose(f['standardise/std'][:], train.std(0), rtol=1e-13)\n"
            "  assert f.attrs['conr_format'] == b'table' and f.attrs['conr_version'] == 1\n",
            options.output_path);
}
