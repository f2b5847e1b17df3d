/* Regularisers that a device computes, on any number of ranks, on rows that are gathered there.
 *
 *   rank_device_rows METHOD golden    every stored case whose labels have one component, whatever the shares
 *   rank_device_rows METHOD equal     plain loops in float64, in f32 and bf16, whatever the shares
 *   rank_device_rows METHOD edges     no rows, one row, a row of norm 0, coinciding rows, values that are not finite;
 *                                     of rnc also rows far from 0, near pairs, one label for all, and more
 *   rank_device_rows METHOD panels    more own rows than a panel takes, as the host has them
 *   rank_device_rows METHOD memory    N x D (of rnc three times), one panel, and a little a row; a batch seen before takes
 *                                     nothing
 *
 * METHOD is rnc or accon.  Without GPUs CONR_CUDA_LIBRARY names the emulation.  Ranks work on GPU number rank, modulo
 * their number. */
#include "dist/comm_device.h"
#include "dist/memory.h"
#include "loss/loss_ops.h"
#include "tests/rank_device.h"
#include "tests/rank_record.h"
#include "tests/rows_cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct comm *host, *data;
static struct device *device;
static const struct loss_ops *losses;

/* ---- one loss -------------------------------------------------------------------------------- */

static void *put(enum dtype dtype, const double *values, int64_t count) {
  void *here = calloc((size_t)count + 1, sizeof(double)), *there;
  for (int64_t i = 0; i < count; i++)
    dtype_put(dtype, here, i, values[i]);
  MUST(device_alloc(device, (size_t)count * dtype_size(dtype) + 1, &there));
  MUST(device_copy(device, there, here, (size_t)count * dtype_size(dtype)));
  MUST(device_wait(device));
  free(here);
  return there;
}

/* This rank's rows of a batch, and what grad holds before. */
struct own_rows {
  int64_t rows, first, rows_of_rank[64];
  int64_t *place; /* [all rows] */
  double *feature, *label, *before;
};

static struct own_rows own_rows_of(const struct rows_case *batch, enum share share, double before) {
  struct own_rows own = {0};
  int64_t samples_of_rank[64], all = batch->samples * batch->views, features = batch->features;
  own.first = batch->views * conr_share(share, batch->samples, record.rank, record.size, samples_of_rank);
  for (int rank = 0; rank < record.size; rank++)
    own.rows_of_rank[rank] = batch->views * samples_of_rank[rank];
  own.rows = own.rows_of_rank[record.rank];
  own.place = calloc((size_t)all + 1, sizeof *own.place);
  own.feature = calloc((size_t)(own.rows * features) + 1, sizeof(double));
  own.before = calloc((size_t)(own.rows * features) + 1, sizeof(double));
  own.label = calloc((size_t)own.rows + 1, sizeof(double));
  rows_place(batch, record.size, samples_of_rank, own.place);
  for (int64_t i = 0; i < own.rows; i++) {
    int64_t at = own.place[own.first + i];
    memcpy(own.feature + i * features, batch->feature + at * features, (size_t)features * sizeof(double));
    own.label[i] = batch->label[at / batch->views];
  }
  for (int64_t i = 0; i < own.rows * features; i++)
    own.before[i] = before;
  return own;
}

static void own_rows_free(struct own_rows *own) {
  free(own->place);
  free(own->feature);
  free(own->before);
  free(own->label);
}

/* The whole gradient, the same on all ranks; free(). */
static double *fetch(const struct rows_case *batch, const struct own_rows *own, enum dtype dtype, const void *grad) {
  int64_t features = batch->features, all = batch->samples * batch->views * features;
  double *whole = calloc((size_t)all + 1, sizeof *whole);
  void *here = calloc((size_t)(own->rows * features) + 1, sizeof(double));
  MUST(device_copy(device, here, grad, (size_t)(own->rows * features) * dtype_size(dtype)));
  MUST(device_wait(device));
  for (int64_t i = 0; i < own->rows * features; i++)
    whole[own->place[own->first + i / features] * features + i % features] = dtype_get(dtype, here, i) - own->before[i];
  MPI_Allreduce(MPI_IN_PLACE, whole, (int)all, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  free(here);
  return whole;
}

struct objects {
  struct rows_device *rows;
  struct rnc_device *rnc;
  struct accon_device *accon;
};

static struct objects create(const struct rows_setting *setting, const struct rows_case *batch,
                             enum precision precision) {
  struct objects objects = {0};
  enum dtype dtype = precision == PRECISION_BF16 ? BF16 : F32;
  MUST(losses->rows_create(device, data, dtype, batch->features, 1, &objects.rows));
  if (setting->method == ROWS_RNC)
    MUST(losses->rnc_create(device, data, dtype, batch->features, &setting->rnc, &objects.rnc));
  else
    MUST(losses->accon_create(device, data, precision, batch->features, &setting->accon, &objects.accon));
  return objects;
}

static void destroy(struct objects *objects) {
  losses->rnc_destroy(&objects->rnc);
  losses->accon_destroy(&objects->accon);
  losses->rows_destroy(&objects->rows);
}

static double run_with(struct objects *objects, const struct rows_case *batch, enum precision precision,
                       enum share share, double coefficient, double **grad) {
  enum dtype dtype = precision == PRECISION_BF16 ? BF16 : F32;
  struct own_rows own = own_rows_of(batch, share, dtype == F32 ? 0.5 : 0);
  struct lent_rows lent;
  void *blocks[] = {put(dtype, own.feature, own.rows * batch->features), put(F32, own.label, own.rows),
                    put(dtype, own.before, own.rows * batch->features)};
  MUST(losses->rows_collect(objects->rows, own.rows_of_rank, blocks[0], blocks[1], &lent));
  if (objects->rnc != NULL)
    MUST(losses->rnc_loss(objects->rnc, own.rows_of_rank, &lent, coefficient, blocks[2]));
  else
    MUST(losses->accon_loss(objects->accon, own.rows_of_rank, &lent, coefficient, blocks[0], blocks[2]));
  MUST(comm_device_wait(data));
  *grad = fetch(batch, &own, dtype, blocks[2]);
  for (int i = 0; i < 3; i++)
    device_free(device, &blocks[i]);
  own_rows_free(&own);
  return objects->rnc != NULL ? losses->rnc_value(objects->rnc) : losses->accon_value(objects->accon);
}

/* In all shares. */
static void check(const struct rows_setting *setting, const struct rows_case *batch, enum precision precision,
                  double coefficient, double value, const double *grad, const char *what) {
  /* As on the host: a distance just above RNC_NEAR has lost three digits of its square, 3e-5 of the pair's direction. */
  double value_limit = 2e-5, limit = 1e-4;
  if (precision == PRECISION_BF16) { /* the gradient is rounded to 8 bits; ACCon's products and coefficients, too */
    value_limit = setting->method == ROWS_RNC ? value_limit : 2e-2;
    limit = setting->method == ROWS_RNC ? 1e-4 + 1.0 / 256 : 5e-2;
  }
  struct objects objects = create(setting, batch, precision);
  for (enum share share = SHARE_EVEN; share < SHARES; share++) {
    double *got, found = run_with(&objects, batch, precision, share, coefficient, &got);
    double value_error = golden_scalar_error(found, value), error = rows_grad_error(batch, got, grad);
    EXPECT(value_error <= value_limit && error <= limit, "%s in %s, %s: value %.9g, wanted %.9g; gradient off by %g",
           what, precision_name(precision), share_names[share], found, value, error);
    free(got);
  }
  destroy(&objects);
}

/* ---- properties ------------------------------------------------------------------------------ */

static enum rows_method method;

static struct rows_setting setting_of(void) {
  struct rows_setting setting = {.method = method, .rnc = {.temperature = 2}};
  accon_options_default(&setting.accon);
  setting.accon.temperature = 0.2;
  return setting;
}

static void golden_accon(const struct golden_file *file, const char *name, const struct rows_case *batch) {
  struct rows_setting setting = setting_of();
  setting.accon.temperature = golden_number(file, name, "temperature", 1);
  setting.accon.base_temperature = golden_number(file, name, "base_temperature", 1);
  setting.accon.range = golden_number(file, name, "label_range", 100);
  setting.accon.tau = golden_number(file, name, "tau", 1e-6);
  for (int consistent = 0; consistent < 2; consistent++) {
    struct golden_array grad = golden_read(file, name, consistent ? "grad_features_consistent" : "grad_features");
    setting.accon.consistent = consistent;
    check(&setting, batch, PRECISION_F32, 1, golden_scalar(file, name, consistent ? "loss_consistent" : "loss"),
          grad.data, name);
    golden_free(&grad);
  }
}

static void golden_rnc(const struct golden_file *file, const char *name, const struct rows_case *batch) {
  struct rows_setting setting = setting_of();
  struct golden_array grad = golden_read(file, name, "grad_features");
  setting.rnc.temperature = golden_number(file, name, "temperature", 2);
  check(&setting, batch, PRECISION_F32, 1, golden_scalar(file, name, "loss"), grad.data, name);
  golden_free(&grad);
}

static void golden(void) {
  struct golden_file *file = golden_open(method == ROWS_RNC ? "rnc.h5" : "accon.h5");
  for (int i = 0; i < golden_case_count(file); i++) {
    const char *name = golden_case_name(file, i);
    struct rows_case batch = rows_case_load(file, name);
    if (batch.targets == 1) {
      (method == ROWS_RNC ? golden_rnc : golden_accon)(file, name, &batch);
      golden_ran(file);
    } else
      golden_skip(file, "labels of several components are the host's");
    rows_case_free(&batch);
  }
  if (record.rank == 0)
    golden_report(file);
  golden_close(&file);
}

/* Features as 16 bits hold them. */
static void shorten(struct rows_case *batch) {
  for (int64_t i = 0; i < batch->samples * batch->views * batch->features; i++)
    batch->feature[i] = (double)bf16_widen(bf16_round((float)batch->feature[i]));
}

static void check_batch(const struct rows_setting *setting, struct rows_case *batch, bool both, const char *what) {
  double *grad = calloc((size_t)(batch->samples * batch->views * batch->features) + 1, sizeof *grad);
  double coefficient = 1.75, value = rows_reference(setting, batch, coefficient, grad);
  check(setting, batch, PRECISION_F32, coefficient, value, grad, what);
  if (both) {
    shorten(batch);
    value = rows_reference(setting, batch, coefficient, grad);
    check(setting, batch, PRECISION_BF16, coefficient, value, grad, what);
  }
  free(grad);
  rows_case_free(batch);
}

static void equal_accon(void) {
  struct rows_setting setting = setting_of();
  for (int consistent = 0; consistent < 2; consistent++) {
    setting.accon.consistent = consistent;
    struct rows_case batch = rows_case_random(30, 2, 8, 1, LABELS_AGES, 5);
    check_batch(&setting, &batch, !consistent, "30 samples of 2 views");
    batch = rows_case_random(110, 2, 13, 1, LABELS_INTEGERS, 5);
    check_batch(&setting, &batch, true, "110 samples of 2 views, 13 features");
    batch = rows_case_random(161, 1, 8, 1, LABELS_AGES, 5); /* some have no positive */
    check_batch(&setting, &batch, !consistent, "161 samples");
  }
}

/* Rows of more features than a block has threads. */
static void equal_wide(void) {
  struct rows_setting setting = setting_of();
  struct rows_case batch = rows_case_random(40, 1, 300, 1, LABELS_AGES, 5);
  check_batch(&setting, &batch, false, "40 samples, 300 features");
}

/* The memory is that of the largest batch, the places in it are those of the batch at hand. */
static void small_after_large(void) {
  struct rows_setting setting = setting_of();
  struct rows_case large = rows_case_random(300, 1, 8, 1, LABELS_AGES, 5),
                   small = rows_case_random(37, 1, 8, 1, LABELS_REAL, 6);
  struct objects objects = create(&setting, &large, PRECISION_F32);
  double *grad = calloc(37 * 8, sizeof *grad), *got, wanted = rows_reference(&setting, &small, 1.75, grad);
  run_with(&objects, &large, PRECISION_F32, SHARE_EVEN, 1.75, &got);
  free(got);
  double found = run_with(&objects, &small, PRECISION_F32, SHARE_UNEVEN, 1.75, &got);
  double error = rows_grad_error(&small, got, grad);
  EXPECT(golden_scalar_error(found, wanted) <= 2e-5 && error <= 1e-4,
         "after a larger batch: value %.9g, wanted %.9g; gradient off by %g", found, wanted, error);
  free(got);
  free(grad);
  destroy(&objects);
  rows_case_free(&large);
  rows_case_free(&small);
}

/* Rows are longer than a block of threads, too. */
static void equal_rnc(void) {
  struct rows_setting setting = setting_of();
  struct rows_case batch = rows_case_random(30, 2, 8, 1, LABELS_AGES, 5);
  check_batch(&setting, &batch, true, "30 samples of 2 views");
  batch = rows_case_random(110, 2, 13, 1, LABELS_INTEGERS, 5);
  check_batch(&setting, &batch, false, "110 samples of 2 views, 13 features");
  batch = rows_case_random(261, 1, 37, 1, LABELS_REAL, 5);
  check_batch(&setting, &batch, false, "261 samples of distinct labels, 37 features");
  setting.rnc.temperature = 0.01;
  batch = rows_case_random(131, 2, 5, 1, LABELS_AGES, 5);
  check_batch(&setting, &batch, false, "exponentials that do not fit side by side");
}

static void equal(void) {
  (method == ROWS_RNC ? equal_rnc : equal_accon)();
  equal_wide();
  small_after_large();
}

static void rnc_edges(void) {
  struct rows_setting setting = setting_of();
  struct rows_case batch = rows_case_far();
  check_batch(&setting, &batch, true, "a mean of 200 norms");
  batch = rows_case_close(300, 16); /* so that a block's 256 threads come by them twice */
  check_batch(&setting, &batch, true, "pairs of rows that are close");
  batch = rows_case_close(40, 300);
  check_batch(&setting, &batch, false, "pairs of rows that are close, 300 features");
  batch = rows_case_random(20, 1, 8, 1, LABELS_AGES, 14);
  for (int64_t i = 0; i < 20; i++)
    batch.label[i] = 7;
  check_batch(&setting, &batch, true, "one label for all");
  batch = rows_case_random(40, 1, 8, 1, LABELS_AGES, 14);
  for (int64_t i = 0; i < 40; i++)
    batch.label[i] = (i % 2 ? 1e-6 : -1e9) * (double)(i % 5); /* -0 among them */
  check_batch(&setting, &batch, false, "labels of 0 and of -0, and far apart");
}

/* More own rows than a panel takes, against the host. */
static void panels(void) {
  struct rows_setting setting = setting_of();
  struct rows_case batch = rows_case_random(2056, 1, 8, 1, LABELS_AGES, 6);
  struct rows_outcome host_one = rows_run(&setting, &batch, F64, SHARE_EVEN, MPI_COMM_SELF, 1.75);
  struct objects objects = create(&setting, &batch, PRECISION_F32);
  double *grad, value = run_with(&objects, &batch, PRECISION_F32, SHARE_EVEN, 1.75, &grad);
  double value_error = golden_scalar_error(value, host_one.value), error = rows_grad_error(&batch, grad, host_one.grad);
  EXPECT(value_error <= 2e-5 && error <= 1e-4, "value %.9g, wanted %.9g; gradient off by %g", value, host_one.value,
         error);
  free(grad);
  destroy(&objects);
  rows_outcome_free(&host_one);
  rows_case_free(&batch);
}

static void nonfinite(bool label) {
  struct rows_setting setting = setting_of();
  struct rows_case batch = rows_case_random(20, 1, 6, 1, LABELS_AGES, 2);
  *(label ? &batch.label[7] : &batch.feature[7 * 6 + 2]) = NAN;
  struct objects objects = create(&setting, &batch, PRECISION_F32);
  double *grad, value = run_with(&objects, &batch, PRECISION_F32, SHARE_EVEN, 1, &grad);
  EXPECT(!isfinite(value), "the value of a row that is not finite is %g", value);
  free(grad);
  destroy(&objects);
  rows_case_free(&batch);
}

static void edges(void) {
  struct rows_setting setting = setting_of();
  for (int64_t samples = 0; samples <= 2; samples++) {
    struct rows_case tiny = rows_case_random(samples, 1, 5, 1, LABELS_REAL, 1);
    check_batch(&setting, &tiny, false, "0, 1 or 2 rows");
  }
  struct rows_case batch = rows_case_random(30, 1, 6, 1, LABELS_REAL, 2);
  for (int k = 0; k < 6; k++) {
    batch.feature[3 * 6 + k] = 0;
    batch.feature[12 * 6 + k] = batch.feature[13 * 6 + k];
  }
  check_batch(&setting, &batch, false, "a row of norm 0 and two that coincide");
  nonfinite(false);
  nonfinite(true);
  if (method == ROWS_RNC)
    rnc_edges();
}

static void memory(void) {
  const int64_t rows = 384, features = 128;
  struct rows_setting setting = setting_of();
  struct rows_case batch = rows_case_random(rows, 1, features, 1, LABELS_AGES, 3);
  size_t before = device_bytes(device);
  struct objects objects = create(&setting, &batch, PRECISION_F32);
  size_t products = device_bytes(device) - before;
  double *grad, value = run_with(&objects, &batch, PRECISION_F32, SHARE_EVEN, 1, &grad);
  size_t own = (size_t)(rows + record.size - 1) / (size_t)record.size, panel = (own + 127) / 128 * 128;
  size_t used = device_bytes(device) - before - products;
  size_t limit = 4 * (size_t)(rows * features) + 4 * panel * (size_t)(rows + features) + 100 * (size_t)rows;
  if (method == ROWS_RNC) /* about the mean, and the gradient; marks, sums of the panel's rows */
    limit += 8 * (size_t)(rows * features) + panel * (size_t)(rows / 8 + 4) + 16 * panel * (size_t)rows;
  EXPECT(used <= limit, "%zu bytes, more than %zu", used, limit);
  free(grad);
  size_t kept = device_bytes(device), kept_host = memory_in_use();
  double again = run_with(&objects, &batch, PRECISION_F32, SHARE_EVEN, 1, &grad);
  EXPECT(device_bytes(device) == kept && memory_in_use() == kept_host, "a second batch took memory");
  EXPECT(again == value, "%.17g, before %.17g", again, value);
  free(grad);
  destroy(&objects);
  EXPECT(device_bytes(device) == before, "%zu bytes are left", device_bytes(device) - before);
  rows_case_free(&batch);
}

/* ---------------------------------------------------------------------------------------------- */

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    void (*run)(void);
  } properties[] = {{"golden", golden}, {"equal", equal}, {"edges", edges}, {"panels", panels}, {"memory", memory}};
  bool found = false;
  rank_record_begin(&argc, &argv);
  record.name = argc > 2 ? argv[2] : "";
  EXPECT(argc > 2 && (strcmp(argv[1], "rnc") == 0 || strcmp(argv[1], "accon") == 0), "the method is rnc or accon");
  method = argc > 2 && strcmp(argv[1], "rnc") == 0 ? ROWS_RNC : ROWS_ACCON;
  rank_device_begin(&host, &device, &data, &losses);
  for (size_t i = 0; i < sizeof properties / sizeof *properties; i++)
    if (strcmp(record.name, properties[i].name) == 0) {
      found = true;
      properties[i].run();
    }
  EXPECT(found, "no sub-command is named \"%s\"", record.name);
  rank_device_end(&host, &device, &data);
  return rank_record_end();
}
