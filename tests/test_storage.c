/* Requests to storage: in pieces that are counted, and no error of theirs is lost.  The calls that make things durable are
 * these here, in place of the C library's. */
#define _GNU_SOURCE /* sync_file_range */
#include "io/storage.h"

#include "dist/pulse.h"
#include "io/checksum.h"
#include "io/h5.h"
#include "io/metrics_log.h"
#include "io_files.h"
#include "launch/run_folder.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int unknown, failure, at_piece, interruptions; /* errors of the call; the failure shows once, as the kernel's */
static int pieces, syncs, data_syncs;

int sync_file_range(int file, off64_t from, off64_t bytes, unsigned flags) {
  (void)file, (void)from, (void)bytes;
  errno = unknown != 0 ? unknown : pieces == at_piece && flags != 0 ? failure : 0;
  if (errno == 0 && flags != 0 && interruptions > 0) {
    interruptions--;
    errno = EINTR;
  } else if (errno == 0 && flags != 0) {
    pieces++;
  } else if (flags != 0 && unknown == 0) {
    failure = 0;
  }
  return errno == 0 ? 0 : -1;
}

int fsync(int file) {
  (void)file;
  syncs++;
  errno = failure;
  failure = 0;
  return errno == 0 ? 0 : -1;
}

int fdatasync(int file) {
  data_syncs++;
  return fsync(file);
}

TestSuite(storage, .init = io_files_begin, .fini = io_files_end);

static int file_of(off_t bytes) {
  int file = open(io_file("f"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  cr_assert(file >= 0 && ftruncate(file, bytes) == 0);
  return file;
}

/* Requests since `before`; none is left open. */
static uint64_t asked_since(struct pulse before) {
  struct pulse now = pulse_read();
  cr_expect(eq(u64, now.asked - before.asked, now.answered - before.answered));
  return now.asked - before.asked;
}

Test(storage, is_asked_for_a_piece_at_a_time) {
  static char block[STORAGE_PIECE * 2 + 100];
  int file = file_of((off_t)(STORAGE_PIECE * 3));
  struct pulse before = pulse_read();
  cr_expect(eq(int, storage_write(file, block, sizeof block, 5), 0));
  cr_expect(eq(u64, asked_since(before), 3));
  before = pulse_read();
  cr_expect(eq(i64, storage_read(file, block, sizeof block, 0), (int64_t)sizeof block));
  cr_expect(eq(u64, asked_since(before), 3));
  /* Up to the end, and no further. */
  before = pulse_read();
  cr_expect(eq(i64, storage_read(file, block, sizeof block, (int64_t)STORAGE_PIECE * 3 - 10), 10));
  cr_expect(eq(u64, asked_since(before), 2));
  cr_expect(eq(i64, storage_read(-1, block, 1, 0), -1));
  cr_expect(eq(int, storage_write(-1, block, 1, 0), EBADF));
  asked_since(before);
  close(file);
}

Test(storage, whatever_is_asked_is_counted_as_answered) {
  struct pulse before = pulse_read();
  int file = storage_open(io_file("g"), O_RDWR | O_CREAT);
  cr_assert(file >= 0);
  cr_expect(eq(int, fcntl(file, F_GETFD), FD_CLOEXEC));
  cr_expect(storage_has(io_file("g")));
  cr_expect(eq(int, storage_truncate(file, 10), 0));
  cr_expect(eq(int, storage_rename(io_file("g"), io_file("h")), 0));
  cr_expect(eq(int, storage_remove(io_file("h")), 0));
  cr_expect(eq(u64, asked_since(before), 5));
  cr_expect(eq(int, storage_open(io_file("h"), O_RDONLY), -1));
  cr_expect(not(storage_has(io_file("h"))));
  cr_expect(eq(int, storage_truncate(-1, 10), EBADF));
  cr_expect(eq(int, storage_rename(io_file("g"), io_file("h")), ENOENT));
  cr_expect(eq(int, storage_remove(io_file("h")), ENOENT));
  cr_expect(eq(u64, asked_since(before), 10));
  close(file);
}

static void expect_asked(struct pulse *before, enum status status, const char *call) {
  cr_assert(status == STATUS_OK, "%s: %s", call, status_message());
  cr_expect(ne(u64, asked_since(*before), 0), "%s", call);
  *before = pulse_read();
}

/* Where a run begins nothing else would tell of a stall: no collective waits for a job of one rank. */
Test(storage, is_asked_for_all_that_a_run_begins_with) {
  struct metrics_log *log;
  struct file_sum sum;
  struct pulse before = pulse_read();
  char folder[PATH_MAX], metrics[PATH_MAX];
  snprintf(folder, sizeof folder, "%s", io_file("run"));
  run_path(folder, RUN_METRICS, metrics);
  expect_asked(&before, run_folder_make(folder), "run_folder_make()");
  expect_asked(&before, run_folder_clear(folder), "run_folder_clear()");
  expect_asked(&before, metrics_log_open(metrics, &log), "metrics_log_open()");
  expect_asked(&before, metrics_log_write(log, metric_text("event", "epoch"), metric_integer("step", 3)),
               "metrics_log_write()");
  metrics_log_close(&log);
  expect_asked(&before, metrics_log_resume(metrics, 3), "metrics_log_resume()");
  expect_asked(&before, checksum_file(metrics, &sum), "checksum_file()");
  cr_expect(not(run_folder_has_checkpoint(folder)));
  cr_expect(ne(u64, asked_since(before), 0), "is there a checkpoint?");
}

enum { ROWS = 1 << 18, COLUMNS = 63 };

/* [ROWS, COLUMNS], each column a chunk that has to be decompressed. */
static uint8_t *write_columns(const char *path) {
  hsize_t shape[] = {ROWS, COLUMNS}, chunk[] = {ROWS, 1};
  uint8_t *values = malloc((size_t)ROWS * COLUMNS);
  for (int i = 0; i < ROWS * COLUMNS; i++)
    values[i] = (uint8_t)(i % 61 + i / ROWS);
  hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  hid_t space = H5Screate_simple(2, shape, NULL), creation = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_chunk(creation, 2, chunk);
  H5Pset_deflate(creation, 1);
  hid_t dataset = H5Dcreate2(file, "x", H5T_STD_U8LE, space, H5P_DEFAULT, creation, H5P_DEFAULT);
  cr_assert(H5Dwrite(dataset, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
  H5Dclose(dataset);
  H5Pclose(creation);
  H5Sclose(space);
  H5Fclose(file);
  return values;
}

/* All columns of the rows of a chunk may be gigabytes: what a request takes is bounded by columns, too. */
Test(storage, is_asked_for_a_few_columns_where_these_lie_apart) {
  const char *path = io_file("columns.h5");
  uint8_t *values = write_columns(path), *found = calloc(ROWS, COLUMNS);
  struct h5_file *file;
  struct h5_dataset dataset;
  cr_assert(h5_open(path, &file) == STATUS_OK && h5_dataset_open(file, "x", &dataset) == STATUS_OK);
  struct pulse before = pulse_read();
  cr_assert(h5_dataset_read(&dataset, 0, ROWS, ARRAY_U8, found) == STATUS_OK, "%s", status_message());
  cr_expect(eq(u64, asked_since(before), (COLUMNS + 3) / 4)); /* as doubles, four columns are 8 MiB */
  cr_expect(memcmp(found, values, (size_t)ROWS * COLUMNS) == 0);
  before = pulse_read();
  cr_assert(h5_dataset_read(&dataset, 1000, 100, ARRAY_U8, found) == STATUS_OK, "%s", status_message());
  cr_expect(eq(u64, asked_since(before), 1));
  cr_expect(memcmp(found, values + 1000 * COLUMNS, 100 * (size_t)COLUMNS) == 0);
  h5_dataset_close(&dataset);
  cr_expect(h5_close(&file) == STATUS_OK);
  free(found);
  free(values);
}

/* 100 MiB are four pieces of 32, the last of them not whole. */
Test(storage, is_made_durable_a_piece_at_a_time) {
  int file = file_of((off_t)100 << 20);
  struct pulse before = pulse_read();
  at_piece = -1;
  interruptions = 2;
  cr_expect(eq(int, storage_sync(file, 0), 0));
  cr_expect(eq(int, pieces, 4));
  cr_expect(eq(int, syncs, 1));
  cr_expect(eq(u64, asked_since(before), 4 + 2 + 1));
  pieces = 0;
  cr_expect(eq(int, storage_sync(file, (int64_t)96 << 20), 0));
  cr_expect(eq(int, pieces, 1));
  cr_expect(eq(int, data_syncs, 0));
  cr_expect(eq(int, storage_sync_data(file, (int64_t)96 << 20), 0));
  cr_expect(eq(int, pieces, 2));
  cr_expect(eq(int, data_syncs, 1));
  close(file);
}

/* The kernel tells each descriptor once: what a piece hears of, fsync() does not. */
Test(storage, an_error_of_a_piece_is_one_of_the_whole) {
  static const int errors[] = {EIO, ENOSPC, ENODATA, ETIMEDOUT, EROFS, EINVAL, EOPNOTSUPP};
  int file = file_of((off_t)100 << 20);
  struct pulse before = pulse_read();
  at_piece = 2;
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
    pieces = 0;
    failure = errors[i];
    cr_expect(eq(int, storage_sync(file, 0), errors[i]));
  }
  asked_since(before);
  close(file);
}

Test(storage, where_pieces_are_unknown_all_is_made_durable_at_once) {
  static const int errors[] = {ENOSYS, EPERM, EINVAL};
  int file = file_of((off_t)100 << 20);
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
    unknown = errors[i];
    syncs = failure = 0;
    cr_expect(eq(int, storage_sync(file, 0), 0));
    cr_expect(eq(int, syncs, 1));
    failure = ENODATA;
    cr_expect(eq(int, storage_sync(file, 0), ENODATA));
  }
  close(file);
}
