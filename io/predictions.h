/* Predictions of a model in a file people can read: HDF5 or CSV, chosen by the name's ending.
 *
 *     struct predictions predictions = {.rows = n, .targets = 1, .ids = ids, .labels = labels,
 *                                       .values = values, .target_names = (const char *[]){"age"}};
 *     TRY(predictions_write("test.csv", &predictions));
 *
 * CSV    header row,label_age,prediction_age, with deviations also deviation_age; one line a sample; as many digits as
 *        bring the same double back
 * HDF5   row [rows] i64, labels, predictions and deviations [rows, targets] f64, attributes conr_format "predictions",
 *        conr_version 1, target_0 "age", ...
 * Rows stay in the order given.  Written aside, synced and renamed; an older file is replaced.  Local. */
#ifndef CONR_IO_PREDICTIONS_H
#define CONR_IO_PREDICTIONS_H

#include "dist/status.h"

#include <stdint.h>

struct predictions {
  int64_t rows;
  int targets;
  const int64_t *ids;              /* [rows] row in the data file                          */
  const double *labels;            /* [rows, targets], or NULL when they are not known     */
  const double *values;            /* [rows, targets], in the labels' units                */
  const double *deviations;        /* likewise: standard deviations that are predicted of the errors, or NULL */
  const char *const *target_names; /* [targets]                                            */
};

/* ERR_ARGUMENT: the name ends in something else.  ERR_FILE: it cannot be written; an older file is untouched. */
enum status predictions_write(const char *path, const struct predictions *predictions);

/* The same check of the ending, before any work is done. */
enum status predictions_check_path(const char *path);

#endif
