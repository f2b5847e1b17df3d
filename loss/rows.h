/* What the regularisers on gathered rows share: checks, workspace, the order of labels, products with all rows.
 *
 *     TRY(rows_check(gathered, "RnC", features, targets, dtype));               the same verdict on all ranks
 *     if (gathered->rows > rnc->capacity) TRY(grow(rnc, gathered));             rows_reserve inside
 *     ... enum status status = what this rank's own rows gave ...
 *     return rows_settle(gathered->comm, "RnC", status, value);                 collective: all end alike
 */
#ifndef CONR_LOSS_ROWS_H
#define CONR_LOSS_ROWS_H

#include "loss/gathered.h"

/* ---- checks ---- */

/* A failure that every rank finds in what it has gathered: all return it, none waits. */
static inline enum status rows_agreed(enum status status) {
  status_set_agreed();
  return status;
}

/* Are the rows of the type and widths they were announced with, and features and labels finite?  ERR_NUMERIC names the
 * first bad row; ERR_ARGUMENT for more rows than an int32 counts.  Same value. */
enum status rows_check(const struct gathered *gathered, const char *method, int features, int targets,
                       enum dtype dtype);

/* Sentences of create(), common to all methods.  Local. */
enum status rows_check_widths(const char *method, int features, int targets, enum dtype dtype);

/* The end of a loss: *value becomes the sum of all ranks' parts; ERR_MEMORY on all ranks when one has failed.
 * Collective, also for the rank that failed. */
enum status rows_settle(struct comm *comm, const char *method, enum status status, double *value);

/* ---- workspace: one block, cut into pieces in the same way twice, first to learn its size ---- */

struct rows_memory {
  char *block; /* NULL while measuring */
  size_t used; /* bytes                */
};

/* The next piece, aligned to 64 bytes; NULL while measuring. */
void *rows_piece(struct rows_memory *memory, size_t bytes);

/* Give the measured block memory in place of an earlier one; pieces are to be taken anew.
 * Collective: all ranks come here with the same number of rows.  ERR_MEMORY on all. */
enum status rows_reserve(struct comm *comm, struct rows_memory *memory);

/* Local. */
void rows_release(struct rows_memory *memory);

/* ---- order ---- */

struct rows_key {
  uint64_t bits; /* rows_key_bits() of what is sorted by */
  int32_t row;
};

/* Unsigned numbers in the order of the values, which are not NaN; -0 is 0. */
uint64_t rows_key_bits(double value);

/* Stable, ascending.  keys, spare [count]; where the result lies is returned: one of the two.  Local. */
struct rows_key *rows_sort(int64_t count, struct rows_key *keys, struct rows_key *spare);

/* Rows in ascending order of labels, by component; equal labels in the order of (view, sample), which does not depend on
 * how samples are shared out.
 * order   [rows] gathered rows
 * begin   [rows + 1] places in `order` where a label begins, then `rows`
 * Returns how many labels are distinct.  Same value. */
int64_t rows_by_label(const struct gathered *gathered, struct rows_key *keys, struct rows_key *spare, int32_t *order,
                      int32_t *begin);

/* Rows of all ranks in the order of (view, sample).  order [rows]. */
void rows_in_order(const struct gathered *gathered, int32_t *order);

/* ---- products ---- */

/* Own rows that are multiplied at once, by how many rows there are in all: see pairwise.h. */
int rows_panel_height(int64_t rows);

/* tile [height, rows] = panel [height, features] . all [rows, features]^T
 * An element's rounding depends neither on threads nor on how rows are shared out, if the height is that of the rows.
 * Called outside parallel regions; uses all threads.  Local.  ERR_MEMORY. */
enum status rows_product(enum dtype dtype, int height, int features, const void *panel, int64_t rows, const void *all,
                         void *tile);

/* Element i of an array of F32 or F64. */
static inline void *rows_at(enum dtype dtype, void *array, int64_t i) {
  return (char *)array + i * (int64_t)dtype_size(dtype);
}

static inline const void *rows_element(enum dtype dtype, const void *array, int64_t i) {
  return (const char *)array + i * (int64_t)dtype_size(dtype);
}

#endif
