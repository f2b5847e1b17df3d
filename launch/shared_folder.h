/* Where the program finds the files that come with it.  Local. */
#ifndef CONR_LAUNCH_SHARED_FOLDER_H
#define CONR_LAUNCH_SHARED_FOLDER_H

#include "dist/status.h"

#include <limits.h>

/* The folder `name`, such as "recipes": the one that the environment variable names, else beside the program, in
 * ../share/conr where it is installed, in ../launch where it is built.  ERR_FILE when there is none. */
enum status shared_folder(const char *name, const char *variable, char folder[PATH_MAX]);

#endif
