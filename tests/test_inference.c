/* A network over a split on 1 to 4 ranks, on the host and on GPUs (or their emulation): tests/ranks/rank_inference.c. */
#include "io_files.h"
#include "io_table.h"
#include "run_ranks.h"
#include "tests/emulated.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>

TestSuite(inference, .init = io_files_begin, .fini = io_files_end, .timeout = 300);

static const char *table_of(int targets) {
  struct io_table table = io_table_plain(100, 3);
  const char *path = io_file(targets == 1 ? "one.h5" : "two.h5");
  table.targets = targets;
  io_table_write(&table, path);
  return path;
}

static void agrees(int ranks, const char *path, const char *device) {
  const char *const arguments[] = {path, device, NULL};
  struct run_result run;
  int status = run_ranks_within(120, ranks, "rank_inference", arguments, &run);
  cr_assert(eq(int, status, 0), "on %d ranks:\n%s", ranks, run.output);
  run_result_free(&run);
}

Test(inference, predictions_and_figures_on_the_host_do_not_depend_on_the_ranks) {
  for (int ranks = 1; ranks <= 4; ranks++)
    agrees(ranks, table_of(1 + ranks % 2), "cpu");
}

Test(inference, predictions_and_figures_on_devices_do_not_depend_on_the_ranks) {
  if (!gpu_use())
    cr_skip("there is no emulated CUDA library");
  for (int ranks = 1; ranks <= 4; ranks++)
    agrees(ranks, table_of(1 + ranks % 2), "cuda"); /* they share a GPU: MPI through host memory */
}

Test(inference, ranks_with_a_device_each_agree_by_nccl) {
  if (!emulated_use())
    cr_skip("there is no emulated CUDA library");
  const char *path = table_of(2);
  setenv("EMULATED_CUDA_DEVICES", "3", 1);
  setenv("EMULATED_NCCL_FOLDER", io_file(""), 1);
  agrees(3, path, "cuda");
}
