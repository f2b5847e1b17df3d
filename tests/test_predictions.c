/* Prediction files: CSV and HDF5. */
#include "io/predictions.h"

#include "io/array_file.h"
#include "tests/io_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(predictions, .init = io_files_begin, .fini = io_files_end, .timeout = 60);

static const int64_t ids[] = {7, 0, 123456789012};
static const double labels[] = {1, 2.5, -3, 4, 0, 1e-7};
static const double values[] = {0.1, 1.0 / 3, -2.9, 1e300, 6, 5};

static struct predictions sample(int targets) {
  static const char *const names[] = {"age", "angle, \"x\""};
  return (struct predictions){
      .rows = 3, .targets = targets, .ids = ids, .labels = labels, .values = values, .target_names = names};
}

static void expect_text(const char *path, const char *wanted) {
  char *text = io_read(path, NULL);
  cr_expect(eq(str, text, (char *)wanted));
  free(text);
}

FILE_TEST(predictions, csv_has_a_header_and_a_line_a_sample) {
  struct predictions one = sample(1), two = sample(2);
  cr_assert(eq(int, (int)predictions_write(io_file("p.csv"), &one), 0), "%s", status_message());
  expect_text(io_file("p.csv"), "row,label_age,prediction_age\n"
                                "7,1,0.1\n"
                                "0,2.5,0.3333333333333333\n"
                                "123456789012,-3,-2.9\n");
  cr_assert(eq(int, (int)predictions_write(io_file("p.CSV"), &two), 0));
  expect_text(io_file("p.CSV"),
              "row,label_age,\"label_angle, \"\"x\"\"\",prediction_age,\"prediction_angle, \"\"x\"\"\"\n"
              "7,1,2.5,0.1,0.3333333333333333\n"
              "0,-3,4,-2.9,1e+300\n"
              "123456789012,0,1e-07,6,5\n");
}

FILE_TEST(predictions, csv_without_labels_has_none) {
  struct predictions predictions = sample(1);
  predictions.labels = NULL;
  predictions.rows = 1;
  cr_assert(eq(int, (int)predictions_write(io_file("p.csv"), &predictions), 0));
  expect_text(io_file("p.csv"), "row,prediction_age\n7,0.1\n");
}

FILE_TEST(predictions, hdf5_holds_the_same) {
  const char *const files[] = {"p.h5", "p.hdf5"};
  for (int i = 0; i < 2; i++) {
    struct predictions two = sample(2);
    struct array_file *file;
    const char *text;
    int64_t version = 0;
    cr_assert(eq(int, (int)predictions_write(io_file(files[i]), &two), 0), "%s", status_message());
    cr_assert(eq(int, (int)array_file_read(io_file(files[i]), true, &file), 0), "%s", status_message());
    const struct array *row = array_file_find(file, "row"), *label = array_file_find(file, "labels");
    const struct array *value = array_file_find(file, "predictions");
    cr_assert(row != NULL && label != NULL && value != NULL);
    cr_expect(row->rank == 1 && memcmp(row->data, ids, sizeof ids) == 0);
    cr_expect(label->rank == 2 && label->shape[1] == 2 && memcmp(label->data, labels, sizeof labels) == 0);
    cr_expect(value->rank == 2 && value->shape[0] == 3 && memcmp(value->data, values, sizeof values) == 0);
    cr_assert(eq(int, (int)array_file_text(file, "target_1", &text), 0));
    cr_expect(eq(str, (char *)text, "angle, \"x\""));
    cr_assert(eq(int, (int)array_file_text(file, "conr_format", &text), 0));
    cr_expect(eq(str, (char *)text, "predictions"));
    cr_expect(eq(int, (int)array_file_integer(file, "conr_version", &version), 0));
    cr_expect(eq(i64, version, 1));
    array_file_destroy(&file);
  }
}

FILE_TEST(predictions, no_rows_are_written_too) {
  struct predictions none = sample(1);
  struct array_file *file;
  none.rows = 0;
  cr_assert(eq(int, (int)predictions_write(io_file("p.csv"), &none), 0));
  expect_text(io_file("p.csv"), "row,label_age,prediction_age\n");
  cr_assert(eq(int, (int)predictions_write(io_file("p.h5"), &none), 0), "%s", status_message());
  cr_assert(eq(int, (int)array_file_read(io_file("p.h5"), true, &file), 0), "%s", status_message());
  array_file_destroy(&file);
}

FILE_TEST(predictions, another_ending_is_refused_before_any_work) {
  struct predictions one = sample(1);
  const char *const paths[] = {"p.txt", "p", "csv", ".csv", "h5"};
  for (int i = 0; i < 5; i++) {
    char sentence[300];
    snprintf(sentence, sizeof sentence,
             "cannot tell how to write predictions to %s: its name must end in .h5 or .hdf5 (HDF5) or in .csv (CSV)",
             paths[i]);
    cr_expect(eq(int, (int)predictions_check_path(paths[i]), ERR_ARGUMENT));
    cr_expect(eq(str, (char *)status_message(), sentence));
    cr_expect(eq(int, (int)predictions_write(paths[i], &one), ERR_ARGUMENT));
  }
}

FILE_TEST(predictions, a_full_disk_leaves_the_old_file) {
  static int64_t many_ids[5000];
  static double many[5000];
  struct predictions large = sample(1);
  large.rows = 5000;
  large.ids = many_ids;
  large.labels = large.values = many;
  const char *const files[] = {"p.csv", "p.h5"};
  const size_t limits[] = {0, 10, 4096, 20000};
  for (int i = 0; i < 8; i++) {
    const char *path = io_file(files[i % 2]);
    char sentence[400], aside[300];
    snprintf(sentence, sizeof sentence,
             "cannot write %s: File too large; free some space or choose another folder (no file was changed)", path);
    snprintf(aside, sizeof aside, "%s.tmp", path);
    io_write_text(path, "old");
    io_fill_disk(limits[i / 2]);
    enum status status = predictions_write(path, &large);
    io_empty_disk();
    cr_expect(eq(int, (int)status, ERR_FILE), "%s, %zu bytes", path, limits[i / 2]);
    cr_expect(eq(str, (char *)status_message(), sentence));
    cr_expect(not(io_exists(aside)));
    expect_text(path, "old");
  }
}

FILE_TEST(predictions, h5py_and_csv_agree) {
  struct predictions two = sample(2);
  cr_assert(eq(int, (int)predictions_write(io_file("p.csv"), &two), 0));
  cr_assert(eq(int, (int)predictions_write(io_file("p.h5"), &two), 0));
  io_python("import csv, h5py, sys\n"
            "rows = list(csv.reader(open(sys.argv[1] + '/p.csv', newline='')))\n"
            "assert rows[0][2] == 'label_angle, \"x\"', rows[0]\n"
            "with h5py.File(sys.argv[1] + '/p.h5') as f:\n"
            "  for i, row in enumerate(rows[1:]):\n"
            "    assert int(row[0]) == f['row'][i]\n"
            "    assert [float(v) for v in row[1:3]] == list(f['labels'][i])\n"
            "    assert [float(v) for v in row[3:5]] == list(f['predictions'][i])\n",
            io_file(""));
}
