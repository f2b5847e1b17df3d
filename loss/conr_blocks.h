/* Rows of ConR on their way to all ranks, block by block: each block is a gather of its own, which travels while the
 * rows of the next are computed.
 *
 *     struct conr_blocks blocks;
 *     TRY(conr_blocks_create(device, comm, &blocks));
 *     each batch:
 *       TRY(conr_blocks_begin(&blocks, gathers));
 *       for each block of rows:
 *         TRY(conr_blocks_place(&blocks, rows_of_rank, block_of_rank, first_of_rank));
 *         ... the own rows are packed, from row blocks.own on among all ranks' ...
 *         TRY(conr_blocks_gather(&blocks, block_of_rank, row_bytes, all));          once for each array of rows
 *         TRY(conr_blocks_progress(&blocks));                                       now and then
 *       TRY(conr_blocks_finish(&blocks, rows));
 *     conr_blocks_destroy(&blocks);
 *
 * Rows end where one gather of all would have put them, rank behind rank, so that a batch has the same bits however it
 * is cut.  Of work that is kept (dist/replay.h) the gathers are made anew at each launch, and the host finds nothing
 * between them. */
#ifndef CONR_LOSS_CONR_BLOCKS_H
#define CONR_LOSS_CONR_BLOCKS_H

#include "dist/comm.h"
#include "dist/device.h"

struct conr_blocks {
  struct device *device;         /* of what travels; borrowed: must outlive this; NULL = the host        */
  struct comm *comm;             /* borrowed: must outlive this                                          */
  struct comm_request *requests; /* owned [room], pinned                                                 */
  int room, count;               /* gathers that there is room for; begun and not yet waited for         */
  bool kept;                     /* the batch at hand is written down and not done                       */
  int64_t *place_of_rank;        /* owned [ranks]: where each rank's rows of the block at hand go        */
  int64_t own;                   /* the same for this rank                                               */
  int64_t rows;                  /* of all ranks in the blocks so far; -1: no batch is begun             */
};

/* Room for one batch of few gathers.  Local; destroy what it leaves, also where it fails. */
enum status conr_blocks_create(struct device *device, struct comm *comm, struct conr_blocks *blocks);

/* With gathers in flight it frees nothing: they may still write to where they were told to.  Local. */
void conr_blocks_destroy(struct conr_blocks *blocks);

/* Are gathers in flight?  Local. */
bool conr_blocks_in_flight(const struct conr_blocks *blocks);

/* gathers: how many there will be at most; the same on all ranks.  ERR_BUG while an earlier batch is in flight.
 * Collective; all failures are agreed. */
enum status conr_blocks_begin(struct conr_blocks *blocks, int gathers);

/* rows_of_rank   [ranks] of the whole batch
 * block_of_rank  [ranks] of the block
 * first_of_rank  [ranks] the block's first row among those of each rank; NULL = 0
 * ERR_BUG on all ranks alike for rows that the batch does not have.  Local; same value. */
enum status conr_blocks_place(struct conr_blocks *blocks, const int64_t *rows_of_rank, const int64_t *block_of_rank,
                              const int64_t *first_of_rank);

/* Send the block's own rows, which are in their place in `all`.  Collective. */
enum status conr_blocks_gather(struct conr_blocks *blocks, const int64_t *block_of_rank, size_t row_bytes, void *all);

/* Local. */
enum status conr_blocks_progress(struct conr_blocks *blocks);

/* Wait for all.  ERR_BUG on all ranks alike when the blocks did not make up the rows of the batch.  Local. */
enum status conr_blocks_finish(struct conr_blocks *blocks, int64_t rows);

#endif
