/* Collectives on device memory by NCCL, one GPU a rank: queued on a stream of their own; the host waits for nothing.
 *
 * Which stream waits for which: before a collective the stream `stream` waits for the main stream, which computes what
 * is to be sent; whoever needs the result lets the main stream wait for the collective's end.  All collectives are on
 * one stream, so that they run in the order of the calls, which is the same on all ranks.
 *
 * The communicator is of NCCL's non-blocking kind, the only one that can be given up at any time.  Its calls may return
 * before anything is queued; settle() waits until it is, as NCCL demands before its stream is touched again.
 *
 * A lost rank leaves its collective unfinished for ever.  So each has an event at its begin and one at its end, and
 * check(), which is called wherever the host waits, gives the communicator up when NCCL reports an error, or when the
 * time between the two, as the host sees it, is over the limit.  Work that the main stream still has to do does not
 * count. */
#include "dist/comm_ops.h"
#include "dist/cuda.h"
#include "dist/log.h"
#include "dist/memory.h"
#include "dist/rendezvous.h"

#include <nccl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A collective in flight. */
struct collective {
  const char *name;
  size_t count; /* elements of `unit` */
  const char *unit;
  struct event *begun, *ended; /* owned */
  double since;                /* when the host first saw it run; 0 = not yet */
};

/* More in flight make the host wait for the oldest. */
#define MOST_IN_FLIGHT 256

struct nccl_transport {
  ncclComm_t nccl; /* NULL once aborted */
  struct stream *stream;
  struct event *ready; /* where the main stream was when a collective was queued */
  double checked;      /* when progress() last looked at the device              */
  /* Numbers from 1; number n is in flight[n % MOST_IN_FLIGHT].  Those in [oldest, next) are in flight. */
  int64_t oldest, next;
  struct collective flight[MOST_IN_FLIGHT];
};

static struct nccl_transport *transport_of(const struct comm *comm) {
  return comm->transport;
}

static struct collective *collective_of(struct nccl_transport *transport, int64_t number) {
  return &transport->flight[number % MOST_IN_FLIGHT];
}

/* --- aborting ------------------------------------------------------------------------------------------------ */

struct abort_job {
  ncclComm_t nccl;
  atomic_bool over;
};

static void *run_abort(void *argument) {
  struct abort_job *job = argument;
  ncclCommAbort(job->nccl);
  atomic_store(&job->over, true);
  return NULL;
}

/* Take NCCL's kernels off the device, so that its streams come free.  In a thread: an abort that hangs itself, as some
 * do when the network is gone, must not keep the reason from being told. */
static void abort_nccl(struct nccl_transport *transport) {
  enum { PATIENCE_SECONDS = 5, SLEEP_MICROSECONDS = 1000 };
  struct abort_job *job = NULL;
  pthread_t thread;
  if (transport->nccl == NULL || memory_alloc_zero(sizeof *job, (void **)&job) != STATUS_OK)
    return;
  job->nccl = transport->nccl;
  transport->nccl = NULL;
  if (pthread_create(&thread, NULL, run_abort, job) != 0) {
    run_abort(job);
    memory_free((void **)&job);
    return;
  }
  double end = log_seconds() + PATIENCE_SECONDS;
  while (!atomic_load(&job->over) && log_seconds() < end)
    usleep(SLEEP_MICROSECONDS);
  if (!atomic_load(&job->over)) {
    pthread_detach(thread); /* it keeps `job` */
    return;
  }
  pthread_join(thread, NULL);
  memory_free((void **)&job);
}

/* "the sum number 17 (400 f32)"; number 0: none of them. */
static const char *describe(struct nccl_transport *transport, int64_t number, char text[100]) {
  const struct collective *collective = collective_of(transport, number);
  if (number == 0)
    snprintf(text, 100, "a call beside the collectives");
  else
    snprintf(text, 100, "the %s number %lld (%zu %s)", collective->name, (long long)number, collective->count,
             collective->unit);
  return text;
}

/* NCCL says by itself that something is wrong.  latest: the collective that was queued last, or is being queued; which
 * of those in flight has failed is not known. */
static enum status fail_by_error(struct comm *comm, ncclResult_t code, int64_t latest) {
  struct nccl_transport *transport = transport_of(comm);
  char text[100], older[80] = "", last[200];
  const char *when = transport->oldest <= latest ? "in" : "after"; /* all ended */
  snprintf(last, sizeof last, "%s", ncclGetLastError(transport->nccl));
  last[strcspn(last, "\n")] = '\0';
  if (transport->oldest < latest)
    snprintf(older, sizeof older, " or one since number %lld", (long long)transport->oldest);
  describe(transport, latest, text);
  abort_nccl(transport);
  return comm_fail(
      comm,
      "NCCL failed %s %s%s on rank %d (%s): %s%s%s; look for a rank that ended or a node that is gone, and "
      "start again with NCCL_DEBUG=INFO to see more",
      when, text, older, comm->rank, comm->host, ncclGetErrorString(code), last[0] != '\0' ? ": " : "", last);
}

static enum status fail_by_time(struct comm *comm, const char *what, int64_t number, double seconds) {
  struct nccl_transport *transport = transport_of(comm);
  char text[100];
  describe(transport, number, text);
  abort_nccl(transport);
  return comm_fail(
      comm,
      "%s by NCCL %s after %.1f s on rank %d (%s): another rank hangs, has ended or makes other calls; look for "
      "the rank that is silent, start again with NCCL_DEBUG=INFO, or allow more by CONR_COMM_TIMEOUT=SECONDS",
      text, what, seconds, comm->rank, comm->host);
}

/* --- what is in flight ---------------------------------------------------------------------------------------- */

/* Errors that NCCL found in the background.  Called often: it is a look at a variable. */
static enum status check_errors(struct comm *comm, int64_t latest, ncclResult_t *state) {
  *state = ncclSuccess;
  ncclResult_t code = ncclCommGetAsyncError(transport_of(comm)->nccl, state);
  if (code == ncclSuccess)
    code = *state;
  return code == ncclSuccess || code == ncclInProgress ? STATUS_OK : fail_by_error(comm, code, latest);
}

/* They end in order: only the oldest can be the one that hangs. */
static enum status check_clock(struct comm *comm) {
  struct nccl_transport *transport = transport_of(comm);
  while (transport->oldest < transport->next) {
    struct collective *collective = collective_of(transport, transport->oldest);
    bool reached;
    TRY(event_reached(collective->ended, &reached));
    if (reached) {
      transport->oldest++;
      continue;
    }
    TRY(event_reached(collective->begun, &reached));
    if (reached && collective->since == 0)
      collective->since = log_seconds();
    double seconds = collective->since > 0 ? log_seconds() - collective->since : 0;
    if (seconds > comm->timeout_seconds)
      return fail_by_time(comm, "is not over", transport->oldest, seconds);
    return STATUS_OK;
  }
  return STATUS_OK;
}

static enum status check(struct comm *comm) {
  ncclResult_t state;
  TRY(check_errors(comm, transport_of(comm)->next - 1, &state));
  return check_clock(comm);
}

/* Wait until NCCL has queued what it was asked for: only then may the stream be touched.  Mostly it has; a first
 * collective connects the ranks, and waits for them. */
static enum status settle(struct comm *comm, ncclResult_t code, int64_t number) {
  enum { SLEEP_MICROSECONDS = 20 };
  double begin = log_seconds();
  ncclResult_t state = code;
  if (code != ncclSuccess && code != ncclInProgress)
    return fail_by_error(comm, code, number);
  while (state == ncclInProgress) {
    TRY(check_errors(comm, number, &state));
    double seconds = log_seconds() - begin;
    if (state == ncclInProgress && seconds > comm->timeout_seconds)
      return fail_by_time(comm, "could not be queued", number, seconds);
    if (state == ncclInProgress)
      usleep(SLEEP_MICROSECONDS);
  }
  return STATUS_OK;
}

/* Host wait, for the collective itself or for room among those in flight. */
static enum status wait_for(struct comm *comm, int64_t number) {
  enum { SLEEP_MICROSECONDS = 50 };
  TRY(check(comm));
  while (transport_of(comm)->oldest <= number) {
    usleep(SLEEP_MICROSECONDS);
    TRY(check(comm));
  }
  return STATUS_OK;
}

/* --- one collective ------------------------------------------------------------------------------------------- */

static enum status begin(struct comm *comm, const char *name, size_t count, const char *unit) {
  struct nccl_transport *transport = transport_of(comm);
  enum cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
  TRY(cuda_check(cudaStreamIsCapturing(cuda_stream(device_main(comm->device)), &capturing), "asking for a graph"));
  REQUIRE(capturing == cudaStreamCaptureStatusNone, ERR_BUG, "a %s over the ranks cannot be kept in a graph", name);
  if (transport->next - transport->oldest >= MOST_IN_FLIGHT)
    TRY(wait_for(comm, transport->oldest));
  struct collective *collective = collective_of(transport, transport->next);
  collective->name = name;
  collective->count = count;
  collective->unit = unit;
  collective->since = 0;
  TRY(event_record(transport->ready, device_main(comm->device)));
  TRY(stream_wait_event(transport->stream, transport->ready)); /* `stream` waits for what the main stream computes */
  return event_record(collective->begun, transport->stream);
}

/* code  what NCCL's call returned */
static enum status end(struct comm *comm, ncclResult_t code, int64_t *number) {
  struct nccl_transport *transport = transport_of(comm);
  TRY(settle(comm, code, transport->next));
  TRY(event_record(collective_of(transport, transport->next)->ended, transport->stream));
  *number = transport->next++;
  return STATUS_OK;
}

/* Work queued on the main stream from now on sees the result. */
static enum status join(struct comm *comm, int64_t number) {
  struct nccl_transport *transport = transport_of(comm);
  if (number < transport->oldest)
    return STATUS_OK; /* the host has seen its end */
  return stream_wait_event(device_main(comm->device), collective_of(transport, number)->ended);
}

static ncclDataType_t nccl_type(enum dtype dtype) {
  return dtype == BF16 ? ncclBfloat16 : dtype == F32 ? ncclFloat32 : ncclFloat64;
}

static cudaStream_t stream_of(struct comm *comm) {
  return cuda_stream(transport_of(comm)->stream);
}

/* --- collectives ---------------------------------------------------------------------------------------------- */

/* count > 0 */
static enum status queue_sum(struct comm *comm, enum dtype dtype, void *data, size_t count, int64_t *number) {
  TRY(begin(comm, "sum", count, dtype_name(dtype)));
  return end(comm,
             ncclAllReduce(data, data, count, nccl_type(dtype), ncclSum, transport_of(comm)->nccl, stream_of(comm)),
             number);
}

static enum status sum(struct comm *comm, enum dtype dtype, void *data, size_t count) {
  int64_t number;
  if (count == 0)
    return STATUS_OK;
  TRY(queue_sum(comm, dtype, data, count, &number));
  return join(comm, number);
}

static enum status broadcast(struct comm *comm, void *data, size_t bytes, int root) {
  int64_t number;
  REQUIRE(root >= 0 && root < comm->size, ERR_BUG, "rank %d of %d is to send to all", root, comm->size);
  if (bytes == 0)
    return STATUS_OK;
  TRY(begin(comm, "broadcast", bytes, "bytes"));
  TRY(end(comm, ncclBroadcast(data, data, bytes, ncclUint8, root, transport_of(comm)->nccl, stream_of(comm)), &number));
  return join(comm, number);
}

/* What one gather is to move. */
struct gather {
  const void *own; /* NULL: in place */
  const int64_t *rows_of_rank;
  const int64_t *first_of_rank; /* NULL: one rank's rows behind the other's */
  size_t row_bytes;
  char *all;
};

static char *place_of(const struct gather *gather, int rank) {
  int64_t first = 0;
  if (gather->first_of_rank != NULL)
    first = gather->first_of_rank[rank];
  for (int r = 0; r < rank && gather->first_of_rank == NULL; r++)
    first += gather->rows_of_rank[r];
  return gather->all + (size_t)first * gather->row_bytes;
}

/* Equal shares, one behind the other? */
static bool is_even(const struct gather *gather, int size) {
  size_t share = (size_t)gather->rows_of_rank[0] * gather->row_bytes;
  for (int rank = 0; rank < size; rank++)
    if (gather->rows_of_rank[rank] != gather->rows_of_rank[0] ||
        place_of(gather, rank) != place_of(gather, 0) + (size_t)rank * share)
      return false;
  return true;
}

/* One broadcast a rank that has rows, all as one. */
static ncclResult_t gather_uneven(struct comm *comm, const struct gather *gather, const void *own) {
  ncclResult_t code = ncclGroupStart(), ended;
  for (int rank = 0; rank < comm->size && code == ncclSuccess; rank++) {
    size_t bytes = (size_t)gather->rows_of_rank[rank] * gather->row_bytes;
    char *place = place_of(gather, rank);
    if (bytes > 0)
      code = ncclBroadcast(rank == comm->rank ? own : place, place, bytes, ncclUint8, rank, transport_of(comm)->nccl,
                           stream_of(comm));
    if (code == ncclInProgress)
      code = ncclSuccess; /* the group's end tells */
  }
  ended = ncclGroupEnd();
  return code == ncclSuccess ? ended : code;
}

static enum status queue_gather(struct comm *comm, const struct gather *gather, int64_t *number) {
  size_t total = 0, share = (size_t)gather->rows_of_rank[comm->rank] * gather->row_bytes;
  const void *own = gather->own != NULL ? gather->own : place_of(gather, comm->rank);
  for (int rank = 0; rank < comm->size; rank++)
    total += (size_t)gather->rows_of_rank[rank] * gather->row_bytes;
  *number = 0;
  if (total == 0)
    return STATUS_OK;
  TRY(begin(comm, "gather", total, "bytes"));
  ncclResult_t code = is_even(gather, comm->size) ? ncclAllGather(own, place_of(gather, 0), share, ncclUint8,
                                                                  transport_of(comm)->nccl, stream_of(comm))
                                                  : gather_uneven(comm, gather, own);
  return end(comm, code, number);
}

static enum status gather_rows(struct comm *comm, const void *own, const int64_t *rows_of_rank, size_t row_bytes,
                               void *all) {
  int64_t number;
  struct gather gather = {.own = own, .rows_of_rank = rows_of_rank, .row_bytes = row_bytes, .all = all};
  TRY(queue_gather(comm, &gather, &number));
  return join(comm, number);
}

/* A request's handle is its number. */
_Static_assert(sizeof(void *) >= sizeof(int64_t), "a number must fit in a handle");

static int64_t number_of(const struct comm_request *request) {
  return (int64_t)(uintptr_t)request->handle;
}

static enum status sum_start(struct comm *comm, enum dtype dtype, void *data, size_t count,
                             struct comm_request *request) {
  int64_t number = 0;
  if (count > 0)
    TRY(queue_sum(comm, dtype, data, count, &number));
  request->handle = (void *)(uintptr_t)number;
  return STATUS_OK;
}

static enum status gather_start(struct comm *comm, const int64_t *rows_of_rank, const int64_t *first_of_rank,
                                size_t row_bytes, void *all, struct comm_request *request) {
  int64_t number;
  struct gather gather = {
      .rows_of_rank = rows_of_rank, .first_of_rank = first_of_rank, .row_bytes = row_bytes, .all = all};
  TRY(queue_gather(comm, &gather, &number));
  request->handle = (void *)(uintptr_t)number;
  return STATUS_OK;
}

/* Called for all that is in flight between any two operations of a pass, where nothing depends on it: NCCL needs no
 * push.  So it looks at the device once in a while only. */
static enum status progress(struct comm *comm, struct comm_request *request, bool *done) {
  static const double pause_seconds = 0.5e-3;
  double now = log_seconds();
  if (now - transport_of(comm)->checked > pause_seconds) {
    transport_of(comm)->checked = now;
    TRY(check(comm));
  }
  *done = number_of(request) < transport_of(comm)->oldest;
  if (*done)
    request->handle = NULL;
  return STATUS_OK;
}

static enum status wait_request(struct comm *comm, struct comm_request *request) {
  TRY(check(comm));
  TRY(join(comm, number_of(request)));
  request->handle = NULL;
  return STATUS_OK;
}

/* --- beginning and end ---------------------------------------------------------------------------------------- */

/* Which ends when all ranks have come.  Host wait, within the time limit. */
static enum status connect_ranks(struct comm *comm, const ncclUniqueId *id) {
  enum { SLEEP_MICROSECONDS = 1000 };
  struct nccl_transport *transport = transport_of(comm);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  config.commName = "conr";
  double begun = log_seconds();
  TRY(cuda_check(cudaSetDevice(comm->device->facts.index), "selecting the GPU"));
  ncclResult_t code = ncclCommInitRankConfig(&transport->nccl, comm->size, *id, comm->rank, &config), state = code;
  while ((code == ncclSuccess || code == ncclInProgress) && state == ncclInProgress &&
         log_seconds() - begun < comm->timeout_seconds) {
    usleep(SLEEP_MICROSECONDS);
    code = ncclCommGetAsyncError(transport->nccl, &state);
  }
  if (code == ncclSuccess && state == ncclSuccess)
    return STATUS_OK;
  char last[200];
  snprintf(last, sizeof last, "%s", ncclGetLastError(transport->nccl));
  last[strcspn(last, "\n")] = '\0';
  abort_nccl(transport);
  if (state == ncclInProgress)
    return fail(
        ERR_COMM,
        "NCCL has not brought %d ranks together after %.0f s, says rank %d (%s); look at NCCL_SOCKET_IFNAME and "
        "firewalls, start again with NCCL_DEBUG=INFO, or use the transport mpi",
        comm->size, log_seconds() - begun, comm->rank, comm->host);
  return fail(
      ERR_COMM,
      "NCCL cannot bring the ranks together, says rank %d (%s): %s%s%s; start again with NCCL_DEBUG=INFO, or use "
      "the transport mpi",
      comm->rank, comm->host, ncclGetErrorString(code != ncclSuccess ? code : state), last[0] != '\0' ? ": " : "",
      last);
}

/* All that needs no other rank, before any of them is waited for. */
static enum status prepare(struct comm *comm) {
  struct nccl_transport *transport;
  int version = 0;
  TRY(memory_alloc_zero(sizeof *transport, &comm->transport));
  transport = transport_of(comm);
  transport->oldest = transport->next = 1;
  REQUIRE(ncclGetVersion(&version) == ncclSuccess, ERR_DEVICE, "NCCL does not tell its version");
  snprintf(comm->label, sizeof comm->label, "nccl %d.%d.%d", version / 10000, version % 10000 / 100, version % 100);
  TRY(stream_create(comm->device, &transport->stream));
  TRY(event_create(comm->device, &transport->ready));
  for (int i = 0; i < MOST_IN_FLIGHT; i++) {
    TRY(event_create(comm->device, &transport->flight[i].begun));
    TRY(event_create(comm->device, &transport->flight[i].ended));
  }
  return STATUS_OK;
}

/* The orderly end, which all ranks come to. */
static void leave(struct comm *comm) {
  struct nccl_transport *transport = transport_of(comm);
  if (transport->nccl == NULL)
    return;
  if (!comm->dead && wait_for(comm, transport->next - 1) == STATUS_OK &&
      settle(comm, ncclCommFinalize(transport->nccl), 0) == STATUS_OK) {
    ncclCommDestroy(transport->nccl);
    transport->nccl = NULL;
  }
  abort_nccl(transport);
}

static void destroy(struct comm *comm) {
  struct nccl_transport *transport = transport_of(comm);
  if (transport == NULL)
    return;
  leave(comm);
  for (int i = 0; i < MOST_IN_FLIGHT; i++) {
    event_destroy(&transport->flight[i].ended);
    event_destroy(&transport->flight[i].begun);
  }
  event_destroy(&transport->ready);
  stream_destroy(&transport->stream);
  memory_free(&comm->transport);
}

static const struct comm_ops nccl_ops = {
    .name = "nccl",
    .destroy = destroy,
    .sum = sum,
    .broadcast = broadcast,
    .gather_rows = gather_rows,
    .sum_start = sum_start,
    .gather_start = gather_start,
    .progress = progress,
    .wait = wait_request,
    .check = check,
};

static enum status make_id(struct comm *comm, ncclUniqueId *id) {
  ncclResult_t code = comm->rank == 0 ? ncclGetUniqueId(id) : ncclSuccess;
  REQUIRE(code == ncclSuccess, ERR_COMM,
          "NCCL cannot listen for the other ranks on %s: %s (%s); look at NCCL_SOCKET_IFNAME", comm->host,
          ncclGetErrorString(code), ncclGetLastError(NULL));
  return STATUS_OK;
}

/* Found by name in this library: COMM_NCCL_SYMBOL. */
comm_open_function conr_cuda_comm_nccl;
enum status conr_cuda_comm_nccl(struct comm *comm) {
  ncclUniqueId id = {{0}};
  comm->ops = &nccl_ops;
  TRY(comm_agree(comm->control, prepare(comm)));
  TRY(comm_agree(comm->control, make_id(comm, &id)));
  enum status status = rendezvous_share(comm->control, &id, sizeof id, comm->timeout_seconds);
  if (status == STATUS_OK)
    status = comm_agree(comm->control, connect_ranks(comm, &id));
  rendezvous_forget(comm->control);
  return status;
}
