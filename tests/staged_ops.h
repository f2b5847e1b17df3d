/* A GPU's table of operations for buffers in host memory: each entry copies its arguments to the device, runs, waits,
 * and copies the results back.  So tests that know the host alone can run on a GPU.
 *
 *     const struct ops *ops = staged_ops(device_table);
 *
 * One table at a time; the entries that tests of stored layers call, no others (NULL).  The workspaces that
 * convolutions take must be those of the device. */
#ifndef CONR_TESTS_STAGED_OPS_H
#define CONR_TESTS_STAGED_OPS_H

#include "model/ops.h"

const struct ops *staged_ops(const struct ops *device_table);

#endif
