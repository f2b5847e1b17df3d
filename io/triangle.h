/* One direction of the antialiased triangle filter: its weights, and the sums of rows and of columns.
 *
 *     struct triangle triangle;
 *     TRY(triangle_create(224, 1, &triangle));
 *     TRY(triangle_weigh(&triangle, 256));                       anew only when the length of the source changes
 *     triangle_filters()->right(&triangle, ...);
 *     triangle_destroy(&triangle);
 *
 * A weight is an integer of 16 bits, 1 = 2^bits: most machines multiply such numbers and add the products in pairs with
 * one instruction.  `bits` is the most that the largest weight leaves room for: 14 where a result is a pixel as it was,
 * 15 from a small reduction on, more for larger ones.  The weights of a result sum to 1 exactly, so that one colour
 * stays that colour.
 *
 * A sum is exact, and rounded to 8 bits.  A weight is off by half a unit at most; the largest one of a result takes
 * what the n others lack, n / 2 units at most.  All errors together are zero, so that pixels count by their distance
 * from 127.5: a result is off the filter in real numbers by 1/2 from its own rounding and by no more than n * 255 /
 * 2^(bits + 1) from its n weights, 1/85 of a level for 3 weights of 15 bits. */
#ifndef CONR_IO_TRIANGLE_H
#define CONR_IO_TRIANGLE_H

#include "dist/status.h"

#include <stddef.h>
#include <stdint.h>

/* The weights of two neighbours. */
struct triangle_pair {
  int16_t weight[2];
};

/* Result i is the sum over pairs[i] pairs of pixels, from first[i] on.  A first or last weight of 0 may stand for a
 * pixel that is not needed, the last also for one beyond the end. */
struct triangle {
  int from, to;                  /* pixels; from = 0: not weighed yet                  */
  int grid;                      /* first[i] is a multiple of this: 1 or 2             */
  int bits;                      /* 14 to 23                                           */
  int most_pairs;                /* of a result; 2 at least                            */
  int *first, *pairs;            /* [to]                                               */
  struct triangle_pair *weights; /* [to, most_pairs], 0 beyond the pairs of a result   */
  double *shares;                /* the same before rounding                           */
  size_t room;                   /* pairs                                              */
};

enum status triangle_create(int to, int grid, struct triangle *out);
enum status triangle_weigh(struct triangle *triangle, int from);
void triangle_destroy(struct triangle *triangle);

/* Rows are filtered four at a time, and laid down as two pairs of rows: value j of both beside each other, in 16 bits.
 * So many bytes past its end can be read of a source row, and read and written of a pair of rows. */
#define TRIANGLE_ROWS 4
#define TRIANGLE_SLACK 32
#define TRIANGLE_PAIR_SLACK 128

/* The machine's sums: all give the same bits.
 * right  results first, first + step, ... (`count` of them, of 3 channels each), of four rows; out[k] has rows 2k and
 *        2k + 1, [3 * count, 2]
 * down   out[j], j < values: result i of columns; the triangle's grid is 2, its pairs of rows are rows[pairs[i]].  out
 *        has no slack */
struct triangle_filters {
  void (*right)(const struct triangle *triangle, int first, int step, int count,
                const uint8_t *const rows[TRIANGLE_ROWS], int16_t *const out[TRIANGLE_ROWS / 2]);
  void (*down)(const struct triangle *triangle, int i, const int16_t *const *rows, size_t values, uint8_t *out);
};
const struct triangle_filters *triangle_filters(void);

/* For any machine: C with the compiler's vectors of 16 bytes. */
extern const struct triangle_filters triangle_filters_plain;

#endif
