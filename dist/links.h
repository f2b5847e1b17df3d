/* The links between the first rank's host and the others: how long a message takes, how fast a larger one goes, and how
 * far the clocks are apart.
 *
 *     struct link *links;
 *     TRY(memory_alloc(size * sizeof *links, (void **)&links));
 *     TRY(links_measure(MPI_COMM_WORLD, is_first_of_its_host, links));
 *     int slow = links_slowest(links, size);
 *
 * Clocks are compared as NTP does: rank 0 notes when it sends and when the answer is back, the other its time in
 * between.  Had both ways taken equally long, the other clock would be ahead by theirs - (sent + back) / 2; however
 * unequal they were, that is off by half the round trip at most.  Of several the quickest round trip counts. */
#ifndef CONR_DIST_LINKS_H
#define CONR_DIST_LINKS_H

#include "dist/status.h"

#include <mpi.h>
#include <stdbool.h>

/* A link is slow that takes LINK_SLOW times as long as the slowest other one, and this much longer. */
#define LINK_SLOW 4
#define LINK_SLOW_SECONDS 0.005
/* Bytes of the larger message. */
#define LINK_BYTES (1 << 18)

/* One exchange; seconds of each side's wall clock. */
struct clock_sample {
  double sent, theirs, back; /* rank 0's, the other's, rank 0's */
};

struct clock_offset {
  double seconds; /* the other clock is ahead by so much ... */
  double bound;   /* ... give or take this                   */
};

/* Local.  count > 0. */
struct clock_offset clock_estimate(const struct clock_sample *samples, int count);

struct link {
  bool measured;             /* not rank 0's own, nor of ranks that did not take part     */
  double round_trip;         /* of a small message there and back, seconds; the quickest  */
  double transfer;           /* of LINK_BYTES one way and a small answer; the quickest    */
  struct clock_offset clock; /* of that host against rank 0's                             */
};

/* Between rank 0 and each rank with `takes_part`, one after the other: some 30 messages each.  Rank 0 gets all of them
 * in `links` [size]; other ranks get theirs alone.
 * Collective.  The environment's CONR_TEST_CLOCK_OFFSET, in seconds, is added to what this host's clock says here: for
 * tests, since a host made of namespaces has no clock of its own. */
enum status links_measure(MPI_Comm mpi, bool takes_part, struct link *links);

/* The rank at the end of the one link that stands out by its transfer; -1 when none does, or where there are fewer than
 * two to compare.  One host that is slow by itself is told so; when rank 0's is, all links are slow alike.  Local. */
int links_slowest(const struct link *links, int size);

#endif
