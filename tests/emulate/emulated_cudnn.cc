/* cuDNN's convolutions without a GPU, as far as model/conv_cuda.c calls them: images are spread into matrices and
 * multiplied by oneDNN, in float32.  With math that allows tensor cores float32 is read as TF32, with 10 bits of
 * mantissa.
 *
 * It is stricter than the library, so that what a GPU would forgive shows: only dense channels-last tensors, operands
 * in device memory and on 16 bytes, algorithms that were offered for the math at hand, scratch memory as large as was
 * asked for (it is overwritten).  The offers begin with one that would not repeat its bits and one that does not work;
 * in float32 one by a transform follows.
 *
 *   EMULATED_CUDNN_SCRATCH   bytes of scratch that an algorithm takes beside what it needs
 *   EMULATED_CUDNN_UNLISTED  1 = the algorithm that works is not among the offers */
#include "emulated_cuda.h"

#include <cudnn.h>
#include <oneapi/dnnl/dnnl.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

/* --- what is described --------------------------------------------------------------------------------------- */

struct cudnnContext {
  cudaStream_t stream;
};

struct cudnnTensorStruct {
  cudnnDataType_t type;
  int64_t rows, channels, height, width;
};

struct cudnnFilterStruct {
  cudnnDataType_t type;
  int64_t out, in, height, width;
};

struct cudnnConvolutionStruct {
  int64_t padding, stride;
  cudnnMathType_t math;
};

extern "C" size_t cudnnGetVersion(void) {
  return CUDNN_VERSION;
}

extern "C" const char *cudnnGetErrorString(cudnnStatus_t status) {
  switch (status) {
  case CUDNN_STATUS_SUCCESS:
    return "CUDNN_STATUS_SUCCESS";
  case CUDNN_STATUS_BAD_PARAM:
    return "CUDNN_STATUS_BAD_PARAM (emulated)";
  case CUDNN_STATUS_NOT_SUPPORTED:
    return "CUDNN_STATUS_NOT_SUPPORTED (emulated)";
  case CUDNN_STATUS_EXECUTION_FAILED:
    return "CUDNN_STATUS_EXECUTION_FAILED (emulated)";
  default:
    return "an error (emulated)";
  }
}

extern "C" cudnnStatus_t cudnnCreate(cudnnHandle_t *handle) {
  *handle = new cudnnContext{};
  return CUDNN_STATUS_SUCCESS;
}

extern "C" cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
  delete handle;
  return CUDNN_STATUS_SUCCESS;
}

extern "C" cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}

extern "C" cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t *desc) {
  *desc = new cudnnTensorStruct{};
  return CUDNN_STATUS_SUCCESS;
}

extern "C" cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t desc) {
  delete desc;
  return CUDNN_STATUS_SUCCESS;
}

static bool known(cudnnDataType_t type) {
  return type == CUDNN_DATA_FLOAT || type == CUDNN_DATA_BFLOAT16;
}

extern "C" cudnnStatus_t cudnnSetTensor4dDescriptor(cudnnTensorDescriptor_t desc, cudnnTensorFormat_t format,
                                                    cudnnDataType_t type, int n, int c, int h, int w) {
  if (format != CUDNN_TENSOR_NHWC || !known(type) || n < 1 || c < 1 || h < 1 || w < 1)
    return CUDNN_STATUS_BAD_PARAM;
  *desc = {type, n, c, h, w};
  return CUDNN_STATUS_SUCCESS;
}

extern "C" cudnnStatus_t cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t *desc) {
  *desc = new cudnnFilterStruct{};
  return CUDNN_STATUS_SUCCESS;
}

extern "C" cudnnStatus_t cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t desc) {
  delete desc;
  return CUDNN_STATUS_SUCCESS;
}

extern "C" cudnnStatus_t cudnnSetFilter4dDescriptor(cudnnFilterDescriptor_t desc, cudnnDataType_t type,
                                                    cudnnTensorFormat_t format, int k, int c, int h, int w) {
  if (format != CUDNN_TENSOR_NHWC || !known(type) || k < 1 || c < 1 || h < 1 || w < 1)
    return CUDNN_STATUS_BAD_PARAM;
  *desc = {type, k, c, h, w};
  return CUDNN_STATUS_SUCCESS;
}

extern "C" cudnnStatus_t cudnnCreateConvolutionDescriptor(cudnnConvolutionDescriptor_t *desc) {
  *desc = new cudnnConvolutionStruct{};
  return CUDNN_STATUS_SUCCESS;
}

extern "C" cudnnStatus_t cudnnDestroyConvolutionDescriptor(cudnnConvolutionDescriptor_t desc) {
  delete desc;
  return CUDNN_STATUS_SUCCESS;
}

extern "C" cudnnStatus_t cudnnSetConvolution2dDescriptor(cudnnConvolutionDescriptor_t desc, int padding_height,
                                                         int padding_width, int stride_height, int stride_width,
                                                         int dilation_height, int dilation_width,
                                                         cudnnConvolutionMode_t mode, cudnnDataType_t compute) {
  if (padding_height != padding_width || stride_height != stride_width || dilation_height != 1 || dilation_width != 1 ||
      mode != CUDNN_CROSS_CORRELATION || compute != CUDNN_DATA_FLOAT)
    return CUDNN_STATUS_BAD_PARAM;
  *desc = {padding_height, stride_height, CUDNN_DEFAULT_MATH};
  return CUDNN_STATUS_SUCCESS;
}

extern "C" cudnnStatus_t cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t desc, cudnnMathType_t math) {
  desc->math = math;
  return CUDNN_STATUS_SUCCESS;
}

/* --- a problem ----------------------------------------------------------------------------------------------- */

namespace {

/* By value: it is worked on after descriptors may have changed. */
struct problem {
  cudnnTensorStruct x, y;
  cudnnFilterStruct w;
  cudnnConvolutionStruct conv;

  int64_t places() const {
    return y.height * y.width;
  }
  int64_t terms() const { /* of each sum of the forward product */
    return w.height * w.width * w.in;
  }
  bool tensor_cores() const {
    return conv.math != CUDNN_FMA_MATH;
  }
  /* Of an algorithm: the matrix of one image, and 100 more so that a size is never round. */
  size_t scratch() const {
    const char *more = getenv("EMULATED_CUDNN_SCRATCH");
    return static_cast<size_t>(places() * terms()) * sizeof(float) + 100 +
           (more != nullptr ? strtoull(more, nullptr, 10) : 0);
  }
};

int64_t windows(int64_t size, int64_t kernel, const cudnnConvolutionStruct &conv) {
  return (size + 2 * conv.padding - kernel) / conv.stride + 1;
}

cudnnStatus_t understand(cudnnTensorDescriptor_t x, cudnnFilterDescriptor_t w, cudnnConvolutionDescriptor_t conv,
                         cudnnTensorDescriptor_t y, problem *out) {
  *out = {*x, *y, *w, *conv};
  bool fits = x->channels == w->in && y->channels == w->out && x->rows == y->rows && x->type == w->type &&
              y->type == w->type && y->height == windows(x->height, w->height, *conv) &&
              y->width == windows(x->width, w->width, *conv);
  /* bfloat16 is for tensor cores */
  bool works = x->type == CUDNN_DATA_FLOAT || conv->math != CUDNN_FMA_MATH;
  return !fits ? CUDNN_STATUS_BAD_PARAM : works ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_SUPPORTED;
}

size_t size_of(cudnnDataType_t type) {
  return type == CUDNN_DATA_BFLOAT16 ? 2 : 4;
}

/* --- numbers ------------------------------------------------------------------------------------------------- */

float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

/* To the nearest with `dropped` bits fewer, ties to even; NaN stays. */
float shortened(float value, int dropped) {
  uint32_t bits = bits_of(value), half = 1u << (dropped - 1);
  if (value != value)
    return value;
  bits += half - 1 + (bits >> dropped & 1);
  return from_bits(bits >> dropped << dropped);
}

/* `count` numbers as the product reads them. */
std::vector<float> read(const problem &problem, cudnnDataType_t type, const void *data, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; i++) {
    if (type == CUDNN_DATA_BFLOAT16)
      values[i] = from_bits(static_cast<uint32_t>(static_cast<const uint16_t *>(data)[i]) << 16);
    else
      values[i] = problem.tensor_cores() ? shortened(static_cast<const float *>(data)[i], 13)
                                         : static_cast<const float *>(data)[i];
  }
  return values;
}

void write(cudnnDataType_t type, const std::vector<float> &values, void *data, int64_t first) {
  for (size_t i = 0; i < values.size(); i++) {
    if (type == CUDNN_DATA_BFLOAT16)
      static_cast<uint16_t *>(data)[first + i] = static_cast<uint16_t>(bits_of(shortened(values[i], 16)) >> 16);
    else
      static_cast<float *>(data)[first + i] = values[i];
  }
}

/* --- products ------------------------------------------------------------------------------------------------ */

/* For each place of the output the part of one image that its window sees, [places, terms]; `visit` is called with
 * where an element of the matrix and one of the image are. */
template <class Visit> void for_windows(const problem &p, Visit visit) {
  for (int64_t place = 0; place < p.places(); place++)
    for (int64_t ky = 0; ky < p.w.height; ky++)
      for (int64_t kx = 0; kx < p.w.width; kx++) {
        int64_t iy = place / p.y.width * p.conv.stride - p.conv.padding + ky;
        int64_t ix = place % p.y.width * p.conv.stride - p.conv.padding + kx;
        if (iy >= 0 && iy < p.x.height && ix >= 0 && ix < p.x.width)
          visit(place * p.terms() + (ky * p.w.width + kx) * p.w.in, (iy * p.x.width + ix) * p.w.in);
      }
}

std::vector<float> spread(const problem &p, const float *image) {
  std::vector<float> matrix(static_cast<size_t>(p.places() * p.terms()));
  for_windows(p, [&](int64_t to, int64_t from) {
    std::memcpy(&matrix[to], image + from, static_cast<size_t>(p.w.in) * sizeof(float));
  });
  return matrix;
}

int64_t image_count(const cudnnTensorStruct &tensor) {
  return tensor.channels * tensor.height * tensor.width;
}

const void *image_at(const cudnnTensorStruct &tensor, const void *data, int64_t row) {
  return static_cast<const char *>(data) + static_cast<size_t>(row * image_count(tensor)) * size_of(tensor.type);
}

void forward(const problem &p, const void *x, const void *w, void *y) {
  std::vector<float> filters = read(p, p.w.type, w, p.w.out * p.terms());
  for (int64_t row = 0; row < p.x.rows; row++) {
    std::vector<float> image = read(p, p.x.type, image_at(p.x, x, row), image_count(p.x));
    std::vector<float> matrix = spread(p, image.data()), result(static_cast<size_t>(p.places() * p.w.out));
    dnnl_sgemm('N', 'T', p.places(), p.w.out, p.terms(), 1, matrix.data(), p.terms(), filters.data(), p.terms(), 0,
               result.data(), p.w.out);
    write(p.y.type, result, y, row * image_count(p.y));
  }
}

void backward_data(const problem &p, const void *w, const void *dy, void *dx) {
  std::vector<float> filters = read(p, p.w.type, w, p.w.out * p.terms());
  for (int64_t row = 0; row < p.x.rows; row++) {
    std::vector<float> given = read(p, p.y.type, image_at(p.y, dy, row), image_count(p.y));
    std::vector<float> matrix(static_cast<size_t>(p.places() * p.terms()));
    std::vector<float> result(static_cast<size_t>(image_count(p.x)));
    dnnl_sgemm('N', 'N', p.places(), p.terms(), p.w.out, 1, given.data(), p.w.out, filters.data(), p.terms(), 0,
               matrix.data(), p.terms());
    for_windows(p, [&](int64_t from, int64_t to) {
      for (int64_t i = 0; i < p.w.in; i++)
        result[to + i] += matrix[from + i];
    });
    write(p.x.type, result, dx, row * image_count(p.x));
  }
}

void backward_filter(const problem &p, const void *x, const void *dy, void *dw) {
  std::vector<float> sum(static_cast<size_t>(p.w.out * p.terms()));
  for (int64_t row = 0; row < p.x.rows; row++) {
    std::vector<float> image = read(p, p.x.type, image_at(p.x, x, row), image_count(p.x));
    std::vector<float> given = read(p, p.y.type, image_at(p.y, dy, row), image_count(p.y));
    std::vector<float> matrix = spread(p, image.data());
    dnnl_sgemm('T', 'N', p.w.out, p.terms(), p.places(), 1, given.data(), p.w.out, matrix.data(), p.terms(), 1,
               sum.data(), p.terms());
  }
  write(p.w.type, sum, dw, 0);
}

/* --- algorithms ---------------------------------------------------------------------------------------------- */

/* Of the offers for each product the last one works; its number differs by product. */
constexpr cudnnConvolutionFwdAlgo_t forward_works = CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
constexpr cudnnConvolutionBwdDataAlgo_t data_works = CUDNN_CONVOLUTION_BWD_DATA_ALGO_1;
constexpr cudnnConvolutionBwdFilterAlgo_t filter_works = CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1;

template <class Offer, class Algorithm>
cudnnStatus_t offer(const problem &problem, Algorithm loose, Algorithm broken, Algorithm transform, Algorithm works,
                    int requested, int *returned, Offer *offers) {
  cudnnMathType_t math = problem.tensor_cores() ? CUDNN_TENSOR_OP_MATH : CUDNN_FMA_MATH;
  const char *unlisted = getenv("EMULATED_CUDNN_UNLISTED");
  int count = 0;
  if (requested < 4)
    return CUDNN_STATUS_BAD_PARAM;
  offers[count++] = {loose, CUDNN_STATUS_SUCCESS, -1, 0, CUDNN_NON_DETERMINISTIC, math, {}};
  offers[count++] = {broken, CUDNN_STATUS_NOT_SUPPORTED, -1, 0, CUDNN_DETERMINISTIC, math, {}};
  if (!problem.tensor_cores())
    offers[count++] = {transform, CUDNN_STATUS_SUCCESS, -1, 0, CUDNN_DETERMINISTIC, math, {}};
  if (unlisted == nullptr || strcmp(unlisted, "1") != 0)
    offers[count++] = {works, CUDNN_STATUS_SUCCESS, -1, problem.scratch(), CUDNN_DETERMINISTIC, math, {}};
  *returned = count;
  return CUDNN_STATUS_SUCCESS;
}

bool fine(const void *data, size_t bytes) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && emulated::on_device(data, bytes);
}

size_t bytes_of(const cudnnTensorStruct &tensor) {
  return static_cast<size_t>(tensor.rows * image_count(tensor)) * size_of(tensor.type);
}

size_t bytes_of(const cudnnFilterStruct &filter) {
  return static_cast<size_t>(filter.out * filter.in * filter.height * filter.width) * size_of(filter.type);
}

/* Checks what the three products have in common and queues `work`. */
template <class Work>
cudnnStatus_t queue(cudnnHandle_t handle, const problem &problem, bool works, const void *alpha, const void *beta,
                    const void *x, const void *w, const void *y, void *scratch, size_t scratch_bytes, Work work) {
  if (*static_cast<const float *>(alpha) != 1 || *static_cast<const float *>(beta) != 0 || !works)
    return CUDNN_STATUS_NOT_SUPPORTED;
  if (!fine(x, bytes_of(problem.x)) || !fine(w, bytes_of(problem.w)) || !fine(y, bytes_of(problem.y)) ||
      scratch_bytes < problem.scratch() || !fine(scratch, scratch_bytes))
    return CUDNN_STATUS_BAD_PARAM;
  cudaError_t code = emulated::enqueue(handle->stream, [=] {
    std::memset(scratch, 0xff, scratch_bytes);
    work(problem);
  });
  return code == cudaSuccess ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_EXECUTION_FAILED;
}

} // namespace

extern "C" cudnnStatus_t cudnnGetConvolutionForwardAlgorithm_v7(cudnnHandle_t, const cudnnTensorDescriptor_t x,
                                                                const cudnnFilterDescriptor_t w,
                                                                const cudnnConvolutionDescriptor_t conv,
                                                                const cudnnTensorDescriptor_t y, const int requested,
                                                                int *returned, cudnnConvolutionFwdAlgoPerf_t *offers) {
  problem problem;
  cudnnStatus_t code = understand(x, w, conv, y, &problem);
  return code ? code
              : offer(problem, CUDNN_CONVOLUTION_FWD_ALGO_GEMM, CUDNN_CONVOLUTION_FWD_ALGO_DIRECT,
                      CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD, forward_works, requested, returned, offers);
}

extern "C" cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithm_v7(cudnnHandle_t, const cudnnFilterDescriptor_t w,
                                                                     const cudnnTensorDescriptor_t dy,
                                                                     const cudnnConvolutionDescriptor_t conv,
                                                                     const cudnnTensorDescriptor_t dx,
                                                                     const int requested, int *returned,
                                                                     cudnnConvolutionBwdDataAlgoPerf_t *offers) {
  problem problem;
  cudnnStatus_t code = understand(dx, w, conv, dy, &problem);
  return code ? code
              : offer(problem, CUDNN_CONVOLUTION_BWD_DATA_ALGO_0, CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT,
                      CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD, data_works, requested, returned, offers);
}

extern "C" cudnnStatus_t cudnnGetConvolutionBackwardFilterAlgorithm_v7(cudnnHandle_t, const cudnnTensorDescriptor_t x,
                                                                       const cudnnTensorDescriptor_t dy,
                                                                       const cudnnConvolutionDescriptor_t conv,
                                                                       const cudnnFilterDescriptor_t dw,
                                                                       const int requested, int *returned,
                                                                       cudnnConvolutionBwdFilterAlgoPerf_t *offers) {
  problem problem;
  cudnnStatus_t code = understand(x, dw, conv, dy, &problem);
  return code ? code
              : offer(problem, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT,
                      CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT_TILING, filter_works, requested, returned, offers);
}

extern "C" cudnnStatus_t cudnnGetConvolutionForwardWorkspaceSize(cudnnHandle_t, const cudnnTensorDescriptor_t x,
                                                                 const cudnnFilterDescriptor_t w,
                                                                 const cudnnConvolutionDescriptor_t conv,
                                                                 const cudnnTensorDescriptor_t y,
                                                                 cudnnConvolutionFwdAlgo_t, size_t *bytes) {
  problem problem;
  cudnnStatus_t code = understand(x, w, conv, y, &problem);
  *bytes = code ? 0 : problem.scratch();
  return code;
}

extern "C" cudnnStatus_t cudnnGetConvolutionBackwardDataWorkspaceSize(cudnnHandle_t, const cudnnFilterDescriptor_t w,
                                                                      const cudnnTensorDescriptor_t dy,
                                                                      const cudnnConvolutionDescriptor_t conv,
                                                                      const cudnnTensorDescriptor_t dx,
                                                                      cudnnConvolutionBwdDataAlgo_t, size_t *bytes) {
  problem problem;
  cudnnStatus_t code = understand(dx, w, conv, dy, &problem);
  *bytes = code ? 0 : problem.scratch();
  return code;
}

extern "C" cudnnStatus_t cudnnGetConvolutionBackwardFilterWorkspaceSize(cudnnHandle_t, const cudnnTensorDescriptor_t x,
                                                                        const cudnnTensorDescriptor_t dy,
                                                                        const cudnnConvolutionDescriptor_t conv,
                                                                        const cudnnFilterDescriptor_t dw,
                                                                        cudnnConvolutionBwdFilterAlgo_t,
                                                                        size_t *bytes) {
  problem problem;
  cudnnStatus_t code = understand(x, dw, conv, dy, &problem);
  *bytes = code ? 0 : problem.scratch();
  return code;
}

extern "C" cudnnStatus_t
cudnnConvolutionForward(cudnnHandle_t handle, const void *alpha, const cudnnTensorDescriptor_t x_desc, const void *x,
                        const cudnnFilterDescriptor_t w_desc, const void *w, const cudnnConvolutionDescriptor_t conv,
                        cudnnConvolutionFwdAlgo_t algorithm, void *scratch, size_t scratch_bytes, const void *beta,
                        const cudnnTensorDescriptor_t y_desc, void *y) {
  problem problem;
  cudnnStatus_t code = understand(x_desc, w_desc, conv, y_desc, &problem);
  return code ? code
              : queue(handle, problem, algorithm == forward_works, alpha, beta, x, w, y, scratch, scratch_bytes,
                      [=](const struct problem &p) { forward(p, x, w, y); });
}

extern "C" cudnnStatus_t cudnnConvolutionBackwardData(cudnnHandle_t handle, const void *alpha,
                                                      const cudnnFilterDescriptor_t w_desc, const void *w,
                                                      const cudnnTensorDescriptor_t dy_desc, const void *dy,
                                                      const cudnnConvolutionDescriptor_t conv,
                                                      cudnnConvolutionBwdDataAlgo_t algorithm, void *scratch,
                                                      size_t scratch_bytes, const void *beta,
                                                      const cudnnTensorDescriptor_t dx_desc, void *dx) {
  problem problem;
  cudnnStatus_t code = understand(dx_desc, w_desc, conv, dy_desc, &problem);
  return code ? code
              : queue(handle, problem, algorithm == data_works, alpha, beta, dx, w, dy, scratch, scratch_bytes,
                      [=](const struct problem &p) { backward_data(p, w, dy, dx); });
}

extern "C" cudnnStatus_t cudnnConvolutionBackwardFilter(cudnnHandle_t handle, const void *alpha,
                                                        const cudnnTensorDescriptor_t x_desc, const void *x,
                                                        const cudnnTensorDescriptor_t dy_desc, const void *dy,
                                                        const cudnnConvolutionDescriptor_t conv,
                                                        cudnnConvolutionBwdFilterAlgo_t algorithm, void *scratch,
                                                        size_t scratch_bytes, const void *beta,
                                                        const cudnnFilterDescriptor_t dw_desc, void *dw) {
  problem problem;
  cudnnStatus_t code = understand(x_desc, dw_desc, conv, dy_desc, &problem);
  return code ? code
              : queue(handle, problem, algorithm == filter_works, alpha, beta, x, dw, dy, scratch, scratch_bytes,
                      [=](const struct problem &p) { backward_filter(p, x, dy, dw); });
}
