/* The table layout inside an HDF5 file: what must be there, of what shape, named how.  Behind dataset.h. */
#ifndef CONR_IO_DATASET_LAYOUT_H
#define CONR_IO_DATASET_LAYOUT_H

#include "io/h5.h"

/* An open table file and what its metadata says. */
struct dataset_layout {
  struct h5_file *file;
  struct h5_dataset inputs, targets, split, weights; /* weights.id < 0 when the file has none */
  int64_t rows;
  int features, target_count;
  bool has_weights;
  double *mean, *std;            /* [features], owned; NULL = inputs are used as they are */
  struct h5_texts feature_names; /* owned */
  struct h5_texts target_names;  /* owned */
  char *source;                  /* owned; NULL when not said */
};

/* Open and check.  On failure dataset_layout_close is still due.  Local. */
enum status dataset_layout_open(const char *path, struct dataset_layout *out);

/* Close the file and free what is still owned; fields taken over are set to NULL by whoever takes them. */
void dataset_layout_close(struct dataset_layout *layout);

/* Targets [rows, K], weights [rows] (when there are any) and, per row, the split 0, 1, 2; all checked. */
enum status dataset_layout_read_labels(const struct dataset_layout *layout, double *targets, double *weights,
                                       uint8_t *split);

#endif
