/* What the files of the CUDA backend's tables share (ops_cuda.c, linear_cuda.c, conv_cuda.c): the handles and buffers
 * that entries of struct ops work with.
 *
 * One is made when the first table of a device is opened, and lives as long as the device.  Entries have no argument
 * that could lead to it, and a process opens one device: so it is kept in one static pointer, behind
 * ops_cuda_context(). */
#ifndef CONR_MODEL_OPS_CUDA_H
#define CONR_MODEL_OPS_CUDA_H

#include "dist/cuda.h"
#include "model/ops.h"

#include <cublasLt.h>
#include <cudnn.h>

/* Device memory that entries use within one call.  It grows when a shape is met for the first time, at least twofold;
 * earlier blocks are kept until the end, since graphs may have been recorded with them. */
enum { SCRATCH_BLOCKS = 48 };
struct scratch {
  void *blocks[SCRATCH_BLOCKS]; /* the last one is in use */
  int count;
  size_t bytes;
};

enum { BLAS_PRODUCTS = 256 };

struct ops_cuda {
  struct device *device; /* borrowed */
  struct stream *stream; /* borrowed: the device's main one, in which all work is queued */
  cublasLtHandle_t blas;
  cudnnHandle_t dnn;                       /* NULL until the first convolution is created */
  void *blas_workspace;                    /* [BLAS_WORKSPACE] bytes     */
  double *partials;                        /* [PARTIALS] of kernels.h    */
  struct scratch scratch;                  /* parameters as bfloat16     */
  struct product *products[BLAS_PRODUCTS]; /* matrix products met so far */
  uint64_t uses;
  struct ops tables[PRECISION_BF16 + 1];
};

/* Between ops_open() and the end of the device. */
struct ops_cuda *ops_cuda_context(void);

/* At least `bytes` in context->scratch, as *out.  Contents are lost. */
enum status scratch_reserve(struct ops_cuda *context, size_t bytes, void **out);

static inline enum dtype precision_dtype(enum precision precision) {
  return precision == PRECISION_BF16 ? BF16 : F32;
}

/* The tables, but for their device (ops_f32_cuda.c and its kin). */
extern const struct ops ops_cuda_f32, ops_cuda_tf32, ops_cuda_bf16;

/* --- linear_cuda.c ------------------------------------------------------------------------------------------- */

#define BLAS_WORKSPACE ((size_t)32 << 20) /* what NVIDIA recommends for Hopper */

enum status linear_cuda_open(struct ops_cuda *context);
void linear_cuda_close(struct ops_cuda *context);
enum status linear_cuda_forward(struct ops_cuda *context, enum precision precision, int64_t rows,
                                const struct linear_shape *shape, const void *x, const float *weight, const float *bias,
                                void *y);
enum status linear_cuda_backward_data(struct ops_cuda *context, enum precision precision, int64_t rows,
                                      const struct linear_shape *shape, const void *grad_y, const float *weight,
                                      void *grad_x);
enum status linear_cuda_backward_weights(struct ops_cuda *context, enum precision precision, int64_t rows,
                                         const struct linear_shape *shape, const void *x, const void *grad_y,
                                         float *grad_weight, float *grad_bias);

/* --- conv_cuda.c --------------------------------------------------------------------------------------------- */

enum status conv_cuda_create(struct ops_cuda *context, enum precision precision, const struct conv_shape *shape,
                             struct conv **out);
void conv_cuda_destroy(struct conv **conv);
void conv_cuda_close(struct ops_cuda *context);
enum status conv_cuda_forward(struct conv *conv, struct workspace *workspace, int64_t rows, const void *x,
                              const void *weight, const void *bias, void *y);
enum status conv_cuda_backward_data(struct conv *conv, struct workspace *workspace, int64_t rows, const void *grad_y,
                                    const void *weight, void *grad_x);
enum status conv_cuda_backward_weights(struct conv *conv, struct workspace *workspace, int64_t rows, const void *x,
                                       const void *grad_y, void *grad_weight, void *grad_bias);

#endif
