/* Communicators: who takes part, and the collectives on rows, sums and agreement.
 *
 *     struct comm *comm;
 *     TRY(comm_create(MPI_COMM_WORLD, &comm));
 *     TRY(comm_gather_rows(comm, own, rows_of_rank, row_bytes, all));   every rank's rows, in rank order
 *     TRY(comm_sum(comm, F64, sums, 3));                                 in place, all ranks get the sum
 *     comm_destroy(&comm);
 *
 * These work on memory of the host; comm_device.h has those of GPUs.
 *
 * `rank` and `size` are MPI's.  Counts of sums, maxima and broadcasts may exceed INT_MAX: they are split inside,
 * once.  A sum has the same bits on all ranks.
 * Collective = every rank of the communicator calls it, in the same order.
 * Local      = no communication.
 * Same value = local, but all ranks must pass equal arguments. */
#ifndef CONR_DIST_COMM_H
#define CONR_DIST_COMM_H

#include "dist/dtype.h"
#include "dist/status.h"

#include <mpi.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct comm;

/* A communicator of our own: a duplicate of `mpi`.  Collective. */
enum status comm_create(MPI_Comm mpi, struct comm **out);

/* Collective; NULL is fine. */
void comm_destroy(struct comm **comm);

/* Local. */
int comm_rank(const struct comm *comm);
int comm_size(const struct comm *comm);
int comm_node_rank(const struct comm *comm); /* rank among the ranks of this host            */
int comm_node_size(const struct comm *comm); /* ranks on this host                           */
const char *comm_host(const struct comm *comm);

/* What the next collective is for, a literal such as "sum of gradients": for the sentence that says which one waits for
 * a rank (watch.h).  Returns `comm`, so that it stands within the call:
 *     TRY(comm_sum(comm_for(comm, "sum of gradients"), F32, gradients, count));
 * Local. */
struct comm *comm_for(struct comm *comm, const char *purpose);

enum status comm_barrier(struct comm *comm);

/* Sum over all ranks, in place; of bf16 each addition is rounded.  Collective; equal count and dtype on all ranks. */
enum status comm_sum(struct comm *comm, enum dtype dtype, void *data, size_t count);

/* Largest value over all ranks, in place.  Collective. */
enum status comm_max_i64(struct comm *comm, int64_t *data, size_t count);
enum status comm_max_f64(struct comm *comm, double *data, size_t count);

/* Copy root's bytes to all.  Collective. */
enum status comm_broadcast(struct comm *comm, void *data, size_t bytes, int root);

/* All-gather of rows, uneven and empty shares allowed.
 * own           [rows_of_rank[rank], row_bytes]; NULL = already in place inside `all`
 * rows_of_rank  [size], the same on all ranks; INT_MAX rows in all, INT_MAX bytes a row, at most
 * all           [sum of rows_of_rank, row_bytes], rank-major
 * Collective. */
enum status comm_gather_rows(struct comm *comm, const void *own, const int64_t *rows_of_rank, size_t row_bytes,
                             void *all);

/* All-to-all of rows, in host memory: each rank has some for every rank.
 * own        [sum of rows_to, row_bytes]: those for rank 0, for rank 1 ...
 * rows_to    [size] how many are for each rank
 * rows_from  [size] how many come from each; what rank a sends to b is what b awaits from a.  INT_MAX rows in all
 * all        [sum of rows_from, row_bytes], from rank 0, from rank 1 ...
 * Collective. */
enum status comm_exchange_rows(struct comm *comm, const void *own, const int64_t *rows_to, const int64_t *rows_from,
                               size_t row_bytes, void *all);

/* One record of each rank, in host memory; not counted as traffic.
 * own  [bytes]; all [size, bytes], rank by rank
 * Collective; all failures are agreed. */
enum status comm_gather_each(struct comm *comm, const void *own, size_t bytes, void *all);

/* A sum or a gather in flight.  Open MPI makes no progress by itself: call comm_progress() between pieces of
 * work, or nothing overlaps. */
struct comm_request {
  void *handle; /* the transport's own; NULL when nothing is in flight */
  void *held;   /* likewise: what it gives back at the end             */
  /* For comm.c: */
  uint64_t number;     /* of the collective, as pulse.h counts */
  const char *purpose; /* its name                             */
};

/* Start an in-place sum of up to INT_MAX elements; `data` must not be touched until the wait.  Collective. */
enum status comm_sum_start(struct comm *comm, enum dtype dtype, void *data, size_t count, struct comm_request *request);
/* Start an all-gather of rows, each rank's to a place of their own: so a larger gather can go piece by piece, as its
 * rows come to be.
 * rows_of_rank   [size], the same on all ranks; each may be 0
 * first_of_rank  [size], likewise: the row of `all` where those of each rank begin; INT_MAX rows at most.  Both arrays
 *                are read before this returns
 * all            the own rows are in place; neither they nor the others' may be touched until the wait
 * Collective. */
enum status comm_gather_start(struct comm *comm, const int64_t *rows_of_rank, const int64_t *first_of_rank,
                              size_t row_bytes, void *all, struct comm_request *request);
/* Push messages along; sets *done when all has arrived (the request is then over).  Local. */
enum status comm_progress(struct comm *comm, struct comm_request *request, bool *done);
enum status comm_wait(struct comm *comm, struct comm_request *request);

/* Agree on a status: if any rank failed, all ranks return the code and sentence of the lowest
 * failing rank.  Turns "one rank cannot read the file" into one message and an orderly end.
 * Collective, also for the ranks that failed. */
enum status comm_agree(struct comm *comm, enum status local);

/* ERR_BUG on all ranks unless all pass equal bytes.  Collective.  For "same value" arguments. */
enum status comm_same(struct comm *comm, const char *what, const void *data, size_t bytes);

/* Memory shared by the ranks of a host (one copy per host), aligned to 64 bytes.
 * Collective; `bytes` the same on all ranks.  The block belongs to the communicator: freed by comm_destroy.  (That of a
 * GPU's communicator belongs to the one it was made from.) */
enum status comm_node_alloc(struct comm *comm, size_t bytes, void **out);
/* Barrier among the ranks of this host, with memory made visible.  Collective on the host. */
enum status comm_node_barrier(struct comm *comm);

/* What this rank asked its collectives to move since the last reset: calls, and bytes received from others
 * (for a sum: the bytes of the buffer).  Tests assert communication volume with it.  Local. */
struct comm_traffic {
  int64_t gather_calls, gather_bytes; /* exchanges of rows among them */
  int64_t sum_calls, sum_bytes;
  double gather_seconds; /* in which this rank stood in gathers, waits for other ranks among them, and not that in which
                            it computed while one was in flight; 0 on a device, whose streams wait and not the host */
};
struct comm_traffic comm_traffic(const struct comm *comm);
void comm_traffic_reset(struct comm *comm);

/* The longest that a collective may take: CONR_COMM_TIMEOUT of the environment, default 300.  Local.  ERR_ARGUMENT. */
enum status comm_timeout(double *seconds);

#endif
