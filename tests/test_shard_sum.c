/* Sums over virtual shards, and the exchange that they travel by: tests/ranks/rank_shard_sum.c on 1 to 5 ranks. */
#include "run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

Test(shard_sum, has_the_bits_of_its_tree_on_1_to_5_ranks, .timeout = 320) {
  for (int ranks = 1; ranks <= 5; ranks++) {
    struct run_result run;
    int status = run_ranks(ranks, "rank_shard_sum", NULL, &run);
    cr_assert(eq(int, status, 0), "%d ranks:\n%s", ranks, run.output);
    run_result_free(&run);
  }
}
