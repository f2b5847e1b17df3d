/* The arithmetic of a pair of rows and of a row in ACCon (accon.h has the formulas), shared by the host and CUDA. */
#ifndef CONR_LOSS_ACCON_ELEMENT_H
#define CONR_LOSS_ACCON_ELEMENT_H

#include "loss/pair.h"

/* The options, for kernels. */
struct accon_rule {
  double temperature, base_temperature, range, tau;
  bool consistent;
};

/* --- a pair --------------------------------------------------------------------------------------------------- */

#define REAL float
#define NAME(name) name##_f32
#include "loss/accon_element_real.h"
#undef REAL
#undef NAME

#define REAL double
#define NAME(name) name##_f64
#include "loss/accon_element_real.h"
#undef REAL
#undef NAME

/* --- a row ---------------------------------------------------------------------------------------------------- */

/* The period of an angle is 2 R. */
CONR_PAIR_INLINE double accon_angle_of_label(const struct accon_rule *rule, double label) {
  return fmod(label / rule->range, 2.0) * 3.14159265358979323846;
}

/* 1 / |z|; 0 for a row of norm 0. */
CONR_PAIR_INLINE double accon_inverse(double norm) {
  return norm <= 1e-12 ? 0 : 1 / norm;
}

/* k: the largest cosine of a row is its own. */
CONR_PAIR_INLINE double accon_shift(const struct accon_rule *rule, double inverse) {
  return !rule->consistent && inverse > 0 ? 1 : 0;
}

/* What the row is in the coefficients of its pairs, from its number of positives and log Z; rows: M. */
CONR_PAIR_INLINE struct accon_scales_f64 accon_scales_of(const struct accon_rule *rule, int64_t rows, double inverse,
                                                         double positives, double log_z) {
  double h = 1 / (rule->base_temperature * (double)rows * (positives + rule->tau));
  double push = log(h * positives) - log_z;
  struct accon_scales_f64 scales = {push - accon_shift(rule, inverse) / rule->temperature, push, h};
  return scales;
}

/* The row's part of the value.  similarity: the sum of p over its positives. */
CONR_PAIR_INLINE double accon_value_of(const struct accon_rule *rule, int64_t rows, double similarity, double positives,
                                       double log_z) {
  double mean = (similarity - positives * log_z + rule->tau) / (positives + rule->tau);
  return -rule->temperature / rule->base_temperature * mean / (double)rows;
}

#endif
