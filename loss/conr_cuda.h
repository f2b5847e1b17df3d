/* ConR on a GPU: the entries of struct loss_ops, and what their two files share: conr_cuda.c (the call, its memory and
 * results) and conr_sweep_cuda.c (panels, dense or banded).
 *
 * Memory: q of all rows, N x features; beside it for each row 56 bytes and 16 for each component of labels; one panel
 * of similarities (about 256 MiB at most, 2048 rows at most), in bfloat16 once more as coefficients, and the gradient
 * of its rows.  Where rows are lent, as many features once more.  Where bands are wanted also: q in sorted order, a
 * second N x features, the rows of a panel, float32 sums of the own rows' gradients, and as much again for each row as
 * above. */
#ifndef CONR_LOSS_CONR_CUDA_H
#define CONR_LOSS_CONR_CUDA_H

#include "dist/comm_device.h"
#include "loss/conr_internal.h"
#include "loss/conr_kernels.h"
#include "loss/loss_ops.h"
#include "loss/product.h"

enum status conr_device_create(struct device *device, struct comm *comm, enum precision precision, int features,
                               int targets, const struct conr_options *options, struct conr_device **out);
void conr_device_destroy(struct conr_device **conr);
enum status conr_device_loss(struct conr_device *conr, const struct conr_batch *batch, double coefficient,
                             void *grad_features);
enum status conr_device_begin(struct conr_device *conr, const struct conr_batch *batch, int blocks, bool lend);
enum status conr_device_add(struct conr_device *conr, const struct conr_batch *block, const int64_t *first_of_rank);
enum status conr_device_progress(struct conr_device *conr);
enum status conr_device_finish(struct conr_device *conr, double coefficient, const void *features, void *grad_features);
struct lent_rows conr_device_lent(const struct conr_device *conr);
enum status conr_device_result(struct conr_device *conr, struct conr_result *result);

/* --- inside -------------------------------------------------------------------------------------------------- */

/* Rows sorted by one component of the labels or predictions, all on the device. */
struct conr_order {
  int32_t *order;  /* [rows] the batch row at each place                */
  int32_t *own;    /* [own rows] own rows in that order                 */
  int32_t *places; /* [own rows] their places                           */
};

/* Where the main stream waits for rows of other ranks: in the two exchanges. */
enum conr_wait { WAIT_ROWS, WAIT_SCALARS, WAITS };

/* What bands take beside the dense form. */
struct conr_bands {
  struct conr_order *orders;   /* [2 targets], host: by each label, then by each prediction        */
  int32_t *indices;            /* [2 targets, rows + 2 own rows], what the orders are cut from     */
  int32_t *numbers, *place_of; /* [rows]                                                           */
  float *sorted;               /* [rows] keys                                                      */
  void *scratch;               /* of the sort                                                      */
  size_t scratch_bytes;
  struct conr_range *ranges, *ranges_host; /* [2 targets, panels]; the second is pinned                        */
  void *q;                                 /* [pitch, stride] in one of the orders                             */
  void *q_own;                             /* [panel rows, stride] the rows of a panel                         */
  float *grad;                             /* [own rows, stride] sums over both sweeps                         */
  struct conr_columns columns;             /* in the order that q has                                          */
};

/* One sweep: own rows in panels against columns. */
struct conr_device_sweep {
  enum pair_class pairs;
  const struct conr_order *order;  /* NULL: the batch's                                    */
  const struct conr_range *ranges; /* [panels], host; NULL: all columns                    */
  int panel_rows;
};

struct conr_device {
  struct device *device; /* borrowed: must outlive this */
  struct comm *comm;     /* borrowed: must outlive this */
  struct stream *stream; /* the device's main one       */
  struct product *product;
  struct conr_options options;
  struct pair_rule rule; /* without what depends on labels: the device finds that */
  enum dtype dtype;      /* of values and of q */
  int features, targets, stride;
  int64_t *rows_of_rank;

  /* Sized by the largest batch seen. */
  int64_t capacity_rows, capacity_own, capacity_panel; /* the last in similarities */
  bool capacity_bands, capacity_lent;
  size_t bytes;
  void *q;        /* [pitch, stride], in batch order, zeros beyond rows */
  void *z;        /* [rows, stride], not normalised, where it is lent   */
  float *scalars; /* [rows, 2 targets + 1]                              */
  struct conr_columns columns;
  struct pair_sums *sums; /* [own rows]                                  */
  double *exchange;       /* [rows, 2]                                   */
  float *inverse;         /* [own rows] 1 / norm                         */
  float *similarity;      /* [capacity_panel]                            */
  void *coefficients;     /* [capacity_panel] bfloat16, else NULL        */
  float *tile;            /* [panel rows, stride] gradient of q          */
  double *partial_inspect, *partial_rows;
  struct conr_found *found, *report; /* on the device; pinned            */
  struct conr_bands bands;

  /* The batch at hand. */
  struct conr_blocks blocks;                /* its rows on their way                              */
  struct event *waits[WAITS], *goes[WAITS]; /* owned: around the main stream's waits for gathers  */
  bool lends;                               /* rows travel as they are, not normalised            */
  int64_t bytes_before;                     /* of the communicator's gathers                      */
  int64_t rows, pitch, own_first, own_rows, most_own;
  double multiplied;         /* pairs in all matrix products so far */
  struct conr_result result; /* as far as the host knows it         */
};

/* Rows of a batch from which CONR_AUTO plans: below, a dense batch takes less time than the wait for the plan. */
#define CONR_PLAN_ROWS 4096

/* Is a batch of so many rows to be planned, and is there to be room for bands? */
static inline bool conr_wants_bands(const struct conr_device *conr, int64_t rows) {
  return conr->options.path == CONR_BANDED || (conr->options.path == CONR_AUTO && rows >= CONR_PLAN_ROWS);
}

static inline int64_t conr_rounded(int64_t count, int64_t step) {
  return (count + step - 1) / step * step;
}

/* Panels of products of own rows with all, also those of ACCon: own rows as a whole number of steps, but no more than a
 * panel may have; products of the largest panel; rows of a panel of this pitch where so many products fit. */
int64_t conr_most_panel_rows(int64_t own_rows);
int64_t conr_panel_capacity(int64_t rows, int64_t own_rows);
int conr_panel_rows(int64_t capacity, int64_t pitch, int64_t own_rows);

/* Most panels that a banded sweep over own rows can have. */
int64_t conr_most_panels(int64_t own_rows);

/* Choose the path; sweeps[0..*count-1] in the order of the forward sweeps.  *computed_share as in conr_result.
 * Local.  Unless the path is dense the host waits for the orders. */
enum status conr_plan_device(struct conr_device *conr, struct conr_device_sweep sweeps[2], int *count,
                             double *computed_share);

/* Sums of all own rows. */
enum status conr_forward_device(struct conr_device *conr, const struct conr_device_sweep *sweeps, int count);

/* The gradient of `coefficient` times the loss, after the exchange of row scalars. */
enum status conr_backward_device(struct conr_device *conr, const struct conr_device_sweep *sweeps, int count,
                                 double coefficient, const void *features, void *grad);

#endif
