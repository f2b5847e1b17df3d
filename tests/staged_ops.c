/* Entries that take their arguments to a GPU and back. */
#include "tests/staged_ops.h"

#include <string.h>

enum { MOST_BLOCKS = 16 };

/* The table that is wrapped, and what the call at hand has on the device. */
static struct {
  const struct ops *ops;
  struct {
    void *device, *host; /* host NULL = no result */
    size_t bytes;
  } blocks[MOST_BLOCKS];
  int count;
  enum status status; /* the first failure of the call */
} staged;

static void keep(enum status status) {
  if (staged.status == STATUS_OK)
    staged.status = status;
}

/* A block with the bytes of `from`; NULL for NULL. */
static void *take(const void *from, size_t bytes) {
  void **block = &staged.blocks[staged.count].device;
  if (from == NULL)
    return NULL;
  staged.blocks[staged.count].host = NULL;
  staged.blocks[staged.count++].bytes = bytes;
  keep(device_alloc(staged.ops->device, bytes, block));
  keep(device_copy(staged.ops->device, *block, from, bytes));
  return *block;
}

/* A block that is copied to `host` in the end; it begins with what is there. */
static void *give(void *host, size_t bytes) {
  void *block = take(host, bytes);
  if (block != NULL)
    staged.blocks[staged.count - 1].host = host;
  return block;
}

/* `call` is made unless an argument could not be taken. */
#define RUN(call)                   \
  do {                              \
    if (staged.status == STATUS_OK) \
      keep(staged.ops->call);       \
  } while (0)

static enum status finish(void) {
  enum status status;
  for (int i = 0; i < staged.count; i++)
    if (staged.blocks[i].host != NULL)
      keep(device_copy(staged.ops->device, staged.blocks[i].host, staged.blocks[i].device, staged.blocks[i].bytes));
  keep(device_wait(staged.ops->device));
  while (staged.count > 0)
    device_free(staged.ops->device, &staged.blocks[--staged.count].device);
  status = staged.status;
  staged.status = STATUS_OK;
  return status;
}

/* Bytes of values, and of parameters. */
static size_t values(int64_t count) {
  return (size_t)count * dtype_size(staged.ops->dtype);
}

static size_t parameters(int64_t count) {
  return (size_t)count * dtype_size(staged.ops->parameter_dtype);
}

static size_t doubles(int64_t count) {
  return (size_t)count * sizeof(double);
}

/* --- vectors ------------------------------------------------------------------------------------------------- */

static enum status linear_forward(int64_t rows, const struct linear_shape *shape, const void *x, const void *weight,
                                  const void *bias, void *y) {
  const void *own_x = take(x, values(rows * shape->in)), *own_weight = take(weight, parameters(shape->in * shape->out));
  const void *own_bias = take(bias, parameters(shape->out));
  void *own_y = give(y, values(rows * shape->out));
  RUN(linear_forward(rows, shape, own_x, own_weight, own_bias, own_y));
  return finish();
}

static enum status linear_backward_data(int64_t rows, const struct linear_shape *shape, const void *grad_y,
                                        const void *weight, void *grad_x) {
  const void *own_y = take(grad_y, values(rows * shape->out));
  const void *own_weight = take(weight, parameters(shape->in * shape->out));
  void *own_x = give(grad_x, values(rows * shape->in));
  RUN(linear_backward_data(rows, shape, own_y, own_weight, own_x));
  return finish();
}

static enum status linear_backward_weights(int64_t rows, const struct linear_shape *shape, const void *x,
                                           const void *grad_y, void *grad_weight, void *grad_bias) {
  const void *own_x = take(x, values(rows * shape->in)), *own_y = take(grad_y, values(rows * shape->out));
  void *own_weight = give(grad_weight, parameters(shape->in * shape->out));
  void *own_bias = give(grad_bias, parameters(shape->out));
  RUN(linear_backward_weights(rows, shape, own_x, own_y, own_weight, own_bias));
  return finish();
}

static enum status activation_forward(enum activation activation, size_t count, const void *x, void *y) {
  size_t bytes = values((int64_t)count);
  const void *own_x = take(x, bytes);
  void *own_y = give(y, bytes);
  RUN(activation_forward(activation, count, own_x, own_y));
  return finish();
}

static enum status activation_backward(enum activation activation, size_t count, const void *x, const void *y,
                                       const void *grad_y, void *grad_x) {
  size_t bytes = values((int64_t)count);
  const void *own_x = take(x, bytes), *own_y = take(y, bytes), *own_grad_y = take(grad_y, bytes);
  void *own_grad_x = give(grad_x, bytes);
  RUN(activation_backward(activation, count, own_x, own_y, own_grad_y, own_grad_x));
  return finish();
}

static enum status dropout_apply(size_t count, double share, const uint8_t *mask, const void *x, void *y) {
  const uint8_t *own_mask = take(mask, count);
  const void *own_x = take(x, values((int64_t)count));
  void *own_y = give(y, values((int64_t)count));
  RUN(dropout_apply(count, share, own_mask, own_x, own_y));
  return finish();
}

static enum status add(size_t count, double a, const void *x, void *y) {
  const void *own_x = take(x, values((int64_t)count));
  void *own_y = give(y, values((int64_t)count));
  RUN(add(count, a, own_x, own_y));
  return finish();
}

/* --- convolutions -------------------------------------------------------------------------------------------- */

/* The shape comes with create; the others need it for their sizes. */
struct conv {
  struct conv_shape shape;
  struct conv *own;
};

static enum status conv_create(const struct conv_shape *shape, struct conv **out) {
  struct conv *conv;
  TRY(device_alloc(NULL, sizeof *conv, (void **)&conv));
  conv->shape = *shape;
  *out = conv;
  return staged.ops->conv_create(shape, &conv->own);
}

static void conv_destroy(struct conv **conv) {
  if (*conv != NULL)
    staged.ops->conv_destroy(&(*conv)->own);
  device_free(NULL, (void **)conv);
}

static size_t x_bytes(const struct conv_shape *s, int64_t rows) {
  return values(rows * s->height * s->width * s->in);
}

static size_t y_bytes(const struct conv_shape *s, int64_t rows) {
  return values(rows * spatial_out(s->height, s->kernel, s->stride, s->padding) *
                spatial_out(s->width, s->kernel, s->stride, s->padding) * s->out);
}

static size_t weight_bytes(const struct conv_shape *s) {
  return parameters(s->out * s->in * s->kernel * s->kernel);
}

static enum status conv_forward(struct conv *conv, struct workspace *workspace, int64_t rows, const void *x,
                                const void *weight, const void *bias, void *y) {
  const struct conv_shape *s = &conv->shape;
  const void *own_x = take(x, x_bytes(s, rows)), *own_weight = take(weight, weight_bytes(s));
  const void *own_bias = take(bias, parameters(s->out));
  void *own_y = give(y, y_bytes(s, rows));
  RUN(conv_forward(conv->own, workspace, rows, own_x, own_weight, own_bias, own_y));
  return finish();
}

static enum status conv_backward_data(struct conv *conv, struct workspace *workspace, int64_t rows, const void *grad_y,
                                      const void *weight, void *grad_x) {
  const struct conv_shape *s = &conv->shape;
  const void *own_y = take(grad_y, y_bytes(s, rows)), *own_weight = take(weight, weight_bytes(s));
  void *own_x = give(grad_x, x_bytes(s, rows));
  RUN(conv_backward_data(conv->own, workspace, rows, own_y, own_weight, own_x));
  return finish();
}

static enum status conv_backward_weights(struct conv *conv, struct workspace *workspace, int64_t rows, const void *x,
                                         const void *grad_y, void *grad_weight, void *grad_bias) {
  const struct conv_shape *s = &conv->shape;
  const void *own_x = take(x, x_bytes(s, rows)), *own_y = take(grad_y, y_bytes(s, rows));
  void *own_weight = give(grad_weight, weight_bytes(s)), *own_bias = give(grad_bias, parameters(s->out));
  RUN(conv_backward_weights(conv->own, workspace, rows, own_x, own_y, own_weight, own_bias));
  return finish();
}

/* --- batch normalisation ------------------------------------------------------------------------------------- */

static enum status norm_statistics(size_t count, int64_t channels, const void *x, double *mean, double *square) {
  const void *own_x = take(x, values((int64_t)count * channels));
  double *own_mean = give(mean, doubles(channels)), *own_square = give(square, doubles(channels));
  RUN(norm_statistics(count, channels, own_x, own_mean, own_square));
  return finish();
}

static enum status norm_forward(size_t count, int64_t channels, const void *x, const double *mean,
                                const double *inverse, const void *gamma, const void *beta, const void *residual,
                                bool relu, void *y) {
  size_t bytes = values((int64_t)count * channels);
  const void *own_x = take(x, bytes), *own_gamma = take(gamma, parameters(channels));
  const void *own_beta = take(beta, parameters(channels)), *own_residual = take(residual, bytes);
  const double *own_mean = take(mean, doubles(channels)), *own_inverse = take(inverse, doubles(channels));
  void *own_y = give(y, bytes);
  RUN(norm_forward(count, channels, own_x, own_mean, own_inverse, own_gamma, own_beta, own_residual, relu, own_y));
  return finish();
}

static enum status norm_backward_sums(size_t count, int64_t channels, const void *grad, const void *more, const void *x,
                                      const void *y, const double *mean, const double *inverse, void *masked,
                                      double *sums) {
  size_t bytes = values((int64_t)count * channels);
  const void *own_grad = take(grad, bytes), *own_more = take(more, bytes), *own_x = take(x, bytes);
  const void *own_y = take(y, bytes);
  const double *own_mean = take(mean, doubles(channels)), *own_inverse = take(inverse, doubles(channels));
  void *own_masked = give(masked, bytes);
  double *own_sums = give(sums, doubles(2 * channels));
  RUN(norm_backward_sums(count, channels, own_grad, own_more, own_x, own_y, own_mean, own_inverse, own_masked,
                         own_sums));
  return finish();
}

static enum status norm_backward_data(size_t count, int64_t channels, const void *g, const void *x, const double *mean,
                                      const double *inverse, const void *gamma, const double *mean_g,
                                      const double *mean_gx, void *grad_x) {
  size_t bytes = values((int64_t)count * channels);
  const void *own_g = take(g, bytes), *own_x = take(x, bytes), *own_gamma = take(gamma, parameters(channels));
  const double *own_mean = take(mean, doubles(channels)), *own_inverse = take(inverse, doubles(channels));
  const double *own_mean_g = take(mean_g, doubles(channels)), *own_mean_gx = take(mean_gx, doubles(channels));
  void *own_grad_x = give(grad_x, bytes);
  RUN(norm_backward_data(count, channels, own_g, own_x, own_mean, own_inverse, own_gamma, own_mean_g, own_mean_gx,
                         own_grad_x));
  return finish();
}

/* --- pooling ------------------------------------------------------------------------------------------------- */

static int64_t pool_in(const struct pool_shape *s, int64_t rows) {
  return rows * s->height * s->width * s->channels;
}

static int64_t pool_out(const struct pool_shape *s, int64_t rows) {
  return rows * spatial_out(s->height, s->kernel_height, s->stride, s->padding) *
         spatial_out(s->width, s->kernel_width, s->stride, s->padding) * s->channels;
}

static enum status max_pool_forward(const struct pool_shape *shape, int64_t rows, const void *x, void *y,
                                    uint8_t *chosen) {
  const void *own_x = take(x, values(pool_in(shape, rows)));
  void *own_y = give(y, values(pool_out(shape, rows)));
  uint8_t *own_chosen = give(chosen, (size_t)pool_out(shape, rows));
  RUN(max_pool_forward(shape, rows, own_x, own_y, own_chosen));
  return finish();
}

static enum status max_pool_backward(const struct pool_shape *shape, int64_t rows, const void *grad_y,
                                     const uint8_t *chosen, void *grad_x) {
  const void *own_y = take(grad_y, values(pool_out(shape, rows)));
  const uint8_t *own_chosen = take(chosen, (size_t)pool_out(shape, rows));
  void *own_x = give(grad_x, values(pool_in(shape, rows)));
  RUN(max_pool_backward(shape, rows, own_y, own_chosen, own_x));
  return finish();
}

static enum status average_pool_forward(const struct pool_shape *shape, int64_t rows, const void *x, void *y) {
  const void *own_x = take(x, values(pool_in(shape, rows)));
  void *own_y = give(y, values(pool_out(shape, rows)));
  RUN(average_pool_forward(shape, rows, own_x, own_y));
  return finish();
}

static enum status average_pool_backward(const struct pool_shape *shape, int64_t rows, const void *grad_y,
                                         void *grad_x) {
  const void *own_y = take(grad_y, values(pool_out(shape, rows)));
  void *own_x = give(grad_x, values(pool_in(shape, rows)));
  RUN(average_pool_backward(shape, rows, own_y, own_x));
  return finish();
}

const struct ops *staged_ops(const struct ops *device_table) {
  static struct ops table = {
      .backend = "staged",
      .linear_forward = linear_forward,
      .linear_backward_data = linear_backward_data,
      .linear_backward_weights = linear_backward_weights,
      .activation_forward = activation_forward,
      .activation_backward = activation_backward,
      .dropout_apply = dropout_apply,
      .conv_create = conv_create,
      .conv_destroy = conv_destroy,
      .conv_forward = conv_forward,
      .conv_backward_data = conv_backward_data,
      .conv_backward_weights = conv_backward_weights,
      .norm_statistics = norm_statistics,
      .norm_forward = norm_forward,
      .norm_backward_sums = norm_backward_sums,
      .norm_backward_data = norm_backward_data,
      .max_pool_forward = max_pool_forward,
      .max_pool_backward = max_pool_backward,
      .average_pool_forward = average_pool_forward,
      .average_pool_backward = average_pool_backward,
      .add = add,
  };
  staged.ops = device_table;
  table.device = device_table->device;
  table.dtype = device_table->dtype;
  table.parameter_dtype = device_table->parameter_dtype;
  return &table;
}
