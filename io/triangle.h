/* One direction of the antialiased triangle filter: its weights, and the sums of rows and of columns.
 *
 *     struct triangle triangle = {0};
 *     TRY(triangle_create(224, &triangle));
 *     TRY(triangle_weigh(&triangle, 256));                       anew only when the length of the source changes
 *     triangle_filters()->right(&triangle, ...);
 *     triangle_destroy(&triangle);
 *
 * A weight is an integer of 22 bits (1 = 2^22), kept as high * 2^11 + low: products of 16 bits, which all machines with
 * vectors add in pairs, then give the exact sum.  A sum is rounded to 8 bits. */
#ifndef CONR_IO_TRIANGLE_H
#define CONR_IO_TRIANGLE_H

#include "dist/status.h"

#include <stddef.h>
#include <stdint.h>

/* The weights of two neighbours. */
struct triangle_pair {
  int16_t high[2], low[2];
};

/* Result i is the sum over pairs[i] pairs of pixels, from first[i] on.  A last weight of 0 may stand for a pixel beyond
 * the end. */
struct triangle {
  int from, to;                  /* pixels; from = 0: not weighed yet */
  int most_pairs;                /* that a result has room for        */
  int *first, *pairs;            /* [to]                              */
  struct triangle_pair *weights; /* [to, most_pairs]                  */
  size_t room;                   /* bytes of weights                  */
};

enum status triangle_create(int to, struct triangle *out);
enum status triangle_weigh(struct triangle *triangle, int from);
void triangle_destroy(struct triangle *triangle);

/* So many rows are filtered at once; so many bytes past its end can be read of a row and written of a result. */
#define TRIANGLE_ROWS 4
#define TRIANGLE_SLACK 32

/* The machine's sums: all give the same bits.
 * right  results first, first + step, ... (`count` of them, of 3 channels each), of several rows
 * down   out[j], j < bytes: the sum over `pairs` pairs of rows, rows[2 * pairs]; out has no slack */
struct triangle_filters {
  void (*right)(const struct triangle *triangle, int first, int step, int count,
                const uint8_t *const rows[TRIANGLE_ROWS], uint8_t *const out[TRIANGLE_ROWS]);
  void (*down)(const struct triangle_pair *weights, int pairs, const uint8_t *const *rows, size_t bytes, uint8_t *out);
};
const struct triangle_filters *triangle_filters(void);

/* In plain C, for any machine. */
extern const struct triangle_filters triangle_filters_plain;

#endif
