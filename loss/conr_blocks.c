/* Blocks of rows in flight. */
#include "loss/conr_blocks.h"

#include "dist/memory.h"

#define FEW_GATHERS 2 /* of a batch in one piece: a device sends two arrays */

static enum status make_room(struct conr_blocks *blocks, int gathers) {
  blocks->room = 0;
  memory_free((void **)&blocks->requests);
  TRY(memory_alloc((size_t)gathers * sizeof *blocks->requests, (void **)&blocks->requests));
  blocks->room = gathers;
  return STATUS_OK;
}

enum status conr_blocks_create(struct comm *comm, struct conr_blocks *blocks) {
  *blocks = (struct conr_blocks){.comm = comm, .rows = -1};
  TRY(memory_alloc((size_t)comm_size(comm) * sizeof(int64_t), (void **)&blocks->place_of_rank));
  return make_room(blocks, FEW_GATHERS);
}

void conr_blocks_destroy(struct conr_blocks *blocks) {
  if (blocks->count > 0)
    return;
  memory_free((void **)&blocks->requests);
  memory_free((void **)&blocks->place_of_rank);
}

enum status conr_blocks_begin(struct conr_blocks *blocks, int gathers) {
  REQUIRE(blocks->count == 0, ERR_BUG, "a batch of ConR begins while %d gathers of the last one are in flight",
          blocks->count);
  blocks->rows = 0;
  return gathers <= blocks->room ? STATUS_OK : comm_agree(blocks->comm, make_room(blocks, gathers));
}

enum status conr_blocks_place(struct conr_blocks *blocks, const int64_t *rows_of_rank, const int64_t *block_of_rank,
                              const int64_t *first_of_rank) {
  int64_t before = 0;
  for (int rank = 0; rank < comm_size(blocks->comm); rank++) {
    int64_t first = first_of_rank != NULL ? first_of_rank[rank] : 0, rows = block_of_rank[rank];
    REQUIRE(first >= 0 && rows >= 0 && rows <= rows_of_rank[rank] - first, ERR_BUG,
            "rank %d adds rows %lld to %lld to its %lld of ConR", rank, (long long)first, (long long)(first + rows - 1),
            (long long)rows_of_rank[rank]);
    blocks->place_of_rank[rank] = before + first;
    before += rows_of_rank[rank];
    blocks->rows += rows;
  }
  blocks->own = blocks->place_of_rank[comm_rank(blocks->comm)];
  return STATUS_OK;
}

enum status conr_blocks_gather(struct conr_blocks *blocks, const int64_t *block_of_rank, size_t row_bytes, void *all) {
  REQUIRE(blocks->count < blocks->room, ERR_BUG, "ConR has more than the %d gathers it was begun for", blocks->room);
  TRY(comm_gather_start(blocks->comm, block_of_rank, blocks->place_of_rank, row_bytes, all,
                        &blocks->requests[blocks->count]));
  blocks->count++;
  return STATUS_OK;
}

enum status conr_blocks_progress(struct conr_blocks *blocks) {
  bool done;
  for (int i = 0; i < blocks->count; i++)
    if (blocks->requests[i].handle != NULL)
      TRY(comm_progress(blocks->comm, &blocks->requests[i], &done));
  return STATUS_OK;
}

enum status conr_blocks_finish(struct conr_blocks *blocks, int64_t rows) {
  int64_t added = blocks->rows;
  for (int i = 0; i < blocks->count; i++)
    if (blocks->requests[i].handle != NULL)
      TRY(comm_wait(blocks->comm, &blocks->requests[i]));
  blocks->count = 0;
  blocks->rows = -1;
  REQUIRE(added == rows, ERR_BUG, "ConR was given %lld of its %lld rows", (long long)added, (long long)rows);
  return STATUS_OK;
}
