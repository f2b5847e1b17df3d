/* conr_loss() of conr.h in three parts, for a caller whose rows come to be one after the other: they travel while it
 * computes.
 *
 *     TRY(conr_begin(conr, &batch, blocks, false));
 *     for each block of rows:
 *       TRY(conr_add(conr, &block, first_of_rank));
 *       ... the next rows are computed, with conr_progress(conr) between ...
 *     TRY(conr_finish(conr, features, grad_features, &result));
 *
 * The result has the bits of conr_loss() on the whole batch.  Until it is finished a batch belongs to this object: who
 * fails alone between the parts must abort the job, as always; what all ranks fail at is only told by conr_begin() and
 * conr_finish(), when nothing is in flight. */
#ifndef CONR_LOSS_CONR_PARTS_H
#define CONR_LOSS_CONR_PARTS_H

#include "dist/status.h"
#include "loss/conr.h"
#include "loss/gathered.h"

/* From the next batch on a rank's rows are several shards (dist/sampler.h), `rows_of_shard` of them behind one another,
 * and what is computed has the same bits whichever ranks the shards belong to: panels of rows end with their shard, the
 * path is chosen for all ranks alike, and sums are added up shard by shard.  On one thread: more of them may cut a
 * panel's columns otherwise.
 * rows_of_shard   [sum of shards_of_rank], those of rank 0 first; what belongs to a rank adds up to its rows
 * shards_of_rank  [ranks]
 * Without this call each rank is one shard.  Both arrays are copied; equal on all ranks.  Local.  ERR_MEMORY. */
enum status conr_cut(struct conr *conr, const int64_t *rows_of_shard, const int *shards_of_rank);

/* batch   rows and rows_of_rank (NULL: exchanged) of the whole batch; the arrays are not read
 * blocks  how many there will be at most; the same on all ranks
 * lend    other terms want the gathered rows: they travel as they are, and every rank normalises them all when they
 *         have come, which else each does for its own before.  N x (features + targets) numbers more are held.  The
 *         same on all ranks
 * Collective; all failures are agreed. */
enum status conr_begin(struct conr *conr, const struct conr_batch *batch, int blocks, bool lend);

/* block          some of the own rows; rows_of_rank tells those of every rank and must be given.  The arrays are read
 *                before this returns
 * first_of_rank  [ranks] where the block begins among the rows of each rank, the same on all ranks; NULL = 0
 * Collective: the blocks are the same on all ranks, also for those that have no row in one.  What is wrong with the
 * values of one rank is told to all by conr_finish(). */
enum status conr_add(struct conr *conr, const struct conr_batch *block, const int64_t *first_of_rank);

/* Push what is in flight: see comm_progress().  Local. */
enum status conr_progress(struct conr *conr);

/* The loss and its gradient, once all rows have come.
 * features  [rows, features] of the whole batch, as they were added; read for the gradient alone
 * Collective; failures as of conr_loss(). */
enum status conr_finish(struct conr *conr, const void *features, void *grad_features, struct conr_result *result);

/* The rows of a batch that was begun to be lent, in the order of ranks, from conr_finish() until the next conr_begin();
 * of another batch none.  Local. */
struct lent_rows conr_lent(const struct conr *conr);

#endif
