/* Numbers that a run learns or counts beside parameters and optimiser states, by name: what is needed to go on with the
 * same bits.  Whoever owns some lists them; the trainer writes them into checkpoints, restores them on rank 0 and gives
 * every rank the same.
 *
 *     states[count++] = (struct state_array){"loss/noise_scale", &loss->sigma, 1}; */
#ifndef CONR_MODEL_STATE_H
#define CONR_MODEL_STATE_H

#include <stddef.h>

struct state_array {
  const char *name; /* '/' separates groups; unique in a run, and shorter than 100 characters */
  double *values;   /* [count], host, borrowed from its owner                                 */
  size_t count;
};

#endif
