/* Joining and leaving the job. */
#define _GNU_SOURCE /* cpu_set_t */
#include "launch/session.h"

#include "dist/comm_device.h"
#include "dist/device_choice.h"
#include "dist/memory.h"

#include <omp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What a rank may run on, and where. */
struct place {
  char host[256];
  cpu_set_t cores;
};

/* Ranks of this host that may use the very same cores as this one, itself among them.  Collective. */
static enum status count_sharers(struct comm *comm, int *sharers, int *cores) {
  int size = comm_size(comm);
  struct place *all = NULL, own = {0};
  *sharers = *cores = 1;
  snprintf(own.host, sizeof own.host, "%s", comm_host(comm));
  if (sched_getaffinity(0, sizeof own.cores, &own.cores) != 0)
    CPU_ZERO(&own.cores); /* more cores than a cpu_set_t holds: all ranks of the host count as sharing */
  enum status status = comm_agree(comm, memory_alloc((size_t)size * sizeof *all, (void **)&all));
  if (status == STATUS_OK)
    status = comm_gather_each(comm, &own, sizeof own, all);
  *sharers = 0;
  for (int rank = 0; rank < size && status == STATUS_OK; rank++)
    *sharers += strcmp(all[rank].host, own.host) == 0 && CPU_EQUAL(&all[rank].cores, &own.cores);
  int usable = CPU_COUNT(&own.cores);
  *cores = usable > 0 ? usable : (int)sysconf(_SC_NPROCESSORS_ONLN);
  memory_free((void **)&all);
  return status;
}

/* --threads, else OMP_NUM_THREADS, else this rank's share of the cores it may use: a launcher that binds has divided
 * them, ranks with the same cores divide them among themselves.  Collective. */
static enum status choose_threads(const struct config *config, struct comm *comm, int *threads) {
  int sharers, cores;
  TRY(count_sharers(comm, &sharers, &cores));
  *threads = sharers > 0 && cores > sharers ? cores / sharers : 1;
  if (config->reproducible) /* libraries add up otherwise on more */
    *threads = 1;
  else if (config->threads > 0)
    *threads = (int)config->threads;
  else if (getenv("OMP_NUM_THREADS") != NULL)
    *threads = omp_get_max_threads();
  return STATUS_OK;
}

static enum status join(MPI_Comm mpi, const struct config *config, struct session *session) {
  *session = (struct session){.mpi = mpi};
  TRY(comm_create(mpi, &session->comm));
  session->log = log_create(comm_rank(session->comm), comm_size(session->comm), config->quiet);
  return STATUS_OK;
}

enum status session_open(MPI_Comm mpi, const struct config *config, struct session *session) {
  TRY(join(mpi, config, session));
  TRY(watch_start(session->comm, EXIT_FAILED, &session->watch));
  TRY(choose_threads(config, session->comm, &session->threads));
  omp_set_num_threads(session->threads);
  return STATUS_OK;
}

enum status session_open_part(const struct session *whole, MPI_Comm mpi, const struct config *config,
                              struct session *part) {
  TRY(join(mpi, config, part));
  part->threads = whole->threads;
  return STATUS_OK;
}

/* What runs where, for the log. */
static enum status report_devices(struct session *session) {
  char text[16384];
  TRY(device_report(session->comm, session->device, text, sizeof text));
  if (session->device == NULL)
    return STATUS_OK;
  log_line(&session->log, "%s", text);
  log_line(&session->log, "%s; gradients and features travel by %s", device_facts(session->device)->libraries,
           comm_transport(session->data));
  return STATUS_OK;
}

static enum status check_options(const struct session *session, const struct config *config) {
  REQUIRE(session->device != NULL || strcmp(config->graphs, "on") != 0, ERR_ARGUMENT,
          "--graphs on has no effect on the host; drop it, or use a GPU by --device cuda");
  REQUIRE(session->device != NULL || strcmp(config->decode, "host") == 0, ERR_ARGUMENT,
          "--decode %s takes a GPU, and this is the host; drop it, or use a GPU by --device cuda", config->decode);
  REQUIRE(
      session->device == NULL || !config->reproducible, ERR_ARGUMENT,
      "--reproducible computes on the host: on a GPU gradients and ConR's sums are added up in orders that depend on "
      "the number of ranks; give --device cpu, or drop --reproducible");
  return STATUS_OK;
}

enum status session_open_device(struct session *session, const struct config *config) {
  enum device_comm transport;
  char note[1024];
  TRY(comm_agree(session->comm, device_comm_parse(config->comm, &transport)));
  TRY(device_choose(session->comm, config->device, &session->device, note, sizeof note));
  TRY(comm_agree(session->comm, check_options(session, config)));
  if (note[0] != '\0' && comm_rank(session->comm) == 0)
    log_warning(&session->log, "%s", note);
  TRY(comm_create_device(session->comm, session->device, transport, &session->data));
  return report_devices(session);
}

void session_close(struct session *session) {
  watch_stop(&session->watch);
  comm_destroy(&session->data);
  device_close(&session->device);
  comm_destroy(&session->comm);
}

void session_complain(const struct comm *comm, const char *sentence) {
  char host[256] = "?";
  int rank = comm != NULL ? comm_rank(comm) : launcher_rank();
  gethostname(host, sizeof host - 1);
  if (comm != NULL && comm_size(comm) > 1)
    fprintf(stderr, "conr: [rank %d/%d %s] %s\n", rank, comm_size(comm), host, sentence);
  else if (comm == NULL && rank > 0) /* the number of ranks is not known */
    fprintf(stderr, "conr: [rank %d %s] %s\n", rank, host, sentence);
  else
    fprintf(stderr, "conr: %s\n", sentence);
  fflush(stderr);
}

int session_fail(struct session *session, enum status status) {
  int code = status == ERR_ARGUMENT ? EXIT_USAGE : EXIT_FAILED;
  bool together = comm_size(session->comm) == 1 || status_agreed();
  if (session->log.live)
    fputc('\n', stderr);
  if (together && comm_rank(session->comm) == 0)
    fprintf(stderr, "conr: %s\n", status_message());
  fflush(stderr);
  if (together)
    return code;
  if (status == ERR_COMM)
    watch_speaks_first(session->watch);
  session_complain(session->comm, status_message());
  watch_has_said(session->watch, code);
  MPI_Abort(session->mpi, code);
  return code;
}

int launcher_rank(void) {
  static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const char *rank = getenv(names[i]);
    if (rank != NULL)
      return atoi(rank);
  }
  return -1;
}
