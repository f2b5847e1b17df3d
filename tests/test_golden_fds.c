/* Stored runs of feature distribution smoothing on 1 to 4 ranks. */
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

Test(golden_fds, statistics_and_smoothed_features_are_the_published_ones, .timeout = 240) {
  const char *const arguments[] = {NULL};
  for (int ranks = 1; ranks <= 4; ranks++) {
    struct run_result run;
    int status = run_ranks_within(100, ranks, "rank_golden_fds", arguments, &run);
    cr_assert(eq(int, status, 0), "%d ranks:\n%s", ranks, run.output);
    const char *line = strstr(run.output, "golden ");
    if (ranks == 1 && line != NULL)
      printf("%.*s\n", (int)strcspn(line, "\n"), line);
    run_result_free(&run);
  }
}
