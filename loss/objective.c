/* Composition of regression loss and regularisers. */
#include "loss/objective.h"

#include "dist/memory.h"
#include "dist/replay.h"
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
  /* Balanced MSE */
  struct comm *comm; /* of the host */
  struct noise_scale noise_scale;
  double *coefficient;                     /* [experts] of the epoch, in the memory of the ops; NULL without experts */
  struct balanced_device *balanced_device; /* on a device; NULL when off */
  struct comm *data;                       /* borrowed; of the device; NULL on the host       */
  struct regularisers *regularisers;       /* NULL = none */
  /* Of the batch that ConR has begun. */
  struct objective_batch batch;
  int64_t pieces;
  int64_t *rows_of_rank, *block_of_rank, *first_of_rank; /* [ranks] all rows; those of a block, and its first */
};

static enum status create_balanced(struct objective *objective, MPI_Comm mpi) {
  if (objective->options.balanced == NULL)
    return STATUS_OK;
  TRY(noise_scale_begin(&objective->options.noise_scale, &objective->noise_scale));
  if (objective->losses != NULL)
    return objective->losses->balanced_create(objective->ops->device, objective->data, objective->options.balanced,
                                              &objective->balanced_device);
  return comm_create(mpi, &objective->comm);
}

static enum status create_regularisers(struct objective *objective, MPI_Comm mpi) {
  bool any = false;
  for (int i = 0; i < REGULARISERS; i++)
    any = any || objective->options.regularisers.on[i];
  if (!any)
    return STATUS_OK;
  return regularisers_create(mpi, objective->data, objective->ops, &objective->options.regularisers,
                             objective->features, objective->targets, &objective->regularisers);
}

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
  objective->options.head.targets = targets;
  objective->features = features;
  objective->targets = targets;
  MPI_Comm_size(mpi, &objective->ranks);
  TRY(memory_alloc(3 * (size_t)objective->ranks * sizeof(int64_t), (void **)&objective->rows_of_rank));
  objective->block_of_rank = objective->rows_of_rank + objective->ranks;
  objective->first_of_rank = objective->block_of_rank + objective->ranks;
  if (options->head.kind == HEAD_EXPERTS)
    TRY(device_alloc(ops->device, (size_t)options->head.uvote.experts * sizeof(double),
                     (void **)&objective->coefficient));
  return ops->device == NULL ? STATUS_OK : loss_ops_open(ops->device, &objective->losses);
}

static enum status check_loss(const struct objective_options *options) {
  if (options->head.kind == HEAD_EXPERTS)
    return uvote_check(&options->head.uvote);
  if (options->head.kind == HEAD_EVIDENTIAL)
    return evidential_check(&options->head.evidential);
  return regression_check(&options->regression);
}

enum status objective_create(MPI_Comm mpi, struct comm *data, const struct ops *ops,
                             const struct objective_options *options, int features, int targets,
                             struct objective **out) {
  *out = NULL;
  TRY(check_loss(options));
  /* One rank alone may lack memory, or have another library. */
  enum status status = create_own(mpi, ops, options, features, targets, out);
  status = data != NULL ? comm_agree(data, status) : status;
  if (status == STATUS_OK) {
    (*out)->data = ops->device != NULL ? data : NULL;
    status = create_balanced(*out, mpi);
  }
  if (status == STATUS_OK)
    status = create_regularisers(*out, mpi);
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
  regularisers_destroy(&(*objective)->regularisers);
  device_free((*objective)->ops->device, (void **)&(*objective)->coefficient);
  if ((*objective)->balanced_device != NULL)
    (*objective)->losses->balanced_destroy(&(*objective)->balanced_device);
  comm_destroy(&(*objective)->comm);
  memory_free((void **)&(*objective)->rows_of_rank);
  memory_free((void **)objective);
}

const struct head *objective_head(const struct objective *objective) {
  return &objective->options.head;
}

void objective_left_to_host(const struct objective *objective, char *text, size_t room) {
  text[0] = 0;
  if (objective->losses != NULL)
    regularisers_on_host(objective->regularisers, text, room);
}

bool objective_has_conr(const struct objective *objective) {
  return objective->conr != NULL || objective->conr_device != NULL;
}

/* From memory that is not pinned, so it is read before the call returns. */
static enum status set_coefficients(struct objective *objective, int64_t epoch) {
  double coefficient[UVOTE_MOST_EXPERTS];
  const struct uvote *uvote = &objective->options.head.uvote;
  uvote_coefficients(uvote, epoch, objective->options.epochs, coefficient);
  return device_copy(objective->ops->device, objective->coefficient, coefficient,
                     (size_t)uvote->experts * sizeof *coefficient);
}

enum status objective_begin(struct objective *objective, int64_t epoch, int64_t step) {
  regularisers_set_step(objective->regularisers, step);
  if (objective->coefficient != NULL)
    TRY(set_coefficients(objective, epoch));
  if (objective->balanced_device == NULL)
    return STATUS_OK;
  return objective->losses->balanced_set_sigma(objective->balanced_device, objective->noise_scale.now.sigma);
}

enum status objective_take_labels(struct objective *objective, const int64_t *samples_of_rank, const void *labels,
                                  int views) {
  if (objective->options.balanced == NULL)
    return STATUS_OK;
  if (objective->losses != NULL)
    return objective->losses->balanced_begin(objective->balanced_device, samples_of_rank, labels, views);
  return balanced_begin(objective->options.balanced, objective->comm, samples_of_rank, labels, views);
}

static enum status balanced(struct objective *objective, const struct objective_batch *batch, void *grad_outputs,
                            double sums[OBJECTIVE_SUMS]) {
  int64_t rows = batch->views * batch->samples, rows_global = batch->views * batch->samples_global;
  double part, noise_gradient;
  if (objective->losses != NULL)
    return objective->losses->balanced_loss(objective->balanced_device, rows, batch->outputs, batch->labels,
                                            rows_global, grad_outputs, sums);
  balanced_loss(objective->options.balanced, objective->noise_scale.now.sigma, rows, batch->outputs, batch->labels,
                rows_global, grad_outputs, &part, &noise_gradient);
  sums[OBJECTIVE_LOSS] += part;
  sums[OBJECTIVE_NOISE] += noise_gradient;
  return STATUS_OK;
}

static enum status pointwise_device(const struct objective *objective, const struct objective_batch *batch,
                                    const void *weights, void *grad_outputs, double *sum) {
  const struct head *head = &objective->options.head;
  int64_t rows = batch->views * batch->samples, rows_global = batch->views * batch->samples_global;
  switch (head->kind) {
  case HEAD_EXPERTS:
    return objective->losses->uvote(&head->uvote, rows, objective->targets, batch->outputs, batch->labels,
                                    batch->weights, objective->coefficient, rows_global, grad_outputs, sum);
  case HEAD_EVIDENTIAL:
    return objective->losses->evidential(&head->evidential, rows, objective->targets, batch->outputs, batch->labels,
                                         weights, rows_global, grad_outputs, sum);
  case HEAD_VALUES:
    break;
  }
  return objective->losses->regression(&objective->options.regression, rows, objective->targets, batch->outputs,
                                       batch->labels, weights, rows_global, grad_outputs, sum);
}

/* Returns the part of these rows. */
static double pointwise_host(const struct objective *objective, const struct objective_batch *batch,
                             const void *weights, void *grad_outputs) {
  const struct head *head = &objective->options.head;
  enum dtype dtype = objective->ops->dtype;
  int64_t rows = batch->views * batch->samples, rows_global = batch->views * batch->samples_global;
  double part = 0;
  switch (head->kind) {
  case HEAD_EXPERTS:
    uvote_loss(&head->uvote, dtype, rows, objective->targets, batch->outputs, batch->labels, batch->weights,
               objective->coefficient, rows_global, grad_outputs, &part);
    break;
  case HEAD_EVIDENTIAL:
    evidential_loss(&head->evidential, dtype, rows, objective->targets, batch->outputs, batch->labels, weights,
                    rows_global, grad_outputs, &part);
    break;
  case HEAD_VALUES:
    regression_loss(&objective->options.regression, dtype, rows, objective->targets, batch->outputs, batch->labels,
                    weights, rows_global, grad_outputs, &part);
  }
  return part;
}

enum status objective_regression(struct objective *objective, const struct objective_batch *batch, void *grad_outputs,
                                 double sums[OBJECTIVE_SUMS]) {
  const void *weights = objective->options.weights ? batch->weights : NULL;
  if (objective->options.balanced != NULL)
    return balanced(objective, batch, grad_outputs, sums);
  if (objective->losses != NULL)
    return pointwise_device(objective, batch, weights, grad_outputs, &sums[OBJECTIVE_LOSS]);
  sums[OBJECTIVE_LOSS] += pointwise_host(objective, batch, weights, grad_outputs);
  return STATUS_OK;
}

enum status objective_predictions(const struct objective *objective, int64_t rows, const void *outputs,
                                  void *predictions) {
  return head_answer(&objective->options.head, objective->losses, UVOTE_FIRST, objective->ops->parameter_dtype, rows,
                     outputs, NULL, predictions, NULL);
}

void objective_update(struct objective *objective, double noise_gradient) {
  if (objective->options.balanced != NULL)
    noise_scale_update(&objective->noise_scale, noise_gradient);
}

double objective_noise_scale(const struct objective *objective) {
  return objective->options.balanced != NULL ? objective->noise_scale.now.sigma : 0;
}

size_t objective_states(struct objective *objective, struct state_array states[OBJECTIVE_STATES]) {
  size_t count = 0;
  if (objective->options.balanced != NULL)
    states[count++] = noise_scale_state(&objective->noise_scale);
  if (objective->conr != NULL && objective->options.conr_options.memory_rows > 0) {
    states[count].name = "conr_memory";
    conr_memory(objective->conr, &states[count].values, &states[count].count);
    count++;
  }
  return count + regularisers_states(objective->regularisers, states + count);
}

enum status objective_count_nonfinite(const struct objective *objective, enum dtype dtype, int64_t count, const void *x,
                                      double *found) {
  if (objective->losses != NULL)
    return objective->losses->count_nonfinite(dtype, count, x, found);
  *found += regression_first_nonfinite(dtype, count, x) >= 0;
  return STATUS_OK;
}

struct rows_note {
  struct objective *objective;
  const int64_t *samples_of_rank; /* borrowed */
  int views;
};

static enum status note_rows(const void *arguments) {
  const struct rows_note *note = arguments;
  for (int rank = 0; rank < note->objective->ranks; rank++)
    note->objective->rows_of_rank[rank] = note->views * note->samples_of_rank[rank];
  return STATUS_OK;
}

enum status objective_conr_begin(struct objective *objective, const struct objective_batch *batch, int64_t pieces,
                                 bool lend) {
  struct rows_note note = {objective, batch->samples_of_rank, batch->views};
  REQUIRE(objective_has_conr(objective), ERR_BUG, "this objective has no ConR");
  objective->batch = *batch;
  objective->pieces = pieces;
  TRY(replay_note(objective->ops->device, note_rows, &note, sizeof note));
  struct conr_batch rows = {
      .rows = batch->views * batch->samples, .rows_of_rank = objective->rows_of_rank, .views = batch->views};
  int blocks = pieces == 1 ? 1 : (int)pieces * batch->views;
  if (objective->losses != NULL)
    return objective->losses->conr_begin(objective->conr_device, &rows, blocks, lend);
  return conr_begin(objective->conr, &rows, blocks, lend);
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

struct lent_rows objective_conr_lent(const struct objective *objective) {
  if (objective->losses != NULL)
    return objective->losses->conr_lent(objective->conr_device);
  return conr_lent(objective->conr);
}

enum status objective_conr_value(struct objective *objective, double *conr, double *gather_seconds) {
  struct conr_result *result = &objective->conr_result;
  if (objective->conr_device != NULL)
    TRY(objective->losses->conr_result(objective->conr_device, result));
  *conr = result->loss;
  *gather_seconds = result->gather_seconds;
  return STATUS_OK;
}

struct conr_result objective_conr_result(const struct objective *objective) {
  return objective->conr_result;
}

/* --- regularisers beside ConR --------------------------------------------------------------------------------- */

bool objective_has_regularisers(const struct objective *objective, int sides) {
  return regularisers_any(objective->regularisers, sides);
}

enum status objective_regularise(struct objective *objective, int sides, const struct regulariser_share *share,
                                 void *grad_features) {
  return regularisers_add(objective->regularisers, sides, share, grad_features);
}

void objective_regulariser_values(const struct objective *objective, double values[REGULARISERS], double *total) {
  for (int i = 0; i < REGULARISERS; i++)
    values[i] = regularisers_value(objective->regularisers, (enum regulariser)i);
  *total = regularisers_total(objective->regularisers);
}

void objective_regulariser_seconds(struct objective *objective, double *gather, double *all) {
  regularisers_seconds(objective->regularisers, gather, all);
}

void objective_end_epoch(struct objective *objective) {
  regularisers_end_epoch(objective->regularisers);
}
