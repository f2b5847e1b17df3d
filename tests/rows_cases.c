/* Batches for tests of the regularisers on gathered rows. */
#include "tests/rows_cases.h"

#include "dist/random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- batches ---- */

struct rows_case rows_case_random(int64_t samples, int views, int features, int targets, enum labels labels,
                                  uint64_t seed) {
  struct random_key key = random_key(seed, RANDOM_TEST, 11);
  struct rows_case batch = {.samples = samples, .views = views, .features = features, .targets = targets};
  batch.feature = malloc((size_t)(samples * views * features) * sizeof(double) + 1);
  batch.label = malloc((size_t)(samples * targets) * sizeof(double) + 1);
  for (int64_t i = 0; i < samples; i++) {
    uint64_t row = (uint64_t)i;
    for (int k = 0; k < targets; k++) {
      double uniform = random_uniform(key, row, 100000 + (uint64_t)k);
      double label = labels == LABELS_AGES   ? floor(20 + 30 * uniform)
                     : labels == LABELS_REAL ? 20 + 60 * uniform
                                             : (double)random_permute(key, (uint64_t)samples, row);
      batch.label[i * targets + k] = (double)(float)label;
    }
    for (int k = 0; k < views * features; k++)
      batch.feature[i * views * features + k] =
          (double)(float)(random_normal(key, row, (uint64_t)k) + 0.02 * batch.label[i * targets] * (k % 3));
  }
  return batch;
}

struct rows_case rows_case_load(const struct golden_file *file, const char *name) {
  struct golden_array feature = golden_read(file, name, "features");
  struct golden_array label = golden_read(file, name, golden_has(file, name, "labels") ? "labels" : "targets");
  bool views = feature.rank == 3;
  return (struct rows_case){.samples = feature.shape[0],
                            .views = views ? (int)feature.shape[1] : 1,
                            .features = (int)feature.shape[views ? 2 : 1],
                            .targets = (int)label.shape[1],
                            .feature = feature.data,
                            .label = label.data};
}

void rows_case_free(struct rows_case *batch) {
  free(batch->feature);
  free(batch->label);
  *batch = (struct rows_case){0};
}

/* ---- a share of them ---- */

/* The sample and view of each gathered row: ranks after each other, each view by view. */
static void place_rows(const struct rows_case *batch, int size, const int64_t *samples_of_rank, int64_t *place) {
  int64_t first = 0, row = 0;
  for (int rank = 0; rank < size; rank++) {
    for (int view = 0; view < batch->views; view++)
      for (int64_t i = 0; i < samples_of_rank[rank]; i++)
        place[row++] = (first + i) * batch->views + view;
    first += samples_of_rank[rank];
  }
}

static enum status run_method(const struct rows_setting *setting, const struct gathered *gathered, double coefficient,
                              void *grad, double *value, size_t *bytes) {
  enum status status = ERR_BUG;
  if (setting->method == ROWS_RANKSIM) {
    struct ranksim *ranksim;
    TRY(ranksim_create(&setting->ranksim, gathered->features, gathered->targets, gathered->dtype, &ranksim));
    status = ranksim_loss(ranksim, gathered, coefficient, grad, value);
    *bytes = ranksim_bytes(ranksim);
    ranksim_destroy(&ranksim);
  }
  if (setting->method == ROWS_RNC) {
    struct rnc *rnc;
    TRY(rnc_create(&setting->rnc, gathered->features, gathered->targets, gathered->dtype, &rnc));
    status = rnc_loss(rnc, gathered, coefficient, grad, value);
    *bytes = rnc_bytes(rnc);
    rnc_destroy(&rnc);
  }
  if (setting->method == ROWS_ACCON) {
    struct accon *accon;
    TRY(accon_create(&setting->accon, gathered->features, gathered->targets, gathered->dtype, &accon));
    status = accon_loss(accon, gathered, coefficient, grad, value);
    *bytes = accon_bytes(accon);
    accon_destroy(&accon);
  }
  return status;
}

struct rows_outcome rows_run(const struct rows_setting *setting, const struct rows_case *batch, enum dtype dtype,
                             enum share share, MPI_Comm mpi, double coefficient) {
  struct rows_outcome outcome = {.before = 0.5};
  struct comm *comm;
  if (comm_create(mpi, &comm) != STATUS_OK)
    MPI_Abort(mpi, 1);
  int size = comm_size(comm), rank = comm_rank(comm), features = batch->features, targets = batch->targets;
  int64_t rows = batch->samples * batch->views, samples_of_rank[size], rows_of_rank[size];
  int64_t first = conr_share(share, batch->samples, rank, size, samples_of_rank) * batch->views;
  for (int r = 0; r < size; r++)
    rows_of_rank[r] = samples_of_rank[r] * batch->views;
  int64_t *place = malloc((size_t)rows * sizeof *place + 1);
  void *z = malloc((size_t)(rows * features) * sizeof(double) + 1);
  void *labels = malloc((size_t)(rows * targets) * sizeof(double) + 1);
  void *grad = malloc((size_t)(rows_of_rank[rank] * features) * sizeof(double) + 1);
  place_rows(batch, size, samples_of_rank, place);
  for (int64_t i = 0; i < rows; i++) {
    for (int k = 0; k < features; k++)
      dtype_put(dtype, z, i * features + k, batch->feature[place[i] * features + k]);
    for (int k = 0; k < targets; k++)
      dtype_put(dtype, labels, i * targets + k, batch->label[place[i] / batch->views * targets + k]);
  }
  for (int64_t i = 0; i < rows_of_rank[rank] * features; i++)
    dtype_put(dtype, grad, i, dtype == F64 ? outcome.before : 0); /* in float32 the sum would round it */
  struct gathered gathered = {.comm = comm,
                              .dtype = dtype,
                              .features = features,
                              .targets = targets,
                              .rows = rows,
                              .first = first,
                              .own = rows_of_rank[rank],
                              .rows_of_rank = rows_of_rank,
                              .z = z,
                              .labels = labels,
                              .predictions = labels,
                              .views = batch->views,
                              .seed = 3,
                              .step = batch->step};
  outcome.status = run_method(setting, &gathered, coefficient, grad, &outcome.value, &outcome.bytes);
  outcome.grad = calloc((size_t)(rows * features) + 1, sizeof(double));
  for (int64_t i = 0; i < rows_of_rank[rank]; i++)
    for (int k = 0; k < features; k++)
      outcome.grad[place[first + i] * features + k] =
          dtype_get(dtype, grad, i * features + k) - (dtype == F64 ? outcome.before : 0);
  MPI_Allreduce(MPI_IN_PLACE, outcome.grad, (int)(rows * features), MPI_DOUBLE, MPI_SUM, mpi);
  free(place);
  free(z);
  free(labels);
  free(grad);
  comm_destroy(&comm);
  return outcome;
}

void rows_outcome_free(struct rows_outcome *outcome) {
  free(outcome->grad);
  *outcome = (struct rows_outcome){0};
}

double rows_grad_error(const struct rows_case *batch, const double *got, const double *wanted) {
  return golden_array_error(F64, batch->samples * batch->views * batch->features, got, wanted);
}

/* ---- the same by plain loops ---- */

static const double *row_of(const struct rows_case *batch, int64_t row) {
  return batch->feature + row * batch->features;
}

static const double *label_of(const struct rows_case *batch, int64_t row) {
  return batch->label + row / batch->views * batch->targets;
}

static double dot(int n, const double *a, const double *b) {
  double sum = 0;
  for (int k = 0; k < n; k++)
    sum += a[k] * b[k];
  return sum;
}

/* Rows divided by their norms. */
static double *normalised(const struct rows_case *batch) {
  int64_t rows = batch->samples * batch->views;
  double *q = malloc((size_t)(rows * batch->features) * sizeof *q + 1);
  for (int64_t i = 0; i < rows; i++) {
    double norm = sqrt(dot(batch->features, row_of(batch, i), row_of(batch, i)));
    for (int k = 0; k < batch->features; k++)
      q[i * batch->features + k] = row_of(batch, i)[k] / fmax(norm, 1e-12);
  }
  return q;
}

/* From the gradient of q to that of the features, in place. */
static void through_norms(const struct rows_case *batch, const double *q, double *grad) {
  int n = batch->features;
  for (int64_t i = 0; i < batch->samples * batch->views; i++) {
    double norm = sqrt(dot(n, row_of(batch, i), row_of(batch, i))), along = dot(n, grad + i * n, q + i * n);
    for (int k = 0; k < n; k++)
      grad[i * n + k] = norm > 1e-12 ? (grad[i * n + k] - along * q[i * n + k]) / norm : 0;
  }
}

/* Normalised rank of entry j of v: 1/n for the largest; of equal ones the later has the smaller. */
static double rank_of(int64_t n, const double *v, int64_t j) {
  int64_t rank = 1;
  for (int64_t k = 0; k < n; k++)
    rank += v[k] > v[j] || (v[k] == v[j] && k > j);
  return (double)rank / (double)n;
}

/* All labels are distinct. */
static double ranksim_reference(const struct rows_setting *setting, const struct rows_case *batch, double coefficient,
                                double *grad) {
  int64_t n = batch->samples;
  int features = batch->features;
  double lambda = setting->ranksim.lambda, value = 0;
  double *q = normalised(batch), x[n], y[n], moved[n];
  memset(grad, 0, (size_t)(n * features) * sizeof *grad);
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j < n; j++) {
      double squares = 0;
      for (int k = 0; k < batch->targets; k++)
        squares += pow(label_of(batch, i)[k] - label_of(batch, j)[k], 2);
      x[j] = dot(features, q + i * features, q + j * features);
      y[j] = -sqrt(squares);
    }
    for (int64_t j = 0; j < n; j++) {
      double difference = rank_of(n, x, j) - rank_of(n, y, j);
      value += difference * difference / (double)n;
      moved[j] = x[j] + lambda * coefficient * 2 * difference / (double)n;
    }
    for (int64_t j = 0; j < n; j++) {
      double slope = -(rank_of(n, x, j) - rank_of(n, moved, j)) / (lambda + 1e-8);
      for (int k = 0; k < features; k++) {
        grad[i * features + k] += slope * q[j * features + k];
        grad[j * features + k] += slope * q[i * features + k];
      }
    }
  }
  through_norms(batch, q, grad);
  free(q);
  return value;
}

static double label_distance(const struct rows_case *batch, int64_t i, int64_t j) {
  double sum = 0;
  for (int k = 0; k < batch->targets; k++)
    sum += fabs(label_of(batch, i)[k] - label_of(batch, j)[k]);
  return sum;
}

/* Row i's part, and its gradient with respect to s_ij, g [rows]; the row's nearest column has exponential 1. */
static double rnc_row(const struct rows_case *batch, int64_t rows, int64_t i, const double *s, double *g) {
  double value = 0;
  memset(g, 0, (size_t)rows * sizeof *g);
  for (int64_t j = 0; j < rows; j++) {
    double sum = 0, most = -INFINITY;
    if (j == i)
      continue;
    for (int64_t k = 0; k < rows; k++)
      if (k != i && label_distance(batch, i, k) >= label_distance(batch, i, j))
        most = fmax(most, s[k]);
    for (int64_t k = 0; k < rows; k++)
      if (k != i && label_distance(batch, i, k) >= label_distance(batch, i, j))
        sum += exp(s[k] - most);
    for (int64_t k = 0; k < rows; k++)
      if (k != i && label_distance(batch, i, k) >= label_distance(batch, i, j))
        g[k] += exp(s[k] - most) / sum;
    g[j] -= 1;
    value += most + log(sum) - s[j];
  }
  return value;
}

static double rnc_reference(const struct rows_setting *setting, const struct rows_case *batch, double coefficient,
                            double *grad) {
  int64_t rows = batch->samples * batch->views;
  int features = batch->features;
  double t = setting->rnc.temperature, value = 0, norm = 1 / ((double)rows * (double)(rows - 1));
  double *s = malloc((size_t)rows * sizeof *s + 1), *g = malloc((size_t)rows * sizeof *g + 1);
  memset(grad, 0, (size_t)(rows * features) * sizeof *grad);
  for (int64_t i = 0; i < rows && rows > 1; i++) {
    for (int64_t j = 0; j < rows; j++) {
      double squares = 0;
      for (int k = 0; k < features; k++)
        squares += pow(row_of(batch, i)[k] - row_of(batch, j)[k], 2);
      s[j] = -sqrt(squares) / t;
    }
    value += norm * rnc_row(batch, rows, i, s, g);
    for (int64_t j = 0; j < rows; j++)
      for (int k = 0; k < features && s[j] != 0; k++) {
        double part = coefficient * norm * g[j] * (row_of(batch, i)[k] - row_of(batch, j)[k]) / (t * t * s[j]);
        grad[i * features + k] += part;
        grad[j * features + k] -= part;
      }
  }
  free(s);
  free(g);
  return value;
}

/* Row i of [M]: exponents x, and their slopes with respect to the cosine. */
static int64_t accon_row(const struct rows_setting *setting, const struct rows_case *batch, const double *q, int64_t i,
                         double *x, double *slope, double *same) {
  const struct accon_options *options = &setting->accon;
  int64_t rows = batch->samples * batch->views, positives = 0;
  double shift = options->consistent || dot(batch->features, q + i * batch->features, q + i * batch->features) == 0;
  for (int64_t j = 0; j < rows; j++) {
    double c = dot(batch->features, q + i * batch->features, q + j * batch->features);
    double s = sqrt(1 - c * c + options->tau), distance = label_distance(batch, i, j);
    double angle = M_PI * distance / options->range;
    same[j] = distance == 0 && j != i;
    positives += same[j] != 0;
    x[j] = (same[j] ? c - (shift ? 0 : 1) : -(c * cos(angle) + s * fabs(sin(angle)))) / options->temperature;
    slope[j] = (same[j] ? 1 : c / s * fabs(sin(angle)) - cos(angle)) / options->temperature;
  }
  return positives;
}

static double accon_reference(const struct rows_setting *setting, const struct rows_case *batch, double coefficient,
                              double *grad) {
  const struct accon_options *options = &setting->accon;
  int64_t rows = batch->samples * batch->views;
  int features = batch->features;
  double *q = normalised(batch), value = 0, x[rows + 1], slope[rows + 1], same[rows + 1];
  memset(grad, 0, (size_t)(rows * features) * sizeof *grad);
  for (int64_t i = 0; i < rows; i++) {
    double positives = (double)accon_row(setting, batch, q, i, x, slope, same), most = -INFINITY, sum = 0, part = 0;
    double norm = options->temperature / options->base_temperature / (double)rows / (positives + options->tau);
    for (int64_t j = 0; j < rows; j++)
      most = j != i ? fmax(most, x[j]) : most;
    for (int64_t j = 0; j < rows; j++)
      sum += j != i ? exp(x[j] - most) : 0;
    for (int64_t j = 0; j < rows; j++)
      part += same[j] ? x[j] - most - log(sum) : 0;
    value -= norm * (part + options->tau);
    for (int64_t j = 0; j < rows; j++) {
      double g = coefficient * norm * slope[j] * (j == i ? 0 : positives * exp(x[j] - most) / sum - same[j]);
      for (int k = 0; k < features; k++) {
        grad[i * features + k] += g * q[j * features + k];
        grad[j * features + k] += g * q[i * features + k];
      }
    }
  }
  through_norms(batch, q, grad);
  free(q);
  return value;
}

double rows_reference(const struct rows_setting *setting, const struct rows_case *batch, double coefficient,
                      double *grad) {
  switch (setting->method) {
  case ROWS_RANKSIM:
    return ranksim_reference(setting, batch, coefficient, grad);
  case ROWS_RNC:
    return rnc_reference(setting, batch, coefficient, grad);
  case ROWS_ACCON:
    return accon_reference(setting, batch, coefficient, grad);
  }
  return NAN;
}
