/* Counter-based random numbers: a draw is a pure function of its key and counter,
 * never of the rank, thread or order in which it is asked for (Philox 4x32-10,
 * Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
 *
 *     struct random_key key = random_key(seed, RANDOM_AUGMENT, epoch);
 *     double u = random_uniform(key, sample_id, view * features + feature);
 */
#ifndef CONR_DIST_RANDOM_H
#define CONR_DIST_RANDOM_H

#include <stdint.h>

/* What a stream is for: equal seeds give unrelated streams for different purposes. */
enum random_purpose {
  RANDOM_SHUFFLE = 1,
  RANDOM_AUGMENT,
  RANDOM_DROPOUT,
  RANDOM_INIT,
  RANDOM_SPLIT,
  RANDOM_TEST,
  RANDOM_PROTOCOL,
  RANDOM_RANKSIM,
  RANDOM_POINTS,
  RANDOM_MIXTURE,
  RANDOM_ENCODING
};

struct random_key {
  uint32_t word[2];
};

/* The stream of one seed, purpose and index (an epoch, a layer, a parameter). */
struct random_key random_key(uint64_t seed, enum random_purpose purpose, uint64_t index);

/* 128 random bits at position (a, b). */
void random_bits(struct random_key key, uint64_t a, uint64_t b, uint32_t out[4]);

/* Uniform in [0, 1), 53 bits. */
double random_uniform(struct random_key key, uint64_t a, uint64_t b);

/* Standard normal (Box-Muller on one 128-bit draw). */
double random_normal(struct random_key key, uint64_t a, uint64_t b);

/* A permutation of 0..n-1 that needs no table: the element at `position`.  A balanced Feistel
 * network with cycle walking; O(1) memory, so the order of an epoch of any length is a function
 * of (key, position).  position < n. */
uint64_t random_permute(struct random_key key, uint64_t n, uint64_t position);

#endif
