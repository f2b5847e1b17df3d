/* Buffers of each element type, filled with numbers that every test can name again.
 *
 *     void *x = buffer_create(dtype, count, 1);          stream 1 of the numbers
 *     ... compute ...
 *     double got = buffer_get(dtype, x, i);
 *     double was = buffer_number(1, i);
 *     free(x);
 *
 * All calls are local. */
#ifndef CONR_TESTS_BUFFERS_H
#define CONR_TESTS_BUFFERS_H

#include "dist/dtype.h"

#include <stdint.h>

/* Number i of a stream: in [-1, 1), with 20 bits, so exact in float32 (not in bfloat16: 8 bits). */
double buffer_number(uint64_t stream, int64_t i);

double buffer_get(enum dtype dtype, const void *data, int64_t i);
void buffer_set(enum dtype dtype, void *data, int64_t i, double value);

/* `count` numbers of a stream; free() it.  0 gives a valid, empty block. */
void *buffer_create(enum dtype dtype, int64_t count, uint64_t stream);

/* The same, with every element `value`. */
void *buffer_filled(enum dtype dtype, int64_t count, double value);

#endif
