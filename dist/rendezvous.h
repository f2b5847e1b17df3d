/* How the bytes by which ranks find one another (NCCL's id) come from rank 0 to all.
 *
 *     TRY(rendezvous_share(host, &id, sizeof id, 300));
 *     ... all connect ...
 *     rendezvous_forget(host);
 *
 * By the communicator's own broadcast, or, on clusters where MPI cannot carry it, by what the environment names, the
 * same on all ranks:
 *
 *   CONR_NCCL_ID_FILE     a file on a file system that all nodes share; rank 0 writes it and removes it in the end
 *   CONR_NCCL_ID_ADDRESS  HOST:PORT, where HOST is rank 0's and PORT is free there; [ADDRESS]:PORT for IPv6.  Whoever
 *                         reaches the port gets the bytes: it belongs into the cluster's own network */
#ifndef CONR_DIST_RENDEZVOUS_H
#define CONR_DIST_RENDEZVOUS_H

#include "dist/comm.h"

#include <stddef.h>

/* Collective over a communicator of host memory; all failures are agreed.  ERR_ARGUMENT: the environment differs
 * between ranks, or makes no sense; ERR_FILE; ERR_COMM: a rank does not come within the time. */
enum status rendezvous_share(struct comm *host, void *bytes, size_t count, double timeout_seconds);

/* Remove what is left of it, also after a failure.  Local. */
void rendezvous_forget(const struct comm *host);

/* For rendezvous.c: the same by TCP.  address: HOST:PORT.  Each rank returns how it went for itself. */
enum status rendezvous_tcp(struct comm *host, const char *address, void *bytes, size_t count, double timeout_seconds);

#endif
