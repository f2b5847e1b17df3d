/* What kernels of terms on gathered rows share, as C sees it. */
#ifndef CONR_LOSS_ROWS_KERNELS_H
#define CONR_LOSS_ROWS_KERNELS_H

#ifdef __cplusplus
extern "C" {
#endif

#include "dist/device.h"

/* *value = the sum of values [rows].  One block. */
enum status rows_value_launch(int64_t rows, const double *values, double *value, struct stream *stream);

#ifdef __cplusplus
}
#endif

#endif
