/* Augmentation of table rows: the views that a contrastive term compares.
 *
 *     struct augment augment = {.noise_std = 0.1, .mask_probability = 0.1, .seed = 7};
 *     TRY(augment_check(&augment));
 *     augment_rows(&augment, epoch, view, samples, rows, features, F32, inputs);       in place
 *
 * Each feature of view v of sample s in an epoch is replaced by 0 with mask_probability (its training mean, once
 * standardised), and otherwise gets noise_std times a standard normal number added.  The draws are a function of
 * (seed, epoch, s, v, feature): neither the rank nor the place in a batch matters.  One-hot columns are treated like
 * all others.  With both at 0 all views are equal to the stored row.  All functions are local and thread-safe. */
#ifndef CONR_IO_AUGMENT_H
#define CONR_IO_AUGMENT_H

#include "dist/dtype.h"
#include "dist/status.h"

#include <stdint.h>

struct augment {
  double noise_std;        /* in units of the training standard deviation; 0 = none */
  double mask_probability; /* 0 <= p < 1; 0 = none                                  */
  uint64_t seed;
};

/* ERR_ARGUMENT for a value out of range. */
enum status augment_check(const struct augment *augment);

/* samples  [rows] row ids in the data file
 * inputs   [rows, features] dtype, changed in place */
void augment_rows(const struct augment *augment, int64_t epoch, int view, const int64_t *samples, int64_t rows,
                  int features, enum dtype dtype, void *inputs);

#endif
