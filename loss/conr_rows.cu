/* Kernels over rows of the ConR loss: normalising, looking at scalars, row scalars, orders, and the way back through
 * the norm.  Each touches N x D once, or N: beside the pairs' N x N all of them together are small.  Bound by
 * memory. */
#include "loss/conr_kernels.h"

#include "loss/kernels.cuh"

#define SMALLEST_NORM 1e-12
#define INSPECT_BLOCKS 64 /* at most; a constant: not to depend on the GPU */

/* --- pack ---------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ double scale_of_norm(double norm) {
  return 1 / (norm > SMALLEST_NORM ? norm : SMALLEST_NORM);
}

static __device__ __forceinline__ float inverse_of_norm(double norm) {
  return norm > SMALLEST_NORM ? (float)scale_of_norm(norm) : 0.0f;
}

/* q of a row, by a block; returns |f|.  The second reading of f comes from cache. */
template <typename T>
static __device__ __forceinline__ double normalise_row(sum_of_double (&tree)[THREADS], int features, int stride,
                                                       const T *f, T *q) {
  double squares = 0;
  for (int k = threadIdx.x; k < features; k += THREADS) {
    double value = to_float(f[k]);
    squares += value * value;
  }
  double norm = sqrt(sum_block(tree, squares)), scale = scale_of_norm(norm);
  for (int k = threadIdx.x; k < stride; k += THREADS)
    from_float(k < features ? (float)(to_float(f[k]) * scale) : 0.0f, &q[k]);
  return norm;
}

template <typename T> static __device__ __forceinline__ void pad_row(int features, int stride, const T *f, T *to) {
  for (int k = threadIdx.x; k < stride; k += THREADS)
    from_float(k < features ? to_float(f[k]) : 0.0f, &to[k]);
}

template <typename T>
static __global__ void __launch_bounds__(THREADS) pad_kernel(int features, int stride, const T *f, T *to) {
  int64_t row = blockIdx.x;
  pad_row(features, stride, f + row * features, to + row * stride);
}

template <typename T>
static void pad(int64_t rows, int features, int stride, const void *f, void *to, struct stream *stream) {
  LAUNCH(pad_kernel<T>, (unsigned)rows, THREADS, cuda_stream(stream), features, stride, (const T *)f, (T *)to);
}

extern "C" enum status conr_pad_launch(enum dtype dtype, int64_t rows, int features, int stride, const void *f,
                                       void *to, struct stream *stream) {
  if (rows == 0)
    return STATUS_OK;
  (dtype == BF16 ? pad<__nv_bfloat16> : pad<float>)(rows, features, stride, f, to, stream);
  return cuda_launched("filling up rows");
}

/* One block a row. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    pack_kernel(int features, int stride, int targets, const T *f, const float *labels, const float *predictions,
                const float *weights, T *q, float *scalars, float *inverse) {
  __shared__ sum_of_double tree[THREADS];
  int64_t row = blockIdx.x;
  const T *from = f + row * features;
  double norm = 0;
  if (inverse != nullptr)
    norm = normalise_row(tree, features, stride, from, q + row * stride);
  else
    pad_row(features, stride, from, q + row * stride);
  float *scalar = scalars + row * (2 * targets + 1);
  for (int k = threadIdx.x; k < targets; k += THREADS) {
    scalar[k] = labels[row * targets + k];
    scalar[targets + k] = predictions[row * targets + k];
  }
  if (threadIdx.x == 0) {
    float weight = weights == nullptr ? 1.0f : weights[row];
    scalar[2 * targets] = norm < INFINITY ? weight : NAN;
    if (inverse != nullptr)
      inverse[row] = inverse_of_norm(norm);
  }
}

template <typename T>
static void pack(int64_t rows, int features, int stride, int targets, const void *f, const float *labels,
                 const float *predictions, const float *weights, void *q, float *scalars, float *inverse,
                 struct stream *stream) {
  LAUNCH_BLOCKS(pack_kernel<T>, (unsigned)rows, THREADS, cuda_stream(stream), features, stride, targets, (const T *)f,
                labels, predictions, weights, (T *)q, scalars, inverse);
}

extern "C" enum status conr_pack_launch(enum dtype dtype, int64_t rows, int features, int stride, int targets,
                                        const void *f, const float *labels, const float *predictions,
                                        const float *weights, void *q, float *scalars, float *inverse,
                                        struct stream *stream) {
  if (rows == 0)
    return STATUS_OK;
  (dtype == BF16 ? pack<__nv_bfloat16> : pack<float>)(rows, features, stride, targets, f, labels, predictions, weights,
                                                      q, scalars, inverse, stream);
  return cuda_launched("packing the rows of ConR");
}

/* Likewise. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    normalise_kernel(int features, int stride, int targets, const T *z, int64_t own_first, int64_t own_rows, T *q,
                     float *scalars, float *inverse) {
  __shared__ sum_of_double tree[THREADS];
  int64_t row = blockIdx.x, own = row - own_first;
  double norm = normalise_row(tree, features, stride, z + row * stride, q + row * stride);
  if (threadIdx.x > 0)
    return;
  if (!(norm < INFINITY))
    scalars[row * (2 * targets + 1) + 2 * targets] = NAN;
  if (own >= 0 && own < own_rows)
    inverse[own] = inverse_of_norm(norm);
}

template <typename T>
static void normalise(int64_t rows, int features, int stride, int targets, const void *z, int64_t own_first,
                      int64_t own_rows, void *q, float *scalars, float *inverse, struct stream *stream) {
  LAUNCH_BLOCKS(normalise_kernel<T>, (unsigned)rows, THREADS, cuda_stream(stream), features, stride, targets,
                (const T *)z, own_first, own_rows, (T *)q, scalars, inverse);
}

extern "C" enum status conr_normalise_launch(enum dtype dtype, int64_t rows, int features, int stride, int targets,
                                             const void *z, int64_t own_first, int64_t own_rows, void *q,
                                             float *scalars, float *inverse, struct stream *stream) {
  if (rows == 0)
    return STATUS_OK;
  (dtype == BF16 ? normalise<__nv_bfloat16> : normalise<float>)(rows, features, stride, targets, z, own_first, own_rows,
                                                                q, scalars, inverse, stream);
  return cuda_launched("normalising the rows of ConR");
}

/* --- what the scalars of all rows are ------------------------------------------------------------------------- */

struct inspected {
  double bad, low, high;
  __device__ void join(const inspected &more) {
    bad = more.bad < bad ? more.bad : bad;
    low = more.low < low ? more.low : low;
    high = more.high > high ? more.high : high;
  }
};

static __device__ __forceinline__ bool is_finite(float x) {
  return x - x == 0;
}

/* partial [blocks, targets]. */
static __global__ void __launch_bounds__(THREADS)
    inspect_kernel(int64_t rows, int targets, const float *scalars, struct inspected *partial) {
  __shared__ inspected tree[THREADS];
  int width = 2 * targets + 1;
  for (int k = 0; k < targets; k++) {
    inspected own = {INFINITY, INFINITY, -INFINITY};
    for (int64_t row = thread_number(); row < rows; row += (int64_t)gridDim.x * THREADS) {
      const float *scalar = scalars + row * width;
      float label = scalar[k], weight = scalar[2 * targets];
      int worst = !is_finite(label)                                 ? k
                  : !is_finite(scalar[targets + k])                 ? targets + k
                  : k == 0 && (!is_finite(weight) || weight < 0.0f) ? 2 * targets
                                                                    : -1;
      inspected found = {worst < 0 ? INFINITY : (double)(row * width + worst), label, label};
      own.join(found);
    }
    __syncthreads();
    join_block(tree, own);
    if (threadIdx.x == 0)
      partial[blockIdx.x * targets + k] = own;
  }
}

/* One block: joins the parts, and says what follows. */
static __global__ void __launch_bounds__(THREADS)
    decide_kernel(struct pair_rule rule, int64_t rows, int targets, const float *scalars, unsigned parts,
                  const struct inspected *partial, struct conr_found *found) {
  __shared__ inspected tree[THREADS];
  double bad = INFINITY, diameter = 0;
  for (int k = 0; k < targets; k++) {
    inspected own = {INFINITY, INFINITY, -INFINITY};
    if (threadIdx.x < parts)
      own = partial[threadIdx.x * targets + k];
    __syncthreads();
    join_block(tree, own);
    bad = own.bad < bad ? own.bad : bad;
    diameter = pair_diameter_add(rule.distance, diameter, rows > 0 ? own.high - own.low : 0);
  }
  if (threadIdx.x > 0)
    return;
  pair_rule_span(&rule, diameter, PAIR_EXPONENTS_F32);
  found->bad = bad;
  found->bad_value = bad < INFINITY ? (double)scalars[(int64_t)bad] : 0;
  found->diameter = diameter;
  found->wide = rule.wide;
  found->shift = rule.shift;
  for (int i = 0; i < CONR_TOTALS; i++)
    found->totals[i] = 0;
}

extern "C" size_t conr_inspect_bytes(int targets) {
  return (size_t)INSPECT_BLOCKS * (size_t)targets * sizeof(struct inspected);
}

extern "C" enum status conr_inspect_launch(const struct pair_rule *rule, int64_t rows, int targets,
                                           const float *scalars, double *partial, struct conr_found *found,
                                           struct stream *stream) {
  unsigned needed = blocks_of(rows, THREADS), blocks = needed < INSPECT_BLOCKS ? needed : INSPECT_BLOCKS;
  if (blocks > 0)
    LAUNCH_BLOCKS(inspect_kernel, blocks, THREADS, cuda_stream(stream), rows, targets, scalars,
                  (struct inspected *)partial);
  LAUNCH_BLOCKS(decide_kernel, 1, THREADS, cuda_stream(stream), *rule, rows, targets, scalars, blocks,
                (const struct inspected *)partial, found);
  return cuda_launched("looking at the rows of ConR");
}

/* --- columns in an order -------------------------------------------------------------------------------------- */

static __global__ void __launch_bounds__(THREADS)
    columns_kernel(struct conr_columns columns, const int32_t *order, const float *scalars) {
  int64_t place = thread_number(), pitch = columns.pitch;
  int targets = columns.targets;
  if (place >= pitch)
    return;
  bool inside = place < columns.rows;
  const float *scalar = inside ? scalars + (order == nullptr ? place : order[place]) * (2 * targets + 1) : nullptr;
  for (int k = 0; k < targets; k++) {
    columns.labels[k * pitch + place] = inside ? scalar[k] : INFINITY;
    columns.predictions[k * pitch + place] = inside ? scalar[targets + k] : INFINITY;
  }
  columns.weights[place] = inside ? scalar[2 * targets] : 0.0f;
}

extern "C" enum status conr_columns_launch(const struct conr_columns *columns, const int32_t *order,
                                           const float *scalars, struct stream *stream) {
  if (columns->pitch == 0)
    return STATUS_OK;
  LAUNCH(columns_kernel, blocks_of(columns->pitch, THREADS), THREADS, cuda_stream(stream), *columns, order, scalars);
  return cuda_launched("ordering the labels of ConR");
}

/* --- scalars of rows ------------------------------------------------------------------------------------------ */

struct row_totals {
  double sum[CONR_TOTALS];
  __device__ void join(const row_totals &more) {
    for (int i = 0; i < CONR_TOTALS; i++)
      sum[i] += more.sum[i];
  }
};

static __device__ __forceinline__ struct pair_rule rule_found(struct pair_rule rule, const struct conr_found *found) {
  rule.wide = found->wide != 0;
  rule.shift = found->shift;
  return rule;
}

static __global__ void __launch_bounds__(THREADS)
    rows_kernel(struct pair_rule given, int64_t rows, int64_t rows_global, const struct pair_sums *sums,
                const float *weights, const float *inverse, double *exchange, struct row_totals *partial,
                const struct conr_found *found) {
  __shared__ row_totals tree[THREADS];
  struct pair_rule rule = rule_found(given, found);
  int64_t i = thread_number();
  row_totals own = {};
  if (i < rows) {
    struct pair_sums collected = sums[i];
    struct pair_row row = pair_row_of(&rule, rows_global, rows_global, &collected, (double)weights[i]);
    exchange[2 * i] = row.u;
    exchange[2 * i + 1] = row.second;
    own.sum[TOTAL_LOSS] = row.loss;
    own.sum[TOTAL_ACTIVE] = row.active;
    own.sum[TOTAL_POSITIVES] = collected.positives;
    own.sum[TOTAL_NEGATIVES] = collected.negatives;
    own.sum[TOTAL_ZERO_ROWS] = inverse[i] == 0;
  }
  join_block(tree, own);
  if (threadIdx.x == 0)
    partial[blockIdx.x] = own;
}

/* One block. */
static __global__ void __launch_bounds__(THREADS)
    totals_kernel(int count, const struct row_totals *partial, struct conr_found *found) {
  __shared__ row_totals tree[THREADS];
  row_totals own = {};
  for (int i = threadIdx.x; i < count; i += THREADS)
    own.join(partial[i]);
  join_block(tree, own);
  if (threadIdx.x == 0)
    for (int i = 0; i < CONR_TOTALS; i++)
      found->totals[i] = own.sum[i];
}

extern "C" size_t conr_rows_bytes(int64_t rows) {
  return blocks_of(rows, THREADS) * sizeof(struct row_totals);
}

extern "C" enum status conr_rows_launch(const struct pair_rule *rule, int64_t rows, int64_t rows_global,
                                        const struct pair_sums *sums, const float *weights, const float *inverse,
                                        double *exchange, double *partial, struct conr_found *found,
                                        struct stream *stream) {
  if (rows == 0)
    return STATUS_OK;
  int blocks = (int)blocks_of(rows, THREADS);
  LAUNCH_BLOCKS(rows_kernel, blocks, THREADS, cuda_stream(stream), *rule, rows, rows_global, sums, weights, inverse,
                exchange, (struct row_totals *)partial, (const struct conr_found *)found);
  LAUNCH_BLOCKS(totals_kernel, 1, THREADS, cuda_stream(stream), blocks, (const struct row_totals *)partial, found);
  return cuda_launched("the row scalars of ConR");
}

static __global__ void __launch_bounds__(THREADS)
    scales_kernel(struct pair_rule given, const struct conr_found *found, struct conr_columns columns,
                  const int32_t *order, const double *exchange) {
  struct pair_rule rule = rule_found(given, found);
  int64_t place = thread_number(), pitch = columns.pitch;
  if (place >= pitch)
    return;
  struct pair_scales scales = {0, 0, 0, 0};
  if (place < columns.rows) {
    int64_t row = order == nullptr ? place : order[place];
    scales = pair_scales_of(&rule, exchange[2 * row], exchange[2 * row + 1], (double)columns.weights[place]);
  }
  if (rule.wide) {
    double *to = (double *)columns.scales + place;
    to[0] = scales.positive;
    to[pitch] = scales.negative;
    to[2 * pitch] = scales.subtract;
    to[3 * pitch] = scales.mean;
  } else {
    float *to = (float *)columns.scales + place;
    to[0] = (float)scales.positive;
    to[pitch] = (float)scales.negative;
    to[2 * pitch] = (float)scales.subtract;
  }
}

extern "C" enum status conr_scales_launch(const struct pair_rule *rule, const struct conr_found *found,
                                          const struct conr_columns *columns, const int32_t *order,
                                          const double *exchange, struct stream *stream) {
  if (columns->pitch == 0)
    return STATUS_OK;
  LAUNCH(scales_kernel, blocks_of(columns->pitch, THREADS), THREADS, cuda_stream(stream), *rule, found, *columns, order,
         exchange);
  return cuda_launched("the column scalars of ConR");
}

/* --- rows by index -------------------------------------------------------------------------------------------- */

/* 16 bytes a thread: a row takes a few of them, seldom a whole block. */
static __global__ void __launch_bounds__(THREADS)
    take_rows_kernel(int64_t count, int64_t units, const int32_t *index, int64_t offset, const uint4 *from, uint4 *to) {
  int64_t at = thread_number(), row = at / units;
  if (at < count)
    to[at] = from[(index[row] + offset) * units + at - row * units];
}

extern "C" enum status conr_take_rows_launch(int64_t rows, size_t row_bytes, const int32_t *index, int64_t offset,
                                             const void *from, void *to, struct stream *stream) {
  if (rows == 0)
    return STATUS_OK;
  int64_t units = (int64_t)(row_bytes / 16), count = rows * units;
  LAUNCH(take_rows_kernel, blocks_of(count, THREADS), THREADS, cuda_stream(stream), count, units, index, offset,
         (const uint4 *)from, (uint4 *)to);
  return cuda_launched("ordering the rows of ConR");
}

static __global__ void __launch_bounds__(THREADS)
    add_rows_kernel(int64_t count, int stride, const int32_t *own, const float *tile, float *sum) {
  int64_t at = 4 * thread_number(), row = at / stride;
  if (at >= count)
    return;
  float *to = sum + own[row] * (int64_t)stride + (at - row * stride), more[4], values[4];
  load4(tile + at, more);
  load4(to, values);
  UNROLL
  for (int j = 0; j < 4; j++)
    values[j] += more[j];
  store4(values, to);
}

extern "C" enum status conr_add_rows_launch(int rows, int stride, const int32_t *own, const float *tile, float *sum,
                                            struct stream *stream) {
  if (rows == 0)
    return STATUS_OK;
  int64_t count = (int64_t)rows * stride;
  LAUNCH(add_rows_kernel, blocks_of(count, 4 * THREADS), THREADS, cuda_stream(stream), count, stride, own, tile, sum);
  return cuda_launched("adding gradients of ConR");
}

/* --- the way back through the norm ---------------------------------------------------------------------------- */

/* One block a row.  In double, as the host: the projection cancels. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    finish_kernel(int features, int stride, double factor, const float *tile, const T *f, const float *inverse,
                  bool add, T *grad) {
  __shared__ sum_of_double tree[THREADS];
  int64_t row = blockIdx.x;
  const float *g = tile + row * stride;
  const T *from = f + row * features;
  double scale = (double)inverse[row], along = 0;
  for (int k = threadIdx.x; k < features; k += THREADS)
    along += factor * g[k] * (to_float(from[k]) * scale);
  along = sum_block(tree, along);
  for (int k = threadIdx.x; k < features; k += THREADS) {
    T *to = &grad[row * features + k];
    float value = (float)((factor * g[k] - along * (to_float(from[k]) * scale)) * scale);
    from_float(add ? to_float(*to) + value : value, to);
  }
}

template <typename T>
static void finish(int64_t rows, int features, int stride, double factor, const float *tile, const void *f,
                   const float *inverse, bool add, void *grad, struct stream *stream) {
  LAUNCH_BLOCKS(finish_kernel<T>, (unsigned)rows, THREADS, cuda_stream(stream), features, stride, factor, tile,
                (const T *)f, inverse, add, (T *)grad);
}

extern "C" enum status conr_finish_launch(enum dtype dtype, int64_t rows, int features, int stride, double factor,
                                          const float *tile, const void *f, const float *inverse, bool add, void *grad,
                                          struct stream *stream) {
  if (rows == 0)
    return STATUS_OK;
  (dtype == BF16 ? finish<__nv_bfloat16> : finish<float>)(rows, features, stride, factor, tile, f, inverse, add, grad,
                                                          stream);
  return cuda_launched("the feature gradient of ConR");
}

/* --- bands ---------------------------------------------------------------------------------------------------- */

static __global__ void numbers_kernel(int64_t count, int32_t *numbers) {
  int64_t i = thread_number();
  if (i < count)
    numbers[i] = (int32_t)i;
}

extern "C" enum status conr_numbers_launch(int64_t count, int32_t *numbers, struct stream *stream) {
  if (count == 0)
    return STATUS_OK;
  LAUNCH(numbers_kernel, blocks_of(count, THREADS), THREADS, cuda_stream(stream), count, numbers);
  return cuda_launched("numbering the rows of ConR");
}

static __global__ void invert_kernel(int64_t rows, const int32_t *order, int32_t *place_of) {
  int64_t place = thread_number();
  if (place < rows)
    place_of[order[place]] = (int32_t)place;
}

extern "C" enum status conr_invert_launch(int64_t rows, const int32_t *order, int32_t *place_of,
                                          struct stream *stream) {
  if (rows == 0)
    return STATUS_OK;
  LAUNCH(invert_kernel, blocks_of(rows, THREADS), THREADS, cuda_stream(stream), rows, order, place_of);
  return cuda_launched("inverting an order of ConR");
}

static __global__ void places_kernel(int64_t own_rows, const int32_t *place_of, const int32_t *own, int32_t *places) {
  int64_t i = thread_number();
  if (i < own_rows)
    places[i] = place_of[own[i]];
}

/* One thread a panel: two searches by halves, each step by the expression of the masks (see band.h). */
static __global__ void ranges_kernel(float w, int32_t rows, const float *sorted, int64_t own_rows, int panel_rows,
                                     const int32_t *places, int64_t panels, struct conr_range *ranges) {
  int64_t panel = thread_number();
  if (panel >= panels)
    return;
  int64_t last_own = (panel + 1) * panel_rows < own_rows ? (panel + 1) * panel_rows : own_rows;
  float lowest = sorted[places[panel * panel_rows]], highest = sorted[places[last_own - 1]];
  struct conr_range range = {0, rows};
  for (int32_t high = rows; range.first < high;) { /* first place not too far below */
    int32_t middle = range.first + (high - range.first) / 2;
    if (pair_apart_f32(lowest, sorted[middle], w))
      range.first = middle + 1;
    else
      high = middle;
  }
  for (int32_t low = range.first; low < range.last;) { /* first place too far above */
    int32_t middle = low + (range.last - low) / 2;
    if (pair_apart_f32(sorted[middle], highest, w))
      range.last = middle;
    else
      low = middle + 1;
  }
  ranges[panel] = range;
}

extern "C" enum status conr_ranges_launch(double w, int64_t rows, const float *sorted, const int32_t *place_of,
                                          int64_t own_first, int64_t own_rows, int panel_rows, const int32_t *own,
                                          int32_t *places, struct conr_range *ranges, struct stream *stream) {
  if (own_rows == 0)
    return STATUS_OK;
  int64_t panels = blocks_of(own_rows, panel_rows);
  LAUNCH(places_kernel, blocks_of(own_rows, THREADS), THREADS, cuda_stream(stream), own_rows, place_of + own_first, own,
         places);
  LAUNCH(ranges_kernel, blocks_of(panels, THREADS), THREADS, cuda_stream(stream), (float)w, (int32_t)rows, sorted,
         own_rows, panel_rows, (const int32_t *)places, panels, ranges);
  return cuda_launched("the bands of ConR");
}
