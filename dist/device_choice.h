/* Which GPU a rank works on: one each, in PCI order, by the rank's number on its host.
 *
 *     struct device *device;
 *     TRY(device_choose(comm, "auto", &device));          NULL: the host
 *     log_line(log, "%s", device_report(...));
 *
 * A host with more ranks than GPUs shares them out in turn; NCCL does not work then, MPI does (comm_device.h). */
#ifndef CONR_DIST_DEVICE_CHOICE_H
#define CONR_DIST_DEVICE_CHOICE_H

#include "dist/comm.h"
#include "dist/device.h"

/* wanted  "cpu", "cuda", or "auto": a GPU if every rank has one, and the host otherwise.  The library of the backend is not even
 *         opened by "auto" where there is no driver.
 * Collective; the same `wanted` on all ranks.  "cuda" where there is none: ERR_DEVICE on all ranks, with the reason of the
 * first that has none. */
enum status device_choose(struct comm *comm, const char *wanted, struct device **out);

/* "rank 3 on gpu02: NVIDIA H200, 140 GB, at 0000:1b:00.0, NUMA node 0" of every rank, a line each, into `text` on rank 0;
 * "" on the host.  Collective. */
enum status device_report(struct comm *comm, const struct device *device, char *text, size_t bytes);

#endif
