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
  REQUIRE(options->views >= 1 && options->views <= 3, ERR_ARGUMENT, "views is %d; give 1, 2 or 3", options->views);
  REQUIRE(options->views < 3 || options->conr, ERR_ARGUMENT, "3 views make sense with ConR only");
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

bool objective_has_feature_gradient(const struct objective *objective) {
  return objective->conr != NULL;
}

/* Row `row` of a [.., width] array. */
static void *row_at(const struct objective *objective, const void *array, int64_t row, int64_t width) {
  return (char *)array + (size_t)(row * width) * dtype_size(objective->ops->dtype);
}

/* The regression loss on the last view (of 3) or on all. */
static enum status evaluate_regression(struct objective *objective, const struct objective_batch *batch,
                                       void *grad_predictions, struct objective_value *value) {
  int views = objective->options.views, terms = views == 3 ? 1 : views;
  int64_t first = (views - terms) * batch->rows, targets = objective->targets;
  TRY(objective->ops->zero((size_t)(first * targets), grad_predictions));
  regression_loss(
      &objective->options.regression, objective->ops->dtype, terms * batch->rows, objective->targets,
      row_at(objective, batch->predictions, first, targets), row_at(objective, batch->labels, first, targets),
      objective->options.weights ? row_at(objective, batch->weights, first, 1) : NULL, terms * batch->rows_global,
      row_at(objective, grad_predictions, first, targets), &value->regression_local);
  return STATUS_OK;
}

/* ConR on the first two views, or on the only one. */
static enum status evaluate_conr(struct objective *objective, const struct objective_batch *batch, void *grad_features,
                                 struct objective_value *value) {
  int views = objective->options.views, terms = views == 3 ? 2 : views;
  for (int rank = 0; rank < objective->ranks; rank++)
    objective->rows_of_rank[rank] = terms * batch->samples_of_rank[rank];
  int64_t rows = terms * batch->rows, rest = (views - terms) * batch->rows;
  struct conr_batch share = {.rows = rows,
                             .features = batch->features,
                             .labels = batch->labels,
                             .predictions = batch->predictions,
                             .weights = objective->options.weights ? batch->weights : NULL,
                             .rows_of_rank = objective->rows_of_rank};
  TRY((enum status)conr_loss(objective->conr, &share, grad_features, &value->conr_details));
  value->conr = value->conr_details.loss;
  TRY(objective->ops->scale((size_t)(rows * objective->features), objective->options.conr_beta, grad_features));
  return objective->ops->zero((size_t)(rest * objective->features),
                              row_at(objective, grad_features, rows, objective->features));
}

enum status objective_evaluate(struct objective *objective, const struct objective_batch *batch, void *grad_predictions,
                               void *grad_features, struct objective_value *value) {
  *value = (struct objective_value){0};
  TRY(evaluate_regression(objective, batch, grad_predictions, value));
  if (objective->conr != NULL)
    TRY(evaluate_conr(objective, batch, grad_features, value));
  return STATUS_OK;
}
