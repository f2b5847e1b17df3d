/* Random and constant numbers for buffers in host memory: what networks start from.
 *
 * A number depends on its key and place alone; float32 is the rounded float64.  dtype is F32 or F64.  All functions are
 * local. */
#ifndef CONR_MODEL_DRAW_H
#define CONR_MODEL_DRAW_H

#include "dist/dtype.h"
#include "dist/random.h"

#include <stddef.h>

/* x[i] uniform in [-bound, bound), drawn at position i of `key`. */
void draw_uniform(enum dtype dtype, size_t count, struct random_key key, double bound, void *x);

/* x[i] standard normal times deviation, drawn at position i of `key`. */
void draw_normal(enum dtype dtype, size_t count, struct random_key key, double deviation, void *x);

/* x[i] = value. */
void draw_constant(enum dtype dtype, size_t count, double value, void *x);

#endif
