/* Evaluation metrics of imbalanced regression. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* qsort_r */
#endif
#include "loss/metrics.h"

#include "dist/memory.h"
#include "loss/label_bins.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GMEAN_EPS 1e-10

struct metrics {
  struct metrics_options options; /* bin_edges and shot_of_bin point to the copies below */
  int targets;
  double *edges;            /* [options.bins + 1], NULL without explicit bins       */
  enum metrics_group *shot; /* [options.bins], NULL without explicit classes         */
  int64_t keys;             /* distinct joint bins of the training labels            */
  double *key;              /* [keys, targets] bin indices, ascending tuples         */
  int64_t *count;           /* [keys] training rows in the bin                       */
};

struct metrics_options metrics_options_default(void) {
  return (struct metrics_options){.bin_width = 1, .many_over = 100, .few_under = 20, .gmean_rule = GMEAN_PLAIN};
}

const char *metrics_group_name(enum metrics_group group) {
  static const char *const names[METRICS_GROUPS] = {"all", "many", "median", "few"};
  return names[group];
}

static double load(enum dtype dtype, const void *data, int64_t i) {
  return dtype == F32 ? (double)((const float *)data)[i] : ((const double *)data)[i];
}

static enum status allocate(int64_t count, size_t size, void *out) {
  return memory_alloc((size_t)count * size, (void **)out);
}

/* ---- options ---- */

static enum status check_edges(const struct metrics_options *options, int targets) {
  REQUIRE(targets == 1, ERR_ARGUMENT, "bin edges are for labels of one component, these have %d; use a bin width",
          targets);
  REQUIRE(options->bins > 0, ERR_ARGUMENT, "%d bins; give at least one", options->bins);
  for (int b = 0; b < options->bins; b++) {
    double low = options->bin_edges[b], high = options->bin_edges[b + 1];
    REQUIRE(isfinite(low) && isfinite(high) && low < high, ERR_ARGUMENT,
            "bin edges %g and %g (number %d and the next) are not ascending", low, high, b);
  }
  for (int b = 0; options->shot_of_bin != NULL && b < options->bins; b++)
    REQUIRE(options->shot_of_bin[b] >= METRICS_ALL && options->shot_of_bin[b] < METRICS_GROUPS, ERR_ARGUMENT,
            "bin %d has the unknown shot class %d", b, (int)options->shot_of_bin[b]);
  return STATUS_OK;
}

static enum status check_options(const struct metrics_options *options, int64_t rows, int targets) {
  REQUIRE(rows >= 0 && targets > 0, ERR_ARGUMENT, "training labels of shape [%lld, %d]; every row needs a component",
          (long long)rows, targets);
  REQUIRE(options->few_under <= options->many_over + 1, ERR_ARGUMENT,
          "few means under %lld training samples and many over %lld: some counts would be both; lower the first",
          (long long)options->few_under, (long long)options->many_over);
  if (options->bins != 0 || options->bin_edges != NULL) {
    REQUIRE(options->bin_edges != NULL, ERR_ARGUMENT, "%d bins without edges; give %d ascending edges", options->bins,
            options->bins + 1);
    return check_edges(options, targets);
  }
  REQUIRE(options->shot_of_bin == NULL, ERR_ARGUMENT, "shot classes per bin need bin edges; give both");
  REQUIRE(isfinite(options->bin_width) && options->bin_width > 0, ERR_ARGUMENT, "bin width %g must be greater than 0",
          options->bin_width);
  return STATUS_OK;
}

static enum status check_finite(const char *what, const char *remedy, enum dtype dtype, int64_t rows, int targets,
                                const void *data) {
  for (int64_t i = 0; i < rows * targets; i++)
    REQUIRE(isfinite(load(dtype, data, i)), ERR_NUMERIC, "the %s of row %lld is %g (component %d); %s", what,
            (long long)(i / targets), load(dtype, data, i), (int)(i % targets), remedy);
  return STATUS_OK;
}

/* ---- bins ---- */

/* The last bin whose lower edge is not above the label. */
static double bin_by_edges(double label, const double *edges, int bins) {
  int low = 0, high = bins;
  while (high - low > 1) {
    int middle = low + (high - low) / 2;
    if (edges[middle] <= label)
      low = middle;
    else
      high = middle;
  }
  return low;
}

/* The joint bin of a label [targets] that starts at element `first`. */
static void find_key(const struct metrics *metrics, enum dtype dtype, const void *labels, int64_t first, double *key) {
  for (int k = 0; k < metrics->targets; k++) {
    double label = load(dtype, labels, first + k);
    key[k] = metrics->edges != NULL ? bin_by_edges(label, metrics->edges, metrics->options.bins)
                                    : label_bin(label, metrics->options.bin_width);
  }
}

static int compare_keys(const double *a, const double *b, int targets) {
  for (int k = 0; k < targets; k++)
    if (a[k] != b[k])
      return a[k] < b[k] ? -1 : 1;
  return 0;
}

static int compare_key_blocks(const void *a, const void *b, void *targets) {
  return compare_keys(a, b, *(const int *)targets);
}

/* Sort the keys of all training rows and keep each once, with its count. */
static enum status count_keys(struct metrics *metrics, int64_t rows) {
  int targets = metrics->targets;
  TRY(allocate(rows, sizeof *metrics->count, &metrics->count));
  qsort_r(metrics->key, (size_t)rows, (size_t)targets * sizeof *metrics->key, compare_key_blocks, &targets);
  for (int64_t row = 0; row < rows; row++) {
    double *own = metrics->key + row * targets, *next = metrics->key + metrics->keys * targets;
    if (metrics->keys > 0 && compare_keys(next - targets, own, targets) == 0) {
      metrics->count[metrics->keys - 1]++;
      continue;
    }
    memmove(next, own, (size_t)targets * sizeof *own);
    metrics->count[metrics->keys++] = 1;
  }
  return STATUS_OK;
}

static enum status copy_bins(struct metrics *metrics) {
  struct metrics_options *options = &metrics->options;
  if (options->bin_edges != NULL) {
    TRY(allocate(options->bins + 1, sizeof *metrics->edges, &metrics->edges));
    memcpy(metrics->edges, options->bin_edges, (size_t)(options->bins + 1) * sizeof *metrics->edges);
    options->bin_edges = metrics->edges;
  }
  if (options->shot_of_bin != NULL) {
    TRY(allocate(options->bins, sizeof *metrics->shot, &metrics->shot));
    memcpy(metrics->shot, options->shot_of_bin, (size_t)options->bins * sizeof *metrics->shot);
    options->shot_of_bin = metrics->shot;
  }
  return STATUS_OK;
}

enum status metrics_create(const struct metrics_options *options, enum dtype dtype, int64_t rows, int targets,
                           const void *train_labels, struct metrics **out) {
  *out = NULL;
  TRY(check_options(options, rows, targets));
  TRY(check_finite("training label", "remove the row from the data", dtype, rows, targets, train_labels));
  struct metrics *metrics;
  TRY(memory_alloc_zero(sizeof *metrics, (void **)&metrics));
  metrics->options = *options;
  metrics->targets = targets;
  enum status status;
  TRY_GOTO(copy_bins(metrics), failed);
  TRY_GOTO(allocate(rows * targets, sizeof *metrics->key, &metrics->key), failed);
  for (int64_t row = 0; row < rows; row++)
    find_key(metrics, dtype, train_labels, row * targets, metrics->key + row * targets);
  TRY_GOTO(count_keys(metrics, rows), failed);
  *out = metrics;
  return STATUS_OK;
failed:
  metrics_destroy(&metrics);
  return status;
}

void metrics_destroy(struct metrics **metrics) {
  if (*metrics == NULL)
    return;
  memory_free((void **)&(*metrics)->count);
  memory_free((void **)&(*metrics)->key);
  memory_free((void **)&(*metrics)->shot);
  memory_free((void **)&(*metrics)->edges);
  memory_free((void **)metrics);
}

static int64_t count_of_key(const struct metrics *metrics, const double *key) {
  int64_t low = 0, high = metrics->keys;
  while (low < high) {
    int64_t middle = low + (high - low) / 2;
    int order = compare_keys(metrics->key + middle * metrics->targets, key, metrics->targets);
    if (order == 0)
      return metrics->count[middle];
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return 0;
}

static enum metrics_group shot_of_key(const struct metrics *metrics, const double *key) {
  if (metrics->shot != NULL)
    return metrics->shot[(int)key[0]];
  int64_t count = count_of_key(metrics, key);
  if (count > metrics->options.many_over)
    return METRICS_MANY;
  return count < metrics->options.few_under ? METRICS_FEW : METRICS_MEDIAN;
}

enum metrics_group metrics_shot(const struct metrics *metrics, enum dtype dtype, const void *label) {
  double key[metrics->targets];
  find_key(metrics, dtype, label, 0, key);
  return shot_of_key(metrics, key);
}

int64_t metrics_training_count(const struct metrics *metrics, enum dtype dtype, const void *label) {
  double key[metrics->targets];
  find_key(metrics, dtype, label, 0, key);
  return count_of_key(metrics, key);
}

/* ---- one evaluation ---- */

/* One row's errors, sorted by joint bin so that a bin's rows are neighbours. */
struct scored {
  const double *key; /* [targets], into evaluation.key */
  int64_t row;
  enum metrics_group shot;
  double absolute, square, norm;
};

struct evaluation {
  const struct metrics *metrics;
  enum dtype dtype;
  int64_t rows;
  const void *labels, *predictions; /* borrowed, [rows, targets] */
  double *key;                      /* [rows, targets]            */
  struct scored *scored;            /* [rows], by bin, then row   */
  int64_t *member;                  /* [rows] scratch: rows of the group at hand         */
  double *x, *y;                    /* [rows] scratch: one component of those, or ranks  */
  int64_t *order;                   /* [rows] scratch: places in ascending order         */
};

static void evaluation_free(struct evaluation *e) {
  memory_free((void **)&e->order);
  memory_free((void **)&e->y);
  memory_free((void **)&e->x);
  memory_free((void **)&e->member);
  memory_free((void **)&e->scored);
  memory_free((void **)&e->key);
}

static enum status evaluation_allocate(struct evaluation *e) {
  TRY(allocate(e->rows * e->metrics->targets, sizeof *e->key, &e->key));
  TRY(allocate(e->rows, sizeof *e->scored, &e->scored));
  TRY(allocate(e->rows, sizeof *e->member, &e->member));
  TRY(allocate(e->rows, sizeof *e->x, &e->x));
  TRY(allocate(e->rows, sizeof *e->y, &e->y));
  return allocate(e->rows, sizeof *e->order, &e->order);
}

static int compare_scored(const void *left, const void *right, void *targets) {
  const struct scored *a = left, *b = right;
  int order = compare_keys(a->key, b->key, *(const int *)targets);
  return order != 0 ? order : (a->row > b->row) - (a->row < b->row);
}

static void score_rows(struct evaluation *e) {
  int targets = e->metrics->targets;
  for (int64_t row = 0; row < e->rows; row++) {
    double *key = e->key + row * targets, absolute = 0, square = 0;
    find_key(e->metrics, e->dtype, e->labels, row * targets, key);
    for (int64_t i = row * targets; i < (row + 1) * targets; i++) {
      double d = load(e->dtype, e->predictions, i) - load(e->dtype, e->labels, i);
      absolute += fabs(d);
      square += d * d;
    }
    e->scored[row] = (struct scored){.key = key, .row = row, .shot = shot_of_key(e->metrics, key)};
    e->scored[row].absolute = absolute / targets;
    e->scored[row].square = square / targets;
    e->scored[row].norm = targets == 1 ? absolute : sqrt(square);
  }
  qsort_r(e->scored, (size_t)e->rows, sizeof *e->scored, compare_scored, &targets);
}

static bool belongs(const struct scored *scored, enum metrics_group group) {
  return group == METRICS_ALL || scored->shot == group;
}

static double log_error(double error, enum gmean_rule rule) {
  if (rule == GMEAN_ADD_EPS)
    return log(error + GMEAN_EPS);
  return log(rule == GMEAN_REPLACE_ZERO && error == 0 ? GMEAN_EPS : error); /* log 0 = -inf makes the mean 0 */
}

/* Means over the rows of the group; lists those rows in e->member. */
static void sample_means(struct evaluation *e, enum metrics_group group, struct metrics_row *out) {
  double absolute = 0, square = 0, logs = 0, logs_eps = 0;
  int64_t count = 0;
  for (int64_t i = 0; i < e->rows; i++) {
    const struct scored *row = &e->scored[i];
    if (!belongs(row, group))
      continue;
    e->member[count++] = row->row;
    absolute += row->absolute;
    square += row->square;
    logs += log_error(row->norm, e->metrics->options.gmean_rule);
    logs_eps += log_error(row->norm, GMEAN_ADD_EPS);
  }
  double n = (double)count;
  *out = (struct metrics_row){.count = count, .mae = absolute / n, .mse = square / n, .rmse = sqrt(square / n)};
  out->gmean = exp(logs / n);
  out->gmean_eps = exp(logs_eps / n);
}

static bool same_bin(const struct evaluation *e, const struct scored *a, const struct scored *b) {
  return compare_keys(a->key, b->key, e->metrics->targets) == 0;
}

/* Means over the occupied bins of the group; a bin lies in one shot class as a whole. */
static void bin_means(const struct evaluation *e, enum metrics_group group, struct metrics_row *out) {
  double absolute = 0, square = 0;
  int64_t bins = 0;
  for (int64_t first = 0, next; first < e->rows; first = next) {
    const struct scored *bin = &e->scored[first];
    double bin_absolute = 0, bin_square = 0;
    for (next = first; next < e->rows && same_bin(e, &e->scored[next], bin); next++) {
      bin_absolute += e->scored[next].absolute;
      bin_square += e->scored[next].square;
    }
    if (!belongs(bin, group))
      continue;
    absolute += bin_absolute / (double)(next - first);
    square += bin_square / (double)(next - first);
    bins++;
  }
  out->bmae = absolute / (double)bins;
  out->bmse = square / (double)bins;
}

/* ---- correlations ---- */

static bool constant(int64_t n, const double *x) {
  for (int64_t i = 1; i < n; i++)
    if (x[i] != x[0])
      return false;
  return true;
}

static double mean(int64_t n, const double *x) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++)
    sum += x[i];
  return sum / (double)n;
}

/* Centred first, in a second pass: labels far from 0 would otherwise lose all digits.  NaN where undefined. */
static double correlation(int64_t n, const double *x, const double *y) {
  if (n < 2 || constant(n, x) || constant(n, y))
    return NAN;
  double mean_x = mean(n, x), mean_y = mean(n, y), xx = 0, yy = 0, xy = 0;
  for (int64_t i = 0; i < n; i++) {
    double dx = x[i] - mean_x, dy = y[i] - mean_y;
    xx += dx * dx;
    yy += dy * dy;
    xy += dx * dy;
  }
  double norms = sqrt(xx) * sqrt(yy);
  return norms > 0 ? fmax(-1, fmin(1, xy / norms)) : NAN;
}

static int compare_places(const void *a, const void *b, void *values) {
  double left = ((const double *)values)[*(const int64_t *)a], right = ((const double *)values)[*(const int64_t *)b];
  return (left > right) - (left < right);
}

/* Replace values by their ranks, 1 for the smallest; equal values share the average of theirs. */
static void rank_values(int64_t n, double *values, int64_t *order) {
  for (int64_t i = 0; i < n; i++)
    order[i] = i;
  qsort_r(order, (size_t)n, sizeof *order, compare_places, values);
  for (int64_t first = 0, next; first < n; first = next) {
    double tied = values[order[first]];
    for (next = first; next < n && values[order[next]] == tied; next++)
      ;
    for (int64_t i = first; i < next; i++)
      values[order[i]] = 0.5 * (double)(first + 1 + next);
  }
}

/* Of the rows in e->member, mean over components. */
static void correlations(struct evaluation *e, struct metrics_row *out) {
  int targets = e->metrics->targets;
  for (int k = 0; k < targets; k++) {
    for (int64_t i = 0; i < out->count; i++) {
      e->x[i] = load(e->dtype, e->predictions, e->member[i] * targets + k);
      e->y[i] = load(e->dtype, e->labels, e->member[i] * targets + k);
    }
    out->pearson += correlation(out->count, e->x, e->y) / targets;
    rank_values(out->count, e->x, e->order);
    rank_values(out->count, e->y, e->order);
    out->spearman += correlation(out->count, e->x, e->y) / targets;
  }
}

static void fill_row(struct evaluation *e, enum metrics_group group, struct metrics_row *out) {
  sample_means(e, group, out);
  if (out->count == 0) {
    double value = e->metrics->options.empty_is_zero ? 0 : NAN;
    *out = (struct metrics_row){0, value, value, value, value, value, value, value, value, value};
    return;
  }
  bin_means(e, group, out);
  correlations(e, out);
  if (out->count < 2 && e->metrics->options.empty_is_zero)
    out->pearson = out->spearman = 0;
}

enum status metrics_compute(const struct metrics *metrics, enum dtype dtype, int64_t rows, const void *labels,
                            const void *predictions, struct metrics_table *table) {
  struct evaluation e = {
      .metrics = metrics, .dtype = dtype, .rows = rows, .labels = labels, .predictions = predictions};
  REQUIRE(rows >= 0, ERR_BUG, "%lld rows to evaluate", (long long)rows);
  TRY(check_finite("label", "remove the row from the data", dtype, rows, metrics->targets, labels));
  TRY(check_finite("prediction", "training diverged: lower the learning rate", dtype, rows, metrics->targets,
                   predictions));
  enum status status;
  TRY_GOTO(evaluation_allocate(&e), out);
  score_rows(&e);
  for (int group = METRICS_ALL; group < METRICS_GROUPS; group++)
    fill_row(&e, (enum metrics_group)group, &table->row[group]);
out:
  evaluation_free(&e);
  return status;
}
