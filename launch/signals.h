/* Being asked to stop: SIGINT, SIGTERM and SIGUSR1 are blocked and looked at when it suits.  SIGUSR1 is for job scripts:
 * mpirun and srun hand it on to their ranks and go on, while a SIGTERM begins their own end.
 *
 * No handler: oneDNN's products (seen in 2.6) keep their stack pointer in the heap, where a handler's frame would
 * overwrite numbers and malloc's own tables.  Local. */
#ifndef CONR_LAUNCH_SIGNALS_H
#define CONR_LAUNCH_SIGNALS_H

#include <stdbool.h>

/* Before MPI and OpenMP start threads, which inherit it. */
void signals_block(void);

/* Back to what signals do by themselves; one that waits does it now. */
void signals_unblock(void);

/* Has a stop been asked for?  A signal that waits is taken. */
bool signals_stop_asked(void);

#endif
