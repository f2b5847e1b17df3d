/* Random batches, a loss of each kind, and its calls on a device. */
#include "tests/balanced_cases.h"

#include "dist/comm_device.h"
#include "dist/memory.h"
#include "dist/random.h"
#include "tests/device_support.h"

#include <math.h>
#include <stdlib.h>

const char *const balanced_kind_names[BALANCED_KINDS] = {"BMC of 1", "BMC of 3", "BMC of 1, repeated labels",
                                                         "BNI",      "GAI of 1", "GAI of 3"};

/* ---- batches -------------------------------------------------------------------------------- */

struct balanced_batch balanced_batch_of(enum balanced_kind kind) {
  static const int targets[BALANCED_KINDS] = {1, 3, 1, 1, 1, 3};
  struct balanced_batch batch = {.targets = targets[kind]};
  struct random_key key = random_key(5, RANDOM_TEST, (uint64_t)kind);
  for (int i = 0; i < BALANCED_ROWS * batch.targets; i++) {
    double label = 3 * random_normal(key, 0, (uint64_t)i);
    batch.label[i] = (double)(float)(kind == BALANCED_BMC_REPEATED ? round(label) : label);
    batch.pred[i] = (double)(float)(batch.label[i] + random_normal(key, 1, (uint64_t)i));
  }
  return batch;
}

static struct mixture make_mixture(int dimensions) {
  static const double mean[3][3] = {{-2, 1, 0.5}, {0, -1, 2}, {3, 0.2, -2}};
  static const double covariance[3][9] = {{1, 0.3, -0.1, 0.3, 0.7, 0.2, -0.1, 0.2, 2},
                                          {0.4, 0, 0, 0, 0.4, 0, 0, 0, 0.4},
                                          {2, -1, 0.5, -1, 1.5, 0, 0.5, 0, 1}};
  struct mixture mixture = {.components = 3, .dimensions = dimensions};
  for (int k = 0; k < 3; k++)
    mixture_set(&mixture, k, (k + 1) / 6.0, mean[k], covariance[k]);
  return mixture;
}

struct balanced *balanced_of(enum balanced_kind kind, enum dtype dtype, const struct balanced_batch *batch) {
  static const double centres[] = {-6, -4, -2, 0, 2, 4, 6}, probabilities[] = {.02, .08, .2, .4, .2, .08, .02};
  struct mixture mixture = make_mixture(batch->targets);
  struct balanced *balanced;
  if (kind < BALANCED_BNI) {
    float *labels = balanced_floats(batch->label, BALANCED_ROWS * batch->targets);
    MUST(balanced_create_bmc(dtype, batch->targets, &balanced));
    MUST(balanced_set_labels(balanced, BALANCED_ROWS, dtype == F32 ? (const void *)labels : batch->label, 1));
    free(labels);
  } else if (kind == BALANCED_BNI) {
    MUST(balanced_create_bni(dtype, 7, centres, probabilities, &balanced));
  } else {
    MUST(balanced_create_gai(dtype, &mixture, &balanced));
  }
  return balanced;
}

float *balanced_floats(const double *values, int64_t count) {
  float *floats = malloc((size_t)count * sizeof *floats + 1);
  for (int64_t i = 0; i < count; i++)
    floats[i] = (float)values[i];
  return floats;
}

/* ---- on a device ---------------------------------------------------------------------------- */

void balanced_bench_open(struct balanced_bench *bench) {
  MPI_Init(NULL, NULL);
  MUST(comm_create(MPI_COMM_SELF, &bench->host));
  MUST(device_open(0, &bench->device));
  MUST(comm_create_device(bench->host, bench->device, DEVICE_COMM_MPI, &bench->data));
  MUST(loss_ops_open(bench->device, &bench->losses));
}

void balanced_bench_close(struct balanced_bench *bench) {
  comm_destroy(&bench->data);
  device_close(&bench->device);
  comm_destroy(&bench->host);
  MPI_Finalize();
  cr_assert(eq(sz, memory_in_use(), 0));
}

static float *put(const struct balanced_bench *bench, const float *values, int64_t count) {
  float *there = device_floats(bench->device, (size_t)count + 1);
  if (values != NULL)
    MUST(device_copy(bench->device, there, values, (size_t)count * sizeof *values));
  return there;
}

void balanced_there(const struct balanced_bench *bench, struct balanced_device *balanced, double sigma, int64_t rows,
                    int targets, const float *pred, const float *target, int64_t rows_global, float *grad,
                    double sums[2]) {
  int64_t count = rows * targets;
  float *p = put(bench, pred, count), *y = put(bench, target, count), *slope = put(bench, NULL, count);
  double *there;
  MUST(device_alloc_zero(bench->device, 2 * sizeof *there, (void **)&there));
  MUST(bench->losses->balanced_set_sigma(balanced, sigma));
  MUST(bench->losses->balanced_loss(balanced, rows, p, y, rows_global, slope, there));
  MUST(device_copy(bench->device, grad, slope, (size_t)count * sizeof *grad));
  MUST(device_copy(bench->device, sums, there, 2 * sizeof *sums));
  MUST(device_wait(bench->device));
  void *blocks[] = {p, y, slope, there};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
    device_free(bench->device, &blocks[i]);
}

void balanced_labels_there(const struct balanced_bench *bench, struct balanced_device *balanced, int64_t samples,
                           int targets, const float *labels, int views) {
  float *there = put(bench, labels, samples * targets);
  MUST(bench->losses->balanced_begin(balanced, &samples, there, views));
  device_free(bench->device, (void **)&there);
}
