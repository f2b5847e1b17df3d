/* Where the emulated CUDA backend lies. */
#include "tests/emulated.h"

#include "tests/run_ranks.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const variables[] = {"EMULATED_CUDA_DEVICES", "EMULATED_CUDA_MEMORY",   "EMULATED_CUDA_EAGER",
                                        "EMULATED_CUDA_OPEN",    "EMULATED_CUDA_FAULT",    "EMULATED_CUDA_UNKEPT",
                                        "EMULATED_NCCL_FOLDER",  "EMULATED_NCCL_HANG",     "EMULATED_NCCL_ERROR",
                                        "EMULATED_NCCL_ABORT",   "EMULATED_NVJPEG_REFUSE", "EMULATED_NVJPEG_BLIND",
                                        "EMULATED_NVJPEG_ALLOC", "EMULATED_NVJPEG_FAIL"};

static bool wants_gpu(void) {
  const char *wanted = getenv("CONR_TEST_DEVICE");
  return wanted != NULL && strcmp(wanted, "cuda") == 0;
}

bool emulated_use(void) {
  static bool begun; /* what a test has set meanwhile stays */
  char path[RUN_PATH_BYTES];
  if (wants_gpu() || access(run_build_path("libconr-cuda-emulated.so", path), R_OK) != 0)
    return false;
  for (size_t i = 0; i < sizeof variables / sizeof *variables && !begun; i++)
    unsetenv(variables[i]);
  begun = true;
  return setenv("CONR_CUDA_LIBRARY", path, 1) == 0;
}

bool emulated_nvjpeg_use(void) {
  char path[RUN_PATH_BYTES];
  return emulated_use() && access(run_build_path("libnvjpeg-emulated.so", path), R_OK) == 0 &&
         setenv("CONR_NVJPEG_LIBRARY", path, 1) == 0;
}

bool gpu_use(void) {
  return wants_gpu() || emulated_use();
}
