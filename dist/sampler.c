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

struct shard sampler_shard_of(const struct sampler *sampler, int64_t step, int rank) {
  int64_t rows = sampler_batch_rows(sampler, step);
  int64_t begin = rows * rank / sampler->size;
  int64_t end = rows * (rank + 1) / sampler->size;
  return (struct shard){step * sampler->batch + begin, end - begin};
}

struct shard sampler_shard(const struct sampler *sampler, int64_t step) {
  return sampler_shard_of(sampler, step, sampler->rank);
}

int64_t sampler_most_rows(const struct sampler *sampler) {
  int64_t rows = sampler->rows < sampler->batch ? sampler->rows : sampler->batch;
  return (rows + sampler->size - 1) / sampler->size;
}

int64_t sampler_sample(const struct sampler *sampler, int64_t epoch, int64_t position) {
  if (!sampler->shuffle)
    return position;
  struct random_key key = random_key(sampler->seed, RANDOM_SHUFFLE, (uint64_t)epoch);
  return (int64_t)random_permute(key, (uint64_t)sampler->rows, (uint64_t)position);
}
