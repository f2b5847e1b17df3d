/* The program as a user starts it: a command line, alone or on several ranks, and what it says.
 *
 *     TestSuite(cli_train, .init = cli_begin, .fini = cli_end, .timeout = 60);
 *
 *     const char *data = cli_data("t.h5", 60);                          a small table, imported
 *     cli_accepted(3, cli_text("train %s -o %s --epochs 2", data, io_file("run")));
 *     cli_refused(3, 2, "--batch 2 is smaller than the 3 ranks; give at least one sample to each",
 *                 cli_text("train %s -o %s --batch 2", data, io_file("other")));
 *
 * A line is what a shell would be given after "conr"; quotes and redirections are its own.  ranks is the number given
 * to mpirun, or 0 for no launcher.  Every start has a time limit, so what hangs fails.  Files lie in the test's folder
 * (io_files.h), and so does what MPI leaves behind when it is killed.
 *
 * A run that is to be disturbed is a job:
 *
 *     struct cli_job job;
 *     cli_start(&job, 2, cli_text("train %s -o %s --log-steps 1", data, run));
 *     cli_await_lines(cli_metrics(run), 12);
 *     kill(cli_rank_pid(&job, 1), SIGKILL);
 *     int exit_status = cli_wait(&job);                                 job.result holds output and seconds
 *     cli_job_free(&job);
 *
 * All functions assert, and are for one thread. */
#ifndef CONR_TESTS_SUPPORT_CLI_H
#define CONR_TESTS_SUPPORT_CLI_H

#include "run_ranks.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* The folder of io_files.h, one thread for each rank, and MPI's files in that folder. */
void cli_begin(void);
void cli_end(void);

/* A text in printf's way; valid until the test ends. */
const char *cli_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- files ---- */

/* Columns a, b, c (numbers), kind (u, v, w), y (a function of them) and split (3 of 5 rows train, 1 val, 1 test). */
void cli_write_csv(const char *path, int rows);

/* The same imported as the HDF5 file `name` of the test's folder; returns its path. */
const char *cli_data(const char *name, int rows);

/* Paths in a run folder. */
const char *cli_last(const char *run);
const char *cli_metrics(const char *run);

/* ---- one start ---- */

/* Run and keep everything; 60 seconds.  With ranks > 0 the exit status is the one all ranks had, or, when they
 * differ or were ended by MPI, the launcher's.  run_result_free() it. */
struct run_result cli_run(int ranks, const char *line);

/* It must end with 0. */
void cli_accepted(int ranks, const char *line);

/* The same, and standard output is returned; free() it. */
char *cli_output(int ranks, const char *line);

/* It must end with this status on every rank, and say "conr: " and the sentence, once, and no other sentence. */
void cli_refused(int ranks, int exit_status, const char *sentence, const char *line);

/* One rank alone fails: "conr: [rank r/n host] " and the sentence, once; the job ends, not with 0. */
void cli_aborted(int ranks, int rank, const char *sentence, const char *line);

/* How often does the text occur? */
int cli_count(const char *haystack, const char *needle);

/* ---- jobs ---- */

struct cli_job {
  int ranks;
  char *script; /* owned */
  char folder[128];
  pthread_t thread;
  double seconds; /* time limit */
  struct run_result result;
};

/* Start without waiting.  The exit status is the launcher's own. */
void cli_start(struct cli_job *job, int ranks, const char *line);
void cli_start_within(struct cli_job *job, double seconds, int ranks, const char *line);

/* The process of a rank (0 without a launcher), and the launcher's; waits until it has one. */
pid_t cli_rank_pid(const struct cli_job *job, int rank);
pid_t cli_launcher_pid(const struct cli_job *job);

/* Wait until the file has so many lines; fails after 30 s. */
void cli_await_lines(const char *path, int lines);
int cli_lines(const char *path);

/* Wait for the end; returns the exit status. */
int cli_wait(struct cli_job *job);
void cli_job_free(struct cli_job *job);

/* A port of TCP that nobody listens on, a moment ago. */
int cli_free_port(void);

/* Seconds of a clock that only goes forward. */
double cli_seconds(void);

/* Kill the launcher and all ranks with -9. */
void cli_kill_all(const struct cli_job *job);

/* Has the process ended within so many seconds, be it that nobody has asked for its status yet? */
bool cli_is_gone(pid_t pid, double seconds);

/* conr train, whose last rank is killed once its metrics.jsonl has `lines` lines, and which is then resumed to its end. */
void cli_killed_and_resumed(int ranks, int lines, const char *data, const char *run, const char *options);

/* ---- comparison ---- */

/* The number behind a key of the last line of the run's metrics.jsonl; NaN for null. */
double cli_last_metric(const char *run, const char *key);

/* Two checkpoints hold the same arrays: parameters, optimiser, standardisation.
 * tolerance  0: bit for bit; else the largest difference in each array, relative to its largest value */
void cli_same_arrays(const char *path_a, const char *path_b, double tolerance);

/* Two metrics.jsonl hold the same lines, times and rates, and what is said of staging, apart. */
void cli_same_metrics(const char *path_a, const char *path_b);

/* The run, which was ended, goes on from its last checkpoint, on so many ranks, two epochs further than it had come, to
 * the bits of one that nothing ended.  line(run, epochs): the training in that folder. */
void cli_goes_on(int ranks, const char *run, const char *(*line)(const char *run, int epochs));

/* Bit for bit the same end: checkpoint-last.h5 and metrics.jsonl. */
void cli_same_runs(const char *run_a, const char *run_b);

#endif
