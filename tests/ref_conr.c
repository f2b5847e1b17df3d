/* ConR in plain double loops. */
#include "tests/ref_conr.h"

#include <math.h>
#include <stdlib.h>

static double distance(enum conr_distance kind, int targets, const double *a, const double *b) {
  double sum = 0;
  for (int k = 0; k < targets; k++) {
    double d = fabs(a[k] - b[k]);
    if (kind == CONR_EUCLIDEAN)
      sum += d * d;
    else
      sum = kind == CONR_MANHATTAN ? sum + d : fmax(sum, d);
  }
  return kind == CONR_EUCLIDEAN ? sqrt(sum) : sum;
}

static double norm(const double *row, int features) {
  double sum = 0;
  for (int k = 0; k < features; k++)
    sum += row[k] * row[k];
  return sqrt(sum);
}

/* What pair (i, j) is: its similarity, class and pushing weight seen from anchor i. */
struct pair {
  double s, push;
  int positive, negative;
};

static struct pair pair_of(const struct conr_options *o, const struct ref_batch *b, const double *q, int64_t i,
                           int64_t j) {
  struct pair pair = {0};
  if (i == j)
    return pair;
  double d = distance(o->distance, b->targets, b->label + i * b->targets, b->label + j * b->targets);
  double dp = distance(o->distance, b->targets, b->prediction + i * b->targets, b->prediction + j * b->targets);
  for (int k = 0; k < b->features; k++)
    pair.s += q[i * b->features + k] * q[j * b->features + k];
  pair.s /= o->t;
  pair.positive = d <= o->w;
  pair.negative = d > o->w && dp <= o->w;
  double weight = b->weight ? b->weight[i] : 1;
  pair.push = o->variant == CONR_DEPTH ? weight * o->e * d : weight * exp(o->e * d);
  return pair;
}

/* Anchor i: its term of the loss; adds G_ij / t to grad_q. */
static double anchor(const struct conr_options *o, const struct ref_batch *b, const double *q, int64_t i, int rows_only,
                     double *grad_q) {
  int64_t columns = b->rows + b->remembered;
  double positives = 0, negatives = 0, denominator = 0, mean = 0, similarity = 0;
  for (int64_t j = 0; j < columns; j++) {
    struct pair pair = pair_of(o, b, q, i, j);
    positives += pair.positive;
    negatives += pair.negative;
    similarity += pair.positive ? pair.s : 0;
    mean += pair.positive ? exp(pair.s) : 0;
    denominator += pair.positive ? exp(pair.s) : pair.negative ? pair.push * exp(pair.s) : 0;
  }
  if (positives == 0 || negatives == 0)
    return 0;
  if (o->variant != CONR_PAPER)
    denominator +=
        o->constant_rows > 0 ? o->constant_rows * (1 - positives / (double)columns) : (double)columns - positives;
  double weight = b->weight ? b->weight[i] : 1;
  double outer = o->variant == CONR_REFERENCE || o->outer_weights ? weight : 1;
  double a = outer / (double)b->rows, k = o->variant == CONR_DEPTH ? positives + 1 : positives;
  int of_mean = o->aggregate == CONR_LOG_OF_MEAN;
  for (int64_t j = 0; grad_q && j < columns; j++) {
    struct pair pair = pair_of(o, b, q, i, j);
    double g = 0;
    if (pair.positive)
      g = a * (positives / k * exp(pair.s) / denominator - (of_mean ? exp(pair.s) / mean : 1 / k));
    else if (pair.negative)
      g = a * positives / k * pair.push * exp(pair.s) / denominator;
    for (int c = 0; c < b->features; c++) {
      grad_q[i * b->features + c] += g / o->t * q[j * b->features + c];
      if (!rows_only && j < b->rows)
        grad_q[j * b->features + c] += g / o->t * q[i * b->features + c];
    }
  }
  return a * (positives / k * log(denominator) - (of_mean ? log(mean / positives) : similarity / k));
}

double ref_conr(const struct conr_options *options, const struct ref_batch *batch, int rows_only, double *grad) {
  size_t elements = (size_t)batch->rows * (size_t)batch->features;
  int64_t columns = batch->rows + batch->remembered;
  double *q = calloc((size_t)(columns * batch->features) + 1, sizeof *q), loss = 0;
  for (int64_t i = 0; i < columns; i++) {
    const double *row = batch->feature + i * batch->features;
    for (int k = 0; k < batch->features; k++)
      q[i * batch->features + k] = row[k] / fmax(norm(row, batch->features), 1e-12);
  }
  for (size_t i = 0; grad && i < elements; i++)
    grad[i] = 0;
  for (int64_t i = 0; i < batch->rows; i++)
    loss += anchor(options, batch, q, i, rows_only, grad);
  for (int64_t i = 0; grad && i < batch->rows; i++) {
    double *row = grad + i * batch->features, along = 0,
           size = norm(batch->feature + i * batch->features, batch->features);
    for (int k = 0; k < batch->features; k++)
      along += row[k] * q[i * batch->features + k];
    for (int k = 0; k < batch->features; k++)
      row[k] = size <= 1e-12 ? 0 : (row[k] - along * q[i * batch->features + k]) / size;
  }
  free(q);
  return loss;
}
