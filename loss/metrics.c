/* Evaluation metrics of imbalanced regression. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* qsort_r */
#endif
#include "loss/metrics.h"

#include "dist/memory.h"
#include "loss/label_bins.h"
#include "loss/metrics_places.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

static enum status check_finite(const char *what, enum dtype dtype, int64_t rows, int targets, const void *labels) {
  for (int64_t i = 0; i < rows * targets; i++)
    REQUIRE(isfinite(load(dtype, labels, i)), ERR_NUMERIC,
            "the %s of row %lld is %g (component %d); remove the row from the data", what, (long long)(i / targets),
            load(dtype, labels, i), (int)(i % targets));
  return STATUS_OK;
}

enum status metrics_bad_prediction(const struct metrics *metrics, int64_t at, double value) {
  return fail(
      ERR_NUMERIC, "the prediction of row %lld is %g (component %d); training diverged: lower the learning rate",
      (long long)(at / metrics->targets), isnan(value) ? NAN : value /* not "-nan" */, (int)(at % metrics->targets));
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
  TRY(check_finite("training label", dtype, rows, targets, train_labels));
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

int metrics_targets(const struct metrics *metrics) {
  return metrics->targets;
}

enum gmean_rule metrics_gmean_rule(const struct metrics *metrics) {
  return metrics->options.gmean_rule;
}

/* ---- the order of rows ---- */

struct placed {
  const double *key; /* [targets] */
  int32_t row;
  enum metrics_group shot;
};

static int compare_bins(const struct placed *a, const struct placed *b, int targets) {
  return a->shot != b->shot ? (a->shot > b->shot) - (a->shot < b->shot) : compare_keys(a->key, b->key, targets);
}

static int compare_placed(const void *left, const void *right, void *targets) {
  const struct placed *a = left, *b = right;
  int order = compare_bins(a, b, *(const int *)targets);
  return order != 0 ? order : (a->row > b->row) - (a->row < b->row);
}

/* Bins and groups, from rows in order. */
static void find_ranges(const struct placed *placed, int targets, struct metrics_places *places) {
  for (int group = METRICS_ALL; group < METRICS_GROUPS; group++)
    places->bins_of[group] = (struct metrics_range){0, 0};
  for (int64_t i = 0; i < places->rows; i++) {
    places->row[i] = placed[i].row;
    if (i > 0 && compare_bins(&placed[i - 1], &placed[i], targets) == 0)
      continue;
    struct metrics_range *bins = &places->bins_of[placed[i].shot];
    if (bins->next == 0)
      bins->first = places->bins;
    places->first[places->bins++] = (int32_t)i;
    bins->next = places->bins;
  }
  places->first[places->bins] = (int32_t)places->rows;
  places->bins_of[METRICS_ALL] = (struct metrics_range){0, places->bins};
}

enum status metrics_places_create(const struct metrics *metrics, enum dtype dtype, int64_t rows, const void *labels,
                                  struct metrics_places *places) {
  int targets = metrics->targets;
  double *key = NULL;
  struct placed *placed = NULL;
  enum status status;
  *places = (struct metrics_places){.rows = rows};
  REQUIRE(rows >= 0 && rows <= INT32_MAX, ERR_BUG, "%lld rows to evaluate", (long long)rows);
  TRY(check_finite("label", dtype, rows, targets, labels));
  TRY_GOTO(allocate(rows, sizeof *places->row, &places->row), out);
  TRY_GOTO(allocate(rows + 1, sizeof *places->first, &places->first), out);
  TRY_GOTO(allocate(rows * targets, sizeof *key, &key), out);
  TRY_GOTO(allocate(rows, sizeof *placed, &placed), out);
  for (int64_t row = 0; row < rows; row++) {
    double *own = key + row * targets;
    find_key(metrics, dtype, labels, row * targets, own);
    placed[row] = (struct placed){.key = own, .row = (int32_t)row, .shot = shot_of_key(metrics, own)};
  }
  qsort_r(placed, (size_t)rows, sizeof *placed, compare_placed, &targets);
  find_ranges(placed, targets, places);
out:
  memory_free((void **)&placed);
  memory_free((void **)&key);
  if (status != STATUS_OK)
    metrics_places_free(places);
  return status;
}

void metrics_places_free(struct metrics_places *places) {
  memory_free((void **)&places->first);
  memory_free((void **)&places->row);
}

/* ---- one evaluation ---- */

struct evaluation {
  const struct metrics *metrics;
  enum dtype dtype;
  const void *labels, *predictions; /* borrowed, [rows, targets] */
  struct metrics_places places;
  double *x, *y;        /* [rows] scratch: one component of a group's rows, or ranks  */
  int64_t *order;       /* [rows] scratch: places in ascending order                  */
  double *correlations; /* [targets, 2] of the group at hand: Pearson's and Spearman's */
};

static void evaluation_free(struct evaluation *e) {
  memory_free((void **)&e->correlations);
  memory_free((void **)&e->order);
  memory_free((void **)&e->y);
  memory_free((void **)&e->x);
  metrics_places_free(&e->places);
}

static enum status evaluation_allocate(struct evaluation *e) {
  TRY(allocate(e->places.rows, sizeof *e->x, &e->x));
  TRY(allocate(e->places.rows, sizeof *e->y, &e->y));
  TRY(allocate(e->places.rows, sizeof *e->order, &e->order));
  return allocate(e->metrics->targets, 2 * sizeof *e->correlations, &e->correlations);
}

static enum status check_predictions(const struct evaluation *e) {
  for (int64_t i = 0; i < e->places.rows * e->metrics->targets; i++) {
    double value = load(e->dtype, e->predictions, i);
    if (!isfinite(value))
      return metrics_bad_prediction(e->metrics, i, value);
  }
  return STATUS_OK;
}

static struct metrics_errors errors_of_row(const struct evaluation *e, int64_t row) {
  int targets = e->metrics->targets;
  double absolute = 0, square = 0;
  for (int64_t i = row * targets; i < (row + 1) * targets; i++) {
    double d = load(e->dtype, e->predictions, i) - load(e->dtype, e->labels, i);
    absolute += fabs(d);
    square += d * d;
  }
  return metrics_errors_of(e->metrics->options.gmean_rule, targets, absolute, square);
}

static struct metrics_sums sums_of_group(const struct evaluation *e, enum metrics_group group) {
  const struct metrics_places *places = &e->places;
  struct metrics_range bins = places->bins_of[group];
  struct metrics_sums sums = {0};
  for (int64_t bin = bins.first; bin < bins.next; bin++) {
    struct metrics_errors errors = {0};
    for (int64_t place = places->first[bin]; place < places->first[bin + 1]; place++) {
      struct metrics_errors row = errors_of_row(e, places->row[place]);
      metrics_errors_join(&errors, &row);
    }
    metrics_sums_add(&sums, &errors, places->first[bin + 1] - places->first[bin]);
  }
  return sums;
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
  return metrics_correlation(xx, yy, xy);
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
      values[order[i]] = metrics_rank(first, next);
  }
}

static void correlate_group(struct evaluation *e, enum metrics_group group) {
  struct metrics_range range = metrics_places_of(&e->places, group);
  int64_t count = range.next - range.first;
  int targets = e->metrics->targets;
  for (int k = 0; k < targets; k++) {
    for (int64_t i = 0; i < count; i++) {
      int64_t element = e->places.row[range.first + i] * targets + k;
      e->x[i] = load(e->dtype, e->predictions, element);
      e->y[i] = load(e->dtype, e->labels, element);
    }
    e->correlations[2 * k] = correlation(count, e->x, e->y);
    rank_values(count, e->x, e->order);
    rank_values(count, e->y, e->order);
    e->correlations[2 * k + 1] = correlation(count, e->x, e->y);
  }
}

/* ---- the table ---- */

void metrics_finish(const struct metrics *metrics, const struct metrics_places *places, enum metrics_group group,
                    const struct metrics_sums *sums, const double *correlations, struct metrics_row *out) {
  struct metrics_range range = metrics_places_of(places, group), bins_range = places->bins_of[group];
  int64_t count = range.next - range.first;
  double n = (double)count, bins = (double)(bins_range.next - bins_range.first);
  if (count == 0) {
    double value = metrics->options.empty_is_zero ? 0 : NAN;
    *out = (struct metrics_row){0, value, value, value, value, value, value, value, value, value};
    return;
  }
  *out = (struct metrics_row){.count = count,
                              .mae = sums->rows.absolute / n,
                              .mse = sums->rows.square / n,
                              .rmse = sqrt(sums->rows.square / n),
                              .gmean = exp(sums->rows.log / n),
                              .gmean_eps = exp(sums->rows.log_eps / n),
                              .bmae = sums->bin_absolute / bins,
                              .bmse = sums->bin_square / bins};
  for (int k = 0; k < metrics->targets; k++) {
    out->pearson += correlations[2 * k] / metrics->targets;
    out->spearman += correlations[2 * k + 1] / metrics->targets;
  }
  if (count < 2 && metrics->options.empty_is_zero)
    out->pearson = out->spearman = 0;
}

enum status metrics_compute(const struct metrics *metrics, enum dtype dtype, int64_t rows, const void *labels,
                            const void *predictions, struct metrics_table *table) {
  struct evaluation e = {.metrics = metrics, .dtype = dtype, .labels = labels, .predictions = predictions};
  TRY(metrics_places_create(metrics, dtype, rows, labels, &e.places));
  enum status status;
  TRY_GOTO(check_predictions(&e), out);
  TRY_GOTO(evaluation_allocate(&e), out);
  for (int group = METRICS_ALL; group < METRICS_GROUPS; group++) {
    struct metrics_sums sums = sums_of_group(&e, (enum metrics_group)group);
    correlate_group(&e, (enum metrics_group)group);
    metrics_finish(metrics, &e.places, (enum metrics_group)group, &sums, e.correlations, &table->row[group]);
  }
out:
  evaluation_free(&e);
  return status;
}
