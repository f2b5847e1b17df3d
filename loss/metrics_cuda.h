/* Metrics on a GPU: the entries of loss_ops.h, and what they keep. */
#ifndef CONR_LOSS_METRICS_CUDA_H
#define CONR_LOSS_METRICS_CUDA_H

#include "loss/loss_ops.h"

/* As in loss_ops.h. */
enum status metrics_device_create(struct device *device, const struct metrics *metrics, int64_t rows,
                                  const double *labels, struct metrics_device **out);
void metrics_device_destroy(struct metrics_device **metrics);
enum status metrics_device_compute(struct metrics_device *metrics, enum dtype dtype, const void *predictions,
                                   struct metrics_table *table);

#endif
