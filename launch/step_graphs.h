/* Whether the steps of a training are launched as graphs (dist/replay.h): never, always, or where that is faster.
 *
 *     TRY(step_graphs_create(session, mode, rows, &graphs));
 *     each step:
 *       TRY(gradients_begin(gradients, batch));
 *       TRY(step_graphs_run(graphs, gradients_key(gradients), queue, context));       queue(context) queues the step
 *       ... the host waits for the step ...
 *       TRY(step_graphs_finish(graphs));
 *     step_graphs_destroy(&graphs);
 *
 * On one rank a step is one graph; several ranks cut it where they exchange messages, and banded ConR where the host
 * plans.  The bits are the same, so `auto` is free to measure: of the first 16 steps of whole batches the first two are
 * for the objects to make room, two are kept (one for each place where batches are uploaded to), and the other 12 are
 * launched as graphs and queued as usual by turns.  What took less, from its begin to its end on the device, on the
 * slowest rank, is what the run goes on with; one line says so.  What cannot be kept as a graph is a failure where
 * graphs are asked for; `auto` says why, and goes on without. */
#ifndef CONR_LAUNCH_STEP_GRAPHS_H
#define CONR_LAUNCH_STEP_GRAPHS_H

#include "dist/replay.h"
#include "launch/gradients.h"
#include "launch/session.h"

struct step_graphs;

enum graphs_mode { GRAPHS_OFF, GRAPHS_ON, GRAPHS_AUTO };

/* auto | on | off, as the option table has seen to. */
enum graphs_mode graphs_mode_of(const char *name);

/* session  borrowed: must outlive this; on the host the mode is off
 * rows     of a whole global batch
 * Local. */
enum status step_graphs_create(struct session *session, enum graphs_mode mode, int64_t rows, struct step_graphs **out);
void step_graphs_destroy(struct step_graphs **graphs); /* NULL is fine */

/* Collective as queue() is, with equal rows on all ranks. */
enum status step_graphs_run(struct step_graphs *graphs, struct gradients_key key, replay_work *queue, void *context);

/* After the host has waited for the step that was run.  Collective: once, all ranks agree on what is faster. */
enum status step_graphs_finish(struct step_graphs *graphs);

/* Will steps of whole batches go on as the last one did?  Same value. */
bool step_graphs_settled(const struct step_graphs *graphs);

/* Graphs launched so far.  Local. */
int64_t step_graphs_launches(const struct step_graphs *graphs);

#endif
