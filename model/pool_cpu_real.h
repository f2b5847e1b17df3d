/* Pooling and pixels on the CPU for one element type: included by ops_cpu_real.h, which defines INDEX, an integer as
 * wide as REAL (a vector of choices then has as many lanes as one of values).
 *
 * A kernel makes one line [width, channels] of its result; the lines of all images are shared by the threads.  The
 * ways back gather: each element of the gradient is a sum over the windows it lies in, in a fixed order. */

enum { POOL_COLUMNS = 64 }; /* channels at a time: their values and choices stay in registers or close by */

/* The part of a window that lies in the image, in elements of the kernel: [first, end). */
static inline void window_part(int64_t origin, int kernel, int64_t size, int *first, int *end) {
  *first = origin < 0 ? (int)-origin : 0;
  *end = size - origin < kernel ? (int)(size - origin) : kernel;
}

/* Windows [first, end) of those along one side that contain place `at`. */
static inline void windows_around(int64_t at, int kernel, const struct pool_shape *shape, int64_t places,
                                  int64_t *first, int64_t *end) {
  int64_t before = at + shape->padding - kernel; /* the last window that begins too early begins here or before */
  *first = before < 0 ? 0 : before / shape->stride + 1;
  *end = (at + shape->padding) / shape->stride + 1;
  *end = *end < places ? *end : places;
}

/* --- maximum ------------------------------------------------------------------------------------------------- */

/* One window, n channels; x is its first element, which may lie outside the image. */
static inline __attribute__((always_inline)) void max_window(const struct pool_shape *shape, const int rows[2],
                                                             const int columns[2], int64_t n, const REAL *x, REAL *y,
                                                             uint8_t *chosen) {
  REAL best[POOL_COLUMNS];
  INDEX which[POOL_COLUMNS];
  bool begun = false;
  for (int ky = rows[0]; ky < rows[1]; ky++)
    for (int kx = columns[0]; kx < columns[1]; kx++) {
      const REAL *here = x + (ky * shape->width + kx) * shape->channels;
      INDEX index = (INDEX)ky * shape->kernel_width + kx;
      if (!begun) {
        for (int64_t c = 0; c < n; c++) {
          best[c] = here[c];
          which[c] = index;
        }
        begun = true;
        continue;
      }
#pragma omp simd
      for (int64_t c = 0; c < n; c++) { /* larger, or the first NaN */
        bool take = !(here[c] <= best[c]) & (best[c] == best[c]);
        best[c] = take ? here[c] : best[c];
        which[c] = take ? index : which[c];
      }
    }
  for (int64_t c = 0; c < n; c++) {
    y[c] = begun ? best[c] : 0; /* a window of nothing but padding */
    chosen[c] = begun ? (uint8_t)which[c] : 0;
  }
}

VECTOR_KERNEL static void max_forward_line(const struct pool_shape *shape, int64_t oy, int64_t out_width,
                                           const REAL *image, REAL *y, uint8_t *chosen) {
  int64_t channels = shape->channels, top = oy * shape->stride - shape->padding;
  int rows[2], columns[2];
  window_part(top, shape->kernel_height, shape->height, &rows[0], &rows[1]);
  for (int64_t ox = 0; ox < out_width; ox++) {
    int64_t left = ox * shape->stride - shape->padding;
    window_part(left, shape->kernel_width, shape->width, &columns[0], &columns[1]);
    for (int64_t c = 0; c < channels; c += POOL_COLUMNS) {
      int64_t n = channels - c < POOL_COLUMNS ? channels - c : POOL_COLUMNS, at = ox * channels + c;
      max_window(shape, rows, columns, n, image + (top * shape->width + left) * channels + c, y + at, chosen + at);
    }
  }
}

static enum status max_pool_forward(const struct pool_shape *shape, int64_t rows, const void *x, void *y,
                                    uint8_t *chosen) {
  int64_t height = spatial_out(shape->height, shape->kernel_height, shape->stride, shape->padding);
  int64_t width = spatial_out(shape->width, shape->kernel_width, shape->stride, shape->padding);
  int64_t image = shape->height * shape->width * shape->channels, line = width * shape->channels;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < rows * height; i++)
    max_forward_line(shape, i % height, width, (const REAL *)x + i / height * image, (REAL *)y + i * line,
                     chosen + i * line);
  return STATUS_OK;
}

/* What one window gives to one place: the gradient of the channels that chose it. */
static inline __attribute__((always_inline)) void max_give(int64_t channels, INDEX index, const REAL *grad_y,
                                                           const uint8_t *chosen, REAL *grad_x) {
#pragma omp simd
  for (int64_t c = 0; c < channels; c++)
    grad_x[c] += (INDEX)chosen[c] == index ? grad_y[c] : 0;
}

/* grad_y, chosen: one image. */
VECTOR_KERNEL static void max_backward_line(const struct pool_shape *shape, int64_t iy, int64_t out_height,
                                            int64_t out_width, const REAL *grad_y, const uint8_t *chosen,
                                            REAL *grad_x) {
  int64_t channels = shape->channels, first_y, end_y, first_x, end_x;
  windows_around(iy, shape->kernel_height, shape, out_height, &first_y, &end_y);
  memset(grad_x, 0, (size_t)(shape->width * channels) * sizeof *grad_x);
  for (int64_t oy = first_y; oy < end_y; oy++) {
    int64_t ky = iy + shape->padding - oy * shape->stride;
    for (int64_t ix = 0; ix < shape->width; ix++) {
      windows_around(ix, shape->kernel_width, shape, out_width, &first_x, &end_x);
      for (int64_t ox = first_x; ox < end_x; ox++) {
        int64_t kx = ix + shape->padding - ox * shape->stride, at = (oy * out_width + ox) * channels;
        max_give(channels, (INDEX)(ky * shape->kernel_width + kx), grad_y + at, chosen + at, grad_x + ix * channels);
      }
    }
  }
}

static enum status max_pool_backward(const struct pool_shape *shape, int64_t rows, const void *grad_y,
                                     const uint8_t *chosen, void *grad_x) {
  int64_t height = spatial_out(shape->height, shape->kernel_height, shape->stride, shape->padding);
  int64_t width = spatial_out(shape->width, shape->kernel_width, shape->stride, shape->padding);
  int64_t image = height * width * shape->channels, line = shape->width * shape->channels;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < rows * shape->height; i++) {
    int64_t from = i / shape->height * image;
    max_backward_line(shape, i % shape->height, height, width, (const REAL *)grad_y + from, chosen + from,
                      (REAL *)grad_x + i * line);
  }
  return STATUS_OK;
}

/* --- average ------------------------------------------------------------------------------------------------- */

/* One window, n channels, summed in double. */
static inline __attribute__((always_inline)) void average_window(const struct pool_shape *shape, const int rows[2],
                                                                 const int columns[2], int64_t n, const REAL *x,
                                                                 REAL *y) {
  double sum[POOL_COLUMNS] = {0}, area = (double)shape->kernel_height * shape->kernel_width;
  for (int ky = rows[0]; ky < rows[1]; ky++)
    for (int kx = columns[0]; kx < columns[1]; kx++) {
      const REAL *here = x + (ky * shape->width + kx) * shape->channels;
#pragma omp simd
      for (int64_t c = 0; c < n; c++)
        sum[c] += (double)here[c];
    }
  for (int64_t c = 0; c < n; c++)
    y[c] = (REAL)(sum[c] / area);
}

VECTOR_KERNEL static void average_forward_line(const struct pool_shape *shape, int64_t oy, int64_t out_width,
                                               const REAL *image, REAL *y) {
  int64_t channels = shape->channels, top = oy * shape->stride - shape->padding;
  int rows[2], columns[2];
  window_part(top, shape->kernel_height, shape->height, &rows[0], &rows[1]);
  for (int64_t ox = 0; ox < out_width; ox++) {
    int64_t left = ox * shape->stride - shape->padding;
    window_part(left, shape->kernel_width, shape->width, &columns[0], &columns[1]);
    for (int64_t c = 0; c < channels; c += POOL_COLUMNS) {
      int64_t n = channels - c < POOL_COLUMNS ? channels - c : POOL_COLUMNS;
      average_window(shape, rows, columns, n, image + (top * shape->width + left) * channels + c,
                     y + ox * channels + c);
    }
  }
}

static enum status average_pool_forward(const struct pool_shape *shape, int64_t rows, const void *x, void *y) {
  int64_t height = spatial_out(shape->height, shape->kernel_height, shape->stride, shape->padding);
  int64_t width = spatial_out(shape->width, shape->kernel_width, shape->stride, shape->padding);
  int64_t image = shape->height * shape->width * shape->channels, line = width * shape->channels;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < rows * height; i++)
    average_forward_line(shape, i % height, width, (const REAL *)x + i / height * image, (REAL *)y + i * line);
  return STATUS_OK;
}

/* grad_y: one image. */
VECTOR_KERNEL static void average_backward_line(const struct pool_shape *shape, int64_t iy, int64_t out_height,
                                                int64_t out_width, const REAL *grad_y, REAL *grad_x) {
  int64_t channels = shape->channels, first_y, end_y, first_x, end_x;
  REAL share = (REAL)(1.0 / ((double)shape->kernel_height * shape->kernel_width));
  windows_around(iy, shape->kernel_height, shape, out_height, &first_y, &end_y);
  memset(grad_x, 0, (size_t)(shape->width * channels) * sizeof *grad_x);
  for (int64_t ix = 0; ix < shape->width; ix++) {
    windows_around(ix, shape->kernel_width, shape, out_width, &first_x, &end_x);
    REAL *here = grad_x + ix * channels;
    for (int64_t oy = first_y; oy < end_y; oy++)
      for (int64_t ox = first_x; ox < end_x; ox++) {
        const REAL *given = grad_y + (oy * out_width + ox) * channels;
#pragma omp simd
        for (int64_t c = 0; c < channels; c++)
          here[c] += given[c] * share;
      }
  }
}

static enum status average_pool_backward(const struct pool_shape *shape, int64_t rows, const void *grad_y,
                                         void *grad_x) {
  int64_t height = spatial_out(shape->height, shape->kernel_height, shape->stride, shape->padding);
  int64_t width = spatial_out(shape->width, shape->kernel_width, shape->stride, shape->padding);
  int64_t image = height * width * shape->channels, line = shape->width * shape->channels;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < rows * shape->height; i++)
    average_backward_line(shape, i % shape->height, height, width, (const REAL *)grad_y + i / shape->height * image,
                          (REAL *)grad_x + i * line);
  return STATUS_OK;
}

/* --- pixels -------------------------------------------------------------------------------------------------- */

enum { PIXEL_CHANNELS = 16 }; /* tables made at a time */

/* What each of the 256 values becomes, for some of the channels. */
struct pixel_tables {
  REAL value[PIXEL_CHANNELS][256];
};

static void pixels_block(int64_t rows, int64_t columns, int64_t stride, const struct pixel_tables *tables,
                         const uint8_t *x, REAL *y) {
  for (int64_t row = 0; row < rows; row++)
    for (int64_t c = 0; c < columns; c++)
      y[row * stride + c] = tables->value[c][x[row * stride + c]];
}

static enum status pixels(size_t count, int64_t channels, const uint8_t *x, const double *mean, const double *std,
                          void *y_out) {
  REAL *y = y_out;
  struct pixel_tables tables;
  for (int64_t column = 0; column < channels; column += PIXEL_CHANNELS) {
    int64_t columns = channels - column < PIXEL_CHANNELS ? channels - column : PIXEL_CHANNELS;
    for (int64_t c = 0; c < columns; c++)
      for (int value = 0; value < 256; value++)
        tables.value[c][value] = (REAL)((value / 255.0 - mean[column + c]) / std[column + c]);
    FOR_EACH_BLOCK(count, pixels_block((int64_t)n, columns, channels, &tables, x + (int64_t)first * channels + column,
                                       y + (int64_t)first * channels + column));
  }
  return STATUS_OK;
}
