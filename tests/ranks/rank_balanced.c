/* BMC on any number of ranks: rows shared out evenly, unevenly and with empty shares give the loss, the gradient and the
 * gradient of sigma of one rank that has them all.  Exits non-zero on any misfit.
 *
 *   rank_balanced        on the host
 *   rank_balanced cuda   on a device, against one rank on the host; a rank works on the GPU of its number */
#include "dist/comm_device.h"
#include "dist/random.h"
#include "loss/loss_ops.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define SAMPLES 41
#define VIEWS 2
#define ROWS (VIEWS * SAMPLES)
#define TARGETS 2
#define SHARES 4

#define CHECK(call)                                         \
  do {                                                      \
    if ((call) != STATUS_OK) {                              \
      fprintf(stderr, "%s: %s\n", #call, status_message()); \
      MPI_Abort(MPI_COMM_WORLD, 1);                         \
    }                                                       \
  } while (0)

/* Rows of one rank: its samples in the first view, then in the second. */
struct rows {
  double pred[ROWS * TARGETS], label[ROWS * TARGETS], grad[ROWS * TARGETS];
};

static double number(int stream, int64_t sample, int view, int d) {
  uint64_t place = (uint64_t)view * TARGETS + (uint64_t)d;
  return random_normal(random_key(3, RANDOM_TEST, (uint64_t)stream), (uint64_t)sample, place);
}

static void fill(enum dtype dtype, int64_t first, int64_t samples, struct rows *rows) {
  for (int view = 0; view < VIEWS; view++)
    for (int64_t i = 0; i < samples; i++)
      for (int d = 0; d < TARGETS; d++) {
        int64_t at = (view * samples + i) * TARGETS + d;
        double label = round(4 * number(0, first + i, 0, d)) / 4;
        dtype_put(dtype, rows->label, at, label);
        dtype_put(dtype, rows->pred, at, label + number(1, first + i, view, d));
      }
}

/* Samples of each rank: even; all with the last; all but one with the first; every other rank empty. */
static void share_out(int share, int size, int64_t *samples_of_rank) {
  int64_t left = SAMPLES;
  memset(samples_of_rank, 0, (size_t)size * sizeof *samples_of_rank);
  if (share == 0)
    for (int rank = 0; rank < size; rank++)
      samples_of_rank[rank] = SAMPLES * (rank + 1) / size - SAMPLES * rank / size;
  else if (share == 1)
    samples_of_rank[size - 1] = left;
  else if (share == 2)
    samples_of_rank[0] = left - 1, samples_of_rank[size - 1] += 1;
  else
    for (int rank = 0; rank < size; rank += 2) {
      samples_of_rank[rank] = rank + 2 < size ? left / 3 : left;
      left -= samples_of_rank[rank];
    }
}

static int misfits;

static void compare(const char *what, enum dtype dtype, int share, double got, double expected, double scale) {
  double limit = dtype == F64 ? 1e-13 : 1e-6;
  if (fabs(got - expected) <= limit * scale)
    return;
  printf("MISFIT %s in %s, share %d: %.17g, one rank %.17g\n", what, dtype_name(dtype), share, got, expected);
  misfits++;
}

/* ---- together, on the host or on a device ---- */

static struct comm *comm, *data;
static struct device *device; /* NULL = the host */
static const struct loss_ops *losses;

/* The part of the own rows. */
static void run_host(enum dtype dtype, double sigma, const int64_t *samples_of_rank, struct rows *own, double sums[2]) {
  struct balanced *together;
  CHECK(balanced_create_bmc(dtype, TARGETS, &together));
  CHECK(balanced_begin(together, comm, samples_of_rank, own->label, VIEWS));
  balanced_loss(together, sigma, VIEWS * samples_of_rank[comm_rank(comm)], own->pred, own->label, ROWS, own->grad,
                &sums[0], &sums[1]);
  balanced_destroy(&together);
}

static void *put(const void *values, size_t bytes) {
  void *there;
  CHECK(device_alloc_zero(device, bytes + 1, &there));
  if (values != NULL)
    CHECK(device_copy(device, there, values, bytes));
  return there;
}

/* In two pieces, the first of which is empty. */
static void run_device(double sigma, const int64_t *samples_of_rank, struct rows *own, double sums[2]) {
  struct balanced *balanced;
  struct balanced_device *together;
  int64_t rows = VIEWS * samples_of_rank[comm_rank(comm)];
  size_t bytes = (size_t)(rows * TARGETS) * sizeof(float);
  void *pred = put(own->pred, bytes), *label = put(own->label, bytes), *grad = put(NULL, bytes),
       *there = put(NULL, 2 * sizeof *sums);
  CHECK(balanced_create_bmc(F32, TARGETS, &balanced));
  CHECK(losses->balanced_create(device, data, balanced, &together));
  CHECK(losses->balanced_set_sigma(together, sigma));
  CHECK(losses->balanced_begin(together, samples_of_rank, label, VIEWS));
  CHECK(losses->balanced_loss(together, 0, pred, label, ROWS, grad, there));
  CHECK(losses->balanced_loss(together, rows, pred, label, ROWS, grad, there));
  CHECK(device_copy(device, own->grad, grad, bytes));
  CHECK(device_copy(device, sums, there, 2 * sizeof *sums));
  CHECK(comm_device_wait(data));
  losses->balanced_destroy(&together);
  balanced_destroy(&balanced);
  void *blocks[] = {pred, label, grad, there};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
    device_free(device, &blocks[i]);
}

static void check(enum dtype dtype, int share) {
  static struct rows own, all;
  int size = comm_size(comm), rank = comm_rank(comm);
  int64_t samples_of_rank[size], first = 0, samples;
  struct balanced *alone;
  double one[2], sums[2], sigma = 1.2, largest = 0;
  share_out(share, size, samples_of_rank);
  for (int before = 0; before < rank; before++)
    first += samples_of_rank[before];
  samples = samples_of_rank[rank];
  fill(dtype, 0, SAMPLES, &all);
  fill(dtype, first, samples, &own);
  CHECK(balanced_create_bmc(dtype, TARGETS, &alone));
  CHECK(balanced_set_labels(alone, SAMPLES, all.label, VIEWS));
  balanced_loss(alone, sigma, ROWS, all.pred, all.label, ROWS, all.grad, &one[0], &one[1]);
  if (device != NULL)
    run_device(sigma, samples_of_rank, &own, sums);
  else
    run_host(dtype, sigma, samples_of_rank, &own, sums);
  CHECK(comm_sum(comm, F64, sums, 2));
  compare("loss", dtype, share, sums[0], one[0], fabs(one[0]));
  compare("gradient of sigma", dtype, share, sums[1], one[1], fabs(one[1]));
  for (int64_t i = 0; i < ROWS * TARGETS; i++)
    largest = fmax(largest, fabs(dtype_get(dtype, all.grad, i)));
  for (int view = 0; view < VIEWS; view++)
    for (int64_t i = 0; i < samples * TARGETS; i++)
      compare("gradient", dtype, share, dtype_get(dtype, own.grad, view * samples * TARGETS + i),
              dtype_get(dtype, all.grad, (view * SAMPLES + first) * TARGETS + i), largest);
  balanced_destroy(&alone);
}

static void open_device(void) {
  int count;
  CHECK(device_count(&count));
  CHECK(device_open(comm_rank(comm) % count, &device));
  CHECK(comm_create_device(comm, device, DEVICE_COMM_MPI, &data));
  CHECK(loss_ops_open(device, &losses));
}

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  CHECK(comm_create(MPI_COMM_WORLD, &comm));
  if (argc > 1)
    open_device();
  for (int share = 0; share < SHARES; share++) {
    if (device == NULL)
      check(F64, share);
    check(F32, share);
  }
  comm_destroy(&data);
  device_close(&device);
  comm_destroy(&comm);
  MPI_Allreduce(MPI_IN_PLACE, &misfits, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  MPI_Finalize();
  return misfits != 0;
}
