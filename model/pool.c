/* Pooling: the largest of each window, or the average over all of height and width. */
#include "model/layer.h"

static enum status max_forward(struct net *net, struct operation *pool, const struct pass *pass) {
  (void)pass;
  return net->ops->max_pool_forward(&pool->pool, net->rows, pool->input, pool->output, pool->mask);
}

static enum status max_backward(struct net *net, struct operation *pool, const void *grad_output, void *grad_input) {
  return net->ops->max_pool_backward(&pool->pool, net->rows, grad_output, pool->mask, grad_input);
}

static enum status average_forward(struct net *net, struct operation *pool, const struct pass *pass) {
  (void)pass;
  return net->ops->average_pool_forward(&pool->pool, net->rows, pool->input, pool->output);
}

static enum status average_backward(struct net *net, struct operation *pool, const void *grad_output,
                                    void *grad_input) {
  return net->ops->average_pool_backward(&pool->pool, net->rows, grad_output, grad_input);
}

static const struct operation_kind max_kind = {
    .name = "max pool", .forward = max_forward, .backward_data = max_backward};
static const struct operation_kind average_kind = {
    .name = "average pool", .forward = average_forward, .backward_data = average_backward};

static enum status add(struct net *net, const struct operation_kind *kind, const struct pool_shape *shape,
                       struct operation **out) {
  TRY(net_add(net, kind, spatial_out(shape->height, shape->kernel_height, shape->stride, shape->padding),
              spatial_out(shape->width, shape->kernel_width, shape->stride, shape->padding), shape->channels, out));
  (*out)->pool = *shape;
  return STATUS_OK;
}

enum status net_add_max_pool(struct net *net, int kernel, int stride, int padding) {
  const struct value *read = net_last_value(net);
  struct pool_shape shape = {.height = read->height,
                             .width = read->width,
                             .channels = read->channels,
                             .kernel_height = kernel,
                             .kernel_width = kernel,
                             .stride = stride,
                             .padding = padding};
  struct operation *pool;
  TRY(add(net, &max_kind, &shape, &pool));
  pool->mask_width = (size_t)pool->width_out;
  return STATUS_OK;
}

enum status net_add_average_pool(struct net *net) {
  const struct value *read = net_last_value(net);
  struct pool_shape shape = {.height = read->height,
                             .width = read->width,
                             .channels = read->channels,
                             .kernel_height = (int)read->height,
                             .kernel_width = (int)read->width,
                             .stride = 1};
  struct operation *pool;
  return add(net, &average_kind, &shape, &pool);
}
