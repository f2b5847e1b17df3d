/* Balanced MSE on a GPU: its prior, and for BMC the labels of the global batch on their way. */
#include "loss/balanced_cuda.h"

#include "dist/memory.h"
#include "loss/balanced_kernels.h"
#include "loss/conr_blocks.h"

#include <math.h>

struct balanced_device {
  struct device *device;       /* borrowed: must outlive this */
  struct comm *comm;           /* borrowed: must outlive this */
  struct balanced_prior prior; /* its arrays: of the host */
  double *sigma;               /* [1] on the device       */
  double *partial;
  /* BNI */
  double *centres, *log_weights; /* [count] */
  /* GAI */
  struct mixture *mixture;
  struct mixture_density *density;
  /* BMC */
  float *labels;             /* [samples, targets] of the global batch */
  int64_t capacity, samples; /* of them                                */
  double log_views;          /* the weight of each                     */
  struct conr_blocks blocks; /* on their way                           */
  bool travels;              /* nobody has waited for them             */
};

/* --- life ----------------------------------------------------------------------------------------------------- */

static enum status put(struct balanced_device *own, const void *from, size_t bytes, void **out) {
  TRY(device_alloc(own->device, bytes, out));
  return device_copy(own->device, *out, from, bytes);
}

static enum status put_prior(struct balanced_device *own) {
  const struct balanced_prior *prior = &own->prior;
  size_t bytes = (size_t)prior->count * sizeof(double);
  if (prior->of_batch)
    return conr_blocks_create(own->device, own->comm, &own->blocks);
  if (prior->mixture != NULL) {
    TRY(put(own, prior->mixture, sizeof *prior->mixture, (void **)&own->mixture));
    return device_alloc(own->device, sizeof *own->density, (void **)&own->density);
  }
  TRY(put(own, prior->centres, bytes, (void **)&own->centres));
  return put(own, prior->log_weights, bytes, (void **)&own->log_weights);
}

/* Local; destroy what it leaves, also where it fails. */
static enum status create(struct device *device, struct comm *comm, const struct balanced *balanced,
                          struct balanced_device **out) {
  TRY(memory_alloc_zero(sizeof **out, (void **)out));
  struct balanced_device *own = *out;
  own->device = device;
  own->comm = comm;
  own->prior = balanced_prior(balanced);
  own->capacity = -1;
  TRY(device_alloc(device, sizeof *own->sigma, (void **)&own->sigma));
  TRY(device_alloc(device, balanced_bytes(), (void **)&own->partial));
  return put_prior(own);
}

enum status balanced_device_create(struct device *device, struct comm *comm, const struct balanced *balanced,
                                   struct balanced_device **out) {
  *out = NULL;
  enum status status = comm_agree(comm, create(device, comm, balanced, out));
  if (status != STATUS_OK)
    balanced_device_destroy(out);
  return status;
}

void balanced_device_destroy(struct balanced_device **balanced) {
  struct balanced_device *own = *balanced;
  if (own == NULL)
    return;
  if (conr_blocks_in_flight(&own->blocks)) {
    *balanced = NULL; /* they may still write to what would be freed */
    return;
  }
  if (own->prior.of_batch)
    conr_blocks_destroy(&own->blocks);
  void **const blocks[] = {(void **)&own->labels,  (void **)&own->density,     (void **)&own->mixture,
                           (void **)&own->centres, (void **)&own->log_weights, (void **)&own->partial,
                           (void **)&own->sigma};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
    device_free(own->device, blocks[i]);
  memory_free((void **)balanced);
}

/* --- a step --------------------------------------------------------------------------------------------------- */

enum status balanced_device_set_sigma(struct balanced_device *own, double sigma) {
  return device_copy(own->device, own->sigma, &sigma, sizeof sigma);
}

/* Room for the labels of all ranks, which come here together. */
static enum status grow(struct balanced_device *own) {
  if (own->samples <= own->capacity)
    return STATUS_OK;
  device_free(own->device, (void **)&own->labels);
  own->capacity = -1;
  size_t bytes = (size_t)(own->samples * own->prior.targets) * sizeof(float);
  TRY(comm_agree(own->comm, device_alloc(own->device, bytes > 0 ? bytes : 1, (void **)&own->labels)));
  own->capacity = own->samples;
  return STATUS_OK;
}

enum status balanced_device_begin(struct balanced_device *own, const int64_t *samples_of_rank, const float *labels,
                                  int views) {
  size_t row_bytes = (size_t)own->prior.targets * sizeof(float);
  int64_t mine = samples_of_rank[comm_rank(own->comm)];
  if (!own->prior.of_batch)
    return STATUS_OK;
  own->samples = 0;
  for (int rank = 0; rank < comm_size(own->comm); rank++)
    own->samples += samples_of_rank[rank];
  own->log_views = log(views);
  TRY(conr_blocks_begin(&own->blocks, 1));
  TRY(grow(own));
  TRY(conr_blocks_place(&own->blocks, samples_of_rank, samples_of_rank, NULL));
  TRY(device_copy(own->device, own->labels + own->blocks.own * own->prior.targets, labels, (size_t)mine * row_bytes));
  TRY(conr_blocks_gather(&own->blocks, samples_of_rank, row_bytes, own->labels));
  own->travels = true;
  return STATUS_OK;
}

enum status balanced_device_loss(struct balanced_device *own, int64_t rows, const float *pred, const float *target,
                                 int64_t rows_global, float *grad, double sums[2]) {
  const struct balanced_prior *prior = &own->prior;
  struct stream *stream = device_main(own->device);
  struct balanced_rows part = {.rows = rows,
                               .targets = prior->targets,
                               .pred = pred,
                               .target = target,
                               .sigma = own->sigma,
                               .rows_global = (double)rows_global,
                               .grad = grad,
                               .partial = own->partial,
                               .sums = sums};
  if (own->travels)
    TRY(conr_blocks_finish(&own->blocks, own->samples));
  own->travels = false;
  if (prior->mixture != NULL)
    return balanced_mixture_launch(&part, own->mixture, own->density, stream);
  if (prior->of_batch)
    return balanced_points_launch(&part, F32, own->samples, own->labels, NULL, own->log_views, stream);
  return balanced_points_launch(&part, F64, prior->count, own->centres, own->log_weights, 0, stream);
}
