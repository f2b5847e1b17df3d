/* Blocks of rows in flight. */
#include "loss/conr_blocks.h"

#include "dist/memory.h"
#include "dist/replay.h"

#include <string.h>

#define FEW_GATHERS 2 /* of a batch in one piece: a device sends two arrays */

/* Kept work remembers where requests lie.  They are pinned because it is forgotten when pinned memory is freed. */
static enum status make_room(struct conr_blocks *blocks, int gathers) {
  size_t bytes = (size_t)gathers * sizeof *blocks->requests;
  blocks->room = 0;
  device_free_pinned(blocks->device, (void **)&blocks->requests);
  TRY(device_alloc_pinned(blocks->device, bytes, (void **)&blocks->requests));
  memset(blocks->requests, 0, bytes);
  blocks->room = gathers;
  return STATUS_OK;
}

enum status conr_blocks_create(struct device *device, struct comm *comm, struct conr_blocks *blocks) {
  *blocks = (struct conr_blocks){.device = device, .comm = comm, .rows = -1};
  TRY(memory_alloc((size_t)comm_size(comm) * sizeof(int64_t), (void **)&blocks->place_of_rank));
  return make_room(blocks, FEW_GATHERS);
}

void conr_blocks_destroy(struct conr_blocks *blocks) {
  if (conr_blocks_in_flight(blocks))
    return;
  device_free_pinned(blocks->device, (void **)&blocks->requests);
  memory_free((void **)&blocks->place_of_rank);
}

/* By the requests themselves: those of kept work come and go without a call of these functions. */
bool conr_blocks_in_flight(const struct conr_blocks *blocks) {
  for (int i = 0; i < blocks->room; i++)
    if (blocks->requests[i].handle != NULL)
      return true;
  return false;
}

/* Where work could not be kept, its batch is not finished, and nothing of it has left. */
enum status conr_blocks_begin(struct conr_blocks *blocks, int gathers) {
  REQUIRE(blocks->count == 0 || blocks->kept, ERR_BUG,
          "a batch of ConR begins while %d gathers of the last one are in flight", blocks->count);
  blocks->count = 0;
  blocks->rows = 0;
  blocks->kept = replay_records(blocks->device);
  if (gathers <= blocks->room)
    return STATUS_OK;
  enum status status = comm_agree(blocks->comm, make_room(blocks, gathers));
  if (status != STATUS_OK) /* on all ranks alike: who has memory here does not wait for who has none */
    blocks->room = 0;
  return status;
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
  TRY(comm_gather_start(comm_for(blocks->comm, "gather of features"), block_of_rank, blocks->place_of_rank, row_bytes,
                        all, &blocks->requests[blocks->count]));
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
    if (blocks->requests[i].handle != NULL || blocks->kept)
      TRY(comm_wait(blocks->comm, &blocks->requests[i]));
  blocks->count = 0;
  blocks->rows = -1;
  REQUIRE(added == rows, ERR_BUG, "ConR was given %lld of its %lld rows", (long long)added, (long long)rows);
  return STATUS_OK;
}
