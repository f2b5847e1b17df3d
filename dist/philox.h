/* Philox 4x32-10: what random.c draws on the host, and what kernels draw on a GPU; integers and uniform numbers to the
 * bit, normal ones up to the last bits of log and cos. */
#ifndef CONR_DIST_PHILOX_H
#define CONR_DIST_PHILOX_H

#include "dist/random.h"

#include <math.h>

#ifdef __CUDACC__
#define PHILOX_INLINE static __host__ __device__ inline
#else
#define PHILOX_INLINE static inline
#endif

PHILOX_INLINE void philox_round(uint32_t counter[4], const uint32_t key[2]) {
  uint64_t product0 = (uint64_t)0xD2511F53u * counter[0];
  uint64_t product1 = (uint64_t)0xCD9E8D57u * counter[2];
  uint32_t next[4] = {(uint32_t)(product1 >> 32) ^ counter[1] ^ key[0], (uint32_t)product1,
                      (uint32_t)(product0 >> 32) ^ counter[3] ^ key[1], (uint32_t)product0};
  for (int i = 0; i < 4; i++)
    counter[i] = next[i];
}

PHILOX_INLINE void philox(const uint32_t key_in[2], uint32_t counter[4]) {
  uint32_t key[2] = {key_in[0], key_in[1]};
  for (int round = 0; round < 10; round++) {
    philox_round(counter, key);
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
}

/* random_key().  The key of a stream is itself a draw from the seed, so that neighbouring seeds share nothing. */
PHILOX_INLINE struct random_key philox_key(uint64_t seed, enum random_purpose purpose, uint64_t index) {
  uint32_t seed_key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
  uint32_t counter[4] = {(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)purpose, 0x636F6E72u};
  struct random_key key;
  philox(seed_key, counter);
  key.word[0] = counter[0];
  key.word[1] = counter[1];
  return key;
}

/* random_bits() */
PHILOX_INLINE void philox_bits(struct random_key key, uint64_t a, uint64_t b, uint32_t out[4]) {
  out[0] = (uint32_t)a;
  out[1] = (uint32_t)(a >> 32);
  out[2] = (uint32_t)b;
  out[3] = (uint32_t)(b >> 32);
  philox(key.word, out);
}

/* 53 bits of two words, in [0, 1). */
PHILOX_INLINE double philox_unit(uint32_t high, uint32_t low) {
  return (double)(((uint64_t)high << 32 | low) >> 11) / 9007199254740992.0;
}

/* random_normal() */
PHILOX_INLINE double philox_normal(struct random_key key, uint64_t a, uint64_t b) {
  uint32_t bits[4];
  philox_bits(key, a, b, bits);
  double radius = sqrt(-2.0 * log(1.0 - philox_unit(bits[0], bits[1]))); /* 1 - u is never 0 */
  return radius * cos(2.0 * M_PI * philox_unit(bits[2], bits[3]));
}

#endif
