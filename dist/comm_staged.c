/* Collectives on device memory through pinned host memory and MPI: for ranks that share a GPU, and machines without
 * NCCL.
 *
 * Sums are the host communicator's to the bit: the same MPI call on the same numbers, in one piece.
 *
 * A sum in flight goes through three places.  Its numbers are copied out on the stream `out`, once the main stream has
 * come to where the sum was started; MPI sums them in pinned memory; they are copied back on the stream `in`.  Copies
 * out and back have streams of their own because a copy out may have to wait for the main stream, and a copy back
 * behind it would wait along.  When a copy has arrived is a matter of chance on each rank, and MPI matches collectives
 * by their order: so sums are handed to MPI strictly in the order of their starts, over a communicator of their own,
 * where nothing comes between.
 *
 * A gather in flight goes the same way: the own rows out, all ranks' rows side by side in pinned memory, and the
 * others' back to their places. */
#include "dist/comm_device.h"

#include "dist/comm_ops.h"
#include "dist/log.h"
#include "dist/memory.h"

#include <limits.h>
#include <sched.h>
#include <string.h>

enum place { IDLE, COPIES_OUT, TRAVELS, COPIES_BACK };

/* A sum or a gather in flight, and the pinned memory that stays for the next one of the same numbers. */
struct flight {
  struct flight *next;  /* in `kept`, the newest first */
  struct flight *later; /* in the queue for MPI            */
  enum place place;
  const char *key; /* the first of the numbers that travel: by it the next step finds what this one leaves */
  char *data;      /* borrowed, device: the numbers, or the own rows */
  void *pinned;    /* owned [capacity] */
  size_t capacity;
  struct event *copied;        /* owned: the end of its last copy, out or back */
  struct comm_request request; /* while MPI has it                             */
  int64_t number;              /* of all in flight, from 1                     */
  double since;                /* log_seconds() when MPI got it                */
  enum { A_SUM, A_GATHER } kind;
  /* Of a sum. */
  enum dtype dtype;
  size_t count;
  /* Of a gather. */
  char *all; /* borrowed, device */
  size_t row_bytes;
  int64_t *first_of_rank; /* [size] places in `all`; lies behind the next */
  int64_t rows_of_rank[]; /* [size] */
};

/* More different ones in flight than this share pinned memory. */
#define MOST_FLIGHTS 256

struct staged_transport {
  struct comm *carrier; /* owned: what carries what is in flight, and nothing else */
  struct stream *out, *in;
  struct event *ready; /* where the main stream was when one was started */
  struct flight *kept;
  int flight_count;
  struct flight *oldest, *newest; /* the queue for MPI                         */
  int64_t started;                /* so far                                    */
  char *stage;                    /* owned, pinned [capacity]: for collectives that are not in flight */
  size_t capacity;
  struct event *stage_free; /* the last copy back from `stage` */
};

static struct staged_transport *transport_of(const struct comm *comm) {
  return comm->transport;
}

/* --- pinned memory ------------------------------------------------------------------------------------------- */

/* Only ever larger: after the first step nothing is allocated.  Whoever asks has seen to it that no copy uses it. */
static enum status grow(struct device *device, void **block, size_t *capacity, size_t bytes) {
  if (*block != NULL && bytes <= *capacity)
    return STATUS_OK;
  device_free_pinned(device, block);
  *capacity = 0;
  TRY(device_alloc_pinned(device, bytes > 0 ? bytes : 1, block));
  *capacity = bytes;
  return STATUS_OK;
}

/* Host wait: MPI is about to write to `stage`, from which the last collective may still be copied back. */
static enum status take_stage(struct comm *comm, size_t bytes) {
  struct staged_transport *transport = transport_of(comm);
  TRY(event_wait(transport->stage_free));
  return grow(comm->device, (void **)&transport->stage, &transport->capacity, bytes);
}

/* Copy to `stage` and wait: MPI reads it next.  Sums in flight are pushed meanwhile. */
static enum status copy_out(struct comm *comm, void *to, const void *from, size_t bytes) {
  if (bytes == 0)
    return STATUS_OK;
  TRY(device_copy(comm->device, to, from, bytes));
  return comm_device_wait(comm);
}

/* Queued on the main stream, so that what comes after sees the result; the host goes on. */
static enum status copy_back(struct comm *comm, void *to, const void *from, size_t bytes) {
  TRY(device_copy(comm->device, to, from, bytes));
  return event_record(transport_of(comm)->stage_free, device_main(comm->device));
}

/* --- collectives that are over when they return ---------------------------------------------------------------- */

static enum status sum(struct comm *comm, enum dtype dtype, void *data, size_t count) {
  struct staged_transport *transport = transport_of(comm);
  size_t bytes = count * dtype_size(dtype);
  TRY(take_stage(comm, bytes));
  TRY(copy_out(comm, transport->stage, data, bytes));
  TRY(comm->control->ops->sum(comm->control, dtype, transport->stage, count));
  return copy_back(comm, data, transport->stage, bytes);
}

/* In pieces: parameters are large, and their bits do not depend on how they are cut. */
static enum status broadcast(struct comm *comm, void *data, size_t bytes, int root) {
  enum { PIECE_BYTES = 8 << 20 };
  struct staged_transport *transport = transport_of(comm);
  for (size_t offset = 0; offset < bytes; offset += PIECE_BYTES) {
    char *piece = (char *)data + offset;
    size_t length = bytes - offset < PIECE_BYTES ? bytes - offset : PIECE_BYTES;
    TRY(take_stage(comm, length));
    if (comm->rank == root)
      TRY(copy_out(comm, transport->stage, piece, length));
    TRY(comm->control->ops->broadcast(comm->control, transport->stage, length, root));
    if (comm->rank != root)
      TRY(copy_back(comm, piece, transport->stage, length));
  }
  return STATUS_OK;
}

/* The own rows are put in their place within `stage`, wherever they come from; so MPI always gathers in place. */
static enum status gather_rows(struct comm *comm, const void *own, const int64_t *rows_of_rank, size_t row_bytes,
                               void *all) {
  struct staged_transport *transport = transport_of(comm);
  size_t total = 0, before = 0;
  for (int rank = 0; rank < comm->size; rank++) {
    before += rank < comm->rank ? (size_t)rows_of_rank[rank] * row_bytes : 0;
    total += (size_t)rows_of_rank[rank] * row_bytes;
  }
  TRY(take_stage(comm, total));
  TRY(copy_out(comm, transport->stage + before, own != NULL ? own : (const char *)all + before,
               (size_t)rows_of_rank[comm->rank] * row_bytes));
  TRY(comm->control->ops->gather_rows(comm->control, NULL, rows_of_rank, row_bytes, transport->stage));
  return copy_back(comm, all, transport->stage, total);
}

/* --- in flight ------------------------------------------------------------------------------------------------ */

static size_t rows_bytes(const struct flight *flight, int first, int end) {
  size_t rows = 0;
  for (int rank = first; rank < end; rank++)
    rows += (size_t)flight->rows_of_rank[rank];
  return rows * flight->row_bytes;
}

static enum status create_flight(struct comm *comm, struct flight **out) {
  struct staged_transport *transport = transport_of(comm);
  struct flight *flight;
  TRY(memory_alloc_zero(sizeof *flight + 2 * (size_t)comm->size * sizeof(int64_t), (void **)&flight));
  enum status status = event_create(comm->device, &flight->copied);
  if (status != STATUS_OK) {
    memory_free((void **)&flight);
    return status;
  }
  flight->first_of_rank = flight->rows_of_rank + comm->size;
  flight->next = transport->kept;
  transport->kept = flight;
  transport->flight_count++;
  *out = flight;
  return STATUS_OK;
}

/* The one that carried these numbers before: so a step finds what the first step left, whatever was in flight when.
 * Else a new one; or, when there are many, any that is idle. */
static enum status take_flight(struct comm *comm, const char *key, struct flight **out) {
  struct staged_transport *transport = transport_of(comm);
  struct flight *idle = NULL;
  for (*out = transport->kept; *out != NULL; *out = (*out)->next) {
    if ((*out)->place == IDLE && (*out)->key == key)
      return STATUS_OK;
    if ((*out)->place == IDLE)
      idle = *out;
  }
  *out = idle;
  if (idle == NULL || transport->flight_count < MOST_FLIGHTS)
    TRY(create_flight(comm, out));
  (*out)->key = key;
  return STATUS_OK;
}

/* `bytes` of pinned memory; `own_bytes` of the data are copied to `offset` in it. */
static enum status begin_copy_out(struct comm *comm, struct flight *flight, size_t bytes, size_t offset,
                                  size_t own_bytes) {
  struct staged_transport *transport = transport_of(comm);
  if (bytes > flight->capacity)
    TRY(event_wait(flight->copied)); /* host wait: the memory is about to be freed */
  TRY(grow(comm->device, &flight->pinned, &flight->capacity, bytes));
  /* `out` waits for the main stream, which computes the numbers; and for `in`, which may still copy the last ones from
   * the same pinned memory. */
  TRY(event_record(transport->ready, device_main(comm->device)));
  TRY(stream_wait_event(transport->out, transport->ready));
  TRY(stream_wait_event(transport->out, flight->copied));
  TRY(stream_copy(transport->out, (char *)flight->pinned + offset, flight->data, own_bytes));
  return event_record(flight->copied, transport->out);
}

static enum status copy_rows_back(struct comm *comm, const struct flight *flight) {
  const char *from = flight->pinned;
  for (int rank = 0; rank < comm->size; rank++) {
    size_t bytes = rows_bytes(flight, rank, rank + 1);
    if (rank != comm->rank)
      TRY(stream_copy(transport_of(comm)->in, flight->all + (size_t)flight->first_of_rank[rank] * flight->row_bytes,
                      from, bytes));
    from += bytes;
  }
  return STATUS_OK;
}

/* `in` waits for nothing: MPI, on the host, is through; and the main stream was through with what lay there before the
 * copy out began. */
static enum status begin_copy_back(struct comm *comm, struct flight *flight) {
  struct staged_transport *transport = transport_of(comm);
  if (flight->kind == A_GATHER)
    TRY(copy_rows_back(comm, flight));
  else
    TRY(stream_copy(transport->in, flight->data, flight->pinned, flight->count * dtype_size(flight->dtype)));
  TRY(event_record(flight->copied, transport->in));
  flight->place = COPIES_BACK;
  return STATUS_OK;
}

/* Hand it to MPI if its copy has arrived. */
static enum status begin_travel(struct comm *comm, struct flight *flight) {
  bool arrived;
  TRY(event_reached(flight->copied, &arrived));
  if (!arrived)
    return STATUS_OK;
  struct comm *carrier = transport_of(comm)->carrier;
  if (flight->kind == A_GATHER)
    TRY(carrier->ops->gather_start(carrier, flight->rows_of_rank, NULL, flight->row_bytes, flight->pinned,
                                   &flight->request));
  else
    TRY(carrier->ops->sum_start(carrier, flight->dtype, flight->pinned, flight->count, &flight->request));
  flight->since = log_seconds();
  flight->place = TRAVELS;
  return STATUS_OK;
}

static enum status fail_by_time(struct comm *comm, const struct flight *flight, double seconds) {
  bool gathers = flight->kind == A_GATHER;
  return comm_fail(
      comm,
      "the %s number %lld of %zu %s through MPI is not over after %.0f s on rank %d (%s): another rank hangs or "
      "makes other calls; look for the rank that is silent, or allow more seconds by CONR_COMM_TIMEOUT",
      gathers ? "gather" : "sum", (long long)flight->number,
      gathers ? rows_bytes(flight, 0, comm->size) : flight->count, gathers ? "bytes" : dtype_name(flight->dtype),
      seconds, comm->rank, comm->host);
}

static enum status push_flight(struct comm *comm, struct flight *flight) {
  struct comm *carrier = transport_of(comm)->carrier;
  bool done;
  TRY(carrier->ops->progress(carrier, &flight->request, &done));
  if (done)
    return begin_copy_back(comm, flight);
  double seconds = log_seconds() - flight->since;
  return seconds > comm->timeout_seconds ? fail_by_time(comm, flight, seconds) : STATUS_OK;
}

static void forget_arrived(struct staged_transport *transport) {
  struct flight **link = &transport->oldest;
  transport->newest = NULL;
  while (*link != NULL)
    if ((*link)->place == COPIES_BACK) {
      *link = (*link)->later;
    } else {
      transport->newest = *link;
      link = &(*link)->later;
    }
}

/* Move all that can move.  MPI gets them in the order of their starts: at one whose copy has not arrived, those
 * behind it wait too. */
static enum status push_each(struct comm *comm) {
  for (struct flight *flight = transport_of(comm)->oldest; flight != NULL; flight = flight->later) {
    if (flight->place == COPIES_OUT)
      TRY(begin_travel(comm, flight));
    if (flight->place == COPIES_OUT)
      break;
    TRY(push_flight(comm, flight));
  }
  return STATUS_OK;
}

/* Where one has failed on the way, the other ranks are not in step any more. */
static enum status push_all(struct comm *comm) {
  enum status status = push_each(comm);
  forget_arrived(transport_of(comm));
  return status == STATUS_OK || comm->dead ? status : comm_fail(comm, "%s", status_message());
}

static void enqueue(struct comm *comm, struct flight *flight, struct comm_request *request) {
  struct staged_transport *transport = transport_of(comm);
  flight->number = ++transport->started;
  flight->place = COPIES_OUT;
  flight->later = NULL;
  if (transport->newest != NULL)
    transport->newest->later = flight;
  else
    transport->oldest = flight;
  transport->newest = flight;
  request->handle = flight;
}

static enum status sum_start(struct comm *comm, enum dtype dtype, void *data, size_t count,
                             struct comm_request *request) {
  size_t bytes = count * dtype_size(dtype);
  struct flight *flight;
  REQUIRE(count <= INT_MAX, ERR_BUG, "a bucket of %zu elements is too large", count);
  TRY(take_flight(comm, data, &flight));
  flight->kind = A_SUM;
  flight->data = data;
  flight->dtype = dtype;
  flight->count = count;
  TRY(begin_copy_out(comm, flight, bytes, 0, bytes));
  enqueue(comm, flight, request);
  return STATUS_OK;
}

static enum status gather_start(struct comm *comm, const int64_t *rows_of_rank, const int64_t *first_of_rank,
                                size_t row_bytes, void *all, struct comm_request *request) {
  struct flight *flight;
  int leader = 0; /* the lowest rank that has rows */
  while (rows_of_rank[leader] == 0)
    leader++;
  TRY(take_flight(comm, (char *)all + (size_t)first_of_rank[leader] * row_bytes, &flight));
  flight->kind = A_GATHER;
  flight->data = (char *)all + (size_t)first_of_rank[comm->rank] * row_bytes;
  flight->all = all;
  flight->row_bytes = row_bytes;
  memcpy(flight->rows_of_rank, rows_of_rank, (size_t)comm->size * sizeof *rows_of_rank);
  memcpy(flight->first_of_rank, first_of_rank, (size_t)comm->size * sizeof *first_of_rank);
  TRY(begin_copy_out(comm, flight, rows_bytes(flight, 0, comm->size), rows_bytes(flight, 0, comm->rank),
                     rows_bytes(flight, comm->rank, comm->rank + 1)));
  enqueue(comm, flight, request);
  return STATUS_OK;
}

static void end_request(struct comm_request *request) {
  ((struct flight *)request->handle)->place = IDLE;
  request->handle = NULL;
}

/* Over once the copy back has arrived: then no stream has to wait for it. */
static enum status progress(struct comm *comm, struct comm_request *request, bool *done) {
  struct flight *flight = request->handle;
  *done = flight == NULL;
  if (flight == NULL)
    return STATUS_OK;
  TRY(push_all(comm));
  if (flight->place == COPIES_BACK)
    TRY(event_reached(flight->copied, done));
  if (*done)
    end_request(request);
  return STATUS_OK;
}

/* Host wait: MPI needs the host.  The copy back is left to the streams. */
static enum status wait_request(struct comm *comm, struct comm_request *request) {
  struct flight *flight = request->handle;
  if (flight == NULL)
    return STATUS_OK;
  TRY(push_all(comm));
  while (flight->place != COPIES_BACK) {
    sched_yield();
    TRY(push_all(comm));
  }
  TRY(stream_wait_event(device_main(comm->device), flight->copied)); /* the main stream waits for `in` */
  end_request(request);
  return STATUS_OK;
}

/* --- beginning and end --------------------------------------------------------------------------------------- */

static void destroy_flights(struct comm *comm) {
  struct flight *next;
  for (struct flight *flight = transport_of(comm)->kept; flight != NULL; flight = next) {
    next = flight->next;
    event_wait(flight->copied);
    event_destroy(&flight->copied);
    device_free_pinned(comm->device, &flight->pinned);
    memory_free((void **)&flight);
  }
}

static void destroy(struct comm *comm) {
  struct staged_transport *transport = transport_of(comm);
  if (transport == NULL)
    return;
  if (transport->oldest != NULL)
    return; /* MPI may still write to what would be freed, and other ranks would not come to free a communicator */
  destroy_flights(comm);
  if (transport->stage_free != NULL)
    event_wait(transport->stage_free);
  event_destroy(&transport->stage_free);
  event_destroy(&transport->ready);
  device_free_pinned(comm->device, (void **)&transport->stage);
  stream_destroy(&transport->in);
  stream_destroy(&transport->out);
  comm_destroy(&transport->carrier);
  memory_free(&comm->transport);
}

static const struct comm_ops staged_ops = {
    .name = "mpi through host memory",
    .destroy = destroy,
    .sum = sum,
    .broadcast = broadcast,
    .gather_rows = gather_rows,
    .sum_start = sum_start,
    .gather_start = gather_start,
    .progress = progress,
    .wait = wait_request,
    .check = push_all,
};

enum status comm_open_staged(struct comm *comm) {
  comm->ops = &staged_ops;
  enum status status = memory_alloc_zero(sizeof(struct staged_transport), &comm->transport);
  TRY(comm_agree(comm->control, status)); /* before the duplicate, which takes all ranks */
  struct staged_transport *transport = transport_of(comm);
  TRY(comm_duplicate_mpi(comm->control, &transport->carrier));
  TRY(stream_create(comm->device, &transport->out));
  TRY(stream_create(comm->device, &transport->in));
  TRY(event_create(comm->device, &transport->ready));
  return event_create(comm->device, &transport->stage_free);
}
