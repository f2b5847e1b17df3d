/* The one objective of a training run: a regression loss (Balanced MSE among them), sample weights, and regularisers on
 * the gathered features, evaluated on a global batch.
 *
 *     struct objective *objective;
 *     TRY(objective_create(MPI_COMM_WORLD, data, ops, &options, features, targets, &objective));
 *     each step:
 *       TRY(objective_begin(objective, epoch, step));                                     local
 *       TRY(objective_take_labels(objective, samples_of_rank, labels, views));            collective
 *     then, on what the network computed for this rank's rows:
 *       TRY(objective_conr_begin(objective, &batch, 1, true));                            collective
 *       TRY(objective_conr_add(objective, 0, features, predictions));                     collective: the rows leave
 *       TRY(objective_regression(objective, &batch, grad_outputs, sums));                 local
 *       TRY(objective_conr_finish(objective, features, grad_features));                   collective
 *       share.lent = objective_conr_lent(objective);                                     or they gather by themselves
 *       TRY(objective_regularise(objective, SIDE_BOTH, &share, grad_features));           collective
 *       TRY(objective_conr_value(objective, &conr, &gather_seconds));                     the host waits
 *       objective_update(objective, gradient summed over ranks);                          local
 *     objective_destroy(&objective);
 *
 * Arrays lie in the memory of the ops' device: features and their gradient are of the type of values, outputs,
 * predictions, labels, weights and the gradient of outputs of the type of parameters (model/ops.h).
 *
 * The regression loss reads the head's outputs, as head.h has them; ConR reads predictions, which where outputs are
 * distributions are answers to them (objective_predictions()).
 *
 * Which rows a term sees is the caller's choice.  Those of several views are stacked: all first views of the own
 * samples, then all second ones.  Every term is divided by global counts, so gradients of parameters are to be summed
 * over ranks. */
#ifndef CONR_LOSS_OBJECTIVE_H
#define CONR_LOSS_OBJECTIVE_H

#include "dist/comm.h"
#include "loss/balanced.h"
#include "loss/conr.h"
#include "loss/head.h"
#include "loss/noise_scale.h"
#include "loss/regression.h"
#include "loss/regularisers.h"
#include "model/ops.h"

#include <stdbool.h>

struct objective;

struct objective_options {
  struct head head; /* experts and distributions have losses of their own, instead of `regression` */
  int64_t epochs;   /* of the run: experts                                                         */
  struct regression regression;
  struct balanced *balanced; /* NULL, or Balanced MSE instead of `regression`; borrowed: must outlive the objective */
  struct noise_scale_options noise_scale; /* of Balanced MSE */
  bool
      weights; /* use the batch's sample weights; false = ones.  Those of experts are always used, and by nobody else */
  bool conr;
  double conr_beta; /* coefficient of ConR */
  struct conr_options conr_options;
  struct regulariser_options regularisers; /* beside ConR */
};

/* Rows of this rank: `views` views of `samples` samples. */
struct objective_batch {
  int64_t samples, samples_global; /* of this rank and of all; samples may be 0 */
  int views;
  const int64_t
      *samples_of_rank; /* [ranks]; read by collective terms alone, also when kept work is launched (dist/replay.h) */
  const void *outputs;  /* of the regression loss: [views * samples, head_outputs()] */
  const void *labels;   /* [views * samples, targets]                                */
  const void *weights;  /* [views * samples, head_weights()]                         */
};

/* data  a communicator of the ops' memory (dist/comm_device.h), borrowed: must outlive the objective.  On the host
 *       `mpi` is duplicated, and `data` serves to agree alone.
 * Collective; all ranks pass equal arguments. */
enum status objective_create(MPI_Comm mpi, struct comm *data, const struct ops *ops,
                             const struct objective_options *options, int features, int targets,
                             struct objective **out);
void objective_destroy(struct objective **objective);

/* What the network's outputs are taken for; borrowed. */
const struct head *objective_head(const struct objective *objective);

/* What a device leaves to the host, and waits for once a pass: terms by their options' names, "ranksim, rnc"; "" where
 * nothing is, and on the host.  Local. */
void objective_left_to_host(const struct objective *objective, char *text, size_t room);

/* Is ConR on? */
bool objective_has_conr(const struct objective *objective);

/* Begin a step: what the host knows, also of one that is launched as graphs.
 * epoch  whose coefficients experts have
 * step   updates made so far: what random draws are keyed by
 * Local. */
enum status objective_begin(struct objective *objective, int64_t epoch, int64_t step);

/* Rows that the regression loss will see: what is known of them before the network has run.
 * samples_of_rank  [ranks]
 * labels           [samples of this rank, targets] of the parameters' type, in the memory of the ops
 * views            rows of each sample that the regression loss sees
 * Collective. */
enum status objective_take_labels(struct objective *objective, const int64_t *samples_of_rank, const void *labels,
                                  int views);

/* Where outputs are no predictions: those that ConR sees, the first expert's or a distribution's mean.
 * outputs, predictions  [rows, head_outputs()], [rows, targets]
 * Local. */
enum status objective_predictions(const struct objective *objective, int64_t rows, const void *outputs,
                                  void *predictions);

/* The regression loss of some of the rows of the global batch, and its gradient.  A batch may come in pieces: the
 * values of all pieces and ranks add up to the loss.
 * grad_outputs  [views * samples, head_outputs()], overwritten
 * sums          += the part of these rows; in the memory of the ops
 * Local. */
enum objective_sum { OBJECTIVE_LOSS, OBJECTIVE_NOISE /* derivative by the noise scale */, OBJECTIVE_SUMS };
enum status objective_regression(struct objective *objective, const struct objective_batch *batch, void *grad_outputs,
                                 double sums[OBJECTIVE_SUMS]);

/* Let what the objective learns by itself, the noise scale, take the step's gradient.  Same value. */
void objective_update(struct objective *objective, double noise_gradient);

/* 0 without Balanced MSE. */
double objective_noise_scale(const struct objective *objective);

/* What the objective keeps from step to step; arrays are borrowed from it.  Returns how many, at most
 * OBJECTIVE_STATES. */
#define OBJECTIVE_STATES (2 + REGULARISER_STATES)
size_t objective_states(struct objective *objective, struct state_array states[OBJECTIVE_STATES]);

/* *found += how many of x [count], or 1 if any, are not finite; dtype that of values or parameters.  Local. */
enum status objective_count_nonfinite(const struct objective *objective, enum dtype dtype, int64_t count, const void *x,
                                      double *found);

/* Where piece `index` of `pieces` of some samples begins; piece number `pieces` would begin at their end. */
static inline int64_t objective_piece_first(int64_t samples, int64_t index, int64_t pieces) {
  return samples * index / pieces;
}

/* ConR over the rows of all ranks, in parts: features and predictions may come in pieces, whose rows travel to the other
 * ranks while the next ones are computed.  All ranks make the same calls, also those that have no row in a piece.  Who
 * fails alone between begin and finish must abort the job.
 *
 * batch   its samples, labels and weights, which are borrowed until all pieces are added
 * pieces  piece `index` are samples objective_piece_first(samples, index, pieces) .. of each rank, in all views
 * lend    regularisers will look at the same rows (conr_parts.h): objective_conr_lent()
 * Collective; failures are agreed.  ERR_BUG when there is no ConR. */
enum status objective_conr_begin(struct objective *objective, const struct objective_batch *batch, int64_t pieces,
                                 bool lend);

/* features     [views * samples of the piece, features], read (on a device by work that is queued) before this returns
 * predictions  [views * samples of the piece, targets], likewise
 * Collective. */
enum status objective_conr_add(struct objective *objective, int64_t index, const void *features,
                               const void *predictions);

/* Push rows along, between pieces of work: see comm_progress().  Local. */
enum status objective_conr_progress(struct objective *objective);

/* Once all pieces are there: the gradient of conr_beta times ConR.
 * features       [views * samples, features] of all pieces together, view by view
 * grad_features  the same shape, overwritten
 * Collective.  ERR_NUMERIC on all ranks alike when it meets a value that is not finite, here or in the next
 * function. */
enum status objective_conr_finish(struct objective *objective, const void *features, void *grad_features);

/* The rows of that batch on every rank, for objective_regularise() before the next one begins.  Local. */
struct lent_rows objective_conr_lent(const struct objective *objective);

/* Are there regularisers beside ConR on one of these sides (regularisers.h)? */
bool objective_has_regularisers(const struct objective *objective, int sides);

/* These, over the rows of all ranks: adds their gradient, each times its coefficient.
 * grad_features  [rows of the share, features], +=
 * Collective.  Failures are those of all ranks. */
enum status objective_regularise(struct objective *objective, int sides, const struct regulariser_share *share,
                                 void *grad_features);

/* Of the last step: values without coefficients, and their sum with them; 0 for those that are off.  Local. */
void objective_regulariser_values(const struct objective *objective, double values[REGULARISERS], double *total);

/* regularisers_seconds().  Local. */
void objective_regulariser_seconds(struct objective *objective, double *gather, double *all);

/* To be called behind the last step of an epoch.  Same value. */
void objective_end_epoch(struct objective *objective);

/* The last value of ConR, without its coefficient; the same on all ranks.  gather_seconds: in which this rank (its main
 * stream, on a device) waited for the exchanges of rows; those that travelled while it computed are not in it.  Host
 * waits on a device. */
enum status objective_conr_value(struct objective *objective, double *conr, double *gather_seconds);

/* What objective_conr_value() found, for those who count work and bytes (conr.h); of zeros before the first step.
 * Local. */
struct conr_result objective_conr_result(const struct objective *objective);

#endif
