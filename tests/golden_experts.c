/* Stored losses and votes of UVOTE's experts. */
#include "tests/golden_experts.h"

#include "loss/metrics.h"
#include "loss/uncertainty.h"
#include "loss/uvote.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must(enum status status, const char *name) {
  cr_assert(eq(int, status, STATUS_OK), "%s: %s", name, status_message());
}

/* float32 outputs are rounded, so that a loss of values near 1 is off by a few of its units. */
static double tolerance_of(enum dtype dtype) {
  return dtype == F32 ? 2e-6 : 1e-12;
}

static void expect(const char *name, const char *what, enum dtype dtype, double error) {
  cr_expect(le(dbl, error, tolerance_of(dtype)), "%s, %s, %s: error %g", name, dtype_name(dtype), what, error);
}

/* --- the layout of outputs ---------------------------------------------------------------------------------- */

/* Arrays of a case are [experts, rows], or [rows] of a single one; outputs are [rows, 2, experts]. */
static void *join(int experts, enum dtype dtype, const struct golden_array *mu, const struct golden_array *log_scale) {
  int64_t rows = mu->count / experts;
  void *output = malloc((size_t)(2 * mu->count) * dtype_size(dtype));
  for (int64_t row = 0; row < rows; row++)
    for (int e = 0; e < experts; e++) {
      dtype_put(dtype, output, row * 2 * experts + e, mu->data[e * rows + row]);
      dtype_put(dtype, output, row * 2 * experts + experts + e, log_scale->data[e * rows + row]);
    }
  return output;
}

/* [experts, rows] to [rows, experts]. */
static void *turn(int experts, enum dtype dtype, const struct golden_array *array) {
  int64_t rows = array->count / experts;
  void *turned = malloc((size_t)array->count * dtype_size(dtype));
  for (int64_t i = 0; i < array->count; i++)
    dtype_put(dtype, turned, i % rows * experts + i / rows, array->data[i]);
  return turned;
}

static struct uvote read_uvote(const struct golden_file *file, const char *name) {
  char variant[32];
  struct uvote uvote = uvote_default((int)golden_number(file, name, "experts", 1));
  uvote.low = golden_number(file, name, "clamp_low", uvote.low);
  uvote.high = golden_number(file, name, "clamp_high", uvote.high);
  uvote.dynamic = golden_number(file, name, "dynamic_loss", 1) != 0;
  golden_text(file, name, "variant", "agedb", variant, sizeof variant);
  must(uvote_schedule_by_name(variant, &uvote.schedule), name);
  must(uvote_check(&uvote), name);
  return uvote;
}

/* --- loss --------------------------------------------------------------------------------------------------- */

static void read_coefficients(const struct golden_file *file, const char *name, const struct uvote *uvote,
                              double *coefficient) {
  coefficient[0] = 1;
  if (!golden_has(file, name, "coefficients"))
    return;
  struct golden_array stored = golden_read(file, name, "coefficients");
  cr_assert(eq(i64, stored.count, uvote->experts), "%s", name);
  uvote_coefficients(uvote, (int64_t)golden_number(file, name, "epoch", NAN),
                     (int64_t)golden_number(file, name, "epochs", NAN), coefficient);
  expect(name, "coefficients", F64, golden_array_error(F64, stored.count, coefficient, stored.data));
  golden_free(&stored);
}

static void check_loss(const struct golden_file *file, const char *name, enum dtype dtype) {
  struct uvote uvote = read_uvote(file, name);
  struct golden_array mu = golden_read(file, name, "mu"), log_scale = golden_read(file, name, "log_scale"),
                      target = golden_read(file, name, "target"), weights = golden_read(file, name, "weights"),
                      grad_mu = golden_read(file, name, "grad_mu"),
                      grad_log_scale = golden_read(file, name, "grad_log_scale");
  int64_t rows = target.count;
  double coefficient[UVOTE_MOST_EXPERTS], value;
  bool weighted = golden_number(file, name, "weights_given", 1) != 0;
  read_coefficients(file, name, &uvote, coefficient);
  void *output = join(uvote.experts, dtype, &mu, &log_scale), *labels = golden_buffer(&target, dtype),
       *weight = turn(uvote.experts, dtype, &weights), *gradient = join(uvote.experts, F64, &grad_mu, &grad_log_scale);
  uvote_loss(&uvote, dtype, rows, 1, output, labels, weighted ? weight : NULL, coefficient, rows, output, &value);
  expect(name, "loss", dtype, golden_scalar_error(value, golden_scalar(file, name, "loss")));
  expect(name, "gradient", dtype, golden_array_error(dtype, 2 * mu.count, output, gradient));
  struct golden_array *arrays[] = {&mu, &log_scale, &target, &weights, &grad_mu, &grad_log_scale};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
    golden_free(arrays[i]);
  void *blocks[] = {output, labels, weight, gradient};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
    free(blocks[i]);
}

/* --- votes -------------------------------------------------------------------------------------------------- */

static const char *const groups[] = {"overall", "many", "median", "low"};

/* MSE, L1, G-Mean of some rows. */
static void expect_metrics(const struct golden_file *file, const char *name, const char *vote, int group, int64_t rows,
                           const double *labels, const double *pred) {
  char path[100];
  struct metrics_options options = metrics_options_default();
  struct metrics *metrics;
  struct metrics_table table;
  snprintf(path, sizeof path, "%s/%s_mse_l1_gmean", vote, groups[group]);
  struct golden_array stored = golden_read(file, name, path);
  must(metrics_create(&options, F64, 0, 1, NULL, &metrics), name);
  must(metrics_compute(metrics, F64, rows, labels, pred, &table), name);
  const struct metrics_row *all = &table.row[METRICS_ALL];
  const double got[] = {all->mse, all->mae, all->gmean};
  expect(name, path, F64, golden_array_error(F64, 3, got, stored.data));
  metrics_destroy(&metrics);
  golden_free(&stored);
}

/* The rows of a shot class (0, 1, 2), or all, and what is found of them. */
static void check_groups(const struct golden_file *file, const char *name, const char *vote,
                         const struct golden_array *target, const double *pred, const double *deviation) {
  char path[100];
  snprintf(path, sizeof path, "%s/uce_overall_many_median_low", vote);
  struct golden_array shot = golden_read(file, name, "shot_class"), stored = golden_read(file, name, path);
  double *some = malloc(3 * (size_t)target->count * sizeof *some), got[4];
  for (int group = 0; group < 4; group++) {
    double *labels = some, *answers = some + target->count, *deviations = some + 2 * target->count;
    int64_t rows = 0;
    for (int64_t i = 0; i < target->count; i++) {
      if (group > 0 && (int)shot.data[i] != group - 1)
        continue;
      labels[rows] = target->data[i];
      answers[rows] = pred[i];
      deviations[rows++] = deviation[i];
    }
    expect_metrics(file, name, vote, group, rows, labels, answers);
    got[group] = uncertainty_calibration(F64, rows, answers, labels, F64, deviations);
  }
  expect(name, path, F64, golden_array_error(F64, 4, got, stored.data));
  free(some);
  golden_free(&stored);
  golden_free(&shot);
}

static void check_vote(const struct golden_file *file, const char *name, const char *vote, enum dtype dtype) {
  struct uvote uvote = read_uvote(file, name);
  char path[100];
  enum uvote_vote kind;
  must(uvote_vote_by_name(vote, &kind), name);
  snprintf(path, sizeof path, "%s/pred", vote);
  struct golden_array stored_pred = golden_read(file, name, path);
  snprintf(path, sizeof path, "%s/std", vote);
  struct golden_array stored_std = golden_read(file, name, path);
  struct golden_array mu = golden_read(file, name, "mu"), log_scale = golden_read(file, name, "log_scale"),
                      target = golden_read(file, name, "target");
  void *output = join(uvote.experts, dtype, &mu, &log_scale), *labels = golden_buffer(&target, dtype),
       *pred = golden_buffer(&target, dtype), *scale = golden_buffer(&target, dtype);
  double *deviation = malloc((size_t)target.count * sizeof *deviation);
  uvote_answer(&uvote, kind, dtype, target.count, 1, output, kind == UVOTE_ORACLE ? labels : NULL, pred, scale);
  for (int64_t i = 0; i < target.count; i++)
    deviation[i] = uvote_deviation(dtype_get(dtype, scale, i));
  expect(name, vote, dtype, golden_array_error(dtype, target.count, pred, stored_pred.data));
  expect(name, path, dtype, golden_array_error(F64, target.count, deviation, stored_std.data));
  if (dtype == F64)
    check_groups(file, name, vote, &target, pred, deviation);
  struct golden_array *arrays[] = {&stored_pred, &stored_std, &mu, &log_scale, &target};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
    golden_free(arrays[i]);
  void *blocks[] = {output, labels, pred, scale, deviation};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
    free(blocks[i]);
}

static void check_votes(const struct golden_file *file, const char *name, enum dtype dtype) {
  struct golden_names members = golden_members(file, name, "");
  int votes = 0;
  for (int i = 0; i < members.count; i++) {
    char path[100];
    snprintf(path, sizeof path, "%s/pred", members.name[i]);
    if (!golden_has(file, name, path))
      continue;
    check_vote(file, name, members.name[i], dtype);
    votes++;
  }
  cr_assert(votes > 0, "%s: no vote", name);
  golden_free_names(&members);
}

bool golden_experts_check(const struct golden_file *file, const char *name, const char *kind) {
  bool loss = strcmp(kind, "nll") == 0 || strcmp(kind, "total") == 0;
  if (!loss && strcmp(kind, "combine") != 0)
    return false;
  for (enum dtype dtype = F32; dtype <= F64; dtype++)
    (loss ? check_loss : check_votes)(file, name, dtype);
  return true;
}
