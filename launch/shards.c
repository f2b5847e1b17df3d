/* Gradients, numbers and statistics of virtual shards. */
#include "launch/shards.h"

#include "dist/memory.h"

#include <string.h>

struct shards {
  struct net *net;               /* borrowed */
  const struct sampler *sampler; /* borrowed */
  size_t numbers, statistics, groups;
  size_t width; /* of a shard's doubles: the numbers, then the statistics of each group */
  int own;
  int64_t *samples_of_shard;             /* [shards] of the step at hand       */
  int *of_rank;                          /* [ranks]                            */
  double *doubles, *total;               /* [own, width], [width]              */
  struct shard_sum *gradients, *of_them; /* the sums of gradients, and of doubles */
};

static enum status make_all(struct shards *own, struct comm *comm) {
  const struct sampler *sampler = own->sampler;
  struct parameters learned = net_learned(own->net);
  int shards = sampler_shards(sampler);
  TRY(memory_alloc((size_t)shards * sizeof *own->samples_of_shard, (void **)&own->samples_of_shard));
  TRY(memory_alloc((size_t)sampler->size * sizeof *own->of_rank, (void **)&own->of_rank));
  TRY(memory_alloc((size_t)own->own * own->width * sizeof(double), (void **)&own->doubles));
  TRY(memory_alloc(own->width * sizeof(double), (void **)&own->total));
  TRY(shard_sum_create(comm, net_ops(own->net)->parameter_dtype, learned.elements, shards, &own->gradients));
  return shard_sum_create(comm, F64, own->width, shards, &own->of_them);
}

enum status shards_create(struct comm *comm, struct net *net, const struct sampler *sampler, size_t numbers,
                          size_t groups, struct shards **out) {
  struct shards *own;
  *out = NULL;
  TRY(memory_alloc_zero(sizeof *own, (void **)&own));
  own->net = net;
  own->sampler = sampler;
  own->numbers = numbers;
  own->statistics = net_statistics(net);
  own->groups = groups;
  own->width = numbers + groups * own->statistics;
  own->own = sampler_first_shard(sampler, sampler->rank + 1) - sampler_first_shard(sampler, sampler->rank);
  enum status status = make_all(own, comm);
  if (status != STATUS_OK)
    shards_destroy(&own);
  *out = own;
  return status;
}

void shards_destroy(struct shards **shards) {
  struct shards *own = *shards;
  if (own == NULL)
    return;
  shard_sum_destroy(&own->of_them);
  shard_sum_destroy(&own->gradients);
  memory_free((void **)&own->total);
  memory_free((void **)&own->doubles);
  memory_free((void **)&own->of_rank);
  memory_free((void **)&own->samples_of_shard);
  memory_free((void **)shards);
}

size_t shards_bytes(const struct shards *own) {
  return shard_sum_bytes(own->gradients) + shard_sum_bytes(own->of_them) +
         ((size_t)own->own + 1) * own->width * sizeof(double);
}

size_t shards_pieces(const struct shards *own) {
  return shard_sum_pieces(own->gradients);
}

/* --- a step ------------------------------------------------------------------------------------------------- */

void shards_begin(struct shards *own, int64_t step) {
  const struct sampler *sampler = own->sampler;
  for (int shard = 0; shard < sampler_shards(sampler); shard++)
    own->samples_of_shard[shard] = sampler_virtual_shard(sampler, step, shard).rows;
  for (int rank = 0; rank < sampler->size; rank++)
    own->of_rank[rank] = sampler_first_shard(sampler, rank + 1) - sampler_first_shard(sampler, rank);
  memset(own->doubles, 0, (size_t)own->own * own->width * sizeof(double));
  shard_sum_begin(own->gradients);
  shard_sum_begin(own->of_them);
}

int shards_own(const struct shards *own) {
  return own->own;
}

struct shard shards_samples(const struct shards *own, int64_t i) {
  const int64_t *of_shard = own->samples_of_shard + sampler_first_shard(own->sampler, own->sampler->rank);
  struct shard samples = {0, 0};
  for (int64_t before = 0; before < i && before < own->own; before++)
    samples.first += of_shard[before];
  samples.rows = i < own->own ? of_shard[i] : 0;
  return samples;
}

const int64_t *shards_samples_of_shard(const struct shards *own) {
  return own->samples_of_shard;
}

const int *shards_of_rank(const struct shards *own) {
  return own->of_rank;
}

double *shards_numbers(struct shards *own, int64_t i) {
  return own->doubles + (size_t)i * own->width;
}

enum status shards_take_statistics(struct shards *own, int64_t i, size_t group) {
  return net_take_statistics(own->net, shards_numbers(own, i) + own->numbers + group * own->statistics);
}

enum status shards_add_gradients(struct shards *own) {
  return shard_sum_add(own->gradients, net_learned(own->net).gradients);
}

enum status shards_finish(struct shards *own, double *numbers) {
  for (int64_t i = 0; i < own->own; i++)
    TRY(shard_sum_add(own->of_them, shards_numbers(own, i)));
  TRY(shard_sum_finish(own->gradients, net_learned(own->net).gradients));
  TRY(shard_sum_finish(own->of_them, own->total));
  memcpy(numbers, own->total, own->numbers * sizeof(double));
  for (size_t group = 0; group < own->groups; group++)
    TRY(net_step_statistics(own->net, own->total + own->numbers + group * own->statistics));
  return STATUS_OK;
}
