/* Stored cases of the regularisers on gathered rows, on 1 to 4 ranks. */
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

static void agrees(const char *method) {
  const char *const arguments[] = {"golden", method, NULL};
  for (int ranks = 1; ranks <= 4; ranks++) {
    struct run_result run;
    int status = run_ranks_within(100, ranks, "rank_rows", arguments, &run);
    cr_assert(eq(int, status, 0), "%s on %d ranks:\n%s", method, ranks, run.output);
    const char *line = strstr(run.output, "golden ");
    if (ranks == 1 && line != NULL) /* all rank counts run the same cases */
      printf("%.*s\n", (int)strcspn(line, "\n"), line);
    run_result_free(&run);
  }
}

Test(golden_rows, ranksim, .timeout = 240) {
  agrees("ranksim");
}

Test(golden_rows, rnc, .timeout = 240) {
  agrees("rnc");
}

Test(golden_rows, accon, .timeout = 240) {
  agrees("accon");
}

Test(golden_rows, srl, .timeout = 240) {
  agrees("srl");
}
