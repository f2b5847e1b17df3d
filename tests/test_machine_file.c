/* Machine files: the one that comes with the program, and what is wrong with others. */
#include "launch/machine_file.h"

#include "io_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(machine_file, .init = io_files_begin, .fini = io_files_end);

#define SHIPPED "launch/machines/h200-ndr400.ini"

Test(machine_file, the_shipped_one_is_read_in_its_units) {
  struct machine_file file;
  setenv("CONR_MACHINES", "launch/machines", 1);
  cr_assert(eq(int, machine_file_read("h200-ndr400", &file), STATUS_OK), "%s", status_message());
  cr_expect(eq(dbl, file.machine.node, 8));
  cr_expect(epsilon_eq(dbl, file.machine.inside.bandwidth, 382.5e9, 1));
  cr_expect(epsilon_eq(dbl, file.machine.between.bandwidth, 42.5e9, 1));
  cr_expect(epsilon_eq(dbl, file.machine.between.latency, 6e-6, 1e-15));
  cr_expect(epsilon_eq(dbl, file.machine.flops, 593.4e12, 1));
  cr_expect(epsilon_eq(dbl, file.work.gradient_bytes, 102.2e6, 1));
}

/* The shipped file, with `instead` in place of the first line that begins with `line`. */
static const char *changed(const char *line, const char *instead) {
  char *text = io_read(SHIPPED, NULL), *at = strstr(text, line);
  const char *path = io_file("machine.ini");
  while (at != NULL && at[-1] != '\n')
    at = strstr(at + 1, line);
  cr_assert(at != NULL, "%s", line);
  FILE *file = fopen(path, "w");
  fprintf(file, "%.*s%s%s", (int)(at - text), text, instead, strchr(at, '\n'));
  fclose(file);
  free(text);
  return path;
}

Test(machine_file, every_field_is_checked_and_unknown_ones_are_refused_with_the_nearest) {
  static const struct {
    const char *line, *instead, *sentence;
  } cases[] = {
      {"gpus_per_node = ", "gpus_per_nod = 8",
       "a machine file has no field machine.gpus_per_nod; did you mean gpus_per_node in [machine]?"},
      {"gpus_per_node = ", "colour = red", "a machine file has no field machine.colour"},
      {"gpus_per_node = ", "", "machine.ini has no machine.gpus_per_node; give 1 to 1024"},
      {"gpus_per_node = ", "gpus_per_node = 8\ngpus_per_node = 8", "machine.gpus_per_node stands there twice"},
      {"gpus_per_node = ", "gpus_per_node = many", "machine.gpus_per_node wants a number, not \"many\""},
      {"gpus_per_node = ", "gpus_per_node = 7.5", "machine.gpus_per_node wants a whole number, not \"7.5\""},
      {"gpus_per_node = ", "gpus_per_node = 0", "machine.gpus_per_node = 0 is out of range; give 1 to 1024"},
      {"efficiency = ", "efficiency = 1.5", "links.efficiency = 1.5 is out of range; give 0.001 to 1"},
      {"latency_us = ", "latency_us = -1", "inside.latency_us = -1 is out of range"},
      {"latency_us = ", "latency_us = nan", "inside.latency_us wants a number, not \"nan\""},
      {"[gpu]", "gpu", "is not \"name = value\""},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct machine_file file;
    const char *path = changed(cases[i].line, cases[i].instead);
    cr_expect(ne(int, machine_file_read(path, &file), STATUS_OK), "%s", cases[i].instead);
    cr_expect(strstr(status_message(), cases[i].sentence) != NULL, "%s", status_message());
    cr_expect(strstr(status_message(), "machine.ini") != NULL, "no name of the file: %s", status_message());
  }
}

/* A field that nobody reads would pass all else. */
Test(machine_file, every_field_changes_a_prediction) {
  static const char *const lines[] = {
      "gpus_per_node = 4",      "matrix_tflops = 500", "matrix_efficiency = 0.5", "efficiency = 0.5",
      "seconds_per_row = 1e-4", "fixed_seconds = 0.1", "gradient_bytes = 1e6",    "width = 512",
      "value_bytes = 4",        "scalar_bytes = 20",   "active_share = 0.1",      "bandwidth_gbs = 40",
      "latency_us = 5"};
  struct machine_file file;
  cr_assert(eq(int, machine_file_read(SHIPPED, &file), STATUS_OK));
  double before = cost_of_step(&file.machine, &file.work, 64, 512).step;
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
    char name[64];
    snprintf(name, sizeof name, "%.*s = ", (int)strcspn(lines[i], " "), lines[i]);
    cr_assert(eq(int, machine_file_read(changed(name, lines[i]), &file), STATUS_OK), "%s", status_message());
    cr_expect(ne(dbl, cost_of_step(&file.machine, &file.work, 64, 512).step, before), "%s", lines[i]);
  }
}

Test(machine_file, a_name_that_is_none_is_told_with_where_they_lie) {
  struct machine_file file;
  setenv("CONR_MACHINES", "launch/machines", 1);
  cr_expect(eq(int, machine_file_read("dgx", &file), ERR_FILE));
  cr_expect(eq(str, (char *)status_message(), (char *)"there is no machine file dgx, here or in launch/machines"));
}
