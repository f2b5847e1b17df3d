/* Events between the phases of a step. */
#include "launch/step_clock.h"

#include "dist/memory.h"
#include "dist/replay.h"

#include <string.h>

/* Of one step; a step of more micro-batches counts the rest to the phase of the last mark. */
#define MOST_MARKS 256

struct step_clock {
  struct device *device; /* borrowed: must outlive this */
  struct event *mark[MOST_MARKS];
  enum step_phase phase[MOST_MARKS]; /* that begins at the mark */
  int marks;
  bool inside;
  double seconds[STEP_PHASES];
};

static const char *const names[] = {[PHASE_FORWARD] = "forward",
                                    [PHASE_LOSS] = "loss",
                                    [PHASE_CONR] = "conr",
                                    [PHASE_BACKWARD] = "backward",
                                    [PHASE_REDUCE] = "reduce",
                                    [PHASE_UPDATE] = "update"};

const char *step_phase_name(enum step_phase phase) {
  return names[phase];
}

enum status step_clock_create(struct device *device, struct step_clock **out) {
  struct step_clock *clock;
  *out = NULL;
  TRY(memory_alloc_zero(sizeof *clock, (void **)&clock));
  clock->device = device;
  enum status status = STATUS_OK;
  for (int i = 0; i < MOST_MARKS && status == STATUS_OK; i++)
    status = event_create(device, &clock->mark[i]);
  if (status != STATUS_OK)
    step_clock_destroy(&clock);
  *out = clock;
  return status;
}

void step_clock_destroy(struct step_clock **clock) {
  if (*clock == NULL)
    return;
  for (int i = 0; i < MOST_MARKS; i++)
    event_destroy(&(*clock)->mark[i]);
  memory_free((void **)clock);
}

/* A mark at this place of the main stream; the last one is kept for the end. */
static enum status set_mark(struct step_clock *clock, int number) {
  return event_mark(clock->mark[number], device_main(clock->device));
}

struct mark_note {
  struct step_clock *clock;
  int number;
  enum step_phase phase;
};

static enum status note_mark(const void *arguments) {
  const struct mark_note *note = arguments;
  note->clock->phase[note->number] = note->phase;
  note->clock->marks = note->number + 1;
  return STATUS_OK;
}

static void end_range(struct step_clock *clock) {
  if (clock->inside)
    device_range_end(clock->device);
  clock->inside = false;
}

void step_clock_begin(struct step_clock *clock) {
  clock->marks = 0;
}

enum status step_clock_enter(struct step_clock *clock, enum step_phase phase) {
  end_range(clock);
  device_range_begin(clock->device, step_phase_name(phase));
  clock->inside = true;
  if (clock->marks == MOST_MARKS - 1 || (clock->marks > 0 && clock->phase[clock->marks - 1] == phase))
    return STATUS_OK;
  struct mark_note note = {clock, clock->marks, phase};
  TRY(set_mark(clock, clock->marks));
  return replay_note(clock->device, note_mark, &note, sizeof note);
}

enum status step_clock_leave(struct step_clock *clock) {
  end_range(clock);
  return set_mark(clock, clock->marks);
}

enum status step_clock_read(struct step_clock *clock) {
  for (int i = 0; i < clock->marks; i++) {
    double seconds;
    TRY(event_seconds(clock->mark[i], clock->mark[i + 1], &seconds));
    clock->seconds[clock->phase[i]] += seconds;
  }
  clock->marks = 0;
  return STATUS_OK;
}

void step_clock_seconds(struct step_clock *clock, bool reset, double seconds[STEP_PHASES]) {
  memcpy(seconds, clock->seconds, sizeof clock->seconds);
  if (reset)
    memset(clock->seconds, 0, sizeof clock->seconds);
}
