/* Communicators of device memory: the collectives of comm.h on what lies on GPUs.
 *
 *     struct comm *data;
 *     TRY(comm_create_device(comm, device, DEVICE_COMM_AUTO, &data));
 *     TRY(comm_sum(data, F64, sums, count));              sums in the device's memory; queued on its main stream
 *     TRY(comm_sum_start(data, F32, gradients, count, &request));    on a stream of its own, after what is queued now
 *     ... more work on the main stream ...
 *     TRY(comm_wait(data, &request));                     the main stream waits for it, the host need not
 *     comm_destroy(&data);
 *
 * Two transports.  NCCL: one GPU a rank; everything is queued, the host waits for nothing.  MPI: through pinned host
 * memory, for ranks that share a GPU or machines without NCCL; the host waits, results are the same.
 *
 * Sums, gathers, broadcasts and requests work on device memory.  What is about the ranks themselves, or about numbers
 * of the host (barrier, maxima, comm_agree(), comm_same(), memory of the host), goes through the communicator it was made
 * from.
 *
 * A rank that is lost: a collective that is not over after `CONR_COMM_TIMEOUT` seconds (environment; default 300), or an error that
 * NCCL reports, ends with ERR_COMM in comm_wait(), comm_progress() or comm_device_check(), whose sentence names the
 * collective and its number; the communicator is then dead. */
#ifndef CONR_DIST_COMM_DEVICE_H
#define CONR_DIST_COMM_DEVICE_H

#include "dist/comm.h"
#include "dist/device.h"

enum device_comm { DEVICE_COMM_AUTO, DEVICE_COMM_NCCL, DEVICE_COMM_MPI };

/* auto | nccl | mpi.  ERR_ARGUMENT lists the names. */
enum status device_comm_parse(const char *name, enum device_comm *out);

/* host    borrowed: must outlive this
 * device  borrowed: likewise; NULL = the host: then *out works on host memory, by MPI
 * AUTO takes NCCL where every rank has a GPU of its own and NCCL can be had, else MPI.
 * Collective.  ERR_ARGUMENT on all ranks: NCCL is asked for, but two ranks share a GPU (the sentence names them). */
enum status comm_create_device(struct comm *host, struct device *device, enum device_comm wanted, struct comm **out);

/* "mpi", "mpi through host memory" or "nccl 2.28.9".  Borrowed. */
const char *comm_transport(const struct comm *comm);

/* Look after what is in flight: errors that NCCL reports by itself, and collectives that take too long.  To be called where
 * the host would otherwise wait for a device that waits for another rank.  Local.  ERR_COMM. */
enum status comm_device_check(struct comm *comm);

/* The host waits for the device's main stream and looks after what is in flight meanwhile.  Local. */
enum status comm_device_wait(struct comm *comm);

#endif
