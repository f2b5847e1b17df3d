/* Devices: the host, and a GPU that is emulated (tests/emulate). */
#include "dist/device.h"
#include "dist/memory.h"
#include "tests/device_support.h"
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void free_floats(struct device *device, float **block) {
  device_free(device, (void **)block);
}

static float *pinned_floats(struct device *device, size_t count, float value) {
  void *block;
  MUST(device_alloc_pinned(device, count * sizeof(float), &block));
  for (size_t i = 0; i < count; i++)
    ((float *)block)[i] = value;
  return block;
}

/* --- the host ------------------------------------------------------------------------------------------------- */

Test(host, is_a_device_whose_work_is_done_when_the_call_returns) {
  int numbers[4] = {1, 2, 3, 4}, back[4] = {0};
  void *block, *pinned;
  MUST(device_alloc_zero(NULL, sizeof numbers, &block));
  MUST(device_alloc_pinned(NULL, 10, &pinned));
  cr_assert(eq(sz, device_bytes(NULL), sizeof numbers + 10));
  cr_assert(eq(int, ((int *)block)[3], 0));
  MUST(device_copy(NULL, block, numbers, sizeof numbers));
  cr_assert(eq(int, ((int *)block)[3], 4));
  MUST(device_copy(NULL, back, block, sizeof back));
  cr_assert(eq(int, back[2], 3));
  MUST(device_zero(NULL, block, sizeof(int)));
  cr_assert(eq(int, ((int *)block)[0], 0));
  MUST(device_wait(NULL));
  device_free(NULL, &block);
  device_free_pinned(NULL, &pinned);
  cr_assert(eq(ptr, block, NULL));
  cr_assert(eq(sz, device_bytes(NULL), 0));
}

Test(host, has_facts_streams_and_events_but_no_graphs) {
  struct stream *stream = (struct stream *)&stream;
  struct event *from, *to;
  struct graph *graph;
  void *symbol;
  double seconds = -1;
  bool reached = false;
  cr_assert(eq(str, (char *)device_facts(NULL)->name, "cpu"));
  MUST(stream_create(NULL, &stream));
  cr_assert(eq(ptr, stream, NULL));
  MUST(event_create(NULL, &from));
  MUST(event_create(NULL, &to));
  MUST(event_record(from, stream));
  MUST(event_record(to, device_main(NULL)));
  MUST(stream_wait_event(stream, to));
  MUST(event_reached(to, &reached));
  cr_assert(reached);
  MUST(event_wait(to));
  MUST(event_seconds(from, to, &seconds));
  cr_assert(seconds >= 0);
  REFUSED(graph_begin(stream), ERR_ARGUMENT, "takes a GPU");
  REFUSED(graph_end(stream, &graph), ERR_ARGUMENT, "takes a GPU");
  REFUSED(device_symbol(NULL, "x", &symbol), ERR_BUG, "\"x\"");
  device_range_begin(NULL, "nothing");
  device_range_end(NULL);
  event_destroy(&from);
  event_destroy(&to);
  event_destroy(&to);
  stream_destroy(&stream);
  graph_destroy(&(struct graph *){NULL});
  device_close(&(struct device *){NULL});
  cr_assert(eq(sz, memory_in_use(), 0));
}

/* --- a GPU: finding and opening ------------------------------------------------------------------------------- */

Test(device, tells_what_it_is) {
  struct device *device = device_emulated();
  const struct device_facts *facts = device_facts(device);
  int count;
  MUST(device_count(&count));
  cr_assert(eq(int, count, 1));
  cr_assert(eq(int, facts->index, 0));
  cr_assert(eq(str, (char *)facts->name, "Emulated GPU"));
  cr_assert(eq(str, (char *)facts->bus, "ffff:01:00.0"));
  cr_assert(eq(int, facts->numa_node, -1));
  cr_assert(eq(int, facts->capability, 90));
  cr_assert(eq(sz, facts->memory_bytes, (size_t)8 << 30));
  static const char *const parts[] = {"CUDA 1", ", driver 1", ", cuBLASLt 1", ", cuDNN ", ", NCCL 2."};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    cr_assert(ne(ptr, strstr(facts->libraries, parts[i]), NULL), "%s: %s", parts[i], facts->libraries);
  device_close_empty(&device);
}

Test(device, of_several_is_chosen_by_index) {
  struct device *device;
  need_emulation();
  setenv("EMULATED_CUDA_DEVICES", "3", 1);
  MUST(device_open(2, &device));
  cr_assert(eq(int, device_facts(device)->index, 2));
  cr_assert(eq(str, (char *)device_facts(device)->bus, "ffff:03:00.0"));
  cr_assert(eq(str, (char *)device_facts(device)->uuid, "00000000000000000000000000000003"));
  cr_assert(eq(str, getenv("CUDA_DEVICE_ORDER"), "PCI_BUS_ID"));
  device_close_empty(&device);
  REFUSED(device_open(3, &device), ERR_ARGUMENT, "GPU 3 is asked for, but 3 can be seen: give 0 to 2");
  REFUSED(device_open(-1, &device), ERR_ARGUMENT, "GPU -1");
  cr_assert(eq(ptr, device, NULL));
}

Test(device, without_a_driver_is_told_so) {
  int count = 7;
  need_emulation();
  setenv("EMULATED_CUDA_DEVICES", "nodriver", 1);
  REFUSED(device_count(&count), ERR_DEVICE, "there is no NVIDIA driver on this machine; install one for CUDA 1");
  cr_assert(eq(int, count, 0));
}

Test(device, an_old_driver_is_told_with_both_versions) {
  int count = 7;
  need_emulation();
  setenv("EMULATED_CUDA_DEVICES", "olddriver", 1);
  REFUSED(device_count(&count), ERR_DEVICE, "the NVIDIA driver knows CUDA up to 11.8, but CUDA 1");
  cr_assert(eq(int, count, 0));
}

Test(device, that_is_not_visible_names_the_variable_that_hides_it) {
  struct device *device;
  need_emulation();
  setenv("EMULATED_CUDA_DEVICES", "0", 1);
  setenv("CUDA_VISIBLE_DEVICES", "5,6", 1);
  REFUSED(device_open(0, &device), ERR_DEVICE, "no GPU is visible (CUDA_VISIBLE_DEVICES is \"5,6\")");
  unsetenv("CUDA_VISIBLE_DEVICES");
  REFUSED(device_open(0, &device), ERR_DEVICE, "CUDA_VISIBLE_DEVICES is not set");
}

Test(device, whose_library_is_not_there_is_told_so) {
  int count;
  setenv("CONR_CUDA_LIBRARY", "/nowhere/libconr-cuda.so", 1);
  REFUSED(device_count(&count), ERR_DEVICE, "/nowhere/libconr-cuda.so");
  unsetenv("CONR_CUDA_LIBRARY");
  REFUSED(device_count(&count), ERR_DEVICE, "build it where nvcc is found");
}

Test(device, whose_library_is_another_one_is_told_so) {
  int count;
  setenv("CONR_CUDA_LIBRARY", "libm.so.6", 1);
  REFUSED(device_count(&count), ERR_DEVICE, "has no \"conr_cuda_device_ops\": it is of another version");
}

Test(device, whose_library_is_of_another_version_is_told_so) {
  char folder[] = "/tmp/conr-device-XXXXXX", source[64], library[64];
  int count;
  cr_assert(ne(ptr, mkdtemp(folder), NULL));
  snprintf(source, sizeof source, "%s/old.c", folder);
  snprintf(library, sizeof library, "%s/old.so", folder);
  FILE *file = fopen(source, "w");
  cr_assert(ne(ptr, file, NULL));
  fputs("const int conr_cuda_device_ops[64] = {99};\n", file);
  fclose(file);
  char *const compile[] = {"cc", "-shared", "-fPIC", "-o", library, source, NULL};
  char *const clean[] = {"rm", "-rf", folder, NULL};
  bool compiled = run_command(compile, 60, NULL) == 0;
  setenv("CONR_CUDA_LIBRARY", library, 1);
  enum status status = compiled ? device_count(&count) : ERR_DEVICE;
  run_command(clean, 20, NULL);
  if (!compiled)
    cr_skip("cc makes no library");
  REFUSED(status, ERR_DEVICE, "the CUDA backend is of version 99, and this program needs ");
}

/* That of real GPUs can be opened with what this program exports, whether there is a GPU or not. */
Test(device, library_finds_all_it_calls) {
  char path[RUN_PATH_BYTES];
  int count;
  if (access(run_build_path("libconr-cuda.so", path), R_OK) != 0)
    cr_skip("libconr-cuda.so is not built");
#ifdef __SANITIZE_ADDRESS__
  cr_skip("CUDA's libraries are not made for AddressSanitizer");
#endif
  setenv("CONR_CUDA_LIBRARY", path, 1);
  if (device_count(&count) != STATUS_OK)
    cr_assert(eq(ptr, strstr(status_message(), "cannot be opened"), NULL), "%s", status_message());
}

static int destroyed[3], destroyed_count;

static void remember(void *object) {
  destroyed[destroyed_count++] = *(int *)object;
}

Test(device, destroys_what_is_attached_from_the_last_to_the_first) {
  static int objects[3] = {10, 11, 12};
  struct device *device = device_emulated();
  for (int i = 0; i < 3; i++)
    MUST(device_attach(device, &objects[i], remember));
  cr_assert(eq(int, destroyed_count, 0));
  device_close_empty(&device);
  cr_assert(eq(int, destroyed_count, 3));
  for (int i = 0; i < 3; i++)
    cr_assert(eq(int, destroyed[i], 12 - i));
}

/* --- memory --------------------------------------------------------------------------------------------------- */

Test(device, memory_is_counted_and_copies_come_back) {
  struct device *device = device_emulated();
  static int numbers[1000], back[1000];
  void *block, *other;
  for (int i = 0; i < 1000; i++)
    numbers[i] = 7 * i;
  MUST(device_alloc(device, sizeof numbers, &block));
  MUST(device_alloc_zero(device, sizeof numbers, &other));
  cr_assert(eq(sz, device_bytes(device), 2 * sizeof numbers));
  cr_assert(eq(sz, (uintptr_t)block % 256, 0));
  MUST(device_copy(device, block, numbers, sizeof numbers));
  MUST(device_copy(device, other, block, sizeof numbers / 2));
  MUST(device_copy(device, back, other, sizeof back));
  MUST(device_wait(device));
  for (int i = 0; i < 1000; i++)
    cr_assert(eq(int, back[i], i < 500 ? 7 * i : 0), "number %d", i);
  device_free(device, &block);
  cr_assert(eq(ptr, block, NULL));
  cr_assert(eq(sz, device_bytes(device), sizeof numbers));
  device_free(device, &other);
  device_free(device, &other);
  device_close_empty(&device);
}

Test(device, memory_of_no_bytes_is_a_block_like_others) {
  struct device *device = device_emulated();
  void *first, *second, *pinned;
  MUST(device_alloc(device, 0, &first));
  MUST(device_alloc_zero(device, 0, &second));
  MUST(device_alloc_pinned(device, 0, &pinned));
  cr_assert(ne(ptr, first, NULL));
  cr_assert(ne(ptr, first, second));
  cr_assert(ne(ptr, pinned, NULL));
  cr_assert(eq(sz, device_bytes(device), 0));
  device_free(device, &first);
  device_free(device, &second);
  device_free_pinned(device, &pinned);
  device_close_empty(&device);
}

Test(device, many_blocks_freed_in_any_order_leave_nothing) {
  enum { BLOCKS = 300 };
  struct device *device = device_emulated();
  void *block[BLOCKS];
  size_t total = 0;
  for (size_t i = 0; i < BLOCKS; i++) {
    MUST(device_alloc(device, i + 1, &block[i]));
    total += i + 1;
  }
  for (size_t i = 0; i < BLOCKS; i++) {
    size_t at = i * 7 % BLOCKS; /* 7 and 300 share no factor */
    cr_assert(eq(sz, device_bytes(device), total));
    device_free(device, &block[at]);
    total -= at + 1;
  }
  device_close_empty(&device);
}

Test(device, that_is_full_says_what_was_asked_what_is_free_and_what_to_reduce) {
  struct device *device;
  void *block, *more = &block;
  need_emulation();
  setenv("EMULATED_CUDA_MEMORY", "1000000", 1);
  MUST(device_open(0, &device));
  MUST(device_alloc(device, 600000, &block));
  REFUSED(device_alloc(device, 500000, &more), ERR_MEMORY,
          "GPU 0 (Emulated GPU) has no room for 500000 bytes more: 400000 of its 1000000 are free; use more ranks, a "
          "smaller batch, --micro-batch or a smaller model");
  cr_assert(eq(ptr, more, NULL));
  cr_assert(eq(sz, device_bytes(device), 600000));
  MUST(device_alloc(device, 400000, &more));
  device_free(device, &block);
  device_free(device, &more);
  device_close_empty(&device);
}

Test(device, copies_that_leave_their_block_are_refused) {
  struct device *device = device_emulated();
  static char host[200];
  void *block;
  MUST(device_alloc(device, 100, &block));
  REFUSED(device_copy(device, block, host, 101), ERR_DEVICE, "copying: invalid argument (cudaErrorInvalidValue)");
  REFUSED(device_copy(device, host, (char *)block + 1, 100), ERR_DEVICE, "invalid argument");
  REFUSED(device_zero(device, (char *)block + 50, 51), ERR_DEVICE, "invalid argument");
  MUST(device_zero(device, (char *)block + 50, 50));
  MUST(device_wait(device));
  device_free(device, &block);
  device_close_empty(&device);
}

/* --- streams and events --------------------------------------------------------------------------------------- */

Test(device, host_memory_is_read_at_once_pinned_memory_when_its_turn_comes) {
  struct device *device = device_emulated();
  float *block = device_floats(device, 2), *pinned = pinned_floats(device, 1, 1), host = 1, back[2] = {-1, -1};
  MUST(device_copy(device, block, &host, sizeof host));
  MUST(device_copy(device, block + 1, pinned, sizeof *pinned));
  host = *pinned = 2;
  MUST(device_copy(device, back, block, sizeof back));
  cr_assert(eq(flt, back[0], -1));
  MUST(device_wait(device));
  cr_assert(eq(flt, back[0], 1));
  cr_assert(eq(flt, back[1], 2));
  free_floats(device, &block);
  device_free_pinned(device, (void **)&pinned);
  device_close_empty(&device);
}

/* One stream brings a number, the main stream takes it: with or without waiting. */
static float taken(struct device *device, bool waits) {
  struct stream *stream;
  struct event *brought;
  float *block = device_floats(device, 1), *pinned = pinned_floats(device, 1, 5), back = 0;
  MUST(stream_create(device, &stream));
  MUST(event_create(device, &brought));
  MUST(stream_copy(stream, block, pinned, sizeof *block));
  MUST(event_record(brought, stream));
  if (waits)
    MUST(stream_wait_event(device_main(device), brought));
  MUST(device_copy(device, &back, block, sizeof back));
  MUST(device_wait(device));
  MUST(stream_wait(stream));
  free_floats(device, &block);
  device_free_pinned(device, (void **)&pinned);
  event_destroy(&brought);
  stream_destroy(&stream);
  return back;
}

Test(device, a_stream_that_waits_for_an_event_sees_the_work_before_it) {
  struct device *device = device_emulated();
  cr_assert(eq(flt, taken(device, true), 5));
  device_close_empty(&device);
}

Test(emulation, a_stream_that_does_not_wait_sees_memory_that_nobody_wrote) {
  struct device *device = device_emulated();
  cr_assert(isnan(taken(device, false)));
  device_close_empty(&device);
}

Test(emulation, eager_does_all_at_once) {
  struct device *device;
  need_emulation();
  setenv("EMULATED_CUDA_EAGER", "1", 1);
  MUST(device_open(0, &device));
  cr_assert(eq(flt, taken(device, false), 5));
  device_close_empty(&device);
}

Test(device, events_are_reached_in_time_and_can_be_timed) {
  struct device *device = device_emulated();
  struct event *from, *to, *never;
  float *block = device_floats(device, 1);
  bool reached;
  double seconds = -1;
  MUST(event_create(device, &from));
  MUST(event_create(device, &to));
  MUST(event_create(device, &never));
  MUST(event_reached(never, &reached));
  cr_assert(reached);
  MUST(event_wait(never));
  MUST(stream_wait_event(device_main(device), never));
  MUST(event_record(from, device_main(device)));
  MUST(device_zero(device, block, sizeof *block));
  MUST(event_record(to, device_main(device)));
  MUST(event_reached(to, &reached));
  cr_assert(not(reached));
  REFUSED(event_seconds(from, to, &seconds), ERR_DEVICE, "cudaErrorNotReady");
  for (int i = 0; i < 10 && !reached; i++)
    MUST(event_reached(to, &reached));
  cr_assert(reached);
  MUST(event_seconds(from, to, &seconds));
  cr_assert(seconds >= 0 && seconds < 10);
  MUST(event_record(to, device_main(device)));
  MUST(event_wait(to));
  MUST(event_reached(to, &reached));
  cr_assert(reached);
  event_destroy(&from);
  event_destroy(&to);
  event_destroy(&never);
  free_floats(device, &block);
  device_close_empty(&device);
}

/* An event that is recorded anew while a stream waits for its old place. */
Test(device, a_stream_waits_for_the_place_that_was_recorded_when_it_was_told_to) {
  struct device *device = device_emulated();
  struct stream *stream;
  struct event *event;
  float *block = device_floats(device, 2), *pinned = pinned_floats(device, 2, 3), back[2] = {0};
  MUST(stream_create(device, &stream));
  MUST(event_create(device, &event));
  MUST(stream_copy(stream, block, pinned, sizeof *block));
  MUST(event_record(event, stream));
  MUST(stream_wait_event(device_main(device), event));
  MUST(stream_copy(stream, block + 1, pinned + 1, sizeof *block));
  MUST(event_record(event, stream));
  MUST(device_copy(device, back, block, sizeof back));
  MUST(device_wait(device));
  cr_assert(eq(flt, back[0], 3));
  cr_assert(isnan(back[1]));
  free_floats(device, &block);
  device_free_pinned(device, (void **)&pinned);
  event_destroy(&event);
  stream_destroy(&stream);
  device_close_empty(&device);
}

/* --- kernels and graphs --------------------------------------------------------------------------------------- */

Test(device, a_graph_keeps_work_and_does_it_at_each_launch) {
  struct device *device = device_emulated();
  add_function *add = (add_function *)device_test_function(device, "emulated_test_add");
  float *x = device_floats(device, 100), *y = device_floats(device, 100), *ones = pinned_floats(device, 100, 1);
  struct graph *graph;
  MUST(device_zero(device, y, 100 * sizeof *y));
  MUST(graph_begin(device_main(device)));
  MUST(device_copy(device, x, ones, 100 * sizeof *x));
  MUST(add(device_main(device), 100, 2, x, y));
  MUST(add(device_main(device), 100, 3, x, y));
  MUST(graph_end(device_main(device), &graph));
  cr_assert(eq(flt, device_float(device, y + 99), 0));
  for (int launch = 1; launch <= 3; launch++) {
    MUST(graph_launch(graph, device_main(device)));
    cr_assert(eq(flt, device_float(device, y + 99), 5 * (float)launch));
  }
  ones[99] = 10; /* read at the launch */
  MUST(graph_launch(graph, device_main(device)));
  cr_assert(eq(flt, device_float(device, y + 99), 65));
  graph_destroy(&graph);
  free_floats(device, &x);
  free_floats(device, &y);
  device_free_pinned(device, (void **)&ones);
  device_close_empty(&device);
}

/* Another stream joins a graph by an event, and leaves it by another; if it does not, the graph is refused. */
static enum status graph_of_two_streams(struct device *device, bool leaves, float *result) {
  add_function *add = (add_function *)device_test_function(device, "emulated_test_add");
  float *x = device_floats(device, 1), *y = device_floats(device, 1), one = 1;
  struct stream *stream;
  struct event *fork, *join;
  struct graph *graph;
  MUST(stream_create(device, &stream));
  MUST(event_create(device, &fork));
  MUST(event_create(device, &join));
  MUST(device_copy(device, x, &one, sizeof one));
  MUST(device_zero(device, y, sizeof *y));
  MUST(graph_begin(device_main(device)));
  MUST(add(device_main(device), 1, 1, x, y));
  MUST(event_record(fork, device_main(device)));
  MUST(stream_wait_event(stream, fork));
  MUST(add(stream, 1, 10, x, y));
  MUST(event_record(join, stream));
  if (leaves)
    MUST(stream_wait_event(device_main(device), join));
  enum status status = graph_end(device_main(device), &graph);
  if (status == STATUS_OK) {
    MUST(graph_launch(graph, device_main(device)));
    *result = device_float(device, y);
  }
  graph_destroy(&graph);
  free_floats(device, &x);
  free_floats(device, &y);
  event_destroy(&fork);
  event_destroy(&join);
  stream_destroy(&stream);
  return status;
}

Test(device, a_graph_takes_in_streams_that_wait_for_it_and_rejoin) {
  struct device *device = device_emulated();
  float result = 0;
  MUST(graph_of_two_streams(device, true, &result));
  cr_assert(eq(flt, result, 11));
  REFUSED(graph_of_two_streams(device, false, &result), ERR_DEVICE, "unjoined work");
  device_close_empty(&device);
}

Test(device, what_a_graph_cannot_keep_is_refused_and_the_stream_goes_on) {
  struct device *device = device_emulated();
  struct stream *stream;
  struct event *outside;
  struct graph *graph;
  void *block;
  MUST(stream_create(device, &stream));
  MUST(event_create(device, &outside));
  MUST(event_record(outside, stream));

  MUST(graph_begin(device_main(device)));
  REFUSED(device_alloc(device, 10, &block), ERR_DEVICE, "not permitted when stream is capturing");
  REFUSED(graph_end(device_main(device), &graph), ERR_DEVICE, "previous error during capture");
  cr_assert(eq(ptr, graph, NULL));

  MUST(graph_begin(device_main(device)));
  REFUSED(device_wait(device), ERR_DEVICE, "not permitted when stream is capturing");
  REFUSED(graph_end(device_main(device), &graph), ERR_DEVICE, "previous error during capture");

  MUST(graph_begin(device_main(device)));
  REFUSED(stream_wait_event(device_main(device), outside), ERR_DEVICE, "uncaptured work");
  REFUSED(graph_end(device_main(device), &graph), ERR_DEVICE, "previous error during capture");

  MUST(device_wait(device));
  MUST(device_alloc(device, 10, &block));
  device_free(device, &block);
  event_destroy(&outside);
  stream_destroy(&stream);
  device_close_empty(&device);
}

Test(device, work_that_fails_is_told_by_whoever_waits) {
  struct device *device;
  need_emulation();
  setenv("EMULATED_CUDA_FAULT", "2", 1);
  MUST(device_open(0, &device));
  add_function *add = (add_function *)device_test_function(device, "emulated_test_add");
  float *x = device_floats(device, 1);
  MUST(device_zero(device, x, sizeof *x));
  MUST(add(device_main(device), 1, 1, x, x));
  MUST(device_wait(device));
  MUST(add(device_main(device), 1, 1, x, x));
  REFUSED(device_wait(device), ERR_DEVICE, "waiting for a stream: unspecified launch failure (cudaErrorLaunchFailure)");
  REFUSED(device_zero(device, x, sizeof *x), ERR_DEVICE, "cudaErrorLaunchFailure");
  free_floats(device, &x);
  device_close_empty(&device);
}

Test(device, a_launch_of_no_blocks_is_refused_and_leaves_no_trace) {
  struct device *device = device_emulated();
  sums_function *sums = (sums_function *)device_test_function(device, "emulated_test_sums");
  float *x = device_floats(device, 2048);
  REFUSED(sums(device_main(device), 0, 32, x, x), ERR_DEVICE, "sums: invalid configuration argument");
  REFUSED(sums(device_main(device), 1, 1056, x, x), ERR_DEVICE, "sums: invalid configuration argument");
  MUST(sums(device_main(device), 1, 32, x, x));
  MUST(device_wait(device));
  free_floats(device, &x);
  device_close_empty(&device);
}

Test(device, ranges_nest) {
  struct device *device = device_emulated();
  device_range_begin(device, "outer");
  device_range_begin(device, "inner");
  device_range_end(device);
  device_range_end(device);
  device_close_empty(&device);
}

/* --- what nobody pays for ------------------------------------------------------------------------------------- */

static const char *const cuda_names[] = {"libcuda", "libcublas", "libcudnn", "libnccl", "libconr-cuda"};

static const char *find_cuda(const char *text) {
  for (size_t i = 0; i < sizeof cuda_names / sizeof *cuda_names; i++)
    if (strstr(text, cuda_names[i]) != NULL)
      return cuda_names[i];
  return NULL;
}

Test(device, is_not_linked_into_any_test) {
  char folder[RUN_PATH_BYTES], path[2 * RUN_PATH_BYTES];
  struct dirent *entry;
  int seen = 0;
  DIR *tests = opendir(run_build_path("tests", folder));
  cr_assert(ne(ptr, tests, NULL), "%s", folder);
  while ((entry = readdir(tests)) != NULL) {
    struct run_result run;
    if ((strncmp(entry->d_name, "test_", 5) != 0 && strncmp(entry->d_name, "rank_", 5) != 0) ||
        strchr(entry->d_name, '.') != NULL)
      continue;
    snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    char *const command[] = {"readelf", "-d", path, NULL};
    if (run_command(command, 20, &run) == RUN_NOT_STARTED)
      cr_skip("readelf is not installed");
    cr_assert(eq(int, run.exit_status, 0), "%s", run.output);
    cr_assert(ne(ptr, strstr(run.output, "NEEDED"), NULL), "%s", run.output);
    cr_expect(eq(ptr, (void *)(uintptr_t)find_cuda(run.output), NULL), "%s needs %s", path, find_cuda(run.output));
    run_result_free(&run);
    seen++;
  }
  closedir(tests);
  cr_assert(seen > 0, "%s", folder);
}

/* The name of a CUDA library among this program's files, or NULL. */
static const char *loaded_cuda(void) {
  char line[RUN_PATH_BYTES];
  const char *found = NULL;
  FILE *maps = fopen("/proc/self/maps", "r");
  cr_assert(ne(ptr, maps, NULL));
  while (found == NULL && fgets(line, sizeof line, maps) != NULL)
    found = find_cuda(line);
  fclose(maps);
  return found;
}

Test(device, is_not_loaded_before_it_is_asked_for) {
  void *block;
  MUST(device_alloc(NULL, 10, &block));
  device_free(NULL, &block);
  cr_assert(eq(ptr, (void *)(uintptr_t)loaded_cuda(), NULL), "%s", loaded_cuda());
  struct device *device = device_emulated();
  cr_assert(ne(ptr, (void *)(uintptr_t)loaded_cuda(), NULL));
  device_close_empty(&device);
}
