/* The emulation of CUDA itself (tests/emulate): what it can do, and that it fails where a GPU would go wrong. */
#include "tests/device_support.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>

/* Sums of small integers are exact in any order. */
Test(emulation, threads_of_a_block_meet_at_shuffles_and_barriers) {
  static const int sizes[] = {32, 64, 96, 256, 1024};
  static float values[3 * 1024], got[3];
  struct device *device = device_emulated();
  sums_function *sums = (sums_function *)device_test_function(device, "emulated_test_sums");
  float *x = device_floats(device, 3 * 1024), *out = device_floats(device, 3);
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
    float expected[3] = {0};
    int threads = sizes[s];
    for (int i = 0; i < 3 * threads; i++) {
      values[i] = (float)((i * 37 + threads) % 101);
      expected[i / threads] += values[i];
    }
    MUST(device_copy(device, x, values, sizeof(float) * 3 * (size_t)threads));
    MUST(sums(device_main(device), 3, threads, x, out));
    MUST(device_copy(device, got, out, sizeof got));
    MUST(device_wait(device));
    for (int b = 0; b < 3; b++)
      cr_assert(eq(flt, got[b], expected[b]), "%d threads, block %d", threads, b);
  }
  device_free(device, (void **)&x);
  device_free(device, (void **)&out);
  device_close_empty(&device);
}

#ifndef __SANITIZE_ADDRESS__ /* which words these two by itself */
Test(emulation, the_host_may_not_touch_device_memory, .signal = SIGSEGV) {
  struct device *device = device_emulated();
  float *x = device_floats(device, 1);
  MUST(device_zero(device, x, sizeof *x));
  MUST(device_wait(device));
  printf("%g\n", (double)*x);
}

Test(emulation, a_kernel_may_not_leave_its_memory, .signal = SIGABRT) {
  struct device *device = device_emulated();
  sums_function *sums = (sums_function *)device_test_function(device, "emulated_test_sums");
  float *x = device_floats(device, 64), *out = device_floats(device, 1);
  MUST(device_zero(device, x, 64 * sizeof *x));
  MUST(sums(device_main(device), 2, 32, x, out));
  device_free(device, (void **)&x);
  device_free(device, (void **)&out);
  device_close(&device);
}
#endif

/* Half a warp sums with lanes that are not there. */
Test(emulation, a_shuffle_from_a_lane_that_is_not_there_gives_no_number) {
  struct device *device = device_emulated();
  sums_function *sums = (sums_function *)device_test_function(device, "emulated_test_sums");
  float *x = device_floats(device, 16), *out = device_floats(device, 1);
  MUST(device_zero(device, x, 16 * sizeof *x));
  MUST(sums(device_main(device), 1, 16, x, out));
  cr_assert(isnan(device_float(device, out)));
  device_free(device, (void **)&x);
  device_free(device, (void **)&out);
  device_close_empty(&device);
}

/* What shuffles, votes, atomics, bits and two-dimensional grids should give: one number each, where 1 means right. */
Test(emulation, speaks_the_rest_of_the_language) {
  enum { CLAIMS = 16 };
  struct device *device = device_emulated();
  strange_function *strange = (strange_function *)device_test_function(device, "emulated_test_language");
  float *out = device_floats(device, CLAIMS), got[CLAIMS];
  MUST(device_zero(device, out, CLAIMS * sizeof *out));
  MUST(strange(device_main(device), out));
  MUST(device_copy(device, got, out, sizeof got));
  MUST(device_wait(device));
  for (int i = 0; i < CLAIMS; i++)
    cr_assert(eq(flt, got[i], 1), "claim %d", i);
  device_free(device, (void **)&out);
  device_close_empty(&device);
}

static void run_strange(const char *name) {
  struct device *device = device_emulated();
  strange_function *strange = (strange_function *)device_test_function(device, name);
  float *out = device_floats(device, 64);
  MUST(strange(device_main(device), out));
  device_wait(device);
}

Test(emulation, a_barrier_that_not_all_threads_reach_ends_the_program, .signal = SIGABRT) {
  run_strange("emulated_test_stuck");
}

Test(emulation, a_barrier_in_a_plain_launch_ends_the_program, .signal = SIGABRT) {
  run_strange("emulated_test_plain_barrier");
}

/* Thread 0 reads before the last thread has written. */
Test(emulation, a_missing_barrier_shows) {
  struct device *device = device_emulated();
  strange_function *strange = (strange_function *)device_test_function(device, "emulated_test_no_barrier");
  float *out = device_floats(device, 1);
  MUST(strange(device_main(device), out));
  cr_assert(ne(flt, device_float(device, out), 64));
  device_free(device, (void **)&out);
  device_close_empty(&device);
}

/* Orders, transpositions, types and biases against three loops: the numbers are small integers and sums exact, but for
 * the rounding of a result to 8 bits of mantissa. */
Test(emulation, products_of_matrices_are_those_of_three_loops) {
  struct device *device = device_emulated();
  products_function *products = (products_function *)device_test_function(device, "emulated_test_products");
  int cases = 0;
  double worst = 1;
  MUST(products(device_main(device), &cases, &worst));
  cr_assert(eq(int, cases, 3 * 32 * 2 * 2));
  cr_assert(eq(dbl, worst, 0));
  device_close_empty(&device);
}
