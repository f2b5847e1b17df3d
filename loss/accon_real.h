/* Included twice by accon.c, with REAL = float and double.  Not a header for anyone else. */

/* What a row, or all columns, bring into a pair. */
struct NAME(angle) {
  REAL label, cosine, sine; /* of pi label / R */
};

/* One pair: both angles, and the exponent of a negative. */
struct NAME(pair_angles) {
  REAL cosine, sine;               /* c, s           */
  REAL wanted_cosine, wanted_sine; /* cos a, |sin a| */
};

CONR_PAIR_INLINE struct NAME(pair_angles)
    NAME(pair_angles_of)(REAL product, REAL tau, struct NAME(angle) own, REAL cosine, REAL sine) {
  struct NAME(pair_angles) pair;
  REAL across = own.sine * cosine - own.cosine * sine;
  pair.cosine = product > 1 ? (REAL)1 : product < -1 ? (REAL)-1 : product;
  pair.sine = NAME(pair_root)(1 - pair.cosine * pair.cosine + tau);
  pair.wanted_cosine = own.cosine * cosine + own.sine * sine;
  pair.wanted_sine = across < 0 ? -across : across;
  return pair;
}

/* x [n] products q_i . z_j become exponents; adds up positives, their cosines, and the largest exponent. */
VECTORISED
static void NAME(exponents)(int64_t n, struct NAME(angle) own, REAL shift, REAL inverse_t, REAL tau,
                            const REAL *restrict inverse, const REAL *restrict label, const REAL *restrict cosine,
                            const REAL *restrict sine, REAL *restrict x, struct accon_sums *sums) {
  double similarity = 0;
  int positives = 0;
  REAL largest = -(REAL)INFINITY;
#pragma omp simd reduction(+ : similarity, positives) reduction(max : largest)
  for (int64_t j = 0; j < n; j++) {
    struct NAME(pair_angles) pair = NAME(pair_angles_of)(x[j] * inverse[j], tau, own, cosine[j], sine[j]);
    int same = label[j] == own.label;
    REAL pull = (pair.cosine - shift) * inverse_t;
    REAL push = -(pair.cosine * pair.wanted_cosine + pair.sine * pair.wanted_sine) * inverse_t;
    x[j] = same ? pull : push;
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

/* The row's share of both sides of a pair: see accon.c. */
struct NAME(scales) {
  REAL pull, push, subtract;
};

/* x [n] products become H_ij / |z_j|. */
VECTORISED
static void NAME(coefficients)(int64_t n, struct NAME(angle) own, struct NAME(scales) scales, REAL inverse_t, REAL tau,
                               const REAL *restrict inverse, const REAL *restrict label, const REAL *restrict cosine,
                               const REAL *restrict sine, const REAL *restrict pull, const REAL *restrict push,
                               const REAL *restrict subtract, REAL *restrict x) {
#pragma omp simd
  for (int64_t j = 0; j < n; j++) {
    struct NAME(pair_angles) pair = NAME(pair_angles_of)(x[j] * inverse[j], tau, own, cosine[j], sine[j]);
    int same = label[j] == own.label;
    REAL exponent =
        (same ? pair.cosine : -(pair.cosine * pair.wanted_cosine + pair.sine * pair.wanted_sine)) * inverse_t;
    REAL weight = NAME(pair_exp)(exponent + (same ? scales.pull : scales.push)) +
                  NAME(pair_exp)(exponent + (same ? pull[j] : push[j]));
    REAL slope = pair.cosine / pair.sine * pair.wanted_sine - pair.wanted_cosine;
    x[j] = (same ? weight - (scales.subtract + subtract[j]) : weight * slope) * inverse[j];
  }
}

/* sum += factor row */
VECTORISED
static void NAME(add_scaled)(int64_t n, REAL factor, const REAL *restrict row, REAL *restrict sum) {
#pragma omp simd
  for (int64_t k = 0; k < n; k++)
    sum[k] += factor * row[k];
}

static struct NAME(angle) NAME(angle_of)(const struct accon *accon, int64_t row) {
  return (struct NAME(angle)){((const REAL *)accon->label)[row], ((const REAL *)accon->cosine)[row],
                              ((const REAL *)accon->sine)[row]};
}

/* Own row `row`, with its products [rows], which become exponents: its sums. */
static struct accon_sums NAME(sum_row)(const struct accon *accon, int64_t row, void *products) {
  REAL *x = products;
  const struct accon_options *options = &accon->options;
  const REAL *inverse = accon->inverse, *label = accon->label, *cosine = accon->cosine, *sine = accon->sine;
  struct NAME(angle) own = NAME(angle_of)(accon, row);
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
  struct NAME(scales) own = {pull[row], push[row], subtract[row]};
  NAME(coefficients)
  (accon->rows, NAME(angle_of)(accon, row), own, (REAL)(1 / accon->options.temperature), (REAL)accon->options.tau,
   accon->inverse, accon->label, accon->cosine, accon->sine, pull, push, subtract, x);
  x[row] = 0;
}
