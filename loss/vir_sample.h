/* The sampled encoding of VIR: an encoder that gives each feature a mean and a variance trains on draws from them.
 *
 *     vir_noise(F32, seed, epoch, rows, features, sample, view, noise);
 *     vir_sample(F32, rows, features, encoding, noise, z);                             what the head sees
 *     vir_sample_backward(F32, rows, features, encoding, noise, grad_z, grad_encoding);
 *
 * Encodings are [rows, 2, features]: means mu, then variances var, as fds.h smooths them; z [rows, features] is
 * mu + sqrt(var) noise.  Evaluation takes mu.  A variance of 0 has no slope: its gradient is infinite, or NaN without
 * noise; one below 0 makes z NaN.  Rows are independent of each other, and arithmetic is in double.  All functions are
 * local. */
#ifndef CONR_LOSS_VIR_SAMPLE_H
#define CONR_LOSS_VIR_SAMPLE_H

#include "dist/dtype.h"

#include <stdint.h>

/* Standard normal numbers, which depend on seed, epoch, sample and view alone: not on ranks or on the order of rows.
 * sample, view  [rows]; view may be NULL: all are the first
 * noise         [rows, features] */
void vir_noise(enum dtype dtype, uint64_t seed, int64_t epoch, int64_t rows, int64_t features, const int64_t *sample,
               const int32_t *view, void *noise);

void vir_sample(enum dtype dtype, int64_t rows, int64_t features, const void *encoding, const void *noise, void *z);

/* grad_encoding  as encoding, overwritten; not `encoding` itself */
void vir_sample_backward(enum dtype dtype, int64_t rows, int64_t features, const void *encoding, const void *noise,
                         const void *grad_z, void *grad_encoding);

#endif
