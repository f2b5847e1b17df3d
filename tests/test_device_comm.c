/* Communicators on device memory: tests/ranks/rank_device_comm.c and rank_device_lost.c hold the cases.  Here without
 * GPUs, on the emulation (tests/emulate), where each rank has one of four. */
#define _GNU_SOURCE /* memmem, nftw */
#include "tests/emulated.h"
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MOST_RANKS = 4, RUN_SECONDS = 120 };

static char folder[64]; /* for what the runs leave */

static void begin(void) {
  if (!emulated_use())
    cr_skip("there is no emulated CUDA library");
  strcpy(folder, "/tmp/test-device-comm-XXXXXX");
  cr_assert(ne(ptr, mkdtemp(folder), NULL));
  setenv("EMULATED_CUDA_DEVICES", "4", 1);
  setenv("EMULATED_NCCL_FOLDER", folder, 1);
  /* What a rank that is killed leaves goes with the folder, and not into the memory that all programs share. */
  setenv("OMPI_MCA_btl_vader_backing_directory", folder, 1);
  setenv("OMPI_MCA_osc_sm_backing_directory", folder, 1);
}

static int remove_one(const char *path, const struct stat *facts, int kind, struct FTW *place) {
  (void)facts;
  (void)kind;
  (void)place;
  return remove(path);
}

static void end(void) {
  nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

TestSuite(device_comm, .init = begin, .fini = end, .timeout = 900);

static void expect_no_fault_of(const char *program, int ranks, const char *const *words) {
  struct run_result run;
  int exit_status = run_ranks_within(RUN_SECONDS, ranks, program, words, &run);
  cr_expect(eq(int, exit_status, 0), "%s on %d ranks%s:\n%s", words[0], ranks,
            run.timed_out ? ", ended at the time limit" : "", run.output);
  run_result_free(&run);
}

static void expect_no_fault(int ranks, const char *const *words) {
  expect_no_fault_of("rank_device_comm", ranks, words);
}

#define WORDS(...)        \
  (const char *const[]) { \
    __VA_ARGS__, NULL     \
  }

Test(device_comm, by_mpi_every_collective_is_the_hosts) {
  for (int ranks = 1; ranks <= MOST_RANKS; ranks++)
    expect_no_fault(ranks, WORDS("list", "mpi"));
}

Test(device_comm, by_nccl_every_collective_is_the_hosts) {
  for (int ranks = 1; ranks <= MOST_RANKS; ranks++)
    expect_no_fault(ranks, WORDS("list", "nccl"));
}

/* The promises of all communicators, with the host in place of a GPU. */
Test(device_comm, what_is_copied_aside_for_mpi_keeps_every_promise) {
  for (int ranks = 1; ranks <= MOST_RANKS; ranks++) {
    struct run_result run;
    cr_expect(eq(int, run_ranks(ranks, "rank_comm", WORDS("list", "staged"), &run), 0), "%d ranks:\n%s", ranks,
              run.output);
    run_result_free(&run);
  }
}

/* The emulation does nothing before somebody waits: without the events between the streams the list would have
 * failed. */
Test(device_comm, without_events_the_sums_would_be_wrong) {
  expect_no_fault(2, WORDS("unordered", "mpi"));
  expect_no_fault(3, WORDS("unordered", "nccl"));
}

Test(device_comm, nccl_is_chosen_where_each_rank_has_a_gpu) {
  expect_no_fault(1, WORDS("choice"));
  expect_no_fault(3, WORDS("choice"));
}

Test(device_comm, ranks_that_share_a_gpu_take_mpi) {
  setenv("EMULATED_CUDA_DEVICES", "1", 1);
  expect_no_fault(2, WORDS("shared"));
  expect_no_fault(3, WORDS("shared"));
}

/* A copy of the library in which the name cannot be found. */
static void copy_without_nccl(const char *path) {
  static const char name[] = "conr_cuda_comm_nccl";
  char library[RUN_PATH_BYTES];
  FILE *file = fopen(run_build_path("libconr-cuda-emulated.so", library), "rb");
  cr_assert(file != NULL && fseek(file, 0, SEEK_END) == 0);
  size_t bytes = (size_t)ftell(file);
  char *data = malloc(bytes), *next = data, *found;
  rewind(file);
  cr_assert(data != NULL && fread(data, 1, bytes, file) == bytes);
  fclose(file);
  while ((found = memmem(next, bytes - (size_t)(next - data), name, sizeof name)) != NULL) {
    memcpy(found, "nothing", 7);
    next = found + sizeof name;
  }
  cr_assert(ne(ptr, next, data));
  file = fopen(path, "wb");
  cr_assert(file != NULL && fwrite(data, 1, bytes, file) == bytes && fclose(file) == 0);
  free(data);
}

Test(device_comm, without_nccl_on_one_rank_all_take_mpi) {
  char path[100];
  snprintf(path, sizeof path, "%s/libconr-cuda-emulated.so", folder);
  copy_without_nccl(path);
  setenv("CONR_WITHOUT_NCCL", path, 1);
  expect_no_fault(1, WORDS("without-nccl"));
  expect_no_fault(3, WORDS("without-nccl"));
}

Test(device_comm, the_id_of_nccl_may_go_by_a_file) {
  char path[100];
  snprintf(path, sizeof path, "%s/id", folder);
  expect_no_fault(1, WORDS("id-file", path));
  expect_no_fault(3, WORDS("id-file", path));
}

Test(device_comm, the_id_of_nccl_may_go_by_tcp) {
  expect_no_fault(1, WORDS("id-address"));
  expect_no_fault(3, WORDS("id-address"));
}

Test(device_comm, a_collective_that_hangs_is_found_and_named) {
  static const char *const ways[] = {"wait", "progress", "check"};
  for (int i = 0; i < 3; i++)
    expect_no_fault_of("rank_device_lost", 3, WORDS("hang", ways[i]));
  expect_no_fault_of("rank_device_lost", 1, WORDS("hang", "wait"));
}

Test(device_comm, a_collective_that_hangs_is_named_although_giving_up_hangs_too) {
  expect_no_fault_of("rank_device_lost", 2, WORDS("hang", "stuck"));
}

Test(device_comm, an_error_that_nccl_reports_is_found_and_named) {
  expect_no_fault_of("rank_device_lost", 1, WORDS("error"));
  expect_no_fault_of("rank_device_lost", 3, WORDS("error"));
}

/* ---- a rank that is killed ---- */

/* From the death of the rank on, and not the 300 s that a collective may take. */
enum { SECONDS_TO_END = 10 };

/* What the ranks left in the folder; NULL = no such file.  free() it. */
static char *word_of(const char *name) {
  char path[100], text[1000] = "";
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "r");
  if (file == NULL)
    return NULL;
  size_t length = fread(text, 1, sizeof text - 1, file);
  text[length] = '\0';
  fclose(file);
  unlink(path);
  return strdup(text);
}

static void run_killed(const char *transport, struct run_result *run, int *exit_status) {
  struct timespec time;
  *exit_status = run_ranks_within(RUN_SECONDS, 3, "rank_device_lost", WORDS("killed", transport, folder), run);
  clock_gettime(CLOCK_MONOTONIC, &time);
  char *died = word_of("died");
  double now = (double)time.tv_sec + 1e-9 * (double)time.tv_nsec, after = died != NULL ? now - atof(died) : 1e9;
  cr_expect(le(dbl, after, SECONDS_TO_END), "%s: ended %g s after the rank:\n%s", transport, after, run->output);
  free(died);
}

/* The launcher ends the others. */
Test(device_comm, a_killed_rank_ends_the_job) {
  static const char *const transports[] = {"mpi", "nccl"};
  for (int i = 0; i < 2; i++) {
    struct run_result run;
    int exit_status;
    run_killed(transports[i], &run, &exit_status);
    cr_expect(exit_status != 0, "%s: %d:\n%s", transports[i], exit_status, run.output);
    run_result_free(&run);
  }
}

/* "... the sum number 6 ... is not over after 2.1 s ..." */
static void names_the_sum(const char *transport, const char *sentence, const char *output) {
  static const char after[] = "is not over after ";
  const char *place = sentence != NULL ? strstr(sentence, after) : NULL;
  bool named = place != NULL && strstr(sentence, "the sum number 6 ") != NULL && atof(place + strlen(after)) >= 2;
  cr_expect(named, "%s: \"%s\":\n%s", transport, sentence != NULL ? sentence : "nothing", output);
}

/* A launcher that leaves the others alone: they find out by themselves, and say so.  The first that does ends the job.
 * (What mpirun then returns is its own affair.) */
Test(device_comm, after_a_killed_rank_the_others_end_by_themselves) {
  static const char *const transports[] = {"mpi", "nccl"};
  if (getenv("MPIEXEC") != NULL)
    cr_skip("this is a matter of Open MPI's mpirun, and MPIEXEC names another launcher");
  setenv("MPIEXEC", "mpirun --mca orte_enable_recovery 1", 1);
  for (int i = 0; i < 2; i++) {
    struct run_result run;
    int exit_status;
    run_killed(transports[i], &run, &exit_status);
    char *first = word_of("rank0"), *second = word_of("rank1");
    names_the_sum(transports[i], first != NULL && *first != '\0' ? first : second, run.output);
    free(second);
    free(first);
    run_result_free(&run);
  }
}
