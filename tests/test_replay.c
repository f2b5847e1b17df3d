/* Work that is kept and launched (dist/replay.h): the same bits as without, on the emulated CUDA backend
 * (tests/emulate), which keeps what is queued between the begin and the end of a graph, does it at each launch, and
 * refuses to keep what CUDA cannot keep: allocations, waits of the host. */
#include "dist/host_copy.h"
#include "dist/memory.h"
#include "dist/replay.h"
#include "model/cnn.h"
#include "model/mlp.h"
#include "model/net.h"
#include "model/optim.h"
#include "tests/device_support.h"
#include "tests/emulated.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>
#include <string.h>

/* --- what is kept --------------------------------------------------------------------------------------------- */

/* y += x, a call that makes x ten times as large, y += x; and what the host saw. */
struct sums {
  struct device *device;
  add_function *add;
  float *x, *y;
  float host;
  bool calls;
  int worked, called, noted;
};

static struct sums open_sums(void) {
  struct sums sums = {.device = device_emulated(), .calls = true, .host = 1};
  sums.add = (add_function *)device_test_function(sums.device, "emulated_test_add");
  sums.x = device_floats(sums.device, 1);
  sums.y = device_floats(sums.device, 1);
  MUST(device_copy(sums.device, sums.x, &sums.host, sizeof sums.host));
  MUST(device_zero(sums.device, sums.y, sizeof *sums.y));
  return sums;
}

static void close_sums(struct sums *sums) {
  device_free(sums->device, (void **)&sums->y);
  device_free(sums->device, (void **)&sums->x);
  device_close_empty(&sums->device);
}

/* Another number each time, and a wait of the host: no graph could keep that. */
static enum status call(const void *arguments) {
  struct sums *sums = *(struct sums *const *)arguments;
  cr_expect(not(replay_records(sums->device)));
  sums->host = 10 * (float)++sums->called;
  TRY(device_copy(sums->device, sums->x, &sums->host, sizeof sums->host));
  return device_wait(sums->device);
}

static enum status note(const void *arguments) {
  (*(struct sums *const *)arguments)->noted++;
  return STATUS_OK;
}

static enum status queue_sums(void *context) {
  struct sums *sums = context;
  sums->worked++;
  TRY(sums->add(device_main(sums->device), 1, 1, sums->x, sums->y));
  TRY(replay_note(sums->device, note, &sums, sizeof sums));
  if (sums->calls) {
    TRY(replay_call(sums->device, call, &sums, sizeof sums));
    TRY(replay_call(sums->device, call, &sums, sizeof sums)); /* nothing between them: no graph */
  }
  return sums->add(device_main(sums->device), 1, 100, sums->x, sums->y);
}

Test(replay, calls_are_made_between_graphs_at_each_launch) {
  struct sums sums = open_sums();
  struct replays *replays;
  int key = 0;
  float x = 1, wanted = 0;
  MUST(replays_create(sums.device, &replays));
  for (int time = 0; time < 5; time++) {
    cr_expect(eq(int, replay_is_kept(replays, &key, sizeof key), time >= 2));
    MUST(replay_run(replays, &key, sizeof key, queue_sums, &sums));
    cr_expect(eq(int, sums.called, 2 * (time + 1)));
    wanted += x;
    x = 10 * (float)sums.called;
    wanted += 100 * x;
    cr_expect(eq(flt, device_float(sums.device, sums.y), wanted), "time %d", time);
    cr_expect(eq(int, sums.worked, time == 0 ? 1 : 2));
    cr_expect(eq(int, sums.noted, time == 0 ? 1 : time + 2), "now, and at each launch");
    cr_expect(eq(i64, replays_launches(replays), 2 * time));
  }
  replays_destroy(&replays);
  close_sums(&sums);
}

Test(replay, without_calls_it_is_one_graph_for_each_key) {
  struct sums sums = open_sums();
  struct replays *replays;
  sums.calls = false;
  MUST(replays_create(sums.device, &replays));
  for (int time = 0; time < 8; time++) {
    int key = time % 2;
    MUST(replay_run(replays, &key, sizeof key, queue_sums, &sums));
    cr_expect(eq(i64, replays_launches(replays), time < 2 ? 0 : time - 1));
    cr_expect(eq(flt, device_float(sums.device, sums.y), 101 * (float)(time + 1)));
  }
  cr_expect(eq(int, sums.worked, 4));
  replays_destroy(&replays);
  close_sums(&sums);
}

/* More keys than are remembered, none at all, and work within work: all is done as it comes. */
static enum status run_within(void *context) {
  struct replays *replays = *(struct replays **)context;
  struct sums *sums = ((void **)context)[1];
  return replay_run(replays, "inner", 5, queue_sums, sums);
}

Test(replay, what_is_not_kept_is_done) {
  struct sums sums = open_sums();
  struct replays *replays;
  float wanted = 0;
  sums.calls = false;
  MUST(replays_create(sums.device, &replays));
  void *both[] = {replays, &sums};
  for (int time = 0; time < 4; time++, wanted += 202) {
    MUST(replay_run(NULL, "none", 4, queue_sums, &sums));
    MUST(replay_run(replays, "outer", 5, run_within, both));
  }
  cr_expect(eq(flt, device_float(sums.device, sums.y), wanted));
  cr_expect(eq(i64, replays_launches(replays), 3), "the outer one alone");
  for (int round = 0; round < 3; round++)
    for (int key = 0; key < 70; key++, wanted += 101)
      MUST(replay_run(replays, &key, sizeof key, queue_sums, &sums));
  cr_expect(eq(flt, device_float(sums.device, sums.y), wanted));
  cr_expect(eq(i64, replays_launches(replays), 3 + 2 * 62)); /* 64 with those before */
  replays_destroy(&replays);
  close_sums(&sums);
}

/* Memory that was freed may have been the graph's, so it is not launched any more. */
Test(replay, what_was_kept_is_forgotten_where_memory_was_freed) {
  struct sums sums = open_sums();
  struct replays *replays;
  void *block;
  sums.calls = false;
  MUST(replays_create(sums.device, &replays));
  for (int pinned = 0; pinned < 2; pinned++) {
    for (int time = 0; time < 3; time++)
      MUST(replay_run(replays, "key", 3, queue_sums, &sums));
    cr_expect(replay_is_kept(replays, "key", 3));
    if (pinned) {
      MUST(device_alloc_pinned(sums.device, 8, &block));
      device_free_pinned(sums.device, &block);
    } else {
      MUST(device_alloc(sums.device, 8, &block));
      device_free(sums.device, &block);
    }
    int64_t launches = replays_launches(replays);
    cr_expect(not(replay_is_kept(replays, "key", 3)));
    MUST(replay_run(replays, "key", 3, queue_sums, &sums));
    cr_expect(eq(i64, replays_launches(replays), launches), "the first time again");
  }
  cr_expect(eq(flt, device_float(sums.device, sums.y), 8 * 101));
  replays_destroy(&replays);
  close_sums(&sums);
}

/* --- what fails ----------------------------------------------------------------------------------------------- */

static enum status fails_after_a_sum(void *context) {
  struct sums *sums = context;
  TRY(queue_sums(sums));
  return fail(ERR_COMM, "a rank is gone");
}

static enum status allocates(void *context) {
  struct sums *sums = context;
  void *block;
  TRY(queue_sums(sums));
  TRY(device_alloc(sums->device, 8, &block));
  device_free(sums->device, &block);
  return STATUS_OK;
}

/* The sentence is that of the operation, nothing was done, and the stream works on. */
Test(replay, work_that_cannot_be_kept_is_not_begun) {
  struct sums sums = open_sums();
  struct replays *replays;
  MUST(replays_create(sums.device, &replays));
  MUST(replay_run(replays, "a", 1, queue_sums, &sums));
  MUST(replay_run(replays, "b", 1, queue_sums, &sums));
  float before = device_float(sums.device, sums.y);
  int called = sums.called;
  for (int time = 0; time < 2; time++) {
    REFUSED(replay_run(replays, "a", 1, fails_after_a_sum, &sums), ERR_COMM, "a rank is gone");
    REFUSED(replay_keep(replays, "b", 1, allocates, &sums), ERR_DEVICE, "not permitted when stream is capturing");
    cr_expect(not(replay_records(sums.device)));
    cr_expect(eq(int, sums.called, called));
    cr_expect(eq(flt, device_float(sums.device, sums.y), before));
  }
  for (int time = 0; time < 2; time++) {
    MUST(replay_run(replays, "a", 1, queue_sums, &sums));
    cr_expect(device_float(sums.device, sums.y) > before);
    before = device_float(sums.device, sums.y);
  }
  cr_expect(eq(i64, replays_launches(replays), 4));
  replays_destroy(&replays);
  close_sums(&sums);
}

/* --- marks ---------------------------------------------------------------------------------------------------- */

struct marks {
  struct sums *sums;
  struct event *from, *to;
};

static enum status queue_marks(void *context) {
  struct marks *marks = context;
  struct stream *main = device_main(marks->sums->device);
  TRY(event_mark(marks->from, main));
  TRY(queue_sums(marks->sums));
  return event_mark(marks->to, main);
}

/* Reached anew at each launch, and not before its work is done. */
Test(replay, marks_are_within_the_graph) {
  struct sums sums = open_sums();
  struct marks marks = {&sums, NULL, NULL};
  struct replays *replays;
  sums.calls = false;
  MUST(replays_create(sums.device, &replays));
  MUST(event_create(sums.device, &marks.from));
  MUST(event_create(sums.device, &marks.to));
  for (int time = 0; time < 4; time++) {
    bool reached;
    double seconds = -1;
    MUST(replay_run(replays, "key", 3, queue_marks, &marks));
    MUST(event_reached(marks.to, &reached));
    cr_expect(not(reached), "time %d", time);
    MUST(event_wait(marks.to));
    MUST(event_seconds(marks.from, marks.to, &seconds));
    cr_expect(seconds >= 0 && seconds < 10);
  }
  cr_expect(eq(flt, device_float(sums.device, sums.y), 4 * 101));
  replays_destroy(&replays);
  event_destroy(&marks.to);
  event_destroy(&marks.from);
  close_sums(&sums);
}

/* --- networks ------------------------------------------------------------------------------------------------- */

enum { ROWS = 6, SIZE = 16, PIXELS = SIZE * SIZE * 3, STEPS = 8 };

/* A network with its batch, all on the device. */
struct side {
  struct device *device;
  struct net *net;
  struct replays *replays; /* NULL: nothing is kept */
  void *memory[2];         /* for inputs, by turns  */
  void *inputs, *grad_predictions, *grad_features;
};

static void open_side(struct side *side, struct device *device, const struct ops *ops, bool keeps) {
  struct image_spec spec = {
      .height = SIZE, .width = SIZE, .pixels = true, .mean = {.5, .5, .5}, .std = {.5, .5, .5}, .outputs = 1};
  *side = (struct side){.device = device};
  MUST(cnn_create(ops, &spec, ROWS, &side->net));
  MUST(net_initialise(side->net, 3));
  if (keeps)
    MUST(replays_create(device, &side->replays));
  size_t features = (size_t)net_feature_width(side->net);
  for (int i = 0; i < 2; i++)
    MUST(device_alloc(device, ROWS * PIXELS, &side->memory[i]));
  MUST(device_alloc(device, ROWS * sizeof(float), &side->grad_predictions));
  MUST(device_alloc(device, ROWS * features * sizeof(float), &side->grad_features));
}

static void close_side(struct side *side) {
  replays_destroy(&side->replays);
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

static void check_same(const char *what, int step, struct device *device, void *of_a, void *of_b, size_t bytes) {
  struct host_copy copy_a, copy_b;
  MUST(host_copy_create(device, of_a, bytes, &copy_a));
  MUST(host_copy_create(device, of_b, bytes, &copy_b));
  MUST(host_copy_fetch(&copy_a));
  MUST(host_copy_fetch(&copy_b));
  cr_expect(eq(int, memcmp(copy_a.data, copy_b.data, bytes), 0), "%s of step %d", what, step);
  host_copy_destroy(&copy_b);
  host_copy_destroy(&copy_a);
}

struct passes {
  struct side *side;
  int64_t rows;
};

/* Two passes, the second of `rows`, whose gradients are added. */
static enum status train(void *context) {
  const struct passes *passes = context;
  struct side *side = passes->side;
  struct pass first = {.training = true}, second = {.training = true, .accumulate = true};
  TRY(net_forward(side->net, side->inputs, ROWS, &first));
  TRY(net_backward(side->net, side->grad_predictions, side->grad_features, NULL));
  TRY(net_forward(side->net, side->inputs, passes->rows, &second));
  TRY(net_backward(side->net, side->grad_predictions, side->grad_features, NULL));
  return net_update_statistics(side->net, NULL);
}

static void step_side(struct side *side, int step) {
  struct {
    const void *inputs;
    int64_t rows;
  } key;
  struct passes passes = {side, step == 3 ? ROWS / 2 : ROWS};
  fill(side, step);
  key.inputs = side->inputs;
  key.rows = passes.rows;
  if (step == 5) /* between what is kept */
    MUST(net_forward(side->net, side->inputs, ROWS / 2, &(struct pass){.training = false}));
  MUST(replay_run(side->replays, &key, sizeof key, train, &passes));
}

/* Of one batch size; then a smaller one and an evaluation between, which leave what is kept as it is. */
static void same_bits(enum precision precision) {
  struct device *device = device_emulated();
  const struct ops *ops;
  struct side sides[2];
  MUST(ops_open(device, precision, &ops));
  open_side(&sides[0], device, ops, true);
  open_side(&sides[1], device, ops, false);
  struct parameters own[2] = {net_parameters(sides[0].net), net_parameters(sides[1].net)};
  struct parameters kept[2] = {net_buffers(sides[0].net), net_buffers(sides[1].net)};
  for (int step = 0; step < STEPS; step++) {
    step_side(&sides[0], step);
    step_side(&sides[1], step);
    check_same("gradient", step, device, own[0].gradients, own[1].gradients, own[0].elements * sizeof(float));
    check_same("running statistics", step, device, kept[0].data, kept[1].data, kept[0].elements * sizeof(float));
    check_same("predictions", step, device, (void *)net_predictions(sides[0].net),
               (void *)net_predictions(sides[1].net), (size_t)(step == 3 ? ROWS / 2 : ROWS) * sizeof(float));
  }
  cr_expect(eq(i64, replays_launches(sides[0].replays), STEPS - 3)); /* all but the first of three keys */
  close_side(&sides[1]);
  close_side(&sides[0]);
  device_close(&device);
  cr_assert(eq(sz, memory_in_use(), 0));
}

Test(replay, passes_in_float32_have_the_same_bits) {
  same_bits(PRECISION_F32);
}

Test(replay, passes_in_bf16_have_the_same_bits) {
  same_bits(PRECISION_BF16);
}

/* --- what changes from step to step --------------------------------------------------------------------------- */

/* A step with dropout, of another epoch and by another learning rate each time. */
struct dropping {
  struct net *net;
  struct optim *optim;
  struct device *device;
  void *inputs, *gradient;
  int64_t *samples, *epoch;
};

static enum status queue_dropping(void *context) {
  struct dropping *own = context;
  struct parameters parameters = net_parameters(own->net);
  struct pass pass = {.training = true, .samples = own->samples, .epoch = own->epoch};
  TRY(net_forward(own->net, own->inputs, ROWS, &pass));
  TRY(net_backward(own->net, own->gradient, NULL, NULL));
  return optim_update(own->optim, parameters.data, parameters.gradients, NULL);
}

static void train_dropping(struct device *device, enum optim_kind kind, bool keeps, uint32_t *out, size_t count) {
  const int64_t hidden[] = {8}, samples[ROWS] = {0, 1, 2, 3, 4, 5};
  struct mlp_spec spec = {.inputs = 4, .hidden = hidden, .hidden_count = 1, .dropout = 0.5, .outputs = 1};
  struct optim_spec optim = optim_defaults(kind);
  struct dropping own = {.device = device};
  struct replays *replays = NULL;
  const struct ops *ops;
  float ones[ROWS * 4];
  for (int i = 0; i < ROWS * 4; i++)
    ones[i] = 1;
  MUST(ops_open(device, PRECISION_F32, &ops));
  MUST(mlp_create(ops, &spec, ROWS, &own.net));
  MUST(net_initialise(own.net, 0));
  size_t elements = net_parameters(own.net).elements;
  cr_assert(le(sz, elements, count));
  MUST(optim_create(ops, &optim, elements, &own.optim));
  MUST(device_alloc(device, sizeof ones, &own.inputs));
  MUST(device_alloc(device, sizeof ones, &own.gradient));
  MUST(device_alloc(device, sizeof samples, (void **)&own.samples));
  MUST(device_alloc(device, sizeof *own.epoch, (void **)&own.epoch));
  MUST(device_copy(device, own.inputs, ones, sizeof ones));
  MUST(device_copy(device, own.gradient, ones, sizeof ones));
  MUST(device_copy(device, own.samples, samples, sizeof samples));
  if (keeps)
    MUST(replays_create(device, &replays));
  for (int64_t step = 0; step < STEPS; step++) { /* the host does not wait between them */
    int64_t epoch = step / 2;
    MUST(device_copy(device, own.epoch, &epoch, sizeof epoch));
    MUST(optim_begin(own.optim, 0.1 / (1 + (double)step)));
    MUST(replay_run(replays, "step", 4, queue_dropping, &own));
  }
  MUST(device_copy(device, out, net_parameters(own.net).data, elements * sizeof *out));
  MUST(device_wait(device));
  cr_expect(eq(i64, replays_launches(replays), keeps ? STEPS - 1 : 0));
  replays_destroy(&replays);
  device_free(device, (void **)&own.epoch);
  device_free(device, (void **)&own.samples);
  device_free(device, &own.gradient);
  device_free(device, &own.inputs);
  optim_destroy(&own.optim);
  net_destroy(&own.net);
}

Test(replay, learning_rates_and_draws_are_those_of_their_step) {
  struct device *device = device_emulated();
  for (enum optim_kind kind = OPTIM_ADAM; kind <= OPTIM_SGD; kind++) {
    uint32_t plain[128] = {0}, kept[128] = {0}; /* the bits of floats */
    train_dropping(device, kind, false, plain, 128);
    train_dropping(device, kind, true, kept, 128);
    cr_expect(eq(int, memcmp(plain, kept, sizeof plain), 0), "optimiser %d", (int)kind);
  }
  device_close(&device);
  cr_assert(eq(sz, memory_in_use(), 0));
}
