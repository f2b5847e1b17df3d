/* Gradients in buckets: sums, layouts, order, reuse, and that they really travel while others are still computed.
 *
 *   rank_bucket [case]   all cases, or one; ends non-zero and says what was wrong
 *
 * What is started and how it ends is seen by counting_comm.h.  A case goes on after a fault, so that no rank waits
 * for another that has left. */
#include "dist/bucket.h"
#include "dist/log.h"
#include "dist/memory.h"
#include "tests/buffers.h"
#include "tests/counting_comm.h"
#include "tests/rank_record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- gradients */

enum { MOST_SLICES = 80 };

struct layout {
  const char *name;
  size_t slices, elements;
  size_t offsets[MOST_SLICES];
};

static struct layout layout_of(const char *name, size_t slices, size_t (*size_of)(size_t slice)) {
  struct layout layout = {.name = name, .slices = slices};
  for (size_t slice = 0; slice < slices; slice++) {
    layout.offsets[slice] = layout.elements;
    layout.elements += size_of(slice);
  }
  return layout;
}

static size_t size_equal(size_t slice) {
  (void)slice;
  return 100;
}
static size_t size_one(size_t slice) {
  (void)slice;
  return 1;
}
static size_t size_mixed(size_t slice) { /* weights and biases of a network: large beside tiny */
  return slice % 3 == 0 ? 4001 : slice % 3 == 1 ? 64 : 1;
}
static size_t size_with_empty(size_t slice) { /* the first, the last and some between hold nothing */
  return slice % 4 == 0 ? 0 : 10 * slice;
}
static size_t size_large(size_t slice) {
  (void)slice;
  return 300000;
}

enum { LAYOUTS = 7 };

static void make_layouts(struct layout layouts[LAYOUTS]) {
  layouts[0] = layout_of("one slice", 1, size_equal);
  layouts[1] = layout_of("one element", 1, size_one);
  layouts[2] = layout_of("equal slices", 40, size_equal);
  layouts[3] = layout_of("single elements", 70, size_one);
  layouts[4] = layout_of("mixed slices", 61, size_mixed);
  layouts[5] = layout_of("empty slices", 41, size_with_empty);
  layouts[6] = layout_of("one large slice", 1, size_large);
}

static const size_t bucket_bytes[] = {0, 1, 8, 400, 1000, 20000, (size_t)1 << 40, (size_t)-1};
enum { BUCKET_BYTES = sizeof bucket_bytes / sizeof *bucket_bytes };

/* Integers that differ by rank, step and place, small enough to be summed exactly in float32. */
static double number(int rank, int step, size_t i) {
  return (double)((i * 7 + (size_t)step * 13) % 1009) * (rank + 1) - step;
}

static void *room_for(const struct layout *layout, enum dtype dtype) {
  void *gradients;
  MUST(memory_alloc(layout->elements * dtype_size(dtype), &gradients));
  return gradients;
}

/* What backward does for one slice. */
static void compute_slice(const struct layout *layout, enum dtype dtype, void *gradients, int step, size_t slice) {
  size_t end = slice + 1 < layout->slices ? layout->offsets[slice + 1] : layout->elements;
  for (size_t i = layout->offsets[slice]; i < end; i++)
    buffer_set(dtype, gradients, (int64_t)i, number(record.rank, step, i));
}

static void expect_summed(const struct layout *layout, enum dtype dtype, const void *gradients, int step,
                          size_t bytes) {
  for (size_t i = 0; i < layout->elements; i++) {
    double expected = 0;
    for (int rank = 0; rank < record.size; rank++)
      expected += number(rank, step, i);
    if (buffer_get(dtype, gradients, (int64_t)i) != expected) {
      EXPECT(false, "%s, buckets of %zu bytes, %s, step %d: element %zu is %.17g, not %.17g", layout->name, bytes,
             dtype_name(dtype), step, i, buffer_get(dtype, gradients, (int64_t)i), expected);
      return;
    }
  }
}

/* One step: each slice computed just before it is ready, so that what is sent too early is sent wrong. */
static void step_through(struct buckets *buckets, const struct layout *layout, enum dtype dtype, void *gradients,
                         int step) {
  memset(gradients, 0xFF, layout->elements * dtype_size(dtype)); /* not a number */
  for (size_t slice = layout->slices; slice-- > 0;) {
    compute_slice(layout, dtype, gradients, step, slice);
    EXPECT_OK(buckets_ready(buckets, slice));
    if (slice % 3 == 0)
      EXPECT_OK(buckets_progress(buckets));
  }
  EXPECT_OK(buckets_wait(buckets));
}

static struct buckets *create(struct comm *comm, const struct layout *layout, enum dtype dtype, void *gradients,
                              size_t bytes) {
  struct buckets *buckets;
  MUST(buckets_create(comm, dtype, gradients, layout->offsets, layout->slices, layout->elements, bytes, &buckets));
  return buckets;
}

/* ---------------------------------------------------------------- cases */

static void sums_are_those_of_all_ranks_for_every_layout(struct comm *comm) {
  struct layout layouts[LAYOUTS];
  make_layouts(layouts);
  for (int l = 0; l < LAYOUTS; l++)
    for (int b = 0; b < BUCKET_BYTES; b++)
      for (enum dtype dtype = F32; dtype <= F64; dtype++) {
        void *gradients = room_for(&layouts[l], dtype);
        struct buckets *buckets = create(comm, &layouts[l], dtype, gradients, bucket_bytes[b]);
        step_through(buckets, &layouts[l], dtype, gradients, 0);
        expect_summed(&layouts[l], dtype, gradients, 0, bucket_bytes[b]);
        buckets_destroy(&buckets);
        memory_free(&gradients);
      }
}

static void a_step_equals_one_plain_sum(struct comm *comm) {
  struct layout layout = layout_of("mixed slices", 61, size_mixed);
  float *gradients = room_for(&layout, F32), *plain = room_for(&layout, F32);
  struct buckets *buckets = create(comm, &layout, F32, gradients, 20000);
  step_through(buckets, &layout, F32, gradients, 4);
  for (size_t slice = 0; slice < layout.slices; slice++)
    compute_slice(&layout, F32, plain, 4, slice);
  EXPECT_OK(comm_sum(comm, F32, plain, layout.elements));
  EXPECT(memcmp(plain, gradients, layout.elements * sizeof *plain) == 0, "not the bits of comm_sum");
  buckets_destroy(&buckets);
  memory_free((void **)&gradients);
  memory_free((void **)&plain);
}

static bool is_offset(const struct layout *layout, size_t element) {
  for (size_t slice = 0; slice < layout->slices; slice++)
    if (layout->offsets[slice] == element)
      return true;
  return false;
}

/* The ranges that were started cover the buffer from its end to its front, each cut at a slice; each holds the bytes
 * asked for, but would not without its first slice with content.  The front one may hold less. */
static void check_ranges(const struct layout *layout, const struct buckets *buckets, const char *gradients,
                         size_t bytes) {
  size_t end = layout->elements;
  EXPECT(counted.sums == (int)buckets_count(buckets), "%s: %d sums for %zu buckets", layout->name, counted.sums,
         buckets_count(buckets));
  for (int i = 0; i < counted.sums && i < MOST_COUNTED_SUMS; i++) {
    size_t begin = (size_t)(counted.data[i] - gradients) / sizeof(float), held = counted.count[i] * sizeof(float);
    EXPECT(begin + counted.count[i] == end, "%s: bucket %d is [%zu, %zu), not up to %zu", layout->name, i, begin,
           begin + counted.count[i], end);
    EXPECT(is_offset(layout, begin), "%s: bucket %d begins inside a slice, at %zu", layout->name, i, begin);
    EXPECT(begin == 0 || held >= bytes, "%s: bucket %d has %zu bytes, not %zu", layout->name, i, held, bytes);
    size_t without = 0;
    for (size_t slice = 0; slice < layout->slices; slice++)
      if (layout->offsets[slice] > begin && layout->offsets[slice] < end && without == 0)
        without = end - layout->offsets[slice];
    EXPECT(without == 0 || without * sizeof(float) < bytes, "%s: bucket %d of %zu bytes could have been closed earlier",
           layout->name, i, held);
    end = begin;
  }
  EXPECT(end == 0, "%s: the first %zu elements were not sent", layout->name, end);
}

static void buckets_are_whole_slices_from_the_end_and_no_larger_than_needed(struct comm *comm) {
  struct layout layouts[LAYOUTS];
  make_layouts(layouts);
  start_counting(comm);
  for (int l = 0; l < LAYOUTS; l++)
    for (int b = 0; b < BUCKET_BYTES; b++) {
      void *gradients = room_for(&layouts[l], F32);
      struct buckets *buckets = create(comm, &layouts[l], F32, gradients, bucket_bytes[b]);
      forget_counts();
      step_through(buckets, &layouts[l], F32, gradients, 0);
      check_ranges(&layouts[l], buckets, gradients, bucket_bytes[b]);
      buckets_destroy(&buckets);
      memory_free(&gradients);
    }
  stop_counting(comm);
}

static void number_of_buckets(struct comm *comm) {
  struct layout layout = layout_of("equal slices", 40, size_equal); /* 400 bytes each in float32 */
  static const struct {
    size_t bytes, expected;
  } rows[] = {{1, 40}, {400, 40}, {401, 20}, {800, 20}, {1200, 14}, {16000, 1}, {(size_t)-1, 1}};
  void *gradients = room_for(&layout, F32);
  for (int i = 0; i < 7; i++) {
    struct buckets *buckets = create(comm, &layout, F32, gradients, rows[i].bytes);
    EXPECT(buckets_count(buckets) == rows[i].expected, "%zu bytes: %zu buckets, not %zu", rows[i].bytes,
           buckets_count(buckets), rows[i].expected);
    buckets_destroy(&buckets);
  }
  memory_free(&gradients);
}

static void the_same_buckets_serve_20_steps(struct comm *comm) {
  struct layout layout = layout_of("mixed slices", 61, size_mixed);
  void *gradients = room_for(&layout, F32);
  struct buckets *buckets = create(comm, &layout, F32, gradients, 20000);
  size_t in_use = memory_in_use();
  comm_traffic_reset(comm);
  for (int step = 0; step < 20; step++) {
    step_through(buckets, &layout, F32, gradients, step);
    expect_summed(&layout, F32, gradients, step, 20000);
  }
  struct comm_traffic traffic = comm_traffic(comm);
  EXPECT(traffic.sum_calls == 20 * (int64_t)buckets_count(buckets), "%lld sums", (long long)traffic.sum_calls);
  EXPECT(traffic.sum_bytes == 20 * 4 * (int64_t)layout.elements, "%lld bytes", (long long)traffic.sum_bytes);
  EXPECT(memory_in_use() == in_use, "%zu bytes more in use", memory_in_use() - in_use);
  buckets_destroy(&buckets);
  memory_free(&gradients);
}

/* ---- overlap: counted, not timed ---- */

/* Backward of one bucket, then pushes until its sum is there: it must arrive before the next slice is even ready. */
static void each_bucket_arrives_before_the_next_is_started(struct comm *comm) {
  struct layout layout = layout_of("equal slices", 40, size_equal);
  enum { STEP = 2, PATIENCE_SECONDS = 30 };
  void *gradients = room_for(&layout, F32);
  struct buckets *buckets = create(comm, &layout, F32, gradients, 1200); /* three slices */
  start_counting(comm);
  double begin = log_seconds();
  for (size_t slice = layout.slices; slice-- > 0;) {
    size_t ready = layout.slices - slice;
    int full = (int)(slice == 0 ? buckets_count(buckets) : ready / 3);
    compute_slice(&layout, F32, gradients, STEP, slice);
    EXPECT_OK(buckets_ready(buckets, slice));
    EXPECT(counted.sums == full, "%zu slices are ready, %d buckets were started, not %d", ready, counted.sums, full);
    while (counted.ended_by_progress < counted.sums && log_seconds() < begin + PATIENCE_SECONDS)
      EXPECT_OK(buckets_progress(buckets));
    EXPECT(counted.ended_by_progress == full, "%d of %d sums ended by progress", counted.ended_by_progress, full);
  }
  EXPECT_OK(buckets_wait(buckets));
  EXPECT(counted.waits == 0, "%d sums were still in flight at the wait", counted.waits);
  expect_summed(&layout, F32, gradients, STEP, 1200);
  buckets_destroy(&buckets);
  stop_counting(comm);
  memory_free(&gradients);
}

/* The other side of the count: while the last rank has not begun, nothing can arrive on rank 0, whose wait then has to
 * wait for every bucket.  Rank 0 lets the last rank go only after it has seen that. */
static void what_the_other_ranks_have_not_sent_is_in_flight_at_the_wait(struct comm *comm) {
  struct layout layout = layout_of("equal slices", 40, size_equal);
  int last = record.size - 1, go = 1;
  if (last == 0)
    return;
  void *gradients = room_for(&layout, F32);
  struct buckets *buckets = create(comm, &layout, F32, gradients, 1200);
  start_counting(comm);
  if (record.rank == last)
    MPI_Recv(&go, 1, MPI_INT, 0, 6, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  for (size_t slice = layout.slices; slice-- > 0;) {
    compute_slice(&layout, F32, gradients, 3, slice);
    EXPECT_OK(buckets_ready(buckets, slice));
  }
  for (int i = 0; i < 100; i++)
    EXPECT_OK(buckets_progress(buckets));
  if (record.rank == 0) {
    EXPECT(counted.ended_by_progress == 0, "%d sums ended without rank %d", counted.ended_by_progress, last);
    MPI_Send(&go, 1, MPI_INT, last, 6, MPI_COMM_WORLD);
  }
  EXPECT_OK(buckets_wait(buckets));
  int in_flight = counted.sums - counted.ended_by_progress;
  EXPECT(counted.waits == in_flight, "%d waits for %d sums in flight", counted.waits, in_flight);
  EXPECT(record.rank != 0 || counted.waits == (int)buckets_count(buckets), "%d waits", counted.waits);
  expect_summed(&layout, F32, gradients, 3, 1200);
  buckets_destroy(&buckets);
  stop_counting(comm);
  memory_free(&gradients);
}

/* ---- order ---- */

static void expect_bug(enum status status, const char *first, const char *second, int line) {
  rank_record_expect(status == ERR_BUG, __FILE__, line, "%s, not a bug", status_name(status));
  rank_record_expect(strstr(status_message(), first) != NULL && strstr(status_message(), second) != NULL, __FILE__,
                     line, "the sentence has no %s and %s: %s", first, second, status_message());
}

/* The faults are made on all ranks, before anything is sent, and name the slice that came and the one that was due. */
static void slices_out_of_order_are_a_bug(struct comm *comm) {
  struct layout layout = layout_of("equal slices", 5, size_equal);
  void *gradients = room_for(&layout, F32);
  struct buckets *buckets = create(comm, &layout, F32, gradients, 2000);
  expect_bug(buckets_ready(buckets, 0), "slice 0", "slice 4", __LINE__);
  expect_bug(buckets_ready(buckets, 5), "slice 5", "slice 4", __LINE__);
  expect_bug(buckets_ready(buckets, 1000), "slice 1000", "slice 4", __LINE__);
  EXPECT_OK(buckets_ready(buckets, 4));
  expect_bug(buckets_ready(buckets, 4), "slice 4", "slice 3", __LINE__);
  expect_bug(buckets_ready(buckets, 2), "slice 2", "slice 3", __LINE__);
  buckets_destroy(&buckets);
  memory_free(&gradients);
}

static void waiting_before_all_slices_are_ready_is_a_bug(struct comm *comm) {
  struct layout layout = layout_of("equal slices", 4, size_equal);
  void *gradients = room_for(&layout, F32);
  struct buckets *buckets = create(comm, &layout, F32, gradients, 800);
  memset(gradients, 0, layout.elements * sizeof(float));
  expect_bug(buckets_wait(buckets), "2 of 2", "bucket", __LINE__);
  EXPECT_OK(buckets_ready(buckets, 3));
  EXPECT_OK(buckets_ready(buckets, 2));
  EXPECT_OK(buckets_ready(buckets, 1));
  expect_bug(buckets_wait(buckets), "1 of 2", "bucket", __LINE__);
  EXPECT_OK(buckets_ready(buckets, 0));
  EXPECT_OK(buckets_wait(buckets));
  buckets_destroy(&buckets);
  memory_free(&gradients);
}

/* All slices have come: none is due, and the sentence must not invent one (2^64 - 1). */
static void a_slice_after_the_last_is_a_bug_that_names_no_other_slice(struct comm *comm) {
  struct layout layout = layout_of("equal slices", 2, size_equal);
  void *gradients = room_for(&layout, F32);
  struct buckets *buckets = create(comm, &layout, F32, gradients, 1);
  memset(gradients, 0, layout.elements * sizeof(float));
  EXPECT_OK(buckets_ready(buckets, 1));
  EXPECT_OK(buckets_ready(buckets, 0));
  expect_bug(buckets_ready(buckets, 1), "slice 1", "", __LINE__);
  EXPECT(strstr(status_message(), "18446744073709551615") == NULL, "%s", status_message());
  EXPECT_OK(buckets_wait(buckets));
  buckets_destroy(&buckets);
  memory_free(&gradients);
}

/* 2^30 + 1 elements are too many for one request; the buffer is never touched, so none is needed. */
static void a_slice_too_large_for_a_request_is_refused(struct comm *comm) {
  size_t offset = 0, elements = ((size_t)1 << 30) + 1;
  struct buckets *buckets;
  float nothing = 0;
  enum status status = buckets_create(comm, F32, &nothing, &offset, 1, elements, 1000, &buckets);
  EXPECT(status == ERR_ARGUMENT && buckets == NULL, "%s", status_name(status));
  EXPECT(strstr(status_message(), "1073741825") != NULL, "%s", status_message());
}

/* A bucket is closed when it is full: many small slices are not one layer that is too large, whatever was asked for. */
static void a_huge_bucket_of_small_slices_is_not_refused(struct comm *comm) {
  size_t offsets[8];
  struct buckets *buckets;
  float nothing = 0;
  for (size_t slice = 0; slice < 8; slice++)
    offsets[slice] = slice << 28;
  enum status status = buckets_create(comm, F32, &nothing, offsets, 8, (size_t)8 << 28, (size_t)-1, &buckets);
  EXPECT(status == STATUS_OK, "2^31 elements in 8 slices: %s", status_message());
  buckets_destroy(&buckets);
}

static void destroy_takes_NULL(struct comm *comm) {
  struct buckets *buckets = NULL;
  (void)comm;
  buckets_destroy(&buckets);
  EXPECT(buckets == NULL, "not NULL");
}

/* ---------------------------------------------------------------- the list */

#define CASE(function) \
  { #function, function }
static const struct {
  const char *name;
  void (*run)(struct comm *comm);
} cases[] = {
    CASE(sums_are_those_of_all_ranks_for_every_layout),
    CASE(a_step_equals_one_plain_sum),
    CASE(buckets_are_whole_slices_from_the_end_and_no_larger_than_needed),
    CASE(number_of_buckets),
    CASE(the_same_buckets_serve_20_steps),
    CASE(each_bucket_arrives_before_the_next_is_started),
    CASE(what_the_other_ranks_have_not_sent_is_in_flight_at_the_wait),
    CASE(slices_out_of_order_are_a_bug),
    CASE(waiting_before_all_slices_are_ready_is_a_bug),
    CASE(a_slice_after_the_last_is_a_bug_that_names_no_other_slice),
    CASE(a_slice_too_large_for_a_request_is_refused),
    CASE(a_huge_bucket_of_small_slices_is_not_refused),
    CASE(destroy_takes_NULL),
};

int main(int argc, char **argv) {
  bool known = argc < 2;
  rank_record_begin(&argc, &argv);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct comm *comm;
    if (argc > 1 && strcmp(argv[1], cases[i].name) != 0)
      continue;
    known = true;
    record.name = cases[i].name;
    MUST(comm_create(MPI_COMM_WORLD, &comm));
    cases[i].run(comm);
    comm_destroy(&comm);
    EXPECT(memory_in_use() == 0, "%zu bytes are left", memory_in_use());
  }
  EXPECT(known, "no case is named \"%s\"", argc > 1 ? argv[1] : "");
  return rank_record_end();
}
