/* Sums and rows in flight. */
#include "tests/comm_in_flight.h"

#include "dist/log.h"
#include "dist/memory.h"
#include "tests/comm_data.h"
#include "tests/rank_record.h"

#include <mpi.h>
#include <string.h>

/* ---------------------------------------------------------------- sums in flight */

enum { JOBS = 6 };

static const struct {
  enum dtype dtype;
  size_t count;
} jobs[JOBS] = {{F32, 1000}, {F64, 1}, {F32, 100000}, {F64, 0}, {F64, 30000}, {F32, 1}};

struct in_flight {
  void *data[JOBS];
  struct comm_request request[JOBS];
  bool done[JOBS];
};

static void start_all(struct comm *comm, struct in_flight *flight) {
  memset(flight, 0, sizeof *flight);
  for (int job = 0; job < JOBS; job++) {
    flight->data[job] = own_numbers(comm, jobs[job].dtype, jobs[job].count);
    EXPECT_OK(comm_sum_start(comm, jobs[job].dtype, flight->data[job], jobs[job].count, &flight->request[job]));
  }
}

static void check_all(struct comm *comm, struct in_flight *flight) {
  for (int job = 0; job < JOBS; job++) {
    expect_summed(comm, jobs[job].dtype, flight->data[job], jobs[job].count, "sum in flight");
    EXPECT(flight->request[job].handle == NULL, "job %d is over and its handle is not NULL", job);
    memory_free(&flight->data[job]);
  }
}

static void push_once(struct comm *comm, struct in_flight *flight) {
  for (int job = 0; job < JOBS; job++)
    if (!flight->done[job])
      EXPECT_OK(comm_progress(comm, &flight->request[job], &flight->done[job]));
}

static bool all_done(const struct in_flight *flight) {
  for (int job = 0; job < JOBS; job++)
    if (!flight->done[job])
      return false;
  return true;
}

/* Each rank in an order of its own: what finishes first is a matter of chance on each of them. */
static void wait_for_rest(struct comm *comm, struct in_flight *flight) {
  for (int i = 0; i < JOBS; i++) {
    int job = (JOBS - 1 - i + comm_rank(comm)) % JOBS;
    if (!flight->done[job])
      EXPECT_OK(comm_wait(comm, &flight->request[job]));
  }
}

void sums_in_flight_end_by_waiting_in_any_order(struct comm *comm) {
  struct in_flight flight;
  start_all(comm, &flight);
  wait_for_rest(comm, &flight);
  check_all(comm, &flight);
}

void sums_in_flight_end_by_progress_alone(struct comm *comm) {
  struct in_flight flight;
  start_all(comm, &flight);
  double begin = log_seconds();
  while (!all_done(&flight) && log_seconds() < begin + PATIENCE_SECONDS)
    push_once(comm, &flight);
  EXPECT(all_done(&flight), "progress for %d s did not end the sums", PATIENCE_SECONDS);
  wait_for_rest(comm, &flight);
  check_all(comm, &flight);
}

void sums_in_flight_end_by_some_progress_and_a_wait(struct comm *comm) {
  struct in_flight flight;
  for (int rounds = 1; rounds <= 5; rounds++) {
    start_all(comm, &flight);
    for (int i = 0; i < rounds * (comm_rank(comm) + 1); i++)
      push_once(comm, &flight);
    wait_for_rest(comm, &flight);
    check_all(comm, &flight);
  }
}

/* Synchronised normalisation sums in the middle of backward, while buckets are under way. */
void other_collectives_run_while_sums_are_in_flight(struct comm *comm) {
  struct in_flight flight;
  int64_t one = 1;
  start_all(comm, &flight);
  void *data = own_numbers(comm, F64, 1000);
  EXPECT_OK(comm_sum(comm, F64, data, 1000));
  expect_summed(comm, F64, data, 1000, "sum beside others");
  EXPECT_OK(comm_broadcast(comm, &one, sizeof one, comm_size(comm) - 1));
  EXPECT_OK(comm_barrier(comm));
  wait_for_rest(comm, &flight);
  check_all(comm, &flight);
  memory_free(&data);
}

/* A sum cannot have arrived before the last rank has started it; that rank starts when rank 0 says so. */
void progress_is_not_done_before_all_ranks_take_part(struct comm *comm) {
  struct comm_request request = {NULL};
  int last = comm_size(comm) - 1, go = 1;
  bool done = false;
  if (last == 0)
    return;
  void *data = own_numbers(comm, F32, 1000);
  if (comm_rank(comm) == last)
    MPI_Recv(&go, 1, MPI_INT, 0, 5, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  EXPECT_OK(comm_sum_start(comm, F32, data, 1000, &request));
  for (int i = 0; comm_rank(comm) == 0 && i < 200 && !done; i++)
    EXPECT_OK(comm_progress(comm, &request, &done));
  EXPECT(!done, "rank 0 has the sum, rank %d has not even started", last);
  if (comm_rank(comm) == 0)
    MPI_Send(&go, 1, MPI_INT, last, 5, MPI_COMM_WORLD);
  if (!done)
    EXPECT_OK(comm_wait(comm, &request));
  expect_summed(comm, F32, data, 1000, "late sum");
  memory_free(&data);
}

void sum_in_flight_has_the_same_bits_on_all_ranks_and_every_time(struct comm *comm) {
  static const size_t sizes[] = {1, 1000, 40000};
  for (int i = 0; i < 3; i++) {
    size_t bytes = sizes[i] * sizeof(float);
    void *data[2];
    for (int time = 0; time < 2; time++) {
      struct comm_request request = {NULL};
      data[time] = own_rounding_numbers(comm, F32, sizes[i]);
      EXPECT_OK(comm_sum_start(comm, F32, data[time], sizes[i], &request));
      EXPECT_OK(comm_wait(comm, &request));
    }
    expect_same_bytes(data[0], bytes, "the sum in flight");
    EXPECT(memcmp(data[0], data[1], bytes) == 0, "the same sum of %zu f32 twice, other bits", sizes[i]);
    memory_free(&data[0]);
    memory_free(&data[1]);
  }
}

/* ---------------------------------------------------------------- rows in flight */

enum { PIECES = 3 };

/* A gather that goes piece by piece. */
struct pieces {
  unsigned char *all, *expected;
  size_t bytes;
  struct comm_request request[PIECES];
  bool done[PIECES];
};

static struct pieces make_pieces(struct comm *comm, const int64_t *rows_of_rank, size_t row_bytes) {
  int64_t total = 0;
  for (int rank = 0; rank < comm_size(comm); rank++)
    total += rows_of_rank[rank];
  struct pieces pieces = {.bytes = (size_t)total * row_bytes};
  pieces.all = rank_room(pieces.bytes + 1);
  pieces.expected = rank_room(pieces.bytes + 1);
  unsigned char *next = pieces.expected;
  for (int rank = 0; rank < comm_size(comm); rank++) {
    fill_rows(next, rank, rows_of_rank[rank], row_bytes);
    next += (size_t)rows_of_rank[rank] * row_bytes;
  }
  *next = GUARD_BYTE;
  return pieces;
}

static void free_pieces(struct pieces *pieces) {
  memory_free((void **)&pieces->all);
  memory_free((void **)&pieces->expected);
}

/* Each rank's rows are cut into as even pieces as can be, and their bytes are there only just before they leave. */
static void start_pieces(struct comm *comm, const int64_t *rows_of_rank, size_t row_bytes, struct pieces *pieces) {
  int size = comm_size(comm), rank = comm_rank(comm);
  int64_t *rows = rank_room((size_t)size * sizeof *rows), *first = rank_room((size_t)size * sizeof *first);
  memset(pieces->all, GUARD_BYTE, pieces->bytes + 1);
  memset(pieces->done, 0, sizeof pieces->done);
  for (int piece = 0; piece < PIECES; piece++) {
    int64_t before = 0;
    for (int r = 0; r < size; r++) {
      int64_t begin = rows_of_rank[r] * piece / PIECES;
      first[r] = before + begin;
      rows[r] = rows_of_rank[r] * (piece + 1) / PIECES - begin;
      before += rows_of_rank[r];
    }
    size_t at = (size_t)first[rank] * row_bytes;
    memcpy(pieces->all + at, pieces->expected + at, (size_t)rows[rank] * row_bytes);
    EXPECT_OK(comm_gather_start(comm, rows, first, row_bytes, pieces->all, &pieces->request[piece]));
  }
  memory_free((void **)&rows);
  memory_free((void **)&first);
}

static void check_pieces(struct pieces *pieces, const char *layout) {
  size_t i = 0;
  while (i <= pieces->bytes && pieces->all[i] == pieces->expected[i])
    i++;
  EXPECT(i > pieces->bytes, "%s rows in pieces: byte %zu of %zu", layout, i, pieces->bytes);
  for (int piece = 0; piece < PIECES; piece++)
    EXPECT(pieces->request[piece].handle == NULL && pieces->request[piece].held == NULL, "piece %d keeps its handle",
           piece);
}

static void wait_for_pieces(struct comm *comm, struct pieces *pieces) {
  for (int i = 0; i < PIECES; i++) {
    int piece = (i + comm_rank(comm)) % PIECES; /* each rank in an order of its own */
    if (!pieces->done[piece])
      EXPECT_OK(comm_wait(comm, &pieces->request[piece]));
  }
}

/* One round of pushes; true when all have arrived. */
static bool push_pieces(struct comm *comm, struct pieces *pieces) {
  bool all = true;
  for (int piece = 0; piece < PIECES; piece++) {
    if (!pieces->done[piece])
      EXPECT_OK(comm_progress(comm, &pieces->request[piece], &pieces->done[piece]));
    all = all && pieces->done[piece];
  }
  return all;
}

static void end_by_waiting(struct comm *comm, struct pieces *pieces) {
  for (int i = 0; i < comm_rank(comm); i++)
    push_pieces(comm, pieces);
  wait_for_pieces(comm, pieces);
}

static void end_by_progress(struct comm *comm, struct pieces *pieces) {
  double begin = log_seconds();
  bool all = false;
  while (!all && log_seconds() < begin + PATIENCE_SECONDS)
    all = push_pieces(comm, pieces);
  EXPECT(all, "progress for %d s did not end the gathers", PATIENCE_SECONDS);
  wait_for_pieces(comm, pieces);
}

static void gather_layouts_in_pieces(struct comm *comm, void (*end)(struct comm *comm, struct pieces *pieces)) {
  for (enum row_layout layout = 0; layout < ROW_LAYOUTS; layout++) {
    int64_t *rows_of_rank = row_layout_create(comm, layout, comm_size(comm) - 1);
    for (size_t row_bytes = 1; row_bytes < 2000; row_bytes += 1030) {
      struct pieces pieces = make_pieces(comm, rows_of_rank, row_bytes);
      start_pieces(comm, rows_of_rank, row_bytes, &pieces);
      end(comm, &pieces);
      check_pieces(&pieces, row_layout_name(layout));
      free_pieces(&pieces);
    }
    memory_free((void **)&rows_of_rank);
  }
}

void rows_in_flight_end_by_waiting_in_any_order(struct comm *comm) {
  gather_layouts_in_pieces(comm, end_by_waiting);
}

void rows_in_flight_end_by_progress_alone(struct comm *comm) {
  gather_layouts_in_pieces(comm, end_by_progress);
}

/* As in a step: rows are on their way while sums are, and other collectives come between. */
void rows_and_sums_are_in_flight_together(struct comm *comm) {
  struct in_flight flight;
  int64_t *rows_of_rank = row_layout_create(comm, ROWS_MANY, 0);
  struct pieces pieces = make_pieces(comm, rows_of_rank, 12);
  start_pieces(comm, rows_of_rank, 12, &pieces);
  start_all(comm, &flight);
  check_gather(comm, rows_of_rank, 8, IN_PLACE, "many");
  void *data = own_numbers(comm, F64, 1000);
  EXPECT_OK(comm_sum(comm, F64, data, 1000));
  expect_summed(comm, F64, data, 1000, "sum beside rows in flight");
  EXPECT_OK(comm_agree(comm, STATUS_OK));
  wait_for_rest(comm, &flight);
  wait_for_pieces(comm, &pieces);
  check_all(comm, &flight);
  check_pieces(&pieces, "many");
  free_pieces(&pieces);
  memory_free(&data);
  memory_free((void **)&rows_of_rank);
}

/* After the first batch a gather in flight takes no memory; and its bytes are those of a gather in one piece. */
void rows_in_pieces_cost_no_more(struct comm *comm) {
  int64_t *rows_of_rank = row_layout_create(comm, ROWS_MANY, 1), others = 0;
  size_t in_use = 0;
  for (int rank = 0; rank < comm_size(comm); rank++)
    others += rank == comm_rank(comm) ? 0 : rows_of_rank[rank];
  struct pieces pieces = make_pieces(comm, rows_of_rank, 12);
  for (int time = 0; time < 3; time++) {
    comm_traffic_reset(comm);
    start_pieces(comm, rows_of_rank, 12, &pieces);
    wait_for_pieces(comm, &pieces);
    check_pieces(&pieces, "many");
    struct comm_traffic traffic = comm_traffic(comm);
    EXPECT(traffic.gather_calls == PIECES && traffic.gather_bytes == 12 * others, "%lld gathers, %lld bytes",
           (long long)traffic.gather_calls, (long long)traffic.gather_bytes);
    EXPECT(time == 0 || memory_in_use() == in_use, "time %d took %zu bytes", time, memory_in_use() - in_use);
    in_use = memory_in_use();
  }
  free_pieces(&pieces);
  memory_free((void **)&rows_of_rank);
}
