/* The public library as somebody else links it. */
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

Test(library, example_gives_the_same_numbers_on_any_number_of_ranks, .timeout = 120) {
  char program[RUN_PATH_BYTES], first[256] = "";
  run_build_path("tests/example_loss", program);
  for (int ranks = 1; ranks <= 4; ranks++) {
    struct run_result run;
    cr_assert(eq(int, run_ranks(ranks, program, NULL, &run), 0), "%s", run.output);
    const char *line = strstr(run.output, "loss ");
    cr_assert(line != NULL && strstr(line, "of 24 rows are anchors") != NULL, "%s", run.output);
    char own[256];
    snprintf(own, sizeof own, "%.*s", (int)strcspn(line, "\n"), line);
    if (ranks == 1)
      strcpy(first, own);
    cr_assert(eq(str, own, first));
    run_result_free(&run);
  }
  double loss = 0;
  cr_assert(eq(int, sscanf(first, "loss %lf", &loss), 1));
  cr_assert(loss > 0.1);
}

/* Names other than conr_* could clash with those of the program that links it. */
Test(library, only_conr_names_are_exported, .timeout = 60) {
  char library[RUN_PATH_BYTES];
  struct run_result run;
  char *const command[] = {"nm", "-D", "--defined-only", run_build_path("libconr.so", library), NULL};
  cr_assert(eq(int, run_command(command, 30, &run), 0), "%s", run.output);
  int names = 0;
  for (char *line = strtok(run.output, "\n"); line != NULL; line = strtok(NULL, "\n")) {
    const char *name = strrchr(line, ' ');
    cr_assert(name != NULL && strncmp(name + 1, "conr_", 5) == 0, "exported: %s", line);
    names++;
  }
  cr_assert(ge(int, names, 7));
  run_result_free(&run);
}
