/* Where this program lies, and what it is. */
#ifndef CONR_DIST_PROGRAM_H
#define CONR_DIST_PROGRAM_H

#include <limits.h>
#include <stddef.h>

/* Its path, with links followed; "conr" where the system does not tell.  Returns `path`. */
const char *program_path(char path[PATH_MAX]);

/* "conr 402a71838966, libconr-cuda.so 09c1...": the executable and every libconr that is loaded by now, each with the
 * build id by which the linker marked its content, shortened to 16 digits; the file's size where there is none.  Equal
 * on two hosts that run the same program, however it was stripped or copied.  Local; returns `text` [bytes]. */
const char *program_builds(char *text, size_t bytes);

#endif
