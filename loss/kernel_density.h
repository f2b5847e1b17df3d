/* Gaussian kernel density of many labels, exact to rounding and without a sum over all of them for each value:
 *
 *     p(x) = 1 / (n h sqrt(2 pi)) * sum over j of exp(-(x - y_j)^2 / (2 h^2))
 *
 *     struct kernel_density *density;
 *     TRY(kernel_density_create(n, labels, bandwidth, &density));
 *     double p = kernel_density_at(density, 30.5);
 *     kernel_density_destroy(&density);
 *
 * Labels are collected in cells half a bandwidth wide, each summed up as a power series about its centre; a value is
 * the sum of the series of the cells within 10 bandwidths (labels farther away than that would add less than 1e-20
 * of a kernel's peak).  A fast Gauss
 * transform in one dimension: n = 200,000 labels and as many values take a fraction of a second.
 * All functions are local. */
#ifndef CONR_LOSS_KERNEL_DENSITY_H
#define CONR_LOSS_KERNEL_DENSITY_H

#include "dist/status.h"

#include <stdint.h>

struct kernel_density;

/* labels     [n], finite, in any order, which changes results by rounding only; n > 0
 * bandwidth  h, label units
 * ERR_ARGUMENT for another n, bandwidth or label. */
enum status kernel_density_create(int64_t n, const double *labels, double bandwidth, struct kernel_density **out);
void kernel_density_destroy(struct kernel_density **density); /* NULL is fine */

/* Any number of threads. */
double kernel_density_at(const struct kernel_density *density, double x);

#endif
