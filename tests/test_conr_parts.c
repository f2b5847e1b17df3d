/* ConR whose rows come block by block, on 1 to 4 ranks: the cases of tests/ranks/rank_conr_parts.c. */
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

static void holds(const char *name) {
  const char *const arguments[] = {name, NULL};
  for (int ranks = 1; ranks <= 4; ranks++) {
    struct run_result run;
    int status = run_ranks(ranks, "rank_conr_parts", arguments, &run);
    cr_assert(eq(int, status, 0), "%s on %d ranks:\n%s", name, ranks, run.output);
    run_result_free(&run);
  }
}

Test(conr_parts, have_the_bits_of_the_undivided_batch, .timeout = 240) {
  holds("pieces_have_the_bits_of_the_whole");
  holds("pieces_may_be_empty_on_all_ranks");
}

Test(conr_parts, take_no_memory_after_the_first_batch, .timeout = 240) {
  holds("batches_after_the_first_take_no_memory");
}

Test(conr_parts, travel_while_the_next_rows_are_made, .timeout = 240) {
  holds("each_piece_arrives_before_the_next_is_added");
  holds("what_the_other_ranks_have_not_sent_is_waited_for");
}

Test(conr_parts, a_fault_in_one_of_them_is_a_sentence_on_all, .timeout = 240) {
  holds("a_fault_in_one_piece_is_a_sentence_on_all");
}

Test(conr_parts, in_another_order_are_refused, .timeout = 240) {
  holds("calls_in_another_order_are_refused");
}
