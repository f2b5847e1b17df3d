/* Stress protocols: training splits whose labels are thinned, missing at the ends, or missing in the middle, with a test
 * split that is even over labels.  The rule of the 2026 controlled review of imbalanced regression, for any label
 * column.
 *
 *     uint16_t *copies;                                                  [rows, SPLIT_COUNT], zeroed
 *     TRY(protocol_by_name("extrapolation", &options.kind));
 *     TRY(protocol_draw(&options, rows, labels, copies, &report));
 *     a row r is then written copies[r * SPLIT_COUNT + SPLIT_TRAIN] times for training, and so on
 *
 * A label's bin a is trunc(label / bin_width), for ages the age.  n_a rows have bin a, N rows in all.
 *
 *     1. quota q_a = floor(4 N w_a / sum of w over the bins there are); min(n_a, q_a) rows of the bin are drawn WITH
 *        replacement
 *     2. test: of the rows never drawn, min(how many there are, 50) of each bin, with replacement; "even": only of bins
 *        that have 50
 *     3. "aligned": drawn rows below the smallest or above the largest tested bin are dropped
 *     4. validation: a tenth of the drawn rows (rounded half to even) without replacement; training: the drawn rows none
 *        of whose copies is in validation
 *     5. blind spot: training and validation rows of the bins 47 to 53 are dropped
 *
 *     extrapolation   w_a = exp(-0.01 (a - 50)^2)                              even
 *     interpolation   w_a = exp(-0.01 (a - 25)^2) + exp(-0.01 (a - 80)^2)      even, aligned
 *     blind-spot      w_a = 1, rows of the bins 20 to 73 alone                 aligned, 5.
 *
 * Draws are functions of (seed, protocol, bin), so that they are not those of the published files: compare with those
 * by importing them.  All functions are local. */
#ifndef CONR_IO_PROTOCOL_H
#define CONR_IO_PROTOCOL_H

#include "dist/status.h"
#include "io/dataset.h"

#include <stdint.h>

enum protocol { PROTOCOL_NONE, PROTOCOL_EXTRAPOLATION, PROTOCOL_INTERPOLATION, PROTOCOL_BLIND_SPOT };

struct protocol_options {
  enum protocol kind;
  double bin_width; /* in label units, above 0 */
  uint64_t seed;
};

struct protocol_report {
  int64_t drawn;                /* rows of step 1, after step 3            */
  int64_t rows[SPLIT_COUNT];    /* with copies                             */
  int64_t sources[SPLIT_COUNT]; /* different rows among them               */
  int64_t tested_bins;
};

/* "extrapolation", "interpolation", "blind-spot"; "none".  ERR_ARGUMENT lists the names. */
enum status protocol_by_name(const char *name, enum protocol *out);

/* labels  [rows], finite
 * copies  [rows, SPLIT_COUNT], zeroed before
 * ERR_ARGUMENT: no row is left for testing, or none for training, with the bins there are. */
enum status protocol_draw(const struct protocol_options *options, int64_t rows, const double *labels, uint16_t *copies,
                          struct protocol_report *report);

#endif
