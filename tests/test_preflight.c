/* What conr check and conr train see of one host and of several before the first batch. */
#include "io_files.h"
#include "support_cli.h"
#include "support_hosts.h"
#include "tests/emulated.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

TestSuite(preflight, .init = cli_begin, .fini = cli_end, .timeout = 150);

static void expect(const char *output, const char *words) {
  cr_expect(eq(int, cli_count(output, words), 1), "not once: \"%s\" in\n%s", words, output);
}

/* ---- one host -------------------------------------------------------------------------------- */

Test(preflight, a_check_of_one_process_is_a_table_and_changes_nothing) {
  const char *data = cli_data("t.h5", 60), *run = io_file("run");
  char *output = cli_output(0, cli_text("check %s -o %s --hidden 8", data, run));
  expect(output, "\nclocks         skipped  one host\n");
  expect(output, "\nrun            ok       36 training samples, 12 for validation, 65 parameters, 1 steps an epoch\n");
  expect(output, " 0 warnings, 0 failures\n");
  cr_assert(not(io_exists(run)));
  free(output);
}

Test(preflight, json_has_every_check) {
  const char *data = cli_data("t.h5", 60);
  char *output = cli_output(2, cli_text("check %s --json", data));
  json_t *object = json_loads(output, 0, NULL), *checks = json_object_get(object, "checks");
  cr_assert(eq(int, (int)json_integer_value(json_object_get(object, "ranks")), 2), "%s", output);
  cr_assert(eq(int, (int)json_integer_value(json_object_get(object, "failed")), 0), "%s", output);
  cr_assert(eq(int, (int)json_array_size(checks), 15), "%s", output);
  for (size_t i = 0; i < json_array_size(checks); i++) {
    const char *result = json_string_value(json_object_get(json_array_get(checks, i), "result"));
    cr_expect(strcmp(result, "ok") == 0 || strcmp(result, "skipped") == 0, "%s", output);
  }
  json_decref(object);
  free(output);
}

/* All of it is told at once, the exit status is 1 whatever it was. */
Test(preflight, a_check_that_fails_tells_all_and_ends_with_1) {
  const char *data = cli_data("t.h5", 20);
  struct run_result run = cli_run(2, cli_text("check %s -o %s/run", io_file("none.h5"), data));
  cr_expect(eq(int, run.exit_status, 1), "%s", run.output);
  expect(run.output, cli_text("data           failed   cannot open %s: No such file or directory; check the path\n",
                              io_file("none.h5")));
  expect(run.output, cli_text("output         failed   cannot make run folder %s/run: Not a directory\n", data));
  expect(run.output, "conr: 2 checks failed\n");
  run_result_free(&run);
  run = cli_run(2, cli_text("check %s --batch 1", data));
  cr_expect(eq(int, run.exit_status, 1), "%s", run.output);
  expect(run.output,
         "run            failed   --batch 1 is smaller than the 2 ranks; give at least one sample to each\n");
  run_result_free(&run);
}

Test(preflight, a_training_says_one_line_or_none) {
  const char *data = cli_data("t.h5", 60), *line = cli_text("train %s -o %s --epochs 1 --force", data, io_file("run"));
  struct run_result run = cli_run(2, line);
  cr_assert(eq(int, run.exit_status, 0), "%s", run.output);
  cr_expect(eq(int, cli_count(run.output, "preflight: "), 1), "%s", run.output);
  run_result_free(&run);
  run = cli_run(2, cli_text("%s --preflight off", line));
  cr_assert(eq(int, run.exit_status, 0), "%s", run.output);
  cr_expect(eq(int, cli_count(run.output, "preflight"), 0), "%s", run.output);
  run_result_free(&run);
}

Test(preflight, ranks_that_share_a_gpu_are_told) {
  if (!emulated_use())
    cr_skip("there is no emulated CUDA library");
  const char *data = cli_data("t.h5", 60);
  char *output = cli_output(2, cli_text("check %s", data));
  expect(output, "GPUs           warning  2 ranks share 1 GPU; start as many ranks a host as it has\n");
  expect(output, " 1 warnings, 0 failures\n");
  expect(output, " of 2 ranks, by mpi through host memory, with the first connections\n");
  free(output);
}

Test(preflight, collectives_are_tried_as_the_run_makes_them) {
  if (!emulated_use())
    cr_skip("there is no emulated CUDA library");
  const char *data = cli_data("t.h5", 60);
  setenv("EMULATED_CUDA_DEVICES", "2", 1);
  setenv("EMULATED_NCCL_FOLDER", io_file(""), 1);
  char *output = cli_output(2, cli_text("check %s", data));
  expect(output, " of 2 ranks, by nccl ");
  free(output);
  setenv("EMULATED_NCCL_HANG", "1", 1);
  setenv("CONR_COMM_TIMEOUT", "1", 1);
  struct run_result run = cli_run(2, cli_text("check %s", data));
  cr_expect(eq(int, run.exit_status, 1), "%s", run.output);
  cr_expect(strstr(run.output, "the sum number 1 (524288 f32) by NCCL is not over after 1.0 s") != NULL, "%s",
            run.output);
  run_result_free(&run);
}

/* ---- several hosts --------------------------------------------------------------------------- */

Test(preflight, hosts_that_differ_are_named_with_everything_that_is_wrong_on_them) {
  hosts_wanted();
  const char *data = cli_data("t.h5", 400), *other = cli_data("other.h5", 401), *run = io_file("run");
  io_write_text(io_file("meminfo"), "MemAvailable: 1 kB\n");
  char *output = hosts_run(3,
                           "data=%s other=%s run=%s\n"
                           "echo '[sound]'; ranks check $data -o $run\n"
                           "on host3 mount --bind %s /proc/meminfo\n"
                           "echo '[memory]'; ranks train $data -o $run || true\n"
                           "on host2 mount --bind $other $data; on host3 mount --bind $other $data\n"
                           "on host3 mount -o remount,size=4k /dev/shm\n"
                           "export RANK_SETUP='[ $HOSTNAME != host2 ] || export CONR_TEST_CLOCK_OFFSET=-90'\n"
                           "echo '[check]'; ranks check $data -o $run || true\n"
                           "echo '[train]'; ranks train $data -o $run || true\n"
                           "on host2 umount $data; on host2 mount --bind /dev/null $data\n"
                           "echo '[unreadable]'; ranks check $data || true\n",
                           data, other, run, io_file("meminfo"));
  char *memory = strstr(output, "[memory]"), *check = strstr(output, "[check]"), *train = strstr(output, "[train]"),
       *last = strstr(output, "[unreadable]");
  memory[-1] = check[-1] = train[-1] = last[-1] = '\0';
  expect(output, " 0 failures\n");
  expect(output, "clocks         ok       at most 0.");
  cr_expect(eq(int, cli_count(output, "[exit 0 "), 3), "%s", output);
  expect(memory,
         " MB, and 0.001024 MB can be had; start fewer ranks a host, or give a smaller --batch or --micro-batch (on "
         "host3)\n");
  expect(check, "; copy it again or use a shared folder (on 2 hosts: host2, host3)\n");
  expect(check, "make it larger (mount -o remount,size=..., docker run --shm-size) (on host3)\n");
  expect(check, "clocks         warning  the clock is 90.");
  expect(check, "let NTP set it (on host2)\n");
  cr_expect(eq(int, cli_count(check, "[exit 1 "), 3), "%s", check);
  expect(train, "; copy it again or use a shared folder (on 2 hosts: host2, host3)\n");
  expect(train, "conr: 2 checks failed, as told above; nothing was changed\n");
  cr_expect(eq(int, cli_count(train, "[exit 1 "), 3), "%s", train);
  expect(last, "it is not a regular file (on host2)\n");
  cr_expect(not(io_exists(run)));
  free(output);
}

Test(preflight, ranks_of_another_program_or_other_options_are_named) {
  hosts_wanted();
  const char *data = cli_data("t.h5", 120);
  char *output = hosts_run(3,
                           "data=%s copy=%s\n"
                           "tests/cluster/fault slow host3 20mbit\n"
                           "echo '[slow]'; ranks check $data\n"
                           "tests/cluster/fault mend host3\n"
                           "export RANK_SETUP='[ $HOSTNAME != host2 ] || set -- \"$@\" --lr 0.5'\n"
                           "echo '[options]'; ranks train $data -o $copy.run || true\n"
                           "unset RANK_SETUP\n"
                           /* the same program but for its mark: the id behind the note's name */
                           "at=$(grep -obUaPm1 '\\x14\\0\\0\\0\\x03\\0\\0\\0GNU\\0' $CONR | head -n 1 | cut -d: -f1)\n"
                           "cp $CONR $copy; printf '\\377\\376\\375' | dd of=$copy bs=1 seek=$((at + 12)) conv=notrunc "
                           "status=none\n"
                           "on host3 mount --bind $copy $CONR\n"
                           "echo '[program]'; ranks check $data || true\n",
                           data, io_file("copy"));
  char *options = strstr(output, "[options]"), *program = strstr(output, "[program]");
  options[-1] = program[-1] = '\0';
  expect(output, "at most to the other hosts; look at its network and at what else runs on it (on host3)\n");
  cr_expect(eq(int, cli_count(output, "[exit 0 "), 3), "%s", output);
  expect(options,
         "conr: other options than rank 0's: \"lr = 0.5\" and there \"lr = 0.001\"; give all ranks the same (on "
         "host2)\n");
  cr_expect(eq(int, cli_count(options, "[exit 2 "), 3), "%s", options);
  expect(program, "program        failed   another program than rank 0's: ");
  expect(program, "(conr fffefd");
  expect(program, "; install the same on all hosts (on host3)\n");
  cr_expect(eq(int, cli_count(program, "[exit 1 "), 3), "%s", program);
  free(output);
}
