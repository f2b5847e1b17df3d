/* The contract of operations (ops_contract.h), kept by every table: the host's in float32, and a GPU's in all its
 * precisions - emulated (tests/emulate), or a real one when CONR_TEST_DEVICE=cuda is in the environment. */
#include "dist/memory.h"
#include "model/layer.h"
#include "tests/emulated.h"
#include "tests/ops_contract.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MUST(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())

typedef void part(const struct ops_contract *contract);

/* Relative, of what products read: half a unit of 10 bits of mantissa, or of 7. */
static double factor_rounding(enum precision precision) {
  return precision == PRECISION_TF32 ? 0x1p-11 : precision == PRECISION_BF16 ? 0x1p-9 : 0;
}

static void check_device(part *check) {
  struct device *device;
  if (!gpu_use())
    cr_skip("there is no emulated CUDA library, and CONR_TEST_DEVICE=cuda does not ask for a GPU");
  MUST(device_open(0, &device));
  for (enum precision precision = PRECISION_F32; precision <= PRECISION_BF16; precision++) {
    struct ops_contract contract = {.name = precision_name(precision), .factor_rounding = factor_rounding(precision)};
    MUST(ops_open(device, precision, &contract.ops));
    cr_assert(eq(ptr, contract.ops->device, device));
    check(&contract);
  }
  device_close(&device);
  cr_assert(eq(sz, memory_in_use(), 0));
}

static void check_host(part *check) {
  check(&(struct ops_contract){.ops = ops_host(F32), .name = "host f32"});
  cr_assert(eq(sz, memory_in_use(), 0));
}

#define CONTRACT(subject)                   \
  Test(device_ops, subject##_on_a_gpu) {    \
    check_device(ops_contract_##subject);   \
  }                                         \
  Test(device_ops, subject##_on_the_host) { \
    check_host(ops_contract_##subject);     \
  }

CONTRACT(linear)
CONTRACT(activations)
CONTRACT(dropout)
CONTRACT(distributions)
CONTRACT(convolutions)
CONTRACT(norm)
CONTRACT(norm_channels)
CONTRACT(pools)
CONTRACT(pixels)
CONTRACT(rows)
CONTRACT(vectors)
CONTRACT(optimisers)

Test(device_ops, a_precision_that_the_device_does_not_have_is_refused) {
  struct device *device;
  const struct ops *ops;
  if (!gpu_use())
    cr_skip("there is no emulated CUDA library");
  MUST(device_open(0, &device));
  cr_assert(eq(int, ops_open(device, PRECISION_F64, &ops), ERR_ARGUMENT));
  device_close(&device);
}

/* Graphs may have been recorded with an earlier block. */
Test(device_ops, a_workspace_of_a_device_keeps_its_blocks_until_it_is_freed) {
  struct workspace workspace = {0};
  struct device *device;
  if (!gpu_use())
    cr_skip("there is no emulated CUDA library");
  MUST(device_open(0, &device));
  workspace.device = device;
  size_t before = device_bytes(device);
  static const size_t sizes[] = {1000, 500, 3000, 70000};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    MUST(workspace_reserve(&workspace, sizes[i]));
  cr_assert(device_bytes(device) >= before + 1000 + 3000 + 70000);
  cr_assert(eq(sz, workspace_bytes(&workspace), 1000 + 3000 + 70000));
  workspace_free(&workspace);
  cr_assert(eq(sz, device_bytes(device), before));
  device_close(&device);
  cr_assert(eq(sz, memory_in_use(), 0));
}

/* --- sums over many rows -------------------------------------------------------------------------------------- */

/* So many outputs that rows are not cut into parts, in a shape that the emulated cuBLASLt refuses: one thread sums 2000
 * rows.  Sums of 64 are float32, so they are off by 63 roundings at most; in float32 throughout it would be 500. */
Test(device_ops, gradients_of_weights_over_many_rows_lose_no_more_than_sums_of_64) {
  enum { ROWS = 16000, IN_WIDTH = 33, OUT_WIDTH = 532 };
  const struct linear_shape shape = {IN_WIDTH, OUT_WIDTH, true};
  const struct ops *ops;
  struct device *device;
  float *given = malloc(sizeof(float) * ROWS * OUT_WIDTH), *x, *grad_y, *grad_weight;
  uint16_t *ones = malloc(sizeof(uint16_t) * ROWS * IN_WIDTH);
  if (getenv("CONR_TEST_DEVICE") != NULL || !emulated_use())
    cr_skip("only the emulated cuBLASLt is known to refuse");
  for (int i = 0; i < ROWS * OUT_WIDTH; i++)
    given[i] = 1 / 3.0f;
  for (int i = 0; i < ROWS * IN_WIDTH; i++)
    ones[i] = 0x3f80;
  MUST(device_open(0, &device));
  MUST(ops_open(device, PRECISION_BF16, &ops));
  MUST(device_alloc(device, sizeof(uint16_t) * ROWS * IN_WIDTH, (void **)&x));
  MUST(device_alloc(device, sizeof(float) * ROWS * OUT_WIDTH, (void **)&grad_y));
  MUST(device_alloc(device, sizeof(float) * IN_WIDTH * OUT_WIDTH, (void **)&grad_weight));
  MUST(device_copy(device, x, ones, sizeof(uint16_t) * ROWS * IN_WIDTH));
  MUST(device_copy(device, grad_y, given, sizeof(float) * ROWS * OUT_WIDTH));
  MUST(ops->linear_backward_weights(ROWS, &shape, x, grad_y, grad_weight, NULL));
  MUST(device_copy(device, given, grad_weight, sizeof(float) * IN_WIDTH * OUT_WIDTH));
  MUST(device_wait(device));
  double wanted = ROWS * (double)(1 / 3.0f);
  for (int i = 0; i < IN_WIDTH * OUT_WIDTH; i++)
    cr_assert(fabs((double)given[i] - wanted) <= 64 * 0x1p-24 * wanted, "%d: %.9g, not %.9g", i, (double)given[i],
              wanted);
  device_free(device, (void **)&x);
  device_free(device, (void **)&grad_y);
  device_free(device, (void **)&grad_weight);
  device_close(&device);
  free(given);
  free(ones);
}

/* --- which convolution cuDNN is asked for -------------------------------------------------------------------- */

enum { IMAGE = 5 * 4 * 8, CONVOLVED = 3 * IMAGE };

/* The three results of one small convolution and the bytes of its workspace, with another answer of the emulated
 * cuDNN. */
static size_t convolve(struct device *device, enum precision precision, const char *variable, const char *value,
                       float results[CONVOLVED]) {
  const struct conv_shape shape = {5, 4, 8, 8, 1, 1, 0, false};
  struct workspace workspace = {.device = device};
  struct conv *conv;
  const struct ops *ops;
  float ramp[IMAGE], *arrays[5];
  for (int i = 0; i < IMAGE; i++)
    ramp[i] = (float)(i % 23 - 11) / 8;
  cr_assert(eq(int, setenv(variable, value, 1), 0));
  MUST(ops_open(device, precision, &ops));
  MUST(ops->conv_create(&shape, &conv));
  for (int i = 0; i < 5; i++) {
    MUST(device_alloc_zero(device, sizeof ramp, (void **)&arrays[i]));
    if (i < 2)
      MUST(device_copy(device, arrays[i], ramp, sizeof ramp));
  }
  MUST(ops->conv_forward(conv, &workspace, 1, arrays[0], arrays[1], NULL, arrays[2]));
  MUST(ops->conv_backward_data(conv, &workspace, 1, arrays[0], arrays[1], arrays[3]));
  MUST(ops->conv_backward_weights(conv, &workspace, 1, arrays[0], arrays[2], arrays[4], NULL));
  for (int i = 0; i < 3; i++)
    MUST(device_copy(device, results + i * IMAGE, arrays[2 + i], sizeof ramp));
  MUST(device_wait(device));
  for (int i = 0; i < 5; i++)
    device_free(device, (void **)&arrays[i]);
  ops->conv_destroy(&conv);
  size_t bytes = workspace.bytes;
  workspace_free(&workspace);
  cr_assert(eq(int, unsetenv(variable), 0));
  return bytes;
}

/* An algorithm that does not repeat its bits is always offered first: rather much scratch memory, or one that was not
 * offered, is taken. */
Test(device_ops, convolutions_repeat_their_bits_whatever_is_offered) {
  static float usual[CONVOLVED], other[CONVOLVED];
  struct device *device;
  if (getenv("CONR_TEST_DEVICE") != NULL || !emulated_use())
    cr_skip("only the emulated cuDNN can be told what to offer");
  MUST(device_open(0, &device));
  for (enum precision precision = PRECISION_F32; precision <= PRECISION_BF16; precision++) {
    size_t bytes = convolve(device, precision, "EMULATED_CUDNN_SCRATCH", "0", usual);
    convolve(device, precision, "EMULATED_CUDNN_UNLISTED", "1", other);
    cr_assert(eq(int, memcmp(usual, other, sizeof usual), 0), "unlisted in %s", precision_name(precision));
    if (precision != PRECISION_F32)
      continue;
    size_t more = convolve(device, precision, "EMULATED_CUDNN_SCRATCH", "1073741824", other);
    cr_assert(eq(int, memcmp(usual, other, sizeof usual), 0), "with much scratch");
    cr_assert(eq(sz, more, bytes + 1073741824));
  }
  device_close(&device);
}

/* The emulated library is built for 80 and 90. */
Test(device_ops, a_gpu_that_the_library_has_no_code_for_is_refused) {
  static const struct {
    const char *capability;
    enum status status;
  } cases[] = {{"75", ERR_DEVICE}, {"80", STATUS_OK}, {"89", STATUS_OK}, {"90", STATUS_OK}, {"120", STATUS_OK}};
  if (getenv("CONR_TEST_DEVICE") != NULL || !emulated_use())
    cr_skip("only the emulated GPU can be of any kind");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct device *device;
    const struct ops *ops;
    cr_assert(eq(int, setenv("EMULATED_CUDA_CAPABILITY", cases[i].capability, 1), 0));
    MUST(device_open(0, &device));
    cr_assert(eq(int, ops_open(device, PRECISION_F32, &ops), cases[i].status), "%s", cases[i].capability);
    if (cases[i].status != STATUS_OK)
      cr_assert(strstr(status_message(), "of compute capability 75") != NULL &&
                    strstr(status_message(), "CUDA_ARCHS=\"80 90\"") != NULL &&
                    strstr(status_message(), "CUDA_ARCHS=75") != NULL,
                "%s", status_message());
    device_close(&device);
  }
}

/* --- the last layer ------------------------------------------------------------------------------------------ */

/* A linear layer writes predictions in float32 where values have 16 bits; an activation behind it could not. */
Test(device_ops, predictions_of_16_bits_are_refused) {
  const struct net_input input = {.height = 1, .width = 1, .channels = 3};
  struct device *device;
  if (!gpu_use())
    cr_skip("there is no emulated CUDA library");
  MUST(device_open(0, &device));
  for (enum precision precision = PRECISION_F32; precision <= PRECISION_BF16; precision++) {
    const struct ops *ops;
    struct net *net;
    MUST(ops_open(device, precision, &ops));
    MUST(net_begin(ops, &input, 4, &net));
    MUST(net_begin_head(net));
    MUST(net_add_linear(net, "fc", 2));
    MUST(net_add_activation(net, ACTIVATION_RELU));
    cr_assert(eq(int, net_plan(net), precision == PRECISION_BF16 ? ERR_BUG : STATUS_OK), "%s", status_message());
    net_destroy(&net);
  }
  cr_assert(strstr(status_message(), "ends in \"activation\"") != NULL, "%s", status_message());
  device_close(&device);
  cr_assert(eq(sz, memory_in_use(), 0));
}

/* --- a step as a graph --------------------------------------------------------------------------------------- */

/* A convolution, batch norm, a pool and two linear layers, forward and backward, and an update. */
enum { IMAGES = 3, SIDE = 6, IN = 8, OUT = 16, UNITS = 24, PLACES = IMAGES * SIDE * SIDE, ROOM = PLACES * OUT };
enum {
  INPUT,
  FEATURES,
  NORMED,
  POOLED,
  HIDDEN,
  PREDICTED,
  GRAD,
  GRAD_MORE,
  FILTERS,
  WEIGHTS,
  HEAD,
  GRADIENTS,
  MOMENT1,
  MOMENT2,
  ARRAYS
};

struct step {
  struct device *device;
  const struct ops *ops;
  struct conv *conv;
  struct workspace workspace;
  void *arrays[ARRAYS];   /* [ROOM] floats or shorter numbers each */
  double *numbers;        /* [8 * OUT] of batch norm               */
  struct adam_step *adam; /* on the device */
};

static void step_begin(struct step *step) {
  static float ramp[ROOM];
  const struct adam_step adam = {0.01, 0.5, 0.9, 0.99, 1e-8, 0, 1};
  for (int i = 0; i < ROOM; i++)
    ramp[i] = (float)(i % 61 - 30) / 32;
  MUST(step->ops->conv_create(&(struct conv_shape){SIDE, SIDE, IN, OUT, 3, 1, 1, false}, &step->conv));
  step->workspace.device = step->device;
  for (int i = 0; i < ARRAYS; i++) {
    MUST(device_alloc(step->device, sizeof ramp, &step->arrays[i]));
    MUST(device_copy(step->device, step->arrays[i], ramp, sizeof ramp));
  }
  /* values of 16 bits are made of the parameters, not of halves of them */
  MUST(device_zero(step->device, step->arrays[INPUT], sizeof ramp));
  MUST(step->ops->pixels(PLACES, IN, step->arrays[HEAD], (double[IN]){0}, (double[IN]){1, 1, 1, 1, 1, 1, 1, 1},
                         step->arrays[INPUT]));
  MUST(step->ops->pixels(PLACES, OUT, step->arrays[HEAD], (double[OUT]){0},
                         (double[OUT]){1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, step->arrays[GRAD]));
  MUST(device_zero(step->device, step->arrays[MOMENT2], sizeof ramp));
  MUST(device_alloc_zero(step->device, 8 * OUT * sizeof(double), (void **)&step->numbers));
  MUST(device_alloc(step->device, sizeof adam, (void **)&step->adam));
  MUST(device_copy(step->device, step->adam, &adam, sizeof adam));
}

static void step_end(struct step *step) {
  step->ops->conv_destroy(&step->conv);
  workspace_free(&step->workspace);
  for (int i = 0; i < ARRAYS; i++)
    device_free(step->device, &step->arrays[i]);
  device_free(step->device, (void **)&step->adam);
  device_free(step->device, (void **)&step->numbers);
}

static void queue_step(struct step *step) {
  const struct ops *ops = step->ops;
  void **a = step->arrays;
  double *mean = step->numbers, *square = mean + OUT, *sums = square + OUT;
  const struct pool_shape pool = {SIDE, SIDE, OUT, SIDE, SIDE, 1, 0};
  const struct linear_shape hidden = {OUT, UNITS, false}, head = {UNITS, 5, true};
  MUST(ops->conv_forward(step->conv, &step->workspace, IMAGES, a[INPUT], a[FILTERS], NULL, a[FEATURES]));
  MUST(ops->norm_statistics(PLACES, OUT, a[FEATURES], mean, square));
  MUST(ops->norm_forward(PLACES, OUT, a[FEATURES], mean, square, a[WEIGHTS], a[HEAD], NULL, true, a[NORMED]));
  MUST(ops->average_pool_forward(&pool, IMAGES, a[NORMED], a[POOLED]));
  MUST(ops->linear_forward(IMAGES, &hidden, a[POOLED], a[WEIGHTS], a[HEAD], a[HIDDEN]));
  MUST(ops->linear_forward(IMAGES, &head, a[HIDDEN], a[HEAD], a[WEIGHTS], a[PREDICTED]));
  MUST(ops->linear_backward_weights(IMAGES, &head, a[HIDDEN], a[PREDICTED], a[GRADIENTS], NULL));
  MUST(ops->linear_backward_data(IMAGES, &head, a[PREDICTED], a[HEAD], a[GRAD_MORE]));
  MUST(ops->linear_backward_data(IMAGES, &hidden, a[GRAD_MORE], a[WEIGHTS], a[POOLED]));
  MUST(ops->norm_backward_sums(PLACES, OUT, a[GRAD], NULL, a[FEATURES], a[NORMED], mean, square, a[GRAD_MORE], sums));
  MUST(ops->conv_backward_weights(step->conv, &step->workspace, IMAGES, a[INPUT], a[GRAD_MORE], a[GRADIENTS], NULL));
  MUST(ops->conv_backward_data(step->conv, &step->workspace, IMAGES, a[GRAD_MORE], a[FILTERS], a[INPUT]));
  MUST(ops->adam(OUT * IN * 9, step->adam, NULL, a[FILTERS], a[GRADIENTS], a[MOMENT1], a[MOMENT2]));
}

/* Two steps, the second as it comes or as a graph: all arrays, one after the other. */
static float *two_steps(struct step *step, bool recorded) {
  float *results = malloc(ARRAYS * ROOM * sizeof *results);
  step_begin(step);
  queue_step(step);
  MUST(device_wait(step->device));
  size_t bytes = device_bytes(step->device), host = memory_in_use();
  struct graph *graph = NULL;
  if (recorded)
    MUST(graph_begin(device_main(step->device)));
  queue_step(step);
  if (recorded) {
    MUST(graph_end(device_main(step->device), &graph));
    MUST(graph_launch(graph, device_main(step->device)));
  }
  cr_assert(eq(sz, device_bytes(step->device), bytes));
  cr_assert(recorded || memory_in_use() == host, "the host's memory grew");
  for (int i = 0; i < ARRAYS; i++)
    MUST(device_copy(step->device, results + i * ROOM, step->arrays[i], ROOM * sizeof *results));
  MUST(device_wait(step->device));
  graph_destroy(&graph);
  step_end(step);
  return results;
}

Test(device_ops, shapes_that_were_met_allocate_nothing_and_can_be_recorded) {
  struct step step = {NULL};
  if (!gpu_use())
    cr_skip("there is no emulated CUDA library");
  MUST(device_open(0, &step.device));
  for (enum precision precision = PRECISION_F32; precision <= PRECISION_BF16; precision++) {
    MUST(ops_open(step.device, precision, &step.ops));
    float *plain = two_steps(&step, false), *recorded = two_steps(&step, true);
    for (int i = 0; i < ARRAYS; i++)
      cr_assert(zero(int, memcmp(plain + i * ROOM, recorded + i * ROOM, ROOM * sizeof *plain)), "%s, array %d",
                precision_name(precision), i);
    free(plain);
    free(recorded);
  }
  device_close(&step.device);
}
