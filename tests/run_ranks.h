/* Start a program, alone or as the ranks of an MPI job, and keep what it wrote.
 *
 * Criterion runs each test in a process of its own, and an MPI program that fails inside one takes the others into its
 * time limit.  So what needs several ranks is a program of its own, tests/ranks/rank_x.c, that ends non-zero (or by
 * MPI_Abort) when it finds a fault, and a test starts it:
 *
 *     struct run_result run;
 *     const char *const arguments[] = {"--uneven", NULL};
 *     cr_assert(eq(int, run_ranks(3, "rank_comm", arguments, &run), 0), "%s", run.output);
 *     run_result_free(&run);
 *
 * and so for the program itself:
 *
 *     char conr[RUN_PATH_BYTES];
 *     char *const command[] = {run_build_path("conr", conr), "info", NULL};
 *     cr_assert(eq(int, run_command(command, 30, &run), 0), "%s", run.output);
 *
 * A run starts with an empty standard input, in the caller's folder and with its environment, less what belongs to
 * Criterion and to an MPI job the caller may itself be; what mpirun needs as root and on few cores is added where the
 * environment does not say otherwise.  It dies with its caller.  All functions are for one thread; none asserts. */
#ifndef CONR_TESTS_RUN_RANKS_H
#define CONR_TESTS_RUN_RANKS_H

#include <stdbool.h>
#include <stddef.h>

enum {
  RUN_TIMED_OUT = 124,      /* exit status of a run that was ended at its time limit   */
  RUN_NOT_STARTED = 127,    /* of one that could not be started; the output says why   */
  RUN_DEFAULT_SECONDS = 60, /* time limit of run_ranks()                               */
  RUN_PATH_BYTES = 4096
};

struct run_result {
  int exit_status; /* of the program; 128 + number for a signal; or one of the two above            */
  bool timed_out;
  double seconds;      /* from start to end                                                             */
  char *output;        /* standard output and error as they came, ended by '\0'; owned, never NULL      */
  size_t output_bytes; /* without that '\0'; output beyond 16 MiB is dropped                            */
};

/* Run `program` on `ranks` ranks and wait; returns the exit status, 0 only when every rank returned 0.
 * program    its name in the tests folder of the build, such as "rank_comm", or an absolute path
 * arguments  ended by NULL; NULL for none
 * result     filled in every case, for run_result_free(); NULL: the output of a failed run goes to stderr.
 * The launcher is the environment's MPIEXEC (several words are allowed), or mpirun. */
int run_ranks(int ranks, const char *program, const char *const *arguments, struct run_result *result);

/* The same with a time limit of its own.  Keep it below the test's .timeout: at the limit the whole job is ended and
 * its output kept, which Criterion's own limit cannot do. */
int run_ranks_within(double seconds, int ranks, const char *program, const char *const *arguments,
                     struct run_result *result);

/* Run a command without a launcher.  argv ends by NULL; argv[0] is looked up in PATH. */
int run_command(char *const argv[], double seconds, struct run_result *result);

/* Free what a run left; leaves an empty result, and may be called on one. */
void run_result_free(struct run_result *result);

/* Path of a file of the build, such as "conr" or "tests/rank_comm": below the environment's CONR_BUILD, else below the
 * folder above that of the running test.  Returns `path`; "" when it would not fit. */
char *run_build_path(const char *name, char path[RUN_PATH_BYTES]);

#endif
