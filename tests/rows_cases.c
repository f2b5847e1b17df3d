/* Batches for tests of the regularisers on gathered rows. */
#include "tests/rows_cases.h"

#include "dist/memory.h"
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
  batch.feature = calloc((size_t)(samples * views * features) + 1, sizeof(double));
  batch.label = calloc((size_t)(samples * targets) + 1, sizeof(double));
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

struct rows_case rows_case_far(void) {
  struct rows_case batch = rows_case_random(60, 1, 16, 1, LABELS_AGES, 12);
  for (int64_t i = 0; i < 60 * 16; i++)
    batch.feature[i] = (double)(float)(batch.feature[i] + 50);
  return batch;
}

struct rows_case rows_case_close(int64_t samples, int features) {
  struct rows_case batch = rows_case_random(samples, 1, features, 1, LABELS_AGES, 13);
  int64_t half = samples / 2;
  for (int64_t i = 0; i < half; i++)
    for (int k = 0; k < features; k++)
      batch.feature[(i + half) * features + k] =
          (double)(float)(batch.feature[i * features + k] + (i % 3 == 0 ? 1e-2 : 1e-4) * (double)(k % 16 - 7));
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

void rows_place(const struct rows_case *batch, int size, const int64_t *samples_of_rank, int64_t *place) {
  int64_t first = 0, row = 0;
  for (int rank = 0; rank < size; rank++) {
    for (int view = 0; view < batch->views; view++)
      for (int64_t i = 0; i < samples_of_rank[rank]; i++)
        place[row++] = (first + i) * batch->views + view;
    first += samples_of_rank[rank];
  }
}

/* One of them. */
struct handle {
  struct ranksim *ranksim;
  struct rnc *rnc;
  struct accon *accon;
  struct srl *srl;
};

/* A new SRL with the setting's surrogate and points in place of its own. */
static enum status create_srl(const struct rows_setting *setting, const struct gathered *gathered, struct srl **out) {
  double *state;
  size_t count, features = (size_t)gathered->features, bins = (size_t)setting->srl.bins;
  TRY(srl_create(&setting->srl, gathered->features, gathered->targets, gathered->dtype, out));
  srl_state(*out, &state, &count);
  if (setting->surrogate != NULL) {
    memcpy(state, setting->surrogate, bins * features * sizeof *state);
    for (size_t bin = 0; bin < bins; bin++)
      state[bins * features + bin] = 1;
  }
  for (size_t k = 0; k < (size_t)setting->srl.points * features && setting->points != NULL; k++)
    dtype_put(gathered->dtype, srl_points(*out), (int64_t)k, setting->points[k]);
  return STATUS_OK;
}

static enum status create_method(const struct rows_setting *setting, const struct gathered *gathered,
                                 struct handle *handle) {
  int features = gathered->features, targets = gathered->targets;
  enum dtype dtype = gathered->dtype;
  switch (setting->method) {
  case ROWS_RANKSIM:
    return ranksim_create(&setting->ranksim, features, targets, dtype, &handle->ranksim);
  case ROWS_RNC:
    return rnc_create(&setting->rnc, features, targets, dtype, &handle->rnc);
  case ROWS_ACCON:
    return accon_create(&setting->accon, features, targets, dtype, &handle->accon);
  case ROWS_SRL:
    return create_srl(setting, gathered, &handle->srl);
  }
  return ERR_BUG;
}

static enum status call_method(const struct handle *handle, const struct gathered *gathered, double coefficient,
                               void *grad, double *value) {
  if (handle->ranksim != NULL)
    return ranksim_loss(handle->ranksim, gathered, coefficient, grad, value);
  if (handle->rnc != NULL)
    return rnc_loss(handle->rnc, gathered, coefficient, grad, value);
  if (handle->accon != NULL)
    return accon_loss(handle->accon, gathered, coefficient, grad, value);
  return srl_loss(handle->srl, gathered, coefficient, grad, value);
}

static size_t bytes_of(const struct handle *handle) {
  return handle->ranksim != NULL ? ranksim_bytes(handle->ranksim)
         : handle->rnc != NULL   ? rnc_bytes(handle->rnc)
         : handle->accon != NULL ? accon_bytes(handle->accon)
                                 : srl_bytes(handle->srl);
}

/* The largest batch has been seen, and then one of half its samples, alone on this rank. */
static enum status warm_up(const struct handle *handle, const struct gathered *gathered) {
  struct gathered half = *gathered;
  int64_t rows = gathered->rows / gathered->views / 2 * gathered->views;
  double value;
  void *scratch = calloc((size_t)(gathered->rows * gathered->features) + 1, sizeof(double));
  enum status status = call_method(handle, gathered, 1, scratch, &value);
  half.rows = half.own = rows;
  half.rows_of_rank = &rows;
  if (status == STATUS_OK)
    status = call_method(handle, &half, 1, scratch, &value);
  free(scratch);
  return status;
}

static enum status run_method(const struct rows_setting *setting, const struct gathered *gathered, double coefficient,
                              void *grad, struct rows_outcome *outcome) {
  struct handle handle = {0};
  TRY(create_method(setting, gathered, &handle));
  enum status status = setting->used_before ? warm_up(&handle, gathered) : STATUS_OK;
  size_t before = memory_in_use();
  memory_peak_reset();
  if (status == STATUS_OK)
    status = call_method(&handle, gathered, coefficient, grad, &outcome->value);
  outcome->grown = memory_peak() - before;
  outcome->bytes = bytes_of(&handle);
  ranksim_destroy(&handle.ranksim);
  rnc_destroy(&handle.rnc);
  accon_destroy(&handle.accon);
  srl_destroy(&handle.srl);
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
  int64_t *place = calloc((size_t)rows + 1, sizeof *place);
  void *z = calloc((size_t)(rows * features) + 1, sizeof(double));
  void *labels = calloc((size_t)(rows * targets) + 1, sizeof(double));
  void *grad = calloc((size_t)(rows_of_rank[rank] * features) + 1, sizeof(double));
  rows_place(batch, size, samples_of_rank, place);
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
                              .views = batch->views,
                              .seed = 3,
                              .step = batch->step};
  outcome.status = run_method(setting, &gathered, coefficient, grad, &outcome);
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
  double *q = calloc((size_t)(rows * batch->features) + 1, sizeof *q);
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
  double value = 0, distance[rows];
  memset(g, 0, (size_t)rows * sizeof *g);
  for (int64_t j = 0; j < rows; j++)
    distance[j] = label_distance(batch, i, j);
  for (int64_t j = 0; j < rows; j++) {
    double sum = 0, most = -INFINITY;
    if (j == i)
      continue;
    for (int64_t k = 0; k < rows; k++)
      if (k != i && distance[k] >= distance[j])
        most = fmax(most, s[k]);
    for (int64_t k = 0; k < rows; k++)
      if (k != i && distance[k] >= distance[j])
        sum += exp(s[k] - most);
    for (int64_t k = 0; k < rows; k++)
      if (k != i && distance[k] >= distance[j])
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
  double *s = calloc((size_t)rows + 1, sizeof *s), *g = calloc((size_t)rows + 1, sizeof *g);
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

/* Unit rows of all bins, [bins, features]: of the batch where count > 0, else of the surrogate. */
static void srl_surrogate(const struct rows_setting *setting, const struct rows_case *batch, const double *q,
                          double *centre, double *count, double *norm) {
  int features = batch->features;
  memset(centre, 0, (size_t)(setting->srl.bins * features) * sizeof *centre);
  memset(count, 0, (size_t)setting->srl.bins * sizeof *count);
  for (int64_t i = 0; i < batch->samples * batch->views; i++) {
    int bin = (int)label_of(batch, i)[0];
    count[bin]++;
    for (int k = 0; k < features; k++)
      centre[bin * features + k] += q[i * features + k];
  }
  for (int bin = 0; bin < setting->srl.bins; bin++) {
    double *row = centre + bin * features;
    for (int k = 0; k < features; k++)
      row[k] = count[bin] > 0 ? row[k] / count[bin] : setting->surrogate[bin * features + k];
    norm[bin] = sqrt(dot(features, row, row));
    for (int k = 0; k < features; k++)
      row[k] /= norm[bin];
  }
}

/* Enveloping and homogeneity on c [bins, features], and their gradient with respect to it. */
static double srl_on_surrogate(const struct rows_setting *setting, int features, const double *c, double *grad) {
  const struct srl_options *options = &setting->srl;
  double value = 0, best, mean = 0, sign = options->homogeneity == SRL_REPEL ? 1 : -1;
  int winner = 0, pairs = options->bins - 1;
  for (int p = 0; p < options->points; p++) {
    const double *u = setting->points + (int64_t)p * features;
    best = -INFINITY;
    for (int b = 0; b < options->bins; b++)
      if (dot(features, u, c + b * features) > best)
        best = dot(features, u, c + (winner = b) * features);
    value += options->weight_enveloping * (1 - best) / options->points;
    for (int k = 0; k < features; k++)
      grad[winner * features + k] -= options->weight_enveloping * u[k] / options->points;
  }
  for (int b = 0; b < pairs; b++)
    mean += dot(features, c + b * features, c + (b + 1) * features) / pairs;
  for (int b = 0; b < pairs; b++) {
    const double *own = c + b * features, *next = own + features;
    double cosine = dot(features, own, next), off = cosine - mean, w = options->weight_homogeneity;
    bool paper = options->homogeneity == SRL_PAPER;
    value += w * (paper ? 2 - 2 * cosine : sign * cosine + options->spread * off * off / (pairs - 1));
    for (int k = 0; k < features; k++) {
      double slope = paper ? 0 : sign + 2 * options->spread * off / (pairs - 1), step = paper ? next[k] - own[k] : 0;
      grad[b * features + k] += w * (slope * next[k] - 2 * step);
      grad[(b + 1) * features + k] += w * (slope * own[k] + 2 * step);
    }
  }
  return value;
}

/* All bins have rows, in the batch or in the setting's surrogate; labels are bins. */
static double srl_reference(const struct rows_setting *setting, const struct rows_case *batch, double coefficient,
                            double *grad) {
  const struct srl_options *options = &setting->srl;
  int64_t rows = batch->samples * batch->views;
  int features = batch->features, bins = options->bins;
  double *q = normalised(batch), *c = calloc((size_t)bins * (size_t)features, sizeof *c), count[bins], norm[bins],
         p[bins];
  double *on_c = calloc((size_t)bins * (size_t)features, sizeof *on_c), value;
  srl_surrogate(setting, batch, q, c, count, norm);
  value = srl_on_surrogate(setting, features, c, on_c);
  for (int64_t i = 0; i < rows; i++) {
    int bin = (int)label_of(batch, i)[0];
    double sum = 0, along = dot(features, on_c + bin * features, c + bin * features);
    for (int b = 0; b < bins; b++)
      sum += p[b] = exp(dot(features, q + i * features, c + b * features) / options->temperature);
    value -= options->weight_contrastive * log(p[bin] / sum) / (double)rows;
    for (int k = 0; k < features; k++) {
      double pull = 0;
      for (int b = 0; b < bins; b++)
        pull += (p[b] / sum - (b == bin)) * c[b * features + k];
      grad[i * features + k] =
          coefficient * (options->weight_contrastive / options->temperature / (double)rows * pull +
                         (on_c[bin * features + k] - along * c[bin * features + k]) / norm[bin] / count[bin]);
    }
  }
  through_norms(batch, q, grad);
  free(q);
  free(c);
  free(on_c);
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
  case ROWS_SRL:
    return srl_reference(setting, batch, coefficient, grad);
  }
  return NAN;
}
