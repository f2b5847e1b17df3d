/* Ping-pong with one host after the other. */
#include "dist/links.h"

#include "dist/memory.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

enum { SMALL_ROUNDS = 12, LARGE_ROUNDS = 4, TAG = 7 };

struct clock_offset clock_estimate(const struct clock_sample *samples, int count) {
  const struct clock_sample *best = &samples[0];
  for (int i = 1; i < count; i++)
    if (samples[i].back - samples[i].sent < best->back - best->sent)
      best = &samples[i];
  return (struct clock_offset){.seconds = best->theirs - (best->sent + best->back) / 2,
                               .bound = (best->back - best->sent) / 2};
}

/* Seconds since 1970, which a double holds to a quarter of a microsecond. */
static double wall_clock(void) {
  const char *shift = getenv("CONR_TEST_CLOCK_OFFSET");
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9 + (shift != NULL ? atof(shift) : 0);
}

static enum status send(MPI_Comm mpi, const void *data, int bytes, int to) {
  REQUIRE(MPI_Send(data, bytes, MPI_BYTE, to, TAG, mpi) == MPI_SUCCESS, ERR_COMM, "cannot send to rank %d", to);
  return STATUS_OK;
}

static enum status receive(MPI_Comm mpi, void *data, int bytes, int from) {
  REQUIRE(MPI_Recv(data, bytes, MPI_BYTE, from, TAG, mpi, MPI_STATUS_IGNORE) == MPI_SUCCESS, ERR_COMM,
          "cannot receive from rank %d", from);
  return STATUS_OK;
}

/* Rank 0's side. */
static enum status ask(MPI_Comm mpi, int rank, char *message, struct link *link) {
  struct clock_sample samples[SMALL_ROUNDS];
  *link = (struct link){.measured = true, .transfer = INFINITY};
  for (int i = 0; i < SMALL_ROUNDS; i++) {
    samples[i].sent = wall_clock();
    TRY(send(mpi, message, 1, rank));
    TRY(receive(mpi, &samples[i].theirs, sizeof samples[i].theirs, rank));
    samples[i].back = wall_clock();
  }
  link->clock = clock_estimate(samples, SMALL_ROUNDS);
  link->round_trip = 2 * link->clock.bound;
  for (int i = 0; i < LARGE_ROUNDS; i++) {
    double began = MPI_Wtime(), answer;
    TRY(send(mpi, message, LINK_BYTES, rank));
    TRY(receive(mpi, &answer, sizeof answer, rank));
    link->transfer = fmin(link->transfer, MPI_Wtime() - began);
  }
  return send(mpi, link, sizeof *link, rank);
}

static enum status answer(MPI_Comm mpi, char *message, struct link *link) {
  for (int i = 0; i < SMALL_ROUNDS + LARGE_ROUNDS; i++) {
    TRY(receive(mpi, message, i < SMALL_ROUNDS ? 1 : LINK_BYTES, 0));
    double now = wall_clock();
    TRY(send(mpi, &now, sizeof now, 0));
  }
  return receive(mpi, link, sizeof *link, 0);
}

static enum status measure(MPI_Comm mpi, const int *takes_part, char *message, struct link *links) {
  int rank, size;
  MPI_Comm_rank(mpi, &rank);
  MPI_Comm_size(mpi, &size);
  for (int other = 1; other < size && rank == 0; other++)
    if (takes_part[other])
      TRY(ask(mpi, other, message, &links[other]));
  return rank != 0 && takes_part[rank] ? answer(mpi, message, &links[rank]) : STATUS_OK;
}

enum status links_measure(MPI_Comm mpi, bool takes_part, struct link *links) {
  int size, rank, own = takes_part, *all = NULL;
  char *message = NULL;
  enum status status;
  MPI_Comm_size(mpi, &size);
  MPI_Comm_rank(mpi, &rank);
  for (int i = 0; i < size; i++)
    links[i] = (struct link){0};
  TRY_GOTO(memory_alloc((size_t)size * sizeof *all, (void **)&all), out);
  TRY_GOTO(memory_alloc_zero(LINK_BYTES, (void **)&message), out);
  REQUIRE_GOTO(MPI_Allgather(&own, 1, MPI_INT, all, 1, MPI_INT, mpi) == MPI_SUCCESS, out, ERR_COMM,
               "MPI_Allgather failed");
  status = measure(mpi, all, message, links);
out:
  memory_free((void **)&message);
  memory_free((void **)&all);
  return status;
}

int links_slowest(const struct link *links, int size) {
  int slowest = -1, others = 0;
  double second = 0; /* the slowest of the others: one that stands out is alone */
  for (int rank = 0; rank < size; rank++)
    if (links[rank].measured && (slowest < 0 || links[rank].transfer > links[slowest].transfer))
      slowest = rank;
  for (int rank = 0; rank < size; rank++)
    if (links[rank].measured && rank != slowest) {
      second = fmax(second, links[rank].transfer);
      others++;
    }
  if (others == 0)
    return -1;
  double slow = links[slowest].transfer;
  return slow > LINK_SLOW * second && slow > second + LINK_SLOW_SECONDS ? slowest : -1;
}
