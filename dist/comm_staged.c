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
 * where nothing comes between. */
#include "dist/comm_device.h"

#include "dist/comm_ops.h"
#include "dist/log.h"
#include "dist/memory.h"

#include <limits.h>
#include <sched.h>
#include <string.h>

enum place { IDLE, COPIES_OUT, SUMS, COPIES_BACK };

/* A sum in flight, and the pinned memory that stays for the next sum of the same numbers. */
struct staged_sum {
  struct staged_sum *next;  /* in `kept`, the newest first */
  struct staged_sum *later; /* in the queue for MPI            */
  enum place place;
  void *data; /* borrowed, device */
  enum dtype dtype;
  size_t count;
  void *pinned; /* owned [capacity] */
  size_t capacity;
  struct event *copied;        /* owned: the end of its last copy, out or back */
  struct comm_request request; /* while MPI sums                               */
  int64_t number;              /* of the sum, from 1                           */
  double since;                /* log_seconds() when MPI got it                */
};

/* More different sums in flight than this share pinned memory. */
#define MOST_SUMS 256

struct staged_transport {
  struct comm *sums; /* owned: what carries sums in flight, and nothing else  */
  struct stream *out, *in;
  struct event *ready; /* where the main stream was when a sum was started */
  struct staged_sum *kept;
  int sum_count;
  struct staged_sum *oldest, *newest; /* the queue for MPI                         */
  int64_t started;                    /* sums so far                               */
  char *stage;                        /* owned, pinned [capacity]: for collectives that are not in flight */
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
  double begin = log_seconds(); /* the numbers are here: what the device still had to do does not count */
  TRY(comm->control->ops->gather_rows(comm->control, NULL, rows_of_rank, row_bytes, transport->stage));
  comm->traffic.gather_seconds += log_seconds() - begin;
  return copy_back(comm, all, transport->stage, total);
}

/* --- sums in flight ------------------------------------------------------------------------------------------ */

static enum status create_sum(struct comm *comm, struct staged_sum **out) {
  struct staged_transport *transport = transport_of(comm);
  struct staged_sum *staged;
  TRY(memory_alloc_zero(sizeof *staged, (void **)&staged));
  enum status status = event_create(comm->device, &staged->copied);
  if (status != STATUS_OK) {
    memory_free((void **)&staged);
    return status;
  }
  staged->next = transport->kept;
  transport->kept = staged;
  transport->sum_count++;
  *out = staged;
  return STATUS_OK;
}

/* The one that carried these numbers before: so a step finds what the first step left, whatever was in flight when.
 * Else a new one; or, when there are many, any that is idle. */
static enum status take_sum(struct comm *comm, const void *data, struct staged_sum **out) {
  struct staged_transport *transport = transport_of(comm);
  struct staged_sum *idle = NULL;
  for (*out = transport->kept; *out != NULL; *out = (*out)->next) {
    if ((*out)->place == IDLE && (*out)->data == data)
      return STATUS_OK;
    if ((*out)->place == IDLE)
      idle = *out;
  }
  *out = idle;
  return idle != NULL && transport->sum_count >= MOST_SUMS ? STATUS_OK : create_sum(comm, out);
}

static enum status begin_copy_out(struct comm *comm, struct staged_sum *staged) {
  struct staged_transport *transport = transport_of(comm);
  size_t bytes = staged->count * dtype_size(staged->dtype);
  if (bytes > staged->capacity)
    TRY(event_wait(staged->copied)); /* host wait: the memory is about to be freed */
  TRY(grow(comm->device, &staged->pinned, &staged->capacity, bytes));
  /* `out` waits for the main stream, which computes the numbers; and for `in`, which may still copy the last sum from
   * the same pinned memory. */
  TRY(event_record(transport->ready, device_main(comm->device)));
  TRY(stream_wait_event(transport->out, transport->ready));
  TRY(stream_wait_event(transport->out, staged->copied));
  TRY(stream_copy(transport->out, staged->pinned, staged->data, bytes));
  return event_record(staged->copied, transport->out);
}

/* `in` waits for nothing: MPI, on the host, is through. */
static enum status begin_copy_back(struct comm *comm, struct staged_sum *staged) {
  struct staged_transport *transport = transport_of(comm);
  TRY(stream_copy(transport->in, staged->data, staged->pinned, staged->count * dtype_size(staged->dtype)));
  TRY(event_record(staged->copied, transport->in));
  staged->place = COPIES_BACK;
  return STATUS_OK;
}

/* Hand it to MPI if its copy has arrived. */
static enum status begin_sum(struct comm *comm, struct staged_sum *staged) {
  bool arrived;
  TRY(event_reached(staged->copied, &arrived));
  if (!arrived)
    return STATUS_OK;
  struct comm *sums = transport_of(comm)->sums;
  TRY(sums->ops->sum_start(sums, staged->dtype, staged->pinned, staged->count, &staged->request));
  staged->since = log_seconds();
  staged->place = SUMS;
  return STATUS_OK;
}

static enum status push_sum(struct comm *comm, struct staged_sum *staged) {
  struct comm *sums = transport_of(comm)->sums;
  bool done;
  TRY(sums->ops->progress(sums, &staged->request, &done));
  if (done)
    return begin_copy_back(comm, staged);
  double seconds = log_seconds() - staged->since;
  if (seconds > comm->timeout_seconds)
    return comm_fail(
        comm,
        "the sum number %lld of %zu %s through MPI is not over after %.0f s on rank %d (%s): another rank hangs or "
        "makes other calls; look for the rank that is silent, or allow more seconds by CONR_COMM_TIMEOUT",
        (long long)staged->number, staged->count, dtype_name(staged->dtype), seconds, comm->rank, comm->host);
  return STATUS_OK;
}

static void forget_arrived(struct staged_transport *transport) {
  struct staged_sum **link = &transport->oldest;
  transport->newest = NULL;
  while (*link != NULL)
    if ((*link)->place == COPIES_BACK) {
      *link = (*link)->later;
    } else {
      transport->newest = *link;
      link = &(*link)->later;
    }
}

/* Move all that can move.  MPI gets the sums in the order of their starts: at one whose copy has not arrived, those
 * behind it wait too. */
static enum status push_each(struct comm *comm) {
  for (struct staged_sum *staged = transport_of(comm)->oldest; staged != NULL; staged = staged->later) {
    if (staged->place == COPIES_OUT)
      TRY(begin_sum(comm, staged));
    if (staged->place == COPIES_OUT)
      break;
    TRY(push_sum(comm, staged));
  }
  return STATUS_OK;
}

/* Where a sum has failed on the way, the other ranks are not in step any more. */
static enum status push_all(struct comm *comm) {
  enum status status = push_each(comm);
  forget_arrived(transport_of(comm));
  return status == STATUS_OK || comm->dead ? status : comm_fail(comm, "%s", status_message());
}

static enum status sum_start(struct comm *comm, enum dtype dtype, void *data, size_t count,
                             struct comm_request *request) {
  struct staged_transport *transport = transport_of(comm);
  struct staged_sum *staged;
  REQUIRE(count <= INT_MAX, ERR_BUG, "a bucket of %zu elements is too large", count);
  TRY(take_sum(comm, data, &staged));
  staged->data = data;
  staged->dtype = dtype;
  staged->count = count;
  staged->number = ++transport->started;
  TRY(begin_copy_out(comm, staged));
  staged->place = COPIES_OUT;
  staged->later = NULL;
  if (transport->newest != NULL)
    transport->newest->later = staged;
  else
    transport->oldest = staged;
  transport->newest = staged;
  request->handle = staged;
  return STATUS_OK;
}

static void end_request(struct comm_request *request) {
  ((struct staged_sum *)request->handle)->place = IDLE;
  request->handle = NULL;
}

/* Over once the copy back has arrived: then no stream has to wait for it. */
static enum status progress(struct comm *comm, struct comm_request *request, bool *done) {
  struct staged_sum *staged = request->handle;
  *done = staged == NULL;
  if (staged == NULL)
    return STATUS_OK;
  TRY(push_all(comm));
  if (staged->place == COPIES_BACK)
    TRY(event_reached(staged->copied, done));
  if (*done)
    end_request(request);
  return STATUS_OK;
}

/* Host wait: MPI needs the host.  The copy back is left to the streams. */
static enum status wait_request(struct comm *comm, struct comm_request *request) {
  struct staged_sum *staged = request->handle;
  if (staged == NULL)
    return STATUS_OK;
  TRY(push_all(comm));
  while (staged->place != COPIES_BACK) {
    sched_yield();
    TRY(push_all(comm));
  }
  TRY(stream_wait_event(device_main(comm->device), staged->copied)); /* the main stream waits for `in` */
  end_request(request);
  return STATUS_OK;
}

/* --- beginning and end --------------------------------------------------------------------------------------- */

static void destroy_sums(struct comm *comm) {
  struct staged_transport *transport = transport_of(comm);
  struct staged_sum *next;
  for (struct staged_sum *staged = transport->kept; staged != NULL; staged = next) {
    next = staged->next;
    event_wait(staged->copied);
    event_destroy(&staged->copied);
    device_free_pinned(comm->device, &staged->pinned);
    memory_free((void **)&staged);
  }
}

static void destroy(struct comm *comm) {
  struct staged_transport *transport = transport_of(comm);
  if (transport == NULL)
    return;
  if (transport->oldest != NULL)
    return; /* MPI may still write to what would be freed, and other ranks would not come to free a communicator */
  destroy_sums(comm);
  if (transport->stage_free != NULL)
    event_wait(transport->stage_free);
  event_destroy(&transport->stage_free);
  event_destroy(&transport->ready);
  device_free_pinned(comm->device, (void **)&transport->stage);
  stream_destroy(&transport->in);
  stream_destroy(&transport->out);
  comm_destroy(&transport->sums);
  memory_free(&comm->transport);
}

static const struct comm_ops staged_ops = {
    .name = "mpi through host memory",
    .destroy = destroy,
    .sum = sum,
    .broadcast = broadcast,
    .gather_rows = gather_rows,
    .sum_start = sum_start,
    .progress = progress,
    .wait = wait_request,
    .check = push_all,
};

enum status comm_open_staged(struct comm *comm) {
  comm->ops = &staged_ops;
  enum status status = memory_alloc_zero(sizeof(struct staged_transport), &comm->transport);
  TRY(comm_agree(comm->control, status)); /* before the duplicate, which takes all ranks */
  struct staged_transport *transport = transport_of(comm);
  TRY(comm_duplicate_mpi(comm->control, &transport->sums));
  TRY(stream_create(comm->device, &transport->out));
  TRY(stream_create(comm->device, &transport->in));
  TRY(event_create(comm->device, &transport->ready));
  return event_create(comm->device, &transport->stage_free);
}
