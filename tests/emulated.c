/* Where the emulated CUDA backend lies. */
#include "tests/emulated.h"

#include "tests/run_ranks.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool emulated_use(void) {
  char path[RUN_PATH_BYTES];
  if (getenv("CONR_CUDA_LIBRARY") != NULL)
    return true;
  return access(run_build_path("libconr-cuda-emulated.so", path), R_OK) == 0 &&
         setenv("CONR_CUDA_LIBRARY", path, 1) == 0;
}

bool gpu_use(void) {
  const char *wanted = getenv("CONR_TEST_DEVICE");
  return (wanted != NULL && strcmp(wanted, "cuda") == 0) || emulated_use();
}
