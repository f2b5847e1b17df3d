/* Regularisers on gathered rows, on any number of ranks.
 *
 *   rank_rows golden METHOD       every stored case, in both precisions, whatever the shares
 *   rank_rows equal METHOD        plain loops in float64, one rank in float32, whatever the shares
 *   rank_rows finite METHOD       finite differences (RankSim's gradient is none of a function)
 *   rank_rows edges METHOD        no rows, one row, a row of norm 0, coinciding rows
 *   rank_rows nonfinite METHOD    a bad value is one sentence on all ranks
 *   rank_rows reuse METHOD        a batch that was seen before allocates nothing, and nothing is left
 *   rank_rows outside srl         a label without a bin is a sentence; bins without rows take no part
 *   rank_rows epochs srl          running means, and the state that keeps them
 *   rank_rows draws ranksim       one row a label, the same for any shares, by chance over steps
 *
 * Prints "MISFIT ..." and exits non-zero when something is wrong on any rank. */
#include "dist/memory.h"
#include "dist/random.h"
#include "tests/rows_cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int world_rank, world_size, misfits;

static void expect(int good, const char *what, double got, double limit) {
  if (good)
    return;
  printf("MISFIT %s: %g (limit %g), rank %d of %d\n", what, got, limit, world_rank, world_size);
  misfits++;
}

/* ---- settings of the methods ---- */

/* Ages of random batches are below 50, their ranks below 110. */
#define SRL_BINS 110
#define SRL_POINTS 300

static struct rows_setting setting_of(enum rows_method method) {
  struct rows_setting setting = {.method = method, .ranksim = {.lambda = 2}, .rnc = {.temperature = 2}};
  accon_options_default(&setting.accon);
  setting.accon.temperature = 0.2;
  srl_options_default(&setting.srl);
  setting.srl.bins = SRL_BINS;
  setting.srl.points = SRL_POINTS;
  setting.srl.weight_contrastive = 0.3;
  setting.srl.weight_enveloping = 2;
  setting.srl.weight_homogeneity = 0.1;
  return setting;
}

static const char *const names[] = {"ranksim", "rnc", "accon", "srl"};
static const char *const titles[] = {"RankSim", "RnC", "ACCon", "SRL"};
static const char *const files[] = {"ranksim.h5", "rnc.h5", "accon.h5", "srl.h5"};

static enum rows_method method_named(const char *name) {
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcmp(name, names[i]) == 0)
      return (enum rows_method)i;
  fprintf(stderr, "rank_rows: no method %s\n", name);
  MPI_Abort(MPI_COMM_WORLD, 2);
  return ROWS_RANKSIM;
}

/* ---- golden ---- */

/* One stored pair of value and gradient, in both precisions and all shares. */
static void check_stored(const struct rows_setting *setting, const struct rows_case *batch, const char *what,
                         double coefficient, double value, const double *grad, double value_limit, double grad_limit) {
  for (enum share share = SHARE_EVEN; share < SHARES; share++)
    for (enum dtype dtype = F32; dtype <= F64; dtype++) {
      struct rows_outcome got = rows_run(setting, batch, dtype, share, MPI_COMM_WORLD, coefficient);
      double limit = dtype == F32 ? 2e-5 : value_limit, error = golden_scalar_error(got.value, value);
      expect(got.status == STATUS_OK && error <= limit, what, error, limit);
      error = rows_grad_error(batch, got.grad, grad);
      limit = dtype == F32 ? 1e-4 : grad_limit;
      expect(error <= limit, what, error, limit);
      rows_outcome_free(&got);
    }
}

/* Published ranks are float32, hence 1e-6. */
static void golden_ranksim(const struct golden_file *file, const char *name, const struct rows_case *batch) {
  struct rows_setting setting = setting_of(ROWS_RANKSIM);
  setting.ranksim.lambda = golden_number(file, name, "interpolation_lambda", 2);
  double value = golden_scalar(file, name, "loss");
  struct golden_array one = golden_read(file, name, "grad_features_gamma1");
  struct golden_array hundred = golden_read(file, name, "grad_features_gamma100");
  check_stored(&setting, batch, name, 1, value, one.data, 1e-6, 1e-6);
  check_stored(&setting, batch, name, 100, value, hundred.data, 1e-6, 1e-6);
  golden_free(&one);
  golden_free(&hundred);
}

static void golden_rnc(const struct golden_file *file, const char *name, const struct rows_case *batch) {
  struct rows_setting setting = setting_of(ROWS_RNC);
  setting.rnc.temperature = golden_number(file, name, "temperature", 2);
  struct golden_array grad = golden_read(file, name, "grad_features");
  check_stored(&setting, batch, name, 1, golden_scalar(file, name, "loss"), grad.data, 1e-12, 1e-11);
  golden_free(&grad);
}

static void golden_accon(const struct golden_file *file, const char *name, const struct rows_case *batch) {
  struct rows_setting setting = setting_of(ROWS_ACCON);
  setting.accon.temperature = golden_number(file, name, "temperature", 1);
  setting.accon.base_temperature = golden_number(file, name, "base_temperature", 1);
  setting.accon.range = golden_number(file, name, "label_range", 100);
  setting.accon.tau = golden_number(file, name, "tau", 1e-6);
  struct golden_array published = golden_read(file, name, "grad_features");
  struct golden_array consistent = golden_read(file, name, "grad_features_consistent");
  check_stored(&setting, batch, name, 1, golden_scalar(file, name, "loss"), published.data, 1e-12, 1e-11);
  setting.accon.consistent = true;
  check_stored(&setting, batch, name, 1, golden_scalar(file, name, "loss_consistent"), consistent.data, 1e-12, 1e-11);
  golden_free(&published);
  golden_free(&consistent);
}

/* One of the terms alone. */
static struct rows_setting srl_term(struct rows_setting setting, double contrastive, double enveloping,
                                    double homogeneity, enum srl_homogeneity form) {
  setting.srl.weight_contrastive = contrastive;
  setting.srl.weight_enveloping = enveloping;
  setting.srl.weight_homogeneity = homogeneity;
  setting.srl.homogeneity = form;
  return setting;
}

static void golden_srl_batch(const struct golden_file *file, const char *name, const struct rows_case *batch,
                             const struct rows_setting *setting) {
  static const char *const terms[] = {"contrastive", "enveloping", "homogeneity_code"};
  for (int term = 0; term < 3; term++) {
    char value[64], slope[64];
    struct rows_setting one = srl_term(*setting, term == 0, term == 1, term == 2,
                                       golden_number(file, name, "code_alpha", -1) < 0 ? SRL_ATTRACT : SRL_REPEL);
    snprintf(value, sizeof value, "loss_%s", terms[term]);
    snprintf(slope, sizeof slope, "grad_features_%s", terms[term]);
    struct golden_array grad = golden_read(file, name, slope);
    check_stored(&one, batch, slope, 1, golden_scalar(file, name, value), grad.data, 1e-12, 1e-11);
    golden_free(&grad);
  }
}

/* The terms on the surrogate itself, by a batch that is it: a row for each bin.  What is stored is the gradient of a row
 * that is not normalised: its part across the row, over the row's norm, is that of the features. */
static void golden_srl_surrogate(const struct golden_file *file, const char *name, const struct golden_array *surrogate,
                                 const struct rows_setting *setting) {
  static const char *const values[] = {"enveloping_on_surrogate", "smooth_on_surrogate_alpha_minus1",
                                       "smooth_on_surrogate_alpha_plus1", "homogeneity_paper_on_surrogate"};
  static const char *const slopes[] = {"grad_surrogate_enveloping", "grad_surrogate_smooth_alpha_minus1",
                                       "grad_surrogate_smooth_alpha_plus1", "grad_surrogate_homogeneity_paper"};
  static const enum srl_homogeneity forms[] = {SRL_ATTRACT, SRL_ATTRACT, SRL_REPEL, SRL_PAPER};
  int bins = (int)surrogate->shape[0], features = (int)surrogate->shape[1];
  struct rows_case batch = rows_case_random(bins, 1, features, 1, LABELS_INTEGERS, 1);
  memcpy(batch.feature, surrogate->data, (size_t)surrogate->count * sizeof(double));
  for (int bin = 0; bin < bins; bin++)
    batch.label[bin] = bin;
  for (int term = 0; term < 4; term++) {
    struct rows_setting one = srl_term(*setting, 0, term == 0, term > 0, forms[term]);
    struct golden_array grad = golden_read(file, name, slopes[term]);
    for (int bin = 0; bin < bins; bin++) {
      double *row = grad.data + bin * features, along = 0, squares = 0;
      const double *unit = surrogate->data + bin * features;
      for (int k = 0; k < features; k++) {
        along += row[k] * unit[k];
        squares += unit[k] * unit[k];
      }
      expect(fabs(squares - 1) < 1e-12, "stored surrogates have unit rows", squares, 1);
      for (int k = 0; k < features; k++)
        row[k] -= along * unit[k];
    }
    check_stored(&one, &batch, slopes[term], 1, golden_scalar(file, name, values[term]), grad.data, 1e-12, 1e-11);
    golden_free(&grad);
  }
  rows_case_free(&batch);
}

static void golden_srl(const struct golden_file *file, const char *name, const struct rows_case *batch) {
  struct golden_array surrogate = golden_read(file, name, "surrogate"), points = golden_read(file, name, "points");
  struct rows_setting setting = setting_of(ROWS_SRL);
  setting.srl.temperature = golden_number(file, name, "temperature", 0.1);
  setting.srl.spread = golden_number(file, name, "smooth_beta", 0.1);
  setting.srl.bins = (int)surrogate.shape[0];
  setting.srl.points = (int)points.shape[0];
  setting.surrogate = surrogate.data;
  setting.points = points.data;
  golden_srl_batch(file, name, batch, &setting);
  golden_srl_surrogate(file, name, &surrogate, &setting);
  golden_free(&surrogate);
  golden_free(&points);
}

static void golden(enum rows_method method) {
  struct golden_file *file = golden_open(files[method]);
  for (int i = 0; i < golden_case_count(file); i++) {
    const char *name = golden_case_name(file, i);
    struct rows_case batch = rows_case_load(file, name);
    if (method == ROWS_RANKSIM)
      golden_ranksim(file, name, &batch);
    if (method == ROWS_RNC)
      golden_rnc(file, name, &batch);
    if (method == ROWS_ACCON)
      golden_accon(file, name, &batch);
    if (method == ROWS_SRL)
      golden_srl(file, name, &batch);
    rows_case_free(&batch);
    golden_ran(file);
  }
  if (world_rank == 0)
    golden_report(file);
  golden_close(&file);
}

/* ---- equal ---- */

static void check_equal(const struct rows_setting *setting, const struct rows_case *batch, const char *what) {
  double *grad = malloc((size_t)(batch->samples * batch->views * batch->features) * sizeof *grad + 1);
  double coefficient = 1.75, value = rows_reference(setting, batch, coefficient, grad);
  struct rows_outcome one = rows_run(setting, batch, F32, SHARE_EVEN, MPI_COMM_SELF, coefficient);
  expect(golden_scalar_error(one.value, value) <= 2e-5, what, golden_scalar_error(one.value, value), 2e-5);
  expect(rows_grad_error(batch, one.grad, grad) <= 1e-4, what, rows_grad_error(batch, one.grad, grad), 1e-4);
  /* Views of a rank's samples lie together, so with several of them the order of rows, and of all sums over rows, depends
   * on the shares: two such sums of roundings of 6e-8. */
  double limit = batch->views == 1 ? 1e-6 : fmax(1e-6, 2 * 6e-8 * sqrt((double)(batch->samples * batch->views)));
  for (enum share share = SHARE_EVEN; share < SHARES; share++) {
    struct rows_outcome exact = rows_run(setting, batch, F64, share, MPI_COMM_WORLD, coefficient);
    double error = golden_scalar_error(exact.value, value);
    expect(exact.status == STATUS_OK && error <= 1e-12, what, error, 1e-12);
    error = rows_grad_error(batch, exact.grad, grad);
    expect(error <= 1e-11, what, error, 1e-11);
    struct rows_outcome single = rows_run(setting, batch, F32, share, MPI_COMM_WORLD, coefficient);
    error = golden_scalar_error(single.value, one.value);
    expect(single.status == STATUS_OK && error <= 1e-6, what, error, 1e-6);
    error = rows_grad_error(batch, single.grad, one.grad);
    expect(error <= limit, what, error, limit);
    rows_outcome_free(&exact);
    rows_outcome_free(&single);
  }
  rows_outcome_free(&one);
  free(grad);
}

static void equal_on(const struct rows_setting *setting, int64_t samples, int views, int features, int targets,
                     enum labels labels) {
  char what[128];
  snprintf(what, sizeof what, "%s, %d samples, %d views, %d features, %d targets", titles[setting->method],
           (int)samples, views, features, targets);
  struct rows_case batch = rows_case_random(samples, views, features, targets, labels, 5);
  check_equal(setting, &batch, what);
  rows_case_free(&batch);
}

static void equal_accon(void) {
  struct rows_setting setting = setting_of(ROWS_ACCON);
  for (int consistent = 0; consistent < 2; consistent++) {
    setting.accon.consistent = consistent;
    equal_on(&setting, 30, 2, 8, 1, LABELS_AGES);
    equal_on(&setting, 110, 2, 12, 1, LABELS_INTEGERS);
    equal_on(&setting, 61, 1, 8, 1, LABELS_AGES); /* some have no positive */
  }
}

/* Unit rows [rows, features]; free(). */
static double *unit_rows(int rows, int features, uint64_t seed) {
  struct random_key key = random_key(seed, RANDOM_TEST, 21);
  double *unit = malloc((size_t)(rows * features) * sizeof *unit);
  for (int i = 0; i < rows; i++) {
    double squares = 0;
    for (int k = 0; k < features; k++) {
      unit[i * features + k] = random_normal(key, (uint64_t)i, (uint64_t)k);
      squares += unit[i * features + k] * unit[i * features + k];
    }
    for (int k = 0; k < features; k++)
      unit[i * features + k] = (double)(float)(unit[i * features + k] / sqrt(squares));
  }
  return unit;
}

static void equal_srl(void) {
  struct rows_setting setting = setting_of(ROWS_SRL);
  for (int form = SRL_ATTRACT; form <= SRL_PAPER; form++) {
    double *surrogate = unit_rows(SRL_BINS, 8, 1), *points = unit_rows(SRL_POINTS, 8, 2);
    setting.srl.homogeneity = (enum srl_homogeneity)form;
    setting.surrogate = surrogate;
    setting.points = points;
    equal_on(&setting, 30, 2, 8, 1, LABELS_AGES);
    equal_on(&setting, 90, 1, 8, 1, LABELS_AGES);
    equal_on(&setting, 110, 1, 8, 1, LABELS_INTEGERS); /* every bin has a row in the batch */
    free(surrogate);
    free(points);
  }
}

static void equal(enum rows_method method) {
  struct rows_setting setting = setting_of(method);
  if (method == ROWS_RANKSIM) { /* the plain loops draw nothing: labels are distinct */
    equal_on(&setting, 37, 1, 8, 1, LABELS_REAL);
    equal_on(&setting, 110, 1, 12, 1, LABELS_INTEGERS);
    equal_on(&setting, 60, 1, 5, 2, LABELS_REAL);
  }
  if (method == ROWS_RNC) {
    equal_on(&setting, 30, 2, 8, 1, LABELS_AGES);
    equal_on(&setting, 37, 1, 8, 1, LABELS_REAL);
    equal_on(&setting, 110, 2, 12, 1, LABELS_INTEGERS);
    equal_on(&setting, 40, 2, 5, 3, LABELS_AGES);
    setting.rnc.temperature = 0.01; /* exponents beyond both types */
    equal_on(&setting, 40, 2, 5, 1, LABELS_AGES);
  }
  if (method == ROWS_ACCON)
    equal_accon();
  if (method == ROWS_SRL)
    equal_srl();
}

/* ---- finite differences ---- */

static void differences(enum rows_method method) {
  struct rows_setting setting = setting_of(method);
  struct rows_case batch = rows_case_random(35, 2, 6, 1, LABELS_AGES, 3);
  setting.srl.weight_contrastive = 0; /* the surrogate in it is held, so its gradient is not the value's */
  struct random_key key = random_key(5, RANDOM_TEST, 2);
  struct rows_outcome exact = rows_run(&setting, &batch, F64, SHARE_EVEN, MPI_COMM_WORLD, 3);
  for (uint64_t probe = 0; probe < 20; probe++) {
    int64_t at = (int64_t)(random_uniform(key, probe, 0) * 35 * 2 * 6);
    double kept = batch.feature[at], step = 1e-5, side[2];
    for (int i = 0; i < 2; i++) {
      batch.feature[at] = kept + (i ? step : -step);
      struct rows_outcome moved = rows_run(&setting, &batch, F64, SHARE_EVEN, MPI_COMM_WORLD, 3);
      side[i] = 3 * moved.value;
      rows_outcome_free(&moved);
    }
    batch.feature[at] = kept;
    double error = fabs((side[1] - side[0]) / (2 * step) - exact.grad[at]);
    expect(exact.status == STATUS_OK && error <= 1e-8, "finite difference", error, 1e-8);
  }
  rows_outcome_free(&exact);
  rows_case_free(&batch);
}

/* ---- edges ---- */

static void check_edge(const struct rows_setting *setting, struct rows_case *batch, const char *what) {
  check_equal(setting, batch, what);
  rows_case_free(batch);
}

static void rnc_edges(const struct rows_setting *setting) {
  struct rows_case batch = rows_case_far();
  check_edge(setting, &batch, "a mean of 200 norms");
  batch = rows_case_close(60, 16);
  check_edge(setting, &batch, "pairs of rows that are close");
}

/* Bins that never had a row take no part: the value is that of bins without gaps, and the paper's distances are over the
 * gaps. */
static void gaps(void) {
  struct rows_case wide = rows_case_random(33, 1, 8, 1, LABELS_INTEGERS, 15), narrow;
  for (int64_t i = 0; i < 33; i++)
    wide.label[i] = (double)(3 * (i % 11));
  narrow = rows_case_random(33, 1, 8, 1, LABELS_INTEGERS, 15);
  for (int64_t i = 0; i < 33; i++)
    narrow.label[i] = (double)(i % 11);
  for (int form = SRL_ATTRACT; form <= SRL_PAPER; form++) {
    struct rows_setting setting = setting_of(ROWS_SRL);
    setting.srl.homogeneity = (enum srl_homogeneity)form;
    setting.srl.bins = 31;
    struct rows_outcome got = rows_run(&setting, &wide, F64, SHARE_UNEVEN, MPI_COMM_WORLD, 1);
    setting.srl.bins = 11;
    setting.srl.weight_homogeneity /= form == SRL_PAPER ? 3 : 1;
    struct rows_outcome wanted = rows_run(&setting, &narrow, F64, SHARE_UNEVEN, MPI_COMM_WORLD, 1);
    double error = golden_scalar_error(got.value, wanted.value);
    expect(got.status == STATUS_OK && error <= 1e-12, "bins without rows take no part", error, 1e-12);
    error = rows_grad_error(&wide, got.grad, wanted.grad);
    expect(error <= 1e-11, "bins without rows take no part", error, 1e-11);
    rows_outcome_free(&got);
    rows_outcome_free(&wanted);
  }
  rows_case_free(&wide);
  rows_case_free(&narrow);
}

static void srl_edges(void) {
  struct rows_setting setting = setting_of(ROWS_SRL);
  for (int64_t samples = 0; samples <= 2; samples++)
    for (int form = SRL_ATTRACT; form <= SRL_PAPER; form++) {
      struct rows_case tiny = rows_case_random(samples, 1, 5, 1, LABELS_AGES, 1);
      setting.srl.homogeneity = (enum srl_homogeneity)form;
      for (int k = 0; k < 5 && samples == 2; k++)
        tiny.feature[5 + k] = 0; /* its bin has no direction */
      struct rows_outcome got = rows_run(&setting, &tiny, F64, SHARE_UNEVEN, MPI_COMM_WORLD, 1);
      expect(got.status == STATUS_OK && isfinite(got.value), "0, 1 or 2 rows", got.value, 0);
      for (int64_t k = 0; k < samples * 5; k++)
        expect(isfinite(got.grad[k]) && (k < 5 || got.grad[k] == 0), "0, 1 or 2 rows", got.grad[k], 0);
      rows_outcome_free(&got);
      rows_case_free(&tiny);
    }
}

static void edges(enum rows_method method) {
  struct rows_setting setting = setting_of(method);
  if (method == ROWS_SRL) {
    srl_edges();
    return;
  }
  for (int64_t samples = 0; samples <= 2; samples++) {
    struct rows_case tiny = rows_case_random(samples, 1, 5, 1, LABELS_REAL, 1);
    check_edge(&setting, &tiny, "0, 1 or 2 rows");
  }
  struct rows_case batch = rows_case_random(30, 1, 6, 1, LABELS_REAL, 2);
  for (int k = 0; k < 6; k++) {
    batch.feature[3 * 6 + k] = 0;
    batch.feature[12 * 6 + k] = batch.feature[13 * 6 + k];
  }
  check_edge(&setting, &batch, "a row of norm 0 and two that coincide");
  if (method == ROWS_RNC)
    rnc_edges(&setting);
  batch = rows_case_random(20, 1, 8, 1, LABELS_AGES, 14);
  for (int64_t i = 0; i < 20; i++)
    batch.label[i] = 7;
  if (method != ROWS_RANKSIM) /* which would draw one of them */
    check_edge(&setting, &batch, "equal labels");
}

/* ---- a bad value ---- */

static void expect_sentence(const struct rows_setting *setting, const struct rows_case *batch, const char *part) {
  for (enum dtype dtype = F32; dtype <= F64; dtype++) {
    struct rows_outcome got = rows_run(setting, batch, dtype, SHARE_EVEN, MPI_COMM_WORLD, 1);
    int good = got.status != STATUS_OK && strstr(status_message(), part) != NULL && status_agreed();
    expect(good, part, (double)got.status, 0);
    if (!good)
      printf("  said: %s\n", status_message());
    rows_outcome_free(&got);
  }
}

static void nonfinite(enum rows_method method) {
  struct rows_setting setting = setting_of(method);
  struct rows_case batch = rows_case_random(24, 1, 5, 1, LABELS_AGES, 8);
  int64_t first = 24 * (world_size - 1) / world_size;
  static const double bad[] = {NAN, INFINITY, -INFINITY};
  char label[128], feature[128];
  snprintf(label, sizeof label, "%s: a label of row 2 on rank %d", titles[method], world_size - 1);
  snprintf(feature, sizeof feature, "%s: a feature of row 2 on rank %d", titles[method], world_size - 1);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    double kept = batch.label[first + 2];
    batch.label[first + 2] = bad[i];
    expect_sentence(&setting, &batch, label);
    batch.label[first + 2] = kept;
    kept = batch.feature[(first + 2) * 5 + 1];
    batch.feature[(first + 2) * 5 + 1] = bad[i];
    expect_sentence(&setting, &batch, feature);
    batch.feature[(first + 2) * 5 + 1] = kept;
  }
  rows_case_free(&batch);
}

/* ---- bins of SRL ---- */

static void outside(void) {
  struct rows_setting setting = setting_of(ROWS_SRL);
  static const double labels[] = {-0.75, 110, 1e30};
  for (size_t i = 0; i < sizeof labels / sizeof *labels; i++) {
    char part[64];
    struct rows_case batch = rows_case_random(24, 1, 5, 1, LABELS_AGES, 8);
    batch.label[23] = (double)(float)labels[i];
    snprintf(part, sizeof part, "SRL: the label %g is outside", batch.label[23]);
    expect_sentence(&setting, &batch, part);
    rows_case_free(&batch);
  }
  gaps();
}

#define EPOCH_BINS 4

/* An epoch of one batch and one of two, on this rank alone. */
static void epochs(void) {
  struct srl_options options;
  struct srl *srl = NULL, *other = NULL;
  struct comm *comm = NULL;
  double *state, *copy, value[2], grad[4 * 2], z[2][4 * 2] = {{3, 4, 1, 0, 0, 2, 1, 1}, {0, 5, 6, 8, 2, 0, 2, 0}};
  double labels[2][4] = {{0, 0, 1, 2}, {0, 1, 2, 2}};
  size_t count;
  int64_t rows_of_rank[1] = {4};
  srl_options_default(&options);
  options.bins = EPOCH_BINS;
  options.momentum = 0.75;
  int failed = comm_create(MPI_COMM_SELF, &comm) || srl_create(&options, 2, 1, F64, &srl) ||
               srl_create(&options, 2, 1, F64, &other);
  struct gathered gathered = {.comm = comm,
                              .dtype = F64,
                              .features = 2,
                              .targets = 1,
                              .rows = 4,
                              .own = 4,
                              .rows_of_rank = rows_of_rank,
                              .views = 1};
  for (int epoch = 0; epoch < 2 && !failed; epoch++) {
    for (int batch = 0; batch <= epoch; batch++) {
      gathered.z = z[batch];
      gathered.labels = labels[batch];
      failed = failed || srl_loss(srl, &gathered, 1, grad, &value[0]);
    }
    srl_end_epoch(srl);
  }
  expect(!failed, "two epochs", failed, 0);
  if (failed)
    return;
  srl_state(srl, &state, &count);
  expect(count == 2 * (EPOCH_BINS * 2 + EPOCH_BINS), "numbers of the state", (double)count, 0);
  /* Bin 0: (.6, .8), (1, 0) in epoch 0; these and (0, 1) in epoch 1.  Bin 3 never has a row. */
  double first = 0.75 * 0.8 + 0.25 * 1.6 / 3, second = 0.75 * 0.4 + 0.25 * 1.8 / 3;
  expect(fabs(state[0] - first) < 1e-14 && fabs(state[1] - second) < 1e-14, "running mean", state[0], first);
  expect(state[EPOCH_BINS * 2] == 1 && state[EPOCH_BINS * 2 + 3] == 0, "bins that have one", state[EPOCH_BINS * 2], 1);
  srl_state(other, &copy, &count);
  memcpy(copy, state, count * sizeof *state);
  gathered.z = z[0];
  gathered.labels = labels[0];
  gathered.rows = gathered.own = rows_of_rank[0] = 2; /* bins 1 and 2 are stored ones */
  failed = srl_loss(srl, &gathered, 1, grad, &value[0]) || srl_loss(other, &gathered, 1, grad, &value[1]);
  expect(!failed && value[0] == value[1], "a restored state", value[1], value[0]);
  srl_destroy(&other);
  failed = srl_create(&options, 2, 1, F64, &other) || srl_loss(other, &gathered, 1, grad, &value[1]);
  expect(!failed && value[0] != value[1], "without the state it is another one", value[1], value[0]);
  srl_destroy(&srl);
  srl_destroy(&other);
  comm_destroy(&comm);
}

/* ---- reuse ---- */

/* What a gather of rows takes for itself while it lasts. */
static size_t bytes_of_gather(void) {
  struct comm *comm;
  int64_t rows_of_rank[] = {1};
  double own = 1, all = 0;
  if (comm_create(MPI_COMM_SELF, &comm) != STATUS_OK)
    MPI_Abort(MPI_COMM_WORLD, 1);
  size_t before = memory_in_use();
  memory_peak_reset();
  int failed = comm_gather_rows(comm, &own, rows_of_rank, sizeof own, &all) != STATUS_OK;
  size_t bytes = memory_peak() - before;
  comm_destroy(&comm);
  expect(!failed && all == own, "a gather", all, own);
  return bytes;
}

static void reuse(enum rows_method method) {
  size_t of_gather = bytes_of_gather();
  struct rows_setting setting = setting_of(method);
  struct rows_case batch = rows_case_random(301, 2, 6, 1, LABELS_AGES, 3);
  for (enum dtype dtype = F32; dtype <= F64; dtype++) {
    setting.used_before = false;
    struct rows_outcome fresh = rows_run(&setting, &batch, dtype, SHARE_EVEN, MPI_COMM_SELF, 2);
    setting.used_before = true;
    size_t before = memory_in_use();
    struct rows_outcome used = rows_run(&setting, &batch, dtype, SHARE_EVEN, MPI_COMM_SELF, 2);
    size_t bytes = (size_t)(301 * 2 * 6) * sizeof(double);
    expect(used.status == STATUS_OK && used.value == fresh.value, "the same value again", used.value, fresh.value);
    expect(memcmp(used.grad, fresh.grad, bytes) == 0, "the same bits again", 0, 0);
    expect(used.grown <= of_gather, "bytes allocated for a batch like one before", (double)used.grown,
           (double)of_gather);
    expect(fresh.bytes > 0 && fresh.bytes == used.bytes, "bytes of workspace", (double)used.bytes, (double)fresh.bytes);
    expect(memory_in_use() == before, "bytes left", (double)(memory_in_use() - before), 0);
    rows_outcome_free(&fresh);
    rows_outcome_free(&used);
  }
  rows_case_free(&batch);
}

/* ---- RankSim's draws ---- */

/* Does any entry of a row's gradient differ from 0? */
static int moved(const struct rows_case *batch, const double *grad, int64_t row) {
  for (int k = 0; k < batch->features; k++)
    if (grad[row * batch->features + k] != 0)
      return 1;
  return 0;
}

/* The value of the rows that got a gradient, taken alone in the order of their labels, is that of the batch. */
static void check_picked_alone(const struct rows_setting *setting, const struct rows_case *batch, int64_t labels,
                               const struct rows_outcome *got) {
  struct rows_case alone = rows_case_random(labels, 1, batch->features, 1, LABELS_REAL, 1);
  int64_t count = 0;
  for (int label = 0; label < 100; label++)
    for (int64_t row = 0; row < batch->samples * batch->views; row++)
      if (batch->label[row / batch->views] == label && moved(batch, got->grad, row) && count < labels) {
        alone.label[count] = label;
        memcpy(alone.feature + count++ * batch->features, batch->feature + row * batch->features,
               (size_t)batch->features * sizeof(double));
      }
  expect(count == labels, "one row of each label is picked", (double)count, (double)labels);
  struct rows_outcome own = rows_run(setting, &alone, F64, SHARE_EVEN, MPI_COMM_SELF, 100);
  expect(count == labels && own.value == got->value, "the picked rows alone", own.value, got->value);
  rows_outcome_free(&own);
  rows_case_free(&alone);
}

static void draws(void) {
  struct rows_setting setting = setting_of(ROWS_RANKSIM);
  struct rows_case batch = rows_case_random(36, 2, 10, 1, LABELS_AGES, 9);
  int picked[72] = {0}, twice = 0, never = 0;
  int64_t labels = 0, steps = 200;
  for (int64_t i = 0; i < 36; i++) /* 12 labels, 6 rows each */
    batch.label[i] = 30 + (double)(i % 12);
  labels = 12;
  for (batch.step = 0; batch.step < steps; batch.step++) {
    struct rows_outcome one = rows_run(&setting, &batch, F64, SHARE_EVEN, MPI_COMM_SELF, 100);
    int of_label[12] = {0};
    for (int64_t row = 0; row < 72; row++)
      if (moved(&batch, one.grad, row)) {
        picked[row]++;
        of_label[row / 2 % 12]++;
      }
    for (int label = 0; label < 12; label++)
      twice += of_label[label] > 1;
    if (batch.step < 3) {
      check_picked_alone(&setting, &batch, labels, &one);
      for (enum share share = SHARE_EVEN; share < SHARES; share++) {
        struct rows_outcome shared = rows_run(&setting, &batch, F64, share, MPI_COMM_WORLD, 100);
        double error = rows_grad_error(&batch, shared.grad, one.grad);
        expect(shared.value == one.value && error <= 1e-13, "the same rows are drawn for any shares", error, 1e-13);
        rows_outcome_free(&shared);
      }
    }
    rows_outcome_free(&one);
  }
  expect(twice == 0, "two rows of one label picked", twice, 0);
  /* Each row: 200 draws with chance 1/6, 33 +- 5.3; six deviations. */
  for (int row = 0; row < 72; row++)
    never += picked[row] < 3 || picked[row] > 65;
  expect(never == 0, "rows that are picked too rarely or too often", never, 0);
  rows_case_free(&batch);
}

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &world_rank);
  MPI_Comm_size(MPI_COMM_WORLD, &world_size);
  const char *property = argc == 3 ? argv[1] : "";
  enum rows_method method = method_named(argc == 3 ? argv[2] : "");
  if (strcmp(property, "golden") == 0)
    golden(method);
  else if (strcmp(property, "equal") == 0)
    equal(method);
  else if (strcmp(property, "finite") == 0)
    differences(method);
  else if (strcmp(property, "edges") == 0)
    edges(method);
  else if (strcmp(property, "nonfinite") == 0)
    nonfinite(method);
  else if (strcmp(property, "reuse") == 0)
    reuse(method);
  else if (strcmp(property, "outside") == 0)
    outside();
  else if (strcmp(property, "epochs") == 0)
    epochs();
  else if (strcmp(property, "draws") == 0)
    draws();
  else
    MPI_Abort(MPI_COMM_WORLD, 2);
  int any;
  MPI_Allreduce(&misfits, &any, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return any != 0;
}
