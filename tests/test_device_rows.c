/* RnC and ACCon of a GPU on 1 to 4 ranks: the properties of tests/ranks/rank_device_rows.c.  Without a GPU over the
 * emulation. */
#include "tests/emulated.h"
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

static void holds(const char *method, const char *property, int most_ranks) {
  const char *const arguments[] = {method, property, NULL};
  if (!gpu_use())
    cr_skip("there is no emulated CUDA library");
  for (int ranks = 1; ranks <= most_ranks; ranks++) {
    struct run_result run;
    int status = run_ranks_within(360, ranks, "rank_device_rows", arguments, &run);
    cr_assert(eq(int, status, 0), "%s %s on %d ranks:\n%s", method, property, ranks, run.output);
    const char *line = strstr(run.output, "golden ");
    if (ranks == 1 && line != NULL) /* all rank counts run the same cases */
      printf("%.*s, on a device\n", (int)strcspn(line, "\n"), line);
    run_result_free(&run);
  }
}

Test(device_rnc, stored_cases, .timeout = 1450) {
  holds("rnc", "golden", 4);
}

Test(device_rnc, value_and_gradient_are_those_of_plain_loops, .timeout = 1450) {
  holds("rnc", "equal", 4);
}

Test(device_rnc, edges_of_the_definition, .timeout = 1450) {
  holds("rnc", "edges", 4);
}

Test(device_rnc, own_rows_of_several_panels, .timeout = 1450) {
  holds("rnc", "panels", 1);
}

Test(device_rnc, memory_is_the_gathered_batch_and_one_panel, .timeout = 1450) {
  holds("rnc", "memory", 2);
}

Test(device_accon, stored_cases, .timeout = 1450) {
  holds("accon", "golden", 4);
}

Test(device_accon, value_and_gradient_are_those_of_plain_loops, .timeout = 1450) {
  holds("accon", "equal", 3);
}

Test(device_accon, edges_of_the_definition, .timeout = 1450) {
  holds("accon", "edges", 4);
}

Test(device_accon, own_rows_of_several_panels, .timeout = 1450) {
  holds("accon", "panels", 1);
}

Test(device_accon, memory_is_the_gathered_batch_and_one_panel, .timeout = 1450) {
  holds("accon", "memory", 2);
}
