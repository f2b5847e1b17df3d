/* Regularisers on gathered rows on 1 to 4 ranks: the properties of tests/ranks/rank_rows.c. */
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

static void holds(const char *property, const char *method) {
  const char *const arguments[] = {property, method, NULL};
  for (int ranks = 1; ranks <= 4; ranks++) {
    struct run_result run;
    int status = run_ranks(ranks, "rank_rows", arguments, &run);
    cr_assert(eq(int, status, 0), "%s of %s on %d ranks:\n%s", property, method, ranks, run.output);
    run_result_free(&run);
  }
}

Test(ranksim, value_and_gradient_are_those_of_the_joint_batch, .timeout = 240) {
  holds("equal", "ranksim");
}

Test(ranksim, edges_of_the_definition, .timeout = 240) {
  holds("edges", "ranksim");
}

Test(ranksim, a_bad_value_is_a_sentence_on_all_ranks, .timeout = 240) {
  holds("nonfinite", "ranksim");
}

Test(ranksim, one_row_a_label_is_drawn_whatever_the_shares, .timeout = 240) {
  holds("draws", "ranksim");
}

Test(rnc, value_and_gradient_are_those_of_the_joint_batch, .timeout = 240) {
  holds("equal", "rnc");
}

Test(rnc, gradient_agrees_with_finite_differences, .timeout = 240) {
  holds("finite", "rnc");
}

Test(rnc, edges_of_the_definition, .timeout = 240) {
  holds("edges", "rnc");
}

Test(rnc, a_bad_value_is_a_sentence_on_all_ranks, .timeout = 240) {
  holds("nonfinite", "rnc");
}

Test(accon, value_and_gradient_are_those_of_the_joint_batch, .timeout = 240) {
  holds("equal", "accon");
}

Test(accon, gradient_agrees_with_finite_differences, .timeout = 240) {
  holds("finite", "accon");
}

Test(accon, edges_of_the_definition, .timeout = 240) {
  holds("edges", "accon");
}

Test(accon, a_bad_value_is_a_sentence_on_all_ranks, .timeout = 240) {
  holds("nonfinite", "accon");
}
