/* For watch.c: how its threads find one another by TCP, and the messages between them. */
#ifndef CONR_DIST_WATCH_LINK_H
#define CONR_DIST_WATCH_LINK_H

#include "dist/status.h"
#include "dist/watch_judge.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WATCH_KEY = 16, WATCH_ADDRESSES = 16 };

/* Where rank 0 is, and by what its own know one another.  Strangers do not know it; it is no protection against those
 * who listen to the network. */
struct watch_place {
  unsigned char key[WATCH_KEY]; /* what the others say */
  int32_t port;                 /* 0 = none: there is no watch */
  int32_t count;
  struct sockaddr_in6 address[WATCH_ADDRESSES]; /* or a sockaddr_in; the first is the host's own, for ranks there */
};

/* Rank 0: listen on every network of this host, on CONR_WATCH_PORT (environment) or any free port.  ERR_ARGUMENT;
 * ERR_COMM.  Local. */
enum status watch_listen(struct watch_place *place, int *listener);

/* What a rank says first, and rank 0 gives back as it is: so each knows that the other is one of the job. */
struct watch_greeting {
  unsigned char key[WATCH_KEY];
  int32_t rank, size;
};

enum watch_word {
  WATCH_BEAT,     /* I live; from a rank, what it does               */
  WATCH_LEAVES,   /* good-bye                                        */
  WATCH_HAS_SAID, /* I have failed, and said so: end with `code`     */
  WATCH_END       /* rank 0 has said why: end with `code`            */
};

/* All machines of a job order their bytes alike. */
struct watch_message {
  int32_t word, code;
  int32_t traced, steady, unhurried, aside;
  uint64_t entered, waits_for;
  double age;        /* seconds of what it does */
  double unanswered; /* seconds of storage       */
  char collective[WATCH_WORDS], doing[WATCH_WORDS];
};

/* A connection; messages come whole. */
struct watch_link {
  int socket; /* owned; -1 = none */
  bool mute;  /* its way out is stuck in the middle of a message */
  size_t filled;
  unsigned char bytes[sizeof(struct watch_message)];
};

/* A socket that is on its way to the address, and does not block; -1 = cannot be. */
int watch_call(const struct watch_place *place, int which);

/* Dropped when the way out is full: there is another in a second. */
void watch_send(struct watch_link *link, const void *message, size_t bytes);

enum watch_received {
  WATCH_NOTHING, /* so far */
  WATCH_WHOLE,
  WATCH_CLOSED,  /* the other process has ended        */
  WATCH_UNUSABLE /* the network says that it is broken */
};

/* bytes: of the message that is awaited, at most those of a watch_message. */
enum watch_received watch_receive(struct watch_link *link, void *message, size_t bytes);

void watch_hang_up(struct watch_link *link);

#endif
