/* N ranks equal one rank: 20 steps of the trainer with everything random switched on.
 *
 *   rank_train DATA.h5 FOLDER [more options of conr train]
 *
 * Each rank first trains alone (all rows on one rank), then all train together; per step the losses, the gradient and
 * the parameters must agree, and all ranks must hold the same parameters, bit for bit.
 *
 * At an edge (a ReLU at 0, an absolute error at 0, a prediction at the end of ConR's window) the gradient jumps, and
 * the last bit of a float32 sum, which depends on the processor's kernels too, decides on which side a sample is.  In
 * float64 none of these samples comes so near; float32 is to be compared on steps without edges. */
#include "dist/host_copy.h"
#include "launch/train.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEPS 20

#define CHECK(call)                                         \
  do {                                                      \
    if ((call) != STATUS_OK) {                              \
      fprintf(stderr, "%s: %s\n", #call, status_message()); \
      MPI_Abort(MPI_COMM_WORLD, 1);                         \
    }                                                       \
  } while (0)

struct record {
  int count;
  size_t elements;
  enum dtype dtype;
  struct train_step step[STEPS];
  double *gradient, *parameters; /* [STEPS, elements] */
};

static void copy(double *to, struct parameters own, void *block, enum dtype dtype) {
  struct host_copy from;
  CHECK(host_copy_create(own.device, block, own.elements * dtype_size(dtype), &from));
  CHECK(host_copy_fetch(&from));
  for (size_t i = 0; i < own.elements; i++)
    to[i] = dtype == F32 ? (double)((const float *)from.data)[i] : ((const double *)from.data)[i];
  host_copy_destroy(&from);
}

static void observe(void *context, const struct trainer *trainer, const struct train_step *step) {
  struct record *record = context;
  struct parameters own = net_parameters(trainer->net);
  if (record->gradient == NULL) {
    record->elements = own.elements;
    record->dtype = trainer->ops->parameter_dtype;
    record->gradient = malloc(STEPS * own.elements * sizeof(double));
    record->parameters = malloc(STEPS * own.elements * sizeof(double));
  }
  if (record->count == STEPS)
    return;
  size_t at = (size_t)record->count * own.elements;
  record->step[record->count++] = *step;
  copy(record->gradient + at, own, own.gradients, record->dtype);
  copy(record->parameters + at, own, own.data, record->dtype);
}

static struct record run(MPI_Comm comm, int argc, char **argv, const char *folder) {
  struct record record = {0};
  struct config config;
  struct session session;
  struct train_result result;
  char *words[64] = {"conr", "train", argv[1], "--output", (char *)folder, "--quiet", "--force", "--threads", "1"};
  int count = 9;
  for (int i = 3; i < argc; i++)
    words[count++] = argv[i];
  words[count] = NULL;
  CHECK(config_parse(count, words, &config));
  CHECK(session_open(comm, &config, &session));
  CHECK(session_open_device(&session, &config));
  struct train_observer observer = {&record, observe};
  CHECK(train(&session, &config, &observer, &result));
  session_close(&session);
  config_destroy(&config);
  return record;
}

static int misfits;

static void compare(const char *what, int step, const double *one, const double *many, size_t count, double limit) {
  double largest = 0, error = 0;
  for (size_t i = 0; i < count; i++) {
    largest = fmax(largest, fabs(one[i]));
    error = fmax(error, fabs(one[i] - many[i]));
  }
  error = largest > 0 ? error / largest : error;
  if (error <= limit)
    return;
  printf("MISFIT %s of step %d: %g (limit %g)\n", what, step, error, limit);
  misfits++;
}

/* All ranks hold the same bits. */
static void compare_ranks(const struct record *record) {
  size_t bytes = (size_t)record->count * record->elements * sizeof(double);
  double *root = malloc(bytes + 1);
  memcpy(root, record->parameters, bytes);
  MPI_Bcast(root, (int)bytes, MPI_BYTE, 0, MPI_COMM_WORLD);
  if (memcmp(root, record->parameters, bytes) != 0) {
    printf("MISFIT the parameters differ between ranks\n");
    misfits++;
  }
  free(root);
}

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  int rank;
  char alone[PATH_MAX], together[PATH_MAX];
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (argc < 3) {
    fprintf(stderr, "usage: rank_train DATA.h5 FOLDER [options]\n");
    MPI_Abort(MPI_COMM_WORLD, 2);
  }
  snprintf(alone, sizeof alone, "%s/alone-%d", argv[2], rank);
  snprintf(together, sizeof together, "%s/together", argv[2]);
  struct record one = run(MPI_COMM_SELF, argc, argv, alone), many = run(MPI_COMM_WORLD, argc, argv, together);
  if (one.count != STEPS || many.count != STEPS) {
    printf("MISFIT %d and %d steps instead of %d\n", one.count, many.count, STEPS);
    misfits++;
  }
  /* Rounding of one step is 1e-6 in float32; training carries it on, so later steps get ten times that. */
  double tight = one.dtype == F64 ? 1e-12 : 1e-6, wide = one.dtype == F64 ? 1e-10 : 1e-5;
  for (int s = 0; s < one.count && s < many.count; s++) {
    double limit = s == 0 ? tight : wide;
    compare("loss", s, &one.step[s].loss, &many.step[s].loss, 1, limit);
    compare("ConR loss", s, &one.step[s].loss_conr, &many.step[s].loss_conr, 1, limit);
    compare("noise scale", s, &one.step[s].noise_scale, &many.step[s].noise_scale, 1, limit);
    compare("gradient of the noise scale", s, &one.step[s].noise_gradient, &many.step[s].noise_gradient, 1, wide);
    compare("gradient norm", s, &one.step[s].grad_norm, &many.step[s].grad_norm, 1, limit);
    compare("gradient", s, one.gradient + (size_t)s * one.elements, many.gradient + (size_t)s * one.elements,
            one.elements,
            s == 0             ? tight
            : one.dtype == F64 ? 1e-9
                               : 1e-4);
    compare("parameters", s, one.parameters + (size_t)s * one.elements, many.parameters + (size_t)s * one.elements,
            one.elements, limit);
  }
  compare_ranks(&many);
  free(one.gradient);
  free(one.parameters);
  free(many.gradient);
  free(many.parameters);
  MPI_Allreduce(MPI_IN_PLACE, &misfits, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  MPI_Finalize();
  return misfits != 0;
}
