#define _GNU_SOURCE /* execvpe, pipe2 */

#include "tests/run_ranks.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { OUTPUT_MOST_BYTES = 16 << 20, POLL_MILLISECONDS = 20 };

extern char **environ;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Where nothing else can be done: a test without memory is a failed test. */
static void *must(void *block) {
  if (block == NULL) {
    fputs("run_ranks: out of memory\n", stderr);
    abort();
  }
  return block;
}

/* ---------------------------------------------------------------- environment of a run */

/* Not handed down: BoxFort's map makes a Criterion child of whatever starts with it, and the rest makes a rank of this
 * process' own job of it. */
static const char *const dropped[] = {
    "BXFI_MAP=", "PMIX_", "PMI_", "OMPI_COMM_WORLD_", "OMPI_MCA_ess", "OMPI_MCA_orte_", "OMPI_UNIVERSE_SIZE="};

/* Added unless set: mpirun as root, more ranks than cores, threads that share cores fairly. */
static const char *const defaults[] = {
    "OMPI_ALLOW_RUN_AS_ROOT=1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
    "OMPI_MCA_rmaps_base_oversubscribe=1",
    "OMPI_MCA_hwloc_base_binding_policy=none",
    "OMPI_MCA_mpi_yield_when_idle=1",
    "OMP_WAIT_POLICY=passive",
    "PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe",
};

enum { DROPPED = sizeof dropped / sizeof *dropped, DEFAULTS = sizeof defaults / sizeof *defaults };

static bool is_dropped(const char *variable) {
  for (size_t i = 0; i < DROPPED; i++)
    if (strncmp(variable, dropped[i], strlen(dropped[i])) == 0)
      return true;
  return false;
}

static bool is_set(const char *assignment) {
  size_t name_bytes = strcspn(assignment, "=") + 1;
  for (char **variable = environ; *variable != NULL; variable++)
    if (strncmp(*variable, assignment, name_bytes) == 0)
      return true;
  return false;
}

/* The environment of the child: an array to free; its strings are borrowed. */
static char **child_environment(void) {
  size_t count = 0, kept = 0;
  while (environ[count] != NULL)
    count++;
  char **list = must(malloc((count + DEFAULTS + 1) * sizeof *list));
  for (size_t i = 0; i < count; i++)
    if (!is_dropped(environ[i]))
      list[kept++] = environ[i];
  for (size_t i = 0; i < DEFAULTS; i++)
    if (!is_set(defaults[i]))
      list[kept++] = (char *)defaults[i];
  list[kept] = NULL;
  return list;
}

/* ---------------------------------------------------------------- one run */

struct run {
  pid_t pid;     /* also the number of its process group */
  int output_fd; /* read end, does not block             */
  bool at_end;   /* all writers have closed it           */
};

static void output_append(struct run_result *result, const char *bytes, size_t count) {
  if (result->output_bytes + count > OUTPUT_MOST_BYTES)
    count = OUTPUT_MOST_BYTES - result->output_bytes;
  result->output = must(realloc(result->output, result->output_bytes + count + 1));
  memcpy(result->output + result->output_bytes, bytes, count);
  result->output_bytes += count;
  result->output[result->output_bytes] = '\0';
}

/* Become the program.  Nothing here allocates: the caller may have threads, and this is a fork of one of them. */
static void child(char *const argv[], char **environment, int output_fd, pid_t parent) {
  int nothing = open("/dev/null", O_RDONLY);
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent || nothing < 0 || dup2(nothing, 0) < 0 || dup2(output_fd, 1) < 0 || dup2(output_fd, 2) < 0)
    _exit(RUN_NOT_STARTED);
  execvpe(argv[0], argv, environment);
  static const char before[] = "cannot start ", between[] = ": ";
  const char *why = strerror(errno);
  ssize_t written = write(2, before, sizeof before - 1);
  written += write(2, argv[0], strlen(argv[0]));
  written += write(2, between, sizeof between - 1);
  written += write(2, why, strlen(why));
  written += write(2, "\n", 1);
  _exit(written < 0 ? 1 : RUN_NOT_STARTED);
}

/* False, with the reason in the output, when no process can be made. */
static bool start(char *const argv[], struct run *run, struct run_result *result) {
  int ends[2];
  pid_t parent = getpid();
  char **environment = child_environment();
  bool piped = pipe2(ends, O_CLOEXEC) == 0;
  run->pid = piped ? fork() : -1;
  if (run->pid == 0)
    child(argv, environment, ends[1], parent);
  int error = errno;
  free(environment);
  if (piped)
    close(ends[1]);
  if (run->pid < 0) {
    const char *why = strerror(error);
    if (piped)
      close(ends[0]);
    output_append(result, "cannot start a process: ", strlen("cannot start a process: "));
    output_append(result, why, strlen(why));
    return false;
  }
  setpgid(run->pid, run->pid); /* here too, so that it holds before the first kill */
  run->output_fd = ends[0];
  run->at_end = false;
  fcntl(run->output_fd, F_SETFL, O_NONBLOCK);
  return true;
}

/* Take what has been written, waiting a moment for it. */
static void read_output(struct run *run, struct run_result *result, int wait_milliseconds) {
  char bytes[65536];
  struct pollfd ready = {.fd = run->at_end ? -1 : run->output_fd, .events = POLLIN};
  poll(&ready, 1, wait_milliseconds);
  while (!run->at_end) {
    ssize_t count = read(run->output_fd, bytes, sizeof bytes);
    if (count > 0)
      output_append(result, bytes, (size_t)count);
    else if (count == 0)
      run->at_end = true;
    else if (errno != EINTR)
      break;
  }
}

/* Read until the process has ended or the clock says `until`; true when it has ended. */
static bool follow(struct run *run, struct run_result *result, double until, int *wait_status) {
  for (;;) {
    pid_t ended = waitpid(run->pid, wait_status, WNOHANG);
    if (ended == run->pid || (ended < 0 && errno != EINTR))
      return true;
    if (now() >= until)
      return false;
    read_output(run, result, POLL_MILLISECONDS);
  }
}

/* mpirun ends its ranks, which have process groups of their own, when it is asked; what does not listen is killed. */
static void end_group(struct run *run, struct run_result *result, int *wait_status) {
  kill(-run->pid, SIGTERM);
  if (!follow(run, result, now() + 5, wait_status)) {
    kill(-run->pid, SIGKILL);
    follow(run, result, now() + 5, wait_status);
  }
}

static int run_and_wait(char *const argv[], double seconds, struct run_result *result) {
  struct run run;
  int wait_status = 0;
  double begin = now();
  *result = (struct run_result){.exit_status = RUN_NOT_STARTED};
  output_append(result, "", 0);
  if (!start(argv, &run, result))
    return result->exit_status;
  const char *factor = getenv("CONR_TIME_FACTOR"); /* sanitizers are slow */
  if (factor != NULL && atof(factor) > 1)
    seconds *= atof(factor);
  if (!follow(&run, result, begin + seconds, &wait_status)) {
    result->timed_out = true;
    end_group(&run, result, &wait_status);
  }
  kill(-run.pid, SIGKILL);      /* left over children of the command, if any */
  read_output(&run, result, 0); /* what was still in the pipe; a daemon that holds it open is not waited for */
  close(run.output_fd);
  result->seconds = now() - begin;
  if (result->timed_out)
    result->exit_status = RUN_TIMED_OUT;
  else
    result->exit_status = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
  return result->exit_status;
}

/* ---------------------------------------------------------------- what tests call */

int run_command(char *const argv[], double seconds, struct run_result *result) {
  struct run_result own;
  int exit_status = run_and_wait(argv, seconds, result != NULL ? result : &own);
  if (result == NULL) {
    if (exit_status != 0)
      fprintf(stderr, "%s ended with %d:\n%s", argv[0], exit_status, own.output);
    run_result_free(&own);
  }
  return exit_status;
}

int run_ranks_within(double seconds, int ranks, const char *program, const char *const *arguments,
                     struct run_result *result) {
  char path[RUN_PATH_BYTES], name[RUN_PATH_BYTES], size[16], *rest = NULL;
  const char *launcher = getenv("MPIEXEC");
  char *words = must(strdup(launcher != NULL && *launcher != '\0' ? launcher : "mpirun"));
  size_t extra = 0, count = 0;
  while (arguments != NULL && arguments[extra] != NULL)
    extra++;
  char **argv = must(calloc(strlen(words) + extra + 8, sizeof *argv));

  for (char *word = strtok_r(words, " \t", &rest); word != NULL; word = strtok_r(NULL, " \t", &rest))
    argv[count++] = word;
  snprintf(size, sizeof size, "%d", ranks);
  snprintf(name, sizeof name, "tests/%s", program);
  argv[count++] = "-n";
  argv[count++] = size;
  argv[count++] = program[0] == '/' ? (char *)program : run_build_path(name, path);
  for (size_t i = 0; i < extra; i++)
    argv[count++] = (char *)arguments[i];

  int exit_status = run_command(argv, seconds, result);
  free(argv);
  free(words);
  return exit_status;
}

int run_ranks(int ranks, const char *program, const char *const *arguments, struct run_result *result) {
  return run_ranks_within(RUN_DEFAULT_SECONDS, ranks, program, arguments, result);
}

void run_result_free(struct run_result *result) {
  free(result->output);
  *result = (struct run_result){.output = NULL};
}

char *run_build_path(const char *name, char path[RUN_PATH_BYTES]) {
  char self[RUN_PATH_BYTES];
  const char *folder = getenv("CONR_BUILD");
  if (folder == NULL || *folder == '\0') {
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    self[length > 0 ? length : 0] = '\0';
    folder = dirname(dirname(self)); /* BUILD/tests/test_x */
  }
  if (snprintf(path, RUN_PATH_BYTES, "%s/%s", folder, name) >= RUN_PATH_BYTES)
    path[0] = '\0';
  return path;
}
