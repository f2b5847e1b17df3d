/* The conformance list of communicators: what comm.h promises, case by case, on any number of ranks.
 *
 *   rank_comm list mpi [case]   all cases, or one, on that transport; ends non-zero and says what was wrong
 *   rank_comm list staged       likewise, with all sums and rows copied aside, as they are for a GPU, before MPI has them
 *   rank_comm faults mpi        the list on transports that are wrong on purpose: each of them must be noticed
 *   rank_comm parts             communicators of some of the ranks, and in another order
 *   rank_comm limits            what the MPI transport refuses, on all ranks alike
 *   rank_comm beyond BYTES      host memory that no machine has, on all ranks alike
 *
 * Another transport is put through the list by a row in `transports`.  A case takes a communicator of all ranks of
 * MPI_COMM_WORLD in their order; it records faults and goes on, so that no rank waits for another that has left. */
#include "dist/comm_ops.h"
#include "dist/memory.h"
#include "tests/buffers.h"
#include "tests/comm_data.h"
#include "tests/comm_in_flight.h"
#include "tests/rank_record.h"
#include "tests/wrong_comm.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---------------------------------------------------------------- identity */

static void identity(struct comm *comm) {
  int rank, size;
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  EXPECT(comm_rank(comm) == rank && comm_size(comm) == size, "%d/%d, not %d/%d", comm_rank(comm), comm_size(comm), rank,
         size);
  EXPECT(strcmp(comm_host(comm), host) == 0, "host is \"%s\", not \"%s\"", comm_host(comm), host);
}

/* Within a host the ranks are numbered 0..n-1 in the order of the communicator.  Asked by gathering (host, number). */
static void places_on_the_host(struct comm *comm) {
  struct place {
    char host[256];
    int node_rank, node_size;
  } *all = rank_room((size_t)comm_size(comm) * sizeof *all), own;
  memset(&own, 0, sizeof own);
  strncpy(own.host, comm_host(comm), sizeof own.host - 1);
  own.node_rank = comm_node_rank(comm);
  own.node_size = comm_node_size(comm);
  MPI_Allgather(&own, sizeof own, MPI_BYTE, all, sizeof own, MPI_BYTE, MPI_COMM_WORLD);
  int before = 0, here = 0;
  for (int rank = 0; rank < comm_size(comm); rank++) {
    bool same_host = strcmp(all[rank].host, own.host) == 0;
    before += same_host && rank < comm_rank(comm);
    here += same_host;
  }
  EXPECT(own.node_rank == before && own.node_size == here, "rank %d of %d on the host, not %d of %d", own.node_rank,
         own.node_size, before, here);
  memory_free((void **)&all);
}

/* ---------------------------------------------------------------- sums */

static void sum_of_integers_is_exact(struct comm *comm) {
  static const size_t counts[] = {0, 1, 1000, 100000};
  for (enum dtype dtype = F32; dtype <= F64; dtype++)
    for (int i = 0; i < 4; i++) {
      void *data = own_numbers(comm, dtype, counts[i]);
      EXPECT_OK(comm_sum(comm, dtype, data, counts[i]));
      expect_summed(comm, dtype, data, counts[i], "sum");
      memory_free(&data);
    }
}

/* Adding n numbers in any order errs by at most (n - 1) eps/2 sum|x| (1 + O(eps)); twice that leaves room for the
 * rounding of the numbers to the type. */
static void sum_of_fractions_is_within_the_rounding_bound(struct comm *comm) {
  enum { COUNT = 5000 };
  for (enum dtype dtype = F32; dtype <= F64; dtype++) {
    double epsilon = dtype == F32 ? FLT_EPSILON : DBL_EPSILON, worst = 0;
    void *data = own_rounding_numbers(comm, dtype, COUNT);
    EXPECT_OK(comm_sum(comm, dtype, data, COUNT));
    for (size_t i = 0; i < COUNT; i++) {
      long double sum = 0, size = 0;
      for (int rank = 0; rank < comm_size(comm); rank++) {
        sum += rounding_number(rank, i);
        size += fabs(rounding_number(rank, i));
      }
      worst = fmax(worst, (double)(fabsl(buffer_get(dtype, data, (int64_t)i) - sum) / (size * comm_size(comm))));
    }
    EXPECT(worst <= epsilon, "%s: error %.3g of the bound's unit, epsilon is %.3g", dtype_name(dtype), worst, epsilon);
    memory_free(&data);
  }
}

/* Replicas of the parameters would drift apart otherwise; and a resumed run could not repeat the first. */
static void sum_has_the_same_bits_on_all_ranks_and_every_time(struct comm *comm) {
  static const size_t sizes[] = {1, 7, 1000, 40000};
  for (enum dtype dtype = F32; dtype <= F64; dtype++)
    for (int i = 0; i < 4; i++) {
      size_t bytes = sizes[i] * dtype_size(dtype);
      void *first = own_rounding_numbers(comm, dtype, sizes[i]), *again = own_rounding_numbers(comm, dtype, sizes[i]);
      EXPECT_OK(comm_sum(comm, dtype, first, sizes[i]));
      EXPECT_OK(comm_sum(comm, dtype, again, sizes[i]));
      expect_same_bytes(first, bytes, "the sum");
      EXPECT(memcmp(first, again, bytes) == 0, "the same sum of %zu %s twice, other bits", sizes[i], dtype_name(dtype));
      memory_free(&first);
      memory_free(&again);
    }
}

/* ---------------------------------------------------------------- maxima */

static void max_of_integers(struct comm *comm) {
  int rank = comm_rank(comm), size = comm_size(comm);
  int64_t data[] = {
      rank,        -rank, rank == size - 1 ? INT64_MAX : 0, rank == 0 ? -5 : INT64_MIN, ((int64_t)1 << 53) + rank,
      -100 + rank, 4242};
  EXPECT_OK(comm_max_i64(comm, data, 6));
  EXPECT(data[0] == size - 1, "of ranks: %lld", (long long)data[0]);
  EXPECT(data[1] == 0, "of minus ranks: %lld", (long long)data[1]);
  EXPECT(data[2] == INT64_MAX, "of INT64_MAX on one rank: %lld", (long long)data[2]);
  EXPECT(data[3] == -5, "of -5 and INT64_MIN: %lld", (long long)data[3]);
  EXPECT(data[4] == ((int64_t)1 << 53) + size - 1, "above 2^53: %lld", (long long)data[4]);
  EXPECT(data[5] == -100 + size - 1, "of negative numbers: %lld", (long long)data[5]);
  EXPECT(data[6] == 4242, "wrote beyond its end");
  EXPECT_OK(comm_max_i64(comm, data, 0));
  EXPECT(data[0] == size - 1, "a maximum of nothing changed something");
}

static void max_of_reals(struct comm *comm) {
  int rank = comm_rank(comm), size = comm_size(comm);
  double data[] = {rank + 0.5, -1e-300 * (rank + 1), rank == size - 1 ? INFINITY : 1e308, -INFINITY, 42.0};
  EXPECT_OK(comm_max_f64(comm, data, 4));
  EXPECT(data[0] == size - 0.5, "of ranks and a half: %g", data[0]);
  EXPECT(data[1] == -1e-300, "of tiny negative numbers: %g", data[1]);
  EXPECT(data[2] == INFINITY, "with an infinity: %g", data[2]);
  EXPECT(data[3] == -INFINITY, "of minus infinities: %g", data[3]);
  EXPECT(data[4] == 42.0, "wrote beyond its end");
  enum { MANY = 100000 };
  double *many = rank_room(MANY * sizeof *many);
  for (size_t i = 0; i < MANY; i++) /* a different rank is the largest at each place */
    many[i] = (int)(i % (size_t)size) == rank ? (double)i : -1;
  EXPECT_OK(comm_max_f64(comm, many, MANY));
  size_t i = 0;
  while (i < MANY && many[i] == (double)i)
    i++;
  EXPECT(i == MANY, "of many: place %zu", i);
  memory_free((void **)&many);
}

/* ---------------------------------------------------------------- bytes of one rank, and rows of all */

static void broadcast_from_each_root(struct comm *comm) {
  static const size_t sizes[] = {0, 1, 1000, 1 << 20};
  for (int root = 0; root < comm_size(comm); root++)
    for (int s = 0; s < 4; s++) {
      unsigned char *data = rank_room(sizes[s] + 1);
      for (size_t i = 0; i <= sizes[s]; i++)
        data[i] = i == sizes[s] ? GUARD_BYTE : byte_at(comm_rank(comm), s, i);
      EXPECT_OK(comm_broadcast(comm, data, sizes[s], root));
      size_t i = 0;
      while (i < sizes[s] && data[i] == byte_at(root, s, i))
        i++;
      EXPECT(i == sizes[s], "%zu bytes from rank %d: byte %zu", sizes[s], root, i);
      EXPECT(data[sizes[s]] == GUARD_BYTE, "%zu bytes from rank %d: wrote beyond its end", sizes[s], root);
      memory_free((void **)&data);
    }
}

static void gather_layouts(struct comm *comm, enum own_rows how) {
  static const size_t row_bytes[] = {1, 12, 1031};
  for (enum row_layout layout = 0; layout < ROW_LAYOUTS; layout++)
    for (int owner = 0; owner < comm_size(comm); owner++) {
      int64_t *rows_of_rank = row_layout_create(comm, layout, owner);
      for (int i = 0; i < 3; i++)
        check_gather(comm, rows_of_rank, row_bytes[i], how, row_layout_name(layout));
      memory_free((void **)&rows_of_rank);
    }
}

static void gather_rows_out_of_place(struct comm *comm) {
  gather_layouts(comm, OUT_OF_PLACE);
}

static void gather_rows_in_place(struct comm *comm) {
  gather_layouts(comm, IN_PLACE);
}

/* A rank without rows has nothing to point to, while the others hand theirs over from elsewhere. */
static void gather_rows_takes_NULL_for_an_empty_share(struct comm *comm) {
  gather_layouts(comm, NULL_WHEN_EMPTY);
}

/* ---------------------------------------------------------------- agreement */

static enum status code_of(int rank) {
  return (enum status)(ERR_ARGUMENT + rank % ERR_BUG);
}

/* Every set of failing ranks, the empty and the full one included. */
static void agree_lets_the_lowest_failing_rank_speak(struct comm *comm) {
  for (unsigned failing = 0; failing < 1u << comm_size(comm); failing++) {
    enum status local = STATUS_OK;
    char expected[100] = "";
    if (failing >> comm_rank(comm) & 1)
      local = fail(code_of(comm_rank(comm)), "rank %d cannot read 100%% of \"%s\"", comm_rank(comm), "%s%n.h5");
    enum status agreed = comm_agree(comm, local);
    if (failing == 0) {
      EXPECT(agreed == STATUS_OK, "nobody failed: %s: %s", status_name(agreed), status_message());
      continue;
    }
    EXPECT(status_agreed(), "ranks %#x failed: the failure is not marked as known to all", failing);
    int lowest = __builtin_ctz(failing);
    snprintf(expected, sizeof expected, "rank %d cannot read 100%% of \"%s\"", lowest, "%s%n.h5");
    EXPECT(agreed == code_of(lowest), "ranks %#x failed: %s, not %s", failing, status_name(agreed),
           status_name(code_of(lowest)));
    EXPECT(strcmp(status_message(), expected) == 0, "ranks %#x failed: \"%s\"", failing, status_message());
  }
}

static void agree_carries_a_sentence_of_any_length(struct comm *comm) {
  char text[3000], heard[3000];
  memset(text, 'x', sizeof text - 1);
  text[sizeof text - 1] = '\0';
  int last = comm_size(comm) - 1;
  enum status local = comm_rank(comm) == last ? fail(ERR_FILE, "%s", text) : STATUS_OK;
  EXPECT(comm_agree(comm, local) == ERR_FILE, "the code");
  memset(heard, 0, sizeof heard);
  strncpy(heard, status_message(), sizeof heard - 1);
  EXPECT(strlen(heard) >= 1000 && strspn(heard, "x") == strlen(heard), "%zu letters are left", strlen(heard));
  expect_same_bytes(heard, sizeof heard, "the sentence");
}

static void agree_twice_forgets_the_first_failure(struct comm *comm) {
  EXPECT(comm_agree(comm, fail(ERR_FILE, "all failed")) == ERR_FILE, "all failed");
  EXPECT_OK(comm_agree(comm, STATUS_OK));
}

static void same_is_ok_for_equal_bytes(struct comm *comm) {
  static const size_t sizes[] = {0, 1, 8, 100000};
  for (int i = 0; i < 4; i++) {
    unsigned char *data = rank_room(sizes[i]);
    fill_rows(data, 5, 1, sizes[i]);
    EXPECT_OK(comm_same(comm, "the table", data, sizes[i]));
    size_t byte = 0;
    while (byte < sizes[i] && data[byte] == byte_at(5, 0, byte))
      byte++;
    EXPECT(byte == sizes[i], "comm_same changed byte %zu", byte);
    memory_free((void **)&data);
  }
}

/* One rank has another last byte: all ranks hear of it, with the name of what differs. */
static void same_is_a_bug_on_all_ranks_for_different_bytes(struct comm *comm) {
  enum { BYTES = 1000 };
  unsigned char data[BYTES];
  for (int other = 0; other < comm_size(comm) && comm_size(comm) > 1; other++) {
    memset(data, 1, sizeof data);
    data[BYTES - 1] = comm_rank(comm) == other ? 2 : 1;
    enum status status = comm_same(comm, "the batch size", data, BYTES);
    EXPECT(status == ERR_BUG, "rank %d differs: %s", other, status_name(status));
    EXPECT(status_agreed(), "rank %d differs: the failure is not marked as known to all", other);
    EXPECT(strstr(status_message(), "the batch size") != NULL, "rank %d differs: \"%s\"", other, status_message());
    char sentence[1024] = "";
    strncpy(sentence, status_message(), sizeof sentence - 1);
    expect_same_bytes(sentence, sizeof sentence, "the sentence");
  }
}

/* The last rank asks for what no machine has; it stands for one whose memory is used up.  The list checks after each
 * case that nothing is left allocated, on the other ranks too. */
static void same_is_an_error_on_all_ranks_when_one_has_no_memory(struct comm *comm) {
  unsigned char data[100] = {0};
  bool last = comm_rank(comm) == comm_size(comm) - 1;
  /* Without agreement the rank without memory would go on. */
  enum status status = comm_agree(comm, last ? fail(ERR_MEMORY, "none is left") : STATUS_OK);
  EXPECT(status == ERR_MEMORY, "%s", status_name(status));
  if (status == STATUS_OK)
    return;
  status = comm_same(comm, "the table", data, last ? (size_t)-1 : sizeof data);
  EXPECT(status == ERR_MEMORY, "%s", status_name(status));
}

/* ---------------------------------------------------------------- memory of a host, barriers */

enum { LATE_MICROSECONDS = 10000 };

/* Two blocks that differ: every rank writes its slot, and finds those of all others of the host. */
static void host_memory_is_one_copy_for_all_its_ranks(struct comm *comm) {
  int64_t *block[2];
  int own = comm_node_rank(comm), here = comm_node_size(comm);
  for (int i = 0; i < 2; i++) {
    EXPECT_OK(comm_node_alloc(comm, (size_t)here * sizeof **block, (void **)&block[i]));
    EXPECT((uintptr_t)block[i] % 64 == 0, "block %d is not aligned", i);
  }
  for (int round = 0; round < 3; round++) {
    if (own == here - 1)
      usleep(LATE_MICROSECONDS); /* the others would be through a barrier that does not hold them */
    for (int i = 0; i < 2; i++)
      block[i][own] = 1000 * round + 10 * own + i;
    EXPECT_OK(comm_node_barrier(comm));
    for (int i = 0; i < 2; i++)
      for (int rank = 0; rank < here; rank++)
        EXPECT(block[i][rank] == 1000 * round + 10 * rank + i, "round %d, block %d, slot %d: %lld", round, i, rank,
               (long long)block[i][rank]);
    EXPECT_OK(comm_node_barrier(comm));
  }
}

static void host_memory_may_be_large_or_empty(struct comm *comm) {
  enum { BYTES = 5000003 };
  unsigned char *large;
  void *empty;
  EXPECT_OK(comm_node_alloc(comm, BYTES, (void **)&large));
  EXPECT_OK(comm_node_alloc(comm, 0, &empty));
  if (comm_node_rank(comm) == comm_node_size(comm) - 1)
    fill_rows(large, 9, 1, BYTES);
  EXPECT_OK(comm_node_barrier(comm));
  size_t i = 0;
  while (i < BYTES && large[i] == byte_at(9, 0, i))
    i++;
  EXPECT(i == BYTES, "byte %zu", i);
  EXPECT_OK(comm_node_barrier(comm));
}

/* Counts arrivals in memory of the host: after the barrier all have arrived, the late last rank too. */
static void barrier_holds_until_all_have_come(struct comm *comm) {
  atomic_int *arrived;
  EXPECT_OK(comm_node_alloc(comm, sizeof *arrived, (void **)&arrived));
  if (comm_node_rank(comm) == 0)
    atomic_store(arrived, 0);
  MPI_Barrier(MPI_COMM_WORLD);
  for (int round = 1; round <= 3; round++) {
    if (comm_rank(comm) == comm_size(comm) - 1)
      usleep(LATE_MICROSECONDS);
    atomic_fetch_add(arrived, 1);
    EXPECT_OK(comm_barrier(comm));
    int seen = atomic_load(arrived);
    EXPECT(seen == round * comm_node_size(comm), "round %d: %d of %d have come", round, seen, comm_node_size(comm));
    MPI_Barrier(MPI_COMM_WORLD);
  }
}

/* ---------------------------------------------------------------- traffic */

static void expect_traffic(const struct comm *comm, int64_t gather_calls, int64_t gather_bytes, int64_t sum_calls,
                           int64_t sum_bytes) {
  struct comm_traffic seen = comm_traffic(comm);
  EXPECT(seen.gather_calls == gather_calls && seen.gather_bytes == gather_bytes, "%lld gathers, %lld bytes",
         (long long)seen.gather_calls, (long long)seen.gather_bytes);
  EXPECT(seen.sum_calls == sum_calls && seen.sum_bytes == sum_bytes, "%lld sums, %lld bytes", (long long)seen.sum_calls,
         (long long)seen.sum_bytes);
}

static void traffic_is_counted_exactly(struct comm *comm) {
  int size = comm_size(comm), rank = comm_rank(comm);
  int64_t rows_of_rank[64] = {0}, others = 0, value = 0;
  struct comm_request request = {NULL};
  comm_traffic_reset(comm);
  expect_traffic(comm, 0, 0, 0, 0);
  for (int r = 0; r < size; r++) {
    rows_of_rank[r] = 2 * r;
    others += r == rank ? 0 : 2 * r;
  }
  check_gather(comm, rows_of_rank, 12, OUT_OF_PLACE, "counted");
  expect_traffic(comm, 1, others * 12, 0, 0);
  check_gather(comm, rows_of_rank, 5, IN_PLACE, "counted");
  expect_traffic(comm, 2, others * 17, 0, 0);
  void *data = own_numbers(comm, F64, 100);
  EXPECT_OK(comm_sum(comm, F64, data, 100));
  expect_traffic(comm, 2, others * 17, 1, 800);
  EXPECT_OK(comm_sum_start(comm, F32, data, 50, &request));
  EXPECT_OK(comm_wait(comm, &request));
  expect_traffic(comm, 2, others * 17, 2, 1000);
  EXPECT_OK(comm_sum(comm, F32, data, 0));
  EXPECT_OK(comm_max_i64(comm, &value, 1));
  EXPECT_OK(comm_broadcast(comm, &value, sizeof value, 0));
  EXPECT_OK(comm_agree(comm, STATUS_OK));
  EXPECT_OK(comm_barrier(comm));
  expect_traffic(comm, 2, others * 17, 3, 1000);
  comm_traffic_reset(comm);
  expect_traffic(comm, 0, 0, 0, 0);
  memory_free(&data);
}

/* ---------------------------------------------------------------- the list */

struct conformance_case {
  const char *name;
  void (*run)(struct comm *comm);
};

#define CASE(function) \
  { #function, function }
static const struct conformance_case cases[] = {
    CASE(identity),
    CASE(places_on_the_host),
    CASE(sum_of_integers_is_exact),
    CASE(sum_of_fractions_is_within_the_rounding_bound),
    CASE(sum_has_the_same_bits_on_all_ranks_and_every_time),
    CASE(max_of_integers),
    CASE(max_of_reals),
    CASE(broadcast_from_each_root),
    CASE(gather_rows_out_of_place),
    CASE(gather_rows_in_place),
    CASE(gather_rows_takes_NULL_for_an_empty_share),
    CASE(sums_in_flight_end_by_waiting_in_any_order),
    CASE(sums_in_flight_end_by_progress_alone),
    CASE(sums_in_flight_end_by_some_progress_and_a_wait),
    CASE(other_collectives_run_while_sums_are_in_flight),
    CASE(progress_is_not_done_before_all_ranks_take_part),
    CASE(sum_in_flight_has_the_same_bits_on_all_ranks_and_every_time),
    CASE(rows_in_flight_end_by_waiting_in_any_order),
    CASE(rows_in_flight_end_by_progress_alone),
    CASE(rows_and_sums_are_in_flight_together),
    CASE(rows_in_pieces_cost_no_more),
    CASE(agree_lets_the_lowest_failing_rank_speak),
    CASE(agree_carries_a_sentence_of_any_length),
    CASE(agree_twice_forgets_the_first_failure),
    CASE(same_is_ok_for_equal_bytes),
    CASE(same_is_a_bug_on_all_ranks_for_different_bytes),
    CASE(same_is_an_error_on_all_ranks_when_one_has_no_memory),
    CASE(host_memory_is_one_copy_for_all_its_ranks),
    CASE(host_memory_may_be_large_or_empty),
    CASE(barrier_holds_until_all_have_come),
    CASE(traffic_is_counted_exactly),
};
enum { CASES = sizeof cases / sizeof *cases };

struct transport {
  const char *name;
  enum status (*create)(MPI_Comm mpi, struct comm **out);
};

/* The transport of GPUs through host memory, with the host in place of a GPU: copies are done at once. */
static enum status create_staged(MPI_Comm mpi, struct comm **out) {
  static struct comm *host; /* for all cases, so that none of them is said to have left it */
  (void)mpi;
  if (host == NULL)
    MUST(comm_create(MPI_COMM_WORLD, &host));
  MUST(memory_alloc_zero(sizeof **out, (void **)out));
  (*out)->rank = host->rank;
  (*out)->size = host->size;
  (*out)->node_rank = host->node_rank;
  (*out)->node_size = host->node_size;
  strcpy((*out)->host, host->host);
  (*out)->control = host;
  (*out)->timeout_seconds = PATIENCE_SECONDS;
  return comm_open_staged(*out);
}

static const struct transport transports[] = {{"mpi", comm_create}, {"staged", create_staged}};

/* The list, or one case of it, on communicators of `transport`; with `ops` put in place of its table. */
static void run_cases(const struct transport *transport, const char *only, const struct comm_ops *ops) {
  for (int i = 0; i < CASES; i++) {
    struct comm *comm;
    if (only != NULL && strcmp(only, cases[i].name) != 0)
      continue;
    record.name = cases[i].name;
    MUST(transport->create(MPI_COMM_WORLD, &comm));
    comm_destroy(&comm);
    size_t before = memory_in_use(); /* a fault on purpose may have lost some */
    MUST(transport->create(MPI_COMM_WORLD, &comm));
    if (ops != NULL)
      comm->ops = ops;
    cases[i].run(comm);
    comm_destroy(&comm);
    EXPECT(comm == NULL, "destroy left the pointer");
    EXPECT(memory_in_use() == before, "%zu bytes are left", memory_in_use() - before);
  }
}

static void list(const struct transport *transport, const char *only) {
  bool known = only == NULL;
  for (int i = 0; i < CASES && !known; i++)
    known = strcmp(only, cases[i].name) == 0;
  EXPECT(known, "no case is named \"%s\"", only);
  run_cases(transport, only, NULL);
}

/* ---------------------------------------------------------------- transports that are wrong on purpose */

static void faults(const struct transport *transport) {
  struct comm *comm;
  struct wrong_comm wrong[WRONG_COMMS];
  MUST(transport->create(MPI_COMM_WORLD, &comm));
  wrong_comms(comm->ops, wrong);
  comm_destroy(&comm);
  int unnoticed = 0;
  for (int i = 0; i < WRONG_COMMS; i++) {
    record.faults = 0;
    record.quiet = true;
    run_cases(transport, NULL, &wrong[i].ops);
    MPI_Allreduce(MPI_IN_PLACE, &record.faults, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    unnoticed += record.faults == 0;
    if (record.rank == 0)
      printf("%s: %d faults\n", wrong[i].name, record.faults);
  }
  record.faults = unnoticed;
}

/* ---------------------------------------------------------------- other communicators */

/* Even and odd ranks apart, in falling order: each part sums, gathers and agrees for itself. */
static void parts(void) {
  MPI_Comm half;
  struct comm *comm, *all;
  record.name = "parts";
  int parity = record.rank % 2;
  MPI_Comm_split(MPI_COMM_WORLD, parity, -record.rank, &half);
  MUST(comm_create(MPI_COMM_WORLD, &all));
  MUST(comm_create(half, &comm));
  MPI_Comm_free(&half); /* ours is a duplicate */
  int size = (record.size + 1 - parity) / 2, highest = record.size - 1 - (record.size - 1 - parity) % 2;
  EXPECT(comm_size(comm) == size, "%d ranks, not %d", comm_size(comm), size);
  EXPECT(comm_rank(comm) == (highest - record.rank) / 2, "rank %d of the part", comm_rank(comm));
  double sum = record.rank, expected = 0;
  int64_t ones[64], gathered[64], own = record.rank;
  for (int i = 0; i < size; i++) {
    expected += highest - 2 * i;
    ones[i] = 1;
  }
  EXPECT_OK(comm_sum(comm, F64, &sum, 1));
  EXPECT(sum == expected, "sum %g, not %g", sum, expected);
  EXPECT_OK(comm_gather_rows(comm, &own, ones, sizeof own, gathered));
  for (int i = 0; i < size; i++)
    EXPECT(gathered[i] == highest - 2 * i, "row %d came from rank %lld", i, (long long)gathered[i]);
  enum status agreed = comm_agree(comm, parity == 1 ? fail(ERR_FILE, "odd") : STATUS_OK);
  EXPECT(agreed == (parity == 1 ? ERR_FILE : STATUS_OK), "a failure of the other part arrived");
  agreed = comm_agree(all, agreed);
  EXPECT(agreed == (record.size > 1 ? ERR_FILE : STATUS_OK), "the failure of a part did not reach all");
  EXPECT(comm_traffic(all).sum_calls == 0, "a sum of the part was counted for all");
  EXPECT(comm_traffic(comm).sum_calls == 1, "a sum of the part was not counted for it");
  comm_destroy(&comm);
  comm_destroy(&all);
  comm_destroy(&all);
  EXPECT(memory_in_use() == 0, "%zu bytes are left", memory_in_use());
}

/* What cannot be done is an error on every rank, at once, and leaves the communicator usable. */
static void limits(void) {
  struct comm *comm;
  int64_t rows_of_rank[64];
  char byte = 0;
  void *block;
  struct comm_request request = {NULL};
  record.name = "limits";
  MUST(comm_create(MPI_COMM_WORLD, &comm));
  for (int rank = 0; rank < record.size; rank++)
    rows_of_rank[rank] = (int64_t)INT_MAX + 1;
  enum status status = comm_gather_rows(comm, &byte, rows_of_rank, 1, &byte);
  EXPECT(status == ERR_ARGUMENT, "too many rows: %s", status_name(status));
  for (int rank = 0; rank < record.size; rank++)
    rows_of_rank[rank] = 1;
  status = comm_gather_rows(comm, &byte, rows_of_rank, (size_t)INT_MAX + 1, &byte);
  EXPECT(status == ERR_ARGUMENT, "too large a row: %s", status_name(status));
  EXPECT(strstr(status_message(), "2147483648") != NULL, "%s", status_message());
  int64_t beyond_all[64];
  for (int rank = 0; rank < record.size; rank++)
    beyond_all[rank] = INT_MAX;
  status = comm_gather_start(comm, rows_of_rank, beyond_all, 1, &byte, &request);
  EXPECT(status == ERR_ARGUMENT && request.handle == NULL, "rows beyond all places: %s", status_name(status));
  status = comm_sum_start(comm, F32, &byte, (size_t)INT_MAX + 1, &request);
  EXPECT(status == ERR_BUG && request.handle == NULL, "too large a sum in flight: %s", status_name(status));
  status = comm_broadcast(comm, &byte, 1, record.size);
  EXPECT(status == ERR_COMM, "a root that is not there: %s", status_name(status));
  int blocks = 0;
  while (blocks < 1000 && (status = comm_node_alloc(comm, 100, &block)) == STATUS_OK)
    blocks++;
  EXPECT(blocks == 16 && status == ERR_BUG && block == NULL, "%d blocks, then %s", blocks, status_name(status));
  EXPECT_OK(comm_agree(comm, STATUS_OK));
  comm_destroy(&comm);
  EXPECT(memory_in_use() == 0, "%zu bytes are left", memory_in_use());
}

/* More host memory than there is must not leave some ranks waiting for the one that found out. */
static void beyond(size_t bytes) {
  struct comm *comm;
  void *block = &comm;
  record.name = "beyond";
  MUST(comm_create(MPI_COMM_WORLD, &comm));
  enum status status = comm_node_alloc(comm, bytes, &block);
  EXPECT(status != STATUS_OK && block == NULL, "%zu bytes: %s", bytes, status_name(status));
  EXPECT_OK(comm_agree(comm, STATUS_OK));
  comm_destroy(&comm);
  EXPECT(memory_in_use() == 0, "%zu bytes are left", memory_in_use());
}

static const struct transport *transport_named(const char *name) {
  for (size_t i = 0; i < sizeof transports / sizeof *transports; i++)
    if (strcmp(transports[i].name, name) == 0)
      return &transports[i];
  fprintf(stderr, "rank_comm: no transport is named \"%s\"\n", name);
  MPI_Abort(MPI_COMM_WORLD, 2);
  return NULL;
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "list", *transport = argc > 2 ? argv[2] : "mpi";
  rank_record_begin(&argc, &argv);
  record.name = "main";
  if (strcmp(what, "list") == 0)
    list(transport_named(transport), argc > 3 ? argv[3] : NULL);
  else if (strcmp(what, "faults") == 0)
    faults(transport_named(transport));
  else if (strcmp(what, "parts") == 0)
    parts();
  else if (strcmp(what, "limits") == 0)
    limits();
  else if (strcmp(what, "beyond") == 0 && argc > 2)
    beyond(strtoull(argv[2], NULL, 0));
  else
    EXPECT(false, "no sub-command is named \"%s\"", what);
  return rank_record_end();
}
