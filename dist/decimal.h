/* Numbers as people read them, which give the same number back. */
#ifndef CONR_DIST_DECIMAL_H
#define CONR_DIST_DECIMAL_H

#include <stddef.h>

#define DECIMAL_BYTES 32

/* The shortest decimal that reads back as the same double: 0.7, not 0.69999999999999996.  Returns `text`. */
const char *decimal_text(double value, char text[DECIMAL_BYTES]);

#endif
