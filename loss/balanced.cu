/* Kernels of Balanced MSE.  All in double, as on the host; sums in a fixed order, which no GPU changes. */
#include "loss/balanced_kernels.h"
#include "loss/pointwise.h"

#include "loss/balanced_element.h"
#include "loss/kernels.cuh"

extern "C" size_t balanced_bytes(void) {
  return 2 * POINTWISE_PARTS * sizeof(double);
}

/* The block's rows, for add_parts_launch(). */
static __device__ __forceinline__ void write_parts(const struct balanced_row &sum, const struct balanced_rows &rows) {
  rows.partial[blockIdx.x] = sum.loss / rows.rows_global;
  rows.partial[POINTWISE_PARTS + blockIdx.x] = sum.grad_sigma / rows.rows_global;
}

static enum status add_parts(int parts, const struct balanced_rows *rows, struct stream *stream) {
  TRY(add_parts_launch(parts, rows->partial, rows->sums, stream));
  return add_parts_launch(parts, rows->partial + POINTWISE_PARTS, rows->sums + 1, stream);
}

/* --- BMC and BNI: a block for each row, threads along the points ------------------------------------------------ */

#define PULLS 4 /* components that one pass over the points adds up */

struct largest_of {
  double value;
  __device__ void join(const largest_of &more) {
    value = more.value > value ? more.value : value;
  }
};

/* Of w = exp(exponent - largest). */
struct point_sums {
  double sum, squares, pull[PULLS];
  __device__ void join(const point_sums &more) {
    sum += more.sum;
    squares += more.squares;
    for (int d = 0; d < PULLS; d++)
      pull[d] += more.pull[d];
  }
};

template <typename T> struct points_of {
  int64_t count;
  int targets;
  const T *at;
  const double *log_weight;
  double weight;
};

template <typename T>
static __device__ __forceinline__ double exponent_of(const points_of<T> &points, int64_t j, const float *p,
                                                     double half_precision, double *square) {
  *square = 0;
  for (int d = 0; d < points.targets; d++) {
    double difference = (double)points.at[j * points.targets + d] - (double)p[d];
    *square += difference * difference;
  }
  return balanced_exponent(points.log_weight == nullptr ? points.weight : points.log_weight[j], *square,
                           half_precision);
}

template <typename T>
static __device__ __forceinline__ double largest_exponent(largest_of (&tree)[THREADS], const points_of<T> &points,
                                                          const float *p, double half_precision) {
  largest_of own = {-INFINITY};
  for (int64_t j = threadIdx.x; j < points.count; j += THREADS) {
    double square;
    own.join(largest_of{exponent_of(points, j, p, half_precision, &square)});
  }
  join_block(tree, own);
  __syncthreads();
  return tree[0].value;
}

/* tree[0] has the sums, those of (point - p) for the components from `first` on, when all threads have met again. */
template <typename T>
static __device__ __forceinline__ void sum_points(point_sums (&tree)[THREADS], const points_of<T> &points,
                                                  const float *p, double half_precision, double largest, int first) {
  point_sums own = {0, 0, {0, 0, 0, 0}};
  for (int64_t j = threadIdx.x; j < points.count; j += THREADS) {
    double square, w = exp(exponent_of(points, j, p, half_precision, &square) - largest);
    own.sum += w;
    own.squares += w * square;
    for (int d = 0; d < PULLS && first + d < points.targets; d++)
      own.pull[d] += w * ((double)points.at[j * points.targets + first + d] - (double)p[first + d]);
  }
  join_block(tree, own);
  __syncthreads();
}

template <typename T>
static __global__ void __launch_bounds__(THREADS) points_kernel(struct balanced_rows rows, points_of<T> points) {
  __shared__ largest_of maxima[THREADS];
  __shared__ point_sums tree[THREADS];
  int targets = rows.targets, thread = (int)threadIdx.x;
  double sigma = *rows.sigma, half_precision = 1 / (2 * sigma * sigma);
  struct balanced_row sum = {0, 0};
  for (int64_t row = blockIdx.x; row < rows.rows; row += gridDim.x) {
    const float *p = rows.pred + row * targets, *target = rows.target + row * targets;
    double largest = largest_exponent(maxima, points, p, half_precision);
    for (int first = 0; first < targets; first += PULLS) {
      sum_points(tree, points, p, half_precision, largest, first);
      int d = first + thread;
      if (thread < PULLS && d < targets)
        rows.grad[row * targets + d] =
            (float)(balanced_points_slope((double)p[d] - (double)target[d], tree[0].pull[thread], tree[0].sum) /
                    rows.rows_global);
      if (thread == 0 && first == 0) {
        double own = 0;
        for (int k = 0; k < targets; k++)
          own += ((double)p[k] - (double)target[k]) * ((double)p[k] - (double)target[k]);
        struct balanced_row one = balanced_points_row(sigma, own, largest, tree[0].sum, tree[0].squares);
        sum.loss += one.loss;
        sum.grad_sigma += one.grad_sigma;
      }
      __syncthreads(); /* the tree is read */
    }
  }
  if (thread == 0)
    write_parts(sum, rows);
}

template <typename T>
static void points_launch(int parts, const struct balanced_rows *rows, int64_t count, const void *points,
                          const double *log_weight, double weight, struct stream *stream) {
  points_of<T> all = {count, rows->targets, (const T *)points, log_weight, weight};
  LAUNCH_BLOCKS(points_kernel<T>, parts, THREADS, cuda_stream(stream), *rows, all);
}

extern "C" enum status balanced_points_launch(const struct balanced_rows *rows, enum dtype dtype, int64_t count,
                                              const void *points, const double *log_weight, double weight,
                                              struct stream *stream) {
  int parts = (int)(rows->rows < POINTWISE_PARTS ? rows->rows : POINTWISE_PARTS);
  if (rows->rows == 0)
    return STATUS_OK;
  (dtype == F64 ? points_launch<double> : points_launch<float>)(parts, rows, count, points, log_weight, weight, stream);
  TRY(add_parts(parts, rows, stream));
  return cuda_launched("Balanced MSE over points");
}

/* --- GAI: a thread for each row ---------------------------------------------------------------------------------- */

static __global__ void __launch_bounds__(THREADS)
    density_kernel(const struct mixture *mixture, const double *sigma, struct mixture_density *density) {
  if (threadIdx.x == 0)
    density->mixture = mixture;
  for (int k = threadIdx.x; k < mixture->components; k += THREADS)
    mixture_density_component(mixture, k, *sigma * *sigma, density);
}

static __global__ void __launch_bounds__(THREADS)
    mixture_kernel(struct balanced_rows rows, const struct mixture_density *density) {
  __shared__ sum_of_double tree[THREADS];
  struct balanced_row sum = {0, 0};
  for (int64_t row = thread_number(); row < rows.rows; row += (int64_t)gridDim.x * THREADS) {
    double p[MIXTURE_MOST_DIMENSIONS], error[MIXTURE_MOST_DIMENSIONS];
    int64_t first = row * rows.targets;
    for (int d = 0; d < rows.targets; d++) {
      p[d] = (double)rows.pred[first + d];
      error[d] = p[d] - (double)rows.target[first + d];
    }
    struct balanced_row one = balanced_mixture_row(density, *rows.sigma, p, error);
    sum.loss += one.loss;
    sum.grad_sigma += one.grad_sigma;
    for (int d = 0; d < rows.targets; d++)
      rows.grad[first + d] = (float)(error[d] / rows.rows_global);
  }
  sum.loss = sum_block(tree, sum.loss);
  sum.grad_sigma = sum_block(tree, sum.grad_sigma);
  if (threadIdx.x == 0)
    write_parts(sum, rows);
}

extern "C" enum status balanced_mixture_launch(const struct balanced_rows *rows, const struct mixture *mixture,
                                               struct mixture_density *density, struct stream *stream) {
  unsigned blocks = blocks_of(rows->rows, THREADS);
  int parts = (int)(blocks < POINTWISE_PARTS ? blocks : POINTWISE_PARTS);
  if (rows->rows == 0)
    return STATUS_OK;
  LAUNCH_BLOCKS(density_kernel, 1, THREADS, cuda_stream(stream), mixture, rows->sigma, density);
  LAUNCH_BLOCKS(mixture_kernel, parts, THREADS, cuda_stream(stream), *rows, density);
  TRY(add_parts(parts, rows, stream));
  return cuda_launched("Balanced MSE over a mixture");
}
