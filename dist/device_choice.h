/* Which GPU a rank works on: one each, in PCI order, by the rank's number on its host.
 *
 *     struct device *device;
 *     char note[1024];
 *     TRY(device_choose(comm, "auto", &device, note, sizeof note));        NULL: the host
 *     TRY(device_report(comm, device, text, sizeof text));                 what runs where
 *
 * A host with more ranks than GPUs shares them out in turn; NCCL does not work then, MPI does (comm_device.h). */
#ifndef CONR_DIST_DEVICE_CHOICE_H
#define CONR_DIST_DEVICE_CHOICE_H

#include "dist/comm.h"
#include "dist/device.h"

/* wanted  "cpu", "cuda", or "auto": a GPU if every rank has one, and the host otherwise.  Where no rank has a driver,
 *         "auto" does not even open the backend's library.
 * note    why "auto" takes the host although some rank has a driver; else "".  The same on all ranks.
 * Collective; the same `wanted` on all ranks.  "cuda" where there is none: ERR_DEVICE on all ranks, with the reason of
 * the first that has none. */
enum status device_choose(struct comm *comm, const char *wanted, struct device **out, char *note, size_t bytes);

/* "rank 3 on gpu02: NVIDIA H200, 140 GB, at 0000:1b:00.0, NUMA node 0" of every rank, a line each, into `text` [bytes >
 * 0], the same on all ranks; "" on the host.  Collective. */
enum status device_report(struct comm *comm, const struct device *device, char *text, size_t bytes);

#endif
