/* Communicators of device memory: which transport, agreed over the ranks, and waiting that looks after the ranks. */
#include "dist/comm_device.h"

#include "dist/comm_ops.h"
#include "dist/log.h"
#include "dist/memory.h"
#include "dist/pulse.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const names[] = {
    [DEVICE_COMM_AUTO] = "auto", [DEVICE_COMM_NCCL] = "nccl", [DEVICE_COMM_MPI] = "mpi"};

enum status device_comm_parse(const char *name, enum device_comm *out) {
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcmp(name, names[i]) == 0) {
      *out = (enum device_comm)i;
      return STATUS_OK;
    }
  return fail(ERR_ARGUMENT, "transport \"%s\" is unknown; choose one of: auto, nccl, mpi", name);
}

/* --- the choice ---------------------------------------------------------------------------------------------- */

/* What each rank tells the others; all then decide alike from the same table. */
struct place {
  char host[256];
  char bus[32];  /* PCI address of its GPU */
  char uuid[33]; /* likewise */
  int32_t on_device, wanted, has_nccl;
  char without_nccl[200]; /* why not */
};

static struct place own_place(const struct comm *host, struct device *device, enum device_comm wanted) {
  struct place own;
  void *found;
  memset(&own, 0, sizeof own); /* its bytes are sent */
  snprintf(own.host, sizeof own.host, "%s", host->host);
  snprintf(own.bus, sizeof own.bus, "%s", device_facts(device)->bus);
  snprintf(own.uuid, sizeof own.uuid, "%s", device_facts(device)->uuid);
  own.on_device = device != NULL;
  own.wanted = (int32_t)wanted;
  own.has_nccl = device != NULL && device_symbol(device, COMM_NCCL_SYMBOL, &found) == STATUS_OK;
  if (device != NULL && !own.has_nccl)
    snprintf(own.without_nccl, sizeof own.without_nccl, "%s", status_message());
  return own;
}

/* Two ranks on one GPU, as NCCL cannot have them: the first such pair.  Names of hosts would not tell: containers of one
 * host have several, and copied machines the same. */
static bool share_a_device(const struct place *all, int size, int *first, int *second) {
  for (*second = 1; *second < size; ++*second)
    for (*first = 0; *first < *second; ++*first)
      if (strcmp(all[*first].uuid, all[*second].uuid) == 0)
        return true;
  return false;
}

static int first_without_nccl(const struct place *all, int size) {
  int rank = 0;
  while (rank < size && all[rank].has_nccl)
    rank++;
  return rank;
}

/* The same on all ranks, the failures too. */
static enum status choose(const struct place *all, int size, bool *nccl) {
  int first, second;
  *nccl = false;
  for (int rank = 1; rank < size; rank++) {
    REQUIRE(all[rank].on_device == all[0].on_device, ERR_ARGUMENT,
            "rank 0 (%s) works on %s, but rank %d (%s) on %s; give all ranks a GPU, or none", all[0].host,
            all[0].on_device ? "a GPU" : "the host", rank, all[rank].host, all[rank].on_device ? "a GPU" : "the host");
    REQUIRE(all[rank].wanted == all[0].wanted, ERR_ARGUMENT,
            "rank 0 asks for the transport %s, rank %d for %s; all must ask for the same", names[all[0].wanted], rank,
            names[all[rank].wanted]);
  }
  enum device_comm wanted = (enum device_comm)all[0].wanted;
  REQUIRE(all[0].on_device || wanted != DEVICE_COMM_NCCL, ERR_ARGUMENT,
          "NCCL is asked for, but the work runs on the host; it takes one GPU for each rank");
  if (!all[0].on_device || wanted == DEVICE_COMM_MPI)
    return STATUS_OK;
  bool shared = share_a_device(all, size, &first, &second);
  REQUIRE(!shared || wanted == DEVICE_COMM_AUTO, ERR_ARGUMENT,
          "NCCL is asked for, but ranks %d and %d share the GPU %s of %s; start one rank for each GPU, or use the "
          "transport mpi",
          first, second, all[first].bus, all[first].host);
  int without = first_without_nccl(all, size);
  REQUIRE(without == size || wanted == DEVICE_COMM_AUTO, ERR_ARGUMENT,
          "NCCL is asked for, but rank %d (%s) has none: %s", without, all[without].host, all[without].without_nccl);
  *nccl = !shared && without == size;
  return STATUS_OK;
}

static enum status agree_on_transport(struct comm *host, struct device *device, enum device_comm wanted, bool *nccl) {
  struct place own = own_place(host, device, wanted), *all = NULL;
  enum status status = memory_alloc((size_t)host->size * sizeof *all, (void **)&all);
  TRY_GOTO(comm_agree(host, status), out);
  TRY_GOTO(comm_gather_each(host, &own, sizeof own, all), out);
  status = choose(all, host->size, nccl);
out:
  memory_free((void **)&all);
  return status;
}

/* --- making one ---------------------------------------------------------------------------------------------- */

/* What needs no other rank. */
static enum status prepare(struct comm *host, struct device *device, struct comm *comm) {
  TRY(comm_timeout(&comm->timeout_seconds));
  comm->rank = host->rank;
  comm->size = host->size;
  comm->node_rank = host->node_rank;
  comm->node_size = host->node_size;
  memcpy(comm->host, host->host, sizeof comm->host);
  comm->control = host;
  comm->device = device;
  return event_create(device, &comm->reached);
}

static enum status open_transport(struct comm *comm, bool nccl) {
  void *open;
  if (!nccl)
    return comm_open_staged(comm);
  TRY(device_symbol(comm->device, COMM_NCCL_SYMBOL, &open));
  return ((comm_open_function *)open)(comm);
}

static enum status create_on_device(struct comm *host, struct device *device, bool nccl, struct comm **out) {
  struct comm *comm = NULL;
  enum status status = memory_alloc_zero(sizeof *comm, (void **)&comm);
  if (status == STATUS_OK)
    status = prepare(host, device, comm);
  TRY_GOTO(comm_agree(host, status), failed);
  TRY_GOTO(comm_agree(host, open_transport(comm, nccl)), failed);
  *out = comm;
  return STATUS_OK;
failed:
  if (comm != NULL) {
    comm->dead = true; /* other ranks may have no transport to say goodbye with */
    if (comm->ops != NULL)
      comm->ops->destroy(comm);
    event_destroy(&comm->reached);
  }
  memory_free((void **)&comm);
  return status;
}

enum status comm_create_device(struct comm *host, struct device *device, enum device_comm wanted, struct comm **out) {
  bool nccl = false;
  *out = NULL;
  TRY(comm_agree(host, agree_on_transport(host, device, wanted, &nccl)));
  if (device == NULL)
    return comm_duplicate_mpi(host, out);
  return create_on_device(host, device, nccl, out);
}

const char *comm_transport(const struct comm *comm) {
  return comm->label[0] != '\0' ? comm->label : comm->ops->name;
}

/* --- waiting ------------------------------------------------------------------------------------------------- */

enum status comm_device_check(struct comm *comm) {
  REQUIRE(!comm->dead, ERR_COMM, "%s", comm->failure);
  return comm->ops->check(comm);
}

/* The host would wait for ever in the device's own wait if a rank were lost: so it looks again and again. */
static enum status wait_for_device(struct comm *comm) {
  enum { SPIN_MICROSECONDS = 200, SLEEP_MICROSECONDS = 50 };
  bool reached = false;
  TRY(comm_device_check(comm));
  TRY(event_record(comm->reached, device_main(comm->device)));
  double begin = log_seconds();
  TRY(event_reached(comm->reached, &reached));
  while (!reached) {
    TRY(comm_device_check(comm));
    if (log_seconds() - begin < SPIN_MICROSECONDS * 1e-6)
      sched_yield();
    else
      usleep(SLEEP_MICROSECONDS);
    TRY(event_reached(comm->reached, &reached));
  }
  return STATUS_OK;
}

enum status comm_device_wait(struct comm *comm) {
  if (comm->device == NULL)
    return STATUS_OK;
  const char *before = pulse_doing("waits for its GPU");
  enum status status = wait_for_device(comm);
  pulse_doing(before);
  return status;
}
