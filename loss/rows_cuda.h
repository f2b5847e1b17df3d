/* Rows of all ranks on a GPU: entries of loss_ops.h. */
#ifndef CONR_LOSS_ROWS_CUDA_H
#define CONR_LOSS_ROWS_CUDA_H

#include "loss/loss_ops.h"

/* As in loss_ops.h. */
enum status rows_device_create(struct device *device, struct comm *comm, enum dtype dtype, int features, int targets,
                               struct rows_device **out);
void rows_device_destroy(struct rows_device **rows);
enum status rows_device_collect(struct rows_device *rows, const int64_t *rows_of_rank, const void *features,
                                const float *labels, struct lent_rows *out);

#endif
