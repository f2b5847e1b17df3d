/* Counted, aligned host memory: each block carries its size in the 64 bytes before it. */
#include "dist/memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 64

static atomic_size_t in_use, peak;

enum status memory_alloc(size_t bytes, void **out) {
  *out = NULL;
  REQUIRE(bytes <= (size_t)-1 - 2 * ALIGNMENT, ERR_MEMORY, "cannot allocate %zu bytes: the size is absurd", bytes);
  size_t total = (bytes + 2 * ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; /* header + bytes, rounded up */
  char *block = aligned_alloc(ALIGNMENT, total);
  REQUIRE(block != NULL, ERR_MEMORY, "cannot allocate %zu bytes; use more ranks, a smaller batch or a smaller model",
          bytes);
  memcpy(block, &bytes, sizeof bytes);
  size_t now = atomic_fetch_add(&in_use, bytes) + bytes;
  size_t seen = atomic_load(&peak);
  while (now > seen && !atomic_compare_exchange_weak(&peak, &seen, now)) {
  }
  *out = block + ALIGNMENT;
  return STATUS_OK;
}

enum status memory_alloc_zero(size_t bytes, void **out) {
  TRY(memory_alloc(bytes, out));
  memset(*out, 0, bytes);
  return STATUS_OK;
}

void memory_free(void **block) {
  if (*block == NULL)
    return;
  char *start = (char *)*block - ALIGNMENT;
  size_t bytes;
  memcpy(&bytes, start, sizeof bytes);
  atomic_fetch_sub(&in_use, bytes);
  free(start);
  *block = NULL;
}

size_t memory_in_use(void) {
  return atomic_load(&in_use);
}

size_t memory_peak(void) {
  return atomic_load(&peak);
}

void memory_peak_reset(void) {
  atomic_store(&peak, atomic_load(&in_use));
}
