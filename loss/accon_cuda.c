/* ACCon on a GPU: two sweeps over panels of own rows, a gather of two numbers a row between them. */
#include "loss/accon_cuda.h"

#include "dist/memory.h"
#include "loss/accon_kernels.h"
#include "loss/conr_cuda.h"
#include "loss/rows_cuda.h"
#include "loss/rows_kernels.h"

struct accon_device {
  struct device *device; /* borrowed: must outlive this */
  struct comm *comm;     /* borrowed: must outlive this */
  struct product *product;
  struct accon_rule rule;
  enum dtype dtype; /* of values */
  int features, stride;
  double *report; /* the value, pinned  */
  double *value;  /* on the device      */
  /* Sized by the largest batch seen. */
  struct rows_room room;
  float *numbers;     /* [7, pitch]: what columns points to           */
  double *scalars;    /* [rows, 2]                                    */
  double *values;     /* [own rows]                                   */
  float *products;    /* [room.panel]                                 */
  void *coefficients; /* [room.panel] bfloat16, else NULL             */
  float *tile;        /* [panel rows, stride]                         */
  /* The batch at hand. */
  struct accon_columns columns;
  struct rows_share share;
};

/* --- life ------------------------------------------------------------------------------------------------------ */

static enum status set_up(struct accon_device *own, enum precision precision) {
  TRY(device_alloc_pinned(own->device, sizeof *own->report, (void **)&own->report));
  *own->report = 0;
  TRY(device_alloc(own->device, sizeof *own->value, (void **)&own->value));
  /* Not TF32: the sine of a small angle is a difference from 1. */
  return product_create(own->device, precision == PRECISION_BF16 ? PRECISION_BF16 : PRECISION_F32, &own->product);
}

enum status accon_device_create(struct device *device, struct comm *comm, enum precision precision, int features,
                                const struct accon_options *options, struct accon_device **out) {
  *out = NULL;
  TRY(accon_check(options, 1));
  TRY(memory_alloc_zero(sizeof **out, (void **)out));
  struct accon_device *own = *out;
  own->device = device;
  own->comm = comm;
  own->rule = accon_rule_of(options);
  own->dtype = precision == PRECISION_BF16 ? BF16 : F32;
  own->features = features;
  own->stride = (int)conr_rounded(features, CONR_ALIGN);
  own->room = (struct rows_room){.rows = -1};
  enum status status = set_up(own, precision);
  if (status != STATUS_OK)
    accon_device_destroy(out);
  return status;
}

static void free_batch(struct accon_device *own) {
  void **const blocks[] = {(void **)&own->numbers,  (void **)&own->scalars, (void **)&own->values,
                           (void **)&own->products, &own->coefficients,     (void **)&own->tile};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
    device_free(own->device, blocks[i]);
  own->room = (struct rows_room){.rows = -1};
}

void accon_device_destroy(struct accon_device **accon) {
  struct accon_device *own = *accon;
  if (own == NULL)
    return;
  free_batch(own);
  product_destroy(&own->product);
  device_free(own->device, (void **)&own->value);
  device_free_pinned(own->device, (void **)&own->report);
  memory_free((void **)accon);
}

/* --- memory ---------------------------------------------------------------------------------------------------- */

static enum status allocate(struct accon_device *own, const struct rows_room *room) {
  size_t pitch = (size_t)conr_rounded(room->rows + 1, CONR_ALIGN), panel = (size_t)room->panel;
  struct device *device = own->device;
  TRY(device_alloc(device, 7 * pitch * sizeof *own->numbers, (void **)&own->numbers));
  TRY(device_alloc(device, 2 * pitch * sizeof *own->scalars, (void **)&own->scalars));
  TRY(device_alloc(device, (size_t)(room->own + 1) * sizeof *own->values, (void **)&own->values));
  TRY(device_alloc(device, panel * sizeof *own->products, (void **)&own->products));
  if (own->dtype == BF16)
    TRY(device_alloc(device, panel * dtype_size(BF16), &own->coefficients));
  return device_alloc(device, (size_t)conr_most_panel_rows(room->own) * (size_t)own->stride * sizeof *own->tile,
                      (void **)&own->tile);
}

/* Follows from counts that all ranks know, so all come here together. */
static enum status grow(struct accon_device *own) {
  if (rows_room_suffices(&own->room, &own->share))
    return STATUS_OK;
  struct rows_room room = rows_room_grown(&own->room, &own->share);
  free_batch(own);
  TRY(comm_agree(own->comm, allocate(own, &room)));
  own->room = room;
  return STATUS_OK;
}

/* --- a batch --------------------------------------------------------------------------------------------------- */

static enum status size_batch(struct accon_device *own, const int64_t *rows_of_rank) {
  own->share = rows_share_of(own->comm, rows_of_rank);
  TRY(grow(own));
  int64_t rows = own->share.rows;
  struct accon_columns *columns = &own->columns;
  float **const arrays[] = {&columns->inverse, &columns->label, &columns->cosine,  &columns->sine,
                            &columns->pull,    &columns->push,  &columns->subtract};
  columns->rows = rows;
  columns->pitch = conr_rounded(rows, CONR_ALIGN);
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
    *arrays[i] = own->numbers + (int64_t)i * columns->pitch;
  return STATUS_OK;
}

static int panel_rows(const struct accon_device *own) {
  return conr_panel_rows(own->room.panel, own->columns.pitch, own->share.own);
}

/* The products of own rows from `done` on with all. */
static enum status multiply(struct accon_device *own, const struct lent_rows *rows, int64_t done,
                            struct accon_panel *panel) {
  int64_t left = own->share.own - done, most = panel_rows(own);
  *panel = (struct accon_panel){
      .rows = (int)(left < most ? left : most), .first = own->share.first + done, .products = own->products};
  const char *z = rows->z;
  return product_similarities(own->product, panel->rows, own->columns.pitch, own->stride, 1,
                              z + (size_t)(panel->first * own->stride) * dtype_size(own->dtype), z, own->products);
}

static enum status sum_rows(struct accon_device *own, const struct lent_rows *rows) {
  struct accon_panel panel;
  for (int64_t done = 0; done < own->share.own; done += panel.rows) {
    TRY(multiply(own, rows, done, &panel));
    TRY(accon_sums_launch(&own->rule, &own->columns, &panel, own->scalars, own->values + done,
                          device_main(own->device)));
  }
  return rows_value_launch(own->share.own, own->values, own->value, device_main(own->device));
}

static enum status add_gradients(struct accon_device *own, const struct lent_rows *rows, double coefficient,
                                 const void *features, void *grad_features) {
  struct stream *stream = device_main(own->device);
  void *h = own->dtype == BF16 ? own->coefficients : own->products;
  struct accon_panel panel;
  for (int64_t done = 0; done < own->share.own; done += panel.rows) {
    size_t from = (size_t)(done * own->features) * dtype_size(own->dtype);
    TRY(multiply(own, rows, done, &panel));
    TRY(accon_coefficients_launch(&own->rule, &own->columns, &panel, own->dtype, h, stream));
    TRY(product_gradients(own->product, panel.rows, own->columns.pitch, own->stride, h, rows->z, own->tile));
    TRY(conr_finish_launch(own->dtype, panel.rows, own->features, own->stride, coefficient, own->tile,
                           (const char *)features + from, own->columns.inverse + panel.first, true,
                           (char *)grad_features + from, stream));
  }
  return STATUS_OK;
}

enum status accon_device_loss(struct accon_device *own, const int64_t *rows_of_rank, const struct lent_rows *rows,
                              double coefficient, const void *features, void *grad_features) {
  struct stream *stream = device_main(own->device);
  TRY(size_batch(own, rows_of_rank));
  TRY(accon_measure_launch(&own->rule, own->dtype, own->features, rows->stride, rows->z, rows->labels,
                           rows->label_stride, &own->columns, stream));
  TRY(sum_rows(own, rows));
  TRY(comm_gather_rows(own->comm, NULL, rows_of_rank, 2 * sizeof *own->scalars, own->scalars));
  TRY(comm_sum(own->comm, F64, own->value, 1));
  TRY(accon_scales_launch(&own->rule, &own->columns, own->scalars, stream));
  TRY(add_gradients(own, rows, coefficient, features, grad_features));
  return device_copy(own->device, own->report, own->value, sizeof *own->report);
}

double accon_device_value(const struct accon_device *own) {
  return *own->report;
}
