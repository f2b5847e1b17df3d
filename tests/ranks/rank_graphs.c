/* A training whose steps are launched as graphs has the bits of one whose steps are queued, step by step.
 *
 *   rank_graphs DATA.h5 FOLDER LAUNCHES [more options of conr train]
 *
 * The ranks train twice, with --graphs off and --graphs on; losses, gradients and parameters of every step must agree.
 * A step that is launched must be LAUNCHES graphs (0 = not checked), and half of the steps at least must be; its time
 * must be found in the phases it was spent in. */
#include "dist/host_copy.h"
#include "dist/memory.h"
#include "launch/train.h"
#include "tests/rank_record.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_STEPS 64

struct run {
  int64_t launches, wanted; /* so far; of a step */
  int steps, launched;
  size_t bytes;                     /* of parameters and gradients */
  double least_gather, most_gather; /* seconds that launched steps waited for ConR's rows */
  struct train_step step[MOST_STEPS];
  char *numbers; /* [MOST_STEPS, 2, bytes] */
};

static void copy(char *to, struct device *device, void *block, size_t bytes) {
  struct host_copy from;
  MUST(host_copy_create(device, block, bytes, &from));
  MUST(host_copy_fetch(&from));
  memcpy(to, from.data, bytes);
  host_copy_destroy(&from);
}

static void observe(void *context, const struct trainer *trainer, const struct train_step *step) {
  struct run *run = context;
  struct parameters own = net_parameters(trainer->net);
  int64_t launches = step_graphs_launches(trainer->graphs) - run->launches;
  run->launches += launches;
  run->launched += launches > 0;
  EXPECT(launches == 0 || run->wanted == 0 || launches == run->wanted, "step %d is %lld graphs, not %lld", run->steps,
         (long long)launches, (long long)run->wanted);
  struct gradients_seconds time = gradients_seconds(trainer->gradients, true);
  const double *seconds = time.phase, gather = time.gather;
  for (int phase = 0; phase < STEP_PHASES; phase++)
    EXPECT(seconds[phase] >= 0 && seconds[phase] < 60, "step %d: %g s of %s", run->steps, seconds[phase],
           step_phase_name(phase));
  EXPECT(gather >= 0 && gather <= seconds[PHASE_LOSS] + 1e-5, "step %d waits %g s for rows in %g s of losses",
         run->steps, gather, seconds[PHASE_LOSS]);
  if (launches > 0) {
    run->least_gather = run->launched == 1 ? gather : fmin(run->least_gather, gather);
    run->most_gather = fmax(run->most_gather, gather);
  }
  EXPECT(seconds[PHASE_FORWARD] > 0 && seconds[PHASE_BACKWARD] > 0, "step %d took no time", run->steps);
  MUST_HOLD(run->steps < MOST_STEPS);
  if (run->numbers == NULL) {
    run->bytes = own.elements * dtype_size(trainer->ops->parameter_dtype);
    run->numbers = malloc(MOST_STEPS * 2 * run->bytes);
  }
  run->step[run->steps] = *step;
  copy(run->numbers + (size_t)(2 * run->steps) * run->bytes, own.device, own.gradients, run->bytes);
  copy(run->numbers + (size_t)(2 * run->steps + 1) * run->bytes, own.device, own.data, run->bytes);
  run->steps++;
}

static struct run train_with(const char *graphs, int argc, char **argv) {
  struct run run = {.wanted = atoi(argv[3])};
  struct train_observer observer = {&run, observe};
  struct config config;
  struct session session;
  struct train_result result;
  char folder[PATH_MAX];
  snprintf(folder, sizeof folder, "%s/graphs-%s", argv[2], graphs);
  char *words[64] = {"conr",    "train",    argv[1], "--output", folder,        "--quiet",
                     "--force", "--device", "cuda",  "--graphs", (char *)graphs};
  int count = 11;
  for (int i = 4; i < argc; i++)
    words[count++] = argv[i];
  MUST(config_parse(count, words, &config));
  MUST(session_open(MPI_COMM_WORLD, &config, &session));
  MUST(session_open_device(&session, &config));
  MUST(train(&session, &config, &observer, &result));
  session_close(&session);
  config_destroy(&config);
  return run;
}

static void compare(const struct run *queued, const struct run *launched) {
  EXPECT(queued->steps == launched->steps, "%d and %d steps", queued->steps, launched->steps);
  EXPECT(queued->launches == 0, "%lld graphs without --graphs", (long long)queued->launches);
  EXPECT(2 * launched->launched >= launched->steps, "%d of %d steps were launched", launched->launched,
         launched->steps);
  /* Each launch measures anew. */
  EXPECT(record.size == 1 || launched->step[0].loss_conr == 0 || launched->most_gather > launched->least_gather,
         "each launched step waited %g s for rows", launched->most_gather);
  for (int i = 0; i < queued->steps && i < launched->steps; i++) {
    const char *a = queued->numbers + (size_t)(2 * i) * queued->bytes;
    const char *b = launched->numbers + (size_t)(2 * i) * queued->bytes;
    const struct train_step *of_a = &queued->step[i], *of_b = &launched->step[i];
    EXPECT(of_a->loss == of_b->loss && of_a->loss_conr == of_b->loss_conr && of_a->lr == of_b->lr &&
               of_a->grad_norm == of_b->grad_norm && of_a->noise_scale == of_b->noise_scale,
           "losses, gradient norm, learning rate or noise scale of step %d differ", i);
    EXPECT(memcmp(a, b, queued->bytes) == 0, "gradients of step %d differ", i);
    EXPECT(memcmp(a + queued->bytes, b + queued->bytes, queued->bytes) == 0, "parameters of step %d differ", i);
  }
}

int main(int argc, char **argv) {
  rank_record_begin(&argc, &argv);
  if (argc < 4) {
    fprintf(stderr, "usage: rank_graphs DATA.h5 FOLDER LAUNCHES [options]\n");
    MPI_Abort(MPI_COMM_WORLD, 2);
  }
  record.name = "graphs";
  struct run queued = train_with("off", argc, argv), launched = train_with("on", argc, argv);
  compare(&queued, &launched);
  free(queued.numbers);
  free(launched.numbers);
  return rank_record_end();
}
