/* Learning rate schedules. */
#include "model/schedule.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

static const char *const kind_names[] = {
    [SCHEDULE_CONSTANT] = "constant", [SCHEDULE_STEP] = "step", [SCHEDULE_COSINE] = "cosine"};

enum status schedule_parse(const char *name, enum schedule_kind *out) {
  for (size_t i = 0; i < sizeof kind_names / sizeof *kind_names; i++) {
    if (strcmp(name, kind_names[i]) == 0) {
      *out = (enum schedule_kind)i;
      return STATUS_OK;
    }
  }
  return fail(ERR_ARGUMENT, "schedule \"%s\" is unknown; choose one of: constant, step, cosine", name);
}

static enum status check_milestones(const struct schedule *schedule) {
  REQUIRE(schedule->factor > 0 && isfinite(schedule->factor), ERR_ARGUMENT,
          "the schedule's factor %g is not a positive number; give one such as 0.1", schedule->factor);
  REQUIRE(schedule->steps_per_epoch >= 1, ERR_BUG, "a step schedule needs the steps of an epoch, not %lld",
          (long long)schedule->steps_per_epoch);
  for (int i = 0; i < schedule->milestone_count; i++)
    REQUIRE(schedule->milestones[i] >= (i == 0 ? 0 : schedule->milestones[i - 1]), ERR_ARGUMENT,
            "milestone %lld is out of order; give epochs from 0 on, in rising order",
            (long long)schedule->milestones[i]);
  return STATUS_OK;
}

enum status schedule_check(const struct schedule *schedule) {
  REQUIRE(schedule->lr >= 0 && isfinite(schedule->lr), ERR_ARGUMENT,
          "learning rate %g is out of range; give 0 or more, such as 0.001", schedule->lr);
  REQUIRE(schedule->warmup_steps >= 0, ERR_ARGUMENT, "%lld warm-up steps are out of range; give 0 or more",
          (long long)schedule->warmup_steps);
  if (schedule->kind == SCHEDULE_STEP)
    return check_milestones(schedule);
  if (schedule->kind == SCHEDULE_COSINE) {
    REQUIRE(schedule->final_factor >= 0 && schedule->final_factor <= 1, ERR_ARGUMENT,
            "the schedule's final factor %g is out of range; give 0 to 1", schedule->final_factor);
    REQUIRE(schedule->total_steps >= 1, ERR_BUG, "a cosine schedule needs the steps of the run, not %lld",
            (long long)schedule->total_steps);
  }
  return STATUS_OK;
}

static double milestone_factor(const struct schedule *schedule, int64_t epoch) {
  double factor = 1;
  for (int i = 0; i < schedule->milestone_count && schedule->milestones[i] <= epoch; i++)
    factor *= schedule->factor;
  return factor;
}

static double cosine_factor(const struct schedule *schedule, int64_t step) {
  if (step >= schedule->total_steps)
    return schedule->final_factor;
  double wave = (1 + cos(M_PI * (double)step / (double)schedule->total_steps)) / 2;
  return schedule->final_factor + (1 - schedule->final_factor) * wave;
}

double schedule_lr(const struct schedule *schedule, int64_t step) {
  double lr = schedule->lr;
  if (schedule->kind == SCHEDULE_STEP)
    lr *= milestone_factor(schedule, step / schedule->steps_per_epoch);
  else if (schedule->kind == SCHEDULE_COSINE)
    lr *= cosine_factor(schedule, step);
  if (step + 1 < schedule->warmup_steps)
    lr *= (double)(step + 1) / (double)schedule->warmup_steps;
  return lr;
}
