/* One reader a host. */
#include "io/host_share.h"

#include "dist/memory.h"

bool host_share_reads(const struct host_share *share) {
  return share->comm == NULL || comm_node_rank(share->comm) == 0;
}

enum status host_share_agree(const struct host_share *share, enum status status) {
  return share->comm == NULL ? status : comm_agree(share->comm, status);
}

enum status host_share_finish(const struct host_share *share, enum status status) {
  if (share->comm == NULL)
    return status;
  enum status waited = comm_node_barrier(share->comm);
  return comm_agree(share->comm, status != STATUS_OK ? status : waited);
}

enum status host_share_same(const struct host_share *share, const int64_t *values, int count) {
  int64_t bounds[2 * HOST_SHARE_MOST_VALUES]; /* the largest of each value and of its complement */
  REQUIRE(count <= HOST_SHARE_MOST_VALUES, ERR_BUG, "%d values cannot be compared at once", count);
  if (share->comm == NULL)
    return STATUS_OK;
  for (int i = 0; i < count; i++) {
    bounds[2 * i] = values[i];
    bounds[2 * i + 1] = ~values[i];
  }
  TRY(comm_max_i64(share->comm, bounds, 2 * (size_t)count));
  for (int i = 0; i < count; i++)
    REQUIRE(bounds[2 * i] == ~bounds[2 * i + 1], ERR_FORMAT,
            "%s is not the same file on all hosts; copy it again or use a shared folder", share->path);
  return STATUS_OK;
}

enum status host_share_alloc(const struct host_share *share, size_t bytes, void **out) {
  if (share->comm == NULL)
    return memory_alloc(bytes, out);
  return comm_agree(share->comm, comm_node_alloc(share->comm, bytes, out));
}

void host_share_free(const struct host_share *share, void **block) {
  if (share->comm == NULL)
    memory_free(block);
  *block = NULL;
}
