/* VIR against golden vectors: distributions, head, uncertainties, encoder, smoothing. */
#include "loss/evidential.h"
#include "loss/uncertainty.h"
#include "model/layer.h"
#include "model/resnet.h"
#include "tests/golden.h"
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* float32 outputs are rounded; a loss is a sum of logarithms of either sign, each off by some units. */
static double tolerance_of(enum dtype dtype) {
  return dtype == F32 ? 5e-6 : 1e-11;
}

static void expect(const char *name, const char *what, enum dtype dtype, double error, double tolerance) {
  cr_expect(le(dbl, error, tolerance), "%s, %s, %s: error %g above %g", name, dtype_name(dtype), what, error,
            tolerance);
}

static void expect_dataset(const struct golden_file *file, const char *name, const char *dataset, enum dtype dtype,
                           const void *got, double tolerance) {
  struct golden_array stored = golden_read(file, name, dataset);
  expect(name, dataset, dtype, golden_array_error(dtype, stored.count, got, stored.data), tolerance);
  golden_free(&stored);
}

/* --- distributions ------------------------------------------------------------------------------------------ */

/* Each number by itself: the extremes of a case must not hide the others. */
static void expect_elements(const struct golden_file *file, const char *name, const char *dataset, const double *got,
                            const bool *wanted) {
  struct golden_array stored = golden_read(file, name, dataset);
  for (int64_t i = 0; i < stored.count; i++)
    if (wanted == NULL || wanted[i])
      cr_expect(le(dbl, golden_scalar_error(got[i], stored.data[i]), 1e-9), "%s, %s, element %lld: %.17g, stored %.17g",
                name, dataset, (long long)i, got[i], stored.data[i]);
  golden_free(&stored);
}

static void check_nig(const struct golden_file *file, const char *name) {
  static const char *const results[] = {"nll", "grad_nll_gamma", "grad_nll_v", "grad_nll_alpha", "grad_nll_beta",
                                        "reg", "grad_reg_gamma", "grad_reg_v", "grad_reg_alpha"};
  enum { RESULTS = sizeof results / sizeof *results };
  struct golden_array target = golden_read(file, name, "target"), gamma = golden_read(file, name, "gamma"),
                      v = golden_read(file, name, "v"), alpha = golden_read(file, name, "alpha"),
                      beta = golden_read(file, name, "beta");
  int64_t rows = target.count;
  double *got = malloc((size_t)((RESULTS + 1) * rows) * sizeof *got);
  bool *has_variance = malloc((size_t)rows * sizeof *has_variance);
  for (int64_t i = 0; i < rows; i++) {
    struct nig nig = {gamma.data[i], v.data[i], alpha.data[i], beta.data[i]};
    struct nig_term nll = nig_nll(&nig, target.data[i]), reg = nig_reg(&nig, target.data[i]);
    const double values[RESULTS] = {nll.value, nll.slope.gamma, nll.slope.v, nll.slope.alpha, nll.slope.beta,
                                    reg.value, reg.slope.gamma, reg.slope.v, reg.slope.alpha};
    for (int k = 0; k < RESULTS; k++)
      got[k * rows + i] = values[k];
    got[RESULTS * rows + i] = nig_variance(&nig);
    has_variance[i] = nig.alpha > 1;
    cr_expect(eq(int, has_variance[i], isfinite(nig_variance(&nig)) != 0), "%s, element %lld", name, (long long)i);
  }
  for (int k = 0; k < RESULTS; k++)
    expect_elements(file, name, results[k], got + k * rows, NULL);
  expect_elements(file, name, "predictive_variance", got + RESULTS * rows, has_variance);
  free(has_variance);
  free(got);
  struct golden_array *arrays[] = {&target, &gamma, &v, &alpha, &beta};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
    golden_free(arrays[i]);
}

/* --- head --------------------------------------------------------------------------------------------------- */

static struct evidential read_options(const struct golden_file *file, const char *name) {
  struct evidential options = {golden_number(file, name, "lambda_reg", NAN), golden_number(file, name, "prior_v", NAN),
                               golden_number(file, name, "prior_alpha", NAN)};
  cr_assert(eq(int, evidential_check(&options), STATUS_OK), "%s: %s", name, status_message());
  return options;
}

/* The way back through z -> linear_weight z + linear_bias: slopes [rows, 3] of the outputs. */
static void check_linear(const struct golden_file *file, const char *name, enum dtype dtype, const void *slope) {
  struct golden_array encoding = golden_read(file, name, "encoding"), weight = golden_read(file, name, "linear_weight");
  int64_t rows = encoding.shape[0], dim = encoding.shape[1];
  double *grad_encoding = calloc((size_t)(rows * dim), sizeof(double)),
         *grad_weight = calloc((size_t)(3 * dim), sizeof(double));
  double grad_bias[3] = {0};
  for (int64_t row = 0; row < rows; row++)
    for (int k = 0; k < 3; k++) {
      double own = dtype_get(dtype, slope, row * 3 + k);
      grad_bias[k] += own;
      for (int64_t f = 0; f < dim; f++) {
        grad_encoding[row * dim + f] += own * weight.data[k * dim + f];
        grad_weight[k * dim + f] += own * encoding.data[row * dim + f];
      }
    }
  expect_dataset(file, name, "grad_encoding", F64, grad_encoding, tolerance_of(dtype));
  expect_dataset(file, name, "grad_linear_weight", F64, grad_weight, tolerance_of(dtype));
  expect_dataset(file, name, "grad_linear_bias", F64, grad_bias, tolerance_of(dtype));
  free(grad_weight);
  free(grad_encoding);
  golden_free(&weight);
  golden_free(&encoding);
}

/* Slopes along (x_bar, n, omega), the outputs behind sp, from those along the outputs themselves. */
static void check_behind_softplus(const struct golden_file *file, const char *name, enum dtype dtype,
                                  const struct golden_array *outputs, const void *slope) {
  double *behind = malloc((size_t)outputs->count * sizeof *behind);
  for (int64_t i = 0; i < outputs->count; i++) {
    double x = outputs->data[i];
    behind[i] = dtype_get(dtype, slope, i) * (i % 3 == 0 || x > 200 ? 1 : 1 + exp(-x / 10));
  }
  expect_dataset(file, name, "grad_head_out", F64, behind, tolerance_of(dtype));
  free(behind);
}

static void check_evaluation(const struct golden_file *file, const char *name, enum dtype dtype,
                             const struct golden_array *outputs, const struct golden_array *target) {
  struct evidential options = read_options(file, name);
  int64_t rows = target->count;
  double *nig = malloc((size_t)(7 * rows) * sizeof *nig), *head = nig + 4 * rows, loss[3] = {0};
  void *output = golden_buffer(outputs, dtype), *pred = golden_buffer(target, dtype),
       *variance = golden_buffer(target, dtype);
  for (int64_t row = 0; row < rows; row++) {
    const double *out = outputs->data + 3 * row;
    struct nig own = evidential_nig(&options, out[0], out[1], out[2], 1);
    double nll = nig_nll(&own, target->data[row]).value, reg = nig_reg(&own, target->data[row]).value;
    memcpy(nig + 4 * row, &own, sizeof own);
    memcpy(head + 3 * row, (const double[]){own.gamma, own.v - options.prior_v, own.beta}, 3 * sizeof *head);
    loss[0] += (nll + options.lambda * reg) / (double)rows;
    loss[1] += nll / (double)rows;
    loss[2] += reg / (double)rows;
  }
  evidential_answer(&options, dtype, rows, 1, output, pred, variance);
  expect_dataset(file, name, "eval_nig", F64, nig, 1e-12);
  expect_dataset(file, name, "head_out", F64, head, 1e-12);
  expect_dataset(file, name, "eval_loss_nll_reg", F64, loss, 1e-11);
  expect_dataset(file, name, "eval_variance", dtype, variance, tolerance_of(dtype));
  for (int64_t row = 0; row < rows; row++)
    cr_expect(eq(dbl, dtype_get(dtype, pred, row), dtype_get(dtype, output, 3 * row)), "%s", name);
  void *blocks[] = {nig, output, pred, variance};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
    free(blocks[i]);
}

static void check_head(const struct golden_file *file, const char *name) {
  struct evidential options = read_options(file, name);
  struct golden_array outputs = golden_read(file, name, "pre_activation"), target = golden_read(file, name, "target"),
                      weights = golden_read(file, name, "weights");
  for (enum dtype dtype = F32; dtype <= F64; dtype++) {
    void *output = golden_buffer(&outputs, dtype), *label = golden_buffer(&target, dtype),
         *weight = golden_buffer(&weights, dtype);
    double value;
    evidential_loss(&options, dtype, target.count, 1, output, label, weight, target.count, output, &value);
    expect(name, "loss", dtype, golden_scalar_error(value, golden_scalar(file, name, "loss")), tolerance_of(dtype));
    check_behind_softplus(file, name, dtype, &outputs, output);
    check_linear(file, name, dtype, output);
    check_evaluation(file, name, dtype, &outputs, &target);
    free(weight);
    free(label);
    free(output);
  }
  golden_free(&weights);
  golden_free(&target);
  golden_free(&outputs);
}

/* --- uncertainties ------------------------------------------------------------------------------------------ */

static void check_uncertainty(const struct golden_file *file, const char *name) {
  struct golden_array target = golden_read(file, name, "target"), pred = golden_read(file, name, "pred"),
                      variance = golden_read(file, name, "variance");
  int64_t rows = target.count;
  double *by_variance = malloc((size_t)rows * sizeof(double)), *by_error = malloc((size_t)rows * sizeof(double)), ause;
  double nll = uncertainty_gaussian_nll(F64, rows, pred.data, target.data, F64, variance.data);
  cr_assert(eq(
      int,
      uncertainty_sparsification(F64, rows, pred.data, target.data, F64, variance.data, by_variance, by_error, &ause),
      STATUS_OK));
  expect(name, "gaussian_nll", F64, golden_scalar_error(nll, golden_scalar(file, name, "gaussian_nll")), 1e-12);
  expect_dataset(file, name, "sparsification_by_variance", F64, by_variance, 1e-12);
  expect_dataset(file, name, "sparsification_by_error", F64, by_error, 1e-12);
  expect(name, "ause", F64, golden_scalar_error(ause, golden_scalar(file, name, "ause")), 1e-12);
  free(by_error);
  free(by_variance);
  golden_free(&variance);
  golden_free(&pred);
  golden_free(&target);
}

/* --- encoders ----------------------------------------------------------------------------------------------- */

/* A block whose rows, channels-last, come from the identity: so that the gradient of its input is one of a value. */
struct encoder {
  const struct golden_file *file;
  const char *name;
  enum dtype dtype;
  struct net *net;
  int64_t rows, channels, side, planes;
  struct parameters own, buffers;
};

#define MUST(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())

static enum status add_layers(struct encoder *own) {
  int variance;
  TRY(net_add_conv(own->net, "identity", own->channels, 1, 1, 0, false));
  TRY(resnet_add_last_block(own->net, "last", true, own->planes, &variance));
  TRY(image_net_add_features(own->net, 0, variance));
  return net_plan(own->net);
}

static void *element(const struct encoder *own, void *data, const struct parameter *parameter) {
  return (char *)data + parameter->offset * dtype_size(own->dtype);
}

/* Where a parameter or buffer of the net is stored, and from which element on: "last.conv3" and "last.variance" are
 * halves of "edl_conv". */
static struct golden_array stored_of(const struct encoder *own, const char *kind, const char *parameter,
                                     int64_t *first) {
  static const char *const renamed[][2] = {{"conv3.weight", "edl_conv_weight"},
                                           {"variance.weight", "edl_conv_weight"},
                                           {"bn3.weight", "edl_bn3_weight"},
                                           {"bn3.bias", "edl_bn3_bias"},
                                           {"bn3.running_mean", "edl_bn3_running_mean"},
                                           {"bn3.running_var", "edl_bn3_running_var"}};
  const char *short_name = parameter + strlen("last.");
  char path[96];
  snprintf(path, sizeof path, "%s_%s", kind, short_name);
  for (char *c = path; *c != '\0'; c++)
    *c = *c == '.' ? '_' : *c;
  for (size_t i = 0; i < sizeof renamed / sizeof *renamed; i++)
    if (strcmp(short_name, renamed[i][0]) == 0)
      snprintf(path, sizeof path, "%s_%s", kind, renamed[i][1]);
  if (!golden_has(own->file, own->name, path))
    return (struct golden_array){0};
  struct golden_array stored = golden_read(own->file, own->name, path);
  *first = strncmp(short_name, "variance", strlen("variance")) == 0 ? stored.count / 2 : 0;
  return stored;
}

static void fill_list(const struct encoder *own, struct parameters arrays) {
  for (int p = 0; p < arrays.count; p++) {
    const struct parameter *one = &arrays.list[p];
    void *data = element(own, arrays.data, one);
    int64_t first = 0;
    bool identity = strcmp(one->name, "identity.weight") == 0;
    struct golden_array stored = {0};
    if (!identity) {
      stored = stored_of(own, "param", one->name, &first);
      cr_assert(ge(i64, stored.count, (int64_t)one->count), "nothing is stored for %s", one->name);
    }
    for (int64_t i = 0; i < (int64_t)one->count; i++)
      dtype_put(own->dtype, data, i, identity ? i % (own->channels + 1) == 0 : stored.data[first + i]);
    golden_free(&stored);
  }
}

/* Number i of an image that is stored channels-first, where ours lies. */
static int64_t turned(const struct encoder *own, int64_t i) {
  int64_t places = own->side * own->side, row = i / (own->channels * places);
  return (row * places + i % places) * own->channels + i / places % own->channels;
}

static void check_gradients(const struct encoder *own) {
  int compared = 0;
  for (int p = 1; p < own->own.count; p++) {
    const struct parameter *one = &own->own.list[p];
    int64_t first;
    struct golden_array stored = stored_of(own, "grad", one->name, &first);
    if (stored.count == 0)
      continue;
    double error =
        golden_array_error(own->dtype, (int64_t)one->count, element(own, own->own.gradients, one), stored.data + first);
    expect(own->name, one->name, own->dtype, error, own->dtype == F32 ? 2e-5 : 1e-11);
    golden_free(&stored);
    compared++;
  }
  cr_assert(eq(int, compared, 4), "%s", own->name); /* both halves of the convolution, and its batch norm */
}

static void check_encoder(const struct golden_file *file, const char *name, enum dtype dtype) {
  struct golden_array input = golden_read(file, name, "input"), slope = golden_read(file, name, "grad_encoding"),
                      grad_input = golden_read(file, name, "grad_input");
  struct encoder own = {.file = file,
                        .name = name,
                        .dtype = dtype,
                        .rows = input.shape[0],
                        .channels = input.shape[1],
                        .side = input.shape[2],
                        .planes = (int64_t)golden_number(file, name, "planes", NAN)};
  struct net_input reads = {.height = own.side, .width = own.side, .channels = own.channels};
  const int64_t epoch = 0, samples[8] = {0};
  struct pass pass = {.training = golden_number(file, name, "training", NAN) != 0, .epoch = &epoch, .samples = samples};
  cr_assert(le(i64, own.rows, 8));
  MUST(net_begin(ops_host(dtype), &reads, own.rows, &own.net));
  MUST(add_layers(&own));
  own.own = net_parameters(own.net);
  own.buffers = net_buffers(own.net);
  fill_list(&own, own.own);
  fill_list(&own, own.buffers);
  void *x = golden_buffer(&input, dtype), *grad = golden_buffer(&slope, dtype),
       *turned_back = golden_buffer(&input, dtype);
  void *nothing = calloc((size_t)slope.count, dtype_size(dtype)); /* the head's gradient */
  for (int64_t i = 0; i < input.count; i++)
    dtype_put(dtype, x, turned(&own, i), input.data[i]);
  MUST(net_forward(own.net, x, own.rows, &pass));
  expect_dataset(file, name, "encoding", dtype, net_features(own.net), dtype == F32 ? 2e-6 : 1e-12);
  MUST(net_backward(own.net, nothing, grad, NULL));
  check_gradients(&own);
  for (int64_t i = 0; i < input.count; i++)
    dtype_put(dtype, turned_back, i, dtype_get(dtype, own.net->operations[0].grad_output, turned(&own, i)));
  expect_dataset(file, name, "grad_input", dtype, turned_back, dtype == F32 ? 2e-5 : 1e-11);
  void *blocks[] = {x, grad, turned_back, nothing};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
    free(blocks[i]);
  net_destroy(&own.net);
  golden_free(&grad_input);
  golden_free(&slope);
  golden_free(&input);
}

/* --- smoothing ---------------------------------------------------------------------------------------------- */

/* A program of several ranks smooths all cases of the kind, and says how many there were. */
static void check_smoothing(int cases) {
  const char *const arguments[] = {"vir", NULL};
  char line[64];
  snprintf(line, sizeof line, "distributions: %d\n", cases);
  for (int ranks = 1; cases > 0 && ranks <= 4; ranks++) {
    struct run_result run;
    int status = run_ranks_within(100, ranks, "rank_golden_fds", arguments, &run);
    cr_assert(eq(int, status, 0), "%d ranks:\n%s", ranks, run.output);
    cr_assert(strstr(run.output, line) != NULL, "%d ranks, no \"%s\":\n%s", ranks, line, run.output);
    run_result_free(&run);
  }
}

Test(golden_vir, heads_uncertainties_encoders_and_smoothing_are_the_published_ones, .timeout = 240) {
  struct golden_file *file = golden_open("vir.h5");
  int smoothed = 0;
  for (int i = 0; i < golden_case_count(file); i++) {
    const char *name = golden_case_name(file, i);
    char kind[32];
    golden_text(file, name, "kind", "?", kind, sizeof kind);
    if (strcmp(kind, "nig") == 0)
      check_nig(file, name);
    else if (strcmp(kind, "head") == 0)
      check_head(file, name);
    else if (strcmp(kind, "uncertainty") == 0)
      check_uncertainty(file, name);
    else if (strcmp(kind, "smoothing") == 0)
      smoothed++;
    else if (strcmp(kind, "encoder_last_block") == 0)
      for (enum dtype dtype = F32; dtype <= F64; dtype++)
        check_encoder(file, name, dtype);
    else
      cr_assert(false, "%s: nothing tests the kind %s", name, kind);
    golden_ran(file);
  }
  check_smoothing(smoothed);
  golden_report(file);
  golden_close(&file);
}
