/* The known name closest to a mistyped one, for "did you mean".
 *
 *     const char *near = nearest_name("leraning-rate", names, count);
 *     fail(ERR_ARGUMENT, "unknown option --%s%s%s", wanted, near ? "; did you mean --" : "", near ? near : ""); */
#ifndef CONR_DIST_NEAREST_H
#define CONR_DIST_NEAREST_H

#include <stddef.h>

/* The name with the fewest edits (insert, delete, replace, swap of neighbours; case is free), the first of equals;
 * NULL when none is near: more than a third of the longer name's letters, at least one, would have to change.
 * Local. */
const char *nearest_name(const char *wanted, const char *const *names, size_t count);

#endif
