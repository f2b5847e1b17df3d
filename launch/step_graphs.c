/* The choice between steps as graphs and steps as they come. */
#include "launch/step_graphs.h"

#include "dist/memory.h"

#include <math.h>
#include <string.h>

#define WARM_STEPS 4   /* for each of two places of batches: to make room, and to be kept */
#define TRIAL_STEPS 16 /* with those */

enum kind { QUEUED, LAUNCHED, KINDS, UNMEASURED = KINDS };

struct step_graphs {
  struct session *session; /* borrowed: must outlive this */
  bool automatic;          /* does without what cannot be kept */
  bool trial;              /* is under way     */
  int64_t rows;            /* of a whole batch */
  struct replays *replays; /* owned; NULL = steps are queued */
  int64_t steps;           /* of whole batches */
  int measured;            /* of those         */
  enum kind kind;          /* of the step at hand */
  double least[KINDS];     /* seconds             */
  struct event *begun, *ended;
  int64_t launches; /* of replays that are gone */
};

enum graphs_mode graphs_mode_of(const char *name) {
  return strcmp(name, "auto") == 0 ? GRAPHS_AUTO : strcmp(name, "on") == 0 ? GRAPHS_ON : GRAPHS_OFF;
}

enum status step_graphs_create(struct session *session, enum graphs_mode mode, int64_t rows, struct step_graphs **out) {
  struct device *device = session->device;
  struct step_graphs *own;
  enum status status;
  *out = NULL;
  TRY(memory_alloc_zero(sizeof *own, (void **)&own));
  own->session = session;
  own->automatic = own->trial = device != NULL && mode == GRAPHS_AUTO;
  own->rows = rows;
  own->least[QUEUED] = own->least[LAUNCHED] = INFINITY;
  TRY_GOTO(event_create(device, &own->begun), failed);
  TRY_GOTO(event_create(device, &own->ended), failed);
  if (device != NULL && mode != GRAPHS_OFF)
    TRY_GOTO(replays_create(device, &own->replays), failed);
  *out = own;
  return STATUS_OK;
failed:
  step_graphs_destroy(&own);
  return status;
}

static void drop(struct step_graphs *own) {
  own->launches += replays_launches(own->replays);
  replays_destroy(&own->replays);
}

void step_graphs_destroy(struct step_graphs **graphs) {
  if (*graphs == NULL)
    return;
  drop(*graphs);
  event_destroy(&(*graphs)->ended);
  event_destroy(&(*graphs)->begun);
  memory_free((void **)graphs);
}

int64_t step_graphs_launches(const struct step_graphs *graphs) {
  return graphs->launches + replays_launches(graphs->replays);
}

bool step_graphs_settled(const struct step_graphs *own) {
  return !own->trial && (own->replays == NULL || own->steps >= WARM_STEPS);
}

/* --- a step --------------------------------------------------------------------------------------------------- */

/* By turns, two at a time: batches have two places, and each is to be seen both ways. */
static enum kind next_kind(struct step_graphs *own, const struct gradients_key *key) {
  if (key->rows != own->rows)
    return UNMEASURED;
  own->steps++;
  if (!own->trial || own->steps <= WARM_STEPS || !replay_is_kept(own->replays, key, sizeof *key))
    return UNMEASURED;
  return own->measured++ / 2 % 2 == 0 ? QUEUED : LAUNCHED;
}

/* What cannot be kept was not begun either, so it can be done as always. */
static enum status keep(struct step_graphs *own, const struct gradients_key *key, replay_work *queue, void *context) {
  enum status status = replay_keep(own->replays, key, sizeof *key, queue, context);
  if (status == STATUS_OK || !own->automatic)
    return status;
  log_warning(&own->session->log, "steps are not launched as graphs: %s", status_message());
  drop(own);
  return STATUS_OK;
}

enum status step_graphs_run(struct step_graphs *own, struct gradients_key key, replay_work *queue, void *context) {
  struct stream *main = device_main(own->session->device);
  own->kind = next_kind(own, &key);
  TRY(keep(own, &key, queue, context));
  TRY(event_record(own->begun, main));
  if (own->kind == QUEUED)
    TRY(queue(context));
  else
    TRY(replay_run(own->replays, &key, sizeof key, queue, context));
  return event_record(own->ended, main);
}

/* --- the choice ----------------------------------------------------------------------------------------------- */

/* The slowest rank is the time; a rank without graphs has waited for ever. */
static enum status decide(struct step_graphs *own) {
  double seconds[KINDS] = {own->least[QUEUED], own->least[LAUNCHED]};
  TRY(comm_max_f64(own->session->comm, seconds, KINDS));
  bool launch = seconds[LAUNCHED] < seconds[QUEUED];
  own->trial = false;
  if (!launch)
    drop(own);
  if (isfinite(seconds[LAUNCHED]))
    log_line(&own->session->log, "a step takes %.3f ms as graphs and %.3f ms without: graphs are %s from now on",
             1e3 * seconds[LAUNCHED], 1e3 * seconds[QUEUED], launch ? "used" : "not used");
  return STATUS_OK;
}

enum status step_graphs_finish(struct step_graphs *own) {
  double seconds;
  if (own->kind != UNMEASURED) {
    TRY(event_seconds(own->begun, own->ended, &seconds));
    own->least[own->kind] = fmin(own->least[own->kind], seconds);
  }
  return own->trial && own->steps == TRIAL_STEPS ? decide(own) : STATUS_OK;
}
