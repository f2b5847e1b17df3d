/* A fast Gauss transform in one dimension.
 *
 * With t = (x - c) / h and u = (y - c) / h for a label y of the cell about c,
 *
 *     exp(-(t - u)^2 / 2) = exp(-t^2 / 2) * sum over k of t^k / k! * u^k exp(-u^2 / 2)
 *
 * so a cell needs its moments, the sums of u^k exp(-u^2 / 2) / k!, alone.  |u| <= 1/4 and |t| <= 10, hence |t u| <= 2.5,
 * and 26 terms leave less than 2.5^26 / 26! = 6e-17 beside exp(t u) >= exp(-2.5) = 0.08. */
#include "loss/kernel_density.h"

#include "dist/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TERMS 26
#define REACH 10.0     /* bandwidths */
#define CELL_WIDTH 0.5 /* bandwidths */

struct cell {
  double centre;
  double moment[TERMS];
};

struct kernel_density {
  double bandwidth, factor; /* factor = 1 / (n h sqrt(2 pi)) */
  int64_t cells;
  struct cell *cell; /* [cells], ascending, those that hold labels */
};

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void add_label(struct cell *cell, double label, double bandwidth) {
  double u = (label - cell->centre) / bandwidth, term = exp(-0.5 * u * u);
  for (int k = 0; k < TERMS; k++) {
    cell->moment[k] += term;
    term *= u / (k + 1);
  }
}

/* One past the last label of the cell that begins with labels[first]. */
static int64_t cell_end(int64_t n, const double *labels, int64_t first, double bandwidth) {
  int64_t end = first + 1;
  while (end < n && labels[end] <= labels[first] + CELL_WIDTH * bandwidth)
    end++;
  return end;
}

/* labels [n], ascending */
static enum status fill(struct kernel_density *density, int64_t n, const double *labels) {
  double bandwidth = density->bandwidth;
  for (int64_t first = 0; first < n; first = cell_end(n, labels, first, bandwidth))
    density->cells++;
  TRY(memory_alloc_zero((size_t)density->cells * sizeof *density->cell, (void **)&density->cell));
  struct cell *cell = density->cell;
  for (int64_t first = 0; first < n; cell++) {
    int64_t end = cell_end(n, labels, first, bandwidth);
    cell->centre = labels[first] + (labels[end - 1] - labels[first]) / 2;
    for (; first < end; first++)
      add_label(cell, labels[first], bandwidth);
  }
  return STATUS_OK;
}

enum status kernel_density_create(int64_t n, const double *labels, double bandwidth, struct kernel_density **out) {
  double *sorted = NULL;
  enum status status;
  *out = NULL;
  REQUIRE(n > 0, ERR_ARGUMENT, "%lld labels have no density; give at least one", (long long)n);
  REQUIRE(isfinite(bandwidth) && bandwidth > 0, ERR_ARGUMENT, "a bandwidth of %g makes no density; give one above 0",
          bandwidth);
  for (int64_t i = 0; i < n; i++)
    REQUIRE(isfinite(labels[i]), ERR_ARGUMENT, "label %lld is %g; a density is of finite labels", (long long)i,
            labels[i]);
  TRY(memory_alloc_zero(sizeof **out, (void **)out));
  (*out)->bandwidth = bandwidth;
  (*out)->factor = 1 / ((double)n * bandwidth * sqrt(2 * M_PI));
  TRY_GOTO(memory_alloc((size_t)n * sizeof *sorted, (void **)&sorted), out);
  memcpy(sorted, labels, (size_t)n * sizeof *sorted);
  qsort(sorted, (size_t)n, sizeof *sorted, compare);
  status = fill(*out, n, sorted);
out:
  memory_free((void **)&sorted);
  if (status != STATUS_OK)
    kernel_density_destroy(out);
  return status;
}

void kernel_density_destroy(struct kernel_density **density) {
  if (*density != NULL)
    memory_free((void **)&(*density)->cell);
  memory_free((void **)density);
}

static double cell_at(const struct cell *cell, double t) {
  double series = 0;
  for (int k = TERMS - 1; k >= 0; k--)
    series = series * t + cell->moment[k];
  return exp(-0.5 * t * t) * series;
}

/* The first cell whose centre is not below x. */
static int64_t first_cell(const struct kernel_density *density, double x) {
  int64_t low = 0, high = density->cells;
  while (low < high) {
    int64_t middle = low + (high - low) / 2;
    if (density->cell[middle].centre < x)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

double kernel_density_at(const struct kernel_density *density, double x) {
  double bandwidth = density->bandwidth, sum = 0;
  for (int64_t i = first_cell(density, x - REACH * bandwidth); i < density->cells; i++) {
    double t = (x - density->cell[i].centre) / bandwidth;
    if (t < -REACH)
      break;
    sum += cell_at(&density->cell[i], t);
  }
  return density->factor * sum;
}
