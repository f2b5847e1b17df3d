/* The GPU of a rank, for programs of tests/ranks that compute losses on it: number rank, modulo how many there are.
 *
 *     rank_device_begin(&host, &device, &data, &losses);
 *     ...
 *     rank_device_end(&host, &device, &data);
 *
 * Failures end the program (rank_record.h). */
#ifndef CONR_TESTS_RANK_DEVICE_H
#define CONR_TESTS_RANK_DEVICE_H

#include "dist/comm_device.h"
#include "loss/loss_ops.h"

/* CONR_TEST_TRANSPORT names how device memory travels, by MPI if not. */
void rank_device_begin(struct comm **host, struct device **device, struct comm **data, const struct loss_ops **losses);

/* Nothing may be left. */
void rank_device_end(struct comm **host, struct device **device, struct comm **data);

#endif
