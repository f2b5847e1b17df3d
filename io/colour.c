/* Colour changes, written as loops that compilers turn into vectors. */
#include "io/colour.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTORISED
#endif

static inline uint8_t luma(const uint8_t *pixel) {
  return (uint8_t)((pixel[0] * 19595 + pixel[1] * 38470 + pixel[2] * 7471 + 0x8000) >> 16);
}

/* From `dull` towards `value`, and beyond. */
static inline uint8_t blend(int dull, int value, float factor) {
  float mixed = (float)dull + factor * (float)(value - dull);
  mixed = mixed < 0 ? 0 : mixed > 255 ? 255 : mixed;
  return (uint8_t)(int)mixed;
}

VECTORISED static void blend_all(uint8_t *values, size_t count, int dull, float factor) {
  for (size_t i = 0; i < count; i++)
    values[i] = blend(dull, values[i], factor);
}

void colour_brightness(uint8_t *pixels, size_t count, double factor) {
  blend_all(pixels, 3 * count, 0, (float)factor);
}

VECTORISED static uint64_t luma_sum(const uint8_t *pixels, size_t count) {
  uint64_t sum = 0;
  for (size_t i = 0; i < count; i++)
    sum += luma(pixels + 3 * i);
  return sum;
}

void colour_contrast(uint8_t *pixels, size_t count, double factor) {
  if (count == 0)
    return;
  int mean = (int)((double)luma_sum(pixels, count) / (double)count + 0.5);
  blend_all(pixels, 3 * count, mean, (float)factor);
}

VECTORISED static void saturate_all(uint8_t *pixels, size_t count, float factor) {
  for (size_t i = 0; i < count; i++, pixels += 3) {
    int grey = luma(pixels);
    pixels[0] = blend(grey, pixels[0], factor);
    pixels[1] = blend(grey, pixels[1], factor);
    pixels[2] = blend(grey, pixels[2], factor);
  }
}

void colour_saturation(uint8_t *pixels, size_t count, double factor) {
  saturate_all(pixels, count, (float)factor);
}

VECTORISED void colour_grey(uint8_t *pixels, size_t count) {
  for (size_t i = 0; i < count; i++, pixels += 3)
    pixels[0] = pixels[1] = pixels[2] = luma(pixels);
}

/* ---------------------------------------------------------------- hue */

/* Hue in 0 to 255.  The position on the hexagon, 0 to 6 from red over green and blue, is part / spread; 255 / 6 of it
 * is truncated.  All numbers before the division are whole and small, so that float is exact. */
static inline int hue_of(int red, int green, int blue, int most, int spread) {
  int part = red == most ? green - blue : green == most ? 2 * spread + blue - red : 4 * spread + red - green;
  part += part < 0 ? 6 * spread : 0;
  return (int)((float)(255 * part) / (float)(6 * (spread > 0 ? spread : 1)));
}

/* One channel at a position of the hexagon: `corner` is 5 for red, 3 for green, 1 for blue. */
static inline uint8_t channel_of(float position, float strength, float most, float corner) {
  float k = position + corner;
  k -= k >= 6 ? 6 : 0;
  float share = k < 4 - k ? k : 4 - k;
  share = share < 0 ? 0 : share > 1 ? 1 : share;
  return (uint8_t)(int)(most * (1 - strength * share) + 0.5f);
}

VECTORISED static void turn_all(uint8_t *pixels, size_t count, int turn) {
  for (size_t i = 0; i < count; i++, pixels += 3) {
    int red = pixels[0], green = pixels[1], blue = pixels[2];
    int most = red > green ? red : green, least = red < green ? red : green;
    most = blue > most ? blue : most;
    least = blue < least ? blue : least;
    int spread = most - least;
    int hue = (hue_of(red, green, blue, most, spread) + turn) & 255;
    int saturation = (int)((float)(255 * spread) / (float)(most > 0 ? most : 1));
    float position = (float)(6 * hue) / 255.0f, strength = (float)saturation / 255.0f;
    pixels[0] = channel_of(position, strength, (float)most, 5);
    pixels[1] = channel_of(position, strength, (float)most, 3);
    pixels[2] = channel_of(position, strength, (float)most, 1);
  }
}

void colour_hue(uint8_t *pixels, size_t count, double turn) {
  turn_all(pixels, count, (int)(turn * 255) & 255);
}
