/* Training on a device step by step: stored runs, and N ranks against one.  On the emulated CUDA backend (tests/emulate), or on a
 * GPU where CONR_TEST_DEVICE=cuda says so. */
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64];

static void begin(void) {
  const char *wanted = getenv("CONR_TEST_DEVICE");
  char path[RUN_PATH_BYTES];
  if (wanted == NULL || strcmp(wanted, "cuda") != 0) {
    if (access(run_build_path("libconr-cuda-emulated.so", path), R_OK) != 0)
      cr_skip("the emulated CUDA backend is not built: no CUDA headers");
    setenv("CONR_CUDA_LIBRARY", path, 1);
    setenv("EMULATED_CUDA_DEVICES", "1", 1);
  }
  strcpy(folder, "/tmp/conr-device-XXXXXX");
  cr_assert(ne(ptr, mkdtemp(folder), NULL));
}

static void end(void) {
  char command[128];
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  cr_assert(eq(int, system(command), 0));
}

TestSuite(device_train, .init = begin, .fini = end, .timeout = 600);

static void agrees(int ranks, const char *program, const char *const *arguments) {
  struct run_result run;
  int status = run_ranks_within(280, ranks, program, arguments, &run);
  cr_assert(eq(int, status, 0), "%s on %d ranks:\n%s", program, ranks, run.output);
  const char *line = strstr(run.output, "golden ");
  if (line != NULL && ranks == 1)
    printf("%.*s\n", (int)strcspn(line, "\n"), line);
  run_result_free(&run);
}

Test(device_train, follows_the_stored_runs) {
  const char *const arguments[] = {folder, "cuda", NULL};
  agrees(1, "rank_trajectory", arguments);
  agrees(3, "rank_trajectory", arguments); /* MPI through host memory */
}

Test(device_train, n_ranks_equal_one_rank) {
  char data[128], conr[RUN_PATH_BYTES];
  snprintf(data, sizeof data, "%s/abalone.h5", folder);
  char *const import[] = {run_build_path("conr", conr),
                          "import",
                          "tests/data/abalone.csv",
                          "--target",
                          "Rings",
                          "--split-column",
                          "split",
                          "-o",
                          data,
                          "--quiet",
                          NULL};
  struct run_result run;
  cr_assert(eq(int, run_command(import, 30, &run), 0), "%s", run.output);
  run_result_free(&run);
  const char *const arguments[] = {data,     folder,        "--epochs", "1",        "--hidden",  "16,8", "--conr",
                                   "--clip", "5",           "--batch",  "130",      "--dropout", "0.2",  "--lr",
                                   "0.002",  "--optimiser", "sgd",      "--device", "cuda",      NULL};
  agrees(2, "rank_train", arguments); /* MPI through host memory */
  if (getenv("EMULATED_CUDA_DEVICES") != NULL)
    setenv("EMULATED_CUDA_DEVICES", "4", 1); /* NCCL */
  else if (access("/dev/nvidia3", F_OK) != 0)
    return; /* four real GPUs are not there: done */
  agrees(4, "rank_train", arguments);
}
