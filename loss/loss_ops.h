/* Losses where the network is: what a device's backend offers beside the host's functions (regression.h, conr.h).
 *
 *     const struct loss_ops *losses;
 *     TRY(loss_ops_open(device, &losses));
 *     TRY(losses->regression(&loss, rows, targets, pred, target, weight, rows_global, grad, sum));
 *     ...
 *     TRY(losses->conr_loss(conr, &batch, beta, grad_features));
 *     TRY(losses->conr_result(conr, &result));                                 the host waits: once a step, at its end
 *     ...
 *     TRY(losses->metrics_compute(validation, F32, predictions, &table));      likewise: once an evaluation
 *
 * All arrays lie in the device's memory unless it is said, and all work is queued on its main stream: nothing but
 * conr_result() and metrics_compute() makes the host wait (and the banded path of ConR, once: see conr_loss; and rows
 * that travel by way of the host).  One GPU a process.  Predictions, labels, weights and sums have the types said;
 * features and their gradient those of the network's values. */
#ifndef CONR_LOSS_LOSS_OPS_H
#define CONR_LOSS_LOSS_OPS_H

#include "dist/comm.h"
#include "dist/device.h"
#include "loss/accon.h"
#include "loss/balanced.h"
#include "loss/conr.h"
#include "loss/evidential.h"
#include "loss/gathered.h"
#include "loss/metrics.h"
#include "loss/regression.h"
#include "loss/rnc.h"
#include "loss/uvote.h"
#include "model/ops.h"

struct accon_device;
struct balanced_device;
struct conr_device;
struct metrics_device;
struct rnc_device;
struct rows_device;

struct loss_ops {
  /* regression_loss() of regression.h on float32: *loss += the part of these rows, in double; grad is overwritten.
   * pred, target, grad [rows, targets], weight [rows] or NULL.  Local.  Repeated. */
  enum status (*regression)(const struct regression *loss, int64_t rows, int targets, const float *pred,
                            const float *target, const float *weight, int64_t rows_global, float *grad, double *sum);

  /* uvote_loss() and uvote_answer() of uvote.h, evidential_loss() and evidential_answer() of evidential.h on float32,
   * likewise.  coefficient [experts]; target of an answer: read by UVOTE_ORACLE alone; log_scale, variance: NULL if not
   * wanted. */
  enum status (*uvote)(const struct uvote *uvote, int64_t rows, int targets, const float *output, const float *target,
                       const float *weight, const double *coefficient, int64_t rows_global, float *grad, double *sum);
  enum status (*uvote_answer)(const struct uvote *uvote, enum uvote_vote vote, int64_t rows, int targets,
                              const float *output, const float *target, float *pred, float *log_scale);
  enum status (*evidential)(const struct evidential *evidential, int64_t rows, int targets, const float *output,
                            const float *target, const float *weight, int64_t rows_global, float *grad, double *sum);
  enum status (*evidential_answer)(const struct evidential *evidential, int64_t rows, int targets, const float *output,
                                   float *pred, float *variance);

  /* *found += how many of x [count] are NaN or infinite.  dtype F32 or BF16.  Local.  Exact. */
  enum status (*count_nonfinite)(enum dtype dtype, int64_t count, const void *x, double *found);

  /* Balanced MSE (balanced.h has the definitions) on float32; BMC gathers the labels where they are.
   * comm      of device memory (comm_device.h); borrowed: must outlive this
   * balanced  borrowed: likewise; labels that are set in it are not read
   * Collective. */
  enum status (*balanced_create)(struct device *device, struct comm *comm, const struct balanced *balanced,
                                 struct balanced_device **out);
  void (*balanced_destroy)(struct balanced_device **balanced);

  /* Of the losses that are queued from now on, also of those that were kept as graphs.  Local. */
  enum status (*balanced_set_sigma)(struct balanced_device *balanced, double sigma);

  /* As balanced_begin(); the labels travel while what is queued next is computed.  labels [samples of this rank,
   * targets].  Collective. */
  enum status (*balanced_begin)(struct balanced_device *balanced, const int64_t *samples_of_rank, const float *labels,
                                int views);

  /* As balanced_loss(), by the same arithmetic in double: sums += the part of these rows, and its derivative by sigma.
   * Behind balanced_begin() there is at least one on all ranks, also with no rows.  Repeated. */
  enum status (*balanced_loss)(struct balanced_device *balanced, int64_t rows, const float *pred, const float *target,
                               int64_t rows_global, float *grad, double sums[2]);

  /* ConR (conr.h has the definitions) over the rows of all ranks.
   * comm       of device memory (comm_device.h), borrowed: must outlive this
   * precision  F32: products in float32; TF32; BF16: features travel and are multiplied as 16 bits, sums are float32
   * Collective; all ranks pass equal arguments. */
  enum status (*conr_create)(struct device *device, struct comm *comm, enum precision precision, int features,
                             int targets, const struct conr_options *options, struct conr_device **out);
  void (*conr_destroy)(struct conr_device **conr);

  /* Queue the loss of a batch and the gradient of `coefficient` times it.
   * batch          features of the values' type, labels, predictions and weights float32; rows_of_rank must be given
   * grad_features  [rows, features] of the values' type, overwritten
   * Collective.  Values that are not finite are found by conr_result().  What only one rank can see to be wrong (other
   * rows than rows_of_rank gives it, NULL arrays) is its failure alone: abort the job then.  The banded path sorts on
   * the device and copies the columns of its panels to the host: one wait.  Kept by dist/replay.h, a batch that is not
   * planned joins the graph, and one that is planned is computed anew at each launch; either way rows_of_rank is read
   * then.  CONR_AUTO plans so from 4096 rows on, and takes the bands where they save more than a tenth of the pairs;
   * smaller batches are dense.  Memory grows with the largest batch. */
  enum status (*conr_loss)(struct conr_device *conr, const struct conr_batch *batch, double coefficient,
                           void *grad_features);

  /* conr_loss() in parts, as conr_parts.h has them for the host: the rows of a block travel, on a stream of their own,
   * while the main stream computes; it waits for them in conr_finish().  rows_of_rank must be given, and that of
   * conr_begin() is read at each launch, as by conr_loss().  Failures of one rank alone as of conr_loss(). */
  enum status (*conr_begin)(struct conr_device *conr, const struct conr_batch *batch, int blocks, bool lend);
  enum status (*conr_add)(struct conr_device *conr, const struct conr_batch *block, const int64_t *first_of_rank);
  enum status (*conr_progress)(struct conr_device *conr);
  enum status (*conr_finish)(struct conr_device *conr, double coefficient, const void *features, void *grad_features);

  /* conr_lent(): features of the values' type, labels float32; what is queued behind conr_finish() may read them. */
  struct lent_rows (*conr_lent)(const struct conr_device *conr);

  /* What the last conr_loss() or conr_finish() found; the host waits for it.  ERR_NUMERIC on all ranks alike when a
   * value was not finite. */
  enum status (*conr_result)(struct conr_device *conr, struct conr_result *result);

  /* Rows of all ranks for terms on the device, where ConR has none to lend; queued.
   * comm      of device memory; borrowed: must outlive this
   * features  [own rows, features] of dtype F32 or BF16, labels [own rows, targets]
   * *out      borrowed until the next call; behind its rows, up to a multiple of 8, there are zeros, as in conr_lent()
   * create: local.  collect: collective. */
  enum status (*rows_create)(struct device *device, struct comm *comm, enum dtype dtype, int features, int targets,
                             struct rows_device **out);
  void (*rows_destroy)(struct rows_device **rows);
  enum status (*rows_collect)(struct rows_device *rows, const int64_t *rows_of_rank, const void *features,
                              const float *labels, struct lent_rows *out);

  /* ACCon (accon.h has the definitions) over gathered rows; in TF32 its products are float32.
   * rows_of_rank   [ranks]; read when kept work is launched, too
   * features       [own rows, features] of the values' type
   * grad_features  likewise, += coefficient times the gradient
   * accon_value    of the last loss, once the host has waited; not finite where a row is not
   * create: local; ERR_ARGUMENT as accon_create().  loss: collective.  Memory grows with the largest batch. */
  enum status (*accon_create)(struct device *device, struct comm *comm, enum precision precision, int features,
                              const struct accon_options *options, struct accon_device **out);
  void (*accon_destroy)(struct accon_device **accon);
  enum status (*accon_loss)(struct accon_device *accon, const int64_t *rows_of_rank, const struct lent_rows *rows,
                            double coefficient, const void *features, void *grad_features);
  double (*accon_value)(const struct accon_device *accon);

  /* RnC (rnc.h has the definitions) over gathered rows with labels of one component; the rest as of ACCon.
   * dtype          F32 or BF16, of the features; products are float32 in any case: distances are differences of them
   * grad_features  [own rows, features] of dtype, += coefficient times the gradient
   * rnc_value      not finite where a feature is not, or a label is NaN, among two rows or more
   * One sum of [rows, features] float32 over ranks, if there are several. */
  enum status (*rnc_create)(struct device *device, struct comm *comm, enum dtype dtype, int features,
                            const struct rnc_options *options, struct rnc_device **out);
  void (*rnc_destroy)(struct rnc_device **rnc);
  enum status (*rnc_loss)(struct rnc_device *rnc, const int64_t *rows_of_rank, const struct lent_rows *rows,
                          double coefficient, void *grad_features);
  double (*rnc_value)(const struct rnc_device *rnc);

  /* Metrics of an evaluated split (metrics.h has the definitions) whose predictions change while its labels stay: bins,
   * groups and the ranks of labels are found once.
   * metrics  borrowed: must outlive this
   * labels   [rows, targets] in host memory, read before the call returns; rows may be 0, INT32_MAX at most
   * Local.  ERR_NUMERIC: a label is not finite. */
  enum status (*metrics_create)(struct device *device, const struct metrics *metrics, int64_t rows,
                                const double *labels, struct metrics_device **out);
  void (*metrics_destroy)(struct metrics_device **metrics);

  /* metrics_compute() of metrics.h, sums in double; the host waits for it.
   * predictions  [rows, targets], dtype F32 or F64
   * Local.  Repeated: the same bits each time.  ERR_NUMERIC: a prediction is not finite; the sentence of the host. */
  enum status (*metrics_compute)(struct metrics_device *metrics, enum dtype dtype, const void *predictions,
                                 struct metrics_table *table);
};

/* ERR_DEVICE when the backend has none.  The device is not the host. */
enum status loss_ops_open(struct device *device, const struct loss_ops **out);

/* The name by which a backend's library gives its function of that form. */
#define LOSS_OPS_OPEN_SYMBOL "conr_cuda_loss_ops_open"
typedef enum status loss_ops_open_function(struct device *device, const struct loss_ops **out);

#endif
