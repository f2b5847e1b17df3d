/* What goes wrong around a run: folders that cannot be written, disks that fill up, checkpoints that are damaged, and
 * ranks that die.  The job ends, says why, and what it had is not lost. */
#define _GNU_SOURCE /* memmem */

#include "io/array_file.h"
#include "io_files.h"
#include "support_cli.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(faults, .init = cli_begin, .fini = cli_end, .timeout = 120);

static const char options[] = "--hidden 16,16 --batch 9 --conr --dropout 0.2 --lr 0.01 --log-steps 1 --quiet";

static const char *command_for(const char *run, int epochs) {
  return cli_text("train %s -o %s --epochs %d %s", io_file("t.h5"), run, epochs, options);
}

static const char *undisturbed(int ranks, int epochs) {
  const char *run = io_file("undisturbed");
  cli_data("t.h5", 60);
  cli_accepted(ranks, command_for(run, epochs));
  return run;
}

/* ---- folders -------------------------------------------------------------------------------- */

Test(faults, run_folder_below_a_file) {
  const char *data = cli_data("t.h5", 20), *run = cli_text("%s/run", data);
  cli_refused(3, 1, cli_text("cannot make run folder %s: Not a directory", run), command_for(run, 1));
}

Test(faults, run_folder_that_is_a_file) {
  const char *data = cli_data("t.h5", 20);
  cli_refused(3, 1, cli_text("cannot use %s as run folder: it is not a directory", data), command_for(data, 1));
}

Test(faults, run_folder_with_a_name_too_long) {
  char name[5000];
  memset(name, 'x', sizeof name);
  name[sizeof name - 1] = '\0';
  cli_data("t.h5", 20);
  cli_refused(3, 2, cli_text("the run folder's name is too long (%d characters)", 4999), command_for(name, 1));
}

/* Run a script in which DISK is a small file system of its own; the test is skipped where that is not allowed. */
static struct run_result with_disk(const char *mount_options, const char *script) {
  const char *disk = io_file("disk");
  mkdir(disk, 0777);
  const char *mount = cli_text("mount -t tmpfs -o %s tmpfs %s", mount_options, disk);
  char *const probe[] = {"unshare", "-m", "sh", "-c", (char *)mount, NULL};
  struct run_result run;
  int refused = run_command(probe, 20, &run);
  run_result_free(&run);
  if (refused != 0)
    cr_skip("no file system can be mounted here: it needs root and a mount namespace of its own");
  char conr[RUN_PATH_BYTES];
  const char *whole = cli_text("%s && CONR=%s && RANKS=\"${MPIEXEC:-mpirun} -n 2 $CONR\" && { %s\n}", mount,
                               run_build_path("conr", conr), script);
  char *const command[] = {"unshare", "-m", "sh", "-c", (char *)whole, NULL};
  run_command(command, 60, &run);
  cr_assert(run.timed_out == false, "%s", run.output);
  return run;
}

Test(faults, run_folder_that_is_read_only) {
  const char *data = cli_data("t.h5", 20), *folder = io_file("disk");
  struct run_result run;
  if (geteuid() == 0) { /* to root, permissions forbid nothing */
    run = with_disk("ro,size=1m", cli_text("$RANKS train %s -o %s --epochs 1", data, folder));
  } else {
    mkdir(folder, 0555);
    run = cli_run(2, cli_text("train %s -o %s --epochs 1", data, folder));
  }
  const char *sentence = cli_text("conr: cannot write to run folder %s: %s\n", folder,
                                  geteuid() == 0 ? "Read-only file system" : "Permission denied");
  cr_assert(eq(int, run.exit_status, 1), "%s", run.output);
  cr_assert(eq(int, cli_count(run.output, sentence), 1), "%s", run.output);
  run_result_free(&run);
}

/* ---- disks that fill up --------------------------------------------------------------------- */

/* Room for two checkpoints and the texts beside them: the third does not fit.  With more room the run ends as if
 * nothing had been. */
Test(faults, a_full_disk_ends_the_job_and_loses_nothing) {
  const char *whole = undisturbed(2, 4), *disk = io_file("disk"), *after = io_file("after");
  struct stat checkpoint;
  cr_assert(stat(cli_last(whole), &checkpoint) == 0);
  long kilobytes = (long)checkpoint.st_size * 5 / 2 / 1024 + 8;
  const char *line = cli_text("train %s -o %s/run --epochs 4 %s", io_file("t.h5"), disk, options);
  const char *script =
      cli_text("$RANKS %s; echo \"[first $?]\"; ls %s/run; mount -o remount,size=16m %s; $RANKS %s --resume; "
               "echo \"[second $?]\"; cp -r %s/run %s",
               line, disk, disk, line, disk, after);
  struct run_result run = with_disk(cli_text("size=%ldk", kilobytes), script);
  const char *first = cli_text("conr: cannot write %s/run/checkpoint-", disk);
  cr_assert(eq(int, cli_count(run.output, first), 1), "%s", run.output);
  cr_assert(eq(int,
               cli_count(run.output, ": No space left on device; free some space or choose another folder (no "
                                     "file was changed)\n"),
               1),
            "%s", run.output);
  cr_assert(eq(int, cli_count(run.output, "[first 1]"), 1), "%s", run.output);
  cr_assert(eq(int, cli_count(run.output, "[second 0]"), 1), "%s", run.output);
  cr_assert(eq(int, cli_count(run.output, ".tmp\n"), 0), "a temporary file was left behind: %s", run.output);
  run_result_free(&run);
  cli_same_runs(whole, after);
}

Test(faults, a_disk_that_is_full_from_the_start) {
  const char *data = cli_data("t.h5", 20), *disk = io_file("disk");
  struct run_result run = with_disk("size=4k", cli_text("$RANKS train %s -o %s/run --epochs 1", data, disk));
  cr_assert(eq(int, run.exit_status, 1), "%s", run.output);
  cr_assert(eq(int, cli_count(run.output, cli_text("conr: cannot write %s/run/", disk)), 1), "%s", run.output);
  run_result_free(&run);
}

/* ---- disks that stall ----------------------------------------------------------------------- */

/* A file system that is frozen takes no more writes, and those who write stand still, as on a network's whose server is
 * gone.  Whatever becomes of this script it is thawed: by the one who waits in a session of his own. */
static const char stalls[] =
    "truncate -s 64M $dir/image && mkfs.ext4 -q $dir/image && mkdir -p $dir/disk && mount -o loop $dir/image $dir/disk"
    " || exit 77\n"
    "fsfreeze -f $dir/disk && fsfreeze -u $dir/disk || { umount $dir/disk; exit 77; }\n"
    "setsid sh -c \"sleep 50; fsfreeze -u $dir/disk; umount $dir/disk\" >/dev/null 2>&1 & guard=$!\n"
    "trap 'fsfreeze -u $dir/disk 2>/dev/null; kill $job 2>/dev/null; wait $job; umount $dir/disk; kill -- -$guard' "
    "EXIT\n"
    "lines() { wc -l <$dir/disk/run/metrics.jsonl; }\n"
    "await() { tries=0; until \"$@\"; do [ $((tries += 1)) -lt 400 ] || exit 1; sleep 0.05; done; }\n"
    "more_than() { [ -e $dir/disk/run/metrics.jsonl ] && [ $(lines) -gt $1 ]; }\n"
    "$command >$dir/said 2>&1 & job=$!\n"
    "await more_than 25\n"
    "fsfreeze -f $dir/disk; sleep 1; before=$(lines); sleep 1; [ $(lines) = $before ] && echo '[stood still]'\n"
    "fsfreeze -u $dir/disk; await more_than $((before + 25)); [ -s $dir/said ] || echo '[went on]'\n"
    "fsfreeze -f $dir/disk; wait $job; echo \"[exit $?]\"; fsfreeze -u $dir/disk && echo '[was still frozen]'\n"
    "gone() { ! grep -qsF $dir/disk/run /proc/[0-9]*/cmdline; }\n"
    "await gone; cat $dir/said; cp -r $dir/disk/run $dir/after\n";

/* A stall that ends is waited for; a long one ends the run, and what writes is let go by the kernel with the stall. */
Test(faults, a_disk_that_stalls_is_waited_for_and_then_named) {
  enum { FOR_EVER = 100000 };
  char conr[RUN_PATH_BYTES];
  struct run_result run;
  const char *after = io_file("after"), *disk = io_file("disk");
  cli_data("t.h5", 60);
  setenv("CONR_STORAGE_TIMEOUT", "3", 1);
  const char *script = io_file("script");
  io_write_text(script,
                cli_text("dir=%s command=\"${MPIEXEC:-mpirun} -n 2 %s %s\"\n%s", io_file(""),
                         run_build_path("conr", conr), command_for(cli_text("%s/run", disk), FOR_EVER), stalls));
  const char *apart = cli_text("unshare -m true || exit 77; exec unshare -m bash %s", script);
  char *const command[] = {"sh", "-c", (char *)apart, NULL};
  run_command(command, 60, &run);
  if (run.exit_status == 77)
    cr_skip("no file system can be mounted and frozen here: it needs root, a loop device, mkfs.ext4 and fsfreeze");
  cr_expect(eq(int, cli_count(run.output, "[stood still]\n[went on]\n[exit 1]\n[was still frozen]\n"), 1), "%s",
            run.output);
  cr_expect(eq(int, cli_count(run.output, "conr: "), 1), "%s", run.output);
  cr_expect(eq(int, cli_count(run.output, "] storage has not answered for "), 1), "%s", run.output);
  cr_expect(strstr(run.output, ": writes ") != NULL, "%s", run.output);
  run_result_free(&run);
  cli_goes_on(2, after, command_for);
}

/* A limit on the size of a file does the same for those who cannot mount: the log grows beyond it. */
Test(faults, a_log_that_cannot_grow_ends_the_run) {
  enum { EPOCHS = 60, LIMIT_BLOCKS = 48 }; /* of 512 bytes */
  char conr[RUN_PATH_BYTES];
  const char *run_folder = io_file("run"), *whole = io_file("whole"), *data = cli_data("t.h5", 60);
  const char *line = cli_text("train %s --hidden 2 --batch 9 --epochs %d --log-steps 1 --quiet", data, EPOCHS);
  cli_accepted(0, cli_text("%s -o %s", line, whole));
  struct stat checkpoint, log;
  cr_assert(stat(cli_last(whole), &checkpoint) == 0 && stat(cli_metrics(whole), &log) == 0);
  cr_assert(lt(i64, checkpoint.st_size, 512 * LIMIT_BLOCKS), "the checkpoint would be the first to fail");
  cr_assert(ge(i64, log.st_size, 2 * 512 * LIMIT_BLOCKS), "the log would fit");
  /* For the rank alone: its launcher needs larger files. */
  const char *script = cli_text("OMPI_MCA_btl=self exec ${MPIEXEC:-mpirun} -n 1 sh -c 'trap \"\" XFSZ; ulimit -f %d; "
                                "\"$@\"; echo \"[exit $?]\"' sh %s %s -o %s",
                                LIMIT_BLOCKS, run_build_path("conr", conr), line, run_folder);
  char *const command[] = {"sh", "-c", (char *)script, NULL};
  struct run_result run;
  run_command(command, 30, &run);
  cr_assert(eq(int, cli_count(run.output, "[exit 1]"), 1), "%s", run.output);
  cr_assert(
      eq(int,
         cli_count(run.output, cli_text("conr: cannot write %s: File too large; free some space and resume the run\n",
                                        cli_metrics(run_folder))),
         1),
      "%s", run.output);
  run_result_free(&run);
  cli_accepted(0, cli_text("%s -o %s --resume", line, run_folder));
  cli_same_runs(whole, run_folder);
}

/* ---- damaged checkpoints -------------------------------------------------------------------- */

static const char *file_of(const char *run, const char *name) {
  return cli_text("%s/checkpoint-%s.h5", run, name);
}

enum damage { FLIPPED_BIT, CUT, EMPTIED, NOISE, REMOVED };

/* The words for it, as they follow the file's name. */
static const char *spoil(const char *path, enum damage damage) {
  size_t bytes;
  char *content = io_read(path, &bytes);
  const char *words = "is not an HDF5 file, or it is damaged or cut short; make it again";
  switch (damage) {
  case FLIPPED_BIT: {
    /* In a parameter: find the bytes of one. */
    struct array_file *file;
    cr_assert(array_file_read(path, true, &file) == STATUS_OK);
    const struct array *weight = array_file_find(file, "layer0.weight");
    char *at = memmem(content, bytes, weight->data, array_bytes(weight));
    cr_assert(at != NULL);
    at[5] ^= 0x10;
    array_file_destroy(&file);
    words = "is damaged: its content has checksum ";
    break;
  }
  case CUT:
    bytes /= 2;
    break;
  case EMPTIED:
    bytes = 0;
    words = "is empty (0 bytes); it was never written to the end, make it again";
    break;
  case NOISE:
    for (size_t i = 0; i < bytes; i++)
      content[i] = (char)(i * 2654435761u >> 7);
    break;
  case REMOVED:
    words = NULL;
    break;
  }
  if (damage == REMOVED)
    cr_assert(unlink(path) == 0);
  else
    io_write(path, content, bytes);
  free(content);
  return words;
}

static void falls_back(enum damage damage) {
  const char *whole = undisturbed(2, 4), *run = io_file("run");
  cli_accepted(2, command_for(run, 3));
  const char *words = spoil(cli_last(run), damage);
  const char *line = cli_text("%s --resume", command_for(run, 4));
  struct run_result result = cli_run(2, line);
  cr_assert(eq(int, result.exit_status, 0), "%s", result.output);
  const char *why = words == NULL ? "it is missing" : cli_text("%s %s", cli_last(run), words);
  cr_assert(eq(int, cli_count(result.output, cli_text("the last checkpoint cannot be used (%s", why)), 1), "%s",
            result.output);
  cr_assert(eq(int, cli_count(result.output, "); going on from the previous one, epoch 3\n"), 1), "%s", result.output);
  run_result_free(&result);
  cli_same_runs(whole, run);
  /* The damaged one has gone where it can do no harm. */
  cr_assert(eq(int, io_exists(file_of(run, "damaged")), damage != REMOVED));
}

Test(faults, a_flipped_bit_falls_back_to_the_previous_checkpoint) {
  falls_back(FLIPPED_BIT);
}

Test(faults, a_checkpoint_cut_short_falls_back_to_the_previous_one) {
  falls_back(CUT);
}

Test(faults, an_empty_checkpoint_falls_back_to_the_previous_one) {
  falls_back(EMPTIED);
}

Test(faults, a_checkpoint_of_random_bytes_falls_back_to_the_previous_one) {
  falls_back(NOISE);
}

Test(faults, a_missing_checkpoint_falls_back_to_the_previous_one) {
  falls_back(REMOVED);
}

/* The run that fell back is killed as soon as it has: the good one must still be there. */
Test(faults, killed_after_falling_back_the_good_one_is_still_there) {
  const char *whole = undisturbed(2, 4), *run = io_file("run");
  cli_accepted(2, command_for(run, 3));
  spoil(cli_last(run), FLIPPED_BIT);
  struct cli_job job;
  const char *line = cli_text("%s --resume", command_for(run, 4)), *damaged = file_of(run, "damaged");
  cli_start(&job, 2, line);
  for (double end = cli_seconds() + 20; cli_seconds() < end && !io_exists(damaged);)
    usleep(200);
  cli_kill_all(&job);
  cli_wait(&job);
  cli_job_free(&job);
  cr_assert(io_exists(damaged));
  cli_accepted(2, line);
  cli_same_runs(whole, run);
}

Test(faults, two_damaged_checkpoints_are_refused) {
  const char *run = undisturbed(2, 3);
  spoil(cli_last(run), FLIPPED_BIT);
  spoil(file_of(run, "previous"), CUT);
  cli_refused(
      3, 1, cli_text("%s is not an HDF5 file, or it is damaged or cut short; make it again", file_of(run, "previous")),
      cli_text("%s --resume", command_for(run, 4)));
}

Test(faults, evaluation_of_a_damaged_checkpoint_is_refused) {
  const char *run = undisturbed(0, 1);
  spoil(file_of(run, "best"), CUT);
  cli_refused(3, 1,
              cli_text("%s is not an HDF5 file, or it is damaged or cut short; make it again", file_of(run, "best")),
              cli_text("eval %s %s", run, io_file("t.h5")));
}

/* ---- checkpoints of another kind ------------------------------------------------------------ */

/* Write the last checkpoint again with one thing changed, and leave no other to fall back on. */
static void forge(const char *run, void change(struct array_file *file)) {
  struct array_file *file;
  cr_assert(array_file_read(cli_last(run), true, &file) == STATUS_OK, "%s", status_message());
  change(file);
  cr_assert(array_file_write(cli_last(run), file->arrays, file->array_count, file->attributes, file->attribute_count) ==
                STATUS_OK,
            "%s", status_message());
  array_file_destroy(&file);
  unlink(file_of(run, "previous"));
}

static struct attribute *attribute_of(struct array_file *file, const char *name) {
  for (size_t i = 0; i < file->attribute_count; i++)
    if (strcmp(file->attributes[i].name, name) == 0)
      return &file->attributes[i];
  cr_fatal("no attribute %s", name);
}

static void newer_version(struct array_file *file) {
  attribute_of(file, "conr_version")->integer = 4;
}

static void other_shape(struct array_file *file) {
  struct array *weight = (struct array *)array_file_find(file, "layer0.weight");
  weight->shape[1]--; /* of fewer inputs */
}

static void no_epoch(struct array_file *file) {
  strcpy((char *)attribute_of(file, "epoch")->name, "hcope");
}

static void other_statistics(struct array_file *file) {
  ((struct array *)array_file_find(file, "standardise/mean"))->shape[0]--;
}

static void negative_inputs(struct array_file *file) {
  attribute_of(file, "model_inputs")->integer = -6;
}

static void removed_option(struct array_file *file) {
  memcpy((char *)attribute_of(file, "options")->text, "forked", strlen("forked")); /* was "output" */
}

static void refused_when_forged(void change(struct array_file *file), int exit_status, const char *sentence,
                                bool resume) {
  const char *run = undisturbed(0, 1);
  forge(run, change);
  cli_refused(3, exit_status, cli_text(sentence, cli_last(run)),
              resume ? cli_text("%s --resume", command_for(run, 2))
                     : cli_text("eval %s %s --checkpoint last", run, io_file("t.h5")));
}

Test(faults, a_checkpoint_of_another_version_is_refused) {
  refused_when_forged(newer_version, 1, "%s is a checkpoint of format version 4; this program reads versions 1 to 3",
                      true);
}

Test(faults, a_checkpoint_of_another_version_is_not_evaluated) {
  refused_when_forged(newer_version, 1, "%s is a checkpoint of format version 4; this program reads versions 1 to 3",
                      false);
}

Test(faults, a_checkpoint_of_another_shape_is_refused) {
  refused_when_forged(
      other_shape, 1,
      "\"layer0.weight\" is [16, 5] in %s but [16, 6] in the model; give the same --model and --hidden as then", true);
}

Test(faults, a_checkpoint_of_another_shape_is_not_evaluated) {
  refused_when_forged(
      other_shape, 1,
      "\"layer0.weight\" is [16, 5] in %s but [16, 6] in the model; give the same --model and --hidden as then", false);
}

Test(faults, a_checkpoint_that_lacks_something_is_refused) {
  refused_when_forged(no_epoch, 1,
                      "%s has no integer attribute \"epoch\"; it was made for something else, or by another version",
                      true);
}

Test(faults, statistics_of_another_length_are_refused) {
  refused_when_forged(
      other_statistics, 1,
      "\"standardise/mean\" in %s must be 6 float64 numbers, one for each input; use another checkpoint", false);
}

Test(faults, an_absurd_number_of_inputs_is_refused) {
  refused_when_forged(negative_inputs, 1, "%s says the model has -6 inputs; use another checkpoint", false);
}

Test(faults, an_option_that_is_no_more_is_refused) {
  refused_when_forged(removed_option, 2,
                      "--resume of a run that was begun with --forked, which this conr does not have; start a new run",
                      true);
}

/* ---- ranks that die ------------------------------------------------------------------------- */

/* One rank of three is killed in the middle of its steps. */
static void dies(int rank) {
  struct cli_job job;
  const char *run = io_file("run");
  cli_data("t.h5", 60);
  cli_start(&job, 3, command_for(run, 100000));
  cli_await_lines(cli_metrics(run), 25);
  kill(cli_rank_pid(&job, rank), SIGKILL);
  double begin = cli_seconds();
  int exit_status = cli_wait(&job);
  double took = cli_seconds() - begin;
  cr_assert(ne(int, exit_status, 0));
  cr_assert(ne(int, exit_status, RUN_TIMED_OUT));
  cr_assert(le(dbl, took, 10), "the job ended only after %g s", took);
  for (int other = 0; other < 3; other++)
    cr_assert(cli_is_gone(cli_rank_pid(&job, other), 5), "rank %d is still there", other);
  cli_job_free(&job);
  /* The last checkpoint is whole, and the run goes on from it. */
  cli_same_arrays(cli_last(run), cli_last(run), 0);
  cli_goes_on(3, run, command_for);
}

Test(faults, the_first_rank_dies) {
  dies(0);
}

Test(faults, another_rank_dies) {
  dies(2);
}
