/* What the parts of ops_contract.h are made of: one case of an operation, on the same numbers by the table under test and,
 * in double, by the host's.
 *
 *     struct ops_run run = ops_run_begin(contract, offset);
 *     snprintf(run.name, sizeof run.name, "...");
 *     struct ops_array *x = ops_values(&run, n, 1), *y = ops_room(&run, run.ops->dtype, n);
 *     OK(run.exact->...(ops_exact(x), ops_exact(y)));
 *     OK(run.ops->...(ops_data(x), ops_data(y)));
 *     ops_expect(&run, y, "y", 4 * ops_arithmetic(&run));
 *     ops_run_end(&run);
 *
 * What a case allocates lives until its end.  All assert. */
#ifndef CONR_TESTS_OPS_RUN_H
#define CONR_TESTS_OPS_RUN_H

#include "tests/ops_contract.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#define OK(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())
#define LENGTH(array) (sizeof(array) / sizeof *(array))

enum { OPS_MOST_ARRAYS = 64, OPS_NAME_BYTES = 160 };

/* The same numbers for the table under test and, as double, for the host's. */
struct ops_array {
  enum dtype dtype;
  int64_t count;
  double *exact;
  void *data; /* in the memory of the table; some elements follow, which no one may touch */
};

struct ops_run {
  const struct ops_contract *contract;
  const struct ops *ops, *exact;
  int offset; /* of all arrays, in elements: 0 = on a good address */
  char name[OPS_NAME_BYTES];
  struct ops_array arrays[OPS_MOST_ARRAYS];
  void *blocks[OPS_MOST_ARRAYS];
  int count;
};

struct ops_run ops_run_begin(const struct ops_contract *contract, int offset);
void ops_run_end(struct ops_run *run);

/* --- arrays on both sides; stream: of the numbers drawn -------------------------------------------------------- */

/* Numbers in [shift - 1, shift + 1), rounded to the type on both sides. */
struct ops_array *ops_numbers(struct ops_run *run, enum dtype dtype, int64_t count, uint64_t stream, double shift);

/* Around 0, of the types of values and of parameters. */
struct ops_array *ops_values(struct ops_run *run, int64_t count, uint64_t stream);
struct ops_array *ops_parameters(struct ops_run *run, int64_t count, uint64_t stream);

struct ops_array *ops_same(struct ops_run *run, enum dtype dtype, int64_t count, double value);

/* For a result: filled with what is certainly wrong. */
struct ops_array *ops_room(struct ops_run *run, enum dtype dtype, int64_t count);

/* NULL of NULL. */
void *ops_data(const struct ops_array *array);
double *ops_exact(const struct ops_array *array);

/* Numbers that are not drawn: memory on both sides, and what lies in `exact` sent to the table's. */
struct ops_array *ops_array_of(struct ops_run *run, enum dtype dtype, int64_t count);
void ops_upload(struct ops_run *run, struct ops_array *array);

/* Bytes in the memory of the table. */
uint8_t *ops_bytes(struct ops_run *run, const uint8_t *bytes, int64_t count);

/* --- comparing ----------------------------------------------------------------------------------------------- */

/* Half a unit in the last place of a type, relative. */
double ops_rounding(enum dtype dtype);

/* Of the arithmetic between loads and stores: float32 for bfloat16 too. */
double ops_arithmetic(const struct ops_run *run);

/* A sum of `terms` products of numbers in [-1, 1): each rounding of a factor moves one product by that share of at most
 * 1, independently of the others, so three standard deviations are 3 sqrt(terms) / sqrt(3) of it, and twice that is
 * allowed; sums in float32 grow like sqrt(terms) and are rounded `terms` times at most. */
double ops_product_error(const struct ops_run *run, double factor_rounding, int64_t terms);

/* What lies in `array` against `expected`: the result of exact arithmetic may be `error` away before it is rounded to
 * the array's type, and one more half unit for when that falls on the other side. */
void ops_expect_near(struct ops_run *run, const struct ops_array *array, const char *what, const double *expected,
                     double error);

/* Against the result of the host's table, which lies in the same array. */
void ops_expect(struct ops_run *run, const struct ops_array *array, const char *what, double error);

void ops_expect_bytes(struct ops_run *run, const uint8_t *data, const uint8_t *expected, int64_t count,
                      const char *what);

#endif
