/* Joining and leaving the job. */
#include "launch/session.h"

#include <omp.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

/* --threads, else OMP_NUM_THREADS, else the cores this process may use.  A launcher that binds ranks has
 * divided the cores already; otherwise the ranks of a host share them. */
static int choose_threads(const struct config *config, struct comm *comm) {
  if (config->threads > 0)
    return (int)config->threads;
  if (getenv("OMP_NUM_THREADS") != NULL)
    return omp_get_max_threads();
  int usable = omp_get_num_procs(), online = (int)sysconf(_SC_NPROCESSORS_ONLN);
  int share = usable < online ? usable : online / comm_node_size(comm);
  return share > 1 ? share : 1;
}

enum status session_open(MPI_Comm mpi, const struct config *config, struct session *session) {
  *session = (struct session){.mpi = mpi};
  TRY(comm_create(mpi, &session->comm));
  session->log = log_create(comm_rank(session->comm), comm_size(session->comm), config->quiet);
  session->threads = choose_threads(config, session->comm);
  omp_set_num_threads(session->threads);
  return STATUS_OK;
}

void session_close(struct session *session) {
  comm_destroy(&session->comm);
}

int session_fail(struct session *session, enum status status) {
  int code = status == ERR_ARGUMENT ? EXIT_USAGE : EXIT_FAILED;
  int rank = comm_rank(session->comm), size = comm_size(session->comm);
  if (session->log.live)
    fputc('\n', stderr);
  if (size == 1 || (status_agreed() && rank == 0))
    fprintf(stderr, "conr: %s\n", status_message());
  fflush(stderr);
  if (size == 1 || status_agreed())
    return code;
  fprintf(stderr, "conr: [rank %d/%d %s] %s\n", rank, size, comm_host(session->comm), status_message());
  fflush(stderr);
  MPI_Abort(session->mpi, code);
  return code;
}

int launcher_rank(void) {
  static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (getenv(names[i]) != NULL)
      return atoi(getenv(names[i]));
  return 0;
}
