/* The training loop: epochs of steps, validation, checkpoints, early stopping, resuming, stopping on a signal.
 *
 *     TRY(train(&session, &config, NULL, &result));
 *
 * A step: forward on this rank's rows; objective over the global batch; backward, gradients summed in buckets
 * as they complete; clipping; update.  Every rank makes the same update of the same parameters. */
#ifndef CONR_LAUNCH_TRAIN_H
#define CONR_LAUNCH_TRAIN_H

#include "launch/trainer.h"

/* One step, as metrics.jsonl and observers see it. */
struct train_step {
  int64_t epoch, step;               /* step counts from 0 over all epochs                       */
  double loss_regression;            /* of the global batch, before the update                   */
  double loss_conr;                  /* without its coefficient                                  */
  double regularisers[REGULARISERS]; /* likewise (loss/regularisers.h); 0 when off    */
  double loss_reconstruction;        /* likewise                                                 */
  double loss;                       /* regression and all others times their coefficients       */
  double grad_norm;                  /* of the summed gradient, before clipping                  */
  double lr;
  double noise_scale, noise_gradient; /* of Balanced MSE: after the update, and what moved it; else 0 */
};

/* Called on every rank after each update; trainer->net still holds the step's gradients.  For tests. */
struct train_observer {
  void *context;
  void (*step)(void *context, const struct trainer *trainer, const struct train_step *step);
};

struct train_result {
  bool stopped;       /* by a signal, with a checkpoint; --resume goes on */
  bool asked;         /* a signal came, perhaps when nothing was left to do */
  int64_t epochs;     /* finished                                         */
  int64_t best_epoch; /* -1 without validation                            */
  double best_value;
};

/* SIGINT, SIGTERM and SIGUSR1 are blocked and asked for once a step (signals.h).
 *
 * Collective; equal config on all ranks.  Failures that all ranks see alike are agreed (status_agreed);
 * others are this rank's own, and the job must be aborted (session_fail does). */
enum status train(struct session *session, const struct config *config, const struct train_observer *observer,
                  struct train_result *result);

/* For measurements: so many more steps of whole batches, epoch after epoch, as train() makes them, but without
 * validation, collections of features, checkpoints and figures.  The trainer begins as it was created.
 *
 * Collective, with equal arguments; failures as of train().  ERR_ARGUMENT when no batch is whole. */
struct train_time {
  int64_t steps;  /* fewer than wanted when a signal stopped them (stopped) */
  double seconds; /* of these, without what lies between epochs             */
  double data;    /* of which this rank waited for data                     */
  bool stopped;
};
enum status train_steps(struct trainer *trainer, int64_t steps, struct train_time *time);

#endif
