/* Where this program lies. */
#ifndef CONR_DIST_PROGRAM_H
#define CONR_DIST_PROGRAM_H

#include <limits.h>

/* Its path, with links followed; "conr" where the system does not tell.  Returns `path`. */
const char *program_path(char path[PATH_MAX]);

#endif
