/* Included twice by accon.c, with REAL = float and double.  Not a header for anyone else. */

/* x [n] products q_i . z_j become exponents; adds up positives, their cosines, and the largest exponent. */
VECTORISED
static void NAME(exponents)(int64_t n, struct NAME(accon_angle) own, REAL shift, REAL inverse_t, REAL tau,
                            const REAL *restrict inverse, const REAL *restrict label, const REAL *restrict cosine,
                            const REAL *restrict sine, REAL *restrict x, struct accon_sums *sums) {
  double similarity = 0;
  int positives = 0;
  REAL largest = -(REAL)INFINITY;
#pragma omp simd reduction(+ : similarity, positives) reduction(max : largest)
  for (int64_t j = 0; j < n; j++) {
    struct NAME(accon_pair) pair = NAME(accon_pair_of)(x[j] * inverse[j], tau, own, cosine[j], sine[j]);
    int same = label[j] == own.label;
    REAL pull = (pair.cosine - shift) * inverse_t;
    x[j] = same ? pull : NAME(accon_push)(pair, inverse_t);
    positives += same;
    similarity += same ? (double)pull : 0.0;
    largest = x[j] > largest ? x[j] : largest;
  }
  sums->positives += positives;
  sums->similarity += similarity;
  sums->largest = (double)largest > sums->largest ? (double)largest : sums->largest;
}

VECTORISED
static double NAME(sum_exponentials)(int64_t n, REAL largest, const REAL *restrict x) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; j++)
    sum += (double)NAME(pair_exp)(x[j] - largest);
  return sum;
}

/* x [n] products become H_ij / |z_j|. */
VECTORISED
static void NAME(coefficients)(int64_t n, struct NAME(accon_angle) own, struct NAME(accon_scales) scales,
                               REAL inverse_t, REAL tau, const REAL *restrict inverse, const REAL *restrict label,
                               const REAL *restrict cosine, const REAL *restrict sine, const REAL *restrict pull,
                               const REAL *restrict push, const REAL *restrict subtract, REAL *restrict x) {
#pragma omp simd
  for (int64_t j = 0; j < n; j++) {
    struct NAME(accon_pair) pair = NAME(accon_pair_of)(x[j] * inverse[j], tau, own, cosine[j], sine[j]);
    int same = label[j] == own.label;
    struct NAME(accon_scales) column = {pull[j], push[j], subtract[j]};
    x[j] = NAME(accon_coefficient)(pair, same, scales, column, inverse_t) * inverse[j];
  }
}

/* sum += factor row */
VECTORISED
static void NAME(add_scaled)(int64_t n, REAL factor, const REAL *restrict row, REAL *restrict sum) {
#pragma omp simd
  for (int64_t k = 0; k < n; k++)
    sum[k] += factor * row[k];
}

static struct NAME(accon_angle) NAME(angle_of)(const struct accon *accon, int64_t row) {
  return (struct NAME(accon_angle)){((const REAL *)accon->label)[row], ((const REAL *)accon->cosine)[row],
                                    ((const REAL *)accon->sine)[row]};
}

/* Own row `row`, with its products [rows], which become exponents: its sums. */
static struct accon_sums NAME(sum_row)(const struct accon *accon, int64_t row, void *products) {
  REAL *x = products;
  const struct accon_options *options = &accon->options;
  const REAL *inverse = accon->inverse, *label = accon->label, *cosine = accon->cosine, *sine = accon->sine;
  struct NAME(accon_angle) own = NAME(angle_of)(accon, row);
  struct accon_sums sums = {.largest = -INFINITY};
  REAL inverse_t = (REAL)(1 / options->temperature), tau = (REAL)options->tau, shift = (REAL)shift_of(accon, row);
  int64_t after = row + 1, rows = accon->rows;
  NAME(exponents)(row, own, shift, inverse_t, tau, inverse, label, cosine, sine, x, &sums);
  NAME(exponents)
  (rows - after, own, shift, inverse_t, tau, inverse + after, label + after, cosine + after, sine + after, x + after,
   &sums);
  if (rows > 1) {
    REAL largest = (REAL)sums.largest;
    double sum = NAME(sum_exponentials)(row, largest, x) + NAME(sum_exponentials)(rows - after, largest, x + after);
    sums.log_z = sums.largest + log(sum);
  }
  return sums;
}

/* Own row `row`: its products [rows] become the coefficients of all rows. */
static void NAME(weigh_row)(const struct accon *accon, int64_t row, void *products) {
  REAL *x = products;
  const REAL *pull = accon->pull, *push = accon->push, *subtract = accon->subtract;
  struct NAME(accon_scales) own = {pull[row], push[row], subtract[row]};
  NAME(coefficients)
  (accon->rows, NAME(angle_of)(accon, row), own, (REAL)(1 / accon->options.temperature), (REAL)accon->options.tau,
   accon->inverse, accon->label, accon->cosine, accon->sine, pull, push, subtract, x);
  x[row] = 0;
}
