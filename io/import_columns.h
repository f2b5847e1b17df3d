/* What each column of a CSV file is for, and the way from its fields to numbers.  Behind import.h.
 *
 *     columns_create(options, &header_row, &columns);
 *     columns_scan(columns, &row, &kept);              every row, pass 1: kinds and categories
 *     columns_settle(columns);                         fixes the features
 *     columns_encode(columns, &row, &sample, &kept);   every row again, to numbers
 *     columns_destroy(&columns); */
#ifndef CONR_IO_IMPORT_COLUMNS_H
#define CONR_IO_IMPORT_COLUMNS_H

#include "io/csv_reader.h"
#include "io/import.h"
#include "io/value_set.h"

enum column_role { COLUMN_NUMERIC, COLUMN_NOMINAL, COLUMN_TARGET, COLUMN_WEIGHT, COLUMN_SPLIT, COLUMN_DROPPED };

struct column {
  char *name;
  enum column_role role;
  int first;               /* first feature, or index of the target */
  struct value_set values; /* an input's distinct texts             */
  int64_t text_line;       /* where the first value that is no number stood, 0 = none */
  char text_value[48];
  int64_t missing; /* missing values in kept rows              */
  double fill;     /* what a missing number becomes            */
};

struct columns {
  const struct import_csv_options *options; /* borrowed: must outlive this */
  size_t count;
  struct column *column; /* [count], in order of the file */
  int features;
};

/* One row as numbers; the caller owns the arrays. */
struct sample {
  float *features; /* [features]; NaN for a number to be filled when `fill` is not known yet */
  double *targets; /* [target_count] */
  double weight;   /* 1 without a weight column */
  int split;       /* -1 without a split column */
};

enum status columns_create(const struct import_csv_options *options, const struct csv_row *header,
                           struct columns **out);
void columns_destroy(struct columns **columns);

/* *kept is false for a row that is to be left out. */
enum status columns_scan(struct columns *columns, const struct csv_row *row, bool *kept);
enum status columns_settle(struct columns *columns);
enum status columns_encode(const struct columns *columns, const struct csv_row *row, struct sample *sample, bool *kept);

/* Is this feature one of a one-hot group? */
bool columns_is_one_hot(const struct columns *columns, int feature);

/* The name of a feature, at most `bytes` with its NUL. */
void columns_feature_name(const struct columns *columns, int feature, char *name, size_t bytes);

/* Are there missing numbers to become means? */
bool columns_need_means(const struct columns *columns);

#endif
