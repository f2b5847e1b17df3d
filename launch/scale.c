/* conr scale: steps of training on more and more ranks, with equal batches of a rank (weak) or of all (strong); the
 * tables of their cost.
 *
 * Points are measured one after another, each on the first of the ranks, and kept in the study's folder: the same
 * command again measures those that are not there, so that a study that was stopped goes on.  --share K/N leaves most
 * points to other jobs. */
#include "launch/commands.h"
#include "launch/json_output.h"
#include "launch/options.h"
#include "launch/run_folder.h"
#include "launch/scale_point.h"
#include "launch/scale_question.h"
#include "launch/scale_table.h"
#include "launch/signals.h"

#include "dist/memory.h"
#include "io/dataset.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MOST_RANKS 32
#define MOST_BATCHES 16
#define MOST_POINTS (2 * MOST_RANKS * MOST_BATCHES)

struct scaling {
  struct session *session;     /* borrowed */
  const struct config *config; /* borrowed */
  int64_t ranks[MOST_RANKS], batches[MOST_BATCHES];
  struct scale_lists lists;
  struct scale_point *points; /* [MOST_POINTS]; ranks and batch are set from the beginning */
  int count;
  int64_t share, shares;
  char *options; /* owned: what is trained */
  bool stopped;
};

/* --- the plan ------------------------------------------------------------------------------------------------- */

/* Powers of two, and all. */
static void default_ranks(struct scaling *own, int size) {
  own->lists.rank_count = 0;
  for (int64_t ranks = 1; ranks < size && own->lists.rank_count < MOST_RANKS - 1; ranks *= 2)
    own->ranks[own->lists.rank_count++] = ranks;
  own->ranks[own->lists.rank_count++] = size;
}

static enum status read_lists(struct scaling *own) {
  const struct config *config = own->config;
  struct scale_lists *lists = &own->lists;
  int size = comm_size(own->session->comm);
  default_ranks(own, size);
  if (config->ranks != NULL)
    TRY(config_rising("ranks", config->ranks, 1, INT32_MAX, MOST_RANKS, own->ranks, &lists->rank_count));
  TRY(config_rising("batches", config->batches, 1, 1073741824, MOST_BATCHES, own->batches, &lists->batch_count));
  int64_t most = own->ranks[lists->rank_count - 1];
  REQUIRE(most <= size, ERR_ARGUMENT,
          "--ranks %lld are more than the %d there are; start more: mpirun -n %lld conr scale", (long long)most, size,
          (long long)most);
  lists->ranks = own->ranks;
  lists->batches = own->batches;
  lists->weak = strcmp(config->mode, "strong") != 0;
  lists->strong = strcmp(config->mode, "weak") != 0;
  REQUIRE(!lists->strong || own->batches[0] >= most, ERR_ARGUMENT,
          "--batches %lld is smaller than %lld ranks; give at least one sample to each, or --mode weak",
          (long long)own->batches[0], (long long)most);
  return STATUS_OK;
}

/* Each once: weak and strong scaling begin with the same. */
static void add_point(struct scaling *own, int64_t ranks, int64_t batch) {
  for (int i = 0; i < own->count; i++)
    if (own->points[i].ranks == (double)ranks && own->points[i].batch == (double)batch)
      return;
  own->points[own->count].ranks = (double)ranks;
  own->points[own->count++].batch = (double)batch;
}

static void add_points(struct scaling *own) {
  const struct scale_lists *lists = &own->lists;
  for (int weak = 1; weak >= 0; weak--)
    for (int b = 0; b < lists->batch_count && (weak ? lists->weak : lists->strong); b++)
      for (int r = 0; r < lists->rank_count; r++)
        add_point(own, own->ranks[r], scale_batch(weak, own->batches[b], own->ranks[r]));
}

/* Options that a study has no use for; a recipe or a file may say what it likes. */
static enum status refuse_unread(const struct config *config) {
  static const char *const names[] = {"batch",  "epochs", "patience", "log-steps", "checkpoint-steps",
                                      "select", "init",   "stage2",   "vote"};
  static const char *const asked[] = {"rows", "seeds", "many", "few", "bin-width"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    REQUIRE(!config_given(config, names[i]) || config->recipe != NULL || config->config != NULL, ERR_ARGUMENT,
            "--%s has no effect on conr scale; drop it%s", names[i], i == 0 ? ", or give --batches" : "");
  for (size_t i = 0; i < sizeof asked / sizeof *asked; i++)
    REQUIRE(!config_given(config, asked[i]), ERR_ARGUMENT,
            "--%s has no effect without --question; drop one or add the other", asked[i]);
  REQUIRE(config->machine == NULL && config->study == NULL, ERR_ARGUMENT,
          "--%s has no effect without --predict; drop one or add the other", config->machine ? "machine" : "study");
  return STATUS_OK;
}

static enum status plan(struct scaling *own) {
  const struct config *config = own->config;
  REQUIRE(config->output != NULL, ERR_ARGUMENT, "conr scale wants a folder for the study: give -o FOLDER");
  REQUIRE(strlen(config->output) < PATH_MAX - 64, ERR_ARGUMENT, "the path --output %.40s... is too long",
          config->output);
  TRY(refuse_unread(config));
  TRY(options_check(config));
  TRY(config_share(config->share, &own->share, &own->shares));
  TRY(memory_alloc_zero(MOST_POINTS * sizeof *own->points, (void **)&own->points));
  TRY(read_lists(own));
  add_points(own);
  return scale_point_options(config, &own->options);
}

/* Mistakes that the data show are told before anything is measured. */
static enum status check_data(struct scaling *own) {
  const char *path = own->config->word[0];
  struct comm *shared = NULL;
  struct dataset *dataset = NULL;
  double most = 0;
  enum status status;
  TRY(comm_create(own->session->mpi, &shared));
  TRY_GOTO(comm_agree(own->session->comm, dataset_open(path, shared, F32, &dataset)), out);
  for (int i = 0; i < own->count; i++)
    most = own->points[i].batch > most ? own->points[i].batch : most;
  double rows = (double)dataset_split_rows(dataset, SPLIT_TRAIN);
  if (most > rows)
    status = comm_agree(own->session->comm,
                        fail(ERR_ARGUMENT,
                             "a batch of %.0f samples is more than the %.0f of the training split of %s; give smaller "
                             "--batches (weak: those of one rank), or fewer --ranks",
                             most, rows, path));
out:
  dataset_close(&dataset);
  comm_destroy(&shared);
  return status;
}

/* --- points --------------------------------------------------------------------------------------------------- */

static const char *point_path(const struct scaling *own, const struct scale_point *point, char path[PATH_MAX]) {
  snprintf(path, PATH_MAX, "%s/points/p%.0f-b%.0f.json", own->config->output, point->ranks, point->batch);
  return path;
}

/* The first line that differs. */
static enum status check_options(const char *path, const char *then, const char *now) {
  for (;;) {
    size_t a = strcspn(then, "\n"), b = strcspn(now, "\n");
    REQUIRE(a == b && strncmp(then, now, a) == 0, ERR_ARGUMENT,
            "%s was measured with %.*s, and this is to be with %.*s; give the same options, --force, or another folder",
            path, (int)a, then, (int)b, now);
    if (then[a] == '\0' && now[b] == '\0')
      return STATUS_OK;
    then += a + (then[a] != '\0');
    now += b + (now[b] != '\0');
  }
}

/* Rank 0: a point that is kept. */
static enum status look(const struct scaling *own, struct scale_point *point, bool *there) {
  char path[PATH_MAX];
  struct scale_point kept = {0};
  enum status status = scale_point_read(point_path(own, point, path), &kept, there);
  if (status == STATUS_OK && *there)
    status = check_options(path, kept.options, own->options);
  if (status == STATUS_OK && *there && (kept.ranks != point->ranks || kept.batch != point->batch))
    status = fail(ERR_FORMAT, "%s is of %.0f ranks and a batch of %.0f; remove the file", path, kept.ranks, kept.batch);
  if (status == STATUS_OK && *there)
    *point = kept;
  else
    scale_point_free(&kept);
  return status;
}

/* Rank 0: its file. */
static enum status keep(struct scaling *own, struct scale_point *point) {
  char path[PATH_MAX];
  TRY(memory_alloc(strlen(own->options) + 1, (void **)&point->options));
  strcpy(point->options, own->options);
  return scale_point_write(point, point_path(own, point, path));
}

static enum status measure_one(struct scaling *own, int index) {
  struct session *session = own->session;
  struct scale_point *point = &own->points[index];
  struct config run = *own->config;
  int ranks = (int)point->ranks;
  bool root = comm_rank(session->comm) == 0, there = false;
  TRY(comm_agree(session->comm, root && !own->config->force ? look(own, point, &there) : STATUS_OK));
  int64_t kept = there;
  TRY(comm_max_i64(session->comm, &kept, 1));
  if (kept)
    return STATUS_OK;
  run.batch = (int64_t)point->batch;
  log_line(&session->log, "point %d of %d: %d rank%s, batch %lld", index + 1, own->count, ranks, ranks > 1 ? "s" : "",
           (long long)run.batch);
  TRY(scale_point_measure(session, &run, ranks, point, &own->stopped));
  point->ranks = ranks;
  point->batch = (double)run.batch;
  return comm_agree(session->comm, root && !own->stopped ? keep(own, point) : STATUS_OK);
}

static enum status make_folders(const struct scaling *own) {
  char path[PATH_MAX];
  TRY(run_folder_make(own->config->output));
  snprintf(path, sizeof path, "%s/points", own->config->output);
  return run_folder_make(path);
}

static enum status measure_all(struct scaling *own) {
  bool root = comm_rank(own->session->comm) == 0;
  TRY(comm_agree(own->session->comm, root ? make_folders(own) : STATUS_OK));
  for (int i = 0; i < own->count && !own->stopped; i++) {
    int64_t asked = signals_stop_asked();
    TRY(comm_max_i64(own->session->comm, &asked, 1));
    own->stopped = asked != 0;
    if (!own->stopped && i % own->shares == own->share - 1)
      TRY(measure_one(own, i));
  }
  return STATUS_OK;
}

/* --- the tables ----------------------------------------------------------------------------------------------- */

static enum status write_json(const struct scaling *own, const struct scale_study *study) {
  char path[PATH_MAX];
  json_t *object;
  TRY(scale_study_json(study, &object));
  snprintf(path, sizeof path, "%s/scale.json", own->config->output);
  enum status status = json_output_write(object, path);
  if (own->config->json)
    json_output_print(object);
  json_decref(object);
  return status;
}

/* Rank 0: files first, pictures last: a gnuplot that fails leaves the tables. */
static enum status tell(struct scaling *own) {
  struct scale_study *study;
  char path[PATH_MAX], note[PATH_MAX + 512];
  enum status status;
  TRY(scale_study_create(own->points, own->count, &own->lists, &study));
  snprintf(path, sizeof path, "%s/scale.csv", own->config->output);
  TRY_GOTO(scale_study_csv(study, path), out);
  TRY_GOTO(write_json(own, study), out);
  if (!own->config->json)
    scale_study_print(study, stdout);
  TRY_GOTO(scale_study_draw(study, own->config->output, note, sizeof note), out);
  if (note[0] != '\0')
    log_line(&own->session->log, "no pictures: %s", note);
out:
  scale_study_destroy(&study);
  return status;
}

static void release(struct scaling *own) {
  for (int i = 0; i < own->count; i++)
    scale_point_free(&own->points[i]);
  memory_free((void **)&own->points);
  memory_free((void **)&own->options);
}

static enum status measure_scaling(struct session *session, const struct config *config, bool *stopped) {
  struct scaling own = {.session = session, .config = config};
  enum status status;
  TRY_GOTO(comm_agree(session->comm, plan(&own)), out);
  TRY_GOTO(check_data(&own), out);
  TRY_GOTO(measure_all(&own), out);
  *stopped = own.stopped;
  if (own.stopped)
    log_line(&session->log, "stopped by a signal; the points in %s/points are kept, and the same command goes on",
             config->output);
  else if (own.shares == 1)
    status = comm_agree(session->comm, comm_rank(session->comm) == 0 ? tell(&own) : STATUS_OK);
out:
  release(&own);
  return status;
}

enum status command_scale(struct session *session, const struct config *config, bool *stopped) {
  if (config->words != 1)
    return comm_agree(session->comm,
                      fail(ERR_ARGUMENT, "conr scale wants a data file; or give --predict --machine FILE"));
  return strcmp(config->question, "none") != 0 ? scale_question(session, config, stopped)
                                               : measure_scaling(session, config, stopped);
}
