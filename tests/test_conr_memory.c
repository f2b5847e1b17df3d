/* ConR with a memory of earlier rows, on 1 to 4 ranks: the cases of tests/ranks/rank_conr_memory.c. */
#include "run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

static void holds_on(int ranks, const char *name) {
  const char *const arguments[] = {name, NULL};
  struct run_result run;
  int status = run_ranks(ranks, "rank_conr_memory", arguments, &run);
  cr_assert(eq(int, status, 0), "%s on %d ranks:\n%s", name, ranks, run.output);
  run_result_free(&run);
}

Test(conr_memory, holds_the_batch_against_rows_of_earlier_ones, .timeout = 240) {
  for (int ranks = 1; ranks <= 4; ranks++)
    holds_on(ranks, "rows_are_held_against_those_of_earlier_batches");
}

Test(conr_memory, has_the_gradient_of_its_loss_and_none_through_what_is_remembered, .timeout = 240) {
  holds_on(3, "gradient_agrees_with_finite_differences");
}

Test(conr_memory, changes_nothing_while_it_is_empty, .timeout = 240) {
  holds_on(3, "an_empty_memory_leaves_the_bits");
}

Test(conr_memory, can_be_put_back, .timeout = 240) {
  holds_on(3, "a_state_that_is_put_back_goes_on_with_the_same_bits");
}

Test(conr_memory, takes_its_room_at_once, .timeout = 240) {
  holds_on(2, "it_takes_no_memory_after_the_first_batch");
}
