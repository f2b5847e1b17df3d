/* Rank-N-Contrast: rows are ordered in feature space as their labels are (Zha, Cao, Son, Yang, Katabi, 2023).
 *
 * Over the M rows of all ranks, features as they are (not normalised):
 *     s_ij  = -|z_i - z_j| / t            d_ij = sum over components of |y_i - y_j|
 *     R_ij  = { k != i : d_ik >= d_ij }   (j itself, and ties, included)
 *     value = 1/(M (M-1)) sum_i sum_{j != i} [ -s_ij + log sum_{k in R_ij} exp(s_ik) ]
 * With Z_ij the sum over R_ij, the gradient with respect to s_ij is
 *     g_ij = 1/(M (M-1)) [ exp(s_ij) sum_{j' : d_ij' <= d_ij} 1/Z_ij' - 1 ],
 * and dvalue/dz_i = -(1/t) sum_j (g_ij + g_ji) (z_i - z_j)/|z_i - z_j|; 0 where rows coincide, and with one row.
 *
 * Rows of one label are one term, and labels are walked from the farthest inwards for Z and outwards again for the sum
 * of 1/Z: O(M) a row for labels of one component, which are sorted once (on a GPU each pair searches them: O(M log M)); of
 * several they are sorted for each row.
 * Label distances are compared in double.
 *
 * g_ji needs another row's whole order, so each rank computes g for its own rows, also what it does to the others, and
 * one sum of [M, features] over ranks brings that home (on one rank nothing is summed, and that memory not taken).
 *
 * Distances come from a matrix product about the mean of all rows; where they are small beside the norms, and digits
 * would be lost, from the differences themselves.
 *
 *     struct rnc *rnc;
 *     TRY(rnc_create(&(struct rnc_options){.temperature = 2}, features, targets, F32, &rnc));
 *     each step:  TRY(rnc_loss(rnc, &gathered, coefficient, grad_own, &value));
 *     rnc_destroy(&rnc); */
#ifndef CONR_LOSS_RNC_H
#define CONR_LOSS_RNC_H

#include "loss/gathered.h"

struct rnc;

struct rnc_options {
  double temperature; /* t > 0 */
};

/* What rnc_create() asks of options.  Local. */
enum status rnc_check(const struct rnc_options *options);

/* ERR_ARGUMENT says what is wrong with the options.  Local. */
enum status rnc_create(const struct rnc_options *options, int features, int targets, enum dtype dtype,
                       struct rnc **out);
void rnc_destroy(struct rnc **rnc);

/* The value over the rows of all ranks, and this rank's gradient.
 * grad_own  [own, features] of dtype: += coefficient dvalue/dz
 * value     without the coefficient; the same on all ranks
 * Memory grows with the largest batch and stays.  Collective; failures are those of all ranks. */
enum status rnc_loss(struct rnc *rnc, const struct gathered *gathered, double coefficient, void *grad_own,
                     double *value);

/* Bytes of workspace: a panel of 144 rows of M numbers and as many bytes, about 90 bytes a row and thread, and with
 * several ranks M x features numbers.  Local. */
size_t rnc_bytes(const struct rnc *rnc);

#endif
