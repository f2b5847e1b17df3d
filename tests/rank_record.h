/* What plain MPI test programs share: faults are recorded, not returned from, so that no rank waits for another that has
 * left; the program ends non-zero on all ranks when any of them found one.
 *
 *     rank_record_begin(&argc, &argv);
 *     rank_record_case("sums");
 *     EXPECT(x == 3, "x is %d", x);
 *     EXPECT_OK(comm_barrier(comm));
 *     return rank_record_end();                        finalises MPI */
#ifndef CONR_TESTS_RANK_RECORD_H
#define CONR_TESTS_RANK_RECORD_H

#include "dist/status.h"

#include <stdbool.h>

void rank_record_begin(int *argc, char ***argv);
void rank_record_case(const char *name);
int rank_record_end(void);

int record_rank(void);
int record_size(void);

#define EXPECT(holds, ...) rank_record_expect((holds), __LINE__, __VA_ARGS__)
#define EXPECT_OK(call) rank_record_expect_ok((call), __LINE__, #call)
/* Where going on would be of no use: aborts the job. */
#define MUST(call) rank_record_must((call), __LINE__, #call)

void rank_record_expect(bool holds, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
void rank_record_expect_ok(enum status status, int line, const char *call);
void rank_record_must(enum status status, int line, const char *call);

#endif
