/* What is drawn from Philox 4x32-10. */
#include "dist/philox.h"

struct random_key random_key(uint64_t seed, enum random_purpose purpose, uint64_t index) {
  return philox_key(seed, purpose, index);
}

void random_bits(struct random_key key, uint64_t a, uint64_t b, uint32_t out[4]) {
  philox_bits(key, a, b, out);
}

double random_uniform(struct random_key key, uint64_t a, uint64_t b) {
  uint32_t bits[4];
  random_bits(key, a, b, bits);
  return philox_unit(bits[0], bits[1]);
}

double random_normal(struct random_key key, uint64_t a, uint64_t b) {
  return philox_normal(key, a, b);
}

/* One pass of the Feistel network over 2 * half_bits bits. */
static uint64_t feistel(struct random_key key, int half_bits, uint64_t value) {
  uint64_t mask = ((uint64_t)1 << half_bits) - 1;
  uint64_t left = value >> half_bits, right = value & mask;
  for (uint64_t round = 0; round < 6; round++) {
    uint32_t bits[4];
    random_bits(key, right, round, bits);
    uint64_t next = left ^ ((((uint64_t)bits[0] << 32) | bits[1]) & mask);
    left = right;
    right = next;
  }
  return left << half_bits | right;
}

uint64_t random_permute(struct random_key key, uint64_t n, uint64_t position) {
  int half_bits = 1;
  while (half_bits < 32 && (uint64_t)1 << (2 * half_bits) < n)
    half_bits++;
  uint64_t value = position;
  do /* outside 0..n-1: walk on along the cycle; the domain is at most 4 n, so few walks are needed */
    value = feistel(key, half_bits, value);
  while (value >= n);
  return value;
}
