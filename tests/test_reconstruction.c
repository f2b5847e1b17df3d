/* Decoders: transposed convolutions by their definition, gradients by differences, what evaluations leave out, counts of
 * parameters, and what cannot be mirrored. */
#include "model/reconstruction.h"

#include "dist/memory.h"
#include "io/safetensors.h"
#include "model/initial.h"
#include "model/layer.h"
#include "model/resnet.h"
#include "tests/buffers.h"
#include "tests/emulated.h"
#include "tests/gradient_check.h"
#include "tests/io_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())

/* --- transposed convolutions -------------------------------------------------------------------------------- */

enum { TRANSPOSED_ROWS = 2 };

/* Each place of the input adds its weighted kernel to the output. */
static void scatter(const struct value *in, const struct value *out, int kernel, int stride, int padding,
                    const double *x, const double *weight, double *y) {
  for (int64_t i = 0; i < TRANSPOSED_ROWS * in->height * in->width * in->channels; i++) {
    int64_t c = i % in->channels, left = i / in->channels % in->width,
            top = i / (in->channels * in->width) % in->height, row = i / value_width(in);
    for (int64_t k = 0; k < out->channels * kernel * kernel; k++) {
      int64_t to_y = top * stride + k / kernel % kernel - padding, to_x = left * stride + k % kernel - padding;
      if (to_y < 0 || to_y >= out->height || to_x < 0 || to_x >= out->width)
        continue;
      y[((row * out->height + to_y) * out->width + to_x) * out->channels + k / (kernel * kernel)] +=
          x[i] * weight[c * out->channels * kernel * kernel + k];
    }
  }
}

static void check_transposed(int64_t side, int64_t channels, int64_t out, int kernel, int stride, int padding) {
  struct net_input input = {.height = side, .width = side, .channels = channels};
  struct net *net;
  OK(net_begin(ops_host(F64), &input, TRANSPOSED_ROWS, &net));
  OK(net_begin_head(net));
  OK(net_add_transposed_conv(net, "t", out, kernel, stride, padding));
  OK(net_plan(net));
  OK(net_initialise(net, 1));
  const struct value *made = net_last_value(net);
  cr_assert(eq(i64, made->height, (side - 1) * stride + kernel - 2 * padding));
  double *x = buffer_create(F64, TRANSPOSED_ROWS * net_input_width(net), 1),
         *y = calloc((size_t)(TRANSPOSED_ROWS * value_width(made)), sizeof *y);
  scatter(&net->value[0], made, kernel, stride, padding, x, net_parameters(net).data, y);
  struct pass pass = {0};
  OK(net_forward(net, x, TRANSPOSED_ROWS, &pass));
  for (int64_t i = 0; i < TRANSPOSED_ROWS * value_width(made); i++)
    cr_assert(epsilon_eq(dbl, ((const double *)net_predictions(net))[i], y[i], 1e-13), "%lld", (long long)i);
  free(y);
  free(x);
  net_destroy(&net);
}

Test(reconstruction, transposed_convolutions_are_their_definition) {
  check_transposed(1, 5, 3, 7, 7, 0);
  check_transposed(3, 4, 2, 2, 2, 0);
  check_transposed(4, 2, 3, 6, 2, 2);
  check_transposed(5, 3, 4, 3, 1, 1);
}

/* --- a small net --------------------------------------------------------------------------------------------- */

enum { ROWS = 3, SIZE = 16, PIXELS = SIZE * SIZE * 3 };

static const struct mirror small = {.stages = 2, .blocks = {2, 1}, .planes = 2, .side = 2};

static struct net *make_on(const struct ops *ops, bool reconstructs) {
  struct net_input input = {.height = SIZE, .width = SIZE, .channels = 3};
  struct net *net;
  int variance;
  OK(net_begin(ops, &input, ROWS, &net));
  OK(net_add_conv(net, "stem", 8, 8, 8, 0, true));
  OK(resnet_add_last_block(net, "last", true, 2, &variance));
  OK(image_net_add_features(net, 0, variance));
  if (reconstructs)
    OK(reconstruction_add(net, &small, 0));
  OK(net_add_dropout(net, 0.3));
  OK(net_add_linear(net, "fc", 2));
  OK(net_plan(net));
  OK(net_initialise(net, 4));
  return net;
}

static struct net *make(bool reconstructs) {
  struct net *net = make_on(ops_host(F64), reconstructs);
  struct parameters own = net_parameters(net);
  for (int p = 0; p < own.count; p++) /* betas away from 0, so that kinks are not where the differences are taken */
    for (size_t i = 0; own.list[p].initial == INITIAL_CONSTANT && i < own.list[p].count; i++)
      ((double *)own.data)[own.list[p].offset + i] += 0.3 * sin(3 + 7.0 * (double)(own.list[p].offset + i));
  return net;
}

static double *make_inputs(void) {
  double *inputs = malloc(ROWS * PIXELS * sizeof *inputs);
  for (int i = 0; i < ROWS * PIXELS; i++)
    inputs[i] = sin(0.7 * i + 0.001 * i * i);
  return inputs;
}

struct problem {
  struct net *net;
  const double *inputs;
  double factor;
};

static double coefficient(int64_t i) {
  return cos(1 + 2.0 * (double)i);
}

/* What the decoder has made in the last pass, against the inputs. */
static double squared_error(const struct problem *problem) {
  const struct net *net = problem->net;
  const double *made = net->decoder_end > 0 ? net->operations[net->decoder_end - 1].input : problem->inputs;
  double sum = 0;
  for (int i = 0; i < ROWS * PIXELS; i++)
    sum += (made[i] - problem->inputs[i]) * (made[i] - problem->inputs[i]);
  return sum;
}

/* sum of c_i prediction_i + half the factor times the squared error.  squares: of the way back, which is gone if it is
 * not NULL. */
static double value_of(struct problem *problem, double *squares) {
  static const int64_t epoch = 2, samples[ROWS] = {40, 7, 13};
  double loss = 0, slopes[2 * ROWS];
  struct reconstruction wanted = {.factor = problem->factor, .squares = squares};
  struct pass pass = {.training = true,
                      .keep_statistics = true,
                      .epoch = &epoch,
                      .samples = samples,
                      .reconstruction = problem->factor > 0 ? &wanted : NULL};
  OK(net_forward(problem->net, problem->inputs, ROWS, &pass));
  for (int i = 0; i < 2 * ROWS; i++) {
    slopes[i] = coefficient(i);
    loss += slopes[i] * ((const double *)net_predictions(problem->net))[i];
  }
  loss += problem->factor / 2 * squared_error(problem);
  if (squares != NULL)
    OK(net_backward(problem->net, slopes, NULL, NULL));
  return loss;
}

static double evaluate(void *context, const double *parameters) {
  (void)parameters; /* they are the net's own */
  return value_of(context, NULL);
}

static double *gradients_of(struct problem *problem) {
  struct parameters own = net_parameters(problem->net);
  double *gradients = malloc(own.elements * sizeof *gradients), squares = 5, expected;
  evaluate(problem, NULL);
  expected = problem->factor > 0 ? 5 + squared_error(problem) : 5;
  value_of(problem, &squares);
  cr_assert(epsilon_eq(dbl, squares, expected, 1e-12 * expected));
  memcpy(gradients, own.gradients, own.elements * sizeof *gradients);
  return gradients;
}

Test(reconstruction, gradients_are_those_of_differences) {
  struct problem problem = {.net = make(true), .inputs = make_inputs(), .factor = 0.01};
  struct parameters own = net_parameters(problem.net);
  double *gradients = gradients_of(&problem);
  /* So many relus have a kink nearby; this near there is none, and rounding is 1e-15 / h of the loss. */
  struct gradient_check check = gradient_check(evaluate, &problem, own.data, own.elements, gradients, 1e-6);
  cr_assert(le(dbl, check.error, 1e-7), "%s", gradient_check_text(&check));
  free(gradients);
  free((void *)problem.inputs);
  net_destroy(&problem.net);
}

/* The encoder's parameters come first in both, the head's last. */
Test(reconstruction, counts_for_nothing_where_it_is_not_wanted) {
  struct problem with = {.net = make(true), .inputs = make_inputs()}, without = {make(false), with.inputs, 0};
  struct parameters a = net_parameters(with.net), b = net_parameters(without.net);
  size_t encoder = b.list[b.head].offset, head = b.elements - encoder;
  memcpy(b.data, a.data, encoder * sizeof(double));
  memcpy((double *)b.data + encoder, (double *)a.data + a.elements - head, head * sizeof(double));
  double *slopes = gradients_of(&with), *expected = gradients_of(&without);
  for (size_t i = 0; i < encoder; i++)
    cr_assert(eq(dbl, slopes[i], expected[i]), "encoder, %zu", i);
  for (size_t i = encoder; i < a.elements - head; i++)
    cr_assert(eq(dbl, slopes[i], 0), "decoder, %zu", i - encoder);
  cr_assert(zero(int, memcmp(slopes + a.elements - head, expected + encoder, head * sizeof(double))));
  free(expected);
  free(slopes);
  free((void *)with.inputs);
  net_destroy(&without.net);
  net_destroy(&with.net);
}

Test(reconstruction, evaluations_leave_it_out) {
  struct net *net = make(true), *bare = make(false);
  double *inputs = make_inputs();
  struct pass pass = {0};
  double nothing[2 * ROWS] = {0};
  OK(net_forward(net, inputs, ROWS, &pass));
  cr_assert(eq(dbl, net_flops_per_row(net, false), net_flops_per_row(bare, false)));
  cr_assert(net_flops_per_row(net, true) > net_flops_per_row(bare, true));
  cr_assert(eq(int, net_backward(net, nothing, NULL, NULL), ERR_BUG));
  free(inputs);
  net_destroy(&bare);
  net_destroy(&net);
}

Test(reconstruction, steps_allocate_nothing_after_the_first) {
  struct problem problem = {.net = make(true), .inputs = make_inputs(), .factor = 1};
  double squares = 0;
  value_of(&problem, &squares);
  size_t built = memory_in_use();
  memory_peak_reset();
  value_of(&problem, &squares);
  cr_assert(eq(sz, memory_peak(), built), "a step allocated memory");
  free((void *)problem.inputs);
  net_destroy(&problem.net);
}

/* --- on a GPU, emulated or not ------------------------------------------------------------------------------- */

/* A block of a device with these bytes. */
static void *there(struct device *device, const void *from, size_t bytes) {
  void *block;
  OK(device_alloc(device, bytes, &block));
  OK(device_copy(device, block, from, bytes));
  OK(device_wait(device));
  return block;
}

/* Gradients in float32 of one step, on the host or a device; *squares: of the error. */
static float *step_on(const struct ops *ops, double *squares) {
  static const int64_t epoch = 2, samples[ROWS] = {40, 7, 13};
  float inputs[ROWS * PIXELS], slopes[2 * ROWS];
  double *exact = make_inputs();
  for (int i = 0; i < ROWS * PIXELS; i++)
    inputs[i] = (float)exact[i];
  for (int i = 0; i < 2 * ROWS; i++)
    slopes[i] = (float)coefficient(i);
  *squares = 0;
  struct net *net = make_on(ops, true);
  struct parameters own = net_parameters(net);
  void *blocks[] = {there(ops->device, inputs, sizeof inputs), there(ops->device, slopes, sizeof slopes),
                    there(ops->device, &epoch, sizeof epoch), there(ops->device, samples, sizeof samples),
                    there(ops->device, squares, sizeof *squares)};
  struct reconstruction wanted = {.factor = 0.01, .squares = blocks[4]};
  struct pass pass = {.training = true, .epoch = blocks[2], .samples = blocks[3], .reconstruction = &wanted};
  float *gradients = malloc(own.elements * sizeof *gradients);
  OK(net_forward(net, blocks[0], ROWS, &pass));
  OK(net_backward(net, blocks[1], NULL, NULL));
  OK(device_copy(ops->device, gradients, own.gradients, own.elements * sizeof *gradients));
  OK(device_copy(ops->device, squares, blocks[4], sizeof *squares));
  OK(device_wait(ops->device));
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
    device_free(ops->device, &blocks[i]);
  net_destroy(&net);
  free(exact);
  return gradients;
}

Test(reconstruction, a_gpu_gives_what_the_host_gives) {
  struct device *device;
  const struct ops *ops;
  double squares[2], largest = 0, apart = 0;
  if (!gpu_use())
    cr_skip("there is no emulated CUDA library");
  OK(device_open(0, &device));
  OK(ops_open(device, PRECISION_F32, &ops));
  float *gradients = step_on(ops, &squares[0]), *expected = step_on(ops_host(F32), &squares[1]);
  struct net *net = make(true);
  for (size_t i = 0; i < net_parameters(net).elements; i++) {
    largest = fmax(largest, fabs((double)expected[i]));
    apart = fmax(apart, fabs((double)expected[i] - (double)gradients[i]));
  }
  /* Sums in another order: twenty layers, three rows for the statistics of some. */
  cr_assert(le(dbl, apart, 1e-4 * largest), "%g of %g", apart, largest);
  cr_assert(epsilon_eq(dbl, squares[0], squares[1], 1e-5 * squares[1]));
  free(expected);
  free(gradients);
  net_destroy(&net);
  device_close(&device);
}

/* --- what a decoder starts from ------------------------------------------------------------------------------- */

static const double *values_of(const struct net *net, int parameter) {
  struct parameters own = net_parameters(net);
  return (const double *)own.data + own.list[parameter].offset;
}

/* Of a parameter in two nets of this shape. */
static bool same_parameter(const struct net *a, int of_a, const struct net *b, int of_b) {
  struct parameters own = net_parameters(a), other = net_parameters(b);
  cr_assert(eq(str, (char *)own.list[of_a].name, (char *)other.list[of_b].name));
  return memcmp(values_of(a, of_a), values_of(b, of_b), own.list[of_a].count * sizeof(double)) == 0;
}

Test(reconstruction, a_head_that_starts_otherwise_leaves_the_decoder_as_it_is) {
  struct net *net = make_on(ops_host(F64), true), *other = make_on(ops_host(F64), true);
  struct parameters own = net_parameters(net);
  cr_assert(own.head < own.output && own.output == own.count - 2);
  net_start_head(other, 0.01);
  OK(net_initialise(other, 4));
  for (int i = 0; i < own.output; i++)
    cr_expect(same_parameter(net, i, other, i), "%s", own.list[i].name);
  cr_expect(same_parameter(net, own.output, other, own.output) == false);
  cr_expect(eq(dbl, values_of(other, own.output + 1)[0], 0.0), "the bias of fc");
  net_destroy(&net);
  net_destroy(&other);
}

static const char *write_net(const struct net *net) {
  struct parameters parts[] = {net_parameters(net), net_buffers(net)};
  static struct array arrays[256];
  size_t count = 0;
  for (int part = 0; part < 2; part++)
    for (int i = 0; i < parts[part].count; i++) {
      const struct parameter *one = &parts[part].list[i];
      cr_assert(lt(sz, count, sizeof arrays / sizeof *arrays));
      OK(array_borrow(one->name, ARRAY_F64, one->rank, one->shape, (double *)parts[part].data + one->offset,
                      &arrays[count++]));
    }
  OK(safetensors_write(io_file("net.safetensors"), arrays, count, NULL, 0));
  return io_file("net.safetensors");
}

/* A file without a decoder gives all else; one with it, all. */
FILE_TEST(reconstruction, a_file_gives_what_it_has) {
  struct net *without = make(false), *net = make_on(ops_host(F64), true), *fresh = make_on(ops_host(F64), true);
  struct parameters own = net_parameters(net), less = net_parameters(without);
  char note[512];
  OK(parameters_load(write_net(without), own, net_buffers(net), F64, note, sizeof note));
  cr_expect(strstr(note, "has no decoder that fits: it starts afresh") != NULL, "%s", note);
  int betas = 0; /* make() has moved them */
  for (int i = 0; i < own.head; i++) {
    cr_expect(same_parameter(net, i, without, i), "%s", own.list[i].name);
    betas += same_parameter(net, i, fresh, i) == false;
  }
  cr_expect(gt(int, betas, 0));
  for (int i = own.head; i < own.output; i++)
    cr_expect(same_parameter(net, i, fresh, i), "%s", own.list[i].name);
  cr_expect(same_parameter(net, own.output, without, less.output));
  struct net *whole = make(true);
  struct parameters all = net_parameters(whole);
  const char *path = write_net(whole);
  net_start_head(fresh, 0.01);
  OK(net_initialise(fresh, 9));
  OK(parameters_load(path, net_parameters(fresh), net_buffers(fresh), F64, note, sizeof note));
  cr_expect(eq(str, note, ""));
  for (int i = 0; i < all.count; i++)
    cr_expect(same_parameter(fresh, i, whole, i), "%s", all.list[i].name);
  net_destroy(&whole);
  net_destroy(&fresh);
  net_destroy(&net);
  net_destroy(&without);
}

/* --- ResNet-50 ----------------------------------------------------------------------------------------------- */

/* The published decoder for images of 224, whose first convolution makes 7 x 7 places; here it makes one. */
Test(reconstruction, resnet50_has_the_published_decoder) {
  struct image_spec spec = {
      .height = 32, .width = 32, .outputs = 3, .probabilistic = true, .reconstructs = true, .dropout = 0.1};
  struct net *net;
  OK(resnet_create(ops_host(F32), 50, &spec, 0, &net));
  struct parameters own = net_parameters(net);
  const struct parameter *first = &own.list[own.head], *fc = &own.list[own.count - 2];
  cr_assert(eq(str, (char *)first->name, "decoder.first.weight"));
  cr_assert(eq(str, (char *)fc->name, "fc.weight"));
  cr_assert(eq(sz, first->count, 2048 * 2048));
  cr_assert(eq(sz, 49 * first->count, 205520896));
  cr_assert(eq(sz, fc->offset - first->offset + 48 * first->count, 224545920));
  cr_assert(eq(sz, own.elements - fc->offset, 6147));
  net_destroy(&net);
}

Test(reconstruction, what_cannot_be_mirrored_is_refused_in_a_sentence) {
  struct image_spec spec = {.height = 64, .width = 96, .outputs = 1, .probabilistic = true, .reconstructs = true};
  struct net *net;
  cr_assert(eq(int, resnet_create(ops_host(F32), 50, &spec, 0, &net), ERR_ARGUMENT));
  cr_assert(eq(str, (char *)status_message(),
               "an image of 64 x 96 cannot be reconstructed: the mirror of this network makes 64 x 64; use images as "
               "wide as high, of a multiple of 32"));
  spec.width = 64;
  cr_assert(eq(int, resnet_create(ops_host(F32), 18, &spec, 0, &net), ERR_ARGUMENT));
  spec.probabilistic = false;
  cr_assert(eq(int, resnet_create(ops_host(F32), 50, &spec, 0, &net), ERR_ARGUMENT));
  cr_assert(eq(str, (char *)status_message(),
               "inputs are reconstructed from features that are distributions, of ResNet-50; use both"));
  cr_assert(eq(sz, memory_in_use(), 0));
}
