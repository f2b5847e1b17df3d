/* What ranks send one another to try a communicator: numbers and bytes that each rank can name again for every other,
 * and the checks of what arrives.  Faults are recorded, as rank_record.h has it.
 *
 *     void *data = own_numbers(comm, F32, 1000);
 *     EXPECT_OK(comm_sum(comm, F32, data, 1000));
 *     expect_summed(comm, F32, data, 1000, "sum");
 *     memory_free(&data);
 *
 * Local, but for expect_same_bytes() and check_gather(), which are collective.  Blocks are the caller's, to
 * memory_free(). */
#ifndef CONR_TESTS_COMM_DATA_H
#define CONR_TESTS_COMM_DATA_H

#include "dist/comm.h"

/* All ranks hold the bytes of rank 0; asked of MPI itself, not of the communicator under test. */
void expect_same_bytes(const void *data, size_t bytes, const char *what);

/* Integers that differ by rank and place, small enough to be summed exactly in float32, and a guard behind the last. */
void *own_numbers(const struct comm *comm, enum dtype dtype, size_t count);
void expect_summed(const struct comm *comm, enum dtype dtype, const void *data, size_t count, const char *how);

/* Numbers of both signs and many magnitudes, so that every order of summation rounds differently; no guard. */
double rounding_number(int rank, size_t i);
void *own_rounding_numbers(const struct comm *comm, enum dtype dtype, size_t count);

/* Bytes that tell where they come from. */
unsigned char byte_at(int rank, int64_t row, size_t byte);
void fill_rows(unsigned char *rows, int rank, int64_t count, size_t row_bytes);
#define GUARD_BYTE 0xA5 /* stands behind the last byte, and must stay */

/* How many rows each rank has.  `owner` shifts the layouts that are not the same for all. */
enum row_layout {
  ROWS_EVEN,
  ROWS_RISING,
  ROWS_FALLING,
  ROWS_WITH_GAPS,
  ROWS_NONE,
  ROWS_OF_ONE, /* `owner` has all */
  ROWS_MANY,
  ROW_LAYOUTS
};
const char *row_layout_name(enum row_layout layout);
/* int64_t[comm_size(comm)] */
int64_t *row_layout_create(const struct comm *comm, enum row_layout layout, int owner);

/* Gathers rows of bytes, and checks all that arrives. */
enum own_rows { OUT_OF_PLACE, IN_PLACE, NULL_WHEN_EMPTY };
void check_gather(struct comm *comm, const int64_t *rows_of_rank, size_t row_bytes, enum own_rows how,
                  const char *layout);

#endif
