/* The list of operations: built, laid out in memory, run forward and backward. */
#include "model/layer.h"

#include "dist/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define VALUE_ALIGNMENT 64 /* bytes: one cache line, one vector */

/* --- building ----------------------------------------------------------------------------------------------- */

enum status net_begin(const struct ops *ops, int64_t input_width, int64_t capacity, struct net **out) {
  enum status status;
  struct net *net;
  *out = NULL;
  REQUIRE(input_width >= 1 && input_width <= NET_MAX_WIDTH, ERR_ARGUMENT,
          "a network cannot read %lld inputs per row; give 1 to %d", (long long)input_width, NET_MAX_WIDTH);
  REQUIRE(capacity >= 0 && capacity <= INT32_MAX, ERR_ARGUMENT,
          "a network cannot hold %lld rows at a time; use a smaller batch or more ranks", (long long)capacity);
  TRY(memory_alloc_zero(sizeof *net, (void **)&net));
  TRY_GOTO(memory_alloc_zero(NET_MAX_OPERATIONS * sizeof *net->operations, (void **)&net->operations), failed);
  TRY_GOTO(memory_alloc_zero(2 * NET_MAX_LAYERS * sizeof *net->parameters, (void **)&net->parameters), failed);
  net->ops = ops;
  net->capacity = capacity;
  net->input_width = input_width;
  net->rows = -1;
  net->head = -1;
  *out = net;
  return STATUS_OK;
failed:
  net_destroy(&net);
  return status;
}

void net_destroy(struct net **net) {
  if (*net == NULL)
    return;
  memory_free(&(*net)->value_gradients[1]);
  memory_free(&(*net)->value_gradients[0]);
  memory_free((void **)&(*net)->masks);
  memory_free(&(*net)->values);
  memory_free(&(*net)->gradients);
  memory_free(&(*net)->data);
  memory_free((void **)&(*net)->parameters);
  memory_free((void **)&(*net)->operations);
  memory_free((void **)net);
}

int64_t net_width(const struct net *net) {
  return net->operation_count == 0 ? net->input_width : net->operations[net->operation_count - 1].width_out;
}

enum status net_add(struct net *net, const struct operation_kind *kind, int64_t width_out, struct operation **out) {
  REQUIRE(!net->planned, ERR_BUG, "a %s cannot be added to a network whose memory is laid out", kind->name);
  REQUIRE(net->operation_count < NET_MAX_OPERATIONS, ERR_ARGUMENT, "the network has more than %d layers; use fewer",
          NET_MAX_LAYERS);
  REQUIRE(width_out >= 1 && width_out <= NET_MAX_WIDTH, ERR_ARGUMENT, "a layer cannot have %lld units; give 1 to %d",
          (long long)width_out, NET_MAX_WIDTH);
  struct operation *operation = &net->operations[net->operation_count];
  *operation = (struct operation){
      .kind = kind, .width_in = net_width(net), .width_out = width_out, .first_parameter = net->parameter_count};
  net->operation_count++;
  *out = operation;
  return STATUS_OK;
}

enum status net_add_parameter(struct net *net, const char *name, const char *suffix, int rank, const int64_t *shape,
                              int64_t fan_in) {
  REQUIRE(net->parameter_count < 2 * NET_MAX_LAYERS, ERR_ARGUMENT, "the network has more than %d layers; use fewer",
          NET_MAX_LAYERS);
  struct parameter *parameter = &net->parameters[net->parameter_count];
  *parameter = (struct parameter){
      .offset = net->parameter_elements, .count = 1, .rank = rank, .shape = {1, 1, 1, 1}, .fan_in = fan_in};
  int length = snprintf(parameter->name, sizeof parameter->name, "%s.%s", name, suffix);
  REQUIRE(length < PARAMETER_NAME_BYTES, ERR_BUG, "the parameter name %s.%s is longer than %d bytes", name, suffix,
          PARAMETER_NAME_BYTES - 1);
  for (int i = 0; i < rank; i++) {
    parameter->shape[i] = shape[i];
    parameter->count *= (size_t)shape[i];
  }
  net->parameter_elements += parameter->count;
  net->parameter_count++;
  net->operations[net->operation_count - 1].parameter_count++;
  return STATUS_OK;
}

enum status net_begin_head(struct net *net) {
  REQUIRE(net->head < 0, ERR_BUG, "a network has one head, and this one has it already");
  net->head = net->operation_count;
  return STATUS_OK;
}

/* --- memory ------------------------------------------------------------------------------------------------- */

/* Take zeroed memory and count it. */
static enum status take(struct net *net, size_t bytes, void **out) {
  TRY(memory_alloc_zero(bytes, out));
  net->bytes += bytes;
  return STATUS_OK;
}

/* Of a buffer [capacity, width]; at most 2^58. */
static size_t rows_bytes(const struct net *net, int64_t width, size_t element_bytes) {
  size_t bytes = (size_t)net->capacity * (size_t)width * element_bytes;
  return (bytes + VALUE_ALIGNMENT - 1) / VALUE_ALIGNMENT * VALUE_ALIGNMENT;
}

static size_t value_bytes(const struct net *net, int64_t width) {
  return rows_bytes(net, width, dtype_size(net->ops->dtype));
}

/* An operation may write over its input when neither its own backward pass nor that of the maker reads it, and the
 * memory is ours: not the caller's inputs, nor the features (which the head may be given from elsewhere). */
static bool can_work_in_place(const struct net *net, int index) {
  const struct operation *operation = &net->operations[index];
  return operation->overwrites && index > 0 && index != net->head && !operation[-1].reads_output;
}

static enum status plan_values(struct net *net) {
  size_t bytes = 0;
  for (int i = 0; i < net->operation_count; i++) {
    net->operations[i].in_place = can_work_in_place(net, i);
    bytes += net->operations[i].in_place ? 0 : value_bytes(net, net->operations[i].width_out);
    REQUIRE(bytes < (size_t)1 << 60, ERR_MEMORY,
            "the activations of %lld rows are beyond any memory; use more ranks, a smaller batch or a smaller model",
            (long long)net->capacity);
  }
  TRY(take(net, bytes, &net->values));
  char *next = net->values;
  for (int i = 0; i < net->operation_count; i++) {
    struct operation *operation = &net->operations[i];
    operation->input = i == 0 ? NULL : operation[-1].output;
    operation->output = operation->in_place ? operation[-1].output : next;
    next += operation->in_place ? 0 : value_bytes(net, operation->width_out);
  }
  return STATUS_OK;
}

static enum status plan_masks(struct net *net) {
  size_t bytes = 0;
  for (int i = 0; i < net->operation_count; i++)
    bytes += net->operations[i].share > 0 ? rows_bytes(net, net->operations[i].width_in, 1) : 0;
  TRY(take(net, bytes, (void **)&net->masks));
  uint8_t *next = net->masks;
  for (int i = 0; i < net->operation_count; i++) {
    if (net->operations[i].share > 0) {
      net->operations[i].mask = next;
      next += rows_bytes(net, net->operations[i].width_in, 1);
    }
  }
  return STATUS_OK;
}

/* The gradient of the inputs is never asked for, so operation 0 writes none. */
static enum status plan_value_gradients(struct net *net) {
  int64_t widest[2] = {0, 0};
  for (int i = 1; i < net->operation_count; i++)
    if (net->operations[i].width_in > widest[i % 2])
      widest[i % 2] = net->operations[i].width_in;
  TRY(take(net, value_bytes(net, widest[0]), &net->value_gradients[0]));
  return take(net, value_bytes(net, widest[1]), &net->value_gradients[1]);
}

enum status net_plan(struct net *net) {
  REQUIRE(net->head >= 0 && net->head < net->operation_count, ERR_BUG, "the network was built without a head");
  size_t bytes = net->parameter_elements * dtype_size(net->ops->dtype);
  TRY(take(net, bytes, &net->data));
  TRY(take(net, bytes, &net->gradients));
  TRY(plan_values(net));
  TRY(plan_masks(net));
  TRY(plan_value_gradients(net));
  net->planned = true;
  return STATUS_OK;
}

/* --- parameters --------------------------------------------------------------------------------------------- */

static void *slice(const struct net *net, void *buffer, int index) {
  return (char *)buffer + net->parameters[index].offset * dtype_size(net->ops->dtype);
}

void *net_parameter_data(const struct net *net, const struct operation *operation, int which) {
  return slice(net, net->data, operation->first_parameter + which);
}

void *net_parameter_gradient(const struct net *net, const struct operation *operation, int which) {
  return slice(net, net->gradients, operation->first_parameter + which);
}

struct parameters net_parameters(const struct net *net) {
  return (struct parameters){.data = net->data,
                             .gradients = net->gradients,
                             .elements = net->parameter_elements,
                             .count = net->parameter_count,
                             .list = net->parameters};
}

enum status net_initialise(struct net *net, uint64_t seed) {
  for (int i = 0; i < net->parameter_count; i++) {
    const struct parameter *parameter = &net->parameters[i];
    TRY(net->ops->uniform(parameter->count, random_key(seed, RANDOM_INIT, (uint64_t)i),
                          1 / sqrt((double)parameter->fan_in), slice(net, net->data, i)));
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
  REQUIRE(!pass->training || net->dropout_count == 0 || rows == 0 || pass->samples != NULL, ERR_ARGUMENT,
          "dropout is drawn by sample, but this training pass of %lld rows names no samples", (long long)rows);
  return STATUS_OK;
}

static enum status run_forward(struct net *net, int first, int end, const void *input, const struct pass *pass) {
  net->operations[first].input = input;
  for (int i = first; i < end; i++)
    TRY(net->operations[i].kind->forward(net, &net->operations[i], pass));
  return STATUS_OK;
}

enum status net_forward_encoder(struct net *net, const void *inputs, int64_t rows, const struct pass *pass) {
  TRY(check_pass(net, rows, pass));
  net->rows = rows;
  net->pass = *pass;
  net->inputs = inputs;
  return net->head == 0 ? STATUS_OK : run_forward(net, 0, net->head, inputs, pass);
}

enum status net_forward_head(struct net *net, const void *features) {
  REQUIRE(net->rows >= 0, ERR_BUG, "the head of the network was run before the encoder");
  return run_forward(net, net->head, net->operation_count, features != NULL ? features : net_features(net), &net->pass);
}

enum status net_forward(struct net *net, const void *inputs, int64_t rows, const struct pass *pass) {
  TRY(net_forward_encoder(net, inputs, rows, pass));
  return net_forward_head(net, NULL);
}

const void *net_features(const struct net *net) {
  return net->head == 0 ? net->inputs : net->operations[net->head - 1].output;
}

const void *net_predictions(const struct net *net) {
  return net->operations[net->operation_count - 1].output;
}

/* --- backward ----------------------------------------------------------------------------------------------- */

static enum status make_progress(const struct net_hooks *hooks) {
  return hooks != NULL && hooks->progress != NULL ? hooks->progress(hooks->context) : STATUS_OK;
}

/* The parameters of one operation first: their messages can leave while the gradient of the data is computed. */
static enum status backward_parameters(struct net *net, const struct operation *operation, const void *gradient,
                                       const struct net_hooks *hooks) {
  if (operation->kind->backward_parameters == NULL)
    return STATUS_OK;
  TRY(operation->kind->backward_parameters(net, operation, gradient));
  if (hooks != NULL && hooks->gradient_ready != NULL)
    for (int i = operation->parameter_count - 1; i >= 0; i--)
      TRY(hooks->gradient_ready(hooks->context, (size_t)(operation->first_parameter + i)));
  return make_progress(hooks);
}

/* Operations end-1 .. first; `gradient` is that of the last one's output. */
static enum status run_backward(struct net *net, int first, int end, const void *gradient,
                                const struct net_hooks *hooks) {
  for (int i = end - 1; i >= first; i--) {
    const struct operation *operation = &net->operations[i];
    TRY(backward_parameters(net, operation, gradient, hooks));
    if (i == 0)
      return STATUS_OK;
    TRY(operation->kind->backward_data(net, operation, gradient, net->value_gradients[i % 2]));
    TRY(make_progress(hooks));
    gradient = net->value_gradients[i % 2];
  }
  return STATUS_OK;
}

void *net_feature_gradient(struct net *net) {
  return net->head == 0 ? NULL : net->value_gradients[net->head % 2];
}

enum status net_backward_head(struct net *net, const void *grad_predictions, const struct net_hooks *hooks) {
  REQUIRE(net->rows >= 0, ERR_BUG, "the network was asked for gradients before a forward pass");
  return run_backward(net, net->head, net->operation_count, grad_predictions, hooks);
}

enum status net_backward_encoder(struct net *net, const void *grad_features, const struct net_hooks *hooks) {
  if (net->head == 0) {
    REQUIRE(grad_features == NULL, ERR_ARGUMENT,
            "a loss on features needs a hidden layer: without one the features are the inputs and cannot learn");
    return STATUS_OK;
  }
  void *gradient = net_feature_gradient(net);
  if (grad_features != NULL)
    TRY(net->ops->add((size_t)net->rows * (size_t)net_feature_width(net), 1, grad_features, gradient));
  return run_backward(net, 0, net->head, gradient, hooks);
}

enum status net_backward(struct net *net, const void *grad_predictions, const void *grad_features,
                         const struct net_hooks *hooks) {
  TRY(net_backward_head(net, grad_predictions, hooks));
  return net_backward_encoder(net, grad_features, hooks);
}

/* --- figures ------------------------------------------------------------------------------------------------ */

const struct ops *net_ops(const struct net *net) {
  return net->ops;
}

int64_t net_input_width(const struct net *net) {
  return net->input_width;
}

int64_t net_feature_width(const struct net *net) {
  return net->operations[net->head].width_in;
}

int64_t net_output_width(const struct net *net) {
  return net->operations[net->operation_count - 1].width_out;
}

int64_t net_capacity(const struct net *net) {
  return net->capacity;
}

double net_flops_per_row(const struct net *net, bool training) {
  double flops = 0;
  for (int i = 0; i < net->operation_count; i++) /* backward: parameters, and data except for the inputs */
    flops += net->operations[i].flops * (training ? (i == 0 ? 2 : 3) : 1);
  return flops;
}

size_t net_bytes(const struct net *net) {
  return net->bytes;
}
