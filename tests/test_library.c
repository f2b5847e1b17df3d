/* The public library as somebody else links it. */
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The one line an example prints. */
static void example_line(int ranks, const char *program, char line[256]) {
  struct run_result run;
  cr_assert(eq(int, run_ranks(ranks, program, NULL, &run), 0), "%s", run.output);
  const char *found = strstr(run.output, "loss ");
  cr_assert(found != NULL && strstr(found, "of 24 rows are anchors") != NULL, "%s", run.output);
  snprintf(line, 256, "%.*s", (int)strcspn(found, "\n"), found);
  run_result_free(&run);
}

Test(library, example_gives_the_same_numbers_on_any_number_of_ranks, .timeout = 120) {
  char program[RUN_PATH_BYTES], first[256] = "";
  run_build_path("tests/example_loss", program);
  for (int ranks = 1; ranks <= 4; ranks++) {
    char own[256];
    example_line(ranks, program, own);
    if (ranks == 1)
      strcpy(first, own);
    cr_assert(eq(str, own, first));
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

Test(library, fortran_example_gives_the_numbers_of_the_c_one, .timeout = 120) {
  char folder[] = "/tmp/conr-fortran-XXXXXX", program[RUN_PATH_BYTES], library[RUN_PATH_BYTES], runpath[RUN_PATH_BYTES];
  char binary[64], c_line[256], fortran_line[256], command[128];
  struct run_result run;
  char *const probe[] = {"mpifort", "--version", NULL};
#ifdef __SANITIZE_ADDRESS__
  cr_skip("the library needs the sanitizer's runtime, which the Fortran compiler does not link");
#endif
  if (run_command(probe, 30, &run) != 0)
    cr_skip("no Fortran compiler (mpifort)");
  run_result_free(&run);
  cr_assert(ne(ptr, mkdtemp(folder), NULL));
  snprintf(binary, sizeof binary, "%s/example", folder);
  run_build_path("libconr.so", library);
  char build[RUN_PATH_BYTES];
  snprintf(runpath, sizeof runpath, "-Wl,-rpath,%s", dirname(strcpy(build, library)));
  char *const compile[] = {"mpifort", "-J", folder, "tests/example_loss.f90", library, runpath, "-o", binary, NULL};
  cr_assert(eq(int, run_command(compile, 60, &run), 0), "%s", run.output);
  run_result_free(&run);
  example_line(1, run_build_path("tests/example_loss", program), c_line);
  for (int ranks = 1; ranks <= 3; ranks += 2) {
    example_line(ranks, binary, fortran_line);
    cr_assert(eq(str, fortran_line, c_line));
  }
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  cr_assert(eq(int, system(command), 0));
}

/* Variables for tests begin with CONR_TEST_. */
Test(library, the_manual_knows_every_variable_and_command) {
  static const char script[] =
      "grep -rhoE '\"CONR_[A-Z_]+\"' --include=*.[ch] dist io model loss launch | tr -d '\"' | grep -v ^CONR_TEST_ |\n"
      "  while read -r name; do grep -q \"^.It Ev $name$\" launch/conr.1 || echo \"$name\"; done\n"
      "\"$0\" --help | sed -n 's/^  conr \\([a-z]*\\) .*/\\1/p' |\n"
      "  while read -r name; do grep -q \"^.It Cm $name\\b\" launch/conr.1 || echo \"$name\"; done\n";
  char conr[RUN_PATH_BYTES];
  struct run_result run;
  char *const command[] = {"sh", "-c", (char *)script, run_build_path("conr", conr), NULL};
  cr_assert(eq(int, run_command(command, 30, &run), 0), "%s", run.output);
  cr_expect(eq(str, run.output, ""), "launch/conr.1 has no:\n%s", run.output);
  run_result_free(&run);
}
