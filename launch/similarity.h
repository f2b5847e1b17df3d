/* How alike features are whose labels are near or far: the mean cosine similarity of all pairs of samples, in bins of
 * their labels.
 *
 *     TRY(similarity_create(&axis, width, &similarity));
 *     similarity_add(similarity, label, F32, features);                    each sample once, on one rank
 *     TRY(similarity_reduce(similarity, comm));
 *     similarity_map(similarity, values, pairs);
 *     similarity_by_distance(similarity, values, pairs);
 *     similarity_destroy(&similarity);
 *
 * No pair is looked at by itself.  With unit rows u_i and their sum S_a over the n_a samples of bin a, the mean over
 * pairs (i in a, j in b) is
 *     S_a . S_b / (n_a n_b)                     for a != b
 *     (|S_a|^2 - n_a) / (n_a (n_a - 1))         within a bin, where a sample makes no pair with itself
 * so that all samples count, whatever their number, in memory of bins x width numbers.  Rows of norm <= 1e-12, which
 * have no direction, take no part. */
#ifndef CONR_LAUNCH_SIMILARITY_H
#define CONR_LAUNCH_SIMILARITY_H

#include "dist/comm.h"
#include "launch/label_axis.h"

#define SIMILARITY_BINS 40 /* at most: its map has this number squared of cells */

struct similarity {
  struct label_axis axis;
  int64_t width;  /* of features                                                         */
  double *sums;   /* [axis.count, width + 1]: S_a, then n_a                              */
  double without; /* samples that have no direction                                      */
};

/* Local. */
enum status similarity_create(const struct label_axis *axis, int64_t width, struct similarity **out);
void similarity_destroy(struct similarity **similarity); /* NULL is fine */

/* One sample.  features [width] of dtype.  Local. */
void similarity_add(struct similarity *similarity, double label, enum dtype dtype, const void *features);

/* Sums over all ranks, on all of them.  Collective. */
enum status similarity_reduce(struct similarity *similarity, struct comm *comm);

/* values, pairs  [axis.count, axis.count]; NaN where there are no pairs.  Local. */
void similarity_map(const struct similarity *similarity, double *values, double *pairs);

/* The same by the distance of labels in bins: values, pairs [axis.count].  Local. */
void similarity_by_distance(const struct similarity *similarity, double *values, double *pairs);

#endif
