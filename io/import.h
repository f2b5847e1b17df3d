/* Tables into the dataset layout (io/README.md).  One process, no MPI.
 *
 *     struct import_csv_options options = {.csv_path = "abalone.csv", .output_path = "abalone.h5",
 *                                          .targets = (const char *[]){"Rings"}, .target_count = 1,
 *                                          .split = "split"};
 *     struct import_report *report;
 *     TRY(import_csv(&options, &report));
 *     import_report_print(report, stdout);
 *     import_report_destroy(&report);
 *
 * The file is read twice (three times when means fill gaps) and never held: memory does not grow with the rows.
 *
 * Columns     All that are not target, weight, split or dropped are inputs.  One with a value that is no number is
 *             nominal and becomes one-hot columns named "Sex=F", "Sex=I", ... in order of bytes, at most 1000.
 * Numbers     Decimal, as in 12, -0.5, 1e-3.  Inputs are stored as float32, targets and weights as float64.
 * Missing     An empty field, ?, NA, N/A, NaN or null (in any case).
 * Statistics  Mean and standard deviation (divided by n) of the training rows are stored beside the raw inputs, and
 *             applied when they are read; a constant column gets std 1.  One-hot columns get mean 0 and std 1: they
 *             are not standardised.  Columns of numbers 0 and 1 are.
 * Split       From a column (train; val, validation, valid, dev; test; or 0, 1, 2; in any case), or drawn: a function
 *             of (seed, row) with exact, rounded counts; or by a stress protocol (protocol.h), which may write a row
 *             several times, or not at all. */
#ifndef CONR_IO_IMPORT_H
#define CONR_IO_IMPORT_H

#include "dist/status.h"
#include "io/dataset.h"
#include "io/protocol.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum missing_policy {
  MISSING_ERROR,    /* a missing value ends the import                                                    */
  MISSING_DROP_ROW, /* rows with one are left out, counted in the report                                   */
  MISSING_MEAN      /* inputs: the training mean, for a nominal column the category "missing"; else error  */
};

struct import_csv_options {
  const char *csv_path, *output_path;
  const char *const *targets; /* [target_count] column names; several = a label of several numbers */
  size_t target_count;
  const char *weight;  /* column of sample weights, NULL = none                     */
  const char *split;   /* column of splits, NULL = drawn by `fractions` and `seed`  */
  double fractions[3]; /* train, validation, test; sum 1                            */
  uint64_t seed;
  struct protocol_options protocol; /* not PROTOCOL_NONE: the split is drawn so, whatever `split` says */
  const char *const *drops;         /* [drop_count] columns to leave out */
  size_t drop_count;
  enum missing_policy missing;
  bool force; /* replace an existing output */
  /* Called now and then: share of the work done, rows so far in this pass, rows per second.  NULL = not called. */
  void (*progress)(void *context, double fraction, int64_t rows, double rows_per_second);
  void *progress_context;
};

#define IMPORT_MOST_BINS 24

/* Training labels of one target, in equal bins; whole numbers get bins of a whole width. */
struct import_histogram {
  char *name;
  double minimum, maximum, mean;
  bool whole;          /* all labels are whole numbers */
  double first, width; /* bin b holds first + b * width <= y < first + (b + 1) * width; the last its end too */
  int bins;
  int64_t count[IMPORT_MOST_BINS];
};

struct import_report {
  char *output_path;
  int64_t rows, rows_dropped; /* written; left out for a missing value */
  int64_t split_rows[SPLIT_COUNT];
  struct protocol_report protocol; /* all 0 without one */
  int features, numeric_columns, nominal_columns;
  int64_t values_filled; /* missing inputs replaced by a mean or the category "missing" */
  int constant_features; /* without spread in the training rows */
  char *constant_name;   /* the first of them, or NULL */
  int target_count;
  struct import_histogram *targets; /* [target_count] */
};

/* Read the CSV file, write output_path (aside, synced, renamed).  Local.
 * ERR_ARGUMENT, ERR_FILE, ERR_FORMAT: one sentence with file, line, column and value; nothing is written. */
enum status import_csv(const struct import_csv_options *options, struct import_report **out);
void import_report_destroy(struct import_report **report);

/* Counts and a histogram per target, plain ASCII, at most 100 columns. */
void import_report_print(const struct import_report *report, FILE *stream);

#endif
