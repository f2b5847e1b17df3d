/* Weights' gradients by gathering. */
#include "model/conv_gathered.h"

#include "model/gemm.h"

#include <string.h>

#define FEW_PLACES 6       /* of the output; more, and gathering costs more than it saves */
#define LEAST_CHANNELS 128 /* in and out: small products are oneDNN's                     */

static int64_t places_of(const struct conv_shape *s) {
  return spatial_out(s->height, s->kernel, s->stride, s->padding) *
         spatial_out(s->width, s->kernel, s->stride, s->padding);
}

bool conv_gathered_suits(const struct conv_shape *s) {
  return !s->bias && s->kernel > 1 && places_of(s) > 1 && places_of(s) <= FEW_PLACES && s->in >= LEAST_CHANNELS &&
         s->out >= LEAST_CHANNELS;
}

/* What the kernel sees of one image [height, width, in] at one place; row [kernel, kernel, in]. */
static void gather_place(const struct conv_shape *s, const float *image, int64_t top, int64_t left, float *row) {
  for (int ky = 0; ky < s->kernel; ky++) {
    for (int kx = 0; kx < s->kernel; kx++, row += s->in) {
      int64_t y = top + ky, x = left + kx;
      if (y >= 0 && y < s->height && x >= 0 && x < s->width)
        memcpy(row, image + (y * s->width + x) * s->in, (size_t)s->in * sizeof *row);
      else
        memset(row, 0, (size_t)s->in * sizeof *row);
    }
  }
}

static void gather(const struct conv_shape *s, int64_t rows, const float *x, float *gathered) {
  int64_t width = spatial_out(s->width, s->kernel, s->stride, s->padding), places = places_of(s);
  int64_t columns = (int64_t)s->kernel * s->kernel * s->in, pixels = s->height * s->width * s->in;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < rows * places; i++)
    gather_place(s, x + i / places * pixels, i % places / width * s->stride - s->padding,
                 i % width * s->stride - s->padding, gathered + i * columns);
}

/* [out, kernel, kernel, in] to [out, in, kernel, kernel]. */
static void sort(const struct conv_shape *s, const float *product, float *grad_weight) {
  int64_t area = (int64_t)s->kernel * s->kernel;
#pragma omp parallel for schedule(static)
  for (int64_t o = 0; o < s->out; o++) {
    const float *from = product + o * area * s->in;
    float *to = grad_weight + o * area * s->in;
    for (int64_t i = 0; i < s->in; i++)
      for (int64_t at = 0; at < area; at++)
        to[i * area + at] = from[at * s->in + i];
  }
}

enum status conv_gathered_weights(const struct conv_shape *s, struct workspace *workspace, int64_t rows, const float *x,
                                  const float *grad_y, float *grad_weight) {
  int64_t columns = (int64_t)s->kernel * s->kernel * s->in, places = rows * places_of(s);
  TRY(workspace_reserve(workspace, (size_t)((places + s->out) * columns) * sizeof(float)));
  float *gathered = workspace->data, *product = gathered + places * columns;
  gather(s, rows, x, gathered);
  TRY(gemm(F32, GEMM_TRANSPOSED, GEMM_PLAIN, s->out, columns, places, 1, grad_y, s->out, gathered, columns, 0, product,
           columns));
  sort(s, product, grad_weight);
  return STATUS_OK;
}
