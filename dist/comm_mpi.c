/* Collectives on host memory through MPI. */
#include "dist/comm_ops.h"
#include "dist/log.h"
#include "dist/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MOST_BLOCKS 16

/* What MPI is told of a gather, and may read until its end. */
struct gather {
  MPI_Datatype row; /* owned                                             */
  int numbers[];    /* [size] rows, then [size] where each rank's begin */
};

struct mpi_transport {
  MPI_Comm world;           /* owned duplicate                         */
  MPI_Comm node;            /* owned: the ranks that share this host   */
  MPI_Datatype bf16;        /* owned: bf16, which MPI does not know, ... */
  MPI_Op bf16_sum;          /* owned: ... and its sum                    */
  void *block[MOST_BLOCKS]; /* host-shared memory, mapped */
  size_t length[MOST_BLOCKS];
  int block_count;
};

/* Convert an MPI code; the sentence names the call. */
static enum status check(int code, const char *call) {
  if (code == MPI_SUCCESS)
    return STATUS_OK;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  return fail(ERR_COMM, "%s failed: %.*s", call, length, text);
}

static struct mpi_transport *transport_of(struct comm *comm) {
  return comm->transport;
}

static MPI_Datatype sum_type(struct comm *comm, enum dtype dtype) {
  return dtype == BF16 ? transport_of(comm)->bf16 : dtype == F32 ? MPI_FLOAT : MPI_DOUBLE;
}

static MPI_Op sum_operation(struct comm *comm, enum dtype dtype) {
  return dtype == BF16 ? transport_of(comm)->bf16_sum : MPI_SUM;
}

/* MPI's form of an operation: to[i] += from[i]; each addition is rounded. */
static void add_bf16(void *from, void *to, int *count, MPI_Datatype *type) {
  const uint16_t *x = from;
  uint16_t *y = to;
  (void)type;
  for (int i = 0; i < *count; i++)
    y[i] = bf16_round(bf16_widen(x[i]) + bf16_widen(y[i]));
}

static enum status make_bf16(struct mpi_transport *transport) {
  TRY(check(MPI_Type_contiguous(2, MPI_BYTE, &transport->bf16), "MPI_Type_contiguous"));
  TRY(check(MPI_Type_commit(&transport->bf16), "MPI_Type_commit"));
  return check(MPI_Op_create(add_bf16, 1, &transport->bf16_sum), "MPI_Op_create");
}

static void destroy(struct comm *comm) {
  struct mpi_transport *transport = transport_of(comm);
  for (int i = transport->block_count - 1; i >= 0; i--)
    munmap(transport->block[i], transport->length[i]);
  if (transport->bf16_sum != MPI_OP_NULL)
    MPI_Op_free(&transport->bf16_sum);
  if (transport->bf16 != MPI_DATATYPE_NULL)
    MPI_Type_free(&transport->bf16);
  if (transport->node != MPI_COMM_NULL)
    MPI_Comm_free(&transport->node);
  if (transport->world != MPI_COMM_NULL)
    MPI_Comm_free(&transport->world);
  memory_free(&comm->transport);
}

static enum status barrier(struct comm *comm) {
  return check(MPI_Barrier(transport_of(comm)->world), "MPI_Barrier");
}

/* In-place all-reduce of any count, split at INT_MAX. */
static enum status all_reduce(struct comm *comm, MPI_Datatype type, size_t element_bytes, MPI_Op operation, void *data,
                              size_t count) {
  char *next = data;
  while (count > 0) {
    int part = count > INT_MAX ? INT_MAX : (int)count;
    TRY(check(MPI_Allreduce(MPI_IN_PLACE, next, part, type, operation, transport_of(comm)->world), "MPI_Allreduce"));
    next += (size_t)part * element_bytes;
    count -= (size_t)part;
  }
  return STATUS_OK;
}

static enum status sum(struct comm *comm, enum dtype dtype, void *data, size_t count) {
  return all_reduce(comm, sum_type(comm, dtype), dtype_size(dtype), sum_operation(comm, dtype), data, count);
}

static enum status max_i64(struct comm *comm, int64_t *data, size_t count) {
  return all_reduce(comm, MPI_INT64_T, sizeof *data, MPI_MAX, data, count);
}

static enum status max_f64(struct comm *comm, double *data, size_t count) {
  return all_reduce(comm, MPI_DOUBLE, sizeof *data, MPI_MAX, data, count);
}

static enum status broadcast(struct comm *comm, void *data, size_t bytes, int root) {
  char *next = data;
  while (bytes > 0) {
    int part = bytes > INT_MAX ? INT_MAX : (int)bytes;
    TRY(check(MPI_Bcast(next, part, MPI_BYTE, root, transport_of(comm)->world), "MPI_Bcast"));
    next += part;
    bytes -= (size_t)part;
  }
  return STATUS_OK;
}

static void destroy_gather(struct gather *gather) {
  if (gather->row != MPI_DATATYPE_NULL)
    MPI_Type_free(&gather->row);
  memory_free((void **)&gather);
}

/* first_of_rank: NULL = one rank's rows behind the other's. */
static enum status describe_rows(const struct comm *comm, const int64_t *rows_of_rank, const int64_t *first_of_rank,
                                 size_t row_bytes, struct gather *gather) {
  int64_t total = 0;
  REQUIRE(row_bytes <= INT_MAX, ERR_ARGUMENT, "a gathered row of %zu bytes is larger than MPI can describe", row_bytes);
  for (int rank = 0; rank < comm->size; rank++) {
    int64_t first = first_of_rank != NULL ? first_of_rank[rank] : total;
    REQUIRE(rows_of_rank[rank] <= INT_MAX - first, ERR_ARGUMENT, "a gather of over %d rows is not supported", INT_MAX);
    gather->numbers[rank] = (int)rows_of_rank[rank];
    gather->numbers[comm->size + rank] = (int)first;
    total += rows_of_rank[rank];
  }
  /* A row is one MPI element, so that byte counts above INT_MAX never appear. */
  TRY(check(MPI_Type_contiguous((int)row_bytes, MPI_BYTE, &gather->row), "MPI_Type_contiguous"));
  return check(MPI_Type_commit(&gather->row), "MPI_Type_commit");
}

static enum status create_gather(const struct comm *comm, const int64_t *rows_of_rank, const int64_t *first_of_rank,
                                 size_t row_bytes, struct gather **out) {
  TRY(memory_alloc(sizeof **out + 2 * (size_t)comm->size * sizeof(int), (void **)out));
  (*out)->row = MPI_DATATYPE_NULL;
  enum status status = describe_rows(comm, rows_of_rank, first_of_rank, row_bytes, *out);
  if (status == STATUS_OK)
    return STATUS_OK;
  destroy_gather(*out);
  *out = NULL;
  return status;
}

static enum status gather_rows(struct comm *comm, const void *own, const int64_t *rows_of_rank, size_t row_bytes,
                               void *all) {
  struct gather *gather;
  TRY(create_gather(comm, rows_of_rank, NULL, row_bytes, &gather));
  const int *counts = gather->numbers, *offsets = counts + comm->size;
  double begin = log_seconds();
  enum status status = check(MPI_Allgatherv(own ? own : MPI_IN_PLACE, counts[comm->rank], gather->row, all, counts,
                                            offsets, gather->row, transport_of(comm)->world),
                             "MPI_Allgatherv");
  comm->traffic.gather_seconds += log_seconds() - begin;
  destroy_gather(gather);
  return status;
}

static enum status exchange_rows(struct comm *comm, const void *own, const int64_t *rows_to, const int64_t *rows_from,
                                 size_t row_bytes, void *all) {
  struct gather *to = NULL, *from = NULL;
  enum status status;
  TRY(create_gather(comm, rows_to, NULL, row_bytes, &to));
  TRY_GOTO(create_gather(comm, rows_from, NULL, row_bytes, &from), out);
  double begin = log_seconds();
  status = check(MPI_Alltoallv(own, to->numbers, to->numbers + comm->size, to->row, all, from->numbers,
                               from->numbers + comm->size, from->row, transport_of(comm)->world),
                 "MPI_Alltoallv");
  comm->traffic.gather_seconds += log_seconds() - begin;
out:
  if (from != NULL)
    destroy_gather(from);
  destroy_gather(to);
  return status;
}

/* MPI_Request travels in the request's handle: both are pointer-sized in Open MPI, an int fits in MPICH. */
_Static_assert(sizeof(MPI_Request) <= sizeof(void *), "MPI_Request must fit in a pointer");

static MPI_Request load_request(const struct comm_request *request) {
  MPI_Request mpi = MPI_REQUEST_NULL;
  if (request->handle != NULL)
    memcpy(&mpi, &request->handle, sizeof mpi);
  return mpi;
}

static void store_request(struct comm_request *request, MPI_Request mpi) {
  request->handle = NULL;
  if (mpi != MPI_REQUEST_NULL)
    memcpy(&request->handle, &mpi, sizeof mpi);
}

static enum status sum_start(struct comm *comm, enum dtype dtype, void *data, size_t count,
                             struct comm_request *request) {
  REQUIRE(count <= INT_MAX, ERR_BUG, "a bucket of %zu elements is too large", count);
  MPI_Request mpi = MPI_REQUEST_NULL;
  TRY(check(MPI_Iallreduce(MPI_IN_PLACE, data, (int)count, sum_type(comm, dtype), sum_operation(comm, dtype),
                           transport_of(comm)->world, &mpi),
            "MPI_Iallreduce"));
  store_request(request, mpi);
  return STATUS_OK;
}

static enum status gather_start(struct comm *comm, const int64_t *rows_of_rank, const int64_t *first_of_rank,
                                size_t row_bytes, void *all, struct comm_request *request) {
  struct gather *gather;
  MPI_Request mpi = MPI_REQUEST_NULL;
  TRY(create_gather(comm, rows_of_rank, first_of_rank, row_bytes, &gather));
  const int *counts = gather->numbers, *offsets = counts + comm->size;
  double begin = log_seconds();
  enum status status = check(
      MPI_Iallgatherv(MPI_IN_PLACE, 0, gather->row, all, counts, offsets, gather->row, transport_of(comm)->world, &mpi),
      "MPI_Iallgatherv");
  comm->traffic.gather_seconds += log_seconds() - begin;
  if (status != STATUS_OK) {
    destroy_gather(gather);
    return status;
  }
  store_request(request, mpi);
  request->held = gather;
  return STATUS_OK;
}

/* MPI is through with it. */
static void end_request(struct comm_request *request) {
  if (request->held != NULL)
    destroy_gather(request->held);
  request->held = NULL;
}

static enum status progress(struct comm *comm, struct comm_request *request, bool *done) {
  (void)comm;
  MPI_Request mpi = load_request(request);
  int flag = 0;
  TRY(check(MPI_Test(&mpi, &flag, MPI_STATUS_IGNORE), "MPI_Test"));
  store_request(request, mpi);
  *done = flag != 0;
  if (*done)
    end_request(request);
  return STATUS_OK;
}

static enum status wait_request(struct comm *comm, struct comm_request *request) {
  MPI_Request mpi = load_request(request);
  double begin = log_seconds();
  TRY(check(MPI_Wait(&mpi, MPI_STATUS_IGNORE), "MPI_Wait"));
  if (request->held != NULL)
    comm->traffic.gather_seconds += log_seconds() - begin;
  store_request(request, mpi);
  end_request(request);
  return STATUS_OK;
}

/* A block of host-shared memory on its way: what the host's first rank made, and how it went. */
struct offer {
  int error; /* errno of the first failure */
  char name[60];
};

/* The host's first rank reserves the memory in full, so that no page is missing later. */
static int make_block(struct comm *comm, size_t length, struct offer *offer) {
  snprintf(offer->name, sizeof offer->name, "/conr-%ld-%p-%d", (long)getpid(), (void *)comm,
           transport_of(comm)->block_count);
  int file = shm_open(offer->name, O_RDWR | O_CREAT | O_EXCL, 0600);
  offer->error = file < 0 ? errno : length > PTRDIFF_MAX ? ENOMEM : posix_fallocate(file, 0, (off_t)length);
  return file;
}

/* Map it; the name goes once all ranks of the host have it, so that a killed job leaves nothing behind. */
static enum status map_block(struct comm *comm, int file, size_t length, struct offer *offer, void **out) {
  void *block = MAP_FAILED;
  if (offer->error == 0) {
    block = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    offer->error = block == MAP_FAILED ? errno : 0;
  }
  TRY(check(MPI_Allreduce(MPI_IN_PLACE, &offer->error, 1, MPI_INT, MPI_MAX, transport_of(comm)->node),
            "MPI_Allreduce"));
  if (comm->node_rank == 0)
    shm_unlink(offer->name);
  if (offer->error != 0 && block != MAP_FAILED)
    munmap(block, length);
  REQUIRE(offer->error == 0, ERR_MEMORY, "cannot share %zu bytes among the ranks of %s: %s (is /dev/shm large enough?)",
          length, comm->host, strerror(offer->error));
  *out = block;
  return STATUS_OK;
}

static enum status node_alloc(struct comm *comm, size_t bytes, void **out) {
  struct mpi_transport *transport = transport_of(comm);
  struct offer offer = {0};
  size_t length = bytes > 0 ? bytes : 1;
  int file = -1;
  *out = NULL;
  REQUIRE(transport->block_count < MOST_BLOCKS, ERR_BUG, "more than %d blocks of host-shared memory", MOST_BLOCKS);
  if (comm->node_rank == 0)
    file = make_block(comm, length, &offer);
  TRY(check(MPI_Bcast(&offer, sizeof offer, MPI_BYTE, 0, transport->node), "MPI_Bcast"));
  if (offer.error == 0 && comm->node_rank != 0) {
    file = shm_open(offer.name, O_RDWR, 0600);
    offer.error = file < 0 ? errno : 0;
  }
  enum status status = map_block(comm, file, length, &offer, out);
  if (file >= 0)
    close(file);
  TRY(status);
  transport->length[transport->block_count] = length;
  transport->block[transport->block_count++] = *out;
  return STATUS_OK;
}

static enum status node_barrier(struct comm *comm) {
  __sync_synchronize(); /* what this rank wrote is visible before others pass the barrier */
  TRY(check(MPI_Barrier(transport_of(comm)->node), "MPI_Barrier"));
  __sync_synchronize();
  return STATUS_OK;
}

/* MPI's calls never notice a lost rank: the launcher and the watch (watch.h) do. */
static enum status check_ranks(struct comm *comm) {
  (void)comm;
  return STATUS_OK;
}

static const struct comm_ops mpi_ops = {
    .name = "mpi",
    .destroy = destroy,
    .barrier = barrier,
    .sum = sum,
    .max_i64 = max_i64,
    .max_f64 = max_f64,
    .broadcast = broadcast,
    .gather_rows = gather_rows,
    .exchange_rows = exchange_rows,
    .sum_start = sum_start,
    .gather_start = gather_start,
    .progress = progress,
    .wait = wait_request,
    .check = check_ranks,
    .node_alloc = node_alloc,
    .node_barrier = node_barrier,
};

/* Before there is a communicator to agree by. */
static enum status agree_on_memory(MPI_Comm mpi, enum status own) {
  int failed = own != STATUS_OK;
  TRY(check(MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MAX, mpi), "MPI_Allreduce"));
  return own == STATUS_OK && failed ? fail(ERR_MEMORY, "another rank has no memory for a communicator") : own;
}

/* With handles that destroy() leaves alone. */
static enum status alloc(struct comm **out) {
  TRY(memory_alloc_zero(sizeof **out, (void **)out));
  TRY(memory_alloc_zero(sizeof(struct mpi_transport), &(*out)->transport));
  struct mpi_transport *transport = (*out)->transport;
  (*out)->ops = &mpi_ops;
  transport->world = transport->node = MPI_COMM_NULL;
  transport->bf16 = MPI_DATATYPE_NULL;
  transport->bf16_sum = MPI_OP_NULL;
  return STATUS_OK;
}

enum status comm_create_mpi(MPI_Comm mpi, struct comm **out) {
  *out = NULL;
  struct comm *comm = NULL;
  enum status status;
  TRY_GOTO(agree_on_memory(mpi, alloc(&comm)), failed);
  struct mpi_transport *transport = comm->transport;
  TRY_GOTO(check(MPI_Comm_dup(mpi, &transport->world), "MPI_Comm_dup"), failed);
  /* Codes come back to us instead of ending the job inside MPI. */
  MPI_Comm_set_errhandler(transport->world, MPI_ERRORS_RETURN);
  MPI_Comm_rank(transport->world, &comm->rank);
  MPI_Comm_size(transport->world, &comm->size);
  TRY_GOTO(
      check(MPI_Comm_split_type(transport->world, MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL, &transport->node),
            "MPI_Comm_split_type"),
      failed);
  MPI_Comm_rank(transport->node, &comm->node_rank);
  MPI_Comm_size(transport->node, &comm->node_size);
  TRY_GOTO(make_bf16(transport), failed);
  gethostname(comm->host, sizeof comm->host - 1);
  *out = comm;
  return STATUS_OK;

failed:
  if (comm != NULL && comm->transport != NULL)
    destroy(comm);
  memory_free((void **)&comm);
  return status;
}

enum status comm_duplicate_mpi(struct comm *mpi, struct comm **out) {
  return comm_create_mpi(transport_of(mpi)->world, out);
}
