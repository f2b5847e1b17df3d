/* The sum of one vector from each virtual shard (sampler.h), over all ranks, added in one fixed order: its bits do not
 * depend on how many ranks there are.
 *
 *     struct shard_sum *sum;
 *     TRY(shard_sum_create(comm, F32, elements, shards, &sum));
 *     each step:
 *       shard_sum_begin(sum);
 *       for each shard of this rank, in order:
 *         TRY(shard_sum_add(sum, vector));                       local
 *       TRY(shard_sum_finish(sum, total));                       collective: the sum of all shards, on all ranks
 *     shard_sum_destroy(&sum);
 *
 * The order is a binary tree over the shards that only their number decides: shards first .. end - 1 are the sum of
 * the lower half, (end - first) / 2 of them rounded down, and of the rest.  A rank adds up what it can by itself, the
 * largest subtrees that lie within its own shards: one if the ranks are a power of two that divides the shards, never
 * more than 2 log2(shards), rounded up.  Of the subtrees each rank receives one slice from everybody, adds them by the
 * tree, and gives the sums to all.
 *
 * Traffic, in vectors received per rank: (subtrees of the other ranks) / ranks, then (ranks - 1) / ranks.  With one
 * subtree a rank these are the 2 (ranks - 1) / ranks of a ring all-reduce; nothing overlaps with the computation.
 * Memory, shard_sum_bytes(): as many vectors as subtrees are open at a time, at most 1 + log2(shards), rounded up, on
 * one rank and twice that on several, and for the exchange a piece of PIECE elements for each own subtree, and a slice
 * of it for each of all ranks'.
 *
 * On the host.  Sums are rounded to the type of the vectors at each addition. */
#ifndef CONR_DIST_SHARD_SUM_H
#define CONR_DIST_SHARD_SUM_H

#include "dist/comm.h"

struct shard_sum;

/* comm    of host memory, borrowed: must outlive this.  Rank r of P adds the shards from shards * r / P on, up to where
 *         those of the next begin
 * dtype   F32 or F64
 * shards  at least as many as ranks
 * Local. */
enum status shard_sum_create(struct comm *comm, enum dtype dtype, size_t elements, int shards, struct shard_sum **out);
void shard_sum_destroy(struct shard_sum **sum); /* NULL is fine */

/* Bytes that it holds. */
size_t shard_sum_bytes(const struct shard_sum *sum);

/* Pieces in which a sum travels between ranks. */
size_t shard_sum_pieces(const struct shard_sum *sum);

/* Forget what was added.  Local. */
void shard_sum_begin(struct shard_sum *sum);

/* The vector [elements] of this rank's next shard, read before this returns.  ERR_BUG for one too many.  Local. */
enum status shard_sum_add(struct shard_sum *sum, const void *vector);

/* total [elements], overwritten.  ERR_BUG unless all own shards were added.  Collective. */
enum status shard_sum_finish(struct shard_sum *sum, void *total);

#endif
