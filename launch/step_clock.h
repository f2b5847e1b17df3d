/* Where the time of a step goes, by the device's own clock: events between its phases, read once the host has waited
 * for the step anyway.
 *
 *     TRY(step_clock_create(device, &clock));
 *     each step:
 *       step_clock_begin(clock);
 *       TRY(step_clock_enter(clock, PHASE_FORWARD));
 *       ... work is queued ...
 *       TRY(step_clock_enter(clock, PHASE_LOSS));         ends the phase before
 *       ...
 *       TRY(step_clock_leave(clock));
 *       ... the host waits ...
 *       TRY(step_clock_read(clock));                      adds to what step_clock_seconds() says
 *     step_clock_destroy(&clock);
 *
 * Phases may come again in a step.  Profilers see them as ranges, but not those of a step that is launched as graphs,
 * whose marks are part of them (dist/replay.h).  On the host it is the wall clock.  All functions are local. */
#ifndef CONR_LAUNCH_STEP_CLOCK_H
#define CONR_LAUNCH_STEP_CLOCK_H

#include "dist/device.h"

enum step_phase {
  PHASE_FORWARD,
  PHASE_LOSS, /* with the gather of features */
  PHASE_CONR, /* of all rows: what is left to wait for of their gather, and the panels */
  PHASE_BACKWARD,
  PHASE_REDUCE, /* what is left to wait for of the sums over ranks */
  PHASE_UPDATE,
  STEP_PHASES
};

struct step_clock;

enum status step_clock_create(struct device *device, struct step_clock **out);
void step_clock_destroy(struct step_clock **clock); /* NULL is fine */

/* Forgets the marks of a step that failed on the way. */
void step_clock_begin(struct step_clock *clock);

enum status step_clock_enter(struct step_clock *clock, enum step_phase phase);
enum status step_clock_leave(struct step_clock *clock);

/* The work of all marks must be done. */
enum status step_clock_read(struct step_clock *clock);

/* Seconds of each phase since the last call with `reset`. */
void step_clock_seconds(struct step_clock *clock, bool reset, double seconds[STEP_PHASES]);

/* "forward", "loss", "conr", "backward", "reduce", "update". */
const char *step_phase_name(enum step_phase phase);

#endif
