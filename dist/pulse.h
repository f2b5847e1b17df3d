/* What this process is doing, for whoever watches over it (watch.h): its collectives, counted, and words for the rest.
 *
 *     const char *before = pulse_doing("writes the checkpoint");
 *     ... write it ...
 *     pulse_doing(before);
 *
 * One for the process, as the count of its memory is: all communicators write to it, since their collectives come in
 * one order, the same on all ranks.  The main thread writes, without locks or system calls; another may read.  What is
 * said of storage any thread may say.  All words are literals: they are read at any time.  Local. */
#ifndef CONR_DIST_PULSE_H
#define CONR_DIST_PULSE_H

#include <stdbool.h>
#include <stdint.h>

/* What stands in the sentence "rank 3 (host2) ...": a verb in the present, such as "waits for data".  Returns the words
 * before these. */
const char *pulse_doing(const char *words);

/* The first step is over: from now on collectives wait for no start-up (false: a new one begins). */
void pulse_steady(bool steady);

/* Others may wait for this rank as long as it takes: for what depends on the size of files alone, such as an import.
 * Its silence and its death are noticed all the same.  Returns what held before. */
bool pulse_unhurried(bool unhurried);

/* This rank has no part in what others of the job do, in a communicator of their own: nobody waits for it. */
void pulse_aside(bool aside);

/* Collectives are counted on from there: after some ranks were aside, from the greatest number of any. */
void pulse_go_on_from(uint64_t entered);

/* For any thread: a file system is asked for something small, and has answered.  While one is asked and none answers,
 * storage stalls. */
void pulse_storage_asked(void);
void pulse_storage_answered(void);

/* For comm.c.  A collective of that name is come to; its number, from 1.  enter: the process stands in it until
 * pulse_leave(); start: it goes on, and may stand in it later by pulse_wait(). */
uint64_t pulse_enter(const char *collective);
uint64_t pulse_start(const char *collective);
void pulse_wait(uint64_t number, const char *collective);
void pulse_leave(void);

/* Seconds that the main thread has stood in collectives, whoever was late: right over many, to some milliseconds. */
double pulse_stood_seconds(void);

struct pulse {
  uint64_t entered;       /* collectives come to                       */
  uint64_t waits_for;     /* the number of the one it stands in, or 0  */
  const char *collective; /* of `waits_for`, else the last; NULL: none */
  const char *doing;      /* outside of them                           */
  uint64_t asked;         /* requests to storage                       */
  uint64_t answered;      /* of them, those that are over              */
  bool steady, unhurried, aside;
};

/* For any thread; while the main thread goes on, the parts may be of two moments. */
struct pulse pulse_read(void);

#endif
