/* Linear layers on a GPU: cuBLASLt, and own kernels where there are so few outputs that a matrix product is none, or
 * for shapes that cuBLASLt refuses.
 *
 * cuBLASLt reads columns first: our [rows, width] is its [width, rows].  So the three products are, in its terms,
 *
 *     forward           y  [out, rows] = W  [in, out]^T  x  [in, rows]   (+ bias along out)
 *     backward, data    gx [in, rows]  = W  [in, out]    gy [out, rows]
 *     backward, weights gW [in, out]   = x  [in, rows]   gy [out, rows]^T
 *
 * In bfloat16 the weights are rounded into scratch memory at each use, a small matter beside the product; sums are in
 * float32 and are rounded once. */
#include "model/ops_cuda.h"

#include "dist/memory.h"
#include "model/kernels.h"

#include <string.h>

enum product_kind { FORWARD, BACKWARD_DATA, BACKWARD_WEIGHTS };

/* What a product was chosen for.  Compared as bytes: zeroed first. */
struct product_key {
  enum product_kind kind;
  enum precision precision;
  int64_t rows, in, out;
  int wide, biased;
  int alignment[4]; /* of what is multiplied, of the result and of the bias, in bytes */
};

/* One matrix product of one shape, ready to be queued. */
struct product {
  struct product_key key;
  uint64_t last_use;
  cublasLtMatmulDesc_t desc;
  cublasLtMatrixLayout_t layouts[3]; /* of what is multiplied and of the result */
  cublasLtMatmulAlgo_t algorithm;
  size_t workspace;
  bool refused; /* cuBLASLt has nothing for it */
};

static enum status check(cublasStatus_t code, const char *what) {
  if (code == CUBLAS_STATUS_SUCCESS)
    return STATUS_OK;
  return fail(code == CUBLAS_STATUS_ALLOC_FAILED ? ERR_MEMORY : ERR_DEVICE, "cuBLASLt: %s: %s (status %d)", what,
              cublasLtGetStatusString(code), (int)code);
}

/* --- open and close ------------------------------------------------------------------------------------------ */

enum status linear_cuda_open(struct ops_cuda *context) {
  TRY(device_alloc(context->device, BLAS_WORKSPACE, &context->blas_workspace));
  return check(cublasLtCreate(&context->blas), "opening the library");
}

static void product_destroy(struct product **product) {
  struct product *own = *product;
  if (own == NULL)
    return;
  for (int i = 0; i < 3; i++)
    if (own->layouts[i] != NULL)
      cublasLtMatrixLayoutDestroy(own->layouts[i]);
  if (own->desc != NULL)
    cublasLtMatmulDescDestroy(own->desc);
  memory_free((void **)product);
}

void linear_cuda_close(struct ops_cuda *context) {
  for (int i = 0; i < BLAS_PRODUCTS; i++)
    product_destroy(&context->products[i]);
  if (context->blas != NULL)
    cublasLtDestroy(context->blas);
  context->blas = NULL;
  device_free(context->device, &context->blas_workspace);
}

/* --- choosing ------------------------------------------------------------------------------------------------ */

static cudaDataType_t type_of(enum dtype dtype) {
  return dtype == BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* y and grad_y */
static enum dtype dtype_y(enum precision precision, const struct linear_shape *shape) {
  return shape->wide ? F32 : precision_dtype(precision);
}

static cublasStatus_t set(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, const void *value,
                          size_t bytes) {
  return cublasLtMatmulDescSetAttribute(desc, attribute, value, bytes);
}

/* The operation: transposes, arithmetic, bias. */
static cublasStatus_t describe(struct product *product, cudaDataType_t result) {
  const struct product_key *key = &product->key;
  cublasComputeType_t compute = key->precision == PRECISION_TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  cublasOperation_t first = key->kind == FORWARD ? CUBLAS_OP_T : CUBLAS_OP_N;
  cublasOperation_t second = key->kind == BACKWARD_WEIGHTS ? CUBLAS_OP_T : CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
  cublasStatus_t code = cublasLtMatmulDescCreate(&product->desc, compute, CUDA_R_32F);
  code = code ? code : set(product->desc, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first);
  code = code ? code : set(product->desc, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second);
  if (!key->biased)
    return code;
  code = code ? code : set(product->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
  return code ? code : set(product->desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &result, sizeof result);
}

/* Rows and columns of the three matrices, in cuBLASLt's terms; all are dense. */
static cublasStatus_t lay_out(struct product *product, cudaDataType_t value, cudaDataType_t result) {
  const struct product_key *key = &product->key;
  const uint64_t in = (uint64_t)key->in, out = (uint64_t)key->out, rows = (uint64_t)key->rows;
  const uint64_t sizes[][3][2] = {[FORWARD] = {{in, out}, {in, rows}, {out, rows}},
                                  [BACKWARD_DATA] = {{in, out}, {out, rows}, {in, rows}},
                                  [BACKWARD_WEIGHTS] = {{in, rows}, {out, rows}, {in, out}}};
  cublasStatus_t code = CUBLAS_STATUS_SUCCESS;
  for (int i = 0; i < 3; i++) {
    const uint64_t *size = sizes[key->kind][i];
    code = code ? code
                : cublasLtMatrixLayoutCreate(&product->layouts[i], i == 2 ? result : value, size[0], size[1],
                                             (int64_t)size[0]);
  }
  return code;
}

static cublasStatus_t prefer(cublasLtMatmulPreference_t preference, const int alignment[]) {
  static const cublasLtMatmulPreferenceAttributes_t names[4] = {
      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
  const size_t workspace = BLAS_WORKSPACE;
  /* Parts of a sum stay float32: the other schemes round them to the type of the result. */
  const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  cublasStatus_t code = cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                             &workspace, sizeof workspace);
  code = code ? code
              : cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                     &reductions, sizeof reductions);
  for (int i = 0; i < 4; i++) {
    const uint32_t bytes = (uint32_t)alignment[i < 2 ? i : 2];
    code = code ? code : cublasLtMatmulPreferenceSetAttribute(preference, names[i], &bytes, sizeof bytes);
  }
  return code;
}

/* The library's first advice, which depends on the shape and on what arrays lie on, and takes no measurement: so that
 * all ranks, and a run that is resumed, compute the same bits.  It reads where the bias lies, which is set before. */
static enum status choose(struct ops_cuda *context, struct product *product) {
  cublasLtMatmulPreference_t preference;
  cublasLtMatmulHeuristicResult_t advice;
  int count = 0;
  TRY(check(cublasLtMatmulPreferenceCreate(&preference), "preferences"));
  cublasStatus_t code = prefer(preference, product->key.alignment);
  if (code == CUBLAS_STATUS_SUCCESS) {
    code = cublasLtMatmulAlgoGetHeuristic(context->blas, product->desc, product->layouts[0], product->layouts[1],
                                          product->layouts[2], product->layouts[2], preference, 1, &advice, &count);
    product->refused = code == CUBLAS_STATUS_NOT_SUPPORTED || (code == CUBLAS_STATUS_SUCCESS && count == 0);
  }
  cublasLtMatmulPreferenceDestroy(preference);
  if (product->refused)
    return STATUS_OK;
  TRY(check(code, "advice on a product"));
  product->algorithm = advice.algo;
  product->workspace = advice.workspaceSize;
  return STATUS_OK;
}

/* The three matrices of a product, and its bias or NULL. */
struct operands {
  const void *first, *second, *bias;
  void *result;
};

static enum status set_bias(struct product *product, const struct operands *operands) {
  if (operands->bias == NULL)
    return STATUS_OK;
  return check(set(product->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &operands->bias, sizeof operands->bias),
               "the bias of a product");
}

static enum status product_create(struct ops_cuda *context, const struct product_key *key,
                                  const struct operands *operands, struct product **out) {
  cudaDataType_t value = type_of(precision_dtype(key->precision));
  cudaDataType_t result = key->kind == BACKWARD_WEIGHTS || (key->kind == FORWARD && key->wide) ? CUDA_R_32F : value;
  struct product *product;
  enum status status;
  TRY(memory_alloc_zero(sizeof *product, (void **)&product));
  product->key = *key;
  TRY_GOTO(check(describe(product, result), "describing a product"), out);
  TRY_GOTO(check(lay_out(product, value, result), "describing matrices"), out);
  TRY_GOTO(set_bias(product, operands), out);
  TRY_GOTO(choose(context, product), out);
  *out = product;
  return STATUS_OK;
out:
  product_destroy(&product);
  return status;
}

/* Found, or made in place of the one that was not used for longest. */
static enum status product_for(struct ops_cuda *context, const struct product_key *key, const struct operands *operands,
                               struct product **out) {
  struct product **oldest = &context->products[0];
  for (int i = 0; i < BLAS_PRODUCTS; i++) {
    struct product **place = &context->products[i];
    if (*place != NULL && memcmp(&(*place)->key, key, sizeof *key) == 0) {
      oldest = place;
      break;
    }
    if (*oldest != NULL && (*place == NULL || (*place)->last_use < (*oldest)->last_use))
      oldest = place;
  }
  if (*oldest == NULL || memcmp(&(*oldest)->key, key, sizeof *key) != 0) {
    product_destroy(oldest);
    TRY(product_create(context, key, operands, oldest));
  }
  (*oldest)->last_use = ++context->uses;
  *out = *oldest;
  return STATUS_OK;
}

/* --- running ------------------------------------------------------------------------------------------------- */

/* Of an address: the largest power of two up to 256 on which it lies. */
static int alignment_of(const void *data) {
  int bytes = 1;
  while (bytes < 256 && (uintptr_t)data % (2 * (uintptr_t)bytes) == 0)
    bytes *= 2;
  return bytes;
}

static enum status find(struct ops_cuda *context, enum product_kind kind, enum precision precision, int64_t rows,
                        const struct linear_shape *shape, const struct operands *operands, struct product **out) {
  struct product_key key;
  memset(&key, 0, sizeof key);
  key.kind = kind;
  key.precision = precision;
  key.rows = rows;
  key.in = shape->in;
  key.out = shape->out;
  key.wide = shape->wide;
  key.biased = operands->bias != NULL;
  key.alignment[0] = alignment_of(operands->first);
  key.alignment[1] = alignment_of(operands->second);
  key.alignment[2] = alignment_of(operands->result);
  key.alignment[3] = alignment_of(operands->bias);
  return product_for(context, &key, operands, out);
}

static enum status run(struct ops_cuda *context, struct product *product, const struct operands *operands) {
  const float one = 1, zero = 0;
  TRY(set_bias(product, operands));
  return check(cublasLtMatmul(context->blas, product->desc, &one, operands->first, product->layouts[0],
                              operands->second, product->layouts[1], &zero, operands->result, product->layouts[2],
                              operands->result, product->layouts[2], &product->algorithm, context->blas_workspace,
                              product->workspace, cuda_stream(context->stream)),
               "a product");
}

/* Elements of bfloat16, so that what follows lies on 256 bytes too. */
static size_t bf16_room(int64_t count) {
  return ((size_t)count * 2 + 255) / 256 * 256;
}

/* Where rounded copies of weights, bias and grad_y go: NULL where none is needed. */
struct copies {
  void *weight, *bias, *grad_y;
};

static enum status copies_reserve(struct ops_cuda *context, enum precision precision, int64_t rows,
                                  const struct linear_shape *shape, struct copies *copies) {
  size_t weight = bf16_room(shape->in * shape->out), bias = bf16_room(shape->out);
  size_t grad_y = shape->wide ? bf16_room(rows * shape->out) : 0;
  char *block;
  memset(copies, 0, sizeof *copies);
  if (precision != PRECISION_BF16)
    return STATUS_OK;
  TRY(scratch_reserve(context, weight + bias + grad_y, (void **)&block));
  copies->weight = block;
  copies->bias = block + weight;
  copies->grad_y = shape->wide ? block + weight + bias : NULL;
  return STATUS_OK;
}

enum status linear_cuda_forward(struct ops_cuda *context, enum precision precision, int64_t rows,
                                const struct linear_shape *shape, const void *x, const float *weight, const float *bias,
                                void *y) {
  enum dtype dtype = precision_dtype(precision), result = dtype_y(precision, shape);
  int64_t in = shape->in, out = shape->out;
  struct copies copies;
  struct product *product = NULL;
  if (rows == 0)
    return STATUS_OK;
  TRY(copies_reserve(context, precision, rows, shape, &copies));
  struct operands operands = {.first = copies.weight != NULL ? copies.weight : weight, .second = x, .result = y};
  /* The library adds a bias of the result's type that lies on 16 bytes. */
  bool rounded = bias != NULL && result == BF16, apart = bias != NULL && !rounded && (uintptr_t)bias % 16 != 0;
  if (bias != NULL && !apart)
    operands.bias = rounded ? copies.bias : bias;
  if (out > FEW_OUTPUTS)
    TRY(find(context, FORWARD, precision, rows, shape, &operands, &product));
  if (product == NULL || product->refused)
    return linear_forward_launch(context->stream, dtype, result, rows, in, out, x, weight, bias, y);
  if (copies.weight != NULL)
    TRY(cast_launch(context->stream, (size_t)(in * out), weight, copies.weight));
  if (rounded)
    TRY(cast_launch(context->stream, (size_t)out, bias, copies.bias));
  TRY(run(context, product, &operands));
  return apart ? bias_launch(context->stream, result, rows, out, bias, y) : STATUS_OK;
}

enum status linear_cuda_backward_data(struct ops_cuda *context, enum precision precision, int64_t rows,
                                      const struct linear_shape *shape, const void *grad_y, const float *weight,
                                      void *grad_x) {
  enum dtype dtype = precision_dtype(precision), result = dtype_y(precision, shape);
  int64_t in = shape->in, out = shape->out;
  struct copies copies;
  struct product *product = NULL;
  if (rows == 0)
    return STATUS_OK;
  TRY(copies_reserve(context, precision, rows, shape, &copies));
  struct operands operands = {.first = copies.weight != NULL ? copies.weight : weight,
                              .second = copies.grad_y != NULL ? copies.grad_y : grad_y,
                              .result = grad_x};
  if (out > FEW_OUTPUTS)
    TRY(find(context, BACKWARD_DATA, precision, rows, shape, &operands, &product));
  if (product == NULL || product->refused)
    return linear_backward_data_launch(context->stream, dtype, result, rows, in, out, grad_y, weight, grad_x);
  if (copies.weight != NULL)
    TRY(cast_launch(context->stream, (size_t)(in * out), weight, copies.weight));
  if (copies.grad_y != NULL)
    TRY(cast_launch(context->stream, (size_t)(rows * out), grad_y, copies.grad_y));
  return run(context, product, &operands);
}

static enum status weight_gradient(struct ops_cuda *context, enum precision precision, int64_t rows,
                                   const struct linear_shape *shape, const void *x, const void *grad_y,
                                   float *grad_weight) {
  enum dtype dtype = precision_dtype(precision), result = dtype_y(precision, shape);
  struct copies copies;
  struct product *product = NULL;
  TRY(copies_reserve(context, precision, rows, shape, &copies));
  struct operands operands = {
      .first = x, .second = copies.grad_y != NULL ? copies.grad_y : grad_y, .result = grad_weight};
  if (shape->out > FEW_OUTPUTS)
    TRY(find(context, BACKWARD_WEIGHTS, precision, rows, shape, &operands, &product));
  if (product == NULL || product->refused)
    return linear_backward_weights_launch(context->stream, dtype, result, rows, shape->in, shape->out, x, grad_y,
                                          context->partials, grad_weight);
  if (copies.grad_y != NULL)
    TRY(cast_launch(context->stream, (size_t)(rows * shape->out), grad_y, copies.grad_y));
  return run(context, product, &operands);
}

enum status linear_cuda_backward_weights(struct ops_cuda *context, enum precision precision, int64_t rows,
                                         const struct linear_shape *shape, const void *x, const void *grad_y,
                                         float *grad_weight, float *grad_bias) {
  enum dtype result = dtype_y(precision, shape);
  if (grad_bias != NULL)
    TRY(column_sums_launch(context->stream, result, rows, shape->out, grad_y, context->partials, grad_bias));
  if (rows == 0)
    return stream_zero(context->stream, grad_weight, (size_t)(shape->in * shape->out) * sizeof *grad_weight);
  return weight_gradient(context, precision, rows, shape, x, grad_y, grad_weight);
}
