/* Communicators on device memory when a rank is lost: who finds out, what it says, and that nothing hangs then.
 *
 *   rank_device_lost hang HOW              by NCCL, the third collective is never over; HOW the host finds out: wait,
 *                                          progress, check, or stuck: NCCL's abort hangs too
 *   rank_device_lost error                 NCCL reports that a rank is gone
 *   rank_device_lost killed mpi|nccl FOLDER   the last rank is killed in the middle; it leaves the time in FOLDER/died, and
 *                                          the others their words in FOLDER/rankN
 *
 * Over the emulation, which CONR_CUDA_LIBRARY names; rank r works on GPU r. */
#define _GNU_SOURCE
#include "dist/comm_device.h"

#include "dist/comm_ops.h"
#include "dist/log.h"
#include "dist/memory.h"
#include "tests/rank_record.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct comm *host;
static struct device *device; /* of this rank */
static enum device_comm wanted;

static void open_device(void) {
  MUST(device_open(record.rank, &device));
}

enum {
  COUNT = 1000,
  AT_ONCE_SECONDS = 5 /* on a busy machine; what waits for a rank waits for ever */
};

/* Everything that may be asked of a communicator, none of which may hang now. */
static void expect_dead(struct comm *comm, void *block, const char *words) {
  struct comm_request request = {NULL};
  int64_t rows[64] = {0}, one = 1;
  double begin = log_seconds();
  EXPECT(comm_sum(comm, F32, block, COUNT) == ERR_COMM, "a sum");
  EXPECT(comm_broadcast(comm, block, 10, 0) == ERR_COMM, "a broadcast");
  EXPECT(comm_gather_rows(comm, NULL, rows, 4, block) == ERR_COMM, "a gather");
  EXPECT(comm_sum_start(comm, F32, block, COUNT, &request) == ERR_COMM, "a start");
  EXPECT(comm_barrier(comm) == ERR_COMM, "a barrier");
  EXPECT(comm_max_i64(comm, &one, 1) == ERR_COMM, "a maximum");
  EXPECT(comm_agree(comm, STATUS_OK) == ERR_COMM, "an agreement");
  EXPECT(comm_device_wait(comm) == ERR_COMM && comm_device_check(comm) == ERR_COMM, "a wait");
  EXPECT(strstr(status_message(), words) != NULL, "no \"%s\" in: %s", words, status_message());
  EXPECT(log_seconds() - begin < AT_ONCE_SECONDS, "it took %g s", log_seconds() - begin);
}

static enum status find_out(struct comm *comm, const char *how, struct comm_request *request) {
  enum status status = STATUS_OK;
  bool done = false;
  if (strcmp(how, "wait") == 0 || strcmp(how, "stuck") == 0) {
    EXPECT_OK(comm_wait(comm, request)); /* queued: the host does not notice */
    return comm_device_wait(comm);
  }
  for (double begin = log_seconds(); status == STATUS_OK && log_seconds() < begin + 20; usleep(1000))
    status = strcmp(how, "check") == 0 ? comm_device_check(comm) : comm_progress(comm, request, &done);
  EXPECT(!done, "a sum that hangs is done");
  return status;
}

/* On the last rank the third collective hangs; so it does on all others, which wait for that rank. */
static void lost(const char *how) {
  struct comm *comm;
  struct comm_request request;
  if (record.rank == record.size - 1)
    setenv("EMULATED_NCCL_HANG", "3", 1);
  setenv("CONR_COMM_TIMEOUT", "60", 1);
  if (strcmp(how, "stuck") == 0)
    setenv("EMULATED_NCCL_ABORT", "hangs", 1);
  open_device();
  void *block;
  MUST(device_alloc_zero(device, COUNT * sizeof(float), &block));
  MUST(comm_create_device(host, device, DEVICE_COMM_NCCL, &comm));
  EXPECT_OK(comm_sum(comm, F32, block, COUNT));
  EXPECT_OK(comm_broadcast(comm, block, 100, 0));
  EXPECT_OK(comm_device_wait(comm));
  EXPECT(comm->timeout_seconds == 60, "CONR_COMM_TIMEOUT is 60, not %g", comm->timeout_seconds);
  MUST(comm_barrier(host)); /* who gives up early takes the others along */
  comm->timeout_seconds = 0.5;
  double begin = log_seconds();
  EXPECT_OK(comm_sum_start(comm, F32, block, COUNT, &request));
  enum status status = find_out(comm, how, &request);
  double seconds = log_seconds() - begin;
  EXPECT(status == ERR_COMM, "%s", status_name(status));
  EXPECT(seconds >= 0.5 && seconds < 10 + AT_ONCE_SECONDS, "found out after %g s", seconds);
  EXPECT(strstr(status_message(), "the sum number 3 (1000 f32)") != NULL, "%s", status_message());
  EXPECT(strstr(status_message(), "CONR_COMM_TIMEOUT") != NULL, "%s", status_message());
  if (record.rank == 0)
    printf("%s\n", status_message());
  expect_dead(comm, block, "the sum number 3");
  if (strcmp(how, "stuck") == 0) {
    int end = rank_record_end();
    fflush(NULL);
    _Exit(end); /* nothing can be freed: the device would be waited for */
  }
  comm_destroy(&comm);
  device_free(device, &block);
}

static void error(void) {
  struct comm *comm;
  setenv("EMULATED_NCCL_ERROR", "2", 1);
  open_device();
  void *block;
  MUST(device_alloc_zero(device, COUNT * sizeof(float), &block));
  MUST(comm_create_device(host, device, DEVICE_COMM_NCCL, &comm));
  EXPECT_OK(comm_sum(comm, F32, block, COUNT));
  EXPECT_OK(comm_device_wait(comm));
  MUST(comm_barrier(host));
  double begin = log_seconds();
  enum status status = comm_broadcast(comm, block, 100, 0);
  if (status == STATUS_OK)
    status = comm_device_wait(comm);
  EXPECT(status == ERR_COMM && log_seconds() - begin < AT_ONCE_SECONDS, "%s after %g s", status_name(status),
         log_seconds() - begin);
  EXPECT(strstr(status_message(), "the broadcast number 2 (100 bytes)") != NULL, "%s", status_message());
  EXPECT(strstr(status_message(), "remote process exited") != NULL, "%s", status_message());
  if (record.rank == 0)
    printf("%s\n", status_message());
  expect_dead(comm, block, "remote process exited");
  comm_destroy(&comm);
  device_free(device, &block);
}

/* A file of the folder, for the test to read: what is printed may be lost when the job is torn down. */
static void leave_word(const char *folder, const char *name, const char *word) {
  char path[300];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "w");
  MUST_HOLD(file != NULL && fputs(word, file) >= 0 && fclose(file) == 0);
}

/* The clock that all processes of a machine share. */
static void die(const char *folder) {
  char seconds[40];
  snprintf(seconds, sizeof seconds, "%.6f", log_seconds());
  leave_word(folder, "died", seconds);
  raise(SIGKILL);
}

/* As launch/ does it: what happens to one rank alone is said by it, and ends the job. */
static void killed(const char *folder) {
  struct comm *comm;
  char name[40];
  open_device();
  void *block;
  MUST(device_alloc_zero(device, COUNT * sizeof(float), &block));
  MUST(comm_create_device(host, device, wanted, &comm));
  enum status status = STATUS_OK;
  for (int step = 0; step < 100 && status == STATUS_OK; step++) {
    struct comm_request request;
    if (step == 5)
      comm->timeout_seconds = 2;
    if (step == 5 && record.rank == record.size - 1)
      die(folder);
    status = comm_sum_start(comm, F32, block, COUNT, &request);
    if (status == STATUS_OK)
      status = comm_wait(comm, &request);
    if (status == STATUS_OK)
      status = comm_device_wait(comm);
  }
  EXPECT(status == ERR_COMM, "%s", status_name(status));
  snprintf(name, sizeof name, "rank%d", record.rank);
  leave_word(folder, name, status_message());
  printf("[rank %d/%d %s] %s\n", record.rank, record.size, comm_host(host), status_message());
  fflush(NULL);
  usleep(200000); /* let the others speak too */
  MPI_Abort(MPI_COMM_WORLD, 7);
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "", *word = argc > 2 ? argv[2] : "wait";
  rank_record_begin(&argc, &argv);
  record.name = what;
  MUST(comm_create(MPI_COMM_WORLD, &host));
  if (strcmp(what, "hang") == 0) {
    lost(word);
  } else if (strcmp(what, "error") == 0) {
    error();
  } else {
    MUST_HOLD(strcmp(what, "killed") == 0 && argc > 3 && device_comm_parse(word, &wanted) == STATUS_OK);
    killed(argv[3]);
  }
  device_close(&device);
  comm_destroy(&host);
  EXPECT(memory_in_use() == 0, "%zu bytes are left", memory_in_use());
  return rank_record_end();
}
