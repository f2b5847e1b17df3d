/* Rows of all ranks on a GPU: entries of loss_ops.h. */
#ifndef CONR_LOSS_ROWS_CUDA_H
#define CONR_LOSS_ROWS_CUDA_H

#include "loss/loss_ops.h"

/* A batch's rows: of all ranks, this one's (first .. first + own - 1), and those of the rank that has most. */
struct rows_share {
  int64_t rows, first, own, most_own;
};

/* What memory was taken for: so many rows of all ranks and of one, a panel of so many products; rows -1 = none. */
struct rows_room {
  int64_t rows, own, panel;
};

struct rows_share rows_share_of(const struct comm *comm, const int64_t *rows_of_rank);

/* Is there room?  Follows from counts that all ranks know: all come to the same. */
bool rows_room_suffices(const struct rows_room *room, const struct rows_share *share);

/* Room for a share that there was none for, and for all that there was room for. */
struct rows_room rows_room_grown(const struct rows_room *room, const struct rows_share *share);

/* As in loss_ops.h. */
enum status rows_device_create(struct device *device, struct comm *comm, enum dtype dtype, int features, int targets,
                               struct rows_device **out);
void rows_device_destroy(struct rows_device **rows);
enum status rows_device_collect(struct rows_device *rows, const int64_t *rows_of_rank, const void *features,
                                const float *labels, struct lent_rows *out);

#endif
