/* Numbers and bytes of ranks. */
#include "tests/comm_data.h"

#include "dist/memory.h"
#include "dist/random.h"
#include "tests/buffers.h"
#include "tests/rank_record.h"

#include <math.h>
#include <mpi.h>
#include <string.h>

void expect_same_bytes(const void *data, size_t bytes, const char *what) {
  void *root = rank_room(bytes);
  memcpy(root, data, bytes);
  MPI_Bcast(root, (int)bytes, MPI_BYTE, 0, MPI_COMM_WORLD);
  EXPECT(memcmp(root, data, bytes) == 0, "%s is not the same on rank 0", what);
  memory_free(&root);
}

#define GUARD (-77.0) /* stands behind the last element, and must stay */

void *own_numbers(const struct comm *comm, enum dtype dtype, size_t count) {
  void *data = rank_room((count + 1) * dtype_size(dtype));
  for (size_t i = 0; i < count; i++)
    buffer_set(dtype, data, (int64_t)i, (double)(i % 1009) * (comm_rank(comm) + 1) - comm_rank(comm));
  buffer_set(dtype, data, (int64_t)count, GUARD);
  return data;
}

void expect_summed(const struct comm *comm, enum dtype dtype, const void *data, size_t count, const char *how) {
  double ranks = comm_size(comm), triangle = ranks * (ranks + 1) / 2;
  size_t i = 0;
  while (i < count && buffer_get(dtype, data, (int64_t)i) == (double)(i % 1009) * triangle - (triangle - ranks))
    i++;
  EXPECT(i == count, "%s of %zu %s: element %zu is %.17g", how, count, dtype_name(dtype), i,
         buffer_get(dtype, data, (int64_t)i));
  EXPECT(buffer_get(dtype, data, (int64_t)count) == GUARD, "%s of %zu %s wrote beyond its end", how, count,
         dtype_name(dtype));
}

double rounding_number(int rank, size_t i) {
  struct random_key key = random_key(11, RANDOM_TEST, (uint64_t)rank);
  return (random_uniform(key, i, 0) - 0.5) * exp2(20 * random_uniform(key, i, 1));
}

void *own_rounding_numbers(const struct comm *comm, enum dtype dtype, size_t count) {
  void *data = rank_room(count * dtype_size(dtype));
  for (size_t i = 0; i < count; i++)
    buffer_set(dtype, data, (int64_t)i, rounding_number(comm_rank(comm), i));
  return data;
}

unsigned char byte_at(int rank, int64_t row, size_t byte) {
  uint32_t mixed = (uint32_t)rank * 2654435761u + (uint32_t)row * 40503u + (uint32_t)byte * 2246822519u + 12345u;
  return (unsigned char)(mixed * 3266489917u >> 24);
}

void fill_rows(unsigned char *rows, int rank, int64_t count, size_t row_bytes) {
  for (int64_t row = 0; row < count; row++)
    for (size_t byte = 0; byte < row_bytes; byte++)
      rows[(size_t)row * row_bytes + byte] = byte_at(rank, row, byte);
}

static const char *const layout_names[ROW_LAYOUTS] = {"even", "rising",      "falling", "with gaps",
                                                      "none", "one has all", "many"};

const char *row_layout_name(enum row_layout layout) {
  return layout_names[layout];
}

static int64_t rows_of(enum row_layout layout, int rank, int owner) {
  switch (layout) {
  case ROWS_EVEN:
    return 3;
  case ROWS_RISING:
    return 2 * rank + 1;
  case ROWS_FALLING:
    return 9 - 2 * rank;
  case ROWS_WITH_GAPS:
    return (rank + owner) % 2 == 0 ? 5 : 0;
  case ROWS_OF_ONE:
    return rank == owner ? 7 : 0;
  case ROWS_MANY:
    return 700 + 37 * ((rank + owner) % 3);
  case ROWS_NONE:
  case ROW_LAYOUTS:
    break;
  }
  return 0;
}

int64_t *row_layout_create(const struct comm *comm, enum row_layout layout, int owner) {
  int64_t *rows_of_rank = rank_room((size_t)comm_size(comm) * sizeof *rows_of_rank);
  for (int rank = 0; rank < comm_size(comm); rank++)
    rows_of_rank[rank] = rows_of(layout, rank, owner);
  return rows_of_rank;
}

void check_gather(struct comm *comm, const int64_t *rows_of_rank, size_t row_bytes, enum own_rows how,
                  const char *layout) {
  int rank = comm_rank(comm);
  int64_t total = 0, first = 0;
  for (int r = 0; r < comm_size(comm); r++) {
    first += r < rank ? rows_of_rank[r] : 0;
    total += rows_of_rank[r];
  }
  size_t bytes = (size_t)total * row_bytes, own_bytes = (size_t)rows_of_rank[rank] * row_bytes;
  unsigned char *all = rank_room(bytes + 1), *own = rank_room(own_bytes), *expected = rank_room(bytes);
  memset(all, GUARD_BYTE, bytes + 1);
  fill_rows(own, rank, rows_of_rank[rank], row_bytes);
  if (how == IN_PLACE)
    memcpy(all + (size_t)first * row_bytes, own, own_bytes);
  bool null = how == IN_PLACE || (how == NULL_WHEN_EMPTY && own_bytes == 0);
  EXPECT_OK(comm_gather_rows(comm, null ? NULL : own, rows_of_rank, row_bytes, all));
  unsigned char *next = expected;
  for (int r = 0; r < comm_size(comm); r++) {
    fill_rows(next, r, rows_of_rank[r], row_bytes);
    next += (size_t)rows_of_rank[r] * row_bytes;
  }
  size_t i = 0;
  while (i < bytes && all[i] == expected[i])
    i++;
  EXPECT(i == bytes, "%s rows of %zu bytes, way %d: byte %zu of %zu", layout, row_bytes, how, i, bytes);
  EXPECT(all[bytes] == GUARD_BYTE, "%s rows of %zu bytes, way %d: wrote beyond its end", layout, row_bytes, how);
  memory_free((void **)&all);
  memory_free((void **)&own);
  memory_free((void **)&expected);
}
