/* A training step in virtual shards (dist/sampler.h): what must have the same bits on any number of ranks is made shard
 * by shard and added up in the tree of dist/shard_sum.h.  That is the gradients of the parameters, the numbers of the
 * step, and what batch norm's running statistics follow.
 *
 *     struct shards *shards;
 *     TRY(shards_create(comm, net, sampler, numbers, groups, &shards));
 *     each step:
 *       shards_begin(shards, step);
 *       for each shard i of this rank:
 *         ... a pass through the network; what it counts goes to shards_numbers(shards, i) ...
 *         TRY(shards_take_statistics(shards, i, group));             behind each pass whose statistics count
 *         TRY(shards_add_gradients(shards));                         once net_learned().gradients are the shard's
 *       TRY(shards_finish(shards, sums));                            collective: gradients and sums are those of all
 *     shards_destroy(&shards);
 *
 * On the host.  Memory: shards_bytes(), for gradients a few times the parameters; see dist/shard_sum.h. */
#ifndef CONR_LAUNCH_SHARDS_H
#define CONR_LAUNCH_SHARDS_H

#include "dist/sampler.h"
#include "dist/shard_sum.h"
#include "model/net.h"

struct shards;

/* comm, net, sampler  borrowed: must outlive this
 * numbers             of a step, in double
 * groups              passes of a step that batch norm's running statistics follow, one step each
 * Local. */
enum status shards_create(struct comm *comm, struct net *net, const struct sampler *sampler, size_t numbers,
                          size_t groups, struct shards **out);
void shards_destroy(struct shards **shards); /* NULL is fine */

size_t shards_bytes(const struct shards *shards);

/* Pieces in which the gradients travel. */
size_t shards_pieces(const struct shards *shards);

/* step: of the epoch.  Local. */
void shards_begin(struct shards *shards, int64_t step);

/* Of this rank, and its samples first .. first + rows - 1 that make up shard i; none from shards_own() on. */
int shards_own(const struct shards *shards);
struct shard shards_samples(const struct shards *shards, int64_t i);

/* Of the step at hand: samples of each shard [shards], and shards of each rank [ranks]; borrowed. */
const int64_t *shards_samples_of_shard(const struct shards *shards);
const int *shards_of_rank(const struct shards *shards);

/* The numbers of own shard i, 0 at first. */
double *shards_numbers(struct shards *shards, int64_t i);

/* What batch norm has seen since the last call belongs to this group of own shard i.  Local. */
enum status shards_take_statistics(struct shards *shards, int64_t i, size_t group);

/* For own shards in order.  Local. */
enum status shards_add_gradients(struct shards *shards);

/* numbers [numbers], overwritten: the sums over all shards; net_learned().gradients become the sum, and the running
 * statistics take their steps, group by group.  Collective. */
enum status shards_finish(struct shards *shards, double *numbers);

#endif
