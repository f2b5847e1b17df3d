/* Evaluation metrics against golden vectors of the published evaluation code, on the host and on a GPU or its
 * emulation. */
#include "loss/loss_ops.h"
#include "loss/metrics.h"
#include "tests/device_support.h"
#include "tests/emulated.h"
#include "tests/golden.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The predictions of one case and the results for them, in the precision the reference worked in. */
struct scores {
  const struct golden_file *file;
  const char *name;
  int64_t rows;
  enum dtype dtype;
  void *labels, *predictions; /* [rows] */
  struct metrics *metrics;
  struct metrics_table table;
  double tolerance; /* relative: 1e-12, or 2e-5 where the reference itself computed in float32 */
};

static struct scores read_scores(const struct golden_file *file, const char *name, double prediction_scale) {
  struct scores scores = {.file = file, .name = name};
  struct golden_array pred = golden_read(file, name, "pred"), label = golden_read(file, name, "label");
  scores.rows = pred.count;
  scores.dtype = pred.float32 ? F32 : F64;
  scores.tolerance = pred.float32 ? 2e-5 : 1e-12;
  for (int64_t i = 0; i < pred.count; i++)
    pred.data[i] *= prediction_scale;
  scores.predictions = golden_buffer(&pred, scores.dtype);
  scores.labels = golden_buffer(&label, scores.dtype);
  golden_free(&label);
  golden_free(&pred);
  return scores;
}

/* Where tables are computed; NULL = the host. */
static struct device *device;

/* Labels go to a device in double, whatever they were: the same numbers. */
static void compute_there(struct scores *scores) {
  const struct loss_ops *losses;
  struct metrics_device *there;
  size_t bytes = (size_t)scores->rows * dtype_size(scores->dtype);
  double *labels = malloc((size_t)scores->rows * sizeof *labels + 1);
  void *predictions;
  for (int64_t i = 0; i < scores->rows; i++)
    labels[i] = scores->dtype == F32 ? (double)((float *)scores->labels)[i] : ((double *)scores->labels)[i];
  MUST(loss_ops_open(device, &losses));
  MUST(device_alloc(device, bytes + 1, &predictions));
  MUST(device_copy(device, predictions, scores->predictions, bytes));
  MUST(losses->metrics_create(device, scores->metrics, scores->rows, labels, &there));
  MUST(losses->metrics_compute(there, scores->dtype, predictions, &scores->table));
  losses->metrics_destroy(&there);
  device_free(device, &predictions);
  free(labels);
}

static void compute(struct scores *scores) {
  if (device != NULL) {
    compute_there(scores);
    return;
  }
  cr_assert(eq(int,
               metrics_compute(scores->metrics, scores->dtype, scores->rows, scores->labels, scores->predictions,
                               &scores->table),
               STATUS_OK),
            "%s: %s", scores->name, status_message());
}

static void free_scores(struct scores *scores) {
  metrics_destroy(&scores->metrics);
  free(scores->predictions);
  free(scores->labels);
}

static void expect_close(const struct scores *scores, const char *what, double got, double expected) {
  cr_expect(le(dbl, golden_scalar_error(got, expected), scores->tolerance), "%s, %s: got %.17g, expected %.17g",
            scores->name, what, got, expected);
}

/* ---- ages: training counts per integer age ---- */

static struct metrics *metrics_of_counts(const struct golden_file *file, const char *name) {
  struct golden_array counts = golden_read(file, name, "train_counts");
  int64_t rows = 0, row = 0;
  for (int64_t age = 0; age < counts.count; age++)
    rows += (int64_t)counts.data[age];
  double *ages = malloc((size_t)rows * sizeof *ages);
  for (int64_t age = 0; age < counts.count; age++)
    for (int64_t i = 0; i < (int64_t)counts.data[age]; i++)
      ages[row++] = (double)age;
  struct metrics_options options = metrics_options_default();
  options.many_over = (int64_t)golden_number(file, name, "many_threshold", 100);
  options.few_under = (int64_t)golden_number(file, name, "low_threshold", 20);
  struct metrics *metrics;
  cr_assert(eq(int, metrics_create(&options, F64, rows, 1, ages, &metrics), STATUS_OK), "%s", status_message());
  free(ages);
  golden_free(&counts);
  return metrics;
}

static void check_shots(const struct scores *scores) {
  struct golden_array shot = golden_read(scores->file, scores->name, "shot_class"); /* 0 many, 1 median, 2 few */
  int64_t wrong = 0;
  for (int64_t i = 0; i < shot.count; i++) {
    const char *label = (const char *)scores->labels + (size_t)i * dtype_size(scores->dtype);
    wrong += (int)metrics_shot(scores->metrics, scores->dtype, label) != METRICS_MANY + (int)shot.data[i];
  }
  cr_expect(eq(i64, wrong, 0), "%s: shot classes", scores->name);
  golden_free(&shot);
}

static void check_triple(const struct scores *scores, const char *dataset, double mse, double mae, double gmean) {
  struct golden_array expected = golden_read(scores->file, scores->name, dataset);
  cr_assert(eq(i64, expected.count, 3));
  expect_close(scores, dataset, mse, expected.data[0]);
  expect_close(scores, dataset, mae, expected.data[1]);
  expect_close(scores, dataset, gmean, expected.data[2]);
  golden_free(&expected);
}

static void check_ages(const struct golden_file *file, const char *name) {
  static const char *const groups[METRICS_GROUPS] = {"overall", "many", "median", "low"};
  struct scores scores = read_scores(file, name, 1);
  scores.metrics = metrics_of_counts(file, name);
  compute(&scores);
  check_shots(&scores);
  for (int g = METRICS_ALL; g < METRICS_GROUPS; g++) {
    const struct metrics_row *row = &scores.table.row[g];
    char dataset[64];
    snprintf(dataset, sizeof dataset, "%s_mse_l1_gmean", groups[g]);
    check_triple(&scores, dataset, row->mse, row->mae, row->gmean);
    expect_close(&scores, "rmse", row->rmse * row->rmse, row->mse);
    if (g == METRICS_ALL)
      continue;
    snprintf(dataset, sizeof dataset, "balanced_%s_mse_l1_gmean", groups[g]);
    check_triple(&scores, dataset, row->bmse, row->bmae, row->gmean);
  }
  struct golden_array balanced = golden_read(file, name, "balanced_mse_mae");
  expect_close(&scores, "balanced MSE", scores.table.row[METRICS_ALL].bmse, balanced.data[0]);
  expect_close(&scores, "balanced MAE", scores.table.row[METRICS_ALL].bmae, balanced.data[1]);
  expect_close(&scores, "G-Mean + 1e-10", scores.table.row[METRICS_ALL].gmean_eps,
               golden_scalar(file, name, "overall_gmean_plus_1e10"));
  golden_free(&balanced);
  free_scores(&scores);
}

/* ---- sentence similarity: 50 bins of 0.1 with explicit shot lists ---- */

/* The published lists, one letter per bin (many, mediaN, few). */
static const char similarity_shots[] = "mfnfnfnfnfmfmfmfmfmfmfmfmfmnmfmfmfmnmnmfmfmfmfmfmm";

static struct metrics *similarity_metrics(const struct golden_file *file, const char *name) {
  int bins = (int)golden_number(file, name, "bins", 0);
  cr_assert(eq(sz, (size_t)bins, strlen(similarity_shots)), "%s: the published shot lists are for 50 bins", name);
  double edges[bins + 1];
  enum metrics_group shots[bins];
  for (int b = 0; b <= bins; b++) /* the reference's histogram has float32 edges: 0.3f is below 0.3 */
    edges[b] = (double)(float)(b * (golden_number(file, name, "label_range", 5) / bins));
  for (int b = 0; b < bins; b++)
    shots[b] = similarity_shots[b] == 'm' ? METRICS_MANY : similarity_shots[b] == 'n' ? METRICS_MEDIAN : METRICS_FEW;
  struct metrics_options options = metrics_options_default();
  options.gmean_rule = GMEAN_REPLACE_ZERO;
  options.empty_is_zero = true;
  options.bins = bins;
  options.bin_edges = edges;
  options.shot_of_bin = shots;
  struct metrics *metrics;
  cr_assert(eq(int, metrics_create(&options, F64, 0, 1, NULL, &metrics), STATUS_OK), "%s", status_message());
  return metrics;
}

static void check_columns(const struct scores *scores, const char *group, const struct metrics_row *row) {
  struct golden_array expected = golden_read(scores->file, scores->name, group);
  const double got[] = {row->mse, row->mae, row->gmean, row->pearson, row->spearman, (double)row->count};
  cr_assert(eq(i64, expected.count, 6));
  for (int i = 0; i < 6; i++)
    expect_close(scores, group, got[i], expected.data[i]);
  golden_free(&expected);
}

static void check_similarity(const struct golden_file *file, const char *name) {
  static const char *const groups[METRICS_GROUPS] = {"overall", "many", "medium", "few"};
  char columns[64];
  golden_text(file, name, "columns", "?", columns, sizeof columns);
  cr_assert(eq(str, columns, (char *)"mse,l1,gmean,pearson,spearman,count"), "%s", name);
  struct scores scores = read_scores(file, name, golden_number(file, name, "pred_scale", 1));
  scores.metrics = similarity_metrics(file, name);
  compute(&scores);
  for (int g = METRICS_ALL; g < METRICS_GROUPS; g++)
    check_columns(&scores, groups[g], &scores.table.row[g]);
  free_scores(&scores);
}

static int run_cases(struct golden_file *file) {
  int ran = 0;
  for (int i = 0; i < golden_case_count(file); i++) {
    const char *name = golden_case_name(file, i);
    if (golden_has(file, name, "depth")) {
      golden_skip(file, "depth-map metrics");
      continue;
    }
    if (golden_has(file, name, "train_counts"))
      check_ages(file, name);
    else
      check_similarity(file, name);
    golden_ran(file);
    ran++;
  }
  return ran;
}

Test(golden_metrics, tables_equal_the_published_evaluation) {
  struct golden_file *file = golden_open("metrics.h5");
  run_cases(file);
  golden_report(file);
  golden_close(&file);
}

Test(golden_metrics, tables_of_a_device_equal_the_published_evaluation) {
  if (!gpu_use())
    cr_skip("there is no emulated CUDA library");
  struct golden_file *file = golden_open("metrics.h5");
  MUST(device_open(0, &device));
  int ran = run_cases(file);
  cr_assert(ran > 0);
  printf("golden metrics.h5: %d cases run, on a device\n", ran);
  fflush(stdout);
  device_close(&device);
  golden_close(&file);
}
