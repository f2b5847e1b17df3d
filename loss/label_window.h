/* Windows along bins of labels: neighbouring labels share what is known of them (LDS shares counts, FDS statistics).
 *
 *     struct label_window window;
 *     TRY(label_window_make(LABEL_GAUSSIAN, 5, 2, WINDOW_BY_MAXIMUM, &window));
 *     TRY(label_window_check(&window, bins));
 *     label_window_convolve(&window, PADDING_ZERO, bins, 1, counts, smoothed);
 *
 * With half width h = (size - 1) / 2 and offsets o = -h .. h, before normalisation:
 *
 *     gaussian   the Gaussian of sigma, cut off at r = floor(4 sigma + 1/2) bins, folded with period `size`:
 *                sum over n of exp(-(o + n size)^2 / (2 sigma^2)), as published code gets it by filtering an impulse
 *                of `size` bins; so it is flatter than a Gaussian where r > h
 *     triang     1 - |o| / (h + 1); does not read sigma
 *     laplace    exp(-|o| / sigma)
 *
 * All functions are local and pure. */
#ifndef CONR_LOSS_LABEL_WINDOW_H
#define CONR_LOSS_LABEL_WINDOW_H

#include "dist/status.h"

#include <stdint.h>

enum label_kernel { LABEL_GAUSSIAN, LABEL_TRIANG, LABEL_LAPLACE };

/* LDS divides by the maximum; FDS by the sum, and keeps float32, as published. */
enum window_scale { WINDOW_BY_MAXIMUM, WINDOW_BY_SUM };

/* What lies beyond the bins a b c d: nothing; reflect: b a | a b c d | d c; mirror: c b | a b c d | c b. */
enum label_padding { PADDING_ZERO, PADDING_REFLECT, PADDING_MIRROR };

#define LABEL_WINDOW_MOST 1023

struct label_window {
  int size;                        /* odd */
  double value[LABEL_WINDOW_MOST]; /* [size], symmetric */
};

/* By name, "gaussian", "triang" or "laplace".  ERR_ARGUMENT lists them. */
enum status label_kernel_by_name(const char *name, enum label_kernel *kernel);

/* size   bins; odd, 1 to LABEL_WINDOW_MOST
 * sigma  bins; above 0, at most 1e6 */
enum status label_window_make(enum label_kernel kernel, int size, double sigma, enum window_scale scale,
                              struct label_window *window);

/* ERR_ARGUMENT when the window is wider than all bins together, which no padding below provides for. */
enum status label_window_check(const struct label_window *window, int64_t bins);

/* y[b, c] = sum over o of window(o) x[b + o, c].
 *
 * x, y  [bins, columns]; they must not overlap.   window  must have passed label_window_check().
 * The middle comes first in a sum, then pairs of equal distance, the farthest first: the order of the published code's
 * library, which matters where a sum is truncated to an integer. */
void label_window_convolve(const struct label_window *window, enum label_padding padding, int64_t bins, int64_t columns,
                           const double *x, double *y);

#endif
