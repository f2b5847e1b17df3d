/* Included twice by rnc.c, with REAL = float and double.  Not a header for anyone else. */

/* What makes a distance out of a product: of one row's, and of all columns'. */
struct NAME(reach) {
  REAL square, norm, cross; /* |z_i - m|^2, |z_i - m|, (z_i - m) . m */
};

/* x [n] products (z_i - m) . z_j become distances, and near [n] says which have lost digits.
 * square, length [n]: |z_j - m|^2, |z_j| */
VECTORISED
static void NAME(distances)(int64_t n, struct NAME(reach) own, const REAL *restrict square, const REAL *restrict length,
                            REAL *restrict x, unsigned char *restrict near) {
#pragma omp simd
  for (int64_t j = 0; j < n; j++) {
    struct NAME(rnc_pair) pair = NAME(rnc_pair_of)(own.square + square[j], x[j] - own.cross, own.norm * length[j]);
    near[j] = (unsigned char)pair.near;
    x[j] = pair.distance;
  }
}

/* |a - b|^2 from the differences. */
VECTORISED
static double NAME(difference_square)(int64_t n, const REAL *restrict a, const REAL *restrict b) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t k = 0; k < n; k++) {
    double difference = (double)a[k] - (double)b[k];
    sum += difference * difference;
  }
  return sum;
}

/* sum += factor (a - b) */
VECTORISED
static void NAME(add_difference)(int64_t n, double factor, const REAL *restrict a, const REAL *restrict b,
                                 REAL *restrict sum) {
#pragma omp simd
  for (int64_t k = 0; k < n; k++)
    sum[k] += (REAL)(factor * ((double)a[k] - (double)b[k]));
}

/* Smallest and largest of n distances. */
VECTORISED
static void NAME(extremes)(int64_t n, const REAL *restrict d, double *smallest, double *largest) {
  REAL low = (REAL)INFINITY, high = 0;
#pragma omp simd reduction(min : low) reduction(max : high)
  for (int64_t j = 0; j < n; j++) {
    low = d[j] < low ? d[j] : low;
    high = d[j] > high ? d[j] : high;
  }
  *smallest = (double)low;
  *largest = (double)high;
}

/* e [n] = exp((nearest - d) / t); returns the sum of d. */
VECTORISED
static double NAME(exponentials)(int64_t n, const REAL *restrict d, REAL nearest, REAL inverse_t, REAL *restrict e) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; j++) {
    e[j] = NAME(pair_exp)(NAME(rnc_exponent)(nearest, d[j], inverse_t));
    sum += (double)d[j];
  }
  return sum;
}

/* d [n] becomes scale g / d, with g = e slope[label of the column] - 1; returns the sum. */
VECTORISED
static double NAME(coefficients)(int64_t n, const REAL *restrict e, const REAL *restrict slope,
                                 const int32_t *restrict label, REAL scale, REAL *restrict d) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; j++) {
    d[j] = NAME(rnc_coefficient)(e[j] * slope[label[j]] - 1, d[j], scale);
    sum += (double)d[j];
  }
  return sum;
}

/* sum [n] += row */
VECTORISED
static void NAME(add_to_sums)(int64_t n, const REAL *restrict row, double *restrict sum) {
#pragma omp simd
  for (int64_t j = 0; j < n; j++)
    sum[j] += (double)row[j];
}

/* Returns |z - m|^2, and (z - m) . m and |z|^2 through pointers; the differences are rounded to REAL. */
VECTORISED
static double NAME(about_mean)(int64_t n, const REAL *restrict z, const REAL *restrict m, double *cross,
                               double *square) {
  double sum = 0, along = 0, whole = 0;
#pragma omp simd reduction(+ : sum, along, whole)
  for (int64_t k = 0; k < n; k++) {
    REAL centred = z[k] - m[k];
    sum += (double)centred * (double)centred;
    along += (double)centred * (double)m[k];
    whole += (double)z[k] * (double)z[k];
  }
  *cross = along;
  *square = whole;
  return sum;
}

/* grad -= factor z */
VECTORISED
static void NAME(subtract_scaled)(int64_t n, double factor, const REAL *restrict z, REAL *restrict grad) {
#pragma omp simd
  for (int64_t k = 0; k < n; k++)
    grad[k] -= (REAL)(factor * (double)z[k]);
}

/* ---- one own row ---- */

/* Products of own row `row`, at `place` of the panel, become distances.  Returns how many other columns are near: these
 * are measured, and marked. */
static int NAME(measure_row)(const struct rnc *rnc, const REAL *z, int64_t row, int place, REAL *x,
                             unsigned char *near) {
  const REAL *square = rnc->square;
  struct NAME(reach) own = {square[row], NAME(pair_root)(square[row]), (REAL)rnc->cross[place]};
  int64_t rows = rnc->rows, features = rnc->features;
  int count = 0;
  NAME(distances)(rows, own, square, rnc->length, x, near);
  x[row] = 0;
  near[row] = 0;
  for (int64_t j = next_near(near, 0, rows); j < rows; j = next_near(near, j + 1, rows), count++)
    x[j] = (REAL)sqrt(NAME(difference_square)(features, z + row * features, z + j * features));
  return count;
}

/* Exponentials with the nearest column's as 1, their sums by label, and slopes.  Returns the row's sum of -s + log Z. */
static double NAME(weigh_row)(const struct rnc *rnc, int64_t row, double nearest, struct rnc_room *room,
                              const REAL *d) {
  double inverse_t = 1 / rnc->options.temperature;
  REAL *e = room->e;
  double sum = NAME(exponentials)(rnc->rows, d, (REAL)nearest, (REAL)inverse_t, e);
  e[row] = 0;
  memset(room->sum, 0, (size_t)rnc->labels * sizeof *room->sum);
  for (int64_t j = 0; j < rnc->rows; j++)
    room->sum[rnc->label_of[j]] += (double)e[j];
  double logarithms = walk_labels(rnc, rnc->label_of[row], room);
  return rnc_value_of(inverse_t, rnc->rows, sum, logarithms, nearest);
}

/* d [rows] becomes scale g / d, from logarithms of everything: distances so unlike that their exponentials do not fit
 * side by side.  Returns the sum; *value the row's sum of -s + log Z. */
static double NAME(weigh_row_wide)(const struct rnc *rnc, int64_t row, double scale, struct rnc_room *room, REAL *d,
                                   double *value) {
  double inverse_t = 1 / rnc->options.temperature, sum = 0, distances = 0;
  for (int64_t label = 0; label < rnc->labels; label++)
    room->sum[label] = -INFINITY;
  for (int64_t j = 0; j < rnc->rows; j++) {
    double *of_label = &room->sum[rnc->label_of[j]];
    distances += (double)d[j];
    *of_label = j == row ? *of_label : rnc_add_logarithms(*of_label, -(double)d[j] * inverse_t);
  }
  *value = distances * inverse_t + walk_labels_wide(rnc, rnc->label_of[row], room);
  for (int64_t j = 0; j < rnc->rows; j++) {
    double g = exp(room->log_slope[rnc->label_of[j]] - (double)d[j] * inverse_t) - 1;
    d[j] = j != row && d[j] > (REAL)RNC_COINCIDE ? (REAL)(scale * g / (double)d[j]) : (REAL)0;
    sum += (double)d[j];
  }
  return sum;
}

/* Row `row` of the tile becomes scale g / distance, and grad its first part, - sum_j of that times z_row; near
 * pairs give all of theirs.  Returns the row's sum of -s + log Z. */
static double NAME(do_row)(const struct rnc *rnc, const struct gathered *gathered, int64_t row, int place, double scale,
                           struct rnc_room *room, void *grad) {
  const REAL *z = gathered->z, *own = z + row * rnc->features;
  int64_t rows = rnc->rows, features = rnc->features;
  REAL *x = (REAL *)rnc->tile + place * rows;
  unsigned char *near = rnc->near + place * rows;
  double nearest, farthest, value, sum;
  rnc->near_count[place] = NAME(measure_row)(rnc, z, row, place, x, near);
  x[row] = x[row > 0 ? 0 : 1]; /* not to be the nearest itself */
  NAME(extremes)(rows, x, &nearest, &farthest);
  x[row] = 0;
  if ((farthest - nearest) / rnc->options.temperature <= (sizeof(REAL) == 4 ? RNC_SPREAD_F32 : RNC_SPREAD_F64)) {
    value = NAME(weigh_row)(rnc, row, nearest, room, x);
    sum = NAME(coefficients)(rows, room->e, room->slope, rnc->label_of, (REAL)scale, x);
  } else
    sum = NAME(weigh_row_wide)(rnc, row, scale, room, x, &value);
  for (int64_t j = next_near(near, 0, rows); rnc->near_count[place] > 0 && j < rows; j = next_near(near, j + 1, rows)) {
    NAME(add_difference)(features, -(double)x[j], own, z + j * features, grad);
    sum -= (double)x[j];
  }
  NAME(subtract_scaled)(features, sum, own, grad);
  return value;
}

/* ---- what a panel does to columns first .. last-1 ---- */

/* Sums of the tile's columns; near pairs give all of theirs to the column and leave the tile.
 * columns  [rows, features] the gradient of columns */
static void NAME(do_columns)(const struct rnc *rnc, const struct gathered *gathered, int64_t panel_first, int count,
                             int64_t first, int64_t last, void *columns) {
  const REAL *z = gathered->z;
  int64_t features = rnc->features;
  for (int place = 0; place < count; place++) {
    REAL *x = (REAL *)rnc->tile + place * rnc->rows;
    const unsigned char *near = rnc->near + place * rnc->rows;
    for (int64_t j = next_near(near, first, last); rnc->near_count[place] > 0 && j < last;
         j = next_near(near, j + 1, last)) {
      NAME(add_difference)
      (features, (double)x[j], z + (panel_first + place) * features, z + j * features, (REAL *)columns + j * features);
      x[j] = 0;
    }
    NAME(add_to_sums)(last - first, x + first, rnc->column_sum + first);
  }
}

/* ---- all rows, before the panels ---- */

/* Mean of all rows, and each row's lengths about it and about 0. */
static void NAME(measure_all)(struct rnc *rnc, const struct gathered *gathered) {
  const REAL *z = gathered->z;
  REAL *mean = rnc->mean, *square = rnc->square, *length = rnc->length;
  int64_t features = rnc->features, rows = rnc->rows;
#pragma omp parallel for schedule(static)
  for (int64_t first = 0; first < features; first += MEAN_BLOCK) {
    double sum[MEAN_BLOCK] = {0};
    int64_t width = features - first < MEAN_BLOCK ? features - first : MEAN_BLOCK;
    for (int64_t i = 0; i < rows; i++)
      for (int64_t k = 0; k < width; k++)
        sum[k] += (double)z[i * features + first + k];
    for (int64_t k = 0; k < width; k++)
      mean[first + k] = (REAL)(sum[k] / (double)rows);
  }
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < rows; i++) {
    double along, whole;
    square[i] = (REAL)NAME(about_mean)(features, z + i * features, mean, &along, &whole);
    length[i] = (REAL)sqrt(whole);
  }
}

/* Own rows first .. first+count-1 about the mean, zeros below them, and their products with it. */
static void NAME(pack_panel)(struct rnc *rnc, const struct gathered *gathered, int64_t first, int count, int height) {
  const REAL *z = (const REAL *)gathered->z + first * rnc->features, *mean = rnc->mean;
  int64_t features = rnc->features;
  REAL *panel = rnc->panel;
#pragma omp parallel for schedule(static)
  for (int i = 0; i < height; i++) {
    double whole;
    for (int64_t k = 0; k < features; k++)
      panel[i * features + k] = i < count ? z[i * features + k] - mean[k] : (REAL)0;
    if (i < count)
      NAME(about_mean)(features, z + i * features, mean, &rnc->cross[i], &whole);
  }
}

/* columns -= sum of the column's coefficients x (z - m) */
static void NAME(close_columns)(const struct rnc *rnc, const struct gathered *gathered, void *columns) {
  const REAL *z = gathered->z, *mean = rnc->mean;
  int64_t features = rnc->features;
#pragma omp parallel for schedule(static)
  for (int64_t j = 0; j < rnc->rows; j++)
    NAME(add_difference)(features, -rnc->column_sum[j], z + j * features, mean, (REAL *)columns + j * features);
}
