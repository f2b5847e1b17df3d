/* Batches for tests of the ConR loss: stored ones, and random ones; and how their rows are shared out.
 *
 *     struct conr_case stored = conr_case_load(file, golden_case_name(file, i));
 *     int64_t first = conr_share(SHARE_UNEVEN, stored.rows, rank, size, rows_of_rank);
 *     ... rows first .. first + rows_of_rank[rank] - 1 are this rank's ...
 *     conr_case_free(&stored); */
#ifndef CONR_TESTS_CONR_CASES_H
#define CONR_TESTS_CONR_CASES_H

#include "loss/conr.h"
#include "tests/golden.h"

/* A global batch and, if it was stored, what it must give. */
struct conr_case {
  int64_t rows;
  int features, targets;
  struct golden_array feature, label, prediction, weight; /* row-major                          */
  struct golden_array grad;                               /* of stored ones, else without data */
  double loss;
  struct conr_options options;
};

struct conr_case conr_case_load(const struct golden_file *file, const char *name);

/* The default options.  Labels like ages for one component, otherwise real; predictions are labels with errors of
 * `error`; all values are exact in float32. */
struct conr_case conr_case_random(int64_t rows, int features, int targets, double error, uint64_t seed);

void conr_case_free(struct conr_case *own);

enum share { SHARE_EVEN, SHARE_UNEVEN, SHARE_LAST, SHARES };
extern const char *const share_names[SHARES];

/* Fill rows_of_rank [size]; returns the first row of `rank`. */
int64_t conr_share(enum share share, int64_t rows, int rank, int size, int64_t *rows_of_rank);

#endif
