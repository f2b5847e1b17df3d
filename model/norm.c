/* Batch normalisation with what usually follows it: y = relu((x - mean) / sqrt(variance + epsilon) gamma + beta +
 * shortcut), per channel; parameters NAME.weight (gamma) and NAME.bias (beta), buffers NAME.running_mean and
 * NAME.running_var, all [channels].
 *
 * Training normalises with the mean and (biased) variance of the pass's rows, or of all ranks' rows together: then
 * counts and means are summed over ranks first, and the squared deviations about the joint mean after that, so that
 * nothing cancels and shares may be uneven or empty.  The gradient through the statistics needs two more sums, which
 * are shared alike.  Gradients of gamma and beta stay those of the own rows, as all parameters' do.
 *
 * Running statistics follow by momentum, the variance unbiased (divided by count - 1). */
#include "model/layer.h"

#include "model/norm_channel.h"

#define SUMS "sum of batch norm's statistics"

static int64_t channels_of(const struct net *net, const struct operation *norm) {
  return net->value[norm->reads].channels;
}

static size_t values_per_channel(const struct net *net, const struct operation *norm) {
  const struct value *value = &net->value[norm->reads];
  return (size_t)(net->rows * value->height * value->width);
}

static enum status run_stage(const struct net *net, const struct operation *operation, enum norm_stage stage) {
  return net->ops->norm_channels(stage, &operation->norm);
}

/* Own count, means and squares become those of all ranks. */
static enum status merge_ranks(struct net *net, struct operation *operation) {
  size_t channels = (size_t)operation->norm.channels;
  TRY(run_stage(net, operation, NORM_SHARE));
  TRY(comm_sum(comm_for(net->comm, SUMS), F64, operation->norm.joint, channels + 1));
  TRY(run_stage(net, operation, NORM_JOIN));
  return comm_sum(comm_for(net->comm, SUMS), F64, operation->norm.sums, channels);
}

/* Where the parameters lie, and where their gradients go in this pass. */
static void point_at_parameters(struct net *net, struct operation *operation) {
  struct norm_channels *norm = &operation->norm;
  norm->running_mean = net_buffer_data(net, operation, 0);
  norm->running_var = net_buffer_data(net, operation, 1);
  norm->grad_gamma = net_parameter_gradient(net, operation, 0);
  norm->grad_beta = net_parameter_gradient(net, operation, 1);
}

static enum status find_statistics(struct net *net, struct operation *operation, const struct pass *pass) {
  struct norm_channels *norm = &operation->norm;
  size_t count = values_per_channel(net, operation);
  norm->own_count = (double)count;
  norm->shared = net->comm != NULL;
  norm->keep = !pass->keep_statistics;
  TRY(net->ops->norm_statistics(count, norm->channels, operation->input, norm->mean, norm->sums));
  if (norm->shared)
    TRY(merge_ranks(net, operation));
  return run_stage(net, operation, NORM_PREPARE);
}

static enum status forward(struct net *net, struct operation *operation, const struct pass *pass) {
  const struct norm_channels *norm = &operation->norm;
  point_at_parameters(net, operation);
  if (pass->training)
    TRY(find_statistics(net, operation, pass));
  else
    TRY(run_stage(net, operation, NORM_RUNNING));
  return net->ops->norm_forward(values_per_channel(net, operation), norm->channels, operation->input, norm->mean,
                                norm->inverse, net_parameter_data(net, operation, 0),
                                net_parameter_data(net, operation, 1), operation->shortcut, operation->relu,
                                operation->output);
}

/* The gradients' sums, which are those of gamma and beta; the gradient of the shortcut is left in grad_output. */
static enum status backward_parameters(struct net *net, struct operation *operation, const void *grad_output) {
  const struct norm_channels *norm = &operation->norm;
  bool changes = operation->relu || operation->grad_more != NULL;
  point_at_parameters(net, operation);
  TRY(net->ops->norm_backward_sums(values_per_channel(net, operation), norm->channels, grad_output,
                                   operation->grad_more, operation->input, operation->relu ? operation->output : NULL,
                                   norm->mean, norm->inverse, changes ? operation->grad_output : NULL, norm->sums));
  return run_stage(net, operation, NORM_GRADIENTS);
}

static enum status backward_data(struct net *net, struct operation *operation, const void *grad_output,
                                 void *grad_input) {
  const struct norm_channels *norm = &operation->norm;
  bool trained = net->pass.training;
  if (trained && norm->shared) {
    TRY(comm_sum(comm_for(net->comm, SUMS), F64, norm->sums, 2 * (size_t)norm->channels));
    TRY(run_stage(net, operation, NORM_MEANS));
  }
  return net->ops->norm_backward_data(values_per_channel(net, operation), norm->channels, grad_output, operation->input,
                                      norm->mean, norm->inverse, net_parameter_data(net, operation, 0),
                                      trained ? norm->sums : NULL, trained ? norm->sums + norm->channels : NULL,
                                      grad_input);
}

static const struct operation_kind norm_kind = {.name = "batch norm",
                                                .forward = forward,
                                                .backward_parameters = backward_parameters,
                                                .backward_data = backward_data,
                                                .adds_gradients = true,
                                                .gradient_over_input = true,
                                                .gradient_for_shortcut = true};

bool operation_is_norm(const struct operation *operation) {
  return operation->kind == &norm_kind;
}

enum status net_add_norm(struct net *net, const char *name, int shortcut, bool relu) {
  struct value read = *net_last_value(net);
  struct operation *operation;
  if (shortcut != NO_VALUE) {
    const struct value *other = &net->value[shortcut];
    REQUIRE(other->height == read.height && other->width == read.width && other->channels == read.channels, ERR_BUG,
            "the shortcut of %s is [%lld, %lld, %lld], not [%lld, %lld, %lld]", name, (long long)other->height,
            (long long)other->width, (long long)other->channels, (long long)read.height, (long long)read.width,
            (long long)read.channels);
  }
  TRY(net_add(net, &norm_kind, read.height, read.width, read.channels, &operation));
  operation->also_reads = shortcut;
  operation->relu = relu;
  operation->reads_output = relu;
  TRY(net_add_parameter(net, name, "weight", 1, &read.channels, INITIAL_CONSTANT, 1));
  TRY(net_add_parameter(net, name, "bias", 1, &read.channels, INITIAL_CONSTANT, 0));
  TRY(net_add_buffer(net, name, "running_mean", read.channels, 0));
  return net_add_buffer(net, name, "running_var", read.channels, 1);
}

size_t norm_place(struct net *net, struct operation *operation, double *memory) {
  if (!operation_is_norm(operation))
    return 0;
  size_t channels = (size_t)channels_of(net, operation);
  struct norm_channels *norm = &operation->norm;
  double **const arrays[] = {&norm->mean,      &norm->inverse,     &norm->count, &norm->kept_count,
                             &norm->kept_mean, &norm->kept_square, &norm->sums};
  enum { ARRAYS = sizeof arrays / sizeof *arrays };
  norm->channels = (int64_t)channels;
  norm->dtype = net->ops->parameter_dtype;
  norm->joint = net->statistics;
  for (size_t i = 0; i < ARRAYS && memory != NULL; i++)
    *arrays[i] = memory + i * channels;
  return (ARRAYS + 1) * channels + 1; /* the sums are two, and a count */
}

/* What was kept on all ranks is merged as sums about the running mean, which all ranks share. */
enum status norm_update(struct net *net, struct operation *operation, struct comm *comm) {
  const struct norm_channels *norm = &operation->norm;
  point_at_parameters(net, operation);
  if (comm != NULL && comm_size(comm) > 1) {
    TRY(run_stage(net, operation, NORM_SHARE_KEPT));
    TRY(comm_sum(comm_for(comm, SUMS), F64, norm->sums, 2 * (size_t)norm->channels + 1));
    TRY(run_stage(net, operation, NORM_JOIN_KEPT));
  }
  return run_stage(net, operation, NORM_UPDATE_KEPT);
}

size_t norm_kept(const struct operation *operation) {
  return 2 * (size_t)operation->norm.channels + 1;
}

enum status norm_take_kept(struct net *net, struct operation *operation, double *sums) {
  double *own = operation->norm.sums;
  size_t bytes = norm_kept(operation) * sizeof *own;
  point_at_parameters(net, operation);
  TRY(run_stage(net, operation, NORM_SHARE_KEPT));
  TRY(device_copy(net->ops->device, sums, own, bytes));
  TRY(device_zero(net->ops->device, own, bytes));
  return run_stage(net, operation, NORM_JOIN_KEPT); /* of no values */
}

enum status norm_step_kept(struct net *net, struct operation *operation, const double *sums) {
  point_at_parameters(net, operation);
  TRY(device_copy(net->ops->device, operation->norm.sums, sums, norm_kept(operation) * sizeof *sums));
  TRY(run_stage(net, operation, NORM_JOIN_KEPT));
  return run_stage(net, operation, NORM_UPDATE_KEPT);
}
