/* Rows that are equal, as one row and a count: labels repeat (ages are whole years), and what is computed for each label
 * is then computed once for many. */
#ifndef CONR_LOSS_DISTINCT_H
#define CONR_LOSS_DISTINCT_H

#include <stdint.h>

/* Sort rows [count, width] by their first component, then the next ones, and keep one of each.
 * copies  [count], overwritten: how often each was there
 * Returns how many are kept.  Local; the result does not depend on the order of the rows. */
int64_t distinct_rows(int64_t count, int width, double *rows, double *copies);

#endif
