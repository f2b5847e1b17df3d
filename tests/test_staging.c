/* --stage, as a user gives it: the same bits, one copy a host, and what becomes of it. */
#include "io_files.h"
#include "support_cli.h"
#include "support_hosts.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(staging, .init = cli_begin, .fini = cli_end, .timeout = 150);

static const char options[] = "--hidden 16,16 --batch 9 --epochs 3 --conr --dropout 0.2 --log-steps 1";

/* The file of this kind in the folder, and how many files there are. */
static const char *find(const char *folder, const char *end, int *count) {
  const char *found = NULL;
  DIR *list = opendir(folder);
  *count = 0;
  for (struct dirent *entry; (entry = readdir(list)) != NULL;) {
    size_t length = strlen(entry->d_name);
    *count += entry->d_name[0] != '.';
    if (length > strlen(end) && strcmp(entry->d_name + length - strlen(end), end) == 0)
      found = cli_text("%s/%s", folder, entry->d_name);
  }
  closedir(list);
  return found;
}

static const char *local_folder(void) {
  const char *folder = io_file("local");
  mkdir(folder, 0777);
  return folder;
}

static int files_in(const char *folder) {
  int count;
  find(folder, "", &count);
  return count;
}

static void says(int ranks, const char *line, int exit_status, const char *words) {
  struct run_result run = cli_run(ranks, line);
  cr_assert(eq(int, run.exit_status, exit_status), "conr %s:\n%s", line, run.output);
  cr_assert(eq(int, cli_count(run.output, words), 1), "not once: \"%s\" in\n%s", words, run.output);
  run_result_free(&run);
}

/* Three ranks of a host: the copy that was made is one, and it is what they read. */
Test(staging, a_staged_run_has_the_same_bits_and_remembers_the_path_it_was_given) {
  const char *data = cli_data("t.h5", 120), *folder = local_folder(), *run = io_file("run"), *plain = io_file("plain");
  int count;
  says(3, cli_text("train %s -o %s %s --stage %s", data, run, options, folder), 0, " on 1 host, copied in ");
  cli_accepted(3, cli_text("train %s -o %s %s", data, plain, options));
  cli_same_runs(plain, run);
  const char *copy = find(folder, ".h5", &count);
  cr_assert(copy != NULL && count == 3, "%d files", count);
  char *used = io_read(cli_text("%s/config.used", run), NULL);
  cr_expect(eq(int, cli_count(used, cli_text("# data %s, hash ", data)), 1), "%s", used);
  cr_expect(eq(int, cli_count(used, cli_text(" MB in %s on 1 host, copied in ", copy)), 1), "%s", used);
  free(used);
  char *log = io_read(cli_metrics(run), NULL);
  cr_expect(eq(int, cli_count(log, "{\"event\":\"stage\",\"step\":0,\"bytes\":"), 1), "%s", log);
  cr_expect(strstr(log, ",\"hosts\":1,\"copied_hosts\":1,\"seconds\":") != NULL, "%s", log);
  free(log);
  /* The file itself may go away meanwhile to nobody's harm: what is read is the copy. */
  char *first = cli_output(0, cli_text("eval %s %s --json", run, data));
  char *second = cli_output(2, cli_text("eval %s %s --json --stage %s", run, data, folder));
  cr_expect(eq(int, (int)strlen(first), (int)strlen(second)));
  free(second);
  free(first);
  says(2, cli_text("predict %s %s --stage %s -o %s --stage-clean", run, data, folder, io_file("p.csv")), 0,
       " on 1 host, where it was already, compared in ");
  cr_expect(eq(int, files_in(folder), 0));
}

Test(staging, a_damaged_copy_is_made_again) {
  const char *data = cli_data("t.h5", 60), *folder = local_folder(), *run = io_file("run");
  const char *line = cli_text("train %s -o %s --epochs 1 --force --stage %s", data, run, folder);
  int count;
  size_t bytes;
  cli_accepted(0, line);
  const char *copy = find(folder, ".h5", &count);
  char *content = io_read(copy, &bytes);
  content[bytes / 2] ^= 1;
  io_write(copy, content, bytes);
  free(content);
  says(2, line, 0, cli_text("the copy %s was damaged, and was made again\n", copy));
}

Test(staging, the_copy_is_removed_after_success_failure_and_signal) {
  const char *data = cli_data("t.h5", 60), *folder = local_folder(), *run = io_file("run");
  const char *clean = cli_text("--stage %s --stage-clean", folder);
  cli_accepted(2, cli_text("train %s -o %s --epochs 1 %s", data, run, clean));
  cr_expect(eq(int, files_in(folder), 0));
  says(2, cli_text("train %s -o %s --epochs 1 %s", data, run, clean), 2, "already holds a run; give --resume");
  cr_expect(eq(int, files_in(folder), 0), "after a failure");
  const char *other = io_file("other");
  struct cli_job job;
  cli_start(&job, 0, cli_text("train %s -o %s --epochs 100000 --log-steps 1 %s", data, other, clean));
  cli_await_lines(cli_metrics(other), 3);
  cr_assert(eq(int, files_in(folder), 3));
  kill(cli_rank_pid(&job, 0), SIGTERM);
  cr_assert(eq(int, cli_wait(&job), 75), "%s", job.result.output);
  cli_job_free(&job);
  cr_expect(eq(int, files_in(folder), 0), "after a signal");
  cli_refused(2, 2, "--stage-clean without --stage removes nothing; give the folder, or drop it",
              cli_text("train %s -o %s --stage-clean", data, io_file("third")));
}

/* Another job holds the lock for ever: the one that waits can be stopped, and requeues. */
Test(staging, a_job_that_waits_for_a_copy_can_be_stopped) {
  const char *data = cli_data("t.h5", 60), *folder = local_folder(), *run = io_file("run");
  const char *line = cli_text("train %s -o %s --epochs 2 --stage %s", data, run, folder);
  int count;
  cli_accepted(0, cli_text("train %s -o %s --epochs 1 --stage %s", data, io_file("first"), folder));
  int lock = open(find(folder, ".lock", &count), O_RDWR);
  cr_assert(lock >= 0 && flock(lock, LOCK_EX) == 0);
  struct cli_job job;
  cli_start(&job, 0, line);
  pid_t pid = cli_rank_pid(&job, 0);
  usleep(300000);
  kill(pid, SIGTERM);
  cr_assert(eq(int, cli_wait(&job), 75), "%s", job.result.output);
  cr_expect(eq(int, cli_count(job.result.output, "stopped by a signal while "), 1), "%s", job.result.output);
  cli_job_free(&job);
  cr_expect(not(io_exists(cli_metrics(run))));
  close(lock);
  cli_accepted(0, line);
}

Test(staging, two_jobs_at_once_make_one_copy) {
  const char *data = cli_data("t.h5", 120), *folder = local_folder();
  struct cli_job jobs[2];
  int copied = 0;
  for (int i = 0; i < 2; i++)
    cli_start(&jobs[i], 2,
              cli_text("train %s -o %s %s --stage %s", data, io_file(cli_text("run%d", i)), options, folder));
  for (int i = 0; i < 2; i++) {
    cr_assert(eq(int, cli_wait(&jobs[i]), 0), "%s", jobs[i].result.output);
    copied += cli_count(jobs[i].result.output, "copied in ");
    cli_job_free(&jobs[i]);
  }
  cr_assert(eq(int, copied, 1));
  cli_same_runs(io_file("run0"), io_file("run1"));
}

/* ---- disks and hosts ------------------------------------------------------------------------- */

Test(staging, a_disk_without_room_is_refused_before_anything_is_copied) {
  hosts_wanted();
  const char *data = cli_data("t.h5", 2000), *folder = local_folder();
  char *output = hosts_run(2,
                           "data=%s folder=%s run=%s\n"
                           "on host1 mount -t tmpfs -o size=4m tmpfs $folder\n"
                           "on host2 mount -t tmpfs -o size=16k tmpfs $folder\n"
                           "ranks train $data -o $run --stage $folder --preflight off || true\n"
                           "ranks train $data -o $run --stage $folder || true\n"
                           "echo \"[$(on host2 ls $folder)]\"\n",
                           data, folder, io_file("run"));
  cr_expect(eq(int, cli_count(output, cli_text("conr: on host2: cannot stage to %s: the copy takes ", folder)), 1),
            "%s", output);
  cr_expect(eq(int, cli_count(output, cli_text("conr: cannot stage to %s: the copy takes ", folder)), 1), "%s", output);
  cr_expect(eq(int, cli_count(output, " MB are left; free some space or choose another folder (on host2)\n"), 1), "%s",
            output);
  cr_expect(eq(int, cli_count(output, "[exit 1 "), 4), "%s", output);
  cr_expect(strstr(output, ".tmp") == NULL && strstr(output, ".sums") == NULL, "%s", output);
  cr_expect(not(io_exists(io_file("run"))));
  free(output);
}

Test(staging, each_host_has_its_copy_and_hosts_with_one_folder_have_one) {
  hosts_wanted();
  const char *data = cli_data("t.h5", 120), *own = io_file("own"), *shared = local_folder(), *run = io_file("run");
  mkdir(own, 0777);
  char *output =
      hosts_run(3,
                "data=%s own=%s shared=%s run=%s\n"
                "for host in $CLUSTER_HOSTS; do on $host mount -t tmpfs tmpfs $own; done\n"
                "ranks train $data -o $run %s --stage $own\n"
                "for host in $CLUSTER_HOSTS; do on $host sh -c \"cmp $own/*.h5 $data && echo [whole]\"; done\n"
                "ranks eval $run $data --stage $shared\n",
                data, own, shared, run, options);
  cr_expect(eq(int, cli_count(output, "[whole]\n"), 3), "%s", output);
  cr_expect(eq(int, cli_count(output, " on 3 hosts, copied in "), 1), "%s", output);
  cr_expect(eq(int, cli_count(output, " on 3 hosts, copied where it was not in "), 1), "%s", output);
  cr_expect(eq(int, files_in(shared), 3));
  free(output);
  cli_accepted(3, cli_text("train %s -o %s %s", data, io_file("plain"), options));
  cli_same_arrays(cli_last(io_file("plain")), cli_last(run), 1e-5);
}
