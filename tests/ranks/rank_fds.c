/* Training with smoothed features, whole runs of three epochs:
 *
 *   rank_fds DATA.h5 FOLDER [options of conr train, in float64]
 *
 * N ranks end as one rank does, to rounding; a run that is asked to stop while it collects features, goes on, is asked
 * to stop within an epoch and goes on again ends with the bits of one that nobody disturbed; without batch norm (that is,
 * without --model) micro-batches end as whole batches do, to rounding.  Ends are compared by the last checkpoints: the
 * parameters, optimiser, running statistics, and the statistics of features. */
#include "io/array_file.h"
#include "launch/train.h"

#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(call)                                         \
  do {                                                      \
    if ((call) != STATUS_OK) {                              \
      fprintf(stderr, "%s: %s\n", #call, status_message()); \
      MPI_Abort(MPI_COMM_WORLD, 1);                         \
    }                                                       \
  } while (0)

static int misfits;

static void expect(bool good, const char *what, const char *name, double error) {
  if (good)
    return;
  printf("MISFIT %s %s: %g\n", what, name, error);
  misfits++;
}

/* --- runs --------------------------------------------------------------------------------------------------- */

struct disturbance {
  int64_t half_epochs; /* ask to stop after so many, -1 = never */
};

/* The last rank asks after the step has looked for it, so that whatever comes next finds it. */
static void disturb(void *context, const struct trainer *trainer, const struct train_step *step) {
  const struct disturbance *disturbance = context;
  int64_t at = disturbance->half_epochs * sampler_steps(&trainer->sampler) / 2 - 1;
  if (step->step == at && comm_rank(trainer->session->comm) == comm_size(trainer->session->comm) - 1)
    raise(SIGTERM);
}

static struct train_result run(MPI_Comm comm, char **argv, int argc, const char *folder, const char *more,
                               const char *value, int64_t half_epochs) {
  struct config config;
  struct session session;
  struct train_result result;
  char *words[64] = {"conr", "train",     argv[1], "--output", (char *)folder, "--quiet", "--epochs",
                     "3",    "--threads", "1",     "--fds",    "--precision",  "f64",     (char *)more};
  int count = value != NULL ? 15 : 14;
  words[14] = (char *)value;
  for (int i = 3; i < argc; i++)
    words[count++] = argv[i];
  words[count] = NULL;
  CHECK(config_parse(count, words, &config));
  CHECK(session_open(comm, &config, &session));
  CHECK(session_open_device(&session, &config));
  struct disturbance disturbance = {half_epochs};
  struct train_observer observer = {&disturbance, disturb};
  CHECK(train(&session, &config, &observer, &result));
  session_close(&session);
  config_destroy(&config);
  return result;
}

/* --- ends --------------------------------------------------------------------------------------------------- */

static struct array_file *last_of(const char *folder) {
  char path[PATH_MAX];
  struct array_file *file;
  snprintf(path, sizeof path, "%s/checkpoint-last.h5", folder);
  CHECK(array_file_read(path, true, &file));
  return file;
}

/* Largest difference of two arrays over the largest value. */
static double difference(const struct array *a, const struct array *b) {
  int64_t count = array_count(a);
  double largest = 0, error = 0;
  if (b == NULL || array_count(b) != count)
    return INFINITY;
  double *x = malloc(2 * (size_t)count * sizeof *x + 1), *y = x + count;
  array_convert(a, F64, x);
  array_convert(b, F64, y);
  for (int64_t i = 0; i < count; i++) {
    largest = fmax(largest, fabs(x[i]));
    error = fmax(error, isfinite(x[i]) && isfinite(y[i]) ? fabs(x[i] - y[i]) : INFINITY);
  }
  free(x);
  return largest > 0 ? error / largest : error;
}

static void compare(const char *what, const char *folder_a, const char *folder_b, double limit) {
  struct array_file *a = last_of(folder_a), *b = last_of(folder_b);
  int statistics = 0;
  expect(a->array_count == b->array_count, what, "number of arrays", (double)b->array_count);
  for (size_t i = 0; i < a->array_count; i++) {
    double error = difference(&a->arrays[i], array_file_find(b, a->arrays[i].name));
    expect(error <= limit, what, a->arrays[i].name, error);
    statistics += strncmp(a->arrays[i].name, "state/fds/", 10) == 0;
  }
  expect(statistics >= 6, what, "arrays of statistics", statistics);
  array_file_destroy(&a);
  array_file_destroy(&b);
}

/* The run stopped while it collected: its epoch has all its steps, and is not over. */
static void expect_stopped(const struct train_result *result, const char *folder, int64_t epochs, bool collecting) {
  int64_t epoch_step, step;
  struct array_file *file = last_of(folder);
  CHECK(array_file_integer(file, "epoch_step", &epoch_step));
  CHECK(array_file_integer(file, "step", &step));
  expect(result->stopped && result->epochs == epochs, "stopped run", "epochs", (double)result->epochs);
  int64_t steps = (step - epoch_step) / (epochs > 0 ? epochs : 1);
  expect(collecting ? epoch_step == steps : epoch_step < steps, "stopped run", "steps of its epoch",
         (double)epoch_step);
  array_file_destroy(&file);
}

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  int rank;
  char alone[PATH_MAX], whole[PATH_MAX], cut[PATH_MAX], pieces[PATH_MAX];
  bool norm = false;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (argc < 3) {
    fprintf(stderr, "usage: rank_fds DATA.h5 FOLDER [options]\n");
    MPI_Abort(MPI_COMM_WORLD, 2);
  }
  for (int i = 3; i < argc; i++)
    norm = norm || strcmp(argv[i], "--model") == 0;
  snprintf(alone, sizeof alone, "%s/alone-%d", argv[2], rank);
  snprintf(whole, sizeof whole, "%s/whole", argv[2]);
  snprintf(cut, sizeof cut, "%s/cut", argv[2]);
  snprintf(pieces, sizeof pieces, "%s/pieces", argv[2]);

  run(MPI_COMM_SELF, argv, argc, alone, "--force", NULL, -1);
  run(MPI_COMM_WORLD, argv, argc, whole, "--force", NULL, -1);
  compare("N ranks and one", alone, whole, 1e-9);

  struct train_result result = run(MPI_COMM_WORLD, argv, argc, cut, "--force", NULL, 4);
  expect_stopped(&result, cut, 1, true);
  result = run(MPI_COMM_WORLD, argv, argc, cut, "--resume", NULL, 5);
  expect_stopped(&result, cut, 2, false);
  run(MPI_COMM_WORLD, argv, argc, cut, "--resume", NULL, -1);
  compare("a run that was cut and a whole one", whole, cut, 0);

  if (!norm) {
    run(MPI_COMM_WORLD, argv, argc, pieces, "--force", "--micro-batch=5", -1);
    compare("micro-batches and whole batches", whole, pieces, 1e-9);
  }
  MPI_Allreduce(MPI_IN_PLACE, &misfits, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  MPI_Finalize();
  return misfits != 0;
}
