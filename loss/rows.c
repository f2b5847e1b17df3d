/* What the regularisers on gathered rows share. */
#include "loss/rows.h"

#include "dist/memory.h"
#include "loss/pairwise.h"
#include "model/gemm.h"

#include <math.h>
#include <string.h>

/* ---- checks ---- */

enum status rows_check_widths(const char *method, int features, int targets, enum dtype dtype) {
  REQUIRE(features >= 1, ERR_ARGUMENT, "%s: features is %d; give at least 1", method, features);
  REQUIRE(targets >= 1, ERR_ARGUMENT, "%s: targets is %d; give at least 1", method, targets);
  REQUIRE(dtype == F32 || dtype == F64, ERR_ARGUMENT, "%s works in f32 or f64, not in %s", method, dtype_name(dtype));
  return STATUS_OK;
}

static bool all_finite(enum dtype dtype, int64_t count, const void *x) {
  for (int64_t i = 0; i < count; i++)
    if (!isfinite(dtype_get(dtype, x, i)))
      return false;
  return true;
}

/* The first row that holds a value that is not finite, or `rows`. */
static int64_t first_bad_row(const struct gathered *gathered, int width, const void *values) {
  int64_t first = gathered->rows;
#pragma omp parallel for schedule(static) reduction(min : first)
  for (int64_t row = 0; row < gathered->rows; row++)
    if (row < first && !all_finite(gathered->dtype, width, rows_element(gathered->dtype, values, row * width)))
      first = row;
  return first;
}

static enum status check_finite(const struct gathered *gathered, const char *method, const char *name, int width,
                                const void *values) {
  int64_t row = first_bad_row(gathered, width, values);
  int rank = 0;
  if (row == gathered->rows)
    return STATUS_OK;
  for (; row >= gathered->rows_of_rank[rank]; rank++)
    row -= gathered->rows_of_rank[rank];
  return rows_agreed(fail(ERR_NUMERIC,
                          "%s: a %s of row %lld on rank %d is not finite; lower the learning rate or check the data",
                          method, name, (long long)row, rank));
}

enum status rows_check(const struct gathered *gathered, const char *method, int features, int targets,
                       enum dtype dtype) {
  bool whole = gathered->views >= 1;
  for (int rank = 0; rank < comm_size(gathered->comm) && whole; rank++)
    whole = gathered->rows_of_rank[rank] % gathered->views == 0;
  if (gathered->features != features || gathered->targets != targets || gathered->dtype != dtype)
    return rows_agreed(fail(ERR_BUG, "%s: rows are [%d features, %d targets] in %s, announced were [%d, %d] in %s",
                            method, gathered->features, gathered->targets, dtype_name(gathered->dtype), features,
                            targets, dtype_name(dtype)));
  if (!whole)
    return rows_agreed(fail(ERR_BUG, "%s: a rank's rows are not %d views of each sample", method, gathered->views));
  if (gathered->rows >= INT32_MAX)
    return rows_agreed(fail(ERR_ARGUMENT, "%s: a global batch of %lld rows is too large; the limit is %d", method,
                            (long long)gathered->rows, INT32_MAX - 1));
  TRY(check_finite(gathered, method, "label", targets, gathered->labels));
  return check_finite(gathered, method, "feature", features, gathered->z);
}

enum status rows_settle(struct comm *comm, const char *method, enum status status, double *value) {
  double sums[2] = {*value, status != STATUS_OK};
  TRY(comm_sum(comm, F64, sums, 2));
  *value = sums[0];
  if (sums[1] > 0)
    return rows_agreed(
        fail(ERR_MEMORY, "%s: a matrix product failed on %g ranks; their memory may be full", method, sums[1]));
  return STATUS_OK;
}

/* ---- workspace ---- */

void *rows_piece(struct rows_memory *memory, size_t bytes) {
  char *piece = memory->block != NULL ? memory->block + memory->used : NULL;
  memory->used += (bytes + 63) / 64 * 64;
  return piece;
}

enum status rows_reserve(struct comm *comm, struct rows_memory *memory) {
  size_t bytes = memory->used;
  TRY(comm_agree(comm, memory_alloc(bytes, (void **)&memory->block)));
  memory->used = 0;
  return STATUS_OK;
}

void rows_release(struct rows_memory *memory) {
  memory_free((void **)&memory->block);
  memory->used = 0;
}

/* ---- order ---- */

#define DIGIT_BITS 8
#define DIGITS (64 / DIGIT_BITS)
#define DIGIT_VALUES (1 << DIGIT_BITS)

uint64_t rows_key_bits(double value) {
  uint64_t bits;
  value += 0.0; /* -0 is 0 */
  memcpy(&bits, &value, sizeof bits);
  return bits >> 63 ? ~bits : bits | (uint64_t)1 << 63;
}

static unsigned digit_of(uint64_t bits, int digit) {
  return (unsigned)(bits >> digit * DIGIT_BITS) & (DIGIT_VALUES - 1);
}

/* One pass of the radix sort; place [DIGIT_VALUES] counts keys of each value of the digit. */
static void scatter(int64_t count, const struct rows_key *from, int digit, int32_t *place, struct rows_key *to) {
  int32_t begin = 0;
  for (int value = 0; value < DIGIT_VALUES; value++) {
    int32_t size = place[value];
    place[value] = begin;
    begin += size;
  }
  for (int64_t i = 0; i < count; i++)
    to[place[digit_of(from[i].bits, digit)]++] = from[i];
}

struct rows_key *rows_sort(int64_t count, struct rows_key *keys, struct rows_key *spare) {
  int32_t place[DIGITS][DIGIT_VALUES] = {0};
  for (int64_t i = 0; i < count; i++)
    for (int digit = 0; digit < DIGITS; digit++)
      place[digit][digit_of(keys[i].bits, digit)]++;
  for (int digit = 0; digit < DIGITS; digit++) {
    if (count == 0 || place[digit][digit_of(keys[0].bits, digit)] == count) /* all alike: such as float32's low bits */
      continue;
    scatter(count, keys, digit, place[digit], spare);
    struct rows_key *sorted = spare;
    spare = keys;
    keys = sorted;
  }
  return keys;
}

void rows_in_order(const struct gathered *gathered, int32_t *order) {
  int ranks = comm_size(gathered->comm);
  int64_t place = 0;
  for (int view = 0; view < gathered->views; view++) {
    int64_t first = 0;
    for (int rank = 0; rank < ranks; rank++) {
      int64_t samples = gathered->rows_of_rank[rank] / gathered->views;
      for (int64_t i = 0; i < samples; i++)
        order[place++] = (int32_t)(first + view * samples + i);
      first += gathered->rows_of_rank[rank];
    }
  }
}

static bool same_label(const struct gathered *gathered, int64_t row, int64_t other) {
  for (int k = 0; k < gathered->targets; k++)
    if (dtype_get(gathered->dtype, gathered->labels, row * gathered->targets + k) !=
        dtype_get(gathered->dtype, gathered->labels, other * gathered->targets + k))
      return false;
  return true;
}

int64_t rows_by_label(const struct gathered *gathered, struct rows_key *keys, struct rows_key *spare, int32_t *order,
                      int32_t *begin) {
  int64_t labels = 0;
  rows_in_order(gathered, order);
  for (int k = gathered->targets - 1; k >= 0; k--) { /* stable, so the first component is sorted last */
    for (int64_t i = 0; i < gathered->rows; i++) {
      double label = dtype_get(gathered->dtype, gathered->labels, (int64_t)order[i] * gathered->targets + k);
      keys[i] = (struct rows_key){rows_key_bits(label), order[i]};
    }
    const struct rows_key *sorted = rows_sort(gathered->rows, keys, spare);
    for (int64_t i = 0; i < gathered->rows; i++)
      order[i] = sorted[i].row;
  }
  for (int64_t i = 0; i < gathered->rows; i++)
    if (i == 0 || !same_label(gathered, order[i - 1], order[i]))
      begin[labels++] = (int32_t)i;
  begin[labels] = (int32_t)gathered->rows;
  return labels;
}

/* ---- products ---- */

int rows_panel_height(int64_t rows) {
  return rows >= 4096 ? PANEL_ROWS : rows >= 512 ? 96 : 48; /* multiples of 48 */
}

enum status rows_product(enum dtype dtype, int height, int features, const void *panel, int64_t rows, const void *all,
                         void *tile) {
  int64_t blocks =
      rows / PANEL_COLUMNS > 0 ? rows / PANEL_COLUMNS : 1; /* the last one takes the rest: none is narrow */
  int failures = 0;
#pragma omp parallel for schedule(dynamic) reduction(+ : failures)
  for (int64_t block = 0; block < blocks; block++) {
    int64_t first = block * PANEL_COLUMNS, columns = block + 1 == blocks ? rows - first : PANEL_COLUMNS;
    failures +=
        gemm(dtype, GEMM_PLAIN, GEMM_TRANSPOSED, height, columns, features, 1.0, panel, features,
             rows_element(dtype, all, first * features), features, 0.0, rows_at(dtype, tile, first), rows) != STATUS_OK;
  }
  REQUIRE(failures == 0, ERR_MEMORY, "a matrix product failed: the memory may be full");
  return STATUS_OK;
}
