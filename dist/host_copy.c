/* Device memory seen from the host. */
#include "dist/host_copy.h"

#include "dist/memory.h"

enum status host_copy_create(struct device *device, void *block, size_t bytes, struct host_copy *out) {
  *out = (struct host_copy){.device = device, .block = block, .data = block, .bytes = bytes};
  return device == NULL ? STATUS_OK : memory_alloc(bytes, &out->data);
}

void host_copy_destroy(struct host_copy *copy) {
  if (copy->device != NULL)
    memory_free(&copy->data);
  *copy = (struct host_copy){0};
}

enum status host_copy_fetch(struct host_copy *copy) {
  TRY(device_copy(copy->device, copy->data, copy->block, copy->bytes));
  return device_wait(copy->device);
}

enum status host_copy_store(struct host_copy *copy) {
  TRY(device_copy(copy->device, copy->block, copy->data, copy->bytes));
  return device_wait(copy->device);
}
