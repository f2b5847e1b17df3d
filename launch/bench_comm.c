/* conr bench comm: time of the two collectives that training lives on, over sizes, on the memory that training uses
 * them on.
 *
 * A sum is an in-place all-reduce of float32, as of a gradient bucket; a gather brings every rank's rows to all, as of
 * features.  Bus bandwidth is as nccl-tests defines it: what each link must carry, which makes figures of different
 * numbers of ranks comparable with the link's rate. */
#include "dist/comm_device.h"
#include "dist/memory.h"
#include "launch/bench.h"

#include <jansson.h>
#include <math.h>

#define LEAST_BYTES ((size_t)1 << 10)
#define MOST_BYTES ((size_t)1 << 28)
#define STEP 4 /* from one size to the next */

enum operation { OPERATION_SUM, OPERATION_GATHER, OPERATIONS };

static const char *const names[] = {"sum", "gather"};

struct bench {
  struct session *session;
  const struct config *config;
  void *buffer;          /* [MOST_BYTES] of the device  */
  int64_t *rows_of_rank; /* of a gather, float32 a row  */
};

static enum status run(struct bench *bench, enum operation operation, size_t bytes) {
  struct comm *data = bench->session->data;
  int size = comm_size(data);
  size_t count = bytes / sizeof(float);
  if (operation == OPERATION_SUM)
    return comm_sum(data, F32, bench->buffer, count);
  for (int rank = 0; rank < size; rank++)
    bench->rows_of_rank[rank] =
        (int64_t)(count * (size_t)(rank + 1) / (size_t)size - count * (size_t)rank / (size_t)size);
  return comm_gather_rows(data, NULL, bench->rows_of_rank, sizeof(float), bench->buffer);
}

/* The slowest rank is the time; the best of --repeat counts. */
static enum status measure(struct bench *bench, enum operation operation, size_t bytes, double *seconds) {
  struct comm *comm = bench->session->comm;
  *seconds = INFINITY;
  for (int64_t repeat = -1; repeat < bench->config->repeat; repeat++) { /* the first one connects */
    TRY(comm_barrier(comm));
    double began = log_seconds();
    TRY(run(bench, operation, bytes));
    TRY(comm_device_wait(bench->session->data));
    double own = log_seconds() - began;
    TRY(comm_max_f64(comm, &own, 1));
    *seconds = repeat >= 0 ? fmin(*seconds, own) : *seconds;
  }
  return STATUS_OK;
}

static void print(const struct bench *bench, enum operation operation, size_t bytes, double seconds) {
  double ranks = comm_size(bench->session->data), share = (ranks - 1) / ranks;
  double algorithm = (double)bytes / seconds / 1e9, bus = algorithm * (operation == OPERATION_SUM ? 2 * share : share);
  const char *device = device_facts(bench->session->device)->name;
  if (!bench->config->json) {
    printf("%-7s %12zu %12.6f %12.3f %12.3f\n", names[operation], bytes, seconds, algorithm, bus);
    fflush(stdout);
    return;
  }
  json_t *object = json_pack("{s:s, s:I, s:s, s:s, s:i, s:f, s:f, s:f}", "operation", names[operation], "bytes",
                             (json_int_t)bytes, "transport", comm_transport(bench->session->data), "device", device,
                             "ranks", (int)ranks, "seconds", seconds, "algorithm_gbps", algorithm, "bus_gbps", bus);
  json_dumpf(object, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
  putchar('\n');
  fflush(stdout);
  json_decref(object);
}

static enum status allocate(struct bench *bench) {
  size_t size = (size_t)comm_size(bench->session->comm);
  TRY(memory_alloc(size * sizeof *bench->rows_of_rank, (void **)&bench->rows_of_rank));
  return device_alloc_zero(bench->session->device, MOST_BYTES, &bench->buffer);
}

enum status bench_comm(struct session *session, const struct config *config) {
  struct bench bench = {.session = session, .config = config};
  bool speaks = comm_rank(session->comm) == 0;
  enum status status;
  TRY_GOTO(comm_agree(session->comm, allocate(&bench)), out);
  if (speaks && !config->json)
    printf("%d ranks, %s, memory of %s\n%-7s %12s %12s %12s %12s\n", comm_size(session->comm),
           comm_transport(session->data), device_facts(session->device)->name, "", "bytes", "seconds", "GB/s",
           "bus GB/s");
  for (enum operation operation = OPERATION_SUM; operation < OPERATIONS; operation++)
    for (size_t bytes = LEAST_BYTES; bytes <= MOST_BYTES; bytes *= STEP) {
      double seconds;
      TRY_GOTO(measure(&bench, operation, bytes, &seconds), out);
      if (speaks)
        print(&bench, operation, bytes, seconds);
    }
out:
  device_free(session->device, &bench.buffer);
  memory_free((void **)&bench.rows_of_rank);
  return status;
}
