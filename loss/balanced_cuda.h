/* Balanced MSE on a GPU: the entries of loss_ops.h. */
#ifndef CONR_LOSS_BALANCED_CUDA_H
#define CONR_LOSS_BALANCED_CUDA_H

#include "loss/loss_ops.h"

/* As in loss_ops.h. */
enum status balanced_device_create(struct device *device, struct comm *comm, const struct balanced *balanced,
                                   struct balanced_device **out);
void balanced_device_destroy(struct balanced_device **balanced);
enum status balanced_device_set_sigma(struct balanced_device *balanced, double sigma);
enum status balanced_device_begin(struct balanced_device *balanced, const int64_t *samples_of_rank, const float *labels,
                                  int views);
enum status balanced_device_loss(struct balanced_device *balanced, int64_t rows, const float *pred, const float *target,
                                 int64_t rows_global, float *grad, double sums[2]);

#endif
