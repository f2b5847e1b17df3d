/* Composition of regression loss and regularisers. */
#include "loss/objective.h"

#include "dist/memory.h"

struct objective {
  const struct ops *ops; /* borrowed: tables live for ever */
  struct objective_options options;
  int features, targets, ranks;
  struct conr *conr;     /* NULL when off                       */
  int64_t *rows_of_rank; /* [ranks] rows that ConR sees, by rank */
};

enum status objective_create(MPI_Comm mpi, const struct ops *ops, const struct objective_options *options, int features,
                             int targets, struct objective **out) {
  *out = NULL;
  TRY(regression_check(&options->regression));
  struct objective *objective = NULL;
  enum status status;
  TRY(memory_alloc_zero(sizeof *objective, (void **)&objective));
  objective->ops = ops;
  objective->options = *options;
  objective->features = features;
  objective->targets = targets;
  MPI_Comm_size(mpi, &objective->ranks);
  TRY_GOTO(memory_alloc((size_t)objective->ranks * sizeof(int64_t), (void **)&objective->rows_of_rank), failed);
  if (options->conr) {
    enum conr_precision precision = ops->dtype == F32 ? CONR_F32 : CONR_F64;
    TRY_GOTO((enum status)conr_create(mpi, features, targets, precision, &options->conr_options, &objective->conr),
             failed);
  }
  *out = objective;
  return STATUS_OK;
failed:
  objective_destroy(&objective);
  return status;
}

void objective_destroy(struct objective **objective) {
  if (*objective == NULL)
    return;
  conr_destroy(&(*objective)->conr);
  memory_free((void **)&(*objective)->rows_of_rank);
  memory_free((void **)objective);
}

bool objective_has_conr(const struct objective *objective) {
  return objective->conr != NULL;
}

void objective_regression(const struct objective *objective, const struct objective_batch *batch,
                          void *grad_predictions, double *loss_local) {
  regression_loss(&objective->options.regression, objective->ops->dtype, batch->views * batch->samples,
                  objective->targets, batch->predictions, batch->labels,
                  objective->options.weights ? batch->weights : NULL, batch->views * batch->samples_global,
                  grad_predictions, loss_local);
}

enum status objective_conr(struct objective *objective, const struct objective_batch *batch, void *grad_features,
                           double *conr) {
  struct conr_result result;
  int64_t rows = batch->views * batch->samples;
  REQUIRE(objective->conr != NULL, ERR_BUG, "this objective has no ConR");
  for (int rank = 0; rank < objective->ranks; rank++)
    objective->rows_of_rank[rank] = batch->views * batch->samples_of_rank[rank];
  struct conr_batch share = {.rows = rows,
                             .features = batch->features,
                             .labels = batch->labels,
                             .predictions = batch->predictions,
                             .weights = objective->options.weights ? batch->weights : NULL,
                             .rows_of_rank = objective->rows_of_rank};
  TRY((enum status)conr_loss(objective->conr, &share, grad_features, &result));
  *conr = result.loss;
  return objective->ops->scale((size_t)(rows * objective->features), objective->options.conr_beta, grad_features);
}
