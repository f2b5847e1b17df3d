/* Pure functions from (seed, epoch, step, rank) to samples. */
#include "dist/sampler.h"

#include "dist/random.h"

int64_t sampler_steps(const struct sampler *sampler) {
  return (sampler->rows + sampler->batch - 1) / sampler->batch;
}

int64_t sampler_batch_rows(const struct sampler *sampler, int64_t step) {
  int64_t left = sampler->rows - step * sampler->batch;
  return left < sampler->batch ? left : sampler->batch;
}

int sampler_shards(const struct sampler *sampler) {
  return sampler->shards > 0 ? sampler->shards : sampler->size;
}

int sampler_first_shard(const struct sampler *sampler, int rank) {
  return (int)((int64_t)sampler_shards(sampler) * rank / sampler->size);
}

int sampler_most_shards(const struct sampler *sampler) {
  return (sampler_shards(sampler) + sampler->size - 1) / sampler->size;
}

/* Where a shard begins in a batch of `rows`; shard number sampler_shards() would begin at its end. */
static int64_t shard_begin(const struct sampler *sampler, int64_t rows, int shard) {
  return rows * shard / sampler_shards(sampler);
}

static struct shard shards_from(const struct sampler *sampler, int64_t step, int first, int end) {
  int64_t rows = sampler_batch_rows(sampler, step), begin = shard_begin(sampler, rows, first);
  return (struct shard){step * sampler->batch + begin, shard_begin(sampler, rows, end) - begin};
}

struct shard sampler_shard_of(const struct sampler *sampler, int64_t step, int rank) {
  return shards_from(sampler, step, sampler_first_shard(sampler, rank), sampler_first_shard(sampler, rank + 1));
}

struct shard sampler_shard(const struct sampler *sampler, int64_t step) {
  return sampler_shard_of(sampler, step, sampler->rank);
}

struct shard sampler_virtual_shard(const struct sampler *sampler, int64_t step, int shard) {
  return shards_from(sampler, step, shard, shard + 1);
}

/* Of `shards` neighbouring shards. */
static int64_t most_rows_of(const struct sampler *sampler, int64_t shards) {
  int64_t rows = sampler->rows < sampler->batch ? sampler->rows : sampler->batch, all = sampler_shards(sampler);
  return (rows * shards + all - 1) / all;
}

int64_t sampler_most_rows(const struct sampler *sampler) {
  return most_rows_of(sampler, sampler_most_shards(sampler));
}

int64_t sampler_most_shard_rows(const struct sampler *sampler) {
  return most_rows_of(sampler, 1);
}

int64_t sampler_sample(const struct sampler *sampler, int64_t epoch, int64_t position) {
  if (!sampler->shuffle)
    return position;
  struct random_key key = random_key(sampler->seed, RANDOM_SHUFFLE, (uint64_t)epoch);
  return (int64_t)random_permute(key, (uint64_t)sampler->rows, (uint64_t)position);
}
