/* Included twice by pair.h, with REAL = float and double.  Not a header for anyone else: hence no guard. */

/* The numbers of a rule in REAL. */
struct NAME(pair_numbers) {
  REAL w, shift, push_constant, push_slope, push_rate;
};

CONR_PAIR_INLINE struct NAME(pair_numbers) NAME(pair_numbers_of)(const struct pair_rule *rule) {
  struct NAME(pair_numbers) numbers;
  numbers.w = (REAL)rule->w;
  numbers.shift = (REAL)rule->shift;
  numbers.push_constant = (REAL)rule->push_constant;
  numbers.push_slope = (REAL)rule->push_slope;
  numbers.push_rate = (REAL)rule->push_rate;
  return numbers;
}

/* The distance of values of one component; of several: begin with 0, add each component's difference, end. */
CONR_PAIR_INLINE REAL NAME(pair_size)(REAL difference) {
  return difference < 0 ? -difference : difference;
}

CONR_PAIR_INLINE REAL NAME(pair_distance_add)(enum pair_distance distance, REAL so_far, REAL difference) {
  REAL size = NAME(pair_size)(difference);
  if (distance == PAIR_EUCLIDEAN)
    return so_far + difference * difference;
  if (distance == PAIR_MANHATTAN)
    return so_far + size;
  return size > so_far ? size : so_far;
}

CONR_PAIR_INLINE REAL NAME(pair_distance_end)(enum pair_distance distance, REAL sum) {
  return distance == PAIR_EUCLIDEAN ? NAME(pair_root)(sum) : sum;
}

/* high - low > w, in the very expression of the masks for one component: no pair at the limit is lost by sorting. */
CONR_PAIR_INLINE bool NAME(pair_apart)(REAL high, REAL low, REAL w) {
  return high - low > w;
}

/* What one pair adds to its row's sums, shifted.  s: similarity; d, dp: distances of labels and of predictions; pairs:
 * enum pair_class of the sweep. */
struct NAME(pair_part) {
  int positive, negative;
  REAL similarity, pull, push;
};

CONR_PAIR_INLINE struct NAME(pair_part)
    NAME(pair_part_of)(const struct NAME(pair_numbers) * rule, int pairs, REAL s, REAL d, REAL dp) {
  struct NAME(pair_part) part;
  part.positive = (pairs & PAIRS_POSITIVE) && PAIR_IS_POSITIVE(d, rule->w);
  part.negative = (pairs & PAIRS_NEGATIVE) && PAIR_IS_NEGATIVE(d, dp, rule->w);
  REAL exponent = s - rule->shift + (part.negative ? rule->push_rate * d : (REAL)0);
  REAL value = NAME(pair_exp)(exponent);
  part.similarity = part.positive ? s : (REAL)0;
  part.pull = part.positive ? value : (REAL)0;
  part.push = part.negative ? value * (rule->push_constant + rule->push_slope * d) : (REAL)0;
  return part;
}

/* One pair added to its row's sums, wide: running maxima, in double. */
CONR_PAIR_INLINE void NAME(pair_add_wide)(const struct NAME(pair_numbers) * rule, int pairs, REAL s, REAL d, REAL dp,
                                          struct pair_sums *sums) {
  if ((pairs & PAIRS_POSITIVE) && PAIR_IS_POSITIVE(d, rule->w)) {
    sums->positives++;
    sums->similarity += (double)s;
    pair_add_exponential(&sums->positive, &sums->positive_max, (double)s, 1);
  } else if ((pairs & PAIRS_NEGATIVE) && PAIR_IS_NEGATIVE(d, dp, rule->w)) {
    sums->negatives++;
    pair_add_exponential(&sums->negative, &sums->negative_max, (double)s + (double)rule->push_rate * (double)d,
                         (double)rule->push_constant + (double)rule->push_slope * (double)d);
  }
}

/* H_ij, shifted; the scales are those of both rows, added. */
CONR_PAIR_INLINE REAL NAME(pair_coefficient)(const struct NAME(pair_numbers) * rule, int pairs, REAL s, REAL d, REAL dp,
                                             REAL positive, REAL negative, REAL subtract) {
  int is_positive = (pairs & PAIRS_POSITIVE) && PAIR_IS_POSITIVE(d, rule->w);
  int is_negative = (pairs & PAIRS_NEGATIVE) && PAIR_IS_NEGATIVE(d, dp, rule->w);
  REAL exponent = s - rule->shift + (is_negative ? rule->push_rate * d : (REAL)0);
  REAL value = NAME(pair_exp)(exponent);
  REAL pull = value * positive - subtract;
  REAL push = value * (rule->push_constant + rule->push_slope * d) * negative;
  return is_positive ? pull : is_negative ? push : (REAL)0;
}

/* H_ij, wide; in double, since a logarithm rounded to float32 would be a relative error of the gradient. */
CONR_PAIR_INLINE REAL NAME(pair_coefficient_wide)(const struct NAME(pair_numbers) * rule, int pairs, REAL s, REAL d,
                                                  REAL dp, const struct pair_scales *row,
                                                  const struct pair_scales *column) {
  double exponent = (double)s;
  if ((pairs & PAIRS_POSITIVE) && PAIR_IS_POSITIVE(d, rule->w))
    return (REAL)(exp(exponent + row->positive) + exp(exponent + column->positive) - exp(exponent + row->mean) -
                  exp(exponent + column->mean) - (row->subtract + column->subtract));
  if ((pairs & PAIRS_NEGATIVE) && PAIR_IS_NEGATIVE(d, dp, rule->w)) {
    exponent += (double)rule->push_rate * (double)d;
    return (REAL)((exp(exponent + row->negative) + exp(exponent + column->negative)) *
                  ((double)rule->push_constant + (double)rule->push_slope * (double)d));
  }
  return 0;
}
