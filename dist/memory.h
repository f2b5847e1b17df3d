/* Host memory, counted: a test ends by asserting that nothing is left, and the
 * loss's peak is a figure, not a guess.
 *
 *     float *panel;
 *     TRY(memory_alloc(rows * columns * sizeof *panel, (void **)&panel));
 *     ...
 *     memory_free((void **)&panel);
 *
 * Thread-safe.  Blocks are 64-byte aligned (vector loads, cache lines) and not zeroed
 * unless asked for. */
#ifndef CONR_DIST_MEMORY_H
#define CONR_DIST_MEMORY_H

#include "dist/status.h"

#include <stddef.h>

/* Allocate `bytes` (0 gives a valid, empty block).  ERR_MEMORY names the size. */
enum status memory_alloc(size_t bytes, void **out);

/* The same, filled with zeros. */
enum status memory_alloc_zero(size_t bytes, void **out);

/* Free *block and set it to NULL; NULL is fine. */
void memory_free(void **block);

/* Bytes in use now, and the most that were in use since the last memory_peak_reset(). */
size_t memory_in_use(void);
size_t memory_peak(void);
void memory_peak_reset(void);

#endif
