/* Similarities of features by sums of unit rows. */
#include "launch/similarity.h"

#include "dist/memory.h"

#include <math.h>

static double *row_of(const struct similarity *similarity, int b) {
  return similarity->sums + (size_t)b * (size_t)(similarity->width + 1);
}

enum status similarity_create(const struct label_axis *axis, int64_t width, struct similarity **out) {
  struct similarity *similarity;
  *out = NULL;
  TRY(memory_alloc_zero(sizeof *similarity, (void **)&similarity));
  similarity->axis = *axis;
  similarity->width = width;
  enum status status = memory_alloc_zero((size_t)axis->count * (size_t)(width + 1) * sizeof *similarity->sums,
                                         (void **)&similarity->sums);
  if (status == STATUS_OK)
    *out = similarity;
  else
    similarity_destroy(&similarity);
  return status;
}

void similarity_destroy(struct similarity **similarity) {
  if (*similarity == NULL)
    return;
  memory_free((void **)&(*similarity)->sums);
  memory_free((void **)similarity);
}

void similarity_add(struct similarity *similarity, double label, enum dtype dtype, const void *features) {
  int b = label_axis_index(&similarity->axis, label);
  double squares = 0;
  for (int64_t f = 0; f < similarity->width; f++)
    squares += dtype_get(dtype, features, f) * dtype_get(dtype, features, f);
  double norm = sqrt(squares);
  if (b < 0 || !(norm > 1e-12) || !isfinite(norm)) {
    similarity->without++;
    return;
  }
  double *row = row_of(similarity, b);
  for (int64_t f = 0; f < similarity->width; f++)
    row[f] += dtype_get(dtype, features, f) / norm;
  row[similarity->width]++;
}

enum status similarity_reduce(struct similarity *similarity, struct comm *comm) {
  TRY(comm_sum(comm, F64, &similarity->without, 1));
  return comm_sum(comm, F64, similarity->sums, (size_t)similarity->axis.count * (size_t)(similarity->width + 1));
}

/* The sum over the pairs of two bins, and their number. */
static double pairs_of(const struct similarity *similarity, int a, int b, double *pairs) {
  const double *one = row_of(similarity, a), *other = row_of(similarity, b);
  double n = one[similarity->width], m = other[similarity->width], sum = 0;
  for (int64_t f = 0; f < similarity->width; f++)
    sum += one[f] * other[f];
  *pairs = a == b ? n * (n - 1) / 2 : n * m;
  return a == b ? (sum - n) / 2 : sum;
}

void similarity_map(const struct similarity *similarity, double *values, double *pairs) {
  int bins = similarity->axis.count;
  for (int a = 0; a < bins; a++)
    for (int b = 0; b < bins; b++) {
      double *count = &pairs[(size_t)a * (size_t)bins + (size_t)b];
      double sum = pairs_of(similarity, a, b, count);
      values[(size_t)a * (size_t)bins + (size_t)b] = *count > 0 ? sum / *count : NAN;
    }
}

void similarity_by_distance(const struct similarity *similarity, double *values, double *pairs) {
  int bins = similarity->axis.count;
  for (int distance = 0; distance < bins; distance++) {
    double sum = 0;
    pairs[distance] = 0;
    for (int a = 0; a + distance < bins; a++) {
      double count;
      sum += pairs_of(similarity, a, a + distance, &count);
      pairs[distance] += count;
    }
    values[distance] = pairs[distance] > 0 ? sum / pairs[distance] : NAN;
  }
}
