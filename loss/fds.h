/* Feature distribution smoothing (FDS; Yang et al. 2021, "Delving into deep imbalanced regression"): statistics of the
 * features are kept for each bucket of labels and smoothed along the buckets, and training moves the features of a
 * bucket from its own statistics to the smoothed ones, so that rare labels lean on their neighbours.
 *
 *     struct fds_options options;
 *     fds_options_default(FDS_AGES, &options);
 *     TRY(fds_create(&options, features, ranks, &fds));
 *     in each step of an epoch that fds_smooths():
 *       struct fds_edges edges = {...};                   of the whole global batch: fds_look_for_edges()
 *       TRY(fds_assign(fds, F32, rows, labels, edges, bucket));
 *       ... x := x * scale[bucket] + shift[bucket] where bucket >= 0, with the numbers of fds_tables() ...
 *     after each epoch that fds_collects(), over its training rows again:
 *       TRY(fds_collect(fds, dtype, rows, features, F32, labels));
 *       TRY(fds_update(fds, comm, epoch));
 *     fds_destroy(&fds);
 *
 * Let (m1, v1) be mean and variance of a bucket at the last epoch, (m2, v2) the smoothed ones.  A feature becomes
 *
 *     (x - m1) sqrt(clip(v2 / v1)) + m2
 *
 * and stays as it is where v1 is 0, or throughout a bucket whose v1 add up to less than 1e-10.  An update in epoch E
 * first takes the running statistics, as they are after epoch E - 1, as those of the last epoch, and smooths them; then
 * it lets the running ones take a step towards the features of epoch E.  In the published code for ages and for texts
 * both are one storage (alias), so that the step changes (m1, v1) too, but not (m2, v2); the code for depths keeps a
 * snapshot.  Here the alias outlives a resumed run, which there it does not.
 *
 * Distributions (VIR; Wang and Wang 2023, "Variational imbalanced regression").  With the option of that name a row's
 * `features` are D means mu, then their D variances var.  Of a bucket with n rows the statistics are, in the arrays of
 * mean and variance,
 *
 *     M = mean of mu                                           V = sum of var / n^2, the variance of that mean
 *     A = population variance of mu + (1 - 1/n) mean of var    B = 2 A^2 / (n - 1), or 0 for one row
 *
 * V begins with 1 too.  V and B are smoothed with the squares of the window, which do not add up to 1.  With
 * c = sqrt(clip(A2 / A1)) a row becomes
 *
 *     mu := (mu - M1) c + M2        var := (var + V1) c + V2
 *
 * and stays as it is where A1 is 0, as above: tables of scale and shift say it all, whatever the features are.  In the
 * epoch before the first statistics V1 = V2 = 1, and variances grow by 2, as published.
 *
 * All numbers are kept in double on the host, and are the same on all ranks; a row may be a sample or a pixel.
 * Functions are local unless they say otherwise. */
#ifndef CONR_LOSS_FDS_H
#define CONR_LOSS_FDS_H

#include "dist/comm.h"
#include "loss/label_window.h"
#include "model/state.h"

#include <stdbool.h>

struct fds;

/* Which published code is followed. */
enum fds_task { FDS_AGES, FDS_DEPTH, FDS_STS };

#define FDS_CUMULATIVE (-1.0)
#define FDS_MOST_BUCKETS 1000000
#define FDS_STATES 8 /* arrays that fds_states() lists at most */

struct fds_options {
  /* Bucket k holds the labels from k width to below (k + 1) width, first <= k <= last.  Labels outside belong to the
   * first or last bucket: always (depths, texts); of ages only where that bucket itself occurs, in the global batch
   * for smoothing, in the epoch for the statistics.  Edges are float32; those of depths are found by multiplication,
   * int(label * 10), as published. */
  enum fds_task task;
  int64_t first, last; /* ages: 0, 99; depths: 7, 99; texts: 0, 49          */
  double width;        /* in label units; 1; 0.1; 0.1                       */

  enum label_kernel kernel; /* gaussian, 5, 2; not wider than the buckets */
  int kernel_size;
  double kernel_sigma;

  double momentum;                    /* weight of what was known before, 0.9; FDS_CUMULATIVE: by the number of rows  */
  int64_t start_update, start_smooth; /* epochs, from 0: 0, 1                                       */
  bool snapshot;                      /* depths                                                     */
  double clip_low, clip_high;         /* of v2 / v1: 0.1, 10; 0.2, 5; 0.5, 2                        */
  bool whole_buckets;                 /* one feature of variance 0 keeps its bucket as it is: depths, as today's
                                         PyTorch computes the published code                        */
  bool distributions;                 /* features are means and variances, by the rules of ages: VIR */
  bool in_place;                      /* whoever reads features after the smoothing sees smoothed ones: ages, texts */
};

/* Does a label occur in the first, in the last bucket? */
struct fds_edges {
  bool first, last;
};

/* By name: "ages", "depth", "sts".  ERR_ARGUMENT lists them. */
enum status fds_task_by_name(const char *name, enum fds_task *task);

/* What the published code of a task does. */
void fds_options_default(enum fds_task task, struct fds_options *options);

/* features  of a row
 * ranks     of the communicator of fds_update()
 * ERR_ARGUMENT says which option cannot be; ERR_MEMORY. */
enum status fds_create(const struct fds_options *options, int64_t features, int ranks, struct fds **out);
void fds_destroy(struct fds **fds); /* NULL is fine */

const struct fds_options *fds_options_of(const struct fds *fds);
int64_t fds_buckets(const struct fds *fds); /* last - first + 1 */
int64_t fds_features(const struct fds *fds);

bool fds_smooths(const struct fds *fds, int64_t epoch);
bool fds_collects(const struct fds *fds, int64_t epoch);

/* --- a batch ------------------------------------------------------------------------------------------------ */

/* Number k of a label's bucket; first - 1 or last + 1 outside.  The label must be finite. */
int64_t fds_bucket_of(const struct fds *fds, double label);

/* Set what a label says. */
void fds_look_for_edges(const struct fds *fds, double label, struct fds_edges *edges);

/* bucket[r] = 0 .. buckets - 1, or -1: row r stays as it is.
 * labels  [rows] F32 or F64
 * edges   of all rows of all ranks; read for ages alone
 * ERR_NUMERIC: a label that is not finite. */
enum status fds_assign(const struct fds *fds, enum dtype dtype, int64_t rows, const void *labels,
                       struct fds_edges edges, int32_t *bucket);

/* scale, shift  [buckets, features] F32 or F64 */
void fds_tables(const struct fds *fds, enum dtype dtype, void *scale, void *shift);

/* --- an epoch ----------------------------------------------------------------------------------------------- */

/* Forget what was collected since the last update. */
void fds_restart(struct fds *fds);

/* Count some of this rank's rows.
 * features  [rows, features] F32, F64 or BF16, host
 * labels    [rows] F32 or F64
 * Same bits for any number of threads.  ERR_NUMERIC: a label that is not finite. */
enum status fds_collect(struct fds *fds, enum dtype dtype, int64_t rows, const void *features, enum dtype label_dtype,
                        const void *labels);

/* The end of an epoch: what all ranks have collected, joined in rank order, updates the statistics.
 * Collective.  ERR_NUMERIC on all ranks alike when a feature was not finite. */
enum status fds_update(struct fds *fds, struct comm *comm, int64_t epoch);

/* What a resumed run needs, in `states` [FDS_STATES]; returns how many: running and smoothed mean and variance
 * [buckets, features], those of the last epoch where they are a snapshot, rows seen [buckets], and the epochs of
 * updates so far [1].  Borrowed. */
size_t fds_states(struct fds *fds, struct state_array *states);

#endif
