/* Rows are gathered once for all terms that look at them, on 1 to 4 ranks: tests/ranks/rank_gathered.c, on the host and
 * on an emulated GPU that the ranks share, so that its gathers go by MPI too. */
#include "io_files.h"
#include "support_cli.h"
#include "tests/emulated.h"
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

TestSuite(gathered, .init = cli_begin, .fini = cli_end, .timeout = 600);

static void holds_on(int ranks, const char *device) {
  const char *arguments[] = {cli_data("t.h5", 60), io_file(""), "--device", device, "--precision", "f32", NULL};
  struct run_result run;
  int status = run_ranks_within(240, ranks, "rank_gathered", arguments, &run);
  cr_assert(eq(int, status, 0), "on %d ranks, %s:\n%s", ranks, device, run.output);
  run_result_free(&run);
}

Test(gathered, rows_travel_once_for_all_terms) {
  for (int ranks = 1; ranks <= 4; ranks++)
    holds_on(ranks, "cpu");
}

Test(gathered, rows_travel_once_for_all_terms_on_a_gpu) {
  if (!emulated_use())
    cr_skip("there is no emulated CUDA library");
  for (int ranks = 1; ranks <= 3; ranks++)
    holds_on(ranks, "cuda");
}
