/* --stage: the data file on a disk of each host, as io/stage.h makes it, for all ranks of the host.
 *
 *     TRY(staging_open(session, config, config->word[0], &stopped));      before the file is opened
 *     TRY(dataset_open(staging_path(session, config->word[0]), ...));     the copy, or the file itself without --stage
 *     staging_close(session);                                             at the end, also of a run that failed
 *
 * The first rank of each host copies; the others sleep meanwhile, however long it takes.  A rank that dies or is silent,
 * and a disk that does not answer, are noticed (dist/watch.h).  What is written down of a run is the path that was given,
 * never the copy's. */
#ifndef CONR_LAUNCH_STAGING_H
#define CONR_LAUNCH_STAGING_H

#include "io/metrics_log.h"
#include "launch/session.h"

#include <limits.h>

/* Make the copies that --stage asks for; nothing without it.  *stopped: a signal came (signals.h); what was copied
 * stays, and the same command goes on.
 * Collective; all ranks fail together, with the host in the sentence where there are several. */
enum status staging_open(struct session *session, const struct config *config, const char *source, bool *stopped);

/* Local.  `source` itself where it is not staged. */
const char *staging_path(const struct session *session, const char *source);

/* "3.2 GB to /local/conr-....h5 on 4 hosts, copied in 4.0 s (800 MB/s a host)"; "" without.  Returns
 * `text`.  Local. */
#define STAGING_TEXT 512
const char *staging_summary(const struct session *session, char text[STAGING_TEXT]);

/* The same as an event "stage" of the log: bytes, hosts, copied_hosts, seconds of the slowest host; nothing without
 * --stage.  Local. */
enum status staging_record(const struct session *session, struct metrics_log *log, int64_t step);

/* Let go of the copies, and remove them where --stage-clean says so.  Local: it is for failures as well. */
void staging_close(struct session *session);

#endif
