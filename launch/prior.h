/* What Balanced MSE must know of the training labels, from the options: nothing (BMC), a mixture (GAI), or a histogram
 * (BNI).
 *
 *     TRY(prior_create(session, config, dataset, dtype, &balanced));      NULL where --loss is another one
 */
#ifndef CONR_LAUNCH_PRIOR_H
#define CONR_LAUNCH_PRIOR_H

#include "io/dataset.h"
#include "launch/config.h"
#include "launch/session.h"
#include "loss/balanced.h"

/* Is --loss one of bmc, gai, bni? */
bool prior_is_wanted(const struct config *config);

/* The caller destroys *out.  A mixture is fitted by rank 0 alone, so that all ranks have the same bits.
 * Collective; all ranks fail together. */
enum status prior_create(struct session *session, const struct config *config, const struct dataset *dataset,
                         enum dtype dtype, struct balanced **out);

#endif
