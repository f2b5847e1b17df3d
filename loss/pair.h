/* The arithmetic of one pair of rows and of one row, shared by every backend: C, CUDA, and C++ that stands in for CUDA.
 *
 * Notation of conr.h; a_i is what multiplies a row's term (its outer weight / N), k_i what its similarities are divided
 * by (|P_i|, or |P_i| + 1 where the row counts itself), r_i = |P_i| / k_i.  The closed-form gradient:
 *     u_i = r_i a_i / D_i     v_i = a_i / k_i     x_i = a_i / sum_P exp(s)  (log of mean only)
 *     H_ij = G_ij + G_ji
 *          = P: exp(s) [ (u_i - x_i) + (u_j - x_j) ] - (v_i + v_j)
 *          = N: exp(s) push(d) [ weight_i u_i + weight_j u_j ]
 * with push(d) = (push_constant + push_slope d) exp(push_rate d), so that the exponential push is (1, 0, e) and
 * the depth variant's linear one (0, e, 0).
 *
 * Two ways to keep exp in range.  "Shifted": |s| <= 1/t is known beforehand, so one constant
 * m = 1/t + push_rate * (largest d) is subtracted in every exponent; sums are of exp(s - m).
 * "Wide", when 2/t + push_rate * (largest d) would underflow: per-row maxima and logarithms of the scalars.
 *
 * In the order of a call: the rule of a batch; for each pair its distances and what it adds to the sums; for each row
 * its scalars and its part of the loss; for each pair again its coefficient H_ij.  Names that end in _f32 and _f64
 * exist for both types (pair_real.h).  Whoever evaluates a pair twice, or from both ends, gets the same mask. */
#ifndef CONR_LOSS_PAIR_H
#define CONR_LOSS_PAIR_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#ifndef CONR_PAIR_INLINE
#ifdef __CUDACC__
#define CONR_PAIR_INLINE static __host__ __device__ __forceinline__
#else
#define CONR_PAIR_INLINE static inline __attribute__((always_inline))
#endif
#endif

/* As enum conr_distance, which is of the public header and comes with MPI's. */
enum pair_distance { PAIR_EUCLIDEAN, PAIR_MANHATTAN, PAIR_CHEBYSHEV };

/* Which pairs a sweep adds up. */
enum pair_class { PAIRS_POSITIVE = 1, PAIRS_NEGATIVE = 2, PAIRS_BOTH = 3 };

/* Label and prediction distances decide; both limits are inclusive.  d or dp = NaN: neither (the row itself). */
#define PAIR_IS_POSITIVE(d, w) ((d) <= (w))
#define PAIR_IS_NEGATIVE(d, dp, w) ((d) > (w) && (dp) <= (w))

/* ---- the rule of a batch ------------------------------------------------------------------- */

struct pair_rule {
  enum pair_distance distance;
  double w;
  double temperature;
  double push_constant, push_slope, push_rate; /* push(d) = (constant + slope d) exp(rate d)          */
  bool count_masked;                           /* D_i has N - |P_i| more, with N the columns; or,     */
  double constant_rows;                        /* where it is not 0, constant_rows (1 - |P_i| / N)    */
  bool count_self;                             /* k_i = |P_i| + 1                                     */
  bool outer_weights;                          /* the weight multiplies the row's term                */
  bool log_of_mean;                            /* log mean_P exp(s) instead of mean_P s               */
  bool wide;                                   /* logarithms and row maxima instead of a shift        */
  double shift;                                /* m; 0 when wide                                      */
  int product_rows; /* the host's: rows of every matrix product, <= PANEL_ROWS: a panel with fewer is filled up */
};

/* Exponents whose exp is a normal number with a margin: the smallest exponential is exp(-2/t - largest push). */
#define PAIR_EXPONENTS_F32 80
#define PAIR_EXPONENTS_F64 680

/* The largest distance two labels can have is that of the corners of their bounding box: its sides, one after the
 * other. */
CONR_PAIR_INLINE double pair_diameter_add(enum pair_distance distance, double diameter, double side) {
  if (distance == PAIR_EUCLIDEAN)
    return hypot(diameter, side);
  return distance == PAIR_MANHATTAN ? diameter + side : fmax(diameter, side);
}

/* Choose the form by the largest push, which is that of labels a diameter apart. */
CONR_PAIR_INLINE void pair_rule_span(struct pair_rule *rule, double diameter, double exponents) {
  double largest_push = rule->push_rate * diameter;
  rule->wide = 2 / rule->temperature + largest_push > exponents;
  rule->shift = rule->wide ? 0 : 1 / rule->temperature + largest_push;
}

/* ---- sums of a row ------------------------------------------------------------------------- */

/* What a row's sweep collects.  Sums are of exp(s - m), without the weight; m = the rule's shift, or
 * the maxima below when wide. */
struct pair_sums {
  int32_t positives, negatives;
  double similarity; /* sum of s over positives */
  double positive, negative;
  float positive_max, negative_max; /* wide only */
};

CONR_PAIR_INLINE void pair_sums_begin(struct pair_sums *sums) {
  sums->positives = sums->negatives = 0;
  sums->similarity = sums->positive = sums->negative = 0;
  sums->positive_max = sums->negative_max = -INFINITY;
}

/* sum * exp(old_max - new_max), with an empty sum staying 0. */
CONR_PAIR_INLINE double pair_rescale(double sum, double old_max, double new_max) {
  return sum == 0 ? 0 : sum * exp(old_max - new_max);
}

/* One exponential, as its exponent and factor, added to a sum that has a running maximum. */
CONR_PAIR_INLINE void pair_add_exponential(double *sum, float *max, double exponent, double factor) {
  if (exponent > (double)*max) {
    float next = nextafterf((float)exponent, INFINITY);
    *sum = pair_rescale(*sum, (double)*max, (double)next);
    *max = next;
  }
  *sum += exp(exponent - (double)*max) * factor;
}

/* One sum of exponentials with its own maximum added to another. */
CONR_PAIR_INLINE void pair_add_sum(double *sum, float *max, double more, float more_max) {
  float high = more_max > *max ? more_max : *max;
  if (more == 0)
    return;
  *sum = pair_rescale(*sum, (double)*max, (double)high) + more * exp((double)more_max - (double)high);
  *max = high;
}

/* sums += more, of other columns of the same row. */
CONR_PAIR_INLINE void pair_sums_join(bool wide, struct pair_sums *sums, const struct pair_sums *more) {
  sums->positives += more->positives;
  sums->negatives += more->negatives;
  sums->similarity += more->similarity;
  if (wide) {
    pair_add_sum(&sums->positive, &sums->positive_max, more->positive, more->positive_max);
    pair_add_sum(&sums->negative, &sums->negative_max, more->negative, more->negative_max);
  } else {
    sums->positive += more->positive;
    sums->negative += more->negative;
  }
}

/* ---- scalars of a row ---------------------------------------------------------------------- */

/* log(exp(a) + exp(b)) */
CONR_PAIR_INLINE double pair_log_add(double a, double b) {
  double high = fmax(a, b), low = fmin(a, b);
  return low == -INFINITY ? high : high + log1p(exp(low - high));
}

/* log D_i of one row; *log_mean = log sum_P exp(s). */
CONR_PAIR_INLINE double pair_log_denominator(const struct pair_rule *rule, int64_t columns,
                                             const struct pair_sums *sums, double weight, double *log_mean) {
  double positive_max = rule->wide ? (double)sums->positive_max : rule->shift;
  double negative_max = rule->wide ? (double)sums->negative_max : rule->shift;
  double masked = rule->count_masked ? (double)(columns - sums->positives) : 0;
  if (rule->constant_rows > 0)
    masked *= rule->constant_rows / (double)columns;
  *log_mean = sums->positives > 0 ? positive_max + log(sums->positive) : -INFINITY;
  double negative = sums->negatives > 0 && weight > 0 ? negative_max + log(weight) + log(sums->negative) : -INFINITY;
  return pair_log_add(pair_log_add(*log_mean, negative), log(masked));
}

/* What a row tells the others, and its part of the loss. */
struct pair_row {
  double u;      /* wide: log u                                          */
  double second; /* v; with the logarithm of the mean x, and wide: log x */
  double loss;
  bool active; /* it has positives and negatives */
};

/* Of a row among `rows`, whose sums are over `columns`: the rows, and others that are no anchors. */
CONR_PAIR_INLINE struct pair_row pair_row_of(const struct pair_rule *rule, int64_t rows, int64_t columns,
                                             const struct pair_sums *sums, double weight) {
  double nothing = rule->wide ? -INFINITY : 0;
  struct pair_row row;
  row.u = nothing;
  row.second = rule->log_of_mean ? nothing : 0;
  row.loss = 0;
  row.active = sums->positives > 0 && sums->negatives > 0;
  if (!row.active)
    return row;
  double positives = sums->positives, divisor = rule->count_self ? positives + 1 : positives;
  double a = (rule->outer_weights ? weight : 1.0) / (double)rows;
  double log_mean, log_d = pair_log_denominator(rule, columns, sums, weight, &log_mean);
  double pull = rule->log_of_mean ? log_mean - log(positives) : sums->similarity / divisor;
  row.loss = a * (positives / divisor * log_d - pull);
  double log_u = log(a * positives / divisor) - log_d, log_x = log(a) - log_mean;
  row.u = rule->wide ? log_u : exp(log_u + rule->shift);
  if (rule->log_of_mean)
    row.second = rule->wide ? log_x : exp(log_x + rule->shift);
  else
    row.second = a / divisor;
  return row;
}

/* A row's scalars as its pairs use them.  Shifted: u - x, weight u, v, unused.  Wide: log u, log(weight u), v, log
 * x. */
struct pair_scales {
  double positive, negative, subtract, mean;
};

CONR_PAIR_INLINE struct pair_scales pair_scales_of(const struct pair_rule *rule, double u, double second,
                                                   double weight) {
  struct pair_scales scales;
  scales.positive = rule->log_of_mean && !rule->wide ? u - second : u;
  scales.negative = rule->wide ? u + log(weight) : u * weight;
  scales.subtract = rule->log_of_mean ? 0 : second;
  scales.mean = rule->log_of_mean && rule->wide ? second : -INFINITY;
  return scales;
}

/* ---- pairs --------------------------------------------------------------------------------- */

/* exp in float32 for x <= 88; exactly 0 below -87 (on a GPU below -104: smaller numbers lose digits first).  On the
 * host a degree-6 polynomial on
 * |r| <= ln2/2, error below 2 ulp, in plain arithmetic, so that a compiler can put it in vector lanes. */
CONR_PAIR_INLINE float pair_exp_f32(float x) {
#ifdef __CUDA_ARCH__
  return expf(x);
#else
  float clamped = x < -87.0f ? -87.0f : x;
  float shifted = clamped * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: the addition rounds to an integer */
  float n = shifted - 12582912.0f;
  float r = clamped - n * 0.693359375f; /* ln 2 in two parts: the first product is exact */
  r = r + n * 2.12194440e-4f;
  float poly = 1.9875691500e-4f;
  poly = poly * r + 1.3981999507e-3f;
  poly = poly * r + 8.3334519073e-3f;
  poly = poly * r + 4.1665795894e-2f;
  poly = poly * r + 1.6666665459e-1f;
  poly = poly * r + 5.0000001201e-1f;
  float value = poly * r * r + r + 1.0f;
  union {
    int bits;
    float power;
  } scale = {((int)n + 127) << 23};
  return x < -87.0f ? 0.0f : value * scale.power;
#endif
}

CONR_PAIR_INLINE double pair_exp_f64(double x) {
  return exp(x);
}

/* Rounded to the nearest on the host and on a GPU (nvcc's default): the same bits as by way of double. */
CONR_PAIR_INLINE float pair_root_f32(float x) {
  return sqrtf(x);
}

CONR_PAIR_INLINE double pair_root_f64(double x) {
  return sqrt(x);
}

#define REAL float
#define NAME(name) name##_f32
#include "loss/pair_real.h"
#undef REAL
#undef NAME

#define REAL double
#define NAME(name) name##_f64
#include "loss/pair_real.h"
#undef REAL
#undef NAME

#endif
