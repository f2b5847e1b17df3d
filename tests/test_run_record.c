/* What a run folder says of its run, whole, resumed and damaged. */
#include "launch/run_record.h"

#include "io_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

TestSuite(run_record, .init = io_files_begin, .fini = io_files_end, .timeout = 30);

/* A run folder with these files; NULL: it lacks the file. */
static struct run_record *read_run(const char *config, const char *metrics) {
  char folder[4096], path[4200];
  struct run_record *record;
  snprintf(folder, sizeof folder, "%s", io_file("run"));
  mkdir(folder, 0755);
  snprintf(path, sizeof path, "%s/config.used", folder);
  if (config != NULL)
    io_write_text(path, config);
  snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
  if (metrics != NULL)
    io_write_text(path, metrics);
  cr_assert(eq(int, run_record_read(folder, &record), STATUS_OK), "%s", status_message());
  return record;
}

FILE_TEST(run_record, config_used_tells_data_origin_and_options) {
  struct run_record *record =
      read_run("# conr 0.1.0, commit abc, 2026-01-31T12:00:00Z\n# 4 ranks on n1,n2, 2 threads each\n"
               "# data odd, hash of/a = b.h5, hash 0123456789abcdef\nlr = 0.01\nhidden = \n",
               "");
  cr_expect(eq(str, record->made_by, "conr 0.1.0, commit abc, 2026-01-31T12:00:00Z"));
  cr_expect(eq(str, record->ranks, "4 ranks on n1,n2, 2 threads each"));
  cr_expect(eq(str, record->data, "odd, hash of/a = b.h5"));
  cr_expect(eq(str, record->hash, "0123456789abcdef"));
  cr_expect(eq(str, (char *)run_record_option(record, "lr"), "0.01"));
  cr_expect(eq(str, (char *)run_record_option(record, "hidden"), ""));
  cr_expect(run_record_option(record, "momentum") == NULL);
  run_record_destroy(&record);
}

FILE_TEST(run_record, epochs_come_back_with_their_numbers_and_null_is_a_gap) {
  struct run_record *record = read_run(
      NULL, "{\"event\":\"step\",\"epoch\":0,\"step\":0,\"loss\":9}\n"
            "{\"event\":\"epoch\",\"epoch\":0,\"train_loss\":0.10000000000000001,\"val_mae\":null,\"time_forward\":2}\n"
            "{\"event\":\"epoch\",\"epoch\":1,\"train_loss\":5,\"val_mae\":0.25,\"samples_per_second\":1e3}\n");
  cr_assert(eq(i64, record->epochs, 2));
  cr_expect(eq(dbl, record->epoch[0][CURVE_EPOCH], 1));
  cr_expect(eq(dbl, record->epoch[0][CURVE_TRAIN_LOSS], 0.1));
  cr_expect(isnan(record->epoch[0][CURVE_VAL_MAE]));
  cr_expect(eq(dbl, record->epoch[0][CURVE_FORWARD], 2));
  cr_expect(eq(dbl, record->epoch[1][CURVE_VAL_MAE], 0.25));
  cr_expect(eq(dbl, record->epoch[1][CURVE_SAMPLES], 1000));
  cr_expect(isnan(record->epoch[1][CURVE_FORWARD]));
  cr_expect(record->damaged == 0 && !record->torn);
  run_record_destroy(&record);
}

FILE_TEST(run_record, an_epoch_that_comes_again_counts_anew_with_all_after_it) {
  struct run_record *record = read_run(NULL, "{\"event\":\"epoch\",\"epoch\":0,\"train_loss\":3}\n"
                                             "{\"event\":\"epoch\",\"epoch\":1,\"train_loss\":2}\n"
                                             "{\"event\":\"epoch\",\"epoch\":2,\"train_loss\":1}\n"
                                             "{\"event\":\"epoch\",\"epoch\":1,\"train_loss\":20}\n");
  cr_assert(eq(i64, record->epochs, 2));
  cr_expect(eq(dbl, record->epoch[0][CURVE_TRAIN_LOSS], 3));
  cr_expect(eq(dbl, record->epoch[1][CURVE_TRAIN_LOSS], 20));
  run_record_destroy(&record);
}

FILE_TEST(run_record, damaged_lines_are_counted_and_a_torn_end_is_told_apart) {
  struct run_record *record = read_run(NULL, "{\"event\":\"epoch\",\"epoch\":0,\"train_loss\":3}\n"
                                             "{\"event\":\"epo\\\n\n[1,2]\n{\"event\":\"epoch\",\"epoch\":\"x\"}\n"
                                             "{\"event\":\"epoch\",\"epoch\":1,\"train_loss\":2}\n"
                                             "{\"event\":\"epoch\",\"epoch\":2,\"tra");
  cr_expect(eq(i64, record->epochs, 2));
  cr_expect(eq(dbl, record->epoch[1][CURVE_TRAIN_LOSS], 2));
  cr_expect(eq(i64, record->damaged, 4));
  cr_expect(record->torn);
  run_record_destroy(&record);
}

FILE_TEST(run_record, what_is_no_run_is_refused) {
  struct run_record *record;
  cr_expect(eq(int, run_record_read(io_file("nowhere"), &record), ERR_ARGUMENT));
  cr_expect(strstr(status_message(), "cannot open run folder") != NULL, "%s", status_message());
  io_write_text(io_file("file"), "x");
  cr_expect(eq(int, run_record_read(io_file("file"), &record), ERR_ARGUMENT));
  cr_expect(strstr(status_message(), "is no run folder; give the folder") != NULL, "%s", status_message());
  mkdir(io_file("empty"), 0755);
  cr_expect(eq(int, run_record_read(io_file("empty"), &record), ERR_ARGUMENT));
  cr_expect(strstr(status_message(), "holds no run; give the folder") != NULL, "%s", status_message());
}
