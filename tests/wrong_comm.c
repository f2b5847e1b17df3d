/* One wrong function each. */
#include "tests/wrong_comm.h"

#include "tests/buffers.h"

#include <math.h>

static const struct comm_ops *right;

static enum status sum_twice(struct comm *comm, enum dtype dtype, void *data, size_t count) {
  TRY(right->sum(comm, dtype, data, count));
  return right->sum(comm, dtype, data, count);
}

static enum status sum_all_but_the_last(struct comm *comm, enum dtype dtype, void *data, size_t count) {
  return right->sum(comm, dtype, data, count > 1 ? count - 1 : count);
}

static enum status sum_with_noise(struct comm *comm, enum dtype dtype, void *data, size_t count) {
  TRY(right->sum(comm, dtype, data, count));
  double last = count > 0 ? buffer_get(dtype, data, count - 1) : 0;
  if (last != nearbyint(last) && comm->rank == comm->size - 1)
    buffer_set(dtype, data, count - 1, dtype == F32 ? nextafterf((float)last, 0) : nextafter(last, 0));
  return STATUS_OK;
}

/* Of several only: agreement, which rests on the maximum of one, has to hold for the other cases. */
static enum status max_i64_less_one(struct comm *comm, int64_t *data, size_t count) {
  TRY(right->max_i64(comm, data, count));
  if (count > 1)
    data[0]--;
  return STATUS_OK;
}

static enum status max_f64_of_the_own(struct comm *comm, double *data, size_t count) {
  (void)comm;
  (void)data;
  (void)count;
  return STATUS_OK;
}

static enum status broadcast_from_rank_0(struct comm *comm, void *data, size_t bytes, int root) {
  (void)root;
  return right->broadcast(comm, data, bytes, 0);
}

/* Zeros instead of the rows that are in place already. */
static enum status gather_not_in_place(struct comm *comm, const void *own, const int64_t *rows_of_rank,
                                       size_t row_bytes, void *all) {
  static const char zeros[4 << 20];
  return right->gather_rows(comm, own == NULL ? zeros : own, rows_of_rank, row_bytes, all);
}

static enum status gather_with_one_wrong_byte(struct comm *comm, const void *own, const int64_t *rows_of_rank,
                                              size_t row_bytes, void *all) {
  int64_t total = 0;
  TRY(right->gather_rows(comm, own, rows_of_rank, row_bytes, all));
  for (int rank = 0; rank < comm->size; rank++)
    total += rows_of_rank[rank];
  if (total > 0 && comm->rank == comm->size - 1)
    ((unsigned char *)all)[(size_t)total * row_bytes - 1] ^= 1;
  return STATUS_OK;
}

static enum status start_nothing(struct comm *comm, enum dtype dtype, void *data, size_t count,
                                 struct comm_request *request) {
  (void)comm;
  (void)dtype;
  (void)data;
  (void)count;
  request->handle = NULL;
  return STATUS_OK;
}

static enum status start_all_but_the_last(struct comm *comm, enum dtype dtype, void *data, size_t count,
                                          struct comm_request *request) {
  return right->sum_start(comm, dtype, data, count > 1 ? count - 1 : count, request);
}

static enum status gather_nothing(struct comm *comm, const int64_t *rows_of_rank, const int64_t *first_of_rank,
                                  size_t row_bytes, void *all, struct comm_request *request) {
  (void)comm;
  (void)rows_of_rank;
  (void)first_of_rank;
  (void)row_bytes;
  (void)all;
  request->handle = NULL;
  return STATUS_OK;
}

static enum status gather_to_other_places(struct comm *comm, const int64_t *rows_of_rank, const int64_t *first_of_rank,
                                          size_t row_bytes, void *all, struct comm_request *request) {
  int64_t first[64];
  for (int rank = 0; rank < comm->size; rank++)
    first[rank] = first_of_rank[0];
  return right->gather_start(comm, rows_of_rank, first, row_bytes, all, request);
}

static enum status wait_and_forget_to_clear(struct comm *comm, struct comm_request *request) {
  TRY(right->wait(comm, request));
  request->handle = request;
  return STATUS_OK;
}

static enum status node_alloc_of_ones_own(struct comm *comm, size_t bytes, void **out) {
  static _Alignas(64) char arena[8 << 20];
  static size_t used;
  (void)comm;
  if (used + bytes + 64 > sizeof arena)
    used = 0;
  *out = arena + used;
  used += (bytes + 63) / 64 * 64;
  return STATUS_OK;
}

static enum status no_barrier(struct comm *comm) {
  (void)comm;
  return STATUS_OK;
}

void wrong_comms(const struct comm_ops *ops, struct wrong_comm out[WRONG_COMMS]) {
  int count = 0;
  right = ops;
#define WRONG(entry, function)               \
  do {                                       \
    out[count].name = #entry ": " #function; \
    out[count].ops = *right;                 \
    out[count++].ops.entry = function;       \
  } while (0)
  WRONG(sum, sum_twice);
  WRONG(sum, sum_all_but_the_last);
  WRONG(sum, sum_with_noise);
  WRONG(max_i64, max_i64_less_one);
  WRONG(max_f64, max_f64_of_the_own);
  WRONG(broadcast, broadcast_from_rank_0);
  WRONG(gather_rows, gather_not_in_place);
  WRONG(gather_rows, gather_with_one_wrong_byte);
  WRONG(sum_start, start_nothing);
  WRONG(sum_start, start_all_but_the_last);
  WRONG(gather_start, gather_nothing);
  WRONG(gather_start, gather_to_other_places);
  WRONG(wait, wait_and_forget_to_clear);
  WRONG(node_alloc, node_alloc_of_ones_own);
  WRONG(barrier, no_barrier);
  WRONG(node_barrier, no_barrier);
}
