/* Kernels of RnC: a panel of products becomes distances, then coefficients.  A block for each row, which walks the
 * labels in their order; sums in double and in a fixed order.
 *
 * A row's own label cuts the sorted labels in two.  On either side distances grow away from the cut, so what is at
 * least as far as a pair are the outer ends of both sides, and what is at most as far their inner ends: sums from the
 * ends inwards give Z, sums of 1/Z from the cut outwards the slopes.  All are of positive numbers, and none is a
 * difference of two; where the ends begin is searched for in the labels. */
#include "loss/rnc_kernels.h"

#include "loss/kernels.cuh"

enum { WARP = 32, WARPS = THREADS / WARP };
#define WHOLE_WARP 0xffffffffu
#define SCRATCH_BYTES ((int64_t)64 << 20)
#define BLOCKS_MOST 528 /* 4 for each of 132 processors */

static int64_t row_bytes(int64_t rows) {
  return 2 * rows * (int64_t)sizeof(double);
}

static int blocks_for(int64_t rows, int64_t panel_rows) {
  int64_t fit = SCRATCH_BYTES / row_bytes(rows), blocks = panel_rows < BLOCKS_MOST ? panel_rows : BLOCKS_MOST;
  blocks = blocks < fit ? blocks : fit;
  return (int)(blocks > 1 ? blocks : 1);
}

extern "C" size_t rnc_scratch_bytes(int64_t rows, int64_t panel_rows) {
  int64_t limit = SCRATCH_BYTES > row_bytes(rows) ? SCRATCH_BYTES : row_bytes(rows);
  int64_t bytes = row_bytes(rows) * (panel_rows < BLOCKS_MOST ? panel_rows : BLOCKS_MOST);
  return (size_t)(bytes < limit ? bytes : limit);
}

static __device__ __forceinline__ int lane_number() {
  return (int)threadIdx.x % WARP;
}

static __device__ __forceinline__ int warp_number() {
  return (int)threadIdx.x / WARP;
}

/* --- all rows -------------------------------------------------------------------------------------------------- */

/* A block for each 32 features; its warps share the rows. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    mean_kernel(int features, int64_t stride, const T *z, struct rnc_columns columns) {
  __shared__ double sums[WARPS][WARP];
  int64_t k = (int64_t)blockIdx.x * WARP + lane_number();
  double sum = 0;
  for (int64_t row = warp_number(); row < columns.rows && k < features; row += WARPS)
    sum += (double)to_float(z[row * stride + k]);
  sums[warp_number()][lane_number()] = sum;
  __syncthreads();
  if (warp_number() > 0 || k >= features)
    return;
  for (int warp = 1; warp < WARPS; warp++)
    sum += sums[warp][lane_number()];
  columns.mean[k] = (float)(sum / (double)columns.rows);
}

/* A block for each row of the pitch. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    centre_kernel(int features, int64_t stride, const T *z, struct rnc_columns columns, const float *labels,
                  int64_t label_stride, int32_t *numbers) {
  __shared__ sum_of_double tree[THREADS];
  int64_t row = blockIdx.x;
  bool there = row < columns.rows;
  double squares = 0;
  for (int64_t k = threadIdx.x; k < columns.stride; k += THREADS) {
    float value = there && k < features ? to_float(z[row * stride + k]) - columns.mean[k] : 0;
    columns.centred[row * columns.stride + k] = value;
    squares += (double)value * (double)value;
  }
  squares = sum_block(tree, squares);
  if (threadIdx.x > 0)
    return;
  columns.square[row] = (float)squares;
  columns.length[row] = (float)sqrt(squares);
  if (there) {
    columns.label[row] = labels[row * label_stride];
    numbers[row] = (int32_t)row;
  }
}

template <typename T>
static void measure(const struct rnc_rows *rows, const struct rnc_columns *columns, const float *labels,
                    int64_t label_stride, int32_t *numbers, struct stream *stream) {
  LAUNCH_BLOCKS(mean_kernel<T>, blocks_of(rows->features, WARP), THREADS, cuda_stream(stream), rows->features,
                rows->stride, (const T *)rows->z, *columns);
  LAUNCH_BLOCKS(centre_kernel<T>, (unsigned)columns->pitch, THREADS, cuda_stream(stream), rows->features, rows->stride,
                (const T *)rows->z, *columns, labels, label_stride, numbers);
}

extern "C" enum status rnc_measure_launch(const struct rnc_rows *rows, const struct rnc_columns *columns,
                                          const float *labels, int64_t label_stride, int32_t *numbers,
                                          struct stream *stream) {
  (rows->dtype == BF16 ? measure<__nv_bfloat16> : measure<float>)(rows, columns, labels, label_stride, numbers, stream);
  return cuda_launched("rows of RnC about their mean");
}

/* --- a row's exponentials, as they are or as logarithms --------------------------------------------------------- */

/* Exponentials fit side by side. */
struct plain_form {
  static __device__ double nothing() {
    return 0;
  }
  static __device__ double join(double a, double b) {
    return a + b;
  }
  static __device__ double exponential(float nearest, float distance, double inverse_t) {
    return (double)pair_exp_f32(rnc_exponent_f32(nearest, distance, (float)inverse_t));
  }
  static __device__ double inverse(double z) {
    return 1 / z;
  }
  static __device__ double logarithm(double z) {
    return log(z);
  }
  static __device__ double weight(double exponential, double slope) {
    return exponential * slope;
  }
};

struct logarithm_form {
  static __device__ double nothing() {
    return -INFINITY;
  }
  static __device__ double join(double a, double b) {
    return rnc_add_logarithms(a, b);
  }
  static __device__ double exponential(float nearest, float distance, double inverse_t) {
    return rnc_exponent_f64((double)nearest, (double)distance, inverse_t);
  }
  static __device__ double inverse(double z) {
    return -z;
  }
  static __device__ double logarithm(double z) {
    return z;
  }
  static __device__ double weight(double exponential, double slope) {
    return exp(exponential + slope);
  }
};

/* --- a block's row ---------------------------------------------------------------------------------------------- */

/* What is found out while products become distances. */
struct row_reach {
  float nearest, farthest;
  double distances, near; /* their sum; how many are near */
  __device__ void join(const row_reach &more) {
    nearest = more.nearest < nearest ? more.nearest : nearest;
    farthest = more.farthest > farthest ? more.farthest : farthest;
    distances += more.distances;
    near += more.near;
  }
};

struct row_of_block {
  int64_t place; /* among the columns                                  */
  int64_t below; /* labels that are less than its own: where they end  */
  double label;
  float *pairs;             /* [pitch]                                 */
  uint32_t *near;           /* [words]                                 */
  double *inward, *outward; /* [rows] by place in the order of labels  */
};

static __device__ __forceinline__ row_of_block row_of(const struct rnc_columns &columns, const struct rnc_panel &panel,
                                                      int64_t number, double *scratch) {
  float label = columns.label[panel.first + number];
  row_of_block row = {panel.first + number,
                      0,
                      (double)label,
                      panel.pairs + number * columns.pitch,
                      panel.near + number * rnc_words(columns.pitch),
                      scratch + (int64_t)blockIdx.x * 2 * columns.rows,
                      scratch + ((int64_t)blockIdx.x * 2 + 1) * columns.rows};
  int64_t first = 0, last = columns.rows;
  while (first < last) {
    int64_t middle = (first + last) / 2;
    if (columns.sorted[middle] < label)
      first = middle + 1;
    else
      last = middle;
  }
  row.below = first;
  return row;
}

/* |a - b|^2 from the differences, by a whole warp; all lanes get it. */
template <typename T> static __device__ double difference_square(int features, const T *a, const T *b) {
  double sum = 0;
  for (int k = lane_number(); k < features; k += WARP) {
    double difference = (double)to_float(a[k]) - (double)to_float(b[k]);
    sum += difference * difference;
  }
  for (int bits = WARP / 2; bits > 0; bits /= 2)
    sum += __shfl_xor_sync(WHOLE_WARP, sum, bits);
  return sum;
}

template <typename T>
static __device__ row_reach measure_row(int features, int64_t stride, const T *z, const struct rnc_columns &columns,
                                        const row_of_block &row, row_reach (&tree)[THREADS]) {
  row_reach own = {INFINITY, 0, 0, 0};
  for (int64_t first = (int64_t)warp_number() * WARP; first < columns.pitch; first += THREADS) {
    int64_t j = first + lane_number();
    bool other = j < columns.rows && j != row.place;
    struct rnc_pair_f32 pair = {0, 0};
    if (other)
      pair = rnc_pair_of_f32(columns.square[row.place] + columns.square[j], row.pairs[j],
                             columns.length[row.place] * columns.length[j]);
    unsigned near = __ballot_sync(WHOLE_WARP, pair.near);
    for (unsigned left = near; left != 0; left &= left - 1) {
      int lane = __ffs((int)left) - 1;
      double square = difference_square(features, z + row.place * stride, z + (first + lane) * stride);
      pair.distance = lane == lane_number() ? (float)sqrt(square) : pair.distance;
    }
    if (j < columns.pitch)
      row.pairs[j] = pair.distance;
    if (lane_number() == 0)
      row.near[first / RNC_WORD] = near;
    if (other)
      own.join(row_reach{pair.distance, pair.distance, (double)pair.distance, pair.near ? 1.0 : 0.0});
  }
  join_block(tree, own);
  __syncthreads();
  row_reach all = tree[0];
  __syncthreads();
  return all;
}

/* --- labels in their order -------------------------------------------------------------------------------------- */

/* The first place of first .. last - 1 whose label is at least as far as `distance` (or farther than it), on the side
 * above the row; on that below it, where distances fall, the first that is not. */
static __device__ int64_t limit_of(const struct rnc_columns &columns, const row_of_block &row, bool below,
                                   double distance, bool farther) {
  int64_t first = below ? 0 : row.below, last = below ? row.below : columns.rows;
  while (first < last) {
    int64_t middle = (first + last) / 2;
    double there = fabs(row.label - (double)columns.sorted[middle]);
    bool beyond = farther ? there > distance : there >= distance;
    if (beyond == below)
      first = middle + 1;
    else
      last = middle;
  }
  return first;
}

/* The block's values joined up to each thread's own, after what came before, which then includes them all. */
template <typename Form> static __device__ double scan_block(double own, double (&totals)[WARPS], double *before) {
  for (int step = 1; step < WARP; step *= 2) {
    double other = __shfl_up_sync(WHOLE_WARP, own, (unsigned)step);
    own = lane_number() >= step ? Form::join(other, own) : own;
  }
  __syncthreads();
  if (lane_number() == WARP - 1)
    totals[warp_number()] = own;
  __syncthreads();
  double sum = *before, mine = *before;
  for (int warp = 0; warp < WARPS; warp++) {
    mine = warp == warp_number() ? sum : mine;
    sum = Form::join(sum, totals[warp]);
  }
  *before = sum;
  return Form::join(mine, own);
}

/* to[place] = values up to and with it, of `count` places from `first` on, a step apart. */
template <typename Form, typename Value>
static __device__ void scan(int64_t first, int64_t count, int64_t step, Value value, double *to,
                            double (&totals)[WARPS]) {
  double before = Form::nothing();
  for (int64_t done = 0; done < count; done += THREADS) {
    int64_t i = done + threadIdx.x, place = first + step * i;
    double sum = scan_block<Form>(i < count ? value(place) : Form::nothing(), totals, &before);
    if (i < count)
      to[place] = sum;
  }
}

/* What a block needs to meet. */
struct row_shared {
  row_reach reach[THREADS];
  sum_of_double tree[THREADS];
  double totals[WARPS];
};

/* Distances of a row become coefficients.  Returns the sum of log Z, and through *sum that of coefficients whose pairs
 * are not near. */
template <typename Form>
static __device__ double weigh_row(const struct rnc_scale &scale, const struct rnc_columns &columns,
                                   const row_of_block &row, float nearest, row_shared &shared, double *sum) {
  int64_t rows = columns.rows;
  double logarithms = 0, coefficients = 0;
  auto exponential = [&](int64_t place) {
    int64_t j = columns.order[place];
    return j == row.place ? Form::nothing() : Form::exponential(nearest, row.pairs[j], scale.inverse_t);
  };
  auto inverse = [&](int64_t place) { return row.outward[place]; };
  scan<Form>(0, row.below, 1, exponential, row.inward, shared.totals);
  scan<Form>(rows - 1, rows - row.below, -1, exponential, row.inward, shared.totals);
  __syncthreads();
  for (int64_t place = threadIdx.x; place < rows; place += THREADS) {
    double distance = fabs(row.label - (double)columns.sorted[place]), z = Form::nothing();
    bool own = columns.order[place] == row.place;
    int64_t left = limit_of(columns, row, true, distance, false);
    int64_t right = limit_of(columns, row, false, distance, false);
    if (left > 0)
      z = row.inward[left - 1];
    if (right < rows)
      z = Form::join(z, row.inward[right]);
    logarithms += own ? 0 : Form::logarithm(z);
    row.outward[place] = own ? Form::nothing() : Form::inverse(z);
  }
  __syncthreads();
  scan<Form>(row.below - 1, row.below, -1, inverse, row.outward, shared.totals);
  scan<Form>(row.below, rows - row.below, 1, inverse, row.outward, shared.totals);
  __syncthreads();
  for (int64_t place = threadIdx.x; place < rows; place += THREADS) {
    int64_t j = columns.order[place];
    double distance = fabs(row.label - (double)columns.sorted[place]), slope = Form::nothing();
    if (j == row.place)
      continue; /* its distance is 0, and so is its coefficient */
    int64_t left = limit_of(columns, row, true, distance, true);
    int64_t right = limit_of(columns, row, false, distance, true);
    if (left < row.below)
      slope = row.outward[left];
    if (right > row.below)
      slope = Form::join(slope, row.outward[right - 1]);
    float g = (float)(Form::weight(exponential(place), slope) - 1);
    float coefficient = rnc_coefficient_f32(g, row.pairs[j], (float)scale.coefficient);
    row.pairs[j] = coefficient;
    coefficients += row.near[j / RNC_WORD] >> (j % RNC_WORD) & 1 ? 0 : (double)coefficient;
  }
  *sum = sum_block(shared.tree, coefficients);
  return sum_block(shared.tree, logarithms);
}

/* sum [features] += factor (a - b), by the whole block. */
template <typename T>
static __device__ void add_difference(int features, float factor, const T *a, const T *b, float *sum) {
  for (int k = threadIdx.x; k < features; k += THREADS)
    sum[k] += (float)((double)factor * ((double)to_float(a[k]) - (double)to_float(b[k])));
}

/* The near pairs of a row give it all of theirs. */
template <typename T>
static __device__ void add_near(int features, int64_t stride, const T *z, const struct rnc_columns &columns,
                                const row_of_block &row) {
  for (int64_t word = 0; word < rnc_words(columns.pitch); word++)
    for (unsigned left = row.near[word]; left != 0; left &= left - 1) {
      int64_t j = word * RNC_WORD + __ffs((int)left) - 1;
      add_difference(features, -row.pairs[j], z + row.place * stride, z + j * stride,
                     columns.gradient + row.place * columns.stride);
    }
}

template <typename T>
static __global__ void __launch_bounds__(THREADS)
    pairs_kernel(struct rnc_scale scale, int features, int64_t stride, const T *z, struct rnc_columns columns,
                 struct rnc_panel panel, double *scratch) {
  __shared__ row_shared shared;
  for (int64_t number = blockIdx.x; number < panel.rows; number += gridDim.x) {
    row_of_block row = row_of(columns, panel, number, scratch);
    row_reach reach = measure_row(features, stride, z, columns, row, shared.reach);
    bool fits = ((double)reach.farthest - (double)reach.nearest) * scale.inverse_t <= RNC_SPREAD_F32;
    double sum, logarithms = fits ? weigh_row<plain_form>(scale, columns, row, reach.nearest, shared, &sum)
                                  : weigh_row<logarithm_form>(scale, columns, row, reach.nearest, shared, &sum);
    if (threadIdx.x == 0) {
      columns.sums[row.place] += sum;
      panel.values[number] =
          scale.norm * rnc_value_of(scale.inverse_t, columns.rows, reach.distances, logarithms, (double)reach.nearest);
    }
    if (reach.near > 0)
      add_near(features, stride, z, columns, row);
    __syncthreads(); /* the next row takes this one's scratch */
  }
}

extern "C" enum status rnc_pairs_launch(const struct rnc_scale *scale, const struct rnc_rows *rows,
                                        const struct rnc_columns *columns, const struct rnc_panel *panel,
                                        double *scratch, struct stream *stream) {
  if (panel->rows == 0)
    return STATUS_OK;
  unsigned blocks = (unsigned)blocks_for(columns->rows, panel->rows);
  if (rows->dtype == BF16)
    LAUNCH_BLOCKS(pairs_kernel<__nv_bfloat16>, blocks, THREADS, cuda_stream(stream), *scale, rows->features,
                  rows->stride, (const __nv_bfloat16 *)rows->z, *columns, *panel, scratch);
  else
    LAUNCH_BLOCKS(pairs_kernel<float>, blocks, THREADS, cuda_stream(stream), *scale, rows->features, rows->stride,
                  (const float *)rows->z, *columns, *panel, scratch);
  return cuda_launched("pairs of RnC");
}

/* --- columns ---------------------------------------------------------------------------------------------------- */

/* A block for each word of columns; its warps share the panel's rows. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    columns_kernel(int features, int64_t stride, const T *z, struct rnc_columns columns, struct rnc_panel panel) {
  __shared__ double sums[WARPS][WARP];
  __shared__ uint32_t marks[THREADS];
  int64_t words = rnc_words(columns.pitch), word = blockIdx.x, j = word * RNC_WORD + lane_number();
  double sum = 0;
  for (int64_t i = warp_number(); i < panel.rows && j < columns.pitch; i += WARPS)
    sum += panel.near[i * words + word] >> lane_number() & 1 ? 0 : (double)panel.pairs[i * columns.pitch + j];
  sums[warp_number()][lane_number()] = sum;
  __syncthreads();
  for (int warp = 1; warp < WARPS && warp_number() == 0; warp++)
    sum += sums[warp][lane_number()];
  if (warp_number() == 0 && j < columns.pitch)
    columns.sums[j] += sum;
  for (int64_t first = 0; first < panel.rows; first += THREADS) {
    int64_t mine = first + threadIdx.x;
    __syncthreads();
    marks[threadIdx.x] = mine < panel.rows ? panel.near[mine * words + word] : 0;
    __syncthreads();
    for (int i = 0; i < THREADS; i++)
      for (unsigned left = marks[i]; left != 0; left &= left - 1) {
        int64_t column = word * RNC_WORD + __ffs((int)left) - 1;
        add_difference(features, panel.pairs[(first + i) * columns.pitch + column],
                       z + (panel.first + first + i) * stride, z + column * stride,
                       columns.gradient + column * columns.stride);
      }
  }
  __syncthreads();
  for (int64_t i = warp_number(); i < panel.rows; i += WARPS)
    if (j < columns.pitch && (panel.near[i * words + word] >> lane_number() & 1))
      panel.pairs[i * columns.pitch + j] = 0;
}

extern "C" enum status rnc_columns_launch(const struct rnc_rows *rows, const struct rnc_columns *columns,
                                          const struct rnc_panel *panel, struct stream *stream) {
  if (panel->rows == 0)
    return STATUS_OK;
  unsigned blocks = (unsigned)rnc_words(columns->pitch);
  if (rows->dtype == BF16)
    LAUNCH_BLOCKS(columns_kernel<__nv_bfloat16>, blocks, THREADS, cuda_stream(stream), rows->features, rows->stride,
                  (const __nv_bfloat16 *)rows->z, *columns, *panel);
  else
    LAUNCH_BLOCKS(columns_kernel<float>, blocks, THREADS, cuda_stream(stream), rows->features, rows->stride,
                  (const float *)rows->z, *columns, *panel);
  return cuda_launched("columns of RnC");
}

/* --- gradients -------------------------------------------------------------------------------------------------- */

static __global__ void __launch_bounds__(THREADS) close_kernel(struct rnc_columns columns) {
  int64_t row = blockIdx.x, at = row * columns.stride;
  for (int64_t k = threadIdx.x; k < columns.stride; k += THREADS)
    columns.gradient[at + k] -= (float)(columns.sums[row] * (double)columns.centred[at + k]);
}

extern "C" enum status rnc_close_launch(const struct rnc_columns *columns, struct stream *stream) {
  LAUNCH(close_kernel, (unsigned)columns->rows, THREADS, cuda_stream(stream), *columns);
  return cuda_launched("gradients of RnC");
}

template <typename T>
static __global__ void __launch_bounds__(THREADS)
    add_kernel(struct rnc_columns columns, int features, int64_t first, T *grad) {
  int64_t row = blockIdx.x;
  for (int k = threadIdx.x; k < features; k += THREADS) {
    T *to = &grad[row * features + k];
    from_float(to_float(*to) + columns.gradient[(first + row) * columns.stride + k], to);
  }
}

extern "C" enum status rnc_add_launch(const struct rnc_columns *columns, enum dtype dtype, int features, int64_t first,
                                      int64_t count, void *grad, struct stream *stream) {
  if (count == 0)
    return STATUS_OK;
  if (dtype == BF16)
    LAUNCH(add_kernel<__nv_bfloat16>, (unsigned)count, THREADS, cuda_stream(stream), *columns, features, first,
           (__nv_bfloat16 *)grad);
  else
    LAUNCH(add_kernel<float>, (unsigned)count, THREADS, cuda_stream(stream), *columns, features, first, (float *)grad);
  return cuda_launched("the feature gradient of RnC");
}
