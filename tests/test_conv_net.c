/* Networks with convolutions, batch norm, pooling and shortcuts: gradients against differences, passes that add up,
 * memory, and what builders refuse. */
#include "dist/memory.h"
#include "model/cnn.h"
#include "model/layer.h"
#include "model/resnet.h"

#include "tests/gradient_check.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())

enum { SIDE = 7, ROWS = 3, INPUTS = SIDE * SIDE * 2 };

/* Two blocks, the second with a projection; its first convolution and the projection read the same value. */
static enum status add_layers(struct net *net) {
  TRY(net_add_conv(net, "stem", 4, 3, 1, 1, true));
  TRY(net_add_norm(net, "stem_bn", NO_VALUE, true));
  TRY(net_add_max_pool(net, 3, 2, 1));
  int first = net_last(net);
  TRY(net_add_conv(net, "a", 4, 3, 1, 1, false));
  TRY(net_add_norm(net, "a_bn", first, true));
  int second = net_last(net);
  TRY(net_add_conv(net, "b", 6, 3, 2, 1, false));
  int main_way = net_last(net);
  net_continue_from(net, second);
  TRY(net_add_conv(net, "b_projection", 6, 1, 2, 0, false));
  TRY(net_add_norm(net, "b_projection_bn", NO_VALUE, false));
  int shortcut = net_last(net);
  net_continue_from(net, main_way);
  TRY(net_add_norm(net, "b_bn", shortcut, true));
  TRY(net_add_average_pool(net));
  TRY(net_begin_head(net));
  TRY(net_add_linear(net, "fc", 2));
  return net_plan(net);
}

/* Betas away from 0, so that kinks are not where the differences are taken. */
static void initialise(struct net *net) {
  OK(net_initialise(net, 4));
  struct parameters own = net_parameters(net);
  for (int p = 0; p < own.count; p++)
    if (own.list[p].initial == INITIAL_CONSTANT)
      for (size_t i = 0; i < own.list[p].count; i++)
        ((double *)own.data)[own.list[p].offset + i] += 0.3 * sin(3 + 7.0 * (double)(own.list[p].offset + i));
}

static struct net *make(void) {
  struct net_input input = {.height = SIDE, .width = SIDE, .channels = 2};
  struct net *net;
  OK(net_begin(ops_host(F64), &input, 2 * ROWS, &net));
  OK(add_layers(net));
  initialise(net);
  return net;
}

static double *make_inputs(int rows, double phase) {
  double *inputs = malloc((size_t)rows * INPUTS * sizeof *inputs);
  for (int i = 0; i < rows * INPUTS; i++)
    inputs[i] = sin(phase + 0.7 * i + 0.01 * i * i);
  return inputs;
}

struct problem {
  struct net *net;
  const double *inputs;
  bool training;
};

/* sum of c_i prediction_i + d_i feature_i, with fixed c and d: its gradients are c and d. */
static double coefficient(int64_t i) {
  return cos(1 + 2.0 * (double)i);
}

static double loss_of(struct net *net, int64_t rows) {
  double loss = 0;
  const double *predictions = net_predictions(net), *features = net_features(net);
  for (int64_t i = 0; i < rows * net_output_width(net); i++)
    loss += coefficient(i) * predictions[i];
  for (int64_t i = 0; i < rows * net_feature_width(net); i++)
    loss += coefficient(i + 100) * features[i];
  return loss;
}

static double evaluate(void *context, const double *parameters) {
  struct problem *problem = context;
  static const int64_t epoch = 2, samples[ROWS] = {40, 7, 13};
  struct pass pass = {.training = problem->training, .keep_statistics = true, .epoch = &epoch, .samples = samples};
  (void)parameters; /* they are the net's own */
  OK(net_forward(problem->net, problem->inputs, ROWS, &pass));
  return loss_of(problem->net, ROWS);
}

static void backward(struct net *net, int64_t rows) {
  double predictions[64], features[64];
  cr_assert(le(i64, rows * net_feature_width(net), 64));
  for (int64_t i = 0; i < rows * net_output_width(net); i++)
    predictions[i] = coefficient(i);
  for (int64_t i = 0; i < rows * net_feature_width(net); i++)
    features[i] = coefficient(i + 100);
  OK(net_backward(net, predictions, features, NULL));
}

static void check_gradients(bool training) {
  struct problem problem = {.net = make(), .inputs = make_inputs(ROWS, 0), .training = training};
  struct parameters own = net_parameters(problem.net);
  evaluate(&problem, own.data);
  backward(problem.net, ROWS);
  struct gradient_check check = gradient_check(evaluate, &problem, own.data, own.elements, own.gradients, 1e-4);
  cr_assert(le(dbl, check.error, 1e-8), "training %d: %s", training, gradient_check_text(&check));
  free((void *)problem.inputs);
  net_destroy(&problem.net);
}

Test(conv_net, gradients_are_those_of_differences_in_training) {
  check_gradients(true);
}

Test(conv_net, gradients_are_those_of_differences_in_evaluation) {
  check_gradients(false);
}

/* --- distributions: a block with variances, and the whole networks ------------------------------------------- */

static struct net *make_probabilistic(bool bottleneck) {
  struct net_input input = {.height = SIDE, .width = SIDE, .channels = 2};
  struct net *net;
  int variance;
  OK(net_begin(ops_host(F64), &input, 2 * ROWS, &net));
  OK(net_add_conv(net, "stem", bottleneck ? 4 : 3, 3, 2, 1, true));
  OK(resnet_add_last_block(net, "last", bottleneck, bottleneck ? 1 : 3, &variance));
  OK(image_net_add_features(net, 0.3, variance));
  OK(net_add_linear(net, "fc", 2));
  OK(net_plan(net));
  initialise(net);
  return net;
}

Test(conv_net, gradients_of_distributions_are_those_of_differences) {
  for (int form = 0; form < 4; form++) {
    struct problem problem = {
        .net = make_probabilistic(form & 1), .inputs = make_inputs(ROWS, 0), .training = form & 2};
    struct parameters own = net_parameters(problem.net);
    evaluate(&problem, own.data);
    backward(problem.net, ROWS);
    struct gradient_check check = gradient_check(evaluate, &problem, own.data, own.elements, own.gradients, 1e-4);
    cr_assert(le(dbl, check.error, 1e-8), "form %d: %s", form, gradient_check_text(&check));
    free((void *)problem.inputs);
    net_destroy(&problem.net);
  }
}

static bool has_parameter(struct net *net, const char *name) {
  struct parameters own = net_parameters(net);
  for (int i = 0; i < own.count; i++)
    if (strcmp(own.list[i].name, name) == 0)
      return i < own.head;
  return false;
}

Test(conv_net, probabilistic_networks_have_variances_beside_their_means) {
  static const char *const names[] = {"variance.weight", "layer4.1.variance.weight"};
  struct image_spec spec = {.height = 32, .width = 32, .outputs = 1, .probabilistic = true};
  static const int64_t epoch = 1, samples[] = {4, 9};
  float *inputs = calloc(2 * 32 * 32 * 3, sizeof *inputs), gradient[2] = {1, -1};
  struct pass pass = {.training = true, .epoch = &epoch, .samples = samples};
  for (int i = 0; i < 2 * 32 * 32 * 3; i++)
    inputs[i] = (float)sin(i);
  for (int kind = 0; kind < 2; kind++) {
    struct net *net;
    OK(kind == 0 ? cnn_create(ops_host(F32), &spec, 2, &net) : resnet_create(ops_host(F32), 18, &spec, 2, &net));
    OK(net_initialise(net, 1));
    cr_assert(has_parameter(net, names[kind]));
    int64_t means = kind == 0 ? 256 : 512;
    cr_assert(eq(i64, net_mean_width(net), means));
    cr_assert(eq(i64, net_feature_width(net), 2 * means));
    OK(net_forward(net, inputs, 2, &pass));
    OK(net_backward(net, gradient, NULL, NULL));
    const float *features = net_features(net), *slopes = net_parameters(net).gradients;
    for (int64_t i = 0; i < 4 * means; i++)
      cr_assert(i % (2 * means) < means ? features[i] >= 0 : features[i] > 0, "feature %lld", (long long)i);
    for (size_t i = 0; i < net_parameters(net).elements; i++)
      cr_assert(isfinite(slopes[i]));
    net_destroy(&net);
  }
  free(inputs);
  cr_assert(eq(sz, memory_in_use(), 0));
}

Test(conv_net, passes_add_up_when_asked) {
  struct net *net = make();
  struct parameters own = net_parameters(net);
  size_t bytes = own.elements * sizeof(double);
  double *sum = calloc(own.elements, sizeof *sum);
  for (int pass_number = 0; pass_number < 3; pass_number++) {
    double *inputs = make_inputs(ROWS, pass_number);
    struct pass pass = {.training = true};
    OK(net_forward(net, inputs, ROWS, &pass));
    backward(net, ROWS);
    for (size_t i = 0; i < own.elements; i++)
      sum[i] += ((double *)own.gradients)[i];
    free(inputs);
  }
  double *added = malloc(bytes);
  for (int pass_number = 0; pass_number < 3; pass_number++) {
    double *inputs = make_inputs(ROWS, pass_number);
    struct pass pass = {.training = true, .accumulate = pass_number > 0};
    OK(net_forward(net, inputs, ROWS, &pass));
    backward(net, ROWS);
    free(inputs);
  }
  memcpy(added, own.gradients, bytes);
  for (size_t i = 0; i < own.elements; i++)
    cr_assert(le(dbl, fabs(added[i] - sum[i]), 1e-13 * (1 + fabs(sum[i]))), "%zu: %g, not %g", i, added[i], sum[i]);
  free(added);
  free(sum);
  net_destroy(&net);
}

Test(conv_net, running_statistics_wait_for_the_update_and_merge_what_passes_saw) {
  struct net *net = make(), *joint = make();
  struct parameters pieces = net_buffers(net), whole = net_buffers(joint);
  double *inputs = make_inputs(2 * ROWS, 0), before = ((double *)pieces.data)[0];
  struct pass pass = {.training = true};
  OK(net_forward(net, inputs, ROWS, &pass));
  cr_assert(eq(dbl, ((double *)pieces.data)[0], before));
  OK(net_forward(net, inputs + (size_t)ROWS * INPUTS, ROWS, &pass));
  OK(net_forward(joint, inputs, 2 * ROWS, &pass));
  OK(net_update_statistics(net, NULL));
  OK(net_update_statistics(joint, NULL));
  for (size_t i = 0; i < whole.list[2].offset; i++) /* of the first batch norm, whose rows are the same */
    cr_assert(le(dbl, fabs(((double *)pieces.data)[i] - ((double *)whole.data)[i]), 1e-14), "value %zu", i);
  double after = ((double *)pieces.data)[0];
  OK(net_update_statistics(net, NULL));
  cr_assert(eq(dbl, ((double *)pieces.data)[0], after), "an update without passes changed something");
  free(inputs);
  net_destroy(&joint);
  net_destroy(&net);
}

Test(conv_net, a_pass_can_be_gone_back_once) {
  struct net *net = make();
  double *inputs = make_inputs(ROWS, 0), predictions[2 * ROWS] = {0};
  struct pass pass = {.training = true};
  OK(net_forward(net, inputs, ROWS, &pass));
  OK(net_backward(net, predictions, NULL, NULL));
  cr_assert(eq(int, net_backward(net, predictions, NULL, NULL), ERR_BUG));
  free(inputs);
  net_destroy(&net);
}

Test(conv_net, no_rows_give_no_gradients_and_change_no_statistics) {
  struct net *net = make();
  struct parameters own = net_parameters(net), buffers = net_buffers(net);
  double first = ((double *)buffers.data)[0], nothing[1] = {0};
  struct pass pass = {.training = true};
  memset(own.gradients, 0x7f, own.elements * sizeof(double));
  OK(net_forward(net, nothing, 0, &pass));
  OK(net_backward(net, nothing, nothing, NULL));
  OK(net_update_statistics(net, NULL));
  for (size_t i = 0; i < own.elements; i++)
    cr_assert(eq(dbl, ((double *)own.gradients)[i], 0), "gradient %zu", i);
  cr_assert(eq(dbl, ((double *)buffers.data)[0], first));
  net_destroy(&net);
}

Test(conv_net, steps_allocate_nothing_after_the_first) {
  struct image_spec spec = {.height = 32, .width = 32, .outputs = 1};
  struct net *net;
  OK(resnet_create(ops_host(F32), 18, &spec, 4, &net));
  OK(net_initialise(net, 1));
  float *inputs = calloc(4 * 32 * 32 * 3, sizeof *inputs), gradient[4] = {1, 1, 1, 1};
  struct pass pass = {.training = true};
  size_t built = 0;
  for (int step = 0; step < 3; step++) {
    OK(net_forward(net, inputs, 4, &pass));
    OK(net_backward(net, gradient, NULL, NULL));
    OK(net_update_statistics(net, NULL));
    if (step == 0) {
      built = memory_in_use();
      memory_peak_reset();
    }
  }
  cr_assert(eq(sz, memory_peak(), built), "a step allocated memory");
  free(inputs);
  net_destroy(&net);
  cr_assert(eq(sz, memory_in_use(), 0));
}

Test(conv_net, parameter_counts_are_those_of_the_published_networks) {
  struct image_spec spec = {.height = 224, .width = 224, .outputs = 1};
  struct net *net;
  OK(resnet_create(ops_host(F32), 50, &spec, 0, &net));
  cr_assert(eq(sz, net_parameters(net).elements, 23510081));
  cr_assert(eq(i64, net_feature_width(net), 2048));
  /* 4.09 billion multiply-adds an image */
  cr_assert(epsilon_eq(dbl, net_flops_per_row(net, false), 8.18e9, 0.02e9));
  net_destroy(&net);
  OK(resnet_create(ops_host(F32), 18, &spec, 0, &net));
  cr_assert(eq(sz, net_parameters(net).elements, 11177025));
  net_destroy(&net);
  spec.probabilistic = true; /* VIR's encoder */
  OK(resnet_create(ops_host(F32), 50, &spec, 0, &net));
  cr_assert(eq(sz, net_parameters(net).list[net_parameters(net).head].offset, 24556608));
  cr_assert(eq(i64, net_mean_width(net), 2048));
  cr_assert(has_parameter(net, "layer4.2.variance.weight"));
  net_destroy(&net);
}

Test(conv_net, convolutions_start_normal_by_their_output) {
  struct image_spec spec = {.height = 32, .width = 32, .outputs = 1};
  struct net *net;
  OK(resnet_create(ops_host(F64), 18, &spec, 0, &net));
  OK(net_initialise(net, 3));
  struct parameters own = net_parameters(net), buffers = net_buffers(net);
  for (int p = 0; p < own.count; p++) {
    const struct parameter *parameter = &own.list[p];
    const double *x = (double *)own.data + parameter->offset;
    double sum = 0, squares = 0, n = (double)parameter->count;
    for (size_t i = 0; i < parameter->count; i++) {
      sum += x[i];
      squares += x[i] * x[i];
    }
    if (parameter->rank == 4) {
      double variance = 2 / (double)(parameter->shape[0] * parameter->shape[2] * parameter->shape[3]);
      /* Five standard errors of the mean and of the variance of a normal sample. */
      cr_assert(le(dbl, fabs(sum / n), 5 * sqrt(variance / n)), "%s: mean %g", parameter->name, sum / n);
      cr_assert(epsilon_eq(dbl, squares / n / variance, 1, 5 * sqrt(2 / n)), "%s: variance", parameter->name);
    } else if (strncmp(parameter->name, "fc", 2) != 0) {
      double value = strstr(parameter->name, "weight") != NULL ? 1 : 0;
      cr_assert(eq(dbl, sum, value * n), "%s", parameter->name);
    }
  }
  for (int p = 0; p < buffers.count; p++)
    cr_assert(eq(dbl, ((double *)buffers.data)[buffers.list[p].offset], p % 2), "%s", buffers.list[p].name);
  net_destroy(&net);
}

Test(conv_net, what_cannot_be_built_is_refused_in_a_sentence) {
  struct image_spec images = {.height = 32, .width = 32, .outputs = 1};
  struct net *net;
  cr_assert(eq(int, resnet_create(ops_host(F32), 34, &images, 1, &net), ERR_ARGUMENT));
  cr_assert(eq(str, (char *)status_message(), "there is no ResNet-34 here; use 18 or 50"));
  images.height = 1 << 20;
  cr_assert(eq(int, resnet_create(ops_host(F32), 18, &images, 1, &net), ERR_ARGUMENT));
  struct image_spec cnn = {.height = 8, .width = 8, .pixels = true, .std = {1, 0, 1}, .outputs = 1};
  cr_assert(eq(int, cnn_create(ops_host(F32), &cnn, 1, &net), ERR_ARGUMENT));
  cr_assert(eq(str, (char *)status_message(),
               "pixels cannot be normalised by mean 0 and deviation 0; the deviation must be above 0"));
  cr_assert(eq(ptr, (void *)net, NULL));
  cr_assert(eq(sz, memory_in_use(), 0));
}

Test(conv_net, images_of_one_pixel_still_train) {
  struct image_spec spec = {.height = 1, .width = 1, .pixels = true, .std = {1, 1, 1}, .outputs = 1};
  struct net *net;
  OK(cnn_create(ops_host(F32), &spec, 2, &net));
  OK(net_initialise(net, 1));
  uint8_t inputs[6] = {1, 2, 3, 200, 100, 50};
  float gradient[2] = {1, -1};
  struct pass pass = {.training = true};
  OK(net_forward(net, inputs, 2, &pass));
  OK(net_backward(net, gradient, NULL, NULL));
  cr_assert(eq(int, isfinite(((float *)net_parameters(net).gradients)[0]) != 0, 1));
  net_destroy(&net);
}
