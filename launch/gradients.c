/* Passes and micro-batches of a training step. */
#include "launch/gradients.h"

#include "dist/comm_device.h"
#include "dist/log.h"
#include "dist/memory.h"
#include "launch/shards.h"
#include "launch/upload.h"

#include <math.h>
#include <string.h>

/* Views that go through the network together, and what is computed on them. */
struct group {
  size_t number; /* of the step's: 0, 1 */
  int first_view, views;
  bool regression, conr;
  int sides; /* of the regularisers beside ConR that look at it; 0 = none */
  bool last; /* of the step */
};

/* What a step finds out, in double, where the net is. */
enum number {
  NUMBER_REGRESSION,
  NUMBER_NOISE,
  NUMBER_BAD,
  NUMBER_SQUARES,
  NUMBER_FACTOR,
  NUMBER_RECONSTRUCTION, /* sum of squared errors */
  NUMBERS
};
_Static_assert((int)NUMBER_REGRESSION == (int)OBJECTIVE_LOSS && (int)NUMBER_NOISE == (int)OBJECTIVE_NOISE,
               "the first numbers are the sums of objective_regression()");

struct gradients {
  struct gradients_parts parts;
  struct device *device;                            /* of the net                                           */
  int64_t targets, outputs, features;               /* of a row; features: that terms on them see           */
  int64_t input_bytes, feature_bytes, weight_bytes; /* of a row                                             */
  int64_t element_bytes;                            /* of a parameter                                       */
  struct upload *upload;
  struct step_clock *clock;
  struct shards *shards;            /* NULL: each rank's rows are one shard                                */
  double *sums;                     /* [NUMBERS] where the pass at hand adds up: `numbers`, or a shard's     */
  struct gradients_seconds seconds; /* since they were asked for last                                      */
  double *numbers;                  /* [NUMBERS] in the memory of the net                                      */
  double *numbers_here;             /* the same, pinned, once the host has waited                              */
  struct gradients_value value;     /* of the step at hand, so far                                             */
  struct batch batch;               /* the one at hand, where the net reads it                                 */
  int64_t *epoch;                   /* of the batch at hand, in the memory of the net                          */
  const int64_t *samples;           /* borrowed: of the batch at hand, in host memory                          */
  int64_t *samples_of_rank;         /* [ranks] of the step at hand                                             */
  void *grad_outputs;               /* [capacity, outputs]                                          */
  void *predictions;   /* [capacity, targets] that ConR sees; NULL where they are the outputs, or without it */
  void *grad_features; /* [group rows, features], of shards group by group; NULL without regularisers */
  void *grad_smoothed; /* likewise of smoothed features that regularisers see; else NULL */
  /* Of features that are distributions, where terms see their means; else NULL. */
  void *means, *smoothed_means; /* [capacity, features] of the last pass; the second where there is grad_smoothed */
  void *wide_gradient, *wide_smoothed; /* [capacity, 2 features]: gradients of the distributions, likewise */
  /* Of micro-batches; NULL when every pass goes through whole. */
  void *all_features, *all_smoothed;                                  /* [group rows, ...]; NULL likewise */
  void *piece_smoothed;                                               /* [capacity, ...]; NULL likewise */
  void *piece_inputs, *piece_labels, *piece_weights, *piece_gradient; /* [capacity, ...] */
  void *piece_buckets;                                                /* likewise, int32; NULL without smoothing */
};

/* --- life --------------------------------------------------------------------------------------------------- */

static int most_views(int views) {
  return views == 3 ? 2 : views;
}

static int64_t piece_samples(const struct sampler *sampler, int64_t micro_batch) {
  int64_t most = sampler_most_shard_rows(sampler);
  return micro_batch > 0 && micro_batch < most ? micro_batch : most;
}

int64_t gradients_capacity(const struct sampler *sampler, int views, int64_t micro_batch) {
  return most_views(views) * piece_samples(sampler, micro_batch);
}

enum status gradients_buckets(struct comm *data, const struct net *net, size_t bytes, struct buckets **out) {
  struct parameters own = net_learned(net);
  size_t *offsets;
  TRY(memory_alloc((size_t)own.count * sizeof *offsets, (void **)&offsets));
  for (int i = 0; i < own.count; i++)
    offsets[i] = own.list[i].offset - own.list->offset;
  enum status status = buckets_create(data, net_ops(net)->parameter_dtype, own.gradients, offsets, (size_t)own.count,
                                      own.elements, bytes, out);
  memory_free((void **)&offsets);
  return status;
}

/* Do regularisers of the regression loss's pass see what the head reads?  The published smoothing is in place. */
static bool regularises_smoothed(const struct gradients *own) {
  struct smoother *smoother = own->parts.smoother;
  return smoother != NULL && fds_options_of(smoother_fds(smoother))->in_place &&
         objective_has_regularisers(own->parts.objective, SIDE_REGRESSION);
}

static enum status alloc_rows(struct gradients *own, int64_t rows, int64_t row_bytes, void **out) {
  return device_alloc(own->device, (size_t)(rows * row_bytes), out);
}

static enum status alloc_pieces(struct gradients *own, int64_t rows, int64_t capacity) {
  if (capacity == rows && own->shards == NULL)
    return STATUS_OK;
  TRY(alloc_rows(own, capacity, own->input_bytes, &own->piece_inputs));
  TRY(alloc_rows(own, capacity, own->targets * own->element_bytes, &own->piece_labels));
  TRY(alloc_rows(own, capacity, own->weight_bytes, &own->piece_weights));
  if (own->parts.smoother != NULL)
    TRY(alloc_rows(own, capacity, sizeof(int32_t), &own->piece_buckets));
  if (own->grad_features == NULL)
    return STATUS_OK;
  TRY(alloc_rows(own, capacity, own->feature_bytes, &own->piece_gradient));
  if (own->grad_smoothed != NULL) {
    TRY(alloc_rows(own, capacity, own->feature_bytes, &own->piece_smoothed));
    TRY(alloc_rows(own, rows, own->feature_bytes, &own->all_smoothed));
  }
  return alloc_rows(own, rows, own->feature_bytes, &own->all_features);
}

static enum status alloc_means(struct gradients *own, int64_t capacity) {
  if (own->grad_features == NULL || own->features == net_feature_width(own->parts.net))
    return STATUS_OK;
  TRY(alloc_rows(own, capacity, own->feature_bytes, &own->means));
  TRY(alloc_rows(own, capacity, 2 * own->feature_bytes, &own->wide_gradient));
  if (own->grad_smoothed == NULL)
    return STATUS_OK;
  TRY(alloc_rows(own, capacity, own->feature_bytes, &own->smoothed_means));
  return alloc_rows(own, capacity, 2 * own->feature_bytes, &own->wide_smoothed);
}

static enum status alloc_all(struct gradients *own) {
  const struct gradients_parts *parts = &own->parts;
  int64_t most = sampler_most_rows(parts->sampler), rows = most_views(parts->views) * most;
  int64_t capacity = gradients_capacity(parts->sampler, parts->views, parts->micro_batch);
  struct upload_sizes sizes = {.rows = parts->views * most,
                               .input_bytes = (size_t)own->input_bytes,
                               .target_bytes = (size_t)(own->targets * own->element_bytes),
                               .weight_bytes = (size_t)own->weight_bytes,
                               .images = parts->images};
  if (parts->sampler->shards > 0)
    TRY(shards_create(parts->comm, parts->net, parts->sampler, NUMBERS, parts->views == 3 ? 2 : 1, &own->shards));
  TRY(upload_create(own->device, &sizes, &own->upload));
  TRY(step_clock_create(own->device, &own->clock));
  TRY(device_alloc_zero(own->device, NUMBERS * sizeof *own->numbers, (void **)&own->numbers));
  TRY(device_alloc_pinned(own->device, NUMBERS * sizeof *own->numbers, (void **)&own->numbers_here));
  memset(own->numbers_here, 0, NUMBERS * sizeof *own->numbers); /* of a step that fails on the way */
  TRY(device_alloc(own->device, sizeof *own->epoch, (void **)&own->epoch));
  TRY(memory_alloc((size_t)comm_size(parts->comm) * sizeof(int64_t), (void **)&own->samples_of_rank));
  TRY(alloc_rows(own, capacity, own->outputs * own->element_bytes, &own->grad_outputs));
  if (objective_has_conr(parts->objective) && objective_head(parts->objective)->kind != HEAD_VALUES)
    TRY(alloc_rows(own, capacity, own->targets * own->element_bytes, &own->predictions));
  int64_t gradients = own->shards != NULL ? parts->views * most : rows; /* of all groups, or of one after the other */
  if (objective_has_conr(parts->objective) || objective_has_regularisers(parts->objective, SIDE_BOTH))
    TRY(alloc_rows(own, gradients, own->feature_bytes, &own->grad_features));
  if (own->grad_features != NULL && regularises_smoothed(own))
    TRY(alloc_rows(own, rows, own->feature_bytes, &own->grad_smoothed));
  TRY(alloc_means(own, capacity));
  return alloc_pieces(own, rows, capacity);
}

enum status gradients_create(const struct gradients_parts *parts, struct gradients **out) {
  const struct ops *ops = net_ops(parts->net);
  struct gradients *own;
  *out = NULL;
  TRY(memory_alloc_zero(sizeof *own, (void **)&own));
  own->parts = *parts;
  own->device = ops->device;
  own->targets = objective_head(parts->objective)->targets;
  own->outputs = net_output_width(parts->net);
  own->features = net_mean_width(parts->net);
  own->element_bytes = (int64_t)dtype_size(ops->parameter_dtype);
  own->weight_bytes = head_weights(objective_head(parts->objective)) * own->element_bytes;
  own->feature_bytes = own->features * (int64_t)dtype_size(ops->dtype);
  own->input_bytes = net_input_width(parts->net) * (net_input(parts->net).pixels ? 1 : (int64_t)dtype_size(ops->dtype));
  enum status status = alloc_all(own);
  if (status != STATUS_OK)
    gradients_destroy(&own);
  *out = own;
  return status;
}

void gradients_destroy(struct gradients **gradients) {
  struct gradients *own = *gradients;
  if (own == NULL)
    return;
  void **const buffers[] = {&own->wide_smoothed,  &own->wide_gradient,   &own->smoothed_means, &own->means,
                            &own->piece_smoothed, &own->all_smoothed,    &own->grad_smoothed,  &own->piece_buckets,
                            &own->piece_gradient, &own->piece_weights,   &own->piece_labels,   &own->piece_inputs,
                            &own->all_features,   &own->grad_features,   &own->grad_outputs,   &own->predictions,
                            (void **)&own->epoch, (void **)&own->numbers};
  for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
    device_free(own->device, buffers[i]);
  device_free_pinned(own->device, (void **)&own->numbers_here);
  shards_destroy(&own->shards);
  step_clock_destroy(&own->clock);
  upload_destroy(&own->upload);
  memory_free((void **)&own->samples_of_rank);
  memory_free((void **)gradients);
}

/* --- rows --------------------------------------------------------------------------------------------------- */

/* Samples first .. first + samples - 1 of this rank, in all views of a group; one of `pieces`. */
struct piece {
  int64_t first, samples;
  bool whole; /* all samples of the rank */
};

static struct piece piece_of(const struct gradients *own, const struct batch *batch, int64_t index, int64_t pieces) {
  if (own->shards != NULL) {
    struct shard shard = shards_samples(own->shards, index);
    return (struct piece){.first = shard.first, .samples = shard.rows, .whole = pieces == 1};
  }
  int64_t first = objective_piece_first(batch->rows, index, pieces);
  int64_t end = objective_piece_first(batch->rows, index + 1, pieces);
  return (struct piece){.first = first, .samples = end - first, .whole = pieces == 1};
}

/* How many pieces the largest share of the step needs: the same on all ranks. */
static int64_t count_pieces(const struct gradients *own) {
  if (own->shards != NULL)
    return sampler_most_shards(own->parts.sampler);
  int64_t most = 1, room = piece_samples(own->parts.sampler, own->parts.micro_batch);
  for (int rank = 0; rank < comm_size(own->parts.comm); rank++)
    most = own->samples_of_rank[rank] > most ? own->samples_of_rank[rank] : most;
  return room > 0 ? (most + room - 1) / room : 1;
}

static char *row_at(const void *rows, int64_t row, int64_t row_bytes) {
  return (char *)rows + row * row_bytes;
}

/* The piece's rows of an array [views * batch->rows, row_bytes] whose first view is `view`: in place when they lie
 * together, else copied to `room`.  Those of a shard are always copied: where they lie beside others must not decide
 * how they are computed. */
static enum status rows_of(const struct gradients *own, const struct batch *batch, const struct group *group,
                           const struct piece *piece, const void *rows, int view, int64_t row_bytes, void *room,
                           const void **out) {
  *out = room;
  if (own->shards == NULL && (piece->whole || group->views == 1)) {
    *out = row_at(rows, view * batch->rows + piece->first, row_bytes);
    return STATUS_OK;
  }
  for (int v = 0; v < group->views; v++)
    TRY(device_copy(own->device, row_at(room, v * piece->samples, row_bytes),
                    row_at(rows, (view + v) * batch->rows + piece->first, row_bytes),
                    (size_t)(piece->samples * row_bytes)));
  return STATUS_OK;
}

/* Where a view of a piece begins in an array of features, [views of the group * batch->rows]: such arrays lie view by
 * view, or shard by shard. */
static int64_t feature_row(const struct gradients *own, const struct batch *batch, const struct group *group,
                           const struct piece *piece, int view) {
  return own->shards != NULL ? group->views * piece->first + view * piece->samples : view * batch->rows + piece->first;
}

/* Where the gradient of a group's features is kept.  Of shards all groups' are, until each shard goes back. */
static void *gradient_of(const struct gradients *own, const struct batch *batch, const struct group *group) {
  return own->shards == NULL ? own->grad_features
                             : row_at(own->grad_features, group->first_view * batch->rows, own->feature_bytes);
}

/* The piece's rows of such an array: in place when they lie together, else copied to `room`. */
static enum status features_of(const struct gradients *own, const struct batch *batch, const struct group *group,
                               const struct piece *piece, const void *all, void *room, const void **out) {
  if (own->shards == NULL)
    return rows_of(own, batch, group, piece, all, 0, own->feature_bytes, room, out);
  *out = row_at(all, feature_row(own, batch, group, piece, 0), own->feature_bytes);
  return STATUS_OK;
}

/* The reverse: a piece's features to their place in it. */
static enum status store_features(const struct gradients *own, const struct batch *batch, const struct group *group,
                                  const struct piece *piece, const void *rows, void *all) {
  for (int v = 0; v < group->views; v++)
    TRY(device_copy(own->device, row_at(all, feature_row(own, batch, group, piece, v), own->feature_bytes),
                    row_at(rows, v * piece->samples, own->feature_bytes),
                    (size_t)(piece->samples * own->feature_bytes)));
  return STATUS_OK;
}

/* --- forward ------------------------------------------------------------------------------------------------ */

/* On the host: remember the first value that is not finite, and whose it is. */
static void name_nonfinite(struct gradients *own, int64_t first, int64_t count, int64_t rows, const void *inputs) {
  enum dtype dtype = net_ops(own->parts.net)->dtype;
  const struct {
    const char *name;
    const void *values;
    int64_t width;
  } arrays[] = {{"an input", inputs, own->parts.table ? net_input_width(own->parts.net) : 0},
                {"a feature", net_features(own->parts.net), net_feature_width(own->parts.net)},
                {"a prediction", net_predictions(own->parts.net), own->outputs}};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays && own->value.nonfinite == NULL; i++) {
    if (arrays[i].width == 0) /* pixels are always finite */
      continue;
    int64_t at = regression_first_nonfinite(dtype, rows * arrays[i].width, arrays[i].values);
    if (at < 0)
      continue;
    own->value.nonfinite = arrays[i].name;
    own->value.sample = own->samples[first + at / arrays[i].width % count];
  }
}

/* Most steps are sound: one look at the end of the network tells. */
static enum status look_for_nonfinite(struct gradients *own, const struct piece *piece, int64_t rows,
                                      const void *inputs) {
  const struct ops *ops = net_ops(own->parts.net);
  double before = own->device == NULL ? own->numbers[NUMBER_BAD] : 0;
  if (rows == 0)
    return STATUS_OK;
  TRY(objective_count_nonfinite(own->parts.objective, ops->parameter_dtype, rows * own->outputs,
                                net_predictions(own->parts.net), &own->numbers[NUMBER_BAD]));
  if (own->grad_features != NULL)
    TRY(objective_count_nonfinite(own->parts.objective, ops->dtype, rows * net_feature_width(own->parts.net),
                                  net_features(own->parts.net), &own->numbers[NUMBER_BAD]));
  if (own->device == NULL && own->numbers[NUMBER_BAD] > before)
    name_nonfinite(own, piece->first, piece->samples, rows, inputs);
  return STATUS_OK;
}

/* How the features of a piece are smoothed; *out is NULL when they are not. */
static enum status smoothing_of(const struct gradients *own, const struct batch *batch, const struct group *group,
                                const struct piece *piece, struct smoothing *room, const struct smoothing **out) {
  const struct smoothing *whole = own->parts.smoother != NULL ? smoother_rows(own->parts.smoother) : NULL;
  const void *bucket;
  *out = NULL;
  if (whole == NULL || !group->regression)
    return STATUS_OK;
  TRY(rows_of(own, batch, group, piece, whole->bucket, group->first_view, sizeof *whole->bucket, own->piece_buckets,
              &bucket));
  *room = *whole;
  room->bucket = bucket;
  *out = room;
  return STATUS_OK;
}

static bool has_terms_on_features(const struct group *group) {
  return group->conr || group->sides != 0;
}

/* What terms on features see of the pass at hand. */
static const void *seen_features(const struct gradients *own) {
  return own->means != NULL ? own->means : net_features(own->parts.net);
}

static const void *seen_smoothed(const struct gradients *own) {
  return own->smoothed_means != NULL ? own->smoothed_means : net_smoothed_features(own->parts.net);
}

/* Means lie among variances, and terms take them packed. */
static enum status pack_means(struct gradients *own, const struct group *group, int64_t rows) {
  const struct ops *ops = net_ops(own->parts.net);
  if (own->means == NULL || !has_terms_on_features(group))
    return STATUS_OK;
  TRY(ops->sample_forward(rows, own->features, net_features(own->parts.net), NULL, own->means));
  if (own->smoothed_means == NULL)
    return STATUS_OK;
  return ops->sample_forward(rows, own->features, net_smoothed_features(own->parts.net), NULL, own->smoothed_means);
}

/* And back: gradients of the distributions; *gradient is of their means, or NULL. */
static enum status unpack_gradient(struct gradients *own, int64_t rows, void *wide, const void **gradient) {
  if (*gradient == NULL || wide == NULL)
    return STATUS_OK;
  TRY(net_ops(own->parts.net)->sample_backward(rows, own->features, NULL, NULL, *gradient, wide));
  *gradient = wide;
  return STATUS_OK;
}

static enum status push_rows(void *context) {
  return objective_conr_progress(context);
}

/* Numbers of the inputs that a step reconstructs, on all ranks. */
static double reconstructed(const struct gradients *own) {
  int views = own->parts.views == 3 ? 1 : own->parts.views;
  return (double)own->batch.rows_global * views * (double)net_input_width(own->parts.net);
}

static enum status forward(struct gradients *own, const struct batch *batch, const struct group *group,
                           const struct piece *piece, bool again, bool accumulate) {
  int64_t rows = group->views * piece->samples;
  const void *inputs;
  const struct net_hooks hooks = {.context = own->parts.objective, .progress = push_rows};
  const struct reconstruction reconstruction = {.factor = 2 * own->parts.reconstruct / reconstructed(own),
                                                .squares = &own->sums[NUMBER_RECONSTRUCTION]};
  TRY(step_clock_enter(own->clock, PHASE_FORWARD));
  TRY(rows_of(own, batch, group, piece, batch->inputs, group->first_view, own->input_bytes, own->piece_inputs,
              &inputs));
  struct pass pass = {.training = true,
                      .accumulate = accumulate,
                      .keep_statistics = again,
                      .seed = own->parts.seed,
                      .epoch = own->epoch,
                      .samples = batch->samples + piece->first,
                      .views = group->views,
                      .first_view = group->first_view,
                      .reconstruction = own->parts.reconstruct > 0 && group->regression ? &reconstruction : NULL,
                      .hooks = group->conr ? &hooks : NULL};
  struct smoothing smoothing;
  TRY(smoothing_of(own, batch, group, piece, &smoothing, &pass.smoothing));
  TRY(net_forward(own->parts.net, inputs, rows, &pass));
  TRY(pack_means(own, group, rows));
  return look_for_nonfinite(own, piece, rows, inputs);
}

/* --- losses ------------------------------------------------------------------------------------------------- */

/* Of the piece that has just gone forward: fills grad_outputs. */
static enum status regression(struct gradients *own, const struct batch *batch, const struct group *group,
                              const struct piece *piece) {
  int64_t label_bytes = own->targets * own->element_bytes;
  struct objective_batch rows = {.samples = piece->samples,
                                 .samples_global = batch->rows_global,
                                 .views = group->views,
                                 .outputs = net_predictions(own->parts.net)};
  TRY(step_clock_enter(own->clock, PHASE_LOSS));
  if (!group->regression)
    return device_zero(own->device, own->grad_outputs,
                       (size_t)(group->views * piece->samples * own->outputs * own->element_bytes));
  TRY(rows_of(own, batch, group, piece, batch->targets, group->first_view, label_bytes, own->piece_labels,
              &rows.labels));
  TRY(rows_of(own, batch, group, piece, batch->weights, group->first_view, own->weight_bytes, own->piece_weights,
              &rows.weights));
  return objective_regression(own->parts.objective, &rows, own->grad_outputs, &own->sums[NUMBER_REGRESSION]);
}

/* Sides of a group whose regularisers see what the head reads where that is smoothed, and those that see the features
 * themselves: ConR's rows, where it is on. */
static int sides_of_smoothed(const struct gradients *own, const struct group *group) {
  return own->grad_smoothed != NULL ? group->sides & SIDE_REGRESSION : 0;
}

static int sides_of_features(const struct gradients *own, const struct group *group) {
  return group->sides & ~sides_of_smoothed(own, group);
}

/* ConR of the whole group, where it is on, whose rows come in pieces. */
static enum status begin_conr(struct gradients *own, const struct batch *batch, const struct group *group,
                              int64_t pieces) {
  int64_t first = group->first_view * batch->rows;
  struct objective_batch rows = {.samples = batch->rows,
                                 .samples_global = batch->rows_global,
                                 .views = group->views,
                                 .samples_of_rank = own->samples_of_rank,
                                 .labels = row_at(batch->targets, first, own->targets * own->element_bytes),
                                 .weights = row_at(batch->weights, first, own->weight_bytes)};
  if (!group->conr)
    return STATUS_OK;
  if (own->shards != NULL) {
    rows.samples_of_shard = shards_samples_of_shard(own->shards);
    rows.shards_of_rank = shards_of_rank(own->shards);
  }
  TRY(step_clock_enter(own->clock, PHASE_LOSS));
  return objective_conr_begin(own->parts.objective, &rows, pieces, sides_of_features(own, group) != 0);
}

/* The rows of piece `index` that have just gone forward leave for the other ranks. */
static enum status add_to_conr(struct gradients *own, const struct group *group, int64_t index,
                               const struct piece *piece) {
  const void *predictions = net_predictions(own->parts.net);
  if (!group->conr)
    return STATUS_OK;
  TRY(step_clock_enter(own->clock, PHASE_LOSS));
  if (own->predictions != NULL) {
    TRY(objective_predictions(own->parts.objective, group->views * piece->samples, predictions, own->predictions));
    predictions = own->predictions;
  }
  return objective_conr_add(own->parts.objective, index, seen_features(own), predictions);
}

/* Fills grad_features. */
static enum status finish_conr(struct gradients *own, const struct batch *batch, const struct group *group,
                               const void *features) {
  if (!group->conr)
    return STATUS_OK;
  TRY(step_clock_enter(own->clock, PHASE_CONR));
  return objective_conr_finish(own->parts.objective, features, gradient_of(own, batch, group));
}

/* Of the whole group, beside ConR, which has filled grad_features where it is on. */
static enum status regularise(struct gradients *own, const struct batch *batch, const struct group *group,
                              const void *features, const void *smoothed) {
  int64_t first = group->first_view * batch->rows;
  size_t bytes = (size_t)(group->views * batch->rows * own->feature_bytes);
  struct regulariser_share share = {.samples_of_rank = own->samples_of_rank,
                                    .views = group->views,
                                    .features = features,
                                    .labels = row_at(batch->targets, first, own->targets * own->element_bytes)};
  if (group->sides == 0)
    return STATUS_OK;
  TRY(step_clock_enter(own->clock, PHASE_LOSS));
  if (!group->conr)
    TRY(device_zero(own->device, gradient_of(own, batch, group), bytes));
  if (group->conr)
    share.lent = objective_conr_lent(own->parts.objective);
  if (own->shards != NULL) {
    share.samples_of_shard = shards_samples_of_shard(own->shards);
    share.shards_of_rank = shards_of_rank(own->shards);
  }
  TRY(objective_regularise(own->parts.objective, sides_of_features(own, group), &share,
                           gradient_of(own, batch, group)));
  if (sides_of_smoothed(own, group) == 0)
    return STATUS_OK;
  share.lent = (struct lent_rows){0}; /* these are other rows */
  share.features = smoothed;
  TRY(device_zero(own->device, own->grad_smoothed, bytes));
  return objective_regularise(own->parts.objective, sides_of_smoothed(own, group), &share, own->grad_smoothed);
}

/* --- backward ----------------------------------------------------------------------------------------------- */

static enum status gradient_ready(void *context, size_t index) {
  return buckets_ready(context, index);
}

static enum status progress_messages(void *context) {
  return buckets_progress(context);
}

/* The last backward pass of a step completes the gradients, which then travel. */
static enum status backward(struct gradients *own, const struct batch *batch, const struct group *group,
                            const struct piece *piece, bool last) {
  struct net_hooks hooks = {
      .context = own->parts.buckets, .gradient_ready = gradient_ready, .progress = progress_messages};
  const void *grad_features = NULL, *grad_smoothed = NULL;
  TRY(step_clock_enter(own->clock, PHASE_BACKWARD));
  if (has_terms_on_features(group))
    TRY(features_of(own, batch, group, piece, gradient_of(own, batch, group), own->piece_gradient, &grad_features));
  if (own->grad_smoothed != NULL && (group->sides & SIDE_REGRESSION))
    TRY(features_of(own, batch, group, piece, own->grad_smoothed, own->piece_smoothed, &grad_smoothed));
  TRY(unpack_gradient(own, group->views * piece->samples, own->wide_gradient, &grad_features));
  TRY(unpack_gradient(own, group->views * piece->samples, own->wide_smoothed, &grad_smoothed));
  return net_backward_smoothed(own->parts.net, own->grad_outputs, grad_features, grad_smoothed,
                               last && own->shards == NULL ? &hooks : NULL);
}

/* --- a group of views --------------------------------------------------------------------------------------- */

/* Does the piece exist here?  Of virtual shards some ranks have one less than others. */
static bool is_own(const struct gradients *own, int64_t piece) {
  return own->shards == NULL || piece < shards_own(own->shards);
}

/* Behind a pass whose statistics count. */
static enum status take_statistics(struct gradients *own, const struct group *group, int64_t piece) {
  return own->shards != NULL ? shards_take_statistics(own->shards, piece, group->number) : STATUS_OK;
}

static enum status compute_whole(struct gradients *own, const struct batch *batch, const struct group *group) {
  struct piece piece = piece_of(own, batch, 0, 1);
  TRY(begin_conr(own, batch, group, 1));
  TRY(forward(own, batch, group, &piece, false, group->first_view > 0));
  TRY(take_statistics(own, group, 0));
  TRY(add_to_conr(own, group, 0, &piece));
  TRY(regression(own, batch, group, &piece)); /* while the rows travel */
  TRY(finish_conr(own, batch, group, seen_features(own)));
  TRY(regularise(own, batch, group, seen_features(own), seen_smoothed(own)));
  return backward(own, batch, group, &piece, group->last);
}

/* The first of the two rounds, and the terms on features.  While a piece goes forward, the rows of those before it
 * travel. */
static enum status collect(struct gradients *own, const struct batch *batch, const struct group *group,
                           int64_t pieces) {
  TRY(begin_conr(own, batch, group, pieces));
  for (int64_t i = 0; i < pieces; i++) {
    struct piece piece = piece_of(own, batch, i, pieces);
    if (is_own(own, i))
      TRY(forward(own, batch, group, &piece, false, false));
    if (is_own(own, i))
      TRY(take_statistics(own, group, i));
    TRY(add_to_conr(own, group, i, &piece));
    TRY(store_features(own, batch, group, &piece, seen_features(own), own->all_features));
    if (own->grad_smoothed != NULL)
      TRY(store_features(own, batch, group, &piece, seen_smoothed(own), own->all_smoothed));
  }
  TRY(finish_conr(own, batch, group, own->all_features));
  return regularise(own, batch, group, own->all_features, own->all_smoothed);
}

static enum status compute_pieces(struct gradients *own, const struct batch *batch, const struct group *group,
                                  int64_t pieces) {
  if (has_terms_on_features(group))
    TRY(collect(own, batch, group, pieces));
  for (int64_t i = 0; i < pieces; i++) {
    struct piece piece = piece_of(own, batch, i, pieces);
    TRY(forward(own, batch, group, &piece, has_terms_on_features(group), group->first_view > 0 || i > 0));
    TRY(regression(own, batch, group, &piece));
    TRY(backward(own, batch, group, &piece, group->last && i == pieces - 1));
  }
  return STATUS_OK;
}

/* --- virtual shards ----------------------------------------------------------------------------------------- */

/* A shard through all groups: then the gradients are complete. */
static enum status compute_shard(struct gradients *own, const struct batch *batch, const struct group *groups,
                                 int count, int64_t shard, int64_t pieces) {
  struct piece piece = piece_of(own, batch, shard, pieces);
  own->sums = shards_numbers(own->shards, shard);
  for (int i = 0; i < count; i++) {
    bool again = has_terms_on_features(&groups[i]);
    double began = log_seconds();
    TRY(forward(own, batch, &groups[i], &piece, again, i > 0));
    own->seconds.again += again ? log_seconds() - began : 0;
    if (!again)
      TRY(take_statistics(own, &groups[i], shard));
    TRY(regression(own, batch, &groups[i], &piece));
    TRY(backward(own, batch, &groups[i], &piece, false));
  }
  return STATUS_OK;
}

/* As many shards as ranks: nothing has to go forward twice. */
static enum status compute_only_shard(struct gradients *own, const struct batch *batch, const struct group *groups,
                                      int count) {
  own->sums = shards_numbers(own->shards, 0);
  for (int i = 0; i < count; i++)
    TRY(compute_whole(own, batch, &groups[i]));
  return shards_add_gradients(own->shards);
}

static enum status compute_shards(struct gradients *own, const struct batch *batch, const struct group *groups,
                                  int count, int64_t pieces) {
  double sums[NUMBERS];
  if (pieces == 1)
    TRY(compute_only_shard(own, batch, groups, count));
  for (int i = 0; i < count && pieces > 1; i++)
    if (has_terms_on_features(&groups[i]))
      TRY(collect(own, batch, &groups[i], pieces));
  for (int64_t shard = 0; shard < shards_own(own->shards) && pieces > 1; shard++) {
    TRY(compute_shard(own, batch, groups, count, shard, pieces));
    TRY(shards_add_gradients(own->shards));
  }
  TRY(step_clock_enter(own->clock, PHASE_REDUCE));
  TRY(shards_finish(own->shards, sums));
  own->numbers[NUMBER_REGRESSION] = sums[NUMBER_REGRESSION];
  own->numbers[NUMBER_NOISE] = sums[NUMBER_NOISE];
  own->numbers[NUMBER_RECONSTRUCTION] = sums[NUMBER_RECONSTRUCTION];
  return STATUS_OK;
}

/* --- a step ------------------------------------------------------------------------------------------------- */

enum status gradients_begin(struct gradients *own, const struct batch *batch) {
  own->value = (struct gradients_value){0};
  own->samples = batch->samples;
  for (int rank = 0; rank < comm_size(own->parts.comm); rank++)
    own->samples_of_rank[rank] = sampler_shard_of(own->parts.sampler, batch->step, rank).rows;
  if (own->shards != NULL)
    shards_begin(own->shards, batch->step);
  TRY(device_copy(own->device, own->epoch, &batch->epoch, sizeof batch->epoch)); /* read before the call returns */
  TRY(objective_begin(own->parts.objective, batch->epoch,
                      batch->epoch * sampler_steps(own->parts.sampler) + batch->step));
  if (own->parts.smoother != NULL)
    TRY(smoother_begin(own->parts.smoother, batch->epoch, batch));
  return upload_take(own->upload, batch, &own->batch);
}

/* Shares follow from the rows of all ranks, and all the batch's memory from that of its inputs. */
struct gradients_key gradients_key(const struct gradients *own) {
  bool smooths = own->parts.smoother != NULL && smoother_rows(own->parts.smoother) != NULL;
  return (struct gradients_key){.inputs = own->batch.inputs, .rows = own->batch.rows_global, .smooths = smooths};
}

/* Those of the sides that have a regulariser. */
static int sides_of(const struct gradients *own, int sides) {
  int any = 0;
  for (int side = SIDE_CONTRAST; side <= SIDE_REGRESSION; side++)
    any |= (sides & side) && objective_has_regularisers(own->parts.objective, side) ? side : 0;
  return any;
}

static enum status compute_groups(struct gradients *own, const struct batch *batch, const struct group *groups,
                                  int count, int64_t pieces) {
  TRY(buckets_begin(own->parts.buckets));
  for (int i = 0; i < count; i++) {
    if (pieces == 1)
      TRY(compute_whole(own, batch, &groups[i]));
    else
      TRY(compute_pieces(own, batch, &groups[i], pieces));
    TRY(net_update_statistics(own->parts.net, own->parts.data));
  }
  TRY(step_clock_enter(own->clock, PHASE_REDUCE));
  return buckets_wait(own->parts.buckets);
}

enum status gradients_compute(struct gradients *own) {
  bool with_conr = objective_has_conr(own->parts.objective), apart = own->parts.views == 3;
  struct group groups[2] = {{.views = most_views(own->parts.views), .regression = !apart, .conr = with_conr},
                            {.first_view = 2, .views = 1, .regression = true}};
  int count = apart ? 2 : 1;
  groups[0].sides = sides_of(own, apart ? SIDE_CONTRAST : SIDE_BOTH);
  groups[1].sides = sides_of(own, SIDE_REGRESSION);
  groups[1].number = 1;
  groups[count - 1].last = true;
  own->sums = own->numbers;
  step_clock_begin(own->clock);
  TRY(device_zero(own->device, own->numbers, NUMBERS * sizeof *own->numbers));
  TRY(objective_take_labels(own->parts.objective, own->samples_of_rank, own->batch.targets,
                            apart ? 1 : own->parts.views));
  if (own->shards != NULL)
    TRY(compute_shards(own, &own->batch, groups, count, count_pieces(own)));
  else
    TRY(compute_groups(own, &own->batch, groups, count, count_pieces(own)));
  return step_clock_enter(own->clock, PHASE_UPDATE);
}

enum status gradients_clip(struct gradients *own, double clip_norm, const double **factor) {
  const struct ops *ops = net_ops(own->parts.net);
  struct parameters parameters = net_learned(own->parts.net);
  *factor = NULL;
  TRY(ops->sum_squares(parameters.elements, parameters.gradients, &own->numbers[NUMBER_SQUARES]));
  if (clip_norm == 0)
    return STATUS_OK;
  *factor = &own->numbers[NUMBER_FACTOR];
  return ops->clip_factor(clip_norm, &own->numbers[NUMBER_SQUARES], &own->numbers[NUMBER_FACTOR]);
}

enum status gradients_end(struct gradients *own) {
  TRY(step_clock_leave(own->clock));
  return device_copy(own->device, own->numbers_here, own->numbers, NUMBERS * sizeof *own->numbers);
}

enum status gradients_release(struct gradients *own) {
  own->samples = NULL;
  return upload_release(own->upload);
}

enum status gradients_ahead(struct gradients *own, const struct batch *next) {
  return upload_ahead(own->upload, next);
}

size_t gradients_shard_bytes(const struct gradients *own) {
  return own->shards != NULL ? shards_bytes(own->shards) : 0;
}

struct device_images_counts gradients_images(const struct gradients *own) {
  return upload_images(own->upload);
}

enum status gradients_finish(struct gradients *own, struct gradients_value *value) {
  TRY(comm_device_wait(own->parts.data));
  TRY(step_clock_read(own->clock));
  own->value.of_all_ranks = own->shards != NULL;
  own->value.regression = own->numbers_here[NUMBER_REGRESSION];
  own->value.noise_gradient = own->numbers_here[NUMBER_NOISE];
  own->value.squares = own->numbers_here[NUMBER_SQUARES];
  own->value.reconstruction =
      own->parts.reconstruct > 0 ? own->numbers_here[NUMBER_RECONSTRUCTION] / reconstructed(own) : 0;
  own->value.bad = own->numbers_here[NUMBER_BAD] > 0 || !isfinite(own->value.reconstruction);
  objective_regulariser_values(own->parts.objective, own->value.regularisers, &own->value.regularisers_total);
  *value = own->value;
  if (!objective_has_conr(own->parts.objective))
    return STATUS_OK;
  double gather_seconds;
  TRY(objective_conr_value(own->parts.objective, &value->conr, &gather_seconds));
  own->seconds.gather += gather_seconds;
  return STATUS_OK;
}

size_t gradients_pieces(const struct gradients *own) {
  return own->shards != NULL ? shards_pieces(own->shards) : (size_t)buckets_count(own->parts.buckets);
}

struct gradients_seconds gradients_seconds(struct gradients *own, bool reset) {
  struct gradients_seconds *seconds = &own->seconds;
  double gather, regularisers;
  objective_regulariser_seconds(own->parts.objective, &gather, &regularisers);
  seconds->gather += gather;
  seconds->regularisers += regularisers;
  step_clock_seconds(own->clock, reset, seconds->phase);
  seconds->conr = seconds->phase[PHASE_CONR];
  seconds->phase[PHASE_LOSS] += seconds->conr;
  seconds->phase[PHASE_CONR] = 0;
  struct gradients_seconds now = *seconds;
  if (reset)
    *seconds = (struct gradients_seconds){0};
  return now;
}
