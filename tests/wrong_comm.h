/* Transports that are wrong on purpose, each in one place and in the same way on all ranks, so that none waits for
 * another: a list of promises that does not notice one of them is not worth much. */
#ifndef CONR_TESTS_WRONG_COMM_H
#define CONR_TESTS_WRONG_COMM_H

#include "dist/comm_ops.h"

enum { WRONG_COMMS = 16 };

struct wrong_comm {
  const char *name;
  struct comm_ops ops;
};

/* right: of the transport to be spoiled; borrowed until the last of them is used. */
void wrong_comms(const struct comm_ops *right, struct wrong_comm out[WRONG_COMMS]);

#endif
