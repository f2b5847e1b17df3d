/* RnC on a GPU: entries of loss_ops.h. */
#ifndef CONR_LOSS_RNC_CUDA_H
#define CONR_LOSS_RNC_CUDA_H

#include "loss/loss_ops.h"

/* As in loss_ops.h. */
enum status rnc_device_create(struct device *device, struct comm *comm, enum dtype dtype, int features,
                              const struct rnc_options *options, struct rnc_device **out);
void rnc_device_destroy(struct rnc_device **rnc);
enum status rnc_device_loss(struct rnc_device *rnc, const int64_t *rows_of_rank, const struct lent_rows *rows,
                            double coefficient, void *grad_features);
double rnc_device_value(const struct rnc_device *rnc);

#endif
