/* Rows of earlier batches that later ones are held against. */
#include "loss/conr_internal.h"

#include "dist/memory.h"

/* What the state begins with. */
enum { FILLED, NEXT, HEAD };

enum status memory_of_options(const struct conr_options *options, int64_t stride, struct conr_memory *out) {
  *out = (struct conr_memory){.rows = options->memory_rows};
  if (out->rows == 0)
    return STATUS_OK;
  out->count = HEAD + (size_t)out->rows * (size_t)stride;
  return memory_alloc_zero(out->count * sizeof *out->state, (void **)&out->state);
}

int64_t remembered_rows(const struct conr_memory *memory) {
  return memory->rows > 0 ? (int64_t)memory->state[FILLED] : 0;
}

/* A state that was copied in from elsewhere is looked at before it is used as places. */
enum status check_memory(const struct conr_memory *memory) {
  const double *state = memory->state, rows = (double)memory->rows;
  if (memory->rows == 0 || (state[FILLED] >= 0 && state[FILLED] <= rows && state[NEXT] >= 0 && state[NEXT] < rows))
    return STATUS_OK;
  return agreed(fail(ERR_FORMAT,
                     "the memory of ConR says that it holds %g of %g rows, the next one at %g; it was not "
                     "kept by this program",
                     state[FILLED], rows, state[NEXT]));
}

static double *record_at(const struct conr *conr, int64_t place) {
  return conr->memory.state + HEAD + place * conr->stride;
}

void recall_records(struct conr *conr) {
  int64_t stride = conr->stride;
#pragma omp parallel for schedule(static) if ((conr->columns - conr->rows) * stride > 16384)
  for (int64_t row = conr->rows; row < conr->columns; row++) {
    const double *from = record_at(conr, row - conr->rows);
    for (int64_t k = 0; k < stride; k++)
      dtype_put(conr->dtype, conr->records, row * stride + k, from[k]);
  }
}

static void remember_record(struct conr *conr, int64_t row) {
  double *state = conr->memory.state, *to = record_at(conr, (int64_t)state[NEXT]);
  for (int64_t k = 0; k < conr->stride; k++)
    to[k] = dtype_get(conr->dtype, conr->records, conr->slot_of[row] * conr->stride + k);
  state[NEXT] = (double)(((int64_t)state[NEXT] + 1) % conr->memory.rows);
  if (state[FILLED] < (double)conr->memory.rows)
    state[FILLED]++;
}

/* Sample by sample, which is an order that no sharing out of samples changes: of a batch that does not fit it decides
 * which rows stay. */
void remember_records(struct conr *conr) {
  const struct conr_cuts *cuts = &conr->cuts;
  int64_t place = 0, skipped = conr->rows - conr->memory.rows;
  if (conr->memory.rows == 0)
    return;
  for (int shard = 0; shard < cuts->shards; shard++) {
    int64_t first = cuts->first_row[shard], samples = (cuts->first_row[shard + 1] - first) / conr->views;
    for (int64_t i = 0; i < samples; i++)
      for (int view = 0; view < conr->views; view++)
        if (place++ >= skipped)
          remember_record(conr, first + view * samples + i);
  }
}

void conr_memory(struct conr *conr, double **values, size_t *count) {
  *values = conr->memory.state;
  *count = conr->memory.count;
}
