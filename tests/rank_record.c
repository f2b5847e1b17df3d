/* Faults of MPI test programs. */
#include "tests/rank_record.h"

#include "dist/memory.h"

#include <mpi.h>
#include <stdarg.h>
#include <stdio.h>

#define MOST_LINES 20 /* the first faults tell enough */

struct rank_record record;

void rank_record_begin(int *argc, char ***argv) {
  int provided;
  MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &provided);
  MPI_Comm_rank(MPI_COMM_WORLD, &record.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &record.size);
  record.name = "begin";
}

int rank_record_end(void) {
  int faults = 0;
  MPI_Allreduce(&record.faults, &faults, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  MPI_Finalize();
  return faults > 0;
}

void rank_record_expect(bool holds, const char *file, int line, const char *format, ...) {
  char text[600];
  va_list arguments;
  if (holds || record.faults++ >= MOST_LINES || record.quiet)
    return;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  fprintf(stderr, "rank %d/%d %s (%s:%d): %s\n", record.rank, record.size, record.name, file, line, text);
}

void rank_record_expect_ok(enum status status, const char *file, int line, const char *call) {
  rank_record_expect(status == STATUS_OK, file, line, "%s: %s: %s", call, status_name(status), status_message());
}

void rank_record_must(bool holds, const char *file, int line, const char *what) {
  if (holds)
    return;
  fprintf(stderr, "rank %d/%d (%s:%d): %s (%s)\n", record.rank, record.size, file, line, what, status_message());
  MPI_Abort(MPI_COMM_WORLD, 3);
}

void *rank_room(size_t bytes) {
  void *block;
  MUST(memory_alloc(bytes, &block));
  return block;
}
