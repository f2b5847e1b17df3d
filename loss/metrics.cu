/* Kernels of metrics: errors by bin and by group, ranks, correlations.  A block adds up a bin, a group or a correlation
 * by itself: sums have a fixed order, and a split is small beside the network that saw it. */
#include "loss/metrics_kernels.h"

#include "loss/kernels.cuh"

template <typename T>
static __global__ void __launch_bounds__(THREADS)
    columns_kernel(struct metrics_shape shape, const int32_t *row, const T *predictions, double *columns) {
  int64_t place = thread_number();
  if (place >= shape.rows)
    return;
  const T *from = predictions + (int64_t)row[place] * shape.targets;
  for (int k = 0; k < shape.targets; k++)
    columns[k * shape.rows + place] = (double)from[k];
}

extern "C" enum status metrics_columns_launch(enum dtype dtype, const struct metrics_shape *shape, const int32_t *row,
                                              const void *predictions, double *columns, struct stream *stream) {
  if (shape->rows == 0)
    return STATUS_OK;
  unsigned blocks = blocks_of(shape->rows, THREADS);
  if (dtype == F64)
    LAUNCH(columns_kernel<double>, blocks, THREADS, cuda_stream(stream), *shape, row, (const double *)predictions,
           columns);
  else
    LAUNCH(columns_kernel<float>, blocks, THREADS, cuda_stream(stream), *shape, row, (const float *)predictions,
           columns);
  return cuda_launched("ordering the predictions of metrics");
}

/* --- errors --------------------------------------------------------------------------------------------------- */

struct joined_bin : metrics_bin {
  __device__ void join(const joined_bin &more) {
    metrics_errors_join(&errors, &more.errors);
    bad = more.bad < bad ? more.bad : bad;
  }
};

struct joined_group : metrics_found {
  __device__ void join(const joined_group &more) {
    metrics_sums_join(&sums, &more.sums);
    bad = more.bad < bad ? more.bad : bad;
  }
};

/* One block a bin. */
static __global__ void __launch_bounds__(THREADS)
    bins_kernel(struct metrics_shape shape, const int32_t *row, const int32_t *first, const double *predictions,
                const double *labels, struct metrics_bin *bins) {
  __shared__ joined_bin tree[THREADS];
  joined_bin own = {};
  own.bad = INFINITY;
  int targets = shape.targets;
  for (int64_t place = first[blockIdx.x] + (int)threadIdx.x; place < first[blockIdx.x + 1]; place += THREADS) {
    double absolute = 0, square = 0, bad = INFINITY;
    for (int k = 0; k < targets; k++) {
      double prediction = predictions[k * shape.rows + place], d = prediction - labels[k * shape.rows + place];
      absolute += fabs(d);
      square += d * d;
      if (!(prediction - prediction == 0) && bad == INFINITY)
        bad = (double)((int64_t)row[place] * targets + k);
    }
    joined_bin more = {};
    more.errors = metrics_errors_of(shape.rule, targets, absolute, square);
    more.bad = bad;
    own.join(more);
  }
  join_block(tree, own);
  if (threadIdx.x == 0)
    bins[blockIdx.x] = own;
}

/* One block a group. */
static __global__ void __launch_bounds__(THREADS)
    groups_kernel(struct metrics_shape shape, const int32_t *first, const struct metrics_bin *bins,
                  struct metrics_found *found) {
  __shared__ joined_group tree[THREADS];
  joined_group own = {};
  own.bad = INFINITY;
  struct metrics_range range = shape.bins_of[blockIdx.x];
  for (int64_t bin = range.first + (int)threadIdx.x; bin < range.next; bin += THREADS) {
    metrics_sums_add(&own.sums, &bins[bin].errors, first[bin + 1] - first[bin]);
    own.bad = bins[bin].bad < own.bad ? bins[bin].bad : own.bad;
  }
  join_block(tree, own);
  if (threadIdx.x == 0)
    found[blockIdx.x] = own;
}

extern "C" enum status metrics_errors_launch(const struct metrics_shape *shape, const int32_t *row,
                                             const int32_t *first, const double *predictions, const double *labels,
                                             struct metrics_bin *bins, struct metrics_found *found,
                                             struct stream *stream) {
  if (shape->rows == 0)
    return STATUS_OK;
  LAUNCH_BLOCKS(bins_kernel, (unsigned)shape->bins, THREADS, cuda_stream(stream), *shape, row, first, predictions,
                labels, bins);
  LAUNCH_BLOCKS(groups_kernel, METRICS_GROUPS, THREADS, cuda_stream(stream), *shape, first,
                (const struct metrics_bin *)bins, found);
  return cuda_launched("the errors of metrics");
}

/* --- ranks ---------------------------------------------------------------------------------------------------- */

/* How many of sorted are below the value, or not above it. */
static __device__ __forceinline__ int64_t count_below(int64_t count, const double *sorted, double value, bool equal) {
  int64_t low = 0, high = count;
  while (low < high) {
    int64_t middle = low + (high - low) / 2;
    if (sorted[middle] < value || (equal && sorted[middle] == value))
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static __global__ void __launch_bounds__(THREADS)
    ranks_kernel(int64_t count, const double *values, const double *sorted, double *ranks) {
  int64_t i = thread_number();
  if (i < count)
    ranks[i] = metrics_rank(count_below(count, sorted, values[i], false), count_below(count, sorted, values[i], true));
}

extern "C" enum status metrics_ranks_launch(int64_t count, const double *values, double *sorted, void *scratch,
                                            size_t bytes, double *ranks, struct stream *stream) {
  if (count == 0)
    return STATUS_OK;
  TRY(metrics_sort_launch(count, values, sorted, scratch, bytes, stream));
  LAUNCH(ranks_kernel, blocks_of(count, THREADS), THREADS, cuda_stream(stream), count, values, (const double *)sorted,
         ranks);
  return cuda_launched("the ranks of metrics");
}

/* --- correlations --------------------------------------------------------------------------------------------- */

struct span {
  double sum_x, low_x, high_x, sum_y, low_y, high_y;
  __device__ void join(const span &more) {
    sum_x += more.sum_x;
    low_x = more.low_x < low_x ? more.low_x : low_x;
    high_x = more.high_x > high_x ? more.high_x : high_x;
    sum_y += more.sum_y;
    low_y = more.low_y < low_y ? more.low_y : low_y;
    high_y = more.high_y > high_y ? more.high_y : high_y;
  }
};

struct moments {
  double xx, yy, xy;
  __device__ void join(const moments &more) {
    xx += more.xx;
    yy += more.yy;
    xy += more.xy;
  }
};

/* One block a correlation: of group, component, and values or ranks. */
static __global__ void __launch_bounds__(THREADS)
    correlations_kernel(struct metrics_shape shape, const double *predictions, const double *labels,
                        const double *prediction_ranks, const double *label_ranks, double *correlations) {
  __shared__ span spans[THREADS];
  __shared__ moments tree[THREADS];
  int number = (int)blockIdx.x, k = number / 2 % shape.targets, group = number / 2 / shape.targets;
  struct metrics_range range = shape.places_of[group];
  int64_t column = (number % 2 != 0 && group != METRICS_ALL ? shape.targets + k : k) * shape.rows;
  const double *x = (number % 2 == 0 ? predictions : prediction_ranks) + column;
  const double *y = (number % 2 == 0 ? labels : label_ranks) + column;
  span own = {0, INFINITY, -INFINITY, 0, INFINITY, -INFINITY};
  for (int64_t i = range.first + (int)threadIdx.x; i < range.next; i += THREADS) {
    span more = {x[i], x[i], x[i], y[i], y[i], y[i]};
    own.join(more);
  }
  join_block(spans, own);
  __syncthreads();
  own = spans[0];
  double n = (double)(range.next - range.first), mean_x = own.sum_x / n, mean_y = own.sum_y / n;
  moments centred = {0, 0, 0};
  for (int64_t i = range.first + (int)threadIdx.x; i < range.next; i += THREADS) {
    double dx = x[i] - mean_x, dy = y[i] - mean_y;
    moments more = {dx * dx, dy * dy, dx * dy};
    centred.join(more);
  }
  join_block(tree, centred);
  bool varied = own.low_x < own.high_x && own.low_y < own.high_y;
  if (threadIdx.x == 0)
    correlations[number] = varied ? metrics_correlation(centred.xx, centred.yy, centred.xy) : NAN;
}

extern "C" enum status metrics_correlations_launch(const struct metrics_shape *shape, const double *predictions,
                                                   const double *labels, const double *prediction_ranks,
                                                   const double *label_ranks, double *correlations,
                                                   struct stream *stream) {
  if (shape->rows == 0)
    return STATUS_OK;
  LAUNCH_BLOCKS(correlations_kernel, (unsigned)(METRICS_GROUPS * shape->targets * 2), THREADS, cuda_stream(stream),
                *shape, predictions, labels, prediction_ranks, label_ranks, correlations);
  return cuda_launched("the correlations of metrics");
}
