/* Which sample stands at which place of which batch, and which rank owns it.
 *
 * The order of an epoch is a permutation that depends on (seed, epoch) alone; step s takes
 * the positions s*batch .. s*batch+batch-1 (the last batch of an epoch may be shorter: nothing
 * is dropped); rank r owns one contiguous block of them.  So the batches are the same for any
 * number of ranks, and any step can be computed without the ones before it.
 *
 *     struct sampler sampler = {.rows = 1000, .batch = 64, .seed = 7, .shuffle = true, .rank = 0, .size = 4};
 *     struct shard own = sampler_shard(&sampler, step);
 *     for (int64_t i = 0; i < own.rows; i++)
 *       sample = sampler_sample(&sampler, epoch, own.first + i);
 *
 * A batch may be cut into a fixed number of virtual shards instead of one for each rank (`shards`): contiguous blocks
 * of positions that do not depend on the ranks, each of which owns a contiguous range of shards.  What is computed shard
 * by shard, and added up in an order of the shards (shard_sum.h), then has the same bits for any number of ranks.
 *
 * All functions are local and pure. */
#ifndef CONR_DIST_SAMPLER_H
#define CONR_DIST_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

struct sampler {
  int64_t rows;  /* samples in an epoch                       */
  int64_t batch; /* rows of the global batch                  */
  uint64_t seed;
  bool shuffle; /* false: samples come in their stored order */
  int rank, size;
  int shards; /* virtual shards of a batch, at least as many as ranks; 0 = one for each rank */
};

/* A contiguous block of positions in an epoch. */
struct shard {
  int64_t first, rows;
};

/* Steps in an epoch: ceil(rows / batch). */
int64_t sampler_steps(const struct sampler *sampler);

/* Rows of the global batch at `step` (0-based within the epoch): `batch`, or fewer in the last one. */
int64_t sampler_batch_rows(const struct sampler *sampler, int64_t step);

/* The block of positions this rank owns at `step`; rows may be 0. */
struct shard sampler_shard(const struct sampler *sampler, int64_t step);

/* The same for any rank. */
struct shard sampler_shard_of(const struct sampler *sampler, int64_t step, int rank);

/* The most rows any rank owns in any step; with virtual shards an upper bound of them. */
int64_t sampler_most_rows(const struct sampler *sampler);

/* How many shards a batch has, the first of a rank's (rank = size: how many there are), and the most that one rank
 * owns. */
int sampler_shards(const struct sampler *sampler);
int sampler_first_shard(const struct sampler *sampler, int rank);
int sampler_most_shards(const struct sampler *sampler);

/* The block of positions of one shard at `step`, and the most rows of a shard in any step. */
struct shard sampler_virtual_shard(const struct sampler *sampler, int64_t step, int shard);
int64_t sampler_most_shard_rows(const struct sampler *sampler);

/* The sample (0 .. rows-1, index within the split) at a position of an epoch. */
int64_t sampler_sample(const struct sampler *sampler, int64_t epoch, int64_t position);

#endif
