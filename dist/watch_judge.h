/* For watch.c: what rank 0 knows of the ranks, and what follows from it.  Nothing here asks for the time or talks. */
#ifndef CONR_DIST_WATCH_JUDGE_H
#define CONR_DIST_WATCH_JUDGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WATCH_WORDS = 40, WATCH_SENTENCE = 1500 };

/* Of one rank; times are seconds of the judge's clock. */
struct watch_rank {
  const char *host;             /* borrowed */
  bool known;                   /* it has connected; of others nothing is known and nothing is said */
  bool left;                    /* it has said good-bye */
  bool closed;                  /* its connection has ended without */
  bool traced;                  /* a debugger may stop it at will */
  bool steady;                  /* its first step is over */
  bool unhurried;               /* others may wait for it as long as it takes */
  bool aside;                   /* it has no part in what the others do: they do not wait for it */
  double heard;                 /* when it was heard of last; closed: when the connection ended */
  uint64_t entered;             /* collectives that it has come to */
  uint64_t waits_for;           /* the number of the one in which it stands, 0 = none */
  double since;                 /* when it began what it does */
  double unanswered;            /* seconds for which storage that it asks has not answered; 0: nothing is asked */
  char collective[WATCH_WORDS]; /* of `waits_for`: "sum of gradients" */
  char doing[WATCH_WORDS];      /* outside of collectives: "waits for data" */
};

struct watch_limits {
  double silence_seconds;  /* without a word */
  double storage_seconds;  /* until storage answers */
  double deadline_seconds; /* of a collective, from the first rank in it on */
};

/* Until every rank's first step is over, collectives may take so many times as long: files are opened, caches filled
 * and kernels chosen, by some ranks longer than by others. */
#define WATCH_START_FACTOR 6

enum watch_finding {
  WATCH_FINE,
  WATCH_DIED,    /* processes have ended: all that are `closed` */
  WATCH_SILENT,  /* hosts or processes are not heard of */
  WATCH_STALLED, /* storage does not answer */
  WATCH_LATE,    /* a collective has waited for ranks beyond its deadline */
  WATCH_STUCK    /* all ranks stand in collectives, and none moves */
};

/* A finding and the sentence about it, which names ranks, hosts and what to do.
 * sentence  [WATCH_SENTENCE], written unless all is fine */
enum watch_finding watch_judge(const struct watch_rank *ranks, int size, double now, const struct watch_limits *limits,
                               char *sentence);

/* The judge itself did not run for so long, until `now`, and heard nobody: that is not held against the ranks. */
void watch_forgive(struct watch_rank *ranks, int size, double seconds, double now);

/* Ranks as people write them: "ranks 2-5, 8 (host2), 9 (host3) and 12 more".
 * which  [size]: those that are meant */
void watch_list(const struct watch_rank *ranks, int size, const bool *which, char *text, size_t bytes);

#endif
