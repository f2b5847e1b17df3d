/* Convolutions in float32 on the CPU: oneDNN, with images channels-last and weights in the order it likes best. */
#include "model/conv_cpu.h"

#include "dist/memory.h"
#include "model/conv_gathered.h"

#include <oneapi/dnnl/dnnl.h>
#include <string.h>

/* The three products of a convolution. */
enum product_kind { FORWARD, BACKWARD_DATA, BACKWARD_WEIGHTS, PRODUCTS };

static const char *const product_names[PRODUCTS] = {"forward", "backward for data", "backward for weights"};

/* One product for one number of rows.  All zero = not made yet. */
struct product {
  dnnl_primitive_t primitive;
  dnnl_primitive_t reorder; /* of the weights: before the product, or of their gradient after it; NULL = none    */
  dnnl_memory_t x, y, bias; /* the caller's, or their gradients; bias NULL = none                                */
  dnnl_memory_t weights;    /* as the primitive likes them: in the workspace if there is a reorder               */
  dnnl_memory_t plain;      /* [out, in, kernel, kernel], the caller's                                           */
  dnnl_memory_t scratch, reorder_scratch;
  size_t weights_bytes, scratch_bytes; /* of the workspace: the weights first, then scratch for both            */
};

struct plan {
  int64_t rows;
  uint64_t last_use; /* 0 = empty */
  struct product products[PRODUCTS];
};

/* Ragged last batches, evaluation and training differ in rows; more than a few numbers do not come in turns. */
enum { PLANS = 8 };

struct conv {
  struct conv_shape shape;
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  dnnl_primitive_attr_t attributes; /* scratch memory is ours */
  uint64_t uses;
  struct plan plans[PLANS];
};

/* oneDNN's code as ours, with what was asked for. */
static enum status check(const struct conv *conv, int64_t rows, const char *what, dnnl_status_t code) {
  const struct conv_shape *s = &conv->shape;
  if (code == dnnl_success)
    return STATUS_OK;
  return fail(code == dnnl_out_of_memory ? ERR_MEMORY : ERR_BUG,
              "oneDNN cannot do a convolution %s of %lld images %lld x %lld, %lld -> %lld channels, %d x %d, stride "
              "%d, padding %d (status %d)%s",
              what, (long long)rows, (long long)s->height, (long long)s->width, (long long)s->in, (long long)s->out,
              s->kernel, s->kernel, s->stride, s->padding, (int)code,
              code == dnnl_out_of_memory ? ": memory is full; use a smaller batch" : "");
}

/* --- making -------------------------------------------------------------------------------------------------- */

static void product_destroy(struct product *product) {
  dnnl_memory_t memories[] = {product->x,     product->y,       product->bias,           product->weights,
                              product->plain, product->scratch, product->reorder_scratch};
  for (size_t i = 0; i < sizeof memories / sizeof *memories; i++)
    if (memories[i] != NULL)
      dnnl_memory_destroy(memories[i]);
  if (product->reorder != NULL)
    dnnl_primitive_destroy(product->reorder);
  if (product->primitive != NULL)
    dnnl_primitive_destroy(product->primitive);
  *product = (struct product){0};
}

/* The memory descriptors of one number of rows. */
struct layout {
  dnnl_memory_desc_t x, y, any, plain, bias;
};

static dnnl_status_t layout_create(const struct conv_shape *s, int64_t rows, struct layout *layout) {
  int64_t height = spatial_out(s->height, s->kernel, s->stride, s->padding);
  int64_t width = spatial_out(s->width, s->kernel, s->stride, s->padding);
  dnnl_dims_t x = {rows, s->in, s->height, s->width}, y = {rows, s->out, height, width};
  dnnl_dims_t weights = {s->out, s->in, s->kernel, s->kernel}, bias = {s->out};
  dnnl_status_t code = dnnl_memory_desc_init_by_tag(&layout->x, 4, x, dnnl_f32, dnnl_nhwc);
  code = code ? code : dnnl_memory_desc_init_by_tag(&layout->y, 4, y, dnnl_f32, dnnl_nhwc);
  code = code ? code : dnnl_memory_desc_init_by_tag(&layout->any, 4, weights, dnnl_f32, dnnl_format_tag_any);
  code = code ? code : dnnl_memory_desc_init_by_tag(&layout->plain, 4, weights, dnnl_f32, dnnl_oihw);
  return code ? code : dnnl_memory_desc_init_by_tag(&layout->bias, 1, bias, dnnl_f32, dnnl_a);
}

/* Of an implementation, such as "jit:avx512_core"; never freed. */
static void implementation(const_dnnl_primitive_desc_t desc, const char **name) {
  *name = "";
  dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, name);
}

/* Is `other` of kind "jit:", and for the same instructions as `first`, which is of kind "brgconv:"? */
static bool is_the_plainer(const_dnnl_primitive_desc_t first, const_dnnl_primitive_desc_t other) {
  const char *first_name, *other_name;
  implementation(first, &first_name);
  implementation(other, &other_name);
  return strncmp(first_name, "brgconv:", 8) == 0 && strncmp(other_name, "jit:", 4) == 0 &&
         strcmp(first_name + 8, other_name + 4) == 0;
}

/* Outputs up to this many places of the image are better served by the second of oneDNN's implementations. */
#define FEW_PLACES 64

/* oneDNN offers its implementations in an order of its own.  For small images the block-wise one that comes first is
 * slow: 512 -> 512 channels, 3 x 3, 64 images of 2 x 2, two Sapphire Rapids cores, oneDNN 2.6: 111 GFLOP/s, the next
 * one for the same instructions 399; from 7 x 7 on they are alike. */
static dnnl_status_t choose(const struct conv *conv, const dnnl_convolution_desc_t *desc, bool small,
                            const_dnnl_primitive_desc_t forward, dnnl_primitive_desc_t *out) {
  dnnl_primitive_desc_iterator_t offers = NULL;
  dnnl_status_t code = dnnl_primitive_desc_iterator_create(&offers, desc, conv->attributes, conv->engine, forward);
  if (code != dnnl_success)
    return code;
  *out = dnnl_primitive_desc_iterator_fetch(offers);
  code = *out == NULL ? dnnl_out_of_memory : dnnl_success;
  if (code == dnnl_success && small && dnnl_primitive_desc_iterator_next(offers) == dnnl_success) {
    dnnl_primitive_desc_t next = dnnl_primitive_desc_iterator_fetch(offers), other = next;
    if (next != NULL && is_the_plainer(*out, next)) {
      other = *out;
      *out = next;
    }
    if (other != NULL)
      dnnl_primitive_desc_destroy(other);
  }
  dnnl_primitive_desc_iterator_destroy(offers);
  return code;
}

static dnnl_status_t describe(const struct conv *conv, enum product_kind kind, const struct layout *layout,
                              const_dnnl_primitive_desc_t forward, dnnl_primitive_desc_t *out) {
  const struct conv_shape *s = &conv->shape;
  const dnnl_memory_desc_t *bias = s->bias ? &layout->bias : NULL;
  const dnnl_dims_t strides = {s->stride, s->stride}, padding = {s->padding, s->padding};
  dnnl_convolution_desc_t desc;
  dnnl_status_t code;
  if (kind == FORWARD)
    code = dnnl_convolution_forward_desc_init(&desc, dnnl_forward_training, dnnl_convolution_direct, &layout->x,
                                              &layout->any, bias, &layout->y, strides, padding, padding);
  else if (kind == BACKWARD_DATA)
    code = dnnl_convolution_backward_data_desc_init(&desc, dnnl_convolution_direct, &layout->x, &layout->any,
                                                    &layout->y, strides, padding, padding);
  else
    code = dnnl_convolution_backward_weights_desc_init(&desc, dnnl_convolution_direct, &layout->x, &layout->any, bias,
                                                       &layout->y, strides, padding, padding);
  bool small = kind == FORWARD && s->kernel > 1 && layout->y.dims[2] * layout->y.dims[3] <= FEW_PLACES;
  return code ? code : choose(conv, &desc, small, forward, out);
}

static dnnl_status_t memory_for(const struct conv *conv, const dnnl_memory_desc_t *desc, dnnl_memory_t *out) {
  return dnnl_memory_create(out, desc, conv->engine, DNNL_MEMORY_NONE);
}

/* Scratch memory of one primitive; the workspace must hold the larger of the two. */
static dnnl_status_t scratch_for(const struct conv *conv, const_dnnl_primitive_desc_t desc, struct product *product,
                                 dnnl_memory_t *out) {
  const dnnl_memory_desc_t *scratch = dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
  size_t bytes = dnnl_memory_desc_get_size(scratch);
  product->scratch_bytes = bytes > product->scratch_bytes ? bytes : product->scratch_bytes;
  return memory_for(conv, scratch, out);
}

/* When the primitive wants weights in another order than ours. */
static dnnl_status_t reorder_create(const struct conv *conv, enum product_kind kind, const dnnl_memory_desc_t *plain,
                                    const dnnl_memory_desc_t *wanted, struct product *product) {
  if (dnnl_memory_desc_equal(plain, wanted))
    return dnnl_success;
  const dnnl_memory_desc_t *from = kind == BACKWARD_WEIGHTS ? wanted : plain;
  const dnnl_memory_desc_t *to = kind == BACKWARD_WEIGHTS ? plain : wanted;
  dnnl_primitive_desc_t desc = NULL;
  dnnl_status_t code =
      dnnl_reorder_primitive_desc_create(&desc, from, conv->engine, to, conv->engine, conv->attributes);
  code = code ? code : scratch_for(conv, desc, product, &product->reorder_scratch);
  code = code ? code : dnnl_primitive_create(&product->reorder, desc);
  if (desc != NULL)
    dnnl_primitive_desc_destroy(desc);
  product->weights_bytes = (dnnl_memory_desc_get_size(wanted) + 63) / 64 * 64; /* what follows is aligned too */
  return code;
}

static dnnl_status_t product_fill(const struct conv *conv, enum product_kind kind, const struct layout *layout,
                                  const_dnnl_primitive_desc_t desc, struct product *product) {
  dnnl_query_t which = kind == BACKWARD_WEIGHTS ? dnnl_query_diff_weights_md : dnnl_query_weights_md;
  const dnnl_memory_desc_t *weights = dnnl_primitive_desc_query_md(desc, which, 0);
  dnnl_status_t code = dnnl_primitive_create(&product->primitive, desc);
  code = code ? code : reorder_create(conv, kind, &layout->plain, weights, product);
  code = code ? code : scratch_for(conv, desc, product, &product->scratch);
  code = code ? code : memory_for(conv, &layout->x, &product->x);
  code = code ? code : memory_for(conv, &layout->y, &product->y);
  code = code ? code : memory_for(conv, weights, &product->weights);
  code = code ? code : memory_for(conv, &layout->plain, &product->plain);
  if (conv->shape.bias)
    code = code ? code : memory_for(conv, &layout->bias, &product->bias);
  return code;
}

static enum status product_create(const struct conv *conv, enum product_kind kind, int64_t rows,
                                  struct product *product) {
  struct layout layout;
  dnnl_primitive_desc_t forward = NULL, backward = NULL;
  dnnl_status_t code = layout_create(&conv->shape, rows, &layout);
  code = code ? code : describe(conv, FORWARD, &layout, NULL, &forward);
  if (kind != FORWARD) /* the forward one tells the backward ones what they belong to */
    code = code ? code : describe(conv, kind, &layout, forward, &backward);
  code = code ? code : product_fill(conv, kind, &layout, kind == FORWARD ? forward : backward, product);
  if (backward != NULL)
    dnnl_primitive_desc_destroy(backward);
  if (forward != NULL)
    dnnl_primitive_desc_destroy(forward);
  if (code != dnnl_success)
    product_destroy(product);
  return check(conv, rows, product_names[kind], code);
}

static void plan_clear(struct plan *plan) {
  for (int kind = 0; kind < PRODUCTS; kind++)
    product_destroy(&plan->products[kind]);
  *plan = (struct plan){0};
}

/* The product for this number of rows: found, or made in place of the plan that was not used for longest. */
static enum status product_for(struct conv *conv, enum product_kind kind, int64_t rows, struct product **out) {
  struct plan *plan = &conv->plans[0];
  for (int i = 0; i < PLANS; i++) {
    struct plan *other = &conv->plans[i];
    if (other->last_use > 0 && other->rows == rows) {
      plan = other;
      break;
    }
    if (other->last_use < plan->last_use)
      plan = other;
  }
  if (plan->last_use == 0 || plan->rows != rows)
    plan_clear(plan);
  plan->rows = rows;
  plan->last_use = ++conv->uses;
  *out = &plan->products[kind];
  return (*out)->primitive != NULL ? STATUS_OK : product_create(conv, kind, rows, *out);
}

enum status conv_f32_create(const struct conv_shape *shape, struct conv **out) {
  struct conv *conv;
  *out = NULL;
  TRY(memory_alloc_zero(sizeof *conv, (void **)&conv));
  conv->shape = *shape;
  dnnl_status_t code = dnnl_engine_create(&conv->engine, dnnl_cpu, 0);
  code = code ? code : dnnl_stream_create(&conv->stream, conv->engine, dnnl_stream_default_flags);
  code = code ? code : dnnl_primitive_attr_create(&conv->attributes);
  code = code ? code : dnnl_primitive_attr_set_scratchpad_mode(conv->attributes, dnnl_scratchpad_mode_user);
  enum status status = check(conv, 0, "at all", code);
  if (status == STATUS_OK)
    *out = conv;
  else
    conv_f32_destroy(&conv);
  return status;
}

void conv_f32_destroy(struct conv **conv_pointer) {
  struct conv *conv = *conv_pointer;
  if (conv == NULL)
    return;
  for (int i = 0; i < PLANS; i++)
    plan_clear(&conv->plans[i]);
  if (conv->attributes != NULL)
    dnnl_primitive_attr_destroy(conv->attributes);
  if (conv->stream != NULL)
    dnnl_stream_destroy(conv->stream);
  if (conv->engine != NULL)
    dnnl_engine_destroy(conv->engine);
  memory_free((void **)conv_pointer);
}

/* --- running ------------------------------------------------------------------------------------------------- */

/* Where the buffers of one call are. */
struct operands {
  const void *x, *weight, *bias, *y; /* the product writes one of them (weights: and the bias) */
};

static dnnl_status_t set_handles(const struct product *product, const struct operands *operands, char *workspace) {
  void *weights = product->reorder != NULL ? workspace : (void *)operands->weight;
  char *scratch = workspace + product->weights_bytes;
  dnnl_status_t code = dnnl_memory_set_data_handle(product->x, (void *)operands->x);
  code = code ? code : dnnl_memory_set_data_handle(product->y, (void *)operands->y);
  code = code ? code : dnnl_memory_set_data_handle(product->weights, weights);
  code = code ? code : dnnl_memory_set_data_handle(product->plain, (void *)operands->weight);
  code = code ? code : dnnl_memory_set_data_handle(product->scratch, scratch);
  if (product->bias != NULL)
    code = code ? code : dnnl_memory_set_data_handle(product->bias, (void *)operands->bias);
  if (product->reorder != NULL)
    code = code ? code : dnnl_memory_set_data_handle(product->reorder_scratch, scratch);
  return code;
}

static dnnl_status_t reorder(const struct conv *conv, const struct product *product, dnnl_memory_t from,
                             dnnl_memory_t to) {
  if (product->reorder == NULL)
    return dnnl_success;
  dnnl_exec_arg_t arguments[] = {
      {DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}, {DNNL_ARG_SCRATCHPAD, product->reorder_scratch}};
  return dnnl_primitive_execute(product->reorder, conv->stream, 3, arguments);
}

static dnnl_status_t execute(const struct conv *conv, enum product_kind kind, const struct product *product) {
  static const int names[PRODUCTS][4] = {
      [FORWARD] = {DNNL_ARG_SRC, DNNL_ARG_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS},
      [BACKWARD_DATA] = {DNNL_ARG_DIFF_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, 0},
      [BACKWARD_WEIGHTS] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_BIAS}};
  dnnl_exec_arg_t arguments[] = {{names[kind][0], product->x},
                                 {names[kind][1], product->y},
                                 {names[kind][2], product->weights},
                                 {DNNL_ARG_SCRATCHPAD, product->scratch},
                                 {names[kind][3], product->bias}};
  bool biased = product->bias != NULL && kind != BACKWARD_DATA;
  dnnl_status_t code = dnnl_success;
  if (kind != BACKWARD_WEIGHTS)
    code = reorder(conv, product, product->plain, product->weights);
  code = code ? code : dnnl_primitive_execute(product->primitive, conv->stream, biased ? 5 : 4, arguments);
  if (kind == BACKWARD_WEIGHTS)
    code = code ? code : reorder(conv, product, product->weights, product->plain);
  return code ? code : dnnl_stream_wait(conv->stream);
}

static enum status run(struct conv *conv, struct workspace *workspace, enum product_kind kind, int64_t rows,
                       struct operands operands) {
  struct product *product;
  if (rows == 0)
    return STATUS_OK;
  TRY(product_for(conv, kind, rows, &product));
  TRY(workspace_reserve(workspace, product->weights_bytes + product->scratch_bytes));
  dnnl_status_t code = set_handles(product, &operands, workspace->data);
  return check(conv, rows, product_names[kind], code ? code : execute(conv, kind, product));
}

enum status conv_f32_forward(struct conv *conv, struct workspace *workspace, int64_t rows, const void *x,
                             const void *weight, const void *bias, void *y) {
  return run(conv, workspace, FORWARD, rows, (struct operands){x, weight, bias, y});
}

enum status conv_f32_backward_data(struct conv *conv, struct workspace *workspace, int64_t rows, const void *grad_y,
                                   const void *weight, void *grad_x) {
  return run(conv, workspace, BACKWARD_DATA, rows, (struct operands){grad_x, weight, NULL, grad_y});
}

enum status conv_f32_backward_weights(struct conv *conv, struct workspace *workspace, int64_t rows, const void *x,
                                      const void *grad_y, void *grad_weight, void *grad_bias) {
  const struct conv_shape *s = &conv->shape;
  if (rows == 0) {
    memset(grad_weight, 0, (size_t)(s->out * s->in * s->kernel * s->kernel) * sizeof(float));
    if (s->bias)
      memset(grad_bias, 0, (size_t)s->out * sizeof(float));
    return STATUS_OK;
  }
  if (conv_gathered_suits(s))
    return conv_gathered_weights(s, workspace, rows, x, grad_y, grad_weight);
  return run(conv, workspace, BACKWARD_WEIGHTS, rows, (struct operands){x, grad_weight, grad_bias, grad_y});
}
