/* tests/gpu: what its scripts do on a machine without a GPU, and what a bundle would hold. */
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(gpu_run, .timeout = 120);

/* The script with one argument, or none. */
static int gpu_script(const char *script, const char *argument, struct run_result *run) {
  char *const command[] = {(char *)script, (char *)argument, NULL};
  return run_command(command, 30, run);
}

/* A stand-in for nvidia-smi that says `text` and ends with `status`; gone with the returned folder. */
static char *pretend_gpu(const char *text, int status) {
  static char folder[] = "/tmp/conr-gpu-XXXXXX";
  char path[64];
  cr_assert(ne(ptr, mkdtemp(folder), NULL));
  snprintf(path, sizeof path, "%s/nvidia-smi", folder);
  FILE *script = fopen(path, "w");
  cr_assert(ne(ptr, script, NULL));
  fprintf(script, "#!/bin/sh\necho '%s'\nexit %d\n", text, status);
  fclose(script);
  cr_assert(eq(int, chmod(path, 0755), 0));
  setenv("NVIDIA_SMI", path, 1);
  return folder;
}

static void remove_folder(char *folder) {
  char *const clean[] = {"rm", "-rf", folder, NULL};
  run_command(clean, 20, NULL);
}

Test(gpu_run, both_scripts_explain_themselves_and_refuse_what_they_do_not_know) {
  static const char *const scripts[][2] = {{"tests/gpu/run", "What only a GPU can tell"},
                                           {"tests/gpu/bundle", "Packs what tests/gpu/run needs"}};
  for (int i = 0; i < 2; i++) {
    struct run_result run;
    cr_expect(eq(int, gpu_script(scripts[i][0], "--help", &run), 0), "%s", run.output);
    cr_expect(eq(ptr, strstr(run.output, scripts[i][1]), run.output), "%s", run.output);
    run_result_free(&run);
    cr_expect(eq(int, gpu_script(scripts[i][0], "--halp", &run), 2), "%s", run.output);
    cr_expect(ne(ptr, strstr(run.output, "\"--halp\""), NULL), "%s", run.output);
    run_result_free(&run);
  }
}

Test(gpu_run, a_machine_without_a_gpu_is_told_in_one_line_and_status_3) {
  struct run_result run;
  setenv("NVIDIA_SMI", "/nowhere/nvidia-smi", 1);
  cr_expect(eq(int, gpu_script("tests/gpu/run", NULL, &run), 3));
  cr_expect(eq(str, run.output, "no GPU: there is no /nowhere/nvidia-smi on this machine\n"));
  cr_expect(run.seconds < 10, "%g s", run.seconds);
  run_result_free(&run);
}

Test(gpu_run, a_driver_that_does_not_work_is_no_gpu_and_its_reason_is_repeated) {
  struct run_result run;
  char *folder = pretend_gpu("NVIDIA-SMI has failed", 9), expected[128];
  snprintf(expected, sizeof expected, "no GPU: %s/nvidia-smi says: NVIDIA-SMI has failed\n", folder);
  cr_expect(eq(int, gpu_script("tests/gpu/run", NULL, &run), 3));
  cr_expect(eq(str, run.output, expected));
  run_result_free(&run);
  remove_folder(folder);
}

Test(gpu_run, a_gpu_without_a_bundle_is_an_error_of_use) {
  struct run_result run;
  char *folder = pretend_gpu("GPU 0: a pretended one", 0);
  cr_expect(eq(int, gpu_script("tests/gpu/run", "/nowhere/gpu-bundle.tar.gz", &run), 2));
  cr_expect(eq(str, run.output, "there is no bundle /nowhere/gpu-bundle.tar.gz; make gpu-bundle makes one\n"));
  run_result_free(&run);
  remove_folder(folder);
}

/* --- the bundle --------------------------------------------------------------------------------------------- */

/* Every Linux system that runs our programs at all has these: glibc. */
static bool is_of_glibc(const char *library) {
  static const char *const names[] = {"linux-vdso.", "libc.",       "libm.",    "libmvec.",  "libdl.",
                                      "librt.",      "libpthread.", "libutil.", "libresolv."};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strncmp(library, names[i], strlen(names[i])) == 0)
      return true;
  return false;
}

/* Is `name` in the list, as a library of the bundle? */
static bool is_packed(const char *list, const char *name) {
  static const char *const folders[] = {"lib", "lib/spare"};
  char line[300];
  for (int i = 0; i < 2; i++) {
    snprintf(line, sizeof line, "\n%s/%s <- ", folders[i], name);
    if (strstr(list, line) != NULL)
      return true;
  }
  return false;
}

/* What ldd says of a program: each library is packed, or glibc's and not packed.  Returns how many. */
static int check_libraries_of(const char *program, const char *list) {
  struct run_result run;
  int count = 0;
  cr_assert(eq(int, gpu_script("ldd", program, &run), 0), "%s", run.output);
  for (char *rest = NULL, *line = strtok_r(run.output, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
    char name[256];
    if (strstr(line, "=>") == NULL || sscanf(line, " %255s", name) != 1)
      continue;
    cr_expect(is_packed(list, name) != is_of_glibc(name), "%s of %s", name, program);
    count++;
  }
  run_result_free(&run);
  return count;
}

Test(gpu_run, a_bundle_names_every_library_that_a_bare_system_lacks) {
  char conr[RUN_PATH_BYTES], rank[RUN_PATH_BYTES], test[RUN_PATH_BYTES], build[RUN_PATH_BYTES];
  struct run_result list, where;
  char *const find[] = {"sh", "-c", "readlink -f \"$(command -v mpirun)\"; command -v ompi_info", NULL};
  if (run_command(find, 30, &where) != 0)
    cr_skip("mpirun is not Open MPI's, and only that is packed");
  *strchr(where.output, '\n') = '\0';
  strcpy(build, run_build_path("conr", conr));
  char *const command[] = {"tests/gpu/bundle", "--list", dirname(build), NULL};
  cr_assert(eq(int, run_command(command, 100, &list), 0), "%s", list.output);
  cr_expect(check_libraries_of(conr, list.output) > 10);
  cr_expect(check_libraries_of(run_build_path("tests/rank_comm", rank), list.output) > 3);
  cr_expect(check_libraries_of(run_build_path("tests/test_golden", test), list.output) > 3);
  cr_expect(check_libraries_of(where.output, list.output) > 3);
  static const char *const others[] = {"build/conr",
                                       "build/tests/rank_comm",
                                       "build/tests/test_golden",
                                       "tests/run",
                                       "tests/gpu/run",
                                       "tests/golden/layers.h5",
                                       "launch/demo",
                                       "tests/data/abalone.csv",
                                       "openmpi/bin/mpirun",
                                       "openmpi/plugins/mca_btl_self.so"};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    char line[128];
    snprintf(line, sizeof line, "%s <- ", others[i]);
    cr_expect(ne(ptr, strstr(list.output, line), NULL), "no %s", others[i]);
  }
  run_result_free(&list);
  run_result_free(&where);
}
