/* The learning rate of a step: a pure function, so that a resumed run needs no state.
 *
 *     struct schedule schedule = {.kind = SCHEDULE_STEP, .lr = 1e-3, .factor = 0.1, .milestones = (int64_t[]){60, 80},
 *                                 .milestone_count = 2, .steps_per_epoch = 40, .total_steps = 90 * 40};
 *     TRY(schedule_check(&schedule));
 *     lr = schedule_lr(&schedule, step);
 *
 *     constant   lr
 *     step       lr factor^(milestones <= epoch), epoch = step / steps_per_epoch
 *     cosine     lr (f + (1 - f) (1 + cos(pi step / total_steps)) / 2), f = final_factor; from total_steps on: lr f
 *
 * each times min(1, (step + 1) / warmup_steps), if there are warm-up steps.  Local. */
#ifndef CONR_MODEL_SCHEDULE_H
#define CONR_MODEL_SCHEDULE_H

#include "dist/status.h"

#include <stdint.h>

enum schedule_kind { SCHEDULE_CONSTANT, SCHEDULE_STEP, SCHEDULE_COSINE };

struct schedule {
  enum schedule_kind kind;
  double lr;                 /* before any factor, >= 0                                  */
  double factor;             /* step: at each milestone, > 0                             */
  const int64_t *milestones; /* step: epochs, not decreasing [milestone_count], borrowed */
  int milestone_count;
  int64_t steps_per_epoch; /* step: >= 1                                               */
  double final_factor;     /* cosine: 0 .. 1                                           */
  int64_t total_steps;     /* cosine: >= 1                                             */
  int64_t warmup_steps;    /* 0 = none                                                 */
};

/* constant | step | cosine.  ERR_ARGUMENT lists the names. */
enum status schedule_parse(const char *name, enum schedule_kind *out);

/* ERR_ARGUMENT names the value that is out of range. */
enum status schedule_check(const struct schedule *schedule);

/* The rate of update `step` (0-based, over the whole run) of a checked schedule. */
double schedule_lr(const struct schedule *schedule, int64_t step);

#endif
