/* What plain MPI test programs share: faults are recorded, not returned from, so that no rank waits for another that
 * has left; the program ends non-zero on all ranks when any of them found one.
 *
 *     rank_record_begin(&argc, &argv);
 *     record.name = "sums";
 *     EXPECT(x == 3, "x is %d", x);
 *     EXPECT_OK(comm_barrier(comm));
 *     return rank_record_end();                        finalises MPI */
#ifndef CONR_TESTS_RANK_RECORD_H
#define CONR_TESTS_RANK_RECORD_H

#include "dist/status.h"

#include <stdbool.h>
#include <stddef.h>

/* Of this process. */
extern struct rank_record {
  int rank, size;   /* in MPI_COMM_WORLD                         */
  const char *name; /* of the case that runs                     */
  bool quiet;       /* faults are wanted: they are counted only  */
  int faults;
} record;

void rank_record_begin(int *argc, char ***argv);
int rank_record_end(void); /* 0 when no rank found a fault */

#define EXPECT(holds, ...) rank_record_expect((holds), __FILE__, __LINE__, __VA_ARGS__)
#define EXPECT_OK(call) rank_record_expect_ok((call), __FILE__, __LINE__, #call)
/* Where going on would be of no use: these abort the job. */
#define MUST(call) rank_record_must((call) == STATUS_OK, __FILE__, __LINE__, #call)
#define MUST_HOLD(condition) rank_record_must((condition), __FILE__, __LINE__, #condition)

void rank_record_expect(bool holds, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void rank_record_expect_ok(enum status status, const char *file, int line, const char *call);
void rank_record_must(bool holds, const char *file, int line, const char *what);

/* memory_alloc(), or the end of the job; the caller's, to memory_free(). */
void *rank_room(size_t bytes);

#endif
