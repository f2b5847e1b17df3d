/* The losses of the CUDA backend: the table, and the pointwise ones. */
#include "loss/accon_cuda.h"
#include "loss/balanced_cuda.h"
#include "loss/conr_cuda.h"
#include "loss/metrics_cuda.h"
#include "loss/pointwise.h"
#include "loss/rnc_cuda.h"
#include "loss/rows_cuda.h"

/* The table's functions are not told the device, so there is one a process: another is refused while it is open.  Its
 * scratch is freed with it. */
static struct {
  struct device *device;
  double *partial; /* [pointwise_bytes()] */
} opened;

static enum status regression(const struct regression *loss, int64_t rows, int targets, const float *pred,
                              const float *target, const float *weight, int64_t rows_global, float *grad, double *sum) {
  return regression_launch(loss, rows, targets, pred, target, weight, rows_global, grad, opened.partial, sum,
                           device_main(opened.device));
}

static enum status uvote(const struct uvote *uvote, int64_t rows, int targets, const float *output, const float *target,
                         const float *weight, const double *coefficient, int64_t rows_global, float *grad,
                         double *sum) {
  return uvote_launch(uvote, rows, targets, output, target, weight, coefficient, rows_global, grad, opened.partial, sum,
                      device_main(opened.device));
}

static enum status uvote_vote(const struct uvote *uvote, enum uvote_vote vote, int64_t rows, int targets,
                              const float *output, const float *target, float *pred, float *log_scale) {
  return uvote_answer_launch(uvote, vote, rows, targets, output, target, pred, log_scale, device_main(opened.device));
}

static enum status evidential(const struct evidential *evidential, int64_t rows, int targets, const float *output,
                              const float *target, const float *weight, int64_t rows_global, float *grad, double *sum) {
  return evidential_launch(evidential, rows, targets, output, target, weight, rows_global, grad, opened.partial, sum,
                           device_main(opened.device));
}

static enum status evidential_predict(const struct evidential *evidential, int64_t rows, int targets,
                                      const float *output, float *pred, float *variance) {
  return evidential_answer_launch(evidential, rows, targets, output, pred, variance, device_main(opened.device));
}

static enum status count_nonfinite(enum dtype dtype, int64_t count, const void *x, double *found) {
  REQUIRE(dtype == F32 || dtype == BF16, ERR_BUG, "a GPU has no values of type %s", dtype_name(dtype));
  return count_nonfinite_launch(dtype, count, x, opened.partial, found, device_main(opened.device));
}

static void close_losses(void *device) {
  device_free(device, (void **)&opened.partial);
  opened.device = NULL;
}

static const struct loss_ops table = {.regression = regression,
                                      .uvote = uvote,
                                      .uvote_answer = uvote_vote,
                                      .evidential = evidential,
                                      .evidential_answer = evidential_predict,
                                      .count_nonfinite = count_nonfinite,
                                      .balanced_create = balanced_device_create,
                                      .balanced_destroy = balanced_device_destroy,
                                      .balanced_set_sigma = balanced_device_set_sigma,
                                      .balanced_begin = balanced_device_begin,
                                      .balanced_loss = balanced_device_loss,
                                      .conr_create = conr_device_create,
                                      .conr_destroy = conr_device_destroy,
                                      .conr_loss = conr_device_loss,
                                      .conr_begin = conr_device_begin,
                                      .conr_add = conr_device_add,
                                      .conr_progress = conr_device_progress,
                                      .conr_finish = conr_device_finish,
                                      .conr_lent = conr_device_lent,
                                      .conr_result = conr_device_result,
                                      .rows_create = rows_device_create,
                                      .rows_destroy = rows_device_destroy,
                                      .rows_collect = rows_device_collect,
                                      .accon_create = accon_device_create,
                                      .accon_destroy = accon_device_destroy,
                                      .accon_loss = accon_device_loss,
                                      .accon_value = accon_device_value,
                                      .rnc_create = rnc_device_create,
                                      .rnc_destroy = rnc_device_destroy,
                                      .rnc_loss = rnc_device_loss,
                                      .rnc_value = rnc_device_value,
                                      .metrics_create = metrics_device_create,
                                      .metrics_destroy = metrics_device_destroy,
                                      .metrics_compute = metrics_device_compute};

/* LOSS_OPS_OPEN_SYMBOL */
enum status conr_cuda_loss_ops_open(struct device *device, const struct loss_ops **out);

enum status conr_cuda_loss_ops_open(struct device *device, const struct loss_ops **out) {
  *out = &table;
  if (opened.device == device)
    return STATUS_OK;
  REQUIRE(opened.device == NULL, ERR_BUG, "the losses are open on another GPU: one a process");
  TRY(device_alloc(device, pointwise_bytes(), (void **)&opened.partial));
  opened.device = device;
  enum status status = device_attach(device, device, close_losses);
  if (status != STATUS_OK)
    close_losses(device);
  return status;
}
