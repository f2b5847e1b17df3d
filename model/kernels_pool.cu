/* Kernels of pooling, and of pixels.  A thread makes VECTOR channels (or one) of one place of the result; blocks are
 * spread over the places of an image in x and over images in y, so that places are found by 32-bit arithmetic.  All are
 * bound by memory; what windows share comes from the caches.  The ways back gather: each element of the gradient is a
 * sum over the windows it lies in, in a fixed order. */
#include "model/kernels.cuh"

/* A pooling of images, ready for kernels. */
struct pooling {
  int64_t rows;
  int height, width, channels, out_height, out_width;
  int kernel_height, kernel_width, stride, padding;
};

static enum status pooling_of(const struct pool_shape *shape, int64_t rows, struct pooling *out) {
  int64_t out_height = spatial_out(shape->height, shape->kernel_height, shape->stride, shape->padding);
  int64_t out_width = spatial_out(shape->width, shape->kernel_width, shape->stride, shape->padding);
  int64_t most = (int64_t)1 << 31;
  REQUIRE(shape->height * shape->width * shape->channels < most && out_height * out_width * shape->channels < most,
          ERR_BUG, "images of %lld x %lld x %lld are more than the CUDA backend pools", (long long)shape->height,
          (long long)shape->width, (long long)shape->channels);
  out->rows = rows;
  out->height = (int)shape->height;
  out->width = (int)shape->width;
  out->channels = (int)shape->channels;
  out->out_height = (int)out_height;
  out->out_width = (int)out_width;
  out->kernel_height = shape->kernel_height;
  out->kernel_width = shape->kernel_width;
  out->stride = shape->stride;
  out->padding = shape->padding;
  return STATUS_OK;
}

/* One thread's place [y, x] in an image `width` wide, and its first channel. */
struct spot {
  int y, x, channel;
};

static __device__ __forceinline__ struct spot spot_at(unsigned item, unsigned width, unsigned groups, int n) {
  struct spot spot;
  unsigned place = item / groups;
  spot.channel = (int)(item - place * groups) * n;
  spot.y = (int)(place / width);
  spot.x = (int)(place - (unsigned)spot.y * width);
  return spot;
}

/* The part of a window that lies in the image, in elements of the kernel: [first, end). */
static __device__ __forceinline__ void window_part(int origin, int kernel, int size, int *first, int *end) {
  *first = origin < 0 ? -origin : 0;
  *end = size - origin < kernel ? size - origin : kernel;
}

/* Windows [first, end) of those along one side that contain place `at`. */
static __device__ __forceinline__ void windows_around(int at, int kernel, const struct pooling &p, int places,
                                                      int *first, int *end) {
  int before = at + p.padding - kernel; /* the last window that begins too early begins here or before */
  *first = before < 0 ? 0 : before / p.stride + 1;
  *end = (at + p.padding) / p.stride + 1;
  *end = *end < places ? *end : places;
}

/* f.apply<N>(pooling, row, spot) for all spots of all images [height, width, channels]. */
template <typename F, int N>
static __global__ void __launch_bounds__(THREADS)
    spots_kernel(struct pooling pooling, unsigned width, unsigned items, F f) {
  unsigned groups = (unsigned)pooling.channels / N, step = gridDim.x * blockDim.x;
  for (int64_t row = blockIdx.y; row < pooling.rows; row += gridDim.y)
    for (unsigned item = blockIdx.x * blockDim.x + threadIdx.x; item < items; item += step)
      f.template apply<N>(pooling, row, spot_at(item, width, groups, N));
}

template <int N, typename F>
static enum status each_spot(struct stream *stream, const char *what, const struct pooling &pooling, int height,
                             int width, const F &f) {
  unsigned items = (unsigned)(height * width) * (unsigned)(pooling.channels / N);
  if (items == 0 || pooling.rows == 0)
    return STATUS_OK;
  auto kernel = spots_kernel<F, N>;
  int64_t most = 4 * BLOCKS_FULL / blocks_for(items) + 1, images = pooling.rows < most ? pooling.rows : most;
  LAUNCH(kernel, dim3((unsigned)blocks_for(items), (unsigned)images), THREADS, cuda_stream(stream), pooling,
         (unsigned)width, items, f);
  return cuda_launched(what);
}

/* vectors: all arrays lie so that VECTOR channels can be taken at once. */
template <typename F>
static enum status pool(struct stream *stream, const char *what, const struct pooling &pooling, bool back, bool vectors,
                        const F &f) {
  int height = back ? pooling.height : pooling.out_height, width = back ? pooling.width : pooling.out_width;
  return vectors && pooling.channels % VECTOR == 0 ? each_spot<VECTOR>(stream, what, pooling, height, width, f)
                                                   : each_spot<1>(stream, what, pooling, height, width, f);
}

/* Of an element of images [rows, height, width, channels]. */
static __device__ __forceinline__ int64_t element(const struct pooling &p, int64_t row, int height, int width, int y,
                                                  int x, int channel) {
  return row * ((int64_t)height * width * p.channels) + ((int64_t)y * width + x) * p.channels + channel;
}

/* --- maximum ------------------------------------------------------------------------------------------------- */

template <typename T> struct max_forward {
  const T *x;
  T *y;
  uint8_t *chosen;
  template <int N> __device__ void apply(const struct pooling &p, int64_t row, struct spot spot) const {
    int top = spot.y * p.stride - p.padding, left = spot.x * p.stride - p.padding, rows[2], columns[2];
    float best[N] = {0}, here[N]; /* a window of nothing but padding gives 0 */
    uint8_t which[N] = {0};
    bool begun = false;
    window_part(top, p.kernel_height, p.height, &rows[0], &rows[1]);
    window_part(left, p.kernel_width, p.width, &columns[0], &columns[1]);
    for (int ky = rows[0]; ky < rows[1]; ky++)
      for (int kx = columns[0]; kx < columns[1]; kx++) {
        load(x + element(p, row, p.height, p.width, top + ky, left + kx, spot.channel), here);
        UNROLL
        for (int k = 0; k < N; k++) { /* larger, or the first NaN */
          bool take = !begun || (!(here[k] <= best[k]) && best[k] == best[k]);
          best[k] = take ? here[k] : best[k];
          which[k] = take ? (uint8_t)(ky * p.kernel_width + kx) : which[k];
        }
        begun = true;
      }
    int64_t at = element(p, row, p.out_height, p.out_width, spot.y, spot.x, spot.channel);
    store(best, y + at);
    store_bytes(which, chosen + at);
  }
};

template <typename T> struct max_backward {
  const T *grad_y;
  const uint8_t *chosen;
  T *grad_x;
  template <int N> __device__ void apply(const struct pooling &p, int64_t row, struct spot spot) const {
    int first_y, end_y, first_x, end_x;
    float sum[N] = {0}, given[N];
    uint8_t which[N];
    windows_around(spot.y, p.kernel_height, p, p.out_height, &first_y, &end_y);
    windows_around(spot.x, p.kernel_width, p, p.out_width, &first_x, &end_x);
    for (int oy = first_y; oy < end_y; oy++)
      for (int ox = first_x; ox < end_x; ox++) {
        int ky = spot.y + p.padding - oy * p.stride, kx = spot.x + p.padding - ox * p.stride;
        int64_t at = element(p, row, p.out_height, p.out_width, oy, ox, spot.channel);
        load(grad_y + at, given);
        load_bytes(chosen + at, which);
        UNROLL
        for (int k = 0; k < N; k++)
          sum[k] += which[k] == ky * p.kernel_width + kx ? given[k] : 0;
      }
    store(sum, grad_x + element(p, row, p.height, p.width, spot.y, spot.x, spot.channel));
  }
};

template <typename T>
static enum status max_forward_of(struct stream *stream, const struct pooling &pooling, const void *x, void *y,
                                  uint8_t *chosen) {
  return pool(stream, "max pool", pooling, false, on_16_bytes(x) && on_16_bytes(y) && on_8_bytes(chosen),
              max_forward<T>{(const T *)x, (T *)y, chosen});
}

extern "C" enum status max_pool_forward_launch(struct stream *stream, enum dtype dtype, const struct pool_shape *shape,
                                               int64_t rows, const void *x, void *y, uint8_t *chosen) {
  struct pooling pooling = {};
  TRY(pooling_of(shape, rows, &pooling));
  return dtype == BF16 ? max_forward_of<bf16>(stream, pooling, x, y, chosen)
                       : max_forward_of<float>(stream, pooling, x, y, chosen);
}

template <typename T>
static enum status max_backward_of(struct stream *stream, const struct pooling &pooling, const void *grad_y,
                                   const uint8_t *chosen, void *grad_x) {
  return pool(stream, "max pool backward", pooling, true,
              on_16_bytes(grad_y) && on_16_bytes(grad_x) && on_8_bytes(chosen),
              max_backward<T>{(const T *)grad_y, chosen, (T *)grad_x});
}

extern "C" enum status max_pool_backward_launch(struct stream *stream, enum dtype dtype, const struct pool_shape *shape,
                                                int64_t rows, const void *grad_y, const uint8_t *chosen, void *grad_x) {
  struct pooling pooling = {};
  TRY(pooling_of(shape, rows, &pooling));
  return dtype == BF16 ? max_backward_of<bf16>(stream, pooling, grad_y, chosen, grad_x)
                       : max_backward_of<float>(stream, pooling, grad_y, chosen, grad_x);
}

/* --- average ------------------------------------------------------------------------------------------------- */

/* Lines of the window in float, the window in double. */
template <typename T> struct average_forward {
  const T *x;
  T *y;
  template <int N> __device__ void apply(const struct pooling &p, int64_t row, struct spot spot) const {
    int top = spot.y * p.stride - p.padding, left = spot.x * p.stride - p.padding, rows[2], columns[2];
    double total[N] = {0}, area = (double)p.kernel_height * p.kernel_width;
    float v[N];
    window_part(top, p.kernel_height, p.height, &rows[0], &rows[1]);
    window_part(left, p.kernel_width, p.width, &columns[0], &columns[1]);
    for (int ky = rows[0]; ky < rows[1]; ky++) {
      float sum[N] = {0};
      for (int kx = columns[0]; kx < columns[1]; kx++) {
        load(x + element(p, row, p.height, p.width, top + ky, left + kx, spot.channel), v);
        UNROLL
        for (int k = 0; k < N; k++)
          sum[k] += v[k];
      }
      UNROLL
      for (int k = 0; k < N; k++)
        total[k] += (double)sum[k];
    }
    UNROLL
    for (int k = 0; k < N; k++)
      v[k] = (float)(total[k] / area);
    store(v, y + element(p, row, p.out_height, p.out_width, spot.y, spot.x, spot.channel));
  }
};

template <typename T> struct average_backward {
  const T *grad_y;
  T *grad_x;
  template <int N> __device__ void apply(const struct pooling &p, int64_t row, struct spot spot) const {
    int first_y, end_y, first_x, end_x;
    float sum[N] = {0}, given[N], share = (float)(1.0 / ((double)p.kernel_height * p.kernel_width));
    windows_around(spot.y, p.kernel_height, p, p.out_height, &first_y, &end_y);
    windows_around(spot.x, p.kernel_width, p, p.out_width, &first_x, &end_x);
    for (int oy = first_y; oy < end_y; oy++)
      for (int ox = first_x; ox < end_x; ox++) {
        load(grad_y + element(p, row, p.out_height, p.out_width, oy, ox, spot.channel), given);
        UNROLL
        for (int k = 0; k < N; k++)
          sum[k] += given[k] * share;
      }
    store(sum, grad_x + element(p, row, p.height, p.width, spot.y, spot.x, spot.channel));
  }
};

extern "C" enum status average_pool_forward_launch(struct stream *stream, enum dtype dtype,
                                                   const struct pool_shape *shape, int64_t rows, const void *x,
                                                   void *y) {
  struct pooling pooling = {};
  bool vectors = on_16_bytes(x) && on_16_bytes(y);
  TRY(pooling_of(shape, rows, &pooling));
  if (dtype == BF16)
    return pool(stream, "average pool", pooling, false, vectors, average_forward<bf16>{(const bf16 *)x, (bf16 *)y});
  return pool(stream, "average pool", pooling, false, vectors, average_forward<float>{(const float *)x, (float *)y});
}

extern "C" enum status average_pool_backward_launch(struct stream *stream, enum dtype dtype,
                                                    const struct pool_shape *shape, int64_t rows, const void *grad_y,
                                                    void *grad_x) {
  struct pooling pooling = {};
  bool vectors = on_16_bytes(grad_y) && on_16_bytes(grad_x);
  TRY(pooling_of(shape, rows, &pooling));
  if (dtype == BF16)
    return pool(stream, "average pool backward", pooling, true, vectors,
                average_backward<bf16>{(const bf16 *)grad_y, (bf16 *)grad_x});
  return pool(stream, "average pool backward", pooling, true, vectors,
              average_backward<float>{(const float *)grad_y, (float *)grad_x});
}

/* --- pixels -------------------------------------------------------------------------------------------------- */

enum { PIXEL_CHANNELS = 8 }; /* taken at a time */

struct pixel_scaling {
  double mean[PIXEL_CHANNELS], std[PIXEL_CHANNELS];
};

/* Columns [0, columns) of [count, stride].  Each block first makes what each of the 256 values becomes, in double: the
 * divisions of an image would cost more than its memory.  A thread takes VECTOR elements in a row, which only lie so
 * where columns == stride. */
template <typename T, int N>
static __global__ void __launch_bounds__(THREADS)
    pixels_kernel(size_t count, unsigned columns, size_t stride, struct pixel_scaling scaling, const uint8_t *x, T *y) {
  __shared__ float table[PIXEL_CHANNELS * 256];
  for (unsigned i = threadIdx.x; i < columns * 256; i += blockDim.x)
    table[i] = (float)(((double)(i % 256) / 255.0 - scaling.mean[i / 256]) / scaling.std[i / 256]);
  __syncthreads();
  size_t items = count * columns / N, step = (size_t)gridDim.x * blockDim.x;
  size_t begin = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
  unsigned channel = (unsigned)(begin * N % columns), advance = (unsigned)(step * N % columns); /* divided once */
  for (size_t i = begin; i < items; i += step) {
    size_t at = columns == stride ? i * N : (i - channel) / columns * stride + channel;
    uint8_t pixels[N];
    float v[N];
    unsigned here = channel;
    load_bytes(x + at, pixels);
    UNROLL
    for (int k = 0; k < N; k++) {
      v[k] = table[here * 256 + pixels[k]];
      here = here + 1 == columns ? 0 : here + 1;
    }
    store(v, y + at);
    channel = channel + advance < columns ? channel + advance : channel + advance - columns;
  }
}

/* channels first .. first + columns - 1 */
template <typename T>
static enum status pixels_piece(struct stream *stream, size_t count, int64_t channels, int64_t first, unsigned columns,
                                const uint8_t *x, const double *mean, const double *std, T *y) {
  struct pixel_scaling scaling;
  bool vectors = columns == channels && count * columns % VECTOR == 0 && on_8_bytes(x) && on_16_bytes(y);
  for (unsigned c = 0; c < PIXEL_CHANNELS; c++) {
    scaling.mean[c] = c < columns ? mean[first + c] : 0;
    scaling.std[c] = c < columns ? std[first + c] : 1;
  }
  auto kernel = vectors ? pixels_kernel<T, VECTOR> : pixels_kernel<T, 1>;
  int blocks = blocks_for(count * columns / (vectors ? (size_t)VECTOR : 1)); /* few: each makes the tables first */
  LAUNCH_BLOCKS(kernel, blocks < BLOCKS_SUMS ? blocks : (int)BLOCKS_SUMS, THREADS, cuda_stream(stream), count, columns,
                (size_t)channels, scaling, x + first, y + first);
  return cuda_launched("pixels");
}

extern "C" enum status pixels_launch(struct stream *stream, enum dtype dtype, size_t count, int64_t channels,
                                     const uint8_t *x, const double *mean, const double *std, void *y) {
  for (int64_t first = 0; first < channels && count > 0; first += PIXEL_CHANNELS) {
    unsigned columns = (unsigned)(channels - first < PIXEL_CHANNELS ? channels - first : (int64_t)PIXEL_CHANNELS);
    if (dtype == BF16)
      TRY(pixels_piece(stream, count, channels, first, columns, x, mean, std, (bf16 *)y));
    else
      TRY(pixels_piece(stream, count, channels, first, columns, x, mean, std, (float *)y));
  }
  return STATUS_OK;
}
