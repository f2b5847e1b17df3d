/* ACCon: the angle between two rows shall be that between their labels.
 *
 * Over the M rows of all ranks, with q = z / max(|z|, 1e-12), labels of one component, a range R of labels and
 *     c_ij = q_i . q_j,  s_ij = sqrt(1 - c_ij^2 + tau)             cosine and sine of the angle of two rows
 *     P_i  = { j != i : y_j = y_i },  n_i = |P_i|,  N_i = { j : y_j != y_i }
 *     a_ij = pi |y_i - y_j| / R                                    the angle that is wanted
 *     p_ij = (c_ij - k_i) / t                                      for P_i
 *     g_ij = -(c_ij cos a_ij + s_ij |sin a_ij|) / t                for N_i: least at the angle wanted
 *     log Z_i = log( sum_P exp p_ij + sum_N exp g_ij )
 *     value = 1/M sum_i -(t/base) [ sum_P (p_ij - log Z_i) + tau ] / (n_i + tau)
 * As published, k_i is the largest cosine of the row, its own, 1 (0 for a row of norm 0): positives are shifted and
 * negatives are not.  `consistent` has k_i = 0, a softmax over both.
 *
 * A row without positives, a single one too, gives the constant -t/base and no gradient of its own.  Labels are positives
 * when they are equal: integers or bins.  Label distances beyond R fold back: give an R that none exceeds.
 * Exponentials are of differences from each row's largest exponent: finite for any t.
 *
 * Two sweeps over panels of own rows; between them two numbers a row are gathered, and no gradient travels: cosines and
 * angles are symmetric, so the owner of a row computes what others do to it.
 *
 *     struct accon *accon;
 *     struct accon_options options;
 *     accon_options_default(&options);
 *     TRY(accon_create(&options, features, targets, F32, &accon));
 *     each step:  TRY(accon_loss(accon, &gathered, coefficient, grad_own, &value));
 *     accon_destroy(&accon); */
#ifndef CONR_LOSS_ACCON_H
#define CONR_LOSS_ACCON_H

#include "loss/accon_element.h"
#include "loss/gathered.h"

struct accon;

struct accon_options {
  double temperature, base_temperature; /* t, base > 0                             */
  double range;                         /* R > 0, in the units of labels           */
  double tau;                           /* > 0: floor of the sine, and of counts   */
  bool consistent;                      /* the same shift for positives and others */
};

/* t = base = 1, R = 100, tau = 1e-6, as published. */
void accon_options_default(struct accon_options *options);

/* The two that a backend of devices shares: what is wrong with the options, or that there are several targets
 * (ERR_ARGUMENT); and the numbers that kernels take (accon_element.h).  Local. */
enum status accon_check(const struct accon_options *options, int targets);
struct accon_rule accon_rule_of(const struct accon_options *options);

/* ERR_ARGUMENT as above.  Local. */
enum status accon_create(const struct accon_options *options, int features, int targets, enum dtype dtype,
                         struct accon **out);
void accon_destroy(struct accon **accon);

/* The value over the rows of all ranks, and this rank's gradient.
 * grad_own  [own, features] of dtype: += coefficient dvalue/dz; nothing for rows of norm <= 1e-12
 * value     without the coefficient; the same on all ranks
 * Memory grows with the largest batch and stays.  Collective; failures are those of all ranks. */
enum status accon_loss(struct accon *accon, const struct gathered *gathered, double coefficient, void *grad_own,
                       double *value);

/* Bytes of workspace: a panel of 144 rows of M numbers, two of 144 rows of features, about 50 bytes a row.  Local. */
size_t accon_bytes(const struct accon *accon);

#endif
