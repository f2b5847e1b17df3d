/* Batches for tests of Balanced MSE, a loss of each kind for them, and that loss on a device.
 *
 *     struct balanced_batch batch = balanced_batch_of(kind);
 *     struct balanced *balanced = balanced_of(kind, F64, &batch);
 *     balanced_loss(balanced, 0.8, BALANCED_ROWS, batch.pred, batch.label, BALANCED_ROWS, grad, &loss, &grad_sigma);
 *     balanced_destroy(&balanced); */
#ifndef CONR_TESTS_BALANCED_CASES_H
#define CONR_TESTS_BALANCED_CASES_H

#include "loss/balanced.h"
#include "loss/loss_ops.h"

enum { BALANCED_ROWS = 300, BALANCED_MOST = 3 }; /* more than are summed at a time, and than a panel of points holds */

/* BMC of labels with one component, with three, and with one that repeats; ... */
enum balanced_kind { BALANCED_BMC, BALANCED_BMC_3, BALANCED_BMC_REPEATED, BALANCED_BNI, BALANCED_GAI, BALANCED_GAI_3 };
enum { BALANCED_KINDS = BALANCED_GAI_3 + 1 };
extern const char *const balanced_kind_names[BALANCED_KINDS];

/* All values are exact in float32. */
struct balanced_batch {
  int targets;
  double pred[BALANCED_ROWS * BALANCED_MOST], label[BALANCED_ROWS * BALANCED_MOST];
};
struct balanced_batch balanced_batch_of(enum balanced_kind kind);

/* Of BMC the labels of the batch are set. */
struct balanced *balanced_of(enum balanced_kind kind, enum dtype dtype, const struct balanced_batch *batch);

/* [count] floats, to be freed by free(). */
float *balanced_floats(const double *values, int64_t count);

/* A device, and the communicator of one rank, for losses on it.  MPI is begun. */
struct balanced_bench {
  struct comm *host, *data;
  struct device *device;
  const struct loss_ops *losses;
};
void balanced_bench_open(struct balanced_bench *bench);
void balanced_bench_close(struct balanced_bench *bench); /* fails the test where memory is left */

/* balanced_loss() of float32 by the device, on arrays of the host.  sums [2]: value and derivative by sigma. */
void balanced_there(const struct balanced_bench *bench, struct balanced_device *balanced, double sigma, int64_t rows,
                    int targets, const float *pred, const float *target, int64_t rows_global, float *grad,
                    double sums[2]);

/* The labels of the batch on one rank. */
void balanced_labels_there(const struct balanced_bench *bench, struct balanced_device *balanced, int64_t samples,
                           int targets, const float *labels, int views);

#endif
