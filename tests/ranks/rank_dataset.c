/* Datasets opened by several ranks: equal rows for all, one copy a host, one sentence when any rank fails.
 * Argument: a folder to write in. */
#include "dist/comm.h"
#include "dist/memory.h"
#include "io/dataset.h"
#include "tests/io_table.h"
#include "tests/rank_record.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define ROWS 101
#define FEATURES 3

static const char *folder;

static const char *file_path(const char *name) {
  static char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

/* Rank 0 writes; all wait. */
static void write_table(struct comm *comm, const struct io_table *table, const char *name) {
  if (comm_rank(comm) == 0)
    io_table_write(table, file_path(name));
  MUST(comm_barrier(comm));
}

static void all_ranks_read_the_same(struct comm *comm, bool compressed) {
  struct io_table table = io_table_plain(ROWS, FEATURES);
  struct dataset *dataset;
  int64_t ids[ROWS];
  float rows[ROWS][FEATURES];
  table.compressed = compressed;
  table.weights = true;
  write_table(comm, &table, "ranks.h5");
  size_t before = memory_in_use();
  MUST(dataset_open(file_path("ranks.h5"), comm, F32, &dataset));
  for (int i = 0; i < ROWS; i++) /* each rank in an order of its own */
    ids[i] = (i * 7 + comm_rank(comm) * 13) % ROWS;
  MUST(dataset_read(dataset, ids, ROWS, rows));
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < FEATURES; j++)
      MUST_HOLD(rows[i][j] == (float)((io_table_input(ids[i], j) - io_table_mean(j)) / io_table_std(j)));
  for (int i = 0; i < ROWS; i++) {
    MUST_HOLD(dataset_target(dataset)[i] == i + 0.25);
    MUST_HOLD(dataset_weight(dataset)[i] == 1 + i % 3);
  }
  MUST_HOLD(dataset_split_rows(dataset, SPLIT_TRAIN) == 61 && dataset_split_ids(dataset, SPLIT_TRAIN)[3] == 5);
  dataset_close(&dataset);
  MUST_HOLD(memory_in_use() == before);
  MUST(comm_barrier(comm));
}

/* One rank is given a path that is not there. */
static void one_failure_is_everybodys(struct comm *comm) {
  struct dataset *dataset;
  char wanted[5000];
  int last = comm_size(comm) - 1;
  const char *path = file_path(comm_rank(comm) == last ? "missing.h5" : "ranks.h5");
  MUST_HOLD(dataset_open(path, comm, F32, &dataset) == ERR_FILE);
  MUST_HOLD(dataset == NULL);
  snprintf(wanted, sizeof wanted, "cannot open %s: No such file or directory; check the path", file_path("missing.h5"));
  MUST_HOLD(strcmp(status_message(), wanted) == 0);
}

/* What only the reading rank of a host sees is everybody's too: a bad value in a compressed file. */
static void a_bad_value_is_everybodys(struct comm *comm) {
  struct io_table table = io_table_plain(ROWS, FEATURES);
  struct dataset *dataset;
  char wanted[5000];
  table.compressed = true;
  write_table(comm, &table, "bad.h5");
  if (comm_rank(comm) == 0)
    io_table_put(file_path("bad.h5"), "targets", 40, NAN);
  MUST(comm_barrier(comm));
  MUST_HOLD(dataset_open(file_path("bad.h5"), comm, F32, &dataset) == ERR_FORMAT);
  snprintf(wanted, sizeof wanted, "\"targets\" in %s is nan at row 40; every target must be finite",
           file_path("bad.h5"));
  MUST_HOLD(strcmp(status_message(), wanted) == 0);
}

/* Ranks that see different files, as hosts with stale copies would. */
static void different_files_are_noticed(struct comm *comm, const char *name) {
  struct io_table table = io_table_plain(ROWS, FEATURES);
  struct dataset *dataset;
  char wanted[5000];
  int last = comm_size(comm) - 1;
  write_table(comm, &table, "ranks.h5");
  table.rows++;
  write_table(comm, &table, "longer.h5");
  if (last == 0)
    return;
  const char *path = file_path(comm_rank(comm) == last ? name : "ranks.h5");
  MUST_HOLD(dataset_open(path, comm, F32, &dataset) == ERR_FORMAT);
  snprintf(wanted, sizeof wanted, "%s is not the same file on all hosts; copy it again or use a shared folder", path);
  MUST_HOLD(strcmp(status_message(), wanted) == 0);
}

int main(int argc, char **argv) {
  struct comm *comm = NULL;
  rank_record_begin(&argc, &argv);
  MUST_HOLD(argc == 2);
  MUST(comm_create(MPI_COMM_WORLD, &comm));
  folder = argv[1];
  all_ranks_read_the_same(comm, false);
  all_ranks_read_the_same(comm, true);
  one_failure_is_everybodys(comm);
  a_bad_value_is_everybodys(comm);
  different_files_are_noticed(comm, "longer.h5");
  comm_destroy(&comm);
  return rank_record_end();
}
