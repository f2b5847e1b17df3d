/* ACCon on gathered rows: two sweeps over panels of own rows, two numbers a row between them.
 *
 * With sigma_ij = exp(p_ij or g_ij) / Z_i and h_i = 1 / (base M (n_i + tau)), a pair's coefficient is H_ij = G_ij + G_ji,
 *     P: G_ij = h_i (n_i sigma_ij - 1)      N: G_ij = h_i n_i sigma_ij (-cos a + (c/s) |sin a|)
 *     gradient of q_i = sum_j H_ij q_j
 * Exponents take h_i n_i / Z_i along, as logarithms: pull_i = log(h_i n_i) - k_i/t - log Z_i for c/t of positives, and
 * push_i = log(h_i n_i) - log Z_i for g of negatives; no exponential exceeds h_i n_i. */
#include "loss/accon.h"

#include "dist/memory.h"
#include "loss/accon_element.h"
#include "loss/pairwise.h"
#include "loss/rows.h"
#include "loss/vectorised.h"
#include "model/gemm.h"

#include <math.h>
#include <omp.h>
#include <string.h>

/* What the first sweep learns of a row; the first two are gathered. */
struct accon_scalars {
  double positives, log_z;
};

struct accon_sums {
  int positives;
  double similarity; /* sum of p over positives    */
  double largest;    /* of all exponents           */
  double log_z;
};

struct accon {
  struct accon_options options;
  struct accon_rule rule; /* of them */
  int features;
  enum dtype dtype;

  int64_t capacity; /* rows */
  size_t bytes;     /* of the block of memory */
  struct rows_memory memory;
  void *inverse;                 /* [rows] 1 / |z|, 0 for zero rows           */
  void *label, *cosine, *sine;   /* [rows] y; of the angle pi y / R            */
  void *pull, *push, *subtract;  /* [rows] see above; subtract is h           */
  struct accon_scalars *scalars; /* [rows] own ones first, then of all ranks   */
  double *similarity;            /* [own rows] sum of p over positives         */
  void *panel, *grad, *tile;     /* [height, features] q, its gradient; [height, rows] products, then others */

  int64_t rows; /* of the batch at hand */
};

void accon_options_default(struct accon_options *options) {
  *options = (struct accon_options){.temperature = 1, .base_temperature = 1, .range = 100, .tau = 1e-6};
}

static enum status check_positive(const char *name, double value) {
  REQUIRE(value > 0 && isfinite(value), ERR_ARGUMENT, "ACCon's %s is %g; give a finite one > 0", name, value);
  return STATUS_OK;
}

struct accon_rule accon_rule_of(const struct accon_options *options) {
  return (struct accon_rule){.temperature = options->temperature,
                             .base_temperature = options->base_temperature,
                             .range = options->range,
                             .tau = options->tau,
                             .consistent = options->consistent};
}

enum status accon_check(const struct accon_options *options, int targets) {
  REQUIRE(targets == 1, ERR_ARGUMENT, "ACCon makes an angle of one label; these have %d components", targets);
  TRY(check_positive("temperature", options->temperature));
  TRY(check_positive("base temperature", options->base_temperature));
  TRY(check_positive("range of labels", options->range));
  return check_positive("tau", options->tau);
}

enum status accon_create(const struct accon_options *options, int features, int targets, enum dtype dtype,
                         struct accon **out) {
  *out = NULL;
  TRY(rows_check_widths("ACCon", features, targets, dtype));
  TRY(accon_check(options, targets));
  struct accon *accon;
  TRY(memory_alloc_zero(sizeof *accon, (void **)&accon));
  accon->options = *options;
  accon->rule = accon_rule_of(options);
  accon->features = features;
  accon->dtype = dtype;
  *out = accon;
  return STATUS_OK;
}

void accon_destroy(struct accon **accon) {
  if (*accon == NULL)
    return;
  rows_release(&(*accon)->memory);
  memory_free((void **)accon);
}

size_t accon_bytes(const struct accon *accon) {
  return accon->bytes;
}

/* ---- workspace ---- */

static void lay_out(struct accon *accon, int64_t rows) {
  struct rows_memory *memory = &accon->memory;
  size_t n = (size_t)rows, real = dtype_size(accon->dtype), features = (size_t)accon->features;
  size_t height = (size_t)rows_panel_height(rows);
  void **arrays[] = {&accon->inverse, &accon->label, &accon->cosine,  &accon->sine,
                     &accon->pull,    &accon->push,  &accon->subtract};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
    *arrays[i] = rows_piece(memory, n * real);
  accon->scalars = rows_piece(memory, n * sizeof *accon->scalars);
  accon->similarity = rows_piece(memory, n * sizeof *accon->similarity);
  accon->panel = rows_piece(memory, height * features * real);
  accon->grad = rows_piece(memory, height * features * real);
  accon->tile = rows_piece(memory, height * n * real);
}

static enum status grow(struct accon *accon, struct comm *comm, int64_t rows) {
  accon->capacity = 0;
  rows_release(&accon->memory);
  lay_out(accon, rows);
  accon->bytes = accon->memory.used;
  TRY(rows_reserve(comm, &accon->memory));
  lay_out(accon, rows);
  accon->capacity = rows;
  return STATUS_OK;
}

/* ---- rows ---- */

static double shift_of(const struct accon *accon, int64_t row) {
  return accon_shift(&accon->rule, dtype_get(accon->dtype, accon->inverse, row));
}

/* Norms and angles of all rows. */
static void measure_all(struct accon *accon, const struct gathered *gathered) {
  enum dtype dtype = accon->dtype;
  accon->rows = gathered->rows;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < gathered->rows; i++) {
    double label = dtype_get(dtype, gathered->labels, i), squares = 0;
    double angle = accon_angle_of_label(&accon->rule, label);
    for (int64_t k = i * accon->features; k < (i + 1) * accon->features; k++)
      squares += dtype_get(dtype, gathered->z, k) * dtype_get(dtype, gathered->z, k);
    dtype_put(dtype, accon->inverse, i, accon_inverse(sqrt(squares)));
    dtype_put(dtype, accon->label, i, label);
    dtype_put(dtype, accon->cosine, i, cos(angle));
    dtype_put(dtype, accon->sine, i, sin(angle));
  }
}

#define REAL float
#define NAME(name) name##_f32
#include "loss/accon_real.h"
#undef REAL
#undef NAME

#define REAL double
#define NAME(name) name##_f64
#include "loss/accon_real.h"

/* ---- panels ---- */

/* Own rows first .. first+count-1 of the gathered ones, normalised, zeros below them; and their products with all. */
static enum status multiply_panel(struct accon *accon, const struct gathered *gathered, int64_t first, int count) {
  enum dtype dtype = accon->dtype;
  int64_t features = accon->features;
  int height = rows_panel_height(accon->rows);
  for (int i = 0; i < count; i++) {
    bool finite;
    row_normalise(dtype, accon->features, rows_element(dtype, gathered->z, (first + i) * features),
                  rows_at(dtype, accon->panel, i * features), &finite);
  }
  memset(rows_at(dtype, accon->panel, count * features), 0, (size_t)((height - count) * features) * dtype_size(dtype));
  return rows_product(dtype, height, accon->features, accon->panel, accon->rows, gathered->z, accon->tile);
}

/* Sums of the panel's rows; own is the first one's place among the own rows. */
static enum status sum_panel(struct accon *accon, const struct gathered *gathered, int64_t own, int count) {
  enum dtype dtype = accon->dtype;
  int64_t first = gathered->first + own;
  TRY(multiply_panel(accon, gathered, first, count));
#pragma omp parallel for schedule(dynamic)
  for (int i = 0; i < count; i++) {
    void *x = rows_at(dtype, accon->tile, i * accon->rows);
    struct accon_sums sums = dtype == F32 ? sum_row_f32(accon, first + i, x) : sum_row_f64(accon, first + i, x);
    accon->scalars[first + i] = (struct accon_scalars){sums.positives, sums.log_z};
    accon->similarity[own + i] = sums.similarity;
  }
  return STATUS_OK;
}

/* Gradients of the panel's rows; grad [count, features]. */
static enum status weigh_panel(struct accon *accon, const struct gathered *gathered, int64_t own, int count,
                               double coefficient, void *grad) {
  enum dtype dtype = accon->dtype;
  int64_t first = gathered->first + own, features = accon->features, rows = accon->rows;
  TRY(multiply_panel(accon, gathered, first, count));
#pragma omp parallel for schedule(dynamic)
  for (int i = 0; i < count; i++)
    (dtype == F32 ? weigh_row_f32 : weigh_row_f64)(accon, first + i, rows_at(dtype, accon->tile, i * rows));
  /* All of the panel's height, so that rounding does not depend on how rows are shared out: what is below is 0. */
  TRY(gemm(dtype, GEMM_PLAIN, GEMM_PLAIN, rows_panel_height(rows), features, rows, 1.0, accon->tile, rows, gathered->z,
           features, 0.0, accon->grad, features));
#pragma omp parallel for schedule(static)
  for (int i = 0; i < count; i++) {
    void *row = rows_at(dtype, accon->grad, i * features), *sum = rows_at(dtype, grad, i * features);
    row_through_norm(dtype, accon->features, rows_element(dtype, gathered->z, (first + i) * features),
                     dtype_get(dtype, accon->inverse, first + i), row);
    if (dtype == F32)
      add_scaled_f32(features, (float)coefficient, row, sum);
    else
      add_scaled_f64(features, coefficient, row, sum);
  }
  return STATUS_OK;
}

static int panel_size(const struct accon *accon, const struct gathered *gathered, int64_t own) {
  int height = rows_panel_height(accon->rows);
  return (int)(gathered->own - own < height ? gathered->own - own : height);
}

static enum status sum_share(struct accon *accon, const struct gathered *gathered) {
  for (int64_t own = 0; own < gathered->own; own += rows_panel_height(accon->rows))
    TRY(sum_panel(accon, gathered, own, panel_size(accon, gathered, own)));
  return STATUS_OK;
}

static enum status weigh_share(struct accon *accon, const struct gathered *gathered, double coefficient,
                               void *grad_own) {
  for (int64_t own = 0; own < gathered->own; own += rows_panel_height(accon->rows))
    TRY(weigh_panel(accon, gathered, own, panel_size(accon, gathered, own), coefficient,
                    rows_at(accon->dtype, grad_own, own * accon->features)));
  return STATUS_OK;
}

/* ---- between the sweeps ---- */

/* The scales of all rows, from what was gathered. */
static void spread_scalars(struct accon *accon) {
  enum dtype dtype = accon->dtype;
  for (int64_t i = 0; i < accon->rows; i++) {
    struct accon_scalars row = accon->scalars[i];
    struct accon_scales_f64 scales =
        accon_scales_of(&accon->rule, accon->rows, dtype_get(dtype, accon->inverse, i), row.positives, row.log_z);
    dtype_put(dtype, accon->pull, i, scales.pull);
    dtype_put(dtype, accon->push, i, scales.push);
    dtype_put(dtype, accon->subtract, i, scales.subtract);
  }
}

/* The part of own rows in the value. */
static double own_value(const struct accon *accon, const struct gathered *gathered) {
  double sum = 0;
  for (int64_t i = 0; i < gathered->own; i++) {
    struct accon_scalars row = accon->scalars[gathered->first + i];
    sum += accon_value_of(&accon->rule, gathered->rows, accon->similarity[i], row.positives, row.log_z);
  }
  return sum;
}

enum status accon_loss(struct accon *accon, const struct gathered *gathered, double coefficient, void *grad_own,
                       double *value) {
  TRY(rows_check(gathered, "ACCon", accon->features, 1, accon->dtype));
  if (gathered->rows > accon->capacity)
    TRY(grow(accon, gathered->comm, gathered->rows));
  *value = 0;
  if (gathered->rows == 0)
    return STATUS_OK;
  measure_all(accon, gathered);
  enum status status = sum_share(accon, gathered); /* a rank that failed goes on, so that none waits */
  *value = own_value(accon, gathered);
  TRY(comm_gather_rows(gathered->comm, NULL, gathered->rows_of_rank, sizeof *accon->scalars, accon->scalars));
  spread_scalars(accon);
  if (status == STATUS_OK)
    status = weigh_share(accon, gathered, coefficient, grad_own);
  return rows_settle(gathered->comm, "ACCon", status, value);
}
