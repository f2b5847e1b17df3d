/* For implementers of transports: the table each of them fills, and the part of a communicator they share. */
#ifndef CONR_DIST_COMM_OPS_H
#define CONR_DIST_COMM_OPS_H

#include "dist/comm.h"

/* Every entry is filled by every transport; meanings as in comm.h. */
struct comm_ops {
  const char *name;
  void (*destroy)(struct comm *comm); /* frees comm->transport */
  enum status (*barrier)(struct comm *comm);
  enum status (*sum)(struct comm *comm, enum dtype dtype, void *data, size_t count);
  enum status (*max_i64)(struct comm *comm, int64_t *data, size_t count);
  enum status (*max_f64)(struct comm *comm, double *data, size_t count);
  enum status (*broadcast)(struct comm *comm, void *data, size_t bytes, int root);
  enum status (*gather_rows)(struct comm *comm, const void *own, const int64_t *rows_of_rank, size_t row_bytes,
                             void *all);
  enum status (*sum_start)(struct comm *comm, enum dtype dtype, void *data, size_t count, struct comm_request *request);
  enum status (*progress)(struct comm *comm, struct comm_request *request, bool *done);
  enum status (*wait)(struct comm *comm, struct comm_request *request);
  enum status (*node_alloc)(struct comm *comm, size_t bytes, void **out);
  enum status (*node_barrier)(struct comm *comm);
};

struct comm {
  const struct comm_ops *ops;
  void *transport; /* owned by the transport */
  int rank, size, node_rank, node_size;
  char host[256];
  struct comm_traffic traffic;
};

/* Collectives on host memory (comm_mpi.c).  Collective. */
enum status comm_create_mpi(MPI_Comm mpi, struct comm **out);

#endif
