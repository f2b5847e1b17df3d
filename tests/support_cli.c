/* Starting conr and reading what it says. */
#define _GNU_SOURCE
#include "support_cli.h"

#include "io/array_file.h"
#include "io_files.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define RUN_SECONDS 60
#define AWAIT_SECONDS 30

void cli_begin(void) {
  io_files_begin();
  /* Small products gain nothing from threads; and the number of threads must not depend on who runs the tests. */
  setenv("OMP_NUM_THREADS", "1", 1);
  /* All ranks are here: looking for networks is most of the time that a small job takes. */
  setenv("OMPI_MCA_pml", "ob1", 0);
  setenv("OMPI_MCA_btl", "self,vader", 0);
  setenv("TMPDIR", io_file(""), 1);
  setenv("OMPI_MCA_btl_vader_backing_directory", io_file(""), 1);
  setenv("OMPI_MCA_osc_sm_backing_directory", io_file(""), 1);
}

void cli_end(void) {
  io_files_end();
}

const char *cli_text(const char *format, ...) {
  static char *texts[8192]; /* kept until the test's process ends */
  static int count;
  va_list arguments;
  cr_assert(lt(int, count, (int)(sizeof texts / sizeof *texts)));
  va_start(arguments, format);
  cr_assert(vasprintf(&texts[count], format, arguments) >= 0);
  va_end(arguments);
  return texts[count++];
}

/* ---- files ---------------------------------------------------------------------------------- */

void cli_write_csv(const char *path, int rows) {
  static const char *const splits[] = {"train", "train", "train", "val", "test"};
  FILE *stream = fopen(path, "w");
  cr_assert(stream != NULL, "cannot write %s", path);
  fputs("a,b,c,kind,y,split\n", stream);
  for (int i = 0; i < rows; i++) {
    double a = sin(1.7 * i), b = cos(0.9 * i + 1), c = sin(0.31 * i * i);
    int kind = i * 7 % 11 % 3;
    fprintf(stream, "%.6f,%.6f,%.6f,%c,%.6f,%s\n", a, b, c, "uvw"[kind], 3 * a - 2 * b * c + 2.5 * kind * kind,
            splits[i % 5]);
  }
  cr_assert(fclose(stream) == 0);
}

const char *cli_data(const char *name, int rows) {
  const char *csv = io_file("cli_data.csv"), *path = io_file(name);
  cli_write_csv(csv, rows);
  cli_accepted(0, cli_text("import %s --target y --split-column split -o %s --force --quiet", csv, path));
  return path;
}

const char *cli_last(const char *run) {
  return cli_text("%s/checkpoint-last.h5", run);
}

const char *cli_metrics(const char *run) {
  return cli_text("%s/metrics.jsonl", run);
}

/* ---- one start ------------------------------------------------------------------------------ */

/* "conr LINE", or that on ranks that each tell their exit status and end with 0, so that the launcher neither ends
 * the others nor adds words of its own. */
static const char *script_of(int ranks, const char *line) {
  char conr[RUN_PATH_BYTES];
  run_build_path("conr", conr);
  if (ranks == 0)
    return cli_text("exec %s %s", conr, line);
  return cli_text("exec ${MPIEXEC:-mpirun} -n %d sh -c '\"$@\"; echo \"[exit $?]\"' sh %s %s", ranks, conr, line);
}

/* The status of all ranks if it is one. */
static int status_of_ranks(int ranks, const struct run_result *run) {
  int status = -1, found = 0;
  for (const char *at = run->output; (at = strstr(at, "[exit ")) != NULL; at++, found++) {
    int this = atoi(at + strlen("[exit "));
    if (found > 0 && this != status)
      return run->exit_status != 0 ? run->exit_status : -1;
    status = this;
  }
  return found == ranks ? status : run->exit_status;
}

struct run_result cli_run(int ranks, const char *line) {
  struct run_result run;
  char *const command[] = {"sh", "-c", (char *)script_of(ranks, line), NULL};
  run_command(command, RUN_SECONDS, &run);
  cr_assert(run.timed_out == false, "conr %s did not end within %d s:\n%s", line, RUN_SECONDS, run.output);
  if (ranks > 0)
    run.exit_status = status_of_ranks(ranks, &run);
  return run;
}

void cli_accepted(int ranks, const char *line) {
  struct run_result run = cli_run(ranks, line);
  cr_assert(eq(int, run.exit_status, 0), "conr %s:\n%s", line, run.output);
  run_result_free(&run);
}

char *cli_output(int ranks, const char *line) {
  const char *path = io_file("standard_output");
  char conr[RUN_PATH_BYTES];
  const char *launcher = ranks > 0 ? cli_text("${MPIEXEC:-mpirun} -n %d", ranks) : "";
  const char *script = cli_text("exec %s %s %s >%s", launcher, run_build_path("conr", conr), line, path);
  char *const command[] = {"sh", "-c", (char *)script, NULL};
  struct run_result run;
  int exit_status = run_command(command, RUN_SECONDS, &run);
  cr_assert(eq(int, exit_status, 0), "conr %s:\n%s", line, run.output);
  run_result_free(&run);
  return io_read(path, NULL);
}

int cli_count(const char *haystack, const char *needle) {
  int count = 0;
  for (const char *at = haystack; (at = strstr(at, needle)) != NULL; at += strlen(needle))
    count++;
  return count;
}

/* Lines that begin with "conr: ", which all sentences do and nothing else does. */
static int sentences(const char *output) {
  int count = strncmp(output, "conr: ", 6) == 0;
  return count + cli_count(output, "\nconr: ");
}

void cli_refused(int ranks, int exit_status, const char *sentence, const char *line) {
  struct run_result run = cli_run(ranks, line);
  const char *whole = cli_text("conr: %s\n", sentence);
  cr_assert(eq(int, run.exit_status, exit_status), "conr %s:\n%s", line, run.output);
  cr_assert(eq(int, cli_count(run.output, whole), 1), "not once:\n%sbut:\n%s", whole, run.output);
  cr_assert(eq(int, sentences(run.output), 1), "more than one sentence:\n%s", run.output);
  if (ranks > 0)
    cr_assert(eq(int, cli_count(run.output, "[exit "), ranks), "a rank was ended by force:\n%s", run.output);
  run_result_free(&run);
}

void cli_aborted(int ranks, int rank, const char *sentence, const char *line) {
  struct run_result run = cli_run(ranks, line);
  const char *head = cli_text("conr: [rank %d/%d ", rank, ranks), *tail = cli_text("] %s\n", sentence);
  cr_assert(ne(int, run.exit_status, 0), "conr %s:\n%s", line, run.output);
  const char *found = strstr(run.output, head);
  cr_assert(found != NULL, "no sentence of rank %d:\n%s", rank, run.output);
  const char *end = strstr(found, tail);
  cr_assert(end != NULL && end < strchr(found, '\n'), "rank %d does not say:\n%sbut:\n%s", rank, tail, run.output);
  cr_assert(eq(int, sentences(run.output), 1), "more than one sentence:\n%s", run.output);
  run_result_free(&run);
}

/* ---- jobs ----------------------------------------------------------------------------------- */

int cli_free_port(void) {
  struct sockaddr_in address = {.sin_family = AF_INET};
  socklen_t length = sizeof address;
  int own = socket(AF_INET, SOCK_STREAM, 0);
  cr_assert(bind(own, (struct sockaddr *)&address, sizeof address) == 0);
  cr_assert(getsockname(own, (struct sockaddr *)&address, &length) == 0);
  close(own);
  return ntohs(address.sin_port);
}

double cli_seconds(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void doze(void) {
  nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

static void *run_job(void *context) {
  struct cli_job *job = context;
  char *const command[] = {"sh", "-c", job->script, NULL};
  run_command(command, job->seconds, &job->result);
  return NULL;
}

void cli_start_within(struct cli_job *job, double seconds, int ranks, const char *line) {
  static int jobs;
  char conr[RUN_PATH_BYTES];
  run_build_path("conr", conr);
  *job = (struct cli_job){.ranks = ranks, .seconds = seconds};
  snprintf(job->folder, sizeof job->folder, "%s", io_file(cli_text("job%d", jobs++)));
  /* Each rank leaves its process number and its launcher's, then becomes conr. */
  const char *rank = cli_text("sh -c 'echo $$ $PPID >%s.part.$$; mv %s.part.$$ %s.${OMPI_COMM_WORLD_RANK:-"
                              "${PMI_RANK:-0}}; exec \"$@\"' sh %s %s",
                              job->folder, job->folder, job->folder, conr, line);
  const char *launcher = ranks > 0 ? cli_text("${MPIEXEC:-mpirun} -n %d", ranks) : "";
  const char *script = cli_text("exec %s %s", launcher, rank);
  job->script = strdup(script);
  cr_assert(pthread_create(&job->thread, NULL, run_job, job) == 0);
}

void cli_start(struct cli_job *job, int ranks, const char *line) {
  cli_start_within(job, RUN_SECONDS, ranks, line);
}

static void read_pids(const struct cli_job *job, int rank, int *own, int *launcher) {
  const char *path = cli_text("%s.%d", job->folder, rank);
  double end = cli_seconds() + AWAIT_SECONDS;
  while (!io_exists(path) && cli_seconds() < end)
    doze();
  char *text = io_read(path, NULL);
  cr_assert(eq(int, sscanf(text, "%d %d", own, launcher), 2), "%s holds \"%s\"", path, text);
  free(text);
}

pid_t cli_rank_pid(const struct cli_job *job, int rank) {
  int own, launcher;
  read_pids(job, rank, &own, &launcher);
  return own;
}

pid_t cli_launcher_pid(const struct cli_job *job) {
  int own, launcher;
  read_pids(job, 0, &own, &launcher);
  return launcher;
}

int cli_lines(const char *path) {
  int lines = 0;
  FILE *stream = fopen(path, "r");
  if (stream == NULL)
    return 0;
  for (int c; (c = fgetc(stream)) != EOF;)
    lines += c == '\n';
  fclose(stream);
  return lines;
}

void cli_await_lines(const char *path, int lines) {
  double end = cli_seconds() + AWAIT_SECONDS;
  while (cli_lines(path) < lines && cli_seconds() < end)
    doze();
  cr_assert(ge(int, cli_lines(path), lines), "%s does not grow", path);
}

int cli_wait(struct cli_job *job) {
  pthread_join(job->thread, NULL);
  return job->result.exit_status;
}

void cli_job_free(struct cli_job *job) {
  run_result_free(&job->result);
  free(job->script);
  job->script = NULL;
}

void cli_kill_all(const struct cli_job *job) {
  pid_t launcher = cli_launcher_pid(job);
  for (int rank = 0; rank < job->ranks; rank++)
    kill(cli_rank_pid(job, rank), SIGKILL);
  kill(launcher, SIGKILL);
}

bool cli_is_gone(pid_t pid, double seconds) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  for (double end = cli_seconds() + seconds; cli_seconds() < end; doze()) {
    char state = 'Z';
    FILE *stream = fopen(path, "r");
    if (stream == NULL)
      return true;
    int fields = fscanf(stream, "%*d (%*[^)]) %c", &state);
    fclose(stream);
    if (fields != 1 || state == 'Z')
      return true;
  }
  return false;
}

double cli_last_metric(const char *run, const char *key) {
  FILE *file = fopen(cli_metrics(run), "r");
  json_t *line, *last = NULL;
  cr_assert(ne(ptr, file, NULL), "no %s", cli_metrics(run));
  while ((line = json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL)) != NULL) {
    json_decref(last);
    last = line;
  }
  fclose(file);
  json_t *value = json_object_get(last, key);
  cr_assert(ne(ptr, value, NULL), "no %s", key);
  double number = json_is_number(value) ? json_number_value(value) : NAN;
  json_decref(last);
  return number;
}

void cli_killed_and_resumed(int ranks, int lines, const char *data, const char *run, const char *options) {
  struct cli_job job;
  cli_start(&job, ranks, cli_text("train %s -o %s %s", data, run, options));
  cli_await_lines(cli_metrics(run), lines);
  kill(cli_rank_pid(&job, ranks > 0 ? ranks - 1 : 0), SIGKILL);
  cr_assert(ne(int, cli_wait(&job), 0), "it had ended: %s", job.result.output);
  cli_job_free(&job);
  cli_accepted(ranks, cli_text("train %s -o %s %s --resume", data, run, options));
}

/* ---- comparison ----------------------------------------------------------------------------- */

static double value_of(const struct array *array, int64_t i) {
  return array->type == ARRAY_F32 ? (double)((const float *)array->data)[i] : ((const double *)array->data)[i];
}

static void same_array(const struct array *a, const struct array *b, double tolerance) {
  double largest = 0, difference = 0;
  cr_assert(eq(str, (char *)a->name, (char *)b->name));
  cr_assert(eq(int, a->type, b->type));
  cr_assert(eq(sz, array_bytes(a), array_bytes(b)), "%s has another shape", a->name);
  if (tolerance == 0) {
    cr_assert(memcmp(a->data, b->data, array_bytes(a)) == 0, "%s has other bits", a->name);
    return;
  }
  for (int64_t i = 0; i < array_count(a); i++) {
    largest = fmax(largest, fabs(value_of(a, i)));
    difference = fmax(difference, fabs(value_of(a, i) - value_of(b, i)));
  }
  cr_assert(le(dbl, difference, tolerance * largest), "%s: values up to %g differ by up to %g", a->name, largest,
            difference);
}

void cli_same_arrays(const char *path_a, const char *path_b, double tolerance) {
  struct array_file *a, *b;
  cr_assert(array_file_read(path_a, true, &a) == STATUS_OK, "%s", status_message());
  cr_assert(array_file_read(path_b, true, &b) == STATUS_OK, "%s", status_message());
  cr_assert(ge(sz, a->array_count, 1));
  cr_assert(eq(sz, a->array_count, b->array_count));
  for (size_t i = 0; i < a->array_count; i++)
    same_array(&a->arrays[i], &b->arrays[i], tolerance);
  array_file_destroy(&b);
  array_file_destroy(&a);
}

static bool is_of_staging(const json_t *event) {
  const char *kind = json_string_value(json_object_get(event, "event"));
  return kind != NULL && strcmp(kind, "stage") == 0;
}

/* The next line that is not about where data lie, as an object without its times, and whom they name; NULL at the end. */
static json_t *next_event(FILE *stream, const char *path) {
  static const char *const times[] = {"seconds",       "data_wait",         "samples_per_second",  "time_forward",
                                      "time_loss",     "time_backward",     "time_reduce",         "time_update",
                                      "time_gather",   "time_regularisers", "rank_data_min",       "rank_data_median",
                                      "rank_data_max", "rank_compute_min",  "rank_compute_median", "rank_compute_max",
                                      "rank_wait_min", "rank_wait_median",  "rank_wait_max",       "slow_rank",
                                      "slow_host"};
  json_error_t error;
  char *line = NULL;
  size_t room = 0;
  json_t *event = NULL;
  while (event == NULL && getline(&line, &room, stream) > 0) {
    event = json_loads(line, 0, &error);
    cr_assert(event != NULL, "%s holds the line %s", path, line);
    if (is_of_staging(event)) {
      json_decref(event);
      event = NULL;
    }
  }
  for (size_t i = 0; event != NULL && i < sizeof times / sizeof *times; i++)
    json_object_del(event, times[i]);
  free(line);
  return event;
}

void cli_same_metrics(const char *path_a, const char *path_b) {
  FILE *a = fopen(path_a, "r"), *b = fopen(path_b, "r");
  cr_assert(a != NULL && b != NULL, "%s or %s is missing", path_a, path_b);
  int line = 0;
  for (bool more = true; more; line++) {
    json_t *of_a = next_event(a, path_a), *of_b = next_event(b, path_b);
    more = of_a != NULL;
    cr_assert(more ? json_equal(of_a, of_b) : of_b == NULL, "line %d of %s and %s differ", line + 1, path_a, path_b);
    json_decref(of_a);
    json_decref(of_b);
  }
  cr_assert(ge(int, line, 2), "%s is empty", path_a);
  fclose(b);
  fclose(a);
}

void cli_same_runs(const char *run_a, const char *run_b) {
  cli_same_arrays(cli_last(run_a), cli_last(run_b), 0);
  cli_same_metrics(cli_metrics(run_a), cli_metrics(run_b));
}

void cli_goes_on(int ranks, const char *run, const char *(*line)(const char *run, int epochs)) {
  const char *whole = io_file("whole");
  char *log = io_read(cli_metrics(run), NULL);
  int epochs = cli_count(log, "\"event\":\"epoch\"") + 2;
  free(log);
  cli_accepted(ranks, cli_text("%s --resume", line(run, epochs)));
  cli_accepted(ranks, line(whole, epochs));
  cli_same_runs(whole, run);
}
