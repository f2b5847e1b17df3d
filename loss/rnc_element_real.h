/* Included twice by rnc_element.h, with REAL = float and double.  Not a header for anyone else: hence no guard. */

struct NAME(rnc_pair) {
  REAL distance;
  int near; /* it has lost digits */
};

/* squares: |a|^2 + |b|^2 about the mean; product: a . b; reach: |a| times the length of what a was multiplied by. */
CONR_PAIR_INLINE struct NAME(rnc_pair) NAME(rnc_pair_of)(REAL squares, REAL product, REAL reach) {
  struct NAME(rnc_pair) pair;
  REAL d2 = squares - 2 * product;
  pair.near = d2 < (REAL)RNC_NEAR * (squares + 2 * reach);
  pair.distance = NAME(pair_root)(d2 < 0 ? (REAL)0 : d2); /* NaN stays */
  return pair;
}

/* Of the exponential that is 1 for the row's nearest; above 0 for the row itself alone, which does not count. */
CONR_PAIR_INLINE REAL NAME(rnc_exponent)(REAL nearest, REAL distance, REAL inverse_t) {
  REAL exponent = (nearest - distance) * inverse_t;
  return exponent < 0 ? exponent : (REAL)0;
}

/* What multiplies the difference of two rows in their gradients; g as in rnc.h, scale what all have in common. */
CONR_PAIR_INLINE REAL NAME(rnc_coefficient)(REAL g, REAL distance, REAL scale) {
  return distance > (REAL)RNC_COINCIDE ? scale * g / distance : (REAL)0;
}
