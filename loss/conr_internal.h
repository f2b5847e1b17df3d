/* The inside of the ConR loss, shared by its four files: conr.c (the call, workspace, the rule of a batch),
 * conr_exchange.c (the two gathers), conr_memory.c (rows of earlier batches) and conr_sweep.c (panels, dense or banded).
 */
#ifndef CONR_LOSS_CONR_INTERNAL_H
#define CONR_LOSS_CONR_INTERNAL_H

#include "dist/comm.h"
#include "loss/band.h"
#include "loss/conr_blocks.h"
#include "loss/conr_parts.h"
#include "loss/pairwise.h"

#include <string.h>

#define SMALLEST_PANEL 48 /* a multiple of 48: see pairwise.h */

/* The scales of struct pair_columns, in the order they are stored. */
enum scale { SCALE_POSITIVE, SCALE_NEGATIVE, SUBTRACT, SCALE_MEAN, SCALES };

/* What a rank adds to the exchange of row scalars, after its rows: sums for everybody. */
struct trailer {
  double loss, active, positives, negatives, zero_rows;
  double fault; /* enum fault of this rank */
};
#define TRAILER_UNITS (sizeof(struct trailer) / 8)

/* What can befall one rank between the two exchanges; the second one tells the others. */
enum fault { FAULT_NONE, FAULT_PRODUCT, FAULT_BATCH };

/* Some neighbouring rows of one shard. */
struct panel {
  int64_t first; /* of the planned rows: panel rows are sweep.own[first .. first + count - 1] */
  int count;
};

/* One sweep's panels: planned rows in the order of the storage, and the columns each panel needs. */
struct sweep {
  enum pair_class pairs;
  bool batch_order;         /* the storage is in batch order; `order` is not used           */
  int32_t *order;           /* [columns] order of the storage: the batch row at each place  */
  int32_t *own;             /* [planned rows] their places in that order, shard by shard, ascending in each */
  struct band_range *range; /* [panels] columns of each panel                               */
};

/* Rows of earlier batches: a ring of records. */
struct conr_memory {
  int64_t rows;  /* that there is room for; 0 = no memory                                                  */
  double *state; /* owned: rows that are there, where the next one goes, then [rows, stride] their records */
  size_t count;  /* numbers of it                                                                          */
};

/* Rows in groups that panels and sums do not reach across: one for each rank, or those of conr_cut().  Panels are planned
 * for the own rows; of a cut batch for all, so that all ranks choose the same path. */
struct conr_cuts {
  bool cut;
  int shards;               /* of all ranks                                                     */
  int64_t *first_row;       /* [shards + 1] of each, in the batch                               */
  int *first_shard;         /* [ranks + 1] of each rank                                         */
  int64_t *next;            /* [shards] scratch                                                 */
  int planned, planned_end; /* shards that panels are planned for                               */
};

struct conr {
  struct comm *comm;
  struct conr_options options;
  enum dtype dtype;
  int features, targets, threads;
  int64_t stride; /* REALs in a record */
  struct conr_memory memory;

  /* Sized by the largest batch seen. */
  int64_t capacity_rows, capacity_columns, capacity_own;
  bool capacity_wide;         /* row scalars in double fit */
  bool capacity_lent;         /* there is room for rows to lend */
  void *records;              /* [columns, stride]        */
  void *labels, *predictions; /* [targets, columns]       */
  int32_t *slot_of;           /* [columns] batch row, or column behind them -> slot */
  unsigned char *placed;      /* [columns] scratch        */
  void *temporary;            /* one record               */
  void *z, *lent_labels;      /* [rows, features], [rows, targets], lent; NULL where nothing has been yet */
  struct sweep by_label, by_prediction;
  struct panel *panel; /* [panels] of both */
  union {              /* one block, used for one thing after the other */
    void *phase;
    struct band_key *keys;  /* [columns] while sorting                                   */
    struct pair_sums *sums; /* [own rows] from the forward sweeps to the exchange        */
    char *scales;           /* [4, columns] REAL in the backward sweeps: see pairwise.h  */
  };
  void *exchange; /* row scalars of all ranks                 */
  void *inverse;  /* [own rows] 1 / norm, 0 for zero rows     */
  void *panels;   /* one workspace a thread                   */
  int64_t *rows_of_rank;
  size_t workspace_bytes;

  /* The batch at hand. */
  struct conr_blocks blocks; /* its rows on their way                  */
  struct comm_traffic before;
  int64_t rows, own_first, own_rows;
  int64_t columns; /* what the own rows are held against: all rows, then those remembered */
  int views;
  struct conr_cuts cuts;
  int64_t panel_count, own_panel, own_panel_end; /* planned ones, and those of the own rows */
  bool lends;                                    /* records travel as they are, not normalised */
  enum fault fault;                              /* of this rank                               */
  int panel_rows;
  struct pair_rule rule;
};

/* ---- REAL arrays of either type ---------------------------------------------------------- */

static inline void *at(enum dtype dtype, void *array, int64_t i) {
  return (char *)array + (size_t)i * dtype_size(dtype);
}

static inline const void *element(enum dtype dtype, const void *array, int64_t i) {
  return (const char *)array + (size_t)i * dtype_size(dtype);
}

/* Row scalars are logarithms when wide: doubles then. */
static inline enum dtype scalar_dtype(const struct conr *conr) {
  return conr->rule.wide ? F64 : conr->dtype;
}

/* A failure that every rank finds in what it has received: all return it, none waits. */
static inline enum status agreed(enum status status) {
  status_set_agreed();
  return status;
}

/* Own weight of an own row, from its record. */
static inline double weight_at(const struct conr *conr, int64_t slot) {
  return dtype_get(conr->dtype, conr->records, slot * conr->stride + conr->features + 2 * conr->targets);
}

/* ---- conr.c: also for devices ---------------------------------------------------------------- */

/* ERR_ARGUMENT.  Local. */
enum status check_conr_options(int features, int targets, const struct conr_options *options);

/* The rule of these options, without what depends on the labels of a batch (pair_rule_span). */
struct pair_rule rule_of_options(const struct conr_options *options);

/* ERR_NUMERIC for labels that span so much that the push, or their squares, leave the range of dtype.  Same value. */
enum status check_label_span(const struct pair_rule *rule, enum dtype dtype, double diameter);

/* ---- conr_exchange.c ------------------------------------------------------------------------ */

/* The sentence for a scalar of a batch row that is not finite, or for a negative weight; scalars are numbered as in a
 * record: labels, predictions, weight.  All ranks have found it.  Also for devices. */
enum status name_bad_scalar(const int64_t *rows_of_rank, int targets, int64_t row, int scalar, double value);

/* The first exchange, begun: pack a block of the own rows, normalised unless the rows are lent, and send it; see
 * conr_add().  Collective. */
enum status send_records(struct conr *conr, const struct conr_batch *block, const int64_t *first_of_rank);

/* The first exchange, ended: wait for all records, normalise them where that is still to be done, and check their
 * scalars.  Local; all ranks come to the same verdict. */
enum status receive_records(struct conr *conr);

/* The second exchange: [u, second] of all rows, which the exchange buffer then holds in batch order, and every rank's
 * sums.  Collective; ERR_ARGUMENT or ERR_MEMORY on all ranks when one had a fault. */
enum status exchange_scalars(struct conr *conr, struct trailer *total);

/* Copy labels and predictions out of the records, [targets, columns], in the order of the storage.  Local. */
void spread_records(struct conr *conr);

/* ---- conr_memory.c -------------------------------------------------------------------------- */

/* Room for the memory of these options, which is empty.  Local. */
enum status memory_of_options(const struct conr_options *options, int64_t stride, struct conr_memory *out);

/* ERR_FORMAT for a state that cannot be.  Same value. */
enum status check_memory(const struct conr_memory *memory);

/* Rows that are there.  Same value. */
int64_t remembered_rows(const struct conr_memory *memory);

/* Put them behind the records of the batch.  Local. */
void recall_records(struct conr *conr);

/* Take in the rows of the batch, whose records may lie in any order, for the oldest ones.  Local; same value. */
void remember_records(struct conr *conr);

/* ---- conr_sweep.c --------------------------------------------------------------------------- */

/* Choose the path and plan panels and columns; *computed_share = pairs of a sweep / (own rows x columns).  Local: each
 * rank may choose for itself, both paths take part in the same collectives. */
enum conr_path plan_sweeps(struct conr *conr, double *computed_share);

/* Sums of every own row.  Local.  ERR_MEMORY. */
enum status forward_sweeps(struct conr *conr, enum conr_path path);

/* grad [own rows, features]: the complete gradient of the own rows' features, after exchange_scalars.  Local.
 * ERR_MEMORY. */
enum status backward_sweeps(struct conr *conr, enum conr_path path, const void *features, void *grad);

#endif
