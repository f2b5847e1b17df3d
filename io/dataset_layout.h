/* The layout of a dataset inside an HDF5 file, as far as tables and images share it: which of the two it is, labels,
 * weights, splits, names.  What must be there, of what shape.  Behind dataset.h.
 *
 *     TRY_GOTO(dataset_layout_open(path, &layout), out);              which kind?
 *     ... table_inputs_open or image_records_open: how many rows? ...
 *     TRY_GOTO(dataset_layout_open_labels(&layout, rows, "inputs"), out);
 *     TRY_GOTO(dataset_layout_read_labels(&layout, targets, weights, split), out);
 *   out:
 *     dataset_layout_close(&layout);
 *
 * All functions are local. */
#ifndef CONR_IO_DATASET_LAYOUT_H
#define CONR_IO_DATASET_LAYOUT_H

#include "io/dataset.h"
#include "io/h5.h"

struct dataset_layout {
  struct h5_file *file;
  enum dataset_kind kind;
  struct h5_dataset targets, split, weights; /* weights.id < 0 when the file has none */
  int64_t rows;
  int target_count;
  bool has_weights;
  struct h5_texts target_names; /* owned */
  char *source;                 /* owned; NULL when not said */
};

/* Open the file and see which kind it is.  On failure of this or the next function dataset_layout_close is still
 * due. */
enum status dataset_layout_open(const char *path, struct dataset_layout *out);

/* Labels, names and source; `from` is the dataset that says how many rows there are. */
enum status dataset_layout_open_labels(struct dataset_layout *layout, int64_t rows, const char *from);

/* Targets [rows, K], weights [rows] (when there are any) and, per row, the split 0, 1, 2; all checked. */
enum status dataset_layout_read_labels(const struct dataset_layout *layout, double *targets, double *weights,
                                       uint8_t *split);

/* The file is not needed any more: close it, keep names and source. */
enum status dataset_layout_close_file(struct dataset_layout *layout);

/* Close the file and free what is owned. */
void dataset_layout_close(struct dataset_layout *layout);

/* For the two kinds of inputs.  A dataset of numbers that must be there. */
enum status dataset_layout_require(const struct dataset_layout *layout, const char *name, struct h5_dataset *out);

/* The texts called `name`, one for each of `count`; made of `stem` and a number when the file names nothing. */
enum status dataset_layout_names(const struct dataset_layout *layout, const char *name, const char *stem, int count,
                                 struct h5_texts *out);

#endif
