/* Networks: layout, initial values, gradients by finite differences, hooks, and rows that come and go. */
#include "model/net.h"

#include "dist/memory.h"
#include "model/mlp.h"
#include "tests/gradient_check.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())

enum { INPUTS = 5, OUTPUTS = 2, ROWS = 6, MOST_FEATURES = 18 };

static const int64_t widths[] = {7, 9, 4};
static const int64_t samples[ROWS] = {40, 7, 13, 2, 99, 58};

static double number(uint64_t stream, int64_t i) {
  return 2 * random_uniform(random_key(1, RANDOM_TEST, stream), (uint64_t)i, 0) - 1;
}

static struct mlp_spec spec_of(int hidden_count, enum activation activation, double dropout) {
  return (struct mlp_spec){.inputs = INPUTS,
                           .hidden_count = hidden_count,
                           .hidden = widths,
                           .activation = activation,
                           .dropout = dropout,
                           .outputs = OUTPUTS};
}

static struct net *make(enum dtype dtype, const struct mlp_spec *spec, int64_t capacity) {
  struct net *net;
  OK(mlp_create(ops_host(dtype), spec, capacity, &net));
  OK(net_initialise(net, 3));
  return net;
}

static struct pass training_pass(const int64_t *ids) {
  static const int64_t epoch = 2;
  return (struct pass){.training = true, .seed = 8, .epoch = &epoch, .samples = ids};
}

/* A loss that uses everything a net gives: sum of a p + p^2/2 over predictions p, and of b f + f^2/2 over features,
 * with fixed a and b per row and column.  `first` is the place of the net's first row among all rows. */
struct problem {
  struct net *net;
  const double *inputs;
  int64_t first, rows;
  struct pass pass;
  bool with_features;
  double grad_predictions[ROWS * OUTPUTS], grad_features[ROWS * MOST_FEATURES];
};

static double problem_loss(struct problem *problem) {
  int64_t width = net_feature_width(problem->net);
  const double *p = net_predictions(problem->net), *f = net_features(problem->net);
  double loss = 0;
  for (int64_t i = 0; i < problem->rows * OUTPUTS; i++) {
    double slope = number(21, problem->first * OUTPUTS + i);
    loss += slope * p[i] + p[i] * p[i] / 2;
    problem->grad_predictions[i] = slope + p[i];
  }
  for (int64_t i = 0; problem->with_features && i < problem->rows * width; i++) {
    double slope = number(22, problem->first * width + i);
    loss += slope * f[i] + f[i] * f[i] / 2;
    problem->grad_features[i] = slope + f[i];
  }
  return loss;
}

/* For gradient_check: x is the net's own parameter buffer. */
static double loss_at(void *context, const double *x) {
  struct problem *problem = context;
  (void)x;
  OK(net_forward(problem->net, problem->inputs, problem->rows, &problem->pass));
  return problem_loss(problem);
}

static void gradients_of(struct problem *problem, const struct net_hooks *hooks) {
  OK(net_forward(problem->net, problem->inputs, problem->rows, &problem->pass));
  problem_loss(problem);
  OK(net_backward(problem->net, problem->grad_predictions, problem->with_features ? problem->grad_features : NULL,
                  hooks));
}

static double *make_inputs(void) {
  double *inputs = malloc(ROWS * INPUTS * sizeof *inputs);
  for (int64_t i = 0; i < ROWS * INPUTS; i++)
    inputs[i] = number(20, i);
  return inputs;
}

static double largest_difference(const double *a, const double *b, size_t count) {
  double largest = 0, scale = 0;
  for (size_t i = 0; i < count; i++) {
    largest = fmax(largest, fabs(a[i] - b[i]));
    scale = fmax(scale, fabs(b[i]));
  }
  return scale > 0 ? largest / scale : largest;
}

/* --- layout and figures ------------------------------------------------------------------------------------- */

Test(net, parameters_are_named_in_order_and_lie_without_gaps) {
  static const struct {
    const char *name;
    int rank;
    int64_t shape[2], fan_in;
  } expected[] = {{"layer0.weight", 2, {7, 5}, 5}, {"layer0.bias", 1, {7, 1}, 5},   {"layer1.weight", 2, {9, 7}, 7},
                  {"layer1.bias", 1, {9, 1}, 7},   {"layer2.weight", 2, {2, 9}, 9}, {"layer2.bias", 1, {2, 1}, 9}};
  struct mlp_spec spec = spec_of(2, ACTIVATION_RELU, 0.5);
  struct net *net = make(F32, &spec, ROWS);
  struct parameters own = net_parameters(net);
  size_t offset = 0;
  cr_assert(eq(int, own.count, 6));
  for (int i = 0; i < 6; i++) {
    const struct parameter *p = &own.list[i];
    cr_assert(eq(str, (char *)p->name, (char *)expected[i].name));
    cr_assert(eq(int, p->rank, expected[i].rank));
    cr_assert(zero(int, memcmp(p->shape, expected[i].shape, sizeof expected[i].shape)), "%s", p->name);
    cr_assert(eq(int, (int)p->initial, INITIAL_UNIFORM));
    cr_assert(eq(dbl, p->scale, 1 / sqrt((double)expected[i].fan_in)));
    cr_assert(eq(sz, p->offset, offset));
    cr_assert(eq(sz, p->count, (size_t)(p->shape[0] * p->shape[1])));
    offset += p->count;
  }
  cr_assert(eq(sz, own.elements, offset));
  net_destroy(&net);
}

Test(net, widths_and_operation_counts_are_those_of_the_layers) {
  struct mlp_spec spec = spec_of(3, ACTIVATION_GELU, 0.1);
  struct net *net = make(F32, &spec, ROWS);
  cr_assert(eq(i64, net_input_width(net), INPUTS));
  cr_assert(eq(i64, net_feature_width(net), 4));
  cr_assert(eq(i64, net_output_width(net), OUTPUTS));
  cr_assert(eq(i64, net_capacity(net), ROWS));
  cr_assert(eq(dbl, net_flops_per_row(net, false), 2 * (5 * 7 + 7 * 9 + 9 * 4 + 4 * 2)));
  cr_assert(eq(dbl, net_flops_per_row(net, true), 2 * (2 * 5 * 7 + 3 * (7 * 9 + 9 * 4 + 4 * 2))));
  net_destroy(&net);
}

Test(net, memory_is_taken_once_counted_and_given_back) {
  double *inputs = make_inputs();
  size_t before = memory_in_use();
  struct mlp_spec spec = spec_of(3, ACTIVATION_TANH, 0.3);
  struct problem problem = {.net = make(F64, &spec, ROWS),
                            .inputs = inputs,
                            .rows = ROWS,
                            .pass = training_pass(samples),
                            .with_features = true};
  cr_assert(ge(sz, net_bytes(problem.net), 2 * 8 * net_parameters(problem.net).elements));
  cr_assert(le(sz, net_bytes(problem.net), memory_in_use() - before));
  size_t built = memory_in_use();
  memory_peak_reset();
  for (int step = 0; step < 3; step++)
    gradients_of(&problem, NULL);
  cr_assert(eq(sz, memory_peak(), built), "a step allocated memory");
  net_destroy(&problem.net);
  cr_assert(eq(ptr, (void *)problem.net, NULL));
  net_destroy(&problem.net);
  cr_assert(eq(sz, memory_in_use(), before));
  free(inputs);
}

/* --- initial values ----------------------------------------------------------------------------------------- */

Test(net, initial_values_are_uniform_within_one_over_the_root_of_fan_in) {
  struct mlp_spec spec = {.inputs = 100, .hidden_count = 1, .hidden = (int64_t[]){300}, .outputs = 100};
  struct net *net = make(F64, &spec, 1);
  struct parameters own = net_parameters(net);
  for (int p = 0; p < own.count; p++) {
    const double *x = (double *)own.data + own.list[p].offset;
    double bound = 1 / sqrt(p < 2 ? 100.0 : 300.0), n = (double)own.list[p].count, sum = 0, squares = 0;
    for (size_t i = 0; i < own.list[p].count; i++) {
      cr_assert(le(dbl, fabs(x[i]), bound), "%s[%zu]", own.list[p].name, i);
      sum += x[i] / bound;
      squares += x[i] * x[i] / (bound * bound);
    }
    /* Five standard errors of a uniform variable in [-1, 1]. */
    cr_assert(le(dbl, fabs(sum / n), 5 * sqrt(1 / (3 * n))), "%s: mean %g", own.list[p].name, sum / n);
    cr_assert(epsilon_eq(dbl, squares / n, 1.0 / 3, 5 * sqrt(4 / (45 * n))), "%s: variance", own.list[p].name);
  }
  net_destroy(&net);
}

Test(net, initial_values_depend_on_seed_and_place_alone) {
  struct mlp_spec two = spec_of(2, ACTIVATION_RELU, 0), three = spec_of(3, ACTIVATION_TANH, 0.5);
  struct net *small = make(F64, &two, 1), *large = make(F64, &three, 50), *single = make(F32, &two, 1);
  const double *a = net_parameters(small).data, *b = net_parameters(large).data;
  const float *c = net_parameters(single).data;
  size_t shared = net_parameters(small).list[4].offset; /* layer0 and layer1 are the same in both */
  cr_assert(zero(int, memcmp(a, b, shared * sizeof *a)));
  for (size_t i = 0; i < net_parameters(small).elements; i++)
    cr_assert(eq(flt, c[i], (float)a[i]));
  OK(net_initialise(large, 4));
  for (size_t i = 0; i < shared; i++)
    cr_assert(ne(dbl, a[i], b[i]), "parameter %zu is the same under another seed", i);
  net_destroy(&small);
  net_destroy(&large);
  net_destroy(&single);
}

/* --- gradients ---------------------------------------------------------------------------------------------- */

static void check_gradients_of(const struct mlp_spec *spec, bool training) {
  double *inputs = make_inputs();
  struct problem problem = {.net = make(F64, spec, ROWS),
                            .inputs = inputs,
                            .rows = ROWS,
                            .pass = training_pass(samples),
                            .with_features = spec->hidden_count > 0};
  problem.pass.training = training;
  gradients_of(&problem, NULL);
  struct parameters own = net_parameters(problem.net);
  struct gradient_check check = gradient_check(loss_at, &problem, own.data, own.elements, own.gradients, 1e-4);
  cr_assert(le(dbl, check.error, 1e-10), "%d hidden, %s, dropout %g, probabilistic %d: %s", spec->hidden_count,
            activation_name(spec->activation), spec->dropout, spec->probabilistic, gradient_check_text(&check));
  net_destroy(&problem.net);
  free(inputs);
}

static void check_gradients(int hidden_count, enum activation activation, double dropout, bool training) {
  struct mlp_spec spec = spec_of(hidden_count, activation, dropout);
  check_gradients_of(&spec, training);
}

Test(net, gradients_are_derivatives_for_every_depth_activation_and_dropout) {
  for (int hidden_count = 0; hidden_count <= 3; hidden_count++)
    for (enum activation activation = ACTIVATION_RELU; activation <= ACTIVATION_GELU; activation++)
      for (int dropped = 0; dropped <= 1; dropped++)
        check_gradients(hidden_count, activation, 0.4 * dropped, true);
}

Test(net, gradients_of_an_evaluation_pass_are_derivatives_too) {
  for (enum activation activation = ACTIVATION_RELU; activation <= ACTIVATION_GELU; activation++)
    check_gradients(2, activation, 0.4, false);
}

Test(net, gradients_of_distributions_are_derivatives) {
  for (int hidden_count = 1; hidden_count <= 3; hidden_count++)
    for (int form = 0; form < 4; form++) {
      struct mlp_spec spec = spec_of(hidden_count, ACTIVATION_TANH, form & 1 ? 0.4 : 0);
      spec.probabilistic = true;
      check_gradients_of(&spec, form & 2);
    }
}

/* Feature smoothing as FDS does it: the head reads scaled and shifted features. */
static double smoothed_loss(void *context, const double *x) {
  struct problem *problem = context;
  double smoothed[ROWS * MOST_FEATURES];
  (void)x;
  OK(net_forward_encoder(problem->net, problem->inputs, problem->rows, &problem->pass));
  const double *f = net_features(problem->net);
  for (int64_t i = 0; i < problem->rows * net_feature_width(problem->net); i++)
    smoothed[i] = (1.5 + number(30, i)) * f[i] + number(31, i);
  OK(net_forward_head(problem->net, smoothed));
  double loss = problem_loss(problem);
  /* The gradient belongs to the same pass; only the first call's is kept by the test. */
  OK(net_backward_head(problem->net, problem->grad_predictions, NULL));
  double *gradient = net_feature_gradient(problem->net);
  for (int64_t i = 0; i < problem->rows * net_feature_width(problem->net); i++)
    gradient[i] *= 1.5 + number(30, i);
  OK(net_backward_encoder(problem->net, problem->grad_features, NULL));
  return loss;
}

Test(net, features_may_be_changed_between_encoder_and_head) {
  for (int dropped = 0; dropped <= 1; dropped++) {
    double *inputs = make_inputs();
    struct mlp_spec spec = spec_of(2, ACTIVATION_RELU, 0.3 * dropped);
    struct problem problem = {.net = make(F64, &spec, ROWS),
                              .inputs = inputs,
                              .rows = ROWS,
                              .pass = training_pass(samples),
                              .with_features = true};
    struct parameters own = net_parameters(problem.net);
    double *gradients = malloc(own.elements * sizeof *gradients);
    smoothed_loss(&problem, own.data);
    memcpy(gradients, own.gradients, own.elements * sizeof *gradients);
    struct gradient_check check = gradient_check(smoothed_loss, &problem, own.data, own.elements, gradients, 1e-4);
    cr_assert(le(dbl, check.error, 1e-10), "%s", gradient_check_text(&check));
    net_destroy(&problem.net);
    free(gradients);
    free(inputs);
  }
}

/* The same by the net itself.  The loss looks at both kinds of features. */
struct moved {
  struct problem problem;
  int32_t bucket[ROWS];
  double scale[3 * MOST_FEATURES], shift[3 * MOST_FEATURES], grad_smoothed[ROWS * MOST_FEATURES];
  struct smoothing smoothing;
};

static double moved_loss(void *context, const double *x) {
  struct moved *moved = context;
  struct problem *problem = &moved->problem;
  int64_t width = net_feature_width(problem->net);
  (void)x;
  OK(net_forward(problem->net, problem->inputs, problem->rows, &problem->pass));
  double loss = problem_loss(problem);
  const double *f = net_features(problem->net), *s = net_smoothed_features(problem->net);
  for (int64_t i = 0; i < problem->rows * width; i++) {
    int32_t b = moved->bucket[i / width];
    double expected = b < 0 ? f[i] : f[i] * moved->scale[b * width + i % width] + moved->shift[b * width + i % width];
    cr_assert(fabs(s[i] - expected) <= 1e-15, "feature %lld is %g, not %g", (long long)i, s[i], expected);
    loss += s[i] * s[i] * s[i] / 3;
    moved->grad_smoothed[i] = s[i] * s[i];
  }
  return loss;
}

static void check_smoothing(double dropout, bool probabilistic) {
  double *inputs = make_inputs();
  struct mlp_spec spec = spec_of(2, ACTIVATION_TANH, dropout);
  spec.probabilistic = probabilistic;
  struct moved moved = {.problem = {.net = make(F64, &spec, ROWS),
                                    .inputs = inputs,
                                    .rows = ROWS,
                                    .pass = training_pass(samples),
                                    .with_features = true},
                        .bucket = {2, -1, 0, 1, 1, -1}};
  struct problem *problem = &moved.problem;
  size_t before = net_bytes(problem->net);
  moved.smoothing = (struct smoothing){moved.bucket, moved.scale, moved.shift};
  for (int i = 0; i < 3 * MOST_FEATURES; i++) {
    moved.scale[i] = 1.5 + number(30, i);
    moved.shift[i] = probabilistic ? fabs(number(31, i)) : number(31, i); /* variances stay above 0 */
  }
  problem->pass.smoothing = &moved.smoothing;
  cr_assert(eq(int, net_forward(problem->net, inputs, ROWS, &problem->pass), ERR_BUG), "without room");
  OK(net_can_smooth(problem->net));
  cr_assert(net_bytes(problem->net) >= before + ROWS * 9 * sizeof(double));
  moved_loss(&moved, NULL);
  OK(net_backward_smoothed(problem->net, problem->grad_predictions, problem->grad_features, moved.grad_smoothed, NULL));
  struct parameters own = net_parameters(problem->net);
  struct gradient_check check = gradient_check(moved_loss, &moved, own.data, own.elements, own.gradients, 1e-4);
  cr_assert(le(dbl, check.error, 1e-10), "dropout %g: %s", dropout, gradient_check_text(&check));

  /* An evaluation does not smooth, and neither does a pass that does not ask for it. */
  problem->pass.training = false;
  OK(net_forward(problem->net, inputs, ROWS, &problem->pass));
  cr_assert(eq(ptr, (void *)net_smoothed_features(problem->net), (void *)net_features(problem->net)));
  problem->pass = training_pass(samples);
  OK(net_forward(problem->net, inputs, ROWS, &problem->pass));
  cr_assert(eq(ptr, (void *)net_smoothed_features(problem->net), (void *)net_features(problem->net)));
  net_destroy(&problem->net);
  free(inputs);
}

Test(net, smoothed_features_go_to_the_head_and_their_gradients_come_back) {
  size_t before = memory_in_use();
  for (int form = 0; form < 4; form++)
    check_smoothing(form & 1 ? 0.3 : 0, form & 2);
  cr_assert(eq(sz, memory_in_use(), before));
}

Test(net, float32_agrees_with_float64) {
  enum { WIDE = 64, MANY = 50, IN = 20 };
  struct mlp_spec spec = {.inputs = IN,
                          .hidden_count = 3,
                          .hidden = (int64_t[]){WIDE, WIDE, WIDE},
                          .activation = ACTIVATION_GELU,
                          .dropout = 0.2,
                          .outputs = 1};
  struct net *nets[2] = {make(F32, &spec, MANY), make(F64, &spec, MANY)};
  int64_t ids[MANY];
  float single[MANY * IN], grad_single[MANY], features_single[MANY * WIDE];
  double exact[MANY * IN], grad_exact[MANY], features_exact[MANY * WIDE];
  for (int64_t i = 0; i < MANY * WIDE; i++)
    features_exact[i] = features_single[i] = (float)number(4, i);
  for (int64_t i = 0; i < MANY * IN; i++)
    exact[i] = single[i] = (float)number(5, i);
  for (int64_t i = 0; i < MANY; i++) {
    grad_exact[i] = grad_single[i] = (float)number(6, i);
    ids[i] = i;
  }
  struct parameters own[2] = {net_parameters(nets[0]), net_parameters(nets[1])};
  for (size_t i = 0; i < own[0].elements; i++)
    ((double *)own[1].data)[i] = ((float *)own[0].data)[i];
  struct pass pass = training_pass(ids);
  OK(net_forward(nets[0], single, MANY, &pass));
  OK(net_forward(nets[1], exact, MANY, &pass));
  OK(net_backward(nets[0], grad_single, features_single, NULL));
  OK(net_backward(nets[1], grad_exact, features_exact, NULL));
  double *widened = malloc(own[0].elements * sizeof *widened);
  for (size_t i = 0; i < own[0].elements; i++)
    widened[i] = ((float *)own[0].gradients)[i];
  /* Sums of at most 64 terms, eight products deep: about 8 sqrt(64) eps. */
  double error = largest_difference(widened, own[1].gradients, own[0].elements);
  cr_assert(le(dbl, error, 64 * 0x1p-23), "gradients differ by %g", error);
  cr_assert(error > 0, "float32 is not float64");
  free(widened);
  net_destroy(&nets[0]);
  net_destroy(&nets[1]);
}

/* --- distributions ------------------------------------------------------------------------------------------ */

static struct net *make_probabilistic(void) {
  struct mlp_spec spec = spec_of(2, ACTIVATION_TANH, 0);
  spec.probabilistic = true;
  return make(F64, &spec, ROWS);
}

static void predict(struct net *net, const double *inputs, const struct pass *pass,
                    double predictions[ROWS * OUTPUTS]) {
  OK(net_forward(net, inputs, ROWS, pass));
  memcpy(predictions, net_predictions(net), ROWS * OUTPUTS * sizeof *predictions);
}

Test(net, features_that_are_distributions_are_means_and_variances) {
  static const char *const names[] = {"layer0.weight",   "layer0.bias",   "layer1.weight", "layer1.bias",
                                      "variance.weight", "variance.bias", "layer2.weight", "layer2.bias"};
  struct net *net = make_probabilistic();
  struct parameters own = net_parameters(net);
  double *inputs = make_inputs();
  cr_assert(eq(i64, net_feature_width(net), 18));
  cr_assert(eq(i64, net_mean_width(net), 9));
  cr_assert(eq(int, own.count, 8));
  cr_assert(eq(int, own.head, 6));
  for (int i = 0; i < own.count; i++)
    cr_assert(eq(str, (char *)own.list[i].name, (char *)names[i]));
  struct pass pass = training_pass(samples);
  OK(net_forward(net, inputs, ROWS, &pass));
  const double *features = net_features(net);
  for (int i = 0; i < ROWS * 18; i++)
    cr_assert(i % 18 < 9 ? fabs(features[i]) < 1 : features[i] > 1e-6, "feature %d is %g", i, features[i]);
  net_destroy(&net);
  free(inputs);
}

Test(net, heads_draw_by_sample_and_epoch_in_training_and_see_the_means_else) {
  static const int64_t later = 3;
  struct net *net = make_probabilistic();
  struct pass pass = training_pass(samples), next = pass, evaluation = {0};
  double *inputs = make_inputs(), first[ROWS * OUTPUTS], other[ROWS * OUTPUTS];
  next.epoch = &later;
  predict(net, inputs, &pass, first);
  predict(net, inputs, &pass, other);
  cr_assert(zero(int, memcmp(first, other, sizeof first)), "a pass that is repeated draws the same");
  predict(net, inputs, &next, other);
  for (int i = 0; i < ROWS * OUTPUTS; i++)
    cr_assert(ne(dbl, first[i], other[i]), "prediction %d does not change with the epoch", i);
  predict(net, inputs, &evaluation, other);
  const struct parameter *weight = &net_parameters(net).list[6];
  const double *w = (double *)net_parameters(net).data + weight->offset, *bias = w + weight->count;
  const double *features = net_features(net);
  for (int i = 0; i < ROWS * OUTPUTS; i++) {
    double expected = bias[i % OUTPUTS];
    for (int k = 0; k < 9; k++)
      expected += w[i % OUTPUTS * 9 + k] * features[i / OUTPUTS * 18 + k];
    cr_assert(epsilon_eq(dbl, other[i], expected, 1e-14), "prediction %d", i);
  }
  /* An encoder that is evaluated has nothing to draw from. */
  net_freeze_encoder(net, true);
  predict(net, inputs, &next, first);
  cr_assert(zero(int, memcmp(first, other, sizeof first)));
  next.samples = NULL;
  cr_assert(eq(int, net_forward(net, inputs, ROWS, &next), ERR_ARGUMENT), "draws without samples");
  net_destroy(&net);
  free(inputs);
}

Test(net, distributions_need_a_hidden_layer) {
  struct mlp_spec spec = spec_of(0, ACTIVATION_TANH, 0);
  struct net *net;
  spec.probabilistic = true;
  cr_assert(eq(int, mlp_create(ops_host(F64), &spec, ROWS, &net), ERR_ARGUMENT));
  cr_assert(eq(str, (char *)status_message(),
               "features with variances are those of a hidden layer, and this network has none; give at least one"));
}

/* --- rows --------------------------------------------------------------------------------------------------- */

static void check_shards(bool probabilistic) {
  double *inputs = make_inputs();
  struct mlp_spec spec = spec_of(2, ACTIVATION_GELU, 0.4);
  spec.probabilistic = probabilistic;
  struct problem whole = {.net = make(F64, &spec, ROWS),
                          .inputs = inputs,
                          .rows = ROWS,
                          .pass = training_pass(samples),
                          .with_features = true};
  gradients_of(&whole, NULL);
  struct parameters own = net_parameters(whole.net);
  double *sum = calloc(own.elements, sizeof *sum);
  static const int64_t cuts[] = {0, 1, 1, 5, ROWS}; /* 1, 0, 4 and 1 rows */
  for (int shard = 0; shard < 4; shard++) {
    int64_t first = cuts[shard], rows = cuts[shard + 1] - first;
    struct problem part = {.net = make(F64, &spec, rows),
                           .inputs = inputs + first * INPUTS,
                           .first = first,
                           .rows = rows,
                           .pass = training_pass(samples + first),
                           .with_features = true};
    gradients_of(&part, NULL);
    cr_assert(zero(int, memcmp(net_predictions(part.net), (double *)net_predictions(whole.net) + first * OUTPUTS,
                               (size_t)rows * OUTPUTS * sizeof(double))));
    for (size_t i = 0; i < own.elements; i++)
      sum[i] += ((double *)net_parameters(part.net).gradients)[i];
    net_destroy(&part.net);
  }
  cr_assert(le(dbl, largest_difference(sum, own.gradients, own.elements), 1e-14)); /* order of six terms */
  net_destroy(&whole.net);
  free(sum);
  free(inputs);
}

Test(net, shards_of_a_batch_give_its_predictions_and_their_gradients_add_up) {
  check_shards(false);
  check_shards(true);
}

Test(net, a_pass_of_fewer_rows_than_the_capacity_is_exactly_that_of_a_smaller_net) {
  double *inputs = make_inputs();
  struct mlp_spec spec = spec_of(2, ACTIVATION_TANH, 0.4);
  struct problem problems[2];
  for (int i = 0; i < 2; i++) {
    problems[i] = (struct problem){.net = make(F64, &spec, i == 0 ? 3 : ROWS),
                                   .inputs = inputs,
                                   .rows = ROWS,
                                   .pass = training_pass(samples),
                                   .with_features = true};
    if (i == 1)
      gradients_of(&problems[i], NULL); /* leaves the values of six rows behind */
    problems[i].rows = 3;
    gradients_of(&problems[i], NULL);
  }
  struct parameters a = net_parameters(problems[0].net), b = net_parameters(problems[1].net);
  cr_assert(zero(int, memcmp(a.gradients, b.gradients, a.elements * sizeof(double))));
  net_destroy(&problems[0].net);
  net_destroy(&problems[1].net);
  free(inputs);
}

Test(net, second_views_are_other_draws_of_the_same_samples) {
  double *inputs = make_inputs();
  memcpy(inputs + ROWS / 2 * INPUTS, inputs, ROWS / 2 * INPUTS * sizeof *inputs);
  struct mlp_spec spec = spec_of(2, ACTIVATION_TANH, 0.5);
  struct net *net = make(F64, &spec, ROWS);
  struct pass pass = training_pass(samples);
  double first[ROWS / 2 * OUTPUTS];
  OK(net_forward(net, inputs, ROWS / 2, &pass));
  memcpy(first, net_predictions(net), sizeof first);
  pass.views = 2;
  OK(net_forward(net, inputs, ROWS, &pass));
  const double *both = net_predictions(net);
  cr_assert(zero(int, memcmp(first, both, sizeof first)), "the first view is that of a single view");
  for (int i = 0; i < ROWS / 2 * OUTPUTS; i++)
    cr_assert(ne(dbl, both[i], both[ROWS / 2 * OUTPUTS + i]), "prediction %d has the same mask in both views", i);
  pass.training = false;
  OK(net_forward(net, inputs, ROWS, &pass));
  cr_assert(zero(int, memcmp(both, both + ROWS / 2 * OUTPUTS, sizeof first)), "evaluation drops nothing");
  net_destroy(&net);
  free(inputs);
}

Test(net, gradients_do_not_depend_on_the_number_of_threads) {
  enum { WIDE = 160, MANY = 130 };
  struct mlp_spec spec = {.inputs = WIDE,
                          .hidden_count = 2,
                          .hidden = (int64_t[]){WIDE, WIDE},
                          .activation = ACTIVATION_GELU,
                          .dropout = 0.2,
                          .outputs = WIDE};
  double *inputs = malloc(MANY * WIDE * sizeof *inputs), *gradients = NULL;
  int64_t ids[MANY];
  for (int64_t i = 0; i < MANY * WIDE; i++)
    inputs[i] = number(1, i);
  for (int64_t i = 0; i < MANY; i++)
    ids[i] = i;
  struct pass pass = training_pass(ids);
  struct net *net = make(F64, &spec, MANY);
  struct parameters own = net_parameters(net);
  for (int threads = 1; threads <= 3; threads++) {
    omp_set_num_threads(threads);
    OK(net_forward(net, inputs, MANY, &pass));
    OK(net_backward(net, inputs, inputs, NULL));
    if (gradients == NULL) {
      gradients = malloc(own.elements * sizeof *gradients);
      memcpy(gradients, own.gradients, own.elements * sizeof *gradients);
    }
    cr_assert(zero(int, memcmp(gradients, own.gradients, own.elements * sizeof *gradients)), "%d threads", threads);
  }
  net_destroy(&net);
  free(gradients);
  free(inputs);
}

/* --- hooks -------------------------------------------------------------------------------------------------- */

struct record {
  const struct net *net;
  size_t order[16];
  int ready, progress, fail_at;
  double seen[256]; /* gradients as they were when they were reported */
};

static enum status record_ready(void *context, size_t index) {
  struct record *record = context;
  struct parameters own = net_parameters(record->net);
  const struct parameter *p = &own.list[index];
  memcpy(record->seen + p->offset, (double *)own.gradients + p->offset, p->count * sizeof(double));
  record->order[record->ready++] = index;
  return record->ready == record->fail_at ? fail(ERR_COMM, "the cable was pulled") : STATUS_OK;
}

static enum status record_progress(void *context) {
  ((struct record *)context)->progress++;
  return STATUS_OK;
}

static enum status fail_to_progress(void *context) {
  (void)context;
  return fail(ERR_COMM, "the cable was pulled");
}

Test(net, forward_lets_messages_move_between_operations) {
  double *inputs = make_inputs();
  struct mlp_spec spec = spec_of(2, ACTIVATION_RELU, 0);
  struct net *net = make(F64, &spec, ROWS);
  struct record record = {.net = net};
  struct net_hooks hooks = {.context = &record, .gradient_ready = record_ready, .progress = record_progress};
  struct pass pass = training_pass(samples);
  pass.hooks = &hooks;
  OK(net_forward(net, inputs, ROWS, &pass));
  cr_expect(ge(int, record.progress, 5), "messages could move only %d times", record.progress);
  cr_expect(eq(int, record.ready, 0));
  hooks.progress = fail_to_progress;
  cr_expect(eq(int, net_forward(net, inputs, ROWS, &pass), ERR_COMM));
  net_destroy(&net);
  free(inputs);
}

static struct record record_backward(int64_t rows, int fail_at, enum status expected) {
  double *inputs = make_inputs();
  struct mlp_spec spec = spec_of(2, ACTIVATION_RELU, 0.4);
  struct problem problem = {.net = make(F64, &spec, ROWS),
                            .inputs = inputs,
                            .rows = ROWS,
                            .pass = training_pass(samples),
                            .with_features = true};
  gradients_of(&problem, NULL); /* the gradients hold something else before */
  problem.rows = rows;
  struct record record = {.net = problem.net, .fail_at = fail_at};
  struct net_hooks hooks = {.context = &record, .gradient_ready = record_ready, .progress = record_progress};
  OK(net_forward(problem.net, inputs, rows, &problem.pass));
  problem_loss(&problem);
  cr_assert(eq(int, net_backward(problem.net, problem.grad_predictions, problem.grad_features, &hooks), expected));
  if (expected == STATUS_OK) {
    struct parameters own = net_parameters(problem.net);
    cr_assert(zero(int, memcmp(record.seen, own.gradients, own.elements * sizeof(double))),
              "a gradient changed after it was reported");
    for (size_t i = 0; rows == 0 && i < own.elements; i++)
      cr_assert(eq(dbl, record.seen[i], 0), "gradient %zu", i);
  }
  net_destroy(&problem.net);
  free(inputs);
  return record;
}

static void expect_reverse_order(const struct record *record) {
  cr_assert(eq(int, record->ready, 6));
  for (int i = 0; i < 6; i++)
    cr_assert(eq(sz, record->order[i], (size_t)(5 - i)));
  cr_assert(ge(int, record->progress, 6), "messages could move only %d times", record->progress);
}

Test(net, each_gradient_is_reported_once_complete_from_the_last_to_the_first) {
  struct record record = record_backward(ROWS, 0, STATUS_OK);
  expect_reverse_order(&record);
}

Test(net, without_rows_gradients_are_zero_and_are_reported_all_the_same) {
  struct record record = record_backward(0, 0, STATUS_OK);
  expect_reverse_order(&record);
}

Test(net, a_failing_hook_ends_the_backward_pass) {
  struct record record = record_backward(ROWS, 3, ERR_COMM);
  cr_assert(eq(int, record.ready, 3));
  cr_assert(eq(str, (char *)status_message(), "the cable was pulled"));
}

/* --- a frozen encoder --------------------------------------------------------------------------------------- */

static enum status count_ready(void *context, size_t index) {
  size_t *order = context;
  order[1 + order[0]++] = index;
  return STATUS_OK;
}

/* Two passes that add up. */
static void pass_twice(struct problem *problem, const struct net_hooks *hooks) {
  problem->pass.accumulate = false;
  gradients_of(problem, NULL);
  problem->pass.accumulate = true;
  gradients_of(problem, hooks);
}

Test(net, a_frozen_encoder_has_no_gradient_and_the_head_the_same_bits) {
  double *inputs = make_inputs();
  struct mlp_spec spec = spec_of(2, ACTIVATION_TANH, 0.4);
  struct problem whole = {
      .net = make(F64, &spec, ROWS), .inputs = inputs, .rows = ROWS, .pass = training_pass(samples)};
  struct problem frozen = whole;
  frozen.net = make(F64, &spec, ROWS);
  net_freeze_encoder(frozen.net, false);
  struct parameters all = net_parameters(frozen.net), head = net_learned(frozen.net), own = net_parameters(whole.net);
  cr_assert(eq(int, head.count, 2));
  cr_assert(eq(int, head.head, 0));
  cr_assert(eq(str, (char *)head.list[0].name, (char *)all.list[all.head].name));
  cr_assert(eq(sz, head.elements, head.list[0].count + head.list[1].count));
  cr_assert(eq(ptr, head.data, (double *)all.data + all.elements - head.elements));
  cr_assert(eq(sz, net_learned(whole.net).elements, own.elements));
  size_t order[8] = {0}, encoder = all.elements - head.elements;
  struct net_hooks hooks = {.context = order, .gradient_ready = count_ready};
  pass_twice(&whole, NULL);
  pass_twice(&frozen, &hooks);
  cr_assert(zero(int, memcmp(net_predictions(frozen.net), net_predictions(whole.net), sizeof whole.grad_predictions)));
  cr_assert(zero(int, memcmp(head.gradients, (double *)own.gradients + encoder, head.elements * sizeof(double))));
  for (size_t i = 0; i < encoder; i++)
    cr_assert(eq(dbl, ((double *)all.gradients)[i], 0), "gradient %zu", i);
  cr_assert(order[0] == 2 && order[1] == 1 && order[2] == 0, "%zu gradients were reported: %zu, %zu", order[0],
            order[1], order[2]);
  net_destroy(&frozen.net);
  net_destroy(&whole.net);
  free(inputs);
}

Test(net, a_frozen_encoder_may_be_that_of_evaluation) {
  double *inputs = make_inputs();
  struct mlp_spec spec = spec_of(2, ACTIVATION_TANH, 0.4);
  struct problem whole = {
      .net = make(F64, &spec, ROWS), .inputs = inputs, .rows = ROWS, .pass = training_pass(samples)};
  struct problem frozen = whole;
  frozen.net = make(F64, &spec, ROWS);
  net_freeze_encoder(frozen.net, true);
  gradients_of(&frozen, NULL);
  gradients_of(&whole, NULL);
  size_t bytes = sizeof whole.grad_predictions;
  cr_assert(memcmp(net_predictions(frozen.net), net_predictions(whole.net), bytes) != 0, "there is no dropout");
  whole.pass.training = false;
  gradients_of(&whole, NULL);
  struct parameters head = net_learned(frozen.net), own = net_parameters(whole.net);
  cr_assert(zero(int, memcmp(net_predictions(frozen.net), net_predictions(whole.net), bytes)));
  cr_assert(zero(int, memcmp(head.gradients, (double *)own.gradients + own.elements - head.elements,
                             head.elements * sizeof(double))));
  net_destroy(&frozen.net);
  net_destroy(&whole.net);
  free(inputs);
}

/* --- refusals ----------------------------------------------------------------------------------------------- */

static void expect_refusal(const char *what, enum status got, enum status code, const char *word) {
  cr_assert(eq(int, got, code), "%s", what);
  cr_assert(strstr(status_message(), word) != NULL, "%s: \"%s\" does not say %s", what, status_message(), word);
}

Test(net, senseless_networks_are_refused_with_the_value) {
  const struct mlp_spec good = spec_of(2, ACTIVATION_RELU, 0.1);
  struct mlp_spec spec;
  struct net *net = NULL;
  const struct ops *ops = ops_host(F32);
  size_t before = memory_in_use();
#define REFUSED(change, capacity, word) \
  (spec = good, change, expect_refusal(#change, mlp_create(ops, &spec, capacity, &net), ERR_ARGUMENT, word))
  REFUSED(spec.inputs = 0, ROWS, "0 inputs");
  REFUSED(spec.inputs = -3, ROWS, "-3 inputs");
  REFUSED(spec.outputs = 0, ROWS, "0 units");
  REFUSED(spec.hidden = ((int64_t[]){8, -1}), ROWS, "-1 units");
  REFUSED(spec.hidden = ((int64_t[]){INT64_MAX, 8}), ROWS, "units");
  REFUSED(spec.dropout = 1, ROWS, "dropout 1");
  REFUSED(spec.dropout = -0.1, ROWS, "dropout -0.1");
  REFUSED(spec.dropout = NAN, ROWS, "dropout nan");
  REFUSED(spec.inputs = 4, -1, "-1 rows");
#undef REFUSED
  int64_t many[600];
  for (int i = 0; i < 600; i++)
    many[i] = 1;
  spec = good;
  spec.hidden_count = 600;
  spec.hidden = many;
  expect_refusal("600 layers", mlp_create(ops, &spec, ROWS, &net), ERR_ARGUMENT, "512 layers");
  cr_assert(eq(ptr, (void *)net, NULL));
  cr_assert(eq(sz, memory_in_use(), before));
}

Test(net, passes_that_cannot_be_are_refused) {
  double *inputs = make_inputs();
  struct mlp_spec spec = spec_of(1, ACTIVATION_RELU, 0.1);
  struct net *net = make(F64, &spec, ROWS);
  struct pass pass = training_pass(samples);
  expect_refusal("backward first", net_backward(net, inputs, NULL, NULL), ERR_BUG, "before a forward pass");
  expect_refusal("head first", net_forward_head(net, NULL), ERR_BUG, "before the encoder");
  expect_refusal("rows", net_forward(net, inputs, ROWS + 1, &pass), ERR_ARGUMENT, "7 rows");
  expect_refusal("rows", net_forward(net, inputs, -1, &pass), ERR_ARGUMENT, "-1 rows");
  pass.views = 4;
  expect_refusal("views", net_forward(net, inputs, ROWS, &pass), ERR_ARGUMENT, "4 views");
  pass.views = 1;
  pass.samples = NULL;
  expect_refusal("samples", net_forward(net, inputs, ROWS, &pass), ERR_ARGUMENT, "lacks samples");
  pass.samples = samples;
  pass.epoch = NULL;
  expect_refusal("epoch", net_forward(net, inputs, ROWS, &pass), ERR_ARGUMENT, "lacks the epoch");
  pass.training = false;
  OK(net_forward(net, inputs, ROWS, &pass));
  net_destroy(&net);
  free(inputs);
}

Test(net, without_hidden_layer_the_features_are_the_inputs_and_cannot_learn) {
  double *inputs = make_inputs();
  struct mlp_spec spec = spec_of(0, ACTIVATION_RELU, 0);
  struct net *net = make(F64, &spec, ROWS);
  struct pass pass = {0};
  OK(net_forward(net, inputs, ROWS, &pass));
  cr_assert(eq(ptr, (void *)net_features(net), inputs));
  cr_assert(eq(i64, net_feature_width(net), INPUTS));
  cr_assert(eq(ptr, net_feature_gradient(net), NULL));
  expect_refusal("features", net_backward(net, inputs, inputs, NULL), ERR_ARGUMENT, "hidden layer");
  expect_refusal("smoothing", net_can_smooth(net), ERR_ARGUMENT, "hidden layer");
  expect_refusal("smoothed features", net_backward_smoothed(net, inputs, NULL, inputs, NULL), ERR_ARGUMENT,
                 "hidden layer");
  net_destroy(&net);
  free(inputs);
}

Test(net, the_features_of_a_frozen_encoder_cannot_learn) {
  double *inputs = make_inputs();
  struct mlp_spec spec = spec_of(1, ACTIVATION_RELU, 0);
  struct net *net = make(F64, &spec, ROWS);
  struct pass pass = training_pass(samples);
  net_freeze_encoder(net, false);
  OK(net_forward(net, inputs, ROWS, &pass));
  expect_refusal("features", net_backward(net, inputs, inputs, NULL), ERR_ARGUMENT, "frozen");
  OK(net_forward(net, inputs, ROWS, &pass));
  expect_refusal("smoothed features", net_backward_smoothed(net, inputs, NULL, inputs, NULL), ERR_ARGUMENT, "frozen");
  net_destroy(&net);
  free(inputs);
}
