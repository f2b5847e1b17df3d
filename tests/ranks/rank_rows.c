/* Regularisers on gathered rows, on any number of ranks.
 *
 *   rank_rows golden METHOD       every stored case, in both precisions, whatever the shares
 *   rank_rows equal METHOD        plain loops in float64, one rank in float32, whatever the shares
 *   rank_rows finite METHOD       finite differences (RankSim's gradient is none of a function)
 *   rank_rows edges METHOD        no rows, one row, a row of norm 0, coinciding rows
 *   rank_rows nonfinite METHOD    a bad value is one sentence on all ranks
 *   rank_rows draws ranksim       one row a label, the same for any shares, by chance over steps
 *
 * Prints "MISFIT ..." and exits non-zero when something is wrong on any rank. */
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

static struct rows_setting setting_of(enum rows_method method) {
  struct rows_setting setting = {.method = method, .ranksim = {.lambda = 2}, .rnc = {.temperature = 2}};
  accon_options_default(&setting.accon);
  setting.accon.temperature = 0.2;
  return setting;
}

static const char *const names[] = {"ranksim", "rnc", "accon"};
static const char *const titles[] = {"RankSim", "RnC", "ACCon"};
static const char *const files[] = {"ranksim.h5", "rnc.h5", "accon.h5"};

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
}

/* ---- finite differences ---- */

static void differences(enum rows_method method) {
  struct rows_setting setting = setting_of(method);
  struct rows_case batch = rows_case_random(35, 2, 6, 1, LABELS_AGES, 3);
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

/* What would lose float32's digits: rows far from 0, and rows close to each other. */
static void rnc_edges(const struct rows_setting *setting) {
  struct rows_case batch = rows_case_random(60, 1, 16, 1, LABELS_AGES, 12);
  for (int64_t i = 0; i < 60 * 16; i++)
    batch.feature[i] = (double)(float)(batch.feature[i] + 50);
  check_edge(setting, &batch, "a mean of 200 norms");
  batch = rows_case_random(60, 1, 16, 1, LABELS_AGES, 13);
  for (int64_t i = 0; i < 30; i++)
    for (int k = 0; k < 16; k++)
      batch.feature[(i + 30) * 16 + k] =
          (double)(float)(batch.feature[i * 16 + k] + (i % 3 == 0 ? 1e-2 : 1e-4) * (double)(k - 7));
  check_edge(setting, &batch, "pairs of rows that are close");
}

static void edges(enum rows_method method) {
  struct rows_setting setting = setting_of(method);
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
  for (double label = 0; label < 100; label++)
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
  else if (strcmp(property, "draws") == 0)
    draws();
  else
    MPI_Abort(MPI_COMM_WORLD, 2);
  int any;
  MPI_Allreduce(&misfits, &any, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return any != 0;
}
