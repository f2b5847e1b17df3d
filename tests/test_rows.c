/* Regularisers on gathered rows on 1 to 4 ranks: the properties of tests/ranks/rank_rows.c. */
#include "loss/accon.h"
#include "loss/ranksim.h"
#include "loss/rnc.h"
#include "loss/srl.h"
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <string.h>

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

Test(srl, value_and_gradient_are_those_of_the_joint_batch, .timeout = 240) {
  holds("equal", "srl");
}

Test(srl, gradient_agrees_with_finite_differences, .timeout = 240) {
  holds("finite", "srl");
}

Test(srl, edges_of_the_definition, .timeout = 240) {
  holds("edges", "srl");
}

Test(srl, a_bad_value_is_a_sentence_on_all_ranks, .timeout = 240) {
  holds("nonfinite", "srl");
}

Test(ranksim, a_batch_seen_before_allocates_nothing, .timeout = 240) {
  holds("reuse", "ranksim");
}

Test(rnc, a_batch_seen_before_allocates_nothing, .timeout = 240) {
  holds("reuse", "rnc");
}

Test(accon, a_batch_seen_before_allocates_nothing, .timeout = 240) {
  holds("reuse", "accon");
}

Test(srl, a_batch_seen_before_allocates_nothing, .timeout = 240) {
  holds("reuse", "srl");
}

Test(srl, a_label_without_a_bin_is_a_sentence_and_bins_without_rows_take_no_part, .timeout = 240) {
  holds("outside", "srl");
}

Test(srl, running_means_are_kept_by_the_state, .timeout = 240) {
  holds("epochs", "srl");
}

/* ---- options ---- */

/* Did create refuse with a sentence that holds `part`? */
#define REFUSES(call, part)                                                                 \
  do {                                                                                      \
    cr_assert(eq(int, (int)(call), ERR_ARGUMENT), "%s", part);                              \
    cr_assert(ne(ptr, strstr(status_message(), part), NULL), "said: %s", status_message()); \
  } while (0)

Test(ranksim, options_that_cannot_be_are_refused) {
  struct ranksim *ranksim;
  REFUSES(ranksim_create(&(struct ranksim_options){.lambda = 0}, 4, 1, F32, &ranksim), "lambda is 0");
  REFUSES(ranksim_create(&(struct ranksim_options){.lambda = -1}, 4, 1, F32, &ranksim), "lambda is -1");
  REFUSES(ranksim_create(&(struct ranksim_options){.lambda = 2}, 0, 1, F32, &ranksim), "features is 0");
  REFUSES(ranksim_create(&(struct ranksim_options){.lambda = 2}, 4, 1, BF16, &ranksim), "not in bf16");
}

Test(rnc, options_that_cannot_be_are_refused) {
  struct rnc *rnc;
  REFUSES(rnc_create(&(struct rnc_options){.temperature = 0}, 4, 1, F32, &rnc), "temperature is 0");
  REFUSES(rnc_create(&(struct rnc_options){.temperature = INFINITY}, 4, 1, F32, &rnc), "temperature is inf");
  REFUSES(rnc_create(&(struct rnc_options){.temperature = 2}, 4, 0, F32, &rnc), "targets is 0");
}

Test(accon, options_that_cannot_be_are_refused) {
  struct accon *accon;
  struct accon_options options;
  accon_options_default(&options);
  REFUSES(accon_create(&options, 4, 2, F32, &accon), "2 components");
  double *const values[] = {&options.temperature, &options.base_temperature, &options.range, &options.tau};
  static const char *const parts[] = {"temperature is -1", "base temperature is -1", "range of labels is -1",
                                      "tau is -1"};
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
    double kept = *values[i];
    *values[i] = -1;
    REFUSES(accon_create(&options, 4, 1, F32, &accon), parts[i]);
    *values[i] = kept;
  }
}

Test(srl, options_that_cannot_be_are_refused) {
  struct srl *srl;
  struct srl_options options;
  srl_options_default(&options);
  REFUSES(srl_create(&options, 4, 2, F32, &srl), "2 components");
  options.temperature = 0;
  REFUSES(srl_create(&options, 4, 1, F32, &srl), "temperature is 0");
  srl_options_default(&options);
  options.momentum = 1;
  REFUSES(srl_create(&options, 4, 1, F32, &srl), "momentum is 1");
  srl_options_default(&options);
  options.bins = 0;
  REFUSES(srl_create(&options, 4, 1, F32, &srl), "0 bins");
  srl_options_default(&options);
  options.points = 0;
  REFUSES(srl_create(&options, 4, 1, F32, &srl), "0 points");
  srl_options_default(&options);
  options.bin_width = 0;
  REFUSES(srl_create(&options, 4, 1, F32, &srl), "0 wide");
  srl_options_default(&options);
  options.weight_enveloping = NAN;
  REFUSES(srl_create(&options, 4, 1, F32, &srl), "enveloping weight is nan");
}
