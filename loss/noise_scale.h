/* The noise scale sigma of Balanced MSE, learned beside the network: Adam with a constant rate of its own and no decay,
 * whatever moves the network.
 *
 *     struct noise_scale scale;
 *     TRY(noise_scale_begin(&options, &scale));
 *     each step, after the gradient by sigma has been summed over ranks:
 *       noise_scale_update(&scale, gradient);
 *
 * Only its square matters to the loss: it may pass through 0.  All functions are local; ranks that make the same updates
 * hold the same bits. */
#ifndef CONR_LOSS_NOISE_SCALE_H
#define CONR_LOSS_NOISE_SCALE_H

#include "dist/status.h"
#include "model/state.h"

struct noise_scale_options {
  double initial;               /* in label units, greater than 0 */
  double lr;                    /* 0: it stays as it is           */
  double beta1, beta2, epsilon; /* of Adam                        */
};

struct noise_scale {
  struct noise_scale_options options;
  struct noise_scale_numbers {
    double sigma, m, v, steps; /* m, v: moments of the gradient */
  } now;
};

/* ERR_ARGUMENT: an initial value that is not greater than 0, a rate below 0. */
enum status noise_scale_begin(const struct noise_scale_options *options, struct noise_scale *out);

void noise_scale_update(struct noise_scale *scale, double gradient);

/* Its numbers, for checkpoints; borrowed from `scale`. */
struct state_array noise_scale_state(struct noise_scale *scale);

#endif
