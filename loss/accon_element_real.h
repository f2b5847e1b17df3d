/* Included twice by accon_element.h, with REAL = float and double.  Not a header for anyone else: hence no guard. */

/* What a row brings into a pair. */
struct NAME(accon_angle) {
  REAL label, cosine, sine; /* of pi label / R */
};

/* Both angles of a pair. */
struct NAME(accon_pair) {
  REAL cosine, sine;               /* c, s           */
  REAL wanted_cosine, wanted_sine; /* cos a, |sin a| */
};

CONR_PAIR_INLINE struct NAME(accon_pair)
    NAME(accon_pair_of)(REAL product, REAL tau, struct NAME(accon_angle) own, REAL cosine, REAL sine) {
  struct NAME(accon_pair) pair;
  REAL across = own.sine * cosine - own.cosine * sine;
  pair.cosine = product > 1 ? (REAL)1 : product < -1 ? (REAL)-1 : product;
  pair.sine = NAME(pair_root)(1 - pair.cosine * pair.cosine + tau);
  pair.wanted_cosine = own.cosine * cosine + own.sine * sine;
  pair.wanted_sine = across < 0 ? -across : across;
  return pair;
}

/* g, the exponent of a negative. */
CONR_PAIR_INLINE REAL NAME(accon_push)(struct NAME(accon_pair) pair, REAL inverse_t) {
  return -(pair.cosine * pair.wanted_cosine + pair.sine * pair.wanted_sine) * inverse_t;
}

/* A row's share of both sides of a pair: see accon.c. */
struct NAME(accon_scales) {
  REAL pull, push, subtract;
};

/* H */
CONR_PAIR_INLINE REAL NAME(accon_coefficient)(struct NAME(accon_pair) pair, int same, struct NAME(accon_scales) row,
                                              struct NAME(accon_scales) column, REAL inverse_t) {
  REAL exponent = same ? pair.cosine * inverse_t : NAME(accon_push)(pair, inverse_t);
  REAL weight = NAME(pair_exp)(exponent + (same ? row.pull : row.push)) +
                NAME(pair_exp)(exponent + (same ? column.pull : column.push));
  REAL slope = pair.cosine / pair.sine * pair.wanted_sine - pair.wanted_cosine;
  return same ? weight - (row.subtract + column.subtract) : weight * slope;
}
