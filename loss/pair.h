/* The arithmetic of one pair of rows, shared by every backend (C and CUDA).
 *
 * REAL is float or double.  Notation of conr.h; a, k, c are the per-anchor scalars of the
 * closed-form gradient:
 *     u_i = r_i a_i / D_i     v_i = a_i / k_i     x_i = a_i / sum_P exp(s)  (log of mean only)
 *     H_ij = G_ij + G_ji
 *          = P: exp(s) [ (u_i - x_i) + (u_j - x_j) ] - (v_i + v_j)
 *          = N: exp(s) push(d) [ weight_i u_i + weight_j u_j ]
 * with push(d) = (push_constant + push_slope d) exp(push_rate d), so that the exponential push is (1, 0, e) and
 * the depth variant's linear one (0, e, 0).
 *
 * Two ways to keep exp in range.  "Shifted": |s| <= 1/t is known beforehand, so one constant
 * m = 1/t + push_rate * (largest d) is subtracted in every exponent; sums are of exp(s - m).
 * "Wide", when 2/t + push_rate * (largest d) would underflow: per-row maxima and logarithms of the scalars. */
#ifndef CONR_LOSS_PAIR_H
#define CONR_LOSS_PAIR_H

#ifndef CONR_PAIR_INLINE
#define CONR_PAIR_INLINE static inline __attribute__((always_inline))
#endif

/* Label and prediction distances decide; both limits are inclusive.  d or dp = NaN: neither (the row itself). */
#define PAIR_IS_POSITIVE(d, w) ((d) <= (w))
#define PAIR_IS_NEGATIVE(d, dp, w) ((d) > (w) && (dp) <= (w))

/* exp in float32 for x <= 88: degree-6 polynomial on |r| <= ln2/2, error below 2 ulp; exactly 0 below -87.
 * Plain arithmetic, so that a compiler can put it in vector lanes. */
CONR_PAIR_INLINE float pair_exp_f32(float x) {
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
}

#endif
