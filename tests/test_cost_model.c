/* The cost model: the table that was published with its formulas, from the machine file that comes with the program;
 * fits of measured steps, which find the parameters that the steps were made with, or say that they cannot. */
#include "launch/cost_model.h"

#include "dist/random.h"
#include "launch/machine_file.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the table ------------------------------------------------------------------------------------------------ */

/* As printed in the notes: 512 rows of a GPU, D = 2048, 16 bits, a backbone of 190 ms. */
struct row {
  double ranks;
  const char *gathered; /* MB, or GB where it has a point */
  const char *ring, *log, *statistics_us, *panels, *reduce, *share;
};

/* Cells that the notes' own formulas do not give are those that these give, with the notes' text in a comment:
 * the share there left out the small gather and the sum of the gradients, which belong to a step in which nothing is
 * overlapped; one cell of the small gather has the ring's bytes (43.57), where the column of the large one has those of
 * the log form; and 60 % of 989 TFLOP/s was rounded to 593 before panels of 0.6948 ms were rounded to 0.70. */
static const struct row table[] = {
    {1, "2", "0", "0", "0", "0.005", "0", "0.00"},
    {2, "4", "0.007", "0.007", "2", "0.011", "0.27", "0.01"},
    {4, "8", "0.021", "0.021", "5", "0.022", "0.41", "0.02"},
    {8, "17", "0.049", "0.049", "11", "0.043", "0.49", "0.05"},
    {16, "34", "0.13", "0.09", "17", "0.087", "0.60", "0.10"}, /* 0.09 */
    {64, "134", "0.52", "0.37", "29", "0.35", "0.65", "0.4"},
    {128, "268", "1.05", "0.78", "36", "0.69", "0.67", "0.8"}, /* 0.70 */
    {256, "537", "2.1", "1.6", "43", "1.4", "0.68", "1.6"},    /* 44, 1.5 */
    {512, "1.07", "4.2", "3.2", "53", "2.8", "0.69", "3.0"},
    {1024, "2.15", "8.4", "6.3", "65", "5.6", "0.71", "5.9"},
    {2048, "4.3", "17", "13", "83", "11", "0.72", "11"},
    {4096, "8.6", "34", "25", "114", "22", "0.73", "20"},
};

/* `value` with as many digits behind the point as the printed one. */
static void expect_printed(double value, const char *printed, const char *what, double ranks) {
  char text[64];
  const char *point = strchr(printed, '.');
  snprintf(text, sizeof text, "%.*f", point != NULL ? (int)strlen(point + 1) : 0, value);
  cr_expect(eq(str, text, (char *)printed), "%s of %g ranks is %.9g", what, ranks, value);
}

static struct machine_file shipped(void) {
  struct machine_file machine;
  cr_assert(eq(int, machine_file_read("launch/machines/h200-ndr400.ini", &machine), 0), "%s", status_message());
  return machine;
}

Test(cost_model, the_shipped_machine_gives_the_published_table) {
  struct machine_file file = shipped();
  cr_assert(epsilon_eq(dbl, 1e3 * file.work.per_row * 512, 190, 1e-9));
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    const struct row *row = &table[i];
    struct cost cost = cost_of_step(&file.machine, &file.work, row->ranks, 512);
    bool giga = strchr(row->gathered, '.') != NULL;
    expect_printed(cost.gathered_bytes / (giga ? 1e9 : 1e6), row->gathered, "what is gathered", row->ranks);
    expect_printed(1e3 * cost.gather_ring, row->ring, "the gather around a ring", row->ranks);
    expect_printed(1e3 * cost.gather, row->log, "the gather", row->ranks);
    expect_printed(1e6 * cost.statistics, row->statistics_us, "the small gather", row->ranks);
    expect_printed(1e3 * cost.panels, row->panels, "panels", row->ranks);
    expect_printed(1e3 * cost.reduce, row->reduce, "the sum of the gradients", row->ranks);
    expect_printed(100 * (cost.share_gather + cost.share_panels), row->share, "ConR's share", row->ranks);
    double step = cost.compute + cost.panels + cost.gather + cost.statistics + cost.reduce;
    cr_expect(ieee_ulp_eq(dbl, cost.step, step, 4));
  }
}

/* The notes' shares are those of the two large terms alone, beside the backbone's time alone. */
Test(cost_model, the_two_shares_that_differ_are_the_published_ones_without_the_small_terms) {
  struct machine_file file = shipped();
  static const struct {
    double ranks, rows;
    const char *published;
  } cells[] = {{16, 512, "0.09"}, {256, 512, "1.5"}, {4096, 16, "13"}};
  for (size_t i = 0; i < sizeof cells / sizeof *cells; i++) {
    struct cost cost = cost_of_step(&file.machine, &file.work, cells[i].ranks, cells[i].rows);
    double terms = cost.gather + cost.panels;
    expect_printed(100 * terms / (cost.compute + terms), cells[i].published, "the published share", cells[i].ranks);
  }
}

Test(cost_model, the_batch_of_65536_rows_gives_the_published_shares) {
  struct machine_file file = shipped();
  static const struct {
    double ranks;
    const char *share;
  } cells[] = {{8, "0.4"}, {64, "0.6"}, {512, "2"}, {4096, "12"}}; /* 13, see above */
  for (size_t i = 0; i < sizeof cells / sizeof *cells; i++) {
    struct cost cost = cost_of_step(&file.machine, &file.work, cells[i].ranks, file.fixed_rows / cells[i].ranks);
    expect_printed(100 * (cost.share_gather + cost.share_panels), cells[i].share, "the share", cells[i].ranks);
  }
}

/* --- fits ----------------------------------------------------------------------------------------------------- */

/* What the steps are made with. */
static const double truth[] = {[COST_FIXED] = 2e-3,           [COST_SAMPLE] = 3e-5,         [COST_PANELS_FIXED] = 1e-4,
                               [COST_FLOP] = 2e-11,           [COST_LATENCY_INSIDE] = 4e-6, [COST_BYTE_INSIDE] = 2e-10,
                               [COST_LATENCY_BETWEEN] = 5e-5, [COST_BYTE_BETWEEN] = 9e-9};

#define MOST_STEPS 64

/* Steps of `ranks` on `nodes`, 64 features: their times are the model's with the true parameters, by its own forward
 * direction, times 1 + noise. */
static int add_step(struct cost_sample *samples, int count, double ranks, double nodes, double batch, double noise) {
  struct cost_sample *sample = &samples[count];
  struct random_key key = random_key(7, RANDOM_TEST, 0);
  struct cost_fit exact = {0};
  double rows = 2 * batch;
  for (int i = 0; i < COST_PARAMETERS; i++)
    exact.parameter[i].value = truth[i];
  *sample = (struct cost_sample){.ranks = ranks,
                                 .nodes = nodes,
                                 .samples = batch / ranks,
                                 .flops = 6 * rows * rows / ranks * 64,
                                 .gather_bytes = rows * (ranks - 1) / ranks * (64 * 4 + 20),
                                 .gradient_bytes = 3e6,
                                 .messages = 1};
  struct cost cost = cost_of_sample(&exact, sample);
  double factor[4];
  for (int i = 0; i < 4; i++)
    factor[i] = 1 + noise * random_normal(key, (uint64_t)count, (uint64_t)i);
  sample->compute = cost.compute * factor[0];
  sample->panels = cost.panels * factor[1];
  sample->gather = cost.gather * factor[2];
  sample->reduce = cost.reduce * factor[3];
  return count + 1;
}

static int many_steps(struct cost_sample *samples, bool hosts, double noise) {
  int count = 0;
  for (double batch = 64; batch <= 4096; batch *= 4) {
    for (double ranks = 1; ranks <= 4; ranks *= 2)
      count = add_step(samples, count, ranks, 1, batch, noise);
    for (double nodes = 2; nodes <= 8 && hosts; nodes *= 2)
      count = add_step(samples, count, 4 * nodes, nodes, batch, noise);
  }
  return count;
}

Test(cost_model, a_fit_finds_the_parameters_the_steps_were_made_with) {
  struct cost_sample samples[MOST_STEPS];
  struct cost_fit fit;
  int count = many_steps(samples, true, 0);
  cost_fit(samples, count, &fit);
  for (int i = 0; i < COST_PARAMETERS; i++) {
    const char *name = cost_parameter_name((enum cost_parameter)i);
    cr_expect(eq(int, fit.parameter[i].state, COEFFICIENT_FITTED), "%s", name);
    cr_expect(epsilon_eq(dbl, fit.parameter[i].value / truth[i], 1, 1e-6), "%s", name);
  }
  cr_expect(lt(dbl, fit.compute_residual + fit.panels_residual + fit.network_residual, 1e-6));
  for (int i = 0; i < count; i++) {
    struct cost cost = cost_of_sample(&fit, &samples[i]);
    double step = samples[i].compute + samples[i].panels + samples[i].gather + samples[i].reduce;
    cr_expect(epsilon_eq(dbl, cost.step / step, 1, 1e-6));
  }
}

Test(cost_model, with_noise_it_finds_them_within_its_own_errors) {
  struct cost_sample samples[MOST_STEPS];
  struct cost_fit fit;
  cost_fit(samples, many_steps(samples, true, 0.05), &fit);
  for (int i = 0; i < COST_PARAMETERS; i++) {
    const struct coefficient *found = &fit.parameter[i];
    const char *name = cost_parameter_name((enum cost_parameter)i);
    cr_expect(eq(int, found->state, COEFFICIENT_FITTED), "%s: %g +- %g", name, found->value, found->error);
    cr_expect(le(dbl, fabs(found->value - truth[i]), 3 * found->error), "%s: %g +- %g", name, found->value,
              found->error);
    cr_expect(le(dbl, fabs(found->value / truth[i] - 1), 0.25), "%s: %g", name, found->value);
  }
  cr_expect(gt(dbl, fit.compute_residual, 0.02));
  cr_expect(lt(dbl, fit.compute_residual, 0.1));
  cr_expect(lt(dbl, fit.network_residual, 0.1));
}

Test(cost_model, one_host_says_nothing_of_the_links_between_hosts) {
  struct cost_sample samples[MOST_STEPS];
  struct cost_fit fit;
  cost_fit(samples, many_steps(samples, false, 0), &fit);
  for (int i = 0; i < COST_PARAMETERS; i++)
    cr_expect(eq(int, fit.parameter[i].state, i < COST_LATENCY_BETWEEN ? COEFFICIENT_FITTED : COEFFICIENT_UNDETERMINED),
              "%s", cost_parameter_name((enum cost_parameter)i));
  cr_expect(eq(dbl, fit.parameter[COST_BYTE_BETWEEN].value, 0));
}

/* One batch on one and two ranks: samples a rank differ, so the step's parameters are known; of messages there are two
 * sums of different bytes and hops; of panels two counts of flops. */
Test(cost_model, one_rank_or_one_point_determine_nothing_of_messages) {
  struct cost_sample samples[2];
  struct cost_fit fit;
  add_step(samples, 0, 1, 1, 64, 0);
  cost_fit(samples, 1, &fit);
  for (int i = COST_LATENCY_INSIDE; i < COST_PARAMETERS; i++)
    cr_expect(eq(int, fit.parameter[i].state, COEFFICIENT_UNDETERMINED));
  cr_expect(eq(int, fit.parameter[COST_FIXED].state, COEFFICIENT_UNDETERMINED), "two parameters of one point");
  cr_expect(eq(int, fit.parameter[COST_SAMPLE].state, COEFFICIENT_UNDETERMINED), "two parameters of one point");
  cr_expect(isnan(fit.network_residual));
  struct cost cost = cost_of_sample(&fit, samples);
  cr_expect(epsilon_eq(dbl, cost.compute / samples[0].compute, 1, 1e-9), "together they still give the point");
}
