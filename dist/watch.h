/* A watch over the ranks of a job, beside MPI: MPI alone never notices a process that is silent, and waits for it for
 * ever.
 *
 *     struct watch *watch;
 *     TRY(watch_start(comm, 1, &watch));
 *     ... work: comm.c counts collectives, pulse_doing() names the rest ...
 *     watch_stop(&watch);
 *
 * A thread in each process tells rank 0 once a second, by TCP, in which collective the process stands or what it does
 * (pulse.h), and hears as often that rank 0 lives.  Rank 0 judges (watch_judge.h).  It says in one sentence, with rank,
 * host and what to do, and ends all processes with `exit_status`, when
 *
 *   - a process has ended without a good-bye: at once;
 *   - a process or a host has been silent for CONR_WATCH_SECONDS (environment of rank 0; default 20).  A rank that
 *     hears nothing of rank 0 for so long comes to that verdict itself, so that both sides of a cut end;
 *   - storage that a rank asks has not answered for CONR_STORAGE_TIMEOUT seconds (rank 0's; default 25): the requests
 *     are small (io/storage.h), so that a slow disk answers in time;
 *   - a collective has waited longer than CONR_COMM_TIMEOUT seconds (default 300) for a rank that does not come to it,
 *     6 times as long before every rank's first step (pulse_steady()); or all ranks stand in one for so long.
 *
 * Nothing else ends a run: a rank that is slow is waited for, a shorter silence is forgotten, and so is time in which
 * the judge itself did not run (a machine that slept, a job that was suspended as a whole).  What a debugger holds is
 * not judged, from the moment on that its process knows.
 *
 * The processes end by _exit(), whatever the main thread does: a checkpoint is written aside and renamed, so that the
 * last one is whole, as after a kill.
 *
 * CONR_WATCH=off (rank 0's) turns it off.  CONR_WATCH_PORT names the port on which rank 0 listens, on all its networks;
 * else it is any free one.  Where no connection comes about, one warning says so and the run goes on without.  A
 * stranger who connects is sent away.
 *
 * A job of one rank has a watch, too: over its storage. */
#ifndef CONR_DIST_WATCH_H
#define CONR_DIST_WATCH_H

#include "dist/comm.h"

struct watch;

/* From now on, in several ranks, SIGPIPE is ignored: MPI may write to a process that has just died.
 * comm         of host memory; not kept
 * exit_status  of the processes that the watch ends
 * *out is NULL where there is no watch: turned off, or not possible.
 * Collective; all failures are agreed.  ERR_ARGUMENT: a variable makes no sense. */
enum status watch_start(struct comm *comm, int exit_status, struct watch **out);

/* This rank has failed alone, has said why, and is about to end the job: the others end without another word, should
 * the launcher not see to it.  Local.  NULL is fine. */
void watch_has_said(struct watch *watch, int exit_status);

/* MPI has failed on this rank, most likely because another one is lost: wait for a moment, in which the watch ends the
 * process if it knows which.  Local.  NULL is fine. */
void watch_speaks_first(const struct watch *watch);

/* From now on this process may end.  Local.  NULL is fine. */
void watch_stop(struct watch **watch);

#endif
