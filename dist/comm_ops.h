/* For implementers of transports: the table each of them fills, and the part of a communicator they share. */
#ifndef CONR_DIST_COMM_OPS_H
#define CONR_DIST_COMM_OPS_H

#include "dist/comm.h"
#include "dist/device.h"

/* Meanings as in comm.h.  The first group is filled by every transport; the second by those on host memory alone: a
 * communicator with a `control` is never asked for it. */
struct comm_ops {
  const char *name;
  void (*destroy)(struct comm *comm); /* frees comm->transport; also after an opening that failed on the way */
  enum status (*sum)(struct comm *comm, enum dtype dtype, void *data, size_t count);
  enum status (*broadcast)(struct comm *comm, void *data, size_t bytes, int root);
  enum status (*gather_rows)(struct comm *comm, const void *own, const int64_t *rows_of_rank, size_t row_bytes,
                             void *all);
  enum status (*sum_start)(struct comm *comm, enum dtype dtype, void *data, size_t count, struct comm_request *request);
  /* There are rows.  first_of_rank: NULL = one rank's rows behind the other's. */
  enum status (*gather_start)(struct comm *comm, const int64_t *rows_of_rank, const int64_t *first_of_rank,
                              size_t row_bytes, void *all, struct comm_request *request);
  enum status (*progress)(struct comm *comm, struct comm_request *request, bool *done);
  enum status (*wait)(struct comm *comm, struct comm_request *request);
  enum status (*check)(struct comm *comm); /* comm_device_check() */

  enum status (*barrier)(struct comm *comm);
  enum status (*exchange_rows)(struct comm *comm, const void *own, const int64_t *rows_to, const int64_t *rows_from,
                               size_t row_bytes, void *all);
  enum status (*max_i64)(struct comm *comm, int64_t *data, size_t count);
  enum status (*max_f64)(struct comm *comm, double *data, size_t count);
  enum status (*node_alloc)(struct comm *comm, size_t bytes, void **out);
  enum status (*node_barrier)(struct comm *comm);
};

struct comm {
  const struct comm_ops *ops;
  void *transport; /* owned by the transport */
  int rank, size, node_rank, node_size;
  char host[256];
  struct comm_traffic traffic;
  const char *purpose; /* of the next collective, by comm_for(); NULL = none given */

  /* Of communicators on device memory; all zero on host memory. */
  struct comm *control;   /* borrowed: must outlive this; what is about ranks and numbers of the host goes to it */
  struct device *device;  /* borrowed: likewise                                                                 */
  struct event *reached;  /* owned: comm_device_wait() looks at it                                              */
  double timeout_seconds; /* the longest that a collective may take                                             */
  char label[48];         /* comm_transport(); "" = ops->name                                                   */

  bool dead; /* every call returns ERR_COMM from now on, with these words */
  char failure[600];
};

/* Collectives on host memory (comm_mpi.c).  Collective. */
enum status comm_create_mpi(MPI_Comm mpi, struct comm **out);

/* Another communicator of the same ranks in the same order, whose collectives come in an order of their own.
 * mpi  on host memory, made by comm_create_mpi().  Collective. */
enum status comm_duplicate_mpi(struct comm *mpi, struct comm **out);

/* Fill ops, transport and label of a communicator whose other fields are filled.  Collective; each rank returns how it
 * went for itself.  Through pinned host memory and `control` (comm_staged.c): */
enum status comm_open_staged(struct comm *comm);

/* By NCCL: a function of this type and name in the library of the device's backend (comm_nccl.c). */
#define COMM_NCCL_SYMBOL "conr_cuda_comm_nccl"
typedef enum status comm_open_function(struct comm *comm);

/* A rank is lost, or a collective failed on the way: whoever finds it says so, and every later call says it again.
 * Returns ERR_COMM. */
enum status comm_fail(struct comm *comm, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
