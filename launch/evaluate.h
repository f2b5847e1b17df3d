/* A run's network over a split of a data file, and the errors it makes there. */
#ifndef CONR_LAUNCH_EVALUATE_H
#define CONR_LAUNCH_EVALUATE_H

#include "launch/config.h"
#include "launch/session.h"
#include "loss/metrics.h"

/* Options of the groups that contradict each other.  Local. */
enum status evaluate_check(const struct config *config);

/* What `conr eval` does, without printing: config->word are the run or checkpoint, and the data.
 * Collective; failures are agreed, but for those that leave ranks apart (session_fail). */
enum status evaluate(struct session *session, const struct config *config, struct metrics_table *table);

#endif
