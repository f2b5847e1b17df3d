/* Training steps of networks with batch norm: N ranks equal one rank, passes, micro-batches, running statistics.
 *
 *   rank_image_net [case]   all cases, or one; ends non-zero and says what was wrong
 *
 * Rank 0 also runs the step alone (MPI_COMM_SELF) on the whole batch, and compares. */
#include "dist/memory.h"
#include "dist/random.h"
#include "launch/gradients.h"
#include "model/cnn.h"
#include "model/layer.h"
#include "model/mlp.h"
#include "model/optim.h"
#include "model/resnet.h"

#include "tests/rank_record.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MLP_INPUTS 12
#define RECONSTRUCT 0.7

enum kind { KIND_MLP, KIND_CNN, KIND_RESNET18, KIND_DECODER };

struct setting {
  enum kind kind;
  enum dtype dtype;
  int64_t samples; /* of the global batch; one step is the whole epoch */
  int views;
  bool conr, shared; /* batch norm over all ranks */
  int64_t micro_batch;
  int64_t side; /* pixels, of all but KIND_MLP */
};

/* One way to run a setting: on all ranks, or alone. */
struct side {
  const struct setting *setting;
  struct comm *comm;
  struct sampler sampler;
  struct net *net;
  struct objective *objective;
  struct optim *optim;
  struct buckets *buckets;
  struct gradients *gradients;
  struct batch batch;
};

/* Distributions, and images of 16 made out of draws from them. */
static enum status make_decoder(const struct ops *ops, const struct image_spec *images, int64_t capacity,
                                struct net **out) {
  static const struct mirror mirror = {.stages = 2, .blocks = {2, 1}, .planes = 2, .side = 2};
  int variance;
  TRY(image_net_begin(ops, images, capacity, out));
  TRY(net_add_conv(*out, "stem", 8, 8, 8, 0, true));
  TRY(resnet_add_last_block(*out, "last", true, 2, &variance));
  return image_net_end(*out, images, variance, &mirror);
}

static void make_net(struct side *side, const struct ops *ops, int64_t capacity) {
  struct image_spec images = {.height = side->setting->side,
                              .width = side->setting->side,
                              .pixels = true,
                              .mean = {.5, .5, .5},
                              .std = {.5, .5, .5},
                              .outputs = 1};
  struct mlp_spec mlp = {.inputs = MLP_INPUTS,
                         .hidden_count = 2,
                         .hidden = (int64_t[]){16, 8},
                         .activation = ACTIVATION_TANH,
                         .dropout = 0.3,
                         .outputs = 1};
  images.probabilistic = images.reconstructs = side->setting->kind == KIND_DECODER;
  if (side->setting->kind == KIND_DECODER)
    MUST(make_decoder(ops, &images, capacity, &side->net));
  else if (side->setting->kind == KIND_RESNET18)
    MUST(resnet_create(ops, 18, &images, capacity, &side->net));
  else if (side->setting->kind == KIND_CNN)
    MUST(cnn_create(ops, &images, capacity, &side->net));
  else
    MUST(mlp_create(ops, &mlp, capacity, &side->net));
  MUST(net_initialise(side->net, 5));
}

static void make_objective(struct side *side, MPI_Comm mpi, const struct ops *ops) {
  struct objective_options options = {
      .regression = regression_default(REGRESSION_L1), .conr = side->setting->conr, .conr_beta = 0.5};
  conr_options_default(&options.conr_options);
  options.conr_options.t = 0.2;
  MUST(objective_create(mpi, NULL, ops, &options, (int)net_mean_width(side->net), 1, &side->objective));
}

/* The rows of this rank; what a sample shows depends on its number and the view alone. */
static void make_batch(struct side *side, enum dtype dtype) {
  struct batch *batch = &side->batch;
  struct shard shard = sampler_shard(&side->sampler, 0);
  int64_t rows = shard.rows * side->setting->views, width = net_input_width(side->net);
  *batch = (struct batch){.rows = shard.rows, .rows_global = side->sampler.batch, .views = side->setting->views};
  bool pixels = net_input(side->net).pixels;
  batch->inputs = malloc((size_t)(rows * width + 1) * sizeof(double));
  batch->targets = malloc((size_t)(rows + 1) * sizeof(double));
  batch->weights = malloc((size_t)(rows + 1) * sizeof(double));
  batch->samples = malloc((size_t)(rows + 1) * sizeof(int64_t));
  struct random_key key = random_key(3, RANDOM_TEST, 0);
  for (int64_t row = 0; row < rows; row++) {
    int64_t sample = shard.first + row % shard.rows, view = row / shard.rows;
    double label = (double)(sample % 5) * 0.9;
    batch->samples[row] = sample;
    for (int64_t i = 0; i < width; i++) {
      double value = random_uniform(key, (uint64_t)(sample * 4 + view), (uint64_t)i) * (0.5 + 0.1 * label);
      if (pixels)
        ((uint8_t *)batch->inputs)[row * width + i] = (uint8_t)(255 * value);
      else if (dtype == F32)
        ((float *)batch->inputs)[row * width + i] = (float)value;
      else
        ((double *)batch->inputs)[row * width + i] = value;
    }
    for (int which = 0; which < 2; which++) {
      void *out = which == 0 ? batch->targets : batch->weights;
      double value = which == 0 ? label : 1;
      if (dtype == F32)
        ((float *)out)[row] = (float)value;
      else
        ((double *)out)[row] = value;
    }
  }
}

static void begin(struct side *side, const struct setting *setting, MPI_Comm mpi) {
  const struct ops *ops = ops_host(setting->dtype);
  struct optim_spec spec = optim_defaults(OPTIM_SGD);
  *side = (struct side){.setting = setting};
  MUST(comm_create(mpi, &side->comm));
  side->sampler = (struct sampler){.rows = setting->samples,
                                   .batch = setting->samples,
                                   .rank = comm_rank(side->comm),
                                   .size = comm_size(side->comm)};
  make_net(side, ops, gradients_capacity(&side->sampler, setting->views, setting->micro_batch));
  if (setting->shared)
    net_synchronise(side->net, side->comm);
  MUST(gradients_buckets(side->comm, side->net, 1 << 18, &side->buckets));
  make_objective(side, mpi, ops);
  MUST(optim_create(ops, &spec, net_parameters(side->net).elements, &side->optim));
  make_batch(side, setting->dtype);
  struct gradients_parts parts = {.comm = side->comm,
                                  .data = side->comm,
                                  .net = side->net,
                                  .objective = side->objective,
                                  .buckets = side->buckets,
                                  .sampler = &side->sampler,
                                  .views = setting->views,
                                  .micro_batch = setting->micro_batch,
                                  .seed = 9,
                                  .reconstruct = setting->kind == KIND_DECODER ? RECONSTRUCT : 0,
                                  .table = setting->kind == KIND_MLP};
  MUST(gradients_create(&parts, &side->gradients));
}

static void end(struct side *side) {
  free(side->batch.samples);
  free(side->batch.weights);
  free(side->batch.targets);
  free(side->batch.inputs);
  gradients_destroy(&side->gradients);
  optim_destroy(&side->optim);
  objective_destroy(&side->objective);
  buckets_destroy(&side->buckets);
  net_destroy(&side->net);
  comm_destroy(&side->comm);
}

/* One update; the loss of the global batch. */
static double step(struct side *side, double lr) {
  struct gradients_value value;
  struct parameters own = net_parameters(side->net);
  MUST(gradients_begin(side->gradients, &side->batch));
  EXPECT_OK(gradients_compute(side->gradients));
  MUST(gradients_end(side->gradients));
  MUST(gradients_finish(side->gradients, &value));
  EXPECT(value.nonfinite == NULL, "%s is not finite", value.nonfinite);
  double loss = value.regression + RECONSTRUCT * value.reconstruction;
  MUST(comm_sum(side->comm, F64, &loss, 1));
  MUST(optim_step(side->optim, own.data, own.gradients, lr, NULL));
  return loss + 0.5 * value.conr;
}

static double number(enum dtype dtype, const void *data, size_t i) {
  return dtype == F32 ? (double)((const float *)data)[i] : ((const double *)data)[i];
}

/* Largest difference over the largest value. */
static double difference(enum dtype dtype, size_t count, const void *a, const void *b) {
  double apart = 0, largest = 0;
  for (size_t i = 0; i < count; i++) {
    apart = fmax(apart, fabs(number(dtype, a, i) - number(dtype, b, i)));
    largest = fmax(largest, fabs(number(dtype, b, i)));
  }
  return largest > 0 ? apart / largest : apart;
}

/* Parameters and running statistics have the same bits on all ranks. */
static void expect_same_everywhere(const struct side *side, int step_number) {
  const struct parameters kinds[] = {net_parameters(side->net), net_buffers(side->net)};
  for (int i = 0; i < 2; i++) {
    size_t bytes = kinds[i].elements * dtype_size(side->setting->dtype);
    void *first = malloc(bytes);
    memcpy(first, kinds[i].data, bytes);
    MUST(comm_broadcast(side->comm, first, bytes, 0));
    EXPECT(memcmp(first, kinds[i].data, bytes) == 0, "step %d: %s are not those of rank 0", step_number,
           i == 0 ? "parameters" : "running statistics");
    free(first);
  }
}

/* All ranks together against rank 0 alone, after a step with these losses. */
static void expect_equal(const struct side *all, const struct side *alone, double joint, double single, int step_number,
                         double tolerance) {
  enum dtype dtype = all->setting->dtype;
  struct parameters a = net_parameters(all->net), b = net_parameters(alone->net);
  struct parameters c = net_buffers(all->net), d = net_buffers(alone->net);
  double losses = fabs(joint - single) / fabs(single);
  double gradients = difference(dtype, a.elements, a.gradients, b.gradients);
  double parameters = difference(dtype, a.elements, a.data, b.data);
  double buffers = difference(dtype, c.elements, c.data, d.data);
  if (getenv("RANK_IMAGE_NET_PRINT") != NULL)
    printf("step %d: loss %.3g, off by %.2g; gradients %.2g, parameters %.2g, statistics %.2g\n", step_number, single,
           losses, gradients, parameters, buffers);
  EXPECT(losses <= tolerance, "step %d: loss %.12g, but %.12g alone", step_number, joint, single);
  EXPECT(dtype == F32 || gradients <= tolerance, "step %d: gradients differ by %g", step_number, gradients);
  EXPECT(parameters <= tolerance, "step %d: parameters differ by %g", step_number, parameters);
  EXPECT(buffers <= tolerance, "step %d: running statistics differ by %g", step_number, buffers);
}

static void compare(const struct setting *setting, int steps, double lr, double tolerance) {
  struct side all, alone;
  bool first = record.rank == 0;
  begin(&all, setting, MPI_COMM_WORLD);
  if (first)
    begin(&alone, setting, MPI_COMM_SELF);
  for (int i = 0; i < steps; i++) {
    double joint = step(&all, lr);
    if (first)
      expect_equal(&all, &alone, joint, step(&alone, lr), i, tolerance);
    expect_same_everywhere(&all, i);
  }
  if (first)
    end(&alone);
  end(&all);
}

static void case_equal_f64(void) {
  static const int64_t samples[] = {7, 3};
  for (size_t i = 0; i < 2; i++) {
    compare(&(struct setting){KIND_CNN, F64, samples[i], 2, true, true, 0, 32}, 3, 0.01, 1e-10);
    compare(&(struct setting){KIND_CNN, F64, samples[i], 1, false, true, 0, 32}, 3, 0.01, 1e-10);
    compare(&(struct setting){KIND_CNN, F64, samples[i], 3, true, true, 0, 32}, 3, 0.01, 1e-10);
  }
}

/* Its error is over all pixels of all ranks; ConR sees the means. */
static void case_reconstruction(void) {
  static const int64_t samples[] = {7, 3};
  for (size_t i = 0; i < 2; i++)
    for (int views = 1; views <= 3; views++)
      compare(&(struct setting){KIND_DECODER, F64, samples[i], views, views > 1, true, 0, 16}, 3, 0.01, 1e-10);
}

/* In float32 a relu whose input is within rounding of 0 now and then decides otherwise, which changes gradients by a
 * percent: exactness of gradients is shown in float64, float32 shows that five steps stay together. */
static void case_resnet18(void) {
  compare(&(struct setting){KIND_RESNET18, F64, 5, 1, true, true, 0, 32}, 1, 0.01, 1e-10);
  compare(&(struct setting){KIND_RESNET18, F32, 14, 1, false, true, 0, 64}, 5, 5e-5, 1e-5);
}

/* Without batch norm, pieces are as good as the whole; dropout draws the same in both rounds. */
static void case_micro_batch_is_exact_without_batch_norm(void) {
  for (int views = 1; views <= 3; views++) {
    for (int conr = views == 3; conr < 2; conr++) {
      struct setting pieces = {KIND_MLP, F64, 11, views, conr, false, 2, 0}, whole = pieces;
      struct side cut, alone;
      whole.micro_batch = 0;
      begin(&cut, &pieces, MPI_COMM_WORLD);
      begin(&alone, &whole, MPI_COMM_SELF);
      double joint = step(&cut, 0.01), single = step(&alone, 0.01);
      struct parameters a = net_parameters(cut.net), b = net_parameters(alone.net);
      double off = difference(F64, a.elements, a.gradients, b.gradients);
      EXPECT(fabs(joint - single) <= 1e-12 * fabs(single), "%d views: loss %.15g, but %.15g whole", views, joint,
             single);
      EXPECT(off <= 1e-12, "%d views, conr %d: gradients differ by %g", views, conr, off);
      end(&alone);
      end(&cut);
    }
  }
}

/* The first batch norm sees the same rows however they are cut and shared: its running statistics must not care. */
static void case_running_statistics_of_pieces_and_of_ranks(void) {
  struct setting pieces = {KIND_CNN, F64, 9, 2, true, true, 2, 32}, own = pieces, whole = pieces;
  own.shared = false;
  whole.micro_batch = 0;
  struct side cut, apart, alone;
  begin(&cut, &pieces, MPI_COMM_WORLD);
  begin(&apart, &own, MPI_COMM_WORLD);
  begin(&alone, &whole, MPI_COMM_SELF);
  step(&cut, 0.01);
  step(&apart, 0.01);
  step(&alone, 0.01);
  struct parameters a = net_buffers(cut.net), b = net_buffers(apart.net), c = net_buffers(alone.net);
  size_t first = c.list[2].offset; /* running mean and variance of bn1 */
  EXPECT(difference(F64, first, a.data, c.data) <= 1e-12, "pieces: bn1 off by %g",
         difference(F64, first, a.data, c.data));
  EXPECT(difference(F64, first, b.data, c.data) <= 1e-12, "ranks: bn1 off by %g",
         difference(F64, first, b.data, c.data));
  double *everywhere = malloc(b.elements * sizeof *everywhere);
  memcpy(everywhere, b.data, b.elements * sizeof *everywhere);
  MUST(comm_broadcast(apart.comm, everywhere, b.elements * sizeof *everywhere, 0));
  EXPECT(memcmp(everywhere, b.data, b.elements * sizeof *everywhere) == 0,
         "running statistics are not the same on all ranks");
  free(everywhere);
  end(&alone);
  end(&apart);
  end(&cut);
}

/* Three views: the two of ConR first, then the third, each with its step of the running statistics. */
static void case_published_order_of_batch_norm(void) {
  struct setting setting = {KIND_CNN, F64, 6, 3, true, false, 0, 32};
  struct side recipe, manual;
  begin(&recipe, &setting, MPI_COMM_SELF);
  begin(&manual, &setting, MPI_COMM_SELF);
  int64_t width = net_input_width(manual.net);
  struct pass pass = {.training = true, .views = 2};
  step(&recipe, 0);
  MUST(net_forward(manual.net, manual.batch.inputs, 12, &pass));
  MUST(net_update_statistics(manual.net, NULL));
  pass.views = 1;
  MUST(net_forward(manual.net, (uint8_t *)manual.batch.inputs + 12 * width, 6, &pass));
  MUST(net_update_statistics(manual.net, NULL));
  struct parameters a = net_buffers(recipe.net), b = net_buffers(manual.net);
  EXPECT(memcmp(a.data, b.data, a.elements * sizeof(double)) == 0, "running statistics are off by %g",
         difference(F64, a.elements, a.data, b.data));
  end(&manual);
  end(&recipe);
}

/* The same step again gives the same bits. */
static void case_repeatable(void) {
  struct setting setting = {KIND_CNN, F32, 7, 2, true, true, 0, 32};
  struct side first, second;
  begin(&first, &setting, MPI_COMM_WORLD);
  begin(&second, &setting, MPI_COMM_WORLD);
  for (int i = 0; i < 3; i++) {
    step(&first, 0.01);
    step(&second, 0.01);
  }
  struct parameters a = net_parameters(first.net), b = net_parameters(second.net);
  EXPECT(memcmp(a.data, b.data, a.elements * sizeof(float)) == 0, "parameters differ");
  end(&second);
  end(&first);
}

/* ---- overlap: counted, not timed ---- */

/* MPI as the program sees it: gathers in flight and how they end.  A test of one is made to wait for it, as on a
 * network that is fast enough, and whose other ranks have come as far: so what a push can bring along, it brings. */
enum { MOST_GATHERS = 64 };

static struct {
  bool counting;
  int starts, ended_by_test, ended_by_wait;
  int arrived[MOST_GATHERS]; /* when each gather started: how many had ended by then */
  MPI_Request request[MOST_GATHERS];
} seen;

static int index_of(MPI_Request request) {
  for (int i = 0; seen.counting && request != MPI_REQUEST_NULL && i < seen.starts; i++)
    if (seen.request[i] == request)
      return i;
  return -1;
}

int MPI_Iallgatherv(const void *own, int count, MPI_Datatype type, void *all, const int counts[], const int offsets[],
                    MPI_Datatype all_type, MPI_Comm comm, MPI_Request *request) {
  int code = PMPI_Iallgatherv(own, count, type, all, counts, offsets, all_type, comm, request);
  if (seen.counting && seen.starts < MOST_GATHERS) {
    seen.arrived[seen.starts] = seen.ended_by_test;
    seen.request[seen.starts++] = *request;
  }
  return code;
}

int MPI_Test(MPI_Request *request, int *flag, MPI_Status *status) {
  int index = index_of(*request);
  if (index < 0)
    return PMPI_Test(request, flag, status);
  seen.request[index] = MPI_REQUEST_NULL;
  seen.ended_by_test++;
  *flag = 1;
  return PMPI_Wait(request, status);
}

int MPI_Wait(MPI_Request *request, MPI_Status *status) {
  int index = index_of(*request);
  if (index >= 0) {
    seen.request[index] = MPI_REQUEST_NULL;
    seen.ended_by_wait++;
  }
  return PMPI_Wait(request, status);
}

/* Of a step in pieces, the rows of a piece have arrived before those of the next have gone through the network, the
 * last ones' excepted: there is nothing left to compute. */
static void case_rows_travel_while_the_next_piece_goes_forward(void) {
  for (int views = 1; views <= 3; views++) {
    struct setting setting = {KIND_MLP, F64, 4 * record.size, views, true, false, 1, 0};
    struct side side;
    int stacked = views == 1 ? 1 : 2, pieces = 4;
    begin(&side, &setting, MPI_COMM_WORLD);
    MUST(gradients_begin(side.gradients, &side.batch));
    memset(&seen, 0, sizeof seen);
    seen.counting = true;
    EXPECT_OK(gradients_compute(side.gradients));
    seen.counting = false;
    EXPECT(seen.starts == pieces * stacked, "%d views: %d gathers, not %d", views, seen.starts, pieces * stacked);
    for (int i = 0; i < seen.starts; i++)
      EXPECT(seen.arrived[i] == i / stacked * stacked, "%d views: %d gathers have ended when number %d starts", views,
             seen.arrived[i], i);
    EXPECT(seen.ended_by_wait == stacked, "%d views: %d gathers were waited for", views, seen.ended_by_wait);
    end(&side);
  }
}

static const struct {
  const char *name;
  void (*run)(void);
} cases[] = {{"equal_f64", case_equal_f64},
             {"resnet18", case_resnet18},
             {"reconstruction", case_reconstruction},
             {"micro_batch", case_micro_batch_is_exact_without_batch_norm},
             {"statistics", case_running_statistics_of_pieces_and_of_ranks},
             {"overlap", case_rows_travel_while_the_next_piece_goes_forward},
             {"order", case_published_order_of_batch_norm},
             {"repeatable", case_repeatable}};

int main(int argc, char **argv) {
  bool ran = false;
  rank_record_begin(&argc, &argv);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    if (argc > 1 && strcmp(argv[1], cases[i].name) != 0)
      continue;
    record.name = cases[i].name;
    cases[i].run();
    ran = true;
  }
  EXPECT(ran, "there is no case %s", argc > 1 ? argv[1] : "");
  EXPECT(memory_in_use() == 0, "%zu bytes are left", memory_in_use());
  return rank_record_end();
}
