/* One rank of a host copies, all of them wait asleep. */
#include "launch/staging.h"

#include "dist/memory.h"
#include "dist/pulse.h"
#include "io/stage.h"
#include "launch/signals.h"

#include <string.h>
#include <time.h>

struct staging {
  struct session *session; /* borrowed */
  struct stage *stage;     /* of the rank that copied for its host */
  bool clean;
  char source[PATH_MAX], path[PATH_MAX];
  double began; /* of the copying under way */
  int64_t began_at;
  /* Of all hosts: */
  int hosts, copied_hosts;
  int64_t bytes;
  double seconds; /* of the slowest, and ... */
  double least;   /* ... bytes a second there, of those that copied */
};

/* What one rank tells all. */
struct record {
  bool copies, damaged;
  int64_t bytes, copied;
  double seconds, waited;
};

static bool copies(const struct session *session) {
  return comm_node_rank(session->comm) == 0;
}

/* ---- copying -------------------------------------------------------------------------------- */

static void show_copying(struct staging *staging, int64_t done, int64_t total) {
  double now = log_seconds();
  if (staging->began == 0) {
    staging->began = now;
    staging->began_at = done;
    return;
  }
  log_progress(&staging->session->log, false, "staging %s: %.0f %% of %.6g MB copied, %.0f MB/s", staging->source,
               100 * (double)done / (double)total, (double)total / 1e6,
               (double)(done - staging->began_at) / 1e6 / (now - staging->began));
}

static bool watch(void *context, enum stage_phase phase, int64_t done, int64_t total) {
  struct staging *staging = context;
  struct log *log = &staging->session->log;
  if (phase == STAGE_WAITS)
    log_progress(log, false, "staging %s: waiting for another job that stages it on %s", staging->source,
                 comm_host(staging->session->comm));
  else if (phase == STAGE_COPIES)
    show_copying(staging, done, total);
  else if (done > 0) /* a small file is compared before anybody reads of it */
    log_progress(log, false, "staging %s: comparing an earlier copy, %.0f %%", staging->source,
                 100 * (double)done / (double)total);
  return !signals_stop_asked();
}

static enum status copy(struct staging *staging, const char *folder, double *stopped) {
  struct stage_watch watching = {watch, staging};
  enum status status = stage_open(staging->source, folder, &watching, &staging->stage);
  *stopped = status == STATUS_OK && staging->stage == NULL;
  if (status != STATUS_OK && comm_size(staging->session->comm) > comm_node_size(staging->session->comm)) {
    char sentence[900];
    snprintf(sentence, sizeof sentence, "%.890s", status_message());
    return fail(status, "on %s: %s", comm_host(staging->session->comm), sentence);
  }
  return status;
}

/* MPI's own waiting takes a whole core from those that copy. */
static enum status wait_asleep(struct comm *comm, double *sum) {
  struct comm_request request = {0};
  bool done = false;
  long pause = 100000; /* nanoseconds */
  TRY(comm_sum_start(comm, F64, sum, 1, &request));
  for (;;) {
    TRY(comm_progress(comm, &request, &done));
    if (done)
      return STATUS_OK;
    nanosleep(&(struct timespec){.tv_nsec = pause}, NULL);
    pause = pause < 25000000 ? 2 * pause : pause;
  }
}

/* ---- from rank to rank ---------------------------------------------------------------------- */

/* The copy's path, from the rank that made it to the others of its host. */
static enum status share_path(struct staging *staging, struct comm *comm) {
  char *shared;
  TRY(comm_agree(comm, comm_node_alloc(comm, PATH_MAX, (void **)&shared)));
  if (staging->stage != NULL)
    strcpy(shared, stage_facts(staging->stage)->path);
  TRY(comm_node_barrier(comm));
  strcpy(staging->path, shared);
  return comm_node_barrier(comm);
}

static void add_up(struct staging *staging, const struct record *records, int size) {
  for (int rank = 0; rank < size; rank++) {
    const struct record *record = &records[rank];
    if (!record->copies)
      continue;
    double rate = record->seconds > 0 ? (double)record->copied / record->seconds : 0;
    staging->least =
        record->copied > 0 && (staging->copied_hosts == 0 || rate < staging->least) ? rate : staging->least;
    staging->hosts++;
    staging->copied_hosts += record->copied > 0;
    staging->bytes = record->bytes;
    staging->seconds = record->seconds > staging->seconds ? record->seconds : staging->seconds;
  }
}

static enum status share_facts(struct staging *staging, struct comm *comm) {
  struct record own = {0}, *all = NULL;
  int size = comm_size(comm);
  if (staging->stage != NULL) {
    const struct stage_facts *facts = stage_facts(staging->stage);
    own = (struct record){true, facts->damaged, facts->bytes, facts->copied, facts->seconds, facts->waited};
    if (facts->damaged)
      log_warning(&staging->session->log, "the copy %s was damaged, and was made again", facts->path);
  }
  enum status status = comm_agree(comm, memory_alloc((size_t)size * sizeof *all, (void **)&all));
  if (status == STATUS_OK)
    status = comm_gather_each(comm, &own, sizeof own, all);
  if (status == STATUS_OK)
    add_up(staging, all, size);
  memory_free((void **)&all);
  return status;
}

/* ---- from outside --------------------------------------------------------------------------- */

static enum status stage_on_all(struct staging *staging, const char *folder, struct comm *comm, bool *stopped) {
  char text[STAGING_TEXT];
  double asked = 0;
  const char *before =
      pulse_doing(copies(staging->session) ? "copies the data to a disk of its host" : "waits for copies of the data");
  enum status status = copies(staging->session) ? copy(staging, folder, &asked) : STATUS_OK;
  TRY(wait_asleep(comm, &asked));
  pulse_doing(before);
  TRY(comm_agree(comm, status));
  *stopped = asked > 0;
  if (*stopped) {
    log_line(&staging->session->log, "stopped by a signal while %s was staged; the same command goes on from there",
             staging->source);
    return STATUS_OK;
  }
  TRY(share_path(staging, comm));
  TRY(share_facts(staging, comm));
  log_line(&staging->session->log, "staged %s: %s", staging->source, staging_summary(staging->session, text));
  return STATUS_OK;
}

/* Nothing is made without --stage. */
static enum status create(struct session *session, const struct config *config, const char *source) {
  struct staging *staging;
  if (config->stage == NULL)
    return STATUS_OK;
  REQUIRE(strlen(source) < sizeof staging->source, ERR_ARGUMENT, "the path %.60s... is too long", source);
  TRY(memory_alloc_zero(sizeof *staging, (void **)&staging));
  *staging = (struct staging){.session = session, .clean = config->stage_clean};
  strcpy(staging->source, source);
  session->staging = staging;
  return STATUS_OK;
}

enum status staging_open(struct session *session, const struct config *config, const char *source, bool *stopped) {
  struct comm *comm;
  *stopped = false;
  TRY(comm_agree(session->comm, create(session, config, source)));
  if (session->staging == NULL)
    return STATUS_OK;
  TRY(comm_create(session->mpi, &comm));
  enum status status = stage_on_all(session->staging, config->stage, comm, stopped);
  /* After a failure of this rank alone the others are not here. */
  if (status == STATUS_OK || status_agreed() || comm_size(session->comm) == 1)
    comm_destroy(&comm);
  return status;
}

const char *staging_path(const struct session *session, const char *source) {
  const struct staging *staging = session->staging;
  return staging != NULL && strcmp(staging->source, source) == 0 ? staging->path : source;
}

const char *staging_summary(const struct session *session, char text[STAGING_TEXT]) {
  const struct staging *staging = session->staging;
  char how[128];
  text[0] = '\0';
  if (staging == NULL)
    return text;
  if (staging->copied_hosts == 0)
    snprintf(how, sizeof how, "where it was already, compared in %.2f s", staging->seconds);
  else
    snprintf(how, sizeof how, "%s in %.2f s, %.0f MB/s a host with reading back",
             staging->copied_hosts == staging->hosts ? "copied" : "copied where it was not", staging->seconds,
             staging->least / 1e6);
  snprintf(text, STAGING_TEXT, "%.6g MB in %.200s on %d host%s, %s", (double)staging->bytes / 1e6, staging->path,
           staging->hosts, staging->hosts > 1 ? "s" : "", how);
  return text;
}

enum status staging_record(const struct session *session, struct metrics_log *log, int64_t step) {
  const struct staging *staging = session->staging;
  if (staging == NULL)
    return STATUS_OK;
  return metrics_log_write(log, metric_text("event", "stage"), metric_integer("step", step),
                           metric_integer("bytes", staging->bytes), metric_integer("hosts", staging->hosts),
                           metric_integer("copied_hosts", staging->copied_hosts),
                           metric_real("seconds", staging->seconds));
}

void staging_close(struct session *session) {
  struct staging *staging = session->staging;
  if (staging == NULL)
    return;
  stage_close(&staging->stage, staging->clean);
  memory_free((void **)&session->staging);
}
