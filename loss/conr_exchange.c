/* The two exchanges of the ConR loss: records before the sweeps, two scalars a row between them. */
#include "loss/conr_internal.h"

#include <math.h>

/* ---- the first exchange: records ---------------------------------------------------------- */

/* q of a row, in its record.  A row that holds a value that is not finite gets the weight NaN, so that every rank sees
 * the fault and none waits.  Returns 1 / |f|, or 0. */
static double normalise_record(const struct conr *conr, const void *f, void *record) {
  bool finite;
  double inverse = row_normalise(conr->dtype, conr->features, f, record, &finite);
  if (!finite)
    dtype_put(conr->dtype, record, conr->stride - 1, NAN);
  return inverse;
}

/* Pack `rows` own rows, from row `first` on of the global batch, into their place among the records. */
static void pack_records(struct conr *conr, const struct conr_batch *block, int64_t first, int64_t rows) {
  enum dtype dtype = conr->dtype;
  void *records = at(dtype, conr->records, first * conr->stride);
  void *inverse = at(dtype, conr->inverse, first - conr->own_first);
  if (conr->fault != FAULT_NONE) { /* nothing can be read: empty records, and the second exchange tells */
    memset(records, 0, (size_t)(rows * conr->stride) * dtype_size(dtype));
    memset(inverse, 0, (size_t)rows * dtype_size(dtype));
    return;
  }
  int features = conr->features, targets = conr->targets;
#pragma omp parallel for schedule(static) if (rows * features > 16384)
  for (int64_t i = 0; i < rows; i++) {
    void *record = at(dtype, records, i * conr->stride);
    const void *f = element(dtype, block->features, i * features);
    for (int k = 0; k < targets; k++) {
      dtype_put(dtype, record, features + k, dtype_get(dtype, block->labels, i * targets + k));
      dtype_put(dtype, record, features + targets + k, dtype_get(dtype, block->predictions, i * targets + k));
    }
    dtype_put(dtype, record, features + 2 * targets, block->weights ? dtype_get(dtype, block->weights, i) : 1.0);
    if (conr->lends)
      memcpy(record, f, (size_t)features * dtype_size(dtype));
    else
      dtype_put(dtype, inverse, i, normalise_record(conr, f, record));
  }
}

/* What has come as it was, of all ranks: it is copied for those who borrow it, and normalised in its record. */
static void lend_records(struct conr *conr) {
  enum dtype dtype = conr->dtype;
  int features = conr->features, targets = conr->targets;
#pragma omp parallel for schedule(static) if (conr->rows * features > 16384)
  for (int64_t row = 0; row < conr->rows; row++) {
    void *record = at(dtype, conr->records, row * conr->stride), *z = at(dtype, conr->z, row * features);
    int64_t own = row - conr->own_first;
    memcpy(z, record, (size_t)features * dtype_size(dtype));
    memcpy(at(dtype, conr->lent_labels, row * targets), at(dtype, record, features),
           (size_t)targets * dtype_size(dtype));
    double inverse = normalise_record(conr, z, record);
    if (own >= 0 && own < conr->own_rows)
      dtype_put(dtype, conr->inverse, own, inverse);
  }
}

enum status send_records(struct conr *conr, const struct conr_batch *block, const int64_t *first_of_rank) {
  TRY(conr_blocks_place(&conr->blocks, conr->rows_of_rank, block->rows_of_rank, first_of_rank));
  pack_records(conr, block, conr->blocks.own, block->rows_of_rank[comm_rank(conr->comm)]);
  return conr_blocks_gather(&conr->blocks, block->rows_of_rank, (size_t)conr->stride * dtype_size(conr->dtype),
                            conr->records);
}

enum status name_bad_scalar(const int64_t *rows_of_rank, int targets, int64_t row, int scalar, double value) {
  static const char *const names[] = {"label", "prediction", "weight (or feature)"};
  int rank = 0;
  int64_t own = row;
  for (; own >= rows_of_rank[rank]; rank++)
    own -= rows_of_rank[rank];
  if (value < 0 && isfinite(value) && scalar == 2 * targets)
    return agreed(fail(ERR_NUMERIC, "the weight of row %lld on rank %d is %g; weights are finite and >= 0",
                       (long long)own, rank, value));
  const char *name = scalar < targets ? names[0] : scalar < 2 * targets ? names[1] : names[2];
  return agreed(fail(ERR_NUMERIC,
                     "a %s of row %lld on rank %d is not finite; lower the learning rate or check the data", name,
                     (long long)own, rank));
}

/* Every rank looks at every row's scalars, so all come to the same verdict. */
static enum status check_records(const struct conr *conr) {
  for (int64_t row = 0; row < conr->rows; row++)
    for (int k = 0; k <= 2 * conr->targets; k++) {
      double value = dtype_get(conr->dtype, conr->records, row * conr->stride + conr->features + k);
      if (!isfinite(value) || (k == 2 * conr->targets && value < 0))
        return name_bad_scalar(conr->rows_of_rank, conr->targets, row, k, value);
    }
  return STATUS_OK;
}

void spread_records(struct conr *conr) {
  for (int64_t slot = 0; slot < conr->columns; slot++)
    for (int k = 0; k < conr->targets; k++) {
      const char *tail = at(conr->dtype, conr->records, slot * conr->stride + conr->features);
      dtype_put(conr->dtype, conr->labels, k * conr->columns + slot, dtype_get(conr->dtype, tail, k));
      dtype_put(conr->dtype, conr->predictions, k * conr->columns + slot,
                dtype_get(conr->dtype, tail, conr->targets + k));
    }
}

enum status receive_records(struct conr *conr) {
  TRY(conr_blocks_finish(&conr->blocks, conr->rows));
  if (conr->lends)
    lend_records(conr);
  TRY(check_records(conr));
  recall_records(conr);
  for (int64_t row = 0; row < conr->columns; row++)
    conr->slot_of[row] = (int32_t)row;
  spread_records(conr);
  return STATUS_OK;
}

/* ---- the second exchange: two scalars a row ------------------------------------------------ */

/* The sentence for what befell a rank; all ranks say it. */
static enum status name_fault(enum fault fault, int rank) {
  if (fault == FAULT_BATCH)
    return agreed(fail(ERR_ARGUMENT, "rank %d brought NULL arrays, or other rows than rows_of_rank gives it", rank));
  if (fault == FAULT_PRODUCT)
    return agreed(
        fail(ERR_MEMORY, "a matrix product of the ConR loss failed on rank %d: its memory may be full", rank));
  return STATUS_OK;
}

static void add_trailer(struct trailer *sum, const struct trailer *part) {
  sum->loss += part->loss;
  sum->active += part->active;
  sum->positives += part->positives;
  sum->negatives += part->negatives;
  sum->zero_rows += part->zero_rows;
}

/* The scalars of one own shard's rows, from own row `first` on, to `next`; returns its sums. */
static struct trailer put_scalars(const struct conr *conr, int64_t first, int64_t end, char *next) {
  enum dtype dtype = scalar_dtype(conr);
  struct trailer trailer = {.fault = conr->fault};
  for (int64_t i = first; i < end; i++) {
    const struct pair_sums *sums = &conr->sums[i];
    double weight = weight_at(conr, conr->slot_of[conr->own_first + i]);
    struct pair_row row = pair_row_of(&conr->rule, conr->rows, conr->columns, sums, weight);
    struct trailer one = {.loss = row.loss,
                          .active = row.active,
                          .positives = sums->positives,
                          .negatives = sums->negatives,
                          .zero_rows = dtype_get(conr->dtype, conr->inverse, i) == 0};
    add_trailer(&trailer, &one);
    dtype_put(dtype, next, 2 * (i - first), row.u);
    dtype_put(dtype, next, 2 * (i - first) + 1, row.second);
  }
  return trailer;
}

/* Gather [u, second] of all rows; afterwards the exchange buffer holds them in batch order.
 * Each shard's rows are followed by its trailer; all ranks add the trailers in the same order. */
enum status exchange_scalars(struct conr *conr, struct trailer *total) {
  const struct conr_cuts *cuts = &conr->cuts;
  int size = comm_size(conr->comm), rank = comm_rank(conr->comm), faulty = -1;
  int64_t units_per_row = 2 * (int64_t)dtype_size(scalar_dtype(conr)) / 8, units[size];
  char *next = conr->exchange;
  struct trailer trailer;
  for (int r = 0; r < size; r++) {
    int shards = cuts->first_shard[r + 1] - cuts->first_shard[r];
    units[r] = conr->rows_of_rank[r] * units_per_row + shards * (int64_t)TRAILER_UNITS;
    next += r < rank ? units[r] * 8 : 0;
  }
  for (int shard = cuts->first_shard[rank]; shard < cuts->first_shard[rank + 1]; shard++) {
    int64_t first = cuts->first_row[shard] - conr->own_first, end = cuts->first_row[shard + 1] - conr->own_first;
    trailer = put_scalars(conr, first, end, next);
    next += (end - first) * units_per_row * 8;
    memcpy(next, &trailer, sizeof trailer);
    next += sizeof trailer;
  }
  TRY(comm_gather_rows(comm_for(conr->comm, "gather of ConR's sums"), NULL, units, 8, conr->exchange));
  char *from = conr->exchange, *to = conr->exchange;
  *total = (struct trailer){0};
  for (int r = 0; r < size; r++)
    for (int shard = cuts->first_shard[r]; shard < cuts->first_shard[r + 1]; shard++) {
      size_t bytes = (size_t)((cuts->first_row[shard + 1] - cuts->first_row[shard]) * units_per_row) * 8;
      memcpy(&trailer, from + bytes, sizeof trailer);
      memmove(to, from, bytes);
      from += bytes + sizeof trailer;
      to += bytes;
      add_trailer(total, &trailer);
      if (trailer.fault != FAULT_NONE && faulty < 0) {
        total->fault = trailer.fault;
        faulty = r;
      }
    }
  return name_fault((enum fault)total->fault, faulty);
}
