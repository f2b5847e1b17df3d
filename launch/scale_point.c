/* Measuring a point, and its file. */
#include "launch/scale_point.h"

#include "dist/memory.h"
#include "dist/pulse.h"
#include "launch/info.h"
#include "launch/json_output.h"
#include "launch/signals.h"
#include "launch/train.h"
#include "version.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <omp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WARM_STEPS 3
#define MOST_WARM_STEPS 64
#define POLL_NANOSECONDS 2000000

static const char *const phase_names[] = {
    [SCALE_DATA] = "data",     [SCALE_FORWARD] = "forward", [SCALE_LOSS] = "loss",
    [SCALE_GATHER] = "gather", [SCALE_PANELS] = "panels",   [SCALE_BACKWARD] = "backward",
    [SCALE_REDUCE] = "reduce", [SCALE_UPDATE] = "update",   [SCALE_REST] = "rest"};

const char *scale_phase_name(enum scale_phase phase) {
  return phase_names[phase];
}

void scale_point_free(struct scale_point *point) {
  memory_free((void **)&point->options);
}

/* --- one repetition ------------------------------------------------------------------------------------------- */

/* Of one rank, a step; plain numbers, so that ranks can hand them to each other. */
struct figures {
  double seconds, phase[SCALE_PHASES], sum_bytes, gather_bytes, flops;
};

struct measuring {
  struct session *session; /* of the ranks that take part */
  const struct config *config;
  struct trainer *trainer;
  struct figures *all; /* [ranks] */
  bool stopped;
};

static int64_t sum_bytes(const struct session *session) {
  return comm_traffic(session->data).sum_bytes + comm_traffic(session->comm).sum_bytes;
}

static enum status run_steps(struct measuring *own, int64_t steps, struct train_time *time) {
  TRY(train_steps(own->trainer, steps, time));
  own->stopped = time->stopped;
  return STATUS_OK;
}

/* Until objects have their memory, and it is known whether graphs are faster. */
static enum status warm_up(struct measuring *own) {
  struct train_time time = {0};
  TRY(run_steps(own, WARM_STEPS, &time));
  for (int step = 0; step < MOST_WARM_STEPS && !own->stopped && !step_graphs_settled(own->trainer->graphs); step++)
    TRY(run_steps(own, 1, &time));
  return STATUS_OK;
}

static enum status measure_once(struct measuring *own, struct figures *figures) {
  struct trainer *trainer = own->trainer;
  struct train_time time;
  bool conr = trainer->config.conr;
  TRY(comm_barrier(own->session->comm));
  gradients_seconds(trainer->gradients, true);
  int64_t before = sum_bytes(own->session);
  TRY(run_steps(own, own->config->steps, &time));
  struct gradients_seconds spent = gradients_seconds(trainer->gradients, true);
  struct conr_result result = objective_conr_result(trainer->objective);
  double steps = (double)time.steps, loss = spent.phase[PHASE_LOSS] - spent.conr;
  /* Rows that leave during the forward pass have the gather end in ConR's phase, or, as it begins, in the loss. */
  double gather_in_conr = conr ? fmin(spent.gather, spent.conr) : 0;
  *figures = (struct figures){.seconds = time.seconds,
                              .phase = {[SCALE_DATA] = time.data,
                                        [SCALE_FORWARD] = spent.phase[PHASE_FORWARD],
                                        [SCALE_LOSS] = fmax(loss - (spent.gather - gather_in_conr), 0),
                                        [SCALE_GATHER] = spent.gather,
                                        [SCALE_PANELS] = spent.conr - gather_in_conr,
                                        [SCALE_BACKWARD] = spent.phase[PHASE_BACKWARD],
                                        [SCALE_REDUCE] = spent.phase[PHASE_REDUCE],
                                        [SCALE_UPDATE] = spent.phase[PHASE_UPDATE]},
                              .sum_bytes = (double)(sum_bytes(own->session) - before)};
  figures->seconds /= steps;
  figures->sum_bytes /= steps;
  for (int i = 0; i < SCALE_PHASES; i++)
    figures->phase[i] /= steps;
  figures->gather_bytes = conr ? (double)result.bytes_received : 0;
  figures->flops = conr ? result.gemm_flops : 0;
  return STATUS_OK;
}

/* Means over ranks, and the slowest one's time. */
static void merge(const struct figures *all, int ranks, struct scale_point *out) {
  double told = 0;
  out->seconds = out->sum_bytes = out->gather_bytes = out->flops = 0;
  out->gather_least = out->reduce_least = INFINITY;
  memset(out->phase, 0, sizeof out->phase);
  for (int rank = 0; rank < ranks; rank++) {
    out->seconds = fmax(out->seconds, all[rank].seconds);
    out->sum_bytes += all[rank].sum_bytes / ranks;
    out->gather_bytes += all[rank].gather_bytes / ranks;
    out->flops += all[rank].flops / ranks;
    out->gather_least = fmin(out->gather_least, all[rank].phase[SCALE_GATHER]);
    out->reduce_least = fmin(out->reduce_least, all[rank].phase[SCALE_REDUCE]);
    for (int i = 0; i < SCALE_PHASES; i++)
      out->phase[i] += all[rank].phase[i] / ranks;
  }
  for (int i = 0; i < SCALE_REST; i++)
    told += out->phase[i];
  out->phase[SCALE_REST] = fmax(out->seconds - told, 0); /* what a GPU does beside the host is told of both */
}

/* --- repetitions ---------------------------------------------------------------------------------------------- */

/* Keeps in `point` the split of the repetition in the middle. */
static enum status measure_all(struct measuring *own, struct scale_point *point) {
  struct comm *comm = own->session->comm;
  int ranks = comm_size(comm), repeats = (int)own->config->repeat, order[SCALE_MOST_REPEATS] = {0};
  struct scale_point *each;
  enum status status = STATUS_OK;
  TRY(comm_agree(comm, memory_alloc_zero((size_t)repeats * sizeof *each, (void **)&each)));
  for (int r = 0; r < repeats; r++) {
    struct figures figures;
    TRY_GOTO(measure_once(own, &figures), out);
    if (own->stopped)
      goto out;
    TRY_GOTO(comm_gather_each(comm, &figures, sizeof figures, own->all), out);
    merge(own->all, ranks, &each[r]);
    point->repeat[r] = each[r].seconds;
    int at = r; /* by insertion */
    for (; at > 0 && each[order[at - 1]].seconds > each[r].seconds; at--)
      order[at] = order[at - 1];
    order[at] = r;
  }
  const struct scale_point *middle = &each[order[(repeats - 1) / 2]];
  point->seconds = middle->seconds;
  point->seconds_least = each[order[0]].seconds;
  point->seconds_most = each[order[repeats - 1]].seconds;
  memcpy(point->phase, middle->phase, sizeof point->phase);
  point->sum_bytes = middle->sum_bytes;
  point->gather_bytes = middle->gather_bytes;
  point->flops = middle->flops;
  point->gather_least = middle->gather_least;
  point->reduce_least = middle->reduce_least;
out:
  memory_free((void **)&each);
  return status;
}

/* Hosts in rank order, each once, and the most ranks of one. */
static enum status find_hosts(struct comm *comm, struct scale_point *point) {
  int size = comm_size(comm);
  char own[256], (*all)[256] = NULL;
  enum status status;
  snprintf(own, sizeof own, "%s", comm_host(comm));
  TRY(comm_agree(comm, memory_alloc((size_t)size * sizeof *all, (void **)&all)));
  TRY_GOTO(comm_gather_each(comm, own, sizeof own, all), out);
  for (int rank = 0; rank < size; rank++) {
    int before = 0, alike = 0;
    for (int other = 0; other < size; other++) {
      alike += strcmp(all[other], all[rank]) == 0;
      before += other < rank && strcmp(all[other], all[rank]) == 0;
    }
    point->ranks_per_host = fmax(point->ranks_per_host, alike);
    if (before > 0)
      continue;
    size_t used = strlen(point->host_names);
    point->hosts++;
    if (used + strlen(all[rank]) + 2 < sizeof point->host_names)
      snprintf(point->host_names + used, sizeof point->host_names - used, "%s%s", used > 0 ? "," : "", all[rank]);
  }
out:
  memory_free((void **)&all);
  return status;
}

#define COPY(field, text) snprintf((field), sizeof(field), "%s", (text))

static void describe(const struct measuring *own, struct scale_point *point) {
  const struct trainer *trainer = own->trainer;
  const struct device_facts *device = device_facts(own->session->device);
  struct conr_result result = objective_conr_result(trainer->objective);
  struct parameters learned = net_learned(trainer->net);
  struct info_versions versions = {0};
  time_t now = time(NULL);
  info_versions(&versions);
  point->ranks = comm_size(own->session->comm);
  point->batch = (double)trainer->config.batch;
  point->threads = own->session->threads;
  point->cores = omp_get_num_procs();
  point->steps = (double)own->config->steps;
  point->repetitions = (double)own->config->repeat;
  point->samples_per_second = point->batch / point->seconds;
  point->gradient_bytes = (double)(learned.elements * dtype_size(trainer->ops->parameter_dtype));
  point->messages = (double)gradients_pieces(trainer->gradients);
  if (trainer->config.conr) {
    point->rows = (double)result.rows;
    point->width = (double)net_mean_width(trainer->net);
  }
  COPY(point->device, device->name);
  COPY(point->libraries, device->libraries);
  COPY(point->transport, comm_transport(own->session->data));
  COPY(point->version, CONR_VERSION);
  COPY(point->commit, CONR_COMMIT);
  COPY(point->mpi, versions.mpi);
  COPY(point->hdf5, versions.hdf5);
  COPY(point->onednn, versions.onednn);
  COPY(point->data, own->config->word[0]);
  strftime(point->date, sizeof point->date, "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
}

/* On all ranks of its session. */
static enum status measure(struct measuring *own, struct scale_point *out) {
  struct comm *comm = own->session->comm;
  size_t ranks = (size_t)comm_size(comm);
  enum status status;
  pulse_steady(false);
  TRY(session_open_device(own->session, own->config));
  TRY(trainer_create(own->session, own->config, &own->trainer));
  TRY_GOTO(comm_agree(comm, memory_alloc(ranks * sizeof *own->all, (void **)&own->all)), out);
  pulse_doing("measures steps");
  TRY_GOTO(warm_up(own), out);
  if (!own->stopped)
    TRY_GOTO(measure_all(own, out), out);
  if (own->stopped)
    goto out;
  TRY_GOTO(find_hosts(comm, out), out);
  describe(own, out);
out:
  memory_free((void **)&own->all);
  /* After a failure of this rank alone the others are not here: leave their collectives alone. */
  if (status == STATUS_OK || status_agreed() || ranks == 1)
    trainer_destroy(&own->trainer);
  return status;
}

/* Until all ranks are here, who then count collectives alike again.  A call of MPI that waits may spin, and take a core
 * from those that are measured. */
static enum status await_all(struct session *session) {
  uint64_t entered = pulse_read().entered, most = 0;
  MPI_Request request;
  int done = 0;
  REQUIRE(MPI_Iallreduce(&entered, &most, 1, MPI_UINT64_T, MPI_MAX, session->mpi, &request) == MPI_SUCCESS, ERR_COMM,
          "MPI_Iallreduce failed");
  for (;;) {
    REQUIRE(MPI_Test(&request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS, ERR_COMM, "MPI_Test failed");
    if (done)
      break;
    nanosleep(&(struct timespec){.tv_nsec = POLL_NANOSECONDS}, NULL);
  }
  pulse_go_on_from(most);
  return STATUS_OK;
}

static enum status measure_part(const struct session *whole, MPI_Comm part, const struct config *config,
                                struct scale_point *out, bool *stopped) {
  struct session session;
  struct measuring own = {.session = &session, .config = config};
  TRY(session_open_part(whole, part, config, &session));
  enum status status = measure(&own, out);
  bool alone = comm_size(session.comm) == 1;
  *stopped = own.stopped;
  if (status == STATUS_OK || status_agreed() || alone)
    session_close(&session);
  return status;
}

enum status scale_point_measure(struct session *session, const struct config *config, int ranks,
                                struct scale_point *out, bool *stopped) {
  struct config run = *config;
  MPI_Comm part;
  enum status status = STATUS_OK;
  bool takes_part = comm_rank(session->comm) < ranks;
  int64_t asked = 0;
  *out = (struct scale_point){0};
  run.command = COMMAND_TRAIN;
  run.threads = session->threads; /* as many on one rank as on all */
  run.quiet = true;
  run.log_steps = 0;
  REQUIRE(MPI_Comm_split(session->mpi, takes_part ? 0 : MPI_UNDEFINED, comm_rank(session->comm), &part) == MPI_SUCCESS,
          ERR_COMM, "MPI_Comm_split failed");
  pulse_doing(takes_part ? "opens its data and network" : "has no part in this point");
  pulse_aside(!takes_part);
  if (takes_part) {
    status = measure_part(session, part, &run, out, stopped);
    if (status != STATUS_OK && !status_agreed() && ranks > 1)
      return status;
    MPI_Comm_free(&part);
    asked = *stopped;
  }
  TRY(await_all(session));
  pulse_aside(false);
  TRY(comm_agree(session->comm, status));
  asked = asked || signals_stop_asked();
  TRY(comm_max_i64(session->comm, &asked, 1));
  *stopped = asked != 0;
  return STATUS_OK;
}

/* --- options -------------------------------------------------------------------------------------------------- */

/* Options that say which points, how often and where, not what is trained. */
static bool is_of_the_study(const char *name) {
  static const char *const names[] = {"output", "ranks", "mode",    "batches", "steps", "repeat",
                                      "share",  "json",  "predict", "machine", "study", "quiet"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcmp(names[i], name) == 0)
      return true;
  return false;
}

enum status scale_point_options(const struct config *config, char **out) {
  char *text = NULL, *rest = NULL;
  size_t bytes = 0, used = 0;
  FILE *stream = open_memstream(&text, &bytes);
  *out = NULL;
  REQUIRE(stream != NULL, ERR_MEMORY, "out of memory for the options");
  config_write(config, stream);
  fclose(stream);
  enum status status = memory_alloc_zero(bytes + 1, (void **)out);
  for (char *line = strtok_r(text, "\n", &rest); line != NULL && status == STATUS_OK;
       line = strtok_r(NULL, "\n", &rest)) {
    char name[64] = "";
    sscanf(line, "%63[^ ]", name);
    if (!is_of_the_study(name))
      used += (size_t)sprintf(*out + used, "%s\n", line);
  }
  free(text);
  return status;
}

/* --- files ---------------------------------------------------------------------------------------------------- */

#define NUMBER(name, field) \
  { name, offsetof(struct scale_point, field), 0 }
#define PHASE(name, which) NUMBER("seconds_" name, phase[which])
#define WORDS(name, field) \
  { name, offsetof(struct scale_point, field), sizeof((struct scale_point *)0)->field }

static const struct stored {
  const char *name;
  size_t offset, bytes; /* bytes: of a text; 0 = a number */
} stored[] = {
    NUMBER("ranks", ranks),
    NUMBER("batch", batch),
    NUMBER("hosts", hosts),
    NUMBER("ranks_per_host", ranks_per_host),
    NUMBER("threads", threads),
    NUMBER("cores", cores),
    NUMBER("steps", steps),
    NUMBER("repetitions", repetitions),
    NUMBER("seconds", seconds),
    NUMBER("seconds_least", seconds_least),
    NUMBER("seconds_most", seconds_most),
    NUMBER("samples_per_second", samples_per_second),
    PHASE("data", SCALE_DATA),
    PHASE("forward", SCALE_FORWARD),
    PHASE("loss", SCALE_LOSS),
    PHASE("gather", SCALE_GATHER),
    PHASE("panels", SCALE_PANELS),
    PHASE("backward", SCALE_BACKWARD),
    PHASE("reduce", SCALE_REDUCE),
    PHASE("update", SCALE_UPDATE),
    PHASE("rest", SCALE_REST),
    NUMBER("gather_least", gather_least),
    NUMBER("reduce_least", reduce_least),
    NUMBER("gather_bytes", gather_bytes),
    NUMBER("sum_bytes", sum_bytes),
    NUMBER("gradient_bytes", gradient_bytes),
    NUMBER("messages", messages),
    NUMBER("rows", rows),
    NUMBER("width", width),
    NUMBER("flops", flops),
    WORDS("host_names", host_names),
    WORDS("device", device),
    WORDS("transport", transport),
    WORDS("libraries", libraries),
    WORDS("version", version),
    WORDS("commit", commit),
    WORDS("mpi", mpi),
    WORDS("hdf5", hdf5),
    WORDS("onednn", onednn),
    WORDS("date", date),
    WORDS("data", data),
};

#define STORED ((int)(sizeof stored / sizeof *stored))

bool scale_point_field(const struct scale_point *point, int index, struct scale_field *out) {
  if (index >= STORED)
    return false;
  const struct stored *field = &stored[index];
  *out = (struct scale_field){.name = field->name};
  if (field->bytes > 0)
    out->text = (const char *)point + field->offset;
  else
    memcpy(&out->number, (const char *)point + field->offset, sizeof out->number);
  return true;
}

json_t *scale_point_json(const struct scale_point *point) {
  json_t *object = json_object(), *repeats = json_array();
  struct scale_field field;
  int failed = object == NULL || repeats == NULL;
  for (int i = 0; !failed && scale_point_field(point, i, &field); i++)
    failed = json_object_set_new(object, field.name,
                                 stored[i].bytes > 0                   ? json_string(field.text)
                                 : field.number == floor(field.number) ? json_integer((json_int_t)field.number)
                                                                       : json_real(field.number));
  for (int r = 0; !failed && r < (int)point->repetitions; r++)
    failed = json_array_append_new(repeats, json_real(point->repeat[r]));
  failed = failed || json_object_set(object, "repeats", repeats) ||
           json_object_set_new(object, "options", json_string(point->options));
  json_decref(repeats);
  if (!failed)
    return object;
  json_decref(object);
  return NULL;
}

enum status scale_point_write(const struct scale_point *point, const char *path) {
  json_t *object = scale_point_json(point);
  REQUIRE(object != NULL, ERR_MEMORY, "out of memory for a point of the study (or a name in it is not UTF-8)");
  enum status status = json_output_write(object, path);
  json_decref(object);
  return status;
}

/* One field of the object; false when it is not there, or is something else. */
static bool take(const json_t *object, const struct stored *field, struct scale_point *out) {
  json_t *value = json_object_get(object, field->name);
  void *at = (char *)out + field->offset;
  if (field->bytes > 0 && json_is_string(value) && json_string_length(value) < field->bytes)
    return strcpy(at, json_string_value(value)) != NULL;
  if (field->bytes > 0 || !json_is_number(value) || !(json_number_value(value) >= 0))
    return false;
  *(double *)at = json_number_value(value);
  return true;
}

static enum status take_all(const json_t *object, const char *path, struct scale_point *out) {
  const char *options = json_string_value(json_object_get(object, "options"));
  const json_t *repeats = json_object_get(object, "repeats");
  for (int i = 0; i < STORED; i++)
    REQUIRE(take(object, &stored[i], out), ERR_FORMAT, "%s has no %s as conr scale writes it; remove the file", path,
            stored[i].name);
  bool whole = options != NULL && out->seconds > 0 && out->ranks >= 1 && out->hosts >= 1 && out->batch >= out->ranks &&
               out->repetitions >= 1 && out->repetitions == (double)json_array_size(repeats) &&
               out->repetitions <= SCALE_MOST_REPEATS;
  REQUIRE(whole, ERR_FORMAT, "%s is not as conr scale writes it; remove the file", path);
  for (size_t r = 0; r < json_array_size(repeats); r++)
    out->repeat[r] = json_number_value(json_array_get(repeats, r));
  TRY(memory_alloc(strlen(options) + 1, (void **)&out->options));
  strcpy(out->options, options);
  return STATUS_OK;
}

enum status scale_point_read(const char *path, struct scale_point *out, bool *there) {
  json_error_t error;
  *out = (struct scale_point){0};
  *there = access(path, F_OK) == 0;
  if (!*there)
    return STATUS_OK;
  json_t *object = json_load_file(path, 0, &error);
  REQUIRE(object != NULL, ERR_FORMAT, "%s is not JSON (line %d: %s); remove the file", path, error.line, error.text);
  enum status status = take_all(object, path, out);
  json_decref(object);
  return status;
}
