/* The regularisers on features beside ConR (conr.h): RankSim, RnC, ACCon and SRL, on one gather of the rows.
 *
 *     struct regularisers *regularisers;
 *     TRY(regularisers_create(mpi, data, ops, &options, features, targets, &regularisers));
 *     each step, on what the network computed for this rank's rows:
 *       TRY(regularisers_add(regularisers, SIDE_CONTRAST, &share, grad_features));
 *     regularisers_value(regularisers, REGULARISER_RNC);
 *     regularisers_destroy(&regularisers);
 *
 * Each has a side: the pass that it looks at where the views of a sample go through the network apart (gradients.h of
 * launch).  Contrastive ones want the views of a sample side by side; RankSim and SRL work on the pass of the regression
 * loss.
 *
 * On a device ACCon is computed there (loss_ops.h), and RnC where labels have one component; the others on the host: the
 * rows are fetched, in float32, and their gradient is sent back.  The host waits for the rows once a call, then the
 * device for the host, and regularisers_seconds() says how long.  Fetched are this rank's own rows, which then are
 * gathered, or those of all ranks where they are on the device already: by ConR's gather, or by that for what the device
 * computes. */
#ifndef CONR_LOSS_REGULARISERS_H
#define CONR_LOSS_REGULARISERS_H

#include "loss/accon.h"
#include "loss/ranksim.h"
#include "loss/rnc.h"
#include "loss/srl.h"
#include "model/ops.h"
#include "model/state.h"

#include <stdbool.h>

enum regulariser { REGULARISER_RANKSIM, REGULARISER_RNC, REGULARISER_ACCON, REGULARISER_SRL, REGULARISERS };

/* Bits: a call may ask for both. */
enum regulariser_side { SIDE_CONTRAST = 1, SIDE_REGRESSION = 2, SIDE_BOTH = 3 };

struct regulariser_options {
  bool on[REGULARISERS];
  double coefficient[REGULARISERS]; /* what each is multiplied by in the objective */
  struct ranksim_options ranksim;
  struct rnc_options rnc;
  struct accon_options accon;
  struct srl_options srl;
  uint64_t seed; /* of the run */
};

/* This rank's rows, in the memory of the ops: one view after the other.  Borrowed; on a device, what is pointed to is
 * read when kept work is launched, too (dist/replay.h). */
struct regulariser_share {
  const int64_t *samples_of_rank; /* [ranks], equal on all ranks, in host memory                        */
  int views;                      /* rows of each sample                                                */
  const void *features;           /* [rows, features] of the values' type                               */
  const void *labels;             /* [rows, targets] of the parameters' type                            */
  struct lent_rows lent;          /* these rows of all ranks, likewise: then labels are not read, and features by what
                                     a device computes alone */
  /* On the host, where the batch is cut into virtual shards (objective.h): features and their gradient lie shard by
   * shard then.  Every rank computes the whole batch by itself and takes the gradient of its own rows, so that the bits
   * are the same for any number of ranks; the price is that the work is not shared. */
  const int64_t *samples_of_shard; /* [shards]; NULL = none */
  const int *shards_of_rank;       /* [ranks]               */
};

struct regularisers;

/* "ranksim", "rnc", "accon", "srl": in options, logs and files. */
const char *regulariser_name(enum regulariser which);

/* data  of the ops' memory, borrowed; NULL on the host
 * ops   borrowed
 * Collective: duplicates `mpi`.  ERR_ARGUMENT on all ranks: an option without meaning. */
enum status regularisers_create(MPI_Comm mpi, struct comm *data, const struct ops *ops,
                                const struct regulariser_options *options, int features, int targets,
                                struct regularisers **out);
void regularisers_destroy(struct regularisers **regularisers); /* NULL is fine */

/* Those that are on and computed on the host, "ranksim, rnc"; "" for none, and for NULL.  Local. */
void regularisers_on_host(const struct regularisers *regularisers, char *text, size_t room);

/* Is there any of these sides?  NULL has none. */
bool regularisers_any(const struct regularisers *regularisers, int sides);

/* What random draws of the next calls are keyed by: updates made so far.  NULL is fine.  Local. */
void regularisers_set_step(struct regularisers *regularisers, int64_t step);

/* grad_features [rows, features] += the gradient of the sum of coefficient x value over those of the sides.
 * Collective; failures are those of all ranks, but those of a device are its rank's alone.  ERR_NUMERIC: a feature or a
 * label is not finite; the value of what a device computes is then not finite either.  Memory grows with the largest
 * batch. */
enum status regularisers_add(struct regularisers *regularisers, int sides, const struct regulariser_share *share,
                             void *grad_features);

/* Of the last batch, without the coefficient; the same on all ranks; 0 when off, and of NULL.  Local. */
double regularisers_value(const struct regularisers *regularisers, enum regulariser which);

/* Sum of coefficient x value. */
double regularisers_total(const struct regularisers *regularisers);

/* Of this rank since the last call, both with waits for other ranks: in the gathers, and in all of regularisers_add()
 * from when the rows were in host memory; what a device computes is not in it.  Local. */
void regularisers_seconds(struct regularisers *regularisers, double *gather, double *all);

/* SRL's surrogate takes in the epoch.  NULL is fine.  Same value. */
void regularisers_end_epoch(struct regularisers *regularisers);

/* What a checkpoint has to keep; arrays are borrowed.  Returns how many, at most REGULARISER_STATES. */
#define REGULARISER_STATES 1
size_t regularisers_states(struct regularisers *regularisers, struct state_array states[REGULARISER_STATES]);

#endif
