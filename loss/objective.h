/* The one objective of a training run: a regression loss, sample weights, and regularisers on the
 * gathered features, evaluated on a global batch.
 *
 *     struct objective *objective;
 *     TRY(objective_create(MPI_COMM_WORLD, ops, &options, features, targets, &objective));
 *     each step, on what the network computed for this rank's rows:
 *       TRY(objective_evaluate(objective, &batch, grad_predictions, grad_features, &value));
 *     objective_destroy(&objective);
 *
 * Rows are stacked by view: all first views of the own samples, then all second ones.
 *     views 1   every term on the rows
 *     views 2   every term on both views (one joint pass)
 *     views 3   ConR on the first two, the regression loss on the third (the published recipe)
 * Every term is divided by global counts, so gradients of parameters are to be summed over ranks. */
#ifndef CONR_LOSS_OBJECTIVE_H
#define CONR_LOSS_OBJECTIVE_H

#include "loss/conr.h"
#include "loss/regression.h"
#include "model/ops.h"

#include <stdbool.h>

struct objective;

struct objective_options {
  struct regression regression;
  bool weights; /* use the batch's sample weights; false = ones */
  bool conr;
  double conr_beta; /* coefficient of ConR */
  struct conr_options conr_options;
  int views; /* 1, 2 or 3 */
};

struct objective_batch {
  int64_t rows, rows_global;      /* samples of this rank and of all; rows may be 0 */
  const int64_t *samples_of_rank; /* [ranks]                                        */
  const void *features;           /* [views * rows, features]                       */
  const void *predictions;        /* [views * rows, targets]                        */
  const void *labels;             /* [views * rows, targets]                        */
  const void *weights;            /* [views * rows]                                 */
};

struct objective_value {
  double regression_local; /* this rank's part; the sum over ranks is the loss           */
  double conr;             /* global, without its coefficient; 0 when off                */
  struct conr_result conr_details;
};

/* Collective; all ranks pass equal arguments. */
enum status objective_create(MPI_Comm mpi, const struct ops *ops, const struct objective_options *options, int features,
                             int targets, struct objective **out);
void objective_destroy(struct objective **objective);

/* Does it send a gradient to the features?  If not, pass NULL on to net_backward(). */
bool objective_has_feature_gradient(const struct objective *objective);

/* Values, and gradients of  regression + conr_beta * conr.
 * grad_predictions  [views * rows, targets], overwritten
 * grad_features     [views * rows, features], overwritten; not touched when there is no feature gradient
 * Collective.  ERR_NUMERIC on all ranks alike when ConR meets a value that is not finite. */
enum status objective_evaluate(struct objective *objective, const struct objective_batch *batch, void *grad_predictions,
                               void *grad_features, struct objective_value *value);

#endif
