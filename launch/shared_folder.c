#include "launch/shared_folder.h"

#include "dist/program.h"

#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum status shared_folder(const char *name, const char *variable, char folder[PATH_MAX]) {
  static const char *const places[] = {"../share/conr", "../launch"};
  const char *wanted = getenv(variable);
  char program[PATH_MAX];
  if (wanted != NULL) {
    int written = snprintf(folder, PATH_MAX, "%s", wanted);
    REQUIRE(written < PATH_MAX, ERR_FILE, "the path in %s is too long", variable);
    return STATUS_OK;
  }
  program_path(program);
  const char *beside = dirname(program);
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    int written = snprintf(folder, PATH_MAX, "%s/%s/%s", beside, places[i], name);
    if (written < PATH_MAX && access(folder, R_OK | X_OK) == 0)
      return STATUS_OK;
  }
  return fail(ERR_FILE, "there is no folder \"%s\" beside the program; name it in the environment variable %s", name,
              variable);
}
