/* A rank's GPU. */
#include "tests/rank_device.h"

#include "dist/memory.h"
#include "tests/rank_record.h"

#include <stdlib.h>

void rank_device_begin(struct comm **host, struct device **device, struct comm **data, const struct loss_ops **losses) {
  const char *name = getenv("CONR_TEST_TRANSPORT");
  enum device_comm transport = DEVICE_COMM_MPI;
  int count;
  MUST(comm_create(MPI_COMM_WORLD, host));
  MUST(device_count(&count));
  MUST(device_open(record.rank % count, device));
  if (name != NULL)
    MUST(device_comm_parse(name, &transport));
  MUST(comm_create_device(*host, *device, transport, data));
  MUST(loss_ops_open(*device, losses));
}

void rank_device_end(struct comm **host, struct device **device, struct comm **data) {
  comm_destroy(data);
  device_close(device);
  comm_destroy(host);
  EXPECT(memory_in_use() == 0, "%zu bytes are left", memory_in_use());
}
