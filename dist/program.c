/* The path of the running program. */
#include "dist/program.h"

#include <string.h>
#include <unistd.h>

const char *program_path(char path[PATH_MAX]) {
  ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - 1);
  path[length > 0 ? length : 0] = '\0';
  return length > 0 ? path : strcpy(path, "conr");
}
