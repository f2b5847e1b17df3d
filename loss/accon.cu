/* Kernels of ACCon: a panel of products becomes sums of rows, then coefficients.  A block for each row; sums in double
 * and in a fixed order.  What bounds them is the reading of the panel, as in conr_pairs.cu. */
#include "loss/accon_kernels.h"

#include "loss/kernels.cuh"

/* --- rows ------------------------------------------------------------------------------------------------------ */

template <typename T>
static __global__ void __launch_bounds__(THREADS)
    measure_kernel(struct accon_rule rule, int features, int64_t stride, const T *z, const float *labels,
                   int64_t label_stride, struct accon_columns columns) {
  __shared__ sum_of_double tree[THREADS];
  int64_t row = blockIdx.x;
  double squares = 0;
  for (int k = threadIdx.x; k < features; k += THREADS) {
    double value = to_float(z[row * stride + k]);
    squares += value * value;
  }
  squares = sum_block(tree, squares);
  if (threadIdx.x > 0)
    return;
  float label = labels[row * label_stride];
  double angle = accon_angle_of_label(&rule, (double)label);
  columns.inverse[row] = (float)accon_inverse(sqrt(squares));
  columns.label[row] = label;
  columns.cosine[row] = (float)cos(angle);
  columns.sine[row] = (float)sin(angle);
}

template <typename T>
static void measure(const struct accon_rule *rule, int features, int64_t stride, const void *z, const float *labels,
                    int64_t label_stride, const struct accon_columns *columns, struct stream *stream) {
  LAUNCH_BLOCKS(measure_kernel<T>, (unsigned)columns->rows, THREADS, cuda_stream(stream), *rule, features, stride,
                (const T *)z, labels, label_stride, *columns);
}

extern "C" enum status accon_measure_launch(const struct accon_rule *rule, enum dtype dtype, int features,
                                            int64_t stride, const void *z, const float *labels, int64_t label_stride,
                                            const struct accon_columns *columns, struct stream *stream) {
  if (columns->rows == 0)
    return STATUS_OK;
  (dtype == BF16 ? measure<__nv_bfloat16> : measure<float>)(rule, features, stride, z, labels, label_stride, columns,
                                                            stream);
  return cuda_launched("norms and angles of ACCon");
}

static __global__ void __launch_bounds__(THREADS)
    scales_kernel(struct accon_rule rule, struct accon_columns columns, const double *scalars) {
  int64_t row = thread_number();
  if (row >= columns.rows)
    return;
  struct accon_scales_f64 scales =
      accon_scales_of(&rule, columns.rows, (double)columns.inverse[row], scalars[2 * row], scalars[2 * row + 1]);
  columns.pull[row] = (float)scales.pull;
  columns.push[row] = (float)scales.push;
  columns.subtract[row] = (float)scales.subtract;
}

extern "C" enum status accon_scales_launch(const struct accon_rule *rule, const struct accon_columns *columns,
                                           const double *scalars, struct stream *stream) {
  if (columns->rows == 0)
    return STATUS_OK;
  LAUNCH(scales_kernel, blocks_of(columns->rows, THREADS), THREADS, cuda_stream(stream), *rule, *columns, scalars);
  return cuda_launched("scales of ACCon");
}

/* --- pairs ----------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ struct accon_angle_f32 angle_of(const struct accon_columns &columns, int64_t row) {
  struct accon_angle_f32 angle = {columns.label[row], columns.cosine[row], columns.sine[row]};
  return angle;
}

/* What a block's row brings along. */
struct row_of_panel {
  int64_t place;        /* among the columns */
  const float *product; /* [pitch]         */
  float inverse, inverse_t, tau;
  struct accon_angle_f32 angle;
};

static __device__ __forceinline__ row_of_panel own_row(const struct accon_rule &rule,
                                                       const struct accon_columns &columns,
                                                       const struct accon_panel &panel) {
  int64_t place = panel.first + blockIdx.x;
  row_of_panel row = {place,
                      panel.products + (int64_t)blockIdx.x * columns.pitch,
                      columns.inverse[place],
                      (float)(1 / rule.temperature),
                      (float)rule.tau,
                      angle_of(columns, place)};
  return row;
}

static __device__ __forceinline__ struct accon_pair_f32 pair_with(const row_of_panel &row,
                                                                  const struct accon_columns &columns, int64_t j) {
  return accon_pair_of_f32(row.product[j] * row.inverse * columns.inverse[j], row.tau, row.angle, columns.cosine[j],
                           columns.sine[j]);
}

/* p or g */
static __device__ __forceinline__ float exponent_with(const row_of_panel &row, const struct accon_columns &columns,
                                                      int64_t j, float shift, bool *same) {
  struct accon_pair_f32 pair = pair_with(row, columns, j);
  *same = columns.label[j] == row.angle.label;
  return *same ? (pair.cosine - shift) * row.inverse_t : accon_push_f32(pair, row.inverse_t);
}

struct row_sums {
  double positives, similarity, largest;
  __device__ void join(const row_sums &more) {
    positives += more.positives;
    similarity += more.similarity;
    largest = more.largest > largest || more.largest != more.largest ? more.largest : largest;
  }
};

static __global__ void __launch_bounds__(THREADS)
    sums_kernel(struct accon_rule rule, struct accon_columns columns, struct accon_panel panel, double *scalars,
                double *values) {
  __shared__ row_sums maxima[THREADS];
  __shared__ sum_of_double tree[THREADS];
  row_of_panel row = own_row(rule, columns, panel);
  float shift = (float)accon_shift(&rule, (double)row.inverse);
  row_sums own = {0, 0, -INFINITY};
  for (int64_t j = threadIdx.x; j < columns.rows; j += THREADS) {
    bool same;
    if (j == row.place)
      continue;
    double exponent = (double)exponent_with(row, columns, j, shift, &same);
    own.join(row_sums{same ? 1.0 : 0.0, same ? exponent : 0.0, exponent});
  }
  join_block(maxima, own);
  __syncthreads();
  row_sums all = maxima[0];
  double sum = 0;
  for (int64_t j = threadIdx.x; j < columns.rows; j += THREADS) {
    bool same;
    if (j != row.place)
      sum += (double)pair_exp_f32(exponent_with(row, columns, j, shift, &same) - (float)all.largest);
  }
  sum = sum_block(tree, sum);
  if (threadIdx.x > 0)
    return;
  double log_z = columns.rows > 1 ? all.largest + log(sum) : 0;
  scalars[2 * row.place] = all.positives;
  scalars[2 * row.place + 1] = log_z;
  values[blockIdx.x] = accon_value_of(&rule, columns.rows, all.similarity, all.positives, log_z);
}

extern "C" enum status accon_sums_launch(const struct accon_rule *rule, const struct accon_columns *columns,
                                         const struct accon_panel *panel, double *scalars, double *values,
                                         struct stream *stream) {
  if (panel->rows == 0)
    return STATUS_OK;
  LAUNCH_BLOCKS(sums_kernel, (unsigned)panel->rows, THREADS, cuda_stream(stream), *rule, *columns, *panel, scalars,
                values);
  return cuda_launched("sums of ACCon");
}

static __device__ __forceinline__ struct accon_scales_f32 scales_of(const struct accon_columns &columns, int64_t row) {
  struct accon_scales_f32 scales = {columns.pull[row], columns.push[row], columns.subtract[row]};
  return scales;
}

template <typename T>
static __global__ void __launch_bounds__(THREADS)
    coefficients_kernel(struct accon_rule rule, struct accon_columns columns, struct accon_panel panel, T *out) {
  row_of_panel row = own_row(rule, columns, panel);
  struct accon_scales_f32 scales = scales_of(columns, row.place);
  for (int64_t j = threadIdx.x; j < columns.pitch; j += THREADS) {
    float h = 0;
    if (j < columns.rows && j != row.place)
      h = accon_coefficient_f32(pair_with(row, columns, j), columns.label[j] == row.angle.label, scales,
                                scales_of(columns, j), row.inverse_t) *
          columns.inverse[j];
    from_float(h, &out[(int64_t)blockIdx.x * columns.pitch + j]);
  }
}

extern "C" enum status accon_coefficients_launch(const struct accon_rule *rule, const struct accon_columns *columns,
                                                 const struct accon_panel *panel, enum dtype dtype, void *out,
                                                 struct stream *stream) {
  if (panel->rows == 0)
    return STATUS_OK;
  if (dtype == BF16)
    LAUNCH(coefficients_kernel<__nv_bfloat16>, (unsigned)panel->rows, THREADS, cuda_stream(stream), *rule, *columns,
           *panel, (__nv_bfloat16 *)out);
  else
    LAUNCH(coefficients_kernel<float>, (unsigned)panel->rows, THREADS, cuda_stream(stream), *rule, *columns, *panel,
           (float *)out);
  return cuda_launched("coefficients of ACCon");
}
