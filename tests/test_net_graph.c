/* Passes of a network that are kept as graphs: the same bits as without, on the emulated CUDA backend (tests/emulate),
 * which keeps what is queued between the begin and the end of a graph, does it at each launch, and refuses to keep what
 * CUDA cannot keep: allocations, waits of the host. */
#include "dist/device.h"
#include "dist/host_copy.h"
#include "dist/memory.h"
#include "model/cnn.h"
#include "model/mlp.h"
#include "model/net.h"
#include "tests/device_support.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 6, SIZE = 16, PIXELS = SIZE * SIZE * 3, STEPS = 8 };

/* A network with its batch, all on the device. */
struct side {
  struct device *device;
  struct net *net;
  void *memory[2]; /* for inputs, by turns */
  void *inputs, *grad_predictions, *grad_features;
  int called; /* gradient_ready, in this pass */
  int order;  /* of its indices is right      */
};

static void open_side(struct side *side, struct device *device, const struct ops *ops, bool graphs) {
  struct image_spec spec = {
      .height = SIZE, .width = SIZE, .pixels = true, .mean = {.5, .5, .5}, .std = {.5, .5, .5}, .outputs = 1};
  *side = (struct side){.device = device};
  MUST(cnn_create(ops, &spec, ROWS, &side->net));
  MUST(net_initialise(side->net, 3));
  if (graphs)
    net_use_graphs(side->net);
  size_t features = (size_t)net_feature_width(side->net);
  for (int i = 0; i < 2; i++)
    MUST(device_alloc(device, ROWS * PIXELS, &side->memory[i]));
  MUST(device_alloc(device, ROWS * sizeof(float), &side->grad_predictions));
  MUST(device_alloc(device, ROWS * features * sizeof(float), &side->grad_features));
}

static void close_side(struct side *side) {
  net_destroy(&side->net);
  device_free(side->device, &side->grad_features);
  device_free(side->device, &side->grad_predictions);
  for (int i = 0; i < 2; i++)
    device_free(side->device, &side->memory[i]);
}

/* Other numbers each step; the inputs lie in two places by turns, as a trainer's do. */
static void fill(struct side *side, int step) {
  static uint8_t pixels[ROWS * PIXELS];
  static float gradients[ROWS * 512];
  static uint16_t short_gradients[ROWS * 512];
  enum dtype dtype = net_ops(side->net)->dtype;
  size_t features = ROWS * (size_t)net_feature_width(side->net);
  cr_assert(le(sz, features, sizeof gradients / sizeof *gradients));
  for (int i = 0; i < ROWS * PIXELS; i++)
    pixels[i] = (uint8_t)(i * 31 + step * 77 + i / 7);
  for (size_t i = 0; i < features; i++)
    gradients[i] = (float)((int)(i * 13 + (size_t)step * 5) % 17 - 8) / 64;
  for (size_t i = 0; i < features; i++)
    short_gradients[i] = bf16_round(gradients[i]);
  side->inputs = side->memory[step % 2];
  MUST(device_copy(side->device, side->inputs, pixels, sizeof pixels));
  MUST(device_copy(side->device, side->grad_predictions, gradients, ROWS * sizeof(float)));
  MUST(device_copy(side->device, side->grad_features, dtype == BF16 ? (void *)short_gradients : gradients,
                   features * dtype_size(dtype)));
  MUST(device_wait(side->device));
}

static enum status ready(void *context, size_t index) {
  struct side *side = context;
  side->order += (int)index == net_parameters(side->net).count - 1 - side->called;
  side->called++;
  return STATUS_OK;
}

static bool sends(void *context, size_t index) {
  (void)context;
  return index % 3 == 0;
}

static void check_same(const char *what, int step, struct side *a, void *of_a, struct side *b, void *of_b,
                       size_t bytes) {
  struct host_copy copy_a, copy_b;
  MUST(host_copy_create(a->device, of_a, bytes, &copy_a));
  MUST(host_copy_create(b->device, of_b, bytes, &copy_b));
  MUST(host_copy_fetch(&copy_a));
  MUST(host_copy_fetch(&copy_b));
  cr_expect(eq(int, memcmp(copy_a.data, copy_b.data, bytes), 0), "%s of step %d", what, step);
  host_copy_destroy(&copy_b);
  host_copy_destroy(&copy_a);
}

static void check_sides(int step, struct side *a, struct side *b, int64_t rows) {
  struct parameters of_a = net_parameters(a->net), of_b = net_parameters(b->net);
  struct parameters kept_a = net_buffers(a->net), kept_b = net_buffers(b->net);
  check_same("gradient", step, a, of_a.gradients, b, of_b.gradients, of_a.elements * sizeof(float));
  check_same("running statistics", step, a, kept_a.data, b, kept_b.data, kept_a.elements * sizeof(float));
  check_same("predictions", step, a, (void *)net_predictions(a->net), b, (void *)net_predictions(b->net),
             (size_t)rows * sizeof(float));
}

static void train(struct side *side, int64_t rows, bool accumulate, const struct net_hooks *hooks) {
  struct pass pass = {.training = true, .accumulate = accumulate};
  MUST(net_forward(side->net, side->inputs, rows, &pass));
  side->called = side->order = 0;
  MUST(net_backward(side->net, side->grad_predictions, side->grad_features, hooks));
}

static void open_both(struct device **device, struct side sides[2], enum precision precision) {
  const struct ops *ops;
  *device = device_emulated();
  MUST(ops_open(*device, precision, &ops));
  open_side(&sides[0], *device, ops, true);
  open_side(&sides[1], *device, ops, false);
}

static void close_both(struct device **device, struct side sides[2]) {
  cr_expect(eq(i64, net_graph_launches(sides[1].net), 0));
  close_side(&sides[1]);
  close_side(&sides[0]);
  device_close(device);
  cr_assert(eq(sz, memory_in_use(), 0));
}

/* Of one batch size; then a smaller one and an evaluation between, which leave what is kept as it is. */
static void same_bits(enum precision precision) {
  struct device *device;
  struct side sides[2];
  open_both(&device, sides, precision);
  for (int step = 0; step < STEPS; step++) {
    for (int i = 0; i < 2; i++) {
      struct side *side = &sides[i];
      struct net_hooks hooks = {.context = side, .gradient_ready = ready, .gradient_sends = sends};
      struct pass evaluation = {.training = false};
      fill(side, step);
      if (step == 4)
        MUST(net_forward(side->net, side->inputs, ROWS / 2, &evaluation));
      train(side, ROWS, false, NULL);
      train(side, step == 3 ? ROWS / 2 : ROWS, true, &hooks);
      cr_expect(eq(int, side->called, net_parameters(side->net).count));
      cr_expect(eq(int, side->order, side->called));
      MUST(net_update_statistics(side->net, NULL));
    }
    check_sides(step, &sides[0], &sides[1], step == 3 ? ROWS / 2 : ROWS);
  }
  cr_expect(gt(i64, net_graph_launches(sides[0].net), 8 * (STEPS - 4)));
  close_both(&device, sides);
}

Test(net_graph, passes_in_float32_have_the_same_bits) {
  same_bits(PRECISION_F32);
}

Test(net_graph, passes_in_bf16_have_the_same_bits) {
  same_bits(PRECISION_BF16);
}

/* Only where gradient_sends() says so a graph is cut: forward and backward, of encoder and head, are one each. */
Test(net_graph, a_pass_without_messages_is_one_graph_for_each_half) {
  struct device *device;
  struct side sides[2];
  open_both(&device, sides, PRECISION_F32);
  fill(&sides[0], 0);
  for (int step = 0; step < 3; step++) {
    int64_t before = net_graph_launches(sides[0].net);
    train(&sides[0], ROWS, false, NULL);
    cr_expect(eq(i64, net_graph_launches(sides[0].net) - before, step == 0 ? 0 : 4));
  }
  close_both(&device, sides);
}

/* An evaluation that is launched as a graph forgets the mask of a training pass before it: backward then drops nothing. */
static void check_evaluation_forgets_the_mask(struct net *net, const void *inputs, const int64_t *samples) {
  struct pass training = {.training = true, .samples = samples, .epoch = 9}, evaluation = {.training = false};
  struct parameters own = net_parameters(net);
  float ones[ROWS], wanted[128], got[128];
  void *gradient;
  cr_assert(le(sz, own.elements, 128));
  for (int i = 0; i < ROWS; i++)
    ones[i] = 1;
  MUST(device_alloc(own.device, sizeof ones, &gradient));
  MUST(device_copy(own.device, gradient, ones, sizeof ones));
  for (int after_training = 0; after_training < 2; after_training++) {
    if (after_training)
      MUST(net_forward(net, inputs, ROWS, &training));
    MUST(net_forward(net, inputs, ROWS, &evaluation));
    MUST(net_backward(net, gradient, NULL, NULL));
    MUST(device_copy(own.device, after_training ? got : wanted, own.gradients, own.elements * sizeof(float)));
    MUST(device_wait(own.device));
  }
  cr_expect(eq(int, memcmp(wanted, got, own.elements * sizeof(float)), 0));
  device_free(own.device, &gradient);
}

/* Each pass draws anew. */
Test(net_graph, training_with_dropout_is_not_kept) {
  struct device *device;
  struct net *net;
  const struct ops *ops;
  const int64_t hidden[] = {8};
  int64_t samples[ROWS] = {0, 1, 2, 3, 4, 5};
  struct mlp_spec spec = {.inputs = 4, .hidden = hidden, .hidden_count = 1, .dropout = 0.5, .outputs = 1};
  void *inputs, *there;
  device = device_emulated();
  MUST(ops_open(device, PRECISION_F32, &ops));
  MUST(mlp_create(ops, &spec, ROWS, &net));
  MUST(net_initialise(net, 0));
  net_use_graphs(net);
  MUST(device_alloc_zero(device, ROWS * 4 * sizeof(float), &inputs));
  MUST(device_alloc(device, sizeof samples, &there));
  MUST(device_copy(device, there, samples, sizeof samples));
  for (int i = 0; i < 3; i++) {
    struct pass pass = {.training = true, .samples = there, .epoch = i};
    MUST(net_forward(net, inputs, ROWS, &pass));
  }
  cr_expect(eq(i64, net_graph_launches(net), 0));
  for (int i = 0; i < 3; i++) {
    struct pass pass = {.training = false};
    MUST(net_forward(net, inputs, ROWS, &pass));
  }
  cr_expect(eq(i64, net_graph_launches(net), 4));
  check_evaluation_forgets_the_mask(net, inputs, there);
  net_destroy(&net);
  device_free(device, &there);
  device_free(device, &inputs);
  device_close(&device);
  cr_assert(eq(sz, memory_in_use(), 0));
}

static enum status fails_at_three(void *context, size_t index) {
  int *calls = context;
  (void)index;
  return ++*calls % 3 == 0 ? fail(ERR_COMM, "a rank is gone") : STATUS_OK;
}

static bool never(void *context, size_t index) {
  (void)context;
  (void)index;
  return false;
}

/* The sentence is that of the failure, and the stream works on. */
Test(net_graph, a_pass_that_fails_while_it_is_kept_leaves_all_as_it_was) {
  struct device *device;
  struct side sides[2];
  open_both(&device, sides, PRECISION_F32);
  for (int i = 0; i < 2; i++) {
    int calls = 0;
    struct pass pass = {.training = true};
    struct net_hooks hooks = {.context = &calls, .gradient_ready = fails_at_three, .gradient_sends = never};
    fill(&sides[0], 0);
    MUST(net_forward(sides[0].net, sides[0].inputs, ROWS, &pass));
    cr_expect(eq(int, net_backward(sides[0].net, sides[0].grad_predictions, NULL, &hooks), ERR_COMM));
    cr_expect(eq(str, (char *)status_message(), "a rank is gone"));
  }
  for (int i = 0; i < 2; i++) {
    fill(&sides[i], 1);
    if (i == 1)
      for (int again = 0; again < 2; again++) /* the running statistics have seen as many passes */
        train(&sides[i], ROWS, false, NULL);
    train(&sides[i], ROWS, false, NULL);
  }
  check_same("gradient", 0, &sides[0], net_parameters(sides[0].net).gradients, &sides[1],
             net_parameters(sides[1].net).gradients, net_parameters(sides[0].net).elements * sizeof(float));
  close_both(&device, sides);
}
