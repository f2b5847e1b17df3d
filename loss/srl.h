/* SRL: geometric constraints on the curve that features run along as labels grow (Dong and others, 2025).
 *
 * Labels fall into bins, the nearest of first_bin + b bin_width.  The surrogate holds a unit row c_b of each bin: the mean
 * of the batch's normalised features q with such a label, over all ranks; of a bin that the batch lacks, the running mean
 * of the epochs before; each divided by its norm.  Bins that never had a row take no part, and "the next bin" is the next
 * one that does.
 *     enveloping   1 - 1/K sum_k max_b c_b . u_k                     K unit points u, drawn once from the seed
 *     homogeneity  the three forms of enum srl_homogeneity
 *     contrastive  1/M sum_i -log softmax_b(q_i . c_b / t) at the bin of y_i, with c constant: no gradient through it
 *     value = weight_contrastive x contrastive + weight_enveloping x enveloping + weight_homogeneity x homogeneity
 * The gradient reaches own rows through the means; stored rows are constants.  So it is that of the value except for
 * the surrogate's part in the contrastive term.
 *
 * Sums and counts of bins travel (bins x features + bins numbers); then every rank computes the same.
 *
 * Over an epoch the sums are kept; at its end each bin's running mean becomes momentum x itself + (1 - momentum) x the
 * epoch's mean, or that mean the first time.  This is state: a checkpoint keeps it, or a resumed run is another one.
 *
 *     struct srl *srl;
 *     struct srl_options options;
 *     srl_options_default(&options);
 *     options.bins = 101;
 *     TRY(srl_create(&options, features, targets, F32, &srl));
 *     each step:        TRY(srl_loss(srl, &gathered, coefficient, grad_own, &value));
 *     after an epoch:   srl_end_epoch(srl);
 *     srl_destroy(&srl); */
#ifndef CONR_LOSS_SRL_H
#define CONR_LOSS_SRL_H

#include "loss/gathered.h"

struct srl;

/* Over bins b and the next ones b': */
enum srl_homogeneity {
  SRL_ATTRACT, /* -sum c_b' . c_b + spread x variance of c_b' . c_b (unbiased): the published code for ages */
  SRL_REPEL,   /* +sum likewise: the published code for wide ages and for texts                             */
  SRL_PAPER    /* sum |c_b' - c_b|^2 / (y_b' - y_b)                                                         */
};

struct srl_options {
  double temperature; /* t > 0 */
  double weight_contrastive, weight_enveloping, weight_homogeneity;
  enum srl_homogeneity homogeneity;
  double spread;    /* of the variance                                  */
  double momentum;  /* of running means, 0 <= momentum < 1              */
  double first_bin; /* the label of bin 0, and                          */
  double bin_width; /* > 0: between bins                                */
  int bins, points; /* how many                                         */
  uint64_t seed;    /* of the points                                    */
};

/* t = 0.1, weights 1e-4, 1e-2, 1e-4, 1000 points, as published with training code; attracting; momentum 0.9; bins for
 * ages 0 .. 100. */
void srl_options_default(struct srl_options *options);

/* Everything is allocated here.  ERR_ARGUMENT says what is wrong with the options, or that there are several targets.
 * Local. */
enum status srl_create(const struct srl_options *options, int features, int targets, enum dtype dtype,
                       struct srl **out);
void srl_destroy(struct srl **srl);

/* The value over the rows of all ranks, and this rank's gradient.
 * grad_own  [own, features] of dtype: += coefficient x gradient; nothing for rows of norm <= 1e-12
 * value     without the coefficient; the same on all ranks
 * ERR_ARGUMENT for a label outside the bins.  Collective; failures are those of all ranks. */
enum status srl_loss(struct srl *srl, const struct gathered *gathered, double coefficient, void *grad_own,
                     double *value);

/* Running means take in the epoch, which begins anew.  Same value. */
void srl_end_epoch(struct srl *srl);

/* What a checkpoint keeps: the same on all ranks.  Borrowed; may be written to.
 * [bins, features] running means, [bins] 1 where a bin has one; [bins, features] and [bins] sums and counts of the epoch
 * so far.  Local. */
void srl_state(struct srl *srl, double **values, size_t *count);

/* [points, features] of dtype: unit rows, a function of the seed alone.  Borrowed; may be replaced before the first
 * loss.  Local. */
void *srl_points(struct srl *srl);

/* Bytes of all of it: about (points + 3 bins) features numbers and 4 bins x features doubles.  Local. */
size_t srl_bytes(const struct srl *srl);

#endif
