/* Opening, closing, and a few numbers. */
#include "tests/device_support.h"

#include "dist/memory.h"
#include "tests/emulated.h"

void need_emulation(void) {
  if (!emulated_use())
    cr_skip("there is no emulated CUDA library");
}

struct device *device_emulated(void) {
  struct device *device;
  need_emulation();
  MUST(device_open(0, &device));
  return device;
}

void device_close_empty(struct device **device) {
  cr_assert(eq(sz, device_bytes(*device), 0));
  device_close(device);
  cr_assert(eq(ptr, *device, NULL));
  cr_assert(eq(sz, memory_in_use(), 0));
}

void device_losses_begin(struct device **device, const struct loss_ops **losses) {
  if (!gpu_use())
    cr_skip("there is no emulated CUDA library");
  MUST(device_open(0, device));
  MUST(loss_ops_open(*device, losses));
}

void device_losses_end(struct device **device) {
  if (*device != NULL)
    device_close(device);
  cr_assert(eq(sz, memory_in_use(), 0));
}

float *device_floats(struct device *device, size_t count) {
  void *block;
  MUST(device_alloc(device, count * sizeof(float), &block));
  return block;
}

float device_float(struct device *device, const float *from) {
  float value = 0;
  MUST(device_copy(device, &value, from, sizeof value));
  MUST(device_wait(device));
  return value;
}

void *device_test_function(struct device *device, const char *name) {
  void *found;
  MUST(device_symbol(device, name, &found));
  return found;
}
