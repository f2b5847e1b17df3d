/* Passes and micro-batches of a training step. */
#include "launch/gradients.h"

#include "dist/memory.h"

#include <string.h>

/* Views that go through the network together, and what is computed on them. */
struct group {
  int first_view, views;
  bool regression, conr;
  bool last; /* of the step */
};

struct gradients {
  struct gradients_parts parts;
  enum dtype dtype;
  int64_t targets, features, input_bytes; /* of a row */
  int64_t *samples_of_rank;               /* [ranks] of the step at hand                                  */
  void *grad_predictions;                 /* [capacity, targets]                                          */
  void *grad_features;                    /* [group rows, features]; NULL without ConR                    */
  /* Of micro-batches; NULL when every pass goes through whole. */
  void *all_features, *all_predictions;                               /* [group rows, ...]; NULL without ConR */
  void *piece_inputs, *piece_labels, *piece_weights, *piece_gradient; /* [capacity, ...] */
};

/* --- life --------------------------------------------------------------------------------------------------- */

static int most_views(int views) {
  return views == 3 ? 2 : views;
}

static int64_t piece_samples(const struct sampler *sampler, int64_t micro_batch) {
  int64_t most = sampler_most_rows(sampler);
  return micro_batch > 0 && micro_batch < most ? micro_batch : most;
}

int64_t gradients_capacity(const struct sampler *sampler, int views, int64_t micro_batch) {
  return most_views(views) * piece_samples(sampler, micro_batch);
}

enum status gradients_buckets(struct comm *comm, const struct net *net, size_t bytes, struct buckets **out) {
  struct parameters own = net_parameters(net);
  size_t *offsets;
  TRY(memory_alloc((size_t)own.count * sizeof *offsets, (void **)&offsets));
  for (int i = 0; i < own.count; i++)
    offsets[i] = own.list[i].offset;
  enum status status =
      buckets_create(comm, net_ops(net)->dtype, own.gradients, offsets, (size_t)own.count, own.elements, bytes, out);
  memory_free((void **)&offsets);
  return status;
}

static enum status alloc_rows(int64_t rows, int64_t row_bytes, void **out) {
  return memory_alloc((size_t)(rows * row_bytes), out);
}

static enum status alloc_pieces(struct gradients *own, int64_t rows, int64_t capacity) {
  int64_t real = (int64_t)dtype_size(own->dtype);
  if (capacity == rows)
    return STATUS_OK;
  TRY(alloc_rows(capacity, own->input_bytes, &own->piece_inputs));
  TRY(alloc_rows(capacity, own->targets * real, &own->piece_labels));
  TRY(alloc_rows(capacity, real, &own->piece_weights));
  if (own->grad_features == NULL)
    return STATUS_OK;
  TRY(alloc_rows(capacity, own->features * real, &own->piece_gradient));
  TRY(alloc_rows(rows, own->features * real, &own->all_features));
  return alloc_rows(rows, own->targets * real, &own->all_predictions);
}

static enum status alloc_all(struct gradients *own) {
  const struct gradients_parts *parts = &own->parts;
  int64_t real = (int64_t)dtype_size(own->dtype);
  int64_t rows = most_views(parts->views) * sampler_most_rows(parts->sampler);
  int64_t capacity = gradients_capacity(parts->sampler, parts->views, parts->micro_batch);
  TRY(memory_alloc((size_t)comm_size(parts->comm) * sizeof(int64_t), (void **)&own->samples_of_rank));
  TRY(alloc_rows(capacity, own->targets * real, &own->grad_predictions));
  if (objective_has_conr(parts->objective))
    TRY(alloc_rows(rows, own->features * real, &own->grad_features));
  return alloc_pieces(own, rows, capacity);
}

enum status gradients_create(const struct gradients_parts *parts, struct gradients **out) {
  struct gradients *own;
  *out = NULL;
  TRY(memory_alloc_zero(sizeof *own, (void **)&own));
  own->parts = *parts;
  own->dtype = net_ops(parts->net)->dtype;
  own->targets = net_output_width(parts->net);
  own->features = net_feature_width(parts->net);
  own->input_bytes = net_input_width(parts->net) * (net_input(parts->net).pixels ? 1 : (int64_t)dtype_size(own->dtype));
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
  void **const buffers[] = {&own->piece_gradient, &own->piece_weights,   &own->piece_labels,  &own->piece_inputs,
                            &own->all_features,   &own->all_predictions, &own->grad_features, &own->grad_predictions};
  for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
    memory_free(buffers[i]);
  memory_free((void **)&own->samples_of_rank);
  memory_free((void **)gradients);
}

/* --- rows --------------------------------------------------------------------------------------------------- */

/* Samples first .. first + samples - 1 of this rank, in all views of a group; one of `pieces`. */
struct piece {
  int64_t first, samples;
  bool whole; /* all samples of the rank */
};

static struct piece piece_of(const struct batch *batch, int64_t index, int64_t pieces) {
  int64_t first = batch->rows * index / pieces, end = batch->rows * (index + 1) / pieces;
  return (struct piece){.first = first, .samples = end - first, .whole = pieces == 1};
}

/* How many pieces the largest shard of the step needs: the same on all ranks. */
static int64_t count_pieces(const struct gradients *own) {
  int64_t most = 1, room = piece_samples(own->parts.sampler, own->parts.micro_batch);
  for (int rank = 0; rank < comm_size(own->parts.comm); rank++)
    most = own->samples_of_rank[rank] > most ? own->samples_of_rank[rank] : most;
  return room > 0 ? (most + room - 1) / room : 1;
}

static char *row_at(const void *rows, int64_t row, int64_t row_bytes) {
  return (char *)rows + row * row_bytes;
}

/* The piece's rows of an array [views * batch->rows, row_bytes] whose first view is `view`: in place when they lie
 * together, else copied to `room`. */
static const void *rows_of(const struct batch *batch, const struct group *group, const struct piece *piece,
                           const void *rows, int view, int64_t row_bytes, void *room) {
  if (piece->whole || group->views == 1)
    return row_at(rows, view * batch->rows + piece->first, row_bytes);
  for (int v = 0; v < group->views; v++)
    memcpy(row_at(room, v * piece->samples, row_bytes),
           row_at(rows, (view + v) * batch->rows + piece->first, row_bytes), (size_t)(piece->samples * row_bytes));
  return room;
}

/* The reverse: a piece's rows to their place in an array [views of the group * batch->rows, row_bytes]. */
static void store_rows(const struct batch *batch, const struct group *group, const struct piece *piece,
                       const void *rows, int64_t row_bytes, void *all) {
  for (int v = 0; v < group->views; v++)
    memcpy(row_at(all, v * batch->rows + piece->first, row_bytes), row_at(rows, v * piece->samples, row_bytes),
           (size_t)(piece->samples * row_bytes));
}

/* --- forward ------------------------------------------------------------------------------------------------ */

/* Remember the first value that is not finite. */
static void look_for_nonfinite(const struct gradients *own, const int64_t *samples, int64_t count, int64_t rows,
                               const void *inputs, struct gradients_value *value) {
  const struct {
    const char *name;
    const void *values;
    int64_t width;
  } arrays[] = {{"an input", inputs, own->parts.table ? net_input_width(own->parts.net) : 0},
                {"a feature", net_features(own->parts.net), own->features},
                {"a prediction", net_predictions(own->parts.net), own->targets}};
  if (value->nonfinite != NULL || count == 0)
    return;
  /* Most steps are sound: one look at the end tells. */
  if (regression_first_nonfinite(own->dtype, rows * own->targets, net_predictions(own->parts.net)) < 0 &&
      (own->grad_features == NULL ||
       regression_first_nonfinite(own->dtype, rows * own->features, net_features(own->parts.net)) < 0))
    return;
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays && value->nonfinite == NULL; i++) {
    if (arrays[i].width == 0) /* pixels are always finite */
      continue;
    int64_t at = regression_first_nonfinite(own->dtype, rows * arrays[i].width, arrays[i].values);
    if (at < 0)
      continue;
    value->nonfinite = arrays[i].name;
    value->sample = samples[at / arrays[i].width % count];
  }
}

static enum status forward(struct gradients *own, const struct batch *batch, const struct group *group,
                           const struct piece *piece, bool again, bool accumulate, struct gradients_value *value) {
  const int64_t *samples = batch->samples + piece->first;
  int64_t rows = group->views * piece->samples;
  const void *inputs =
      rows_of(batch, group, piece, batch->inputs, group->first_view, own->input_bytes, own->piece_inputs);
  struct pass pass = {.training = true,
                      .accumulate = accumulate,
                      .keep_statistics = again,
                      .seed = own->parts.seed,
                      .epoch = batch->epoch,
                      .samples = samples,
                      .views = group->views,
                      .first_view = group->first_view};
  TRY(net_forward(own->parts.net, inputs, rows, &pass));
  look_for_nonfinite(own, samples, piece->samples, rows, inputs, value);
  return STATUS_OK;
}

/* --- losses ------------------------------------------------------------------------------------------------- */

/* Of the piece that has just gone forward: fills grad_predictions. */
static enum status regression(struct gradients *own, const struct batch *batch, const struct group *group,
                              const struct piece *piece, struct gradients_value *value) {
  int64_t real = (int64_t)dtype_size(own->dtype);
  struct objective_batch rows = {
      .samples = piece->samples,
      .samples_global = batch->rows_global,
      .views = group->views,
      .predictions = net_predictions(own->parts.net),
      .labels = rows_of(batch, group, piece, batch->targets, group->first_view, own->targets * real, own->piece_labels),
      .weights = rows_of(batch, group, piece, batch->weights, group->first_view, real, own->piece_weights)};
  double loss = 0;
  if (!group->regression)
    return net_ops(own->parts.net)->zero((size_t)(group->views * piece->samples * own->targets), own->grad_predictions);
  objective_regression(own->parts.objective, &rows, own->grad_predictions, &loss);
  value->regression_local += loss;
  return STATUS_OK;
}

/* Of the whole group: fills grad_features. */
static enum status conr(struct gradients *own, const struct batch *batch, const struct group *group,
                        const void *features, const void *predictions, struct gradients_value *value) {
  int64_t first = group->first_view * batch->rows, real = (int64_t)dtype_size(own->dtype);
  struct objective_batch rows = {.samples = batch->rows,
                                 .samples_global = batch->rows_global,
                                 .views = group->views,
                                 .samples_of_rank = own->samples_of_rank,
                                 .features = features,
                                 .predictions = predictions,
                                 .labels = row_at(batch->targets, first, own->targets * real),
                                 .weights = row_at(batch->weights, first, real)};
  return objective_conr(own->parts.objective, &rows, own->grad_features, &value->conr);
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
  int64_t row_bytes = own->features * (int64_t)dtype_size(own->dtype);
  const void *grad_features =
      group->conr ? rows_of(batch, group, piece, own->grad_features, 0, row_bytes, own->piece_gradient) : NULL;
  return net_backward(own->parts.net, own->grad_predictions, grad_features, last ? &hooks : NULL);
}

/* --- a group of views --------------------------------------------------------------------------------------- */

static enum status compute_whole(struct gradients *own, const struct batch *batch, const struct group *group,
                                 struct gradients_value *value) {
  struct piece piece = piece_of(batch, 0, 1);
  TRY(forward(own, batch, group, &piece, false, group->first_view > 0, value));
  TRY(regression(own, batch, group, &piece, value));
  if (group->conr)
    TRY(conr(own, batch, group, net_features(own->parts.net), net_predictions(own->parts.net), value));
  return backward(own, batch, group, &piece, group->last);
}

/* The first of the two rounds: features and predictions of all pieces. */
static enum status collect(struct gradients *own, const struct batch *batch, const struct group *group, int64_t pieces,
                           struct gradients_value *value) {
  int64_t real = (int64_t)dtype_size(own->dtype);
  for (int64_t i = 0; i < pieces; i++) {
    struct piece piece = piece_of(batch, i, pieces);
    TRY(forward(own, batch, group, &piece, false, false, value));
    store_rows(batch, group, &piece, net_features(own->parts.net), own->features * real, own->all_features);
    store_rows(batch, group, &piece, net_predictions(own->parts.net), own->targets * real, own->all_predictions);
  }
  return STATUS_OK;
}

static enum status compute_pieces(struct gradients *own, const struct batch *batch, const struct group *group,
                                  int64_t pieces, struct gradients_value *value) {
  if (group->conr) {
    TRY(collect(own, batch, group, pieces, value));
    TRY(conr(own, batch, group, own->all_features, own->all_predictions, value));
  }
  for (int64_t i = 0; i < pieces; i++) {
    struct piece piece = piece_of(batch, i, pieces);
    TRY(forward(own, batch, group, &piece, group->conr, group->first_view > 0 || i > 0, value));
    TRY(regression(own, batch, group, &piece, value));
    TRY(backward(own, batch, group, &piece, group->last && i == pieces - 1));
  }
  return STATUS_OK;
}

enum status gradients_compute(struct gradients *own, const struct batch *batch, struct gradients_value *value) {
  bool with_conr = objective_has_conr(own->parts.objective), apart = own->parts.views == 3;
  struct group groups[2] = {{.views = most_views(own->parts.views), .regression = !apart, .conr = with_conr},
                            {.first_view = 2, .views = 1, .regression = true}};
  int count = apart ? 2 : 1;
  *value = (struct gradients_value){0};
  groups[count - 1].last = true;
  for (int rank = 0; rank < comm_size(own->parts.comm); rank++)
    own->samples_of_rank[rank] = sampler_shard_of(own->parts.sampler, batch->step, rank).rows;
  int64_t pieces = count_pieces(own);
  for (int i = 0; i < count; i++) {
    if (pieces == 1)
      TRY(compute_whole(own, batch, &groups[i], value));
    else
      TRY(compute_pieces(own, batch, &groups[i], pieces, value));
    TRY(net_update_statistics(own->parts.net, own->parts.comm));
  }
  return buckets_wait(own->parts.buckets);
}
