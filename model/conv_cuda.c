/* Convolutions on a GPU: cuDNN, with images channels-last and filters [out, kernel, kernel, in].
 *
 * Our weights are [out, in, kernel, kernel] in float32: a kernel turns them into filters of the values' type in the
 * workspace before each use, and gradients of filters into those of weights after it; a kernel of 1 x 1 in float32 is
 * its own filter.  In bfloat16 cuDNN gives the gradient of filters in bfloat16: it is summed in float32 and rounded
 * once.  Images of three channels stay so: to pad them for kernels that take eight is left to cuDNN, for one layer of
 * many.
 *
 * Algorithms are cuDNN's advice, not measured: the advice depends on the shape alone, so all ranks, and a run that is
 * resumed, compute the same bits.  Of what it offers the first that repeats its bits is taken; where it offers none,
 * one that is known to; another never. */
#include "model/ops_cuda.h"

#include "dist/memory.h"
#include "model/kernels.h"

#include <limits.h>

/* The three products of a convolution. */
enum product_kind { FORWARD, BACKWARD_DATA, BACKWARD_WEIGHTS, PRODUCTS };

static const char *const product_names[PRODUCTS] = {"forward", "backward for data", "backward for weights"};

/* An algorithm for one product. */
struct algorithm {
  bool chosen;
  int number; /* of the product's own enum of cuDNN */
  cudnnMathType_t math;
  size_t scratch_bytes;
};

/* One number of rows. */
struct plan {
  int64_t rows;
  uint64_t last_use; /* 0 = empty */
  cudnnTensorDescriptor_t x, y;
  struct algorithm algorithms[PRODUCTS];
};

/* Ragged last batches, evaluation and training differ in rows; more than a few numbers do not come in turns. */
enum { PLANS = 8 };

struct conv {
  struct ops_cuda *context; /* borrowed */
  enum precision precision;
  struct conv_shape shape;
  int64_t out_height, out_width;
  cudnnFilterDescriptor_t filter;
  cudnnConvolutionDescriptor_t desc;
  uint64_t uses;
  struct plan plans[PLANS];
};

/* cuDNN's code as ours, with what was asked for, and with what may help. */
static enum status check(const struct conv *conv, int64_t rows, const char *what, cudnnStatus_t code) {
  const struct conv_shape *s = &conv->shape;
  if (code == CUDNN_STATUS_SUCCESS)
    return STATUS_OK;
  return fail(code == CUDNN_STATUS_ALLOC_FAILED ? ERR_MEMORY : ERR_DEVICE,
              "cuDNN cannot do a convolution %s of %lld images %lld x %lld, %lld -> %lld channels, %d x %d, stride %d, "
              "padding %d in %s: %s%s",
              what, (long long)rows, (long long)s->height, (long long)s->width, (long long)s->in, (long long)s->out,
              s->kernel, s->kernel, s->stride, s->padding, precision_name(conv->precision), cudnnGetErrorString(code),
              rows > 1 ? "; fewer images at once may do: give --micro-batch, or take more ranks" : "");
}

/* --- making -------------------------------------------------------------------------------------------------- */

/* The library is opened by the first convolution: networks for tables do not pay for it. */
static enum status open_library(struct ops_cuda *context) {
  if (context->dnn != NULL)
    return STATUS_OK;
  cudnnStatus_t code = cudnnCreate(&context->dnn);
  code = code ? code : cudnnSetStream(context->dnn, cuda_stream(context->stream));
  REQUIRE(code == CUDNN_STATUS_SUCCESS, ERR_DEVICE, "cuDNN cannot be opened: %s", cudnnGetErrorString(code));
  return STATUS_OK;
}

void conv_cuda_close(struct ops_cuda *context) {
  if (context->dnn != NULL)
    cudnnDestroy(context->dnn);
  context->dnn = NULL;
}

static cudnnDataType_t type_of(const struct conv *conv) {
  return conv->precision == PRECISION_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}

/* F32: no tensor cores.  The others: as the types allow, which for float means TF32. */
static cudnnMathType_t math_of(const struct conv *conv) {
  return conv->precision == PRECISION_F32 ? CUDNN_FMA_MATH : CUDNN_DEFAULT_MATH;
}

static cudnnStatus_t describe(struct conv *conv) {
  const struct conv_shape *s = &conv->shape;
  cudnnStatus_t code = cudnnCreateFilterDescriptor(&conv->filter);
  code = code ? code
              : cudnnSetFilter4dDescriptor(conv->filter, type_of(conv), CUDNN_TENSOR_NHWC, (int)s->out, (int)s->in,
                                           s->kernel, s->kernel);
  code = code ? code : cudnnCreateConvolutionDescriptor(&conv->desc);
  return code ? code
              : cudnnSetConvolution2dDescriptor(conv->desc, s->padding, s->padding, s->stride, s->stride, 1, 1,
                                                CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT);
}

enum status conv_cuda_create(struct ops_cuda *context, enum precision precision, const struct conv_shape *shape,
                             struct conv **out) {
  struct conv *conv;
  *out = NULL;
  TRY(open_library(context));
  TRY(memory_alloc_zero(sizeof *conv, (void **)&conv));
  conv->context = context;
  conv->precision = precision;
  conv->shape = *shape;
  conv->out_height = spatial_out(shape->height, shape->kernel, shape->stride, shape->padding);
  conv->out_width = spatial_out(shape->width, shape->kernel, shape->stride, shape->padding);
  enum status status = check(conv, 0, "at all", describe(conv));
  if (status == STATUS_OK)
    *out = conv;
  else
    conv_cuda_destroy(&conv);
  return status;
}

static void plan_clear(struct plan *plan) {
  if (plan->x != NULL)
    cudnnDestroyTensorDescriptor(plan->x);
  if (plan->y != NULL)
    cudnnDestroyTensorDescriptor(plan->y);
  *plan = (struct plan){0};
}

void conv_cuda_destroy(struct conv **conv_pointer) {
  struct conv *conv = *conv_pointer;
  if (conv == NULL)
    return;
  for (int i = 0; i < PLANS; i++)
    plan_clear(&conv->plans[i]);
  if (conv->desc != NULL)
    cudnnDestroyConvolutionDescriptor(conv->desc);
  if (conv->filter != NULL)
    cudnnDestroyFilterDescriptor(conv->filter);
  memory_free((void **)conv_pointer);
}

/* --- choosing ------------------------------------------------------------------------------------------------ */

/* What cuDNN offers for a product, the fastest first by its own estimate. */
enum { MOST_OFFERS = 16 };
struct offers {
  int count;
  struct {
    int number;
    cudnnStatus_t status;
    cudnnDeterminism_t determinism;
    cudnnMathType_t math;
  } list[MOST_OFFERS];
};

/* cuDNN's lists for the three products are of three types with the same fields. */
#define TAKE_OFFERS(offers, found)                            \
  do {                                                        \
    for (int i = 0; i < (offers)->count; i++) {               \
      (offers)->list[i].number = (int)(found)[i].algo;        \
      (offers)->list[i].status = (found)[i].status;           \
      (offers)->list[i].determinism = (found)[i].determinism; \
      (offers)->list[i].math = (found)[i].mathType;           \
    }                                                         \
  } while (0)

static cudnnStatus_t ask(const struct conv *conv, enum product_kind kind, const struct plan *plan,
                         struct offers *offers) {
  cudnnHandle_t dnn = conv->context->dnn;
  cudnnConvolutionFwdAlgoPerf_t forward[MOST_OFFERS];
  cudnnConvolutionBwdDataAlgoPerf_t data[MOST_OFFERS];
  cudnnConvolutionBwdFilterAlgoPerf_t weights[MOST_OFFERS];
  cudnnStatus_t code = cudnnSetConvolutionMathType(conv->desc, math_of(conv));
  offers->count = 0;
  if (code != CUDNN_STATUS_SUCCESS)
    return code;
  switch (kind) {
  case FORWARD:
    code = cudnnGetConvolutionForwardAlgorithm_v7(dnn, plan->x, conv->filter, conv->desc, plan->y, MOST_OFFERS,
                                                  &offers->count, forward);
    TAKE_OFFERS(offers, forward);
    return code;
  case BACKWARD_DATA:
    code = cudnnGetConvolutionBackwardDataAlgorithm_v7(dnn, conv->filter, plan->y, conv->desc, plan->x, MOST_OFFERS,
                                                       &offers->count, data);
    TAKE_OFFERS(offers, data);
    return code;
  default:
    code = cudnnGetConvolutionBackwardFilterAlgorithm_v7(dnn, plan->x, plan->y, conv->desc, conv->filter, MOST_OFFERS,
                                                         &offers->count, weights);
    TAKE_OFFERS(offers, weights);
    return code;
  }
}

static cudnnStatus_t scratch_of(const struct conv *conv, enum product_kind kind, const struct plan *plan, int number,
                                size_t *bytes) {
  cudnnHandle_t dnn = conv->context->dnn;
  switch (kind) {
  case FORWARD:
    return cudnnGetConvolutionForwardWorkspaceSize(dnn, plan->x, conv->filter, conv->desc, plan->y,
                                                   (cudnnConvolutionFwdAlgo_t)number, bytes);
  case BACKWARD_DATA:
    return cudnnGetConvolutionBackwardDataWorkspaceSize(dnn, conv->filter, plan->y, conv->desc, plan->x,
                                                        (cudnnConvolutionBwdDataAlgo_t)number, bytes);
  default:
    return cudnnGetConvolutionBackwardFilterWorkspaceSize(dnn, plan->x, plan->y, conv->desc, conv->filter,
                                                          (cudnnConvolutionBwdFilterAlgo_t)number, bytes);
  }
}

/* Scratch that one product may take while there is another choice. */
#define MOST_SCRATCH ((size_t)1 << 30)

/* Algorithms that go by way of other numbers than those of the sum, and round differently. */
static bool transforms(enum product_kind kind, int number) {
  switch (kind) {
  case FORWARD:
    return number == CUDNN_CONVOLUTION_FWD_ALGO_FFT || number == CUDNN_CONVOLUTION_FWD_ALGO_FFT_TILING ||
           number == CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD || number == CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD_NONFUSED;
  case BACKWARD_DATA:
    return number == CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT || number == CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT_TILING ||
           number == CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD ||
           number == CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD_NONFUSED;
  default:
    return number == CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT || number == CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT_TILING ||
           number == CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD ||
           number == CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD_NONFUSED;
  }
}

/* In F32 a result is to depend on the number of images as little as can be: so no tensor cores, and no transforms,
 * which cuDNN takes for some numbers and not for others.  In the other precisions nothing that reads fewer bits than
 * they say. */
static bool suits(const struct conv *conv, enum product_kind kind, int number, cudnnMathType_t math) {
  if (conv->precision == PRECISION_F32)
    return math != CUDNN_TENSOR_OP_MATH && !transforms(kind, number);
  return math != CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION;
}

/* Take an algorithm if cuDNN can do it in so much scratch. */
static void try_algorithm(const struct conv *conv, enum product_kind kind, const struct plan *plan, int number,
                          cudnnMathType_t math, size_t most, struct algorithm *algorithm) {
  size_t bytes;
  if (cudnnSetConvolutionMathType(conv->desc, math) == CUDNN_STATUS_SUCCESS &&
      scratch_of(conv, kind, plan, number, &bytes) == CUDNN_STATUS_SUCCESS && bytes <= most)
    *algorithm = (struct algorithm){true, number, math, bytes};
}

/* The first offer that works, repeats its bits, and is content with so much scratch. */
static void take(const struct conv *conv, enum product_kind kind, const struct plan *plan, const struct offers *offers,
                 size_t most, struct algorithm *algorithm) {
  for (int i = 0; i < offers->count && !algorithm->chosen; i++)
    if (offers->list[i].status == CUDNN_STATUS_SUCCESS && offers->list[i].determinism == CUDNN_DETERMINISTIC &&
        suits(conv, kind, offers->list[i].number, offers->list[i].math))
      try_algorithm(conv, kind, plan, offers->list[i].number,
                    conv->precision == PRECISION_F32 ? CUDNN_FMA_MATH : offers->list[i].math, most, algorithm);
}

/* Of each product an algorithm that multiplies matrices and repeats its bits, should advice name none. */
static const int last_resorts[PRODUCTS] = {[FORWARD] = CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
                                           [BACKWARD_DATA] = CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,
                                           [BACKWARD_WEIGHTS] = CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1};

static enum status choose(const struct conv *conv, enum product_kind kind, struct plan *plan) {
  struct algorithm *algorithm = &plan->algorithms[kind];
  struct offers offers;
  cudnnStatus_t code = ask(conv, kind, plan, &offers);
  if (code != CUDNN_STATUS_NOT_SUPPORTED)
    TRY(check(conv, plan->rows, product_names[kind], code));
  take(conv, kind, plan, &offers, MOST_SCRATCH, algorithm);
  take(conv, kind, plan, &offers, SIZE_MAX, algorithm);
  if (!algorithm->chosen)
    try_algorithm(conv, kind, plan, last_resorts[kind], math_of(conv), SIZE_MAX, algorithm);
  return algorithm->chosen ? STATUS_OK : check(conv, plan->rows, product_names[kind], CUDNN_STATUS_NOT_SUPPORTED);
}

static cudnnStatus_t plan_describe(const struct conv *conv, struct plan *plan) {
  const struct conv_shape *s = &conv->shape;
  cudnnDataType_t type = type_of(conv);
  cudnnStatus_t code = cudnnCreateTensorDescriptor(&plan->x);
  code = code ? code : cudnnCreateTensorDescriptor(&plan->y);
  code = code ? code
              : cudnnSetTensor4dDescriptor(plan->x, CUDNN_TENSOR_NHWC, type, (int)plan->rows, (int)s->in,
                                           (int)s->height, (int)s->width);
  return code ? code
              : cudnnSetTensor4dDescriptor(plan->y, CUDNN_TENSOR_NHWC, type, (int)plan->rows, (int)s->out,
                                           (int)conv->out_height, (int)conv->out_width);
}

/* The plan for this number of rows: found, or made in place of the one that was not used for longest. */
static enum status plan_for(struct conv *conv, enum product_kind kind, int64_t rows, struct plan **out) {
  struct plan *plan = &conv->plans[0];
  REQUIRE(rows <= INT_MAX, ERR_BUG, "%lld images at once are more than cuDNN counts", (long long)rows);
  for (int i = 0; i < PLANS; i++) {
    struct plan *other = &conv->plans[i];
    if (other->last_use > 0 && other->rows == rows) {
      plan = other;
      break;
    }
    if (other->last_use < plan->last_use)
      plan = other;
  }
  if (plan->last_use == 0 || plan->rows != rows) {
    plan_clear(plan);
    plan->rows = rows;
    enum status status = check(conv, rows, product_names[kind], plan_describe(conv, plan));
    if (status != STATUS_OK) {
      plan_clear(plan);
      return status;
    }
  }
  plan->last_use = ++conv->uses;
  *out = plan;
  return plan->algorithms[kind].chosen ? STATUS_OK : choose(conv, kind, plan);
}

/* --- running ------------------------------------------------------------------------------------------------- */

/* What one product takes beside its arguments, from the workspace: its filters, then cuDNN's scratch. */
struct room {
  void *filters; /* NULL: the weights are the filters */
  void *scratch;
};

static int64_t area_of(const struct conv *conv) {
  return (int64_t)conv->shape.kernel * conv->shape.kernel;
}

/* Weights, or their gradient, that cuDNN takes as they are: it wants them on 16 bytes. */
static bool are_filters(const struct conv *conv, const void *weight) {
  return area_of(conv) == 1 && precision_dtype(conv->precision) == F32 && (uintptr_t)weight % 16 == 0;
}

static enum status reserve(const struct conv *conv, struct workspace *workspace, const struct algorithm *algorithm,
                           const void *weight, struct room *room) {
  bool apart = !are_filters(conv, weight);
  size_t count = (size_t)(conv->shape.out * conv->shape.in * area_of(conv));
  size_t bytes = apart ? (count * dtype_size(precision_dtype(conv->precision)) + 255) / 256 * 256 : 0;
  TRY(workspace_reserve(workspace, bytes + algorithm->scratch_bytes));
  room->filters = apart ? workspace->data : NULL;
  room->scratch = algorithm->scratch_bytes > 0 ? (char *)workspace->data + bytes : NULL;
  return STATUS_OK;
}

/* Plan, workspace and filters for one of the two products that read weights. */
static enum status prepare(struct conv *conv, enum product_kind kind, struct workspace *workspace, int64_t rows,
                           const void *weight, struct plan **plan, struct room *room, const void **filters) {
  const struct conv_shape *s = &conv->shape;
  TRY(plan_for(conv, kind, rows, plan));
  TRY(reserve(conv, workspace, &(*plan)->algorithms[kind], weight, room));
  *filters = room->filters != NULL ? room->filters : weight;
  if (room->filters != NULL)
    TRY(filters_launch(conv->context->stream, precision_dtype(conv->precision), s->out, s->in, area_of(conv), weight,
                       room->filters));
  return check(conv, rows, product_names[kind],
               cudnnSetConvolutionMathType(conv->desc, (*plan)->algorithms[kind].math));
}

enum status conv_cuda_forward(struct conv *conv, struct workspace *workspace, int64_t rows, const void *x,
                              const void *weight, const void *bias, void *y) {
  const float one = 1, zero = 0;
  struct plan *plan;
  struct room room;
  const void *filters;
  if (rows == 0)
    return STATUS_OK;
  TRY(prepare(conv, FORWARD, workspace, rows, weight, &plan, &room, &filters));
  const struct algorithm *algorithm = &plan->algorithms[FORWARD];
  TRY(check(conv, rows, product_names[FORWARD],
            cudnnConvolutionForward(conv->context->dnn, &one, plan->x, x, conv->filter, filters, conv->desc,
                                    (cudnnConvolutionFwdAlgo_t)algorithm->number, room.scratch,
                                    algorithm->scratch_bytes, &zero, plan->y, y)));
  if (!conv->shape.bias)
    return STATUS_OK;
  return bias_launch(conv->context->stream, precision_dtype(conv->precision), rows * conv->out_height * conv->out_width,
                     conv->shape.out, bias, y);
}

enum status conv_cuda_backward_data(struct conv *conv, struct workspace *workspace, int64_t rows, const void *grad_y,
                                    const void *weight, void *grad_x) {
  const float one = 1, zero = 0;
  struct plan *plan;
  struct room room;
  const void *filters;
  if (rows == 0)
    return STATUS_OK;
  TRY(prepare(conv, BACKWARD_DATA, workspace, rows, weight, &plan, &room, &filters));
  const struct algorithm *algorithm = &plan->algorithms[BACKWARD_DATA];
  return check(conv, rows, product_names[BACKWARD_DATA],
               cudnnConvolutionBackwardData(conv->context->dnn, &one, conv->filter, filters, plan->y, grad_y,
                                            conv->desc, (cudnnConvolutionBwdDataAlgo_t)algorithm->number, room.scratch,
                                            algorithm->scratch_bytes, &zero, plan->x, grad_x));
}

static enum status weight_gradient(struct conv *conv, struct workspace *workspace, int64_t rows, const void *x,
                                   const void *grad_y, float *grad_weight) {
  const struct conv_shape *s = &conv->shape;
  const float one = 1, zero = 0;
  struct plan *plan;
  struct room room;
  TRY(plan_for(conv, BACKWARD_WEIGHTS, rows, &plan));
  const struct algorithm *algorithm = &plan->algorithms[BACKWARD_WEIGHTS];
  TRY(reserve(conv, workspace, algorithm, grad_weight, &room));
  void *filters = room.filters != NULL ? room.filters : grad_weight;
  cudnnStatus_t code = cudnnSetConvolutionMathType(conv->desc, algorithm->math);
  code = code ? code
              : cudnnConvolutionBackwardFilter(conv->context->dnn, &one, plan->x, x, plan->y, grad_y, conv->desc,
                                               (cudnnConvolutionBwdFilterAlgo_t)algorithm->number, room.scratch,
                                               algorithm->scratch_bytes, &zero, conv->filter, filters);
  TRY(check(conv, rows, product_names[BACKWARD_WEIGHTS], code));
  if (room.filters == NULL)
    return STATUS_OK;
  return filter_gradients_launch(conv->context->stream, precision_dtype(conv->precision), s->out, s->in, area_of(conv),
                                 room.filters, grad_weight);
}

enum status conv_cuda_backward_weights(struct conv *conv, struct workspace *workspace, int64_t rows, const void *x,
                                       const void *grad_y, void *grad_weight, void *grad_bias) {
  const struct conv_shape *s = &conv->shape;
  if (s->bias)
    TRY(column_sums_launch(conv->context->stream, precision_dtype(conv->precision),
                           rows * conv->out_height * conv->out_width, s->out, grad_y, conv->context->partials,
                           grad_bias));
  if (rows == 0)
    return stream_zero(conv->context->stream, grad_weight, (size_t)(s->out * s->in * area_of(conv)) * sizeof(float));
  return weight_gradient(conv, workspace, rows, x, grad_y, grad_weight);
}
