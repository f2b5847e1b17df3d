/* Rows of all ranks on a GPU, where ConR has none to lend. */
#include "loss/rows_cuda.h"

#include "dist/memory.h"
#include "loss/conr_blocks.h"
#include "loss/conr_cuda.h"

/* --- shares and room ------------------------------------------------------------------------------------------ */

struct rows_share rows_share_of(const struct comm *comm, const int64_t *rows_of_rank) {
  struct rows_share share = {.own = rows_of_rank[comm_rank(comm)]};
  for (int rank = 0; rank < comm_size(comm); rank++) {
    share.first = rank == comm_rank(comm) ? share.rows : share.first;
    share.rows += rows_of_rank[rank];
    share.most_own = rows_of_rank[rank] > share.most_own ? rows_of_rank[rank] : share.most_own;
  }
  return share;
}

bool rows_room_suffices(const struct rows_room *room, const struct rows_share *share) {
  return share->rows <= room->rows && share->most_own <= room->own;
}

struct rows_room rows_room_grown(const struct rows_room *room, const struct rows_share *share) {
  struct rows_room grown = {.rows = share->rows > room->rows ? share->rows : room->rows,
                            .own = share->most_own > room->own ? share->most_own : room->own};
  grown.panel = conr_panel_capacity(grown.rows, grown.own);
  return grown;
}

/* --- gathers ---------------------------------------------------------------------------------------------------- */

struct rows_device {
  struct device *device; /* borrowed: must outlive this */
  struct comm *comm;     /* borrowed: must outlive this */
  enum dtype dtype;
  int features, targets, stride;
  int64_t capacity; /* rows                                                         */
  void *z;          /* [rows, stride], zeros up to a multiple of CONR_ALIGN rows    */
  float *labels;    /* [rows, targets]                                              */
  struct conr_blocks blocks;
};

enum status rows_device_create(struct device *device, struct comm *comm, enum dtype dtype, int features, int targets,
                               struct rows_device **out) {
  TRY(memory_alloc_zero(sizeof **out, (void **)out));
  struct rows_device *own = *out;
  own->device = device;
  own->comm = comm;
  own->dtype = dtype;
  own->features = features;
  own->targets = targets;
  own->stride = (int)conr_rounded(features, CONR_ALIGN);
  own->capacity = -1;
  enum status status = conr_blocks_create(device, comm, &own->blocks);
  if (status != STATUS_OK)
    rows_device_destroy(out);
  return status;
}

static void free_rows(struct rows_device *own) {
  device_free(own->device, &own->z);
  device_free(own->device, (void **)&own->labels);
  own->capacity = -1;
}

void rows_device_destroy(struct rows_device **rows) {
  struct rows_device *own = *rows;
  if (own == NULL)
    return;
  if (conr_blocks_in_flight(&own->blocks)) {
    *rows = NULL; /* they may still write to what would be freed */
    return;
  }
  conr_blocks_destroy(&own->blocks);
  free_rows(own);
  memory_free((void **)rows);
}

static size_t row_bytes(const struct rows_device *own) {
  return (size_t)own->stride * dtype_size(own->dtype);
}

static size_t label_bytes(const struct rows_device *own) {
  return (size_t)own->targets * sizeof *own->labels;
}

static enum status allocate(struct rows_device *own, int64_t rows) {
  TRY(device_alloc(own->device, (size_t)conr_rounded(rows + 1, CONR_ALIGN) * row_bytes(own), &own->z));
  return device_alloc(own->device, (size_t)(rows + 1) * label_bytes(own), (void **)&own->labels);
}

/* All ranks come here together. */
static enum status grow(struct rows_device *own, int64_t rows) {
  if (rows <= own->capacity)
    return STATUS_OK;
  free_rows(own);
  TRY(comm_agree(own->comm, allocate(own, rows)));
  own->capacity = rows;
  return STATUS_OK;
}

enum status rows_device_collect(struct rows_device *own, const int64_t *rows_of_rank, const void *features,
                                const float *labels, struct lent_rows *out) {
  struct rows_share share = rows_share_of(own->comm, rows_of_rank);
  int64_t rows = share.rows, mine = share.own;
  TRY(conr_blocks_begin(&own->blocks, 2));
  TRY(grow(own, rows));
  TRY(conr_blocks_place(&own->blocks, rows_of_rank, rows_of_rank, NULL));
  TRY(conr_pad_launch(own->dtype, mine, own->features, own->stride, features,
                      (char *)own->z + (size_t)own->blocks.own * row_bytes(own), device_main(own->device)));
  TRY(device_copy(own->device, own->labels + own->blocks.own * own->targets, labels, (size_t)mine * label_bytes(own)));
  TRY(conr_blocks_gather(&own->blocks, rows_of_rank, row_bytes(own), own->z));
  TRY(conr_blocks_gather(&own->blocks, rows_of_rank, label_bytes(own), own->labels));
  TRY(conr_blocks_finish(&own->blocks, rows));
  *out = (struct lent_rows){
      .there = true, .stride = own->stride, .label_stride = own->targets, .z = own->z, .labels = own->labels};
  return device_zero(own->device, (char *)own->z + (size_t)rows * row_bytes(own),
                     (size_t)(conr_rounded(rows, CONR_ALIGN) - rows) * row_bytes(own));
}
