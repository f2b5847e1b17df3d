/* The list of operations: built, run forward and backward.  Its memory is laid out in net_plan.c. */
#include "model/layer.h"

#include "dist/host_copy.h"
#include "dist/memory.h"
#include "model/draw.h"

#include <stdio.h>
#include <string.h>

/* --- building ----------------------------------------------------------------------------------------------- */

static enum status make_list(struct parameter_list *list, int room) {
  list->room = room;
  return memory_alloc_zero((size_t)room * sizeof *list->list, (void **)&list->list);
}

enum status net_begin(const struct ops *ops, const struct net_input *input, int64_t capacity, struct net **out) {
  enum status status;
  struct net *net;
  *out = NULL;
  int64_t width = input->height * input->width * input->channels;
  REQUIRE(input->height >= 1 && input->width >= 1 && width >= 1 && width <= NET_MAX_WIDTH, ERR_ARGUMENT,
          "a network cannot read %lld inputs per row; give 1 to %d", (long long)width, NET_MAX_WIDTH);
  REQUIRE(capacity >= 0 && capacity <= INT32_MAX, ERR_ARGUMENT,
          "a network cannot hold %lld rows at a time; use a smaller batch or more ranks", (long long)capacity);
  TRY(memory_alloc_zero(sizeof *net, (void **)&net));
  TRY_GOTO(memory_alloc_zero(NET_MAX_OPERATIONS * sizeof *net->operations, (void **)&net->operations), failed);
  TRY_GOTO(memory_alloc_zero((NET_MAX_OPERATIONS + 1) * sizeof *net->value, (void **)&net->value), failed);
  TRY_GOTO(make_list(&net->parameters, 2 * NET_MAX_LAYERS), failed);
  TRY_GOTO(make_list(&net->buffers, 2 * NET_MAX_LAYERS), failed);
  net->ops = ops;
  net->workspace.device = ops->device;
  net->capacity = capacity;
  net->input = *input;
  net->value[0] = (struct value){.height = input->height, .width = input->width, .channels = input->channels};
  net->rows = -1;
  net->head = -1;
  *out = net;
  return STATUS_OK;
failed:
  net_destroy(&net);
  return status;
}

void net_destroy(struct net **net) {
  struct net *own = *net;
  if (own == NULL)
    return;
  void **const blocks[] = {(void **)&own->statistics,
                           (void **)&own->norm_values,
                           &own->smoothed,
                           &own->arena,
                           (void **)&own->masks,
                           &own->values,
                           &own->partial,
                           &own->buffer_data,
                           &own->gradients,
                           &own->data};
  for (int i = 0; i < own->operation_count; i++)
    own->ops->conv_destroy(&own->operations[i].conv);
  workspace_free(&own->workspace);
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
    device_free(own->ops->device, blocks[i]);
  memory_free((void **)&own->buffers.list);
  memory_free((void **)&own->parameters.list);
  memory_free((void **)&own->value);
  memory_free((void **)&own->operations);
  memory_free((void **)net);
}

int64_t value_width(const struct value *value) {
  return value->height * value->width * value->channels;
}

const struct value *net_last_value(const struct net *net) {
  return &net->value[net->last];
}

enum dtype net_value_dtype(const struct net *net, int value) {
  return value > 0 && value == net->operation_count ? net->ops->parameter_dtype : net->ops->dtype;
}

int net_last(const struct net *net) {
  return net->last;
}

void net_continue_from(struct net *net, int value) {
  net->last = value;
}

enum status net_add(struct net *net, const struct operation_kind *kind, int64_t height, int64_t width, int64_t channels,
                    struct operation **out) {
  struct value made = {.height = height, .width = width, .channels = channels};
  REQUIRE(!net->planned, ERR_BUG, "a %s cannot be added to a network whose memory is laid out", kind->name);
  REQUIRE(net->operation_count < NET_MAX_OPERATIONS, ERR_ARGUMENT, "the network has more than %d layers; use fewer",
          NET_MAX_LAYERS);
  REQUIRE(channels >= 1 && channels <= NET_MAX_WIDTH, ERR_ARGUMENT, "a layer cannot have %lld units; give 1 to %d",
          (long long)channels, NET_MAX_WIDTH);
  REQUIRE(height >= 1 && width >= 1, ERR_ARGUMENT,
          "an image of %lld x %lld is too small for this network: a %s has nothing left to work on; use larger images",
          (long long)net->input.height, (long long)net->input.width, kind->name);
  struct operation *operation = &net->operations[net->operation_count];
  *operation = (struct operation){.kind = kind,
                                  .reads = net->last,
                                  .also_reads = NO_VALUE,
                                  .width_in = value_width(&net->value[net->last]),
                                  .width_out = value_width(&made),
                                  .first_parameter = net->parameters.count,
                                  .first_buffer = net->buffers.count};
  net->operation_count++;
  net->last = net->operation_count;
  net->value[net->last] = made;
  *out = operation;
  return STATUS_OK;
}

static enum status append(struct parameter_list *list, const char *name, const char *suffix, int rank,
                          const int64_t *shape, enum initial initial, double scale) {
  REQUIRE(list->count < list->room, ERR_ARGUMENT, "the network has more than %d layers; use fewer", NET_MAX_LAYERS);
  struct parameter *parameter = &list->list[list->count];
  *parameter = (struct parameter){
      .offset = list->elements, .count = 1, .rank = rank, .shape = {1, 1, 1, 1}, .initial = initial, .scale = scale};
  int length = snprintf(parameter->name, sizeof parameter->name, "%s.%s", name, suffix);
  REQUIRE(length < PARAMETER_NAME_BYTES, ERR_BUG, "the parameter name %s.%s is longer than %d bytes", name, suffix,
          PARAMETER_NAME_BYTES - 1);
  for (int i = 0; i < rank; i++) {
    parameter->shape[i] = shape[i];
    parameter->count *= (size_t)shape[i];
  }
  list->elements += parameter->count;
  list->count++;
  return STATUS_OK;
}

enum status net_add_parameter(struct net *net, const char *name, const char *suffix, int rank, const int64_t *shape,
                              enum initial initial, double scale) {
  TRY(append(&net->parameters, name, suffix, rank, shape, initial, scale));
  net->operations[net->operation_count - 1].parameter_count++;
  return STATUS_OK;
}

enum status net_add_buffer(struct net *net, const char *name, const char *suffix, int64_t count, double value) {
  return append(&net->buffers, name, suffix, 1, &count, INITIAL_CONSTANT, value);
}

enum status net_begin_head(struct net *net) {
  REQUIRE(net->head < 0, ERR_BUG, "a network has one head, and this one has it already");
  net->head = net->operation_count;
  net->features = net->last;
  net->head_parameter = net->output_parameter = net->parameters.count;
  net->head_buffer = net->buffers.count;
  return STATUS_OK;
}

/* --- parameters --------------------------------------------------------------------------------------------- */

static void *slice(const struct net *net, const struct parameter *parameter, void *buffer) {
  return (char *)buffer + parameter->offset * dtype_size(net->ops->parameter_dtype);
}

void *net_parameter_data(const struct net *net, const struct operation *operation, int which) {
  return slice(net, &net->parameters.list[operation->first_parameter + which], net->data);
}

void *net_buffer_data(const struct net *net, const struct operation *operation, int which) {
  return slice(net, &net->buffers.list[operation->first_buffer + which], net->buffer_data);
}

/* Where the kinds write gradients: in their place, or beside it when they are to be added. */
void *net_parameter_gradient(const struct net *net, const struct operation *operation, int which) {
  const struct parameter *first = &net->parameters.list[operation->first_parameter];
  const struct parameter *parameter = first + which;
  if (!net->pass.accumulate)
    return slice(net, parameter, net->gradients);
  return (char *)net->partial + (parameter->offset - first->offset) * dtype_size(net->ops->parameter_dtype);
}

struct parameters net_parameters(const struct net *net) {
  return (struct parameters){.device = net->ops->device,
                             .data = net->data,
                             .gradients = net->gradients,
                             .elements = net->parameters.elements,
                             .count = net->parameters.count,
                             .list = net->parameters.list,
                             .head = net->head_parameter,
                             .output = net->output_parameter};
}

struct parameters net_learned(const struct net *net) {
  struct parameters own = net_parameters(net);
  const struct parameter *first = &own.list[net->first_learned];
  own.data = slice(net, first, net->data);
  own.gradients = slice(net, first, net->gradients);
  own.elements -= first->offset;
  own.count -= net->first_learned;
  own.list = first;
  own.head -= net->first_learned;
  own.output -= net->first_learned;
  return own;
}

struct parameters net_buffers(const struct net *net) {
  return (struct parameters){.device = net->ops->device,
                             .data = net->buffer_data,
                             .elements = net->buffers.elements,
                             .count = net->buffers.count,
                             .list = net->buffers.list,
                             .head = net->head_buffer,
                             .output = net->buffers.count};
}

static enum status initialise(const struct net *net, const struct parameter *parameter, uint64_t seed, int index,
                              void *data) {
  struct random_key key = random_key(seed, RANDOM_INIT, (uint64_t)index);
  void *first = slice(net, parameter, data);
  switch (parameter->initial) {
  case INITIAL_UNIFORM:
    draw_uniform(net->ops->parameter_dtype, parameter->count, key, parameter->scale, first);
    return STATUS_OK;
  case INITIAL_NORMAL:
    draw_normal(net->ops->parameter_dtype, parameter->count, key, parameter->scale, first);
    return STATUS_OK;
  case INITIAL_CONSTANT:
    draw_constant(net->ops->parameter_dtype, parameter->count, parameter->scale, first);
    return STATUS_OK;
  }
  return fail(ERR_BUG, "%s has no way to start", parameter->name);
}

/* Drawn on the host, so that a network starts from the same bits on every device. */
static enum status initialise_list(struct net *net, const struct parameter_list *list, uint64_t seed, void *data) {
  struct host_copy copy;
  enum status status;
  size_t bytes = list->elements * dtype_size(net->ops->parameter_dtype);
  TRY(host_copy_create(net->ops->device, data, bytes, &copy));
  for (int i = 0; i < list->count; i++)
    TRY_GOTO(initialise(net, &list->list[i], seed, i, copy.data), out);
  TRY_GOTO(host_copy_store(&copy), out);
out:
  host_copy_destroy(&copy);
  return status;
}

void net_start_head(struct net *net, double deviation) {
  for (int i = net->output_parameter; i < net->parameters.count; i++) {
    struct parameter *one = &net->parameters.list[i];
    one->initial = one->rank > 1 ? INITIAL_NORMAL : INITIAL_CONSTANT;
    one->scale = one->rank > 1 ? deviation : 0;
  }
}

enum status net_initialise(struct net *net, uint64_t seed) {
  TRY(initialise_list(net, &net->parameters, seed, net->data));
  return initialise_list(net, &net->buffers, seed, net->buffer_data);
}

void net_freeze_encoder(struct net *net, bool evaluation) {
  net->first_learned = net->head_parameter;
  net->evaluates = evaluation;
}

/* --- batch norm over ranks ---------------------------------------------------------------------------------- */

void net_synchronise(struct net *net, struct comm *comm) {
  net->comm = comm;
}

enum status net_update_statistics(struct net *net, struct comm *comm) {
  for (int i = 0; i < net->operation_count; i++)
    if (operation_is_norm(&net->operations[i]))
      TRY(norm_update(net, &net->operations[i], net->comm == NULL ? comm : NULL));
  return STATUS_OK;
}

size_t net_statistics(const struct net *net) {
  size_t count = 0;
  for (int i = 0; i < net->operation_count; i++)
    if (operation_is_norm(&net->operations[i]))
      count += norm_kept(&net->operations[i]);
  return count;
}

enum status net_take_statistics(struct net *net, double *sums) {
  for (int i = 0; i < net->operation_count; i++)
    if (operation_is_norm(&net->operations[i])) {
      TRY(norm_take_kept(net, &net->operations[i], sums));
      sums += norm_kept(&net->operations[i]);
    }
  return STATUS_OK;
}

enum status net_step_statistics(struct net *net, const double *sums) {
  for (int i = 0; i < net->operation_count; i++)
    if (operation_is_norm(&net->operations[i])) {
      TRY(norm_step_kept(net, &net->operations[i], sums));
      sums += norm_kept(&net->operations[i]);
    }
  return STATUS_OK;
}

/* --- forward ------------------------------------------------------------------------------------------------ */

static enum status check_pass(const struct net *net, int64_t rows, const struct pass *pass) {
  REQUIRE(rows >= 0 && rows <= net->capacity, ERR_ARGUMENT,
          "a pass of %lld rows does not fit the network, which was built for %lld; build it for more", (long long)rows,
          (long long)net->capacity);
  int64_t views = pass->views == 0 ? 1 : pass->views;
  REQUIRE(views >= 1 && views <= 256 && rows % views == 0, ERR_ARGUMENT,
          "%lld rows cannot be %lld views of equally many samples; stack 1 to 256 whole views", (long long)rows,
          (long long)views);
  REQUIRE(pass->smoothing == NULL || net->smoothed != NULL, ERR_BUG,
          "a pass of %lld rows is to smooth features, but the network has no room for smoothed ones", (long long)rows);
  REQUIRE(!pass->training || !net->draws || rows == 0 || (pass->samples != NULL && pass->epoch != NULL), ERR_ARGUMENT,
          "dropout and noise are drawn by epoch and sample, but this training pass of %lld rows lacks %s",
          (long long)rows, pass->samples != NULL ? "the epoch" : "samples");
  return STATUS_OK;
}

struct unit_draw net_draw(const struct net *net, const struct pass *pass, int layer) {
  return (struct unit_draw){.seed = pass->seed,
                            .epoch = pass->epoch,
                            .layer = layer,
                            .samples = pass->samples,
                            .samples_count = net->rows / (pass->views > 1 ? pass->views : 1),
                            .first_view = pass->first_view};
}

static enum status call_progress(const struct net_hooks *hooks) {
  return hooks != NULL && hooks->progress != NULL ? hooks->progress(hooks->context) : STATUS_OK;
}

static bool is_decoder(const struct net *net, int operation) {
  return operation >= net->decoder && operation < net->decoder_end;
}

/* Operations first .. end-1; `input` stands for value `from`. */
static enum status run_forward(struct net *net, int first, int end, int from, const void *input,
                               const struct pass *pass) {
  for (int i = first; i < end; i++) {
    struct operation *operation = &net->operations[i];
    if (is_decoder(net, i) && !pass->training)
      continue;
    if (operation->reads == from)
      operation->input = input;
    TRY(operation->kind->forward(net, operation, pass));
    TRY(call_progress(pass->hooks));
  }
  return STATUS_OK;
}

enum status net_forward_encoder(struct net *net, const void *inputs, int64_t rows, const struct pass *pass) {
  TRY(check_pass(net, rows, pass));
  net->rows = rows;
  net->used_up = net->smooths = false;
  net->pass = *pass;
  if (pass->smoothing != NULL) {
    net->smoothing = *pass->smoothing;
    net->pass.smoothing = &net->smoothing;
  }
  net->reconstruction = pass->reconstruction != NULL ? *pass->reconstruction : (struct reconstruction){0};
  net->pass.training = pass->training && !net->evaluates;
  net->inputs = inputs;
  return run_forward(net, 0, net->head, 0, inputs, &net->pass);
}

/* Into the copy: regularisers read the features themselves. */
static enum status smooth_features(struct net *net) {
  const struct smoothing *smoothing = net->pass.smoothing;
  const struct value *features = &net->value[net->features];
  net->smooths = net->pass.training && smoothing != NULL;
  if (!net->smooths)
    return STATUS_OK;
  return net->ops->move_rows(net->rows * features->height * features->width, features->channels, smoothing->bucket,
                             smoothing->scale, smoothing->shift, net_features(net), net->smoothed);
}

enum status net_forward_head(struct net *net, const void *features) {
  REQUIRE(net->rows >= 0, ERR_BUG, "the head of the network was run before the encoder");
  if (features == NULL) {
    TRY(smooth_features(net));
    features = net_smoothed_features(net);
  }
  return run_forward(net, net->head, net->operation_count, net->features, features, &net->pass);
}

enum status net_forward(struct net *net, const void *inputs, int64_t rows, const struct pass *pass) {
  TRY(net_forward_encoder(net, inputs, rows, pass));
  return net_forward_head(net, NULL);
}

const void *net_features(const struct net *net) {
  return net->features == 0 ? net->inputs : net->value[net->features].data;
}

const void *net_smoothed_features(const struct net *net) {
  return net->smooths ? net->smoothed : net_features(net);
}

const void *net_predictions(const struct net *net) {
  return net->value[net->operation_count].data;
}

/* --- backward ----------------------------------------------------------------------------------------------- */

/* Gradients that were written beside their place join those of the passes before. */
static enum status add_partial(struct net *net, const struct operation *operation) {
  size_t count = 0;
  for (int i = 0; i < operation->parameter_count; i++)
    count += net->parameters.list[operation->first_parameter + i].count;
  if (!net->pass.accumulate || count == 0)
    return STATUS_OK;
  return net->ops->accumulate(count, net->partial,
                              slice(net, &net->parameters.list[operation->first_parameter], net->gradients));
}

static enum status call_ready(const struct net_hooks *hooks, size_t index) {
  return hooks != NULL && hooks->gradient_ready != NULL ? hooks->gradient_ready(hooks->context, index) : STATUS_OK;
}

/* The parameters of one operation first: their messages can leave while the gradient of the data is computed. */
static enum status backward_parameters(struct net *net, struct operation *operation, const void *gradient,
                                       const struct net_hooks *hooks) {
  if (operation->kind->backward_parameters == NULL)
    return STATUS_OK;
  TRY(operation->kind->backward_parameters(net, operation, gradient));
  TRY(add_partial(net, operation));
  for (int i = operation->parameter_count - 1; i >= 0; i--)
    TRY(call_ready(hooks, (size_t)(operation->first_parameter + i - net->first_learned)));
  return call_progress(hooks);
}

/* `last` is the gradient of what the net's last operation makes, from its caller. */
static enum status backward_one(struct net *net, int i, const void *last, const struct net_hooks *hooks) {
  struct operation *operation = &net->operations[i];
  const void *gradient = operation->grad_output != NULL ? operation->grad_output : last;
  if (!net->value[i + 1].needs_gradient)
    return STATUS_OK;
  if (operation->grad_more != NULL && !operation->kind->adds_gradients)
    TRY(net->ops->add((size_t)net->rows * (size_t)operation->width_out, 1, operation->grad_more,
                      operation->grad_output));
  TRY(backward_parameters(net, operation, gradient, hooks));
  if (operation->grad_input == NULL)
    return STATUS_OK;
  TRY(operation->kind->backward_data(net, operation, gradient, operation->grad_input));
  return call_progress(hooks);
}

/* The caller's gradient of the features joins that of the head. */
static enum status add_feature_gradient(struct net *net, const void *grad_features) {
  void *gradient = net_feature_gradient(net);
  if (grad_features == NULL || gradient == NULL)
    return STATUS_OK;
  return net->ops->add((size_t)net->rows * (size_t)net_feature_width(net), 1, grad_features, gradient);
}

/* The gradient of what the head read becomes that of the features. */
static enum status smooth_back(struct net *net) {
  const struct smoothing *smoothing = net->pass.smoothing;
  const struct value *features = &net->value[net->features];
  void *gradient = net_feature_gradient(net);
  if (!net->smooths)
    return STATUS_OK;
  return net->ops->move_rows(net->rows * features->height * features->width, features->channels, smoothing->bucket,
                             smoothing->scale, NULL, gradient, gradient);
}

/* Operations end-1 .. first. */
static enum status run_backward(struct net *net, int first, int end, const void *last, const void *grad_features,
                                const struct net_hooks *hooks) {
  TRY(add_feature_gradient(net, grad_features));
  for (int i = end - 1; i >= first; i--)
    TRY(backward_one(net, i, last, hooks));
  return STATUS_OK;
}

void *net_feature_gradient(struct net *net) {
  return net->operations[net->head].grad_input;
}

/* The buffer for gradients that are to be added, when first needed. */
static enum status prepare_partial(struct net *net) {
  size_t most = 0;
  if (!net->pass.accumulate || net->partial != NULL)
    return STATUS_OK;
  for (int i = 0; i < net->operation_count; i++) {
    const struct operation *operation = &net->operations[i];
    size_t count = 0;
    for (int k = 0; k < operation->parameter_count; k++)
      count += net->parameters.list[operation->first_parameter + k].count;
    most = count > most ? count : most;
  }
  net->bytes += most * dtype_size(net->ops->parameter_dtype);
  return device_alloc(net->ops->device, most * dtype_size(net->ops->parameter_dtype), &net->partial);
}

enum status net_backward_head(struct net *net, const void *grad_predictions, const struct net_hooks *hooks) {
  REQUIRE(net->rows >= 0, ERR_BUG, "the network was asked for gradients before a forward pass");
  REQUIRE(!net->used_up, ERR_BUG, "the network was asked for gradients twice after one forward pass");
  REQUIRE(net->decoder_end == 0 || net->pass.training, ERR_BUG,
          "a network that reconstructs its inputs has gradients of training passes alone");
  net->used_up = true;
  TRY(prepare_partial(net));
  return run_backward(net, net->head, net->operation_count, grad_predictions, NULL, hooks);
}

enum status net_backward_encoder(struct net *net, const void *grad_features, const struct net_hooks *hooks) {
  if (net->features == 0) {
    REQUIRE(grad_features == NULL, ERR_ARGUMENT,
            "a loss on features needs a hidden layer: without one the features are the inputs and cannot learn");
    return STATUS_OK;
  }
  if (net->first_learned > 0) {
    REQUIRE(grad_features == NULL, ERR_ARGUMENT, "a loss on features needs an encoder that learns: this one is frozen");
    return STATUS_OK;
  }
  TRY(smooth_back(net));
  return run_backward(net, 0, net->head, NULL, grad_features, hooks);
}

enum status net_backward_smoothed(struct net *net, const void *grad_predictions, const void *grad_features,
                                  const void *grad_smoothed, const struct net_hooks *hooks) {
  REQUIRE(grad_smoothed == NULL || net->features > 0, ERR_ARGUMENT,
          "a loss on features needs a hidden layer: without one the features are the inputs and cannot learn");
  REQUIRE(grad_smoothed == NULL || net->first_learned == 0, ERR_ARGUMENT,
          "a loss on features needs an encoder that learns: this one is frozen");
  TRY(net_backward_head(net, grad_predictions, hooks));
  TRY(add_feature_gradient(net, grad_smoothed));
  return net_backward_encoder(net, grad_features, hooks);
}

enum status net_backward(struct net *net, const void *grad_predictions, const void *grad_features,
                         const struct net_hooks *hooks) {
  return net_backward_smoothed(net, grad_predictions, grad_features, NULL, hooks);
}

/* --- figures ------------------------------------------------------------------------------------------------ */

const struct ops *net_ops(const struct net *net) {
  return net->ops;
}

struct net_input net_input(const struct net *net) {
  return net->input;
}

int64_t net_input_width(const struct net *net) {
  return value_width(&net->value[0]);
}

int64_t net_feature_width(const struct net *net) {
  return value_width(&net->value[net->features]);
}

int64_t net_mean_width(const struct net *net) {
  return net->means > 0 ? net->means : net_feature_width(net);
}

int64_t net_output_width(const struct net *net) {
  return value_width(&net->value[net->operation_count]);
}

int64_t net_capacity(const struct net *net) {
  return net->capacity;
}

double net_flops_per_row(const struct net *net, bool training) {
  double flops = 0;
  for (int i = 0; i < net->operation_count; i++) { /* backward: parameters, and data where something learns before */
    const struct operation *operation = &net->operations[i];
    if (is_decoder(net, i) && !training)
      continue;
    flops += operation->flops * (!training ? 1 : operation->grad_input != NULL ? 3 : 2);
  }
  return flops;
}

size_t net_bytes(const struct net *net) {
  return net->bytes + workspace_bytes(&net->workspace);
}
