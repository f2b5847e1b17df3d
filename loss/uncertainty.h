/* How well do predicted uncertainties fit the errors that were made?
 *
 *     double uce = uncertainty_calibration(F32, count, pred, target, F64, deviation);
 *     double nll = uncertainty_gaussian_nll(F32, count, pred, target, F64, variance);
 *     TRY(uncertainty_sparsification(F32, count, pred, target, F64, variance, NULL, NULL, &ause));
 *
 * Predictions, labels and what was predicted of them, a standard deviation or a variance, are those of a whole evaluated
 * split, gathered beforehand; `count` is of elements, rows x components.  Deviations and variances of a type of their
 * own: published figures are of doubles.  Arithmetic is in double.  All functions are local. */
#ifndef CONR_LOSS_UNCERTAINTY_H
#define CONR_LOSS_UNCERTAINTY_H

#include "dist/dtype.h"
#include "dist/status.h"

#include <stdint.h>

/* Uncertainty calibration error (UCE): elements in 10 bins of equal width between the least and the largest deviation,
 * the last one closed; mean over elements of their bin's |mean |error| - mean deviation|.  Deviations above e^10 count
 * as e^10.  NaN for no elements, or where anything is NaN. */
double uncertainty_calibration(enum dtype dtype, int64_t count, const void *pred, const void *target,
                               enum dtype deviation_dtype, const void *deviation);

/* Mean of (log variance + error^2 / variance + log 2 pi) / 2.  NaN for no elements. */
double uncertainty_gaussian_nll(enum dtype dtype, int64_t count, const void *pred, const void *target,
                                enum dtype variance_dtype, const void *variance);

/* Area under the sparsification error (AUSE): elements are taken away one by one, those of largest variance first, and,
 * to compare, those of largest error first; of equals the first one in order.
 * by_variance, by_error  [count - 1] mean |error| of those left after taking 1, 2, ...; NULL if not wanted
 * ause                   area between both, scaled to a largest difference of 1, over [0, 1]; 0 where they are the same;
 *                        NaN for fewer than 3 elements
 * ERR_NUMERIC: an error or variance that is NaN; ERR_MEMORY. */
enum status uncertainty_sparsification(enum dtype dtype, int64_t count, const void *pred, const void *target,
                                       enum dtype variance_dtype, const void *variance, double *by_variance,
                                       double *by_error, double *ause);

#endif
