/* Mixtures of normal distributions: principal axes, densities, fit by expectation maximisation. */
#include "loss/mixture.h"

#include "dist/memory.h"
#include "dist/random.h"
#include "loss/distinct.h"
#include "loss/mixture_density.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define DIMENSIONS MIXTURE_MOST_DIMENSIONS
#define COMPONENTS MIXTURE_MOST_COMPONENTS

/* ---- principal axes ------------------------------------------------------------------------ */

/* Make a[p][q] zero by a rotation, which `axes` follow (Jacobi). */
static void rotate(int n, double a[DIMENSIONS][DIMENSIONS], double axes[DIMENSIONS][DIMENSIONS], int p, int q) {
  if (a[p][q] == 0)
    return;
  double angle = (a[q][q] - a[p][p]) / (2 * a[p][q]);
  double t = copysign(1, angle) / (fabs(angle) + hypot(angle, 1)), c = 1 / hypot(t, 1), s = t * c;
  for (int i = 0; i < n; i++) {
    double ip = a[i][p], iq = a[i][q];
    a[i][p] = c * ip - s * iq;
    a[i][q] = s * ip + c * iq;
  }
  for (int i = 0; i < n; i++) {
    double pi = a[p][i], qi = a[q][i], x = axes[p][i], y = axes[q][i];
    a[p][i] = c * pi - s * qi;
    a[q][i] = s * pi + c * qi;
    axes[p][i] = c * x - s * y;
    axes[q][i] = s * x + c * y;
  }
}

/* Off the diagonal nothing is left after a few sweeps: they converge quadratically. */
#define JACOBI_SWEEPS 12

void mixture_set(struct mixture *mixture, int k, double weight, const double *mean, const double *covariance) {
  double a[DIMENSIONS][DIMENSIONS];
  int n = mixture->dimensions;
  mixture->weight[k] = weight;
  for (int i = 0; i < n; i++) {
    mixture->mean[k][i] = mean[i];
    for (int j = 0; j < n; j++) {
      a[i][j] = covariance[i * n + j];
      mixture->axes[k][i][j] = i == j;
    }
  }
  for (int sweep = 0; sweep < JACOBI_SWEEPS; sweep++)
    for (int p = 0; p < n; p++)
      for (int q = p + 1; q < n; q++)
        rotate(n, a, mixture->axes[k], p, q);
  for (int i = 0; i < n; i++)
    mixture->variance[k][i] = a[i][i];
}

/* ---- density ------------------------------------------------------------------------------- */

void mixture_density_at(const struct mixture *mixture, double added, struct mixture_density *out) {
  out->mixture = mixture;
  for (int k = 0; k < mixture->components; k++)
    mixture_density_component(mixture, k, added, out);
}

/* ---- fit ----------------------------------------------------------------------------------- */

/* Sums are taken over as many blocks of samples, and the blocks added in their order: the threads do not matter. */
#define BLOCKS 64
#define STARTS 10
#define MOST_ITERATIONS 100
#define TOLERANCE 1e-3 /* of the mean log likelihood between two iterations */

/* Of one component: sums of its shares r of the samples, about its mean m before the update. */
struct component_sums {
  double share;                           /* r                */
  double first[DIMENSIONS];               /* r (x - m)        */
  double second[DIMENSIONS * DIMENSIONS]; /* r (x - m)(x - m)^T */
};

struct block_sums {
  double value; /* log likelihood; of k-means: minus the squared distances */
  struct component_sums of[COMPONENTS];
};

struct fit {
  int64_t count;             /* distinct samples                          */
  double total;              /* samples                                   */
  double *x, *copies;        /* [count, dimensions], [count]              */
  double *distance;          /* [count] squared, to the nearest centre    */
  struct block_sums *blocks; /* [BLOCKS]                              */
  struct mixture_density density;
  struct mixture mixture; /* so far */
};

static void add_share(struct component_sums *sums, int n, double share, const double *x, const double *mean) {
  sums->share += share;
  for (int i = 0; i < n; i++) {
    double part = share * (x[i] - mean[i]);
    sums->first[i] += part;
    for (int j = 0; j <= i; j++)
      sums->second[i * n + j] += part * (x[j] - mean[j]);
  }
}

static double squared_distance(int n, const double *a, const double *b) {
  double sum = 0;
  for (int i = 0; i < n; i++)
    sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum;
}

/* The whole sample to the nearest mean, as k-means has it. */
static void share_hard(const struct fit *fit, const double *x, double copies, struct block_sums *sums) {
  const struct mixture *mixture = &fit->mixture;
  int nearest = 0;
  double least = INFINITY;
  for (int k = 0; k < mixture->components; k++) {
    double distance = squared_distance(mixture->dimensions, x, mixture->mean[k]);
    if (distance < least) {
      least = distance;
      nearest = k;
    }
  }
  sums->value -= copies * least;
  add_share(&sums->of[nearest], mixture->dimensions, copies, x, mixture->mean[nearest]);
}

/* To each component by its probability. */
static void share_soft(const struct fit *fit, const double *x, double copies, struct block_sums *sums) {
  const struct mixture *mixture = &fit->mixture;
  double logs[COMPONENTS] = {0}, scaled[DIMENSIONS], largest = -INFINITY, sum = 0;
  for (int k = 0; k < mixture->components; k++) {
    logs[k] = mixture_density_log(&fit->density, k, x, scaled);
    largest = fmax(largest, logs[k]);
  }
  for (int k = 0; k < mixture->components; k++)
    sum += logs[k] = exp(logs[k] - largest);
  /* cppcheck-suppress invalidFunctionArg ; there is a component, so the sum is 1 at least */
  sums->value += copies * (largest + log(sum) - mixture->dimensions * log(2 * M_PI) / 2);
  for (int k = 0; k < mixture->components; k++)
    if (logs[k] > 0)
      add_share(&sums->of[k], mixture->dimensions, copies * logs[k] / sum, x, mixture->mean[k]);
}

static void add_sums(struct block_sums *sums, const struct block_sums *more, int components, int n) {
  sums->value += more->value;
  for (int k = 0; k < components; k++) {
    sums->of[k].share += more->of[k].share;
    for (int i = 0; i < n; i++)
      sums->of[k].first[i] += more->of[k].first[i];
    for (int i = 0; i < n * n; i++)
      sums->of[k].second[i] += more->of[k].second[i];
  }
}

/* The component that has these shares.  One that has none stays where it is, with weight 0. */
static void update_component(struct fit *fit, int k, const struct component_sums *sums) {
  int n = fit->mixture.dimensions;
  double mean[DIMENSIONS], shift[DIMENSIONS], covariance[DIMENSIONS * DIMENSIONS];
  if (!(sums->share > 0)) {
    fit->mixture.weight[k] = 0;
    return;
  }
  for (int i = 0; i < n; i++) {
    shift[i] = sums->first[i] / sums->share;
    mean[i] = fit->mixture.mean[k][i] + shift[i];
    for (int j = 0; j <= i; j++)
      covariance[i * n + j] = covariance[j * n + i] = sums->second[i * n + j] / sums->share - shift[i] * shift[j];
    covariance[i * n + i] = fmax(covariance[i * n + i], 0) + MIXTURE_FLOOR;
  }
  mixture_set(&fit->mixture, k, sums->share / fit->total, mean, covariance);
}

/* One round over all samples: the value of the mixture as it was, and the mixture after the update. */
static double improve(struct fit *fit, bool soft) {
  int n = fit->mixture.dimensions, components = fit->mixture.components;
  if (soft)
    mixture_density_at(&fit->mixture, 0, &fit->density);
  memset(fit->blocks, 0, BLOCKS * sizeof *fit->blocks);
#pragma omp parallel for schedule(dynamic)
  for (int block = 0; block < BLOCKS; block++)
    for (int64_t i = fit->count * block / BLOCKS; i < fit->count * (block + 1) / BLOCKS; i++)
      (soft ? share_soft : share_hard)(fit, fit->x + i * n, fit->copies[i], &fit->blocks[block]);
  for (int block = 1; block < BLOCKS; block++)
    add_sums(&fit->blocks[0], &fit->blocks[block], components, n);
  for (int k = 0; k < components; k++)
    update_component(fit, k, &fit->blocks[0].of[k]);
  return fit->blocks[0].value / fit->total;
}

/* Repeat until a round gains less than the tolerance; the last value. */
static double improve_until(struct fit *fit, bool soft, double tolerance) {
  double value = -INFINITY, before;
  int round = 0;
  do {
    before = value;
    value = improve(fit, soft);
  } while (++round < MOST_ITERATIONS && value - before > tolerance);
  return value;
}

/* Centres by k-means++: each next one a sample, by chance in proportion to its squared distance from those before. */
static void draw_centres(struct fit *fit, struct random_key key) {
  struct mixture *mixture = &fit->mixture;
  int n = mixture->dimensions;
  for (int k = 0; k < mixture->components; k++) {
    double sum = 0;
    for (int64_t i = 0; i < fit->count; i++) {
      double distance = k == 0 ? 1 : squared_distance(n, fit->x + i * n, mixture->mean[k - 1]);
      fit->distance[i] = k < 2 ? distance : fmin(fit->distance[i], distance);
      sum += fit->copies[i] * fit->distance[i];
    }
    double wanted = random_uniform(key, (uint64_t)k, 0) * sum;
    int64_t chosen = -1;
    for (int64_t i = 0; i < fit->count && (chosen < 0 || wanted >= 0); i++)
      if (fit->distance[i] > 0) {
        chosen = i;
        wanted -= fit->copies[i] * fit->distance[i];
      }
    memcpy(mixture->mean[k], fit->x + chosen * n, (size_t)n * sizeof(double));
  }
}

static double start_once(struct fit *fit, uint64_t seed, int start) {
  draw_centres(fit, random_key(seed, RANDOM_MIXTURE, (uint64_t)start));
  improve_until(fit, false, 0);
  return improve_until(fit, true, TOLERANCE);
}

static enum status fit_prepare(struct fit *fit, int64_t count, int dimensions, const double *samples, int components) {
  size_t numbers = (size_t)(count * dimensions);
  TRY(memory_alloc(numbers * sizeof(double), (void **)&fit->x));
  TRY(memory_alloc((size_t)count * sizeof(double), (void **)&fit->copies));
  TRY(memory_alloc((size_t)count * sizeof(double), (void **)&fit->distance));
  TRY(memory_alloc(BLOCKS * sizeof *fit->blocks, (void **)&fit->blocks));
  memcpy(fit->x, samples, numbers * sizeof(double));
  fit->total = (double)count;
  fit->count = distinct_rows(count, dimensions, fit->x, fit->copies);
  REQUIRE(components <= fit->count, ERR_ARGUMENT,
          "a mixture of %d components needs as many distinct labels, and there are %lld; ask for fewer components",
          components, (long long)fit->count);
  fit->mixture = (struct mixture){.components = components, .dimensions = dimensions};
  return STATUS_OK;
}

static void fit_destroy(struct fit **fit) {
  memory_free((void **)&(*fit)->x);
  memory_free((void **)&(*fit)->copies);
  memory_free((void **)&(*fit)->distance);
  memory_free((void **)&(*fit)->blocks);
  memory_free((void **)fit);
}

enum status mixture_fit(int64_t count, int dimensions, const double *samples, int components, uint64_t seed,
                        struct mixture *out, double *mean_log_likelihood) {
  struct fit *fit;
  enum status status;
  double best = -INFINITY;
  REQUIRE(components >= 1 && components <= COMPONENTS, ERR_ARGUMENT, "a mixture has 1 to %d components, not %d",
          COMPONENTS, components);
  REQUIRE(dimensions >= 1 && dimensions <= DIMENSIONS, ERR_ARGUMENT,
          "a mixture is fitted to labels of 1 to %d components, not %d", DIMENSIONS, dimensions);
  TRY(memory_alloc_zero(sizeof *fit, (void **)&fit));
  TRY_GOTO(fit_prepare(fit, count, dimensions, samples, components), out);
  for (int start = 0; start < STARTS; start++) {
    double value = start_once(fit, seed, start);
    if (value > best) {
      best = value;
      *out = fit->mixture;
    }
  }
  if (mean_log_likelihood != NULL)
    *mean_log_likelihood = best;
out:
  fit_destroy(&fit);
  return status;
}
