/* A look at all hosts before the first batch: is what the run needs there, and the same everywhere?
 *
 *     TRY(preflight(session, config));                          opens the session's device as well
 *     ...
 *     TRY(trainer_create(session, config, &trainer));
 *     TRY(preflight_require_memory(session));                   what the trainer took is what it will use
 *
 * Everything is looked at, whatever is wrong with the rest: one start tells all.  But ranks of another program could
 * not even be spoken to, so that this comes first, and alone.  Nothing is changed on any disk (between hosts, an empty
 * file that is gone at once tells whether the run folder is shared); the largest part is the checksum of the data, 6 MiB
 * of a large file (io/checksum.h), once a host.
 *
 * Limits, beyond which there is a warning: clocks PREFLIGHT_SKEW seconds apart for certain, a link that stands out
 * (dist/links.h), PREFLIGHT_LOCKED bytes of locked memory where a network by RDMA is. */
#ifndef CONR_LAUNCH_PREFLIGHT_H
#define CONR_LAUNCH_PREFLIGHT_H

#include "launch/findings.h"
#include "launch/session.h"

#define PREFLIGHT_SKEW 1.0
#define PREFLIGHT_LOCKED ((uint64_t)64 << 20)

/* What conr train does: warnings and one line in the log, or the failures.  Collective; all ranks fail together. */
enum status preflight(struct session *session, const struct config *config);

/* Once the trainer stands: does its memory, on all ranks of a host, fit into what the host had?  Nothing where
 * preflight() was not called.  Collective; all ranks fail together. */
enum status preflight_require_memory(struct session *session);

/* Their parts, for conr check: what is found is put to the findings, and gathered.
 * Collective; a status other than STATUS_OK is a failure of the looking itself. */
enum status preflight_look(struct session *session, const struct config *config, struct findings *findings);
enum status preflight_look_at_memory(struct session *session, struct findings *findings);

#endif
