/* Colour changes, written as loops that compilers turn into vectors. */
#include "io/colour.h"

#include "io/colour_pixel.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTORISED
#endif

VECTORISED static void blend_all(uint8_t *values, size_t count, int dull, float factor) {
  for (size_t i = 0; i < count; i++)
    values[i] = colour_blend(dull, values[i], factor);
}

void colour_brightness(uint8_t *pixels, size_t count, double factor) {
  blend_all(pixels, 3 * count, 0, (float)factor);
}

VECTORISED static uint64_t luma_sum(const uint8_t *pixels, size_t count) {
  uint64_t sum = 0;
  for (size_t i = 0; i < count; i++)
    sum += colour_luma(pixels + 3 * i);
  return sum;
}

void colour_contrast(uint8_t *pixels, size_t count, double factor) {
  if (count == 0)
    return;
  int mean = colour_mean(luma_sum(pixels, count), count);
  blend_all(pixels, 3 * count, mean, (float)factor);
}

VECTORISED static void saturate_all(uint8_t *pixels, size_t count, float factor) {
  for (size_t i = 0; i < count; i++, pixels += 3)
    colour_saturate(pixels, factor);
}

void colour_saturation(uint8_t *pixels, size_t count, double factor) {
  saturate_all(pixels, count, (float)factor);
}

VECTORISED void colour_grey(uint8_t *pixels, size_t count) {
  for (size_t i = 0; i < count; i++, pixels += 3)
    pixels[0] = pixels[1] = pixels[2] = colour_luma(pixels);
}

VECTORISED static void turn_all(uint8_t *pixels, size_t count, int turn) {
  for (size_t i = 0; i < count; i++, pixels += 3)
    colour_turn(pixels, turn);
}

void colour_hue(uint8_t *pixels, size_t count, double turn) {
  turn_all(pixels, count, colour_steps(turn));
}
