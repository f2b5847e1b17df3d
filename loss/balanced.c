/* Balanced MSE over labels, buckets or a mixture. */
#include "loss/balanced.h"

#include "dist/memory.h"
#include "loss/balanced_element.h"
#include "loss/distinct.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTORISED
#endif

#define MOST_TARGETS BALANCED_MOST_TARGETS

/* Points with weights, as a normal distribution of no width each: labels or centres. */
struct points {
  int64_t count, capacity;
  double *at;         /* [targets, count], component by component */
  double *log_weight; /* [count]                                  */
  double *rows;       /* BMC: [capacity, targets], to be sorted   */
  void *gathered;     /* BMC: [capacity, targets] of dtype        */
};

struct balanced {
  enum dtype dtype;
  int targets;
  bool gathers;            /* BMC               */
  struct points points;    /* BMC, BNI          */
  struct mixture *mixture; /* GAI; else NULL    */
};

/* ---- life ---------------------------------------------------------------------------------- */

static enum status create(enum dtype dtype, int targets, struct balanced **out) {
  *out = NULL;
  REQUIRE(targets >= 1 && targets <= MOST_TARGETS, ERR_ARGUMENT,
          "Balanced MSE takes labels of 1 to %d components, not %d", MOST_TARGETS, targets);
  TRY(memory_alloc_zero(sizeof **out, (void **)out));
  (*out)->dtype = dtype;
  (*out)->targets = targets;
  return STATUS_OK;
}

static void points_free(struct points *points) {
  memory_free((void **)&points->at);
  memory_free((void **)&points->log_weight);
  memory_free((void **)&points->rows);
  memory_free(&points->gathered);
  points->count = points->capacity = 0;
}

void balanced_destroy(struct balanced **balanced) {
  if (*balanced == NULL)
    return;
  points_free(&(*balanced)->points);
  memory_free((void **)&(*balanced)->mixture);
  memory_free((void **)balanced);
}

enum status balanced_create_bmc(enum dtype dtype, int targets, struct balanced **out) {
  TRY(create(dtype, targets, out));
  (*out)->gathers = true;
  return STATUS_OK;
}

enum status balanced_create_gai(enum dtype dtype, const struct mixture *mixture, struct balanced **out) {
  TRY(create(dtype, mixture->dimensions, out));
  enum status status = memory_alloc(sizeof *mixture, (void **)&(*out)->mixture);
  if (status == STATUS_OK)
    *(*out)->mixture = *mixture;
  else
    balanced_destroy(out);
  return status;
}

enum status balanced_create_bni(enum dtype dtype, int64_t count, const double *centres, const double *probabilities,
                                struct balanced **out) {
  size_t bytes = (size_t)count * sizeof(double);
  enum status status;
  TRY(create(dtype, 1, out));
  struct points *points = &(*out)->points;
  TRY_GOTO(memory_alloc(bytes, (void **)&points->at), failed);
  TRY_GOTO(memory_alloc(bytes, (void **)&points->log_weight), failed);
  memcpy(points->at, centres, bytes);
  for (int64_t i = 0; i < count; i++)
    points->log_weight[i] = log(probabilities[i]);
  points->count = count;
  return STATUS_OK;
failed:
  balanced_destroy(out);
  return status;
}

struct balanced_prior balanced_prior(const struct balanced *balanced) {
  const struct points *points = &balanced->points;
  struct balanced_prior prior = {
      .targets = balanced->targets, .of_batch = balanced->gathers, .mixture = balanced->mixture};
  if (!balanced->gathers && balanced->mixture == NULL) {
    prior.count = points->count;
    prior.centres = points->at;
    prior.log_weights = points->log_weight;
  }
  return prior;
}

/* ---- labels of the global batch ------------------------------------------------------------ */

static enum status points_grow(struct points *points, int64_t count, int targets) {
  size_t bytes = (size_t)count * sizeof(double);
  if (count <= points->capacity)
    return STATUS_OK;
  points_free(points);
  TRY(memory_alloc(bytes * (size_t)targets, (void **)&points->at));
  TRY(memory_alloc(bytes * (size_t)targets, (void **)&points->rows));
  TRY(memory_alloc(bytes * (size_t)targets, &points->gathered));
  TRY(memory_alloc(bytes, (void **)&points->log_weight));
  points->capacity = count;
  return STATUS_OK;
}

enum status balanced_set_labels(struct balanced *balanced, int64_t samples, const void *labels, int views) {
  struct points *points = &balanced->points;
  int targets = balanced->targets;
  if (!balanced->gathers)
    return STATUS_OK;
  TRY(points_grow(points, samples, targets));
  for (int64_t i = 0; i < samples * targets; i++)
    points->rows[i] = dtype_get(balanced->dtype, labels, i);
  points->count = distinct_rows(samples, targets, points->rows, points->log_weight);
  for (int64_t i = 0; i < points->count; i++) {
    points->log_weight[i] = log(points->log_weight[i] * views);
    for (int d = 0; d < targets; d++)
      points->at[d * points->count + i] = points->rows[i * targets + d];
  }
  return STATUS_OK;
}

enum status balanced_begin(struct balanced *balanced, struct comm *comm, const int64_t *samples_of_rank,
                           const void *labels, int views) {
  struct points *points = &balanced->points;
  size_t row_bytes = (size_t)balanced->targets * dtype_size(balanced->dtype);
  int64_t samples = 0;
  if (!balanced->gathers)
    return STATUS_OK;
  for (int rank = 0; rank < comm_size(comm); rank++)
    samples += samples_of_rank[rank];
  if (samples > points->capacity) /* all ranks know, and come here together */
    TRY(comm_agree(comm, points_grow(points, samples, balanced->targets)));
  TRY(comm_gather_rows(comm, labels, samples_of_rank, row_bytes, points->gathered));
  return balanced_set_labels(balanced, samples, points->gathered, views);
}

/* ---- one row ------------------------------------------------------------------------------- */

/* exp for x <= 0, exactly 0 below -708, in plain arithmetic, so that a compiler can put it in vector lanes: the Taylor
 * polynomial on |r| <= ln2/2 (its rest is 4e-18), scaled by a power of two.  Error below 2 ulp. */
static inline __attribute__((always_inline)) double exp_of(double x) {
  static const double inverse_factorials[] = {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800,
                                              1.0 / 362880,     1.0 / 40320,     1.0 / 5040,     1.0 / 720,
                                              1.0 / 120,        1.0 / 24,        1.0 / 6,        1.0 / 2};
  union {
    double value;
    uint64_t bits;
  } shifted, scale;
  double clamped = x < -708 ? -708 : x;
  shifted.value = clamped * 1.44269504088896338700e+00 + 0x1.8p52; /* the addition rounds to an integer */
  double n = shifted.value - 0x1.8p52;
  double r = clamped - n * 6.93147180369123816490e-01; /* ln 2 in two parts: the first product is exact */
  r = r - n * 1.90821492927058770002e-10;
  double poly = inverse_factorials[0];
  for (int i = 1; i < 12; i++)
    poly = poly * r + inverse_factorials[i];
  scale.bits = (shifted.bits + 1023) << 52;
  return x < -708 ? 0 : (poly * r * r + r + 1) * scale.value;
}

#define PANEL 256

/* Sums over the points seen so far, all times exp(-largest). */
struct point_sums {
  double largest, sum, squares; /* squares: of w |p - c|^2 */
  double pull[MOST_TARGETS];    /* of w (c - p)            */
};

static inline __attribute__((always_inline)) void add_panel(const struct points *points, int targets, const double *p,
                                                            double half_precision, int64_t first, int count,
                                                            struct point_sums *sums) {
  double square[PANEL], w[PANEL], largest = sums->largest, sum = 0, squares = 0;
  for (int j = 0; j < count; j++)
    square[j] = 0;
  for (int d = 0; d < targets; d++)
    for (int j = 0; j < count; j++) {
      double difference = points->at[d * points->count + first + j] - p[d];
      square[j] += difference * difference;
    }
#pragma omp simd reduction(max : largest)
  for (int j = 0; j < count; j++) {
    w[j] = balanced_exponent(points->log_weight[first + j], square[j], half_precision);
    largest = w[j] > largest ? w[j] : largest;
  }
#pragma omp simd reduction(+ : sum, squares)
  for (int j = 0; j < count; j++) {
    w[j] = exp_of(w[j] - largest);
    sum += w[j];
    squares += w[j] * square[j];
  }
  double rescale = exp(sums->largest - largest);
  sums->largest = largest;
  sums->sum = sums->sum * rescale + sum;
  sums->squares = sums->squares * rescale + squares;
  for (int d = 0; d < targets; d++) {
    double pull = 0;
#pragma omp simd reduction(+ : pull)
    for (int j = 0; j < count; j++)
      pull += w[j] * (points->at[d * points->count + first + j] - p[d]);
    sums->pull[d] = sums->pull[d] * rescale + pull;
  }
}

VECTORISED static struct point_sums sum_points(const struct points *points, int targets, const double *p,
                                               double half_precision) {
  struct point_sums sums = {.largest = -INFINITY};
  for (int64_t first = 0; first < points->count; first += PANEL) {
    int64_t left = points->count - first;
    add_panel(points, targets, p, half_precision, first, (int)(left < PANEL ? left : PANEL), &sums);
  }
  return sums;
}

/* Row of BMC or BNI.  error [targets]: p - y; replaced by the gradient. */
static struct balanced_row points_row(const struct balanced *balanced, double sigma, const double *p, double *error) {
  double half_precision = 1 / (2 * sigma * sigma), own = 0;
  struct point_sums sums = sum_points(&balanced->points, balanced->targets, p, half_precision);
  for (int d = 0; d < balanced->targets; d++) {
    own += error[d] * error[d];
    error[d] = balanced_points_slope(error[d], sums.pull[d], sums.sum);
  }
  return balanced_points_row(sigma, own, sums.largest, sums.sum, sums.squares);
}

/* ---- rows ---------------------------------------------------------------------------------- */

/* Rows whose results are kept before they are added up in order, whatever the threads. */
#define BLOCK 256

/* A row's gradient is written, its result returned. */
static struct balanced_row one_row(const struct balanced *balanced, const struct mixture_density *density, double sigma,
                                   const void *pred, const void *target, double rows_global, void *grad, int64_t row) {
  double p[MOST_TARGETS] = {0}, error[MOST_TARGETS] = {0};
  int64_t first = row * balanced->targets;
  for (int d = 0; d < balanced->targets; d++) {
    p[d] = dtype_get(balanced->dtype, pred, first + d);
    error[d] = p[d] - dtype_get(balanced->dtype, target, first + d);
  }
  struct balanced_row result = balanced->mixture != NULL ? balanced_mixture_row(density, sigma, p, error)
                                                         : points_row(balanced, sigma, p, error);
  if (grad != NULL)
    for (int d = 0; d < balanced->targets; d++)
      dtype_put(balanced->dtype, grad, first + d, error[d] / rows_global);
  return result;
}

void balanced_loss(const struct balanced *balanced, double sigma, int64_t rows, const void *pred, const void *target,
                   int64_t rows_global, void *grad, double *loss, double *grad_sigma) {
  struct mixture_density density = {0}; /* GAI */
  struct balanced_row results[BLOCK];
  int64_t terms = balanced->mixture != NULL ? balanced->mixture->components : balanced->points.count;
  double loss_sum = 0, sigma_sum = 0;
  if (balanced->mixture != NULL)
    mixture_density_at(balanced->mixture, sigma * sigma, &density);
  for (int64_t first = 0; first < rows; first += BLOCK) {
    int64_t count = rows - first < BLOCK ? rows - first : BLOCK;
#pragma omp parallel for schedule(static) if (count * terms > 16384)
    for (int64_t i = 0; i < count; i++)
      results[i] = one_row(balanced, &density, sigma, pred, target, (double)rows_global, grad, first + i);
    for (int64_t i = 0; i < count; i++) {
      loss_sum += results[i].loss;
      sigma_sum += results[i].grad_sigma;
    }
  }
  *loss = rows > 0 ? loss_sum / (double)rows_global : 0;
  *grad_sigma = rows > 0 ? sigma_sum / (double)rows_global : 0;
}
