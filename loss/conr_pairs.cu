/* Kernels over pairs of the ConR loss: a panel of similarities becomes sums of rows, then coefficients H.
 *
 * What bounds them is the reading of the panel (and the writing of H): 4 N bytes a row at the speed of memory.  Labels,
 * predictions and scales of a column are the same for all rows, but 8 to 20 bytes: so a thread takes four columns, 16
 * bytes of each array, for several rows at once, and what is left to read beside the panel is 2 to 3 bytes a pair, from
 * cache.  About 40 instructions a pair, exp among them, stay below that.
 *
 * Each is there twice: shifted (float32) and wide (double, rarely taken, not tuned).  Which one a batch needs is known
 * to the device alone, unless the labels have no say in it: both are launched, and one of them returns at once, so the
 * wide one's grid is small and walks. */
#include "loss/conr_kernels.h"

#include "loss/kernels.cuh"

#define SUM_ROWS 4  /* rows of a block of the sums */
#define COEF_ROWS 8 /* rows of a thread of the coefficients */
#define COEF_AHEAD 4
#define WIDE_BLOCKS 1056 /* of a wide kernel, at most: 8 for each of 132 processors */

/* Can a batch be wide?  It depends on the labels where a push grows with their distance (pair_rule_span). */
static bool may_be_wide(const struct pair_rule &rule) {
  struct pair_rule equal_labels = rule;
  pair_rule_span(&equal_labels, 0, PAIR_EXPONENTS_F32);
  return rule.push_rate > 0 || equal_labels.wide;
}

static unsigned wide_blocks(int64_t blocks) {
  return (unsigned)(blocks < WIDE_BLOCKS ? blocks : WIDE_BLOCKS);
}

/* --- distances ------------------------------------------------------------------------------------------------ */

/* A row's own place among the columns. */
static __device__ __forceinline__ int64_t place_of_row(const struct conr_panel &panel, int row) {
  return panel.places == nullptr ? panel.first_place + row : panel.places[row];
}

static __device__ __forceinline__ int64_t own_of_row(const struct conr_panel &panel, int row) {
  return panel.own == nullptr ? panel.first_own + row : panel.own[row];
}

/* Of values [targets, pitch] at two places. */
static __device__ __forceinline__ float distance_between(enum pair_distance distance, const float *values,
                                                         int64_t pitch, int targets, int64_t one, int64_t other) {
  float sum = 0;
  for (int k = 0; k < targets; k++, values += pitch)
    sum = pair_distance_add_f32(distance, sum, values[one] - values[other]);
  return pair_distance_end_f32(distance, sum);
}

/* Four columns: labels and predictions of one component, which distances are made of. */
struct four_columns {
  float label[4], prediction[4];
};

static __device__ __forceinline__ struct four_columns load_columns(const struct conr_columns &columns, int64_t column) {
  struct four_columns four;
  load4(columns.labels + column, four.label);
  load4(columns.predictions + column, four.prediction);
  return four;
}

/* Of values [targets, pitch] at a row's place and at four columns. */
static __device__ __forceinline__ void four_distances(enum pair_distance distance, const float *values, int64_t pitch,
                                                      int targets, int64_t place, int64_t column, float (&d)[4]) {
  UNROLL
  for (int j = 0; j < 4; j++)
    d[j] = 0;
  for (int k = 0; k < targets; k++, values += pitch) {
    float own = values[place], four[4];
    load4(values + column, four);
    UNROLL
    for (int j = 0; j < 4; j++)
      d[j] = pair_distance_add_f32(distance, d[j], own - four[j]);
  }
  UNROLL
  for (int j = 0; j < 4; j++)
    d[j] = pair_distance_end_f32(distance, d[j]);
}

/* d and dp of one row and four columns; d is NaN where the column is the row itself.  SINGLE: labels of one
 * component. */
template <bool SINGLE>
static __device__ __forceinline__ void distances(const struct pair_rule &rule, const struct conr_columns &columns,
                                                 const struct four_columns &four, int64_t place, float label,
                                                 float prediction, int64_t column, float (&d)[4], float (&dp)[4]) {
  if (!SINGLE) {
    four_distances(rule.distance, columns.labels, columns.pitch, columns.targets, place, column, d);
    four_distances(rule.distance, columns.predictions, columns.pitch, columns.targets, place, column, dp);
  }
  UNROLL
  for (int j = 0; j < 4; j++) {
    if (SINGLE) {
      d[j] = pair_size_f32(label - four.label[j]);
      dp[j] = pair_size_f32(prediction - four.prediction[j]);
    }
    if (column + j == place)
      d[j] = NAN;
  }
}

/* One pair, for the wide kernels. */
static __device__ __forceinline__ void one_distance(const struct pair_rule &rule, const struct conr_columns &columns,
                                                    int64_t place, int64_t column, float *d, float *dp) {
  bool single = columns.targets == 1;
  enum pair_distance distance = single ? PAIR_MANHATTAN : rule.distance;
  *d = distance_between(distance, columns.labels, columns.pitch, columns.targets, place, column);
  *dp = distance_between(distance, columns.predictions, columns.pitch, columns.targets, place, column);
  if (column == place)
    *d = NAN;
}

/* --- sums ----------------------------------------------------------------------------------------------------- */

static __global__ void __launch_bounds__(THREADS) begin_kernel(int64_t rows, struct pair_sums *sums) {
  int64_t row = thread_number();
  if (row < rows)
    pair_sums_begin(&sums[row]);
}

extern "C" enum status conr_sums_begin_launch(int64_t rows, struct pair_sums *sums, struct stream *stream) {
  if (rows == 0)
    return STATUS_OK;
  LAUNCH(begin_kernel, blocks_of(rows, THREADS), THREADS, cuda_stream(stream), rows, sums);
  return cuda_launched("clearing the sums of ConR");
}

/* One row's sums in a thread, shifted. */
struct narrow_sums {
  int positives, negatives;
  float similarity, positive, negative;

  __device__ __forceinline__ void add(const struct pair_part_f32 &part) {
    positives += part.positive;
    negatives += part.negative;
    similarity += part.similarity;
    positive += part.pull;
    negative += part.push;
  }
  __device__ __forceinline__ void join(const narrow_sums &more) {
    positives += more.positives;
    negatives += more.negatives;
    similarity += more.similarity;
    positive += more.positive;
    negative += more.negative;
  }
};

struct block_sums {
  narrow_sums row[SUM_ROWS];
  __device__ __forceinline__ void join(const block_sums &more) {
    UNROLL
    for (int i = 0; i < SUM_ROWS; i++)
      row[i].join(more.row[i]);
  }
};

static __device__ __forceinline__ void add_to(struct pair_sums *sums, const narrow_sums &more) {
  sums->positives += more.positives;
  sums->negatives += more.negatives;
  sums->similarity += (double)more.similarity;
  sums->positive += (double)more.positive;
  sums->negative += (double)more.negative;
}

/* SUM_ROWS rows a block, all columns; rows beyond the panel repeat its last and are dropped. */
template <bool SINGLE>
static __global__ void __launch_bounds__(THREADS)
    sums_kernel(struct pair_rule rule, const struct conr_found *found, struct conr_columns columns,
                struct conr_panel panel, int pairs, struct pair_sums *sums) {
  __shared__ block_sums tree[THREADS];
  if (found->wide)
    return;
  rule.shift = found->shift;
  const struct pair_numbers_f32 numbers = pair_numbers_of_f32(&rule);
  int first_row = (int)blockIdx.x * SUM_ROWS;
  const float *similarity[SUM_ROWS];
  float label[SUM_ROWS], prediction[SUM_ROWS];
  int64_t place[SUM_ROWS];
  UNROLL
  for (int i = 0; i < SUM_ROWS; i++) {
    int row = min(first_row + i, panel.rows - 1);
    place[i] = place_of_row(panel, row);
    label[i] = columns.labels[place[i]];
    prediction[i] = columns.predictions[place[i]];
    similarity[i] = panel.similarity + row * panel.columns;
  }
  block_sums own = {};
  for (int64_t c = 4 * (int64_t)threadIdx.x; c < panel.columns; c += 4 * THREADS) {
    int64_t column = panel.first + c;
    struct four_columns four = load_columns(columns, column);
    UNROLL
    for (int i = 0; i < SUM_ROWS; i++) {
      float s[4], d[4], dp[4];
      stream4(similarity[i] + c, s);
      distances<SINGLE>(rule, columns, four, place[i], label[i], prediction[i], column, d, dp);
      UNROLL
      for (int j = 0; j < 4; j++)
        own.row[i].add(pair_part_of_f32(&numbers, pairs, s[j], d[j], dp[j]));
    }
  }
  join_block(tree, own);
  if (threadIdx.x == 0)
    for (int i = 0; i < SUM_ROWS && first_row + i < panel.rows; i++)
      add_to(&sums[own_of_row(panel, first_row + i)], own.row[i]);
}

struct wide_sums {
  struct pair_sums sums;
  __device__ void join(const wide_sums &more) {
    pair_sums_join(true, &sums, &more.sums);
  }
};

/* One row a block at a time. */
static __global__ void __launch_bounds__(THREADS)
    wide_sums_kernel(struct pair_rule rule, const struct conr_found *found, struct conr_columns columns,
                     struct conr_panel panel, int pairs, struct pair_sums *sums) {
  __shared__ wide_sums tree[THREADS];
  if (!found->wide)
    return;
  const struct pair_numbers_f32 numbers = pair_numbers_of_f32(&rule);
  for (int row = (int)blockIdx.x; row < panel.rows; row += (int)gridDim.x) {
    int64_t place = place_of_row(panel, row);
    wide_sums own;
    pair_sums_begin(&own.sums);
    for (int64_t c = threadIdx.x; c < panel.columns; c += THREADS) {
      float d, dp;
      one_distance(rule, columns, place, panel.first + c, &d, &dp);
      pair_add_wide_f32(&numbers, pairs, panel.similarity[row * panel.columns + c], d, dp, &own.sums);
    }
    join_block(tree, own);
    if (threadIdx.x == 0)
      pair_sums_join(true, &sums[own_of_row(panel, row)], &own.sums);
    __syncthreads(); /* before the next row's sums take the tree */
  }
}

extern "C" enum status conr_sums_launch(const struct pair_rule *rule, const struct conr_found *found,
                                        const struct conr_columns *columns, const struct conr_panel *panel,
                                        enum pair_class pairs, struct pair_sums *sums, struct stream *stream) {
  if (panel->rows == 0)
    return STATUS_OK;
  unsigned blocks = blocks_of(panel->rows, SUM_ROWS);
  if (columns->targets == 1)
    LAUNCH_BLOCKS(sums_kernel<true>, blocks, THREADS, cuda_stream(stream), *rule, found, *columns, *panel, (int)pairs,
                  sums);
  else
    LAUNCH_BLOCKS(sums_kernel<false>, blocks, THREADS, cuda_stream(stream), *rule, found, *columns, *panel, (int)pairs,
                  sums);
  if (may_be_wide(*rule))
    LAUNCH_BLOCKS(wide_sums_kernel, wide_blocks(panel->rows), THREADS, cuda_stream(stream), *rule, found, *columns,
                  *panel, (int)pairs, sums);
  return cuda_launched("the sums of ConR");
}

/* --- coefficients --------------------------------------------------------------------------------------------- */

/* Four columns' scales, shifted. */
struct four_scales {
  float positive[4], negative[4], subtract[4];
};

static __device__ __forceinline__ struct four_scales load_scales(const float *scale, int64_t pitch, int64_t column) {
  struct four_scales four;
  load4(scale + column, four.positive);
  load4(scale + pitch + column, four.negative);
  load4(scale + 2 * pitch + column, four.subtract);
  return four;
}

/* One row's four similarities become H. */
template <bool SINGLE>
static __device__ __forceinline__ void
four_coefficients(const struct pair_rule &rule, const struct pair_numbers_f32 &numbers,
                  const struct conr_columns &columns, const struct four_columns &four, const struct four_scales &scales,
                  int pairs, int64_t place, int64_t column, float (&s)[4]) {
  const float *own = (const float *)columns.scales + place;
  float d[4], dp[4], positive = own[0], negative = own[columns.pitch], subtract = own[2 * columns.pitch];
  distances<SINGLE>(rule, columns, four, place, columns.labels[place], columns.predictions[place], column, d, dp);
  UNROLL
  for (int j = 0; j < 4; j++)
    s[j] = pair_coefficient_f32(&numbers, pairs, s[j], d[j], dp[j], positive + scales.positive[j],
                                negative + scales.negative[j], subtract + scales.subtract[j]);
}

/* COEF_ROWS rows and four columns a thread, COEF_AHEAD rows read before the first of them is written: enough in flight
 * to keep the memory busy.  out may be the panel: a thread reads what it writes before. */
template <bool SINGLE, typename T>
static __global__ void __launch_bounds__(THREADS)
    coefficients_kernel(struct pair_rule rule, const struct conr_found *found, struct conr_columns columns,
                        struct conr_panel panel, int pairs, T *out) {
  int64_t c = 4 * thread_number(), column = panel.first + c;
  if (found->wide || c >= panel.columns)
    return;
  rule.shift = found->shift;
  const struct pair_numbers_f32 numbers = pair_numbers_of_f32(&rule);
  struct four_columns four = load_columns(columns, column);
  struct four_scales scales = load_scales((const float *)columns.scales, columns.pitch, column);
  int first_row = (int)blockIdx.y * COEF_ROWS, last_row = min(first_row + COEF_ROWS, panel.rows);
  for (int row = first_row; row < last_row; row += COEF_AHEAD) {
    float s[COEF_AHEAD][4];
    UNROLL
    for (int i = 0; i < COEF_AHEAD; i++)
      stream4(panel.similarity + min(row + i, last_row - 1) * panel.columns + c, s[i]);
    UNROLL
    for (int i = 0; i < COEF_AHEAD; i++)
      if (row + i < last_row) {
        four_coefficients<SINGLE>(rule, numbers, columns, four, scales, pairs, place_of_row(panel, row + i), column,
                                  s[i]);
        store4(s[i], out + (row + i) * panel.columns + c);
      }
  }
}

static __device__ __forceinline__ struct pair_scales wide_scales(const double *scales, int64_t pitch, int64_t place) {
  struct pair_scales at = {scales[place], scales[pitch + place], scales[2 * pitch + place], scales[3 * pitch + place]};
  return at;
}

/* One pair a thread at a time. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    wide_coefficients_kernel(struct pair_rule rule, const struct conr_found *found, struct conr_columns columns,
                             struct conr_panel panel, int pairs, T *out) {
  if (!found->wide)
    return;
  const struct pair_numbers_f32 numbers = pair_numbers_of_f32(&rule);
  const double *scales = (const double *)columns.scales;
  int64_t count = panel.rows * panel.columns, step = (int64_t)gridDim.x * THREADS;
  for (int64_t at = thread_number(); at < count; at += step) {
    int64_t row = at / panel.columns, column = panel.first + at % panel.columns;
    int64_t place = place_of_row(panel, (int)row);
    float d, dp;
    one_distance(rule, columns, place, column, &d, &dp);
    struct pair_scales own = wide_scales(scales, columns.pitch, place);
    struct pair_scales other = wide_scales(scales, columns.pitch, column);
    from_float(pair_coefficient_wide_f32(&numbers, pairs, panel.similarity[at], d, dp, &own, &other), &out[at]);
  }
}

template <typename T>
static void coefficients(const struct pair_rule &rule, const struct conr_found *found,
                         const struct conr_columns &columns, const struct conr_panel &panel, int pairs, T *out,
                         struct stream *stream) {
  dim3 fours(blocks_of(panel.columns, 4 * THREADS), blocks_of(panel.rows, COEF_ROWS));
  int64_t ones = (panel.rows * panel.columns + THREADS - 1) / THREADS;
  void (*shifted)(struct pair_rule, const struct conr_found *, struct conr_columns, struct conr_panel, int, T *) =
      columns.targets == 1 ? coefficients_kernel<true, T> : coefficients_kernel<false, T>;
  LAUNCH(shifted, fours, THREADS, cuda_stream(stream), rule, found, columns, panel, pairs, out);
  if (may_be_wide(rule))
    LAUNCH(wide_coefficients_kernel<T>, wide_blocks(ones), THREADS, cuda_stream(stream), rule, found, columns, panel,
           pairs, out);
}

extern "C" enum status conr_coefficients_launch(const struct pair_rule *rule, const struct conr_found *found,
                                                const struct conr_columns *columns, const struct conr_panel *panel,
                                                enum pair_class pairs, enum dtype dtype, void *out,
                                                struct stream *stream) {
  if (panel->rows == 0)
    return STATUS_OK;
  if (dtype == BF16)
    coefficients(*rule, found, *columns, *panel, pairs, (__nv_bfloat16 *)out, stream);
  else
    coefficients(*rule, found, *columns, *panel, pairs, (float *)out, stream);
  return cuda_launched("the coefficients of ConR");
}
