/* What batch normalisation does for each channel between its passes over the values: numbers in double, one channel
 * after the other, the same arithmetic for every backend (a loop in C, a thread a channel in CUDA).
 *
 * Nothing here needs the host to know a number that was computed: the count of values that shared the statistics lies
 * beside them, once a channel, so that no channel waits for another. */
#ifndef CONR_MODEL_NORM_CHANNEL_H
#define CONR_MODEL_NORM_CHANNEL_H

#include "dist/dtype.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __CUDACC__
#define NORM_INLINE static __host__ __device__ inline
#else
#define NORM_INLINE static inline
#endif

#define NORM_EPSILON 1e-5
#define NORM_MOMENTUM 0.1

/* In the order of a step.  "Shared" stages stand before and after a sum over ranks. */
enum norm_stage {
  NORM_SHARE,       /* joint = own count x mean, and the count after the last channel       */
  NORM_JOIN,        /* joint was summed: own mean and square become those about the joint mean */
  NORM_PREPARE,     /* square was summed, if shared: inverse, and what is kept for the running statistics */
  NORM_RUNNING,     /* mean and inverse from the running statistics                         */
  NORM_GRADIENTS,   /* gradients of gamma and beta from the sums, which become means unless shared */
  NORM_MEANS,       /* the sums were summed: they become means                              */
  NORM_SHARE_KEPT,  /* sums = what was kept, about the running mean; the count after them   */
  NORM_JOIN_KEPT,   /* the sums were summed: back to what was kept                          */
  NORM_UPDATE_KEPT, /* running statistics take a step; nothing is kept any more             */
};

/* The numbers of one batch norm, in the memory of the backend. */
struct norm_channels {
  int64_t channels;
  double *mean, *inverse;           /* [channels] of the last pass: mean, 1 / sqrt(variance + epsilon)              */
  double *count;                    /* [channels] values that shared the statistics; 0 = running ones were used     */
  double *kept_count;               /* [channels] of the passes since the last update: values,                      */
  double *kept_mean, *kept_square;  /* [channels] their mean, and the sum of squared deviations from it             */
  double *sums;                     /* [2 * channels + 1] scratch, the squares, and the gradients' sums             */
  double *joint;                    /* [channels + 1] to send                                                       */
  double own_count;                 /* values per channel of this rank's last pass                                  */
  bool shared, keep;                /* the statistics are those of all ranks; NORM_PREPARE is to keep them          */
  enum dtype dtype;                 /* of the four below                                                            */
  void *running_mean, *running_var; /* [channels]                                                                   */
  void *grad_gamma, *grad_beta;     /* [channels]                                                                   */
};

NORM_INLINE double norm_number(const struct norm_channels *n, const void *data, int64_t c) {
  return n->dtype == F32 ? (double)((const float *)data)[c] : ((const double *)data)[c];
}

NORM_INLINE void norm_set_number(const struct norm_channels *n, void *data, int64_t c, double value) {
  if (n->dtype == F32)
    ((float *)data)[c] = (float)value;
  else
    ((double *)data)[c] = value;
}

NORM_INLINE void norm_keep(const struct norm_channels *n, int64_t c) {
  double before = n->kept_count[c], seen = n->count[c], count = before + seen;
  if (seen == 0)
    return;
  double apart = n->mean[c] - n->kept_mean[c];
  n->kept_square[c] += n->sums[c] + apart * apart * (before * seen / count);
  n->kept_mean[c] = before == 0 ? n->mean[c] : n->kept_mean[c] + apart * (seen / count);
  n->kept_count[c] = count;
}

NORM_INLINE void norm_join_ranks(const struct norm_channels *n, int64_t c) {
  double count = n->joint[n->channels], mean = count > 0 ? n->joint[c] / count : 0, apart = n->mean[c] - mean;
  n->count[c] = count;
  n->sums[c] += n->own_count * apart * apart;
  n->mean[c] = mean;
}

NORM_INLINE void norm_share_kept(const struct norm_channels *n, int64_t c) {
  double kept = n->kept_count[c], apart = kept > 0 ? n->kept_mean[c] - norm_number(n, n->running_mean, c) : 0;
  n->sums[c] = kept * apart;
  n->sums[n->channels + c] = n->kept_square[c] + kept * apart * apart;
  if (c == 0)
    n->sums[2 * n->channels] = kept;
}

NORM_INLINE void norm_join_kept(const struct norm_channels *n, int64_t c) {
  double kept = n->sums[2 * n->channels], apart = kept > 0 ? n->sums[c] / kept : 0;
  double square = n->sums[n->channels + c] - n->sums[c] * apart;
  n->kept_count[c] = kept;
  n->kept_mean[c] = norm_number(n, n->running_mean, c) + apart;
  n->kept_square[c] = square > 0 ? square : 0;
}

/* The variance is unbiased. */
NORM_INLINE void norm_update_kept(const struct norm_channels *n, int64_t c) {
  double kept = n->kept_count[c], variance = n->kept_square[c] / (kept > 2 ? kept - 1 : 1);
  if (kept > 0) {
    double mean = norm_number(n, n->running_mean, c), var = norm_number(n, n->running_var, c);
    norm_set_number(n, n->running_mean, c, (1 - NORM_MOMENTUM) * mean + NORM_MOMENTUM * n->kept_mean[c]);
    norm_set_number(n, n->running_var, c, (1 - NORM_MOMENTUM) * var + NORM_MOMENTUM * variance);
  }
  n->kept_count[c] = n->kept_mean[c] = n->kept_square[c] = 0;
}

NORM_INLINE void norm_means(const struct norm_channels *n, int64_t c) {
  double count = n->count[c];
  n->sums[c] = count > 0 ? n->sums[c] / count : 0;
  n->sums[n->channels + c] = count > 0 ? n->sums[n->channels + c] / count : 0;
}

/* One stage for one channel. */
NORM_INLINE void norm_channel(enum norm_stage stage, const struct norm_channels *n, int64_t c) {
  switch (stage) {
  case NORM_SHARE:
    n->joint[c] = n->own_count * n->mean[c];
    if (c == 0)
      n->joint[n->channels] = n->own_count;
    break;
  case NORM_JOIN:
    norm_join_ranks(n, c);
    break;
  case NORM_PREPARE:
    if (!n->shared)
      n->count[c] = n->own_count;
    n->inverse[c] = 1 / sqrt((n->count[c] > 0 ? n->sums[c] / n->count[c] : 0) + NORM_EPSILON);
    if (n->keep)
      norm_keep(n, c);
    break;
  case NORM_RUNNING:
    n->count[c] = 0;
    n->mean[c] = norm_number(n, n->running_mean, c);
    n->inverse[c] = 1 / sqrt(norm_number(n, n->running_var, c) + NORM_EPSILON);
    break;
  case NORM_GRADIENTS:
    norm_set_number(n, n->grad_gamma, c, n->sums[n->channels + c]);
    norm_set_number(n, n->grad_beta, c, n->sums[c]);
    if (!n->shared)
      norm_means(n, c);
    break;
  case NORM_MEANS:
    norm_means(n, c);
    break;
  case NORM_SHARE_KEPT:
    norm_share_kept(n, c);
    break;
  case NORM_JOIN_KEPT:
    norm_join_kept(n, c);
    break;
  case NORM_UPDATE_KEPT:
    norm_update_kept(n, c);
    break;
  }
}

#endif
