/* What one rank of a host reads and all of them use: memory once a host, and one verdict for all ranks.
 *
 *     struct host_share share = {comm, path};
 *     TRY(host_share_alloc(&share, rows * sizeof *ids, (void **)&ids));
 *     if (host_share_reads(&share))
 *       status = read_ids(ids);
 *     TRY(host_share_finish(&share, status));                             now all ranks may use ids
 *     TRY(host_share_same(&share, &hash, 1));
 *     host_share_free(&share, (void **)&ids);
 *
 * Without a communicator all of it is this process's own.  All functions are collective when there is one, save those
 * that say otherwise. */
#ifndef CONR_IO_HOST_SHARE_H
#define CONR_IO_HOST_SHARE_H

#include "dist/comm.h"

struct host_share {
  struct comm *comm; /* borrowed; NULL = this process alone */
  const char *path;  /* borrowed; the file, for sentences   */
};

/* Is this the rank that reads for its host?  Local. */
bool host_share_reads(const struct host_share *share);

/* The verdict of the lowest failing rank, for all. */
enum status host_share_agree(const struct host_share *share, enum status status);

/* The same, once the reading rank of each host is done; what it wrote is visible then. */
enum status host_share_finish(const struct host_share *share, enum status status);

/* ERR_FORMAT unless all ranks see the same numbers: a stale copy on one host would otherwise hang or, worse, train. */
#define HOST_SHARE_MOST_VALUES 16
enum status host_share_same(const struct host_share *share, const int64_t *values, int count);

/* A block of the host; equal bytes on all ranks.  With a communicator it is the communicator's and is freed with it. */
enum status host_share_alloc(const struct host_share *share, size_t bytes, void **out);

/* Free what is this process's own, forget what is the communicator's.  Local; NULL inside is fine. */
void host_share_free(const struct host_share *share, void **block);

#endif
