/* Communicators on device memory: every collective against the host communicator, and which
 * transport is chosen.
 *
 *   rank_device_comm list mpi|nccl [case]   all cases, or one, on that transport; rank r works on GPU r
 *   rank_device_comm unordered mpi|nccl     streams that wait for nothing must give wrong sums: else the list proves little
 *   rank_device_comm choice                 which transport is chosen, and what is refused, each rank with a GPU of its own
 *   rank_device_comm shared                 likewise, all ranks on GPU 0
 *   rank_device_comm without-nccl           likewise, where a rank's library has no NCCL
 *   rank_device_comm id-file PATH           the ranks of NCCL find one another by a file
 *   rank_device_comm id-address             the same by TCP
 *
 * For machines without GPUs: CONR_CUDA_LIBRARY names the emulation, where nothing is done before somebody waits for it.
 * So whatever a collective reads was at most queued when it was called. */
#define _GNU_SOURCE
#include "dist/comm_device.h"

#include "dist/bucket.h"
#include "dist/comm_ops.h"
#include "dist/device_ops.h"
#include "dist/log.h"
#include "dist/memory.h"
#include "dist/pulse.h"
#include "dist/random.h"
#include "dist/replay.h"
#include "tests/buffers.h"
#include "tests/rank_record.h"

#include <arpa/inet.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct comm *host;       /* the reference                                        */
static struct device *device;   /* of this rank                                         */
static enum device_comm wanted; /* NCCL sums in an order of its own: integers are exact */

/* A copy in device memory, still to be made: it is only queued. */
static void *on_device(const void *data, size_t bytes) {
  void *block;
  MUST(device_alloc(device, bytes, &block));
  MUST(device_copy(device, block, data, bytes));
  return block;
}

/* The block's content, once the main stream has come so far; looked at by comm_device_wait(). */
static void *from_device(struct comm *comm, const void *block, size_t bytes) {
  void *data = rank_room(bytes);
  MUST(device_copy(device, data, block, bytes));
  EXPECT_OK(comm_device_wait(comm));
  return data;
}

static void expect_on_device(struct comm *comm, const void *block, const void *expected, size_t bytes, const char *what,
                             size_t count) {
  unsigned char *data = from_device(comm, block, bytes);
  size_t i = 0;
  while (i < bytes && data[i] == ((const unsigned char *)expected)[i])
    i++;
  EXPECT(i == bytes, "%s of %zu: byte %zu of %zu is not the host's", what, count, i, bytes);
  memory_free((void **)&data);
}

/* ---------------------------------------------------------------- numbers */

static double number(int rank, uint64_t salt, size_t i) {
  struct random_key key = random_key(salt, RANDOM_TEST, (uint64_t)rank);
  double uniform = random_uniform(key, i, 0);
  if (wanted == DEVICE_COMM_NCCL)
    return floor(60 * uniform) - 30; /* sums of four are exact even in bf16 */
  return (uniform - 0.5) * exp2(20 * random_uniform(key, i, 1));
}

static void *own_numbers(enum dtype dtype, uint64_t salt, size_t count) {
  void *data = rank_room(count * dtype_size(dtype));
  for (size_t i = 0; i < count; i++)
    buffer_set(dtype, data, (int64_t)i, number(record.rank, salt, i));
  return data;
}

/* ---------------------------------------------------------------- sums, broadcasts, rows */

static void sums_have_the_bits_of_the_host(struct comm *comm) {
  static const size_t counts[] = {0, 1, 7, 1000, 100000, 300000};
  for (enum dtype dtype = F32; dtype <= BF16; dtype++)
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
      size_t bytes = counts[c] * dtype_size(dtype);
      void *data = own_numbers(dtype, c, counts[c]), *block = on_device(data, bytes);
      EXPECT_OK(comm_sum(comm, dtype, block, counts[c]));
      MUST(comm_sum(host, dtype, data, counts[c]));
      expect_on_device(comm, block, data, bytes, "sum", counts[c]);
      memory_free(&data);
      device_free(device, &block);
    }
}

/* The result of one is what the next begins with; the host waits once. */
static void sums_of_sums_are_in_order(struct comm *comm) {
  enum { COUNT = 1000, TIMES = 3 };
  double *data = rank_room(COUNT * sizeof *data);
  for (size_t i = 0; i < COUNT; i++)
    data[i] = (double)(record.rank + (int)i);
  void *block = on_device(data, COUNT * sizeof *data);
  for (int time = 0; time < TIMES; time++) {
    EXPECT_OK(comm_sum(comm, F64, block, COUNT));
    MUST(comm_sum(host, F64, data, COUNT));
  }
  expect_on_device(comm, block, data, COUNT * sizeof *data, "sum of sums", COUNT);
  device_free(device, &block);
  memory_free((void **)&data);
}

static unsigned char byte_at(int rank, size_t i) {
  uint32_t mixed = (uint32_t)rank * 2654435761u + (uint32_t)i * 40503u + 12345u;
  return (unsigned char)(mixed * 3266489917u >> 24);
}

static unsigned char *bytes_of(int rank, size_t bytes) {
  unsigned char *data = rank_room(bytes);
  for (size_t i = 0; i < bytes; i++)
    data[i] = byte_at(rank, i);
  return data;
}

/* The last size is of several pieces of pinned memory, and no whole number of them. */
static void broadcasts_come_from_each_root(struct comm *comm) {
  static const size_t sizes[] = {0, 1, 1000, 17000003};
  for (int root = 0; root < record.size; root++)
    for (int s = 0; s < (root == record.size - 1 ? 4 : 3); s++) {
      unsigned char *data = bytes_of(record.rank, sizes[s] + 1), *expected = bytes_of(root, sizes[s] + 1);
      void *block = on_device(data, sizes[s] + 1);
      EXPECT_OK(comm_broadcast(comm, block, sizes[s], root));
      expected[sizes[s]] = data[sizes[s]]; /* beyond the end */
      expect_on_device(comm, block, expected, sizes[s] + 1, "broadcast", sizes[s]);
      device_free(device, &block);
      memory_free((void **)&data);
      memory_free((void **)&expected);
    }
}

static int64_t rows_by(int layout, int rank) {
  static const int64_t many[] = {700, 0, 811, 5};
  switch (layout) {
  case 0:
    return 3; /* even */
  case 1:
    return 2 * rank + 1;
  case 2:
    return rank % 2 == 0 ? 0 : 5; /* nothing at all on one rank */
  case 3:
    return 0;
  case 4:
    return rank == record.size - 1 ? 7 : 0;
  default:
    return many[rank % 4];
  }
}

static void check_gather(struct comm *comm, const int64_t *rows, size_t row_bytes, bool in_place) {
  size_t total = 0, before = 0, own_bytes = (size_t)rows[record.rank] * row_bytes;
  for (int rank = 0; rank < record.size; rank++) {
    before += rank < record.rank ? (size_t)rows[rank] * row_bytes : 0;
    total += (size_t)rows[rank] * row_bytes;
  }
  unsigned char *own = bytes_of(record.rank, own_bytes), *all = rank_room(total + 1), *expected = rank_room(total + 1);
  memset(all, 0x55, total + 1);
  memset(expected, 0x55, total + 1);
  if (in_place)
    memcpy(all + before, own, own_bytes);
  void *own_block = on_device(own, own_bytes), *block = on_device(all, total + 1);
  EXPECT_OK(comm_gather_rows(comm, in_place ? NULL : own_block, rows, row_bytes, block));
  MUST(comm_gather_rows(host, own, rows, row_bytes, expected));
  expect_on_device(comm, block, expected, total + 1, in_place ? "gather in place" : "gather", total);
  device_free(device, &own_block);
  device_free(device, &block);
  memory_free((void **)&own);
  memory_free((void **)&all);
  memory_free((void **)&expected);
}

static void rows_are_gathered_from_even_and_uneven_and_empty_shares(struct comm *comm) {
  static const size_t row_bytes[] = {1, 12, 1031};
  int64_t rows[64] = {0};
  for (int layout = 0; layout < 6; layout++)
    for (int b = 0; b < 3; b++) {
      for (int rank = 0; rank < record.size; rank++)
        rows[rank] = rows_by(layout, rank);
      check_gather(comm, rows, row_bytes[b], false);
      check_gather(comm, rows, row_bytes[b], true);
    }
}

/* ---------------------------------------------------------------- sums in flight */

enum { JOBS = 6, PATIENCE_SECONDS = 30 };
static const size_t job_counts[JOBS] = {1000, 1, 100000, 0, 30000, 64};

struct in_flight {
  void *data[JOBS], *block[JOBS];
  struct comm_request request[JOBS];
  bool done[JOBS];
};

static void start_all(struct comm *comm, struct in_flight *flight) {
  memset(flight, 0, sizeof *flight);
  for (int job = 0; job < JOBS; job++) {
    flight->data[job] = own_numbers(F32, (uint64_t)job, job_counts[job]);
    flight->block[job] = on_device(flight->data[job], job_counts[job] * sizeof(float));
    EXPECT_OK(comm_sum_start(comm, F32, flight->block[job], job_counts[job], &flight->request[job]));
  }
}

/* Sums in flight have the bits of the host's sums in flight. */
static void check_all(struct comm *comm, struct in_flight *flight) {
  for (int job = 0; job < JOBS; job++) {
    struct comm_request request;
    MUST(comm_sum_start(host, F32, flight->data[job], job_counts[job], &request));
    MUST(comm_wait(host, &request));
    EXPECT(flight->request[job].handle == NULL, "job %d is over and its handle is not NULL", job);
    expect_on_device(comm, flight->block[job], flight->data[job], job_counts[job] * sizeof(float), "sum in flight",
                     job_counts[job]);
    device_free(device, &flight->block[job]);
    memory_free(&flight->data[job]);
  }
}

/* Each rank in an order of its own. */
static void wait_for_rest(struct comm *comm, struct in_flight *flight) {
  for (int i = 0; i < JOBS; i++) {
    int job = (JOBS - 1 - i + record.rank) % JOBS;
    if (!flight->done[job])
      EXPECT_OK(comm_wait(comm, &flight->request[job]));
  }
}

static void sums_in_flight_end_by_waiting_in_any_order(struct comm *comm) {
  struct in_flight flight;
  start_all(comm, &flight);
  wait_for_rest(comm, &flight);
  check_all(comm, &flight);
}

static void sums_in_flight_end_by_progress_alone(struct comm *comm) {
  struct in_flight flight;
  bool all = false;
  start_all(comm, &flight);
  for (double begin = log_seconds(); !all && log_seconds() < begin + PATIENCE_SECONDS;) {
    all = true;
    for (int job = 0; job < JOBS; job++) {
      if (!flight.done[job])
        EXPECT_OK(comm_progress(comm, &flight.request[job], &flight.done[job]));
      all = all && flight.done[job];
    }
  }
  EXPECT(all, "progress for %d s did not end the sums", PATIENCE_SECONDS);
  check_all(comm, &flight);
}

/* Each rank pushes as it likes; a sum, rows and agreement come between, as in synchronised normalisation. */
static void other_collectives_run_while_sums_are_in_flight(struct comm *comm) {
  struct in_flight flight;
  int64_t rows[64] = {0}, one = record.rank;
  start_all(comm, &flight);
  for (int i = 0; i < 3 * record.rank; i++)
    if (!flight.done[0])
      EXPECT_OK(comm_progress(comm, &flight.request[0], &flight.done[0]));
  sums_of_sums_are_in_order(comm);
  for (int rank = 0; rank < record.size; rank++)
    rows[rank] = rank;
  check_gather(comm, rows, 8, false);
  EXPECT_OK(comm_agree(comm, STATUS_OK));
  EXPECT_OK(comm_max_i64(comm, &one, 1));
  EXPECT(one == record.size - 1, "the maximum is %lld", (long long)one);
  EXPECT_OK(comm_barrier(comm));
  wait_for_rest(comm, &flight);
  check_all(comm, &flight);
}

/* More than either transport keeps numbers for. */
static void many_sums_may_be_in_flight(struct comm *comm) {
  enum { MANY = 600 };
  struct comm_request *requests = rank_room(MANY * sizeof *requests);
  double *data = rank_room(MANY * sizeof *data);
  for (int i = 0; i < MANY; i++)
    data[i] = record.rank + i;
  double *block = on_device(data, MANY * sizeof *data);
  for (int i = 0; i < MANY; i++)
    EXPECT_OK(comm_sum_start(comm, F64, block + i, 1, &requests[i]));
  for (int i = 0; i < MANY; i++)
    EXPECT_OK(comm_wait(comm, &requests[i]));
  MUST(comm_sum(host, F64, data, MANY));
  expect_on_device(comm, block, data, MANY * sizeof *data, "many sums", MANY);
  device_free(device, (void **)&block);
  memory_free((void **)&data);
  memory_free((void **)&requests);
}

/* ---------------------------------------------------------------- rows in flight */

enum { PIECES = 3 };

/* The rows of a step, piece by piece: what a piece holds is queued on the main stream just before it leaves, on top of
 * what the step before has left.  True when each step ended with the host's rows. */
static bool pieces_are_equal(struct comm *comm, int layout, size_t row_bytes, bool by_progress,
                             void (*after_step)(int step)) {
  enum { STEPS_OF_ROWS = 3 };
  int64_t rows[64], part[64], first[64];
  size_t total = 0, before = 0;
  bool equal = true;
  for (int rank = 0; rank < record.size; rank++) {
    rows[rank] = rows_by(layout, rank);
    before += rank < record.rank ? (size_t)rows[rank] * row_bytes : 0;
    total += (size_t)rows[rank] * row_bytes;
  }
  void *block;
  MUST(device_alloc(device, total + 1, &block));
  for (int step = 0; step < STEPS_OF_ROWS; step++) {
    struct comm_request request[PIECES];
    unsigned char *own = bytes_of(record.rank + 10 * step, (size_t)rows[record.rank] * row_bytes);
    unsigned char *expected = rank_room(total + 1);
    void *own_block = on_device(own, (size_t)rows[record.rank] * row_bytes);
    MUST(comm_gather_rows(host, own, rows, row_bytes, expected));
    MUST(device_zero(device, block, total + 1));
    for (int piece = 0; piece < PIECES; piece++) {
      int64_t place = 0;
      for (int rank = 0; rank < record.size; rank++) {
        int64_t begin = rows[rank] * piece / PIECES;
        first[rank] = place + begin;
        part[rank] = rows[rank] * (piece + 1) / PIECES - begin;
        place += rows[rank];
      }
      size_t at = (size_t)first[record.rank] * row_bytes, bytes = (size_t)part[record.rank] * row_bytes;
      MUST(device_copy(device, (char *)block + at, (char *)own_block + (at - before), bytes));
      EXPECT_OK(comm_gather_start(comm, part, first, row_bytes, block, &request[piece]));
      bool done = !by_progress;
      for (double begin = log_seconds(); !done && log_seconds() < begin + PATIENCE_SECONDS;)
        EXPECT_OK(comm_progress(comm, &request[piece], &done));
      EXPECT(done, "progress for %d s did not end a gather", PATIENCE_SECONDS);
    }
    for (int piece = 0; piece < PIECES; piece++)
      EXPECT_OK(comm_wait(comm, &request[(piece + record.rank) % PIECES]));
    expected[total] = 0;
    unsigned char *result = from_device(comm, block, total + 1);
    equal = equal && memcmp(result, expected, total + 1) == 0;
    if (after_step != NULL)
      after_step(step);
    memory_free((void **)&result);
    memory_free((void **)&expected);
    memory_free((void **)&own);
    device_free(device, &own_block);
  }
  device_free(device, &block);
  return equal;
}

static void rows_in_pieces_are_those_of_the_host(struct comm *comm) {
  static const size_t row_bytes[] = {1, 12, 1031};
  for (int layout = 0; layout < 6; layout++)
    for (int b = 0; b < 3; b++)
      for (int by_progress = 0; by_progress < 2; by_progress++)
        EXPECT(pieces_are_equal(comm, layout, row_bytes[b], by_progress, NULL),
               "layout %d, %zu bytes a row, by progress %d", layout, row_bytes[b], by_progress);
}

/* ---------------------------------------------------------------- buckets */

enum { SLICES = 23, STEPS = 4 };

static size_t slice_offsets(size_t offsets[SLICES]) {
  size_t elements = 0;
  for (size_t slice = 0; slice < SLICES; slice++) {
    offsets[slice] = elements;
    elements += slice % 3 == 0 ? 4001 : slice % 3 == 1 ? 64 : 1;
  }
  return elements;
}

/* The gradients of a slice on its way: on the GPU as queued work of the main stream, just before it is ready. */
static void step_through(struct buckets *buckets, const size_t *offsets, size_t elements, char *gradients,
                         const char *computed, struct device *where) {
  for (size_t slice = SLICES; slice-- > 0;) {
    size_t begin = offsets[slice] * sizeof(float);
    size_t end = (slice + 1 < SLICES ? offsets[slice + 1] : elements) * sizeof(float);
    MUST(device_copy(where, gradients + begin, computed + begin, end - begin));
    EXPECT_OK(buckets_ready(buckets, slice));
    for (int i = 0; i < record.rank; i++) /* each rank at a pace of its own */
      EXPECT_OK(buckets_progress(buckets));
  }
  EXPECT_OK(buckets_wait(buckets));
}

/* `comm` sums on the device, the host communicator the same numbers on the host; true when all bits are equal. */
static bool steps_are_equal(struct comm *comm, size_t bucket_bytes, void (*after_step)(int step)) {
  size_t offsets[SLICES], elements = slice_offsets(offsets), bytes = elements * sizeof(float);
  struct buckets *ours, *theirs;
  void *gradients, *expected = rank_room(bytes);
  bool equal = true;
  MUST(device_alloc(device, bytes, &gradients));
  MUST(buckets_create(comm, F32, gradients, offsets, SLICES, elements, bucket_bytes, &ours));
  MUST(buckets_create(host, F32, expected, offsets, SLICES, elements, bucket_bytes, &theirs));
  for (int step = 0; step < STEPS; step++) {
    void *computed = own_numbers(F32, (uint64_t)step, elements), *block = on_device(computed, bytes);
    MUST(device_zero(device, gradients, bytes));
    step_through(ours, offsets, elements, gradients, block, device);
    step_through(theirs, offsets, elements, expected, computed, NULL);
    void *result = from_device(comm, gradients, bytes);
    equal = equal && memcmp(result, expected, bytes) == 0;
    if (after_step != NULL)
      after_step(step);
    memory_free(&result);
    device_free(device, &block);
    memory_free(&computed);
  }
  buckets_destroy(&ours);
  buckets_destroy(&theirs);
  device_free(device, &gradients);
  memory_free(&expected);
  return equal;
}

static void buckets_have_the_bits_of_the_host(struct comm *comm) {
  static const size_t bucket_bytes[] = {1, 1000, 20000, (size_t)1 << 30};
  for (int i = 0; i < 4; i++)
    EXPECT(steps_are_equal(comm, bucket_bytes[i], NULL), "buckets of %zu bytes differ", bucket_bytes[i]);
}

/* Counts what a transport allocates of the kinds that cost a device its time. */
static struct {
  const struct device_ops *right;
  struct device_ops ops;
  int pinned, events, after_first_step;
} counted;

static enum status counting_alloc_pinned(struct device *own, size_t bytes, void **out) {
  counted.pinned++;
  return counted.right->alloc_pinned(own, bytes, out);
}

static enum status counting_event_create(struct device *own, struct event **out) {
  counted.events++;
  return counted.right->event_create(own, out);
}

static void count_after_first_step(int step) {
  if (step == 0)
    counted.after_first_step = counted.pinned + counted.events;
}

static void steps_after_the_first_allocate_nothing(struct comm *comm) {
  memset(&counted, 0, sizeof counted);
  counted.right = device->ops;
  counted.ops = *device->ops;
  counted.ops.alloc_pinned = counting_alloc_pinned;
  counted.ops.event_create = counting_event_create;
  device->ops = &counted.ops;
  EXPECT(steps_are_equal(comm, 1000, count_after_first_step), "buckets differ");
  EXPECT(counted.pinned + counted.events == counted.after_first_step,
         "%d blocks and events, %d of them in the first step", counted.pinned + counted.events,
         counted.after_first_step);
  EXPECT(pieces_are_equal(comm, 5, 12, false, count_after_first_step), "rows differ");
  EXPECT(counted.pinned + counted.events == counted.after_first_step,
         "rows: %d blocks and events, %d of them in the "
         "first step",
         counted.pinned + counted.events, counted.after_first_step);
  device->ops = counted.right;
}

/* ---------------------------------------------------------------- what is the host communicator's */

static void ranks_are_those_of_the_host(struct comm *comm) {
  EXPECT(comm_rank(comm) == record.rank && comm_size(comm) == record.size, "rank %d/%d", comm_rank(comm),
         comm_size(comm));
  EXPECT(comm_node_rank(comm) == comm_node_rank(host) && comm_node_size(comm) == comm_node_size(host), "place");
  EXPECT(strcmp(comm_host(comm), comm_host(host)) == 0, "host \"%s\"", comm_host(comm));
  const char *expected = wanted == DEVICE_COMM_NCCL ? "nccl 2." : "mpi through host memory";
  EXPECT(strncmp(comm_transport(comm), expected, strlen(expected)) == 0, "transport \"%s\"", comm_transport(comm));
}

static void numbers_of_the_host_go_through_the_host(struct comm *comm) {
  int64_t *block;
  double real = record.rank + 0.5;
  EXPECT_OK(comm_max_f64(comm, &real, 1));
  EXPECT(real == record.size - 0.5, "the maximum is %g", real);
  EXPECT_OK(comm_same(comm, "the table", "abc", 3));
  enum status status = comm_agree(comm, record.rank == record.size - 1 ? fail(ERR_FILE, "no such file") : STATUS_OK);
  EXPECT(status == ERR_FILE && strcmp(status_message(), "no such file") == 0, "%s", status_message());
  EXPECT_OK(comm_node_alloc(comm, (size_t)comm_node_size(comm) * sizeof *block, (void **)&block));
  block[comm_node_rank(comm)] = 10 + comm_node_rank(comm);
  EXPECT_OK(comm_node_barrier(comm));
  for (int i = 0; i < comm_node_size(comm); i++)
    EXPECT(block[i] == 10 + i, "slot %d is %lld", i, (long long)block[i]);
  EXPECT_OK(comm_barrier(comm));
}

static void traffic_is_counted_on_this_communicator_alone(struct comm *comm) {
  int64_t rows[64] = {0}, others = 0;
  struct comm_request request;
  void *block;
  for (int rank = 0; rank < record.size; rank++) {
    rows[rank] = 2 * rank;
    others += rank == record.rank ? 0 : 2 * rank;
  }
  MUST(device_alloc_zero(device, 100000, &block));
  comm_traffic_reset(comm);
  comm_traffic_reset(host);
  EXPECT_OK(comm_gather_rows(comm, NULL, rows, 12, block));
  EXPECT_OK(comm_sum(comm, F64, block, 100));
  EXPECT_OK(comm_sum_start(comm, F32, block, 50, &request));
  EXPECT_OK(comm_wait(comm, &request));
  EXPECT_OK(comm_sum(comm, BF16, block, 3));
  EXPECT_OK(comm_broadcast(comm, block, 100, 0));
  EXPECT_OK(comm_agree(comm, STATUS_OK));
  EXPECT_OK(comm_device_wait(comm));
  struct comm_traffic seen = comm_traffic(comm), of_host = comm_traffic(host);
  EXPECT(seen.gather_calls == 1 && seen.gather_bytes == 12 * others, "%lld gathers, %lld bytes",
         (long long)seen.gather_calls, (long long)seen.gather_bytes);
  EXPECT(seen.sum_calls == 3 && seen.sum_bytes == 1006, "%lld sums, %lld bytes", (long long)seen.sum_calls,
         (long long)seen.sum_bytes);
  EXPECT(of_host.sum_calls == 0 && of_host.gather_calls == 0, "the host's was counted too");
  device_free(device, &block);
}

/* A graph is launched without the host, which has to look after the ranks. */
static void a_graph_keeps_no_collective(struct comm *comm) {
  struct graph *graph = NULL;
  void *block;
  MUST(device_alloc_zero(device, 100, &block));
  MUST(graph_begin(device_main(device)));
  EXPECT(comm_sum(comm, F32, block, 25) != STATUS_OK, "a sum in a graph");
  graph_end(device_main(device), &graph);
  graph_destroy(&graph);
  EXPECT_OK(comm_sum(comm, F32, block, 25));
  EXPECT_OK(comm_device_wait(comm));
  device_free(device, &block);
}

struct kept_sum {
  struct comm *comm;
  float *block;
  struct comm_request request;
};

static enum status sum_sheep(void *context) {
  struct kept_sum *kept = context;
  TRY(comm_sum_start(comm_for(kept->comm, "sum of sheep"), F32, kept->block, 25, &kept->request));
  return comm_wait(kept->comm, &kept->request);
}

/* Called, kept and launched: each time it has its own name, which the next one does not inherit. */
static void a_collective_that_is_kept_keeps_its_name(struct comm *comm) {
  struct kept_sum kept = {.comm = comm};
  struct replays *replays;
  int64_t none = 0;
  MUST(replays_create(device, &replays));
  MUST(device_alloc_zero(device, 25 * sizeof *kept.block, (void **)&kept.block));
  for (int time = 0; time < 3; time++) {
    kept.request.purpose = "";
    EXPECT_OK(replay_run(replays, "sheep", 5, sum_sheep, &kept));
    EXPECT(record.size == 1 || strcmp(kept.request.purpose, "sum of sheep") == 0, "time %d it is a %s", time,
           kept.request.purpose);
    EXPECT_OK(comm_max_i64(comm, &none, 1));
    EXPECT(record.size == 1 || strcmp(pulse_read().collective, "maximum") == 0, "time %d the next is a %s", time,
           pulse_read().collective);
  }
  EXPECT_OK(comm_device_wait(comm));
  device_free(device, (void **)&kept.block);
  replays_destroy(&replays);
}

/* ---------------------------------------------------------------- the list */

#define CASE(function) \
  { #function, function }
static const struct {
  const char *name;
  void (*run)(struct comm *comm);
} cases[] = {
    CASE(ranks_are_those_of_the_host),
    CASE(sums_have_the_bits_of_the_host),
    CASE(sums_of_sums_are_in_order),
    CASE(broadcasts_come_from_each_root),
    CASE(rows_are_gathered_from_even_and_uneven_and_empty_shares),
    CASE(sums_in_flight_end_by_waiting_in_any_order),
    CASE(sums_in_flight_end_by_progress_alone),
    CASE(other_collectives_run_while_sums_are_in_flight),
    CASE(many_sums_may_be_in_flight),
    CASE(rows_in_pieces_are_those_of_the_host),
    CASE(buckets_have_the_bits_of_the_host),
    CASE(steps_after_the_first_allocate_nothing),
    CASE(a_graph_keeps_no_collective),
    CASE(a_collective_that_is_kept_keeps_its_name),
    CASE(numbers_of_the_host_go_through_the_host),
    CASE(traffic_is_counted_on_this_communicator_alone),
};

/* The table of its blocks comes with the first of them, and would be taken for something left. */
static void open_device(int index) {
  void *block;
  int count;
  MUST(device_count(&count));
  MUST(device_open(index % count, &device)); /* MPI lets ranks share one */
  MUST(device_alloc(device, 1, &block));
  device_free(device, &block);
}

static void list(const char *only) {
  bool known = only == NULL;
  open_device(record.rank);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct comm *comm;
    if (only != NULL && strcmp(only, cases[i].name) != 0)
      continue;
    known = true;
    record.name = cases[i].name;
    size_t memory = memory_in_use(), bytes = device_bytes(device);
    MUST(comm_create_device(host, device, wanted, &comm));
    cases[i].run(comm);
    comm_destroy(&comm);
    EXPECT(comm == NULL, "destroy left the pointer");
    EXPECT(device_bytes(device) == bytes, "%zu bytes of the device are left", device_bytes(device) - bytes);
    EXPECT(memory_in_use() == memory, "%zu bytes are left", memory_in_use() - memory);
  }
  EXPECT(known, "no case is named \"%s\"", only);
}

static enum status wait_for_nothing(struct stream *stream, struct event *event) {
  (void)stream;
  (void)event;
  return STATUS_OK;
}

/* The same buckets, with the events taken out of the device. */
static void unordered(void) {
  struct comm *comm;
  open_device(record.rank);
  const struct device_ops *right = device->ops;
  struct device_ops ops = *right;
  ops.stream_wait_event = wait_for_nothing;
  MUST(comm_create_device(host, device, wanted, &comm));
  device->ops = &ops;
  bool equal = steps_are_equal(comm, 1000, NULL);
  EXPECT(!equal || record.size == 1, "nobody waits for anything, and all is right"); /* of one rank it is */
  equal = pieces_are_equal(comm, 1, 12, false, NULL);
  EXPECT(!equal || record.size == 1, "nobody waits for rows, and all is right");
  device->ops = right;
  comm_destroy(&comm);
}

/* ---------------------------------------------------------------- the choice */

static void expect_transport(enum device_comm asked, const char *expected) {
  struct comm *comm;
  float *ones = rank_room(10 * sizeof *ones);
  MUST(comm_create_device(host, device, asked, &comm));
  EXPECT(strncmp(comm_transport(comm), expected, strlen(expected)) == 0, "%s, not %s", comm_transport(comm), expected);
  for (int i = 0; i < 10; i++)
    ones[i] = 1;
  float *block = on_device(ones, 10 * sizeof *ones);
  EXPECT_OK(comm_sum(comm, F32, block, 10));
  for (int i = 0; i < 10; i++)
    ones[i] = (float)record.size;
  expect_on_device(comm, block, ones, 10 * sizeof *ones, "sum", 10);
  device_free(device, (void **)&block);
  memory_free((void **)&ones);
  comm_destroy(&comm);
}

static void expect_refused_as(enum status code, struct device *own, enum device_comm asked, const char *words) {
  struct comm *comm = host;
  enum status status = comm_create_device(host, own, asked, &comm);
  EXPECT(status == code && comm == NULL && status_agreed(), "%s", status_name(status));
  EXPECT(strstr(status_message(), words) != NULL, "no \"%s\" in: %s", words, status_message());
}

static void expect_refused(struct device *own, enum device_comm asked, const char *words) {
  expect_refused_as(ERR_ARGUMENT, own, asked, words);
}

static void choice(void) {
  enum device_comm parsed;
  struct comm *comm;
  open_device(record.rank);
  expect_transport(DEVICE_COMM_AUTO, "nccl 2.");
  expect_transport(DEVICE_COMM_NCCL, "nccl 2.");
  expect_transport(DEVICE_COMM_MPI, "mpi through host memory");
  EXPECT(device_comm_parse("nccl", &parsed) == STATUS_OK && parsed == DEVICE_COMM_NCCL, "nccl");
  EXPECT(device_comm_parse("auto", &parsed) == STATUS_OK && parsed == DEVICE_COMM_AUTO, "auto");
  EXPECT(device_comm_parse("tcp", &parsed) == ERR_ARGUMENT && strstr(status_message(), "auto, nccl, mpi") != NULL, "%s",
         status_message());
  MUST(comm_create_device(host, NULL, DEVICE_COMM_AUTO, &comm)); /* the host as a device */
  EXPECT(strcmp(comm_transport(comm), "mpi") == 0, "%s", comm_transport(comm));
  double one = 1;
  EXPECT_OK(comm_sum(comm, F64, &one, 1));
  EXPECT(one == record.size, "%g", one);
  EXPECT_OK(comm_device_wait(comm));
  EXPECT_OK(comm_device_check(comm));
  comm_destroy(&comm);
  expect_refused(NULL, DEVICE_COMM_NCCL, "runs on the host");
  if (record.rank == record.size - 1)
    setenv("CONR_COMM_TIMEOUT", "soon", 1);
  expect_refused(device, DEVICE_COMM_MPI, "CONR_COMM_TIMEOUT is \"soon\"");
  unsetenv("CONR_COMM_TIMEOUT");
  if (record.size == 1)
    return;
  expect_refused(record.rank == 0 ? NULL : device, DEVICE_COMM_AUTO, "rank 0 (");
  expect_refused(device, record.rank == 1 ? DEVICE_COMM_MPI : DEVICE_COMM_AUTO, "rank 1 for mpi");
}

static void shared(void) {
  char words[100];
  open_device(0);
  expect_transport(DEVICE_COMM_AUTO, "mpi through host memory");
  snprintf(words, sizeof words, "ranks 0 and 1 share the GPU %s of ", device_facts(device)->bus);
  expect_refused(device, DEVICE_COMM_NCCL, words);
}

/* The last rank's library is the one that CONR_WITHOUT_NCCL names. */
static void without_nccl(void) {
  char words[100];
  const char *library = getenv("CONR_WITHOUT_NCCL");
  MUST_HOLD(library != NULL);
  if (library != NULL && record.rank == record.size - 1)
    setenv("CONR_CUDA_LIBRARY", library, 1);
  open_device(record.rank);
  expect_transport(DEVICE_COMM_AUTO, "mpi through host memory");
  snprintf(words, sizeof words, "rank %d (%s) has none", record.size - 1, comm_host(host));
  expect_refused(device, DEVICE_COMM_NCCL, words);
}

/* The id of NCCL goes by a file, in whose place an old one lies. */
static void id_file(const char *path) {
  setenv("CONR_NCCL_ID_FILE", path, 1);
  if (record.rank == 0) {
    FILE *old = fopen(path, "w");
    MUST_HOLD(old != NULL && fputs("old", old) >= 0 && fclose(old) == 0);
  }
  open_device(record.rank);
  expect_transport(DEVICE_COMM_NCCL, "nccl 2.");
  MUST(comm_barrier(host));
  EXPECT(access(path, F_OK) != 0, "%s is still there", path);
  if (record.size == 1)
    return;
  if (record.rank == 1)
    unsetenv("CONR_NCCL_ID_FILE");
  expect_refused(device, DEVICE_COMM_NCCL, "on some ranks only");
  setenv("CONR_NCCL_ID_FILE", "/no/such/folder/id", 1);
  struct comm *comm;
  EXPECT(comm_create_device(host, device, DEVICE_COMM_NCCL, &comm) == ERR_FILE, "%s", status_message());
  EXPECT(strstr(status_message(), "/no/such/folder") != NULL, "%s", status_message());
}

/* A socket that listens on a free port, or on this one; its port. */
static int listen_on(int port, int *own) {
  struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  *own = socket(AF_INET, SOCK_STREAM, 0);
  MUST_HOLD(*own >= 0 && bind(*own, (struct sockaddr *)&address, sizeof address) == 0 && listen(*own, 4) == 0);
  MUST_HOLD(getsockname(*own, (struct sockaddr *)&address, &length) == 0);
  return ntohs(address.sin_port);
}

/* Tries to reach rank 0 while the others do, says something else, and stays. */
struct stranger {
  pthread_t thread;
  uint16_t port;
  atomic_bool over;
  bool came;
};

static void *visit(void *argument) {
  struct stranger *stranger = argument;
  struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons(stranger->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  while (!stranger->came && !atomic_load(&stranger->over)) {
    int own = socket(AF_INET, SOCK_STREAM, 0);
    stranger->came = connect(own, (struct sockaddr *)&address, sizeof address) == 0 &&
                     send(own, "GET / HTTP/1.1\r\n\r\n", 18, MSG_NOSIGNAL) == 18;
    if (!stranger->came)
      close(own);
    usleep(200);
  }
  return NULL;
}

/* Rank 0 listens for a moment only: again, until a stranger has come in it. */
static void meet_beside_a_stranger(uint16_t port) {
  enum { TRIES = 50 };
  bool beside = record.rank == record.size - 1;
  int64_t came = 0;
  for (int i = 0; i < TRIES && !came; i++) {
    struct stranger stranger = {.port = port};
    if (beside)
      MUST_HOLD(pthread_create(&stranger.thread, NULL, visit, &stranger) == 0);
    expect_transport(DEVICE_COMM_NCCL, "nccl 2.");
    atomic_store(&stranger.over, true);
    if (beside)
      pthread_join(stranger.thread, NULL);
    came = stranger.came;
    MUST(comm_max_i64(host, &came, 1));
  }
  EXPECT(came, "no stranger came in %d tries", TRIES);
}

/* The id of NCCL goes by TCP, from a port of rank 0 that a stranger knows too. */
static void id_address(void) {
  char address[64];
  int listener = -1;
  int64_t port = record.rank == 0 ? listen_on(0, &listener) : 0;
  MUST(comm_max_i64(host, &port, 1));
  open_device(record.rank);
  snprintf(address, sizeof address, "127.0.0.1:%d", (int)port);
  setenv("CONR_NCCL_ID_ADDRESS", address, 1);
  expect_refused_as(ERR_COMM, device, DEVICE_COMM_NCCL, "name a free port");
  if (record.rank == 0)
    close(listener);
  MUST(comm_barrier(host));
  expect_transport(DEVICE_COMM_NCCL, "nccl 2.");
  if (record.size > 1)
    meet_beside_a_stranger((uint16_t)port);
  setenv("CONR_NCCL_ID_ADDRESS", record.rank == record.size - 1 ? "nonsense" : address, 1);
  expect_refused(device, DEVICE_COMM_NCCL, "CONR_NCCL_ID_ADDRESS is \"nonsense\"");
  setenv("CONR_NCCL_ID_FILE", "/tmp/id", 1);
  expect_refused(device, DEVICE_COMM_NCCL, "are both set");
  unsetenv("CONR_NCCL_ID_FILE");
  if (record.rank == 1)
    unsetenv("CONR_NCCL_ID_ADDRESS");
  if (record.size > 1)
    expect_refused(device, DEVICE_COMM_NCCL, "on some ranks only");
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "list", *word = argc > 2 ? argv[2] : "mpi";
  rank_record_begin(&argc, &argv);
  record.name = what;
  MUST(comm_create(MPI_COMM_WORLD, &host));
  if (device_comm_parse(word, &wanted) != STATUS_OK)
    wanted = DEVICE_COMM_NCCL;
  if (strcmp(what, "list") == 0)
    list(argc > 3 ? argv[3] : NULL);
  else if (strcmp(what, "unordered") == 0)
    unordered();
  else if (strcmp(what, "choice") == 0)
    choice();
  else if (strcmp(what, "shared") == 0)
    shared();
  else if (strcmp(what, "without-nccl") == 0)
    without_nccl();
  else if (strcmp(what, "id-file") == 0)
    id_file(word);
  else if (strcmp(what, "id-address") == 0)
    id_address();
  else
    EXPECT(false, "no sub-command is named \"%s\"", what);
  device_close(&device);
  comm_destroy(&host);
  EXPECT(memory_in_use() == 0, "%zu bytes are left", memory_in_use());
  return rank_record_end();
}
