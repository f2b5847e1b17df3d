/* The regularisers that are on, one after another on the same rows; on a device there, or by way of host memory. */
#include "loss/regularisers.h"

#include "dist/comm_device.h"
#include "dist/log.h"
#include "dist/memory.h"
#include "dist/replay.h"
#include "loss/loss_ops.h"

#include <stdio.h>
#include <string.h>

/* Rows on their way from and to a device, in pinned memory; grown with the largest batch. */
struct staged {
  int64_t rows, own, stride,
      label_stride;       /* what there is room for: rows fetched, own rows, and widths as they lie there */
  void *values;           /* [rows, stride] of the values' type                                 */
  float *labels;          /* [rows, label_stride] as fetched, then [rows, targets]              */
  float *features, *grad; /* [rows, features], [own, features]                                  */
  void *there;            /* [own, features] of the values' type, on the device                 */
};

/* The whole batch, on one rank: all first views, then all second ones; grown with the largest batch. */
struct whole_batch {
  struct comm *comm; /* owned; of this rank alone            */
  int64_t rows;      /* what there is room for               */
  void *own_labels;  /* [own rows, targets], shard by shard  */
  void *z, *labels;  /* [rows, features], [rows, targets]    */
  void *grad;        /* [rows, features]                     */
};

struct regularisers {
  const struct ops *ops;
  struct regulariser_options options;
  int features, targets;
  struct comm *comm;         /* owned; of the host */
  struct comm *data;         /* borrowed; of the device, NULL on the host */
  struct gatherer *gatherer; /* owned */
  int64_t *rows_of_rank;     /* [ranks] */
  struct staged staged;
  struct whole_batch whole; /* of virtual shards */
  /* On a device. */
  const struct loss_ops *losses;   /* NULL on the host */
  struct rows_device *rows_device; /* where ConR lends nothing */
  struct rnc_device *rnc_device;
  struct accon_device *accon_device;
  struct ranksim *ranksim;
  struct rnc *rnc;
  struct accon *accon;
  struct srl *srl;
  int64_t step;
  double value[REGULARISERS];
  double began, seconds; /* of the call at hand; of all since they were asked for */
};

static const struct {
  const char *name;
  enum regulariser_side side;
} kinds[REGULARISERS] = {[REGULARISER_RANKSIM] = {"ranksim", SIDE_REGRESSION},
                         [REGULARISER_RNC] = {"rnc", SIDE_CONTRAST},
                         [REGULARISER_ACCON] = {"accon", SIDE_CONTRAST},
                         [REGULARISER_SRL] = {"srl", SIDE_REGRESSION}};

const char *regulariser_name(enum regulariser which) {
  return kinds[which].name;
}

/* On a device, is this one computed there? */
static bool on_device(const struct regularisers *own, enum regulariser which) {
  return own->losses != NULL && (which == REGULARISER_ACCON || (which == REGULARISER_RNC && own->targets == 1));
}

static bool is_on(const struct regularisers *own, enum regulariser which, bool device) {
  return own->options.on[which] && on_device(own, which) == device;
}

/* --- life ----------------------------------------------------------------------------------------------------- */

static enum status create_terms(struct regularisers *own, enum dtype dtype) {
  const struct regulariser_options *options = &own->options;
  if (options->on[REGULARISER_RANKSIM])
    TRY(ranksim_create(&options->ranksim, own->features, own->targets, dtype, &own->ranksim));
  if (is_on(own, REGULARISER_RNC, false))
    TRY(rnc_create(&options->rnc, own->features, own->targets, dtype, &own->rnc));
  if (is_on(own, REGULARISER_ACCON, false))
    TRY(accon_create(&options->accon, own->features, own->targets, dtype, &own->accon));
  if (options->on[REGULARISER_SRL])
    TRY(srl_create(&options->srl, own->features, own->targets, dtype, &own->srl));
  return STATUS_OK;
}

static enum status create_on_device(struct regularisers *own) {
  const struct ops *ops = own->ops;
  const struct loss_ops *losses = own->losses;
  bool rnc = is_on(own, REGULARISER_RNC, true), accon = is_on(own, REGULARISER_ACCON, true);
  if (accon)
    TRY(accon_check(&own->options.accon, own->targets));
  if (rnc || accon)
    TRY(losses->rows_create(ops->device, own->data, ops->dtype, own->features, own->targets, &own->rows_device));
  if (rnc)
    TRY(losses->rnc_create(ops->device, own->data, ops->dtype, own->features, &own->options.rnc, &own->rnc_device));
  if (accon)
    TRY(losses->accon_create(ops->device, own->data, ops->precision, own->features, &own->options.accon,
                             &own->accon_device));
  return STATUS_OK;
}

static enum status create_own(struct regularisers *own) {
  enum dtype dtype = own->ops->parameter_dtype;
  TRY(gatherer_create(own->comm, dtype, own->features, own->targets, &own->gatherer));
  TRY(memory_alloc((size_t)comm_size(own->comm) * sizeof(int64_t), (void **)&own->rows_of_rank));
  if (own->ops->device != NULL) {
    TRY(loss_ops_open(own->ops->device, &own->losses));
    TRY(create_on_device(own));
  }
  return create_terms(own, dtype);
}

enum status regularisers_create(MPI_Comm mpi, struct comm *data, const struct ops *ops,
                                const struct regulariser_options *options, int features, int targets,
                                struct regularisers **out) {
  struct regularisers *own = NULL;
  struct comm *comm;
  *out = NULL;
  TRY(comm_create(mpi, &comm));
  enum status status = comm_agree(comm, memory_alloc_zero(sizeof *own, (void **)&own)); /* one alone may lack memory */
  if (status != STATUS_OK) {
    memory_free((void **)&own);
    comm_destroy(&comm);
    return status;
  }
  own->comm = comm;
  own->ops = ops;
  own->data = data;
  own->options = *options;
  own->features = features;
  own->targets = targets;
  TRY_GOTO(comm_agree(comm, create_own(own)), failed);
  *out = own;
  return STATUS_OK;
failed:
  regularisers_destroy(&own);
  return status;
}

static void free_staged(struct device *device, struct staged *staged) {
  void **const blocks[] = {&staged->values, (void **)&staged->labels, (void **)&staged->features,
                           (void **)&staged->grad};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
    device_free_pinned(device, blocks[i]);
  device_free(device, &staged->there);
  *staged = (struct staged){0};
}

static void free_whole(struct whole_batch *whole) {
  memory_free(&whole->own_labels);
  memory_free(&whole->z);
  memory_free(&whole->labels);
  memory_free(&whole->grad);
  whole->rows = 0;
}

void regularisers_destroy(struct regularisers **regularisers) {
  struct regularisers *own = *regularisers;
  if (own == NULL)
    return;
  free_staged(own->ops->device, &own->staged);
  free_whole(&own->whole);
  comm_destroy(&own->whole.comm);
  if (own->losses != NULL) {
    own->losses->accon_destroy(&own->accon_device);
    own->losses->rnc_destroy(&own->rnc_device);
    own->losses->rows_destroy(&own->rows_device);
  }
  ranksim_destroy(&own->ranksim);
  rnc_destroy(&own->rnc);
  accon_destroy(&own->accon);
  srl_destroy(&own->srl);
  gatherer_destroy(&own->gatherer);
  memory_free((void **)&own->rows_of_rank);
  comm_destroy(&own->comm);
  memory_free((void **)regularisers);
}

/* Is this one on, of these sides, and computed on the device (or not)? */
static bool takes_part(const struct regularisers *own, int which, int sides, bool device) {
  return (kinds[which].side & sides) && is_on(own, (enum regulariser)which, device);
}

static bool any_takes_part(const struct regularisers *own, int sides, bool device) {
  bool any = false;
  for (int i = 0; i < REGULARISERS; i++)
    any = any || takes_part(own, i, sides, device);
  return any;
}

bool regularisers_any(const struct regularisers *own, int sides) {
  return own != NULL && (any_takes_part(own, sides, false) || any_takes_part(own, sides, true));
}

void regularisers_on_host(const struct regularisers *own, char *text, size_t room) {
  text[0] = 0;
  for (int i = 0; i < REGULARISERS && own != NULL; i++)
    if (takes_part(own, i, SIDE_BOTH, false)) {
      size_t used = strlen(text);
      snprintf(text + used, room - used, "%s%s", used > 0 ? ", " : "", regulariser_name((enum regulariser)i));
    }
}

void regularisers_set_step(struct regularisers *own, int64_t step) {
  if (own != NULL)
    own->step = step;
}

/* --- on the host ---------------------------------------------------------------------------------------------- */

static enum status compute(struct regularisers *own, enum regulariser which, const struct gathered *gathered,
                           void *grad) {
  double coefficient = own->options.coefficient[which], *value = &own->value[which];
  switch (which) {
  case REGULARISER_RANKSIM:
    return ranksim_loss(own->ranksim, gathered, coefficient, grad, value);
  case REGULARISER_RNC:
    return rnc_loss(own->rnc, gathered, coefficient, grad, value);
  case REGULARISER_ACCON:
    return accon_loss(own->accon, gathered, coefficient, grad, value);
  case REGULARISER_SRL:
    return srl_loss(own->srl, gathered, coefficient, grad, value);
  case REGULARISERS:
    break;
  }
  return fail(ERR_BUG, "regulariser %d does not exist", (int)which);
}

static enum status compute_all(struct regularisers *own, int sides, const struct gathered *gathered, void *grad) {
  for (int i = 0; i < REGULARISERS; i++)
    if (takes_part(own, i, sides, false))
      TRY(compute(own, (enum regulariser)i, gathered, grad));
  return STATUS_OK;
}

/* --- of virtual shards ---------------------------------------------------------------------------------------- */

static enum status grow_whole(struct regularisers *own, int64_t rows) {
  struct whole_batch *whole = &own->whole;
  size_t real = dtype_size(own->ops->parameter_dtype), count = (size_t)rows;
  if (whole->comm == NULL)
    TRY(comm_create(MPI_COMM_SELF, &whole->comm));
  if (rows <= whole->rows)
    return STATUS_OK;
  free_whole(whole);
  TRY(memory_alloc(count * (size_t)own->targets * real, &whole->own_labels));
  TRY(memory_alloc(count * (size_t)own->features * real, &whole->z));
  TRY(memory_alloc(count * (size_t)own->targets * real, &whole->labels));
  TRY(memory_alloc(count * (size_t)own->features * real, &whole->grad));
  whole->rows = rows;
  return STATUS_OK;
}

/* Shards first .. end - 1 of the batch, and the samples before them. */
struct shard_range {
  int first, end;
  int64_t before;
};

static struct shard_range shards_between(const struct regulariser_share *share, int first_rank, int end_rank) {
  struct shard_range range = {0};
  for (int rank = 0; rank < end_rank; rank++) {
    range.first += rank < first_rank ? share->shards_of_rank[rank] : 0;
    range.end += share->shards_of_rank[rank];
  }
  for (int shard = 0; shard < range.first; shard++)
    range.before += share->samples_of_shard[shard];
  return range;
}

static char *real_at(const struct regularisers *own, const void *rows, int64_t row, int64_t width) {
  return (char *)rows + (size_t)(row * width) * dtype_size(own->ops->parameter_dtype);
}

/* Rows of a range of shards in both orders: shard by shard, each view by view, and view by view, each `samples` long, from
 * sample `before` on.  Copies to the second, or with `back` to the first. */
static void turn(const struct regularisers *own, const struct regulariser_share *share, struct shard_range range,
                 int64_t before, int64_t samples, int64_t width, void *by_shard, void *by_view, bool back) {
  for (int shard = range.first; shard < range.end; shard++) {
    int64_t count = share->samples_of_shard[shard];
    for (int view = 0; view < share->views; view++) {
      char *there = real_at(own, by_view, view * samples + before, width);
      size_t bytes = (size_t)(count * width) * dtype_size(own->ops->parameter_dtype);
      memcpy(back ? (char *)by_shard : there, back ? there : (char *)by_shard, bytes);
      by_shard = real_at(own, by_shard, count, width);
    }
    before += count;
  }
}

/* The rows of all ranks, shard by shard. */
static enum status collect_shards(struct regularisers *own, const struct regulariser_share *share,
                                  struct shard_range mine, struct lent_rows *out) {
  struct gather_share rows = {.rows_of_rank = own->rows_of_rank, .views = share->views, .features = share->features};
  struct gathered gathered;
  int64_t samples = share->samples_of_rank[comm_rank(own->comm)];
  *out = share->lent;
  if (share->lent.there)
    return STATUS_OK;
  turn(own, share, mine, 0, samples, own->targets, own->whole.own_labels, (void *)share->labels, true);
  rows.labels = own->whole.own_labels;
  TRY(gatherer_collect(own->gatherer, &rows, &gathered));
  out->z = gathered.z;
  out->labels = gathered.labels;
  return STATUS_OK;
}

static enum status add_whole_batch(struct regularisers *own, int sides, const struct regulariser_share *share,
                                   void *grad) {
  struct whole_batch *whole = &own->whole;
  int size = comm_size(own->comm), rank = comm_rank(own->comm);
  struct shard_range all = shards_between(share, 0, size), mine = shards_between(share, rank, rank + 1);
  struct lent_rows from;
  int64_t samples = 0, own_rows = own->rows_of_rank[rank] * own->features;
  for (int r = 0; r < size; r++)
    samples += share->samples_of_rank[r];
  int64_t rows = share->views * samples;
  TRY(comm_agree(own->comm, grow_whole(own, rows)));
  TRY(collect_shards(own, share, mine, &from));
  turn(own, share, all, 0, samples, own->features, (void *)from.z, whole->z, false);
  turn(own, share, all, 0, samples, own->targets, (void *)from.labels, whole->labels, false);
  memset(whole->grad, 0, (size_t)(rows * own->features) * dtype_size(own->ops->parameter_dtype));
  struct gathered gathered = {.comm = whole->comm,
                              .dtype = own->ops->parameter_dtype,
                              .features = own->features,
                              .targets = own->targets,
                              .rows = rows,
                              .own = rows,
                              .rows_of_rank = &rows,
                              .z = whole->z,
                              .labels = whole->labels,
                              .views = share->views,
                              .seed = own->options.seed,
                              .step = own->step};
  TRY(compute_all(own, sides, &gathered, whole->grad));
  turn(own, share, mine, mine.before, samples, own->features, whole->z, whole->grad, true); /* z is done with */
  return own_rows > 0 ? own->ops->add((size_t)own_rows, 1, whole->z, grad) : STATUS_OK;
}

/* --- on the host, shared by the ranks ------------------------------------------------------------------------- */

/* share: in host memory, all of the parameters' type */
static enum status add_on_host(struct regularisers *own, int sides, const struct regulariser_share *share, void *grad) {
  struct gather_share rows = {.rows_of_rank = own->rows_of_rank,
                              .views = share->views,
                              .seed = own->options.seed,
                              .step = own->step,
                              .features = share->features,
                              .labels = share->labels};
  struct gathered gathered;
  if (share->samples_of_shard != NULL)
    return add_whole_batch(own, sides, share, grad);
  if (share->lent.there)
    gatherer_borrow(own->gatherer, &rows, share->lent.z, share->lent.labels, &gathered);
  else
    TRY(gatherer_collect(own->gatherer, &rows, &gathered));
  return compute_all(own, sides, &gathered, grad);
}

/* --- on a device, by way of the host --------------------------------------------------------------------------- */

static int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}

/* Room for `rows` rows as they lie in `from`, and for the gradient of `own_rows`. */
static enum status grow(struct regularisers *own, int64_t rows, const struct lent_rows *from, int64_t own_rows) {
  struct device *device = own->ops->device;
  struct staged *staged = &own->staged, wanted = {.rows = larger(rows, staged->rows),
                                                  .own = larger(own_rows, staged->own),
                                                  .stride = larger(from->stride, staged->stride),
                                                  .label_stride = larger(from->label_stride, staged->label_stride)};
  size_t value = dtype_size(own->ops->dtype);
  if (wanted.rows == staged->rows && wanted.own == staged->own && wanted.stride == staged->stride &&
      wanted.label_stride == staged->label_stride)
    return STATUS_OK;
  TRY(device_wait(device)); /* it may still be read from */
  free_staged(device, staged);
  TRY(device_alloc_pinned(device, (size_t)(wanted.rows * wanted.stride) * value, &staged->values));
  TRY(device_alloc_pinned(device, (size_t)(wanted.rows * wanted.label_stride) * sizeof(float),
                          (void **)&staged->labels));
  TRY(device_alloc_pinned(device, (size_t)(wanted.rows * own->features) * sizeof(float), (void **)&staged->features));
  TRY(device_alloc_pinned(device, (size_t)(wanted.own * own->features) * sizeof(float), (void **)&staged->grad));
  TRY(device_alloc(device, (size_t)(wanted.own * own->features) * value, &staged->there));
  staged->rows = wanted.rows;
  staged->own = wanted.own;
  staged->stride = wanted.stride;
  staged->label_stride = wanted.label_stride;
  return STATUS_OK;
}

static enum status fetch(struct regularisers *own, int64_t rows, const struct lent_rows *from) {
  struct device *device = own->ops->device;
  struct staged *staged = &own->staged;
  enum dtype dtype = own->ops->dtype;
  TRY(device_copy(device, staged->values, from->z, (size_t)(rows * from->stride) * dtype_size(dtype)));
  TRY(device_copy(device, staged->labels, from->labels, (size_t)(rows * from->label_stride) * sizeof(float)));
  TRY(comm_device_wait(own->data));
#pragma omp parallel for schedule(static) if (rows * own->features > 16384)
  for (int64_t row = 0; row < rows; row++)
    for (int k = 0; k < own->features; k++)
      staged->features[row * own->features + k] = (float)dtype_get(dtype, staged->values, row * from->stride + k);
  for (int64_t row = 0; row < rows; row++)
    memmove(staged->labels + row * own->targets, staged->labels + row * from->label_stride,
            (size_t)own->targets * sizeof(float));
  return STATUS_OK;
}

/* The gradient is read from pinned memory before the next rows come: they wait for the device. */
static enum status send_back(struct regularisers *own, int64_t rows, void *grad_features) {
  struct staged *staged = &own->staged;
  size_t features = (size_t)(rows * own->features);
  for (size_t i = 0; i < features; i++)
    dtype_put(own->ops->dtype, staged->values, (int64_t)i, staged->grad[i]);
  TRY(device_copy(own->ops->device, staged->there, staged->values, features * dtype_size(own->ops->dtype)));
  return own->ops->add(features, 1, staged->there, grad_features);
}

struct add_call {
  struct regularisers *regularisers;
  int sides;
  struct regulariser_share share;
  void *grad_features;
};

/* Rows that somebody lends are those of all ranks. */
static enum status by_way_of_host(const struct add_call *call) {
  struct regularisers *own = call->regularisers;
  struct regulariser_share here = call->share;
  struct staged *staged = &own->staged;
  int64_t own_rows = own->rows_of_rank[comm_rank(own->comm)], rows = own_rows;
  struct lent_rows from = {
      .stride = own->features, .label_stride = own->targets, .z = here.features, .labels = here.labels};
  if (here.lent.there) {
    from = here.lent;
    rows = 0;
    for (int rank = 0; rank < comm_size(own->comm); rank++)
      rows += own->rows_of_rank[rank];
  }
  TRY(comm_agree(own->comm, grow(own, rows, &from, own_rows)));
  TRY(fetch(own, rows, &from)); /* fails where a rank is lost: nothing is to be agreed then */
  own->began = log_seconds();   /* the device has done what came before, and waits */
  here.features = here.lent.z = staged->features;
  here.labels = here.lent.labels = staged->labels;
  if (own_rows > 0)
    memset(staged->grad, 0, (size_t)(own_rows * own->features) * sizeof *staged->grad);
  TRY(add_on_host(own, call->sides, &here, staged->grad));
  return own_rows > 0 ? send_back(own, own_rows, call->grad_features) : STATUS_OK;
}

/* --- a step --------------------------------------------------------------------------------------------------- */

static enum status add(const void *arguments) {
  const struct add_call *call = arguments;
  struct regularisers *own = call->regularisers;
  own->began = log_seconds();
  enum status status = own->ops->device == NULL ? add_on_host(own, call->sides, &call->share, call->grad_features)
                                                : by_way_of_host(call);
  own->seconds += log_seconds() - own->began;
  return status;
}

/* Rows of this call, which the host knows also of kept work. */
static enum status note_rows(const void *arguments) {
  const struct add_call *call = arguments;
  struct regularisers *own = call->regularisers;
  for (int rank = 0; rank < comm_size(own->comm); rank++)
    own->rows_of_rank[rank] = call->share.views * call->share.samples_of_rank[rank];
  return STATUS_OK;
}

/* The others can borrow what is gathered for those that the device computes. */
static enum status add_on_device(const struct add_call *call, struct lent_rows *lent) {
  struct regularisers *own = call->regularisers;
  const struct regulariser_share *share = &call->share;
  if (!lent->there)
    TRY(own->losses->rows_collect(own->rows_device, own->rows_of_rank, share->features, share->labels, lent));
  if (takes_part(own, REGULARISER_RNC, call->sides, true))
    TRY(own->losses->rnc_loss(own->rnc_device, own->rows_of_rank, lent, own->options.coefficient[REGULARISER_RNC],
                              call->grad_features));
  if (takes_part(own, REGULARISER_ACCON, call->sides, true))
    TRY(own->losses->accon_loss(own->accon_device, own->rows_of_rank, lent, own->options.coefficient[REGULARISER_ACCON],
                                share->features, call->grad_features));
  return STATUS_OK;
}

/* No graph waits for the host: one that is kept ends where the host computes. */
enum status regularisers_add(struct regularisers *own, int sides, const struct regulariser_share *share,
                             void *grad_features) {
  struct add_call call = {own, sides, *share, grad_features};
  if (!regularisers_any(own, sides))
    return STATUS_OK;
  TRY(replay_note(own->ops->device, note_rows, &call, sizeof call));
  if (any_takes_part(own, sides, true))
    TRY(add_on_device(&call, &call.share.lent));
  if (!any_takes_part(own, sides, false))
    return STATUS_OK;
  return replay_call(own->ops->device, add, &call, sizeof call);
}

double regularisers_value(const struct regularisers *own, enum regulariser which) {
  if (own != NULL && which == REGULARISER_ACCON && own->accon_device != NULL)
    return own->losses->accon_value(own->accon_device);
  if (own != NULL && which == REGULARISER_RNC && own->rnc_device != NULL)
    return own->losses->rnc_value(own->rnc_device);
  return own != NULL ? own->value[which] : 0;
}

double regularisers_total(const struct regularisers *own) {
  double total = 0;
  for (int i = 0; i < REGULARISERS && own != NULL; i++)
    total += own->options.on[i] ? own->options.coefficient[i] * regularisers_value(own, (enum regulariser)i) : 0;
  return total;
}

void regularisers_seconds(struct regularisers *own, double *gather, double *all) {
  *gather = own != NULL ? gatherer_seconds(own->gatherer) : 0;
  *all = own != NULL ? own->seconds : 0;
  if (own != NULL)
    own->seconds = 0;
}

void regularisers_end_epoch(struct regularisers *own) {
  if (own != NULL && own->srl != NULL)
    srl_end_epoch(own->srl);
}

size_t regularisers_states(struct regularisers *own, struct state_array states[REGULARISER_STATES]) {
  if (own == NULL || own->srl == NULL)
    return 0;
  states[0].name = "srl";
  srl_state(own->srl, &states[0].values, &states[0].count);
  return 1;
}
