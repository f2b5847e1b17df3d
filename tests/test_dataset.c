/* Tables in HDF5: what is read, and each way a file can be wrong. */
#define _GNU_SOURCE
#include "io/dataset.h"

#include "dist/memory.h"
#include "tests/io_files.h"
#include "tests/io_table.h"
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(dataset, .init = io_files_begin, .fini = io_files_end, .timeout = 240);

static struct dataset *open_table(const char *path, enum dtype dtype) {
  struct dataset *dataset = NULL;
  cr_assert(eq(int, (int)dataset_open(path, NULL, dtype, &dataset), 0), "%s", status_message());
  return dataset;
}

/* dataset_open fails with this sentence; %s in it stands for the path. */
static void expect_refused(const char *path, enum status wanted, const char *format) {
  struct dataset *dataset;
  char sentence[1000];
  const char *place = strstr(format, "%s");
  snprintf(sentence, sizeof sentence, "%.*s%s%s", (int)(place - format), format, path, place + 2);
  cr_expect(eq(int, (int)dataset_open(path, NULL, F32, &dataset), (int)wanted));
  cr_expect(eq(str, (char *)status_message(), sentence));
  cr_expect(dataset == NULL);
}

/* A fresh table of 12 rows and 3 features to be broken. */
static const char *fresh(bool weights) {
  struct io_table table = io_table_plain(12, 3);
  table.weights = weights;
  io_table_write(&table, io_file("table.h5"));
  return io_file("table.h5");
}

FILE_TEST(dataset, rows_come_standardised_in_the_order_asked_for) {
  struct io_table table = io_table_plain(23, 4);
  io_table_write(&table, io_file("table.h5"));
  struct dataset *dataset = open_table(io_file("table.h5"), F64);
  int64_t ids[] = {5, 6, 7, 22, 0, 0, 6, 5};
  double out[8][4];
  cr_assert(eq(int, (int)dataset_read(dataset, ids, 8, out), 0));
  for (int i = 0; i < 8; i++)
    for (int j = 0; j < 4; j++)
      cr_expect(eq(dbl, out[i][j], (io_table_input(ids[i], j) - io_table_mean(j)) / io_table_std(j)));
  cr_expect(eq(i64, dataset_rows(dataset), 23));
  cr_expect(eq(int, dataset_features(dataset), 4));
  cr_expect(eq(int, (int)dataset_read(dataset, NULL, 0, NULL), 0), "no rows are no mistake");
  int64_t outside[] = {23};
  cr_expect(eq(int, (int)dataset_read(dataset, outside, 1, out), ERR_BUG));
  dataset_close(&dataset);
  cr_expect(dataset == NULL);
  dataset_close(&dataset);
}

FILE_TEST(dataset, without_statistics_inputs_are_used_as_they_are) {
  struct io_table table = io_table_plain(6, 2);
  table.standardise = false;
  io_table_write(&table, io_file("table.h5"));
  struct dataset *dataset = open_table(io_file("table.h5"), F32);
  int64_t ids[] = {4};
  float out[2];
  cr_assert(eq(int, (int)dataset_read(dataset, ids, 1, out), 0));
  cr_expect(eq(flt, out[0], (float)io_table_input(4, 0)));
  cr_expect(eq(flt, out[1], (float)io_table_input(4, 1)));
  cr_expect(dataset_mean(dataset) == NULL);
  dataset_close(&dataset);
}

FILE_TEST(dataset, a_model_may_bring_its_own_standardisation) {
  struct dataset *dataset;
  double mean[] = {1, 2, 3}, std[] = {2, 4, 8}, out[3];
  int64_t ids[] = {9};
  struct standardisation as = {3, mean, std}, raw = {3, NULL, NULL}, other = {4, mean, std};
  struct io_table table = io_table_plain(12, 3);
  for (int chunked = 0; chunked < 2; chunked++) {
    table.chunked = chunked;
    io_table_write(&table, io_file("table.h5"));
    cr_assert(eq(int, (int)dataset_open_as(io_file("table.h5"), NULL, F64, &as, &dataset), 0));
    cr_assert(eq(int, (int)dataset_read(dataset, ids, 1, out), 0));
    for (int j = 0; j < 3; j++)
      cr_expect(eq(dbl, out[j], (io_table_input(9, j) - mean[j]) / std[j]));
    dataset_close(&dataset);
    cr_assert(eq(int, (int)dataset_open_as(io_file("table.h5"), NULL, F64, &raw, &dataset), 0));
    cr_assert(eq(int, (int)dataset_read(dataset, ids, 1, out), 0));
    cr_expect(eq(dbl, out[2], io_table_input(9, 2)));
    dataset_close(&dataset);
    cr_expect(eq(int, (int)dataset_open_as(io_file("table.h5"), NULL, F64, &other, &dataset), ERR_FORMAT));
    char sentence[300];
    snprintf(sentence, sizeof sentence, "%s has 3 features, but the model was trained on 4", io_file("table.h5"));
    cr_expect(eq(str, (char *)status_message(), sentence));
  }
}

/* All rows of a table in some layout, as dtype. */
static void *read_all(const struct io_table *table, enum dtype dtype, uint64_t *hash) {
  io_table_write(table, io_file("layout.h5"));
  struct dataset *dataset = open_table(io_file("layout.h5"), dtype);
  int64_t *ids = malloc((size_t)table->rows * sizeof *ids);
  void *out = malloc((size_t)(table->rows * table->features) * dtype_size(dtype));
  for (int64_t i = 0; i < table->rows; i++)
    ids[i] = table->rows - 1 - i;
  cr_assert(eq(int, (int)dataset_read(dataset, ids, table->rows, out), 0), "%s", status_message());
  *hash = dataset_hash(dataset);
  dataset_close(&dataset);
  free(ids);
  return out;
}

FILE_TEST(dataset, chunked_and_compressed_file_reads_like_contiguous) {
  struct io_table table = io_table_plain(1003, 5);
  for (int dtype = F32; dtype <= F64; dtype++) {
    uint64_t hash, plain_hash;
    table.chunked = table.compressed = false;
    table.input_type = H5T_IEEE_F32LE;
    void *plain = read_all(&table, dtype, &plain_hash);
    size_t bytes = 1003 * 5 * dtype_size(dtype);
    hid_t types[] = {H5T_IEEE_F32LE, H5T_IEEE_F64LE, H5T_IEEE_F32BE, H5T_IEEE_F64BE};
    for (int i = 0; i < 12; i++) {
      table.input_type = types[i % 4];
      table.chunked = i / 4 > 0;
      table.compressed = i / 4 > 1;
      void *other = read_all(&table, dtype, &hash);
      cr_expect(memcmp(plain, other, bytes) == 0, "type %d, layout %d differ", i % 4, i / 4);
      cr_expect(hash == plain_hash, "the hash depends on the layout");
      free(other);
    }
    free(plain);
  }
}

FILE_TEST(dataset, integers_are_inputs_too) {
  struct io_table table = io_table_plain(40, 3);
  uint64_t hash;
  table.input_type = H5T_STD_I16LE;
  table.standardise = false;
  float *values = read_all(&table, F32, &hash);
  for (int i = 0; i < 40; i++)
    for (int j = 0; j < 3; j++)
      cr_expect(eq(flt, values[i * 3 + j], truncf((float)io_table_input(39 - i, j))));
  free(values);
}

FILE_TEST(dataset, standardising_large_values_loses_nothing) {
  const char *path = fresh(false);
  hsize_t shape[2] = {12, 3};
  io_table_replace(path, "inputs", H5T_IEEE_F64LE, 2, shape);
  for (int i = 0; i < 36; i++)
    io_table_put(path, "inputs", i, 1.6e9 + 0.5 * i); /* seconds: float32 would know them to 128 */
  io_table_put(path, "standardise/mean", 0, 1.6e9);
  io_table_put(path, "standardise/std", 0, 1);
  struct dataset *dataset = open_table(path, F32);
  int64_t ids[] = {11};
  float out[3];
  cr_assert(eq(int, (int)dataset_read(dataset, ids, 1, out), 0));
  cr_expect(eq(flt, out[0], 16.5f));
  dataset_close(&dataset);
}

FILE_TEST(dataset, labels_weights_splits_and_names_come_back) {
  struct io_table table = io_table_plain(12, 3);
  table.targets = 2;
  table.weights = table.names = true;
  io_table_write(&table, io_file("table.h5"));
  io_table_attribute(io_file("table.h5"), "source", "somewhere.csv");
  struct dataset *dataset = open_table(io_file("table.h5"), F32);
  cr_expect(eq(int, dataset_targets(dataset), 2));
  cr_expect(dataset_has_weights(dataset));
  for (int i = 0; i < 12; i++) {
    cr_expect(eq(dbl, dataset_target(dataset)[2 * i], i + 0.25));
    cr_expect(eq(dbl, dataset_target(dataset)[2 * i + 1], i + 10.25));
    cr_expect(eq(dbl, dataset_weight(dataset)[i], 1 + i % 3));
  }
  int64_t wanted[] = {0, 1, 2, 5, 6, 7, 10, 11, 3, 8, 4, 9};
  cr_expect(eq(i64, dataset_split_rows(dataset, SPLIT_TRAIN), 8));
  cr_expect(eq(i64, dataset_split_rows(dataset, SPLIT_VAL), 2));
  cr_expect(eq(i64, dataset_split_rows(dataset, SPLIT_TEST), 2));
  for (int i = 0; i < 12; i++)
    cr_expect(eq(i64,
                 dataset_split_ids(dataset, i < 8    ? SPLIT_TRAIN
                                            : i < 10 ? SPLIT_VAL
                                                     : SPLIT_TEST)[i < 8    ? i
                                                                   : i < 10 ? i - 8
                                                                            : i - 10],
                 wanted[i]));
  cr_expect(eq(str, (char *)dataset_feature_name(dataset, 2), "feature 3"));
  cr_expect(eq(str, (char *)dataset_target_name(dataset, 1), "target 2"));
  cr_expect(eq(str, (char *)dataset_source(dataset), "somewhere.csv"));
  dataset_close(&dataset);
}

FILE_TEST(dataset, a_file_that_names_nothing_gets_plain_names) {
  struct dataset *dataset = open_table(fresh(false), F32);
  cr_expect(eq(str, (char *)dataset_feature_name(dataset, 2), "feature2"));
  cr_expect(eq(str, (char *)dataset_target_name(dataset, 0), "target"));
  cr_expect(eq(str, (char *)dataset_source(dataset), ""));
  cr_expect(not(dataset_has_weights(dataset)));
  cr_expect(dataset_weight(dataset) == NULL);
  dataset_close(&dataset);
}

static uint64_t hash_of(const char *path) {
  struct dataset *dataset = open_table(path, F32);
  uint64_t hash = dataset_hash(dataset);
  dataset_close(&dataset);
  return hash;
}

FILE_TEST(dataset, hash_changes_with_every_label_weight_split_and_statistic) {
  const char *path = fresh(true);
  uint64_t hash = hash_of(path);
  cr_expect(hash_of(path) == hash);
  const char *const names[] = {"targets", "weights", "split", "standardise/mean", "standardise/std"};
  for (int i = 0; i < 5; i++) {
    io_table_put(path, names[i], 2, 2);
    uint64_t changed = hash_of(path);
    cr_expect(changed != hash, "a change of %s was not seen", names[i]);
    hash = changed;
  }
}

FILE_TEST(dataset, files_that_are_no_tables_are_told_apart) {
  expect_refused(io_file("no.h5"), ERR_FILE, "cannot open %s: No such file or directory; check the path");
  expect_refused(io_file(""), ERR_FILE, "cannot open %s: it is a directory; give an HDF5 file");
  expect_refused("/dev/null", ERR_FILE, "cannot open %s: it is not a regular file");
  io_write(io_file("empty.h5"), "", 0);
  expect_refused(io_file("empty.h5"), ERR_FORMAT,
                 "%s is empty (0 bytes); it was never written to the end, make it again");
  static unsigned char noise[70000];
  for (size_t i = 0; i < sizeof noise; i++)
    noise[i] = (unsigned char)(i * i * 31 >> 3);
  io_write(io_file("noise.h5"), noise, sizeof noise);
  expect_refused(io_file("noise.h5"), ERR_FORMAT,
                 "%s is not an HDF5 file, or it is damaged or cut short; make it again");
}

FILE_TEST(dataset, a_file_cut_short_is_refused_at_any_length) {
  size_t size;
  char *data = io_read(fresh(false), &size);
  for (size_t length = 1; length < size; length += length < 100 ? 1 : 61) {
    io_write(io_file("cut.h5"), data, length);
    expect_refused(io_file("cut.h5"), ERR_FORMAT,
                   "%s is not an HDF5 file, or it is damaged or cut short; make it again");
  }
  free(data);
}

/* Open and read what there is; any outcome but a crash will do. */
static void try_to_read(const char *path) {
  struct dataset *dataset;
  float out[12 * 3];
  int64_t ids[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  if (dataset_open(path, NULL, F32, &dataset) != STATUS_OK) {
    cr_expect(ne(str, (char *)status_message(), ""));
    return;
  }
  if (dataset_rows(dataset) == 12 && dataset_features(dataset) == 3)
    (void)dataset_read(dataset, ids, 12, out);
  dataset_close(&dataset);
}

/* A file of the oldest format, which has no checksums and chunks to mislead a reader; compressed when asked. */
static void break_each_byte(bool compressed) {
  size_t size;
#ifdef __SANITIZE_ADDRESS__
  io_files_end();
  cr_skip("HDF5 1.10 itself reads a little past its memory in damaged files of the oldest format");
#endif
  struct io_table table = io_table_plain(12, 3);
  table.chunked = table.names = table.weights = true;
  table.compressed = compressed;
  io_table_write(&table, io_file("table.h5"));
  char *data = io_read(io_file("table.h5"), &size);
  for (size_t i = 0; i < size; i++) {
    char kept = data[i];
    data[i] = (char)(kept ^ (1 << (i % 8)));
    io_write(io_file("broken.h5"), data, size);
    data[i] = kept;
    try_to_read(io_file("broken.h5"));
  }
  free(data);
}

FILE_TEST(dataset, a_wrong_byte_anywhere_never_crashes_or_hangs) {
  break_each_byte(false);
}

FILE_TEST(dataset, a_wrong_byte_anywhere_in_a_compressed_file_never_crashes_or_hangs) {
  break_each_byte(true);
}

FILE_TEST(dataset, each_dataset_must_be_there) {
  const char *const names[] = {"inputs", "targets", "split"};
  for (int i = 0; i < 3; i++) {
    char format[200];
    io_table_remove(fresh(false), names[i]);
    snprintf(format, sizeof format, "%%s has no dataset \"%s\"; a table needs \"inputs\", \"targets\" and \"split\"",
             names[i]);
    expect_refused(io_file("table.h5"), ERR_FORMAT, format);
  }
}

FILE_TEST(dataset, counts_must_agree) {
  hsize_t eleven = 11, none[2] = {0, 3}, narrow[2] = {12, 0};
  io_table_replace(fresh(false), "targets", H5T_IEEE_F64LE, 1, &eleven);
  expect_refused(io_file("table.h5"), ERR_FORMAT,
                 "\"targets\" has 11 rows but \"inputs\" has 12 in %s; each sample needs one row in both");
  io_table_replace(fresh(false), "split", H5T_STD_U8LE, 1, &eleven);
  expect_refused(io_file("table.h5"), ERR_FORMAT,
                 "\"split\" has 11 rows but \"inputs\" has 12 in %s; each sample needs one row in both");
  io_table_replace(fresh(true), "weights", H5T_IEEE_F64LE, 1, &eleven);
  expect_refused(io_file("table.h5"), ERR_FORMAT,
                 "\"weights\" has 11 rows but \"inputs\" has 12 in %s; each sample needs one row in both");
  io_table_replace(fresh(false), "inputs", H5T_IEEE_F32LE, 2, none);
  expect_refused(io_file("table.h5"), ERR_FORMAT, "\"inputs\" in %s has no rows");
  io_table_replace(fresh(false), "inputs", H5T_IEEE_F32LE, 2, narrow);
  expect_refused(io_file("table.h5"), ERR_FORMAT, "\"inputs\" in %s has 0 features; it must have 1 to 268435455");
}

FILE_TEST(dataset, ranks_and_types_must_fit) {
  hsize_t shape[5] = {12, 3, 1, 1, 1};
  io_table_replace(fresh(false), "inputs", H5T_IEEE_F32LE, 1, shape);
  expect_refused(io_file("table.h5"), ERR_FORMAT, "\"inputs\" in %s has 1 dimension; it must be [rows, features]");
  io_table_replace(fresh(false), "inputs", H5T_IEEE_F32LE, 5, shape);
  expect_refused(io_file("table.h5"), ERR_FORMAT, "\"inputs\" in %s has 5 dimensions; at most 4 are understood");
  io_table_replace(fresh(false), "targets", H5T_IEEE_F32LE, 3, shape);
  expect_refused(io_file("table.h5"), ERR_FORMAT,
                 "\"targets\" in %s has 3 dimensions; it must be [rows] or [rows, targets]");
  io_table_replace(fresh(false), "split", H5T_STD_U8LE, 2, shape);
  expect_refused(io_file("table.h5"), ERR_FORMAT, "\"split\" in %s has 2 dimensions; it must be [rows]");
  io_table_replace(fresh(false), "split", H5T_IEEE_F32LE, 1, shape);
  expect_refused(io_file("table.h5"), ERR_FORMAT,
                 "\"split\" in %s holds floating-point numbers; it must hold the integers 0 (train), 1 (validation), 2 "
                 "(test)");
  io_table_replace(fresh(false), "targets", H5T_C_S1, 1, shape);
  expect_refused(io_file("table.h5"), ERR_FORMAT, "\"targets\" in %s holds text; it must hold numbers");
  io_table_replace(fresh(false), "standardise/std", H5T_IEEE_F64LE, 1, shape);
  expect_refused(io_file("table.h5"), ERR_FORMAT, "\"standardise/std\" in %s must be [features], here 3 numbers");
}

FILE_TEST(dataset, values_that_cannot_be_used_are_named_with_their_row) {
  io_table_put(fresh(false), "targets", 5, NAN);
  expect_refused(io_file("table.h5"), ERR_FORMAT, "\"targets\" in %s is nan at row 5; every target must be finite");
  struct io_table two = io_table_plain(12, 3);
  two.targets = 2;
  io_table_write(&two, io_file("table.h5"));
  io_table_put(io_file("table.h5"), "targets", 11, INFINITY);
  expect_refused(io_file("table.h5"), ERR_FORMAT,
                 "\"targets\" in %s is inf at row 5, column 1; every target must be finite");
  io_table_put(fresh(true), "weights", 3, -1);
  expect_refused(io_file("table.h5"), ERR_FORMAT,
                 "\"weights\" in %s is -1 at row 3; a weight must be finite and not negative");
  io_table_put(fresh(true), "weights", 0, INFINITY);
  expect_refused(io_file("table.h5"), ERR_FORMAT,
                 "\"weights\" in %s is inf at row 0; a weight must be finite and not negative");
  io_table_put(fresh(false), "split", 11, 3);
  expect_refused(io_file("table.h5"), ERR_FORMAT,
                 "\"split\" in %s is 3 at row 11; it must be 0 (train), 1 (validation) or 2 (test)");
  io_table_put(fresh(false), "standardise/std", 1, 0);
  expect_refused(io_file("table.h5"), ERR_FORMAT,
                 "\"standardise/std\" in %s is 0 for feature 1; it must be finite and above 0");
  io_table_put(fresh(false), "standardise/mean", 2, NAN);
  expect_refused(io_file("table.h5"), ERR_FORMAT, "\"standardise/mean\" in %s is nan for feature 2; it must be finite");
  io_table_remove(fresh(false), "standardise/mean");
  expect_refused(io_file("table.h5"), ERR_FORMAT,
                 "%s has \"standardise/std\" but no \"standardise/mean\"; give both or neither");
}

FILE_TEST(dataset, files_of_another_kind_are_refused) {
  io_table_attribute(fresh(false), "conr_format", "predictions");
  expect_refused(io_file("table.h5"), ERR_FORMAT,
                 "%s is a conr \"predictions\" file, not a dataset; make one with conr import");
  io_table_attribute(fresh(false), "conr_format", "table");
  struct dataset *dataset = open_table(io_file("table.h5"), F32);
  dataset_close(&dataset);
}

FILE_TEST(dataset, an_input_that_is_not_finite_is_named_when_its_row_is_read) {
  struct io_table table = io_table_plain(12, 3);
  for (int chunked = 0; chunked < 2; chunked++) {
    char sentence[400];
    float out[6];
    int64_t good[] = {6, 8}, bad[] = {6, 7};
    table.chunked = chunked;
    io_table_write(&table, io_file("table.h5"));
    io_table_put(io_file("table.h5"), "inputs", 7 * 3 + 2, -INFINITY);
    struct dataset *dataset = open_table(io_file("table.h5"), F32);
    cr_expect(eq(int, (int)dataset_read(dataset, good, 2, out), 0));
    cr_expect(eq(int, (int)dataset_read(dataset, bad, 2, out), ERR_FORMAT));
    snprintf(sentence, sizeof sentence,
             "\"inputs\" in %s is -inf at row 7, feature \"feature2\"; mend or remove the row", io_file("table.h5"));
    cr_expect(eq(str, (char *)status_message(), sentence));
    dataset_close(&dataset);
  }
}

FILE_TEST(dataset, a_file_cut_while_in_use_is_an_error_not_a_crash) {
  struct io_table table = io_table_plain(5000, 8);
  float out[8];
  io_table_write(&table, io_file("table.h5"));
  struct dataset *dataset = open_table(io_file("table.h5"), F32);
  cr_assert(truncate(io_file("table.h5"), 4096) == 0);
  int64_t ids[] = {4999};
  cr_expect(eq(int, (int)dataset_read(dataset, ids, 1, out), ERR_FILE));
  char begin[300];
  snprintf(begin, sizeof begin, "%s was cut short while it was in use: byte ", io_file("table.h5"));
  cr_expect(strncmp(status_message(), begin, strlen(begin)) == 0, "%s", status_message());
  dataset_close(&dataset);
}

FILE_TEST(dataset, an_absurd_claim_is_refused_before_memory_is_asked_for) {
  hsize_t shape[2] = {1ull << 40, 3}, chunk[2] = {1000, 3};
  hid_t file = H5Fopen(fresh(false), H5F_ACC_RDWR, H5P_DEFAULT);
  hid_t space = H5Screate_simple(2, shape, NULL), creation = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_chunk(creation, 2, chunk);
  H5Ldelete(file, "inputs", H5P_DEFAULT);
  H5Dclose(H5Dcreate2(file, "inputs", H5T_IEEE_F32LE, space, H5P_DEFAULT, creation, H5P_DEFAULT));
  H5Pclose(creation);
  H5Sclose(space);
  H5Fclose(file);
  expect_refused(io_file("table.h5"), ERR_FORMAT,
                 "\"inputs\" in %s claims 13194139533312 bytes but stores 0; it is damaged or was never filled");
}

FILE_TEST(dataset, a_split_without_rows_or_weight_is_refused_for_its_purpose) {
  char sentence[400];
  const char *path = fresh(true);
  for (int i = 0; i < 12; i++)
    io_table_put(path, "split", i, i < 6 ? 0 : 2);
  for (int i = 0; i < 6; i++)
    io_table_put(path, "weights", i, 0);
  struct dataset *dataset = open_table(path, F32);
  cr_expect(eq(int, (int)dataset_require_split(dataset, SPLIT_TEST, "the final figures"), 0));
  cr_expect(eq(int, (int)dataset_require_split(dataset, SPLIT_VAL, "early stopping"), ERR_FORMAT));
  snprintf(sentence, sizeof sentence,
           "%s has no validation rows, needed for early stopping; set \"split\" to 1 for some", path);
  cr_expect(eq(str, (char *)status_message(), sentence));
  cr_expect(eq(int, (int)dataset_require_split(dataset, SPLIT_TRAIN, "training"), ERR_FORMAT));
  snprintf(sentence, sizeof sentence, "all 6 training rows of %s have weight 0, so nothing is left for training", path);
  cr_expect(eq(str, (char *)status_message(), sentence));
  dataset_close(&dataset);
}

FILE_TEST(dataset, a_constant_training_target_is_refused) {
  char sentence[400];
  const char *path = fresh(false);
  struct dataset *dataset = open_table(path, F32);
  cr_expect(eq(int, (int)dataset_require_varied_targets(dataset), 0));
  dataset_close(&dataset);
  for (int i = 0; i < 12; i++)
    if (i % 5 < 3) /* the training rows; the others still vary */
      io_table_put(path, "targets", i, 7.5);
  dataset = open_table(path, F32);
  cr_expect(eq(int, (int)dataset_require_varied_targets(dataset), ERR_FORMAT));
  snprintf(sentence, sizeof sentence,
           "target \"target\" is 7.5 in all 8 training rows of %s; there is nothing to learn from a constant target",
           path);
  cr_expect(eq(str, (char *)status_message(), sentence));
  dataset_close(&dataset);
}

FILE_TEST(dataset, two_processes_read_one_file_at_once) {
  const char *path = fresh(false);
  int go[2], status;
  char byte = 0;
  cr_assert(pipe(go) == 0);
  struct dataset *dataset = open_table(path, F32);
  pid_t child = fork();
  if (child == 0) { /* opens while the parent has it open, and reads after the parent has */
    struct dataset *other;
    float out[3];
    int64_t ids[] = {3};
    bool fine = dataset_open(path, NULL, F32, &other) == STATUS_OK && read(go[0], &byte, 1) == 1 &&
                dataset_read(other, ids, 1, out) == STATUS_OK;
    _exit(fine ? 0 : 1);
  }
  float out[3];
  int64_t ids[] = {2};
  cr_expect(eq(int, (int)dataset_read(dataset, ids, 1, out), 0));
  cr_expect(write(go[1], &byte, 1) == 1);
  cr_assert(waitpid(child, &status, 0) == child);
  cr_expect(eq(int, status, 0), "the other process could not read");
  dataset_close(&dataset);
}

FILE_TEST(dataset, a_file_that_is_being_written_is_refused) {
  const char *path = fresh(false);
  int writer = open(path, O_RDWR);
  cr_assert(flock(writer, LOCK_EX) == 0); /* what HDF5 does when it opens for writing */
  expect_refused(path, ERR_FILE, "cannot open %s: another program is writing it; wait until it has closed the file");
  close(writer);
}

FILE_TEST(dataset, tables_made_with_h5py_are_read) {
  io_python("import h5py, numpy as np, sys\n"
            "i, j = np.mgrid[0:20, 0:3]\n"
            "x = (i * 0.5 - j).astype('f4')\n"
            "def make(name, libver='earliest', block=0, **kw):\n"
            "  with h5py.File(sys.argv[1] + '/' + name, 'w', libver=(libver, 'v110'), userblock_size=block) as f:\n"
            "    f.create_dataset('inputs', data=x, **kw)\n"
            "    f['targets'] = np.arange(20)\n"
            "    f['split'] = np.arange(20, dtype='i8') % 3\n"
            "    f['standardise/mean'] = [0.0, 1, 2]\n"
            "    f['standardise/std'] = np.array([1, 2, 4], 'f4')\n"
            "    f.attrs['feature_names'] = ['length', 'breite \\u00e4', '']\n"
            "    f.attrs['target_names'] = np.array(['age'], dtype='S')\n"
            "    f.attrs['source'] = 'h5py'\n"
            "make('0.h5')\n"
            "make('1.h5', chunks=(7, 2), compression='gzip', shuffle=True, fletcher32=True)\n"
            "make('2.h5', libver='v110', chunks=(20, 3), maxshape=(None, 3))\n"
            "make('3.h5', block=1024)\n"
            "make('4.h5', libver='v110')\n",
            io_file(""));
  for (int i = 0; i < 5; i++) {
    char name[16];
    snprintf(name, sizeof name, "%d.h5", i);
    struct dataset *dataset = open_table(io_file(name), F32);
    float out[2][3];
    int64_t ids[] = {19, 4};
    cr_assert(eq(int, (int)dataset_read(dataset, ids, 2, out), 0), "%s", status_message());
    for (int row = 0; row < 2; row++)
      for (int j = 0; j < 3; j++)
        cr_expect(eq(flt, out[row][j], (0.5f * (float)ids[row] - (float)j - (float)j) / (float)(1 << j)), "file %d", i);
    cr_expect(eq(dbl, dataset_target(dataset)[19], 19.0));
    cr_expect(eq(i64, dataset_split_rows(dataset, SPLIT_TEST), 6));
    cr_expect(eq(str, (char *)dataset_feature_name(dataset, 1), "breite \xC3\xA4"));
    cr_expect(eq(str, (char *)dataset_feature_name(dataset, 2), ""));
    cr_expect(eq(str, (char *)dataset_target_name(dataset, 0), "age"));
    cr_expect(eq(str, (char *)dataset_source(dataset), "h5py"));
    dataset_close(&dataset);
  }
}

FILE_TEST(dataset, ranks_share_one_copy_and_fail_together) {
  for (int ranks = 1; ranks <= 3; ranks++) {
    struct run_result run;
    const char *const arguments[] = {io_file(""), NULL};
    cr_assert(eq(int, run_ranks(ranks, "rank_dataset", arguments, &run), 0), "%d ranks: %s", ranks, run.output);
    run_result_free(&run);
  }
}
