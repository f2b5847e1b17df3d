/* The choice of a GPU, agreed over ranks. */
#include "dist/device_choice.h"

#include "dist/memory.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Is it worth while to open CUDA's libraries (65 ms, 150 MB) to look for a GPU?  The variable is of device.h. */
static bool may_have_gpu(void) {
  return getenv("CONR_CUDA_LIBRARY") != NULL || access("/dev/nvidiactl", F_OK) == 0;
}

static enum status open_own(struct comm *comm, struct device **out) {
  int count;
  TRY(device_count(&count));
  return device_open(comm_node_rank(comm) % count, out);
}

static enum status open_on_all(struct comm *comm, enum status own, struct device **out) {
  enum status status = comm_agree(comm, own);
  if (status != STATUS_OK)
    device_close(out);
  return status;
}

static enum status open_if_all_can(struct comm *comm, struct device **out, char *note, size_t bytes) {
  bool here = may_have_gpu();
  int64_t anywhere = here;
  TRY(comm_max_i64(comm, &anywhere, 1));
  if (!anywhere)
    return STATUS_OK;
  enum status own = here ? open_own(comm, out) : fail(ERR_DEVICE, "%s has no NVIDIA driver", comm_host(comm));
  enum status status = open_on_all(comm, own, out);
  if (status != STATUS_OK && status != ERR_COMM)
    snprintf(note, bytes, "no GPU is used: %s", status_message());
  return status == ERR_COMM ? status : STATUS_OK;
}

enum status device_choose(struct comm *comm, const char *wanted, struct device **out, char *note, size_t bytes) {
  *out = NULL;
  note[0] = '\0';
  if (strcmp(wanted, "cpu") == 0)
    return STATUS_OK;
  if (strcmp(wanted, "auto") == 0)
    return open_if_all_can(comm, out, note, bytes);
  return open_on_all(comm, open_own(comm, out), out);
}

enum { LINE_BYTES = 256 };

enum status device_report(struct comm *comm, const struct device *device, char *text, size_t bytes) {
  const struct device_facts *facts = device_facts(device);
  int size = comm_size(comm);
  char own[LINE_BYTES] = "", *lines = NULL;
  text[0] = '\0';
  if (device != NULL)
    snprintf(own, sizeof own, "rank %d on %.100s: %.80s, %.0f GB, at %s, NUMA node %d", comm_rank(comm),
             comm_host(comm), facts->name, (double)facts->memory_bytes / 1e9, facts->bus, facts->numa_node);
  enum status status = comm_agree(comm, memory_alloc((size_t)size * LINE_BYTES, (void **)&lines));
  if (status == STATUS_OK)
    status = comm_gather_each(comm, own, LINE_BYTES, lines);
  for (int rank = 0; rank < size && status == STATUS_OK && device != NULL; rank++)
    snprintf(text + strlen(text), bytes - strlen(text), "%s%s", rank > 0 ? "\n" : "", lines + rank * LINE_BYTES);
  memory_free((void **)&lines);
  return status;
}
