/* Layers against stored inputs, outputs and gradients (tests/golden/layers.h5), whatever cases the file holds.  Stored
 * images are channels-first; they are turned on their way in, and results on their way back. */
#include "model/ops.h"

#include "tests/buffers.h"
#include "tests/emulated.h"
#include "tests/golden.h"
#include "tests/staged_ops.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())

enum { MOST_BUFFERS = 256 };

/* One case in one precision.  What is loaded or made for it lives until its end. */
struct run {
  const struct ops *ops;
  enum dtype dtype;
  const struct golden_file *file;
  const char *name;
  double
      tolerance; /* largest difference over largest value; also where a channel lies far from 0: no digits are lost */
  struct workspace workspace;
  void *buffers[MOST_BUFFERS];
  int buffer_count;
};

static void *keep(struct run *run, void *buffer) {
  cr_assert(lt(int, run->buffer_count, MOST_BUFFERS));
  run->buffers[run->buffer_count++] = buffer;
  return buffer;
}

static void *load(struct run *run, const char *path, int64_t *count) {
  struct golden_array array = golden_read(run->file, run->name, path);
  if (count != NULL)
    *count = array.count;
  void *data = golden_buffer(&array, run->dtype);
  golden_free(&array);
  return keep(run, data);
}

/* Room for a result, filled with what is certainly wrong. */
static void *room(struct run *run, int64_t count) {
  return keep(run, buffer_filled(run->dtype, count, 1e30));
}

static double *doubles(struct run *run, int64_t count) {
  return keep(run, buffer_filled(F64, count, 1e30));
}

static void expect_as(struct run *run, enum dtype dtype, const char *path, const void *got) {
  struct golden_array expected = golden_read(run->file, run->name, path);
  double error = golden_array_error(dtype, expected.count, got, expected.data);
  cr_assert(le(dbl, error, run->tolerance), "%s/%s in %s differs by %g, more than %g", run->name, path,
            dtype_name(run->dtype), error, run->tolerance);
  golden_free(&expected);
}

static void expect(struct run *run, const char *path, const void *got) {
  expect_as(run, run->dtype, path, got);
}

static double attribute(const struct run *run, const char *name, double absent) {
  return golden_number(run->file, run->name, name, absent);
}

/* --- images ------------------------------------------------------------------------------------------------- */

/* [rows, height, width, channels] */
struct image {
  int64_t rows, height, width, channels;
  void *data;
};

static int64_t image_count(const struct image *image) {
  return image->rows * image->height * image->width * image->channels;
}

static struct image image_room(struct run *run, int64_t rows, int64_t height, int64_t width, int64_t channels) {
  struct image image = {rows, height, width, channels, NULL};
  image.data = room(run, image_count(&image));
  return image;
}

static struct image image_like(struct run *run, const struct image *other) {
  return image_room(run, other->rows, other->height, other->width, other->channels);
}

/* Where element i of a channels-first array is. */
static int64_t channels_last(const struct image *image, int64_t i) {
  int64_t x = i % image->width, y = i / image->width % image->height, area = image->width * image->height;
  int64_t channel = i / area % image->channels, row = i / area / image->channels;
  return ((row * image->height + y) * image->width + x) * image->channels + channel;
}

/* A stored [rows, channels, height, width] or [rows, channels]. */
static struct image image_load(struct run *run, const char *path) {
  struct golden_array array = golden_read(run->file, run->name, path);
  struct image image = image_room(run, array.shape[0], array.shape[2], array.shape[3], array.shape[1]);
  for (int64_t i = 0; i < array.count; i++)
    buffer_set(run->dtype, image.data, channels_last(&image, i), array.data[i]);
  golden_free(&array);
  return image;
}

static void image_expect(struct run *run, const char *path, const struct image *got) {
  void *turned = room(run, image_count(got));
  for (int64_t i = 0; i < image_count(got); i++)
    buffer_set(run->dtype, turned, i, buffer_get(run->dtype, got->data, channels_last(got, i)));
  expect(run, path, turned);
}

/* --- vectors ------------------------------------------------------------------------------------------------ */

static void run_linear(struct run *run) {
  struct golden_array shape = golden_read(run->file, run->name, "weight");
  int64_t out = shape.shape[0], in = shape.shape[1], inputs;
  bool biased = golden_has(run->file, run->name, "bias");
  golden_free(&shape);
  const void *x = load(run, "input", &inputs), *weight = load(run, "weight", NULL);
  const void *bias = biased ? load(run, "bias", NULL) : NULL, *grad_y = load(run, "grad_output", NULL);
  int64_t rows = inputs / in;
  void *y = room(run, rows * out), *grad_x = room(run, rows * in), *grad_weight = room(run, out * in);
  void *grad_bias = biased ? room(run, out) : NULL;
  struct linear_shape linear = {.in = in, .out = out};
  OK(run->ops->linear_forward(rows, &linear, x, weight, bias, y));
  OK(run->ops->linear_backward_data(rows, &linear, grad_y, weight, grad_x));
  OK(run->ops->linear_backward_weights(rows, &linear, x, grad_y, grad_weight, grad_bias));
  expect(run, "output", y);
  expect(run, "grad_input", grad_x);
  expect(run, "grad_weight", grad_weight);
  if (biased)
    expect(run, "grad_bias", grad_bias);
}

static void run_relu(struct run *run) {
  int64_t count;
  const void *x = load(run, "input", &count), *grad_y = load(run, "grad_output", NULL);
  void *y = room(run, count), *grad_x = room(run, count);
  OK(run->ops->activation_forward(ACTIVATION_RELU, (size_t)count, x, y));
  OK(run->ops->activation_backward(ACTIVATION_RELU, (size_t)count, x, y, grad_y, grad_x));
  expect(run, "output", y);
  expect(run, "grad_input", grad_x);
}

static void run_dropout(struct run *run) {
  int64_t count;
  double share = attribute(run, "p", -1);
  struct golden_array stored = golden_read(run->file, run->name, "mask");
  uint8_t *mask = keep(run, malloc((size_t)stored.count));
  for (int64_t i = 0; i < stored.count; i++)
    mask[i] = stored.data[i] != 0;
  golden_free(&stored);
  const void *x = load(run, "input", &count), *grad_y = load(run, "grad_output", NULL);
  void *y = room(run, count), *grad_x = room(run, count);
  OK(run->ops->dropout_apply((size_t)count, share, mask, x, y));
  OK(run->ops->dropout_apply((size_t)count, share, mask, grad_y, grad_x));
  expect(run, "output", y);
  expect(run, "grad_input", grad_x);
}

/* --- convolution -------------------------------------------------------------------------------------------- */

struct conv_layer {
  struct conv_shape shape;
  struct conv *conv;
  const void *weight, *bias;
  struct image x, y;
};

/* The layer whose weights are at `path`, and its output. */
static struct conv_layer conv_forward(struct run *run, const char *path, const struct image *x, int stride, int padding,
                                      const void *bias) {
  struct conv_layer layer = {.bias = bias, .x = *x};
  struct golden_array stored = golden_read(run->file, run->name, path);
  layer.shape = (struct conv_shape){x->height, x->width, x->channels, stored.shape[0], (int)stored.shape[2],
                                    stride,    padding,  bias != NULL};
  cr_assert(eq(i64, stored.shape[1], x->channels), "%s/%s", run->name, path);
  golden_free(&stored);
  layer.weight = load(run, path, NULL);
  layer.y = image_room(run, x->rows, spatial_out(x->height, layer.shape.kernel, stride, padding),
                       spatial_out(x->width, layer.shape.kernel, stride, padding), layer.shape.out);
  OK(run->ops->conv_create(&layer.shape, &layer.conv));
  OK(run->ops->conv_forward(layer.conv, &run->workspace, x->rows, x->data, layer.weight, bias, layer.y.data));
  return layer;
}

/* The gradient of the layer's input; that of its weights is compared at `path`.  Ends the layer. */
static struct image conv_backward(struct run *run, struct conv_layer *layer, const void *grad_y, const char *path) {
  const struct conv_shape *s = &layer->shape;
  struct image grad_x = image_like(run, &layer->x);
  void *grad_weight = room(run, s->out * s->in * s->kernel * s->kernel), *grad_bias = room(run, s->out);
  OK(run->ops->conv_backward_weights(layer->conv, &run->workspace, layer->x.rows, layer->x.data, grad_y, grad_weight,
                                     s->bias ? grad_bias : NULL));
  OK(run->ops->conv_backward_data(layer->conv, &run->workspace, layer->x.rows, grad_y, layer->weight, grad_x.data));
  expect(run, path, grad_weight);
  if (s->bias)
    expect(run, "grad_bias", grad_bias);
  run->ops->conv_destroy(&layer->conv);
  return grad_x;
}

static void run_conv(struct run *run) {
  struct image x = image_load(run, "input"), grad_y = image_load(run, "grad_output");
  const void *bias = golden_has(run->file, run->name, "bias") ? load(run, "bias", NULL) : NULL;
  int stride = (int)attribute(run, "stride", 0), padding = (int)attribute(run, "padding", -1);
  struct conv_layer layer = conv_forward(run, "weight", &x, stride, padding, bias);
  image_expect(run, "output", &layer.y);
  struct image grad_x = conv_backward(run, &layer, grad_y.data, "grad_weight");
  image_expect(run, "grad_input", &grad_x);
}

/* --- pooling ------------------------------------------------------------------------------------------------ */

/* The places chosen in the stored form: y width + x of the input. */
static void expect_indices(struct run *run, const struct pool_shape *shape, const struct image *y,
                           const uint8_t *chosen) {
  struct golden_array indices = golden_read(run->file, run->name, "indices");
  for (int64_t i = 0; i < indices.count; i++) {
    int64_t oy = i / y->width % y->height, ox = i % y->width, element = chosen[channels_last(y, i)];
    int64_t iy = oy * shape->stride - shape->padding + element / shape->kernel_width;
    int64_t ix = ox * shape->stride - shape->padding + element % shape->kernel_width;
    cr_assert(eq(dbl, (double)(iy * shape->width + ix), indices.data[i]), "%s/indices[%lld] in %s", run->name,
              (long long)i, dtype_name(run->dtype));
  }
  golden_free(&indices);
}

static void run_pool(struct run *run, int kernel_height, int kernel_width, int stride, int padding, bool maximum) {
  struct image x = image_load(run, "input"), grad_y = image_load(run, "grad_output"), grad_x = image_like(run, &x);
  struct pool_shape shape = {x.height, x.width, x.channels, kernel_height, kernel_width, stride, padding};
  struct image y = image_room(run, x.rows, spatial_out(x.height, kernel_height, stride, padding),
                              spatial_out(x.width, kernel_width, stride, padding), x.channels);
  uint8_t *chosen = keep(run, malloc((size_t)image_count(&y)));
  if (maximum) {
    OK(run->ops->max_pool_forward(&shape, x.rows, x.data, y.data, chosen));
    OK(run->ops->max_pool_backward(&shape, x.rows, grad_y.data, chosen, grad_x.data));
    expect_indices(run, &shape, &y, chosen);
  } else {
    OK(run->ops->average_pool_forward(&shape, x.rows, x.data, y.data));
    OK(run->ops->average_pool_backward(&shape, x.rows, grad_y.data, grad_x.data));
  }
  image_expect(run, "output", &y);
  image_expect(run, "grad_input", &grad_x);
}

static void run_max_pool(struct run *run) {
  int kernel = (int)attribute(run, "kernel", 3);
  run_pool(run, kernel, kernel, (int)attribute(run, "stride", 2), (int)attribute(run, "padding", 1), true);
}

static void run_average_pool(struct run *run) {
  int kernel = (int)attribute(run, "kernel", 7);
  run_pool(run, kernel, kernel, (int)attribute(run, "stride", 1), 0, false);
}

static void run_global_pool(struct run *run) {
  struct image x = image_load(run, "input");
  run_pool(run, (int)x.height, (int)x.width, 1, 0, false);
}

/* --- batch normalisation ------------------------------------------------------------------------------------ */

enum { MOST_SHARDS = 16 };

/* A layer whose rows are spread over ranks; one rank unless the case says otherwise. */
struct norm_layer {
  struct image x, y;
  int shards;
  int64_t first[MOST_SHARDS + 1]; /* row of each rank, and the number of rows */
  bool training;
  double count; /* values per channel on all ranks */
  double *mean, *square, *inverse, *sums;
  const void *gamma, *beta;
};

static void *at_row(const struct run *run, const struct image *image, int64_t row) {
  return (char *)image->data + (size_t)(row * image->height * image->width * image->channels) * dtype_size(run->dtype);
}

static size_t shard_count(const struct norm_layer *layer, int rank) {
  return (size_t)((layer->first[rank + 1] - layer->first[rank]) * layer->x.height * layer->x.width);
}

/* Each rank's own statistics against the stored ones; relative to each number, in full double for exact inputs. */
static void expect_shard(struct run *run, int rank, size_t count, int64_t channels, const double *mean,
                         const double *square) {
  struct golden_array means = golden_read(run->file, run->name, "shard_mean");
  struct golden_array squares = golden_read(run->file, run->name, "shard_m2");
  struct golden_array counts = golden_read(run->file, run->name, "shard_count");
  cr_assert(eq(dbl, (double)count, counts.data[rank]), "%s, rank %d", run->name, rank);
  double mean_error = golden_array_error(F64, channels, mean, means.data + rank * channels);
  double square_error = golden_array_error(F64, channels, square, squares.data + rank * channels);
  cr_assert(le(dbl, mean_error, run->tolerance), "%s, rank %d: means differ by %g", run->name, rank, mean_error);
  cr_assert(le(dbl, square_error, run->tolerance), "%s, rank %d: squares differ by %g", run->name, rank, square_error);
  golden_free(&means);
  golden_free(&squares);
  golden_free(&counts);
}

/* The joint mean first, then squares about it, as ranks do it with sums. */
static void merge_statistics(struct run *run, struct norm_layer *layer) {
  int64_t channels = layer->x.channels;
  double *mean = doubles(run, layer->shards * channels), *square = doubles(run, layer->shards * channels);
  layer->count = 0;
  memset(layer->mean, 0, (size_t)channels * sizeof(double));
  memset(layer->square, 0, (size_t)channels * sizeof(double));
  for (int r = 0; r < layer->shards; r++) {
    size_t count = shard_count(layer, r);
    double *own = mean + r * channels, *own_square = square + r * channels;
    OK(run->ops->norm_statistics(count, channels, at_row(run, &layer->x, layer->first[r]), own, own_square));
    if (layer->shards > 1)
      expect_shard(run, r, count, channels, own, own_square);
    layer->count += (double)count;
    for (int64_t c = 0; c < channels; c++)
      layer->mean[c] += (double)count * own[c];
  }
  for (int64_t c = 0; c < channels; c++)
    layer->mean[c] /= layer->count;
  for (int64_t i = 0; i < layer->shards * channels; i++) {
    double apart = mean[i] - layer->mean[i % channels];
    layer->square[i % channels] += square[i] + (double)shard_count(layer, (int)(i / channels)) * apart * apart;
  }
}

/* Statistics: of the rows when training, else those stored at `prefix`running_... .  y receives the result. */
static void norm_forward(struct run *run, struct norm_layer *layer, const char *running_mean, const char *running_var,
                         const struct image *residual, bool relu) {
  int64_t channels = layer->x.channels;
  double epsilon = attribute(run, "eps", 1e-5);
  layer->mean = doubles(run, channels);
  layer->square = doubles(run, channels);
  layer->inverse = doubles(run, channels);
  layer->y = image_like(run, &layer->x);
  if (layer->training)
    merge_statistics(run, layer);
  const void *mean = load(run, running_mean, NULL), *variance = load(run, running_var, NULL);
  for (int64_t c = 0; c < channels; c++) {
    layer->mean[c] = layer->training ? layer->mean[c] : buffer_get(run->dtype, mean, c);
    double own = layer->training ? layer->square[c] / layer->count : buffer_get(run->dtype, variance, c);
    layer->inverse[c] = 1 / sqrt(own + epsilon);
  }
  for (int r = 0; r < layer->shards; r++) {
    int64_t row = layer->first[r];
    OK(run->ops->norm_forward(shard_count(layer, r), channels, at_row(run, &layer->x, row), layer->mean, layer->inverse,
                              layer->gamma, layer->beta, residual == NULL ? NULL : at_row(run, residual, row), relu,
                              at_row(run, &layer->y, row)));
  }
}

/* The gradient of x; what relu and residual share is left in `masked`, sums [2 channels] in the layer. */
static struct image norm_backward(struct run *run, struct norm_layer *layer, const struct image *grad_y, bool relu,
                                  struct image *masked) {
  int64_t channels = layer->x.channels;
  struct image grad_x = image_like(run, &layer->x);
  double *own = doubles(run, 2 * channels), *means = doubles(run, 2 * channels);
  *masked = image_like(run, &layer->x);
  layer->sums = doubles(run, 2 * channels);
  memset(layer->sums, 0, (size_t)(2 * channels) * sizeof(double));
  for (int r = 0; r < layer->shards; r++) {
    int64_t row = layer->first[r];
    OK(run->ops->norm_backward_sums(shard_count(layer, r), channels, at_row(run, grad_y, row), NULL,
                                    at_row(run, &layer->x, row), relu ? at_row(run, &layer->y, row) : NULL, layer->mean,
                                    layer->inverse, at_row(run, masked, row), own));
    for (int64_t c = 0; c < 2 * channels; c++)
      layer->sums[c] += own[c];
  }
  for (int64_t c = 0; c < 2 * channels; c++)
    means[c] = layer->sums[c] / layer->count;
  for (int r = 0; r < layer->shards; r++) {
    int64_t row = layer->first[r];
    OK(run->ops->norm_backward_data(shard_count(layer, r), channels, at_row(run, masked, row),
                                    at_row(run, &layer->x, row), layer->mean, layer->inverse, layer->gamma,
                                    layer->training ? means : NULL, layer->training ? means + channels : NULL,
                                    at_row(run, &grad_x, row)));
  }
  return grad_x;
}

/* One step of the running statistics, whose variance is unbiased. */
static void expect_running(struct run *run, const struct norm_layer *layer, const char *const before[2],
                           const char *const after[2]) {
  double share = attribute(run, "momentum", 0.1);
  int64_t channels = layer->x.channels;
  double *mean = doubles(run, channels), *variance = doubles(run, channels);
  const void *old_mean = load(run, before[0], NULL), *old_variance = load(run, before[1], NULL);
  for (int64_t c = 0; c < channels; c++) {
    double unbiased = layer->square[c] / (layer->count - 1);
    mean[c] = (1 - share) * buffer_get(run->dtype, old_mean, c) + share * layer->mean[c];
    variance[c] = (1 - share) * buffer_get(run->dtype, old_variance, c) + share * unbiased;
  }
  expect_as(run, F64, after[0], mean);
  expect_as(run, F64, after[1], variance);
}

static struct norm_layer norm_layer(struct run *run, const struct image *x, const char *gamma, const char *beta) {
  struct norm_layer layer = {.x = *x, .shards = 1, .first = {0, x->rows}};
  layer.training = attribute(run, "training", 0) != 0;
  layer.count = (double)(x->rows * x->height * x->width);
  layer.gamma = load(run, gamma, NULL);
  layer.beta = load(run, beta, NULL);
  return layer;
}

static void spread_rows(struct run *run, struct norm_layer *layer) {
  layer->shards = (int)attribute(run, "shards", 0);
  cr_assert(layer->shards >= 0 && layer->shards <= MOST_SHARDS, "%s: %d shards", run->name, layer->shards);
  if (layer->shards == 0) {
    layer->shards = 1;
    return;
  }
  struct golden_array offsets = golden_read(run->file, run->name, "shard_offsets");
  for (int r = 0; r <= layer->shards; r++)
    layer->first[r] = (int64_t)offsets.data[r];
  golden_free(&offsets);
}

static void run_norm(struct run *run) {
  static const char *const before[2] = {"running_mean_before", "running_var_before"};
  static const char *const after[2] = {"running_mean_after", "running_var_after"};
  struct image x = image_load(run, "input"), grad_y = image_load(run, "grad_output"), masked;
  struct norm_layer layer = norm_layer(run, &x, "weight", "bias");
  spread_rows(run, &layer);
  norm_forward(run, &layer, before[0], before[1], NULL, false);
  image_expect(run, "output", &layer.y);
  struct image grad_x = norm_backward(run, &layer, &grad_y, false, &masked);
  image_expect(run, "grad_input", &grad_x);
  expect_as(run, F64, "grad_bias", layer.sums);
  expect_as(run, F64, "grad_weight", layer.sums + x.channels);
  if (!layer.training)
    return;
  for (int64_t c = 0; c < x.channels; c++)
    layer.inverse[c] = layer.square[c] / layer.count;
  expect_as(run, F64, "batch_mean", layer.mean);
  expect_as(run, F64, "batch_var_biased", layer.inverse);
  expect_running(run, &layer, before, after);
}

/* --- residual blocks ---------------------------------------------------------------------------------------- */

typedef char path[96];

/* A convolution, its batch norm, and what follows: names are those of the stored parameters. */
struct unit {
  const char *conv_name, *norm_name;
  bool relu;
  struct conv_layer conv;
  struct norm_layer norm;
};

static struct image unit_forward(struct run *run, struct unit *unit, const struct image *x, int stride,
                                 const struct image *residual) {
  path weight, gamma, beta, mean, variance;
  snprintf(weight, sizeof weight, "parameters/%s.weight", unit->conv_name);
  snprintf(gamma, sizeof gamma, "parameters/%s.weight", unit->norm_name);
  snprintf(beta, sizeof beta, "parameters/%s.bias", unit->norm_name);
  snprintf(mean, sizeof mean, "buffers_before/%s.running_mean", unit->norm_name);
  snprintf(variance, sizeof variance, "buffers_before/%s.running_var", unit->norm_name);
  struct golden_array stored = golden_read(run->file, run->name, weight);
  int padding = (int)stored.shape[2] / 2;
  golden_free(&stored);
  unit->conv = conv_forward(run, weight, x, stride, padding, NULL);
  unit->norm = norm_layer(run, &unit->conv.y, gamma, beta);
  norm_forward(run, &unit->norm, mean, variance, residual, unit->relu);
  return unit->norm.y;
}

static struct image unit_backward(struct run *run, struct unit *unit, const struct image *grad_y,
                                  struct image *masked) {
  path weight, gamma, beta;
  snprintf(weight, sizeof weight, "grad_parameters/%s.weight", unit->conv_name);
  snprintf(gamma, sizeof gamma, "grad_parameters/%s.weight", unit->norm_name);
  snprintf(beta, sizeof beta, "grad_parameters/%s.bias", unit->norm_name);
  struct image grad = norm_backward(run, &unit->norm, grad_y, unit->relu, masked);
  expect_as(run, F64, beta, unit->norm.sums);
  expect_as(run, F64, gamma, unit->norm.sums + unit->norm.x.channels);
  return conv_backward(run, &unit->conv, grad.data, weight);
}

static void unit_expect_running(struct run *run, const struct unit *unit) {
  path names[4];
  for (int i = 0; i < 4; i++)
    snprintf(names[i], sizeof names[i], "buffers_%s/%s.running_%s", i < 2 ? "before" : "after", unit->norm_name,
             i % 2 == 0 ? "mean" : "var");
  expect_running(run, &unit->norm, (const char *const[2]){names[0], names[1]},
                 (const char *const[2]){names[2], names[3]});
}

/* strided: which of the convolutions takes the stride. */
static void run_block(struct run *run, int units, int strided) {
  struct unit unit[] = {{"conv1", "bn1", .relu = true}, {"conv2", "bn2", .relu = true}, {"conv3", "bn3", .relu = true}};
  struct unit projection = {"downsample.0", "downsample.1", .relu = false};
  struct image x = image_load(run, "input"), grad_y = image_load(run, "grad_output"), shortcut = x, y = x, masked;
  int stride = (int)attribute(run, "stride", 0);
  bool projects = attribute(run, "projection", 0) != 0;
  if (projects)
    shortcut = unit_forward(run, &projection, &x, stride, NULL);
  for (int i = 0; i < units; i++)
    y = unit_forward(run, &unit[i], &y, i == strided ? stride : 1, i == units - 1 ? &shortcut : NULL);
  image_expect(run, "output", &y);
  struct image grad_shortcut, grad = unit_backward(run, &unit[units - 1], &grad_y, &grad_shortcut);
  for (int i = units - 2; i >= 0; i--)
    grad = unit_backward(run, &unit[i], &grad, &masked);
  if (projects)
    grad_shortcut = unit_backward(run, &projection, &grad_shortcut, &masked);
  OK(run->ops->add((size_t)image_count(&grad), 1, grad_shortcut.data, grad.data));
  image_expect(run, "grad_input", &grad);
  for (int i = 0; i < units && unit[0].norm.training; i++)
    unit_expect_running(run, &unit[i]);
  if (projects && unit[0].norm.training)
    unit_expect_running(run, &projection);
}

static void run_basic_block(struct run *run) {
  run_block(run, 2, 0);
}

static void run_bottleneck(struct run *run) {
  run_block(run, 3, 1);
}

/* --- all cases ---------------------------------------------------------------------------------------------- */

static const struct {
  const char *op;
  void (*check)(struct run *run);
} layers[] = {{"linear", run_linear},
              {"relu", run_relu},
              {"dropout", run_dropout},
              {"conv2d", run_conv},
              {"max_pool2d", run_max_pool},
              {"avg_pool2d", run_average_pool},
              {"global_avg_pool2d", run_global_pool},
              {"batch_norm", run_norm},
              {"basic_block", run_basic_block},
              {"bottleneck", run_bottleneck}};

static void run_on(const struct ops *ops, double tolerance, void (*check)(struct run *run),
                   const struct golden_file *file, const char *name) {
  struct run run = {.ops = ops, .dtype = ops->dtype, .file = file, .name = name, .tolerance = tolerance};
  run.workspace.device = ops->device;
  check(&run);
  for (int i = 0; i < run.buffer_count; i++)
    free(run.buffers[i]);
  workspace_free(&run.workspace);
}

/* NULL when the layer is not there yet. */
static void (*check_of(const char *op))(struct run *run) {
  for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
    if (strcmp(op, layers[i].op) == 0)
      return layers[i].check;
  return NULL;
}

static bool is_planned(const char *op) {
  return strcmp(op, "upsample_bilinear2d") == 0 || strcmp(op, "up_projection") == 0;
}

Test(golden_layers, stored_layers_are_reproduced_in_both_precisions) {
  struct golden_file *file = golden_open("layers.h5");
  for (int i = 0; i < golden_case_count(file); i++) {
    const char *name = golden_case_name(file, i);
    char op[64];
    golden_text(file, name, "op", "", op, sizeof op);
    void (*check)(struct run * run) = check_of(op);
    if (check != NULL) {
      run_on(ops_host(F32), 1e-5, check, file, name);
      run_on(ops_host(F64), 1e-12, check, file, name);
      golden_ran(file);
      continue;
    }
    cr_assert(is_planned(op), "no test knows layer \"%s\" of %s: add it to one", op, name);
    golden_skip(file, "depth networks are planned");
  }
  golden_report(file);
  golden_close(&file);
}

/* In float32: algorithms of convolutions and matrix products are the libraries' choice, and so is how their sums
 * round. */
Test(golden_layers, stored_layers_are_reproduced_on_a_gpu) {
  struct device *device;
  const struct ops *ops;
  if (!gpu_use())
    cr_skip("there is no emulated CUDA library, and CONR_TEST_DEVICE=cuda does not ask for a GPU");
  OK(device_open(0, &device));
  OK(ops_open(device, PRECISION_F32, &ops));
  struct golden_file *file = golden_open("layers.h5");
  for (int i = 0; i < golden_case_count(file); i++) {
    const char *name = golden_case_name(file, i);
    char op[64];
    golden_text(file, name, "op", "", op, sizeof op);
    if (check_of(op) != NULL)
      run_on(staged_ops(ops), 1e-4, check_of(op), file, name);
  }
  golden_close(&file);
  device_close(&device);
}
