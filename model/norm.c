/* Batch normalisation with what usually follows it: y = relu((x - mean) / sqrt(variance + epsilon) gamma + beta +
 * shortcut), per channel; parameters NAME.weight (gamma) and NAME.bias (beta), buffers NAME.running_mean and
 * NAME.running_var, all [channels].
 *
 * Training normalises with the mean and (biased) variance of the pass's rows, or of all ranks' rows together: then counts
 * and means are summed over ranks first, and the squared deviations about the joint mean after that, so that nothing
 * cancels and shares may be uneven or empty.  The gradient through the statistics needs two more sums, which are shared
 * alike.  Gradients of gamma and beta stay those of the own rows, as all parameters' do.
 *
 * Running statistics follow by momentum, the variance unbiased (divided by count - 1). */
#include "model/layer.h"

#include <math.h>
#include <string.h>

#define EPSILON 1e-5
#define MOMENTUM 0.1

static int64_t channels_of(const struct net *net, const struct operation *norm) {
  return net->value[norm->reads].channels;
}

static size_t values_per_channel(const struct net *net, const struct operation *norm) {
  const struct value *value = &net->value[norm->reads];
  return (size_t)(net->rows * value->height * value->width);
}

static double number(const struct net *net, const void *data, int64_t i) {
  return net->ops->dtype == F32 ? (double)((const float *)data)[i] : ((const double *)data)[i];
}

static void set_number(const struct net *net, void *data, int64_t i, double value) {
  if (net->ops->dtype == F32)
    ((float *)data)[i] = (float)value;
  else
    ((double *)data)[i] = value;
}

/* Own count, means and squares become those of all ranks.  mean, square [channels]. */
static enum status merge_ranks(struct net *net, int64_t channels, double *count, double *mean, double *square) {
  double *joint = net->statistics, own = *count; /* [channels + 1] */
  for (int64_t c = 0; c < channels; c++)
    joint[c] = own * mean[c];
  joint[channels] = own;
  TRY(comm_sum(net->comm, F64, joint, (size_t)channels + 1));
  *count = joint[channels];
  for (int64_t c = 0; c < channels; c++) {
    double together = *count > 0 ? joint[c] / *count : 0, apart = mean[c] - together;
    square[c] += own * apart * apart;
    mean[c] = together;
  }
  return comm_sum(net->comm, F64, square, (size_t)channels);
}

/* Add a pass to what is kept for the running statistics. */
static void keep(struct norm *norm, int64_t channels, const double *square) {
  double count = norm->kept_count + norm->count;
  if (norm->count == 0)
    return;
  for (int64_t c = 0; c < channels; c++) {
    double apart = norm->mean[c] - norm->kept_mean[c];
    norm->kept_square[c] += square[c] + apart * apart * (norm->kept_count * norm->count / count);
    norm->kept_mean[c] = norm->kept_count == 0 ? norm->mean[c] : norm->kept_mean[c] + apart * (norm->count / count);
  }
  norm->kept_count = count;
}

static enum status find_statistics(struct net *net, struct operation *operation, const struct pass *pass) {
  struct norm *norm = &operation->norm;
  int64_t channels = channels_of(net, operation);
  double *square = norm->sums;
  norm->count = (double)values_per_channel(net, operation);
  TRY(net->ops->norm_statistics(values_per_channel(net, operation), channels, operation->input, norm->mean, square));
  if (net->comm != NULL)
    TRY(merge_ranks(net, channels, &norm->count, norm->mean, square));
  for (int64_t c = 0; c < channels; c++)
    norm->inverse[c] = 1 / sqrt((norm->count > 0 ? square[c] / norm->count : 0) + EPSILON);
  if (!pass->keep_statistics)
    keep(norm, channels, square);
  return STATUS_OK;
}

static void use_running(struct net *net, struct operation *operation) {
  const void *mean = net_buffer_data(net, operation, 0), *variance = net_buffer_data(net, operation, 1);
  operation->norm.count = 0;
  for (int64_t c = 0; c < channels_of(net, operation); c++) {
    operation->norm.mean[c] = number(net, mean, c);
    operation->norm.inverse[c] = 1 / sqrt(number(net, variance, c) + EPSILON);
  }
}

static enum status forward(struct net *net, struct operation *operation, const struct pass *pass) {
  if (pass->training)
    TRY(find_statistics(net, operation, pass));
  else
    use_running(net, operation);
  return net->ops->norm_forward(values_per_channel(net, operation), channels_of(net, operation), operation->input,
                                operation->norm.mean, operation->norm.inverse, net_parameter_data(net, operation, 0),
                                net_parameter_data(net, operation, 1), operation->shortcut, operation->relu,
                                operation->output);
}

/* The gradients' sums, which are those of gamma and beta; the gradient of the shortcut is left in grad_output. */
static enum status backward_parameters(struct net *net, struct operation *operation, const void *grad_output) {
  struct norm *norm = &operation->norm;
  int64_t channels = channels_of(net, operation);
  bool changes = operation->relu || operation->grad_more != NULL;
  TRY(net->ops->norm_backward_sums(values_per_channel(net, operation), channels, grad_output, operation->grad_more,
                                   operation->input, operation->relu ? operation->output : NULL, norm->mean,
                                   norm->inverse, changes ? operation->grad_output : NULL, norm->sums));
  for (int64_t c = 0; c < channels; c++) {
    set_number(net, net_parameter_gradient(net, operation, 0), c, norm->sums[channels + c]);
    set_number(net, net_parameter_gradient(net, operation, 1), c, norm->sums[c]);
  }
  return STATUS_OK;
}

static enum status backward_data(struct net *net, struct operation *operation, const void *grad_output,
                                 void *grad_input) {
  struct norm *norm = &operation->norm;
  int64_t channels = channels_of(net, operation);
  bool trained = net->pass.training;
  if (trained && net->comm != NULL)
    TRY(comm_sum(net->comm, F64, norm->sums, 2 * (size_t)channels));
  for (int64_t c = 0; c < 2 * channels; c++)
    norm->sums[c] = norm->count > 0 ? norm->sums[c] / norm->count : 0;
  return net->ops->norm_backward_data(values_per_channel(net, operation), channels, grad_output, operation->input,
                                      norm->mean, norm->inverse, net_parameter_data(net, operation, 0),
                                      trained ? norm->sums : NULL, trained ? norm->sums + channels : NULL, grad_input);
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
  struct norm *norm = &operation->norm;
  double **const arrays[] = {&norm->mean, &norm->inverse, &norm->kept_mean, &norm->kept_square, &norm->sums};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays && memory != NULL; i++)
    *arrays[i] = memory + i * channels;
  return 6 * channels + 1; /* the sums are two, and a count */
}

/* What was kept on all ranks, merged as sums about the running mean, which all ranks share. */
static enum status merge_kept(struct net *net, struct operation *operation, struct comm *comm) {
  struct norm *norm = &operation->norm;
  int64_t channels = channels_of(net, operation);
  const void *running = net_buffer_data(net, operation, 0);
  double *sums = norm->sums; /* [2 * channels + 1] */
  for (int64_t c = 0; c < channels; c++) {
    double apart = norm->kept_count > 0 ? norm->kept_mean[c] - number(net, running, c) : 0;
    sums[c] = norm->kept_count * apart;
    sums[channels + c] = norm->kept_square[c] + norm->kept_count * apart * apart;
  }
  sums[2 * channels] = norm->kept_count;
  TRY(comm_sum(comm, F64, sums, 2 * (size_t)channels + 1));
  norm->kept_count = sums[2 * channels];
  for (int64_t c = 0; c < channels && norm->kept_count > 0; c++) {
    double apart = sums[c] / norm->kept_count;
    norm->kept_mean[c] = number(net, running, c) + apart;
    norm->kept_square[c] = fmax(0, sums[channels + c] - sums[c] * apart);
  }
  return STATUS_OK;
}

enum status norm_update(struct net *net, struct operation *operation, struct comm *comm) {
  struct norm *norm = &operation->norm;
  int64_t channels = channels_of(net, operation);
  void *mean = net_buffer_data(net, operation, 0), *variance = net_buffer_data(net, operation, 1);
  if (comm != NULL && comm_size(comm) > 1)
    TRY(merge_kept(net, operation, comm));
  for (int64_t c = 0; c < channels && norm->kept_count > 0; c++) {
    double unbiased = norm->kept_square[c] / fmax(1, norm->kept_count - 1);
    set_number(net, mean, c, (1 - MOMENTUM) * number(net, mean, c) + MOMENTUM * norm->kept_mean[c]);
    set_number(net, variance, c, (1 - MOMENTUM) * number(net, variance, c) + MOMENTUM * unbiased);
  }
  norm->kept_count = 0;
  memset(norm->kept_mean, 0, (size_t)channels * sizeof *norm->kept_mean);
  memset(norm->kept_square, 0, (size_t)channels * sizeof *norm->kept_square);
  return STATUS_OK;
}
