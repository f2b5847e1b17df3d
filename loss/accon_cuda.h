/* ACCon on a GPU: entries of loss_ops.h. */
#ifndef CONR_LOSS_ACCON_CUDA_H
#define CONR_LOSS_ACCON_CUDA_H

#include "loss/loss_ops.h"

/* As in loss_ops.h. */
enum status accon_device_create(struct device *device, struct comm *comm, enum precision precision, int features,
                                const struct accon_options *options, struct accon_device **out);
void accon_device_destroy(struct accon_device **accon);
enum status accon_device_loss(struct accon_device *accon, const int64_t *rows_of_rank, const struct lent_rows *rows,
                              double coefficient, const void *features, void *grad_features);
double accon_device_value(const struct accon_device *accon);

#endif
