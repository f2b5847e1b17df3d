/* conr.h - the ConR loss over a global batch, and its feature gradient, for any MPI program.
 *
 * ConR is a contrastive regulariser for deep imbalanced regression.  Rows whose labels are close
 * are pulled together in feature space; rows whose labels are far apart but whose predictions are
 * close are pushed apart, the harder the farther the labels and the larger the anchor's weight.
 *
 * The loss is that of the *global* batch: every row on every rank is contrasted with every other,
 * however the rows are shared out (uneven and empty shares included), and the number of ranks does
 * not change the result.  One all-gather carries features, labels, predictions and weights; one
 * carries two numbers per row.  No feature gradient travels, and nothing of size N x N is stored.
 *
 *     struct conr_options options;
 *     struct conr *conr;
 *     struct conr_result result;
 *     conr_options_default(&options);
 *     options.w = 2;                                            labels closer than this are positives
 *     if (conr_create(MPI_COMM_WORLD, features, targets, CONR_F32, &options, &conr)) puts(conr_error());
 *     struct conr_batch batch = {.rows = rows, .features = f, .labels = y, .predictions = p};
 *     if (conr_loss(conr, &batch, grad, &result)) puts(conr_error());
 *     conr_destroy(&conr);
 *
 * Then add beta * grad to the features' gradient and run the backward pass.  Parameter gradients are
 * to be SUMMED over ranks, not averaged: each local gradient is already a derivative of the one global
 * loss.  Divide every other loss term by the *global* row count as well.
 *
 * Definitions, for rows i, j of N rows (two augmented views of one sample are two rows):
 *     q_i  = f_i / max(|f_i|, 1e-12)      s_ij = q_i . q_j / t
 *     d_ij = distance of labels           P_i  = { j != i : d_ij <= w }
 *     dp_ij = distance of predictions     N_i  = { j : d_ij > w and dp_ij <= w }
 *     S_ij = weight_i exp(e d_ij)         D_i  = sum_P exp(s_ij) + sum_N S_ij exp(s_ij)
 *     loss = 1/N sum over i with P_i, N_i not empty of  log D_i - 1/|P_i| sum_P s_ij
 * Labels, predictions and weights get no gradient.  A row of norm <= 1e-12 gets gradient 0.
 *
 * Memory (options.memory_rows = M): the rows of a batch are contrasted also with the M most recent rows of earlier
 * batches, with features, labels, predictions and weights as they were then (a cross-batch memory: Wang et al., CVPR
 * 2020).  In the definitions j is then one of N columns, which are the rows of the batch and those remembered; i is
 * a row of the batch, and the mean is over these: remembered rows are no anchors and get no gradient.  A row whose
 * sample is remembered too has it among its positives, like any other.  Every rank holds the whole memory, so nothing
 * travels for it.  A batch enters the memory once its gradient has been computed; calls for the loss alone look at the
 * memory and leave it as it is.
 *
 * The struct is not thread-safe; one call at a time on each. */
#ifndef CONR_H
#define CONR_H

#include <mpi.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Type of features, labels, predictions, weights and gradients. */
enum conr_precision { CONR_F32, CONR_F64 };

enum conr_variant {
  CONR_PAPER,     /* the loss above                                                                     */
  CONR_REFERENCE, /* what the published age code computes: D_i has N - |P_i| more (masked entries count
                     as exp(0); see constant_rows), and the anchor's weight multiplies its term once more */
  CONR_DEPTH      /* what the published depth code computes: as reference without the outer weight, with
                     S_ij = weight_i e d_ij and the mean over |P_i| + 1                                 */
};

/* Paper variant only: where the mean over positives sits. */
enum conr_aggregate {
  CONR_MEAN_OF_LOG, /* log D_i - mean_P s_ij            */
  CONR_LOG_OF_MEAN  /* log D_i - log mean_P exp(s_ij)   */
};

/* Distance of labels, and of predictions, of several components; all the same for one. */
enum conr_distance { CONR_EUCLIDEAN, CONR_MANHATTAN, CONR_CHEBYSHEV };

enum conr_path {
  CONR_AUTO,  /* whichever evaluates fewer pairs                                          */
  CONR_DENSE, /* all N x N pairs                                                          */
  CONR_BANDED /* only pairs within w in labels or in predictions; the same sums           */
};

struct conr_options {
  enum conr_variant variant;
  enum conr_aggregate aggregate;
  enum conr_distance distance;
  enum conr_path path;
  double w;             /* window of labels and of predictions, in label units, >= 0, inclusive */
  double t;             /* temperature, > 0                                                     */
  double e;             /* strength of the push, per label unit, >= 0                           */
  int outer_weights;    /* paper variant: 1 = the anchor's weight multiplies its term as well   */
  int64_t memory_rows;  /* M, >= 0; 0 = no memory                                               */
  double constant_rows; /* not in the paper variant: c, and D_i has c (1 - |P_i| / N) more instead of N - |P_i|, as
                            much as in a batch of c rows with the same share of positives; 0 = N */
};

/* paper, mean of log, euclidean, auto; w 1, t 0.07, e 0.01 (the published age settings); no outer weight, no memory. */
void conr_options_default(struct conr_options *options);

/* This rank's share of a global batch.  Arrays are row-major and borrowed for the call. */
struct conr_batch {
  int64_t rows;                /* may be 0; may differ between ranks                                      */
  const void *features;        /* [rows, features], need not be normalised                                */
  const void *labels;          /* [rows, targets]                                                         */
  const void *predictions;     /* [rows, targets]                                                         */
  const void *weights;         /* [rows] >= 0, or NULL for ones                                           */
  const int64_t *rows_of_rank; /* [ranks], equal on all ranks; NULL: exchanged (8 bytes a rank, a latency) */
  int views; /* equal on all ranks; each rank has so many views of its samples, all first views, then all second ones,
                and the memory takes the rows of all ranks sample by sample, so that how samples are shared out does
                not matter; 0 or 1: the memory takes them in the order of ranks */
};

struct conr_result {
  double loss;            /* of the global batch; the same bits on every rank                           */
  int64_t rows;           /* N                                                                          */
  int64_t active_anchors; /* rows that have positives and negatives                                     */
  int64_t positive_pairs; /* ordered pairs                                                              */
  int64_t negative_pairs;
  int64_t zero_rows;     /* rows of norm <= 1e-12                                                      */
  enum conr_path path;   /* what this rank did: CONR_DENSE or CONR_BANDED                              */
  double computed_share; /* pairs this rank evaluated in one sweep / (own rows x N)                    */
  double gemm_flops;     /* floating-point operations of this rank's matrix products                   */
  int64_t
      bytes_received; /* by this rank, from others: records, and 8 bytes a row (16 in float64 or where labels span so
                             much that row scalars are kept as logarithms)                              */
  size_t workspace_bytes; /* held by this object on this rank: N x (features + ...) and one panel a thread; for the
                             memory 8 M x (features + 2 targets + 1) beside its columns */
  double gather_seconds;  /* in which this rank waited for the exchanges of rows, and thus for other ranks */
};

struct conr;

/* Make a loss for rows of `features` features and `targets` label components.
 * Collective: duplicates `comm`.  All ranks pass equal arguments.
 * Returns 0, or non-zero with the reason in conr_error(). */
int conr_create(MPI_Comm comm, int features, int targets, enum conr_precision precision,
                const struct conr_options *options, struct conr **out);

/* The same for Fortran's integer communicator handle. */
int conr_create_fortran(MPI_Fint comm, int features, int targets, int precision, const struct conr_options *options,
                        struct conr **out);

/* Loss and gradient of the global batch.
 * grad_features  [rows, features], overwritten with d loss / d features; NULL: the loss only
 * Collective.  A value that is not finite, a negative weight, NULL arrays or wrong counts on any rank are an error on
 * all ranks, naming the rank; nothing hangs.  Only a matrix product that finds no memory while the gradient is computed
 * is the failure of its rank alone: abort the job then.  The workspace grows with the largest batch and is then
 * reused. */
int conr_loss(struct conr *conr, const struct conr_batch *batch, void *grad_features, struct conr_result *result);

/* The memory, for checkpoints: *count numbers, the same on every rank, borrowed until conr_destroy().  Copied
 * into another object of the same shape and options they make it go on with the same bits (to rounding, on another
 * number of ranks).  *count = 0 and *values = NULL without a memory.  Local. */
void conr_memory(struct conr *conr, double **values, size_t *count);

/* Collective; NULL is fine; sets *conr to NULL. */
void conr_destroy(struct conr **conr);

/* The sentence of this thread's last failure. */
const char *conr_error(void);

/* "0.1.0" */
const char *conr_version(void);

#ifdef __cplusplus
}
#endif

#endif
