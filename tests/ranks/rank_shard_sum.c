/* Sums over virtual shards have the bits of the tree, on any number of ranks, and rows reach whom they are for.
 *
 *   rank_shard_sum   ends non-zero and says what was wrong */
#include "dist/memory.h"
#include "dist/shard_sum.h"
#include "tests/comm_data.h"
#include "tests/rank_record.h"

#include <string.h>

/* Element i of shards first .. end - 1, as the header words it. */
static float tree32(int first, int end, size_t i) {
  int half = (end - first) / 2;
  return end - first == 1 ? (float)rounding_number(first, i)
                          : tree32(first, first + half, i) + tree32(first + half, end, i);
}

static double tree64(int first, int end, size_t i) {
  int half = (end - first) / 2;
  return end - first == 1 ? rounding_number(first, i) : tree64(first, first + half, i) + tree64(first + half, end, i);
}

/* Twice with the same object: what a step leaves is no part of the next. */
static void check_sum(struct comm *comm, enum dtype dtype, size_t elements, int shards) {
  struct shard_sum *sum;
  int size = comm_size(comm), rank = comm_rank(comm);
  void *vector = rank_room(elements * dtype_size(dtype)), *total = rank_room(elements * dtype_size(dtype));
  MUST(shard_sum_create(comm, dtype, elements, shards, &sum));
  for (int step = 0; step < 2; step++) {
    size_t wrong = 0;
    shard_sum_begin(sum);
    for (int shard = shards * rank / size; shard < shards * (rank + 1) / size; shard++) {
      for (size_t i = 0; i < elements; i++)
        dtype_put(dtype, vector, (int64_t)i, rounding_number(shard, i));
      EXPECT_OK(shard_sum_add(sum, vector));
    }
    EXPECT_OK(shard_sum_finish(sum, total));
    for (size_t i = 0; i < elements; i++)
      wrong +=
          dtype_get(dtype, total, (int64_t)i) != (dtype == F32 ? (double)tree32(0, shards, i) : tree64(0, shards, i));
    EXPECT(wrong == 0, "%d shards, %s: %zu of %zu elements have other bits in step %d", shards, dtype_name(dtype),
           wrong, elements, step);
  }
  shard_sum_destroy(&sum);
  memory_free(&total);
  memory_free(&vector);
}

static void check_misuse(struct comm *comm) {
  struct shard_sum *sum;
  double one = 1;
  enum status status = comm_size(comm) > 1 ? shard_sum_create(comm, F64, 1, comm_size(comm) - 1, &sum) : ERR_ARGUMENT;
  EXPECT(status == ERR_ARGUMENT, "fewer shards than ranks are accepted");
  MUST(shard_sum_create(comm, F64, 1, comm_size(comm), &sum));
  status = shard_sum_finish(sum, &one);
  EXPECT(status == ERR_BUG, "a sum without its shards is finished");
  EXPECT_OK(shard_sum_add(sum, &one));
  status = shard_sum_add(sum, &one);
  EXPECT(status == ERR_BUG, "a shard more than there are is added");
  shard_sum_destroy(&sum);
}

/* Rank a has (a + 2 b) % 4 rows for rank b. */
static int64_t rows_between(int from, int to) {
  return (from + 2 * to) % 4;
}

static void check_exchange(struct comm *comm, size_t row_bytes) {
  int size = comm_size(comm), rank = comm_rank(comm);
  int64_t *to = rank_room((size_t)size * sizeof *to), *from = rank_room((size_t)size * sizeof *from);
  unsigned char *own = rank_room(4 * (size_t)size * row_bytes), *all = rank_room(4 * (size_t)size * row_bytes + 1);
  unsigned char *next = own, *expected = rank_room(4 * row_bytes);
  size_t bytes = 0;
  for (int other = 0; other < size; other++) {
    to[other] = rows_between(rank, other);
    from[other] = rows_between(other, rank);
    fill_rows(next, rank * size + other, to[other], row_bytes);
    next += (size_t)to[other] * row_bytes;
    bytes += (size_t)from[other] * row_bytes;
  }
  memset(all, GUARD_BYTE, bytes + 1);
  EXPECT_OK(comm_exchange_rows(comm, own, to, from, row_bytes, all));
  next = all;
  for (int other = 0; other < size; other++) {
    size_t own_bytes = (size_t)from[other] * row_bytes;
    fill_rows(expected, other * size + rank, from[other], row_bytes);
    EXPECT(memcmp(next, expected, own_bytes) == 0, "rows of %zu bytes from rank %d are others", row_bytes, other);
    next += own_bytes;
  }
  EXPECT(all[bytes] == GUARD_BYTE, "rows of %zu bytes: wrote beyond the end", row_bytes);
  memory_free((void **)&expected);
  memory_free((void **)&all);
  memory_free((void **)&own);
  memory_free((void **)&from);
  memory_free((void **)&to);
}

int main(int argc, char **argv) {
  static const int more_shards[] = {0, 1, 5, 12, 13, 64};
  static const size_t elements[] = {1, 3, 1001};
  struct comm *comm;
  rank_record_begin(&argc, &argv);
  MUST(comm_create(MPI_COMM_WORLD, &comm));
  record.name = "sums";
  for (size_t i = 0; i < sizeof more_shards / sizeof *more_shards; i++)
    for (size_t j = 0; j < sizeof elements / sizeof *elements; j++) {
      check_sum(comm, F32, elements[j], record.size + more_shards[i]);
      check_sum(comm, F64, elements[j], record.size + more_shards[i]);
    }
  if (record.size == 2)
    check_sum(comm, F32, ((size_t)1 << 20) + 77, 3); /* in two exchanges */
  record.name = "misuse";
  check_misuse(comm);
  record.name = "exchange";
  for (size_t row_bytes = 1; row_bytes < 100; row_bytes += 33)
    check_exchange(comm, row_bytes);
  comm_destroy(&comm);
  return rank_record_end();
}
