/* Composition of regression loss and regularisers. */
#include "loss/objective.h"

#include "dist/memory.h"
#include "loss/conr_parts.h"
#include "loss/loss_ops.h"

struct objective {
  const struct ops *ops;         /* borrowed: lives as long as its device      */
  const struct loss_ops *losses; /* borrowed: likewise; NULL on the host        */
  struct objective_options options;
  int features, targets, ranks;
  struct conr *conr;               /* on the host; NULL when off                  */
  struct conr_device *conr_device; /* on a device; likewise                       */
  struct conr_result conr_result;  /* of the last batch, on the host              */
  /* Of the batch that ConR has begun. */
  struct objective_batch batch;
  int64_t pieces;
  int64_t *rows_of_rank, *block_of_rank, *first_of_rank; /* [ranks] all rows; those of a block, and its first */
};

static enum status create_conr(struct objective *objective, MPI_Comm mpi, struct comm *data) {
  const struct ops *ops = objective->ops;
  const struct conr_options *options = &objective->options.conr_options;
  if (!objective->options.conr)
    return STATUS_OK;
  if (objective->losses != NULL)
    return objective->losses->conr_create(ops->device, data, ops->precision, objective->features, objective->targets,
                                          options, &objective->conr_device);
  return (enum status)conr_create(mpi, objective->features, objective->targets, ops->dtype == F32 ? CONR_F32 : CONR_F64,
                                  options, &objective->conr);
}

/* What needs no other rank.  Local; destroy what it leaves, also where it fails. */
static enum status create_own(MPI_Comm mpi, const struct ops *ops, const struct objective_options *options,
                              int features, int targets, struct objective **out) {
  TRY(memory_alloc_zero(sizeof **out, (void **)out));
  struct objective *objective = *out;
  objective->ops = ops;
  objective->options = *options;
  objective->features = features;
  objective->targets = targets;
  MPI_Comm_size(mpi, &objective->ranks);
  TRY(memory_alloc(3 * (size_t)objective->ranks * sizeof(int64_t), (void **)&objective->rows_of_rank));
  objective->block_of_rank = objective->rows_of_rank + objective->ranks;
  objective->first_of_rank = objective->block_of_rank + objective->ranks;
  return ops->device == NULL ? STATUS_OK : loss_ops_open(ops->device, &objective->losses);
}

enum status objective_create(MPI_Comm mpi, struct comm *data, const struct ops *ops,
                             const struct objective_options *options, int features, int targets,
                             struct objective **out) {
  *out = NULL;
  TRY(regression_check(&options->regression));
  /* One rank alone may lack memory, or have another library. */
  enum status status = create_own(mpi, ops, options, features, targets, out);
  status = data != NULL ? comm_agree(data, status) : status;
  if (status == STATUS_OK)
    status = create_conr(*out, mpi, data);
  if (status != STATUS_OK)
    objective_destroy(out);
  return status;
}

void objective_destroy(struct objective **objective) {
  if (*objective == NULL)
    return;
  if ((*objective)->conr_device != NULL)
    (*objective)->losses->conr_destroy(&(*objective)->conr_device);
  conr_destroy(&(*objective)->conr);
  memory_free((void **)&(*objective)->rows_of_rank);
  memory_free((void **)objective);
}

bool objective_has_conr(const struct objective *objective) {
  return objective->conr != NULL || objective->conr_device != NULL;
}

enum status objective_regression(const struct objective *objective, const struct objective_batch *batch,
                                 void *grad_predictions, double *sum) {
  const struct regression *loss = &objective->options.regression;
  int64_t rows = batch->views * batch->samples, rows_global = batch->views * batch->samples_global;
  const void *weights = objective->options.weights ? batch->weights : NULL;
  double part;
  if (objective->losses != NULL)
    return objective->losses->regression(loss, rows, objective->targets, batch->predictions, batch->labels, weights,
                                         rows_global, grad_predictions, sum);
  regression_loss(loss, objective->ops->dtype, rows, objective->targets, batch->predictions, batch->labels, weights,
                  rows_global, grad_predictions, &part);
  *sum += part;
  return STATUS_OK;
}

enum status objective_count_nonfinite(const struct objective *objective, enum dtype dtype, int64_t count, const void *x,
                                      double *found) {
  if (objective->losses != NULL)
    return objective->losses->count_nonfinite(dtype, count, x, found);
  *found += regression_first_nonfinite(dtype, count, x) >= 0;
  return STATUS_OK;
}

enum status objective_conr_begin(struct objective *objective, const struct objective_batch *batch, int64_t pieces) {
  REQUIRE(objective_has_conr(objective), ERR_BUG, "this objective has no ConR");
  objective->batch = *batch;
  objective->pieces = pieces;
  for (int rank = 0; rank < objective->ranks; rank++)
    objective->rows_of_rank[rank] = batch->views * batch->samples_of_rank[rank];
  struct conr_batch rows = {.rows = batch->views * batch->samples, .rows_of_rank = objective->rows_of_rank};
  int blocks = pieces == 1 ? 1 : (int)pieces * batch->views;
  if (objective->losses != NULL)
    return objective->losses->conr_begin(objective->conr_device, &rows, blocks);
  return conr_begin(objective->conr, &rows, blocks);
}

/* Rows of a piece that lie side by side in the batch, which are all views of a whole batch and else one: on each rank
 * `views` views from `view` on.  Returns those of this rank; the arrays of their batch begin at row *first. */
static int64_t place_block(struct objective *objective, int64_t index, int view, int views, int64_t *first) {
  const struct objective_batch *batch = &objective->batch;
  for (int rank = 0; rank < objective->ranks; rank++) {
    int64_t samples = batch->samples_of_rank[rank], begin = objective_piece_first(samples, index, objective->pieces);
    objective->first_of_rank[rank] = view * samples + begin;
    objective->block_of_rank[rank] = views * (objective_piece_first(samples, index + 1, objective->pieces) - begin);
  }
  int64_t begin = objective_piece_first(batch->samples, index, objective->pieces);
  *first = view * batch->samples + begin;
  return views * (objective_piece_first(batch->samples, index + 1, objective->pieces) - begin);
}

static const void *row_at(const void *rows, int64_t row, int64_t width, enum dtype dtype) {
  return rows == NULL ? NULL : (const char *)rows + (size_t)(row * width) * dtype_size(dtype);
}

static enum status add_block(struct objective *objective, int64_t index, int view, int views, const void *features,
                             const void *predictions) {
  const struct objective_batch *batch = &objective->batch;
  enum dtype dtype = objective->ops->parameter_dtype;
  int64_t first, rows = place_block(objective, index, view, views, &first);
  struct conr_batch block = {.rows = rows,
                             .features = row_at(features, view * rows, objective->features, objective->ops->dtype),
                             .labels = row_at(batch->labels, first, objective->targets, dtype),
                             .predictions = row_at(predictions, view * rows, objective->targets, dtype),
                             .rows_of_rank = objective->block_of_rank};
  if (objective->options.weights)
    block.weights = row_at(batch->weights, first, 1, dtype);
  if (objective->losses != NULL)
    return objective->losses->conr_add(objective->conr_device, &block, objective->first_of_rank);
  return conr_add(objective->conr, &block, objective->first_of_rank);
}

enum status objective_conr_add(struct objective *objective, int64_t index, const void *features,
                               const void *predictions) {
  if (objective->pieces == 1)
    return add_block(objective, index, 0, objective->batch.views, features, predictions);
  for (int view = 0; view < objective->batch.views; view++)
    TRY(add_block(objective, index, view, 1, features, predictions));
  return STATUS_OK;
}

enum status objective_conr_progress(struct objective *objective) {
  if (objective->losses != NULL)
    return objective->losses->conr_progress(objective->conr_device);
  return conr_progress(objective->conr);
}

enum status objective_conr_finish(struct objective *objective, const void *features, void *grad_features) {
  double beta = objective->options.conr_beta;
  int64_t rows = objective->batch.views * objective->batch.samples;
  if (objective->losses != NULL)
    return objective->losses->conr_finish(objective->conr_device, beta, features, grad_features);
  TRY(conr_finish(objective->conr, features, grad_features, &objective->conr_result));
  return objective->ops->scale((size_t)(rows * objective->features), beta, grad_features);
}

enum status objective_conr_value(struct objective *objective, double *conr, double *gather_seconds) {
  struct conr_result result = objective->conr_result;
  if (objective->conr_device != NULL)
    TRY(objective->losses->conr_result(objective->conr_device, &result));
  *conr = result.loss;
  *gather_seconds = result.gather_seconds;
  return STATUS_OK;
}
