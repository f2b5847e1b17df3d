/* Where the steps of an epoch went, over the ranks: who waits, and for whom. */
#ifndef CONR_LAUNCH_RANK_TIMES_H
#define CONR_LAUNCH_RANK_TIMES_H

#include "dist/comm.h"

/* Of one rank, in seconds; together they are the time of its steps. */
struct rank_times {
  double data;    /* waiting for batches                            */
  double compute; /* all the rest                                   */
  double wait;    /* in collectives, whoever was late and whatever had to travel */
  char host[64];
};

struct rank_spread {
  double min, median, max; /* median: of an even number the lower one */
};

struct rank_summary {
  struct rank_spread data, compute, wait;
  /* The rank that took longest for data and compute, for which the others waited. */
  int slow_rank;
  char slow_host[64];
  double slow_seconds, median_seconds; /* of data and compute: its own, and over the ranks */
  bool stands_out; /* by more than a fifth of the median, and a tenth of the whole time, and half a second */
};

/* all  [size].  Local. */
struct rank_summary rank_times_summary(const struct rank_times *all, int size);

/* The same of what each rank says of itself.  Collective; all failures are agreed. */
enum status rank_times_gather(struct comm *comm, const struct rank_times *own, struct rank_summary *out);

/* ", rank 3 (host2) is slow: 12.1 s for data and compute, median 8.0 s", or "" when no rank stands out. */
const char *rank_times_words(const struct rank_summary *summary, char *buffer, size_t bytes);

#endif
