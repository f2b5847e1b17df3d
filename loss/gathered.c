/* One gather of a batch's rows for all regularisers. */
#include "loss/gathered.h"

#include "dist/log.h"
#include "dist/memory.h"

struct gatherer {
  struct comm *comm;
  enum dtype dtype;
  int features, targets;
  int64_t capacity; /* rows */
  void *z, *labels;
  double seconds;
};

enum status gatherer_create(struct comm *comm, enum dtype dtype, int features, int targets, struct gatherer **out) {
  struct gatherer *own;
  *out = NULL;
  TRY(memory_alloc_zero(sizeof *own, (void **)&own));
  *own = (struct gatherer){.comm = comm, .dtype = dtype, .features = features, .targets = targets};
  *out = own;
  return STATUS_OK;
}

static void free_rows(struct gatherer *own) {
  memory_free(&own->z);
  memory_free(&own->labels);
  own->capacity = 0;
}

void gatherer_destroy(struct gatherer **gatherer) {
  if (*gatherer == NULL)
    return;
  free_rows(*gatherer);
  memory_free((void **)gatherer);
}

static enum status alloc_rows(struct gatherer *own, int64_t rows, int64_t width, void **out) {
  return memory_alloc((size_t)(rows * width) * dtype_size(own->dtype), out);
}

static enum status make_room(struct gatherer *own, int64_t rows) {
  free_rows(own);
  TRY(alloc_rows(own, rows, own->features, &own->z));
  return alloc_rows(own, rows, own->targets, &own->labels);
}

static enum status gather(struct gatherer *own, const struct gather_share *share, const void *from, int64_t width,
                          void *all) {
  return comm_gather_rows(comm_for(own->comm, "gather of features"), from, share->rows_of_rank,
                          (size_t)width * dtype_size(own->dtype), all);
}

void gatherer_borrow(const struct gatherer *own, const struct gather_share *share, const void *z, const void *labels,
                     struct gathered *out) {
  int rank = comm_rank(own->comm);
  *out = (struct gathered){.comm = own->comm,
                           .dtype = own->dtype,
                           .features = own->features,
                           .targets = own->targets,
                           .rows_of_rank = share->rows_of_rank,
                           .own = share->rows_of_rank[rank],
                           .z = z,
                           .labels = labels,
                           .views = share->views,
                           .seed = share->seed,
                           .step = share->step};
  for (int i = 0; i < comm_size(own->comm); i++) {
    out->first += i < rank ? share->rows_of_rank[i] : 0;
    out->rows += share->rows_of_rank[i];
  }
}

enum status gatherer_collect(struct gatherer *own, const struct gather_share *share, struct gathered *out) {
  double began = log_seconds();
  gatherer_borrow(own, share, NULL, NULL, out);
  if (out->rows > own->capacity) { /* on all ranks alike, also after one has failed */
    TRY(comm_agree(own->comm, make_room(own, out->rows)));
    own->capacity = out->rows;
  }
  TRY(gather(own, share, share->features, own->features, own->z));
  TRY(gather(own, share, share->labels, own->targets, own->labels));
  out->z = own->z;
  out->labels = own->labels;
  own->seconds += log_seconds() - began;
  return STATUS_OK;
}

double gatherer_seconds(struct gatherer *own) {
  double seconds = own->seconds;
  own->seconds = 0;
  return seconds;
}
