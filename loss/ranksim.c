/* RankSim on gathered rows: picking, ranks panel by panel, and the way back through similarity and norm. */
#include "loss/ranksim.h"

#include "dist/memory.h"
#include "dist/random.h"
#include "loss/pairwise.h"
#include "loss/rows.h"
#include "model/gemm.h"

#include <math.h>
#include <omp.h>
#include <string.h>

/* A thread's room for one row. */
struct ranking {
  struct rows_key *keys, *spare;          /* [n]                                 */
  int32_t *features, *labels, *perturbed; /* [n] ranks 1 .. n, 1 for the largest */
};

struct ranksim {
  struct ranksim_options options;
  int features, targets, threads;
  enum dtype dtype;

  int64_t capacity; /* rows */
  size_t bytes;     /* of the block of memory */
  struct rows_memory memory;
  struct rows_key *keys, *spare; /* [rows]                                             */
  int32_t *order, *begin;        /* [rows], [rows + 1] see rows_by_label               */
  int32_t *picked;               /* [n] gathered rows                                  */
  double *labels;                /* [n, targets]                                       */
  void *q, *inverse;             /* [n, features] normalised, [n] 1 / norm or 0         */
  void *grad;                    /* [n, features] with respect to q                    */
  void *panel, *tile;            /* [height, features] of q; [height, n] X, then dX    */
  struct ranking *rankings;      /* [threads]                                          */

  int64_t n; /* of the batch at hand */
};

enum status ranksim_create(const struct ranksim_options *options, int features, int targets, enum dtype dtype,
                           struct ranksim **out) {
  *out = NULL;
  TRY(rows_check_widths("RankSim", features, targets, dtype));
  REQUIRE(options->lambda > 0 && isfinite(options->lambda), ERR_ARGUMENT,
          "RankSim's lambda is %g; give a finite interpolation > 0", options->lambda);
  struct ranksim *ranksim;
  TRY(memory_alloc_zero(sizeof *ranksim, (void **)&ranksim));
  ranksim->options = *options;
  ranksim->features = features;
  ranksim->targets = targets;
  ranksim->dtype = dtype;
  ranksim->threads = omp_get_max_threads();
  *out = ranksim;
  return STATUS_OK;
}

void ranksim_destroy(struct ranksim **ranksim) {
  if (*ranksim == NULL)
    return;
  rows_release(&(*ranksim)->memory);
  memory_free((void **)ranksim);
}

size_t ranksim_bytes(const struct ranksim *ranksim) {
  return ranksim->bytes;
}

/* ---- workspace ---- */

static void lay_out_thread(struct rows_memory *memory, size_t n, struct ranking *ranking) {
  struct ranking own = {.keys = rows_piece(memory, n * sizeof *own.keys),
                        .spare = rows_piece(memory, n * sizeof *own.spare),
                        .features = rows_piece(memory, n * sizeof *own.features),
                        .labels = rows_piece(memory, n * sizeof *own.labels),
                        .perturbed = rows_piece(memory, n * sizeof *own.perturbed)};
  if (ranking != NULL)
    *ranking = own;
}

/* For as many rows as distinct labels may be. */
static void lay_out(struct ranksim *ranksim, int64_t rows) {
  struct rows_memory *memory = &ranksim->memory;
  size_t n = (size_t)rows, real = dtype_size(ranksim->dtype), features = (size_t)ranksim->features;
  size_t height = (size_t)rows_panel_height(rows);
  ranksim->keys = rows_piece(memory, n * sizeof *ranksim->keys);
  ranksim->spare = rows_piece(memory, n * sizeof *ranksim->spare);
  ranksim->order = rows_piece(memory, n * sizeof *ranksim->order);
  ranksim->begin = rows_piece(memory, (n + 1) * sizeof *ranksim->begin);
  ranksim->picked = rows_piece(memory, n * sizeof *ranksim->picked);
  ranksim->labels = rows_piece(memory, n * (size_t)ranksim->targets * sizeof *ranksim->labels);
  ranksim->q = rows_piece(memory, n * features * real);
  ranksim->inverse = rows_piece(memory, n * real);
  ranksim->grad = rows_piece(memory, n * features * real);
  ranksim->panel = rows_piece(memory, height * features * real);
  ranksim->tile = rows_piece(memory, height * n * real);
  ranksim->rankings = rows_piece(memory, (size_t)ranksim->threads * sizeof *ranksim->rankings);
  for (int thread = 0; thread < ranksim->threads; thread++)
    lay_out_thread(memory, n, ranksim->rankings != NULL ? &ranksim->rankings[thread] : NULL);
}

static enum status grow(struct ranksim *ranksim, struct comm *comm, int64_t rows) {
  ranksim->capacity = 0;
  rows_release(&ranksim->memory);
  lay_out(ranksim, rows);
  ranksim->bytes = ranksim->memory.used;
  TRY(rows_reserve(comm, &ranksim->memory));
  lay_out(ranksim, rows);
  ranksim->capacity = rows;
  return STATUS_OK;
}

/* ---- one row of each label ---- */

/* Where the draw for a label stands in its stream: a function of its value alone. */
static uint64_t label_counter(const struct gathered *gathered, int64_t row) {
  uint64_t counter = 0;
  for (int k = 0; k < gathered->targets; k++) {
    uint64_t bits = rows_key_bits(dtype_get(gathered->dtype, gathered->labels, row * gathered->targets + k));
    counter = counter * 0x9E3779B97F4A7C15u + bits;
  }
  return counter;
}

static void pick_rows(struct ranksim *ranksim, const struct gathered *gathered) {
  struct random_key key = random_key(gathered->seed, RANDOM_RANKSIM, (uint64_t)gathered->step);
  const int32_t *begin = ranksim->begin;
  ranksim->n = rows_by_label(gathered, ranksim->keys, ranksim->spare, ranksim->order, ranksim->begin);
  for (int64_t label = 0; label < ranksim->n; label++) {
    int32_t count = begin[label + 1] - begin[label];
    double drawn = random_uniform(key, label_counter(gathered, ranksim->order[begin[label]]), 0);
    ranksim->picked[label] = ranksim->order[begin[label] + (int32_t)(drawn * count)];
  }
  if (ranksim->n == gathered->rows)
    rows_in_order(gathered, ranksim->picked);
}

static void normalise_picked(struct ranksim *ranksim, const struct gathered *gathered) {
  int64_t features = ranksim->features, targets = ranksim->targets;
#pragma omp parallel for schedule(static) if (ranksim->n * features > 16384)
  for (int64_t i = 0; i < ranksim->n; i++) {
    int64_t row = ranksim->picked[i];
    bool finite;
    double inverse =
        row_normalise(ranksim->dtype, ranksim->features, rows_element(ranksim->dtype, gathered->z, row * features),
                      rows_at(ranksim->dtype, ranksim->q, i * features), &finite);
    dtype_put(ranksim->dtype, ranksim->inverse, i, inverse);
    for (int64_t k = 0; k < targets; k++)
      ranksim->labels[i * targets + k] = dtype_get(ranksim->dtype, gathered->labels, row * targets + k);
  }
}

/* ---- ranks ---- */

/* From keys to ranks. */
static void rank_keys(int64_t n, const struct ranking *ranking, int32_t *ranks) {
  const struct rows_key *sorted = rows_sort(n, ranking->keys, ranking->spare);
  for (int64_t place = 0; place < n; place++)
    ranks[sorted[place].row] = (int32_t)(n - place);
}

static double label_distance(const struct ranksim *ranksim, int64_t i, int64_t j) {
  const double *own = ranksim->labels + i * ranksim->targets, *other = ranksim->labels + j * ranksim->targets;
  double squares = 0;
  if (ranksim->targets == 1)
    return fabs(own[0] - other[0]);
  for (int k = 0; k < ranksim->targets; k++)
    squares += (own[k] - other[k]) * (own[k] - other[k]);
  return sqrt(squares);
}

/* x [n] row i of X becomes that of dX.  Returns the sum of squared differences of ranks 1 .. n. */
static double rank_row(const struct ranksim *ranksim, int64_t i, double coefficient, const struct ranking *ranking,
                       void *x) {
  int64_t n = ranksim->n;
  enum dtype dtype = ranksim->dtype;
  double lambda = ranksim->options.lambda, squares = 0;
  for (int64_t j = 0; j < n; j++)
    ranking->keys[j] = (struct rows_key){rows_key_bits(dtype_get(dtype, x, j)), (int32_t)j};
  rank_keys(n, ranking, ranking->features);
  for (int64_t j = 0; j < n; j++)
    ranking->keys[j] = (struct rows_key){rows_key_bits(-label_distance(ranksim, i, j)), (int32_t)j};
  rank_keys(n, ranking, ranking->labels);
  for (int64_t j = 0; j < n; j++) {
    double difference = (double)(ranking->features[j] - ranking->labels[j]);
    double moved = dtype_get(dtype, x, j) + lambda * (coefficient * 2 * (difference / (double)n) / (double)n);
    squares += difference * difference;
    ranking->keys[j] = (struct rows_key){rows_key_bits(dtype == F32 ? (double)(float)moved : moved), (int32_t)j};
  }
  rank_keys(n, ranking, ranking->perturbed);
  for (int64_t j = 0; j < n; j++)
    dtype_put(dtype, x, j, -(double)(ranking->features[j] - ranking->perturbed[j]) / (double)n / (lambda + 1e-8));
  return squares;
}

/* Rows first .. first+count-1 of X, their part of the value, and what they give to the gradient of q, as rows and as
 * columns. */
static enum status do_panel(struct ranksim *ranksim, int64_t first, int count, double coefficient, double *squares) {
  int64_t n = ranksim->n, features = ranksim->features;
  int height = rows_panel_height(n);
  enum dtype dtype = ranksim->dtype;
  size_t row_bytes = (size_t)features * dtype_size(dtype);
  double sum = 0;
  memcpy(ranksim->panel, rows_element(dtype, ranksim->q, first * features), (size_t)count * row_bytes);
  memset(rows_at(dtype, ranksim->panel, count * features), 0, (size_t)(height - count) * row_bytes);
  TRY(rows_product(dtype, height, ranksim->features, ranksim->panel, n, ranksim->q, ranksim->tile));
#pragma omp parallel for schedule(dynamic) num_threads(ranksim->threads) reduction(+ : sum)
  for (int i = 0; i < count; i++)
    sum += rank_row(ranksim, first + i, coefficient, &ranksim->rankings[omp_get_thread_num()],
                    rows_at(dtype, ranksim->tile, i * n));
  *squares += sum;
  TRY(gemm(dtype, GEMM_PLAIN, GEMM_PLAIN, count, features, n, 1.0, ranksim->tile, n, ranksim->q, features, 1.0,
           rows_at(dtype, ranksim->grad, first * features), features));
  return gemm(dtype, GEMM_TRANSPOSED, GEMM_PLAIN, n, features, count, 1.0, ranksim->tile, n, ranksim->panel, features,
              1.0, ranksim->grad, features);
}

/* This rank's share of the rows of X. */
static enum status do_share(struct ranksim *ranksim, const struct gathered *gathered, double coefficient,
                            double *squares) {
  int64_t size = comm_size(gathered->comm), rank = comm_rank(gathered->comm), n = ranksim->n;
  int height = rows_panel_height(n);
  int64_t last = n * (rank + 1) / size;
  for (int64_t first = n * rank / size; first < last; first += height)
    TRY(do_panel(ranksim, first, (int)(last - first < height ? last - first : height), coefficient, squares));
  return STATUS_OK;
}

/* ---- the call ---- */

static void add_own_rows(struct ranksim *ranksim, const struct gathered *gathered, void *grad_own) {
  int64_t features = ranksim->features;
#pragma omp parallel for schedule(static) if (ranksim->n * features > 16384)
  for (int64_t i = 0; i < ranksim->n; i++) {
    int64_t row = ranksim->picked[i];
    void *grad = rows_at(ranksim->dtype, ranksim->grad, i * features);
    if (row < gathered->first || row >= gathered->first + gathered->own)
      continue;
    row_through_norm(ranksim->dtype, ranksim->features, rows_element(ranksim->dtype, gathered->z, row * features),
                     dtype_get(ranksim->dtype, ranksim->inverse, i), grad);
    row_add(ranksim->dtype, ranksim->features, grad,
            rows_at(ranksim->dtype, grad_own, (row - gathered->first) * features));
  }
}

enum status ranksim_loss(struct ranksim *ranksim, const struct gathered *gathered, double coefficient, void *grad_own,
                         double *value) {
  TRY(rows_check(gathered, "RankSim", ranksim->features, ranksim->targets, ranksim->dtype));
  if (gathered->rows > ranksim->capacity)
    TRY(grow(ranksim, gathered->comm, gathered->rows));
  *value = 0;
  if (gathered->rows == 0)
    return STATUS_OK;
  pick_rows(ranksim, gathered);
  normalise_picked(ranksim, gathered);
  size_t count = (size_t)ranksim->n * (size_t)ranksim->features;
  memset(ranksim->grad, 0, count * dtype_size(ranksim->dtype));
  double n = (double)ranksim->n, squares = 0;
  enum status status = do_share(ranksim, gathered, coefficient, &squares);
  TRY(comm_sum(gathered->comm, ranksim->dtype, ranksim->grad, count));
  TRY(rows_settle(gathered->comm, "RankSim", status, &squares));
  *value = squares / (n * n * n);
  add_own_rows(ranksim, gathered, grad_own);
  return STATUS_OK;
}
