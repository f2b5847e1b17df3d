/* Optimisers against the formulas written out, element by element; schedules against tables of values. */
#include "model/optim.h"

#include "dist/memory.h"
#include "model/schedule.h"
#include "tests/buffers.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())

enum { COUNT = 1003, STEPS = 12 };

static double gradient_at(int step, int64_t i) {
  return (float)(2 * random_uniform(random_key(1, RANDOM_TEST, (uint64_t)step), (uint64_t)i, 0) - 1);
}

static double start_at(int64_t i) {
  return (float)(2 * random_uniform(random_key(2, RANDOM_TEST, 0), (uint64_t)i, 0) - 1);
}

static double lr_at(int step) {
  return 0.01 * (1 + 0.5 * (step % 3));
}

static double scale_at(int step) {
  return step % 2 == 0 ? 1 : 0.3;
}

/* One element through all steps, as the papers write it. */
static double reference(const struct optim_spec *spec, double factor, int64_t i, int steps) {
  double p = start_at(i), m = 0, v = 0, b = 0;
  for (int s = 0; s < steps; s++) {
    double lr = factor * lr_at(s), g = scale_at(s) * gradient_at(s, i);
    if (spec->kind == OPTIM_ADAMW)
      p -= lr * spec->weight_decay * p;
    else
      g += spec->weight_decay * p;
    if (spec->kind == OPTIM_SGD) {
      b = s == 0 ? g : spec->momentum * b + g;
      p -= lr * b;
      continue;
    }
    m = spec->beta1 * m + (1 - spec->beta1) * g;
    v = spec->beta2 * v + (1 - spec->beta2) * g * g;
    double unbiased_m = m / (1 - pow(spec->beta1, s + 1)), unbiased_v = v / (1 - pow(spec->beta2, s + 1));
    p -= lr * unbiased_m / (sqrt(unbiased_v) + spec->epsilon);
  }
  return p;
}

static void *start(enum dtype dtype) {
  void *p = malloc(COUNT * dtype_size(dtype));
  for (int64_t i = 0; i < COUNT; i++)
    buffer_set(dtype, p, i, start_at(i));
  return p;
}

static void run_steps(struct optim *optim, enum dtype dtype, void *p, int first, int end) {
  void *g = malloc(COUNT * dtype_size(dtype));
  for (int s = first; s < end; s++) {
    for (int64_t i = 0; i < COUNT; i++)
      buffer_set(dtype, g, i, gradient_at(s, i));
    double scale = scale_at(s);
    OK(optim_step(optim, p, g, lr_at(s), &scale));
    for (int64_t i = 0; i < COUNT; i++)
      cr_assert(eq(dbl, buffer_get(dtype, g, i), gradient_at(s, i)), "the gradients were changed");
  }
  free(g);
}

/* Every optimiser with every constant away from its default. */
static const struct optim_spec specs[] = {
    {.kind = OPTIM_ADAM, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8},
    {.kind = OPTIM_ADAM, .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3, .weight_decay = 0.2},
    {.kind = OPTIM_ADAMW, .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3, .weight_decay = 0.2},
    {.kind = OPTIM_SGD},
    {.kind = OPTIM_SGD, .weight_decay = 0.2},
    {.kind = OPTIM_SGD, .momentum = 0.9, .weight_decay = 0.2}};
#define SPECS (sizeof specs / sizeof *specs)

Test(optim, twelve_steps_follow_the_formulas) {
  for (size_t k = 0; k < SPECS; k++)
    for (enum dtype dtype = F32; dtype <= F64; dtype++) {
      struct optim *optim;
      void *p = start(dtype);
      OK(optim_create(ops_host(dtype), &specs[k], COUNT, &optim));
      run_steps(optim, dtype, p, 0, STEPS);
      /* Parameters and updates are near 1: a few roundings per step. */
      double tolerance = STEPS * 8 * (dtype == F32 ? 0x1p-24 : 0x1p-53);
      for (int64_t i = 0; i < COUNT; i++)
        cr_assert(epsilon_eq(dbl, buffer_get(dtype, p, i), reference(&specs[k], 1, i, STEPS), tolerance),
                  "optimiser %zu, %s, element %lld: got %.17g, expected %.17g", k, dtype_name(dtype), (long long)i,
                  buffer_get(dtype, p, i), reference(&specs[k], 1, i, STEPS));
      optim_destroy(&optim);
      free(p);
    }
}

/* A range in the middle, the one that follows it, and one at the end; and all of them. */
Test(optim, ranges_learn_at_rates_of_their_own) {
  static const struct {
    size_t first, count;
    double factor;
  } ranges[] = {{100, 50, 0.1}, {150, 7, 3}, {900, COUNT - 900, 0}};
  for (size_t k = 0; k < SPECS; k++)
    for (enum dtype dtype = F32; dtype <= F64; dtype++) {
      struct optim *optim, *all;
      void *p = start(dtype), *q = start(dtype);
      OK(optim_create(ops_host(dtype), &specs[k], COUNT, &optim));
      OK(optim_create(ops_host(dtype), &specs[k], COUNT, &all));
      for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++)
        OK(optim_set_rate(optim, ranges[r].first, ranges[r].count, ranges[r].factor));
      OK(optim_set_rate(all, 0, COUNT, 0.1));
      run_steps(optim, dtype, p, 0, STEPS);
      run_steps(all, dtype, q, 0, STEPS);
      double tolerance = 3 * STEPS * 8 * (dtype == F32 ? 0x1p-24 : 0x1p-53); /* updates grow with the rate */
      for (size_t i = 0; i < COUNT; i++) {
        double factor = 1;
        for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++)
          if (i >= ranges[r].first && i < ranges[r].first + ranges[r].count)
            factor = ranges[r].factor;
        cr_assert(epsilon_eq(dbl, buffer_get(dtype, p, (int64_t)i), reference(&specs[k], factor, (int64_t)i, STEPS),
                             tolerance),
                  "optimiser %zu, %s, element %zu", k, dtype_name(dtype), i);
        cr_assert(
            epsilon_eq(dbl, buffer_get(dtype, q, (int64_t)i), reference(&specs[k], 0.1, (int64_t)i, STEPS), tolerance));
      }
      cr_expect(eq(int, (int)optim_set_rate(optim, 0, 10, 2), ERR_BUG));
      optim_destroy(&optim);
      optim_destroy(&all);
      free(p);
      free(q);
    }
}

Test(optim, a_copy_of_its_state_goes_on_with_the_same_bits) {
  for (size_t k = 0; k < SPECS; k++)
    for (enum dtype dtype = F32; dtype <= F64; dtype++) {
      struct optim *whole, *resumed;
      struct optim_array from[OPTIM_MAX_ARRAYS], to[OPTIM_MAX_ARRAYS];
      void *p = start(dtype), *q = malloc(COUNT * dtype_size(dtype));
      OK(optim_create(ops_host(dtype), &specs[k], COUNT, &whole));
      OK(optim_create(ops_host(dtype), &specs[k], COUNT, &resumed));
      run_steps(whole, dtype, p, 0, 5);
      memcpy(q, p, COUNT * dtype_size(dtype));
      int arrays = optim_state_arrays(whole, from);
      cr_assert(eq(int, optim_state_arrays(resumed, to), arrays));
      for (int a = 0; a < arrays; a++) {
        cr_assert(eq(str, (char *)to[a].name, (char *)from[a].name));
        cr_assert(eq(sz, from[a].count, (size_t)COUNT));
        memcpy(to[a].data, from[a].data, COUNT * dtype_size(dtype));
      }
      optim_set_steps(resumed, optim_steps(whole));
      run_steps(whole, dtype, p, 5, STEPS);
      run_steps(resumed, dtype, q, 5, STEPS);
      cr_assert(eq(i64, optim_steps(resumed), STEPS));
      cr_assert(zero(int, memcmp(p, q, COUNT * dtype_size(dtype))), "optimiser %zu, %s", k, dtype_name(dtype));
      optim_destroy(&whole);
      optim_destroy(&resumed);
      free(p);
      free(q);
    }
}

Test(optim, states_are_named_and_nothing_more_is_kept) {
  static const char *const names[SPECS][OPTIM_MAX_ARRAYS + 1] = {
      {"moment1", "moment2"}, {"moment1", "moment2"}, {"moment1", "moment2"}, {NULL}, {NULL}, {"velocity"}};
  for (size_t k = 0; k < SPECS; k++) {
    struct optim *optim;
    struct optim_array arrays[OPTIM_MAX_ARRAYS];
    size_t before = memory_in_use();
    OK(optim_create(ops_host(F32), &specs[k], COUNT, &optim));
    int count = optim_state_arrays(optim, arrays);
    cr_assert(eq(ptr, (void *)names[k][count], NULL), "optimiser %zu has %d arrays", k, count);
    for (int a = 0; a < count; a++)
      cr_assert(eq(str, (char *)arrays[a].name, (char *)names[k][a]));
    cr_assert(lt(sz, memory_in_use() - before, (size_t)count * COUNT * 4 + 1024));
    optim_destroy(&optim);
    cr_assert(eq(sz, memory_in_use(), before));
  }
}

static double clip_factor(double clip_norm, double norm) {
  double squares = norm * norm, factor;
  OK(ops_host(F32)->clip_factor(clip_norm, &squares, &factor));
  return factor;
}

Test(optim, clipping_scales_down_to_the_norm_and_never_up) {
  cr_assert(eq(dbl, clip_factor(2, 1), 1));
  cr_assert(eq(dbl, clip_factor(1, 4), 1 / (4 + 1e-6)));
  cr_assert(eq(dbl, clip_factor(1, 0), 1));
  cr_assert(isnan(clip_factor(1, NAN)));
}

Test(optim, defaults_are_those_of_pytorch) {
  struct optim_spec adam = optim_defaults(OPTIM_ADAM), adamw = optim_defaults(OPTIM_ADAMW);
  cr_assert(eq(dbl, adam.beta1, 0.9));
  cr_assert(eq(dbl, adam.beta2, 0.999));
  cr_assert(eq(dbl, adam.epsilon, 1e-8));
  cr_assert(eq(dbl, adam.weight_decay, 0));
  cr_assert(eq(dbl, adamw.weight_decay, 0.01));
}

static void expect_refusal(struct optim_spec spec, const char *word) {
  struct optim *optim = NULL;
  cr_assert(eq(int, optim_create(ops_host(F32), &spec, 3, &optim), ERR_ARGUMENT), "%s", word);
  cr_assert(strstr(status_message(), word) != NULL, "\"%s\" does not say %s", status_message(), word);
  cr_assert(eq(ptr, (void *)optim, NULL));
}

Test(optim, constants_out_of_range_are_refused_with_the_value) {
  enum optim_kind kind;
  struct optim_spec adam = optim_defaults(OPTIM_ADAM), spec;
  expect_refusal((spec = adam, spec.beta1 = 1, spec), "beta1 1");
  expect_refusal((spec = adam, spec.beta2 = -0.5, spec), "beta2 -0.5");
  expect_refusal((spec = adam, spec.beta2 = NAN, spec), "beta2 nan");
  expect_refusal((spec = adam, spec.epsilon = -1, spec), "epsilon -1");
  expect_refusal((spec = adam, spec.weight_decay = -0.1, spec), "weight decay -0.1");
  expect_refusal((struct optim_spec){.kind = OPTIM_SGD, .momentum = 1.5}, "momentum 1.5");
  cr_assert(eq(int, optim_parse("lion", &kind), ERR_ARGUMENT));
  cr_assert(strstr(status_message(), "\"lion\"") != NULL);
  OK(optim_parse("adamw", &kind));
  cr_assert(eq(int, kind, OPTIM_ADAMW));
}

/* --- schedules ---------------------------------------------------------------------------------------------- */

Test(schedule, step_falls_at_each_milestone_epoch) {
  static const int64_t milestones[] = {2, 3};
  static const double expected[] = {1, 1, 1, 1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25};
  struct schedule schedule = {.kind = SCHEDULE_STEP,
                              .lr = 0.8,
                              .factor = 0.5,
                              .milestones = milestones,
                              .milestone_count = 2,
                              .steps_per_epoch = 4};
  OK(schedule_check(&schedule));
  for (int64_t step = 0; step < 14; step++)
    cr_assert(eq(dbl, schedule_lr(&schedule, step), 0.8 * expected[step]), "step %lld", (long long)step);
}

Test(schedule, cosine_falls_from_the_rate_to_its_final_part) {
  struct schedule schedule = {.kind = SCHEDULE_COSINE, .lr = 2, .final_factor = 0.1, .total_steps = 60};
  OK(schedule_check(&schedule));
  cr_assert(epsilon_eq(dbl, schedule_lr(&schedule, 0), 2, 1e-15));
  cr_assert(epsilon_eq(dbl, schedule_lr(&schedule, 20), 2 * (0.1 + 0.9 * 0.75), 1e-15)); /* cos 60 degrees */
  cr_assert(epsilon_eq(dbl, schedule_lr(&schedule, 30), 2 * (0.1 + 0.9 * 0.5), 1e-15));
  cr_assert(epsilon_eq(dbl, schedule_lr(&schedule, 60), 0.2, 1e-15));
  cr_assert(epsilon_eq(dbl, schedule_lr(&schedule, 500), 0.2, 1e-15));
}

Test(schedule, warm_up_rises_in_equal_parts_to_the_rate) {
  struct schedule schedule = {.kind = SCHEDULE_CONSTANT, .lr = 3, .warmup_steps = 4};
  static const double expected[] = {0.75, 1.5, 2.25, 3, 3};
  OK(schedule_check(&schedule));
  for (int64_t step = 0; step < 5; step++)
    cr_assert(epsilon_eq(dbl, schedule_lr(&schedule, step), expected[step], 1e-15), "step %lld", (long long)step);
  schedule.warmup_steps = 0;
  cr_assert(eq(dbl, schedule_lr(&schedule, 0), 3));
}

static void expect_bad_schedule(struct schedule schedule, const char *word) {
  cr_assert(eq(int, schedule_check(&schedule), ERR_ARGUMENT), "%s", word);
  cr_assert(strstr(status_message(), word) != NULL, "\"%s\" does not say %s", status_message(), word);
}

Test(schedule, values_out_of_range_are_refused) {
  enum schedule_kind kind;
  struct schedule step = {.kind = SCHEDULE_STEP, .lr = 1, .factor = 0.1, .milestone_count = 2, .steps_per_epoch = 1};
  struct schedule cosine = {.kind = SCHEDULE_COSINE, .lr = 1, .total_steps = 10}, bad;
  expect_bad_schedule((bad = cosine, bad.lr = -1, bad), "learning rate -1");
  expect_bad_schedule((bad = cosine, bad.lr = NAN, bad), "learning rate nan");
  expect_bad_schedule((bad = cosine, bad.final_factor = 2, bad), "final factor 2");
  expect_bad_schedule((bad = cosine, bad.warmup_steps = -5, bad), "-5 warm-up steps");
  expect_bad_schedule((bad = step, bad.factor = 0, bad), "factor 0");
  expect_bad_schedule((bad = step, bad.milestones = (int64_t[]){9, 4}, bad), "milestone 4");
  cr_assert(eq(int, schedule_parse("linear", &kind), ERR_ARGUMENT));
  cr_assert(strstr(status_message(), "\"linear\"") != NULL);
}
