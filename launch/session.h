/* One process's place in the job: MPI, log, threads; and the one road by which a failure ends it. */
#ifndef CONR_LAUNCH_SESSION_H
#define CONR_LAUNCH_SESSION_H

#include "dist/comm.h"
#include "dist/device.h"
#include "dist/log.h"
#include "dist/watch.h"
#include "launch/config.h"

#include <mpi.h>

struct session {
  MPI_Comm mpi;            /* borrowed: MPI_COMM_WORLD, or what a test gives                  */
  struct comm *comm;       /* owned duplicate                                                 */
  struct device *device;   /* owned: where networks are computed; NULL = the host             */
  struct comm *data;       /* owned: a communicator of the device's memory; NULL until opened */
  struct watch *watch;     /* owned: over all ranks; NULL = none, or that of a whole          */
  struct staging *staging; /* owned: copies of the data (staging.h); NULL = they are read where they are */
  int64_t memory_before;   /* bytes that this host could give when preflight looked; 0 = it did not       */
  struct log log;
  int threads;
};

/* Exit statuses, as conr --help states them. */
enum exit_status { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_STOPPED = 75 };

/* Join the job: duplicate `mpi`, begin to watch over the ranks, set the number of OpenMP threads.  Collective. */
enum status session_open(MPI_Comm mpi, const struct config *config, struct session *session);

/* The same for some of its ranks, on a communicator of theirs, with as many threads.  The watch over all ranks goes on:
 * the others are to say pulse_aside() meanwhile.  Collective over `mpi`. */
enum status session_open_part(const struct session *whole, MPI_Comm mpi, const struct config *config,
                              struct session *part);

/* Open the device that --device asks for, and its communicator by --comm; say on rank 0 which GPUs these are.
 * Collective. */
enum status session_open_device(struct session *session, const struct config *config);

/* Collective. */
void session_close(struct session *session);

/* Print the sentence of a failure and give the exit status.  A failure all ranks agree on is printed by rank 0, and
 * all go on to MPI_Finalize.  A failure of this rank alone is printed with rank and host, and ends the job by
 * MPI_Abort, since the others may be waiting for this rank: then it does not return. */
int session_fail(struct session *session, enum status status);

/* "conr: SENTENCE", or, where there are several ranks, "conr: [rank 3/8 host2] SENTENCE"; comm: NULL where it is not
 * known.  For what has no log (yet). */
void session_complain(const struct comm *comm, const char *sentence);

/* The rank the launcher gave this process, from its environment, before MPI is started; -1 when there is none. */
int launcher_rank(void);

#endif
