/* The global ConR loss on 1 to 4 ranks: the properties of tests/ranks/rank_conr.c. */
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>

static void holds(const char *property) {
  const char *const arguments[] = {property, NULL};
  for (int ranks = 1; ranks <= 4; ranks++) {
    struct run_result run;
    int status = run_ranks(ranks, "rank_conr", arguments, &run);
    cr_assert(eq(int, status, 0), "%s on %d ranks:\n%s", property, ranks, run.output);
    run_result_free(&run);
  }
}

Test(conr, loss_and_gradient_are_those_of_the_joint_batch, .timeout = 240) {
  holds("equal");
}

Test(conr, classic_mistakes_are_told_apart, .timeout = 240) {
  holds("mutants");
}

Test(conr, gradient_agrees_with_finite_differences, .timeout = 240) {
  holds("finite");
}

Test(conr, edges_of_the_definition, .timeout = 240) {
  holds("edges");
}

Test(conr, a_bad_value_on_one_rank_is_a_sentence_on_all, .timeout = 240) {
  holds("nonfinite");
}

Test(conr, bytes_received_are_those_of_the_plan, .timeout = 240) {
  holds("traffic");
}

Test(conr, workspace_is_the_gathered_batch_and_one_panel_a_thread, .timeout = 240) {
  holds("memory");
}

Test(conr, calls_of_changing_size_leave_nothing_behind, .timeout = 240) {
  holds("reuse");
}

Test(conr, a_batch_that_cannot_be_is_a_sentence_on_all, .timeout = 240) {
  holds("faults");
}

Test(conr, wide_label_ranges_keep_float32_gradients, .timeout = 240) {
  holds("wide");
}

Test(conr, more_threads_than_panels_change_rounding_alone, .timeout = 240) {
  holds("threads");
}

/* oneDNN's kernels for older processors round a product's edges in other ways. */
Test(conr, shares_do_not_matter_with_the_kernels_of_older_processors, .timeout = 240) {
  static const char *const levels[] = {"SSE41", "AVX2"};
  for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
    setenv("DNNL_MAX_CPU_ISA", levels[i], 1);
    holds("equal");
  }
}
