/* Kernels of Balanced MSE on a GPU, as C sees them. */
#ifndef CONR_LOSS_BALANCED_KERNELS_H
#define CONR_LOSS_BALANCED_KERNELS_H

#ifdef __cplusplus
extern "C" {
#endif

#include "dist/device.h"
#include "dist/dtype.h"
#include "loss/mixture.h"

/* Some rows of the batch, on the device. */
struct balanced_rows {
  int64_t rows;
  int targets;
  const float *pred, *target; /* [rows, targets]                                            */
  const double *sigma;        /* [1]                                                        */
  double rows_global;         /* of the global batch                                        */
  float *grad;                /* [rows, targets], overwritten                               */
  double *partial;            /* balanced_bytes(): scratch                                  */
  double *sums;               /* [2] += these rows' part of the loss, of its derivative by sigma */
};

size_t balanced_bytes(void);

/* BMC and BNI.
 * points      [count, targets] of dtype F32 (labels) or F64 (centres of buckets)
 * log_weight  [count], or NULL: `weight` is the logarithm of each point's */
enum status balanced_points_launch(const struct balanced_rows *rows, enum dtype dtype, int64_t count,
                                   const void *points, const double *log_weight, double weight, struct stream *stream);

/* GAI.  density: overwritten with that of noise of sigma; both structs on the device */
enum status balanced_mixture_launch(const struct balanced_rows *rows, const struct mixture *mixture,
                                    struct mixture_density *density, struct stream *stream);

#ifdef __cplusplus
}
#endif

#endif
