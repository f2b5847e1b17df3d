/* The losses of a GPU on 1 to 4 ranks: the properties of tests/ranks/rank_device_conr.c, and the shared arithmetic on
 * the host.  Without a GPU over the emulation; CONR_TEST_DEVICE=cuda takes the backend beside the program and real
 * GPUs. */
#include "loss/pair.h"
#include "tests/emulated.h"
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void need_device(void) {
  if (!gpu_use())
    cr_skip("there is no emulated CUDA library");
}

/* Print the program's own "golden ..." line; all rank counts run the same cases, so once is enough. */
static void print_golden_line(const char *output) {
  const char *line = strstr(output, "golden ");
  if (line != NULL)
    printf("%.*s, on a device\n", (int)strcspn(line, "\n"), line);
}

static void holds_on(int least, int most, const char *property, const char *file) {
  const char *const arguments[] = {property, file, NULL};
  need_device();
  for (int ranks = least; ranks <= most; ranks++) {
    struct run_result run;
    int status = run_ranks_within(180, ranks, "rank_device_conr", arguments, &run);
    cr_assert(eq(int, status, 0), "%s %s on %d ranks:\n%s", property, file == NULL ? "" : file, ranks, run.output);
    if (ranks == 1)
      print_golden_line(run.output);
    run_result_free(&run);
  }
}

Test(device_loss, stored_cases_of_the_paper_variant, .timeout = 730) {
  holds_on(1, 4, "golden", "conr_paper.h5");
}

Test(device_loss, stored_cases_of_the_reference_variant, .timeout = 730) {
  holds_on(1, 4, "golden", "conr_reference.h5");
}

Test(device_loss, stored_cases_of_the_depth_variant, .timeout = 730) {
  holds_on(1, 4, "golden", "conr_nyud2.h5");
}

Test(device_loss, stored_cases_with_labels_of_several_components, .timeout = 730) {
  holds_on(1, 4, "golden", "conr_multidim.h5");
}

Test(device_loss, loss_and_gradient_are_those_of_the_host, .timeout = 730) {
  holds_on(1, 3, "equal", NULL);
}

Test(device_loss, edges_of_the_definition_and_calls_of_changing_size, .timeout = 730) {
  holds_on(1, 4, "edges", NULL);
}

Test(device_loss, a_bad_value_on_one_rank_is_a_sentence_on_all, .timeout = 730) {
  holds_on(1, 4, "nonfinite", NULL);
}

Test(device_loss, what_cannot_be_computed_is_refused_on_all_ranks, .timeout = 730) {
  holds_on(1, 3, "refused", NULL);
}

Test(device_loss, memory_is_the_gathered_batch_and_one_panel, .timeout = 730) {
  holds_on(1, 3, "memory", NULL);
}

Test(device_loss, the_path_is_the_one_that_evaluates_fewer_pairs, .timeout = 730) {
  holds_on(1, 2, "paths", NULL);
}

/* By MPI through host memory, and by NCCL, for which each rank has a GPU of its own. */
Test(device_loss, rows_in_pieces_give_the_bits_of_the_undivided_batch, .timeout = 730) {
  char folder[] = "/tmp/conr-device-loss-XXXXXX";
  holds_on(1, 4, "pieces", NULL);
  if (getenv("CONR_TEST_DEVICE") != NULL)
    return; /* real ones may be fewer */
  cr_assert(ne(ptr, mkdtemp(folder), NULL));
  setenv("EMULATED_NCCL_FOLDER", folder, 1);
  setenv("EMULATED_CUDA_DEVICES", "4", 1);
  setenv("CONR_TEST_TRANSPORT", "nccl", 1);
  holds_on(2, 3, "pieces", NULL); /* the emulation's NCCL is slow, and the placing of rows is the same code */
  char command[128];
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  cr_assert(eq(int, system(command), 0));
}

Test(device_loss, pointwise_losses_are_those_of_the_host, .timeout = 730) {
  holds_on(1, 1, "pointwise", NULL);
}

/* --- the arithmetic of a pair, which the kernels share: against the formulas of conr.h ---------------------------- */

static const struct pair_rule base = {
    .distance = PAIR_EUCLIDEAN, .w = 1, .temperature = 0.07, .push_constant = 1, .push_rate = 0.01};

Test(pair, limits_are_inclusive_and_the_row_itself_is_neither) {
  struct pair_rule rule = base;
  pair_rule_span(&rule, 50, PAIR_EXPONENTS_F32);
  struct pair_numbers_f32 numbers = pair_numbers_of_f32(&rule);
  struct pair_part_f32 part = pair_part_of_f32(&numbers, PAIRS_BOTH, 3, 1, 9);
  cr_assert(part.positive == 1 && part.negative == 0);
  part = pair_part_of_f32(&numbers, PAIRS_BOTH, 3, 1.5f, 1);
  cr_assert(part.positive == 0 && part.negative == 1 && part.pull == 0 && part.similarity == 0);
  part = pair_part_of_f32(&numbers, PAIRS_BOTH, 3, 1.5f, 1.5f);
  cr_assert(part.positive == 0 && part.negative == 0 && part.push == 0);
  part = pair_part_of_f32(&numbers, PAIRS_BOTH, 3, NAN, 0);
  cr_assert(part.positive == 0 && part.negative == 0 && part.pull == 0 && part.push == 0);
  part = pair_part_of_f32(&numbers, PAIRS_POSITIVE, 3, 1.5f, 1);
  cr_assert(part.negative == 0 && part.push == 0);
  part = pair_part_of_f32(&numbers, PAIRS_BOTH, 3, INFINITY, INFINITY); /* what columns are filled up with */
  cr_assert(part.positive == 0 && part.negative == 0 && part.pull == 0 && part.push == 0);
  for (int distance = PAIR_EUCLIDEAN; distance <= PAIR_CHEBYSHEV; distance++)
    cr_assert(isinf(pair_distance_end_f32((enum pair_distance)distance,
                                          pair_distance_add_f32((enum pair_distance)distance, 0, 3 - INFINITY))));
}

/* One row with three columns, by hand, in both forms; the rounding of float32 is multiplied by a few. */
Test(pair, shifted_and_wide_sums_are_the_formulas) {
  const double s[] = {12, -3, 7.5}, d[] = {0.5, 20, 30}, weight = 1.5;
  double log_d = log(exp(s[0]) + weight * (exp(0.01 * 20 + s[1]) + exp(0.01 * 30 + s[2])));
  for (int form = 0; form < 2; form++) {
    struct pair_rule rule = base;
    struct pair_sums sums;
    pair_rule_span(&rule, 60, form ? 1 : PAIR_EXPONENTS_F32);
    cr_assert(eq(int, rule.wide, form));
    struct pair_numbers_f64 numbers = pair_numbers_of_f64(&rule);
    pair_sums_begin(&sums);
    for (int j = 0; j < 3; j++) {
      struct pair_part_f64 part = pair_part_of_f64(&numbers, PAIRS_BOTH, s[j], d[j], 0.5);
      struct pair_sums more;
      pair_sums_begin(&more);
      if (form)
        pair_add_wide_f64(&numbers, PAIRS_BOTH, s[j], d[j], 0.5, &more);
      else
        more = (struct pair_sums){part.positive, part.negative, part.similarity, part.pull, part.push, 0, 0};
      pair_sums_join(rule.wide, &sums, &more);
    }
    struct pair_row row = pair_row_of(&rule, 4, 4, &sums, weight);
    cr_assert(row.active && sums.positives == 1 && sums.negatives == 2);
    cr_assert(ieee_ulp_eq(dbl, row.loss, (log_d - s[0]) / 4, 16), "%.17g and %.17g", row.loss, (log_d - s[0]) / 4);
    double u = form ? row.u : log(row.u) - rule.shift;
    cr_assert(fabs(u - (log(0.25) - log_d)) < 1e-13, "%.17g", u);
    cr_assert(eq(dbl, row.second, 0.25));
  }
}

Test(pair, both_forms_give_one_coefficient) {
  struct pair_rule shifted = base, wide = base;
  pair_rule_span(&shifted, 60, PAIR_EXPONENTS_F64);
  pair_rule_span(&wide, 60, 1);
  const double log_u[] = {-9, -12}, second[] = {0.25, 0.125}, weight[] = {1.5, 0.5};
  for (int of_mean = 0; of_mean < 2; of_mean++) {
    struct pair_scales narrow[2], logs[2];
    shifted.log_of_mean = wide.log_of_mean = of_mean;
    for (int i = 0; i < 2; i++) {
      double log_x = log_u[i] - 1;
      narrow[i] = pair_scales_of(&shifted, exp(log_u[i] + shifted.shift),
                                 of_mean ? exp(log_x + shifted.shift) : second[i], weight[i]);
      logs[i] = pair_scales_of(&wide, log_u[i], of_mean ? log_x : second[i], weight[i]);
    }
    for (int pair = 0; pair < 3; pair++) {
      double d = pair == 0 ? 0.5 : 20, dp = pair == 2 ? 3 : 0.5, s = 6;
      struct pair_numbers_f64 one = pair_numbers_of_f64(&shifted), other = pair_numbers_of_f64(&wide);
      double narrow_h =
          pair_coefficient_f64(&one, PAIRS_BOTH, s, d, dp, narrow[0].positive + narrow[1].positive,
                               narrow[0].negative + narrow[1].negative, narrow[0].subtract + narrow[1].subtract);
      double wide_h = pair_coefficient_wide_f64(&other, PAIRS_BOTH, s, d, dp, &logs[0], &logs[1]);
      cr_assert(fabs(narrow_h - wide_h) <= 1e-13 * fabs(wide_h), "%.17g and %.17g", narrow_h, wide_h);
      bool nothing = wide_h == 0;
      cr_assert(eq(int, nothing, pair == 2));
    }
  }
}

Test(pair, exponential_is_within_two_units_in_the_last_place) {
  for (double x = -86.5; x < 88; x += 0.0137) {
    double wanted = exp((double)(float)x), got = (double)pair_exp_f32((float)x);
    cr_assert(fabs(got - wanted) <= 2 * wanted * 0x1p-23, "exp(%g) is %g", x, got);
  }
  cr_assert(eq(flt, pair_exp_f32(-88), 0));
}

/* Distances of several components decide masks: what was taken by way of double must stay, bit by bit. */
Test(pair, roots_have_the_bits_of_double_ones) {
  for (uint32_t bits = 0; bits <= 0x7f800000u; bits += 977) {
    float x, got, wanted;
    memcpy(&x, &bits, sizeof x);
    got = pair_root_f32(x);
    wanted = (float)sqrt((double)x);
    cr_assert(memcmp(&got, &wanted, sizeof got) == 0, "the root of %a is %a, wanted %a", x, got, wanted);
  }
}
