/* The shipped table for tests that train. */
#include "tests/abalone.h"

#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>

const char *abalone_table(const char *folder) {
  static char path[256];
  char conr[RUN_PATH_BYTES];
  snprintf(path, sizeof path, "%s/abalone.h5", folder);
  char *const import[] = {run_build_path("conr", conr),
                          "import",
                          "tests/data/abalone.csv",
                          "--target",
                          "Rings",
                          "--split-column",
                          "split",
                          "-o",
                          path,
                          "--quiet",
                          NULL};
  struct run_result run;
  cr_assert(eq(int, run_command(import, 60, &run), 0), "%s", run.output);
  run_result_free(&run);
  return path;
}
