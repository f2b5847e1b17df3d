/* Counted memory: counts, peak, edges of size, threads. */
#include "dist/memory.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *allocate(size_t bytes) {
  void *block;
  cr_assert(eq(int, memory_alloc(bytes, &block), STATUS_OK), "%zu bytes: %s", bytes, status_message());
  cr_assert(ne(ptr, block, NULL));
  return block;
}

Test(memory, counts_what_is_in_use_and_ends_at_zero) {
  cr_assert(eq(sz, memory_in_use(), 0));
  void *first = allocate(1000), *second = allocate(1);
  cr_assert(eq(sz, memory_in_use(), 1001));
  memory_free(&first);
  cr_assert(eq(sz, memory_in_use(), 1));
  memory_free(&second);
  cr_assert(eq(sz, memory_in_use(), 0));
}

Test(memory, free_clears_the_pointer_and_takes_NULL) {
  void *block = allocate(10);
  memory_free(&block);
  cr_assert(eq(ptr, block, NULL));
  memory_free(&block);
  cr_assert(eq(sz, memory_in_use(), 0));
}

Test(memory, peak_is_the_most_at_one_time_not_the_total) {
  void *first = allocate(300), *second = allocate(500);
  memory_free(&first);
  first = allocate(200);
  cr_assert(eq(sz, memory_peak(), 800));
  memory_free(&second);
  memory_free(&first);
  cr_assert(eq(sz, memory_peak(), 800));
}

Test(memory, peak_reset_starts_from_what_is_in_use) {
  void *kept = allocate(100), *passing = allocate(900);
  memory_free(&passing);
  memory_peak_reset();
  cr_assert(eq(sz, memory_peak(), 100));
  passing = allocate(50);
  memory_free(&passing);
  cr_assert(eq(sz, memory_peak(), 150));
  memory_free(&kept);
}

Test(memory, blocks_of_any_size_are_aligned_and_wholly_usable) {
  void *block[300];
  for (size_t bytes = 0; bytes < 300; bytes++) {
    block[bytes] = allocate(bytes);
    cr_assert(eq(sz, (uintptr_t)block[bytes] % 64, 0), "%zu bytes", bytes);
    memset(block[bytes], (int)(bytes % 251), bytes);
  }
  for (size_t bytes = 0; bytes < 300; bytes++) {
    for (size_t i = 0; i < bytes; i++)
      cr_assert(eq(int, ((unsigned char *)block[bytes])[i], (int)(bytes % 251)), "byte %zu of %zu", i, bytes);
    memory_free(&block[bytes]);
  }
  cr_assert(eq(sz, memory_in_use(), 0));
}

Test(memory, empty_blocks_are_valid_distinct_and_cost_nothing) {
  void *first = allocate(0), *second = allocate(0);
  cr_assert(ne(ptr, first, second));
  cr_assert(eq(sz, memory_in_use(), 0));
  memory_free(&first);
  memory_free(&second);
  cr_assert(eq(int, memory_alloc_zero(0, &first), STATUS_OK));
  memory_free(&first);
  cr_assert(eq(sz, memory_in_use(), 0));
}

/* Dirty blocks are freed first, so that the allocator has something to hand out that is not zero. */
Test(memory, alloc_zero_fills_with_zeros) {
  for (int round = 0; round < 10; round++) {
    void *dirty = allocate(5000);
    memset(dirty, 0xFF, 5000);
    memory_free(&dirty);
    unsigned char *block;
    cr_assert(eq(int, memory_alloc_zero(5000, (void **)&block), STATUS_OK));
    for (size_t i = 0; i < 5000; i++)
      cr_assert(eq(int, block[i], 0), "byte %zu", i);
    memset(block, 0xFF, 5000);
    memory_free((void **)&block);
  }
}

static void expect_refused(const size_t *sizes, size_t count) {
  void *kept = allocate(10);
  for (size_t i = 0; i < count; i++) {
    void *block = kept;
    char number[32];
    snprintf(number, sizeof number, "%zu", sizes[i]);
    cr_assert(eq(int, memory_alloc(sizes[i], &block), ERR_MEMORY), "%zu", sizes[i]);
    cr_assert(eq(ptr, block, NULL), "%zu", sizes[i]);
    cr_assert(ne(ptr, strstr(status_message(), number), NULL), "%s", status_message());
    cr_assert(eq(int, memory_alloc_zero(sizes[i], &block), ERR_MEMORY), "%zu", sizes[i]);
  }
  cr_assert(eq(sz, memory_in_use(), 10));
  cr_assert(eq(sz, memory_peak(), 10));
  memory_free(&kept);
}

Test(memory, a_size_that_overflows_with_its_header_is_an_error_that_names_it_and_changes_no_count) {
  static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 1, SIZE_MAX - 63, SIZE_MAX - 64, SIZE_MAX - 127};
  expect_refused(sizes, sizeof sizes / sizeof *sizes);
}

Test(memory, a_size_no_machine_has_is_an_error_that_names_it_and_changes_no_count) {
#ifdef __SANITIZE_ADDRESS__
  cr_skip("AddressSanitizer reports every refused allocation");
#endif
  static const size_t sizes[] = {SIZE_MAX - 128, SIZE_MAX - 1000, SIZE_MAX / 2 + 1, (size_t)1 << 60};
  expect_refused(sizes, sizeof sizes / sizeof *sizes);
}

enum { THREADS = 4, ROUNDS = 5000, BLOCK_BYTES = 64 };

static void *allocate_and_free(void *failures) {
  for (int round = 0; round < ROUNDS; round++) {
    void *block;
    if (memory_alloc(BLOCK_BYTES, &block) != STATUS_OK || memory_in_use() < BLOCK_BYTES)
      ++*(int *)failures;
    memory_free(&block);
  }
  return NULL;
}

Test(memory, threads_do_not_lose_counts) {
  pthread_t thread[THREADS];
  int failures[THREADS] = {0};
  for (int i = 0; i < THREADS; i++)
    cr_assert(eq(int, pthread_create(&thread[i], NULL, allocate_and_free, &failures[i]), 0));
  for (int i = 0; i < THREADS; i++) {
    pthread_join(thread[i], NULL);
    cr_assert(eq(int, failures[i], 0));
  }
  cr_assert(eq(sz, memory_in_use(), 0));
  cr_assert(ge(sz, memory_peak(), BLOCK_BYTES));
  cr_assert(le(sz, memory_peak(), THREADS * BLOCK_BYTES));
}
