/* Files of lines "name = value", in sections or not, with # comments; read by inih, whose traps are covered: lines that
 * it would cut, or take for more of the line above.
 *
 *     static enum status take(void *context, const char *section, const char *name, const char *value) { ... }
 *
 *     TRY(ini_file_read("machine file", path, take, &machine));
 */
#ifndef CONR_LAUNCH_INI_FILE_H
#define CONR_LAUNCH_INI_FILE_H

#include "dist/status.h"

/* Called for each line; section is "" before the first.  What it returns, if it is not STATUS_OK, ends the reading. */
typedef enum status ini_file_take(void *context, const char *section, const char *name, const char *value);

/* what  the kind of file, for sentences: "cannot read WHAT PATH"
 * Local.  ERR_FILE: it cannot be read; ERR_FORMAT: a line is none, or too long; what take() returned: its sentence, with
 * path and number of the line before it. */
enum status ini_file_read(const char *what, const char *path, ini_file_take *take, void *context);

#endif
