/* The weights of one result of the triangle filter (triangle.h), shared by the host and CUDA: where it begins, its shares
 * in real numbers, and those rounded. */
#ifndef CONR_IO_TRIANGLE_WEIGHTS_H
#define CONR_IO_TRIANGLE_WEIGHTS_H

#include "io/inline.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

/* 255 * 2^23 and a half are the most that a sum of 32 bits holds. */
#define TRIANGLE_MOST_BITS 23

/* From `from` pixels to `to`; first pixels are multiples of `grid` (struct triangle). */
struct triangle_lengths {
  int from, to, grid;
};

/* The triangle over result i. */
struct triangle_tent {
  double center, half_width, slope; /* slope: height lost with each pixel */
};

IO_INLINE struct triangle_tent triangle_pitch(int from, int to, int i) {
  double scale = (double)from / to, half_width = scale > 1 ? scale : 1;
  struct triangle_tent tent = {(i + 0.5) * scale, half_width, 1 / half_width};
  return tent;
}

IO_INLINE double triangle_height(const struct triangle_tent *tent, int pixel) {
  double height = 1 - fabs(pixel - tent->center + 0.5) * tent->slope;
  return height > 0 ? height : 0;
}

/* No result has more pairs: a triangle covers twice its half width, rounding adds a pixel, and the grid one less than
 * itself. */
IO_INLINE int triangle_pairs_bound(struct triangle_lengths lengths) {
  int twice = lengths.from > lengths.to ? (2 * lengths.from + lengths.to - 1) / lengths.to : 2;
  return (twice + 1 + lengths.grid) / 2;
}

/* Where result i begins and how many pairs it has: what rounds to no weight at either end is left out. */
IO_INLINE void triangle_place(struct triangle_lengths lengths, int i, int *first_out, int *pairs) {
  const double nothing = 0.25 / (1 << TRIANGLE_MOST_BITS);
  struct triangle_tent tent = triangle_pitch(lengths.from, lengths.to, i);
  int first = (int)(tent.center - tent.half_width + 0.5), end = (int)(tent.center + tent.half_width + 0.5);
  first = first > 0 ? first : 0;
  end = end < lengths.from ? end : lengths.from;
  while (first + 1 < end && triangle_height(&tent, first) < nothing)
    first++;
  while (first + 1 < end && triangle_height(&tent, end - 1) < nothing)
    end--;
  *first_out = first / lengths.grid * lengths.grid;
  *pairs = (end - *first_out + 1) / 2;
}

/* The weights of result i in real numbers, of which `count`, 2 a pair at least, are filled; gives the largest. */
IO_INLINE double triangle_shares(struct triangle_lengths lengths, int i, int first, int pairs, int count,
                                 double *shares) {
  struct triangle_tent tent = triangle_pitch(lengths.from, lengths.to, i);
  int used = 2 * pairs, present = lengths.from - first;
  double sum = 0, largest = 0;
  for (int k = 0; k < count; k++) {
    shares[k] = k < used && k < present ? triangle_height(&tent, first + k) : 0;
    sum += shares[k];
  }
  for (int k = 0; k < used; k++) {
    shares[k] /= sum;
    largest = shares[k] > largest ? shares[k] : largest;
  }
  return largest;
}

/* Can weights of so many bits hold the largest of all shares? */
IO_INLINE bool triangle_bits_fit(double largest, int bits) {
  return ldexp(largest, bits) < INT16_MAX + 0.5;
}

/* Rounds the weights of a result; the largest takes what is missing to 1.  False = it does not fit. */
IO_INLINE bool triangle_round(const double *shares, int count, int bits, int16_t *weights) {
  int32_t unit = 1 << bits, missing = unit, largest = 0;
  for (int k = 0; k < count; k++) {
    int32_t weight = (int32_t)(0.5 + shares[k] * unit);
    if (weight > INT16_MAX)
      return false;
    weights[k] = (int16_t)weight;
    missing -= weight;
    largest = weight > weights[largest] ? k : largest;
  }
  if (weights[largest] + missing > INT16_MAX)
    return false;
  weights[largest] = (int16_t)(weights[largest] + missing);
  return true;
}

#endif
