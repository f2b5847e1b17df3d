/* Training on a device step by step: stored runs, and N ranks against one.  On the emulated CUDA backend
 * (tests/emulate), or on a GPU where CONR_TEST_DEVICE=cuda says so. */
#include "tests/abalone.h"
#include "tests/emulated.h"
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64];

static void begin(void) {
  if (!gpu_use())
    cr_skip("there is no emulated CUDA library");
  strcpy(folder, "/tmp/conr-device-XXXXXX");
  cr_assert(ne(ptr, mkdtemp(folder), NULL));
  if (getenv("CONR_TEST_DEVICE") == NULL)
    setenv("EMULATED_NCCL_FOLDER", folder, 1);
}

static void end(void) {
  char command[128];
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  cr_assert(eq(int, system(command), 0));
}

TestSuite(device_train, .init = begin, .fini = end, .timeout = 1800);

static void agrees(int ranks, const char *program, const char *const *arguments) {
  struct run_result run;
  int status = run_ranks_within(600, ranks, program, arguments, &run);
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

/* Float32 alone, so the step is kept free of edges, where rounding decides (see rank_train.c): gelu, MSE, and a window
 * that holds all differences of predictions. */
Test(device_train, n_ranks_equal_one_rank) {
  const char *data = abalone_table(folder);
  const char *const arguments[] = {
      data,       folder, "--epochs", "1",           "--hidden", "16,8",     "--activation", "gelu", "--conr",
      "--conr-w", "6",    "--loss",   "mse",         "--clip",   "5",        "--batch",      "130",  "--dropout",
      "0.2",      "--lr", "0.002",    "--optimiser", "sgd",      "--device", "cuda",         NULL};
  enum { WORDS = sizeof arguments / sizeof *arguments };
  const char *in_pieces[WORDS + 2]; /* whose rows travel one piece after the other */
  memcpy(in_pieces, arguments, sizeof arguments);
  in_pieces[WORDS - 1] = "--micro-batch";
  in_pieces[WORDS] = "20";
  in_pieces[WORDS + 1] = NULL;
  agrees(2, "rank_train", arguments); /* MPI through host memory */
  agrees(3, "rank_train", in_pieces);
  if (getenv("CONR_TEST_DEVICE") == NULL)
    setenv("EMULATED_CUDA_DEVICES", "4", 1); /* NCCL */
  else if (access("/dev/nvidia3", F_OK) != 0)
    return; /* four real GPUs are not there: done */
  agrees(4, "rank_train", arguments);
  agrees(3, "rank_train", in_pieces);
}
