/* The rows of a global batch, gathered on every rank: what regularisers on features work on.
 *
 *     struct gatherer *gatherer;
 *     TRY(gatherer_create(comm, F32, features, targets, &gatherer));
 *     each step:
 *       TRY(gatherer_collect(gatherer, &share, &gathered));                     or gatherer_borrow(): they are here
 *       TRY(rnc_loss(rnc, &gathered, coefficient, grad_own, &value));           and others, on the same rows
 *     gatherer_destroy(&gatherer);
 *
 * Features travel once a step as long as all terms look at the same ones: where ConR is among them, it is ConR that
 * sends them, un-normalised and while the network goes on, and lends what has arrived (conr_parts.h).
 *
 * Rows lie in rank order; a rank's rows are those of its views, one view after the other, as in objective.h.  A
 * regulariser computes its value, and the whole gradient of that one global value for this rank's own rows, so that the
 * result does not depend on how rows are shared out, and gradients of parameters are to be SUMmed over ranks.  It may
 * exchange what belongs to rows (numbers, not features) through `comm`; then every rank calls it, also one that has no
 * rows. */
#ifndef CONR_LOSS_GATHERED_H
#define CONR_LOSS_GATHERED_H

#include "dist/comm.h"

#include <stdbool.h>

struct gathered {
  struct comm *comm;           /* borrowed; of host memory                                       */
  enum dtype dtype;            /* F32 or F64: of all arrays                                      */
  int features, targets;       /* of a row                                                       */
  int64_t rows;                /* of all ranks                                                   */
  int64_t first, own;          /* this rank's: rows first .. first + own - 1                     */
  const int64_t *rows_of_rank; /* [ranks]                                                        */
  const void *z;               /* [rows, features] as the network gave them, not normalised      */
  const void *labels;          /* [rows, targets]                                                */
  int views;                   /* of a sample; row v * samples + i of a rank is view v of its sample i */
  uint64_t seed;               /* of the run, and                                                */
  int64_t step;                /* updates made before this one: what random draws are keyed by   */
};

/* This rank's part of them; arrays in host memory, borrowed for the call. */
struct gather_share {
  const int64_t *rows_of_rank; /* [ranks] views x samples; equal on all ranks */
  int views;
  uint64_t seed;
  int64_t step;
  const void *features; /* [rows, features] */
  const void *labels;   /* [rows, targets]  */
};

/* Features and labels of all ranks that another term has gathered, and lends. */
struct lent_rows {
  bool there;             /* false: nobody lends any                                              */
  int64_t stride;         /* of features, in elements from row to row: more than their number on a device */
  int64_t label_stride;   /* likewise of labels                                                   */
  const void *z, *labels; /* [rows, features], [rows, targets] of those strides                   */
};

struct gatherer;

/* comm  of host memory, borrowed: must outlive this.  Local. */
enum status gatherer_create(struct comm *comm, enum dtype dtype, int features, int targets, struct gatherer **out);
void gatherer_destroy(struct gatherer **gatherer); /* NULL is fine */

/* out  arrays of the gatherer's, valid until its next call; share->rows_of_rank is borrowed
 * Collective; failures are those of all ranks.  What is not finite is found by who uses the rows (rows.h).
 * The memory grows with the largest batch. */
enum status gatherer_collect(struct gatherer *gatherer, const struct gather_share *share, struct gathered *out);

/* The same of rows that are in host memory already: nothing travels, and share->features and labels are not read.
 * z, labels  [rows of all ranks, features], [rows of all ranks, targets], borrowed as long as `out` is used
 * Local. */
void gatherer_borrow(const struct gatherer *gatherer, const struct gather_share *share, const void *z,
                     const void *labels, struct gathered *out);

/* Seconds of this rank in the gathers, waits for other ranks among them, since the last call.  Local. */
double gatherer_seconds(struct gatherer *gatherer);

#endif
