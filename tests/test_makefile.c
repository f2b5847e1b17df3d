/* What make finds out about a machine. */
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>
#include <unistd.h>

static void begin(void) {
  if (access("/usr/bin/make", X_OK) != 0)
    cr_skip("make lies in another place than /usr/bin");
}

TestSuite(makefile, .init = begin, .timeout = 120);

/* The line of `make info` about CUDA, with this environment alone. */
static void expect_cuda(const char *first, const char *second, const char *words) {
  struct run_result run;
  char *const command[] = {"env", "-i", (char *)first, (char *)second, "make", "info", NULL};
  cr_assert(eq(int, run_command(command, 60, &run), 0), "%s", run.output);
  const char *line = strstr(run.output, "CUDA  ");
  cr_expect(line != NULL && strstr(line, words) != NULL, "%s", run.output);
  run_result_free(&run);
}

Test(makefile, without_a_cuda_compiler_it_is_the_cpu_alone) {
  expect_cuda("PATH=/usr/bin:/bin", "NVCC=", "CPU only: no nvcc");
}

/* Neither in PATH nor named: another place may have it or not, make goes on in either case. */
Test(makefile, does_not_need_a_cuda_compiler_in_the_path) {
  expect_cuda("PATH=/usr/bin:/bin", "LANG=C", "");
}
