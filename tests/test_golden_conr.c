/* Stored ConR cases on 1 to 4 ranks, and whole stored trainings. */
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Print the program's own "golden ..." line; all rank counts run the same cases, so once is enough. */
static void print_golden_line(const char *output) {
  const char *line = strstr(output, "golden ");
  if (line != NULL)
    printf("%.*s\n", (int)strcspn(line, "\n"), line);
}

static void agrees(const char *program, const char *argument) {
  const char *const arguments[] = {argument, NULL};
  for (int ranks = 1; ranks <= 4; ranks++) {
    struct run_result run;
    int status = run_ranks_within(100, ranks, program, arguments, &run);
    cr_assert(eq(int, status, 0), "%s %s on %d ranks:\n%s", program, argument, ranks, run.output);
    if (ranks == 1)
      print_golden_line(run.output);
    run_result_free(&run);
  }
}

Test(golden_conr, reference_variant, .timeout = 240) {
  agrees("rank_golden_conr", "conr_reference.h5");
}

Test(golden_conr, paper_variant, .timeout = 240) {
  agrees("rank_golden_conr", "conr_paper.h5");
}

Test(golden_conr, labels_of_several_components, .timeout = 240) {
  agrees("rank_golden_conr", "conr_multidim.h5");
}

Test(golden_conr, depth_variant, .timeout = 240) {
  agrees("rank_golden_conr", "conr_nyud2.h5");
}

Test(golden_trajectory, trainer_follows_the_stored_runs, .timeout = 480) {
  char folder[] = "/tmp/conr-trajectory-XXXXXX", command[128];
  cr_assert(ne(ptr, mkdtemp(folder), NULL));
  agrees("rank_trajectory", folder);
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  cr_assert(eq(int, system(command), 0));
}
