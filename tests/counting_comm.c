/* Counts of what is in flight. */
#include "tests/counting_comm.h"

#include "dist/comm_ops.h"

#include <string.h>

struct counted counted;

static const struct comm_ops *transport;
static struct comm_ops counting;

static enum status counting_sum_start(struct comm *comm, enum dtype dtype, void *data, size_t count,
                                      struct comm_request *request) {
  if (counted.sums < MOST_COUNTED_SUMS) {
    counted.data[counted.sums] = data;
    counted.count[counted.sums] = count;
  }
  counted.sums++;
  return transport->sum_start(comm, dtype, data, count, request);
}

static enum status counting_gather_start(struct comm *comm, const int64_t *rows_of_rank, const int64_t *first_of_rank,
                                         size_t row_bytes, void *all, struct comm_request *request) {
  counted.gathers++;
  return transport->gather_start(comm, rows_of_rank, first_of_rank, row_bytes, all, request);
}

static enum status counting_progress(struct comm *comm, struct comm_request *request, bool *done) {
  TRY(transport->progress(comm, request, done));
  counted.ended_by_progress += *done;
  return STATUS_OK;
}

static enum status counting_wait(struct comm *comm, struct comm_request *request) {
  counted.waits++;
  return transport->wait(comm, request);
}

void start_counting(struct comm *comm) {
  forget_counts();
  transport = comm->ops;
  counting = *comm->ops;
  counting.sum_start = counting_sum_start;
  counting.gather_start = counting_gather_start;
  counting.progress = counting_progress;
  counting.wait = counting_wait;
  comm->ops = &counting;
}

void stop_counting(struct comm *comm) {
  comm->ops = transport;
}

void forget_counts(void) {
  memset(&counted, 0, sizeof counted);
}
