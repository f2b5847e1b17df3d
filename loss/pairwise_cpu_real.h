/* Included twice by pairwise_cpu.c, with REAL = float and double.  Not a header for anyone else. */

/* One thread's workspace: fixed vectors of a row, then tiles sized by the feature width. */
struct NAME(panel) {
  REAL distance[PANEL_COLUMNS];          /* labels of one row to a block of columns; NaN for the row itself */
  REAL prediction[PANEL_COLUMNS];        /* predictions likewise                                            */
  REAL tile[PANEL_ROWS * PANEL_COLUMNS]; /* similarities, then pair coefficients                     */
  REAL reals[];                          /* own rows [PANEL_ROWS, features], then their gradient            */
};

static size_t NAME(panel_reals)(int features) {
  return (size_t)2 * PANEL_ROWS * (size_t)features;
}

/* out[c] = distance between one value of `targets` components and columns first .. first+n-1.
 * values [targets, rows].  The same expression for every caller, so that a pair is never judged twice. */
VECTORISED
static void NAME(distances)(enum pair_distance distance, const REAL *values, int64_t rows, int targets, int64_t row,
                            int64_t first, int n, REAL *restrict out) {
  if (targets == 1) {
    REAL own = values[row];
#pragma omp simd
    for (int c = 0; c < n; c++)
      out[c] = NAME(pair_size)(own - values[first + c]);
    return;
  }
  memset(out, 0, (size_t)n * sizeof *out);
  for (int k = 0; k < targets; k++) {
    const REAL *component = values + (int64_t)k * rows;
    REAL own = component[row];
    for (int c = 0; c < n; c++)
      out[c] = NAME(pair_distance_add)(distance, out[c], own - component[first + c]);
  }
  if (distance == PAIR_EUCLIDEAN)
    for (int c = 0; c < n; c++)
      out[c] = NAME(pair_distance_end)(distance, out[c]);
}

/* Distances of one own row to a block of columns, with NaN where the column is the row itself. */
static void NAME(row_distances)(const struct pair_rule *rule, const struct pair_columns *columns, int32_t row,
                                int64_t first, int n, enum pair_class pairs, struct NAME(panel) * panel) {
  NAME(distances)(rule->distance, columns->labels, columns->rows, columns->targets, row, first, n, panel->distance);
  if (pairs & PAIRS_NEGATIVE)
    NAME(distances)
  (rule->distance, columns->predictions, columns->rows, columns->targets, row, first, n, panel->prediction);
  if (row >= first && row < first + n)
    panel->distance[row - first] = (REAL)NAN;
}

/* One row, shifted: s [n] similarities, d and dp distances. */
VECTORISED
static void NAME(forward_row)(int n, const REAL *restrict s, const REAL *restrict d, const REAL *restrict dp,
                              struct NAME(pair_numbers) rule, int pairs, struct pair_sums *sums) {
  int positives = 0, negatives = 0;
  REAL similarity = 0, positive = 0, negative = 0;
#pragma omp simd reduction(+ : positives, negatives, similarity, positive, negative)
  for (int c = 0; c < n; c++) {
    struct NAME(pair_part) part = NAME(pair_part_of)(&rule, pairs, s[c], d[c], dp[c]);
    positives += part.positive;
    negatives += part.negative;
    similarity += part.similarity;
    positive += part.pull;
    negative += part.push;
  }
  sums->positives += positives;
  sums->negatives += negatives;
  sums->similarity += (double)similarity;
  sums->positive += (double)positive;
  sums->negative += (double)negative;
}

/* One row, wide.  Small t or a wide label range; not vectorised: a third slower. */
static void NAME(forward_row_wide)(int n, const REAL *s, const REAL *d, const REAL *dp, struct NAME(pair_numbers) rule,
                                   int pairs, struct pair_sums *sums) {
  for (int c = 0; c < n; c++)
    NAME(pair_add_wide)(&rule, pairs, s[c], d[c], dp[c], sums);
}

/* One row's own scales. */
struct NAME(row_scales) {
  REAL positive, negative, subtract;
};

/* s [n] becomes H, shifted. */
VECTORISED
static void NAME(backward_row)(int n, REAL *restrict s, const REAL *restrict d, const REAL *restrict dp,
                               struct NAME(pair_numbers) rule, int pairs, struct NAME(row_scales) own,
                               const REAL *restrict scale_positive, const REAL *restrict scale_negative,
                               const REAL *restrict subtract) {
#pragma omp simd
  for (int c = 0; c < n; c++)
    s[c] = NAME(pair_coefficient)(&rule, pairs, s[c], d[c], dp[c], own.positive + scale_positive[c],
                                  own.negative + scale_negative[c], own.subtract + subtract[c]);
}

static struct pair_scales NAME(wide_scales)(const struct pair_columns *columns, int64_t row) {
  return (struct pair_scales){((const double *)columns->scale_positive)[row],
                              ((const double *)columns->scale_negative)[row], ((const double *)columns->subtract)[row],
                              ((const double *)columns->scale_mean)[row]};
}

/* s [n] becomes H, wide: the scales are logarithms, in double.  row: the own one; first: the column of s[0]. */
static void NAME(backward_row_wide)(int n, REAL *s, const REAL *d, const REAL *dp, struct NAME(pair_numbers) rule,
                                    int pairs, const struct pair_columns *columns, int32_t row, int64_t first) {
  struct pair_scales own = NAME(wide_scales)(columns, row);
  for (int c = 0; c < n; c++) {
    struct pair_scales other = NAME(wide_scales)(columns, first + c);
    s[c] = NAME(pair_coefficient_wide)(&rule, pairs, s[c], d[c], dp[c], &own, &other);
  }
}

/* Copy the own rows' features side by side, [product_rows, features], zeros below them. */
static REAL *NAME(pack_rows)(const struct pair_rule *rule, const struct pair_columns *columns, const int32_t *rows,
                             int count, struct NAME(panel) * panel) {
  for (int i = 0; i < count; i++)
    memcpy(panel->reals + (size_t)i * (size_t)columns->features,
           (const REAL *)columns->records + (int64_t)rows[i] * columns->stride,
           (size_t)columns->features * sizeof(REAL));
  memset(panel->reals + (size_t)count * (size_t)columns->features, 0,
         (size_t)(rule->product_rows - count) * (size_t)columns->features * sizeof(REAL));
  return panel->reals;
}

/* tile [product_rows, n] = own rows . columns^T / t */
static enum status NAME(similarities)(const struct pair_rule *rule, const struct pair_columns *columns, const REAL *own,
                                      int64_t first, int n, REAL *tile) {
  return gemm(DTYPE, GEMM_PLAIN, GEMM_TRANSPOSED, rule->product_rows, n, columns->features, 1.0 / rule->temperature,
              own, columns->features, (const REAL *)columns->records + first * columns->stride, columns->stride, 0.0,
              tile, n);
}

static enum status NAME(forward)(const struct pair_rule *rule, const struct pair_columns *columns, const int32_t *rows,
                                 int count, int64_t first, int64_t last, enum pair_class pairs, void *workspace,
                                 struct pair_sums *sums) {
  struct NAME(panel) *panel = workspace;
  struct NAME(pair_numbers) numbers = NAME(pair_numbers_of)(rule);
  REAL *own = NAME(pack_rows)(rule, columns, rows, count, panel);
  for (int64_t begin = first, n; begin < last; begin += n) {
    n = block_columns(begin, last);
    TRY(NAME(similarities)(rule, columns, own, begin, (int)n, panel->tile));
    for (int i = 0; i < count; i++) {
      NAME(row_distances)(rule, columns, rows[i], begin, (int)n, pairs, panel);
      (rule->wide ? NAME(forward_row_wide) : NAME(forward_row))(
          (int)n, panel->tile + (size_t)i * (size_t)n, panel->distance, panel->prediction, numbers, pairs, &sums[i]);
    }
  }
  return STATUS_OK;
}

static enum status NAME(backward)(const struct pair_rule *rule, const struct pair_columns *columns, const int32_t *rows,
                                  int count, int64_t first, int64_t last, enum pair_class pairs, void *workspace,
                                  const void **out) {
  struct NAME(panel) *panel = workspace;
  struct NAME(pair_numbers) numbers = NAME(pair_numbers_of)(rule);
  const REAL *scale_positive = columns->scale_positive, *scale_negative = columns->scale_negative;
  const REAL *subtract = columns->subtract;
  REAL *own = NAME(pack_rows)(rule, columns, rows, count, panel);
  REAL *grad = panel->reals + (size_t)PANEL_ROWS * (size_t)columns->features;
  memset(grad, 0, (size_t)count * (size_t)columns->features * sizeof *grad);
  for (int64_t begin = first, n; begin < last; begin += n) {
    n = block_columns(begin, last);
    TRY(NAME(similarities)(rule, columns, own, begin, (int)n, panel->tile));
    for (int i = 0; i < count; i++) {
      NAME(row_distances)(rule, columns, rows[i], begin, (int)n, pairs, panel);
      REAL *tile = panel->tile + (size_t)i * (size_t)n;
      if (rule->wide) {
        NAME(backward_row_wide)
        ((int)n, tile, panel->distance, panel->prediction, numbers, pairs, columns, rows[i], begin);
        continue;
      }
      struct NAME(row_scales) own_scales = {scale_positive[rows[i]], scale_negative[rows[i]], subtract[rows[i]]};
      NAME(backward_row)
      ((int)n, tile, panel->distance, panel->prediction, numbers, pairs, own_scales, scale_positive + begin,
       scale_negative + begin, subtract + begin);
    }
    TRY(gemm(DTYPE, GEMM_PLAIN, GEMM_PLAIN, count, columns->features, n, 1.0 / rule->temperature, panel->tile, n,
             (const REAL *)columns->records + begin * columns->stride, columns->stride, 1.0, grad, columns->features));
  }
  *out = grad;
  return STATUS_OK;
}

/* ---- rows ---- */

VECTORISED
static double NAME(row_normalise)(int n, const REAL *restrict f, REAL *restrict q, bool *finite) {
  double squares = 0;
#pragma omp simd reduction(+ : squares)
  for (int k = 0; k < n; k++)
    squares += (double)f[k] * (double)f[k];
  double norm = sqrt(squares), scale = 1 / (norm > SMALLEST_NORM ? norm : SMALLEST_NORM);
#pragma omp simd
  for (int k = 0; k < n; k++)
    q[k] = (REAL)((double)f[k] * scale);
  *finite = isfinite(norm);
  return norm > SMALLEST_NORM ? scale : 0;
}

VECTORISED
static void NAME(row_add)(int n, const REAL *restrict row, REAL *restrict sum) {
#pragma omp simd
  for (int k = 0; k < n; k++)
    sum[k] += row[k];
}

VECTORISED
static void NAME(row_through_norm)(int n, const REAL *restrict f, double inverse, REAL *restrict grad) {
  double along = 0;
#pragma omp simd reduction(+ : along)
  for (int k = 0; k < n; k++)
    along += (double)grad[k] * ((double)f[k] * inverse);
#pragma omp simd
  for (int k = 0; k < n; k++)
    grad[k] = (REAL)(((double)grad[k] - along * ((double)f[k] * inverse)) * inverse);
}
