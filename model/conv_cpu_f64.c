/* Convolutions in float64 on the CPU: plain loops in a fixed order, for exactness, not for speed. */
#include "model/conv_cpu.h"

#include "dist/memory.h"
#include "model/ops_cpu.h"

#include <string.h>

struct conv {
  struct conv_shape shape;
  int64_t out_height, out_width;
};

enum status conv_f64_create(const struct conv_shape *shape, struct conv **out) {
  *out = NULL;
  TRY(memory_alloc_zero(sizeof **out, (void **)out));
  (*out)->shape = *shape;
  (*out)->out_height = spatial_out(shape->height, shape->kernel, shape->stride, shape->padding);
  (*out)->out_width = spatial_out(shape->width, shape->kernel, shape->stride, shape->padding);
  return STATUS_OK;
}

void conv_f64_destroy(struct conv **conv) {
  memory_free((void **)conv);
}

/* y[j] += a[0] b[0][j] + a[1] b[1][j] + ..., for `columns` j and `terms` products, in ascending order.  The steps are
 * from one a, and one row of b, to the next.  All products below are made of this. */
VECTOR_KERNEL static void add_products(int64_t terms, int64_t columns, const double *a, int64_t a_step, const double *b,
                                       int64_t b_step, double *y) {
  int64_t k = 0;
  for (; k + 4 <= terms; k += 4) {
    double a0 = a[k * a_step], a1 = a[(k + 1) * a_step], a2 = a[(k + 2) * a_step], a3 = a[(k + 3) * a_step];
    const double *b0 = b + k * b_step, *b1 = b0 + b_step, *b2 = b1 + b_step, *b3 = b2 + b_step;
#pragma omp simd
    for (int64_t j = 0; j < columns; j++)
      y[j] = (((y[j] + a0 * b0[j]) + a1 * b1[j]) + a2 * b2[j]) + a3 * b3[j];
  }
  for (; k < terms; k++) {
#pragma omp simd
    for (int64_t j = 0; j < columns; j++)
      y[j] += a[k * a_step] * b[k * b_step + j];
  }
}

/* Weights in the order in which rows of a product lie side by side: [kernel, kernel, in, out] or, for the way back,
 * [kernel, kernel, out, in]. */
static void sort_weights(const struct conv_shape *s, bool out_last, const double *weight, double *sorted) {
  int64_t area = (int64_t)s->kernel * s->kernel;
#pragma omp parallel for schedule(static) if (s->out * s->in * area > BLOCK * BLOCKS_THREADED)
  for (int64_t at = 0; at < area; at++)
    for (int64_t o = 0; o < s->out; o++)
      for (int64_t i = 0; i < s->in; i++)
        sorted[at * s->in * s->out + (out_last ? i * s->out + o : o * s->in + i)] = weight[(o * s->in + i) * area + at];
}

static enum status sorted_weights(const struct conv_shape *s, struct workspace *workspace, bool out_last,
                                  const double *weight) {
  TRY(workspace_reserve(workspace, (size_t)(s->out * s->in * s->kernel * s->kernel) * sizeof(double)));
  sort_weights(s, out_last, weight, workspace->data);
  return STATUS_OK;
}

/* One line of the output of one image: y [out width, out]. */
static void forward_line(const struct conv *conv, int64_t oy, const double *x, const double *sorted, const double *bias,
                         double *y) {
  const struct conv_shape *s = &conv->shape;
  for (int64_t ox = 0; ox < conv->out_width; ox++, y += s->out) {
    if (bias == NULL)
      memset(y, 0, (size_t)s->out * sizeof *y);
    else
      memcpy(y, bias, (size_t)s->out * sizeof *y);
    for (int ky = 0; ky < s->kernel; ky++)
      for (int kx = 0; kx < s->kernel; kx++) {
        int64_t iy = oy * s->stride - s->padding + ky, ix = ox * s->stride - s->padding + kx;
        if (iy >= 0 && iy < s->height && ix >= 0 && ix < s->width)
          add_products(s->in, s->out, x + (iy * s->width + ix) * s->in, 1,
                       sorted + ((int64_t)ky * s->kernel + kx) * s->in * s->out, s->out, y);
      }
  }
}

enum status conv_f64_forward(struct conv *conv, struct workspace *workspace, int64_t rows, const void *x,
                             const void *weight, const void *bias, void *y) {
  const struct conv_shape *s = &conv->shape;
  int64_t lines = rows * conv->out_height;
  TRY(sorted_weights(s, workspace, true, weight));
#pragma omp parallel for schedule(static)
  for (int64_t line = 0; line < lines; line++) {
    const double *image = (const double *)x + line / conv->out_height * s->height * s->width * s->in;
    forward_line(conv, line % conv->out_height, image, workspace->data, s->bias ? bias : NULL,
                 (double *)y + line * conv->out_width * s->out);
  }
  return STATUS_OK;
}

/* Which place of the output sees input place `at` through element k of the kernel?  -1 = none. */
static int64_t seen_from(int64_t at, int k, const struct conv_shape *s, int64_t places) {
  int64_t distance = at + s->padding - k;
  return distance >= 0 && distance % s->stride == 0 && distance / s->stride < places ? distance / s->stride : -1;
}

/* One line of the gradient of one image: grad_x [width, in]. */
static void backward_line(const struct conv *conv, int64_t iy, const double *grad_y, const double *sorted,
                          double *grad_x) {
  const struct conv_shape *s = &conv->shape;
  for (int64_t ix = 0; ix < s->width; ix++, grad_x += s->in) {
    memset(grad_x, 0, (size_t)s->in * sizeof *grad_x);
    for (int ky = 0; ky < s->kernel; ky++)
      for (int kx = 0; kx < s->kernel; kx++) {
        int64_t oy = seen_from(iy, ky, s, conv->out_height), ox = seen_from(ix, kx, s, conv->out_width);
        if (oy >= 0 && ox >= 0)
          add_products(s->out, s->in, grad_y + (oy * conv->out_width + ox) * s->out, 1,
                       sorted + ((int64_t)ky * s->kernel + kx) * s->in * s->out, s->in, grad_x);
      }
  }
}

enum status conv_f64_backward_data(struct conv *conv, struct workspace *workspace, int64_t rows, const void *grad_y,
                                   const void *weight, void *grad_x) {
  const struct conv_shape *s = &conv->shape;
  int64_t lines = rows * s->height;
  TRY(sorted_weights(s, workspace, false, weight));
#pragma omp parallel for schedule(static)
  for (int64_t line = 0; line < lines; line++) {
    const double *image = (const double *)grad_y + line / s->height * conv->out_height * conv->out_width * s->out;
    backward_line(conv, line % s->height, image, workspace->data, (double *)grad_x + line * s->width * s->in);
  }
  return STATUS_OK;
}

/* The first place of the output that sees the image, not the padding, through element k of the kernel, and the place
 * after the last. */
static void places_in_image(int64_t size, int k, const struct conv_shape *s, int64_t places, int64_t *first,
                            int64_t *end) {
  int64_t before = s->padding - k, last = size - 1 + s->padding - k;
  *first = before <= 0 ? 0 : (before + s->stride - 1) / s->stride;
  *end = last < 0 ? 0 : last / s->stride + 1;
  *end = *end < places ? *end : places;
}

/* One element of the kernel for one output channel, over all images: sum [in]. */
static void weight_gradient(const struct conv *conv, int64_t rows, int64_t o, int ky, int kx, const double *x,
                            const double *grad_y, double *sum) {
  const struct conv_shape *s = &conv->shape;
  int64_t first_y, end_y, first_x, end_x;
  places_in_image(s->height, ky, s, conv->out_height, &first_y, &end_y);
  places_in_image(s->width, kx, s, conv->out_width, &first_x, &end_x);
  memset(sum, 0, (size_t)s->in * sizeof *sum);
  for (int64_t row = 0; row < rows; row++)
    for (int64_t oy = first_y; oy < end_y; oy++) {
      int64_t iy = oy * s->stride - s->padding + ky, ix = first_x * s->stride - s->padding + kx;
      const double *g = grad_y + ((row * conv->out_height + oy) * conv->out_width + first_x) * s->out + o;
      const double *line = x + ((row * s->height + iy) * s->width + ix) * s->in;
      add_products(end_x - first_x, s->in, g, s->out, line, s->stride * s->in, sum);
    }
}

static void bias_gradient(const struct conv *conv, int64_t rows, const double *grad_y, double *grad_bias) {
  const double one = 1;
  memset(grad_bias, 0, (size_t)conv->shape.out * sizeof *grad_bias);
  add_products(rows * conv->out_height * conv->out_width, conv->shape.out, &one, 0, grad_y, conv->shape.out, grad_bias);
}

enum status conv_f64_backward_weights(struct conv *conv, struct workspace *workspace, int64_t rows, const void *x,
                                      const void *grad_y, void *grad_weight, void *grad_bias) {
  const struct conv_shape *s = &conv->shape;
  int64_t area = (int64_t)s->kernel * s->kernel;
  TRY(workspace_reserve(workspace, (size_t)(s->out * area * s->in) * sizeof(double)));
#pragma omp parallel for schedule(static)
  for (int64_t piece = 0; piece < s->out * area; piece++) {
    int64_t o = piece / area, at = piece % area;
    double *sum = (double *)workspace->data + piece * s->in, *gradient = (double *)grad_weight + o * s->in * area;
    weight_gradient(conv, rows, o, (int)(at / s->kernel), (int)(at % s->kernel), x, grad_y, sum);
    for (int64_t i = 0; i < s->in; i++)
      gradient[i * area + at] = sum[i];
  }
  if (s->bias)
    bias_gradient(conv, rows, grad_y, grad_bias);
  return STATUS_OK;
}
