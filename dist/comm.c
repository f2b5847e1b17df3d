/* What all communicators share: identity, traffic counts, agreement.  The transport is a table of
 * functions (comm_ops.h); here is the one place that chooses it. */
#include "dist/comm_ops.h"
#include "dist/memory.h"
#include "dist/pulse.h"
#include "dist/replay.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A communicator on device memory leaves what is about ranks and numbers of the host to the one it was made from. */
static struct comm *control_of(struct comm *comm) {
  return comm->control != NULL ? comm->control : comm;
}

/* Of the dead nothing is asked: the ranks no longer make the same calls. */
static enum status alive(const struct comm *comm) {
  REQUIRE(!comm->dead, ERR_COMM, "%s", comm->failure);
  return STATUS_OK;
}

enum status comm_fail(struct comm *comm, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(comm->failure, sizeof comm->failure, format, arguments);
  va_end(arguments);
  comm->dead = true;
  return alive(comm);
}

enum status comm_create(MPI_Comm mpi, struct comm **out) {
  return comm_create_mpi(mpi, out);
}

void comm_destroy(struct comm **comm) {
  if (*comm == NULL)
    return;
  (*comm)->ops->destroy(*comm);
  event_destroy(&(*comm)->reached);
  memory_free((void **)comm);
}

int comm_rank(const struct comm *comm) {
  return comm->rank;
}

int comm_size(const struct comm *comm) {
  return comm->size;
}

int comm_node_rank(const struct comm *comm) {
  return comm->node_rank;
}

int comm_node_size(const struct comm *comm) {
  return comm->node_size;
}

const char *comm_host(const struct comm *comm) {
  return comm->host;
}

struct comm *comm_for(struct comm *comm, const char *purpose) {
  comm->purpose = purpose;
  return comm;
}

/* Each collective is counted, and named, for those who watch over this process (pulse.h). */
static const char *take_purpose(struct comm *comm, const char *name) {
  const char *purpose = comm->purpose != NULL ? comm->purpose : name;
  comm->purpose = NULL;
  return purpose;
}

static void enter(const struct comm *comm, const char *purpose) {
  if (comm->size > 1)
    pulse_enter(purpose);
}

static enum status leave(const struct comm *comm, enum status status) {
  if (comm->size > 1)
    pulse_leave();
  return status;
}

/* Of one in flight. */
static void count_start(const struct comm *comm, const char *purpose, struct comm_request *request) {
  *request = (struct comm_request){.purpose = purpose};
  if (comm->size > 1)
    request->number = pulse_start(purpose);
}

enum status comm_barrier(struct comm *comm) {
  TRY(alive(comm));
  enter(comm, take_purpose(comm, "barrier"));
  return leave(comm, control_of(comm)->ops->barrier(control_of(comm)));
}

/* --- collectives on arrays --------------------------------------------------------------------------------------
 *
 * No graph can keep those of device memory: while work is kept they are not done but written down, to be called anew at
 * each launch (replay.h).  Where there is one rank alone its numbers are the sum: they are left out then, and nothing is
 * cut. */

static enum status write_down(const struct comm *comm, replay_function *again, const void *arguments, size_t bytes) {
  return comm->size == 1 ? STATUS_OK : replay_call(comm->device, again, arguments, bytes);
}

struct sum_call {
  struct comm *comm;
  const char *purpose;
  enum dtype dtype;
  void *data;
  size_t count;
  struct comm_request *request; /* of sums in flight */
};

static enum status sum_again(const void *arguments) {
  const struct sum_call *call = arguments;
  return comm_sum(comm_for(call->comm, call->purpose), call->dtype, call->data, call->count);
}

enum status comm_sum(struct comm *comm, enum dtype dtype, void *data, size_t count) {
  struct sum_call call = {comm, take_purpose(comm, "sum"), dtype, data, count, NULL};
  if (replay_records(comm->device))
    return write_down(comm, sum_again, &call, sizeof call);
  comm->traffic.sum_calls++;
  comm->traffic.sum_bytes += (int64_t)(count * dtype_size(dtype));
  TRY(alive(comm));
  enter(comm, call.purpose);
  return leave(comm, comm->ops->sum(comm, dtype, data, count));
}

enum status comm_max_i64(struct comm *comm, int64_t *data, size_t count) {
  TRY(alive(comm));
  enter(comm, take_purpose(comm, "maximum"));
  return leave(comm, control_of(comm)->ops->max_i64(control_of(comm), data, count));
}

enum status comm_max_f64(struct comm *comm, double *data, size_t count) {
  TRY(alive(comm));
  enter(comm, take_purpose(comm, "maximum"));
  return leave(comm, control_of(comm)->ops->max_f64(control_of(comm), data, count));
}

enum status comm_broadcast(struct comm *comm, void *data, size_t bytes, int root) {
  TRY(alive(comm));
  REQUIRE(!replay_records(comm->device), ERR_BUG, "a broadcast cannot be kept in a graph");
  enter(comm, take_purpose(comm, "broadcast"));
  return leave(comm, comm->ops->broadcast(comm, data, bytes, root));
}

struct gather_call {
  struct comm *comm;
  const char *purpose;
  const void *own;
  const int64_t *rows_of_rank;
  size_t row_bytes;
  void *all;
};

static enum status gather_again(const void *arguments) {
  const struct gather_call *call = arguments;
  return comm_gather_rows(comm_for(call->comm, call->purpose), call->own, call->rows_of_rank, call->row_bytes,
                          call->all);
}

/* Returns the rows of all ranks. */
static int64_t count_gather(struct comm *comm, const int64_t *rows_of_rank, size_t row_bytes) {
  int64_t rows = 0;
  for (int rank = 0; rank < comm->size; rank++)
    rows += rows_of_rank[rank];
  comm->traffic.gather_calls++;
  comm->traffic.gather_bytes += (rows - rows_of_rank[comm->rank]) * (int64_t)row_bytes;
  return rows;
}

enum status comm_gather_rows(struct comm *comm, const void *own, const int64_t *rows_of_rank, size_t row_bytes,
                             void *all) {
  struct gather_call call = {comm, take_purpose(comm, "gather of rows"), own, rows_of_rank, row_bytes, all};
  if (replay_records(comm->device) && comm->size == 1 && own != NULL)
    return device_copy(comm->device, all, own, (size_t)rows_of_rank[0] * row_bytes);
  if (replay_records(comm->device))
    return write_down(comm, gather_again, &call, sizeof call);
  count_gather(comm, rows_of_rank, row_bytes);
  TRY(alive(comm));
  enter(comm, call.purpose);
  return leave(comm, comm->ops->gather_rows(comm, own, rows_of_rank, row_bytes, all));
}

enum status comm_exchange_rows(struct comm *comm, const void *own, const int64_t *rows_to, const int64_t *rows_from,
                               size_t row_bytes, void *all) {
  count_gather(comm, rows_from, row_bytes);
  TRY(alive(comm));
  enter(comm, take_purpose(comm, "exchange of rows"));
  return leave(comm, control_of(comm)->ops->exchange_rows(control_of(comm), own, rows_to, rows_from, row_bytes, all));
}

enum status comm_gather_each(struct comm *comm, const void *own, size_t bytes, void *all) {
  struct comm *control = control_of(comm);
  const char *purpose = take_purpose(comm, "gather of what each rank has to say");
  int64_t *ones = NULL;
  enum status status = memory_alloc((size_t)comm->size * sizeof *ones, (void **)&ones);
  TRY_GOTO(comm_agree(comm, status), out);
  for (int rank = 0; rank < comm->size; rank++)
    ones[rank] = 1;
  enter(comm, purpose);
  status = leave(comm, control->ops->gather_rows(control, own, ones, bytes, all));
out:
  memory_free((void **)&ones);
  return status;
}

/* Between graphs is the only place where what is in flight can be pushed. */
static enum status sum_start_again(const void *arguments) {
  const struct sum_call *call = arguments;
  TRY(comm_sum_start(comm_for(call->comm, call->purpose), call->dtype, call->data, call->count, call->request));
  return call->comm->ops->check(call->comm);
}

enum status comm_sum_start(struct comm *comm, enum dtype dtype, void *data, size_t count,
                           struct comm_request *request) {
  struct sum_call call = {comm, take_purpose(comm, "sum"), dtype, data, count, request};
  if (replay_records(comm->device))
    return write_down(comm, sum_start_again, &call, sizeof call);
  comm->traffic.sum_calls++;
  comm->traffic.sum_bytes += (int64_t)(count * dtype_size(dtype));
  count_start(comm, call.purpose, request);
  TRY(alive(comm));
  return comm->ops->sum_start(comm, dtype, data, count, request);
}

/* With its arrays, which are the caller's again once the call has returned. */
struct gather_start_call {
  struct comm *comm;
  const char *purpose;
  size_t row_bytes;
  void *all;
  struct comm_request *request;
  int64_t numbers[]; /* [size] rows, then [size] where each rank's begin */
};

static enum status gather_start_again(const void *arguments) {
  const struct gather_start_call *call = arguments;
  TRY(comm_gather_start(comm_for(call->comm, call->purpose), call->numbers, call->numbers + call->comm->size,
                        call->row_bytes, call->all, call->request));
  return call->comm->ops->check(call->comm);
}

static enum status write_down_gather(struct comm *comm, const char *purpose, const int64_t *rows_of_rank,
                                     const int64_t *first_of_rank, size_t row_bytes, void *all,
                                     struct comm_request *request) {
  size_t ranks = (size_t)comm->size, bytes = sizeof(struct gather_start_call) + 2 * ranks * sizeof(int64_t);
  struct gather_start_call *call;
  TRY(memory_alloc(bytes, (void **)&call));
  *call = (struct gather_start_call){
      .comm = comm, .purpose = purpose, .row_bytes = row_bytes, .all = all, .request = request};
  memcpy(call->numbers, rows_of_rank, ranks * sizeof *rows_of_rank);
  memcpy(call->numbers + ranks, first_of_rank, ranks * sizeof *first_of_rank);
  enum status status = write_down(comm, gather_start_again, call, bytes);
  memory_free((void **)&call);
  return status;
}

enum status comm_gather_start(struct comm *comm, const int64_t *rows_of_rank, const int64_t *first_of_rank,
                              size_t row_bytes, void *all, struct comm_request *request) {
  const char *purpose = take_purpose(comm, "gather of rows");
  *request = (struct comm_request){0};
  if (replay_records(comm->device))
    return write_down_gather(comm, purpose, rows_of_rank, first_of_rank, row_bytes, all, request);
  int64_t rows = count_gather(comm, rows_of_rank, row_bytes);
  count_start(comm, purpose, request);
  TRY(alive(comm));
  return rows == 0 ? STATUS_OK : comm->ops->gather_start(comm, rows_of_rank, first_of_rank, row_bytes, all, request);
}

enum status comm_progress(struct comm *comm, struct comm_request *request, bool *done) {
  TRY(alive(comm));
  *done = false;
  return replay_records(comm->device) ? STATUS_OK : comm->ops->progress(comm, request, done);
}

static enum status wait_again(const void *arguments) {
  const struct sum_call *call = arguments;
  return comm_wait(call->comm, call->request);
}

enum status comm_wait(struct comm *comm, struct comm_request *request) {
  struct sum_call call = {.comm = comm, .request = request};
  TRY(alive(comm));
  if (replay_records(comm->device))
    return write_down(comm, wait_again, &call, sizeof call);
  if (comm->size > 1)
    pulse_wait(request->number, request->purpose);
  return leave(comm, comm->ops->wait(comm, request));
}

enum status comm_agree(struct comm *comm, enum status local) {
  /* The lowest failing rank speaks: maximise -rank over those that failed. */
  int64_t worst = local == STATUS_OK ? -(int64_t)comm->size : -(int64_t)comm->rank;
  TRY(comm_max_i64(comm_for(comm, take_purpose(comm, "agreement that all is well")), &worst, 1));
  if (worst == -(int64_t)comm->size)
    return STATUS_OK;
  struct {
    int32_t code;
    char sentence[1020];
  } verdict = {.code = (int32_t)local};
  strncpy(verdict.sentence, status_message(), sizeof verdict.sentence - 1);
  TRY(comm_broadcast(control_of(comm), &verdict, sizeof verdict, (int)-worst)); /* host memory */
  fail((enum status)verdict.code, "%s", verdict.sentence);
  status_set_agreed();
  return (enum status)verdict.code;
}

enum status comm_same(struct comm *comm, const char *what, const void *data, size_t bytes) {
  unsigned char *root_bytes = NULL;
  enum status status = memory_alloc(bytes, (void **)&root_bytes);
  status = comm_agree(comm, status);
  if (status != STATUS_OK) {
    memory_free((void **)&root_bytes);
    return status;
  }
  memcpy(root_bytes, data, bytes);
  status = comm_broadcast(control_of(comm), root_bytes, bytes, 0);
  if (status == STATUS_OK && memcmp(root_bytes, data, bytes) != 0)
    status = fail(ERR_BUG, "%s differs between rank 0 and rank %d", what, comm->rank);
  memory_free((void **)&root_bytes);
  return comm_agree(comm, status);
}

enum status comm_node_alloc(struct comm *comm, size_t bytes, void **out) {
  TRY(alive(comm));
  enter(comm, take_purpose(comm, "sharing of a host's memory"));
  return leave(comm, control_of(comm)->ops->node_alloc(control_of(comm), bytes, out));
}

/* Not counted: each host has its own. */
enum status comm_node_barrier(struct comm *comm) {
  TRY(alive(comm));
  const char *before = pulse_doing("waits for the ranks of its host");
  enum status status = control_of(comm)->ops->node_barrier(control_of(comm));
  pulse_doing(before);
  return status;
}

struct comm_traffic comm_traffic(const struct comm *comm) {
  return comm->traffic;
}

void comm_traffic_reset(struct comm *comm) {
  memset(&comm->traffic, 0, sizeof comm->traffic);
}

enum status comm_timeout(double *seconds) {
  const char *text = getenv("CONR_COMM_TIMEOUT");
  char *end;
  *seconds = 300;
  if (text == NULL)
    return STATUS_OK;
  *seconds = strtod(text, &end);
  REQUIRE(end != text && *end == '\0' && isfinite(*seconds) && *seconds > 0, ERR_ARGUMENT,
          "CONR_COMM_TIMEOUT is \"%s\"; give seconds above 0", text);
  return STATUS_OK;
}
