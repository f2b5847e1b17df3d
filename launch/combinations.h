/* What combines with what: the table of loss/README.md in code.  Whatever does not stand in it may be used together.
 *
 *     TRY(combinations_check(&config));            once no option is left open
 *
 * Local; every rank has the same options and comes to the same. */
#ifndef CONR_LAUNCH_COMBINATIONS_H
#define CONR_LAUNCH_COMBINATIONS_H

#include "launch/config.h"

/* ERR_ARGUMENT names the two options of a senseless pair, and why it is one. */
enum status combinations_check(const struct config *config);

#endif
