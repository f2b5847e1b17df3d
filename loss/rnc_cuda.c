/* RnC on a GPU: one sweep over panels of own rows; what they do to all rows is summed over ranks. */
#include "loss/rnc_cuda.h"

#include "dist/memory.h"
#include "loss/conr_cuda.h"
#include "loss/rnc_kernels.h"
#include "loss/rows_cuda.h"
#include "loss/rows_kernels.h"

struct rnc_device {
  struct device *device; /* borrowed: must outlive this */
  struct comm *comm;     /* borrowed: must outlive this */
  struct product *product;
  struct rnc_options options;
  enum dtype dtype; /* of values */
  int features, stride;
  double *report; /* the value, pinned */
  double *value;  /* on the device     */
  float *mean;    /* [features]        */
  /* Sized by the largest batch seen. */
  struct rows_room room;
  float *numbers;            /* [4, pitch] square, length, label, sorted        */
  int32_t *indices;          /* [2, pitch] order, and numbers to be sorted      */
  double *sums;              /* [pitch]                                         */
  float *centred, *gradient; /* [pitch, stride]                                 */
  double *values;            /* [own rows]                                      */
  float *pairs;              /* [room.panel]                                    */
  uint32_t *near;            /* a bit for each of them                          */
  double *scratch;           /* of the walks over labels                        */
  void *sort;                /* [sort_capacity] scratch of the sort             */
  size_t sort_capacity;
  /* The batch at hand. */
  struct rnc_columns columns;
  struct rows_share share;
};

/* --- life ------------------------------------------------------------------------------------------------------ */

static enum status set_up(struct rnc_device *own) {
  TRY(device_alloc_pinned(own->device, sizeof *own->report, (void **)&own->report));
  *own->report = 0;
  TRY(device_alloc(own->device, sizeof *own->value, (void **)&own->value));
  TRY(device_alloc(own->device, (size_t)own->features * sizeof *own->mean, (void **)&own->mean));
  /* Whatever the features: distances are differences of products. */
  return product_create(own->device, PRECISION_F32, &own->product);
}

enum status rnc_device_create(struct device *device, struct comm *comm, enum dtype dtype, int features,
                              const struct rnc_options *options, struct rnc_device **out) {
  *out = NULL;
  TRY(rnc_check(options));
  TRY(memory_alloc_zero(sizeof **out, (void **)out));
  struct rnc_device *own = *out;
  own->device = device;
  own->comm = comm;
  own->options = *options;
  own->dtype = dtype;
  own->features = features;
  own->stride = (int)conr_rounded(features, CONR_ALIGN);
  own->room = (struct rows_room){.rows = -1};
  enum status status = set_up(own);
  if (status != STATUS_OK)
    rnc_device_destroy(out);
  return status;
}

static void free_batch(struct rnc_device *own) {
  void **const blocks[] = {(void **)&own->numbers,  (void **)&own->indices,
                           (void **)&own->sums,     (void **)&own->centred,
                           (void **)&own->gradient, (void **)&own->values,
                           (void **)&own->pairs,    (void **)&own->near,
                           (void **)&own->scratch,  &own->sort};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
    device_free(own->device, blocks[i]);
  own->room = (struct rows_room){.rows = -1};
}

void rnc_device_destroy(struct rnc_device **rnc) {
  struct rnc_device *own = *rnc;
  if (own == NULL)
    return;
  free_batch(own);
  product_destroy(&own->product);
  device_free(own->device, (void **)&own->mean);
  device_free(own->device, (void **)&own->value);
  device_free_pinned(own->device, (void **)&own->report);
  memory_free((void **)rnc);
}

/* --- memory ---------------------------------------------------------------------------------------------------- */

/* Marks of a panel: its rows x words of its pitch, where pitches of fewer rows have more rows. */
static size_t most_words(int64_t panel, int64_t most_own) {
  return (size_t)(panel / RNC_WORD + conr_most_panel_rows(most_own));
}

static enum status allocate(struct rnc_device *own, const struct rows_room *room) {
  int64_t rows = room->rows, panel = room->panel;
  size_t pitch = (size_t)conr_rounded(rows + 1, CONR_ALIGN), wide = pitch * (size_t)own->stride;
  struct device *device = own->device;
  own->sort_capacity = sort_bytes(rows);
  TRY(device_alloc(device, 4 * pitch * sizeof *own->numbers, (void **)&own->numbers));
  TRY(device_alloc(device, 2 * pitch * sizeof *own->indices, (void **)&own->indices));
  TRY(device_alloc(device, pitch * sizeof *own->sums, (void **)&own->sums));
  TRY(device_alloc(device, wide * sizeof *own->centred, (void **)&own->centred));
  TRY(device_alloc(device, wide * sizeof *own->gradient, (void **)&own->gradient));
  TRY(device_alloc(device, (size_t)(room->own + 1) * sizeof *own->values, (void **)&own->values));
  TRY(device_alloc(device, (size_t)panel * sizeof *own->pairs, (void **)&own->pairs));
  TRY(device_alloc(device, most_words(panel, room->own) * sizeof *own->near, (void **)&own->near));
  TRY(device_alloc(device, rnc_scratch_bytes(rows, conr_most_panel_rows(room->own)) + 1, (void **)&own->scratch));
  return device_alloc(device, own->sort_capacity + 1, &own->sort);
}

/* Follows from counts that all ranks know, so all come here together. */
static enum status grow(struct rnc_device *own) {
  if (rows_room_suffices(&own->room, &own->share))
    return STATUS_OK;
  struct rows_room room = rows_room_grown(&own->room, &own->share);
  free_batch(own);
  TRY(comm_agree(own->comm, allocate(own, &room)));
  own->room = room;
  return STATUS_OK;
}

/* --- a batch --------------------------------------------------------------------------------------------------- */

static enum status size_batch(struct rnc_device *own, const int64_t *rows_of_rank) {
  own->share = rows_share_of(own->comm, rows_of_rank);
  TRY(grow(own));
  int64_t rows = own->share.rows;
  int64_t pitch = conr_rounded(rows, CONR_ALIGN);
  own->columns = (struct rnc_columns){.rows = rows,
                                      .pitch = pitch,
                                      .stride = own->stride,
                                      .mean = own->mean,
                                      .centred = own->centred,
                                      .square = own->numbers,
                                      .length = own->numbers + pitch,
                                      .label = own->numbers + 2 * pitch,
                                      .sorted = own->numbers + 3 * pitch,
                                      .order = own->indices,
                                      .sums = own->sums,
                                      .gradient = own->gradient};
  return STATUS_OK;
}

/* Rows about their mean, labels in their order, sums that begin at 0. */
static enum status begin(struct rnc_device *own, const struct rnc_rows *all, const struct lent_rows *rows) {
  struct stream *stream = device_main(own->device);
  const struct rnc_columns *columns = &own->columns;
  int32_t *numbers = own->indices + columns->pitch;
  TRY(rnc_measure_launch(all, columns, rows->labels, rows->label_stride, numbers, stream));
  TRY(sort_launch(columns->rows, columns->label, numbers, columns->sorted, columns->order, own->sort,
                  own->sort_capacity, stream));
  TRY(device_zero(own->device, columns->sums, (size_t)columns->pitch * sizeof *columns->sums));
  return device_zero(own->device, columns->gradient,
                     (size_t)(columns->pitch * columns->stride) * sizeof *columns->gradient);
}

/* Own rows from `done` on against all. */
static enum status do_panel(struct rnc_device *own, const struct rnc_scale *scale, const struct rnc_rows *all,
                            int64_t done, struct rnc_panel *panel) {
  struct stream *stream = device_main(own->device);
  const struct rnc_columns *columns = &own->columns;
  int64_t left = own->share.own - done, most = conr_panel_rows(own->room.panel, columns->pitch, own->share.own);
  int64_t first = own->share.first + done, stride = own->stride;
  *panel = (struct rnc_panel){.rows = (int)(left < most ? left : most),
                              .first = first,
                              .pairs = own->pairs,
                              .near = own->near,
                              .values = own->values + done};
  TRY(product_similarities(own->product, panel->rows, columns->pitch, stride, 1, columns->centred + first * stride,
                           columns->centred, panel->pairs));
  TRY(rnc_pairs_launch(scale, all, columns, panel, own->scratch, stream));
  TRY(rnc_columns_launch(all, columns, panel, stream));
  TRY(product_add_gradients(own->product, panel->rows, columns->pitch, stride, panel->pairs, columns->centred,
                            columns->gradient + first * stride));
  return product_add_columns(own->product, panel->rows, columns->pitch, stride, panel->pairs,
                             columns->centred + first * stride, columns->gradient);
}

static enum status do_share(struct rnc_device *own, const struct lent_rows *rows, double coefficient) {
  double count = (double)own->columns.rows, norm = 1 / (count * (count - 1));
  struct rnc_rows all = {.dtype = own->dtype, .features = own->features, .stride = rows->stride, .z = rows->z};
  struct rnc_scale scale = {.inverse_t = 1 / own->options.temperature,
                            .norm = norm,
                            .coefficient = coefficient * norm / own->options.temperature};
  struct rnc_panel panel;
  TRY(begin(own, &all, rows));
  for (int64_t done = 0; done < own->share.own; done += panel.rows)
    TRY(do_panel(own, &scale, &all, done, &panel));
  TRY(rows_value_launch(own->share.own, own->values, own->value, device_main(own->device)));
  return rnc_close_launch(&own->columns, device_main(own->device));
}

enum status rnc_device_loss(struct rnc_device *own, const int64_t *rows_of_rank, const struct lent_rows *rows,
                            double coefficient, void *grad_features) {
  TRY(size_batch(own, rows_of_rank));
  const struct rnc_columns *columns = &own->columns;
  if (columns->rows < 2) {
    TRY(device_zero(own->device, own->value, sizeof *own->value));
    return device_copy(own->device, own->report, own->value, sizeof *own->report);
  }
  TRY(do_share(own, rows, coefficient));
  if (comm_size(own->comm) > 1)
    TRY(comm_sum(own->comm, F32, columns->gradient, (size_t)(columns->rows * columns->stride)));
  TRY(comm_sum(own->comm, F64, own->value, 1));
  TRY(rnc_add_launch(columns, own->dtype, own->features, own->share.first, own->share.own, grad_features,
                     device_main(own->device)));
  return device_copy(own->device, own->report, own->value, sizeof *own->report);
}

double rnc_device_value(const struct rnc_device *own) {
  return *own->report;
}
