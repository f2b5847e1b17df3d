/* A table of functions with counters, put between the code under test and the transport of a communicator: it sees what
 * is started, and whether that ended by progress or had to be waited for.
 *
 *     start_counting(comm);
 *     ... EXPECT(counted.waits == 0, "%d waits", counted.waits) ...
 *     stop_counting(comm);
 *
 * One communicator at a time.  All calls are local. */
#ifndef CONR_TESTS_COUNTING_COMM_H
#define CONR_TESTS_COUNTING_COMM_H

#include "dist/comm.h"

enum { MOST_COUNTED_SUMS = 100 };

/* Since start_counting() or forget_counts(). */
extern struct counted {
  int sums, gathers;                   /* that were started in flight */
  const char *data[MOST_COUNTED_SUMS]; /* of each such sum: where and how many elements */
  size_t count[MOST_COUNTED_SUMS];
  int ended_by_progress, waits;
} counted;

void start_counting(struct comm *comm);
void stop_counting(struct comm *comm); /* the transport's own table again; the counts stay */
void forget_counts(void);

#endif
