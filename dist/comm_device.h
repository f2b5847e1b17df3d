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
 * memory, for ranks that share a GPU or machines without NCCL.  There the host waits in comm_sum(), comm_gather_rows()
 * and comm_broadcast(), whose results then are queued as NCCL's are; what is in flight moves only in comm_progress(),
 * comm_wait(), comm_device_check() and comm_device_wait().  Sums have the bits of the host communicator's sums.  NCCL
 * adds in an order of its own, the same on all ranks.
 *
 * Sums (f32, f64, bf16), gathers, broadcasts and requests work on device memory.  What is about the ranks themselves,
 * or about numbers of the host (barrier, maxima, comm_agree(), comm_same(), memory of the host), goes through the
 * communicator it was made from, and does not wait for the device.
 *
 * No graph can keep a collective.  Where work is kept by replay.h, sums, gathers and waits for them cut it (broadcasts
 * are refused): they are made anew at each launch, with the arguments of then; what these point to (requests,
 * rows_of_rank) must still be there, and is read then.  Those of one rank alone are left out, and cut nothing.
 *
 * A rank that is lost: a collective that is not over `CONR_COMM_TIMEOUT` seconds (environment; default 300) after the
 * device came to it, or an error that NCCL reports, ends with ERR_COMM in comm_wait(), comm_progress(),
 * comm_device_check() or comm_device_wait(); the sentence names the collective and its number.  The communicator is
 * then dead: every call returns ERR_COMM at once with that sentence, and comm_destroy() waits for no other rank.  By
 * MPI this holds for what is in flight; the other collectives are MPI's blocking calls, over which the watch (watch.h)
 * watches, with the same limit and two seconds more.
 *
 * So whoever waits for the device in the middle of a job calls comm_device_wait(), not device_wait(), which would wait
 * for a lost rank for ever.
 *
 * The ranks of NCCL find one another by the host communicator, or as the environment says (rendezvous.h). */
#ifndef CONR_DIST_COMM_DEVICE_H
#define CONR_DIST_COMM_DEVICE_H

#include "dist/comm.h"
#include "dist/device.h"

enum device_comm { DEVICE_COMM_AUTO, DEVICE_COMM_NCCL, DEVICE_COMM_MPI };

/* auto | nccl | mpi.  ERR_ARGUMENT lists the names. */
enum status device_comm_parse(const char *name, enum device_comm *out);

/* host    on host memory; borrowed: must outlive this
 * device  borrowed: likewise; NULL = the host: then *out is a duplicate of `host`, with memory of the host of its own
 * wanted  the same on all ranks
 * AUTO takes NCCL where every rank has a GPU of its own and NCCL can be had, else MPI.  NCCL that is there but cannot
 * bring the ranks together is an error all the same: MPI instead would be slow, and nobody would know why.
 * Collective.  All failures are agreed.  ERR_ARGUMENT: NCCL is asked for, but two ranks share a GPU (the sentence names
 * them) or a rank has no NCCL; some ranks have a GPU and some none; ERR_COMM: NCCL does not bring the ranks
 * together. */
enum status comm_create_device(struct comm *host, struct device *device, enum device_comm wanted, struct comm **out);

/* "mpi", "mpi through host memory" or "nccl 2.28.9".  Borrowed. */
const char *comm_transport(const struct comm *comm);

/* Look after what is in flight: errors that NCCL reports by itself, and collectives that take too long.  To be called
 * where the host would otherwise wait for a device that waits for another rank.  Local.  ERR_COMM. */
enum status comm_device_check(struct comm *comm);

/* The host waits for the device's main stream and looks after what is in flight meanwhile.  Local. */
enum status comm_device_wait(struct comm *comm);

#endif
