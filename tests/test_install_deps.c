/* launch/install-deps with an apt-get, sudo and id of our own: nothing is installed here, whatever it decides. */
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/conr-install-XXXXXX";

static char *in_folder(const char *name) {
  static char path[128];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

static void write_script(const char *name, const char *text) {
  FILE *script = fopen(in_folder(name), "w");
  cr_assert(ne(ptr, script, NULL));
  fprintf(script, "#!/bin/sh\n%s\n", text);
  fclose(script);
  cr_assert(eq(int, chmod(in_folder(name), 0755), 0));
}

/* A machine: who asks, whether sudo works, the system's name; apt-get notes its arguments in the file `called`, and
 * apt-cache knows all packages once the file `lists` is there. */
static void machine(const char *user_id, const char *sudo_status, const char *system, bool has_lists) {
  char path[4096], text[256];
  cr_assert(ne(ptr, mkdtemp(folder), NULL));
  snprintf(text, sizeof text, "echo %s", user_id);
  write_script("id", text);
  snprintf(text, sizeof text, "[ %s = 0 ] || exit 1\nshift\nexec \"$@\"", sudo_status);
  write_script("sudo", text);
  snprintf(text, sizeof text, "echo \"$DEBIAN_FRONTEND $*\" >>%s/called\ncase \"$*\" in *update) : >%s/lists ;; esac",
           folder, folder);
  write_script("apt-get", text);
  snprintf(text, sizeof text, "[ -e %s/lists ] && echo '  Candidate: 1.0' || echo '  Candidate: (none)'", folder);
  write_script("apt-cache", text);
  snprintf(text, sizeof text, "ID=%s", system);
  write_script("os-release", text);
  if (has_lists)
    write_script("lists", "");
  snprintf(path, sizeof path, "%s:%s", folder, getenv("PATH"));
  setenv("PATH", path, 1);
  setenv("CONR_OS_RELEASE", in_folder("os-release"), 1);
  write_script("slurmctld", "");
  setenv("CONR_SLURMCTLD", in_folder("slurmctld"), 1);
  setenv("CONR_SERVICES", in_folder("services"), 1);
  write_script("gnuplot", "");
  setenv("CONR_GNUPLOT", in_folder("gnuplot"), 1);
  setenv("CONR_POLICY", in_folder("policy-rc.d"), 1);
}

/* A machine without Slurm, where it comes with the others or not. */
static void lose_slurm(bool can_be_had) {
  unsetenv("CONR_TEST_SLURM");
  char text[512];
  cr_assert(eq(int, remove(in_folder("slurmctld")), 0));
  snprintf(text, sizeof text,
           "echo \"$*\" >>%s/called\n\"$CONR_POLICY\" || echo \"status $?\" >>%s/called\n"
           "case \"$*\" in *slurmctld*) %s ;; esac",
           folder, folder, can_be_had ? "cp \"$0\" \"$CONR_SLURMCTLD\"" : "exit 100");
  write_script("apt-get", text);
}

/* Make jansson a library that does not link; the flags of the others come from the Makefile, as always. */
static void lose_jansson(void) {
  struct run_result run;
  char *const ask[] = {"sh", "-c",
                       "eval \"$(make --no-print-directory -s probe 2>/dev/null)\"; echo \"$PROBE_CC\"; "
                       "echo \"$PROBE_CFLAGS\"; echo \"$PROBE_LIBS\" | sed 's/-ljansson//'; echo \"$PROBE_TEST_FLAGS\"",
                       NULL};
  static const char *const names[] = {"PROBE_CC", "PROBE_CFLAGS", "PROBE_LIBS", "PROBE_TEST_FLAGS"};
  cr_assert(eq(int, run_command(ask, 30, &run), 0), "%s", run.output);
  char *line = run.output;
  for (int i = 0; i < 4; i++) {
    char *end = strchr(line, '\n');
    cr_assert(ne(ptr, end, NULL), "%s", run.output);
    *end = '\0';
    setenv(names[i], line, 1);
    line = end + 1;
  }
  run_result_free(&run);
}

static int install_deps(const char *argument, struct run_result *run) {
  char *const command[] = {"launch/install-deps", (char *)argument, NULL};
  return run_command(command, 60, run);
}

/* What apt-get was asked, "" for nothing; the folder is removed. */
static const char *apt_calls(void) {
  static char text[4096];
  size_t bytes = 0;
  FILE *called = fopen(in_folder("called"), "r");
  if (called != NULL) {
    bytes = fread(text, 1, sizeof text - 1, called);
    fclose(called);
  }
  text[bytes] = '\0';
  char *const clean[] = {"rm", "-rf", folder, NULL};
  run_command(clean, 20, NULL);
  return text;
}

static int contains(const char *text, const char *part) {
  return strstr(text, part) != NULL;
}

Test(install_deps, say_nothing_and_call_nobody_when_all_is_there, .timeout = 60) {
  struct run_result run;
  machine("0", "1", "debian", false);
  cr_expect(eq(int, install_deps("--tests", &run), 0));
  cr_expect(eq(str, run.output, ""));
  cr_expect(eq(str, (char *)apt_calls(), ""));
  run_result_free(&run);
}

Test(install_deps, check_names_what_is_missing_in_one_line_and_installs_nothing, .timeout = 60) {
  struct run_result run;
  machine("0", "1", "debian", true);
  lose_jansson();
  cr_expect(eq(int, install_deps("--check", &run), 1));
  cr_expect(eq(ptr, strchr(run.output, '\n'), run.output + run.output_bytes - 1), "%s", run.output);
  cr_expect(eq(int, contains(run.output, "missing: jansson - run \"launch/install-deps\""), 1), "%s", run.output);
  cr_expect(eq(str, (char *)apt_calls(), ""));
  run_result_free(&run);
}

Test(install_deps, name_packages_and_install_nothing_on_another_system, .timeout = 60) {
  struct run_result run;
  machine("0", "0", "fedora", true);
  lose_jansson();
  cr_expect(eq(int, install_deps(NULL, &run), 1));
  cr_expect(eq(int, contains(run.output, "jansson missing.  Nothing was installed"), 1), "%s", run.output);
  cr_expect(eq(int, contains(run.output, "libjansson-dev"), 1), "%s", run.output);
  cr_expect(zero(int, contains(run.output, "HDF5 ")), "HDF5 is there: %s", run.output);
  cr_expect(eq(str, (char *)apt_calls(), ""));
  run_result_free(&run);
}

Test(install_deps, name_the_command_for_a_user_without_rights, .timeout = 60) {
  struct run_result run;
  machine("1000", "1", "debian", true);
  lose_jansson();
  cr_expect(eq(int, install_deps(NULL, &run), 1));
  cr_expect(eq(int, contains(run.output, "apt-get install -y libjansson-dev"), 1), "%s", run.output);
  cr_expect(eq(str, (char *)apt_calls(), ""));
  run_result_free(&run);
}

Test(install_deps, install_as_root_without_questions_and_without_update_when_lists_are_there, .timeout = 60) {
  struct run_result run;
  machine("0", "1", "ubuntu", true);
  lose_jansson();
  cr_expect(eq(int, install_deps(NULL, &run), 0), "%s", run.output);
  const char *calls = apt_calls();
  cr_expect(eq(int, strncmp(calls, "noninteractive -y ", 18), 0), "%s", calls);
  cr_expect(eq(int, contains(calls, "DPkg::Lock::Timeout=600"), 1), "%s", calls);
  cr_expect(eq(int, contains(calls, "install --no-install-recommends libjansson-dev\n"), 1), "%s", calls);
  cr_expect(zero(int, contains(calls, "update")), "%s", calls);
  run_result_free(&run);
}

Test(install_deps, update_first_when_the_lists_are_empty_and_use_sudo, .timeout = 60) {
  struct run_result run;
  machine("1000", "0", "debian", false);
  lose_jansson();
  cr_expect(eq(int, install_deps(NULL, &run), 0), "%s", run.output);
  const char *calls = apt_calls(), *update = strstr(calls, " update\n"), *install = strstr(calls, " install ");
  cr_expect(eq(int, update != NULL && install != NULL && update < install, 1), "%s", calls);
  run_result_free(&run);
}

static const char slurm_packages[] = "install --no-install-recommends munge slurmctld slurmd slurm-client ";

Test(install_deps, install_slurm_for_the_tests_alone, .timeout = 60) {
  struct run_result run;
  machine("0", "1", "debian", true);
  lose_slurm(true);
  cr_expect(eq(int, install_deps(NULL, &run), 0), "%s", run.output);
  cr_expect(ne(int, access(in_folder("called"), F_OK), 0));
  run_result_free(&run);
  cr_expect(eq(int, install_deps("--tests", &run), 0), "%s", run.output);
  cr_expect(ne(int, access(in_folder("policy-rc.d"), F_OK), 0), "what forbids services is left");
  const char *calls = apt_calls();
  cr_expect(eq(int, contains(calls, slurm_packages), 1), "%s", calls);
  cr_expect(zero(int, contains(run.output, "skipped")), "%s", run.output);
  cr_expect(eq(int, contains(calls, "status 101\n"), 1), "services were allowed to start: %s", calls);
  run_result_free(&run);
}

Test(install_deps, leave_slurm_out_where_its_tests_are_not_wanted, .timeout = 60) {
  struct run_result run;
  machine("0", "1", "debian", true);
  lose_slurm(true);
  setenv("CONR_TEST_SLURM", "0", 1);
  cr_expect(eq(int, install_deps("--tests", &run), 0), "%s", run.output);
  cr_expect(ne(int, access(in_folder("called"), F_OK), 0));
  run_result_free(&run);
}

Test(install_deps, do_without_slurm_where_it_cannot_be_installed, .timeout = 60) {
  struct run_result run;
  machine("0", "1", "debian", true);
  lose_slurm(false);
  cr_expect(eq(int, install_deps("--tests", &run), 0), "%s", run.output);
  cr_expect(eq(int, contains(run.output, "the tests that take it will be skipped"), 1), "%s", run.output);
  cr_expect(eq(int, contains(apt_calls(), slurm_packages), 1));
  run_result_free(&run);
}

Test(install_deps, leave_slurm_to_those_who_are_not_root, .timeout = 60) {
  struct run_result run;
  machine("1000", "0", "debian", true);
  lose_slurm(true);
  cr_expect(eq(int, install_deps("--tests", &run), 0), "%s", run.output);
  cr_expect(eq(str, run.output, ""));
  cr_expect(eq(str, (char *)apt_calls(), ""));
  run_result_free(&run);
}

Test(install_deps, start_no_services_of_slurm, .timeout = 60) {
  struct run_result run;
  machine("0", "1", "debian", true);
  lose_slurm(true);
  cr_assert(eq(int, mkdir(in_folder("services"), 0755), 0));
  cr_expect(eq(int, install_deps("--tests", &run), 0), "%s", run.output);
  cr_expect(eq(str, (char *)apt_calls(), ""));
  run_result_free(&run);
}

Test(install_deps, install_gnuplot_for_the_tests_alone_and_do_without_it, .timeout = 60) {
  struct run_result run;
  machine("0", "1", "debian", true);
  cr_assert(eq(int, remove(in_folder("gnuplot")), 0));
  cr_expect(eq(int, install_deps(NULL, &run), 0), "%s", run.output);
  cr_expect(ne(int, access(in_folder("called"), F_OK), 0));
  run_result_free(&run);
  cr_expect(eq(int, install_deps("--tests", &run), 0), "%s", run.output);
  cr_expect(eq(int, contains(run.output, "gnuplot could not be installed; the tests that take it will be skipped"), 1),
            "%s", run.output);
  const char *calls = apt_calls();
  cr_expect(eq(int, contains(calls, "install --no-install-recommends gnuplot-nox\n"), 1), "%s", calls);
  run_result_free(&run);
}

Test(install_deps, refuse_an_unknown_argument, .timeout = 60) {
  struct run_result run;
  machine("0", "1", "debian", true);
  cr_expect(eq(int, install_deps("--instal", &run), 2));
  cr_expect(eq(int, contains(run.output, "\"--instal\""), 1), "%s", run.output);
  cr_expect(eq(str, (char *)apt_calls(), ""));
  run_result_free(&run);
}
